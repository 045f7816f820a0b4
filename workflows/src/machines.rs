//! What the machines were last seen to be, against what every update asks of them.

use crate::changes::refuse;
use crate::clocks::clocks;
use crate::finding::{Code, Finding, Findings, named};
use cupcake_crds::DirectUpdateSpec;
use cupcake_crds::node_task::{DiskUse, NodeInventory};
use cupcake_crds::values::{ClusterSnapshot, NodeRole, NodeSnapshot};
use cupcake_steps::ports::host::reserve_bytes;
use std::collections::BTreeSet;

/// What one hop takes in bytes, rounded up: kubeadm, kubelet and kubectl unpacked.
const PACKAGES_BYTES: u64 = 300_000_000;
/// What kubeadm writes below /etc/kubernetes besides etcd's data: manifests, their copies, certificates.
const CONFIGURATION_BYTES: u64 = 16_000_000;
/// Seven images on a control-plane node.
const CONTROL_PLANE_IMAGES_BYTES: u64 = 700_000_000;
/// kube-proxy and pause on a worker.
const WORKER_IMAGES_BYTES: u64 = 200_000_000;
/// What else is written meanwhile: logs, indexes of packages, copies of configuration.
const CONTROL_PLANE_MARGIN_BYTES: u64 = 500_000_000;
/// The same on a worker.
const WORKER_MARGIN_BYTES: u64 = 200_000_000;
/// How many days before their end certificates are spoken of.
const CERTIFICATE_DAYS_MIN: i64 = 14;

