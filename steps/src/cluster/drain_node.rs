//! `drain-node/v1`: cordon, then evict what has to go.
//!
//! What must go is fixed at the cordon: evictable pods created until then (`DaemonSet` pods, static pods and CUPCAKE's own
//! operator stay). Evictions go through the Eviction API, so disruption budgets hold; none is ever forced.
//!
//! Source: kubernetes.io, "Safely Drain a Node" (v1.34), and "API-initiated Eviction" (v1.34).

use super::{again, look, node_subject, params, read, still_leads};
use crate::ports::cluster::{Cluster, CordonOwner, Eviction, NodeView, OpsError, PodKind, PodView};
use async_trait::async_trait;
use chrono::TimeDelta;
use cupcake_engine::clock::Timestamp;
use cupcake_engine::names::Reason;
use cupcake_engine::step::{OnCancel, Probe, Step, StepContext, StepError, StepOutcome, Wait};

/// How soon pods on their way out are looked at again, in seconds.
const LEAVING_AGAIN_SECONDS: i64 = 2;
/// How soon a refused eviction is asked for again, in seconds.
const BLOCKED_AGAIN_SECONDS: i64 = 5;
/// Pods that were created this many seconds after the cordon still count as there before it: the cordon carries this replica's
/// time, a pod the API server's, and clocks differ; and a scheduler may act on what it saw a moment ago.
const CORDON_RACE_SECONDS: i64 = 120;

/// Empties a node.
pub struct DrainNode;

#[async_trait]
impl Step<Cluster> for DrainNode {
    const KIND: &'static str = "drain-node/v1";
    type Params = params::DrainNode;
    type Output = ();
    const ON_CANCEL: OnCancel = OnCancel::Leave;

    async fn probe(&self, ctx: &StepContext<'_, Cluster>, params: &Self::Params) -> Result<Probe<()>, StepError> {
        let Some(node) = look!(node_of_plan(ctx, params)) else {
            return Ok(Probe::Unsatisfied);
        };
        let Some(cordoned) = cordoned_at(ctx, &node) else {
            return Ok(Probe::Unsatisfied);
        };
        let left = must_go(look!(ctx.ports().nodes.pods(&params.node.name)), cordoned);
        Ok(if left.is_empty() { Probe::Satisfied(()) } else { Probe::Unsatisfied })
    }

    async fn apply(&self, ctx: &StepContext<'_, Cluster>, params: &Self::Params) -> Result<StepOutcome<()>, StepError> {
        let name = params.node.name.as_str();
        let Some(node) = read!(ctx, node_of_plan(ctx, params)) else {
            return Ok(StepOutcome::Skipped(Reason::new("NodeGone", format!("node {name} of this plan is gone"))));
        };
        let cordoned = if let Some(at) = cordoned_at(ctx, &node) {
            at
        } else {
            read!(ctx, still_leads(ctx));
            match ctx.ports().nodes.cordon(&node, ctx.run_uid(), ctx.now()).await {
                Ok(()) => ctx.now(),
                Err(error) => return error.into_outcome(ctx.now()),
            }
        };
        let left = must_go(read!(ctx, ctx.ports().nodes.pods(name)), cordoned);
        if left.is_empty() {
            return Ok(StepOutcome::Done(()));
        }
        // These pods were there while this leader led: whatever lands late evicts none of their successors.
        read!(ctx, still_leads(ctx));
        let mut blocked: Vec<(String, Reason)> = Vec::new();
        for pod in left.iter().filter(|pod| !pod.terminating) {
            match ctx.ports().nodes.evict(pod).await {
                Ok(Eviction::Accepted | Eviction::Gone) => {}
                Ok(Eviction::Blocked(reason)) => blocked.push((format!("{}/{}", pod.namespace, pod.name), reason)),
                // One pod that cannot be asked about keeps the others from nothing: it is asked for again.
                Err(OpsError::Changed(reason) | OpsError::Transient(reason)) => {
                    blocked.push((format!("{}/{}", pod.namespace, pod.name), reason));
                }
                Err(error @ OpsError::NeedsOperator(_)) => return Err(error.into()),
            }
        }
        let Some((pod, reason)) = blocked.first() else {
            let message = format!("{} pods are leaving {name}", left.len());
            let wait = Wait::quiet(again(ctx, LEAVING_AGAIN_SECONDS), Reason::new("PodsLeaving", message));
            return Ok(StepOutcome::Wait(wait.on(node_subject(name))));
        };
        let others = match blocked.len() - 1 {
            0 => String::new(),
            more => format!(" ({more} more)"),
        };
        let until = ctx.deadline().format("%H:%M:%S");
        let message =
            format!("{name}: pod {pod} may not be evicted{others}: {}; trying until {until} UTC", reason.message);
        let reason = Reason::new("DrainBlocked", message);
        Ok(StepOutcome::Wait(Wait::shown(again(ctx, BLOCKED_AGAIN_SECONDS), reason)))
    }
}

async fn node_of_plan(
    ctx: &StepContext<'_, Cluster>,
    params: &params::DrainNode,
) -> Result<Option<NodeView>, OpsError> {
    let node = ctx.ports().nodes.node(&params.node.name).await?;
    Ok(node.filter(|node| node.node.uid == params.node.uid))
}

/// Since when no new pods come to the node; `None` while they may.
fn cordoned_at(ctx: &StepContext<'_, Cluster>, node: &NodeView) -> Option<Timestamp> {
    match &node.cordon {
        CordonOwner::Run { uid, at } if uid == ctx.run_uid() => Some(*at),
        CordonOwner::Other => Some(ctx.started()),
        // One that another run left and could not lift is taken over: what came since then has to go too.
        CordonOwner::Run { .. } | CordonOwner::Nobody => None,
    }
}

fn must_go(pods: Vec<PodView>, cordoned: Timestamp) -> Vec<PodView> {
    let until = cordoned + TimeDelta::seconds(CORDON_RACE_SECONDS);
    pods.into_iter()
        .filter(|pod| match pod.kind {
            PodKind::Evictable => pod.created.is_none_or(|created| created <= until),
            PodKind::Daemon | PodKind::Mirror | PodKind::Operator | PodKind::Finished => false,
        })
        .collect()
}
