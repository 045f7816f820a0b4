//! The API types of CUPCAKE and the values they are made of; no behaviour, no client.
//!
//! ```text
//!  written by users                      written by the operator                    shared with each node's agent
//!  ScheduledUpdate ─┐
//!  UpdateSchedule ──┴─► DirectUpdate ──► UpgradeRun (tree) ── UpgradePlan (each one's) ──► NodeTask (one a node)
//! ```
//!
//! Every rule of the objects stands three times: in the schema (types, bounds, patterns), as CEL in the definition, where the API server
//! itself enforces it, and in [`validate`] for servers without CEL (below Kubernetes 1.25).
//! [`definitions`] makes the YAML in `generated/`; the binary `crdgen` writes it.
#![allow(clippy::duplicated_attributes, reason = "each printed column has a type, and most types are the same")]
#![allow(
    clippy::doc_link_with_quotes,
    reason = "doc comments of fields are the text of `kubectl explain`: their lists are YAML"
)]

// The derives of kube write `::kube::core` and `::kube::KubeSchema`. This crate does without the kube crate, which is a client, so it
// stands in for it under that name.
extern crate self as kube;
pub(crate) use kube_core as core;
pub(crate) use kube_derive::KubeSchema;

pub mod conditions;
pub mod control;
pub mod direct_update;
pub mod limits;
pub mod node_task;
pub mod notice;
pub mod scheduled_update;
mod schema;
pub mod update_schedule;
pub mod upgrade_plan;
pub mod upgrade_run;
pub mod validate;
pub mod values;

pub use direct_update::{DirectUpdate, DirectUpdateSpec, DirectUpdateStatus};
pub use node_task::{NodeTask, NodeTaskSpec, NodeTaskStatus};
pub use scheduled_update::{ScheduledUpdate, ScheduledUpdateSpec, ScheduledUpdateStatus};
pub use schema::definitions;
pub use update_schedule::{UpdateSchedule, UpdateScheduleSpec, UpdateScheduleStatus};
pub use upgrade_plan::{UpgradePlan, UpgradePlanSpec};
pub use upgrade_run::{UpgradeRun, UpgradeRunSpec, UpgradeRunStatus};
pub use validate::Validate;
pub use values::KubeVersion;

/// The API group of all kinds.
pub const GROUP: &str = "cupcake.ricardomolendijk.com";
/// The version of all kinds.
pub const VERSION: &str = "v1";
/// `"true"` on a DirectUpdate pauses it; removing it resumes.
pub const PAUSED_ANNOTATION: &str = "cupcake.ricardomolendijk.com/paused";
/// On a Node that a run cordoned: the UID of that UpgradeRun, which answers for the uncordon.
pub const CORDONED_BY_ANNOTATION: &str = "cupcake.ricardomolendijk.com/cordoned-by";
/// On children of a run: the UID of the root UpgradeRun (names may be too long for a label).
pub const RUN_LABEL: &str = "cupcake.ricardomolendijk.com/run";
/// Label with which a worker takes part in no update: with the value `true` it stays as it is, whatever a selector says.
pub const OPT_OUT_LABEL: &str = "cupcake.ricardomolendijk.com/opt-out";
/// On objects that belong to one node: its name.
pub const NODE_LABEL: &str = "cupcake.ricardomolendijk.com/node";
/// On a DirectUpdate that a schedule created: the UID of that ScheduledUpdate or UpdateSchedule.
pub const SCHEDULED_BY_LABEL: &str = "cupcake.ricardomolendijk.com/scheduled-by";
/// On a DirectUpdate that a schedule created: the time that it was due, RFC 3339.
pub const DUE_ANNOTATION: &str = "cupcake.ricardomolendijk.com/due";
/// On runs that must uncordon and stop before they go.
pub const FINALIZER: &str = "cupcake.ricardomolendijk.com/cleanup";
