//! A machine's disk: small files in memory that keep what a crash left of them.

pub use super::forgetting::Remembered;

use super::fault::{Component, FaultPlan, Life, STOPPED_SECONDS, Stream, WriteTo, Wrong};
use super::forgetting::forgotten;
use super::ledger::Ledger;
use super::record::recorded;
use async_trait::async_trait;
use chrono::TimeDelta;
use cupcake_steps::ports::disk::{Disk, DiskError, DiskLock, check_path};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Bytes that fit on a simulated disk: far more than orders, answers and journals need.
const DISK_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The files of one machine; they outlive every component.
#[derive(Debug, Default)]
pub struct DiskStore {
    /// Guards the files and the counters of changes.
    files: Mutex<Files>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Files {
    content: BTreeMap<String, Vec<u8>>,
    /// Changes so far, by folder.
    changes: BTreeMap<String, u64>,
    locks: BTreeSet<String>,
    full: bool,
}

impl DiskStore {
    fn lock(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file's content, without a component asking.
    pub fn peek(&self, path: &str) -> Option<Vec<u8>> {
        self.lock().content.get(path).cloned()
    }

    /// All files, for comparing.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        self.lock().content.clone()
    }

    /// Makes every further write fail as on a full disk, or lets them through again.
    pub fn fill(&self, full: bool) {
        self.lock().full = full;
    }

    fn change(&self, path: &str, operation: &'static str, change: impl FnOnce(&mut Files)) -> Result<(), DiskError> {
        let mut files = self.lock();
        let used: usize = files.content.values().map(Vec::len).sum();
        if files.full || used > DISK_BYTES_MAX {
            return Err(error(operation, path, "no space left on device"));
        }
        change(&mut files);
        *files.changes.entry(folder(path).to_owned()).or_default() += 1;
        drop(files);
        self.changed.notify_waiters();
        Ok(())
    }
}

fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn error(operation: &'static str, path: &str, why: &str) -> DiskError {
    DiskError { operation, path: path.to_owned(), why: why.to_owned() }
}

/// A machine's disk as one life of one component sees it.
///
/// # Guarantees
/// What [`Disk`] demands. Every write may be the component's last, before or after it lands, or torn in the middle of an
/// append; from then on no call of this life returns.
pub struct SimDisk {
    store: Arc<DiskStore>,
    life: Life,
    faults: FaultPlan,
    ledger: Ledger,
    node: String,
    locks_hold: bool,
    /// Which files do not show the epoch that they remember.
    forgotten: BTreeSet<Remembered>,
}

/// Gives a lock back, as the kernel does when its holder ends.
struct HeldLock {
    store: Arc<DiskStore>,
    path: String,
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        self.store.lock().locks.remove(&self.path);
    }
}

impl SimDisk {
    /// The disk of `node` for one life.
    pub fn new(node: &str, store: Arc<DiskStore>, life: Life, faults: FaultPlan, ledger: Ledger) -> Self {
        Self { store, life, faults, ledger, node: node.to_owned(), locks_hold: true, forgotten: BTreeSet::new() }
    }

    /// The same, but everybody gets every lock: to show what locks are for.
    #[must_use]
    pub fn without_locks(self) -> Self {
        Self { locks_hold: false, ..self }
    }

    /// The same, but the epoch that this remembers is not read on it: to show what remembering is for.
    #[must_use]
    pub fn without_epoch_of(mut self, remembered: Remembered) -> Self {
        self.forgotten.insert(remembered);
        self
    }

    /// The dead neither read nor write.
    async fn alive(&self) {
        if self.life.is_over() {
            std::future::pending::<()>().await;
        }
    }

