//! What can be written into each field of a spec: walks a schema of a definition beside a spec that is right.

use serde_json::{Map, Value, json};
use std::fmt;

/// A step of the way to a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A field of an object, or a key of a map.
    Key(String),
    /// An item of a list.
    Item(usize),
}

/// The way to a field, from the spec.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Way(pub Vec<Step>);

impl Way {
    fn to(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }

    /// The names on it: a refusal that says one of them names the field.
    pub fn names(&self) -> Vec<&str> {
        let names: Vec<&str> = self.0.iter().filter_map(Step::name).collect();
        if names.is_empty() { vec!["spec"] } else { names }
    }

    /// The name of the last field on it.
    pub fn last(&self) -> &str {
        self.0.iter().rev().find_map(Step::name).unwrap_or("spec")
    }
}

impl Step {
    fn name(&self) -> Option<&str> {
        match self {
            Self::Key(name) => Some(name),
            Self::Item(_) => None,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("spec")?;
        self.0.iter().try_for_each(|step| match step {
            Step::Key(name) => write!(f, ".{name}"),
            Step::Item(index) => write!(f, "[{index}]"),
        })
    }
}

/// A spec in which one field is another one.
#[derive(Debug, Clone)]
pub struct Mutation {
    /// Which field.
    pub way: Way,
    /// What stands there now, cut for people; `absent` if it was taken out.
    pub written: String,
    /// The whole spec.
    pub spec: Value,
}

/// Every mutation of a spec: those of the schema, and those that `catalogue` knows for a field.
pub fn mutations(schema: &Value, base: &Value, catalogue: impl Fn(&Way) -> Vec<Value>) -> Vec<Mutation> {
    let mut ways = Vec::new();
    fields(schema, base, &Way::default(), &mut ways);
    let mut all: Vec<Mutation> = Vec::new();
    for (way, schema) in ways {
        let here = at(base, &way).cloned().unwrap_or(Value::Null);
        let mut values: Vec<Option<Value>> = values(schema, &here).into_iter().map(Some).collect();
        values.extend(catalogue(&way).into_iter().map(Some));
        if !way.0.is_empty() {
            values.push(None);
        }
        let from = all.len();
        for value in values {
            let spec = with(base, &way, value.as_ref());
            if spec != *base && !all[from..].iter().any(|one| one.spec == spec) {
                let mut written = value.map_or_else(|| "absent".to_owned(), |value| value.to_string());
                cupcake_crds::limits::cut(&mut written, 60);
                all.push(Mutation { way: way.clone(), written, spec });
            }
        }
    }
    all
}

/// Every field that the base holds, with its schema: the spec itself, fields of objects, first items of lists, values of maps.
fn fields<'s>(schema: &'s Value, here: &Value, way: &Way, found: &mut Vec<(Way, &'s Value)>) {
    found.push((way.clone(), schema));
    match here {
        Value::Object(entries) => {
            for (name, value) in entries {
                let known = &schema["properties"][name];
                let schema = if known.is_null() { &schema["additionalProperties"] } else { known };
                if schema.is_object() {
                    fields(schema, value, &way.to(Step::Key(name.clone())), found);
                }
            }
        }
        Value::Array(items) => {
            if let (Some(first), true) = (items.first(), schema["items"].is_object()) {
                fields(&schema["items"], first, &way.to(Step::Item(0)), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn at<'v>(value: &'v Value, way: &Way) -> Option<&'v Value> {
    way.0.iter().try_fold(value, |value, step| match step {
        Step::Key(name) => value.get(name),
        Step::Item(index) => value.get(index),
    })
}

/// The base with that at the end of the way, or without what is there.
fn with(base: &Value, way: &Way, value: Option<&Value>) -> Value {
    let mut spec = base.clone();
    let Some((last, before)) = way.0.split_last() else {
        return value.cloned().unwrap_or(Value::Null);
    };
    let parent = before.iter().fold(&mut spec, |value, step| match step {
        Step::Key(name) => &mut value[name.as_str()],
        Step::Item(index) => &mut value[*index],
    });
    match (last, value) {
        (Step::Key(name), Some(value)) => parent[name.as_str()] = value.clone(),
        (Step::Item(index), Some(value)) => parent[*index] = value.clone(),
        (Step::Key(name), None) => {
            parent.as_object_mut().unwrap().remove(name);
        }
        (Step::Item(index), None) => {
            parent.as_array_mut().unwrap().remove(*index);
        }
    }
    spec
}

/// What is written into a field of that schema: other types, bounds, words, too much, nothing.
fn values(schema: &Value, here: &Value) -> Vec<Value> {
    let mut values = vec![
        Value::Null,
        json!(true),
        json!(7),
        json!(1.5),
        json!("text"),
        json!([]),
        json!({}),
        json!([1, "two", null]),
        json!({"surprise": 1}),
        json!(9_223_372_036_854_775_807_i64),
        json!(""),
        json!("x".repeat(5_000)),
    ];
    match here {
        Value::String(text) => values.extend(texts(schema, text)),
        Value::Number(number) => values.extend(numbers(schema, number.as_i64().unwrap_or_default())),
        Value::Bool(word) => values.extend([json!(!word), json!(word.to_string()), json!("yes"), json!(0)]),
        Value::Array(items) => values.extend(lists(schema, items)),
        Value::Object(entries) => values.extend(objects(schema, entries)),
        Value::Null => {}
    }
    values
}

fn texts(schema: &Value, text: &str) -> Vec<Value> {
    let mut values: Vec<Value> = [
        format!(" {text}"),
        format!("{text} "),
        format!("{text}x"),
        text.to_uppercase(),
        text.chars().rev().collect(),
        text.chars().skip(1).collect(),
        format!("{text}\n{text}"),
        "\u{fc}n\u{ef}c\u{f6}de".to_owned(),
        "\u{0}".to_owned(),
        "-1".to_owned(),
        "null".to_owned(),
        "{}".to_owned(),
        "../../etc/passwd".to_owned(),
    ]
    .into_iter()
    .map(Value::String)
    .collect();
    for word in schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        values.extend([json!(word), json!(word.to_uppercase()), json!(format!("{word}s"))]);
    }
    for bound in ["minLength", "maxLength"] {
        if let Some(length) = schema[bound].as_u64().and_then(|length| usize::try_from(length).ok()) {
            values.extend([length.saturating_sub(1), length, length + 1].map(|length| json!("a".repeat(length))));
        }
    }
    values
}

fn numbers(schema: &Value, number: i64) -> Vec<Value> {
    let mut values = vec![number + 1, number - 1, 0, -1, i64::from(i32::MAX) + 1, i64::MIN];
    for bound in ["minimum", "maximum"] {
        if let Some(bound) = schema[bound].as_f64() {
            #[expect(clippy::cast_possible_truncation, reason = "bounds of schemas are small whole numbers")]
            let bound = bound as i64;
            values.extend([bound - 1, bound, bound + 1]);
        }
    }
    let mut values: Vec<Value> = values.into_iter().map(Value::from).collect();
    values.extend([json!(number.to_string()), json!(format!("{number}%")), json!(1e30)]);
    values
}

fn lists(schema: &Value, items: &[Value]) -> Vec<Value> {
    let mut values = vec![json!([null]), json!([[]]), json!([{}])];
    if let Some(first) = items.first() {
        let and = |more: &[Value]| Value::Array(items.iter().chain(more).cloned().collect());
        let many = |count: usize| Value::Array((0..count).map(|number| numbered(first, number)).collect());
        values.extend([and(std::slice::from_ref(first)), and(&[Value::Null]), and(&[json!({"surprise": 1})])]);
        values.extend([and(&[numbered(first, 1)]), many(1_000)]);
        if let Some(most) = schema["maxItems"].as_u64().and_then(|most| usize::try_from(most).ok()) {
            values.extend([many(most), many(most + 1)]);
        }
        // The order of a set says nothing.
        if schema["x-kubernetes-list-type"] == "atomic" {
            values.push(Value::Array(items.iter().rev().cloned().collect()));
        }
    }
    values
}

/// An item like that one, and another one for each number.
fn numbered(item: &Value, number: usize) -> Value {
    match item {
        Value::String(text) => json!(format!("{text}-{number}")),
        Value::Object(entries) => {
            let numbered = |(key, value): (&String, &Value)| (key.clone(), numbered(value, number));
            Value::Object(entries.iter().map(numbered).collect())
        }
        other => other.clone(),
    }
}

fn objects(schema: &Value, entries: &Map<String, Value>) -> Vec<Value> {
    let and = |name: &str, value: Value| {
        let mut entries = entries.clone();
        entries.insert(name.to_owned(), value);
        Value::Object(entries)
    };
    let mut values = vec![
        and("surprise", json!(1)),
        and("surprise", json!({"deep": [1]})),
        and("", json!("x")),
        and(&"k".repeat(5_000), json!("x")),
        and("a/b/c", json!("x")),
    ];
    if let Some(name) = entries.keys().next() {
        let mut misspelt = entries.clone();
        let value = misspelt.remove(name).unwrap_or_default();
        misspelt.insert(format!("{name}s"), value);
        values.push(Value::Object(misspelt));
    }
    if let Some(most) = schema["maxProperties"].as_u64() {
        let many = |count: u64| Value::Object((0..count).map(|number| (format!("k{number}"), json!("v"))).collect());
        values.extend([many(most), many(most + 1)]);
    }
    values
}
