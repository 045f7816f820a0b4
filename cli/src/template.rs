//! The file that is planned: a DirectUpdate, or a schedule and what it would create now.

use crate::exit::Failure;
use crate::plan::{FILE_BYTES_MAX, documents, read as read_text};
use cupcake_crds::validate::Validate;
use cupcake_crds::values::ClusterSnapshot;
use cupcake_crds::{DirectUpdate, GROUP, ScheduledUpdate, UpdateSchedule, VERSION};
use cupcake_engine::clock::Timestamp;
use cupcake_workflows::schedule::{Decision, policy_now, scheduled_spec};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{JSONSchemaProps, JSONSchemaPropsOrArray};
use kube::{CustomResourceExt, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::Path;

/// An object of which there is a plan.
pub(crate) enum Template {
    /// That one itself.
    Update(Box<DirectUpdate>),
    /// One that creates a DirectUpdate once.
    Once(Box<ScheduledUpdate>),
    /// One that creates DirectUpdates again and again.
    Again(Box<UpdateSchedule>),
}

impl Template {
    /// Its name.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Update(update) => update.name_any(),
            Self::Once(scheduled) => scheduled.name_any(),
            Self::Again(schedule) => schedule.name_any(),
        }
    }

    /// What is planned here, where that is not the object itself.
    pub(crate) fn about(&self, now: Timestamp) -> Option<String> {
        match self {
            Self::Update(_) => None,
            Self::Once(scheduled) => Some(format!(
                "as of now, of the DirectUpdate that ScheduledUpdate {} creates at {}",
                scheduled.name_any(),
                scheduled.spec.schedule_at.to_rfc3339()
            )),
            Self::Again(schedule) => {
                let next = Decision::next(schedule, now).map(|next| format!(" at {}", next.to_rfc3339()));
                let next = next.unwrap_or_else(|| " (suspended, or never due)".to_owned());
                let name = schedule.name_any();
                Some(format!("as of now, of the DirectUpdate that UpdateSchedule {name} creates next{next}"))
            }
        }
    }

    /// The DirectUpdate that it is or would create now; the inner error says why it would create none.
    pub(crate) fn update(self, snapshot: &ClusterSnapshot) -> Result<Result<DirectUpdate, String>, Failure> {
        match self {
            Self::Update(update) => Ok(Ok(*update)),
            Self::Once(scheduled) => Ok(Ok(DirectUpdate::new(&scheduled.name_any(), scheduled_spec(&scheduled.spec)))),
            Self::Again(schedule) => {
                let spec = policy_now(&schedule.spec, snapshot).map_err(|problem| {
                    Failure::new(problem.to_string(), "kubectl explain updateschedule.spec.updatePolicy")
                })?;
                Ok(match spec {
                    Ok(spec) => Ok(DirectUpdate::new(&schedule.name_any(), spec)),
                    Err(choice) => Err(choice.to_string()),
                })
            }
        }
    }
}

/// The kinds of which there is a plan.
const KINDS: [&str; 3] = ["DirectUpdate", "ScheduledUpdate", "UpdateSchedule"];

/// The object of a file: the only document of one of the three kinds.
pub(crate) fn read(file: &Path) -> Result<Template, Failure> {
    let text = read_text(file, FILE_BYTES_MAX)?;
    let tried = format!("read {}", file.display());
    let mut objects = documents(&text)
        .filter_map(|document| serde_saphyr::from_str::<Value>(document).ok())
        .filter(|value| KINDS.iter().any(|kind| value["kind"] == *kind));
    let Some(document) = objects.next() else {
        let message =
            format!("{tried}: it holds no DirectUpdate, ScheduledUpdate or UpdateSchedule that is YAML or JSON");
        return Err(Failure::new(message, next_of(file, "directupdate")));
    };
    if objects.next().is_some() {
        return Err(Failure::new(
            format!("{tried}: it holds several DirectUpdates, ScheduledUpdates or UpdateSchedules"),
            "give each a file of its own",
        ));
    }
    let version = format!("{GROUP}/{VERSION}");
    if document["apiVersion"] != version.as_str() {
        return Err(Failure::new(
            format!("{tried}: its apiVersion is {}", document["apiVersion"]),
            format!("write apiVersion: {version}"),
        ));
    }
    match document["kind"].as_str() {
        Some("ScheduledUpdate") => typed(&document, &tried, file).map(|object| Template::Once(Box::new(object))),
        Some("UpdateSchedule") => typed(&document, &tried, file).map(|object| Template::Again(Box::new(object))),
        _ => typed(&document, &tried, file).map(|object| Template::Update(Box::new(object))),
    }
}

