//! `--kill-sweep`: each component crashed at each of its writes, one run a crash.

use super::args::SandboxArgs;
use super::{config, failed, target, upgrade, wall};
use crate::exit::{Exit, Failure};
use crate::out;
use cupcake_sandbox::machine::fault::{Component, Fault, Wrong};
use cupcake_sandbox::world::{self, Outcome, Speed, WorldConfig};
use serde::Serialize;
use std::num::NonZero;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Threads at most: each holds a whole world.
const THREADS_MAX: usize = 16;

/// Writes of one run at most: a component that writes on for ever ends the sweep.
const WRITES_MAX: u64 = 100_000;

/// Crashes of one component at one moment of a write.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    component: Component,
    moment: Wrong,
    runs: u64,
    succeeded: u64,
    duplicated_effects: u64,
    reruns_after_interruption: u64,
    virtual_seconds_max: f64,
    /// The crashes after which something was not as it should be, as they can be typed.
    failures: Vec<String>,
    #[serde(skip)]
    next: u64,
    /// The first write that no run came to.
    #[serde(skip)]
    end: Option<u64>,
}

impl Row {
    fn new(component: Component, moment: Wrong) -> Self {
        Self {
            component,
            moment,
            runs: 0,
            succeeded: 0,
            duplicated_effects: 0,
            reruns_after_interruption: 0,
            virtual_seconds_max: 0.0,
            failures: Vec::new(),
            next: 1,
            end: None,
        }
    }

    fn enter(&mut self, crash: Fault, outcome: &Outcome) {
        if outcome.killed.is_none() {
            self.end = Some(self.end.map_or(crash.number, |end| end.min(crash.number)));
            return;
        }
        self.runs += 1;
        self.succeeded += u64::from(outcome.succeeded());
        self.duplicated_effects += u64::from(outcome.duplicated_effects);
        self.reruns_after_interruption += u64::from(outcome.reruns_after_interruption);
        self.virtual_seconds_max = self.virtual_seconds_max.max(outcome.virtual_seconds);
        if !outcome.succeeded() || outcome.duplicated_effects > 0 {
            self.failures.push(crash.to_string());
        }
    }
}

/// What the threads share.
struct Sweep {
    rows: Vec<Row>,
    failure: Option<Failure>,
}

impl Sweep {
    /// The next crash to be tried; row by row, so that a row's end is known soon.
    fn next(&mut self) -> Option<(usize, Fault)> {
        let open = |row: &Row| row.end.is_none() && row.next <= WRITES_MAX;
        let index = self.rows.iter().position(open).filter(|_| self.failure.is_none())?;
        let row = &mut self.rows[index];
        let crash = Fault::at_write(row.component, row.next, row.moment);
        row.next += 1;
        Some((index, crash))
    }
}

/// Runs the sweep; fails if any run did not succeed or did anything twice.
pub(super) fn run(args: &SandboxArgs) -> Result<Exit, Failure> {
    let begun = wall();
    let moments = |component| match component {
        Component::Operator | Component::Agent => vec![Wrong::Before, Wrong::After],
        Component::Runner => vec![Wrong::Before, Wrong::After, Wrong::Torn],
    };
    let rows = Component::ALL
        .into_iter()
        .flat_map(|component| moments(component).into_iter().map(move |moment| Row::new(component, moment)));
    let sweep = Mutex::new(Sweep { rows: rows.collect(), failure: None });
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| work(args, &sweep));
        }
    });
    let Sweep { mut rows, failure } = sweep.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(failure) = failure {
        return Err(failure);
    }
    // Threads end in any order.
    for row in &mut rows {
        row.failures.sort();
    }
    if let Some(format) = args.output {
        out::document(format, &rows);
    } else {
        table(&rows, args).into_iter().for_each(out::line);
        let runs: u64 = rows.iter().map(|row| row.runs).sum();
        out::line(format!("{runs} crashes in {:.0} s", begun.elapsed().as_secs_f64()));
    }
    let fine = rows.iter().all(|row| row.failures.is_empty() && row.end.is_some());
    Ok(if fine { Exit::Done } else { Exit::Failed })
}

fn lock(sweep: &Mutex<Sweep>) -> MutexGuard<'_, Sweep> {
    sweep.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work(args: &SandboxArgs, sweep: &Mutex<Sweep>) {
    let upgrade = upgrade(args, target(args));
    loop {
        // Bound by itself, so that the lock is not held while the run runs.
        let next = lock(sweep).next();
        let Some((index, crash)) = next else { return };
        let config = WorldConfig { faults: vec![crash], ..config(args, Speed::Fastest) };
        let outcome = world::run(config, &upgrade);
        let mut sweep = lock(sweep);
        match outcome {
            Ok(outcome) => sweep.rows[index].enter(crash, &outcome),
            Err(error) => sweep.failure = Some(failed(&error)),
        }
    }
}

fn table(rows: &[Row], args: &SandboxArgs) -> Vec<String> {
    let mut lines = vec![format!(
        "{:<10} {:<8} {:>6} {:>10} {:>11} {:>7} {:>14}",
        "CRASHED", "MOMENT", "RUNS", "SUCCEEDED", "DUPLICATED", "RERUNS", "LONGEST"
    )];
    for row in rows {
        lines.push(format!(
            "{:<10} {:<8} {:>6} {:>10} {:>11} {:>7} {:>12.0} s",
            row.component.as_str(),
            row.moment.as_str(),
            row.runs,
            row.succeeded,
            row.duplicated_effects,
            row.reruns_after_interruption,
            row.virtual_seconds_max
        ));
    }
    for failure in rows.iter().flat_map(|row| &row.failures) {
        lines.push(format!(
            "not as it should be: kubectl cupcake sandbox --control-planes {} --workers {} --from {} --to {} --seed {} --kill {failure}",
            args.cluster.control_planes,
            args.cluster.workers,
            args.cluster.from,
            target(args),
            args.cluster.seed
        ));
    }
    lines
}
