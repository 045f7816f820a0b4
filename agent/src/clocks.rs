//! This machine's clock against that of the API server, by the `Date` of an answer.
//!
//! ```text
//!   this machine   sent ───────────────────────── received
//!                     ╲                         ╱
//!   API server         ╲───── Date, cut to ────╱
//!                             whole seconds
//! ```
//! When the answer was written this machine's clock showed something from *sent* to *received*, the server's something from `Date` on and
//! less than a second more. So this one is ahead by more than `sent - Date - 1 s` and by no more than `received - Date`: the middle of
//! that is told, and half of it as the uncertainty. A slow answer tells little, never something wrong.
//!
//! Which of several API servers answered is not known: an agent beside one that answers it finds no difference though both are off, and
//! those on other machines that it answers find one.
//!
//! Source: RFC 9110, 5.6.7 (dates have whole seconds) and 6.6.1 (`Date` is when the answer was made). kube-apiserver's comes from Go's
//! net/http, which writes it with the headers, and cuts the second off (go1.24, src/net/http/server.go, `cw.writeHeader`).

use chrono::{DateTime, TimeDelta};
use cupcake_crds::limits::{CLOCK_AHEAD_MILLISECONDS_MAX, CLOCK_UNCERTAINTY_MILLISECONDS_MAX};
use cupcake_crds::node_task::ClockDifference;
use cupcake_engine::clock::Timestamp;

/// For how long a comparison stands, in seconds: long enough for what is written right after it.
const STANDS_SECONDS: i64 = 60;
/// What `Date` leaves away, at the most, in milliseconds.
const DATE_MILLISECONDS: i64 = 1_000;

/// What the last answer told of the clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compared {
    /// When the answer came, by this machine's clock.
    at: Timestamp,
    /// The difference; nothing where the answer did not tell it.
    pub clock: Option<ClockDifference>,
}

impl Compared {
    /// What an answer with that `Date` tells.
    pub fn of(sent: Timestamp, received: Timestamp, date: Option<&str>) -> Self {
        let clock = date.and_then(parsed).and_then(|date| difference(sent, received, date));
        Self { at: received, clock }
    }

    /// Whether it still holds: not if much time has passed since, nor if the clock was set back.
    pub fn stands(&self, now: Timestamp) -> bool {
        let age = now - self.at;
        age >= TimeDelta::zero() && age <= TimeDelta::seconds(STANDS_SECONDS)
    }
}

/// The moment of a `Date`, in the form that servers have to write (`Sun, 06 Nov 1994 08:49:37 GMT`).
fn parsed(date: &str) -> Option<Timestamp> {
    DateTime::parse_from_rfc2822(date).ok().map(|at| at.to_utc())
}

/// How far this machine's clock is ahead; nothing where that is too uncertain to be told, or the clock was set back meanwhile.
pub fn difference(sent: Timestamp, received: Timestamp, date: Timestamp) -> Option<ClockDifference> {
    if received < sent {
        return None;
    }
    let least = (sent - date).num_milliseconds() - DATE_MILLISECONDS;
    let most = (received - date).num_milliseconds();
    // And one for what was cut off both.
    let uncertainty_milliseconds = u64::try_from((most - least) / 2 + 1).ok()?;
    let ahead_milliseconds =
        i64::midpoint(least, most).clamp(-CLOCK_AHEAD_MILLISECONDS_MAX, CLOCK_AHEAD_MILLISECONDS_MAX);
    (uncertainty_milliseconds <= CLOCK_UNCERTAINTY_MILLISECONDS_MAX)
        .then_some(ClockDifference { ahead_milliseconds, uncertainty_milliseconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    /// Milliseconds after [`DATE`].
    fn at(milliseconds: i64) -> Timestamp {
        parsed(DATE).unwrap() + TimeDelta::milliseconds(milliseconds)
    }

    fn told(sent: i64, received: i64) -> Option<(i64, u64)> {
        let clock = Compared::of(at(sent), at(received), Some(DATE)).clock?;
        Some((clock.ahead_milliseconds, clock.uncertainty_milliseconds))
    }

    #[test]
    fn the_difference_is_the_middle_of_what_an_answer_leaves_possible_and_half_of_that_is_its_uncertainty() {
        assert_eq!(told(500, 500), Some((0, 501)), "at once, in the middle of the second");
        assert_eq!(told(0, 999), Some((0, 1_000)), "within the second");
        assert_eq!(told(600_500, 600_540), Some((600_020, 521)), "ten minutes ahead");
        assert_eq!(told(-299_500, -299_460), Some((-299_980, 521)), "five minutes behind");
        assert_eq!(told(0, 20_000), Some((9_500, 10_501)), "a slow answer");
    }

    #[test]
    fn whatever_the_way_took_and_wherever_the_second_began_the_true_difference_is_within_the_uncertainty() {
        for ahead in [-90_000, -1, 0, 1, 2_500, 3_600_000] {
            for (there, back) in [(0, 0), (1, 0), (0, 900), (700, 20), (20, 700), (0, 29_000), (29_000, 0)] {
                for fraction in [0, 1, 499, 500, 999] {
                    // By the server's clock it is DATE and a fraction when it writes the answer.
                    let (ahead_told, uncertainty) =
                        told(fraction - there + ahead, fraction + back + ahead).expect("it is told");
                    let off = ahead.abs_diff(ahead_told);
                    assert!(off <= uncertainty, "{ahead} {there} {back} {fraction}: {ahead_told} ± {uncertainty}");
                    let way = u64::try_from(there + back).unwrap();
                    assert!(uncertainty <= way / 2 + 1_000, "{there} {back}: {uncertainty}");
                }
            }
        }
    }

    #[test]
    fn an_answer_without_a_date_that_can_be_read_or_over_a_clock_that_was_set_tells_nothing() {
        for odd in [None, Some(""), Some("now"), Some("1994-11-06T08:49:37Z")] {
            assert_eq!(Compared::of(at(0), at(1), odd).clock, None, "{odd:?}");
        }
        assert_eq!(told(1, 0), None, "it was set back in between");
        assert_eq!(told(0, 3_600_000), None, "or far ahead");
        let dead = Compared::of(Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH, Some("Fri, 31 Dec 9999 23:59:59 GMT"));
        assert_eq!(dead.clock.map(|clock| clock.ahead_milliseconds), Some(-CLOCK_AHEAD_MILLISECONDS_MAX));
    }

    #[test]
    fn a_comparison_stands_for_what_is_written_right_after_it() {
        let compared = Compared::of(at(0), at(100), Some(DATE));
        assert!(compared.stands(at(100)) && compared.stands(at(60_100)));
        assert!(!compared.stands(at(60_101)), "long ago");
        assert!(!compared.stands(at(99)), "the clock was set back");
    }
}
