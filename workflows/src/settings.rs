//! Feature gates, admission plugins and flags with which a component of a minor on the way would not start.
//!
//! ```text
//!   control plane   extraArgs in kubeadm's ClusterConfiguration, for all its nodes; what kubeadm's patches on a node say
//!   kubelet         gates of its configuration and its flags, and flags that somebody gave it, by node
//! ```
//! A component ends at once where it is given a name that it does not know, or a gate that is locked to the other value: an API server
//! that does not come up is taken back by kubeadm after minutes, a kubelet stays away. Which minor takes which name away stands in the
//! file of facts. What is not known there is nobody's fault: it refuses nothing.

use crate::changes::refuse;
use crate::compile::Hop;
use crate::facts::{self, Facts};
use crate::finding::{Code, Findings};
use cupcake_crds::DirectUpdateSpec;
use cupcake_crds::values::{ClusterSnapshot, ComponentSetting, KubeVersion, MinorVersion, NodeRole, NodeSnapshot};
use std::collections::BTreeMap;

/// The components that kubeadm starts from flags of the cluster's, in its order.
const CONTROL_PLANE: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];
const KUBELET: &str = "kubelet";

/// Refuses nodes on which a component would not start, one finding a component.
pub(crate) fn settings(spec: &DirectUpdateSpec, snapshot: &ClusterSnapshot, hops: &[Hop<'_>], findings: &mut Findings) {
    let control_plane = hops.iter().filter(|hop| hop.control_plane.moves).map(|hop| hop.step.version).max();
    if let Some(to) = control_plane {
        let nodes: Vec<&NodeSnapshot> = snapshot.with_role(NodeRole::ControlPlane).collect();
        for component in CONTROL_PLANE {
            let stopping = |node: &NodeSnapshot| {
                let of_all = snapshot.surroundings.settings.iter();
                stopping(snapshot, of_all.chain(told_by(node)), component, snapshot.server, to)
            };
            by_node(spec, &nodes, component, &stopping, findings);
        }
    }
    // Where each kubelet goes in the end.
    let mut moving: BTreeMap<&str, (&NodeSnapshot, KubeVersion)> = BTreeMap::new();
    for hop in hops {
        for node in hop.control_plane.kubelets.iter().chain(&hop.workers.moving).copied() {
            let (first, _) = moving.get(node.node.name.as_str()).copied().unwrap_or((node, hop.step.version));
            moving.insert(node.node.name.as_str(), (first, hop.step.version));
        }
    }
    let stopping = |node: &NodeSnapshot| {
        let to = moving.get(node.node.name.as_str()).map_or(node.kubelet, |(_, to)| *to);
        stopping(snapshot, told_by(node), KUBELET, node.kubelet, to)
    };
    let nodes: Vec<&NodeSnapshot> = moving.values().map(|(node, _)| *node).collect();
    by_node(spec, &nodes, KUBELET, &stopping, findings);
}

fn told_by(node: &NodeSnapshot) -> impl Iterator<Item = &ComponentSetting> {
    node.inventory.iter().flat_map(|inventory| &inventory.settings)
}

fn by_node(
    spec: &DirectUpdateSpec,
    nodes: &[&NodeSnapshot],
    component: &str,
    stopping: &dyn Fn(&NodeSnapshot) -> Vec<String>,
    findings: &mut Findings,
) {
    let message = format!("{component} of a minor on the way does not start with what it is given there");
    let remedy = |name: &str| {
        let node = nodes.iter().find(|node| node.node.name == name);
        let told = node.map(|node| stopping(node)).unwrap_or_default().join(", ");
        format!(
            "{name}: {told}: take each out where it stands, or name it in spec.acknowledge: {{check: RemovedSettings, node: {name}}}"
        )
    };
    let is_so = |node: &&NodeSnapshot| !stopping(node).is_empty();
    refuse(spec, nodes, Code::RemovedSettings, component, is_so, &message, remedy, findings);
}

/// What of a component's settings stops it on the way between two versions, each once, with the first minor that it stops.
fn stopping<'s>(
    snapshot: &ClusterSnapshot,
    settings: impl Iterator<Item = &'s ComponentSetting>,
    component: &str,
    from: KubeVersion,
    to: KubeVersion,
) -> Vec<String> {
    let minors = from.minor() + 1..=to.minor();
    let known: Vec<_> = minors
        .map(|minor| MinorVersion { major: to.major(), minor })
        .filter_map(|minor| Some((minor, facts::of(&snapshot.facts, minor)?)))
        .collect();
    let mut told: Vec<String> = Vec::new();
    for setting in settings.filter(|setting| setting.component == component) {
        for name in names(&setting.argument) {
            let first = known.iter().find_map(|(minor, facts)| Some((minor, why(facts, component, &name)?)));
            if let Some((minor, why)) = first {
                told.push(format!("{why} from {minor} on ({})", setting.from));
            }
        }
    }
    told.dedup();
    told
}

