//! Nodes: each has a NodeTask of its name, and none is left in the hands of a run that is gone.
//!
//! RBAC: create, delete on nodetasks; list on upgraderuns; get, patch on nodes; and what `adapters::node_ops` needs.

use super::inventories;
use crate::Operator;
use crate::adapters::views::{CORDONED_AT_ANNOTATION, node_view};
use crate::adapters::{is_already_exists, is_not_found, ops_error};
use crate::guarded::Guarded;
use crate::outcome::{Next, Outcome};
use cupcake_crds::node_task::Order;
use cupcake_crds::values::Phase;
use cupcake_crds::{CORDONED_BY_ANNOTATION, NODE_LABEL, NodeTask, NodeTaskSpec, UpgradeRun};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::names::Epoch;
use cupcake_steps::ports::cluster::{CordonOwner, OpsError};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;
use std::collections::BTreeSet;

/// Makes the node's task exist, owned by that Node; removes one that belongs to an earlier Node of the name.
///
/// A watch that is behind shows a Node that is gone, or an earlier one of its name. A task for it would be removed by the garbage
/// collector at once, and that removal would bring us back here, for as long as the watch is behind: so the Node is read now.
pub async fn reconcile(operator: &Operator, epoch: Epoch, node: Option<Node>, task: Option<NodeTask>) -> Outcome {
    let Some(node) = node else {
        return Outcome::of(Next::AwaitChange);
    };
    let (name, uid) = (node.name_any(), node.uid().unwrap_or_default());
    if task.as_ref().is_some_and(|task| task.spec.node_uid == uid) {
        return Outcome::of(Next::AwaitChange);
    }
    let nodes: Api<Node> = Api::all(operator.client.clone());
    match nodes.get_metadata_opt(&name).await {
        Ok(Some(present)) if present.uid().as_deref() == Some(&uid) => {}
        // The watch will say so.
        Ok(Some(_) | None) => return Outcome::of(Next::AwaitChange),
        Err(error) => {
            tracing::warn!(node = name, error = crate::error_chain(&error), "node not read; trying again");
            return Outcome::of(Next::Failed);
        }
    }
    let api: Api<NodeTask> = Api::all(operator.client.clone());
    let result = match task {
        Some(stale) => {
            let preconditions = Preconditions { uid: stale.uid(), resource_version: None };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            api.delete(&name, &params).await.map(drop)
        }
        None => api.create(&PostParams::default(), &task_of(&name, &uid, epoch, operator.clock.now())).await.map(drop),
    };
    match result {
        Ok(()) => Outcome::of(Next::AwaitChange),
        Err(error) if is_already_exists(&error) || is_not_found(&error) => Outcome::of(Next::AwaitChange),
        Err(error) => {
            tracing::warn!(node = name, error = crate::error_chain(&error), "node has no task yet; trying again");
            Outcome::of(Next::Failed)
        }
    }
}

/// Takes a run's mark off a node that somebody else uncordoned.
pub async fn unmark(operator: &Operator, node: &Node) -> Outcome {
    let name = node.name_any();
    let annotations = json!({CORDONED_BY_ANNOTATION: null, CORDONED_AT_ANNOTATION: null});
    let patch = json!({"metadata": {"resourceVersion": node.resource_version(), "annotations": annotations}});
    let api: Api<Node> = Api::all(operator.client.clone());
    match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
        // The watch brings it back.
        Ok(_) => Outcome::of(Next::AwaitChange),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Outcome::of(Next::AwaitChange),
        Err(error) => {
            tracing::warn!(node = name, error = crate::error_chain(&error), "stale mark not taken off; trying again");
            Outcome::of(Next::Failed)
        }
    }
}

/// What of a run holds a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    /// Its cordon: one that has failed may leave it, for a person to look at. A leader that was stopped before it cordoned may do so
    /// when it wakes up and its run has ended otherwise meanwhile.
    Cordon,
    /// An order without an end: a run that is over gives none. A leader that was stopped before it placed one may do so when it
    /// wakes up and its run has ended meanwhile.
    Order,
}

/// Whether a cordon of the run is to stay: as long as it goes on, and where it failed.
pub fn may_leave_a_cordon(run: &UpgradeRun) -> bool {
    match run.status.as_ref().and_then(|status| status.phase) {
        Some(Phase::Succeeded | Phase::Cancelled) => false,
        Some(Phase::Pending | Phase::InProgress | Phase::RequiresAttention | Phase::Failed) | None => true,
    }
}

