//! Which changes of an update are told. Pure.

use crate::controllers::run::WAITING_FOR_CLUSTER;
use crate::controllers::timeout;
use crate::events::stands;
use cupcake_crds::DirectUpdate;
use cupcake_crds::DirectUpdateStatus;
use cupcake_crds::conditions::{self, ConditionStatus};
use cupcake_crds::limits;
use cupcake_crds::notice::{Notice, Transition};
use cupcake_crds::values::Phase;
use cupcake_engine::clock::Timestamp;
use cupcake_steps::cluster::gate::WAITING_FOR_APPROVAL;
use cupcake_steps::cluster::metric_gates::GATE_CLOSED;
use cupcake_workflows::schedule::OUTSIDE_WINDOW;
use kube::ResourceExt;

/// The code of an update that a person holds.
const PAUSED: &str = "Paused";

/// Puts what a change of the status of `update` to `after` says into its list, and gives how many older ones had to go for it.
///
/// Ids follow from the update, the version of it that the change is made to and what happened. Of two writes to one version the API
/// server takes one.
pub fn note(update: &DirectUpdate, after: &mut DirectUpdateStatus, now: Timestamp) -> usize {
    let (uid, version) = (update.uid().unwrap_or_default(), update.resource_version().unwrap_or_default());
    let news = news_of(update.status.as_ref(), after);
    after.notices.extend(news.into_iter().map(|(transition, what, reason, mut message)| {
        limits::cut(&mut message, limits::NOTICE_CHARS_MAX);
        let id = format!("{uid}.{version}.{}{what}", transition.as_str());
        Notice { at: now, id, message, reason, transition }
    }));
    let surplus = after.notices.len().saturating_sub(limits::NOTICES_MAX);
    after.notices.drain(..surplus);
    surplus
}

/// What happened, what tells it from another one of the same write, the code and the message.
type News = (Transition, String, String, String);

fn news_of(before: Option<&DirectUpdateStatus>, after: &DirectUpdateStatus) -> Vec<News> {
    let mut news: Vec<News> = Vec::new();
    let open = before.map_or(&[][..], |before| &before.approvals);
    for one in after.approvals.iter().filter(|one| !open.iter().any(|open| open.gate == one.gate)) {
        let why = one.comment.as_ref().map(|comment| format!(": {comment}")).unwrap_or_default();
        let message = format!("{} by {}{why}", one.gate, one.by);
        news.push((Transition::Approved, format!(".{}", one.gate), "Approved".to_owned(), message));
    }
    let was = before.map(stands);
    let (phase, code) = stands(after);
    if was.as_ref() == Some(&(phase, code.clone())) {
        return news;
    }
    let stalled = conditions::get(&after.conditions, conditions::STALLED);
    let stalled = stalled.is_some_and(|stalled| stalled.status == ConditionStatus::True);
    let message = after.message.clone().unwrap_or_default();
    for transition in transitions(was.as_ref(), phase, &code, stalled) {
        news.push((transition, String::new(), code.clone(), message.clone()));
    }
    news
}

