//! `kubectl cupcake retry`: asks an update that rests to try a node or a step again.

use crate::args::{Connection, RetryArgs};
use crate::connect::{client, request_failed};
use crate::exit::{Exit, Failure};
use crate::forest::{Forest, Graphs};
use crate::out;
use crate::status::{graphs, read};
use cupcake_crds::control::{Control, VertexRequest};
use cupcake_crds::values::Phase;
use cupcake_crds::{DirectUpdate, UpgradeRun, limits};
use cupcake_engine::codec;
use cupcake_engine::cursor::VertexState;
use cupcake_engine::dag::Vertex;
use cupcake_workflows::CHILD_RUN;
use kube::api::{Api, PostParams};

/// Writes the request into `spec.control.retry`; the operator takes it up.
pub async fn run(connection: &Connection, args: &RetryArgs) -> Result<Exit, Failure> {
    let client = client(connection).await?;
    let api: Api<DirectUpdate> = Api::all(client.clone());
    let name = args.update.as_str();
    let tried = format!("ask DirectUpdate {name} to try {} again", args.what);
    let found = api.get_opt(name).await.map_err(|error| request_failed(&tried, &error))?;
    let Some(mut update) = found else {
        return Err(Failure::new(format!("there is no DirectUpdate {name}"), "kubectl get directupdates"));
    };
    if let Some(phase) = update.status.as_ref().and_then(|status| status.phase).filter(|phase| Phase::is_final(*phase))
    {
        return Err(Failure::new(
            format!("DirectUpdate {name} is {phase}, which is its end: nothing of it is tried again"),
            format!(
                "kubectl cupcake status {name}, then apply it under another name, which goes on from what is there"
            ),
        ));
    }
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
    let request = asked(update.spec.control.get_or_insert_default(), args);
    match api.replace(name, &PostParams::default(), &update).await {
        Ok(_) => {
            out::line(format!("asked, as {request}; see: kubectl cupcake status {name}"));
            Ok(Exit::Done)
        }
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let next = format!("kubectl cupcake retry {name} {}", args.what);
            Err(Failure::new(format!("{tried}: somebody else changed it at the same moment"), next))
        }
        Err(error) => Err(request_failed(&tried, &error)),
    }
}

/// What of an update has failed, and rests.
fn failed(forest: &Forest, graphs: &Graphs) -> Vec<Vertex> {
    let of = |run: &UpgradeRun| -> Option<Vec<Vertex>> {
        let dag = graphs.get(&run.spec.plan.name)?;
        let cursor = codec::decode(run.status.as_ref()?.cursor.as_ref()?, &run.spec.plan.digest, dag).ok()?;
        let failed = |vertex: &&Vertex| matches!(cursor.state(&vertex.name), Some(VertexState::Failed { .. }));
        // A child that failed is told by what failed in it.
        let own = dag.vertices().iter().filter(failed).filter(|vertex| vertex.kind.as_str() != CHILD_RUN);
        Some(own.cloned().collect())
    };
    forest.runs.iter().filter_map(of).flatten().collect()
}

/// Adds the request under a name that no other has; the oldest goes where there are as many as there may be.
fn asked(control: &mut Control, args: &RetryArgs) -> String {
    let number = |request: &VertexRequest| request.request_id.strip_prefix("retry-")?.parse::<u64>().ok();
    let next = control.retry.iter().filter_map(number).max().unwrap_or(0) + 1;
    let request_id = format!("retry-{next}");
    control.retry.push(VertexRequest {
        request_id: request_id.clone(),
        run: args.run.clone(),
        vertex: args.what.clone(),
        reason: args.reason.clone(),
        requested_by: None,
    });
    let surplus = control.retry.len().saturating_sub(limits::REQUESTS_MAX);
    control.retry.drain(..surplus);
    request_id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_has_a_name_of_its_own_and_there_are_never_too_many() {
        let args = RetryArgs { update: "to-1-34".into(), what: "w-3".into(), run: None, reason: None };
        let mut control = Control::default();
        let names: Vec<String> = (0..40).map(|_| asked(&mut control, &args)).collect();
        assert_eq!((names[0].as_str(), names[39].as_str()), ("retry-1", "retry-40"));
        assert_eq!((control.retry.len(), control.retry[0].request_id.as_str()), (limits::REQUESTS_MAX, "retry-9"));
    }
}
