//! Deterministic simulation: one upgrade a schedule of faults, and what must hold whatever happens.
//!
//! ```text
//!  Settings ──► an undisturbed run ──► how many writes each component has
//!                                             │
//!  single | random, by seed ──► Schedule ──► World (two operators) ──► Verdict ──► shrunk to its shortest list of faults
//! ```
//! A schedule is a seed and a list of faults; it always gives the same run. A violation is told with the schedule that shows it.

pub mod branches;
pub mod controls;
pub mod fences;

use crate::machine::fault::{Course, Fault, Stream, Wrong};
use crate::world::{self, Fence, Outcome, Speed, Upgrade, Violation, World, WorldConfig, WorldError, Writes};
use chrono::TimeDelta;
use cupcake_crds::values::{Concurrency, KubeVersion};
use cupcake_engine::clock::Timestamp;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;

/// Faults of a random schedule. One alone is what every single fault is about, two together are pairs.
const DRAWN_FAULTS: RangeInclusive<usize> = 3..=6;
/// At how many places of a stream that is sampled each single fault is tried: all of them would be ten times the rest.
const SAMPLES_MAX: u64 = 24;
/// Of how many faults every smaller list is tried for the shortest one; longer lists lose one fault at a time first.
const SUBSETS_OF_MAX: usize = 8;
/// How long an update is watched after its end, in virtual seconds: for what somebody wakes up to do, and for longer than a person's
/// pause lasts.
const AFTERMATH_SECONDS: i64 = 150;

/// The upgrade that is simulated.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Control-plane nodes.
    pub control_planes: u32,
    /// Workers.
    pub workers: u32,
    /// From that version.
    pub from: KubeVersion,
    /// To that one.
    pub to: KubeVersion,
    /// Where virtual time starts.
    pub start: Timestamp,
    /// Replicas of the operator.
    pub operators: u32,
    /// How many workers may be in flight at once.
    pub concurrency: u32,
    /// Fences that are left out.
    pub without: BTreeSet<Fence>,
}

/// One run: what fixes its draws, and what goes wrong in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Fixes every draw of the world.
    pub seed: u64,
    /// What goes wrong.
    pub faults: Vec<Fault>,
}

impl fmt::Display for Schedule {
    /// As it can be typed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--seed {}", self.seed)?;
        if self.faults.is_empty() {
            // Without a word on faults a seed draws some.
            f.write_str(" --calm")?;
        }
        self.faults.iter().try_for_each(|fault| write!(f, " --fault {fault}"))
    }
}

/// What a schedule came to.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// What remains.
    pub outcome: Outcome,
    /// The faults that came to pass: a run that ends early meets fewer than were planned.
    pub happened: Vec<Fault>,
    /// What must never be, and was.
    pub violations: Vec<Violation>,
    /// What was asked and written, in its order.
    pub course: Course,
}

/// Runs one schedule.
///
/// # Errors
/// When there can be no such cluster.
pub fn run(settings: &Settings, schedule: &Schedule) -> Result<Verdict, WorldError> {
    world::runtime(Speed::Fastest)?.block_on(async {
        let world = begin(settings, schedule, false)?;
        let outcome = upgrade(&world, settings).await?;
        Ok(verdict(&world, outcome))
    })
}

/// Runs one schedule and gives every request and effect of it, in order.
///
/// # Errors
/// As [`run`].
pub fn transcript(settings: &Settings, schedule: &Schedule) -> Result<(Verdict, Vec<String>), WorldError> {
    world::runtime(Speed::Fastest)?.block_on(async {
        let world = begin(settings, schedule, true)?;
        let outcome = upgrade(&world, settings).await?;
        let verdict = verdict(&world, outcome);
        Ok((verdict, world.transcript().lines()))
    })
}

fn verdict(world: &World, outcome: Outcome) -> Verdict {
    let faults = world.faults_happened();
    Verdict { outcome, happened: faults, violations: world.violations(), course: world.faults().course() }
}

fn begin(settings: &Settings, schedule: &Schedule, keep_lines: bool) -> Result<World, WorldError> {
    let config = WorldConfig {
        control_planes: settings.control_planes,
        workers: settings.workers,
        seed: schedule.seed,
        operators: settings.operators,
        faults: schedule.faults.clone(),
        without: settings.without.clone(),
        judged: true,
        keep_lines,
        ..WorldConfig::new(settings.from, settings.start)
    };
    let world = World::new(config)?;
    world.start();
    Ok(world)
}

/// The DirectUpdate of every schedule.
const UPGRADE: &str = "upgrade";

