//! containerd on a simulated machine: its package, and the process that systemd runs.

use super::ledger::{EffectKind, Ending};
use super::releases::{CONTAINERD_OF_BEFORE, CONTAINERDS};
use super::state::SimMachine;
use super::timing::Act;
use cupcake_crds::node_task::ContainerdPackage;
use cupcake_crds::values::PackageVersion;
use cupcake_engine::names::Reason;
use cupcake_steps::ports::host::{ContainerdState, HostError};
use std::sync::Arc;

/// containerd's package and process.
#[expect(clippy::struct_excessive_bools, reason = "what a machine has, each by itself")]
#[derive(Debug, Clone)]
pub(super) struct Containerd {
    installed: PackageVersion,
    whole: bool,
    held: bool,
    /// Whether an install released the hold and has not given it back.
    unheld: bool,
    /// What the machine's index offers.
    offered: Vec<PackageVersion>,
    /// Why it is none of a package.
    unfit: Option<String>,
    /// The version that runs, or ran last.
    running: PackageVersion,
    active: bool,
}

fn version(text: &str) -> PackageVersion {
    text.parse().expect("a version of a package")
}

impl Containerd {
    /// Installed, held and running, with all versions of the repositories on offer.
    pub(super) fn of_before() -> Self {
        let installed = version(CONTAINERD_OF_BEFORE);
        Self {
            running: installed.clone(),
            installed,
            whole: true,
            held: true,
            unheld: false,
            offered: CONTAINERDS.iter().rev().map(|text| version(text)).collect(),
            unfit: None,
            active: true,
        }
    }

    /// What runs after a boot.
    pub(super) fn boots(&mut self) {
        self.running = self.installed.clone();
        self.active = true;
    }

    /// The version that the process tells, as `Node.status.nodeInfo.containerRuntimeVersion` has it.
    pub(super) fn told(&self) -> String {
        format!("containerd://{}", self.running.upstream())
    }

    /// For the inventory.
    pub(super) fn package(&self) -> ContainerdPackage {
        if let Some(unfit) = &self.unfit {
            return ContainerdPackage { unfit: Some(unfit.clone()), ..ContainerdPackage::default() };
        }
        ContainerdPackage::of("containerd.io", &self.installed, self.offered.clone())
    }

    /// The name of its package, if that is held.
    pub(super) fn held_package(&self) -> Option<&'static str> {
        (self.unfit.is_none() && self.held).then_some("containerd.io")
    }

    /// The version that `containerd --version` prints.
    pub(super) fn binary(&self) -> String {
        self.installed.upstream().to_owned()
    }

    /// Holds what an install that was cut short released.
    pub(super) fn give_back_hold(&mut self) {
        if std::mem::take(&mut self.unheld) {
            self.held = true;
        }
    }
}

impl SimMachine {
    /// Version of the containerd that runs, as its package has it.
    pub fn containerd_version(&self) -> PackageVersion {
        self.state().containerd.running.clone()
    }

    /// Whether the package of containerd is held.
    pub fn containerd_is_held(&self) -> bool {
        self.state().containerd.held
    }

    /// Somebody has put containerd there by hand.
    pub fn install_containerd_by_hand(&self) {
        let why = "containerd.service runs /usr/local/bin/containerd, which no package brought";
        self.state().containerd.unfit = Some(why.to_owned());
    }

    /// The machine's index offers those versions of containerd's package, and no others.
    pub fn offer_containerd(&self, versions: &[&str]) {
        self.state().containerd.offered = versions.iter().map(|text| version(text)).collect();
    }

    pub(super) fn containerd_now(&self) -> Result<ContainerdState, HostError> {
        let state = self.state();
        let found = &state.containerd;
        if let Some(unfit) = &found.unfit {
            return Err(HostError::NeedsOperator(Reason::new("NotInstalledByPackage", unfit.clone())));
        }
        Ok(ContainerdState {
            version: found.installed.clone(),
            whole: found.whole,
            unheld: found.unheld,
            runs_installed: found.running == found.installed,
            answers: found.active,
            since: None,
            restarts: 0,
        })
    }

    /// One transaction: unhold, unpack, configure, hold. Cut short, the package is half-configured and its hold is owed.
    pub(super) async fn install_containerd_package(self: &Arc<Self>, wanted: &PackageVersion) -> Result<(), HostError> {
        self.containerd_now()?;
        let what = format!("containerd={wanted}");
        let effect = self.site.ledger.begin(self.effect(EffectKind::Install, what));
        let result = self.transact_containerd(wanted).await;
        effect.end(if result.is_ok() { Ending::Well } else { Ending::Failed });
        result
    }

    async fn transact_containerd(&self, wanted: &PackageVersion) -> Result<(), HostError> {
        let found = self.state().containerd.clone();
        if !found.offered.contains(wanted) && found.installed != *wanted {
            let message = format!("the package repositories offer no containerd.io {wanted}");
            return Err(HostError::NeedsOperator(Reason::new("VersionNotOffered", message)));
        }
        let _lock = self.lock_packages()?;
        self.finish_interrupted()?;
        let whole = self.draw(Act::InstallPackages);
        let change = |change: &dyn Fn(&mut Containerd)| change(&mut self.state().containerd);
        change(&|found| {
            found.unheld |= found.held;
            found.held = false;
        });
        self.pass(whole / 2).await;
        change(&|found| {
            found.installed = wanted.clone();
            found.whole = false;
        });
        self.pass(whole - whole / 2).await;
        change(&|found| {
            found.whole = true;
            found.give_back_hold();
        });
        Ok(())
    }

    /// `systemctl restart containerd`: systemd does it, so that a crash of who asked for it does not cut it short.
    pub(super) async fn restart_containerd_unit(self: &Arc<Self>) -> Result<(), HostError> {
        let version = self.state().containerd.installed.clone();
        let effect =
            self.site.ledger.begin(self.effect(EffectKind::ContainerdRestart, format!("containerd={version}")));
        let whole = self.draw(Act::RestartContainerd);
        self.state().containerd.active = false;
        let machine = Arc::clone(self);
        self.site.after(whole / 2, move || machine.state().containerd.boots());
        self.pass(whole).await;
        effect.end(Ending::Well);
        Ok(())
    }
}
