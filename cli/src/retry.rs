//! `kubectl cupcake retry`: asks an update that rests to try a node or a step again.

use crate::args::{Connection, RetryArgs};
use crate::connect::client;
use crate::control::{Asking, Change, add, control};
use crate::exit::{Exit, Failure};
use crate::forest::{Forest, Graphs, is_finished};
use crate::status::{graphs, read};
use cupcake_crds::control::VertexRequest;
use cupcake_crds::{DirectUpdate, UpgradeRun};
use cupcake_engine::cursor::VertexState;
use cupcake_engine::dag::Vertex;
use cupcake_workflows::CHILD_RUN;

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
    // What has ended is never tried again.
    forest.runs.iter().filter(|run| !is_finished(run)).filter_map(of).flatten().collect()
}
