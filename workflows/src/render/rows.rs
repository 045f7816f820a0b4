//! Which lines a tree has: what is done or not begun is folded, what needs a look is not.

use super::tree::{Branch, Tree, state_of_phase};
use super::words::{State, Time, between, detail, state_of};
use crate::summary::count;
use cupcake_crds::upgrade_run::ChildRun;
use cupcake_crds::values::Phase;
use cupcake_engine::dag::Vertex;
use std::cmp::Reverse;

/// How many alike are counted instead of named.
const COUNTED_FROM: usize = 3;

/// How much of a tree is folded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fold {
    /// Whether what is done or not begun is folded.
    settled: bool,
    /// Whether what is under way takes one line.
    active: bool,
    /// How many of many alike that are under way are shown.
    active_max: usize,
}

impl Fold {
    /// Every vertex on its line, but for releases of orders that are no news.
    pub const NOTHING: Self = Self { settled: false, active: false, active_max: usize::MAX };
    /// From the most telling to the shortest.
    pub const STATUS: [Self; 7] = [
        Self { settled: true, active: false, active_max: usize::MAX },
        Self { settled: true, active: true, active_max: usize::MAX },
        Self { settled: true, active: true, active_max: 24 },
        Self { settled: true, active: true, active_max: 12 },
        Self { settled: true, active: true, active_max: 6 },
        Self { settled: true, active: true, active_max: 2 },
        Self { settled: true, active: true, active_max: 0 },
    ];
}

/// One line before its columns are padded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Of each level above, from the top: whether more follows there. The last one is the row's own.
    pub more_follows: Vec<bool>,
    pub state: State,
    pub label: String,
    pub duration: String,
    pub detail: String,
}

/// The rows of a tree.
pub(super) fn rows(tree: &Tree<'_>, fold: Fold) -> Vec<Row> {
    let mut rows = Vec::new();
    let nodes = group(tree, &tree.top, fold, tree.top.len() == 1);
    write(&nodes, None, &mut rows);
    rows
}

/// A row and those below it, before it is known what follows.
struct Knot {
    state: State,
    label: String,
    duration: String,
    detail: String,
    below: Vec<Knot>,
}

impl Knot {
    fn plain(state: State, label: String) -> Self {
        Self { state, label, duration: String::new(), detail: String::new(), below: Vec::new() }
    }
}

fn write(knots: &[Knot], above: Option<&[bool]>, rows: &mut Vec<Row>) {
    for (index, knot) in knots.iter().enumerate() {
        let more_follows = match above {
            None => Vec::new(),
            Some(above) => above.iter().copied().chain([index + 1 < knots.len()]).collect(),
        };
        rows.push(Row {
            more_follows: more_follows.clone(),
            state: knot.state,
            label: knot.label.clone(),
            duration: knot.duration.clone(),
            detail: knot.detail.clone(),
        });
        write(&knot.below, Some(&more_follows), rows);
    }
}

/// The knots of what stands below one another. `open` forbids to fold the only one there is.
fn group(tree: &Tree<'_>, branches: &[Branch<'_>], fold: Fold, open: bool) -> Vec<Knot> {
    let noun = if fold.settled { Branch::noun(branches) } else { None };
    let Some(noun) = noun else {
        return branches.iter().map(|branch| knot(tree, branch, fold, open)).collect();
    };
    let mut knots = Vec::new();
    let done: Vec<_> = branches.iter().filter(|branch| branch.state.is_done()).collect();
    let pending: Vec<_> = branches.iter().filter(|branch| branch.state == State::Pending).collect();
    let mut others: Vec<_> = branches
        .iter()
        .enumerate()
        .filter(|(_, branch)| !branch.state.is_done() && branch.state != State::Pending)
        .map(|(index, branch)| (Reverse(foremost(tree, branch).map(|(state, _)| state)), index, branch))
        .collect();
    if done.len() >= COUNTED_FROM {
        let label = format!("{} done", count(len(done.len()), noun));
        knots.push(Knot::plain(State::Done, label));
    } else {
        knots.extend(done.iter().map(|branch| knot(tree, branch, fold, false)));
    }
    // Those shown are the worst ones, in plan order.
    others.sort_by_key(|(worst, index, _)| (*worst, *index));
    let hidden = others.len().saturating_sub(fold.active_max);
    others.truncate(fold.active_max);
    others.sort_by_key(|(_, index, _)| *index);
    knots.extend(others.iter().map(|(_, _, branch)| knot(tree, branch, fold, false)));
    if hidden > 0 {
        let more = if others.is_empty() { "" } else { "more " };
        let label = format!("{hidden} {more}{} under way", plural(noun));
        knots.push(Knot::plain(State::Running, label));
    }
    if pending.len() >= COUNTED_FROM {
        knots.push(Knot::plain(State::Pending, count(len(pending.len()), noun)));
    } else {
        knots.extend(pending.iter().map(|branch| knot(tree, branch, fold, false)));
    }
    knots
}

