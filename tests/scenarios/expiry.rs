//! Drains whose time is up, by what `spec.drain.onExpiry` says, and updates within a minor that drain nothing.
//!
//! Everything runs in a sandbox on paused time. That the update rests where nothing is said is shown in control.rs.

use crate::cluster::{Cluster, UPDATE, in_cluster, in_cluster_at};
use cupcake_crds::values::{KubeVersion, Phase};
use cupcake_sandbox::machine::ledger::EffectKind;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// UIDs of the workload's pods on a node.
fn shop_on(cluster: &Cluster, node: &str) -> BTreeSet<String> {
    let pods = cluster.all::<Pod>("", "pods").into_iter();
    pods.filter(|pod| pod.labels().get("app").is_some_and(|app| app == "shop"))
        .filter(|pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node))
        .filter_map(|pod| pod.uid())
        .collect()
}

/// A pod that nothing makes anew, put on a node by hand.
async fn bare_pod(cluster: &Cluster, name: &str, node: &str) {
    let pod = json!({
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"nodeName": node, "containers": [{"name": name, "image": "registry.example/notes:1"}]},
    });
    let pod: Pod = serde_json::from_value(pod).unwrap();
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "default");
    cluster.ask(async || pods.create(&PostParams::default(), &pod).await.map(drop)).await;
}

fn events(cluster: &Cluster, reason: &str) -> Vec<Event> {
    let events = cluster.all::<Event>("", "events").into_iter();
    events.filter(|event| event.reason.as_deref() == Some(reason)).collect()
}

fn drain(fields: &Value) -> Value {
    json!({"drain": fields})
}

#[test]
fn a_worker_whose_drain_does_not_end_is_given_back_and_the_update_goes_on_without_it_and_says_so() {
    in_cluster(2, false, async |cluster| {
        let budgets = cluster.apply_then_freeze(UPDATE, drain(&json!({"onExpiry": "SkipNode", "timeout": "3m"}))).await;
        let left_out = || cluster.update(UPDATE).unwrap().status.unwrap_or_default().left_out;
        cluster.eventually("w-1 is left out", async || !left_out().is_empty()).await;
        assert!(!shop_on(cluster, "w-1").is_empty(), "its pods stayed");
        cluster.ask(async || budgets.delete("frozen", &DeleteParams::default()).await.map(drop)).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        assert!(message.contains("without w-1, left out because the drain did not end"), "{message}");
        let left_out = left_out();
        assert!(
            left_out.len() == 1 && left_out[0].node == "w-1" && left_out[0].reason.contains("frozen"),
            "{left_out:?}"
        );
        let versions = ["cp-1", "w-1", "w-2"].map(|node| cluster.kubelet(node));
        assert_eq!(versions, ["1.34.4", "1.33.4", "1.34.4"]);
        let told = events(cluster, "DrainExpired");
        let warned = |event: &Event| {
            event.type_.as_deref() == Some("Warning")
                && event.message.iter().any(|told| told.contains("w-1 is left out"))
        };
        assert!(told.iter().any(warned), "{told:?}");
        cluster.is_left_alone("left out by its drain's policy").await;
        cluster.nothing_was_done_twice("left out by its drain's policy");
        // Left out of that update, not of the next one.
        cluster.apply("again", json!({})).await;
        let (phase, message) = cluster.at_rest("again").await;
        assert_eq!((phase, cluster.kubelet("w-1").as_str()), (Phase::Succeeded, "1.34.4"), "{message}");
    });
}

#[test]
fn a_control_plane_node_whose_drain_does_not_end_is_never_left_out() {
    in_cluster(2, true, async |cluster| {
        cluster.apply(UPDATE, drain(&json!({"onExpiry": "SkipNode"}))).await;
        cluster.eventually("it is under way", async || cluster.phase(UPDATE).0 == Phase::InProgress).await;
        bare_pod(cluster, "pinned", "cp-1").await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert!(phase == Phase::RequiresAttention && message.contains("kubelets/cp-1/drain"), "{phase}: {message}");
        assert_eq!(cluster.update(UPDATE).unwrap().status.unwrap().left_out, []);
    });
}

