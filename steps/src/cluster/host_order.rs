//! `host-order/v1`: host work for one node, ordered through its NodeTask.

use super::{NODE_GONE, again, look, params, read, task_subject};
use crate::host::params::{
    CHECK_ETCD, CONTROL_PLANE, ETCD_SNAPSHOT, EtcdSnapshot, KUBEADM_UPGRADE, PULL_WORKER_IMAGES, SNAPSHOT_STEP,
    SNAPSHOT_TAKEN, SUCCESS_OF, SUCCESS_OF_MAX, host_step, success_of,
};
use crate::mailbox::run_name;
use crate::ports::cluster::{Cluster, OpsError};
use async_trait::async_trait;
use cupcake_crds::NodeTask;
use cupcake_crds::node_task::{ErrorClass, Order, TaskState};
use cupcake_crds::values::{HostStep, NodeRole, OrderKey};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::names::Reason;
use cupcake_engine::step::{OnCancel, Probe, Step, StepContext, StepError, StepOutcome, Wait};
use serde_json::Value;

/// How soon an order is looked at again that nobody reported on, in seconds.
const AGAIN_SECONDS: i64 = 30;
/// After how long an order that no agent claimed is shown as a stall, in seconds.
const UNCLAIMED_SECONDS_MAX: i64 = 60;

/// Places the order and waits for its first part; for all of it where there is no second.
pub struct HostOrder;

#[async_trait]
impl Step<Cluster> for HostOrder {
    const KIND: &'static str = "host-order/v1";
    type Params = params::HostOrder;
    type Output = params::HostOutputs;
    const ON_CANCEL: OnCancel = OnCancel::Stop;

    async fn probe(
        &self,
        ctx: &StepContext<'_, Cluster>,
        params: &Self::Params,
    ) -> Result<Probe<Self::Output>, StepError> {
        let Some(task) = look!(ctx.ports().nodes.task(&params.node.name)) else {
            return Ok(Probe::Unsatisfied);
        };
        if task.spec.node_uid != params.node.uid || !holds(&task, &own_key(ctx)) || gave_up_before(&task, ctx.attempt())
        {
            return Ok(Probe::Unsatisfied);
        }
        if ctx.is_given_up() && !task.answer().is_some_and(TaskState::is_final) {
            // Nobody waits for it any more: its `host-release/v1` asks the machine to stop.
            return Ok(Probe::Unsatisfied);
        }
        answer(ctx, &task, !params.finish.is_empty())
    }

    async fn apply(
        &self,
        ctx: &StepContext<'_, Cluster>,
        params: &Self::Params,
    ) -> Result<StepOutcome<Self::Output>, StepError> {
        place(ctx, params, Proceed::NotYet).await
    }
}

/// Whether the second part may begin at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proceed {
    /// After the node was drained.
    NotYet,
    /// The node is drained.
    AtOnce,
}

/// The token of the order that this vertex places in this attempt.
pub(super) fn own_key(ctx: &StepContext<'_, Cluster>) -> OrderKey {
    OrderKey { run_uid: ctx.run_uid().to_owned(), vertex: ctx.vertex().as_str().to_owned(), attempt: ctx.attempt() }
}

/// Whether the mailbox holds an order of that run and vertex, of that attempt or an earlier one: an attempt that ended for
/// another reason than the node's answer leaves its order at work, and the next attempt goes on with it.
pub(super) fn holds(task: &NodeTask, key: &OrderKey) -> bool {
    task.spec.order.as_ref().is_some_and(|order| {
        order.key.run_uid == key.run_uid && order.key.vertex == key.vertex && order.key.attempt <= key.attempt
    })
}

/// Whether the order in the mailbox is of an attempt before `attempt` and came to nothing: it is to be placed anew.
pub(super) fn gave_up_before(task: &NodeTask, attempt: u32) -> bool {
    let earlier = task.spec.order.as_ref().is_some_and(|order| order.key.attempt < attempt);
    earlier && gave_up(task)
}

/// Whether the order in the mailbox came to nothing.
pub(super) fn gave_up(task: &NodeTask) -> bool {
    matches!(task.answer(), Some(TaskState::Failed | TaskState::Refused | TaskState::Stopped))
}

