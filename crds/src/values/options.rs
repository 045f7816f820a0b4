//! What a user can choose about an update, shared by the three kinds that users write.

use crate::validate::direct_update as rules;
use kube_core::Duration;
use kube_derive::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// What may be changed on a node: kubeadm, kubelet, kubectl, containerd or etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Component {
    /// The package kubeadm, and what `kubeadm upgrade` does with it.
    Kubeadm,
    /// The package kubelet, and its restart.
    Kubelet,
    /// The package kubectl.
    Kubectl,
    /// The package containerd or containerd.io, and its restart, in the visit of a node whose kubelet moves.
    Containerd,
    /// etcd apart from kubeadm: refused, since stacked etcd moves with kubeadm.
    Etcd,
}

impl Component {
    /// What is changed unless the user says otherwise.
    pub fn defaults() -> Vec<Self> {
        vec![Self::Kubeadm, Self::Kubelet, Self::Kubectl]
    }
}

/// Which versions of components that do not follow from the target.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComponentVersions {
    /// The version of containerd: upstream's, or the whole version of its package; needs containerd in components. If left out, the newest release that every node's package index offers within the minor that runs there. Example: 1.7.24
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = crate::schema::PACKAGE_VERSION_PATTERN))]
    #[x_kube(validation = rules::PACKAGE_VERSION)]
    pub containerd: Option<String>,
}

/// In which order workers follow: rolling, parallel or canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// At most `concurrency` workers at once.
    #[default]
    Rolling,
    /// All chosen workers at once; control-plane nodes still one by one.
    Parallel,
    /// The canary nodes, a gate, then rolling.
    Canary,
}

/// What becomes of a node whose drain has not ended in time: Hold, SkipNode or ForceAfter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub enum OnExpiry {
    /// The update rests until a person decides.
    #[default]
    Hold,
    /// A worker is given back as it was, and the update goes on without it.
    SkipNode,
    /// The pods that were to go are deleted, past their disruption budgets.
    ForceAfter,
}

impl OnExpiry {
    /// Whether a person is asked.
    pub fn is_hold(&self) -> bool {
        *self == Self::Hold
    }
}

/// What waits for a person: BeforeControlPlane, AfterCanary or BeforeEachHop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ApprovalPoint {
    /// The workers that follow the canaries; needs strategy canary.
    AfterCanary,
    /// Everything of a hop, its preflight too.
    BeforeEachHop,
    /// The first change of a control plane in a hop, the snapshot of etcd too.
    BeforeControlPlane,
}

/// Nodes that go first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Canary {
    /// Whether the nodes named here go first. Example: true
    #[serde(default)]
    pub enabled: bool,
    /// Workers that go first; the others follow when all of these are well. Example: ["worker-1"]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub nodes: Vec<String>,
    /// How long the canaries have to be Ready before the others follow, as a Go duration; if left out, 5m, or no time where approvals asks for a person after them. Example: 30m
    #[serde(default, deserialize_with = "crate::values::duration::read", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration")]
    #[x_kube(validation = rules::DURATION)]
    pub soak: Option<Duration>,
}

/// An upgrade without any network: packages and images come from a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AirGapped {
    /// Whether nothing may be fetched from a network. Example: true
    #[serde(default)]
    pub enabled: bool,
    /// ConfigMap, in the operator's namespace, that describes the bundle. Example: k8s-1.34.4-bundle
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub bundle_config_map: Option<String>,
}

pub(crate) fn enabled() -> bool {
    true
}

/// A map of labels, bounded as labels are (Kubernetes `validation.IsQualifiedName`, `IsValidLabelValue`).
pub(crate) fn labels_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": {"type": "string", "maxLength": 63},
    })
}
