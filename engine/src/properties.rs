//! Properties of the whole: random graphs, random worlds, random histories.

use crate::clock::{Clock, SimClock, Timestamp};
use crate::codec::{decode, encode};
use crate::conformance;
use crate::cursor::{Cursor, RunPhase, VertexState};
use crate::dag::{Dag, DagBuilder};
use crate::decide::{Intent, Limits, Observed, decide};
use crate::event::{AfterFailure, Event};
use crate::names::{Epoch, Reason, RunName, StepKind, VertexName};
use crate::plan::{Plan, VertexTemplate};
use crate::registry::StepRegistry;
use crate::step::{Domain, OnCancel, Probe, Step, StepContext, StepError, StepOutcome, Wait};
use crate::store::{Change, MemoryStore, NewRun, RunStore, StoreError, StoredRun, Version};
use crate::testing::vertex;
use crate::tick::{Engine, TickEnd, TickError};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta};
use futures::executor::block_on;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

fn start() -> Timestamp {
    DateTime::from_timestamp(1_790_000_000, 0).unwrap()
}

fn run_name() -> RunName {
    RunName::new("run").unwrap()
}

/// A random graph: each vertex comes after some earlier ones; most are in one of a few lanes; some are guarded.
fn graphs() -> impl Strategy<Value = Dag> {
    let vertex_seed = (any::<u16>(), 0..5_u8, any::<bool>(), 0..6_u8);
    prop::collection::vec(vertex_seed, 1..14).prop_map(|seeds| {
        let mut builder = DagBuilder::new();
        let mut lanes: Vec<Option<String>> = Vec::new();
        for (index, (edges, lane, settled, guarded)) in seeds.iter().enumerate() {
            let name = format!("v{index}");
            let before: Vec<String> = (0..index).filter(|b| edges >> b & 1 == 1).map(|b| format!("v{b}")).collect();
            let before: Vec<&str> = before.iter().map(String::as_str).collect();
            let mut vertex = vertex(&name, &before);
            vertex.lane = (*lane < 4).then(|| format!("lane-{lane}"));
            if *settled {
                vertex.requires = crate::dag::Requires::Settled;
            }
            if *guarded == 0 && index > 0 {
                let guard = usize::from(*edges) % index;
                vertex.guard = Some(VertexName::new(format!("v{guard}")).unwrap());
                vertex.lane.clone_from(&lanes[guard]);
            }
            lanes.push(vertex.lane.clone());
            builder.add(vertex);
        }
        builder.build().unwrap()
    })
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Succeed,
    Wait,
    Continue,
    Transient,
    Fail,
    Skip,
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        6 => Just(Fate::Succeed), 2 => Just(Fate::Wait), 1 => Just(Fate::Continue), 1 => Just(Fate::Transient), 1 => Just(Fate::Fail), 1 => Just(Fate::Skip)
    ];
    prop::collection::vec(fate, 1..40)
}

fn result_of(fate: Fate, vertex: &VertexName, attempt: u32, at: Timestamp) -> Event {
    let vertex = vertex.clone();
    let reason = Reason::new("Because", "of a reason");
    match fate {
        Fate::Succeed => Event::Succeeded { vertex, attempt, output: serde_json::Value::Null, at },
        Fate::Wait => Event::Waiting { vertex, attempt, until: at + TimeDelta::seconds(9), reason, at },
        Fate::Continue => Event::Continued { vertex, attempt, at },
        Fate::Transient => {
            let next = AfterFailure::Retry(at + TimeDelta::seconds(5));
            Event::Failed { vertex, attempt, reason, next, at }
        }
        Fate::Fail => Event::Failed { vertex, attempt, reason, next: AfterFailure::Rest, at },
        Fate::Skip => Event::Skipped { vertex, reason, at },
    }
}

