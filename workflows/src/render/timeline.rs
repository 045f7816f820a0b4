//! Where the time of an upgrade went: a waterfall of its steps, those of the runs below it under the steps that stand for them.
//!
//! ```text
//!  runs ─► spans (first start, end, wait; by first start) ─► opened, the longest first, as long as there is room ─► bars on one scale
//! ```

use super::lines::{branches, in_ascii, sign};
use super::tree::{Branch, Tree, run_of};
use super::words::{State, between, state_of};
use super::{Glyphs, LINE_CHARS_MAX, View};
use crate::summary::count;
use crate::templates::CHILD_RUN;
use cupcake_crds::limits::{GRAPH_LINES_MAX, cut};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::cursor::VertexState;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// The most lines of a timeline: with title and message above it, as many as a tree has.
pub const TIMELINE_LINES_MAX: usize = GRAPH_LINES_MAX - 2;
/// The narrowest one, in characters: below that there is no bar to see.
const CHARS_MIN: usize = 56;
/// The last column, right-aligned: `59m59s` and a space.
const DURATION_CHARS: usize = 7;
/// Where not all of many can be shown, some are if there is room for so many,
const SOME_MIN: usize = 4;
/// and so many at the most: what else takes long needs room, too.
const SOME_MAX: usize = 12;
/// How deep runs stand below one another: root, wave, batch.
const RUNS_DEEP_MAX: u32 = 3;

/// The runs of an upgrade, by name.
pub type Runs<'a> = BTreeMap<&'a str, View<'a>>;

/// What was begun in the run `root` and in those below it, in the order of its beginning, each as a bar from its first start to its end on
/// one scale.
///
/// At most [`TIMELINE_LINES_MAX`] lines of at most `width` characters (56 to [`LINE_CHARS_MAX`]). What is under way or failed is opened
/// first, then what took longest; the rest is summed up. The present wait of a step is drawn apart: of attempts and waits that are over
/// a cursor keeps no times, they are part of their bar. Nothing if there is no such run, or nothing of it was begun.
pub fn timeline(root: &str, runs: &Runs<'_>, width: usize, glyphs: Glyphs) -> Vec<String> {
    let Some(view) = runs.get(root) else { return Vec::new() };
    let until = view.cursor.finished().unwrap_or_else(|| view.now());
    let mut spans = Spans { all: Vec::new(), now: until };
    let top = spans.add_run(runs, view, RUNS_DEEP_MAX);
    let Some(from) = top.iter().map(|id| spans.all[*id].first).min() else { return Vec::new() };
    let pending = pending_of(view);
    let foot = usize::from(pending > 0);
    let rows = spans.rows(top, TIMELINE_LINES_MAX - 1 - foot);
    let scale = Scale { from, until: until.max(from) };
    let mut lines = draw(&rows, scale, width.clamp(CHARS_MIN, LINE_CHARS_MAX), glyphs);
    if foot > 0 {
        lines.push(format!("{} {} not begun", sign(State::Pending, glyphs), count(len(pending), "step")));
    }
    lines
}

/// How many steps of a run are still to come.
fn pending_of(view: &View<'_>) -> usize {
    let tree = Tree::of(view);
    let steps = tree.top.iter().flat_map(Branch::vertices);
    steps.filter(|vertex| State::of(state_of(view, vertex)) == State::Pending).count()
}

