//! How commands end: exit codes for scripts, failures with the next command for people.

use std::fmt;
use std::process::ExitCode;

/// The exit code of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: it succeeded; of `plan`: there is nothing to do.
    Done,
    /// 1: it failed, or was asked for what cannot be.
    Failed,
    /// 2, of `plan` alone: there is something to do.
    Changes,
    /// 2, of `preflight` alone: nothing stands in the way of what is known, and of machines nothing is.
    Unknown,
    /// 3, of `plan` and `preflight`: the update is refused, or would wait.
    Refused,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Changes | Exit::Unknown => 2,
            Exit::Refused => 3,
        })
    }
}

/// Why a command failed, and what to type next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    what: String,
    next: String,
}

impl Failure {
    /// What failed, as one line, and the next command to type.
    pub fn new(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self { what: what.into(), next: next.into() }
    }

    /// An error with its causes, under what was tried.
    pub fn from_error(tried: &str, error: &(dyn std::error::Error + 'static), next: impl Into<String>) -> Self {
        Self::new(format!("{tried}: {}", cupcake_operator::error_chain(error)), next)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}\nnext:  {}", self.what, self.next)
    }
}

/// Ends a command line that could not be understood with 1 (2 means "changes" here); help and version with 0.
pub fn usage(error: &clap::Error) -> ExitCode {
    // A closed pipe cannot be told about.
    let _ = error.print();
    if error.use_stderr() { Exit::Failed.into() } else { Exit::Done.into() }
}

/// A runtime of one thread for commands that talk to a cluster.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::from_error("start", &error, "try again; the system gave no event loop"))
}
