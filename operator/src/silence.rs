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

/// What stands before the message of before.
const BEFORE: &str = "; before: ";

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
    /// With what those were refused that were: a role, a webhook or a policy forbids it, which nothing but a person ends.
    refused: BTreeMap<RunName, String>,
}

/// A run that the API server refuses to show or to record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Which.
    pub run: String,
    /// Since when.
    pub since: Timestamp,
    /// With what.
    pub why: String,
}

impl Refused {
    /// The message of its update, before what it said of its run last.
    pub fn message(&self, last: &str) -> String {
        // Where nothing is known of the run it may be this very message.
        let last = last.rsplit(BEFORE).next().unwrap_or_default();
        format!(
            "UpgradeRun {} cannot be read or recorded since {}: {}; give the operator's service account what the chart \
             gives it, or mend the webhook or policy that refuses; until then no further step begins{BEFORE}{last}",
            self.run,
            self.since.format("%Y-%m-%d %H:%M UTC"),
            self.why
        )
    }
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

    /// It was answered with a refusal, `why`, or with nothing that says anything about it.
    pub(crate) fn unanswered(&mut self, run: &RunName, why: Option<&str>) {
        match why {
            Some(why) => self.refused.insert(run.clone(), why.to_owned()),
            None => self.refused.remove(run),
        };
    }

    /// The run as one that is refused, once that is for long: a role that was just given takes a moment.
    pub(crate) fn refused(&self, run: &RunName, now: Timestamp) -> Option<Refused> {
        let (since, why) = (self.since.get(run)?, self.refused.get(run)?);
        let refused = || Refused { run: run.to_string(), since: *since, why: why.clone() };
        is_long((*since, now)).then(refused)
    }

    /// It was answered for, and what was decided stands.
    pub(crate) fn answered(&mut self, run: &RunName) {
        self.since.remove(run);
        self.refused.remove(run);
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
    fn a_run_is_refused_once_that_is_for_long_and_until_it_is_answered_for() {
        let run = RunName::new("upgrade-1").unwrap();
        let mut silence = Silence::default();
        silence.ask(&run, None, at(0));
        silence.unanswered(&run, Some("forbidden"));
        assert_eq!(silence.refused(&run, at(30)), None, "a role may be cold for a moment");
        let refused = silence.refused(&run, at(31)).unwrap();
        assert_eq!((refused.since, refused.why.as_str()), (at(0), "forbidden"));
        let message = refused.message("preflight for 1m");
        assert!(message.ends_with("; before: preflight for 1m"), "{message}");
        assert_eq!(refused.message(&message), message, "it does not grow");
        silence.unanswered(&run, None);
        assert_eq!(silence.refused(&run, at(40)), None, "what says nothing is no refusal");
        silence.unanswered(&run, Some("forbidden"));
        silence.answered(&run);
        assert_eq!(silence.refused(&run, at(50)), None);
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
