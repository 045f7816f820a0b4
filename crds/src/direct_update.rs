//! DirectUpdate: upgrade this cluster to that version, now.

use crate::{
    OPT_OUT_LABEL,
    conditions::Condition,
    control::{Acknowledgement, Control, VertexRequest},
    limits::{self, cut, cut_some, keep_last},
    notice::Notice,
    update_schedule::MaintenanceWindow,
    validate::direct_update as rules,
    values::{
        AirGapped, ApprovalPoint, Canary, Component, ComponentVersions, Concurrency, DrainRule, InvalidVersion,
        KubeVersion, OnExpiry, Phase, Strategy, UserGate,
    },
};
use cupcake_engine::clock::Timestamp;
use kube_core::Duration;
use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What to upgrade, to which version, and how carefully.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "cupcake.ricardomolendijk.com",
    version = "v1",
    kind = "DirectUpdate",
    plural = "directupdates",
    shortname = "du",
    category = "cupcake",
    status = "DirectUpdateStatus",
    derive = "PartialEq",
    validation = rules::FROZEN_ACKNOWLEDGE,
    validation = rules::FROZEN_AIR_GAPPED,
    validation = rules::FROZEN_APPROVALS,
    validation = rules::FROZEN_BATCH_SIZE,
    validation = rules::FROZEN_CANARY,
    validation = rules::FROZEN_COMPONENTS,
    validation = rules::FROZEN_COMPONENT_VERSIONS,
    validation = rules::FROZEN_DRAIN,
    validation = rules::FROZEN_DRY_RUN,
    validation = rules::FROZEN_GATES,
    validation = rules::FROZEN_MAX_FAILURES,
    validation = rules::FROZEN_NODE_ORDER,
    validation = rules::FROZEN_NODE_SELECTOR,
    validation = rules::FROZEN_NODE_TIMEOUT,
    validation = rules::FROZEN_OPERATION_TIMEOUT,
    validation = rules::FROZEN_PATH,
    validation = rules::FROZEN_PREFLIGHT_CHECKS,
    validation = rules::FROZEN_STRATEGY,
    validation = rules::FROZEN_TARGET_VERSION,
    validation = rules::RUN_STAYS,
    validation = rules::SKIP_STAYS,
    doc = "Upgrades this cluster to a version, now: `kubectl apply` it and watch it arrive. Once its run exists, or it is over, the spec stays as it is, but for concurrency, control and maintenanceWindow.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", description = "where it stands"),
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
        description = "nodes done of nodes to upgrade"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        description = "what happens, or what to do next",
        priority = 1
    ),
    printcolumn(
        name = "Run",
        type_ = "string",
        json_path = ".status.run",
        description = "its UpgradeRun",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = rules::CANARY_NAMES_NODES, validation = rules::WINDOW_IS_OPEN, validation = rules::CANARY_ENABLED_NAMES_NODES, validation = rules::AIR_GAP_NAMES_BUNDLE, validation = rules::APPROVAL_AFTER_CANARY, validation = rules::VERSION_OF_NAMED_COMPONENT)]
#[serde(rename_all = "camelCase")]
pub struct DirectUpdateSpec {
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

    /// What waits until somebody approves it (`kubectl cupcake approve`): BeforeControlPlane, AfterCanary, BeforeEachHop. Example: [BeforeControlPlane]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub approvals: Vec<ApprovalPoint>,

