//! zypper: [`Manager`] of SLES and openSUSE.
//!
//! zypper knows no `exclude=`: packages are held by its locks, which are taken off for an install and put back.

use super::holds::Kept;
use super::remembered::{Locks, text_of, write_locks};
use super::repository::sources_aside;
use super::rpm::{self, TRANSACTION_LOCK};
use super::sources::{Form, SourceFile};
use super::zypp_locks::{ZyppLocks, has_riddles, lock_of, riddles};
use super::{
    Found, INSTALL_LIMIT, LOCK_AGAIN, LOCK_SECONDS_MAX, LOOK_LIMIT, Locked, Manager, Part, QUESTION_LOCK_SECONDS_MAX,
    REFRESH_LIMIT, Wanted, both_of, newest_first, past_lock, repo_files,
};
use crate::real::RealHost;
use crate::real::failure::{self, Class, Meaning};
use crate::real::program::{Program, ProgramError};
use async_trait::async_trait;
use cupcake_crds::node_task::{HoldEffect, PackageHold};
use cupcake_crds::values::{KubeVersion, MinorVersion, PackageVersion};
use cupcake_steps::ports::host::{HostError, Package};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

const REPOSITORIES: &str = "/etc/zypp/repos.d";
const LOCKS: &str = "/etc/zypp/locks";

/// `ZYPPER_EXIT_ZYPP_LOCKED` of zypper(8).
const EXIT_LOCKED: i32 = 7;
/// `ZYPPER_EXIT_INF_CAP_NOT_FOUND`.
const EXIT_NOT_FOUND: i32 = 104;
/// `ZYPPER_EXIT_INF_REPOS_SKIPPED`: a repository that nothing was needed of is away.
const EXIT_SKIPPED: i32 = 106;
/// A reboot is needed, a restart of zypper is, a repository was left aside, a script of a package failed: what was asked for is done.
const EXIT_DONE: [i32; 4] = [102, 103, EXIT_SKIPPED, 107];
/// How `zypper refresh` says that others were refreshed.
const SOME_REFRESHED: &str = "Some of the repositories have not been refreshed";

/// How zypper says that another process works on packages.
const LOCKED: Locked = Locked { words: &["System management is locked", TRANSACTION_LOCK], code: Some(EXIT_LOCKED) };

/// What zypper means by its last lines. A mirror that does not answer may stand beside one that has no such repository.
const MEANINGS: [Meaning; 17] = [
    is(LOCKED.words[0], Class::Transient, "PackageLockHeld", ""),
    is(LOCKED.words[1], Class::Transient, "PackageLockHeld", ""),
    is("No space left on device", Class::NeedsOperator, "DiskFull", "free some space, then retry"),
    is("more space needed on the", Class::NeedsOperator, "DiskFull", "free some space, then retry"),
    is("Signature verification failed", Class::NeedsOperator, "RepositoryNotTrusted", NOT_TRUSTED),
    is("reject the key", Class::NeedsOperator, "RepositoryNotTrusted", NOT_TRUSTED),
    is("is not signed", Class::NeedsOperator, "RepositoryNotTrusted", NOT_TRUSTED),
    is("Download (curl) error", Class::Transient, "RepositoryUnreachable", ""),
    is("Timeout exceeded", Class::Transient, "RepositoryUnreachable", ""),
    is("Repository type can't be determined", Class::NeedsOperator, "RepositoryMissing", MISSING),
    is("not found on medium", Class::NeedsOperator, "RepositoryMissing", MISSING),
    is("is not a directory", Class::NeedsOperator, "RepositoryMissing", MISSING),
    is("Permission to access", Class::NeedsOperator, "RepositoryMissing", MISSING),
    is("remove lock to allow", Class::NeedsOperator, "PackageHidden", HIDDEN),
    is("No provider of", Class::NeedsOperator, "PackageHidden", HIDDEN),
    is("not found in package names", Class::NeedsOperator, "PackageHidden", HIDDEN),
    is("Choose from above solutions", Class::NeedsOperator, "UnmetDependencies", UNMET),
];
const NOT_TRUSTED: &str =
    "the key of the repository is not known to rpm: import the one that gpgkey names (rpm --import), then retry";
const MISSING: &str = "the server has no repository of that minor: a mirror has to carry it first";
const HIDDEN: &str = "a lock or another repository hides that version (zypper locks): take it off, then retry";
const UNMET: &str = "another package stands in the way: release its lock or upgrade it, then retry";

const fn is(words: &'static str, class: Class, code: &'static str, advice: &'static str) -> Meaning {
    Meaning { words, class, code, advice }
}

pub(super) struct Zypper<'h> {
    host: &'h RealHost,
}

/// The value of an attribute of an element, as zypper writes it.
fn attribute<'l>(element: &'l str, name: &str) -> Option<&'l str> {
    let (_, rest) = element.split_once(&format!(" {name}=\""))?;
    rest.split('"').next()
}

