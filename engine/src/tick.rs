//! One tick: load, decide, record, act, record. Any process may die between any two of these.
//!
//! ```text
//!  load run ─► decide ─► commit (results so far + Started) ─► probe / apply, all at once ─► results ─┐
//!                ▲                                                                                  │
//!                └──────────────────────────────────────────────────────────────────────────────────┘
//!                                   until nothing changes, at most ROUNDS_MAX times
//! ```

use crate::clock::{Clock, Timestamp, whole_seconds};
use crate::cursor::{Cursor, RunPhase, VertexState, cut};
use crate::dag::{Dag, Vertex};
use crate::decide::{Decision, Observed, back_off, decide};
use crate::event::{AfterFailure, Event};
use crate::names::{CommitId, Epoch, Reason, RunName, VertexName};
use crate::registry::{RegistryError, StepRegistry};
use crate::requests::is_being_left_out;
use crate::series;
use crate::step::{Domain, OnCancel, Probe, StepContext, StepError, StepOutcome, Wait};
use crate::store::{Change, RunStore, StoreError, StoredRun};
use chrono::TimeDelta;
use futures::future::{Either, join_all, select};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How many rounds of deciding and acting one tick has at most; what is left is done by the next one, at once.
pub const ROUNDS_MAX: usize = 32;
/// How soon an idle run is looked at again at the earliest, in seconds, whatever it waits for.
const IDLE_SECONDS_MIN: i64 = 1;
/// How long one call of a step may take unless the engine is told otherwise; past it the call is dropped and looked at again.
pub const STEP_CALL_SECONDS_MAX: u32 = 60;
/// How many plans are remembered as executable.
const CHECKED_MAX: usize = 1_000;
/// How soon a step is looked at again whose probe could not tell.
pub const UNKNOWN_AGAIN_SECONDS: i64 = 10;

/// Why a tick could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TickError {
    /// The plan cannot be executed by this release. Nothing ran.
    #[error("run {run} cannot be executed by this release")]
    Registry {
        /// The run.
        run: RunName,
        /// What is missing.
        #[source]
        source: RegistryError,
    },
    /// The store failed.
    #[error("run {run} could not be read or recorded")]
    Store {
        /// The run.
        run: RunName,
        /// How.
        #[source]
        source: StoreError,
    },
}

/// Why a tick ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TickEnd {
    /// Nothing is left to do before `wake_at` or a change.
    Idle,
    /// Its rounds are used up: tick again at once.
    MoreToDo,
    /// Another writer was faster: tick again at once.
    Conflict,
}

/// What a tick did.
#[derive(Debug, Clone)]
pub struct TickReport {
    /// Tells the run from others that had its name.
    pub uid: String,
    /// What was recorded, in order.
    pub events: Vec<Event>,
    /// The state after it.
    pub cursor: Cursor,
    /// The graph.
    pub dag: Arc<Dag>,
    /// When to tick again even if nothing changes.
    pub wake_at: Option<Timestamp>,
    /// Why it ended.
    pub end: TickEnd,
}

/// Walks runs of one domain.
pub struct Engine<D: Domain> {
    registry: Arc<StepRegistry<D>>,
    store: Arc<dyn RunStore>,
    clock: Arc<dyn Clock>,
    call_seconds_max: u32,
    rounds_max: usize,
    /// Waits of vertices under way, which cost no write. Lost with the process: then every vertex is looked at again.
    waits: Mutex<BTreeMap<(RunName, VertexName), Pause>>,
    /// When each vertex under way was looked at last. Lost with the process: then nothing was.
    looks: Mutex<BTreeMap<(RunName, VertexName), Timestamp>>,
    /// Results that could not be recorded: they are before their vertex is called again, so that a disk that is full for an
    /// hour does not have one effect done all that hour. Lost with the process: then the vertex is looked at again.
    unrecorded: Mutex<BTreeMap<RunName, Unrecorded>>,
    /// Digests of plans that the registry can execute, so that each is looked at once. Lost with the process.
    checked: Mutex<BTreeSet<String>>,
    /// Whether ticks end with the record of what they have begun.
    winding_down: AtomicBool,
}

