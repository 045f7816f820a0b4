//! What is taken into account before a run is decided: time in which nobody looked, and what people ask of the run.

use crate::clock::{Timestamp, whole_seconds};
use crate::cursor::{Cursor, VertexState};
use crate::dag::{Dag, Vertex};
use crate::decide::{Decision, Intent, Observed, push};
use crate::event::Event;
use crate::names::{Reason, VertexName};
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
    let series = dag.vertices().iter().filter_map(|vertex| cursor.state(&vertex.name)?.series_start());
    let lost_some = series.into_iter().any(lost);
    // Under a pause too, which is given back as a whole: then nothing moves, and it is not given back once more.
    if lost_some {
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

/// Whether a lane is the one that is meant: `w-1`, or `1.34.4/w-1`, the same node.
fn is_lane(lane: Option<&str>, what: &str) -> bool {
    lane.is_some_and(|lane| lane == what || lane.rsplit('/').next() == Some(what))
}

/// Whether somebody asks to leave out the lane of a vertex, and that was not taken up yet: steps that may be left at any moment
/// are, as by a cancel, so that a drain that is blocked holds nobody up.
pub(crate) fn is_being_left_out(cursor: &Cursor, intent: &Intent, vertex: &Vertex) -> bool {
    let standing = intent.skip.iter().filter(|skip| !cursor.has_taken_up(&skip.request));
    standing.filter_map(|skip| skip.what.as_deref()).any(|what| is_lane(vertex.lane.as_deref(), what))
}

/// Whether somebody asked to leave out the lane of a vertex that does not give anything back, taken up or not.
fn is_left_out(dag: &Dag, intent: &Intent, name: &VertexName) -> bool {
    let vertex = dag.get(name).filter(|vertex| vertex.guard.is_none());
    vertex.is_some_and(|vertex| {
        intent.skip.iter().filter_map(|skip| skip.what.as_deref()).any(|what| is_lane(vertex.lane.as_deref(), what))
    })
}

/// Leaves lanes out: what is left of one is skipped once none of its vertices is under way. What gives it back runs all the same, and
/// once more if it had failed; asked for a second time a lane is left out without it. Not under a pause, which nothing passes.
pub(crate) fn take_skips(cursor: &mut Cursor, dag: &Dag, intent: &Intent, now: Timestamp, decision: &mut Decision) {
    if cursor.is_cancelling() || cursor.is_paused() {
        return;
    }
    for skip in &intent.skip {
        let Some(what) = skip.what.as_deref().filter(|_| !cursor.has_taken_up(&skip.request)) else {
            continue;
        };
        let insisted = intent.skip.iter().any(|other| {
            other.request != skip.request && other.what == skip.what && cursor.has_taken_up(&other.request)
        });
        let lane: Vec<&Vertex> = dag.vertices().iter().filter(|vertex| is_lane(vertex.lane.as_deref(), what)).collect();
        let under_way =
            |vertex: &&Vertex| cursor.state(&vertex.name).is_some_and(|state| state.series_start().is_some());
        // Of another run, or between two commit points: it is taken up at the next one.
        if lane.is_empty() || lane.iter().any(under_way) {
            continue;
        }
        push(cursor, decision, Event::TakenUp { request: skip.request.clone(), at: now });
        for vertex in lane {
            let name = vertex.name.clone();
            match (cursor.state(&name), vertex.guard.is_some()) {
                (Some(VertexState::Failed { .. }), true) if !insisted => {
                    push(cursor, decision, Event::Reset { vertex: name, at: now });
                }
                (Some(VertexState::Failed { .. }), _) | (Some(VertexState::Pending { .. }), false) => {
                    let reason = Reason::new("LeftOut", format!("{what} is left out, as was asked for"));
                    push(cursor, decision, Event::Skipped { vertex: name, reason, at: now });
                }
                // What undoes something has its own rule: it runs if that was begun.
                (Some(_) | None, _) => {}
            }
        }
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
    if cursor.is_cancelling() {
        return;
    }
    for retry in &intent.retry {
        let Some(what) = retry.what.as_deref().filter(|_| !cursor.has_taken_up(&retry.request)) else {
            continue;
        };
        let again = meant(cursor, dag, what);
        // What gives the node back is still at work: the request is taken up when it is done.
        if again.iter().any(|name| cursor.state(name).is_some_and(|state| state.series_start().is_some())) {
            continue;
        }
        // Taken up, whether or not there is anything to try again: it does not lie in wait for a later failure.
        push(cursor, decision, Event::TakenUp { request: retry.request.clone(), at: now });
        for vertex in again {
            // Who is left out stays so: only what gives it back is tried again.
            if is_left_out(dag, intent, &vertex) {
                continue;
            }
            if !matches!(cursor.state(&vertex), Some(VertexState::Pending { .. })) {
                push(cursor, decision, Event::Reset { vertex, at: now });
            }
        }
    }
    let gave_up = |vertex: &&Vertex| match cursor.state(&vertex.name) {
        // Not one whose own time was up: its child may be at work for ever.
        Some(VertexState::Failed { first, ended, .. }) => {
            observed.watchers.contains(&vertex.name)
                || ended - first < TimeDelta::seconds(i64::from(vertex.deadline_seconds))
        }
        Some(_) | None => false,
    };
    let revived = dag.vertices().iter().filter(gave_up).map(|vertex| &vertex.name);
    let revived: Vec<VertexName> =
        revived.filter(|name| observed.children_under_way.contains(*name)).cloned().collect();
    for vertex in revived {
        push(cursor, decision, Event::Reset { vertex, at: now });
    }
    if decision.events.iter().any(|event| matches!(event, Event::Reset { .. })) {
        needed_again(cursor, dag, now, decision);
    }
}

/// What ends or undoes a step that could not begin was skipped as needless when the run came to rest. That step can begin now: whatever
/// it does is to be undone again.
fn needed_again(cursor: &mut Cursor, dag: &Dag, now: Timestamp, decision: &mut Decision) {
    let is_needed = |vertex: &&Vertex| {
        let guard = vertex.guard.as_ref().and_then(|guard| cursor.state(guard));
        matches!(cursor.state(&vertex.name), Some(VertexState::Skipped { .. }))
            && matches!(guard, Some(VertexState::Pending { attempts: 0 }))
    };
    let needed: Vec<VertexName> = dag.vertices().iter().filter(is_needed).map(|vertex| vertex.name.clone()).collect();
    for vertex in needed {
        push(cursor, decision, Event::Reset { vertex, at: now });
    }
}

/// Failed vertices that `what` names (by their name, a part of it, or their lane), each with what belongs to it: what is guarded by
/// it, so that whatever it begins is ended again, and the vertices of its lane that it is joined to by edges within the lane. A
/// node that is visited twice in a run has two such visits in one lane.
fn meant(cursor: &Cursor, dag: &Dag, what: &str) -> Vec<VertexName> {
    let vertices = dag.vertices();
    let lane_of = |position: usize| vertices[position].lane.as_deref();
    let edges: Vec<(usize, usize)> = (0..vertices.len())
        .flat_map(|position| {
            let within = |to: &usize| lane_of(position).is_some() && lane_of(position) == lane_of(*to);
            let after = dag.after(position).iter().copied().filter(within);
            after.chain(dag.guard(position)).map(move |to| (position, to)).collect::<Vec<_>>()
        })
        .collect();
    let is_meant = |position: &usize| {
        let vertex = &vertices[*position];
        vertex.is_named(what) && has_failed(cursor.state(&vertex.name))
    };
    let mut again: BTreeSet<usize> = (0..vertices.len()).filter(is_meant).collect();
    loop {
        let joined = edges.iter().flat_map(|(from, to)| {
            let (one, other) = (again.contains(from), again.contains(to));
            [(other && !one).then_some(*from), (one && !other).then_some(*to)]
        });
        let joined: Vec<usize> = joined.flatten().collect();
        if joined.is_empty() {
            break;
        }
        again.extend(joined);
    }
    again.into_iter().map(|position| vertices[position].name.clone()).collect()
}

fn has_failed(state: Option<VertexState>) -> bool {
    matches!(state, Some(VertexState::Failed { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::{Asked, Limits, decide};
    use crate::event::AfterFailure;
    use crate::names::StepKind;
    use crate::plan::{Plan, VertexTemplate};
    use serde_json::Value;

    fn start() -> Timestamp {
        Timestamp::from_timestamp(1_790_000_000, 0).unwrap()
    }

    /// A node of three steps in a lane, one without, and a child.
    fn plan() -> Plan {
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
        // What ends again whatever a step begins: of a node with a lane, and of one without.
        let release =
            |name: &str, of: &str| VertexTemplate::new(name, kind.clone(), "release".into(), &[of]).guarded_by(of);
        plan.vertex(release("release", "w-1/drain").lane("1.34.4/w-1"));
        plan.vertex(VertexTemplate::new("cp-1/upgrade", kind.clone(), "upgrade".into(), &[]));
        plan.vertex(release("cp-1/release", "cp-1/upgrade"));
        // An earlier visit of that node, which came to its end: it stays as it is.
        plan.vertex(VertexTemplate::new("visit-before", kind.clone(), "before".into(), &[]).lane("1.34.4/w-1"));
        plan.vertex(VertexTemplate::new("child", kind.clone(), "child".into(), &[]));
        plan.vertex(VertexTemplate::new("w-2/prepare", kind, "other".into(), &[]).lane("1.34.4/w-2"));
        plan
    }

    fn name(text: &str) -> VertexName {
        VertexName::new(text).unwrap()
    }

    fn started(vertex: &str) -> Event {
        Event::Started { vertex: name(vertex), attempt: 1, at: start() }
    }

    fn done(vertex: &str) -> Event {
        Event::Succeeded { vertex: name(vertex), attempt: 1, output: Value::Null, at: start() }
    }

    fn failed(vertex: &str, attempt: u32, after_seconds: i64) -> Event {
        Event::Failed {
            vertex: name(vertex),
            attempt,
            reason: Reason::new("DeadlineExceeded", "by a test"),
            next: AfterFailure::Rest,
            at: start() + TimeDelta::seconds(after_seconds),
        }
    }

    fn asked(what: Option<&str>) -> Intent {
        Intent {
            retry: vec![Asked { request: "retry-1".into(), run: None, what: what.map(str::to_owned) }],
            ..Intent::default()
        }
    }

    fn decided(dag: &Dag, cursor: &Cursor, intent: &Intent, observed: &Observed) -> Vec<Event> {
        decide(dag, cursor, intent, observed, &Limits::default(), start()).events
    }

    fn reset_by(dag: &Dag, cursor: &Cursor, intent: &Intent, observed: &Observed) -> Vec<String> {
        let events = decided(dag, cursor, intent, observed);
        events.iter().filter(|event| matches!(event, Event::Reset { .. })).map(Event::line).collect()
    }

    #[test]
    fn a_retry_takes_up_once_all_that_belongs_to_what_failed() {
        let plan = plan();
        let dag = plan.expand().unwrap();
        let mut rests = Cursor::new(plan.digest(), &dag, start());
        rests.fold(&[started("visit-before"), done("visit-before")]).unwrap();
        let past = [started("w-1/prepare"), done("w-1/prepare"), started("w-1/drain"), failed("w-1/drain", 1, 0)];
        rests.fold(&past).unwrap();
        rests.fold(&[started("release")]).unwrap();
        let at_work = decided(&dag, &rests, &asked(Some("w-1")), &Observed::default());
        let taken = at_work.iter().any(|event| matches!(event, Event::TakenUp { .. }));
        assert!(!taken, "its order is still being ended");
        rests.fold(&[done("release")]).unwrap();
        let calm = Observed::default();
        for what in ["w-1", "1.34.4/w-1", "w-1/drain"] {
            assert_eq!(
                reset_by(&dag, &rests, &asked(Some(what)), &calm),
                ["reset w-1/prepare", "reset w-1/drain", "reset release"],
                "{what}"
            );
        }
        let mut upgrade = rests.clone();
        upgrade.fold(&[started("cp-1/upgrade"), failed("cp-1/upgrade", 1, 0)]).unwrap();
        upgrade.fold(&[started("cp-1/release"), done("cp-1/release")]).unwrap();
        for what in ["cp-1", "cp-1/upgrade"] {
            let both = ["reset cp-1/upgrade", "reset cp-1/release"];
            assert_eq!(reset_by(&dag, &upgrade, &asked(Some(what)), &calm), both, "its order is ended again, too");
        }
        for what in [Some("w-11"), Some("w-1/prepare"), Some("1"), None] {
            assert_eq!(reset_by(&dag, &rests, &asked(what), &calm), Vec::<String>::new(), "{what:?} has not failed");
        }
        // Taken up once: what fails again needs another request.
        let mut again = rests.clone();
        again.fold(&decided(&dag, &rests, &asked(Some("w-1")), &calm)).unwrap();
        assert!(again.has_taken_up("retry-1"));
        let again = crate::codec::decode(&crate::codec::encode(&again, &dag), &plan.digest(), &dag).unwrap();
        let next = again.state(&name("w-1/prepare")).unwrap().under_way();
        assert_eq!(next, Some(crate::series::first_after(1, crate::plan::ATTEMPTS_MAX_DEFAULT)), "a series of its own");
        let next = next.unwrap();
        let mut failed_again = again;
        failed_again.fold(&[failed("w-1/prepare", next, 0)]).unwrap();
        assert_eq!(reset_by(&dag, &failed_again, &asked(Some("w-1")), &calm), Vec::<String>::new());
        // Nothing failed by that name: taken up all the same, so that it does not lie in wait.
        let early = decided(&dag, &rests, &asked(Some("w-11")), &calm);
        assert_eq!(early.first().map(Event::line).as_deref(), Some("request retry-1 taken up"));
    }

    #[test]
    fn what_was_needless_while_a_run_rested_is_needed_again_once_it_is_tried_again() {
        let kind = StepKind::new("reach/v1").unwrap();
        let vertex = |name: &str, after: &[&str]| VertexTemplate::new(name, kind.clone(), name.into(), after);
        let mut plan = Plan::new("test");
        plan.vertex(vertex("upgrade", &[]));
        plan.vertex(vertex("drain", &["upgrade"]));
        plan.vertex(vertex("uncordon", &["drain"]).guarded_by("drain"));
        plan.vertex(vertex("left-out", &[]));
        plan.vertex(vertex("undo-left-out", &["left-out"]).guarded_by("left-out"));
        let dag = plan.expand().unwrap();
        let mut stopped = Cursor::new(plan.digest(), &dag, start());
        let reason = Reason::new("LeftOut", "by a test");
        stopped.fold(&[Event::Skipped { vertex: name("left-out"), reason, at: start() }]).unwrap();
        stopped.fold(&[started("upgrade"), failed("upgrade", 1, 0)]).unwrap();
        let calm = Observed::default();
        let at_rest = decided(&dag, &stopped, &Intent::default(), &calm);
        stopped.fold(&at_rest).unwrap();
        assert!(matches!(stopped.state(&name("uncordon")), Some(VertexState::Skipped { .. })), "nothing was drained");
        let resets = reset_by(&dag, &stopped, &asked(Some("upgrade")), &calm);
        assert_eq!(resets, ["reset upgrade", "reset uncordon"], "what was left out stays so");
    }

    #[test]
    fn a_lane_is_left_out_between_its_vertices_and_what_gives_it_back_still_runs() {
        let plan = plan();
        let dag = plan.expand().unwrap();
        let skip = Asked { request: "skip-1".into(), run: None, what: Some("w-1".into()) };
        let asked = Intent { skip: vec![skip], ..Intent::default() };
        let calm = Observed::default();
        let lines = |cursor: &Cursor, intent: &Intent| -> Vec<String> {
            decided(&dag, cursor, intent, &calm).iter().map(Event::line).collect()
        };
        let mut cursor = Cursor::new(plan.digest(), &dag, start());
        cursor.fold(&[started("w-1/prepare")]).unwrap();
        assert!(!lines(&cursor, &asked).iter().any(|line| line.contains("taken up")), "its step is under way");
        cursor.fold(&[done("w-1/prepare"), started("w-1/drain"), failed("w-1/drain", 1, 0)]).unwrap();
        let paused = Intent { pause: Some(Reason::new("Paused", "by a test")), ..asked.clone() };
        assert_eq!(lines(&cursor, &paused), ["paused: Paused: by a test"]);
        let events = lines(&cursor, &asked);
        assert_eq!(events[0], "request skip-1 taken up");
        assert!(events[1].starts_with("skipped w-1/drain: LeftOut"), "{events:?}");
        assert!(events[2].starts_with("skipped w-1/restart: LeftOut"), "{events:?}");
        assert!(events.iter().any(|line| line == "started release"), "what the drain began is undone: {events:?}");
        let mut rests = cursor.clone();
        rests.fold(&[Event::Rested { reason: Reason::new("Failed", "by a test"), at: start() }]).unwrap();
        rests.fold(&decided(&dag, &rests, &asked, &calm)).unwrap();
        assert_eq!(rests.phase(), crate::cursor::RunPhase::InProgress, "what it rested for is left out");
        // What gives it back had failed: once more, and where somebody insists, not at all.
        let mut kept = cursor.clone();
        kept.fold(&[started("release"), failed("release", 1, 0)]).unwrap();
        let events = decided(&dag, &kept, &asked, &calm);
        assert!(events.iter().any(|event| event.line() == "reset release"), "{events:?}");
        kept.fold(&events).unwrap();
        let second = kept.state(&name("release")).unwrap().under_way().unwrap();
        kept.fold(&[failed("release", second, 0)]).unwrap();
        let again = Asked { request: "skip-2".into(), ..asked.skip[0].clone() };
        let insists = Intent { skip: vec![asked.skip[0].clone(), again], ..Intent::default() };
        let events = lines(&kept, &insists);
        assert!(events.iter().any(|line| line.starts_with("skipped release: LeftOut")), "{events:?}");
        let elsewhere = Intent { skip: vec![Asked { what: Some("w-9".into()), ..asked.skip[0].clone() }], ..asked };
        assert!(!lines(&cursor, &elsewhere).iter().any(|line| line.contains("taken up")), "no lane of this run");
    }

    #[test]
    fn a_run_that_rests_says_for_what_again_once_a_pause_is_over() {
        let plan = plan();
        let dag = plan.expand().unwrap();
        let (calm, goes_on) = (Observed::default(), Intent::default());
        let paused = Intent { pause: Some(Reason::new("Paused", "by a test")), ..Intent::default() };
        let mut cursor = Cursor::new(plan.digest(), &dag, start());
        cursor
            .fold(&[started("w-1/prepare"), done("w-1/prepare"), started("w-1/drain"), failed("w-1/drain", 1, 0)])
            .unwrap();
        for _ in 0..dag.vertices().len() {
            cursor.fold(&decided(&dag, &cursor, &goes_on, &calm)).unwrap();
            let under_way = dag
                .vertices()
                .iter()
                .filter_map(|vertex| Some((vertex.name.clone(), cursor.state(&vertex.name)?.under_way()?)));
            let ends = under_way.map(|(vertex, attempt)| Event::Succeeded {
                vertex,
                attempt,
                output: Value::Null,
                at: start(),
            });
            let ends: Vec<Event> = ends.collect();
            cursor.fold(&ends).unwrap();
        }
        let rests_for = cursor.reason().cloned().expect("it rests for the drain");
        assert_eq!(cursor.phase(), crate::cursor::RunPhase::RequiresAttention);
        assert_eq!(decided(&dag, &cursor, &goes_on, &calm), [], "told once");
        cursor.fold(&decided(&dag, &cursor, &paused, &calm)).unwrap();
        assert_eq!(cursor.reason().map(|reason| reason.code.as_str()), Some("Paused"));
        cursor.fold(&decided(&dag, &cursor, &goes_on, &calm)).unwrap();
        assert_eq!(cursor.reason(), Some(&rests_for));
    }

    #[test]
    fn a_retry_brings_nobody_back_who_was_left_out_but_tries_again_what_gives_the_node_back() {
        let plan = plan();
        let dag = plan.expand().unwrap();
        let skip = Asked { request: "skip-1".into(), run: None, what: Some("w-1".into()) };
        let left_out = Intent { skip: vec![skip], ..Intent::default() };
        let calm = Observed::default();
        let mut cursor = Cursor::new(plan.digest(), &dag, start());
        cursor.fold(&[started("w-1/prepare"), done("w-1/prepare")]).unwrap();
        cursor.fold(&[started("w-1/drain"), failed("w-1/drain", 1, 0)]).unwrap();
        cursor.fold(&decided(&dag, &cursor, &left_out, &calm)).unwrap();
        let attempt = cursor.state(&name("release")).unwrap().under_way().unwrap();
        cursor.fold(&[failed("release", attempt, 0)]).unwrap();
        let resets = |intent: &Intent| reset_by(&dag, &cursor, intent, &calm);
        assert_eq!(resets(&Intent { skip: left_out.skip.clone(), ..asked(Some("release")) }), ["reset release"]);
        let all = resets(&asked(Some("release")));
        assert!(all.contains(&"reset w-1/drain".to_owned()), "nobody was left out: {all:?}");
    }

    #[test]
    fn a_lane_that_was_left_out_takes_no_slot_though_its_node_is_away() {
        let plan = plan();
        let dag = plan.expand().unwrap();
        let mut cursor = Cursor::new(plan.digest(), &dag, start());
        let needless = Reason::new("Needless", "by a test");
        cursor.fold(&[Event::Skipped { vertex: name("visit-before"), reason: needless, at: start() }]).unwrap();
        cursor.fold(&[started("w-1/prepare"), failed("w-1/prepare", 1, 0)]).unwrap();
        let away = Observed { unavailable_lanes: BTreeSet::from(["1.34.4/w-1".to_owned()]), ..Observed::default() };
        let skip = Asked { request: "skip-1".into(), run: None, what: Some("w-1".into()) };
        let begun = |intent: &Intent| {
            let limits = Limits { concurrency: 1, failures_max: 3, ..Limits::default() };
            decide(&dag, &cursor, intent, &away, &limits, start()).start.contains(&name("w-2/prepare"))
        };
        assert_eq!(
            [begun(&Intent::default()), begun(&Intent { skip: vec![skip], ..Intent::default() })],
            [false, true]
        );
    }

    #[test]
    fn a_vertex_that_gave_up_on_its_child_follows_when_that_goes_on_unless_its_own_time_is_up() {
        let plan = plan();
        let dag = plan.expand().unwrap();
        let cursor = Cursor::new(plan.digest(), &dag, start());
        let goes_on = Observed { children_under_way: BTreeSet::from([name("child")]), ..Observed::default() };
        let after = |seconds, observed: &Observed| {
            let mut cursor = cursor.clone();
            cursor.fold(&[started("child"), failed("child", 1, seconds)]).unwrap();
            reset_by(&dag, &cursor, &asked(None), observed)
        };
        assert_eq!(after(0, &goes_on), ["reset child"]);
        let late = i64::from(crate::plan::DEADLINE_SECONDS_DEFAULT);
        assert_eq!(after(late, &goes_on), Vec::<String>::new());
        let watches = Observed { watchers: BTreeSet::from([name("child")]), ..goes_on.clone() };
        assert_eq!(after(late, &watches), ["reset child"], "one that watches has no time of its own");
        let mut rests = cursor.clone();
        rests.fold(&[started("child"), failed("child", 1, 0)]).unwrap();
        assert_eq!(reset_by(&dag, &rests, &asked(None), &Observed::default()), Vec::<String>::new(), "it rests still");
    }

    #[test]
    fn a_node_that_is_tried_again_takes_a_slot_like_any_other() {
        let plan = plan();
        let dag = plan.expand().unwrap();
        let mut cursor = Cursor::new(plan.digest(), &dag, start());
        let needless = Reason::new("Needless", "by a test");
        cursor.fold(&[Event::Skipped { vertex: name("visit-before"), reason: needless, at: start() }]).unwrap();
        let past = [started("w-1/prepare"), failed("w-1/prepare", 1, 0), started("w-2/prepare")];
        cursor.fold(&past).unwrap();
        let begun = |concurrency| {
            let limits = Limits { concurrency, failures_max: 3, ..Limits::default() };
            let decision = decide(&dag, &cursor, &asked(Some("w-1")), &Observed::default(), &limits, start());
            decision.start.contains(&name("w-1/prepare"))
        };
        assert_eq!([begun(1), begun(2)], [false, true], "w-2 holds the first slot");
    }

    #[test]
    fn a_pause_in_which_nobody_led_is_given_back_once() {
        let plan = plan();
        let dag = plan.expand().unwrap();
        let at = |seconds| start() + TimeDelta::seconds(seconds);
        let mut cursor = Cursor::new(plan.digest(), &dag, start());
        let pause = Reason::new("Paused", "by a test");
        cursor.fold(&[started("child"), Event::Paused { reason: pause.clone(), at: at(600) }]).unwrap();
        let observed = Observed { unled: Some((at(700), at(1_000))), ..Observed::default() };
        let paused = Intent { pause: Some(pause), ..Intent::default() };
        for (intent, now) in [(&paused, 1_000), (&Intent::default(), 1_010), (&Intent::default(), 1_020)] {
            let decision = decide(&dag, &cursor, intent, &observed, &Limits::default(), at(now));
            cursor.fold(&decision.events).unwrap();
        }
        assert_eq!(cursor.state(&name("child")).unwrap().series_start(), Some(at(410)), "the 410 s of the pause");
    }
}
