//! What the operator's steps may do to a cluster and to one node of it.
//!
//! # Guarantees
//! Reads of single objects, and `pods`, come from the API server itself, never from a cache: that something is *not* there
//! is a reason to act. Only `ClusterOps::nodes` and `ClusterOps::tasks` may lag behind, and `NodeOps::attached`, which may still show
//! what has gone a moment ago. Whatever changes an object carries the version that was read, so that acting on an old read is refused
//! ([`OpsError::Changed`]) instead of done.

use crate::ports::host::KubeProxy;
use crate::ports::measures::Measures;
use async_trait::async_trait;
use chrono::TimeDelta;
use cupcake_crds::NodeTask;
use cupcake_crds::direct_update::LeftOut;
use cupcake_crds::node_task::Order;
use cupcake_crds::values::{KubeVersion, NodeRef, NodeRole, PackageVersion};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::names::{Epoch, Reason, RunName, VertexName};
use cupcake_engine::step::{Domain, StepError, StepOutcome, Wait};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The operator's domain.
pub struct Cluster;

impl Domain for Cluster {
    type Ports = ClusterPorts;
}

/// The ports of the operator's steps.
#[derive(Clone)]
pub struct ClusterPorts {
    /// The cluster as a whole.
    pub cluster: Arc<dyn ClusterOps>,
    /// One node at a time.
    pub nodes: Arc<dyn NodeOps>,
    /// What users want measured.
    pub measures: Arc<dyn Measures>,
}

/// When an object that changed since it was read is looked at again, in milliseconds: a new leader whose first order meets an
/// agent's answer (409) still acts within a second.
const CHANGED_AGAIN_MILLISECONDS: i64 = 200;

/// Why an operation was not carried out, by what the step does next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpsError {
    /// The object changed since it was read, or another leader is at work: look again.
    #[error("{0}")]
    Changed(Reason),
    /// It may work another time: no answer, 429, 5xx, or a 403 from a server whose authorizer is still cold.
    #[error("{0}")]
    Transient(Reason),
    /// It will not work until a person changes something.
    #[error("{0}")]
    NeedsOperator(Reason),
}

impl From<OpsError> for StepError {
    fn from(error: OpsError) -> Self {
        match error {
            OpsError::Changed(reason) | OpsError::Transient(reason) => Self::Transient(reason),
            OpsError::NeedsOperator(reason) => Self::NeedsOperator(reason),
        }
    }
}

impl OpsError {
    /// What a step's apply returns at `now`: neither a changed object nor an API server that is away is a failed attempt.
    /// The first is looked at again in a moment, the second is shown and waited out, within the deadline of the vertex.
    pub fn into_outcome<T>(self, now: Timestamp) -> Result<StepOutcome<T>, StepError> {
        match self {
            Self::Changed(reason) => {
                let again = now + TimeDelta::milliseconds(CHANGED_AGAIN_MILLISECONDS);
                Ok(StepOutcome::Wait(Wait::quiet(again, reason)))
            }
            Self::Transient(reason) => Ok(StepOutcome::Wait(Wait::shown(now + TimeDelta::seconds(5), reason))),
            Self::NeedsOperator(_) => Err(self.into()),
        }
    }
}

/// Whether a node's kubelet reports that it can take pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Ready.
    Ready,
    /// The kubelet says it is not.
    NotReady,
    /// The kubelet was not heard of for too long.
    Unknown,
}

/// Who made a node unschedulable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CordonOwner {
    /// Nobody: pods may be scheduled.
    Nobody,
    /// A run of ours.
    Run {
        /// Its UID.
        uid: String,
        /// When it did.
        at: Timestamp,
    },
    /// Somebody else: it stays cordoned.
    Other,
}

/// A Node as steps see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Name and UID.
    pub node: NodeRef,
    /// The version that a change of it must carry.
    pub resource_version: String,
    /// What it is for.
    pub role: NodeRole,
    /// The kubelet's version, if the Node shows one that can be read.
    pub kubelet: Option<KubeVersion>,
    /// Whether it is Ready.
    pub readiness: Readiness,
    /// Since when readiness is what it is.
    pub readiness_since: Option<Timestamp>,
    /// When its kubelet last reported that, in whole seconds of its machine's clock.
    pub heartbeat: Option<Timestamp>,
    /// Who cordoned it.
    pub cordon: CordonOwner,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// What keeps a pod on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodKind {
    /// A `DaemonSet`'s: stays.
    Daemon,
    /// A static pod's mirror: stays.
    Mirror,
    /// Of CUPCAKE's own operator: stays, so that the upgrade does not evict itself.
    Operator,
    /// Finished: nothing to evict.
    Finished,
    /// Anything else: to be evicted.
    Evictable,
}

