//! Snapshots of the local member on this machine's disk.

use super::bolt;
use super::client::{Member, refused};
use super::messages::{SnapshotResponse, StatusResponse};
use crate::real::RealHost;
use crate::real::failure::{self, needs_operator, permanent, transient};
use crate::real::os::{Space, sync_folder, write_whole};
use cupcake_steps::ports::host::{
    HostError, SNAPSHOT_NAME_CHARS_MAX, SnapshotInfo, reserve_bytes, snapshot_room_bytes,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::Streaming;

/// How long the whole snapshot may take: 8 GiB, the largest database etcd recommends, at 15 MB/s.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(10 * 60);
/// Finished snapshots that stay on the disk, the newest ones: an update takes one a hop.
const KEPT_MAX: usize = 5;
/// Bytes of the SHA-256 that etcd puts behind the database.
const DIGEST_BYTES: usize = 32;

/// What lies beside a finished snapshot.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sidecar {
    #[serde(flatten)]
    info: SnapshotInfo,
    /// The member that gave it, in hex as etcdctl writes it.
    member_id: String,
    /// That member's version.
    etcd_version: String,
}

/// What a look through a snapshot's bytes shows.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    bytes: u64,
    sha256: String,
    /// Whether its last 32 bytes are the SHA-256 of those before.
    whole: bool,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Reads the file to its end.
fn look_through(path: &Path) -> std::io::Result<Seen> {
    let mut file = File::open(path)?;
    let (mut all, mut body) = (Sha256::new(), Sha256::new());
    let mut chunk = vec![0; 1024 * 1024];
    // The last bytes seen so far: perhaps the digest, so not yet part of the body.
    let mut last: Vec<u8> = Vec::new();
    let mut bytes = 0;
    loop {
        let count = file.read(&mut chunk)?;
        if count == 0 {
            break;
        }
        bytes += count as u64;
        all.update(&chunk[..count]);
        last.extend_from_slice(&chunk[..count]);
        let settled = last.len().saturating_sub(DIGEST_BYTES);
        body.update(&last[..settled]);
        last.drain(..settled);
    }
    let whole = bytes > DIGEST_BYTES as u64 && body.finalize().as_slice() == last.as_slice();
    Ok(Seen { bytes, sha256: hex(&all.finalize()), whole })
}

/// Reads it on a thread of its own: it may have gigabytes.
async fn looked_through(path: PathBuf) -> Result<Seen, HostError> {
    let shown = path.clone();
    let looked = tokio::task::spawn_blocking(move || look_through(&path)).await;
    let looked = looked
        .map_err(|error| transient("FileError", format!("reading {} was cut short: {error}", shown.display())))?;
    looked.map_err(|error| failure::file("reading back", &shown, &error))
}

fn check_name(name: &str) -> Result<(), HostError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    if !name.is_empty() && name.len() <= SNAPSHOT_NAME_CHARS_MAX && !name.starts_with('.') && name.chars().all(plain) {
        return Ok(());
    }
    Err(permanent(
        "BadSnapshotName",
        format!("snapshot {name:?}: a name has letters, digits, '.' and '-' only, at most {SNAPSHOT_NAME_CHARS_MAX}"),
    ))
}

/// The revision at which a database ends: that of its last key, or of its last compaction, which may have taken that key.
///
/// Source: etcd server/storage/mvcc/kvstore.go (`restore`) and revision.go, release-3.5 and release-3.6.
fn last_revision(database: &Path) -> std::io::Result<u64> {
    let main = |bytes: &[u8]| Some(u64::from_be_bytes(bytes.get(..8)?.try_into().ok()?));
    let last = bolt::last_key(database, b"key")?;
    let meta = bolt::bucket(database, b"meta")?.unwrap_or_default();
    let compactions = meta.iter().filter(|(key, _)| key == b"finishedCompactRev" || key == b"scheduledCompactRev");
    let revisions = last.iter().chain(compactions.map(|(_, value)| value)).filter_map(|bytes| main(bytes));
    // Where a store begins that holds nothing.
    Ok(revisions.max().unwrap_or(1))
}

