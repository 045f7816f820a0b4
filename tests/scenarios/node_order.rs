//! Workers in an order of their own, and those that take part in nothing.

use crate::cluster::{Cluster, UPDATE, in_cluster};
use cupcake_crds::OPT_OUT_LABEL;
use cupcake_crds::values::Phase;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

async fn label(cluster: &Cluster, node: &str, labels: Value) {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
    cluster.ask(async || nodes.patch(node, &PatchParams::default(), &patch).await.map(drop)).await;
}

#[test]
fn zones_move_one_after_the_other_and_a_worker_that_opted_out_stays() {
    in_cluster(5, false, async |cluster| {
        for (node, zone) in [("w-1", "a"), ("w-2", "b"), ("w-3", "a"), ("w-4", "b")] {
            label(cluster, node, json!({"zone": zone})).await;
        }
        label(cluster, "w-5", json!({OPT_OUT_LABEL: "true"})).await;
        let order = json!({"byLabel": "zone", "values": ["b"]});
        cluster.apply(UPDATE, json!({"concurrency": 4, "nodeOrder": order})).await;
        cluster
            .eventually("zone b has moved", async || cluster.kubelets(&["w-2", "w-4"]) == ["1.34.4", "1.34.4"])
            .await;
        assert_eq!(cluster.kubelets(&["w-1", "w-3"]), ["1.33.4", "1.33.4"], "zone a waits for it");
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        assert_eq!(cluster.kubelets(&["w-1", "w-3", "w-5"]), ["1.34.4", "1.34.4", "1.33.4"]);
        assert!(cluster.cordoned().is_empty());
        let update = cluster.update(UPDATE).unwrap();
        let checks = update.status.unwrap().preflight_results.unwrap().checks;
        assert!(
            checks
                .iter()
                .filter_map(|check| check.message.as_deref())
                .any(|told| told.contains("w-5") && told.contains("opt-out")),
            "{checks:?}"
        );
        // Where its label goes it is a worker like others.
        label(cluster, "w-5", json!({OPT_OUT_LABEL: null})).await;
        cluster.apply("the-rest", json!({})).await;
        let (phase, message) = cluster.at_rest("the-rest").await;
        assert_eq!((phase, cluster.kubelet("w-5").as_str()), (Phase::Succeeded, "1.34.4"), "{message}");
    });
}
