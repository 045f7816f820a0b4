//! dnf, 4 and 5: [`Manager`] of Fedora, RHEL and its like, Amazon Linux 2023.
//!
//! Packages count as held where `exclude=` of every Kubernetes repository hides them, or that of dnf's main section, or a lock of
//! versionlock keeps them at their version. Excludes stay where they are: an install lifts them for itself. Locks are taken off for
//! it, and put back. What nothing holds gets the `exclude=` that the documentation of Kubernetes tells people to write.
//!
//! containerd comes from whichever repository has it. Excludes of others may be how an administrator chose between two, so they are
//! lifted only where they hide all there is of it.

use super::dnf_locks::{VersionlockList, VersionlockToml};
use super::dnf_words::{LOCKED, MEANINGS};
use super::holds::{cut_pattern, hold};
use super::remembered::{Locks, text_of};
use super::repository::sources_aside;
use super::rpm;
use super::sources::{Form, SourceFile};
use super::{
    Found, INSTALL_LIMIT, LOCK_AGAIN, LOCK_SECONDS_MAX, LOOK_LIMIT, Manager, Part, QUESTION_LOCK_SECONDS_MAX,
    REFRESH_LIMIT, Wanted, both_of, newest_first, past_lock, repo_files,
};
use crate::real::RealHost;
use crate::real::failure;
use crate::real::program::{Program, ProgramError};
use async_trait::async_trait;
use cupcake_crds::node_task::{HoldEffect, PackageHold};
use cupcake_crds::values::{KubeVersion, MinorVersion, PackageVersion};
use cupcake_steps::ports::host::{HostError, Package};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const REPOSITORIES: &str = "/etc/yum.repos.d";
const CONFIGURATION: &str = "/etc/dnf/dnf.conf";
const VERSIONLOCK: &str = "/etc/dnf/plugins/versionlock.conf";
const VERSIONLOCK_OF_5: &str = "/etc/dnf/versionlock.toml";

/// What a query is to tell of each package that is offered.
const FORMAT: &str = "%{epoch}:%{version}-%{release}|%{arch}\\n";
/// The same with its name: what is asked for may be found by what it provides.
const FORMAT_WITH_NAME: &str = "%{name}|%{epoch}:%{version}-%{release}|%{arch}\\n";
/// Of other repositories what was fetched before is enough, and one that is away is left out.
const AS_FETCHED: [&str; 2] = ["--setopt=*.metadata_expire=-1", "--setopt=*.skip_if_unavailable=True"];

/// Which dnf: they differ in options and in where their locks stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Generation {
    Four,
    Five,
}

pub(super) struct Dnf<'h> {
    host: &'h RealHost,
    program: &'static str,
    generation: Generation,
}

/// The whole version in what [`FORMAT`] tells of a package that is no source, without the epoch that is left out where there is none.
fn exact(told: &str) -> Option<&str> {
    let (evr, arch) = told.split_once('|')?;
    let exact = evr.strip_prefix("0:").unwrap_or(evr);
    (!matches!(arch, "src" | "nosrc")).then_some(exact)
}

/// Versions in lines of [`FORMAT`], newest first.
fn offered(text: &str) -> Vec<(KubeVersion, String)> {
    newest_first(text.lines().filter_map(|line| {
        let exact = exact(line.trim())?;
        let version = exact.split_once(':').map_or(exact, |(_, version)| version);
        Some((version.parse().ok()?, exact.to_owned()))
    }))
}

/// Versions of that package in lines of [`FORMAT_WITH_NAME`].
fn offered_of(package: &str, text: &str) -> Vec<PackageVersion> {
    let lines = text.lines().filter_map(|line| line.trim().split_once('|'));
    let of_it = lines.filter(|(name, _)| *name == package);
    of_it.filter_map(|(_, told)| exact(told)?.parse().ok()).collect()
}

