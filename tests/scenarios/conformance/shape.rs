//! The shape of a request: what is left of it without names and values. Requests that were recorded of real clients and those of
//! the sequences are compared by it.

use super::generate::{Body, JSON, Sequence, Step};
use super::kinds::KINDS;
use cupcake_sandbox::api::{RequestInfo, Target, Verb};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Parameters whose value is part of the shape; of the others only that they are there.
const TOLD: [&str; 7] = [
    "allowWatchBookmarks",
    "dryRun",
    "fieldValidation",
    "force",
    "includeObject",
    "propagationPolicy",
    "sendInitialEvents",
];

/// Shapes by what is asked for (`patch nodetasks/status (json)`), each with all that was seen of it (`?fieldManager`, `test /spec`).
///
/// An option counts where it was seen once beside its verb, kind and patch type: not every combination of options.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shapes(pub BTreeMap<String, BTreeSet<String>>);

impl Shapes {
    /// Adds the shape of one request.
    pub fn add(&mut self, request: &RequestInfo) {
        self.0.entry(asked(request)).or_default().extend(options(request));
    }

    /// Adds those of a sequence, watches included.
    pub fn add_sequence(&mut self, sequence: &Sequence) {
        sequence.steps.iter().for_each(|step| self.add(&request_of(step)));
        for watch in &sequence.watches {
            let path = format!("{}?{}{}&watch=true&resourceVersion=7", watch.collection, watch.selector, watch.options);
            self.add(&parsed("GET", &path, "", watch.accept, String::new()));
        }
    }

    /// What is in these and not in `others`, a line each: what is asked for, or one option of it.
    pub fn without(&self, others: &Self) -> Vec<String> {
        let mut missing = Vec::new();
        for (asked, options) in &self.0 {
            match others.0.get(asked) {
                None => missing.push(asked.clone()),
                Some(known) => missing.extend(options.difference(known).map(|option| format!("{asked}: {option}"))),
            }
        }
        missing
    }

    /// One line each, as the file of recorded requests has them.
    pub fn lines(&self) -> Vec<String> {
        let line = |(asked, options): (&String, &BTreeSet<String>)| {
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            format!("{asked}: {}", options.join(", ")).trim_end_matches([' ', ':']).to_owned()
        };
        self.0.iter().map(line).collect()
    }

    /// Adds what [`Shapes::lines`] wrote.
    pub fn add_line(&mut self, line: &str) {
        let (asked, options) = line.split_once(": ").unwrap_or((line, ""));
        let options = options.split(", ").filter(|option| !option.is_empty()).map(str::to_owned);
        self.0.entry(asked.to_owned()).or_default().extend(options);
    }
}

/// A step as a server would read it, with any names in the place of its placeholders.
fn request_of(step: &Step) -> RequestInfo {
    let body = match &step.body {
        Body::None => String::new(),
        Body::Raw(text) => text.clone(),
        Body::Json(value) | Body::Protobuf(value) => value.to_string(),
        Body::Edited { overlay, .. } => {
            let mut object = serde_json::json!({"metadata": {"resourceVersion": "7", "uid": "u"}});
            super::compare::merge(&mut object, overlay);
            object.to_string()
        }
    };
    parsed(step.method, &step.path, step.content_type, step.accept, body)
}

fn parsed(method: &str, path: &str, content_type: &str, accept: &str, body: String) -> RequestInfo {
    let filled = |text: &str| {
        let parts = text.split('@').enumerate().map(|(at, part)| if at % 2 == 0 { part } else { "x" });
        parts.collect::<String>()
    };
    let mut request = http::Request::builder().method(method).uri(filled(path)).header("accept", accept);
    if !content_type.is_empty() {
        request = request.header("content-type", content_type);
    }
    RequestInfo::parse("conformance", request.body(body.into()).expect("steps are requests"))
}

/// Verb, resource and patch type.
fn asked(request: &RequestInfo) -> String {
    let verb = request.verb.as_str();
    let Some(target) = &request.target else {
        return format!("{verb} {}", request.path);
    };
    let ours = KINDS.iter().any(|kind| kind.group == target.group && kind.plural == target.resource);
    let mut asked = format!("{verb} {}", target.resource);
    if !ours || target.group == "events.k8s.io" {
        asked = format!("{asked}.{}", target.group);
        asked.truncate(asked.trim_end_matches('.').len());
    }
    if !target.subresource.is_empty() {
        asked = format!("{asked}/{}", target.subresource);
    }
    let written_as = match request.content_type.as_str() {
        _ if !request.verb.writes() || request.body.is_empty() => "",
        JSON => "",
        super::generate::MERGE => " (merge)",
        super::generate::PATCH => " (json)",
        super::generate::STRATEGIC => " (strategic)",
        super::generate::APPLY => " (apply)",
        super::protobuf::MEDIA_TYPE => " (protobuf)",
        _odd => " (odd)",
    };
    asked + written_as
}

