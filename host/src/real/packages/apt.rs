//! apt and dpkg: [`Manager`] of Debian and Ubuntu.

use super::apt_words::{INSTALL, LOCKED, UPDATE};
use super::repository::sources_aside;
use super::sources::{Form, SourceFile};
use super::{
    Found, INSTALL_LIMIT, LOCK_AGAIN, LOCK_SECONDS_MAX, LOOK_LIMIT, Manager, Part, REFRESH_LIMIT, Wanted, both_of,
    newest_first, past_lock,
};
use crate::real::RealHost;
use crate::real::containerd::PACKAGES as OF_CONTAINERD;
use crate::real::failure::{self, needs_operator, transient};
use crate::real::os::write_whole;
use crate::real::program::{Program, ProgramError};
use async_trait::async_trait;
use cupcake_crds::node_task::{HoldEffect, PackageHold};
use cupcake_crds::values::{KubeVersion, MinorVersion, PackageVersion};
use cupcake_steps::ports::host::{HostError, Package, PackageState};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const MAIN: &str = "/etc/apt/sources.list";
const PARTS: &str = "/etc/apt/sources.list.d";
const CONFIGURE_LIMIT: Duration = Duration::from_secs(10 * 60);
const MARK_LIMIT: Duration = Duration::from_secs(60);

/// What dpkg-query is to tell: want, error flag, status, version.
const FORMAT: &str = "-f=${db:Status-Want}\\t${db:Status-Eflag}\\t${db:Status-Status}\\t${Version}\\n";

/// Keeps changed configuration files (containerd's above all) and never asks.
const KEEP_CONFIGURATION: [&str; 2] = ["--force-confdef", "--force-confold"];

/// Settings of apt under which an update of an index runs nothing beside it.
const WITHOUT_HOOKS: &str = "\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
";

/// Reads one line of [`FORMAT`]; empty text is a package that dpkg never heard of.
fn dpkg_state(text: &str) -> Option<Found> {
    let none = Found { state: PackageState { version: None, whole: false, held: false }, reinstall: false };
    let Some(line) = text.lines().next() else {
        return Some(none);
    };
    let fields: Vec<&str> = line.split('\t').collect();
    let [want, error, status, version] = fields.as_slice() else {
        return None;
    };
    let installed = !matches!(*status, "not-installed" | "config-files");
    let whole = *error == "ok" && matches!(*status, "installed" | "triggers-pending" | "triggers-awaited");
    let version = (installed && !version.is_empty()).then(|| (*version).to_owned());
    let state = PackageState { version, whole, held: *want == "hold" };
    Some(Found { state, reinstall: *error == "reinstreq" })
}

/// Whole versions of packages (not of their sources) that `apt-cache madison` lists.
fn listed(madison: &str) -> impl Iterator<Item = &str> {
    madison.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, version, source] = fields.as_slice() else { return None };
        source.ends_with("Packages").then_some(*version)
    })
}

/// Kubernetes versions that `apt-cache madison` lists with the whole version of their package, newest first.
fn offered(madison: &str) -> Vec<(KubeVersion, String)> {
    newest_first(listed(madison).filter_map(|version| Some((version.parse::<KubeVersion>().ok()?, version.to_owned()))))
}

/// Whether `apt-cache policy` lists a version of the package that preferences keep away: one of a priority below 0.
fn is_pinned_away(policy: &str) -> bool {
    let versions = policy.lines().skip_while(|line| line.trim() != "Version table:").skip(1);
    // ` *** 1.2.0-1.1 500` is the installed one; what follows it is older. Lines of sources stand deeper, with their own priority.
    let mut newer = versions.take_while(|line| !line.trim_start().starts_with("***"));
    newer.any(|line| {
        let mut words = line.split_whitespace();
        let (version, priority) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        version.starts_with(|c: char| c.is_ascii_digit()) && priority.parse::<i32>().is_ok_and(|priority| priority < 0)
    })
}

pub(super) struct Apt<'h> {
    host: &'h RealHost,
}

impl<'h> Apt<'h> {
    pub(super) fn of(host: &'h RealHost) -> Self {
        Self { host }
    }

    /// Where it is noted that the hold of containerd's package is off.
    fn hold_note(&self) -> PathBuf {
        self.host.settings.state.join("containerd-was-held")
    }

