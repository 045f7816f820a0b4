//! `preflight/v1`: nothing is started on a cluster that is not fit for it. Read-only.

use super::{again, params, read};
use crate::ports::cluster::{Cluster, NodeView, Readiness};
use async_trait::async_trait;
use cupcake_engine::names::Reason;
use cupcake_engine::step::{OnCancel, Probe, Step, StepContext, StepError, StepOutcome, Wait};
use std::collections::BTreeSet;

/// How often a cluster that is not fit is looked at again, in seconds.
const AGAIN_SECONDS: i64 = 10;

/// Checks every node that is to move: Ready, its agent answered, its kubelet not newer than the target.
pub struct Preflight;

#[async_trait]
impl Step<Cluster> for Preflight {
    const KIND: &'static str = "preflight/v1";
    type Params = params::Preflight;
    type Output = ();
    const ON_CANCEL: OnCancel = OnCancel::Leave;

    async fn probe(&self, _: &StepContext<'_, Cluster>, _: &Self::Params) -> Result<Probe<()>, StepError> {
        Ok(Probe::Unsatisfied)
    }

    async fn apply(&self, ctx: &StepContext<'_, Cluster>, params: &Self::Params) -> Result<StepOutcome<()>, StepError> {
        let cluster = &ctx.ports().cluster;
        let nodes = read!(ctx, cluster.nodes());
        let server = read!(ctx, cluster.server_version());
        if server > params.target_version {
            let message =
                format!("the API server is at {server}, newer than {}: set a newer target", params.target_version);
            return Err(StepError::NeedsOperator(Reason::new("Downgrade", message)));
        }
        let left_out = read!(ctx, cluster.left_out(ctx.run()));
        let moving = |node: &&NodeView| super::moves(node, &params.node_selector, &left_out);
        let newest = params.newest_kubelet.unwrap_or(params.target_version);
        let newer: Vec<_> = nodes
            .iter()
            .filter(moving)
            .filter(|node| node.kubelet.is_some_and(|kubelet| kubelet > newest))
            .map(|node| node.node.name.as_str())
            .collect();
        if !newer.is_empty() {
            let message = format!("kubelets newer than {newest}: {}", super::named(&newer));
            return Err(StepError::NeedsOperator(Reason::new("Downgrade", message)));
        }
        let unready: Vec<_> = nodes
            .iter()
            .filter(moving)
            .filter(|node| node.readiness != Readiness::Ready || node.kubelet.is_none())
            .map(|node| node.node.name.as_str())
            .collect();
        if !unready.is_empty() {
            let message = format!("not Ready: {}; nothing is started until every node is", super::named(&unready));
            return Ok(StepOutcome::Wait(Wait::shown(again(ctx, AGAIN_SECONDS), Reason::new("NodeNotReady", message))));
        }
        let answered: BTreeSet<String> = read!(ctx, cluster.tasks())
            .into_iter()
            .filter(|task| task.status.as_ref().is_some_and(|status| status.inventory.is_some()))
            .map(|task| task.spec.node_name)
            .collect();
        let silent: Vec<_> = nodes
            .iter()
            .filter(moving)
            .map(|node| node.node.name.as_str())
            .filter(|name| !answered.contains(*name))
            .collect();
        if !silent.is_empty() {
            let message = format!("no agent answered on: {}; see the agent's pod there", super::named(&silent));
            return Ok(StepOutcome::Wait(Wait::shown(again(ctx, AGAIN_SECONDS), Reason::new("AgentAbsent", message))));
        }
        Ok(StepOutcome::Done(()))
    }
}
