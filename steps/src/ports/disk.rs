//! The few files that the runner and the agent keep: orders, answers and the journal.

use async_trait::async_trait;
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
/// appended may stand at the end. `read` gives at most `bytes_max` bytes and fails on more.
#[async_trait]
pub trait Disk: Send + Sync {
    /// The file's content; `None` if there is no such file.
    async fn read(&self, path: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, DiskError>;
    /// Replaces the file's content: temporary file, fsync, rename, fsync of the folder.
    async fn replace(&self, path: &str, content: &[u8]) -> Result<(), DiskError>;
    /// Appends to the file and fsyncs it.
    async fn append(&self, path: &str, content: &[u8]) -> Result<(), DiskError>;
    /// Cuts the file to its first `bytes` bytes and fsyncs it: removes a torn record.
    async fn truncate(&self, path: &str, bytes: u64) -> Result<(), DiskError>;
    /// Removes the file; one that is not there is no error.
    async fn remove(&self, path: &str) -> Result<(), DiskError>;
    /// Names of the files directly in `folder`, sorted; none if it does not exist.
    async fn list(&self, folder: &str) -> Result<Vec<String>, DiskError>;
    /// Resolves when a file in `folder` may have changed since the last call; spurious wake-ups are allowed.
    async fn changed(&self, folder: &str);
}

/// A shared disk.
pub type SharedDisk = Arc<dyn Disk>;