/// The file of locks that the plugin of dnf 4 reads; `None` where it is turned off.
fn locklist(configuration: &str) -> Option<&str> {
    let values = configuration.lines().filter_map(|line| line.split_once('='));
    let last =
        |name: &str| values.clone().filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim()).next_back();
    let enabled =
        last("enabled").is_none_or(|value| !matches!(value.to_ascii_lowercase().as_str(), "0" | "no" | "false"));
    last("locklist").filter(|_| enabled)
}

impl<'h> Dnf<'h> {
    pub(super) fn of(host: &'h RealHost, program: &'static str, generation: Generation) -> Self {
        Self { host, program, generation }
    }

    fn asking(&self, arguments: Vec<String>) -> Program {
        Program::asking(self.program, self.always().into_iter().chain(arguments)).with(&self.host.settings.proxies)
    }

    fn doing(&self, limit: Duration, arguments: Vec<String>) -> Program {
        let arguments = self.always().into_iter().chain(arguments);
        Program::doing(self.program, limit, arguments).with(&self.host.settings.proxies)
    }

    fn always(&self) -> Vec<String> {
        let mut arguments = vec!["--assumeyes".to_owned()];
        if self.generation == Generation::Four {
            arguments.push("--setopt=exit_on_lock=True".to_owned());
        }
        arguments
    }

    fn ids(sources: &[SourceFile]) -> Vec<String> {
        sources.iter().flat_map(|file| repo_files::ids(&file.text)).collect()
    }

    /// Lifts the excludes of these repositories for one call, and those of dnf's main section where they hide what is ours.
    fn without_excludes(&self, ids: &[String]) -> Vec<String> {
        let hides = Package::ALL.iter().any(|package| self.main_excludes(package.as_str()));
        self.lifting(ids.iter().cloned().chain(hides.then(|| "main".to_owned())))
    }

    /// Lifts the excludes of those places for one call: ids of repositories, or `main`.
    fn lifting(&self, places: impl Iterator<Item = String>) -> Vec<String> {
        match self.generation {
            Generation::Four => places.map(|place| format!("--disableexcludes={place}")).collect(),
            Generation::Five => {
                let places: Vec<_> = places.collect();
                let lift = || format!("--setopt=disable_excludes={}", places.join(","));
                (!places.is_empty()).then(lift).into_iter().collect()
            }
        }
    }

    fn main_excludes(&self, package: &str) -> bool {
        self.host.files().text(CONFIGURATION).is_some_and(|text| repo_files::main_excludes(&text, package))
    }

    /// Where a package is hidden by its name: ids of whichever repositories in use, and `main`.
    fn hidden_in(&self, package: &str) -> Vec<String> {
        let paths = self.host.files().entries(REPOSITORIES).into_iter();
        let files = paths.filter(|path| path.extension().is_some_and(|ending| ending == "repo"));
        let texts = files.filter_map(|path| fs::read_to_string(path).ok());
        let ids = texts.flat_map(|text| repo_files::excluding(&text, package));
        ids.chain(self.main_excludes(package).then(|| "main".to_owned())).collect()
    }

    /// What any repository has of a package, and what has to be lifted for it to be seen.
    async fn anywhere(&self, package: &str) -> Result<(Vec<PackageVersion>, Vec<String>), HostError> {
        let found = self.ask_anywhere(Vec::new(), package).await?;
        let hidden = self.hidden_in(package);
        if !found.is_empty() || hidden.is_empty() {
            return Ok((found, Vec::new()));
        }
        let lift = self.lifting(hidden.into_iter());
        Ok((self.ask_anywhere(lift.clone(), package).await?, lift))
    }

    async fn ask_anywhere(&self, lift: Vec<String>, package: &str) -> Result<Vec<PackageVersion>, HostError> {
        let words = ["--quiet", "--cacheonly", AS_FETCHED[1]].map(str::to_owned).into_iter().chain(lift);
        let words = words.chain(["repoquery", "--queryformat", FORMAT_WITH_NAME, package].map(str::to_owned));
        let asked = past_lock(self.asking(words.collect()), &LOCKED, LOCK_AGAIN, QUESTION_LOCK_SECONDS_MAX).await;
        match asked {
            Ok(finished) => Ok(offered_of(package, &finished.stdout)),
            Err(ProgramError::Failed { last_lines, .. }) if last_lines.contains("no cache for") => Ok(Vec::new()),
            Err(error) => Err(failure::program(&error, &MEANINGS, "PackageUnknown")),
        }
    }

