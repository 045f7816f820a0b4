//! The kubelet: the binary on disk, the process that systemd runs, its restart.

use super::RealHost;
use super::failure::{self, transient};
use super::program::Program;
use chrono::{DateTime, NaiveDateTime};
use cupcake_crds::values::KubeVersion;
use cupcake_engine::clock::Timestamp;
use cupcake_steps::ports::host::{HostError, KubeletState};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

pub(super) const BINARY: &str = "/usr/bin/kubelet";
pub(super) const UNIT: &str = "kubelet.service";
/// How long systemd may take to stop and start it: its stop alone has 90 s by default.
const RESTART_LIMIT: Duration = Duration::from_secs(3 * 60);
const RESTART_FAILED: &str = "KubeletRestartFailed";
const PROPERTIES: &str = "ActiveState,MainPID,ExecMainStartTimestamp,NRestarts";

/// A unit as `systemctl show` prints it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) active: bool,
    pub(super) main_pid: u32,
    pub(super) started: Option<Timestamp>,
    pub(super) restarts: u32,
}

fn unit(text: &str) -> Unit {
    let mut unit = Unit::default();
    for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
        match name {
            "ActiveState" => unit.active = value == "active",
            "MainPID" => unit.main_pid = value.parse().unwrap_or(0),
            "ExecMainStartTimestamp" => unit.started = time(value),
            "NRestarts" => unit.restarts = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    unit
}

/// `Sun 2026-11-22 17:29:23 UTC`: programs run with TZ=UTC here.
fn time(text: &str) -> Option<Timestamp> {
    NaiveDateTime::parse_from_str(text, "%a %Y-%m-%d %H:%M:%S UTC").ok().map(|time| time.and_utc())
}

/// The version in `Kubernetes v1.33.13`.
fn version(text: &str) -> Option<KubeVersion> {
    text.trim().strip_prefix("Kubernetes ")?.parse().ok()
}

impl RealHost {
    pub(super) async fn kubelet_version(&self) -> Option<KubeVersion> {
        let finished = Program::asking("kubelet", ["--version"]).run().await.ok()?;
        version(&finished.stdout)
    }

    pub(super) async fn kubelet_now(&self) -> Result<KubeletState, HostError> {
        let unit = self.unit_now(UNIT).await?;
        Ok(KubeletState {
            installed: self.kubelet_version().await,
            active: unit.active,
            runs_installed: self.runs_installed(&unit, BINARY),
            since: unit.started,
            restarts: unit.restarts,
            booted: self.files.uptime().map(|uptime| self.settings.clock.now() - uptime),
        })
    }

    pub(super) async fn unit_now(&self, name: &str) -> Result<Unit, HostError> {
        let asked = Program::asking("systemctl", ["show", name, "--property", PROPERTIES]).run().await;
        let finished = asked.map_err(|error| failure::program(&error, &[], "SystemdAway"))?;
        Ok(unit(&finished.stdout))
    }

    /// Whether the unit's last process was started from the file that is installed now. dpkg puts a new file in the place of
    /// the old one, so the old process keeps a file that has no name any more.
    pub(super) fn runs_installed(&self, unit: &Unit, binary: &str) -> bool {
        let Ok(installed) = self.files.path(binary).metadata() else {
            return false;
        };
        if unit.main_pid == 0 {
            // Between two starts there is no process to look at: it counts if it began after the file was put there.
            let put = DateTime::from_timestamp(installed.ctime(), 0);
            return unit.started.zip(put).is_some_and(|(started, put)| started > put);
        }
        let executable = self.files.path(&format!("/proc/{}/exe", unit.main_pid));
        let removed = std::fs::read_link(&executable).is_ok_and(|target| is_removed(&target));
        let same = |running: std::fs::Metadata| (running.dev(), running.ino()) == (installed.dev(), installed.ino());
        !removed && executable.metadata().is_ok_and(same)
    }

    pub(super) async fn restart_kubelet_unit(&self) -> Result<(), HostError> {
        systemctl(&["daemon-reload"], RESTART_FAILED).await?;
        // What systemd has read now is what the kubelet would be started with.
        self.kubelet_fits().await?;
        systemctl(&["restart", UNIT], RESTART_FAILED).await
    }

    /// `systemctl daemon-reload` and `systemctl restart`; `failed` is the code of what goes wrong.
    pub(super) async fn restart_unit(&self, unit: &str, failed: &'static str) -> Result<(), HostError> {
        systemctl(&["daemon-reload"], failed).await?;
        systemctl(&["restart", unit], failed).await
    }
}

async fn systemctl(arguments: &[&str], failed: &'static str) -> Result<(), HostError> {
    let program = Program::doing("systemctl", RESTART_LIMIT, arguments.iter().copied());
    program.run().await.map(drop).map_err(|error| transient(failed, failure::chain(&error)))
}

fn is_removed(target: &Path) -> bool {
    target.to_string_lossy().ends_with(" (deleted)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::test_folder::TestFolder;
    use crate::real::tests::host_in;

    #[test]
    fn a_unit_is_read_as_systemctl_show_prints_it() {
        let text = "MainPID=561\nExecMainStartTimestamp=Sun 2026-11-22 17:29:23 UTC\nActiveState=active\n";
        let started = "2026-11-22T17:29:23Z".parse().ok();
        assert_eq!(unit(text), Unit { active: true, main_pid: 561, started, restarts: 0 });
        let text = "MainPID=0\nNRestarts=7\nExecMainStartTimestamp=\nActiveState=activating\n";
        assert_eq!(unit(text), Unit { restarts: 7, ..Unit::default() });
    }

    #[test]
    fn the_version_is_read_as_the_kubelet_prints_it() {
        assert_eq!(version("Kubernetes v1.33.13\n"), Some(KubeVersion::new(1, 33, 13)));
        assert_eq!(version("kubelet 1.33.13"), None);
    }

    #[test]
    fn a_process_runs_the_installed_file_until_that_is_replaced() {
        let folder = TestFolder::new("runs-installed");
        let host = host_in(&folder);
        let unit = |main_pid| Unit { active: true, main_pid, started: Some(DateTime::UNIX_EPOCH), restarts: 0 };
        assert!(!host.runs_installed(&unit(7), BINARY), "nothing is installed");
        folder.write(BINARY, "old");
        folder.write("/proc/7/cmdline", "");
        std::fs::hard_link(folder.path(BINARY), folder.path("/proc/7/exe")).expect("linked");
        assert!(host.runs_installed(&unit(7), BINARY));
        folder.write("/usr/bin/kubelet.dpkg-new", "new");
        std::fs::rename(folder.path("/usr/bin/kubelet.dpkg-new"), folder.path(BINARY)).expect("replaced");
        assert!(!host.runs_installed(&unit(7), BINARY), "the process still has the old file");
    }

    #[test]
    fn between_two_starts_the_times_tell() {
        let folder = TestFolder::new("between-starts");
        let host = host_in(&folder);
        folder.write(BINARY, "new");
        let unit = |started: &str| Unit { started: started.parse().ok(), ..Unit::default() };
        assert!(!host.runs_installed(&unit("2001-01-01T00:00:00Z"), BINARY), "it began before the file was put there");
        assert!(host.runs_installed(&unit("2999-01-01T00:00:00Z"), BINARY));
        assert!(is_removed(Path::new("/usr/bin/kubelet (deleted)")) && !is_removed(Path::new("/usr/bin/kubelet")));
    }
}
