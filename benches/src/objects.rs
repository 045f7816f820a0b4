//! How large each object is as it is sent, in bytes of JSON; managedFields, which the API server adds, are not in it.

use crate::history::{History, history};
use crate::world::{NAME, TARGET, UID, batch, cluster, compiled, compiled_wave, root, spec, start};
use cupcake_crds::limits::EVENTS_MAX;
use cupcake_crds::upgrade_run::{ChildRun, CommitId, ObjectRef, PlanRef};
use cupcake_crds::values::Phase;
use cupcake_crds::{
    DirectUpdate, NodeTask, NodeTaskSpec, NodeTaskStatus, UpgradePlan, UpgradePlanSpec, UpgradeRun, UpgradeRunSpec,
    UpgradeRunStatus,
};
use cupcake_engine::codec::encode;
use cupcake_engine::plan::Plan;
use cupcake_workflows::render::{Glyphs, Names, View, current_step, message, progress, status_lines};
use cupcake_workflows::{COMPILER, plan_name};
use serde_json::json;

/// What an object may have: 20 kB if it changes often, 64 kB if it is written once, 4 kB for a node's mailbox.
const MUTABLE_BYTES_MAX: usize = 20_000;
const PLAN_BYTES_MAX: usize = 64_000;
const TASK_BYTES_MAX: usize = 4_000;

/// One object, and what it may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Size {
    /// Which object.
    pub what: String,
    /// Bytes of JSON.
    pub bytes: usize,
    /// The goal.
    pub bytes_max: usize,
}

/// The sizes of all objects of an upgrade.
pub fn sizes() -> Vec<Size> {
    let mut sizes = Vec::new();
    let mut add = |what: &str, bytes, bytes_max| sizes.push(Size { what: what.to_owned(), bytes, bytes_max });
    let update = DirectUpdate::new(NAME, spec(25, 50));
    add("DirectUpdate, spec", json_bytes(&update), MUTABLE_BYTES_MAX);

    let seven = compiled(&spec(25, 50), &cluster(7, 15_000, crate::world::FROM)).plan;
    add("UpgradePlan, root, 7 control planes", plan_object(&seven), PLAN_BYTES_MAX);
    let wave = compiled_wave(&spec(25, 50), &cluster(7, 15_000, TARGET));
    add("UpgradePlan, wave of 300 batches", plan_object(&wave.plan), PLAN_BYTES_MAX);
    add("UpgradePlan, batch of 50", plan_object(&batch(50)), PLAN_BYTES_MAX);
    add("UpgradePlan, batch of 250", plan_object(&batch(250)), PLAN_BYTES_MAX);

    let children: Vec<ChildRun> = (1..=64)
        .map(|n| ChildRun {
            name: format!("{}-1-34-4-workers-{n}", root()),
            phase: Phase::InProgress,
            progress: Some("113/200".to_owned()),
        })
        .collect();
    add("UpgradeRun, root, at work", run_object(&history(&seven, 1, 20), &children), MUTABLE_BYTES_MAX);
    add("UpgradeRun, wave of 300, half done", run_object(&history(&wave.plan, 1, 150), &children), MUTABLE_BYTES_MAX);
    let half = history(&batch(50), 25, 100);
    add("UpgradeRun, batch of 50, half done", run_object(&half, &[]), MUTABLE_BYTES_MAX);
    let half = history(&batch(250), 25, 500);
    add("UpgradeRun, batch of 250, half done", run_object(&half, &[]), MUTABLE_BYTES_MAX);
    add("  of it the cursor", encode(&half.cursor, &half.dag).len(), MUTABLE_BYTES_MAX);
    add("NodeTask, order and answer", task_bytes(), TASK_BYTES_MAX);
    sizes
}

fn json_bytes(object: &impl serde::Serialize) -> usize {
    serde_json::to_vec(object).map_or(usize::MAX, |json| json.len())
}

