//! What a DirectUpdate answers to the requests of its `spec.control`: each once, under its id, as soon as it is read. Pure.

use crate::adapters::views::node_view;
use crate::watches::Watches;
use cupcake_crds::control::{Acknowledgement, Control};
use cupcake_crds::limits;
use cupcake_crds::values::NodeRole;
use cupcake_crds::{DirectUpdate, DirectUpdateSpec};
use cupcake_engine::clock::Timestamp;
use std::collections::BTreeMap;

/// Nodes that a message names.
const NAMED_MAX: usize = 5;

/// The roles of the nodes that the update is asked to leave out; one that is not there is no node.
pub fn roles_asked_for(update: &DirectUpdate, watches: &Watches) -> BTreeMap<String, NodeRole> {
    let asked = update.spec.control.iter().flat_map(|control| &control.skip);
    asked
        .filter_map(|request| {
            let node = watches.nodes.get(&request.vertex)?;
            Some((request.vertex.clone(), node_view(node).role))
        })
        .collect()
}

/// The answers, with those that were given before as they were.
pub fn acknowledged(
    before: &[Acknowledgement],
    control: &Control,
    roles: &BTreeMap<String, NodeRole>,
    now: Timestamp,
) -> Vec<Acknowledgement> {
    let requests = requests(control, roles);
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

/// Who was left out, for the end of the message of an update that succeeded without them; `None` if nobody was.
pub fn left_out(spec: &DirectUpdateSpec, roles: &BTreeMap<String, NodeRole>) -> Option<String> {
    let workers: Vec<&str> = roles
        .iter()
        .filter(|(node, role)| **role == NodeRole::Worker && spec.skips(node))
        .map(|(node, _)| node.as_str())
        .collect();
    let told = workers.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    match workers.len() {
        0 => None,
        count if count > NAMED_MAX => {
            Some(format!("; without {told} and {} more, which were left out", count - NAMED_MAX))
        }
        _ => Some(format!("; without {told}, left out as was asked for")),
    }
}

/// Each request with what becomes of it.
fn requests<'c>(control: &'c Control, roles: &BTreeMap<String, NodeRole>) -> Vec<(&'c str, String)> {
    let mut all = Vec::new();
    if let Some(pause) = &control.pause {
        let message = "paused: nothing new starts; what is under way on a machine comes to its end";
        all.push((pause.request_id.as_str(), message.to_owned()));
    }
    if let Some(cancel) = &control.cancel {
        let message = "cancelled: what is under way comes to a safe point, then nodes are given back";
        all.push((cancel.request_id.as_str(), message.to_owned()));
    }
    for retry in &control.retry {
        let message = format!("{}: tried again, once, if it has failed", retry.vertex);
        all.push((retry.request_id.as_str(), message));
    }
    for skip in &control.skip {
        let node = &skip.vertex;
        let message = match roles.get(node) {
            Some(NodeRole::Worker) => {
                format!("{node}: left out; what is under way there comes to its end, then it is given back")
            }
            Some(NodeRole::ControlPlane) => {
                format!("refused: {node} is of the control plane, which moves as a whole; mend it and retry")
            }
            None => format!("{node}: there is no such node now; left out if it comes"),
        };
        all.push((skip.request_id.as_str(), message));
    }
    for approval in &control.approvals {
        let message = format!("refused: no gate {} is waiting", approval.gate);
        all.push((approval.request_id.as_str(), message));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_request_is_answered_once_and_one_that_cannot_be_met_says_why() {
        let control: Control = serde_json::from_value(json!({
            "pause": {"requestId": "p"}, "cancel": {"requestId": "c"},
            "retry": [{"requestId": "r", "vertex": "w-1"}],
            "skip": [
                {"requestId": "s1", "vertex": "w-1"}, {"requestId": "s2", "vertex": "cp-1"}, {"requestId": "s3", "vertex": "w-9"},
            ],
            "approvals": [{"requestId": "a", "gate": "canary-gate"}],
        }))
        .unwrap();
        let roles = BTreeMap::from([("w-1".into(), NodeRole::Worker), ("cp-1".into(), NodeRole::ControlPlane)]);
        let at = |seconds: i64| Timestamp::from_timestamp(1_790_000_000 + seconds, 0).unwrap();
        let first = acknowledged(&[], &control, &roles, at(0));
        let ids: Vec<&str> = first.iter().map(|answer| answer.request_id.as_str()).collect();
        assert_eq!(ids, ["p", "c", "r", "s1", "s2", "s3", "a"]);
        let refused: Vec<&str> = first
            .iter()
            .filter(|answer| answer.message.starts_with("refused"))
            .map(|answer| answer.request_id.as_str())
            .collect();
        assert_eq!(refused, ["s2", "a"]);
        assert_eq!(acknowledged(&first, &control, &BTreeMap::new(), at(60)), first, "what was said stays");
    }

    #[test]
    fn all_requests_that_there_can_be_are_answered_and_then_nothing_is_written_any_more() {
        let many = |name: &str| -> Vec<serde_json::Value> {
            (0..limits::REQUESTS_MAX)
                .map(|n| json!({"requestId": format!("{name}-{n}"), "vertex": "w-1", "gate": "g"}))
                .collect()
        };
        let control: Control = serde_json::from_value(json!({
            "pause": {"requestId": "p"}, "cancel": {"requestId": "c"},
            "retry": many("r"), "skip": many("s"), "approvals": many("a"),
        }))
        .unwrap();
        let at = |seconds: i64| Timestamp::from_timestamp(1_790_000_000 + seconds, 0).unwrap();
        let old =
            |n: usize| Acknowledgement { at: at(0), message: "was asked for".into(), request_id: format!("old-{n}") };
        let before: Vec<Acknowledgement> = (0..10).map(old).collect();
        let all = acknowledged(&before, &control, &BTreeMap::new(), at(1));
        assert_eq!(all.len(), limits::ACKNOWLEDGED_MAX);
        assert_eq!(acknowledged(&all, &control, &BTreeMap::new(), at(2)), all);
    }
}
