//! What the machines are, asked of them anew: before an update starts, and where what is known of them stands in its way.
//!
//! A machine is asked by `spec.inventoryRequest` of its NodeTask; its agent brings the answer with the name of the request. The same
//! name for some minutes, so that asking again changes nothing.
//!
//! RBAC: patch on nodetasks.

use crate::{Operator, error_chain};
use chrono::TimeDelta;
use cupcake_crds::NodeTask;
use cupcake_crds::values::{ClusterSnapshot, NodeSnapshot};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::names::Reason;
use cupcake_workflows::{INVENTORY_SECONDS_MAX, Refusal};
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// For how long one request stands, and how old an inventory is at least before a machine that stands in the way is asked again, in
/// seconds.
const REQUEST_SECONDS: i64 = 300;
/// How old an inventory that names another kubelet than the Node may be, in seconds: it was taken before the last upgrade, or in its middle.
const OTHER_KUBELET_SECONDS_MAX: i64 = 60;
/// How many machines are asked at a time; the others with the next look.
const ASKED_MAX: usize = 250;
/// How many machines that stand in the way of a refused update are asked at a time.
const IN_THE_WAY_MAX: usize = 16;
/// How many nodes a message names; the rest are counted.
const NAMES_MAX: usize = 5;

/// Those of the nodes of which too little is known to change them: what their agents last told is from another day, or they never
/// told anything.
pub fn late<'n>(nodes: &BTreeMap<String, NodeSnapshot>, changing: &'n [String], now: Timestamp) -> Vec<&'n str> {
    let is_late = |node: &NodeSnapshot| {
        let Some(inventory) = &node.inventory else { return true };
        let Some(taken_at) = inventory.taken_at else { return true };
        let other_kubelet = inventory.kubelet.as_ref().is_some_and(|kubelet| *kubelet != node.kubelet.to_string());
        let seconds_max = if other_kubelet { OTHER_KUBELET_SECONDS_MAX } else { INVENTORY_SECONDS_MAX };
        taken_at < now - TimeDelta::seconds(seconds_max)
    };
    let of = |name: &&str| nodes.get(*name).is_some_and(is_late);
    changing.iter().map(String::as_str).filter(of).collect()
}

/// Why an update is not started yet whose machines are asked.
pub fn reason(late: &[&str], update: &str) -> Reason {
    let shown = late.iter().take(NAMES_MAX).copied().collect::<Vec<_>>().join(", ");
    let more = match late.len().saturating_sub(NAMES_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Reason::new(
        "AgentAbsent",
        format!(
            "asks each machine what it is before anything is started, and waits for: {shown}{more}; if it stays so, see the agent's pod there, or leave a worker out: kubectl cupcake skip {update} NODE"
        ),
    )
}

/// Asks machines before an update starts; `asked` is what each was last asked.
pub async fn ask(operator: &Operator, late: &[&str], asked: &BTreeMap<String, String>) {
    let request = format!("start-{}", operator.clock.now().timestamp() / REQUEST_SECONDS);
    let unasked = late.iter().filter(|name| asked.get(**name) != Some(&request));
    send(operator, unasked.take(ASKED_MAX).copied(), &request).await;
}

/// Asks the machines that stand in the way by what they were last seen to be to look again: they may have been mended since.
pub async fn ask_in_the_way(operator: &Operator, snapshot: &ClusterSnapshot, refusal: &Refusal) {
    let now = operator.clock.now();
    let old = now - TimeDelta::seconds(REQUEST_SECONDS);
    let in_question: BTreeSet<&String> = refusal.findings.iter().flat_map(|finding| &finding.nodes).collect();
    let taken_at = |name: &str| snapshot.nodes.get(name)?.inventory.as_ref()?.taken_at;
    let late = in_question.into_iter().filter(|node| taken_at(node).is_none_or(|at| at < old));
    let request = format!("again-{}", now.timestamp() / REQUEST_SECONDS);
    send(operator, late.take(IN_THE_WAY_MAX).map(String::as_str), &request).await;
}

async fn send(operator: &Operator, nodes: impl Iterator<Item = &str>, request: &str) {
    let tasks: Api<NodeTask> = Api::all(operator.client.clone());
    let patch = json!({"spec": {"inventoryRequest": request}});
    for node in nodes {
        if let Err(error) = tasks.patch(node, &PatchParams::default(), &Patch::Merge(&patch)).await {
            tracing::warn!(node, error = error_chain(&error), "no new inventory was asked for");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cupcake_crds::node_task::NodeInventory;
    use cupcake_crds::values::{Cordon, KubeVersion, NodeRef, NodeRole};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(1_790_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn a_machine_is_asked_that_never_told_what_it_is_or_told_it_too_long_ago_or_before_its_last_upgrade() {
        let told = |seconds: i64, kubelet: &str| {
            Some(NodeInventory {
                taken_at: Some(at(-seconds)),
                kubelet: Some(kubelet.to_owned()),
                ..NodeInventory::default()
            })
        };
        let cases = [
            ("fresh", told(INVENTORY_SECONDS_MAX, "1.33.4"), false),
            ("old", told(INVENTORY_SECONDS_MAX + 1, "1.33.4"), true),
            ("undated", Some(NodeInventory::default()), true),
            ("silent", None, true),
            ("of-before", told(OTHER_KUBELET_SECONDS_MAX + 1, "1.32.9"), true),
            ("in-between", told(OTHER_KUBELET_SECONDS_MAX, "1.32.9"), false),
        ];
        let node = |name: &str, inventory: &Option<NodeInventory>| NodeSnapshot {
            node: NodeRef { name: name.to_owned(), uid: format!("uid-of-{name}") },
            role: NodeRole::Worker,
            kubelet: KubeVersion::new(1, 33, 4),
            ready: true,
            cordon: Cordon::Schedulable,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            managed_by: None,
            inventory: inventory.clone(),
        };
        let nodes = cases.iter().map(|(name, told, _)| ((*name).to_owned(), node(name, told))).collect();
        let changing: Vec<String> = cases.iter().map(|(name, _, _)| (*name).to_owned()).collect();
        let wanted: Vec<&str> = cases.iter().filter(|(_, _, late)| *late).map(|(name, _, _)| *name).collect();
        assert_eq!(late(&nodes, &changing, at(0)), wanted);
        assert_eq!(late(&nodes, &changing[..1], at(0)), Vec::<&str>::new(), "nodes that do not change are not asked");
    }
}
