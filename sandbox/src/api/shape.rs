//! Brings an incoming object into its schema's shape: unknown fields are dropped and reported, defaults filled in.
//!
//! Source: `apiextensions-apiserver/pkg/apiserver/schema/{pruning,defaulting}`.

use super::schema::{Additional, Schema};
use super::trail::Trail;
use serde_json::{Map, Value};

/// The fields of `metadata` that the server knows.
const METADATA: [&str; 15] = [
    "annotations",
    "clusterName",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "uid",
];

/// Drops what the schema does not know, and nulls where none may be; returns the dropped paths in the order of the object.
pub(super) fn prune(schema: &Schema, object: &mut Value) -> Vec<String> {
    let mut dropped = Vec::new();
    prune_at(schema, object, &Trail::Root, true, &mut dropped);
    dropped
}

fn prune_at(schema: &Schema, value: &mut Value, path: &Trail<'_>, resource: bool, dropped: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let keeps_all = schema.preserve_unknown || matches!(schema.additional, Additional::Anything);
            let mut unknown = Vec::new();
            for (name, field) in fields.iter_mut() {
                if resource && matches!(name.as_str(), "apiVersion" | "kind") {
                    continue;
                }
                let child = path.field(name);
                if resource && name == "metadata" {
                    prune_metadata(field, &child, dropped);
                } else if let Some(below) = schema.properties.get(name) {
                    prune_at(below, field, &child, below.embedded, dropped);
                } else if let Additional::Schema(below) = &schema.additional {
                    prune_at(below, field, &child, below.embedded, dropped);
                } else if !keeps_all {
                    dropped.push(child.to_string());
                    unknown.push(name.clone());
                }
            }
            for name in unknown {
                fields.remove(&name);
            }
            // Nulls that may not be null and have no default count as absent.
            fields.retain(|name, field| {
                let below = schema.field(name);
                !field.is_null() || below.is_none_or(|below| below.nullable || below.default.is_some())
            });
        }
        Value::Array(items) => {
            if let Some(below) = &schema.items {
                for (at, item) in items.iter_mut().enumerate() {
                    prune_at(below, item, &Trail::Item(path, at), below.embedded, dropped);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn prune_metadata(metadata: &mut Value, path: &Trail<'_>, dropped: &mut Vec<String>) {
    let Value::Object(fields) = metadata else {
        return;
    };
    fields.retain(|name, _| {
        let known = METADATA.contains(&name.as_str());
        if !known {
            dropped.push(path.field(name).to_string());
        }
        known
    });
    fields.remove("selfLink");
}

/// Fills in defaults; a null where null is not allowed counts as absent if there is a default, and is dropped.
pub(super) fn default(schema: &Schema, value: &mut Value) {
    if !schema.has_defaults {
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, below) in &schema.properties {
                let replace_null = !below.nullable && below.default.is_some();
                if replace_null && fields.get(name).is_some_and(Value::is_null) {
                    fields.remove(name);
                }
                if let Some(default) = &below.default
                    && !fields.contains_key(name)
                {
                    fields.insert(name.clone(), default.clone());
                }
                if let Some(field) = fields.get_mut(name) {
                    self::default(below, field);
                }
            }
            if let Additional::Schema(below) = &schema.additional {
                for (name, field) in fields.iter_mut() {
                    if !schema.properties.contains_key(name) {
                        self::default(below, field);
                    }
                }
            }
        }
        Value::Array(items) => {
            if let Some(below) = &schema.items {
                for item in items {
                    self::default(below, item);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Removes null fields that the schema does not allow to be null, as typed decoding does for built-in kinds.
pub(super) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Decodes JSON and reports fields that occur twice in one map, by their path.
///
/// # Errors
/// What serde_json says of malformed input.
pub(super) fn decode_strictly(bytes: &[u8]) -> Result<(Value, Vec<String>), serde_json::Error> {
    use serde::de::DeserializeSeed as _;
    let mut duplicates = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { path: String::new(), duplicates: &mut duplicates }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok((value, duplicates))
}

struct Strict<'a> {
    path: String,
    duplicates: &'a mut Vec<String>,
}

impl<'de> serde::de::DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> serde::de::Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items
            .next_element_seed(Strict { path: format!("{}[{}]", self.path, list.len()), duplicates: self.duplicates })?
        {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            let path = if self.path.is_empty() { name.clone() } else { format!("{}.{name}", self.path) };
            if map.contains_key(&name) {
                self.duplicates.push(path.clone());
            }
            let field = fields.next_value_seed(Strict { path, duplicates: self.duplicates })?;
            map.insert(name, field);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> std::sync::Arc<Schema> {
        Schema::compile(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "default": {}, "properties": {
                "mode": {"type": "string", "default": "InPlace"},
                "nodes": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            }},
        }}))
    }

    #[test]
    fn unknown_fields_are_dropped_and_named_by_path() {
        let mut object = json!({
            "apiVersion": "x/v1", "kind": "X", "metadata": {"name": "n", "odd": 1},
            "spec": {"bogus": 1, "nodes": [{"name": "a"}, {"name": "b", "x": 1}], "free": {"y": {"z": 1}}, "labels": {"any": "v"}},
        });
        let dropped = prune(&schema(), &mut object);
        assert_eq!(dropped, ["metadata.odd", "spec.bogus", "spec.nodes[1].x"]);
        assert_eq!(object["spec"]["free"]["y"]["z"], json!(1));
        assert_eq!(object["spec"]["labels"]["any"], json!("v"));
    }

    #[test]
    fn defaults_fill_absent_and_null_fields() {
        let mut object = json!({});
        default(&schema(), &mut object);
        assert_eq!(object, json!({"spec": {"mode": "InPlace"}}));
        let mut object = json!({"spec": {"mode": null}});
        default(&schema(), &mut object);
        assert_eq!(object, json!({"spec": {"mode": "InPlace"}}));
    }

    #[test]
    fn duplicate_fields_are_named_by_path() {
        let (value, duplicates) = decode_strictly(br#"{"a":1,"b":[{"c":1,"c":2}],"a":2}"#).unwrap();
        assert_eq!(value, json!({"a": 2, "b": [{"c": 2}]}));
        assert_eq!(duplicates, ["b[0].c", "a"]);
    }
}
