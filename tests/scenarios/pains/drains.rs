//! Pains 1 to 6: what keeps a node from being emptied, and a node from being given back.

use super::story::Story;
use crate::cluster::{Cluster, UPDATE, in_cluster};
use cupcake_crds::values::Phase;
use cupcake_sandbox::api::{Failure, Fault, Faults, ReplyFault, RequestInfo, RequestRecord};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) fn stories() -> Vec<Story> {
    vec![budget(), silence(), cordon(), terminating(), webhook(), unreachable()]
}

async fn until_told(cluster: &Cluster, words: &str) {
    cluster.eventually(words, async || cluster.phase(UPDATE).1.contains(words)).await;
    // What is told in other places follows with the next look.
    cluster.pass(40).await;
}

async fn ends_succeeded(cluster: &Cluster, story: &mut Story) {
    cluster
        .eventually("it goes on", async || matches!(cluster.phase(UPDATE).0, Phase::InProgress | Phase::Succeeded))
        .await;
    let (phase, message) = cluster.at_rest(UPDATE).await;
    assert_eq!(phase, Phase::Succeeded, "{message}\nafter\n{}", story.text());
    story.status(cluster);
}

fn budget() -> Story {
    let mut story =
        Story::new(1, "budget-never-satisfied", "A drain waits for ever on a budget that can never be satisfied");
    in_cluster(2, false, async |cluster| {
        cluster.pass(120).await;
        let budgets = cluster.freeze().await;
        story.happens(
            "The budget default/frozen of a workload on both workers lets none of its pods go. An update is applied.",
        );
        cluster.apply(UPDATE, json!({})).await;
        until_told(cluster, "DisruptionBudget").await;
        story.status(cluster);
        story.nodes(cluster);
        story.why(cluster);
        story.happens("Somebody takes the budget away: the update begins by itself.");
        cluster.ask(async || budgets.delete("frozen", &DeleteParams::default()).await.map(drop)).await;
        ends_succeeded(cluster, &mut story).await;
    });
    story
}

fn silence() -> Story {
    let mut story = Story::new(2, "silent-drain", "Nobody says what blocks a drain");
    in_cluster(2, false, async |cluster| {
        story.happens("The update is under way when somebody makes a budget that lets no pod of the workload go.");
        cluster.apply_then_freeze(UPDATE, json!({})).await;
        until_told(cluster, "DrainBlocked").await;
        story.status(cluster);
        story.why(cluster);
        story.event(cluster, "DrainBlocked");
        let metrics = cluster.metrics.text();
        story.seen("$ curl --silent localhost:9090/metrics | grep '^cupcake_updates_waiting{'");
        metrics.lines().filter(|line| line.starts_with("cupcake_updates_waiting{")).for_each(|line| story.seen(line));
    });
    story
}

fn cordon() -> Story {
    let mut story = Story::new(3, "left-cordoned", "A node stays cordoned after a failure, a cancel, a deletion");
    let cordoned = async |cluster: &Cluster| {
        let nodes: Api<Node> = Api::all(cluster.client.clone());
        let cordon = Patch::Merge(json!({"spec": {"unschedulable": true}}));
        cluster.ask(async || nodes.patch("w-3", &PatchParams::default(), &cordon).await).await;
        cluster.apply_then_freeze(UPDATE, json!({})).await;
        until_told(cluster, "DrainBlocked").await;
    };
    in_cluster(3, false, async |cluster| {
        story.happens(
            "A person has cordoned w-3 for reasons of their own. The update is emptying w-1, which a budget holds up.",
        );
        cordoned(cluster).await;
        story.nodes(cluster);
        story.happens("$ kubectl cupcake cancel to-1-34");
        cluster.cancel().await;
        cluster.eventually("it is cancelled", async || cluster.phase(UPDATE).0 == Phase::Cancelled).await;
        story.status(cluster);
        story.nodes(cluster);
        assert_eq!(cluster.cordoned(), ["w-3"]);
    });
    in_cluster(3, false, async |cluster| {
        story.happens("The same in another cluster, where somebody deletes the update instead.");
        cordoned(cluster).await;
        story.nodes(cluster);
        story.happens("$ kubectl delete directupdate to-1-34");
        cluster.delete(UPDATE).await;
        cluster.eventually("it is gone", async || cluster.update(UPDATE).is_none()).await;
        story.seen("$ kubectl get directupdates");
        story.seen("No resources found");
        story.nodes(cluster);
        assert_eq!(cluster.cordoned(), ["w-3"]);
    });
    story
}

