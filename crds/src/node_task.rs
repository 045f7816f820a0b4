//! NodeTask: the mailbox of one node. The operator puts an order in, the node's agent claims and answers it.

use crate::{
    limits::{self, cut, cut_some},
    validate::node_task as rules,
    values::{ComponentSetting, EtcdDoubt, EtcdMember, HostStep, KubeVersion, NodeRole, OrderKey, PackageVersion},
};
use cupcake_engine::clock::Timestamp;
use kube_derive::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// What is asked of a node; written by the operator alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "cupcake.ricardomolendijk.com",
    version = "v1",
    kind = "NodeTask",
    plural = "nodetasks",
    shortname = "nt",
    category = "cupcake",
    status = "NodeTaskStatus",
    derive = "PartialEq",
    validation = rules::NAMED_AFTER_NODE,
    validation = rules::NODE_STAYS,
    validation = rules::EPOCH_GROWS,
    validation = rules::ORDER_EPOCH_GROWS,
    validation = rules::ORDER_OF_PRESENT_LEADER,
    validation = rules::CLAIMED_STAYS,
    validation = rules::CONTENT_STAYS,
    validation = rules::REQUESTS_STAY,
    validation = rules::ANSWER_UNDER_KEY,
    validation = rules::ANSWER_STAYS,
    validation = rules::KEY_AND_STATE,
    validation = rules::STATE_GOES_ON,
    validation = rules::ANSWER_EPOCH_GROWS,
    doc = "The mailbox of one node, named after it: the operator writes an order into the spec, the node's agent answers in the status. The API server itself refuses whatever would break an order that is under way.",
    printcolumn(
        name = "State",
        type_ = "string",
        json_path = ".status.state",
        description = "how far the last claimed order is"
    ),
    printcolumn(name = "Step", type_ = "string", json_path = ".status.step", description = "the step on the machine"),
    printcolumn(
        name = "Target",
        type_ = "string",
        json_path = ".spec.order.targetVersion",
        description = "the version to arrive at"
    ),
    printcolumn(
        name = "Kubelet",
        type_ = "string",
        json_path = ".status.inventory.kubelet",
        description = "the kubelet at the last inventory"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        description = "what happens",
        priority = 1
    ),
    printcolumn(
        name = "Epoch",
        type_ = "integer",
        json_path = ".spec.epoch",
        description = "number of the leader",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct NodeTaskSpec {
    /// The number of the leader; a smaller one is refused. Example: 4
    #[schemars(range(min = 0))]
    pub epoch: u64,
    /// Asks for a new inventory under this name; status.inventory answers under it. Example: to-1-34-6f0d7f0e
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub inventory_request: Option<String>,
    /// Name of the Node, and of this object; never changes. Example: worker-3
    #[schemars(length(min = 1, max = 253))]
    pub node_name: String,
    /// UID of the Node; never changes. Example: 6f0d7f0e-0c3e-4a53-9b1a-2f6f5d1c9a77
    #[schemars(length(min = 1, max = 64))]
    pub node_uid: String,
    /// The work to do; replaced by the next one when it is answered, never before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
}

/// All that the node will do in one visit, in two parts: prepare, and, after proceed, finish.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct Order {
    /// How long the machine may work on it, in seconds, its waiting for proceed not counted. Example: 1800
    #[schemars(range(min = 1, max = 604_800))]
    pub deadline_seconds: u32,
    /// The number of the leader that wrote it; a smaller one is refused. Example: 4
    #[schemars(range(min = 0))]
    pub epoch: u64,
    /// What is done after proceed, when the node is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub finish: Vec<HostStep>,
    /// The token of the order: an answer counts only under it.
    pub key: OrderKey,
    /// What is done at once, while the node still carries its pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub prepare: Vec<HostStep>,
    /// Set when the node was drained: the second part may begin. Never withdrawn. Example: true
    #[serde(default)]
    pub proceed: bool,
    /// Asks the machine to stop at the next safe point. Never withdrawn. Example: true
    #[serde(default)]
    pub stop: bool,
    /// The version to arrive at. Example: 1.34.4
    pub target_version: KubeVersion,
    /// W3C trace context of the attempt. Example: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub traceparent: Option<String>,
}

