//! `verify-cluster/v1`: the cluster itself says that the hop is done.
//!
//! Nodes come while an update is under way. One that no plan of the hop holds, by its UID (deleted and registered anew it is another
//! node), is behind and nobody moves it, so nobody waits for it: after the last hop it is named in what the step leaves; before another
//! hop it stays where that takes its kubelet, since the wave of the next hop looks for it, and is for a person where it does not.
//!
//! Source: kubernetes.io, "Version Skew Policy" (v1.34): a kubelet may be older than the API server, by three minors at the most (by
//! kubeadm's own rule one minor before 1.29). So a worker that stays behind in the last hop breaks nothing.

use super::stragglers::NODES_FAILED;
use super::{again, look, named_up_to, params};
use crate::ports::cluster::{Cluster, CordonOwner, NodeView, OpsError, Readiness};
use async_trait::async_trait;
use cupcake_crds::values::{KubeVersion, NodeRole};
use cupcake_engine::names::{Reason, RunName};
use cupcake_engine::step::{OnCancel, Probe, Step, StepContext, StepError, StepOutcome, Wait};
use std::collections::{BTreeMap, BTreeSet};

/// How soon a cluster that is not yet as it should be is looked at again, in seconds.
const AGAIN_SECONDS: i64 = 10;
/// How many nodes that came meanwhile are named; three of the longest names fit what a step may leave.
const JOINED_TOLD_MAX: usize = 3;

/// Looks at every node that was to move, and at the API server.
pub struct VerifyCluster;

#[async_trait]
impl Step<Cluster> for VerifyCluster {
    const KIND: &'static str = "verify-cluster/v1";
    type Params = params::VerifyCluster;
    type Output = params::Verified;
    const ON_CANCEL: OnCancel = OnCancel::Leave;

    async fn probe(
        &self,
        ctx: &StepContext<'_, Cluster>,
        params: &Self::Params,
    ) -> Result<Probe<Self::Output>, StepError> {
        let cluster = &ctx.ports().cluster;
        let server = look!(cluster.server_version());
        let left_out = look!(cluster.left_out(ctx.run()));
        let nodes = look!(cluster.nodes());
        let lost = look!(cluster.lost(ctx.run()));
        let seen = Seen { params, server, nodes: &nodes, left_out: &left_out, lost: &lost };
        // What the plans hold is read only where something is not as it should be.
        let planned =
            if seen.is_in_place() { BTreeSet::new() } else { look!(cluster.planned(ctx.run(), params.target_version)) };
        match seen.verdict(&planned) {
            Verdict::Well(verified) => Ok(Probe::Satisfied(verified)),
            Verdict::Waits(reason) => Ok(Probe::Wait(Wait::shown(again(ctx, AGAIN_SECONDS), reason))),
            Verdict::NeedsOperator(reason) => Err(StepError::NeedsOperator(reason)),
        }
    }

    async fn apply(
        &self,
        ctx: &StepContext<'_, Cluster>,
        _: &Self::Params,
    ) -> Result<StepOutcome<Self::Output>, StepError> {
        let reason = Reason::new("Verifying", "looking at the cluster");
        Ok(StepOutcome::Wait(Wait::quiet(again(ctx, AGAIN_SECONDS), reason)))
    }
}

/// What one look showed.
struct Seen<'a> {
    params: &'a params::VerifyCluster,
    server: KubeVersion,
    nodes: &'a [NodeView],
    left_out: &'a BTreeSet<String>,
    lost: &'a BTreeMap<String, RunName>,
}

/// What follows from it.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Well(params::Verified),
    Waits(Reason),
    NeedsOperator(Reason),
}

