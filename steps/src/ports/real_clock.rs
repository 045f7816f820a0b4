//! The machine's clock, for the binaries of agent and runner.

use cupcake_engine::clock::{Clock, Timestamp};
use futures::future::BoxFuture;
use std::time::Duration;

/// The machine's clock. Its sleeps need a tokio runtime.
#[derive(Debug, Clone, Copy)]
pub struct RealClock;

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the machine's clock in these processes"
)]
impl Clock for RealClock {
    fn now(&self) -> Timestamp {
        chrono::Utc::now()
    }

    fn sleep_until(&self, until: Timestamp) -> BoxFuture<'static, ()> {
        let wait = (until - self.now()).to_std().unwrap_or(Duration::ZERO);
        Box::pin(tokio::time::sleep(wait))
    }
}
