//! What the simulated world does later: a calendar of actions in order of time, then of entry.

use cupcake_engine::clock::{Clock, Timestamp};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Something to be done at its time, at once and without waiting.
type Action = Box<dyn FnOnce() + Send>;

/// The calendar of a simulated world; clones share it.
///
/// # Guarantees
/// Actions run one after the other, in order of their time and, within one instant, in the order in which they were entered.
/// Entering an action is possible from anywhere, also from an action.
#[derive(Clone, Default)]
pub struct Agenda {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Guards the entries and the count that parts those of one instant.
    entries: Mutex<Entries>,
    added: Notify,
}

#[derive(Default)]
struct Entries {
    due: BTreeMap<(Timestamp, u64), Action>,
    count: u64,
}

impl std::fmt::Debug for Agenda {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agenda").field("entries", &self.lock().due.len()).finish()
    }
}

impl Agenda {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.inner.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters an action; one whose time has passed runs as soon as the calendar is looked at.
    pub fn at(&self, when: Timestamp, action: impl FnOnce() + Send + 'static) {
        let mut entries = self.lock();
        let number = entries.count;
        entries.count += 1;
        entries.due.insert((when, number), Box::new(action));
        drop(entries);
        self.inner.added.notify_one();
    }

    /// Takes out all that is entered.
    pub fn clear(&self) {
        let due = std::mem::take(&mut self.lock().due);
        drop(due);
    }

    /// Does what is entered, when its time has come; never ends.
    pub async fn run(&self, clock: Arc<dyn Clock>) {
        loop {
            let next = self.lock().due.first_key_value().map(|((when, _), _)| *when);
            match next {
                Some(when) if when <= clock.now() => {
                    let action = self.lock().due.pop_first();
                    if let Some((_, action)) = action {
                        action();
                    }
                }
                Some(when) => {
                    tokio::select! {
                        biased;
                        () = self.inner.added.notified() => {}
                        () = clock.sleep_until(when) => {}
                    }
                }
                None => self.inner.added.notified().await,
            }
        }
    }
}
