//! The machine's configuration of Kubernetes as it was before kubeadm changed it, in one tar file that only root can read: it holds keys.
//!
//! `tar -tvf FILE` lists it, `tar -xpf FILE -C / etc/kubernetes/manifests` puts a part of it back. Written beside its place, fsynced
//! and renamed, as snapshots are; one that is there is never written again, for it is from before the first change.

use super::RealHost;
use super::failure::{self, needs_operator, permanent};
use super::os::sync_folder;
use super::program::Program;
use cupcake_steps::ports::host::{HostError, SNAPSHOT_NAME_CHARS_MAX};
use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What is archived of a machine, where it is there.
const MEMBERS: [&str; 5] = [
    "etc/kubernetes",
    "var/lib/kubelet/config.yaml",
    "var/lib/kubelet/instance-config.yaml",
    "var/lib/kubelet/kubeadm-flags.env",
    "etc/default/kubelet",
];
/// kubeadm's copies of etcd's data are not configuration.
const LEFT_OUT: &str = "etc/kubernetes/tmp";
/// The largest configuration, in bytes; that of a node has some hundred kilobytes.
const BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How long tar may take.
const LIMIT: Duration = Duration::from_secs(2 * 60);
/// Archives that stay on the disk, the newest ones: an update takes one a hop.
const KEPT_MAX: usize = 5;
const ENDING: &str = "tar";

impl RealHost {
    fn archive_folder(&self) -> PathBuf {
        self.settings.state.join("configuration")
    }

    fn archive_file(&self, name: &str) -> Result<PathBuf, HostError> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        let plain = name.chars().all(legal) && name.starts_with(|first: char| first.is_ascii_alphanumeric());
        if !plain || name.len() > SNAPSHOT_NAME_CHARS_MAX {
            return Err(permanent("BadArchiveName", format!("{name:?} cannot name an archive")));
        }
        Ok(self.archive_folder().join(format!("{name}.{ENDING}")))
    }

    pub(super) fn has_archive(&self, name: &str) -> Result<bool, HostError> {
        Ok(self.archive_file(name)?.exists())
    }

    pub(super) async fn archive(&self, name: &str) -> Result<(), HostError> {
        let file = self.archive_file(name)?;
        let folder = self.archive_folder();
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|error| failure::file("making", &folder, &error))?;
        let members: Vec<&str> = MEMBERS.into_iter().filter(|member| self.files.has(member)).collect();
        self.check_size(&members)?;

        let part = file.with_extension("part");
        // tar keeps the mode of a file that is there: nobody else ever reads a byte of it.
        let opened = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part);
        drop(opened.map_err(|error| failure::file("making", &part, &error))?);
        let root = self.files.path("/").display().to_string();
        let (target, left_out) = (part.display().to_string(), format!("--exclude={LEFT_OUT}"));
        let arguments = ["--create", "--file", &target, "--directory", &root, &left_out, "--"];
        let tar = Program::doing("tar", LIMIT, arguments.into_iter().chain(members));
        tar.run().await.map_err(|error| failure::program(&error, &[], "ArchiveFailed"))?;
        let synced = fs::File::open(&part).and_then(|file| file.sync_all());
        synced.map_err(|error| failure::file("syncing", &part, &error))?;
        fs::rename(&part, &file).map_err(|error| failure::file("finishing", &file, &error))?;
        sync_folder(&folder)?;
        keep_newest(&folder, KEPT_MAX);
        Ok(())
    }

    fn check_size(&self, members: &[&str]) -> Result<(), HostError> {
        let bytes = |path: &str| {
            let file = self.files.path(path).metadata().ok().filter(fs::Metadata::is_file).map(|file| file.len());
            file.or_else(|| self.files.folder_bytes(path)).unwrap_or_default()
        };
        let whole: u64 = members.iter().map(|member| bytes(member)).fold(0, u64::saturating_add);
        let configuration = whole.saturating_sub(bytes(LEFT_OUT));
        if configuration <= BYTES_MAX {
            return Ok(());
        }
        Err(needs_operator(
            "ConfigurationTooLarge",
            format!(
                "/etc/kubernetes holds {} MB, more than the {} MB that are archived before kubeadm changes it: move what is no \
                 configuration elsewhere, then retry",
                configuration / 1_000_000,
                BYTES_MAX / 1_000_000
            ),
        ))
    }
}

