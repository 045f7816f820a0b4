//! `kubectl cupcake simulate --controls`: what people ask of an update, at each of its steps, and what becomes of it.

use super::simulate::{SimulateArgs, elapsed, lock, threads};
use super::{failed, wall};
use crate::exit::{Exit, Failure};
use crate::out;
use cupcake_sandbox::simulate::Settings;
use cupcake_sandbox::simulate::controls::{self, Asked, Moment, Row};
use serde::Serialize;
use std::sync::{Mutex, PoisonError};

/// What the command tells.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// Steps of the undisturbed run.
    steps: usize,
    seconds: f64,
    /// Rows that are not as they have to be.
    wrong: usize,
    /// One a step and request.
    rows: Vec<Row>,
}

/// What the threads share.
#[derive(Default)]
struct Work {
    next: usize,
    rows: Vec<(usize, Row)>,
    failure: Option<Failure>,
}

/// Makes every request at every step of the run of `--seed`; fails if any comes to what it must not.
pub(super) fn run(args: &SimulateArgs, settings: &Settings) -> Result<Exit, Failure> {
    let begun = wall();
    let moments = controls::moments(settings, args.seed()).map_err(|error| failed(&error))?;
    let worlds: Vec<(&Moment, Asked)> =
        moments.iter().flat_map(|moment| Asked::WORLDS.into_iter().map(move |asked| (moment, asked))).collect();
    let work = Mutex::new(Work::default());
    std::thread::scope(|scope| {
        for _ in 0..threads() {
            scope.spawn(|| {
                loop {
                    let index = {
                        let mut work = lock(&work);
                        work.next += 1;
                        work.next - 1
                    };
                    let Some((moment, asked)) = worlds.get(index) else { return };
                    match controls::ask(settings, args.seed(), moment, *asked) {
                        Ok(rows) => lock(&work).rows.extend(rows.into_iter().map(|row| (index, row))),
                        Err(error) => lock(&work).failure = Some(failed(&error)),
                    }
                }
            });
        }
    });
    let Work { mut rows, failure, .. } = work.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(failure) = failure {
        return Err(failure);
    }
    rows.sort_by_key(|(index, row)| (*index, row.asked));
    let rows: Vec<Row> = rows.into_iter().map(|(_, row)| row).collect();
    let report = Report {
        steps: moments.len(),
        seconds: (elapsed(begun).as_secs_f64() * 10.0).round() / 10.0,
        wrong: rows.iter().filter(|row| !row.is_right()).count(),
        rows,
    };
    if let Some(format) = args.output() {
        out::document(format, &report);
    } else {
        lines(&moments, &report).into_iter().for_each(out::line);
    }
    // A run without a step shows nothing.
    Ok(if report.wrong == 0 && report.steps > 0 { Exit::Done } else { Exit::Failed })
}

/// A table as docs/control.md holds it, then what is wrong.
fn lines(moments: &[Moment], report: &Report) -> Vec<String> {
    let names: Vec<&str> = Asked::ALL.into_iter().map(Asked::as_str).collect();
    let mut lines = vec![format!("| step | {} |", names.join(" | ")), format!("|{}", "---|".repeat(names.len() + 1))];
    for moment in moments {
        let cell = |asked: Asked| {
            let row = report.rows.iter().find(|row| row.moment == *moment && row.asked == asked);
            row.map_or("-".to_owned(), |row| match row.cordoned.as_slice() {
                [] => row.rests.clone(),
                nodes => format!("{}, {} cordoned", row.rests, nodes.join(" and ")),
            })
        };
        let cells: Vec<String> = Asked::ALL.into_iter().map(cell).collect();
        lines.push(format!("| {} | {} |", moment.vertex, cells.join(" | ")));
    }
    let wrong = report.rows.iter().filter(|row| !row.is_right());
    lines.extend(wrong.map(|row| {
        format!(
            "wrong: {} at {}: reached {}, refused {}, answer {:?}, rests {}, cordoned {:?}, {} late effects, {:?}",
            row.asked.as_str(),
            row.moment.vertex,
            row.reached,
            row.refused,
            row.answer,
            row.rests,
            row.cordoned,
            row.late_effects,
            row.violations
        )
    }));
    lines
}