fn options(request: &RequestInfo) -> BTreeSet<String> {
    let mut options: BTreeSet<String> =
        request.parameters.iter().filter_map(|(name, value)| option(name, value)).collect();
    let (before, _) = request.accept.split_once(',').unwrap_or((&request.accept, ""));
    let form = [("as=Table", "Table"), ("as=PartialObjectMetadata", "PartialObjectMetadata"), ("protobuf", "protobuf")];
    options.extend(form.iter().find(|(part, _)| before.contains(part)).map(|(_, form)| format!("as {form}")));
    if let Some(target) = &request.target {
        let namespaced = KINDS.iter().any(|kind| kind.namespaced && kind.plural == target.resource);
        if namespaced && target.namespace.is_empty() {
            options.insert("in all namespaces".to_owned());
        }
        if let Ok(body) = serde_json::from_slice(&request.body) {
            options.extend(of_body(request, target, &body));
        }
    }
    options
}

fn option(name: &str, value: &str) -> Option<String> {
    let told = match name {
        // Told by the verb.
        "watch" => return None,
        "fieldSelector" => {
            let fields: BTreeSet<&str> = value.split(',').filter_map(|part| part.split(['=', '!']).next()).collect();
            format!("={}", fields.into_iter().collect::<Vec<_>>().join(","))
        }
        "resourceVersion" | "gracePeriodSeconds" if value == "0" => "=0".to_owned(),
        _ if TOLD.contains(&name) => format!("={value}"),
        _ => String::new(),
    };
    Some(format!("?{name}{told}"))
}

/// What a body has to do with versions and options; of patches which fields they touch, two levels deep.
fn of_body(request: &RequestInfo, target: &Target, body: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match request.verb {
        Verb::Patch if request.content_type == super::generate::PATCH => {
            let operations = body.as_array().into_iter().flatten();
            operations.map(|one| format!("{} {}", text(&one["op"]), two_levels(&text(&one["path"])))).collect()
        }
        Verb::Patch => fields(body).into_iter().map(|(field, _)| field).collect(),
        Verb::Delete | Verb::DeleteCollection => deletion(body),
        Verb::Create if target.subresource == "eviction" => deletion(&body["deleteOptions"]),
        Verb::Create | Verb::Update => {
            let metadata = ["/finalizers", "/generateName", "/ownerReferences", "/resourceVersion", "/uid"];
            let there = |field: &&str| body["metadata"].pointer(field).is_some_and(|value| !value.is_null());
            metadata.iter().filter(|field| there(field)).map(|field| format!("/metadata{field}")).collect()
        }
        Verb::Get | Verb::List | Verb::Watch => Vec::new(),
    }
}

fn deletion(options: &Value) -> Vec<String> {
    let known = ["apiVersion", "kind"];
    let shown = |field: String, value: &Value| match (field.as_str(), value) {
        ("/gracePeriodSeconds", Value::Number(seconds)) if seconds.as_i64() == Some(0) => {
            "/gracePeriodSeconds=0".to_owned()
        }
        ("/propagationPolicy", Value::String(policy)) => format!("/propagationPolicy={policy}"),
        _ => field,
    };
    let fields = fields(options).into_iter().filter(|(field, _)| !known.contains(&&field[1..]));
    fields.map(|(field, value)| shown(field, value)).collect()
}

/// Pointers to the fields of an object, two levels deep.
fn fields(body: &Value) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    for (name, value) in body.as_object().into_iter().flatten() {
        match value {
            Value::Object(below) if !below.is_empty() => {
                found.extend(below.iter().map(|(field, value)| (format!("/{name}/{field}"), value)));
            }
            value => found.push((format!("/{name}"), value)),
        }
    }
    found
}

fn two_levels(pointer: &str) -> String {
    pointer.split('/').take(3).collect::<Vec<_>>().join("/")
}
