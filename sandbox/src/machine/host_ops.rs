//! The machine behind the runner's port.

use super::fault::Life;
use super::state::SimMachine;
use super::timing::Act;
use async_trait::async_trait;
use chrono::TimeDelta;
use cupcake_crds::limits::VERSIONS_MAX;
use cupcake_crds::node_task::{NodeInventory, OfferedMinor};
use cupcake_crds::values::{EtcdDoubt, KubeVersion, MinorVersion, NodeRole, PackageVersion};
use cupcake_engine::names::Reason;
use cupcake_steps::host::params::ORDER_KINDS;
use cupcake_steps::ports::host::{
    ContainerdState, EtcdView, HostError, HostOps, Images, KubeProxy, KubeadmUpgrade, KubeletState, Package,
    PackageState, SnapshotInfo, StaticPods,
};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Days from a cluster's birth until kubeadm's certificates expire, less those it has lived.
const CERTIFICATE_DAYS: i64 = 300;

/// A simulated machine as one life of its runner sees it.
///
/// # Guarantees
/// What [`HostOps`] demands. A call that is dropped is cut short where it is, as the children of a unit end with it; once the
/// life is over no call returns.
pub struct SimHost {
    machine: Arc<SimMachine>,
    life: Life,
}

impl SimHost {
    /// The machine for one life of its runner.
    pub fn new(machine: Arc<SimMachine>, life: Life) -> Self {
        Self { machine, life }
    }

    /// The dead see and do nothing.
    async fn machine(&self) -> &Arc<SimMachine> {
        if self.life.is_over() {
            std::future::pending::<()>().await;
        }
        &self.machine
    }
}

#[async_trait]
impl HostOps for SimHost {
    async fn boot_id(&self) -> Result<String, HostError> {
        Ok(self.machine().await.boot_id_now())
    }

    async fn inventory(&self, request: &str) -> Result<NodeInventory, HostError> {
        let machine = self.machine().await;
        machine.take(Act::Inventory).await;
        let now = machine.site.now();
        let version = |package| machine.package_now(package).version;
        let control_plane = match machine.role {
            NodeRole::ControlPlane => true,
            NodeRole::Worker => false,
        };
        let (index, hand_made, containerd, control_groups) = {
            let state = machine.state();
            (state.index, state.hand_made.clone(), state.containerd.clone(), state.control_groups)
        };
        let listed =
            |minor| machine.site.repositories.versions(minor).rev().take(VERSIONS_MAX).map(|one| one.to_string());
        let next = index.next();
        let next_minor = OfferedMinor { minor: next.to_string(), unread: None, versions: listed(next).collect() };
        let mut inventory = NodeInventory {
            architecture: Some("amd64".to_owned()),
            available_versions: listed(index).collect(),
            certificates_expire: control_plane.then(|| now + TimeDelta::days(CERTIFICATE_DAYS)),
            cgroup_version: Some(control_groups),
            clock: None,
            containerd: Some(containerd.binary()),
            containerd_package: Some(containerd.package()),
            disk_free_bytes: Some(38_000_000_000),
            disk_size_bytes: Some(60_000_000_000),
            disks: Vec::new(),
            etcd_data_bytes: control_plane.then_some(52_000_000),
            etcd_members: if control_plane { machine.etcd_members() } else { Vec::new() },
            etcd_store_doubts: control_plane.then(Vec::new),
            external_cas: Vec::new(),
            hand_made,
            hand_made_unread: None,
            holds: None,
            kubeadm: version(Package::Kubeadm),
            kubectl: version(Package::Kubectl),
            kubelet: version(Package::Kubelet),
            next_minor: Some(next_minor),
            os: Some("Debian GNU/Linux 12 (bookworm)".to_owned()),
            package_manager: Some("apt".to_owned()),
            request: Some(request.to_owned()),
            role: Some(machine.role),
            runner_kinds: ORDER_KINDS.iter().map(|kind| (*kind).to_owned()).collect(),
            settings: Vec::new(),
            swap: Some(false),
            taken_at: Some(now),
            unattended_upgrades: None,
            without_package: Vec::new(),
        };
        machine.tell_packages(&mut inventory);
        Ok(machine.told(inventory))
    }

