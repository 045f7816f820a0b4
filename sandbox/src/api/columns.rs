//! The columns of built-in kinds.
//!
//! Source: `k8s.io/kubernetes/pkg/printers/internalversion/printers.go`.

use super::object::{meta, meta_text};
use super::table::age;
use cupcake_engine::clock::Timestamp;
use serde_json::Value;

/// A column of a built-in kind.
pub(super) struct BuiltinColumn {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) priority: i64,
    pub(super) cell: fn(&Value, Timestamp) -> Value,
}

const fn column(name: &'static str, cell: fn(&Value, Timestamp) -> Value) -> BuiltinColumn {
    BuiltinColumn { name, kind: "string", priority: 0, cell }
}

const fn wide(name: &'static str, cell: fn(&Value, Timestamp) -> Value) -> BuiltinColumn {
    BuiltinColumn { priority: 1, ..column(name, cell) }
}

const fn count(name: &'static str, cell: fn(&Value, Timestamp) -> Value) -> BuiltinColumn {
    BuiltinColumn { kind: "integer", ..column(name, cell) }
}

const AGE: BuiltinColumn = column("Age", |object, now| Value::from(age(meta_text(object, "creationTimestamp"), now)));

/// The columns of a kind, after its name.
pub(super) fn of(kind: &str) -> &'static [BuiltinColumn] {
    match kind {
        "Node" => NODE,
        "Pod" => POD,
        "Event" => EVENT,
        "Lease" => LEASE,
        "Namespace" => NAMESPACE,
        "ConfigMap" => CONFIG_MAP,
        "Secret" => SECRET,
        "Service" => SERVICE,
        "Deployment" => DEPLOYMENT,
        "DaemonSet" => DAEMON_SET,
        "ReplicaSet" => REPLICA_SET,
        "StatefulSet" => STATEFUL_SET,
        "PodDisruptionBudget" => BUDGET,
        "CustomResourceDefinition" => DEFINITION,
        _other => PLAIN,
    }
}

fn at<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(object, |at, part| at.get(part))
}

fn text(object: &Value, path: &[&str]) -> Value {
    Value::from(at(object, path).and_then(Value::as_str).unwrap_or_default())
}

fn text_or(object: &Value, path: &[&str], absent: &str) -> Value {
    let found = at(object, path).and_then(Value::as_str).filter(|text| !text.is_empty());
    Value::from(found.unwrap_or(absent))
}

fn number(object: &Value, path: &[&str]) -> Value {
    Value::from(at(object, path).and_then(Value::as_i64).unwrap_or(0))
}

fn size(object: &Value, path: &[&str]) -> Value {
    Value::from(at(object, path).and_then(Value::as_object).map_or(0, serde_json::Map::len))
}

const PLAIN: &[BuiltinColumn] = &[AGE];

const NAMESPACE: &[BuiltinColumn] = &[column("Status", |namespace, _| text(namespace, &["status", "phase"])), AGE];

const CONFIG_MAP: &[BuiltinColumn] = &[
    column("Data", |map, _| {
        let count = |field: &str| size(map, &[field]).as_u64().unwrap_or(0);
        Value::from((count("data") + count("binaryData")).to_string())
    }),
    AGE,
];

const SECRET: &[BuiltinColumn] = &[
    column("Type", |secret, _| text(secret, &["type"])),
    column("Data", |secret, _| Value::from(size(secret, &["data"]).to_string())),
    AGE,
];

const LEASE: &[BuiltinColumn] = &[column("Holder", |lease, _| text(lease, &["spec", "holderIdentity"])), AGE];

const DEFINITION: &[BuiltinColumn] = &[BuiltinColumn {
    name: "Created At",
    kind: "date",
    priority: 0,
    cell: |definition, _| text(definition, &["metadata", "creationTimestamp"]),
}];

const SERVICE: &[BuiltinColumn] = &[
    column("Type", |service, _| text(service, &["spec", "type"])),
    column("Cluster-IP", |service, _| text_or(service, &["spec", "clusterIP"], "<none>")),
    column("External-IP", |_, _| Value::from("<none>")),
    column("Port(s)", |service, _| {
        let ports = at(service, &["spec", "ports"]).and_then(Value::as_array);
        let shown: Vec<String> = ports
            .into_iter()
            .flatten()
            .map(|port| format!("{}/{}", port["port"], port["protocol"].as_str().unwrap_or("TCP")))
            .collect();
        Value::from(if shown.is_empty() { "<none>".to_owned() } else { shown.join(",") })
    }),
    AGE,
    wide("Selector", |service, _| selector(service, &["spec", "selector"])),
];

