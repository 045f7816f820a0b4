//! What holds for all six kinds: they survive the wire, read well in `kubectl explain`, are bounded everywhere, and stay small.
#![allow(clippy::disallowed_methods, reason = "tests read the examples")]
#![allow(clippy::panic, reason = "a test fails by it")]

use cupcake_crds::{
    DirectUpdate, NodeTask, ScheduledUpdate, UpdateSchedule, UpgradePlan, UpgradeRun, Validate, definitions,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::Path};

fn table() -> BTreeMap<String, Value> {
    let table: Value = serde_json::from_str(include_str!("../testdata/cases.json")).expect("the table is JSON");
    serde_json::from_value(table["objects"].clone()).expect("it holds objects by name")
}

fn there_and_back(object: &Value) -> Value {
    fn through<T: Serialize + DeserializeOwned>(object: &Value) -> Value {
        let typed: T = serde_json::from_value(object.clone()).expect("it has the type's shape");
        serde_json::to_value(typed).expect("it has a JSON form")
    }
    match object["kind"].as_str() {
        Some("DirectUpdate") => through::<DirectUpdate>(object),
        Some("ScheduledUpdate") => through::<ScheduledUpdate>(object),
        Some("UpdateSchedule") => through::<UpdateSchedule>(object),
        Some("UpgradeRun") => through::<UpgradeRun>(object),
        Some("UpgradePlan") => through::<UpgradePlan>(object),
        Some("NodeTask") => through::<NodeTask>(object),
        other => panic!("{other:?} is no kind of ours"),
    }
}

#[test]
fn every_kind_survives_the_wire() {
    for (name, object) in table() {
        assert_eq!(there_and_back(&object), object, "{name}");
    }
}

/// Each field of `schema`, with its path.
fn fields<'a>(schema: &'a Value, path: &str, visit: &mut impl FnMut(&str, &'a Value)) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        visit(&path, property);
        fields(property, &path, visit);
    }
    if schema["items"].is_object() {
        let path = format!("{path}[]");
        visit(&path, &schema["items"]);
        fields(&schema["items"], &path, visit);
    }
}

