//! Kubernetes Events on transitions, so that `kubectl describe` tells what happened.
//!
//! RBAC: create on events (events.k8s.io).

use crate::{Operator, error_chain};
use cupcake_crds::{DirectUpdate, GROUP, VERSION};
use cupcake_engine::event::{AfterFailure, Event as RunEvent};
use cupcake_engine::names::RunName;
use cupcake_engine::tick::TickReport;
use cupcake_workflows::Finding;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::ResourceExt;
use kube::api::{Api, PostParams};

/// The namespace of events about cluster-scoped objects.
const NAMESPACE: &str = "default";
/// The longest note, in characters. Source: kubernetes/kubernetes pkg/apis/core/validation/events.go (v1.34).
const NOTE_CHARS_MAX: usize = 1_000;
/// How many warnings of one compilation are published.
const WARNINGS_MAX: usize = 10;

/// What an event says: its type, its reason and its note; `None` for what is no news.
fn words(event: &RunEvent) -> Option<(&'static str, String, String)> {
    match event {
        RunEvent::Succeeded { vertex, .. } => Some(("Normal", "StepSucceeded".into(), format!("{vertex} succeeded"))),
        RunEvent::Waiting { vertex, reason, .. } => {
            Some(("Warning", reason.code.clone(), format!("{vertex} waits: {}", reason.message)))
        }
        RunEvent::Skipped { vertex, reason, .. } => {
            Some(("Normal", "StepSkipped".into(), format!("{vertex} was skipped: {}", reason.message)))
        }
        RunEvent::Failed { vertex, reason, next, .. } => {
            let what = match next {
                AfterFailure::Retry(_) => "is tried again",
                AfterFailure::Rest => "failed",
            };
            Some(("Warning", reason.code.clone(), format!("{vertex} {what}: {}", reason.message)))
        }
        RunEvent::Paused { reason, .. } => Some(("Normal", "Paused".into(), reason.message.clone())),
        RunEvent::Resumed { .. } => Some(("Normal", "Resumed".into(), "goes on".into())),
        RunEvent::Credited { .. } => Some(("Normal", "DeadlinesMoved".into(), event.line())),
        RunEvent::CancelRequested { .. } => {
            Some(("Normal", "Cancelling".into(), "ends as soon as it safely can".into()))
        }
        RunEvent::HeldBack { reason, .. } => Some(("Warning", reason.code.clone(), reason.message.clone())),
        RunEvent::Rested { reason, .. } => Some(("Warning", "RequiresAttention".into(), reason.message.clone())),
        RunEvent::Finished { phase, reason, .. } => Some(("Normal", format!("{phase:?}"), reason.message.clone())),
        RunEvent::Reset { vertex, .. } => Some(("Normal", "Retrying".into(), format!("{vertex} runs again"))),
        RunEvent::Started { .. } | RunEvent::Continued { .. } | RunEvent::TakenUp { .. } | RunEvent::Unknown => None,
    }
}

/// Publishes the news of a tick. A failure is logged and otherwise ignored: events are for people, the cursor is the truth.
pub async fn publish(operator: &Operator, run: &RunName, report: &TickReport) {
    let api: Api<Event> = Api::namespaced(operator.client.clone(), NAMESPACE);
    let commit = report.cursor.commit_id();
    for (index, event) in report.events.iter().enumerate() {
        let Some((kind, reason, note)) = words(event) else { continue };
        // The name says which commit it belongs to: an event published twice is one event.
        let head: String = run.as_str().chars().take(200).collect();
        let name = format!("{head}.{}.{}.{index}", commit.epoch, commit.sequence);
        // kubectl describe finds events by the object's UID.
        let regarding = ObjectReference { uid: Some(report.uid.clone()), ..reference("UpgradeRun", run.as_str()) };
        let object = event_object(operator, name, regarding, kind, reason, &note);
        if let Err(error) = api.create(&PostParams::default(), &object).await {
            tracing::debug!(run = %run, error = error_chain(&error), "event not published");
        }
    }
}

/// Publishes what a compiler warns of, on the update that it was asked for.
pub async fn warn(operator: &Operator, update: &DirectUpdate, warnings: &[Finding]) {
    let api: Api<Event> = Api::namespaced(operator.client.clone(), NAMESPACE);
    let uid = update.uid().unwrap_or_default();
    for (index, warning) in warnings.iter().take(WARNINGS_MAX).enumerate() {
        let regarding = ObjectReference { uid: Some(uid.clone()), ..reference("DirectUpdate", &update.name_any()) };
        let head: String = update.name_any().chars().take(200).collect();
        // One compilation, one set of events, whoever publishes it again.
        let name = format!("{head}.{}.warning.{index}", uid.chars().take(8).collect::<String>());
        let object = event_object(operator, name, regarding, "Warning", warning.code.to_string(), &warning.to_string());
        if let Err(error) = api.create(&PostParams::default(), &object).await {
            tracing::debug!(directupdate = update.name_any(), error = error_chain(&error), "event not published");
        }
    }
}

/// What people should hear of about an object other than a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Normal or Warning.
    pub kind: &'static str,
    /// One word.
    pub reason: &'static str,
    /// The rest.
    pub text: String,
    /// Tells it from others of the same object: published twice under the same one, it is one event.
    pub once: String,
}

/// Publishes a note about an object of that kind. A failure is logged and otherwise ignored.
pub async fn tell(operator: &Operator, kind: &str, meta: &ObjectMeta, note: Note) {
    let (name, uid) = (meta.name.clone().unwrap_or_default(), meta.uid.clone());
    let head: String = name.chars().take(150).collect();
    let short: String = uid.iter().flat_map(|uid| uid.chars()).take(8).collect();
    let own = format!("{head}.{short}.{}.{}", note.once, note.reason.to_ascii_lowercase());
    let regarding = ObjectReference { uid, ..reference(kind, &name) };
    let object = event_object(operator, own, regarding, note.kind, note.reason.to_owned(), &note.text);
    let api: Api<Event> = Api::namespaced(operator.client.clone(), NAMESPACE);
    if let Err(error) = api.create(&PostParams::default(), &object).await {
        tracing::debug!(kind, name, error = error_chain(&error), "event not published");
    }
}

fn reference(kind: &str, name: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some(format!("{GROUP}/{VERSION}")),
        kind: Some(kind.to_owned()),
        name: Some(name.to_owned()),
        ..ObjectReference::default()
    }
}

fn event_object(
    operator: &Operator,
    name: String,
    regarding: ObjectReference,
    kind: &str,
    reason: String,
    note: &str,
) -> Event {
    let now = operator.clock.now();
    Event {
        metadata: ObjectMeta { name: Some(name), namespace: Some(NAMESPACE.to_owned()), ..ObjectMeta::default() },
        event_time: jiff::Timestamp::from_microsecond(now.timestamp_micros()).ok().map(MicroTime),
        action: Some(reason.clone()),
        note: Some(note.chars().take(NOTE_CHARS_MAX).collect()),
        reason: Some(reason),
        regarding: Some(regarding),
        reporting_controller: Some(format!("{GROUP}/operator")),
        reporting_instance: Some(operator.identity.clone()),
        type_: Some(kind.to_owned()),
        ..Event::default()
    }
}