    /// How many workers make one batch between two gates; 50, or concurrency if that is more, if left out. Example: 50
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 250))]
    pub batch_size: Option<u32>,

    /// Workers that go first under strategy canary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,

    /// What may be changed on a node. Example: [kubeadm, kubelet, kubectl]
    #[serde(default = "Component::defaults")]
    #[schemars(length(min = 1, max = 5), extend("x-kubernetes-list-type" = "set"))]
    pub components: Vec<Component>,

    /// Versions of components that do not follow from targetVersion: containerd's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component_versions: Option<ComponentVersions>,

    /// How many workers may be in flight: a number, or a percentage of the selected workers. May change at any time. Example: 3 or "10%"
    #[serde(default)]
    #[x_kube(validation = rules::CONCURRENCY)]
    pub concurrency: Concurrency,

    /// Requests to an update under way: pause, resume, cancel, approvals, retry, skip. May change at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<Control>,

    /// How nodes are emptied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,

    /// Plan and check only; nothing is changed. What would happen stands in status.graph, status.preflightResults and status.commands. Example: true
    #[serde(default)]
    pub dry_run: bool,

    /// What is measured before the update goes on, and has to be right.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::USER_GATES_MAX), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub gates: Vec<UserGate>,

    /// When nodes may be begun; outside it, nodes that are under way come to their end, and the update goes on by itself when it opens. May change at any time. At any time if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance_window: Option<MaintenanceWindow>,

    /// How many workers of a hop may fail before no further node is begun, over all its batches (with strategy parallel in each batch by
    /// itself); 1 if left out. A canary may not. Example: 1
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 15000))]
    pub max_failures: Option<u32>,

    /// In which order workers move: by the values of a label of theirs; by name if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_order: Option<NodeOrder>,

    /// Only nodes with all of these labels are upgraded; all nodes if left out. Example: {"pool": "blue"}
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::values::labels_schema")]
    pub node_selector: BTreeMap<String, String>,

    /// The longest one node may take, as a Go duration; 30m if left out. Example: 45m
    #[serde(default, deserialize_with = "crate::values::duration::read", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration")]
    #[x_kube(validation = rules::DURATION)]
    pub node_timeout: Option<Duration>,

    /// How long the update may go on by itself, as a Go duration, counted anew after a pause, a gate, whenever a person was needed and in each maintenanceWindow; if left out, 2h or twice the estimate, whichever is longer. When it is over, no node is begun any more; once those under way have come to their end the update rests in RequiresAttention. Example: 6h
    #[serde(default, deserialize_with = "crate::values::duration::read", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration")]
    #[x_kube(validation = rules::DURATION)]
    pub operation_timeout: Option<Duration>,

    /// The versions that the control plane goes through, in order, the target last; if left out, the newest known patch of each minor in between. Example: [1.33.13, 1.34.4]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 32), regex(pattern = crate::schema::VERSION_PATTERN)), extend("x-kubernetes-list-type" = "atomic"))]
    pub path: Vec<String>,

    /// Check API, nodes, disks, disruption budgets and more before anything is changed. Example: true
    #[serde(default = "crate::values::enabled")]
    pub preflight_checks: bool,

    /// In which order workers follow: rolling (at most concurrency at once), parallel (all at once) or canary (the canary nodes, a gate, then rolling).
    /// Control-plane nodes always go first, one by one. Example: rolling
    #[serde(default)]
    pub strategy: Strategy,
}

/// In which order workers move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeOrder {
    /// The label whose values make groups of workers: one group comes to its end before the next is begun (with strategy parallel all are begun at once), and no batch has workers of two. Canaries go before all. Example: topology.kubernetes.io/zone
    #[schemars(length(min = 1, max = 317))]
    pub by_label: String,
    /// Values in the order in which their groups move. Other values follow in the order of the alphabet, workers without the label last. Example: [zone-b, zone-a]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::NODE_GROUPS_MAX), inner(length(max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub values: Vec<String>,
}

/// A check that stands in the way of one node, and that somebody answers for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AcknowledgedCheck {
    /// Name of the check, as the refusal gives it. Example: CgroupV1
    #[schemars(length(min = 1, max = 64))]
    pub check: String,
    /// Name of the Node. Example: worker-3
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
}

