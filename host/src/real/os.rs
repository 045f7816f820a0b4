//! What the machine's own files tell: its boot, its system, its disk, its role.

use super::failure;
use chrono::TimeDelta;
use cupcake_crds::values::NodeRole;
use cupcake_steps::ports::host::HostError;
use std::fs;
use std::path::{Path, PathBuf};

/// `f_type` of a cgroup v2 file system (linux/magic.h).
const CGROUP2_MAGIC: u64 = 0x6367_7270;
/// `f_type` of file systems whose parts (subvolumes, data sets) share their room: btrfs and bcachefs (linux/magic.h), ZFS.
const POOLS_MAGIC: [u64; 3] = [0x9123_683E, 0xCA45_1A4E, 0x2FC1_2FC1];
/// How many entries of etcd's data folder are counted at most; a member has some dozens.
const ENTRIES_MAX: usize = 100_000;

/// The space of a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Tells it from others.
    pub device: u64,
    /// Whether parts of it have devices of their own.
    pub has_parts: bool,
    /// All of it.
    pub size_bytes: u64,
    /// What an unprivileged process could still write.
    pub free_bytes: u64,
}

impl Space {
    /// The space where that folder lies; `None` where it cannot be told.
    pub fn of(folder: &Path) -> Option<Self> {
        let stat = rustix::fs::statvfs(folder).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        let device = rustix::fs::stat(folder).ok()?.st_dev;
        let kind = rustix::fs::statfs(folder).ok().and_then(|stat| u64::try_from(stat.f_type).ok());
        let has_parts = kind.is_some_and(|kind| POOLS_MAGIC.contains(&kind));
        Some(Self { device, has_parts, size_bytes: bytes(stat.f_blocks), free_bytes: bytes(stat.f_bavail) })
    }

    /// Whether what is written to one is gone from the other: parts of one file system (subvolumes) have devices of their own. Disks
    /// of other kinds are apart, however equal: two fresh ones of one size have equal room.
    pub fn is_that_of(&self, other: &Self) -> bool {
        let figures = |space: &Self| (space.size_bytes, space.free_bytes);
        self.device == other.device || (self.has_parts && other.has_parts && figures(self) == figures(other))
    }
}

/// The file system of the machine, below a root that is `/` outside tests.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    root: PathBuf,
}

impl Files {
    pub(crate) fn below(root: PathBuf) -> Self {
        Self { root }
    }

    /// Where an absolute path of the machine lies.
    pub(crate) fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    /// The file's text; `None` if it cannot be read.
    pub(crate) fn text(&self, absolute: &str) -> Option<String> {
        fs::read_to_string(self.path(absolute)).ok()
    }

    /// Whether there is such a file or folder.
    pub(crate) fn has(&self, absolute: &str) -> bool {
        self.path(absolute).exists()
    }

    /// Paths of the entries of a folder, sorted; none if it cannot be read.
    pub(crate) fn entries(&self, absolute: &str) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.path(absolute)) else {
            return Vec::new();
        };
        let mut paths: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
        paths.sort();
        paths
    }

    pub(crate) fn boot_id(&self) -> Result<String, HostError> {
        let path = self.path("/proc/sys/kernel/random/boot_id");
        let text = fs::read_to_string(&path).map_err(|error| failure::file("reading", &path, &error))?;
        Ok(text.trim().to_owned())
    }

    /// How long the machine has run since its start, the time in which it slept counted (proc_uptime(5)).
    pub(crate) fn uptime(&self) -> Option<TimeDelta> {
        uptime(&self.text("/proc/uptime")?)
    }

    /// `PRETTY_NAME` of os-release(5).
    pub(crate) fn os_name(&self) -> Option<String> {
        let text = self.text("/etc/os-release").or_else(|| self.text("/usr/lib/os-release"))?;
        os_name(&text)
    }

    /// 1 or 2, by the file system that is mounted at /sys/fs/cgroup, as the kubelet tells it.
    pub(crate) fn cgroup_version(&self) -> Option<u32> {
        let kind = rustix::fs::statfs(self.path("/sys/fs/cgroup")).ok()?.f_type;
        Some(if u64::try_from(kind).ok()? == CGROUP2_MAGIC { 2 } else { 1 })
    }

    /// Bytes of all files below that folder; `None` if it is not there.
    pub(crate) fn folder_bytes(&self, absolute: &str) -> Option<u64> {
        let top = self.path(absolute);
        if !top.is_dir() {
            return None;
        }
        let (mut bytes, mut entries_seen, mut folders) = (0u64, 0, vec![top]);
        while let Some(folder) = folders.pop() {
            // What goes away while it is counted is not counted.
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries.filter_map(Result::ok) {
                entries_seen += 1;
                if entries_seen > ENTRIES_MAX {
                    return None;
                }
                match entry.metadata() {
                    Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                    Ok(metadata) => bytes = bytes.saturating_add(metadata.len()),
                    Err(_) => {}
                }
            }
        }
        Some(bytes)
    }

    /// What the machine is for, by files that kubeadm leaves on control planes only. More than the one manifest that
    /// `kubeadm upgrade node` looks at: that one is absent for a moment during an upgrade.
    pub(crate) fn role(&self) -> NodeRole {
        let signs = [
            "/etc/kubernetes/manifests/kube-apiserver.yaml",
            "/etc/kubernetes/admin.conf",
            "/etc/kubernetes/pki/ca.key",
        ];
        if signs.iter().any(|sign| self.has(sign)) { NodeRole::ControlPlane } else { NodeRole::Worker }
    }
}

