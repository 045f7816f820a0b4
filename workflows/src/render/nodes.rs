//! A run by its nodes: what `status.nodes` and `status.summary` of a DirectUpdate are made of.

use super::View;
use super::words::{State, Time, detail, ended_of, first_of, state_of};
use cupcake_crds::direct_update::{NodePhase, NodeProgress, Summary};
use cupcake_crds::limits::{NODE_MESSAGE_CHARS_MAX, cut};
use cupcake_engine::dag::Vertex;
use serde_json::Value;
use std::collections::BTreeMap;

/// The longest message about a node in flight, in characters (`NodeProgress`'s schema).
const MESSAGE_CHARS_MAX: usize = 256;

/// Every node that the run's plan changes, by name, and how far it has come. Reading a node (a snapshot of its etcd) is no change.
///
/// The nodes of child runs are theirs; ask there.
pub fn node_progress(view: &View<'_>) -> BTreeMap<String, NodeProgress> {
    let mut of_node: BTreeMap<&str, Vec<&Vertex>> = BTreeMap::new();
    for vertex in view.dag.vertices() {
        if let Some(node) = node_of(vertex) {
            of_node.entry(node).or_default().push(vertex);
        }
    }
    of_node.into_iter().map(|(node, vertices)| (node.to_owned(), progress(view, &vertices))).collect()
}

/// How many nodes are where.
pub fn node_summary(nodes: &BTreeMap<String, NodeProgress>) -> Summary {
    let mut summary = Summary::default();
    for node in nodes.values() {
        summary.total += 1;
        match node.phase {
            NodePhase::Pending => summary.pending += 1,
            NodePhase::Draining | NodePhase::Upgrading | NodePhase::Verifying | NodePhase::Uncordoning => {
                summary.upgrading += 1;
            }
            NodePhase::Completed => summary.completed += 1,
            NodePhase::Failed => summary.failed += 1,
        }
    }
    summary
}

/// The node that a vertex changes: it stands in the name as the word before the last.
fn node_of(vertex: &Vertex) -> Option<&str> {
    let node = vertex.params.get("node")?.get("name").and_then(Value::as_str)?;
    let mut words = vertex.name.as_str().rsplit('/');
    words.next()?;
    (words.next() == Some(node)).then_some(node)
}

fn progress(view: &View<'_>, vertices: &[&Vertex]) -> NodeProgress {
    let state = |vertex: &Vertex| state_of(view, vertex);
    let step = |vertex: &Vertex| vertex.name.as_str().rsplit('/').next().unwrap_or_default().to_owned();
    let failed = vertices.iter().find(|vertex| State::of(state(vertex)) == State::Failed);
    let begun = vertices.iter().rev().find(|vertex| state(vertex).attempts() > 0);
    let completed = vertices.iter().all(|vertex| State::of(state(vertex)).is_done());
    let active = vertices.iter().find(|vertex| State::of(state(vertex)).is_active());
    let phase = match (failed, begun) {
        (Some(_), _) => NodePhase::Failed,
        (None, _) if completed => NodePhase::Completed,
        (None, None) => NodePhase::Pending,
        (None, Some(vertex)) => match step(vertex).as_str() {
            "drain" => NodePhase::Draining,
            "uncordon" => NodePhase::Uncordoning,
            _ => NodePhase::Upgrading,
        },
    };
    let bounded = |mut text: String, chars_max| {
        cut(&mut text, chars_max);
        Some(text).filter(|text| !text.is_empty())
    };
    NodeProgress {
        completed_at: vertices.iter().filter_map(|vertex| ended_of(state(vertex))).max().filter(|_| completed),
        error: failed.and_then(|vertex| bounded(detail(view, vertex, Time::Inside), NODE_MESSAGE_CHARS_MAX)),
        last_step: begun.map(|vertex| step(vertex)),
        message: active.and_then(|vertex| bounded(detail(view, vertex, Time::Inside), MESSAGE_CHARS_MAX)),
        phase,
        started_at: vertices.iter().filter_map(|vertex| first_of(state(vertex))).min(),
    }
}