/// How nodes are emptied before their kubelet is replaced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// Whether pods with an emptyDir may be evicted, whose data ends with them. Without it such a pod on a node that is to be drained stands in the way when the update is about to begin, and one that comes later blocks the drain. Example: true
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub delete_empty_dir_data: bool,
    /// Whether pods without a controller may be evicted, which nothing makes anew. Without it they stand in the way when the update is about to begin, and one that comes later blocks the drain. Example: true
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub delete_unmanaged_pods: bool,
    /// What becomes of a node whose drain has not ended after timeout: Hold (the update rests until a person decides), SkipNode (a worker is given back as it was and left out, as by spec.control.skip, see status.leftOut; control-plane nodes hold)
    /// or ForceAfter (the pods that were to go are deleted, past their disruption budgets; what deleteEmptyDirData and deleteUnmanagedPods do not allow stays, and holds). Example: SkipNode
    #[serde(default, skip_serializing_if = "OnExpiry::is_hold")]
    pub on_expiry: OnExpiry,
    /// Whether a node is drained whose kubelet stays in its minor version. Without it such a node is neither cordoned nor emptied: its pods run on while the kubelet restarts. Control-plane nodes of a hop are all drained if one of them has to be. Example: false
    #[serde(default = "crate::values::enabled", skip_serializing_if = "Clone::clone")]
    pub on_patch: bool,
    /// How long one pod gets to end, as a Go duration; its own grace period if left out. Example: 5m
    #[serde(default, deserialize_with = "crate::values::duration::read", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration")]
    #[x_kube(validation = rules::DURATION)]
    pub pod_timeout: Option<Duration>,
    /// What is done about which pods; the first rule that selects a pod counts, and a pod that no rule selects is evicted with order 0. Pods of DaemonSets, static pods, finished ones and CUPCAKE's own operator stay, whatever is said here. When the time of the drain is up, orders no longer count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::DRAIN_RULES_MAX), extend("x-kubernetes-list-type" = "atomic"))]
    pub rules: Vec<DrainRule>,
    /// How long a drain may be blocked before onExpiry says what becomes of the node, as a Go duration; half of nodeTimeout if left out. Example: 30m
    #[serde(default, deserialize_with = "crate::values::duration::read", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration")]
    #[x_kube(validation = rules::DURATION)]
    pub timeout: Option<Duration>,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            delete_empty_dir_data: false,
            delete_unmanaged_pods: false,
            on_expiry: OnExpiry::Hold,
            on_patch: true,
            pod_timeout: None,
            rules: Vec::new(),
            timeout: None,
        }
    }
}

/// How far an update has come.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DirectUpdateStatus {
    /// Requests of spec.control that were taken up, the last 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::ACKNOWLEDGED_MAX), extend("x-kubernetes-list-type" = "atomic"))]
    pub acknowledged: Vec<Acknowledgement>,
    /// Gates that somebody opened: who, when and why, the last 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::REQUESTS_MAX), extend("x-kubernetes-list-type" = "atomic"))]
    pub approvals: Vec<Approved>,
    /// The etcd snapshot to go back to, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_info: Option<BackupInfo>,
    /// Of a dry run: what would be done on each node, in order. Nodes that are treated alike stand together, and only the first 32 such groups, so that this object does not grow with the cluster: kubectl cupcake plan --commands tells all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::NODE_COMMANDS_MAX), extend("x-kubernetes-list-type" = "atomic"))]
    pub commands: Vec<NodeCommands>,
    /// When it came to its end. Example: 2026-11-22T08:30:00Z
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Timestamp>,
    /// Succeeded, Reconciling, Stalled, Preflight once it was checked whether it can start, Paused once somebody held it, TimedOut once spec.operationTimeout was over and, where spec.approvals asks for somebody, Approved, each with a reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::conditions::list_schema")]
    pub conditions: Vec<Condition>,
    /// What spec.gates came to where they stand, with their last values, the last 16 places.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::GATES_SEEN_MAX), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["place"]))]
    pub gates: Vec<GateSeen>,
    /// The run as a tree, one step a line, finished nodes folded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::GRAPH_LINES_MAX), inner(length(max = limits::GRAPH_LINE_CHARS_MAX)), extend("x-kubernetes-list-type" = "atomic"))]
    pub graph: Vec<String>,
    /// When this status last changed. Example: 2026-11-22T07:12:41Z
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<Timestamp>,
    /// Workers that were left out because their drain did not end (spec.drain.onExpiry: SkipNode), the first 32; the drains of others hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::LEFT_OUT_MAX), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["node"]))]
    pub left_out: Vec<LeftOut>,
    /// What happens, in one line; if a person is needed, the next command to type. Example: Step 2/3: Upgrading to 1.27.0
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::MESSAGE_CHARS_MAX))]
    pub message: Option<String>,
    /// Nodes that failed or are in flight, by name, at most 64; filled up with others to 30. All are counted in summary, so that this object does not grow with the cluster.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = limits::NODES_MAX, "x-kubernetes-map-type" = "atomic"))]
    pub nodes: BTreeMap<String, NodeProgress>,
    /// What is still to be told to the sink of notifications, oldest first, the last 16; empty where none is configured (docs/notifications.md).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::NOTICES_MAX), extend("x-kubernetes-list-type" = "atomic"))]
    pub notices: Vec<Notice>,
    /// The generation of the spec that this status speaks of. Example: 2
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Names this update in metrics, traces and backups. Example: 0193a6f2-8d1c-7c55-9a59-5c1f1d0e2b11
    #[serde(default, rename = "operationID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub operation_id: Option<String>,
    /// Where it stands: Pending, InProgress, Succeeded, Failed, RequiresAttention or Cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// What spec.operationTimeout came to when the update began, in seconds. Example: 7200
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::OPERATION_SECONDS_MAX))]
    pub operation_timeout_seconds: Option<u32>,
    /// The UpgradePlan that is carried out. Example: to-1-34-6f0d7f0e-1b9d2c3a
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub plan: Option<String>,
    /// What was checked before the start, as the last look had it; kubectl cupcake preflight prints it with what each check is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preflight_results: Option<PreflightResults>,
    /// Nodes done of nodes to upgrade. Example: 14/22
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub progress: Option<String>,
    /// The UpgradeRun that carries it out; once it is named here, the spec is frozen, but for concurrency, control and maintenanceWindow. Example: to-1-34-6f0d7f0e
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub run: Option<String>,
    /// When the first step began. Example: 2026-11-22T07:00:00Z
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// How many nodes are where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    /// The versions on the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade_path: Option<UpgradePath>,
}

