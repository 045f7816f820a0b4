//! Crashes on purpose: which write of which component is its last, and what remains of it.

use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// A component that may crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Component {
    /// The operator.
    Operator,
    /// All agents together.
    Agent,
    /// All runners together.
    Runner,
}

impl Component {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Operator, Self::Agent, Self::Runner];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Agent => "agent",
            Self::Runner => "runner",
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What becomes of the write at which a component crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Moment {
    /// The crash comes first: nothing of the write remains.
    Before,
    /// The write stands, and the component never hears of it.
    After,
    /// Of an append to a file only a part stands; other writes stand whole.
    Torn,
}

impl Moment {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
            Self::Torn => "torn",
        }
    }
}

/// One crash: at the `write`-th write of a component, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Crash {
    /// Who crashes.
    pub component: Component,
    /// At which of its writes.
    pub write: u64,
    /// What becomes of that write.
    pub moment: Moment,
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}", self.component, self.write, self.moment.as_str())
    }
}

/// Why a text names no crash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} names no crash; write operator@N, agent@N or runner@N with N >= 1, and :before, :after or :torn if not after"
)]
pub struct InvalidCrash(String);

impl FromStr for Crash {
    type Err = InvalidCrash;

    fn from_str(text: &str) -> Result<Self, InvalidCrash> {
        let invalid = || InvalidCrash(text.chars().take(64).collect());
        let (component, rest) = text.split_once('@').ok_or_else(invalid)?;
        let (write, moment) = rest.split_once(':').unwrap_or((rest, "after"));
        let component = Component::ALL.into_iter().find(|known| known.as_str() == component).ok_or_else(invalid)?;
        let moment = [Moment::Before, Moment::After, Moment::Torn]
            .into_iter()
            .find(|known| known.as_str() == moment)
            .ok_or_else(invalid)?;
        let write = write.parse().ok().filter(|write| *write > 0).ok_or_else(invalid)?;
        Ok(Self { component, write, moment })
    }
}

/// One life of a component: from a start to the crash or the end.
#[derive(Debug, Clone)]
pub struct Life {
    component: Component,
    place: Arc<str>,
    over: CancellationToken,
}

impl Life {
    /// A new life of a component at a place (a node's name, or nothing for the operator).
    pub fn new(component: Component, place: &str) -> Self {
        Self { component, place: Arc::from(place), over: CancellationToken::new() }
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Ends it: whoever lives it does nothing any more from this moment on.
    pub fn end(&self) {
        self.over.cancel();
    }

    /// Resolves when it is over.
    pub async fn over(&self) {
        self.over.cancelled().await;
    }

    /// Whether both are the same life.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.place, &other.place)
    }

    /// Which component lives it.
    pub fn component(&self) -> Component {
        self.component
    }
}

/// What happens to a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Goes,
    /// The life is over, and nothing of the write may remain.
    DiesBefore,
    /// The write stands; the life ends with it.
    DiesAfter,
    /// Only a part stands; the life ends with it.
    DiesTorn,
}

/// Counts the writes of each component and ends the life whose write is the chosen one; clones share the counts.
#[derive(Debug, Clone, Default)]
pub struct Crashes {
    planned: Option<Crash>,
    /// Guards the counts and the place of the crash that happened.
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    writes: BTreeMap<Component, u64>,
    happened: Option<String>,
}

impl Crashes {
    /// With at most one crash.
    pub fn planned(crash: Option<Crash>) -> Self {
        Self { planned: crash, counts: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a write of `life` and says what becomes of it.
    pub fn count(&self, life: &Life) -> Verdict {
        if life.is_over() {
            return Verdict::DiesBefore;
        }
        let mut counts = self.lock();
        let count = counts.writes.entry(life.component).or_default();
        *count += 1;
        let Some(crash) = self.planned.filter(|crash| crash.component == life.component && crash.write == *count)
        else {
            return Verdict::Goes;
        };
        counts.happened =
            Some(if life.place.is_empty() { crash.to_string() } else { format!("{crash} on {}", life.place) });
        match crash.moment {
            Moment::Before => Verdict::DiesBefore,
            Moment::After => Verdict::DiesAfter,
            Moment::Torn => Verdict::DiesTorn,
        }
    }

    /// Writes of a component so far.
    pub fn writes(&self, component: Component) -> u64 {
        self.lock().writes.get(&component).copied().unwrap_or_default()
    }

    /// The crash that happened, and where; `None` as long as none did.
    pub fn happened(&self) -> Option<String> {
        self.lock().happened.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_is_written_as_component_at_write() {
        let crash = Crash { component: Component::Runner, write: 12, moment: Moment::Torn };
        assert_eq!("runner@12:torn".parse(), Ok(crash));
        assert_eq!("operator@3".parse::<Crash>().unwrap().moment, Moment::After);
        for bad in ["operator", "operator@0", "kubelet@1", "agent@x", "agent@1:never"] {
            assert!(bad.parse::<Crash>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_chosen_write_is_counted_over_all_places() {
        let crashes = Crashes::planned(Some("agent@2".parse().unwrap()));
        let (first, second) = (Life::new(Component::Agent, "w-1"), Life::new(Component::Agent, "w-2"));
        assert_eq!(crashes.count(&first), Verdict::Goes);
        assert_eq!(crashes.count(&second), Verdict::DiesAfter);
        second.end();
        assert_eq!(crashes.count(&second), Verdict::DiesBefore);
        assert_eq!(crashes.writes(Component::Agent), 2);
        assert_eq!(crashes.happened().as_deref(), Some("agent@2:after on w-2"));
    }
}
