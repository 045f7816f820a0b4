//! `kubectl cupcake watch`: one upgrade until its end.

use crate::args::{Connection, WatchArgs};
use crate::connect::{client, now};
use crate::exit::{Exit, Failure};
use crate::forest::{Forest, Graphs};
use crate::printer::Printer;
use crate::status::{add, read};
use cupcake_crds::values::Phase;
use cupcake_crds::{DirectUpdate, UpgradeRun};
use cupcake_workflows::render::Glyphs;
use futures::StreamExt as _;
use kube::ResourceExt as _;
use kube::api::Api;
use kube::runtime::watcher::{self, Event, watcher};
use std::collections::BTreeMap;
use std::time::Duration;

/// How often a live tree is drawn while nothing changes, so that its times go on.
const REDRAW: Duration = Duration::from_secs(1);
/// How many failures to reach the API in a row end the watch.
const FAILURES_MAX: u32 = 60;
/// How long to wait after a failure.
const AGAIN: Duration = Duration::from_secs(1);

/// Follows an upgrade; 0 if it Succeeded, else 1.
#[expect(clippy::disallowed_methods, reason = "a person watches: the screen is drawn by the wall clock")]
pub async fn run(connection: &Connection, args: &WatchArgs) -> Result<Exit, Failure> {
    let client = client(connection).await?;
    let first = read(&client, args.run.as_deref()).await?;
    let root = first.runs.first().map(kube::ResourceExt::name_any);
    let update_name = first.update.as_ref().map(kube::ResourceExt::name_any);
    let glyphs = if args.ascii { Glyphs::Ascii } else { Glyphs::Unicode };
    let mut printer = match args.output {
        Some(format) => Printer::Documents(format, BTreeMap::new()),
        None => Printer::for_people(glyphs),
    };
    let mut graphs = Graphs::new();
    let mut runs: BTreeMap<String, UpgradeRun> = first.runs.iter().map(|run| (run.name_any(), run.clone())).collect();
    let mut updates: BTreeMap<String, DirectUpdate> =
        first.update.iter().map(|update| (update.name_any(), update.clone())).collect();
    let mut run_events = watcher(Api::<UpgradeRun>::all(client.clone()), watcher::Config::default()).boxed();
    let mut update_events = watcher(Api::<DirectUpdate>::all(client.clone()), watcher::Config::default()).boxed();
    let name = root.or(update_name.clone()).or_else(|| args.run.clone());
    let mut failures = 0;
    loop {
        let updates_now: Vec<DirectUpdate> = updates.values().cloned().collect();
        let runs_now: Vec<UpgradeRun> = runs.values().cloned().collect();
        // The run may come to be while we watch its update.
        let picked = Forest::pick(&updates_now, &runs_now, name.as_deref())
            .or_else(|| Forest::pick(&updates_now, &runs_now, update_name.as_deref()));
        if let Some(forest) = picked {
            for run in &forest.runs {
                // Without its plan a run is drawn from its status.
                let _later = add(&client, &mut graphs, run).await;
            }
            printer.show(&forest, &graphs, now());
            if let Some(exit) = end(forest.phase()) {
                return Ok(exit);
            }
        }
        let ok = tokio::select! {
            biased;
            event = run_events.next() => event.is_none_or(|event| event.map(|event| keep(&mut runs, event)).is_ok()),
            event = update_events.next() => event.is_none_or(|event| event.map(|event| keep(&mut updates, event)).is_ok()),
            () = tokio::time::sleep(REDRAW) => true,
        };
        failures = if ok { 0 } else { failures + 1 };
        if failures > FAILURES_MAX {
            return Err(Failure::new("the API server has not answered for a minute", "kubectl cupcake watch"));
        }
        if !ok {
            // API servers restart during an upgrade of theirs.
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// How the watch ends at that phase, if it does.
fn end(phase: Phase) -> Option<Exit> {
    match phase {
        Phase::Pending | Phase::InProgress => None,
        Phase::Succeeded => Some(Exit::Done),
        Phase::Failed | Phase::RequiresAttention | Phase::Cancelled => Some(Exit::Failed),
    }
}

fn keep<K: kube::Resource>(objects: &mut BTreeMap<String, K>, event: Event<K>) {
    match event {
        Event::Apply(object) | Event::InitApply(object) => {
            objects.insert(object.name_any(), object);
        }
        Event::Delete(object) => {
            objects.remove(&object.name_any());
        }
        Event::Init | Event::InitDone => {}
    }
}
