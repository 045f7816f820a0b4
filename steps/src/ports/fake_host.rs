//! A machine in memory that can crash at each of its effects: the fake of [`HostOps`].

use super::host::{
    ContainerdState, EtcdView, HostError, HostOps, Images, KubeProxy, KubeadmUpgrade, KubeletState, Package,
    PackageState, SnapshotInfo, StaticPods,
};
use async_trait::async_trait;
use chrono::DateTime;
use cupcake_crds::node_task::NodeInventory;
use cupcake_crds::values::{EtcdDoubt, EtcdMember, KubeVersion, MinorVersion, PackageVersion};
use cupcake_engine::clock::Timestamp;
use futures::future::{pending, poll_fn};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// A copy that lies on every control plane from an upgrade long ago.
pub const COPY_OF_BEFORE: &str = "kubeadm-backup-etcd-2026-01-01-00-00-00";

/// The containerd of every machine at first.
pub const CONTAINERD_OF_BEFORE: &str = "1.7.24-1";

/// The image of CoreDNS that kubeadm brings, whatever the version.
pub const CORE_DNS: &str = "registry.k8s.io/coredns/coredns:v1.12.1";

/// Where in an effect the process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interruption {
    /// The effect was not begun.
    Before,
    /// It was begun; nothing of it shows yet.
    Between,
    /// It was done; its caller does not hear of it.
    After,
}

/// A machine in memory: package repository, packages, images, static pods, kubelet. Clones share it.
///
/// # Guarantees
/// From an interruption on, every operation hangs until [`FakeHost::restart`]. Every effect is logged when it is begun and
/// when it is done.
#[derive(Clone)]
pub struct FakeHost {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Clone)]
struct Inner {
    boot: u32,
    repository: Option<MinorVersion>,
    packages: BTreeMap<Package, PackageState>,
    images: BTreeSet<KubeVersion>,
    pods: StaticPods,
    /// Manifests that kubeadm took away and has copies of.
    lost: BTreeMap<String, String>,
    kubelet: KubeVersion,
    containerd: Containerd,
    snapshots: BTreeMap<String, SnapshotInfo>,
    etcd: Result<EtcdView, HostError>,
    doubts: Vec<EtcdDoubt>,
    copies: BTreeSet<String>,
    archives: BTreeSet<String>,
    begun: Vec<String>,
    done: Vec<String>,
    interruption: Option<(usize, Interruption)>,
    interrupted: bool,
    failures: VecDeque<(String, HostError)>,
    blind: bool,
    wakers: Vec<Waker>,
}

