//! Kubernetes Events on transitions, so that `kubectl describe` tells what happened.
//!
//! RBAC: create on events (events.k8s.io).

use crate::controllers::records::{joined_by, node_of};
use crate::controllers::timeout;
use crate::{Operator, error_chain};
use cupcake_crds::conditions::{self, ConditionStatus};
use cupcake_crds::values::Phase;
use cupcake_crds::{DirectUpdate, DirectUpdateStatus, GROUP, VERSION};
use cupcake_engine::event::{AfterFailure, Event as RunEvent};
use cupcake_engine::names::RunName;
use cupcake_engine::tick::TickReport;
use cupcake_steps::cluster::gate::WAITING_FOR_APPROVAL;
use cupcake_steps::cluster::metric_gates::{GATE_CLOSED, GATE_UNMEASURED};
use cupcake_steps::cluster::params::{AddonsSeen, Drained};
use cupcake_steps::host::params::CONTAINERD_NEWER;
use cupcake_workflows::Finding;
use cupcake_workflows::schedule::OUTSIDE_WINDOW;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use serde::Deserialize;
use serde_json::Value;

/// The namespace of events about cluster-scoped objects.
const NAMESPACE: &str = "default";
/// The longest note, in characters. Source: kubernetes/kubernetes pkg/apis/core/validation/events.go (v1.34).
const NOTE_CHARS_MAX: usize = 1_000;
/// How many warnings of one compilation are published.
const WARNINGS_MAX: usize = 10;
/// The kinds of the steps that take a node from its pods and give it back.
const DRAIN: &str = "drain-node/v1";
const UNCORDON: &str = "uncordon-node/v1";
/// Codes that tell of an update under way as a whole.
const HOLDS: [&str; 5] = ["Paused", OUTSIDE_WINDOW, timeout::CODE, WAITING_FOR_APPROVAL, GATE_CLOSED];