fn lanes_open(dag: &Dag, cursor: &Cursor) -> usize {
    let mut active = BTreeSet::new();
    for vertex in dag.vertices() {
        let state = cursor.state(&vertex.name).unwrap();
        if matches!(state, VertexState::Started { .. } | VertexState::Waiting { .. }) && vertex.guard.is_none() {
            active.extend(vertex.lane.clone());
        }
    }
    active.len()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_run_in_a_random_world_keeps_every_rule_and_comes_to_rest(
        dag in graphs(), fates in fates(), concurrency in 1..4_u32, failures_max in 1..4_u32, cancel_at in 0..60_usize, lost in 0..6_u8,
    ) {
        let limits = Limits { concurrency, failures_max, ..Limits::default() };
        let mut cursor = Cursor::new("digest", &dag, start());
        let mut journal: Vec<Event> = Vec::new();
        let mut now = start();
        let mut intent = Intent::default();
        let mut rested = false;
        for round in 0..400 {
            intent.cancel = round >= cancel_at && cancel_at < 20;
            let before = cursor.clone();
            let observed = Observed {
                unavailable_lanes: (round < 200).then(|| format!("lane-{lost}")).into_iter().collect(),
                ..Observed::default()
            };
            let decision = decide(&dag, &cursor, &intent, &observed, &limits, now);
            for event in &decision.events {
                prop_assert!(cursor.apply(event).is_ok(), "decide left the table: {event:?}");
                journal.push(event.clone());
            }
            for name in &decision.start {
                let vertex = dag.get(name).unwrap();
                for dependency in &vertex.after {
                    let state = cursor.state(dependency).unwrap();
                    let resting = !matches!(
                        state, VertexState::Started { .. } | VertexState::Waiting { .. } | VertexState::BackingOff { .. }
                    );
                    prop_assert!(resting, "{name} started while {dependency} was under way");
                    if vertex.requires == crate::dag::Requires::Success && vertex.guard.is_none() {
                        let done = matches!(state, VertexState::Succeeded { .. } | VertexState::Skipped { .. });
                        prop_assert!(done, "{name} started before {dependency} was done");
                    }
                }
                prop_assert!(!before.is_cancelling() || vertex.guard.is_some(), "{name} started while cancelling");
            }
            prop_assert!(lanes_open(&dag, &cursor) <= concurrency as usize, "too many lanes");
            if cursor.phase() == RunPhase::Succeeded {
                let (done, all) = cursor.progress();
                prop_assert_eq!(done, all, "succeeded with work left");
            }
            if cursor.phase().is_final() || cursor.phase() == RunPhase::RequiresAttention {
                rested = true;
                break;
            }
            now = decision.wake_at.map_or(now, |at| at.max(now).min(now + TimeDelta::seconds(3)));
            for (index, name) in decision.start.iter().chain(&decision.poll).enumerate() {
                let attempt = cursor.state(name).unwrap().attempts();
                let fate = if round > 300 { Fate::Succeed } else { fates[(round * 7 + index) % fates.len()] };
                let event = result_of(fate, name, attempt, now);
                cursor.apply(&event).unwrap();
                journal.push(event.clone());
                let again = cursor.clone();
                if !matches!(event, Event::Waiting { .. }) {
                    cursor.apply(&event).unwrap();
                    prop_assert_eq!(&cursor, &again, "taking a result twice changed something");
                }
            }
            let text = encode(&cursor, &dag);
            prop_assert_eq!(&decode(&text, "digest", &dag).unwrap(), &cursor, "{}", text);
        }
        prop_assert!(rested, "the run never came to rest: {:?}", cursor);
        let mut folded = Cursor::new("digest", &dag, start());
        folded.fold(&journal).unwrap();
        prop_assert_eq!(folded, cursor);
    }

    #[test]
    fn any_sequence_of_events_is_taken_or_refused_but_never_corrupts(
        dag in graphs(), picks in prop::collection::vec((0..14_usize, 0..11_u8, 1..3_u32), 0..60)
    ) {
        let mut cursor = Cursor::new("digest", &dag, start());
        for (index, what, attempt) in picks {
            let vertex = dag.vertices()[index % dag.len()].name.clone();
            let at = start() + TimeDelta::seconds(1);
            let reason = Reason::new("Because", "of a reason");
            let event = match what {
                0 => Event::Started { vertex, attempt, at },
                1 => result_of(Fate::Succeed, &vertex, attempt, at),
                2 => result_of(Fate::Wait, &vertex, attempt, at),
                3 => result_of(Fate::Transient, &vertex, attempt, at),
                4 => result_of(Fate::Fail, &vertex, attempt, at),
                5 => result_of(Fate::Skip, &vertex, attempt, at),
                6 => Event::Reset { vertex, at },
                7 => Event::Rested { reason, at },
                9 => Event::HeldBack { reason, at },
                8 => result_of(Fate::Continue, &vertex, attempt, at),
                _ => Event::Unknown,
            };
            let before = cursor.clone();
            if cursor.apply(&event).is_err() {
                prop_assert_eq!(&cursor, &before, "a refused event changed something");
            }
            prop_assert_eq!(&decode(&encode(&cursor, &dag), "digest", &dag).unwrap(), &cursor);
        }
    }

    #[test]
    fn a_damaged_cursor_is_refused_and_never_panics(cut in 0..400_usize, byte in any::<u8>()) {
        let new = conformance::sample_run("r");
        let dag = new.plan.expand().unwrap();
        let mut text = encode(&new.cursor, &dag).into_bytes();
        let at = cut % text.len();
        text[at] = byte;
        if let Ok(text) = String::from_utf8(text) {
            let _ = decode(&text, new.cursor.plan_digest(), &dag);
        }
    }
}

