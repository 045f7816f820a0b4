//! The graph of a run: vertices with unique names, every dependency known, no cycle.

use crate::names::{StepKind, VertexName};
use petgraph::graph::{DiGraph, NodeIndex};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// What a vertex needs of the vertices it comes after.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Requires {
    /// Each of them succeeded or was skipped.
    #[default]
    Success,
    /// Each of them came to rest in any way: gates, and what must happen in any case.
    Settled,
}

/// One use of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Vertex {
    /// Unique in the graph.
    pub name: VertexName,
    /// Which step.
    pub kind: StepKind,
    /// The step's parameters, as the step's `Params` reads them.
    pub params: Value,
    /// What it comes after.
    pub after: Vec<VertexName>,
    /// What it needs of those.
    pub requires: Requires,
    /// If set: the vertex runs in any case once its guard was started, and is skipped if the guard never was.
    pub guard: Option<VertexName>,
    /// Vertices of one lane (for CUPCAKE: a node) hold one slot of the run's concurrency, from the first start to the last end.
    pub lane: Option<String>,
    /// How long the vertex may take from the first start of an attempt series; past it, it fails.
    pub deadline_seconds: u32,
    /// How often it may be started before a transient error is final.
    pub attempts_max: u32,
}

impl Vertex {
    /// Whether a person who says `what` means this vertex: by its name, by a part of it, or by its lane (a node; lanes of a plan over
    /// several minors carry the version before it).
    pub fn is_named(&self, what: &str) -> bool {
        let is_lane = |lane: &str| lane == what || lane.strip_suffix(what).is_some_and(|before| before.ends_with('/'));
        self.name.as_str() == what
            || self.name.as_str().split('/').any(|part| part == what)
            || self.lane.as_deref().is_some_and(is_lane)
    }
}

/// Why vertices do not make a graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DagError {
    /// Two vertices have one name.
    #[error("vertex {0} occurs twice: give each vertex its own name")]
    Duplicate(VertexName),
    /// A dependency or guard that is not in the graph.
    #[error("vertex {vertex} comes after {missing}, which is not in the plan")]
    UnknownDependency {
        /// The vertex that names it.
        vertex: VertexName,
        /// What is missing.
        missing: VertexName,
    },
    /// A cycle; the vertex is one of those on it.
    #[error("vertex {0} comes, through others, after itself")]
    Cycle(VertexName),
    /// A guard in another lane: the slot that its clean-up needs could be taken.
    #[error("vertex {vertex} is in another lane than its guard {guard}: clean-up belongs to the lane it cleans")]
    GuardInOtherLane {
        /// The guarded vertex.
        vertex: VertexName,
        /// Its guard.
        guard: VertexName,
    },
    /// More vertices than one run may have.
    #[error("{count} vertices are more than the {max} one run may have: split it into child runs")]
    TooManyVertices {
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
}

/// How many vertices one run may have: its cursor must fit an object (about 8 bytes a vertex, 20 kB an object,
/// with a factor of two and a half for runs whose states are mostly alike).
pub const VERTICES_MAX: usize = 6_000;

/// Collects vertices; [`DagBuilder::build`] checks them.
#[derive(Debug, Default)]
pub struct DagBuilder {
    vertices: Vec<Vertex>,
}

impl DagBuilder {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a vertex. The order of adding is the plan order: ties are resolved by it, and cursors are encoded in it.
    pub fn add(&mut self, vertex: Vertex) -> &mut Self {
        self.vertices.push(vertex);
        self
    }