async fn upgrade(world: &World, settings: &Settings) -> Result<Outcome, WorldError> {
    let upgrade =
        Upgrade { name: UPGRADE.to_owned(), to: settings.to, concurrency: Concurrency::Nodes(settings.concurrency) };
    let outcome = world.upgrade(&upgrade).await?;
    let clock = world.clock();
    clock.sleep_until(world.now() + TimeDelta::seconds(AFTERMATH_SECONDS)).await;
    world.judge(&upgrade.name);
    Ok(outcome)
}

/// Every fault that a run with so many writes can meet, in order; of streams that are sampled, at [`SAMPLES_MAX`] places spread
/// evenly over each. A leader that is stopped for longer than its lease is stopped at every request about the Lease, too.
pub fn singles(writes: Writes) -> Vec<Fault> {
    let of = |stream: Stream| {
        let count = writes.of(stream);
        let wrongs = Wrong::ALL.into_iter().filter(move |wrong| wrong.is_drawn() && wrong.fits(stream));
        wrongs.flat_map(move |wrong| {
            let everywhere = !stream.is_sampled() || (stream, wrong) == (Stream::Lease, Wrong::Stopped);
            let places = if everywhere { count } else { count.min(SAMPLES_MAX) };
            (0..places).map(move |place| Fault { stream, number: place * count / places + 1, wrong })
        })
    };
    Stream::ALL.into_iter().flat_map(of).collect()
}

/// What goes wrong at one place of one stream, drawn; `None` where nothing can.
fn draw(rng: &mut fastrand::Rng) -> Option<(Stream, Wrong)> {
    let stream = rng.choice(Stream::ALL)?;
    let fits = |wrong: &Wrong| wrong.is_drawn() && wrong.fits(stream);
    let wrong = rng.choice(Wrong::ALL.into_iter().filter(fits).collect::<Vec<_>>())?;
    Some((stream, wrong))
}

/// The schedule of that seed: `count` faults, or as many as [`DRAWN_FAULTS`] allows where none is asked for.
pub fn random(seed: u64, writes: Writes, count: Option<usize>) -> Schedule {
    let mut rng = fastrand::Rng::with_seed(seed);
    let count = count.unwrap_or_else(|| rng.usize(DRAWN_FAULTS));
    let mut faults: Vec<Fault> = (0..count)
        .filter_map(|_| {
            let (stream, wrong) = draw(&mut rng)?;
            Some(Fault { stream, number: rng.u64(1..=writes.of(stream).max(1)), wrong })
        })
        .collect();
    faults.sort_unstable();
    faults.dedup_by_key(|fault| (fault.stream, fault.number));
    Schedule { seed, faults }
}

/// The shortest list of faults of that schedule with which the same invariant is still violated.
///
/// # Errors
/// As [`run`].
pub fn shrink(settings: &Settings, schedule: &Schedule, invariant: &str) -> Result<Schedule, WorldError> {
    let faults = shortest(&schedule.faults, |faults| {
        let verdict = run(settings, &Schedule { faults: faults.to_vec(), ..*schedule })?;
        Ok::<_, WorldError>(verdict.violations.iter().any(|violation| violation.invariant == invariant))
    })?;
    Ok(Schedule { faults, ..*schedule })
}

