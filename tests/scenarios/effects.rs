//! What settings of a DirectUpdate do to a whole cluster: which machines are changed, in what, how many at once, and for how long.
//!
//! Everything runs in a sandbox on paused time.

use crate::cluster::{Cluster, UPDATE, in_cluster};
use cupcake_crds::values::Phase;
use cupcake_sandbox::machine::ledger::EffectKind;
use k8s_openapi::api::core::v1::{Event, Node};
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The packages that were installed, with their versions.
fn installed(cluster: &Cluster) -> BTreeSet<String> {
    let installs = cluster.world.effects().into_iter().filter(|effect| effect.name.kind == EffectKind::Install);
    installs.filter(|effect| effect.begun > 0).map(|effect| effect.name.what).collect()
}

#[test]
fn kubectl_stays_as_it_is_where_components_leave_it_out() {
    let packages = |fields: Value| {
        in_cluster(1, false, async |cluster| {
            cluster.apply(UPDATE, fields).await;
            let (phase, message) = cluster.at_rest(UPDATE).await;
            assert_eq!(phase, Phase::Succeeded, "{message}");
            installed(cluster)
        })
    };
    let with = ["kubeadm=1.34.4", "kubelet+kubectl=1.34.4"].map(str::to_owned);
    assert_eq!(packages(json!({})), with.into_iter().collect(), "left out it is all three");
    let without = ["kubeadm=1.34.4", "kubelet=1.34.4"].map(str::to_owned);
    assert_eq!(packages(json!({"components": ["kubeadm", "kubelet"]})), without.into_iter().collect());
}

/// Lets the update come to its end; gives how many nodes were cordoned at once, and which ones at all.
async fn to_its_end(cluster: &Cluster) -> (usize, BTreeSet<String>) {
    let (mut most, mut ever) = (0, BTreeSet::new());
    cluster
        .eventually("the update has ended", async || {
            let cordoned = cluster.cordoned();
            most = most.max(cordoned.len());
            ever.extend(cordoned);
            cluster.phase(UPDATE).0 == Phase::Succeeded
        })
        .await;
    (most, ever)
}

#[test]
fn with_strategy_parallel_all_workers_move_at_once_and_a_concurrency_beside_it_is_told_to_have_no_effect() {
    in_cluster(6, false, async |cluster| {
        cluster.apply(UPDATE, json!({"strategy": "parallel", "batchSize": 3, "concurrency": 2})).await;
        assert_eq!(to_its_end(cluster).await.0, 6, "both batches");
        let says = "no effect under strategy parallel";
        let checks = cluster.update(UPDATE).unwrap().status.unwrap().preflight_results.unwrap().checks;
        let spec = checks.into_iter().find(|check| check.name == "Spec").unwrap();
        assert!(spec.passed && spec.message.iter().any(|told| told.contains(says)), "{:?}", spec.message);
        let events = cluster.all::<Event>("", "events");
        let told = events.iter().filter(|event| event.reason.as_deref() == Some("NoEffect"));
        assert_eq!(told.filter(|event| event.message.iter().any(|told| told.contains(says))).count(), 1);
    });
}

#[test]
fn a_percentage_is_a_share_of_the_workers_that_the_selector_names_and_no_other_worker_is_touched() {
    in_cluster(6, false, async |cluster| {
        let nodes: Api<Node> = Api::all(cluster.client.clone());
        let blue = Patch::Merge(json!({"metadata": {"labels": {"pool": "blue"}}}));
        for node in ["w-1", "w-3", "w-5", "w-6"] {
            cluster.ask(async || nodes.patch(node, &PatchParams::default(), &blue).await).await;
        }
        cluster.apply(UPDATE, json!({"nodeSelector": {"pool": "blue"}, "concurrency": "50%"})).await;
        let (most, ever) = to_its_end(cluster).await;
        assert_eq!(most, 2, "half of four");
        let moved = ["cp-1", "w-1", "w-3", "w-5", "w-6"].map(str::to_owned);
        assert_eq!(ever, moved.into_iter().collect());
        assert_eq!(["w-2", "w-4"].map(|node| cluster.kubelet(node)), ["1.33.4", "1.33.4"]);
        assert_eq!(cluster.update(UPDATE).unwrap().status.unwrap().progress.as_deref(), Some("5/5"));
        let on_others = cluster.world.effects().into_iter().filter(|effect| effect.begun > 0);
        assert!(on_others.into_iter().all(|effect| !["w-2", "w-4"].contains(&effect.name.node.as_str())));
    });
}

#[test]
fn without_preflight_checks_an_update_begins_beside_a_machine_whose_agent_is_away() {
    let server = |cluster: &Cluster| cluster.kubelet("cp-1");
    in_cluster(2, false, async |cluster| {
        cluster.pass(60).await;
        cluster.world.lose_agent("w-1");
        cluster.pass(1_200).await;
        cluster.apply(UPDATE, json!({})).await;
        cluster.pass(1_200).await;
        let (phase, message) = cluster.phase(UPDATE);
        assert!(phase == Phase::Pending && message.contains("w-1"), "{phase}: {message}");
        assert_eq!((server(cluster).as_str(), cluster.effects()), ("1.33.4", 0), "with them nothing is begun");
        cluster.cancel().await;
        assert_eq!(cluster.at_rest(UPDATE).await.0, Phase::Cancelled);
        cluster.apply("unchecked", json!({"preflightChecks": false})).await;
        cluster.eventually("the control plane moves", async || server(cluster) == "1.34.4").await;
        let (phase, message) = cluster.phase("unchecked");
        assert_eq!(phase, Phase::InProgress, "{message}");
    });
}

#[test]
fn a_blocked_drain_is_given_half_of_the_node_timeout() {
    for (timeout, half) in [("10m", 300), ("1h", 1_800)] {
        in_cluster(2, false, async |cluster| {
            cluster.apply_then_freeze(UPDATE, json!({"nodeTimeout": timeout})).await;
            cluster.eventually("w-1 is cordoned", async || cluster.is_cordoned("w-1")).await;
            let began = cluster.world.now();
            let (phase, message) = cluster.at_rest(UPDATE).await;
            assert!(phase == Phase::RequiresAttention && message.contains("w-1/drain"), "{phase}: {message}");
            let seconds = (cluster.world.now() - began).num_seconds();
            assert!((half..half + 60).contains(&seconds), "{timeout}: {seconds} s");
        });
    }
}