    /// Carries out a write, or what a crash leaves of it. `torn` is what stands where only a part does.
    async fn write(
        &self,
        operation: &'static str,
        path: &str,
        whole: impl FnOnce(&mut Files) + Send,
        torn: impl FnOnce(&mut Files) + Send,
    ) -> Result<(), DiskError> {
        check_path(operation, path)?;
        self.alive().await;
        match self.faults.count(&self.life, Stream::writes_of(self.life.component()), WriteTo::Disk) {
            Some(Wrong::Before) => self.die().await,
            Some(Wrong::After) => {
                self.store.change(path, operation, whole)?;
                self.landed(path);
                self.die().await
            }
            Some(Wrong::Torn) => {
                self.store.change(path, operation, torn)?;
                self.die().await
            }
            // The power goes with the write: a part of it may stand.
            Some(Wrong::PowerCut) => {
                self.store.change(path, operation, torn)?;
                std::future::pending().await
            }
            Some(Wrong::Stopped) => {
                self.life.stop_until(self.ledger.now() + TimeDelta::seconds(STOPPED_SECONDS));
                // The stop takes hold when this future rests; it is polled again when it is over.
                tokio::task::yield_now().await;
                self.store.change(path, operation, whole)?;
                self.landed(path);
                Ok(())
            }
            Some(Wrong::AskedToStop) => {
                self.store.change(path, operation, whole)?;
                self.landed(path);
                self.life.ask_to_stop();
                // It hears of it before it goes on.
                tokio::task::yield_now().await;
                Ok(())
            }
            Some(
                Wrong::ReplyLost
                | Wrong::Refused
                | Wrong::Busy
                | Wrong::TimedOut
                | Wrong::Forbidden
                | Wrong::ApiAway
                | Wrong::WatchesLost
                | Wrong::DiskFull
                | Wrong::SecondRunner
                | Wrong::WatchesLate
                | Wrong::EventsLost
                | Wrong::Election
                | Wrong::ClockJump
                | Wrong::NodeDeleted
                | Wrong::Doubled
                | Wrong::StaleOrder
                | Wrong::Paused
                | Wrong::Cancelled
                | Wrong::LeftOut
                | Wrong::Edited
                | Wrong::NameTaken,
            )
            | None => {
                self.store.change(path, operation, whole)?;
                self.landed(path);
                Ok(())
            }
        }
    }

    /// Enters in the ledger what a runner's write records.
    fn landed(&self, path: &str) {
        if self.life.component() == Component::Runner && self.ledger.has_unrecorded(&self.node) {
            for kind in recorded(path, self.store.peek(path).as_deref()) {
                self.ledger.recorded_on(&self.node, kind);
            }
        }
    }

    async fn die<T>(&self) -> T {
        self.life.end();
        std::future::pending().await
    }
}

