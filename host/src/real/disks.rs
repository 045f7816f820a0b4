//! File systems besides that of /var/lib on which something of an upgrade lands, and the room that is left there.

use super::failure::needs_operator;
use super::{RealHost, Space};
use cupcake_crds::limits::{FOLDER_CHARS_MAX, cut};
use cupcake_crds::node_task::{Disk, DiskUse};
use cupcake_steps::ports::host::{HostError, reserve_bytes};
use std::path::{Path, PathBuf};

const CONTAINERDS: &str = "/etc/containerd/config.toml";
/// containerd's own default.
const CONTAINERD_ROOT: &str = "/var/lib/containerd";
/// The folder below which kubeadm puts its copy of etcd's data (`/etc/kubernetes/tmp`).
pub(super) const CONFIGURATION: &str = "/etc/kubernetes";
/// The folder below which packages put the programs.
const PROGRAMS: &str = "/usr";

/// `root` of containerd's configuration, which stands before its first table.
fn containerd_root(toml: &str) -> Option<&str> {
    let lines = toml.lines().map(str::trim).take_while(|line| !line.starts_with('['));
    let mut values = lines.filter_map(|line| line.strip_prefix("root")?.trim_start().strip_prefix('='));
    let value = values.next()?.trim();
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    value[1..].split(quote).next().filter(|path| path.starts_with('/'))
}

impl RealHost {
    /// The space where that folder lies, or will lie once it is made.
    fn space_at(&self, folder: &Path) -> Option<Space> {
        folder.ancestors().find_map(self.settings.space)
    }

    pub(super) fn disks(&self) -> Vec<Disk> {
        let Some(usual) = self.space_at(&self.files().path("/var/lib")) else {
            return Vec::new();
        };
        let configuration = self.files().text(CONTAINERDS).unwrap_or_default();
        let images = containerd_root(&configuration).unwrap_or(CONTAINERD_ROOT);
        let of_machine = |path: &str| (PathBuf::from(path), self.files().path(path));
        let state = &self.settings.state;
        let lands = [
            (DiskUse::Configuration, of_machine(CONFIGURATION)),
            (DiskUse::Images, of_machine(images)),
            (DiskUse::Packages, of_machine(PROGRAMS)),
            (DiskUse::Snapshots, (state.clone(), state.clone())),
        ];
        let mut disks: Vec<(Space, Disk)> = Vec::new();
        for (what, (path, folder)) in lands {
            let Some(space) = self.space_at(&folder).filter(|space| !space.is_that_of(&usual)) else { continue };
            if let Some((_, disk)) = disks.iter_mut().find(|(known, _)| known.is_that_of(&space)) {
                disk.holds.push(what);
                continue;
            }
            let Space { size_bytes, free_bytes, .. } = space;
            let mut path = path.display().to_string();
            cut(&mut path, FOLDER_CHARS_MAX);
            disks.push((space, Disk { free_bytes, holds: vec![what], path, size_bytes }));
        }
        disks.into_iter().map(|(_, disk)| disk).collect()
    }

    /// Whether kubeadm's copy of etcd's data comes on another file system than that folder.
    pub(super) fn copies_go_elsewhere(&self, folder: &Space) -> bool {
        self.space_at(&self.files().path(CONFIGURATION)).is_some_and(|other| !other.is_that_of(folder))
    }

