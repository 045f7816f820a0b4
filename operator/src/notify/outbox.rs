//! What the leader is about to deliver: which notice is next, and when. Pure.
//!
//! One at a time, in the order in which they were seen. After a failure all wait, longer each time; a notice is given up when a try fails
//! an hour after it happened, or the sink says that it will never take it.

use super::PostError;
use super::message::Letter;
use chrono::TimeDelta;
use cupcake_crds::DirectUpdate;
use cupcake_engine::clock::Timestamp;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Notices that wait at once; what finds no room stays in its update's status, and is looked at again with it.
const LETTERS_MAX: usize = 256;
/// How long a notice is tried, in seconds since it happened; once at least.
const TRIED_SECONDS_MAX: i64 = 3_600;
/// The wait after the first failure, in seconds; it doubles with each further one.
const AGAIN_SECONDS: i64 = 2;
/// The longest wait, in seconds.
const AGAIN_SECONDS_MAX: i64 = 300;

/// What is to be delivered, and what was.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: VecDeque<Letter>,
    /// By id: whose it is, and whether it is delivered or given up.
    known: BTreeMap<String, Known>,
    failures: u32,
    not_before: Option<Timestamp>,
}

#[derive(Debug)]
struct Known {
    update: String,
    settled: bool,
}

/// What a try came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Posted {
    /// The sink has it.
    Sent,
    /// It is tried again.
    Again,
    /// It is not.
    GivenUp,
}

impl Posted {
    /// The word of metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Again => "retried",
            Self::GivenUp => "failed",
        }
    }
}

impl Outbox {
    /// Takes note of what an update's status wants told; `None` if the update is gone: what is known of it is delivered all the same.
    pub fn sees(&mut self, name: &str, update: Option<&DirectUpdate>) {
        let notices = update.and_then(|update| update.status.as_ref()).map_or(&[][..], |status| &status.notices);
        self.known.retain(|id, known| {
            known.update != name || !known.settled || notices.iter().any(|notice| notice.id == *id)
        });
        let Some(update) = update else { return };
        for notice in notices {
            if self.waiting.len() >= LETTERS_MAX || self.known.contains_key(&notice.id) {
                continue;
            }
            self.known.insert(notice.id.clone(), Known { update: name.to_owned(), settled: false });
            self.waiting.push_back(Letter {
                update: name.to_owned(),
                operation_id: update.uid().unwrap_or_default(),
                target: update
                    .spec
                    .target()
                    .map_or_else(|_| update.spec.target_version.clone(), |target| target.to_string()),
                notice: notice.clone(),
            });
        }
    }

    /// The next one to deliver, if it is time.
    pub fn take(&mut self, now: Timestamp) -> Option<Letter> {
        // Wall time: where the clock was set back, no more than the longest wait is left.
        self.not_before = self.not_before.map(|at| at.min(now + TimeDelta::seconds(AGAIN_SECONDS_MAX)));
        if self.not_before.is_some_and(|at| at > now) {
            return None;
        }
        self.waiting.pop_front()
    }

    /// When the next one is to be taken.
    pub fn due(&self, now: Timestamp) -> Option<Timestamp> {
        let latest = now + TimeDelta::seconds(AGAIN_SECONDS_MAX);
        (!self.waiting.is_empty()).then(|| self.not_before.map_or(now, |at| at.min(latest)))
    }

    /// Takes note of what a try came to.
    pub fn posted(&mut self, letter: Letter, answer: &Result<(), PostError>, now: Timestamp) -> Posted {
        let posted = match answer {
            Ok(()) => Posted::Sent,
            Err(PostError::Refused(_)) => Posted::GivenUp,
            Err(PostError::Later(_)) if now - letter.notice.at > TimeDelta::seconds(TRIED_SECONDS_MAX) => {
                Posted::GivenUp
            }
            Err(PostError::Later(_)) => Posted::Again,
        };
        match answer {
            // It answers: the next one need not wait.
            Ok(()) | Err(PostError::Refused(_)) => (self.failures, self.not_before) = (0, None),
            Err(PostError::Later(_)) => {
                let wait = AGAIN_SECONDS.saturating_mul(1 << self.failures.min(16)).min(AGAIN_SECONDS_MAX);
                self.failures = self.failures.saturating_add(1);
                self.not_before = Some(now + TimeDelta::seconds(wait));
            }
        }
        match posted {
            Posted::Again => self.waiting.push_front(letter),
            Posted::Sent | Posted::GivenUp => {
                if let Some(known) = self.known.get_mut(&letter.notice.id) {
                    known.settled = true;
                }
            }
        }
        posted
    }

