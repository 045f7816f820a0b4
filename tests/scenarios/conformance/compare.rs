//! Answers without what must differ between two servers, and where they still differ.
//!
//! Compared are: the status code, Content-Type, Warning and Retry-After headers, and the whole body, messages included.
//! Names that a server makes up are compared as roles: the n-th UID, the n-th resourceVersion and the n-th generated name that a
//! sequence sees on each side must be seen in the same places. So a write that changes the resourceVersion on one side only shows.

use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Differences of one answer that are looked at; one tells as much as a hundred.
const DIFFERENCES_MAX: usize = 60;

/// Letters that a server adds to `generateName`.
const GENERATED_LETTERS: usize = 5;

/// What stands before a resourceVersion in a message. A number elsewhere is no revision, even if it happens to be one: `406`, or
/// the 253 characters of a name.
const BEFORE_A_REVISION: [&str; 3] = ["in the precondition (", IN_RECORD, r#""resourceVersion\":\""#];
const IN_RECORD: &str = "in record (";

/// One place where two answers differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// JSON pointer into the answer.
    pub pointer: String,
    /// The real server's value there.
    pub real: Option<Value>,
    /// The sandbox's value there.
    pub sandbox: Option<Value>,
}

impl Difference {
    /// The pointer with list positions left out: what two stories have in common.
    pub fn place(&self) -> String {
        let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let parts: Vec<&str> = self.pointer.split('/').map(|part| if number(part) { "*" } else { part }).collect();
        parts.join("/")
    }

    /// The real server's text there, if it is one.
    pub fn text(&self) -> &str {
        self.real.as_ref().and_then(Value::as_str).unwrap_or_default()
    }

    /// One side as a story shows it.
    pub fn shown(value: Option<&Value>) -> String {
        value.map_or_else(|| "(absent)".to_owned(), Value::to_string)
    }
}

/// All places where two answers differ, up to a limit.
pub fn differences(real: &Value, sandbox: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    walk(&mut String::new(), Some(real), Some(sandbox), &mut found);
    found
}

fn walk(pointer: &mut String, real: Option<&Value>, sandbox: Option<&Value>, found: &mut Vec<Difference>) {
    if real == sandbox || found.len() >= DIFFERENCES_MAX {
        return;
    }
    let mut below = |part: &str, real: Option<&Value>, sandbox: Option<&Value>| {
        let length = pointer.len();
        pointer.push('/');
        pointer.push_str(&part.replace('~', "~0").replace('/', "~1"));
        walk(pointer, real, sandbox, found);
        pointer.truncate(length);
    };
    match (real, sandbox) {
        (Some(Value::Object(left)), Some(Value::Object(right))) => {
            let more = right.keys().filter(|name| !left.contains_key(*name));
            for name in left.keys().chain(more) {
                below(name, left.get(name), right.get(name));
            }
        }
        (Some(Value::Array(left)), Some(Value::Array(right))) => {
            for at in 0..left.len().max(right.len()) {
                below(&at.to_string(), left.get(at), right.get(at));
            }
        }
        (real, sandbox) => {
            found.push(Difference { pointer: pointer.clone(), real: real.cloned(), sandbox: sandbox.cloned() });
        }
    }
}

/// What one side made up in a sequence so far, in the order of its appearance.
#[derive(Debug, Default)]
pub struct Roles {
    uids: BTreeMap<String, usize>,
    revisions: BTreeMap<String, usize>,
}

