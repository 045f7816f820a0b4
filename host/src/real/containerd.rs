//! containerd: its package, the process that systemd runs, its restart.
//!
//! ```text
//!   held? ─► noted on disk ─► off, install ─► back, note removed
//! ```
//! A hold that was there comes back whatever happens in between: the note says that it is owed, and outlives this process. What no
//! hold kept before is not held afterwards: containerd is upgraded because somebody asked for it, and is otherwise not ours.

use super::RealHost;
use super::failure::{self, needs_operator, permanent};
use super::packages::{Found, Manager, Wanted};
use super::program::{Program, ProgramError};
use cupcake_crds::limits::{HAND_MADE_CHARS_MAX, cut};
use cupcake_crds::node_task::ContainerdPackage;
use cupcake_crds::values::PackageVersion;
use cupcake_steps::ports::host::{ContainerdState, HostError};
use std::path::Path;

/// Where packages put it: SUSE's in the second place.
const BINARIES: [&str; 2] = ["/usr/bin/containerd", "/usr/sbin/containerd"];
const UNIT: &str = "containerd.service";
/// The packages that bring it: Docker's and the distribution's, which exclude each other.
pub(super) const PACKAGES: [&str; 2] = ["containerd.io", "containerd"];

/// The package that brought the containerd of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Brought {
    pub(super) name: &'static str,
    found: Found,
    version: PackageVersion,
}

/// Where a process was started from, if that file still has this name or had it.
fn program_of(link: &Path) -> Option<String> {
    let target = std::fs::read_link(link).ok()?;
    let text = target.to_string_lossy();
    Some(text.strip_suffix(" (deleted)").unwrap_or(&text).to_owned())
}

impl RealHost {
    /// The package that brought the containerd that the kubelet uses, or why there is none.
    pub(super) async fn containerd_brought(&self) -> Result<Result<Brought, String>, HostError> {
        if let Some(endpoint) = self.runtime_endpoint().filter(|endpoint| !endpoint.contains("containerd")) {
            return Ok(Err(format!("the kubelet uses {endpoint}")));
        }
        let Ok(manager) = self.manager() else {
            return Ok(Err("packages are installed there by none of apt, dnf and zypper".to_owned()));
        };
        let mut brought = None;
        for name in PACKAGES {
            let found = manager.find(name).await?;
            if let Some(text) = found.state.version.clone() {
                let version = text
                    .parse::<PackageVersion>()
                    .map_err(|error| permanent("PackageUnknown", failure::chain(&error)))?;
                brought = Some(Brought { name, found, version });
                break;
            }
        }
        let Some(brought) = brought else {
            return Ok(Err(format!("{} knows neither containerd nor containerd.io", manager.database())));
        };
        let unit = self.unit_now(UNIT).await?;
        let link = self.files.path(&format!("/proc/{}/exe", unit.main_pid));
        Ok(match program_of(&link).filter(|program| !BINARIES.contains(&program.as_str())) {
            Some(program) => Err(format!("{UNIT} runs {program}, which no package brought")),
            None => Ok(brought),
        })
    }

