//! Faults on purpose: at which request or write of which component something goes wrong, and what.

pub use super::stream::{Component, Course, Stream};
pub use super::wrong::{
    AWAY_SECONDS, CLOCK_AHEAD_SECONDS, CLOCK_WRONG_SECONDS, COLD_SECONDS, DISK_FULL_SECONDS, DOUBLED_SECONDS,
    ELECTION_SECONDS, EVENTS_LOST_SECONDS, PAUSED_SECONDS, STOPPED_SECONDS, WATCHES_LATE_SECONDS, WriteTo, Wrong,
};
use cupcake_engine::clock::Timestamp;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio_util::sync::CancellationToken;

/// One fault: at the `number`-th of a stream, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Whose request or write.
    pub stream: Stream,
    /// Which of them.
    pub number: u64,
    /// What goes wrong.
    pub wrong: Wrong,
}

impl Fault {
    /// At a component's write of that number.
    pub const fn at_write(component: Component, number: u64, wrong: Wrong) -> Self {
        Self { stream: Stream::writes_of(component), number, wrong }
    }

    /// What sort of fault it is: what goes wrong, and with what unless it is a write of a component.
    pub fn sort(&self) -> String {
        let wrong = self.wrong.as_str();
        if self.stream.is_sampled() { format!("{}:{wrong}", self.stream) } else { wrong.to_owned() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}", self.stream, self.number, self.wrong.as_str())
    }
}

/// Why a text names no fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} names no fault; write operator@N, agent@N, runner@N, lease@N, operator-read@N or agent-read@N with N >= 1, and what goes wrong: :before, :after (if none is named) or :torn for a crash, or a word of docs/sandbox.md that fits what is counted"
)]
pub struct InvalidFault(String);

impl FromStr for Fault {
    type Err = InvalidFault;

    fn from_str(text: &str) -> Result<Self, InvalidFault> {
        let invalid = || InvalidFault(text.chars().take(64).collect());
        let (stream, rest) = text.split_once('@').ok_or_else(invalid)?;
        let (number, wrong) = rest.split_once(':').unwrap_or((rest, "after"));
        let stream = Stream::ALL.into_iter().find(|known| known.as_str() == stream).ok_or_else(invalid)?;
        let wrong = Wrong::ALL.into_iter().find(|known| known.as_str() == wrong).ok_or_else(invalid)?;
        let number = number.parse().ok().filter(|number| *number > 0).ok_or_else(invalid)?;
        // A torn request is a whole one: kept for scripts that name it.
        let fits = wrong.fits(stream) || (wrong == Wrong::Torn && Wrong::After.fits(stream));
        fits.then_some(Self { stream, number, wrong }).ok_or_else(invalid)
    }
}

/// One life of a component: from a start to the crash or the end.
#[derive(Debug, Clone)]
pub struct Life {
    component: Component,
    place: Arc<str>,
    over: CancellationToken,
    asked_to_stop: CancellationToken,
    /// Guards until when it is stopped.
    stopped_until: Arc<Mutex<Option<Timestamp>>>,
}

impl Life {
    /// A new life of a component at a place (a node's name, or nothing for the operator).
    pub fn new(component: Component, place: &str) -> Self {
        Self {
            component,
            place: Arc::from(place),
            over: CancellationToken::new(),
            asked_to_stop: CancellationToken::new(),
            stopped_until: Arc::default(),
        }
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Ends it: whoever lives it does nothing any more from this moment on.
    pub fn end(&self) {
        self.over.cancel();
    }

    /// Asks it to stop, as SIGTERM does.
    pub fn ask_to_stop(&self) {
        self.asked_to_stop.cancel();
    }

    /// What is cancelled when it is asked to stop.
    pub fn asked_to_stop(&self) -> CancellationToken {
        self.asked_to_stop.clone()
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

    /// Whether it is one of that component at that place.
    pub fn is_at(&self, component: Component, place: &str) -> bool {
        self.component == component && &*self.place == place
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

/// Counts what each stream is made of and says what of it meets a fault; clones share the counts.
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
    /// Requests and writes so far.
    by_stream: BTreeMap<Stream, u64>,
    /// The first of them, in their order.
    course: Course,
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

    /// Counts a request or a write of a living component and says what goes wrong with it. What goes wrong with the world is carried
    /// out. A fault that such a write cannot meet does not happen.
    pub fn count(&self, life: &Life, stream: Stream, to: WriteTo) -> Option<Wrong> {
        let mut counts = self.lock();
        let count = counts.by_stream.entry(stream).or_default();
        *count += 1;
        let count = *count;
        counts.course.goes_on(stream);
        let here = |fault: &Fault| fault.stream == stream && fault.number == count && fault.wrong.befalls(to);
        // Most meet none in any list.
        if !counts.followed.iter().any(|list| list.iter().any(here)) {
            return None;
        }
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

    /// The streams of what there was so far, in its order.
    pub fn course(&self) -> Course {
        self.lock().course.clone()
    }

    /// How much of a stream there was so far.
    pub fn counted(&self, stream: Stream) -> u64 {
        self.lock().by_stream.get(&stream).copied().unwrap_or_default()
    }

    /// The faults that happened.
    pub fn happened(&self) -> Vec<Fault> {
        self.lock().happened.iter().map(|(fault, _)| *fault).collect()
    }

    /// The faults that happened, and where: at a node's name, or a replica of the operator.
    pub(crate) fn befell(&self) -> Vec<(Fault, Arc<str>)> {
        self.lock().happened.clone()
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
        let fault = Fault::at_write(Component::Runner, 12, Wrong::Torn);
        assert_eq!("runner@12:torn".parse(), Ok(fault));
        assert_eq!("operator@3".parse::<Fault>().unwrap().wrong, Wrong::After);
        for stream in Stream::ALL {
            for wrong in Wrong::ALL.into_iter().filter(|wrong| wrong.fits(stream)) {
                let fault = Fault { stream, number: 1, wrong };
                assert_eq!(fault.to_string().parse(), Ok(fault));
            }
        }
        for bad in [
            "operator",
            "operator@0",
            "kubelet@1",
            "agent@x",
            "agent@1:never",
            "runner@1:busy",
            "lease@1:torn-off",
            "agent-read@1",
            "operator-read@1:reply-lost",
        ] {
            assert!(bad.parse::<Fault>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_chosen_write_is_counted_over_all_places() {
        let faults = FaultPlan::planned(&["agent@2".parse().unwrap()]);
        let (first, second) = (Life::new(Component::Agent, "w-1"), Life::new(Component::Agent, "w-2"));
        assert_eq!(faults.count(&first, Stream::Agent, WriteTo::Api), None);
        assert_eq!(faults.count(&second, Stream::Agent, WriteTo::Api), Some(Wrong::After));
        assert_eq!(faults.count(&second, Stream::Agent, WriteTo::Api), None);
        assert_eq!(faults.count(&second, Stream::AgentRead, WriteTo::Api), None, "another stream");
        assert_eq!((faults.counted(Stream::Agent), faults.counted(Stream::AgentRead)), (3, 1));
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
                plan.count(&agent, Stream::Agent, WriteTo::Api);
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
        assert_eq!(faults.count(&Life::new(Component::Agent, "w-1"), Stream::Agent, WriteTo::Disk), None);
        assert_eq!(faults.happened(), []);
    }
}
