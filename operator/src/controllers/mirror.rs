//! What a DirectUpdate shows of its run and of its nodes. Pure.

use super::acknowledge::approval_state;
use super::preflight;
use super::records::{self, Record};
use super::timeout::{self, Standing};
use super::update::{View, phase_of};
use crate::adapters::views::node_view;
use crate::run_status::{condition_states, set_paused};
use crate::watches::Watches;
use cupcake_crds::conditions::{self, Condition};
use cupcake_crds::direct_update::{NodePhase, NodeProgress, Summary, UpgradePath};
use cupcake_crds::limits;
use cupcake_crds::node_task::TaskState;
use cupcake_crds::upgrade_run::ChildRun;
use cupcake_crds::values::{KubeVersion, NodeRole, Phase};
use cupcake_crds::{DirectUpdate, DirectUpdateStatus, UpgradeRun};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::cursor::RunPhase;
use cupcake_steps::cluster::gate::WAITING_FOR_APPROVAL;
use cupcake_steps::ports::cluster::{CordonOwner, NodeView, Readiness};
use kube::ResourceExt;

/// Up to how many nodes `status.nodes` is filled up with those that are neither in flight nor failed.
const NODES_FILLED_MAX: usize = 30;

/// One node of the update, as the watches show it now.
#[derive(Debug, Clone)]
pub struct NodeNow {
    name: String,
    phase: NodePhase,
    last_step: Option<String>,
    error: Option<String>,
    /// Whether an order of the update is open there.
    ordered: bool,
}

impl NodeNow {
    /// Whether something is under way there, or may begin without another word of ours.
    pub fn is_at_work(&self) -> bool {
        self.ordered || is_in_flight(self.phase)
    }
}

/// The nodes that an update is about.
pub fn nodes_now(update: &DirectUpdate, watches: &Watches) -> Vec<NodeNow> {
    let Ok(target) = update.spec.target() else {
        return Vec::new();
    };
    let nodes = watches.nodes.iter().map(|(_, node)| node_view(node));
    let uid = update.metadata.uid.as_deref().unwrap_or_default();
    let of_update = watches.runs.iter().filter(|(_, run)| run.spec.direct_update.uid == uid);
    let runs: std::collections::BTreeSet<&str> = of_update.filter_map(|(_, run)| run.metadata.uid.as_deref()).collect();
    let spec = update.spec_now();
    let is_shown = |node: &NodeView| {
        let ours = matches!(&node.cordon, CordonOwner::Run { uid, .. } if runs.contains(uid.as_str()));
        node.role == NodeRole::ControlPlane || ours || spec.moves(&node.node.name, &node.labels)
    };
    nodes
        .filter(|node| is_shown(node))
        .map(|node| {
            let task = watches.tasks.get(&node.node.name);
            let state = task.and_then(cupcake_crds::NodeTask::answer);
            // With proceed set the drain is over, whatever the node said last.
            let proceeds = task.and_then(|task| task.spec.order.as_ref()).is_some_and(|order| order.proceed);
            let state = match state {
                Some(TaskState::Prepared) if proceeds => Some(TaskState::Working),
                other => other,
            };
            let status = task.and_then(|task| task.status.as_ref());
            // What another update left in the mailbox says nothing of this one.
            let own_order = task
                .and_then(|task| task.spec.order.as_ref())
                .is_some_and(|order| runs.contains(order.key.run_uid.as_str()));
            let stopped = task.and_then(|task| task.spec.order.as_ref()).is_some_and(|order| order.stop);
            NodeNow {
                ordered: own_order && !stopped && !state.is_some_and(TaskState::is_final),
                phase: node_phase(node.kubelet, target, &node.cordon, node.readiness, state.filter(|_| own_order)),
                last_step: status.filter(|_| own_order).and_then(|status| status.step.clone()),
                error: status
                    .filter(|_| own_order)
                    .and_then(|status| status.error.as_ref())
                    .map(|error| error.message.clone()),
                name: node.node.name,
            }
        })
        .collect()
}

fn node_phase(
    kubelet: Option<KubeVersion>,
    target: KubeVersion,
    cordon: &CordonOwner,
    readiness: Readiness,
    state: Option<TaskState>,
) -> NodePhase {
    let ours = matches!(cordon, CordonOwner::Run { .. });
    match (kubelet == Some(target), state) {
        (_, Some(TaskState::Failed | TaskState::Refused | TaskState::Stopped)) => NodePhase::Failed,
        (true, _) if ours && readiness == Readiness::Ready => NodePhase::Uncordoning,
        (true, _) if readiness != Readiness::Ready => NodePhase::Verifying,
        (true, _) => NodePhase::Completed,
        (false, Some(TaskState::Prepared)) if ours => NodePhase::Draining,
        (false, Some(TaskState::Claimed | TaskState::Working | TaskState::Prepared)) => NodePhase::Upgrading,
        (false, Some(TaskState::Done)) if ours => NodePhase::Verifying,
        (false, Some(TaskState::Done) | None) => NodePhase::Pending,
    }
}

