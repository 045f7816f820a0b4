//! `gate/v1`: what follows waits until those who went first are well for a while, and until somebody approves.
//!
//! A gate changes nothing: whether it is open is read from nodes, the update's `spec.control.approvals` and the time, so that any
//! replica comes to the same after any crash.

use super::{again, look, params, update_subject};
use crate::ports::cluster::{Cluster, NodeView, OpsError, Readiness};
use async_trait::async_trait;
use chrono::TimeDelta;
use cupcake_engine::clock::Timestamp;
use cupcake_engine::names::Reason;
use cupcake_engine::step::{OnCancel, Probe, Step, StepContext, StepError, StepOutcome, Wait};

/// How soon it is looked again, in seconds, where no news comes.
const AGAIN_SECONDS: i64 = 30;

/// Why a gate waits that a person has to open.
pub const WAITING_FOR_APPROVAL: &str = "WaitingForApproval";

/// Opens when it may.
pub struct Gate;

#[async_trait]
impl Step<Cluster> for Gate {
    const KIND: &'static str = "gate/v1";
    type Params = params::Gate;
    type Output = params::GateOpened;
    const ON_CANCEL: OnCancel = OnCancel::Leave;

    async fn probe(
        &self,
        ctx: &StepContext<'_, Cluster>,
        params: &Self::Params,
    ) -> Result<Probe<Self::Output>, StepError> {
        let cluster = &ctx.ports().cluster;
        let mut nobody_went = false;
        if !params.nodes.is_empty() {
            let left_out = look!(cluster.left_out(ctx.run()));
            let nodes = look!(cluster.nodes());
            let watched =
                |node: &&NodeView| params.nodes.contains(&node.node.name) && !left_out.contains(&node.node.name);
            let watched: Vec<&NodeView> = nodes.iter().filter(watched).collect();
            nobody_went = watched.is_empty();
            if let Err((until, reason)) = soaked(&watched, ctx.started(), ctx.now(), params.soak_seconds) {
                return Ok(Probe::Wait(Wait::shown(until.unwrap_or_else(|| again(ctx, AGAIN_SECONDS)), reason)));
            }
        }
        let Some(gate) = params.approval.as_ref() else {
            return Ok(Probe::Satisfied(params::GateOpened { approved_by: None }));
        };
        let seen = look!(cluster.gate(ctx.run(), gate));
        if let Some(by) = seen.approved_by {
            return Ok(Probe::Satisfied(params::GateOpened { approved_by: Some(by) }));
        }
        let update = seen.update;
        let nobody = if nobody_went { "none of those that were to go first did, all were left out; " } else { "" };
        let message = format!("{nobody}waits until somebody approves: kubectl cupcake approve {update} {gate}");
        let wait = Wait::shown(again(ctx, AGAIN_SECONDS), Reason::new(WAITING_FOR_APPROVAL, message));
        Ok(Probe::Wait(wait.on(update_subject(&update))))
    }

    async fn apply(
        &self,
        ctx: &StepContext<'_, Cluster>,
        _: &Self::Params,
    ) -> Result<StepOutcome<Self::Output>, StepError> {
        Ok(StepOutcome::Wait(Wait::quiet(again(ctx, AGAIN_SECONDS), Reason::new("Gate", "looking at the gate"))))
    }
}

/// Whether all of `nodes` are Ready, and were for `seconds` since the gate was reached; if not, why, and when to look again.
fn soaked(
    nodes: &[&NodeView],
    started: Timestamp,
    now: Timestamp,
    seconds: u32,
) -> Result<(), (Option<Timestamp>, Reason)> {
    let mut well_since = started;
    for node in nodes {
        if node.readiness != Readiness::Ready {
            let message = format!("{} went first and is not Ready: the others wait until it is", node.node.name);
            return Err((None, Reason::new("CanaryNotReady", message)));
        }
        well_since = well_since.max(node.readiness_since.unwrap_or(started));
    }
    let until = well_since + TimeDelta::seconds(i64::from(seconds));
    if now >= until {
        return Ok(());
    }
    let message = format!("those that went first are watched until {}", until.format("%Y-%m-%dT%H:%M:%SZ"));
    Err((Some(until), Reason::new("Soaking", message)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::cluster::CordonOwner;
    use cupcake_crds::values::{NodeRef, NodeRole};
    use std::collections::BTreeMap;

    #[test]
    fn a_soak_begins_anew_when_a_node_that_went_first_was_away() {
        let at = |seconds: i64| Timestamp::from_timestamp(1_790_000_000 + seconds, 0).unwrap();
        let node = |readiness, since: i64| NodeView {
            node: NodeRef { name: "w-1".into(), uid: "u".into() },
            resource_version: "1".into(),
            role: NodeRole::Worker,
            kubelet: None,
            readiness,
            readiness_since: Some(at(since)),
            heartbeat: None,
            cordon: CordonOwner::Nobody,
            labels: BTreeMap::new(),
        };
        let well = node(Readiness::Ready, -600);
        let until = |nodes: &[&NodeView], now| {
            soaked(nodes, at(0), at(now), 300).map_err(|(until, reason)| (until, reason.code))
        };
        assert_eq!(until(&[&well], 299), Err((Some(at(300)), "Soaking".into())));
        assert_eq!(until(&[&well], 300), Ok(()));
        assert_eq!(until(&[&well, &node(Readiness::Ready, 100)], 300), Err((Some(at(400)), "Soaking".into())));
        assert_eq!(until(&[&well, &node(Readiness::NotReady, 100)], 900), Err((None, "CanaryNotReady".into())));
        assert_eq!(until(&[], 300), Ok(()), "those that are gone hold nobody up");
    }
}