/// One name that a minor may no longer know.
enum Name<'a> {
    Gate { name: &'a str, value: &'a str },
    Plugin(&'a str),
    Flag(&'a str),
}

fn names(argument: &str) -> Vec<Name<'_>> {
    let (flag, value) = argument.split_once('=').unwrap_or((argument, ""));
    let listed = value.split(',').map(str::trim).filter(|one| !one.is_empty());
    match flag {
        "--feature-gates" => listed
            .map(|gate| {
                let (name, value) = gate.split_once('=').unwrap_or((gate, "true"));
                Name::Gate { name, value }
            })
            .collect(),
        "--enable-admission-plugins" | "--disable-admission-plugins" => listed.map(Name::Plugin).collect(),
        flag => vec![Name::Flag(flag)],
    }
}

/// Why a component of that minor does not start with it.
fn why(facts: &Facts, component: &str, name: &Name<'_>) -> Option<String> {
    match name {
        Name::Gate { name, value } => {
            let locked = |to: &str| facts.locked_feature_gates.iter().any(|gate| *gate == format!("{name}={to}"));
            if facts.removed_feature_gates.iter().any(|gate| gate == name) {
                Some(format!("feature gate {name} is unknown"))
            } else if (is(value, true) && locked("false")) || (is(value, false) && locked("true")) {
                Some(format!("feature gate {name} cannot be {value}"))
            } else {
                None
            }
        }
        Name::Plugin(name) => {
            let removed = facts.removed_admission_plugins.iter().any(|plugin| plugin == name);
            removed.then(|| format!("admission plugin {name} is unknown"))
        }
        Name::Flag(name) => {
            let of_component = facts.removed_flags.get(component).into_iter().flatten();
            // Those that kubeadm wrote itself once, which are taken out where it wrote them.
            let by_kubeadm = facts.removed_kubelet_flags.iter().filter(|_| component == KUBELET);
            of_component.chain(by_kubeadm).any(|flag| flag == name).then(|| format!("{name} is unknown"))
        }
    }
}

