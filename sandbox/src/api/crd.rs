//! CustomResourceDefinitions: creating one serves its resource, deleting one ends it.
//!
//! Source: `apiextensions-apiserver/pkg/{controller/status,controller/establish,controller/finalizer}`.

use super::builtin_schema;
use super::delete::{self, Outcome, Propagation};
use super::gc::Chore;
use super::jsonpath::Path;
use super::object::{Key, Object, as_map, child, finalizers, meta, meta_text, set_meta, to_bytes};
use super::resource::{Column, Nature, Resource, Version};
use super::schema::Schema;
use super::status::{FieldError, FieldErrorKind};
use super::store::State;
use super::write::stamp;
use cupcake_engine::clock::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Compiled definitions that the process keeps: compiling CEL costs milliseconds, and a simulation starts thousands of servers.
const CACHE_MAX: usize = 64;

/// Fills in what a definition may leave out.
pub(super) fn default(object: &mut Value) {
    let spec = child(as_map(object), "spec");
    spec.entry("conversion").or_insert_with(|| json!({"strategy": "None"}));
    let names = child(spec, "names");
    let kind = names.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    names.entry("singular").or_insert_with(|| Value::from(kind.to_lowercase()));
    names.entry("listKind").or_insert_with(|| Value::from(format!("{kind}List")));
}

/// The rules for a definition.
pub(super) fn check(object: &Value, errors: &mut Vec<FieldError>) {
    let spec = &object["spec"];
    let text = |path: &Value| path.as_str().unwrap_or_default().to_owned();
    let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
    for (field, value) in [
        ("spec.group", &group),
        ("spec.names.plural", &plural),
        ("spec.names.kind", &text(&spec["names"]["kind"])),
        ("spec.scope", &text(&spec["scope"])),
    ] {
        if value.is_empty() {
            errors.push(FieldError::new(FieldErrorKind::Required, field, None, ""));
        }
    }
    let name = meta_text(object, "name");
    if name != format!("{plural}.{group}") {
        errors.push(FieldError::new(
            FieldErrorKind::Invalid,
            "metadata.name",
            Some(Value::from(name)),
            "must be spec.names.plural+\".\"+spec.group",
        ));
    }
    let versions = spec["versions"].as_array().map_or(&[][..], Vec::as_slice);
    let stored = versions.iter().filter(|version| version["storage"] == true).count();
    if stored != 1 {
        errors.push(FieldError::new(
            FieldErrorKind::Invalid,
            "spec.versions",
            Some(spec["versions"].clone()),
            "must have exactly one version marked as storage version",
        ));
    }
    for (at, version) in versions.iter().enumerate() {
        // The schema of a single version is checked as if it stood above the versions.
        let path = if versions.len() == 1 {
            "spec.validation.openAPIV3Schema".to_owned()
        } else {
            format!("spec.versions[{at}].schema.openAPIV3Schema")
        };
        if version["schema"].get("openAPIV3Schema").is_none() {
            errors.push(FieldError::new(FieldErrorKind::Required, path, None, "schemas are required"));
            continue;
        }
        // Compiled with the definition, which the cache has from the last server that was given it.
        let compiled = compiled(spec);
        let name = version["name"].as_str().unwrap_or_default();
        let found = compiled.versions.iter().find(|compiled| compiled.name == name);
        if let Some(schema) = found.and_then(|found| found.schema.as_deref()) {
            check_rules(schema, &path, errors);
        }
    }
}

fn check_rules(schema: &Schema, path: &str, errors: &mut Vec<FieldError>) {
    if !schema.has_rules {
        return;
    }
    for (at, rule) in schema.rules.iter().enumerate() {
        if let Err(error) = &rule.program {
            errors.push(FieldError::new(
                FieldErrorKind::Invalid,
                format!("{path}.x-kubernetes-validations[{at}].rule"),
                Some(Value::from(rule.text.as_str())),
                format!("compilation failed: {error}"),
            ));
        }
    }
    for (name, below) in &schema.properties {
        check_rules(below, &format!("{path}.properties[{name}]"), errors);
    }
    if let super::schema::Additional::Schema(below) = &schema.additional {
        check_rules(below, &format!("{path}.additionalProperties"), errors);
    }
    if let Some(below) = &schema.items {
        check_rules(below, &format!("{path}.items"), errors);
    }
}

