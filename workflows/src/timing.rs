//! How long each part of an upgrade may take: deadlines of vertices and bounds of orders, all in seconds.

use crate::finding::{Code, Finding};
use cupcake_crds::DirectUpdateSpec;
use cupcake_crds::values::OnExpiry;
use cupcake_steps::cluster::drain_node::FORCED_SECONDS_MAX;
use std::time::Duration;

/// One node, unless `spec.nodeTimeout` says otherwise: the promised 30 minutes.
const NODE_SECONDS_DEFAULT: u32 = 1_800;
/// The shortest `spec.nodeTimeout`: kubeadm alone waits up to 5 minutes for a static pod (`constants.UpgradeManifestTimeout`).
const NODE_SECONDS_MIN: u32 = 600;
/// The longest: a day.
const NODE_SECONDS_MAX: u32 = 86_400;
/// What must be left of a node's time for packages and the kubelet beside its drain.
const WORK_SECONDS_MIN: u32 = 180;
/// Wait for the step to say itself what blocks a drain, before the engine's deadline cuts it short.
const DRAIN_VERDICT_SECONDS: u32 = 30;

/// Until every node that is to move is Ready and its agent answered.
pub(crate) const PREFLIGHT_SECONDS: u32 = 900;
/// Snapshot, verification and copy of a database of up to 8 GiB, the limit etcd suggests.
pub(crate) const BACKUP_SECONDS: u32 = 900;
/// CoreDNS, and kube-proxy where no node waits for another.
const ADDONS_SECONDS: u32 = 900;
/// kube-proxy's DaemonSet rolls one node at a time (kubeadm leaves maxUnavailable at its default of 1).
const ADDONS_NODE_SECONDS: u32 = 20;
/// Until every node that moved is Ready at the version.
pub(crate) const VERIFY_SECONDS: u32 = 900;
/// How long a worker must stay Ready with its new kubelet.
pub(crate) const WORKER_SOAK_SECONDS: u32 = 10;
/// How long a control-plane node must: a kubelet of a new minor restarts all its static pods a second or two after the Node shows Ready.
pub(crate) const CONTROL_PLANE_SOAK_SECONDS: u32 = 30;
/// A week. Only releases of before go by it: a vertex that watches a run has no deadline (see `cupcake_engine::step::Bound`), and a leader
/// of before that follows after a downgrade ends it then.
const CHILD_SECONDS_MIN: u32 = 604_800;

/// How one node's time is shared out. The parts of a visit add up to `spec.nodeTimeout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "a number of time carries its unit in its name")]
pub(crate) struct NodeTime {
    /// kubeadm on a control-plane node: the whole of it.
    pub whole_seconds: u32,
    /// First part of a visit.
    pub prepare_seconds: u32,
    /// What the drain step gives pods.
    pub drain_timeout_seconds: u32,
    /// When the engine ends the drain: a moment later, or when pods that are deleted then must have ended.
    pub drain_seconds: u32,
    /// Second part, until the Node is Ready at the version.
    pub kubelet_seconds: u32,
    /// Giving the node back.
    pub uncordon_seconds: u32,
}

impl NodeTime {
    /// What the machine may use of a visit.
    pub fn work_seconds(&self) -> u32 {
        self.prepare_seconds + self.kubelet_seconds
    }

    /// The shares under a spec: half for the drain (15 minutes of 30) unless `spec.drain.timeout` says otherwise, a
    /// fifteenth for the uncordon, and of the rest three fifths to prepare.
    pub fn of(spec: &DirectUpdateSpec) -> Result<Self, Finding> {
        let whole = match spec.node_timeout {
            None => NODE_SECONDS_DEFAULT,
            Some(timeout) => match seconds(timeout.is_negative(), timeout.into()) {
                Some(seconds) if (NODE_SECONDS_MIN..=NODE_SECONDS_MAX).contains(&seconds) => seconds,
                Some(_) | None => {
                    return Err(Finding::new(
                        Code::OutOfRange,
                        "spec.nodeTimeout",
                        timeout,
                        "one node cannot be upgraded in it: kubeadm alone may wait 5m for a static pod",
                        "set 10m to 24h, or leave it out for 30m",
                    ));
                }
            },
        };
        let uncordon = whole / 15;
        let after = match spec.drain.as_ref().map(|drain| drain.on_expiry) {
            Some(OnExpiry::ForceAfter) => DRAIN_VERDICT_SECONDS + FORCED_SECONDS_MAX,
            Some(OnExpiry::Hold | OnExpiry::SkipNode) | None => DRAIN_VERDICT_SECONDS,
        };
        let drain = match spec.drain.as_ref().and_then(|drain| drain.timeout) {
            None => whole / 2,
            Some(timeout) => {
                let room = whole - uncordon - after - WORK_SECONDS_MIN;
                match seconds(timeout.is_negative(), timeout.into()) {
                    Some(seconds) if (1..=room).contains(&seconds) => seconds,
                    Some(_) | None => {
                        return Err(Finding::new(
                            Code::OutOfRange,
                            "spec.drain.timeout",
                            timeout,
                            format!("it leaves no time for the kubelet: one node may take {whole} s in all"),
                            format!("set {room}s or less, or a longer spec.nodeTimeout"),
                        ));
                    }
                }
            }
        };
        let drain_seconds = drain + after;
        let work = whole - uncordon - drain_seconds;
        let kubelet = work * 2 / 5;
        Ok(Self {
            whole_seconds: whole,
            prepare_seconds: work - kubelet,
            drain_timeout_seconds: drain,
            drain_seconds,
            kubelet_seconds: kubelet,
            uncordon_seconds: uncordon,
        })
    }
}

/// The deadline that a plan gives a wave or batch of that many nodes, for releases that go by it: all of them one by one, with a half more.
/// Plans are compared by their digest, so that they keep it.
pub(crate) fn child_seconds(time: &NodeTime, nodes: u32) -> u32 {
    let one_by_one = nodes.saturating_mul(time.whole_seconds);
    one_by_one.saturating_add(one_by_one / 2).max(CHILD_SECONDS_MIN)
}

/// The deadline of the addons' roll-out in a cluster of that many nodes.
pub(crate) fn addons_seconds(nodes: u32) -> u32 {
    ADDONS_SECONDS.saturating_add(nodes.saturating_mul(ADDONS_NODE_SECONDS))
}

/// How long one pod gets to end, as people asked: at least a second, since 0 takes it out of the API while it may still run.
pub(crate) fn pod_seconds(spec: &DirectUpdateSpec) -> Option<u32> {
    let timeout = spec.drain.as_ref()?.pod_timeout?;
    Some(seconds(timeout.is_negative(), timeout.into())?.clamp(1, NODE_SECONDS_MAX))
}

fn seconds(negative: bool, duration: Duration) -> Option<u32> {
    if negative { None } else { u32::try_from(duration.as_secs()).ok() }
}

/// A rough length of an upgrade, from measured kubeadm runs: 165 s a control-plane node, under a minute a visit.
pub(crate) fn estimate_seconds(control_plane: u32, visits: u32, workers: u32, concurrency: u32) -> u32 {
    const CONTROL_PLANE_NODE: u32 = 170;
    const VISIT: u32 = 60;
    const AROUND: u32 = 120;
    let rounds = workers.div_ceil(concurrency.max(1));
    AROUND
        .saturating_add(control_plane.saturating_mul(CONTROL_PLANE_NODE))
        .saturating_add(visits.saturating_add(rounds).saturating_mul(VISIT))
}