/// A truth value as components read one in flags (Go's `strconv.ParseBool`).
fn is(value: &str, wanted: bool) -> bool {
    let words =
        if wanted { ["1", "t", "T", "TRUE", "true", "True"] } else { ["0", "f", "F", "FALSE", "false", "False"] };
    words.contains(&value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cluster, compiled, spec};
    use crate::{Compilation, Finding};
    use cupcake_crds::node_task::NodeInventory;
    use serde_json::{Value, json};

    fn setting(component: &str, argument: &str, from: &str) -> ComponentSetting {
        ComponentSetting { component: component.into(), argument: argument.into(), from: from.into() }
    }

    /// What is refused and what is warned of, of settings alone.
    fn told(
        from: &str,
        fields: &Value,
        cluster_wide: &[ComponentSetting],
        of_w_02: &[ComponentSetting],
    ) -> (Vec<Finding>, Vec<Finding>) {
        let mut snapshot = cluster(2, 2, from);
        snapshot.surroundings.settings = cluster_wide.to_vec();
        let inventory =
            NodeInventory { settings: of_w_02.to_vec(), cgroup_version: Some(2), ..NodeInventory::default() };
        snapshot.nodes.get_mut("w-02").unwrap().inventory = Some(inventory);
        let of = |findings: Vec<Finding>| -> Vec<Finding> {
            findings.into_iter().filter(|finding| finding.code == Code::RemovedSettings).collect()
        };
        match compiled(&spec(fields), &snapshot) {
            Ok(Compilation::Plan(plan)) => (Vec::new(), of(plan.report.warnings)),
            Ok(Compilation::NothingToDo(nothing)) => (Vec::new(), of(nothing.report.warnings)),
            Err(refusal) => (of(refusal.findings), of(refusal.warnings)),
        }
    }

    const CONFIG: &str = "ConfigMap kube-system/kubeadm-config";

    #[test]
    fn a_gate_a_plugin_and_a_flag_that_a_minor_on_the_way_does_not_know_are_refused_by_component_with_the_minor_and_the_place()
     {
        let given = [
            setting("kube-apiserver", "--feature-gates=APIServerTracing=true,NoSuchGate=true", CONFIG),
            setting("kube-apiserver", "--enable-admission-plugins=NodeRestriction,SecurityContextDeny", CONFIG),
            setting("kube-scheduler", "--feature-gates=MemoryManager=true", CONFIG),
        ];
        let (refused, _) = told("1.29.15", &json!({"targetVersion": "1.36.3"}), &given, &[]);
        assert_eq!(
            refused.iter().map(|finding| finding.field.as_str()).collect::<Vec<_>>(),
            ["kube-apiserver", "kube-scheduler"]
        );
        assert_eq!(refused[0].value, "cp-1, cp-2");
        for part in [
            "admission plugin SecurityContextDeny is unknown from 1.30 on (ConfigMap kube-system/kubeadm-config)",
            "{check: RemovedSettings, node: cp-1}",
        ] {
            assert!(refused[0].remedy.contains(part), "{part}: {}", refused[0].remedy);
        }
        assert!(!refused[0].remedy.contains("APIServerTracing"), "1.37 takes it away: {}", refused[0].remedy);
        assert!(!refused[0].remedy.contains("NoSuchGate"), "what is not known refuses nothing");
        assert!(
            refused[1].remedy.contains("feature gate MemoryManager is unknown from 1.36 on"),
            "{}",
            refused[1].remedy
        );
        let (refused, _) = told("1.36.3", &json!({"targetVersion": "1.37.2"}), &given, &[]);
        assert!(refused[0].remedy.contains("APIServerTracing is unknown from 1.37 on"), "{refused:?}");
        assert_eq!(
            told("1.35.4", &json!({"targetVersion": "1.35.9"}), &given, &[]).0,
            [],
            "a patch takes nothing away"
        );
    }

    #[test]
    fn a_kubelet_is_refused_by_its_node_for_what_it_is_given_there_until_that_is_acknowledged_by_name() {
        let to = |acknowledge: Value| json!({"targetVersion": "1.35.4", "acknowledge": acknowledge});
        let given = [
            setting("kubelet", "--feature-gates=SystemdWatchdog=false", "/etc/default/kubelet"),
            setting("kubelet", "--pod-infra-container-image", "/etc/default/kubelet"),
            setting("kubelet", "--feature-gates=ExecProbeTimeout=true", "/var/lib/kubelet/config.yaml"),
        ];
        let (refused, _) = told("1.34.4", &to(json!([])), &[], &given);
        assert_eq!(refused.len(), 1);
        assert_eq!((refused[0].field.as_str(), refused[0].value.as_str()), ("kubelet", "w-02"));
        for part in [
            "w-02: feature gate SystemdWatchdog cannot be false from 1.35 on (/etc/default/kubelet), \
             --pod-infra-container-image is unknown from 1.35 on (/etc/default/kubelet): take each out",
            "{check: RemovedSettings, node: w-02}",
        ] {
            assert!(refused[0].remedy.contains(part), "{part}: {}", refused[0].remedy);
        }
        assert_eq!(*refused[0].nodes, ["w-02"], "whose inventory is to be asked for anew");
        let (refused, warned) = told("1.34.4", &to(json!([{"check": "RemovedSettings", "node": "w-02"}])), &[], &given);
        assert_eq!((refused.len(), warned.len()), (0, 1));
        let left_out = json!({"targetVersion": "1.35.4", "control": {"skip": [{"requestId": "1", "vertex": "w-02"}]}});
        assert_eq!(told("1.34.4", &left_out, &[], &given).0, [], "it does not move");
    }

    #[test]
    fn a_worker_that_skips_minors_is_judged_by_each_of_them() {
        let given = [setting("kubelet", "--feature-gates=PodIndexLabel=true", "/etc/default/kubelet")];
        let (refused, _) = told("1.34.4", &json!({"targetVersion": "1.37.2"}), &[], &given);
        assert!(refused[0].remedy.contains("PodIndexLabel is unknown from 1.35 on"), "{refused:?}");
    }
}