fn count(nodes: &[NodeNow], wanted: impl Fn(NodePhase) -> bool) -> u32 {
    u32::try_from(nodes.iter().filter(|node| wanted(node.phase)).count()).unwrap_or(u32::MAX)
}

fn is_in_flight(phase: NodePhase) -> bool {
    match phase {
        NodePhase::Draining | NodePhase::Upgrading | NodePhase::Verifying | NodePhase::Uncordoning => true,
        NodePhase::Pending | NodePhase::Completed | NodePhase::Failed => false,
    }
}

/// The runs below the root, as its tree shows them.
pub fn children_of(view: &View) -> Vec<ChildRun> {
    let below = view.runs.iter().filter(|run| run.spec.parent.is_some());
    below
        .map(|run| {
            let status = run.status.as_ref();
            ChildRun {
                name: run.name_any(),
                phase: status.and_then(|status| status.phase).unwrap_or(Phase::Pending),
                progress: status.and_then(|status| status.progress.clone()),
            }
        })
        .collect()
}

/// The status of an update whose run is `root`, and which stands so to its time; but for its three main conditions, which
/// [`conclude`] sets once it is clear what the message says.
pub fn status_of(
    view: &View,
    root: &UpgradeRun,
    records: &[Record<'_>],
    timed: &Standing,
    now: Timestamp,
) -> DirectUpdateStatus {
    let run = root.status.clone().unwrap_or_default();
    let mut status = view.update.status.clone().unwrap_or_default();
    let nodes = &view.nodes;
    status.phase = Some(crate::run_status::phase_of(timeout::phase(timed, phase_of(root))));
    status.message = run.message.clone().or(status.message);
    status.graph.clone_from(&run.graph);
    status.started_at = status.started_at.or(run.started_at);
    status.completed_at = run.completed_at;
    status.last_updated = Some(now);
    status.observed_generation = view.update.metadata.generation;
    status.operation_id = Some(root.spec.operation_id.clone());
    let summary = Summary {
        completed: count(nodes, |phase| phase == NodePhase::Completed),
        failed: count(nodes, |phase| phase == NodePhase::Failed),
        pending: count(nodes, |phase| phase == NodePhase::Pending),
        total: u32::try_from(nodes.len()).unwrap_or(u32::MAX),
        upgrading: count(nodes, is_in_flight),
    };
    status.progress = Some(format!("{}/{}", summary.completed, summary.total));
    status.summary = Some(summary);
    let order = |node: &&NodeNow| match node.phase {
        NodePhase::Failed => 0,
        phase if is_in_flight(phase) => 1,
        _ => 2,
    };
    let mut shown: Vec<&NodeNow> = nodes.iter().collect();
    shown.sort_by_key(order);
    let messages = records::messages(records);
    let urgent = shown.iter().filter(|node| order(node) < 2).count();
    status.nodes = shown
        .into_iter()
        .take(urgent.clamp(NODES_FILLED_MAX, limits::NODES_MAX))
        .map(|node| {
            let before = status.nodes.get(&node.name);
            // One that was at the target before was never seen at work.
            let seen_at_work = before.and_then(|before| before.started_at);
            let progress = NodeProgress {
                completed_at: match node.phase {
                    NodePhase::Completed => {
                        before.and_then(|before| before.completed_at).or(seen_at_work.and(Some(now)))
                    }
                    _ => None,
                },
                error: node.error.clone(),
                last_step: node.last_step.clone(),
                message: messages.get(&node.name).filter(|_| node.phase != NodePhase::Completed).cloned(),
                phase: node.phase,
                started_at: match node.phase {
                    NodePhase::Pending => None,
                    NodePhase::Completed => seen_at_work,
                    _ => seen_at_work.or(Some(now)),
                },
            };
            (node.name.clone(), progress)
        })
        .collect();
    if let Some(path) = &mut status.upgrade_path {
        path.current_step = if phase_of(root) == RunPhase::Succeeded {
            path.total_steps.saturating_sub(1)
        } else {
            hop_of(path, run.current_step.as_deref()).unwrap_or(path.current_step)
        };
    }
    if records::preflight_passed(records) {
        preflight::passed_later(&mut status, now);
    }
    // An update over several minors has one for each: the last is the one to go back to.
    status.backup_info = records::backup_info(records).or(status.backup_info);
    // As its run is, not as it is asked to be: that is answered in acknowledged.
    let paused = conditions::get(&run.conditions, conditions::PAUSED);
    let holds = paused.is_some_and(|paused| paused.status == conditions::ConditionStatus::True);
    let why = paused.map(|paused| paused.message.clone()).unwrap_or_default();
    set_paused(&mut status.conditions, holds, &why, status.observed_generation, now);
    status
}

/// Which of the versions on the way a step belongs to: its name begins with it.
fn hop_of(path: &UpgradePath, step: Option<&str>) -> Option<u32> {
    let (version, _) = step?.split_once('/')?;
    let index = path.steps.iter().position(|step| step == version)?;
    u32::try_from(index).ok()
}

/// In front of what happens, where an update has several hops: which of them it is in.
pub fn with_hop(status: &DirectUpdateStatus, message: String) -> String {
    match &status.upgrade_path {
        Some(path) if path.total_steps > 1 && status.phase == Some(Phase::InProgress) => {
            let index = usize::try_from(path.current_step).unwrap_or(usize::MAX);
            let version = path.steps.get(index).unwrap_or(&path.target_version);
            format!("Step {}/{}: Upgrading to {version}: {message}", path.current_step + 1, path.total_steps)
        }
        Some(_) | None => message,
    }
}

/// Succeeded, Reconciling and Stalled say what the message says, under that code.
pub fn conclude(status: &mut DirectUpdateStatus, code: &str, phase: RunPhase, now: Timestamp) {
    for (type_, state) in condition_states(phase) {
        let condition = Condition {
            last_transition_time: now,
            message: status.message.clone().unwrap_or_default(),
            observed_generation: status.observed_generation,
            reason: code.to_owned(),
            status: state,
            type_: type_.to_owned(),
        };
        conditions::set(&mut status.conditions, condition);
    }
}

/// Whether gates that people open wait, are open, or are yet to come.
pub fn set_approved(status: &mut DirectUpdateStatus, view: &View, gates: &[String], now: Timestamp) {
    let waiting = view
        .runs
        .iter()
        .filter_map(|run| run.status.as_ref())
        .find(|run| run.phase == Some(Phase::InProgress) && run.reason.as_deref() == Some(WAITING_FOR_APPROVAL));
    let waits = waiting.map(|run| run.message.as_deref().unwrap_or("waits for somebody"));
    let Some((state, reason, message)) = approval_state(gates, &status.approvals, waits) else {
        return;
    };
    let condition = Condition {
        last_transition_time: now,
        message,
        observed_generation: status.observed_generation,
        reason: reason.to_owned(),
        status: state,
        type_: conditions::APPROVED.to_owned(),
    };
    conditions::set(&mut status.conditions, condition);
}

/// Whether a status says anything new; the time of looking is no news.
pub fn differs(before: &DirectUpdateStatus, after: &DirectUpdateStatus) -> bool {
    let mut timeless = after.clone();
    timeless.last_updated = before.last_updated;
    timeless != *before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_over_minors_says_which_hop_it_is_in_and_one_of_a_single_hop_does_not() {
        let path = |steps: &[&str]| UpgradePath {
            current_step: 0,
            current_version: "1.32.1".to_owned(),
            steps: steps.iter().map(|step| (*step).to_owned()).collect(),
            target_version: "1.34.4".to_owned(),
            total_steps: u32::try_from(steps.len()).unwrap(),
        };
        let two = path(&["1.33.13", "1.34.4"]);
        assert_eq!(hop_of(&two, Some("1.34.4/control-plane/cp-1/kubeadm-upgrade (+2)")), Some(1));
        assert_eq!((hop_of(&two, Some("batch-1")), hop_of(&two, None)), (None, None), "it stays where it was");
        let says = |path: UpgradePath, phase: Phase| {
            let status = DirectUpdateStatus { phase: Some(phase), upgrade_path: Some(path), ..Default::default() };
            with_hop(&status, "at work".to_owned())
        };
        let second = UpgradePath { current_step: 1, ..two };
        assert_eq!(says(second.clone(), Phase::InProgress), "Step 2/2: Upgrading to 1.34.4: at work");
        assert_eq!(says(second, Phase::Succeeded), "at work");
        assert_eq!(says(path(&["1.34.4"]), Phase::InProgress), "at work");
    }
}
