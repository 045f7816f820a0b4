//! Server-side apply: ownership by field, conflicts, force, and fields that are no longer applied.

use super::custom::with_widgets;
use super::{send, server};
use crate::api::Server;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

fn map(data: Value) -> Patch<Value> {
    Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data}))
}

fn maps(server: &Server) -> Api<ConfigMap> {
    Api::default_namespaced(server.client("operator"))
}

#[tokio::test(start_paused = true)]
async fn apply_creates_and_owns_what_it_sets() {
    let server = server();
    let applied = maps(&server).patch("x", &PatchParams::apply("one"), &map(json!({"a": "1"}))).await.unwrap();
    let managed = serde_json::to_value(applied.metadata.managed_fields.unwrap()).unwrap();
    assert_eq!(managed.as_array().unwrap().len(), 1);
    assert_eq!((managed[0]["manager"].as_str(), managed[0]["operation"].as_str()), (Some("one"), Some("Apply")));
    assert_eq!(managed[0]["fieldsV1"], json!({"f:data": {"f:a": {}}}));
    // Applying the same again changes nothing.
    let revision = server.revision();
    maps(&server).patch("x", &PatchParams::apply("one"), &map(json!({"a": "1"}))).await.unwrap();
    assert_eq!(server.revision(), revision);
}

#[tokio::test(start_paused = true)]
async fn fields_of_another_manager_conflict_unless_forced() {
    let server = server();
    let maps = maps(&server);
    maps.patch("x", &PatchParams::apply("one"), &map(json!({"a": "1", "b": "1"}))).await.unwrap();
    // The same value is shared, a different one is a conflict.
    maps.patch("x", &PatchParams::apply("two"), &map(json!({"a": "1"}))).await.unwrap();
    let refused = maps.patch("x", &PatchParams::apply("two"), &map(json!({"a": "2"}))).await.unwrap_err();
    let kube::Error::Api(status) = refused else { panic!("expected a status") };
    assert_eq!(status.code, 409);
    assert_eq!(status.message, "Apply failed with 1 conflict: conflict with \"one\": .data.a");
    let forced = PatchParams::apply("two").force();
    let taken = maps.patch("x", &forced, &map(json!({"a": "2"}))).await.unwrap();
    let managed = serde_json::to_value(taken.metadata.managed_fields.unwrap()).unwrap();
    assert_eq!(managed[0]["fieldsV1"], json!({"f:data": {"f:b": {}}}));
    assert_eq!(managed[1]["fieldsV1"], json!({"f:data": {"f:a": {}}}));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_longer_applied_goes_unless_somebody_else_owns_it() {
    let server = server();
    let maps = maps(&server);
    maps.patch("x", &PatchParams::apply("one"), &map(json!({"a": "1", "b": "1"}))).await.unwrap();
    maps.patch("x", &PatchParams::apply("two"), &map(json!({"b": "1"}))).await.unwrap();
    let left = maps.patch("x", &PatchParams::apply("one"), &map(json!({}))).await.unwrap();
    let data = left.data.unwrap();
    assert_eq!(data.keys().collect::<Vec<_>>(), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn keyed_lists_are_merged_item_by_item() {
    let server = with_widgets().await;
    let uri = "/apis/test.example/v1/namespaces/default/widgets/w";
    let apply = async |manager: &str, nodes: Value| {
        let body = json!({
            "apiVersion": "test.example/v1", "kind": "Widget", "metadata": {"name": "w"},
            "spec": {"version": "v1.1", "nodes": nodes},
        });
        let uri = format!("{uri}?fieldManager={manager}");
        super::send_as(&server, "PATCH", &uri, "application/apply-patch+yaml", body).await
    };
    apply("one", json!([{"name": "a", "weight": 1}])).await;
    let (status, both) = apply("two", json!([{"name": "b", "weight": 2}])).await;
    assert_eq!(status, 200);
    assert_eq!(both["spec"]["nodes"], json!([{"name": "a", "weight": 1}, {"name": "b", "weight": 2}]));
    let (_, one_left) = apply("one", json!([])).await;
    assert_eq!(one_left["spec"]["nodes"], json!([{"name": "b", "weight": 2}]));
}

#[tokio::test(start_paused = true)]
async fn an_update_takes_fields_over_and_apply_then_conflicts() {
    let server = server();
    let maps = maps(&server);
    maps.patch("x", &PatchParams::apply("one"), &map(json!({"a": "1"}))).await.unwrap();
    let uri = "/api/v1/namespaces/default/configmaps/x?fieldManager=hand";
    send(&server, "PATCH", uri, json!({"data": {"a": "2"}})).await;
    let refused = maps.patch("x", &PatchParams::apply("one"), &map(json!({"a": "1"}))).await.unwrap_err();
    assert!(refused.to_string().contains("conflict with \"hand\" using v1: .data.a"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn the_status_is_applied_apart() {
    let server = with_widgets().await;
    let uri = "/apis/test.example/v1/namespaces/default/widgets";
    let spec = json!({"apiVersion": "test.example/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"version": "v1.1"}});
    send(&server, "POST", uri, spec).await;
    let body = json!({
        "apiVersion": "test.example/v1", "kind": "Widget", "metadata": {"name": "w"},
        "spec": {"version": "v1.9"}, "status": {"phase": "Up"},
    });
    let uri = format!("{uri}/w/status?fieldManager=one");
    let (status, answer) = super::send_as(&server, "PATCH", &uri, "application/apply-patch+yaml", body).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!((answer["spec"]["version"].as_str(), answer["status"]["phase"].as_str()), (Some("v1.1"), Some("Up")));
    let managed = answer["metadata"]["managedFields"].as_array().unwrap();
    let mine = managed.iter().find(|entry| entry["manager"] == "one").unwrap();
    assert_eq!(
        (mine["subresource"].as_str(), &mine["fieldsV1"]),
        (Some("status"), &json!({"f:status": {"f:phase": {}}}))
    );
}
