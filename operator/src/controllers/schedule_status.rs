//! What an UpdateSchedule shows of a decision. Pure.

use crate::events::Note;
use cupcake_crds::conditions::{self, Condition, ConditionStatus};
use cupcake_crds::update_schedule::UpdateScheduleStatus;
use cupcake_crds::{UpdateSchedule, limits};
use cupcake_engine::clock::Timestamp;
use cupcake_workflows::schedule::{Choice, Decision, Due, OwnUpdate};

/// An update that it created is refused or needs a person.
const IN_TROUBLE: &str = "UpdateNeedsPerson";

/// The status after a decision, and what people should hear of.
#[derive(Debug)]
pub struct Stand {
    /// The whole status.
    pub status: UpdateScheduleStatus,
    /// The event, if it is news.
    pub note: Option<Note>,
}

/// What a decision changes.
struct Change {
    stalled: bool,
    reason: &'static str,
    /// An update of it that goes no further until a person acts, and whether that was told before.
    trouble: Option<(String, bool)>,
    /// `None` where what was said of the last due time stays.
    message: Option<String>,
    handled: Option<Timestamp>,
    looked: Option<Timestamp>,
    update: Option<String>,
    event: Option<&'static str>,
}

impl Change {
    fn new(reason: &'static str) -> Self {
        Self {
            stalled: false,
            reason,
            trouble: None,
            message: None,
            handled: None,
            looked: None,
            update: None,
            event: None,
        }
    }
    fn saying(mut self, message: String) -> Self {
        self.message = Some(message);
        self
    }
    fn handling(mut self, due: Timestamp) -> Self {
        self.handled = Some(due);
        self
    }
    fn looking(mut self, due: Timestamp) -> Self {
        self.looked = Some(due);
        self.handling(due)
    }
    fn told_as(mut self, kind: &'static str) -> Self {
        self.event = Some(kind);
        self
    }
}

/// What the schedule shows after that decision.
pub fn stand(schedule: &UpdateSchedule, updates: &[OwnUpdate], decision: &Decision, now: Timestamp) -> Stand {
    let mut stand = shown(schedule, with_trouble(schedule, updates, change(decision, now)), now);
    let created = match decision {
        Decision::Create { name, .. } => Some(name.clone()),
        _ => None,
    };
    let newest = updates.iter().filter(|update| !update.over).max_by_key(|update| update.due);
    stand.status.active = created.or_else(|| newest.map(|update| update.name.clone()));
    if let Decision::Recorded { .. } = decision {
        // What is recorded belongs to the spec of then; whether that is still the spec is looked at next.
        stand.status.observed_generation = schedule.status.as_ref().and_then(|status| status.observed_generation);
    }
    stand
}

/// Adds what keeps an update of it from going on; says that nothing does any more where it was told.
fn with_trouble(schedule: &UpdateSchedule, updates: &[OwnUpdate], mut change: Change) -> Change {
    let status = schedule.status.as_ref();
    let stalled = status.and_then(|status| conditions::get(&status.conditions, conditions::STALLED));
    let was_told = stalled.is_some_and(|stalled| stalled.reason == IN_TROUBLE);
    let first =
        updates.iter().filter(|update| !update.over && update.trouble.is_some()).min_by_key(|update| update.due);
    match first.and_then(|update| update.trouble.as_ref().zip(Some(&update.name))) {
        // What is wrong with the schedule itself comes first.
        Some(_) if change.stalled => {}
        Some((trouble, name)) => {
            let told = |before: &String| format!("{before}; {trouble}");
            change.message = Some(change.message.as_ref().map_or_else(|| trouble.clone(), told));
            change.trouble = Some((name.clone(), was_told));
        }
        None if was_told && change.message.is_none() => {
            change.message = Some("what it created needs nobody any more".to_owned());
        }
        None => {}
    }
    change
}

