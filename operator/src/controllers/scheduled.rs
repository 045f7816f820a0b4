//! ScheduledUpdates: at its time a DirectUpdate of its name, once; then what becomes of that.
//!
//! RBAC: get on scheduledupdates; update on scheduledupdates/status; and what `starts` needs.

use super::starts::{self, Created};
use crate::adapters::views::timestamp;
use crate::events::Note;
use crate::outcome::{Next, Outcome};
use crate::watches::Watches;
use crate::{Operator, error_chain, events};
use chrono::TimeDelta;
use cupcake_crds::conditions::{self, Condition, ConditionStatus};
use cupcake_crds::scheduled_update::{ScheduledPhase, ScheduledUpdateStatus};
use cupcake_crds::values::Phase;
use cupcake_crds::{DirectUpdate, ScheduledUpdate, limits};
use cupcake_engine::clock::Timestamp;
use cupcake_workflows::schedule::{Once, OnceFacts, Present, once, once_name, scheduled_spec};
use kube::ResourceExt;
use kube::api::{Api, PostParams};

/// A scheduled update and what stands under the name of its DirectUpdate.
pub struct View {
    scheduled: ScheduledUpdate,
    update: Option<DirectUpdate>,
}

fn name_of(scheduled: &ScheduledUpdate) -> String {
    let named = scheduled.status.as_ref().and_then(|status| status.direct_update_name.clone());
    named.unwrap_or_else(|| once_name(&scheduled.name_any(), &scheduled.uid().unwrap_or_default()))
}

impl View {
    /// As the watches show it.
    pub fn of(name: &str, watches: &Watches) -> Option<Self> {
        let scheduled = watches.scheduled.get(name)?.clone();
        let update = watches.updates.get(&name_of(&scheduled)).cloned();
        Some(Self { scheduled, update })
    }

    /// As the API server has it.
    async fn anew(operator: &Operator, name: &str) -> Result<Option<Self>, kube::Error> {
        let api: Api<ScheduledUpdate> = Api::all(operator.client.clone());
        let Some(scheduled) = api.get_opt(name).await? else {
            return Ok(None);
        };
        let updates: Api<DirectUpdate> = Api::all(operator.client.clone());
        let update = updates.get_opt(&name_of(&scheduled)).await?;
        Ok(Some(Self { scheduled, update }))
    }

    fn decide(&self, now: Timestamp) -> Once {
        let uid = self.scheduled.uid().unwrap_or_default();
        let present = match &self.update {
            None => Present::Nothing,
            Some(update) if starts::is_of(update, &uid) => Present::Own {
                created: update.metadata.creation_timestamp.as_ref().and_then(timestamp).unwrap_or(now),
                phase: starts::phase(update),
            },
            Some(_) => Present::Foreign,
        };
        once(&OnceFacts { scheduled: &self.scheduled, present, now })
    }
}

/// Does what is to be done about a scheduled update now.
pub async fn reconcile(operator: &Operator, view: View) -> Outcome {
    let name = view.scheduled.name_any();
    match reconciled(operator, view).await {
        Ok(next) => Outcome::of(next),
        Err(kube::Error::Api(status)) if status.code == 409 => Outcome::of(Next::Failed),
        Err(error) => {
            tracing::warn!(scheduledupdate = name, error = error_chain(&error), "not moved; trying again");
            Outcome::of(Next::Failed)
        }
    }
}

async fn reconciled(operator: &Operator, view: View) -> Result<Next, kube::Error> {
    let now = operator.clock.now();
    let creates = |decision: &Once| matches!(decision, Once::Create { .. });
    let decision = view.decide(now);
    if view.scheduled.metadata.deletion_timestamp.is_some() || decision == Once::Over {
        return Ok(Next::AwaitChange);
    }
    if !creates(&decision) && stand(&view, &decision, now).0 == view.scheduled.status.clone().unwrap_or_default() {
        return Ok(next_of(operator, &decision));
    }
    // What the watch shows may be old; what is created or written is decided by what stands at the server.
    let Some(view) = View::anew(operator, &view.scheduled.name_any()).await? else {
        return Ok(Next::AwaitChange);
    };
    let decision = view.decide(now);
    if let Once::Create { name } = &decision {
        let (uid, due) = (view.scheduled.uid().unwrap_or_default(), view.scheduled.spec.schedule_at);
        let spec = scheduled_spec(&view.scheduled.spec);
        if let Created::Foreign = starts::create(operator, &uid, due, name, spec).await? {
            return Ok(Next::AtOnce);
        }
    }
    let (status, note) = stand(&view, &decision, now);
    if Some(&status) != view.scheduled.status.as_ref() && decision != Once::Over {
        let mut object = view.scheduled.clone();
        object.status = Some(status);
        object.metadata.managed_fields = None;
        let api: Api<ScheduledUpdate> = Api::all(operator.client.clone());
        api.replace_status(&view.scheduled.name_any(), &PostParams::default(), &object).await?;
        if let Some(note) = note {
            events::tell(operator, "ScheduledUpdate", &view.scheduled.metadata, note).await;
        }
    }
    Ok(next_of(operator, &decision))
}

