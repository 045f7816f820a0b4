//! Pains 12, 15 and 19 to 23: kubeadm, etcd, and the order in which a control plane moves.

use super::story::{Story, to};
use crate::cluster::{Cluster, UPDATE, in_cluster, in_cluster_at, in_world};
use cupcake_crds::values::{ClusterSnapshot, KubeVersion, Phase};
use cupcake_engine::clock::Timestamp;
use cupcake_operator::adapters::snapshot::gather_all;
use cupcake_sandbox::machine::ledger::EffectKind;
use cupcake_sandbox::world::WorldConfig;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

pub(super) fn stories() -> Vec<Story> {
    vec![left_manifest(), snapshot(), two_waves(), skew(), addons(), pace(), job()]
}

fn three(from: KubeVersion, workers: u32) -> WorldConfig {
    let start = Timestamp::from_timestamp(1_790_000_000, 0).unwrap();
    WorldConfig { workers, budget: false, ..WorldConfig::new(from, start) }
}

/// The cluster as the compiler sees it, once every agent has answered.
pub(super) async fn gathered(cluster: &Cluster) -> ClusterSnapshot {
    cluster.pass(120).await;
    gather_all(&cluster.client, cluster.world.now()).await.unwrap()
}

fn left_manifest() -> Story {
    let title = "kubeadm: a static pod's hash \"did not change after 5m\", then a rollback";
    let mut story = Story::new(12, "static-pod-unchanged", title);
    in_cluster_at(KubeVersion::new(1, 27, 16), 1, false, async |cluster| {
        story.happens("1.28.0 to 1.28.2 write a manifest of etcd whose hash the next upgrade waits for in vain. Somebody asks for one of them.");
        let seen = gathered(cluster).await;
        story.preflight(&seen, &to("1.28.1"), &["AvoidedRelease"]);
        story.happens("On the way to another minor they are gone around.");
        story.plan(&seen, &to("1.29.15"));
    });
    in_cluster(0, false, async |cluster| {
        story.happens("On another cluster the disk of cp-1 is so slow that its kubelet does not start the new etcd in time. kubeadm puts the old one back each time, and after three attempts the update rests.");
        let machine = cluster.world.machine("cp-1").unwrap();
        machine.let_etcd_stay(u32::MAX);
        cluster.apply(UPDATE, json!({})).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::RequiresAttention, "{message}");
        story.status(cluster);
        story.why(cluster);
        story.nodes(cluster);
        story.happens("The disk is replaced; $ kubectl cupcake retry to-1-34 1.34.4/control-plane/cp-1/kubeadm-upgrade. The update goes on from there.");
        machine.let_etcd_stay(0);
        let retry = json!([{"requestId": "retry-1", "vertex": "1.34.4/control-plane/cp-1/kubeadm-upgrade"}]);
        cluster.patch(UPDATE, json!({"spec": {"control": {"retry": retry}}})).await;
        cluster.eventually("it goes on", async || cluster.phase(UPDATE).0 == Phase::InProgress).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        assert!(cluster.cordoned().is_empty(), "{message}");
        story.status(cluster);
    });
    story
}

fn job() -> Story {
    let mut story = Story::new(23, "preflight-job", "kubeadm's own preflight Job flakes");
    in_cluster(0, false, async |cluster| {
        story.happens("kubeadm's test Job does not end in time on cp-1: the node on which its pod landed has to pull an image first. Nothing was changed yet and no node was drained, so that the machine runs kubeadm again by itself.");
        cluster.world.machine("cp-1").unwrap().let_job_fail(1);
        cluster.apply(UPDATE, json!({})).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        story.status(cluster);
        story.nodes(cluster);
        let effects = cluster.world.effects().into_iter();
        let begun: u32 =
            effects.filter(|effect| effect.name.kind == EffectKind::Kubeadm).map(|effect| effect.begun).sum();
        assert_eq!(begun, 2);
        story.seen("# kubeadm was begun twice there.");
    });
    story
}

fn snapshot() -> Story {
    let mut story = Story::new(15, "old-data-copied-back", "kubeadm's rollback copies old data back");
    in_cluster(0, false, async |cluster| {
        story.happens("Every hop saves etcd before its control plane moves. Here a person pauses the update for two hours right after that.");
        let seen = gathered(cluster).await;
        story.plan(&seen, &to("1.34.4"));
        cluster.apply(UPDATE, json!({})).await;
        let backup = || cluster.update(UPDATE).and_then(|update| update.status?.backup_info);
        cluster.eventually("etcd is being saved", async || cluster.task("cp-1").spec.order.is_some()).await;
        let pause = |pause: Value| json!({"spec": {"control": {"pause": pause}}});
        cluster.patch(UPDATE, pause(json!({"requestId": "pause-1", "reason": "lunch"}))).await;
        cluster.eventually("etcd is saved", async || backup().is_some()).await;
        let told = |story: &mut Story| {
            let backup = backup().unwrap();
            let template = "{.status.backupInfo.etcdSnapshot} of {.status.backupInfo.timestamp}";
            story.seen(&format!("$ kubectl get directupdate {UPDATE} --output jsonpath='{template}'"));
            let timestamp = json!(backup.timestamp);
            story.seen(&format!("{} of {}", backup.etcd_snapshot.unwrap(), timestamp.as_str().unwrap()));
        };
        told(&mut story);
        cluster.pass(7_200).await;
        story.happens(&format!(
            "$ kubectl cupcake resume to-1-34, at {}: kubeadm is begun with another snapshot, taken after the pause.",
            cluster.world.now().format("%H:%M:%S")
        ));
        cluster.patch(UPDATE, pause(Value::Null)).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        told(&mut story);
    });
    story
}