/// What the node answered; written by its agent alone.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
// Atomic: one writer, who writes it as a whole; its managedFields would be a third of the object otherwise.
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct NodeTaskStatus {
    /// Boot id of the machine: tells a reboot from a restart. Example: 5b0b1f5e-6f3f-4b0b-8f39-1f5d5b7c1c11
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub boot_id: Option<String>,
    /// The epoch of the order when it was claimed. Example: 4
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub epoch: Option<u64>,
    /// What went wrong, if the order failed or was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<TaskError>,
    /// What the machine is and carries, as last asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory: Option<NodeInventory>,
    /// The token of the order that this answers; equal to spec.order.key once that order is claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-map-type" = "atomic"))]
    pub key: Option<OrderKey>,
    /// What happens, in one line. Example: kubeadm upgrade node is under way
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::NODE_MESSAGE_CHARS_MAX))]
    pub message: Option<String>,
    /// What the steps found out, for the operator. Example: {"kubelet": "1.34.4"}
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "outputs_schema")]
    pub outputs: BTreeMap<String, String>,
    /// How far the claimed order is: Claimed, Working, Prepared (waits for proceed), and in the end Done, Failed, Refused or Stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<TaskState>,
    /// The step that the machine is at. Example: kubelet-restart
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub step: Option<String>,
    /// When the agent last wrote this. Example: 2026-11-22T07:12:41Z
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
    /// Why that step waits, as long as it waits for something that people should see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<TaskWait>,
}

fn outputs_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": limits::OUTPUTS_MAX,
        "additionalProperties": {"type": "string", "maxLength": limits::OUTPUT_CHARS_MAX},
        "x-kubernetes-map-type": "atomic",
    })
}

/// How far the claimed order is: Claimed, Working, Prepared (waits for proceed), and in the end Done, Failed, Refused or Stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TaskState {
    /// The agent has it; the machine may not have begun.
    Claimed,
    /// The machine works.
    Working,
    /// The first part is done; it waits for `proceed`.
    Prepared,
    /// All of it is done.
    Done,
    /// It failed; see error.
    Failed,
    /// The agent or the runner did not take it; see error.
    Refused,
    /// It stopped because it was asked to.
    Stopped,
}

impl TaskState {
    /// Whether the order is answered: only then may another one take its place.
    pub const fn is_final(self) -> bool {
        match self {
            Self::Claimed | Self::Working | Self::Prepared => false,
            Self::Done | Self::Failed | Self::Refused | Self::Stopped => true,
        }
    }

    /// The word that objects carry.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Claimed => "Claimed",
            Self::Working => "Working",
            Self::Prepared => "Prepared",
            Self::Done => "Done",
            Self::Failed => "Failed",
            Self::Refused => "Refused",
            Self::Stopped => "Stopped",
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What went wrong on a machine, by what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct TaskError {
    /// What to do next: Transient (try again), Permanent (never will), NeedsOperator (a person must help).
    pub class: ErrorClass,
    /// One word for programs. Example: PackageLockHeld
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z][A-Za-z0-9]*$"))]
    pub code: String,
    /// What went wrong and what to do. Example: another process holds /var/lib/dpkg/lock; end it, then retry
    #[schemars(length(max = limits::NODE_MESSAGE_CHARS_MAX))]
    pub message: String,
}

/// Why a step on a machine waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct TaskWait {
    /// One word for programs. Example: EtcdMemberAway
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z][A-Za-z0-9]*$"))]
    pub code: String,
    /// What it waits for, and for how long. Example: cp-2 does not answer; waited for until 07:30:00 UTC
    #[schemars(length(max = limits::NODE_MESSAGE_CHARS_MAX))]
    pub message: String,
}

/// What to do after an error: Transient, Permanent or NeedsOperator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ErrorClass {
    /// Trying again may help.
    Transient,
    /// Trying again cannot help.
    Permanent,
    /// A person must do something first.
    NeedsOperator,
}

