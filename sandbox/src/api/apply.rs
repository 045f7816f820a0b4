//! Server-side apply.
//!
//! Source: `sigs.k8s.io/structured-merge-diff/merge/update.go` (Apply), `k8s.io/apiserver/pkg/endpoints/handlers/patch.go`.

use super::builtin::BuiltinKind;
use super::convert;
use super::fieldset::{FieldSet, Step, fields_of, identity};
use super::incoming;
use super::managed::{self, Entry, Operation, Writer};
use super::object::{Object, as_map, copy_field, meta, meta_text, metadata};
use super::request::Verb;
use super::router::Call;
use super::schema::{ListType, Schema};
use super::server::Answer;
use super::status::{Cause, Details, Failure};
use super::store::State;
use super::write::{create_object, schema_of, update_object, writer};
use serde_json::{Map, Value};
use std::sync::{Arc, MutexGuard};

/// PATCH with `application/apply-patch+yaml`; the body must be JSON, which is YAML too.
pub(super) fn apply(
    call: &Call<'_>,
    mut state: MutexGuard<'_, State>,
    existing: Option<Arc<Object>>,
) -> Result<Answer, Failure> {
    if existing.is_none() && !call.target.subresource.is_empty() {
        return Err(call.not_found());
    }
    let writer = writer(call, Operation::Apply);
    let schema = schema_of(&call.resource, &call.target.version);
    let config = incoming::configuration(call)?;
    if meta(&config, "managedFields").is_some() {
        return Err(Failure::bad_request("metadata.managedFields must be nil"));
    }
    let has_status = call.version().status;
    let mut applied = fields_of(&schema, &config);
    managed::strip(&mut applied, &writer.subresource, has_status);
    let Some(existing) = existing else {
        drop(state);
        if !meta_text(&config, "uid").is_empty() {
            return Err(Failure::conflict(
                call.group(),
                &call.resource.plural,
                &call.target.name,
                &format!(
                    "uid mismatch: the provided object specified uid {}, and no existing object was found",
                    meta_text(&config, "uid")
                ),
            ));
        }
        let given = meta_text(&config, "name");
        if !given.is_empty() && given != call.target.name {
            return Err(other_name(call, given));
        }
        let mut object = config;
        if !call.info.dry_run() {
            metadata(&mut object).remove("resourceVersion");
        }
        metadata(&mut object).insert("name".to_owned(), Value::from(call.target.name.as_str()));
        let mut incoming = incoming::shape(call, object, Vec::new())?;
        managed::set_entries(&mut incoming.object, vec![Entry { writer: writer.clone(), fields: applied }]);
        return create_object(call, incoming, &writer);
    };
    let event = call.builtin() == Some(BuiltinKind::Event);
    let live = if event { existing.value().clone() } else { shown(call, &existing) };
    let mut config = config;
    let given = meta_text(&config, "name").to_owned();
    if call.target.subresource == "status" && call.builtin().is_none() {
        // Of the metadata only the precondition counts.
        metadata(&mut config).retain(|name, _| name == "resourceVersion");
    }
    let (object, entries) = merged(&schema, &live, &config, applied, &writer, has_status, call.info.flag("force"))?;
    if !given.is_empty() && given != call.target.name {
        return Err(other_name(call, &given));
    }
    let mut incoming = incoming::shape(call, object, Vec::new())?;
    managed::set_entries(&mut incoming.object, entries);
    update_object(call, &mut state, &existing, incoming, &writer, Verb::Patch)
}

fn other_name(call: &Call<'_>, given: &str) -> Failure {
    let wanted = &call.target.name;
    Failure::bad_request(format!("the name of the object ({given}) does not match the name on the URL ({wanted})"))
}

fn shown(call: &Call<'_>, existing: &Object) -> Value {
    convert::shown_as(&call.resource, call.group(), &call.target.version, existing.value())
}

