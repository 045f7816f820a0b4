//! UpdateSchedules: at each due time a DirectUpdate, once, or the reason why not.
//!
//! ```text
//!   watch ─► decide by what was watched ─► nothing to write? wait ─► read anew ─► decide ─► create ─► status, under the version read
//! ```
//! A crash between creation and status is made good by the name and the label of what was created (`workflows::schedule`).
//!
//! RBAC: get on updateschedules; update on updateschedules/status; patch on directupdates; and what `starts` and
//! `adapters::snapshot` need.

use super::schedule_status::{Stand, stand};
use super::starts::{self, Created};
use crate::adapters::snapshot;
use crate::adapters::views::timestamp;
use crate::outcome::{Next, Outcome};
use crate::queue::Key;
use crate::watches::Watches;
use crate::{Operator, error_chain, events};
use chrono::TimeDelta;
use cupcake_crds::values::ClusterSnapshot;
use cupcake_crds::{DirectUpdate, UpdateSchedule};
use cupcake_engine::clock::Timestamp;
use cupcake_workflows::schedule::{Decision, OwnUpdate, RecurringFacts, policy_spec, recurring};
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

/// How soon a name that somebody else's update has is tried again, in seconds.
const TAKEN_AGAIN_SECONDS: i64 = 30;

/// A schedule and what it created.
pub struct View {
    schedule: UpdateSchedule,
    updates: Vec<OwnUpdate>,
}

impl View {
    /// As the watches show it.
    pub fn of(name: &str, watches: &Watches) -> Option<Self> {
        let schedule = watches.schedules.get(name)?.clone();
        let uid = schedule.uid().unwrap_or_default();
        let of_schedule = watches.updates.iter().map(|(_, update)| update).filter(|update| starts::is_of(update, &uid));
        let updates = of_schedule.filter_map(starts::own).collect();
        Some(Self { schedule, updates })
    }

    /// As the API server has it.
    async fn anew(operator: &Operator, name: &str) -> Result<Option<Self>, kube::Error> {
        let api: Api<UpdateSchedule> = Api::all(operator.client.clone());
        let Some(schedule) = api.get_opt(name).await? else {
            return Ok(None);
        };
        let all = starts::all_of(operator, &schedule.uid().unwrap_or_default()).await?;
        Ok(Some(Self { schedule, updates: all.iter().filter_map(starts::own).collect() }))
    }

    fn decide(&self, cluster: Option<&ClusterSnapshot>, now: Timestamp) -> Decision {
        let created = self.schedule.metadata.creation_timestamp.as_ref().and_then(timestamp).unwrap_or(now);
        recurring(&RecurringFacts { schedule: &self.schedule, created, updates: &self.updates, cluster, now })
    }
}

/// The schedules that an update of that name may concern.
pub fn keys_of(update: &str, watches: &Watches) -> Vec<Key> {
    let by = watches.updates.get(update);
    let of = |uid: Option<&String>| by.zip(uid).is_some_and(|(update, uid)| starts::is_of(update, uid));
    let again = watches.schedules.iter().filter(|(_, schedule)| {
        let active = schedule.status.as_ref().and_then(|status| status.active.as_deref());
        of(schedule.metadata.uid.as_ref()) || active == Some(update)
    });
    let once = watches.scheduled.iter().filter(|(_, scheduled)| {
        let named = scheduled.status.as_ref().and_then(|status| status.direct_update_name.as_deref());
        of(scheduled.metadata.uid.as_ref()) || named == Some(update)
    });
    let again = again.map(|(name, _)| Key::Schedule(name.clone()));
    again.chain(once.map(|(name, _)| Key::Scheduled(name.clone()))).collect()
}

/// Does what is to be done about a schedule now.
pub async fn reconcile(operator: &Operator, view: View) -> Outcome {
    let name = view.schedule.name_any();
    match reconciled(operator, view).await {
        Ok(next) => Outcome::of(next),
        Err(kube::Error::Api(status)) if status.code == 409 => Outcome::of(Next::Failed),
        Err(error) => {
            tracing::warn!(updateschedule = name, error = error_chain(&error), "schedule not moved; trying again");
            Outcome::of(Next::Failed)
        }
    }
}