fn os_name(os_release: &str) -> Option<String> {
    let value = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(value.trim().trim_matches(['"', '\'']).to_owned())
}

/// The architecture this program was built for, as Go names it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        "x86" => "386",
        other => other,
    }
}

/// Writes a file so that it is there whole, or not at all, also after a power cut: temporary file beside it, fsync, rename,
/// fsync of the folder.
pub(crate) fn write_whole(path: &Path, content: &[u8], mode: u32) -> Result<(), HostError> {
    use std::io::Write;
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let failed = |operation: &str, error: std::io::Error| failure::file(operation, path, &error);
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(|error| failed("making the folder of", error))?;
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".part");
    let part = folder.join(name);
    let written = (|| {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&part)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()
    })();
    written.map_err(|error| failed("writing", error))?;
    fs::rename(&part, path).map_err(|error| failed("replacing", error))?;
    sync_folder(folder)
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), HostError> {
    fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| failure::file("syncing the folder", folder, &error))
}

/// The first number of /proc/uptime: whole seconds are enough.
fn uptime(text: &str) -> Option<TimeDelta> {
    let seconds = text.split_whitespace().next()?.split('.').next()?.parse().ok()?;
    TimeDelta::try_seconds(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::test_folder::TestFolder;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_folder_tells_the_space_of_its_file_system_and_one_that_is_not_there_tells_none() {
        let folder = TestFolder::new("space");
        let space = Space::of(folder.root()).expect("it is there");
        assert!(space.free_bytes > 0 && space.free_bytes <= space.size_bytes, "{space:?}");
        assert_eq!(Space::of(&folder.path("away")), None);
    }

    #[test]
    fn the_name_of_the_system_is_read_as_os_release_writes_it() {
        let debian = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\n";
        assert_eq!(os_name(debian).as_deref(), Some("Debian GNU/Linux 12 (bookworm)"));
        assert_eq!(os_name("NAME=x\n"), None);
    }

    #[test]
    fn the_time_since_the_machines_start_is_read_as_the_kernel_writes_it() {
        assert_eq!(uptime("3661.42 7000.12\n"), Some(TimeDelta::seconds(3_661)));
        assert_eq!((uptime(""), uptime("x y")), (None, None));
    }

    #[test]
    fn a_control_plane_is_known_while_its_manifest_is_away() {
        let folder = TestFolder::new("role");
        let files = Files::below(folder.root().to_owned());
        assert_eq!(files.role(), NodeRole::Worker);
        folder.write("/etc/kubernetes/admin.conf", "");
        assert_eq!(files.role(), NodeRole::ControlPlane);
    }

    #[test]
    fn folders_are_counted_to_the_bottom() {
        let folder = TestFolder::new("bytes");
        folder.write("/var/lib/etcd/member/wal/a", "12345");
        folder.write("/var/lib/etcd/member/snap/db", "123");
        let files = Files::below(folder.root().to_owned());
        assert_eq!(files.folder_bytes("/var/lib/etcd"), Some(8));
        assert_eq!(files.folder_bytes("/var/lib/none"), None);
    }

    #[test]
    fn a_whole_write_replaces_the_file_sets_its_mode_and_leaves_nothing_beside_it() {
        let folder = TestFolder::new("whole");
        let path = folder.path("a/b.list");
        write_whole(&path, b"one", 0o600).expect("written");
        write_whole(&path, b"two", 0o644).expect("written again");
        assert_eq!(folder.read("a/b.list"), "two");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(folder.path("a")).expect("there").count(), 1);
    }
}
