//! Parameters of the cluster steps: what compilers of plans write and the steps read. Fixed for ever per kind.

use crate::ports::cluster::ChildSource;
use crate::ports::host::KubeProxy;
use cupcake_crds::values::{DrainRule, HostStep, KubeVersion, NodeRef, OnExpiry};
use cupcake_engine::names::{RunName, VertexName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `preflight/v1`: every node that is to move is Ready, has an agent that answered, and runs nothing newer than the target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Preflight {
    /// Where the hop goes.
    pub target_version: KubeVersion,
    /// The newest version that a kubelet may run already: the update's own target, where further hops follow; `target_version` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_kubelet: Option<KubeVersion>,
    /// Which workers move: those with these labels. Control-plane nodes always do.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
}

/// `gate/v1`: those that went first are well for a while, and somebody approved, as far as that is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gate {
    /// The gate that somebody has to open; nobody has to if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<String>,
    /// Nodes that went first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// How long they have to be Ready.
    #[serde(default)]
    pub soak_seconds: u32,
}

/// What `gate/v1` leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateOpened {
    /// Who opened it, where somebody had to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
}

/// `host-order/v1`: the node's runner gets the order; done when it is Prepared, or Done where there is no second part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostOrder {
    /// The node.
    pub node: NodeRef,
    /// The version that the node moves to.
    pub target_version: KubeVersion,
    /// What it does at once.
    pub prepare: Vec<HostStep>,
    /// What it does after proceed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finish: Vec<HostStep>,
    /// How long the machine may work on it, its waiting for proceed not counted.
    pub work_seconds_max: u32,
    /// The snapshot of etcd without which this work is not to begin; none if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<FreshSnapshot>,
}

/// A snapshot of etcd that was taken before, and how long it is good for.
///
/// # Guarantees
/// An order that is placed later than that, or knows of no such snapshot, takes one on its own machine before anything else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FreshSnapshot {
    /// The vertex of this run that took it.
    pub vertex: VertexName,
    /// How old it may be when the order is placed.
    pub age_seconds_max: u32,
    /// The name of one that the order takes itself; the number of the attempt follows.
    pub name: String,
}

/// What `host-order/v1` and `host-proceed/v1` leave: what the host steps found out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct HostOutputs(pub BTreeMap<String, String>);

/// `drain-node/v1`: cordoned by this run, and none of the pods left that had to go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrainNode {
    /// The node.
    pub node: NodeRef,
    /// How long the whole drain may take, as people asked. The vertex's own deadline, a little later, ends it and names what blocks.
    pub timeout_seconds: u32,
    /// What becomes of the node then.
    #[serde(default, skip_serializing_if = "OnExpiry::is_hold")]
    pub on_expiry: OnExpiry,
    /// How long one pod gets to end; its own grace period if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_seconds: Option<u32>,
    /// What is done about which pods; all are evicted at once where none is said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<DrainRule>,
}

/// What `drain-node/v1` leaves to be told; an empty one takes no room in a cursor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drained {
    /// Pods that came after the cordon, and stay, in at most [`Self::CHARS_MAX`] characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub came_since: Option<String>,
    /// Volumes that pods which are gone have left attached, as long as that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub still_attached: Option<String>,
}

impl Drained {
    /// The longest text of each field: that of every node of a large batch has to fit one cursor.
    pub const CHARS_MAX: usize = 96;

    /// What was not drained, in words; `None` where there is nothing to tell.
    pub fn told(&self) -> Option<String> {
        let pods = self.came_since.as_ref().map(|pods| format!("came after the cordon, not evicted: {pods}"));
        let volumes = self.still_attached.as_ref().map(|volumes| format!("still attached: {volumes}"));
        let told: Vec<String> = pods.into_iter().chain(volumes).collect();
        Some(told.join("; ")).filter(|told| !told.is_empty())
    }
}

/// `metric-gates/v1`: each of the gates measures what it has to, at the same look.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricGates {
    /// The gates, in the order of the spec.
    pub gates: Vec<MetricGate>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricGate {
    /// The least value with which it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
    /// The greatest one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
    /// What it is called.
    pub name: String,
    /// What is asked.
    pub query: String,
    /// How long it may stay closed.
    pub seconds_max: u32,
}

/// What `metric-gates/v1` leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatesMet {
    /// The values with which they were open.
    pub values: String,
}

/// `host-proceed/v1`: the second part of the order that `order_vertex` placed is done, and the Node is Ready at the version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostProceed {
    /// The order: placed anew, with proceed set, where the one of `order_vertex` failed.
    #[serde(flatten)]
    pub order: HostOrder,
    /// The vertex that placed the order.
    pub order_vertex: VertexName,
    /// How long the node must have been Ready since the answer.
    pub soak_seconds: u32,
}

/// `host-release/v1`: no order that one of `order_vertices` placed is open on the node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostRelease {
    /// The node.
    pub node: NodeRef,
    /// The vertices of this run that place orders there.
    pub order_vertices: Vec<VertexName>,
}

/// `uncordon-node/v1`: the node is schedulable, unless somebody else cordoned it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UncordonNode {
    /// The node.
    pub node: NodeRef,
}

/// `addons/v1`: kubeadm's configuration says the version, kube-proxy runs it everywhere unless it is left out, CoreDNS is rolled out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Addons {
    /// The hop's version.
    pub target_version: KubeVersion,
    /// What kubeadm does about kube-proxy: one that is left out is not waited for.
    #[serde(default, skip_serializing_if = "KubeProxy::is_upgrade")]
    pub kube_proxy: KubeProxy,
}

/// `child-run/v1`: the child run exists and Succeeded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChildRun {
    /// The child's name.
    pub run: RunName,
    /// Where its plan comes from.
    pub source: ChildSource,
}

/// What `verify-cluster/v1` leaves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// Workers that are not at the version and that no plan of the hop holds, since they came after it was made: the first ones, each with
    /// its version, and how many more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joined: Option<String>,
}

/// `verify-cluster/v1`: every node that was to move is Ready at the version, the API server answers with it, nothing is left cordoned by the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerifyCluster {
    /// The version to be found.
    pub target_version: KubeVersion,
    /// Where further hops follow: the oldest version that a selected worker may be left at; all are at `target_version` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_kubelet: Option<KubeVersion>,
    /// Which workers moved.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
}
