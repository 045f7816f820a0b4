//! Patches: JSON Patch, merge patch, strategic merge patch.

use super::convert;
use super::resource::Nature;
use super::router::Call;
use super::status::Failure;
use super::strategic;
use super::write::schema_of;
use serde_json::Value;

/// Operations that one JSON Patch may have (the real server's limit).
const JSON_PATCH_OPERATIONS_MAX: usize = 10_000;

/// The existing object with the request's patch applied.
pub(super) fn apply(call: &Call<'_>, existing: &Value) -> Result<Value, Failure> {
    let resource = &call.resource;
    let mut object = convert::shown_as(resource, call.group(), &call.target.version, existing);
    let body = &call.info.body;
    match call.info.content_type.as_str() {
        "application/json-patch+json" => {
            let mut patch: json_patch::Patch = serde_json::from_slice(body)
                .map_err(|error| Failure::bad_request(format!("error decoding patch: {error}")))?;
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
            if call.inner.options.leniency.test_operations {
                patch.0.retain(|operation| !matches!(operation, json_patch::PatchOperation::Test(_)));
            }
            json_patch::patch(&mut object, &patch).map_err(|error| unprocessable(&error))?;
        }
        "application/merge-patch+json" => {
            let patch = decode(body)?;
            json_patch::merge(&mut object, &patch);
        }
        "application/strategic-merge-patch+json" if resource.nature != Nature::Custom => {
            let patch = decode(body)?;
            let schema = schema_of(resource, &call.target.version);
            strategic::merge(&schema, &mut object, &patch).map_err(|error| unprocessable(&error))?;
        }
        _other => {
            return Err(Failure::unsupported_media_type(
                "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
            ));
        }
    }
    Ok(object)
}

fn decode(body: &[u8]) -> Result<Value, Failure> {
    let patch: Value =
        serde_json::from_slice(body).map_err(|error| Failure::bad_request(format!("error decoding patch: {error}")))?;
    if patch.is_object() {
        Ok(patch)
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