/// A world of named goals; each effect is counted, and may be cut short.
#[derive(Default)]
struct World {
    reached: Mutex<BTreeSet<String>>,
    effects: Mutex<BTreeMap<String, u32>>,
    fail_first: Mutex<BTreeSet<String>>,
    never: Mutex<BTreeSet<String>>,
}

struct TestDomain;
impl Domain for TestDomain {
    type Ports = World;
}

struct Reach;
#[async_trait]
impl Step<TestDomain> for Reach {
    const KIND: &'static str = "reach/v1";
    type Params = String;
    type Output = String;
    const ON_CANCEL: OnCancel = OnCancel::Stop;

    async fn probe(&self, ctx: &StepContext<'_, TestDomain>, goal: &String) -> Result<Probe<String>, StepError> {
        let reached = ctx.ports().reached.lock().unwrap().contains(goal);
        Ok(if reached { Probe::Satisfied(goal.clone()) } else { Probe::Unsatisfied })
    }

    async fn apply(&self, ctx: &StepContext<'_, TestDomain>, goal: &String) -> Result<StepOutcome<String>, StepError> {
        if ctx.ports().never.lock().unwrap().contains(goal) {
            let reason = Reason::new("Closed", "the door is closed");
            return Ok(StepOutcome::Wait(Wait::shown(ctx.now() + TimeDelta::seconds(30), reason)));
        }
        *ctx.ports().effects.lock().unwrap().entry(goal.clone()).or_default() += 1;
        if ctx.ports().fail_first.lock().unwrap().remove(goal) {
            return Err(StepError::Transient(Reason::new("Slipped", "slipped once")));
        }
        ctx.ports().reached.lock().unwrap().insert(goal.clone());
        Ok(StepOutcome::Done(goal.clone()))
    }
}

fn three_goals() -> (NewRun, Arc<StepRegistry<TestDomain>>) {
    let kind = StepKind::new("reach/v1").unwrap();
    let mut plan = Plan::new("test");
    plan.vertex(VertexTemplate::new("a", kind.clone(), "a".into(), &[]));
    plan.vertex(VertexTemplate::new("b", kind.clone(), "b".into(), &["a"]).deadline_seconds(300));
    plan.vertex(VertexTemplate::new("c", kind, "c".into(), &["b"]));
    let dag = plan.expand().unwrap();
    let mut registry = StepRegistry::new();
    registry.register(Reach).unwrap();
    let new = NewRun {
        name: run_name(),
        cursor: Cursor::new(plan.digest(), &dag, start()),
        plan: Arc::new(plan),
        limits: Limits::default(),
    };
    (new, Arc::new(registry))
}

