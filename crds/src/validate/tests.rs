//! One table of cases, two judges: the CEL of the definitions and its twin in Rust must say the same, for the same reason.
//!
//! `testdata/on-server.sh` puts the same table before a real API server.
#![allow(clippy::panic, reason = "a table that names another kind is a mistake in the table")]

use super::{Validate, Violations};
use crate::{DirectUpdate, NodeTask, ScheduledUpdate, UpdateSchedule, UpgradePlan, UpgradeRun, definitions};
use kube_core::cel::{CompiledSchema, ScopeContext, Validator, analyze_rule, compile_schema};
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
    /// The types refuse it, too: there is no object on which Rust could say a word.
    #[serde(default)]
    unreadable: bool,
}

impl Table {
    fn read() -> Self {
        serde_json::from_str(include_str!("../../testdata/cases.json")).expect("the table is JSON")
    }

    fn before(&self, case: &Case) -> Option<&Value> {
        case.from.as_ref().map(|name| &self.objects[name])
    }

    fn after(&self, case: &Case) -> Value {
        match self.before(case) {
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
        let found = by_cel(&schemas, &table.after(case), table.before(case));
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
        if case.unreadable {
            assert!(serde_json::from_value::<DirectUpdate>(table.after(case)).is_err(), "{}", case.name);
            continue;
        }
        let mut cel = by_cel(&schemas, &table.after(case), table.before(case));
        let mut rust = by_rust(&table.after(case), table.before(case));
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
        .flat_map(|case| by_cel(&schemas, &table.after(case), table.before(case)))
        .collect();
    for (kind, schema) in &schemas {
        for (path, rule) in rules(schema) {
            let message = rule["message"].as_str().expect("each rule has a message");
            assert!(broken.iter().any(|m| m == message), "no case breaks the rule of {kind}{path}: {message}");
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

mod any_transition {
    use super::*;
    use crate::{
        KubeVersion, NodeTaskSpec, NodeTaskStatus, UpgradeRunStatus,
        node_task::{Order, TaskState},
        upgrade_run::CommitId,
        values::{HostStep, OrderKey, Phase},
    };
    use proptest::{option, prelude::*, sample::select};

    fn key() -> impl Strategy<Value = OrderKey> {
        (1_u32..3).prop_map(|attempt| OrderKey { run_uid: "run".to_owned(), vertex: "vertex".to_owned(), attempt })
    }

    fn order() -> impl Strategy<Value = Order> {
        (key(), 3_u64..6, any::<bool>(), any::<bool>(), 0_usize..2, 3_u32..5).prop_map(
            |(key, epoch, proceed, stop, steps, patch)| Order {
                deadline_seconds: 1800,
                epoch,
                finish: vec![HostStep { name: "a".to_owned(), kind: "a/v1".to_owned(), params: Map::new() }; steps],
                key,
                prepare: Vec::new(),
                proceed,
                stop,
                target_version: KubeVersion::new(1, 34, patch),
                traceparent: None,
            },
        )
    }

    fn status() -> impl Strategy<Value = NodeTaskStatus> {
        let states = vec![
            TaskState::Claimed,
            TaskState::Working,
            TaskState::Prepared,
            TaskState::Done,
            TaskState::Failed,
            TaskState::Refused,
            TaskState::Stopped,
        ];
        (option::weighted(0.9, key()), option::weighted(0.9, select(states)), option::of(3_u64..6), any::<bool>())
            .prop_map(|(key, state, epoch, found)| NodeTaskStatus {
                key,
                state,
                epoch,
                outputs: if found { [("a".to_owned(), "b".to_owned())].into() } else { BTreeMap::new() },
                ..NodeTaskStatus::default()
            })
    }

    fn task() -> impl Strategy<Value = NodeTask> {
        (
            3_u64..6,
            option::weighted(0.9, order()),
            option::weighted(0.9, status()),
            select(vec!["uid-1", "uid-1", "uid-2"]),
        )
            .prop_map(|(epoch, order, status, uid)| {
                let spec = NodeTaskSpec {
                    epoch,
                    inventory_request: None,
                    node_name: "worker-3".to_owned(),
                    node_uid: uid.to_owned(),
                    order,
                };
                NodeTask { status, ..NodeTask::new("worker-3", spec) }
            })
    }

    fn run() -> impl Strategy<Value = UpgradeRun> {
        let phases = vec![
            Phase::Pending,
            Phase::InProgress,
            Phase::Succeeded,
            Phase::Failed,
            Phase::RequiresAttention,
            Phase::Cancelled,
        ];
        let commit = (3_u64..6, 0_u64..3).prop_map(|(epoch, sequence)| CommitId { epoch, sequence });
        let status = (option::of(select(phases)), option::of(3_u64..6), option::of(commit)).prop_map(
            |(phase, epoch, commit)| UpgradeRunStatus { commit, epoch, phase, ..UpgradeRunStatus::default() },
        );
        (1_u32..3, 1_u32..3, option::weighted(0.9, status)).prop_map(|(concurrency, failures_max, status)| {
            let mut run: UpgradeRun =
                serde_json::from_value(Table::read().objects["new run"].clone()).expect("it has the type's shape");
            (run.spec.concurrency, run.spec.failures_max, run.status) = (concurrency, failures_max, status);
            run
        })
    }

    thread_local! {
        /// Compiled once a test: compiling costs a hundred times what judging costs.
        static COMPILED: BTreeMap<String, CompiledSchema> =
            schemas().into_iter().map(|(kind, schema)| (kind, compile_schema(&schema))).collect();
    }

    /// What a server that knows CEL says, beside what `validate_update` says, both sorted.
    fn judge<T: Validate + serde::Serialize>(kind: &str, new: &T, old: &T) -> (Vec<String>, Vec<String>) {
        let json = |object: &T| serde_json::to_value(object).expect("it has a JSON form");
        let said =
            COMPILED.with(|schemas| Validator::new().validate_compiled(&schemas[kind], &json(new), Some(&json(old))));
        let mut cel: Vec<String> =
            said.err().map_or_else(Vec::new, |e| e.as_slice().iter().map(|e| e.message.clone()).collect());
        let said = new.validate_update(old);
        let mut rust: Vec<String> =
            said.err().map_or_else(Vec::new, |e| e.iter().map(|e| e.message.to_owned()).collect());
        cel.sort();
        rust.sort();
        (cel, rust)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn of_a_task_is_judged_alike_by_cel_and_by_rust((old, new) in (task(), task())) {
            let (cel, rust) = judge("NodeTask", &new, &old);
            prop_assert_eq!(cel, rust);
        }

        #[test]
        fn of_a_run_is_judged_alike_by_cel_and_by_rust((old, new) in (run(), run())) {
            let (cel, rust) = judge("UpgradeRun", &new, &old);
            prop_assert_eq!(cel, rust);
        }
    }
}
