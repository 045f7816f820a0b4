//! Faults on purpose: at which write of which component something goes wrong, and what.

use cupcake_engine::clock::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
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

/// What goes wrong at a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wrong {
    /// The component crashes, and nothing of the write remains.
    Before,
    /// The write stands, and the component crashes before it hears of it.
    After,
    /// The component crashes; of an append to a file only a part stands, other writes stand whole.
    Torn,
    /// The write stands, and its answer is lost; the component lives on.
    ReplyLost,
    /// The connection is refused; nothing stands.
    Refused,
    /// The API server answers 429; nothing stands.
    Busy,
    /// The write stands, and the API server answers 504.
    TimedOut,
    /// The component is stopped (SIGSTOP) with the request on its way, for [`STOPPED_SECONDS`]; it goes on as if nothing had been.
    Stopped,
    /// The write stands; then no request gets through for [`AWAY_SECONDS`].
    ApiAway,
    /// The write stands; then all watches end, and none can resume from where it was.
    WatchesLost,
    /// The machine of the component loses its power in the middle of the write and boots again.
    PowerCut,
    /// From this write on the machine's disk is full, for [`DISK_FULL_SECONDS`].
    DiskFull,
    /// A person starts the runner's program by hand, beside its unit.
    SecondRunner,
    /// The write stands; then every watch tells what happens [`WATCHES_LATE_SECONDS`] late, at most.
    WatchesLate,
    /// etcd has no leader, for [`ELECTION_SECONDS`]: no request is answered but with an error, and nothing stands.
    Election,
    /// The write stands; the clock of the component's machine jumps [`CLOCK_AHEAD_SECONDS`] ahead, and back after
    /// [`CLOCK_WRONG_SECONDS`].
    ClockJump,
    /// The write stands; somebody deletes the Node of the component's machine.
    NodeDeleted,
    /// A second agent of the same node lives beside the first, for [`DOUBLED_SECONDS`].
    Doubled,
    /// Somebody with the epoch of an older leader writes an order for the component's node, over what it read then and over what
    /// stands now; and the present order with other content.
    StaleOrder,
    /// The write stands; a person pauses the update, and lets it go on after [`PAUSED_SECONDS`].
    Paused,
    /// The write stands; a person cancels the update.
    Cancelled,
    /// The write stands; a person leaves the component's node out of the update.
    LeftOut,
}

/// How long a stopped component is stopped: longer than any lease.
pub const STOPPED_SECONDS: i64 = 40;
/// How long the API is away.
pub const AWAY_SECONDS: i64 = 150;
/// How long a full disk is full.
pub const DISK_FULL_SECONDS: i64 = 90;
/// How late watches tell.
pub const WATCHES_LATE_SECONDS: i64 = 20;
/// How long etcd is without a leader.
pub const ELECTION_SECONDS: i64 = 3;
/// How far a clock jumps: more than a node may soak, less than what is done on a node may take.
pub const CLOCK_AHEAD_SECONDS: i64 = 600;
/// How long a clock is wrong.
pub const CLOCK_WRONG_SECONDS: i64 = 240;
/// How long an agent has a double.
pub const DOUBLED_SECONDS: i64 = 90;
/// How long an update is paused.
pub const PAUSED_SECONDS: i64 = 120;