#[async_trait]
impl Disk for SimDisk {
    async fn read(&self, path: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, DiskError> {
        self.alive().await;
        check_path("read", path)?;
        match self.store.peek(path) {
            Some(content) if content.len() > bytes_max => {
                Err(error("read", path, &format!("it has {} bytes, allowed are {bytes_max}", content.len())))
            }
            Some(content) => {
                let of = Remembered::at(path).filter(|remembered| self.forgotten.contains(remembered));
                let forgotten = of.and_then(|of| forgotten(of, &content, |other| self.store.peek(other)));
                Ok(Some(forgotten.unwrap_or(content)))
            }
            None => Ok(None),
        }
    }

    async fn replace(&self, path: &str, content: &[u8]) -> Result<(), DiskError> {
        let put = |files: &mut Files| {
            files.content.insert(path.to_owned(), content.to_vec());
        };
        // A replacement is atomic: torn or not, the new content stands once the rename does.
        self.write("replace", path, put, put).await
    }

    async fn append(&self, path: &str, content: &[u8]) -> Result<(), DiskError> {
        let add = |files: &mut Files, part: &[u8]| {
            files.content.entry(path.to_owned()).or_default().extend_from_slice(part);
        };
        let whole = |files: &mut Files| add(files, content);
        let torn = |files: &mut Files| add(files, &content[..content.len() / 2]);
        self.write("append", path, whole, torn).await
    }

    async fn truncate(&self, path: &str, bytes: u64) -> Result<(), DiskError> {
        let cut = |files: &mut Files| {
            if let Some(content) = files.content.get_mut(path) {
                content.truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
            }
        };
        self.write("truncate", path, cut, cut).await
    }

    async fn remove(&self, path: &str) -> Result<(), DiskError> {
        let remove = |files: &mut Files| {
            files.content.remove(path);
        };
        self.write("remove", path, remove, remove).await
    }

    async fn list(&self, path: &str) -> Result<Vec<String>, DiskError> {
        self.alive().await;
        let files = self.store.lock();
        let name =
            |file: &String| (folder(file) == path).then(|| file[path.len()..].trim_start_matches('/').to_owned());
        Ok(files.content.keys().filter_map(name).collect())
    }

    async fn changed(&self, path: &str, seen: u64) -> u64 {
        self.alive().await;
        loop {
            let woken = self.store.changed.notified();
            tokio::pin!(woken);
            // Registered before the look, so that no change falls between the two.
            woken.as_mut().enable();
            // The count of a folder that never changed is 1: whoever asks with 0 looks once.
            let count = self.store.lock().changes.get(path).copied().unwrap_or_default() + 1;
            if count > seen {
                return count;
            }
            woken.await;
        }
    }

    async fn lock(&self, path: &str) -> Result<Option<DiskLock>, DiskError> {
        self.alive().await;
        check_path("lock", path)?;
        if !self.store.lock().locks.insert(path.to_owned()) && self.locks_hold {
            return Ok(None);
        }
        Ok(Some(DiskLock::new(HeldLock { store: Arc::clone(&self.store), path: path.to_owned() })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::transcript::Transcript;
    use cupcake_engine::clock::{SimClock, Timestamp};
    use futures::FutureExt as _;

    struct Fixture {
        store: Arc<DiskStore>,
        faults: FaultPlan,
    }

    impl Fixture {
        fn crashing(crash: &str) -> Self {
            Self { store: Arc::default(), faults: FaultPlan::planned(&crash.parse().into_iter().collect::<Vec<_>>()) }
        }

        fn disk(&self) -> SimDisk {
            let clock = Arc::new(SimClock::starting_at(Timestamp::UNIX_EPOCH));
            let ledger = Ledger::new(clock, Transcript::default());
            let life = Life::new(Component::Runner, "w-1");
            SimDisk::new("w-1", Arc::clone(&self.store), life, self.faults.clone(), ledger)
        }
    }

    #[test]
    fn a_torn_append_leaves_a_prefix_and_ends_the_life() {
        let fixture = Fixture::crashing("runner@2:torn");
        let disk = fixture.disk();
        assert_eq!(disk.append("journal", b"first\n").now_or_never(), Some(Ok(())));
        assert_eq!(disk.append("journal", b"second\n").now_or_never(), None);
        assert_eq!(disk.read("journal", 100).now_or_never(), None, "the dead do not read");
        let content = fixture.disk().read("journal", 100).now_or_never().unwrap().unwrap().unwrap();
        assert_eq!(content, b"first\nsec");
    }

    #[test]
    fn a_crash_before_a_write_leaves_the_old_content() {
        let fixture = Fixture::crashing("runner@2:before");
        let disk = fixture.disk();
        assert_eq!(disk.replace("a", b"old").now_or_never(), Some(Ok(())));
        assert_eq!(disk.replace("a", b"new").now_or_never(), None);
        assert_eq!(fixture.store.peek("a").as_deref(), Some(&b"old"[..]));
    }

    #[test]
    fn a_crash_after_a_write_leaves_the_new_content() {
        let fixture = Fixture::crashing("runner@1:after");
        assert_eq!(fixture.disk().replace("a", b"new").now_or_never(), None);
        assert_eq!(fixture.store.peek("a").as_deref(), Some(&b"new"[..]));
    }

    #[test]
    fn only_changes_of_the_folder_wake_who_waits_for_it() {
        let fixture = Fixture::crashing("");
        let (disk, other) = (fixture.disk(), fixture.disk());
        let seen = disk.changed("mailbox", 0).now_or_never().unwrap();
        let mut waiting = disk.changed("mailbox", seen);
        assert!((&mut waiting).now_or_never().is_none());
        other.replace("journal/a", b"x").now_or_never();
        assert!((&mut waiting).now_or_never().is_none());
        other.replace("mailbox/order.json", b"x").now_or_never();
        assert!((&mut waiting).now_or_never().is_some());
    }

    #[test]
    fn files_are_listed_by_folder_and_more_than_asked_for_is_refused() {
        let disk = Fixture::crashing("").disk();
        for path in ["mailbox/b", "mailbox/a", "journal/x"] {
            disk.replace(path, b"content").now_or_never();
        }
        assert_eq!(disk.list("mailbox").now_or_never().unwrap(), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert!(disk.read("mailbox/a", 3).now_or_never().unwrap().is_err());
    }
}