impl Seen<'_> {
    fn moves(&self, node: &NodeView) -> bool {
        super::moves(node, &self.params.node_selector, self.left_out)
    }

    /// The oldest version that a worker may be left at, where one may: those that fit the next hop wait for a later one.
    fn waits_at(&self, node: &NodeView) -> Option<KubeVersion> {
        self.params.oldest_kubelet.filter(|_| node.role == NodeRole::Worker)
    }

    fn is_there(&self, node: &NodeView) -> bool {
        let target = self.params.target_version;
        match self.waits_at(node) {
            Some(oldest) => node.kubelet.is_some_and(|kubelet| kubelet >= oldest),
            // One that is newer already waits for the hop that gets there.
            None if self.params.oldest_kubelet.is_some() => node.kubelet.is_some_and(|kubelet| kubelet >= target),
            None => node.kubelet == Some(target),
        }
    }

    /// Whether every node that was to move is there, and none of them was given up.
    fn is_in_place(&self) -> bool {
        let is_lost = |node: &NodeView| self.lost.contains_key(&node.node.name);
        self.nodes.iter().all(|node| !self.moves(node) || (self.is_there(node) && !is_lost(node)))
    }

    /// `planned`: UIDs of the nodes that plans of the hop hold.
    fn verdict(&self, planned: &BTreeSet<String>) -> Verdict {
        let waits = |code: &'static str, message: String| Verdict::Waits(Reason::new(code, message));
        let needs = |code: &'static str, message: String| Verdict::NeedsOperator(Reason::new(code, message));
        let (target, oldest_kubelet) = (self.params.target_version, self.params.oldest_kubelet);
        let is_new = |node: &NodeView| self.moves(node) && !self.is_there(node) && !planned.contains(&node.node.uid);
        let joined: Vec<&NodeView> = self.nodes.iter().filter(|node| is_new(node)).collect();
        if let Some(node) = joined.iter().find(|node| node.role == NodeRole::ControlPlane) {
            let message = format!(
                "{} is of the control plane, and no plan of this update holds it, since it joined or registered anew meanwhile: cancel this update and apply it anew",
                versioned(node)
            );
            return needs("ControlPlaneJoined", message);
        }
        if self.server != target {
            return waits("ServerBehind", format!("the API server answers with {}, wanted {target}", self.server));
        }
        // Those that failed while others were allowed to go on, whatever version they show: nobody works on them any more.
        let failed = |node: &&NodeView| {
            self.moves(node) && self.lost.contains_key(&node.node.name) && planned.contains(&node.node.uid)
        };
        let failed: Vec<&NodeView> = self.nodes.iter().filter(failed).collect();
        if let Some(first) = failed.first().and_then(|node| self.lost.get(&node.node.name)) {
            let names: Vec<_> = failed.iter().map(|node| node.node.name.as_str()).collect();
            let is_too_old = |oldest| failed.iter().any(|node| node.kubelet.is_none_or(|kubelet| kubelet < oldest));
            let by_hand = if oldest_kubelet.is_some_and(is_too_old) { "upgrade by hand and " } else { "" };
            let message = format!(
                "failed within spec.maxFailures: {}; {by_hand}leave out (kubectl cupcake skip), then retry; see upgraderun {first}",
                super::named(&names)
            );
            return needs(NODES_FAILED, message);
        }
        if let (Some(told), Some(oldest)) = (told(&joined), oldest_kubelet) {
            // Leaving it out would not help: the next hop's kubeadm goes by every node.
            let message = format!(
                "new since the workers were planned, so that no batch moves it: {told}; the next hop takes no kubelet older than {oldest}: upgrade it by hand or take it out of the cluster, then retry"
            );
            return needs("NodesJoined", message);
        }
        for node in self.nodes {
            let (name, moved) = (&node.node.name, self.moves(node));
            let too_old = oldest_kubelet.filter(|oldest| node.kubelet.is_none_or(|kubelet| kubelet < *oldest));
            if let (false, Some(oldest)) = (moved || !self.left_out.contains(name), too_old) {
                let message = format!(
                    "{name} is left out, and the next hop takes no kubelet older than {oldest}: upgrade it by hand or take it out of the cluster, then retry"
                );
                return needs("LeftOutTooOld", message);
            }
            let waited_for = moved && !is_new(node);
            if waited_for && !self.is_there(node) {
                let wanted = self.waits_at(node).unwrap_or(target);
                let or_newer = if self.waits_at(node).is_some() { " or newer" } else { "" };
                return waits("NodeBehind", format!("{name} is at {}, wanted {wanted}{or_newer}", version_of(node)));
            }
            if waited_for && node.readiness != Readiness::Ready {
                return waits("NodeNotReady", format!("{name} is not Ready"));
            }
            if matches!(node.cordon, CordonOwner::Run { .. }) {
                return waits("NodeCordoned", format!("{name} is still cordoned by a run"));
            }
        }
        Verdict::Well(params::Verified { joined: told(&joined) })
    }
}

fn version_of(node: &NodeView) -> String {
    node.kubelet.map_or_else(|| "no readable version".to_owned(), |kubelet| kubelet.to_string())
}

/// `w-4 (1.33.4)`
fn versioned(node: &NodeView) -> String {
    format!("{} ({})", node.node.name, version_of(node))
}