fn next_of(file: &Path, kind: &str) -> String {
    format!("edit {}, with kubectl explain {kind}.spec beside it", file.display())
}

/// The object, if its definition would let it in and no field of it is unknown.
fn typed<K: DeserializeOwned + Validate + CustomResourceExt>(
    document: &Value,
    tried: &str,
    file: &Path,
) -> Result<K, Failure> {
    let next = next_of(file, &document["kind"].as_str().unwrap_or_default().to_ascii_lowercase());
    let object: K =
        serde_json::from_value(document.clone()).map_err(|error| Failure::from_error(tried, &error, next.clone()))?;
    let object = validated(object, tried, &next)?;
    let definition = K::crd();
    let schemas =
        definition.spec.versions.iter().filter_map(|version| version.schema.as_ref()?.open_api_v3_schema.as_ref());
    match schemas.into_iter().find_map(|schema| unknown_field(document, schema, "")) {
        Some(field) => Err(Failure::new(format!("{tried}: unknown field {field}"), next)),
        None => Ok(object),
    }
}

/// The first field that a definition does not have. What belongs to every object is not looked into.
fn unknown_field(written: &Value, schema: &JSONSchemaProps, path: &str) -> Option<String> {
    match written {
        Value::Object(fields) => fields.iter().find_map(|(name, value)| {
            let field = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            if path.is_empty() && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                return None;
            }
            match schema.properties.as_ref().and_then(|properties| properties.get(name)) {
                Some(known) => unknown_field(value, known, &field),
                // A map, or what keeps whatever it is given.
                None if schema.properties.is_none() => None,
                None => Some(field),
            }
        }),
        Value::Array(items) => {
            let Some(JSONSchemaPropsOrArray::Schema(known)) = &schema.items else { return None };
            let mut items = items.iter().enumerate();
            items.find_map(|(index, item)| unknown_field(item, known, &format!("{path}[{index}]")))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// The object, if the rules of its definition let it in.
pub(crate) fn validated<K: Validate>(object: K, tried: &str, next: &str) -> Result<K, Failure> {
    object.validate().map_err(|violations| Failure::from_error(tried, &violations, next))?;
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_that_say_what_holds_anyway_are_known_and_those_of_no_definition_are_named() {
        let object = |spec: Value| json!({"apiVersion": "cupcake.ricardomolendijk.com/v1", "kind": "DirectUpdate", "metadata": {"name": "to", "labels": {"a": "b"}}, "spec": spec});
        let of = |document: Value| {
            let read = typed::<DirectUpdate>(&document, "read to.yaml", Path::new("to.yaml"));
            read.map(drop).map_err(|failure| failure.to_string())
        };
        let drain =
            json!({"onExpiry": "Hold", "onPatch": true, "deleteEmptyDirData": false, "deleteUnmanagedPods": false});
        let defaults = json!({"targetVersion": "1.34.4", "drain": drain, "dryRun": false, "nodeSelector": {"any": "label"}, "canary": null});
        assert_eq!(of(object(defaults)), Ok(()));
        for (spec, field) in [
            (json!({"targetVersion": "1.34.4", "drain": {"onExpire": "Hold"}}), "spec.drain.onExpire"),
            (
                json!({"targetVersion": "1.34.4", "acknowledge": [{"check": "HandMadeChanges", "node": "w-1", "why": "x"}]}),
                "spec.acknowledge[0].why",
            ),
        ] {
            let told = of(object(spec)).unwrap_err();
            assert!(told.contains(&format!("unknown field {field}")), "{told}");
        }
        let mut beside = object(json!({"targetVersion": "1.34.4"}));
        beside["foo"] = json!("bar");
        assert!(of(beside).unwrap_err().contains("unknown field foo"));
    }
}
