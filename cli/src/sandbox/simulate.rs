//! `kubectl cupcake simulate`: many upgrades of a simulated cluster, each with other faults, and what must hold in all of them.

use super::workers::{self, Leaf};
use super::{controls, failed, fences, wall};
use crate::args::Format;
use crate::exit::{Exit, Failure};
use crate::out;
use chrono::TimeDelta;
use clap::{Args as ClapArgs, ValueEnum};
use cupcake_crds::values::KubeVersion;
use cupcake_engine::clock::Timestamp;
use cupcake_sandbox::machine::fault::Fault;
use cupcake_sandbox::machine::releases::Repositories;
use cupcake_sandbox::simulate::branches::family;
use cupcake_sandbox::simulate::{self, Schedule, Settings, Verdict};
use cupcake_sandbox::world::{CONTROL_PLANES_MAX, Fence, OPERATORS_MAX, WORKERS_MAX, WorldError};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Shown below the help.
pub(crate) const EXAMPLES: &str = "Examples:
  kubectl cupcake simulate --faults single
  kubectl cupcake simulate --faults random --minutes 10 -o json
  kubectl cupcake simulate --faults random --schedules 100 --twice
  kubectl cupcake simulate --fences --minutes 5
  kubectl cupcake simulate --controls
  kubectl cupcake simulate --seed 7 --transcript
  kubectl cupcake simulate --seed 7 --fault operator@12:stopped --fault agent@3:reply-lost --transcript";

/// Worlds at once, at most.
const THREADS_MAX: usize = 16;
/// Schedules of one seed, unless said otherwise: enough that most of what they have in common happens once.
const BRANCHES: usize = 128;
/// Families that all single faults are shared out to, so that no worker waits long for the others.
const SINGLE_FAMILIES: usize = 32;
/// Violating schedules that are told; all are counted.
const TOLD_MAX: usize = 20;

/// Which schedules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Which {
    /// Every fault at every write and at a sample of Lease requests and reads, one a schedule
    Single,
    /// Two faults a schedule, drawn by seed
    Pairs,
    /// Three to six faults a schedule, drawn by seed
    Random,
}

#[expect(clippy::struct_excessive_bools, reason = "flags of a command")]
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct SimulateArgs {
    /// Which schedules to run; without it the one of --seed.
    #[arg(long, value_name = "WHICH", conflicts_with = "fault")]
    faults: Option<Which>,
    /// How long schedules are begun for pairs, random and fences, in minutes of a clock on the wall.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_440))]
    minutes: u64,
    /// How many schedules are begun for pairs and random, in place of --minutes.
    #[arg(long, value_name = "N", conflicts_with = "minutes")]
    schedules: Option<u64>,
    /// Run each schedule twice: both must give the same transcript.
    #[arg(long, conflicts_with = "transcript")]
    twice: bool,
    /// Schedules of one seed for pairs and random: they share their beginnings, which are run once; 128 unless --twice, then 1.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    branches: Option<u16>,
    /// For each fence of the protocol, look for a schedule that does harm without it and none with it.
    #[arg(long, conflicts_with_all = ["faults", "fault", "schedules", "twice", "without", "transcript"])]
    fences: bool,
    /// Pause, resume, cancel, delete, retry, skip and edit at each step of the run of --seed: where it rests, and what it leaves.
    #[arg(long, conflicts_with_all = ["fences", "faults", "fault", "schedules", "twice", "transcript", "minutes"])]
    controls: bool,
    /// Seed of the first schedule, or of the only one.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A fault of the one schedule, in place of those drawn by its seed; can be repeated.
    #[arg(long, value_name = "WHO@N:WHAT")]
    fault: Vec<Fault>,
    /// No fault at all in the one schedule, in place of those drawn by its seed.
    #[arg(long, conflicts_with_all = ["fault", "faults", "fences", "controls"])]
    calm: bool,
    /// Control-plane nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=i64::from(CONTROL_PLANES_MAX)))]
    control_planes: u32,
    /// Workers.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=i64::from(WORKERS_MAX)))]
    workers: u32,
    /// Replicas of the operator.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=i64::from(OPERATORS_MAX)))]
    operators: u32,
    /// How many workers may be in flight at once.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(WORKERS_MAX)))]
    concurrency: u32,
    /// A fence of the protocol that is left out, to see what it is for; can be repeated.
    #[arg(long, value_name = "FENCE")]
    without: Vec<Fence>,
    /// The version that everything runs at first.
    #[arg(long, default_value = "1.33.4", value_name = "VERSION")]
    from: KubeVersion,
    /// The version to upgrade to; the newest of the next minor if not named.
    #[arg(long, value_name = "VERSION")]
    to: Option<KubeVersion>,
    /// Print the one schedule as a story: every request and every effect, in order.
    #[arg(long, conflicts_with_all = ["faults", "output"])]
    transcript: bool,
    /// Print one JSON object.
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
}

