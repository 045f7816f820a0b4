//! How a cursor is stored: one string, about 8 bytes a vertex, under the plan's digest.
//!
//! ```text
//! {"format":1,"plan":"<digest>","commit":{"epoch":3,"sequence":41},"phase":"InProgress","created":1790000000,"clock":312,
//!  "states":"s.0.3 s.3.c r.c .*41", "outputs":{...}, "notes":{...}}
//!
//!  states, one word a vertex in plan order; numbers in base 36, times in seconds since `created`
//!    .            pending            .N            pending after N attempts      .*K    K words "."
//!    r.F[.S]      started            w.F.S.U       waiting since S until U       b.F.U  backing off until U
//!    s.F.E        succeeded          k.E           skipped                       f.F.E  failed
//!  an attempt other than the first stands behind the letter (r2.F.S); for k it is the number of attempts, other than none
//! ```
//! A changed meaning gets a new `format`; every format that was ever written is read for ever.

use crate::clock::Timestamp;
use crate::cursor::{Cursor, RunPhase, VertexState};
use crate::dag::Dag;
use crate::names::{CommitId, Reason, VertexName};
use chrono::{DateTime, TimeDelta};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The format of cursors that this code writes.
pub const CURSOR_FORMAT: u32 = 1;

/// Why a stored cursor cannot be used. The run rests until a person looks; others go on.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not the JSON of a cursor.
    #[error("stored cursor is not readable: restore the run's status from its journal or delete the run")]
    Malformed(#[source] serde_json::Error),
    /// A format of a newer release.
    #[error("stored cursor has format {found}, this release reads up to {CURSOR_FORMAT}: upgrade CUPCAKE")]
    NewerFormat {
        /// The format found.
        found: u32,
    },
    /// A cursor of another plan.
    #[error("stored cursor belongs to plan {found}, the run's plan is {wanted}")]
    OtherPlan {
        /// Digest in the cursor.
        found: String,
        /// Digest of the run's plan.
        wanted: String,
    },
    /// The states do not fit the plan.
    #[error("stored cursor is damaged at vertex {position}: word {word:?} is no state")]
    Damaged {
        /// Position in plan order.
        position: usize,
        /// What stands there.
        word: String,
    },
    /// Fewer or more states than vertices.
    #[error("stored cursor has {found} states, the plan has {wanted} vertices")]
    WrongLength {
        /// States found.
        found: usize,
        /// Vertices in the plan.
        wanted: usize,
    },
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    plan: String,
    commit: CommitId,
    phase: RunPhase,
    #[serde(default, skip_serializing_if = "is_false")]
    paused: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    paused_since: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    credited: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    requests: Vec<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    cancelling: bool,
    created: i64,
    clock: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finished: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    states: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    outputs: BTreeMap<VertexName, Value>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    notes: BTreeMap<VertexName, Reason>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_false(value: &bool) -> bool {
    !value
}

/// The cursor as one string.
pub fn encode(cursor: &Cursor, dag: &Dag) -> String {
    let since = |at: Timestamp| (at - cursor.created).num_seconds();
    let mut words: Vec<String> = Vec::with_capacity(dag.len());
    let mut pending = 0_usize;
    for vertex in dag.vertices() {
        let state = cursor.state(&vertex.name).unwrap_or(VertexState::Pending { attempts: 0 });
        if state == (VertexState::Pending { attempts: 0 }) {
            pending += 1;
            continue;
        }
        flush_pending(&mut words, &mut pending);
        words.push(word_of(state, since));
    }
    flush_pending(&mut words, &mut pending);
    let stored = Stored {
        format: CURSOR_FORMAT,
        plan: cursor.plan_digest.clone(),
        commit: cursor.commit,
        phase: cursor.phase,
        paused: cursor.paused,
        paused_since: cursor.paused_since.map(since),
        credited: cursor.credited.map(since),
        requests: cursor.requests.clone(),
        cancelling: cursor.cancelling,
        created: cursor.created.timestamp(),
        clock: since(cursor.clock),
        finished: cursor.finished.map(since),
        reason: cursor.reason.clone(),
        states: words.join(" "),
        outputs: cursor.outputs.clone(),
        notes: cursor.notes.clone(),
    };
    serde_json::to_string(&stored).expect("string keys and plain values always serialise")
}

fn flush_pending(words: &mut Vec<String>, pending: &mut usize) {
    match *pending {
        0 => {}
        1 => words.push(".".to_owned()),
        many => words.push(format!(".*{many}")),
    }
    *pending = 0;
}

fn word_of(state: VertexState, since: impl Fn(Timestamp) -> i64) -> String {
    let mut word = String::new();
    let (letter, number, usual) = match state {
        VertexState::Pending { attempts } => ('.', attempts, 0),
        VertexState::Started { attempt, .. } => ('r', attempt, 1),
        VertexState::Waiting { attempt, .. } => ('w', attempt, 1),
        VertexState::BackingOff { attempt, .. } => ('b', attempt, 1),
        VertexState::Succeeded { attempt, .. } => ('s', attempt, 1),
        VertexState::Skipped { attempts, .. } => ('k', attempts, 0),
        VertexState::Failed { attempt, .. } => ('f', attempt, 1),
    };
    word.push(letter);
    if number != usual {
        word.push_str(&base36(i64::from(number)));
    }
    let mut time = |at: Timestamp| {
        let _ = write!(word, ".{}", base36(since(at)));
    };
    match state {
        VertexState::Pending { .. } => {}
        VertexState::Started { first, since, .. } => {
            time(first);
            if since != first {
                time(since);
            }
        }
        VertexState::Waiting { first, since, until, .. } => {
            time(first);
            time(since);
            time(until);
        }
        VertexState::BackingOff { first, until, .. } => {
            time(first);
            time(until);
        }
        VertexState::Succeeded { first, ended, .. } | VertexState::Failed { first, ended, .. } => {
            time(first);
            time(ended);
        }
        VertexState::Skipped { ended, .. } => time(ended),
    }
    word
}

/// The cursor that `text` stands for, under the plan that `dag` and `plan_digest` come from.
pub fn decode(text: &str, plan_digest: &str, dag: &Dag) -> Result<Cursor, DecodeError> {
    let stored: Stored = serde_json::from_str(text).map_err(DecodeError::Malformed)?;
    if stored.format > CURSOR_FORMAT {
        return Err(DecodeError::NewerFormat { found: stored.format });
    }
    if stored.plan != plan_digest {
        return Err(DecodeError::OtherPlan { found: stored.plan, wanted: plan_digest.to_owned() });
    }
    let damaged = |position: usize, word: &str| DecodeError::Damaged { position, word: word.to_owned() };
    let created = DateTime::from_timestamp(stored.created, 0).ok_or_else(|| damaged(0, "created"))?;
    let at = |seconds: i64| TimeDelta::try_seconds(seconds).and_then(|delta| created.checked_add_signed(delta));
    let optional = |seconds: Option<i64>, name: &str| {
        seconds.map(|seconds| at(seconds).ok_or_else(|| damaged(0, name))).transpose()
    };
    let mut states = Vec::with_capacity(dag.len());
    for word in stored.states.split(' ').filter(|word| !word.is_empty()) {
        if let Some(count) = word.strip_prefix(".*") {
            let count: usize = count.parse().map_err(|_| damaged(states.len(), word))?;
            if count > dag.len() {
                return Err(damaged(states.len(), word));
            }
            states.extend(std::iter::repeat_n(VertexState::Pending { attempts: 0 }, count));
        } else {
            let state = state_of(word, at).ok_or_else(|| damaged(states.len(), word))?;
            states.push(state);
        }
    }
    if states.len() != dag.len() {
        return Err(DecodeError::WrongLength { found: states.len(), wanted: dag.len() });
    }
    Ok(Cursor {
        plan_digest: stored.plan,
        commit: stored.commit,
        phase: stored.phase,
        paused: stored.paused,
        paused_since: optional(stored.paused_since, "paused_since")?,
        credited: optional(stored.credited, "credited")?,
        requests: stored.requests,
        cancelling: stored.cancelling,
        created,
        clock: at(stored.clock).ok_or_else(|| damaged(0, "clock"))?,
        finished: optional(stored.finished, "finished")?,
        reason: stored.reason,
        vertices: dag.vertices().iter().map(|vertex| vertex.name.clone()).zip(states).collect(),
        outputs: stored.outputs,
        notes: stored.notes,
    })
}

fn state_of(word: &str, at: impl Fn(i64) -> Option<Timestamp>) -> Option<VertexState> {
    let letter = word.chars().next()?;
    let rest = &word[letter.len_utf8()..];
    let mut fields = rest.split('.');
    let number = fields.next()?;
    let number = |usual: u32| {
        if number.is_empty() { Some(usual) } else { u32::try_from(from_base36(number)?).ok() }
    };
    let times = fields.map(|field| from_base36(field).and_then(&at)).collect::<Option<Vec<_>>>()?;
    match (letter, times.as_slice()) {
        ('.', []) => Some(VertexState::Pending { attempts: number(0)? }),
        ('r', &[first]) => Some(VertexState::Started { attempt: number(1)?, first, since: first }),
        ('r', &[first, since]) => Some(VertexState::Started { attempt: number(1)?, first, since }),
        ('w', &[first, since, until]) => Some(VertexState::Waiting { attempt: number(1)?, first, since, until }),
        ('b', &[first, until]) => Some(VertexState::BackingOff { attempt: number(1)?, first, until }),
        ('s', &[first, ended]) => Some(VertexState::Succeeded { attempt: number(1)?, first, ended }),
        ('k', &[ended]) => Some(VertexState::Skipped { attempts: number(0)?, ended }),
        ('f', &[first, ended]) => Some(VertexState::Failed { attempt: number(1)?, first, ended }),
        _ => None,
    }
}

fn base36(value: i64) -> String {
    let mut digits = Vec::new();
    let mut rest = value.unsigned_abs();
    loop {
        let digit = u32::try_from(rest % 36).unwrap_or(0);
        digits.push(char::from_digit(digit, 36).unwrap_or('0'));
        rest /= 36;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        digits.push('-');
    }
    digits.iter().rev().collect()
}

fn from_base36(text: &str) -> Option<i64> {
    i64::from_str_radix(text, 36).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_base_36() {
        for value in [0, 1, 35, 36, 1_295, -1, -40, 9_999_999_999] {
            assert_eq!(from_base36(&base36(value)), Some(value));
        }
    }
}
