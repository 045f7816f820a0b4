//! A real kubectl, 1.33 or newer, over HTTP on loopback.
//!
//! Looked for by `CUPCAKE_KUBECTL`, on PATH, and in the cache of tests/apiserver. Skipped loudly where there is none, never where
//! `CI` is true.
#![expect(clippy::disallowed_methods, reason = "this test runs a program against a socket in real time")]

use super::TokioClock;
use super::custom::define;
use crate::api::{Server, http};
use chrono::Utc;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The first minor of kubectl 1 that the sandbox promises to serve.
const MINOR_MIN: u32 = 33;

struct Kubectl {
    program: PathBuf,
    folder: PathBuf,
}

impl Drop for Kubectl {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

struct Said {
    success: bool,
    out: String,
    err: String,
}

fn candidates() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::env::var_os("CUPCAKE_KUBECTL").map(PathBuf::from).into_iter().collect();
    let path = std::env::var_os("PATH").unwrap_or_default();
    found.extend(std::env::split_paths(&path).map(|folder| folder.join("kubectl")));
    let cache = std::env::var_os("CUPCAKE_CACHE")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/cupcake")));
    let versions = cache.and_then(|cache| std::fs::read_dir(cache.join("bin")).ok());
    let mut cached: Vec<PathBuf> =
        versions.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path().join("kubectl"))).collect();
    cached.sort();
    found.extend(cached);
    found
}

fn minor(program: &Path) -> Option<u32> {
    let output = Command::new(program).args(["version", "--client", "-o", "json"]).output().ok()?;
    let version: Value = serde_json::from_slice(&output.stdout).ok()?;
    version["clientVersion"]["minor"].as_str()?.trim_end_matches('+').parse().ok()
}

/// A kubectl that talks to a server of its own; `None` where there is no kubectl.
async fn kubectl() -> Option<(Kubectl, Server)> {
    let new_enough = |program: &PathBuf| minor(program).is_some_and(|minor| minor >= MINOR_MIN);
    let Some(program) = candidates().into_iter().find(new_enough) else {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "no kubectl 1.{MINOR_MIN} or newer found, and CI is true: set CUPCAKE_KUBECTL or run tests/apiserver/build.sh"
        );
        eprintln!(
            "SKIPPED: no kubectl 1.{MINOR_MIN} or newer found: set CUPCAKE_KUBECTL or run tests/apiserver/build.sh"
        );
        return None;
    };
    let server = Server::new(TokioClock::starting_at(Utc::now()), 7);
    define(&server).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(http::serve(listener, server.clone()));
    let folder = std::env::temp_dir().join(format!("cupcake-kubectl-{}-{}", std::process::id(), address.port()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("kubeconfig"), http::kubeconfig(address)).unwrap();
    Some((Kubectl { program, folder }, server))
}

