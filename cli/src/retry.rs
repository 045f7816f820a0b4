//! `kubectl cupcake retry`: asks an update that rests to try a node or a step again.

use crate::args::{Connection, RetryArgs};
use crate::connect::client;
use crate::control::{Asking, Change, add, control};
use crate::exit::{Exit, Failure};
use crate::forest::{Forest, Graphs, is_finished};
use crate::status::{graphs, read};
use cupcake_crds::control::VertexRequest;
use cupcake_crds::values::Phase;
use cupcake_crds::{DirectUpdate, UpgradeRun};
use cupcake_engine::cursor::VertexState;
use cupcake_engine::dag::Vertex;
use cupcake_workflows::{CHILD_RUN, STRAGGLERS};
use kube::ResourceExt;
use std::collections::BTreeSet;

/// Writes the request into `spec.control.retry`; the operator takes it up.
pub async fn run(connection: &Connection, args: &RetryArgs) -> Result<Exit, Failure> {
    let client = client(connection).await?;
    let name = args.update.as_str();
    let tried = format!("ask DirectUpdate {name} to try {} again", args.what);
    let forest = read(&client, Some(name)).await?;
    let graphs = graphs(&client, &forest).await?;
    let failed = failed(&forest, &graphs);
    if !failed.iter().any(|vertex| vertex.is_named(&args.what)) {
        let names: Vec<&str> = failed.iter().map(|vertex| vertex.name.as_str()).collect();
        let has = if names.is_empty() { "nothing has".to_owned() } else { format!("what has: {}", names.join(", ")) };
        return Err(Failure::new(
            format!("{tried}: nothing of that name has failed; {has}"),
            format!("kubectl cupcake status {name}"),
        ));
    }
    let request = VertexRequest {
        request_id: String::new(),
        run: args.run.clone(),
        vertex: args.what.clone(),
        reason: args.reason.clone(),
        requested_by: None,
    };
    let again = format!("kubectl cupcake retry {name} {}", args.what);
    let change = |update: &mut DirectUpdate| {
        Change::Asked(format!("asked, as {}", add(&mut control(update).retry, "retry", request.clone())))
    };
    Asking { client, name, tried, again }.of(change).await
}

/// What of an update has failed, and rests.
fn failed(forest: &Forest, graphs: &Graphs) -> Vec<Vertex> {
    let cursors = forest.cursors(graphs);
    let of = |run: &UpgradeRun| -> Option<Vec<Vertex>> {
        let (dag, cursor) = cursors.get(run.metadata.name.as_deref()?)?;
        let failed = |vertex: &&Vertex| matches!(cursor.state(&vertex.name), Some(VertexState::Failed { .. }));
        // A child that failed is told by what failed in it.
        let own = dag.vertices().iter().filter(failed).filter(|vertex| vertex.kind.as_str() != CHILD_RUN);
        Some(own.cloned().collect())
    };
    // What has ended is never tried again, but for the nodes that a batch lost: its wave does that.
    let is_tried = |run: &&UpgradeRun| !is_finished(run) || lost_some(forest, graphs, run);
    let given: BTreeSet<String> =
        forest.runs.iter().filter(|run| tries_again(run)).flat_map(|run| lanes(graphs, run)).collect();
    let is_given = |run: &UpgradeRun, vertex: &Vertex| {
        is_finished(run) && vertex.lane.as_ref().is_some_and(|lane| given.contains(lane))
    };
    let all = forest.runs.iter().filter(is_tried).filter_map(|run| Some((run, of(run)?)));
    all.flat_map(|(run, failed)| failed.into_iter().filter(|vertex| !is_given(run, vertex)).collect::<Vec<_>>())
        .collect()
}

/// Whether a run is a batch that ended without some of its nodes, of a wave that is not over and tries such nodes again.
fn lost_some(forest: &Forest, graphs: &Graphs, run: &UpgradeRun) -> bool {
    let failed = run.status.as_ref().and_then(|status| status.phase) == Some(Phase::Failed);
    let parent = run.spec.parent.as_ref().filter(|_| failed);
    let wave = parent.and_then(|parent| forest.runs.iter().find(|other| other.uid().as_ref() == Some(&parent.uid)));
    let has_a_last_vertex = |wave: &UpgradeRun| {
        let dag = graphs.get(&wave.spec.plan.name);
        dag.is_some_and(|dag| dag.vertices().iter().any(|vertex| vertex.kind.as_str() == STRAGGLERS))
    };
    wave.is_some_and(|wave| !is_finished(wave) && has_a_last_vertex(wave))
}

