//! What is to be told to the sink of notifications: written into an update's status by the same write as the change that it tells of, and
//! taken out once it is delivered. So nothing is lost with a process, and whoever delivers it delivers it under the same id.

use crate::limits;
use cupcake_engine::clock::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One change of an update that is to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Notice {
    /// When it happened. Example: 2026-11-22T07:00:00Z
    pub at: Timestamp,
    /// Tells it from every other one, also from those of other updates: a receiver that gets it twice has it once. Example: 0193a6f2-8d1c-7c55-9a59-5c1f1d0e2b11.4711.paused
    #[schemars(length(min = 1, max = 512))]
    pub id: String,
    /// What is to be known, in one line. Example: 1.34.4/canary-gate by jane@example.com
    #[schemars(length(max = limits::NOTICE_CHARS_MAX))]
    pub message: String,
    /// The code under which the update stands. Example: WaitingForApproval
    #[schemars(length(max = limits::REASON_CHARS_MAX))]
    pub reason: String,
    /// What happened: Started, Refused, Waiting, Paused, Resumed, ApprovalNeeded, Approved, RequiresAttention, Succeeded, Failed or Cancelled.
    pub transition: Transition,
}

/// What happened to an update: Started, Refused, Waiting, Paused, Resumed, ApprovalNeeded, Approved, RequiresAttention, Succeeded, Failed or Cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Transition {
    /// Its first step is under way.
    Started,
    /// Something stands in the way of its start; it is looked at again by itself.
    Refused,
    /// It waits for another update or for its window, or holds because its time is over; nobody has to act now.
    Waiting,
    /// Somebody holds it.
    Paused,
    /// It goes on after a pause, a wait or a rest.
    Resumed,
    /// A gate waits for somebody.
    ApprovalNeeded,
    /// Somebody opened a gate.
    Approved,
    /// It rests until somebody acts.
    RequiresAttention,
    /// It has arrived.
    Succeeded,
    /// It has failed for good.
    Failed,
    /// It was ended by request.
    Cancelled,
}

impl Transition {
    /// The word of the types of CloudEvents and of ids.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Refused => "refused",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::ApprovalNeeded => "approval-needed",
            Self::Approved => "approved",
            Self::RequiresAttention => "requires-attention",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether somebody should look at it.
    pub const fn needs_a_look(self) -> bool {
        match self {
            Self::Refused | Self::ApprovalNeeded | Self::RequiresAttention | Self::Failed => true,
            Self::Started
            | Self::Waiting
            | Self::Paused
            | Self::Resumed
            | Self::Approved
            | Self::Succeeded
            | Self::Cancelled => false,
        }
    }
}