/// The shortest part of a list, in its order, that still shows something which the whole list shows. Of more than
/// [`SUBSETS_OF_MAX`] items one that shows nothing any more without any of its items.
fn shortest<T: Copy, E>(whole: &[T], mut shows: impl FnMut(&[T]) -> Result<bool, E>) -> Result<Vec<T>, E> {
    let mut list = whole.to_vec();
    let mut index = 0;
    while list.len() > SUBSETS_OF_MAX && index < list.len() {
        let mut shorter = list.clone();
        shorter.remove(index);
        // What was needed beside an item may not be needed without it.
        index = if shows(&shorter)? { 0 } else { index + 1 };
        if index == 0 {
            list = shorter;
        }
    }
    if list.len() > SUBSETS_OF_MAX {
        return Ok(list);
    }
    let mut parts: Vec<u32> = (0..1 << list.len()).collect();
    parts.sort_by_key(|part| part.count_ones());
    for part in parts {
        let kept: Vec<T> =
            (0u32..).zip(&list).filter(|(bit, _)| part & (1 << bit) != 0).map(|(_, item)| *item).collect();
        // The whole list is known to show it.
        if kept.len() == list.len() || shows(&kept)? {
            return Ok(kept);
        }
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::fault::Component;

    fn settings() -> Settings {
        Settings {
            control_planes: 1,
            workers: 1,
            from: KubeVersion::new(1, 33, 4),
            to: KubeVersion::new(1, 34, 4),
            start: Timestamp::from_timestamp(1_790_000_000, 0).unwrap(),
            operators: 2,
            concurrency: 1,
            without: BTreeSet::new(),
        }
    }

    /// What the command takes where nothing else is asked for: a schedule is the same there, by its seed.
    fn by_default() -> Settings {
        let start = Timestamp::from_timestamp(1_767_225_600, 0).unwrap();
        Settings { control_planes: 3, workers: 2, start, ..settings() }
    }

    #[test]
    fn a_schedule_gives_the_same_run_twice_and_another_one_another() {
        let schedule = |faults: &[&str]| {
            let faults = faults.iter().map(|fault| fault.parse().unwrap()).collect();
            run(&settings(), &Schedule { seed: 3, faults }).unwrap()
        };
        let stopped = ["operator@9:stopped", "runner@4:power-cut"];
        let (first, second, calm) = (schedule(&stopped), schedule(&stopped), schedule(&[]));
        assert_eq!(first.happened.len(), 2);
        assert_eq!(first.outcome.transcript_sha256, second.outcome.transcript_sha256);
        assert_ne!(first.outcome.transcript_sha256, calm.outcome.transcript_sha256);
        assert!(calm.violations.is_empty() && first.violations.is_empty(), "{:?}", first.violations);
        assert!(calm.outcome.succeeded() && first.outcome.succeeded(), "{}", first.outcome.message);
    }

    #[test]
    fn the_shortest_list_that_still_shows_a_violation_is_found_whatever_its_order_and_length() {
        let shown_by = |needed: &'static [u32]| {
            move |list: &[u32]| Ok::<_, std::convert::Infallible>(needed.iter().all(|fault| list.contains(fault)))
        };
        // 1 alone shows it, and so do 2 and 3 together: whoever leaves out one after the other, beginning with 1, keeps two.
        let alone_or_together = |list: &[u32]| {
            Ok::<_, std::convert::Infallible>(list.contains(&1) || list.contains(&2) && list.contains(&3))
        };
        assert_eq!(shortest(&[1, 2, 3, 4], alone_or_together), Ok(vec![1]));
        assert_eq!(shortest(&[4, 3, 2, 1], alone_or_together), Ok(vec![1]));
        assert_eq!(shortest(&[1, 2], shown_by(&[])), Ok(vec![]), "no fault is needed at all");
        let many: Vec<u32> = (0..40).collect();
        assert_eq!(shortest(&many, shown_by(&[5, 17, 39])), Ok(vec![5, 17, 39]));
        let more: Vec<u32> = (0..12).collect();
        assert_eq!(shortest(&many, |list: &[u32]| shown_by(&[])(list)), Ok(vec![]));
        let all = |list: &[u32]| Ok::<_, std::convert::Infallible>(list.len() == more.len());
        assert_eq!(shortest(&more, all), Ok(more.clone()), "each is needed");
    }

    #[test]
    fn a_schedule_of_no_fault_is_typed_so_that_none_is_drawn() {
        assert_eq!(Schedule { seed: 7, faults: Vec::new() }.to_string(), "--seed 7 --calm");
        let faults = vec!["operator@9:stopped".parse().unwrap()];
        assert_eq!(Schedule { seed: 7, faults }.to_string(), "--seed 7 --fault operator@9:stopped");
    }

    #[test]
    fn an_update_that_waits_for_a_person_and_says_so_violates_nothing() {
        // Its only control-plane node is deleted before it begins: it is refused.
        let faults = vec!["agent@1:node-deleted".parse().unwrap()];
        let verdict = run(&Settings { workers: 2, ..settings() }, &Schedule { seed: 1, faults }).unwrap();
        assert_eq!((verdict.outcome.phase.as_str(), verdict.violations), ("Pending", Vec::new()));
    }

    #[test]
    fn an_update_that_is_refused_for_one_reason_after_the_other_is_watched_until_it_begins() {
        // A member of etcd is away when machines are asked; five minutes later a clock is ahead; five minutes later nothing is.
        let settings = by_default();
        let faults = ["runner@1:power-cut", "runner@6:clock-jump"].map(|fault| fault.parse().unwrap()).to_vec();
        let verdict = run(&settings, &Schedule { seed: 29, faults }).unwrap();
        assert_eq!((verdict.happened.len(), verdict.violations), (2, Vec::new()));
        assert!(verdict.outcome.succeeded(), "{}", verdict.outcome.message);
    }

    #[test]
    fn an_update_that_rested_and_was_paused_and_let_go_on_says_for_what_it_rests() {
        let settings = by_default();
        let faults = ["runner@88:clock-jump", "operator@131:paused"].map(|fault| fault.parse().unwrap()).to_vec();
        let verdict = run(&settings, &Schedule { seed: 59, faults }).unwrap();
        assert_eq!((verdict.happened.len(), verdict.violations), (2, Vec::new()));
        assert_eq!(verdict.outcome.phase, "RequiresAttention");
    }

    #[test]
    fn what_was_recorded_as_failed_is_not_recorded_as_done() {
        // kubeadm comes to its end on a full disk, its runner dies before that is recorded, and the next one runs it again.
        let settings = by_default();
        let faults = ["runner@19:disk-full", "runner@20:before"].map(|fault| fault.parse().unwrap()).to_vec();
        let verdict = run(&settings, &Schedule { seed: 111, faults }).unwrap();
        assert_eq!((verdict.happened.len(), verdict.violations), (2, Vec::new()));
        assert_eq!(verdict.outcome.reruns_after_interruption, 1);
    }

    #[test]
    fn a_disk_that_is_full_twice_in_one_order_leaves_the_order_time_for_its_work() {
        // 180 of 300 s without room: what the runner waits on top of that, when there is room again, must be little.
        let settings = by_default();
        let faults = ["runner@52:disk-full", "runner@62:disk-full"].map(|fault| fault.parse().unwrap()).to_vec();
        let verdict = run(&settings, &Schedule { seed: 80_168, faults }).unwrap();
        assert_eq!((verdict.happened.len(), verdict.violations), (2, Vec::new()));
        assert!(verdict.outcome.succeeded(), "{}", verdict.outcome.message);
    }

    #[test]
    fn a_cordon_that_a_stopped_leader_had_on_its_way_is_lifted_where_its_run_was_cancelled_meanwhile() {
        let settings = by_default();
        let faults = ["operator@84:cancelled", "operator@86:stopped"].map(|fault| fault.parse().unwrap()).to_vec();
        let verdict = run(&settings, &Schedule { seed: 90_013, faults }).unwrap();
        assert_eq!((verdict.happened.len(), verdict.violations), (2, Vec::new()));
        assert_eq!(verdict.outcome.phase.as_str(), "Cancelled");
    }

    #[test]
    fn a_leader_that_was_stopped_between_two_evictions_evicts_nobody_more_when_it_wakes_up() {
        let settings = by_default();
        // Cancelled when the drain of w-1 has begun; its leader is stopped with the first eviction on its way.
        let faults = ["operator@85:cancelled", "operator@86:stopped"].map(|fault| fault.parse().unwrap()).to_vec();
        let (verdict, lines) = transcript(&settings, &Schedule { seed: 90_013, faults }).unwrap();
        assert_eq!((verdict.happened.len(), verdict.violations), (2, Vec::new()));
        let evicted = lines.iter().filter(|line| line.contains(" operator.") && line.contains("/pods/shop-"));
        let evicted: Vec<_> = evicted.filter(|line| line.contains("/eviction")).collect();
        assert_eq!(evicted.len(), 1, "what was on its way lands, no more: {evicted:#?}");
    }

    #[test]
    fn a_cancel_reaches_the_machine_at_once_and_it_begins_nothing_after_what_it_is_at() {
        let settings = by_default();
        // cp-1 has its order and pulls images; left to itself it would run kubeadm half a minute later.
        let faults = vec!["operator@26:cancelled".parse().unwrap()];
        let verdict = run(&settings, &Schedule { seed: 2, faults }).unwrap();
        assert_eq!((verdict.happened.len(), verdict.violations), (1, Vec::new()));
        assert_eq!(verdict.outcome.phase, "Cancelled");
        assert!(verdict.outcome.virtual_seconds < 15.0, "{} s", verdict.outcome.virtual_seconds);
        assert!(verdict.outcome.nodes.iter().all(|node| node.version == "1.33.4" && node.schedulable));
        assert_eq!(verdict.outcome.kubeadm_copies.len(), 3, "none but those of long ago");
    }

    #[test]
    fn what_the_watches_lost_for_good_is_found_out() {
        let settings = by_default();
        // That there is a run, that a machine may proceed, and that there is an order.
        for fault in ["operator@14:events-lost", "operator@44:events-lost", "operator@50:events-lost"] {
            let schedule = Schedule { seed: 1, faults: vec![fault.parse().unwrap()] };
            let verdict = run(&settings, &schedule).unwrap();
            assert_eq!((verdict.happened.len(), verdict.violations), (1, Vec::new()), "{fault}");
            assert!(verdict.outcome.succeeded(), "{fault}: {}", verdict.outcome.message);
        }
    }

    #[test]
    fn a_read_that_fails_while_an_update_begins_is_no_verdict_on_the_update() {
        let wrongs = [Wrong::Busy, Wrong::TimedOut, Wrong::Refused].into_iter().cycle();
        for (number, wrong) in (10..=60).zip(wrongs) {
            let faults = vec![Fault { stream: Stream::OperatorRead, number, wrong }];
            let schedule = Schedule { seed: 1, faults };
            let verdict = run(&settings(), &schedule).unwrap();
            assert_eq!(verdict.violations, Vec::new(), "{schedule}");
            assert!(verdict.outcome.succeeded(), "{schedule}: {}", verdict.outcome.message);
        }
    }

    #[test]
    fn a_fence_that_is_left_out_is_missed_when_a_stopped_leader_wakes_up() {
        let of = |without: &[Fence], schedule: &Schedule| -> BTreeSet<&'static str> {
            let settings = Settings { workers: 2, without: without.iter().copied().collect(), ..settings() };
            run(&settings, schedule).unwrap().violations.iter().map(|violation| violation.invariant).collect()
        };
        let stopped = |write| Fault::at_write(Component::Operator, write, Wrong::Stopped);
        let violated = |without: &[Fence], write: u64| of(without, &Schedule { seed: 1, faults: vec![stopped(write)] });
        // The commits of a run are fenced twice: by the version of the object, and by rules on its epoch and commit.
        let of_runs = [Fence::RunVersions, Fence::RunEpoch, Fence::RunCommit];
        let commit = (8..30).find(|write| violated(&of_runs, *write) == BTreeSet::from(["I5", "I6"]));
        let commit = commit.expect("some write of the leader is a commit after which its successor goes on");
        assert_eq!(violated(&[], commit), BTreeSet::new());
        // A Node carries no epoch: its version is all that keeps out the late cordon of a worker that was left out meanwhile.
        let left_out = |write| Fault::at_write(Component::Agent, write, Wrong::LeftOut);
        let pairs = (22..36).flat_map(|agent| (54..72).map(move |operator| (operator, agent)));
        let schedules =
            pairs.map(|(operator, agent)| Schedule { seed: 2, faults: vec![left_out(agent), stopped(operator)] });
        let beside = [Fence::LeaseVersions, Fence::NodeVersions];
        let cordon = schedules.into_iter().find(|schedule| of(&beside, schedule).contains("I3"));
        let cordon = cordon.expect("some write of the leader is a cordon");
        assert_eq!(of(&beside[..1], &cordon), BTreeSet::new());
    }

    #[test]
    fn every_fault_changes_the_run_that_it_falls_on() {
        // The runner's lock keeps a second one out without a trace.
        let settings = Settings { without: BTreeSet::from([Fence::RunnerLock]), ..settings() };
        let run = |faults| run(&settings, &Schedule { seed: 3, faults }).unwrap().outcome;
        let calm = run(Vec::new());
        for stream in Stream::ALL {
            for wrong in Wrong::ALL.into_iter().filter(|wrong| wrong.fits(stream)) {
                // Some writes of an agent go to its disk, and some are the last for a long time: one of a few is met.
                let changes =
                    |number| run(vec![Fault { stream, number, wrong }]).transcript_sha256 != calm.transcript_sha256;
                assert!([5, 8, 11, 14].into_iter().any(changes), "{stream}: {}", wrong.as_str());
            }
        }
    }

    #[test]
    fn a_schedule_is_drawn_from_its_seed_alone_and_names_faults_that_fit() {
        let writes = Writes { operator: 10, agent: 5, runner: 7, lease: 100, operator_read: 3, agent_read: 30 };
        for seed in 0..200 {
            let schedule = random(seed, writes, None);
            assert_eq!(schedule, random(seed, writes, None));
            assert!((1..=*DRAWN_FAULTS.end()).contains(&schedule.faults.len()), "{schedule}");
            for fault in &schedule.faults {
                assert!(fault.wrong.fits(fault.stream) && fault.number <= writes.of(fault.stream), "{fault}");
            }
        }
        let singles = singles(writes);
        let sampled = 24 * 9 + 3 * 6 + 24 * 6;
        assert_eq!(singles.len(), 10 * 18 + 5 * 24 + 7 * 13 + 100 + sampled);
        let of_lease = |wrong| {
            singles
                .iter()
                .filter(move |fault| fault.stream == Stream::Lease && fault.wrong == wrong)
                .map(|fault| fault.number)
        };
        assert_eq!(of_lease(Wrong::Busy).max(), Some(96), "spread over all of it");
        assert!(of_lease(Wrong::Stopped).eq(1..=100), "a leader is stopped at each");
    }
}
