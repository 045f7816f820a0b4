//! OpenAPI v3, as far as kubectl looks at it: `explain`, and whether a resource knows `fieldValidation`.
//!
//! Version 2 is not served: kubectl reads it as protobuf only, and does without where version 3 is there.

use super::discovery::{members, served, versions};
use super::object::{as_map, child, to_bytes};
use super::resource::{Nature, Resource, Version};
use super::server::{Answer, Inner};
use super::status::Failure;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Answers `/openapi/...`.
pub(super) fn answer(inner: &Arc<Inner>, rest: &[&str]) -> Result<Answer, Failure> {
    let resources = served(inner);
    match rest {
        ["v3"] => Ok(Answer::value(200, &root(&resources))),
        ["v3", "api", version] => document(&resources, "", version),
        ["v3", "apis", group, version] => document(&resources, group, version),
        _unserved => Err(Failure::no_such_path()),
    }
}

/// The list of documents, each with a hash that changes with what is served.
fn root(resources: &[Arc<Resource>]) -> Value {
    let mut paths = Map::new();
    let mut groups: Vec<&str> = resources.iter().map(|resource| resource.group.as_str()).collect();
    groups.sort_unstable();
    groups.dedup();
    for group in groups {
        for version in versions(resources, group) {
            let path = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
            let mut digest = Sha256::new();
            for (resource, found) in members(resources, group, version) {
                digest.update(resource.plural.as_bytes());
                if let Some(schema) = &found.raw_schema {
                    digest.update(to_bytes(schema));
                }
            }
            let hash = super::observe::hexadecimal(&digest.finalize());
            let url = format!("/openapi/v3/{path}?hash={hash}");
            paths.insert(path, json!({"serverRelativeURL": url}));
        }
    }
    json!({"paths": paths})
}

fn document(resources: &[Arc<Resource>], group: &str, version: &str) -> Result<Answer, Failure> {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for (resource, found) in members(resources, group, version) {
        let name = add_schemas(resource, found, &mut schemas);
        add_paths(resource, found, &name, &mut paths);
    }
    if paths.is_empty() {
        return Err(Failure::no_such_path());
    }
    Ok(Answer::value(
        200,
        &json!({
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": version},
            "paths": paths,
            "components": {"schemas": schemas},
        }),
    ))
}

fn kind_of(resource: &Resource, version: &Version) -> Value {
    json!({"group": resource.group, "version": version.name, "kind": resource.kind})
}

/// Adds the schema of a kind and all it refers to; returns its name.
fn add_schemas(resource: &Resource, version: &Version, schemas: &mut Map<String, Value>) -> String {
    let name = if let Some(definitions) = resource.definitions {
        let (name, found) = definitions();
        schemas.extend(found);
        name
    } else {
        if !schemas.contains_key(OBJECT_META) {
            let (_, found) = super::builtin_schema::definitions::<ObjectMeta>();
            schemas.extend(found);
        }
        let reversed: Vec<&str> = resource.group.split('.').rev().collect();
        let name = format!("{}.{}.{}", reversed.join("."), version.name, resource.kind);
        schemas.insert(name.clone(), custom(version));
        name
    };
    if let Some(schema) = schemas.get_mut(&name) {
        schema["x-kubernetes-group-version-kind"] = json!([kind_of(resource, version)]);
    }
    name
}

/// A custom resource's schema with the fields that all resources have.
fn custom(version: &Version) -> Value {
    let mut schema =
        version.raw_schema.as_deref().cloned().unwrap_or_else(|| json!({"x-kubernetes-preserve-unknown-fields": true}));
    schema["type"] = Value::from("object");
    let properties = child(as_map(&mut schema), "properties");
    properties.insert(
        "apiVersion".to_owned(),
        json!({"type": "string", "description": "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources"}),
    );
    properties.insert(
        "kind".to_owned(),
        json!({"type": "string", "description": "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds"}),
    );
    properties.insert(
        "metadata".to_owned(),
        json!({
            "description": "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
            "allOf": [{"$ref": format!("#/components/schemas/{OBJECT_META}")}],
        }),
    );
    schema
}

fn add_paths(resource: &Resource, version: &Version, schema: &str, paths: &mut Map<String, Value>) {
    let base = if resource.group.is_empty() {
        format!("/api/{}", version.name)
    } else {
        format!("/apis/{}/{}", resource.group, version.name)
    };
    let collection = if resource.namespaced {
        format!("{base}/namespaces/{{namespace}}/{}", resource.plural)
    } else {
        format!("{base}/{}", resource.plural)
    };
    let operation = |action: &str, writes: bool| {
        let mut parameters = Vec::new();
        if writes {
            for name in ["dryRun", "fieldManager", "fieldValidation"] {
                parameters
                    .push(json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}}));
            }
        }
        if action == "patch" {
            parameters
                .push(json!({"name": "force", "in": "query", "schema": {"type": "boolean", "uniqueItems": true}}));
        }
        let content = json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{schema}")}}});
        let mut operation = json!({
            "parameters": parameters,
            "responses": {"200": {"description": "OK", "content": content}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": kind_of(resource, version),
        });
        if writes {
            operation["requestBody"] = json!({"content": content});
        }
        operation
    };
    let object = |paths: &mut Map<String, Value>, path: String| {
        paths.insert(
            path,
            json!({
                "get": operation("get", false), "put": operation("put", true),
                "patch": operation("patch", true), "delete": operation("delete", false),
            }),
        );
    };
    paths.insert(collection.clone(), json!({"get": operation("list", false), "post": operation("post", true)}));
    object(paths, format!("{collection}/{{name}}"));
    if version.status {
        object(paths, format!("{collection}/{{name}}/status"));
    }
    let everywhere = format!("{base}/{}", resource.plural);
    if resource.namespaced {
        paths.insert(everywhere, json!({"get": operation("list", false)}));
    }
    debug_assert!(
        resource.definitions.is_some() || resource.nature == Nature::Custom,
        "built-in kinds have definitions"
    );
}
