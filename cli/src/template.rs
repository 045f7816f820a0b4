//! The file that is planned: a DirectUpdate, or a schedule and what it would create now.

use crate::exit::Failure;
use crate::plan::{FILE_BYTES_MAX, documents, read as read_text, unknown_field};
use cupcake_crds::validate::Validate;
use cupcake_crds::values::ClusterSnapshot;
use cupcake_crds::{DirectUpdate, GROUP, ScheduledUpdate, UpdateSchedule, VERSION};
use cupcake_engine::clock::Timestamp;
use cupcake_workflows::schedule::{Decision, policy_now, scheduled_spec};
use kube::ResourceExt as _;
use serde::Serialize;
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
                let spec = policy_now(&schedule.spec.update_policy, snapshot).map_err(|problem| {
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
        Some("ScheduledUpdate") => typed(&document, &tried, file, |object: &ScheduledUpdate| spec(&object.spec))
            .map(|object| Template::Once(Box::new(object))),
        Some("UpdateSchedule") => typed(&document, &tried, file, |object: &UpdateSchedule| spec(&object.spec))
            .map(|object| Template::Again(Box::new(object))),
        _ => typed(&document, &tried, file, |object: &DirectUpdate| spec(&object.spec))
            .map(|object| Template::Update(Box::new(object))),
    }
}

fn next_of(file: &Path, kind: &str) -> String {
    format!("edit {}, with kubectl explain {kind}.spec beside it", file.display())
}

fn spec(spec: &impl Serialize) -> Value {
    serde_json::to_value(spec).unwrap_or_default()
}

/// The object, if its definition would let it in and no field of it is unknown.
fn typed<K: DeserializeOwned + Validate>(
    document: &Value,
    tried: &str,
    file: &Path,
    known: impl Fn(&K) -> Value,
) -> Result<K, Failure> {
    let next = next_of(file, &document["kind"].as_str().unwrap_or_default().to_ascii_lowercase());
    let object: K =
        serde_json::from_value(document.clone()).map_err(|error| Failure::from_error(tried, &error, next.clone()))?;
    let object = validated(object, tried, &next)?;
    match unknown_field(&document["spec"], &known(&object), "spec") {
        Some(field) => Err(Failure::new(format!("{tried}: unknown field {field}"), next)),
        None => Ok(object),
    }
}

/// The object, if the rules of its definition let it in.
pub(crate) fn validated<K: Validate>(object: K, tried: &str, next: &str) -> Result<K, Failure> {
    object.validate().map_err(|violations| Failure::from_error(tried, &violations, next))?;
    Ok(object)
}
