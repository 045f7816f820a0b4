//! What the machines were last seen to be, against what every update asks of them.

use crate::changes::refuse;
use crate::finding::{Code, Finding, Findings, named};
use cupcake_crds::DirectUpdateSpec;
use cupcake_crds::node_task::NodeInventory;
use cupcake_crds::values::{ClusterSnapshot, NodeRole, NodeSnapshot};
use cupcake_steps::ports::host::{reserve_bytes, snapshot_room_bytes};

/// What packages and images of one hop take on a control-plane node, in bytes, rounded up: kubeadm, kubelet and kubectl
/// unpacked (0.3 GB), seven images (0.7 GB), and a margin.
const CONTROL_PLANE_BYTES: u64 = 1_500_000_000;
/// The same on a worker: packages, kube-proxy and pause.
const WORKER_BYTES: u64 = 700_000_000;
/// How many days before their end certificates are spoken of.
const CERTIFICATE_DAYS_MIN: i64 = 14;

/// Disk, certificates, swap and package manager of every node that changes.
pub(crate) fn machines(
    spec: &DirectUpdateSpec,
    snapshot: &ClusterSnapshot,
    changing: &[&NodeSnapshot],
    findings: &mut Findings,
) {
    for entry in spec.acknowledge.iter().filter(|entry| !snapshot.nodes.contains_key(&entry.node)) {
        let message = "there is no node of that name";
        findings.warn(Finding::new(Code::NoEffect, "spec.acknowledge", &entry.node, message, "see: kubectl get nodes"));
    }
    let inventory = |node: &NodeSnapshot| node.inventory.clone().unwrap_or_default();
    let full = |node: &&NodeSnapshot| {
        let found = inventory(node);
        found.disk_free_bytes.is_some_and(|free| free < bytes_needed(node.role, &found))
    };
    let message = "too little space below /var/lib: images, a snapshot and kubeadm's copy of etcd's data come on it, and a tenth stays free";
    let remedy = |name: &str| {
        let found = snapshot.nodes.get(name).map(|node| (inventory(node), node.role));
        let (found, role) = found.unwrap_or((NodeInventory::default(), NodeRole::Worker));
        let (free, needed) = (found.disk_free_bytes.unwrap_or_default(), bytes_needed(role, &found));
        format!(
            "{name} has {} MB and needs {}: make room, or name it in spec.acknowledge: {{check: DiskSpace, node: {name}}}",
            free / 1_000_000,
            needed / 1_000_000
        )
    };
    refuse(spec, changing, Code::DiskSpace, "nodes", full, message, remedy, findings);

    let expired = |node: &&NodeSnapshot| inventory(node).certificates_expire.is_some_and(|at| at <= snapshot.taken_at);
    let message = "certificates of the control plane have expired, so that kubeadm cannot reach the API server";
    let remedy =
        |name: &str| format!("on {name}: kubeadm certs renew all, then restart the static pods and the kubelet");
    refuse(spec, changing, Code::CertificatesExpired, "nodes", expired, message, remedy, findings);
    let soon = snapshot.taken_at + chrono::TimeDelta::days(CERTIFICATE_DAYS_MIN);
    let expiring: Vec<_> = changing
        .iter()
        .filter(|node| inventory(node).certificates_expire.is_some_and(|at| at > snapshot.taken_at && at < soon))
        .map(|node| &node.node.name)
        .collect();
    if !expiring.is_empty() {
        let message = format!("certificates of the control plane expire within {CERTIFICATE_DAYS_MIN} days");
        let remedy =
            "kubeadm renews those of the components that it changes; see the others: kubeadm certs check-expiration";
        findings.warn(Finding::new(Code::CertificatesExpire, "nodes", named(expiring), message, remedy));
    }

    hand_made(spec, snapshot, changing, findings);

    let swapping = |node: &&NodeSnapshot| inventory(node).swap == Some(true);
    let message = "swap is on, and the kubelet does not start with it: the one that runs was started before it came";
    let remedy = |name: &str| {
        format!(
            "on {name}: swapoff -a, and take it out of /etc/fstab; or set failSwapOn: false in ConfigMap kube-system/kubelet-config, from which kubeadm writes each node, and name it in spec.acknowledge: {{check: SwapOn, node: {name}}}"
        )
    };
    refuse(spec, changing, Code::SwapOn, "nodes", swapping, message, remedy, findings);

    let strange = |node: &&NodeSnapshot| {
        let found = inventory(node);
        found.os.is_some() && found.package_manager.as_deref() != Some("apt")
    };
    let message = "no apt-get there, and this release installs packages with it only";
    let remedy = |_: &str| "leave workers out by spec.nodeSelector, and upgrade them by hand".to_owned();
    refuse(spec, changing, Code::PackageManager, "nodes", strange, message, remedy, findings);
}