fn next_of(operator: &Operator, decision: &Once) -> Next {
    match decision {
        // Not only then: a clock may be set meanwhile.
        Once::Wait { until } => {
            Next::At((*until).min(operator.clock.now() + TimeDelta::seconds(crate::leader::RESYNC_SECONDS)))
        }
        Once::Create { .. }
        | Once::Follow { .. }
        | Once::Gone { .. }
        | Once::Missed { .. }
        | Once::Stalled(_)
        | Once::Over => Next::AwaitChange,
    }
}

/// Its update is refused or needs a person.
const IN_TROUBLE: &str = "UpdateNeedsPerson";

/// The status after a decision, and the event if its phase or reason is news. Pure.
fn stand(view: &View, decision: &Once, now: Timestamp) -> (ScheduledUpdateStatus, Option<Note>) {
    let mut status = view.scheduled.status.clone().unwrap_or_default();
    let at = view.scheduled.spec.schedule_at;
    let trouble = view.update.as_ref().and_then(starts::trouble);
    let ended = view.update.as_ref().filter(|update| starts::phase(update) == Phase::Failed);
    let (phase, stalled, reason, message) = match decision {
        Once::Wait { until } => (ScheduledPhase::Scheduled, false, "Scheduled", format!("begins at {until}")),
        Once::Create { name } => {
            (ScheduledPhase::Executing, false, "UpdateCreated", format!("created DirectUpdate {name}"))
        }
        Once::Follow { phase, .. } if trouble.is_some() => (*phase, true, IN_TROUBLE, trouble.unwrap_or_default()),
        Once::Follow { name, phase, .. } => {
            let why = ended.and_then(|update| update.status.as_ref()?.message.clone());
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            (*phase, false, reason_of(*phase), format!("DirectUpdate {name}: {phase:?}{why}"))
        }
        Once::Gone { name } => {
            let message = format!("DirectUpdate {name} was deleted before it was over");
            (ScheduledPhase::Cancelled, false, "UpdateDeleted", message)
        }
        Once::Missed { latest } => {
            let message = format!(
                "spec.scheduleAt: {at} was missed, nothing could be created until {latest}: set a time to come, or startingDeadlineSeconds"
            );
            (ScheduledPhase::Failed, true, "MissedStart", message)
        }
        Once::Stalled(problem) => (ScheduledPhase::Scheduled, true, problem.code, problem.to_string()),
        Once::Over => return (status, None),
    };
    if let Once::Create { name } | Once::Follow { name, .. } = decision {
        status.direct_update_name = Some(name.clone());
        let created = match decision {
            Once::Follow { created, .. } => *created,
            _ => Some(now),
        };
        status.executed_at = status.executed_at.or(created);
    }
    let mut message = message;
    limits::cut(&mut message, limits::MESSAGE_CHARS_MAX);
    let before = conditions::get(&status.conditions, conditions::STALLED).map(|condition| condition.reason.clone());
    status.scheduled_for = Some(at);
    status.phase = Some(phase);
    status.message = Some(message.clone());
    status.observed_generation = view.scheduled.metadata.generation;
    set_conditions(&mut status.conditions, phase, stalled, |type_, state| Condition {
        last_transition_time: now,
        message: message.clone(),
        observed_generation: view.scheduled.metadata.generation,
        reason: reason.to_owned(),
        status: state,
        type_: type_.to_owned(),
    });
    let kind = if stalled || phase == ScheduledPhase::Failed { "Warning" } else { "Normal" };
    let once = format!("g{}", view.scheduled.metadata.generation.unwrap_or_default());
    let note = Note { kind, reason, text: message, once };
    (status, (before.as_deref() != Some(reason)).then_some(note))
}

fn reason_of(phase: ScheduledPhase) -> &'static str {
    match phase {
        ScheduledPhase::Scheduled => "Scheduled",
        ScheduledPhase::Executing => "UpdateCreated",
        ScheduledPhase::Completed => "Completed",
        ScheduledPhase::Failed => "UpdateFailed",
        ScheduledPhase::Cancelled => "UpdateCancelled",
    }
}

fn set_conditions(
    all: &mut Vec<Condition>,
    phase: ScheduledPhase,
    stalled: bool,
    condition: impl Fn(&'static str, ConditionStatus) -> Condition,
) {
    use ConditionStatus::{False, True, Unknown};
    let (succeeded, reconciling, failed) = match phase {
        ScheduledPhase::Scheduled => (Unknown, False, False),
        ScheduledPhase::Executing => (Unknown, True, False),
        ScheduledPhase::Completed => (True, False, False),
        ScheduledPhase::Failed => (False, False, True),
        ScheduledPhase::Cancelled => (False, False, False),
    };
    let stalled = if stalled { True } else { failed };
    conditions::set(all, condition(conditions::SUCCEEDED, succeeded));
    conditions::set(all, condition(conditions::RECONCILING, reconciling));
    conditions::set(all, condition(conditions::STALLED, stalled));
}
