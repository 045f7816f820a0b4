//! The stored form of a graph: compact, immutable, named by its digest.
//!
//! A graph of thousands of vertices that repeat a pattern (the same steps on each node) is stored as groups of
//! items and templates, so that 250 nodes fit into 64 kB. `expand` is a pure function of the plan.

use crate::dag::{Dag, DagBuilder, DagError, Requires, Vertex};
use crate::names::{InvalidName, StepKind, VertexName};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The format of plans that this code writes. Older ones are read for ever.
pub const PLAN_FORMAT: u32 = 1;
/// The default deadline of a vertex, in seconds.
pub const DEADLINE_SECONDS_DEFAULT: u32 = 1_800;
/// The default number of attempts of a vertex.
pub const ATTEMPTS_MAX_DEFAULT: u32 = 5;

/// A compiled plan as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The format of this document: [`PLAN_FORMAT`].
    pub format: u32,
    /// Name and version of the compiler that made it.
    pub compiler: String,
    /// The parts in plan order.
    pub parts: Vec<Part>,
}

/// A part of a plan: one vertex, or a group that repeats its vertices for each item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Part {
    /// One vertex.
    Vertex(VertexTemplate),
    /// The same vertices for each item.
    Each(Group),
}

/// The same vertices for each of some items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// The items in plan order.
    pub items: Vec<Item>,
    /// The vertices of each item; `{item}` and `{KEY}` of the item's values are replaced in every text of them.
    pub vertices: Vec<VertexTemplate>,
}

/// One item of a group: a name and what else differs from item to item.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// Replaces `{item}`.
    pub name: String,
    /// Replace `{KEY}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
}

/// A vertex as stored. In `after` a word `*` stands for any word: `workers/*/uncordon` is that vertex of every item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VertexTemplate {
    /// The name, which may hold placeholders.
    pub name: String,
    /// The kind of step.
    pub kind: StepKind,
    /// The step's parameters; texts in it may hold placeholders.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub params: Value,
    /// What it comes after.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// What it needs of those.
    #[serde(default, skip_serializing_if = "is_success")]
    pub requires: Requires,
    /// The vertex whose start makes this one run in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<String>,
    /// The lane whose slot it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
    /// Seconds from first start to failure.
    #[serde(default = "deadline_default")]
    pub deadline_seconds: u32,
    /// How often it may be started.
    #[serde(default = "attempts_default")]
    pub attempts_max: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_success(requires: &Requires) -> bool {
    matches!(requires, Requires::Success)
}
fn deadline_default() -> u32 {
    DEADLINE_SECONDS_DEFAULT
}
fn attempts_default() -> u32 {
    ATTEMPTS_MAX_DEFAULT
}

impl VertexTemplate {
    /// A vertex of that name and kind that comes after the named ones, with defaults for the rest.
    pub fn new(name: impl Into<String>, kind: StepKind, params: Value, after: &[&str]) -> Self {
        Self {
            name: name.into(),
            kind,
            params,
            after: after.iter().map(ToString::to_string).collect(),
            requires: Requires::Success,
            guard: None,
            lane: None,
            deadline_seconds: DEADLINE_SECONDS_DEFAULT,
            attempts_max: ATTEMPTS_MAX_DEFAULT,
        }
    }

    /// In this lane.
    pub fn lane(mut self, lane: impl Into<String>) -> Self {
        self.lane = Some(lane.into());
        self
    }

    /// Runs in any case once `guard` was started.
    pub fn guarded_by(mut self, guard: impl Into<String>) -> Self {
        self.guard = Some(guard.into());
        self.requires = Requires::Settled;
        self
    }

    /// Needs only that what it comes after is at rest.
    pub fn when_settled(mut self) -> Self {
        self.requires = Requires::Settled;
        self
    }

    /// Fails past this many seconds.
    pub fn deadline_seconds(mut self, seconds: u32) -> Self {
        self.deadline_seconds = seconds;
        self
    }
}