fn each_field(mut check: impl FnMut(&str, &Value)) {
    for definition in definitions() {
        let definition = serde_json::to_value(definition).expect("it has a JSON form");
        let kind = definition["spec"]["names"]["kind"].as_str().expect("it has a kind");
        fields(&definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"], kind, &mut check);
    }
}

#[test]
fn every_field_is_explained_with_an_example_or_its_choices() {
    each_field(|path, field| {
        let description = field["description"].as_str().unwrap_or_default();
        let leaf = !field["properties"].is_object() && !field["items"]["properties"].is_object();
        let opaque = ["UpgradePlan.spec.plan", "UpgradeRun.status.cursor"].contains(&path);
        let name = path.rsplit('.').next().unwrap_or(path);
        let rendered = ["graph", "events", "nodes"].contains(&name);
        let choices = field["enum"].is_array();
        if path.ends_with("[]") {
            return;
        }
        assert!(!description.is_empty(), "{path} has no description");
        if leaf && !opaque && !rendered && !choices {
            assert!(description.contains("Example: "), "{path} has no example: {description}");
        }
        for choice in field["enum"].as_array().into_iter().flatten() {
            let choice = choice.as_str().expect("choices are words");
            assert!(description.contains(choice), "{path} does not name its choice {choice}: {description}");
        }
    });
}

#[test]
fn every_field_is_bounded() {
    each_field(|path, field| {
        let has = |name: &str| !field[name].is_null();
        match field["type"].as_str() {
            Some("string") => {
                assert!(has("maxLength") || has("enum") || field["format"] == "date-time", "{path} has no maxLength");
            }
            Some("array") => assert!(has("maxItems"), "{path} has no maxItems"),
            Some("integer") => {
                assert!(has("minimum") && (has("maximum") || field["format"] == "int64"), "{path} has no bounds");
            }
            Some("object") => {
                assert!(
                    has("properties") || has("maxProperties") || path == "UpgradePlan.spec.plan",
                    "{path} has no maxProperties"
                );
            }
            Some("boolean") => {}
            None => assert_eq!(field["x-kubernetes-int-or-string"], true, "{path} has no type"),
            Some(other) => panic!("{path} has the type {other}, which nobody decided on"),
        }
        assert!(!has("nullable"), "{path} is nullable");
    });
}

#[test]
fn only_plans_and_parameters_keep_unknown_fields() {
    let mut open = Vec::new();
    each_field(|path, field| {
        if field["x-kubernetes-preserve-unknown-fields"] == true {
            open.push(path.to_owned());
        }
    });
    assert_eq!(
        open,
        ["UpgradePlan.spec.plan", "NodeTask.spec.order.finish[].params", "NodeTask.spec.order.prepare[].params"]
    );
}

#[test]
fn definitions_use_nothing_that_an_old_server_would_refuse() {
    for definition in definitions() {
        let text = serde_json::to_string(&definition).expect("it has a JSON form");
        for young in ["messageExpression", "selectableFields", "optionalOldSelf", "fieldPath", "\"reason\":\"Field"] {
            assert!(!text.contains(young), "{} uses {young}", definition.spec.names.kind);
        }
    }
}

#[test]
fn names_columns_and_categories_are_those_that_users_know() {
    let found: Vec<String> = definitions()
        .into_iter()
        .map(|definition| {
            let names = definition.spec.names;
            let columns =
                definition.spec.versions.into_iter().next().and_then(|version| version.additional_printer_columns);
            let columns: Vec<String> = columns
                .unwrap_or_default()
                .into_iter()
                .filter(|column| column.priority.unwrap_or(0) == 0)
                .map(|column| column.name)
                .collect();
            let short = names.short_names.unwrap_or_default().join(",");
            let categories = names.categories.unwrap_or_default().join(",");
            format!("{} {short} {categories} {}: {}", names.kind, definition.spec.scope, columns.join(", "))
        })
        .collect();
    assert_eq!(
        found,
        [
            "DirectUpdate du cupcake Cluster: Phase, Target, Progress, Age",
            "ScheduledUpdate su cupcake Cluster: Phase, Target, Scheduled, Age",
            "UpdateSchedule us cupcake Cluster: Schedule, Suspended, Last Schedule, Age",
            "UpgradeRun ur cupcake Cluster: Target, Progress, Cursor, Reason, Age",
            "UpgradePlan up cupcake Cluster: Run, Format, Age",
            "NodeTask nt cupcake Cluster: State, Step, Target, Kubelet, Age",
        ]
    );
}

fn examples() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut examples: Vec<(String, Value)> = std::fs::read_dir(&folder)
        .expect("examples/ is there")
        .map(|entry| entry.expect("its entries are readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("it is readable");
            let name = path.file_stem().expect("it has a name").to_string_lossy().into_owned();
            (name, serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
        })
        .collect();
    examples.sort_by(|a, b| a.0.cmp(&b.0));
    examples
}

#[test]
fn examples_are_valid_and_have_no_unknown_field() {
    let examples = examples();
    let names: Vec<&str> = examples.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "directupdate-basic",
            "directupdate-canary",
            "directupdate-multistep",
            "scheduledupdate-basic",
            "updateschedule-monthly"
        ]
    );
    for (name, example) in &examples {
        let read = there_and_back(example);
        assert_same_fields(name, &example["spec"], &read["spec"]);
        let verdict = match example["kind"].as_str() {
            Some("DirectUpdate") => serde_json::from_value::<DirectUpdate>(read).expect("read once already").validate(),
            Some("ScheduledUpdate") => {
                serde_json::from_value::<ScheduledUpdate>(read).expect("read once already").validate()
            }
            Some("UpdateSchedule") => {
                serde_json::from_value::<UpdateSchedule>(read).expect("read once already").validate()
            }
            other => panic!("{name} has the kind {other:?}"),
        };
        assert_eq!(verdict, Ok(()), "{name}");
    }
}

/// Every field of `written` is in `read` too: nothing was unknown to the type and dropped.
fn assert_same_fields(path: &str, written: &Value, read: &Value) {
    for (name, value) in written.as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        assert!(!read[name].is_null(), "{path} is unknown");
        assert_same_fields(&path, value, &read[name]);
    }
}

/// What managedFields add to an object of two writers, measured on kube-apiserver 1.34.4 and rounded up.
const MANAGED_FIELDS_BYTES: usize = 800;

