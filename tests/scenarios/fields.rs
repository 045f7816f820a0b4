//! What a DirectUpdate's status tells while it goes on: of the checks before its start, of its snapshot, of each node, and the same
//! in message and conditions.

use crate::cluster::{Cluster, UPDATE, in_cluster};
use cupcake_crds::DirectUpdateStatus;
use cupcake_crds::conditions::{self, Condition, ConditionStatus};
use cupcake_crds::direct_update::{NodePhase, PreflightCheck};
use cupcake_crds::values::Phase;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

fn status(cluster: &Cluster, name: &str) -> DirectUpdateStatus {
    cluster.update(name).unwrap().status.unwrap_or_default()
}

fn condition(status: &DirectUpdateStatus, type_: &str) -> Option<Condition> {
    conditions::get(&status.conditions, type_).cloned()
}

/// The condition Preflight as status and reason, the check of that name, and whether all have passed.
fn preflight(status: &DirectUpdateStatus, check: &str) -> (ConditionStatus, String, PreflightCheck, bool) {
    let told = condition(status, conditions::PREFLIGHT).unwrap();
    let results = status.preflight_results.clone().unwrap();
    assert_eq!(results.checks.len(), 17);
    let check = results.checks.into_iter().find(|one| one.name == check).unwrap();
    (told.status, told.reason, check, results.passed)
}

#[test]
fn what_was_checked_before_a_start_stands_in_the_status_whatever_it_came_to() {
    in_cluster(2, false, async |cluster| {
        cluster.pass(120).await;
        let budgets = cluster.freeze().await;
        cluster.apply(UPDATE, json!({})).await;
        cluster.eventually("it is refused", async || cluster.phase(UPDATE).1.contains("DisruptionBudget")).await;
        let refused = status(cluster, UPDATE);
        let (state, reason, drains, passed) = preflight(&refused, "Drains");
        assert_eq!((state, reason.as_str(), passed), (ConditionStatus::False, "DisruptionBudget", false));
        assert_eq!(condition(&refused, conditions::STALLED).unwrap().reason, reason, "as it is Stalled");
        assert!(!drains.passed && drains.message.unwrap().contains("default/frozen"));
        let (_, _, etcd, _) = preflight(&refused, "Etcd");
        assert!(etcd.passed && etcd.message.is_some(), "a warning is told, and has passed");
        cluster
            .apply(
                "dry",
                json!({"dryRun": true, "acknowledge": [
                    {"check": "DisruptionBudget", "node": "w-1"}, {"check": "DisruptionBudget", "node": "w-2"},
                ]}),
            )
            .await;
        assert_eq!(cluster.at_rest("dry").await.0, Phase::Succeeded);
        let (state, reason, _, passed) = preflight(&status(cluster, "dry"), "Spec");
        assert_eq!((state, reason.as_str(), passed), (ConditionStatus::True, "Passed", true), "a dry run");
        cluster.ask(async || budgets.delete("frozen", &DeleteParams::default()).await.map(drop)).await;
        assert_eq!(cluster.at_rest(UPDATE).await.0, Phase::Pending);
        cluster.eventually("it begins", async || cluster.phase(UPDATE).0 == Phase::InProgress).await;
        let (state, _, drains, passed) = preflight(&status(cluster, UPDATE), "Drains");
        assert_eq!((state, drains.passed, passed), (ConditionStatus::True, true, true), "as it starts");
        assert_eq!(cluster.at_rest(UPDATE).await.0, Phase::Succeeded);
        cluster.apply("unchecked", json!({"preflightChecks": false})).await;
        let (phase, message) = cluster.at_rest("unchecked").await;
        assert_eq!(phase, Phase::Succeeded, "nothing to do: {message}");
        let (state, reason, _, passed) = preflight(&status(cluster, "unchecked"), "Spec");
        assert_eq!((state, reason.as_str(), passed), (ConditionStatus::Unknown, "ChecksLeftOut", false));
    });
}