/// Why a stored plan cannot be executed.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A format of a newer release.
    #[error("plan has format {found}, this release reads up to {PLAN_FORMAT}: upgrade CUPCAKE before resuming the run")]
    NewerFormat {
        /// The plan's format.
        found: u32,
    },
    /// A name that is none, after its placeholders were replaced.
    #[error("plan holds a bad name")]
    Name(#[from] InvalidName),
    /// A pattern in `after` that matches nothing.
    #[error("vertex {vertex} comes after {pattern}, which matches no vertex of the plan")]
    EmptyPattern {
        /// The vertex that holds it.
        vertex: String,
        /// The pattern.
        pattern: String,
    },
    /// The vertices make no graph.
    #[error("plan is no graph")]
    Dag(#[from] DagError),
}

impl Plan {
    /// An empty plan of this compiler.
    pub fn new(compiler: impl Into<String>) -> Self {
        Self { format: PLAN_FORMAT, compiler: compiler.into(), parts: Vec::new() }
    }

    /// Appends one vertex.
    pub fn vertex(&mut self, vertex: VertexTemplate) -> &mut Self {
        self.parts.push(Part::Vertex(vertex));
        self
    }

    /// Appends a group.
    pub fn each(&mut self, items: Vec<Item>, vertices: Vec<VertexTemplate>) -> &mut Self {
        self.parts.push(Part::Each(Group { items, vertices }));
        self
    }

    /// The lower-case hex SHA-256 of the plan's JSON (keys of maps sorted): names the plan.
    pub fn digest(&self) -> String {
        let json = serde_json::to_vec(self).expect("a plan has string keys only, which always serialise");
        let mut text = String::with_capacity(64);
        for byte in Sha256::digest(&json) {
            write!(text, "{byte:02x}").expect("a String takes everything");
        }
        text
    }

    /// The graph that the plan stands for.
    pub fn expand(&self) -> Result<Dag, PlanError> {
        if self.format > PLAN_FORMAT {
            return Err(PlanError::NewerFormat { found: self.format });
        }
        let mut templates = Vec::new();
        for part in &self.parts {
            match part {
                Part::Vertex(vertex) => templates.push(vertex.clone()),
                Part::Each(group) => {
                    for item in &group.items {
                        templates.extend(group.vertices.iter().map(|vertex| substituted(vertex, item)));
                    }
                }
            }
        }
        let names: Vec<String> = templates.iter().map(|template| template.name.clone()).collect();
        let mut builder = DagBuilder::new();
        for template in templates {
            let mut after = Vec::new();
            for entry in &template.after {
                if entry.split('/').any(|word| word == "*") {
                    let matching: Vec<_> = names.iter().filter(|name| matches_pattern(entry, name)).collect();
                    if matching.is_empty() {
                        return Err(PlanError::EmptyPattern { vertex: template.name, pattern: entry.clone() });
                    }
                    for name in matching {
                        after.push(VertexName::new(name)?);
                    }
                } else {
                    after.push(VertexName::new(entry)?);
                }
            }
            builder.add(Vertex {
                name: VertexName::new(template.name)?,
                kind: template.kind,
                params: template.params,
                after,
                requires: template.requires,
                guard: template.guard.map(VertexName::new).transpose()?,
                lane: template.lane,
                deadline_seconds: template.deadline_seconds,
                attempts_max: template.attempts_max,
            });
        }
        Ok(builder.build()?)
    }
}

fn matches_pattern(pattern: &str, name: &str) -> bool {
    let mut words = name.split('/');
    let every = pattern.split('/').all(|wanted| words.next().is_some_and(|word| wanted == "*" || wanted == word));
    every && words.next().is_none()
}

fn substituted(template: &VertexTemplate, item: &Item) -> VertexTemplate {
    let text = |text: &String| substituted_text(text, item);
    VertexTemplate {
        name: text(&template.name),
        kind: template.kind.clone(),
        params: substituted_value(&template.params, item),
        after: template.after.iter().map(text).collect(),
        requires: template.requires,
        guard: template.guard.as_ref().map(text),
        lane: template.lane.as_ref().map(text),
        deadline_seconds: template.deadline_seconds,
        attempts_max: template.attempts_max,
    }
}

fn substituted_text(text: &str, item: &Item) -> String {
    if !text.contains('{') {
        return text.to_owned();
    }
    let mut replaced = text.replace("{item}", &item.name);
    for (key, value) in &item.values {
        replaced = replaced.replace(&format!("{{{key}}}"), value);
    }
    replaced
}

fn substituted_value(value: &Value, item: &Item) -> Value {
    match value {
        Value::String(text) => Value::String(substituted_text(text, item)),
        Value::Array(values) => values.iter().map(|value| substituted_value(value, item)).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| (key.clone(), substituted_value(value, item))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn kind() -> StepKind {
        StepKind::new("noop/v1").unwrap()
    }

    #[test]
    fn a_group_expands_to_its_vertices_for_each_item_and_a_gate_waits_for_all_of_them() {
        let mut plan = Plan::new("test");
        let items = ["w-1", "w-2"]
            .map(|name| Item { name: name.into(), values: BTreeMap::from([("version".into(), "1.34.4-1.1".into())]) });
        plan.each(
            items.to_vec(),
            vec![
                VertexTemplate::new("{item}/drain", kind(), json!({"node": "{item}"}), &[]).lane("{item}"),
                VertexTemplate::new(
                    "{item}/kubelet",
                    kind(),
                    json!({"package": ["kubelet={version}"]}),
                    &["{item}/drain"],
                ),
            ],
        );
        plan.vertex(VertexTemplate::new("gate", kind(), Value::Null, &["*/kubelet"]));
        let dag = plan.expand().unwrap();
        let names: Vec<_> = dag.vertices().iter().map(|v| v.name.as_str()).collect();
        assert_eq!(names, ["w-1/drain", "w-1/kubelet", "w-2/drain", "w-2/kubelet", "gate"]);
        assert_eq!(dag.vertices()[3].params, json!({"package": ["kubelet=1.34.4-1.1"]}));
        assert_eq!(dag.vertices()[4].after.len(), 2);
        assert_eq!(dag.vertices()[2].lane.as_deref(), Some("w-2"));
    }

    #[test]
    fn a_pattern_that_matches_nothing_is_an_error_and_not_a_vertex_without_dependencies() {
        let mut plan = Plan::new("test");
        plan.vertex(VertexTemplate::new("gate", kind(), Value::Null, &["*/kubelet"]));
        assert!(matches!(plan.expand(), Err(PlanError::EmptyPattern { .. })));
    }

    #[test]
    fn a_plan_of_a_newer_format_is_refused_with_the_way_out() {
        let mut plan = Plan::new("test");
        plan.format = PLAN_FORMAT + 1;
        let error = plan.expand().unwrap_err().to_string();
        assert!(error.contains("upgrade CUPCAKE"), "{error}");
    }
}
