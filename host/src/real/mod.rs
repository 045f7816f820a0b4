//! The machine as it is: [`HostOps`] for nodes of apt, dnf or zypper, with the machine's own programs and files.
//!
//! ```text
//!   packages   repository of the minor, exact versions, holds   program   starts programs, nothing else does
//!              apt, dnf and zypper behind one port              failure   from last lines to what to do next
//!   runtime               images, static pods (crictl)         os         files of the machine
//!   containerd            its package, its restart
//!   kubeadm, kubelet      upgrade, restart                     etcd       snapshots over etcd's own API
//!   kubelet_fits          would the installed kubelet start?
//! ```
//! Nothing is kept between two calls: each looks at the machine itself.
#![expect(
    clippy::disallowed_methods,
    reason = "this is the room that owns the machine: its programs, its files, and how long a program may take"
)]

mod addons;
mod archive;
mod certificates;
mod containerd;
mod copies;
mod disks;
mod etcd;
mod failure;
mod hand_made;
mod inventory;
mod kubeadm;
mod kubelet;
mod kubelet_fits;
mod kubelet_flags;
mod os;
mod packages;
mod program;
mod runtime;
mod settings;
#[cfg(test)]
mod test_folder;
mod unattended;

pub use inventory::probe_machine;
pub use os::Space;

use async_trait::async_trait;
use cupcake_crds::node_task::NodeInventory;
use cupcake_crds::values::{EtcdDoubt, KubeVersion, MinorVersion, PackageVersion};
use cupcake_engine::clock::Clock;
use cupcake_steps::ports::host::{
    ContainerdState, EtcdView, HostError, HostOps, Images, KubeProxy, KubeadmUpgrade, KubeletState, Package,
    PackageState, SnapshotInfo, StaticPods,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Variables by which programs find a proxy, in both spellings that they read.
const PROXY_VARIABLES: [&str; 8] =
    ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY"];

/// What a [`RealHost`] needs to know.
#[derive(Clone)]
pub struct Settings {
    /// The time, for what is written down.
    pub clock: Arc<dyn Clock>,
    /// Where the machine's file system begins; `/` outside tests.
    pub root: PathBuf,
    /// Where snapshots and copies of replaced files are kept; `/var/lib/cupcake`.
    pub state: PathBuf,
    /// Proxy variables that package programs see. apt's own configuration holds beside them.
    pub proxies: BTreeMap<String, String>,
    /// Tells the space of the file system that holds a folder; [`Space::of`] outside tests, whose machine may have a full disk.
    pub space: fn(&Path) -> Option<Space>,
}

impl Settings {
    /// The usual ones, with the proxies that this process was given (by its unit's `Environment=`).
    pub fn of_this_machine(clock: Arc<dyn Clock>) -> Self {
        let proxy = |name: &str| std::env::var(name).ok().map(|value| (name.to_owned(), value));
        Self {
            clock,
            root: PathBuf::from("/"),
            state: PathBuf::from("/var/lib/cupcake"),
            proxies: PROXY_VARIABLES.into_iter().filter_map(proxy).collect(),
            space: Space::of,
        }
    }
}

/// The machine that this process runs on.
///
/// # Guarantees
/// Programs get plain arguments and a closed environment, have a time limit and bounded output, and end with their operation.
/// # Assumptions
/// It runs as root, and no other runner works on the machine: the runner's lock sees to that.
pub struct RealHost {
    settings: Settings,
    files: os::Files,
}

impl fmt::Debug for RealHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RealHost")
            .field("files", &self.files)
            .field("state", &self.settings.state)
            .finish_non_exhaustive()
    }
}

impl RealHost {
    /// The machine.
    pub fn new(settings: Settings) -> Self {
        Self { files: os::Files::below(settings.root.clone()), settings }
    }

    fn files(&self) -> &os::Files {
        &self.files
    }
}

#[async_trait]
impl HostOps for RealHost {
    async fn boot_id(&self) -> Result<String, HostError> {
        self.files.boot_id()
    }

    async fn inventory(&self, request: &str) -> Result<NodeInventory, HostError> {
        Ok(Box::pin(self.take_inventory(request)).await)
    }

    async fn repository(&self) -> Result<Option<MinorVersion>, HostError> {
        Ok(self.repository_now())
    }