/// The version in which a definition's objects are stored.
pub(super) fn storage_versions(object: &Value) -> Value {
    let versions = object["spec"]["versions"].as_array();
    versions
        .into_iter()
        .flatten()
        .filter(|version| version["storage"] == true)
        .map(|version| version["name"].clone())
        .collect()
}

/// CustomResourceDefinitions made ready once for any number of servers: a simulation starts thousands of them.
#[derive(Debug, Clone)]
pub struct Definitions(Arc<Vec<(Value, Arc<Resource>)>>);

impl Definitions {
    /// Takes definitions as they would be applied, for [`super::Server::define`].
    pub fn new(definitions: &[CustomResourceDefinition]) -> Self {
        let ready = definitions.iter().map(|definition| {
            let mut value = serde_json::to_value(definition).expect("a definition has string keys and finite numbers");
            super::shape::drop_nulls(&mut value);
            value["apiVersion"] = Value::from("apiextensions.k8s.io/v1");
            value["kind"] = Value::from("CustomResourceDefinition");
            default(&mut value);
            let resource = compiled(&value["spec"]);
            (value, resource)
        });
        Self(Arc::new(ready.collect()))
    }

    /// Stores and establishes the definitions, as if they had been applied without a field manager.
    pub(super) fn install(&self, state: &mut State, now: Timestamp) {
        let Some(id) = state.find("apiextensions.k8s.io", "customresourcedefinitions") else {
            return;
        };
        for (definition, resource) in self.0.iter() {
            let mut value = definition.clone();
            set_meta(&mut value, "uid", Value::from(state.new_uid()));
            set_meta(&mut value, "creationTimestamp", Value::from(stamp(now)));
            set_meta(&mut value, "generation", Value::from(1));
            mark_established(&mut value, now);
            state.serve(Arc::clone(resource));
            state.put(id, Key::new("", meta_text(definition, "name")), value, now);
        }
    }
}

/// Serves the resource of a stored definition, and says so in its status.
pub(super) fn establish(state: &mut State, definition: &Arc<Object>, now: Timestamp) {
    let value = definition.value();
    if meta(value, "deletionTimestamp").is_some() {
        return;
    }
    state.serve(compiled(&value["spec"]));
    let Some(id) = state.find("apiextensions.k8s.io", "customresourcedefinitions") else {
        return;
    };
    let mut value = value.clone();
    mark_established(&mut value, now);
    if value != *definition.value() {
        state.put(id, Key::new("", definition.name()), value, now);
    }
}

fn mark_established(definition: &mut Value, now: Timestamp) {
    let accepted = definition["spec"]["names"].clone();
    let stored = storage_versions(definition);
    let status = child(as_map(definition), "status");
    status.insert("acceptedNames".to_owned(), accepted);
    let versions = status.entry("storedVersions").or_insert_with(|| json!([]));
    if let (Some(known), Some(new)) = (versions.as_array_mut(), stored.as_array()) {
        for version in new {
            if !known.contains(version) {
                known.push(version.clone());
            }
        }
    }
    if status.get("conditions").is_none() {
        let condition = |kind: &str, reason: &str, message: &str| {
            json!({
                "type": kind, "status": "True", "reason": reason, "message": message,
                "lastTransitionTime": stamp(now),
            })
        };
        status.insert(
            "conditions".to_owned(),
            json!([
                condition("NamesAccepted", "NoConflicts", "no conflicts found"),
                condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
            ]),
        );
    }
}

/// The resource that a definition's spec describes; compiled once a process.
fn compiled(spec: &Value) -> Arc<Resource> {
    static CACHE: Mutex<BTreeMap<[u8; 32], Arc<Resource>>> = Mutex::new(BTreeMap::new());
    let digest: [u8; 32] = Sha256::digest(to_bytes(spec)).into();
    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(resource) = cache.get(&digest) {
        return Arc::clone(resource);
    }
    let resource = Arc::new(resource(spec));
    if cache.len() >= CACHE_MAX {
        cache.pop_first();
    }
    cache.insert(digest, Arc::clone(&resource));
    resource
}

