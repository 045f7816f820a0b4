//! A simulated machine: what is installed, configured and running on it.

use super::agenda::Agenda;
use super::containerd::Containerd;
use super::control_plane::ControlPlane;
use super::disk::DiskStore;
use super::kube::{Kube, KubeApi};
use super::ledger::{EffectKind, EffectName, Ledger};
use super::releases::{Images, Repositories, STATIC_PODS, package_version};
use super::systemd::Unit;
use super::timing::{Act, Timing, derive};
use super::trouble::Trouble;
use chrono::TimeDelta;
use cupcake_crds::node_task::NodeInventory;
use cupcake_crds::values::{KubeVersion, MinorVersion, NodeRole};
use cupcake_engine::clock::{Clock, Timestamp};
use cupcake_steps::ports::host::{Package, PackageState, SnapshotInfo};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A copy that an upgrade by hand left on every control-plane node.
const COPY_OF_BEFORE: &str = "kubeadm-backup-etcd-2025-06-01-10-00-00";

/// What the machines of one cluster share.
pub struct Site {
    /// The API.
    pub api: Arc<dyn KubeApi>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What happens later by itself.
    pub agenda: Agenda,
    /// What was done.
    pub ledger: Ledger,
    /// The package repositories.
    pub repositories: Repositories,
    /// The API servers and etcd members.
    pub control_plane: ControlPlane,
    /// Fixes every draw.
    pub seed: u64,
    /// How many times faster than real ones the machines are: 1, but on a clock that cannot be hurried.
    pub haste: u32,
}

impl Site {
    /// The time now.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Enters what happens after that span.
    pub fn after(&self, span: TimeDelta, action: impl FnOnce() + Send + 'static) {
        self.agenda.at(self.now() + span, action);
    }

    /// A program's way to the API.
    pub fn kube(&self, client: &str) -> Kube {
        Kube::new(Arc::clone(&self.api), client)
    }
}

/// One simulated machine.
pub struct SimMachine {
    /// Its name, which is its Node's name.
    pub(super) name: String,
    /// What it is for.
    pub(super) role: NodeRole,
    /// What it shares with the others.
    pub(super) site: Arc<Site>,
    /// The few files of agent and runner.
    pub(super) disk: Arc<DiskStore>,
    /// Guards all else that changes on it.
    state: Mutex<State>,
    /// The runner's unit.
    pub(super) unit: Mutex<Unit>,
}

/// The kubelet's process.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a way to be unwell, alone or with others")]
pub(super) struct Kubelet {
    /// Version of the running process; of the last one while none runs.
    pub(super) version: KubeVersion,
    /// Whether it runs.
    pub(super) active: bool,
    /// Since when it runs.
    pub(super) since: Timestamp,
    /// Counts starts and stops, so that what was entered for an earlier process finds itself outdated.
    pub(super) generation: u64,
    /// Since when its Node is Ready.
    pub(super) ready_since: Timestamp,
    /// Whether each process of it ends by itself soon after its start.
    pub(super) crashes: bool,
    /// Whether nothing that it reports gets to the API.
    pub(super) mute: bool,
    /// Whether the last one ended so, and systemd is about to start another.
    pub(super) starts_again: bool,
    /// How often systemd started it again since somebody did.
    pub(super) restarts: u32,
}

