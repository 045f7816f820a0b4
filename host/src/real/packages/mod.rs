//! Packages: what is installed, what is offered, exact installs with holds, by whichever package manager the machine has.
//!
//! ```text
//!   which ──► Manager, the port ◄── apt                       sources, repo_files   files that name repositories, as text
//!                     ▲         ◄── dnf (4 and 5) ◄── rpm     repository            set to a minor, refreshed, taken back
//!                     │         ◄── zypper ◄──────────┘       dnf_locks, zypp_locks locks, as text; remembered while off
//!          the flow, here: refuse, finish what was cut short, install, hold
//!                                                          holds   what keeps packages at their version, for inventories
//! ```

mod apt;
mod apt_words;
mod dnf;
mod dnf_locks;
mod dnf_words;
mod holds;
#[cfg(test)]
mod real;
mod remembered;
mod repo_files;
mod repository;
mod rpm;
mod sources;
mod which;
mod zypp_locks;
mod zypper;

use super::RealHost;
use super::failure::{needs_operator, permanent};
use super::program::{Finished, Program, ProgramError};
use async_trait::async_trait;
use cupcake_crds::node_task::PackageHold;
use cupcake_crds::values::{KubeVersion, MinorVersion, NodeRole, PackageVersion};
use cupcake_steps::ports::host::{HostError, Package, PackageState};
use sources::SourceFile;
use std::time::Duration;

/// How long another process that works on packages is waited for: unattended upgrades take minutes.
const LOCK_SECONDS_MAX: u64 = 300;
/// How long a question waits for it.
const QUESTION_LOCK_SECONDS_MAX: u64 = 30;
const LOCK_AGAIN: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(5) };
/// How long an install may take, its wait for the lock included.
const INSTALL_LIMIT: Duration = Duration::from_secs(20 * 60);
/// How long one refresh of the index may take; a slow mirror needs a minute.
const REFRESH_LIMIT: Duration = Duration::from_secs(5 * 60);
/// How long the look at the next minor's repository may take: nothing waits for it but an inventory.
const LOOK_LIMIT: Duration = Duration::from_secs(60);

/// A package as the package manager has it, with the mark that only a reinstall clears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) state: PackageState,
    pub(super) reinstall: bool,
}

/// A package that is to be installed at an exact version.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) name: &'static str,
    /// The whole version, as the package manager is to be asked for it.
    pub(super) exact: String,
    /// Whether the package manager already has that version of it, but not whole.
    pub(super) is_present: bool,
    /// [`Found::reinstall`].
    pub(super) reinstall: bool,
}

/// What a package is to an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// One that is installed at an exact version.
    Itself,
    /// One that such a package needs, and that comes along where a newer one is needed.
    Needed,
}

/// What a package manager does for the runner.
///
/// # Guarantees
/// Never asks, never downgrades, never takes what is newest; waits while another process works on packages, and may be repeated
/// after it was killed at any moment.
#[async_trait]
pub(super) trait Manager: Send + Sync {
    /// Its name, as inventories tell it.
    fn name(&self) -> &'static str;
    /// The program that keeps account of what is installed.
    fn database(&self) -> &'static str;
    /// Makes its account readable again where a process that died in it left it locked or broken.
    async fn repair(&self) -> Result<(), HostError> {
        Ok(())
    }
    /// A package that is installed, or not.
    async fn find(&self, package: &str) -> Result<Found, HostError>;
    /// Whether the program of an installed package is the one that the package brought.
    async fn is_intact(&self, package: &str) -> Result<bool, HostError>;
    /// Versions that the index of the Kubernetes repositories lists, newest first, with the whole version of their package.
    async fn offered(&self, package: &str) -> Result<Vec<(KubeVersion, String)>, HostError>;
    /// Brings what an interrupted operation left as far as an install can begin.
    async fn finish_interrupted(&self, packages: &[&str]) -> Result<(), HostError>;
    /// Installs exactly these; holds of `packages` may be off afterwards.
    async fn install(&self, packages: &[Package], wanted: &[Wanted]) -> Result<(), HostError>;
    /// Holds those of the packages that are installed, and puts back every lock that an install took off.
    async fn hold(&self, packages: &[Package]) -> Result<(), HostError>;
    /// Versions of a package that the index of any of the machine's repositories lists, in no order.
    async fn offered_anywhere(&self, package: &str) -> Result<Vec<PackageVersion>, HostError>;
    /// Refreshes the whole index of the machine, from whichever of its repositories answers.
    async fn refresh_all(&self) -> Result<(), HostError>;
    /// Installs exactly that, from whichever repository has it. A hold of it may be off afterwards, and is owed then.
    async fn install_from_anywhere(&self, wanted: &Wanted) -> Result<(), HostError>;
    /// Whether an install took a hold of that package off that is not back.
    fn owes_hold(&self, package: &str) -> bool;
    /// Puts back every hold that is owed, and holds nothing else.
    async fn give_back_holds(&self) -> Result<(), HostError>;
    /// What keeps that package at its version, and what it comes to.
    async fn holds_of(&self, package: &str, part: Part) -> Result<Vec<PackageHold>, HostError>;
    /// The files that name Kubernetes repositories.
    fn sources(&self) -> Vec<SourceFile>;
    /// Where such files are looked for, and what is gone.
    fn where_sources_are(&self) -> &'static str;
    /// Refreshes the index of the Kubernetes repositories only: other repositories of the machine may be away or slow.
    async fn refresh(&self, sources: &[SourceFile]) -> Result<(), HostError>;
    /// Versions of which the repository of `minor` has kubeadm and kubelet, by an index of its own, newest first.
    async fn look_at(&self, sources: &[SourceFile], minor: MinorVersion) -> Result<Vec<KubeVersion>, HostError>;
}

