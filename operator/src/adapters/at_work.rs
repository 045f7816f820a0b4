//! Machines that are still at work on an order of an update that is over.
//!
//! A run waits for a machine that it asked to stop no longer than `spec.nodeTimeout` says; kubeadm, or a package, may take longer.
//! What such a machine does would come into the midst of the next update, so that none begins meanwhile.
//!
//! How long is reckoned by this replica's clock alone, from when it first saw the machine at work: one of a machine may be hours off.
//! A worker that has not answered when its order's time is over is taken for lost; a node of the control plane never is, since
//! a machine that boots goes on with kubeadm where it stood.

use cupcake_crds::NodeTask;
use cupcake_crds::values::{ClusterSnapshot, NodeRole};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::names::Reason;
use cupcake_steps::cluster::named;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// How long one step of a machine may go on when the time of its order is over, in seconds: locks, refresh, install and configuration of
/// packages together are the longest, at most 50 minutes.
const STEP_SECONDS_MAX: i64 = 3_600;
/// The code of an update that waits for a machine.
pub const NODE_BUSY: &str = "NodeBusy";

/// A machine that has claimed an order and not answered it for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtWork {
    node: String,
    /// Tells its order from others.
    order: String,
    /// The step that it named last.
    step: Option<String>,
    /// How long it may be at work from now on.
    seconds_max: i64,
}

impl AtWork {
    /// What that machine is at, if it is at something.
    pub fn of(task: &NodeTask) -> Option<Self> {
        let order = task.claimed()?;
        Some(Self {
            node: task.spec.node_name.clone(),
            order: format!("{}/{}", task.spec.node_uid, order.key),
            step: task.status.as_ref().and_then(|status| status.step.clone()),
            seconds_max: i64::from(order.deadline_seconds) + STEP_SECONDS_MAX,
        })
    }
}

/// Why no update begins yet.
#[derive(Debug, PartialEq, Eq)]
pub enum Held {
    /// It ends by itself.
    Waits(Reason),
    /// A person has to do something.
    Stalls(Reason),
}

/// Since when this replica has seen machines at work. One that has just begun to lead has seen none.
#[derive(Debug, Default)]
pub struct Seen(Mutex<BTreeMap<String, Timestamp>>);

impl Seen {
    /// What keeps an update from its start; nothing where nobody is at work any more, or none but workers that are lost.
    pub fn held(&self, at_work: &[AtWork], snapshot: &ClusterSnapshot, now: Timestamp) -> Option<Held> {
        let until = self.until(at_work, now);
        let is_control_plane = |machine: &&(&AtWork, Timestamp)| {
            // One whose Node cannot be understood may be of it.
            snapshot.nodes.get(&machine.0.node).is_none_or(|node| node.role == NodeRole::ControlPlane)
        };
        let (late, working): (Vec<_>, Vec<_>) = at_work.iter().zip(until).partition(|(_, until)| *until <= now);
        let lost: Vec<&AtWork> = late.iter().filter(is_control_plane).map(|(machine, _)| *machine).collect();
        if let Some(first) = lost.first() {
            let message = format!(
                "machines of the control plane have never answered an order of an update that is over, and would go on with it: {}; \
                 bring each back; of one that will never boot again: kubectl delete nodetask {}",
                told(&lost),
                first.node
            );
            return Some(Held::Stalls(Reason::new(NODE_BUSY, message)));
        }
        let until = working.iter().map(|(_, until)| *until).max()?;
        let working: Vec<&AtWork> = working.iter().map(|(machine, _)| *machine).collect();
        let message = format!(
            "waits for machines that are still at work for an update that is over: {}; until {} at the latest; to give it up: \
             `cupcake-host stop` on the machine, or, where it is gone, kubectl delete nodetask {}",
            told(&working),
            until.format("%Y-%m-%d %H:%M UTC"),
            working.first().map_or("NODE", |machine| machine.node.as_str())
        );
        Some(Held::Waits(Reason::new(NODE_BUSY, message)))
    }

    /// Until when each may be at work. What is over is forgotten.
    fn until(&self, at_work: &[AtWork], now: Timestamp) -> Vec<Timestamp> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|order, _| at_work.iter().any(|machine| machine.order == *order));
        let until = |machine: &AtWork| {
            let since = *seen.entry(machine.order.clone()).or_insert(now);
            since + chrono::TimeDelta::seconds(machine.seconds_max)
        };
        at_work.iter().map(until).collect()
    }
}