/// The live object with the configuration applied, and who owns what then.
fn merged(
    schema: &Schema,
    live: &Value,
    config: &Value,
    applied: FieldSet,
    writer: &Writer,
    has_status: bool,
    force: bool,
) -> Result<(Value, Vec<Entry>), Failure> {
    let mut object = live.clone();
    let mut config = config.clone();
    if writer.subresource == "status" {
        let fields = as_map(&mut config);
        fields.retain(|name, _| matches!(name.as_str(), "metadata" | "status"));
    } else if has_status {
        as_map(&mut config).remove("status");
    }
    merge(schema, &mut object, &config);
    let mut entries = managed::entries(live);
    let last = entries.iter().find(|entry| entry.is_by(writer)).map(|entry| entry.fields.clone()).unwrap_or_default();
    // What this manager applied before and does not now goes, unless somebody else wants it too.
    let mut wanted = applied.clone();
    for entry in entries.iter().filter(|entry| !entry.is_by(writer)) {
        wanted = wanted.union(&entry.fields);
    }
    prune(schema, &mut object, &last.difference(&applied), &wanted);
    for field in ["apiVersion", "kind"] {
        copy_field(live, &mut object, field);
    }
    let comparison = managed::changes(schema, Some(live), &object, &writer.subresource, has_status);
    let taken = comparison.added.union(&comparison.modified);
    let mut conflicts: Vec<(Writer, FieldSet)> = Vec::new();
    for entry in entries.iter_mut().filter(|entry| !entry.is_by(writer)) {
        let conflict = entry.fields.intersection(&taken);
        if !conflict.is_empty() {
            conflicts.push((entry.writer.clone(), conflict));
            entry.fields = entry.fields.difference(&taken);
        }
        entry.fields = entry.fields.difference(&comparison.removed);
    }
    if !force && !conflicts.is_empty() {
        return Err(conflict(&conflicts));
    }
    match entries.iter_mut().find(|entry| entry.is_by(writer)) {
        Some(entry) if entry.fields == applied && entry.writer.api_version == writer.api_version => {}
        Some(entry) => {
            entry.fields = applied;
            entry.writer = writer.clone();
        }
        None => entries.push(Entry { writer: writer.clone(), fields: applied }),
    }
    Ok((object, entries))
}

/// Lays a configuration over a live value.
fn merge(schema: &Schema, live: &mut Value, config: &Value) {
    let untyped = Schema::anything();
    match (live, config) {
        (Value::Object(fields), Value::Object(changes)) if !schema.map_atomic => {
            for (name, change) in changes {
                let below = schema.field(name).map_or(&untyped, |below| below);
                match fields.get_mut(name) {
                    _present_or_not if change.is_null() => {
                        fields.remove(name);
                    }
                    Some(field) => merge(below, field, change),
                    None => {
                        fields.insert(name.clone(), change.clone());
                    }
                }
            }
        }
        (Value::Array(items), Value::Array(changes)) if schema.list_type != ListType::Atomic => {
            let below = schema.items.as_deref().unwrap_or(&untyped);
            let name = |item: &Value| identity(&schema.list_type, item);
            let before: Vec<Step> = items.iter().map(name).collect();
            let named: Vec<Step> = changes.iter().map(name).collect();
            for change in changes {
                let wanted = name(change);
                match items.iter_mut().find(|item| name(item) == wanted) {
                    Some(item) => merge(below, item, change),
                    None => items.push(change.clone()),
                }
            }
            let order = order(&before, &named);
            items.sort_by_key(|item| order.iter().position(|known| *known == name(item)));
        }
        (live, config) => *live = config.clone(),
    }
}