fn tick_until_rest(engine: &Engine<TestDomain>, clock: &SimClock, world: &World, epoch: Epoch) -> RunPhase {
    for _ in 0..200 {
        let report = block_on(engine.tick(&run_name(), epoch, world, &Observed::default(), &BTreeSet::new())).unwrap();
        if report.cursor.phase().is_final() || report.cursor.phase() == RunPhase::RequiresAttention {
            return report.cursor.phase();
        }
        if let (TickEnd::Idle, Some(at)) = (report.end, report.wake_at) {
            block_on(clock.sleep_until(at));
        }
    }
    panic!("the run never came to rest");
}

#[test]
fn a_run_whose_step_slips_once_succeeds_and_does_nothing_twice() {
    let (new, registry) = three_goals();
    let store = Arc::new(MemoryStore::new());
    let clock = Arc::new(SimClock::starting_at(start()));
    block_on(store.create(&new)).unwrap();
    let world = World::default();
    world.fail_first.lock().unwrap().insert("b".into());
    let engine = Engine::new(registry, store.clone(), clock.clone());
    assert_eq!(tick_until_rest(&engine, &clock, &world, Epoch(1)), RunPhase::Succeeded);
    let effects = world.effects.lock().unwrap().clone();
    assert_eq!(effects, BTreeMap::from([("a".into(), 1), ("b".into(), 2), ("c".into(), 1)]));
    assert!(clock.now() >= start() + TimeDelta::seconds(2), "the retry waited for its back-off");
    let mut folded = new.cursor.clone();
    folded.fold(&store.journal(&run_name())).unwrap();
    folded.stamp(block_on(store.load(&run_name())).unwrap().cursor.commit_id());
    assert_eq!(folded, block_on(store.load(&run_name())).unwrap().cursor);
}

#[test]
fn a_wait_past_its_deadline_rests_the_run_and_names_what_it_waited_for() {
    let (new, registry) = three_goals();
    let store = Arc::new(MemoryStore::new());
    let clock = Arc::new(SimClock::starting_at(start()));
    block_on(store.create(&new)).unwrap();
    let world = World::default();
    world.never.lock().unwrap().insert("b".into());
    let engine = Engine::new(registry, store.clone(), clock.clone());
    assert_eq!(tick_until_rest(&engine, &clock, &world, Epoch(1)), RunPhase::RequiresAttention);
    let reason = block_on(store.load(&run_name())).unwrap().cursor.reason().cloned().unwrap();
    assert_eq!(reason.code, "DeadlineExceeded");
    assert!(reason.message.contains("the door is closed"), "{reason}");
    assert_eq!(clock.now(), start() + TimeDelta::seconds(300));
}

#[test]
fn what_was_done_while_nobody_looked_is_seen_before_its_deadline_fails_it() {
    let (new, registry) = three_goals();
    let store = Arc::new(MemoryStore::new());
    let clock = Arc::new(SimClock::starting_at(start()));
    block_on(store.create(&new)).unwrap();
    let world = World::default();
    world.never.lock().unwrap().insert("b".into());
    let engine = Engine::new(registry.clone(), store.clone(), clock.clone());
    let tick = |engine: &Engine<TestDomain>| {
        block_on(engine.tick(&run_name(), Epoch(1), &world, &Observed::default(), &BTreeSet::new())).unwrap()
    };
    assert_eq!(tick(&engine).cursor.phase(), RunPhase::InProgress);
    // The leader dies; what b waits for happens; the next leader comes long after b's deadline.
    clock.advance(TimeDelta::seconds(9_000));
    world.never.lock().unwrap().clear();
    world.reached.lock().unwrap().insert("b".into());
    let successor = Engine::new(registry, store, clock.clone());
    assert_eq!(tick_until_rest(&successor, &clock, &world, Epoch(2)), RunPhase::Succeeded);
}

