//! Schedules of one seed as a tree: what they have in common happens once.
//!
//! ```text
//!   trunk ──────┬───────────────┬────────────► (no list is left: ends)
//!               │ operator@12:after    │ agent@30:busy
//!               └────┬──────►          └──────► verdict
//!                    │ runner@9:torn
//!                    └──────► verdict
//! ```
//! Two runs of a seed are the same, to the byte, up to the first write that meets a fault in only one of them. There the whole
//! process is copied (fork(2)); the copy goes on with the fault to its end while its original waits, so that a tree keeps one
//! core busy. Each verdict is the one that the schedule gives by itself (`--twice` looks).

use super::{DRAWN_FAULTS, Schedule, Settings, Verdict, begin, upgrade, verdict};
use crate::machine::fault::{Course, Fault, Side};
use crate::world::{self, Speed, WorldError};
use std::collections::BTreeSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Draws for each schedule of a family until it is given up that there are as many different ones.
const DRAWS_MAX: usize = 8;
/// Draws for a fault until it is one that can come to pass at its moment: near the end most streams have ended.
const FITTING_DRAWS_MAX: usize = 16;

/// Why a tree of schedules did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum BranchError {
    /// A thread would be missing in the copy.
    #[error("only a process of one thread can be copied, and this one has {0}")]
    Threads(usize),
    /// The system makes no copy, or does not say what became of it.
    #[error("the process cannot be copied")]
    Copy(#[source] io::Error),
    /// A copy ended in an error, which it told itself.
    #[error("a copy of the process ended with wait status {0}; its last words stand above")]
    Died(i32),
}

/// A copy of this process that is at work.
#[derive(Debug)]
pub struct Copied(i32);

impl Copied {
    /// Waits until it has ended.
    ///
    /// # Errors
    /// When it did not end well.
    pub fn wait(self) -> Result<(), BranchError> {
        match fork::waitpid(self.0).map_err(BranchError::Copy)? {
            0 => Ok(()),
            status => Err(BranchError::Died(status)),
        }
    }
}

/// Does some work in a copy of this process, which ends with it: well where it gives `true`.
///
/// # Errors
/// When there is more than one thread, or no copy can be made.
pub fn in_a_copy(work: impl FnOnce() -> bool) -> Result<Copied, BranchError> {
    let threads = threads();
    if threads > 1 {
        return Err(BranchError::Threads(threads));
    }
    match fork::fork().map_err(BranchError::Copy)? {
        fork::Fork::Parent(copy) => Ok(Copied(copy)),
        fork::Fork::Child => {
            // Nothing may unwind into what the original was doing.
            let well = catch_unwind(AssertUnwindSafe(work)).unwrap_or(false);
            end(well)
        }
    }
}

/// Threads of this process; one where the system does not say.
#[expect(clippy::disallowed_methods, reason = "the kernel's own list, read once before a copy")]
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

/// Runs the schedules of a seed, each list of faults being one, and tells each verdict, in the copy that came to it. Comes back
/// when all have ended.
///
/// # Errors
/// When copies cannot be made, or one did not end well.
pub fn run(
    settings: &Settings,
    seed: u64,
    lists: Vec<Vec<Fault>>,
    tell: impl FnMut(&Schedule, &Verdict) -> bool,
) -> Result<(), BranchError> {
    in_a_copy(move || grow(settings, seed, lists, tell))?.wait()
}

fn grow(
    settings: &Settings,
    seed: u64,
    lists: Vec<Vec<Fault>>,
    mut tell: impl FnMut(&Schedule, &Verdict) -> bool,
) -> bool {
    let grown: Result<bool, WorldError> = world::runtime(Speed::Fastest).and_then(|runtime| {
        runtime.block_on(async {
            let world = begin(settings, &Schedule { seed, faults: Vec::new() }, false)?;
            world.faults().follow(lists.into_iter().map(Arc::from).collect(), part);
            let outcome = upgrade(&world, settings).await?;
            let verdict = verdict(&world, outcome);
            let mut followed = world.faults().followed().into_iter();
            let told = followed.all(|faults| tell(&Schedule { seed, faults: faults.to_vec() }, &verdict));
            // Nobody needs the world taken apart.
            end(told)
        })
    });
    grown.unwrap_or_else(|error| {
        tracing::error!(seed, error = &error as &dyn std::error::Error, "a schedule could not be run");
        false
    })
}

/// Copies this process; the original comes back when the copy has ended, and ends itself where the copy did not end well.
fn part() -> Side {
    match fork::fork() {
        Ok(fork::Fork::Child) => Side::Copy,
        Ok(fork::Fork::Parent(copy)) => match Copied(copy).wait() {
            Ok(()) => Side::Original,
            Err(error) => give_up(&error),
        },
        Err(error) => give_up(&BranchError::Copy(error)),
    }
}

fn give_up(error: &BranchError) -> ! {
    tracing::error!(error = error as &dyn std::error::Error, "a tree of schedules is given up");
    end(false)
}