/// What kubeadm would undo: it writes manifests and the kubelet's configuration anew in every upgrade.
fn hand_made(spec: &DirectUpdateSpec, snapshot: &ClusterSnapshot, changing: &[&NodeSnapshot], findings: &mut Findings) {
    let inventory = |node: &NodeSnapshot| node.inventory.clone().unwrap_or_default();
    let changed = |node: &&NodeSnapshot| !inventory(node).hand_made.is_empty();
    let message = "changes that somebody made by hand would be undone: kubeadm writes static pods and the kubelet's configuration anew";
    let remedy = |name: &str| {
        let told = snapshot.nodes.get(name).map(inventory).unwrap_or_default().hand_made.join(", ");
        format!(
            "{name}: {told}; give kubeadm the same, as extraArgs in ConfigMap kube-system/kubeadm-config, in ConfigMap \
             kube-system/kubelet-config, or as a patch in /etc/kubernetes/patches there, or let it go and name it in \
             spec.acknowledge: {{check: HandMadeChanges, node: {name}}}"
        )
    };
    refuse(spec, changing, Code::HandMadeChanges, "nodes", changed, message, remedy, findings);
    let unread: Vec<(&String, String)> =
        changing.iter().filter_map(|node| Some((&node.node.name, inventory(node).hand_made_unread?))).collect();
    if let Some((first, why)) = unread.first() {
        let names = unread.iter().map(|(name, _)| (*name).clone()).collect::<Vec<_>>();
        let message = format!("whether kubeadm would undo changes by hand is not known; {first}: {why}");
        let remedy = "compare before: kubeadm upgrade diff, with kubeadm of the version that runs";
        findings.warn(
            Finding::new(Code::NotLookedAt, "manifests", named(&names), message, remedy).by_inventories_of(names),
        );
    }
}

