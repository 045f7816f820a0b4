//! The package manager and the container runtime's images.

use super::ledger::{EffectKind, Ending};
use super::releases::{self, package_version};
use super::state::SimMachine;
use super::timing::Act;
use super::trouble::repository_missing;
use cupcake_crds::values::{KubeVersion, MinorVersion};
use cupcake_engine::names::Reason;
use cupcake_steps::ports::host::{HostError, Images, KubeProxy, Package, PackageState};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Holds the package manager's lock; a crash of its holder frees it, as the kernel does.
pub(super) struct PackageLock<'a>(&'a SimMachine);

impl Drop for PackageLock<'_> {
    fn drop(&mut self) {
        self.0.state().package_lock = false;
    }
}

/// The references of those images. Every cluster of the sandbox has kubeadm's own repository.
fn references(images: &Images) -> BTreeSet<String> {
    let of = releases::Images::of(*images.version());
    match images {
        Images::ControlPlane { .. } => of.all(),
        Images::Worker { kube_proxy: KubeProxy::Upgrade, .. } => of.of_worker(),
        Images::Worker { kube_proxy: KubeProxy::LeaveOut, .. } => BTreeSet::from([of.pause()]),
    }
}

impl SimMachine {
    pub(super) fn lock_packages(&self) -> Result<PackageLock<'_>, HostError> {
        let mut state = self.state();
        if state.package_lock {
            return Err(HostError::Transient(Reason::new(
                "PackageLockHeld",
                "another process works on packages: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 4711 (unattended-upgr)",
            )));
        }
        state.package_lock = true;
        Ok(PackageLock(self))
    }

    /// The minor of the source file, if its index was read to the end as well.
    pub(super) fn repository_now(&self) -> Option<MinorVersion> {
        let state = self.state();
        (state.source == state.index).then_some(state.source)
    }

    /// Holds what is installed.
    pub(super) fn hold_packages(&self) {
        self.state().containerd.give_back_hold();
        for package in self.state().packages.values_mut().filter(|package| package.version.is_some()) {
            package.held = true;
        }
    }

    /// Holds every package, rewrites the source file, then reads the index.
    pub(super) async fn set_repository(&self, minor: MinorVersion) -> Result<(), HostError> {
        if !self.site.repositories.has(minor) {
            return Err(repository_missing(minor));
        }
        self.see_repository(minor)?;
        let _lock = self.lock_packages()?;
        self.hold_packages();
        self.state().source = minor;
        self.take(Act::RefreshIndex).await;
        if self.site.repositories.newest(minor).is_none() {
            return Err(HostError::NeedsOperator(Reason::new(
                "RepositoryEmpty",
                format!(
                    "the package repository of {minor} offers no kubeadm of {minor}: look at its source file and at the mirror"
                ),
            )));
        }
        self.state().index = minor;
        Ok(())
    }

    pub(super) fn package_now(&self, package: Package) -> PackageState {
        let absent = PackageState { version: None, whole: false, held: false };
        self.state().packages.get(&package).cloned().unwrap_or(absent)
    }

    /// One transaction: unhold, unpack, configure, hold. Cut short, the packages are half-configured and not held.
    pub(super) async fn install_packages(
        self: &Arc<Self>,
        packages: &[Package],
        version: KubeVersion,
    ) -> Result<(), HostError> {
        let names: Vec<&str> = packages.iter().map(|package| package.as_str()).collect();
        let effect = self.site.ledger.begin(self.effect(EffectKind::Install, format!("{}={version}", names.join("+"))));
        let result = self.transact(packages, version).await;
        effect.end(if result.is_ok() { Ending::Well } else { Ending::Failed });
        result
    }

    async fn transact(&self, packages: &[Package], version: KubeVersion) -> Result<(), HostError> {
        let index = self.state().index;
        if !self.site.repositories.versions(index).any(|known| known == version) {
            let newest =
                self.site.repositories.newest(index).map_or("nothing".to_owned(), |newest| format!("at most {newest}"));
            let package = packages.first().map_or("kubelet", |package| package.as_str());
            return Err(HostError::NeedsOperator(Reason::new(
                "VersionNotOffered",
                format!(
                    "the package repository offers no {package} {version}, but {newest}: set another target version, or the mirror right"
                ),
            )));
        }
        let _lock = self.lock_packages()?;
        self.finish_interrupted()?;
        self.see_unlocked(packages)?;
        let whole = self.draw(Act::InstallPackages);
        let change = |change: &dyn Fn(&mut PackageState)| {
            let mut state = self.state();
            for package in packages {
                let absent = PackageState { version: None, whole: false, held: false };
                change(state.packages.entry(*package).or_insert(absent));
            }
        };
        change(&|package| package.held = false);
        self.pass(whole / 2).await;
        change(&|package| {
            package.version = Some(package_version(version));
            package.whole = false;
        });
        self.pass(whole - whole / 2).await;
        change(&|package| {
            package.whole = true;
            package.held = true;
        });
        Ok(())
    }

    pub(super) fn missing_images(&self, images: &Images) -> Vec<String> {
        let state = self.state();
        references(images).into_iter().filter(|image| !state.images.contains(image)).collect()
    }

    pub(super) async fn pull(&self, images: &Images) -> Result<(), HostError> {
        for image in self.missing_images(images) {
            self.take(Act::PullImage).await;
            self.state().images.insert(image);
        }
        Ok(())
    }
}
