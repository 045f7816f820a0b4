//! Pods: grace, binding, eviction and budgets.

use super::{pod, send, server};
use crate::api::Server;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, EvictParams};
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";

/// A pod that runs and is ready.
async fn running(server: &Server, name: &str) {
    send(server, "POST", PODS, pod(name, "n1")).await;
    let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    send(server, "PATCH", &format!("{PODS}/{name}/status"), ready).await;
}

async fn budget(server: &Server, spec: Value) {
    let mut spec = spec;
    spec["selector"] = json!({"matchLabels": {"app": "web"}});
    let body = json!({"metadata": {"name": "web"}, "spec": spec});
    let (status, answer) = send(server, "POST", BUDGETS, body).await;
    assert_eq!(status, 201, "{answer}");
}

fn allowed(server: &Server) -> (i64, i64) {
    let budget = server.get("policy", "poddisruptionbudgets", "default", "web").unwrap();
    let status = &budget.value()["status"];
    (status["disruptionsAllowed"].as_i64().unwrap(), status["currentHealthy"].as_i64().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_pod_on_a_node_is_marked_first_and_removed_by_its_kubelet() {
    let server = server();
    running(&server, "a").await;
    let pods: Api<Pod> = Api::default_namespaced(server.client("drainer"));
    let marked = pods.delete("a", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert_eq!(marked.metadata.deletion_grace_period_seconds, Some(30));
    assert_eq!(marked.metadata.deletion_timestamp.unwrap().0.to_string(), "2026-11-21T12:00:30Z");
    pods.delete("a", &DeleteParams::default().grace_period(0)).await.unwrap();
    assert!(pods.get_opt("a").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_a_node_goes_at_once() {
    let server = server();
    let mut unscheduled = pod("a", "");
    unscheduled["spec"]["nodeName"].take();
    send(&server, "POST", PODS, unscheduled).await;
    send(&server, "DELETE", &format!("{PODS}/a"), Value::Null).await;
    assert!(server.list("", "pods").is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_eviction_that_a_budget_forbids_is_refused_with_429() {
    let server = server();
    running(&server, "a").await;
    running(&server, "b").await;
    budget(&server, json!({"minAvailable": 2})).await;
    let pods: Api<Pod> = Api::default_namespaced(server.client("drainer"));
    let refused = pods.evict("a", &EvictParams::default()).await.unwrap_err();
    let kube::Error::Api(status) = refused else { panic!("expected a status") };
    assert_eq!((status.code, status.reason.as_str()), (429, "TooManyRequests"));
    assert_eq!(status.message, "Cannot evict pod as it would violate the pod's disruption budget.");
    assert_eq!(
        status.details.unwrap().causes[0].message,
        "The disruption budget web needs 2 healthy pods and has 2 currently"
    );
    running(&server, "c").await;
    pods.evict("a", &EvictParams::default()).await.unwrap();
    // The one that is leaving no longer counts.
    assert_eq!(allowed(&server), (0, 2));
    pods.evict("b", &EvictParams::default()).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn budgets_count_by_percentage_of_what_the_controller_wants() {
    let server = server();
    let set = json!({
        "metadata": {"name": "web"},
        "spec": {"replicas": 4, "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}}},
    });
    let (_, set) = send(&server, "POST", "/apis/apps/v1/namespaces/default/replicasets", set).await;
    for name in ["a", "b", "c"] {
        let mut owned = pod(name, "n1");
        owned["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": set["metadata"]["uid"], "controller": true,
        }]);
        send(&server, "POST", PODS, owned).await;
        let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        send(&server, "PATCH", &format!("{PODS}/{name}/status"), ready).await;
    }
    budget(&server, json!({"maxUnavailable": "50%"})).await;
    assert_eq!(allowed(&server), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn pods_that_are_not_ready_can_be_evicted_while_the_budget_is_healthy() {
    let server = server();
    running(&server, "a").await;
    running(&server, "b").await;
    send(&server, "POST", PODS, pod("broken", "n1")).await;
    let unready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]}});
    send(&server, "PATCH", &format!("{PODS}/broken/status"), unready).await;
    budget(&server, json!({"minAvailable": 2})).await;
    let pods: Api<Pod> = Api::default_namespaced(server.client("drainer"));
    pods.evict("a", &EvictParams::default()).await.unwrap_err();
    pods.evict("broken", &EvictParams::default()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_binding_puts_a_pod_on_a_node_once() {
    let server = server();
    let mut unscheduled = pod("a", "");
    unscheduled["spec"]["nodeName"].take();
    send(&server, "POST", PODS, unscheduled).await;
    let binding = json!({"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n1"}});
    let uri = format!("{PODS}/a/binding");
    let (status, _) = send(&server, "POST", &uri, binding.clone()).await;
    assert_eq!(status, 201);
    let (status, _) = send(&server, "POST", &uri, binding).await;
    assert_eq!(status, 409);
    assert_eq!(server.get("", "pods", "default", "a").unwrap().value()["spec"]["nodeName"], "n1");
}
