//! Requests that change or remove what is there: replacements, patches of all kinds, deletions and evictions.

use super::generate::{APPLY, Body, JSON, MERGE, PATCH, STRATEGIC, Step, at, key, options, request, with};
use super::kinds::{Kind, once_in, pick};
use super::protobuf;
use fastrand::Rng;
use serde_json::{Value, json};

/// A resourceVersion or UID as a precondition, or none.
fn precondition(rng: &mut Rng, key: &str) -> Option<(&'static str, String)> {
    match rng.u32(..12) {
        0 | 1 => Some(("resourceVersion", format!("@rv:{key}@"))),
        2 => Some(("resourceVersion", format!("@old:{key}@"))),
        3 => Some(("resourceVersion", pick(rng, &["1", "0", "x", ""]).to_owned())),
        4 | 5 => Some(("uid", format!("@uid:{key}@"))),
        6 => Some(("uid", "6f0d7f0e-0c3e-4a53-9b1a-2f6f5d1c9a77".to_owned())),
        _none => None,
    }
}

fn subresource(rng: &mut Rng, kind: &Kind) -> &'static str {
    if rng.u32(..10) < if kind.status { 4 } else { 1 } { "/status" } else { "" }
}

fn changes(rng: &mut Rng, kind: &Kind, subresource: &str) -> Value {
    if subresource.is_empty() == once_in(rng, 12) { (kind.status_change)(rng) } else { (kind.change)(rng) }
}

/// Somebody who is there whoever looks: no garbage collector runs beside the servers.
fn owner() -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u-1"})
}

pub(super) fn replace(rng: &mut Rng, kind: &Kind, name: &str) -> Step {
    let key = key(kind, name);
    let sub = subresource(rng, kind);
    let mut overlay = if sub.is_empty() { (kind.change)(rng) } else { (kind.status_change)(rng) };
    if once_in(rng, 6) {
        overlay = json!({});
    }
    let mut otherwise = kind.object(rng, &format!("@me@-{name}"));
    if let Some((field, value)) = precondition(rng, &key) {
        for object in [&mut overlay, &mut otherwise] {
            object["metadata"][field] = json!(value);
        }
    }
    match rng.u32(..21) {
        8 => overlay["metadata"]["ownerReferences"] = json!([owner()]),
        0 => overlay["metadata"]["name"] = json!(pick(rng, &["@me@-b", ""])),
        1 => overlay["metadata"]["finalizers"] = json!(["cupcake.io/held"]),
        2 => overlay["metadata"]["finalizers"] = Value::Null,
        3 => overlay["metadata"]["creationTimestamp"] = json!("2021-03-04T05:06:07Z"),
        4 => overlay["metadata"]["generation"] = json!(40),
        5 => overlay["metadata"]["resourceVersion"] = Value::Null,
        6 => overlay["metadata"]["uid"] = Value::Null,
        7 => overlay["metadata"]["labels"] = json!({"tier": "back"}),
        _plain => {}
    }
    let body = if once_in(rng, 4) { Body::Json(otherwise) } else { Body::Edited { of: key, overlay, otherwise } };
    let path = options(rng, format!("{}{sub}", at(kind, name)));
    request(kind, &format!("replace {{}}{sub}"), "PUT", path, JSON, body)
}

pub(super) fn patch(rng: &mut Rng, kind: &Kind, name: &str) -> Step {
    let key = key(kind, name);
    let sub = subresource(rng, kind);
    let mut change = changes(rng, kind, sub);
    let path = options(rng, format!("{}{sub}", at(kind, name)));
    match rng.u32(..10) {
        0..4 => {
            if let Some((field, value)) = precondition(rng, &key) {
                change["metadata"][field] = json!(value);
            }
            match rng.u32(..14) {
                0 => change["metadata"]["finalizers"] = json!(["cupcake.io/held"]),
                1 => change["metadata"]["finalizers"] = Value::Null,
                2 => change["metadata"]["annotations"] = json!({"cupcake.io/note": "x"}),
                3 => change["metadata"]["labels"] = json!({"tier": "back"}),
                4 => change["surprise"] = json!(1),
                5 => change["metadata"]["name"] = json!("other"),
                6 => change["kind"] = json!("Other"),
                7 => change["metadata"]["generateName"] = json!("g-"),
                _plain => {}
            }
            let body = if once_in(rng, 20) {
                Body::Raw(pick(rng, &["", "[]", "{", "null", "{}"]).to_owned())
            } else {
                Body::Json(change)
            };
            request(kind, &format!("patch {{}}{sub} (merge)"), "PATCH", path, MERGE, body)
        }
        4..8 => {
            let body = if once_in(rng, 20) {
                Body::Raw(pick(rng, &["", "[]", "{", "{}", "[{\"op\":\"odd\",\"path\":\"/a\"}]"]).to_owned())
            } else {
                Body::Json(operations(rng, &key, &change))
            };
            request(kind, &format!("patch {{}}{sub} (json)"), "PATCH", path, PATCH, body)
        }
        8 if !kind.custom() || once_in(rng, 4) => {
            request(kind, &format!("patch {{}}{sub} (strategic)"), "PATCH", path, STRATEGIC, Body::Json(change))
        }
        _other if !kind.custom() => {
            request(kind, &format!("patch {{}}{sub} (strategic)"), "PATCH", path, STRATEGIC, Body::Json(change))
        }
        _other => {
            let content_type = pick(rng, &[JSON, "text/plain", MERGE, MERGE]);
            request(kind, &format!("patch {{}}{sub} (odd)"), "PATCH", path, content_type, Body::Json(change))
        }
    }
}

