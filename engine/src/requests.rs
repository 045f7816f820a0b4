//! What is taken into account before a run is decided: time in which nobody looked, and what people ask of the run.

use crate::clock::{Timestamp, whole_seconds};
use crate::cursor::{Cursor, VertexState};
use crate::dag::{Dag, Vertex};
use crate::decide::{Decision, Intent, Observed, push};
use crate::event::Event;
use crate::names::VertexName;
use chrono::TimeDelta;
use std::collections::BTreeSet;

/// Shorter times without anybody who looks are not given back to deadlines, in seconds: a change of leaders is not worth a write.
pub const CREDIT_SECONDS_MIN: i64 = 30;

/// What was under way while nobody looked had less time than it was given: its deadline moves by that, once.
pub(crate) fn give_credit(
    cursor: &mut Cursor,
    dag: &Dag,
    observed: &Observed,
    now: Timestamp,
    decision: &mut Decision,
) {
    let Some((from, until)) = observed.unled else {
        return;
    };
    let (from, until) = (whole_seconds(from).max(cursor.credited().unwrap_or(from)), whole_seconds(until).min(now));
    let lost = |first: Timestamp| (until - from.max(first)).num_seconds() >= CREDIT_SECONDS_MIN;
    let under_way = dag.vertices().iter().any(|vertex| match cursor.state(&vertex.name) {
        Some(
            VertexState::Started { first, .. }
            | VertexState::Waiting { first, .. }
            | VertexState::BackingOff { first, .. },
        ) => lost(first),
        Some(
            VertexState::Pending { .. }
            | VertexState::Succeeded { .. }
            | VertexState::Skipped { .. }
            | VertexState::Failed { .. },
        )
        | None => false,
    });
    if under_way && !cursor.is_paused() {
        push(cursor, decision, Event::Credited { from, until, at: now });
    }
}

pub(crate) fn take_intent(cursor: &mut Cursor, intent: &Intent, now: Timestamp, decision: &mut Decision) {
    // A cancel ends a pause: what must happen in any case could not happen under it.
    match (intent.pause.as_ref().filter(|_| !intent.cancel), cursor.is_paused()) {
        (Some(reason), false) => {
            let reason = reason.clone();
            push(cursor, decision, Event::Paused { reason, at: now });
        }
        (None, true) => push(cursor, decision, Event::Resumed { at: now }),
        (Some(_), true) | (None, false) => {}
    }
    if intent.cancel && !cursor.is_cancelling() {
        push(cursor, decision, Event::CancelRequested { at: now });
    }
}

/// Takes up what is to be tried again: a vertex by itself, or all of its lane, since a node that failed was given back
/// meanwhile and has to be emptied again before anything is changed on it. A vertex that gave up because its child run needed
/// a person follows when the child goes on.
pub(crate) fn take_retries(
    cursor: &mut Cursor,
    dag: &Dag,
    intent: &Intent,
    observed: &Observed,
    now: Timestamp,
    decision: &mut Decision,
) {
    if intent.retry.is_empty() || cursor.is_cancelling() {
        return;
    }
    for retry in &intent.retry {
        let Some(what) = retry.what.as_deref().filter(|_| !cursor.has_taken_up(&retry.request)) else {
            continue;
        };
        let again = meant(cursor, dag, what);
        // What gives the node back is still at work: the request is taken up when it is done.
        if again.iter().any(|name| is_under_way(cursor.state(name))) {
            continue;
        }
        for vertex in again {
            if !matches!(cursor.state(&vertex), Some(VertexState::Pending { .. })) {
                push(cursor, decision, Event::Reset { vertex, request: Some(retry.request.clone()), at: now });
            }
        }
    }
    let gave_up = |vertex: &&Vertex| match cursor.state(&vertex.name) {
        // Not one whose own time was up: its child may be at work for ever.
        Some(VertexState::Failed { first, ended, .. }) => {
            ended - first < TimeDelta::seconds(i64::from(vertex.deadline_seconds))
        }
        Some(_) | None => false,
    };
    let revived = dag.vertices().iter().filter(gave_up).map(|vertex| &vertex.name);
    let revived: Vec<VertexName> =
        revived.filter(|name| observed.children_under_way.contains(*name)).cloned().collect();
    for vertex in revived {
        push(cursor, decision, Event::Reset { vertex, request: None, at: now });
    }
}

/// Failed vertices that `what` names, by themselves or by their lane, with all others of their lanes.
fn meant(cursor: &Cursor, dag: &Dag, what: &str) -> Vec<VertexName> {
    let is_meant = |vertex: &&Vertex| {
        let named = vertex.name.as_str() == what || vertex.lane.as_deref().is_some_and(|lane| is_lane(lane, what));
        named && has_failed(cursor.state(&vertex.name))
    };
    let failed: Vec<&Vertex> = dag.vertices().iter().filter(is_meant).collect();
    let lanes: BTreeSet<&str> = failed.iter().filter_map(|vertex| vertex.lane.as_deref()).collect();
    let again = dag.vertices().iter().filter(|vertex| {
        vertex.lane.as_deref().is_some_and(|lane| lanes.contains(lane))
            || failed.iter().any(|failed| failed.name == vertex.name)
    });
    again.map(|vertex| vertex.name.clone()).collect()
}