/// Puts the order of this vertex and attempt into the node's mailbox, and waits.
pub(super) async fn place<T>(
    ctx: &StepContext<'_, Cluster>,
    params: &params::HostOrder,
    proceed: Proceed,
) -> Result<StepOutcome<T>, StepError> {
    let nodes = &ctx.ports().nodes;
    let name = params.node.name.as_str();
    match read!(ctx, nodes.node(name)) {
        Some(node) if node.node.uid == params.node.uid => {}
        // Without the backup, or a control-plane node's part, the rest must not go on as if it were done.
        Some(_) | None if params.finish.is_empty() => {
            let message = format!(
                "node {name} of this plan is gone: cancel this update and apply a new one (a control plane's member of etcd has to be removed before)"
            );
            return Err(StepError::NeedsOperator(Reason::new(NODE_GONE, message)));
        }
        Some(_) | None => {
            let message = format!("node {name} of this plan is gone");
            return Ok(StepOutcome::Skipped(Reason::new(NODE_GONE, message)));
        }
    }
    let wait = |seconds, reason| Ok(StepOutcome::Wait(Wait::quiet(again(ctx, seconds), reason).on(task_subject(name))));
    let Some(task) = read!(ctx, nodes.task(name)) else {
        return wait(AGAIN_SECONDS, Reason::new("NoMailbox", format!("NodeTask {name} is being created")));
    };
    if task.claimed().is_some() && !task.answer().is_some_and(TaskState::is_final) {
        let message = format!("node {name} is still at work on another order; it goes on when that is answered");
        let reason = Reason::new("NodeBusy", message);
        return Ok(StepOutcome::Wait(Wait::shown(again(ctx, AGAIN_SECONDS), reason).on(task_subject(name))));
    }
    let before = orders_before(ctx, params, &task);
    let mut prepare = known_to(&task, going_on(&prepare_of(ctx, params), &before));
    if prepare.iter().any(|step| step.kind == CHECK_ETCD) {
        let nodes = read!(ctx, ctx.ports().cluster.nodes());
        let control_plane = nodes.into_iter().filter(|node| node.role == NodeRole::ControlPlane);
        tell_control_plane(&mut prepare, control_plane.map(|node| node.node.name).collect());
    }
    let order = Order {
        deadline_seconds: params.work_seconds_max,
        epoch: ctx.epoch().0,
        finish: going_on(&params.finish, &before),
        key: own_key(ctx),
        prepare,
        proceed: proceed == Proceed::AtOnce,
        stop: false,
        target_version: params.target_version,
        traceparent: None,
    };
    match nodes.place_order(&task, order).await {
        Ok(()) => wait(AGAIN_SECONDS, Reason::new("Ordered", format!("ordered on {name}"))),
        Err(error) => error.into_outcome(ctx.now()),
    }
}

/// The orders of the attempts before, the newest first, where this one goes on by itself: what they recorded on the machine counts.
/// A person who asks for the node again may have changed what kubeadm reads.
fn orders_before(ctx: &StepContext<'_, Cluster>, params: &params::HostOrder, task: &NodeTask) -> Vec<String> {
    let Some(order) = task.spec.order.as_ref().filter(|_| !ctx.is_first_attempt()) else {
        return Vec::new();
    };
    if order.key.run_uid != ctx.run_uid() || order.target_version != params.target_version {
        return Vec::new();
    }
    let of_before = order.prepare.iter().chain(&order.finish).filter(|step| step.kind == KUBEADM_UPGRADE);
    let newest = std::iter::once(run_name(&order.key).to_string());
    newest.chain(of_before.flat_map(success_of)).take(SUCCESS_OF_MAX).collect()
}

/// The steps, with kubeadm's told whose success counts as its own.
fn going_on(steps: &[HostStep], before: &[String]) -> Vec<HostStep> {
    let mut steps = steps.to_vec();
    if !before.is_empty() {
        for step in steps.iter_mut().filter(|step| step.kind == KUBEADM_UPGRADE) {
            step.params.insert(SUCCESS_OF.to_owned(), before.into());
        }
    }
    steps
}

/// The steps without those that the node can do without and its runner is not known to have: agents and runners of a release before
/// take a while to be replaced, and refuse an order whole that holds a step which they do not know.
fn known_to(task: &NodeTask, mut steps: Vec<HostStep>) -> Vec<HostStep> {
    let inventory = task.status.as_ref().and_then(|status| status.inventory.as_ref());
    let knows = |kind: &str| inventory.is_some_and(|found| found.runner_kinds.iter().any(|known| known == kind));
    let can_do_without = |kind: &str| kind == PULL_WORKER_IMAGES || kind == CHECK_ETCD;
    steps.retain(|step| !can_do_without(&step.kind) || knows(&step.kind));
    steps
}

/// Tells the look at etcd who the control-plane nodes are by now: one may have joined, or gone, since the plan was made.
fn tell_control_plane(steps: &mut [HostStep], nodes: Vec<String>) {
    let nodes = Value::from(nodes);
    for step in steps.iter_mut().filter(|step| step.kind == CHECK_ETCD) {
        step.params.insert(CONTROL_PLANE.to_owned(), nodes.clone());
    }
}

