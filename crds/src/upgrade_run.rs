//! UpgradeRun: a plan being carried out, and the cursor that says how far.

use crate::{
    conditions::Condition,
    limits::{self, cut, cut_some, keep_last},
    validate::upgrade_run as rules,
    values::{KubeVersion, Phase},
};
use cupcake_engine::clock::Timestamp;
use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which plan is carried out, for whom; fixed for ever, but for concurrency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "cupcake.ricardomolendijk.com",
    version = "v1",
    kind = "UpgradeRun",
    plural = "upgraderuns",
    shortname = "ur",
    category = "cupcake",
    status = "UpgradeRunStatus",
    derive = "PartialEq",
    validation = rules::EPOCH_GROWS,
    validation = rules::COMMIT_GROWS,
    validation = rules::FINAL_STAYS,
    doc = "A plan being carried out. Written by the operator; `kubectl describe` shows its steps and what it waits for. To change anything, edit the DirectUpdate.",
    printcolumn(
        name = "Target",
        type_ = "string",
        json_path = ".spec.targetVersion",
        description = "the version to arrive at"
    ),
    printcolumn(
        name = "Progress",
        type_ = "string",
        json_path = ".status.progress",
        description = "steps done of all steps"
    ),
    printcolumn(
        name = "Cursor",
        type_ = "string",
        json_path = ".status.currentStep",
        description = "what is happening"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.reason",
        description = "why it stands where it stands"
    ),
    printcolumn(
        name = "Phase",
        type_ = "string",
        json_path = ".status.phase",
        description = "where it stands",
        priority = 1
    ),
    printcolumn(
        name = "Started",
        type_ = "date",
        json_path = ".status.startedAt",
        description = "when the first step began",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = rules::FIXED)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeRunSpec {
    /// How many nodes may be in flight; follows the DirectUpdate. Example: 3
    #[schemars(range(min = 1, max = 15000))]
    pub concurrency: u32,
    /// The DirectUpdate that asked for it.
    pub direct_update: ObjectRef,
    /// How many nodes may fail before no further node is begun. Example: 1
    #[schemars(range(min = 1, max = 15000))]
    pub failures_max: u32,
    /// The version that the control plane moves to within this part of the way; absent on the root. Example: 1.34.4
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hop: Option<KubeVersion>,
    /// Names the update in metrics, traces and backups. Example: 0193a6f2-8d1c-7c55-9a59-5c1f1d0e2b11
    #[schemars(length(min = 1, max = 64))]
    pub operation_id: String,
    /// The run that this one is a part of; absent on the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ParentRef>,
    /// The UpgradePlan that is carried out.
    pub plan: PlanRef,
    /// The version to arrive at. Example: 1.34.4
    pub target_version: KubeVersion,
}

/// One particular object of the cluster scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// Its name. Example: to-1-34
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its UID. Example: 6f0d7f0e-0c3e-4a53-9b1a-2f6f5d1c9a77
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
}

/// The run that another one is a part of, and the step of it that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParentRef {
    /// Name of the parent. Example: to-1-34-6f0d7f0e
    #[schemars(length(min = 1, max = 253))]
    pub run: String,
    /// UID of the parent. Example: 6f0d7f0e-0c3e-4a53-9b1a-2f6f5d1c9a77
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
    /// The step of the parent that waits for this run. Example: 1.34.4/workers
    #[schemars(length(min = 1, max = 320))]
    pub vertex: String,
}

/// An UpgradePlan, and the digest that it must have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanRef {
    /// SHA-256 of the plan in hexadecimal digits. Example: 1b9d2c3a...
    #[schemars(length(min = 8, max = 64), regex(pattern = "^[0-9a-f]+$"))]
    pub digest: String,
    /// Its name. Example: to-1-34-6f0d7f0e-1b9d2c3a
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// How far a run has come. The cursor is the truth; everything else is told from it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
// Atomic: one writer, who writes it as a whole; its managedFields would be a kilobyte otherwise.
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct UpgradeRunStatus {
    /// The runs that are parts of this one, summed up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::CHILDREN_MAX), extend("x-kubernetes-list-type" = "atomic"))]
    pub children: Vec<ChildRun>,
    /// Which write this status is of: tells a writer whose reply was lost whether its write arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
    /// When it came to its end. Example: 2026-11-22T08:30:00Z
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Timestamp>,
    /// Succeeded, Reconciling, Stalled and Paused, each with a reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::conditions::list_schema")]
    pub conditions: Vec<Condition>,
    /// What is happening. Example: worker-3/drain
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::STEP_CHARS_MAX))]
    pub current_step: Option<String>,
    /// The state of every step, encoded; written as a whole and read by the operator alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::CURSOR_CHARS_MAX))]
    pub cursor: Option<String>,
    /// The number of the leader that wrote this; a smaller one is refused. Example: 4
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub epoch: Option<u64>,
    /// What happened last, newest at the end, at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::EVENTS_MAX), inner(length(max = limits::EVENT_CHARS_MAX)), extend("x-kubernetes-list-type" = "atomic"))]
    pub events: Vec<String>,
    /// The run as a tree, one step a line, finished nodes folded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::GRAPH_LINES_MAX), inner(length(max = limits::GRAPH_LINE_CHARS_MAX)), extend("x-kubernetes-list-type" = "atomic"))]
    pub graph: Vec<String>,
    /// When this status last changed. Example: 2026-11-22T07:12:41Z
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<Timestamp>,
    /// What happens, in one line; if a person is needed, the next command to type. Example: draining worker-3: 3 of 12 pods evicted
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::MESSAGE_CHARS_MAX))]
    pub message: Option<String>,
    /// The generation of the spec that this status speaks of. Example: 1
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Where it stands: Pending, InProgress, Succeeded, Failed, RequiresAttention or Cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Steps done of all steps. Example: 14/22
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub progress: Option<String>,
    /// Why it stands where it stands, in one word. Example: DrainBlocked
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::REASON_CHARS_MAX))]
    pub reason: Option<String>,
    /// When the first step began. Example: 2026-11-22T07:00:00Z
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
}

/// Which write a status is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommitId {
    /// The number of the leader that wrote. Example: 4
    #[schemars(range(min = 0))]
    pub epoch: u64,
    /// The number of its write. Example: 117
    #[schemars(range(min = 0))]
    pub sequence: u64,
}

/// A run that is a part of another one, summed up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChildRun {
    /// Its name. Example: to-1-34-6f0d7f0e-1.34.4-workers
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Where it stands: Pending, InProgress, Succeeded, Failed, RequiresAttention or Cancelled.
    pub phase: Phase,
    /// Steps done of all steps. Example: 14/22
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub progress: Option<String>,
}

impl UpgradeRunStatus {
    /// Cuts everything told for people to what the schema takes: the newest events, the first children and lines. The cursor stays whole.
    pub fn bound(&mut self) {
        self.children.truncate(limits::CHILDREN_MAX);
        cut_some(self.current_step.as_mut(), limits::STEP_CHARS_MAX);
        keep_last(&mut self.events, limits::EVENTS_MAX);
        for event in &mut self.events {
            cut(event, limits::EVENT_CHARS_MAX);
        }
        self.graph.truncate(limits::GRAPH_LINES_MAX);
        for line in &mut self.graph {
            cut(line, limits::GRAPH_LINE_CHARS_MAX);
        }
        cut_some(self.message.as_mut(), limits::MESSAGE_CHARS_MAX);
        cut_some(self.reason.as_mut(), limits::REASON_CHARS_MAX);
    }
}