async fn reconciled(operator: &Operator, view: View) -> Result<Next, kube::Error> {
    if view.schedule.metadata.deletion_timestamp.is_some() {
        return Ok(Next::AwaitChange);
    }
    let now = operator.clock.now();
    let decision = view.decide(None, now);
    let watched = stand(&view.schedule, &view.updates, &decision, now);
    let next = next_of(operator, &decision);
    // What is to be done at once is done below; what waits wants a look at the status only.
    if next != Next::AtOnce && !watched.is_news(&view.schedule) {
        return Ok(next);
    }
    // What the watch shows may be old; what is created or written is decided by what stands at the server.
    let Some(view) = View::anew(operator, &view.schedule.name_any()).await? else {
        return Ok(Next::AwaitChange);
    };
    let mut decision = view.decide(None, now);
    if matches!(decision, Decision::Look { .. }) {
        match snapshot::gather(&operator.client, now).await {
            Ok(cluster) => decision = view.decide(Some(&cluster), now),
            Err(error) => {
                let name = view.schedule.name_any();
                tracing::warn!(updateschedule = name, error = error_chain(&error), "cluster not read; trying again");
                return Ok(Next::Failed);
            }
        }
    }
    act(operator, &view, &decision).await?;
    let mut after = stand(&view.schedule, &view.updates, &decision, now);
    if let Decision::Create { due, name, from, target, .. } = &decision {
        let uid = view.schedule.uid().unwrap_or_default();
        let spec = policy_spec(&view.schedule.spec, *from, *target);
        if let Created::Foreign = starts::create(operator, &uid, due.at, name, spec).await? {
            after = Stand::name_taken(&view.schedule, name, now);
            write(operator, &view.schedule, after).await?;
            return Ok(Next::At(operator.clock.now() + TimeDelta::seconds(TAKEN_AGAIN_SECONDS)));
        }
    }
    write(operator, &view.schedule, after).await?;
    Ok(next_of(operator, &decision))
}

fn next_of(operator: &Operator, decision: &Decision) -> Next {
    match decision {
        Decision::Suspended | Decision::Stalled(_) => Next::AwaitChange,
        // Not only then: a clock may be set meanwhile.
        Decision::Wait { until } | Decision::AwaitWindow { until, .. } => {
            Next::At((*until).min(operator.clock.now() + TimeDelta::seconds(crate::leader::RESYNC_SECONDS)))
        }
        Decision::Anew { .. }
        | Decision::Look { .. }
        | Decision::Create { .. }
        | Decision::Recorded { .. }
        | Decision::NotNeeded { .. }
        | Decision::Skipped { .. }
        | Decision::Missed { .. } => Next::AtOnce,
    }
}

/// Cancels what is to be replaced; again under the same request after a crash.
async fn act(operator: &Operator, view: &View, decision: &Decision) -> Result<(), kube::Error> {
    let Decision::Create { name, replaces, .. } = decision else {
        return Ok(());
    };
    let request: String = format!("for-{name}").chars().take(64).collect();
    let reason = format!("replaced by {name}: concurrencyPolicy of {}", view.schedule.name_any());
    let cancel = json!({"requestId": request, "reason": reason.chars().take(256).collect::<String>()});
    let patch = Patch::Merge(json!({"spec": {"control": {"cancel": cancel}}}));
    let api: Api<DirectUpdate> = Api::all(operator.client.clone());
    for replaced in replaces {
        match api.patch(replaced, &PatchParams::default(), &patch).await {
            Ok(_) => {}
            // Deleted meanwhile.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// One PUT under the resourceVersion that was read, if there is news; then the event.
async fn write(operator: &Operator, schedule: &UpdateSchedule, stand: Stand) -> Result<(), kube::Error> {
    if !stand.is_news(schedule) {
        return Ok(());
    }
    let mut object = schedule.clone();
    object.status = Some(stand.status);
    object.metadata.managed_fields = None;
    let api: Api<UpdateSchedule> = Api::all(operator.client.clone());
    api.replace_status(&schedule.name_any(), &PostParams::default(), &object).await?;
    if let Some(note) = stand.note {
        events::tell(operator, "UpdateSchedule", &schedule.metadata, note).await;
    }
    Ok(())
}
