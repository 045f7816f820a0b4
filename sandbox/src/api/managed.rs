//! `metadata.managedFields`: who set which field last, kept as the real server keeps it.
//!
//! Source: `sigs.k8s.io/structured-merge-diff/merge/update.go`, `apimachinery/pkg/util/managedfields`.

use super::fieldset::{Comparison, FieldSet, compare};
use super::object::{meta, metadata};
use super::resource::{Nature, Resource};
use super::schema::Schema;
use serde_json::{Value, json};

/// Managers by update that an object may have before the oldest are folded into one.
const UPDATE_MANAGERS_MAX: usize = 10;

/// Who writes, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Writer {
    pub(super) manager: String,
    pub(super) operation: Operation,
    pub(super) api_version: String,
    pub(super) subresource: String,
    /// Time of the write, in whole seconds, as text.
    pub(super) time: String,
}

/// How fields came to be owned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// PUT, POST, and patches other than apply.
    Update,
    /// Server-side apply.
    Apply,
}

impl Operation {
    fn word(self) -> &'static str {
        match self {
            Self::Update => "Update",
            Self::Apply => "Apply",
        }
    }
}

/// One entry of managedFields.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) writer: Writer,
    pub(super) fields: FieldSet,
}

impl Entry {
    pub(super) fn is_by(&self, writer: &Writer) -> bool {
        let mine = &self.writer;
        mine.manager == writer.manager
            && mine.operation == writer.operation
            && mine.subresource == writer.subresource
            && (mine.operation == Operation::Apply || mine.api_version == writer.api_version)
    }
}

/// The entries of an object.
pub(super) fn entries(object: &Value) -> Vec<Entry> {
    let list = meta(object, "managedFields").and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(|entry| {
            let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
            Some(Entry {
                writer: Writer {
                    manager: text("manager").to_owned(),
                    operation: match text("operation") {
                        "Apply" => Operation::Apply,
                        "Update" => Operation::Update,
                        _unknown => return None,
                    },
                    api_version: text("apiVersion").to_owned(),
                    subresource: text("subresource").to_owned(),
                    time: text("time").to_owned(),
                },
                fields: FieldSet::decode(entry.get("fieldsV1")?),
            })
        })
        .collect()
}

/// Writes the entries into an object, in the order of the real server.
pub(super) fn set_entries(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|entry| !entry.fields.is_empty());
    fold_oldest(&mut entries);
    entries.sort_by(|a, b| {
        let order = |entry: &Entry| {
            (
                // Apply entries come first.
                entry.writer.operation == Operation::Update,
                entry.writer.time.clone(),
                entry.writer.manager.clone(),
                entry.writer.api_version.clone(),
                entry.writer.subresource.clone(),
            )
        };
        order(a).cmp(&order(b))
    });
    let list: Vec<Value> = entries.iter().map(encode).collect();
    if list.is_empty() {
        metadata(object).remove("managedFields");
    } else {
        metadata(object).insert("managedFields".to_owned(), Value::Array(list));
    }
}

fn encode(entry: &Entry) -> Value {
    let writer = &entry.writer;
    let mut value = json!({
        "manager": writer.manager, "operation": writer.operation.word(),
        "apiVersion": writer.api_version, "time": writer.time,
        "fieldsType": "FieldsV1", "fieldsV1": entry.fields.encode(),
    });
    if !writer.subresource.is_empty() {
        value["subresource"] = Value::from(writer.subresource.as_str());
    }
    value
}

