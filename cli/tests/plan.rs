//! The shipped program: a whole plan without a cluster, as text and as JSON, beside the golden texts of tests/goldens/plan.
#![expect(clippy::disallowed_methods, reason = "starts the program, and reads the golden texts")]
#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/plan")
}

/// What `plan` prints in that folder, and its exit status.
fn plan(arguments: &[&str]) -> (String, i32) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-cupcake"));
    command.current_dir(folder()).args(["plan", "-f", "update.yaml", "--snapshot", "cluster.yaml"]).args(arguments);
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    (String::from_utf8(output.stdout).unwrap(), output.status.code().unwrap())
}

fn golden(file: &str, text: &str) {
    let path = folder().join(file);
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == text, "{file} changed; UPDATE_GOLDENS=1 takes this over:\n{text}");
}

#[test]
fn the_plan_of_a_hand_written_cluster_over_five_minors_is_as_in_the_golden_text() {
    let (text, status) = plan(&[]);
    assert_eq!(status, 2, "there is something to do");
    golden("plan.txt", &text);
    // What somebody has to know before they begin, whatever words it is told in.
    for told in ["RemovedKubeletFlags", "RemovedApis", "CgroupV1", "EtcdMinor", "EtcdStore"] {
        let (json, _) = plan(&["-o", "json"]);
        let json: Value = serde_json::from_str(&json).unwrap();
        assert!(json["warnings"].as_array().unwrap().iter().any(|warning| warning["code"] == told), "{told}");
    }
}

#[test]
fn the_same_plan_for_programs_is_as_in_the_golden_text_and_names_every_node_that_moves() {
    let (text, status) = plan(&["-o", "json"]);
    assert_eq!(status, 2, "there is something to do");
    golden("plan.json", &text);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&json["result"], &json["refusals"]), (&"Changes".into(), &Value::Array(Vec::new())));
    let moved = |hop: &Value| -> Vec<String> {
        let batches = hop["batches"].as_array().unwrap().iter().flat_map(|batch| batch.as_array().unwrap());
        batches.map(|node| node.as_str().unwrap().to_owned()).collect()
    };
    let hops: Vec<(&str, Vec<String>)> =
        json["hops"].as_array().unwrap().iter().map(|hop| (hop["version"].as_str().unwrap(), moved(hop))).collect();
    let names = |numbers: &[u32]| numbers.iter().map(|number| format!("w-{number}")).collect::<Vec<_>>();
    let wanted = [
        ("1.32.13", names(&[])),
        ("1.33.13", names(&[5])),
        ("1.34.4", names(&[1, 2, 3, 4])),
        ("1.35.4", names(&[])),
        ("1.36.3", names(&[1, 2, 3, 4, 5])),
    ];
    assert_eq!(hops, wanted, "each worker as late as the skew policy allows");
}

#[test]
fn a_patch_hop_is_told_with_its_reason_as_text_and_as_json_and_there_is_none_where_no_fact_asks_for_it() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let write = |name: &str, text: &str| {
        let file = folder.join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let kind = "apiVersion: cupcake.ricardomolendijk.com/v1\nkind: DirectUpdate\nmetadata: {name: up}\n";
    let update = write("patch-update.yaml", &format!("{kind}spec: {{targetVersion: 1.34.4}}\n"));
    let nodes =
        "nodes:\n- {name: cp-1, role: control-plane, kubelet: 1.33.2}\n- {name: w-1, role: worker, kubelet: 1.33.2}\n";
    let cluster = write("patch-cluster.yaml", &format!("server: 1.33.2\n{nodes}"));
    let facts = write(
        "patch-facts.yaml",
        "minors:\n  \"1.33\": {leaveFrom: {oldestPatch: 6, why: its etcd is too old, source: \"https://etcd.io/blog\"}}\n",
    );
    let says = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-cupcake"));
        command.args(["plan", "-f"]).arg(&update).arg("--snapshot").arg(&cluster).args(arguments);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let json = |arguments: &[&str]| -> Value { serde_json::from_str(&says(arguments)).unwrap() };
    let with = ["--facts", facts.to_str().unwrap()];
    let told = json(&["-o", "json", with[0], with[1]]);
    let (first, second) = (&told["hops"][0], &told["hops"][1]);
    assert_eq!((&first["version"], &first["batches"]), (&"1.33.13".into(), &Value::Array(Vec::new())));
    let reason = first["reason"].as_str().unwrap();
    assert!(reason.contains("etcd") && reason.contains("https://"), "{reason}");
    assert!(second["version"] == "1.34.4" && second.get("reason").is_none(), "{second}");
    let text = says(&with);
    assert!(text.contains(&format!("hop 1/2, 1.33.13\n     a patch first: {reason}\n")), "{text}");
    let without = json(&["-o", "json"]);
    let versions = without["hops"].as_array().unwrap().iter().map(|hop| &hop["version"]);
    assert_eq!(versions.collect::<Vec<_>>(), ["1.34.4"]);
}