fn plural(noun: &str) -> String {
    count(2, noun).split_off(2)
}

fn len(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn knot(tree: &Tree<'_>, branch: &Branch<'_>, fold: Fold, open: bool) -> Knot {
    let settled = branch.state.is_done() || branch.state == State::Pending;
    let folded = fold.settled && !open && (settled || fold.active);
    let noun = Branch::noun(&branch.below);
    let mut knot = Knot::plain(branch.state, branch.label.clone());
    knot.duration = time(tree, branch);
    if let Some(vertex) = branch.vertex {
        knot.detail = detail(tree.view, vertex, Time::Beside);
        if let Some(own) = branch.runs.own.filter(|_| !branch.state.is_done()) {
            let own = child_detail(own);
            knot.detail = if knot.detail.is_empty() { own } else { format!("{own}  {}", knot.detail) };
        }
    }
    let of_many = noun.map(|noun| count(len(branch.below.len()), noun));
    if folded && settled {
        if let Some(many) = of_many {
            knot.label = format!("{} ({many})", knot.label);
        }
        return knot;
    }
    if let Some(many) = &of_many {
        let done = branch.below.iter().filter(|below| below.state.is_done()).count();
        knot.detail = format!("{done} of {many}");
    }
    if folded && of_many.is_none() && !branch.below.is_empty() {
        // A node in one line says which of its steps it is at.
        if let Some((state, vertex)) = foremost(tree, branch) {
            let word = vertex.name.as_str().rsplit('/').next().unwrap_or_default();
            knot.state = state;
            let said = format!("{word} {}", detail(tree.view, vertex, Time::Inside));
            knot.detail = String::from(said.trim());
        }
        return knot;
    }
    // A stage of many nodes stays open: its nodes take one line each.
    knot.below = if settled && fold.settled { Vec::new() } else { runs(&branch.runs.parts, fold) };
    knot.below.extend(group(tree, &branch.below, fold, false));
    knot
}

/// The first of the worst vertices below a branch that are under way or failed.
fn foremost<'a>(tree: &Tree<'a>, branch: &Branch<'a>) -> Option<(State, &'a Vertex)> {
    let vertices = branch.vertices().into_iter();
    let states = vertices.map(|vertex| (State::of(state_of(tree.view, vertex)), vertex));
    let at = states.filter(|(state, _)| *state == State::Failed || state.is_active());
    // max_by_key would give the last.
    at.reduce(|best, next| if next.0 > best.0 { next } else { best })
}

/// How long it took, or has taken so far.
fn time(tree: &Tree<'_>, branch: &Branch<'_>) -> String {
    match (branch.first, branch.ended) {
        (Some(first), Some(ended)) => between(first, ended),
        (Some(first), None) => between(first, tree.view.now()),
        (None, _) => String::new(),
    }
}

fn child_detail(child: &ChildRun) -> String {
    let progress = child.progress.clone().unwrap_or_default();
    match child.phase {
        // The sign says it.
        Phase::Pending | Phase::InProgress | Phase::Succeeded => progress,
        Phase::Failed | Phase::RequiresAttention | Phase::Cancelled => {
            format!("{progress} {}", child.phase).trim().to_owned()
        }
    }
}

/// The runs below a run, folded like nodes.
fn runs(parts: &[(String, &ChildRun)], fold: Fold) -> Vec<Knot> {
    let one = |(label, child): &(String, &ChildRun)| {
        let mut knot = Knot::plain(state_of_phase(child.phase), label.clone());
        knot.detail = child_detail(child);
        knot
    };
    if !fold.settled {
        return parts.iter().map(one).collect();
    }
    let with = |wanted: fn(State) -> bool| -> Vec<_> {
        parts.iter().filter(|(_, child)| wanted(state_of_phase(child.phase))).collect()
    };
    let done = with(State::is_done);
    let pending = with(|state| state == State::Pending);
    let others = with(|state| !state.is_done() && state != State::Pending);
    let mut knots = Vec::new();
    if done.len() >= COUNTED_FROM {
        knots.push(Knot::plain(State::Done, format!("{} done", count(len(done.len()), "batch"))));
    } else {
        knots.extend(done.into_iter().map(one));
    }
    let hidden = others.len().saturating_sub(fold.active_max);
    knots.extend(others.into_iter().take(fold.active_max).map(one));
    if hidden > 0 {
        knots.push(Knot::plain(State::Running, format!("{hidden} batches under way")));
    }
    if pending.len() >= COUNTED_FROM {
        knots.push(Knot::plain(State::Pending, count(len(pending.len()), "batch")));
    } else {
        knots.extend(pending.into_iter().map(one));
    }
    knots
}