#[test]
fn an_update_that_begins_without_a_node_that_is_not_ready_has_passed_its_checks_once_the_node_is_there() {
    in_cluster(2, true, async |cluster| {
        let nodes: Api<Node> = Api::all(cluster.client.clone());
        let at = cluster.world.now().format("%Y-%m-%dT%H:%M:%SZ").to_string();
        let ready = json!({"type": "Ready", "status": "False", "lastTransitionTime": at, "lastHeartbeatTime": at, "reason": "Test", "message": ""});
        let patch = Patch::Merge(json!({"status": {"conditions": [ready]}}));
        cluster.pass(60).await;
        // Its kubelet says otherwise with its next report.
        cluster.ask(async || nodes.patch_status("w-2", &PatchParams::default(), &patch).await).await;
        cluster.apply(UPDATE, json!({})).await;
        cluster.eventually("it has begun", async || status(cluster, UPDATE).run.is_some()).await;
        let (state, reason, check, passed) = preflight(&status(cluster, UPDATE), "Nodes");
        assert_eq!((state, reason.as_str(), passed), (ConditionStatus::False, "NodeNotReady", false));
        assert!(!check.passed && check.message.unwrap().contains("w-2"));
        cluster.eventually("it is at work", async || cluster.phase(UPDATE).1.contains("control-plane/cp-1")).await;
        let (state, _, check, passed) = preflight(&status(cluster, UPDATE), "Nodes");
        assert_eq!((state, check.passed, passed), (ConditionStatus::True, true, true));
    });
}

#[test]
fn the_status_tells_of_snapshot_nodes_and_waits_what_happens_and_conditions_say_the_same() {
    in_cluster(2, false, async |cluster| {
        let began = cluster.world.now();
        let budgets = cluster.apply_then_freeze(UPDATE, json!({})).await;
        let mut told: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut blocked_for = 0;
        let mut reasons = BTreeSet::new();
        cluster
            .eventually("it has ended", async || {
                let now = status(cluster, UPDATE);
                for type_ in [conditions::SUCCEEDED, conditions::RECONCILING, conditions::STALLED] {
                    let Some(condition) = condition(&now, type_) else { continue };
                    assert_eq!(Some(&condition.message), now.message.as_ref(), "{type_}");
                    reasons.insert(condition.reason);
                }
                for (name, node) in &now.nodes {
                    told.entry(name.clone()).or_default().extend(node.message.clone());
                    assert!(node.message.is_none() || node.phase != NodePhase::Completed, "{name}: {node:?}");
                    if node.phase == NodePhase::Draining && blocked_for > 30 && now.phase == Some(Phase::InProgress) {
                        let message = node.message.clone().unwrap_or_default();
                        assert!(
                            message.starts_with("drain waits: ") && message.contains("frozen"),
                            "{name}: {message}"
                        );
                    }
                }
                if now.message.as_ref().is_some_and(|message| message.contains("DrainBlocked")) {
                    let reconciling = condition(&now, conditions::RECONCILING).unwrap();
                    assert_eq!(reconciling.reason, "DrainBlocked");
                    assert_eq!(
                        now.backup_info.as_ref().and_then(|backup| backup.timestamp).map(|at| at > began),
                        Some(true)
                    );
                    blocked_for += 1;
                }
                if blocked_for == 60 {
                    cluster.ask(async || budgets.delete("frozen", &DeleteParams::default()).await.map(drop)).await;
                }
                now.phase.is_some_and(Phase::is_final)
            })
            .await;
        let end = status(cluster, UPDATE);
        assert_eq!(end.phase, Some(Phase::Succeeded), "{:?}", end.message);
        let backup = end.backup_info.unwrap();
        let (place, taken) = (backup.etcd_snapshot.unwrap(), backup.timestamp.unwrap());
        assert!(place.starts_with("cp-1:/var/lib/cupcake/snapshots/to-1-34-"), "{place}");
        assert!(began < taken && taken < end.completed_at.unwrap(), "{taken}");
        assert!(told["cp-1"].contains("kubeadm-upgrade is under way"), "{told:?}");
        for worker in ["w-1", "w-2"] {
            assert!(told[worker].contains("kubelet is under way"), "{told:?}");
        }
        assert!(end.nodes.values().all(|node| node.message.is_none()), "what is done says nothing: {:?}", end.nodes);
        assert!(reasons.contains("DrainBlocked") && reasons.contains("Succeeded"), "{reasons:?}");
    });
}