/// The leaves of a change as JSON Patch, behind tests as our clients write them.
fn operations(rng: &mut Rng, key: &str, change: &Value) -> Value {
    let mut operations = Vec::new();
    match rng.u32(..14) {
        0 => operations.push(json!({"op": "test", "path": "/metadata/uid", "value": format!("@uid:{key}@")})),
        1 => {
            operations.push(json!({"op": "test", "path": "/metadata/resourceVersion", "value": format!("@rv:{key}@")}));
        }
        2 => {
            operations
                .push(json!({"op": "test", "path": "/metadata/resourceVersion", "value": format!("@old:{key}@")}));
        }
        3 => operations.push(json!({"op": "test", "path": "/spec/epoch", "value": 1})),
        4 => operations.push(json!({"op": "test", "path": "/spec/order/key/attempt", "value": 1})),
        5 => operations.push(json!({"op": "test", "path": "/spec/inventoryRequest", "value": null})),
        6 => operations.push(json!({"op": "test", "path": "/status/state", "value": "Claimed"})),
        7 => operations.push(json!({"op": "test", "path": "/metadata/labels/tier", "value": "front"})),
        8 => {
            let answered = json!({"runUid": "r-1", "vertex": "n/host-upgrade", "attempt": 1});
            operations.push(json!({"op": "test", "path": "/status/key", "value": answered}));
        }
        9 => operations.push(json!({"op": "test", "path": "/metadata/generation", "value": pick(rng, &[1, 2])})),
        _none => {}
    }
    let fields = change.as_object().into_iter().flatten();
    for (name, value) in fields {
        match value {
            Value::Null => operations.push(json!({"op": "remove", "path": format!("/{name}")})),
            Value::Object(below) if name != "status" || rng.bool() => {
                for (field, value) in below {
                    let op = if value.is_null() { "remove" } else { pick(rng, &["add", "add", "add", "replace"]) };
                    operations.push(json!({"op": op, "path": format!("/{name}/{field}"), "value": value}));
                }
            }
            whole => operations.push(json!({"op": "add", "path": format!("/{name}"), "value": whole})),
        }
    }
    match rng.u32(..14) {
        0 => operations.push(json!({"op": "add", "path": "/metadata/finalizers", "value": ["cupcake.io/held"]})),
        1 => operations.push(json!({"op": "remove", "path": "/metadata/finalizers"})),
        2 => operations.push(json!({"op": "remove", "path": "/metadata/finalizers/0"})),
        3 => operations.push(json!({"op": "add", "path": "/metadata/annotations", "value": {"note": "x"}})),
        4 => operations.push(json!({"op": "add", "path": "/metadata/annotations/cupcake.io~1note", "value": "x"})),
        5 => operations.push(json!({"op": "copy", "from": "/metadata/labels/tier", "path": "/metadata/labels/copy"})),
        7 => operations.push(json!({"op": "remove", "path": "/metadata/annotations/cupcake.io~1note"})),
        6 => operations.push(json!({"op": "move", "from": "/metadata/labels/tier", "path": "/metadata/labels/moved"})),
        _none => {}
    }
    Value::Array(operations)
}

