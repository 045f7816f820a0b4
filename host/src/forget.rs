//! Lets go of the cluster that a machine was part of.
//!
//! What the runner remembers outlives `kubeadm reset`: a new cluster on the same machines counts its epochs from 1 again, and
//! every order of it would be refused as StaleEpoch. A person on the machine says that the old cluster is gone.

use crate::memory::{self, Memory, MemoryError};
use crate::runner::LOCK;
use crate::store::FileStore;
use cupcake_crds::values::OrderKey;
use cupcake_engine::cursor::RunPhase;
use cupcake_engine::store::{RunStore, StoreError};
use cupcake_steps::mailbox::{Mailbox, MailboxError, run_name};
use cupcake_steps::ports::disk::{DiskError, SharedDisk};
use std::sync::Arc;

/// Why nothing was forgotten.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// A runner holds the lock.
    #[error("a runner is at work here: wait until it ends")]
    AtWork,
    /// An order has no final answer.
    #[error(
        "order {0} has no final answer: `cupcake-host stop` asks it to stop, and `cupcake-host run` lets it come to its end"
    )]
    Open(OrderKey),
    /// The mailbox cannot be used.
    #[error("mailbox cannot be used")]
    Mailbox(#[from] MailboxError),
    /// The memory cannot be used.
    #[error("the runner's memory cannot be used")]
    Memory(#[from] MemoryError),
    /// The journal of the last order cannot be used.
    #[error("journal cannot be used")]
    Store(#[from] StoreError),
    /// The folder cannot be used.
    #[error("the runner's folder cannot be used")]
    Disk(#[from] DiskError),
}

/// Forgets the last order and the highest epoch that this machine has seen. Snapshots, copies and journals stay.
///
/// # Guarantees
/// Nothing is forgotten while an order is open. May be repeated after it was cut short at any point.
pub async fn forget(disk: &SharedDisk) -> Result<(), ForgetError> {
    let Some(_lock) = disk.lock(LOCK).await? else {
        return Err(ForgetError::AtWork);
    };
    let mailbox = Mailbox::on(&**disk);
    if let Some(mail) = mailbox.order().await?
        && !mailbox.is_answered(&mail.order.key).await?
    {
        return Err(ForgetError::Open(mail.order.key));
    }
    if let Some(memory) = Memory::read(&**disk).await?
        && is_under_way(disk, &memory.key).await?
        && !mailbox.is_answered(&memory.key).await?
    {
        return Err(ForgetError::Open(memory.key));
    }
    mailbox.clear().await?;
    Ok(disk.remove(memory::PATH).await?)
}

async fn is_under_way(disk: &SharedDisk, key: &OrderKey) -> Result<bool, StoreError> {
    match FileStore::on(Arc::clone(disk)).load(&run_name(key)).await {
        Ok(run) => Ok(match run.cursor.phase() {
            RunPhase::Pending | RunPhase::InProgress => true,
            RunPhase::RequiresAttention | RunPhase::Succeeded | RunPhase::Failed | RunPhase::Cancelled => false,
        }),
        Err(StoreError::NotFound(_)) => Ok(false),
        Err(
            error @ (StoreError::Conflict(_)
            | StoreError::Fenced { .. }
            | StoreError::TooLarge { .. }
            | StoreError::Corrupt { .. }
            | StoreError::Unavailable { .. }),
        ) => Err(error),
    }
}