impl Roles {
    /// Puts roles in the place of what differs from server to server.
    pub fn tidy(&mut self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                self.tidy_metadata(fields);
                tidy_causes(fields);
                for (name, field) in fields.iter_mut() {
                    match (name.as_str(), &mut *field) {
                        ("message", Value::String(text)) => *text = self.words(text, true),
                        (_name, field) => self.tidy(field),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.tidy(item)),
            Value::String(text) => {
                if is_now(text) {
                    "<now>".clone_into(text);
                } else if is_age(text) {
                    "<age>".clone_into(text);
                } else {
                    *text = self.words(text, false);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn tidy_metadata(&mut self, fields: &mut Map<String, Value>) {
        fields.remove("managedFields");
        if let Some(Value::String(token)) = fields.get_mut("continue")
            && !token.is_empty()
        {
            "<continue>".clone_into(token);
        }
        let one_object = fields.contains_key("name") || fields.contains_key("uid");
        if let Some(Value::String(revision)) = fields.get_mut("resourceVersion")
            && !revision.is_empty()
        {
            *revision = if one_object {
                let next = self.revisions.len();
                let role = *self.revisions.entry(revision.clone()).or_insert(next);
                format!("<revision {role}>")
            } else {
                "<revision of the list>".to_owned()
            };
        }
    }

    /// Words that are names of roles.
    fn words(&mut self, text: &str, message: bool) -> String {
        let inside = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let mut tidied = String::with_capacity(text.len());
        let mut rest = text;
        while !rest.is_empty() {
            let length = rest.find(|c| !inside(c)).unwrap_or(rest.len());
            let (word, tail) = rest.split_at(length);
            let role = self.role_of(word, message, &tidied);
            tidied.push_str(&role);
            let between = tail.find(inside).unwrap_or(tail.len());
            let (between, tail) = tail.split_at(between);
            tidied.push_str(between);
            rest = tail;
        }
        tidied
    }

    fn role_of<'a>(&mut self, word: &'a str, message: bool, before: &str) -> Cow<'a, str> {
        if word.rsplit_once("-g-").is_some_and(|(_, suffix)| suffix.len() == GENERATED_LETTERS) {
            return "<generated name>".into();
        }
        if is_uid(word) {
            if let Some(role) = self.uids.get(word) {
                return format!("<uid {role}>").into();
            }
            // A message may quote a whole object, and only on one side.
            if message {
                return "<uid that was not seen>".into();
            }
            let next = self.uids.len();
            self.uids.insert(word.to_owned(), next);
            return format!("<uid {next}>").into();
        }
        if !message || !BEFORE_A_REVISION.iter().any(|words| before.ends_with(words)) {
            return word.into();
        }
        match self.revisions.get(word) {
            Some(role) => format!("<revision {role}>").into(),
            None if before.ends_with(IN_RECORD) => "<revision that was not seen>".into(),
            None => word.into(),
        }
    }
}

/// Causes in one order, each once, and not again in the message: a real server walks its maps in any order, and checks the
/// metadata of some kinds twice.
fn tidy_causes(fields: &mut Map<String, Value>) {
    let Some(causes) = fields.get_mut("details").and_then(|details| details.get_mut("causes")?.as_array_mut()) else {
        return;
    };
    causes.sort_by_cached_key(Value::to_string);
    causes.dedup();
    if causes.len() > 1
        && let Some(Value::String(message)) = fields.get_mut("message")
    {
        let end = message.find(" is invalid: ").or_else(|| message.find(':'));
        message.truncate(end.unwrap_or(message.len()));
    }
}

fn is_uid(word: &str) -> bool {
    word.len() == 36
        && word
            .char_indices()
            .all(|(at, c)| if matches!(at, 8 | 13 | 18 | 23) { c == '-' } else { c.is_ascii_hexdigit() })
}

/// Whether a text is a time at which the test may run; those in the vocabulary are of 2021.
fn is_now(text: &str) -> bool {
    text.len() >= 20
        && text.as_bytes()[4] == b'-'
        && text.as_bytes()[10] == b'T'
        && text.ends_with('Z')
        && text[..4].parse::<u32>().is_ok_and(|year| year > 2021)
}

/// Whether a text is an age as tables show it.
fn is_age(text: &str) -> bool {
    let unit = |byte: u8| matches!(byte, b's' | b'm' | b'h' | b'd' | b'y');
    let bytes = text.as_bytes();
    text == "<invalid>"
        || (bytes.first().is_some_and(u8::is_ascii_digit)
            && bytes.last().is_some_and(|byte| unit(*byte))
            && bytes.iter().all(|byte| byte.is_ascii_digit() || unit(*byte)))
}

/// RFC 7396.
pub fn merge(target: &mut Value, patch: &Value) {
    let (Value::Object(fields), Value::Object(changes)) = (&mut *target, patch) else {
        target.clone_from(patch);
        return;
    };
    for (name, change) in changes {
        if change.is_null() {
            fields.remove(name);
        } else {
            let empty = if change.is_object() { Value::Object(Map::new()) } else { Value::Null };
            let field = fields.entry(name.clone()).or_insert_with(|| empty.clone());
            if change.is_object() && !field.is_object() {
                *field = empty;
            }
            merge(field, change);
        }
    }
}

#[test]
fn a_number_in_a_message_is_taken_for_a_revision_only_where_a_revision_stands() {
    let mut roles = Roles::default();
    roles.tidy(&mut json!({"metadata": {"name": "a", "resourceVersion": "406"}}));
    let mut told = json!({"message": "406: Not Acceptable", "reason": "NotAcceptable"});
    roles.tidy(&mut told);
    assert_eq!(told["message"], "406: Not Acceptable");
    let mut told = json!({"message": "the ResourceVersion in record (406) is not the one in the precondition (405)"});
    roles.tidy(&mut told);
    assert_eq!(
        told["message"],
        "the ResourceVersion in record (<revision 0>) is not the one in the precondition (405)"
    );
}
