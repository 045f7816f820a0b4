//! What a step is: one idempotent move, which looks before it acts.

use crate::clock::Timestamp;
use crate::cursor::{Cursor, VertexState};
use crate::names::{Epoch, Reason, RunName, StepKind, VertexName};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a consumer of the engine brings: the ports through which its steps act.
pub trait Domain: Send + Sync + 'static {
    /// All that the steps of this domain may touch.
    type Ports: Send + Sync;
}

/// What a look at the world showed.
#[derive(Debug, Clone, PartialEq)]
pub enum Probe<T> {
    /// The goal holds.
    Satisfied(T),
    /// The goal does not hold: `apply` is to be called.
    Unsatisfied,
    /// It cannot be told. Never taken for success: the step looks again.
    Unknown(Reason),
    /// The goal does not hold yet, and there is nothing to do but wait.
    Wait(Wait),
}

/// What an apply came to.
#[derive(Debug, Clone, PartialEq)]
pub enum StepOutcome<T> {
    /// The goal holds.
    Done(T),
    /// There is nothing to do here, now or later.
    Skipped(Reason),
    /// Begun; the rest is to be waited for.
    Wait(Wait),
}

/// Waiting is a value: until when at the latest, for what, and what would end it early.
#[derive(Debug, Clone, PartialEq)]
pub struct Wait {
    /// When to look again at the latest.
    pub until: Timestamp,
    /// For what.
    pub reason: Reason,
    /// Whether people should see it.
    pub shown: bool,
    /// Names of things whose change is a reason to look at once, such as `NodeTask/w-1`.
    pub on: Vec<String>,
}

impl Wait {
    /// A wait that is part of the normal way: it costs no write of its own.
    pub fn quiet(until: Timestamp, reason: Reason) -> Self {
        Self { until, reason, shown: false, on: Vec::new() }
    }

    /// A wait that people should see: it is recorded with its reason.
    pub fn shown(until: Timestamp, reason: Reason) -> Self {
        Self { until, reason, shown: true, on: Vec::new() }
    }

    /// Ends early when `subject` changes.
    pub fn on(mut self, subject: impl Into<String>) -> Self {
        self.on.push(subject.into());
        self
    }
}

/// A failed attempt, by what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// Another attempt may well succeed.
    #[error("{0}")]
    Transient(Reason),
    /// No further attempt will succeed.
    #[error("{0}")]
    Permanent(Reason),
    /// A person has to do something first; the message says what.
    #[error("{0}")]
    NeedsOperator(Reason),
}

impl StepError {
    /// Why.
    pub fn reason(&self) -> &Reason {
        match self {
            Self::Transient(reason) | Self::Permanent(reason) | Self::NeedsOperator(reason) => reason,
        }
    }
}

/// What a cancel means for a vertex that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnCancel {
    /// It goes on to its end: what it began is not to be left half done.
    Finish,
    /// It acts no more, and waits for what it began: where its probe says that there is something to do, it is skipped.
    Stop,
    /// It only looks: unless its goal holds, it is skipped.
    Leave,
}

/// What bounds the time of a vertex.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Its own deadline: past it, it fails.
    Deadline,
    /// What it watches: a run of its own, whose vertices have their deadlines. One more would count what that waits for by rule (gates,
    /// approvals, closed windows), and would fail what is as it has to be.
    WhatItWatches,
}

/// All that a step may see.
pub struct StepContext<'a, D: Domain> {
    pub(crate) ports: &'a D::Ports,
    pub(crate) run: &'a RunName,
    pub(crate) run_uid: &'a str,
    pub(crate) vertex: &'a VertexName,
    pub(crate) attempt: u32,
    pub(crate) number: u32,
    pub(crate) epoch: Epoch,
    pub(crate) now: Timestamp,
    pub(crate) started: Timestamp,
    pub(crate) deadline: Timestamp,
    pub(crate) cursor: &'a Cursor,
    pub(crate) given_up: bool,
}

