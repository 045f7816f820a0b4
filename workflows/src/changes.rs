//! What the minors on the way change for a cluster: told before anything moves, by name where the nodes' inventories know.

use crate::compile::Hop;
use crate::containerd::with_containerd;
use crate::etcd_store::{etcd_store, is_brought_by};
use crate::facts::{self, Facts};
use crate::finding::{Code, Finding, Findings, named};
use crate::preflight::ACKNOWLEDGED;
use cupcake_crds::DirectUpdateSpec;
use cupcake_crds::values::{ClusterSnapshot, MinorVersion, NodeSnapshot, PackageVersion};
use std::collections::BTreeMap;

/// Warns of what each new minor removes, and refuses nodes on which its kubelet would not start.
pub(crate) fn changes(
    spec: &DirectUpdateSpec,
    snapshot: &ClusterSnapshot,
    hops: &[Hop<'_>],
    containerd: Option<&PackageVersion>,
    findings: &mut Findings,
) {
    avoided(snapshot, hops, findings);
    patches_first(hops, findings);
    let mut before = snapshot.server.minor_version();
    for hop in hops {
        let minor = hop.step.version.minor_version();
        if let Some(facts) = facts::of(&snapshot.facts, minor).filter(|_| minor > before) {
            api(minor, &facts, findings);
        }
        if is_brought_by(snapshot, minor, before) {
            etcd_store(spec, snapshot, findings);
        }
        before = before.max(minor);
    }
    // Of each minor the nodes whose kubelet comes to it or goes past it.
    let mut comes_to: BTreeMap<MinorVersion, BTreeMap<&str, &NodeSnapshot>> = BTreeMap::new();
    for hop in hops {
        let version = hop.step.version;
        for node in hop.control_plane.kubelets.iter().chain(&hop.workers.moving) {
            for minor in node.kubelet.minor() + 1..=version.minor() {
                let minor = MinorVersion { major: version.major(), minor };
                comes_to.entry(minor).or_default().entry(node.node.name.as_str()).or_insert(node);
            }
        }
    }
    let last = comes_to.keys().next_back().copied();
    for (minor, moving) in comes_to {
        if let Some(facts) = facts::of(&snapshot.facts, minor) {
            let moving: Vec<_> = moving.into_values().collect();
            nodes(spec, &moving, minor, &facts, findings);
            runtime(spec, &moving, minor, &facts, containerd, findings);
            // Once: at the minor where the nodes stay.
            if Some(minor) == last {
                runtime_later(&moving, &facts, containerd, findings);
            }
        }
    }
}

/// Versions on the way, or where the cluster is, that are better not gone through.
fn avoided(snapshot: &ClusterSnapshot, hops: &[Hop<'_>], findings: &mut Findings) {
    let (server, own) = (snapshot.server, &snapshot.facts);
    if let Some(avoid) = facts::avoid(own, server) {
        let (code, field) = (Code::AvoidedRelease, "the API servers");
        findings.warn(Finding::new(code, field, server, avoid.why.as_str(), avoid.leaving.as_str()));
    }
    let on_the_way = hops.iter().map(|hop| hop.step.version).filter(|version| *version != server);
    for (version, avoid) in on_the_way.filter_map(|version| Some((version, facts::avoid(own, version)?))) {
        let minor = version.minor_version();
        let newest = facts::newest(own, minor).unwrap_or(version);
        let remedy = format!("go to {newest} instead, in spec.targetVersion or spec.path");
        findings.warn(Finding::new(
            Code::AvoidedRelease,
            format!("Kubernetes {minor}"),
            version,
            avoid.why.as_str(),
            remedy,
        ));
    }
}

/// Hops within a minor that a fact put before the next one.
fn patches_first(hops: &[Hop<'_>], findings: &mut Findings) {
    for (hop, reason) in hops.iter().filter_map(|hop| Some((hop, hop.step.reason.as_ref()?))) {
        let version = hop.step.version;
        let message = format!("the control plane goes there before the next minor: {reason}");
        let remedy =
            "where that does not hold for your cluster, take leaveFrom away in facts of your own (docs/facts.md)";
        let field = format!("Kubernetes {}", version.minor_version());
        findings.warn(Finding::new(Code::PatchFirst, field, version, message, remedy));
    }
}

fn api(minor: MinorVersion, facts: &Facts, findings: &mut Findings) {
    if !facts.removed_apis.is_empty() {
        findings.warn(Finding::new(
            Code::RemovedApis,
            format!("Kubernetes {minor}"),
            facts.removed_apis.join(", "),
            "no longer served; stored objects stay, but clients and manifests that use them fail",
            "see who asks for them: kubectl get --raw /metrics | grep apiserver_requested_deprecated_apis",
        ));
    }
    if let Some(etcd) = &facts.etcd {
        findings.warn(Finding::new(
            Code::EtcdMinor,
            format!("Kubernetes {minor}"),
            format!("etcd {etcd}"),
            "kubeadm brings another minor of etcd, and there is no way back but the snapshot",
            "see that every member is a voter and in step first: etcdctl endpoint status --cluster",
        ));
    }
}

fn nodes(
    spec: &DirectUpdateSpec,
    moving: &[&NodeSnapshot],
    minor: MinorVersion,
    facts: &Facts,
    findings: &mut Findings,
) {
    let field = format!("Kubernetes {minor}");
    if !facts.removed_kubelet_flags.is_empty() {
        findings.warn(Finding::new(
            Code::RemovedKubeletFlags,
            &field,
            facts.removed_kubelet_flags.join(", "),
            "the kubelet no longer starts with them; those that kubeadm wrote are taken out of kubeadm-flags.env (flags that facts of one's own add are not)",
            "look for them in /etc/default/kubelet and in drop-ins of kubelet.service",
        ));
    }
    if !facts.removed_kubelet_settings.is_empty() {
        findings.warn(Finding::new(
            Code::RemovedKubeletFlags,
            &field,
            facts.removed_kubelet_settings.join(", "),
            "fields of the kubelet's configuration that it no longer knows: it starts without them, and says so in its log alone",
            "look for them in ConfigMap kube-system/kubelet-config, in kubeadm's patches and in /var/lib/kubelet/config.yaml",
        ));
    }
    if facts.refuses_cgroup_v1 {
        let on_v1 = |node: &&NodeSnapshot| node.inventory.as_ref().is_some_and(|found| found.cgroup_version == Some(1));
        let unknown = |node: &&NodeSnapshot| node.inventory.as_ref().is_none_or(|found| found.cgroup_version.is_none());
        let message =
            "the kubelet does not start on control groups version 1 unless its configuration says failCgroupV1: false";
        let remedy = |name: &str| {
            format!(
                "boot it with systemd.unified_cgroup_hierarchy=1, or set failCgroupV1: false in ConfigMap kube-system/kubelet-config, from which kubeadm writes each node, and name it in spec.acknowledge: {{check: CgroupV1, node: {name}}}"
            )
        };
        refuse(spec, moving, Code::CgroupV1, &field, on_v1, message, remedy, findings);
        if moving.iter().any(unknown) {
            let nodes = named(moving.iter().filter(|node| unknown(node)).map(|node| &node.node.name));
            let remedy = "see: stat -fc %T /sys/fs/cgroup, which says cgroup2fs for version 2";
            let message = format!("{message}; which one these have is not known");
            findings.warn(Finding::new(Code::CgroupV1, &field, nodes, message, remedy));
        }
    }
}

/// Refuses nodes whose containerd is too old for the kubelet of a minor: the one that is there, or that they get before it.
fn runtime(
    spec: &DirectUpdateSpec,
    moving: &[&NodeSnapshot],
    minor: MinorVersion,
    facts: &Facts,
    containerd: Option<&PackageVersion>,
    findings: &mut Findings,
) {
    let Some(oldest) = &facts.oldest_containerd else { return };
    let too_old = |node: &&NodeSnapshot| is_older(node, containerd, oldest);
    let message = format!("the kubelet needs containerd {oldest} or newer");
    let remedy = |name: &str| {
        let bring = if spec.moves_containerd() {
            format!("name {oldest} or newer in spec.componentVersions.containerd")
        } else {
            let components = with_containerd(spec);
            format!(
                "let this update bring it first, by spec.components: {components} and {oldest} or newer in spec.componentVersions.containerd, or upgrade it there by hand"
            )
        };
        format!("{bring}; or name it in spec.acknowledge: {{check: ContainerdTooOld, node: {name}}}")
    };
    let field = format!("Kubernetes {minor}");
    refuse(spec, moving, Code::ContainerdTooOld, &field, too_old, &message, remedy, findings);
}

/// Whether a node's containerd, the one that is there or that it gets, is of an older minor than that.
fn is_older(node: &NodeSnapshot, containerd: Option<&PackageVersion>, oldest: &str) -> bool {
    let there = || node.inventory.as_ref().and_then(|found| found.containerd.as_deref()).and_then(minor_of);
    let found = containerd.map_or_else(there, PackageVersion::minor);
    found.zip(minor_of(oldest)).is_some_and(|(found, oldest)| found < oldest)
}

/// Warns of a containerd that works with this minor, and will not with a later one.
fn runtime_later(
    moving: &[&NodeSnapshot],
    facts: &Facts,
    containerd: Option<&PackageVersion>,
    findings: &mut Findings,
) {
    let Some(later) = &facts.later_containerd else { return };
    let old = moving.iter().filter(|node| is_older(node, containerd, &later.oldest));
    let names: Vec<String> = old.map(|node| node.node.name.clone()).collect();
    if !names.is_empty() {
        let message =
            format!("the kubelet there will need containerd {} or newer: this is the time to move it", later.oldest);
        let remedy =
            "let this update or the next one bring it, by spec.components and spec.componentVersions.containerd";
        let field = format!("Kubernetes {}", later.from);
        let finding = Finding::new(Code::ContainerdTooOld, field, named(&names), message, remedy);
        findings.warn(finding.of_nodes(names));
    }
}

/// Refuses the nodes that are so, but for those that a person has acknowledged by name, which are told all the same.
#[expect(clippy::too_many_arguments, reason = "one call a check, each argument of its own kind")]
pub(crate) fn refuse(
    spec: &DirectUpdateSpec,
    nodes: &[&NodeSnapshot],
    check: Code,
    field: &str,
    is_so: impl Fn(&&NodeSnapshot) -> bool,
    message: &str,
    remedy: impl Fn(&str) -> String,
    findings: &mut Findings,
) {
    let (known, open): (Vec<&NodeSnapshot>, Vec<&NodeSnapshot>) =
        nodes.iter().copied().filter(is_so).partition(|node| is_acknowledged(spec, check, node));
    let finding = |nodes: &[&NodeSnapshot], remedy: String| {
        let names: Vec<String> = nodes.iter().map(|node| node.node.name.clone()).collect();
        Finding::new(check, field, named(&names), message, remedy).by_inventories_of(names)
    };
    if let Some(first) = open.first() {
        findings.refuse(finding(&open, crate::finding::for_each(remedy(&first.node.name), open.len())));
    }
    if !known.is_empty() {
        findings.warn(finding(&known, "acknowledged in spec.acknowledge".to_owned()));
    }
}

/// Whether somebody answers for that check on that node.
pub(crate) fn is_acknowledged(spec: &DirectUpdateSpec, check: Code, node: &NodeSnapshot) -> bool {
    // Of what nobody may answer for it stays without effect, whatever the object holds.
    ACKNOWLEDGED.contains(&check)
        && spec.acknowledge.iter().any(|entry| entry.check == check.to_string() && entry.node == node.node.name)
}

/// `1.6` of `v1.6.20~ds1`, as numbers.
pub(crate) fn minor_of(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.trim_start_matches('v').split('.');
    let major = numbers.next()?.parse().ok()?;
    let minor: String = numbers.next()?.chars().take_while(char::is_ascii_digit).collect();
    Some((major, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cluster, compiled, spec};
    use crate::{Compilation, Refusal};
    use cupcake_crds::node_task::NodeInventory;
    use serde_json::{Value, json};

    fn planned(from: &str, fields: &Value, change: impl Fn(&mut NodeInventory)) -> Result<Vec<Finding>, Refusal> {
        let mut snapshot = cluster(1, 2, from);
        for node in snapshot.nodes.values_mut() {
            let mut inventory = NodeInventory { cgroup_version: Some(2), ..NodeInventory::default() };
            if node.node.name == "w-02" {
                change(&mut inventory);
            }
            node.inventory = Some(inventory);
        }
        compiled(&spec(fields), &snapshot).map(|compilation| match compilation {
            Compilation::Plan(plan) => plan.report.warnings,
            Compilation::NothingToDo(nothing) => nothing.report.warnings,
        })
    }

    #[test]
    fn what_each_minor_on_the_way_takes_away_is_told_once_and_in_order() {
        let warnings = planned("1.31.14", &json!({"targetVersion": "1.36.3"}), |_| ()).unwrap();
        let told: Vec<String> = warnings.iter().map(|warning| format!("{} {}", warning.code, warning.field)).collect();
        assert_eq!(
            told,
            ["RemovedApis Kubernetes 1.32", "EtcdMinor Kubernetes 1.34", "RemovedKubeletFlags Kubernetes 1.35"]
        );
        assert_eq!(planned("1.32.1", &json!({"targetVersion": "1.32.13"}), |_| ()).unwrap(), []);
    }

    #[test]
    fn etcd_3_7_and_fields_of_the_kubelets_configuration_that_facts_of_ones_own_name_are_told_at_their_minor() {
        let mut snapshot = cluster(1, 1, "1.35.4");
        snapshot.facts =
            crate::own_facts(json!({"minors": {"1.36": {"removedKubeletSettings": ["ourField"]}}})).unwrap();
        let warnings = crate::testing::plan_of(&spec(&json!({"targetVersion": "1.37.2"})), &snapshot).report.warnings;
        let told: Vec<String> =
            warnings.iter().map(|one| format!("{} {} {}", one.code, one.field, one.value)).collect();
        let wanted = ["RemovedKubeletFlags Kubernetes 1.36 ourField", "EtcdMinor Kubernetes 1.37 etcd 3.7"];
        assert!(wanted.iter().all(|one| told.iter().any(|other| other == one)), "{told:?}");
    }

    #[test]
    fn a_node_whose_kubelet_would_not_start_is_refused_until_it_is_acknowledged_by_name() {
        let v1 = |inventory: &mut NodeInventory| inventory.cgroup_version = Some(1);
        let to = |acknowledge: Value| json!({"targetVersion": "1.35.4", "acknowledge": acknowledge});
        let refusal = planned("1.34.4", &to(json!([])), v1).unwrap_err();
        assert_eq!((refusal.code(), refusal.findings[0].value.as_str()), (Code::CgroupV1, "w-02"));
        assert!(refusal.to_string().contains("spec.acknowledge: {check: CgroupV1, node: w-02}"), "{refusal}");
        planned("1.34.4", &to(json!([{"check": "CgroupV1", "node": "w-01"}])), v1).unwrap_err();
        let typo = planned("1.34.4", &to(json!([{"check": "CgroupV2", "node": "w-02"}])), v1).unwrap_err();
        assert!(typo.to_string().contains("\"CgroupV2\": no check of that name"), "{typo}");
        let warnings = planned("1.34.4", &to(json!([{"check": "CgroupV1", "node": "w-02"}])), v1).unwrap();
        assert!(warnings.iter().any(|warning| warning.code == Code::CgroupV1 && warning.value == "w-02"));
        let unknown = planned("1.34.4", &to(json!([])), |inventory| inventory.cgroup_version = None).unwrap();
        assert!(unknown.iter().any(|warning| warning.to_string().contains("is not known")), "{unknown:?}");
    }

    #[test]
    fn releases_that_leave_something_behind_are_gone_around_and_told_where_they_are_asked_for_or_left() {
        let avoided = |from: &str, fields: &Value, offered: &[&str]| -> Vec<String> {
            let mut snapshot = cluster(1, 0, from);
            snapshot.known_versions = offered.iter().map(|version| version.parse().unwrap()).collect();
            let Compilation::Plan(plan) = compiled(&spec(fields), &snapshot).unwrap() else { panic!("nothing to do") };
            let warnings = plan.report.warnings.iter();
            let told = warnings.filter(|warning| warning.code == Code::AvoidedRelease);
            told.map(|warning| format!("{} {}", warning.field, warning.value)).collect()
        };
        let to_1_29 = json!({"targetVersion": "1.29.15"});
        assert_eq!(avoided("1.27.16", &to_1_29, &[]), Vec::<String>::new(), "the newest known patch is taken");
        assert_eq!(
            avoided("1.27.16", &to_1_29, &["1.28.2", "1.29.15"]),
            ["Kubernetes 1.28 1.28.2"],
            "nothing else is offered"
        );
        let path = json!({"targetVersion": "1.29.15", "path": ["1.28.1", "1.29.15"]});
        assert_eq!(avoided("1.27.16", &path, &[]), ["Kubernetes 1.28 1.28.1"]);
        assert_eq!(avoided("1.27.16", &json!({"targetVersion": "1.28.0"}), &[]), ["Kubernetes 1.28 1.28.0"]);
        assert_eq!(avoided("1.27.16", &json!({"targetVersion": "1.28.3"}), &[]), Vec::<String>::new());
        assert_eq!(avoided("1.28.2", &json!({"targetVersion": "1.28.15"}), &[]), ["the API servers 1.28.2"]);
    }

    #[test]
    fn a_containerd_that_a_later_minor_will_not_take_is_told_once_at_the_last_minor_that_takes_it() {
        let told = |from: &str, to: &str, containerd: &str| {
            let mut snapshot = cluster(3, 2, from);
            snapshot.nodes.get_mut("w-02").unwrap().inventory.as_mut().unwrap().containerd =
                Some(containerd.to_owned());
            let warnings = crate::testing::plan_of(&spec(&json!({"targetVersion": to})), &snapshot).report.warnings;
            let of = warnings.into_iter().filter(|one| one.code == Code::ContainerdTooOld);
            of.map(|one| format!("{} {}", one.field, one.value)).collect::<Vec<_>>()
        };
        assert_eq!(told("1.35.4", "1.37.2", "1.7.27"), ["Kubernetes 1.38 w-02"]);
        assert_eq!(told("1.35.4", "1.36.3", "1.7.27"), ["Kubernetes 1.38 w-02"]);
        assert_eq!((told("1.35.4", "1.36.3", "2.0.5").len(), told("1.34.4", "1.35.4", "1.7.27").len()), (0, 0));
    }

    #[test]
    fn a_container_runtime_that_the_kubelet_cannot_speak_to_is_refused() {
        let old = |inventory: &mut NodeInventory| inventory.containerd = Some("1.5.9-0ubuntu1~20.04.6".to_owned());
        let refusal = planned("1.25.16", &json!({"targetVersion": "1.26.15"}), old).unwrap_err();
        assert_eq!((refusal.code(), refusal.findings[0].value.as_str()), (Code::ContainerdTooOld, "w-02"));
        let new = |inventory: &mut NodeInventory| inventory.containerd = Some("v1.6.20~ds1".to_owned());
        planned("1.25.16", &json!({"targetVersion": "1.26.15"}), new).unwrap();
    }
}
