//! Packages of an apt machine: what is installed, what is offered, exact installs with holds.

use super::RealHost;
use super::failure::{self, Class, Meaning, needs_operator, permanent, transient};
use super::program::{Program, ProgramError};
use cupcake_crds::values::{KubeVersion, NodeRole};
use cupcake_steps::ports::host::{HostError, Package, PackageState};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long another holder of dpkg's lock is waited for: unattended upgrades take minutes.
const LOCK_SECONDS_MAX: u64 = 300;
const LOCK_AGAIN: Duration = Duration::from_secs(5);
/// How long an install may take, its wait for the lock included.
const INSTALL_LIMIT: Duration = Duration::from_secs(20 * 60);
const CONFIGURE_LIMIT: Duration = Duration::from_secs(10 * 60);
const MARK_LIMIT: Duration = Duration::from_secs(60);

/// What dpkg-query is to tell: want, error flag, status, version.
const FORMAT: &str = "-f=${db:Status-Want}\\t${db:Status-Eflag}\\t${db:Status-Status}\\t${Version}\\n";

/// Keeps changed configuration files (containerd's above all) and never asks.
const KEEP_CONFIGURATION: [&str; 2] = ["--force-confdef", "--force-confold"];

/// How dpkg and apt say that another process works on packages.
const LOCKED: [&str; 3] =
    ["locked by another process", "Could not get lock", "Unable to acquire the dpkg frontend lock"];

/// What `apt-get install` means by its last lines.
const INSTALL: [Meaning; 10] = [
    Meaning { words: LOCKED[0], class: Class::Transient, code: "PackageLockHeld", advice: "" },
    Meaning { words: LOCKED[1], class: Class::Transient, code: "PackageLockHeld", advice: "" },
    Meaning { words: LOCKED[2], class: Class::Transient, code: "PackageLockHeld", advice: "" },
    Meaning {
        words: "No space left on device",
        class: Class::NeedsOperator,
        code: "DiskFull",
        advice: "free some space, then retry",
    },
    Meaning {
        words: "You don't have enough free space",
        class: Class::NeedsOperator,
        code: "DiskFull",
        advice: "free some space, then retry",
    },
    Meaning { words: "Unable to fetch", class: Class::Transient, code: "RepositoryUnreachable", advice: "" },
    Meaning { words: "Failed to fetch", class: Class::Transient, code: "RepositoryUnreachable", advice: "" },
    Meaning {
        words: "were downgraded",
        class: Class::Permanent,
        code: "WouldDowngrade",
        advice: "an older package is never put over a newer one",
    },
    Meaning {
        words: "unmet dependencies",
        class: Class::NeedsOperator,
        code: "UnmetDependencies",
        advice: "another package stands in the way: release its hold or upgrade it, then retry",
    },
    Meaning {
        words: "held broken packages",
        class: Class::NeedsOperator,
        code: "UnmetDependencies",
        advice: "another package stands in the way: release its hold or upgrade it, then retry",
    },
];

/// A package as dpkg has it, with the flag that only a reinstall clears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dpkg {
    pub(crate) state: PackageState,
    pub(crate) reinstall: bool,
}

/// Reads one line of [`FORMAT`]; empty text is a package that dpkg never heard of.
pub(crate) fn dpkg_state(text: &str) -> Option<Dpkg> {
    let none = Dpkg { state: PackageState { version: None, whole: false, held: false }, reinstall: false };
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
    Some(Dpkg { state, reinstall: *error == "reinstreq" })
}

/// Whether a program failed because another process holds dpkg's lock, and would not if it were run again later.
fn is_locked(error: &ProgramError) -> bool {
    match error {
        ProgramError::Failed { last_lines, .. } => LOCKED.iter().any(|words| last_lines.contains(words)),
        ProgramError::Missing { .. }
        | ProgramError::System { .. }
        | ProgramError::TimedOut { .. }
        | ProgramError::TooMuchOutput { .. } => false,
    }
}

