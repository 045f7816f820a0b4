//! Gates of a user: what has to be measured before an update goes on.

use crate::finding::{Code, Finding, Findings};
use cupcake_crds::DirectUpdateSpec;
use cupcake_crds::limits;
use cupcake_crds::values::{GatePoint, Strategy, UserGate};
use cupcake_steps::cluster::params::MetricGate;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a gate may stay closed where nothing is said, in seconds.
const GATE_SECONDS_DEFAULT: u32 = 3_600;
/// The shortest time that may be said, in seconds: a query is asked twice in it.
const GATE_SECONDS_MIN: u32 = 60;
/// The longest: as long as a gate that waits for a person.
const GATE_SECONDS_MAX: u32 = crate::gates::GATE_SECONDS;
/// For the step to say itself which gate is closed, before the engine's deadline cuts it short.
pub(crate) const VERDICT_SECONDS: u32 = 120;

/// The gates that stand there, in the order of the spec; those of a spec that was refused may be missing.
pub(crate) fn at(spec: &DirectUpdateSpec, point: GatePoint) -> impl Iterator<Item = MetricGate> {
    spec.gates.iter().filter(move |gate| gate.at == point).filter_map(|gate| {
        Some(MetricGate {
            at_least: number(gate.prometheus.at_least.as_ref()).ok()?,
            at_most: number(gate.prometheus.at_most.as_ref()).ok()?,
            name: gate.name.clone(),
            query: gate.prometheus.query.clone(),
            seconds_max: seconds(gate)?,
        })
    })
}

/// A text that is no finite number.
struct NoNumber;

/// The number, if one is given.
fn number(text: Option<&String>) -> Result<Option<f64>, NoNumber> {
    let parsed = |text: &String| text.parse::<f64>().ok().filter(|number| number.is_finite()).ok_or(NoNumber);
    text.map(parsed).transpose()
}

/// How long it may stay closed, if that is a time that it can have.
fn seconds(gate: &UserGate) -> Option<u32> {
    let Some(timeout) = gate.timeout else { return Some(GATE_SECONDS_DEFAULT) };
    if timeout.is_negative() {
        return None;
    }
    let seconds = u32::try_from(Duration::from(timeout).as_secs()).ok()?;
    (GATE_SECONDS_MIN..=GATE_SECONDS_MAX).contains(&seconds).then_some(seconds)
}