/// What a machine is and carries, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct NodeInventory {
    /// Architecture as Go names it. Example: amd64
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub architecture: Option<String>,
    /// Kubernetes versions that the node's repository offers, newest first. Example: ["1.34.4", "1.34.3"]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::VERSIONS_MAX), inner(length(max = 32)), extend("x-kubernetes-list-type" = "atomic"))]
    pub available_versions: Vec<String>,
    /// When the first of the control plane's certificates expires. Example: 2027-06-01T00:00:00Z
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates_expire: Option<Timestamp>,
    /// Version of control groups: 1 or 2. Example: 2
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2))]
    pub cgroup_version: Option<u32>,
    /// The machine's clock against that of the API server that answered its agent when it told this; left out by agents of releases
    /// that did not look, and where the answer did not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockDifference>,
    /// Version of containerd. Example: 1.7.24
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub containerd: Option<String>,
    /// The package that brought containerd, or why it cannot be upgraded as one; left out by runners of releases that did not look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containerd_package: Option<ContainerdPackage>,
    /// Free bytes of the file system under /var/lib. Example: 21474836480
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub disk_free_bytes: Option<u64>,
    /// Bytes of that file system in all. Example: 64424509440
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub disk_size_bytes: Option<u64>,
    /// File systems besides that of /var/lib on which something of an upgrade lands.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "atomic"))]
    pub disks: Vec<Disk>,
    /// Bytes of etcd's data on this machine. Example: 83886080
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub etcd_data_bytes: Option<u64>,
    /// Members of etcd, as the one on this machine lists them; empty on a worker, and where it does not answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 9), extend("x-kubernetes-list-type" = "atomic"))]
    pub etcd_members: Vec<EtcdMember>,
    /// Why etcd 3.6 should not be started on the data of etcd 3.5 that lies here; empty if nothing speaks against it, left out where
    /// there is no member, and by runners of releases that did not look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::ETCD_DOUBTS_MAX), extend("x-kubernetes-list-type" = "atomic"))]
    pub etcd_store_doubts: Option<Vec<EtcdDoubt>>,
    /// Certificate authorities of the control plane whose certificate is there and whose key is not: kubeadm renews nothing that they
    /// signed. Example: ["ca"]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), inner(length(max = 32)), extend("x-kubernetes-list-type" = "atomic"))]
    pub external_cas: Vec<String>,
    /// Changes by hand that kubeadm's next upgrade would undo. Example: ["kube-apiserver.yaml loses --audit-log-path=/var/log/audit.log"]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = limits::HAND_MADE_MAX),
        inner(length(max = limits::HAND_MADE_CHARS_MAX)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub hand_made: Vec<String>,
    /// Why such changes could not be told, if so. Example: kubeadm 1.34.4 is installed, which does not write manifests of 1.33.4
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::HAND_MADE_CHARS_MAX))]
    pub hand_made_unread: Option<String>,
    /// What keeps packages of an upgrade at their version there: marks, excludes and locks of the package manager; left out where that
    /// could not be told, and by runners of releases that did not look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::PACKAGE_HOLDS_MAX), extend("x-kubernetes-list-type" = "atomic"))]
    pub holds: Option<Vec<PackageHold>>,
    /// Version of kubeadm. Example: 1.33.4
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub kubeadm: Option<String>,
    /// Version of kubectl. Example: 1.33.4
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub kubectl: Option<String>,
    /// Version of kubelet. Example: 1.33.4
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub kubelet: Option<String>,
    /// What the repository of the minor after the present one offers, which the machine's own index does not show; nothing where there is none of pkgs.k8s.io's layout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_minor: Option<OfferedMinor>,
    /// The operating system. Example: Debian GNU/Linux 12 (bookworm)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub os: Option<String>,
    /// What installs packages: apt, dnf, dnf5 or zypper; nothing where it is none of them. Example: apt
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub package_manager: Option<String>,
    /// The request that this answers: spec.inventoryRequest. Example: to-1-34-6f0d7f0e
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub request: Option<String>,
    /// What the machine is for, as its own files tell: control-plane or worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<NodeRole>,
    /// The kinds of steps that its runner knows. Example: ["kubelet-restart/v1"]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 64)), extend("x-kubernetes-list-type" = "atomic"))]
    pub runner_kinds: Vec<String>,
    /// Flags of the kubelet, and of the control plane's static pods by kubeadm's patches, that stay through an upgrade.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::SETTINGS_MAX), extend("x-kubernetes-list-type" = "atomic"))]
    pub settings: Vec<ComponentSetting>,
    /// Whether swap is on there and its kubelet would not start with it, as it does not unless `failSwapOn` is false. Example: false
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap: Option<bool>,
    /// When it was taken. Example: 2026-11-22T07:00:00Z
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_at: Option<Timestamp>,
    /// Whether unattended-upgrades installs packages there by itself. Example: false
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unattended_upgrades: Option<bool>,
    /// Which of kubeadm and kubelet no package brought there: only packages are upgraded. Example: ["kubelet"]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2), inner(length(max = 16)), extend("x-kubernetes-list-type" = "atomic"))]
    pub without_package: Vec<String>,
}