/// Whole versions of packages that a repository has, in the answer of `zypper --xmlout search --details`.
fn editions(xml: &str) -> impl Iterator<Item = &str> {
    let elements = xml.lines().filter(|line| line.trim_start().starts_with("<solvable "));
    elements.filter_map(|element| {
        let is_package = attribute(element, "kind") == Some("package");
        let is_offered = attribute(element, "repository") != Some("(System Packages)");
        attribute(element, "edition").filter(|_| is_package && is_offered)
    })
}

/// Versions in the answer of `zypper --xmlout search --details`, newest first.
fn offered(xml: &str) -> Vec<(KubeVersion, String)> {
    newest_first(editions(xml).filter_map(|edition| {
        let version = edition.split_once(':').map_or(edition, |(_, version)| version);
        Some((version.parse().ok()?, edition.to_owned()))
    }))
}

impl<'h> Zypper<'h> {
    pub(super) fn of(host: &'h RealHost) -> Self {
        Self { host }
    }

    fn doing(&self, limit: Duration, arguments: Vec<String>) -> Program {
        let arguments = std::iter::once("--non-interactive".to_owned()).chain(arguments);
        Program::doing("zypper", limit, arguments).with(&self.host.settings.proxies)
    }

    fn locks(&self) -> PathBuf {
        self.host.files().path(LOCKS)
    }

    fn ids(sources: &[SourceFile]) -> Vec<String> {
        sources.iter().flat_map(|file| repo_files::ids(&file.text)).collect()
    }

    /// What the cache of these repositories lists, by whichever options; of all of them where none is named.
    async fn search(
        &self,
        options: &[String],
        ids: &[String],
        package: &str,
    ) -> Result<Vec<(KubeVersion, String)>, HostError> {
        Ok(offered(&self.answer(options, ids, package).await?))
    }

    async fn answer(&self, options: &[String], ids: &[String], package: &str) -> Result<String, HostError> {
        let words = ["--non-interactive", "--xmlout", "--no-refresh"].map(str::to_owned).into_iter();
        let words = words.chain(options.iter().cloned());
        let words = words.chain(["search", "--details", "--match-exact", "--type", "package"].map(str::to_owned));
        let words = words.chain(ids.iter().flat_map(|id| ["--repo".to_owned(), id.clone()]));
        let search = Program::asking("zypper", words.chain([package.to_owned()])).with(&self.host.settings.proxies);
        match past_lock(search, &LOCKED, LOCK_AGAIN, QUESTION_LOCK_SECONDS_MAX).await {
            Ok(finished) => Ok(finished.stdout),
            Err(ProgramError::Failed { code: Some(EXIT_SKIPPED), stdout, .. }) => Ok(stdout),
            Err(ProgramError::Failed { code: Some(EXIT_NOT_FOUND), .. }) => Ok(String::new()),
            Err(error) => Err(failure::program(&error, &MEANINGS, "PackageUnknown")),
        }
    }

    /// Locks whose packages cannot be told from their text.
    async fn ask_for_locks(&self) -> Result<String, HostError> {
        let words = ["--non-interactive", "--xmlout", "--no-refresh", "locks", "--solvables"];
        let locks = Program::asking("zypper", words).with(&self.host.settings.proxies);
        match past_lock(locks, &LOCKED, LOCK_AGAIN, QUESTION_LOCK_SECONDS_MAX).await {
            Ok(finished) => Ok(finished.stdout),
            Err(ProgramError::Failed { code: Some(EXIT_SKIPPED), stdout, .. }) => Ok(stdout),
            Err(error) => Err(failure::program(&error, &MEANINGS, "PackageUnknown")),
        }
    }

    async fn change(&self, options: &[&str], wanted: Vec<&Wanted>) -> Result<(), HostError> {
        if wanted.is_empty() {
            return Ok(());
        }
        let always =
            ["--no-refresh", "install", "--no-recommends", "--auto-agree-with-licenses", "--download", "in-advance"];
        let words = always.iter().chain(options).map(|word| (*word).to_owned());
        let specs = wanted.into_iter().map(|wanted| format!("{}={}", wanted.name, wanted.exact));
        let install = self.doing(INSTALL_LIMIT, words.chain(specs).collect());
        match past_lock(install, &LOCKED, LOCK_AGAIN, LOCK_SECONDS_MAX).await {
            Ok(_) => Ok(()),
            Err(ProgramError::Failed { code: Some(code), .. }) if EXIT_DONE.contains(&code) => Ok(()),
            Err(error) => Err(failure::program(&error, &MEANINGS, "PackageInstallFailed")),
        }
    }
}

