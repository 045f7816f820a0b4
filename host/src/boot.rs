//! How a boot starts the runner again while it has work: a port, since only systemd outlives the machine's power.

use async_trait::async_trait;
use std::error::Error;

/// Why the runner's own unit cannot be kept or removed, by what the runner does next.
#[derive(Debug, thiserror::Error)]
pub enum BootUnitError {
    /// It may work another time.
    #[error("the runner's unit file cannot be written")]
    Unwritable(#[source] Box<dyn Error + Send + Sync>),
    /// It starts a runner on another folder: that one's work is not given up for this one's.
    #[error(
        "{path} starts the runner on {found}, and this one works on {own}: run it there, or remove the file if nobody does"
    )]
    OtherFolder {
        /// The file.
        path: String,
        /// The folder in it.
        found: String,
        /// The folder of this runner.
        own: String,
    },
}

/// The unit that a boot starts the runner by.
///
/// # Assumptions
/// Whoever calls it holds the runner's lock: otherwise one that ends would remove what another just kept.
#[async_trait]
pub trait BootUnit: Send + Sync {
    /// Lets every boot start the runner from now on, durably. Repeated calls change nothing.
    async fn keep(&self) -> Result<(), BootUnitError>;
    /// Lets no boot start it any more. One that starts a runner on another folder stays.
    async fn remove(&self) -> Result<(), BootUnitError>;
}
