//! What else is in a cluster and matters to an upgrade: etcd's members, pods that a drain would meet, hooks, other programs.

use crate::limits::{ETCD_DOUBT_CHARS_MAX, FOLDER_CHARS_MAX, SETTING_CHARS_MAX};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What lives around the nodes. All of it may be empty: then nothing of the kind was seen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Surroundings {
    /// Members of etcd, as one of them tells; empty if nobody asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub etcd_members: Vec<EtcdMember>,
    /// PodDisruptionBudgets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disruption_budgets: Vec<DisruptionBudget>,
    /// Pods that a drain cannot evict as a matter of course; others need not be named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<PodSnapshot>,
    /// Admission webhooks that refuse when they fail, and see nodes, pods or evictions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub admission_hooks: Vec<AdmissionHook>,
    /// Admission policies that deny or fail, and see nodes, pods or evictions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub admission_policies: Vec<AdmissionPolicy>,
    /// API versions that are on their way out and were asked for since the API server that answered has started.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deprecated_requests: Vec<DeprecatedRequest>,
    /// Programs that reboot, upgrade or remove nodes, too: `DaemonSet kube-system/kured`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_updaters: Vec<String>,
    /// Whether something else than kube-proxy does its work.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub without_kube_proxy: bool,
    /// Whether kubeadm's ClusterConfiguration says `proxy.disabled`, be there a kube-proxy or not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub kube_proxy_disabled: bool,
    /// Whether there is a kube-proxy and no ConfigMap kube-system/kube-proxy, by which kubeadm up to 1.31 goes. Looked at where kubeadm's
    /// configuration disables it only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub kube_proxy_without_config_map: bool,
    /// Addons of kubeadm that are not there: `kube-proxy`, `coredns`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub absent_addons: Vec<AbsentAddon>,
    /// Flags that kubeadm's ClusterConfiguration gives the components of the control plane.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<ComponentSetting>,
    /// What could not be read, and why: told, never guessed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
}

/// An addon of kubeadm whose workload is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AbsentAddon {
    /// `kube-proxy` or `coredns`.
    pub name: String,
    /// Whether its ConfigMap in kube-system is there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub config_map: bool,
    /// Whether kubeadm's ClusterConfiguration says that it is disabled.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
}

/// A member of etcd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EtcdMember {
    /// The alarms that it has raised. Example: ["NOSPACE"]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), inner(length(max = 32)), extend("x-kubernetes-list-type" = "atomic"))]
    pub alarms: Vec<String>,
    /// Its name: kubeadm gives it that of its node. Empty if it never started. Example: cp-1
    #[schemars(length(max = 253))]
    pub name: String,
    /// Whether it has no vote yet. Example: false
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub learner: bool,
    /// Whether it answers and knows a leader. Example: true
    #[serde(default = "yes")]
    pub healthy: bool,
    /// Version of its server, as it says; nothing where it does not answer. Example: 3.5.24
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub version: Option<String>,
}

impl EtcdMember {
    /// A member of that name that answers, has a vote and raised no alarm, and of which no more is known.
    pub fn voting(name: impl Into<String>) -> Self {
        Self { alarms: Vec::new(), name: name.into(), learner: false, healthy: true, version: None }
    }
}

/// What speaks against starting the next minor of etcd on a machine's data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EtcdDoubt {
    /// MembersDiffer, its database has others than etcd 3.5 goes by; OldKeys, its old store (v2) has more than members, with which
    /// etcd 3.6 does not start; NotRead, it could not be looked at.
    pub kind: EtcdDoubtKind,
    /// What was seen. Example: its database still has member 8e9e05c52164694d (cp-4), which was removed and would come back
    #[schemars(length(max = ETCD_DOUBT_CHARS_MAX))]
    pub message: String,
}

/// Sorts of what speaks against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum EtcdDoubtKind {
    /// The members in its database are others than those that etcd 3.5 goes by.
    MembersDiffer,
    /// Its old store (v2) has more than members: etcd 3.6 does not start.
    OldKeys,
    /// It could not be looked at.
    NotRead,
}

/// A flag of a component that stands where an upgrade leaves it, so that the next minor is started with it, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComponentSetting {
    /// The flag, with its value where that names feature gates or admission plugins. Example: --feature-gates=MemoryManager=true
    #[schemars(length(max = SETTING_CHARS_MAX))]
    pub argument: String,
    /// The component: kube-apiserver, kube-controller-manager, kube-scheduler or kubelet. Example: kubelet
    #[schemars(length(max = 32))]
    pub component: String,
    /// Where it stands. Example: /etc/default/kubelet
    #[schemars(length(max = FOLDER_CHARS_MAX))]
    pub from: String,
}

fn yes() -> bool {
    true
}

/// How much a PodDisruptionBudget leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DisruptionBudget {
    /// Namespace and name: `shop/web`.
    pub name: String,
    /// `status.expectedPods`.
    pub expected_pods: i32,
    /// `status.desiredHealthy`.
    pub desired_healthy: i32,
    /// `status.currentHealthy`; all of them if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_healthy: Option<i32>,
}

impl DisruptionBudget {
    /// Whether none of its pods may ever be evicted, however healthy they are.
    pub fn never_gives(&self) -> bool {
        self.expected_pods > 0 && self.desired_healthy >= self.expected_pods
    }

    /// Whether none of its pods may be evicted now.
    pub fn gives_nothing_now(&self) -> bool {
        self.current_healthy.unwrap_or(self.expected_pods) <= self.desired_healthy
    }
}

/// A pod that a drain cannot evict as a matter of course.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodSnapshot {
    /// Namespace and name: `shop/web-0`.
    pub name: String,
    /// The node that it runs on.
    pub node: String,
    /// Its labels: rules of a drain go by them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Names of the budgets that cover it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<String>,
    /// Whether it has an emptyDir, whose data ends with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_dir: bool,
    /// Whether nothing would make it anew elsewhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unmanaged: bool,
}

/// An admission webhook that refuses when it fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdmissionHook {
    /// What it is called: `ValidatingWebhookConfiguration kyverno webhook validate.kyverno.svc-fail`.
    pub name: String,
    /// What of an upgrade it sees: nodes, pods, pods/eviction.
    pub sees: Vec<String>,
    /// API groups of which it sees every kind, those that a later minor adds, too; `*`: of every group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub all_of: Vec<String>,
    /// The nodes on which pods that answer it are ready; left out if unknown, or if it answers from outside of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<BTreeSet<String>>,
}

/// An admission policy that is bound to deny, or changes requests and refuses those on which it fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdmissionPolicy {
    /// What it is called: `ValidatingAdmissionPolicy owners-only`, `MutatingAdmissionPolicy sidecars`.
    pub name: String,
    /// What of an upgrade it sees: nodes, pods, pods/eviction.
    pub sees: Vec<String>,
    /// API groups of which it sees every kind, those that a later minor adds, too; `*`: of every group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub all_of: Vec<String>,
}

/// An API version that somebody asks for and that goes away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeprecatedRequest {
    /// Group, version and resource: `policy/v1beta1 podsecuritypolicies`.
    pub api: String,
    /// The first minor that no longer serves it: `1.25`.
    pub removed_in: String,
    /// Programs that wrote objects by it, with some of them and the day: `helm (shop/web; last on 2026-11-20)`. Readers leave no trace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub written_by: Vec<String>,
}
