//! `kubectl cupcake sandbox`: an upgrade of a whole simulated cluster in this process.

pub(crate) mod args;
mod controls;
mod fences;
mod report;
mod serve;
pub(crate) mod simulate;
mod sweep;
mod workers;

use crate::connect;
use crate::exit::{Exit, Failure};
use crate::forest::{Forest, Graphs, add_graph};
use crate::out;
use crate::printer::Printer;
use args::{ClusterArgs, SandboxArgs};
use chrono::TimeDelta;
use cupcake_crds::values::{ClusterSnapshot, KubeVersion};
use cupcake_crds::{DirectUpdate, GROUP, UpgradePlan, UpgradeRun};
use cupcake_engine::clock::Timestamp;
use cupcake_operator::adapters::snapshot::gather_all;
use cupcake_sandbox::machine::releases::Repositories;
use cupcake_sandbox::world::{self, Outcome, SPEED_WATCHED, Speed, Upgrade, World, WorldConfig, WorldError};
use cupcake_workflows::render::Glyphs;
use report::Report;
use serde::de::DeserializeOwned;
use std::path::Path;
use std::time::{Duration, Instant};

/// Name of the DirectUpdate that the sandbox applies.
const UPDATE: &str = "upgrade";

/// Where virtual time starts when nobody compares it with a clock on a wall: 2026-01-01.
const FIXED_START_SECONDS: i64 = 1_767_225_600;

/// How far in the past it starts for people, so that the ages that kubectl prints stay sensible.
const PAST: TimeDelta = TimeDelta::days(1);

/// How often a live tree is drawn anew.
const REDRAW: Duration = Duration::from_millis(200);

/// After how long every agent has reported, in virtual seconds.
const REPORTED_SECONDS: i64 = 120;

/// Runs the command.
pub(crate) fn run(args: &SandboxArgs) -> Result<Exit, Failure> {
    if let Some(address) = args.serve {
        return serve::run(args, address);
    }
    if args.kill_sweep {
        return sweep::run(args);
    }
    let as_document = args.output.is_some();
    let watched = !as_document && out::is_watched();
    let speed = match args.speed {
        Some(times) => Speed::Times(times),
        None if watched => Speed::Times(SPEED_WATCHED),
        None => Speed::Fastest,
    };
    let begun = wall();
    let config = config(args, speed);
    let upgrade = upgrade(args, target(args));
    let glyphs = if args.ascii { Glyphs::Ascii } else { Glyphs::Unicode };
    let mut printer = if as_document { Printer::Silent } else { Printer::for_people(glyphs) };
    let outcome = world::runtime(speed).map_err(|error| failed(&error))?.block_on(async {
        let world = World::new(config)?;
        world.start();
        let outcome = shown(&world, world.upgrade(&upgrade), &mut printer).await?;
        if let Some(file) = &args.transcript {
            write_transcript(&world, file);
        }
        Ok(outcome)
    });
    let report = Report::new(outcome.map_err(|error: WorldError| failed(&error))?, begun.elapsed());
    if let Some(format) = args.output {
        out::document(format, &report);
    } else {
        report.lines().into_iter().for_each(out::line);
    }
    Ok(if report.outcome.succeeded() { Exit::Done } else { Exit::Failed })
}

/// The upgrade, while its runs are shown.
async fn shown(
    world: &World,
    upgrade: impl Future<Output = Result<Outcome, WorldError>>,
    printer: &mut Printer,
) -> Result<Outcome, WorldError> {
    let mut graphs = Graphs::new();
    let outcome = tokio::select! {
        biased;
        outcome = upgrade => outcome,
        never = show(world, printer, &mut graphs) => match never {},
    };
    draw(world, printer, &mut graphs);
    outcome
}