impl SimulateArgs {
    pub(super) fn minutes(&self) -> u64 {
        self.minutes
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    pub(super) fn output(&self) -> Option<Format> {
        self.output
    }

    fn settings(&self) -> Settings {
        let newest = Repositories::with([self.from]).newest(self.from.minor_version().next());
        Settings {
            control_planes: self.control_planes,
            workers: self.workers,
            from: self.from,
            to: self.to.or(newest).unwrap_or(self.from),
            start: Timestamp::UNIX_EPOCH + TimeDelta::seconds(super::FIXED_START_SECONDS),
            operators: self.operators,
            concurrency: self.concurrency,
            without: self.without.iter().copied().collect(),
        }
    }

    /// What repeats a schedule.
    pub(super) fn command(&self, settings: &Settings, schedule: &Schedule) -> String {
        let concurrency =
            if settings.concurrency == 1 { String::new() } else { format!(" --concurrency {}", settings.concurrency) };
        let without: Vec<String> = settings.without.iter().map(|fence| format!(" --without {fence}")).collect();
        format!(
            "kubectl-cupcake simulate --control-planes {} --workers {} --operators {} --from {} --to {}{concurrency}{} {schedule} --transcript",
            self.control_planes,
            self.workers,
            self.operators,
            settings.from,
            settings.to,
            without.concat()
        )
    }
}

/// A violation and what shows it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    invariant: String,
    seed: u64,
    what: String,
    command: String,
}

/// What all schedules came to.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    schedules: u64,
    /// Different runs among them: a fault that never came to pass makes no other run.
    runs: usize,
    /// Digests of the transcripts so far.
    #[serde(skip)]
    transcripts: BTreeSet<String>,
    /// Seeds of worlds that they ran in.
    seeds: u64,
    seconds: f64,
    schedules_per_minute: f64,
    faults_injected: BTreeMap<String, u64>,
    phases: BTreeMap<String, u64>,
    reruns_after_interruption: u64,
    virtual_seconds_max: f64,
    /// Digest of the transcript, where there was one schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    transcript_sha256: Option<String>,
    /// Schedules that gave the same transcript when they were run again; only with `--twice`.
    #[serde(skip_serializing_if = "Option::is_none")]
    transcripts_alike: Option<u64>,
    violating_schedules: u64,
    violations: Vec<Told>,
}

impl Report {
    fn enter(&mut self, leaf: &Leaf) {
        self.schedules += 1;
        self.transcripts.insert(leaf.transcript.clone());
        self.runs = self.transcripts.len();
        for fault in &leaf.happened {
            *self.faults_injected.entry(fault.sort()).or_default() += 1;
        }
        *self.phases.entry(leaf.phase.clone()).or_default() += 1;
        self.reruns_after_interruption += u64::from(leaf.reruns);
        self.virtual_seconds_max = self.virtual_seconds_max.max(leaf.virtual_seconds);
        self.violating_schedules += u64::from(!leaf.violations.is_empty());
    }

    /// The second run of a schedule; another transcript is told as a violation.
    fn compare(&mut self, leaf: &Leaf, second: &str, command: impl FnOnce() -> String) {
        let first = &leaf.transcript;
        let alike = self.transcripts_alike.get_or_insert_default();
        if first == second {
            *alike += 1;
            return;
        }
        self.violating_schedules += u64::from(leaf.violations.is_empty());
        let what = format!("its transcripts are {first} and {second}");
        if self.violations.len() < TOLD_MAX {
            let invariant = "determinism".to_owned();
            self.violations.push(Told { invariant, seed: leaf.seed, what, command: command() });
        }
    }

