//! The state of a run. [`Cursor::apply`] is the only place where it changes.

use crate::clock::{Timestamp, whole_seconds};
use crate::dag::Dag;
use crate::event::{AfterFailure, Event, FinalPhase};
use crate::names::{CommitId, Reason, VertexName};
use chrono::TimeDelta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// Requests of people that a cursor remembers: more than a DirectUpdate may carry, so that none is forgotten that still stands. One
/// that is forgotten and still stands would be taken up anew, and push out the next one.
pub const REQUESTS_MAX: usize = 128;

/// Where a run stands as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum RunPhase {
    /// Nothing was started yet.
    Pending,
    /// Under way, or waiting inside a deadline.
    InProgress,
    /// At rest until a person acts.
    RequiresAttention,
    /// Over: all done.
    Succeeded,
    /// Over: some of it failed for good.
    Failed,
    /// Over: cancelled.
    Cancelled,
}

impl RunPhase {
    /// Whether nothing can ever change any more.
    pub fn is_final(self) -> bool {
        match self {
            Self::Pending | Self::InProgress | Self::RequiresAttention => false,
            Self::Succeeded | Self::Failed | Self::Cancelled => true,
        }
    }
}

impl fmt::Display for RunPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Where one vertex stands. `first` is the start of the attempt series: deadlines count from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VertexState {
    /// Not under way; `attempts` were made before (0 unless it was reset).
    Pending {
        /// Attempts made so far.
        attempts: u32,
    },
    /// An attempt is under way.
    Started {
        /// Which attempt.
        attempt: u32,
        /// Start of the series.
        first: Timestamp,
        /// Start of this attempt.
        since: Timestamp,
    },
    /// An attempt is under way and waits for something that people should see.
    Waiting {
        /// Which attempt.
        attempt: u32,
        /// Start of the series.
        first: Timestamp,
        /// Start of the wait.
        since: Timestamp,
        /// When it looks again at the latest.
        until: Timestamp,
    },
    /// The last attempt failed, another follows.
    BackingOff {
        /// The attempt that failed.
        attempt: u32,
        /// Start of the series.
        first: Timestamp,
        /// When the next one starts.
        until: Timestamp,
    },
    /// Goal reached.
    Succeeded {
        /// The attempt that did.
        attempt: u32,
        /// Start of the series.
        first: Timestamp,
        /// When.
        ended: Timestamp,
    },
    /// Need not or can no longer run.
    Skipped {
        /// Attempts made before.
        attempts: u32,
        /// When.
        ended: Timestamp,
    },
    /// Failed; no further attempt unless a person asks.
    Failed {
        /// The last attempt.
        attempt: u32,
        /// Start of the series.
        first: Timestamp,
        /// When.
        ended: Timestamp,
    },
}

impl VertexState {
    /// Moves the start of a series under way, from which deadlines count.
    fn delay(&mut self, by: TimeDelta) {
        match self {
            Self::Started { first, .. } | Self::Waiting { first, .. } | Self::BackingOff { first, .. } => *first += by,
            Self::Pending { .. } | Self::Succeeded { .. } | Self::Skipped { .. } | Self::Failed { .. } => {}
        }
    }

    /// Moves the start of a series under way by that part of the time between `from` and `until` which lies after it.
    fn credit(&mut self, from: Timestamp, until: Timestamp) {
        if let Some(first) = self.series_start() {
            self.delay((until - from.max(first)).max(TimeDelta::zero()));
        }
    }

    /// The start of the attempt series that is under way, from which its deadline counts.
    pub(crate) fn series_start(&self) -> Option<Timestamp> {
        match *self {
            Self::Started { first, .. } | Self::Waiting { first, .. } | Self::BackingOff { first, .. } => Some(first),
            Self::Pending { .. } | Self::Succeeded { .. } | Self::Skipped { .. } | Self::Failed { .. } => None,
        }
    }

    /// The attempt that is under way, whether or not it shows that it waits; `None` where none is.
    pub fn under_way(&self) -> Option<u32> {
        match *self {
            Self::Started { attempt, .. } | Self::Waiting { attempt, .. } => Some(attempt),
            Self::Pending { .. }
            | Self::BackingOff { .. }
            | Self::Succeeded { .. }
            | Self::Skipped { .. }
            | Self::Failed { .. } => None,
        }
    }

