//! `host-proceed/v1`: the second part of an order on a drained node, until the Node shows it.
//!
//! A kubelet of a new minor restarts its static pods a moment after its Node is Ready again. On a control-plane node the next one is
//! therefore not begun before API server, controller manager, scheduler and etcd were ready for the soak, too: etcd's pod is
//! ready when its member serves (kubeadm's probe), the API server's when it reaches etcd's quorum.
//!
//! A Node stays Ready for a while after its kubelet has ended. Its new version shows that the new process reports; where that stood
//! there before (a second attempt), the machine's answer says since when the process runs, and a report that is newer shows it, both
//! by the machine's own clock. A kubelet reports when something changes or five minutes are over, so none may come: then the node is
//! watched for as long as it takes until it would no longer be Ready.
//!
//! Source: kubernetes.io, "Node Status", "Heartbeats" (v1.34).

use super::host_order::{Proceed, answer, gave_up, gave_up_before, holds, own_key, place};
use super::{again, look, node_subject, params, read, task_subject};
use crate::host::params::KUBELET_STARTED;
use crate::ports::cluster::{Cluster, NodeView, OpsError, PodKind, PodView, Readiness};
use async_trait::async_trait;
use chrono::TimeDelta;
use cupcake_crds::NodeTask;
use cupcake_crds::node_task::TaskState;
use cupcake_crds::values::{NodeRole, OrderKey};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::names::Reason;
use cupcake_engine::step::{OnCancel, Probe, Step, StepContext, StepError, StepOutcome, Wait};

/// How soon a node that is not yet as it should be is looked at again, in seconds.
const AGAIN_SECONDS: i64 = 15;
/// After how long a node that answered Done but is not Ready at the version is shown as a stall, in seconds.
const UNREADY_SECONDS_MAX: i64 = 60;

/// After how long a Node whose kubelet does not report is no longer Ready, in seconds: the controller manager's grace period (40 s, 50 s
/// from 1.32 on) and the time between two of its looks.
const SILENT_SECONDS_MAX: i64 = 60;

/// The static pods of a control plane that kubeadm made; those of another manager are not known here.
const STATIC_PODS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// Lets the node's order proceed; done when it is answered Done and the Node was Ready at the version for the soak.
pub struct HostProceed;

#[async_trait]
impl Step<Cluster> for HostProceed {
    const KIND: &'static str = "host-proceed/v1";
    type Params = params::HostProceed;
    type Output = params::HostOutputs;
    const ON_CANCEL: OnCancel = OnCancel::Stop;

    async fn probe(
        &self,
        ctx: &StepContext<'_, Cluster>,
        params: &Self::Params,
    ) -> Result<Probe<Self::Output>, StepError> {
        let Some(task) = look!(ctx.ports().nodes.task(&params.order.node.name)) else {
            return Ok(Probe::Unsatisfied);
        };
        if task.spec.node_uid != params.order.node.uid {
            return Ok(Probe::Unsatisfied);
        }
        match whose(ctx, params, &task) {
            Whose::Nobody => return Ok(Probe::Unsatisfied),
            Whose::First if gave_up(&task) && !ctx.is_first_attempt() => return Ok(Probe::Unsatisfied),
            Whose::Own if gave_up_before(&task, ctx.attempt()) => return Ok(Probe::Unsatisfied),
            Whose::First | Whose::Own => {}
        }
        let proceeds = task.spec.order.as_ref().is_some_and(|order| order.proceed);
        // Once it proceeds the machine goes on to its end: a kubelet that is installed and not restarted helps nobody.
        let unclaimed = task.answer().is_none();
        let given_up = ctx.is_given_up() && unclaimed;
        if (!proceeds || given_up) && !task.answer().is_some_and(TaskState::is_final) {
            return Ok(Probe::Unsatisfied);
        }
        match answer(ctx, &task, false)? {
            Probe::Satisfied(outputs) => verified(ctx, params, &task, outputs).await,
            other => Ok(other),
        }
    }