pub(super) fn apply(rng: &mut Rng, kind: &Kind, name: &str) -> Step {
    let mut object = json!({
        "apiVersion": kind.api_version(), "kind": kind.word,
        "metadata": {"name": format!("@me@-{name}"), "labels": {"conf": "@me@"}},
    });
    let sub = if kind.status && once_in(rng, 5) { "/status" } else { "" };
    if !sub.is_empty() {
        super::compare::merge(&mut object, &(kind.status_change)(rng));
    } else if once_in(rng, 3) {
        super::compare::merge(&mut object, &(kind.change)(rng));
    } else {
        object = kind.object(rng, &format!("@me@-{name}"));
    }
    match rng.u32(..14) {
        0 => object["metadata"]["name"] = json!("other"),
        1 => object["surprise"] = json!(1),
        2 => object["metadata"]["resourceVersion"] = json!(format!("@old:{}@", key(kind, name))),
        3 => object["metadata"]["uid"] = json!(format!("@uid:{}@", key(kind, name))),
        4 => object["metadata"]["annotations"] = json!({"note": "x"}),
        5 => drop(object.as_object_mut().unwrap().remove("kind")),
        _plain => {}
    }
    let mut parameters = vec![pick(
        rng,
        &["fieldManager=kubectl", "fieldManager=kubectl", "fieldManager=other", "fieldManager=other", ""],
    )];
    parameters.push(pick(rng, &["force=true", "force=false", "force=true", "dryRun=All"]));
    parameters.push(if object["surprise"].is_null() { pick(rng, &["fieldValidation=Strict", "", ""]) } else { "" });
    parameters.retain(|parameter| !parameter.is_empty());
    let path = with(format!("{}{sub}", at(kind, name)), &parameters);
    request(kind, &format!("apply {{}}{sub}"), "PATCH", path, APPLY, Body::Json(object))
}

fn delete_options(rng: &mut Rng, key: &str) -> Body {
    let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
    if let Some((field, value)) = precondition(rng, key) {
        options["preconditions"] = json!({field: value});
    }
    match rng.u32(..12) {
        0..3 => options["gracePeriodSeconds"] = json!(0),
        3 => options["gracePeriodSeconds"] = json!(pick(rng, &[5, 1, -1])),
        4 => options["propagationPolicy"] = json!("Foreground"),
        5 => options["propagationPolicy"] = json!("Orphan"),
        6 => options["propagationPolicy"] = json!("Background"),
        7 => options["propagationPolicy"] = json!("Odd"),
        8 => options["dryRun"] = json!(["All"]),
        _plain => {}
    }
    if once_in(rng, 4) { Body::None } else { Body::Json(options) }
}

/// Now and then as protobuf, where kubectl sends it so.
fn as_go_sends(rng: &mut Rng, kind: &Kind, body: Body) -> (&'static str, Body) {
    match body {
        Body::Json(options) if !kind.custom() && once_in(rng, 3) => (protobuf::MEDIA_TYPE, Body::Protobuf(options)),
        other => (JSON, other),
    }
}

pub(super) fn delete(rng: &mut Rng, kind: &Kind, name: &str) -> Step {
    let mut path = at(kind, name);
    match rng.u32(..12) {
        0 => path.push_str("?gracePeriodSeconds=0"),
        1 => path.push_str("?propagationPolicy=Background"),
        2 => path.push_str("?dryRun=All"),
        _plain => {}
    }
    let options = delete_options(rng, &key(kind, name));
    let (content_type, body) = as_go_sends(rng, kind, options);
    request(kind, "delete {}", "DELETE", path, content_type, body)
}

pub(super) fn delete_many(rng: &mut Rng, kind: &Kind) -> Step {
    let selector = pick(
        rng,
        &[
            "labelSelector=conf%3D@me@",
            "labelSelector=conf%3D@me@,tier%3Dback",
            "labelSelector=conf%3D@me@&fieldSelector=metadata.name%3D@me@-b",
        ],
    );
    let body = match delete_options(rng, &key(kind, "a")) {
        Body::Json(mut options) => {
            // Of several objects each would be refused or not by its own, and the real server deletes them side by side.
            options.as_object_mut().unwrap().remove("preconditions");
            Body::Json(options)
        }
        other => other,
    };
    request(kind, "deletecollection {}", "DELETE", with(kind.collection(), &[selector]), JSON, body)
}

pub(super) fn evict(rng: &mut Rng, kind: &Kind, name: &str) -> Step {
    let key = key(kind, name);
    let mut eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": format!("@me@-{name}"), "namespace": "@ns@"},
    });
    if let Body::Json(options) = delete_options(rng, &key)
        && rng.bool()
    {
        eviction["deleteOptions"] = options;
    }
    match rng.u32(..16) {
        0 => eviction["metadata"]["name"] = json!(pick(rng, &["other", ""])),
        1 => eviction["apiVersion"] = json!("policy/v1beta1"),
        2 => eviction["kind"] = json!("Other"),
        3 => eviction["surprise"] = json!(1),
        4 => eviction["metadata"]["namespace"] = json!("elsewhere"),
        _plain => {}
    }
    let path = with(format!("{}/eviction", at(kind, name)), if once_in(rng, 8) { &["dryRun=All"] } else { &[] });
    let plain = eviction["kind"] == "Eviction" && eviction["surprise"].is_null();
    let body = Body::Json(eviction);
    let (content_type, body) = if plain { as_go_sends(rng, kind, body) } else { (JSON, body) };
    request(kind, "create {}/eviction", "POST", path, content_type, body)
}