fn len(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// A vertex, or a group of them, that was begun.
#[derive(Debug, Clone)]
struct Span {
    label: String,
    state: State,
    first: Timestamp,
    end: Option<Timestamp>,
    /// Since when it waits.
    waits: Option<Timestamp>,
    /// What those below are called.
    noun: &'static str,
    /// Those below, by first start.
    below: Vec<usize>,
}

/// All of them, told apart by their place.
struct Spans {
    all: Vec<Span>,
    now: Timestamp,
}

impl Spans {
    /// What was begun of a run, by first start.
    fn add_run(&mut self, runs: &Runs<'_>, view: &View<'_>, deep: u32) -> Vec<usize> {
        let tree = Tree::of(view);
        let begun = tree.top.iter().filter_map(|branch| self.add(runs, view, branch, deep)).collect();
        self.by_first(begun)
    }

    fn by_first(&self, mut ids: Vec<usize>) -> Vec<usize> {
        ids.sort_by_key(|id| self.all[*id].first);
        ids
    }

    fn add(&mut self, runs: &Runs<'_>, view: &View<'_>, branch: &Branch<'_>, deep: u32) -> Option<usize> {
        let first = branch.first?;
        let mut below: Vec<usize> = branch.below.iter().filter_map(|one| self.add(runs, view, one, deep)).collect();
        let mut noun = Branch::noun(&branch.below);
        let run = branch.vertex.filter(|vertex| vertex.kind.as_str() == CHILD_RUN).and_then(run_of);
        if let Some(own) = run.and_then(|run| runs.get(run)).filter(|_| deep > 1) {
            noun = Branch::noun(&Tree::of(own).top);
            below.extend(self.add_run(runs, own, deep - 1));
        }
        let waits = branch.vertex.and_then(|vertex| match state_of(view, vertex) {
            VertexState::Waiting { since, .. } => Some(since),
            VertexState::Pending { .. }
            | VertexState::Started { .. }
            | VertexState::BackingOff { .. }
            | VertexState::Succeeded { .. }
            | VertexState::Skipped { .. }
            | VertexState::Failed { .. } => None,
        });
        // What stands for a run does nothing but wait for it.
        let waits = waits.filter(|_| run.is_none());
        let below = self.by_first(below);
        let are_steps = below.iter().all(|id| self.all[*id].below.is_empty());
        let noun = noun.unwrap_or(if are_steps { "step" } else { "part" });
        let (label, state, end) = (branch.label.clone(), branch.state, branch.ended);
        self.all.push(Span { label, state, first, end, waits, noun, below });
        Some(self.all.len() - 1)
    }

    /// What is opened first: what needs a look, then what took longest, then what came first.
    fn rank(&self, id: usize) -> (bool, i64, Reverse<(Timestamp, usize)>) {
        let span = &self.all[id];
        let needs_a_look = span.state.is_active() || span.state == State::Failed;
        (needs_a_look, (span.end.unwrap_or(self.now) - span.first).num_seconds(), Reverse((span.first, id)))
    }

    /// Opens one after another as long as no more than `rows_max` rows come of it.
    fn rows(&mut self, top: Vec<usize>, rows_max: usize) -> Vec<Row> {
        let mut opened: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let top = self.some_of(&top, rows_max, "part").unwrap_or(top);
        let mut shown = top.clone();
        loop {
            let closed = shown.iter().filter(|id| !self.all[**id].below.is_empty() && !opened.contains_key(*id));
            let Some(next) = closed.copied().max_by_key(|id| self.rank(*id)) else { break };
            let Span { below, noun, .. } = self.all[next].clone();
            let room = rows_max - shown.len();
            let below = if below.len() <= room {
                below
            } else if room > SOME_MIN {
                self.some_of(&below, room.min(SOME_MAX), noun).unwrap_or(below)
            } else {
                Vec::new()
            };
            shown.extend(&below);
            opened.insert(next, below);
        }
        let mut rows = Vec::new();
        self.write(&top, None, &opened, &mut rows);
        rows
    }

    /// So many rows of them, if there are more: those that rank first, and one that sums up the others.
    fn some_of(&mut self, ids: &[usize], rows_max: usize, noun: &'static str) -> Option<Vec<usize>> {
        if ids.len() <= rows_max {
            return None;
        }
        let mut ranked = ids.to_vec();
        ranked.sort_by_key(|id| Reverse(self.rank(*id)));
        let others = ranked.split_off(rows_max - 1);
        let of_others = |id: &usize| &self.all[*id];
        let state = if others.iter().map(of_others).any(|span| span.state == State::Failed) {
            State::Failed
        } else if others.iter().map(of_others).all(|span| span.state.is_done()) {
            State::Done
        } else {
            State::Running
        };
        let first = others.iter().map(|id| of_others(id).first).min()?;
        let ends: Option<Vec<Timestamp>> = others.iter().map(|id| of_others(id).end).collect();
        let label = format!("{} more", count(len(others.len()), noun));
        let end = ends.and_then(|ends| ends.into_iter().max());
        self.all.push(Span { label, state, first, end, waits: None, noun, below: Vec::new() });
        let mut shown = self.by_first(ranked);
        shown.push(self.all.len() - 1);
        Some(shown)
    }

    fn write(&self, ids: &[usize], above: Option<&[bool]>, opened: &BTreeMap<usize, Vec<usize>>, rows: &mut Vec<Row>) {
        for (index, id) in ids.iter().enumerate() {
            let more_follows: Vec<bool> = match above {
                None => Vec::new(),
                Some(above) => above.iter().copied().chain([index + 1 < ids.len()]).collect(),
            };
            let mut span = self.all[*id].clone();
            let below = opened.get(id).map_or(&[][..], Vec::as_slice);
            if below.is_empty() && !span.below.is_empty() {
                span.label = format!("{} ({})", span.label, count(len(span.below.len()), span.noun));
            }
            let end = span.end.unwrap_or(self.now);
            rows.push(Row { more_follows: more_follows.clone(), end, span });
            self.write(below, Some(&more_follows), opened, rows);
        }
    }
}

/// A line before it is drawn.
struct Row {
    /// Of each level above, from the top: whether more follows there. The last one is the row's own.
    more_follows: Vec<bool>,
    span: Span,
    /// The end of the bar.
    end: Timestamp,
}

/// What the bars are measured by.
#[derive(Debug, Clone, Copy)]
struct Scale {
    from: Timestamp,
    until: Timestamp,
}

impl Scale {
    /// The cell of so many in which a moment lies.
    fn cell(self, at: Timestamp, cells: usize) -> usize {
        let all = u64::try_from((self.until - self.from).num_seconds()).unwrap_or(0).max(1);
        let gone = u64::try_from((at - self.from).num_seconds()).unwrap_or(0).min(all);
        let cell = u128::from(gone) * cells as u128 / u128::from(all);
        usize::try_from(cell).unwrap_or(cells).min(cells)
    }

    /// The line above the bars: when they begin, and where they end.
    fn line(self, cells: usize) -> String {
        let same_day = self.from.date_naive() == self.until.date_naive();
        let begin = self.from.format("%Y-%m-%d %H:%M:%S").to_string();
        let end = self.until.format(if same_day { "%H:%M:%S UTC" } else { "%m-%d %H:%M UTC" }).to_string();
        let gap = cells.saturating_sub(begin.len() + end.len()).max(1);
        format!("{begin}{:gap$}{end}", "")
    }
}

fn draw(rows: &[Row], scale: Scale, width: usize, glyphs: Glyphs) -> Vec<String> {
    let labels: Vec<String> = rows
        .iter()
        .map(|row| {
            let span = &row.span;
            let mut label =
                format!("{}{} {}", branches(&row.more_follows, glyphs), sign(span.state, glyphs), span.label);
            cut(&mut label, width * 2 / 5);
            label
        })
        .collect();
    let label_chars = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0);
    let cells = width - label_chars - 2 - DURATION_CHARS;
    let head = format!("{:label_chars$}  {}", "", scale.line(cells));
    let mut lines = vec![head];
    for (row, label) in rows.iter().zip(labels) {
        let padding = label_chars - label.chars().count();
        let bar = bar(row, scale, cells, glyphs);
        let time = between(row.span.first, row.end);
        lines.push(format!("{label}{:padding$}  {bar}{time:>DURATION_CHARS$}", ""));
    }
    match glyphs {
        Glyphs::Unicode => lines,
        Glyphs::Ascii => lines.iter().map(|line| in_ascii(line)).collect(),
    }
}

/// The bar of a row, padded to all cells. Whatever was begun takes one at least.
fn bar(row: &Row, scale: Scale, cells: usize, glyphs: Glyphs) -> String {
    let (solid, wait) = match glyphs {
        Glyphs::Unicode => ('━', '┄'),
        Glyphs::Ascii => ('=', '.'),
    };
    let begin = scale.cell(row.span.first, cells).min(cells - 1);
    let end = scale.cell(row.end, cells).max(begin + 1);
    let waits = row.span.waits.map_or(end, |since| scale.cell(since, cells).clamp(begin, end));
    let cell = |index| match index {
        index if index < begin || index >= end => ' ',
        index if index >= waits => wait,
        _ => solid,
    };
    (0..cells).map(cell).collect()
}