/// A gate that somebody opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Approved {
    /// When it was taken up. Example: 2026-11-22T07:00:00Z
    pub at: Timestamp,
    /// Who approved. Example: jane@example.com
    #[schemars(length(min = 1, max = 256))]
    pub by: String,
    /// Why. Example: canary looked well for a day
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub comment: Option<String>,
    /// Which gate. Example: 1.34.4/canary-gate
    #[schemars(length(min = 1, max = 320))]
    pub gate: String,
}

/// What the gates of a user came to at one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateSeen {
    /// When that was first told. Example: 2026-11-22T07:25:00Z
    pub at: Timestamp,
    /// Whether they are open. Example: true
    pub open: bool,
    /// Where they stand. Example: 1.34.4/batch-2-gates
    #[schemars(length(min = 1, max = limits::STEP_CHARS_MAX))]
    pub place: String,
    /// Their last values. Example: error-rate is 0.034, has to be at most 0.01
    #[schemars(length(max = limits::NODE_MESSAGE_CHARS_MAX))]
    pub values: String,
}

/// What would be done on nodes that are treated alike.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeCommands {
    /// What would be done on each of them, in order, each with the name of its step. Example: ["restart-kubelet: systemctl restart kubelet"]
    #[schemars(length(max = limits::COMMANDS_MAX), inner(length(max = limits::COMMAND_CHARS_MAX)), extend("x-kubernetes-list-type" = "atomic"))]
    pub commands: Vec<String>,
    /// How many nodes these are. Example: 22
    #[schemars(range(max = 1_000_000))]
    pub count: u32,
    /// The first 8 of them.
    #[schemars(length(max = limits::COMMANDED_NODES_MAX), inner(length(max = 253)), extend("x-kubernetes-list-type" = "atomic"))]
    pub nodes: Vec<String>,
    /// The version that the hop goes to. Example: 1.34.4
    #[schemars(length(max = 32))]
    pub version: String,
}

/// A worker that an update goes on without.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeftOut {
    /// When that was decided. Example: 2026-11-22T07:25:00Z
    pub at: Timestamp,
    /// Name of the Node. Example: worker-3
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// Why: what kept its drain from ending. Example: shop/db-0: the disruption budget db needs 1 healthy pods and has 1 currently
    #[schemars(length(max = limits::NODE_MESSAGE_CHARS_MAX))]
    pub reason: String,
}

/// How far one node has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeProgress {
    /// When it was done. Example: 2026-11-22T07:15:00Z
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Timestamp>,
    /// What went wrong, if something did. Example: drain blocked by PodDisruptionBudget shop/db
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::NODE_MESSAGE_CHARS_MAX))]
    pub error: Option<String>,
    /// The step that was last begun. Example: drain
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::STEP_CHARS_MAX))]
    pub last_step: Option<String>,
    /// What happens, in one line. Example: 3 of 12 pods evicted
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::NODE_MESSAGE_CHARS_MAX))]
    pub message: Option<String>,
    /// Where it stands: Pending, Draining, Upgrading, Verifying, Uncordoning, Completed or Failed.
    pub phase: NodePhase,
    /// When it was begun. Example: 2026-11-22T07:10:00Z
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
}

/// Where one node stands: Pending, Draining, Upgrading, Verifying, Uncordoning, Completed or Failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum NodePhase {
    /// Not begun.
    Pending,
    /// Being cordoned and emptied.
    Draining,
    /// Packages, kubeadm and kubelet.
    Upgrading,
    /// Looking whether it is well.
    Verifying,
    /// Being given back.
    Uncordoning,
    /// Done.
    Completed,
    /// Failed.
    Failed,
}

