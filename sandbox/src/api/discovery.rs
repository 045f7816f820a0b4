//! Discovery: which groups, versions and resources are served, one by one or all in one document.

use super::request::RequestInfo;
use super::resource::{Resource, Version, group_version};
use super::server::{Answer, Inner};
use super::status::Failure;
use serde_json::{Value, json};
use std::sync::Arc;

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// Everything that is served, in a fixed order: groups as added, core first.
pub(super) fn served(inner: &Arc<Inner>) -> Vec<Arc<Resource>> {
    inner.lock().resources().cloned().collect()
}

/// Answers `/api`, `/apis` and what lies below, but for resources.
pub(super) fn answer(inner: &Arc<Inner>, info: &RequestInfo, parts: &[&str]) -> Result<Answer, Failure> {
    let resources = served(inner);
    match parts {
        ["api" | "apis"] if wants_aggregated(info) => {
            let core = parts == ["api"];
            let mut answer = Answer::value(200, &aggregated(&resources, core));
            answer.content_type = AGGREGATED;
            Ok(answer)
        }
        ["api"] => Ok(Answer::value(
            200,
            &json!({
                "kind": "APIVersions", "versions": ["v1"],
                "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1"}],
            }),
        )),
        ["apis"] => {
            let groups: Vec<Value> = groups(&resources)
                .iter()
                .filter(|group| !group.is_empty())
                .map(|group| group_document(&resources, group, false))
                .collect();
            Ok(Answer::value(200, &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})))
        }
        ["api", version] => resource_list(&resources, "", version),
        ["apis", group] if groups(&resources).contains(group) => {
            Ok(Answer::value(200, &group_document(&resources, group, true)))
        }
        ["apis", group, version] => resource_list(&resources, group, version),
        _unknown => Err(Failure::no_such_path()),
    }
}

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

fn wants_aggregated(info: &RequestInfo) -> bool {
    // The first clause wins, as for tables.
    let first = info.accept.split(',').next().unwrap_or_default();
    first.contains("g=apidiscovery.k8s.io") && first.contains("v=v2;") && first.contains("as=APIGroupDiscoveryList")
        || info.accept.split(',').any(|clause| {
            let has = |part: &str| clause.split(';').any(|found| found.trim() == part);
            clause.trim().starts_with("application/json")
                && has("g=apidiscovery.k8s.io")
                && has("v=v2")
                && has("as=APIGroupDiscoveryList")
        })
}

fn groups(resources: &[Arc<Resource>]) -> Vec<&str> {
    let mut groups: Vec<&str> = Vec::new();
    for resource in resources {
        if !groups.contains(&resource.group.as_str()) {
            groups.push(&resource.group);
        }
    }
    groups
}

/// Versions of a group, preferred first.
pub(super) fn versions<'a>(resources: &'a [Arc<Resource>], group: &str) -> Vec<&'a str> {
    let mut versions: Vec<&str> = Vec::new();
    for resource in resources.iter().filter(|resource| resource.group == group) {
        for version in resource.versions.iter().filter(|version| version.served) {
            if !versions.contains(&version.name.as_str()) {
                versions.push(&version.name);
            }
        }
    }
    versions
}

fn group_document(resources: &[Arc<Resource>], group: &str, alone: bool) -> Value {
    let versions: Vec<Value> = versions(resources, group)
        .iter()
        .map(|version| json!({"groupVersion": group_version(group, version), "version": version}))
        .collect();
    let mut document = json!({
        "name": group, "versions": versions, "preferredVersion": versions.first(),
    });
    if alone {
        document["kind"] = Value::from("APIGroup");
        document["apiVersion"] = Value::from("v1");
    }
    document
}

/// The resources of a group and version, each with the version asked for.
pub(super) fn members<'a>(
    resources: &'a [Arc<Resource>],
    group: &'a str,
    version: &'a str,
) -> impl Iterator<Item = (&'a Resource, &'a Version)> {
    resources
        .iter()
        .filter(move |resource| resource.group == group)
        .filter_map(move |resource| Some((&**resource, resource.version(version)?)))
}

fn subresources(version: &Version) -> Vec<(&'static str, &'static [&'static str])> {
    let mut list: Vec<(&'static str, &'static [&'static str])> = Vec::new();
    for name in &version.subresources {
        list.push((name, &["create"]));
    }
    if version.status {
        list.push(("status", &["get", "patch", "update"]));
    }
    list
}

/// The kind that a subresource takes.
fn subresource_kind(resource: &Resource, name: &str) -> (String, String, String) {
    match name {
        "eviction" => ("policy".to_owned(), "v1".to_owned(), "Eviction".to_owned()),
        "binding" => (String::new(), "v1".to_owned(), "Binding".to_owned()),
        _status => (String::new(), String::new(), resource.kind.clone()),
    }
}

fn resource_list(resources: &[Arc<Resource>], group: &str, version: &str) -> Result<Answer, Failure> {
    let mut list: Vec<Value> = Vec::new();
    for (resource, found) in members(resources, group, version) {
        let mut entry = json!({
            "name": resource.plural, "singularName": resource.singular,
            "namespaced": resource.namespaced, "kind": resource.kind, "verbs": VERBS,
            "storageVersionHash": "",
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        list.push(entry);
        for (name, verbs) in subresources(found) {
            let (kind_group, kind_version, kind) = subresource_kind(resource, name);
            let mut entry = json!({
                "name": format!("{}/{name}", resource.plural), "singularName": "",
                "namespaced": resource.namespaced, "kind": kind, "verbs": verbs,
            });
            if !kind_group.is_empty() {
                entry["group"] = Value::from(kind_group);
                entry["version"] = Value::from(kind_version);
            }
            list.push(entry);
        }
    }
    if list.is_empty() {
        return Err(Failure::no_such_path());
    }
    Ok(Answer::value(
        200,
        &json!({
            "kind": "APIResourceList", "apiVersion": "v1",
            "groupVersion": group_version(group, version), "resources": list,
        }),
    ))
}

fn aggregated(resources: &[Arc<Resource>], core: bool) -> Value {
    let items: Vec<Value> = groups(resources)
        .into_iter()
        .filter(|group| group.is_empty() == core)
        .map(|group| {
            let versions: Vec<Value> = versions(resources, group)
                .into_iter()
                .map(|version| {
                    let members: Vec<Value> = members(resources, group, version)
                        .map(|(resource, found)| aggregated_resource(resource, found))
                        .collect();
                    json!({"version": version, "resources": members, "freshness": "Current"})
                })
                .collect();
            let mut metadata = json!({"creationTimestamp": null});
            if !group.is_empty() {
                metadata["name"] = Value::from(group);
            }
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {}, "items": items,
    })
}

fn aggregated_resource(resource: &Resource, version: &Version) -> Value {
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": kind(&resource.group, &version.name, &resource.kind),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular, "verbs": VERBS,
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    let subresources: Vec<Value> = subresources(version)
        .into_iter()
        .map(|(name, verbs)| {
            let (group, kind_version, kind_name) = subresource_kind(resource, name);
            let response = if kind_version.is_empty() {
                kind(&resource.group, &version.name, &kind_name)
            } else {
                kind(&group, &kind_version, &kind_name)
            };
            json!({"subresource": name, "responseKind": response, "verbs": verbs})
        })
        .collect();
    if !subresources.is_empty() {
        entry["subresources"] = Value::Array(subresources);
    }
    entry
}
