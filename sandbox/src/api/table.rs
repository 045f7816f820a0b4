//! Server-side tables: what `kubectl get` shows.
//!
//! Source: `k8s.io/kubernetes/pkg/printers/internalversion/printers.go`,
//! `apiextensions-apiserver/pkg/registry/customresource/tableconvertor`.

use super::columns;
use super::convert;
use super::object::{Object, meta_text};
use super::resource::{Column, Nature};
use super::watch::View;
use chrono::DateTime;
use cupcake_engine::clock::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

const NAME_DESCRIPTION: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";

/// What a row carries besides its cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IncludeObject {
    /// Nothing.
    None,
    /// The object's metadata.
    Metadata,
    /// The object.
    Object,
}

/// A table of `objects`.
pub(super) fn of<'a>(
    view: &View,
    objects: impl Iterator<Item = &'a Arc<Object>>,
    include: IncludeObject,
    now: Timestamp,
    metadata: &Value,
) -> Value {
    let rows: Vec<Value> = objects.map(|object| row(view, object, include, now)).collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": definitions(view), "rows": rows,
    })
}

/// The table of one event of a watch: only the first carries the columns.
pub(super) fn of_watch(
    view: &View,
    object: &Arc<Object>,
    include: IncludeObject,
    first: bool,
    now: Timestamp,
) -> Value {
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": object.revision().to_string()},
        "columnDefinitions": if first { definitions(view) } else { Value::Null },
        "rows": [row(view, object, include, now)],
    })
}

fn definitions(view: &View) -> Value {
    let mut columns = vec![json!({
        "name": "Name", "type": "string", "format": "name", "priority": 0,
        "description": NAME_DESCRIPTION,
    })];
    match view.resource.nature {
        Nature::Custom => {
            let version = view.resource.version(&view.version);
            columns.extend(version.into_iter().flat_map(|version| &version.columns).map(|column| {
                json!({
                    "name": column.name, "type": column.kind, "format": column.format,
                    "description": column.description, "priority": column.priority,
                })
            }));
        }
        Nature::Builtin(_) => {
            columns.extend(columns::of(&view.resource.kind).iter().map(|column| {
                json!({
                    "name": column.name, "type": column.kind, "description": "",
                    "format": if column.name == "Name" { "name" } else { "" },
                    "priority": column.priority,
                })
            }));
            // Events have no name column; their object column stands for it.
            if view.resource.kind == "Event" {
                columns.remove(0);
            }
        }
    }
    Value::Array(columns)
}

fn row(view: &View, object: &Arc<Object>, include: IncludeObject, now: Timestamp) -> Value {
    let value = object.value();
    let mut cells = vec![Value::from(meta_text(value, "name"))];
    match view.resource.nature {
        Nature::Custom => {
            let version = view.resource.version(&view.version);
            let columns = version.into_iter().flat_map(|version| &version.columns);
            cells.extend(columns.map(|column| cell(column, value, now)));
        }
        Nature::Builtin(_) => {
            let columns = columns::of(&view.resource.kind);
            cells.extend(columns.iter().map(|column| (column.cell)(value, now)));
            if view.resource.kind == "Event" {
                cells.remove(0);
            }
        }
    }
    let mut row = json!({"cells": cells});
    let ended = match value["status"]["phase"].as_str() {
        Some("Succeeded") => "The pod has completed successfully.",
        Some("Failed") => "The pod failed.",
        _not_ended => "",
    };
    if view.resource.kind == "Pod" && !ended.is_empty() {
        let phase = &value["status"]["phase"];
        row["conditions"] = json!([{"type": "Completed", "status": "True", "reason": phase, "message": ended}]);
    }
    match include {
        IncludeObject::None => {}
        IncludeObject::Metadata => row["object"] = convert::partial(value),
        IncludeObject::Object => row["object"] = convert::outgoing(view, value),
    }
    row
}

/// A cell of a custom resource.
fn cell(column: &Column, object: &Value, now: Timestamp) -> Value {
    let Some(found) = column.path.find(object).filter(|found| !found.is_null()) else {
        return Value::Null;
    };
    match (column.kind.as_str(), found) {
        ("string", Value::String(_)) | ("boolean", Value::Bool(_)) | ("integer" | "number", Value::Number(_)) => {
            found.clone()
        }
        ("string", other) => Value::from(other.to_string()),
        ("date", Value::String(text)) => Value::from(age(text, now)),
        _other_type => Value::Null,
    }
}

/// Time since `stamp`, as kubectl writes ages; `<unknown>` if empty, `<invalid>` if it is no time.
pub(super) fn age(stamp: &str, now: Timestamp) -> String {
    if stamp.is_empty() {
        return "<unknown>".to_owned();
    }
    match DateTime::parse_from_rfc3339(stamp) {
        Ok(at) => human((now - at.to_utc()).num_seconds()),
        Err(_invalid) => "<invalid>".to_owned(),
    }
}

/// A length of time in two units at most.
///
/// Source: `k8s.io/apimachinery/pkg/util/duration/duration.go` (HumanDuration).
fn human(seconds: i64) -> String {
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{small_unit}") }
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match () {
        () if seconds < -1 => "<invalid>".to_owned(),
        () if seconds < 0 => "0s".to_owned(),
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 192 => two(hours / 24, "d", hours % 24, "h"),
        () if hours < 24 * 365 * 2 => format!("{}d", hours / 24),
        () if hours < 24 * 365 * 8 => two(hours / 24 / 365, "y", (hours / 24) % 365, "d"),
        () => format!("{}y", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_kubectl_writes_them() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (119, "119s"),
            (120, "2m"),
            (150, "2m30s"),
            (600, "10m"),
            (10_800, "3h"),
            (11_100, "3h5m"),
            (90_000, "25h"),
            (180_000, "2d2h"),
            (864_000, "10d"),
            (64_000_000, "2y10d"),
        ] {
            assert_eq!(human(seconds), text);
        }
    }
}
