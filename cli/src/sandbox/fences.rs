//! `kubectl cupcake simulate --fences`: what each fence of the protocol is for.

use super::simulate::{SimulateArgs, elapsed, lock, threads};
use super::{failed, wall};
use crate::exit::{Exit, Failure};
use crate::out;
use cupcake_sandbox::simulate::fences::{self, Need};
use cupcake_sandbox::simulate::{self, Schedule, Settings};
use cupcake_sandbox::world::{Fence, Writes};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// One line of the table.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    fence: Fence,
    beside: BTreeSet<Fence>,
    invariant: &'static str,
    schedule: String,
    command: String,
}

/// The table.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    schedules: u64,
    seconds: f64,
    fences: Vec<Row>,
    missing: Vec<Fence>,
    /// Fences that no fault comes to while others stand before them: docs/fences.md has a schedule for each.
    not_looked_for: Vec<Fence>,
}

/// What the threads share.
#[derive(Default)]
struct Work {
    begun: u64,
    found: BTreeMap<Fence, Need>,
    failure: Option<Failure>,
}

impl Work {
    /// Fences that stand alone need no better schedule.
    fn wanted(&self) -> Vec<Fence> {
        let alone = |fence: &Fence| self.found.get(fence).is_some_and(|need| need.beside.is_empty());
        looked_for().filter(|fence| !alone(fence)).collect()
    }

    fn enter(&mut self, need: Need) {
        let better = |found: &Need| need.beside.len() < found.beside.len();
        if self.found.get(&need.fence).is_none_or(better) {
            self.found.insert(need.fence, need);
        }
    }
}

/// The fences that have a schedule of their own to be found.
fn looked_for() -> impl Iterator<Item = Fence> {
    Fence::ALL.into_iter().filter(|fence| !fence.stands_behind_others())
}

/// Looks for a schedule for each fence: first the candidates, then random ones, for as long as `--minutes` says; fails if a
/// fence is left without one.
pub(super) fn run(args: &SimulateArgs, settings: &Settings, writes: Writes) -> Result<Exit, Failure> {
    let begun = wall();
    let until = begun + Duration::from_secs(60 * args.minutes());
    let candidates = fences::candidates(args.seed(), writes);
    let schedule = |index: u64| {
        let candidate = usize::try_from(index).ok().and_then(|index| candidates.get(index));
        candidate.cloned().unwrap_or_else(|| simulate::random(args.seed().wrapping_add(index), writes, None))
    };
    let work = Mutex::new(Work::default());
    std::thread::scope(|scope| {
        for _ in 0..threads() {
            scope.spawn(|| {
                while wall() < until {
                    let (index, wanted) = {
                        let mut work = lock(&work);
                        work.begun += 1;
                        (work.begun - 1, work.wanted())
                    };
                    if wanted.is_empty() || lock(&work).failure.is_some() {
                        return;
                    }
                    if let Err(error) = search(settings, &schedule(index), &wanted, &work) {
                        lock(&work).failure = Some(failed(&error));
                    }
                }
            });
        }
    });
    let Work { begun: schedules, found, failure } = work.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(failure) = failure {
        return Err(failure);
    }
    let missing: Vec<Fence> = looked_for().filter(|fence| !found.contains_key(fence)).collect();
    let row = |need: Need| {
        let settings = Settings { without: need.without(), ..settings.clone() };
        let command = args.command(&settings, &need.schedule);
        let Need { fence, beside, schedule, invariant } = need;
        Row { fence, beside, invariant, schedule: schedule.to_string(), command }
    };
    let report = Report {
        schedules,
        seconds: (elapsed(begun).as_secs_f64() * 10.0).round() / 10.0,
        fences: found.into_values().map(row).collect(),
        missing,
        not_looked_for: Fence::ALL.into_iter().filter(|fence| fence.stands_behind_others()).collect(),
    };
    if let Some(format) = args.output() {
        out::document(format, &report);
    } else {
        lines(&report).into_iter().for_each(out::line);
    }
    Ok(if report.missing.is_empty() { Exit::Done } else { Exit::Failed })
}

fn search(
    settings: &Settings,
    schedule: &Schedule,
    wanted: &[Fence],
    work: &Mutex<Work>,
) -> Result<(), cupcake_sandbox::world::WorldError> {
    for need in fences::needs(settings, schedule, wanted)? {
        lock(work).enter(need);
    }
    Ok(())
}

fn lines(report: &Report) -> Vec<String> {
    let names = |fences: &mut dyn Iterator<Item = &Fence>| {
        let names: Vec<String> = fences.map(|fence| format!("`{fence}`")).collect();
        if names.is_empty() { "-".to_owned() } else { names.join(", ") }
    };
    let mut lines = vec!["| left out | beside | violated | by |".to_owned(), "|---|---|---|---|".to_owned()];
    lines.extend(report.fences.iter().map(|row| {
        let beside = names(&mut row.beside.iter());
        format!("| `{}` | {beside} | {} | `{}` |", row.fence, row.invariant, row.schedule)
    }));
    let missing = names(&mut report.missing.iter());
    lines.push(format!("{} schedules in {} s; without one: {missing}", report.schedules, report.seconds));
    let behind = names(&mut report.not_looked_for.iter());
    lines
        .push(format!("not looked for, since they stand behind others (docs/fences.md has their schedules): {behind}"));
    lines
}
