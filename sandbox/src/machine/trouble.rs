//! What can be wrong with the package manager of a simulated machine, and with what it is set to, besides its lock.
//!
//! ```text
//!  leave_half_configured   an install of somebody's was killed: finished by the next one, with the hold given back
//!  break_package           a package of somebody's that cannot be configured: nothing is installed before it is mended
//!  name_repository         no Kubernetes repository in its sources, or one whose mirror does not have the next minor
//!  keep_packages           a lock that no install lifts
//! ```

use super::state::SimMachine;
use cupcake_crds::node_task::{HoldEffect, NodeInventory, PackageHold};
use cupcake_crds::values::MinorVersion;
use cupcake_engine::names::Reason;
use cupcake_steps::ports::host::{HostError, Package};

/// What a machine's sources name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Source {
    /// The repository of a minor, on a mirror that has them all.
    #[default]
    Whole,
    /// The same, on a mirror that lacks every minor after the present one.
    NothingNewer,
    /// None in the layout of pkgs.k8s.io: one that is gone since 2024.
    None,
}

/// What is wrong.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    broken: Option<String>,
    source: Source,
    kept: Vec<PackageHold>,
}

fn needs_operator(code: &str, message: String) -> HostError {
    HostError::NeedsOperator(Reason::new(code, message))
}

/// What a mirror without that minor comes to.
pub(super) fn repository_missing(minor: MinorVersion) -> HostError {
    let message = format!(
        "the server has no repository of that minor: a mirror has to carry it first: apt-get update: https://pkgs.k8s.io/core:/stable:/v{minor}/deb/ Release: 404 Not Found"
    );
    needs_operator("RepositoryMissing", message)
}

impl SimMachine {
    /// Somebody's install of that package was killed in its middle: it is half-configured, and its hold is off.
    pub fn leave_half_configured(&self, package: Package) {
        if let Some(package) = self.state().packages.get_mut(&package) {
            (package.whole, package.held) = (false, false);
        }
    }

    /// From now on that package of somebody's cannot be configured; it is mended, if none is named.
    pub fn break_package(&self, package: Option<&str>) {
        self.state().trouble.broken = package.map(str::to_owned);
    }

    /// From now on the machine's sources name that.
    pub fn name_repository(&self, source: Source) {
        self.state().trouble.source = source;
    }

    /// From now on that keeps packages at their version, besides the marks of each.
    pub fn keep_packages(&self, kept: Vec<PackageHold>) {
        self.state().trouble.kept = kept;
    }

    /// Whether a package is installed to the end, and held.
    pub fn package_is_whole_and_held(&self, package: Package) -> bool {
        let state = self.package_now(package);
        state.whole && state.held
    }

    /// What an install does first.
    pub(super) fn finish_interrupted(&self) -> Result<(), HostError> {
        let Some(broken) = self.state().trouble.broken.clone() else { return Ok(()) };
        Err(needs_operator(
            "PackagesBroken",
            format!(
                "an interrupted package operation cannot be finished, repair it with dpkg --configure -a: dpkg: error processing package {broken} (--configure)"
            ),
        ))
    }

    /// Refuses what a lock keeps away that no install lifts.
    pub(super) fn see_unlocked(&self, packages: &[Package]) -> Result<(), HostError> {
        let state = self.state();
        let keeps = |hold: &&PackageHold| {
            hold.effect != HoldEffect::Lifted && packages.iter().any(|package| package.as_str() == hold.package)
        };
        let Some(hold) = state.trouble.kept.iter().find(keeps) else { return Ok(()) };
        let message = format!(
            "an exclude, a lock or another repository hides that version: take it off, then retry: {} by {}",
            hold.package, hold.by
        );
        Err(needs_operator("PackageHidden", message))
    }

    /// Refuses a minor that the machine's sources do not lead to.
    pub(super) fn see_repository(&self, minor: MinorVersion) -> Result<(), HostError> {
        let (source, present) = {
            let state = self.state();
            (state.trouble.source, state.index)
        };
        match source {
            Source::None => Err(needs_operator("RepositoryUnknown", NO_REPOSITORY.to_owned())),
            Source::NothingNewer if minor > present => Err(repository_missing(minor)),
            Source::Whole | Source::NothingNewer => Ok(()),
        }
    }

    /// What the inventory tells of holds and repositories.
    pub(super) fn tell_packages(&self, inventory: &mut NodeInventory) {
        let state = self.state();
        let mark = |package: &str| PackageHold {
            by: "apt-mark hold".to_owned(),
            effect: HoldEffect::Lifted,
            package: package.to_owned(),
            versions: None,
        };
        let held = Package::ALL.iter().filter(|package| state.packages.get(*package).is_some_and(|found| found.held));
        let mut holds = state.trouble.kept.clone();
        holds.extend(held.map(|package| mark(package.as_str())));
        holds.extend(state.containerd.held_package().map(mark));
        inventory.holds = Some(holds);
        let Some(next) = &mut inventory.next_minor else { return };
        match state.trouble.source {
            Source::Whole => {}
            Source::NothingNewer => next.versions.clear(),
            Source::None => {
                next.versions.clear();
                next.unread = Some("RepositoryUnknown: none is named in /etc/apt/sources.list.d".to_owned());
                inventory.available_versions.clear();
            }
        }
    }
}

const NO_REPOSITORY: &str = "/etc/apt/sources.list and /etc/apt/sources.list.d: no Kubernetes repository (core:/stable:/vX.Y) is named \
    there: add one as kubernetes.io documents it; apt.kubernetes.io, yum.kubernetes.io and packages.cloud.google.com are gone since 2024";