    /// The package whose hold was taken off for an install.
    fn unheld(&self) -> Option<&'static str> {
        let name = fs::read_to_string(self.hold_note()).ok()?;
        OF_CONTAINERD.into_iter().find(|package| *package == name.trim())
    }

    /// Variables for apt and dpkg: never a question, never a restart of services that were not named.
    fn environment(&self) -> BTreeMap<String, String> {
        let mut variables = self.host.settings.proxies.clone();
        for (name, value) in
            [("DEBIAN_FRONTEND", "noninteractive"), ("NEEDRESTART_SUSPEND", "1"), ("APT_LISTCHANGES_FRONTEND", "none")]
        {
            variables.insert(name.to_owned(), value.to_owned());
        }
        variables
    }

    async fn mark(&self, mark: &'static str, names: &[&str]) -> Result<(), HostError> {
        let arguments = std::iter::once(mark).chain(names.iter().copied());
        let program = Program::doing("apt-mark", MARK_LIMIT, arguments).with(&self.environment());
        let marked = past_lock(program, &LOCKED, LOCK_AGAIN, LOCK_SECONDS_MAX).await;
        marked.map(drop).map_err(|error| failure::program(&error, &INSTALL, "PackageHoldFailed"))
    }

    /// What `apt-cache madison` lists of a package.
    async fn madison(&self, package: &str) -> Result<String, HostError> {
        let finished = Program::asking("apt-cache", ["madison", package]).with(&self.environment()).run().await;
        finished.map(|finished| finished.stdout).map_err(|error| failure::program(&error, &[], "AptCacheFailed"))
    }

    /// Brings what an interrupted dpkg left to its end.
    async fn finish(&self, packages: &[&str]) -> Result<(), HostError> {
        let arguments = KEEP_CONFIGURATION.into_iter().chain(["--configure", "-a"]);
        let program = Program::doing("dpkg", CONFIGURE_LIMIT, arguments).with(&self.environment());
        let Err(error) = past_lock(program, &LOCKED, LOCK_AGAIN, LOCK_SECONDS_MAX).await else { return Ok(()) };
        if LOCKED.says(&error) {
            return Err(transient("PackageLockHeld", failure::chain(&error)));
        }
        // One that was killed while it was unpacked cannot be configured, only installed anew: which is what follows for those
        // that are to be installed, and for no other.
        for package in packages {
            if self.find(package).await?.reinstall {
                tracing::warn!(package, "half unpacked: it is installed anew");
                return Ok(());
            }
        }
        Err(match error {
            ProgramError::Failed { .. } => needs_operator(
                "PackagesBroken",
                format!(
                    "an interrupted package operation cannot be finished, repair it with dpkg --configure -a: {}",
                    failure::chain(&error)
                ),
            ),
            ProgramError::Missing { .. }
            | ProgramError::System { .. }
            | ProgramError::TimedOut { .. }
            | ProgramError::TooMuchOutput { .. } => failure::program(&error, &INSTALL, "PackageInstallFailed"),
        })
    }

    /// Installs exactly these words of apt, and releases the holds of those packages for it.
    async fn install_exactly(&self, names: &[&str], wanted: &[String], reinstall: bool) -> Result<(), HostError> {
        self.mark("unhold", names).await?;
        let lock = format!("DPkg::Lock::Timeout={LOCK_SECONDS_MAX}");
        let mut arguments = vec!["install", "--yes", "--no-install-recommends", "--no-remove"];
        if reinstall {
            arguments.push("--reinstall");
        }
        // Without a terminal of its own dpkg stays in apt's process group, and ends with it.
        arguments.extend(["-o", &lock, "-o", "Dpkg::Use-Pty=0", "-o", "APT::Get::allow-downgrades=false"]);
        let options = KEEP_CONFIGURATION.map(|option| format!("Dpkg::Options::={option}"));
        arguments.extend(options.iter().flat_map(|option| ["-o", option.as_str()]));
        arguments.extend(wanted.iter().map(String::as_str));
        let install = Program::doing("apt-get", INSTALL_LIMIT, arguments).with(&self.environment());
        install.run().await.map(drop).map_err(|error| failure::program(&error, &INSTALL, "PackageInstallFailed"))
    }

    async fn update(&self, limit: Duration, arguments: impl IntoIterator<Item = String>) -> Result<(), HostError> {
        let update = Program::doing("apt-get", limit, arguments).with(&self.environment());
        let finished =
            update.run().await.map_err(|error| failure::program(&error, &UPDATE, "RepositoryUnreachable"))?;
        // Releases of apt before 2.1 do not know the mode.
        if finished.last_lines.contains("Some index files failed to download") {
            return Err(transient(
                "RepositoryUnreachable",
                format!("apt-get update did not get all files; its last lines: {}", finished.last_lines),
            ));
        }
        Ok(())
    }
}

