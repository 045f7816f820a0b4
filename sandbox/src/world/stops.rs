//! Who was stopped (SIGSTOP) with a request on its way: of each of them one request a stop may land late.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// How often each life of a component was stopped, by the name of its client; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Stops {
    /// Guards the counts.
    by_client: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Stops {
    /// The life with that client was stopped.
    pub(super) fn stopped(&self, client: &str) {
        *self.by_client.lock().unwrap_or_else(PoisonError::into_inner).entry(client.to_owned()).or_default() += 1;
    }

    /// How often the life with that client was stopped so far.
    pub(super) fn of(&self, client: &str) -> usize {
        self.by_client.lock().unwrap_or_else(PoisonError::into_inner).get(client).copied().unwrap_or_default()
    }
}
