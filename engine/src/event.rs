//! What can happen to a run: one change of its cursor each.

use crate::clock::Timestamp;
use crate::names::{Reason, VertexName};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What follows a recorded failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AfterFailure {
    /// Another attempt at that time.
    Retry(Timestamp),
    /// No further attempt unless a person asks for one.
    Rest,
}

/// How a run can end for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FinalPhase {
    /// All that was planned is done.
    Succeeded,
    /// It came to its end with failures inside the budget, or can never go on.
    Failed,
    /// A person cancelled it.
    Cancelled,
}

/// One change of a cursor. Times are whole seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Event {
    /// An attempt begins: recorded before its first effect.
    Started {
        /// Which vertex.
        vertex: VertexName,
        /// 1 for the first attempt.
        attempt: u32,
        /// When.
        at: Timestamp,
    },
    /// The attempt waits for something, and people should see for what.
    Waiting {
        /// Which vertex.
        vertex: VertexName,
        /// The attempt that waits.
        attempt: u32,
        /// When it looks again at the latest.
        until: Timestamp,
        /// For what it waits.
        reason: Reason,
        /// When.
        at: Timestamp,
    },
    /// What the attempt waited for in the sight of people is over; it goes on.
    Continued {
        /// Which vertex.
        vertex: VertexName,
        /// The attempt that waited.
        attempt: u32,
        /// When.
        at: Timestamp,
    },
    /// The vertex reached its goal.
    Succeeded {
        /// Which vertex.
        vertex: VertexName,
        /// The attempt that did.
        attempt: u32,
        /// The step's output, if it has one.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        output: Value,
        /// When.
        at: Timestamp,
    },
    /// The vertex need not or can no longer run.
    Skipped {
        /// Which vertex.
        vertex: VertexName,
        /// Why.
        reason: Reason,
        /// When.
        at: Timestamp,
    },
    /// The attempt failed.
    Failed {
        /// Which vertex.
        vertex: VertexName,
        /// The attempt that did.
        attempt: u32,
        /// Why.
        reason: Reason,
        /// What follows.
        next: AfterFailure,
        /// When.
        at: Timestamp,
    },
    /// A request of a person was taken up: it is not looked at again.
    TakenUp {
        /// Its name.
        request: String,
        /// When.
        at: Timestamp,
    },
    /// The vertex is to run again.
    Reset {
        /// Which vertex.
        vertex: VertexName,
        /// When.
        at: Timestamp,
    },
    /// Nothing new starts from here on.
    Paused {
        /// Who or what asked.
        reason: Reason,
        /// When.
        at: Timestamp,
    },
    /// Vertices start again.
    Resumed {
        /// When.
        at: Timestamp,
    },
    /// Nobody led this run, or its leader could not reach it, for so long: deadlines of what was under way move by that time.
    Credited {
        /// When somebody was last known to look.
        from: Timestamp,
        /// When somebody looks again.
        until: Timestamp,
        /// When it is recorded.
        at: Timestamp,
    },
    /// Only what must happen in any case starts from here on.
    CancelRequested {
        /// When.
        at: Timestamp,
    },
    /// Nothing is under way and nothing new starts for now: why, until something starts again.
    HeldBack {
        /// What holds the run back.
        reason: Reason,
        /// When.
        at: Timestamp,
    },
    /// Nothing more can happen until a person acts.
    Rested {
        /// What is wrong, and what to do.
        reason: Reason,
        /// When.
        at: Timestamp,
    },
    /// The run is over.
    Finished {
        /// How.
        phase: FinalPhase,
        /// Why.
        reason: Reason,
        /// When.
        at: Timestamp,
    },
    /// An event of a newer release: kept readable, never applied.
    #[serde(other)]
    Unknown,
}

impl Event {
    /// When it happened; an unknown event does not say.
    pub fn at(&self) -> Option<Timestamp> {
        match self {
            Self::Started { at, .. }
            | Self::Waiting { at, .. }
            | Self::Continued { at, .. }
            | Self::Succeeded { at, .. }
            | Self::Skipped { at, .. }
            | Self::Failed { at, .. }
            | Self::TakenUp { at, .. }
            | Self::Reset { at, .. }
            | Self::Paused { at, .. }
            | Self::Resumed { at }
            | Self::Credited { at, .. }
            | Self::CancelRequested { at }
            | Self::HeldBack { at, .. }
            | Self::Rested { at, .. }
            | Self::Finished { at, .. } => Some(*at),
            Self::Unknown => None,
        }
    }

    /// The vertex it is about, if it is about one.
    pub fn vertex(&self) -> Option<&VertexName> {
        match self {
            Self::Started { vertex, .. }
            | Self::Waiting { vertex, .. }
            | Self::Continued { vertex, .. }
            | Self::Succeeded { vertex, .. }
            | Self::Skipped { vertex, .. }
            | Self::Failed { vertex, .. }
            | Self::Reset { vertex, .. } => Some(vertex),
            Self::TakenUp { .. }
            | Self::Paused { .. }
            | Self::Resumed { .. }
            | Self::Credited { .. }
            | Self::CancelRequested { .. }
            | Self::HeldBack { .. }
            | Self::Rested { .. }
            | Self::Finished { .. }
            | Self::Unknown => None,
        }
    }

    /// One line for people: `started 1.34.4/workers attempt 2`.
    pub fn line(&self) -> String {
        match self {
            Self::Started { vertex, attempt: 1, .. } => format!("started {vertex}"),
            Self::Started { vertex, attempt, .. } => format!("started {vertex} attempt {attempt}"),
            Self::Waiting { vertex, reason, .. } => format!("waiting {vertex}: {reason}"),
            Self::Continued { vertex, .. } => format!("continued {vertex}"),
            Self::Succeeded { vertex, .. } => format!("succeeded {vertex}"),
            Self::Skipped { vertex, reason, .. } => format!("skipped {vertex}: {reason}"),
            Self::Failed { vertex, attempt, reason, next, .. } => match next {
                AfterFailure::Retry(at) => format!("failed {vertex} attempt {attempt}, again at {at}: {reason}"),
                AfterFailure::Rest => format!("failed {vertex} attempt {attempt}: {reason}"),
            },
            Self::TakenUp { request, .. } => format!("request {request} taken up"),
            Self::Reset { vertex, .. } => format!("reset {vertex}"),
            Self::Paused { reason, .. } => format!("paused: {reason}"),
            Self::Resumed { .. } => "resumed".to_owned(),
            Self::Credited { from, until, .. } => {
                format!("nobody looked for {} s: deadlines moved by them", (*until - *from).num_seconds())
            }
            Self::CancelRequested { .. } => "cancel requested".to_owned(),
            Self::HeldBack { reason, .. } => format!("held back: {reason}"),
            Self::Rested { reason, .. } => format!("needs a person: {reason}"),
            Self::Finished { phase, reason, .. } => format!("finished {phase:?}: {reason}"),
            Self::Unknown => "event of a newer release".to_owned(),
        }
    }
}
