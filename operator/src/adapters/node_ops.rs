//! [`NodeOps`] over the Kubernetes API.
//!
//! RBAC: get, patch on nodes; list, delete on pods; create on pods/eviction; list on volumeattachments; get on persistentvolumes;
//! get, update on nodetasks.

use super::ops_error;
use super::views::{CORDONED_AT_ANNOTATION, node_view, pod_view, volume_view};
use async_trait::async_trait;
use cupcake_crds::node_task::Order;
use cupcake_crds::{CORDONED_BY_ANNOTATION, NodeTask};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::names::{Epoch, Reason};
use cupcake_steps::host::params::{KUBEADM_UPGRADE, RESTART_KUBELET, UPGRADE_CONTAINERD};
use cupcake_steps::ports::cluster::{
    API_SERVER_BUSY, CordonOwner, Eviction, NodeOps, NodeView, OpsError, PodView, VolumeView,
};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::Notify;

/// The field manager of the operator's writes.
pub const FIELD_MANAGER: &str = "cupcake-operator";

/// Host steps after which kubelet, runtime or static pods of a node start anew.
const DISTURBING: [&str; 3] = [KUBEADM_UPGRADE, RESTART_KUBELET, UPGRADE_CONTAINERD];

/// One node at a time, over the Kubernetes API.
#[derive(Clone)]
pub struct KubeNodeOps {
    client: kube::Client,
    /// The node that this replica itself runs on, and what rings when work was ordered that disturbs it.
    own_node: Option<(String, Arc<Notify>)>,
    /// Where the operator's own pods are.
    namespace: String,
}

impl KubeNodeOps {
    /// Over that client, for an operator whose pods are in that namespace.
    pub fn new(client: kube::Client, namespace: String) -> Self {
        Self { client, own_node: None, namespace }
    }

    /// Rings `bell` whenever work is ordered that restarts what runs on `node`, which carries this replica.
    #[must_use]
    pub fn with_own_node(mut self, node: String, bell: Arc<Notify>) -> Self {
        self.own_node = Some((node, bell));
        self
    }

    fn disturbed(&self, node: &str) {
        if let Some((own, bell)) = &self.own_node
            && own == node
        {
            bell.notify_one();
        }
    }

    fn tasks(&self) -> Api<NodeTask> {
        Api::all(self.client.clone())
    }

    /// Changes a Node if it still is as it was read.
    async fn patch_node(&self, what: &str, node: &NodeView, mut patch: Value) -> Result<(), OpsError> {
        patch["metadata"]["resourceVersion"] = node.resource_version.clone().into();
        patch["metadata"]["uid"] = node.node.uid.clone().into();
        let api: Api<Node> = Api::all(self.client.clone());
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let result = api.patch(&node.node.name, &params, &Patch::Merge(patch)).await;
        result.map(drop).map_err(|error| ops_error(&format!("{what} node {}", node.node.name), &error))
    }

    async fn replace_task(&self, what: &str, task: &NodeTask) -> Result<(), OpsError> {
        let name = task.spec.node_name.as_str();
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let result = self.tasks().replace(name, &params, task).await;
        result.map(drop).map_err(|error| ops_error(&format!("{what} NodeTask {name}"), &error))
    }
}

/// What a refused eviction says of the pod; `None` if it says nothing. Budgets, webhooks and policies all mean "not yet", with
/// whatever status a webhook says it.
fn verdict(error: &kube::Error) -> Option<Eviction> {
    let kube::Error::Api(status) = error else { return None };
    let message = status.message.as_str();
    let blocked = |code: &str, message: &str| Some(Eviction::Blocked(Reason::new(code, message.to_owned())));
    if message.contains("admission webhook") {
        return blocked("AdmissionWebhook", message);
    }
    if message.contains("ValidatingAdmissionPolicy") {
        return blocked("AdmissionPolicy", message);
    }
    match status.code {
        // 409: the UID precondition failed. The pod that had to go is gone, this is its successor.
        404 | 409 => Some(Eviction::Gone),
        429 => {
            let mut causes = status.details.iter().flat_map(|details| &details.causes);
            match causes.find(|cause| cause.reason == "DisruptionBudget") {
                Some(cause) => blocked("DisruptionBudget", &cause.message),
                None => blocked(API_SERVER_BUSY, message),
            }
        }
        _ => None,
    }
}

/// That pod and none of its successors.
fn exactly(pod: &PodView, grace_seconds: Option<u32>) -> DeleteParams {
    let preconditions = Preconditions { resource_version: None, uid: Some(pod.uid.clone()) };
    DeleteParams { grace_period_seconds: grace_seconds, preconditions: Some(preconditions), ..DeleteParams::default() }
}