/// Lets everybody else go on once: an effect takes its time.
async fn others() {
    let mut waited = false;
    poll_fn(|context| {
        if waited {
            return Poll::Ready(());
        }
        waited = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// etcd 3.5 with those members, all of them well; the first one is the machine's.
pub fn etcd_of(members: &[&str]) -> EtcdView {
    let member = |name: &&str| EtcdMember::voting(*name);
    EtcdView {
        own: members.first().map_or_else(String::new, |own| (*own).to_owned()),
        version: "3.5.24".to_owned(),
        members: members.iter().map(member).collect(),
        more: 0,
        alarms: Vec::new(),
    }
}

/// containerd's package and its process.
#[derive(Clone)]
struct Containerd {
    installed: PackageVersion,
    running: PackageVersion,
    unheld: bool,
    since: Option<Timestamp>,
    /// How many looks after its next start find it silent.
    slow: u32,
    silent: u32,
}

impl Containerd {
    /// [`CONTAINERD_OF_BEFORE`], installed and running.
    fn of_before() -> Self {
        let version: PackageVersion = CONTAINERD_OF_BEFORE.parse().expect("a version of a package");
        Self { installed: version.clone(), running: version, unheld: false, since: None, slow: 0, silent: 0 }
    }
}

impl FakeHost {
    /// A worker with everything at `version`.
    pub fn worker(version: KubeVersion) -> Self {
        let package =
            |package| (package, PackageState { version: Some(format!("{version}-1.1")), whole: true, held: true });
        let inner = Inner {
            boot: 1,
            repository: Some(version.minor_version()),
            packages: [Package::Kubeadm, Package::Kubelet, Package::Kubectl].map(package).into(),
            images: BTreeSet::from([version]),
            pods: StaticPods::default(),
            lost: BTreeMap::new(),
            kubelet: version,
            containerd: Containerd::of_before(),
            snapshots: BTreeMap::new(),
            etcd: Ok(etcd_of(&["w-1"])),
            doubts: Vec::new(),
            copies: BTreeSet::new(),
            archives: BTreeSet::new(),
            begun: Vec::new(),
            done: Vec::new(),
            interruption: None,
            interrupted: false,
            failures: VecDeque::new(),
            blind: false,
            wakers: Vec::new(),
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// A control plane with everything at `version`.
    pub fn control_plane(version: KubeVersion) -> Self {
        let host = Self::worker(version);
        host.inner().set_pods(version);
        host.inner().pods.manifests.insert("etcd".to_owned(), "3.5.24-0".to_owned());
        host.inner().pods.running.insert("etcd".to_owned(), "3.5.24-0".to_owned());
        host.add_copy(COPY_OF_BEFORE);
        host
    }

    /// A machine of its own that came as far as this one.
    pub fn copy(&self) -> Self {
        let inner = Inner { wakers: Vec::new(), ..self.inner().clone() };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Lets the process die in effect number `effect`, counted from 1 since the last restart.
    pub fn interrupt(&self, effect: usize, how: Interruption) {
        let mut inner = self.inner();
        let begun = inner.begun.len();
        inner.interruption = Some((begun + effect, how));
    }

    /// Whether it was interrupted since the last restart.
    pub fn was_interrupted(&self) -> bool {
        self.inner().interrupted
    }

    /// Resolves when it is interrupted.
    pub async fn until_interruption(&self) {
        poll_fn(|context| {
            let mut inner = self.inner();
            if inner.interrupted {
                return Poll::Ready(());
            }
            inner.wakers.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// The process starts again.
    pub fn restart(&self) {
        let mut inner = self.inner();
        inner.interrupted = false;
        inner.interruption = None;
    }

    /// The machine starts again: another boot id, the kubelet from the installed binary.
    pub fn reboot(&self) {
        self.restart();
        let mut inner = self.inner();
        inner.boot += 1;
        if let Some(installed) = inner.installed(Package::Kubelet) {
            inner.kubelet = installed;
        }
        inner.containerd.running = inner.containerd.installed.clone();
    }

    /// Lets the next effect whose name begins so fail.
    pub fn fail(&self, effect: &str, error: HostError) {
        self.inner().failures.push_back((effect.to_owned(), error));
    }

    /// From now on its member of etcd sees that, or is away.
    pub fn see_etcd(&self, etcd: Result<EtcdView, HostError>) {
        self.inner().etcd = etcd;
    }

    /// From now on that speaks against starting etcd 3.6 on its data.
    pub fn doubt_etcds_store(&self, doubts: Vec<EtcdDoubt>) {
        self.inner().doubts = doubts;
    }

    /// Somebody puts an older manifest back.
    pub fn put_back(&self, component: &str, tag: &str) {
        self.inner().pods.manifests.insert(component.to_owned(), tag.to_owned());
    }

    /// Takes a manifest away, as kubeadm does for a moment while it exchanges it: a copy of it is kept.
    pub fn lose_manifest(&self, component: &str) {
        let mut inner = self.inner();
        if let Some(tag) = inner.pods.manifests.remove(component) {
            inner.lost.insert(component.to_owned(), tag);
        }
    }

    /// Releases a package's hold, as an install does for a moment.
    pub fn lose_hold(&self, package: Package) {
        if let Some(state) = self.inner().packages.get_mut(&package) {
            state.held = false;
        }
    }

    /// Releases the hold of containerd, as an install does for a moment.
    pub fn lose_hold_of_containerd(&self) {
        self.inner().containerd.unheld = true;
    }

    /// Its next start is at that time, and that many looks after it find it silent.
    pub fn start_containerd_slowly(&self, since: Timestamp, looks: u32) {
        let mut inner = self.inner();
        (inner.containerd.since, inner.containerd.slow) = (Some(since), looks);
    }

    /// Adds a copy, as an upgrade by hand leaves one.
    pub fn add_copy(&self, name: &str) {
        self.inner().copies.insert(name.to_owned());
    }

    /// The copies of kubeadm's upgrades that lie there.
    pub fn copies(&self) -> BTreeSet<String> {
        self.inner().copies.clone()
    }

    /// Lets kubeadm take a control plane for a worker and report success, as it does without kube-apiserver.yaml.
    pub fn blind_kubeadm(&self) {
        self.inner().blind = true;
    }

    /// The effects that were begun, in order.
    pub fn begun(&self) -> Vec<String> {
        self.inner().begun.clone()
    }

    /// The effects that were done, in order.
    pub fn done(&self) -> Vec<String> {
        self.inner().done.clone()
    }

    async fn effect(&self, name: String, change: impl FnOnce(&mut Inner)) -> Result<(), HostError> {
        self.alive().await;
        let interruption = {
            let mut inner = self.inner();
            let number = inner.begun.len() + 1;
            let interruption = inner.interruption.filter(|(effect, _)| *effect == number).map(|(_, how)| how);
            if interruption == Some(Interruption::Before) {
                inner.interrupt();
            } else {
                inner.begun.push(name.clone());
                if name.starts_with("kubeadm") && !inner.pods.manifests.is_empty() {
                    inner.copies.insert(format!("kubeadm-backup-etcd-{number}"));
                }
                if interruption == Some(Interruption::Between) {
                    inner.interrupt();
                }
            }
            interruption
        };
        others().await;
        self.alive().await;
        {
            let mut inner = self.inner();
            if inner.failures.front().is_some_and(|(effect, _)| name.starts_with(effect.as_str()))
                && let Some((_, error)) = inner.failures.pop_front()
            {
                return Err(error);
            }
            change(&mut inner);
            inner.done.push(name);
            if interruption == Some(Interruption::After) {
                inner.interrupt();
            }
        }
        self.alive().await;
        Ok(())
    }

    async fn alive(&self) {
        let interrupted = self.inner().interrupted;
        if interrupted {
            pending::<()>().await;
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Each critical section leaves the machine whole wherever it could panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn interrupt(&mut self) {
        self.interrupted = true;
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
    }

    fn installed(&self, package: Package) -> Option<KubeVersion> {
        self.packages.get(&package)?.version.as_deref()?.parse().ok()
    }

    fn is_whole(&self) -> bool {
        self.lost.is_empty()
            && !self.containerd.unheld
            && self.packages.values().all(|package| package.held || package.version.is_none())
    }

    fn hold_packages(&mut self) {
        self.containerd.unheld = false;
        for package in self.packages.values_mut().filter(|package| package.version.is_some()) {
            package.held = true;
        }
    }

    fn set_pods(&mut self, version: KubeVersion) {
        for component in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
            self.pods.manifests.insert(component.to_owned(), version.with_v());
            self.pods.running.insert(component.to_owned(), version.with_v());
        }
    }
}

#[async_trait]
impl HostOps for FakeHost {
    async fn boot_id(&self) -> Result<String, HostError> {
        self.alive().await;
        Ok(format!("boot-{}", self.inner().boot))
    }

    async fn inventory(&self, request: &str) -> Result<NodeInventory, HostError> {
        self.alive().await;
        let kubelet = self.inner().installed(Package::Kubelet).map(|version| version.to_string());
        Ok(NodeInventory { request: Some(request.to_owned()), kubelet, ..NodeInventory::default() })
    }

    async fn repository(&self) -> Result<Option<MinorVersion>, HostError> {
        self.alive().await;
        Ok(self.inner().repository)
    }

    async fn switch_repository(&self, minor: MinorVersion) -> Result<(), HostError> {
        self.effect(format!("switch repository to {minor}"), |inner| {
            inner.hold_packages();
            inner.repository = Some(minor);
        })
        .await
    }

    async fn package(&self, package: Package) -> Result<PackageState, HostError> {
        self.alive().await;
        let none = PackageState { version: None, whole: false, held: false };
        Ok(self.inner().packages.get(&package).cloned().unwrap_or(none))
    }

    async fn install(&self, packages: &[Package], version: &KubeVersion) -> Result<(), HostError> {
        let names: Vec<_> = packages.iter().map(|package| package.as_str()).collect();
        self.effect(format!("install {} {version}", names.join(" ")), |inner| {
            for &package in packages {
                let state = PackageState { version: Some(format!("{version}-1.1")), whole: true, held: true };
                inner.packages.insert(package, state);
            }
        })
        .await
    }

    async fn images_missing(&self, images: &Images) -> Result<Vec<String>, HostError> {
        self.alive().await;
        let present = self.inner().images.contains(images.version());
        Ok(if present { Vec::new() } else { vec![format!("registry.k8s.io/pause of {}", images.version())] })
    }

    async fn pull_images(&self, images: &Images) -> Result<(), HostError> {
        let which = match images {
            Images::ControlPlane { .. } => "images",
            Images::Worker { .. } => "worker images",
        };
        self.effect(format!("pull {which} {}", images.version()), |inner| {
            inner.images.insert(*images.version());
        })
        .await
    }

    async fn kubeadm_upgrade(
        &self,
        how: KubeadmUpgrade,
        version: &KubeVersion,
        kube_proxy: KubeProxy,
    ) -> Result<(), HostError> {
        let how = match how {
            KubeadmUpgrade::Apply => "apply",
            KubeadmUpgrade::Node => "node",
        };
        let but = match kube_proxy {
            KubeProxy::Upgrade => "",
            KubeProxy::LeaveOut => " without kube-proxy",
        };
        self.effect(format!("kubeadm upgrade {how} {version}{but}"), |inner| {
            if !inner.pods.manifests.is_empty() && !inner.blind {
                inner.lost.clear();
                inner.set_pods(*version);
            }
        })
        .await
    }

    async fn has_configuration_archive(&self, name: &str) -> Result<bool, HostError> {
        self.alive().await;
        Ok(self.inner().archives.contains(name))
    }

    async fn archive_configuration(&self, name: &str) -> Result<(), HostError> {
        self.effect(format!("archive {name}"), |inner| {
            inner.archives.insert(name.to_owned());
        })
        .await
    }

    async fn kubeadm_copies(&self) -> Result<BTreeSet<String>, HostError> {
        self.alive().await;
        Ok(self.copies())
    }

    async fn remove_kubeadm_copies(&self, names: &BTreeSet<String>) -> Result<(), HostError> {
        self.effect("remove kubeadm's copies".to_owned(), |inner| {
            inner.copies.retain(|copy| !names.contains(copy));
        })
        .await
    }

    async fn heal(&self) -> Result<(), HostError> {
        self.alive().await;
        if self.inner().is_whole() {
            return Ok(());
        }
        self.effect("heal".to_owned(), |inner| {
            inner.pods.manifests.append(&mut inner.lost);
            inner.hold_packages();
        })
        .await
    }

    async fn static_pods(&self) -> Result<StaticPods, HostError> {
        self.alive().await;
        Ok(self.inner().pods.clone())
    }

    async fn kubelet(&self) -> Result<KubeletState, HostError> {
        self.alive().await;
        let inner = self.inner();
        let installed = inner.installed(Package::Kubelet);
        let runs_installed = installed == Some(inner.kubelet);
        Ok(KubeletState { installed, active: true, runs_installed, since: None, restarts: 0, booted: None })
    }

    async fn restart_kubelet(&self) -> Result<(), HostError> {
        self.effect("restart kubelet".to_owned(), |inner| {
            if let Some(installed) = inner.installed(Package::Kubelet) {
                inner.kubelet = installed;
            }
        })
        .await
    }

    async fn containerd(&self) -> Result<ContainerdState, HostError> {
        self.alive().await;
        let mut inner = self.inner();
        let answers = inner.containerd.silent == 0;
        inner.containerd.silent = inner.containerd.silent.saturating_sub(1);
        let Containerd { installed, running, unheld, since, .. } = &inner.containerd;
        Ok(ContainerdState {
            version: installed.clone(),
            whole: true,
            unheld: *unheld,
            runs_installed: installed == running,
            answers,
            since: *since,
            restarts: 0,
        })
    }

    async fn install_containerd(&self, version: &PackageVersion) -> Result<(), HostError> {
        let installed = version.clone();
        self.effect(format!("install containerd {version}"), |inner| {
            inner.containerd.installed = installed;
            inner.containerd.unheld = false;
        })
        .await
    }

    async fn restart_containerd(&self) -> Result<(), HostError> {
        self.effect("restart containerd".to_owned(), |inner| {
            inner.containerd.running = inner.containerd.installed.clone();
            inner.containerd.silent = inner.containerd.slow;
        })
        .await
    }

    async fn etcd(&self) -> Result<EtcdView, HostError> {
        self.alive().await;
        self.inner().etcd.clone()
    }

    async fn etcd_store_doubts(&self) -> Result<Vec<EtcdDoubt>, HostError> {
        self.alive().await;
        Ok(self.inner().doubts.clone())
    }

    async fn core_dns_image(&self, _: &KubeVersion) -> Result<Option<String>, HostError> {
        self.alive().await;
        Ok(Some(CORE_DNS.to_owned()))
    }

    async fn etcd_snapshot(&self, name: &str) -> Result<Option<SnapshotInfo>, HostError> {
        self.alive().await;
        Ok(self.inner().snapshots.get(name).cloned())
    }

    async fn take_etcd_snapshot(&self, name: &str) -> Result<SnapshotInfo, HostError> {
        let info = SnapshotInfo {
            path: format!("/var/lib/cupcake/snapshots/{name}.db"),
            bytes: 2_121_760,
            sha256: "0".repeat(64),
            revision: 41_000,
            taken_at: DateTime::UNIX_EPOCH,
        };
        let kept = info.clone();
        self.effect(format!("snapshot {name}"), |inner| {
            inner.snapshots.insert(name.to_owned(), kept);
        })
        .await?;
        Ok(info)
    }
}
