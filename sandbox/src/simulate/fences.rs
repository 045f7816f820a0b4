//! What each fence is for: a schedule that does harm without it, and none with it.
//!
//! Most harm is kept out by more than one fence, so a fence is rarely missed when it alone is left out. What is looked for is a
//! set of fences and a schedule that violates an invariant without the whole set, and not as soon as the one fence is there.

use super::{Schedule, Settings, UPGRADE, begin, singles, upgrade};
use crate::machine::fault::{Fault, Stream, Wrong};
use crate::world::{self, Fence, Speed, Violation, WorldError, Writes};
use chrono::TimeDelta;
use std::collections::BTreeSet;

/// How many writes after its doubling an agent is stopped, and after a cancel a leader, at most.
const STOPPED_AFTER_MAX: u64 = 5;
/// How long a world is looked at, in virtual time: an undisturbed one takes 13 minutes. What is not over then did no harm yet.
const LOOKED_AT_FOR: TimeDelta = TimeDelta::hours(2);
/// How often a world is looked at for harm, in virtual time.
const LOOKED_AT_EVERY: TimeDelta = TimeDelta::seconds(1);

/// Why a fence is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The fence.
    pub fence: Fence,
    /// What else has to be left out before it is missed; empty for a fence that stands alone.
    pub beside: BTreeSet<Fence>,
    /// What happens.
    pub schedule: Schedule,
    /// What is violated when the fence is left out too.
    pub invariant: &'static str,
}

impl Need {
    /// All fences that are left out.
    pub fn without(&self) -> BTreeSet<Fence> {
        let mut without = self.beside.clone();
        without.insert(self.fence);
        without
    }
}

/// Schedules that may show what a fence is for, in an order drawn by the seed: first what makes two believe that something is
/// theirs to write, alone and in the pairs that take an agent and its double, then every other single fault, then the pairs in
/// which a leader is stopped and a Node is deleted or left out meanwhile: with each visit longer than a stop, nothing else ends one in
/// time for a late write to meet what comes after it; and those in which a leader is stopped right after the update was cancelled.
pub fn candidates(seed: u64, writes: Writes) -> Vec<Schedule> {
    let two = |fault: &Fault| {
        matches!(
            fault.wrong,
            Wrong::Stopped | Wrong::Doubled | Wrong::StaleOrder | Wrong::SecondRunner | Wrong::Edited | Wrong::Election
        )
    };
    let (likely, rest): (Vec<Fault>, Vec<Fault>) = singles(writes).into_iter().partition(two);
    let names = (1..=writes.of(Stream::Operator)).map(|number| Fault {
        stream: Stream::Operator,
        number,
        wrong: Wrong::NameTaken,
    });
    let doubles = likely.iter().filter(|fault| fault.wrong == Wrong::Doubled);
    let pairs = doubles.flat_map(|double| {
        let stopped = |later| Fault { number: double.number + later, wrong: Wrong::Stopped, ..*double };
        (1..=STOPPED_AFTER_MAX).map(move |later| vec![*double, stopped(later)])
    });
    let is = |stream, wrong| move |fault: &&Fault| fault.stream == stream && fault.wrong == wrong;
    let stops = likely.iter().filter(is(Stream::Operator, Wrong::Stopped));
    let successors = stops.flat_map(|stop| {
        let deletions = rest.iter().filter(is(Stream::Runner, Wrong::NodeDeleted));
        let leavings = rest.iter().filter(is(Stream::Agent, Wrong::LeftOut));
        deletions.chain(leavings).map(|ending| vec![*stop, *ending])
    });
    let cancels = rest.iter().filter(is(Stream::Operator, Wrong::Cancelled));
    let cancelled = cancels.flat_map(|cancel| {
        let stopped = |later| Fault { number: cancel.number + later, wrong: Wrong::Stopped, ..*cancel };
        (1..=STOPPED_AFTER_MAX).map(move |later| vec![*cancel, stopped(later)])
    });
    let mut orders: [Vec<Vec<Fault>>; 3] = [
        likely.iter().copied().chain(names).map(|fault| vec![fault]).chain(pairs).collect(),
        rest.iter().map(|fault| vec![*fault]).collect(),
        successors.chain(cancelled).collect(),
    ];
    let mut rng = fastrand::Rng::with_seed(seed);
    for order in &mut orders {
        rng.shuffle(order);
    }
    orders.into_iter().flatten().map(|faults| Schedule { seed, faults }).collect()
}