fn plan_object(plan: &Plan) -> usize {
    let digest = plan.digest();
    let spec = UpgradePlanSpec {
        compiler: COMPILER.to_owned(),
        digest: digest.clone(),
        format: plan.format,
        plan: serde_json::to_value(plan).unwrap_or_default(),
        run: root().to_string(),
    };
    json_bytes(&UpgradePlan::new(&plan_name(&root(), &digest), spec))
}

fn run_object(history: &History, children: &[ChildRun]) -> usize {
    let cursor = &history.cursor;
    let name = format!("{}-1-34-4-workers-137", root());
    let spec = UpgradeRunSpec {
        concurrency: 25,
        direct_update: ObjectRef { name: NAME.to_owned(), uid: UID.to_owned() },
        failures_max: 1,
        hop: Some(TARGET),
        operation_id: UID.to_owned(),
        parent: None,
        plan: PlanRef { name: plan_name(&root(), &history.digest), digest: history.digest.clone() },
        target_version: TARGET,
    };
    let mut run = UpgradeRun::new(&name, spec);
    let view = View { dag: &history.dag, cursor, now: cursor.clock(), children };
    let last = history.events.len().saturating_sub(EVENTS_MAX);
    run.status = Some(UpgradeRunStatus {
        children: children.to_vec(),
        commit: Some(CommitId { epoch: 3, sequence: 117 }),
        current_step: current_step(&view),
        cursor: Some(encode(cursor, &history.dag)),
        epoch: Some(3),
        events: history.events[last..].iter().map(|event| format!("12:00:00 {}", event.line())).collect(),
        graph: status_lines(&view, Glyphs::Unicode),
        last_updated: Some(cursor.clock()),
        message: Some(message(&view, &Names { direct_update: NAME, run: &name })),
        observed_generation: Some(1),
        phase: Some(Phase::InProgress),
        progress: Some(progress(cursor)),
        reason: Some("StepRunning".to_owned()),
        started_at: Some(start()),
        ..UpgradeRunStatus::default()
    });
    json_bytes(&run)
}

/// The mailbox of a worker that was told to proceed: the order of a compiled plan, answered.
fn task_bytes() -> usize {
    let dag = batch(1).expand().expect("compiled plans expand");
    let order = &dag.vertices()[0].params;
    let key = json!({"runUid": UID, "vertex": dag.vertices()[0].name, "attempt": 1});
    let spec: NodeTaskSpec = serde_json::from_value(json!({
        "epoch": 3,
        "nodeName": order["node"]["name"],
        "nodeUid": order["node"]["uid"],
        "inventoryRequest": root(),
        "order": {
            "key": key, "epoch": 3, "targetVersion": TARGET, "prepare": order["prepare"], "finish": order["finish"],
            "proceed": true, "deadlineSeconds": order["workSecondsMax"],
        },
    }))
    .expect("an order of a plan is an order of a task");
    let status: NodeTaskStatus = serde_json::from_value(json!({
        "key": key, "epoch": 3, "state": "Done", "bootId": UID, "step": "restart-kubelet",
        "message": "kubelet 1.34.4 runs", "updatedAt": start(), "outputs": {"kubelet": "1.34.4", "kubeadm": "1.34.4"},
        "inventory": {
            "request": root(), "takenAt": start(), "kubelet": "1.33.4", "kubeadm": "1.33.4", "kubectl": "1.33.4",
            "containerd": "1.7.27", "os": "Debian GNU/Linux 12 (bookworm)", "architecture": "amd64",
            "availableVersions": ["1.34.0", "1.34.1", "1.34.2", "1.34.3", "1.34.4"],
        },
    }))
    .expect("it is an answer with an inventory");
    let name = spec.node_name.clone();
    let mut task = NodeTask::new(&name, spec);
    task.status = Some(status);
    json_bytes(&task)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_is_within_its_goal() {
        for size in sizes() {
            assert!(size.bytes <= size.bytes_max, "{}: {} of {} bytes", size.what, size.bytes, size.bytes_max);
        }
    }
}