    /// What is to be taken out of that update's status.
    pub fn settled(&self, update: &str) -> BTreeSet<String> {
        let settled = self.known.iter().filter(|(_, known)| known.settled && known.update == update);
        settled.map(|(id, _)| id.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cupcake_crds::notice::{Notice, Transition};
    use serde_json::json;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(1_790_000_000 + seconds, 0).unwrap()
    }

    fn update(name: &str, ids: &[&str]) -> DirectUpdate {
        let notices: Vec<Notice> = ids
            .iter()
            .map(|id| Notice {
                at: at(0),
                id: (*id).to_owned(),
                message: "m".into(),
                reason: "Paused".into(),
                transition: Transition::Paused,
            })
            .collect();
        serde_json::from_value(json!({
            "apiVersion": "cupcake.ricardomolendijk.com/v1", "kind": "DirectUpdate", "metadata": {"name": name, "uid": "u-1"},
            "spec": {"targetVersion": "v1.34.4"}, "status": {"notices": notices},
        }))
        .unwrap()
    }

    fn later() -> Result<(), PostError> {
        Err(PostError::Later("503".into()))
    }

    #[test]
    fn each_notice_is_delivered_once_in_order_and_then_taken_out_of_its_status() {
        let mut outbox = Outbox::default();
        for _ in 0..2 {
            outbox.sees("a", Some(&update("a", &["1", "2"])));
        }
        let one = outbox.take(at(0)).unwrap();
        assert_eq!((one.notice.id.as_str(), one.target.as_str(), one.operation_id.as_str()), ("1", "1.34.4", "u-1"));
        assert_eq!(outbox.posted(one, &Ok(()), at(1)), Posted::Sent);
        assert_eq!(outbox.settled("a"), BTreeSet::from(["1".to_owned()]));
        outbox.sees("a", Some(&update("a", &["1", "2"])));
        let two = outbox.take(at(1)).unwrap();
        assert_eq!(two.notice.id, "2");
        // Without its update it is delivered all the same.
        outbox.sees("a", None);
        assert_eq!(outbox.posted(two, &Ok(()), at(2)), Posted::Sent);
        outbox.sees("a", None);
        assert!(outbox.take(at(2)).is_none() && outbox.known.is_empty() && outbox.due(at(2)).is_none());
    }

    #[test]
    fn a_sink_that_is_away_is_asked_ever_more_seldom_and_a_notice_of_an_hour_ago_is_given_up() {
        let mut outbox = Outbox::default();
        outbox.sees("a", Some(&update("a", &["1", "2"])));
        let (mut now, mut waits) = (at(0), Vec::new());
        let given_up = loop {
            let letter = outbox.take(now).unwrap();
            assert_eq!(letter.notice.id, "1", "the order stays");
            if outbox.posted(letter, &later(), now) == Posted::GivenUp {
                break now;
            }
            assert!(outbox.take(now).is_none(), "not at once");
            let due = outbox.due(now).unwrap();
            waits.push((due - now).num_seconds());
            now = due;
        };
        assert_eq!(waits[..9], [2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert!(waits.len() < 20 && (given_up - at(0)).num_seconds() > 3_600, "{waits:?}");
        // The next one gets its one try, however late.
        now = outbox.due(now).unwrap();
        let letter = outbox.take(now).unwrap();
        assert_eq!(letter.notice.id, "2");
        assert_eq!(outbox.posted(letter, &later(), now), Posted::GivenUp);
        assert_eq!(outbox.settled("a").len(), 2);
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_nothing_waiting_for_longer_than_the_longest_wait() {
        let mut outbox = Outbox::default();
        outbox.sees("a", Some(&update("a", &["1"])));
        let letter = outbox.take(at(0)).unwrap();
        outbox.posted(letter, &later(), at(0));
        let back = -86_400;
        assert!(outbox.take(at(back)).is_none());
        assert_eq!(outbox.due(at(back)), Some(at(back + AGAIN_SECONDS_MAX)));
        assert!(outbox.take(at(back + AGAIN_SECONDS_MAX)).is_some());
    }

    #[test]
    fn what_a_sink_refuses_for_good_is_given_up_at_once_and_keeps_nothing_waiting() {
        let mut outbox = Outbox::default();
        outbox.sees("a", Some(&update("a", &["1", "2"])));
        let letter = outbox.take(at(0)).unwrap();
        assert_eq!(outbox.posted(letter, &Err(PostError::Refused("400".into())), at(0)), Posted::GivenUp);
        assert_eq!(outbox.take(at(0)).unwrap().notice.id, "2");
    }

    #[test]
    fn what_finds_no_room_is_taken_later() {
        let mut outbox = Outbox::default();
        let ids: Vec<String> = (0..16).map(|n| n.to_string()).collect();
        for name in 0..20 {
            let own: Vec<String> = ids.iter().map(|id| format!("{name}.{id}")).collect();
            let own: Vec<&str> = own.iter().map(String::as_str).collect();
            outbox.sees(&name.to_string(), Some(&update(&name.to_string(), &own)));
        }
        assert_eq!((outbox.waiting.len(), outbox.known.len()), (LETTERS_MAX, LETTERS_MAX));
        let letter = outbox.take(at(0)).unwrap();
        outbox.posted(letter, &Ok(()), at(0));
        outbox.sees("19", Some(&update("19", &["19.3"])));
        assert_eq!(outbox.waiting.back().unwrap().notice.id, "19.3");
    }
}