    /// Refuses to begin where the copy of etcd's data has no room that kubeadm makes first in each upgrade of a control-plane node: it
    /// would fill the disk on which etcd or the kubelet works, and end half-way. Source: kubernetes/kubernetes 1.34,
    /// cmd/kubeadm/app/phases/upgrade/staticpods.go (`performEtcdStaticPodUpgrade`).
    pub(super) fn check_room_for_etcds_copy(&self) -> Result<(), HostError> {
        let data = self.etcd_argument("--data-dir=").and_then(|folder| self.files().folder_bytes(&folder));
        let Some((bytes, space)) = data.zip(self.space_at(&self.files().path(CONFIGURATION))) else {
            return Ok(());
        };
        // What else has to stay free was asked for before anything moved, and may be answered for by a person.
        let needed = bytes.saturating_add(reserve_bytes(0));
        if space.free_bytes >= needed {
            return Ok(());
        }
        Err(needs_operator(
            "DiskFull",
            format!(
                "{CONFIGURATION} has {} MB free and kubeadm needs {} for its copy of etcd's data in {CONFIGURATION}/tmp: make room (old \
                 copies lie there, too), then retry",
                space.free_bytes / 1_000_000,
                needed.div_ceil(1_000_000)
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::test_folder::TestFolder;
    use crate::real::tests::host_in;
    use cupcake_crds::values::KubeVersion;
    use cupcake_steps::ports::host::{KubeProxy, KubeadmUpgrade};

    const GB: u64 = 1_000_000_000;

    /// `/` and everything but /var on one disk, /var on another, /var/lib/containerd and /srv on a third.
    #[expect(clippy::unnecessary_wraps, reason = "the signature of `Settings::space`")]
    fn three(folder: &Path) -> Option<Space> {
        let path = folder.display().to_string();
        let (device, free_bytes) = if path.contains("/var/lib/containerd") || path.contains("/srv") {
            (3, 9 * GB)
        } else if path.contains("/var") {
            (2, 5 * GB)
        } else {
            (1, 2 * GB)
        };
        Some(Space { device, has_parts: false, size_bytes: 10 * GB, free_bytes })
    }

    #[test]
    fn file_systems_of_their_own_are_told_with_what_lands_there() {
        let folder = TestFolder::new("disks");
        let mut host = host_in(&folder);
        assert_eq!(host.disks(), [], "all on one");
        host.settings.space = three;
        let disk = |free: u64, holds: &[DiskUse], path: &str| Disk {
            free_bytes: free * GB,
            holds: holds.to_vec(),
            path: path.to_owned(),
            size_bytes: 10 * GB,
        };
        let of_root = disk(2, &[DiskUse::Configuration, DiskUse::Packages], CONFIGURATION);
        let expected = [of_root, disk(9, &[DiskUse::Images], CONTAINERD_ROOT)];
        assert_eq!(host.disks(), expected, "the runner's folder is on the disk of /var/lib");
        host.settings.state = PathBuf::from("/srv/cupcake");
        assert_eq!(host.disks()[1].holds, [DiskUse::Images, DiskUse::Snapshots], "two on one disk");
        folder.write(CONTAINERDS, "version = 2\nroot = \"/var/images\"\n");
        assert_eq!(host.disks()[1], disk(9, &[DiskUse::Snapshots], "/srv/cupcake"));
    }

    #[test]
    fn subvolumes_are_one_file_system_and_two_equal_disks_are_not() {
        let of = |has_parts| move |device, free_bytes| Space { device, has_parts, size_bytes: 10 * GB, free_bytes };
        let (space, disk) = (of(true), of(false));
        assert!(space(1, GB).is_that_of(&space(2, GB)));
        assert!(space(1, GB).is_that_of(&space(1, GB - 1)), "written to in between");
        assert!(!space(1, GB).is_that_of(&space(2, 2 * GB)));
        assert!(!disk(1, GB).is_that_of(&disk(2, GB)), "two fresh disks of one size");
        assert!(disk(1, GB).is_that_of(&disk(1, GB - 1)));
    }

    #[test]
    fn the_folder_of_containerd_is_read_from_its_configuration() {
        assert_eq!(containerd_root("version = 2\nroot = \"/data/containerd\" # here\n"), Some("/data/containerd"));
        assert_eq!(containerd_root("root='/data/c'\n[grpc]\n"), Some("/data/c"));
        assert_eq!(containerd_root("version = 2\n[plugins]\nroot = \"/x\"\n"), None, "another table's");
        assert_eq!(containerd_root("root_dir = 3\nroot = \"\"\n"), None);
        assert_eq!(containerd_root(""), None);
    }

    #[tokio::test]
    async fn kubeadm_is_not_begun_where_its_copy_of_etcds_data_has_no_room() {
        let folder = TestFolder::new("copy-room");
        let mut host = host_in(&folder);
        host.settings.space = three;
        assert_eq!(host.check_room_for_etcds_copy(), Ok(()), "a worker copies nothing");
        let manifest = "spec:\n  containers:\n  - name: etcd\n    command:\n    - etcd\n    - --data-dir=/var/lib/etcd\n    image: registry.k8s.io/etcd:3.6.5-0\n";
        folder.write("/etc/kubernetes/manifests/etcd.yaml", manifest);
        let data = |bytes: u64| {
            folder.write("/var/lib/etcd/member/snap/db", "");
            let file = std::fs::File::options().write(true).open(folder.path("/var/lib/etcd/member/snap/db"));
            file.and_then(|file| file.set_len(bytes)).expect("a sparse file");
        };
        data(2 * GB - reserve_bytes(0));
        assert_eq!(host.check_room_for_etcds_copy(), Ok(()));
        data(2 * GB - reserve_bytes(0) + 1);
        let error = host.check_room_for_etcds_copy().expect_err("2 GB are free");
        let text = error.to_string();
        assert!(matches!(&error, HostError::NeedsOperator(reason) if reason.code == "DiskFull"), "{text}");
        assert!(text.contains("2000 MB free") && text.contains("needs 2001") && text.contains("/tmp"), "{text}");
        folder.be_the_machine(&[("kubeadm", "echo v1.34.4")]);
        let begun =
            host.upgrade_by_kubeadm(KubeadmUpgrade::Node, &KubeVersion::new(1, 34, 4), KubeProxy::Upgrade).await;
        assert_eq!(begun, Err(error));
        assert_eq!(folder.calls(), ["kubeadm version -o short"]);
    }
}
