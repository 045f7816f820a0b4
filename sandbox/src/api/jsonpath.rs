//! The JSONPath of printer columns: fields, indexes, wildcards and simple filters.
//!
//! Source: `k8s.io/client-go/util/jsonpath`, as far as `additionalPrinterColumns` may use it.

use serde_json::Value;

/// A parsed path.
#[derive(Debug, Clone, PartialEq)]
pub struct Path(Vec<Segment>);

#[derive(Debug, Clone, PartialEq)]
enum Segment {
    Field(String),
    Index(i64),
    All,
    Filter { field: Path, equal: bool, value: Value },
}

impl Path {
    /// Parses `.status.conditions[?(@.type=="Ready")].status` and the like; `None` if it is not understood.
    pub fn parse(text: &str) -> Option<Self> {
        let mut segments = Vec::new();
        let mut rest = text.trim().trim_start_matches('{').trim_end_matches('}');
        rest = rest.strip_prefix('$').unwrap_or(rest);
        while !rest.is_empty() {
            if let Some(tail) = rest.strip_prefix('.') {
                let (name, after) = split_field(tail);
                match name.as_str() {
                    "" if after.starts_with('[') || after.is_empty() => {}
                    "" => return None,
                    "*" => segments.push(Segment::All),
                    _name => segments.push(Segment::Field(name)),
                }
                rest = after;
            } else if let Some(tail) = rest.strip_prefix('[') {
                let (inside, after) = split_bracket(tail)?;
                segments.push(bracket(inside)?);
                rest = after;
            } else {
                return None;
            }
        }
        Some(Self(segments))
    }

    /// The first value that the path finds.
    pub fn find<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        let mut found = Vec::new();
        walk(&self.0, object, &mut found);
        found.into_iter().next()
    }
}

/// A field name ends at an unescaped `.` or at `[`.
fn split_field(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => {
                if let Some((_, escaped)) = letters.next() {
                    name.push(escaped);
                }
            }
            '.' | '[' => return (name, &text[at..]),
            plain => name.push(plain),
        }
    }
    (name, "")
}

/// The inside of a bracket, whose quotes and nested brackets may hold `]`.
fn split_bracket(text: &str) -> Option<(&str, &str)> {
    let (mut quote, mut depth) = (None, 0_usize);
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            (Some(open), close) if open == close => quote = None,
            (None, '\'' | '"') => quote = Some(letter),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some((&text[..at], &text[at + 1..])),
            (None, ']') => depth -= 1,
            (Some(_) | None, _) => {}
        }
    }
    None
}

fn bracket(inside: &str) -> Option<Segment> {
    let inside = inside.trim();
    if inside == "*" {
        return Some(Segment::All);
    }
    if let Some(filter) = inside.strip_prefix("?(").and_then(|f| f.strip_suffix(')')) {
        let (left, right, equal) = if let Some((left, right)) = filter.split_once("==") {
            (left, right, true)
        } else {
            let (left, right) = filter.split_once("!=")?;
            (left, right, false)
        };
        return Some(Segment::Filter {
            field: Path::parse(left.trim().strip_prefix('@')?)?,
            equal,
            value: literal(right.trim()),
        });
    }
    if let Some(name) = quoted(inside) {
        return Some(Segment::Field(name.to_owned()));
    }
    inside.parse().ok().map(Segment::Index)
}

fn quoted(text: &str) -> Option<&str> {
    ['\'', '"'].into_iter().find_map(|mark| text.strip_prefix(mark)?.strip_suffix(mark))
}

fn literal(text: &str) -> Value {
    match quoted(text) {
        Some(text) => Value::from(text),
        None => serde_json::from_str(text).unwrap_or_else(|_invalid| Value::from(text)),
    }
}

fn walk<'a>(segments: &[Segment], at: &'a Value, found: &mut Vec<&'a Value>) {
    let Some((first, rest)) = segments.split_first() else {
        found.push(at);
        return;
    };
    match first {
        Segment::Field(name) => {
            if let Some(next) = at.get(name) {
                walk(rest, next, found);
            }
        }
        Segment::Index(index) => {
            let Some(list) = at.as_array() else { return };
            let index = if *index < 0 {
                list.len().checked_sub(usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX))
            } else {
                usize::try_from(*index).ok()
            };
            if let Some(next) = index.and_then(|index| list.get(index)) {
                walk(rest, next, found);
            }
        }
        Segment::All => match at {
            Value::Array(list) => list.iter().for_each(|next| walk(rest, next, found)),
            Value::Object(map) => map.values().for_each(|next| walk(rest, next, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        },
        Segment::Filter { field, equal, value } => {
            for next in at.as_array().into_iter().flatten() {
                if (field.find(next) == Some(value)) == *equal {
                    walk(rest, next, found);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_of_printer_columns_find_their_values() {
        let object = json!({
            "metadata": {"annotations": {"a.b/c": "x"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Stalled", "status": "False"}]},
        });
        for (path, expected) in [
            (".status.conditions[?(@.type==\"Stalled\")].status", Some(json!("False"))),
            (".status.conditions[0].type", Some(json!("Ready"))),
            (".status.conditions[-1].type", Some(json!("Stalled"))),
            (".status.conditions[*].type", Some(json!("Ready"))),
            (".metadata.annotations['a.b/c']", Some(json!("x"))),
            (".metadata.annotations.a\\.b/c", Some(json!("x"))),
            (".status.missing", None),
        ] {
            let found = Path::parse(path).unwrap();
            assert_eq!(found.find(&object).cloned(), expected, "{path}");
        }
        assert_eq!(Path::parse(".a[?(@.b)]"), None);
    }
}