fn bytes_needed(role: NodeRole, found: &NodeInventory) -> u64 {
    let disk_bytes = found.disk_size_bytes.unwrap_or_default();
    match role {
        NodeRole::ControlPlane => CONTROL_PLANE_BYTES
            .saturating_add(snapshot_room_bytes(found.etcd_data_bytes.unwrap_or_default(), disk_bytes)),
        NodeRole::Worker => WORKER_BYTES + reserve_bytes(disk_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cluster, compiled, spec, start};
    use serde_json::{Value, json};

    fn codes(fields: &Value, node: &str, change: impl Fn(&mut NodeInventory)) -> (Vec<Code>, Vec<Code>) {
        let mut snapshot = cluster(1, 1, "1.33.4");
        let mut inventory = NodeInventory {
            os: Some("Debian".into()),
            package_manager: Some("apt".into()),
            available_versions: vec!["1.34.4".into()],
            ..NodeInventory::default()
        };
        change(&mut inventory);
        snapshot.nodes.get_mut(node).unwrap().inventory = Some(inventory);
        let of = |findings: &[Finding]| {
            findings.iter().map(|finding| finding.code).filter(|code| *code != Code::EtcdMinor).collect()
        };
        match compiled(&spec(fields), &snapshot) {
            Ok(crate::Compilation::Plan(plan)) => (Vec::new(), of(&plan.report.warnings)),
            Ok(crate::Compilation::NothingToDo(_)) => panic!("nothing to do"),
            Err(refusal) => (of(&refusal.findings), of(&refusal.warnings)),
        }
    }

    #[test]
    fn a_full_disk_expired_certificates_and_a_strange_package_manager_stand_in_the_way() {
        let none: Vec<Code> = Vec::new();
        let full = |inventory: &mut NodeInventory| {
            (inventory.disk_free_bytes, inventory.etcd_data_bytes) = (Some(3_000_000_000), Some(1_000_000_000));
        };
        let tenth = |size: u64| {
            move |inventory: &mut NodeInventory| {
                (inventory.disk_free_bytes, inventory.disk_size_bytes) = (Some(3_000_000_000), Some(size));
            }
        };
        assert_eq!(
            codes(&json!({}), "w-01", tenth(25_000_000_000)).0,
            [Code::DiskSpace],
            "the kubelet would evict pods"
        );
        assert_eq!(codes(&json!({}), "w-01", tenth(20_000_000_000)), (none.clone(), none.clone()));
        assert_eq!(codes(&json!({}), "cp-1", full).0, [Code::DiskSpace], "twice etcd's data, and the images");
        assert_eq!(codes(&json!({}), "w-01", full), (none.clone(), none.clone()), "a worker has no etcd");
        let acknowledged = json!({"acknowledge": [{"check": "DiskSpace", "node": "cp-1"}]});
        assert_eq!(codes(&acknowledged, "cp-1", full), (none.clone(), vec![Code::DiskSpace]));
        let expire = |days: i64| {
            move |inventory: &mut NodeInventory| {
                inventory.certificates_expire = Some(start() + chrono::TimeDelta::days(days));
            }
        };
        assert_eq!(codes(&json!({}), "cp-1", expire(-1)).0, [Code::CertificatesExpired]);
        assert_eq!(codes(&json!({}), "cp-1", expire(5)), (none.clone(), vec![Code::CertificatesExpire]));
        assert_eq!(codes(&json!({}), "cp-1", expire(300)), (none.clone(), none));
        assert_eq!(codes(&json!({}), "w-01", |found| found.package_manager = None).0, [Code::PackageManager]);
    }

    #[test]
    fn a_node_with_changes_by_hand_is_refused_with_each_of_them_until_it_is_acknowledged_by_name() {
        let audit = "kube-apiserver.yaml loses --audit-log-path=/var/log/audit.log";
        let changed = |found: &mut NodeInventory| found.hand_made = vec![audit.to_owned()];
        assert_eq!(codes(&json!({}), "cp-1", changed).0, [Code::HandMadeChanges]);
        let acknowledged = json!({"acknowledge": [{"check": "HandMadeChanges", "node": "cp-1"}]});
        assert_eq!(codes(&acknowledged, "cp-1", changed), (Vec::new(), vec![Code::HandMadeChanges]));
        let mut snapshot = cluster(1, 1, "1.33.4");
        snapshot.nodes.get_mut("cp-1").unwrap().inventory.as_mut().unwrap().hand_made = vec![audit.to_owned()];
        let refusal = compiled(&spec(&json!({})), &snapshot).unwrap_err().to_string();
        for part in [audit, "extraArgs", "/etc/kubernetes/patches", "{check: HandMadeChanges, node: cp-1}"] {
            assert!(refusal.contains(part), "{part}: {refusal}");
        }
    }

    #[test]
    fn a_node_whose_kubelet_would_not_start_for_its_swap_is_refused_until_it_is_acknowledged_by_name() {
        let none: Vec<Code> = Vec::new();
        for (swap, refused) in [(None, none.clone()), (Some(false), none.clone()), (Some(true), vec![Code::SwapOn])] {
            assert_eq!(codes(&json!({}), "w-01", |found| found.swap = swap).0, refused, "{swap:?}");
        }
        let acknowledged = json!({"acknowledge": [{"check": "SwapOn", "node": "w-01"}]});
        assert_eq!(codes(&acknowledged, "w-01", |found| found.swap = Some(true)), (none, vec![Code::SwapOn]));
        let mut snapshot = cluster(1, 1, "1.33.4");
        snapshot.nodes.get_mut("w-01").unwrap().inventory.as_mut().unwrap().swap = Some(true);
        let refused = compiled(&spec(&json!({})), &snapshot);
        let list = crate::preflight::checklist(&refused);
        let check = list.iter().find(|check| check.name == "Kubelet").unwrap();
        assert_eq!(check.verdict, crate::preflight::Verdict::Failed);
        let refusal = refused.unwrap_err().to_string();
        for part in ["swapoff -a", "/etc/fstab", "failSwapOn: false", "{check: SwapOn, node: w-01}"] {
            assert!(refusal.contains(part), "{part}: {refusal}");
        }
    }

    #[test]
    fn changes_by_hand_that_could_not_be_looked_for_are_told_with_the_reason() {
        let unread = |found: &mut NodeInventory| found.hand_made_unread = Some("the API was away".to_owned());
        assert_eq!(codes(&json!({}), "cp-1", unread), (Vec::new(), vec![Code::NotLookedAt]));
        let mut snapshot = cluster(1, 1, "1.33.4");
        unread(snapshot.nodes.get_mut("cp-1").unwrap().inventory.as_mut().unwrap());
        let list = crate::preflight::checklist(&compiled(&spec(&json!({})), &snapshot));
        let check = list.iter().find(|check| check.name == "HandMade").unwrap();
        assert!(check.findings[0].message.contains("cp-1: the API was away"), "{check:?}");
    }
}