    /// Attempts made so far, the one under way included.
    pub fn attempts(&self) -> u32 {
        match *self {
            Self::Pending { attempts } | Self::Skipped { attempts, .. } => attempts,
            Self::Started { attempt, .. }
            | Self::Waiting { attempt, .. }
            | Self::BackingOff { attempt, .. }
            | Self::Succeeded { attempt, .. }
            | Self::Failed { attempt, .. } => attempt,
        }
    }
}

/// An event that does not fit the state: a programming error, or a journal that is not this run's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IllegalTransition {
    /// The vertex is not in the plan.
    #[error("event names vertex {0}, which is not in the plan of this run")]
    UnknownVertex(VertexName),
    /// The vertex cannot go from that state by that event.
    #[error("vertex {vertex} in state {state} cannot take event {event:?}")]
    Vertex {
        /// Which vertex.
        vertex: VertexName,
        /// Its state.
        state: String,
        /// The event.
        event: String,
    },
    /// The run cannot take that event in its phase.
    #[error("run in phase {phase} cannot take event {event:?}")]
    Run {
        /// The run's phase.
        phase: RunPhase,
        /// The event.
        event: String,
    },
    /// An event that this release does not know.
    #[error("run holds an event of a newer release: upgrade CUPCAKE before resuming it")]
    UnknownEvent,
}

/// How many reasons a cursor keeps; those of failed vertices go before those of waiting ones.
pub const NOTES_MAX: usize = 40;
/// The longest reason message that a cursor keeps, in bytes; longer ones are cut with an ellipsis.
pub const NOTE_BYTES_MAX: usize = 240;
/// The largest output that a step may leave in a cursor, in bytes of JSON.
pub const OUTPUT_BYTES_MAX: usize = 1_024;

/// The state of a run: the durable truth.
#[derive(Debug, Clone, PartialEq)]
pub struct Cursor {
    pub(crate) plan_digest: String,
    pub(crate) commit: CommitId,
    pub(crate) phase: RunPhase,
    pub(crate) paused: bool,
    pub(crate) paused_since: Option<Timestamp>,
    /// Requests of people that were taken up, the newest last.
    pub(crate) requests: Vec<String>,
    /// Up to when time without anybody who looks was given back.
    pub(crate) credited: Option<Timestamp>,
    pub(crate) cancelling: bool,
    pub(crate) created: Timestamp,
    pub(crate) clock: Timestamp,
    pub(crate) finished: Option<Timestamp>,
    pub(crate) reason: Option<Reason>,
    pub(crate) vertices: BTreeMap<VertexName, VertexState>,
    pub(crate) outputs: BTreeMap<VertexName, Value>,
    pub(crate) notes: BTreeMap<VertexName, Reason>,
}

impl Cursor {
    /// The cursor of a run of that plan of which nothing was started yet.
    pub fn new(plan_digest: impl Into<String>, dag: &Dag, now: Timestamp) -> Self {
        let now = whole_seconds(now);
        Self {
            plan_digest: plan_digest.into(),
            commit: CommitId::default(),
            phase: RunPhase::Pending,
            paused: false,
            paused_since: None,
            requests: Vec::new(),
            credited: None,
            cancelling: false,
            created: now,
            clock: now,
            finished: None,
            reason: None,
            vertices: dag
                .vertices()
                .iter()
                .map(|vertex| (vertex.name.clone(), VertexState::Pending { attempts: 0 }))
                .collect(),
            outputs: BTreeMap::new(),
            notes: BTreeMap::new(),
        }
    }

