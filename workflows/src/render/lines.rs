//! Rows become lines: branches drawn, columns padded, nothing too long.

use super::rows::Row;
use super::words::State;
use super::{Glyphs, LINE_CHARS_MAX};
use cupcake_crds::limits::cut;

/// The widest first column, in characters: a node name may have 253, and reasons need room beside it.
const LABEL_CHARS_MAX: usize = 56;
/// The second column, right-aligned: `59m59s` and a space.
const DURATION_CHARS: usize = 7;

/// Keeps the first `rows_max - 1` rows and counts the rest, if there are more than `rows_max`.
pub(super) fn cut_to(rows: &mut Vec<Row>, rows_max: usize) {
    let Some(surplus) = rows.len().checked_sub(rows_max).filter(|surplus| *surplus > 0) else {
        return;
    };
    rows.truncate(rows_max.saturating_sub(1));
    rows.push(Row {
        more_follows: Vec::new(),
        state: State::Running,
        label: format!("{} more lines", surplus + 1),
        duration: String::new(),
        detail: String::new(),
    });
}

/// The rows as lines of at most [`LINE_CHARS_MAX`] characters without trailing spaces.
pub(super) fn lines(rows: &[Row], glyphs: Glyphs) -> Vec<String> {
    let first: Vec<String> = rows
        .iter()
        .map(|row| {
            let mut label = format!("{}{} {}", branches(&row.more_follows, glyphs), sign(row.state, glyphs), row.label);
            cut(&mut label, LABEL_CHARS_MAX);
            label
        })
        .collect();
    let width = first.iter().map(|label| label.chars().count()).max().unwrap_or(0);
    rows.iter()
        .zip(first)
        .map(|(row, label)| {
            let padding = width - label.chars().count();
            let mut line = format!("{label}{:padding$}{:>DURATION_CHARS$}", "", row.duration);
            if !row.detail.is_empty() {
                line.push_str("  ");
                line.push_str(&row.detail);
            }
            let mut line = line.trim_end().to_owned();
            if glyphs == Glyphs::Ascii {
                line = in_ascii(&line);
            }
            cut(&mut line, LINE_CHARS_MAX);
            if glyphs == Glyphs::Ascii { line.replace('…', "~") } else { line }
        })
        .collect()
}

/// With nothing but ASCII: what was cut ends in `~`, other characters are `?`.
pub(super) fn in_ascii(line: &str) -> String {
    let plain = |c: char| match c {
        '…' => '~',
        c if c.is_ascii() => c,
        _ => '?',
    };
    line.chars().map(plain).collect()
}

pub(super) fn branches(more_follows: &[bool], glyphs: Glyphs) -> String {
    let Some((own, above)) = more_follows.split_last() else {
        return String::new();
    };
    let (pass, gap, fork, end) = match glyphs {
        Glyphs::Unicode => ("│ ", "  ", "├─", "└─"),
        Glyphs::Ascii => ("| ", "  ", "|-", "`-"),
    };
    let mut text: String = above.iter().map(|more| if *more { pass } else { gap }).collect();
    text.push_str(if *own { fork } else { end });
    text
}

pub(super) fn sign(state: State, glyphs: Glyphs) -> char {
    match (state, glyphs) {
        (State::Pending, Glyphs::Unicode) => '○',
        (State::Skipped, Glyphs::Unicode) => '–',
        (State::Done, Glyphs::Unicode) => '✔',
        (State::Running, Glyphs::Unicode) => '▶',
        (State::BackingOff, Glyphs::Unicode) => '↻',
        (State::Waiting, Glyphs::Unicode) => '◔',
        (State::Failed, Glyphs::Unicode) => '✘',
        (State::Pending, Glyphs::Ascii) => '.',
        (State::Skipped, Glyphs::Ascii) => '-',
        (State::Done, Glyphs::Ascii) => '+',
        (State::Running, Glyphs::Ascii) => '>',
        (State::BackingOff, Glyphs::Ascii) => '@',
        (State::Waiting, Glyphs::Ascii) => '~',
        (State::Failed, Glyphs::Ascii) => 'x',
    }
}
