//! The resources that are served: built-in ones and those of CustomResourceDefinitions.

use super::builtin::BuiltinKind;
use super::schema::Schema;
use serde_json::{Map, Value};
use std::sync::Arc;

/// One served resource in all its versions.
#[derive(Debug)]
pub struct Resource {
    /// API group; empty for core.
    pub group: String,
    /// Plural name, as in URLs.
    pub plural: String,
    /// Singular name.
    pub singular: String,
    /// Kind of one object.
    pub kind: String,
    /// Kind of a list.
    pub list_kind: String,
    /// Abbreviations for kubectl.
    pub short_names: Vec<String>,
    /// Groups of resources such as `all`.
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Versions, preferred first.
    pub versions: Vec<Version>,
    /// Index of the version that objects are stored in.
    pub storage: usize,
    /// What sets the resource apart.
    pub nature: Nature,
    /// OpenAPI definitions of a built-in kind, made when asked for.
    pub definitions: Option<Definitions>,
}

/// Makes OpenAPI definitions: the name of one, and all that it refers to.
pub type Definitions = fn() -> (String, Map<String, Value>);

/// Built in, or defined by a CustomResourceDefinition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nature {
    /// Built in.
    Builtin(BuiltinKind),
    /// Custom.
    Custom,
}

/// One version of a resource.
#[derive(Debug)]
pub struct Version {
    /// Name, such as `v1`.
    pub name: String,
    /// Whether it is served.
    pub served: bool,
    /// Whether it has `/status`.
    pub status: bool,
    /// Other subresources, such as `eviction`.
    pub subresources: Vec<&'static str>,
    /// The schema, for pruning, defaulting, validation and field ownership; absent where anything goes.
    pub schema: Option<Arc<Schema>>,
    /// The schema as its definition wrote it, for OpenAPI; custom resources only.
    pub raw_schema: Option<Arc<Value>>,
    /// Extra columns of server-side tables.
    pub columns: Vec<Column>,
    /// Deprecation warning sent with each answer.
    pub warning: Option<String>,
}

/// A column of server-side tables.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Heading.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: String,
    /// Format, mostly empty.
    pub format: String,
    /// What it shows.
    pub description: String,
    /// 0 = always shown; above 0 only with `-o wide`.
    pub priority: i64,
    /// JSONPath within the object.
    pub path: super::jsonpath::Path,
}

impl Resource {
    /// The version served under `name`.
    pub fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.served && version.name == name)
    }

    /// The version that objects are stored in.
    pub fn storage_version(&self) -> &Version {
        &self.versions[self.storage]
    }

    /// `group/version` of a version, or `version` in the core group.
    pub fn api_version(&self, version: &str) -> String {
        group_version(&self.group, version)
    }

    /// `plural.group`, or `plural` in the core group.
    pub fn qualified(&self) -> String {
        super::status::qualified(&self.group, &self.plural)
    }

    /// Whether `metadata.generation` counts changes of the specification.
    pub fn counts_generations(&self) -> bool {
        match self.nature {
            Nature::Builtin(kind) => kind.counts_generations(),
            Nature::Custom => true,
        }
    }

    /// Whether an update may leave out `metadata.resourceVersion`.
    pub fn allows_unconditional_update(&self) -> bool {
        match self.nature {
            Nature::Builtin(kind) => kind.allows_unconditional_update(),
            Nature::Custom => false,
        }
    }

    /// Whether a field selector may use `path`.
    pub fn selectable(&self, path: &str) -> bool {
        path == "metadata.name"
            || (path == "metadata.namespace" && (self.namespaced || self.nature != Nature::Custom))
            || match self.nature {
                Nature::Builtin(kind) => kind.selectable_fields().contains(&path),
                Nature::Custom => false,
            }
    }

    /// Whether it is a built-in kind without selectable fields of its own.
    pub(super) fn selects_by_name_only(&self) -> bool {
        match self.nature {
            Nature::Builtin(kind) => kind.selectable_fields().is_empty(),
            Nature::Custom => false,
        }
    }

    /// The object as the version `wanted` shows it; `None` if it is stored that way.
    pub fn converted(&self, object: &Value, wanted: &str) -> Option<Value> {
        let api_version = self.api_version(wanted);
        if object.get("apiVersion").and_then(Value::as_str) == Some(api_version.as_str()) {
            return None;
        }
        let mut object = object.clone();
        object["apiVersion"] = Value::from(api_version);
        Some(object)
    }
}

/// `group/version`, or `version` in the core group.
pub(super) fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}
