//! A disk in memory that can crash at each of its writes: the fake of [`Disk`].

use super::disk::{Disk, DiskError, DiskLock, check_path};
use async_trait::async_trait;
use futures::future::{pending, poll_fn};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// The folder that a disk in memory says it is.
pub const MEMORY_DISK_ROOT: &str = "/var/lib/cupcake";

/// Where in a write the process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// Nothing was written.
    Before,
    /// A prefix of what was being appended was written; for any other write nothing.
    Torn,
    /// As [`Crash::Torn`], of so many bytes.
    TornAt(usize),
    /// All of it was written, the caller does not hear of it.
    After,
}

/// A disk in memory. Clones share it.
///
/// # Guarantees
/// From a crash on, every operation hangs until [`MemoryDisk::restart`]: whoever was at work is to be dropped, as its
/// process would be. Files survive, locks do not.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    inner: Arc<Mutex<Inner>>,
    steady: bool,
}

#[derive(Default)]
struct Inner {
    files: BTreeMap<String, Vec<u8>>,
    locks: BTreeMap<String, u64>,
    locks_given: u64,
    /// Bytes of each append, by number of the write.
    appends: BTreeMap<u64, usize>,
    changes: BTreeMap<String, u64>,
    wakers: Vec<Waker>,
    writes: u64,
    crash: Option<(u64, Crash)>,
    crashed: bool,
    full: bool,
    full_from: Option<u64>,
}

impl Inner {
    fn wake(&mut self) {
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
    }

