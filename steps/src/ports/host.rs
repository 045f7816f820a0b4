//! What the runner's steps may do to their machine: a closed set of typed operations, never a shell string.

use crate::ports::disk::SharedDisk;
use async_trait::async_trait;
use cupcake_crds::node_task::NodeInventory;
use cupcake_crds::values::{EtcdDoubt, EtcdMember, KubeVersion, MinorVersion, PackageVersion};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::names::Reason;
use cupcake_engine::step::{Domain, StepError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The machine's domain.
pub struct Machine;

impl Domain for Machine {
    type Ports = MachinePorts;
}

/// The ports of the runner's steps.
#[derive(Clone)]
pub struct MachinePorts {
    /// The machine.
    pub host: Arc<dyn HostOps>,
    /// The runner's folder: the mailbox and the journal.
    pub disk: SharedDisk,
}

/// Why an operation on the machine failed, by what the step does next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum HostError {
    /// It may work another time: a lock is held, the API is away, a mirror does not answer.
    #[error("{0}")]
    Transient(Reason),
    /// It will not work, however often.
    #[error("{0}")]
    Permanent(Reason),
    /// A person has to do something on the machine first.
    #[error("{0}")]
    NeedsOperator(Reason),
}

impl From<HostError> for StepError {
    fn from(error: HostError) -> Self {
        match error {
            HostError::Transient(reason) => Self::Transient(reason),
            HostError::Permanent(reason) => Self::Permanent(reason),
            HostError::NeedsOperator(reason) => Self::NeedsOperator(reason),
        }
    }
}

/// The packages that are upgraded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Package {
    /// kubeadm.
    Kubeadm,
    /// kubelet.
    Kubelet,
    /// kubectl.
    Kubectl,
}

impl Package {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Kubeadm, Self::Kubelet, Self::Kubectl];

    /// Its name in apt and yum repositories.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kubeadm => "kubeadm",
            Self::Kubelet => "kubelet",
            Self::Kubectl => "kubectl",
        }
    }
}

/// A package as the package manager has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageState {
    /// The whole version, such as `1.34.4-1.1`; `None` if it is not installed.
    pub version: Option<String>,
    /// Whether it is installed to the end: neither half-configured nor half-unpacked.
    pub whole: bool,
    /// Whether it is held back from ordinary upgrades.
    pub held: bool,
}

impl PackageState {
    /// Whether it is installed whole, held, and of that Kubernetes version.
    pub fn is_at(&self, version: &KubeVersion) -> bool {
        self.whole && self.held && self.version.as_deref().is_some_and(|found| found.parse() == Ok(*version))
    }
}

/// Which of kubeadm's two ways: the first control-plane node applies, every other node follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KubeadmUpgrade {
    /// `kubeadm upgrade apply VERSION --yes`.
    Apply,
    /// `kubeadm upgrade node`.
    Node,
}

/// What kubeadm does about kube-proxy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KubeProxy {
    /// It upgrades it; where there is none, kubeadm from 1.32 on deploys it (kubernetes/kubeadm#3137).
    #[default]
    Upgrade,
    /// It is told to leave it out: `--skip-phases=addon/kube-proxy`, which `kubeadm upgrade apply` and `node` know from 1.32 on
    /// (kubernetes/kubernetes#126032 and #127242).
    LeaveOut,
}

impl KubeProxy {
    /// The first minor of Kubernetes 1 whose kubeadm can be told to leave it out. Before, an addon without its ConfigMap is left out.
    pub const LEFT_OUT_FROM: u32 = 32;

    /// Whether it is what kubeadm does when nothing is said.
    #[must_use]
    pub fn is_upgrade(&self) -> bool {
        match self {
            Self::Upgrade => true,
            Self::LeaveOut => false,
        }
    }
}

/// Which images of a version a machine needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Images {
    /// All that kubeadm names, from where the static pods of the machine come.
    ControlPlane {
        /// Of which version.
        version: KubeVersion,
    },
    /// pause, and kube-proxy unless it is left out.
    Worker {
        /// Of which version.
        version: KubeVersion,
        /// From where; from kubeadm's own repository if absent.
        repository: Option<String>,
        /// What of kube-proxy.
        kube_proxy: KubeProxy,
    },
}

impl Images {
    /// Of which version they are.
    pub fn version(&self) -> &KubeVersion {
        match self {
            Self::ControlPlane { version } | Self::Worker { version, .. } => version,
        }
    }
}