    async fn apply(
        &self,
        ctx: &StepContext<'_, Cluster>,
        params: &Self::Params,
    ) -> Result<StepOutcome<Self::Output>, StepError> {
        let name = params.order.node.name.as_str();
        let nodes = &ctx.ports().nodes;
        let task = read!(ctx, nodes.task(name)).filter(|task| task.spec.node_uid == params.order.node.uid);
        let Some(task) = task else {
            return place(ctx, &params.order, Proceed::AtOnce).await;
        };
        match whose(ctx, params, &task) {
            Whose::First if !gave_up(&task) => {}
            Whose::Own if !gave_up_before(&task, ctx.attempt()) => {}
            Whose::First | Whose::Own | Whose::Nobody => return place(ctx, &params.order, Proceed::AtOnce).await,
        }
        match nodes.proceed(&task, ctx.epoch()).await {
            Ok(()) => {
                let reason = Reason::new("Proceeding", format!("{name} proceeds"));
                Ok(StepOutcome::Wait(Wait::quiet(again(ctx, AGAIN_SECONDS), reason).on(task_subject(name))))
            }
            Err(error) => error.into_outcome(ctx.now()),
        }
    }
}

/// Whose order stands in the mailbox.
enum Whose {
    /// That of the vertex that placed the first order.
    First,
    /// This vertex's own, of this attempt.
    Own,
    /// Neither's.
    Nobody,
}

fn whose(ctx: &StepContext<'_, Cluster>, params: &params::HostProceed, task: &NodeTask) -> Whose {
    let first = OrderKey {
        run_uid: ctx.run_uid().to_owned(),
        vertex: params.order_vertex.as_str().to_owned(),
        attempt: ctx.attempts_of(&params.order_vertex),
    };
    if holds(task, &first) {
        Whose::First
    } else if holds(task, &own_key(ctx)) {
        Whose::Own
    } else {
        Whose::Nobody
    }
}

/// Is the Node as the answer says? The answer alone is no proof.
async fn verified(
    ctx: &StepContext<'_, Cluster>,
    params: &params::HostProceed,
    task: &NodeTask,
    mut outputs: params::HostOutputs,
) -> Result<Probe<params::HostOutputs>, StepError> {
    let name = params.order.node.name.as_str();
    // Good for this look alone: a batch of hundreds of nodes would fill the cursor with it.
    let started = outputs.0.remove(KUBELET_STARTED).and_then(|started| started.parse::<Timestamp>().ok());
    let target = params.order.target_version;
    let answered = task.status.as_ref().and_then(|status| status.updated_at).unwrap_or(ctx.started());
    let Some(node) = look!(ctx.ports().nodes.node(name)) else {
        return Ok(Probe::Unsatisfied);
    };
    let as_wanted = node.kubelet == Some(target) && node.readiness == Readiness::Ready;
    if !as_wanted {
        let kubelet = node.kubelet.map_or_else(|| "an unreadable version".to_owned(), |kubelet| kubelet.to_string());
        let message = format!("{name} is {:?} with kubelet {kubelet}, wanted Ready with {target}", node.readiness);
        let reason = Reason::new("NodeNotReady", message);
        let long = (ctx.now() - answered).num_seconds() >= UNREADY_SECONDS_MAX;
        let wait = if long { Wait::shown } else { Wait::quiet };
        return Ok(Probe::Wait(wait(again(ctx, AGAIN_SECONDS), reason).on(node_subject(name))));
    }
    let mut since = node.readiness_since.map_or(answered, |since| since.max(answered));
    if node.role == NodeRole::ControlPlane {
        let pods = look!(ctx.ports().nodes.pods(name));
        match static_pods_ready_since(&pods, name) {
            Ok(ready) => since = since.max(ready),
            Err(problem) => {
                let reason = Reason::new("StaticPodNotReady", format!("{name} is Ready with {target}, but {problem}"));
                let long = (ctx.now() - answered).num_seconds() >= UNREADY_SECONDS_MAX;
                let wait = if long { Wait::shown } else { Wait::quiet };
                return Ok(Probe::Wait(wait(again(ctx, AGAIN_SECONDS), reason).on(node_subject(name))));
            }
        }
    }
    let soaked = since + TimeDelta::seconds(i64::from(params.soak_seconds));
    let soaked = unheard_until(&node, started).map_or(soaked, |until| until.max(soaked));
    if ctx.now() < soaked {
        let reason = Reason::new("Soaking", format!("{name} is Ready with {target}; watching that it stays so"));
        return Ok(Probe::Wait(Wait::quiet(soaked, reason).on(node_subject(name))));
    }
    Ok(Probe::Satisfied(outputs))
}

