//! Parameters of the host steps: what compilers of plans write into orders and the runner reads. Fixed for ever per kind.

use crate::ports::host::{KubeadmUpgrade, Package};
use cupcake_crds::values::{HostStep, KubeVersion, MinorVersion, PackageVersion};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Kind of the step that sets the package repository to a minor.
pub const SWITCH_REPOSITORY: &str = "switch-repository/v1";
/// Kind of the step that installs exact package versions.
pub const INSTALL_PACKAGES: &str = "install-packages/v1";
/// Kind of the step that makes the images of a version present.
pub const PULL_IMAGES: &str = "pull-images/v1";
/// Kind of the step that runs kubeadm's upgrade.
pub const KUBEADM_UPGRADE: &str = "kubeadm-upgrade/v1";
/// Kind of the step that takes an etcd snapshot.
pub const ETCD_SNAPSHOT: &str = "etcd-snapshot/v1";
/// Kind of the step that brings the running kubelet to the installed one.
pub const RESTART_KUBELET: &str = "restart-kubelet/v1";
/// Kind of the step that brings containerd to a version of its package.
pub const UPGRADE_CONTAINERD: &str = "upgrade-containerd/v1";

/// Kind of the step that waits between the two parts of an order. Only the runner plans it; in an order it is refused.
pub const AWAIT_PROCEED: &str = "await-proceed/v1";

/// Every kind that may stand in an order of this release, sorted.
pub const ORDER_KINDS: [&str; 7] = [
    ETCD_SNAPSHOT,
    INSTALL_PACKAGES,
    KUBEADM_UPGRADE,
    PULL_IMAGES,
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

/// [`KUBEADM_UPGRADE`]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpgradeByKubeadm {
    /// Which of kubeadm's two ways.
    pub how: KubeadmUpgrade,
    /// To which version.
    pub version: KubeVersion,
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

/// A host step of an order.
pub fn host_step(name: &str, kind: &str, params: &impl Serialize) -> HostStep {
    let params = match serde_json::to_value(params) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) | Err(_) => serde_json::Map::new(),
    };
    HostStep { name: name.to_owned(), kind: kind.to_owned(), params }
}
