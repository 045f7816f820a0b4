//! Create, read, replace, patch and delete, with the answers of the real server.

use super::{node, send, send_as, server};
use crate::api::{Fault, Faults, ReplyFault, RequestInfo, RequestRecord};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Value, json};
use std::sync::Arc;

#[tokio::test(start_paused = true)]
async fn kube_creates_reads_replaces_and_deletes_objects() {
    let server = server();
    let nodes: Api<Node> = Api::all(server.client("operator"));
    let created = nodes.create(&PostParams::default(), &serde_json::from_value(node("w1")).unwrap()).await.unwrap();
    assert_eq!(created.metadata.uid.as_ref().unwrap().len(), 36);
    assert_eq!(created.metadata.creation_timestamp.as_ref().unwrap().0.to_string(), "2026-11-21T12:00:00Z");
    let mut changed = created.clone();
    changed.spec.get_or_insert_default().unschedulable = Some(true);
    let replaced = nodes.replace("w1", &PostParams::default(), &changed).await.unwrap();
    assert_ne!(replaced.metadata.resource_version, created.metadata.resource_version);

    let stale = nodes.replace("w1", &PostParams::default(), &created).await.unwrap_err();
    let kube::Error::Api(status) = stale else { panic!("expected a status") };
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    assert_eq!(
        status.message,
        "Operation cannot be fulfilled on nodes \"w1\": the object has been modified; please apply your changes to the latest version and try again"
    );

    nodes.delete("w1", &DeleteParams::default()).await.unwrap();
    assert!(nodes.get_opt("w1").await.unwrap().is_none());
    assert_eq!(server.counts().writes_of("operator", |resource| resource == "nodes"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_changes_nothing_makes_no_revision() {
    let server = server();
    send(&server, "POST", "/api/v1/nodes", node("w1")).await;
    let before = server.revision();
    let patch = json!({"metadata": {"labels": {"a": "b"}}});
    send(&server, "PATCH", "/api/v1/nodes/w1", patch.clone()).await;
    send(&server, "PATCH", "/api/v1/nodes/w1", patch).await;
    assert_eq!(server.revision(), before + 1);
    assert_eq!(server.counts().writes_of("tester", |_| true), 2);
}

#[tokio::test(start_paused = true)]
async fn refusals_carry_the_words_of_the_real_server() {
    let server = server();
    send(&server, "POST", "/api/v1/nodes", node("w1")).await;
    for (method, uri, body, code, reason, message) in [
        ("GET", "/api/v1/nodes/w2", Value::Null, 404, "NotFound", "nodes \"w2\" not found"),
        (
            "GET",
            "/apis/coordination.k8s.io/v1/namespaces/default/leases/x",
            Value::Null,
            404,
            "NotFound",
            "leases.coordination.k8s.io \"x\" not found",
        ),
        ("POST", "/api/v1/nodes", node("w1"), 409, "AlreadyExists", "nodes \"w1\" already exists"),
        (
            "POST",
            "/api/v1/namespaces/nowhere/configmaps",
            json!({"metadata": {"name": "x"}}),
            404,
            "NotFound",
            "namespaces \"nowhere\" not found",
        ),
        (
            "PUT",
            "/api/v1/nodes/w1",
            node("w2"),
            400,
            "BadRequest",
            "the name of the object (w2) does not match the name on the URL (w1)",
        ),
        (
            "GET",
            "/api/v1/nodes?fieldSelector=spec.foo%3Dx",
            Value::Null,
            400,
            "BadRequest",
            "field label not supported: spec.foo",
        ),
    ] {
        let (status, answer) = send(&server, method, uri, body).await;
        assert_eq!(status, code, "{method} {uri}: {answer}");
        assert_eq!(answer["reason"], reason, "{method} {uri}");
        assert_eq!(answer["message"], message, "{method} {uri}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_test_of_a_json_patch_is_unprocessable_and_changes_nothing() {
    let server = server();
    send(&server, "POST", "/api/v1/nodes", node("w1")).await;
    let revision = server.revision();
    let patch = json!([
        {"op": "test", "path": "/metadata/name", "value": "w2"},
        {"op": "add", "path": "/spec/unschedulable", "value": true},
    ]);
    let kind = "application/json-patch+json";
    let (status, answer) = send_as(&server, "PATCH", "/api/v1/nodes/w1", kind, patch).await;
    assert_eq!((status, answer["reason"].as_str()), (422, Some("Invalid")));
    assert_eq!(server.revision(), revision);
}

#[tokio::test(start_paused = true)]
async fn spec_and_status_are_written_apart() {
    let server = server();
    send(&server, "POST", "/api/v1/nodes", node("w1")).await;
    let both = json!({"spec": {"unschedulable": true}, "status": {"phase": "Running"}});
    let (_, through_status) = send(&server, "PATCH", "/api/v1/nodes/w1/status", both.clone()).await;
    assert_eq!(through_status["spec"]["unschedulable"], Value::Null);
    assert_eq!(through_status["status"]["phase"], "Running");
    let other = json!({"spec": {"unschedulable": true}, "status": {"phase": "Pending"}});
    let (_, through_main) = send(&server, "PATCH", "/api/v1/nodes/w1", other).await;
    assert_eq!(through_main["spec"]["unschedulable"], true);
    assert_eq!(through_main["status"]["phase"], "Running");
}

#[tokio::test(start_paused = true)]
async fn preconditions_guard_deletion() {
    let server = server();
    let (_, created) = send(&server, "POST", "/api/v1/nodes", node("w1")).await;
    let nodes: Api<Node> = Api::all(server.client("operator"));
    let mut options = DeleteParams {
        preconditions: Some(Preconditions { uid: Some("other".to_owned()), resource_version: None }),
        ..DeleteParams::default()
    };
    let refused = nodes.delete("w1", &options).await.unwrap_err();
    assert!(refused.to_string().contains("the UID in the precondition (other)"), "{refused}");
    options.preconditions = Some(Preconditions {
        uid: created["metadata"]["uid"].as_str().map(str::to_owned),
        resource_version: created["metadata"]["resourceVersion"].as_str().map(str::to_owned),
    });
    nodes.delete("w1", &options).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn finalizers_hold_an_object_until_they_are_gone() {
    let server = server();
    let mut held = node("w1");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    send(&server, "POST", "/api/v1/nodes", held).await;
    let (status, marked) = send(&server, "DELETE", "/api/v1/nodes/w1", Value::Null).await;
    assert_eq!(status, 200);
    assert_eq!(marked["metadata"]["deletionTimestamp"], "2026-11-21T12:00:00Z");
    let more = json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}});
    let (status, _) = send(&server, "PATCH", "/api/v1/nodes/w1", more).await;
    assert_eq!(status, 422);
    let none = json!({"metadata": {"finalizers": null}});
    let (status, _) = send(&server, "PATCH", "/api/v1/nodes/w1", none).await;
    assert_eq!(status, 200);
    assert!(server.get("", "nodes", "", "w1").is_none());
}

#[tokio::test(start_paused = true)]
async fn dependents_follow_their_owner() {
    let server = server();
    let (_, owner) = send(&server, "POST", "/api/v1/nodes", node("w1")).await;
    let dependent = |name: &str| {
        json!({"metadata": {"name": name, "ownerReferences": [
            {"apiVersion": "v1", "kind": "Node", "name": "w1", "uid": owner["metadata"]["uid"]},
        ]}})
    };
    let maps = "/api/v1/namespaces/default/configmaps";
    send(&server, "POST", maps, dependent("a")).await;
    send(&server, "POST", maps, dependent("b")).await;
    send(&server, "DELETE", "/api/v1/nodes/w1", Value::Null).await;
    assert!(server.list("", "configmaps").is_empty());
    // An owner that is already gone takes late-comers with it.
    send(&server, "POST", maps, dependent("c")).await;
    assert!(server.list("", "configmaps").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_foreground_deletion_waits_for_dependents() {
    let server = server();
    let (_, owner) = send(&server, "POST", "/api/v1/nodes", node("w1")).await;
    let dependent = json!({"metadata": {"name": "a", "finalizers": ["example.com/hold"], "ownerReferences": [
        {"apiVersion": "v1", "kind": "Node", "name": "w1", "uid": owner["metadata"]["uid"]},
    ]}});
    let maps = "/api/v1/namespaces/default/configmaps";
    send(&server, "POST", maps, dependent).await;
    send(&server, "DELETE", "/api/v1/nodes/w1", json!({"propagationPolicy": "Foreground"})).await;
    assert!(server.get("", "nodes", "", "w1").is_some());
    let free = json!({"metadata": {"finalizers": []}});
    send(&server, "PATCH", &format!("{maps}/a"), free).await;
    assert!(server.get("", "nodes", "", "w1").is_none());
}

#[tokio::test(start_paused = true)]
async fn lists_come_in_pages_that_agree_with_each_other() {
    let server = server();
    for at in 0..5 {
        send(&server, "POST", "/api/v1/nodes", node(&format!("w{at}"))).await;
    }
    let (_, first) = send(&server, "GET", "/api/v1/nodes?limit=2", Value::Null).await;
    assert_eq!(first["items"].as_array().unwrap().len(), 2);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    // A change in between does not show in the later pages.
    send(&server, "DELETE", "/api/v1/nodes/w3", Value::Null).await;
    let next = first["metadata"]["continue"].as_str().unwrap();
    let uri = format!("/api/v1/nodes?limit=10&continue={next}");
    let (_, second) = send(&server, "GET", &uri, Value::Null).await;
    let names: Vec<&str> =
        second["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["w2", "w3", "w4"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    server.compact();
    let (status, gone) = send(&server, "GET", &uri, Value::Null).await;
    assert_eq!((status, gone["reason"].as_str()), (410, Some("Expired")));
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_answers_and_stores_nothing() {
    let server = server();
    let before = server.snapshot();
    let (status, answer) = send(&server, "POST", "/api/v1/nodes?dryRun=All", node("w1")).await;
    assert_eq!((status, answer["metadata"]["name"].as_str()), (201, Some("w1")));
    assert_eq!(server.snapshot(), before);
    assert_eq!(server.counts().writes_of("tester", |_| true), 0);
}

#[tokio::test(start_paused = true)]
async fn leases_need_their_revision_for_a_replacement() {
    let server = server();
    let leases: Api<Lease> = Api::namespaced(server.client("operator"), "kube-system");
    let lease: Lease =
        serde_json::from_value(json!({"metadata": {"name": "x"}, "spec": {"holderIdentity": "a"}})).unwrap();
    leases.create(&PostParams::default(), &lease).await.unwrap();
    let refused = leases.replace("x", &PostParams::default(), &lease).await.unwrap_err();
    assert!(refused.to_string().contains("must be specified for an update"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn updates_are_recorded_in_managed_fields_by_manager() {
    let server = server();
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client("operator"));
    let map = json!({"metadata": {"name": "x"}, "data": {"a": "1", "b": "1"}});
    let by = |manager: &str| PostParams { field_manager: Some(manager.to_owned()), ..PostParams::default() };
    maps.create(&by("first"), &serde_json::from_value(map).unwrap()).await.unwrap();
    let patch = Patch::Merge(json!({"data": {"b": "2"}}));
    let patched = maps
        .patch("x", &PatchParams { field_manager: Some("second".to_owned()), ..PatchParams::default() }, &patch)
        .await
        .unwrap();
    let managed = serde_json::to_value(patched.metadata.managed_fields.unwrap()).unwrap();
    assert_eq!(managed[0]["manager"], "first");
    assert_eq!(managed[0]["fieldsV1"], json!({"f:data": {".": {}, "f:a": {}}}));
    assert_eq!(managed[1]["manager"], "second");
    assert_eq!(managed[1]["fieldsV1"], json!({"f:data": {"f:b": {}}}));
}

#[tokio::test(start_paused = true)]
async fn collections_are_deleted_by_selector() {
    let server = server();
    for (name, app) in [("a", "web"), ("b", "db"), ("c", "web")] {
        let map = json!({"metadata": {"name": name, "labels": {"app": app}}});
        send(&server, "POST", "/api/v1/namespaces/default/configmaps", map).await;
    }
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client("operator"));
    maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("app=web")).await.unwrap();
    let left: Vec<String> = server.list("", "configmaps").iter().map(|o| o.name().to_owned()).collect();
    assert_eq!(left, ["b"]);
}

#[tokio::test(start_paused = true)]
async fn deleting_a_namespace_takes_all_it_holds() {
    let server = server();
    send(&server, "POST", "/api/v1/namespaces", json!({"metadata": {"name": "team"}})).await;
    let map = json!({"metadata": {"name": "a", "finalizers": ["example.com/hold"]}});
    send(&server, "POST", "/api/v1/namespaces/team/configmaps", map).await;
    let (_, dying) = send(&server, "DELETE", "/api/v1/namespaces/team", Value::Null).await;
    assert_eq!(dying["status"]["phase"], "Terminating");
    let (status, refused) =
        send(&server, "POST", "/api/v1/namespaces/team/configmaps", json!({"metadata": {"name": "b"}})).await;
    assert_eq!(status, 403, "{refused}");
    let free = json!({"metadata": {"finalizers": null}});
    send(&server, "PATCH", "/api/v1/namespaces/team/configmaps/a", free).await;
    assert!(server.get("", "namespaces", "", "team").is_none());
}

struct LosesReplies;

impl Faults for LosesReplies {
    fn before(&self, request: &RequestInfo) -> Fault {
        if request.path.ends_with("/refused") { Fault::Refuse } else { Fault::None }
    }

    fn after(&self, record: &RequestRecord<'_>) -> ReplyFault {
        if record.committed { ReplyFault::Drop } else { ReplyFault::None }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_leaves_the_write_in_place() {
    let server = server();
    server.inject(Arc::new(LosesReplies));
    let nodes: Api<Node> = Api::all(server.client("operator"));
    let node = serde_json::from_value(node("w1")).unwrap();
    nodes.create(&PostParams::default(), &node).await.unwrap_err();
    assert!(nodes.get_opt("w1").await.unwrap().is_some());
    nodes.get("refused").await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn every_answer_carries_the_second_in_which_it_was_made_whether_it_is_late_or_a_refusal() {
    struct Late;
    impl Faults for Late {
        fn before(&self, _request: &RequestInfo) -> Fault {
            Fault::Delay(std::time::Duration::from_millis(1_700))
        }
        fn after(&self, _record: &RequestRecord<'_>) -> ReplyFault {
            ReplyFault::Delay(std::time::Duration::from_secs(20))
        }
    }
    let server = server();
    let date = async |path: &str| {
        let request = http::Request::get(path).body(bytes::Bytes::new()).unwrap();
        let answer = server.serve("tester", request).await.unwrap();
        answer.headers()["date"].to_str().unwrap().to_owned()
    };
    assert_eq!(date("/version").await, "Sat, 21 Nov 2026 12:00:00 GMT");
    assert_eq!(date("/api/v1/nodes/absent").await, "Sat, 21 Nov 2026 12:00:00 GMT");
    server.inject(Arc::new(Late));
    assert_eq!(date("/version").await, "Sat, 21 Nov 2026 12:00:01 GMT", "not the second in which it arrives");
    assert_eq!(date("/version").await, "Sat, 21 Nov 2026 12:00:23 GMT");
}
