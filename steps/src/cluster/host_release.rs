//! `host-release/v1`: no order of this run is left open on the node, whatever became of the vertices that placed it.
//!
//! Guarded by the vertex that places the order, so that it runs in any case: an order that was answered costs it nothing. One that
//! waits for a drain that failed, or that was cancelled, is asked to stop; the machine answers at its next safe point, and only
//! then may another run order something there.

use super::{again, look, params, read, task_subject};
use crate::ports::cluster::{Cluster, OpsError};
use async_trait::async_trait;
use cupcake_crds::NodeTask;
use cupcake_crds::node_task::{Order, TaskState};
use cupcake_engine::names::Reason;
use cupcake_engine::step::{Probe, Step, StepContext, StepError, StepOutcome, Wait};

/// How soon a node that was asked to stop is looked at again, in seconds.
const AGAIN_SECONDS: i64 = 30;
/// After how long a node that has not stopped yet is shown as a stall, in seconds.
const STOPPING_SECONDS_MAX: i64 = 60;

/// Asks an order that nobody waits for any more to stop, and waits for the answer.
pub struct HostRelease;

#[async_trait]
impl Step<Cluster> for HostRelease {
    const KIND: &'static str = "host-release/v1";
    type Params = params::HostRelease;
    type Output = ();

    async fn probe(&self, ctx: &StepContext<'_, Cluster>, params: &Self::Params) -> Result<Probe<()>, StepError> {
        let name = params.node.name.as_str();
        let Some(task) = look!(ctx.ports().nodes.task(name)) else {
            return Ok(Probe::Satisfied(()));
        };
        let Some(order) = open_order(ctx, params, &task) else {
            return Ok(Probe::Satisfied(()));
        };
        if !order.stop {
            return Ok(Probe::Unsatisfied);
        }
        let Some(state) = task.answer() else {
            // Nobody took it, and an order that asks to stop is taken by nobody.
            return Ok(Probe::Satisfied(()));
        };
        let step = task.status.as_ref().and_then(|status| status.step.clone()).unwrap_or_else(|| state.to_string());
        let reason = Reason::new("Stopping", format!("{name} was asked to stop and is still at {step}"));
        let long = (ctx.now() - ctx.started()).num_seconds() >= STOPPING_SECONDS_MAX;
        let wait = if long { Wait::shown } else { Wait::quiet };
        Ok(Probe::Wait(wait(again(ctx, AGAIN_SECONDS), reason).on(task_subject(name))))
    }

    async fn apply(&self, ctx: &StepContext<'_, Cluster>, params: &Self::Params) -> Result<StepOutcome<()>, StepError> {
        let name = params.node.name.as_str();
        let nodes = &ctx.ports().nodes;
        let task = read!(ctx, nodes.task(name));
        let Some(task) = task.filter(|task| open_order(ctx, params, task).is_some()) else {
            return Ok(StepOutcome::Done(()));
        };
        match nodes.stop(&task, ctx.epoch()).await {
            Ok(()) => {
                let reason = Reason::new("Stopping", format!("{name} was asked to stop"));
                Ok(StepOutcome::Wait(Wait::quiet(again(ctx, AGAIN_SECONDS), reason).on(task_subject(name))))
            }
            Err(error) => error.into_outcome(ctx.now()),
        }
    }
}

/// The order of one of the vertices in the mailbox of that very node that has no final answer.
fn open_order<'t>(
    ctx: &StepContext<'_, Cluster>,
    params: &params::HostRelease,
    task: &'t NodeTask,
) -> Option<&'t Order> {
    let order = task.spec.order.as_ref()?;
    let ours = task.spec.node_uid == params.node.uid
        && order.key.run_uid == ctx.run_uid()
        && params.order_vertices.iter().any(|vertex| vertex.as_str() == order.key.vertex);
    (ours && !task.answer().is_some_and(TaskState::is_final)).then_some(order)
}