fn asked(what: &str, pod: &PodView, answer: Result<(), kube::Error>) -> Result<Eviction, OpsError> {
    match answer {
        Ok(()) => Ok(Eviction::Accepted),
        Err(error) => match verdict(&error) {
            Some(verdict) => Ok(verdict),
            None => Err(ops_error(&format!("{what} pod {}/{}", pod.namespace, pod.name), &error)),
        },
    }
}

#[async_trait]
impl NodeOps for KubeNodeOps {
    async fn node(&self, name: &str) -> Result<Option<NodeView>, OpsError> {
        let api: Api<Node> = Api::all(self.client.clone());
        let node = api.get_opt(name).await.map_err(|error| ops_error(&format!("get node {name}"), &error))?;
        Ok(node.as_ref().map(node_view))
    }

    async fn cordon(&self, node: &NodeView, run_uid: &str, at: Timestamp) -> Result<(), OpsError> {
        let annotations = json!({CORDONED_BY_ANNOTATION: run_uid, CORDONED_AT_ANNOTATION: at.to_rfc3339()});
        let patch = json!({"metadata": {"annotations": annotations}, "spec": {"unschedulable": true}});
        match &node.cordon {
            CordonOwner::Run { uid, .. } if uid == run_uid => Ok(()),
            CordonOwner::Nobody | CordonOwner::Run { .. } => self.patch_node("cordon", node, patch).await,
            CordonOwner::Other => Ok(()),
        }
    }

    async fn uncordon(&self, node: &NodeView, run_uid: &str) -> Result<(), OpsError> {
        let annotations = json!({CORDONED_BY_ANNOTATION: null, CORDONED_AT_ANNOTATION: null});
        let patch = json!({"metadata": {"annotations": annotations}, "spec": {"unschedulable": null}});
        match &node.cordon {
            CordonOwner::Run { uid, .. } if uid == run_uid => self.patch_node("uncordon", node, patch).await,
            CordonOwner::Run { .. } | CordonOwner::Other | CordonOwner::Nobody => Ok(()),
        }
    }

    async fn pods(&self, node: &str) -> Result<Vec<PodView>, OpsError> {
        let api: Api<Pod> = Api::all(self.client.clone());
        let params = ListParams::default().fields(&format!("spec.nodeName={node}"));
        let list = api.list(&params).await.map_err(|error| ops_error(&format!("list pods of node {node}"), &error))?;
        Ok(list.items.iter().map(|pod| pod_view(pod, Some(&self.namespace))).collect())
    }

    async fn attached(&self, node: &str) -> Result<Vec<VolumeView>, OpsError> {
        let api: Api<VolumeAttachment> = Api::all(self.client.clone());
        // None can be selected by its node. Not out of a cache that may be behind: it would not show what was attached since.
        let list = api.list(&ListParams::default()).await;
        let list = list.map_err(|error| ops_error("list volumeattachments", &error))?;
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        let mut attached = Vec::new();
        for attachment in list.items.iter().filter(|attachment| attachment.spec.node_name == node) {
            let Some(name) = attachment.spec.source.persistent_volume_name.clone() else { continue };
            let volume = volumes.get_opt(&name).await;
            let volume = volume.map_err(|error| ops_error(&format!("get persistentvolume {name}"), &error))?;
            attached.push(volume_view(name, attachment, volume));
        }
        attached.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(attached)
    }

    async fn evict(&self, pod: &PodView, grace_seconds: Option<u32>) -> Result<Eviction, OpsError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        // Not by kube's own `evict`: up to 5.0 it writes `delete_options`, which no API server knows, so that the UID is lost.
        let request = json!({
            "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": pod.name, "namespace": pod.namespace},
            "deleteOptions": exactly(pod, grace_seconds),
        });
        let answer = api.create_subresource::<_, Value>("eviction", &pod.name, &PostParams::default(), &request).await;
        asked("evict", pod, answer.map(drop))
    }

    async fn delete(&self, pod: &PodView, grace_seconds: u32) -> Result<Eviction, OpsError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        asked("delete", pod, api.delete(&pod.name, &exactly(pod, Some(grace_seconds))).await.map(drop))
    }

    async fn task(&self, node: &str) -> Result<Option<NodeTask>, OpsError> {
        self.tasks().get_opt(node).await.map_err(|error| ops_error(&format!("get NodeTask {node}"), &error))
    }

    async fn place_order(&self, task: &NodeTask, order: Order) -> Result<(), OpsError> {
        let mut task = task.clone();
        task.spec.epoch = order.epoch;
        let disturbs = disturbs(&order);
        task.spec.order = Some(order);
        let replaced = self.replace_task("order on", &task).await;
        if disturbs && may_stand(&replaced) {
            self.disturbed(&task.spec.node_name);
        }
        replaced
    }

    async fn proceed(&self, task: &NodeTask, epoch: Epoch) -> Result<(), OpsError> {
        let mut task = task.clone();
        task.spec.epoch = epoch.0;
        if let Some(order) = &mut task.spec.order {
            order.proceed = true;
            order.epoch = epoch.0;
        }
        let replaced = self.replace_task("proceed on", &task).await;
        if may_stand(&replaced) {
            self.disturbed(&task.spec.node_name);
        }
        replaced
    }

    async fn stop(&self, task: &NodeTask, epoch: Epoch) -> Result<(), OpsError> {
        let mut task = task.clone();
        task.spec.epoch = epoch.0;
        if let Some(order) = &mut task.spec.order {
            order.stop = true;
            order.epoch = epoch.0;
        }
        self.replace_task("stop on", &task).await
    }
}

