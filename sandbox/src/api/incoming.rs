//! Incoming objects: decoding, strictness, and the schema's shape.

use super::builtin::BuiltinKind;
use super::convert;
use super::object::{meta_text, metadata};
use super::protobuf;
use super::request::Verb;
use super::resource::{Nature, group_version};
use super::router::Call;
use super::shape;
use super::status::{Failure, FieldError, FieldErrorKind};
use super::validate;
use serde_json::Value;

/// An object from a request, in its schema's shape, and what to warn the client of.
pub(super) struct Incoming {
    pub(super) object: Value,
    pub(super) warnings: Vec<String>,
}

/// What to do with fields that the schema does not know.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strictness {
    Strict,
    Warn,
    Ignore,
}

fn strictness(call: &Call<'_>) -> Strictness {
    match call.info.parameter("fieldValidation") {
        Some("Strict") => Strictness::Strict,
        Some("Ignore") => Strictness::Ignore,
        _warn_or_none => Strictness::Warn,
    }
}

/// 415 for a body that is neither JSON nor what a patch may be.
pub(super) fn check_media(call: &Call<'_>) -> Result<(), Failure> {
    if call.info.content_type == protobuf::MEDIA_TYPE
        || matches!(call.info.content_type.as_str(), "" | "application/json" | "*/*")
    {
        return Ok(());
    }
    Err(Failure::unsupported_media_type(
        "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf",
    ))
}

/// Decodes a request's body.
pub(super) fn decode(call: &Call<'_>, body: &[u8]) -> Result<Incoming, Failure> {
    if call.info.content_type == protobuf::MEDIA_TYPE {
        return shape(call, call.info.decoded()?, Vec::new());
    }
    check_media(call)?;
    // Only clients that name a strictness pay for the search for duplicates.
    let (object, duplicates) = if call.info.parameter("fieldValidation").is_some() {
        shape::decode_strictly(body)
    } else {
        serde_json::from_slice(body).map(|value| (value, Vec::new()))
    }
    .map_err(|error| {
        Failure::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: {error}",
            call.resource.kind
        ))
    })?;
    shape(call, object, duplicates)
}

/// Decodes a configuration for server-side apply: checked for unknown fields, but without defaults.
pub(super) fn configuration(call: &Call<'_>) -> Result<Value, Failure> {
    let mut object: Value = serde_json::from_slice(&call.info.body)
        .map_err(|error| Failure::bad_request(format!("error decoding YAML: {error}")))?;
    let api_version = group_version(call.group(), &call.target.version);
    if object["kind"].as_str().unwrap_or_default().is_empty() {
        return Err(Failure::bad_request(format!(
            "invalid object type: {}/{}, Kind=",
            call.group(),
            call.target.version
        )));
    }
    check_type(call, &mut object, &api_version)?;
    metadata(&mut object);
    convert::incoming(&call.resource, call.group(), &mut object);
    if let Some(schema) = &call.version().schema {
        let unknown = shape::prune(schema, &mut object);
        // Apply knows no leniency: a field without a type cannot be owned.
        if let Some(path) = unknown.first() {
            return Err(Failure::new(
                http::StatusCode::INTERNAL_SERVER_ERROR,
                "",
                format!(
                    "failed to create typed patch object ({}/{}; {}/{}, Kind={}): .{path}: field not declared in schema",
                    meta_text(&object, "namespace"),
                    call.target.name,
                    call.group(),
                    call.target.version,
                    call.resource.kind
                ),
            ));
        }
    }
    if let Some(schema) = &call.version().schema
        && let Some(path) = duplicate(schema, &object, "")
    {
        return Err(Failure::new(
            http::StatusCode::INTERNAL_SERVER_ERROR,
            "",
            format!(
                "failed to create typed patch object ({}/{}; {}/{}, Kind={}): {path}: duplicate entries for key",
                meta_text(&object, "namespace"),
                call.target.name,
                call.group(),
                call.target.version,
                call.resource.kind,
            ),
        ));
    }
    if let Some(schema) = &call.version().schema
        && let Some(error) = untypable(schema, &object)
    {
        let wanted = error.detail.rsplit_once("must be of type ").map_or("", |(_, rest)| rest);
        let wanted = wanted.split(':').next().unwrap_or_default();
        return Err(Failure::new(
            http::StatusCode::INTERNAL_SERVER_ERROR,
            "",
            format!(
                "failed to create typed patch object ({}/{}; {}/{}, Kind={}): .{}: expected {wanted}, got something else",
                meta_text(&object, "namespace"),
                call.target.name,
                call.group(),
                call.target.version,
                call.resource.kind,
                error.field,
            ),
        ));
    }
    Ok(object)
}

/// The first value whose JSON type is another than the schema's; formats and nulls are looked at later.
fn untypable(schema: &super::schema::Schema, object: &Value) -> Option<FieldError> {
    let other = |error: &FieldError| {
        let found = error.value.as_ref().and_then(Value::as_str);
        error.kind == FieldErrorKind::TypeInvalid
            && matches!(found, Some("boolean" | "string" | "array" | "object" | "integer" | "int64" | ""))
    };
    validate::validate(schema, object, None).into_iter().find(other)
}