/// A pod on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodView {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID: the one thing that tells it from its successor of the same name.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What keeps it.
    pub kind: PodKind,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// Whether it is on its way out.
    pub terminating: bool,
    /// How long it gets to end, in seconds.
    pub grace_seconds: u32,
    /// When it has to have ended, if it is on its way out: its grace period included.
    pub ends: Option<Timestamp>,
    /// What has to be taken off before it is gone.
    pub finalizers: Vec<String>,
    /// The claims whose volumes it uses, by name, in its own namespace.
    pub claims: Vec<String>,
    /// Since when it is ready; `None` if it is not.
    pub ready_since: Option<Timestamp>,
    /// Whether data ends with it.
    pub empty_dir: bool,
    /// Whether nothing makes it anew.
    pub unmanaged: bool,
}

/// A persistent volume that is attached to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeView {
    /// Name of the `PersistentVolume`.
    pub name: String,
    /// The claim that it is bound to, as `namespace/name`; `None` if it is bound to none, or gone.
    pub claim: Option<String>,
    /// Since when it is being detached; `None` while it is not.
    pub detaching_since: Option<Timestamp>,
}

/// Which pods may be evicted that lose something by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consent {
    /// Those with an emptyDir.
    pub empty_dir: bool,
    /// Those without a controller.
    pub unmanaged: bool,
}

/// A gate as its update shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateView {
    /// The DirectUpdate.
    pub update: String,
    /// Who opened it, if somebody did.
    pub approved_by: Option<String>,
}

/// The code of an eviction that an API server had no time for: it says nothing of the pod.
pub const API_SERVER_BUSY: &str = "ApiServerBusy";

/// What came of asking for an eviction, or for a deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Eviction {
    /// Accepted: the pod is on its way out.
    Accepted,
    /// The pod with that UID is gone already.
    Gone,
    /// Refused for now, by a disruption budget or a webhook: the reason names it.
    Blocked(Reason),
}

/// What a cluster step can do to one node.
#[async_trait]
pub trait NodeOps: Send + Sync {
    /// The Node; `None` if it is gone.
    async fn node(&self, name: &str) -> Result<Option<NodeView>, OpsError>;
    /// Makes the node unschedulable and records the run as owner, and when. A cordon that another run of ours left is taken over; a
    /// node that somebody else cordoned keeps that owner.
    async fn cordon(&self, node: &NodeView, run_uid: &str, at: Timestamp) -> Result<(), OpsError>;
    /// Makes the node schedulable if the run is the owner of its cordon; else changes nothing.
    async fn uncordon(&self, node: &NodeView, run_uid: &str) -> Result<(), OpsError>;
    /// The pods on the node, as the API server has them now.
    async fn pods(&self, node: &str) -> Result<Vec<PodView>, OpsError>;
    /// The persistent volumes that are attached to the node, sorted by name; not those that a pod names without one.
    async fn attached(&self, node: &str) -> Result<Vec<VolumeView>, OpsError>;
    /// Asks for the eviction of exactly that pod (UID precondition), which gets that long to end; its own grace period if absent.
    async fn evict(&self, pod: &PodView, grace_seconds: Option<u32>) -> Result<Eviction, OpsError>;
    /// Deletes exactly that pod (UID precondition), whatever its disruption budget says; it gets that long to end. A webhook may
    /// refuse it.
    async fn delete(&self, pod: &PodView, grace_seconds: u32) -> Result<Eviction, OpsError>;
    /// The node's task; `None` if it does not exist yet.
    async fn task(&self, node: &str) -> Result<Option<NodeTask>, OpsError>;
    /// Puts an order into the mailbox `task`, as it was read.
    async fn place_order(&self, task: &NodeTask, order: Order) -> Result<(), OpsError>;
    /// Tells the order under way in `task` that its second part may begin.
    async fn proceed(&self, task: &NodeTask, epoch: Epoch) -> Result<(), OpsError>;
    /// Asks the order in `task` to stop at its next safe point. One that was not claimed yet is claimed by nobody after it.
    async fn stop(&self, task: &NodeTask, epoch: Epoch) -> Result<(), OpsError>;
}

/// An addon that kubeadm manages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddonView {
    /// `kube-proxy` or `coredns`.
    pub name: String,
    /// The image of its first container.
    pub image: String,
    /// What kubeadm's configuration says that makes its image another one than kubeadm's own: `dns.imageTag v1.11.3`.
    pub configured: Option<String>,
    /// Whether all its pods run that image.
    pub rolled_out: bool,
}

/// Where the plan of a child run comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ChildSource {
    /// Compiled now, from a fresh snapshot: the wave of a hop, with all its batches.
    Wave {
        /// The version that the workers move to.
        target_version: KubeVersion,
        /// Where further hops follow: only workers older than this move, for the others still fit the next hop; all do if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        oldest_kubelet: Option<KubeVersion>,
        /// The version of containerd that they get, if it moves, too.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        containerd: Option<PackageVersion>,
        /// What of kube-proxy: where it is left out, its image is not pulled.
        #[serde(default, skip_serializing_if = "KubeProxy::is_upgrade")]
        kube_proxy: KubeProxy,
    },
    /// Compiled and stored when the wave was opened.
    Plan {
        /// Digest of the stored plan.
        digest: String,
    },
    /// Compiled now, from a fresh snapshot: workers of a wave that failed, once more. Stands in no plan: `stragglers/v1` makes it.
    Again {
        /// The version that they move to.
        target_version: KubeVersion,
        /// The version of containerd that they get, if it moves, too.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        containerd: Option<PackageVersion>,
        /// What of kube-proxy: where it is left out, its image is not pulled.
        #[serde(default, skip_serializing_if = "KubeProxy::is_upgrade")]
        kube_proxy: KubeProxy,
        /// Their names.
        nodes: BTreeSet<String>,
    },
}