    async fn switch_repository(&self, minor: MinorVersion) -> Result<(), HostError> {
        self.set_repository(minor).await
    }

    async fn package(&self, package: Package) -> Result<PackageState, HostError> {
        self.package_state(package).await
    }

    async fn install(&self, packages: &[Package], version: &KubeVersion) -> Result<(), HostError> {
        self.install_exact(packages, version).await
    }

    async fn images_missing(&self, images: &Images) -> Result<Vec<String>, HostError> {
        self.missing_images(images).await
    }

    async fn pull_images(&self, images: &Images) -> Result<(), HostError> {
        self.pull_missing(images).await
    }

    async fn kubeadm_upgrade(
        &self,
        how: KubeadmUpgrade,
        version: &KubeVersion,
        kube_proxy: KubeProxy,
    ) -> Result<(), HostError> {
        self.upgrade_by_kubeadm(how, version, kube_proxy).await
    }

    async fn has_configuration_archive(&self, name: &str) -> Result<bool, HostError> {
        self.has_archive(name)
    }

    async fn archive_configuration(&self, name: &str) -> Result<(), HostError> {
        self.archive(name).await
    }

    async fn kubeadm_copies(&self) -> Result<BTreeSet<String>, HostError> {
        Ok(self.copies_of_kubeadm())
    }

    async fn remove_kubeadm_copies(&self, names: &BTreeSet<String>) -> Result<(), HostError> {
        self.remove_copies(names).await
    }

    async fn heal(&self) -> Result<(), HostError> {
        let restored = self.restore_manifests();
        // Whatever came of that: either may be all that is wrong.
        let held = self.hold(&Package::ALL).await;
        let given_back = self.give_back_holds().await;
        restored.and(held).and(given_back)
    }

    async fn static_pods(&self) -> Result<StaticPods, HostError> {
        self.static_pods_now().await
    }

    async fn kubelet(&self) -> Result<KubeletState, HostError> {
        self.kubelet_now().await
    }

    async fn restart_kubelet(&self) -> Result<(), HostError> {
        self.restart_kubelet_unit().await
    }

    async fn containerd(&self) -> Result<ContainerdState, HostError> {
        self.containerd_now().await
    }

    async fn install_containerd(&self, version: &PackageVersion) -> Result<(), HostError> {
        self.install_containerd_exact(version).await
    }

    async fn restart_containerd(&self) -> Result<(), HostError> {
        self.restart_containerd_unit().await
    }

    async fn etcd(&self) -> Result<EtcdView, HostError> {
        self.etcd_now().await
    }

    async fn etcd_store_doubts(&self) -> Result<Vec<EtcdDoubt>, HostError> {
        Ok(self.doubts_of_etcds_store().await.unwrap_or_default())
    }

    async fn core_dns_image(&self, version: &KubeVersion) -> Result<Option<String>, HostError> {
        self.core_dns_of(version).await
    }

    async fn etcd_snapshot(&self, name: &str) -> Result<Option<SnapshotInfo>, HostError> {
        self.finished_snapshot(name).await
    }

    async fn take_etcd_snapshot(&self, name: &str) -> Result<SnapshotInfo, HostError> {
        self.new_snapshot(name).await
    }
}

#[cfg(test)]
mod tests {
    use super::test_folder::TestFolder;
    use super::{RealHost, Settings, Space};
    use cupcake_engine::clock::{SimClock, Timestamp};
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::Arc;

    /// A host whose files lie in the folder; its programs are this machine's.
    pub(super) fn host_in(folder: &TestFolder) -> RealHost {
        RealHost::new(Settings {
            clock: Arc::new(SimClock::starting_at(Timestamp::UNIX_EPOCH)),
            root: folder.root().to_owned(),
            state: folder.path("/var/lib/cupcake"),
            proxies: BTreeMap::new(),
            space: half_free,
        })
    }

    /// A disk of 100 GB, half of it free, whatever is left on the machine that the tests run on.
    #[expect(clippy::unnecessary_wraps, reason = "the signature of `Settings::space`")]
    pub(super) fn half_free(_: &Path) -> Option<Space> {
        Some(Space { device: 1, has_parts: false, size_bytes: 100_000_000_000, free_bytes: 50_000_000_000 })
    }
}
