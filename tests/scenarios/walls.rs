//! The walls between the rooms: which crate may depend on which, and what a room may not bring with it.
//!
//! `tests/goldens/walls.txt` lists the workspace's edges as its manifests declare them. A new edge is a decision: write the
//! list anew with `UPDATE_GOLDENS=1 cargo test -p cupcake-tests walls`, and let the review see the line.
#![expect(clippy::disallowed_methods, reason = "asks cargo for the edges and reads the golden list")]

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Crates from outside that only some rooms may use directly: clients, runtimes, servers, machines.
const OUTSIDE: &[&str] =
    &["axum", "fastrand", "hyper", "jiff", "kube", "kube-core", "kube-derive", "rustix", "tokio", "tonic", "zbus"];

/// What must be nowhere below a room that decides.
const CLIENTS_AND_RUNTIMES: &[&str] = &["hyper", "kube", "kube-client", "kube-runtime", "reqwest", "tokio"];

/// What must be nowhere below a room that has no business with the API server.
const CLIENTS: &[&str] = &["kube", "kube-client", "kube-runtime"];

#[test]
fn the_rooms_depend_on_each_other_as_the_golden_list_says() {
    let path = root().join("tests/goldens/walls.txt");
    let actual = listing(&metadata());
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(&path, &actual).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    let difference = difference(&golden, &actual);
    assert!(
        difference.is_empty(),
        "edges between rooms changed:\n{}\nif that was decided: UPDATE_GOLDENS=1 cargo test -p cupcake-tests walls",
        difference.join("\n")
    );
}

#[test]
fn an_added_edge_shows() {
    let mut metadata = metadata();
    let before = listing(&metadata);
    let engine = metadata["packages"].as_array_mut().unwrap().iter_mut().find(|one| one["name"] == "cupcake-engine");
    let dependencies = engine.unwrap()["dependencies"].as_array_mut().unwrap();
    let mut added = dependencies[0].clone();
    added["name"] = "cupcake-crds".into();
    added["path"] = "/somewhere/crds".into();
    added["features"] = serde_json::json!([]);
    dependencies.push(added);
    let after = listing(&metadata);
    assert_eq!(difference(&before, &after), ["- engine -> nothing", "+ engine -> crds"]);
}

#[test]
fn the_engine_and_the_compilers_bring_no_kubernetes_client_and_no_runtime() {
    for room in ["cupcake-engine", "cupcake-crds", "cupcake-steps", "cupcake-workflows"] {
        assert_eq!(found(&below(room, &[]), CLIENTS_AND_RUNTIMES), Vec::<&str>::new(), "below {room}");
    }
}

#[test]
fn the_runner_brings_no_kubernetes_client() {
    assert_eq!(found(&below("cupcake-host", &["--features", "real"]), CLIENTS), Vec::<&str>::new());
}

#[test]
fn the_command_line_does_not_carry_the_means_to_change_the_machine_it_runs_on() {
    let features = cargo(&["tree", "--locked", "--package", "kubectl-cupcake", "--edges", "normal,features"]);
    let real: Vec<&str> = features
        .lines()
        .map(|line| line.trim_start_matches(|letter: char| !letter.is_ascii_alphabetic()))
        .filter(|line| line.starts_with("cupcake-") && (line.contains("\"real\"") || line.contains("\"real-disk\"")))
        .collect();
    assert_eq!(real, Vec::<&str>::new());
}

/// The edges of the workspace as text: one line a crate and kind of dependency, sorted.
fn listing(metadata: &Value) -> String {
    let mut inner: BTreeMap<(&str, String), BTreeSet<String>> = BTreeMap::new();
    let mut outer: BTreeMap<&str, BTreeSet<String>> = OUTSIDE.iter().map(|name| (*name, BTreeSet::new())).collect();
    for package in metadata["packages"].as_array().unwrap() {
        let room = room(package["name"].as_str().unwrap());
        inner.entry(("normal", room.to_owned())).or_default();
        for dependency in package["dependencies"].as_array().unwrap() {
            let name = dependency["name"].as_str().unwrap();
            let kind = dependency["kind"].as_str().unwrap_or("normal");
            if dependency["path"].is_string() {
                inner
                    .entry((kind, room.to_owned()))
                    .or_default()
                    .insert(self::room(name).to_owned() + &notes(dependency));
            } else if let (Some(users), "normal") = (outer.get_mut(name), kind) {
                let optional = if dependency["optional"] == true { " (optional)" } else { "" };
                users.insert(format!("{room}{optional}"));
            }
        }
    }
    let mut text = String::from(
        "# The edges between the rooms, as the manifests declare them. A line that changes here is a decision about the\n\
         # architecture. Written by: UPDATE_GOLDENS=1 cargo test -p cupcake-tests walls\n",
    );
    let mut heading = "";
    for ((kind, room), targets) in &inner {
        if *kind != heading {
            writeln!(text, "\n[{kind} dependencies]").unwrap();
            heading = *kind;
        }
        writeln!(text, "{room} -> {}", joined(targets)).unwrap();
    }
    text += "\n[crates from outside that not every room may use directly, and who does]\n";
    for (name, users) in &outer {
        writeln!(text, "{name} <- {}", joined(users)).unwrap();
    }
    text
}

