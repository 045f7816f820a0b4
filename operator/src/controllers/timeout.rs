//! When an update has gone on by itself for longer than its `spec.operationTimeout` allows. Pure.
//!
//! What it came to is written into the status when the update begins (`status.operationTimeoutSeconds`). The time is counted from the
//! beginning, and anew whenever a person was asked (after a pause, an opened gate, a rest in RequiresAttention, a resume), in each
//! window of `spec.maintenanceWindow`, and after a long time in which nobody could look. When it is over, the condition TimedOut holds
//! the runs: no node is begun, nor anything between nodes; nodes under way come to their end and are given back, and then the update
//! rests in RequiresAttention. `spec.control.resume` lets it go on for as long again.

use super::mirror::NodeNow;
use super::window::{self, State};
use cupcake_crds::conditions::{self, Condition, ConditionStatus};
use cupcake_crds::{DirectUpdate, DirectUpdateSpec, DirectUpdateStatus, limits};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::cursor::RunPhase;
use cupcake_engine::names::Reason;
use kube::ResourceExt;
use std::time::Duration;

/// The code under which it is told.
pub const CODE: &str = "OperationTimedOut";
/// What holds where nothing is said and twice the estimate is shorter: the promised two hours.
const SECONDS_DEFAULT: u32 = 7_200;
/// How soon an update whose time is over is looked at again: by then every run has heard of it. In seconds.
const AGAIN_SECONDS: i64 = 30;
/// How long it is waited for nodes that are under way; what takes longer is told beside the rest.
const AT_WORK_SECONDS_MAX: i64 = 1_800;

/// What `spec.operationTimeout` comes to, in seconds: a year at the most.
pub fn seconds_of(spec: &DirectUpdateSpec, estimate_seconds: u32) -> u32 {
    let seconds = match spec.operation_timeout {
        Some(timeout) => u32::try_from(Duration::from(timeout).as_secs()).unwrap_or(u32::MAX),
        None => SECONDS_DEFAULT.max(estimate_seconds.saturating_mul(2)),
    };
    seconds.clamp(1, limits::OPERATION_SECONDS_MAX)
}

/// How an update stands to its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It has none, or is at rest or over.
    Untimed,
    /// It goes on, until then at the latest; nobody knows yet while it waits for a person.
    Goes {
        /// When its time is over.
        until: Option<Timestamp>,
    },
    /// It was over, and somebody lets it go on, or ends it.
    Resumed,
    /// It is over. `rests` once no node is under way any more.
    Over {
        /// Whether nothing of it is under way any more.
        rests: bool,
        /// What people are told.
        reason: Reason,
    },
}

/// Looks at an update that has a run, at which nobody could look until `unseen_until`.
pub fn standing(
    update: &DirectUpdate,
    root: RunPhase,
    nodes: &[NodeNow],
    unseen_until: Option<Timestamp>,
    now: Timestamp,
) -> Standing {
    let status = update.status.clone().unwrap_or_default();
    let is = |type_: &str, wanted: ConditionStatus| {
        let found = conditions::get(&status.conditions, type_).filter(|found| found.status == wanted);
        found.map(|found| found.last_transition_time)
    };
    let over_since = is(conditions::TIMED_OUT, ConditionStatus::True);
    // What ends takes the time that it needs.
    let ends = update.spec.control.as_ref().is_some_and(|control| control.cancel.is_some())
        || update.metadata.deletion_timestamp.is_some()
        || root.is_final();
    let asked = update.spec.control.as_ref().and_then(|control| control.resume.as_ref());
    let is_new = |id: &str| !status.acknowledged.iter().any(|answer| answer.request_id == id);
    if over_since.is_some() && (ends || asked.is_some_and(|asked| is_new(&asked.request_id))) {
        return Standing::Resumed;
    }
    let Some(seconds) = status.operation_timeout_seconds.filter(|_| root == RunPhase::InProgress && !ends) else {
        return Standing::Untimed;
    };
    if let Some(since) = over_since {
        return over(update, seconds, since, nodes, now);
    }
    // What was before the beginning took none of its time: another update, a window.
    let Some(started) = status.started_at else { return Standing::Goes { until: None } };
    let opened = match window::state(update, now) {
        State::Closed { .. } => return Standing::Goes { until: None },
        State::Open { opened, .. } => Some(opened),
        State::Always => None,
    };
    let waits = is(conditions::PAUSED, ConditionStatus::True).or(is(conditions::APPROVED, ConditionStatus::False));
    let since = [
        Some(started),
        opened,
        unseen_until,
        is(conditions::TIMED_OUT, ConditionStatus::False),
        is(conditions::PAUSED, ConditionStatus::False),
        is(conditions::RECONCILING, ConditionStatus::True),
        // The last gate is open, or the next one is yet to come.
        is(conditions::APPROVED, ConditionStatus::True).or(is(conditions::APPROVED, ConditionStatus::Unknown)),
    ];
    let Some(since) = since.into_iter().flatten().max().filter(|_| waits.is_none()) else {
        return Standing::Goes { until: None };
    };
    let until = since + Duration::from_secs(u64::from(seconds));
    if now < until {
        return Standing::Goes { until: Some(until) };
    }
    over(update, seconds, now, nodes, now)
}