#[test]
fn time_in_which_nobody_led_is_given_back_to_deadlines_once() {
    let (new, registry) = three_goals();
    let store = Arc::new(MemoryStore::new());
    let clock = Arc::new(SimClock::starting_at(start()));
    block_on(store.create(&new)).unwrap();
    let world = World::default();
    world.never.lock().unwrap().insert("b".into());
    let engine = Engine::new(registry.clone(), store.clone(), clock.clone());
    let tick = |engine: &Engine<TestDomain>, epoch, unled| {
        let observed = Observed { unled, ..Observed::default() };
        block_on(engine.tick(&run_name(), epoch, &world, &observed, &BTreeSet::new())).unwrap()
    };
    tick(&engine, Epoch(1), None);
    clock.advance(TimeDelta::seconds(100));
    let from = clock.now();
    // A change of leaders is not worth a write; two and a half hours are, and b has 200 of its 300 s left.
    clock.advance(TimeDelta::seconds(crate::requests::CREDIT_SECONDS_MIN - 1));
    let quick = tick(&engine, Epoch(1), Some((from, clock.now())));
    assert!(quick.events.is_empty(), "{:?}", quick.events);
    clock.advance(TimeDelta::seconds(9_000));
    let unled = Some((from, clock.now()));
    let successor = Engine::new(registry, store.clone(), clock.clone());
    let credited = |events: &[Event]| events.iter().filter(|event| matches!(event, Event::Credited { .. })).count();
    assert_eq!(credited(&tick(&successor, Epoch(2), unled).events), 1);
    clock.advance(TimeDelta::seconds(199));
    let report = tick(&successor, Epoch(2), unled);
    assert_eq!((credited(&report.events), report.cursor.phase()), (0, RunPhase::InProgress));
    clock.advance(TimeDelta::seconds(1));
    assert_eq!(tick(&successor, Epoch(2), unled).cursor.phase(), RunPhase::RequiresAttention);
}

#[test]
fn a_clock_that_went_back_keeps_nobody_from_looking() {
    let (new, registry) = three_goals();
    let store = Arc::new(MemoryStore::new());
    let clock = Arc::new(SimClock::starting_at(start()));
    block_on(store.create(&new)).unwrap();
    let world = World::default();
    world.never.lock().unwrap().insert("b".into());
    let engine = Engine::new(registry, store, clock.clone());
    let tick = || block_on(engine.tick(&run_name(), Epoch(1), &world, &Observed::default(), &BTreeSet::new())).unwrap();
    assert_eq!(tick().cursor.phase(), RunPhase::InProgress);
    clock.advance(TimeDelta::days(-1));
    world.never.lock().unwrap().clear();
    assert_eq!(tick().cursor.phase(), RunPhase::Succeeded, "b is not looked at only in a day");
}

#[test]
fn a_cancel_ends_a_step_that_only_waits_to_act_and_a_pause_under_it() {
    let (new, registry) = three_goals();
    let store = Arc::new(MemoryStore::new());
    let clock = Arc::new(SimClock::starting_at(start()));
    block_on(store.create(&new)).unwrap();
    let world = World::default();
    world.never.lock().unwrap().insert("b".into());
    let engine = Engine::new(registry, store.clone(), clock.clone());
    let tick = || block_on(engine.tick(&run_name(), Epoch(1), &world, &Observed::default(), &BTreeSet::new())).unwrap();
    tick();
    store.set_intent(
        &run_name(),
        Intent { pause: Some(Reason::new("Paused", "by a test")), cancel: false, ..Intent::default() },
    );
    tick();
    clock.advance(TimeDelta::seconds(9_000));
    let paused = tick();
    assert!(paused.wake_at.is_none_or(|at| at > clock.now()), "a paused run does not spin: {:?}", paused.wake_at);
    assert!(tick().wake_at.is_none_or(|at| at > clock.now()));
    store.set_intent(
        &run_name(),
        Intent { pause: Some(Reason::new("Paused", "by a test")), cancel: true, ..Intent::default() },
    );
    assert_eq!(tick_until_rest(&engine, &clock, &world, Epoch(1)), RunPhase::Cancelled);
    let cursor = block_on(store.load(&run_name())).unwrap().cursor;
    let state = |name: &str| cursor.state(&VertexName::new(name).unwrap());
    assert!(matches!(state("b"), Some(VertexState::Skipped { .. })), "{:?}", state("b"));
    assert_eq!(state("c"), Some(VertexState::Pending { attempts: 0 }));
}

