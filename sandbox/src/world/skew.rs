//! Clocks of machines that are off.

use chrono::TimeDelta;
use cupcake_engine::clock::{Clock, Timestamp};
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How far the clock of each machine is ahead of the true time; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Skews {
    /// Guards by how much, by machine (or replica of the operator).
    ahead: Arc<Mutex<BTreeMap<String, TimeDelta>>>,
}

impl Skews {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, TimeDelta>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the clock of a machine; zero sets it right.
    pub(super) fn set(&self, place: &str, ahead: TimeDelta) {
        if ahead.is_zero() {
            self.lock().remove(place);
        } else {
            self.lock().insert(place.to_owned(), ahead);
        }
    }

    fn of(&self, place: &str) -> TimeDelta {
        self.lock().get(place).copied().unwrap_or_default()
    }

    /// The clock of a machine. That it is set wakes nobody, as on a real one: sleeps are measured by another clock.
    pub(super) fn clock(&self, place: &str, truth: Arc<dyn Clock>) -> SkewedClock {
        SkewedClock { truth, skews: self.clone(), place: Arc::from(place) }
    }
}

/// The clock of one machine.
pub(super) struct SkewedClock {
    truth: Arc<dyn Clock>,
    skews: Skews,
    place: Arc<str>,
}

impl Clock for SkewedClock {
    fn now(&self) -> Timestamp {
        self.truth.now() + self.skews.of(&self.place)
    }

    fn sleep_until(&self, until: Timestamp) -> BoxFuture<'static, ()> {
        self.truth.sleep_until(until - self.skews.of(&self.place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cupcake_engine::clock::SimClock;

    #[test]
    fn a_clock_that_is_ahead_shows_a_later_time_until_it_is_set_right() {
        let skews = Skews::default();
        let clock = skews.clock("w-1", Arc::new(SimClock::starting_at(Timestamp::UNIX_EPOCH)));
        skews.set("w-1", TimeDelta::seconds(600));
        skews.set("w-2", TimeDelta::seconds(-5));
        assert_eq!(clock.now().timestamp(), 600);
        skews.set("w-1", TimeDelta::zero());
        assert_eq!(clock.now().timestamp(), 0);
    }
}