fn over(update: &DirectUpdate, seconds: u32, since: Timestamp, nodes: &[NodeNow], now: Timestamp) -> Standing {
    let at_work = nodes.iter().filter(|node| node.is_at_work()).count();
    let held = (now - since).num_seconds();
    let rests = (at_work == 0 && held >= AGAIN_SECONDS) || held >= AT_WORK_SECONDS_MAX;
    let name = update.name_any();
    let time = humantime(seconds);
    let beginning = format!("it went on by itself for {time}, as long as spec.operationTimeout allows");
    let message = if rests {
        let still = if at_work == 0 { String::new() } else { format!(" ({at_work} nodes are still under way)") };
        format!(
            "{beginning}: nothing new starts{still}; see what took so long, then kubectl cupcake resume {name} lets it go on for another {time}"
        )
    } else {
        format!("{beginning}: no node is begun any more, {at_work} under way come to their end")
    };
    Standing::Over { rests, reason: Reason::new(CODE, message) }
}

/// `2h`, `1h30m`, `45s`: as the field is written.
fn humantime(seconds: u32) -> String {
    let parts = [(seconds / 3_600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let told = parts.iter().filter(|(number, _)| *number > 0).map(|(number, unit)| format!("{number}{unit}"));
    told.collect::<Vec<_>>().concat()
}

impl Standing {
    /// What the update's phase, conditions and message speak of in place of its run, once it rests.
    pub fn rest(&self) -> Option<&Reason> {
        match self {
            Self::Over { rests: true, reason } => Some(reason),
            Self::Over { rests: false, .. } | Self::Untimed | Self::Goes { .. } | Self::Resumed => None,
        }
    }

    /// Why nothing new is begun, once its time is over.
    pub fn over(&self) -> Option<&Reason> {
        match self {
            Self::Over { reason, .. } => Some(reason),
            Self::Untimed | Self::Goes { .. } | Self::Resumed => None,
        }
    }

    /// Puts it into the status, over what the run says.
    pub fn show(&self, status: &mut DirectUpdateStatus, now: Timestamp) {
        let was_told = conditions::get(&status.conditions, conditions::TIMED_OUT).is_some();
        let (holds, reason) = match self {
            Self::Untimed => return,
            Self::Goes { .. } if !was_told => return,
            Self::Goes { .. } | Self::Resumed => {
                (ConditionStatus::False, Reason::new("Resumed", "nothing is held any more for its time"))
            }
            Self::Over { reason, .. } => (ConditionStatus::True, reason.clone()),
        };
        if holds == ConditionStatus::True {
            status.message = Some(reason.message.clone());
        }
        let condition = Condition {
            last_transition_time: now,
            message: reason.message,
            observed_generation: status.observed_generation,
            reason: reason.code,
            status: holds,
            type_: conditions::TIMED_OUT.to_owned(),
        };
        conditions::set(&mut status.conditions, condition);
    }

    /// When it has to be looked at again.
    pub fn look_again(&self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Goes { until } => *until,
            Self::Over { rests: false, .. } => Some(now + chrono::TimeDelta::seconds(AGAIN_SECONDS)),
            Self::Over { rests: true, .. } | Self::Untimed | Self::Resumed => None,
        }
    }
}

/// Why the runs of an update hold because its time is over, if they do.
pub fn holds(update: &DirectUpdate) -> Option<Reason> {
    let conditions = update.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
    let over = conditions::get(conditions, conditions::TIMED_OUT)?;
    (over.status == ConditionStatus::True)
        .then(|| Reason::new(CODE, "its spec.operationTimeout is over; see the message of the update"))
}

/// The phase that the update shows: its run's, but for one whose time is over.
pub fn phase(standing: &Standing, root: RunPhase) -> RunPhase {
    standing.rest().map_or(root, |_| RunPhase::RequiresAttention)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(1_790_000_000 + seconds, 0).unwrap()
    }

    fn update(conditions: &[(&str, &str, i64)], acknowledged: &[&str]) -> DirectUpdate {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(type_, status, since)| {
                json!({"type": type_, "status": status, "lastTransitionTime": at(*since), "reason": "R", "message": ""})
            })
            .collect();
        let acknowledged: Vec<_> =
            acknowledged.iter().map(|id| json!({"requestId": id, "at": at(0), "message": ""})).collect();
        serde_json::from_value(json!({
            "apiVersion": "cupcake.ricardomolendijk.com/v1", "kind": "DirectUpdate", "metadata": {"name": "to-1-34"},
            "spec": {"targetVersion": "1.34.4", "control": {"resume": {"requestId": "resume-1"}}},
            "status": {
                "startedAt": at(0), "operationTimeoutSeconds": 3_600, "conditions": conditions, "acknowledged": acknowledged,
            },
        }))
        .unwrap()
    }

    fn look(update: &DirectUpdate, seconds: i64) -> Standing {
        standing(update, RunPhase::InProgress, &[], None, at(seconds))
    }

    #[test]
    fn the_time_runs_from_the_beginning_and_anew_after_whatever_a_person_was_asked_for() {
        let until = |conditions: &[(&str, &str, i64)]| match look(&update(conditions, &[]), 0) {
            Standing::Goes { until } => until.map(|until| (until - at(0)).num_seconds()),
            other => panic!("{other:?}"),
        };
        assert_eq!(until(&[]), Some(3_600));
        assert_eq!(until(&[("Reconciling", "True", 10)]), Some(3_610), "after a rest");
        assert_eq!(until(&[("Paused", "False", 20)]), Some(3_620), "after a pause");
        assert_eq!(until(&[("Approved", "True", 30), ("Paused", "False", 20)]), Some(3_630), "after a gate");
        assert_eq!(until(&[("TimedOut", "False", 40)]), Some(3_640), "after a resume");
        assert_eq!(until(&[("Approved", "Unknown", 50)]), Some(3_650), "after the first gate of several");
        assert_eq!(until(&[("Paused", "True", 20)]), None, "held by a person");
        assert_eq!(until(&[("Approved", "False", 20)]), None, "waits for a person");
    }

    #[test]
    fn what_was_before_the_beginning_or_unseen_takes_none_of_the_time() {
        let mut queued = update(&[("Reconciling", "True", 0)], &[]);
        queued.status.as_mut().unwrap().started_at = None;
        assert_eq!(look(&queued, 9_000), Standing::Goes { until: None });
        let unseen = |until| standing(&update(&[], &[]), RunPhase::InProgress, &[], Some(at(until)), at(9_000));
        assert_eq!(unseen(9_000), Standing::Goes { until: Some(at(12_600)) }, "nor while nobody can look");
        assert!(matches!(unseen(5_400), Standing::Over { .. }), "an hour after it was seen again");
    }

    #[test]
    fn one_whose_time_is_over_rests_until_a_new_request_lets_it_go_on() {
        let held = [("TimedOut", "True", 3_600)];
        let Standing::Over { rests: false, .. } = look(&update(&held, &["resume-1"]), 3_610) else { panic!() };
        let Standing::Over { rests: true, reason } = look(&update(&held, &["resume-1"]), 3_630) else { panic!() };
        assert!(reason.message.ends_with("kubectl cupcake resume to-1-34 lets it go on for another 1h"), "{reason}");
        assert!(matches!(look(&update(&[], &[]), 3_599), Standing::Goes { .. }));
        // A request from before was for another time.
        assert!(matches!(look(&update(&held, &["resume-1"]), 9_000), Standing::Over { .. }));
        assert_eq!(look(&update(&held, &[]), 9_000), Standing::Resumed);
        let at_rest =
            |asked: &[&str]| standing(&update(&held, asked), RunPhase::RequiresAttention, &[], None, at(9_000));
        assert_eq!(at_rest(&[]), Standing::Resumed, "asked while it needs a person for something else, too");
        assert_eq!(at_rest(&["resume-1"]), Standing::Untimed);
        assert_eq!(standing(&update(&[], &[]), RunPhase::Succeeded, &[], None, at(9_000)), Standing::Untimed);
        let mut cancelled = update(&held, &["resume-1"]);
        cancelled.spec.control = serde_json::from_value(json!({"cancel": {"requestId": "c"}})).unwrap();
        assert_eq!(look(&cancelled, 9_000), Standing::Resumed, "what ends takes the time that it needs");
        cancelled.status.as_mut().unwrap().conditions.clear();
        assert_eq!(look(&cancelled, 9_000), Standing::Untimed);
    }

    #[test]
    fn left_out_it_is_two_hours_or_twice_the_estimate() {
        let spec = |timeout: Option<&str>| -> DirectUpdateSpec {
            let mut spec = json!({"targetVersion": "1.34.4"});
            if let Some(timeout) = timeout {
                spec["operationTimeout"] = json!(timeout);
            }
            serde_json::from_value(spec).unwrap()
        };
        assert_eq!(seconds_of(&spec(None), 600), 7_200);
        assert_eq!(seconds_of(&spec(None), 86_400), 172_800);
        assert_eq!(seconds_of(&spec(Some("1h30m")), 86_400), 5_400);
        assert_eq!(["2h", "1h30m", "45s"], [7_200, 5_400, 45].map(humantime).each_ref().map(String::as_str));
    }
}
