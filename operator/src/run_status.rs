//! What people read in a run's status, derived from its cursor with every commit. Pure.

use crate::adapters::cluster_ops::run_phase;
use cupcake_crds::conditions::{self, Condition, ConditionStatus};
use cupcake_crds::upgrade_run::CommitId;
use cupcake_crds::values::Phase;
use cupcake_crds::{UpgradeRun, UpgradeRunStatus};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::codec;
use cupcake_engine::cursor::{Cursor, RunPhase, VertexState};
use cupcake_engine::dag::Dag;
use cupcake_engine::names::{Epoch, Reason};
use cupcake_engine::store::Change;
use cupcake_workflows::render::{self, Glyphs};

/// Why a run stands where it stands that waits for nothing worth telling.
pub const STEP_RUNNING: &str = "StepRunning";
/// How many events a run's status keeps.
pub const EVENTS_MAX: usize = 20;
/// The longest event line, in bytes.
const EVENT_BYTES_MAX: usize = 200;

/// A run's phase in the words of the API.
pub fn phase_of(phase: RunPhase) -> Phase {
    match phase {
        RunPhase::Pending => Phase::Pending,
        RunPhase::InProgress => Phase::InProgress,
        RunPhase::RequiresAttention => Phase::RequiresAttention,
        RunPhase::Succeeded => Phase::Succeeded,
        RunPhase::Failed => Phase::Failed,
        RunPhase::Cancelled => Phase::Cancelled,
    }
}

/// Writes the change into the status.
pub fn write(run: &mut UpgradeRun, dag: &Dag, change: &Change, epoch: Epoch) {
    let generation = run.metadata.generation;
    let cursor = &change.cursor;
    let now = cursor.clock();
    let mut status = run.status.take().unwrap_or_default();
    status.cursor = Some(codec::encode(cursor, dag));
    status.commit = Some(CommitId { epoch: cursor.commit_id().epoch.0, sequence: cursor.commit_id().sequence });
    status.epoch = Some(epoch.0);
    for event in &change.events {
        let at = event.at().map_or_else(String::new, |at| at.format("%H:%M:%S ").to_string());
        let mut line = format!("{at}{}", event.line());
        if let Some((end, _)) = line.char_indices().find(|(start, _)| *start >= EVENT_BYTES_MAX - 4) {
            line.truncate(end);
            line.push('…');
        }
        status.events.push(line);
    }
    let surplus = status.events.len().saturating_sub(EVENTS_MAX);
    status.events.drain(..surplus);
    let name = run.metadata.name.clone().unwrap_or_default();
    let names = render::Names { direct_update: &run.spec.direct_update.name, run: &name };
    let view = render::View { dag, cursor, now, children: &status.children };
    let (graph, message, current) =
        (render::status_lines(&view, Glyphs::Unicode), render::message(&view, &names), render::current_step(&view));
    status.graph = graph;
    status.current_step = current;
    status.progress = Some(render::progress(cursor));
    status.message = Some(message);
    status.reason = Some(reason_of(dag, cursor).code);
    status.phase = Some(phase_of(cursor.phase()));
    status.last_updated = Some(now);
    status.observed_generation = generation;
    if status.started_at.is_none() && cursor.phase() != RunPhase::Pending {
        status.started_at = Some(now);
    }
    status.completed_at = cursor.finished();
    set_conditions(&mut status, &reason_of(dag, cursor), generation, now);
    let why = cursor.reason().map(|reason| reason.message.clone()).unwrap_or_default();
    set_paused(&mut status.conditions, cursor.is_paused(), &why, generation, now);
    run.status = Some(status);
    run.status.iter_mut().for_each(UpgradeRunStatus::bound);
}