/// Draws whatever changes.
#[expect(clippy::disallowed_methods, reason = "a person watches: the screen is drawn by the wall clock")]
async fn show(world: &World, printer: &mut Printer, graphs: &mut Graphs) -> std::convert::Infallible {
    loop {
        match printer {
            Printer::Live(..) => tokio::time::sleep(REDRAW).await,
            Printer::Plain(_) | Printer::Documents(..) => world.progress().await,
            Printer::Silent => std::future::pending().await,
        }
        draw(world, printer, graphs);
    }
}

fn draw(world: &World, printer: &mut Printer, graphs: &mut Graphs) {
    let updates: Vec<DirectUpdate> = objects(world, "directupdates");
    let runs: Vec<UpgradeRun> = objects(world, "upgraderuns");
    if let Some(forest) = Forest::pick(&updates, &runs, None) {
        for run in &forest.runs {
            if !graphs.contains_key(&run.spec.plan.name)
                && let Some(plan) = world.server().get(GROUP, "upgradeplans", "", &run.spec.plan.name)
                && let Ok(plan) = serde_json::from_value::<UpgradePlan>(plan.value().clone())
            {
                add_graph(graphs, &plan);
            }
        }
        printer.show(&forest, graphs, world.now());
    }
}

/// All objects of one of our kinds, without a request.
fn objects<K: DeserializeOwned>(world: &World, plural: &str) -> Vec<K> {
    let all = world.server().list(GROUP, plural);
    all.iter().filter_map(|object| serde_json::from_value(object.value().clone()).ok()).collect()
}

/// A simulated cluster as a compiler of plans sees it, once every agent has reported.
pub(crate) fn snapshot(cluster: &ClusterArgs) -> Result<ClusterSnapshot, Failure> {
    let config = world_config(cluster, Speed::Fastest);
    let start = config.start;
    world::runtime(Speed::Fastest).map_err(|error| failed(&error))?.block_on(async {
        let world = World::new(config).map_err(|error| failed(&error))?;
        world.start();
        world.clock().sleep_until(start + TimeDelta::seconds(REPORTED_SECONDS)).await;
        gather_all(&world.server().client("plan"), world.now())
            .await
            .map_err(|error| Failure::from_error("read the simulated cluster", &error, "kubectl cupcake sandbox"))
    })
}

fn world_config(cluster: &ClusterArgs, speed: Speed) -> WorldConfig {
    let start = match speed {
        Speed::Fastest => Timestamp::UNIX_EPOCH + TimeDelta::seconds(FIXED_START_SECONDS),
        Speed::Times(_) => connect::now() - PAST,
    };
    WorldConfig {
        control_planes: cluster.control_planes,
        workers: cluster.workers,
        seed: cluster.seed,
        speed,
        ..WorldConfig::new(cluster.from, start)
    }
}

fn config(args: &SandboxArgs, speed: Speed) -> WorldConfig {
    WorldConfig {
        // All workers at once leave no node for what is evicted: a budget would block them for ever.
        budget: args.concurrency.of(args.cluster.workers) < args.cluster.workers,
        extra_versions: args.to.into_iter().collect(),
        faults: args.kill.into_iter().collect(),
        keep_lines: args.transcript.is_some(),
        ..world_config(&args.cluster, speed)
    }
}

/// The version to upgrade to: the named one, else the newest of the next minor.
fn target(args: &SandboxArgs) -> KubeVersion {
    let from = args.cluster.from;
    let newest = Repositories::with([from]).newest(from.minor_version().next());
    args.to.or(newest).unwrap_or(from)
}

fn upgrade(args: &SandboxArgs, to: KubeVersion) -> Upgrade {
    Upgrade { name: UPDATE.to_owned(), to, concurrency: args.concurrency }
}

fn failed(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::from_error("sandbox", error, "kubectl cupcake sandbox --help")
}

#[expect(clippy::disallowed_methods, reason = "the time that a person waited")]
fn wall() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the file that the user named")]
fn write_transcript(world: &World, file: &Path) {
    let mut text = world.transcript().lines().join("\n");
    text.push('\n');
    if let Err(error) = std::fs::write(file, text) {
        out::complain(format!("warning: transcript not written to {}: {error}", file.display()));
    }
}