/// The order of a merged list: the configuration's, with the others where they stood.
///
/// Source: `sigs.k8s.io/structured-merge-diff/typed/merge.go` (mergeListItems).
fn order(live: &[Step], config: &[Step]) -> Vec<Step> {
    let mut shared = config.iter().filter(|step| live.contains(step)).peekable();
    let (mut live_at, mut config_at) = (0, 0);
    let mut order: Vec<Step> = Vec::new();
    while live_at < live.len() || config_at < config.len() {
        if let (Some(one), Some(other)) = (live.get(live_at), config.get(config_at)) {
            if one == other {
                order.push(one.clone());
                live_at += 1;
                config_at += 1;
                shared.next();
                continue;
            }
            if config.contains(one) && shared.peek().is_some_and(|next| *next != one) {
                live_at += 1;
                continue;
            }
        }
        if let Some(one) = live.get(live_at) {
            if !config.contains(one) {
                order.push(one.clone());
                live_at += 1;
                continue;
            }
            if order.contains(one) {
                live_at += 1;
            }
        }
        if let Some(other) = config.get(config_at) {
            order.push(other.clone());
            config_at += 1;
            if shared.peek().is_some_and(|next| *next == other) {
                shared.next();
            }
        }
    }
    order
}

/// Removes the members of `gone` from a value, but for those in `wanted` and what holds them.
fn prune(schema: &Schema, value: &mut Value, gone: &FieldSet, wanted: &FieldSet) {
    let untyped = Schema::anything();
    let nothing = FieldSet::default();
    for (step, gone) in &gone.below {
        let wanted = wanted.below.get(step).unwrap_or(&nothing);
        let unwanted = wanted.is_empty();
        match (step, &mut *value) {
            (Step::Field(name), Value::Object(fields)) => {
                let Some(field) = fields.get_mut(name) else {
                    continue;
                };
                let below = schema.field(name).map_or(&untyped, |below| below);
                if !(gone.member && unwanted) {
                    prune(below, field, gone, wanted);
                }
                let hollow =
                    field.as_object().is_some_and(Map::is_empty) || field.as_array().is_some_and(Vec::is_empty);
                if unwanted && (gone.member || hollow) {
                    fields.remove(name);
                }
            }
            (Step::Key(_) | Step::Value(_), Value::Array(items)) => {
                let found = items.iter().position(|item| identity(&schema.list_type, item) == *step);
                let Some(at) = found else { continue };
                if gone.member && unwanted {
                    items.remove(at);
                } else {
                    let below = schema.items.as_deref().unwrap_or(&untyped);
                    prune(below, &mut items[at], gone, wanted);
                }
            }
            (
                Step::Field(_) | Step::Key(_) | Step::Value(_),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_),
            ) => {}
        }
    }
}

/// 409: fields that other managers own.
fn conflict(conflicts: &[(Writer, FieldSet)]) -> Failure {
    let mut causes = Vec::new();
    let mut groups = Vec::new();
    for (writer, fields) in conflicts {
        let mut who = format!("\"{}\"", writer.manager);
        if !writer.subresource.is_empty() {
            who = format!("{who} with subresource \"{}\"", writer.subresource);
        }
        if writer.operation == Operation::Update {
            who = format!("{who} using {}", writer.api_version);
        }
        let paths = fields.paths();
        for path in &paths {
            causes.push(Cause {
                reason: "FieldManagerConflict".to_owned(),
                message: format!("conflict with {who}"),
                field: Some(path.clone()),
            });
        }
        groups.push((who, paths));
    }
    let message = if let [(who, paths)] = groups.as_slice()
        && let [path] = paths.as_slice()
    {
        format!("Apply failed with 1 conflict: conflict with {who}: {path}")
    } else {
        let lists: Vec<String> =
            groups.iter().map(|(who, paths)| format!("conflicts with {who}:\n- {}", paths.join("\n- "))).collect();
        format!("Apply failed with {} conflicts: {}", causes.len(), lists.join("\n"))
    };
    let mut failure = Failure::new(http::StatusCode::CONFLICT, "Conflict", message);
    failure.details = Some(Box::new(Details { causes, ..Details::default() }));
    failure
}