/// What a schedule violates first when those fences are left out; the run ends there.
///
/// # Errors
/// As [`run`](super::run).
pub fn harm(
    settings: &Settings,
    schedule: &Schedule,
    without: &BTreeSet<Fence>,
) -> Result<Option<&'static str>, WorldError> {
    let found = look(settings, schedule, without, |found| !found.is_empty())?;
    Ok(found.first().map(|violation| violation.invariant))
}

/// All that a schedule violates when those fences are left out, to the end of its run.
///
/// # Errors
/// As [`run`](super::run).
pub fn harms(
    settings: &Settings,
    schedule: &Schedule,
    without: &BTreeSet<Fence>,
) -> Result<BTreeSet<&'static str>, WorldError> {
    let found = look(settings, schedule, without, |_found| false)?;
    Ok(found.iter().map(|violation| violation.invariant).collect())
}

/// What was violated when that was enough, or the run was over, or had been looked at for as long as it is.
fn look(
    settings: &Settings,
    schedule: &Schedule,
    without: &BTreeSet<Fence>,
    enough: impl Fn(&[Violation]) -> bool,
) -> Result<Vec<Violation>, WorldError> {
    let settings = Settings { without: without.clone(), ..settings.clone() };
    world::runtime(Speed::Fastest)?.block_on(async {
        let world = begin(&settings, schedule, false)?;
        let clock = world.clock();
        let violated = async {
            while !enough(&world.violations()) {
                clock.sleep_until(world.now() + LOOKED_AT_EVERY).await;
            }
        };
        tokio::select! {
            outcome = upgrade(&world, &settings) => drop(outcome?),
            () = violated => {}
            () = clock.sleep_until(settings.start + LOOKED_AT_FOR) => world.judge(UPGRADE),
        }
        Ok(world.violations())
    })
}

/// Which fences a schedule needs, and beside which others that are left out: one smallest set that does harm, in which every
/// fence keeps it out. `wanted` are tried to be part of it.
///
/// Bounded: at most four runs for each fence there is, and one.
///
/// # Errors
/// As [`run`](super::run).
pub fn needs(settings: &Settings, schedule: &Schedule, wanted: &[Fence]) -> Result<Vec<Need>, WorldError> {
    let all: BTreeSet<Fence> = Fence::ALL.into_iter().collect();
    let Some(invariant) = harm(settings, schedule, &all)? else { return Ok(Vec::new()) };
    // The wanted ones are put up last.
    let (last, first): (Vec<Fence>, Vec<Fence>) = Fence::ALL.into_iter().partition(|fence| wanted.contains(fence));
    let found = smallest(settings, schedule, invariant, first.iter().chain(&last))?;
    if found.iter().any(|need| wanted.contains(&need.fence)) {
        return Ok(found);
    }
    // The harm of one hides that of another: which is left depends on the order.
    let other_way = smallest(settings, schedule, invariant, first.iter().rev().chain(&last))?;
    Ok(found.into_iter().chain(other_way).collect())
}

/// Puts up one fence after the other, in that order, as long as the harm is still done; then each that was left out has to be
/// needed.
fn smallest<'f>(
    settings: &Settings,
    schedule: &Schedule,
    mut invariant: &'static str,
    order: impl Iterator<Item = &'f Fence>,
) -> Result<Vec<Need>, WorldError> {
    let mut off: BTreeSet<Fence> = Fence::ALL.into_iter().collect();
    for fence in order {
        let mut fewer = off.clone();
        fewer.remove(fence);
        if let Some(still) = harm(settings, schedule, &fewer)? {
            (off, invariant) = (fewer, still);
        }
    }
    let mut found = Vec::new();
    for fence in &off {
        let mut beside = off.clone();
        beside.remove(fence);
        if harm(settings, schedule, &beside)?.is_none() {
            found.push(Need { fence: *fence, beside, schedule: schedule.clone(), invariant });
        }
    }
    Ok(found)
}