/// The first part of the order. It begins with a snapshot of etcd where the one that the work asks for is too old by now: the run was
/// held between the two (ADR 0016). Nothing holds an order, so no time passes between that snapshot and the work.
fn prepare_of(ctx: &StepContext<'_, Cluster>, params: &params::HostOrder) -> Vec<HostStep> {
    let mut prepare = params.prepare.clone();
    if let Some(wanted) = &params.snapshot {
        let outputs: Option<params::HostOutputs> = ctx.output_of(&wanted.vertex);
        if !is_fresh(wanted, outputs.as_ref(), ctx.succeeded_at(&wanted.vertex), ctx.now()) {
            // Of another name in each attempt: a finished one of that name is never taken anew.
            let snapshot = EtcdSnapshot { name: format!("{}-{}", wanted.name, ctx.attempt()) };
            prepare.insert(0, host_step(SNAPSHOT_STEP, ETCD_SNAPSHOT, &snapshot));
        }
    }
    prepare
}

/// Whether that snapshot is there, and as new as it is wanted. The machine says when it took it, by a clock that may be ahead: it is no
/// newer than its record, whose time is an operator's.
fn is_fresh(
    wanted: &params::FreshSnapshot,
    outputs: Option<&params::HostOutputs>,
    recorded: Option<Timestamp>,
    now: Timestamp,
) -> bool {
    let taken = outputs.and_then(|outputs| outputs.0.get(SNAPSHOT_TAKEN)?.parse::<Timestamp>().ok());
    let taken = taken.zip(recorded).map(|(taken, recorded)| taken.min(recorded));
    taken.is_some_and(|taken| (now - taken).num_seconds() <= i64::from(wanted.age_seconds_max))
}

/// What the node's answer to the present order means. `prepared_is_enough`: there is a second part, not yet wanted.
pub(super) fn answer(
    ctx: &StepContext<'_, Cluster>,
    task: &NodeTask,
    prepared_is_enough: bool,
) -> Result<Probe<params::HostOutputs>, StepError> {
    let name = task.spec.node_name.as_str();
    let status = task.status.clone().unwrap_or_default();
    let wait = |reason| Ok(Probe::Wait(Wait::quiet(again(ctx, AGAIN_SECONDS), reason).on(task_subject(name))));
    let failure = |class: ErrorClass, fallback: &str| {
        let (code, message) = match &status.error {
            Some(error) => (error.code.clone(), error.message.clone()),
            None => (fallback.to_owned(), "the node gave no reason".to_owned()),
        };
        let reason = Reason::new(code, format!("{name}: {message}"));
        match class {
            ErrorClass::Transient => StepError::Transient(reason),
            ErrorClass::Permanent => StepError::Permanent(reason),
            ErrorClass::NeedsOperator => StepError::NeedsOperator(reason),
        }
    };
    let class = status.error.as_ref().map_or(ErrorClass::Transient, |error| error.class);
    let refused = status.error.as_ref().map_or(ErrorClass::NeedsOperator, |error| error.class);
    match task.answer() {
        None => {
            let heard = last_heard(ctx.started(), status.updated_at);
            if (ctx.now() - heard).num_seconds() < UNCLAIMED_SECONDS_MAX {
                return wait(Reason::new("Ordered", format!("ordered on {name}")));
            }
            let reason = Reason::new("AgentAbsent", format!("no agent on {name} took the order; see its pod there"));
            Ok(Probe::Wait(Wait::shown(again(ctx, AGAIN_SECONDS), reason).on(task_subject(name))))
        }
        Some(TaskState::Claimed | TaskState::Working) => {
            let step = status.step.as_deref().unwrap_or("its first step");
            let Some(waiting) = &status.waiting else {
                return wait(Reason::new("HostWorking", format!("{name} is at {step}")));
            };
            let reason = Reason::new(waiting.code.clone(), format!("{name} at {step}: {}", waiting.message));
            Ok(Probe::Wait(Wait::shown(again(ctx, AGAIN_SECONDS), reason).on(task_subject(name))))
        }
        Some(TaskState::Prepared) if prepared_is_enough => Ok(Probe::Satisfied(params::HostOutputs(status.outputs))),
        Some(TaskState::Prepared) => wait(Reason::new("HostPrepared", format!("{name} waits to proceed"))),
        Some(TaskState::Done) => Ok(Probe::Satisfied(params::HostOutputs(status.outputs))),
        Some(TaskState::Failed) => Err(failure(class, "HostWorkFailed")),
        // Whoever stopped it wants it stopped: another attempt would begin the work anew.
        Some(TaskState::Stopped) => Err(failure(ErrorClass::NeedsOperator, "HostWorkStopped")),
        Some(TaskState::Refused) => Err(failure(refused, "OrderRefused")),
    }
}