fn strings(value: &Value) -> Vec<String> {
    let list = value.as_array().into_iter().flatten();
    list.filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

fn resource(spec: &Value) -> Resource {
    let names = &spec["names"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let listed = spec["versions"].as_array().map_or(&[][..], Vec::as_slice);
    let mut versions: Vec<(bool, Version)> =
        listed.iter().map(|version| (version["storage"] == true, self::version(version, names, spec))).collect();
    versions.sort_by_key(|(_, version)| std::cmp::Reverse(priority(&version.name)));
    let storage = versions.iter().position(|(storage, _)| *storage).unwrap_or(0);
    Resource {
        group: text(&spec["group"]),
        plural: text(&names["plural"]),
        singular: text(&names["singular"]),
        kind: text(&names["kind"]),
        list_kind: text(&names["listKind"]),
        short_names: strings(&names["shortNames"]),
        categories: strings(&names["categories"]),
        namespaced: spec["scope"] == "Namespaced",
        versions: versions.into_iter().map(|(_, version)| version).collect(),
        storage,
        nature: Nature::Custom,
        definitions: None,
    }
}

/// Stable versions before beta before alpha, higher numbers first.
fn priority(version: &str) -> (u8, u32, u32) {
    let rest = version.strip_prefix('v').unwrap_or(version);
    let digits = |text: &str| text.parse().unwrap_or(0);
    if let Some((major, minor)) = rest.split_once("beta") {
        (1, digits(major), digits(minor))
    } else if let Some((major, minor)) = rest.split_once("alpha") {
        (0, digits(major), digits(minor))
    } else {
        (2, digits(rest), 0)
    }
}

fn version(version: &Value, names: &Value, spec: &Value) -> Version {
    let name = version["name"].as_str().unwrap_or_default().to_owned();
    let schema = version["schema"].get("openAPIV3Schema");
    let columns: Vec<Column> =
        version["additionalPrinterColumns"].as_array().into_iter().flatten().filter_map(column).collect();
    let warning = (version["deprecated"] == true).then(|| {
        version["deprecationWarning"].as_str().map_or_else(
            || {
                format!(
                    "{}/{name} {} is deprecated",
                    spec["group"].as_str().unwrap_or_default(),
                    names["kind"].as_str().unwrap_or_default()
                )
            },
            str::to_owned,
        )
    });
    Version {
        served: version["served"] == true,
        status: version["subresources"].get("status").is_some(),
        subresources: Vec::new(),
        schema: schema.map(|schema| Schema::compile_resource(schema, builtin_schema::metadata())),
        raw_schema: schema.cloned().map(Arc::new),
        columns: if columns.is_empty() {
            column(&json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}))
                .into_iter()
                .collect()
        } else {
            columns
        },
        warning,
        name,
    }
}

fn column(column: &Value) -> Option<Column> {
    let text = |name: &str| column[name].as_str().unwrap_or_default().to_owned();
    let description = text("description");
    Some(Column {
        name: text("name"),
        kind: text("type"),
        format: text("format"),
        description: if description.is_empty() {
            format!("Custom resource definition column (in JSONPath format): {}", text("jsonPath"))
        } else {
            description
        },
        priority: column["priority"].as_i64().unwrap_or(0),
        path: Path::parse(column["jsonPath"].as_str()?)?,
    })
}

/// Goes on with the deletion of a definition: its objects first, then itself and its resource.
pub(super) fn retire(state: &mut State, name: &str, now: Timestamp) -> Vec<Chore> {
    let Some(id) = state.find("apiextensions.k8s.io", "customresourcedefinitions") else {
        return Vec::new();
    };
    let key = Key::new("", name);
    let Some(definition) = state.get(id, &key).cloned() else {
        return Vec::new();
    };
    if meta(definition.value(), "deletionTimestamp").is_none() {
        return Vec::new();
    }
    let spec = &definition.value()["spec"];
    let group = spec["group"].as_str().unwrap_or_default().to_owned();
    let plural = spec["names"]["plural"].as_str().unwrap_or_default().to_owned();
    let mut chores = Vec::new();
    if let Some(custom) = state.find(&group, &plural) {
        let keys: Vec<Key> = state.collection(custom).objects.keys().cloned().collect();
        let mut left = false;
        for key in keys {
            let (outcome, more) = delete::begin(state, custom, &key, Propagation::Background, None, now);
            left |= matches!(outcome, Some(Outcome::Marked(_)));
            chores.extend(more.into_iter().filter(|chore| *chore != Chore::Definition(name.to_owned())));
        }
        if left {
            return chores;
        }
    }
    if finalizers(definition.value()).next().is_none() {
        state.retire(&group, &plural);
        if let Some(last) = state.remove(id, &key, now) {
            chores.push(Chore::OwnerGone(last.uid().to_owned()));
        }
    }
    chores
}
