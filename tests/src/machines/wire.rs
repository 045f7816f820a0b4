//! How a runner process speaks to the simulated machine that it "runs on": JSON lines over a Unix socket, one call a
//! connection. A connection that closes cuts the call short, as the end of a runner ends its children.

use async_trait::async_trait;
use cupcake_crds::node_task::NodeInventory;
use cupcake_crds::values::{EtcdDoubt, KubeVersion, MinorVersion, PackageVersion};
use cupcake_engine::names::Reason;
use cupcake_sandbox::machine::ledger::EffectKind;
use cupcake_steps::ports::host::{
    ContainerdState, EtcdView, HostError, HostOps, Images, KubeProxy, KubeadmUpgrade, KubeletState, Package,
    PackageState, SnapshotInfo, StaticPods,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// One call.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    /// [`HostOps::boot_id`]
    BootId,
    /// [`HostOps::inventory`]
    Inventory(String),
    /// [`HostOps::repository`]
    Repository,
    /// [`HostOps::switch_repository`]
    SwitchRepository(KubeVersion),
    /// [`HostOps::package`]
    Package(Package),
    /// [`HostOps::install`]
    Install(Vec<Package>, KubeVersion),
    /// [`HostOps::images_missing`]
    ImagesMissing(Images),
    /// [`HostOps::pull_images`]
    PullImages(Images),
    /// [`HostOps::kubeadm_upgrade`]
    KubeadmUpgrade(KubeadmUpgrade, KubeVersion, KubeProxy),
    /// [`HostOps::has_configuration_archive`]
    HasConfigurationArchive(String),
    /// [`HostOps::archive_configuration`]
    ArchiveConfiguration(String),
    /// [`HostOps::kubeadm_copies`]
    KubeadmCopies,
    /// [`HostOps::remove_kubeadm_copies`]
    RemoveKubeadmCopies(BTreeSet<String>),
    /// [`HostOps::heal`]
    Heal,
    /// [`HostOps::static_pods`]
    StaticPods,
    /// [`HostOps::kubelet`]
    Kubelet,
    /// [`HostOps::restart_kubelet`]
    RestartKubelet,
    /// [`HostOps::containerd`]
    Containerd,
    /// [`HostOps::install_containerd`]
    InstallContainerd(PackageVersion),
    /// [`HostOps::restart_containerd`]
    RestartContainerd,
    /// [`HostOps::etcd`]
    Etcd,
    /// [`HostOps::etcd_store_doubts`]
    EtcdStoreDoubts,
    /// [`HostOps::core_dns_image`]
    CoreDnsImage(KubeVersion),
    /// [`HostOps::etcd_snapshot`]
    EtcdSnapshot(String),
    /// [`HostOps::take_etcd_snapshot`]
    TakeEtcdSnapshot(String),
    /// The runner's disk says now that an effect of that kind is done.
    Recorded(EffectKind),
    /// The agent asks systemd for the runner's unit.
    StartUnit,
    /// The agent asks whether that unit is active.
    UnitIsActive,
}

/// The machine behind a socket.
#[derive(Debug, Clone)]
pub struct RemoteHost {
    socket: PathBuf,
}

impl RemoteHost {
    /// Behind that socket.
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Makes one call.
    pub async fn call<T: DeserializeOwned>(&self, call: &Call) -> Result<T, HostError> {
        let away = |error: std::io::Error| HostError::Transient(Reason::new("MachineAway", error.to_string()));
        let broken = |error: serde_json::Error| HostError::Transient(Reason::new("MachineAway", error.to_string()));
        let mut stream = UnixStream::connect(&self.socket).await.map_err(away)?;
        let mut line = serde_json::to_vec(call).map_err(broken)?;
        line.push(b'\n');
        stream.write_all(&line).await.map_err(away)?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).await.map_err(away)?;
        let answer: Result<Value, HostError> = serde_json::from_str(&answer).map_err(broken)?;
        serde_json::from_value(answer?).map_err(broken)
    }
}

