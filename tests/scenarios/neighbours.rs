//! What else lives in a cluster and changes nodes: found through the API, refused or told by name.

use crate::cluster::{UPDATE, in_cluster};
use cupcake_crds::values::Phase;
use cupcake_operator::adapters::snapshot::gather_all;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

fn workload(name: &str) -> Value {
    let labels = json!({"app": name});
    let container = json!({"name": "main", "image": format!("registry.example/{name}:1")});
    json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"nodeSelector": {"none": "here"}, "containers": [container]}},
        },
    })
}

#[test]
fn programs_that_change_nodes_too_are_told_and_machines_of_cluster_api_are_refused_by_name() {
    in_cluster(2, false, async |cluster| {
        cluster.pass(60).await;
        let sets: Api<DaemonSet> = Api::namespaced(cluster.client.clone(), "kube-system");
        let mut kured = workload("kured");
        kured["spec"].as_object_mut().unwrap().remove("replicas");
        let kured: DaemonSet = serde_json::from_value(kured).unwrap();
        cluster.ask(async || sets.create(&PostParams::default(), &kured).await.map(drop)).await;
        let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), "kube-system");
        for name in ["cluster-autoscaler", "shop-api"] {
            let deployment: Deployment = serde_json::from_value(workload(name)).unwrap();
            cluster.ask(async || deployments.create(&PostParams::default(), &deployment).await.map(drop)).await;
        }
        let nodes: Api<Node> = Api::all(cluster.client.clone());
        let annotate = async |machine: Value, namespace: Value| {
            let annotations =
                json!({"cluster.x-k8s.io/machine": machine, "cluster.x-k8s.io/cluster-namespace": namespace});
            let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
            cluster.ask(async || nodes.patch("w-2", &PatchParams::default(), &patch).await.map(drop)).await;
        };
        annotate(json!("blue-7"), json!("fleet")).await;
        let snapshot = gather_all(&cluster.client, cluster.world.now()).await.unwrap();
        let mut found = snapshot.surroundings.other_updaters;
        found.sort();
        assert_eq!(found, ["DaemonSet kube-system/kured", "Deployment kube-system/cluster-autoscaler"]);
        assert_eq!(snapshot.nodes["w-2"].managed_by.as_deref(), Some("Machine fleet/blue-7 of Cluster API"));
        assert_eq!(snapshot.nodes["w-1"].managed_by, None);

        cluster.apply(UPDATE, json!({})).await;
        let told = "w-2 (Machine fleet/blue-7 of Cluster API)";
        cluster.eventually("it is refused by name", async || cluster.phase(UPDATE).1.contains(told)).await;
        assert_eq!(cluster.phase(UPDATE).0, Phase::Pending);
        annotate(Value::Null, Value::Null).await;
        cluster.eventually("it begins", async || cluster.phase(UPDATE).0 == Phase::InProgress).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        let checks = cluster.update(UPDATE).unwrap().status.unwrap().preflight_results.unwrap().checks;
        let neighbours = checks.iter().find(|check| check.name == "Neighbours").unwrap();
        assert!(neighbours.message.as_ref().unwrap().contains("kube-system/kured"), "{neighbours:?}");
    });
}