fn notes(dependency: &Value) -> String {
    let mut notes: Vec<&str> = dependency["features"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    if dependency["optional"] == true {
        notes.push("optional");
    }
    if notes.is_empty() { String::new() } else { format!(" ({})", notes.join(", ")) }
}

fn joined(names: &BTreeSet<String>) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.iter().cloned().collect::<Vec<_>>().join(", ") }
}

/// The short name of a crate of ours: that of its folder, but for the command line's.
fn room(package: &str) -> &str {
    match package.strip_prefix("cupcake-") {
        Some(room) => room,
        None if package == "kubectl-cupcake" => "cli",
        None => package,
    }
}

/// The lines that only one of the two has.
fn difference(golden: &str, actual: &str) -> Vec<String> {
    let golden: BTreeSet<&str> = golden.lines().collect();
    let actual: BTreeSet<&str> = actual.lines().collect();
    let gone = golden.difference(&actual).map(|line| format!("- {line}"));
    gone.chain(actual.difference(&golden).map(|line| format!("+ {line}"))).collect()
}

/// Names of all crates that a build of `package` alone, with its default features and `more`, brings along.
fn below(package: &str, more: &[&str]) -> BTreeSet<String> {
    let arguments = [
        &["tree", "--locked", "--package", package, "--edges", "normal", "--prefix", "none", "--format", "{lib}"],
        more,
    ];
    let libraries = cargo(&arguments.concat());
    let names: BTreeSet<String> =
        libraries.lines().map(|line| line.trim_end_matches(" (*)").replace('_', "-")).collect();
    assert!(names.contains("serde-json"), "cargo tree of {package} tells something else than expected: {libraries}");
    names
}

fn found<'a>(names: &BTreeSet<String>, forbidden: &[&'a str]) -> Vec<&'a str> {
    forbidden.iter().copied().filter(|name| names.contains(*name)).collect()
}

fn metadata() -> Value {
    serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--no-deps"])).unwrap()
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {} failed: {errors}", arguments.join(" "));
    String::from_utf8(output.stdout).unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every source file below a folder of the workspace.
fn sources(folder: &std::path::Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// The tests that a page of docs/ names, and which are nowhere.
fn named_and_nowhere(page: &str) -> Vec<String> {
    let text = page_of_docs(page);
    let mut files = Vec::new();
    for room in ["engine", "steps", "crds", "workflows", "operator", "agent", "host", "cli", "sandbox"] {
        sources(&root().join(room).join("src"), &mut files);
    }
    for folder in ["tests/scenarios", "crds/tests", "cli/tests"] {
        sources(&root().join(folder), &mut files);
    }
    let named = text.split('`').skip(1).step_by(2).filter(|word| word.contains('_') && !word.contains(['.', ' ', '/']));
    let nowhere = named.filter(|name| !files.iter().any(|file| file.contains(&format!("fn {name}("))));
    nowhere.map(str::to_owned).collect()
}

fn page_of_docs(page: &str) -> String {
    std::fs::read_to_string(root().join("docs").join(page)).unwrap()
}

#[test]
fn every_test_that_the_table_of_pains_names_exists() {
    assert_eq!(named_and_nowhere("pains.md"), Vec::<String>::new());
    let text = page_of_docs("pains.md");
    assert_eq!(text.lines().filter(|line| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit()).count(), 25);
}

/// The steps of the procedure, in their order.
const REPEATED: [&str; 26] = [
    "take the lease",
    "preflight",
    "freeze the plan",
    "etcd snapshot",
    "upload",
    "host configuration archive",
    "images",
    "repository",
    "install kubeadm",
    "manifests present",
    "etcd before kubeadm",
    "kubeadm upgrade apply",
    "etcd member upgrade",
    "kubeadm upgrade node",
    "kubeadm's copies of this run",
    "addons",
    "drain",
    "kubelet's configuration",
    "containerd",
    "install kubelet, kubectl",
    "restart kubelet",
    "verify",
    "uncordon",
    "batch",
    "close a hop",
    "clean up",
];

#[test]
fn every_step_of_the_procedure_has_its_row_with_what_is_looked_at_before_it_is_repeated_and_what_shows_it() {
    let text = page_of_docs("pains.md");
    let (_, table) = text.split_once("## What is looked at before a step is repeated").unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| step |"))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    let names: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(names, REPEATED);
    for row in rows {
        let [name, done, half, tests] = row[..] else { panic!("{row:?}") };
        let shows = tests.contains('`') && !done.is_empty() && !half.is_empty();
        assert!(shows || name == "upload", "{name} is shown by nothing");
    }
}

#[test]
fn every_test_that_the_tables_of_fields_name_exists() {
    assert_eq!(named_and_nowhere("fields.md"), Vec::<String>::new());
    assert!(page_of_docs("fields.md").contains("`the_basic_example_moves_a_cluster_by_one_minor`"), "it names tests");
}
