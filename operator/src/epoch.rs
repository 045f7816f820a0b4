//! The epoch is stamped wherever an older leader could still write, before the new one decides anything.
//!
//! RBAC: get and list on upgraderuns, list on nodetasks; get on upgradeplans; patch on upgraderuns/status; patch on nodetasks.

use crate::Operator;
use crate::adapters::is_not_found;
use crate::guarded::Guarded;
use cupcake_crds::node_task::TaskState;
use cupcake_crds::values::Phase;
use cupcake_crds::{NodeTask, UpgradeRun};
use cupcake_engine::names::{Epoch, RunName};
use cupcake_engine::store::{RunStore as _, StoreError, StoredRun};
use futures::{StreamExt, stream};
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;
use std::collections::BTreeSet;

/// How many stamps are under way at once: one after another, those of 50 nodes in flight would be most of a fail-over.
const STAMPS_AT_ONCE_MAX: usize = 16;

/// The highest epoch that any run or task carries; 0 where none does.
pub async fn highest(client: &kube::Client) -> Result<Epoch, kube::Error> {
    let of_runs = runs(client).await?.iter().map(of_run).max();
    let of_tasks = tasks(client).await?.iter().map(of_task).max();
    Ok(Epoch(of_runs.max(of_tasks).unwrap_or(0)))
}

async fn runs(client: &kube::Client) -> Result<Vec<UpgradeRun>, kube::Error> {
    let api: Api<Guarded<UpgradeRun>> = Api::all(client.clone());
    Ok(api.list(&ListParams::default()).await?.items.into_iter().filter_map(|run| run.0.ok()).collect())
}

fn of_run(run: &UpgradeRun) -> u64 {
    run.status.as_ref().and_then(|status| status.epoch).unwrap_or(0)
}

async fn tasks(client: &kube::Client) -> Result<Vec<NodeTask>, kube::Error> {
    let api: Api<Guarded<NodeTask>> = Api::all(client.clone());
    Ok(api.list(&ListParams::default()).await?.items.into_iter().filter_map(|task| task.0.ok()).collect())
}

fn of_task(task: &NodeTask) -> u64 {
    task.spec.order.as_ref().map_or(task.spec.epoch, |order| order.epoch.max(task.spec.epoch))
}

/// What stamping an epoch came to.
pub struct Stamped {
    /// The highest epoch that was found, as far as could be read.
    pub highest: Option<Epoch>,
    /// What could not be stamped, if anything that can be.
    pub failure: Option<String>,
}

/// Stamps `epoch` into every unfinished run, into the task of every node with an order under way, and into that of every node to
/// which a vertex under way may still give one: a leader that was stopped on its way there finds the task changed.
///
/// Gives the highest epoch that it found: where that is greater than `epoch`, its leader is not the last one. An object that is
/// gone or cannot be read as what it is keeps the others from nothing.
pub async fn stamp(operator: &Operator, epoch: Epoch) -> Stamped {
    let runs = match runs(&operator.client).await {
        Ok(runs) => runs,
        Err(error) => return Stamped { highest: None, failure: Some(crate::error_chain(&error)) },
    };
    let of_runs = runs.iter().map(of_run).max();
    let stamped: Vec<_> =
        stream::iter(runs).map(|run| stamp_run(operator, epoch, run)).buffered(STAMPS_AT_ONCE_MAX).collect().await;
    let mut failure = None;
    let mut meant: BTreeSet<String> = BTreeSet::new();
    for one in stamped {
        match one {
            Ok(nodes) => meant.extend(nodes),
            Err(error) => failure = Some(error),
        }
    }
    let tasks = match tasks(&operator.client).await {
        Ok(tasks) => tasks,
        Err(error) => return Stamped { highest: of_runs.map(Epoch), failure: Some(crate::error_chain(&error)) },
    };
    let of_tasks = tasks.iter().map(of_task).max();
    let stamps = tasks.into_iter().map(|task| stamp_task(operator, epoch, task, &meant));
    let stamped: Vec<_> = stream::iter(stamps).buffer_unordered(STAMPS_AT_ONCE_MAX).collect().await;
    let failure = failure.or_else(|| stamped.into_iter().find_map(Result::err));
    Stamped { highest: Some(Epoch(of_runs.max(of_tasks).unwrap_or(0))), failure }
}

/// Stamps one run if it is unfinished; gives the nodes to which its vertices under way may give orders.
async fn stamp_run(operator: &Operator, epoch: Epoch, run: UpgradeRun) -> Result<BTreeSet<String>, String> {
    let status = run.status.unwrap_or_default();
    let stamped = status.epoch.unwrap_or(0);
    if status.phase.is_some_and(Phase::is_final) || stamped > epoch.0 {
        return Ok(BTreeSet::new());
    }
    let name = run.metadata.name.unwrap_or_default();
    // One that a try before this has stamped is read all the same: its nodes may not have been.
    if stamped < epoch.0 {
        let patch = Patch::Merge(json!({"status": {"epoch": epoch.0}}));
        let api: Api<UpgradeRun> = Api::all(operator.client.clone());
        excused(&name, api.patch_status(&name, &PatchParams::default(), &patch).await)?;
    }
    let Ok(name) = RunName::new(name) else {
        return Ok(BTreeSet::new());
    };
    match operator.store.load(&name).await {
        Ok(run) => Ok(nodes_under_way(&run).collect()),
        Err(error @ StoreError::Unavailable { .. }) => Err(crate::error_chain(&error)),
        Err(error) => {
            tracing::warn!(run = name.as_str(), error = crate::error_chain(&error), "run cannot be read");
            Ok(BTreeSet::new())
        }
    }
}

/// Stamps one task if an order is under way in it or may still be given.
async fn stamp_task(operator: &Operator, epoch: Epoch, task: NodeTask, meant: &BTreeSet<String>) -> Result<(), String> {
    let open = task.spec.order.is_some() && !task.answer().is_some_and(TaskState::is_final);
    if !(open || meant.contains(&task.spec.node_name)) || task.spec.epoch >= epoch.0 {
        return Ok(());
    }
    let mut patch = json!({"spec": {"epoch": epoch.0}});
    if open {
        // The order's own epoch moves with it: an agent refuses an order of an older epoch than its task's.
        patch["spec"]["order"] = json!({"epoch": epoch.0});
    }
    let patch = Patch::Merge(patch);
    let api: Api<NodeTask> = Api::all(operator.client.clone());
    excused(&task.spec.node_name, api.patch(&task.spec.node_name, &PatchParams::default(), &patch).await)
}

/// The nodes of the vertices under way.
fn nodes_under_way(run: &StoredRun) -> impl Iterator<Item = String> {
    let vertices = run.dag.vertices().iter();
    let under_way =
        vertices.filter(|vertex| run.cursor.state(&vertex.name).and_then(|state| state.under_way()).is_some());
    under_way.filter_map(|vertex| Some(vertex.params.get("node")?.get("name")?.as_str()?.to_owned()))
}

/// A stamp that failed is worth another try, but where the object was deleted a moment ago or its answer cannot be read: it stands
/// then, and a malformed object keeps nobody from leading.
fn excused<T>(name: &str, result: Result<T, kube::Error>) -> Result<(), String> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) || matches!(error, kube::Error::SerdeError(_)) => {
            tracing::warn!(object = name, error = crate::error_chain(&error), "epoch not stamped");
            Ok(())
        }
        Err(error) => Err(format!("{name}: {}", crate::error_chain(&error))),
    }
}