/// Results of one epoch, each with the attempt that it is of: one that was over meanwhile may have been another's to record.
#[derive(Debug)]
struct Unrecorded {
    epoch: Epoch,
    results: Vec<(u32, Event)>,
}

#[derive(Debug, Clone)]
struct Pause {
    attempt: u32,
    wait: Wait,
}

impl<D: Domain> Engine<D> {
    /// An engine over that store.
    pub fn new(registry: Arc<StepRegistry<D>>, store: Arc<dyn RunStore>, clock: Arc<dyn Clock>) -> Self {
        Self {
            registry,
            store,
            clock,
            call_seconds_max: STEP_CALL_SECONDS_MAX,
            rounds_max: ROUNDS_MAX,
            waits: Mutex::default(),
            looks: Mutex::default(),
            unrecorded: Mutex::default(),
            checked: Mutex::default(),
            winding_down: AtomicBool::new(false),
        }
    }

    /// Whether ticks, those under way too, call no step from now on: they record what their steps came to, and what is to start next,
    /// and end. For a process that is asked to stop: whoever follows waits for its record, not for the rest of its work.
    pub fn wind_down(&self, winding_down: bool) {
        self.winding_down.store(winding_down, Ordering::Relaxed);
    }

    /// Lets one call of a step take that many seconds instead of [`STEP_CALL_SECONDS_MAX`].
    ///
    /// For domains whose ports bound every operation themselves, and where dropping one in the middle does harm.
    pub fn with_call_seconds_max(mut self, seconds: u32) -> Self {
        self.call_seconds_max = seconds;
        self
    }

    /// Ends ticks after that many rounds instead of [`ROUNDS_MAX`]: whoever asks before each round what is wanted by now, asks for one.
    pub fn with_rounds_max(mut self, rounds: usize) -> Self {
        self.rounds_max = rounds;
        self
    }