#[test]
fn pods_are_deleted_past_their_budget_only_where_that_is_asked_for_and_only_when_the_time_is_up() {
    in_cluster(2, false, async |cluster| {
        cluster.apply_then_freeze(UPDATE, drain(&json!({"onExpiry": "ForceAfter", "timeout": "3m"}))).await;
        cluster.eventually("the drain is blocked", async || cluster.phase(UPDATE).1.contains("w-1: ")).await;
        let before = shop_on(cluster, "w-1");
        cluster.pass(160).await;
        assert!(!before.is_empty() && shop_on(cluster, "w-1") == before, "not before the time is up");
        cluster.eventually("its time is up", async || !events(cluster, "DrainForced").is_empty()).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        let versions = ["cp-1", "w-1", "w-2"].map(|node| cluster.kubelet(node));
        assert_eq!(versions, ["1.34.4", "1.34.4", "1.34.4"]);
        assert!(shop_on(cluster, "w-1").is_disjoint(&before), "each is another pod by now");
        cluster.is_left_alone("drained by force").await;
        cluster.nothing_was_done_twice("drained by force");
    });
}

#[test]
fn a_pod_that_nobody_agreed_to_lose_is_not_deleted_by_force_either() {
    in_cluster(2, true, async |cluster| {
        cluster.apply(UPDATE, drain(&json!({"onExpiry": "ForceAfter", "timeout": "3m"}))).await;
        cluster.eventually("it is under way", async || cluster.phase(UPDATE).0 == Phase::InProgress).await;
        bare_pod(cluster, "notes", "w-2").await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert!(
            phase == Phase::RequiresAttention && message.contains("default/notes: nothing would"),
            "{phase}: {message}"
        );
        let pods = cluster.all::<Pod>("", "pods");
        let notes = pods.iter().find(|pod| pod.name_any() == "notes");
        assert!(notes.is_some_and(|pod| pod.metadata.deletion_timestamp.is_none()), "it is still there");
    });
}

#[test]
fn an_update_within_a_minor_drains_nothing_where_that_is_asked_for() {
    for drains in [true, false] {
        in_cluster_at(KubeVersion::new(1, 34, 1), 2, false, async |cluster| {
            cluster.apply_then_freeze(UPDATE, drain(&json!({"onPatch": drains}))).await;
            let (phase, message) = cluster.at_rest(UPDATE).await;
            let drained = cluster.world.effects().iter().any(|effect| effect.name.kind == EffectKind::Drain);
            let expected = if drains { Phase::RequiresAttention } else { Phase::Succeeded };
            assert_eq!((phase, drained), (expected, drains), "{message}");
            let versions = ["cp-1", "w-1", "w-2"].map(|node| cluster.kubelet(node));
            let workers = if drains { "1.34.1" } else { "1.34.4" };
            assert_eq!(versions, ["1.34.4", workers, workers]);
            cluster.is_left_alone("within a minor").await;
        });
    }
}

#[test]
fn a_policy_that_there_is_not_is_refused_by_the_schema() {
    in_cluster(0, false, async |cluster| {
        let update = json!({
            "apiVersion": "cupcake.ricardomolendijk.com/v1", "kind": "DirectUpdate", "metadata": {"name": "typo"},
            "spec": {"targetVersion": "1.34.4", "drain": {"onExpiry": "Force"}},
        });
        let typo: kube::api::DynamicObject = serde_json::from_value(update).unwrap();
        let kind = kube::api::ApiResource::erase::<cupcake_crds::DirectUpdate>(&());
        let updates: Api<kube::api::DynamicObject> = Api::all_with(cluster.client.clone(), &kind);
        let error = updates.create(&PostParams::default(), &typo).await.unwrap_err().to_string();
        assert!(error.contains("spec.drain.onExpiry") && error.contains("ForceAfter"), "{error}");
    });
}