/// How a package manager says that another process works on packages.
struct Locked {
    words: &'static [&'static str],
    code: Option<i32>,
}

impl Locked {
    /// Whether a program failed for that, and would not if it were run again later.
    fn says(&self, error: &ProgramError) -> bool {
        match error {
            ProgramError::Failed { last_lines, code, .. } => {
                (self.code.is_some() && *code == self.code) || self.words.iter().any(|words| last_lines.contains(words))
            }
            ProgramError::Missing { .. }
            | ProgramError::System { .. }
            | ProgramError::TimedOut { .. }
            | ProgramError::TooMuchOutput { .. } => false,
        }
    }
}

/// Runs it, again and again while another process works on packages, but not for longer than that many seconds.
async fn past_lock(
    program: Program,
    locked: &Locked,
    again: Duration,
    seconds_max: u64,
) -> Result<Finished, ProgramError> {
    let since = tokio::time::Instant::now();
    loop {
        match program.clone().run().await {
            Err(error) if locked.says(&error) && since.elapsed().as_secs() < seconds_max => {
                tokio::time::sleep(again).await;
            }
            ended => return ended,
        }
    }
}

/// Versions of Kubernetes with the whole version of their package, newest first.
fn newest_first(versions: impl Iterator<Item = (KubeVersion, String)>) -> Vec<(KubeVersion, String)> {
    let mut versions: Vec<_> = versions.collect();
    versions.sort_by(|(a, a_package), (b, b_package)| (b, revision(b_package)).cmp(&(a, revision(a_package))));
    versions.dedup();
    versions
}