#[async_trait]
impl HostOps for RemoteHost {
    async fn boot_id(&self) -> Result<String, HostError> {
        self.call(&Call::BootId).await
    }
    async fn inventory(&self, request: &str) -> Result<NodeInventory, HostError> {
        self.call(&Call::Inventory(request.to_owned())).await
    }
    async fn repository(&self) -> Result<Option<MinorVersion>, HostError> {
        let version: Option<KubeVersion> = self.call(&Call::Repository).await?;
        Ok(version.map(KubeVersion::minor_version))
    }
    async fn switch_repository(&self, minor: MinorVersion) -> Result<(), HostError> {
        self.call(&Call::SwitchRepository(KubeVersion::new(minor.major, minor.minor, 0))).await
    }
    async fn package(&self, package: Package) -> Result<PackageState, HostError> {
        self.call(&Call::Package(package)).await
    }
    async fn install(&self, packages: &[Package], version: &KubeVersion) -> Result<(), HostError> {
        self.call(&Call::Install(packages.to_vec(), *version)).await
    }
    async fn images_missing(&self, images: &Images) -> Result<Vec<String>, HostError> {
        self.call(&Call::ImagesMissing(images.clone())).await
    }
    async fn pull_images(&self, images: &Images) -> Result<(), HostError> {
        self.call(&Call::PullImages(images.clone())).await
    }
    async fn kubeadm_upgrade(
        &self,
        how: KubeadmUpgrade,
        version: &KubeVersion,
        kube_proxy: KubeProxy,
    ) -> Result<(), HostError> {
        self.call(&Call::KubeadmUpgrade(how, *version, kube_proxy)).await
    }
    async fn has_configuration_archive(&self, name: &str) -> Result<bool, HostError> {
        self.call(&Call::HasConfigurationArchive(name.to_owned())).await
    }
    async fn archive_configuration(&self, name: &str) -> Result<(), HostError> {
        self.call(&Call::ArchiveConfiguration(name.to_owned())).await
    }
    async fn kubeadm_copies(&self) -> Result<BTreeSet<String>, HostError> {
        self.call(&Call::KubeadmCopies).await
    }
    async fn remove_kubeadm_copies(&self, names: &BTreeSet<String>) -> Result<(), HostError> {
        self.call(&Call::RemoveKubeadmCopies(names.clone())).await
    }
    async fn heal(&self) -> Result<(), HostError> {
        self.call(&Call::Heal).await
    }
    async fn static_pods(&self) -> Result<StaticPods, HostError> {
        self.call(&Call::StaticPods).await
    }
    async fn kubelet(&self) -> Result<KubeletState, HostError> {
        self.call(&Call::Kubelet).await
    }
    async fn restart_kubelet(&self) -> Result<(), HostError> {
        self.call(&Call::RestartKubelet).await
    }
    async fn containerd(&self) -> Result<ContainerdState, HostError> {
        self.call(&Call::Containerd).await
    }
    async fn install_containerd(&self, version: &PackageVersion) -> Result<(), HostError> {
        self.call(&Call::InstallContainerd(version.clone())).await
    }
    async fn restart_containerd(&self) -> Result<(), HostError> {
        self.call(&Call::RestartContainerd).await
    }
    async fn etcd(&self) -> Result<EtcdView, HostError> {
        self.call(&Call::Etcd).await
    }
    async fn etcd_store_doubts(&self) -> Result<Vec<EtcdDoubt>, HostError> {
        self.call(&Call::EtcdStoreDoubts).await
    }
    async fn core_dns_image(&self, version: &KubeVersion) -> Result<Option<String>, HostError> {
        self.call(&Call::CoreDnsImage(*version)).await
    }
    async fn etcd_snapshot(&self, name: &str) -> Result<Option<SnapshotInfo>, HostError> {
        self.call(&Call::EtcdSnapshot(name.to_owned())).await
    }
    async fn take_etcd_snapshot(&self, name: &str) -> Result<SnapshotInfo, HostError> {
        self.call(&Call::TakeEtcdSnapshot(name.to_owned())).await
    }
}

/// Answers one call on the machine; `Value` is what [`RemoteHost::call`] reads.
pub async fn answer(host: &dyn HostOps, call: Call) -> Result<Value, HostError> {
    fn json<T: Serialize>(value: T) -> Result<Value, HostError> {
        serde_json::to_value(value).map_err(|error| HostError::Permanent(Reason::new("NoJson", error.to_string())))
    }
    match call {
        Call::BootId => json(host.boot_id().await?),
        Call::Inventory(request) => json(host.inventory(&request).await?),
        Call::Repository => {
            let minor = host.repository().await?;
            json(minor.map(|minor| KubeVersion::new(minor.major, minor.minor, 0)))
        }
        Call::SwitchRepository(version) => json(host.switch_repository(version.minor_version()).await?),
        Call::Package(package) => json(host.package(package).await?),
        Call::Install(packages, version) => json(host.install(&packages, &version).await?),
        Call::ImagesMissing(images) => json(host.images_missing(&images).await?),
        Call::PullImages(images) => json(host.pull_images(&images).await?),
        Call::KubeadmUpgrade(how, version, kube_proxy) => json(host.kubeadm_upgrade(how, &version, kube_proxy).await?),
        Call::HasConfigurationArchive(name) => json(host.has_configuration_archive(&name).await?),
        Call::ArchiveConfiguration(name) => json(host.archive_configuration(&name).await?),
        Call::KubeadmCopies => json(host.kubeadm_copies().await?),
        Call::RemoveKubeadmCopies(names) => json(host.remove_kubeadm_copies(&names).await?),
        Call::Heal => json(host.heal().await?),
        Call::StaticPods => json(host.static_pods().await?),
        Call::Kubelet => json(host.kubelet().await?),
        Call::RestartKubelet => json(host.restart_kubelet().await?),
        Call::Containerd => json(host.containerd().await?),
        Call::InstallContainerd(version) => json(host.install_containerd(&version).await?),
        Call::RestartContainerd => json(host.restart_containerd().await?),
        Call::Etcd => json(host.etcd().await?),
        Call::EtcdStoreDoubts => json(host.etcd_store_doubts().await?),
        Call::CoreDnsImage(version) => json(host.core_dns_image(&version).await?),
        Call::EtcdSnapshot(name) => json(host.etcd_snapshot(&name).await?),
        Call::TakeEtcdSnapshot(name) => json(host.take_etcd_snapshot(&name).await?),
        Call::Recorded(_) | Call::StartUnit | Call::UnitIsActive => Ok(Value::Null),
    }
}