/// Removes archives but the newest ones. One that cannot be removed stays: the one that was asked for is there.
fn keep_newest(folder: &Path, count: usize) {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let archives = entries.filter(|path| path.extension().is_some_and(|ending| ending == ENDING));
    let modified = |path: &PathBuf| path.metadata().and_then(|file| file.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut archives: Vec<(SystemTime, PathBuf)> = archives.map(|path| (modified(&path), path)).collect();
    archives.sort();
    for (_, old) in archives.iter().rev().skip(count) {
        if let Err(error) = fs::remove_file(old) {
            tracing::warn!(archive = %old.display(), %error, "an old archive stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::test_folder::TestFolder;
    use crate::real::tests::host_in;
    use std::os::unix::fs::PermissionsExt;

    fn listed(archive: &Path) -> String {
        let out = std::process::Command::new("tar").arg("-tf").arg(archive).output().expect("tar is there");
        String::from_utf8(out.stdout).expect("names")
    }

    #[tokio::test]
    async fn the_configuration_of_before_is_archived_once_for_root_only_and_without_kubeadms_copies() {
        let folder = TestFolder::new("archive");
        let host = host_in(&folder);
        folder.write("/etc/kubernetes/manifests/etcd.yaml", "old");
        folder.write("/etc/kubernetes/pki/ca.key", "key");
        folder.write("/etc/kubernetes/tmp/kubeadm-backup-etcd-1/db", "data");
        folder.write("/var/lib/kubelet/config.yaml", "x");
        folder.write("/var/lib/kubelet/pods/secret", "x");
        assert_eq!(host.has_archive("run-1.34.4"), Ok(false));
        host.archive("run-1.34.4").await.expect("archived");
        assert_eq!(host.has_archive("run-1.34.4"), Ok(true));
        let file = host.archive_file("run-1.34.4").expect("a name");
        let names = listed(&file);
        for there in ["etc/kubernetes/manifests/etcd.yaml", "etc/kubernetes/pki/ca.key", "var/lib/kubelet/config.yaml"]
        {
            assert!(names.contains(there), "{there}: {names}");
        }
        assert!(!names.contains("backup-etcd") && !names.contains("secret"), "{names}");
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(host.archive_folder()).expect("there").permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(host.archive_folder()).expect("there").count(), 1, "nothing beside it");
        for bad in ["", "../up", ".hidden", "a/b"] {
            assert!(host.has_archive(bad).is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn what_was_cut_short_is_no_archive_and_what_is_too_large_is_not_begun() {
        let folder = TestFolder::new("archive-cut");
        let host = host_in(&folder);
        folder.write("/etc/kubernetes/admin.conf", "x");
        folder.be_the_machine(&[("tar", "echo no space left; exit 2")]);
        host.archive("a").await.expect_err("tar failed");
        assert_eq!(host.has_archive("a"), Ok(false));
        let large = fs::File::create(folder.path("/etc/kubernetes/log")).expect("made");
        large.set_len(BYTES_MAX + 1).expect("sparse");
        folder.calls();
        let error = host.archive("a").await.expect_err("too large");
        assert!(
            matches!(&error, HostError::NeedsOperator(reason) if reason.code == "ConfigurationTooLarge"),
            "{error}"
        );
        assert_eq!(folder.calls(), Vec::<String>::new());
    }

    #[test]
    fn the_newest_archives_stay() {
        let folder = TestFolder::new("archive-kept");
        for number in 1..=4_u64 {
            folder.write(&format!("configuration/{number}.tar"), "x");
            let file = fs::File::options().write(true).open(folder.path(&format!("configuration/{number}.tar")));
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000 - number);
            file.and_then(|file| file.set_modified(at)).expect("set");
        }
        folder.write("configuration/notes", "x");
        keep_newest(&folder.path("configuration"), 2);
        let mut left: Vec<_> = fs::read_dir(folder.path("configuration"))
            .expect("there")
            .map(|entry| entry.expect("read").file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["1.tar", "2.tar", "notes"]);
    }
}
