//! What a DirectUpdate answers to the requests of its `spec.control`: each once, under its id, as soon as it is read. Pure.

use crate::adapters::views::node_view;
use crate::watches::Watches;
use cupcake_crds::DirectUpdate;
use cupcake_crds::control::{Acknowledgement, Control};
use cupcake_crds::limits;
use cupcake_crds::values::NodeRole;
use cupcake_engine::clock::Timestamp;
use std::collections::BTreeMap;

/// Nodes that a message names.
const NAMED_MAX: usize = 5;

/// What a node that is to be left out is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskedFor {
    /// Of the control plane: never left out.
    ControlPlane,
    /// A worker at the update's target: it has moved already.
    Moved,
    /// A worker that has not.
    Behind,
}

/// The nodes that the update is asked to leave out, as far as they are there.
pub fn asked_for(update: &DirectUpdate, watches: &Watches) -> BTreeMap<String, AskedFor> {
    let target = update.spec.target().ok();
    let asked = update.spec.control.iter().flat_map(|control| &control.skip);
    asked
        .filter_map(|request| {
            let node = node_view(watches.nodes.get(&request.vertex)?);
            let is = match node.role {
                NodeRole::ControlPlane => AskedFor::ControlPlane,
                NodeRole::Worker if target.is_some() && node.kubelet == target => AskedFor::Moved,
                NodeRole::Worker => AskedFor::Behind,
            };
            Some((request.vertex.clone(), is))
        })
        .collect()
}

/// The answers, with those that were given before as they were.
pub fn acknowledged(
    before: &[Acknowledgement],
    control: &Control,
    nodes: &BTreeMap<String, AskedFor>,
    now: Timestamp,
) -> Vec<Acknowledgement> {
    let requests = requests(control, nodes);
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
pub fn left_out(nodes: &BTreeMap<String, AskedFor>) -> Option<String> {
    let behind = nodes.iter().filter(|(_, is)| **is == AskedFor::Behind);
    let workers: Vec<&str> = behind.map(|(node, _)| node.as_str()).collect();
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
fn requests<'c>(control: &'c Control, nodes: &BTreeMap<String, AskedFor>) -> Vec<(&'c str, String)> {
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
        let message = match nodes.get(node) {
            Some(AskedFor::Behind) => {
                format!("{node}: left out; what is under way there comes to its end, then it is given back")
            }
            Some(AskedFor::Moved) => format!("{node}: it has moved already, and stays so"),
            Some(AskedFor::ControlPlane) => {
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
                {"requestId": "s4", "vertex": "w-2"},
            ],
            "approvals": [{"requestId": "a", "gate": "canary-gate"}],
        }))
        .unwrap();
        let nodes = [("w-1", AskedFor::Behind), ("w-2", AskedFor::Moved), ("cp-1", AskedFor::ControlPlane)];
        let nodes = nodes.map(|(node, is)| (node.to_owned(), is)).into();
        let at = |seconds: i64| Timestamp::from_timestamp(1_790_000_000 + seconds, 0).unwrap();
        let first = acknowledged(&[], &control, &nodes, at(0));
        let ids: Vec<&str> = first.iter().map(|answer| answer.request_id.as_str()).collect();
        assert_eq!(ids, ["p", "c", "r", "s1", "s2", "s3", "s4", "a"]);
        let refused: Vec<&str> = first
            .iter()
            .filter(|answer| answer.message.starts_with("refused"))
            .map(|answer| answer.request_id.as_str())
            .collect();
        assert_eq!(refused, ["s2", "a"]);
        // Who has moved was not left out, whatever was asked.
        assert_eq!(left_out(&nodes).as_deref(), Some("; without w-1, left out as was asked for"));
        assert_eq!(left_out(&BTreeMap::from([("w-2".to_owned(), AskedFor::Moved)])), None);
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
