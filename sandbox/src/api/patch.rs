//! Patches: JSON Patch, merge patch, strategic merge patch.

use super::convert;
use super::resource::Nature;
use super::router::Call;
use super::server::PatchOf;
use super::status::{Failure, FieldError, FieldErrorKind};
use super::strategic;
use super::write::schema_of;
use json_patch::PatchOperation;
use serde_json::Value;

/// Operations that one JSON Patch may have (the real server's limit).
const JSON_PATCH_OPERATIONS_MAX: usize = 10_000;

/// 415 for a patch that is none.
pub(super) fn check_media(call: &Call<'_>) -> Result<(), Failure> {
    match call.info.content_type.as_str() {
        "application/json-patch+json" | "application/merge-patch+json" | "application/apply-patch+yaml" => Ok(()),
        "application/strategic-merge-patch+json" if call.resource.nature != Nature::Custom => Ok(()),
        _other => Err(unsupported(call)),
    }
}

fn unsupported(call: &Call<'_>) -> Failure {
    let types = match call.resource.nature {
        Nature::Custom => "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
        Nature::Builtin(_) => {
            "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml"
        }
    };
    Failure::unsupported_media_type(format!(
        "the body of the request was in an unknown format - accepted media types include: {types}"
    ))
}

/// The existing object with the request's patch applied.
pub(super) fn apply(call: &Call<'_>, existing: &Value) -> Result<Value, Failure> {
    let resource = &call.resource;
    let mut object = convert::shown_as(resource, call.group(), &call.target.version, existing);
    let body = &call.info.body;
    match call.info.content_type.as_str() {
        "application/json-patch+json" => {
            let patch: Value = serde_json::from_slice(body)
                .map_err(|error| Failure::bad_request(format!("error decoding patch: {error}")))?;
            if !patch.is_array() {
                return Err(Failure::bad_request("error decoding patch: json: cannot unmarshal what is no array"));
            }
            let patch: json_patch::Patch = serde_json::from_value(patch).map_err(|error| unprocessable(&error))?;
            if patch.0.len() > JSON_PATCH_OPERATIONS_MAX {
                return Err(Failure::new(
                    http::StatusCode::PAYLOAD_TOO_LARGE,
                    "RequestEntityTooLarge",
                    format!(
                        "The allowed maximum operations in a JSON patch is {JSON_PATCH_OPERATIONS_MAX}, got {}",
                        patch.0.len()
                    ),
                ));
            }
            let lenient = &call.inner.options.leniency.tests_of;
            let blind = !lenient.is_empty() && lenient.contains(&does(&patch.0));
            for operation in patch.0 {
                if blind && matches!(operation, json_patch::PatchOperation::Test(_)) {
                    continue;
                }
                if let Some(operation) = as_applied(operation, &object) {
                    json_patch::patch(&mut object, &[operation]).map_err(|error| unprocessable(&error))?;
                }
            }
        }
        "application/merge-patch+json" => {
            // Who does not want to hear of fields twice is not told of a patch that is none either, but of its result.
            let patch = decode(body, call.info.parameter("fieldValidation") == Some("Ignore"))?;
            merge(&mut object, &patch);
        }
        "application/strategic-merge-patch+json" if resource.nature != Nature::Custom => {
            let patch = decode(body, false)?;
            let schema = schema_of(resource, &call.target.version);
            strategic::merge(&schema, &mut object, &patch).map_err(|error| unprocessable(&error))?;
        }
        _other => return Err(unsupported(call)),
    }
    Ok(object)
}

