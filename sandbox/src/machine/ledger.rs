//! The ledger of effects: what was done to machines and nodes, how often, and whether any of it was done twice.

use super::transcript::Transcript;
use cupcake_engine::clock::{Clock, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What counts as an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EffectKind {
    /// One transaction of the package manager.
    Install,
    /// One call of `kubeadm upgrade`.
    Kubeadm,
    /// A restart of the kubelet.
    KubeletRestart,
    /// A restart of containerd.
    ContainerdRestart,
    /// An etcd snapshot.
    Snapshot,
    /// The emptying of a node, from its cordon on.
    Drain,
}

impl EffectKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Kubeadm => "kubeadm",
            Self::KubeletRestart => "kubelet-restart",
            Self::ContainerdRestart => "containerd-restart",
            Self::Snapshot => "snapshot",
            Self::Drain => "drain",
        }
    }
}

/// Which effect: two effects are the same one if they have the same name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EffectName {
    /// On which node.
    pub node: String,
    /// Of what kind.
    pub kind: EffectKind,
    /// What exactly: `kubeadm=1.34.4`, the snapshot's name, ...
    pub what: String,
}

/// How far an effect is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Begun, and not ended.
    Running,
    /// Cut short by a crash.
    Cut,
    /// Ended with an error.
    Failed,
    /// Ended well; whoever did it has not written that down yet.
    Ended,
    /// Ended well and written down.
    Recorded,
}

/// What the ledger knows of one effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EffectRecord {
    /// Which effect.
    #[serde(flatten)]
    pub name: EffectName,
    /// How often it was begun.
    pub begun: u32,
    /// How often it was begun while it still ran, or after its completion had been recorded.
    pub duplicated: u32,
    /// How often it was begun again because a crash had cut it short (or had kept its completion from being recorded).
    pub reruns: u32,
}

#[derive(Debug)]
struct Entry {
    standing: Standing,
    begun: u32,
    duplicated: u32,
    reruns: u32,
}

/// The effects of a simulated run; clones share them.
///
/// # Guarantees
/// *Duplicated*: begun while the same effect still ran, or after its completion had been recorded.
/// *Rerun after interruption*: begun again because a crash cut it short.
#[derive(Clone)]
pub struct Ledger {
    clock: Arc<dyn Clock>,
    transcript: Transcript,
    /// Guards all entries.
    entries: Arc<Mutex<BTreeMap<EffectName, Entry>>>,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("effects", &self.lock().len()).finish()
    }
}