    /// The graph, or the first thing that is wrong with it.
    pub fn build(self) -> Result<Dag, DagError> {
        let vertices = self.vertices;
        if vertices.len() > VERTICES_MAX {
            return Err(DagError::TooManyVertices { count: vertices.len(), max: VERTICES_MAX });
        }
        let mut index = BTreeMap::new();
        for (position, vertex) in vertices.iter().enumerate() {
            if index.insert(vertex.name.clone(), position).is_some() {
                return Err(DagError::Duplicate(vertex.name.clone()));
            }
        }
        let mut graph = DiGraph::<usize, ()>::with_capacity(vertices.len(), vertices.len());
        for position in 0..vertices.len() {
            graph.add_node(position);
        }
        let mut after = Vec::with_capacity(vertices.len());
        let mut guards = Vec::with_capacity(vertices.len());
        for (position, vertex) in vertices.iter().enumerate() {
            let find = |name: &VertexName| {
                index
                    .get(name)
                    .copied()
                    .ok_or_else(|| DagError::UnknownDependency { vertex: vertex.name.clone(), missing: name.clone() })
            };
            let guard = vertex.guard.as_ref().map(&find).transpose()?;
            if let Some(guard) = guard.map(|guard| &vertices[guard]).filter(|guard| guard.lane != vertex.lane) {
                return Err(DagError::GuardInOtherLane { vertex: vertex.name.clone(), guard: guard.name.clone() });
            }
            let mut before = vertex.after.iter().map(find).collect::<Result<Vec<_>, _>>()?;
            before.extend(guard);
            before.sort_unstable();
            before.dedup();
            for &dependency in &before {
                graph.add_edge(NodeIndex::new(dependency), NodeIndex::new(position), ());
            }
            after.push(before);
            guards.push(guard);
        }
        let topological = petgraph::algo::toposort(&graph, None)
            .map_err(|cycle| DagError::Cycle(vertices[graph[cycle.node_id()]].name.clone()))?
            .into_iter()
            .map(|node| graph[node])
            .collect();
        Ok(Dag { vertices, index, after, guards, topological })
    }
}

/// A checked graph. Immutable.
#[derive(Debug, Clone)]
pub struct Dag {
    vertices: Vec<Vertex>,
    index: BTreeMap<VertexName, usize>,
    after: Vec<Vec<usize>>,
    guards: Vec<Option<usize>>,
    topological: Vec<usize>,
}

impl Dag {
    /// The vertices in plan order.
    pub fn vertices(&self) -> &[Vertex] {
        &self.vertices
    }

    /// The vertex of that name.
    pub fn get(&self, name: &VertexName) -> Option<&Vertex> {
        self.position(name).map(|position| &self.vertices[position])
    }

    /// Where in plan order the vertex of that name stands.
    pub fn position(&self, name: &VertexName) -> Option<usize> {
        self.index.get(name).copied()
    }

    /// How many vertices there are.
    pub fn len(&self) -> usize {
        self.vertices.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.vertices.is_empty()
    }

    /// Positions of what the vertex at `position` comes after, its guard included.
    pub(crate) fn after(&self, position: usize) -> &[usize] {
        &self.after[position]
    }

    /// Position of the guard of the vertex at `position`.
    pub(crate) fn guard(&self, position: usize) -> Option<usize> {
        self.guards[position]
    }

    /// Positions such that each stands after all that it depends on.
    pub(crate) fn topological(&self) -> &[usize] {
        &self.topological
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::vertex;

    #[test]
    fn a_graph_with_a_cycle_a_duplicate_or_a_dangling_edge_is_refused_by_name() {
        let mut builder = DagBuilder::new();
        builder.add(vertex("a", &["b"])).add(vertex("b", &["a"]));
        assert!(matches!(builder.build(), Err(DagError::Cycle(_))));

        let mut builder = DagBuilder::new();
        builder.add(vertex("a", &[])).add(vertex("a", &[]));
        assert!(matches!(builder.build(), Err(DagError::Duplicate(name)) if name.as_str() == "a"));

        let mut builder = DagBuilder::new();
        builder.add(vertex("a", &["gone"]));
        assert!(
            matches!(builder.build(), Err(DagError::UnknownDependency { missing, .. }) if missing.as_str() == "gone")
        );
    }
}