impl Wrong {
    /// All of it.
    pub const ALL: [Self; 22] = [
        Self::Before,
        Self::After,
        Self::Torn,
        Self::ReplyLost,
        Self::Refused,
        Self::Busy,
        Self::TimedOut,
        Self::Stopped,
        Self::ApiAway,
        Self::WatchesLost,
        Self::PowerCut,
        Self::DiskFull,
        Self::SecondRunner,
        Self::WatchesLate,
        Self::Election,
        Self::ClockJump,
        Self::NodeDeleted,
        Self::Doubled,
        Self::StaleOrder,
        Self::Paused,
        Self::Cancelled,
        Self::LeftOut,
    ];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
            Self::Torn => "torn",
            Self::ReplyLost => "reply-lost",
            Self::Refused => "refused",
            Self::Busy => "busy",
            Self::TimedOut => "timed-out",
            Self::Stopped => "stopped",
            Self::ApiAway => "api-away",
            Self::WatchesLost => "watches-lost",
            Self::PowerCut => "power-cut",
            Self::DiskFull => "disk-full",
            Self::SecondRunner => "second-runner",
            Self::WatchesLate => "watches-late",
            Self::Election => "election",
            Self::ClockJump => "clock-jump",
            Self::NodeDeleted => "node-deleted",
            Self::Doubled => "doubled",
            Self::StaleOrder => "stale-order",
            Self::Paused => "paused",
            Self::Cancelled => "cancelled",
            Self::LeftOut => "left-out",
        }
    }

    /// Whether it is a crash of the component.
    pub const fn is_crash(self) -> bool {
        matches!(self, Self::Before | Self::After | Self::Torn)
    }

    /// Whether such a write can meet it.
    const fn befalls(self, write: WriteTo) -> bool {
        match self {
            Self::Before
            | Self::After
            | Self::Torn
            | Self::Stopped
            | Self::ApiAway
            | Self::WatchesLost
            | Self::WatchesLate
            | Self::ClockJump
            | Self::NodeDeleted
            | Self::Doubled
            | Self::StaleOrder
            | Self::Paused
            | Self::Cancelled
            | Self::LeftOut => true,
            Self::ReplyLost | Self::Refused | Self::Busy | Self::TimedOut | Self::Election => {
                matches!(write, WriteTo::Api)
            }
            Self::PowerCut | Self::DiskFull | Self::SecondRunner => matches!(write, WriteTo::Disk),
        }
    }

    /// Whether an update that meets it may come to rest until a person looks, or fail: what happened is not to be waited out. All
    /// others end as if nothing had been.
    pub const fn may_need_a_person(self) -> bool {
        match self {
            Self::ClockJump | Self::NodeDeleted => true,
            Self::Before
            | Self::After
            | Self::Stopped
            | Self::ApiAway
            | Self::WatchesLost
            | Self::ReplyLost
            | Self::Refused
            | Self::Busy
            | Self::TimedOut
            | Self::Election
            | Self::WatchesLate
            | Self::Paused
            | Self::Cancelled
            | Self::LeftOut
            | Self::Doubled
            | Self::StaleOrder
            | Self::Torn
            | Self::PowerCut
            | Self::DiskFull
            | Self::SecondRunner => false,
        }
    }

    /// Whether that component can meet it. Requests go to the API, a runner's writes to its disk.
    pub const fn fits(self, component: Component) -> bool {
        let is_runner = matches!(component, Component::Runner);
        match self {
            Self::Before | Self::After | Self::Stopped | Self::ApiAway | Self::WatchesLost | Self::ClockJump => true,
            Self::ReplyLost
            | Self::Refused
            | Self::Busy
            | Self::TimedOut
            | Self::Election
            | Self::WatchesLate
            | Self::Paused
            | Self::Cancelled => !is_runner,
            Self::NodeDeleted | Self::LeftOut => !matches!(component, Component::Operator),
            Self::Doubled | Self::StaleOrder => matches!(component, Component::Agent),
            Self::Torn | Self::PowerCut | Self::DiskFull | Self::SecondRunner => is_runner,
        }
    }
}

/// Where a write goes. An agent writes to both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteTo {
    /// A request to the API server.
    Api,
    /// A file.
    Disk,
}

/// One fault: at the `write`-th write of a component, counted from 1 over all its places and lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Whose write.
    pub component: Component,
    /// Which of its writes.
    pub write: u64,
    /// What goes wrong.
    pub wrong: Wrong,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}", self.component, self.write, self.wrong.as_str())
    }
}

/// Why a text names no fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} names no fault; write operator@N, agent@N or runner@N with N >= 1, and what goes wrong: :before, :after (if none is named) or :torn for a crash, or a word of docs/sandbox.md that fits the component"
)]
pub struct InvalidFault(String);

impl FromStr for Fault {
    type Err = InvalidFault;

    fn from_str(text: &str) -> Result<Self, InvalidFault> {
        let invalid = || InvalidFault(text.chars().take(64).collect());
        let (component, rest) = text.split_once('@').ok_or_else(invalid)?;
        let (write, wrong) = rest.split_once(':').unwrap_or((rest, "after"));
        let component = Component::ALL.into_iter().find(|known| known.as_str() == component).ok_or_else(invalid)?;
        let wrong = Wrong::ALL.into_iter().find(|known| known.as_str() == wrong).ok_or_else(invalid)?;
        let write = write.parse().ok().filter(|write| *write > 0).ok_or_else(invalid)?;
        // A torn request is a whole one: kept for scripts that name it.
        let fits = wrong.fits(component) || wrong == Wrong::Torn;
        fits.then_some(Self { component, write, wrong }).ok_or_else(invalid)
    }
}

