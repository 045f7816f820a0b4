//! What etcd 3.6 would find on the control plane's disks, against what etcd 3.5 goes by.
//!
//! Source: etcd.io, "Upgrade etcd from 3.5 to 3.6", and its blog of 2025, "Avoiding Zombie Cluster Members When Upgrading to etcd v3.6".

use crate::changes::minor_of;
use crate::facts;
use crate::finding::{Code, Finding, Findings, named};
use crate::surroundings::members_of;
use cupcake_crds::DirectUpdateSpec;
use cupcake_crds::values::{
    ClusterSnapshot, EtcdDoubt, EtcdDoubtKind, EtcdMember, EtcdTopology, KubeVersion, MinorVersion, NodeRole,
    NodeSnapshot,
};
use cupcake_steps::host::params::{CheckEtcd, CheckStore};

/// The first minor of etcd that goes by its database alone.
pub(crate) const BY_DATABASE: (u32, u32) = (3, 6);

/// From that patch on etcd 3.5 makes its two lists of members alike when it starts. Source: etcd.io, blog of 2025 on zombie members.
const MENDS_ITSELF: KubeVersion = KubeVersion::new(3, 5, 26);

/// Whether a hop that comes from that minor is the one in which kubeadm brings that minor of etcd.
pub(crate) fn is_brought_by(snapshot: &ClusterSnapshot, minor: MinorVersion, before: MinorVersion) -> bool {
    let facts = facts::of(&snapshot.facts, minor).filter(|_| minor > before);
    facts.is_some_and(|facts| facts.etcd.as_deref().and_then(minor_of) == Some(BY_DATABASE))
}

/// What each control-plane node of the hop to a version looks at right before its kubeadm begins; `before` is the minor that the hop
/// comes from.
pub(crate) fn right_before_kubeadm(
    spec: &DirectUpdateSpec,
    snapshot: &ClusterSnapshot,
    version: KubeVersion,
    before: MinorVersion,
) -> CheckEtcd {
    let check = Code::EtcdStore.to_string();
    let acknowledged = || spec.acknowledge.iter().filter(|entry| entry.check == check).map(|entry| entry.node.clone());
    let store = is_brought_by(snapshot, version.minor_version(), before)
        .then(|| CheckStore { acknowledged: acknowledged().collect() });
    CheckEtcd { control_plane: Vec::new(), store }
}

/// Refuses control-plane nodes whose data speaks against that minor, or could not be read. Where an agent told of the machine and not
/// of this, it is asked again. A node without an inventory passes here, with the warning that nothing is known of it.
pub(crate) fn etcd_store(spec: &DirectUpdateSpec, snapshot: &ClusterSnapshot, findings: &mut Findings) {
    if snapshot.etcd == EtcdTopology::External {
        return;
    }
    let doubted = |kind: EtcdDoubtKind| -> Vec<(&NodeSnapshot, String)> {
        let of = |doubts: &[EtcdDoubt]| -> Vec<String> {
            doubts.iter().filter(|doubt| doubt.kind == kind).map(|doubt| doubt.message.clone()).collect()
        };
        let told = snapshot.with_role(NodeRole::ControlPlane).filter_map(|node| {
            let doubts = node.inventory.as_ref()?.etcd_store_doubts.as_deref()?;
            Some((node, of(doubts).join(", "))).filter(|(_, text)| !text.is_empty())
        });
        told.collect()
    };
    let old_keys = doubted(EtcdDoubtKind::OldKeys);
    if !old_keys.is_empty() {
        let message = format!("etcd 3.6 would not start: {}", by_node(&old_keys));
        let remedy = "move what is there to API v3 or remove it, as etcd's guide from 3.5 to 3.6 says; then: etcdutl check v2store";
        findings.refuse(about(&old_keys, message, remedy.to_owned()));
    }
    let differ = doubted(EtcdDoubtKind::MembersDiffer);
    let message = |nodes: &[(&NodeSnapshot, String)]| {
        format!("etcd 3.6 would take for members what etcd 3.5 does not: {}", by_node(nodes))
    };
    let remedy = |name: &str| {
        format!(
            "etcd 3.5.26 and newer mend this when they start: run one first, by a patch of kubeadm that brings it or by etcd.local.imageTag in ConfigMap kube-system/kubeadm-config (taken out again before the update), or name it in spec.acknowledge: {{check: EtcdStore, node: {name}}}"
        )
    };
    refuse(spec, differ, message, remedy, findings);
    let mut not_read = doubted(EtcdDoubtKind::NotRead);
    let control_plane = snapshot.with_role(NodeRole::ControlPlane);
    // An inventory that was written by hand (it names no time) need not have it.
    let asked = control_plane.filter(|node| {
        let inventory = node.inventory.as_ref().filter(|inventory| inventory.taken_at.is_some());
        inventory.is_some_and(|inventory| inventory.etcd_store_doubts.is_none())
    });
    not_read.extend(asked.map(|node| (node, "its agent has not told of it yet".to_owned())));
    let message = |nodes: &[(&NodeSnapshot, String)]| {
        format!("what etcd 3.6 would find on their disks could not be looked at: {}", by_node(nodes))
    };
    let remedy = |name: &str| {
        format!(
            "it is looked at again; if it stays so, mend it or name it in spec.acknowledge: {{check: EtcdStore, node: {name}}}"
        )
    };
    refuse(spec, not_read, message, remedy, findings);
    let (members, seen_by) = members_of(snapshot);
    let version_of =
        |member: &EtcdMember| member.version.as_deref().and_then(|version| version.parse::<KubeVersion>().ok());
    let old = members.iter().filter(|member| version_of(member).is_some_and(|version| version < MENDS_ITSELF));
    let old: Vec<String> =
        old.map(|member| format!("{} {}", member.name, member.version.as_deref().unwrap_or_default())).collect();
    if !old.is_empty() {
        // Nothing speaks for data at which nobody has looked, nor for what was refused above.
        let looked_at = |node: &NodeSnapshot| {
            node.inventory.as_ref().and_then(|found| found.etcd_store_doubts.as_ref()).map(Vec::is_empty)
        };
        let looks: Vec<_> = snapshot.with_role(NodeRole::ControlPlane).map(looked_at).collect();
        let found = if looks.iter().all(|clean| *clean == Some(true)) {
            "; nothing was found that speaks against their data"
        } else if looks.contains(&None) {
            "; their data was not looked at everywhere"
        } else {
            ""
        };
        let message =
            format!("members older than etcd {MENDS_ITSELF}, which mends what etcd 3.6 would read otherwise{found}");
        let remedy = "to be on the safe side run a patch of kubeadm first that brings a newer 3.5";
        findings.warn(Finding::new(Code::EtcdStore, "etcd", named(&old), message, remedy).by_inventories_of(seen_by));
    }
}