impl Kubectl {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("KUBECONFIG", self.folder.join("kubeconfig"))
            .arg("--cache-dir")
            .arg(self.folder.join("cache"))
            .args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Said {
        let output = self.command(arguments).stdin(Stdio::null()).output().unwrap();
        Said {
            success: output.status.success(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs a command that must succeed; returns what it printed.
    fn ok(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        assert!(said.success, "kubectl {arguments:?}: {}{}", said.out, said.err);
        said.out
    }

    /// Runs a command that must fail; returns its error.
    fn refused(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        assert!(!said.success, "kubectl {arguments:?} succeeded: {}", said.out);
        said.err
    }

    fn file(&self, name: &str, content: &Value) -> String {
        let path = self.folder.join(name);
        std::fs::write(&path, content.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

fn update(target: &str) -> Value {
    json!({
        "apiVersion": "cupcake.ricardomolendijk.com/v1", "kind": "DirectUpdate",
        "metadata": {"name": "to-1-34"}, "spec": {"targetVersion": target},
    })
}

/// Blocking waits for kubectl leave a worker thread to the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn kubectl_works_with_custom_resources_as_on_a_real_server() {
    let Some((kubectl, _server)) = kubectl().await else { return };
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut applied = 0;
    for entry in std::fs::read_dir(&examples).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            assert!(kubectl.ok(&["apply", "-f", path.to_str().unwrap()]).contains("created"));
            applied += 1;
        }
    }
    assert!(applied > 0, "no examples in {}", examples.display());
    let file = kubectl.file("update.json", &update("1.34.4"));
    assert!(kubectl.ok(&["apply", "-f", &file]).contains("created"));
    assert!(kubectl.ok(&["apply", "-f", &file]).contains("unchanged"));
    let table = kubectl.ok(&["get", "du", "to-1-34"]);
    assert!(table.starts_with("NAME      PHASE   TARGET   PROGRESS   AGE\n"), "{table}");
    assert!(kubectl.ok(&["get", "cupcake"]).contains("to-1-34"));

    let mut watch = kubectl
        .command(&["get", "du", "to-1-34", "-w", "--output-watch-events"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    kubectl.ok(&["annotate", "du", "to-1-34", "example.com/paused=true"]);
    kubectl.ok(&["label", "du", "to-1-34", "team=a"]);
    let status = |status: Value| json!({"status": status}).to_string();
    let patch = ["patch", "du", "to-1-34", "--subresource=status", "--type=merge", "-p"];
    let in_progress = status(json!({"phase": "InProgress", "progress": "1/9"}));
    kubectl.ok(&[&patch[..], &[in_progress.as_str()]].concat());
    let row = kubectl.ok(&["get", "du", "to-1-34", "--no-headers"]);
    let cells: Vec<&str> = row.split_whitespace().take(4).collect();
    assert_eq!(cells, ["to-1-34", "InProgress", "1.34.4", "1/9"]);

    let mut wait = kubectl
        .command(&["wait", "--for=condition=Succeeded", "du/to-1-34", "--timeout=30s"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let condition = json!({
        "type": "Succeeded", "status": "True", "reason": "Done", "message": "done", "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let succeeded = status(json!({"phase": "Succeeded", "conditions": [condition]}));
    kubectl.ok(&[&patch[..], &[succeeded.as_str()]].concat());
    assert!(wait.wait().unwrap().success());
    kubectl.ok(&["wait", "--for=jsonpath={.status.phase}=Succeeded", "du/to-1-34", "--timeout=5s"]);

    let described = kubectl.ok(&["describe", "du", "to-1-34"]);
    let phase = described.lines().find_map(|line| line.trim().strip_prefix("Phase:"));
    assert_eq!(phase.map(str::trim), Some("Succeeded"), "{described}");
    let explained = kubectl.ok(&["explain", "directupdate.spec", "--recursive"]);
    assert!(explained.contains("targetVersion\t<string> -required-"), "{explained}");
    assert!(explained.contains("enum: rolling, parallel, canary"), "{explained}");
    assert!(kubectl.ok(&["explain", "node.spec.taints"]).contains("effect\t<string>"));

    let server_side = ["apply", "--server-side", "--force-conflicts", "-f", &file];
    assert!(kubectl.ok(&server_side).contains("serverside-applied"));
    kubectl.ok(&["delete", "du", "to-1-34"]);
    assert!(
        kubectl
            .refused(&["get", "du", "to-1-34"])
            .contains("Error from server (NotFound): directupdates.cupcake.ricardomolendijk.com \"to-1-34\" not found")
    );
    watch.kill().unwrap();
    let seen = String::from_utf8(watch.wait_with_output().unwrap().stdout).unwrap();
    let words: Vec<&str> = seen.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(
        (words.first(), words.get(1), words.last()),
        (Some(&"EVENT"), Some(&"ADDED"), Some(&"DELETED")),
        "{seen}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn kubectl_is_told_what_is_wrong_with_a_file() {
    let Some((kubectl, _server)) = kubectl().await else { return };
    let mut unknown = update("1.34.4");
    unknown["spec"]["bogus"] = json!(1);
    let refused = kubectl.refused(&["apply", "-f", &kubectl.file("unknown.json", &unknown)]);
    assert!(refused.contains("strict decoding error: unknown field \"spec.bogus\""), "{refused}");
    let refused = kubectl.refused(&["apply", "-f", &kubectl.file("bad.json", &update("soon"))]);
    assert!(refused.contains("spec.targetVersion: Invalid value: \"soon\""), "{refused}");
    let refused = kubectl.refused(&["get", "nonsense"]);
    assert!(refused.contains("the server doesn't have a resource type \"nonsense\""), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn kubectl_drains_a_node_and_honours_budgets() {
    let Some((kubectl, server)) = kubectl().await else { return };
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "w1"}});
    kubectl.ok(&["create", "-f", &kubectl.file("node.json", &node)]);
    for name in ["a", "b"] {
        kubectl.ok(&["create", "-f", &kubectl.file("pod.json", &super::pod(name, "w1"))]);
        let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        kubectl.ok(&["patch", "pod", name, "--subresource=status", "-p", &ready.to_string()]);
    }
    kubectl.ok(&["create", "pdb", "web", "--selector=app=web", "--min-available=2"]);
    kubectl.ok(&["cordon", "w1"]);
    assert!(kubectl.ok(&["get", "nodes"]).contains("SchedulingDisabled"));
    kubectl.ok(&["uncordon", "w1"]);
    let drain = ["drain", "w1", "--force", "--timeout=2s"];
    let blocked = kubectl.refused(&drain);
    assert!(blocked.contains("Cannot evict pod as it would violate the pod's disruption budget."), "{blocked}");
    kubectl.ok(&["patch", "pdb", "web", "--type=merge", "-p", "{\"spec\":{\"minAvailable\":0}}"]);
    // Somebody has to be the kubelet: pods that were evicted are marked, and go when it says so.
    let kubelet = tokio::spawn(async move {
        while !server.list("", "pods").is_empty() {
            for pod in server.list("", "pods") {
                if !pod.value()["metadata"]["deletionTimestamp"].is_null() {
                    let uri = format!("/api/v1/namespaces/default/pods/{}?gracePeriodSeconds=0", pod.name());
                    super::send(&server, "DELETE", &uri, Value::Null).await;
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    let drained = kubectl.ok(&["drain", "w1", "--force", "--timeout=30s"]);
    assert!(drained.contains("node/w1 drained"), "{drained}");
    kubelet.await.unwrap();
}

/// Serves until it is stopped: `CUPCAKE_BY_HAND=127.0.0.1:PORT cargo test -p cupcake-sandbox --lib by_hand -- --ignored`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "for trying things by hand"]
async fn by_hand() {
    let address = std::env::var("CUPCAKE_BY_HAND").unwrap();
    let server = Server::new(TokioClock::starting_at(Utc::now()), 7);
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    http::serve(listener, server).await.unwrap();
}
