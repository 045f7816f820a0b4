//! What is done on each node, in order: read out of the plans themselves, so that it is what a run of them does.
//!
//! ```text
//!   root plan ──► control plane, kubelets ─┐
//!   batches' plans, where the wave stands ─┴─► NodeCommands: nodes that are treated alike, and their commands
//! ```
//! What changes no node (checks, gates, waits for other runs) is no command; neither is the release of an order.

use crate::templates::{CHILD_RUN, DRAIN_NODE, HOST_ORDER, HOST_PROCEED, UNCORDON_NODE};
use crate::wave::CompiledBatch;
use cupcake_crds::values::{HostStep, KubeVersion, OnExpiry};
use cupcake_engine::plan::{Part, VertexTemplate};
use cupcake_steps::cluster::params::{DrainNode, HostOrder};
use cupcake_steps::host::params::{
    CHECK_ETCD, CheckEtcd, ETCD_SNAPSHOT, EtcdSnapshot, INSTALL_PACKAGES, InstallPackages, KUBEADM_UPGRADE,
    PULL_IMAGES, PULL_WORKER_IMAGES, PullImages, PullWorkerImages, RESTART_KUBELET, SWITCH_REPOSITORY,
    SwitchRepository, UPGRADE_CONTAINERD, UpgradeByKubeadm, UpgradeContainerd,
};
use cupcake_steps::ports::host::{KubeProxy, KubeadmUpgrade};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Nodes that are treated alike in one hop, and what is done on each of them.
///
/// # Guarantees
/// Each command begins with the name of its step, as NodeTasks and events have it, in the order in which a node sees them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeCommands {
    /// The version that the hop goes to.
    pub version: KubeVersion,
    /// The nodes, in plan order.
    pub nodes: Vec<String>,
    /// What is done on each of them, in order.
    pub commands: Vec<String>,
}

impl NodeCommands {
    /// As lines of text: the version with all nodes, then a command a line.
    pub fn lines(&self) -> Vec<String> {
        let head = format!("{}, on {}:", self.version, self.nodes.join(", "));
        std::iter::once(head).chain(self.commands.iter().map(|command| format!("  {command}"))).collect()
    }
}

/// The commands of one hop: `parts` of the root's plan, and the batches that its wave would have now. A node that is visited twice (by
/// kubeadm, then for its kubelet) stands in two of them.
pub(crate) fn of_hop(version: KubeVersion, parts: &[Part], batches: &[CompiledBatch]) -> Vec<NodeCommands> {
    let mut all = Vec::new();
    for part in parts {
        match part {
            Part::Vertex(vertex) if vertex.kind.as_str() == CHILD_RUN => {
                let parts = batches.iter().flat_map(|batch| &batch.plan.parts);
                parts.for_each(|part| add(&mut all, version, part));
            }
            Part::Vertex(_) | Part::Each(_) => add(&mut all, version, part),
        }
    }
    all
}

fn add(all: &mut Vec<NodeCommands>, version: KubeVersion, part: &Part) {
    let (nodes, vertices): (Vec<String>, &[VertexTemplate]) = match part {
        Part::Vertex(vertex) => (node_of(vertex).into_iter().collect(), std::slice::from_ref(vertex)),
        Part::Each(group) => (group.items.iter().map(|item| item.name.clone()).collect(), &group.vertices),
    };
    let commands: Vec<String> = vertices.iter().flat_map(commands_of).collect();
    if nodes.is_empty() || commands.is_empty() {
        return;
    }
    match all.iter_mut().find(|one| one.commands == commands) {
        Some(alike) => alike.nodes.extend(nodes),
        None => all.push(NodeCommands { version, nodes, commands }),
    }
}

fn node_of(vertex: &VertexTemplate) -> Option<String> {
    Some(vertex.params.get("node")?.get("name")?.as_str()?.to_owned())
}

/// What a vertex does to its node.
fn commands_of(vertex: &VertexTemplate) -> Vec<String> {
    let order = || read::<HostOrder>(&vertex.params);
    match vertex.kind.as_str() {
        HOST_ORDER => order().iter().flat_map(|order| &order.prepare).map(words).collect(),
        HOST_PROCEED => {
            let Some(order) = order() else { return Vec::new() };
            let soak = vertex.params.get("soakSeconds").and_then(Value::as_u64).unwrap_or_default();
            let ready = format!("kubelet: Ready at {} for {soak} s", order.target_version);
            order.finish.iter().map(words).chain([ready]).collect()
        }
        DRAIN_NODE => read::<DrainNode>(&vertex.params).iter().map(drain).collect(),
        UNCORDON_NODE => vec!["uncordon: it takes pods again, unless somebody else cordoned it".to_owned()],
        _ => Vec::new(),
    }
}

fn drain(drain: &DrainNode) -> String {
    let then = match drain.on_expiry {
        OnExpiry::Hold => "the update rests",
        OnExpiry::SkipNode => "the node is left out",
        OnExpiry::ForceAfter => "those that are left are deleted",
    };
    let rules = if drain.rules.is_empty() { "" } else { ", as spec.drain.rules says" };
    format!("drain: cordon it and evict its pods{rules}; after {} s {then}", drain.timeout_seconds)
}

