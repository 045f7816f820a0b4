//! Vertices by the words of their names, with what each branch comes to.

use super::View;
use super::words::{State, ended_of, first_of, state_of};
use crate::templates::{CHILD_RUN, HOST_RELEASE};
use cupcake_crds::upgrade_run::ChildRun;
use cupcake_crds::values::Phase;
use cupcake_engine::clock::Timestamp;
use cupcake_engine::dag::Vertex;
use serde_json::Value;

/// A run by the words of its vertices' names, in plan order.
pub(super) struct Tree<'a> {
    pub view: &'a View<'a>,
    pub top: Vec<Branch<'a>>,
}

/// One word of a name and what is below it; a word with a single one below is joined with it.
pub(super) struct Branch<'a> {
    /// `cp-1` or, joined, `cp-1/kubeadm-upgrade`.
    pub label: String,
    /// The vertex of exactly this name.
    pub vertex: Option<&'a Vertex>,
    /// What is below.
    pub below: Vec<Branch<'a>>,
    /// The runs below, if the vertex stands for a run.
    pub runs: Runs<'a>,
    /// What it comes to.
    pub state: State,
    /// When the first of it was started.
    pub first: Option<Timestamp>,
    /// When the last of it came to rest, if all of it did, or if some failed and the rest is not under way.
    pub ended: Option<Timestamp>,
}

/// The runs that a vertex stands for.
#[derive(Default)]
pub(super) struct Runs<'a> {
    /// The run itself.
    pub own: Option<&'a ChildRun>,
    /// The runs below that one, as people call them: `batch-2`, by number, then `stragglers-1`.
    pub parts: Vec<(String, &'a ChildRun)>,
}

impl<'a> Tree<'a> {
    pub fn of(view: &'a View<'a>) -> Self {
        let mut top: Vec<Branch<'a>> = Vec::new();
        for vertex in view.dag.vertices().iter().filter(|vertex| !is_routine(view, vertex)) {
            insert(&mut top, vertex.name.as_str(), vertex);
        }
        for branch in &mut top {
            branch.finish(view, true);
        }
        Self { view, top }
    }
}

/// Whether a vertex is no news to people: the release of an order that was answered, or that is not begun.
fn is_routine(view: &View<'_>, vertex: &Vertex) -> bool {
    let state = State::of(state_of(view, vertex));
    vertex.kind.as_str() == HOST_RELEASE && matches!(state, State::Pending | State::Done | State::Skipped)
}

fn insert<'a>(branches: &mut Vec<Branch<'a>>, rest: &str, vertex: &'a Vertex) {
    let (word, rest) = match rest.split_once('/') {
        Some((word, rest)) => (word, Some(rest)),
        None => (rest, None),
    };
    // Vertices of one node or stage stand together in a plan: the last branch is nearly always the one.
    let found = match branches.last() {
        Some(last) if last.label == word => Some(branches.len() - 1),
        Some(_) | None if rest.is_none() => None,
        Some(_) | None => branches.iter().position(|branch| branch.label == word),
    };
    let index = found.unwrap_or_else(|| {
        branches.push(Branch::new(word));
        branches.len() - 1
    });
    match rest {
        None => branches[index].vertex = Some(vertex),
        Some(rest) => insert(&mut branches[index].below, rest, vertex),
    }
}

impl<'a> Branch<'a> {
    fn new(word: &str) -> Self {
        Self {
            label: word.to_owned(),
            vertex: None,
            below: Vec::new(),
            runs: Runs::default(),
            state: State::Pending,
            first: None,
            ended: None,
        }
    }

