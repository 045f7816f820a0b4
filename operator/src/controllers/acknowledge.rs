//! What a DirectUpdate answers to the requests of its `spec.control`: each once, under its id, as soon as it is read. Pure.

use crate::adapters::views::node_view;
use cupcake_crds::DirectUpdate;
use cupcake_crds::conditions::ConditionStatus;
use cupcake_crds::control::{Acknowledgement, Control};
use cupcake_crds::direct_update::Approved;
use cupcake_crds::limits;
use cupcake_crds::values::NodeRole;
use cupcake_engine::clock::Timestamp;
use cupcake_engine::names::{Reason, RunName};
use cupcake_steps::cluster::gate::WAITING_FOR_APPROVAL;
use k8s_openapi::api::core::v1::Node;
use std::collections::BTreeMap;

/// Nodes that a message names.
const NAMED_MAX: usize = 5;
/// What is answered to whatever is asked of an update that is over.
const OVER: &str = "refused: the update is over; apply another";

/// What a node that is to be left out is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskedFor {
    /// Of the control plane: never left out.
    ControlPlane,
    /// A worker at the update's target: it has moved already.
    Moved,
    /// A worker that has not.
    Behind,
    /// A worker that has not, because its drain did not end.
    DrainExpired,
}

/// How far an update is when it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage<'g> {
    /// It has no run; which gates it will have is not known yet.
    Before,
    /// It has one, and those gates.
    UnderWay(&'g [String]),
    /// It is over.
    Over,
}

/// Whether somebody asked for its end.
pub fn is_cancelled(update: &DirectUpdate) -> bool {
    update.spec.control.as_ref().is_some_and(|control| control.cancel.is_some())
}

/// Why the user holds it, by `spec.control.pause` or by the promised annotation, if they do.
pub fn pause_of(update: &DirectUpdate) -> Option<Reason> {
    let request = update.spec.control.as_ref().and_then(|control| control.pause.as_ref());
    update.is_paused().then(|| match request {
        Some(request) => {
            let why = request.reason.clone().unwrap_or_else(|| "paused by spec.control.pause".to_owned());
            Reason::new("Paused", why)
        }
        None => Reason::new("Paused", "paused by its annotation; remove it to go on"),
    })
}

/// The names of the nodes that the update is asked to leave out, or has left out.
pub fn named(update: &DirectUpdate) -> impl Iterator<Item = &String> {
    let asked = update.spec.control.iter().flat_map(|control| &control.skip).map(|request| &request.vertex);
    asked.chain(update.status.iter().flat_map(|status| &status.left_out).map(|one| &one.node))
}

/// The nodes that the update is asked to leave out, as far as they are there. `node` shows a Node as it is now: each of [`named`] has to
/// be looked for there, or what is asked of a node would be answered as if there was none of that name, for good.
pub fn asked_for<'n>(update: &DirectUpdate, node: impl Fn(&str) -> Option<&'n Node>) -> BTreeMap<String, AskedFor> {
    let target = update.spec.target().ok();
    let asked = update.spec.control.iter().flat_map(|control| &control.skip).map(|request| &request.vertex);
    let expired = update.status.iter().flat_map(|status| &status.left_out).map(|one| &one.node);
    let expired = expired.map(|node| (node, AskedFor::DrainExpired));
    // What a person asked for comes last, and counts where both are so.
    expired
        .chain(asked.map(|node| (node, AskedFor::Behind)))
        .filter_map(|(name, behind)| {
            let node = node_view(node(name)?);
            let is = match node.role {
                NodeRole::ControlPlane => AskedFor::ControlPlane,
                NodeRole::Worker if target.is_some() && node.kubelet == target => AskedFor::Moved,
                NodeRole::Worker => behind,
            };
            Some((name.clone(), is))
        })
        .collect()
}