    /// Where the installed containerd is.
    fn containerd_binary(&self) -> &'static str {
        BINARIES.into_iter().find(|binary| self.files.has(binary)).unwrap_or(BINARIES[0])
    }

    async fn containerd_or_refusal(&self) -> Result<Brought, HostError> {
        self.containerd_brought().await?.map_err(|why| {
            needs_operator(
                "NotInstalledByPackage",
                format!(
                    "{why}, and only containerd of a package is upgraded: install it from a package repository, or upgrade the runtime by hand and leave containerd out of spec.components"
                ),
            )
        })
    }

    pub(super) async fn containerd_now(&self) -> Result<ContainerdState, HostError> {
        let brought = self.containerd_or_refusal().await?;
        let manager = self.manager()?;
        let unit = self.unit_now(UNIT).await?;
        Ok(ContainerdState {
            version: brought.version,
            whole: brought.found.state.whole && manager.is_intact(brought.name).await?,
            unheld: PACKAGES.iter().any(|package| manager.owes_hold(package)),
            runs_installed: self.runs_installed(&unit, self.containerd_binary()),
            answers: self.runtime_answers().await?,
            since: unit.started,
            restarts: unit.restarts,
        })
    }

    pub(super) async fn install_containerd_exact(&self, version: &PackageVersion) -> Result<(), HostError> {
        let installed = self.install_containerd_wanting(version).await;
        // Whatever happened now, or to an earlier call that was cut short. An install that failed is the more telling error.
        let held = self.give_back_holds().await;
        installed.and(held)
    }

    async fn install_containerd_wanting(&self, version: &PackageVersion) -> Result<(), HostError> {
        let manager = self.manager()?;
        manager.repair().await?;
        // What was interrupted may stop an install before it begins.
        manager.finish_interrupted(&PACKAGES).await?;
        let Brought { name, found, version: present } = self.containerd_or_refusal().await?;
        // It moved by itself since it was looked at: it is what the step takes for done.
        let version = if present.is_newer_patch_of(version) { &present } else { version };
        if present > *version {
            let message = format!(
                "{name} {present} is installed, which is newer than {version}: an older package is never put over a newer one"
            );
            return Err(permanent("WouldDowngrade", message));
        }
        if present == *version && found.state.whole && manager.is_intact(name).await? {
            return Ok(());
        }
        see_offered(manager.as_ref(), name, version).await?;
        let is_present = present == *version;
        let wanted = Wanted { name, exact: version.to_string(), is_present, reinstall: found.reinstall };
        manager.install_from_anywhere(&wanted).await
    }

    pub(super) async fn give_back_holds(&self) -> Result<(), HostError> {
        self.manager()?.give_back_holds().await
    }

    pub(super) async fn restart_containerd_unit(&self) -> Result<(), HostError> {
        self.restart_unit(UNIT, "ContainerdRestartFailed").await
    }

    /// Whether the runtime answers over CRI: one that is starting refuses the connection.
    async fn runtime_answers(&self) -> Result<bool, HostError> {
        match Program::asking("crictl", self.crictl(&["version"])).run().await {
            Ok(_) => Ok(true),
            Err(ProgramError::Failed { .. } | ProgramError::TimedOut { .. }) => Ok(false),
            Err(
                error @ (ProgramError::Missing { .. }
                | ProgramError::System { .. }
                | ProgramError::TooMuchOutput { .. }),
            ) => Err(failure::program(&error, &[], "RuntimeAway")),
        }
    }

    /// For the inventory: nothing where even that cannot be told.
    pub(super) async fn containerd_package(&self) -> Option<ContainerdPackage> {
        let brought = match self.containerd_brought().await {
            Ok(Ok(brought)) => brought,
            Ok(Err(mut why)) => {
                cut(&mut why, HAND_MADE_CHARS_MAX);
                return Some(ContainerdPackage { unfit: Some(why), ..ContainerdPackage::default() });
            }
            Err(_unknown) => return None,
        };
        let offered = async { self.manager()?.offered_anywhere(brought.name).await }.await.unwrap_or_default();
        Some(ContainerdPackage::of(brought.name, &brought.version, offered))
    }
}

