//! Sets of fields, as managedFields record them, and the comparison of two objects in such sets.
//!
//! Source: `sigs.k8s.io/structured-merge-diff` (fieldpath, typed/compare.go, typed/tofieldset.go).

use super::schema::{ListType, Schema};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// A field of a map.
    Field(String),
    /// An item of a keyed list: its keys as compact JSON.
    Key(String),
    /// An item of a set: its value as compact JSON.
    Value(String),
}

impl Step {
    fn encode(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(keys) => format!("k:{keys}"),
            Self::Value(value) => format!("v:{value}"),
        }
    }

    fn decode(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        match kind {
            "f" => Some(Self::Field(rest.to_owned())),
            "k" => Some(Self::Key(rest.to_owned())),
            "v" => Some(Self::Value(rest.to_owned())),
            _index => None,
        }
    }

    /// The step as messages show it: `.name`, `[name="x"]`, `["x"]`.
    fn show(&self) -> String {
        match self {
            Self::Field(name) => format!(".{name}"),
            Self::Value(value) => format!("[={value}]"),
            Self::Key(keys) => {
                let parts = serde_json::from_str::<BTreeMap<String, Value>>(keys).unwrap_or_default();
                let shown: Vec<String> = parts.iter().map(|(name, value)| format!("{name}={value}")).collect();
                format!("[{}]", shown.join(","))
            }
        }
    }
}

/// A set of paths, as a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FieldSet {
    /// The path that leads here is itself a member.
    pub(super) member: bool,
    pub(super) below: BTreeMap<Step, FieldSet>,
}

impl FieldSet {
    pub(super) fn is_empty(&self) -> bool {
        !self.member && self.below.values().all(Self::is_empty)
    }

    fn child(&mut self, step: Step) -> &mut Self {
        self.below.entry(step).or_default()
    }

    fn tidy(mut self) -> Self {
        self.below.retain(|_, below| !below.is_empty());
        self
    }

    pub(super) fn union(mut self, other: &Self) -> Self {
        self.merge(other);
        self
    }

    fn merge(&mut self, other: &Self) {
        self.member |= other.member;
        for (step, below) in &other.below {
            self.child(step.clone()).merge(below);
        }
    }

    pub(super) fn difference(&self, other: &Self) -> Self {
        let below = self.below.iter().map(|(step, mine)| {
            let left = match other.below.get(step) {
                Some(theirs) => mine.difference(theirs),
                None => mine.clone(),
            };
            (step.clone(), left)
        });
        Self { member: self.member && !other.member, below: below.collect() }.tidy()
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        let below = self
            .below
            .iter()
            .filter_map(|(step, mine)| Some((step.clone(), mine.intersection(other.below.get(step)?))));
        Self { member: self.member && other.member, below: below.collect() }.tidy()
    }

    /// Whether every member of `self` is one of `other`.
    pub(super) fn within(&self, other: &Self) -> bool {
        (!self.member || other.member)
            && self.below.iter().all(|(step, mine)| match other.below.get(step) {
                Some(theirs) => mine.within(theirs),
                None => mine.is_empty(),
            })
    }

    /// Drops a path and all below it.
    pub(super) fn remove_recursively(&mut self, path: &[&str]) {
        match path {
            [] => {}
            [last] => {
                self.below.remove(&Step::Field((*last).to_owned()));
            }
            [first, rest @ ..] => {
                let step = Step::Field((*first).to_owned());
                if let Some(below) = self.below.get_mut(&step) {
                    below.remove_recursively(rest);
                    if below.is_empty() {
                        self.below.remove(&step);
                    }
                }
            }
        }
    }

    /// Keeps only the top-level field `name` of the set.
    pub(super) fn keep_only(&mut self, name: &str) {
        self.below.retain(|step, _| matches!(step, Step::Field(field) if field == name));
    }

    /// The `fieldsV1` form.
    pub(super) fn encode(&self) -> Value {
        let mut map = Map::new();
        if self.member && !self.below.is_empty() {
            map.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (step, below) in &self.below {
            map.insert(step.encode(), below.encode());
        }
        Value::Object(map)
    }

    /// Reads the `fieldsV1` form.
    pub(super) fn decode(value: &Value) -> Self {
        let mut set = Self::default();
        let Some(map) = value.as_object() else {
            return set;
        };
        for (name, below) in map {
            if name == "." {
                set.member = true;
            } else if let Some(step) = Step::decode(name) {
                let mut child = Self::decode(below);
                // A leaf has no children and is a member by being there.
                child.member |= child.below.is_empty();
                set.below.insert(step, child);
            }
        }
        set
    }

    /// All members as messages show them, in order.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths(&mut String::new(), &mut paths);
        paths
    }

    fn collect_paths(&self, prefix: &mut String, paths: &mut Vec<String>) {
        if self.member {
            paths.push(prefix.clone());
        }
        for (step, below) in &self.below {
            let length = prefix.len();
            prefix.push_str(&step.show());
            below.collect_paths(prefix, paths);
            prefix.truncate(length);
        }
    }
}

/// What changed between two objects.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) added: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) removed: FieldSet,
}

impl Comparison {
    pub(super) fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }
}

