//! A plan and its cursor for people: a tree of lines, one message, one word; and a graph for machines that draw.
//!
//! ```text
//!  View ─► tree (vertices by the words of their names) ─► rows (finished and pending ones folded) ─► lines (columns padded)
//! ```
//! The tree stands in `status.graph`, one string a line: `kubectl describe` prints lists of strings one below the other and
//! keeps spaces and box characters, but knows no columns inside a string, so they are padded here (kubectl
//! `describe.go`, `printUnstructuredContent`). No line holds a line break.

mod dot;
mod left;
mod lines;
mod message;
mod nodes;
mod rows;
mod timeline;
mod tree;
mod why;
mod words;

#[cfg(test)]
mod story;
#[cfg(test)]
mod timeline_story;

pub use dot::dot;
pub use left::{Left, Workers};
pub use message::{Names, current_step, message, retry, with_retry};
pub use nodes::{node_progress, node_summary};
pub use timeline::{Runs, TIMELINE_LINES_MAX, timeline};
pub use why::{HeldBy, Hold, RUN_REFUSED, RunNow, Standing, Wait, Why, Working, why};
pub use words::duration;

use cupcake_crds::limits::GRAPH_LINES_MAX;
use cupcake_crds::upgrade_run::ChildRun;
use cupcake_engine::clock::Timestamp;
use cupcake_engine::cursor::Cursor;
use cupcake_engine::dag::Dag;
use rows::Fold;

/// The longest line, in characters.
pub const LINE_CHARS_MAX: usize = 120;

/// What is shown: a run at one moment.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The run's graph.
    pub dag: &'a Dag,
    /// Where it stands.
    pub cursor: &'a Cursor,
    /// The moment; the cursor's clock counts where that is later.
    pub now: Timestamp,
    /// The runs below it, by name: those that its vertices stand for, and theirs, which are shown summed up.
    pub children: &'a [ChildRun],
}

impl View<'_> {
    fn now(&self) -> Timestamp {
        self.now.max(self.cursor.clock())
    }
}

/// With which characters a tree is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Glyphs {
    /// `├─✔ preflight`
    Unicode,
    /// `|-+ preflight`: for terminals and logs that know nothing else.
    Ascii,
}

/// The run as a tree of at most [`GRAPH_LINES_MAX`] lines of at most [`LINE_CHARS_MAX`] characters, whatever its size.
///
/// What is done or not begun is folded (`✔ 11 nodes done`, `○ 39 nodes`); what failed, waits or runs is shown with
/// attempt, reason and time. Where even that is too much, running nodes take one line each, then the least
/// interesting of them are counted.
pub fn status_lines(view: &View<'_>, glyphs: Glyphs) -> Vec<String> {
    let tree = tree::Tree::of(view);
    let mut rows = Vec::new();
    for fold in Fold::STATUS {
        rows = rows::rows(&tree, fold);
        if rows.len() <= GRAPH_LINES_MAX {
            break;
        }
    }
    lines::cut_to(&mut rows, GRAPH_LINES_MAX);
    lines::lines(&rows, glyphs)
}

/// The run as a tree with every vertex on a line of its own, none longer than [`LINE_CHARS_MAX`] characters.
pub fn full_tree(view: &View<'_>, glyphs: Glyphs) -> Vec<String> {
    lines::lines(&rows::rows(&tree::Tree::of(view), Fold::NOTHING), glyphs)
}

/// Vertices done or skipped of all: `14/22`.
pub fn progress(cursor: &Cursor) -> String {
    let (done, all) = cursor.progress();
    format!("{done}/{all}")
}
