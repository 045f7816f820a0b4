//! Starts and ways that no plan may be made of, and those beside them that one may.

use crate::testing::{cluster, compiled, node, spec, v};
use crate::{Code, Compilation, Refusal, own_facts};
use cupcake_crds::node_task::NodeInventory;
use cupcake_crds::values::{ClusterSnapshot, NodeRole};
use serde_json::{Value, json};

/// Three control-plane nodes and two workers, with one more worker.
fn with_worker(server: &str, kubelet: &str) -> ClusterSnapshot {
    let mut snapshot = cluster(3, 2, server);
    snapshot.nodes.insert("w-1".into(), node("w-1", NodeRole::Worker, v(kubelet)));
    snapshot
}

fn refused(fields: &Value, snapshot: &ClusterSnapshot) -> Refusal {
    match compiled(&spec(fields), snapshot) {
        Err(refusal) => refusal,
        Ok(_) => panic!("{fields} is refused"),
    }
}

fn hops(fields: &Value, snapshot: &ClusterSnapshot) -> Vec<String> {
    match compiled(&spec(fields), snapshot).unwrap() {
        Compilation::Plan(plan) => plan.summary.hops.iter().map(|hop| hop.version.to_string()).collect(),
        Compilation::NothingToDo(nothing) => panic!("{}", nothing.message),
    }
}

#[test]
fn a_kubelet_that_is_against_the_policy_before_anything_is_changed_is_refused_whatever_the_target() {
    for (kubelet, said) in
        [("1.28.3", "1.33.4, which no policy allows"), ("1.29.15", "no policy"), ("1.34.1", "newer minor")]
    {
        for target in ["1.34.4", "1.33.9", "1.33.4"] {
            for selector in [json!({}), json!({"pool": "blue"})] {
                let mut snapshot = with_worker("1.33.4", kubelet);
                snapshot.nodes.get_mut("w-02").unwrap().labels.insert("pool".into(), "blue".into());
                let refusal = refused(&json!({"targetVersion": target, "nodeSelector": selector}), &snapshot);
                let named = format!("w-1 ({kubelet})");
                assert!(refusal.findings.iter().any(|one| one.to_string().contains(&named)), "{target}: {refusal}");
                // Newer than the target as well is told as that.
                if kubelet < target {
                    let [one] = &refusal.findings[..] else { panic!("told once: {refusal}") };
                    assert_eq!((one.code, one.value.as_str()), (Code::VersionSkew, named.as_str()));
                    assert!(one.message.contains(said) && one.remedy.contains("1.33"), "{one}");
                }
            }
        }
        let mut snapshot = cluster(3, 2, "1.33.4");
        snapshot.nodes.get_mut("cp-1").unwrap().kubelet = v(kubelet);
        let refusal = refused(&json!({}), &snapshot);
        assert_eq!((refusal.code(), refusal.findings.len()), (Code::VersionSkew, 1), "{refusal}");
        assert!(refusal.to_string().contains(&format!("cp-1 ({kubelet})")), "{refusal}");
    }
}

#[test]
fn a_kubelet_that_only_does_not_fit_the_next_hop_moves_first_and_a_hop_that_had_begun_goes_on() {
    assert_eq!(hops(&json!({}), &with_worker("1.33.4", "1.30.9")), ["1.33.4", "1.34.4"]);
    let mut begun = cluster(3, 2, "1.33.4");
    begun.server = v("1.32.9");
    assert_eq!(hops(&json!({"targetVersion": "1.33.4"}), &begun), ["1.33.4"]);
    begun.nodes.get_mut("w-01").unwrap().kubelet = v("1.34.1");
    let refusal = refused(&json!({}), &begun);
    assert!(refusal.to_string().contains("w-01 (1.34.1)"), "newer than what had begun: {refusal}");
    // As old as the oldest server allows, and not the newest.
    begun.nodes.get_mut("w-01").unwrap().kubelet = v("1.29.3");
    let refusal = refused(&json!({}), &begun);
    assert!(refusal.to_string().contains("w-01 (1.29.3)") && refusal.to_string().contains("at 1.33.4"), "{refusal}");
}