/// Ends this copy. It stands in the middle of what its original was doing: there is no `main` of its own to return from.
#[expect(clippy::disallowed_methods, reason = "the destructors are those of the original")]
fn end(well: bool) -> ! {
    std::process::exit(i32::from(!well))
}

/// Draws `count` different lists of faults for a seed, fewer where there are not as many: all of one length, `faults` or as many as
/// [`DRAWN_FAULTS`] allows. Each is drawn as if by itself, as far as its moments go, but shares its first faults with some of the others.
pub fn family(seed: u64, course: &Course, faults: Option<usize>, count: usize) -> Vec<Vec<Fault>> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let faults = faults.unwrap_or_else(|| rng.usize(DRAWN_FAULTS)).max(1);
    let mut lists = BTreeSet::new();
    for _ in 0..DRAWS_MAX {
        let mut fork = Vec::new();
        draw(&mut rng, course, &shape(faults, count), &mut fork, 0, &mut lists);
        if lists.len() >= count {
            break;
        }
    }
    lists.into_iter().take(count).collect()
}

/// How many ways there are to go on after each fault of a list. The last fault has most, and those just before it some: what comes
/// after them is shortest.
fn shape(faults: usize, count: usize) -> Vec<usize> {
    let mut left = count;
    let mut shape: Vec<usize> = (1..faults)
        .map(|this| {
            let ways = match faults - this {
                1 if left >= 4 => 3,
                2 if left >= 4 => 2,
                _ => 1,
            };
            left = left.div_ceil(ways);
            ways
        })
        .collect();
    shape.push(left);
    shape
}

/// Goes on from the faults before, which end at that moment, in as many ways as the shape says.
fn draw(
    rng: &mut fastrand::Rng,
    course: &Course,
    shape: &[usize],
    before: &mut Vec<Fault>,
    after: usize,
    lists: &mut BTreeSet<Vec<Fault>>,
) {
    let Some((ways, later)) = shape.split_first() else {
        let mut faults = before.clone();
        faults.sort_unstable();
        faults.dedup_by_key(|fault| (fault.stream, fault.number));
        lists.insert(faults);
        return;
    };
    for _ in 0..*ways {
        // The first of as many moments as there are faults to come.
        let moments = (0..shape.len()).map(|_| rng.usize(after..course.len().max(after + 1)));
        let moment = moments.min().unwrap_or(after);
        let fitting = (0..FITTING_DRAWS_MAX).find_map(|_| {
            let (stream, wrong) = super::draw(rng)?;
            Some(Fault { stream, number: course.next_of(stream, moment)?, wrong })
        });
        let Some(fault) = fitting else { continue };
        before.push(fault);
        draw(rng, course, later, before, moment, lists);
        before.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::fault::Stream;
    use std::collections::BTreeMap;

    #[test]
    fn a_process_with_threads_is_not_copied() {
        // The test itself runs beside the thread that waits for it.
        let refused = in_a_copy(|| true);
        assert!(matches!(refused, Err(BranchError::Threads(2..))), "{refused:?}");
    }

    #[test]
    fn a_family_has_as_many_different_lists_as_asked_for_which_share_their_beginnings() {
        // Much of some streams and little of others, and some that begin late and end early, as in a real run.
        let course: Course = (0..1_600)
            .map(|moment: usize| match moment {
                0..100 => Stream::AgentRead,
                _ if moment.is_multiple_of(8) => Stream::Operator,
                400..1_200 if moment.is_multiple_of(5) => Stream::Runner,
                _ if moment.is_multiple_of(17) => Stream::Agent,
                _ if moment.is_multiple_of(4) => Stream::Lease,
                _ => Stream::OperatorRead,
            })
            .collect();
        let of = |stream| (0..course.len()).rev().find_map(|moment| course.next_of(stream, moment)).unwrap();
        let all = Stream::ALL.map(|stream| (stream, of(stream))).into_iter().collect::<BTreeMap<_, _>>();
        for seed in 0..200 {
            let lists = family(seed, &course, None, 48);
            assert_eq!(lists, family(seed, &course, None, 48));
            assert_eq!(lists.iter().collect::<BTreeSet<_>>().len(), 48, "seed {seed}");
            for fault in lists.iter().flatten() {
                assert!(fault.wrong.fits(fault.stream) && (1..=all[&fault.stream]).contains(&fault.number));
            }
            let faults: BTreeSet<&Fault> = lists.iter().flatten().collect();
            let planned: usize = lists.iter().map(Vec::len).sum();
            assert!(planned == 48 || faults.len() * 4 < planned * 3, "seed {seed}: {} of {planned}", faults.len());
        }
        let one_each: Course = Stream::ALL.into_iter().collect();
        assert_eq!(family(1, &one_each, Some(1), 2_000).len(), 18 + 24 + 13 + 10 + 6 + 6);
    }
}