/// Since when the agent owes an answer: from the start, or from its last word. A second attempt follows an answer to the first
/// one, long after the start, and no order says when it was placed.
fn last_heard(started: Timestamp, answered: Option<Timestamp>) -> Timestamp {
    answered.map_or(started, |answered| answered.max(started))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kubeadms_step_is_told_whose_success_counts_and_only_where_there_is_an_attempt_before() {
        let step = |kind: &str| HostStep { name: kind.into(), kind: kind.into(), params: serde_json::Map::new() };
        let steps = [step("install-packages/v1"), step(KUBEADM_UPGRADE)];
        assert_eq!(going_on(&steps, &[]), steps);
        let told = going_on(&steps, &["order-b".into(), "order-a".into()]);
        assert_eq!(told[0], steps[0]);
        assert_eq!(success_of(&told[1]), ["order-b", "order-a"]);
    }

    #[test]
    fn a_runner_that_does_not_know_a_step_which_the_node_can_do_without_is_not_asked_to_and_gets_all_the_rest() {
        let step = |kind: &str| HostStep { name: kind.into(), kind: kind.into(), params: serde_json::Map::new() };
        let steps = ["install-packages/v1", PULL_WORKER_IMAGES, CHECK_ETCD, KUBEADM_UPGRADE].map(step);
        let ordered = |status: serde_json::Value| -> Vec<String> {
            let spec = serde_json::json!({"epoch": 1, "nodeName": "w-1", "nodeUid": "u"});
            let task = serde_json::json!({
                "apiVersion": "cupcake.ricardomolendijk.com/v1", "kind": "NodeTask", "metadata": {"name": "w-1"},
                "spec": spec, "status": status,
            });
            let task: NodeTask = serde_json::from_value(task).unwrap();
            known_to(&task, steps.to_vec()).into_iter().map(|step| step.kind).collect()
        };
        let without = ["install-packages/v1", KUBEADM_UPGRADE];
        let kinds = |kinds: &[&str]| serde_json::json!({"inventory": {"runnerKinds": kinds}});
        assert_eq!(ordered(serde_json::json!({})), without, "nothing is known of its runner");
        assert_eq!(ordered(kinds(&without)), without, "one of a release before");
        let all = [KUBEADM_UPGRADE, PULL_WORKER_IMAGES, CHECK_ETCD];
        assert_eq!(ordered(kinds(&all)), steps.map(|step| step.kind));
    }

    #[test]
    fn the_look_at_etcd_goes_by_the_control_plane_nodes_of_the_moment_in_which_it_is_ordered() {
        let step = |kind: &str| HostStep { name: kind.into(), kind: kind.into(), params: serde_json::Map::new() };
        let mut steps = [CHECK_ETCD, KUBEADM_UPGRADE].map(step);
        tell_control_plane(&mut steps, vec!["cp-1".into(), "cp-2".into()]);
        let params: crate::host::params::CheckEtcd =
            serde_json::from_value(Value::Object(steps[0].params.clone())).unwrap();
        assert_eq!(params.control_plane, ["cp-1", "cp-2"]);
        assert!(steps[1].params.is_empty(), "kubeadm's own parameters are others");
    }

    #[test]
    fn a_snapshot_counts_up_to_its_age_and_one_that_nobody_tells_of_does_not() {
        let vertex = cupcake_engine::names::VertexName::new("1.34.4/etcd-backup").unwrap();
        let wanted = params::FreshSnapshot { vertex, age_seconds_max: 3_600, name: "du-1234-1.34.4".into() };
        let taken = |at: &str| params::HostOutputs([(SNAPSHOT_TAKEN.to_owned(), at.to_owned())].into());
        let now: Timestamp = "2027-01-09T21:00:00Z".parse().unwrap();
        let (late, early) = (Some(now), Some(now - chrono::TimeDelta::hours(7)));
        for (at, recorded, fresh) in [
            ("2027-01-09T20:00:00Z", late, true),
            ("2027-01-09T19:59:59Z", late, false),
            ("2027-01-09T21:05:00Z", late, true),
            ("yesterday", late, false),
            // The machine's clock is eight hours ahead: it was taken when it was recorded, before a window of seven hours.
            ("2027-01-09T22:00:00Z", early, false),
            ("2027-01-09T20:30:00Z", None, false),
        ] {
            assert_eq!(is_fresh(&wanted, Some(&taken(at)), recorded, now), fresh, "{at}");
        }
        assert!(!is_fresh(&wanted, None, late, now));
        assert!(!is_fresh(&wanted, Some(&params::HostOutputs::default()), late, now));
    }

    #[test]
    fn an_agent_that_has_just_answered_another_attempt_is_not_absent() {
        let at = |minute: i64| Timestamp::UNIX_EPOCH + chrono::TimeDelta::minutes(minute);
        assert_eq!(last_heard(at(5), None), at(5), "an agent that never spoke");
        assert_eq!(last_heard(at(5), Some(at(2))), at(5), "its last word was about an earlier order");
        assert_eq!(last_heard(at(5), Some(at(8))), at(8), "the attempt before failed at minute 8");
    }
}