impl<D: Domain> StepContext<'_, D> {
    /// The ports.
    pub fn ports(&self) -> &D::Ports {
        self.ports
    }
    /// The time of this look; it does not pass while the step runs.
    pub fn now(&self) -> Timestamp {
        self.now
    }
    /// When this attempt series began.
    pub fn started(&self) -> Timestamp {
        self.started
    }
    /// When the vertex fails if it is not done, unless its step is bounded by what it watches.
    pub fn deadline(&self) -> Timestamp {
        self.deadline
    }
    /// The run.
    pub fn run(&self) -> &RunName {
        self.run
    }
    /// The run's UID: unlike the name, never used again.
    pub fn run_uid(&self) -> &str {
        self.run_uid
    }
    /// The vertex.
    pub fn vertex(&self) -> &VertexName {
        self.vertex
    }
    /// The recorded attempt: a re-run after a crash keeps it, a retry after a recorded failure has a new one.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }
    /// Whether this is the first attempt since the vertex was begun, or since somebody asked to try it again.
    pub fn is_first_attempt(&self) -> bool {
        self.number == 1
    }
    /// The epoch under which this process leads.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }
    /// The output of a vertex that succeeded before this one; `None` if it left none or one of another shape.
    pub fn output_of<T: DeserializeOwned>(&self, vertex: &VertexName) -> Option<T> {
        T::deserialize(self.cursor.output(vertex)?).ok()
    }
    /// When that vertex succeeded, by the clock of who recorded it.
    pub fn succeeded_at(&self, vertex: &VertexName) -> Option<Timestamp> {
        match self.cursor.state(vertex)? {
            VertexState::Succeeded { ended, .. } => Some(ended),
            VertexState::Pending { .. }
            | VertexState::Started { .. }
            | VertexState::Waiting { .. }
            | VertexState::BackingOff { .. }
            | VertexState::Skipped { .. }
            | VertexState::Failed { .. } => None,
        }
    }
    /// Whether the run is being cancelled, or the vertex's lane left out: what was asked for and not begun is to be given up. Never
    /// for a guarded vertex, which always finishes.
    pub fn is_given_up(&self) -> bool {
        self.given_up
    }
    /// How often that vertex was started so far.
    pub fn attempts_of(&self, vertex: &VertexName) -> u32 {
        self.cursor.state(vertex).map_or(0, |state| state.attempts())
    }
}

/// One idempotent move.
///
/// # Assumptions
/// `probe` only reads. `apply` may be called again after any crash, at any point of its effects, and may be dropped at any
/// await. Neither blocks, sleeps or loops to wait: a step that has to wait returns [`Wait`]. There is no undo: what must
/// happen in any case is a vertex of its own with a guard.
#[async_trait]
pub trait Step<D: Domain>: Send + Sync + 'static {
    /// Durable kind, such as `drain-node/v1`.
    const KIND: &'static str;
    /// Parameters, fixed when the plan is compiled.
    type Params: Serialize + DeserializeOwned + JsonSchema + Send + Sync;
    /// What it leaves for later vertices; `()` for nothing. At most 1 KiB of JSON.
    type Output: Serialize + DeserializeOwned + JsonSchema + Send + Sync;
    /// What a cancel means for it, unless it is guarded: guarded vertices always finish.
    const ON_CANCEL: OnCancel = OnCancel::Finish;
    /// What bounds its time.
    const BOUND: Bound = Bound::Deadline;

    /// Looks whether the goal holds.
    async fn probe(&self, ctx: &StepContext<'_, D>, params: &Self::Params) -> Result<Probe<Self::Output>, StepError>;

    /// Moves towards the goal.
    async fn apply(
        &self,
        ctx: &StepContext<'_, D>,
        params: &Self::Params,
    ) -> Result<StepOutcome<Self::Output>, StepError>;
}