/// The revision at which a snapshot ends, where that is not before what its member said when it began: an older one is not what etcd holds
/// now, and whoever restored it would lose what came since.
fn accepted(database: &Path, before: &StatusResponse) -> Result<u64, HostError> {
    let revision = last_revision(database).map_err(|error| {
        transient(
            "SnapshotDamaged",
            format!("the last revision of the snapshot cannot be read, so it is not kept: {error}"),
        )
    })?;
    let member = before.header.as_ref().map_or(0, |header| u64::try_from(header.revision).unwrap_or(0));
    if revision >= member {
        return Ok(revision);
    }
    Err(transient(
        "SnapshotOlder",
        format!(
            "the snapshot ends at revision {revision}, and its member was at {member} before it began: it is not kept, and taken anew"
        ),
    ))
}

/// Whether the member can be trusted with a snapshot.
fn check_member(status: &StatusResponse) -> Result<(), HostError> {
    if let Some(alarm) = status.errors.iter().find(|error| error.contains("CORRUPT")) {
        return Err(needs_operator(
            "EtcdCorrupt",
            format!("etcd says {alarm}: repair the member before anything is upgraded"),
        ));
    }
    if status.is_learner {
        return Err(needs_operator(
            "EtcdLearner",
            "the local etcd member is a learner: promote it before anything is upgraded",
        ));
    }
    if status.leader == 0 {
        return Err(transient("EtcdWithoutLeader", "etcd has no leader at this moment"));
    }
    Ok(())
}

impl RealHost {
    fn snapshot_folder(&self) -> PathBuf {
        self.settings.state.join("snapshots")
    }

    fn snapshot_file(&self, name: &str, ending: &str) -> PathBuf {
        self.snapshot_folder().join(format!("{name}.{ending}"))
    }

    pub(in crate::real) async fn finished_snapshot(&self, name: &str) -> Result<Option<SnapshotInfo>, HostError> {
        check_name(name)?;
        let (file, sidecar) = (self.snapshot_file(name, "db"), self.snapshot_file(name, "json"));
        let Ok(text) = fs::read(&sidecar) else { return Ok(None) };
        let Ok(Sidecar { info, .. }) = serde_json::from_slice(&text) else { return Ok(None) };
        if !file.exists() {
            return Ok(None);
        }
        let seen = looked_through(file).await?;
        let same = seen.whole && seen.bytes == info.bytes && seen.sha256 == info.sha256;
        Ok(same.then_some(info))
    }

    pub(in crate::real) async fn new_snapshot(&self, name: &str) -> Result<SnapshotInfo, HostError> {
        check_name(name)?;
        let Some(address) = self.etcd_address() else {
            return Err(needs_operator(
                "NoLocalEtcd",
                "this machine runs no etcd member of kubeadm's: take the snapshot where etcd runs",
            ));
        };
        let taken = tokio::time::timeout(SNAPSHOT_LIMIT, self.take(name, &address)).await;
        taken.unwrap_or_else(|_| {
            Err(transient(
                "EtcdSlow",
                format!("etcd's snapshot was not finished within {} s", SNAPSHOT_LIMIT.as_secs()),
            ))
        })
    }

    async fn take(&self, name: &str, address: &str) -> Result<SnapshotInfo, HostError> {
        let mut member = Member::connect(&self.files, address).await?;
        let status = member.status().await?;
        check_member(&status)?;
        let folder = self.snapshot_folder();
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|error| failure::file("making", &folder, &error))?;
        remove_parts(&folder)?;
        self.check_room(&folder, u64::try_from(status.db_size).unwrap_or(0))?;

