//! A [`RunStore`] whose writes are timed.

use crate::metrics::Metrics;
use async_trait::async_trait;
use cupcake_engine::clock::Clock;
use cupcake_engine::names::{Epoch, RunName};
use cupcake_engine::store::{Change, NewRun, RunStore, StoreError, StoredRun, Version};
use std::sync::Arc;

/// Does what the store below it does, and tells how long commits took and what they came to.
pub struct TimedStore<S> {
    /// The store.
    pub store: S,
    /// By which time is taken.
    pub clock: Arc<dyn Clock>,
    /// Where it is told.
    pub metrics: Metrics,
}

#[async_trait]
impl<S: RunStore> RunStore for TimedStore<S> {
    async fn create(&self, run: &NewRun) -> Result<(), StoreError> {
        self.store.create(run).await
    }

    async fn load(&self, run: &RunName) -> Result<StoredRun, StoreError> {
        self.store.load(run).await
    }

    async fn commit(
        &self,
        run: &RunName,
        epoch: Epoch,
        expected: &Version,
        change: &Change,
    ) -> Result<Version, StoreError> {
        let began = self.clock.now();
        let committed = self.store.commit(run, epoch, expected, change).await;
        let result = match &committed {
            Ok(_) => "success",
            Err(StoreError::Conflict(_) | StoreError::NotFound(_)) => "conflict",
            Err(StoreError::Fenced { .. }) => "fenced",
            Err(StoreError::TooLarge { .. } | StoreError::Corrupt { .. }) => "refused",
            Err(StoreError::Unavailable { .. }) => "unavailable",
        };
        self.metrics.journal_write(result, self.clock.now() - began);
        committed
    }

    async fn list(&self) -> Result<Vec<RunName>, StoreError> {
        self.store.list().await
    }
}