fn two_waves() -> Story {
    let title = "A new kubelet talks to an old API server through the load balancer";
    let mut story = Story::new(19, "kubelets-after-static-pods", title);
    in_world(three(KubeVersion::new(1, 33, 4), 2), async |cluster| {
        story.happens("Three control-plane nodes: kubeadm on all of them first, their kubelets after that.");
        let seen = gathered(cluster).await;
        story.plan(&seen, &to("1.34.4"));
    });
    story
}

fn skew() -> Story {
    let mut story = Story::new(20, "skew-of-kubeadm", "Kubernetes and kubeadm differ about the skew");
    in_cluster_at(KubeVersion::new(1, 26, 15), 2, false, async |cluster| {
        story.happens("Kubernetes lets a kubelet be two minors older, three from 1.28 on; kubeadm up to 1.28 one only. So the workers go along in the hops that kubeadm would refuse them in.");
        let seen = gathered(cluster).await;
        story.plan(&seen, &to("1.29.15"));
    });
    story
}

fn addons() -> Story {
    let title = "Addons are not upgraded where there are several control planes";
    let mut story = Story::new(21, "addons-left-behind", title);
    in_world(three(KubeVersion::new(1, 33, 4), 0), async |cluster| {
        let sets: Api<DaemonSet> = Api::namespaced(cluster.client.clone(), "kube-system");
        let image = async |version: &str| {
            let containers = json!([{"name": "kube-proxy", "image": format!("registry.k8s.io/kube-proxy:{version}")}]);
            let patch = Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": containers}}}}));
            cluster.ask(async || sets.patch("kube-proxy", &PatchParams::default(), &patch).await.map(drop)).await;
        };
        let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), "kube-system");
        let dns = async |image: &str| {
            let containers = json!([{"name": "coredns", "image": image}]);
            let patch = Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": containers}}}}));
            cluster.ask(async || deployments.patch("coredns", &PatchParams::default(), &patch).await.map(drop)).await;
        };
        story.happens("kubeadm has ended well on all three control-plane nodes, and kube-proxy and CoreDNS are at what they were.");
        cluster.apply(UPDATE, json!({})).await;
        cluster.eventually("the addons are looked at", async || cluster.phase(UPDATE).1.contains("addons")).await;
        image("v1.33.4").await;
        dns("registry.k8s.io/coredns/coredns:v1.12.0").await;
        cluster.eventually("it is told", async || cluster.phase(UPDATE).1.contains("AddonBehind")).await;
        cluster.pass(40).await;
        story.status(cluster);
        story.why(cluster);
        story.happens("Somebody runs that command. CoreDNS has versions of its own: which one belongs to 1.34.4 kubeadm of the nodes has told.");
        image("v1.34.4").await;
        cluster.eventually("CoreDNS is told", async || cluster.phase(UPDATE).1.contains("coredns is at image")).await;
        story.status(cluster);
        story
            .happens("Somebody has a CoreDNS of their own instead: it is told and left alone, and the update goes on.");
        dns("registry.example.com/dns/coredns:1.12.3-ours").await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        story.event_with(cluster, "StepSucceeded", "left alone");
        story.status(cluster);
    });
    story
}

fn pace() -> Story {
    let mut story = Story::new(22, "kubelets-too-fast", "Kubelets of the control plane are restarted too fast");
    in_world(three(KubeVersion::new(1, 33, 4), 0), async |cluster| {
        let first = cluster.world.machine("cp-1").unwrap();
        cluster.apply(UPDATE, json!({})).await;
        let moved = KubeVersion::new(1, 34, 4);
        cluster.eventually("the kubelet of cp-1 has moved", async || first.kubelet_version() == moved).await;
        first.break_static_pod("etcd");
        story
            .happens("The kubelet of cp-1 was restarted, and etcd does not come back there. The Node itself is Ready.");
        cluster.eventually("it is told", async || cluster.phase(UPDATE).1.contains("etcd not ready there")).await;
        cluster.pass(40).await;
        story.status(cluster);
        story.nodes(cluster);
        story.why(cluster);
        story.happens("etcd is back: the kubelets of cp-2 and cp-3 follow.");
        first.mend_static_pod("etcd");
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        story.status(cluster);
        story.nodes(cluster);
    });
    story
}