fn told(machines: &[&AtWork]) -> String {
    let told =
        |machine: &&AtWork| format!("{} ({})", machine.node, machine.step.as_deref().unwrap_or("its first step"));
    let machines: Vec<String> = machines.iter().map(told).collect();
    named(&machines.iter().map(String::as_str).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cupcake_crds::node_task::{NodeTaskSpec, NodeTaskStatus, Order, TaskState};
    use cupcake_crds::values::{Cordon, EtcdTopology, KubeVersion, OrderKey};
    use serde_json::json;

    fn at(minute: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + chrono::TimeDelta::minutes(minute)
    }

    fn task(state: Option<TaskState>) -> NodeTask {
        let key = OrderKey { run_uid: "6f0d7f0e".into(), vertex: "cp-1/kubeadm-upgrade".into(), attempt: 1 };
        let order = Order {
            deadline_seconds: 600,
            epoch: 3,
            finish: Vec::new(),
            key: key.clone(),
            prepare: Vec::new(),
            proceed: false,
            stop: true,
            target_version: KubeVersion::new(1, 34, 4),
            traceparent: None,
        };
        let spec = NodeTaskSpec {
            epoch: 3,
            inventory_request: None,
            node_name: "cp-1".into(),
            node_uid: "node".into(),
            order: Some(order),
        };
        let mut task = NodeTask::new("cp-1", spec);
        task.status = Some(NodeTaskStatus {
            key: state.map(|_| key),
            state,
            step: Some("kubeadm-upgrade".into()),
            updated_at: Some(at(20)),
            ..NodeTaskStatus::default()
        });
        task
    }

    fn cluster(role: NodeRole) -> ClusterSnapshot {
        serde_json::from_value(json!({
            "takenAt": "2026-09-21T14:13:20Z", "server": "1.33.4", "etcd": EtcdTopology::Stacked,
            "nodes": {"cp-1": {
                "node": {"name": "cp-1", "uid": "node"}, "role": role, "kubelet": "1.33.4", "ready": true, "cordon": Cordon::Schedulable,
            }},
        }))
        .unwrap()
    }

    #[test]
    fn a_machine_is_at_work_from_its_claim_to_its_last_word() {
        for state in [TaskState::Done, TaskState::Failed, TaskState::Refused, TaskState::Stopped] {
            assert_eq!(AtWork::of(&task(Some(state))), None, "{state}");
        }
        assert_eq!(AtWork::of(&task(None)), None, "nobody took it");
        for state in [TaskState::Claimed, TaskState::Working, TaskState::Prepared] {
            assert!(AtWork::of(&task(Some(state))).is_some(), "{state}");
        }
    }

    #[test]
    fn a_worker_that_never_answers_is_lost_when_its_time_is_over_and_a_control_plane_is_told_to_a_person() {
        let at_work = [AtWork::of(&task(Some(TaskState::Working))).unwrap()];
        let held = |seen: &Seen, role, minute| seen.held(&at_work, &cluster(role), at(minute));
        for role in [NodeRole::Worker, NodeRole::ControlPlane] {
            let seen = Seen::default();
            let Some(Held::Waits(told)) = held(&seen, role, 100) else { panic!("it is waited for") };
            assert_eq!(told.code, NODE_BUSY);
            let message = &told.message;
            assert!(message.contains("over: cp-1 (kubeadm-upgrade); until 1970-01-01 02:50 UTC at"), "{message}");
            // By the clock of this replica: what the machine says meanwhile moves nothing.
            assert!(matches!(held(&seen, role, 169), Some(Held::Waits(_))));
            match (role, held(&seen, role, 170)) {
                (NodeRole::Worker, None) => {}
                (NodeRole::ControlPlane, Some(Held::Stalls(told))) => {
                    assert!(told.message.ends_with("kubectl delete nodetask cp-1"), "{told}");
                }
                (_, other) => panic!("{role:?}: {other:?}"),
            }
            // It answered, and works on another order later: its time begins anew.
            assert_eq!(seen.held(&[], &cluster(role), at(180)), None);
            assert!(matches!(held(&seen, role, 200), Some(Held::Waits(_))));
        }
    }
}
