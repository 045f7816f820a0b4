//! Schedules, decided: what to do about an UpdateSchedule or a ScheduledUpdate now. Pure: no clock, no request.
//!
//! ```text
//!   spec, status, created, now, own updates ──► recurring / once ──► one decision ──► (operator) create, then status
//!                                                      ▲
//!   times: cron, zones, windows    versions: pattern ──┘
//! ```
//! Exactly once: the name of a DirectUpdate is made from its schedule and its due time, so that a second creation meets the first;
//! and what the status says is dealt with is never looked at again, so that a deleted one does not come back.

mod names;
mod once;
mod recurring;
mod template;
#[cfg(test)]
mod tests;
mod times;
mod versions;

pub use names::{once_name, update_name};
pub use once::{Once, OnceFacts, Present, once};
pub use recurring::{Decision, Due, OwnUpdate, RecurringFacts, recurring};
pub use template::{policy_now, policy_spec, scheduled_spec};
pub use times::{Calendar, Window};
pub use versions::{Choice, Pattern, choose};

use std::fmt;

/// How late a start may be unless the spec says otherwise, in seconds.
pub const START_SECONDS_DEFAULT: u32 = 3_600;

/// Why nothing can be scheduled: which field, what it holds, what is wrong, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// One word for programs.
    pub code: &'static str,
    /// The field, by its path.
    pub field: &'static str,
    /// What it holds.
    pub value: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub fix: String,
}

/// The code under which an update tells that its window is closed.
pub const OUTSIDE_WINDOW: &str = "OutsideMaintenanceWindow";

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: invalid value {:?}: {}; {}", self.field, self.value, self.what, self.fix)
    }
}
