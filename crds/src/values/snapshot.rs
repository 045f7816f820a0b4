//! What the operator saw of a cluster at one moment: the only view of it that compilers of plans get.

use super::{KubeVersion, NodeRef, NodeRole, Surroundings};
use crate::node_task::NodeInventory;
use cupcake_engine::clock::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A cluster as it was seen at one moment; complete, or a compiler refuses it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSnapshot {
    /// When it was taken.
    pub taken_at: Timestamp,
    /// The version that the API server reports (the oldest one, where several were asked).
    pub server: KubeVersion,
    /// `kubernetesVersion` of the kubeadm-config ConfigMap; absent if the cluster has none or it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubeadm_config: Option<KubeVersion>,
    /// The version of kubeadm's configuration API in which it stands there (`v1beta4`); absent if nobody looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubeadm_config_api: Option<String>,
    /// `imageRepository` of the same ConfigMap; absent where it is kubeadm's own, or nobody looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_repository: Option<String>,
    /// Where etcd runs.
    pub etcd: EtcdTopology,
    /// Every Node, by name.
    pub nodes: BTreeMap<String, NodeSnapshot>,
    /// Nodes that could not be understood: a compiler refuses to plan around them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<UnreadableNode>,
    /// Releases that are known to be obtainable, from inventories and bundles; empty if nobody knows.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub known_versions: BTreeSet<KubeVersion>,
    /// What people say of minors of Kubernetes, over what is known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: OwnFacts,
    /// What lives around the nodes; empty where nobody looked.
    #[serde(default)]
    pub surroundings: Surroundings,
}

/// Facts about minors of Kubernetes that people lay over those that are known: by minor (`1.35`) the fields that differ, checked
/// by whoever read them.
pub type OwnFacts = BTreeMap<String, serde_json::Value>;

/// One Node as it was seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSnapshot {
    /// Which Node.
    pub node: NodeRef,
    /// What it is for.
    pub role: NodeRole,
    /// `status.nodeInfo.kubeletVersion`.
    pub kubelet: KubeVersion,
    /// Whether its Ready condition is True.
    pub ready: bool,
    /// Whether it takes pods, and if not, who cordoned it.
    pub cordon: Cordon,
    /// `metadata.labels`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `spec.taints`, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
    /// What else makes, changes and replaces the machine: `Machine prod/md-0-x` of Cluster API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed_by: Option<String>,
    /// What its agent last answered; absent if it never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory: Option<NodeInventory>,
}

/// Whether a node takes pods. What somebody else cordoned stays cordoned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cordon {
    /// It takes pods.
    Schedulable,
    /// A run of ours cordoned it and answers for the uncordon.
    #[serde(rename_all = "camelCase")]
    ByRun {
        /// UID of that UpgradeRun.
        run_uid: String,
    },
    /// Somebody else cordoned it.
    ByOther,
}

/// A taint of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value, often empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

/// Where etcd runs: stacked etcd moves with the control plane, external etcd is somebody else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EtcdTopology {
    /// Static pods of kubeadm on the control-plane nodes.
    Stacked,
    /// Endpoints of its own, named in kubeadm-config.
    External,
}

/// A Node that could not be understood, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnreadableNode {
    /// Name of the Node.
    pub name: String,
    /// What was wrong with it.
    pub problem: String,
}

impl ClusterSnapshot {
    /// The nodes of that role, by name.
    pub fn with_role(&self, role: NodeRole) -> impl Iterator<Item = &NodeSnapshot> {
        self.nodes.values().filter(move |node| node.role == role)
    }
}

impl NodeSnapshot {
    /// Whether every pair of `selector` is among the labels; an empty selector matches all.
    pub fn matches(&self, selector: &BTreeMap<String, String>) -> bool {
        selector.iter().all(|(key, value)| self.labels.get(key) == Some(value))
    }
}