        let (part, file) = (self.snapshot_file(name, "db.part"), self.snapshot_file(name, "db"));
        write_parts(&part, member.snapshot().await?).await?;
        let seen = looked_through(part.clone()).await?;
        if !seen.whole {
            return Err(transient(
                "SnapshotDamaged",
                format!(
                    "the snapshot of {} bytes does not end with the SHA-256 of its content: it was cut short or damaged",
                    seen.bytes
                ),
            ));
        }
        let revision = accepted(&part, &status)?;
        let header = status.header.unwrap_or_default();
        let info = SnapshotInfo {
            path: file.display().to_string(),
            bytes: seen.bytes,
            sha256: seen.sha256,
            revision,
            taken_at: self.settings.clock.now(),
        };
        let sidecar =
            Sidecar { info: info.clone(), member_id: format!("{:x}", header.member_id), etcd_version: status.version };
        let sidecar = serde_json::to_vec_pretty(&sidecar).map_err(|error| {
            transient("FileError", format!("the snapshot's description cannot be written: {error}"))
        })?;
        // The file first: a description that names another file's digest is no finished snapshot.
        fs::rename(&part, &file).map_err(|error| failure::file("finishing", &file, &error))?;
        sync_folder(&folder)?;
        write_whole(&self.snapshot_file(name, "json"), &sidecar, 0o600)?;
        keep_newest(&folder, KEPT_MAX);
        Ok(info)
    }

    fn check_room(&self, folder: &Path, db_bytes: u64) -> Result<(), HostError> {
        let Some(space) = (self.settings.space)(folder) else { return Ok(()) };
        let Space { size_bytes, free_bytes, .. } = space;
        let (needed, what) = if self.copies_go_elsewhere(&space) {
            (db_bytes.saturating_add(reserve_bytes(size_bytes)), "etcd's database")
        } else {
            (snapshot_room_bytes(db_bytes, size_bytes), "twice etcd's database")
        };
        if free_bytes >= needed {
            return Ok(());
        }
        Err(needs_operator(
            "DiskFull",
            format!(
                "{} has {} MB free and needs {}: {what}, and {} that stay free, or the kubelet evicts pods: \
                 make room, then retry",
                folder.display(),
                free_bytes / 1_000_000,
                needed.div_ceil(1_000_000),
                reserve_bytes(size_bytes) / 1_000_000
            ),
        ))
    }

    /// The member's address for clients of this machine, as its manifest says.
    pub(super) fn etcd_address(&self) -> Option<String> {
        let urls = self.etcd_argument("--listen-client-urls=")?;
        let local = urls
            .split(',')
            .find(|url| url.contains("//127.0.0.1:") || url.contains("//[::1]:") || url.contains("//localhost:"));
        local.or_else(|| urls.split(',').next()).map(ToOwned::to_owned)
    }
}

/// Removes what snapshots left that were cut short, of whatever name: each may be as large as the one that needs the room.
fn remove_parts(folder: &Path) -> Result<(), HostError> {
    let failed = |error: std::io::Error| failure::file("clearing", folder, &error);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|ending| ending == "part") {
            fs::remove_file(&path).map_err(|error| failure::file("removing", &path, &error))?;
        }
    }
    Ok(())
}

/// Removes finished snapshots but the newest ones, by when they were taken. What has no description of ours is not ours to remove.
/// One that cannot be removed stays: the snapshot that was asked for is there.
fn keep_newest(folder: &Path, count: usize) {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let described = entries.filter_map(|entry| {
        let path = entry.path();
        let text = path.extension().filter(|ending| *ending == "json").and_then(|_| fs::read(&path).ok())?;
        let sidecar: Sidecar = serde_json::from_slice(&text).ok()?;
        Some((sidecar.info.taken_at, path))
    });
    let mut described: Vec<_> = described.collect();
    described.sort();
    for (_, description) in described.iter().rev().skip(count) {
        // The description first: a file without one is no finished snapshot.
        let removed = fs::remove_file(description).and_then(|()| fs::remove_file(description.with_extension("db")));
        match removed {
            Ok(()) => tracing::info!(snapshot = %description.display(), "removed: there are {count} newer ones"),
            Err(error) => tracing::warn!(snapshot = %description.display(), %error, "an old snapshot stays"),
        }
    }
}