/// Whether the node's kubelet or static pods start anew while the machine works on that order, as it stands.
fn disturbs(order: &Order) -> bool {
    let finish = order.finish.iter().filter(|_| order.proceed);
    order.prepare.iter().chain(finish).any(|step| DISTURBING.contains(&step.kind.as_str()))
}

/// Whether a write may stand in the API by its answer: an answer that never came may be that of one that does.
fn may_stand(replaced: &Result<(), OpsError>) -> bool {
    match replaced {
        Ok(()) | Err(OpsError::Transient(_)) => true,
        Err(OpsError::Changed(_) | OpsError::NeedsOperator(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cupcake_crds::values::{HostStep, OrderKey};

    #[test]
    fn an_order_disturbs_its_node_by_what_the_machine_may_do_by_it() {
        let step =
            |kind: &str| HostStep { name: kind.to_owned(), kind: kind.to_owned(), params: serde_json::Map::new() };
        let order = |prepare: &[&str], finish: &[&str], proceed| Order {
            deadline_seconds: 60,
            epoch: 1,
            finish: finish.iter().map(|kind| step(kind)).collect(),
            key: OrderKey { run_uid: "u".into(), vertex: "v".into(), attempt: 1 },
            prepare: prepare.iter().map(|kind| step(kind)).collect(),
            proceed,
            stop: false,
            target_version: "1.34.4".parse().unwrap(),
            traceparent: None,
        };
        assert!(disturbs(&order(&[KUBEADM_UPGRADE], &[], false)));
        assert!(!disturbs(&order(&["install-packages/v1"], &[RESTART_KUBELET], false)), "it waits for the word");
        // A step that is tried again places its order anew and at once.
        assert!(disturbs(&order(&[], &["install-packages/v1", RESTART_KUBELET], true)));
        assert!(may_stand(&Err(OpsError::Transient(Reason::new("Timeout", "504")))), "it may have landed");
        assert!(!may_stand(&Err(OpsError::Changed(Reason::new("Conflict", "409")))));
    }

    /// What an API server answers.
    fn answer(code: u16, message: &str, cause: Option<(&str, &str)>) -> Option<Eviction> {
        let causes: Vec<Value> =
            cause.iter().map(|(reason, message)| json!({"reason": reason, "message": message})).collect();
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "message": message,
            "reason": "Test", "details": {"causes": causes},
        });
        verdict(&kube::Error::Api(serde_json::from_value(status).unwrap()))
    }

    fn code(verdict: Option<Eviction>) -> String {
        match verdict {
            Some(Eviction::Blocked(reason)) => reason.code,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn whoever_denies_an_eviction_on_purpose_is_waited_for_and_named() {
        let hook = "admission webhook \"drain.strimzi.io\" denied the request: the pod will be rolled by its operator";
        // A webhook may deny with any status: none of them means that the pod is gone, or that the drain is over.
        for status in [400, 403, 404, 409, 429, 500] {
            assert_eq!(code(answer(status, hook, None)), "AdmissionWebhook", "{status}");
        }
        let policy = "pods \"shop-0\" is forbidden: ValidatingAdmissionPolicy 'no-evictions' with binding 'all' denied request: not on weekdays";
        assert_eq!(code(answer(422, policy, None)), "AdmissionPolicy");
        let budget = "Cannot evict pod as it would violate the pod's disruption budget.";
        let cause = "The disruption budget shop needs 2 healthy pods and has 2 currently";
        let verdict = answer(429, budget, Some(("DisruptionBudget", cause)));
        assert_eq!(verdict, Some(Eviction::Blocked(Reason::new("DisruptionBudget", cause.to_owned()))));
        assert_eq!(code(answer(429, "too many requests, please try again later", None)), "ApiServerBusy");
        assert_eq!(
            [404, 409].map(|status| answer(status, "pods \"shop-0\" not found", None)),
            [const { Some(Eviction::Gone) }; 2]
        );
        assert_eq!(answer(403, "pods \"shop-0\" is forbidden: User \"x\" cannot create resource", None), None);
    }
}
