//! Tests of vertices that are bounded by what they watch.

use crate::clock::{Clock, SimClock, Timestamp};
use crate::cursor::{Cursor, RunPhase};
use crate::decide::{Limits, Observed};
use crate::names::{Epoch, Reason, RunName, StepKind};
use crate::plan::{Plan, VertexTemplate};
use crate::registry::StepRegistry;
use crate::step::{Bound, Domain, Probe, Step, StepContext, StepError, StepOutcome, Wait};
use crate::store::{MemoryStore, NewRun, RunStore};
use crate::tick::Engine;
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta};
use futures::executor::block_on;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

struct TestDomain;
impl Domain for TestDomain {
    /// Whether the child is over.
    type Ports = AtomicBool;
}

/// Looks on at a child.
struct Watch;
#[async_trait]
impl Step<TestDomain> for Watch {
    const KIND: &'static str = "watch/v1";
    const BOUND: Bound = Bound::WhatItWatches;
    type Params = String;
    type Output = ();

    async fn probe(&self, ctx: &StepContext<'_, TestDomain>, _: &String) -> Result<Probe<()>, StepError> {
        if ctx.ports().load(Ordering::Relaxed) {
            return Ok(Probe::Satisfied(()));
        }
        let again = ctx.now() + TimeDelta::seconds(60);
        Ok(Probe::Wait(Wait::quiet(again, Reason::new("ChildRunning", "it waits for its window"))))
    }

    async fn apply(&self, _: &StepContext<'_, TestDomain>, _: &String) -> Result<StepOutcome<()>, StepError> {
        Ok(StepOutcome::Done(()))
    }
}

fn start() -> Timestamp {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

#[test]
fn what_watches_a_run_outlives_the_deadline_of_its_plan_also_under_a_leader_that_never_looked() {
    let mut plan = Plan::new("test");
    let kind = StepKind::new("watch/v1").unwrap();
    plan.vertex(VertexTemplate::new("workers", kind, "child".into(), &[]).deadline_seconds(604_800));
    let dag = plan.expand().unwrap();
    let name = RunName::new("parent").unwrap();
    let cursor = Cursor::new(plan.digest(), &dag, start());
    let new = NewRun { name: name.clone(), cursor, plan: Arc::new(plan), limits: Limits::default() };
    let store = Arc::new(MemoryStore::new());
    let clock = Arc::new(SimClock::starting_at(start()));
    block_on(store.create(&new)).unwrap();
    let over = AtomicBool::new(false);
    let leader = || {
        let mut registry = StepRegistry::new();
        registry.register(Watch).unwrap();
        Engine::new(Arc::new(registry), store.clone(), clock.clone())
    };
    let tick = |engine: &Engine<TestDomain>| {
        block_on(engine.tick(&name, Epoch(1), &over, &Observed::default(), &BTreeSet::new())).unwrap()
    };
    let first = leader();
    for day in 0..30 {
        let report = tick(&first);
        assert_eq!(report.cursor.phase(), RunPhase::InProgress, "day {day}");
        assert_eq!(report.wake_at, Some(clock.now() + TimeDelta::seconds(60)), "day {day}: no deadline wakes it");
        clock.advance(TimeDelta::days(1));
    }
    assert_eq!(tick(&leader()).cursor.phase(), RunPhase::InProgress);
    over.store(true, Ordering::Relaxed);
    clock.advance(TimeDelta::seconds(60));
    assert_eq!(tick(&first).cursor.phase(), RunPhase::Succeeded);
}
