//! From an old and a new status to a JSON Patch on `/status` that the API server refuses if anything it rests on changed.
//!
//! `test` operations on /spec and /metadata are evaluated by the API server on the status subresource too, so a stale agent,
//! or a second one, cannot answer an order that is not there any more.

use cupcake_crds::{NodeTask, NodeTaskStatus};
use json_patch::Patch;
use serde_json::{Map, Value, json};

/// The patch that takes `task`, as it was read, to the new status; `None` if that is its status already.
pub fn to_status(task: &NodeTask, new: &NodeTaskStatus) -> Option<Patch> {
    let old_fields = task.status.as_ref().map(fields_of);
    let new_fields = fields_of(new);
    let changed = |name: &str| old_fields.as_ref().and_then(|old| old.get(name)) != new_fields.get(name);
    let names: std::collections::BTreeSet<&String> =
        new_fields.keys().chain(old_fields.iter().flat_map(Map::keys)).filter(|name| changed(name)).collect();
    if names.iter().all(|name| *name == "updatedAt") {
        return None;
    }
    let mut operations = Vec::new();
    let answers = names.iter().any(|name| !matches!(name.as_str(), "inventory" | "updatedAt"));
    if answers && let Some(order) = &task.spec.order {
        operations.push(json!({"op": "test", "path": "/spec/order/key", "value": order.key}));
        operations.push(json!({"op": "test", "path": "/spec/order/epoch", "value": order.epoch}));
    }
    if names.iter().any(|name| *name == "inventory")
        && let Some(request) = &task.spec.inventory_request
    {
        operations.push(json!({"op": "test", "path": "/spec/inventoryRequest", "value": request}));
    }
    match &old_fields {
        // That there is nothing cannot be tested for; that nothing happened since can.
        None => {
            operations.push(json!({
                "op": "test", "path": "/metadata/resourceVersion", "value": task.metadata.resource_version,
            }));
            operations.push(json!({"op": "add", "path": "/status", "value": new_fields}));
        }
        Some(old) => {
            for name in ["key", "state"] {
                if let Some(value) = old.get(name) {
                    operations.push(json!({"op": "test", "path": format!("/status/{name}"), "value": value}));
                }
            }
            if answers && !old.contains_key("key") {
                operations.push(json!({
                    "op": "test", "path": "/metadata/resourceVersion", "value": task.metadata.resource_version,
                }));
            }
            for name in names {
                operations.push(match new_fields.get(name) {
                    Some(value) => json!({"op": "add", "path": format!("/status/{name}"), "value": value}),
                    None => json!({"op": "remove", "path": format!("/status/{name}")}),
                });
            }
        }
    }
    Some(serde_json::from_value(Value::Array(operations)).expect("operations of the form that RFC 6902 gives them"))
}

fn fields_of(status: &NodeTaskStatus) -> Map<String, Value> {
    match serde_json::to_value(status).expect("a status has string keys only, which always serialise") {
        Value::Object(fields) => fields,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    }
}
