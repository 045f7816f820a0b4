//! Locks of packages that are off while an install goes on: remembered on disk before they are taken off, and put back whatever
//! happens, by the next call if not by this one.
//!
//! ```text
//!   take:      remember (fsync) ──► the file without them          killed anywhere: what is remembered is put back by the next hold
//!   put back:  the file with them ──► forget
//! ```
//! The files are written as a whole, and not by the package manager's own commands: those need its lock, and one that was killed in
//! between would have to be asked what it did.

use super::holds::Kept;
use super::repository::{remove_file, write_json};
use crate::real::RealHost;
use crate::real::failure::{self, needs_operator};
use crate::real::os::write_whole;
use cupcake_steps::ports::host::HostError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A file of locks, as text. `evr` is an installed version: `0:1.34.4-150500.1.1`.
pub(super) trait Locks: Send + Sync {
    /// The text without locks that would keep another version of the package away, and those, each as it stands there.
    fn take(&self, text: &str, package: &str) -> (String, Vec<String>);
    /// The text with locks that were taken: at the installed version where they name one, as they were where nothing is installed.
    fn put_back(&self, text: &str, package: &str, evr: Option<&str>, taken: &[String]) -> String;
    /// Whether the package stays at that version.
    fn holds(&self, text: &str, package: &str, evr: &str) -> bool;
    /// What is there about the package: what [`Locks::take`] takes, and what it leaves.
    fn keeps(&self, text: &str, package: &str) -> Vec<Kept>;
}

/// Locks that are off, as they stood in their file, by package.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    packages: BTreeMap<String, Vec<String>>,
}

/// The text of a file; empty where there is none.
pub(super) fn text_of(path: &Path) -> Result<String, HostError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(failure::file("reading", path, &error)),
    }
}

pub(super) fn write_locks(path: &Path, text: &str) -> Result<(), HostError> {
    let mode = fs::metadata(path).map_or(0o644, |metadata| metadata.permissions().mode() & 0o777);
    write_whole(path, text.as_bytes(), mode)
}

impl RealHost {
    fn remembered_locks(&self) -> PathBuf {
        self.settings.state.join("package-locks.json")
    }

    /// Takes the locks of these packages off.
    pub(super) fn take_locks(&self, file: &Path, locks: &dyn Locks, packages: &[&str]) -> Result<(), HostError> {
        let mut text = text_of(file)?;
        let mut remembered = self.memory_of_locks()?;
        let mut any = false;
        for package in packages {
            let (kept, taken) = locks.take(&text, package);
            if taken.is_empty() {
                continue;
            }
            text = kept;
            any = true;
            tracing::info!(package, locks = taken.len(), file = %file.display(), "the locks are taken off, and remembered");
            let known = remembered.packages.entry((*package).to_owned()).or_default();
            for lock in taken {
                if !known.contains(&lock) {
                    known.push(lock);
                }
            }
        }
        if !any {
            return Ok(());
        }
        write_json(&self.remembered_locks(), &remembered)?;
        write_locks(file, &text)
    }

    /// Puts back what is remembered; `installed` tells the version of each package that is installed.
    pub(super) fn put_locks_back(
        &self,
        file: &Path,
        locks: &dyn Locks,
        installed: &BTreeMap<String, String>,
    ) -> Result<(), HostError> {
        let remembered = self.memory_of_locks()?;
        if remembered.packages.is_empty() {
            return Ok(());
        }
        let before = text_of(file)?;
        let mut text = before.clone();
        for (package, taken) in &remembered.packages {
            text = locks.put_back(&text, package, installed.get(package).map(String::as_str), taken);
            tracing::info!(package, file = %file.display(), "the locks are put back");
        }
        if text != before {
            write_locks(file, &text)?;
        }
        remove_file(&self.remembered_locks())
    }

    /// Packages whose locks are off and are to be put back.
    pub(super) fn packages_without_their_locks(&self) -> Result<Vec<String>, HostError> {
        Ok(self.memory_of_locks()?.packages.into_keys().collect())
    }

    /// Whether locks of that package are to be put back; also where what remembers them cannot be read: putting back says so.
    pub(super) fn owes_locks(&self, package: &str) -> bool {
        self.memory_of_locks().map_or(true, |memory| memory.packages.contains_key(package))
    }

    /// The plugin that read `file` is off: what was taken off for it can be put back nowhere.
    pub(super) fn nowhere_to_put_locks_back(&self, plugin: &str, file: &str) -> Result<(), HostError> {
        let owed = self.packages_without_their_locks()?;
        if owed.is_empty() {
            return Ok(());
        }
        Err(needs_operator(
            "LocksOwed",
            format!(
                "locks of {} were taken off for an install, and {plugin} is turned off by now in {file}: turn it on there (enabled, locklist), then retry; or remove {}, which remembers them",
                owed.join(", "),
                self.remembered_locks().display()
            ),
        ))
    }

