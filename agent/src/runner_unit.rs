//! How the agent starts the runner: a port, since only systemd outlives the agent's pod.

use async_trait::async_trait;
use chrono::TimeDelta;
use cupcake_engine::clock::Clock;
use futures::future::{Either, select};

/// How long the unit's manager may take for all that a start needs, connecting to it included, in seconds: the agent has
/// more to do than to start the runner.
const START_SECONDS_MAX: i64 = 30;

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

/// Starts the runner unless it runs.
///
/// # Errors
/// What the unit's manager said, or that it said nothing in time: a bus that takes a connection and does not answer would
/// hold the agent for ever.
pub async fn see_that_it_runs(runner: &dyn RunnerUnit, clock: &dyn Clock) -> Result<(), UnitError> {
    let start = async { if runner.is_active().await? { Ok(()) } else { runner.ensure_started().await } };
    let until = clock.now() + TimeDelta::seconds(START_SECONDS_MAX);
    match select(Box::pin(start), clock.sleep_until(until)).await {
        Either::Left((started, _)) => started,
        Either::Right(((), _)) => Err(UnitError::new(format!("no answer within {START_SECONDS_MAX} s"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cupcake_engine::clock::{SimClock, Timestamp};
    use futures::executor::block_on;

    /// A manager that takes calls and never answers.
    struct Silent;

    #[async_trait]
    impl RunnerUnit for Silent {
        async fn is_active(&self) -> Result<bool, UnitError> {
            std::future::pending().await
        }
        async fn ensure_started(&self) -> Result<(), UnitError> {
            std::future::pending().await
        }
    }

    #[test]
    fn a_manager_that_never_answers_is_left_after_a_while() {
        let clock = SimClock::starting_at(Timestamp::UNIX_EPOCH);
        let error = block_on(see_that_it_runs(&Silent, &clock)).unwrap_err().to_string();
        assert!(error.contains("no answer within 30 s"), "{error}");
        assert_eq!(clock.now(), Timestamp::UNIX_EPOCH + TimeDelta::seconds(START_SECONDS_MAX));
    }
}
