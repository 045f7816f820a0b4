//! Names that are durable: validated once, then carried as types.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {value:?} is not valid: {why}")]
pub struct InvalidName {
    kind: &'static str,
    value: String,
    why: &'static str,
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schemars(with = "String")]
        pub struct $name(String);

        impl $name {
            /// The name, or why the text is none.
            pub fn new(value: impl Into<String>) -> Result<Self, InvalidName> {
                let value = value.into();
                match $check(&value) {
                    Ok(()) => Ok(Self(value)),
                    Err(why) => Err(InvalidName { kind: $kind, value, why }),
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(value: String) -> Result<Self, InvalidName> {
                Self::new(value)
            }
        }
    };
}

/// The longest vertex name, in bytes: a node name (253) and the words around it.
pub const VERTEX_NAME_BYTES_MAX: usize = 320;
/// The longest run name, in bytes: the limit of a Kubernetes object name, which stores it.
pub const RUN_NAME_BYTES_MAX: usize = 253;

fn check_vertex_name(value: &str) -> Result<(), &'static str> {
    if value.is_empty() || value.len() > VERTEX_NAME_BYTES_MAX {
        return Err("it needs 1 to 320 bytes");
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
    if !value.chars().all(legal) {
        return Err("only letters, digits, '.', '_', '-' and '/' may occur in it");
    }
    if value.split('/').any(str::is_empty) {
        return Err("the words between its slashes may not be empty");
    }
    Ok(())
}

fn check_run_name(value: &str) -> Result<(), &'static str> {
    if value.is_empty() || value.len() > RUN_NAME_BYTES_MAX {
        return Err("it needs 1 to 253 bytes");
    }
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-');
    if !value.chars().all(legal) {
        return Err("only lower-case letters, digits, '.' and '-' may occur in it");
    }
    Ok(())
}

fn check_step_kind(value: &str) -> Result<(), &'static str> {
    const FORM: &str = "it needs the form name/vN, such as drain-node/v1";
    let (name, version) = value.split_once("/v").ok_or(FORM)?;
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 60 || !name.chars().all(legal) {
        return Err(FORM);
    }
    match version.parse::<u32>() {
        Ok(n) if n >= 1 => Ok(()),
        Ok(_) | Err(_) => Err(FORM),
    }
}

name_type!(
    /// The name of a vertex, unique in its plan: words parted by slashes, such as `1.34.4/control-plane/cp-2/kubeadm-upgrade`.
    VertexName, "vertex name", check_vertex_name
);
name_type!(
    /// The name of a run, unique in its store: a Kubernetes object name.
    RunName, "run name", check_run_name
);
name_type!(
    /// The kind of a step, such as `drain-node/v1`: durable, never renamed, never used for another meaning.
    StepKind, "step kind", check_step_kind
);

/// The number a leader takes when it takes over; a store refuses writes under a smaller one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Identifies one commit: the epoch it was made under and its place in the run's history.
///
/// A writer that lost the reply to its commit recognises it by this id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct CommitId {
    /// The epoch of the writer.
    pub epoch: Epoch,
    /// 1 for the first commit after creation, then one more each.
    pub sequence: u64,
}

/// Why something is as it is: one `PascalCase` code for machines, one line for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reason {
    /// Stable, `PascalCase`: used in events, conditions and metrics.
    pub code: String,
    /// One line: what is so and, where there is one, what to do.
    pub message: String,
}

impl Reason {
    /// A reason of code and message.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_not_be_read_back_are_refused() {
        for bad in ["", "a//b", "/a", "a/", "ä", "a b"] {
            assert!(VertexName::new(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "drain", "drain/v0", "drain/vx", "Drain/v1"] {
            assert!(StepKind::new(bad).is_err(), "{bad:?}");
        }
        assert!(VertexName::new("1.34.4/control-plane/cp-2/kubeadm-upgrade").is_ok());
        assert!(StepKind::new("drain-node/v1").is_ok());
        assert!(RunName::new("Upper").is_err());
    }
}