impl Ledger {
    /// An empty ledger whose effects are written into `transcript`.
    pub fn new(clock: Arc<dyn Clock>, transcript: Transcript) -> Self {
        Self { clock, transcript, entries: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<EffectName, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, name: &EffectName, happened: &str) {
        let words = ["effect", &name.node, name.kind.as_str(), &name.what, happened];
        self.transcript.write(self.now(), &words, &[]);
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Begins an effect; dropping the guard without [`Running::end`] cuts it short.
    pub fn begin(&self, name: EffectName) -> Running {
        self.begun(&name);
        Running { ledger: self.clone(), name, ended: false }
    }

    /// Notes that an effect began; for effects that have no one future, such as drains.
    pub fn begun(&self, name: &EffectName) {
        self.write(name, "begun");
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(name) else {
            entries.insert(name.clone(), Entry { standing: Standing::Running, begun: 1, duplicated: 0, reruns: 0 });
            return;
        };
        entry.begun += 1;
        match entry.standing {
            Standing::Running | Standing::Recorded => entry.duplicated += 1,
            Standing::Cut | Standing::Ended => entry.reruns += 1,
            Standing::Failed => {}
        }
        entry.standing = Standing::Running;
    }

    /// Notes that an effect ended well.
    pub fn ended(&self, name: &EffectName) {
        self.write(name, "ended");
        self.move_on(name, Standing::Ended);
    }

    /// Notes that an effect was cut short, if it was under way.
    pub fn cut(&self, name: &EffectName) {
        self.write(name, "cut");
        self.move_on(name, Standing::Cut);
    }

    fn failed(&self, name: &EffectName) {
        self.write(name, "failed");
        self.move_on(name, Standing::Failed);
    }

    fn move_on(&self, name: &EffectName, standing: Standing) {
        if let Some(entry) = self.lock().get_mut(name)
            && entry.standing == Standing::Running
        {
            entry.standing = standing;
        }
    }

    /// Whether something ended well on `node` that is not recorded yet.
    pub fn has_unrecorded(&self, node: &str) -> bool {
        self.lock().iter().any(|(name, entry)| name.node == node && entry.standing == Standing::Ended)
    }

    /// Notes that the completion of all effects of that kind that ended on `node` has been recorded durably. One that was begun again
    /// meanwhile, or cut short, is not done by what is known of an earlier time.
    pub fn recorded_on(&self, node: &str, kind: EffectKind) {
        for (name, entry) in self.lock().iter_mut() {
            if name.node == node && name.kind == kind && entry.standing == Standing::Ended {
                entry.standing = Standing::Recorded;
            }
        }
    }

    /// Notes that the completion of an effect has been recorded durably.
    pub fn recorded(&self, name: &EffectName) {
        if let Some(entry) = self.lock().get_mut(name)
            && entry.standing == Standing::Ended
        {
            entry.standing = Standing::Recorded;
        }
    }

    /// Every effect, by node, kind and what it was.
    pub fn records(&self) -> Vec<EffectRecord> {
        let entries = self.lock();
        let record = |(name, entry): (&EffectName, &Entry)| EffectRecord {
            name: name.clone(),
            begun: entry.begun,
            duplicated: entry.duplicated,
            reruns: entry.reruns,
        };
        entries.iter().map(record).collect()
    }

    /// How many effects were begun twice at once, or again after their completion had been recorded.
    pub fn duplicated(&self) -> u32 {
        self.lock().values().map(|entry| entry.duplicated).sum()
    }

    /// How many effects were begun again because a crash had cut them short.
    pub fn reruns_after_interruption(&self) -> u32 {
        self.lock().values().map(|entry| entry.reruns).sum()
    }
}

/// An effect under way.
#[derive(Debug)]
pub struct Running {
    ledger: Ledger,
    name: EffectName,
    ended: bool,
}

impl Running {
    /// Ends the effect: well, or with an error.
    pub fn end(mut self, result: Ending) {
        self.ended = true;
        match result {
            Ending::Well => self.ledger.ended(&self.name),
            Ending::Failed => self.ledger.failed(&self.name),
        }
    }
}

/// How an effect ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It did what it was meant to do.
    Well,
    /// It reported an error.
    Failed,
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.ledger.cut(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cupcake_engine::clock::SimClock;

    fn ledger() -> Ledger {
        Ledger::new(Arc::new(SimClock::starting_at(Timestamp::UNIX_EPOCH)), Transcript::default())
    }

    fn name() -> EffectName {
        EffectName { node: "w-1".to_owned(), kind: EffectKind::Install, what: "kubeadm=1.34.4".to_owned() }
    }

    #[test]
    fn an_effect_that_is_begun_while_it_runs_is_duplicated() {
        let ledger = ledger();
        let first = ledger.begin(name());
        let second = ledger.begin(name());
        first.end(Ending::Well);
        second.end(Ending::Well);
        assert_eq!((ledger.duplicated(), ledger.reruns_after_interruption()), (1, 0));
    }

    #[test]
    fn an_effect_that_is_begun_after_its_completion_was_recorded_is_duplicated() {
        let ledger = ledger();
        ledger.begin(name()).end(Ending::Well);
        assert!(ledger.has_unrecorded("w-1") && !ledger.has_unrecorded("w-2"));
        ledger.recorded_on("w-1", EffectKind::Install);
        assert!(!ledger.has_unrecorded("w-1"));
        drop(ledger.begin(name()));
        assert_eq!((ledger.duplicated(), ledger.reruns_after_interruption()), (1, 0));
    }

    #[test]
    fn an_effect_whose_end_nobody_recorded_is_a_rerun_whatever_else_was_recorded() {
        let ledger = ledger();
        ledger.begin(name()).end(Ending::Well);
        ledger.recorded_on("w-2", EffectKind::Install);
        ledger.recorded_on("w-1", EffectKind::Kubeadm);
        drop(ledger.begin(name()));
        // What is recorded now is of the time before.
        ledger.recorded_on("w-1", EffectKind::Install);
        drop(ledger.begin(name()));
        assert_eq!((ledger.duplicated(), ledger.reruns_after_interruption()), (0, 2));
    }

    #[test]
    fn an_effect_that_a_crash_cut_short_is_a_rerun_and_no_duplicate() {
        let ledger = ledger();
        drop(ledger.begin(name()));
        ledger.begin(name()).end(Ending::Well);
        assert_eq!((ledger.duplicated(), ledger.reruns_after_interruption()), (0, 1));
    }

    #[test]
    fn a_retry_of_what_failed_is_neither() {
        let ledger = ledger();
        ledger.begin(name()).end(Ending::Failed);
        ledger.begin(name()).end(Ending::Well);
        assert_eq!((ledger.duplicated(), ledger.reruns_after_interruption()), (0, 0));
    }
}