/// How many nodes are where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Nodes done. Example: 14
    #[serde(default)]
    #[schemars(range(max = 1_000_000))]
    pub completed: u32,
    /// Nodes that failed. Example: 0
    #[serde(default)]
    #[schemars(range(max = 1_000_000))]
    pub failed: u32,
    /// Nodes not begun. Example: 5
    #[serde(default)]
    #[schemars(range(max = 1_000_000))]
    pub pending: u32,
    /// Nodes to upgrade. Example: 22
    #[serde(default)]
    #[schemars(range(max = 1_000_000))]
    pub total: u32,
    /// Nodes in flight. Example: 3
    #[serde(default)]
    #[schemars(range(max = 1_000_000))]
    pub upgrading: u32,
}

/// What was checked before the start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreflightResults {
    /// Each check with its result.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::CHECKS_MAX), extend("x-kubernetes-list-type" = "atomic"))]
    pub checks: Vec<PreflightCheck>,
    /// Whether all of them passed; false where spec.preflightChecks leaves them out, too. Example: true
    #[serde(default)]
    pub passed: bool,
}

/// One check and its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreflightCheck {
    /// What was found and what to do about it; left out where nothing was found. Example: nodes "worker-3": not Ready: preflight waits for them; mend them
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::MESSAGE_CHARS_MAX))]
    pub message: Option<String>,
    /// What was checked, as kubectl cupcake preflight names it. Example: Nodes
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// Whether it passed. Example: true
    pub passed: bool,
}

/// The versions on the way.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpgradePath {
    /// The index of the version that is being moved to, from 0. Example: 0
    #[serde(default)]
    #[schemars(range(max = 64))]
    pub current_step: u32,
    /// The version at the start. Example: 1.33.4
    #[schemars(length(max = 32))]
    pub current_version: String,
    /// The versions to go through, in order. Example: ["1.34.4"]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 32)), extend("x-kubernetes-list-type" = "atomic"))]
    pub steps: Vec<String>,
    /// The version to arrive at. Example: 1.34.4
    #[schemars(length(max = 32))]
    pub target_version: String,
    /// How many versions there are to go through. Example: 1
    #[serde(default)]
    #[schemars(range(max = 64))]
    pub total_steps: u32,
}

/// An etcd snapshot to go back to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupInfo {
    /// Where the snapshot is. Example: cp-1:/var/lib/cupcake/backups/to-1-34-6f0d7f0e-1.34.4.db
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub etcd_snapshot: Option<String>,
    /// When it was taken. Example: 2026-11-22T07:01:00Z
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
}

impl DirectUpdateSpec {
    /// The target version, parsed; the schema lets nothing else in, but objects may be older than the schema.
    pub fn target(&self) -> Result<KubeVersion, InvalidVersion> {
        self.target_version.parse()
    }

    /// The version that containerd is asked to have, if containerd is to move and one is named.
    pub fn containerd_version(&self) -> Option<&str> {
        self.component_versions.as_ref()?.containerd.as_deref()
    }

    /// Whether containerd is to move, too.
    pub fn moves_containerd(&self) -> bool {
        self.components.contains(&Component::Containerd)
    }

    /// Whether somebody asked to leave that worker out (`spec.control.skip`).
    pub fn skips(&self, node: &str) -> bool {
        let skip = self.control.iter().flat_map(|control| &control.skip);
        skip.into_iter().any(|request| request.vertex == node)
    }

    /// Whether a worker with these labels is to move: selected, not opted out, and not left out. Ask [`DirectUpdate::spec_now`] once a run exists.
    pub fn moves(&self, node: &str, labels: &BTreeMap<String, String>) -> bool {
        let selected = self.node_selector.iter().all(|(key, value)| labels.get(key) == Some(value));
        selected && !opted_out(labels) && !self.skips(node)
    }
}

/// Whether a worker with these labels takes part in no update.
pub fn opted_out(labels: &BTreeMap<String, String>) -> bool {
    labels.get(OPT_OUT_LABEL).is_some_and(|value| value == "true")
}

