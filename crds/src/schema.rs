//! From Rust types to the definitions that an API server takes.

use crate::{DirectUpdate, NodeTask, ScheduledUpdate, UpdateSchedule, UpgradePlan, UpgradeRun};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube_core::CustomResourceExt;
use schemars::{Schema, SchemaGenerator, json_schema};

/// A Kubernetes version in a spec: with or without v, a pre-release allowed, a package's revision not.
pub(crate) const VERSION_PATTERN: &str =
    r"^v?(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(-(alpha|beta|rc)\.(0|[1-9][0-9]*))?$";

/// A version of a Debian package, whole or without its revision.
pub(crate) const PACKAGE_VERSION_PATTERN: &str = r"^([0-9]+:)?[0-9][A-Za-z0-9.+~-]*$";

/// A duration as Go's `time.ParseDuration` takes it, never negative, and of no number that its type cannot hold (`values::duration`).
pub(crate) const DURATION_PATTERN: &str = r"^([0-9]{1,9}(\.[0-9]{1,9})?(ns|us|µs|ms|s|m|h))+$";

/// The schema of a Go duration.
pub(crate) fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "maxLength": 32, "pattern": DURATION_PATTERN})
}

/// The definitions of all six kinds, in a fixed order, as they are to be installed.
///
/// They differ from what the derives produce: nothing is nullable (an explicit null is dropped by the server instead of stored, so that
/// CEL's `has` means what it says), integer formats are those that Kubernetes knows, and descriptions are single lines.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    [
        DirectUpdate::crd(),
        ScheduledUpdate::crd(),
        UpdateSchedule::crd(),
        UpgradeRun::crd(),
        UpgradePlan::crd(),
        NodeTask::crd(),
    ]
    .into_iter()
    .map(|mut definition| {
        for version in &mut definition.spec.versions {
            if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
                tidy(schema);
            }
        }
        definition
    })
    .collect()
}

fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema.title = None;
    schema.format = match schema.format.take().as_deref() {
        Some("uint8" | "uint16" | "uint32" | "int32") => Some("int32".to_owned()),
        Some("uint64" | "int64") => Some("int64".to_owned()),
        Some("date-time") => Some("date-time".to_owned()),
        _ => None,
    };
    if let Some(description) = &mut schema.description {
        *description = description.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    for property in schema.properties.iter_mut().flat_map(|map| map.values_mut()) {
        tidy(property);
    }
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(item)) => tidy(item),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(tidy),
        None => {}
    }
    match &mut schema.additional_properties {
        Some(JSONSchemaPropsOrBool::Schema(value)) => tidy(value),
        Some(JSONSchemaPropsOrBool::Bool(_)) | None => {}
    }
}