#[test]
fn what_must_run_whatever_happened_is_tried_again_although_a_cancel_came_while_it_backed_off() {
    let mut builder = DagBuilder::new();
    builder.add(vertex("cordon", &[]));
    let mut uncordon = vertex("uncordon", &["cordon"]);
    uncordon.guard = Some(VertexName::new("cordon").unwrap());
    builder.add(uncordon);
    let dag = builder.build().unwrap();
    let name = |text: &str| VertexName::new(text).unwrap();
    let mut cursor = Cursor::new("digest", &dag, start());
    let until = start() + TimeDelta::seconds(10);
    for event in [
        Event::Started { vertex: name("cordon"), attempt: 1, at: start() },
        result_of(Fate::Succeed, &name("cordon"), 1, start()),
        Event::Started { vertex: name("uncordon"), attempt: 1, at: start() },
        Event::Failed {
            vertex: name("uncordon"),
            attempt: 1,
            reason: Reason::new("ApiServerAway", "by a test"),
            next: AfterFailure::Retry(until),
            at: start(),
        },
    ] {
        cursor.apply(&event).unwrap();
    }
    let cancel = Intent { cancel: true, ..Intent::default() };
    let decide = |cursor: &Cursor, now| decide(&dag, cursor, &cancel, &Observed::default(), &Limits::default(), now);
    let waits = decide(&cursor, start());
    cursor.fold(&waits.events).unwrap();
    assert!(matches!(cursor.state(&name("uncordon")), Some(VertexState::BackingOff { .. })), "{:?}", waits.events);
    assert_eq!(waits.wake_at, Some(until), "and it wakes for it");
    assert_eq!(decide(&cursor, until).start, [name("uncordon")]);
}

#[test]
fn a_held_run_begins_no_lane_and_nothing_outside_of_lanes_and_lets_open_lanes_come_to_their_end() {
    let mut builder = DagBuilder::new();
    for (name, after, lane) in
        [("a1", None, Some("a")), ("a2", Some("a1"), Some("a")), ("b1", None, Some("b")), ("c", None, None)]
    {
        let mut vertex = vertex(name, &after.into_iter().collect::<Vec<_>>());
        vertex.lane = lane.map(str::to_owned);
        builder.add(vertex);
    }
    let dag = builder.build().unwrap();
    let name = |name: &str| VertexName::new(name).unwrap();
    let mut cursor = Cursor::new("digest", &dag, start());
    cursor.apply(&Event::Started { vertex: name("a1"), attempt: 1, at: start() }).unwrap();
    let held = Intent { hold: Some(Reason::new("Held", "outside its window")), ..Intent::default() };
    let limits = Limits { concurrency: 5, ..Limits::default() };
    let decide =
        |cursor: &Cursor, intent: &Intent| decide(&dag, cursor, intent, &Observed::default(), &limits, start());
    assert_eq!(decide(&cursor, &held).start, [], "a1 is under way, nothing else begins");
    cursor.apply(&result_of(Fate::Succeed, &name("a1"), 1, start())).unwrap();
    let next = decide(&cursor, &held);
    assert_eq!(next.start, [name("a2")], "the open lane goes on");
    cursor.fold(&next.events).unwrap();
    cursor.apply(&result_of(Fate::Succeed, &name("a2"), 1, start())).unwrap();
    let told = decide(&cursor, &held);
    assert!(matches!(&told.events[..], [Event::HeldBack { reason, .. }] if reason.code == "Held"), "{:?}", told.events);
    cursor.fold(&told.events).unwrap();
    assert_eq!(decide(&cursor, &held).events, [], "told once");
    assert_eq!(decide(&cursor, &Intent::default()).start, [name("b1"), name("c")], "and goes on when it is lifted");
    let cancelled = Intent { cancel: true, ..held };
    let end = decide(&cursor, &cancelled);
    assert!(
        end.events.iter().any(|event| matches!(event, Event::Finished { .. })),
        "a cancel ends it: {:?}",
        end.events
    );
}