impl DirectUpdateStatus {
    /// Cuts everything to what the schema takes: the newest acknowledgements, failed checks before passed ones, failed nodes before others.
    pub fn bound(&mut self) {
        keep_last(&mut self.acknowledged, limits::ACKNOWLEDGED_MAX);
        for one in &mut self.acknowledged {
            cut(&mut one.message, Acknowledgement::MESSAGE_CHARS_MAX);
        }
        keep_last(&mut self.approvals, limits::REQUESTS_MAX);
        self.left_out.truncate(limits::LEFT_OUT_MAX);
        for one in &mut self.left_out {
            cut(&mut one.reason, limits::NODE_MESSAGE_CHARS_MAX);
        }
        keep_last(&mut self.gates, limits::GATES_SEEN_MAX);
        for seen in &mut self.gates {
            cut(&mut seen.values, limits::NODE_MESSAGE_CHARS_MAX);
        }
        keep_last(&mut self.notices, limits::NOTICES_MAX);
        for notice in &mut self.notices {
            cut(&mut notice.message, limits::NOTICE_CHARS_MAX);
            cut(&mut notice.reason, limits::REASON_CHARS_MAX);
        }
        self.commands.truncate(limits::NODE_COMMANDS_MAX);
        for alike in &mut self.commands {
            alike.nodes.truncate(limits::COMMANDED_NODES_MAX);
            alike.commands.truncate(limits::COMMANDS_MAX);
            alike.commands.iter_mut().for_each(|command| cut(command, limits::COMMAND_CHARS_MAX));
        }
        self.graph.truncate(limits::GRAPH_LINES_MAX);
        for line in &mut self.graph {
            cut(line, limits::GRAPH_LINE_CHARS_MAX);
        }
        cut_some(self.message.as_mut(), limits::MESSAGE_CHARS_MAX);
        if let Some(preflight) = &mut self.preflight_results {
            if preflight.checks.len() > limits::CHECKS_MAX {
                preflight.checks.sort_by_key(|check| check.passed);
                preflight.checks.truncate(limits::CHECKS_MAX);
            }
            for check in &mut preflight.checks {
                cut_some(check.message.as_mut(), limits::MESSAGE_CHARS_MAX);
            }
        }
        self.bound_nodes();
    }

    fn bound_nodes(&mut self) {
        let mut surplus = self.nodes.len().saturating_sub(limits::NODES_MAX);
        // Whoever must act needs the failed ones; the others are counted in the summary anyway.
        for expendable in [NodePhase::Pending, NodePhase::Completed] {
            self.nodes.retain(|_, node| {
                let drop = surplus > 0 && node.phase == expendable;
                surplus -= usize::from(drop);
                !drop
            });
        }
        while self.nodes.len() > limits::NODES_MAX {
            self.nodes.pop_last();
        }
        for node in self.nodes.values_mut() {
            cut_some(node.error.as_mut(), limits::NODE_MESSAGE_CHARS_MAX);
            cut_some(node.message.as_mut(), limits::NODE_MESSAGE_CHARS_MAX);
            cut_some(node.last_step.as_mut(), limits::STEP_CHARS_MAX);
        }
    }
}

impl DirectUpdate {
    /// Whether a run exists or it is over: then the spec is frozen, but for concurrency, control and maintenanceWindow.
    pub fn is_frozen(&self) -> bool {
        let frozen = |status: &DirectUpdateStatus| status.run.is_some() || status.phase.is_some_and(Phase::is_final);
        self.status.as_ref().is_some_and(frozen)
    }

    /// What is asked for by now: the spec, with the workers that a drain's policy left out (`status.leftOut`) as if
    /// `spec.control.skip` named them.
    pub fn spec_now(&self) -> Cow<'_, DirectUpdateSpec> {
        let left_out = self.status.as_ref().map_or(&[][..], |status| &status.left_out);
        if left_out.is_empty() {
            return Cow::Borrowed(&self.spec);
        }
        let mut spec = self.spec.clone();
        let skip = &mut spec.control.get_or_insert_default().skip;
        skip.extend(left_out.iter().map(|one| VertexRequest {
            request_id: format!("drain/{}", one.node),
            run: None,
            vertex: one.node.clone(),
            reason: Some(one.reason.clone()),
            requested_by: None,
        }));
        Cow::Owned(spec)
    }

    /// Whether the user holds it, by `spec.control.pause` or by the promised annotation.
    pub fn is_paused(&self) -> bool {
        let asked = self.spec.control.as_ref().is_some_and(|control| control.pause.is_some());
        let annotated = self
            .metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(crate::PAUSED_ANNOTATION))
            .is_some_and(|value| value == "true");
        asked || annotated
    }
}