fn change(decision: &Decision, now: Timestamp) -> Change {
    match decision {
        Decision::Suspended => Change::new("Suspended").saying("suspended: nothing new is begun".to_owned()),
        Decision::Stalled(problem) => {
            Change { stalled: true, ..Change::new(problem.code) }.saying(problem.to_string()).told_as("Warning")
        }
        Decision::Anew { passed: None } => {
            Change::new("Scheduled").saying("the spec changed: due times count from now on".to_owned()).handling(now)
        }
        Decision::Anew { passed: Some(due) } => Change::new("PassedOver")
            .saying(format!("{due} was passed over: the spec changed before anybody looked"))
            .handling(now)
            .told_as("Warning"),
        Decision::Wait { .. } | Decision::Look { .. } => Change::new("Scheduled"),
        Decision::AwaitWindow { due, until } => Change::new("WaitingForWindow")
            .saying(format!("{} waits for the maintenance window, which opens at {until}", due.at)),
        Decision::Create { due, name, from: _, target, replaces } => {
            let instead =
                if replaces.is_empty() { String::new() } else { format!(" in place of {}", replaces.join(", ")) };
            let message = format!("created DirectUpdate {name} to {target}{instead}{}", passed(*due));
            let change = Change::new("UpdateCreated").saying(message).looking(due.at).told_as("Normal");
            Change { update: Some(name.clone()), ..change }
        }
        Decision::Recorded { due, name } => {
            let change = Change::new("UpdateCreated").saying(format!("created DirectUpdate {name}")).looking(*due);
            Change { update: Some(name.clone()), ..change }.told_as("Normal")
        }
        Decision::NotNeeded { due, choice } => not_needed(*due, choice),
        Decision::Skipped { due, active } => Change::new("Skipped")
            .saying(format!(
                "{} was passed over: DirectUpdate {active} is not over, and concurrencyPolicy is Forbid{}",
                due.at,
                passed(*due)
            ))
            .handling(due.at)
            .told_as("Warning"),
        Decision::Missed { due, latest } => Change::new("MissedStart")
            .saying(format!(
                "{} was missed: nothing could be created until {latest}; the next due time counts{}",
                due.at,
                passed(*due)
            ))
            .handling(due.at)
            .told_as("Warning"),
    }
}

fn not_needed(due: Due, choice: &Choice) -> Change {
    let looked = |reason| Change::new(reason).looking(due.at);
    let message = format!("{choice}{}", passed(due));
    match choice {
        Choice::There(_) | Choice::Take(_) => looked("UpToDate").saying(message).told_as("Normal"),
        Choice::Newer(_) => looked("ClusterIsNewer").saying(message).told_as("Normal"),
        Choice::Unknown(_) => looked("NoVersionKnown").saying(message).told_as("Warning"),
    }
}

fn passed(due: Due) -> String {
    due.passed.map(|first| format!("; earlier due times since {first} were missed")).unwrap_or_default()
}

fn shown(schedule: &UpdateSchedule, change: Change, now: Timestamp) -> Stand {
    let mut status = schedule.status.clone().unwrap_or_default();
    let generation = schedule.metadata.generation;
    let mut message =
        change.message.or_else(|| status.message.clone()).unwrap_or_else(|| "waits for its first due time".to_owned());
    limits::cut(&mut message, limits::MESSAGE_CHARS_MAX);
    status.handled_until = status.handled_until.max(change.handled);
    status.last_scheduled_time = status.last_scheduled_time.max(change.looked);
    status.last_update_name = change.update.or(status.last_update_name);
    status.next_scheduled_time = if change.stalled { None } else { Decision::next(schedule, now) };
    status.observed_generation = generation;
    status.message = Some(message.clone());
    for (type_, state) in [
        (conditions::RECONCILING, ConditionStatus::False),
        (
            conditions::STALLED,
            if change.stalled || change.trouble.is_some() { ConditionStatus::True } else { ConditionStatus::False },
        ),
    ] {
        let condition = Condition {
            last_transition_time: now,
            message: message.clone(),
            observed_generation: generation,
            reason: if change.trouble.is_some() { IN_TROUBLE } else { change.reason }.to_owned(),
            status: state,
            type_: type_.to_owned(),
        };
        conditions::set(&mut status.conditions, condition);
    }
    let once = change.handled.unwrap_or(now).timestamp();
    let once = if change.stalled { format!("g{}", generation.unwrap_or_default()) } else { once.to_string() };
    let note = match (change.event, change.trouble) {
        (Some(kind), _) => Some(Note { kind, reason: change.reason, text: message, once }),
        (None, Some((update, false))) => {
            Some(Note { kind: "Warning", reason: IN_TROUBLE, text: message, once: update })
        }
        (None, Some((_, true)) | None) => None,
    };
    Stand { status, note }
}

impl Stand {
    /// Somebody else's update has the name that is meant.
    pub fn name_taken(schedule: &UpdateSchedule, name: &str, now: Timestamp) -> Self {
        let message = format!(
            "there is a DirectUpdate {name} already, which this schedule did not create: kubectl delete directupdate {name} if it is over"
        );
        let change = Change { stalled: true, ..Change::new("NameTaken") };
        shown(schedule, change.saying(message).told_as("Warning"), now)
    }

    /// Whether the status says something that the schedule does not show.
    pub fn is_news(&self, schedule: &UpdateSchedule) -> bool {
        schedule.status.as_ref() != Some(&self.status)
    }
}