    /// What is remembered; nothing where there is no such file. One that cannot be read is no empty one: what it holds is owed.
    fn memory_of_locks(&self) -> Result<Remembered, HostError> {
        let path = self.remembered_locks();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Remembered::default()),
            Err(error) => return Err(failure::file("reading", &path, &error)),
        };
        serde_json::from_slice(&bytes).map_err(|error| {
            needs_operator(
                "LocksOwed",
                format!(
                    "{} remembers locks of packages that are off, and cannot be read ({error}): lock what has to be locked by hand, remove that file, then retry",
                    path.display()
                ),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::packages::dnf_locks::VersionlockList;
    use crate::real::packages::zypp_locks::ZyppLocks;
    use crate::real::test_folder::TestFolder;
    use crate::real::tests::host_in;

    const BEFORE: &str = "kubelet-0:1.33.13-1.1.*\nbash-0:5.2-1.*\n";

    fn installed(evr: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("kubelet".to_owned(), evr.to_owned())])
    }

    #[test]
    fn locks_come_back_after_a_kill_at_any_of_the_four_writes() {
        let folder = TestFolder::new("remembered");
        let host = host_in(&folder);
        let file = folder.path("/etc/dnf/plugins/versionlock.list");
        let put = |evr: &str| host.put_locks_back(&file, &VersionlockList, &installed(evr));
        let lock = |text: &str| folder.write("/etc/dnf/plugins/versionlock.list", text);
        let there = || folder.read("/etc/dnf/plugins/versionlock.list");
        // Killed after they were remembered, before they were off.
        lock(BEFORE);
        host.take_locks(&file, &VersionlockList, &["kubeadm", "kubelet"]).expect("off");
        let remembered = fs::read(host.remembered_locks()).expect("remembered");
        lock(BEFORE);
        put("0:1.33.13-1.1").expect("back");
        assert_eq!(there(), BEFORE, "and none twice");
        // Killed while they were off; the next one takes off nothing, and installs.
        host.take_locks(&file, &VersionlockList, &["kubelet"]).expect("off");
        host.take_locks(&file, &VersionlockList, &["kubelet"]).expect("off");
        assert_eq!(there(), "bash-0:5.2-1.*\n");
        assert_eq!(host.packages_without_their_locks(), Ok(vec!["kubelet".to_owned()]));
        put("0:1.34.4-1.1").expect("back");
        assert_eq!(there(), "bash-0:5.2-1.*\nkubelet-0:1.34.4-1.1.*\n", "at the version that is installed now");
        // Killed after they were back, before they were forgotten.
        write_whole(&host.remembered_locks(), &remembered, 0o600).expect("as it was");
        put("0:1.34.4-1.1").expect("back");
        assert_eq!(there(), "bash-0:5.2-1.*\nkubelet-0:1.34.4-1.1.*\n");
        assert_eq!(host.packages_without_their_locks(), Ok(Vec::new()));
    }

    #[test]
    fn a_damaged_memory_is_told_and_never_taken_for_an_empty_one() {
        let folder = TestFolder::new("remembered-damaged");
        let host = host_in(&folder);
        let file = folder.path("/etc/dnf/plugins/versionlock.list");
        folder.write("/etc/dnf/plugins/versionlock.list", BEFORE);
        host.take_locks(&file, &VersionlockList, &["kubelet"]).expect("off");
        write_whole(&host.remembered_locks(), b"{\"packages\":", 0o600).expect("cut short");
        folder.write("/etc/dnf/plugins/versionlock.list", "kubeadm-0:1.33.13-1.1.*\n");
        let took = host.take_locks(&file, &VersionlockList, &["kubeadm"]);
        let put = host.put_locks_back(&file, &VersionlockList, &installed("0:1.34.4-1.1"));
        for told in [took, put] {
            let told = told.expect_err("told").to_string();
            assert!(told.contains("LocksOwed") && told.contains("package-locks.json"), "{told}");
        }
        assert_eq!(
            folder.read("/etc/dnf/plugins/versionlock.list"),
            "kubeadm-0:1.33.13-1.1.*\n",
            "nothing is taken off"
        );
        assert_eq!(fs::read(host.remembered_locks()).expect("there"), b"{\"packages\":", "nor written over");
        assert!(host.owes_locks("kubelet"));
    }

    #[test]
    fn a_file_without_locks_is_not_written_and_one_that_went_meanwhile_is_made_anew() {
        let folder = TestFolder::new("remembered-none");
        let host = host_in(&folder);
        let file = folder.path("/etc/zypp/locks");
        host.take_locks(&file, &ZyppLocks, &["kubelet"]).expect("nothing to do");
        host.put_locks_back(&file, &ZyppLocks, &installed("0:1.34.4-1.1")).expect("nothing to do");
        assert!(!file.exists());
        let lock = "type: package\nmatch_type: glob\ncase_sensitive: on\nsolvable_name: kubelet\n";
        folder.write("/etc/zypp/locks", lock);
        host.take_locks(&file, &ZyppLocks, &["kubelet"]).expect("off");
        fs::remove_file(&file).expect("removed");
        host.put_locks_back(&file, &ZyppLocks, &BTreeMap::new()).expect("back");
        assert!(ZyppLocks.holds(&folder.read("/etc/zypp/locks"), "kubelet", ""));
    }
}