/// What of them cannot be, or has no effect.
pub(crate) fn check(spec: &DirectUpdateSpec, findings: &mut Findings) {
    let mut refuse = |value: &str, message: String, remedy: &str| {
        findings.refuse(Finding::new(Code::OutOfRange, "spec.gates", value, message, remedy));
    };
    let names: BTreeSet<&str> = spec.gates.iter().map(|gate| gate.name.as_str()).collect();
    if names.len() < spec.gates.len() || spec.gates.len() > limits::USER_GATES_MAX {
        let message = format!("each name may stand there once, and {} gates at the most", limits::USER_GATES_MAX);
        refuse("", message, "give each gate a name of its own");
    }
    for gate in &spec.gates {
        let (name, asked) = (&gate.name, &gate.prometheus);
        let (least, most) = (number(asked.at_least.as_ref()), number(asked.at_most.as_ref()));
        match (least, most) {
            (Err(NoNumber), _) | (_, Err(NoNumber)) => {
                refuse(name, "atLeast or atMost is no decimal number".to_owned(), "write one such as \"0.01\"");
            }
            (Ok(None), Ok(None)) => {
                refuse(name, "it has no threshold".to_owned(), "set prometheus.atLeast or prometheus.atMost");
            }
            (Ok(Some(least)), Ok(Some(most))) if least > most => {
                refuse(
                    name,
                    "no value is at least atLeast and at most atMost".to_owned(),
                    "swap the two, or leave one out",
                );
            }
            (Ok(_), Ok(_)) => {}
        }
        if seconds(gate).is_none() {
            let value = gate.timeout.map(|timeout| timeout.to_string()).unwrap_or_default();
            refuse(
                &value,
                format!("gate {name} cannot stay closed for that long"),
                "set 1m to 144h, or leave it out for 1h",
            );
        }
    }
    let between = spec.gates.iter().find(|gate| gate.at == GatePoint::BetweenBatches);
    if let Some(gate) = between.filter(|_| spec.strategy == Strategy::Parallel) {
        let message = "no effect under strategy parallel: batches wait for nobody";
        let remedy = "set spec.strategy to rolling, or the gate at BeforeControlPlane";
        findings.warn(Finding::new(Code::NoEffect, "spec.gates", &gate.name, message, remedy));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cluster, compiled, plan_of, spec, wave_of};
    use cupcake_engine::dag::Vertex;
    use serde_json::{Value, json};

    fn gate(name: &str, at: &str, timeout: &str) -> Value {
        json!({"name": name, "at": at, "timeout": timeout, "prometheus": {"query": "sum(x{code=~\"5..\"})", "atMost": "0.01"}})
    }

    /// Each vertex that measures: its name, what it comes after, what comes after it, its gates and its deadline.
    fn measuring(vertices: &[Vertex]) -> Vec<String> {
        let names = |all: &mut dyn Iterator<Item = String>| all.collect::<Vec<_>>().join(" ");
        let line = |vertex: &Vertex| {
            let after = names(&mut vertex.after.iter().map(ToString::to_string));
            let then = vertices.iter().filter(|one| one.after.contains(&vertex.name));
            let then = names(&mut then.map(|one| one.name.to_string()));
            let gates = vertex.params["gates"].as_array().unwrap();
            let gates = names(&mut gates.iter().map(|gate| gate["name"].as_str().unwrap().to_owned()));
            format!("{after} > {} ({gates}; {} s) > {then}", vertex.name, vertex.deadline_seconds)
        };
        vertices.iter().filter(|one| one.kind.as_str() == crate::METRIC_GATES).map(line).collect()
    }

    #[test]
    fn gates_of_one_point_are_measured_together_right_before_what_they_hold() {
        let gates = json!([
            gate("errors", "BetweenBatches", "30m"),
            gate("hop", "BeforeEachHop", "5m"),
            gate("latency", "BetweenBatches", "90m"),
            gate("snapshot", "BeforeControlPlane", "1m"),
        ]);
        let snapshot = cluster(1, 3, "1.33.4");
        let update = spec(&json!({"gates": gates, "batchSize": 1, "approvals": ["BeforeControlPlane"]}));
        let root = plan_of(&update, &snapshot).plan.expand().unwrap();
        assert_eq!(
            measuring(root.vertices()),
            [
                " > 1.34.4/hop-gates (hop; 420 s) > 1.34.4/preflight",
                "1.34.4/control-plane-gate > 1.34.4/control-plane-gates (snapshot; 180 s) > 1.34.4/etcd-backup",
            ]
        );
        let wave = wave_of(&update, &snapshot).plan.expand().unwrap();
        assert_eq!(
            measuring(wave.vertices()),
            [
                "batch-1 > batch-2-gates (errors latency; 5520 s) > batch-2",
                "batch-2 > batch-3-gates (errors latency; 5520 s) > batch-3",
            ],
            "before the first batch nothing is measured"
        );
        let params = &wave.vertices().iter().find(|one| one.kind.as_str() == crate::METRIC_GATES).unwrap().params;
        let wanted = json!({"atMost": 0.01, "name": "errors", "query": "sum(x{code=~\"5..\"})", "secondsMax": 1800});
        assert_eq!(params["gates"][0], wanted, "the query arrives as it was written");
        let canary = json!({
            "gates": [gate("errors", "BetweenBatches", "30m")], "strategy": "canary", "canary": {"enabled": true, "nodes": ["w-02"]},
        });
        let wave = wave_of(&spec(&canary), &snapshot).plan.expand().unwrap();
        assert_eq!(
            measuring(wave.vertices()),
            ["1.34.4/canary-gate > batch-2-gates (errors; 1920 s) > batch-2"],
            "after the soak"
        );
        let without = plan_of(&spec(&json!({})), &snapshot).plan;
        assert_eq!(measuring(without.expand().unwrap().vertices()), Vec::<String>::new());
    }

    #[test]
    fn gates_that_cannot_be_are_refused_and_one_without_effect_is_told() {
        let with = |change: Value| {
            let mut gate = gate("errors", "BeforeEachHop", "5m");
            gate.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            spec(&json!({"gates": [gate]}))
        };
        let snapshot = cluster(1, 2, "1.33.4");
        for (change, part) in [
            (json!({"timeout": "59s"}), "1m to 144h"),
            (json!({"timeout": "145h"}), "1m to 144h"),
            (json!({"timeout": "-1m"}), "1m to 144h"),
            (json!({"prometheus": {"query": "up", "atMost": "1%"}}), "no decimal number"),
            (json!({"prometheus": {"query": "up"}}), "no threshold"),
            (json!({"prometheus": {"query": "up", "atLeast": "2", "atMost": "1.5"}}), "swap the two"),
        ] {
            let refusal = compiled(&with(change.clone()), &snapshot).err().unwrap();
            let [finding] = &refusal.findings[..] else { panic!("{change}: {refusal}") };
            assert_eq!((finding.code, finding.field.as_str()), (Code::OutOfRange, "spec.gates"));
            assert!(finding.to_string().contains(part), "{change}: {finding}");
        }
        let twice = json!({"gates": [gate("errors", "BeforeEachHop", "5m"), gate("errors", "BetweenBatches", "5m")]});
        assert!(compiled(&spec(&twice), &snapshot).err().unwrap().to_string().contains("a name of its own"));
        let parallel = json!({"gates": [gate("errors", "BetweenBatches", "5m")], "strategy": "parallel"});
        let told = plan_of(&spec(&parallel), &snapshot).report.warnings;
        assert!(told.iter().any(|one| one.code == Code::NoEffect && one.field == "spec.gates"), "{told:?}");
        let wave = wave_of(&spec(&parallel), &snapshot).plan.expand().unwrap();
        assert_eq!(measuring(wave.vertices()), Vec::<String>::new());
    }
}
