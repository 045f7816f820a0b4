//! dnf, 4 and 5: [`Manager`] of Fedora, RHEL and its like, Amazon Linux 2023.
//!
//! Packages count as held where `exclude=` of every Kubernetes repository hides them, or that of dnf's main section, or a lock of
//! versionlock keeps them at their version. Excludes stay where they are: an install lifts them for itself. Locks are taken off for
//! it, and put back. What nothing holds gets the `exclude=` that the documentation of Kubernetes tells people to write.

use super::dnf_locks::{VersionlockList, VersionlockToml};
use super::dnf_words::{LOCKED, MEANINGS};
use super::remembered::{Locks, text_of};
use super::repository::sources_aside;
use super::rpm;
use super::sources::{Form, SourceFile};
use super::{
    Found, INSTALL_LIMIT, LOCK_AGAIN, LOCK_SECONDS_MAX, LOOK_LIMIT, Manager, QUESTION_LOCK_SECONDS_MAX, REFRESH_LIMIT,
    Wanted, both_of, newest_first, past_lock, repo_files,
};
use crate::real::RealHost;
use crate::real::failure;
use crate::real::program::{Program, ProgramError};
use async_trait::async_trait;
use cupcake_crds::values::{KubeVersion, MinorVersion};
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

/// Versions in lines of [`FORMAT`], newest first.
fn offered(text: &str) -> Vec<(KubeVersion, String)> {
    newest_first(text.lines().filter_map(|line| {
        let (evr, arch) = line.trim().split_once('|')?;
        let (_, version) = evr.split_once(':')?;
        let exact = evr.strip_prefix("0:").unwrap_or(evr);
        let is_source = matches!(arch, "src" | "nosrc");
        Some((version.parse().ok()?, exact.to_owned())).filter(|_| !is_source)
    }))
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
        let main = self.host.files().text(CONFIGURATION).unwrap_or_default();
        let hides = Package::ALL.iter().any(|package| repo_files::main_excludes(&main, package.as_str()));
        let places = ids.iter().map(String::as_str).chain(hides.then_some("main"));
        match self.generation {
            Generation::Four => places.map(|place| format!("--disableexcludes={place}")).collect(),
            Generation::Five => vec![format!("--setopt=disable_excludes={}", places.collect::<Vec<_>>().join(","))],
        }
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
        let main =
            || self.host.files().text(CONFIGURATION).is_some_and(|text| repo_files::main_excludes(&text, package));
        if hidden || main() {
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

    async fn change(&self, command: &str, ids: &[String], specs: Vec<String>) -> Result<(), HostError> {
        if specs.is_empty() {
            return Ok(());
        }
        let mut arguments = self.without_excludes(ids);
        arguments.push("--setopt=install_weak_deps=False".to_owned());
        // Of other repositories what was fetched before is enough, and one that is away is left out.
        arguments.extend(["--setopt=*.metadata_expire=-1", "--setopt=*.skip_if_unavailable=True"].map(str::to_owned));
        arguments.extend(ids.iter().map(|id| format!("--setopt={id}.skip_if_unavailable=False")));
        arguments.push(command.to_owned());
        arguments.extend(specs);
        let changed = past_lock(self.doing(INSTALL_LIMIT, arguments), &LOCKED, LOCK_AGAIN, LOCK_SECONDS_MAX).await;
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

    async fn finish_interrupted(&self, packages: &[Package]) -> Result<(), HostError> {
        rpm::remove_left_over(self.host.files(), packages)
    }

    /// Installing a version, also anew, removes every other version of that name: also the one that an interrupted upgrade left.
    async fn install(&self, packages: &[Package], wanted: &[Wanted]) -> Result<(), HostError> {
        let names: Vec<&str> = packages.iter().map(|package| package.as_str()).collect();
        if let Some((file, locks)) = self.locks() {
            self.host.take_locks(&file, locks, &names)?;
        }
        let ids = Self::ids(&self.sources());
        let (present, absent): (Vec<_>, Vec<_>) = wanted.iter().partition(|wanted| wanted.is_present);
        let specs = |wanted: Vec<&Wanted>| wanted.iter().map(|one| format!("{}-{}", one.name, one.exact)).collect();
        self.change("install", &ids, specs(absent)).await?;
        self.change("reinstall", &ids, specs(present)).await
    }

    async fn hold(&self, packages: &[Package]) -> Result<(), HostError> {
        if let Some((file, locks)) = self.locks() {
            let mut installed = BTreeMap::new();
            for package in self.host.packages_without_their_locks() {
                if let Some(newest) = rpm::query(&package).await?.last() {
                    installed.insert(package, newest.evr());
                }
            }
            self.host.put_locks_back(&file, locks, &installed)?;
        }
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
        let install = "[ -e $here/free ] || { : >$here/free; \
             echo 'Transaction failed: Failed to obtain rpm transaction lock. Another transaction is in progress.'; exit 1; }
             /bin/cp $here/etc/dnf/versionlock.toml $here/during; echo 1.34.4-150500.1.1 >$here/version";
        let folder = fedora("dnf5", install);
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