/// What it says that an update stands in another way than before.
fn transitions(was: Option<&(Phase, String)>, phase: Phase, code: &str, stalled: bool) -> Vec<Transition> {
    let has_begun = was.is_some_and(|(phase, _)| *phase != Phase::Pending);
    let held = match code {
        PAUSED => Some(Transition::Paused),
        WAITING_FOR_APPROVAL => Some(Transition::ApprovalNeeded),
        WAITING_FOR_CLUSTER | OUTSIDE_WINDOW | timeout::CODE | GATE_CLOSED => Some(Transition::Waiting),
        _ => None,
    };
    match phase {
        Phase::Pending if stalled => vec![Transition::Refused],
        // Other waits before a start are for answers that come within seconds, or are told by alerts.
        Phase::Pending => held.into_iter().collect(),
        Phase::InProgress if !has_begun => std::iter::once(Transition::Started).chain(held).collect(),
        // Who opened the gate was told.
        Phase::InProgress if held.is_none() && was.is_some_and(|(_, code)| code == WAITING_FOR_APPROVAL) => Vec::new(),
        Phase::InProgress => vec![held.unwrap_or(Transition::Resumed)],
        Phase::RequiresAttention => vec![Transition::RequiresAttention],
        Phase::Succeeded => vec![Transition::Succeeded],
        Phase::Failed => vec![Transition::Failed],
        Phase::Cancelled => vec![Transition::Cancelled],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status(phase: &str, code: &str, gates: &[&str]) -> DirectUpdateStatus {
        let stalled = if phase == "RequiresAttention" || code == "DiskSpace" { "True" } else { "False" };
        let condition = |type_: &str, status: &str| json!({"type": type_, "status": status, "reason": code, "message": "m", "lastTransitionTime": "2026-11-30T10:00:00Z"});
        let approvals: Vec<_> =
            gates.iter().map(|gate| json!({"gate": gate, "by": "jane", "at": "2026-11-30T10:00:00Z"})).collect();
        serde_json::from_value(json!({
            "phase": phase, "message": "what happens", "approvals": approvals,
            "conditions": [condition("Stalled", stalled), condition("Succeeded", "Unknown")],
        }))
        .unwrap()
    }

    fn update(status: Option<&DirectUpdateStatus>) -> DirectUpdate {
        serde_json::from_value(json!({
            "apiVersion": "cupcake.ricardomolendijk.com/v1", "kind": "DirectUpdate",
            "metadata": {"name": "to-1-34", "uid": "u-1", "resourceVersion": "17"},
            "spec": {"targetVersion": "1.34.4"}, "status": status,
        }))
        .unwrap()
    }

    fn noted(before: Option<&DirectUpdateStatus>, after: &DirectUpdateStatus) -> Vec<Notice> {
        let mut after = after.clone();
        assert_eq!(note(&update(before), &mut after, Timestamp::UNIX_EPOCH), 0);
        after.notices
    }

    /// The ids of what the last of these ways to stand tells after the one before it.
    fn told(ways: &[(&str, &str)]) -> Vec<String> {
        let all: Vec<DirectUpdateStatus> = ways.iter().map(|(phase, code)| status(phase, code, &[])).collect();
        let (last, before) = all.split_last().unwrap();
        noted(before.last(), last).into_iter().map(|notice| notice.id).collect()
    }

    #[test]
    fn an_update_tells_its_start_its_holds_that_it_goes_on_and_its_end_and_nothing_in_between() {
        let works = ("InProgress", "StepRunning");
        let paused = ("InProgress", "Paused");
        let rests = ("RequiresAttention", "DrainBlocked");
        let gate = ("InProgress", "WaitingForApproval");
        for (ways, wanted) in [
            (vec![("Pending", "DiskSpace")], vec!["refused"]),
            (vec![("Pending", "DiskSpace"), ("Pending", "DiskSpace")], vec![]),
            (vec![("Pending", "DiskSpace"), ("Pending", "Planned")], vec![]),
            (vec![("Pending", "AgentAbsent")], vec![]),
            (vec![("Pending", "WaitingForCluster")], vec!["waiting"]),
            (vec![("Pending", "Paused")], vec!["paused"]),
            (vec![("Pending", "Planned"), works], vec!["started"]),
            (vec![works], vec!["started"]),
            (vec![("Pending", "Planned"), gate], vec!["started", "approval-needed"]),
            (vec![works, ("InProgress", "DrainBlocked")], vec![]),
            (vec![works, gate], vec!["approval-needed"]),
            (vec![gate, works], vec![]),
            (vec![works, paused], vec!["paused"]),
            (vec![paused, works], vec!["resumed"]),
            (vec![works, ("InProgress", "OutsideMaintenanceWindow")], vec!["waiting"]),
            (vec![("InProgress", "OutsideMaintenanceWindow"), works], vec!["resumed"]),
            (vec![works, ("InProgress", "GateClosed")], vec!["waiting"]),
            (vec![works, ("InProgress", "GateUnmeasured")], vec!["waiting"]),
            (vec![("InProgress", "GateClosed"), ("InProgress", "GateUnmeasured")], vec![]),
            (vec![("InProgress", "GateClosed"), works], vec!["resumed"]),
            (vec![works, rests], vec!["requires-attention"]),
            (vec![rests, works], vec!["resumed"]),
            (vec![works, ("Succeeded", "Succeeded")], vec!["succeeded"]),
            (vec![works, ("Failed", "Failed")], vec!["failed"]),
            (vec![paused, ("Cancelled", "Cancelled")], vec!["cancelled"]),
        ] {
            let wanted: Vec<String> = wanted.into_iter().map(|one| format!("u-1.17.{one}")).collect();
            assert_eq!(told(&ways), wanted, "{ways:?}");
        }
    }

    #[test]
    fn each_approval_is_told_once_with_who_gave_it() {
        let gate = "1.34.4/canary-gate";
        let (closed, open) =
            (status("InProgress", "WaitingForApproval", &[]), status("InProgress", "StepRunning", &[gate]));
        let told = noted(Some(&closed), &open);
        assert_eq!(told.len(), 1);
        assert_eq!(
            (told[0].id.as_str(), told[0].message.as_str()),
            ("u-1.17.approved.1.34.4/canary-gate", "1.34.4/canary-gate by jane")
        );
        assert_eq!(noted(Some(&open), &open), Vec::new());
    }

    #[test]
    fn of_more_than_there_is_room_for_the_oldest_go_and_are_counted() {
        let mut after = status("InProgress", "Paused", &[]);
        let old = noted(None, &status("Pending", "DiskSpace", &[]));
        after.notices = vec![old[0].clone(); limits::NOTICES_MAX];
        let before = status("InProgress", "StepRunning", &[]);
        assert_eq!(note(&update(Some(&before)), &mut after, Timestamp::UNIX_EPOCH), 1);
        assert_eq!((after.notices.len(), after.notices[15].transition), (16, Transition::Paused));
    }
}
