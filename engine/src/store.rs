//! Where runs live. A store keeps one truth per run: cursor, version and epoch, changed by compare-and-swap.

use crate::cursor::Cursor;
use crate::dag::Dag;
use crate::decide::{Intent, Limits};
use crate::event::Event;
use crate::names::{Epoch, RunName};
use crate::plan::Plan;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// An opaque version of a stored run; equal versions mean equal runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(pub String);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A run to be created.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// Its name.
    pub name: RunName,
    /// Its plan.
    pub plan: Arc<Plan>,
    /// Its first cursor.
    pub cursor: Cursor,
    /// Its limits.
    pub limits: Limits,
}

/// A run as loaded.
#[derive(Debug, Clone)]
pub struct StoredRun {
    /// Its name.
    pub name: RunName,
    /// Its UID: never used again, unlike the name.
    pub uid: String,
    /// Its graph.
    pub dag: Arc<Dag>,
    /// Its state.
    pub cursor: Cursor,
    /// The version of that state.
    pub version: Version,
    /// The highest epoch that wrote to it.
    pub epoch: Epoch,
    /// Its bounds as they stand now.
    pub limits: Limits,
    /// What people ask of it as it stands now.
    pub intent: Intent,
}

/// One step of a run's history: what happened, and the state after it.
#[derive(Debug, Clone)]
pub struct Change {
    /// What happened, in order.
    pub events: Vec<Event>,
    /// The state after it, stamped with the id of this commit.
    pub cursor: Cursor,
}

/// Why a store did not do it, by what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such run: drop it.
    #[error("run {0} does not exist")]
    NotFound(RunName),
    /// Somebody else changed it: load again and decide anew.
    #[error("run {0} was changed by another writer")]
    Conflict(RunName),
    /// A newer leader has taken over: stop.
    #[error("run {run} is led by epoch {current}, epoch {own} is over")]
    Fenced {
        /// The run.
        run: RunName,
        /// The epoch that leads.
        current: Epoch,
        /// The epoch of the caller.
        own: Epoch,
    },
    /// The state does not fit: no attempt will succeed.
    #[error("state of run {run} has {bytes} bytes, the store takes {bytes_max}: split the run")]
    TooLarge {
        /// The run.
        run: RunName,
        /// Its size.
        bytes: usize,
        /// What the store takes.
        bytes_max: usize,
    },
    /// What is stored cannot be read: leave it alone until a person looks.
    #[error("stored run {run} cannot be used")]
    Corrupt {
        /// The run.
        run: RunName,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It did not answer, or not in time. The request may have been carried out: load, compare the commit id, decide.
    #[error("store did not answer for run {run}")]
    Unavailable {
        /// The run.
        run: RunName,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Keeps runs.
///
/// # Guarantees
/// `commit` is a compare-and-swap: it succeeds only if the run still has `expected` and no greater epoch than `epoch`
/// wrote to it; then state, version and epoch change together. `create` of a name that exists with the same plan
/// succeeds and changes nothing; with another plan it is a Conflict. Every suite member passes [`crate::conformance`].
#[async_trait]
pub trait RunStore: Send + Sync {
    /// Makes the run exist.
    async fn create(&self, run: &NewRun) -> Result<(), StoreError>;
    /// The newest committed state: never a cached one.
    async fn load(&self, run: &RunName) -> Result<StoredRun, StoreError>;
    /// Records a change; gives the new version.
    async fn commit(
        &self,
        run: &RunName,
        epoch: Epoch,
        expected: &Version,
        change: &Change,
    ) -> Result<Version, StoreError>;
    /// The names of all runs, sorted.
    async fn list(&self) -> Result<Vec<RunName>, StoreError>;
}

/// A store in memory: for tests, and the model that other stores are compared with.
#[derive(Debug, Default)]
pub struct MemoryStore {
    runs: Mutex<BTreeMap<RunName, Held>>,
}

#[derive(Debug)]
struct Held {
    plan: Arc<Plan>,
    run: StoredRun,
    journal: Vec<Event>,
    changes: u64,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// All events that were committed to a run, in order.
    pub fn journal(&self, run: &RunName) -> Vec<Event> {
        self.lock().get(run).map(|held| held.journal.clone()).unwrap_or_default()
    }

    /// Sets what people ask of a run.
    pub fn set_intent(&self, run: &RunName, intent: Intent) {
        if let Some(held) = self.lock().get_mut(run) {
            held.run.intent = intent;
            held.touch();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<RunName, Held>> {
        // Each critical section below leaves the map whole at every point where it could panic.
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn touch(&mut self) {
        self.changes += 1;
        self.run.version = Version(self.changes.to_string());
    }
}

#[async_trait]
impl RunStore for MemoryStore {
    async fn create(&self, run: &NewRun) -> Result<(), StoreError> {
        let corrupt =
            |source: crate::plan::PlanError| StoreError::Corrupt { run: run.name.clone(), source: Box::new(source) };
        let dag = Arc::new(run.plan.expand().map_err(corrupt)?);
        let mut runs = self.lock();
        if let Some(held) = runs.get(&run.name) {
            return if held.plan == run.plan { Ok(()) } else { Err(StoreError::Conflict(run.name.clone())) };
        }
        let uid = format!("uid-{}-{}", run.name, runs.len());
        let mut held = Held {
            plan: Arc::clone(&run.plan),
            run: StoredRun {
                name: run.name.clone(),
                uid,
                dag,
                cursor: run.cursor.clone(),
                version: Version(String::new()),
                epoch: Epoch(0),
                limits: run.limits,
                intent: Intent::default(),
            },
            journal: Vec::new(),
            changes: 0,
        };
        held.touch();
        runs.insert(run.name.clone(), held);
        Ok(())
    }

    async fn load(&self, run: &RunName) -> Result<StoredRun, StoreError> {
        let runs = self.lock();
        let held = runs.get(run).ok_or_else(|| StoreError::NotFound(run.clone()))?;
        Ok(held.run.clone())
    }

    async fn commit(
        &self,
        run: &RunName,
        epoch: Epoch,
        expected: &Version,
        change: &Change,
    ) -> Result<Version, StoreError> {
        let mut runs = self.lock();
        let held = runs.get_mut(run).ok_or_else(|| StoreError::NotFound(run.clone()))?;
        if epoch < held.run.epoch {
            return Err(StoreError::Fenced { run: run.clone(), current: held.run.epoch, own: epoch });
        }
        if *expected != held.run.version {
            return Err(StoreError::Conflict(run.clone()));
        }
        held.run.cursor = change.cursor.clone();
        held.run.epoch = epoch;
        held.journal.extend(change.events.iter().cloned());
        held.touch();
        Ok(held.run.version.clone())
    }

    async fn list(&self) -> Result<Vec<RunName>, StoreError> {
        Ok(self.lock().keys().cloned().collect())
    }
}
