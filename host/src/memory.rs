//! What the runner remembers from one order to the next: whose machine it is, the last order it took, the highest epoch.

use cupcake_crds::values::OrderKey;
use cupcake_steps::ports::disk::{Disk, DiskError};
use serde::{Deserialize, Serialize};

/// The file.
pub const PATH: &str = "runner.json";
const FORMAT: u32 = 1;
const BYTES_MAX: usize = 8 * 1024;

/// The runner's memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Memory {
    format: u32,
    /// The node that this machine is.
    pub node: String,
    /// The last order that was taken.
    pub key: OrderKey,
    /// The highest epoch of an order that was taken.
    pub epoch: u64,
    /// The boot in which it was last worked on.
    pub boot_id: Option<String>,
}

/// Why the memory cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The disk failed: it may work another time.
    #[error("the runner's memory cannot be reached")]
    Disk(#[from] DiskError),
    /// It holds what no runner of this release wrote.
    #[error("{PATH} is damaged or of a newer release; run that release, or move the file away")]
    Damaged(#[source] Option<serde_json::Error>),
}

impl Memory {
    /// A memory of that order.
    pub fn of(node: &str, key: &OrderKey, epoch: u64, boot_id: Option<String>) -> Self {
        Self { format: FORMAT, node: node.to_owned(), key: key.clone(), epoch, boot_id }
    }

    /// The memory on that disk, if there is one.
    pub async fn read(disk: &dyn Disk) -> Result<Option<Self>, MemoryError> {
        let Some(bytes) = disk.read(PATH, BYTES_MAX).await? else {
            return Ok(None);
        };
        let memory: Self = serde_json::from_slice(&bytes).map_err(|error| MemoryError::Damaged(Some(error)))?;
        if memory.format > FORMAT { Err(MemoryError::Damaged(None)) } else { Ok(Some(memory)) }
    }

    /// Keeps it on that disk.
    pub async fn write(&self, disk: &dyn Disk) -> Result<(), MemoryError> {
        let bytes = serde_json::to_vec(self).map_err(|error| MemoryError::Damaged(Some(error)))?;
        Ok(disk.replace(PATH, &bytes).await?)
    }
}
