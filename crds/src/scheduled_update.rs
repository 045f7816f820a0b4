//! ScheduledUpdate: the same as a DirectUpdate, at a given time.

use crate::{
    conditions::Condition,
    direct_update::{AcknowledgedCheck, Drain},
    limits,
    validate::{direct_update as rules, scheduled_update as scheduled},
    values::{AirGapped, Canary, Component, Concurrency, InvalidVersion, KubeVersion, Strategy},
};
use cupcake_engine::clock::Timestamp;
use kube_core::Duration;
use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What to upgrade, to which version, when, and how carefully.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "cupcake.ricardomolendijk.com",
    version = "v1",
    kind = "ScheduledUpdate",
    plural = "scheduledupdates",
    shortname = "su",
    category = "cupcake",
    status = "ScheduledUpdateStatus",
    derive = "PartialEq",
    validation = scheduled::FROZEN,
    doc = "Creates a DirectUpdate at a given time. Once that exists, the spec stays as it is.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", description = "where it stands"),
    printcolumn(
        name = "Target",
        type_ = "string",
        json_path = ".spec.targetVersion",
        description = "the version to arrive at"
    ),
    printcolumn(name = "Scheduled", type_ = "string", json_path = ".spec.scheduleAt", description = "when it begins"),
    printcolumn(
        name = "Update",
        type_ = "string",
        json_path = ".status.directUpdateName",
        description = "the DirectUpdate that it created",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        description = "what happens, or what to do next",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = rules::CANARY_NAMES_NODES, validation = rules::CANARY_ENABLED_NAMES_NODES, validation = rules::AIR_GAP_NAMES_BUNDLE)]
#[serde(rename_all = "camelCase")]
pub struct ScheduledUpdateSpec {
    /// When to begin, with its offset from UTC. Example: 2026-12-01T02:00:00Z
    #[x_kube(validation = scheduled::SCHEDULE_AT)]
    pub schedule_at: Timestamp,

    /// The version to arrive at, with or without v. Example: 1.34.4
    #[schemars(length(max = 32), regex(pattern = crate::schema::VERSION_PATTERN))]
    #[x_kube(validation = rules::VERSION)]
    pub target_version: String,

    /// Checks that stand in the way and that somebody has looked at, each by its name and node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::ACKNOWLEDGED_CHECKS_MAX), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["check", "node"]))]
    pub acknowledge: Vec<AcknowledgedCheck>,

    /// An upgrade without any network, from a bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub air_gapped: Option<AirGapped>,

    /// Workers that go first under strategy canary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,

    /// What may be changed on a node. Example: [kubeadm, kubelet, kubectl]
    #[serde(default = "Component::defaults")]
    #[schemars(length(min = 1, max = 5), extend("x-kubernetes-list-type" = "set"))]
    pub components: Vec<Component>,

    /// How many workers may be in flight: a number, or a percentage of the selected workers. Example: 3 or "10%"
    #[serde(default)]
    #[x_kube(validation = rules::CONCURRENCY)]
    pub concurrency: Concurrency,

    /// How nodes are emptied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,

    /// How many workers of a hop may fail before no further node is begun, over all its batches (with strategy parallel in each batch by
    /// itself); 1 if left out. A canary may not. Example: 1
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 15000))]
    pub max_failures: Option<u32>,

    /// Only nodes with all of these labels are upgraded; all nodes if left out. Example: {"pool": "blue"}
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::values::labels_schema")]
    pub node_selector: BTreeMap<String, String>,

    /// The longest one node may take, as a Go duration; 30m if left out. Example: 45m
    #[serde(default, deserialize_with = "crate::values::duration::read", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration")]
    #[x_kube(validation = rules::DURATION)]
    pub node_timeout: Option<Duration>,

    /// The versions that the control plane goes through, in order, the target last; if left out, the newest known patch of each minor in between. Example: [1.33.13, 1.34.4]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 32), regex(pattern = crate::schema::VERSION_PATTERN)), extend("x-kubernetes-list-type" = "atomic"))]
    pub path: Vec<String>,

    /// Check API, nodes, disks, disruption budgets and more before anything is changed. Example: true
    #[serde(default = "crate::values::enabled")]
    pub preflight_checks: bool,

    /// How late the update may still be created, in seconds after scheduleAt; an hour if left out. Example: 1800
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 86400))]
    pub starting_deadline_seconds: Option<u32>,

    /// In which order workers follow: rolling (at most concurrency at once), parallel (all at once) or canary (the canary nodes, a gate, then rolling). Example: rolling
    #[serde(default)]
    pub strategy: Strategy,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduledUpdateStatus {
    /// Succeeded, Reconciling and Stalled, each with a reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::conditions::list_schema")]
    pub conditions: Vec<Condition>,
    /// The DirectUpdate that it created. Example: maintenance-2026-12
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub direct_update_name: Option<String>,
    /// When it created its DirectUpdate. Example: 2026-12-01T02:00:00Z
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executed_at: Option<Timestamp>,
    /// What happens, in one line; if a person is needed, the next command to type. Example: begins in 9 days
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
    /// The generation of the spec that this status speaks of. Example: 1
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Where it stands: Scheduled, Executing, Completed, Failed or Cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<ScheduledPhase>,
    /// When it begins. Example: 2026-12-01T02:00:00Z
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_for: Option<Timestamp>,
}

/// Where a scheduled update stands: Scheduled, Executing, Completed, Failed or Cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum ScheduledPhase {
    /// Waits for its time.
    Scheduled,
    /// Its DirectUpdate is under way.
    Executing,
    /// Its DirectUpdate succeeded.
    Completed,
    /// Its DirectUpdate failed, or could not be created.
    Failed,
    /// Stopped because somebody asked for it.
    Cancelled,
}

impl ScheduledUpdateSpec {
    /// The target version, parsed; the schema lets nothing else in, but objects may be older than the schema.
    pub fn target(&self) -> Result<KubeVersion, InvalidVersion> {
        self.target_version.parse()
    }
}
