//! A block of lines at the end of a terminal, drawn anew in place with plain ANSI sequences.

use crate::out;
use std::fmt::Write as _;

/// Size of a terminal that does not tell.
const COLUMNS: usize = 120;
/// As [`COLUMNS`].
const ROWS: usize = 40;

/// A block that is drawn anew.
#[derive(Debug, Default)]
pub struct Block {
    lines: usize,
}

impl Block {
    /// Draws the lines in place of the last ones; what does not fit the terminal is cut.
    pub fn draw(&mut self, lines: &[String]) {
        let (rows, columns) = size();
        let mut text = String::new();
        if self.lines > 0 {
            // Up to the first line of the block, then clear to the end of the screen.
            let _ = write!(text, "\x1b[{}A\x1b[J", self.lines);
        }
        let shown = fit(lines, rows.saturating_sub(1).max(1), columns);
        for line in &shown {
            text.push_str(line);
            text.push('\n');
        }
        self.lines = shown.len();
        out::raw(&text);
    }
}

/// The lines that fit, each cut to the width; the last ones are counted if there are too many.
fn fit(lines: &[String], rows: usize, columns: usize) -> Vec<String> {
    let cut = |line: &String| line.chars().take(columns).collect::<String>();
    if lines.len() <= rows {
        return lines.iter().map(cut).collect();
    }
    let kept = rows.saturating_sub(1);
    let mut shown: Vec<String> = lines.iter().take(kept).map(cut).collect();
    shown.push(cut(&format!("… {} more lines", lines.len() - kept)));
    shown
}

/// How many characters a line of the terminal has.
pub fn columns() -> usize {
    size().1
}

fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (usize::from(size.ws_row), usize::from(size.ws_col)),
        Ok(_) | Err(_) => (ROWS, COLUMNS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_cut_and_counted() {
        let lines: Vec<String> = (0..5).map(|number| format!("line number {number}")).collect();
        assert_eq!(fit(&lines, 5, 6), vec!["line n"; 5]);
        assert_eq!(fit(&lines, 3, 80), ["line number 0", "line number 1", "… 3 more lines"]);
    }
}
