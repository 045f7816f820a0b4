//! The shipped program: `plan` without a cluster, and `sandbox --serve` with a real kubectl: what an administrator does, from the first
//! look to the end.
//!
//! kubectl comes from tests/apiserver/build.sh (found, or built once). Skipped with a loud line where there is no Go, never where CI
//! is set.
#![expect(
    clippy::disallowed_methods,
    reason = "starts two real programs and waits for them by the wall clock, up to a limit"
)]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::panic,
    reason = "a test says what went wrong by panicking"
)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Virtual seconds a second: an upgrade of ten virtual minutes passes in two seconds, and still a person could look.
const SPEED: &str = "300";
/// How long anything may take before the test fails.
const SECONDS_MAX: u64 = 60;
const PAUSED: &str = "cupcake.ricardomolendijk.com/paused";
/// What kubectl says while a single control plane is away, because kubeadm restarts it.
const AWAY: [&str; 5] = ["unable to handle the request", "ServiceUnavailable", "refused", "EOF", "unexpected error"];

/// A program that dies with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Cluster {
    kubectl: PathBuf,
    kubeconfig: String,
    _sandbox: Running,
}

impl Cluster {
    /// A served sandbox and a kubectl for it; `None` where there is no kubectl to be had.
    fn serve() -> Option<Self> {
        if !Command::new("go").arg("version").output().is_ok_and(|output| output.status.success()) {
            assert!(std::env::var_os("CI").is_none(), "CI is set and there is no Go: this test cannot be skipped");
            println!("\n=== SKIPPED: a real kubectl is built with Go ===\n");
            return None;
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/apiserver/build.sh");
        let built = Command::new(script).output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let kubectl = PathBuf::from(String::from_utf8(built.stdout).unwrap().trim()).join("kubectl");
        let mut sandbox = Command::new(env!("CARGO_BIN_EXE_kubectl-cupcake"))
            .args(["sandbox", "--control-planes", "1", "--workers", "3", "--from", "1.26.9"])
            .args(["--serve", "127.0.0.1:0", "--speed", SPEED])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(sandbox.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let kubeconfig = first.strip_prefix("KUBECONFIG=").unwrap_or_else(|| panic!("first line: {first}")).to_owned();
        // What it tells must be read, or it would stand still with a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self { kubectl, kubeconfig, _sandbox: Running(sandbox) })
    }

    /// kubectl, or where the line begins with `cupcake` its plugin, which is this package's program.
    fn command(&self, line: &str) -> Command {
        let (program, line) = match line.strip_prefix("cupcake ") {
            Some(line) => (PathBuf::from(env!("CARGO_BIN_EXE_kubectl-cupcake")), line),
            None => (self.kubectl.clone(), line),
        };
        let mut command = Command::new(program);
        command.args(line.split_whitespace()).env("KUBECONFIG", &self.kubeconfig).stdin(Stdio::null());
        command
    }

    /// What a command that must succeed prints. Repeated while the API is away, as a person would.
    fn says(&self, line: &str) -> String {
        let began = Instant::now();
        loop {
            let output = self.command(line).output().unwrap();
            if output.status.success() {
                return String::from_utf8(output.stdout).unwrap();
            }
            let error = String::from_utf8(output.stderr).unwrap();
            let passes = AWAY.iter().any(|word| error.contains(word)) && began.elapsed().as_secs() < SECONDS_MAX;
            assert!(passes, "kubectl {line}: {error}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn until(&self, line: &str, what: &str) -> String {
        let began = Instant::now();
        loop {
            let said = self.says(line);
            if said.contains(what) {
                return said;
            }
            assert!(began.elapsed().as_secs() < SECONDS_MAX, "kubectl {line} never said {what:?}, last:\n{said}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What `snapshot` writes down gives the plan of the cluster itself.
    fn plans_alike_from_its_file(&self) {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("served-cluster.yaml");
        let update = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/directupdate-basic.yaml");
        let plan = |cluster: &str| -> serde_json::Value {
            let output =
                self.command(&format!("cupcake plan -o json -f {}{cluster}", update.display())).output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
            serde_json::from_slice(&output.stdout).unwrap()
        };
        std::fs::write(&file, self.says("cupcake snapshot")).unwrap();
        let (live, from_file) = (plan(""), plan(&format!(" --snapshot {}", file.display())));
        // Not the plan itself, which names each Node by its UID: a file has none.
        for part in ["hops", "summary", "warnings"] {
            assert!(!live[part].is_null(), "{part}");
            assert_eq!(live[part], from_file[part], "{part}");
        }
    }

    /// Applies every file of examples/, the one that the test follows first: one update owns the cluster at a time.
    fn apply_examples(&self) {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
        let mut files: Vec<PathBuf> = std::fs::read_dir(examples).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
        files.sort_by_key(|path| (!path.ends_with("directupdate-basic.yaml"), path.clone()));
        assert_eq!(files.len(), 5);
        for file in &files {
            self.says(&format!("apply -f {}", file.display()));
        }
    }
}

#[test]
fn an_administrator_does_with_kubectl_what_the_guide_says() {
    let Some(cluster) = Cluster::serve() else { return };
    let nodes = cluster.says("get nodes");
    assert_eq!(nodes.matches("v1.26.9").count(), 4, "{nodes}");
    cluster.until("get nodetasks", "1.26.9");

    cluster.plans_alike_from_its_file();
    let mut watch = cluster.command("get directupdates -w").stdout(Stdio::piped()).spawn().unwrap();
    cluster.apply_examples();
    let updates = cluster.says("get du");
    assert!(updates.starts_with("NAME") && updates.contains("PHASE") && updates.contains("PROGRESS"), "{updates}");

    let told = cluster.until("describe upgraderun", "StepSucceeded");
    let graph: Vec<&str> = told.lines().skip_while(|line| !line.trim().starts_with("Graph:")).skip(1).take(3).collect();
    assert!(graph[0].contains("1.27.16") && graph[1].contains("├─") && graph[1].contains("preflight"), "{told}");
    assert!(told.contains("Events:") && told.contains("StepSucceeded"), "the events of this run: {told}");
    let explained = cluster.says("explain directupdate.spec --recursive");
    assert!(explained.contains("targetVersion\t<string> -required-"), "{explained}");

    cluster.says(&format!("annotate du upgrade-to-1-27 {PAUSED}=true"));
    cluster.until("get du upgrade-to-1-27 -o jsonpath={.status.message}", "paused by its annotation");
    assert!(cluster.says("cupcake pause upgrade-to-1-27").contains("is paused already"));
    cluster.says("cupcake resume upgrade-to-1-27");
    assert!(cluster.says("cupcake skip upgrade-to-1-27 w-3 --reason disk").contains("skip-1"));
    cluster.until("get du upgrade-to-1-27 -o jsonpath={.status.acknowledged}", "w-3: left out");
    let refused = cluster.command("cupcake skip upgrade-to-1-27 cp-1").output().unwrap();
    let refused = (refused.status.code(), String::from_utf8(refused.stderr).unwrap());
    assert!(refused.0 == Some(1) && refused.1.contains("kubectl cupcake retry upgrade-to-1-27 cp-1"), "{refused:?}");
    cluster.says("wait --for=condition=Succeeded du/upgrade-to-1-27 --timeout=60s");
    let moved = cluster.says("get nodes");
    // All but the one that was left out, unless the next update has it already.
    let arrived = moved.matches("v1.27.16").count() + moved.matches("v1.28.15").count();
    assert!(arrived >= 3, "{moved}");

    let canary = "get du canary-to-1-27 -o jsonpath={.status.phase}:{.status.message}";
    cluster.until(canary, "no such node");
    cluster.says("patch du canary-to-1-27 --subresource=status --type=merge -p {\"status\":{\"message\":\"by-hand\"}}");
    cluster.until(canary, "no such node");
    assert!(cluster.says("cupcake cancel canary-to-1-27").contains("asked, as cancel-1"));
    cluster.until(canary, "Cancelled:cancelled before anything was started");
    cluster.says("wait --for=condition=Succeeded du/multistep-to-1-28 --timeout=60s");
    cluster.says("delete du upgrade-to-1-27 canary-to-1-27 multistep-to-1-28");
    assert_eq!(cluster.says("get du -o name"), "");
    cluster.until("get upgraderuns -o jsonpath={.items}", "[]");

    // A watch ends with the API server that serves it, which kubeadm restarts here: as on a real cluster.
    watch.kill().unwrap();
    let seen = String::from_utf8(watch.wait_with_output().unwrap().stdout).unwrap();
    // It may have begun after the update did: a row for each change from then on.
    let rows = seen.lines().filter(|line| line.starts_with("upgrade-to-1-27") && line.contains("InProgress"));
    assert!(rows.count() >= 3, "{seen}");
}

#[test]
fn a_plan_needs_no_cluster_and_its_exit_status_says_what_it_came_to() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let cluster = folder.join("cluster.yaml");
    let node = |name: &str, role: &str| format!("- {{name: {name}, role: {role}, kubelet: 1.31.14}}\n");
    let nodes = [node("cp-1", "control-plane"), node("w-1", "worker"), node("w-2", "worker")].concat();
    std::fs::write(&cluster, format!("server: 1.31.14\nnodes:\n{nodes}")).unwrap();
    let plan = |target: &str| {
        let update = folder.join(format!("to-{target}.yaml"));
        let kind = "apiVersion: cupcake.ricardomolendijk.com/v1\nkind: DirectUpdate\nmetadata: {name: up}\n";
        std::fs::write(&update, format!("{kind}spec: {{targetVersion: {target}}}\n")).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_kubectl-cupcake"))
            .args(["plan", "-o", "json", "-f"])
            .arg(update)
            .arg("--snapshot")
            .arg(&cluster)
            .output()
            .unwrap();
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code().unwrap(), json)
    };
    let (status, changes) = plan("1.33.13");
    assert_eq!(status, 2);
    let hops = serde_json::json!([
        {"version": "1.32.13", "controlPlane": ["cp-1"], "kubelets": ["cp-1"], "batches": [],
         "images": {"coredns": "v1.11.3", "etcd": "3.5.24-0", "pause": "3.10"}},
        {"version": "1.33.13", "controlPlane": ["cp-1"], "kubelets": ["cp-1"], "batches": [["w-1", "w-2"]],
         "images": {"coredns": "v1.12.0", "etcd": "3.5.24-0", "pause": "3.10"}},
    ]);
    assert_eq!((&changes["hops"], &changes["refusals"]), (&hops, &serde_json::json!([])));
    assert_eq!(changes["warnings"][0]["code"], "NoInventory", "of a node without an inventory nothing is known");
    assert_eq!(changes["warnings"][1]["code"], "RemovedApis");
    let (status, refused) = plan("1.30.1");
    assert_eq!((status, &refused["refusals"][0]["code"]), (3, &"Downgrade".into()));
    assert!(refused["refusals"][0]["remedy"].is_string() && refused["hops"] == serde_json::json!([]));
    assert_eq!(plan("1.31.14").0, 0);
    assert_eq!(plan("newest").0, 1);
    let preflight_of = |cluster: &Path, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-cupcake"));
        let output = command.arg("preflight").args(arguments).arg("--snapshot").arg(cluster).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let preflight = |arguments: &[&str]| preflight_of(&cluster, arguments);
    let (status, list) = preflight(&["--to", "1.33.13"]);
    assert!(list.contains("! Apis ") && list.contains("✔ Skew "), "{list}");
    assert_eq!(status, 2, "no machine has told anything");
    let said: Vec<&str> = list.lines().rev().take(2).collect();
    assert_eq!(
        said[1],
        "not known whether it is fit for 1.33.13: no agent has told of any machine yet (3 machines), so nothing was found out \
         about Machines, Packages, HandMade, Kubelet, Settings, Runtime"
    );
    assert!(said[0].starts_with("next: see that CUPCAKE's agents run (docs/install.md; "), "{list}");
    let (_, told) = preflight(&["--to", "1.33.13", "-o", "json"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&told).unwrap()["verdict"], "Unknown");
    let inventories = nodes.replace('}', ", inventory: {cgroupVersion: 2, containerd: 2.1.4, swap: false}}");
    let known = folder.join("known-cluster.yaml");
    std::fs::write(&known, format!("server: 1.31.14\nnodes:\n{inventories}")).unwrap();
    let (status, list) = preflight_of(&known, &["--to", "1.33.13"]);
    assert_eq!((status, list.lines().last()), (0, Some("fit for 1.33.13: nothing stands in the way")), "{list}");
    let (status, list) = preflight(&["--to", "1.30.1"]);
    assert_eq!(status, 3);
    assert!(list.contains("✘ Versions ") && list.contains("    Downgrade: spec.targetVersion"), "{list}");
    assert_eq!(preflight(&["--to", "newest"]).0, 1);
    assert_eq!(preflight(&[]).0, 1);
}

#[test]
fn a_refused_plan_says_whether_the_update_or_the_cluster_is_to_be_mended() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (update, cluster) = (folder.join("refused.yaml"), folder.join("refusing-cluster.yaml"));
    let next = |target: &str, worker: &str| {
        let kind = "apiVersion: cupcake.ricardomolendijk.com/v1\nkind: DirectUpdate\nmetadata: {name: up}\n";
        std::fs::write(&update, format!("{kind}spec: {{targetVersion: {target}}}\n")).unwrap();
        let node = "- {name: cp-1, role: control-plane, kubelet: 1.31.14}\n- {name: w-1, role: worker, kubelet: ";
        std::fs::write(&cluster, format!("server: 1.31.14\nnodes:\n{node}{worker}}}\n")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-cupcake"));
        let output = command.args(["plan", "-f"]).arg(&update).arg("--snapshot").arg(&cluster).output().unwrap();
        assert_eq!(output.status.code(), Some(3));
        String::from_utf8(output.stdout).unwrap().lines().last().unwrap_or_default().to_owned()
    };
    assert!(next("1.30.1", "1.31.14").starts_with(&format!("next: edit {}, then ", update.display())));
    let mend = format!("next: mend what is named (docs/checks.md) and tell it in {}, then ", cluster.display());
    assert!(next("1.32.13", "1.33.0").starts_with(&mend), "no edit of the update brings a kubelet back");
}

#[test]
fn a_plan_of_a_schedule_is_that_of_what_it_would_create_now() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let cluster = folder.join("scheduled-cluster.yaml");
    let nodes = "- {name: cp-1, role: control-plane, kubelet: 1.33.4}\n- {name: w-1, role: worker, kubelet: 1.33.4}\n";
    std::fs::write(&cluster, format!("server: 1.33.4\nnodes:\n{nodes}")).unwrap();
    let plan = |kind: &str, spec: &str| {
        let file = folder.join(format!("planned-{kind}.yaml"));
        let head = format!("apiVersion: cupcake.ricardomolendijk.com/v1\nkind: {kind}\nmetadata: {{name: nightly}}\n");
        std::fs::write(&file, format!("{head}spec: {spec}\n")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-cupcake"));
        let output = command.args(["plan", "-f"]).arg(file).arg("--snapshot").arg(&cluster).output().unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        (output.status.code().unwrap(), said)
    };
    let (status, once) = plan("ScheduledUpdate", "{targetVersion: 1.33.7, scheduleAt: \"2027-01-09T22:00:00Z\"}");
    assert_eq!(status, 2, "{once}");
    assert!(once.contains("ScheduledUpdate nightly creates at 2027-01-09T22:00:00+00:00"), "{once}");
    assert!(once.contains("1.33.7"), "{once}");
    let again = |policy: &str| plan("UpdateSchedule", &format!("{{schedule: \"0 2 * * *\", updatePolicy: {policy}}}"));
    let (status, exact) = again("{targetVersionPattern: 1.33.7, nodeSelector: {pool: blue}}");
    assert_eq!(status, 2, "{exact}");
    assert!(exact.contains("UpdateSchedule nightly creates next at ") && exact.contains("1.33.7"), "{exact}");
    let (status, there) = again("{targetVersionPattern: 1.33.4}");
    assert_eq!((status, there.contains("already at 1.33.4")), (0, true), "{there}");
    let (status, unknown) = again("{targetVersionPattern: 1.33.7, drainn: {}, drain: {timeot: 5m}}");
    assert_eq!((status, unknown.contains("unknown field spec.updatePolicy.drain.timeot")), (1, true), "{unknown}");
}
