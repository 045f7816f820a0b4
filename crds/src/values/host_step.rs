//! Host work as it travels: one step, and the token that every order carries.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;

/// One step that the runner on the machine performs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostStep {
    /// Name of the step, unique in its order. Example: kubeadm-upgrade-node
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// Which step it is, for ever: a changed meaning gets a new number. A runner that does not know it refuses the order. Example: kubeadm-upgrade-node/v1
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[a-z0-9]+(-[a-z0-9]+)*/v[0-9]+$"))]
    pub kind: String,
    /// The step's parameters, as its kind defines them. Example: {"version": "1.34.4"}
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "params_schema")]
    pub params: Map<String, Value>,
}

fn params_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "x-kubernetes-preserve-unknown-fields": true,
        "x-kubernetes-map-type": "atomic",
    })
}

/// The token of an order: which attempt of which vertex of which run. An answer counts only under the token it was asked with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderKey {
    /// UID of the UpgradeRun that asked. Example: 6f0d7f0e-0c3e-4a53-9b1a-2f6f5d1c9a77
    #[schemars(length(min = 1, max = 64))]
    pub run_uid: String,
    /// Vertex of that run. Example: worker-3/host-upgrade
    #[schemars(length(min = 1, max = 320))]
    pub vertex: String,
    /// Attempt of that vertex, from 1. Example: 1
    #[schemars(range(min = 1, max = 1000))]
    pub attempt: u32,
}

impl fmt::Display for OrderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} attempt {} of run {}", self.vertex, self.attempt, self.run_uid)
    }
}