fn selector(object: &Value, path: &[&str]) -> Value {
    let labels = at(object, path).and_then(Value::as_object);
    let shown: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    Value::from(if shown.is_empty() { "<none>".to_owned() } else { shown.join(",") })
}

const DEPLOYMENT: &[BuiltinColumn] = &[
    column("Ready", |deployment, _| ready(deployment)),
    count("Up-to-date", |deployment, _| number(deployment, &["status", "updatedReplicas"])),
    count("Available", |deployment, _| number(deployment, &["status", "availableReplicas"])),
    AGE,
    wide("Selector", |deployment, _| selector(deployment, &["spec", "selector", "matchLabels"])),
];

fn ready(workload: &Value) -> Value {
    let ready = number(workload, &["status", "readyReplicas"]);
    let wanted = number(workload, &["spec", "replicas"]);
    Value::from(format!("{ready}/{wanted}"))
}

const STATEFUL_SET: &[BuiltinColumn] = &[column("Ready", |set, _| ready(set)), AGE];

const REPLICA_SET: &[BuiltinColumn] = &[
    count("Desired", |set, _| number(set, &["spec", "replicas"])),
    count("Current", |set, _| number(set, &["status", "replicas"])),
    count("Ready", |set, _| number(set, &["status", "readyReplicas"])),
    AGE,
];

const DAEMON_SET: &[BuiltinColumn] = &[
    count("Desired", |set, _| number(set, &["status", "desiredNumberScheduled"])),
    count("Current", |set, _| number(set, &["status", "currentNumberScheduled"])),
    count("Ready", |set, _| number(set, &["status", "numberReady"])),
    count("Up-to-date", |set, _| number(set, &["status", "updatedNumberScheduled"])),
    count("Available", |set, _| number(set, &["status", "numberAvailable"])),
    column("Node Selector", |set, _| selector(set, &["spec", "template", "spec", "nodeSelector"])),
    AGE,
];

const BUDGET: &[BuiltinColumn] = &[
    column("Min Available", |budget, _| int_or_text(budget, "minAvailable")),
    column("Max Unavailable", |budget, _| int_or_text(budget, "maxUnavailable")),
    count("Allowed Disruptions", |budget, _| number(budget, &["status", "disruptionsAllowed"])),
    AGE,
];

fn int_or_text(budget: &Value, field: &str) -> Value {
    match at(budget, &["spec", field]) {
        None => Value::from("N/A"),
        Some(Value::String(text)) => Value::from(text.as_str()),
        Some(other) => Value::from(other.to_string()),
    }
}

const NODE: &[BuiltinColumn] = &[
    column("Status", |node, _| Value::from(node_status(node))),
    column("Roles", |node, _| Value::from(roles(node))),
    AGE,
    column("Version", |node, _| text(node, &["status", "nodeInfo", "kubeletVersion"])),
    wide("Internal-IP", |node, _| address(node, "InternalIP")),
    wide("External-IP", |node, _| address(node, "ExternalIP")),
    wide("OS-Image", |node, _| text_or(node, &["status", "nodeInfo", "osImage"], "<unknown>")),
    wide("Kernel-Version", |node, _| text_or(node, &["status", "nodeInfo", "kernelVersion"], "<unknown>")),
    wide("Container-Runtime", |node, _| text_or(node, &["status", "nodeInfo", "containerRuntimeVersion"], "<unknown>")),
];

fn address(node: &Value, kind: &str) -> Value {
    let found = at(node, &["status", "addresses"])
        .and_then(Value::as_array)
        .and_then(|list| list.iter().find(|address| address["type"] == kind));
    Value::from(found.and_then(|address| address["address"].as_str()).unwrap_or("<none>"))
}

