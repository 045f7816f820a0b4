//! The database of rpm, which dnf and zypper work on alike: what is installed, and what an interrupted transaction left.
//!
//! An upgrade unpacks all files of the newer version beside the old ones, moves each over its own, adds the version to the database,
//! and only then removes the older one (rpm 4.18, lib/psm.c). So one that was killed leaves either the older version alone, perhaps
//! with files of the newer one, or both: two versions of one name are an interrupted upgrade, and the newest is what its files are of.

use super::{Found, LOCK_AGAIN, LOCK_SECONDS_MAX, Locked, past_lock};
use crate::real::failure::{self, transient};
use crate::real::os::Files;
use crate::real::program::{Program, ProgramError};
use cupcake_crds::values::PackageVersion;
use cupcake_steps::ports::host::{HostError, PackageState};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const FORMAT: &str = "%{EPOCHNUM}\\t%{VERSION}-%{RELEASE}\\n";
/// How long the names of files that rpm unpacks are the same.
const NAMES_LAST: Duration = Duration::from_secs(1);
const REBUILD_LIMIT: Duration = Duration::from_secs(10 * 60);
/// Where the packages put their programs; SUSE's containerd is in the second one.
const PROGRAMS: [&str; 2] = ["/usr/bin", "/usr/sbin"];
/// The programs of containerd without which no container starts.
const OF_CONTAINERD: [&str; 2] = ["containerd", "containerd-shim-runc-v2"];

/// How rpm says that another process works on packages; dnf and zypper pass it on.
pub(super) const TRANSACTION_LOCK: &str = "can't create transaction lock";

/// How rpm says that a process which died in its database left it locked or broken; rpm below 4.16 has that of Berkeley DB.
const BROKEN: [&str; 4] =
    ["DB_RUNRECOVERY", "Thread died in Berkeley DB library", "rpmdb open failed", "database disk image is malformed"];

/// A version of a package that is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Installed {
    epoch: String,
    /// Version and release: `1.34.4-150500.1.1`.
    pub(super) version: String,
}

impl Installed {
    /// With the epoch, also where it is 0.
    pub(super) fn evr(&self) -> String {
        format!("{}:{}", self.epoch, self.version)
    }

    /// With the epoch where there is one, as package managers write it.
    fn whole(&self) -> String {
        if self.epoch == "0" { self.version.clone() } else { self.evr() }
    }
}

/// Reads lines of [`FORMAT`], oldest first.
fn installed(text: &str) -> Option<Vec<Installed>> {
    let mut versions = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (epoch, version) = line.split_once('\t')?;
        versions.push(Installed { epoch: epoch.to_owned(), version: version.to_owned() });
    }
    versions.sort_by_cached_key(|installed| installed.evr().parse::<PackageVersion>().ok());
    Some(versions)
}

/// The installed versions of a package, oldest first.
pub(super) async fn query(package: &str) -> Result<Vec<Installed>, HostError> {
    let asked = Program::asking("rpm", ["--query", "--queryformat", FORMAT, package]).run().await;
    let text = match asked {
        Ok(finished) => finished.stdout,
        Err(ProgramError::Failed { last_lines, .. }) if last_lines.contains("is not installed") => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(failure::program(&error, &[], "PackageUnknown")),
    };
    installed(&text)
        .ok_or_else(|| transient("PackageUnknown", format!("rpm says of {package} what cannot be read: {text}")))
}

/// What these versions of one package are.
pub(super) fn found(versions: &[Installed], held: bool) -> Found {
    let version = versions.last().map(Installed::whole);
    let state = PackageState { version, whole: versions.len() == 1, held };
    Found { state, reinstall: versions.len() > 1 }
}

/// The programs of a package by which it is known to be what it brought.
fn programs_of(package: &str) -> Vec<&str> {
    if package.starts_with(OF_CONTAINERD[0]) { OF_CONTAINERD.to_vec() } else { vec![package] }
}

/// Whether lines of `rpm --verify` say that a program of the package is another than it brought, or gone. What else was changed
/// (units, above all) is the administrator's.
fn says_changed(verified: &str, package: &str) -> bool {
    let programs: Vec<String> =
        programs_of(package).iter().flat_map(|name| PROGRAMS.map(|folder| format!(" {folder}/{name}"))).collect();
    let mut lines =
        verified.lines().filter(|line| programs.iter().any(|program| line.trim_end().ends_with(program.as_str())));
    lines.any(|line| line.starts_with("missing") || line.chars().nth(2) == Some('5'))
}

/// Whether the program of the package is what it brought: rpm does not sync files, and one that lost its power may have none.
pub(super) async fn is_intact(package: &str) -> Result<bool, HostError> {
    let verified = Program::asking("rpm", ["--verify", "--nodeps", "--noscripts", package]).run().await;
    match verified {
        Ok(_) => Ok(true),
        Err(ProgramError::Failed { stdout, .. }) if !stdout.trim().is_empty() => Ok(!says_changed(&stdout, package)),
        Err(error) => Err(failure::program(&error, &[], "PackageUnknown")),
    }
}

/// Rebuilds the database where a process that died in it left it unusable.
pub(super) async fn repair() -> Result<(), HostError> {
    let Err(error) = Program::asking("rpm", ["--query", "rpm"]).run().await else { return Ok(()) };
    if !BROKEN.iter().any(|words| error.last_lines().contains(words)) {
        return Ok(());
    }
    tracing::warn!("the database of rpm is rebuilt: {}", failure::chain(&error));
    let locked = Locked { words: &[TRANSACTION_LOCK], code: None };
    let program = Program::doing("rpm", REBUILD_LIMIT, ["--rebuilddb"]);
    let rebuilt = past_lock(program, &locked, LOCK_AGAIN, LOCK_SECONDS_MAX).await;
    rebuilt.map(drop).map_err(|error| failure::program(&error, &[], "PackagesBroken"))
}