#[test]
fn a_pause_longer_than_every_deadline_fails_nothing() {
    let (new, registry) = three_goals();
    let store = Arc::new(MemoryStore::new());
    let clock = Arc::new(SimClock::starting_at(start()));
    block_on(store.create(&new)).unwrap();
    let world = World::default();
    world.never.lock().unwrap().insert("b".into());
    let engine = Engine::new(registry, store.clone(), clock.clone());
    let tick = || block_on(engine.tick(&run_name(), Epoch(1), &world, &Observed::default(), &BTreeSet::new())).unwrap();
    tick();
    store.set_intent(
        &run_name(),
        Intent { pause: Some(Reason::new("Paused", "by a test")), cancel: false, ..Intent::default() },
    );
    tick();
    clock.advance(TimeDelta::hours(5));
    tick();
    world.never.lock().unwrap().clear();
    store.set_intent(&run_name(), Intent::default());
    assert_eq!(tick_until_rest(&engine, &clock, &world, Epoch(1)), RunPhase::Succeeded);
}

#[test]
fn an_engine_that_winds_down_has_nothing_begun_and_the_next_tick_goes_on() {
    let (new, registry) = three_goals();
    let store = Arc::new(MemoryStore::new());
    let clock = Arc::new(SimClock::starting_at(start()));
    block_on(store.create(&new)).unwrap();
    let world = World::default();
    let engine = Engine::new(registry, store, clock);
    let tick = || block_on(engine.tick(&run_name(), Epoch(1), &world, &Observed::default(), &BTreeSet::new())).unwrap();
    engine.wind_down(true);
    assert_eq!(tick().end, TickEnd::MoreToDo);
    assert!(world.effects.lock().unwrap().is_empty());
    engine.wind_down(false);
    assert_eq!(tick().cursor.phase(), RunPhase::Succeeded);
}

#[test]
fn a_second_leader_fences_the_first() {
    let (new, registry) = three_goals();
    let store = Arc::new(MemoryStore::new());
    let clock = Arc::new(SimClock::starting_at(start()));
    block_on(store.create(&new)).unwrap();
    let world = World::default();
    world.never.lock().unwrap().insert("a".into());
    let engine = Engine::new(registry, store, clock.clone());
    let tick = |epoch| block_on(engine.tick(&run_name(), epoch, &world, &Observed::default(), &BTreeSet::new()));
    tick(Epoch(2)).unwrap();
    world.never.lock().unwrap().clear();
    clock.advance(TimeDelta::seconds(60));
    assert!(tick(Epoch(1)).is_err(), "an older epoch cannot record");
    assert!(world.effects.lock().unwrap().is_empty(), "an older epoch does not act");
    assert_eq!(tick(Epoch(2)).unwrap().cursor.phase(), RunPhase::Succeeded);
}

#[test]
fn a_plan_with_an_unregistered_kind_is_refused_before_anything_runs() {
    let (new, _) = three_goals();
    let store = Arc::new(MemoryStore::new());
    block_on(store.create(&new)).unwrap();
    let world = World::default();
    let clock = Arc::new(SimClock::starting_at(start()));
    let engine = Engine::<TestDomain>::new(Arc::new(StepRegistry::new()), store, clock);
    let error = block_on(engine.tick(&run_name(), Epoch(1), &world, &Observed::default(), &BTreeSet::new()));
    assert!(matches!(error, Err(crate::tick::TickError::Registry { .. })));
    assert!(world.effects.lock().unwrap().is_empty());
}

#[test]
fn a_paused_run_looks_but_does_not_act() {
    let (new, registry) = three_goals();
    let store = Arc::new(MemoryStore::new());
    let clock = Arc::new(SimClock::starting_at(start()));
    block_on(store.create(&new)).unwrap();
    let world = World::default();
    let engine = Engine::new(registry, store.clone(), clock.clone());
    let tick = || block_on(engine.tick(&run_name(), Epoch(1), &world, &Observed::default(), &BTreeSet::new())).unwrap();
    store.set_intent(
        &run_name(),
        Intent { pause: Some(Reason::new("Paused", "by a test")), cancel: false, ..Intent::default() },
    );
    assert_eq!(tick().cursor.phase(), RunPhase::Pending);
    assert!(world.effects.lock().unwrap().is_empty());
    store.set_intent(&run_name(), Intent::default());
    assert_eq!(tick().cursor.phase(), RunPhase::Succeeded);
}

