//! What a cursor means for the one who ordered: pure.

use crate::class::error_of;
use crate::compile::{AWAIT, step_of};
use chrono::TimeDelta;
use cupcake_crds::node_task::{ErrorClass, TaskError, TaskWait};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::cursor::{Cursor, RunPhase, VertexState};
use cupcake_engine::dag::Dag;
use cupcake_engine::event::Event;
use cupcake_engine::names::{Reason, VertexName};
use cupcake_steps::mailbox::Verdict;
use serde_json::Value;
use std::collections::BTreeMap;

/// How many bytes of outputs an order gives back: they travel on in a cursor of the operator, which takes 1 KiB a vertex.
pub const OUTPUT_BYTES_MAX: usize = 900;

/// Why an order is to end before its work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was asked to stop.
    Stop,
    /// Its deadline has passed.
    Overdue,
}

impl Ending {
    /// The answer to an order that ended so.
    pub fn verdict(self, deadline_seconds: u32) -> Verdict {
        match self {
            Self::Stop => Verdict::Stopped,
            Self::Overdue => Verdict::Failed {
                error: TaskError {
                    class: ErrorClass::Transient,
                    code: "DeadlineExceeded".to_owned(),
                    message: format!(
                        "the machine worked on the order for more than the {deadline_seconds} s it was given"
                    ),
                },
            },
        }
    }
}

/// The final answer that the cursor stands for, with the step it is about; `None` while there is work left.
pub fn final_verdict(
    cursor: &Cursor,
    dag: &Dag,
    events: &[Event],
    ending: Option<Ending>,
    deadline_seconds: u32,
) -> Option<(Verdict, Option<VertexName>)> {
    match cursor.phase() {
        RunPhase::Pending | RunPhase::InProgress => None,
        RunPhase::Succeeded => Some((Verdict::Done, None)),
        // Nothing but a stop and a deadline cancels a run here; after a restart the deadline may not be the reason any more.
        RunPhase::Cancelled => Some((ending.unwrap_or(Ending::Overdue).verdict(deadline_seconds), None)),
        RunPhase::Failed | RunPhase::RequiresAttention => {
            let (vertex, reason) = failure(cursor, dag, events);
            Some((Verdict::Failed { error: error_of(&reason) }, vertex))
        }
    }
}

fn failure(cursor: &Cursor, dag: &Dag, events: &[Event]) -> (Option<VertexName>, Reason) {
    let failed = dag.vertices().iter().map(|vertex| &vertex.name).find(|name| state_is_failed(cursor.state(name)));
    let Some(vertex) = failed else {
        let unknown = Reason::new("Failed", "the journal does not say why");
        return (None, cursor.reason().cloned().unwrap_or(unknown));
    };
    // The event has the whole message, the cursor's note a cut one.
    let told = events.iter().rev().find_map(|event| match event {
        Event::Failed { vertex: of, reason, .. } if of == vertex => Some(reason),
        Event::Started { .. }
        | Event::Waiting { .. }
        | Event::Continued { .. }
        | Event::Succeeded { .. }
        | Event::Skipped { .. }
        | Event::Failed { .. }
        | Event::TakenUp { .. }
        | Event::Reset { .. }
        | Event::Paused { .. }
        | Event::Resumed { .. }
        | Event::Credited { .. }
        | Event::CancelRequested { .. }
        | Event::HeldBack { .. }
        | Event::Rested { .. }
        | Event::Finished { .. }
        | Event::Unknown => None,
    });
    let reason = told.or(cursor.note(vertex)).cloned();
    (Some(vertex.clone()), reason.unwrap_or_else(|| Reason::new("Failed", "the journal does not say why")))
}

fn state_is_failed(state: Option<VertexState>) -> bool {
    match state {
        Some(VertexState::Failed { .. }) => true,
        Some(
            VertexState::Pending { .. }
            | VertexState::Started { .. }
            | VertexState::Waiting { .. }
            | VertexState::BackingOff { .. }
            | VertexState::Succeeded { .. }
            | VertexState::Skipped { .. },
        )
        | None => false,
    }
}

/// The vertex under way and when it began, if one is.
pub fn under_way(cursor: &Cursor, dag: &Dag) -> Option<(VertexName, Timestamp)> {
    dag.vertices().iter().find_map(|vertex| match cursor.state(&vertex.name) {
        Some(VertexState::Started { since, .. } | VertexState::Waiting { since, .. }) => {
            Some((vertex.name.clone(), since))
        }
        Some(
            VertexState::Pending { .. }
            | VertexState::BackingOff { .. }
            | VertexState::Succeeded { .. }
            | VertexState::Skipped { .. }
            | VertexState::Failed { .. },
        )
        | None => None,
    })
}

/// What the vertex under way waits for, if people should see that.
pub fn waiting(cursor: &Cursor, dag: &Dag) -> Option<TaskWait> {
    let (vertex, _) = under_way(cursor, dag)?;
    match cursor.state(&vertex) {
        Some(VertexState::Waiting { .. }) => {
            let reason = cursor.note(&vertex)?;
            Some(TaskWait { code: reason.code.clone(), message: reason.message.clone() })
        }
        Some(
            VertexState::Pending { .. }
            | VertexState::Started { .. }
            | VertexState::BackingOff { .. }
            | VertexState::Succeeded { .. }
            | VertexState::Skipped { .. }
            | VertexState::Failed { .. },
        )
        | None => None,
    }
}