#[async_trait]
impl Manager for Zypper<'_> {
    fn name(&self) -> &'static str {
        "zypper"
    }

    fn database(&self) -> &'static str {
        "rpm"
    }

    async fn repair(&self) -> Result<(), HostError> {
        rpm::repair().await
    }

    async fn find(&self, package: &str) -> Result<Found, HostError> {
        let versions = rpm::query(package).await?;
        let held = ZyppLocks.holds(&text_of(&self.locks())?, package, "");
        Ok(rpm::found(&versions, held))
    }

    async fn is_intact(&self, package: &str) -> Result<bool, HostError> {
        rpm::is_intact(package).await
    }

    async fn offered(&self, package: &str) -> Result<Vec<(KubeVersion, String)>, HostError> {
        let ids = Self::ids(&self.sources());
        if ids.is_empty() { Ok(Vec::new()) } else { self.search(&[], &ids, package).await }
    }

    /// What lies there may be of another transaction that goes on: an install of ours clears it away once it is done.
    async fn finish_interrupted(&self, _: &[&str]) -> Result<(), HostError> {
        Ok(())
    }

    /// Installing a version, also anew, removes every other version of that name: also the one that an interrupted upgrade left.
    async fn install(&self, packages: &[Package], wanted: &[Wanted]) -> Result<(), HostError> {
        let names: Vec<&str> = packages.iter().map(|package| package.as_str()).collect();
        let left_over = rpm::left_over_before(self.host.files(), &names).await;
        self.host.take_locks(&self.locks(), &ZyppLocks, &names)?;
        let (present, absent): (Vec<_>, Vec<_>) = wanted.iter().partition(|wanted| wanted.is_present);
        self.change(&[], absent).await?;
        // Of a version that is there already nothing else would be done; another one is never put over it.
        self.change(&["--force"], present).await?;
        if wanted.is_empty() { Ok(()) } else { rpm::remove(&left_over) }
    }

    async fn hold(&self, packages: &[Package]) -> Result<(), HostError> {
        let file = self.locks();
        self.host.put_locks_back(&file, &ZyppLocks, &BTreeMap::new())?;
        let before = text_of(&file)?;
        let mut text = before.clone();
        for package in packages {
            let name = package.as_str();
            let state = self.find(name).await?.state;
            if state.version.is_some() && !state.held {
                text = ZyppLocks.put_back(&text, name, None, &[lock_of(name)]);
            }
        }
        if text == before { Ok(()) } else { write_locks(&file, &text) }
    }

    async fn offered_anywhere(&self, package: &str) -> Result<Vec<PackageVersion>, HostError> {
        let xml = self.answer(&[], &[], package).await?;
        Ok(editions(&xml).filter_map(|edition| edition.parse().ok()).collect())
    }

    async fn refresh_all(&self) -> Result<(), HostError> {
        let refresh = self.doing(REFRESH_LIMIT, vec!["refresh".to_owned()]);
        match past_lock(refresh, &LOCKED, LOCK_AGAIN, LOCK_SECONDS_MAX).await {
            Err(error) if !error.last_lines().contains(SOME_REFRESHED) => {
                Err(failure::program(&error, &MEANINGS, "RepositoryUnreachable"))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    async fn install_from_anywhere(&self, wanted: &Wanted) -> Result<(), HostError> {
        self.host.take_locks(&self.locks(), &ZyppLocks, &[wanted.name])?;
        let left_over = rpm::left_over_before(self.host.files(), &[wanted.name]).await;
        let options: &[&str] = if wanted.is_present { &["--force"] } else { &[] };
        self.change(options, vec![wanted]).await?;
        rpm::remove(&left_over)
    }

    fn owes_hold(&self, package: &str) -> bool {
        self.host.owes_locks(package)
    }

    async fn give_back_holds(&self) -> Result<(), HostError> {
        self.host.put_locks_back(&self.locks(), &ZyppLocks, &BTreeMap::new())
    }

    async fn holds_of(&self, package: &str, part: Part) -> Result<Vec<PackageHold>, HostError> {
        let text = text_of(&self.locks())?;
        // A lock that is taken off for one of ours is off for all that it names.
        let of_ours = Package::ALL.iter().flat_map(|ours| ZyppLocks.keeps(&text, ours.as_str()));
        let off: BTreeSet<String> = of_ours.map(|kept| kept.by).collect();
        let mut kept = ZyppLocks.keeps(&text, package);
        if has_riddles(&text) {
            kept.extend(riddles(&self.ask_for_locks().await?, &text, package));
        }
        let hold = |kept: Kept| {
            let goes_along = kept.effect == HoldEffect::Lifted && off.contains(&kept.by);
            kept.hold(package, if goes_along { Part::Itself } else { part })
        };
        Ok(kept.into_iter().map(hold).collect())
    }

    fn sources(&self) -> Vec<SourceFile> {
        let paths = self.host.files().entries(REPOSITORIES).into_iter();
        paths.filter_map(|path| SourceFile::read(path, &[Form::Sections])).collect()
    }

    fn where_sources_are(&self) -> &'static str {
        "/etc/zypp/repos.d"
    }

    async fn refresh(&self, sources: &[SourceFile]) -> Result<(), HostError> {
        let words = ["refresh", "--force"].map(str::to_owned).into_iter().chain(Self::ids(sources));
        let refresh = self.doing(REFRESH_LIMIT, words.collect());
        let refreshed = past_lock(refresh, &LOCKED, LOCK_AGAIN, LOCK_SECONDS_MAX).await;
        refreshed.map(drop).map_err(|error| failure::program(&error, &MEANINGS, "RepositoryUnreachable"))
    }

    /// In a root of its own: zypper takes its lock for a mere question, too. Nothing is installed from there, so that no key is asked
    /// for.
    async fn look_at(&self, sources: &[SourceFile], minor: MinorVersion) -> Result<Vec<KubeVersion>, HostError> {
        let folder = self.host.settings.state.join("next-minor");
        let aside = sources_aside(&folder, sources, minor)?;
        let (root, repositories) = (folder.join("root").display().to_string(), aside.display().to_string());
        let options = ["--root", &root, "--reposd-dir", &repositories, "--no-gpg-checks"].map(str::to_owned);
        let ids = Self::ids(sources);
        let words = options.iter().cloned().chain(["refresh", "--force"].map(str::to_owned)).chain(ids.iter().cloned());
        let refreshed = self.doing(LOOK_LIMIT, words.collect()).run().await;
        refreshed.map_err(|error| failure::program(&error, &MEANINGS, "RepositoryUnreachable"))?;
        let kubeadms = self.search(&options, &ids, "kubeadm").await?;
        Ok(both_of(minor, kubeadms, &self.search(&options, &ids, "kubelet").await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_zyppers_own_answer() {
        let xml = "<?xml version='1.0'?>
<stream>
<message type=\"info\">Loading repository data...</message>
<search-result version=\"0.0\">
<solvable-list>
<solvable status=\"installed\" name=\"kubeadm\" kind=\"package\" edition=\"1.33.13-150500.1.1\" arch=\"x86_64\" repository=\"(System Packages)\"/>
<solvable status=\"other-version\" name=\"kubeadm\" kind=\"package\" edition=\"1.34.4-150500.1.1\" arch=\"x86_64\" repository=\"Kubernetes\"/>
<solvable status=\"other-version\" name=\"kubeadm\" kind=\"package\" edition=\"1.34.10-150500.1.1\" arch=\"x86_64\" repository=\"Kubernetes\"/>
<solvable status=\"other-version\" name=\"kubeadm\" kind=\"srcpackage\" edition=\"1.34.11-150500.1.1\" arch=\"noarch\" repository=\"Kubernetes\"/>
</solvable-list>
</search-result>
</stream>
";
        let exact: Vec<String> = offered(xml).into_iter().map(|(_, exact)| exact).collect();
        assert_eq!(exact, ["1.34.10-150500.1.1", "1.34.4-150500.1.1"]);
        assert!(offered("").is_empty());
    }

    #[test]
    fn failures_of_zypper_are_told_apart_by_their_last_lines_and_its_lock_by_its_status_too() {
        let failed = |status: i32, last_lines: &str| ProgramError::Failed {
            command: "zypper".to_owned(),
            status: format!("exit status: {status}"),
            code: Some(status),
            last_lines: last_lines.to_owned(),
            stdout: String::new(),
        };
        for (last_lines, expected) in [
            ("System management is locked by the application with pid 17222 (/usr/bin/zypper).", "PackageLockHeld"),
            (
                "Valid metadata not found at specified URL | - [kubernetes|http://m/] Repository type can't be determined.",
                "RepositoryMissing",
            ),
            (
                "Valid metadata not found at specified URL | - Download (curl) error for 'http://m/content': | Error code: Connection failed",
                "RepositoryUnreachable",
            ),
            (
                "Valid metadata not found at specified URL | - Signature verification failed for repomd.xml | - Can't provide /repodata/repomd.xml",
                "RepositoryNotTrusted",
            ),
            (
                "remove lock to allow installation of kubelet-1.34.4-1 | Choose from above solutions by number or cancel [1/2/c/d/?] (c): c",
                "PackageHidden",
            ),
            (
                "nothing provides conntrack | Choose from above solutions by number or cancel [1/2/c/d/?] (c): c",
                "UnmetDependencies",
            ),
        ] {
            let error = failure::program(&failed(4, last_lines), &MEANINGS, "Otherwise");
            assert!(error.to_string().starts_with(&format!("{expected}: ")), "{error}");
        }
        assert!(LOCKED.says(&failed(EXIT_LOCKED, "")) && !LOCKED.says(&failed(4, "")));
    }
}
