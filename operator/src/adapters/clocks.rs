//! How far the clock of a machine is from that of the API servers, told by what stands in the cluster anyway. Pure.
//!
//! ```text
//!   Node       status.conditions[Ready].lastHeartbeatTime   by the machine, in the moment of its write
//!              managedFields[kubelet, status].time          by the API server that took that write
//!   NodeTask   status.inventory.takenAt                     by the machine, some time before it was relayed
//!              managedFields[.. f:inventory].time           by the API server that took it, or a later word of the same agent
//! ```
//! The kubelet's word shows both directions. An inventory may have lain with a silent agent, so that it only shows a clock that is
//! ahead: nothing is written after it was received. The kubelet of a control-plane node often talks to the API server beside it, which
//! has the same clock; its agent talks to any of them.

use super::views::timestamp;
use cupcake_crds::NodeTask;
use cupcake_engine::clock::Timestamp;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};

/// Seconds by which the machine's clock is ahead of the API servers' (behind, if negative); nothing where that cannot be told.
pub(super) fn ahead_seconds(node: &Node, heard: Option<Heard>) -> Option<i64> {
    let by_agent = heard.map(|heard| (heard.taken_at - heard.received_at).num_seconds()).filter(|ahead| *ahead > 0);
    by_kubelet(node).into_iter().chain(by_agent).max_by_key(|ahead| ahead.abs())
}

fn by_kubelet(node: &Node) -> Option<i64> {
    let conditions = node.status.as_ref()?.conditions.as_deref()?;
    // What nobody heard of any more is told by the node lifecycle controller.
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready" && condition.status != "Unknown")?;
    let said = ready.last_heartbeat_time.as_ref().and_then(timestamp)?;
    let taken = received(&node.metadata, |entry| entry.manager.as_deref() == Some("kubelet"))?;
    Some((said - taken).num_seconds())
}

/// When a machine told of itself, by its own clock and by that of the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heard {
    taken_at: Timestamp,
    received_at: Timestamp,
}

impl Heard {
    /// Of the inventory of a machine's task.
    pub fn of(task: &NodeTask) -> Option<Self> {
        let taken_at = task.status.as_ref()?.inventory.as_ref()?.taken_at?;
        let of_inventory = |entry: &ManagedFieldsEntry| {
            entry.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer("/f:status/f:inventory").is_some())
        };
        Some(Self { taken_at, received_at: received(&task.metadata, of_inventory)? })
    }
}

/// When the API server took the last write to the status by the manager that is meant.
fn received(meta: &ObjectMeta, is_meant: impl Fn(&ManagedFieldsEntry) -> bool) -> Option<Timestamp> {
    let entries = meta.managed_fields.iter().flatten();
    let of_status = entries.filter(|entry| entry.subresource.as_deref() == Some("status") && is_meant(entry));
    of_status.filter_map(|entry| entry.time.as_ref().and_then(timestamp)).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn entry(manager: &str, subresource: &str, time: &str, fields: &Value) -> Value {
        json!({"manager": manager, "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields,
            "subresource": subresource, "time": time})
    }

    fn node(ready: &str, heartbeat: &str, taken: &str) -> Node {
        let entries = [
            entry("kubelet", "status", taken, &json!({"f:status": {}})),
            entry("kubelet", "", "2026-11-22T06:00:00Z", &json!({"f:metadata": {}})),
            entry("kube-controller-manager", "status", "2026-11-22T09:00:00Z", &json!({"f:status": {}})),
        ];
        serde_json::from_value(json!({
            "metadata": {"name": "w-1", "managedFields": entries},
            "status": {"conditions": [{"type": "Ready", "status": ready, "lastHeartbeatTime": heartbeat}]},
        }))
        .unwrap()
    }

    #[test]
    fn a_clock_is_told_by_the_kubelets_own_word_against_the_moment_in_which_the_api_server_took_it() {
        let of = |ready: &str, heartbeat: &str| ahead_seconds(&node(ready, heartbeat, "2026-11-22T07:00:00Z"), None);
        assert_eq!(of("True", "2026-11-22T07:00:00Z"), Some(0));
        assert_eq!(of("True", "2026-11-22T07:07:00Z"), Some(420));
        assert_eq!(of("False", "2026-11-22T06:59:00Z"), Some(-60));
        assert_eq!(of("Unknown", "2026-11-22T06:59:00Z"), None, "not the kubelet says so");
    }

    #[test]
    fn an_inventory_shows_a_clock_that_is_ahead_and_none_that_is_behind() {
        let task = |taken_at: &str, fields: Value| -> NodeTask {
            serde_json::from_value(json!({
                "apiVersion": "cupcake.ricardomolendijk.com/v1", "kind": "NodeTask",
                "metadata": {"name": "w-1", "managedFields": [
                    entry("cupcake-agent", "status", "2026-11-22T07:00:00Z", &fields),
                    entry("cupcake-operator", "status", "2026-11-22T09:00:00Z", &json!({"f:status": {"f:other": {}}})),
                ]},
                "spec": {"nodeName": "w-1", "nodeUid": "uid"}, "status": {"inventory": {"takenAt": taken_at}},
            }))
            .unwrap()
        };
        let inventory = json!({"f:status": {"f:inventory": {}}});
        let right = node("True", "2026-11-22T07:00:00Z", "2026-11-22T07:00:00Z");
        let of = |taken_at: &str| ahead_seconds(&right, Heard::of(&task(taken_at, inventory.clone())));
        assert_eq!(of("2026-11-22T07:03:00Z"), Some(180));
        assert_eq!(of("2026-11-22T06:00:00Z"), Some(0), "its agent was silent for an hour");
        assert_eq!(Heard::of(&task("2026-11-22T07:03:00Z", json!({"f:status": {}}))), None);
    }
}