    fn touch(&mut self, path: &str) {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
        *self.changes.entry(folder).or_insert(1) += 1;
        self.wake();
    }
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same files as another process has them: its writes do not crash and do not count.
    pub fn steady(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), steady: true }
    }

    /// A disk of its own with the same files and nobody at it.
    pub fn copy(&self) -> Self {
        let files = self.lock_inner().files.clone();
        Self { inner: Arc::new(Mutex::new(Inner { files, ..Inner::default() })), steady: false }
    }

    /// Lets the process die in write number `write`, counted from 1 since the disk was made.
    pub fn crash_at(&self, write: u64, how: Crash) {
        self.lock_inner().crash = Some((write, how));
    }

    /// How many writes there were.
    pub fn writes(&self) -> u64 {
        self.lock_inner().writes
    }

    /// How many bytes each append had, by number of the write.
    pub fn appends(&self) -> BTreeMap<u64, usize> {
        self.lock_inner().appends.clone()
    }

    /// Whether a crash happened since the last restart.
    pub fn has_crashed(&self) -> bool {
        self.lock_inner().crashed
    }

    /// Resolves when a crash happens.
    pub async fn until_crash(&self) {
        poll_fn(|context| {
            let mut inner = self.lock_inner();
            if inner.crashed {
                return Poll::Ready(());
            }
            inner.wakers.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// The process starts again.
    pub fn restart(&self) {
        let mut inner = self.lock_inner();
        inner.crashed = false;
        inner.crash = None;
        inner.locks.clear();
        inner.wake();
    }

    /// Lets every write fail from now on, as a full disk does: an append leaves a prefix.
    pub fn fill(&self) {
        self.lock_inner().full = true;
    }

    /// As [`MemoryDisk::fill`], from write number `write` on, counted from 1 since the disk was made.
    pub fn fill_from(&self, write: u64) {
        self.lock_inner().full_from = Some(write);
    }

    /// Ends what [`MemoryDisk::fill`] began.
    pub fn free(&self) {
        let mut inner = self.lock_inner();
        (inner.full, inner.full_from) = (false, None);
    }

    /// The content of a file, past all crashes.
    pub fn content(&self, path: &str) -> Option<Vec<u8>> {
        self.lock_inner().files.get(path).cloned()
    }

    /// Puts a file there, past all crashes and counts.
    pub fn put(&self, path: &str, content: &[u8]) {
        let mut inner = self.lock_inner();
        inner.files.insert(path.to_owned(), content.to_vec());
        inner.touch(path);
    }

    async fn write(
        &self,
        operation: &'static str,
        path: &str,
        torn: impl FnOnce(&mut BTreeMap<String, Vec<u8>>, Option<usize>),
        whole: impl FnOnce(&mut BTreeMap<String, Vec<u8>>),
    ) -> Result<(), DiskError> {
        self.alive().await;
        check_path(operation, path)?;
        {
            let mut inner = self.lock_inner();
            if self.steady {
                whole(&mut inner.files);
                inner.touch(path);
                return Ok(());
            }
            inner.writes += 1;
            inner.full |= inner.full_from.is_some_and(|from| from <= inner.writes);
            let crash = inner.crash.filter(|(write, _)| *write == inner.writes).map(|(_, how)| how);
            match crash {
                None if inner.full => {
                    torn(&mut inner.files, None);
                    let why = "no space left on device".to_owned();
                    return Err(DiskError { operation, path: path.to_owned(), why });
                }
                None => {
                    whole(&mut inner.files);
                    inner.touch(path);
                    return Ok(());
                }
                Some(Crash::Before) => {}
                Some(Crash::Torn) => torn(&mut inner.files, None),
                Some(Crash::TornAt(bytes)) => torn(&mut inner.files, Some(bytes)),
                Some(Crash::After) => whole(&mut inner.files),
            }
            inner.crashed = true;
            inner.touch(path);
        }
        pending().await
    }

    async fn alive(&self) {
        let crashed = self.lock_inner().crashed;
        if crashed && !self.steady {
            pending::<()>().await;
        }
    }

    fn lock_inner(&self) -> MutexGuard<'_, Inner> {
        // Each critical section leaves the maps whole wherever it could panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Held {
    inner: Arc<Mutex<Inner>>,
    path: String,
    number: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        // After a restart the lock may be another's.
        if inner.locks.get(&self.path) == Some(&self.number) {
            inner.locks.remove(&self.path);
        }
    }
}

#[async_trait]
impl Disk for MemoryDisk {
    async fn read(&self, path: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, DiskError> {
        self.alive().await;
        check_path("read", path)?;
        let content = self.content(path);
        match content {
            Some(content) if content.len() > bytes_max => Err(DiskError {
                operation: "read",
                path: path.to_owned(),
                why: format!("{} bytes, {bytes_max} are allowed", content.len()),
            }),
            content => Ok(content),
        }
    }

    async fn replace(&self, path: &str, content: &[u8]) -> Result<(), DiskError> {
        let whole = |files: &mut BTreeMap<String, Vec<u8>>| {
            files.insert(path.to_owned(), content.to_vec());
        };
        self.write("replace", path, |_, _| {}, whole).await
    }

    async fn append(&self, path: &str, content: &[u8]) -> Result<(), DiskError> {
        let add = |files: &mut BTreeMap<String, Vec<u8>>, content: &[u8]| {
            files.entry(path.to_owned()).or_default().extend_from_slice(content);
        };
        let torn = |files: &mut BTreeMap<String, Vec<u8>>, bytes: Option<usize>| {
            add(files, &content[..bytes.unwrap_or(content.len() / 2).min(content.len())]);
        };
        if !self.steady {
            let mut inner = self.lock_inner();
            let write = inner.writes + 1;
            inner.appends.insert(write, content.len());
        }
        self.write("append", path, torn, |files| add(files, content)).await
    }

    async fn truncate(&self, path: &str, bytes: u64) -> Result<(), DiskError> {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let cut = |files: &mut BTreeMap<String, Vec<u8>>| {
            if let Some(file) = files.get_mut(path) {
                file.truncate(bytes);
            }
        };
        // A full disk still lets files be cut.
        let (full, full_from) = {
            let mut inner = self.lock_inner();
            (std::mem::take(&mut inner.full), inner.full_from.take())
        };
        let result = self.write("truncate", path, |_, _| {}, cut).await;
        let mut inner = self.lock_inner();
        (inner.full, inner.full_from) = (full, full_from);
        result
    }

    async fn remove(&self, path: &str) -> Result<(), DiskError> {
        let whole = |files: &mut BTreeMap<String, Vec<u8>>| {
            files.remove(path);
        };
        self.write("remove", path, |_, _| {}, whole).await
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>, DiskError> {
        self.alive().await;
        let prefix = format!("{folder}/");
        let inner = self.lock_inner();
        let names = inner.files.keys().filter_map(|path| path.strip_prefix(&prefix));
        Ok(names.filter(|name| !name.contains('/')).map(str::to_owned).collect())
    }

    async fn changed(&self, folder: &str, seen: u64) -> u64 {
        poll_fn(|context| {
            let mut inner = self.lock_inner();
            let count = inner.changes.get(folder).copied().unwrap_or(1);
            if count > seen && (self.steady || !inner.crashed) {
                return Poll::Ready(count);
            }
            inner.wakers.push(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    async fn lock(&self, path: &str) -> Result<Option<DiskLock>, DiskError> {
        self.alive().await;
        check_path("lock", path)?;
        let mut inner = self.lock_inner();
        if inner.locks.contains_key(path) {
            return Ok(None);
        }
        inner.locks_given += 1;
        let number = inner.locks_given;
        inner.locks.insert(path.to_owned(), number);
        Ok(Some(DiskLock::new(Held { inner: Arc::clone(&self.inner), path: path.to_owned(), number })))
    }

    fn place(&self, path: &str) -> String {
        format!("{MEMORY_DISK_ROOT}/{path}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;

    #[test]
    fn the_memory_disk_keeps_every_promise_of_a_disk() {
        block_on(super::super::disk_suite::suite(&MemoryDisk::new()));
    }

    #[test]
    fn a_torn_append_leaves_a_prefix_and_a_crash_lets_everything_hang_until_the_restart() {
        let disk = MemoryDisk::new();
        block_on(disk.append("log", b"first\n")).unwrap();
        disk.crash_at(2, Crash::Torn);
        let append = disk.append("log", b"second\n");
        block_on(futures::future::select(append, Box::pin(disk.until_crash())));
        assert!(disk.has_crashed());
        disk.restart();
        assert_eq!(block_on(disk.read("log", 100)).unwrap().unwrap(), b"first\nsec");
    }

    #[test]
    fn a_lock_ends_with_a_restart_and_its_old_guard_does_not_free_the_new_one() {
        let disk = MemoryDisk::new();
        let old = block_on(disk.lock("lock")).unwrap();
        disk.restart();
        let new = block_on(disk.lock("lock")).unwrap();
        assert!(old.is_some() && new.is_some());
        drop(old);
        assert!(block_on(disk.lock("lock")).unwrap().is_none());
    }
}
