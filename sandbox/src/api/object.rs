//! One stored revision of an object: immutable, shared, serialised at most once.

use bytes::Bytes;
use serde_json::{Map, Value};
use std::sync::{Arc, OnceLock};

/// One revision of an object.
///
/// # Guarantees
/// Immutable; clones of the `Arc` are cheap; [`Object::bytes`] serialises once however many watchers and readers ask.
#[derive(Debug)]
pub struct Object {
    value: Value,
    revision: u64,
    bytes: OnceLock<Bytes>,
}

/// Where an object lives in its collection: namespace (empty if cluster-scoped), then name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// A key from its parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl Object {
    /// Seals `value`, whose `metadata.resourceVersion` is set to `revision`.
    pub(super) fn seal(mut value: Value, revision: u64) -> Arc<Self> {
        set_meta(&mut value, "resourceVersion", Value::from(revision.to_string()));
        Arc::new(Self { value, revision, bytes: OnceLock::new() })
    }

    /// An object that is shown but not stored, as after a dry run.
    pub(super) fn seal_dry(value: Value, revision: u64) -> Arc<Self> {
        Arc::new(Self { value, revision, bytes: OnceLock::new() })
    }

    /// The object as JSON.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The store's revision that wrote it.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The object serialised, in its storage version.
    pub fn bytes(&self) -> &Bytes {
        self.bytes.get_or_init(|| to_bytes(&self.value))
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        meta_text(&self.value, "name")
    }

    /// `metadata.namespace`; empty if cluster-scoped.
    pub fn namespace(&self) -> &str {
        meta_text(&self.value, "namespace")
    }

    /// `metadata.uid`.
    pub fn uid(&self) -> &str {
        meta_text(&self.value, "uid")
    }

    /// `metadata.labels`.
    pub fn labels(&self) -> Option<&Value> {
        self.value.get("metadata")?.get("labels")
    }
}

/// Serialises a JSON value; values have string keys only, so this cannot fail.
pub(super) fn to_bytes(value: &Value) -> Bytes {
    serde_json::to_vec(value).map(Bytes::from).expect("a JSON value has string keys and finite numbers")
}

/// A text field of `metadata`; empty if absent.
pub(super) fn meta_text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get("metadata").and_then(|meta| meta.get(field)).and_then(Value::as_str).unwrap_or_default()
}

/// A field of `metadata`, absent when null.
pub(super) fn meta<'a>(object: &'a Value, field: &str) -> Option<&'a Value> {
    object.get("metadata").and_then(|meta| meta.get(field)).filter(|value| !value.is_null())
}

/// `metadata` as a map, made if absent.
pub(super) fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    child(as_map(object), "metadata")
}

/// Sets a field of `metadata`.
pub(super) fn set_meta(object: &mut Value, field: &str, value: Value) {
    metadata(object).insert(field.to_owned(), value);
}

/// Copies a field of `metadata` from one object to another; removes it where the source has none.
pub(super) fn copy_meta(from: &Value, to: &mut Value, field: &str) {
    match meta(from, field) {
        Some(value) => set_meta(to, field, value.clone()),
        None => {
            metadata(to).remove(field);
        }
    }
}

/// Copies a top-level field; removes it where the source has none.
pub(super) fn copy_field(from: &Value, to: &mut Value, field: &str) {
    match from.get(field) {
        Some(value) => {
            as_map(to).insert(field.to_owned(), value.clone());
        }
        None => {
            as_map(to).remove(field);
        }
    }
}

/// `metadata.finalizers`.
pub(super) fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    meta(object, "finalizers").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// A value as a map; anything else is replaced by an empty one.
pub(super) fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("the value was made an object above")
}

/// A map inside a map, made if absent.
pub(super) fn child<'a>(parent: &'a mut Map<String, Value>, field: &str) -> &'a mut Map<String, Value> {
    as_map(parent.entry(field).or_insert(Value::Null))
}
