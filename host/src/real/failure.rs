//! From what the machine said to what the step does next.

use super::program::ProgramError;
use cupcake_engine::names::Reason;
use cupcake_steps::ports::host::HostError;
use std::path::Path;

/// The longest message of a reason, in characters; the mailbox and the NodeTask cut theirs at their own limits.
const MESSAGE_CHARS_MAX: usize = 1500;

fn reason(code: &str, message: &str) -> Reason {
    let mut chars = message.chars();
    let mut text: String = chars.by_ref().take(MESSAGE_CHARS_MAX).collect();
    if chars.next().is_some() {
        text.push('…');
    }
    Reason::new(code, text)
}

/// It may work another time.
pub(crate) fn transient(code: &str, message: impl AsRef<str>) -> HostError {
    HostError::Transient(reason(code, message.as_ref()))
}

/// It will not work, however often.
pub(crate) fn permanent(code: &str, message: impl AsRef<str>) -> HostError {
    HostError::Permanent(reason(code, message.as_ref()))
}

/// A person has to do something first.
pub(crate) fn needs_operator(code: &str, message: impl AsRef<str>) -> HostError {
    HostError::NeedsOperator(reason(code, message.as_ref()))
}

/// A file operation that failed: a full disk needs a person, all else may pass.
pub(crate) fn file(operation: &str, path: &Path, error: &std::io::Error) -> HostError {
    let message = format!("{operation} {} failed: {error}", path.display());
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            needs_operator("DiskFull", format!("{message}; free some space, then retry"))
        }
        std::io::ErrorKind::ReadOnlyFilesystem => needs_operator("ReadOnlyFileSystem", message),
        _ => transient("FileError", message),
    }
}

/// Error text with its sources, as one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let words = source.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = source.source();
    }
    text
}

/// One line of a table from words to meaning: `words` somewhere in a program's last lines mean `code`.
pub(crate) struct Meaning {
    pub(crate) words: &'static str,
    pub(crate) class: Class,
    pub(crate) code: &'static str,
    /// What to do, said after what was seen; empty where there is nothing.
    pub(crate) advice: &'static str,
}

/// The variants of [`HostError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Transient,
    Permanent,
    NeedsOperator,
}

/// What a failed program means: the first fitting line of `table`, else `otherwise`, transient.
pub(crate) fn program(error: &ProgramError, table: &[Meaning], otherwise: &'static str) -> HostError {
    let text = chain(error);
    match error {
        ProgramError::Missing { .. } => return needs_operator("ProgramMissing", text),
        ProgramError::TooMuchOutput { .. } => return permanent("TooMuchOutput", text),
        ProgramError::System { .. } | ProgramError::TimedOut { .. } | ProgramError::Failed { .. } => {}
    }
    let lines = error.last_lines();
    let meaning = table.iter().find(|meaning| lines.contains(meaning.words));
    let Some(meaning) = meaning else {
        return transient(otherwise, text);
    };
    let text = if meaning.advice.is_empty() { text } else { format!("{}: {text}", meaning.advice) };
    match meaning.class {
        Class::Transient => transient(meaning.code, text),
        Class::Permanent => permanent(meaning.code, text),
        Class::NeedsOperator => needs_operator(meaning.code, text),
    }
}