fn has_failed(state: Option<VertexState>) -> bool {
    matches!(state, Some(VertexState::Failed { .. }))
}

fn is_under_way(state: Option<VertexState>) -> bool {
    matches!(state, Some(VertexState::Started { .. } | VertexState::Waiting { .. } | VertexState::BackingOff { .. }))
}

/// Whether a lane is that node's: lanes of a plan over several minors carry the version before the node.
fn is_lane(lane: &str, what: &str) -> bool {
    lane == what || lane.strip_suffix(what).is_some_and(|before| before.ends_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::{Limits, Retry, decide};
    use crate::event::AfterFailure;
    use crate::names::{Reason, StepKind};
    use crate::plan::{Plan, VertexTemplate};
    use serde_json::Value;

    fn start() -> Timestamp {
        Timestamp::from_timestamp(1_790_000_000, 0).unwrap()
    }

    #[test]
    fn a_retry_takes_the_whole_lane_up_once_and_a_vertex_that_gave_up_on_its_child_follows() {
        let kind = StepKind::new("reach/v1").unwrap();
        let mut plan = Plan::new("test");
        for vertex in ["prepare", "drain", "restart"] {
            let after: &[&str] = match vertex {
                "prepare" => &[],
                "drain" => &["w-1/prepare"],
                _ => &["w-1/drain"],
            };
            plan.vertex(
                VertexTemplate::new(format!("w-1/{vertex}"), kind.clone(), vertex.into(), after).lane("1.34.4/w-1"),
            );
        }
        plan.vertex(VertexTemplate::new("child", kind, "child".into(), &[]));
        let dag = plan.expand().unwrap();
        let cursor = Cursor::new(plan.digest(), &dag, start());
        let name = |text: &str| VertexName::new(text).unwrap();
        let started = |vertex: &str| Event::Started { vertex: name(vertex), attempt: 1, at: start() };
        let done =
            |vertex: &str| Event::Succeeded { vertex: name(vertex), attempt: 1, output: Value::Null, at: start() };
        let failed = |vertex: &str, code: &str| Event::Failed {
            vertex: name(vertex),
            attempt: 1,
            reason: Reason::new(code, "by a test"),
            next: AfterFailure::Rest,
            at: start(),
        };
        let mut rests = cursor.clone();
        let past =
            [started("w-1/prepare"), done("w-1/prepare"), started("w-1/drain"), failed("w-1/drain", "DrainBlocked")];
        rests.fold(&past).unwrap();
        rests.fold(&[started("child"), failed("child", "DeadlineExceeded")]).unwrap();
        let asked = |what: Option<&str>| Intent {
            retry: vec![Retry { request: "retry-1".into(), run: None, what: what.map(str::to_owned) }],
            ..Intent::default()
        };
        let reset_by = |cursor: &Cursor, intent: &Intent, observed: &Observed| -> Vec<String> {
            let decision = decide(&dag, cursor, intent, observed, &Limits::default(), start());
            let lines = decision.events.iter().filter(|event| matches!(event, Event::Reset { .. }));
            lines.map(Event::line).collect()
        };
        let calm = Observed::default();
        for what in ["w-1", "1.34.4/w-1", "w-1/drain"] {
            assert_eq!(reset_by(&rests, &asked(Some(what)), &calm), ["reset w-1/prepare", "reset w-1/drain"], "{what}");
        }
        for what in [Some("w-11"), Some("w-1/prepare"), Some("1"), None] {
            assert_eq!(reset_by(&rests, &asked(what), &calm), Vec::<String>::new(), "{what:?} has not failed");
        }
        // Taken up once: what fails again needs another request.
        let mut again = rests.clone();
        again.fold(&decide(&dag, &rests, &asked(Some("w-1")), &calm, &Limits::default(), start()).events).unwrap();
        assert!(again.has_taken_up("retry-1"));
        let again = crate::codec::decode(&crate::codec::encode(&again, &dag), &plan.digest(), &dag).unwrap();
        assert_eq!(again.state(&name("w-1/prepare")).unwrap().under_way(), Some(2));
        let mut failed_again = again;
        failed_again
            .fold(&[Event::Failed {
                vertex: name("w-1/prepare"),
                attempt: 2,
                reason: Reason::new("X", "x"),
                next: AfterFailure::Rest,
                at: start(),
            }])
            .unwrap();
        assert_eq!(reset_by(&failed_again, &asked(Some("w-1")), &calm), Vec::<String>::new());
        // The child goes on: so does what waited for it, in a run that the request does not name, too.
        let revived = Observed { children_under_way: BTreeSet::from([name("child")]), ..Observed::default() };
        assert_eq!(reset_by(&rests, &asked(None), &revived), ["reset child"]);
        assert_eq!(reset_by(&rests, &Intent::default(), &revived), Vec::<String>::new(), "nobody asked");
        let late = Event::Failed {
            vertex: name("child"),
            attempt: 1,
            reason: Reason::new("DeadlineExceeded", "by a test"),
            next: AfterFailure::Rest,
            at: start() + TimeDelta::seconds(i64::from(crate::plan::DEADLINE_SECONDS_DEFAULT)),
        };
        let mut overdue = cursor;
        overdue.fold(&[started("child"), late]).unwrap();
        assert_eq!(reset_by(&overdue, &asked(None), &revived), Vec::<String>::new(), "its own time is up");
    }
}
