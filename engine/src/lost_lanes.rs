//! Lanes that became unavailable take slots: those of a run, and those of a run before it.

use crate::clock::Timestamp;
use crate::cursor::Cursor;
use crate::dag::{Dag, DagBuilder};
use crate::decide::{Intent, Limits, Observed, decide};
use crate::event::Event;
use crate::names::VertexName;
use crate::testing::vertex;
use chrono::DateTime;
use serde_json::Value;
use std::collections::BTreeSet;

fn start() -> Timestamp {
    DateTime::from_timestamp(1_790_000_000, 0).unwrap()
}

/// Two vertices, each in a lane of its own.
fn two_lanes() -> Dag {
    let mut builder = DagBuilder::new();
    for name in ["a", "b"] {
        let mut vertex = vertex(name, &[]);
        vertex.lane = Some(format!("lane-{name}"));
        builder.add(vertex);
    }
    builder.build().unwrap()
}

#[test]
fn a_run_whose_every_slot_is_held_by_a_lost_lane_waits_names_it_and_does_not_call_itself_done() {
    let dag = two_lanes();
    let mut cursor = Cursor::new("digest", &dag, start());
    let a = VertexName::new("a").unwrap();
    cursor.apply(&Event::Started { vertex: a.clone(), attempt: 1, at: start() }).unwrap();
    cursor.apply(&Event::Succeeded { vertex: a, attempt: 1, output: Value::Null, at: start() }).unwrap();
    let lost = Observed { unavailable_lanes: BTreeSet::from(["lane-a".to_owned()]), ..Observed::default() };
    let held = decide(&dag, &cursor, &Intent::default(), &lost, &Limits::default(), start());
    let [Event::HeldBack { reason, .. }] = &held.events[..] else {
        panic!("neither started nor finished, but told why: {:?}", held.events);
    };
    assert!(reason.message.contains("lane-a"), "{reason}");
    cursor.fold(&held.events).unwrap();
    let again = decide(&dag, &cursor, &Intent::default(), &lost, &Limits::default(), start());
    assert_eq!(again.events, [], "told once");
    assert!(held.wake_at.is_some());
    let stranger = Observed { unavailable_lanes: BTreeSet::from(["elsewhere".to_owned()]), ..Observed::default() };
    let free = decide(&dag, &cursor, &Intent::default(), &stranger, &Limits::default(), start());
    assert_eq!(free.start, [VertexName::new("b").unwrap()]);
}

#[test]
fn a_node_that_a_run_before_lost_takes_a_slot_and_the_rest_goes_on_when_it_is_back() {
    let dag = two_lanes();
    let mut cursor = Cursor::new("digest", &dag, start());
    let before = |names: &[&str]| Observed {
        unavailable_before: names.iter().map(ToString::to_string).collect(),
        ..Observed::default()
    };
    let started = |cursor: &Cursor, observed: &Observed, concurrency| {
        let limits = Limits { concurrency, ..Limits::default() };
        decide(&dag, cursor, &Intent::default(), observed, &limits, start()).start.len()
    };
    assert_eq!(started(&cursor, &before(&["of-batch-1"]), 2), 1, "it takes one of two");
    assert_eq!(started(&cursor, &before(&[]), 2), 2);
    assert_eq!(started(&cursor, &before(&["lane-a"]), 1), 1, "its own lanes are judged by what it did there");
    let held = decide(&dag, &cursor, &Intent::default(), &before(&["of-batch-1"]), &Limits::default(), start());
    let [Event::HeldBack { reason, .. }] = &held.events[..] else {
        panic!("neither started nor finished, but told why: {:?}", held.events);
    };
    assert!(reason.code == "NodesUnavailable" && reason.message.contains("of-batch-1"), "{reason}");
    assert!(held.wake_at.is_some());
    cursor.fold(&held.events).unwrap();
    assert_eq!(started(&cursor, &before(&[]), 1), 1, "back");
}