    async fn put_locks_back(&self) -> Result<(), HostError> {
        let Some((file, locks)) = self.locks() else {
            return self.host.nowhere_to_put_locks_back("the plugin versionlock of dnf", VERSIONLOCK);
        };
        let mut installed = BTreeMap::new();
        for package in self.host.packages_without_their_locks()? {
            if let Some(newest) = rpm::query(&package).await?.last() {
                installed.insert(package, newest.evr());
            }
        }
        self.host.put_locks_back(&file, locks, &installed)
    }

    fn only(ids: &[String]) -> impl Iterator<Item = String> + '_ {
        ids.iter().map(|id| format!("--repo={id}"))
    }

    /// The file of locks that is in use, and how it is read.
    fn locks(&self) -> Option<(PathBuf, &'static dyn Locks)> {
        match self.generation {
            Generation::Four => {
                let configuration = self.host.files().text(VERSIONLOCK)?;
                Some((self.host.files().path(locklist(&configuration)?), &VersionlockList))
            }
            Generation::Five => Some((self.host.files().path(VERSIONLOCK_OF_5), &VersionlockToml)),
        }
    }

    fn is_held(&self, package: &str, sources: &[SourceFile], evr: Option<&str>) -> Result<bool, HostError> {
        let hidden = !sources.is_empty() && sources.iter().all(|file| repo_files::excludes(&file.text, package));
        if hidden || self.main_excludes(package) {
            return Ok(true);
        }
        let (Some(evr), Some((file, locks))) = (evr, self.locks()) else { return Ok(false) };
        Ok(locks.holds(&text_of(&file)?, package, evr))
    }

    /// Asks repositories of which a cache is there already, by whichever options.
    async fn query(&self, options: Vec<String>, package: &str) -> Result<Vec<(KubeVersion, String)>, HostError> {
        let words = ["--quiet", "--cacheonly"].map(str::to_owned).into_iter().chain(options);
        let words = words.chain(["repoquery", "--queryformat", FORMAT, package].map(str::to_owned));
        let query = self.asking(words.collect());
        match past_lock(query, &LOCKED, LOCK_AGAIN, QUESTION_LOCK_SECONDS_MAX).await {
            Ok(finished) => Ok(offered(&finished.stdout)),
            // Nobody refreshed it since it was set.
            Err(ProgramError::Failed { last_lines, .. }) if last_lines.contains("no cache for") => Ok(Vec::new()),
            Err(error) => Err(failure::program(&error, &MEANINGS, "PackageUnknown")),
        }
    }

    /// Runs a command for these packages; repositories of `ids` have to answer if they are needed.
    async fn change(
        &self,
        command: &str,
        mut options: Vec<String>,
        ids: &[String],
        specs: Vec<String>,
    ) -> Result<(), HostError> {
        if specs.is_empty() {
            return Ok(());
        }
        options.push("--setopt=install_weak_deps=False".to_owned());
        options.extend(AS_FETCHED.map(str::to_owned));
        options.extend(ids.iter().map(|id| format!("--setopt={id}.skip_if_unavailable=False")));
        options.push(command.to_owned());
        options.extend(specs);
        let changed = past_lock(self.doing(INSTALL_LIMIT, options), &LOCKED, LOCK_AGAIN, LOCK_SECONDS_MAX).await;
        changed.map(drop).map_err(|error| failure::program(&error, &MEANINGS, "PackageInstallFailed"))
    }
}