/// The static pods that kubeadm manages, with the image tag in their manifest and the one that runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticPods {
    /// Image tag in the manifest on disk, by component: `kube-apiserver` -> `v1.34.4`. Empty on a worker.
    pub manifests: BTreeMap<String, String>,
    /// Image tag of the running container as the container runtime says, by component.
    pub running: BTreeMap<String, String>,
}

/// The kubelet as it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubeletState {
    /// Version of the binary on disk.
    pub installed: Option<KubeVersion>,
    /// Whether the unit is active.
    pub active: bool,
    /// Whether the unit's last process was started from the binary that is on disk now; true too while systemd is about
    /// to start it again after a crash.
    pub runs_installed: bool,
    /// When the process started.
    pub since: Option<Timestamp>,
    /// How often systemd started it again by itself, since somebody last started it or longer; a program that asks an older
    /// runner sees none.
    #[serde(default)]
    pub restarts: u32,
    /// When the machine was started; `None` if it cannot be told, or an older runner is asked.
    #[serde(default)]
    pub booted: Option<Timestamp>,
}

/// containerd as it is installed and runs.
#[expect(clippy::struct_excessive_bools, reason = "what is looked at, each by itself")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerdState {
    /// The whole version of its package.
    pub version: PackageVersion,
    /// Whether it is installed to the end.
    pub whole: bool,
    /// Whether an install released its hold and has not given it back.
    pub unheld: bool,
    /// Whether the unit's last process was started from the binary that is on disk now.
    pub runs_installed: bool,
    /// Whether it answers over CRI.
    pub answers: bool,
    /// Since when the unit's last process runs, if systemd knows it.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// How often systemd has started it again by itself since somebody did.
    #[serde(default)]
    pub restarts: u32,
}

impl ContainerdState {
    /// Whether its package is of that version, whole, and held if it was before.
    pub fn is_at(&self, version: &PackageVersion) -> bool {
        self.version == *version && self.whole && !self.unheld
    }
}

/// etcd, as the member on a machine sees it now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdView {
    /// Name of the member on this machine.
    pub own: String,
    /// The version that it runs, such as `3.5.24`.
    pub version: String,
    /// All members, as most of them agree; each was asked by itself whether it answers and knows a leader. At most
    /// [`ETCD_MEMBERS_MAX`](cupcake_crds::limits::ETCD_MEMBERS_MAX).
    pub members: Vec<EtcdMember>,
    /// How many more there are.
    #[serde(default)]
    pub more: usize,
    /// What is raised as an alarm, each once and by its member as far as that is told: `NOSPACE of cp-2`.
    pub alarms: Vec<String>,
}

/// A finished etcd snapshot on the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotInfo {
    /// Where it lies, absolute.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Lower-case hex SHA-256 of the whole file.
    pub sha256: String,
    /// The revision of the store at which it ends, as it says itself; never before what its member said when it began.
    pub revision: u64,
    /// When it was finished.
    pub taken_at: Timestamp,
}

/// Bytes that must be free on a machine's disk of `disk_bytes` before a snapshot of a database of `db_bytes` is taken: one for the
/// snapshot, one for the copy of etcd's folder that kubeadm puts on the same disk, and [`reserve_bytes`] that stay.
#[must_use]
pub fn snapshot_room_bytes(db_bytes: u64, disk_bytes: u64) -> u64 {
    db_bytes.saturating_mul(2).saturating_add(reserve_bytes(disk_bytes))
}

/// Bytes of a disk that an upgrade leaves free: a tenth, below which a kubelet evicts pods (`nodefs.available<10%`, the default of
/// `evictionHard` in kubelet.config.k8s.io/v1beta1 of v1.34), and 64 MiB at least.
#[must_use]
pub fn reserve_bytes(disk_bytes: u64) -> u64 {
    (disk_bytes / 10).max(64 * 1024 * 1024)
}

/// The longest name of a snapshot, in characters: a file name (255 bytes) with room for what is put before and behind it.
pub const SNAPSHOT_NAME_CHARS_MAX: usize = 200;

