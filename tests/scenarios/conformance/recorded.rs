//! The vocabulary of the sequences beside what real clients ask for.
//!
//! ```text
//!   operator, agents in simulated worlds ──► Recorder ──┐
//!   kubectl, kubectl cupcake ──► recorded.txt ──────────┴─► shapes ── without ── those of the sequences ──► a missing one fails
//! ```
//! Our own clients are recorded anew in each run of the tests. What kubectl and the command line ask of a simulated cluster over HTTP
//! lies in recorded.txt, command by command; it is looked at again where tests/apiserver has that kubectl, and written anew by
//! `UPDATE_GOLDENS=1 cargo test -p cupcake-tests --test scenarios recorded`.

use super::generate;
use super::kinds::KINDS;
use super::shape::Shapes;
use chrono::TimeDelta;
use clap::Parser as _;
use cupcake_crds::values::{Concurrency, KubeVersion};
use cupcake_crds::{GROUP, VERSION};
use cupcake_engine::clock::Timestamp;
use cupcake_sandbox::api::{Observer, RequestInfo, RequestRecord, Server, http};
use cupcake_sandbox::machine::fault::Fault;
use cupcake_sandbox::world::{self, Speed, Upgrade, World, WorldConfig};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Sequences in which every shape has to come up: fewer than those of a run that counts.
const SEQUENCES: u64 = 6_000;
const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/conformance/recorded.txt");
/// How long a command that never ends is let go on, and one that does at most.
const WATCHED: Duration = Duration::from_secs(1);
const COMMAND_MAX: Duration = Duration::from_secs(90);
const FROM: KubeVersion = KubeVersion::new(1, 33, 4);
const TO: KubeVersion = KubeVersion::new(1, 34, 4);

/// What the sequences leave out though somebody asks for it: words of the line, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    (": as protobuf", "whoever takes protobuf takes JSON as well, and the sandbox answers nothing else"),
    ("?resourceVersion=0", "a real server answers from its cache then, which may be a moment behind"),
    ("(json): replace /metadata/", "kubectl moves owners of fields to its apply: managedFields are not compared"),
];

/// Shapes of what some clients ask, heard beside whoever listened before.
struct Recorder {
    before: Option<Arc<dyn Observer>>,
    is_recorded: fn(&RequestInfo) -> bool,
    /// Guards what was heard so far.
    shapes: Mutex<Shapes>,
}

impl Recorder {
    fn listen(server: &Server, is_recorded: fn(&RequestInfo) -> bool) -> Arc<Self> {
        let recorder = Arc::new(Self { before: server.observer(), is_recorded, shapes: Mutex::default() });
        server.observe(Arc::clone(&recorder) as Arc<dyn Observer>);
        recorder
    }

