//! What holds the whole of an update: read from its conditions, which its operator writes, and from its spec, which counts at once.

use super::{HeldBy, Hold, RunNow, Wait};
use crate::schedule::{OUTSIDE_WINDOW, Window};
use cupcake_crds::DirectUpdate;
use cupcake_crds::conditions::{self, Condition, ConditionStatus};
use cupcake_crds::values::Phase;
use cupcake_engine::clock::Timestamp;

/// The code of an update that waits for another one.
const WAITING_FOR_CLUSTER: &str = "WaitingForCluster";

/// The code of an update whose run the API server refuses to show or to record.
pub const RUN_REFUSED: &str = "RunRefused";

/// The beginning of what such an update says, before the name of the other.
pub(super) const WAITS_FOR: &str = "waits for DirectUpdate ";

/// What holds it, the strongest first: a person's word, then what a person has to do, then what ends by itself.
pub(super) fn holds(update: &DirectUpdate, runs: &[RunNow<'_>], waits: &[Wait], now: Timestamp) -> Vec<Hold> {
    let status = update.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or_default();
    if phase.is_final() {
        return Vec::new();
    }
    let is = |type_: &str, wanted: ConditionStatus| {
        conditions::get(&status.conditions, type_).filter(|condition| condition.status == wanted)
    };
    let mut holds = Vec::new();
    if status.run.is_none() {
        let stalled = is(conditions::STALLED, ConditionStatus::True).map(|condition| (HeldBy::Refusal, condition));
        let waits = is(conditions::RECONCILING, ConditionStatus::True);
        let waits = waits.map(|condition| (by(&condition.reason), condition));
        holds.extend(stalled.or(waits).map(|(by, condition)| hold(by, condition)));
        for hold in holds.iter_mut().filter(|hold| hold.by == HeldBy::Window) {
            hold.until = opens(update, now);
        }
        if holds.is_empty() {
            let since = update.metadata.creation_timestamp.as_ref().and_then(|at| at.0.to_string().parse().ok());
            let reason = "no operator has looked at it yet".to_owned();
            holds.push(Hold { by: HeldBy::Nobody, code: "NotSeen".to_owned(), reason, since, until: None });
        }
        return holds;
    }
    let cancelled = update.spec.control.as_ref().is_some_and(|control| control.cancel.is_some());
    if let Some(condition) = is(conditions::PAUSED, ConditionStatus::True) {
        holds.push(hold(HeldBy::Pause, condition));
    } else if update.is_paused() && !cancelled {
        let reason = "somebody paused it; what is under way is told of it".to_owned();
        holds.push(Hold { by: HeldBy::Pause, code: "Paused".to_owned(), reason, since: None, until: None });
    }
    holds.extend(is(conditions::TIMED_OUT, ConditionStatus::True).map(|over| hold(HeldBy::TimeOut, over)));
    holds.extend(is(conditions::APPROVED, ConditionStatus::False).map(|gate| hold(HeldBy::Approval, gate)));
    let rests = phase == Phase::RequiresAttention && !holds.iter().any(|hold| hold.by == HeldBy::TimeOut);
    if let Some(stalled) = is(conditions::STALLED, ConditionStatus::True).filter(|_| rests) {
        // The code of what failed says more than that of the rest.
        let code = waits.iter().rfind(|wait| wait.standing == super::Standing::Failed && !wait.code.is_empty());
        let code = code.map_or_else(|| stalled.reason.clone(), |wait| wait.code.clone());
        holds.push(Hold { code, ..hold(HeldBy::Failure, stalled) });
    }
    let root = runs.first().and_then(|one| one.run.status.as_ref());
    if let Some(root) = root.filter(|root| root.reason.as_deref() == Some(WAITING_FOR_CLUSTER)) {
        let reason = root.message.clone().unwrap_or_default();
        let code = WAITING_FOR_CLUSTER.to_owned();
        holds.push(Hold { by: HeldBy::AnotherUpdate, code, reason, since: None, until: None });
    }
    let refused =
        is(conditions::RECONCILING, ConditionStatus::True).filter(|condition| condition.reason == RUN_REFUSED);
    holds.extend(refused.map(|condition| hold(HeldBy::Operator, condition)));
    let closed = update.spec.maintenance_window.is_some() && !is_open(update, now) && !cancelled;
    if closed && phase == Phase::InProgress {
        let reason = "outside spec.maintenanceWindow: no node is begun, those under way come to their end".to_owned();
        let code = OUTSIDE_WINDOW.to_owned();
        holds.push(Hold { by: HeldBy::Window, code, reason, since: None, until: opens(update, now) });
    }
    holds
}

fn hold(by: HeldBy, condition: &Condition) -> Hold {
    Hold {
        by,
        code: condition.reason.clone(),
        reason: condition.message.clone(),
        since: Some(condition.last_transition_time),
        until: None,
    }
}

/// What an update waits for that is not refused and has no run.
fn by(code: &str) -> HeldBy {
    match code {
        WAITING_FOR_CLUSTER => HeldBy::AnotherUpdate,
        OUTSIDE_WINDOW => HeldBy::Window,
        "Paused" => HeldBy::Pause,
        _ => HeldBy::Operator,
    }
}

fn is_open(update: &DirectUpdate, now: Timestamp) -> bool {
    opening(update, now).is_some_and(|(opens, _)| opens <= now)
}

fn opens(update: &DirectUpdate, now: Timestamp) -> Option<Timestamp> {
    opening(update, now).map(|(opens, _)| opens).filter(|opens| *opens > now)
}

/// When the window is open, now or the next time.
fn opening(update: &DirectUpdate, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
    Window::of(update.spec.maintenance_window.as_ref()?).ok()?.at_or_after(now)
}