/// UIDs of the runs that have the node in their hands, and by what.
pub fn runs_of(node: &Node, task: Option<&NodeTask>) -> BTreeSet<(String, Hold)> {
    let cordon = match node_view(node).cordon {
        CordonOwner::Run { uid, .. } => Some((uid, Hold::Cordon)),
        CordonOwner::Other | CordonOwner::Nobody => None,
    };
    let order = task.and_then(open_order).map(|order| (order.key.run_uid.clone(), Hold::Order));
    cordon.into_iter().chain(order).collect()
}

/// The order that could still be worked on.
fn open_order(task: &NodeTask) -> Option<&Order> {
    let ended = match task.answer() {
        Some(state) => state.is_final(),
        None => task.spec.order.as_ref().is_some_and(|order| order.stop),
    };
    task.spec.order.as_ref().filter(|_| !ended)
}

/// Takes the node out of the hands of runs that no longer exist, or are over: an order of theirs is asked to stop, and once it has
/// ended a cordon of theirs is lifted, unless they failed. A run that somebody deleted in its middle cannot do that itself any more, nor
/// one that had ended when what a stopped leader had on its way arrived.
pub async fn give_back(operator: &Operator, epoch: Epoch, name: &str) -> Outcome {
    match given_back(operator, epoch, name).await {
        Ok(next) => Outcome::of(next),
        Err(OpsError::Changed(_)) => Outcome::of(Next::AtOnce),
        Err(OpsError::Transient(reason) | OpsError::NeedsOperator(reason)) => {
            tracing::warn!(node = name, %reason, "node of a run that is gone not given back; trying again");
            Outcome::of(Next::Failed)
        }
    }
}

async fn given_back(operator: &Operator, epoch: Epoch, name: &str) -> Result<Next, OpsError> {
    // The watch may be behind in either direction: what decides is read now, the node and its task before the runs, since a run
    // exists before it touches a node.
    let nodes = &operator.ports.nodes;
    let (Some(node), task) = (nodes.node(name).await?, nodes.task(name).await?) else {
        return Ok(Next::AwaitChange);
    };
    let runs: Api<Guarded<UpgradeRun>> = Api::all(operator.client.clone());
    let runs = runs.list(&ListParams::default()).await;
    let runs = runs.map_err(|error| ops_error("list upgraderuns", &error))?.items;
    let uid_of = |run: &Guarded<UpgradeRun>| match &run.0 {
        Ok(run) => run.uid(),
        Err(invalid) => invalid.metadata.uid.clone(),
    };
    let is_open = |run: &&Guarded<UpgradeRun>| run.0.as_ref().map_or(true, |run| !crate::leader::is_final(run));
    let may_hold = |run: &&Guarded<UpgradeRun>| run.0.as_ref().map_or(true, may_leave_a_cordon);
    let holding: BTreeSet<String> = runs.iter().filter(may_hold).filter_map(uid_of).collect();
    let open: BTreeSet<String> = runs.iter().filter(is_open).filter_map(uid_of).collect();
    if let Some(task) = &task
        && let Some(order) = open_order(task)
        && !open.contains(&order.key.run_uid)
    {
        if !order.stop {
            tracing::warn!(node = name, order = %order.key, "asks an order to stop whose run is gone or over");
            nodes.stop(task, epoch).await?;
        }
        return Ok(Next::AwaitChange);
    }
    if let CordonOwner::Run { uid, .. } = &node.cordon
        && !holding.contains(uid)
    {
        tracing::warn!(node = name, run = uid, "uncordons a node whose run is gone or over");
        nodes.uncordon(&node, uid).await?;
    }
    Ok(Next::AwaitChange)
}

fn task_of(name: &str, uid: &str, epoch: Epoch, now: Timestamp) -> NodeTask {
    let spec = NodeTaskSpec {
        epoch: epoch.0,
        inventory_request: Some(inventories::request(now)),
        node_name: name.to_owned(),
        node_uid: uid.to_owned(),
        order: None,
    };
    let mut task = NodeTask::new(name, spec);
    task.labels_mut().insert(NODE_LABEL.to_owned(), name.to_owned());
    task.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        ..OwnerReference::default()
    }]);
    task
}