/// Disk, certificates, clock, swap and package manager of every node that changes.
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
    let full = |node: &&NodeSnapshot| !too_small(node.role, &inventory(node)).is_empty();
    let message = "too little space: packages, images, a snapshot and kubeadm's copy of etcd's data come there, and 15 % of the disk of images stay free, a tenth of that of /var/lib";
    let remedy = |name: &str| {
        let found = snapshot.nodes.get(name).map(|node| too_small(node.role, &inventory(node))).unwrap_or_default();
        let told = found.iter().map(|room| {
            let (free, needed) = (room.free_bytes / 1_000_000, room.needed_bytes.div_ceil(1_000_000));
            format!("{} has {free} MB and needs {needed}", room.path)
        });
        format!(
            "{name}: {}: make room, or name it in spec.acknowledge: {{check: DiskSpace, node: {name}}}",
            told.collect::<Vec<_>>().join(", ")
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

    external_cas(changing, findings);
    clocks(spec, snapshot, changing, findings);
    hand_made(spec, snapshot, changing, findings);

    let swapping = |node: &&NodeSnapshot| inventory(node).swap == Some(true);
    let message = "swap is on, and the kubelet does not start with it: the one that runs was started before it came";
    let remedy = |name: &str| {
        format!(
            "on {name}: swapoff -a, and take it out of /etc/fstab; or set failSwapOn: false in ConfigMap kube-system/kubelet-config, from which kubeadm writes each node, and name it in spec.acknowledge: {{check: SwapOn, node: {name}}}"
        )
    };
    refuse(spec, changing, Code::SwapOn, "nodes", swapping, message, remedy, findings);

    let by_hand = |node: &&NodeSnapshot| !inventory(node).without_package.is_empty();
    let message = "no package brought its kubeadm or kubelet, and only packages are upgraded";
    let remedy = |name: &str| {
        let found = snapshot.nodes.get(name).map(inventory).unwrap_or_default().without_package.join(" and ");
        format!(
            "{name}: {found}: install kubeadm, kubelet and kubectl from a package repository at the versions that run now, and take away what was put there by hand"
        )
    };
    refuse(spec, changing, Code::NotInstalledByPackage, "nodes", by_hand, message, remedy, findings);

    let strange = |node: &&NodeSnapshot| {
        let found = inventory(node);
        found.os.is_some() && found.known_package_manager().is_none()
    };
    let message =
        "packages are installed there by none of apt, dnf and zypper, and this release installs with those only";
    for (role, way_out) in [
        (
            NodeRole::ControlPlane,
            "no control-plane node can be left out: join others in their place that have one of the three, or upgrade this cluster by hand",
        ),
        (NodeRole::Worker, "leave them out by spec.nodeSelector, and upgrade them by hand"),
    ] {
        let of_role: Vec<&NodeSnapshot> = changing.iter().copied().filter(|node| node.role == role).collect();
        let remedy = |_: &str| way_out.to_owned();
        refuse(spec, &of_role, Code::PackageManager, "nodes", strange, message, remedy, findings);
    }

    let by_themselves = changing.iter().filter(|node| inventory(node).unattended_upgrades == Some(true));
    let nodes: Vec<String> = by_themselves.map(|node| node.node.name.clone()).collect();
    if !nodes.is_empty() {
        let message = "unattended-upgrades installs packages there by itself: it holds dpkg's lock for minutes, and may restart containerd or the machine in the middle of the update";
        let remedy = "on each of them: systemctl stop apt-daily-upgrade.timer, and start it again after the update";
        let finding = Finding::new(Code::UnattendedUpgrades, "nodes", named(&nodes), message, remedy);
        findings.warn(finding.by_inventories_of(nodes));
    }
}

/// Certificates that kubeadm leaves as they are, with when the first of all expires.
///
/// Source: kubernetes.io, "Certificate Management with kubeadm" (v1.34), "External CA mode".
fn external_cas(changing: &[&NodeSnapshot], findings: &mut Findings) {
    let external: Vec<(&NodeSnapshot, &NodeInventory)> = changing
        .iter()
        .filter_map(|node| Some((*node, node.inventory.as_ref()?)))
        .filter(|(_, found)| !found.external_cas.is_empty())
        .collect();
    if external.is_empty() {
        return;
    }
    let cas: BTreeSet<&str> = external.iter().flat_map(|(_, found)| &found.external_cas).map(String::as_str).collect();
    let first = external.iter().filter_map(|(_, found)| found.certificates_expire).min();
    let until = first
        .map(|at| format!("; the first certificate there expires on {}", at.format("%Y-%m-%d")))
        .unwrap_or_default();
    let message = format!(
        "the key of {} is not there, so that kubeadm renews no certificate of theirs in this update: whoever holds it has to{until}",
        named(cas.iter().map(|ca| format!("{ca}.crt")))
    );
    let remedy = "sign new ones before they expire, and put them there; see: kubeadm certs check-expiration";
    let nodes: Vec<String> = external.iter().map(|(node, _)| node.node.name.clone()).collect();
    findings.warn(Finding::new(Code::ExternalCa, "nodes", named(&nodes), message, remedy).by_inventories_of(nodes));
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

/// What a file system has and what an upgrade wants of it.
struct Room {
    path: String,
    free_bytes: u64,
    needed_bytes: u64,
}

/// The file systems of a machine that have too little room for what lands on them. What no inventory tells is not too small.
fn too_small(role: NodeRole, found: &NodeInventory) -> Vec<Room> {
    let lands = |what: &DiskUse| lands_bytes(*what, role, found);
    let mut rooms: Vec<Room> = found
        .disks
        .iter()
        .map(|disk| {
            // Elsewhere no kubelet evicts pods.
            let evicts = disk.holds.contains(&DiskUse::Images);
            let reserve = if evicts { images_reserve_bytes(disk.size_bytes) } else { reserve_bytes(0) };
            let needed_bytes = disk.holds.iter().map(lands).fold(reserve, u64::saturating_add);
            Room { path: disk.path.clone(), free_bytes: disk.free_bytes, needed_bytes }
        })
        .collect();
    if let Some(free_bytes) = found.disk_free_bytes {
        let elsewhere = |what: &&DiskUse| found.disks.iter().any(|disk| disk.holds.contains(what));
        let here = DISK_USES.iter().filter(|what| !elsewhere(what)).map(lands).fold(0, u64::saturating_add);
        let margin = match role {
            NodeRole::ControlPlane => CONTROL_PLANE_MARGIN_BYTES,
            NodeRole::Worker => WORKER_MARGIN_BYTES,
        };
        let size_bytes = found.disk_size_bytes.unwrap_or_default();
        let apart = elsewhere(&&DiskUse::Images);
        let reserve = if apart { reserve_bytes(size_bytes) } else { images_reserve_bytes(size_bytes) };
        let needed_bytes = here.saturating_add(margin).saturating_add(reserve);
        rooms.push(Room { path: "/var/lib".to_owned(), free_bytes, needed_bytes });
    }
    rooms.retain(|room| room.free_bytes < room.needed_bytes);
    rooms
}

const DISK_USES: [DiskUse; 4] = [DiskUse::Configuration, DiskUse::Images, DiskUse::Packages, DiskUse::Snapshots];

/// What stays free of a disk that holds images: 15 %, below which a kubelet evicts pods (`imagefs.available`), also where it is the
/// disk of /var/lib, of which a tenth would do. Source: kubernetes/kubernetes 1.34, pkg/kubelet/eviction/defaults_linux.go.
fn images_reserve_bytes(disk_bytes: u64) -> u64 {
    (disk_bytes / 100 * 15).max(reserve_bytes(0))
}

/// Bytes of one hop that land there.
fn lands_bytes(what: DiskUse, role: NodeRole, found: &NodeInventory) -> u64 {
    let of_etcd = match role {
        NodeRole::ControlPlane => found.etcd_data_bytes.unwrap_or_default(),
        NodeRole::Worker => 0,
    };
    match (what, role) {
        (DiskUse::Configuration, _) => CONFIGURATION_BYTES.saturating_add(of_etcd),
        (DiskUse::Packages, _) => PACKAGES_BYTES,
        (DiskUse::Images, NodeRole::ControlPlane) => CONTROL_PLANE_IMAGES_BYTES,
        (DiskUse::Images, NodeRole::Worker) => WORKER_IMAGES_BYTES,
        (DiskUse::Snapshots, _) => of_etcd,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cluster, compiled, spec, start};
    use cupcake_crds::node_task::Disk;
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
        let percent = |size: u64| {
            move |inventory: &mut NodeInventory| {
                (inventory.disk_free_bytes, inventory.disk_size_bytes) = (Some(3_000_000_000), Some(size));
            }
        };
        assert_eq!(
            codes(&json!({}), "w-01", percent(25_000_000_000)).0,
            [Code::DiskSpace],
            "the kubelet would evict pods"
        );
        assert_eq!(codes(&json!({}), "w-01", percent(15_000_000_000)), (none.clone(), none.clone()));
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
        for strange in [None, Some("yum"), Some("pacman")] {
            let manager = |found: &mut NodeInventory| found.package_manager = strange.map(str::to_owned);
            assert_eq!(codes(&json!({}), "w-01", manager).0, [Code::PackageManager], "{strange:?}");
        }
    }

    #[test]
    fn a_machine_of_dnf_or_zypper_stands_in_no_way() {
        for known in ["apt", "dnf", "dnf5", "zypper"] {
            let manager = |found: &mut NodeInventory| found.package_manager = Some(known.to_owned());
            assert_eq!(codes(&json!({}), "w-01", manager), (Vec::new(), Vec::new()), "{known}");
        }
    }

    #[test]
    fn each_file_system_is_asked_for_the_room_of_what_lands_on_it() {
        const GB: u64 = 1_000_000_000;
        let disk = |holds: &[DiskUse], free_bytes: u64| Disk {
            free_bytes,
            holds: holds.to_vec(),
            path: "/x".to_owned(),
            size_bytes: 20 * GB,
        };
        let refused = |node: &'static str, free: u64, disks: Vec<Disk>| {
            let change = move |found: &mut NodeInventory| {
                (found.disk_free_bytes, found.disk_size_bytes) = (Some(free), Some(20 * GB));
                (found.etcd_data_bytes, found.disks) = (Some(4 * GB), disks.clone());
            };
            !codes(&json!({}), node, change).0.is_empty()
        };
        // All on one disk: 1.5 GB, twice etcd's data and 15 %.
        assert!(refused("cp-1", 12 * GB, vec![]) && !refused("cp-1", 13 * GB, vec![]));
        let etc = |free| vec![disk(&[DiskUse::Configuration], free)];
        assert!(!refused("cp-1", 9 * GB, etc(5 * GB)), "kubeadm's copy lands elsewhere");
        assert!(refused("cp-1", 8 * GB, etc(5 * GB)), "the snapshot does not");
        assert!(refused("cp-1", 12 * GB, etc(4 * GB)), "there is no room for the copy");
        let both = |free| vec![disk(&[DiskUse::Images, DiskUse::Snapshots], free)];
        assert!(refused("cp-1", 12 * GB, both(7 * GB)), "a snapshot, images and 15 %");
        assert!(!refused("cp-1", 12 * GB, both(8 * GB)));
        assert!(!refused("w-01", 4 * GB, etc(GB)), "a worker has no etcd");
        assert!(!refused("w-01", 4 * GB, etc(GB / 10)), "and no packages come to /etc/kubernetes");
        let usr = |free| vec![disk(&[DiskUse::Packages], free)];
        assert!(refused("w-01", 4 * GB, usr(GB / 4)) && !refused("w-01", 4 * GB, usr(GB / 2)), "but to /usr");
        let mut snapshot = cluster(1, 1, "1.33.4");
        let inventory = snapshot.nodes.get_mut("cp-1").unwrap().inventory.as_mut().unwrap();
        (inventory.etcd_data_bytes, inventory.disks) = (Some(4 * GB), etc(GB));
        let refusal = compiled(&spec(&json!({})), &snapshot).unwrap_err().to_string();
        assert!(refusal.contains("cp-1: /x has 1000 MB and needs 4084: make room"), "{refusal}");
    }

    #[test]
    fn authorities_without_their_key_and_machines_that_upgrade_by_themselves_are_told_by_node() {
        let mut snapshot = cluster(2, 2, "1.33.4");
        let external = NodeInventory {
            external_cas: vec!["ca".into(), "front-proxy-ca".into()],
            certificates_expire: Some(start() + chrono::TimeDelta::days(100)),
            ..NodeInventory::default()
        };
        snapshot.nodes.get_mut("cp-2").unwrap().inventory = Some(external);
        let unattended = NodeInventory { unattended_upgrades: Some(true), ..NodeInventory::default() };
        snapshot.nodes.get_mut("w-01").unwrap().inventory = Some(unattended);
        let Ok(crate::Compilation::Plan(plan)) = compiled(&spec(&json!({})), &snapshot) else { panic!("refused") };
        let told = |code: Code| plan.report.warnings.iter().find(|warning| warning.code == code).unwrap().to_string();
        let external = told(Code::ExternalCa);
        for part in ["\"cp-2\"", "the key of ca.crt, front-proxy-ca.crt is not there", "expires on 2026-12-30"] {
            assert!(external.contains(part), "{part}: {external}");
        }
        let unattended = told(Code::UnattendedUpgrades);
        assert!(unattended.contains("\"w-01\"") && unattended.contains("apt-daily-upgrade.timer"), "{unattended}");
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
    fn a_node_whose_kubelet_no_package_brought_is_refused_before_anything_moves_and_cannot_be_acknowledged() {
        let by_hand = |found: &mut NodeInventory| found.without_package = vec!["kubelet".to_owned()];
        for node in ["cp-1", "w-01"] {
            assert_eq!(codes(&json!({}), node, by_hand).0, [Code::NotInstalledByPackage], "{node}");
        }
        let acknowledged = json!({"acknowledge": [{"check": "NotInstalledByPackage", "node": "w-01"}]});
        assert!(!codes(&acknowledged, "w-01", by_hand).0.is_empty(), "nobody can answer for it");
        let mut snapshot = cluster(1, 1, "1.33.4");
        by_hand(snapshot.nodes.get_mut("w-01").unwrap().inventory.as_mut().unwrap());
        let refused = compiled(&spec(&json!({})), &snapshot);
        let list = crate::preflight::checklist(&refused);
        let check = list.iter().find(|check| check.name == "Packages").unwrap();
        assert_eq!(check.verdict, crate::preflight::Verdict::Failed);
        let refusal = refused.unwrap_err().to_string();
        assert!(refusal.contains("w-01: kubelet: install kubeadm, kubelet and kubectl from a package"), "{refusal}");
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