/// A step with its types erased: parameters and outputs are JSON.
#[async_trait]
pub(crate) trait ErasedStep<D: Domain>: Send + Sync {
    fn kind(&self) -> StepKind;
    fn on_cancel(&self) -> OnCancel;
    fn bound(&self) -> Bound;
    fn check_params(&self, params: &Value) -> Result<(), serde_json::Error>;
    async fn probe(&self, ctx: &StepContext<'_, D>, params: &Value) -> Result<Probe<Value>, StepError>;
    async fn apply(&self, ctx: &StepContext<'_, D>, params: &Value) -> Result<StepOutcome<Value>, StepError>;
}

pub(crate) struct Erased<S>(pub(crate) S);

impl<S> Erased<S> {
    fn params<D: Domain>(params: &Value) -> Result<S::Params, StepError>
    where
        S: Step<D>,
    {
        <S::Params as Deserialize>::deserialize(params).map_err(|error| {
            StepError::Permanent(Reason::new("BadParameters", format!("parameters of {} do not fit: {error}", S::KIND)))
        })
    }
}

/// What a step leaves, as the cursor keeps it; an empty map leaves nothing: a batch of hundreds of nodes would fill the cursor with it.
fn output_of<T: Serialize>(output: &T, kind: &str) -> Result<Value, StepError> {
    let bad = |why: String| StepError::Permanent(Reason::new("BadOutput", format!("output of {kind} {why}")));
    let value = serde_json::to_value(output).map_err(|error| bad(format!("is no JSON: {error}")))?;
    if value.as_object().is_some_and(serde_json::Map::is_empty) {
        return Ok(Value::Null);
    }
    let bytes = value.to_string().len();
    if bytes > crate::cursor::OUTPUT_BYTES_MAX {
        return Err(bad(format!("has {bytes} bytes, {} are allowed", crate::cursor::OUTPUT_BYTES_MAX)));
    }
    Ok(value)
}

#[async_trait]
impl<D: Domain, S: Step<D>> ErasedStep<D> for Erased<S> {
    fn kind(&self) -> StepKind {
        StepKind::new(S::KIND).expect("registration checked the kind")
    }

    fn on_cancel(&self) -> OnCancel {
        S::ON_CANCEL
    }

    fn bound(&self) -> Bound {
        S::BOUND
    }

    fn check_params(&self, params: &Value) -> Result<(), serde_json::Error> {
        <S::Params as Deserialize>::deserialize(params).map(drop)
    }

    async fn probe(&self, ctx: &StepContext<'_, D>, params: &Value) -> Result<Probe<Value>, StepError> {
        let params = Self::params::<D>(params)?;
        Ok(match self.0.probe(ctx, &params).await? {
            Probe::Satisfied(output) => Probe::Satisfied(output_of(&output, S::KIND)?),
            Probe::Unsatisfied => Probe::Unsatisfied,
            Probe::Unknown(reason) => Probe::Unknown(reason),
            Probe::Wait(wait) => Probe::Wait(wait),
        })
    }

    async fn apply(&self, ctx: &StepContext<'_, D>, params: &Value) -> Result<StepOutcome<Value>, StepError> {
        let params = Self::params::<D>(params)?;
        Ok(match self.0.apply(ctx, &params).await? {
            StepOutcome::Done(output) => StepOutcome::Done(output_of(&output, S::KIND)?),
            StepOutcome::Skipped(reason) => StepOutcome::Skipped(reason),
            StepOutcome::Wait(wait) => StepOutcome::Wait(wait),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn an_empty_map_is_no_output_and_one_that_is_too_large_is_refused() {
        let output =
            |pairs: &[(&str, String)]| output_of(&pairs.iter().cloned().collect::<BTreeMap<_, _>>(), "test/v1");
        assert_eq!(output(&[]), Ok(Value::Null));
        assert_eq!(output(&[("a", "b".to_owned())]), Ok(serde_json::json!({"a": "b"})));
        assert!(output(&[("a", "b".repeat(crate::cursor::OUTPUT_BYTES_MAX))]).is_err());
    }
}