    /// Digest of the plan that it belongs to.
    pub fn plan_digest(&self) -> &str {
        &self.plan_digest
    }
    /// The last commit that went into it.
    pub fn commit_id(&self) -> CommitId {
        self.commit
    }
    /// Where the run stands as a whole.
    pub fn phase(&self) -> RunPhase {
        self.phase
    }
    /// Whether nothing new starts.
    pub fn is_paused(&self) -> bool {
        self.paused
    }
    /// Whether a request of a person was taken up.
    pub fn has_taken_up(&self, request: &str) -> bool {
        self.requests.iter().any(|taken| taken == request)
    }
    /// Up to when time without anybody who looks was given back to deadlines.
    pub fn credited(&self) -> Option<Timestamp> {
        self.credited
    }
    /// Whether only what must happen in any case starts.
    pub fn is_cancelling(&self) -> bool {
        self.cancelling
    }
    /// When the run was created.
    pub fn created(&self) -> Timestamp {
        self.created
    }
    /// The latest time that went into it: the run's time never runs behind it.
    pub fn clock(&self) -> Timestamp {
        self.clock
    }
    /// When the run ended, if it did.
    pub fn finished(&self) -> Option<Timestamp> {
        self.finished
    }
    /// Why the run rests, is paused or ended.
    pub fn reason(&self) -> Option<&Reason> {
        self.reason.as_ref()
    }
    /// State of one vertex.
    pub fn state(&self, vertex: &VertexName) -> Option<VertexState> {
        self.vertices.get(vertex).copied()
    }
    /// Why a vertex waits, backs off, was skipped or failed, as far as the cursor has room.
    pub fn note(&self, vertex: &VertexName) -> Option<&Reason> {
        self.notes.get(vertex)
    }
    /// What a vertex that succeeded left for those after it.
    pub fn output(&self, vertex: &VertexName) -> Option<&Value> {
        self.outputs.get(vertex)
    }
    /// How many vertices are done or skipped, and how many there are.
    pub fn progress(&self) -> (usize, usize) {
        let done = self
            .vertices
            .values()
            .filter(|state| matches!(state, VertexState::Succeeded { .. } | VertexState::Skipped { .. }))
            .count();
        (done, self.vertices.len())
    }

    /// Stamps the id of the commit that this cursor is about to be written by.
    pub fn stamp(&mut self, commit: CommitId) {
        self.commit = commit;
    }