/// The answers, with those that were given before as they were.
pub fn acknowledged(
    before: &[Acknowledgement],
    control: &Control,
    nodes: &BTreeMap<String, AskedFor>,
    stage: Stage<'_>,
    now: Timestamp,
) -> Vec<Acknowledgement> {
    let requests = requests(control, nodes, stage);
    let mut answers = before.to_vec();
    for (request, message) in &requests {
        if !answers.iter().any(|answer| answer.request_id == *request) {
            answers.push(Acknowledgement { at: now, message: message.clone(), request_id: (*request).to_owned() });
        }
    }
    // There is room for every request that stands: only answers to others have to go.
    let mut surplus = answers.len().saturating_sub(limits::ACKNOWLEDGED_MAX);
    answers.retain(|answer| {
        let goes = surplus > 0 && !requests.iter().any(|(request, _)| answer.request_id == *request);
        surplus -= usize::from(goes);
        !goes
    });
    answers
}

/// Who opened which gate, with those that were recorded before as they were.
pub fn approved(before: &[Approved], control: &Control, gates: &[String], now: Timestamp) -> Vec<Approved> {
    let mut all = before.to_vec();
    for approval in control.approvals.iter().filter(|approval| gates.contains(&approval.gate)) {
        let Some(by) = approval.requested_by.clone().filter(|by| !by.is_empty()) else { continue };
        if !all.iter().any(|one| one.gate == approval.gate) {
            all.push(Approved { at: now, by, comment: approval.reason.clone(), gate: approval.gate.clone() });
        }
    }
    all
}

/// The condition Approved, its reason and its message, of an update with those gates of which `open` are; `waits` is what a run says
/// that waits for one.
pub fn approval_state(
    gates: &[String],
    open: &[Approved],
    waits: Option<&str>,
) -> Option<(ConditionStatus, &'static str, String)> {
    if gates.is_empty() {
        return None;
    }
    let closed: Vec<&String> = gates.iter().filter(|gate| !open.iter().any(|one| one.gate == **gate)).collect();
    Some(match (waits, closed.first()) {
        (Some(message), Some(_)) => (ConditionStatus::False, WAITING_FOR_APPROVAL, message.to_owned()),
        // What a run showed before it was opened is no news.
        (_, None) => {
            let by: Vec<String> = open.iter().map(|one| format!("{} by {}", one.gate, one.by)).collect();
            (ConditionStatus::True, "Approved", by.join(", "))
        }
        (None, Some(next)) => (
            ConditionStatus::Unknown,
            "NotReached",
            format!("{} of {} gates to come, {next} next", closed.len(), gates.len()),
        ),
    })
}

/// Who was left out, for the end of the message of an update that succeeded without them; `None` if nobody was.
pub fn left_out(nodes: &BTreeMap<String, AskedFor>) -> Option<String> {
    let without = |why: AskedFor, words: &str| {
        let workers: Vec<&str> = nodes.iter().filter(|(_, is)| **is == why).map(|(node, _)| node.as_str()).collect();
        let told = workers.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
        match workers.len() {
            0 => String::new(),
            count if count > NAMED_MAX => format!("; without {told} and {} more, {words}", count - NAMED_MAX),
            _ => format!("; without {told}, {words}"),
        }
    };
    let asked = without(AskedFor::Behind, "left out as was asked for");
    let expired = without(AskedFor::DrainExpired, "left out because the drain did not end (see status.leftOut)");
    Some(asked + &expired).filter(|told| !told.is_empty())
}