    /// Moves a run as far as it goes now.
    ///
    /// `changed` names things that changed since the last tick (see [`Wait::on`]); vertices that wait for none of them
    /// and whose time has not come are left alone.
    ///
    /// # Guarantees
    /// No effect of a vertex begins before its `Started` is committed under `epoch`, and a result that could not be recorded is
    /// recorded before its vertex is called again by this engine. Bounded: at most [`ROUNDS_MAX`] rounds
    /// of calls of at most [`STEP_CALL_SECONDS_MAX`] each, or what [`Engine::with_rounds_max`] and [`Engine::with_call_seconds_max`] say.
    /// With the tick that records a cancel every vertex under way is called, whatever it waits for, and with each tick those of lanes
    /// that somebody asks to leave out.
    ///
    /// # Errors
    /// [`TickError::Registry`] before anything runs. [`TickError::Store`] with what the store said; a lost reply is looked
    /// up by commit id before it is reported. A lost race is no error but [`TickEnd::Conflict`].
    pub async fn tick(
        &self,
        name: &RunName,
        epoch: Epoch,
        ports: &D::Ports,
        observed: &Observed,
        changed: &BTreeSet<String>,
    ) -> Result<TickReport, TickError> {
        let store_error = |source| TickError::Store { run: name.clone(), source };
        let mut run = self.store.load(name).await.map_err(store_error)?;
        if run.epoch > epoch {
            // A leader that was stopped and resumed must not even look: what it would do next is another's to do.
            return Err(store_error(StoreError::Fenced { run: name.clone(), current: run.epoch, own: epoch }));
        }
        self.check(&run).map_err(|source| TickError::Registry { run: name.clone(), source })?;
        let dag = Arc::clone(&run.dag);
        let mut report = TickReport {
            uid: run.uid.clone(),
            events: Vec::new(),
            cursor: run.cursor.clone(),
            dag: Arc::clone(&dag),
            wake_at: None,
            end: TickEnd::MoreToDo,
        };
        let mut results = self.unrecorded(&run, epoch);
        let mut changed = changed.clone();
        let mut observed = observed.clone();
        observed.watchers = self.registry.watchers(&dag);
        let mut first = true;
        for _ in 0..self.rounds_max {
            let mut cursor = run.cursor.clone();
            // A result that no longer fits (the vertex was reset or skipped meanwhile) is dropped, not forced.
            results.retain(|event| cursor.apply(event).is_ok());
            let now = self.clock.now();
            observed.overdue_unseen = self.overdue_unseen(name, &dag, &cursor, now);
            let decision = decide(&dag, &cursor, &run.intent, &observed, &run.limits, now);
            // Looked at before this tick, perhaps in an old cache: good for one decision.
            observed.children_under_way.clear();
            cursor.fold(&decision.events).expect("decide emits only events that fit the cursor it was given");
            let mut events = std::mem::take(&mut results);
            events.extend(decision.events.iter().cloned());
            if !events.is_empty() {
                match self.commit(&mut run, epoch, cursor, &events).await {
                    Ok(()) => {
                        self.keep(&run, epoch, &[]);
                        if events.iter().any(|event| matches!(event, Event::CancelRequested { .. })) {
                            // Whatever is under way hears of it now, not when its wait is over.
                            self.lock().retain(|(waiting, _), _| waiting != name);
                        }
                        report.events.extend(events);
                        report.cursor = run.cursor.clone();
                    }
                    Err(StoreError::Conflict(_)) => {
                        report.end = TickEnd::Conflict;
                        return Ok(report);
                    }
                    Err(error) => return Err(store_error(error)),
                }
            }
            report.wake_at = decision.wake_at;
            if self.winding_down.load(Ordering::Relaxed) {
                return Ok(report);
            }
            if run.cursor.phase().is_final() {
                report.end = TickEnd::Idle;
                report.wake_at = None;
                self.forget(name);
                return Ok(report);
            }
            let mut at_once = observed.overdue_unseen.clone();
            if first && decision.may_act {
                at_once.extend(left_out(&run));
            }
            first = false;
            results = self.act(&run, epoch, ports, &decision, &changed, &at_once).await;
            self.keep(&run, epoch, &results);
            changed.clear();
            // What was overdue and unseen has been looked at: the next round may fail it.
            if results.is_empty() && !decision_wakes_now(&decision, now) && observed.overdue_unseen.is_empty() {
                report.end = TickEnd::Idle;
                // A wake-up that is past already would be a loop without a pause.
                let soonest = now + TimeDelta::seconds(IDLE_SECONDS_MIN);
                let earliest = self.earliest(name, &run.cursor, decision.wake_at);
                report.wake_at = earliest.map(|at| if at <= now { soonest } else { at });
                return Ok(report);
            }
        }
        // Results of the last round are not lost: the next tick records them first.
        report.wake_at = Some(self.clock.now());
        Ok(report)
    }

    /// Whether this release can execute the run's plan.
    fn check(&self, run: &StoredRun) -> Result<(), RegistryError> {
        let digest = run.cursor.plan_digest();
        let checked = || self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if checked().contains(digest) {
            return Ok(());
        }
        self.registry.check(&run.dag)?;
        let mut checked = checked();
        if checked.len() >= CHECKED_MAX {
            checked.clear();
        }
        checked.insert(digest.to_owned());
        Ok(())
    }

    async fn commit(
        &self,
        run: &mut StoredRun,
        epoch: Epoch,
        mut cursor: Cursor,
        events: &[Event],
    ) -> Result<(), StoreError> {
        let id = CommitId { epoch, sequence: run.cursor.commit_id().sequence + 1 };
        cursor.stamp(id);
        let change = Change { events: events.to_vec(), cursor };
        match self.store.commit(&run.name, epoch, &run.version, &change).await {
            Ok(version) => {
                run.cursor = change.cursor;
                run.version = version;
                run.epoch = epoch;
                Ok(())
            }
            // The reply was lost, or a repeated request met its own success: whose commit is it that stands there?
            Err(error @ (StoreError::Unavailable { .. } | StoreError::Conflict(_))) => {
                let Ok(stored) = self.store.load(&run.name).await else { return Err(error) };
                if stored.epoch > epoch {
                    return Err(StoreError::Fenced { run: run.name.clone(), current: stored.epoch, own: epoch });
                }
                if stored.cursor.commit_id() == id && stored.cursor == change.cursor {
                    *run = stored;
                    Ok(())
                } else if stored.version == run.version {
                    // Nobody was faster: the store reads and does not write. Called a lost race, it would be tried again at once, for ever.
                    Err(match error {
                        lost @ StoreError::Conflict(_) => {
                            StoreError::Unavailable { run: run.name.clone(), source: Box::new(lost) }
                        }
                        away => away,
                    })
                } else {
                    Err(StoreError::Conflict(run.name.clone()))
                }
            }
            Err(
                error @ (StoreError::NotFound(_)
                | StoreError::Fenced { .. }
                | StoreError::TooLarge { .. }
                | StoreError::Corrupt { .. }),
            ) => Err(error),
        }
    }