#[test]
fn a_task_with_a_full_order_and_inventory_stays_below_four_kilobytes() {
    let step = |name: &str| json!({"name": name, "kind": format!("{name}/v1"), "params": {"version": "1.34.4"}});
    let key = json!({"runUid": "6f0d7f0e-0c3e-4a53-9b1a-2f6f5d1c9a77", "vertex": "worker-249.example.com/host-upgrade", "attempt": 3});
    let task = json!({
        "apiVersion": "cupcake.ricardomolendijk.com/v1", "kind": "NodeTask",
        "metadata": {"name": "worker-249.example.com", "uid": "6f0d7f0e-0c3e-4a53-9b1a-2f6f5d1c9a77", "resourceVersion": "123456"},
        "spec": {
            "nodeName": "worker-249.example.com", "nodeUid": "6f0d7f0e-0c3e-4a53-9b1a-2f6f5d1c9a77", "epoch": 4,
            "inventoryRequest": "0193a6f2-8d1c-7c55-9a59-5c1f1d0e2b11",
            "order": {
                "key": key, "epoch": 4, "targetVersion": "1.34.4", "deadlineSeconds": 1800, "proceed": true, "stop": false,
                "prepare": [step("repository-switch"), step("package-install"), step("image-presence"), step("kubeadm-upgrade-node")],
                "finish": [step("package-install"), step("kubelet-restart"), step("evidence")],
            },
        },
        "status": {
            "key": key, "state": "Failed", "epoch": 4, "step": "kubelet-restart", "message": "x".repeat(120),
            "error": {"class": "Transient", "code": "LockHeld", "message": "x".repeat(120)},
            "outputs": {"kubelet": "1.34.4", "kubeadm": "1.34.4"}, "bootId": "5b0b1f5e-6f3f-4b0b-8f39-1f5d5b7c1c11",
            "updatedAt": "2026-11-22T07:12:41Z",
            "inventory": {
                "request": "0193a6f2-8d1c-7c55-9a59-5c1f1d0e2b11", "takenAt": "2026-11-22T07:00:00Z", "kubelet": "1.33.13",
                "kubeadm": "1.33.13", "kubectl": "1.33.13", "containerd": "1.7.24", "os": "Debian GNU/Linux 12 (bookworm)",
                "packageManager": "apt", "architecture": "amd64", "cgroupVersion": 2, "diskFreeBytes": 21_474_836_480_u64,
                "diskSizeBytes": 64_424_509_440_u64, "clock": {"aheadMilliseconds": -120, "uncertaintyMilliseconds": 512},
                "role": "worker", "availableVersions": ["1.34.4", "1.34.3", "1.34.2", "1.34.1"],
                "runnerKinds": ["evidence/v1", "image-presence/v1", "kubeadm-upgrade-node/v1", "kubelet-restart/v1", "package-install/v1"],
            },
        },
    });
    let bytes = there_and_back(&task).to_string().len() + MANAGED_FIELDS_BYTES;
    assert!(bytes <= 4096, "{bytes} bytes");
}

#[test]
fn a_batch_of_250_nodes_stays_below_twenty_kilobytes() {
    let lines = |count: usize, length: usize| vec!["x".repeat(length); count];
    let run = json!({
        "apiVersion": "cupcake.ricardomolendijk.com/v1", "kind": "UpgradeRun",
        "metadata": {"name": "to-1-34-6f0d7f0e-1.34.4-workers-60", "uid": "6f0d7f0e-0c3e-4a53-9b1a-2f6f5d1c9a77"},
        "spec": table()["run"]["spec"],
        "status": {
            "phase": "InProgress", "epoch": 4, "commit": {"epoch": 4, "sequence": 117}, "currentStep": "worker-249.example.com/drain",
            // Finished nodes fold into one character each; at most 50 are in flight with six steps of eight bytes.
            "cursor": "x".repeat(250 + 50 * 6 * 8), "progress": "200/250", "reason": "StepRunning", "message": "x".repeat(120),
            "graph": lines(40, 80), "events": lines(20, 160), "startedAt": "2026-11-22T07:00:00Z", "lastUpdated": "2026-11-22T07:12:41Z",
        },
    });
    let bytes = there_and_back(&run).to_string().len() + MANAGED_FIELDS_BYTES;
    assert!(bytes <= 20_000, "{bytes} bytes");
}