fn terminating() -> Story {
    let mut story = Story::new(4, "pods-still-there", "A drain is called done while pods still run");
    in_cluster(2, false, async |cluster| {
        cluster.apply(UPDATE, json!({})).await;
        cluster.eventually("it runs", async || cluster.phase(UPDATE).0 == Phase::InProgress).await;
        let on_w_1 = |pod: &Pod| {
            pod.labels().get("app").is_some_and(|app| app == "shop")
                && pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some("w-1")
        };
        let pod = cluster.all::<Pod>("", "pods").into_iter().find(on_w_1).unwrap().name_any();
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "default");
        let finalizers = async |names: Value| {
            let patch = Patch::Merge(json!({"metadata": {"finalizers": names}}));
            cluster.ask(async || pods.patch(&pod, &PatchParams::default(), &patch).await.map(drop)).await;
        };
        finalizers(json!(["shop.example/settle"])).await;
        story.happens("A pod on w-1 has a finalizer: its eviction is accepted, and it does not end.");
        until_told(cluster, "shop.example/settle").await;
        story.status(cluster);
        story.nodes(cluster);
        story.happens("Whoever put the finalizer there takes it away.");
        finalizers(Value::Null).await;
        ends_succeeded(cluster, &mut story).await;
    });
    story
}

/// A webhook that denies evictions of pods while it holds.
struct Denies {
    before: Arc<dyn Faults>,
    holds: std::sync::atomic::AtomicBool,
}

impl Faults for Denies {
    fn before(&self, request: &RequestInfo) -> Fault {
        let decided = self.before.before(request);
        let holds = self.holds.load(std::sync::atomic::Ordering::Relaxed);
        if decided != Fault::None || !holds || !request.path.ends_with("/eviction") {
            return decided;
        }
        let message = "admission webhook \"strimzi-drain-cleaner.strimzi.io\" denied the request: The pod will be rolled by the Strimzi Cluster Operator";
        Fault::Reject(Failure::new(http::StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message))
    }

    fn after(&self, record: &RequestRecord<'_>) -> ReplyFault {
        self.before.after(record)
    }
}

fn webhook() -> Story {
    let title = "A webhook that denies evictions on purpose ends the drain, or spins";
    let mut story = Story::new(5, "eviction-denied", title);
    in_cluster(2, false, async |cluster| {
        let server = cluster.world.server();
        let before = server.faults().unwrap();
        let denies = Arc::new(Denies { before, holds: true.into() });
        server.inject(Arc::clone(&denies) as Arc<dyn Faults>);
        story.happens(
            "A webhook denies every eviction with the status 500: its own operator moves the pods when it is ready to.",
        );
        cluster.apply(UPDATE, json!({})).await;
        until_told(cluster, "denied the request").await;
        story.status(cluster);
        story.why(cluster);
        story.happens("The pods may go.");
        denies.holds.store(false, std::sync::atomic::Ordering::Relaxed);
        ends_succeeded(cluster, &mut story).await;
    });
    story
}

fn unreachable() -> Story {
    let mut story = Story::new(6, "unreachable-node", "A node that cannot be reached holds the drain for ever");
    in_cluster(2, false, async |cluster| {
        cluster.pass(60).await;
        story.happens("The kubelet of w-1 falls silent before the update begins.");
        cluster.world.lose_kubelet("w-1");
        cluster.pass(120).await;
        cluster.apply(UPDATE, json!({})).await;
        until_told(cluster, "NodeNotReady").await;
        story.status(cluster);
        story.why(cluster);
        story.nodes(cluster);
        assert_eq!(cluster.cordoned(), Vec::<String>::new(), "nobody drains it");
        story.happens("Somebody brings the machine back: the update goes on by itself.");
        cluster.world.restore_kubelet("w-1");
        ends_succeeded(cluster, &mut story).await;
    });
    in_cluster(2, false, async |cluster| {
        let budgets = cluster.apply_then_freeze(UPDATE, json!({})).await;
        until_told(cluster, "DrainBlocked").await;
        story.happens(
            "In another cluster w-1 is being emptied, which a budget holds up, when its kubelet falls silent.",
        );
        cluster.world.lose_kubelet("w-1");
        until_told(cluster, "NodeUnreachable").await;
        story.status(cluster);
        story.why(cluster);
        story.nodes(cluster);
        story.event(cluster, "NodeUnreachable");
        story.happens(
            "The budget is taken away: no pod is evicted that nobody would see end. Then the kubelet is back.",
        );
        cluster.ask(async || budgets.delete("frozen", &DeleteParams::default()).await.map(drop)).await;
        cluster.pass(60).await;
        let pods = cluster.all::<Pod>("", "pods").into_iter();
        let leaving = pods.filter(|pod| pod.metadata.deletion_timestamp.is_some()).map(|pod| pod.name_any());
        assert_eq!(leaving.collect::<Vec<_>>(), Vec::<String>::new(), "evicted from a node that nobody hears of");
        cluster.world.restore_kubelet("w-1");
        ends_succeeded(cluster, &mut story).await;
    });
    story
}
