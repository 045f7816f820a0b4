//! Nodes: each has a NodeTask of its name.
//!
//! RBAC: create, delete on nodetasks.

use crate::Operator;
use crate::adapters::{is_already_exists, is_not_found};
use crate::leader::{Next, Outcome};
use cupcake_crds::{NODE_LABEL, NodeTask, NodeTaskSpec};
use cupcake_engine::names::Epoch;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};

/// The inventory that every new task asks for.
const FIRST_INVENTORY: &str = "created";

/// Makes the node's task exist, owned by that Node; removes one that belongs to an earlier Node of the name.
pub async fn reconcile(operator: &Operator, epoch: Epoch, node: Option<Node>, task: Option<NodeTask>) -> Outcome {
    let Some(node) = node else {
        return Outcome::of(Next::AwaitChange);
    };
    let (name, uid) = (node.name_any(), node.uid().unwrap_or_default());
    let api: Api<NodeTask> = Api::all(operator.client.clone());
    let result = match task {
        Some(task) if task.spec.node_uid == uid => return Outcome::of(Next::AwaitChange),
        Some(stale) => {
            let preconditions = Preconditions { uid: stale.uid(), resource_version: None };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            api.delete(&name, &params).await.map(drop)
        }
        None => api.create(&PostParams::default(), &task_of(&name, &uid, epoch)).await.map(drop),
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

fn task_of(name: &str, uid: &str, epoch: Epoch) -> NodeTask {
    let spec = NodeTaskSpec {
        epoch: epoch.0,
        inventory_request: Some(FIRST_INVENTORY.to_owned()),
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
