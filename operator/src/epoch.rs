//! The epoch is stamped wherever an older leader could still write, before the new one decides anything.
//!
//! RBAC: get and list on upgraderuns, list on nodetasks; get on upgradeplans; patch on upgraderuns/status; patch on nodetasks.

use crate::Operator;
use cupcake_crds::node_task::TaskState;
use cupcake_crds::values::Phase;
use cupcake_crds::{NodeTask, UpgradeRun};
use cupcake_engine::names::{Epoch, RunName};
use cupcake_engine::store::{RunStore as _, StoredRun};
use futures::{StreamExt, stream};
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::core::DeserializeGuard;
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
    let api: Api<DeserializeGuard<UpgradeRun>> = Api::all(client.clone());
    Ok(api.list(&ListParams::default()).await?.items.into_iter().filter_map(|run| run.0.ok()).collect())
}

fn of_run(run: &UpgradeRun) -> u64 {
    run.status.as_ref().and_then(|status| status.epoch).unwrap_or(0)
}

async fn tasks(client: &kube::Client) -> Result<Vec<NodeTask>, kube::Error> {
    let api: Api<DeserializeGuard<NodeTask>> = Api::all(client.clone());
    Ok(api.list(&ListParams::default()).await?.items.into_iter().filter_map(|task| task.0.ok()).collect())
}

fn of_task(task: &NodeTask) -> u64 {
    task.spec.order.as_ref().map_or(task.spec.epoch, |order| order.epoch.max(task.spec.epoch))
}

/// Stamps `epoch` into every unfinished run, into the task of every node with an order under way, and into that of every node to
/// which a vertex under way may still give one: a leader that was stopped on its way there finds the task changed.
///
/// Gives the highest epoch that it found: where that is greater than `epoch`, its leader is not the last one.
pub async fn stamp(operator: &Operator, epoch: Epoch) -> Result<Epoch, kube::Error> {
    let runs = runs(&operator.client).await?;
    let of_runs = runs.iter().map(of_run).max();
    let meant: Vec<BTreeSet<String>> =
        stream::iter(runs).map(|run| stamp_run(operator, epoch, run)).buffered(STAMPS_AT_ONCE_MAX).collect().await;
    let meant: BTreeSet<String> = meant.into_iter().flatten().collect();
    let tasks = tasks(&operator.client).await?;
    let of_tasks = tasks.iter().map(of_task).max();
    let stamps = tasks.into_iter().map(|task| stamp_task(operator, epoch, task, &meant));
    stream::iter(stamps).for_each_concurrent(STAMPS_AT_ONCE_MAX, |stamp| stamp).await;
    Ok(Epoch(of_runs.max(of_tasks).unwrap_or(0)))
}

/// Stamps one run if it is unfinished; gives the nodes to which its vertices under way may give orders.
async fn stamp_run(operator: &Operator, epoch: Epoch, run: UpgradeRun) -> BTreeSet<String> {
    let status = run.status.unwrap_or_default();
    if status.phase.is_some_and(Phase::is_final) || status.epoch.is_some_and(|stamped| stamped >= epoch.0) {
        return BTreeSet::new();
    }
    let name = run.metadata.name.unwrap_or_default();
    let patch = Patch::Merge(json!({"status": {"epoch": epoch.0}}));
    let api: Api<UpgradeRun> = Api::all(operator.client.clone());
    note(&name, api.patch_status(&name, &PatchParams::default(), &patch).await);
    let Ok(name) = RunName::new(name) else {
        return BTreeSet::new();
    };
    match operator.store.load(&name).await {
        Ok(run) => nodes_under_way(&run).collect(),
        Err(error) => {
            note(name.as_str(), Err::<(), _>(error));
            BTreeSet::new()
        }
    }
}

/// Stamps one task if an order is under way in it or may still be given.
async fn stamp_task(operator: &Operator, epoch: Epoch, task: NodeTask, meant: &BTreeSet<String>) {
    let open = task.spec.order.is_some() && !task.answer().is_some_and(TaskState::is_final);
    if !(open || meant.contains(&task.spec.node_name)) || task.spec.epoch >= epoch.0 {
        return;
    }
    let mut patch = json!({"spec": {"epoch": epoch.0}});
    if open {
        // The order's own epoch moves with it: an agent refuses an order of an older epoch than its task's.
        patch["spec"]["order"] = json!({"epoch": epoch.0});
    }
    let patch = Patch::Merge(patch);
    let api: Api<NodeTask> = Api::all(operator.client.clone());
    note(&task.spec.node_name, api.patch(&task.spec.node_name, &PatchParams::default(), &patch).await);
}

/// The nodes of the vertices under way.
fn nodes_under_way(run: &StoredRun) -> impl Iterator<Item = String> {
    let vertices = run.dag.vertices().iter();
    let under_way =
        vertices.filter(|vertex| run.cursor.state(&vertex.name).and_then(|state| state.under_way()).is_some());
    under_way.filter_map(|vertex| Some(vertex.params.get("node")?.get("name")?.as_str()?.to_owned()))
}

/// One object that cannot be stamped (deleted a moment ago, or malformed) keeps the others from nothing.
fn note<T>(name: &str, result: Result<T, impl std::error::Error + 'static>) {
    if let Err(error) = result {
        tracing::warn!(
            object = name,
            error = crate::error_chain(&error),
            "epoch not stamped; it comes with the next write"
        );
    }
}