/// Nodes by name and version; `None` of none.
fn told(nodes: &[&NodeView]) -> Option<String> {
    let all: Vec<String> = nodes.iter().map(|node| versioned(node)).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    (!all.is_empty()).then(|| named_up_to(&all, JOINED_TOLD_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cupcake_crds::values::NodeRef;

    const OLD: KubeVersion = KubeVersion::new(1, 33, 4);
    const NEW: KubeVersion = KubeVersion::new(1, 34, 4);

    fn node(name: &str, kubelet: KubeVersion) -> NodeView {
        let role = if name.starts_with("cp") { NodeRole::ControlPlane } else { NodeRole::Worker };
        NodeView {
            node: NodeRef { name: name.to_owned(), uid: format!("uid-of-{name}") },
            resource_version: "1".to_owned(),
            role,
            kubelet: Some(kubelet),
            readiness: Readiness::Ready,
            readiness_since: None,
            heartbeat: None,
            cordon: CordonOwner::Nobody,
            labels: BTreeMap::new(),
        }
    }

    /// The verdict over `nodes`, of which plans hold `planned`, where the next hop takes kubelets from `oldest_kubelet` on.
    fn verdict(nodes: &[NodeView], planned: &[&str], lost: &[&str], oldest_kubelet: Option<KubeVersion>) -> Verdict {
        let params = params::VerifyCluster { target_version: NEW, oldest_kubelet, node_selector: BTreeMap::new() };
        let run = RunName::new("batch-1").unwrap();
        let lost = lost.iter().map(|name| ((*name).to_owned(), run.clone())).collect();
        let seen = Seen { params: &params, server: NEW, nodes, left_out: &BTreeSet::new(), lost: &lost };
        let planned = planned.iter().map(|name| format!("uid-of-{name}")).collect();
        seen.verdict(&planned)
    }

    fn code(verdict: &Verdict) -> &str {
        match verdict {
            Verdict::Well(_) => "Well",
            Verdict::Waits(reason) | Verdict::NeedsOperator(reason) => &reason.code,
        }
    }

    #[test]
    fn a_worker_that_no_plan_holds_is_named_after_the_last_hop_and_waited_for_by_nobody() {
        let nodes = [node("cp-1", NEW), node("w-1", NEW), node("w-2", OLD)];
        let joined = Some("w-2 (1.33.4)".to_owned());
        assert_eq!(verdict(&nodes, &["w-1"], &[], None), Verdict::Well(params::Verified { joined }));
        assert_eq!(code(&verdict(&nodes, &["w-1", "w-2"], &[], None)), "NodeBehind", "a batch was to move it");
        let away = [node("w-1", NEW), NodeView { readiness: Readiness::NotReady, ..node("w-2", OLD) }];
        assert_eq!(code(&verdict(&away, &["w-1"], &[], None)), "Well");
        let mine = [NodeView { readiness: Readiness::NotReady, ..node("w-1", NEW) }, node("w-2", OLD)];
        assert_eq!(code(&verdict(&mine, &["w-1"], &[], None)), "NodeNotReady", "the others are looked at all the same");
    }

    #[test]
    fn before_another_hop_its_version_decides() {
        let nodes = [node("cp-1", NEW), node("w-1", NEW), node("w-2", OLD)];
        let well = Verdict::Well(params::Verified::default());
        assert_eq!(verdict(&nodes, &["w-1"], &[], Some(OLD)), well, "a later wave takes it along");
        let Verdict::NeedsOperator(reason) = verdict(&nodes, &["w-1"], &[], Some(NEW)) else { panic!("it goes on") };
        assert_eq!(reason.code, "NodesJoined");
        assert!(reason.message.contains("w-2 (1.33.4); the next hop takes no kubelet older than 1.34.4"), "{reason}");
    }

    #[test]
    fn a_control_plane_node_that_no_plan_holds_is_for_a_person_at_once() {
        let nodes = [node("cp-1", NEW), node("cp-2", OLD)];
        assert_eq!(code(&verdict(&nodes, &["cp-1"], &[], None)), "ControlPlaneJoined");
        assert_eq!(code(&verdict(&nodes, &["cp-1", "cp-2"], &[], None)), "NodeBehind");
    }

    #[test]
    fn the_successor_of_a_node_that_failed_has_not_failed() {
        let nodes = [node("w-1", NEW), node("w-2", NEW)];
        assert_eq!(code(&verdict(&nodes, &["w-1", "w-2"], &["w-2"], None)), "NodesFailed");
        assert_eq!(code(&verdict(&nodes, &["w-1"], &["w-2"], None)), "Well", "another machine has its name");
    }

    #[test]
    fn what_is_left_of_many_nodes_with_long_names_has_room_in_a_cursor() {
        let names: Vec<String> = (0..400).map(|number| format!("w-{number:0251}")).collect();
        let nodes: Vec<NodeView> = names.iter().map(|name| node(name, OLD)).collect();
        let Verdict::Well(verified) = verdict(&nodes, &[], &[], None) else { panic!("it waits") };
        assert!(verified.joined.as_ref().is_some_and(|joined| joined.ends_with(" and 397 more")), "{verified:?}");
        assert!(serde_json::to_string(&verified).unwrap().len() <= 1_024);
    }
}
