//! Since when the API server gives no answer about a run: time that deadlines are given back.
//!
//! A leader that cannot renew its lease leads no longer, and its successor gives back the time between them. An API server may
//! answer for Leases alone, though (429 to everything else, a role that was taken away): then the same leader goes on when it
//! answers again, and this is how it knows what it lost.

use cupcake_engine::clock::Timestamp;
use cupcake_engine::names::RunName;
use std::collections::BTreeMap;

/// A silence that begins sooner after a time without a leader is one with it, in seconds.
const JOINED_SECONDS_MAX: i64 = 30;

/// From when to when nobody could look.
pub(crate) type Lost = (Timestamp, Timestamp);

/// Whether it is more than a hand-over or a moment's refusals.
pub(crate) fn is_long((from, until): Lost) -> bool {
    (until - from).num_seconds() > JOINED_SECONDS_MAX
}

/// The time in which nobody could look when a leader has seen everything for the first time, at `now`: `unled`, and its own time since
/// it began to lead where that is long.
pub(crate) fn until_seen(unled: Option<Lost>, leads_since: Timestamp, now: Timestamp) -> Option<Lost> {
    if !is_long((leads_since, now)) {
        return unled;
    }
    Some((unled.map_or(leads_since, |(from, _)| from), now))
}

/// Runs that were asked about and not answered for yet.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    since: BTreeMap<RunName, Timestamp>,
}

impl Silence {
    /// A run is about to be asked for at `now`. Gives the time in which nobody could look at it until then: `unled`, in which nobody
    /// led, or since the first of its questions that were not answered; both as one where they follow each other.
    pub(crate) fn ask(&mut self, run: &RunName, unled: Option<Lost>, now: Timestamp) -> Option<Lost> {
        let Some(since) = self.since.get(run).copied() else {
            self.since.insert(run.clone(), now);
            return unled;
        };
        match unled {
            Some((from, until)) if (since - until).num_seconds() <= JOINED_SECONDS_MAX => Some((from, now)),
            Some(_) | None => Some((since, now)),
        }
    }

    /// Whether it was asked about and not answered for over long.
    pub(crate) fn is_long(&self, run: &RunName, now: Timestamp) -> bool {
        self.since.get(run).is_some_and(|since| is_long((*since, now)))
    }

    /// It was answered for, and what was decided stands.
    pub(crate) fn answered(&mut self, run: &RunName) {
        self.since.remove(run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(1_790_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn time_without_an_answer_counts_from_the_first_question_until_one_is_answered() {
        let run = RunName::new("upgrade-1").unwrap();
        let mut silence = Silence::default();
        assert_eq!(silence.ask(&run, None, at(0)), None);
        assert_eq!(silence.ask(&run, None, at(5)), Some((at(0), at(5))));
        assert_eq!(silence.ask(&run, None, at(600)), Some((at(0), at(600))));
        assert!(silence.is_long(&run, at(31)) && !silence.is_long(&run, at(30)));
        silence.answered(&run);
        assert!(!silence.is_long(&run, at(700)));
        assert_eq!(silence.ask(&run, None, at(700)), None);
    }

    #[test]
    fn a_leader_that_saw_nothing_for_long_counts_that_too() {
        let unled = Some((at(0), at(100)));
        assert_eq!(until_seen(unled, at(100), at(101)), unled);
        assert_eq!(until_seen(unled, at(100), at(400)), Some((at(0), at(400))));
        assert_eq!(until_seen(None, at(100), at(400)), Some((at(100), at(400))));
    }

    #[test]
    fn time_without_a_leader_that_a_silence_follows_is_one_with_it_and_one_long_before_is_not() {
        let run = RunName::new("upgrade-1").unwrap();
        let unled = Some((at(0), at(100)));
        let mut silence = Silence::default();
        assert_eq!(silence.ask(&run, unled, at(110)), unled);
        assert_eq!(silence.ask(&run, unled, at(400)), Some((at(0), at(400))));
        silence.answered(&run);
        assert_eq!(silence.ask(&run, unled, at(500)), unled);
        assert_eq!(silence.ask(&run, unled, at(600)), Some((at(500), at(600))));
    }
}