    /// Calls the steps of the decision, all at once, and gives what is to be recorded.
    async fn act(
        &self,
        run: &StoredRun,
        epoch: Epoch,
        ports: &D::Ports,
        decision: &Decision,
        changed: &BTreeSet<String>,
        at_once: &BTreeSet<VertexName>,
    ) -> Vec<Event> {
        let now = self.clock.now();
        let due = |name: &&VertexName| at_once.contains(*name) || self.is_due(run, name, now, changed);
        let started = decision.start.iter();
        let calls = started.chain(decision.poll.iter().filter(due)).filter_map(|name| {
            let vertex = run.dag.get(name)?;
            Some(self.call(run, epoch, ports, vertex, decision.may_act))
        });
        join_all(calls).await.into_iter().flatten().collect()
    }

    /// Vertices under way whose deadline has passed, and at which nobody has looked since.
    fn overdue_unseen(&self, run: &RunName, dag: &Dag, cursor: &Cursor, now: Timestamp) -> BTreeSet<VertexName> {
        let looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let under_way = dag.vertices().iter().filter_map(|vertex| match cursor.state(&vertex.name)? {
            VertexState::Started { first, .. } | VertexState::Waiting { first, .. } => {
                Some((&vertex.name, first + TimeDelta::seconds(i64::from(vertex.deadline_seconds))))
            }
            VertexState::Pending { .. }
            | VertexState::BackingOff { .. }
            | VertexState::Succeeded { .. }
            | VertexState::Skipped { .. }
            | VertexState::Failed { .. } => None,
        });
        let unseen = under_way.filter(|(name, deadline)| {
            let look = looks.get(&(run.clone(), (*name).clone()));
            *deadline <= now && look.is_none_or(|at| at < deadline)
        });
        unseen.map(|(name, _)| name.clone()).collect()
    }

    fn is_due(&self, run: &StoredRun, vertex: &VertexName, now: Timestamp, changed: &BTreeSet<String>) -> bool {
        let waits = self.lock();
        let Some(pause) = waits.get(&(run.name.clone(), vertex.clone())) else {
            return true;
        };
        let attempt = run.cursor.state(vertex).map_or(0, |state| state.attempts());
        // A clock behind the run's own says nothing about times that were set before it went back: days may be between them.
        pause.attempt != attempt
            || now < run.cursor.clock()
            || pause.wait.until <= now
            || pause.wait.on.iter().any(|subject| changed.contains(subject))
    }

    async fn call(
        &self,
        run: &StoredRun,
        epoch: Epoch,
        ports: &D::Ports,
        vertex: &Vertex,
        may_act: bool,
    ) -> Option<Event> {
        let (attempt, first) = match run.cursor.state(&vertex.name) {
            Some(VertexState::Started { attempt, first, .. } | VertexState::Waiting { attempt, first, .. }) => {
                (attempt, first)
            }
            Some(
                VertexState::Pending { .. }
                | VertexState::BackingOff { .. }
                | VertexState::Succeeded { .. }
                | VertexState::Skipped { .. }
                | VertexState::Failed { .. },
            )
            | None => return None,
        };
        let now = self.clock.now().max(run.cursor.clock());
        let context = StepContext::<D> {
            ports,
            run: &run.name,
            run_uid: &run.uid,
            vertex: &vertex.name,
            attempt,
            number: series::number(attempt, vertex.attempts_max),
            epoch,
            now,
            started: first,
            deadline: first + TimeDelta::seconds(i64::from(vertex.deadline_seconds)),
            cursor: &run.cursor,
            given_up: vertex.guard.is_none()
                && (run.cursor.is_cancelling() || (may_act && is_being_left_out(&run.cursor, &run.intent, vertex))),
        };
        let until = self.clock.now() + TimeDelta::seconds(i64::from(self.call_seconds_max));
        let work = std::pin::pin!(self.probe_and_apply(&context, vertex, may_act));
        let result = match select(work, self.clock.sleep_until(until)).await {
            Either::Left((result, _)) => result,
            Either::Right(((), _)) => Ok(Seen::Wait(Wait::quiet(
                self.clock.now(),
                Reason::new("StepCallTimedOut", format!("no answer within {} s; looking again", self.call_seconds_max)),
            ))),
        };
        self.event_of(run, vertex, attempt, result)
    }

