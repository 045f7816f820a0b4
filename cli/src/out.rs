//! Writing: data on stdout, the rest on stderr; a reader that went away is no error.

use crate::args::Format;
use serde::Serialize;
use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};

/// A line of data.
pub fn line(text: impl Display) {
    // `kubectl cupcake status | head` closes the pipe: nobody is left to be told.
    let _closed = writeln!(std::io::stdout(), "{text}");
}

/// Bytes of data without a line's end, at once: for a screen that is drawn anew.
pub fn raw(text: &str) {
    let mut stdout = std::io::stdout();
    let _closed = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// A value as indented JSON.
fn json(value: &impl Serialize) {
    line(serde_json::to_string_pretty(value).unwrap_or_default());
}

/// A value as indented JSON or as YAML.
pub fn document(format: Format, value: &impl Serialize) {
    match format {
        Format::Json => json(value),
        Format::Yaml => line(yaml(value).trim_end()),
    }
}

/// A value as YAML, by way of its JSON: numbers, times and fields that are left out look alike in both.
fn yaml(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    serde_saphyr::to_string(&value).unwrap_or_default()
}

/// A value as YAML that another one may follow.
pub fn yaml_document(value: &impl Serialize) {
    line(format!("---\n{}", yaml(value).trim_end()));
}

/// A value as JSON on one line.
pub fn json_line(value: &impl Serialize) {
    line(serde_json::to_string(value).unwrap_or_default());
}

/// Something besides the data.
pub fn complain(text: impl Display) {
    let _closed = writeln!(std::io::stderr(), "{text}");
}

/// Whether somebody watches stdout.
pub fn is_watched() -> bool {
    std::io::stdout().is_terminal()
}
