//! Conditions as metav1 defines them, with the types that every kind here sets.

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

/// One aspect of an object's state, as metav1.Condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// When the status of this condition last changed. Example: 2026-11-22T07:00:00Z
    pub last_transition_time: Timestamp,
    /// One line for people. Example: step 14 of 22: draining worker-3
    #[schemars(length(max = 1024))]
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

impl Condition {
    /// The longest message in characters; longer ones are cut by [`set`].
    pub const MESSAGE_CHARS_MAX: usize = 1024;
}

/// Puts `condition` into `conditions`, sorted by type; keeps the old transition time if its status did not change.
///
/// Returns whether anything changed but the time: if not, there is nothing to write.
pub fn set(conditions: &mut Vec<Condition>, mut condition: Condition) -> bool {
    if let Some((at, _)) = condition.message.char_indices().nth(Condition::MESSAGE_CHARS_MAX) {
        condition.message.truncate(at);
    }
    match conditions.binary_search_by(|old| old.type_.cmp(&condition.type_)) {
        Ok(at) => replace(&mut conditions[at], condition),
        // Another writer may have left them unsorted: then the search can miss one that is there.
        Err(_) => match conditions.iter_mut().find(|old| old.type_ == condition.type_) {
            Some(old) => replace(old, condition),
            None => {
                conditions.push(condition);
                conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
                true
            }
        },
    }
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
