//! The suite that every [`RunStore`] passes: the model, the file journal, and custom resources.
//!
//! A store's tests call [`suite`] with a fresh store. A failed check panics with a sentence that says what was promised.

use crate::cursor::Cursor;
use crate::decide::Limits;
use crate::event::Event;
use crate::names::{CommitId, Epoch, RunName, StepKind, VertexName};
use crate::plan::{Plan, VertexTemplate};
use crate::store::{Change, NewRun, RunStore, StoreError, StoredRun};
use chrono::{DateTime, TimeDelta};
use serde_json::Value;
use std::sync::Arc;

pub mod faults;

/// The run that the suite works on.
pub fn sample_run(name: &str) -> NewRun {
    let kind = StepKind::new("noop/v1").expect("a kind");
    let mut plan = Plan::new("conformance");
    plan.vertex(VertexTemplate::new("first", kind.clone(), Value::Null, &[]));
    plan.vertex(VertexTemplate::new("second", kind, Value::Null, &["first"]));
    let dag = plan.expand().expect("the sample plan is a graph");
    let now = DateTime::from_timestamp(1_790_000_000, 0).expect("a time");
    NewRun {
        name: RunName::new(name).expect("a name"),
        cursor: Cursor::new(plan.digest(), &dag, now),
        plan: Arc::new(plan),
        limits: Limits::default(),
    }
}

fn started(run: &StoredRun, epoch: u64, attempt: u32) -> Change {
    let event = Event::Started {
        vertex: VertexName::new("first").expect("a name"),
        attempt,
        at: run.cursor.clock() + TimeDelta::seconds(7),
    };
    let mut cursor = run.cursor.clone();
    cursor.apply(&event).expect("the event fits");
    cursor.stamp(CommitId { epoch: Epoch(epoch), sequence: run.cursor.commit_id().sequence + 1 });
    Change { events: vec![event], cursor }
}

/// Runs every check on an empty store.
///
/// # Panics
/// When the store breaks a promise.
pub async fn suite(store: &dyn RunStore) {
    let new = sample_run("conformance");
    let name = new.name.clone();

    assert!(
        matches!(store.load(&name).await, Err(StoreError::NotFound(_))),
        "a run that was never created is NotFound"
    );
    store.create(&new).await.expect("a run can be created");
    store.create(&new).await.expect("creating the same run again changes nothing");
    let listed = store.list().await.expect("runs can be listed");
    assert_eq!(listed, std::slice::from_ref(&name), "a created run is listed once");

    let fresh = store.load(&name).await.expect("a created run can be loaded");
    assert_eq!(fresh.cursor, new.cursor, "a run loads with the cursor it was created with");
    assert_eq!(fresh.dag.len(), 2, "a run loads with its graph");
    assert!(!fresh.uid.is_empty(), "a run has a UID");

    let first = started(&fresh, 3, 1);
    let version =
        store.commit(&name, Epoch(3), &fresh.version, &first).await.expect("a commit on the loaded version succeeds");
    let loaded = store.load(&name).await.expect("a committed run can be loaded");
    assert_eq!(loaded.cursor, first.cursor, "what was committed is what is loaded");
    assert_eq!(loaded.version, version, "a commit gives the version that a load shows");
    assert_eq!(loaded.epoch, Epoch(3), "a commit leaves its epoch");
    assert_ne!(loaded.version, fresh.version, "a commit changes the version");
    assert_eq!(loaded.uid, fresh.uid, "a commit keeps the UID");

    // Another's: whoever commits what stands there already may be told that it does.
    let mut others = started(&fresh, 2, 1);
    others.cursor.stamp(CommitId { epoch: Epoch(2), sequence: 9 });
    let stale = store.commit(&name, Epoch(3), &fresh.version, &others).await;
    assert!(matches!(stale, Err(StoreError::Conflict(_))), "a commit on an old version is a Conflict: {stale:?}");
    let fenced = store.commit(&name, Epoch(2), &loaded.version, &others).await;
    assert!(
        matches!(fenced, Err(StoreError::Fenced { .. } | StoreError::Conflict(_))),
        "a commit under an older epoch is refused: {fenced:?}"
    );
    let after = store.load(&name).await.expect("the run can be loaded");
    assert_eq!(after.cursor, first.cursor, "a refused commit changes nothing");
    assert_eq!(after.version, loaded.version, "a refused commit leaves the version");

    let mut next = after.cursor.clone();
    let event = Event::Succeeded {
        vertex: VertexName::new("first").expect("a name"),
        attempt: 1,
        output: Value::from("left for later"),
        at: after.cursor.clock() + TimeDelta::seconds(60),
    };
    next.apply(&event).expect("the event fits");
    next.stamp(CommitId { epoch: Epoch(5), sequence: 2 });
    let change = Change { events: vec![event], cursor: next.clone() };
    store.commit(&name, Epoch(5), &after.version, &change).await.expect("a newer epoch may commit");
    let last = store.load(&name).await.expect("the run can be loaded");
    assert_eq!(last.cursor, next, "outputs and commit ids survive");
    assert_eq!(last.epoch, Epoch(5), "the epoch follows");

    let mut other = sample_run("conformance");
    Arc::make_mut(&mut other.plan).compiler = "another".into();
    assert!(store.create(&other).await.is_err(), "a run of that name with another plan is refused");
}