    /// Joins single ones and sums up, from below.
    fn finish(&mut self, view: &'a View<'a>, top: bool) {
        for branch in &mut self.below {
            branch.finish(view, false);
        }
        if !top && self.vertex.is_none() && self.below.len() == 1 {
            let only = self.below.remove(0);
            let label = format!("{}/{}", self.label, only.label);
            *self = only;
            self.label = label;
            return;
        }
        let mut states: Vec<State> = self.below.iter().map(|branch| branch.state).collect();
        let mut firsts: Vec<Option<Timestamp>> = self.below.iter().map(|branch| branch.first).collect();
        let mut ends: Vec<Option<Timestamp>> = self.below.iter().map(|branch| branch.ended).collect();
        if let Some(vertex) = self.vertex {
            let state = state_of(view, vertex);
            states.push(State::of(state));
            firsts.push(first_of(state));
            ends.push(ended_of(state));
            self.runs = Runs::of(view, vertex);
        }
        self.state = sum(&states);
        self.first = firsts.into_iter().flatten().min();
        // What failed has come to rest, though what would have followed never will.
        let at_rest = states.iter().all(|state| !state.is_active());
        self.ended = if self.state == State::Failed && at_rest {
            ends.into_iter().flatten().max()
        } else {
            ends.into_iter().collect::<Option<Vec<_>>>().and_then(|ends| ends.into_iter().max())
        };
    }

    /// Every vertex at or below it, in plan order.
    pub fn vertices(&self) -> Vec<&'a Vertex> {
        let mut vertices: Vec<&'a Vertex> = self.vertex.into_iter().collect();
        vertices.extend(self.below.iter().flat_map(Branch::vertices));
        vertices
    }

    /// What many of them are called, if `branches` are many of one kind.
    pub fn noun(branches: &[Self]) -> Option<&'static str> {
        let (first, rest) = branches.split_first()?;
        let alike = |other: &Self| {
            first.vertex.map(|vertex| &vertex.kind) == other.vertex.map(|vertex| &vertex.kind)
                && first.label.split('/').skip(1).eq(other.label.split('/').skip(1))
                && first.below.iter().map(|branch| &branch.label).eq(other.below.iter().map(|branch| &branch.label))
        };
        if rest.is_empty() || !rest.iter().all(alike) {
            return None;
        }
        match first.vertex {
            Some(vertex) if vertex.kind.as_str() == CHILD_RUN => Some("batch"),
            Some(_) if !first.label.contains('/') => Some("step"),
            Some(_) | None => Some("node"),
        }
    }
}

/// What a group of states comes to.
fn sum(states: &[State]) -> State {
    let any = |wanted| states.contains(&wanted);
    let all = |wanted: &[State]| states.iter().all(|state| wanted.contains(state));
    if any(State::Failed) {
        State::Failed
    } else if states.is_empty() || all(&[State::Pending]) {
        State::Pending
    } else if all(&[State::Skipped]) {
        State::Skipped
    } else if all(&[State::Done, State::Skipped]) {
        State::Done
    } else {
        match states {
            [one] => *one,
            _ => State::Running,
        }
    }
}

impl<'a> Runs<'a> {
    fn of(view: &'a View<'a>, vertex: &'a Vertex) -> Self {
        if vertex.kind.as_str() != CHILD_RUN {
            return Self::default();
        }
        let Some(run) = run_of(vertex) else {
            return Self::default();
        };
        let own = view.children.iter().find(|child| child.name == run);
        let mut parts: Vec<((&str, u32), &ChildRun)> = view
            .children
            .iter()
            .filter_map(|child| {
                let rest = child.name.strip_prefix(run)?.strip_prefix('-')?;
                let (what, number) = match rest.strip_prefix("stragglers-") {
                    Some(number) => ("stragglers", number),
                    None => ("batch", rest),
                };
                Some(((what, number.parse().ok()?), child))
            })
            .collect();
        parts.sort_by_key(|(part, _)| *part);
        let parts = parts.into_iter().map(|((what, number), child)| (format!("{what}-{number}"), child));
        Self { own, parts: parts.collect() }
    }
}

/// The name of the run that a child-run vertex stands for.
pub(super) fn run_of(vertex: &Vertex) -> Option<&str> {
    vertex.params.get("run").and_then(Value::as_str)
}

/// The state that stands for a run in that phase.
pub(super) fn state_of_phase(phase: Phase) -> State {
    match phase {
        Phase::Pending => State::Pending,
        Phase::InProgress => State::Running,
        Phase::Succeeded => State::Done,
        Phase::Failed | Phase::RequiresAttention => State::Failed,
        Phase::Cancelled => State::Skipped,
    }
}