/// Each request with what becomes of it; without approvals as long as nobody knows which gates there are.
fn requests<'c>(control: &'c Control, nodes: &BTreeMap<String, AskedFor>, stage: Stage<'_>) -> Vec<(&'c str, String)> {
    let mut all = Vec::new();
    if let Some(pause) = &control.pause {
        let message = match stage {
            Stage::Before => "paused: nothing is started before it is resumed",
            Stage::UnderWay(_) | Stage::Over => {
                "paused: nothing new starts; what is under way on a machine comes to its end"
            }
        };
        all.push((pause.request_id.as_str(), message.to_owned()));
    }
    if let Some(cancel) = &control.cancel {
        let message = match stage {
            Stage::Before => "cancelled before anything was started",
            Stage::UnderWay(_) | Stage::Over => {
                "cancelled: what is under way comes to a safe point, then nodes are given back"
            }
        };
        all.push((cancel.request_id.as_str(), message.to_owned()));
    }
    if let Some(resume) = &control.resume {
        let message = "goes on, if its spec.operationTimeout was over";
        all.push((resume.request_id.as_str(), message.to_owned()));
    }
    for retry in &control.retry {
        let message = match retry.run.clone().map(RunName::new) {
            Some(Err(_)) => {
                format!("refused: no run has such a name; leave run out: {} is found by itself", retry.vertex)
            }
            Some(Ok(_)) | None => format!("{}: tried again, once, if it has failed", retry.vertex),
        };
        all.push((retry.request_id.as_str(), message));
    }
    for skip in &control.skip {
        let of_run =
            skip.run.as_ref().map(|run| format!("; the run {run} is not asked for: a worker is left out of all"));
        let message = left_out_or_not(&skip.vertex, nodes, stage) + &of_run.unwrap_or_default();
        all.push((skip.request_id.as_str(), message));
    }
    let gates = match stage {
        Stage::Before => None,
        Stage::UnderWay(gates) => Some(gates),
        Stage::Over => Some(&[][..]),
    };
    for (approval, gates) in control.approvals.iter().filter_map(|approval| Some((approval, gates?))) {
        let gate = &approval.gate;
        let message = match (&approval.requested_by, gates.contains(gate)) {
            (Some(by), true) if !by.is_empty() => format!("{gate}: approved by {by}"),
            (_, true) => "refused: requestedBy has to say who approves, as kubectl cupcake approve does".to_owned(),
            (_, false) if gates.is_empty() => format!("refused: no gate {gate}: spec.approvals asks for nobody"),
            (_, false) => format!("refused: no gate {gate}; there are {}", gates.join(", ")),
        };
        all.push((approval.request_id.as_str(), message));
    }
    if stage == Stage::Over {
        for (_, message) in &mut all {
            OVER.clone_into(message);
        }
    }
    all
}