/// One life of a component: from a start to the crash or the end.
#[derive(Debug, Clone)]
pub struct Life {
    component: Component,
    place: Arc<str>,
    over: CancellationToken,
    /// Guards until when it is stopped.
    stopped_until: Arc<Mutex<Option<Timestamp>>>,
}

impl Life {
    /// A new life of a component at a place (a node's name, or nothing for the operator).
    pub fn new(component: Component, place: &str) -> Self {
        Self { component, place: Arc::from(place), over: CancellationToken::new(), stopped_until: Arc::default() }
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Ends it: whoever lives it does nothing any more from this moment on.
    pub fn end(&self) {
        self.over.cancel();
    }

    /// Stops it, as SIGSTOP does, until then.
    pub fn stop_until(&self, until: Timestamp) {
        *self.stopped_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    /// Until when it is stopped, if it ever was.
    pub fn stopped_until(&self) -> Option<Timestamp> {
        *self.stopped_until.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Carries out what a fault does to more than the one write that it falls on; gets every fault, with the place of its component.
pub type OnWorld = dyn Fn(Wrong, &str) + Send + Sync;

/// Makes a copy of the world where lists of faults part, and says which of the two this is.
pub type Part = dyn Fn() -> Side + Send + Sync;

/// A world that was copied, or its copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Goes on without the lists that its copy took.
    Original,
    /// Goes on with the lists that part here.
    Copy,
}

/// Counts the writes of each component and says which of them meet a fault; clones share the counts.
///
/// Of several lists of faults all are followed as long as the same goes wrong in them. Where they part the world is copied, so
/// that what is common to them happens once.
#[derive(Clone, Default)]
pub struct FaultPlan {
    /// Guards the counts, what happened, and the lists that are followed.
    inner: Arc<Mutex<Counts>>,
    on_world: Arc<OnceLock<Box<OnWorld>>>,
    part: Arc<OnceLock<Box<Part>>>,
}

#[derive(Debug, Default)]
struct Counts {
    writes: BTreeMap<Component, u64>,
    happened: Vec<(Fault, Arc<str>)>,
    /// The lists that agree with everything that went wrong so far; never empty but in a plan without faults.
    followed: Vec<Arc<[Fault]>>,
}

impl fmt::Debug for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultPlan").field("counts", &self.lock()).finish_non_exhaustive()
    }
}

impl FaultPlan {
    /// With those.
    pub fn planned(faults: &[Fault]) -> Self {
        let plan = Self::default();
        plan.lock().followed = vec![faults.into()];
        plan
    }

    /// Follows those lists from now on, in place of its own, and has the world copied where they part. The first call counts.
    pub fn follow(&self, lists: Vec<Arc<[Fault]>>, part: impl Fn() -> Side + Send + Sync + 'static) {
        if self.part.set(Box::new(part)).is_ok() {
            self.lock().followed = lists;
        }
    }

    /// The lists that agree with everything that went wrong so far.
    pub fn followed(&self) -> Vec<Arc<[Fault]>> {
        self.lock().followed.clone()
    }