    fn finish(&mut self, took: Duration) {
        let seconds = took.as_secs_f64().max(0.001);
        self.seconds = (seconds * 10.0).round() / 10.0;
        let schedules = f64::from(u32::try_from(self.schedules).unwrap_or(u32::MAX));
        self.schedules_per_minute = (schedules * 60.0 / seconds).round();
        self.transcript_sha256 = self.transcripts.first().filter(|_| self.schedules == 1).cloned();
    }

    fn lines(&self) -> Vec<String> {
        let list = |counts: &BTreeMap<String, u64>| {
            counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
        };
        let mut lines = vec![
            format!(
                "{} schedules ({} different runs) of {} seeds in {} s: {} a minute",
                self.schedules, self.runs, self.seeds, self.seconds, self.schedules_per_minute
            ),
            format!("  ended:  {}; the longest after {:.0} virtual s", list(&self.phases), self.virtual_seconds_max),
            format!("  faults: {}", list(&self.faults_injected)),
            format!("  {} effects run again after an interruption", self.reruns_after_interruption),
            format!("  {} schedules with a violation", self.violating_schedules),
        ];
        if let Some(transcript) = &self.transcript_sha256 {
            lines.push(format!("  transcript {transcript}"));
        }
        if let Some(alike) = self.transcripts_alike {
            lines.push(format!("  {alike} schedules gave the same transcript twice"));
        }
        for told in &self.violations {
            lines.push(format!("{}: {}\n  {}", told.invariant, told.what, told.command));
        }
        lines
    }
}

/// What the threads share that read what the workers tell.
#[derive(Default)]
struct Work {
    report: Report,
    failure: Option<Failure>,
}

/// Runs the command; fails if any invariant was violated.
pub(crate) fn run(args: &SimulateArgs) -> Result<Exit, Failure> {
    let settings = args.settings();
    let begun = wall();
    if args.transcript {
        return story(args, &settings);
    }
    if args.controls {
        return controls::run(args, &settings);
    }
    let calm = simulate::run(&settings, &Schedule { seed: args.seed, faults: Vec::new() });
    let calm = calm.map_err(|error| failed(&error))?;
    let writes = calm.outcome.writes;
    if args.fences {
        return fences::run(args, &settings, writes);
    }
    let until = begun + Duration::from_secs(60 * args.minutes);
    let families = |index: u64| families(args, &calm, until, index);
    let workers = workers::start(&settings, threads(), &families)?;
    let work = Mutex::<Work>::default();
    std::thread::scope(|scope| {
        for worker in workers {
            scope.spawn(|| {
                let ended = worker.each(|leaf| enter(args, &settings, leaf, &work));
                if let Err(failure) = ended {
                    lock(&work).failure = Some(failure);
                }
            });
        }
    });
    let Work { mut report, failure } = work.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.finish(elapsed(begun));
    // Workers end in any order.
    report.violations.sort_by(|one, other| (one.seed, &one.command).cmp(&(other.seed, &other.command)));
    if let Some(format) = args.output {
        out::document(format, &report);
    } else {
        report.lines().into_iter().for_each(out::line);
    }
    // What was found is worth knowing even where a worker gave up.
    if let Some(failure) = failure {
        return Err(failure);
    }
    Ok(if report.violating_schedules == 0 { Exit::Done } else { Exit::Failed })
}

