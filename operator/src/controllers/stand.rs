//! Where a DirectUpdate stands that has no run yet, and what of it people read.
//!
//! What is asked of it is answered with the same write: a request to an update that has not begun is a request like any other.
//!
//! RBAC: update (status) on directupdates; and what `events` needs.

use super::acknowledge::{self, Stage};
use super::mirror;
use super::preflight::Looked;
use super::update::{View, operation_id};
use crate::notify::transitions;
use crate::run_status::{condition_states, phase_of, set_paused};
use crate::{Operator, events};
use cupcake_crds::conditions::{self, Condition, ConditionStatus};
use cupcake_crds::direct_update::{NodeCommands, UpgradePath};
use cupcake_crds::limits;
use cupcake_crds::{DirectUpdate, DirectUpdateStatus};
use cupcake_engine::cursor::RunPhase;
use cupcake_engine::names::Reason;
use cupcake_workflows::gates_of;
use kube::ResourceExt;
use kube::api::{Api, PostParams};

/// The longest message in a status, in characters.
pub(super) const MESSAGE_CHARS_MAX: usize = 900;
/// The code of an update that a person holds before it has begun.
const PAUSED: &str = "Paused";

/// Where it stands, and what its start names.
pub(super) struct Stand {
    phase: RunPhase,
    stalled: bool,
    reason: Reason,
    pub(super) graph: Vec<String>,
    pub(super) commands: Vec<NodeCommands>,
    pub(super) run: Option<String>,
    pub(super) plan: Option<String>,
    pub(super) path: Option<UpgradePath>,
    pub(super) operation_timeout_seconds: Option<u32>,
    looked: Option<Looked>,
}

impl Stand {
    pub(super) fn of(phase: RunPhase, stalled: bool, code: &str, mut message: String) -> Self {
        limits::cut(&mut message, MESSAGE_CHARS_MAX);
        let reason = Reason::new(code, message);
        Self {
            phase,
            stalled,
            reason,
            graph: Vec::new(),
            commands: Vec::new(),
            run: None,
            plan: None,
            path: None,
            operation_timeout_seconds: None,
            looked: None,
        }
    }

    /// With what was checked for it.
    pub(super) fn checked(self, looked: Looked) -> Self {
        Self { looked: Some(looked), ..self }
    }

    pub(super) fn pending(code: &str, message: String) -> Self {
        Self::of(RunPhase::Pending, false, code, message)
    }

    pub(super) fn stalled(code: &str, message: String) -> Self {
        Self::of(RunPhase::Pending, true, code, message)
    }

    pub(super) fn done(code: &str, message: String) -> Self {
        Self::of(RunPhase::Succeeded, false, code, message)
    }

    /// What a person asked of an update without a run that keeps it from its start: its end, or that it waits.
    pub(super) fn asked(update: &DirectUpdate) -> Option<Self> {
        if acknowledge::is_cancelled(update) {
            let message = "cancelled before anything was started".to_owned();
            return Some(Self::of(RunPhase::Cancelled, false, "Cancelled", message));
        }
        let why = acknowledge::pause_of(update)?.message;
        let why = if why.starts_with("paused") { why } else { format!("paused: {why}") };
        let message = format!("{why}; to go on: kubectl cupcake resume {}", update.name_any());
        Some(Self::pending(PAUSED, message))
    }
}