    /// Takes one event.
    ///
    /// # Guarantees
    /// On an error nothing is changed. A result that was taken before (same vertex, same attempt) changes nothing.
    /// The run's clock never goes back.
    #[expect(clippy::too_many_lines, reason = "one table: every event against every state, in one place")]
    pub fn apply(&mut self, event: &Event) -> Result<(), IllegalTransition> {
        if self.phase.is_final() {
            return Err(self.illegal(event));
        }
        match event {
            Event::Started { vertex, attempt, at } => {
                let at = *at;
                let next = match self.vertex(vertex)? {
                    // One that is tried again begins a series of its own (see `series`): numbers may be left out between two.
                    VertexState::Pending { attempts } if *attempt > attempts => {
                        VertexState::Started { attempt: *attempt, first: at, since: at }
                    }
                    VertexState::BackingOff { attempt: failed, first, .. } if *attempt == failed + 1 => {
                        VertexState::Started { attempt: *attempt, first, since: at }
                    }
                    VertexState::Pending { .. }
                    | VertexState::BackingOff { .. }
                    | VertexState::Started { .. }
                    | VertexState::Waiting { .. }
                    | VertexState::Succeeded { .. }
                    | VertexState::Skipped { .. }
                    | VertexState::Failed { .. } => return Err(self.illegal(event)),
                };
                self.notes.remove(vertex);
                self.set(vertex, next);
                self.phase = RunPhase::InProgress;
                self.reason = None;
            }
            Event::Waiting { vertex, attempt, until, reason, at } => {
                let next = match self.vertex(vertex)? {
                    VertexState::Started { attempt: own, first, .. } if own == *attempt => {
                        VertexState::Waiting { attempt: own, first, since: *at, until: *until }
                    }
                    VertexState::Waiting { attempt: own, first, since, .. } if own == *attempt => {
                        VertexState::Waiting { attempt: own, first, since, until: *until }
                    }
                    VertexState::Pending { .. }
                    | VertexState::Started { .. }
                    | VertexState::Waiting { .. }
                    | VertexState::BackingOff { .. }
                    | VertexState::Succeeded { .. }
                    | VertexState::Skipped { .. }
                    | VertexState::Failed { .. } => return Err(self.illegal(event)),
                };
                self.set(vertex, next);
                self.keep_note(vertex, reason);
            }
            Event::Continued { vertex, attempt, at } => {
                let next = match self.vertex(vertex)? {
                    VertexState::Waiting { attempt: own, first, .. } if own == *attempt => {
                        VertexState::Started { attempt: own, first, since: *at }
                    }
                    VertexState::Started { attempt: own, .. } if own == *attempt => return Ok(()),
                    VertexState::Pending { .. }
                    | VertexState::Started { .. }
                    | VertexState::Waiting { .. }
                    | VertexState::BackingOff { .. }
                    | VertexState::Succeeded { .. }
                    | VertexState::Skipped { .. }
                    | VertexState::Failed { .. } => return Err(self.illegal(event)),
                };
                self.notes.remove(vertex);
                self.set(vertex, next);
            }
            Event::Succeeded { vertex, attempt, output, at } => {
                let next = match self.vertex(vertex)? {
                    VertexState::Started { attempt: own, first, .. }
                    | VertexState::Waiting { attempt: own, first, .. }
                        if own == *attempt =>
                    {
                        VertexState::Succeeded { attempt: own, first, ended: *at }
                    }
                    VertexState::Succeeded { attempt: own, .. } if own == *attempt => return Ok(()),
                    VertexState::Pending { .. }
                    | VertexState::Started { .. }
                    | VertexState::Waiting { .. }
                    | VertexState::BackingOff { .. }
                    | VertexState::Succeeded { .. }
                    | VertexState::Skipped { .. }
                    | VertexState::Failed { .. } => return Err(self.illegal(event)),
                };
                self.notes.remove(vertex);
                if !output.is_null() {
                    self.outputs.insert(vertex.clone(), output.clone());
                }
                self.set(vertex, next);
            }
            Event::Skipped { vertex, reason, at } => {
                let next = match self.vertex(vertex)? {
                    state @ (VertexState::Pending { .. }
                    | VertexState::Started { .. }
                    | VertexState::Waiting { .. }
                    | VertexState::BackingOff { .. }
                    | VertexState::Failed { .. }) => VertexState::Skipped { attempts: state.attempts(), ended: *at },
                    VertexState::Skipped { .. } => return Ok(()),
                    VertexState::Succeeded { .. } => return Err(self.illegal(event)),
                };
                if matches!(self.vertex(vertex)?, VertexState::Failed { .. }) {
                    // What it rested for is left out.
                    self.phase = RunPhase::InProgress;
                    self.reason = None;
                }
                self.set(vertex, next);
                self.keep_note(vertex, reason);
            }
            Event::Failed { vertex, attempt, reason, next, at } => {
                let next = match (self.vertex(vertex)?, next) {
                    (
                        VertexState::Started { attempt: own, first, .. }
                        | VertexState::Waiting { attempt: own, first, .. },
                        AfterFailure::Retry(until),
                    ) if own == *attempt => VertexState::BackingOff { attempt: own, first, until: *until },
                    (
                        VertexState::Started { attempt: own, first, .. }
                        | VertexState::Waiting { attempt: own, first, .. }
                        | VertexState::BackingOff { attempt: own, first, .. },
                        AfterFailure::Rest,
                    ) if own == *attempt => VertexState::Failed { attempt: own, first, ended: *at },
                    (VertexState::Failed { attempt: own, .. }, AfterFailure::Rest)
                    | (VertexState::BackingOff { attempt: own, .. }, AfterFailure::Retry(_))
                        if own == *attempt =>
                    {
                        return Ok(());
                    }
                    (
                        VertexState::Pending { .. }
                        | VertexState::Started { .. }
                        | VertexState::Waiting { .. }
                        | VertexState::BackingOff { .. }
                        | VertexState::Succeeded { .. }
                        | VertexState::Skipped { .. }
                        | VertexState::Failed { .. },
                        AfterFailure::Retry(_) | AfterFailure::Rest,
                    ) => return Err(self.illegal(event)),
                };
                self.set(vertex, next);
                self.keep_note(vertex, reason);
            }
            Event::TakenUp { request, .. } => {
                if !self.requests.contains(request) {
                    self.requests.push(request.clone());
                    let surplus = self.requests.len().saturating_sub(REQUESTS_MAX);
                    self.requests.drain(..surplus);
                }
            }
            Event::Reset { vertex, .. } => {
                let attempts = match self.vertex(vertex)? {
                    state @ (VertexState::Failed { .. }
                    | VertexState::Succeeded { .. }
                    | VertexState::Skipped { .. }) => state.attempts(),
                    VertexState::Pending { .. } => return Ok(()),
                    VertexState::Started { .. } | VertexState::Waiting { .. } | VertexState::BackingOff { .. } => {
                        return Err(self.illegal(event));
                    }
                };
                self.notes.remove(vertex);
                self.outputs.remove(vertex);
                self.set(vertex, VertexState::Pending { attempts });
                self.phase = RunPhase::InProgress;
                self.reason = None;
            }
            Event::Paused { reason, at } => {
                self.paused = true;
                self.paused_since = self.paused_since.or(Some(*at));
                self.reason = Some(cut(reason));
            }
            Event::Resumed { at } => {
                self.paused = false;
                self.reason = None;
                // Deadlines count from the first start: the time of the pause is given back.
                let paused =
                    self.paused_since.take().map_or(TimeDelta::zero(), |since| (*at - since).max(TimeDelta::zero()));
                self.vertices.values_mut().for_each(|state| state.delay(paused));
            }
            Event::Credited { from, until, .. } => {
                let from = self.credited.map_or(*from, |credited| credited.max(*from));
                if !self.paused {
                    // The time of a pause is given back as a whole when it ends.
                    self.vertices.values_mut().for_each(|state| state.credit(from, *until));
                }
                self.credited = Some(self.credited.map_or(*until, |credited| credited.max(*until)));
            }
            Event::CancelRequested { .. } => self.cancelling = true,
            Event::HeldBack { reason, .. } => self.reason = Some(cut(reason)),
            Event::Rested { reason, .. } => {
                self.phase = RunPhase::RequiresAttention;
                self.reason = Some(cut(reason));
            }
            Event::Finished { phase, reason, at } => {
                self.phase = match phase {
                    FinalPhase::Succeeded => RunPhase::Succeeded,
                    FinalPhase::Failed => RunPhase::Failed,
                    FinalPhase::Cancelled => RunPhase::Cancelled,
                };
                self.reason = Some(cut(reason));
                self.finished = Some(*at);
            }
            Event::Unknown => return Err(IllegalTransition::UnknownEvent),
        }
        if let Some(at) = event.at() {
            self.clock = self.clock.max(whole_seconds(at));
        }
        Ok(())
    }