    fn take(&self) -> Shapes {
        std::mem::take(&mut *self.shapes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Observer for Recorder {
    fn request(&self, record: &RequestRecord<'_>) {
        if (self.is_recorded)(record.request) {
            self.shapes.lock().unwrap_or_else(PoisonError::into_inner).add(record.request);
        }
        if let Some(before) = &self.before {
            before.request(record);
        }
    }
}

fn start() -> Timestamp {
    Timestamp::from_timestamp(1_790_000_000, 0).unwrap()
}

fn is_ours(request: &RequestInfo) -> bool {
    ["operator.", "agent."].iter().any(|component| request.client.starts_with(component))
}

/// What operator and agents ask in a small cluster in which `happens`.
fn recorded(config: WorldConfig, happens: impl AsyncFnOnce(&World)) -> Shapes {
    let config = WorldConfig { control_planes: 1, workers: 2, ..config };
    world::runtime(Speed::Fastest).unwrap().block_on(async {
        let world = World::new(config).unwrap();
        let recorder = Recorder::listen(world.server(), is_ours);
        world.start();
        happens(&world).await;
        recorder.take()
    })
}

async fn pass(world: &World, seconds: i64) {
    world.clock().sleep_until(world.now() + TimeDelta::seconds(seconds)).await;
}

/// A person's request.
fn ask(world: &World, method: &str, path: &str, body: &Value) {
    let content_type = if method == "PATCH" { generate::MERGE } else { generate::JSON };
    let path = format!("/apis/{GROUP}/{VERSION}/{path}");
    let request = ::http::Request::builder().method(method).uri(path).header("content-type", content_type);
    let answer = world.server().handle("user", request.body(body.to_string().into()).unwrap());
    assert!(answer.status().is_success(), "{method}: {answer:?}");
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// All that our own clients ask: in upgrades with deaths and lost watches, at schedules, cancels, deletions and nodes that come back.
fn own() -> Shapes {
    let config = || WorldConfig::new(FROM, start());
    let upgrade = Upgrade { name: "recorded".to_owned(), to: TO, concurrency: Concurrency::Nodes(1) };
    let mut all = Shapes::default();
    let mut add = |shapes: Shapes| shapes.lines().iter().for_each(|line| all.add_line(line));
    for faults in [
        "",
        "operator@30:before operator@70:stopped",
        "agent@12:doubled runner@30:node-deleted operator@40:watches-lost",
    ] {
        let faults: Vec<Fault> = faults.split_whitespace().map(|fault| fault.parse().unwrap()).collect();
        add(recorded(WorldConfig { faults, operators: 2, ..config() }, async |world| {
            world.upgrade(&upgrade).await.unwrap();
            ask(world, "DELETE", "directupdates/recorded", &Value::Null);
            pass(world, 120).await;
        }));
    }
    add(recorded(config(), async |world| {
        let policy = json!({"targetVersionPattern": "latest-patch"});
        let spec = json!({"schedule": "0 * * * *", "updatePolicy": policy});
        ask(world, "POST", "updateschedules", &object("UpdateSchedule", "hourly", &spec));
        let spec = json!({"targetVersion": "1.34.4", "scheduleAt": (world.now() + TimeDelta::minutes(5)).to_rfc3339()});
        ask(world, "POST", "scheduledupdates", &object("ScheduledUpdate", "once", &spec));
        pass(world, 400).await;
        ask(world, "PATCH", "directupdates/once", &json!({"spec": {"control": {"pause": {"requestId": "p-1"}}}}));
        pass(world, 300).await;
        ask(world, "PATCH", "directupdates/once", &json!({"spec": {"control": {"cancel": {"requestId": "c-1"}}}}));
        pass(world, 7_200).await;
    }));
    all
}

fn generated() -> Shapes {
    let mut shapes = Shapes::default();
    for number in 0..SEQUENCES {
        shapes.add_sequence(&generate::sequence(1, number));
    }
    shapes
}

/// Whether a line speaks of a resource that the sequences speak of.
fn is_spoken_of(line: &str) -> bool {
    let resource = line.split([' ', '/', ':']).nth(1).unwrap_or_default();
    let plurals: BTreeSet<&str> = KINDS.iter().map(|kind| kind.plural).collect();
    plurals.contains(resource) || resource == "events.events.k8s.io"
}

/// What is recorded, of a kind that the sequences speak of, and not asked by them.
fn missing(recorded: &Shapes) -> Vec<String> {
    let missing = recorded.without(&generated()).into_iter().filter(|line| is_spoken_of(line));
    missing.filter(|line| !LEFT_OUT.iter().any(|(words, _)| line.contains(words))).collect()
}

#[test]
fn the_sequences_ask_in_every_way_in_which_our_own_clients_were_recorded_to_ask() {
    let own = own();
    own.lines().iter().for_each(|line| println!("{line}"));
    assert!(own.0.keys().any(|asked| asked == "patch nodetasks/status (json)"), "the agents were not recorded");
    let eviction = own.0.get("create pods/eviction").expect("the operator was not recorded");
    assert!(eviction.contains("/preconditions/uid"), "an eviction says which pod it means: {eviction:?}");
    let missing = missing(&own);
    assert!(missing.is_empty(), "teach generate.rs or writes.rs to ask:\n{}", missing.join("\n"));
}

#[test]
fn the_sequences_ask_in_every_way_in_which_kubectl_was_recorded_to_ask() {
    let text = std::fs::read_to_string(RECORDED).unwrap_or_default();
    let recorded = shapes_in(&text);
    assert!(recorded.0.len() > 40, "recorded.txt is not whole");
    let missing = missing(&recorded);
    assert!(missing.is_empty(), "teach generate.rs or writes.rs to ask:\n{}", missing.join("\n"));
}

/// All that a recording holds.
fn shapes_in(text: &str) -> Shapes {
    let mut shapes = Shapes::default();
    text.lines()
        .filter(|line| !line.starts_with(['#', '$']) && !line.is_empty())
        .for_each(|line| shapes.add_line(line));
    shapes
}

/// What an administrator types, in this order, at a cluster whose update is paused. `!` before a command: it is ended after a moment.
const TYPED: &[&str] = &[
    "kubectl get nodes",
    "kubectl get nodes -o wide",
    "kubectl get node w-1 -o yaml",
    "kubectl get nodes -l kubernetes.io/hostname=w-1",
    "! kubectl get nodes --watch",
    "kubectl describe node w-1",
    "kubectl get pods -A",
    "kubectl get pods -A --field-selector spec.nodeName=w-1 -o json",
    "kubectl describe pods -l app=shop",
    "kubectl get pdb",
    "kubectl describe pdb",
    "kubectl get events -A",
    "kubectl events",
    "kubectl get lease -n kube-system cupcake-operator -o yaml",
    "kubectl create -f {update} --dry-run=server",
    "kubectl apply -f {update}",
    "kubectl apply -f {changed}",
    "kubectl apply -f {changed} --dry-run=server",
    "kubectl apply --server-side --force-conflicts -f {update}",
    "kubectl get directupdates",
    "kubectl get du rec -o jsonpath={.status.phase}",
    "! kubectl get du rec -w",
    "kubectl get cupcake",
    "kubectl describe du rec",
    "kubectl annotate du rec example.com/note=x",
    "kubectl label du rec tier=front",
    "kubectl patch du rec --type=merge -p {\"spec\":{\"concurrency\":2}}",
    "kubectl patch du rec --type=json -p [{\"op\":\"replace\",\"path\":\"/spec/concurrency\",\"value\":1}]",
    "kubectl patch du rec --subresource=status --type=merge -p {\"status\":{\"message\":\"by-hand\"}}",
    "kubectl replace -f {update}",
    "kubectl cupcake plan -f {update}",
    "kubectl cupcake preflight --to 1.34.4",
    "kubectl cupcake snapshot",
    "kubectl cupcake status",
    "kubectl cupcake status rec",
    "kubectl cupcake pause rec --reason CHG-1",
    "kubectl cupcake skip rec w-2 --reason disk",
    "kubectl cupcake approve rec 1.34.4/control-plane-gate --comment well",
    "kubectl cupcake resume rec",
    "kubectl cupcake cancel rec",
    "kubectl cupcake watch rec",
    "kubectl get upgraderuns",
    "kubectl describe upgraderuns",
    "kubectl get nodetasks -o yaml",
    "kubectl delete du rec",
    "kubectl apply -f {schedules}",
    "kubectl get scheduledupdates,updateschedules",
    "kubectl delete -f {schedules} --cascade=foreground",
    "kubectl cordon w-1",
    "kubectl taint node w-1 example.com/note=x:PreferNoSchedule",
    "kubectl label node w-1 tier=front",
    "kubectl annotate node w-1 example.com/note=x",
    "kubectl patch node w-1 -p {\"spec\":{\"unschedulable\":true}}",
    "kubectl drain w-1 --ignore-daemonsets --timeout=60s",
    "kubectl wait --for=condition=Ready node/w-1 --timeout=60s",
    "kubectl uncordon w-1",
    "kubectl drain w-2 --ignore-daemonsets --dry-run=server --timeout=60s",
    "kubectl drain w-2 --ignore-daemonsets --disable-eviction --timeout=60s",
    "kubectl uncordon w-2",
    "kubectl create -f {pod}",
    "kubectl apply -f {pod}",
    "kubectl label pod lone tier=back",
    "kubectl delete pod lone --grace-period=0 --force",
    "kubectl delete pods -l app=shop --wait=false",
    "kubectl delete pdb --all --cascade=orphan",
    "kubectl delete events --all",
    "kubectl delete lease -n kube-system none --ignore-not-found",
];

/// Files that are named in what is typed.
fn files(folder: &Path) -> Vec<(&'static str, String)> {
    let head = "apiVersion: cupcake.ricardomolendijk.com/v1\n";
    let update = |more: &str| {
        format!(
            "{head}kind: DirectUpdate\nmetadata:\n  name: rec\n  annotations: {{cupcake.ricardomolendijk.com/paused: 'true'}}\n\
             spec: {{targetVersion: 1.34.4, approvals: [BeforeControlPlane]{more}}}\n"
        )
    };
    let schedules = format!(
        "{head}kind: ScheduledUpdate\nmetadata: {{name: once}}\nspec: {{targetVersion: 1.34.4, scheduleAt: '2031-01-01T00:00:00Z'}}\n---\n\
         {head}kind: UpdateSchedule\nmetadata: {{name: nightly}}\n\
         spec: {{schedule: '0 2 * * *', suspended: true, updatePolicy: {{targetVersionPattern: latest-patch}}}}\n"
    );
    let pod =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: lone}\nspec: {nodeName: w-2, containers: [{name: c, image: i}]}\n";
    let contents = [
        ("{update}", update("")),
        ("{changed}", update(", concurrency: 3")),
        ("{schedules}", schedules),
        ("{pod}", pod.to_owned()),
    ];
    let written = contents.into_iter().map(|(name, text)| {
        let path = folder.join(format!("{}.yaml", name.trim_matches(['{', '}'])));
        std::fs::write(&path, text).unwrap();
        (name, path.to_str().unwrap().to_owned())
    });
    written.collect()
}

/// The kubectl that `CUPCAKE_KUBECTL` names, else that of tests/apiserver; `None` where it cannot be built.
fn kubectl() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("CUPCAKE_KUBECTL") {
        return Some(PathBuf::from(named));
    }
    if !Command::new("go").arg("version").output().is_ok_and(|output| output.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "CI is set and there is no Go: this test cannot be skipped");
        println!("\n=== SKIPPED: a real kubectl is built with Go ===\n");
        return None;
    }
    let built = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/apiserver/build.sh")).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Some(PathBuf::from(String::from_utf8(built.stdout).unwrap().trim()).join("kubectl"))
}

/// Types one command; it has to succeed, unless it is one that is ended.
fn type_in(kubectl: &Path, kubeconfig: &str, line: &str) {
    let (ended, line) = line.strip_prefix("! ").map_or((false, line), |line| (true, line));
    let mut words: Vec<&str> = line.split(' ').collect();
    if let Some(words) = line.strip_prefix("kubectl cupcake ") {
        let words = ["cupcake", "--kubeconfig", kubeconfig].into_iter().chain(words.split(' '));
        let _told_on_stdout = kubectl_cupcake::run(kubectl_cupcake::Args::parse_from(words));
        return;
    }
    words.remove(0);
    let mut command = Command::new(kubectl);
    let mut child =
        command.env("KUBECONFIG", kubeconfig).args(words).stdin(std::process::Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    let longest = if ended { WATCHED } else { COMMAND_MAX };
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > longest {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(child.wait().unwrap().success() || ended, "{line}: see above");
}

/// All that is typed, and below each command what it asked for.
fn record(kubectl: &Path) -> String {
    let speed = Speed::Times(60);
    let folder = std::env::temp_dir().join(format!("cupcake-recorded-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let config = WorldConfig { workers: 2, budget: false, speed, ..WorldConfig::new(FROM, start()) };
    let text = world::runtime(speed).unwrap().block_on(async {
        let world = World::new(config).unwrap();
        let recorder = Recorder::listen(world.server(), |request| request.client == "http" && request.target.is_some());
        world.start();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let kubeconfig = folder.join("kubeconfig");
        std::fs::write(&kubeconfig, http::kubeconfig(listener.local_addr().unwrap())).unwrap();
        let serving = tokio::spawn(http::serve(listener, world.server().clone()));
        let kubeconfig = kubeconfig.to_str().unwrap().to_owned();
        // Every node has an inventory by then.
        pass(&world, 120).await;
        let mut text = String::new();
        for line in TYPED {
            writeln!(text, "\n$ {}", line.trim_start_matches("! ")).unwrap();
            let line = files(&folder).iter().fold((*line).to_owned(), |line, (name, path)| line.replace(name, path));
            let (kubectl, kubeconfig) = (kubectl.to_owned(), kubeconfig.clone());
            tokio::task::spawn_blocking(move || type_in(&kubectl, &kubeconfig, &line)).await.unwrap();
            recorder.take().lines().iter().for_each(|line| writeln!(text, "{line}").unwrap());
        }
        serving.abort();
        text
    });
    let _ = std::fs::remove_dir_all(&folder);
    text
}

#[test]
fn kubectl_and_the_command_line_ask_for_nothing_that_the_sequences_do_not_ask() {
    let Some(kubectl) = kubectl() else { return };
    let version = Command::new(&kubectl).args(["version", "--client"]).output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let version = version.lines().next().and_then(|line| line.strip_prefix("Client Version: ")).unwrap().to_owned();
    let by = format!("# By kubectl {version}.\n");
    let before = std::fs::read_to_string(RECORDED).unwrap_or_default();
    let update = std::env::var_os("UPDATE_GOLDENS").is_some();
    if !update && !before.contains(&by) {
        println!("\n=== SKIPPED: another kubectl than {version} was recorded ===\n");
        return;
    }
    let text = record(&kubectl);
    if update {
        let head = "# What kubectl and kubectl cupcake ask a simulated cluster for, by command: verb, resource and patch type, then every option\n\
                    # that is used with it. Written by: UPDATE_GOLDENS=1 cargo test -p cupcake-tests --test scenarios recorded\n";
        std::fs::write(RECORDED, format!("{head}{by}{text}")).unwrap();
        return;
    }
    // What is asked depends on moments, too: something new is no harm where the sequences ask it anyway.
    let new = missing(&shapes_in(&text));
    assert!(
        new.is_empty(),
        "write recorded.txt anew (UPDATE_GOLDENS=1), and teach the sequences to ask:\n{}",
        new.join("\n")
    );
}