/// Compares two objects under a schema.
pub(super) fn compare(schema: &Schema, old: Option<&Value>, new: Option<&Value>) -> Comparison {
    let mut comparison = Comparison::default();
    compare_at(schema, old, new, &mut comparison.added, &mut comparison.modified, &mut comparison.removed);
    Comparison {
        added: comparison.added.tidied(),
        modified: comparison.modified.tidied(),
        removed: comparison.removed.tidied(),
    }
}

impl FieldSet {
    fn tidied(self) -> Self {
        let below = self
            .below
            .into_iter()
            .map(|(step, below)| (step, below.tidied()))
            .filter(|(_, below)| !below.is_empty())
            .collect();
        Self { member: self.member, below }
    }
}

/// Whether lists and maps of this schema are one value.
fn atomic(schema: &Schema, value: &Value) -> bool {
    match value {
        Value::Array(_) => schema.list_type == ListType::Atomic,
        Value::Object(_) => schema.map_atomic,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

fn compare_at(
    schema: &Schema,
    old: Option<&Value>,
    new: Option<&Value>,
    added: &mut FieldSet,
    modified: &mut FieldSet,
    removed: &mut FieldSet,
) {
    let leaf = |value: Option<&Value>| value.is_none_or(|value| atomic(schema, value) || is_hollow(value));
    let same_kind = match (old, new) {
        (Some(old), Some(new)) => (old.is_object() && new.is_object()) || (old.is_array() && new.is_array()),
        (_, _) => true,
    };
    if (leaf(old) && leaf(new)) || !same_kind {
        match (old, new) {
            (None, Some(_)) => added.member = true,
            (Some(_), None) => removed.member = true,
            (Some(old), Some(new)) if old != new => modified.member = true,
            (Some(_), Some(_)) | (None, None) => {}
        }
        return;
    }
    match (old, new) {
        (None, _) => added.member = true,
        (_, None) => removed.member = true,
        (Some(old), Some(new)) => {
            if old == new {
                return;
            }
        }
    }
    let either = new.or(old);
    let untyped;
    match either {
        Some(Value::Object(_)) => {
            let empty = Map::new();
            let olds = old.and_then(Value::as_object).unwrap_or(&empty);
            let news = new.and_then(Value::as_object).unwrap_or(&empty);
            untyped = Schema::anything();
            let names = olds.keys().chain(news.keys().filter(|name| !olds.contains_key(*name)));
            for name in names {
                let below = schema.field(name).map_or(&untyped, |below| below);
                let (old, new) = (olds.get(name), news.get(name));
                if old == new {
                    continue;
                }
                let step = Step::Field(name.clone());
                compare_at(
                    below,
                    old,
                    new,
                    added.child(step.clone()),
                    modified.child(step.clone()),
                    removed.child(step),
                );
            }
        }
        Some(Value::Array(_)) => {
            let olds = identified(schema, old);
            let news = identified(schema, new);
            untyped = Schema::anything();
            let below = schema.items.as_deref().unwrap_or(&untyped);
            let steps = olds.keys().chain(news.keys().filter(|step| !olds.contains_key(*step)));
            for step in steps {
                let (old, new) = (olds.get(step).copied(), news.get(step).copied());
                compare_at(
                    below,
                    old,
                    new,
                    added.child(step.clone()),
                    modified.child(step.clone()),
                    removed.child(step.clone()),
                );
            }
        }
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) | None => {}
    }
}

fn is_hollow(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

/// The items of a keyed list or set by their identity.
fn identified<'a>(schema: &Schema, list: Option<&'a Value>) -> BTreeMap<Step, &'a Value> {
    let items = list.and_then(Value::as_array).into_iter().flatten();
    items.map(|item| (identity(&schema.list_type, item), item)).collect()
}

/// What tells an item of a list apart.
pub(super) fn identity(list_type: &ListType, item: &Value) -> Step {
    match list_type {
        ListType::Map(keys) => {
            // The one key that has a default in a built-in kind.
            let default = |key: &str| (key == "protocol").then(|| Value::from("TCP"));
            let value = |key: &str| item.get(key).cloned().or_else(|| default(key));
            let keys: Map<String, Value> = keys.iter().filter_map(|key| Some((key.clone(), value(key)?))).collect();
            Step::Key(Value::Object(keys).to_string())
        }
        ListType::Set | ListType::Atomic => Step::Value(item.to_string()),
    }
}

/// The fields that an applied configuration sets.
pub(super) fn fields_of(schema: &Schema, value: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    fields_at(schema, value, &mut set);
    set
}

fn fields_at(schema: &Schema, value: &Value, set: &mut FieldSet) {
    if atomic(schema, value) {
        set.member = true;
        return;
    }
    let untyped = Schema::anything();
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let typed = schema.properties.contains_key(name);
                let below = schema.field(name).map_or(&untyped, |below| below);
                let child = set.child(Step::Field(name.clone()));
                fields_at(below, field, child);
                let hollow_map = field.as_object().is_some_and(Map::is_empty);
                child.member |= field.is_null() || hollow_map || !typed;
            }
        }
        Value::Array(items) => {
            let below = schema.items.as_deref().unwrap_or(&untyped);
            for item in items {
                let child = set.child(identity(&schema.list_type, item));
                fields_at(below, item, child);
                child.member = true;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => set.member = true,
    }
}