fn node_status(node: &Value) -> String {
    let ready = at(node, &["status", "conditions"])
        .and_then(Value::as_array)
        .and_then(|list| list.iter().find(|condition| condition["type"] == "Ready"));
    let mut status = match ready.and_then(|condition| condition["status"].as_str()) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if at(node, &["spec", "unschedulable"]) == Some(&Value::Bool(true)) {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn roles(node: &Value) -> String {
    let labels = meta(node, "labels").and_then(Value::as_object);
    let mut roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| {
            key.strip_prefix("node-role.kubernetes.io/")
                .or_else(|| (key == "kubernetes.io/role").then(|| value.as_str()).flatten())
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") }
}

const POD: &[BuiltinColumn] = &[
    column("Ready", |pod, _| {
        let statuses = containers(pod);
        let ready = statuses.iter().filter(|status| status["ready"] == true).count();
        let all = at(pod, &["spec", "containers"]).and_then(Value::as_array).map_or(0, Vec::len);
        Value::from(format!("{ready}/{all}"))
    }),
    column("Status", |pod, _| Value::from(pod_status(pod))),
    column("Restarts", |pod, _| {
        let restarts: i64 = containers(pod).iter().filter_map(|s| s["restartCount"].as_i64()).sum();
        Value::from(restarts.to_string())
    }),
    AGE,
    wide("IP", |pod, _| text_or(pod, &["status", "podIP"], "<none>")),
    wide("Node", |pod, _| text_or(pod, &["spec", "nodeName"], "<none>")),
    wide("Nominated Node", |pod, _| text_or(pod, &["status", "nominatedNodeName"], "<none>")),
    wide("Readiness Gates", |_, _| Value::from("<none>")),
];

fn containers(pod: &Value) -> &[Value] {
    at(pod, &["status", "containerStatuses"]).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn pod_status(pod: &Value) -> String {
    let phase = at(pod, &["status", "phase"]).and_then(Value::as_str).unwrap_or_default();
    if meta(pod, "deletionTimestamp").is_some() && !matches!(phase, "Succeeded" | "Failed") {
        return "Terminating".to_owned();
    }
    let mut reason = at(pod, &["status", "reason"])
        .or_else(|| at(pod, &["status", "phase"]))
        .and_then(Value::as_str)
        .unwrap_or_default();
    for status in containers(pod) {
        for state in ["waiting", "terminated"] {
            if let Some(why) = at(status, &["state", state, "reason"]).and_then(Value::as_str) {
                reason = why;
            }
        }
    }
    reason.to_owned()
}

const EVENT: &[BuiltinColumn] = &[
    column("Last Seen", |event, now| {
        let stamp = ["series/lastObservedTime", "lastTimestamp", "firstTimestamp", "eventTime"]
            .iter()
            .find_map(|path| {
                let parts: Vec<&str> = path.split('/').collect();
                at(event, &parts)?.as_str()
            })
            .unwrap_or_else(|| meta_text(event, "creationTimestamp"));
        Value::from(age(stamp, now))
    }),
    column("Type", |event, _| text(event, &["type"])),
    column("Reason", |event, _| text(event, &["reason"])),
    column("Object", |event, _| {
        let involved = |field: &str| at(event, &["involvedObject", field]).and_then(Value::as_str).unwrap_or_default();
        Value::from(format!("{}/{}", involved("kind").to_lowercase(), involved("name")))
    }),
    wide("Subobject", |event, _| text(event, &["involvedObject", "fieldPath"])),
    wide("Source", |event, _| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let source = &event["source"];
        let named = !text(&source["component"]).is_empty() || !text(&source["host"]).is_empty();
        let (who, place) = if named {
            (text(&source["component"]), text(&source["host"]))
        } else {
            (text(&event["reportingComponent"]), text(&event["reportingInstance"]))
        };
        Value::from(if place.is_empty() { who } else { format!("{who}, {place}") })
    }),
    column("Message", |event, _| Value::from(event["message"].as_str().unwrap_or_default().trim())),
    wide("First Seen", |event, now| {
        let first = at(event, &["firstTimestamp"]).and_then(Value::as_str);
        Value::from(age(first.unwrap_or_else(|| meta_text(event, "creationTimestamp")), now))
    }),
    wide("Count", |event, _| {
        let count = at(event, &["series", "count"]).or_else(|| at(event, &["count"]));
        Value::from(count.and_then(Value::as_i64).unwrap_or(1))
    }),
    wide("Name", |event, _| text(event, &["metadata", "name"])),
];