/// What an agent's patch of its task does.
fn does(operations: &[PatchOperation]) -> PatchOf {
    let written = |operation: &PatchOperation| match operation {
        PatchOperation::Add(add) => Some((add.path.to_string(), add.value.clone())),
        PatchOperation::Remove(remove) => Some((remove.path.to_string(), Value::Null)),
        PatchOperation::Replace(_) | PatchOperation::Move(_) | PatchOperation::Copy(_) | PatchOperation::Test(_) => {
            None
        }
    };
    // A status that is written whole says what each of its fields is.
    let mut fields = Vec::new();
    for (path, value) in operations.iter().filter_map(written) {
        match (path.as_str(), value) {
            ("/status", Value::Object(whole)) => fields.extend(whole),
            (path, value) => fields.push((path.trim_start_matches("/status/").to_owned(), value)),
        }
    }
    if fields.iter().any(|(name, value)| name == "state" && value == "Claimed") {
        PatchOf::Claim
    } else if fields.iter().any(|(name, _)| !matches!(name.as_str(), "inventory" | "updatedAt")) {
        PatchOf::Answer
    } else {
        PatchOf::Inventory
    }
}

/// RFC 7396, but that nulls in the lists of a patch go too where nothing was there before.
///
/// Source: `gopkg.in/evanphx/json-patch.v4` (merge, pruneNils).
fn merge(target: &mut Value, patch: &Value) {
    match (&mut *target, patch) {
        (Value::Object(fields), Value::Object(changes)) => {
            for (name, change) in changes {
                match fields.get_mut(name).filter(|field| !field.is_null()) {
                    _any if change.is_null() => drop(fields.remove(name)),
                    Some(field) => merge(field, change),
                    None => drop(fields.insert(name.clone(), without_nulls(change))),
                }
            }
        }
        (Value::Object(_), _) => target.clone_from(patch),
        _no_object => *target = without_nulls(patch),
    }
}

/// A value without the members of objects that are null, however deep.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(_, field)| !field.is_null());
            Value::Object(kept.map(|(name, field)| (name.clone(), without_nulls(field))).collect())
        }
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// An operation as the real server's library understands it: where an object is there and its member is not, a `test` for null
/// holds (and nothing is left to do), `replace` adds, and `copy` copies null.
///
/// Source: `gopkg.in/evanphx/json-patch.v4` (`partialDoc.get` knows no absence).
fn as_applied(operation: PatchOperation, object: &Value) -> Option<PatchOperation> {
    let absent = |path: &json_patch::jsonptr::Pointer| {
        let parent = path.parent().and_then(|parent| parent.resolve(object).ok());
        parent.is_some_and(Value::is_object) && path.resolve(object).is_err()
    };
    match operation {
        PatchOperation::Test(test) if test.value.is_null() && absent(&test.path) => None,
        PatchOperation::Replace(replace) if absent(&replace.path) => {
            Some(PatchOperation::Add(json_patch::AddOperation { path: replace.path, value: replace.value }))
        }
        PatchOperation::Copy(copy) if absent(&copy.from) => {
            Some(PatchOperation::Add(json_patch::AddOperation { path: copy.path, value: Value::Null }))
        }
        other => Some(other),
    }
}

/// A patch whose result cannot be decoded is invalid, where the same object would be a bad request.
pub(super) fn undecodable(failure: Failure) -> Failure {
    if failure.code != http::StatusCode::BAD_REQUEST.as_u16() {
        return failure;
    }
    let error = FieldError::new(FieldErrorKind::Invalid, "patch", Some(Value::from("")), failure.message);
    Failure::invalid("", "", "", &[error])
}

fn decode(body: &[u8], lenient: bool) -> Result<Value, Failure> {
    let patch: Value =
        serde_json::from_slice(body).map_err(|error| Failure::bad_request(format!("error decoding patch: {error}")))?;
    if patch.is_object() {
        Ok(patch)
    } else if patch.is_array() && lenient {
        Err(undecodable(Failure::bad_request("couldn't get version/kind; json parse error: it is an array")))
    } else {
        Err(Failure::bad_request("error decoding patch: json: cannot unmarshal a value that is no object"))
    }
}

/// 422 for a patch that is understood and cannot be applied, such as a `test` that fails; the server does not say which.
fn unprocessable(why: &dyn std::fmt::Display) -> Failure {
    tracing::debug!(%why, "patch refused");
    let mut failure = Failure::new(
        http::StatusCode::UNPROCESSABLE_ENTITY,
        "Invalid",
        "the server rejected our request due to an error in our request",
    );
    failure.details = Some(Box::default());
    failure
}
