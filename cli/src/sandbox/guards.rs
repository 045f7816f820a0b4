//! `kubectl cupcake simulate --guards`: what each fence of the protocol is for.

use super::simulate::{SimulateArgs, elapsed, lock, threads};
use super::{failed, wall};
use crate::args::Format;
use crate::exit::{Exit, Failure};
use crate::out;
use cupcake_sandbox::simulate::guards::{self, Need};
use cupcake_sandbox::simulate::{self, Schedule, Settings};
use cupcake_sandbox::world::{Guard, Writes};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// One line of the table.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    guard: Guard,
    beside: BTreeSet<Guard>,
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
    guards: Vec<Row>,
    missing: Vec<Guard>,
}

/// What the threads share.
#[derive(Default)]
struct Work {
    begun: u64,
    found: BTreeMap<Guard, Need>,
    failure: Option<Failure>,
}

impl Work {
    /// Fences that stand alone need no better schedule.
    fn wanted(&self) -> Vec<Guard> {
        let alone = |guard: &Guard| self.found.get(guard).is_some_and(|need| need.beside.is_empty());
        Guard::ALL.into_iter().filter(|guard| !alone(guard)).collect()
    }

    fn enter(&mut self, need: Need) {
        let better = |found: &Need| need.beside.len() < found.beside.len();
        if self.found.get(&need.guard).is_none_or(better) {
            self.found.insert(need.guard, need);
        }
    }
}

/// Looks for a schedule for each fence: first the candidates, then random ones, for as long as `--minutes` says; fails if a
/// fence is left without one.
pub(super) fn run(args: &SimulateArgs, settings: &Settings, writes: Writes) -> Result<Exit, Failure> {
    let begun = wall();
    let until = begun + Duration::from_secs(60 * args.minutes());
    let candidates = guards::candidates(args.seed(), writes);
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
    let missing: Vec<Guard> = Guard::ALL.into_iter().filter(|guard| !found.contains_key(guard)).collect();
    let row = |need: Need| {
        let settings = Settings { without: need.without(), ..settings.clone() };
        let command = args.command(&settings, &need.schedule);
        let Need { guard, beside, schedule, invariant } = need;
        Row { guard, beside, invariant, schedule: schedule.to_string(), command }
    };
    let report = Report {
        schedules,
        seconds: (elapsed(begun).as_secs_f64() * 10.0).round() / 10.0,
        guards: found.into_values().map(row).collect(),
        missing,
    };
    if args.output() == Some(Format::Json) {
        out::json(&report);
    } else {
        lines(&report).into_iter().for_each(out::line);
    }
    Ok(if report.missing.is_empty() { Exit::Done } else { Exit::Failed })
}

fn search(
    settings: &Settings,
    schedule: &Schedule,
    wanted: &[Guard],
    work: &Mutex<Work>,
) -> Result<(), cupcake_sandbox::world::WorldError> {
    for need in guards::needs(settings, schedule, wanted)? {
        lock(work).enter(need);
    }
    Ok(())
}

fn lines(report: &Report) -> Vec<String> {
    let names = |guards: &mut dyn Iterator<Item = &Guard>| {
        let names: Vec<String> = guards.map(|guard| format!("`{guard}`")).collect();
        if names.is_empty() { "-".to_owned() } else { names.join(", ") }
    };
    let mut lines = vec!["| left out | beside | violated | by |".to_owned(), "|---|---|---|---|".to_owned()];
    lines.extend(report.guards.iter().map(|row| {
        let beside = names(&mut row.beside.iter());
        format!("| `{}` | {beside} | {} | `{}` |", row.guard, row.invariant, row.schedule)
    }));
    let missing = names(&mut report.missing.iter());
    lines.push(format!("{} schedules in {} s; without one: {missing}", report.schedules, report.seconds));
    lines
}