/// Until when a Node that is Ready may be so by what another process of its kubelet has reported; `None` where the present one has.
fn unheard_until(node: &NodeView, started: Option<Timestamp>) -> Option<Timestamp> {
    // A report carries whole seconds.
    let is_older = |heartbeat: Timestamp, started: Timestamp| heartbeat.timestamp() < started.timestamp();
    let started = started.filter(|started| node.heartbeat.is_some_and(|heartbeat| is_older(heartbeat, *started)))?;
    Some(started + TimeDelta::seconds(SILENT_SECONDS_MAX))
}

/// Since when all static pods of a control-plane node are ready, or which of them are not.
fn static_pods_ready_since(pods: &[PodView], node: &str) -> Result<Timestamp, String> {
    let (mut since, mut unready) = (Timestamp::MIN_UTC, Vec::new());
    for component in STATIC_PODS {
        let name = format!("{component}-{node}");
        let of_it = |pod: &&PodView| pod.kind == PodKind::Mirror && pod.namespace == "kube-system" && pod.name == name;
        match pods.iter().find(of_it).and_then(|pod| pod.ready_since) {
            Some(ready) => since = since.max(ready),
            None => unready.push(component),
        }
    }
    if unready.is_empty() { Ok(since) } else { Err(format!("{} not ready there", unready.join(", "))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::cluster::CordonOwner;
    use chrono::DateTime;
    use cupcake_crds::values::NodeRef;
    use std::collections::BTreeMap;

    fn at(seconds: i64) -> Timestamp {
        DateTime::from_timestamp(1_790_000_000 + seconds, 0).unwrap()
    }

    fn pod(component: &str, ready_since: Option<Timestamp>) -> PodView {
        PodView {
            namespace: "kube-system".into(),
            name: format!("{component}-cp-1"),
            uid: component.into(),
            labels: BTreeMap::new(),
            kind: PodKind::Mirror,
            created: None,
            terminating: false,
            grace_seconds: 30,
            ends: None,
            finalizers: Vec::new(),
            claims: Vec::new(),
            ready_since,
            empty_dir: false,
            unmanaged: false,
        }
    }

    #[test]
    fn a_node_that_has_not_heard_of_its_kubelet_since_its_start_is_watched_until_it_would_no_longer_be_ready() {
        let until = |heartbeat: Option<i64>, started: Option<i64>| {
            let node = NodeView {
                node: NodeRef { name: "w-1".into(), uid: "u".into() },
                resource_version: "1".into(),
                role: NodeRole::Worker,
                kubelet: None,
                readiness: Readiness::Ready,
                readiness_since: None,
                heartbeat: heartbeat.map(at),
                cordon: CordonOwner::Nobody,
                labels: BTreeMap::new(),
            };
            unheard_until(&node, started.map(|started| at(started) + TimeDelta::milliseconds(700)))
        };
        assert_eq!(until(Some(99), Some(100)), Some(at(160) + TimeDelta::milliseconds(700)));
        assert_eq!(
            (until(Some(100), Some(100)), until(Some(103), Some(100))),
            (None, None),
            "the process has reported"
        );
        assert_eq!(
            (until(Some(99), None), until(None, Some(100))),
            (None, None),
            "an older runner, and a Node without a time"
        );
    }

    #[test]
    fn a_control_plane_node_is_ready_when_the_last_of_its_static_pods_is() {
        let mut pods: Vec<PodView> = STATIC_PODS.iter().map(|component| pod(component, Some(at(5)))).collect();
        assert_eq!(static_pods_ready_since(&pods, "cp-1"), Ok(at(5)));
        pods[0].ready_since = Some(at(40));
        assert_eq!(static_pods_ready_since(&pods, "cp-1"), Ok(at(40)), "etcd restarted");
        pods[0].ready_since = None;
        pods[3].kind = PodKind::Evictable;
        let told = static_pods_ready_since(&pods, "cp-1");
        assert_eq!(told, Err("etcd, kube-scheduler not ready there".to_owned()), "a pod of that name is no static pod");
        assert!(static_pods_ready_since(&pods, "cp-2").is_err(), "another node's are not asked for");
    }
}
