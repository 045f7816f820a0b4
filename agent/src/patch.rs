//! From an old and a new status to a JSON Patch on `/status` that the API server refuses if anything it rests on changed.
//!
//! `test` operations on /spec and /metadata are evaluated by the API server on the status subresource too, so a stale agent,
//! or a second one, cannot answer an order that is not there any more.

use cupcake_crds::node_task::TaskState;
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
        if new.state == Some(TaskState::Claimed) {
            // Whoever asked an unclaimed order to stop counts on nobody taking it.
            operations.push(json!({"op": "test", "path": "/spec/order/stop", "value": order.stop}));
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay_table::{now, order, status, task};
    use cupcake_crds::node_task::NodeInventory;

    /// Applies the patch as the API server does: to the object as it stands there, which may be another than was read.
    fn applied(task: &NodeTask, patch: &Patch) -> Result<NodeTask, json_patch::PatchError> {
        let mut object = serde_json::to_value(task).unwrap();
        json_patch::patch(&mut object, patch)?;
        Ok(serde_json::from_value(object).unwrap())
    }

    fn claimed() -> NodeTaskStatus {
        NodeTaskStatus { updated_at: Some(now()), ..status(1, TaskState::Claimed) }
    }

    #[test]
    fn a_patch_takes_the_task_to_the_new_status_whatever_stood_there() {
        let inventory = || Some(NodeInventory { request: Some("r".into()), ..NodeInventory::default() });
        let before = [
            None,
            Some(NodeTaskStatus { inventory: inventory(), ..NodeTaskStatus::default() }),
            Some(NodeTaskStatus {
                message: Some("left over".into()),
                inventory: inventory(),
                ..status(7, TaskState::Done)
            }),
        ];
        for before in before {
            let task = task(Some(order(1)), before.clone());
            let new = NodeTaskStatus { inventory: inventory(), ..claimed() };
            let patch = to_status(&task, &new).unwrap();
            assert_eq!(applied(&task, &patch).unwrap().status, Some(new), "{before:?}");
        }
    }

    #[test]
    fn a_claim_is_refused_once_another_order_epoch_agent_or_a_stop_was_faster() {
        let read = task(Some(order(1)), Some(status(7, TaskState::Done)));
        let patch = to_status(&read, &claimed()).unwrap();
        let other_order = task(Some(order(2)), read.status.clone());
        let mut other_epoch = read.clone();
        other_epoch.spec.order.as_mut().unwrap().epoch = 4;
        let mut stopped = read.clone();
        stopped.spec.order.as_mut().unwrap().stop = true;
        let other_agent = task(Some(order(1)), Some(claimed()));
        let faster = [("order", other_order), ("epoch", other_epoch), ("agent", other_agent), ("stop", stopped)];
        for (name, there) in faster {
            assert!(applied(&there, &patch).is_err(), "another {name}");
        }
        // Without an earlier answer to test for, the version of the whole object stands in.
        let read = task(Some(order(1)), None);
        let patch = to_status(&read, &claimed()).unwrap();
        let mut there = read.clone();
        there.metadata.resource_version = Some("42".into());
        assert!(applied(&there, &patch).is_err());
    }

    #[test]
    fn an_answer_is_refused_under_another_key_or_from_another_state() {
        let read = task(Some(order(1)), Some(claimed()));
        let patch = to_status(&read, &NodeTaskStatus { state: Some(TaskState::Done), ..claimed() }).unwrap();
        assert!(applied(&read, &patch).is_ok());
        let under_other_key = task(Some(order(1)), Some(status(2, TaskState::Claimed)));
        let from_other_state = task(Some(order(1)), Some(status(1, TaskState::Stopped)));
        assert!(applied(&under_other_key, &patch).is_err());
        assert!(applied(&from_other_state, &patch).is_err());
    }

    #[test]
    fn an_inventory_rests_on_its_request_and_not_on_the_order() {
        let mut read = task(Some(order(1)), Some(claimed()));
        read.spec.inventory_request = Some("r".into());
        let inventory = Some(NodeInventory { request: Some("r".into()), ..NodeInventory::default() });
        let patch = to_status(&read, &NodeTaskStatus { inventory, ..claimed() }).unwrap();
        let mut there = read.clone();
        there.spec.order.as_mut().unwrap().proceed = true;
        there.spec.order.as_mut().unwrap().epoch = 9;
        assert!(applied(&there, &patch).is_ok());
        there.spec.inventory_request = Some("newer".into());
        assert!(applied(&there, &patch).is_err());
    }

    #[test]
    fn nothing_is_written_for_the_time_alone() {
        let read = task(Some(order(1)), Some(claimed()));
        assert!(to_status(&read, &NodeTaskStatus { updated_at: None, ..claimed() }).is_none());
    }
}
