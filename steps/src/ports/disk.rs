//! The few files that the runner and the agent keep: orders, answers and the journal.

use async_trait::async_trait;
use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// Why a file operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation} {path}: {why}")]
pub struct DiskError {
    /// What was tried.
    pub operation: &'static str,
    /// On which file.
    pub path: String,
    /// What the system said.
    pub why: String,
}

/// A folder of small files, such as /var/lib/cupcake.
///
/// # Guarantees
/// Paths are relative, of plain words parted by `/`. `replace` is atomic and durable: after a power cut the file holds
/// the old or the new content, whole. `append` is durable when it returns; after a power cut a prefix of what was being
/// appended may stand at the end. `read` gives at most `bytes_max` bytes and fails on more. Folders come into being with
/// their first file. Every operation may be dropped at any await: it has then happened whole or not at all, but for the
/// prefix that an append may leave.
#[async_trait]
pub trait Disk: Send + Sync {
    /// The file's content; `None` if there is no such file.
    async fn read(&self, path: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, DiskError>;
    /// Replaces the file's content: temporary file, fsync, rename, fsync of the folder.
    async fn replace(&self, path: &str, content: &[u8]) -> Result<(), DiskError>;
    /// Appends to the file and fsyncs it; a file that is not there comes into being, its name durable too.
    async fn append(&self, path: &str, content: &[u8]) -> Result<(), DiskError>;
    /// Cuts the file to its first `bytes` bytes and fsyncs it: removes a torn record.
    async fn truncate(&self, path: &str, bytes: u64) -> Result<(), DiskError>;
    /// Removes the file; one that is not there is no error.
    async fn remove(&self, path: &str) -> Result<(), DiskError>;
    /// Names of the files directly in `folder`, sorted; none if it does not exist.
    async fn list(&self, folder: &str) -> Result<Vec<String>, DiskError>;
    /// Resolves when the folder's count of changes is above `seen`, with that count: at once for 0. Each caller keeps its
    /// own count, so no caller misses what another one saw. Spurious wake-ups are allowed; the count starts anew with the
    /// process.
    async fn changed(&self, folder: &str, seen: u64) -> u64;
    /// Takes the lock of that name, or `None` at once if somebody holds it. Gone with its holder, however that ends. Nobody but
    /// the disk's owner can hold it.
    async fn lock(&self, path: &str) -> Result<Option<DiskLock>, DiskError>;
    /// Where a person finds that file: its absolute path, where the disk knows one.
    fn place(&self, path: &str) -> String {
        path.to_owned()
    }
}

/// A lock that is held until this is dropped.
pub struct DiskLock {
    /// What gives the lock back when it is dropped.
    _held: Box<dyn Any + Send + Sync>,
}

impl DiskLock {
    /// A lock that dropping `held` gives back.
    pub fn new(held: impl Any + Send + Sync) -> Self {
        Self { _held: Box::new(held) }
    }
}

impl fmt::Debug for DiskLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DiskLock")
    }
}

/// Refuses a path that is no plain words parted by `/`: what every disk checks first.
pub fn check_path(operation: &'static str, path: &str) -> Result<(), DiskError> {
    let plain = |word: &str| !word.is_empty() && word != "." && word != ".." && !word.contains('\0');
    if path.split('/').all(plain) {
        return Ok(());
    }
    let why = "a path needs plain words parted by '/', none of them '.' or '..'".to_owned();
    Err(DiskError { operation, path: path.to_owned(), why })
}

/// A shared disk.
pub type SharedDisk = Arc<dyn Disk>;
