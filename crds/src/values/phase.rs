//! Where an update or a run stands, in the field's words.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Where it stands: Pending until the first step starts, then InProgress, and one of Succeeded, Failed and Cancelled in the end.
/// RequiresAttention rests until a person helps, and can go on from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Nothing has been started yet.
    #[default]
    Pending,
    /// Steps are running, or wait inside their deadlines.
    InProgress,
    /// Came to its end; every node is where it should be.
    Succeeded,
    /// Came to its end with failures inside the budget, or can never go on.
    Failed,
    /// Rests until a person retries, skips, edits or cancels.
    RequiresAttention,
    /// Stopped because somebody asked for it.
    Cancelled,
}

impl Phase {
    /// Whether nothing can follow any more.
    pub const fn is_final(self) -> bool {
        match self {
            Self::Succeeded | Self::Failed | Self::Cancelled => true,
            Self::Pending | Self::InProgress | Self::RequiresAttention => false,
        }
    }

    /// The word that objects carry.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::InProgress => "InProgress",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::RequiresAttention => "RequiresAttention",
            Self::Cancelled => "Cancelled",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