/// Refreshes the machine's index once if it does not list that version.
async fn see_offered(manager: &dyn Manager, name: &str, version: &PackageVersion) -> Result<(), HostError> {
    if manager.offered_anywhere(name).await?.contains(version) {
        return Ok(());
    }
    manager.refresh_all().await?;
    let offered = manager.offered_anywhere(name).await?;
    if offered.contains(version) {
        return Ok(());
    }
    let newest = offered.iter().max().map_or("nothing".to_owned(), |newest| format!("at most {newest}"));
    Err(needs_operator(
        "VersionNotOffered",
        format!("the package repositories offer no {name} {version}, but {newest}: set the mirror right, then retry"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::test_folder::TestFolder;
    use crate::real::tests::host_in;

    const UNIT_RUNS: &str =
        "echo ActiveState=active; echo MainPID=7; echo 'ExecMainStartTimestamp=Sun 2026-11-22 17:29:23 UTC'";

    fn v(text: &str) -> PackageVersion {
        text.parse().expect("a version")
    }

    /// A machine with containerd 1.7.24-1 of Docker's package, held or not, whose index offers 1.7.27-1, too. Its apt-get and apt-mark
    /// do what they are asked.
    fn machine(name: &str, want: &str) -> TestFolder {
        let folder = TestFolder::new(name);
        folder.write("installed", "1.7.24-1\n");
        folder.write("want", format!("{want}\n"));
        folder.write("/usr/bin/apt-get", "");
        folder.write(BINARIES[0], "1.7.24-1");
        folder.write("/proc/7/cmdline", "");
        std::fs::hard_link(folder.path(BINARIES[0]), folder.path("/proc/7/exe")).expect("linked");
        folder.be_the_machine(&[
            (
                "dpkg-query",
                "read -r want <$here/want; read -r version <$here/installed
                 case \"$*\" in *containerd.io) printf '%s\\tok\\tinstalled\\t%s\\n' $want $version;; \
                 *) echo 'dpkg-query: no packages found matching containerd'; exit 1;; esac",
            ),
            ("dpkg", ""),
            ("systemctl", UNIT_RUNS),
            ("crictl", ""),
            (
                "apt-cache",
                "for v in 1.7.9-1 1.7.27-1 1.7.24-1; do echo \"containerd.io | $v | https://download.example/linux/debian bookworm/stable amd64 Packages\"; done",
            ),
            (
                "apt-get",
                "for last; do :; done
                 case $last in containerd.io=*) echo ${last#*=} >$here/installed
                 echo new >$here/usr/bin/new; /bin/mv $here/usr/bin/new $here/usr/bin/containerd;; esac",
            ),
            ("apt-mark", "if [ $1 = hold ]; then echo hold >$here/want; else echo install >$here/want; fi"),
        ]);
        folder
    }

    fn changes(folder: &TestFolder) -> Vec<String> {
        let changing =
            |call: &String| ["apt-get ", "apt-mark ", "systemctl restart"].iter().any(|name| call.starts_with(name));
        folder.calls().into_iter().filter(changing).collect()
    }

    #[tokio::test]
    async fn the_package_is_installed_exactly_with_its_configuration_kept_and_its_hold_given_back() {
        for (want, marks) in [("hold", 2), ("install", 1)] {
            let folder = machine("containerd-install", want);
            let host = host_in(&folder);
            let before = host.containerd_now().await.expect("told");
            assert!(before.is_at(&v("1.7.24-1")) && before.runs_installed && before.answers, "{before:?}");
            folder.calls();
            host.install_containerd_exact(&v("1.7.27-1")).await.expect("installed");
            let calls = changes(&folder);
            let install = calls.iter().find(|call| call.contains("containerd.io=1.7.27-1")).expect("one exact install");
            assert!(install.contains("--force-confold") && install.contains("--force-confdef"), "{install}");
            assert_eq!(calls.iter().filter(|call| call.starts_with("apt-mark")).count(), marks, "{calls:?}");
            assert_eq!(folder.read("want").trim(), want, "as it was before");
            let after = host.containerd_now().await.expect("told");
            assert!(
                after.is_at(&v("1.7.27-1")) && !after.runs_installed,
                "{after:?}: the old process still has the old file"
            );
            folder.calls();
            host.install_containerd_exact(&v("1.7.27-1")).await.expect("there already");
            assert_eq!(changes(&folder), Vec::<String>::new());
        }
    }

    #[tokio::test]
    async fn a_hold_that_an_interrupted_install_released_is_owed_until_it_is_given_back() {
        let folder = machine("containerd-hold", "hold");
        let host = host_in(&folder);
        folder.be_the_machine(&[
            ("apt-get", "exit 1"),
            ("apt-mark", "[ $1 = unhold ] || exit 1; echo install >$here/want"),
        ]);
        host.install_containerd_exact(&v("1.7.27-1")).await.expect_err("neither installed nor held");
        let state = host.containerd_now().await.expect("told");
        assert!(state.unheld && !state.is_at(&v("1.7.24-1")));
        folder.be_the_machine(&[("apt-mark", "echo $1 >$here/want")]);
        host_in(&folder).install_containerd_exact(&v("1.7.24-1")).await.expect("another process gives it back");
        assert_eq!(folder.read("want").trim(), "hold");
        assert!(!host.containerd_now().await.expect("told").unheld);
    }

    #[tokio::test]
    async fn a_version_that_is_not_offered_or_older_is_refused_and_nothing_is_changed() {
        let folder = machine("containerd-refused", "hold");
        let host = host_in(&folder);
        let error = host.install_containerd_exact(&v("1.7.28-1")).await.expect_err("not offered").to_string();
        assert!(error.contains("VersionNotOffered") && error.contains("at most 1.7.27-1"), "{error}");
        assert_eq!(changes(&folder), ["apt-get update"], "the index was refreshed once");
        let error = host.install_containerd_exact(&v("1.6.33-1")).await.expect_err("older").to_string();
        assert!(error.contains("WouldDowngrade"), "{error}");
        host.install_containerd_exact(&v("1.7.9-1")).await.expect("a newer patch is as good");
        assert_eq!(changes(&folder), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_runtime_that_is_no_containerd_of_a_package_is_told_with_the_reason() {
        let folder = machine("containerd-strange", "hold");
        let host = host_in(&folder);
        let told = host.containerd_package().await.expect("told");
        assert_eq!((told.name.as_deref(), told.version.as_deref()), (Some("containerd.io"), Some("1.7.24-1")));
        assert_eq!(told.offered, ["1.7.27-1", "1.7.24-1"], "newest first, as dpkg orders, and none that is older");
        let unfit = async || host.containerd_package().await.expect("told").unfit.expect("unfit");
        std::fs::remove_file(folder.path("/proc/7/exe")).expect("removed");
        std::os::unix::fs::symlink("/usr/local/bin/containerd", folder.path("/proc/7/exe")).expect("linked");
        assert_eq!(unfit().await, "containerd.service runs /usr/local/bin/containerd, which no package brought");
        folder.be_the_machine(&[("dpkg-query", "echo 'dpkg-query: no packages found matching x'; exit 1")]);
        assert_eq!(unfit().await, "dpkg knows neither containerd nor containerd.io");
        let flags = "KUBELET_KUBEADM_ARGS=\"--container-runtime-endpoint=unix:///run/crio/crio.sock\"\n";
        folder.write("/var/lib/kubelet/kubeadm-flags.env", flags);
        assert_eq!(unfit().await, "the kubelet uses unix:///run/crio/crio.sock");
        let error = host.containerd_now().await.expect_err("refused").to_string();
        assert!(error.contains("NotInstalledByPackage") && error.contains("crio.sock"), "{error}");
    }

    #[tokio::test]
    async fn a_containerd_that_does_not_answer_is_no_error_and_a_machine_without_crictl_is() {
        let folder = machine("containerd-silent", "hold");
        let host = host_in(&folder);
        folder.be_the_machine(&[("crictl", "echo 'connection refused'; exit 1")]);
        assert!(!host.containerd_now().await.expect("told").answers);
        std::fs::remove_file(folder.path("bin/crictl")).expect("removed");
        let error = host.containerd_now().await.expect_err("nobody can tell").to_string();
        assert!(error.contains("crictl"), "{error}");
    }

    #[tokio::test]
    async fn it_is_restarted_once_by_its_unit_after_systemd_has_read_it_anew() {
        let folder = machine("containerd-restart", "hold");
        host_in(&folder).restart_containerd_unit().await.expect("restarted");
        assert_eq!(folder.calls(), ["systemctl daemon-reload", "systemctl restart containerd.service"]);
    }
}