    /// Who carries out what concerns more than one component. The first call counts.
    pub fn on_world(&self, carry_out: impl Fn(Wrong, &str) + Send + Sync + 'static) {
        let _ = self.on_world.set(Box::new(carry_out));
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a write of a living component and says what goes wrong with it. What goes wrong with the world is carried out.
    /// A fault that such a write cannot meet does not happen.
    pub fn count(&self, life: &Life, to: WriteTo) -> Option<Wrong> {
        let mut counts = self.lock();
        let count = counts.writes.entry(life.component).or_default();
        *count += 1;
        let count = *count;
        let here = |fault: &Fault| fault.component == life.component && fault.write == count && fault.wrong.befalls(to);
        let fault = self.meet(&mut counts.followed, here)?;
        counts.happened.push((fault, Arc::clone(&life.place)));
        drop(counts);
        if let Some(carry_out) = self.on_world.get() {
            carry_out(fault.wrong, &life.place);
        }
        Some(fault.wrong)
    }

    /// What goes wrong here. Lists in which something else does, or nothing, are left to the other side of a copy.
    fn meet(&self, followed: &mut Vec<Arc<[Fault]>>, here: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let of = |list: &Arc<[Fault]>| list.iter().copied().find(|fault| here(fault));
        loop {
            // The lists in which nothing goes wrong here come last: the original of all copies follows them.
            let fault = followed.iter().find_map(of);
            let (same, others): (Vec<_>, Vec<_>) = followed.drain(..).partition(|list| of(list) == fault);
            let side = match self.part.get() {
                Some(part) if !others.is_empty() => part(),
                _ => Side::Copy,
            };
            match side {
                Side::Copy => {
                    *followed = same;
                    return fault;
                }
                Side::Original => *followed = others,
            }
        }
    }

    /// Writes of a component so far.
    pub fn writes(&self, component: Component) -> u64 {
        self.lock().writes.get(&component).copied().unwrap_or_default()
    }

    /// The faults that happened.
    pub fn happened(&self) -> Vec<Fault> {
        self.lock().happened.iter().map(|(fault, _)| *fault).collect()
    }

    /// The faults that happened, and where, for people; `None` as long as none did.
    pub fn told(&self) -> Option<String> {
        let counts = self.lock();
        let told = counts.happened.iter().map(|(fault, place)| match &**place {
            "" => fault.to_string(),
            place => format!("{fault} on {place}"),
        });
        let told: Vec<String> = told.collect();
        (!told.is_empty()).then(|| told.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_written_as_component_at_write_and_what_goes_wrong() {
        let fault = Fault { component: Component::Runner, write: 12, wrong: Wrong::Torn };
        assert_eq!("runner@12:torn".parse(), Ok(fault));
        assert_eq!("operator@3".parse::<Fault>().unwrap().wrong, Wrong::After);
        for component in Component::ALL {
            for wrong in Wrong::ALL.into_iter().filter(|wrong| wrong.fits(component)) {
                let fault = Fault { component, write: 1, wrong };
                assert_eq!(fault.to_string().parse(), Ok(fault));
            }
        }
        for bad in ["operator", "operator@0", "kubelet@1", "agent@x", "agent@1:never", "runner@1:busy"] {
            assert!(bad.parse::<Fault>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_chosen_write_is_counted_over_all_places() {
        let faults = FaultPlan::planned(&["agent@2".parse().unwrap()]);
        let (first, second) = (Life::new(Component::Agent, "w-1"), Life::new(Component::Agent, "w-2"));
        assert_eq!(faults.count(&first, WriteTo::Api), None);
        assert_eq!(faults.count(&second, WriteTo::Api), Some(Wrong::After));
        assert_eq!(faults.count(&second, WriteTo::Api), None);
        assert_eq!(faults.writes(Component::Agent), 3);
        assert_eq!(faults.told().as_deref(), Some("agent@2:after on w-2"));
    }

    #[test]
    fn where_lists_of_faults_part_each_side_follows_its_own() {
        let lists = || -> Vec<Arc<[Fault]>> {
            let list = |faults: &[&str]| faults.iter().map(|fault| fault.parse().unwrap()).collect();
            vec![list(&["agent@1", "agent@2:busy"]), list(&["agent@2"]), list(&["agent@1", "agent@3"]), list(&[])]
        };
        let agent = Life::new(Component::Agent, "w-1");
        let run = |sides: &[Side]| {
            let plan = FaultPlan::default();
            let left = Mutex::new(sides.iter().rev().copied().collect::<Vec<_>>());
            plan.follow(lists(), move || left.lock().unwrap().pop().expect("no more copies than expected"));
            for _ in 0..3 {
                plan.count(&agent, WriteTo::Api);
            }
            (plan.happened(), plan.followed())
        };
        let list = |index: usize| (lists()[index].to_vec(), vec![lists()[index].clone()]);
        assert_eq!(run(&[Side::Copy, Side::Copy]), list(0));
        assert_eq!(run(&[Side::Copy, Side::Original]), list(2));
        assert_eq!(run(&[Side::Original, Side::Copy]), list(1));
        assert_eq!(run(&[Side::Original, Side::Original]), list(3));
    }

    #[test]
    fn a_fault_of_requests_does_not_happen_to_a_file() {
        let faults = FaultPlan::planned(&["agent@1:busy".parse().unwrap()]);
        assert_eq!(faults.count(&Life::new(Component::Agent, "w-1"), WriteTo::Disk), None);
        assert_eq!(faults.happened(), []);
    }
}
