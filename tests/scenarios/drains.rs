//! What a drain meets beside budgets and webhooks: pods that come later, volumes that stay attached, pods of which spec.drain.rules says
//! something.
//!
//! Everything runs in a sandbox on paused time. What becomes of a drain whose time is up is shown in expiry.rs.

use crate::cluster::{Cluster, UPDATE, in_cluster};
use crate::stalls::answer;
use cupcake_crds::values::Phase;
use k8s_openapi::api::core::v1::{Event, PersistentVolume, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
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

/// The names of the pods on w-1 that are of those apps and not on their way out.
fn staying(cluster: &Cluster, apps: &[&str]) -> Vec<String> {
    let of_them = |pod: &Pod| {
        let on_w_1 = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some("w-1");
        let app = pod.labels().get("app").is_some_and(|app| apps.contains(&app.as_str()));
        on_w_1 && app && pod.metadata.deletion_timestamp.is_none()
    };
    let pods = cluster.all::<Pod>("", "pods").into_iter();
    pods.filter(of_them).map(|pod| pod.labels()["app"].clone()).collect()
}

fn of_app(app: &str) -> Value {
    json!({"matchLabels": {"app": app}})
}

/// A pod of that name ends by itself.
async fn completes(cluster: &Cluster, name: &str) {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "default");
    let over = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
    cluster.ask(async || pods.patch_status(name, &PatchParams::default(), &over).await.map(drop)).await;
}

#[test]
fn rules_leave_pods_where_they_are_wait_for_others_to_complete_and_evict_groups_one_after_another() {
    in_cluster(2, false, async |cluster| {
        cluster.pass(60).await;
        let mut web = pod_on("w-1", "web");
        web["metadata"]["finalizers"] = json!(["shop.example/settle"]);
        create_pod(cluster, &web).await;
        for name in ["osd", "job", "db"] {
            create_pod(cluster, &pod_on("w-1", name)).await;
        }
        let rules = json!([
            {"action": "Skip", "selector": of_app("osd")},
            {"action": "WaitCompleted", "namespaces": ["default"], "selector": of_app("job")},
            {"action": "Evict", "order": -1, "selector": of_app("web")},
            {"action": "Evict", "order": 10, "selector": of_app("db")},
        ]);
        cluster.apply(UPDATE, json!({"drain": {"deleteUnmanagedPods": true, "rules": rules}})).await;
        cluster.eventually("the first group is evicted", async || staying(cluster, &["web"]).is_empty()).await;
        cluster.pass(20).await;
        let shops = staying(cluster, &["shop"]).len();
        assert!(shops > 0, "those without an order wait until the first group is gone");
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "default");
        let settled = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        cluster.ask(async || pods.patch("web", &PatchParams::default(), &settled).await.map(drop)).await;
        cluster.eventually("it waits for the job", async || cluster.phase(UPDATE).1.contains("PodsCompleting")).await;
        let (_, message) = cluster.phase(UPDATE);
        assert!(message.contains("w-1: waits for 1 pod to complete") && message.contains("default/job"), "{message}");
        assert!(message.contains("1 pod of a later order waits for that"), "{message}");
        cluster.pass(120).await;
        assert_eq!(staying(cluster, &["osd", "job", "db", "shop"]), ["db", "job", "osd"]);
        completes(cluster, "job").await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        assert_eq!(staying(cluster, &["osd", "db"]), ["osd"], "one stays, the last group is gone");
        assert_eq!(events(cluster, "Drained", "w-1")[0].0, "Normal", "what a rule leaves is nothing to be told");
    });
}

#[test]
fn pods_that_rules_do_not_evict_need_no_consent_and_one_that_does_not_complete_holds_the_update_when_time_is_up() {
    in_cluster(2, false, async |cluster| {
        cluster.pass(60).await;
        let mut osd = pod_on("w-1", "osd");
        osd["spec"]["volumes"] = json!([{"name": "cache", "emptyDir": {}}]);
        create_pod(cluster, &osd).await;
        create_pod(cluster, &pod_on("w-1", "job")).await;
        cluster.apply("plain", json!({})).await;
        let (_, refused) = cluster.at_rest("plain").await;
        assert!(refused.contains("default/osd") || refused.contains("default/job"), "without rules: {refused}");
        cluster.delete("plain").await;
        let rules = json!([{"action": "Skip", "selector": of_app("osd")}, {"action": "WaitCompleted", "selector": of_app("job")}]);
        cluster.apply(UPDATE, json!({"drain": {"timeout": "3m", "rules": rules}})).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert!(phase == Phase::RequiresAttention && message.contains("default/job"), "{phase}: {message}");
        assert_eq!(
            (staying(cluster, &["osd", "job"]), cluster.is_cordoned("w-1")),
            (vec!["job".into(), "osd".into()], false)
        );
        completes(cluster, "job").await;
        cluster.patch(UPDATE, json!({"spec": {"control": {"retry": [{"requestId": "r-1", "vertex": "w-1"}]}}})).await;
        cluster.eventually("it goes on", async || cluster.phase(UPDATE).0 != Phase::RequiresAttention).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        assert_eq!(staying(cluster, &["osd"]), ["osd"]);
    });
}
