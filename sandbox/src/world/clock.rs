//! Virtual time: tokio's own time, moved to another date and, if somebody watches, made faster.
#![expect(clippy::disallowed_methods, reason = "this is the clock of the simulated world, made of tokio's")]

use chrono::TimeDelta;
use cupcake_engine::clock::{Clock, Timestamp};
use futures::future::BoxFuture;
use std::time::Duration;
use tokio::time::Instant;

/// Waking a little early and looking again would spin; this is the shortest sleep.
const SLEEP_MIN: Duration = Duration::from_millis(1);

/// The clock of a simulated world.
///
/// # Guarantees
/// `now` is the base plus what tokio's clock went on since the start, times the speed. On a runtime with paused time nothing
/// but sleeping moves it, so that a run takes no longer than its computation.
#[derive(Debug, Clone, Copy)]
pub struct VirtualClock {
    base: Timestamp,
    start: Instant,
    speed: u32,
}

impl VirtualClock {
    /// A clock that shows `base` now and goes `speed` times as fast as tokio's; call it inside a runtime.
    pub fn starting_at(base: Timestamp, speed: u32) -> Self {
        Self { base, start: Instant::now(), speed: speed.max(1) }
    }

    /// What it showed at the start.
    pub fn base(&self) -> Timestamp {
        self.base
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        let elapsed = TimeDelta::from_std(self.start.elapsed()).unwrap_or(TimeDelta::MAX);
        let speed = i32::try_from(self.speed).unwrap_or(i32::MAX);
        elapsed
            .checked_mul(speed)
            .and_then(|elapsed| self.base.checked_add_signed(elapsed))
            .unwrap_or(Timestamp::MAX_UTC)
    }

    fn sleep_until(&self, until: Timestamp) -> BoxFuture<'static, ()> {
        let clock = *self;
        Box::pin(async move {
            loop {
                // A time that has come already needs no sleep.
                let Ok(left) = (until - clock.now()).to_std() else {
                    return;
                };
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep((left / clock.speed).max(SLEEP_MIN)).await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_virtual_day_takes_no_time_and_a_speed_makes_it_go_faster() {
        let clock = VirtualClock::starting_at(Timestamp::UNIX_EPOCH, 60);
        let before = Instant::now();
        clock.sleep_until(Timestamp::UNIX_EPOCH + TimeDelta::days(1)).await;
        assert_eq!(clock.now(), Timestamp::UNIX_EPOCH + TimeDelta::days(1));
        assert_eq!(before.elapsed(), Duration::from_secs(86_400 / 60));
        clock.sleep_until(Timestamp::UNIX_EPOCH).await;
    }
}
