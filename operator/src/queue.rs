//! What to reconcile when: ordered, deduplicated, one at a time per key. Pure.

use cupcake_engine::clock::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// One thing to reconcile.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A Node: does its NodeTask exist?
    Node(String),
    /// An UpgradeRun: one tick.
    Run(String),
    /// An UpdateSchedule.
    Schedule(String),
    /// A ScheduledUpdate.
    Scheduled(String),
    /// A DirectUpdate. All of them are reconciled one after another: one run owns the cluster.
    Update(String),
}

/// The controllers, as metrics name them.
pub const CONTROLLERS: [&str; 5] = ["node", "run", "schedule", "scheduled", "update"];

impl Key {
    /// Which controller reconciles it: one of [`CONTROLLERS`].
    pub const fn controller(&self) -> &'static str {
        match self {
            Self::Node(_) => "node",
            Self::Run(_) => "run",
            Self::Schedule(_) => "schedule",
            Self::Scheduled(_) => "scheduled",
            Self::Update(_) => "update",
        }
    }

    fn excludes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Update(_), Self::Update(_)) => true,
            (Self::Node(_) | Self::Run(_) | Self::Schedule(_) | Self::Scheduled(_) | Self::Update(_), _) => {
                self == other
            }
        }
    }
}

/// Keys with the time at which each is due; the earliest time wins, keys of one time in their order.
#[derive(Debug, Default)]
pub struct Queue {
    due: BTreeMap<Key, Timestamp>,
    order: BTreeSet<(Timestamp, Key)>,
    busy: BTreeSet<Key>,
}

impl Queue {
    /// Asks for `key` at `at`, or earlier if it was asked for earlier.
    pub fn add(&mut self, key: Key, at: Timestamp) {
        match self.due.get(&key) {
            Some(&earlier) if earlier <= at => return,
            Some(&later) => {
                self.order.remove(&(later, key.clone()));
            }
            None => {}
        }
        self.due.insert(key.clone(), at);
        self.order.insert((at, key));
    }

    /// Takes the next key that is due and excluded by nothing under way.
    pub fn take(&mut self, now: Timestamp) -> Option<Key> {
        let free = |key: &Key| !self.busy.iter().any(|busy| busy.excludes(key));
        let next = self.order.iter().take_while(|(at, _)| *at <= now).find(|(_, key)| free(key)).cloned()?;
        self.order.remove(&next);
        self.due.remove(&next.1);
        self.busy.insert(next.1.clone());
        Some(next.1)
    }

    /// The key is no longer under way.
    pub fn done(&mut self, key: &Key) {
        self.busy.remove(key);
    }

    /// When the next key that could be taken is due.
    pub fn next_due(&self) -> Option<Timestamp> {
        let free = |key: &Key| !self.busy.iter().any(|busy| busy.excludes(key));
        self.order.iter().find(|(_, key)| free(key)).map(|(at, _)| *at)
    }

    /// How many keys are asked for, now or later.
    pub fn len(&self) -> usize {
        self.due.len()
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// The keys under way.
    pub fn busy(&self) -> impl Iterator<Item = &Key> {
        self.busy.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn a_key_is_taken_once_at_its_earliest_time_and_never_twice_at_once() {
        let mut queue = Queue::default();
        let run = Key::Run("r".into());
        queue.add(run.clone(), at(9));
        queue.add(run.clone(), at(5));
        queue.add(run.clone(), at(7));
        assert_eq!(queue.take(at(4)), None);
        assert_eq!(queue.take(at(5)), Some(run.clone()));
        queue.add(run.clone(), at(5));
        assert_eq!(queue.take(at(6)), None, "it is under way");
        queue.done(&run);
        assert_eq!(queue.take(at(6)), Some(run));
        assert_eq!(queue.next_due(), None);
    }

    #[test]
    fn updates_exclude_each_other_and_nothing_else() {
        let mut queue = Queue::default();
        for key in [Key::Update("a".into()), Key::Update("b".into()), Key::Node("n".into())] {
            queue.add(key, at(0));
        }
        assert_eq!(queue.take(at(0)), Some(Key::Node("n".into())));
        assert_eq!(queue.take(at(0)), Some(Key::Update("a".into())));
        assert_eq!(queue.take(at(0)), None);
        queue.done(&Key::Update("a".into()));
        assert_eq!(queue.take(at(0)), Some(Key::Update("b".into())));
    }
}
