//! Parameters of the host steps: what compilers of plans write into orders and the runner reads. Fixed for ever per kind.

use crate::ports::host::{KubeProxy, KubeadmUpgrade, Package};
use cupcake_crds::values::{HostStep, KubeVersion, MinorVersion, PackageVersion};
use cupcake_engine::clock::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Kind of the step that sets the package repository to a minor.
pub const SWITCH_REPOSITORY: &str = "switch-repository/v1";
/// Kind of the step that installs exact package versions.
pub const INSTALL_PACKAGES: &str = "install-packages/v1";
/// Kind of the step that makes the images of a version present.
pub const PULL_IMAGES: &str = "pull-images/v1";
/// Kind of the step that makes the images of a version present that a worker runs.
pub const PULL_WORKER_IMAGES: &str = "pull-worker-images/v1";
/// Kind of the step that runs kubeadm's upgrade.
pub const KUBEADM_UPGRADE: &str = "kubeadm-upgrade/v1";
/// Kind of the step that looks at etcd right before kubeadm begins on a control-plane node.
pub const CHECK_ETCD: &str = "check-etcd/v1";
/// Kind of the step that takes an etcd snapshot.
pub const ETCD_SNAPSHOT: &str = "etcd-snapshot/v1";
/// Kind of the step that brings the running kubelet to the installed one.
pub const RESTART_KUBELET: &str = "restart-kubelet/v1";
/// Kind of the step that brings containerd to a version of its package.
pub const UPGRADE_CONTAINERD: &str = "upgrade-containerd/v1";

/// The name under which an order holds the step that pulls images, and the first word of what that leaves.
pub const PULL_STEP: &str = "pull-images";
/// Where the answer to such an order of a control-plane node says which image of CoreDNS its kubeadm brings.
pub const CORE_DNS: &str = "pull-images.coreDns";

/// The name under which an order holds the step that looks at etcd.
pub const CHECK_STEP: &str = "check-etcd";

/// The name under which an order holds the step that takes a snapshot of etcd, and the first word of what that leaves.
pub const SNAPSHOT_STEP: &str = "etcd-snapshot";
/// Where the answer to such an order says when the snapshot was finished.
pub const SNAPSHOT_TAKEN: &str = "etcd-snapshot.takenAt";

/// The name under which an order holds the step that restarts the kubelet, and the first word of what that leaves.
pub const RESTART_STEP: &str = "restart-kubelet";
/// Where the answer to such an order says since when the kubelet runs that its Node has to hear of.
pub const KUBELET_STARTED: &str = "restart-kubelet.startedAt";

/// The name under which an order holds the step that brings containerd, and the first word of what that leaves.
pub const CONTAINERD_STEP: &str = "upgrade-containerd";
/// Where the answer to such an order names a containerd that had gone past the planned version by itself.
pub const CONTAINERD_NEWER: &str = "upgrade-containerd.newer";

/// Kind of the step that waits between the two parts of an order. Only the runner plans it; in an order it is refused.
pub const AWAIT_PROCEED: &str = "await-proceed/v1";

/// Every kind that may stand in an order of this release, sorted.
pub const ORDER_KINDS: [&str; 9] = [
    CHECK_ETCD,
    ETCD_SNAPSHOT,
    INSTALL_PACKAGES,
    KUBEADM_UPGRADE,
    PULL_IMAGES,
    PULL_WORKER_IMAGES,
    RESTART_KUBELET,
    SWITCH_REPOSITORY,
    UPGRADE_CONTAINERD,
];

/// [`SWITCH_REPOSITORY`]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SwitchRepository {
    /// The version whose minor the repository is set to.
    pub version: KubeVersion,
}

impl SwitchRepository {
    /// The minor that the repository is set to.
    pub fn minor(&self) -> MinorVersion {
        self.version.minor_version()
    }
}

/// [`INSTALL_PACKAGES`]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InstallPackages {
    /// Which packages.
    pub packages: Vec<Package>,
    /// In which version.
    pub version: KubeVersion,
}

/// [`PULL_IMAGES`]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PullImages {
    /// Of which version.
    pub version: KubeVersion,
}

/// What [`PULL_IMAGES`] leaves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImagesPulled {
    /// The image of CoreDNS that kubeadm brings; absent where it names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core_dns: Option<String>,
}

/// [`PULL_WORKER_IMAGES`]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PullWorkerImages {
    /// Of which version.
    pub version: KubeVersion,
    /// From where, as kubeadm's configuration of the cluster says: a worker has no manifest that would tell. kubeadm's own repository
    /// if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// What of kube-proxy: where it is left out, its image is not pulled.
    #[serde(default, skip_serializing_if = "KubeProxy::is_upgrade")]
    pub kube_proxy: KubeProxy,
}

/// [`KUBEADM_UPGRADE`]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpgradeByKubeadm {
    /// Which of kubeadm's two ways.
    pub how: KubeadmUpgrade,
    /// To which version.
    pub version: KubeVersion,
    /// The orders whose recorded success of this step counts as this one's, the newest first: attempts before, of which something
    /// after kubeadm failed (see [`crate::mailbox::run_name`]). Left out: none but its own, as where a person asks for the node
    /// again, who may have changed what kubeadm reads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub success_of: Vec<String>,
    /// What of kube-proxy; a runner of before this field refuses an order that has it.
    #[serde(default, skip_serializing_if = "KubeProxy::is_upgrade")]
    pub kube_proxy: KubeProxy,
}

/// [`CHECK_ETCD`]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CheckEtcd {
    /// The control-plane nodes when it is ordered: those are etcd's members, by name, and nobody else. Plans leave it out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub control_plane: Vec<String>,
    /// Where kubeadm brings etcd 3.6, which reads from the disk what etcd 3.5 does not go by: that is looked at, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<CheckStore>,
}

/// What of etcd's data is not asked again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CheckStore {
    /// The nodes of whose data somebody has acknowledged the doubts (`spec.acknowledge`, check `EtcdStore`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acknowledged: Vec<String>,
}

/// [`ETCD_SNAPSHOT`]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EtcdSnapshot {
    /// Name of the snapshot, unique for run and hop: words of letters, digits, '.' and '-'.
    pub name: String,
}

/// [`RESTART_KUBELET`]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestartKubelet {
    /// The version that must run in the end.
    pub version: KubeVersion,
}

/// What [`RESTART_KUBELET`] leaves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubeletRuns {
    /// Since when its process runs, by the machine's clock; absent where that says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
}

/// [`UPGRADE_CONTAINERD`]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpgradeContainerd {
    /// The whole version of its package.
    pub version: PackageVersion,
}

/// [`AWAIT_PROCEED`]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AwaitProceed {}

/// The field of [`UpgradeByKubeadm`] that names the attempts before.
pub const SUCCESS_OF: &str = "successOf";
/// How many of them are named.
pub const SUCCESS_OF_MAX: usize = 4;
/// The field of [`CheckEtcd`] that names the control-plane nodes.
pub const CONTROL_PLANE: &str = "controlPlane";

/// The names that a step's parameters carry in [`SUCCESS_OF`].
pub fn success_of(step: &HostStep) -> Vec<String> {
    let names = step.params.get(SUCCESS_OF).and_then(Value::as_array);
    names.into_iter().flatten().filter_map(|name| Some(name.as_str()?.to_owned())).collect()
}

/// A host step of an order.
pub fn host_step(name: &str, kind: &str, params: &impl Serialize) -> HostStep {
    let params = match serde_json::to_value(params) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) | Err(_) => serde_json::Map::new(),
    };
    HostStep { name: name.to_owned(), kind: kind.to_owned(), params }
}
