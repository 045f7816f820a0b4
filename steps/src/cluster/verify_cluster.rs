//! `verify-cluster/v1`: the cluster itself says that the hop is done.

use super::{again, look, params};
use crate::ports::cluster::{Cluster, CordonOwner, OpsError, Readiness};
use async_trait::async_trait;
use cupcake_crds::values::NodeRole;
use cupcake_engine::names::Reason;
use cupcake_engine::step::{OnCancel, Probe, Step, StepContext, StepError, StepOutcome, Wait};

/// How soon a cluster that is not yet as it should be is looked at again, in seconds.
const AGAIN_SECONDS: i64 = 10;

/// Looks at every node that was to move, and at the API server.
pub struct VerifyCluster;

#[async_trait]
impl Step<Cluster> for VerifyCluster {
    const KIND: &'static str = "verify-cluster/v1";
    type Params = params::VerifyCluster;
    type Output = ();
    const ON_CANCEL: OnCancel = OnCancel::Leave;

    async fn probe(&self, ctx: &StepContext<'_, Cluster>, params: &Self::Params) -> Result<Probe<()>, StepError> {
        let cluster = &ctx.ports().cluster;
        let target = params.target_version;
        let wait = |code, message| Ok(Probe::Wait(Wait::shown(again(ctx, AGAIN_SECONDS), Reason::new(code, message))));
        let server = look!(cluster.server_version());
        if server != target {
            return wait("ServerBehind", format!("the API server answers with {server}, wanted {target}"));
        }
        let left_out = look!(cluster.left_out(ctx.run()));
        let nodes = look!(cluster.nodes());
        let lost = look!(cluster.lost(ctx.run()));
        // Those that failed while others were allowed to go on, whatever version they show: nobody works on them any more.
        let failed = nodes.iter().filter(|node| lost.contains_key(&node.node.name));
        let failed: Vec<_> = failed.filter(|node| super::moves(node, &params.node_selector, &left_out)).collect();
        if let Some(first) = failed.first().and_then(|node| lost.get(&node.node.name)) {
            let names: Vec<_> = failed.iter().map(|node| node.node.name.as_str()).collect();
            let is_too_old = |oldest| failed.iter().any(|node| node.kubelet.is_none_or(|kubelet| kubelet < oldest));
            let by_hand = if params.oldest_kubelet.is_some_and(is_too_old) { "upgrade by hand and " } else { "" };
            let message = format!(
                "failed within spec.maxFailures: {}; {by_hand}leave out (kubectl cupcake skip), then retry; see upgraderun {first}",
                super::named(&names)
            );
            return Err(StepError::NeedsOperator(Reason::new("NodesFailed", message)));
        }
        for node in nodes {
            let name = &node.node.name;
            let moved = super::moves(&node, &params.node_selector, &left_out);
            // Workers that fit the next hop wait for a later one, and some may be newer already.
            let waits = params.oldest_kubelet.filter(|_| node.role == NodeRole::Worker);
            let is_there = match waits {
                Some(oldest) => node.kubelet.is_some_and(|kubelet| kubelet >= oldest),
                // One that is newer already waits for the hop that gets there.
                None if params.oldest_kubelet.is_some() => node.kubelet.is_some_and(|kubelet| kubelet >= target),
                None => node.kubelet == Some(target),
            };
            let too_old = params.oldest_kubelet.filter(|oldest| node.kubelet.is_none_or(|kubelet| kubelet < *oldest));
            if let (false, Some(oldest)) = (moved || !left_out.contains(name), too_old) {
                let message = format!(
                    "{name} is left out, and the next hop takes no kubelet older than {oldest}: upgrade it by hand or take it out of the cluster, then retry"
                );
                return Err(StepError::NeedsOperator(Reason::new("LeftOutTooOld", message)));
            }
            if moved && !is_there {
                let found =
                    node.kubelet.map_or_else(|| "no readable version".to_owned(), |kubelet| kubelet.to_string());
                let wanted = waits.unwrap_or(target);
                let or_newer = if waits.is_some() { " or newer" } else { "" };
                return wait("NodeBehind", format!("{name} is at {found}, wanted {wanted}{or_newer}"));
            }
            if moved && node.readiness != Readiness::Ready {
                return wait("NodeNotReady", format!("{name} is not Ready"));
            }
            if matches!(node.cordon, CordonOwner::Run { .. }) {
                return wait("NodeCordoned", format!("{name} is still cordoned by a run"));
            }
        }
        Ok(Probe::Satisfied(()))
    }

    async fn apply(&self, ctx: &StepContext<'_, Cluster>, _: &Self::Params) -> Result<StepOutcome<()>, StepError> {
        let reason = Reason::new("Verifying", "looking at the cluster");
        Ok(StepOutcome::Wait(Wait::quiet(again(ctx, AGAIN_SECONDS), reason)))
    }
}
