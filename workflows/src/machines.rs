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

/// Disk, certificates and package manager of every node that changes.
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

    let strange = |node: &&NodeSnapshot| {
        let found = inventory(node);
        found.os.is_some() && found.package_manager.as_deref() != Some("apt")
    };
    let message = "no apt-get there, and this release installs packages with it only";
    let remedy = |_: &str| "leave workers out by spec.nodeSelector, and upgrade them by hand".to_owned();
    refuse(spec, changing, Code::PackageManager, "nodes", strange, message, remedy, findings);
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
}