    async fn probe_and_apply(
        &self,
        context: &StepContext<'_, D>,
        vertex: &Vertex,
        may_act: bool,
    ) -> Result<Seen, StepError> {
        let step = self.registry.get(&vertex.kind).ok_or_else(|| {
            StepError::NeedsOperator(Reason::new("UnknownStepKind", format!("no step of kind {}", vertex.kind)))
        })?;
        let on_cancel = if context.is_given_up() { step.on_cancel() } else { OnCancel::Finish };
        let probe = step.probe(context, &vertex.params).await?;
        let ends = match (&probe, on_cancel) {
            (Probe::Satisfied(_), _) | (_, OnCancel::Finish) | (Probe::Wait(_) | Probe::Unknown(_), OnCancel::Stop) => {
                false
            }
            (Probe::Unsatisfied, OnCancel::Stop | OnCancel::Leave)
            | (Probe::Wait(_) | Probe::Unknown(_), OnCancel::Leave) => true,
        };
        if ends {
            let (code, message) = if context.cursor.is_cancelling() {
                ("Cancelled", "cancelled before its next effect")
            } else {
                ("LeftOut", "left out before its next effect, as was asked for")
            };
            return Ok(Seen::Skipped(Reason::new(code, message)));
        }
        match probe {
            Probe::Satisfied(output) => return Ok(Seen::Done(output)),
            Probe::Wait(wait) => return Ok(Seen::Wait(wait)),
            Probe::Unknown(reason) => {
                let again = context.now + TimeDelta::seconds(UNKNOWN_AGAIN_SECONDS);
                return Ok(Seen::Wait(Wait::shown(again, reason)));
            }
            Probe::Unsatisfied if !may_act => {
                let again = context.now + TimeDelta::seconds(UNKNOWN_AGAIN_SECONDS);
                return Ok(Seen::Wait(Wait::quiet(again, Reason::new("Paused", "paused before its next effect"))));
            }
            Probe::Unsatisfied => {}
        }
        Ok(match step.apply(context, &vertex.params).await? {
            StepOutcome::Done(output) => Seen::Done(output),
            StepOutcome::Skipped(reason) => Seen::Skipped(reason),
            StepOutcome::Wait(wait) => Seen::Wait(wait),
        })
    }

