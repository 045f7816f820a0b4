//! What a user asks of an update that is under way; every request has an id and is acknowledged under it.

use crate::limits;
use cupcake_engine::clock::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Requests to an update that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Control {
    /// Gates that somebody opens, one entry a gate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::REQUESTS_MAX), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["requestId"]))]
    pub approvals: Vec<Approval>,
    /// Stops the update for good: what is under way comes to a safe point, then nothing follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<Request>,
    /// Starts nothing new as long as it is here; remove it to go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Request>,
    /// Lets an update go on whose spec.operationTimeout was over, for as long again; each request is taken up once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Request>,
    /// What failed and is to be tried again: each request is taken up once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::REQUESTS_MAX), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["requestId"]))]
    pub retry: Vec<VertexRequest>,
    /// Workers to leave out: what is left to do on each is skipped as soon as none of its steps is under way, and it is given back. Control-plane nodes cannot be left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::REQUESTS_MAX), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["requestId"]))]
    pub skip: Vec<VertexRequest>,
}

/// A request to the update as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Name of the request, chosen by who asks; status.acknowledged answers under it. Example: pause-1
    #[schemars(length(min = 1, max = 64))]
    pub request_id: String,
    /// Why, for whoever reads it later. Example: CHG-4711: wait for the database team
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub reason: Option<String>,
    /// Who asks. Example: jane@example.com
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub requested_by: Option<String>,
}

/// A gate that somebody opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// Name of the request, chosen by who asks; status.acknowledged answers under it. Example: approve-1
    #[schemars(length(min = 1, max = 64))]
    pub request_id: String,
    /// Which gate, as status.graph and the message name it. Example: 1.34.4/canary-gate
    #[schemars(length(min = 1, max = 320))]
    pub gate: String,
    /// Why, for whoever reads it later. Example: canary looked well for a day
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub reason: Option<String>,
    /// Who approves. Example: jane@example.com
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub requested_by: Option<String>,
}

/// A request about one step of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VertexRequest {
    /// Name of the request, chosen by who asks; status.acknowledged answers under it. Example: retry-1
    #[schemars(length(min = 1, max = 64))]
    pub request_id: String,
    /// The run that the step belongs to; whichever has it failed if left out. Example: to-1-34-6f0d7f0e-1.34.4-workers-1
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub run: Option<String>,
    /// The step, as status.graph names it, or a node: all of its steps are looked at again. Example: worker-3
    #[schemars(length(min = 1, max = 320))]
    pub vertex: String,
    /// Why, for whoever reads it later. Example: the pod that blocked is gone
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub reason: Option<String>,
    /// Who asks. Example: jane@example.com
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub requested_by: Option<String>,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Acknowledgement {
    /// When it was taken up. Example: 2026-11-22T07:00:00Z
    pub at: Timestamp,
    /// What became of it. Example: paused; 2 steps under way come to their end first
    #[schemars(length(max = Acknowledgement::MESSAGE_CHARS_MAX))]
    pub message: String,
    /// The request that this answers. Example: pause-1
    #[schemars(length(min = 1, max = 64))]
    pub request_id: String,
}

impl Acknowledgement {
    /// Characters of a message.
    pub const MESSAGE_CHARS_MAX: usize = 256;
}
