//! ScheduledUpdate: one start.

use super::{Problem, START_SECONDS_DEFAULT, once_name};
use chrono::TimeDelta;
use cupcake_crds::ScheduledUpdate;
use cupcake_crds::scheduled_update::ScheduledPhase;
use cupcake_crds::values::Phase;
use cupcake_engine::clock::Timestamp;

/// The DirectUpdate of the name that is meant, if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Present {
    /// None.
    Nothing,
    /// One that this ScheduledUpdate created.
    Own {
        /// When it was created.
        created: Timestamp,
        /// Where it stands.
        phase: Phase,
    },
    /// Somebody else's.
    Foreign,
}

/// All that counts.
#[derive(Debug, Clone, Copy)]
pub struct OnceFacts<'a> {
    /// The object.
    pub scheduled: &'a ScheduledUpdate,
    /// What stands under the name of its DirectUpdate.
    pub present: Present,
    /// The time.
    pub now: Timestamp,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Once {
    /// Its time comes then.
    Wait {
        /// When.
        until: Timestamp,
    },
    /// Create it.
    Create {
        /// Its name.
        name: String,
    },
    /// It was created and the status does not say so, or it stands elsewhere by now.
    Follow {
        /// Its name.
        name: String,
        /// When it was created, if it is still known.
        created: Option<Timestamp>,
        /// Where the ScheduledUpdate stands by it.
        phase: ScheduledPhase,
    },
    /// Somebody deleted it before it was over.
    Gone {
        /// Its name.
        name: String,
    },
    /// Too late.
    Missed {
        /// Until when it might have been created.
        latest: Timestamp,
    },
    /// It cannot be created.
    Stalled(Problem),
    /// Everything is over.
    Over,
}

/// Decides about one ScheduledUpdate.
pub fn once(facts: &OnceFacts<'_>) -> Once {
    let (spec, now) = (&facts.scheduled.spec, facts.now);
    let status = facts.scheduled.status.clone().unwrap_or_default();
    if let Some(name) = status.direct_update_name {
        return match (status.phase, facts.present) {
            (Some(ScheduledPhase::Completed | ScheduledPhase::Failed | ScheduledPhase::Cancelled), _) => Once::Over,
            (_, Present::Own { created, phase }) => {
                Once::Follow { name, created: Some(created), phase: phase_by(phase) }
            }
            (_, Present::Nothing | Present::Foreign) => Once::Gone { name },
        };
    }
    let meta = &facts.scheduled.metadata;
    let own = meta.name.clone().unwrap_or_default();
    let name = once_name(&own, meta.uid.as_deref().unwrap_or_default());
    let problem = |code, field, value: &str, what: String, fix: String| {
        Once::Stalled(Problem { code, field, value: value.to_owned(), what, fix })
    };
    match facts.present {
        Present::Own { created, phase } => {
            return Once::Follow { name, created: Some(created), phase: phase_by(phase) };
        }
        Present::Foreign => {
            let what = format!("there is a DirectUpdate {name} already, which it did not create");
            let fix = format!(
                "kubectl delete directupdate {name} if it is over, or create this ScheduledUpdate under another name"
            );
            return problem("NameTaken", "metadata.name", &own, what, fix);
        }
        Present::Nothing => {}
    }
    if let Err(error) = spec.target() {
        let fix = "write major.minor.patch, such as 1.34.4".to_owned();
        return problem("InvalidVersion", "spec.targetVersion", &spec.target_version, error.problem.to_string(), fix);
    }
    let seconds = spec.starting_deadline_seconds.unwrap_or(START_SECONDS_DEFAULT);
    let latest = spec.schedule_at + TimeDelta::seconds(i64::from(seconds));
    if now < spec.schedule_at {
        Once::Wait { until: spec.schedule_at }
    } else if now >= latest {
        Once::Missed { latest }
    } else {
        Once::Create { name }
    }
}

fn phase_by(phase: Phase) -> ScheduledPhase {
    match phase {
        Phase::Pending | Phase::InProgress | Phase::RequiresAttention => ScheduledPhase::Executing,
        Phase::Succeeded => ScheduledPhase::Completed,
        Phase::Failed => ScheduledPhase::Failed,
        Phase::Cancelled => ScheduledPhase::Cancelled,
    }
}
