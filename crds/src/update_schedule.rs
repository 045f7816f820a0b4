//! UpdateSchedule: keep this cluster current, at these times.

use crate::{
    conditions::Condition,
    direct_update::{AcknowledgedCheck, Drain},
    limits,
    validate::{direct_update as direct, update_schedule as rules},
    values::{Component, Concurrency, Strategy},
};
use cupcake_engine::clock::Timestamp;
use kube_core::Duration;
use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// When to look for a newer version, which one to take, and how carefully.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "cupcake.ricardomolendijk.com",
    version = "v1",
    kind = "UpdateSchedule",
    plural = "updateschedules",
    shortname = "us",
    category = "cupcake",
    status = "UpdateScheduleStatus",
    derive = "PartialEq",
    doc = "Creates DirectUpdates again and again, by the clock: keeps a cluster at the newest patch of its minor, for example.",
    printcolumn(
        name = "Schedule",
        type_ = "string",
        json_path = ".spec.schedule",
        description = "when it looks for a newer version"
    ),
    printcolumn(
        name = "Suspended",
        type_ = "boolean",
        json_path = ".spec.suspended",
        description = "whether it is held"
    ),
    printcolumn(
        name = "Last Schedule",
        type_ = "date",
        json_path = ".status.lastScheduledTime",
        description = "when it last looked"
    ),
    printcolumn(
        name = "Next",
        type_ = "string",
        json_path = ".status.nextScheduledTime",
        description = "when it looks next",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        description = "what became of the last due time, or what to do next",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = rules::NO_CANARY, validation = rules::WINDOW_IS_OPEN)]
#[serde(rename_all = "camelCase")]
pub struct UpdateScheduleSpec {
    /// When to look for a newer version: minute, hour, day of month, month, day of week. Example: 0 2 1 * *
    #[schemars(length(max = 128), regex(pattern = r"^[^\s]+( +[^\s]+){4}$"))]
    #[x_kube(validation = rules::FIVE_FIELDS)]
    pub schedule: String,

    /// Which version to take, and how carefully to upgrade.
    pub update_policy: UpdatePolicy,

    /// What happens at a due time while an update of this schedule is not over: Forbid (the due time is passed over), Allow (another waits for its turn) or Replace (the one before is cancelled). Example: Forbid
    #[serde(default)]
    pub concurrency_policy: ConcurrencyPolicy,

    /// Updates are created inside this window only, and begin something new only inside it; a due time outside waits until it opens. At any time if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance_window: Option<MaintenanceWindow>,

    /// How late an update may still be created, in seconds after its due time (or after the window opened for it); if left out, until the window closes, or for an hour where there is no window. Example: 1800
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 86400))]
    pub starting_deadline_seconds: Option<u32>,

    /// Holds the schedule: nothing new is begun as long as it is true. Due times meanwhile are passed over. Example: false
    #[serde(default)]
    pub suspended: bool,

    /// The IANA time zone of schedule; that of maintenanceWindow if left out, or UTC where there is no window. Example: Europe/Amsterdam
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
}

/// What happens at a due time while an update of the same schedule is not over: Forbid, Replace or Allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum ConcurrencyPolicy {
    /// Creates another one, which waits for its turn: one update owns the cluster at a time.
    Allow,
    /// Passes the due time over.
    #[default]
    Forbid,
    /// Cancels the one that is not over, and creates another one, which begins when that has come to a safe point.
    Replace,
}

/// Which version to take, and how carefully to upgrade.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpdatePolicy {
    /// latest-patch for the newest patch of the cluster's minor, or a minor with a star, or one version. Example: 1.34.*
    #[schemars(length(max = 32), regex(pattern = r"^(latest-patch|v?[0-9]+\.[0-9]+\.(\*|[0-9]+))$"))]
    #[x_kube(validation = rules::VERSION_PATTERN)]
    pub target_version_pattern: String,

    /// Checks that stand in the way and that somebody has looked at, each by its name and node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::ACKNOWLEDGED_CHECKS_MAX), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["check", "node"]))]
    pub acknowledge: Vec<AcknowledgedCheck>,

    /// What may be changed on a node. Example: [kubeadm, kubelet, kubectl]
    #[serde(default = "Component::defaults")]
    #[schemars(length(min = 1, max = 5), extend("x-kubernetes-list-type" = "set"))]
    pub components: Vec<Component>,

    /// How many workers may be in flight: a number, or a percentage of the selected workers. Example: 3 or "10%"
    #[serde(default)]
    #[x_kube(validation = direct::CONCURRENCY)]
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
    #[x_kube(validation = direct::DURATION)]
    pub node_timeout: Option<Duration>,

    /// Versions that the control plane goes through on its way, in order; those that the cluster has left behind and those that are not below the target are passed over, and the target follows them. If left out, the newest known patch of each minor in between. Example: [1.33.13]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 32), regex(pattern = crate::schema::VERSION_PATTERN)), extend("x-kubernetes-list-type" = "atomic"))]
    pub path: Vec<String>,

    /// Check API, nodes, disks, disruption budgets and more before anything is changed. Example: true
    #[serde(default = "crate::values::enabled")]
    pub preflight_checks: bool,

    /// In which order workers follow: rolling (at most concurrency at once) or parallel (all at once); canary is refused, since a schedule names no nodes. Example: rolling
    #[serde(default)]
    pub strategy: Strategy,
}

/// A daily window; one that ends before it starts goes over midnight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MaintenanceWindow {
    /// The days on which it opens, in its time zone: Monday to Sunday; every day if left out. Example: [Saturday, Sunday]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 7), extend("x-kubernetes-list-type" = "set"))]
    pub days: Vec<Day>,
    /// When it closes, HH:MM; nothing new is begun after that. Example: "06:00"
    #[schemars(length(max = 5), regex(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub end: String,
    /// When it opens, HH:MM. Example: "02:00"
    #[schemars(length(max = 5), regex(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub start: String,
    /// The IANA time zone of start and end. Example: Europe/Amsterdam
    #[serde(default = "utc")]
    #[schemars(length(min = 1, max = 64))]
    pub timezone: String,
}

/// A day of the week: Monday, Tuesday, Wednesday, Thursday, Friday, Saturday or Sunday.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Day {
    /// The first.
    Monday,
    /// The second.
    Tuesday,
    /// The third.
    Wednesday,
    /// The fourth.
    Thursday,
    /// The fifth.
    Friday,
    /// The sixth.
    Saturday,
    /// The seventh.
    Sunday,
}

fn utc() -> String {
    "UTC".to_owned()
}

/// What it did and what it does next.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpdateScheduleStatus {
    /// The DirectUpdate of this schedule that is under way. Example: monthly-20261201-0200
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub active: Option<String>,
    /// Reconciling and Stalled, each with a reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::conditions::list_schema")]
    pub conditions: Vec<Condition>,
    /// All due times until then are dealt with, whatever became of them. Example: 2026-11-01T02:00:00Z
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled_until: Option<Timestamp>,
    /// When it last looked for a newer version. Example: 2026-11-01T02:00:00Z
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_scheduled_time: Option<Timestamp>,
    /// The DirectUpdate that it created last. Example: monthly-20261101-0200
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub last_update_name: Option<String>,
    /// What became of the last due time, in one line; if a person is needed, what to do. Example: already at 1.34.4, the newest known patch
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
    /// When it looks for a newer version next. Example: 2026-12-01T02:00:00Z
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_scheduled_time: Option<Timestamp>,
    /// The generation of the spec that this status speaks of. Example: 1
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
}