/// Whether a run tries nodes of a wave again: it was opened for its last vertex.
fn tries_again(run: &UpgradeRun) -> bool {
    run.spec.parent.as_ref().is_some_and(|parent| parent.vertex == "stragglers")
}

/// The nodes of a run.
fn lanes(graphs: &Graphs, run: &UpgradeRun) -> Vec<String> {
    let vertices = graphs.get(&run.spec.plan.name).into_iter().flat_map(|dag| dag.vertices());
    vertices.filter_map(|vertex| vertex.lane.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cupcake_engine::clock::Timestamp;
    use cupcake_engine::codec;
    use cupcake_engine::cursor::Cursor;
    use cupcake_engine::dag::Dag;
    use cupcake_engine::event::{AfterFailure, Event};
    use cupcake_engine::names::{Reason, StepKind, VertexName};
    use cupcake_engine::plan::{Plan, VertexTemplate};
    use serde_json::{Value, json};
    use std::sync::Arc;

    /// A run of one vertex that failed.
    fn run(name: &str, parent: &Value, phase: &str, vertex: &VertexTemplate) -> (UpgradeRun, String, Arc<Dag>) {
        let mut plan = Plan::new("test");
        plan.vertex(vertex.clone());
        let (dag, digest) = (plan.expand().unwrap(), plan.digest());
        let at = Timestamp::from_timestamp(1_790_000_000, 0).unwrap();
        let mut cursor = Cursor::new(digest.clone(), &dag, at);
        let vertex = VertexName::new(vertex.name.clone()).unwrap();
        let (attempt, reason) = (1, Reason::new("Slipped", "by a test"));
        cursor.apply(&Event::Started { vertex: vertex.clone(), attempt, at }).unwrap();
        cursor.apply(&Event::Failed { vertex, attempt, reason, next: AfterFailure::Rest, at }).unwrap();
        let plan_name = format!("plan-of-{name}");
        let run = json!({
            "apiVersion": "cupcake.ricardomolendijk.com/v1", "kind": "UpgradeRun", "metadata": {"name": name, "uid": format!("uid-of-{name}")},
            "spec": {
                "concurrency": 1, "failuresMax": 2, "operationId": "op-1", "targetVersion": "1.34.4", "parent": parent,
                "directUpdate": {"name": "to-1-34", "uid": "u"}, "plan": {"name": plan_name, "digest": digest},
            },
            "status": {"phase": phase, "cursor": codec::encode(&cursor, &dag)},
        });
        (serde_json::from_value(run).unwrap(), plan_name, Arc::new(dag))
    }

    #[test]
    fn a_node_that_a_batch_lost_is_tried_again_while_its_wave_is_not_over_and_once() {
        let kind = |kind: &str| StepKind::new(kind).unwrap();
        let last = VertexTemplate::new("stragglers", kind(STRAGGLERS), Value::Null, &[]);
        let drain = VertexTemplate::new("w-1/drain", kind("drain-node/v1"), Value::Null, &[]).lane("w-1");
        let below = |vertex: &str| json!({"run": "wave", "uid": "uid-of-wave", "vertex": vertex});
        let named = |runs: &[(UpgradeRun, String, Arc<Dag>)]| -> Vec<String> {
            let forest = Forest { update: None, runs: runs.iter().map(|(run, _, _)| run.clone()).collect() };
            let graphs = runs.iter().map(|(_, plan, dag)| (plan.clone(), Arc::clone(dag))).collect();
            failed(&forest, &graphs).iter().map(|vertex| vertex.name.to_string()).collect()
        };
        let batch = run("batch-1", &below("batch-1"), "Failed", &drain);
        let wave = |phase: &str| run("wave", &Value::Null, phase, &last);
        assert_eq!(named(&[wave("RequiresAttention"), batch.clone()]), ["stragglers", "w-1/drain"]);
        assert_eq!(named(&[wave("Succeeded"), batch.clone()]), [""; 0], "left out, or moved by now");
        let again = run("stragglers-1", &below("stragglers"), "Succeeded", &drain);
        assert_eq!(named(&[wave("RequiresAttention"), batch, again]), ["stragglers"], "it was tried again");
    }
}
