//! One table of cases, two judges: the CEL of the definitions and its twin in Rust must say the same, for the same reason.
//!
//! `testdata/on-server.sh` puts the same table before a real API server.

use super::{Validate, Violations};
use crate::{DirectUpdate, NodeTask, ScheduledUpdate, UpdateSchedule, UpgradePlan, UpgradeRun, definitions};
use kube_core::cel::{ScopeContext, Validator, analyze_rule, compile_schema};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Table {
    objects: BTreeMap<String, Value>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    from: Option<String>,
    patch: Value,
    refused: Option<String>,
}

impl Table {
    fn read() -> Self {
        serde_json::from_str(include_str!("../../testdata/cases.json")).expect("the table is JSON")
    }

    fn old(&self, case: &Case) -> Option<&Value> {
        case.from.as_ref().map(|name| &self.objects[name])
    }

    fn new(&self, case: &Case) -> Value {
        match self.old(case) {
            Some(old) => {
                let mut new = old.clone();
                merge(&mut new, &case.patch);
                new
            }
            None => case.patch.clone(),
        }
    }
}

/// A JSON merge patch (RFC 7396).
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let fields = target.as_object_mut().expect("made an object above");
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(name);
        } else {
            merge(fields.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

fn schemas() -> BTreeMap<String, Value> {
    definitions()
        .into_iter()
        .map(|definition| {
            let schema =
                definition.spec.versions[0].schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
            (definition.spec.names.kind, serde_json::to_value(schema.expect("each kind has a schema")).expect("JSON"))
        })
        .collect()
}

fn kind(object: &Value) -> &str {
    object["kind"].as_str().expect("each object has a kind")
}

fn by_cel(schemas: &BTreeMap<String, Value>, new: &Value, old: Option<&Value>) -> Vec<String> {
    Validator::new()
        .validate(&schemas[kind(new)], new, old)
        .err()
        .map(|errors| errors.as_slice().iter().map(|error| error.message.clone()).collect())
        .unwrap_or_default()
}

fn by_rust(new: &Value, old: Option<&Value>) -> Vec<String> {
    fn judge<T: Validate + for<'a> Deserialize<'a>>(new: &Value, old: Option<&Value>) -> Result<(), Violations> {
        let typed = |value: &Value| T::deserialize(value).expect("the table's objects have the types' shape");
        match old {
            Some(old) => typed(new).validate_update(&typed(old)),
            None => typed(new).validate(),
        }
    }
    let verdict = match kind(new) {
        "DirectUpdate" => judge::<DirectUpdate>(new, old),
        "ScheduledUpdate" => judge::<ScheduledUpdate>(new, old),
        "UpdateSchedule" => judge::<UpdateSchedule>(new, old),
        "UpgradeRun" => judge::<UpgradeRun>(new, old),
        "UpgradePlan" => judge::<UpgradePlan>(new, old),
        "NodeTask" => judge::<NodeTask>(new, old),
        other => panic!("{other} is no kind of ours"),
    };
    verdict.err().map(|broken| broken.iter().map(|one| one.message.to_owned()).collect()).unwrap_or_default()
}

#[test]
fn cel_gives_the_verdict_of_the_table_for_the_reason_of_the_table() {
    let (table, schemas) = (Table::read(), schemas());
    for case in &table.cases {
        let found = by_cel(&schemas, &table.new(case), table.old(case));
        match &case.refused {
            Some(reason) => assert!(found.iter().any(|m| m.contains(reason)), "{}: {found:?}", case.name),
            None => assert!(found.is_empty(), "{}: {found:?}", case.name),
        }
    }
}

#[test]
fn rust_refuses_exactly_what_cel_refuses_with_the_same_words() {
    let (table, schemas) = (Table::read(), schemas());
    for case in &table.cases {
        let mut cel = by_cel(&schemas, &table.new(case), table.old(case));
        let mut rust = by_rust(&table.new(case), table.old(case));
        cel.sort();
        rust.sort();
        assert_eq!(cel, rust, "{}", case.name);
    }
}

#[test]
fn every_rule_is_broken_by_some_case() {
    let (table, schemas) = (Table::read(), schemas());
    let broken: Vec<String> = table
        .cases
        .iter()
        .filter(|case| case.refused.is_some())
        .flat_map(|case| by_cel(&schemas, &table.new(case), table.old(case)))
        .collect();
    for (kind, schema) in &schemas {
        for (path, rule) in rules(schema) {
            let message = rule["message"].as_str().expect("each rule has a message");
            // A negative or zero concurrency does not even get past the bounds, which need no case here.
            let bounded = path.ends_with("concurrency");
            assert!(
                bounded || broken.iter().any(|m| m == message),
                "no case breaks the rule of {kind}{path}: {message}"
            );
        }
    }
}

#[test]
fn rules_compile_stay_in_scope_and_cost_little() {
    for (kind, schema) in schemas() {
        let compiled = compile_schema(&schema);
        assert!(!compiled.has_errors(), "{kind}: {:?}", compiled.compilation_errors());
        for (path, rule) in rules(&schema) {
            let text = rule["rule"].as_str().expect("each rule has a text");
            let warnings = analyze_rule(text, &compiled, ScopeContext::CrdValidation);
            assert!(warnings.is_empty(), "{kind}{path}: {warnings:?}");
        }
    }
}

#[test]
fn a_violation_names_the_field_the_value_and_the_fix() {
    let update = json!({
        "apiVersion": "cupcake.ricardomolendijk.com/v1", "kind": "DirectUpdate", "metadata": {"name": "bad"},
        "spec": {"targetVersion": "1.34", "airGapped": {"enabled": true}},
    });
    let update: DirectUpdate = serde_json::from_value(update).expect("it has the type's shape");
    let broken = update.validate().expect_err("two things are wrong with it").to_string();
    assert_eq!(
        broken,
        "spec.targetVersion: invalid value \"1.34\": a full Kubernetes version is needed: major.minor.patch with or without v, for example \
         1.34.4; spec.airGapped: invalid value \"{\\\"enabled\\\":true}\": airGapped.enabled: true needs airGapped.bundleConfigMap: name the \
         ConfigMap that describes the bundle, or set airGapped.enabled: false"
    );
}

/// Every CEL rule of a schema, with the path of the field it stands at.
fn rules(schema: &Value) -> Vec<(String, Value)> {
    fn walk(schema: &Value, path: &str, found: &mut Vec<(String, Value)>) {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            found.push((path.to_owned(), rule.clone()));
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            walk(property, &format!("{path}.{name}"), found);
        }
        if schema["items"].is_object() {
            walk(&schema["items"], &format!("{path}[]"), found);
        }
    }
    let mut found = Vec::new();
    walk(schema, "", &mut found);
    found
}
