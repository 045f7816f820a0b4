//! Nodes that come while an update is under way: workers that join, or register anew, after their wave was planned.
//!
//! Everything runs in a sandbox on paused time.

use crate::cluster::{Cluster, UPDATE, in_cluster, in_cluster_at};
use crate::stalls::answer;
use cupcake_crds::values::{KubeVersion, Phase};
use cupcake_crds::{GROUP, UpgradeRun};
use k8s_openapi::api::core::v1::{Event, Node};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams};
use serde_json::json;

/// Passes time until the workers of that hop are planned.
async fn workers_are_planned(cluster: &Cluster, hop: &str) {
    let wave = format!("{hop}/workers");
    let is_wave = |run: &UpgradeRun| run.spec.parent.as_ref().is_some_and(|parent| parent.vertex == wave);
    let planned = async || cluster.all::<UpgradeRun>(GROUP, "upgraderuns").iter().any(is_wave);
    cluster.eventually("the workers' turn comes", planned).await;
}

fn uid(cluster: &Cluster, node: &str) -> Option<String> {
    cluster.all::<Node>("", "nodes").iter().find(|one| one.name_any() == node)?.uid()
}

/// What Events of that reason say.
fn told(cluster: &Cluster, reason: &str) -> Vec<String> {
    let events = cluster.all::<Event>("", "events").into_iter();
    events.filter(|event| event.reason.as_deref() == Some(reason)).filter_map(|event| event.message).collect()
}

#[test]
fn a_worker_that_joins_after_the_last_wave_was_planned_holds_nobody_up_and_is_named_with_what_brings_it() {
    in_cluster(2, true, async |cluster| {
        cluster.apply(UPDATE, json!({})).await;
        workers_are_planned(cluster, "1.34.4").await;
        cluster.world.join("w-3", KubeVersion::new(1, 33, 4)).unwrap();
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        let named = "without w-3 (1.33.4), new since the workers were planned: apply another DirectUpdate";
        assert!(message.contains(named), "{message}");
        let versions = ["cp-1", "w-1", "w-2", "w-3"].map(|node| cluster.kubelet(node));
        assert_eq!(versions, ["1.34.4", "1.34.4", "1.34.4", "1.33.4"]);
        let events = told(cluster, "NodesJoined");
        assert!(matches!(&events[..], [event] if event.contains(named)), "{events:?}");
        cluster.is_left_alone("a worker joined").await;
        // As it is told, so it is.
        cluster.apply("again", json!({})).await;
        let (phase, message) = cluster.at_rest("again").await;
        assert_eq!((phase, cluster.kubelet("w-3").as_str()), (Phase::Succeeded, "1.34.4"), "{message}");
        assert!(!message.contains("without"), "{message}");
    });
}

#[test]
fn a_node_that_registers_anew_after_its_wave_was_planned_is_another_node_and_holds_nobody_up() {
    in_cluster(3, false, async |cluster| {
        cluster.apply(UPDATE, json!({"batchSize": 1})).await;
        workers_are_planned(cluster, "1.34.4").await;
        let before = uid(cluster, "w-3");
        cluster.world.register_anew("w-3");
        cluster.eventually("it is back", async || uid(cluster, "w-3").is_some_and(|uid| Some(uid) != before)).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        assert!(message.contains("without w-3 (1.33.4), new since"), "{message}");
        let versions = ["w-1", "w-2", "w-3"].map(|node| cluster.kubelet(node));
        assert_eq!(versions, ["1.34.4", "1.34.4", "1.33.4"]);
        cluster.is_left_alone("a node registered anew").await;
        cluster.apply("again", json!({})).await;
        let (phase, message) = cluster.at_rest("again").await;
        assert_eq!((phase, cluster.kubelet("w-3").as_str()), (Phase::Succeeded, "1.34.4"), "{message}");
    });
}

#[test]
fn a_worker_that_joins_in_an_earlier_hop_and_fits_the_next_one_moves_in_a_later_wave() {
    in_cluster_at(KubeVersion::new(1, 31, 14), 1, false, async |cluster| {
        cluster.apply(UPDATE, json!({"targetVersion": "1.33.13"})).await;
        workers_are_planned(cluster, "1.32.13").await;
        cluster.world.join("w-2", KubeVersion::new(1, 31, 14)).unwrap();
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert!(phase == Phase::Succeeded && !message.contains("without"), "{phase}: {message}");
        let versions = ["cp-1", "w-1", "w-2"].map(|node| cluster.kubelet(node));
        assert_eq!(versions, ["1.33.13", "1.33.13", "1.33.13"]);
        assert_eq!(told(cluster, "NodesJoined"), Vec::<String>::new());
    });
}

#[test]
fn a_worker_that_joins_in_an_earlier_hop_and_is_too_old_for_the_next_one_stops_the_update_before_that_hop() {
    in_cluster_at(KubeVersion::new(1, 25, 16), 2, true, async |cluster| {
        cluster.apply(UPDATE, json!({"targetVersion": "1.27.16"})).await;
        workers_are_planned(cluster, "1.26.15").await;
        cluster.world.join("w-3", KubeVersion::new(1, 25, 16)).unwrap();
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::RequiresAttention, "{message}");
        for part in
            ["w-3 (1.25.16)", "no kubelet older than 1.26.0", "upgrade it by hand or take it out of the cluster"]
        {
            assert!(message.contains(part), "{message}");
        }
        let versions = ["cp-1", "w-1", "w-2"].map(|node| cluster.kubelet(node));
        assert_eq!(versions, ["1.26.15", "1.26.15", "1.26.15"], "the next hop has not begun");
        let next = answer(cluster, UPDATE).pop();
        assert_eq!(next.as_deref(), Some("next:  kubectl cupcake retry to-1-34 1.26.15/verify"));
        let nodes: Api<Node> = Api::all(cluster.client.clone());
        cluster.ask(async || nodes.delete("w-3", &DeleteParams::default()).await.map(drop)).await;
        let retry = json!({"retry": [{"requestId": "retry-1", "vertex": "1.26.15/verify"}]});
        cluster.patch(UPDATE, json!({"spec": {"control": retry}})).await;
        cluster.eventually("it goes on", async || cluster.phase(UPDATE).0 != Phase::RequiresAttention).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        let versions = ["cp-1", "w-1", "w-2"].map(|node| cluster.kubelet(node));
        assert_eq!(versions, ["1.27.16", "1.27.16", "1.27.16"]);
    });
}