/// How far a machine's clock is from that of an API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClockDifference {
    /// By how many milliseconds the machine's clock is ahead of the API server's; behind it, if negative. Example: 120
    #[schemars(range(min = -limits::CLOCK_AHEAD_MILLISECONDS_MAX, max = limits::CLOCK_AHEAD_MILLISECONDS_MAX))]
    pub ahead_milliseconds: i64,
    /// How far off that may be, either way: half of the time that the answer took, and half a second, since it tells whole seconds. Example: 512
    #[serde(default)]
    #[schemars(range(min = 0, max = limits::CLOCK_UNCERTAINTY_MILLISECONDS_MAX))]
    pub uncertainty_milliseconds: u64,
}

/// containerd as a package.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerdPackage {
    /// Name of the package: containerd or containerd.io. Example: containerd.io
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub name: Option<String>,
    /// Versions of that package that the machine's index offers, from the installed one on, newest first and as whole as the package manager has them; 16 at most, those of the installed minor before others. Example: ["1.7.27-1", "1.7.24-1"]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::CONTAINERDS_MAX), inner(length(max = 64)), extend("x-kubernetes-list-type" = "atomic"))]
    pub offered: Vec<String>,
    /// Why it cannot be upgraded, if so. Example: the kubelet uses unix:///run/crio/crio.sock
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::HAND_MADE_CHARS_MAX))]
    pub unfit: Option<String>,
    /// The version that is installed. Example: 1.7.24-1
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub version: Option<String>,
}

/// Something that keeps a package at its version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PackageHold {
    /// What it is, in the package manager's words. Example: apt-mark hold
    #[schemars(length(max = limits::PACKAGE_HOLD_CHARS_MAX))]
    pub by: String,
    /// What it comes to for an upgrade: Lifted (it is off for the install of the exact version, and back afterwards), Keeps (it stays, and lets in what it names alone) or Hides (it stays, and keeps away what it names). Example: Lifted
    pub effect: HoldEffect,
    /// Name of the package. Example: kubelet
    #[schemars(length(max = 64))]
    pub package: String,
    /// The versions that it keeps (all others are kept away) or hides, as a pattern; it lets no other version in at all, if left out. Example: 1.33.*
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub versions: Option<String>,
}

/// What something that keeps a package at its version comes to for an upgrade: Lifted (for the install of the exact version, and as it
/// was afterwards), Keeps (it stays, and lets in what it names alone) or Hides (it stays, and keeps away what it names).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum HoldEffect {
    /// It is off while the exact version is installed, and back afterwards.
    Lifted,
    /// It stays, and lets in what it names alone.
    Keeps,
    /// It stays, and keeps away what it names.
    Hides,
}

/// A file system besides that of /var/lib.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    /// Free bytes of it. Example: 21474836480
    #[schemars(range(min = 0))]
    pub free_bytes: u64,
    /// What of an upgrade lands on it: Configuration, Images, Packages or Snapshots, or several of them. Example: ["Images"]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "atomic"))]
    pub holds: Vec<DiskUse>,
    /// The first folder on it on which something lands. Example: /etc/kubernetes
    #[schemars(length(max = limits::FOLDER_CHARS_MAX))]
    pub path: String,
    /// Bytes of it in all. Example: 64424509440
    #[schemars(range(min = 0))]
    pub size_bytes: u64,
}

/// What of an upgrade lands on a file system: Configuration (/etc/kubernetes, where kubeadm copies etcd's data to), Images
/// (containerd's folder), Packages (/usr) or Snapshots (the runner's folder).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DiskUse {
    /// /etc/kubernetes, where kubeadm copies etcd's data to.
    Configuration,
    /// The folder of containerd.
    Images,
    /// /usr, where packages are unpacked.
    Packages,
    /// The runner's folder.
    Snapshots,
}