/// A worker that a batch lost and went on without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Straggler {
    /// The run of that batch.
    pub run: RunName,
    /// UID of the Node that it was.
    pub uid: String,
    /// Whether somebody asked to try it again after that.
    pub asked: bool,
}

/// A child run as its parent sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildView {
    /// Its phase.
    pub phase: cupcake_engine::cursor::RunPhase,
    /// Why it stands where it stands.
    pub reason: Reason,
    /// For people: `12/40`.
    pub progress: String,
}

/// What a cluster step can do to the cluster as a whole.
#[async_trait]
pub trait ClusterOps: Send + Sync {
    /// All Nodes, sorted by name.
    async fn nodes(&self) -> Result<Vec<NodeView>, OpsError>;
    /// All tasks, sorted by name.
    async fn tasks(&self) -> Result<Vec<NodeTask>, OpsError>;
    /// The oldest version among the API servers.
    async fn server_version(&self) -> Result<KubeVersion, OpsError>;
    /// `kubernetesVersion` in kubeadm's ClusterConfiguration.
    async fn kubeadm_config_version(&self) -> Result<KubeVersion, OpsError>;
    /// Workers that the update of this run is asked to leave out, or that [`Self::leave_out`] did.
    async fn left_out(&self, run: &RunName) -> Result<BTreeSet<String>, OpsError>;
    /// Workers that batches of this run's update lost and went on without, as `spec.maxFailures` allows; with the run of each.
    async fn lost(&self, run: &RunName) -> Result<BTreeMap<String, RunName>, OpsError>;
    /// The same of one wave, and whether somebody asks for each again; those that a later run of the wave was given are none any more.
    async fn stragglers(&self, wave: &RunName) -> Result<BTreeMap<String, Straggler>, OpsError>;
    /// UIDs of the nodes that plans of this run's update move to that version: those of its own plan, and those of all batches of the wave
    /// that goes there. A batch whose run is gone holds nobody.
    async fn planned(&self, run: &RunName, hop: KubeVersion) -> Result<BTreeSet<String>, OpsError>;
    /// Records that the update of this run goes on without that worker, and why, unless a newer epoch leads the run; repeating it
    /// changes nothing. What is left of the worker's lane is then skipped, and what was begun there undone.
    async fn leave_out(&self, run: &RunName, uid: &str, epoch: Epoch, left_out: LeftOut) -> Result<(), OpsError>;
    /// Whether somebody opened that gate of the update that the run belongs to.
    async fn gate(&self, run: &RunName, gate: &str) -> Result<GateView, OpsError>;
    /// Which pods of a node the update of this run may evict that lose something by it.
    async fn consent(&self, run: &RunName, node: &str) -> Result<Consent, OpsError>;
    /// The addons that kubeadm manages, as far as they exist.
    async fn addons(&self) -> Result<Vec<AddonView>, OpsError>;
    /// Makes the child run exist. Repeating it adopts the child that is there, if it is this parent's.
    async fn open_child(
        &self,
        parent: &RunName,
        parent_uid: &str,
        vertex: &VertexName,
        child: &RunName,
        source: &ChildSource,
    ) -> Result<(), OpsError>;
    /// Whether the run is still this one and carries no newer epoch than `epoch`: else [`OpsError::Changed`].
    ///
    /// A Node carries no epoch. Whoever reads a Node, then asks this, then writes the Node under the version that was read, writes
    /// nothing that a newer leader has not allowed: that one stamps the run before it changes any Node.
    async fn still_leads(&self, run: &RunName, uid: &str, epoch: Epoch) -> Result<(), OpsError>;
    /// The child run of that vertex; `None` if it does not exist. A run of that name that is another's is [`OpsError::NeedsOperator`]: how
    /// it ended says nothing of what was to be done here.
    async fn child(
        &self,
        parent: &RunName,
        parent_uid: &str,
        vertex: &VertexName,
        child: &RunName,
    ) -> Result<Option<ChildView>, OpsError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_that_somebody_else_changed_is_looked_at_again_well_within_a_second_and_not_at_once() {
        let now = Timestamp::UNIX_EPOCH;
        let changed = OpsError::Changed(Reason::new("Changed", "the task was written meanwhile"));
        let Ok(StepOutcome::Wait(wait)) = changed.into_outcome::<()>(now) else { panic!("it is no failed attempt") };
        let span = (wait.until - now).num_milliseconds();
        assert!((100..=250).contains(&span) && !wait.shown, "{span} ms");
    }
}
