//! UpdateSchedule: again and again.

use super::{Calendar, Choice, Pattern, Problem, START_SECONDS_DEFAULT, Window, choose, update_name};
use chrono::TimeDelta;
use cupcake_crds::UpdateSchedule;
use cupcake_crds::update_schedule::ConcurrencyPolicy;
use cupcake_crds::values::{ClusterSnapshot, KubeVersion};
use cupcake_engine::clock::Timestamp;

/// A DirectUpdate that the schedule created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnUpdate {
    /// Its name.
    pub name: String,
    /// For which due time.
    pub due: Timestamp,
    /// Whether nothing more will happen in it.
    pub over: bool,
    /// Why it goes no further until a person acts, in one line.
    pub trouble: Option<String>,
}

/// All that counts.
#[derive(Debug, Clone, Copy)]
pub struct RecurringFacts<'a> {
    /// The object.
    pub schedule: &'a UpdateSchedule,
    /// When it was created.
    pub created: Timestamp,
    /// What it created and is still there.
    pub updates: &'a [OwnUpdate],
    /// The cluster, if somebody looked.
    pub cluster: Option<&'a ClusterSnapshot>,
    /// The time.
    pub now: Timestamp,
}

/// A due time that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// When.
    pub at: Timestamp,
    /// The first one that was passed over for it.
    pub passed: Option<Timestamp>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is held.
    Suspended,
    /// It can never be due.
    Stalled(Problem),
    /// Its spec changed: it counts from now on.
    Anew {
        /// A due time that came before anybody saw the new spec.
        passed: Option<Timestamp>,
    },
    /// The next due time comes then.
    Wait {
        /// When.
        until: Timestamp,
    },
    /// A due time waits for the window.
    AwaitWindow {
        /// Which.
        due: Due,
        /// When it opens.
        until: Timestamp,
    },
    /// The cluster has to be looked at first.
    Look {
        /// For which.
        due: Due,
    },
    /// Create a DirectUpdate.
    Create {
        /// For which.
        due: Due,
        /// Its name.
        name: String,
        /// Where the API servers are.
        from: KubeVersion,
        /// Where to.
        target: KubeVersion,
        /// What is cancelled for it.
        replaces: Vec<String>,
    },
    /// It was created and the status does not say so.
    Recorded {
        /// For which.
        due: Timestamp,
        /// Its name.
        name: String,
    },
    /// Nothing newer is there.
    NotNeeded {
        /// For which.
        due: Due,
        /// What there is instead.
        choice: Choice,
    },
    /// Another update of the schedule is not over.
    Skipped {
        /// Which due time.
        due: Due,
        /// That update.
        active: String,
    },
    /// Too late.
    Missed {
        /// The last one that was missed.
        due: Due,
        /// Until when something might have been created for it.
        latest: Timestamp,
    },
}

/// Decides about one UpdateSchedule.
pub fn recurring(facts: &RecurringFacts<'_>) -> Decision {
    match decide(facts) {
        Ok(decision) => decision,
        Err(problem) => Decision::Stalled(problem),
    }
}

fn decide(facts: &RecurringFacts<'_>) -> Result<Decision, Problem> {
    let (spec, now) = (&facts.schedule.spec, facts.now);
    let status = facts.schedule.status.clone().unwrap_or_default();
    let window = spec.maintenance_window.as_ref().map(Window::of).transpose()?;
    let calendar = calendar_of(facts.schedule)?;
    let pattern = Pattern::of(&spec.update_policy.target_version_pattern)?;
    let never = || Problem {
        code: "NeverDue",
        field: "spec.schedule",
        value: spec.schedule.clone(),
        what: "no day is like that".to_owned(),
        fix: "write a day that there is, such as \"0 2 1 * *\" for the first of each month".to_owned(),
    };
    let next = calendar.after(now).ok_or_else(never)?;
    let handled = status.handled_until.unwrap_or(facts.created);
    let unrecorded = facts.updates.iter().filter(|update| update.due > handled).max_by_key(|update| update.due);
    if let Some(update) = unrecorded {
        return Ok(Decision::Recorded { due: update.due, name: update.name.clone() });
    }
    let come = calendar.last(handled, now);
    if status.observed_generation.is_some() && status.observed_generation != facts.schedule.metadata.generation {
        return Ok(Decision::Anew { passed: come.map(|(last, _)| last).filter(|_| !spec.suspended) });
    }
    if spec.suspended {
        return Ok(Decision::Suspended);
    }
    let Some((at, passed)) = come else {
        return Ok(Decision::Wait { until: next });
    };
    // What waits for a window waits for the same one: only the last of it counts, and nothing was missed.
    let due = Due { at, passed: passed.filter(|_| window.is_none()) };
    let span = window.as_ref().and_then(|window| window.at_or_after(at));
    let opens = span.map_or(at, |(opens, _)| opens.max(at));
    let seconds = spec.starting_deadline_seconds.or(window.is_none().then_some(START_SECONDS_DEFAULT));
    let deadline = seconds.map(|seconds| opens + TimeDelta::seconds(i64::from(seconds)));
    let latest = deadline.into_iter().chain(span.map(|(_, closes)| closes)).min().unwrap_or(opens);
    if now < opens {
        // A due time that comes before takes its place.
        return Ok(Decision::AwaitWindow { due, until: opens.min(next) });
    }
    if now >= latest {
        return Ok(Decision::Missed { due, latest });
    }
    Ok(begin(facts, due, pattern))
}

/// A due time whose moment is now.
fn begin(facts: &RecurringFacts<'_>, due: Due, pattern: Pattern) -> Decision {
    let spec = &facts.schedule.spec;
    let active = || facts.updates.iter().filter(|update| !update.over);
    let replaces = match (spec.concurrency_policy, active().next()) {
        (ConcurrencyPolicy::Forbid, Some(active)) => return Decision::Skipped { due, active: active.name.clone() },
        (ConcurrencyPolicy::Replace, _) => active().map(|update| update.name.clone()).collect(),
        (ConcurrencyPolicy::Forbid, None) | (ConcurrencyPolicy::Allow, _) => Vec::new(),
    };
    let Some(cluster) = facts.cluster else {
        return Decision::Look { due };
    };
    match choose(pattern, &spec.update_policy, cluster) {
        Choice::Take(target) => {
            let meta = &facts.schedule.metadata;
            let (name, uid) = (meta.name.as_deref().unwrap_or_default(), meta.uid.as_deref().unwrap_or_default());
            Decision::Create { due, name: update_name(name, uid, due.at), from: cluster.server, target, replaces }
        }
        choice @ (Choice::There(_) | Choice::Unknown(_) | Choice::Newer(_)) => Decision::NotNeeded { due, choice },
    }
}

/// The due times of a schedule.
pub(super) fn calendar_of(schedule: &UpdateSchedule) -> Result<Calendar, Problem> {
    let spec = &schedule.spec;
    let (zone, field) = match (&spec.time_zone, &spec.maintenance_window) {
        (Some(zone), _) => (zone.as_str(), "spec.timeZone"),
        (None, Some(window)) => (window.timezone.as_str(), "spec.maintenanceWindow.timezone"),
        (None, None) => ("UTC", "spec.timeZone"),
    };
    Calendar::of(&spec.schedule, zone, field)
}

impl Decision {
    /// The next due time after `now`, for people; `None` if it is held or there is none.
    pub fn next(schedule: &UpdateSchedule, now: Timestamp) -> Option<Timestamp> {
        calendar_of(schedule).ok()?.after(now).filter(|_| !schedule.spec.suspended)
    }
}
