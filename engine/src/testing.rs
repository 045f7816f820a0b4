//! Small fixtures for this crate's own tests.

use crate::dag::{Requires, Vertex};
use crate::names::{StepKind, VertexName};
use serde_json::Value;

/// A vertex of kind `noop/v1` that comes after the named ones.
pub(crate) fn vertex(name: &str, after: &[&str]) -> Vertex {
    Vertex {
        name: VertexName::new(name).unwrap(),
        kind: StepKind::new("noop/v1").unwrap(),
        params: Value::Null,
        after: after.iter().map(|name| VertexName::new(*name).unwrap()).collect(),
        requires: Requires::Success,
        guard: None,
        lane: None,
        deadline_seconds: 600,
        attempts_max: 3,
    }
}
