//! Conditions as metav1 defines them, with the types that every kind here sets.

use crate::limits;
use cupcake_engine::clock::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

/// Unknown while it runs, True in the end, False if it failed or was cancelled: `kubectl wait --for=condition=Succeeded`.
pub const SUCCEEDED: &str = "Succeeded";
/// True while something is being done (kstatus).
pub const RECONCILING: &str = "Reconciling";
/// True when a person is needed; the message holds the next command to type (kstatus).
pub const STALLED: &str = "Stalled";
/// True while a user holds it.
pub const PAUSED: &str = "Paused";
/// True while an update holds because its spec.operationTimeout is over; False once somebody let it go on.
pub const TIMED_OUT: &str = "TimedOut";

/// True once nothing stood in the way of the start, False with the code of what does, Unknown where spec.preflightChecks is false.
pub const PREFLIGHT: &str = "Preflight";

/// False while a gate waits for somebody, True once all gates of spec.approvals are open.
pub const APPROVED: &str = "Approved";

/// One aspect of an object's state, as metav1.Condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// When the status of this condition last changed. Example: 2026-11-22T07:00:00Z
    pub last_transition_time: Timestamp,
    /// One line for people. Example: step 14 of 22: draining worker-3
    #[schemars(length(max = limits::MESSAGE_CHARS_MAX))]
    pub message: String,
    /// The generation of the object that this condition speaks of. Example: 2
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// One word for programs. Example: DrainBlocked
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"))]
    pub reason: String,
    /// True, False or Unknown.
    pub status: ConditionStatus,
    /// Which aspect. Example: Succeeded
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 64))]
    pub type_: String,
}

/// True, False or Unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Not decided yet.
    Unknown,
}

/// Puts `condition` into `conditions`, sorted by type; keeps the old transition time if its status did not change, cuts a long message.
///
/// Returns whether anything changed but the time: if not, there is nothing to write.
pub fn set(conditions: &mut Vec<Condition>, mut condition: Condition) -> bool {
    limits::cut(&mut condition.message, limits::MESSAGE_CHARS_MAX);
    // Not a binary search: another writer may have left them unsorted.
    if let Some(old) = conditions.iter_mut().find(|old| old.type_ == condition.type_) {
        return replace(old, condition);
    }
    conditions.push(condition);
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    true
}

/// The condition of that type, if set.
pub fn get<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

fn replace(old: &mut Condition, mut new: Condition) -> bool {
    if old.status == new.status {
        new.last_transition_time = old.last_transition_time;
    }
    let changed = *old != new;
    *old = new;
    changed
}

/// The schema of a list of conditions: merged by type, at most 12.
pub(crate) fn list_schema(generator: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "array",
        "maxItems": 12,
        "items": generator.subschema_for::<Condition>(),
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;

    fn condition(type_: &str, status: ConditionStatus, reason: &str, at_seconds: i64) -> Condition {
        Condition {
            last_transition_time: DateTime::from_timestamp(at_seconds, 0).expect("a time within range"),
            message: String::new(),
            observed_generation: None,
            reason: reason.to_owned(),
            status,
            type_: type_.to_owned(),
        }
    }

    #[test]
    fn the_transition_time_moves_with_the_status_only() {
        let mut conditions = Vec::new();
        assert!(set(&mut conditions, condition(SUCCEEDED, ConditionStatus::Unknown, "Preflight", 1)));
        assert!(set(&mut conditions, condition(SUCCEEDED, ConditionStatus::Unknown, "StepRunning", 2)));
        assert!(!set(&mut conditions, condition(SUCCEEDED, ConditionStatus::Unknown, "StepRunning", 3)));
        assert_eq!(conditions, [condition(SUCCEEDED, ConditionStatus::Unknown, "StepRunning", 1)]);
        assert!(set(&mut conditions, condition(SUCCEEDED, ConditionStatus::True, "Succeeded", 4)));
        assert_eq!(conditions, [condition(SUCCEEDED, ConditionStatus::True, "Succeeded", 4)]);
    }

    #[test]
    fn conditions_are_kept_in_order_even_where_another_writer_left_none() {
        let mut conditions = vec![
            condition(SUCCEEDED, ConditionStatus::Unknown, "StepRunning", 1),
            condition(PAUSED, ConditionStatus::False, "NotPaused", 1),
        ];
        set(&mut conditions, condition(PAUSED, ConditionStatus::True, "Asked", 2));
        set(&mut conditions, condition(RECONCILING, ConditionStatus::True, "StepRunning", 2));
        let types: Vec<&str> = conditions.iter().map(|condition| condition.type_.as_str()).collect();
        assert_eq!(types, [PAUSED, RECONCILING, SUCCEEDED]);
        assert_eq!(get(&conditions, PAUSED).map(|paused| paused.status), Some(ConditionStatus::True));
    }

    #[test]
    fn a_long_message_is_cut_instead_of_refused() {
        let mut conditions = Vec::new();
        let long =
            Condition { message: "ö".repeat(5000), ..condition(STALLED, ConditionStatus::True, "DrainBlocked", 1) };
        set(&mut conditions, long);
        assert_eq!(conditions[0].message.chars().count(), limits::MESSAGE_CHARS_MAX);
    }
}
