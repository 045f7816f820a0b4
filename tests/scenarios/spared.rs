//! What a drain leaves alone: pods of the operator, for whoever leads must not evict itself, and a pod that is another one by now.

use crate::cluster::{UPDATE, in_cluster};
use cupcake_crds::values::Phase;
use cupcake_engine::clock::{Clock, Timestamp};
use cupcake_operator::adapters::node_ops::KubeNodeOps;
use cupcake_operator::adapters::views::pod_view;
use cupcake_sandbox::api::Server;
use cupcake_steps::ports::cluster::{Eviction, NodeOps};
use cupcake_tests::TokioClock;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::{Value, json};
use std::sync::Arc;

#[test]
fn a_drain_leaves_the_operators_own_pods_and_evicts_those_that_only_look_like_them() {
    in_cluster(2, true, async |cluster| {
        cluster.pass(5).await;
        let create = async |namespace: &str, name: &str, labels: Value| {
            let pod = json!({
                "metadata": {"name": name, "labels": labels},
                "spec": {"nodeName": "w-1", "containers": [{"name": "c", "image": "i"}]},
            });
            let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
            api.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap()
        };
        let label = || json!({"app.kubernetes.io/name": "cupcake-operator"});
        let own = create("kube-system", "cupcake-operator-0", label()).await;
        create("default", "cupcake-operator-0", label()).await;
        create("kube-system", "neighbour", json!({"app.kubernetes.io/name": "other"})).await;
        // All three have no controller: only consent lets them go.
        cluster.apply(UPDATE, json!({"drain": {"deleteUnmanagedPods": true}})).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        let pod = |namespace: &str, name: &str| cluster.world.server().get("", "pods", namespace, name);
        let kept = pod("kube-system", "cupcake-operator-0").expect("the operator's pod is there");
        assert_eq!(Some(kept.uid()), own.metadata.uid.as_deref(), "the same pod");
        assert!(kept.value()["metadata"]["deletionTimestamp"].is_null(), "and nobody asked it to go");
        assert!(pod("default", "cupcake-operator-0").is_none(), "a label alone spares nobody");
        assert!(pod("kube-system", "neighbour").is_none(), "nor does the namespace");
        assert_eq!(cluster.kubelet("w-1"), "1.34.4", "the node moved under it");
    });
}

#[tokio::test(start_paused = true)]
async fn an_eviction_that_comes_late_spares_the_pod_that_has_the_name_by_then() {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(Timestamp::from_timestamp(1_790_000_000, 0).unwrap()));
    let server = Server::new(clock, 7);
    let client = server.client("operator");
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let pod = json!({"metadata": {"name": "web-0"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let create =
        async || pods.create(&PostParams::default(), &serde_json::from_value(pod.clone()).unwrap()).await.unwrap();
    let seen = pod_view(&create().await, None);
    pods.delete("web-0", &DeleteParams::default().grace_period(0)).await.unwrap();
    let successor = create().await;
    let nodes = KubeNodeOps::new(client, "kube-system".to_owned());
    assert_eq!(nodes.evict(&seen, None).await.unwrap(), Eviction::Gone, "the pod that was seen");
    let there = pods.get("web-0").await.unwrap();
    assert_eq!((there.metadata.uid, there.metadata.deletion_timestamp), (successor.metadata.uid.clone(), None));
    assert_eq!(nodes.evict(&pod_view(&successor, None), None).await.unwrap(), Eviction::Accepted);
    assert!(pods.get_opt("web-0").await.unwrap().is_none_or(|pod| pod.metadata.deletion_timestamp.is_some()));
}
