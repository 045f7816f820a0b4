//! What a person may answer for: each code that docs/checks.md lists as such, provoked at two nodes and acknowledged at one of them.

use crate::preflight::ACKNOWLEDGED;
use crate::testing::{cluster, compiled, spec};
use crate::{Code, Compilation, Finding};
use cupcake_crds::node_task::ClockDifference;
use cupcake_crds::values::{
    ClusterSnapshot, ComponentSetting, DisruptionBudget, EtcdDoubt, EtcdDoubtKind, PodSnapshot,
};
use serde_json::{Value, json};

/// A cluster in which two nodes are so, those nodes, and the version to go to.
fn provoked(code: Code) -> (ClusterSnapshot, [&'static str; 2], &'static str) {
    let (from, to, nodes) = match code {
        Code::CgroupV1 | Code::RemovedSettings => ("1.34.4", "1.35.4", ["w-01", "w-02"]),
        Code::ContainerdTooOld => ("1.25.16", "1.26.15", ["w-01", "w-02"]),
        Code::EtcdStore | Code::HandMadeChanges => ("1.33.4", "1.34.4", ["cp-1", "cp-2"]),
        _ => ("1.33.4", "1.34.4", ["w-01", "w-02"]),
    };
    let mut snapshot = cluster(3, 2, from);
    let taken_at = snapshot.taken_at;
    for name in nodes {
        let inventory = snapshot.nodes.get_mut(name).unwrap().inventory.as_mut().unwrap();
        match code {
            Code::CgroupV1 => inventory.cgroup_version = Some(1),
            Code::ClockSkew => {
                let clock = ClockDifference { ahead_milliseconds: 600_000, uncertainty_milliseconds: 501 };
                inventory.clock = Some(clock);
            }
            Code::ContainerdTooOld => inventory.containerd = Some("1.5.9".to_owned()),
            Code::DiskSpace => {
                (inventory.disk_free_bytes, inventory.disk_size_bytes) = (Some(1_000), Some(20_000_000_000));
            }
            Code::DisruptionBudget | Code::LocalStorage | Code::UnmanagedPods => {
                let blocks = code == Code::DisruptionBudget;
                let pod = PodSnapshot {
                    name: format!("shop/db-{name}"),
                    node: name.to_owned(),
                    labels: [].into(),
                    budgets: blocks.then(|| "shop/db".to_owned()).into_iter().collect(),
                    empty_dir: code == Code::LocalStorage,
                    unmanaged: code == Code::UnmanagedPods,
                };
                let (name, current_healthy) = ("shop/db".to_owned(), Some(2));
                let budget = DisruptionBudget { name, expected_pods: 2, desired_healthy: 2, current_healthy };
                snapshot.surroundings.pods.push(pod);
                snapshot.surroundings.disruption_budgets = vec![budget];
            }
            Code::EtcdStore => {
                inventory.taken_at = Some(taken_at);
                let message = "its database still has member d, which was removed".to_owned();
                inventory.etcd_store_doubts = Some(vec![EtcdDoubt { kind: EtcdDoubtKind::MembersDiffer, message }]);
            }
            Code::HandMadeChanges => inventory.hand_made = vec!["kube-apiserver.yaml loses --audit-log-path".into()],
            Code::RemovedSettings => {
                let (component, argument) = ("kubelet".into(), "--feature-gates=SystemdWatchdog=false".into());
                inventory.settings = vec![ComponentSetting { component, argument, from: "a drop-in".into() }];
            }
            Code::SwapOn => inventory.swap = Some(true),
            other => panic!("{other} can be acknowledged, and this test does not know how it comes about"),
        }
    }
    (snapshot, nodes, to)
}

/// Whether that code is refused, and whether it is warned of, where those nodes are acknowledged.
fn told(code: Code, snapshot: &ClusterSnapshot, to: &str, acknowledged: &[&str]) -> (Vec<String>, bool) {
    let entries: Vec<Value> =
        acknowledged.iter().map(|node| json!({"check": code.to_string(), "node": node})).collect();
    let refused = |findings: &[Finding]| {
        let of = findings.iter().filter(|finding| finding.code == code);
        of.map(ToString::to_string).collect::<Vec<_>>()
    };
    let warned = |findings: &[Finding]| findings.iter().any(|finding| finding.code == code);
    match compiled(&spec(&json!({"targetVersion": to, "acknowledge": entries})), snapshot) {
        Ok(Compilation::Plan(plan)) => (Vec::new(), warned(&plan.report.warnings)),
        Ok(Compilation::NothingToDo(_)) => panic!("{code}: nothing to do"),
        Err(refusal) => (refused(&refusal.findings), warned(&refusal.warnings)),
    }
}

#[test]
fn whatever_can_be_acknowledged_is_waived_at_the_node_that_is_named_and_at_no_other() {
    for code in ACKNOWLEDGED {
        let (snapshot, [one, other], to) = provoked(code);
        let (refused, _) = told(code, &snapshot, to, &[]);
        assert!(refused.len() == 1 && refused[0].contains(one) && refused[0].contains(other), "{code}: {refused:?}");
        let way_out = format!("{{check: {code}, node: {one}}}");
        assert!(refused[0].contains(&way_out), "{code} does not say how it is acknowledged: {refused:?}");
        let (refused, warned) = told(code, &snapshot, to, &[one]);
        assert!(refused.len() == 1 && !refused[0].contains(&format!("node: {one}")), "{code}: {refused:?}");
        assert!(refused[0].contains(other) && warned, "{code}: {other} is still refused, {one} is told: {refused:?}");
        assert_eq!(told(code, &snapshot, to, &[one, other]), (Vec::new(), true), "{code}: told all the same");
    }
}

#[test]
fn nothing_is_acknowledged_for_all_nodes_at_once() {
    for code in ACKNOWLEDGED {
        let (snapshot, nodes, to) = provoked(code);
        for all in ["all", "*", ""] {
            let (refused, _) = told(code, &snapshot, to, &[all]);
            let both = refused.len() == 1 && nodes.iter().all(|node| refused[0].contains(node));
            assert!(both, "{code} acknowledged for {all:?}: {refused:?}");
        }
    }
}

#[test]
fn what_cannot_be_acknowledged_is_no_check_of_spec_acknowledge_and_what_only_warns_has_nothing_to_answer_for() {
    for code in Code::ALL.iter().filter(|code| !ACKNOWLEDGED.contains(code)) {
        let update = spec(&json!({"acknowledge": [{"check": code.to_string(), "node": "w-01"}]}));
        match compiled(&update, &cluster(1, 1, "1.33.4")) {
            Err(refusal) => {
                let told = refusal.to_string();
                assert!(told.contains(&format!("{:?}: no check of that name", code.to_string())), "{code}: {told}");
                assert!(!code.never_refuses(), "{code}");
            }
            Ok(Compilation::Plan(plan)) => {
                let said = plan.report.warnings.iter().any(|one| {
                    (one.code, &*one.field, &one.value) == (Code::NoEffect, "spec.acknowledge", &code.to_string())
                });
                assert!(code.never_refuses() && said, "{code}");
            }
            Ok(Compilation::NothingToDo(_)) => panic!("{code}: nothing to do"),
        }
    }
    let unknown = spec(&json!({"acknowledge": [{"check": "Everything", "node": "w-01"}]}));
    assert_eq!(compiled(&unknown, &cluster(1, 1, "1.33.4")).unwrap_err().code(), Code::OutOfRange);
}

#[test]
fn what_never_refuses_is_what_the_documentation_says_is_warned_of_or_told_alone() {
    let text = include_str!("../../docs/checks.md");
    for code in Code::ALL {
        let row = text.lines().find(|line| line.contains(&format!(" | {code} | "))).unwrap();
        let verdict = row.split('|').nth(4).unwrap().trim();
        assert_eq!(code.never_refuses(), ["warned", "told"].contains(&verdict), "{code}: {verdict}");
    }
}

#[test]
fn a_finding_that_nobody_may_answer_for_is_never_told_as_acknowledged() {
    let mut snapshot = cluster(3, 2, "1.33.4");
    let taken_at = snapshot.taken_at;
    snapshot.nodes.get_mut("cp-1").unwrap().inventory.as_mut().unwrap().certificates_expire = Some(taken_at);
    let (refused, warned) = told(Code::CertificatesExpired, &snapshot, "1.34.4", &["cp-1"]);
    assert!(refused.len() == 1 && !warned, "{refused:?}");
}