#[async_trait]
impl Manager for Apt<'_> {
    fn name(&self) -> &'static str {
        "apt"
    }

    fn database(&self) -> &'static str {
        "dpkg"
    }

    async fn find(&self, package: &str) -> Result<Found, HostError> {
        let asked = Program::asking("dpkg-query", ["-W", FORMAT, package]).run().await;
        let text = match asked {
            Ok(finished) => finished.stdout,
            Err(ProgramError::Failed { code: Some(1), last_lines, .. }) if last_lines.contains("no packages found") => {
                String::new()
            }
            Err(error) => return Err(failure::program(&error, &[], "PackageUnknown")),
        };
        dpkg_state(&text).ok_or_else(|| {
            transient("PackageUnknown", format!("dpkg-query says of {package} what cannot be read: {text}"))
        })
    }

    /// dpkg marks what it did not unpack to the end, and syncs files before it says that it has them.
    async fn is_intact(&self, _: &str) -> Result<bool, HostError> {
        Ok(true)
    }

    async fn offered(&self, package: &str) -> Result<Vec<(KubeVersion, String)>, HostError> {
        Ok(offered(&self.madison(package).await?))
    }

    async fn finish_interrupted(&self, packages: &[&str]) -> Result<(), HostError> {
        self.finish(packages).await
    }

    async fn install(&self, packages: &[Package], wanted: &[Wanted]) -> Result<(), HostError> {
        let names: Vec<&str> = packages.iter().map(|package| package.as_str()).collect();
        let exact: Vec<String> = wanted.iter().map(|wanted| format!("{}={}", wanted.name, wanted.exact)).collect();
        self.install_exactly(&names, &exact, wanted.iter().any(|wanted| wanted.reinstall)).await
    }

    async fn hold(&self, packages: &[Package]) -> Result<(), HostError> {
        let mut loose = Vec::new();
        for package in packages {
            let PackageState { version, held, whole: _ } = self.find(package.as_str()).await?.state;
            if version.is_some() && !held {
                loose.push(package.as_str());
            }
        }
        if loose.is_empty() { Ok(()) } else { self.mark("hold", &loose).await }
    }

    async fn offered_anywhere(&self, package: &str) -> Result<Vec<PackageVersion>, HostError> {
        Ok(listed(&self.madison(package).await?).filter_map(|version| version.parse().ok()).collect())
    }

    async fn refresh_all(&self) -> Result<(), HostError> {
        let update = Program::doing("apt-get", REFRESH_LIMIT, ["update"]).with(&self.environment());
        update.run().await.map(drop).map_err(|error| failure::program(&error, &UPDATE, "RepositoryUnreachable"))
    }

    async fn install_from_anywhere(&self, wanted: &Wanted) -> Result<(), HostError> {
        if self.find(wanted.name).await?.state.held {
            write_whole(&self.hold_note(), wanted.name.as_bytes(), 0o600)?;
        }
        let exact = format!("{}={}", wanted.name, wanted.exact);
        self.install_exactly(&[wanted.name], &[exact], wanted.reinstall).await
    }

    fn owes_hold(&self, package: &str) -> bool {
        self.unheld() == Some(package)
    }

    async fn give_back_holds(&self) -> Result<(), HostError> {
        let Some(name) = self.unheld() else { return Ok(()) };
        if !self.find(name).await?.state.held {
            self.mark("hold", &[name]).await?;
        }
        let note = self.hold_note();
        fs::remove_file(&note).map_err(|error| failure::file("removing", &note, &error))
    }

    /// A pin keeps no package away that is asked for by its exact version, but those that come along with it.
    async fn holds_of(&self, package: &str, part: Part) -> Result<Vec<PackageHold>, HostError> {
        let hold =
            |by: &str, effect| PackageHold { by: by.to_owned(), effect, package: package.to_owned(), versions: None };
        let mut holds = Vec::new();
        if self.find(package).await?.state.held {
            let effect = match part {
                Part::Itself => HoldEffect::Lifted,
                Part::Needed => HoldEffect::Keeps,
            };
            holds.push(hold("apt-mark hold", effect));
        }
        if part == Part::Needed {
            let asked = Program::asking("apt-cache", ["policy", package]).with(&self.environment()).run().await;
            let policy = asked.map_err(|error| failure::program(&error, &[], "AptCacheFailed"))?.stdout;
            if is_pinned_away(&policy) {
                holds.push(hold("a pin below 0 (/etc/apt/preferences.d)", HoldEffect::Keeps));
            }
        }
        Ok(holds)
    }

    fn sources(&self) -> Vec<SourceFile> {
        let files = self.host.files();
        let paths = std::iter::once(files.path(MAIN)).chain(files.entries(PARTS));
        paths.filter_map(|path| SourceFile::read(path, &[Form::Lines, Form::Deb822])).collect()
    }

    fn where_sources_are(&self) -> &'static str {
        "/etc/apt/sources.list and /etc/apt/sources.list.d"
    }

    async fn refresh(&self, sources: &[SourceFile]) -> Result<(), HostError> {
        for file in sources {
            let only = format!("Dir::Etc::sourcelist={}", file.path.display());
            // Error-Mode: by default a mirror that does not answer is a warning and the exit status is 0.
            let options = ["Dir::Etc::sourceparts=-", "APT::Get::List-Cleanup=0", "APT::Update::Error-Mode=any", &only];
            let options = options.into_iter().flat_map(|option| ["-o".to_owned(), option.to_owned()]);
            self.update(REFRESH_LIMIT, std::iter::once("update".to_owned()).chain(options)).await?;
        }
        Ok(())
    }

    /// None of the machine's hooks run, and no lock of dpkg is taken.
    async fn look_at(&self, files: &[SourceFile], minor: MinorVersion) -> Result<Vec<KubeVersion>, HostError> {
        let folder = self.host.settings.state.join("next-minor");
        let sources = sources_aside(&folder, files, minor)?;
        // What the machine does around an update of its own index is not done for this one. Lists of options can be cleared by a
        // file alone.
        let without_hooks = folder.join("without-hooks.conf");
        write_whole(&without_hooks, WITHOUT_HOOKS.as_bytes(), 0o600)?;
        let (lists, partial) = (folder.join("lists"), folder.join("lists/partial"));
        fs::create_dir_all(&partial).map_err(|error| failure::file("making", &partial, &error))?;
        let options = [
            format!("Dir::Etc::sourceparts={}", sources.display()),
            "Dir::Etc::sourcelist=/dev/null".to_owned(),
            format!("Dir::State::lists={}", lists.display()),
            // Its index is small, and the caches are those of the machine's own.
            "Dir::Cache::pkgcache=".to_owned(),
            "Dir::Cache::srcpkgcache=".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
            "APT::Update::Error-Mode=any".to_owned(),
        ];
        let with = |words: &[&str]| -> Vec<String> {
            let options = options.iter().flat_map(|option| ["-o".to_owned(), option.clone()]);
            let hooks = ["-c".to_owned(), without_hooks.display().to_string()];
            words.iter().map(|word| (*word).to_owned()).chain(hooks).chain(options).collect()
        };
        self.update(LOOK_LIMIT, with(&["update"])).await?;
        let listed = async |package: &str| -> Result<Vec<(KubeVersion, String)>, HostError> {
            let madison = Program::asking("apt-cache", with(&["madison", package])).with(&self.environment());
            let finished = madison.run().await.map_err(|error| failure::program(&error, &[], "PackageUnknown"))?;
            Ok(offered(&finished.stdout))
        };
        Ok(both_of(minor, listed("kubeadm").await?, &listed("kubelet").await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::test_folder::TestFolder;
    use crate::real::tests::host_in;
    use cupcake_crds::values::MinorVersion;

    /// A machine whose three packages are of 1.33.13, held or not, and whose repository offers no 1.34.
    fn machine(name: &str, want: &str) -> TestFolder {
        let folder = TestFolder::new(name);
        folder.write("/usr/bin/apt-get", "");
        folder.write("/etc/apt/sources.list.d/kubernetes.list", "deb https://pkgs.k8s.io/core:/stable:/v1.33/deb/ /\n");
        let query = format!("printf '{want}\\tok\\tinstalled\\t1.33.13-1.1\\n'");
        folder.be_the_machine(&[
            ("dpkg-query", &query),
            ("dpkg", ""),
            ("apt-get", ""),
            ("apt-mark", ""),
            ("apt-cache", "echo 'kubeadm | 1.33.13-1.1 | https://pkgs.k8s.io/core:/stable:/v1.33/deb  Packages'"),
        ]);
        folder
    }

    fn marks(folder: &TestFolder) -> Vec<String> {
        folder.calls().into_iter().filter(|call| call.starts_with("apt-mark")).collect()
    }

    #[tokio::test]
    async fn packages_that_an_interrupted_install_left_without_a_hold_are_held_however_the_next_one_ends() {
        let folder = machine("hold-after", "install");
        let host = host_in(&folder);
        let error = host.install_exact(&[Package::Kubeadm], &v("1.34.4")).await.expect_err("not offered");
        assert!(matches!(&error, HostError::NeedsOperator(reason) if reason.code == "VersionNotOffered"), "{error}");
        assert_eq!(marks(&folder), ["apt-mark hold kubeadm"]);
        folder.be_the_machine(&[("dpkg", "echo broken; exit 1")]);
        host.install_exact(&[Package::Kubeadm], &v("1.33.13")).await.expect_err("dpkg is broken");
        assert_eq!(marks(&folder), ["apt-mark hold kubeadm"]);
        folder.be_the_machine(&[("dpkg", ""), ("apt-mark", "[ $1 = hold ] || exit 1")]);
        let error = host.install_exact(&[Package::Kubeadm], &v("1.33.12")).await.expect_err("a newer one is there");
        assert!(matches!(&error, HostError::Permanent(reason) if reason.code == "WouldDowngrade"), "{error}");
        assert_eq!(marks(&folder), ["apt-mark hold kubeadm"]);
    }

    #[tokio::test]
    async fn a_machine_whose_kubelet_or_kubeadm_no_package_brought_is_refused_and_nothing_is_installed() {
        let installed = "printf 'hold\\tok\\tinstalled\\t1.33.13-1.1\\n'";
        let never = |name: &str| format!("echo 'dpkg-query: no packages found matching {name}'; exit 1");
        let removed = "printf 'deinstall\\tok\\tconfig-files\\t1.33.13-1.1\\n'".to_owned();
        for (strange, answer) in [("kubelet", never("kubelet")), ("kubeadm", never("kubeadm")), ("kubelet", removed)] {
            let folder = machine("by-hand", "hold");
            let query = format!("case \"$*\" in *{strange}) {answer};; *) {installed};; esac");
            folder.be_the_machine(&[("dpkg-query", &query)]);
            let host = host_in(&folder);
            assert_eq!(host.without_package(&Package::ALL).await, Ok(vec![strange.to_owned()]));
            for packages in [&[Package::Kubeadm][..], &[Package::Kubelet, Package::Kubectl]] {
                if !packages.iter().any(|package| package.as_str() == strange) {
                    host.brought_by_packages(packages).await.expect("it is not about the other one");
                    continue;
                }
                let error = host.install_exact(packages, &v("1.33.14")).await.expect_err("refused");
                let HostError::NeedsOperator(reason) = &error else { panic!("{error}") };
                assert!(reason.code == "NotInstalledByPackage" && reason.message.contains(strange), "{error}");
                let changing = |call: &String| ["apt-", "dpkg "].iter().any(|program| call.starts_with(program));
                assert_eq!(folder.calls().into_iter().find(changing), None, "{strange}");
                assert!(reason.message.contains("kubectl cupcake skip"), "{error}");
                folder.write("/etc/kubernetes/admin.conf", "");
                let error = host.install_exact(packages, &v("1.33.14")).await.expect_err("refused").to_string();
                assert!(!error.contains("skip"), "a control plane is never left out: {error}");
            }
        }
    }

    #[tokio::test]
    async fn what_finds_dpkg_locked_is_run_again_until_the_lock_is_free() {
        let folder = machine("hold-lock", "install");
        let locked = "if [ -e $here/free ]; then exit 0; fi
            : >$here/free; echo 'dpkg: error: dpkg status database is locked by another process'; exit 1";
        folder.be_the_machine(&[("apt-mark", locked)]);
        let hold = Program::asking("apt-mark", ["hold", "kubelet"]);
        past_lock(hold, &LOCKED, Duration::ZERO, LOCK_SECONDS_MAX).await.expect("held in the end");
        assert_eq!(marks(&folder), ["apt-mark hold kubelet", "apt-mark hold kubelet"]);
    }

    #[tokio::test]
    async fn every_package_is_held_before_the_repository_offers_a_newer_one_and_none_twice() {
        let folder = machine("hold-first", "install");
        let minor = MinorVersion { major: 1, minor: 34 };
        folder.be_the_machine(&[("apt-mark", "exit 1")]);
        host_in(&folder).set_repository(minor).await.expect_err("they cannot be held");
        assert!(folder.read("/etc/apt/sources.list.d/kubernetes.list").contains("v1.33"), "so it stays as it was");
        assert_eq!(marks(&folder), ["apt-mark hold kubeadm kubelet kubectl"]);
        let folder = machine("hold-first-held", "hold");
        host_in(&folder).set_repository(minor).await.expect_err("the mirror has no 1.34");
        assert!(marks(&folder).is_empty());
    }

    fn v(text: &str) -> KubeVersion {
        text.parse().expect("a version")
    }

    #[test]
    fn dpkg_states_are_read_as_dpkg_query_prints_them() {
        let state = |line: &str| {
            let Found { state, reinstall } = dpkg_state(line).expect("it can be read");
            (state.version, state.whole, state.held, reinstall)
        };
        let at = |version: &str| Some(version.to_owned());
        assert_eq!(state("hold\tok\tinstalled\t1.33.13-1.1\n"), (at("1.33.13-1.1"), true, true, false));
        assert_eq!(state("install\tok\tinstalled\t1.34.4-1.1\n"), (at("1.34.4-1.1"), true, false, false));
        assert_eq!(state("install\tok\thalf-configured\t1.34.4-1.1\n"), (at("1.34.4-1.1"), false, false, false));
        assert_eq!(state("install\tok\tunpacked\t1.34.4-1.1\n"), (at("1.34.4-1.1"), false, false, false));
        assert_eq!(state("hold\treinstreq\thalf-installed\t1.33.13-1.1\n"), (at("1.33.13-1.1"), false, true, true));
        assert_eq!(state("deinstall\tok\tconfig-files\t1.33.13-1.1\n"), (None, false, false, false));
        assert_eq!(state("unknown\tok\tnot-installed\t\n"), (None, false, false, false));
        assert_eq!(state(""), (None, false, false, false));
        assert_eq!(dpkg_state("what is this\n"), None);
    }

    #[test]
    fn a_pin_counts_where_it_keeps_a_newer_version_away() {
        // As apt-cache policy of apt 2.6 prints it.
        let policy = |newer: &str, installed: &str| {
            format!(
                "kubernetes-cni:\n  Installed: 1.2.0-1.1\n  Candidate: (none)\n  Version table:\n     1.4.0-1.1 {newer}\n        500 file:/m ./ Packages\n \
                 *** 1.2.0-1.1 {installed}\n        500 file:/m ./ Packages\n        100 /var/lib/dpkg/status\n     1.1.0-1.1 -1\n        500 file:/m ./ Packages\n"
            )
        };
        assert!(is_pinned_away(&policy("-1", "-1")) && is_pinned_away(&policy("-10", "1001")));
        assert!(!is_pinned_away(&policy("500", "1001")), "it only stays where nothing asks for a newer one");
        assert!(!is_pinned_away(&policy("100", "-1")) && !is_pinned_away("N: Unable to locate package x\n"));
    }

    const MADISON: &str = "   kubeadm | 1.34.4-1.1 | https://pkgs.k8s.io/core:/stable:/v1.34/deb  Packages
   kubeadm | 1.34.4-1.10 | https://mirror.example/core:/stable:/v1.34/deb  Packages
   kubeadm | 1.34.10-1.1 | https://pkgs.k8s.io/core:/stable:/v1.34/deb  Packages
   kubeadm | 1.34.3-1.1 | https://pkgs.k8s.io/core:/stable:/v1.34/deb  Packages
   kubeadm | 1.34.11-1.1 | https://pkgs.k8s.io/core:/stable:/v1.34/deb  Sources
";

    #[test]
    fn offered_versions_are_sorted_as_versions_with_the_highest_revision_first() {
        let offered = offered(MADISON);
        let packages: Vec<&str> = offered.iter().map(|(_, package)| package.as_str()).collect();
        assert_eq!(packages, ["1.34.10-1.1", "1.34.4-1.10", "1.34.4-1.1", "1.34.3-1.1"]);
        assert_eq!(offered[1].0, v("1.34.4"));
        assert!(super::offered("N: Unable to locate package kubeadm\n").is_empty());
    }
}
