//! Time as an argument: the only clock that the engine and everything above it may ask.

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use futures::future::BoxFuture;
use std::sync::{Arc, Mutex};

/// An instant of wall-clock time, in UTC.
pub type Timestamp = DateTime<Utc>;

/// The source of time of a component; every component takes one as an argument.
///
/// # Guarantees
/// `sleep_until` resolves once `now()` is at or after `until`, and at once if it already is.
/// `now()` may step backwards (machines' clocks do); the engine clamps it where order matters.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> Timestamp;

    /// Resolves when `now()` has reached `until`. Cancel-safe: dropping the future has no effect.
    fn sleep_until(&self, until: Timestamp) -> BoxFuture<'static, ()>;
}

/// A clock that stands still until a test moves it; `sleep_until` moves it itself.
///
/// For single-threaded tests of code that takes a [`Clock`]: a sleep is an instant jump to its end.
#[derive(Debug)]
pub struct SimClock {
    now: Arc<Mutex<Timestamp>>,
}

impl SimClock {
    /// A clock that shows `start`.
    pub fn starting_at(start: Timestamp) -> Self {
        Self { now: Arc::new(Mutex::new(start)) }
    }

    /// Moves the clock by `by` (backwards too: clocks of machines do that).
    pub fn advance(&self, by: TimeDelta) {
        let mut now = self.lock();
        *now += by;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Timestamp> {
        // The guarded value is a plain timestamp: a panic of another holder cannot leave it half-written.
        self.now.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        *self.lock()
    }

    fn sleep_until(&self, until: Timestamp) -> BoxFuture<'static, ()> {
        let now = Arc::clone(&self.now);
        // Moves only when polled: a sleep that loses a race against ready work takes no time.
        Box::pin(async move {
            let mut now = now.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *now = (*now).max(until);
        })
    }
}

/// `at` without its fraction of a second: cursors keep whole seconds, so that they encode small and exactly.
pub fn whole_seconds(at: Timestamp) -> Timestamp {
    at.duration_trunc(TimeDelta::seconds(1)).unwrap_or(at)
}
