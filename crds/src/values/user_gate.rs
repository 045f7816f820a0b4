//! What a user wants measured before an update goes on.

use crate::validate::direct_update as rules;
use kube_core::Duration;
use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A measurement that has to be right before an update goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserGate {
    /// Where it stands: BeforeEachHop (before everything of a hop, its preflight too), BeforeControlPlane (before the snapshot of etcd in each hop whose control plane moves) or BetweenBatches (before each batch of workers but the first of a hop). Example: BetweenBatches
    pub at: GatePoint,
    /// What it is called. Example: error-rate
    #[schemars(length(min = 1, max = 40), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// What is asked of the Prometheus that the operator knows (gates.prometheus of the chart).
    pub prometheus: PrometheusQuery,
    /// How long it may stay closed before the update rests, as a Go duration; 1h if left out. Example: 30m
    #[serde(default, deserialize_with = "crate::values::duration::read", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration")]
    #[x_kube(validation = rules::DURATION)]
    pub timeout: Option<Duration>,
}

/// Where a gate of a user stands: BeforeEachHop, BeforeControlPlane or BetweenBatches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum GatePoint {
    /// Before everything of a hop, its preflight too.
    BeforeEachHop,
    /// Before the first change of a control plane in a hop, the snapshot of etcd too.
    BeforeControlPlane,
    /// Before each batch of workers but the first of a hop.
    BetweenBatches,
}

/// A query whose value decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::GATE_HAS_THRESHOLD)]
pub struct PrometheusQuery {
    /// The least value with which the gate is open, as a decimal number. Example: "0.99"
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), regex(pattern = "^-?[0-9]{1,15}([.][0-9]{1,12})?$"))]
    pub at_least: Option<String>,
    /// The greatest value with which the gate is open, as a decimal number. Example: "0.01"
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), regex(pattern = "^-?[0-9]{1,15}([.][0-9]{1,12})?$"))]
    pub at_most: Option<String>,
    /// PromQL that gives one number: a scalar, or a vector with one element. No element is no value, and the gate stays closed. Example: sum(rate(http_requests_total{code=~"5.."}[5m])) / sum(rate(http_requests_total[5m]))
    #[schemars(length(min = 1, max = 1024))]
    pub query: String,
}