/// What becomes of a request to leave that node out.
fn left_out_or_not(node: &str, nodes: &BTreeMap<String, AskedFor>, stage: Stage<'_>) -> String {
    match (nodes.get(node), stage) {
        (Some(AskedFor::Behind | AskedFor::DrainExpired), Stage::Before) => format!("{node}: left out"),
        (Some(AskedFor::Behind | AskedFor::DrainExpired), Stage::UnderWay(_) | Stage::Over) => {
            format!("{node}: left out; what is under way there comes to its end, then it is given back")
        }
        (Some(AskedFor::Moved), _) => format!("{node}: it has moved already, and stays so"),
        (Some(AskedFor::ControlPlane), _) => {
            format!("refused: {node} is of the control plane, which moves as a whole; mend it and retry")
        }
        (None, _) => format!("{node}: there is no such node now; left out if it comes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_request_is_answered_once_and_one_that_cannot_be_met_says_why() {
        let control: Control = serde_json::from_value(json!({
            "pause": {"requestId": "p"}, "cancel": {"requestId": "c"}, "resume": {"requestId": "u"},
            "retry": [{"requestId": "r", "vertex": "w-1"}, {"requestId": "r2", "vertex": "w-1", "run": "No Such Run"}],
            "skip": [
                {"requestId": "s1", "vertex": "w-1"}, {"requestId": "s2", "vertex": "cp-1"}, {"requestId": "s3", "vertex": "w-9"},
                {"requestId": "s4", "vertex": "w-2"},
            ],
            "approvals": [
                {"requestId": "a", "gate": "canary-gate"}, {"requestId": "b", "gate": "1.34.4/canary-gate", "requestedBy": "jane", "reason": "well"},
                {"requestId": "d", "gate": "1.34.4/hop-gate"},
            ],
        }))
        .unwrap();
        let nodes = [("w-1", AskedFor::Behind), ("w-2", AskedFor::Moved), ("cp-1", AskedFor::ControlPlane)];
        let nodes = nodes.map(|(node, is)| (node.to_owned(), is)).into();
        let gates = ["1.34.4/canary-gate", "1.34.4/hop-gate"].map(str::to_owned);
        let at = |seconds: i64| Timestamp::from_timestamp(1_790_000_000 + seconds, 0).unwrap();
        let first = acknowledged(&[], &control, &nodes, Stage::UnderWay(&gates), at(0));
        let ids: Vec<&str> = first.iter().map(|answer| answer.request_id.as_str()).collect();
        assert_eq!(ids, ["p", "c", "u", "r", "r2", "s1", "s2", "s3", "s4", "a", "b", "d"]);
        let refused: Vec<&str> = first
            .iter()
            .filter(|answer| answer.message.starts_with("refused"))
            .map(|answer| answer.request_id.as_str())
            .collect();
        assert_eq!(refused, ["r2", "s2", "a", "d"], "no such run, no such gate, and nobody who says who they are");
        let open = approved(&[], &control, &gates, at(0));
        assert_eq!(open, approved(&open, &control, &gates, at(60)), "when it was opened stays");
        assert_eq!(
            open.iter().map(|one| (one.gate.as_str(), one.by.as_str())).collect::<Vec<_>>(),
            [("1.34.4/canary-gate", "jane")]
        );
        let state =
            |gates: &[String], waits| approval_state(gates, &open, waits).map(|(state, reason, _)| (state, reason));
        assert_eq!(state(&gates, Some("waits")), Some((ConditionStatus::False, "WaitingForApproval")));
        assert_eq!(state(&gates, None), Some((ConditionStatus::Unknown, "NotReached")));
        assert_eq!(state(&gates[..1], None), Some((ConditionStatus::True, "Approved")));
        assert_eq!(state(&[], None), None, "of an update that nobody has to approve");
        // Who has moved was not left out, whatever was asked.
        assert_eq!(left_out(&nodes).as_deref(), Some("; without w-1, left out as was asked for"));
        assert_eq!(left_out(&BTreeMap::from([("w-2".to_owned(), AskedFor::Moved)])), None);
        let both = [("w-1", AskedFor::Behind), ("w-3", AskedFor::DrainExpired)].map(|(node, is)| (node.to_owned(), is));
        let told = left_out(&BTreeMap::from(both)).unwrap();
        assert!(told.starts_with("; without w-1, left out as was asked for; without w-3, left out because"), "{told}");
        for stage in [Stage::UnderWay(&gates), Stage::Before, Stage::Over] {
            assert_eq!(acknowledged(&first, &control, &BTreeMap::new(), stage, at(60)), first, "what was said stays");
        }
        let early = acknowledged(&[], &control, &nodes, Stage::Before, at(0));
        assert_eq!(early.len(), first.len() - control.approvals.len(), "which gates there will be, nobody knows yet");
        assert_eq!(early[1].message, "cancelled before anything was started");
        let late = acknowledged(&early, &control, &nodes, Stage::Over, at(60));
        let answered: Vec<bool> = late.iter().map(|answer| answer.message == OVER).collect();
        assert_eq!(answered, [vec![false; early.len()], vec![true; control.approvals.len()]].concat());
    }

    #[test]
    fn all_requests_that_there_can_be_are_answered_and_then_nothing_is_written_any_more() {
        let many = |name: &str| -> Vec<serde_json::Value> {
            (0..limits::REQUESTS_MAX)
                .map(|n| json!({"requestId": format!("{name}-{n}"), "vertex": "w-1", "gate": "g"}))
                .collect()
        };
        let control: Control = serde_json::from_value(json!({
            "pause": {"requestId": "p"}, "cancel": {"requestId": "c"}, "resume": {"requestId": "u"},
            "retry": many("r"), "skip": many("s"), "approvals": many("a"),
        }))
        .unwrap();
        let at = |seconds: i64| Timestamp::from_timestamp(1_790_000_000 + seconds, 0).unwrap();
        let old =
            |n: usize| Acknowledgement { at: at(0), message: "was asked for".into(), request_id: format!("old-{n}") };
        let before: Vec<Acknowledgement> = (0..10).map(old).collect();
        let all = acknowledged(&before, &control, &BTreeMap::new(), Stage::UnderWay(&[]), at(1));
        assert_eq!(all.len(), limits::ACKNOWLEDGED_MAX);
        assert_eq!(acknowledged(&all, &control, &BTreeMap::new(), Stage::UnderWay(&[]), at(2)), all);
    }
}