/// What an event says: its type, its reason and its note; `None` for what is no news.
fn words(event: &RunEvent) -> Option<(&'static str, String, String)> {
    match event {
        RunEvent::Succeeded { vertex, output, .. } => Some(if let Some(joined) = joined_by(output) {
            ("Warning", "NodesJoined".into(), format!("{vertex} succeeded {joined}"))
        } else {
            let told = not_drained(output).or_else(|| left_alone(output)).or_else(|| newer_runtime(output));
            let told = told.map(|told| format!("; {told}")).unwrap_or_default();
            ("Normal", "StepSucceeded".into(), format!("{vertex} succeeded{told}"))
        }),
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

/// The addon that is not kubeadm's own, by what its step leaves; `None` of any other step.
fn left_alone(output: &Value) -> Option<String> {
    AddonsSeen::deserialize(output).ok()?.left_alone
}

/// The containerd that was newer than planned already, by what its order leaves; `None` of any other step.
fn newer_runtime(output: &Value) -> Option<String> {
    let newer = output.get(CONTAINERD_NEWER)?.as_str()?;
    Some(format!("containerd is at {newer} already, which is newer than planned: it stays"))
}

/// What a drain has left where it was, by what its step leaves; `None` of any other step.
fn not_drained(output: &Value) -> Option<String> {
    Drained::deserialize(output).ok()?.told()
}

/// What an event says on the node that its vertex is about: that it is emptied and given back, what it waits for and what failed there.
fn words_of_node(event: &RunEvent, kind: &str) -> Option<(&'static str, String, String)> {
    let plain = |reason: &str, note: &str| Some(("Normal", reason.to_owned(), note.to_owned()));
    match event {
        RunEvent::Started { attempt: 1, .. } if kind == DRAIN => {
            plain("Draining", "cordoned and emptied by an upgrade")
        }
        RunEvent::Succeeded { output, .. } if kind == DRAIN => match not_drained(output) {
            None => plain("Drained", "empty, as far as an upgrade needs it"),
            Some(told) => Some(("Warning", "Drained".into(), format!("empty, as far as an upgrade needs it; {told}"))),
        },
        RunEvent::Succeeded { .. } if kind == UNCORDON => {
            plain("GivenBack", "the upgrade is done here; it takes pods again, unless somebody else cordoned it")
        }
        RunEvent::Waiting { .. } | RunEvent::Failed { .. } => words(event),
        RunEvent::Started { .. }
        | RunEvent::Continued { .. }
        | RunEvent::Succeeded { .. }
        | RunEvent::Skipped { .. }
        | RunEvent::TakenUp { .. }
        | RunEvent::Reset { .. }
        | RunEvent::Paused { .. }
        | RunEvent::Resumed { .. }
        | RunEvent::Credited { .. }
        | RunEvent::CancelRequested { .. }
        | RunEvent::HeldBack { .. }
        | RunEvent::Rested { .. }
        | RunEvent::Finished { .. }
        | RunEvent::Unknown => None,
    }
}

/// The Event on the node that an event of a run is about, if it is news there.
fn on_node(
    operator: &Operator,
    event: &RunEvent,
    report: &TickReport,
    name: String,
    run: &ObjectReference,
) -> Option<Event> {
    let vertex = report.dag.get(event.vertex()?)?;
    let node = node_of(vertex)?;
    let (kind, reason, text) = words_of_node(event, vertex.kind.as_str())?;
    let uid = vertex.params.pointer("/node/uid").and_then(|uid| uid.as_str()).map(str::to_owned);
    let regarding = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(node.to_owned()),
        uid,
        ..ObjectReference::default()
    };
    Some(Event { related: Some(run.clone()), ..event_object(operator, name, regarding, kind, reason, &text) })
}

/// Publishes the news of a tick, on the run and on the nodes. A failure is logged and otherwise ignored: events are for people, the cursor is the truth.
pub async fn publish(operator: &Operator, run: &RunName, report: &TickReport) {
    let api: Api<Event> = Api::namespaced(operator.client.clone(), NAMESPACE);
    let commit = report.cursor.commit_id();
    // kubectl describe finds events by the object's UID.
    let regarding = ObjectReference { uid: Some(report.uid.clone()), ..reference("UpgradeRun", run.as_str()) };
    for (index, event) in report.events.iter().enumerate() {
        // The name says which commit it belongs to: an event published twice is one event.
        let head: String = run.as_str().chars().take(200).collect();
        let name = format!("{head}.{}.{}.{index}", commit.epoch, commit.sequence);
        let there = on_node(operator, event, report, format!("{name}.node"), &regarding);
        let of_run = words(event)
            .map(|(kind, reason, note)| event_object(operator, name, regarding.clone(), kind, reason, &note));
        for object in of_run.into_iter().chain(there) {
            if let Err(error) = api.create(&PostParams::default(), &object).await {
                tracing::debug!(run = %run, error = error_chain(&error), "event not published");
            }
        }
    }
}

/// Publishes what a compiler warns of, on the update that it was asked for.
pub async fn warn(operator: &Operator, update: &DirectUpdate, warnings: &[Finding]) {
    let api: Api<Event> = Api::namespaced(operator.client.clone(), NAMESPACE);
    let uid = update.uid().unwrap_or_default();
    let warnings = warnings.iter().filter(|warning| !warning.code.is_note());
    for (index, warning) in warnings.take(WARNINGS_MAX).enumerate() {
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

/// Publishes that an update has come to another phase or another way to stand, if `after` says so. One event whoever publishes it:
/// it is named by the version of the object that the change was made to.
pub async fn transition(operator: &Operator, update: &DirectUpdate, after: &DirectUpdateStatus) {
    let Some((kind, reason, note)) = news_of(update.status.as_ref(), after) else { return };
    let uid = update.uid().unwrap_or_default();
    let head: String = update.name_any().chars().take(150).collect();
    let short: String = uid.chars().take(8).collect();
    let name = format!("{head}.{short}.{}", update.resource_version().unwrap_or_default());
    let regarding = ObjectReference { uid: Some(uid), ..reference("DirectUpdate", &update.name_any()) };
    let object = event_object(operator, name, regarding, kind, reason, &note);
    let api: Api<Event> = Api::namespaced(operator.client.clone(), NAMESPACE);
    if let Err(error) = api.create(&PostParams::default(), &object).await {
        tracing::debug!(directupdate = update.name_any(), error = error_chain(&error), "event not published");
    }
}

/// The way in which an update stands, as people are told of it: its phase and a code, which waits of single steps do not change.
pub(crate) fn stands(status: &DirectUpdateStatus) -> (Phase, String) {
    let phase = status.phase.unwrap_or_default();
    let code = conditions::get(&status.conditions, conditions::SUCCEEDED).map(|condition| condition.reason.as_str());
    match code {
        // A run that was created a moment ago is planned, too.
        Some("Pending") => (phase, "Planned".to_owned()),
        // A source that answers now and then is no news each time: the message says what of it.
        Some(GATE_UNMEASURED) if phase == Phase::InProgress => (phase, GATE_CLOSED.to_owned()),
        Some(code) if phase != Phase::InProgress || HOLDS.contains(&code) => (phase, code.to_owned()),
        Some(_) | None => (phase, phase.to_string()),
    }
}

/// What a change of an update's status says, if it is news. Waits of single steps are none: its runs have them.
fn news_of(before: Option<&DirectUpdateStatus>, after: &DirectUpdateStatus) -> Option<(&'static str, String, String)> {
    let (phase, code) = stands(after);
    if before.is_some_and(|before| stands(before) == (phase, code.clone())) {
        return None;
    }
    let stalled = conditions::get(&after.conditions, conditions::STALLED);
    let stalled = stalled.is_some_and(|stalled| stalled.status == ConditionStatus::True);
    Some((if stalled { "Warning" } else { "Normal" }, code, after.message.clone().unwrap_or_default()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use cupcake_engine::names::VertexName;
    use serde_json::json;

    fn status(phase: &str, code: &str, stalled: &str) -> DirectUpdateStatus {
        let condition = |type_: &str, status: &str| json!({"type": type_, "status": status, "reason": code, "message": "m", "lastTransitionTime": "2026-11-30T10:00:00Z"});
        let conditions = [condition("Stalled", stalled), condition("Succeeded", "Unknown")];
        serde_json::from_value(json!({"phase": phase, "message": "what happens", "conditions": conditions})).unwrap()
    }

    #[test]
    fn an_update_tells_each_way_to_stand_once_and_leaves_the_waits_of_steps_to_its_runs() {
        let told = |before: Option<(&str, &str, &str)>, (phase, code, stalled): (&str, &str, &str)| {
            let before = before.map(|(phase, code, stalled)| status(phase, code, stalled));
            news_of(before.as_ref(), &status(phase, code, stalled)).map(|(kind, reason, _)| format!("{kind} {reason}"))
        };
        let (works, blocked) = (("InProgress", "StepRunning", "False"), ("InProgress", "DrainBlocked", "False"));
        let (refused, paused) = (("Pending", "DiskSpace", "True"), ("InProgress", "Paused", "False"));
        assert_eq!(told(None, refused).as_deref(), Some("Warning DiskSpace"));
        assert_eq!(told(Some(refused), refused), None);
        assert_eq!(told(Some(refused), ("Pending", "Planned", "False")).as_deref(), Some("Normal Planned"));
        assert_eq!(told(Some(("Pending", "Planned", "False")), ("Pending", "Pending", "False")), None);
        assert_eq!(told(Some(("Pending", "Planned", "False")), works).as_deref(), Some("Normal InProgress"));
        assert_eq!((told(Some(works), blocked), told(Some(blocked), works)), (None, None));
        assert_eq!(told(Some(blocked), paused).as_deref(), Some("Normal Paused"));
        assert_eq!(told(Some(paused), works).as_deref(), Some("Normal InProgress"));
        let rests = ("RequiresAttention", "DrainBlocked", "True");
        assert_eq!(told(Some(blocked), rests).as_deref(), Some("Warning DrainBlocked"));
        assert_eq!(told(Some(rests), ("Cancelled", "Cancelled", "False")).as_deref(), Some("Normal Cancelled"));
    }

    #[test]
    fn a_drain_tells_on_its_run_and_its_node_what_it_has_left_there() {
        let ended = |output: Value| RunEvent::Succeeded {
            vertex: VertexName::new("w-1/drain").unwrap(),
            attempt: 1,
            output,
            at: cupcake_engine::clock::Timestamp::UNIX_EPOCH,
        };
        let told = |event: &RunEvent, kind: &str| words_of_node(event, kind).map(|(type_, _, note)| (type_, note));
        let empty = ended(Value::Null);
        assert_eq!(words(&empty).unwrap().2, "w-1/drain succeeded");
        assert_eq!(told(&empty, DRAIN).unwrap().0, "Normal");
        let left = ended(json!({"cameSince": "1 pod: default/late"}));
        let note = "w-1/drain succeeded; came after the cordon, not evicted: 1 pod: default/late";
        assert_eq!(words(&left).unwrap().2, note);
        let (type_, note) = told(&left, DRAIN).unwrap();
        assert!(type_ == "Warning" && note.ends_with("not evicted: 1 pod: default/late"), "{note}");
        let another = ended(json!({"etcd-snapshot.takenAt": "2027-01-09T20:00:00Z"}));
        assert_eq!(words(&another).unwrap().2, "w-1/drain succeeded", "what other steps leave is none of it");
        let newer = ended(json!({"upgrade-containerd.newer": "1.7.28-1"}));
        assert!(words(&newer).unwrap().2.contains("containerd is at 1.7.28-1 already, which is newer"));
        let addons = ended(json!({"leftAlone": "coredns is left alone at image x"}));
        assert_eq!(words(&addons).unwrap().2, "w-1/drain succeeded; coredns is left alone at image x");
    }
}