/// What changes on a machine.
#[derive(Debug)]
pub(super) struct State {
    pub(super) timing: Timing,
    pub(super) boots: u64,
    /// When it was started last, if that was after the beginning of the world.
    pub(super) booted: Option<Timestamp>,
    /// Whether it has lost its power, and is not up again.
    pub(super) down: bool,
    pub(super) packages: BTreeMap<Package, PackageState>,
    /// Whether the package manager's lock is held.
    pub(super) package_lock: bool,
    /// What else is wrong with packages and repositories.
    pub(super) trouble: Trouble,
    /// The minor that the source file names.
    pub(super) source: MinorVersion,
    /// The minor whose index was read last.
    pub(super) index: MinorVersion,
    pub(super) images: BTreeSet<String>,
    /// Image tags in the manifests, by static pod; empty on a worker.
    pub(super) manifests: BTreeMap<String, String>,
    /// Image tags of the manifests that kubeadm put aside, by static pod: the newest copy of each in /etc/kubernetes/tmp.
    pub(super) put_aside: BTreeMap<String, String>,
    /// Image tags of the running containers, by static pod.
    pub(super) running: BTreeMap<String, String>,
    /// Static pods whose containers do not start.
    pub(super) broken: BTreeSet<&'static str>,
    pub(super) kubelet: Kubelet,
    /// The version of control groups that its kernel was booted with.
    pub(super) control_groups: u32,
    pub(super) containerd: Containerd,
    /// The version whose kubelet configuration kubeadm wrote last.
    pub(super) kubelet_config: KubeVersion,
    pub(super) snapshots: BTreeMap<String, SnapshotInfo>,
    /// Changes by hand that kubeadm's next upgrade undoes.
    pub(super) hand_made: Vec<String>,
    /// Names of archives of the configuration.
    pub(super) archives: BTreeSet<String>,
    /// Names of kubeadm's copies in /etc/kubernetes/tmp.
    pub(super) copies: BTreeSet<String>,
    /// How much longer its disk lets kubeadm take.
    pub(super) kubeadm_slower_by: TimeDelta,
    /// For how long kubeadm leaves a static pod without a manifest while it exchanges it.
    pub(super) manifests_away_for: TimeDelta,
    /// How often kubeadm will wait for a new etcd in vain, and go back.
    pub(super) etcd_stays: u32,
    /// How often kubeadm's test Job will not end in time.
    pub(super) job_fails: u32,
    /// What its agent tells otherwise than a machine like others would.
    pub(super) tells: Option<Tells>,
}

/// Changes what a machine tells of itself.
#[derive(Clone)]
pub(super) struct Tells(pub(super) Arc<dyn Fn(&mut NodeInventory) + Send + Sync>);

impl std::fmt::Debug for Tells {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tells")
    }
}

impl std::fmt::Debug for SimMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimMachine").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