/// What one package repository offers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OfferedMinor {
    /// The minor version that it is for. Example: 1.34
    #[schemars(length(max = 16))]
    pub minor: String,
    /// Why it could not be read, if so. Example: RepositoryUnreachable: the mirror did not answer
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::HAND_MADE_CHARS_MAX))]
    pub unread: Option<String>,
    /// Versions of which it has kubeadm and kubelet, newest first; none where there is no such repository. Example: ["1.34.4", "1.34.3"]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::VERSIONS_MAX), inner(length(max = 32)), extend("x-kubernetes-list-type" = "atomic"))]
    pub versions: Vec<String>,
}

impl ContainerdPackage {
    /// A package of which that version is installed and those are offered: older ones are of no use, and what exceeds the limit is of
    /// another minor as long as there is something.
    pub fn of(name: &str, installed: &PackageVersion, offered: impl IntoIterator<Item = PackageVersion>) -> Self {
        let mut versions: Vec<PackageVersion> = offered.into_iter().filter(|version| version >= installed).collect();
        versions.sort_by_key(|version| (version.minor() == installed.minor(), version.clone()));
        versions.dedup();
        let mut versions = versions.split_off(versions.len().saturating_sub(limits::CONTAINERDS_MAX));
        versions.sort_by(|one, other| other.cmp(one));
        Self {
            name: Some(name.to_owned()),
            offered: versions.iter().map(ToString::to_string).collect(),
            unfit: None,
            version: Some(installed.to_string()),
        }
    }
}

/// Package managers by which machines are upgraded, as inventories name them.
pub const PACKAGE_MANAGERS: [&str; 4] = ["apt", "dnf", "dnf5", "zypper"];

impl NodeInventory {
    /// The machine's package manager, if it is one by which machines are upgraded.
    pub fn known_package_manager(&self) -> Option<&str> {
        self.package_manager.as_deref().filter(|manager| PACKAGE_MANAGERS.contains(manager))
    }
}

impl NodeTaskStatus {
    /// Cuts messages and outputs to what the schema takes; outputs beyond the limit are dropped, the last by name first.
    pub fn bound(&mut self) {
        cut_some(self.message.as_mut(), limits::NODE_MESSAGE_CHARS_MAX);
        if let Some(error) = &mut self.error {
            cut(&mut error.message, limits::NODE_MESSAGE_CHARS_MAX);
        }
        if let Some(waiting) = &mut self.waiting {
            cut(&mut waiting.message, limits::NODE_MESSAGE_CHARS_MAX);
        }
        while self.outputs.len() > limits::OUTPUTS_MAX {
            self.outputs.pop_last();
        }
        for output in self.outputs.values_mut() {
            cut(output, limits::OUTPUT_CHARS_MAX);
        }
    }
}

impl NodeTask {
    /// The order that the agent has claimed and not yet answered; nothing may replace it.
    pub fn claimed(&self) -> Option<&Order> {
        let order = self.spec.order.as_ref()?;
        let status = self.status.as_ref()?;
        let answered = status.state.is_some_and(TaskState::is_final);
        (status.key.as_ref() == Some(&order.key) && !answered).then_some(order)
    }

    /// How far the present order is; `None` as long as it is unclaimed (an answer to an earlier order is none to this one).
    pub fn answer(&self) -> Option<TaskState> {
        let order = self.spec.order.as_ref()?;
        let status = self.status.as_ref()?;
        (status.key.as_ref() == Some(&order.key)).then_some(status.state).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_offered_versions_of_containerd_those_that_could_be_installed_are_named_the_installed_minor_first() {
        let v = |text: &str| text.parse::<PackageVersion>().expect("a version");
        let of_1_7 = (9..30).map(|patch| v(&format!("1.7.{patch}-1")));
        let of_2 = (0..20).map(|patch| v(&format!("2.1.{patch}-1")));
        let told = ContainerdPackage::of("containerd.io", &v("1.7.24-1"), of_2.chain(of_1_7));
        assert_eq!(told.offered.len(), limits::CONTAINERDS_MAX);
        assert_eq!((told.offered[0].as_str(), told.offered[9].as_str()), ("2.1.19-1", "2.1.10-1"));
        assert_eq!(told.offered[10..], ["1.7.29-1", "1.7.28-1", "1.7.27-1", "1.7.26-1", "1.7.25-1", "1.7.24-1"]);
        assert_eq!(told.version.as_deref(), Some("1.7.24-1"));
    }
}