/// The path of a list that names one item twice.
fn duplicate(schema: &super::schema::Schema, value: &Value, path: &str) -> Option<String> {
    match value {
        Value::Object(fields) => fields.iter().find_map(|(name, field)| {
            schema.field(name).and_then(|below| duplicate(below, field, &format!("{path}.{name}")))
        }),
        Value::Array(items) => {
            let keyed = schema.list_type != super::schema::ListType::Atomic;
            let twice = |at: usize| {
                let identity = |item: &Value| super::fieldset::identity(&schema.list_type, item);
                items[..at].iter().any(|item| identity(item) == identity(&items[at]))
            };
            if keyed && (0..items.len()).any(twice) {
                return Some(path.to_owned());
            }
            let below = schema.items.as_deref()?;
            items.iter().find_map(|item| duplicate(below, item, path))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn wrong_type(schema: &super::schema::Schema, object: &Value) -> Option<FieldError> {
    let errors = validate::validate(schema, object, None);
    errors.into_iter().find(|error| error.kind == FieldErrorKind::TypeInvalid)
}

/// Checks the type, drops or reports unknown fields and fills in defaults.
pub(super) fn shape(call: &Call<'_>, mut object: Value, duplicates: Vec<String>) -> Result<Incoming, Failure> {
    let resource = &call.resource;
    if object.is_null() && resource.nature != Nature::Custom {
        // Null is an empty object to a decoder of typed ones.
        metadata(&mut object);
    }
    if !object.is_object() {
        return Err(Failure::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: no object",
            resource.kind
        )));
    }
    let api_version = group_version(call.group(), &call.target.version);
    check_type(call, &mut object, &api_version)?;
    let fields = metadata(&mut object);
    for field in ["labels", "annotations"] {
        // A map of texts has no nulls.
        for value in fields.get_mut(field).and_then(Value::as_object_mut).into_iter().flat_map(|map| map.values_mut()) {
            if value.is_null() {
                *value = Value::from("");
            }
        }
    }
    for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
        let empty = fields.get(field).is_some_and(|value| {
            value.as_object().is_some_and(serde_json::Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
        });
        if empty {
            fields.remove(field);
        }
    }
    convert::incoming(resource, call.group(), &mut object);
    if resource.nature != Nature::Custom {
        shape::drop_nulls(&mut object);
    }
    let mut found: Vec<String> = Vec::new();
    if let Some(schema) = &call.version().schema {
        found = shape::prune(schema, &mut object).into_iter().map(|path| format!("unknown field \"{path}\"")).collect();
        shape::default(schema, &mut object);
        if let Nature::Builtin(_) = resource.nature {
            check_decoding(call, schema, &object)?;
        }
    }
    found.extend(duplicates.into_iter().map(|path| format!("duplicate field \"{path}\"")));
    let warnings = match strictness(call) {
        Strictness::Strict if !found.is_empty() => {
            return Err(Failure::bad_request(format!(
                "{} in version \"{}\" cannot be handled as a {}: strict decoding error: {}",
                resource.kind,
                call.target.version,
                resource.kind,
                found.join(", ")
            )));
        }
        Strictness::Strict | Strictness::Ignore => Vec::new(),
        Strictness::Warn => found,
    };
    if let Nature::Builtin(kind) = resource.nature {
        super::strategy::default_builtin(kind, &resource.kind, &mut object);
    }
    store_version(call, &mut object);
    Ok(Incoming { object, warnings })
}

/// Objects are kept in the storage version.
fn store_version(call: &Call<'_>, object: &mut Value) {
    let resource = &call.resource;
    if resource.nature != Nature::Builtin(BuiltinKind::Event) {
        let stored = resource.api_version(&resource.storage_version().name);
        object["apiVersion"] = Value::from(stored);
    }
}

fn check_type(call: &Call<'_>, object: &mut Value, api_version: &str) -> Result<(), Failure> {
    for (field, wanted) in [("apiVersion", api_version), ("kind", call.resource.kind.as_str())] {
        match object.get(field).and_then(Value::as_str) {
            None | Some("") if call.resource.nature == Nature::Custom => {
                return Err(Failure::bad_request(if field == "kind" {
                    format!("Object 'Kind' is missing in '{object}'")
                } else {
                    format!("the API version in the data () does not match the expected API version ({wanted})")
                }));
            }
            // Typed clients may leave the type out.
            None | Some("") => {
                object[field] = Value::from(wanted);
            }
            Some(given) if given == wanted => {}
            // What is stored carries the storage version; patches are applied to that.
            Some(given)
                if field == "apiVersion"
                    && call.info.verb == Verb::Patch
                    && given == call.resource.api_version(&call.resource.storage_version().name) => {}
            Some(given) if field == "kind" && call.resource.nature == Nature::Custom => {
                let error = FieldError::new(
                    FieldErrorKind::Invalid,
                    "kind",
                    Some(Value::from(given)),
                    format!("must be {wanted}"),
                );
                return Err(Failure::invalid(call.group(), given, meta_text(object, "name"), &[error]));
            }
            Some(given) => {
                let what = if field == "kind" { "kind" } else { "API version" };
                return Err(Failure::bad_request(format!(
                    "the {what} in the data ({given}) does not match the expected {what} ({wanted})"
                )));
            }
        }
    }
    Ok(())
}

/// Built-in kinds are decoded into typed structures: a field of the wrong type is a 400.
fn check_decoding(call: &Call<'_>, schema: &super::schema::Schema, object: &Value) -> Result<(), Failure> {
    match wrong_type(schema, object) {
        None => Ok(()),
        Some(error) => Err(Failure::bad_request(format!(
            "{} in version \"{}\" cannot be handled as a {}: json: cannot unmarshal {} into Go struct field of {}: {}",
            call.resource.kind,
            call.target.version,
            call.resource.kind,
            error.value.as_ref().and_then(Value::as_str).unwrap_or("value"),
            error.field,
            error.detail,
        ))),
    }
}