/// Whether the first part is done and the second not begun.
pub fn is_prepared(cursor: &Cursor, dag: &Dag) -> bool {
    under_way(cursor, dag).is_some_and(|(vertex, _)| vertex.as_str() == AWAIT)
}

/// When the order's deadline passes; `None` while it waits for proceed.
///
/// Only the time of steps counts: neither the wait between the parts nor time that was given back because the machine was
/// off, which moved the start of the step under way.
pub fn overdue_at(cursor: &Cursor, dag: &Dag, deadline_seconds: u32, now: Timestamp) -> Option<Timestamp> {
    let now = now.max(cursor.clock());
    let mut left = TimeDelta::seconds(i64::from(deadline_seconds));
    let mut since = None;
    for vertex in dag.vertices() {
        let waits_for_proceed = vertex.name.as_str() == AWAIT;
        match cursor.state(&vertex.name) {
            Some(VertexState::Started { .. } | VertexState::Waiting { .. }) if waits_for_proceed => {
                // Overdue before it began to wait: that does not heal.
                return (left < TimeDelta::zero()).then_some(now);
            }
            Some(
                VertexState::Started { first, .. }
                | VertexState::Waiting { first, .. }
                | VertexState::BackingOff { first, .. },
            ) => since = Some(first),
            Some(VertexState::Succeeded { first, ended, .. } | VertexState::Failed { first, ended, .. }) => {
                if !waits_for_proceed {
                    left -= ended - first;
                }
                since = Some(now);
            }
            Some(VertexState::Pending { .. } | VertexState::Skipped { .. }) | None => {}
        }
    }
    Some(since.unwrap_or(cursor.created()) + left)
}

/// Whether a step was begun, so that the machine may not be as the order found it.
pub fn is_begun(cursor: &Cursor, dag: &Dag) -> bool {
    dag.vertices().iter().any(|vertex| cursor.state(&vertex.name).is_some_and(|state| state.attempts() > 0))
}

/// What the steps found out, as `<step>.<field>` to text, up to [`OUTPUT_BYTES_MAX`].
pub fn outputs(cursor: &Cursor, dag: &Dag) -> BTreeMap<String, String> {
    let mut outputs = BTreeMap::new();
    let mut bytes = 0;
    for vertex in dag.vertices() {
        let Some(Value::Object(fields)) = cursor.output(&vertex.name) else {
            continue;
        };
        for (field, value) in fields {
            let name = format!("{}.{field}", step_of(&vertex.name));
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                    value.to_string()
                }
            };
            // Two quotes each, a colon, a comma.
            bytes += name.len() + text.len() + 6;
            if bytes > OUTPUT_BYTES_MAX {
                return outputs;
            }
            outputs.insert(name, text);
        }
    }
    outputs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::compile;
    use crate::samples::order;
    use chrono::DateTime;
    use serde_json::json;

    fn second(second: i64) -> Timestamp {
        DateTime::from_timestamp(1_790_000_000 + second, 0).unwrap()
    }

    /// The cursor of an order whose first vertices took that many seconds each; the vertex after them is under way.
    fn cursor(seconds: &[i64], output: &Value) -> (Cursor, Dag) {
        let plan = compile(&order(1)).unwrap();
        let dag = plan.expand().unwrap();
        let mut cursor = Cursor::new(plan.digest(), &dag, second(0));
        let mut at = second(0);
        for (position, vertex) in dag.vertices().iter().take(seconds.len() + 1).enumerate() {
            let vertex = vertex.name.clone();
            cursor.apply(&Event::Started { vertex: vertex.clone(), attempt: 1, at }).unwrap();
            if let Some(took) = seconds.get(position) {
                at += TimeDelta::seconds(*took);
                cursor.apply(&Event::Succeeded { vertex, attempt: 1, output: output.clone(), at }).unwrap();
            }
        }
        (cursor, dag)
    }

    #[test]
    fn a_deadline_counts_work_and_not_the_wait_between_the_parts() {
        let at = |seconds: &[i64], now| {
            let (cursor, dag) = cursor(seconds, &Value::Null);
            overdue_at(&cursor, &dag, 100, second(now))
        };
        assert_eq!(at(&[10], 20), Some(second(100)), "in the first part");
        assert_eq!(at(&[10, 10, 10], 5_000), None, "while it waits");
        assert_eq!(at(&[10, 10, 90], 5_000), Some(second(5_000)), "overdue before it waited");
        assert_eq!(at(&[10, 10, 10, 5_000], 5_030), Some(second(5_100)), "in the second part");
    }

    #[test]
    fn outputs_are_named_by_their_step_and_end_where_the_next_would_be_too_much() {
        let (small, dag) = cursor(&[1, 1], &json!({"path": "/x", "bytes": 7}));
        let expected = [
            ("install-kubeadm.bytes", "7"),
            ("install-kubeadm.path", "/x"),
            ("switch-repository.bytes", "7"),
            ("switch-repository.path", "/x"),
        ];
        assert_eq!(outputs(&small, &dag), expected.map(|(name, text)| (name.to_owned(), text.to_owned())).into());
        let (large, dag) = cursor(&[1, 1], &json!({"path": "x".repeat(500)}));
        assert_eq!(outputs(&large, &dag).len(), 1);
    }
}