    /// Takes events in order; on an error those before it are taken.
    pub fn fold<'e>(&mut self, events: impl IntoIterator<Item = &'e Event>) -> Result<(), IllegalTransition> {
        events.into_iter().try_for_each(|event| self.apply(event))
    }

    fn vertex(&self, name: &VertexName) -> Result<VertexState, IllegalTransition> {
        self.state(name).ok_or_else(|| IllegalTransition::UnknownVertex(name.clone()))
    }

    fn set(&mut self, name: &VertexName, state: VertexState) {
        if let Some(slot) = self.vertices.get_mut(name) {
            *slot = state;
        }
    }

    fn illegal(&self, event: &Event) -> IllegalTransition {
        match event.vertex() {
            Some(vertex) if !self.phase.is_final() => IllegalTransition::Vertex {
                vertex: vertex.clone(),
                state: format!("{:?}", self.state(vertex)),
                event: event.line(),
            },
            Some(_) | None => IllegalTransition::Run { phase: self.phase, event: event.line() },
        }
    }

    fn keep_note(&mut self, vertex: &VertexName, reason: &Reason) {
        self.notes.insert(vertex.clone(), cut(reason));
        while self.notes.len() > NOTES_MAX {
            let failed = |name: &VertexName| matches!(self.vertices.get(name), Some(VertexState::Failed { .. }));
            let victim = self.notes.keys().rev().find(|name| !failed(name));
            let Some(victim) = victim.or_else(|| self.notes.keys().next_back()).cloned() else {
                return;
            };
            self.notes.remove(&victim);
        }
    }
}

/// The reason as a cursor keeps it.
pub(crate) fn cut(reason: &Reason) -> Reason {
    if reason.message.len() <= NOTE_BYTES_MAX {
        return reason.clone();
    }
    let end =
        (0..=NOTE_BYTES_MAX - '…'.len_utf8()).rev().find(|&end| reason.message.is_char_boundary(end)).unwrap_or(0);
    Reason::new(reason.code.clone(), format!("{}…", &reason.message[..end]))
}
