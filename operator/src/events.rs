//! Kubernetes Events on transitions, so that `kubectl describe` tells what happened.
//!
//! RBAC: create on events (events.k8s.io).

use crate::{Operator, error_chain};
use cupcake_crds::{GROUP, VERSION};
use cupcake_engine::event::{AfterFailure, Event as RunEvent};
use cupcake_engine::names::{CommitId, RunName};
use cupcake_engine::tick::TickReport;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};

/// The namespace of events about cluster-scoped objects.
const NAMESPACE: &str = "default";
/// The longest note, in characters. Source: kubernetes/kubernetes pkg/apis/core/validation/events.go (v1.34).
const NOTE_CHARS_MAX: usize = 1_000;

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
        RunEvent::CancelRequested { .. } => {
            Some(("Normal", "Cancelling".into(), "ends as soon as it safely can".into()))
        }
        RunEvent::Rested { reason, .. } => Some(("Warning", "RequiresAttention".into(), reason.message.clone())),
        RunEvent::Finished { phase, reason, .. } => Some(("Normal", format!("{phase:?}"), reason.message.clone())),
        RunEvent::Reset { vertex, .. } => Some(("Normal", "Retrying".into(), format!("{vertex} runs again"))),
        RunEvent::Started { .. } | RunEvent::Continued { .. } | RunEvent::Unknown => None,
    }
}

/// Publishes the news of a tick. A failure is logged and otherwise ignored: events are for people, the cursor is the truth.
pub async fn publish(operator: &Operator, run: &RunName, report: &TickReport) {
    let api: Api<Event> = Api::namespaced(operator.client.clone(), NAMESPACE);
    let commit = report.cursor.commit_id();
    for (index, event) in report.events.iter().enumerate() {
        let Some((kind, reason, note)) = words(event) else { continue };
        let object = event_object(operator, run, commit, index, kind, reason, &note);
        if let Err(error) = api.create(&PostParams::default(), &object).await {
            tracing::debug!(run = %run, error = error_chain(&error), "event not published");
        }
    }
}

fn event_object(
    operator: &Operator,
    run: &RunName,
    commit: CommitId,
    index: usize,
    kind: &str,
    reason: String,
    note: &str,
) -> Event {
    let now = operator.clock.now();
    // The name says which commit it belongs to: an event published twice is one event.
    let head: String = run.as_str().chars().take(200).collect();
    let name = format!("{head}.{}.{}.{index}", commit.epoch, commit.sequence);
    Event {
        metadata: ObjectMeta { name: Some(name), namespace: Some(NAMESPACE.to_owned()), ..ObjectMeta::default() },
        event_time: jiff::Timestamp::from_microsecond(now.timestamp_micros()).ok().map(MicroTime),
        action: Some(reason.clone()),
        note: Some(note.chars().take(NOTE_CHARS_MAX).collect()),
        reason: Some(reason),
        regarding: Some(ObjectReference {
            api_version: Some(format!("{GROUP}/{VERSION}")),
            kind: Some("UpgradeRun".to_owned()),
            name: Some(run.as_str().to_owned()),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(format!("{GROUP}/operator")),
        reporting_instance: Some(operator.identity.clone()),
        type_: Some(kind.to_owned()),
        ..Event::default()
    }
}
