//! How the agent starts the runner: a port, since only systemd outlives the agent's pod.

use async_trait::async_trait;

/// Why the runner's unit did not answer or start. The agent tries again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the runner's unit: {why}")]
pub struct UnitError {
    why: String,
}

impl UnitError {
    /// An error of the unit's manager.
    pub fn new(why: impl Into<String>) -> Self {
        Self { why: why.into() }
    }
}

/// The unit that the runner runs under.
///
/// # Guarantees
/// A started runner outlives the agent, and is started again if it dies or the machine boots while it has work.
#[async_trait]
pub trait RunnerUnit: Send + Sync {
    /// Whether it runs, or is about to.
    async fn is_active(&self) -> Result<bool, UnitError>;
    /// Starts it if it does not run.
    async fn ensure_started(&self) -> Result<(), UnitError>;
}