#[test]
fn a_minor_that_whoever_lists_the_versions_left_out_is_no_way() {
    let mut snapshot = cluster(1, 1, "1.31.14");
    let fields = json!({"targetVersion": "1.34.2"});
    snapshot.known_versions = ["1.31.14", "1.32.9", "1.34.2"].map(v).into();
    let refusal = refused(&fields, &snapshot);
    assert_eq!((refusal.code(), refusal.findings.len()), (Code::TooManyMinors, 1), "{refusal}");
    assert!(refusal.to_string().contains("no path") && refusal.to_string().contains("1.33, of which"), "{refusal}");
    let path = json!({"targetVersion": "1.34.2", "path": ["1.32.9", "1.33.13", "1.34.2"]});
    assert_eq!(hops(&path, &snapshot), ["1.32.9", "1.33.13", "1.34.2"]);
    let mut own = snapshot.clone();
    own.facts = own_facts(json!({"minors": {"1.33": {"newestPatch": 9}}})).unwrap();
    assert_eq!(hops(&fields, &own), ["1.32.9", "1.33.9", "1.34.2"]);
    // A repository that somebody has prepared on one machine is nobody's list.
    let mut prepared = snapshot.clone();
    let offers = vec!["1.34.2".to_owned()];
    let inventory = NodeInventory { available_versions: offers, ..NodeInventory::default() };
    prepared.nodes.get_mut("w-01").unwrap().inventory = Some(inventory);
    assert_eq!(hops(&fields, &prepared), ["1.32.9", "1.33.13", "1.34.2"]);
    // Machines tell the present minor and the next one: what lies further leaves no gap.
    snapshot.known_versions = ["1.31.14", "1.32.9"].map(v).into();
    assert_eq!(hops(&fields, &snapshot), ["1.32.9", "1.33.13", "1.34.2"]);
}

#[test]
fn a_minor_of_which_nothing_is_known_is_refused_but_for_facts_of_ones_own() {
    for (from, to, minor, patch) in [("1.37.2", "1.38.0", "1.38", 0), ("1.23.17", "1.24.17", "1.23", 17)] {
        let mut snapshot = cluster(1, 1, from);
        for fields in [json!({"targetVersion": to}), json!({"targetVersion": to, "path": [to]})] {
            let refusal = refused(&fields, &snapshot);
            assert_eq!((refusal.code(), refusal.findings.len()), (Code::UnknownRelease, 1), "{refusal}");
            let way_out = format!("{{minors: {{\"{minor}\": {{newestPatch: N}}}}}}");
            assert!(refusal.to_string().contains(&way_out), "{refusal}");
        }
        snapshot.facts = own_facts(json!({"minors": {minor: {"newestPatch": patch}}})).unwrap();
        assert_eq!(hops(&json!({"targetVersion": to}), &snapshot), [to]);
    }
}

#[test]
fn every_way_out_that_is_named_can_be_gone() {
    let told = |change: &dyn Fn(&mut ClusterSnapshot)| {
        let mut snapshot = cluster(3, 2, "1.33.4");
        change(&mut snapshot);
        refused(&json!({}), &snapshot)
    };
    for name in ["cp-2", "w-02"] {
        let managed = told(&|snapshot| {
            snapshot.nodes.get_mut(name).unwrap().managed_by = Some("Machine prod/md-0 of Cluster API".into());
        });
        let strange = told(&|snapshot| {
            snapshot.nodes.get_mut(name).unwrap().inventory.as_mut().unwrap().os = Some("Flatcar".into());
        });
        for (refusal, code) in [(managed, Code::ForeignNode), (strange, Code::PackageManager)] {
            assert_eq!((refusal.code(), refusal.findings.len()), (code, 1), "{refusal}");
            assert_eq!(refusal.to_string().contains("spec.nodeSelector"), name == "w-02", "{refusal}");
            assert_eq!(serde_json::to_value(&refusal.findings[0]).unwrap()["nodes"], json!([name]));
        }
    }
    let external = told(&|snapshot| snapshot.etcd = cupcake_crds::values::EtcdTopology::External);
    assert!(external.to_string().contains("etcdctl snapshot save"), "{external}");
    assert!(external.to_string().contains("kubeadm of 1.34 wants etcd 3.5.24 or newer there"), "{external}");
    let leap = told(&|snapshot| {
        *snapshot = cluster(3, 2, "1.31.4");
        snapshot.kubeadm_config = Some(v("1.33.4"));
    });
    assert_eq!((leap.code(), &*leap.findings[0].field), (Code::InvalidPath, "ConfigMap kube-system/kubeadm-config"));
    assert!(!leap.to_string().contains("spec.path") && leap.to_string().contains("back to v1.31.4"), "{leap}");
}