/// What a host step can do.
///
/// # Guarantees
/// Every operation is bounded in time and output, names the program and its last lines in the error, and may be repeated
/// after it was cut short at any point. Dropping an operation ends what it started on the machine. Reads never change
/// anything.
#[async_trait]
pub trait HostOps: Send + Sync {
    /// Tells one boot of the machine from the next.
    async fn boot_id(&self) -> Result<String, HostError>;
    /// What the machine is and carries, as far as it can be told; `request` is given back in it. The runner adds its kinds.
    async fn inventory(&self, request: &str) -> Result<NodeInventory, HostError>;
    /// The minor that the Kubernetes package repository is set to; `None` if there is none, or if its index was not
    /// refreshed to the end since it was set.
    async fn repository(&self) -> Result<Option<MinorVersion>, HostError>;
    /// Holds all packages, sets the repository to that minor (host and key kept, a copy of the old file kept) and refreshes
    /// the index.
    async fn switch_repository(&self, minor: MinorVersion) -> Result<(), HostError>;
    /// A package's state.
    async fn package(&self, package: Package) -> Result<PackageState, HostError>;
    /// Installs exactly that Kubernetes version of the packages and holds them, whatever happens in between. Before a kubelet, flags
    /// that kubeadm once wrote and that the newer kubelet does not know are taken out of its environment file.
    async fn install(&self, packages: &[Package], version: &KubeVersion) -> Result<(), HostError>;
    /// References of those images that the runtime does not have.
    async fn images_missing(&self, images: &Images) -> Result<Vec<String>, HostError>;
    /// Pulls them.
    async fn pull_images(&self, images: &Images) -> Result<(), HostError>;
    /// Runs kubeadm's upgrade to its end, after putting back manifests that an interrupted one took away or left empty. What
    /// kubeadm wrote is durable when this returns.
    async fn kubeadm_upgrade(
        &self,
        how: KubeadmUpgrade,
        version: &KubeVersion,
        kube_proxy: KubeProxy,
    ) -> Result<(), HostError>;
    /// Whether there is a finished archive of that name.
    async fn has_configuration_archive(&self, name: &str) -> Result<bool, HostError>;
    /// Archives /etc/kubernetes (without kubeadm's copies) and the kubelet's configuration under that name, for root only.
    async fn archive_configuration(&self, name: &str) -> Result<(), HostError>;
    /// Names of the copies that kubeadm's upgrades of whatever time left in /etc/kubernetes/tmp: etcd's data and manifests. None on
    /// a worker.
    async fn kubeadm_copies(&self) -> Result<BTreeSet<String>, HostError>;
    /// Removes those copies; one that is not there is no error. A name that is none of [`HostOps::kubeadm_copies`] is left alone.
    async fn remove_kubeadm_copies(&self, names: &BTreeSet<String>) -> Result<(), HostError>;
    /// Puts right what an operation that was cut short may have taken apart, wherever it was: manifests are put back, packages
    /// are held. Needs no cluster, and changes nothing on a machine that is as it should be.
    async fn heal(&self) -> Result<(), HostError>;
    /// The static pods.
    async fn static_pods(&self) -> Result<StaticPods, HostError>;
    /// The kubelet.
    async fn kubelet(&self) -> Result<KubeletState, HostError>;
    /// `systemctl daemon-reload` and `systemctl restart kubelet`; the old one is left running where the installed one would not start.
    async fn restart_kubelet(&self) -> Result<(), HostError>;
    /// containerd; refused where the kubelet uses another runtime, or no package brought it.
    async fn containerd(&self) -> Result<ContainerdState, HostError>;
    /// Installs exactly that version of the package that brought containerd, whose changed configuration stays, and holds it after
    /// that if it was held before, whatever happens in between.
    async fn install_containerd(&self, version: &PackageVersion) -> Result<(), HostError>;
    /// `systemctl daemon-reload` and `systemctl restart containerd`; containers go on running.
    async fn restart_containerd(&self) -> Result<(), HostError>;
    /// etcd as the member on this machine sees it now. Down, it is `EtcdAway`, `EtcdSlow` or `NoLocalEtcd`.
    async fn etcd(&self) -> Result<EtcdView, HostError>;
    /// Why etcd 3.6 should not be started on the data of etcd 3.5 that lies here; empty if nothing speaks against it, or there is no
    /// member.
    async fn etcd_store_doubts(&self) -> Result<Vec<EtcdDoubt>, HostError>;
    /// The image of CoreDNS that kubeadm of this machine brings with that version; `None` where it names none.
    async fn core_dns_image(&self, version: &KubeVersion) -> Result<Option<String>, HostError>;
    /// The finished snapshot of that name, verified again; `None` if there is none.
    async fn etcd_snapshot(&self, name: &str) -> Result<Option<SnapshotInfo>, HostError>;
    /// Takes a snapshot of the local etcd member under that name: `.part`, fsync, verify (also that it ends at no older revision than the
    /// member was at), rename.
    async fn take_etcd_snapshot(&self, name: &str) -> Result<SnapshotInfo, HostError>;
}
