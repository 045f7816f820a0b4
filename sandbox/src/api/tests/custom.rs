//! Custom resources: definitions, schemas, CEL, strictness, columns, discovery; with the six kinds of this project.

use super::{Server, send, send_as, server};
use crate::api::Definitions;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

const GROUP: &str = "/apis/cupcake.ricardomolendijk.com/v1";
const V1: &str = "cupcake.ricardomolendijk.com/v1";

/// Defines the six kinds.
pub(super) async fn define(server: &Server) {
    let definitions: Api<CustomResourceDefinition> = Api::all(server.client("installer"));
    for definition in cupcake_crds::definitions() {
        definitions.create(&PostParams::default(), &definition).await.unwrap();
    }
}

fn widgets() -> Value {
    let columns = json!([
        {"name": "Mode", "type": "string", "jsonPath": ".spec.mode"},
        {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]);
    let schema = json!({"type": "object", "properties": {
        "spec": {
            "type": "object",
            "required": ["version"],
            "x-kubernetes-validations": [
                {"rule": "self.version == oldSelf.version", "message": "version is immutable"},
                {"rule": "!has(self.count) || self.count < 50", "message": "count too high"},
                {"rule": "oldSelf.hasValue() || self.version.startsWith('v1')", "message": "must start with v1", "optionalOldSelf": true},
            ],
            "properties": {
                "version": {"type": "string", "pattern": "^v[0-9]+\\.[0-9]+$", "maxLength": 10},
                "mode": {"type": "string", "enum": ["Fast", "Slow"], "default": "Slow"},
                "count": {"type": "integer", "minimum": 1, "maximum": 100},
                "port": {"x-kubernetes-int-or-string": true},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "tags": {"type": "array", "x-kubernetes-list-type": "set", "maxItems": 3, "items": {"type": "string"}},
                "nodes": {
                    "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                    "items": {
                        "type": "object", "required": ["name"],
                        "x-kubernetes-validations": [
                            {"rule": "self.weight >= oldSelf.weight", "messageExpression": "'weight of ' + self.name + ' may not sink'"},
                        ],
                        "properties": {"name": {"type": "string"}, "weight": {"type": "integer", "default": 1}},
                    },
                },
            },
        },
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.test.example"},
        "spec": {
            "group": "test.example", "scope": "Namespaced",
            "names": {"kind": "Widget", "plural": "widgets", "shortNames": ["wg"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "additionalPrinterColumns": columns, "schema": {"openAPIV3Schema": schema},
            }],
        },
    })
}

const WIDGETS: &str = "/apis/test.example/v1/namespaces/default/widgets";

pub(super) async fn with_widgets() -> Server {
    let server = server();
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let (status, answer) = send(&server, "POST", definitions, widgets()).await;
    assert_eq!(status, 201, "{answer}");
    server
}

fn widget(spec: Value) -> Value {
    json!({"apiVersion": "test.example/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec})
}

#[tokio::test(start_paused = true)]
async fn a_definition_serves_its_resource_and_says_so() {
    let server = with_widgets().await;
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.test.example";
    let (_, definition) = send(&server, "GET", path, Value::Null).await;
    assert_eq!(definition["status"]["conditions"][1]["type"], "Established");
    assert_eq!(definition["status"]["acceptedNames"]["listKind"], "WidgetList");
    let (_, groups) = send(&server, "GET", "/apis/test.example/v1", Value::Null).await;
    let names: Vec<&str> =
        groups["resources"].as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["widgets", "widgets/status"]);
}

#[tokio::test(start_paused = true)]
async fn definitions_can_be_made_ready_once_for_many_servers() {
    let ready = Definitions::new(&cupcake_crds::definitions());
    for _ in 0..3 {
        let server = server();
        server.define(&ready);
        let stored = server.list("apiextensions.k8s.io", "customresourcedefinitions");
        assert_eq!(stored.len(), 6);
        assert_eq!(stored[0].value()["status"]["conditions"][1]["type"], "Established");
        let task = json!({"apiVersion": V1, "kind": "NodeTask", "metadata": {"name": "w1"}, "spec": {"nodeName": "w2", "nodeUid": "u1", "epoch": 1}});
        let (status, refused) = send(&server, "POST", &format!("{GROUP}/nodetasks"), task).await;
        assert_eq!(status, 422, "{refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn deleting_a_definition_takes_its_objects_and_its_resource() {
    let server = with_widgets().await;
    send(&server, "POST", WIDGETS, widget(json!({"version": "v1.1"}))).await;
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.test.example";
    send(&server, "DELETE", path, Value::Null).await;
    let (status, _) = send(&server, "GET", WIDGETS, Value::Null).await;
    assert_eq!(status, 404);
    let (status, _) = send(&server, "GET", path, Value::Null).await;
    assert_eq!(status, 404);
}

#[tokio::test(start_paused = true)]
async fn schemas_refuse_with_the_words_of_the_real_server() {
    let server = with_widgets().await;
    for (spec, message) in [
        (
            json!({"version": "v1"}),
            "spec.version: Invalid value: \"v1\": spec.version in body should match '^v[0-9]+\\.[0-9]+$'",
        ),
        (
            json!({"version": "v1.1", "count": 0}),
            "spec.count: Invalid value: 0: spec.count in body should be greater than or equal to 1",
        ),
        (json!({"version": "v1.1", "count": 60}), "spec: Invalid value: \"object\": count too high"),
        (json!({"version": "v2.1"}), "spec: Invalid value: \"object\": must start with v1"),
        (json!({"version": "v1.1", "tags": ["a", "a"]}), "spec.tags[1]: Duplicate value: \"a\""),
        (
            json!({"version": "v1.1", "nodes": [{"name": "a"}, {"name": "a"}]}),
            "spec.nodes[1]: Duplicate value: {\"name\":\"a\"}",
        ),
    ] {
        let (status, answer) = send(&server, "POST", WIDGETS, widget(spec)).await;
        assert_eq!(status, 422);
        let expected = format!("Widget.test.example \"w\" is invalid: {message}");
        assert_eq!(answer["message"], expected);
    }
    // Where the object is not even of the right shape, the rules are left out, and the answer says so.
    let unchecked = "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
    for (spec, message) in [
        (json!({}), "spec.version: Required value"),
        (
            json!({"version": "v1.1", "mode": "x"}),
            "spec.mode: Unsupported value: \"x\": supported values: \"Fast\", \"Slow\"",
        ),
        (json!({"version": "v1.11111111"}), "spec.version: Too long: may not be more than 10 bytes"),
        (json!({"version": "v1.1", "tags": ["a", "b", "c", "d"]}), "spec.tags: Too many: 4: must have at most 3 items"),
        (
            json!({"version": "v1.1", "count": "x"}),
            "spec.count: Invalid value: \"string\": spec.count in body must be of type integer: \"string\"",
        ),
    ] {
        let (_, answer) = send(&server, "POST", WIDGETS, widget(spec)).await;
        let expected = format!("Widget.test.example \"w\" is invalid: [{message}, {unchecked}]");
        assert_eq!(answer["message"], expected);
    }
}

#[tokio::test(start_paused = true)]
async fn transition_rules_see_the_old_object_and_match_list_items_by_key() {
    let server = with_widgets().await;
    let spec = json!({"version": "v1.1", "nodes": [{"name": "a"}, {"name": "b", "weight": 3}]});
    send(&server, "POST", WIDGETS, widget(spec)).await;
    let uri = format!("{WIDGETS}/w");
    let (status, answer) = send(&server, "PATCH", &uri, json!({"spec": {"version": "v1.2"}})).await;
    assert_eq!(
        (status, answer["details"]["causes"][0]["message"].as_str()),
        (422, Some("Invalid value: \"object\": version is immutable"))
    );
    // The order of the list does not matter, the weight of the same node does.
    let swapped = json!({"spec": {"nodes": [{"name": "b", "weight": 3}, {"name": "a", "weight": 1}]}});
    let (status, _) = send(&server, "PATCH", &uri, swapped).await;
    assert_eq!(status, 200);
    let sunk = json!({"spec": {"nodes": [{"name": "b", "weight": 2}]}});
    let (status, answer) = send(&server, "PATCH", &uri, sunk).await;
    assert_eq!(status, 422);
    assert!(answer["message"].as_str().unwrap().ends_with("weight of b may not sink"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn defaults_are_filled_in_and_unknown_fields_pruned_or_refused() {
    let server = with_widgets().await;
    let spec = json!({"version": "v1.1", "bogus": 1, "free": {"any": [1]}, "nodes": [{"name": "a"}]});
    let strict = format!("{WIDGETS}?fieldValidation=Strict");
    let (status, refused) = send(&server, "POST", &strict, widget(spec.clone())).await;
    assert_eq!(status, 400);
    assert_eq!(
        refused["message"],
        "Widget in version \"v1\" cannot be handled as a Widget: strict decoding error: unknown field \"spec.bogus\""
    );
    let (_, created) = send(&server, "POST", WIDGETS, widget(spec)).await;
    assert_eq!(
        created["spec"],
        json!({"version": "v1.1", "mode": "Slow", "free": {"any": [1]}, "nodes": [{"name": "a", "weight": 1}]})
    );
}

#[tokio::test(start_paused = true)]
async fn generation_counts_changes_of_the_spec_alone() {
    let server = with_widgets().await;
    let (_, created) = send(&server, "POST", WIDGETS, widget(json!({"version": "v1.1"}))).await;
    assert_eq!(created["metadata"]["generation"], 1);
    let uri = format!("{WIDGETS}/w");
    let status_uri = format!("{uri}/status");
    let (_, with_status) = send(&server, "PATCH", &status_uri, json!({"status": {"phase": "x"}})).await;
    assert_eq!(with_status["metadata"]["generation"], 1);
    let (_, labelled) = send(&server, "PATCH", &uri, json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(labelled["metadata"]["generation"], 1);
    let (_, changed) = send(&server, "PATCH", &uri, json!({"spec": {"count": 3}})).await;
    assert_eq!(changed["metadata"]["generation"], 2);
    assert_eq!(changed["status"], json!({"phase": "x"}));
}

#[tokio::test(start_paused = true)]
async fn tables_show_the_columns_of_the_definition() {
    let server = with_widgets().await;
    send(&server, "POST", WIDGETS, widget(json!({"version": "v1.1"}))).await;
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    send(&server, "PATCH", &format!("{WIDGETS}/w/status"), ready).await;
    tokio::time::advance(std::time::Duration::from_mins(5)).await;
    let request = http::Request::get(WIDGETS)
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
        .body(bytes::Bytes::new())
        .unwrap();
    let response = server.serve("kubectl", request).await.unwrap();
    let bytes = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    let table: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["columnDefinitions"][1]["name"], "Mode");
    assert_eq!(table["rows"][0]["cells"], json!(["w", "Slow", "True", "5m"]));
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
}

#[tokio::test(start_paused = true)]
async fn openapi_describes_custom_resources_and_says_that_writes_can_be_strict() {
    let server = with_widgets().await;
    let (_, root) = send(&server, "GET", "/openapi/v3", Value::Null).await;
    let url = root["paths"]["apis/test.example/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let (_, document) = send(&server, "GET", &url, Value::Null).await;
    let schema = &document["components"]["schemas"]["example.test.v1.Widget"];
    assert_eq!(schema["properties"]["spec"]["properties"]["mode"]["default"], "Slow");
    assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], "Widget");
    let patch = &document["paths"]["/apis/test.example/v1/namespaces/{namespace}/widgets/{name}"]["patch"];
    let parameters = patch["parameters"].as_array().unwrap();
    assert!(parameters.iter().any(|parameter| parameter["name"] == "fieldValidation"));
}

fn key(attempt: u32) -> Value {
    json!({"runUid": "6f0d7f0e-0c3e-4a53-9b1a-2f6f5d1c9a77", "vertex": "w1/upgrade", "attempt": attempt})
}

fn order(attempt: u32, epoch: u32) -> Value {
    json!({
        "key": key(attempt), "epoch": epoch, "targetVersion": "1.34.4", "proceed": false, "stop": false,
        "deadlineSeconds": 100, "prepare": [{"name": "a", "kind": "a/v1", "params": {"x": {"y": 1}}}],
    })
}

#[tokio::test(start_paused = true)]
async fn the_rules_of_node_tasks_fence_orders() {
    let server = server();
    define(&server).await;
    let tasks = format!("{GROUP}/nodetasks");
    let task = json!({"apiVersion": V1, "kind": "NodeTask", "metadata": {"name": "w1"}, "spec": {"nodeName": "w1", "nodeUid": "u1", "epoch": 1}});
    let (status, answer) = send(&server, "POST", &tasks, task).await;
    assert_eq!(status, 201, "{answer}");
    let (spec, state) = (format!("{tasks}/w1"), format!("{tasks}/w1/status"));
    let claim = json!({"status": {"key": key(1), "state": "Claimed", "epoch": 1}});
    for (uri, patch, expected) in [
        (&state, claim.clone(), 422),
        (&spec, json!({"spec": {"order": order(1, 1)}}), 200),
        (&state, json!({"status": {"key": key(9), "state": "Claimed", "epoch": 1}}), 422),
        (&state, claim, 200),
        // A claimed order is not replaced, changed or removed; only proceed and stop may be set, and stay set.
        (&spec, json!({"spec": {"order": order(2, 1)}}), 422),
        (&spec, json!({"spec": {"order": null}}), 422),
        (
            &spec,
            json!({"spec": {"order": {"prepare": [{"name": "a", "kind": "a/v1", "params": {"x": {"y": 2}}}]}}}),
            422,
        ),
        (&spec, json!({"spec": {"order": {"proceed": true}}}), 200),
        (&spec, json!({"spec": {"order": {"proceed": false}}}), 422),
        (&spec, json!({"spec": {"epoch": 0}}), 422),
        (&state, json!({"status": {"state": "Done"}}), 200),
        (&state, json!({"status": {"state": "Working"}}), 422),
        (&spec, json!({"spec": {"order": order(2, 2)}}), 200),
        (&spec, json!({"spec": {"nodeUid": "u2"}}), 422),
    ] {
        let (status, answer) = send(&server, "PATCH", uri, patch.clone()).await;
        assert_eq!(status, expected, "{patch}: {answer}");
    }
    // The agent's way to claim: JSON Patch with a test on the token.
    let patch = json!([
        {"op": "test", "path": "/spec/order/key", "value": key(2)},
        {"op": "replace", "path": "/status/key", "value": key(2)},
        {"op": "replace", "path": "/status/state", "value": "Claimed"},
        {"op": "replace", "path": "/status/epoch", "value": 2},
    ]);
    let kind = "application/json-patch+json";
    let (status, answer) = send_as(&server, "PATCH", &state, kind, patch).await;
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test(start_paused = true)]
async fn plans_never_change() {
    let server = server();
    define(&server).await;
    let plans = format!("{GROUP}/upgradeplans");
    let digest = "a".repeat(64);
    let plan = json!({"apiVersion": V1, "kind": "UpgradePlan", "metadata": {"name": "p"}, "spec": {"format": 1, "compiler": "1", "digest": digest, "run": "r", "plan": {"a": {"b": [1, 2]}}}});
    let (status, answer) = send(&server, "POST", &plans, plan).await;
    assert_eq!(status, 201, "{answer}");
    let (status, _) = send(&server, "PATCH", &format!("{plans}/p"), json!({"spec": {"plan": {"a": {"b": [1]}}}})).await;
    assert_eq!(status, 422);
    let (status, _) = send(&server, "PATCH", &format!("{plans}/p"), json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(status, 200);
}