/// A step of the machine, by its name and in the words of who would type it.
fn words(step: &HostStep) -> String {
    let params = Value::Object(step.params.clone());
    let does =
        match step.kind.as_str() {
            SWITCH_REPOSITORY => read::<SwitchRepository>(&params)
                .map(|step| format!("set the package repository to {} and read its index", step.minor())),
            INSTALL_PACKAGES => read::<InstallPackages>(&params).map(|step| {
                let packages: Vec<&str> = step.packages.iter().map(|package| package.as_str()).collect();
                format!("install {} {}, and hold", packages.join(" and "), step.version)
            }),
            PULL_IMAGES => read::<PullImages>(&params)
                .map(|step| format!("pull what is missing of the images of {}", step.version)),
            PULL_WORKER_IMAGES => read::<PullWorkerImages>(&params).map(|step| match step.kube_proxy {
                KubeProxy::Upgrade => format!("pull what is missing of kube-proxy and pause of {}", step.version),
                KubeProxy::LeaveOut => format!("pull what is missing of pause of {}", step.version),
            }),
            KUBEADM_UPGRADE => read::<UpgradeByKubeadm>(&params).map(|step| match step.how {
                KubeadmUpgrade::Apply => format!("kubeadm upgrade apply {} --yes", step.version.with_v()),
                KubeadmUpgrade::Node => "kubeadm upgrade node".to_owned(),
            }),
            CHECK_ETCD => read::<CheckEtcd>(&params).map(|step| match step.store {
                None => "see that etcd can do without its member here".to_owned(),
                Some(_) => {
                    "see that etcd can do without its member here, and that etcd 3.6 reads its data alike".to_owned()
                }
            }),
            ETCD_SNAPSHOT => read::<EtcdSnapshot>(&params)
                .map(|step| format!("save a snapshot of etcd, {}, and verify it", step.name)),
            RESTART_KUBELET => Some("systemctl restart kubelet".to_owned()),
            UPGRADE_CONTAINERD => read::<UpgradeContainerd>(&params)
                .map(|step| format!("install containerd {}, held as before, and restart it", step.version)),
            _ => None,
        };
    does.map_or_else(|| step.name.clone(), |does| format!("{}: {does}", step.name))
}

fn read<T: DeserializeOwned>(params: &Value) -> Option<T> {
    T::deserialize(params).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cluster, plan_of, spec};
    use cupcake_steps::host::params::ORDER_KINDS;
    use serde_json::json;

    fn steps(commands: &NodeCommands) -> Vec<&str> {
        commands.commands.iter().map(|command| command.split(':').next().unwrap()).collect()
    }

    #[test]
    fn nodes_that_are_treated_alike_stand_together_with_what_is_done_on_each_in_its_order() {
        let told = plan_of(&spec(&json!({})), &cluster(3, 120, "1.33.4")).commands;
        let nodes: Vec<_> = told.iter().map(|one| (one.nodes[0].as_str(), one.nodes.len())).collect();
        assert_eq!(nodes, [("cp-1", 1), ("cp-1", 1), ("cp-2", 2), ("cp-1", 3), ("w-001", 120)]);
        assert_eq!(steps(&told[0]), ["etcd-snapshot"]);
        assert_eq!(steps(&told[1])[3..], ["check-etcd", "kubeadm-upgrade-apply"]);
        assert_eq!(told[1].commands[4], "kubeadm-upgrade-apply: kubeadm upgrade apply v1.34.4 --yes");
        assert_eq!(told[2].commands[4], "kubeadm-upgrade-node: kubeadm upgrade node");
        let kubelet = ["drain", "install-kubelet", "restart-kubelet", "kubelet", "uncordon"];
        assert_eq!(steps(&told[3]), kubelet);
        let first = ["switch-repository", "install-kubeadm", "pull-images", "kubeadm-upgrade-node"];
        assert_eq!(steps(&told[4]), [&first[..], &kubelet].concat());
        assert!(told[4].lines()[0].ends_with("w-119, w-120:"), "all of them are named");
    }

    #[test]
    fn what_a_setting_changes_on_a_node_changes_its_commands() {
        let told = |fields| plan_of(&spec(&fields), &cluster(1, 2, "1.33.4")).commands;
        let whole = told(json!({}));
        let without = told(json!({"components": ["kubeadm", "kubelet"]}));
        assert_ne!(whole, without);
        let last = |told: &[NodeCommands]| told.last().unwrap().commands.join("; ");
        assert!(last(&whole).contains("install kubelet and kubectl 1.34.4") && !last(&without).contains("kubectl"));
        let skips = told(json!({"drain": {"onExpiry": "SkipNode", "timeout": "5m"}}));
        assert!(last(&skips).contains("after 300 s the node is left out"), "{}", last(&skips));
        let rules = json!([{"action": "WaitCompleted", "namespaces": ["batch"]}]);
        let waits = told(json!({"drain": {"rules": rules}}));
        assert!(last(&waits).contains("evict its pods, as spec.drain.rules says; after"), "{}", last(&waits));
        let patch = spec(&json!({"targetVersion": "1.33.9", "drain": {"onPatch": false}}));
        let undrained = plan_of(&patch, &cluster(1, 2, "1.33.4")).commands;
        assert!(!steps(undrained.last().unwrap()).contains(&"drain"));
    }

    #[test]
    fn every_kind_of_host_step_has_words() {
        let version = json!("1.34.4");
        for kind in ORDER_KINDS {
            let params = match kind {
                INSTALL_PACKAGES => json!({"packages": ["kubeadm"], "version": version}),
                KUBEADM_UPGRADE => json!({"how": "apply", "version": version}),
                CHECK_ETCD => json!({}),
                ETCD_SNAPSHOT => json!({"name": "before"}),
                UPGRADE_CONTAINERD => json!({"version": "1.7.27-1"}),
                _ => json!({"version": version}),
            };
            let params = params.as_object().unwrap().clone();
            let step = HostStep { name: "its-name".to_owned(), kind: kind.to_owned(), params };
            assert!(words(&step).starts_with("its-name: "), "{kind}: {}", words(&step));
        }
    }
}
