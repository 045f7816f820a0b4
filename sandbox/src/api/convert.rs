//! Representations: other versions, the two shapes of Events, `PartialObjectMetadata`.

use super::builtin::BuiltinKind;
use super::object::as_map;
use super::resource::{Nature, Resource, group_version};
use super::status::Failure;
use super::watch::View;
use serde_json::{Map, Value, json};

/// Pairs of fields of v1 and events.k8s.io/v1 Events that mean the same.
const EVENT_FIELDS: [(&str, &str); 8] = [
    ("message", "note"),
    ("involvedObject", "regarding"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
    ("reportingInstance", "reportingInstance"),
];

/// The object as the group and version of `view` show it.
pub(super) fn outgoing(view: &View, object: &Value) -> Value {
    shown_as(&view.resource, &view.group, &view.version, object)
}

/// The object as `group/version` shows it.
pub(super) fn shown_as(resource: &Resource, group: &str, version: &str, object: &Value) -> Value {
    let mut object = object.clone();
    if group != resource.group && resource.nature == Nature::Builtin(BuiltinKind::Event) {
        rename(&mut object, |(core, events)| (core, events));
        // These have no way to be absent in one group, and are left out when empty in the other.
        for field in ["regarding", "reportingController", "reportingInstance"] {
            let empty = |value: &Value| value == "" || value.as_object().is_some_and(Map::is_empty);
            if object.get(field).is_some_and(empty) && field != "regarding" {
                as_map(&mut object).remove(field);
            }
        }
    }
    object["apiVersion"] = Value::from(group_version(group, version));
    object
}

/// The object as a list of `view` shows it: of built-in kinds without its type.
pub(super) fn listed(view: &View, object: &Value) -> Value {
    let mut object = outgoing(view, object);
    if view.resource.nature != Nature::Custom {
        for field in ["apiVersion", "kind"] {
            as_map(&mut object).remove(field);
        }
    }
    object
}

/// An incoming Event of events.k8s.io in the shape of the core group, in which Events are stored.
pub(super) fn incoming(resource: &Resource, group: &str, object: &mut Value) {
    if group != resource.group && resource.nature == Nature::Builtin(BuiltinKind::Event) {
        rename(object, |(core, events)| (events, core));
        object["apiVersion"] = Value::from(group_version(&resource.group, &resource.storage_version().name));
    }
}

/// The core name of an Event's field selector; each group knows only its own names.
pub(super) fn event_field(term: &str, group: &str) -> Result<String, Failure> {
    let path = term.split(['=', '!']).next().unwrap_or_default();
    let core = path.starts_with("involvedObject.") || matches!(path, "reportingComponent" | "source");
    let events = path.starts_with("regarding.") || path == "reportingController";
    if if group.is_empty() { events } else { core } {
        return Err(Failure::bad_request(format!("field label not supported: {path}")));
    }
    Ok(match term.strip_prefix("regarding.") {
        Some(rest) => format!("involvedObject.{rest}"),
        None => term.replacen("reportingController", "reportingComponent", 1),
    })
}

fn rename(event: &mut Value, direction: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str)) {
    let fields = as_map(event);
    for pair in EVENT_FIELDS {
        let (from, to) = direction(pair);
        if let Some(value) = fields.remove(from) {
            fields.insert(to.to_owned(), value);
        }
    }
}

/// The object's `PartialObjectMetadata`.
pub(super) fn partial(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object.get("metadata").cloned().unwrap_or_else(|| Value::Object(Map::new())),
    })
}