fn by_node(nodes: &[(&NodeSnapshot, String)]) -> String {
    nodes.iter().map(|(node, what)| format!("{}: {what}", node.node.name)).collect::<Vec<_>>().join("; ")
}

fn about(nodes: &[(&NodeSnapshot, String)], message: String, remedy: String) -> Finding {
    let names: Vec<String> = nodes.iter().map(|(node, _)| node.node.name.clone()).collect();
    Finding::new(Code::EtcdStore, "etcd", named(&names), message, remedy).by_inventories_of(names)
}

/// Refuses those that nobody has acknowledged by name, and tells of the others.
fn refuse(
    spec: &DirectUpdateSpec,
    nodes: Vec<(&NodeSnapshot, String)>,
    message: impl Fn(&[(&NodeSnapshot, String)]) -> String,
    remedy: impl Fn(&str) -> String,
    findings: &mut Findings,
) {
    let acknowledged = |(node, _): &(&NodeSnapshot, String)| {
        let check = Code::EtcdStore.to_string();
        spec.acknowledge.iter().any(|entry| entry.check == check && entry.node == node.node.name)
    };
    let (known, open): (Vec<_>, Vec<_>) = nodes.into_iter().partition(acknowledged);
    if let Some((first, _)) = open.first() {
        findings.refuse(about(&open, message(&open), remedy(&first.node.name)));
    }
    if !known.is_empty() {
        findings.warn(about(&known, message(&known), "acknowledged in spec.acknowledge".to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cluster, compiled, spec};
    use crate::{Compilation, Compiled, Refusal};
    use cupcake_crds::node_task::NodeInventory;
    use serde_json::{Value, json};

    fn planned(
        to: &str,
        doubts: Option<&[(EtcdDoubtKind, &str)]>,
        by_agent: bool,
        acknowledge: &Value,
    ) -> Result<Compilation<Compiled>, Refusal> {
        let mut snapshot = cluster(3, 1, "1.33.4");
        let doubt = |(kind, message): &(EtcdDoubtKind, &str)| EtcdDoubt { kind: *kind, message: (*message).to_owned() };
        let inventory = NodeInventory {
            taken_at: by_agent.then_some(snapshot.taken_at),
            etcd_store_doubts: doubts.map(|doubts| doubts.iter().map(doubt).collect()),
            ..NodeInventory::default()
        };
        snapshot.nodes.get_mut("cp-2").unwrap().inventory = Some(inventory);
        compiled(&spec(&json!({"targetVersion": to, "acknowledge": acknowledge})), &snapshot)
    }

    #[test]
    fn data_that_etcd_3_6_would_read_otherwise_is_refused_until_it_is_acknowledged_by_name() {
        let gone = "its database still has member d (cp-9), which was removed and would come back";
        let doubts: &[_] = &[(EtcdDoubtKind::MembersDiffer, gone)];
        let none = json!([]);
        let refusal = planned("1.34.4", Some(doubts), true, &none).unwrap_err();
        let found = refusal.findings.iter().find(|finding| finding.code == Code::EtcdStore).unwrap();
        assert_eq!((found.value.as_str(), &*found.nodes), ("cp-2", &["cp-2".to_owned()][..]));
        for part in [gone, "cp-2: its database", "3.5.26", "spec.acknowledge: {check: EtcdStore, node: cp-2}"] {
            assert!(refusal.to_string().contains(part), "{part}: {refusal}");
        }
        let acknowledged = json!([{"check": "EtcdStore", "node": "cp-2"}]);
        planned("1.34.4", Some(doubts), true, &acknowledged).unwrap();
        planned("1.34.4", Some(&[]), true, &none).unwrap();
        planned("1.33.7", Some(doubts), true, &none).unwrap();
    }

    #[test]
    fn each_control_plane_node_looks_at_etcd_right_before_kubeadm_and_at_its_disk_in_the_hop_that_brings_3_6() {
        let looks = |from: &str, to: &str| -> Vec<(String, Value)> {
            let acknowledge = json!([{"check": "EtcdStore", "node": "cp-2"}]);
            let spec = spec(&json!({"targetVersion": to, "acknowledge": acknowledge}));
            let dag = crate::testing::plan_of(&spec, &cluster(3, 1, from)).plan.expand().unwrap();
            let orders = dag.vertices().iter().filter(|vertex| vertex.name.as_str().ends_with("/kubeadm-upgrade"));
            let of = |vertex: &cupcake_engine::dag::Vertex| {
                let steps = vertex.params["prepare"].as_array().unwrap();
                let [.., look, kubeadm] = steps.as_slice() else { panic!("{steps:?}") };
                assert_eq!((&look["kind"], &kubeadm["kind"]), (&json!("check-etcd/v1"), &json!("kubeadm-upgrade/v1")));
                (vertex.name.to_string(), look["params"].clone())
            };
            orders.map(of).collect()
        };
        let told = looks("1.33.4", "1.35.4");
        let names: Vec<_> = told.iter().map(|(name, _)| name.as_str()).collect();
        let all = ["1.34.4", "1.35.4"]
            .map(|hop| ["cp-1", "cp-2", "cp-3"].map(|node| format!("{hop}/control-plane/{node}/kubeadm-upgrade")));
        assert_eq!(names, all.concat());
        for (name, params) in told {
            let store = name.starts_with("1.34.4/").then(|| json!({"store": {"acknowledged": ["cp-2"]}}));
            assert_eq!(params, store.unwrap_or(Value::Null), "{name}");
        }
    }

    #[test]
    fn members_older_than_the_patch_that_mends_itself_are_told_where_nothing_speaks_against_their_data() {
        let told = |to: &str, version: &str| -> Vec<String> {
            let mut snapshot = cluster(3, 1, "1.33.4");
            snapshot.surroundings.etcd_members[1].version = Some(version.to_owned());
            let plan = crate::testing::plan_of(&spec(&json!({"targetVersion": to})), &snapshot);
            let warned = plan.report.warnings.iter().filter(|warning| warning.code == Code::EtcdStore);
            warned.map(ToString::to_string).collect()
        };
        let [warned] = &*told("1.34.4", "3.5.24") else { panic!("one warning") };
        assert!(warned.contains("cp-2 3.5.24") && warned.contains("older than etcd 3.5.26"), "{warned}");
        assert!(warned.contains("not looked at everywhere") && !warned.contains("nothing was found"), "{warned}");
        assert_eq!(told("1.34.4", "3.5.26"), Vec::<String>::new());
        assert_eq!(told("1.34.4", "3.6.5"), Vec::<String>::new());
        assert_eq!(told("1.33.9", "3.5.24"), Vec::<String>::new(), "etcd stays at its minor");
    }

    #[test]
    fn old_keys_with_which_etcd_3_6_does_not_start_cannot_be_acknowledged() {
        let doubts: &[_] = &[(EtcdDoubtKind::OldKeys, "its old store (v2) has data: /1")];
        let acknowledged = json!([{"check": "EtcdStore", "node": "cp-2"}]);
        let refusal = planned("1.34.4", Some(doubts), true, &acknowledged).unwrap_err().to_string();
        assert!(refusal.contains("would not start: cp-2: its old store (v2) has data: /1"), "{refusal}");
    }

    #[test]
    fn a_machine_that_was_not_looked_at_is_refused_and_asked_again() {
        let none = json!([]);
        let refusal = planned("1.34.4", None, true, &none).unwrap_err();
        assert!(refusal.to_string().contains("cp-2: its agent has not told of it yet"), "{refusal}");
        assert!(
            refusal.findings.iter().any(|finding| *finding.nodes == ["cp-2"]),
            "whose inventory is to be asked for"
        );
        let unread: &[_] = &[(EtcdDoubtKind::NotRead, "its members cannot be listed: refused")];
        let refusal = planned("1.34.4", Some(unread), true, &none).unwrap_err();
        assert!(refusal.to_string().contains("could not be looked at: cp-2: its members"), "{refusal}");
        planned("1.34.4", None, false, &none).unwrap();
    }
}