#[async_trait]
impl Manager for Dnf<'_> {
    fn name(&self) -> &'static str {
        match self.generation {
            Generation::Four => "dnf",
            Generation::Five => "dnf5",
        }
    }

    fn database(&self) -> &'static str {
        "rpm"
    }

    async fn repair(&self) -> Result<(), HostError> {
        rpm::repair().await
    }

    async fn find(&self, package: &str) -> Result<Found, HostError> {
        let versions = rpm::query(package).await?;
        let evr = versions.last().map(rpm::Installed::evr);
        let held = self.is_held(package, &self.sources(), evr.as_deref())?;
        Ok(rpm::found(&versions, held))
    }

    async fn is_intact(&self, package: &str) -> Result<bool, HostError> {
        rpm::is_intact(package).await
    }

    async fn offered(&self, package: &str) -> Result<Vec<(KubeVersion, String)>, HostError> {
        let ids = Self::ids(&self.sources());
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let options = self.without_excludes(&ids).into_iter().chain(Self::only(&ids)).collect();
        self.query(options, package).await
    }

    /// What lies there may be of another transaction that goes on: an install of ours clears it away once it is done.
    async fn finish_interrupted(&self, _: &[&str]) -> Result<(), HostError> {
        Ok(())
    }

    /// Installing a version, also anew, removes every other version of that name: also the one that an interrupted upgrade left.
    async fn install(&self, packages: &[Package], wanted: &[Wanted]) -> Result<(), HostError> {
        let names: Vec<&str> = packages.iter().map(|package| package.as_str()).collect();
        let left_over = rpm::left_over_before(self.host.files(), &names).await;
        if let Some((file, locks)) = self.locks() {
            self.host.take_locks(&file, locks, &names)?;
        }
        let ids = Self::ids(&self.sources());
        let (present, absent): (Vec<_>, Vec<_>) = wanted.iter().partition(|wanted| wanted.is_present);
        let specs = |wanted: Vec<&Wanted>| wanted.iter().map(|one| format!("{}-{}", one.name, one.exact)).collect();
        let lift = self.without_excludes(&ids);
        self.change("install", lift.clone(), &ids, specs(absent)).await?;
        self.change("reinstall", lift, &ids, specs(present)).await?;
        if wanted.is_empty() { Ok(()) } else { rpm::remove(&left_over) }
    }

    async fn hold(&self, packages: &[Package]) -> Result<(), HostError> {
        self.put_locks_back().await?;
        let mut loose = Vec::new();
        for package in packages {
            let state = self.find(package.as_str()).await?.state;
            if state.version.is_some() && !state.held {
                loose.push(package.as_str());
            }
        }
        if loose.is_empty() {
            return Ok(());
        }
        for file in self.sources() {
            let text = repo_files::with_excludes(&file.text, &loose);
            if text != file.text {
                self.host.rewrite_source(&file, &text)?;
                tracing::info!(file = %file.path.display(), packages = loose.join(" "), "held by exclude=");
            }
        }
        Ok(())
    }

    async fn offered_anywhere(&self, package: &str) -> Result<Vec<PackageVersion>, HostError> {
        Ok(self.anywhere(package).await?.0)
    }

    async fn refresh_all(&self) -> Result<(), HostError> {
        let words = [AS_FETCHED[1], "--refresh", "makecache"].map(str::to_owned).to_vec();
        let refreshed = past_lock(self.doing(REFRESH_LIMIT, words), &LOCKED, LOCK_AGAIN, LOCK_SECONDS_MAX).await;
        refreshed.map(drop).map_err(|error| failure::program(&error, &MEANINGS, "RepositoryUnreachable"))
    }

    async fn install_from_anywhere(&self, wanted: &Wanted) -> Result<(), HostError> {
        let (_, lift) = self.anywhere(wanted.name).await?;
        let left_over = rpm::left_over_before(self.host.files(), &[wanted.name]).await;
        if let Some((file, locks)) = self.locks() {
            self.host.take_locks(&file, locks, &[wanted.name])?;
        }
        let command = if wanted.is_present { "reinstall" } else { "install" };
        self.change(command, lift, &[], vec![format!("{}-{}", wanted.name, wanted.exact)]).await?;
        rpm::remove(&left_over)
    }

    fn owes_hold(&self, package: &str) -> bool {
        self.host.owes_locks(package)
    }

    async fn give_back_holds(&self) -> Result<(), HostError> {
        self.put_locks_back().await
    }

    async fn holds_of(&self, package: &str, part: Part) -> Result<Vec<PackageHold>, HostError> {
        let main = self.host.files().text(CONFIGURATION).unwrap_or_default();
        // Of Kubernetes repositories only those hide anything that could be installed from there.
        let of_kubernetes = Self::ids(&self.sources());
        let is_ours = Package::ALL.iter().any(|ours| ours.as_str() == package) || part == Part::Needed;
        let hidden = self.hidden_in(package).into_iter().filter(|place| !is_ours || of_kubernetes.contains(place));
        let mut holds: Vec<PackageHold> = hidden
            .filter(|place| place != "main")
            .map(|place| hold(package, &format!("exclude= of [{place}]"), HoldEffect::Lifted, None))
            .collect();
        if repo_files::main_excludes(&main, package) {
            let lifted = part == Part::Itself || Package::ALL.iter().any(|ours| self.main_excludes(ours.as_str()));
            let effect = if lifted { HoldEffect::Lifted } else { HoldEffect::Keeps };
            holds.push(hold(package, &format!("exclude= of {CONFIGURATION}"), effect, None));
        }
        for versions in repo_files::main_excluded_versions(&main, package) {
            let by = format!("exclude={package}-{versions} of {CONFIGURATION}");
            holds.push(hold(package, &by, HoldEffect::Hides, Some(cut_pattern(versions))));
        }
        if let Some((file, locks)) = self.locks() {
            holds.extend(locks.keeps(&text_of(&file)?, package).into_iter().map(|kept| kept.hold(package, part)));
        }
        Ok(holds)
    }

    fn sources(&self) -> Vec<SourceFile> {
        let paths = self.host.files().entries(REPOSITORIES).into_iter();
        paths.filter_map(|path| SourceFile::read(path, &[Form::Sections])).collect()
    }

    fn where_sources_are(&self) -> &'static str {
        "/etc/yum.repos.d"
    }

    async fn refresh(&self, sources: &[SourceFile]) -> Result<(), HostError> {
        let ids = Self::ids(sources);
        let mut arguments: Vec<String> = Self::only(&ids).collect();
        arguments.extend(ids.iter().map(|id| format!("--setopt={id}.skip_if_unavailable=False")));
        arguments.extend(["--refresh", "makecache"].map(str::to_owned));
        let refresh = self.doing(REFRESH_LIMIT, arguments);
        let refreshed = past_lock(refresh, &LOCKED, LOCK_AGAIN, LOCK_SECONDS_MAX).await;
        refreshed.map(drop).map_err(|error| failure::program(&error, &MEANINGS, "RepositoryUnreachable"))
    }

    /// None of dnf's plugins run, and no lock of the machine's is taken.
    async fn look_at(&self, sources: &[SourceFile], minor: MinorVersion) -> Result<Vec<KubeVersion>, HostError> {
        let folder = self.host.settings.state.join("next-minor");
        let aside = sources_aside(&folder, sources, minor)?;
        let ids = Self::ids(sources);
        let mut options = vec![format!("--setopt=reposdir={}", aside.display()), "--setopt=plugins=False".to_owned()];
        for (setting, name) in [("cachedir", "cache"), ("persistdir", "persist"), ("logdir", "log")] {
            let path = folder.join(name);
            fs::create_dir_all(&path).map_err(|error| failure::file("making", &path, &error))?;
            options.push(format!("--setopt={setting}={}", path.display()));
        }
        options.extend(ids.iter().map(|id| format!("--setopt={id}.skip_if_unavailable=False")));
        options.extend(self.without_excludes(&ids));
        options.extend(Self::only(&ids));
        let arguments = options.iter().cloned().chain(["--refresh", "makecache"].map(str::to_owned)).collect();
        let made = self.doing(LOOK_LIMIT, arguments).run().await;
        made.map_err(|error| failure::program(&error, &MEANINGS, "RepositoryUnreachable"))?;
        let kubeadms = self.query(options.clone(), "kubeadm").await?;
        Ok(both_of(minor, kubeadms, &self.query(options, "kubelet").await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::test_folder::TestFolder;
    use crate::real::tests::host_in;
    use cupcake_steps::ports::host::{HostOps, PackageState};

    const SOURCE: &str = "/etc/yum.repos.d/kubernetes.repo";
    const REPOSITORY: &str = "[kubernetes]\nbaseurl=https://pkgs.k8s.io/core:/stable:/v1.34/rpm/\n";

    /// rpm of a machine whose one version of everything stands in a file.
    const RPM: &str = "read found <$here/version
        case \"$1 $2\" in '--query --queryformat') printf '0\\t%s\\n' $found;; esac";

    /// A machine of dnf 5 with kubelet 1.33.13, held by a lock alone, and what its dnf does besides answering.
    fn fedora(name: &str, install: &str) -> TestFolder {
        let folder = TestFolder::new(name);
        folder.write("/etc/os-release", "ID=fedora\n");
        folder.write("/usr/bin/dnf5", "");
        std::os::unix::fs::symlink("dnf5", folder.path("/usr/bin/dnf")).expect("linked");
        folder.write(SOURCE, REPOSITORY);
        let lock = VersionlockToml.put_back("", "kubelet", Some("0:1.33.13-150500.1.1"), &[]);
        folder.write(VERSIONLOCK_OF_5, lock);
        folder.write("version", "1.33.13-150500.1.1\n");
        let dnf = format!(
            "case \"$*\" in
            *repoquery*) printf '0:1.34.10-150500.1.1|x86_64\\n0:1.34.4-150500.1.1|x86_64\\n0:1.34.4-150500.1.1|src\\n';;
            *' install '*) {install};;
            esac"
        );
        folder.be_the_machine(&[("rpm", RPM), ("dnf", &dnf)]);
        folder
    }

    #[tokio::test]
    async fn dnf_5_is_called_with_its_own_options_and_its_locks_come_back() {
        // Once another process is at work, as dnf 5 says it; then nothing is locked while it installs.
        let install = "[ -e $here/free ] || { : >$here/free; /bin/cp \"$here/usr/bin/kubelet;6a1c0f2e\" $here/there; \
             echo 'Transaction failed: Failed to obtain rpm transaction lock. Another transaction is in progress.'; exit 1; }
             /bin/cp $here/etc/dnf/versionlock.toml $here/during; echo 1.34.4-150500.1.1 >$here/version";
        let folder = fedora("dnf5", install);
        folder.write("/usr/bin/kubelet;6a1c0f2e", "half of it");
        let host = host_in(&folder);
        let state = |version: &str| PackageState { version: Some(version.to_owned()), whole: true, held: true };
        assert_eq!(host.package(Package::Kubelet).await, Ok(state("1.33.13-150500.1.1")));
        folder.calls();
        host.install(&[Package::Kubelet], &KubeVersion::new(1, 34, 4)).await.expect("installed");
        assert_eq!(host.package(Package::Kubelet).await, Ok(state("1.34.4-150500.1.1")));
        let calls: Vec<_> = folder.calls().into_iter().filter(|call| call.starts_with("dnf ")).collect();
        let ask = "dnf --assumeyes --quiet --cacheonly --setopt=disable_excludes=kubernetes --repo=kubernetes repoquery --queryformat %{epoch}:%{version}-%{release}|%{arch}";
        let put = "dnf --assumeyes --setopt=disable_excludes=kubernetes --setopt=install_weak_deps=False --setopt=*.metadata_expire=-1 --setopt=*.skip_if_unavailable=True --setopt=kubernetes.skip_if_unavailable=False install kubelet-1.34.4-150500.1.1";
        // What follows the query's end of line stands in the next line of the calls.
        assert_eq!(calls, [ask, put, put]);
        assert!(!folder.read("during").contains("kubelet"), "the lock was off");
        assert_eq!(folder.read("there"), "half of it", "it may be of the one that was at work");
        assert!(!folder.path("/usr/bin/kubelet;6a1c0f2e").exists(), "whoever wrote it is done");
        assert!(VersionlockToml.holds(&folder.read(VERSIONLOCK_OF_5), "kubelet", "0:1.34.4-150500.1.1"));
        assert_eq!(folder.read(SOURCE), REPOSITORY, "a lock is enough");
    }

    #[tokio::test]
    async fn locks_that_a_killed_install_left_off_come_back_by_healing_alone() {
        let folder = fedora("dnf5-killed", "echo Killed; exit 137");
        let host = host_in(&folder);
        let lock = folder.read(VERSIONLOCK_OF_5);
        let dnf = Dnf::of(&host, "dnf", Generation::Five);
        let wanted = Wanted { name: "kubelet", exact: "1.34.4-1".to_owned(), is_present: false, reinstall: false };
        dnf.install(&[Package::Kubelet], &[wanted]).await.expect_err("killed");
        assert!(!folder.read(VERSIONLOCK_OF_5).contains("kubelet"));
        host.heal().await.expect("healed");
        assert_eq!(folder.read(VERSIONLOCK_OF_5), lock);
        let source = folder.read(SOURCE);
        assert_eq!(source, format!("{REPOSITORY}exclude=kubeadm kubectl\n"), "the others had no hold at all");
    }

    #[tokio::test]
    async fn locks_that_are_owed_to_a_plugin_which_is_off_by_now_name_it_and_its_file() {
        let folder = TestFolder::new("dnf-plugin-off");
        let on = "[main]\nenabled = 1\nlocklist = /etc/dnf/plugins/versionlock.list\n";
        folder.write(VERSIONLOCK, on);
        folder.write("/etc/dnf/plugins/versionlock.list", "kubelet-0:1.33.13-1.1.*\n");
        folder.write("version", "1.34.4-1.1\n");
        folder.be_the_machine(&[("rpm", RPM)]);
        let host = host_in(&folder);
        let dnf = Dnf::of(&host, "dnf", Generation::Four);
        let (file, locks) = dnf.locks().expect("it is on");
        host.take_locks(&file, locks, &["kubelet"]).expect("off");
        folder.write(VERSIONLOCK, on.replace("enabled = 1", "enabled = 0"));
        let told = dnf.give_back_holds().await.expect_err("nowhere");
        assert!(matches!(told, HostError::NeedsOperator(_)), "trying again is no help: {told}");
        let told = told.to_string();
        assert!(told.contains("versionlock") && told.contains(VERSIONLOCK) && told.contains("kubelet"), "{told}");
        folder.write(VERSIONLOCK, on);
        dnf.give_back_holds().await.expect("back");
        assert_eq!(folder.read("/etc/dnf/plugins/versionlock.list"), "kubelet-0:1.34.4-1.1.*\n");
        folder.write(VERSIONLOCK, "[main]\nenabled = 0\n");
        dnf.give_back_holds().await.expect("nothing is owed");
    }

    #[tokio::test]
    async fn excludes_of_the_main_section_are_lifted_only_where_they_hide_what_is_installed() {
        let folder = TestFolder::new("dnf-main");
        folder.write(CONFIGURATION, "[main]\nexclude=kernel*\n");
        let host = host_in(&folder);
        let lifted = |generation| Dnf::of(&host, "dnf", generation).without_excludes(&["k".to_owned()]);
        assert_eq!(lifted(Generation::Four), ["--disableexcludes=k"]);
        folder.write(CONFIGURATION, "[main]\nexcludepkgs=kernel*, kube*\n");
        assert_eq!(lifted(Generation::Four), ["--disableexcludes=k", "--disableexcludes=main"]);
        assert_eq!(lifted(Generation::Five), ["--setopt=disable_excludes=k,main"]);
    }

    #[test]
    fn a_list_of_locks_counts_where_its_plugin_is_on() {
        let list = Some("/etc/dnf/plugins/versionlock.list");
        let on = "[main]\nenabled = 1\nlocklist = /etc/dnf/plugins/versionlock.list\n";
        assert_eq!(locklist(on), list);
        assert_eq!(locklist(&on.replace("enabled = 1\n", "")), list);
        assert_eq!(locklist(&on.replace('1', "0")), None);
        assert_eq!(locklist("[main]\n"), None);
    }
}