impl SimMachine {
    /// A machine that runs `version` in every part.
    pub fn new(name: &str, role: NodeRole, version: KubeVersion, site: Arc<Site>) -> Arc<Self> {
        let images = Images::of(version);
        let package = PackageState { version: Some(package_version(version)), whole: true, held: true };
        let packages = [Package::Kubeadm, Package::Kubelet, Package::Kubectl];
        let tags: BTreeMap<String, String> = match role {
            NodeRole::ControlPlane => {
                site.control_plane.join(name, version);
                STATIC_PODS.iter().map(|pod| ((*pod).to_owned(), images.tag(pod))).collect()
            }
            NodeRole::Worker => BTreeMap::new(),
        };
        let now = site.now();
        let state = State {
            timing: Timing::new(site.seed, name),
            boots: 1,
            booted: None,
            down: false,
            packages: packages.into_iter().map(|name| (name, package.clone())).collect(),
            package_lock: false,
            trouble: Trouble::default(),
            source: version.minor_version(),
            index: version.minor_version(),
            images: match role {
                NodeRole::ControlPlane => images.all(),
                NodeRole::Worker => images.of_worker(),
            },
            manifests: tags.clone(),
            put_aside: BTreeMap::new(),
            running: tags,
            broken: BTreeSet::new(),
            kubelet: Kubelet {
                version,
                active: true,
                since: now,
                generation: 0,
                ready_since: now,
                crashes: false,
                mute: false,
                starts_again: false,
                restarts: 0,
            },
            control_groups: 2,
            containerd: Containerd::of_before(),
            kubelet_config: version,
            snapshots: BTreeMap::new(),
            hand_made: Vec::new(),
            archives: BTreeSet::new(),
            kubeadm_slower_by: TimeDelta::zero(),
            manifests_away_for: TimeDelta::zero(),
            etcd_stays: 0,
            job_fails: 0,
            tells: None,
            copies: match role {
                NodeRole::ControlPlane => BTreeSet::from([COPY_OF_BEFORE.to_owned()]),
                NodeRole::Worker => BTreeSet::new(),
            },
        };
        Arc::new(Self {
            name: name.to_owned(),
            role,
            site,
            disk: Arc::default(),
            state: Mutex::new(state),
            unit: Mutex::default(),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is for.
    pub fn role(&self) -> NodeRole {
        self.role
    }

    /// Its small files.
    pub fn disk(&self) -> &Arc<DiskStore> {
        &self.disk
    }

    /// All that an upgrade could change on it, as text, for comparing.
    pub fn contents(&self) -> String {
        let state = self.state();
        let packages = (&state.packages, state.source, state.index, &state.containerd);
        let kubeadm = (&state.manifests, state.kubelet_config, &state.copies, &state.archives, &state.snapshots);
        let running = (&state.running, &state.images, state.kubelet.version, state.kubelet.generation, state.boots);
        format!("{packages:?} {kubeadm:?} {running:?} {:?}", self.disk.files())
    }

    /// Version of the kubelet that runs, or ran last.
    pub fn kubelet_version(&self) -> KubeVersion {
        self.state().kubelet.version
    }

    /// Names of kubeadm's copies that lie on it.
    pub fn kubeadm_copies(&self) -> BTreeSet<String> {
        self.state().copies.clone()
    }

    /// Somebody changes a manifest or the kubelet's configuration by hand.
    pub fn change_by_hand(&self, what: &str) {
        self.state().hand_made.push(what.to_owned());
    }

    /// Somebody gives kubeadm the same as patches, so that it keeps the changes.
    pub fn give_patches(&self) {
        self.state().hand_made.clear();
    }

    /// From now on kubeadm takes that much longer: a slow disk, a slow registry.
    pub fn slow_kubeadm(&self, by: TimeDelta) {
        self.state().kubeadm_slower_by = by;
    }

    /// From now on kubeadm leaves each static pod without a manifest for that long while it exchanges it: it moves the old one away before
    /// it moves the new one in, which takes no time on a disk that is well. Source: kubernetes/kubernetes
    /// cmd/kubeadm/app/phases/upgrade/staticpods.go (v1.34), `upgradeComponent`.
    pub fn let_manifests_be_away(&self, for_each: TimeDelta) {
        self.state().manifests_away_for = for_each;
    }

    /// Names of the static pods' manifests that lie in /etc/kubernetes/manifests.
    pub fn manifests(&self) -> BTreeSet<String> {
        self.state().manifests.keys().cloned().collect()
    }

    /// So often from now on the kubelet does not start a new etcd within kubeadm's five minutes, and kubeadm puts the old manifest back:
    /// the manifest has the hash of before, or the machine is too slow. Source: kubernetes/kubernetes
    /// cmd/kubeadm/app/phases/upgrade/staticpods.go (v1.34), `rollbackOldManifests`.
    pub fn let_etcd_stay(&self, times: u32) {
        self.state().etcd_stays = times;
    }

    /// So often from now on kubeadm's test Job does not end within its 15 seconds, before kubeadm changes anything.
    pub fn let_job_fail(&self, times: u32) {
        self.state().job_fails = times;
    }

    /// From now on the machine tells that of itself: a disk that is nearly full, a mirror that is behind.
    pub fn tell(&self, change: impl Fn(&mut NodeInventory) + Send + Sync + 'static) {
        self.state().tells = Some(Tells(Arc::new(change)));
    }

    /// What it tells of itself in place of that.
    pub(super) fn told(&self, mut inventory: NodeInventory) -> NodeInventory {
        let tells = self.state().tells.clone();
        if let Some(tells) = tells {
            (tells.0)(&mut inventory);
        }
        inventory
    }

    /// Another program takes the package manager's lock, or gives it back.
    pub fn hold_package_lock(&self, held: bool) {
        self.state().package_lock = held;
    }

    /// Whether a kubelet runs.
    pub fn kubelet_is_active(&self) -> bool {
        self.state().kubelet.active
    }

    /// Tells one boot from the next.
    pub(super) fn boot_id_now(&self) -> String {
        let boot = self.state().boots.to_string();
        let word = |part: &str| derive(self.site.seed, &["boot", &self.name, &boot, part]);
        let (high, low) = (word("high"), word("low"));
        format!(
            "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            low >> 52,
            low & 0xffff_ffff_ffff
        )
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long that takes on this machine this time.
    pub(super) fn draw(&self, act: Act) -> TimeDelta {
        self.state().timing.draw(act) / i32::try_from(self.site.haste.max(1)).unwrap_or(i32::MAX)
    }

    /// Lets that much time pass.
    pub(super) async fn pass(&self, span: TimeDelta) {
        self.site.clock.sleep_until(self.site.now() + span).await;
    }

    /// Lets the time pass that the act takes.
    pub(super) async fn take(&self, act: Act) {
        self.pass(self.draw(act)).await;
    }

    pub(super) fn effect(&self, kind: EffectKind, what: String) -> EffectName {
        EffectName { node: self.name.clone(), kind, what }
    }
}

impl State {
    /// The Kubernetes version of an installed package, whole or not.
    pub(super) fn installed(&self, package: Package) -> Option<KubeVersion> {
        self.packages.get(&package)?.version.as_deref()?.parse().ok()
    }
}
