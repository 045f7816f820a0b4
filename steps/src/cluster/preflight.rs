//! `preflight/v1`: nothing is started on a cluster that is not fit for it. Read-only.

use super::{again, params, read};
use crate::ports::cluster::{Cluster, NodeView, Readiness};
use async_trait::async_trait;
use cupcake_crds::values::NodeRole;
use cupcake_engine::names::Reason;
use cupcake_engine::step::{OnCancel, Probe, Step, StepContext, StepError, StepOutcome, Wait};
use std::collections::BTreeSet;

/// How often a cluster that is not fit is looked at again, in seconds.
const AGAIN_SECONDS: i64 = 10;

/// The beginning of what is told where workers alone are not Ready: the run goes on without those that are left out.
const WORKERS_NOT_READY: &str = "workers not Ready: ";

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
        let is_unready = |node: &&NodeView| node.readiness != Readiness::Ready || node.kubelet.is_none();
        let unready: Vec<&NodeView> = nodes.iter().filter(moving).filter(is_unready).collect();
        if !unready.is_empty() {
            let message = not_ready(&unready);
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

/// That nodes are not Ready, and what is to be done: the control plane moves as a whole, a worker may be left out.
fn not_ready(nodes: &[&NodeView]) -> String {
    let names: Vec<&str> = nodes.iter().map(|node| node.node.name.as_str()).collect();
    let names = super::named(&names);
    if nodes.iter().all(|node| node.role == NodeRole::Worker) {
        format!("{WORKERS_NOT_READY}{names}; nothing is started until they are, or are left out (kubectl cupcake skip)")
    } else {
        format!("not Ready: {names}; nothing is started until every node is")
    }
}

/// The workers without which a run could go on, by what this step says that it waits for or has failed by, as far as it names them.
pub fn workers_named(reason: &str) -> Vec<&str> {
    let told = reason.split_once(WORKERS_NOT_READY).map_or("", |(_, told)| told);
    let list = told.split(';').next().and_then(|list| list.split(" and ").next()).unwrap_or_default();
    list.split(", ").filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::cluster::CordonOwner;
    use cupcake_crds::values::NodeRef;
    use std::collections::BTreeMap;

    #[test]
    fn workers_that_hold_a_start_are_named_and_can_be_left_out_and_nodes_of_the_control_plane_cannot() {
        let node = |name: &str, role| NodeView {
            node: NodeRef { name: name.into(), uid: name.into() },
            resource_version: "1".into(),
            role,
            kubelet: None,
            readiness: Readiness::Unknown,
            readiness_since: None,
            heartbeat: None,
            cordon: CordonOwner::Nobody,
            labels: BTreeMap::new(),
        };
        let workers: Vec<NodeView> = (1..=7).map(|n| node(&format!("w-{n}"), NodeRole::Worker)).collect();
        let told = |nodes: &[&NodeView]| not_ready(nodes);
        assert!(
            told(&[&workers[0]]).starts_with("workers not Ready: w-1; nothing is started until they are, or are left")
        );
        assert_eq!(workers_named(&told(&[&workers[0]])), ["w-1"]);
        let failed =
            format!("not done within 900 s; last: NodeNotReady: {}", told(&workers.iter().collect::<Vec<_>>()));
        assert_eq!(workers_named(&failed), ["w-1", "w-2", "w-3", "w-4", "w-5"], "{failed}");
        let all = told(&[&node("cp-1", NodeRole::ControlPlane), &workers[0]]);
        assert_eq!((workers_named(&all), all.starts_with("not Ready: cp-1, w-1;")), (Vec::new(), true));
    }
}
