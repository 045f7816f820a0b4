//! `uncordon-node/v1`: what we cordoned is uncordoned; what somebody else cordoned stays.

use super::{look, params, read, still_leads};
use crate::ports::cluster::{Cluster, CordonOwner, OpsError};
use async_trait::async_trait;
use cupcake_engine::names::Reason;
use cupcake_engine::step::{Probe, Step, StepContext, StepError, StepOutcome};

/// Makes the node schedulable again.
pub struct UncordonNode;

#[async_trait]
impl Step<Cluster> for UncordonNode {
    const KIND: &'static str = "uncordon-node/v1";
    type Params = params::UncordonNode;
    type Output = ();

    async fn probe(&self, ctx: &StepContext<'_, Cluster>, params: &Self::Params) -> Result<Probe<()>, StepError> {
        let node = look!(ctx.ports().nodes.node(&params.node.name));
        Ok(match node.map(|node| node.cordon) {
            Some(CordonOwner::Nobody | CordonOwner::Other) => Probe::Satisfied(()),
            Some(CordonOwner::Run { uid, .. }) if uid != ctx.run_uid() => Probe::Satisfied(()),
            Some(CordonOwner::Run { .. }) | None => Probe::Unsatisfied,
        })
    }

    async fn apply(&self, ctx: &StepContext<'_, Cluster>, params: &Self::Params) -> Result<StepOutcome<()>, StepError> {
        let name = params.node.name.as_str();
        let Some(node) = read!(ctx, ctx.ports().nodes.node(name)) else {
            return Ok(StepOutcome::Skipped(Reason::new(
                super::NODE_GONE,
                format!("node {name} of this plan is gone"),
            )));
        };
        read!(ctx, still_leads(ctx));
        match ctx.ports().nodes.uncordon(&node, ctx.run_uid()).await {
            Ok(()) => Ok(StepOutcome::Done(())),
            Err(error) => error.into_outcome(ctx.now()),
        }
    }
}
