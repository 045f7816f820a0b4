//! The rules of the objects, each as CEL for the API server and once more in Rust for servers without CEL (below Kubernetes 1.25).
//!
//! Each rule is a pair of an expression and a message; the definitions carry both, and [`Validate`] answers with the same message, beside
//! the field and the value that broke it. A test runs both over the same cases.

use std::{error, fmt};

pub(crate) mod direct_update;
pub(crate) mod node_task;
pub(crate) mod scheduled_update;
pub(crate) mod update_schedule;
pub(crate) mod upgrade_plan;
pub(crate) mod upgrade_run;

#[cfg(test)]
mod tests;

/// A rule as the definitions carry it: a CEL expression, and what to tell whoever breaks it.
pub(crate) type CelRule = (&'static str, &'static str);

/// What the API server checks by CEL, for whoever talks to one that cannot.
///
/// # Guarantees
/// Accepts and refuses exactly what the CEL rules of the definitions accept and refuse. It does not repeat the schemas (types, bounds,
/// patterns): every API server enforces those.
pub trait Validate {
    /// Checks a new object; the error lists everything that is wrong with it.
    fn validate(&self) -> Result<(), Violations>;

    /// Checks an object that takes the place of `old`, its status included; the error lists everything that is wrong with it.
    fn validate_update(&self, old: &Self) -> Result<(), Violations>;
}

/// One broken rule: which field, what it holds, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field, by its path from the root of the object. Example: `spec.targetVersion`
    pub field: &'static str,
    /// What it holds, cut to 64 characters.
    pub value: String,
    /// What is wrong and how to put it right, as the API server says it.
    pub message: &'static str,
}

/// Everything that is wrong with an object; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// Each broken rule, in the order of the rules.
    pub fn iter(&self) -> impl Iterator<Item = &Violation> {
        self.0.iter()
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: invalid value {:?}: {}", self.field, self.value, self.message)
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, violation) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{violation}")?;
        }
        Ok(())
    }
}

impl error::Error for Violations {}

/// Gathers what is broken while the rules are gone through.
#[derive(Default)]
pub(crate) struct Checks(Vec<Violation>);

impl Checks {
    /// Notes `rule` as broken unless `holds`; `value` is only looked at then.
    pub(crate) fn rule(&mut self, rule: CelRule, holds: bool, field: &'static str, value: impl fmt::Display) {
        if !holds {
            let value = value.to_string().chars().take(64).collect();
            self.0.push(Violation { field, value, message: rule.1 });
        }
    }

    pub(crate) fn end(self) -> Result<(), Violations> {
        if self.0.is_empty() { Ok(()) } else { Err(Violations(self.0)) }
    }
}

/// A value as JSON, for messages about fields that have no short form.
pub(crate) fn json(value: &impl serde::Serialize) -> String {
    // Everything here is made of strings, numbers, lists and maps with string keys: it always has a JSON form.
    serde_json::to_string(value).unwrap_or_default()
}

/// An optional value for messages.
pub(crate) fn shown(value: Option<&impl fmt::Display>) -> String {
    value.map_or_else(|| "(none)".to_owned(), ToString::to_string)
}

/// CEL: the optional `$field` is the same before and after.
macro_rules! same {
    ($field:literal) => {
        concat!(
            "(has(self.",
            $field,
            ") == has(oldSelf.",
            $field,
            ") && (!has(self.",
            $field,
            ") || self.",
            $field,
            " == oldSelf.",
            $field,
            "))"
        )
    };
}
pub(crate) use same;