    fn event_of(
        &self,
        run: &StoredRun,
        vertex: &Vertex,
        attempt: u32,
        result: Result<Seen, StepError>,
    ) -> Option<Event> {
        let at = whole_seconds(self.clock.now()).max(run.cursor.clock());
        let key = (run.name.clone(), vertex.name.clone());
        self.looks.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), self.clock.now());
        let name = vertex.name.clone();
        let event = match result {
            Ok(Seen::Wait(wait)) => {
                let shown = matches!(run.cursor.state(&vertex.name), Some(VertexState::Waiting { .. }));
                // A note that had to make room was told once, too.
                let known = shown && run.cursor.note(&vertex.name).is_none_or(|note| *note == cut(&wait.reason));
                let event = match (wait.shown, shown) {
                    (true, _) if !known => Some(Event::Waiting {
                        vertex: name,
                        attempt,
                        until: whole_seconds(wait.until).max(at),
                        reason: wait.reason.clone(),
                        at,
                    }),
                    // What people see must not be the reason of a wait that is over.
                    (false, true) => Some(Event::Continued { vertex: name, attempt, at }),
                    (true, _) | (false, false) => None,
                };
                self.lock().insert(key, Pause { attempt, wait });
                return event;
            }
            Ok(Seen::Done(output)) => Event::Succeeded { vertex: name, attempt, output, at },
            Ok(Seen::Skipped(reason)) => Event::Skipped { vertex: name, reason, at },
            Err(StepError::Transient(reason)) if series::has_another(attempt, vertex.attempts_max) => {
                let number = series::number(attempt, vertex.attempts_max);
                let again = back_off(&run.name, &name, number, &run.limits, at);
                Event::Failed { vertex: name, attempt, reason, next: AfterFailure::Retry(again), at }
            }
            Err(StepError::Transient(reason) | StepError::Permanent(reason) | StepError::NeedsOperator(reason)) => {
                Event::Failed { vertex: name, attempt, reason, next: AfterFailure::Rest, at }
            }
        };
        self.lock().remove(&key);
        Some(event)
    }

    /// The runs with a vertex under way that waits for `subject` (see [`Wait::on`]), sorted.
    pub fn waiting_on(&self, subject: &str) -> Vec<RunName> {
        let waits = self.lock();
        let mut runs: Vec<RunName> = waits
            .iter()
            .filter(|(_, pause)| pause.wait.on.iter().any(|on| on == subject))
            .map(|((run, _), _)| run.clone())
            .collect();
        runs.dedup();
        runs
    }

    fn earliest(&self, run: &RunName, cursor: &Cursor, decided: Option<Timestamp>) -> Option<Timestamp> {
        if cursor.phase() == RunPhase::Succeeded {
            return None;
        }
        let waits = self.lock();
        let of_run = waits.iter().filter(|((name, vertex), pause)| {
            name == run && cursor.state(vertex).and_then(|state| state.under_way()) == Some(pause.attempt)
        });
        of_run.map(|(_, pause)| pause.wait.until).chain(decided).min()
    }

    /// Keeps results until they are recorded.
    fn keep(&self, run: &StoredRun, epoch: Epoch, results: &[Event]) {
        let attempt = |event: &Event| event.vertex().and_then(|vertex| run.cursor.state(vertex)).map(|s| s.attempts());
        let results = results.iter().filter_map(|event| Some((attempt(event)?, event.clone()))).collect();
        let mut unrecorded = self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner);
        unrecorded.insert(run.name.clone(), Unrecorded { epoch, results });
    }

    /// What was kept of a run and still fits: its attempt is under way, and nobody else led meanwhile.
    fn unrecorded(&self, run: &StoredRun, epoch: Epoch) -> Vec<Event> {
        let is_under_way = |(attempt, event): &&(u32, Event)| {
            let state = event.vertex().and_then(|vertex| run.cursor.state(vertex));
            state.and_then(|state| state.under_way()) == Some(*attempt)
        };
        let unrecorded = self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = unrecorded.get(&run.name).filter(|kept| kept.epoch == epoch);
        let results = kept.map_or(&[][..], |kept| &kept.results);
        results.iter().filter(is_under_way).map(|(_, event)| event.clone()).collect()
    }

    /// Forgets what is kept of a run that is over or gone.
    pub fn forget(&self, run: &RunName) {
        self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner).remove(run);
        self.lock().retain(|(name, _), _| name != run);
        self.looks.lock().unwrap_or_else(PoisonError::into_inner).retain(|(name, _), _| name != run);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(RunName, VertexName), Pause>> {
        // Waits are only hints: after a panic of another holder the worst is a look too many.
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The vertices of lanes that are being left out and that may be given up.
fn left_out(run: &StoredRun) -> impl Iterator<Item = VertexName> {
    let vertices = run.dag.vertices().iter().filter(|vertex| vertex.guard.is_none());
    vertices.filter(|vertex| is_being_left_out(&run.cursor, &run.intent, vertex)).map(|vertex| vertex.name.clone())
}

/// What probe and apply came to, taken together.
enum Seen {
    Done(Value),
    Skipped(Reason),
    Wait(Wait),
}

fn decision_wakes_now(decision: &Decision, now: Timestamp) -> bool {
    decision.wake_at.is_some_and(|at| at <= now) && decision.poll.is_empty() && decision.start.is_empty()
}
