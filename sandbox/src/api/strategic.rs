//! Strategic merge patch for built-in kinds: lists merged by key, and its directives.
//!
//! Source: `k8s.io/apimachinery/pkg/util/strategicpatch`.

use super::schema::{ListType, Schema};
use serde_json::{Map, Value};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

/// Merges `patch` into `object`.
///
/// # Errors
/// A sentence for the client: what in the patch is not understood.
pub(super) fn merge(schema: &Schema, object: &mut Value, patch: &Value) -> Result<(), String> {
    let untyped = Schema::anything();
    let Some(patch) = patch.as_object() else {
        *object = patch.clone();
        return Ok(());
    };
    match patch.get(DIRECTIVE).and_then(Value::as_str) {
        Some("replace") => {
            let mut whole = patch.clone();
            whole.remove(DIRECTIVE);
            *object = Value::Object(whole);
            return Ok(());
        }
        Some("delete") => {
            *object = Value::Object(Map::new());
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => return Err(format!("Unknown patch type found: {other}")),
    }
    let fields = super::object::as_map(object);
    if let Some(keep) = patch.get(RETAIN_KEYS).and_then(Value::as_array) {
        fields.retain(|name, _| keep.iter().any(|kept| kept == name));
    }
    for (name, change) in patch {
        if let Some(list) = name.strip_prefix(DELETE_FROM) {
            let gone = change.as_array().map_or(&[][..], Vec::as_slice);
            if let Some(items) = fields.get_mut(list).and_then(Value::as_array_mut) {
                items.retain(|item| !gone.contains(item));
            }
            continue;
        }
        if name == DIRECTIVE || name == RETAIN_KEYS || name.starts_with(ORDER) {
            continue;
        }
        let below = schema.field(name).map_or(&untyped, |below| below);
        match change {
            Value::Null => {
                fields.remove(name);
            }
            Value::Object(_) => {
                let field = fields.entry(name.clone()).or_insert_with(|| Value::Object(Map::new()));
                merge(below, field, change)?;
            }
            Value::Array(items) => {
                let field = fields.entry(name.clone()).or_insert_with(|| Value::Array(Vec::new()));
                merge_list(below, field, items)?;
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                fields.insert(name.clone(), change.clone());
            }
        }
    }
    reorder(schema, fields, patch);
    Ok(())
}

fn merge_list(schema: &Schema, list: &mut Value, changes: &[Value]) -> Result<(), String> {
    let untyped = Schema::anything();
    let below = schema.items.as_deref().unwrap_or(&untyped);
    if !list.is_array() {
        *list = Value::Array(Vec::new());
    }
    let Some(items) = list.as_array_mut() else {
        return Ok(());
    };
    match &schema.list_type {
        ListType::Atomic => *items = changes.to_vec(),
        ListType::Set => {
            for change in changes {
                if !items.contains(change) {
                    items.push(change.clone());
                }
            }
        }
        ListType::Map(keys) => {
            // The first key is the merge key: the others only tell items apart for field ownership.
            let Some(key) = keys.first() else {
                *items = changes.to_vec();
                return Ok(());
            };
            if changes.iter().any(|change| change[DIRECTIVE] == "replace") {
                *items = changes.iter().filter(|change| change.get(DIRECTIVE).is_none()).cloned().collect();
                return Ok(());
            }
            let before: Vec<Value> = items.iter().filter_map(|item| item.get(key).cloned()).collect();
            for change in changes {
                let Some(wanted) = change.get(key) else {
                    return Err(format!("map: {change} does not contain declared merge key: {key}"));
                };
                let found = items.iter().position(|item| item.get(key) == Some(wanted));
                match (change[DIRECTIVE].as_str(), found) {
                    (Some("delete"), Some(at)) => {
                        items.remove(at);
                    }
                    (Some("delete"), None) => {}
                    (_, Some(at)) => merge(below, &mut items[at], change)?,
                    (_, None) => {
                        let mut item = Value::Object(Map::new());
                        merge(below, &mut item, change)?;
                        items.push(item);
                    }
                }
            }
            let named: Vec<Value> = changes.iter().filter_map(|change| change.get(key).cloned()).collect();
            interleave(items, key, &before, &named);
        }
    }
    Ok(())
}

/// Items that the patch names in its order, the others in theirs; between the two, as they stood before, or else the named first.
///
/// Source: `k8s.io/apimachinery/pkg/util/strategicpatch/patch.go` (normalizeElementOrder, mergeSortedSlice).
fn interleave(items: &mut Vec<Value>, key: &str, before: &[Value], named: &[Value]) {
    let place = |list: &[Value], item: &Value| list.iter().position(|known| Some(known) == item.get(key));
    let (mut right, left): (Vec<Value>, Vec<Value>) = items.drain(..).partition(|item| place(named, item).is_some());
    right.sort_by_key(|item| place(named, item));
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some(one), Some(other)) = (left.peek(), right.peek()) {
        let first = matches!((place(before, one), place(before, other)), (Some(one), Some(other)) if one < other);
        items.extend(if first { left.next() } else { right.next() });
    }
    items.extend(left.chain(right));
}

/// Puts keyed lists into the order that the patch names; items that it does not name come after.
fn reorder(schema: &Schema, fields: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (name, order) in patch {
        let Some(list) = name.strip_prefix(ORDER) else {
            continue;
        };
        let Some(order) = order.as_array() else {
            continue;
        };
        let key = match schema.field(list).map(|below| &below.list_type) {
            Some(ListType::Map(keys)) => keys.first().cloned(),
            Some(ListType::Set | ListType::Atomic) | None => None,
        };
        if let Some(items) = fields.get_mut(list).and_then(Value::as_array_mut) {
            items.sort_by_key(|item| {
                order
                    .iter()
                    .position(|wanted| match &key {
                        Some(key) => wanted.get(key) == item.get(key),
                        None => wanted == item,
                    })
                    .unwrap_or(usize::MAX)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> std::sync::Arc<Schema> {
        Schema::compile(&json!({"type": "object", "properties": {
            "taints": {"type": "array", "items": {"type": "object"}},
            "conditions": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
                "items": {"type": "object", "properties": {"type": {"type": "string"}, "status": {"type": "string"}}}},
            "finalizers": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        }}))
    }

    #[test]
    fn lists_are_merged_by_key_and_directives_are_obeyed() {
        let mut object = json!({
            "taints": [{"key": "a"}], "conditions": [{"type": "Ready", "status": "True", "reason": "x"}, {"type": "Old"}],
            "finalizers": ["f", "g"], "labels": {"a": "1", "b": "2"}, "unschedulable": true,
        });
        let patch = json!({
            "taints": [{"key": "b"}],
            "conditions": [{"type": "Ready", "status": "False"}, {"type": "Old", "$patch": "delete"}, {"type": "New"}],
            "$setElementOrder/conditions": [{"type": "New"}, {"type": "Ready"}],
            "$deleteFromPrimitiveList/finalizers": ["g"], "finalizers": ["h"],
            "labels": {"a": null}, "unschedulable": null,
        });
        merge(&schema(), &mut object, &patch).unwrap();
        assert_eq!(
            object,
            json!({
                "taints": [{"key": "b"}],
                "conditions": [{"type": "New"}, {"type": "Ready", "status": "False", "reason": "x"}],
                "finalizers": ["f", "h"], "labels": {"b": "2"},
            })
        );
    }
}