/// A store that takes no result while it is full; what it holds can be read, and starts can be recorded.
#[derive(Default)]
struct FullStore {
    inner: MemoryStore,
    full: Mutex<bool>,
}

#[async_trait]
impl RunStore for FullStore {
    async fn create(&self, run: &NewRun) -> Result<(), StoreError> {
        self.inner.create(run).await
    }
    async fn load(&self, run: &RunName) -> Result<StoredRun, StoreError> {
        self.inner.load(run).await
    }
    async fn commit(
        &self,
        run: &RunName,
        epoch: Epoch,
        expected: &Version,
        change: &Change,
    ) -> Result<Version, StoreError> {
        let starts_only = change.events.iter().all(|event| matches!(event, Event::Started { .. }));
        if *self.full.lock().unwrap() && !starts_only {
            return Err(StoreError::Unavailable { run: run.clone(), source: "no space left".into() });
        }
        self.inner.commit(run, epoch, expected, change).await
    }
    async fn list(&self) -> Result<Vec<RunName>, StoreError> {
        self.inner.list().await
    }
}

#[test]
fn a_result_that_could_not_be_recorded_is_recorded_later_and_its_effect_not_done_again() {
    let (new, registry) = three_goals();
    let store = Arc::new(FullStore::default());
    let clock = Arc::new(SimClock::starting_at(start()));
    block_on(store.create(&new)).unwrap();
    let world = World::default();
    // It fails after its effect: only the result says so, no probe does.
    world.fail_first.lock().unwrap().insert("a".into());
    let engine = Engine::new(registry.clone(), store.clone() as Arc<dyn RunStore>, clock.clone());
    let tick = |engine: &Engine<TestDomain>, epoch| {
        block_on(engine.tick(&run_name(), epoch, &world, &Observed::default(), &BTreeSet::new()))
    };
    let effects = || world.effects.lock().unwrap().get("a").copied();
    *store.full.lock().unwrap() = true;
    for _ in 0..10 {
        // As a lost race it would be tried again at once, for as long as the store is full.
        let error = tick(&engine, Epoch(1)).unwrap_err();
        assert!(matches!(error, TickError::Store { source: StoreError::Unavailable { .. }, .. }), "{error}");
        assert_eq!(effects(), Some(1));
    }
    *store.full.lock().unwrap() = false;
    let report = tick(&engine, Epoch(1)).unwrap();
    let a = VertexName::new("a").unwrap();
    assert!(matches!(report.cursor.state(&a), Some(VertexState::BackingOff { attempt: 1, .. })), "{:?}", report.events);
    assert_eq!(tick_until_rest(&engine, &clock, &world, Epoch(1)), RunPhase::Succeeded);
    assert_eq!(effects(), Some(2));
}

#[test]
fn a_result_from_before_somebody_else_led_is_forgotten() {
    let (new, registry) = three_goals();
    let store = Arc::new(FullStore::default());
    let clock = Arc::new(SimClock::starting_at(start()));
    block_on(store.create(&new)).unwrap();
    let world = World::default();
    world.fail_first.lock().unwrap().insert("a".into());
    let engine = Engine::new(registry, store.clone() as Arc<dyn RunStore>, clock);
    let tick = |epoch| block_on(engine.tick(&run_name(), epoch, &world, &Observed::default(), &BTreeSet::new()));
    *store.full.lock().unwrap() = true;
    tick(Epoch(1)).unwrap_err();
    *store.full.lock().unwrap() = false;
    assert_eq!(tick(Epoch(3)).unwrap().cursor.phase(), RunPhase::Succeeded, "a is looked at anew, and does not fail");
}

#[test]
fn the_memory_store_keeps_every_promise_of_a_store() {
    block_on(conformance::suite(&MemoryStore::new()));
}

#[test]
fn the_memory_store_keeps_its_promises_whatever_call_fails_and_however() {
    let faults = block_on(conformance::faults::suite_under_faults(async || MemoryStore::new()));
    assert!(faults > 80, "{faults} faults");
}