/// Writes where the update stands, if that is news.
pub(super) async fn write(operator: &Operator, view: &View, stand: Stand) -> Result<(), kube::Error> {
    let update = &view.update;
    let now = operator.clock.now();
    let before = update.status.clone().unwrap_or_default();
    let mut status = before.clone();
    status.phase = Some(phase_of(stand.phase));
    status.message = Some(stand.reason.message.clone());
    status.observed_generation = update.metadata.generation;
    status.graph = stand.graph;
    status.commands = stand.commands;
    if before.run.is_none() {
        // Once there is a run, this is as the run is.
        let paused = stand.reason.code == PAUSED;
        set_paused(&mut status.conditions, paused, &stand.reason.message, update.metadata.generation, now);
    }
    status.run = status.run.or(stand.run.clone());
    status.plan = status.plan.or(stand.plan);
    status.operation_timeout_seconds = status.operation_timeout_seconds.or(stand.operation_timeout_seconds);
    status.operation_id = status.operation_id.or(stand.run.map(|_| operation_id(update)));
    status.upgrade_path = stand.path.or(status.upgrade_path);
    if stand.phase.is_final() && status.completed_at.is_none() {
        status.completed_at = Some(now);
    }
    for (type_, mut state) in condition_states(stand.phase) {
        if stand.stalled && type_ == conditions::STALLED {
            state = ConditionStatus::True;
        }
        if stand.stalled && type_ == conditions::RECONCILING {
            state = ConditionStatus::False;
        }
        let condition = Condition {
            last_transition_time: now,
            message: stand.reason.message.clone(),
            observed_generation: update.metadata.generation,
            reason: stand.reason.code.clone(),
            status: state,
            type_: type_.to_owned(),
        };
        conditions::set(&mut status.conditions, condition);
    }
    if let Some(looked) = stand.looked {
        looked.show(&mut status, now);
    }
    if let Some(control) = &update.spec.control {
        let gates = status.upgrade_path.as_ref().map(|path| gates_of(&update.spec, &path.steps));
        let stage = gates.as_deref().map_or(Stage::Before, Stage::UnderWay);
        status.acknowledged = acknowledge::acknowledged(&before.acknowledged, control, &view.asked_for, stage, now);
    }
    if !mirror::differs(&before, &status) {
        return Ok(());
    }
    status.last_updated = Some(now);
    replace_status(operator, update, status).await
}

/// Takes note of what became of the spec of an update that is over, and answers what was asked of it; all else stays as it is.
pub(super) async fn answer(operator: &Operator, view: &View) -> Result<(), kube::Error> {
    let (update, now) = (&view.update, operator.clock.now());
    let before = update.status.clone().unwrap_or_default();
    let mut status = before.clone();
    // Whoever reads kstatus takes an update whose last edit was not seen for one that goes on.
    status.observed_generation = update.metadata.generation;
    if let Some(control) = &update.spec.control {
        status.acknowledged =
            acknowledge::acknowledged(&before.acknowledged, control, &view.asked_for, Stage::Over, now);
    }
    if !mirror::differs(&before, &status) {
        return Ok(());
    }
    replace_status(operator, update, status).await
}

/// Takes the notices that are delivered or given up out of the status, if there are such; gives whether there were.
pub(super) async fn forget_told(operator: &Operator, view: &View) -> Result<bool, kube::Error> {
    let mut status = view.update.status.clone().unwrap_or_default();
    let before = status.notices.len();
    status.notices.retain(|notice| !view.told_of.contains(&notice.id));
    if status.notices.len() == before {
        return Ok(false);
    }
    replace_status(operator, &view.update, status).await?;
    Ok(true)
}

/// One PUT under the resourceVersion that was read: a stale look changes nothing. Where it stands in another way by it, an Event says so,
/// and where there is a sink of notifications, the same write says what is to be told there.
pub(super) async fn replace_status(
    operator: &Operator,
    update: &DirectUpdate,
    mut status: DirectUpdateStatus,
) -> Result<(), kube::Error> {
    let surplus = if operator.sink.is_some() {
        transitions::note(update, &mut status, operator.clock.now())
    } else {
        status.notices.clear();
        0
    };
    status.bound();
    let mut object = update.clone();
    object.status = Some(status.clone());
    object.metadata.managed_fields = None;
    let api: Api<DirectUpdate> = Api::all(operator.client.clone());
    api.replace_status(&update.name_any(), &PostParams::default(), &object).await?;
    operator.metrics.notified("dropped", surplus);
    events::transition(operator, update, &status).await;
    Ok(())
}