/// Kubernetes versions that `apt-cache madison` lists with the whole version of their package, newest first.
pub(crate) fn offered(madison: &str) -> Vec<(KubeVersion, String)> {
    let lines = madison.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, version, source] = fields.as_slice() else { return None };
        if !source.ends_with("Packages") {
            return None;
        }
        Some((version.parse::<KubeVersion>().ok()?, (*version).to_owned()))
    });
    let mut versions: Vec<_> = lines.collect();
    versions.sort_by(|(a, a_package), (b, b_package)| (b, revision(b_package)).cmp(&(a, revision(a_package))));
    versions.dedup();
    versions
}

/// The numbers of the revision behind the version: `1.34.4-1.10` is newer than `1.34.4-1.2`.
fn revision(package_version: &str) -> Vec<u64> {
    let (_, revision) = package_version.rsplit_once('-').unwrap_or_default();
    revision.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

impl RealHost {
    /// Variables for apt and dpkg: never a question, never a restart of services that were not named.
    pub(super) fn apt_environment(&self) -> BTreeMap<String, String> {
        let mut variables = self.settings.proxies.clone();
        for (name, value) in
            [("DEBIAN_FRONTEND", "noninteractive"), ("NEEDRESTART_SUSPEND", "1"), ("APT_LISTCHANGES_FRONTEND", "none")]
        {
            variables.insert(name.to_owned(), value.to_owned());
        }
        variables
    }

    pub(super) async fn dpkg(&self, package: &str) -> Result<Dpkg, HostError> {
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

    pub(super) async fn madison(&self, package: &str) -> Result<String, HostError> {
        let finished = Program::asking("apt-cache", ["madison", package]).with(&self.apt_environment()).run().await;
        finished.map(|finished| finished.stdout).map_err(|error| failure::program(&error, &[], "AptCacheFailed"))
    }

    /// The whole version of the package that carries `version`; the index is refreshed once if it does not list it.
    async fn exact(&self, package: &str, version: &KubeVersion) -> Result<String, HostError> {
        let mut refreshed = false;
        loop {
            let offered = offered(&self.madison(package).await?);
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
            self.refresh_repository().await?;
            refreshed = true;
        }
    }

    pub(super) async fn install_exact(&self, packages: &[Package], version: &KubeVersion) -> Result<(), HostError> {
        let installed = self.install_wanting(packages, version).await;
        // Whatever happened now, or to an earlier call that was cut short between unhold and hold: nothing else may move these
        // packages. An install that failed is the more telling error.
        let held = self.hold(packages).await;
        installed.and(held)
    }

    /// Which of those packages, kubectl aside, dpkg does not know to be installed.
    pub(super) async fn without_package(&self, packages: &[Package]) -> Result<Vec<String>, HostError> {
        let mut strange = Vec::new();
        for package in [Package::Kubeadm, Package::Kubelet].iter().filter(|package| packages.contains(package)) {
            if self.dpkg(package.as_str()).await?.state.version.is_none() {
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
                "dpkg knows no installed package of {} here, and only packages are upgraded: install kubeadm, kubelet and kubectl from a package repository at the versions that run now, take away what was put there by hand, then retry{leave_out}",
                strange.join(" and ")
            ),
        ))
    }

    /// Installs those of the packages that are not of that version, and releases their holds for it.
    async fn install_wanting(&self, packages: &[Package], version: &KubeVersion) -> Result<(), HostError> {
        self.brought_by_packages(packages).await?;
        // An interrupted dpkg stops apt before it begins.
        let names: Vec<&str> = packages.iter().map(|package| package.as_str()).collect();
        self.finish_interrupted(&names).await?;
        let mut wanted = Vec::new();
        let mut reinstall = false;
        for package in packages {
            let name = package.as_str();
            let dpkg = self.dpkg(name).await?;
            let present = dpkg.state.version.as_deref();
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
            if found != Some(*version) || !dpkg.state.whole {
                reinstall |= dpkg.reinstall;
                wanted.push(format!("{name}={}", self.exact(name, version).await?));
            }
        }
        if packages.contains(&Package::Kubelet) {
            // Before the install: the package's own scripts may start the newer kubelet.
            self.drop_removed_flags(version)?;
        }
        if wanted.is_empty() {
            return Ok(());
        }
        self.apt_install(&names, &wanted, reinstall).await
    }

    /// Holds those of the packages that are installed.
    pub(super) async fn hold(&self, packages: &[Package]) -> Result<(), HostError> {
        let mut loose = Vec::new();
        for package in packages {
            let PackageState { version, held, whole: _ } = self.dpkg(package.as_str()).await?.state;
            if version.is_some() && !held {
                loose.push(package.as_str());
            }
        }
        if loose.is_empty() { Ok(()) } else { self.mark("hold", &loose).await }
    }

    pub(super) async fn apt_install(
        &self,
        names: &[&str],
        wanted: &[String],
        reinstall: bool,
    ) -> Result<(), HostError> {
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
        let install = Program::doing("apt-get", INSTALL_LIMIT, arguments).with(&self.apt_environment());
        install.run().await.map(drop).map_err(|error| failure::program(&error, &INSTALL, "PackageInstallFailed"))
    }

    pub(super) async fn mark(&self, mark: &'static str, names: &[&str]) -> Result<(), HostError> {
        let arguments = std::iter::once(mark).chain(names.iter().copied());
        let program = Program::doing("apt-mark", MARK_LIMIT, arguments).with(&self.apt_environment());
        past_lock(program, LOCK_AGAIN).await.map_err(|error| failure::program(&error, &INSTALL, "PackageHoldFailed"))
    }

    /// Brings what an interrupted dpkg left to its end.
    pub(super) async fn finish_interrupted(&self, packages: &[&str]) -> Result<(), HostError> {
        let arguments = KEEP_CONFIGURATION.into_iter().chain(["--configure", "-a"]);
        let program = Program::doing("dpkg", CONFIGURE_LIMIT, arguments).with(&self.apt_environment());
        let Err(error) = past_lock(program, LOCK_AGAIN).await else { return Ok(()) };
        if is_locked(&error) {
            return Err(transient("PackageLockHeld", failure::chain(&error)));
        }
        // One that was killed while it was unpacked cannot be configured, only installed anew: which is what follows for those
        // that are to be installed, and for no other.
        for package in packages {
            if self.dpkg(package).await?.reinstall {
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
}

/// Runs it, again and again while another process holds dpkg's lock: only apt-get waits for that by itself.
async fn past_lock(program: Program, again: Duration) -> Result<(), ProgramError> {
    let since = tokio::time::Instant::now();
    loop {
        match program.clone().run().await {
            Err(error) if is_locked(&error) && since.elapsed().as_secs() < LOCK_SECONDS_MAX => {
                tokio::time::sleep(again).await;
            }
            ended => return ended.map(drop),
        }
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
        past_lock(hold, Duration::ZERO).await.expect("held in the end");
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

    #[test]
    fn only_dpkgs_and_apts_own_words_mean_that_another_process_works_on_packages() {
        let failed = |last_lines: &str| ProgramError::Failed {
            command: "dpkg --configure -a".to_owned(),
            status: "exit status: 2".to_owned(),
            code: Some(2),
            last_lines: last_lines.to_owned(),
            stdout: String::new(),
        };
        for held in [
            "dpkg: error: dpkg frontend lock was locked by another process with pid 4711",
            "dpkg: error: dpkg status database is locked by another process",
            "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 4711 (unattended-upgr)",
            "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?",
        ] {
            assert!(is_locked(&failed(held)), "{held}");
            let meaning = failure::program(&failed(held), &INSTALL, "PackageInstallFailed");
            assert!(matches!(&meaning, HostError::Transient(reason) if reason.code == "PackageLockHeld"), "{meaning}");
        }
        for other in ["insserv: script hwclock is broken", "No space left on block device", "blocked by policy-rc.d"] {
            assert!(!is_locked(&failed(other)), "{other}");
        }
        let late = "dpkg status database is locked by another process".to_owned();
        let late = ProgramError::TimedOut { command: "dpkg".to_owned(), limit_seconds: 600, last_lines: late };
        assert!(!is_locked(&late), "what had its whole time is not run again");
    }

    fn v(text: &str) -> KubeVersion {
        text.parse().expect("a version")
    }

    #[test]
    fn dpkg_states_are_read_as_dpkg_query_prints_them() {
        let state = |line: &str| {
            let Dpkg { state, reinstall } = dpkg_state(line).expect("it can be read");
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