/// What was left over, once no transaction of ours can want names of it: rpm marks such files by the second in which it began, and fails
/// on one that is there.
pub(super) async fn left_over_before(files: &Files, packages: &[&str]) -> Vec<PathBuf> {
    let found = left_over(files, packages);
    if !found.is_empty() {
        tokio::time::sleep(NAMES_LAST).await;
    }
    found
}

/// Programs that a transaction has unpacked and not moved to their place. One that goes on has such, too: they may be removed once a
/// transaction of ours was done that began later, since no two go on at once.
fn left_over(files: &Files, packages: &[&str]) -> Vec<PathBuf> {
    let programs: Vec<&str> = packages.iter().flat_map(|package| programs_of(package)).collect();
    let is_one = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        programs.iter().any(|program| is_left_over(name, program))
    };
    PROGRAMS.iter().flat_map(|folder| files.entries(folder)).filter(is_one).collect()
}

/// Removes what was left over.
pub(super) fn remove(left_over: &[PathBuf]) -> Result<(), HostError> {
    for path in left_over {
        match fs::remove_file(path) {
            Ok(()) => tracing::info!(file = %path.display(), "removed: an interrupted transaction left it"),
            // The transaction moved it to its place meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failure::file("removing", path, &error)),
        }
    }
    Ok(())
}

/// Whether a file is that program under the name that rpm unpacks it to: `kubelet;6a1c0f2e`.
fn is_left_over(name: &str, program: &str) -> bool {
    let suffix = name.strip_prefix(program).and_then(|rest| rest.strip_prefix(';'));
    suffix.is_some_and(|suffix| suffix.len() == 8 && suffix.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::test_folder::TestFolder;

    #[test]
    fn two_versions_of_one_package_are_an_interrupted_upgrade() {
        let found = |text: &str| {
            let Found { state, reinstall } = found(&installed(text).expect("it can be read"), false);
            (state.version, state.whole, reinstall)
        };
        assert_eq!(found("0\t1.33.13-150500.1.1\n"), (Some("1.33.13-150500.1.1".to_owned()), true, false));
        let both = "0\t1.34.10-150500.1.1\n0\t1.34.4-150500.1.1\n";
        assert_eq!(found(both), (Some("1.34.10-150500.1.1".to_owned()), false, true), "sorted as versions");
        assert_eq!(found(""), (None, false, false));
        assert_eq!(installed("what is this\n"), None);
        assert_eq!(installed("1\t1.34.4-1.1\n").expect("read")[0].evr(), "1:1.34.4-1.1");
        assert_eq!(found("1\t1.7.24-1.fc42\n").0.as_deref(), Some("1:1.7.24-1.fc42"), "an epoch is part of it");
    }

    #[test]
    fn a_changed_program_is_told_from_changed_configuration() {
        let changed = |text: &str| says_changed(text, "kubelet");
        assert!(changed("S.5....T.  c /etc/sysconfig/kubelet\nS.5....T.    /usr/bin/kubelet\n"));
        assert!(changed("missing     /usr/bin/kubelet\n"));
        assert!(!changed(".......T.    /usr/bin/kubelet\n.M.......    /usr/bin/kubelet\n"));
        assert!(!changed("S.5....T.    /usr/lib/systemd/system/kubelet.service\nS.5....T.    /opt/usr/bin/kubelet\n"));
        assert!(!changed(""));
        let of_containerd = |text: &str| says_changed(text, "containerd.io");
        assert!(
            of_containerd("S.5....T.    /usr/bin/containerd\n") && of_containerd("missing     /usr/sbin/containerd\n")
        );
        assert!(!of_containerd("S.5....T.  c /etc/containerd/config.toml\nS.5....T.    /usr/bin/runc\n"));
    }

    #[tokio::test]
    async fn what_a_killed_process_left_is_cleared_away_and_nothing_else() {
        let folder = TestFolder::new("rpm-left");
        let left = ["kubelet;6a1c0f2e", "kubeadm;00000000", "containerd;6a1c0f2e", "containerd-shim-runc-v2;6a1c0f2e"];
        let kept = ["kubelet", "kubelet;notes", "kubectl;6a1c0f2e", "runc;6a1c0f2e"];
        for name in left.iter().chain(&kept) {
            folder.write(&format!("{}/{name}", PROGRAMS[0]), "");
        }
        folder.write("/usr/sbin/containerd;6a1c0f2e", "");
        let broken = "if [ $1 = --rebuilddb ]; then : >$here/rebuilt; exit 0; fi
            [ -e $here/rebuilt ] || { echo 'error: rpmdb: BDB0113 Thread/process 1/2 failed: BDB1507 Thread died in Berkeley DB library'; exit 1; }";
        folder.be_the_machine(&[("rpm", broken)]);
        let files = Files::below(folder.root().to_owned());
        for _ in 0..2 {
            repair().await.expect("repaired");
            remove(&left_over(&files, &["kubelet", "kubeadm", "containerd.io"])).expect("removed");
        }
        assert_eq!(folder.calls(), ["rpm --query rpm", "rpm --rebuilddb", "rpm --query rpm"]);
        let names: Vec<_> = PROGRAMS
            .iter()
            .flat_map(|folder| files.entries(folder))
            .map(|path| path.file_name().expect("a name").to_owned())
            .collect();
        let mut expected = kept.map(std::ffi::OsString::from).to_vec();
        expected.sort();
        assert_eq!(names, expected);
    }
}
