//! A [`Why`] as lines for people.

use super::super::words::between;
use super::{HeldBy, Hold, Standing, Wait, Why, Working};
use cupcake_engine::clock::Timestamp;

/// How many steps are named one by one.
const WAITS_SHOWN_MAX: usize = 20;
/// As [`WAITS_SHOWN_MAX`], of those at work: they are no reason to look further.
const WORKING_SHOWN_MAX: usize = 5;

impl Why {
    /// The answer as lines; the last one is the next command.
    pub fn lines(&self, now: Timestamp) -> Vec<String> {
        let mut lines = vec![format!("{} to {}: {}", self.update, self.target_version, self.phase)];
        for hold in &self.holds {
            let Hold { reason, code, .. } = hold;
            lines.push(format!("held by {}{}: {code}: {reason}", by(hold.by), times(hold.since, hold.until, now)));
        }
        lines.extend(self.waits.iter().take(WAITS_SHOWN_MAX).map(|wait| line(wait, now)));
        if let Some(more) = self.waits.len().checked_sub(WAITS_SHOWN_MAX).filter(|more| *more > 0) {
            lines.push(format!("{more} more steps do not go on"));
        }
        for Working { run, vertex, since } in self.at_work.iter().take(WORKING_SHOWN_MAX) {
            lines.push(format!("{run}: {vertex} is at work for {}", between(*since, now)));
        }
        if let Some(more) = self.at_work.len().checked_sub(WORKING_SHOWN_MAX).filter(|more| *more > 0) {
            lines.push(format!("{more} more steps are at work"));
        }
        if self.phase.is_final() {
            lines.push(format!("it is over: {}", self.message));
        } else if lines.len() == 1 {
            lines.push(format!("nothing holds it: {}", self.message));
        }
        lines.push(format!("next:  {}", self.next));
        lines
    }
}

fn by(by: HeldBy) -> &'static str {
    match by {
        HeldBy::Nobody => "the absence of an operator",
        HeldBy::Refusal => "what stands in its way",
        HeldBy::AnotherUpdate => "another update",
        HeldBy::Pause => "a pause",
        HeldBy::Approval => "a gate",
        HeldBy::TimeOut => "its time-out",
        HeldBy::Window => "its window",
        HeldBy::Failure => "what failed",
        HeldBy::Operator => "its operator",
    }
}

/// ` for 2m10s, until 22:00 UTC on 2027-01-09`
fn times(since: Option<Timestamp>, until: Option<Timestamp>, now: Timestamp) -> String {
    let since = since.map(|since| format!(" for {}", between(since, now))).unwrap_or_default();
    let until = until.map(|until| format!(", until {}", at(until, now))).unwrap_or_default();
    format!("{since}{until}")
}

/// A moment: with its date where that is another one.
fn at(moment: Timestamp, now: Timestamp) -> String {
    let format = if moment.date_naive() == now.date_naive() { "%H:%M:%S UTC" } else { "%Y-%m-%d %H:%M:%S UTC" };
    moment.format(format).to_string()
}

fn line(wait: &Wait, now: Timestamp) -> String {
    let Wait { run, vertex, attempt, attempts_max, since, .. } = wait;
    let told = match (wait.code.as_str(), wait.reason.as_str()) {
        ("", "") => String::new(),
        (code, reason) => format!(": {code}: {reason}"),
    };
    let then = |word: &str, moment: Option<Timestamp>| {
        moment.map(|moment| format!("; {word} {}", at(moment, now))).unwrap_or_default()
    };
    let of = if *attempts_max > 1 { format!(", attempt {attempt}/{attempts_max}") } else { String::new() };
    match wait.standing {
        Standing::Waits => {
            let ends = then("looks again by", wait.until) + &then("fails at", wait.fails);
            format!("{run}: {vertex} waits for {}{of}{told}{ends}", between(*since, now))
        }
        Standing::BacksOff => {
            let ends = then("again at", wait.until) + &then("fails at", wait.fails);
            format!("{run}: {vertex} failed{of}{told}{ends}")
        }
        Standing::Failed => format!("{run}: {vertex} failed {} ago{of}{told}", between(*since, now)),
    }
}