/// The numbers of the revision behind the version: `1.34.4-1.10` is newer than `1.34.4-1.2`.
fn revision(package_version: &str) -> Vec<u64> {
    let (_, revision) = package_version.rsplit_once('-').unwrap_or_default();
    revision.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// Versions of `minor` of which there are both packages, of two lists that are newest first.
fn both_of(
    minor: MinorVersion,
    kubeadms: Vec<(KubeVersion, String)>,
    kubelets: &[(KubeVersion, String)],
) -> Vec<KubeVersion> {
    let mut both: Vec<_> = kubeadms.into_iter().map(|(version, _)| version).collect();
    both.retain(|version| version.minor_version() == minor && kubelets.iter().any(|(kubelet, _)| kubelet == version));
    both.dedup();
    both
}

impl RealHost {
    /// A package's state; whole only where its program is the package's.
    pub(super) async fn package_state(&self, package: Package) -> Result<PackageState, HostError> {
        let manager = self.manager()?;
        Ok(find_whole(manager.as_ref(), package.as_str()).await?.state)
    }

    /// The versions of kubeadm that the machine's own index lists, newest first.
    pub(super) async fn offered_versions(&self) -> Result<Vec<KubeVersion>, HostError> {
        let manager = self.manager()?;
        let mut versions: Vec<_> = manager.offered("kubeadm").await?.into_iter().map(|(version, _)| version).collect();
        versions.dedup();
        Ok(versions)
    }

    pub(super) async fn install_exact(&self, packages: &[Package], version: &KubeVersion) -> Result<(), HostError> {
        let installed = self.install_wanting(packages, version).await;
        // Whatever happened now, or to an earlier call that was cut short between unhold and hold: nothing else may move these
        // packages. An install that failed is the more telling error.
        let held = self.hold(packages).await;
        installed.and(held)
    }

    /// Holds those of the packages that are installed.
    pub(super) async fn hold(&self, packages: &[Package]) -> Result<(), HostError> {
        let manager = self.manager()?;
        manager.repair().await?;
        manager.hold(packages).await
    }

    /// Which of those packages, kubectl aside, the package manager does not know to be installed.
    pub(super) async fn without_package(&self, packages: &[Package]) -> Result<Vec<String>, HostError> {
        let manager = self.manager()?;
        let mut strange = Vec::new();
        for package in [Package::Kubeadm, Package::Kubelet].iter().filter(|package| packages.contains(package)) {
            if manager.find(package.as_str()).await?.state.version.is_none() {
                strange.push(package.as_str().to_owned());
            }
        }
        Ok(strange)
    }

    /// Refuses what no package brought: a package would put its files over it, or beside it in another folder, and its unit over one
    /// that somebody wrote. What runs afterwards would be chance. The checklist has refused it before, where it could be told.
    async fn brought_by_packages(&self, packages: &[Package]) -> Result<(), HostError> {
        let strange = self.without_package(packages).await?;
        if strange.is_empty() {
            return Ok(());
        }
        let leave_out = match self.files().role() {
            NodeRole::ControlPlane => "",
            NodeRole::Worker => "; or leave the node out (kubectl cupcake skip) and upgrade it by hand",
        };
        Err(needs_operator(
            "NotInstalledByPackage",
            format!(
                "{} knows no installed package of {} here, and only packages are upgraded: install kubeadm, kubelet and kubectl from a package repository at the versions that run now, take away what was put there by hand, then retry{leave_out}",
                self.manager()?.database(),
                strange.join(" and ")
            ),
        ))
    }

    /// The whole version of the package that carries `version`; the index is refreshed once if it does not list it.
    async fn exact(&self, manager: &dyn Manager, package: &str, version: &KubeVersion) -> Result<String, HostError> {
        let mut refreshed = false;
        loop {
            let offered = manager.offered(package).await?;
            if let Some((_, exact)) = offered.iter().find(|(offered, _)| offered == version) {
                return Ok(exact.clone());
            }
            if refreshed {
                let newest = offered.first().map_or("nothing".to_owned(), |(_, newest)| format!("at most {newest}"));
                return Err(needs_operator(
                    "VersionNotOffered",
                    format!(
                        "the package repository offers no {package} {version}, but {newest}: set another target version, or the mirror right"
                    ),
                ));
            }
            manager.refresh(&self.known_sources()?).await?;
            refreshed = true;
        }
    }

    /// Installs those of the packages that are not of that version, and releases their holds for it.
    async fn install_wanting(&self, packages: &[Package], version: &KubeVersion) -> Result<(), HostError> {
        let manager = self.manager()?;
        manager.repair().await?;
        self.brought_by_packages(packages).await?;
        // What was interrupted may stop an install before it begins.
        manager.finish_interrupted(&packages.iter().map(|package| package.as_str()).collect::<Vec<_>>()).await?;
        let mut wanted = Vec::new();
        for package in packages {
            let name = package.as_str();
            let Found { state, reinstall } = find_whole(manager.as_ref(), name).await?;
            let present = state.version.as_deref();
            let found = present.and_then(|present| present.parse::<KubeVersion>().ok());
            if found.is_some_and(|found| found > *version) {
                return Err(permanent(
                    "WouldDowngrade",
                    format!(
                        "{name} {} is installed, which is newer than {version}: an older package is never put over a newer one",
                        present.unwrap_or("")
                    ),
                ));
            }
            if found != Some(*version) || !state.whole {
                let exact = self.exact(manager.as_ref(), name, version).await?;
                // Another revision of the same release is another version to the package manager.
                let is_present = present == Some(exact.split_once(':').map_or(exact.as_str(), |(_, version)| version));
                wanted.push(Wanted { name, exact, is_present, reinstall });
            }
        }
        if packages.contains(&Package::Kubelet) {
            // Before the install: the package's own scripts may start the newer kubelet.
            self.drop_removed_flags(version)?;
        }
        if wanted.is_empty() { Ok(()) } else { manager.install(packages, &wanted).await }
    }
}

/// A package, not whole where its program is not the one that it brought.
async fn find_whole(manager: &dyn Manager, package: &str) -> Result<Found, HostError> {
    let mut found = manager.find(package).await?;
    found.state.whole = found.state.whole && (found.state.version.is_none() || manager.is_intact(package).await?);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_sorted_as_versions_with_the_highest_revision_first() {
        let of = |text: &str| (text.parse::<KubeVersion>().expect("a version"), text.to_owned());
        let texts = ["1.34.4-1.2", "1.34.10-150500.1.1", "1.34.4-1.10", "1.34.4-1.2", "1.34.3-1.1"];
        let sorted: Vec<String> = newest_first(texts.into_iter().map(of)).into_iter().map(|(_, text)| text).collect();
        assert_eq!(sorted, ["1.34.10-150500.1.1", "1.34.4-1.10", "1.34.4-1.2", "1.34.3-1.1"]);
    }

    #[test]
    fn a_version_counts_where_both_packages_have_it() {
        let of = |texts: &[&str]| -> Vec<(KubeVersion, String)> {
            texts.iter().map(|text| (text.parse().expect("a version"), (*text).to_owned())).collect()
        };
        let kubeadms = of(&["1.34.5-1.1", "1.34.4-1.2", "1.34.4-1.1", "1.33.9-1.1"]);
        let both = both_of(MinorVersion { major: 1, minor: 34 }, kubeadms, &of(&["1.34.4-1.1", "1.33.9-1.1"]));
        assert_eq!(both, [KubeVersion::new(1, 34, 4)]);
    }
}
