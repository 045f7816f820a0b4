//! The DirectUpdates that schedules create: named and marked so that a second creation meets the first.
//!
//! No owner reference: deleting a schedule must not end an update under way.
//!
//! RBAC: get, list, create on directupdates.

use crate::Operator;
use crate::adapters::is_already_exists;
use crate::guarded::Guarded;
use cupcake_crds::conditions::{self, ConditionStatus};
use cupcake_crds::values::Phase;
use cupcake_crds::{DUE_ANNOTATION, DirectUpdate, DirectUpdateSpec, SCHEDULED_BY_LABEL};
use cupcake_engine::clock::Timestamp;
use cupcake_workflows::schedule::OwnUpdate;
use kube::ResourceExt;
use kube::api::{Api, ListParams, PostParams};

/// What became of a creation.
pub enum Created {
    /// It is there, and it is ours, created now or before.
    Own,
    /// Somebody else's is there under that name.
    Foreign,
}

/// Creates the DirectUpdate of that schedule for that due time, unless it is there.
pub async fn create(
    operator: &Operator,
    uid: &str,
    due: Timestamp,
    name: &str,
    spec: DirectUpdateSpec,
) -> Result<Created, kube::Error> {
    let mut update = DirectUpdate::new(name, spec);
    update.labels_mut().insert(SCHEDULED_BY_LABEL.to_owned(), uid.to_owned());
    update.annotations_mut().insert(DUE_ANNOTATION.to_owned(), due.to_rfc3339());
    let api: Api<DirectUpdate> = Api::all(operator.client.clone());
    match api.create(&PostParams::default(), &update).await {
        Ok(_) => Ok(Created::Own),
        Err(error) if is_already_exists(&error) => {
            let there = api.get(name).await?;
            Ok(if is_of(&there, uid) { Created::Own } else { Created::Foreign })
        }
        Err(error) => Err(error),
    }
}

/// Whether the schedule of that UID created it.
pub fn is_of(update: &DirectUpdate, uid: &str) -> bool {
    update.labels().get(SCHEDULED_BY_LABEL).is_some_and(|by| by == uid)
}

/// All that a schedule created, as the API server has it now.
pub async fn all_of(operator: &Operator, uid: &str) -> Result<Vec<DirectUpdate>, kube::Error> {
    let api: Api<Guarded<DirectUpdate>> = Api::all(operator.client.clone());
    let of_schedule = ListParams::default().labels(&format!("{SCHEDULED_BY_LABEL}={uid}"));
    Ok(api.list(&of_schedule).await?.items.into_iter().filter_map(|update| update.0.ok()).collect())
}

/// An update as schedules see it; `None` if its due time cannot be read any more.
pub fn own(update: &DirectUpdate) -> Option<OwnUpdate> {
    let due = update.annotations().get(DUE_ANNOTATION)?;
    let due = Timestamp::from(chrono::DateTime::parse_from_rfc3339(due).ok()?);
    Some(OwnUpdate { name: update.name_any(), due, over: phase(update).is_final(), trouble: trouble(update) })
}

/// Where it stands.
pub fn phase(update: &DirectUpdate) -> Phase {
    update.status.as_ref().and_then(|status| status.phase).unwrap_or(Phase::Pending)
}

/// Why it goes no further until a person acts: refused, or at rest. Nothing once it is over.
pub fn trouble(update: &DirectUpdate) -> Option<String> {
    let stalled = conditions::get(&update.status.as_ref()?.conditions, conditions::STALLED)?;
    let phase = phase(update);
    if stalled.status != ConditionStatus::True || phase.is_final() {
        return None;
    }
    let what = if phase == Phase::Pending { "is refused" } else { "needs a person" };
    Some(format!("DirectUpdate {} {what}: {}", update.name_any(), stalled.message))
}