/// Folds the oldest managers by update into `ancient-changes`, so that the list stays bounded.
fn fold_oldest(entries: &mut Vec<Entry>) {
    let updates = entries.iter().filter(|entry| entry.writer.operation == Operation::Update).count();
    if updates <= UPDATE_MANAGERS_MAX {
        return;
    }
    let mut by_age: Vec<usize> =
        (0..entries.len()).filter(|at| entries[*at].writer.operation == Operation::Update).collect();
    by_age.sort_by_key(|at| entries[*at].writer.time.clone());
    by_age.truncate(updates - UPDATE_MANAGERS_MAX + 1);
    by_age.sort_unstable();
    let mut folded: Option<Entry> = None;
    for at in by_age.into_iter().rev() {
        let entry = entries.remove(at);
        folded = Some(match folded {
            None => entry,
            Some(older) => Entry { writer: older.writer, fields: older.fields.union(&entry.fields) },
        });
    }
    if let Some(mut entry) = folded {
        "ancient-changes".clone_into(&mut entry.writer.manager);
        entry.writer.subresource.clear();
        entries.push(entry);
    }
}

/// Fields that no manager owns: the server's own.
const UNOWNED: [&[&str]; 10] = [
    &["apiVersion"],
    &["kind"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "resourceVersion"],
];

/// Removes what cannot be owned through this write: the server's own fields, and the other half of the object.
pub(super) fn strip(set: &mut FieldSet, subresource: &str, has_status: bool) {
    set.member = false;
    if subresource == "status" {
        set.keep_only("status");
        return;
    }
    for path in UNOWNED {
        set.remove_recursively(path);
    }
    let metadata = super::fieldset::Step::Field("metadata".to_owned());
    if let Some(below) = set.below.get_mut(&metadata) {
        below.member = false;
        if below.is_empty() {
            set.below.remove(&metadata);
        }
    }
    if has_status && subresource.is_empty() {
        set.remove_recursively(&["status"]);
    }
}

/// What changed between two revisions, as far as `writer` may own it.
pub(super) fn changes(
    schema: &Schema,
    old: Option<&Value>,
    new: &Value,
    subresource: &str,
    has_status: bool,
) -> Comparison {
    let mut comparison = compare(schema, old, Some(new));
    strip(&mut comparison.added, subresource, has_status);
    strip(&mut comparison.modified, subresource, has_status);
    strip(&mut comparison.removed, subresource, has_status);
    comparison
}

/// What a typed object has before anything is set: its specification and status are structures that are always there.
pub(super) fn blank(resource: &Resource, object: &Value) -> Option<Value> {
    if resource.nature == Nature::Custom {
        return None;
    }
    let mut blank = json!({"metadata": {}});
    for half in ["spec", "status"] {
        if object.get(half).is_some_and(Value::is_object) {
            blank[half] = json!({});
        }
    }
    if resource.kind == "Pod" {
        blank["spec"]["containers"] = json!([]);
    }
    Some(blank)
}

/// Records an update by `writer` in the entries of `new`, which holds those of `old` (or of the request, where it brings some).
pub(super) fn record_update(schema: &Schema, old: Option<&Value>, new: &mut Value, writer: &Writer, has_status: bool) {
    let comparison = changes(schema, old, new, &writer.subresource, has_status);
    if comparison.is_empty() {
        return;
    }
    let mut entries = entries(new);
    let taken = comparison.added.clone().union(&comparison.modified);
    // The usual case: the same manager writes its own fields again, and nothing changes hands.
    let settled = comparison.removed.is_empty()
        && entries.iter().all(|entry| {
            if entry.is_by(writer) { taken.within(&entry.fields) } else { entry.fields.intersection(&taken).is_empty() }
        })
        && entries.iter().any(|entry| entry.is_by(writer));
    if settled {
        return;
    }
    let mut found = false;
    for entry in &mut entries {
        let before = entry.fields.clone();
        entry.fields = entry.fields.difference(&comparison.removed);
        if entry.is_by(writer) {
            found = true;
            entry.fields = std::mem::take(&mut entry.fields).union(&taken);
            if entry.fields != before {
                entry.writer.time.clone_from(&writer.time);
            }
        } else {
            entry.fields = entry.fields.difference(&taken);
        }
    }
    if !found {
        entries.push(Entry { writer: writer.clone(), fields: taken });
    }
    set_entries(new, entries);
}
