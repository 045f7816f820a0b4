//! What a drain meets beside budgets and webhooks: pods that come later.
//!
//! Everything runs in a sandbox on paused time. What becomes of a drain whose time is up is shown in expiry.rs.

use crate::cluster::{Cluster, UPDATE, in_cluster};
use cupcake_crds::values::Phase;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::{Value, json};

/// Creates a pod in the namespace default.
async fn create_pod(cluster: &Cluster, pod: &Value) -> Pod {
    let pod: Pod = serde_json::from_value(pod.clone()).unwrap();
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "default");
    cluster.ask(async || pods.create(&PostParams::default(), &pod).await).await
}

/// A pod that names its node, whoever has cordoned that.
fn pod_on(node: &str, name: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"nodeName": node, "containers": [{"name": name, "image": "registry.example/notes:1"}]},
    })
}

/// Type and note of each event of that reason about that object.
fn events(cluster: &Cluster, reason: &str, about: &str) -> Vec<(String, String)> {
    let events = cluster.all::<Event>("", "events").into_iter();
    let of_it = events.filter(|event| {
        event.reason.as_deref() == Some(reason) && event.involved_object.name.as_deref() == Some(about)
    });
    of_it.map(|event| (event.type_.unwrap_or_default(), event.message.unwrap_or_default())).collect()
}

#[test]
fn a_pod_that_comes_to_a_node_that_is_being_emptied_stays_and_is_named_while_the_drain_waits_and_at_its_end() {
    in_cluster(2, false, async |cluster| {
        let budgets = cluster.apply_then_freeze(UPDATE, json!({})).await;
        cluster.eventually("the drain is blocked", async || cluster.phase(UPDATE).1.contains("DrainBlocked")).await;
        cluster.pass(150).await;
        let late = create_pod(cluster, &pod_on("w-1", "late")).await;
        let told = || events(cluster, "DrainBlocked", "w-1").into_iter().any(|(_, note)| note.contains("default/late"));
        cluster.eventually("it is told while the drain waits", async || told()).await;
        cluster.ask(async || budgets.delete("frozen", &DeleteParams::default()).await.map(drop)).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        let pods = cluster.all::<Pod>("", "pods");
        let stays = pods.iter().find(|pod| pod.uid() == late.uid()).unwrap();
        assert_eq!(stays.metadata.deletion_timestamp, None, "nobody asked whether it may be lost");
        let note = "empty, as far as an upgrade needs it; came after the cordon, not evicted: 1 pod: default/late";
        assert_eq!(events(cluster, "Drained", "w-1"), [("Warning".to_owned(), note.to_owned())]);
        assert_eq!(events(cluster, "Drained", "w-2")[0].0, "Normal", "a drain that left nothing");
    });
}
