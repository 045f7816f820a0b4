//! What a drain meets beside budgets and webhooks: pods that come later, volumes that stay attached.
//!
//! Everything runs in a sandbox on paused time. What becomes of a drain whose time is up is shown in expiry.rs.

use crate::cluster::{Cluster, UPDATE, in_cluster};
use crate::stalls::answer;
use cupcake_crds::values::Phase;
use k8s_openapi::api::core::v1::{Event, PersistentVolume, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
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

/// A pod on w-1 whose claim is bound to a volume that is attached there; gives the way to take the attachment away.
async fn with_volume(cluster: &Cluster) -> Api<VolumeAttachment> {
    let mut pod = pod_on("w-1", "db-0");
    pod["spec"]["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data-db-0"}}]);
    create_pod(cluster, &pod).await;
    let volume = json!({
        "metadata": {"name": "pvc-1"},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "claimRef": {"namespace": "default", "name": "data-db-0"},
            "csi": {"driver": "csi.example.com", "volumeHandle": "vol-1"},
        },
    });
    let volume: PersistentVolume = serde_json::from_value(volume).unwrap();
    let volumes: Api<PersistentVolume> = Api::all(cluster.client.clone());
    cluster.ask(async || volumes.create(&PostParams::default(), &volume).await).await;
    let attachment = json!({
        "metadata": {"name": "csi-1"},
        "spec": {"attacher": "csi.example.com", "nodeName": "w-1", "source": {"persistentVolumeName": "pvc-1"}},
    });
    let attachment: VolumeAttachment = serde_json::from_value(attachment).unwrap();
    let attachments: Api<VolumeAttachment> = Api::all(cluster.client.clone());
    cluster.ask(async || attachments.create(&PostParams::default(), &attachment).await).await;
    attachments
}

#[test]
fn a_volume_that_stays_attached_is_waited_for_and_told_with_its_claim_and_the_update_goes_on_once_it_is_detached() {
    in_cluster(2, false, async |cluster| {
        cluster.pass(60).await;
        let attachments = with_volume(cluster).await;
        cluster.apply(UPDATE, json!({"drain": {"deleteUnmanagedPods": true}})).await;
        cluster.eventually("it is told", async || cluster.phase(UPDATE).1.contains("VolumesAttached")).await;
        let (_, message) = cluster.phase(UPDATE);
        assert!(
            message.contains("w-1: its pods are gone") && message.contains("pvc-1 (default/data-db-0)"),
            "{message}"
        );
        assert_eq!(answer(cluster, UPDATE).pop().as_deref(), Some("next:  kubectl get volumeattachments"));
        let pods = cluster.all::<Pod>("", "pods");
        assert!(!pods.iter().any(|pod| pod.name_any() == "db-0"), "its pod is gone");
        cluster.pass(300).await;
        assert_eq!(cluster.kubelet("w-1"), "1.33.4", "it waits for that");
        cluster.ask(async || attachments.delete("csi-1", &DeleteParams::default()).await.map(drop)).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        assert_eq!(events(cluster, "Drained", "w-1")[0].0, "Normal", "nothing is attached any more");
    });
}

#[test]
fn a_volume_that_is_never_detached_holds_a_drain_for_its_time_and_no_longer() {
    in_cluster(2, false, async |cluster| {
        cluster.pass(60).await;
        with_volume(cluster).await;
        cluster.apply(UPDATE, json!({"drain": {"deleteUnmanagedPods": true, "timeout": "3m"}})).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        let note = "empty, as far as an upgrade needs it; still attached: 1 volume: pvc-1 (default/data-db-0)";
        assert_eq!(events(cluster, "Drained", "w-1"), [("Warning".to_owned(), note.to_owned())]);
    });
}