/// The schedules of the command, shared out to families of one seed each; `None` after the last.
fn families(args: &SimulateArgs, calm: &Verdict, until: Instant, index: u64) -> Option<(u64, Vec<Vec<Fault>>)> {
    let seed = args.seed.wrapping_add(index);
    let place = usize::try_from(index).ok()?;
    let writes = calm.outcome.writes;
    let drawn = |faults: Option<usize>| {
        let branches = args.branches.map_or(if args.twice { 1 } else { BRANCHES }, usize::from);
        let begun = place.checked_mul(branches)?;
        let left = match args.schedules {
            Some(count) => usize::try_from(count).unwrap_or(usize::MAX).checked_sub(begun).filter(|left| *left > 0)?,
            None if wall() > until => return None,
            None => branches,
        };
        let lists = if branches == 1 {
            vec![simulate::random(seed, writes, faults).faults]
        } else {
            family(seed, &calm.course, faults, branches)
        };
        Some((seed, lists.into_iter().take(left).collect()))
    };
    match args.faults {
        None if index > 0 => None,
        None if args.fault.is_empty() && !args.calm => Some((seed, vec![simulate::random(seed, writes, None).faults])),
        None => Some((seed, vec![args.fault.clone()])),
        Some(Which::Single) if place >= SINGLE_FAMILIES => None,
        Some(Which::Single) => {
            let singles = simulate::singles(writes).into_iter().skip(place).step_by(SINGLE_FAMILIES);
            Some((args.seed, singles.map(|fault| vec![fault]).collect()))
        }
        Some(Which::Pairs) => drawn(Some(2)),
        Some(Which::Random) => drawn(None),
    }
}

/// How many worlds at once.
pub(super) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX)
}

pub(super) fn elapsed(since: Instant) -> Duration {
    wall().duration_since(since)
}

pub(super) fn lock<T>(work: &Mutex<T>) -> MutexGuard<'_, T> {
    work.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Enters what a schedule came to.
fn enter(args: &SimulateArgs, settings: &Settings, leaf: &Leaf, work: &Mutex<Work>) -> Result<(), WorldError> {
    let schedule = leaf.schedule();
    let told = if lock(work).report.violations.len() < TOLD_MAX { tell(args, settings, leaf)? } else { Vec::new() };
    let again = args.twice.then(|| simulate::run(settings, &schedule)).transpose()?;
    let report = &mut lock(work).report;
    report.seeds = report.seeds.max(leaf.seed.wrapping_sub(args.seed) + 1);
    report.enter(leaf);
    if let Some(again) = again {
        report.compare(leaf, &again.outcome.transcript_sha256, || args.command(settings, &schedule));
    }
    report.violations.extend(told);
    Ok(())
}

/// The violations of a schedule, each with the shortest schedule that shows it.
fn tell(args: &SimulateArgs, settings: &Settings, leaf: &Leaf) -> Result<Vec<Told>, WorldError> {
    let mut told: Vec<Told> = Vec::new();
    for (invariant, what) in &leaf.violations {
        if told.iter().any(|told| told.invariant == *invariant) {
            continue;
        }
        let shortest = simulate::shrink(settings, &leaf.schedule(), invariant)?;
        told.push(Told {
            invariant: invariant.clone(),
            seed: leaf.seed,
            what: what.clone(),
            command: args.command(settings, &shortest),
        });
    }
    Ok(told)
}

/// One schedule, told in full.
fn story(args: &SimulateArgs, settings: &Settings) -> Result<Exit, Failure> {
    let schedule = if args.fault.is_empty() && !args.calm {
        let calm = simulate::run(settings, &Schedule { seed: args.seed, faults: Vec::new() });
        simulate::random(args.seed, calm.map_err(|error| failed(&error))?.outcome.writes, None)
    } else {
        Schedule { seed: args.seed, faults: args.fault.clone() }
    };
    let (verdict, lines) = simulate::transcript(settings, &schedule).map_err(|error| failed(&error))?;
    lines.into_iter().for_each(out::line);
    let happened: Vec<String> = verdict.happened.iter().map(ToString::to_string).collect();
    out::line(format!("planned: {schedule}; happened: {}", happened.join(", ")));
    out::line(format!("{}: {}", verdict.outcome.phase, verdict.outcome.message));
    out::line(format!("transcript {}", verdict.outcome.transcript_sha256));
    for violation in &verdict.violations {
        out::line(format!("violated at {}: {}: {}", violation.at, violation.invariant, violation.what));
    }
    Ok(if verdict.violations.is_empty() { Exit::Done } else { Exit::Failed })
}
