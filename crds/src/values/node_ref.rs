//! One particular Node, and what it is for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One particular Node: a machine that comes back under an old name is another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeRef {
    /// Name of the Node. Example: worker-3
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// UID of the Node. Example: 6f0d7f0e-0c3e-4a53-9b1a-2f6f5d1c9a77
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
}

/// What a node is for: control-plane if it runs kubeadm's static pods, worker otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NodeRole {
    /// Runs the API server and its neighbours as static pods of kubeadm.
    ControlPlane,
    /// Runs workloads.
    Worker,
}

impl NodeRole {
    /// The label by which kubeadm marks control-plane nodes (kubeadm `constants.LabelNodeRoleControlPlane`).
    pub const CONTROL_PLANE_LABEL: &'static str = "node-role.kubernetes.io/control-plane";

    /// The word that objects carry.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ControlPlane => "control-plane",
            Self::Worker => "worker",
        }
    }
}

impl fmt::Display for NodeRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
