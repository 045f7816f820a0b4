//! What one reconcile comes to: when to do it again, and what the leader's loop has to know of it.

use cupcake_crds::upgrade_run::CommitId;
use cupcake_engine::clock::Timestamp;
use cupcake_engine::names::{Epoch, RunName};
use cupcake_engine::tick::TickReport;

/// When to reconcile a key again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// When something changes.
    AwaitChange,
    /// At that time, or when something changes.
    At(Timestamp),
    /// As soon as possible.
    AtOnce,
    /// It failed: soon.
    Failed,
}

/// What one reconcile came to.
pub struct Outcome {
    /// When to do it again.
    pub next: Next,
    /// The run's last own commit, so that the echo of it in the watch causes no tick.
    pub committed: Option<CommitId>,
    /// What people should hear of, published beside the next reconciles: no step waits for it.
    pub news: Option<(RunName, TickReport)>,
    /// A greater epoch than the leader's own that it met.
    pub outdated_by: Option<Epoch>,
    /// Whether the API server answered, and took what was decided: if not, deadlines are given that time back later.
    pub answered: bool,
    /// With what it refused a run that was not answered for, if it did.
    pub refused: Option<String>,
}

impl Outcome {
    /// Nothing was committed.
    pub fn of(next: Next) -> Self {
        Self { next, committed: None, news: None, outdated_by: None, answered: true, refused: None }
    }

    /// The API server gave no answer, or refused.
    pub fn unanswered(refused: Option<String>) -> Self {
        Self { answered: false, refused, ..Self::of(Next::Failed) }
    }
}