/// One code for why the run stands where it stands.
pub fn reason_of(dag: &Dag, cursor: &Cursor) -> Reason {
    if let Some(reason) = cursor.reason() {
        return reason.clone();
    }
    let noted = |wanted: fn(VertexState) -> bool| {
        let mut vertices = dag.vertices().iter().filter(|vertex| cursor.state(&vertex.name).is_some_and(wanted));
        vertices.find_map(|vertex| cursor.note(&vertex.name)).cloned()
    };
    let waiting = noted(|state| matches!(state, VertexState::Waiting { .. }));
    // What failed and is tried again waits, too, for its own reason to go away.
    let waiting = waiting.or_else(|| noted(|state| matches!(state, VertexState::BackingOff { .. })));
    waiting.unwrap_or_else(|| match cursor.phase() {
        RunPhase::Pending => Reason::new("Pending", "nothing was started yet"),
        RunPhase::InProgress => Reason::new(STEP_RUNNING, "steps are under way"),
        RunPhase::RequiresAttention => Reason::new("RequiresAttention", "a person has to act"),
        RunPhase::Succeeded => Reason::new("Succeeded", "all that was planned is done"),
        RunPhase::Failed => Reason::new("Failed", "some of it failed"),
        RunPhase::Cancelled => Reason::new("Cancelled", "cancelled"),
    })
}

/// Whether somebody holds it; of what nobody ever held nothing is said.
pub fn set_paused(all: &mut Vec<Condition>, paused: bool, why: &str, generation: Option<i64>, now: Timestamp) {
    if !paused && conditions::get(all, conditions::PAUSED).is_none() {
        return;
    }
    let (status, reason, message) = if paused {
        (ConditionStatus::True, "Paused", why)
    } else {
        (ConditionStatus::False, "Resumed", "nobody holds it any more")
    };
    let condition = Condition {
        last_transition_time: now,
        message: message.to_owned(),
        observed_generation: generation,
        reason: reason.to_owned(),
        status,
        type_: conditions::PAUSED.to_owned(),
    };
    conditions::set(all, condition);
}

/// The state of the three conditions for a phase: Succeeded, Reconciling, Stalled.
pub fn condition_states(phase: RunPhase) -> [(&'static str, ConditionStatus); 3] {
    use ConditionStatus::{False, True, Unknown};
    let (succeeded, reconciling, stalled) = match phase {
        RunPhase::Pending | RunPhase::InProgress => (Unknown, True, False),
        RunPhase::RequiresAttention => (Unknown, False, True),
        RunPhase::Succeeded => (True, False, False),
        RunPhase::Failed => (False, False, True),
        RunPhase::Cancelled => (False, False, False),
    };
    [(conditions::SUCCEEDED, succeeded), (conditions::RECONCILING, reconciling), (conditions::STALLED, stalled)]
}

fn set_conditions(status: &mut UpgradeRunStatus, reason: &Reason, generation: Option<i64>, now: Timestamp) {
    let message = status.message.clone().unwrap_or_default();
    for (type_, state) in condition_states(run_phase(status.phase)) {
        let condition = Condition {
            last_transition_time: now,
            message: message.clone(),
            observed_generation: generation,
            reason: reason.code.clone(),
            status: state,
            type_: type_.to_owned(),
        };
        conditions::set(&mut status.conditions, condition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempts::tests::{at, failed, report, started, waiting};
    use cupcake_engine::event::AfterFailure;

    #[test]
    fn what_failed_and_is_tried_again_is_a_wait_and_who_waits_for_something_comes_first() {
        let code = |events| {
            let report = report(&[], events);
            reason_of(&report.dag, &report.cursor).code
        };
        let again = || vec![started("etcd-backup", 1, 0), failed("etcd-backup", 1, AfterFailure::Retry(at(60)), 10)];
        assert_eq!(code(vec![started("etcd-backup", 1, 0)]), STEP_RUNNING);
        assert_eq!(code(again()), "ApiServerAway");
        let blocked = vec![started("w-1/drain", 1, 10), waiting("w-1/drain", "DrainBlocked", 20)];
        assert_eq!(code([again(), blocked].concat()), "DrainBlocked");
    }
}
