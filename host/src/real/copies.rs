//! The copies that kubeadm's upgrades leave in /etc/kubernetes/tmp: etcd's data, the manifests before, the manifests after.
//!
//! Source: kubernetes/kubernetes, cmd/kubeadm/app/phases/upgrade/staticpods.go (`NewKubeStaticPodPathManagerUsingTempDirs`) and
//! constants.go (`CreateTempDir`, `CreateTimestampDir`), the same in 1.33 and 1.34. Its copies of the kubelet's configuration
//! (kubeadm-kubelet-config…) are a few kilobytes and are what a kubelet that does not start is repaired from: they stay.

use super::RealHost;
use super::failure::{self, transient};
use super::kubeadm::BACKUPS;
use super::os::sync_folder;
use cupcake_steps::ports::host::HostError;
use std::collections::BTreeSet;
use std::fs;

/// How the names of its folders begin; what follows is a time, or letters drawn by chance.
const PREFIXES: [&str; 3] = ["kubeadm-backup-etcd", "kubeadm-backup-manifests", "kubeadm-upgraded-manifests"];

fn is_copy(name: &str) -> bool {
    !name.contains('/') && PREFIXES.into_iter().any(|prefix| name.starts_with(prefix))
}

impl RealHost {
    /// The names of the folders; a link to a folder elsewhere is none of them.
    pub(super) fn copies_of_kubeadm(&self) -> BTreeSet<String> {
        let folders = self.files.entries(BACKUPS).into_iter().filter(|path| path.is_dir() && !path.is_symlink());
        let names = folders.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()));
        names.filter(|name| is_copy(name)).collect()
    }

    pub(super) async fn remove_copies(&self, names: &BTreeSet<String>) -> Result<(), HostError> {
        let there = self.copies_of_kubeadm();
        let folder = self.files.path(BACKUPS);
        for name in names.intersection(&there) {
            let (path, shown) = (folder.join(name), folder.join(name));
            // Gigabytes of a large etcd take a while.
            let removed = tokio::task::spawn_blocking(move || fs::remove_dir_all(path)).await;
            removed
                .map_err(|error| {
                    transient("FileError", format!("removing {} was cut short: {error}", shown.display()))
                })?
                .map_err(|error| failure::file("removing", &shown, &error))?;
            tracing::info!(copy = %shown.display(), "removed: kubeadm made it in this run");
        }
        if folder.is_dir() { sync_folder(&folder) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::test_folder::TestFolder;
    use crate::real::tests::host_in;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[tokio::test]
    async fn kubeadms_copies_are_removed_by_name_and_nothing_else_of_the_folder_is() {
        let folder = TestFolder::new("copies");
        let host = host_in(&folder);
        assert_eq!(host.copies_of_kubeadm(), names(&[]), "no folder at all");
        host.remove_copies(&names(&["kubeadm-backup-etcd-1"])).await.expect("nothing to do");
        // Names as a real upgrade from 1.33 to 1.34 left them.
        let etcd = "kubeadm-backup-etcd-2026-11-22-17-29-23";
        let old = "kubeadm-backup-etcd-2026-01-01-00-00-00";
        let manifests = "kubeadm-backup-manifests-2026-11-22-17-29-23";
        let upgraded = "kubeadm-upgraded-manifests1234567";
        let kept = ["kubeadm-kubelet-config1234", "kubeadm-backup-etcd.tar", "notes"];
        folder.write(&format!("{BACKUPS}/{etcd}/etcd/member/snap/db"), "data");
        for name in [old, manifests, upgraded, kept[0], kept[2]] {
            folder.write(&format!("{BACKUPS}/{name}/file"), "x");
        }
        folder.write(&format!("{BACKUPS}/{}", kept[1]), "a file, no folder");
        std::os::unix::fs::symlink(
            folder.path("/etc/kubernetes"),
            folder.path(&format!("{BACKUPS}/kubeadm-backup-etcd-link")),
        )
        .expect("linked");
        assert_eq!(host.copies_of_kubeadm(), names(&[etcd, old, manifests, upgraded]));
        let ours =
            names(&[etcd, manifests, upgraded, "kubeadm-backup-etcd-link", "../manifests", kept[0], kept[1], kept[2]]);
        host.remove_copies(&ours).await.expect("removed");
        assert_eq!(host.copies_of_kubeadm(), names(&[old]));
        for name in kept {
            assert!(folder.path(&format!("{BACKUPS}/{name}")).exists(), "{name}");
        }
        assert!(folder.path(&format!("{BACKUPS}/kubeadm-backup-etcd-link")).is_symlink());
        host.remove_copies(&ours).await.expect("may be repeated");
    }
}