    async fn repository(&self) -> Result<Option<MinorVersion>, HostError> {
        Ok(self.machine().await.repository_now())
    }

    async fn switch_repository(&self, minor: MinorVersion) -> Result<(), HostError> {
        self.machine().await.set_repository(minor).await
    }

    async fn package(&self, package: Package) -> Result<PackageState, HostError> {
        Ok(self.machine().await.package_now(package))
    }

    async fn install(&self, packages: &[Package], version: &KubeVersion) -> Result<(), HostError> {
        self.machine().await.install_packages(packages, *version).await
    }

    async fn images_missing(&self, images: &Images) -> Result<Vec<String>, HostError> {
        Ok(self.machine().await.missing_images(images))
    }

    async fn pull_images(&self, images: &Images) -> Result<(), HostError> {
        self.machine().await.pull(images).await
    }

    async fn kubeadm_upgrade(
        &self,
        how: KubeadmUpgrade,
        version: &KubeVersion,
        kube_proxy: KubeProxy,
    ) -> Result<(), HostError> {
        let machine = self.machine().await;
        // What stands in for the runner's adapter: kubeadm itself does neither.
        machine.put_manifests_back();
        machine.await_api_server().await?;
        machine.kubeadm(how, *version, kube_proxy).await
    }

    async fn has_configuration_archive(&self, name: &str) -> Result<bool, HostError> {
        Ok(self.machine().await.state().archives.contains(name))
    }

    async fn archive_configuration(&self, name: &str) -> Result<(), HostError> {
        self.machine().await.state().archives.insert(name.to_owned());
        Ok(())
    }

    async fn kubeadm_copies(&self) -> Result<BTreeSet<String>, HostError> {
        Ok(self.machine().await.state().copies.clone())
    }

    async fn remove_kubeadm_copies(&self, names: &BTreeSet<String>) -> Result<(), HostError> {
        self.machine().await.state().copies.retain(|copy| !names.contains(copy));
        Ok(())
    }

    async fn heal(&self) -> Result<(), HostError> {
        let machine = self.machine().await;
        machine.put_manifests_back();
        machine.hold_packages();
        Ok(())
    }

    async fn static_pods(&self) -> Result<StaticPods, HostError> {
        let state = self.machine().await.state();
        Ok(StaticPods { manifests: state.manifests.clone(), running: state.running.clone() })
    }

    async fn kubelet(&self) -> Result<KubeletState, HostError> {
        Ok(self.machine().await.kubelet_now())
    }

    async fn restart_kubelet(&self) -> Result<(), HostError> {
        self.machine().await.restart().await
    }

    async fn containerd(&self) -> Result<ContainerdState, HostError> {
        self.machine().await.containerd_now()
    }

    async fn install_containerd(&self, version: &PackageVersion) -> Result<(), HostError> {
        self.machine().await.install_containerd_package(version).await
    }

    async fn restart_containerd(&self) -> Result<(), HostError> {
        self.machine().await.restart_containerd_unit().await
    }

    async fn etcd(&self) -> Result<EtcdView, HostError> {
        self.machine().await.etcd_now().await
    }

    async fn etcd_store_doubts(&self) -> Result<Vec<EtcdDoubt>, HostError> {
        Ok(self.machine().await.etcd_doubts())
    }

    async fn core_dns_image(&self, version: &KubeVersion) -> Result<Option<String>, HostError> {
        let _alive = self.machine().await;
        Ok(Some(super::releases::Images::of(*version).coredns()))
    }

    async fn etcd_snapshot(&self, name: &str) -> Result<Option<SnapshotInfo>, HostError> {
        Ok(self.machine().await.snapshot_now(name))
    }

    async fn take_etcd_snapshot(&self, name: &str) -> Result<SnapshotInfo, HostError> {
        if name.is_empty() || name.contains('/') {
            return Err(HostError::Permanent(Reason::new("BadName", format!("{name:?} cannot name a snapshot"))));
        }
        self.machine().await.snapshot(name).await
    }
}
