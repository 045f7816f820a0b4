//! What the comparison with a real kube-apiserver found (tests/scenarios/conformance), kept small: one request or two each.

use super::{node, pod, send, send_as, server, server_with};
use crate::api::Options;
use crate::api::crd::Definitions;
use serde_json::{Value, json};

const OURS: &str = "/apis/cupcake.ricardomolendijk.com/v1";
const V1: &str = "cupcake.ricardomolendijk.com/v1";
const PODS: &str = "/api/v1/namespaces/default/pods";
const JSON_PATCH: &str = "application/json-patch+json";

fn with_definitions() -> crate::api::Server {
    let server = server();
    server.define(&Definitions::new(&cupcake_crds::definitions()));
    server
}

fn task(params: &Value) -> Value {
    json!({
        "apiVersion": V1, "kind": "NodeTask", "metadata": {"name": "w1"},
        "spec": {"nodeName": "w1", "nodeUid": "u1", "epoch": 0, "order": {
            "deadlineSeconds": 600, "epoch": 0, "targetVersion": "1.34.4",
            "key": {"runUid": "r", "vertex": "v", "attempt": 1},
            "prepare": [{"kind": "kubeadm-upgrade-node/v1", "name": "k", "params": params}],
        }},
    })
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_is_only_tried_deletes_nothing_wherever_it_says_so() {
    let server = server();
    send(&server, "POST", "/api/v1/nodes", node("n1")).await;
    let (status, _) = send(&server, "DELETE", "/api/v1/nodes/n1", json!({"dryRun": ["All"]})).await;
    assert_eq!(status, 200);
    let (status, _) = send(&server, "DELETE", "/api/v1/nodes/n1?dryRun=All", Value::Null).await;
    assert_eq!(status, 200);
    assert_eq!(send(&server, "GET", "/api/v1/nodes/n1", Value::Null).await.0, 200);
    send(&server, "POST", PODS, pod("p", "n1")).await;
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let (status, _) = send(&server, "POST", &format!("{PODS}/p/eviction?dryRun=All"), eviction).await;
    assert_eq!(status, 201);
    let (_, left) = send(&server, "GET", &format!("{PODS}/p"), Value::Null).await;
    assert_eq!(left["metadata"]["deletionTimestamp"], Value::Null, "{left}");
}

#[tokio::test(start_paused = true)]
async fn json_patches_test_for_null_what_is_absent_and_replace_it() {
    let server = with_definitions();
    send(&server, "POST", &format!("{OURS}/nodetasks"), task(&json!({}))).await;
    let uri = format!("{OURS}/nodetasks/w1");
    let patch = json!([
        {"op": "test", "path": "/spec/inventoryRequest", "value": null},
        {"op": "replace", "path": "/spec/inventoryRequest", "value": "to-1-34"},
    ]);
    let (status, patched) = send_as(&server, "PATCH", &uri, JSON_PATCH, patch.clone()).await;
    assert_eq!((status, patched["spec"]["inventoryRequest"].as_str()), (200, Some("to-1-34")), "{patched}");
    let (status, _) = send_as(&server, "PATCH", &uri, JSON_PATCH, patch).await;
    assert_eq!(status, 422, "now it is there");
}

#[tokio::test(start_paused = true)]
async fn merge_patches_drop_the_nulls_of_what_they_bring() {
    let server = with_definitions();
    send(&server, "POST", &format!("{OURS}/nodetasks"), task(&json!({"n": null}))).await;
    let uri = format!("{OURS}/nodetasks/w1");
    let patch = json!({"spec": {"order": task(&json!({"n": null}))["spec"]["order"]}});
    let (status, refused) = send(&server, "PATCH", &uri, patch).await;
    assert_eq!(status, 422, "the same patch is other work without its null: {refused}");
}

#[tokio::test(start_paused = true)]
async fn of_a_status_only_the_status_is_judged() {
    let server = with_definitions();
    send(&server, "POST", &format!("{OURS}/nodetasks"), task(&json!({}))).await;
    let patch = json!({"metadata": {"uid": "another"}, "spec": {"epoch": -1}, "status": {"epoch": -1}});
    let (status, refused) = send(&server, "PATCH", &format!("{OURS}/nodetasks/w1/status"), patch).await;
    assert_eq!(status, 422);
    let causes = json!([{
        "field": "status.epoch", "reason": "FieldValueInvalid",
        "message": "Invalid value: -1: epoch in body should be greater than or equal to 0",
    }]);
    assert_eq!(refused["details"]["causes"], causes);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_carries_the_warnings_that_were_due_before_it() {
    let server = with_definitions();
    let uri = format!("{OURS}/nodetasks?fieldValidation=Warn");
    let mut object = task(&json!({}));
    object["surprise"] = json!(1);
    for expected in [201, 409] {
        let body = bytes::Bytes::from(object.to_string());
        let request = http::Request::post(&uri).header("content-type", "application/json").body(body).unwrap();
        let response = server.handle("tester", request);
        assert_eq!(response.status(), expected);
        assert_eq!(response.headers()["warning"], "299 - \"unknown field \\\"surprise\\\"\"");
    }
}

#[tokio::test(start_paused = true)]
async fn bad_options_and_types_are_refused_before_anything_is_looked_up() {
    let server = with_definitions();
    let uri = format!("{OURS}/nodetasks/nobody?dryRun=Some&fieldValidation=Odd");
    let (status, refused) = send(&server, "PATCH", &uri, json!({})).await;
    assert_eq!((status, refused["details"]["causes"].as_array().map(Vec::len)), (422, Some(2)), "{refused}");
    let uri = format!("{OURS}/nodetasks/nobody");
    assert_eq!(send_as(&server, "PATCH", &uri, "text/plain", json!({})).await.0, 415);
    let (status, refused) =
        send(&server, "POST", &format!("{OURS}/nodetasks"), json!({"metadata": {"name": "a"}})).await;
    assert_eq!(status, 400, "a custom object says what it is: {refused}");
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_goes_before_or_without_its_dependents_is_marked_first() {
    for (policy, finalizer) in [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")] {
        let server = server_with(Options { controllers: false, ..Options::default() });
        send(&server, "POST", "/api/v1/nodes", node("n1")).await;
        let (_, marked) = send(&server, "DELETE", "/api/v1/nodes/n1", json!({"propagationPolicy": policy})).await;
        assert_eq!(marked["metadata"]["finalizers"], json!([finalizer]));
        let (_, gone) = send(&server, "DELETE", "/api/v1/nodes/n1", json!({"propagationPolicy": "Background"})).await;
        assert_eq!(gone["status"], "Success", "{gone}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_eviction_notes_its_reason_on_the_pod_and_spends_its_budget() {
    let server = server_with(Options { controllers: false, ..Options::default() });
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget =
        json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    send(&server, "POST", budgets, budget).await;
    send(&server, "POST", PODS, pod("p", "n1")).await;
    let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    send(&server, "PATCH", &format!("{PODS}/p/status"), ready).await;
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let (status, refused) = send(&server, "POST", &format!("{PODS}/p/eviction"), eviction.clone()).await;
    assert_eq!(
        (status, refused["details"]["retryAfterSeconds"].as_u64()),
        (429, Some(10)),
        "nobody counted yet: {refused}"
    );
    let counted =
        json!({"status": {"disruptionsAllowed": 1, "observedGeneration": 1, "currentHealthy": 2, "desiredHealthy": 1}});
    send(&server, "PATCH", &format!("{budgets}/b/status"), counted).await;
    let (status, answer) = send(&server, "POST", &format!("{PODS}/p/eviction"), eviction).await;
    assert_eq!(status, 201, "{answer}");
    let (_, evicted) = send(&server, "GET", &format!("{PODS}/p"), Value::Null).await;
    assert_eq!(evicted["status"]["conditions"][1]["reason"], "EvictionByEvictionAPI", "{evicted}");
    let (_, spent) = send(&server, "GET", &format!("{budgets}/b"), Value::Null).await;
    assert_eq!(
        (&spent["status"]["disruptionsAllowed"], spent["status"]["disruptedPods"].get("p").is_some()),
        (&json!(0), true)
    );
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_ends_at_once_is_seen_ending() {
    let server = server();
    send(&server, "POST", PODS, pod("p", "n1")).await;
    let (_, last) = send(&server, "DELETE", &format!("{PODS}/p"), json!({"gracePeriodSeconds": 0})).await;
    assert_eq!(
        (&last["metadata"]["deletionGracePeriodSeconds"], &last["metadata"]["generation"]),
        (&json!(0), &json!(2))
    );
}

#[tokio::test(start_paused = true)]
async fn items_of_built_in_lists_do_not_say_what_they_are_and_custom_ones_do() {
    let server = with_definitions();
    send(&server, "POST", "/api/v1/nodes", node("n1")).await;
    send(&server, "POST", &format!("{OURS}/nodetasks"), task(&json!({}))).await;
    let (_, nodes) = send(&server, "GET", "/api/v1/nodes", Value::Null).await;
    assert_eq!((&nodes["items"][0]["kind"], &nodes["items"][0]["metadata"]["name"]), (&Value::Null, &json!("n1")));
    let (_, tasks) = send(&server, "GET", &format!("{OURS}/nodetasks"), Value::Null).await;
    assert_eq!((&tasks["items"][0]["kind"], &tasks["metadata"]["continue"]), (&json!("NodeTask"), &json!("")));
}

#[tokio::test(start_paused = true)]
async fn strategic_and_applied_lists_take_the_order_of_who_writes() {
    let server = server();
    let condition = |kind: &str| json!({"type": kind, "status": "True"});
    let mut object = node("n1");
    object["status"] = json!({"conditions": [condition("Ready"), condition("Odd")]});
    send(&server, "POST", "/api/v1/nodes", object).await;
    let patch = json!({"status": {"conditions": [condition("MemoryPressure"), condition("Ready")]}});
    let kind = "application/strategic-merge-patch+json";
    let (_, patched) = send_as(&server, "PATCH", "/api/v1/nodes/n1/status", kind, patch).await;
    let types: Vec<&Value> = patched["status"]["conditions"].as_array().unwrap().iter().map(|c| &c["type"]).collect();
    assert_eq!(types, ["MemoryPressure", "Ready", "Odd"]);
}

#[tokio::test(start_paused = true)]
async fn leases_and_budgets_obey_the_rules_of_their_numbers() {
    let server = server();
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let lease = json!({"metadata": {"name": "l"}, "spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}});
    let (status, refused) = send(&server, "POST", leases, lease).await;
    assert_eq!((status, refused["details"]["causes"].as_array().map(Vec::len)), (422, Some(2)), "{refused}");
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let both = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": "1", "maxUnavailable": 1}});
    let (status, refused) = send(&server, "POST", budgets, both).await;
    assert_eq!((status, refused["details"]["causes"].as_array().map(Vec::len)), (422, Some(2)), "{refused}");
}