async fn write_parts(path: &Path, mut parts: Streaming<SnapshotResponse>) -> Result<(), HostError> {
    let failed = |error: std::io::Error| failure::file("writing", path, &error);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).map_err(failed)?;
    while let Some(part) = parts.message().await.map_err(|status| refused("snapshot", &status))? {
        // 32 kB into the page cache: not worth a thread's change.
        file.write_all(&part.blob).map_err(failed)?;
    }
    let synced = tokio::task::spawn_blocking(move || file.sync_all()).await;
    synced
        .map_err(|error| transient("FileError", format!("syncing {} was cut short: {error}", path.display())))?
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::test_folder::TestFolder;
    use crate::real::tests::host_in;

    #[test]
    fn a_snapshot_leaves_room_for_kubeadms_copy_and_for_the_kubelet() {
        const GB: u64 = 1_000_000_000;
        let folder = TestFolder::new("snapshot-room");
        let (host, tenth) = (host_in(&folder), 100 * GB / 10);
        let checked = |db_bytes| host.check_room(&folder.path("etc"), db_bytes);
        assert!(checked((50 * GB - tenth) / 2).is_ok());
        let refused = checked((50 * GB - tenth) / 2 + 1).expect_err("half of 100 GB are free");
        let text = refused.to_string();
        assert!(
            text.contains("has 50000 MB free and needs 50001: ") && text.contains(" 10000 that stay free"),
            "{text}"
        );
        assert_eq!(snapshot_room_bytes(GB, 0), 2 * GB + 64 * 1024 * 1024, "a small disk keeps a little free");
    }

    fn database(body: &[u8]) -> Vec<u8> {
        [body, Sha256::digest(body).as_slice()].concat()
    }

    #[test]
    fn a_snapshot_is_whole_when_its_digest_fits() {
        let folder = TestFolder::new("snapshot-whole");
        for size in [1, 31, 32, 33, 1024 * 1024 - 16, 1024 * 1024, 2 * 1024 * 1024 + 7] {
            let content = database(&vec![7; size]);
            folder.write("a.db", &content);
            let seen = look_through(&folder.path("a.db")).expect("readable");
            assert_eq!(
                seen,
                Seen { bytes: content.len() as u64, sha256: hex(&Sha256::digest(&content)), whole: true },
                "{size}"
            );
            folder.write("a.db", &content[..content.len() - 1]);
            assert!(!look_through(&folder.path("a.db")).expect("readable").whole, "cut short, {size}");
        }
        folder.write("a.db", Sha256::digest(b""));
        assert!(!look_through(&folder.path("a.db")).expect("readable").whole, "an empty database is none");
    }

    /// A key of that revision, as etcd has it.
    fn key(revision: u64) -> Vec<u8> {
        [&revision.to_be_bytes()[..], b"_", &0_u64.to_be_bytes()].concat()
    }

    #[test]
    fn a_snapshot_that_ends_before_what_its_member_said_is_not_kept() {
        let folder = TestFolder::new("snapshot-older");
        let said = |revision| {
            let header = super::super::messages::ResponseHeader { revision, ..Default::default() };
            accepted(&folder.path("db"), &StatusResponse { header: Some(header), ..StatusResponse::default() })
        };
        folder.write("db", bolt::tests::keys(&[&key(299), &key(300), &[key(301), vec![b't']].concat()], &[]));
        assert_eq!((said(300), said(301)), (Ok(301), Ok(301)), "what was written meanwhile is more, and no less");
        let error = said(302).expect_err("a revision is missing");
        assert!(matches!(&error, HostError::Transient(reason) if reason.code == "SnapshotOlder"), "{error}");
        assert!(error.to_string().contains("ends at revision 301, and its member was at 302"), "{error}");
        // A compaction may take the last key with it, if that was a deletion.
        let compacted = key(310);
        let meta = [("consistent_index", &b"12345678"[..]), ("finishedCompactRev", compacted.as_slice())];
        folder.write("db", bolt::tests::keys(&[&key(299)], &meta));
        assert_eq!(said(310), Ok(310));
        folder.write("db", bolt::tests::keys(&[], &[]));
        assert_eq!(said(1), Ok(1), "a store that holds nothing");
        folder.write("db", "no database");
        assert!(matches!(said(1), Err(HostError::Transient(reason)) if reason.code == "SnapshotDamaged"));
    }

    #[tokio::test]
    async fn a_finished_snapshot_is_verified_again_each_time() {
        let folder = TestFolder::new("snapshot-finished");
        let host = host_in(&folder);
        let content = database(b"keys and values");
        let file = host.snapshot_file("run-1.34", "db");
        let info = SnapshotInfo {
            path: file.display().to_string(),
            bytes: content.len() as u64,
            sha256: hex(&Sha256::digest(&content)),
            revision: 300,
            taken_at: "2026-11-22T17:29:15Z".parse().expect("a time"),
        };
        let sidecar =
            Sidecar { info: info.clone(), member_id: "8e9e05c52164694d".to_owned(), etcd_version: "3.5.24".to_owned() };
        write_whole(&file, &content, 0o600).expect("written");
        assert_eq!(host.finished_snapshot("run-1.34").await, Ok(None), "without its description it is not finished");
        let sidecar = serde_json::to_vec(&sidecar).expect("JSON");
        write_whole(&host.snapshot_file("run-1.34", "json"), &sidecar, 0o600).expect("written");
        assert_eq!(host.finished_snapshot("run-1.34").await, Ok(Some(info)));
        write_whole(&file, &database(b"other keys here"), 0o600).expect("written");
        assert_eq!(host.finished_snapshot("run-1.34").await, Ok(None), "another file than the one described");
        let error = host.finished_snapshot("../run").await.expect_err("a bad name");
        assert!(matches!(&error, HostError::Permanent(reason) if reason.code == "BadSnapshotName"), "{error}");
    }

    #[test]
    fn a_member_that_is_no_healthy_voter_gives_no_snapshot() {
        let good = StatusResponse { leader: 2, ..StatusResponse::default() };
        assert_eq!(check_member(&good), Ok(()));
        let without_leader = StatusResponse { leader: 0, ..good.clone() };
        assert!(matches!(check_member(&without_leader), Err(HostError::Transient(_))));
        let learner = StatusResponse { is_learner: true, ..good.clone() };
        assert!(matches!(check_member(&learner), Err(HostError::NeedsOperator(_))));
        let corrupt = StatusResponse { errors: vec!["memberID:1 alarm:CORRUPT".to_owned()], ..good };
        assert!(matches!(check_member(&corrupt), Err(HostError::NeedsOperator(_))));
    }

    #[test]
    fn what_cut_short_snapshots_left_goes_before_another_needs_the_room_and_whole_ones_stay() {
        let folder = TestFolder::new("snapshot-parts");
        for name in ["old.db.part", "older.db.part", ".old.json.part", "whole.db", "whole.json"] {
            folder.write(&format!("snapshots/{name}"), "x");
        }
        remove_parts(&folder.path("snapshots")).expect("cleared");
        let left =
            fs::read_dir(folder.path("snapshots")).expect("there").map(|entry| entry.expect("readable").file_name());
        let mut left: Vec<_> = left.collect();
        left.sort();
        assert_eq!(left, ["whole.db", "whole.json"]);
    }

    #[test]
    fn the_newest_snapshots_stay_and_what_is_not_described_as_one_is_left_alone() {
        let folder = TestFolder::new("snapshot-kept");
        for number in 1..=4 {
            let info = SnapshotInfo {
                path: format!("s{number}.db"),
                bytes: 1,
                sha256: "x".into(),
                revision: 1,
                // The newest is not the last by name.
                taken_at: chrono::DateTime::from_timestamp(1_790_000_000 - i64::from(number), 0).expect("a time"),
            };
            let sidecar = Sidecar { info, member_id: "1".into(), etcd_version: "3.6.5".into() };
            folder.write(&format!("snapshots/s{number}.json"), serde_json::to_string(&sidecar).expect("writable"));
            folder.write(&format!("snapshots/s{number}.db"), "x");
        }
        folder.write("snapshots/by-hand.db", "x");
        folder.write("snapshots/notes.json", "{}");
        keep_newest(&folder.path("snapshots"), 2);
        let left = fs::read_dir(folder.path("snapshots")).expect("there");
        let mut left: Vec<_> = left.map(|entry| entry.expect("readable").file_name()).collect();
        left.sort();
        assert_eq!(left, ["by-hand.db", "notes.json", "s1.db", "s1.json", "s2.db", "s2.json"]);
    }

    #[test]
    fn every_name_that_the_step_takes_is_a_file_name_here() {
        let name = "a".repeat(SNAPSHOT_NAME_CHARS_MAX);
        assert_eq!(check_name(&name), Ok(()));
        let folder = TestFolder::new("snapshot-name");
        let file = host_in(&folder).snapshot_file(&name, "json");
        write_whole(&file, b"{}", 0o600).expect("its temporary name fits, too");
    }

    #[tokio::test]
    async fn a_machine_without_a_member_says_so() {
        let folder = TestFolder::new("snapshot-none");
        let host = host_in(&folder);
        let error = host.new_snapshot("a").await.expect_err("there is no etcd");
        assert!(matches!(&error, HostError::NeedsOperator(reason) if reason.code == "NoLocalEtcd"), "{error}");
        folder.write("/etc/kubernetes/manifests/etcd.yaml", include_str!("../fixtures/etcd.yaml"));
        assert_eq!(host.etcd_address().as_deref(), Some("https://127.0.0.1:2379"));
    }
}
