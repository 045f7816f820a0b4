//! The suite once more, with a store that fails now and then and a caller that does what the protocol asks of it.
//!
//! ```text
//!  suite ─► Careful (looks what stands there, compares the commit id, decides) ─► Faulty (one or two faults) ─► the store
//! ```

use super::suite;
use crate::names::{Epoch, RunName};
use crate::store::{Change, NewRun, RunStore, StoreError, StoredRun, Version};
use async_trait::async_trait;
use std::sync::atomic::{AtomicU32, Ordering};

/// How often a caller tries before it gives up: no schedule has more faults in a row.
const TRIES: u32 = 4;

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFault {
    /// It is not carried out, and says that it may work later: a refused connection, 429, 5xx.
    Away,
    /// It is carried out, and nobody hears of it: a lost reply, 504.
    LostReply,
    /// A commit is not carried out, and is told as a lost race that nobody won.
    Conflict,
    /// A commit is carried out, and told as a lost race: somebody below repeated it, and met its own success.
    OwnSuccess,
}

impl StoreFault {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Away, Self::LostReply, Self::Conflict, Self::OwnSuccess];

    /// Whether it happens to commits alone.
    const fn is_of_commits(self) -> bool {
        matches!(self, Self::Conflict | Self::OwnSuccess)
    }

    /// Whether the call is carried out.
    const fn is_after(self) -> bool {
        matches!(self, Self::LostReply | Self::OwnSuccess)
    }
}

/// A store of which some calls fail.
pub struct Faulty<'a> {
    store: &'a dyn RunStore,
    fault: StoreFault,
    /// The first call that fails, counted from 1 among those to which the fault can happen.
    first: u32,
    in_a_row: u32,
    calls: AtomicU32,
}

impl<'a> Faulty<'a> {
    /// That store, whose calls fail from number `first` on, so many in a row.
    pub fn new(store: &'a dyn RunStore, fault: StoreFault, first: u32, in_a_row: u32) -> Self {
        Self { store, fault, first, in_a_row, calls: AtomicU32::new(0) }
    }

    /// How many calls failed.
    pub fn happened(&self) -> u32 {
        (self.calls.load(Ordering::Relaxed) + 1).saturating_sub(self.first).min(self.in_a_row)
    }

    fn fault_now(&self) -> Option<StoreFault> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        (self.first..self.first + self.in_a_row).contains(&call).then_some(self.fault)
    }

    fn error(fault: StoreFault, run: &RunName) -> StoreError {
        if fault.is_of_commits() {
            return StoreError::Conflict(run.clone());
        }
        StoreError::Unavailable { run: run.clone(), source: "no answer".into() }
    }

    /// A call that is none of a commit.
    async fn other<T>(
        &self,
        run: &RunName,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let fault = if self.fault.is_of_commits() { None } else { self.fault_now() };
        match fault {
            None => call.await,
            Some(fault) if fault.is_after() => call.await.and(Err(Self::error(fault, run))),
            Some(fault) => Err(Self::error(fault, run)),
        }
    }
}

#[async_trait]
impl RunStore for Faulty<'_> {
    async fn create(&self, run: &NewRun) -> Result<(), StoreError> {
        self.other(&run.name, self.store.create(run)).await
    }

    async fn load(&self, run: &RunName) -> Result<StoredRun, StoreError> {
        self.other(run, self.store.load(run)).await
    }

    async fn commit(
        &self,
        run: &RunName,
        epoch: Epoch,
        expected: &Version,
        change: &Change,
    ) -> Result<Version, StoreError> {
        match self.fault_now() {
            None => self.store.commit(run, epoch, expected, change).await,
            Some(fault) if fault.is_after() => {
                self.store.commit(run, epoch, expected, change).await.and(Err(Self::error(fault, run)))
            }
            Some(fault) => Err(Self::error(fault, run)),
        }
    }

    async fn list(&self) -> Result<Vec<RunName>, StoreError> {
        let nobody = RunName::new("all-runs").expect("a legal name");
        self.other(&nobody, self.store.list()).await
    }
}

/// A caller as the protocol asks for: what only reads, or may be repeated, is asked again; after a commit of which nobody knows it
/// looks what stands there, and goes by the commit id.
pub struct Careful<'a>(pub &'a dyn RunStore);

/// Whether a call is to be made again that may be repeated.
fn is_away<T>(answer: &Result<T, StoreError>) -> bool {
    matches!(answer, Err(StoreError::Unavailable { .. }))
}

#[async_trait]
impl RunStore for Careful<'_> {
    async fn create(&self, run: &NewRun) -> Result<(), StoreError> {
        let (mut answer, mut tries) = (self.0.create(run).await, 1);
        while is_away(&answer) && tries < TRIES {
            answer = self.0.create(run).await;
            tries += 1;
        }
        answer
    }

    async fn load(&self, run: &RunName) -> Result<StoredRun, StoreError> {
        let (mut answer, mut tries) = (self.0.load(run).await, 1);
        while is_away(&answer) && tries < TRIES {
            answer = self.0.load(run).await;
            tries += 1;
        }
        answer
    }

    async fn commit(
        &self,
        run: &RunName,
        epoch: Epoch,
        expected: &Version,
        change: &Change,
    ) -> Result<Version, StoreError> {
        let mut answer = self.0.commit(run, epoch, expected, change).await;
        for _ in 1..TRIES {
            if !matches!(answer, Err(StoreError::Unavailable { .. } | StoreError::Conflict(_))) {
                break;
            }
            let stored = self.load(run).await?;
            if stored.cursor.commit_id() == change.cursor.commit_id() {
                assert_eq!(stored.cursor, change.cursor, "a commit is there whole, or not at all");
                return Ok(stored.version);
            }
            if stored.epoch > epoch {
                return Err(StoreError::Fenced { run: run.clone(), current: stored.epoch, own: epoch });
            }
            if stored.version != *expected {
                return Err(StoreError::Conflict(run.clone()));
            }
            answer = self.0.commit(run, epoch, expected, change).await;
        }
        answer
    }

    async fn list(&self) -> Result<Vec<RunName>, StoreError> {
        let (mut answer, mut tries) = (self.0.list().await, 1);
        while is_away(&answer) && tries < TRIES {
            answer = self.0.list().await;
            tries += 1;
        }
        answer
    }
}

/// Runs [`suite`] on a fresh store for each fault at each of its calls, one and two in a row; gives how many faults there were.
///
/// # Panics
/// When the store breaks a promise.
pub async fn suite_under_faults<S: RunStore>(fresh: impl AsyncFn() -> S) -> u32 {
    let mut faults = 0;
    for (fault, in_a_row) in StoreFault::ALL.into_iter().flat_map(|fault| [(fault, 1), (fault, 2)]) {
        for first in 1.. {
            let store = fresh().await;
            let failing = Faulty::new(&store, fault, first, in_a_row);
            suite(&Careful(&failing)).await;
            if failing.happened() == 0 {
                break;
            }
            faults += failing.happened();
        }
    }
    faults
}
