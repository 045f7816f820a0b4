//! What a user wants measured before an update goes on: by whoever measures on the sandbox, and by a real Prometheus.

use crate::cluster::{Cluster, UPDATE, in_prepared_world, in_world};
use async_trait::async_trait;
use cupcake_crds::values::{KubeVersion, Phase};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::names::Reason;
use cupcake_sandbox::machine::fault::{Component, Fault, Wrong};
use cupcake_sandbox::world::WorldConfig;
use cupcake_steps::ports::cluster::OpsError;
use cupcake_steps::ports::measures::{Measured, Measures};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// Measures what a test says.
struct Dial {
    shows: Mutex<Result<Measured, OpsError>>,
    asked: Mutex<Vec<String>>,
}

impl Dial {
    fn showing(shows: Result<Measured, OpsError>) -> Arc<Self> {
        Arc::new(Self { shows: Mutex::new(shows), asked: Mutex::default() })
    }

    fn turn(&self, shows: Result<Measured, OpsError>) {
        *self.shows.lock().unwrap() = shows;
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

#[async_trait]
impl Measures for Dial {
    async fn ask(&self, query: &str) -> Result<Measured, OpsError> {
        self.asked.lock().unwrap().push(query.to_owned());
        self.shows.lock().unwrap().clone()
    }
}

#[expect(clippy::unnecessary_wraps, reason = "stands where a measurement may fail")]
fn value(value: f64) -> Result<Measured, OpsError> {
    Ok(Measured::Value(value))
}

fn config() -> WorldConfig {
    let start = Timestamp::from_timestamp(1_790_000_000, 0).unwrap();
    WorldConfig { control_planes: 1, workers: 3, ..WorldConfig::new(KubeVersion::new(1, 33, 4), start) }
}

fn measured(dial: &Arc<Dial>, config: WorldConfig, scenario: impl AsyncFnOnce(&Cluster)) {
    in_prepared_world(config, |world| world.measure_by(Arc::clone(dial) as Arc<dyn Measures>), scenario);
}

fn gate(at: &str, timeout: &str) -> Value {
    let prometheus = json!({"query": "sum(errors{code=~\"5..\"})", "atMost": "0.01"});
    json!({"name": "errors", "at": at, "timeout": timeout, "prometheus": prometheus})
}

/// Places of gates as the status has them: where, whether open, and the values.
fn seen(cluster: &Cluster) -> Vec<(String, bool, String)> {
    let status = cluster.update(UPDATE).unwrap().status.unwrap_or_default();
    status.gates.into_iter().map(|one| (one.place, one.open, one.values)).collect()
}

fn place(place: &str, open: bool, values: &str) -> (String, bool, String) {
    (place.to_owned(), open, values.to_owned())
}

#[test]
fn batches_wait_until_what_is_measured_is_right_and_the_status_tells_the_last_values() {
    let dial = Dial::showing(value(0.5));
    measured(&dial, config(), async |cluster| {
        cluster.apply(UPDATE, json!({"batchSize": 1, "gates": [gate("BetweenBatches", "3h")]})).await;
        let closed = "errors is 0.5, has to be at most 0.01";
        let waits = || seen(cluster) == [place("1.34.4/batch-2-gates", false, closed)];
        cluster.eventually("the second batch waits", async || waits()).await;
        cluster.pass(3_600).await;
        assert_eq!(cluster.kubelets(&["w-1", "w-2", "w-3"]), ["1.34.4", "1.33.4", "1.33.4"]);
        let (phase, message) = cluster.phase(UPDATE);
        assert!(phase == Phase::InProgress && message.contains(closed), "{phase} {message}");
        assert!(cluster.cordoned().is_empty());
        let counts = cluster.metrics.text();
        assert!(counts.contains("cupcake_updates_waiting{reason=\"GateClosed\"} 1"), "{counts}");
        dial.turn(Err(OpsError::Transient(Reason::new("PrometheusAway", "no answer within 10 s"))));
        cluster.pass(60).await;
        let away = "errors is not measured: no answer within 10 s";
        assert_eq!(seen(cluster), [place("1.34.4/batch-2-gates", false, away)]);
        dial.turn(value(0.003));
        assert_eq!(cluster.at_rest(UPDATE).await.0, Phase::Succeeded);
        let open = |name| place(name, true, "errors is 0.003");
        assert_eq!(seen(cluster), ["1.34.4/batch-2-gates", "1.34.4/batch-3-gates"].map(open));
        assert!(dial.asked().iter().all(|query| query == "sum(errors{code=~\"5..\"})"));
    });
}

#[test]
fn a_gate_that_stays_closed_for_its_time_lets_the_update_rest_before_anything_moves_and_a_retry_measures_anew() {
    let dial = Dial::showing(Ok(Measured::Nothing));
    measured(&dial, config(), async |cluster| {
        cluster.apply(UPDATE, json!({"gates": [gate("BeforeControlPlane", "10m")]})).await;
        cluster.eventually("it begins", async || cluster.phase(UPDATE).0 == Phase::InProgress).await;
        let begun = cluster.world.now();
        let (phase, message) = cluster.at_rest(UPDATE).await;
        let took = (cluster.world.now() - begun).num_seconds();
        assert!(phase == Phase::RequiresAttention && message.contains("errors has no value"), "{phase} {message}");
        assert!((590..720).contains(&took), "{took}");
        assert_eq!((cluster.effects(), cluster.kubelet("cp-1").as_str()), (0, "1.33.4"));
        dial.turn(value(0.0));
        let retry = json!([{"requestId": "again", "vertex": "control-plane-gates"}]);
        cluster.patch(UPDATE, json!({"spec": {"control": {"retry": retry}}})).await;
        cluster.eventually("it arrives", async || cluster.phase(UPDATE).0 == Phase::Succeeded).await;
        assert_eq!(seen(cluster), [place("1.34.4/control-plane-gates", true, "errors is 0")]);
    });
}

#[test]
fn an_update_whose_gates_nobody_can_ever_measure_is_refused_before_anything_begins() {
    let gates = json!({"gates": [gate("BeforeEachHop", "10m")]});
    in_world(config(), async |cluster| {
        cluster.apply(UPDATE, gates.clone()).await;
        cluster.eventually("it is refused", async || cluster.phase(UPDATE).1.contains("gates.prometheus.url")).await;
        cluster.pass(120).await;
        assert!(cluster.update(UPDATE).unwrap().status.unwrap().run.is_none());
    });
    let dial = Dial::showing(Ok(Measured::Many(2)));
    measured(&dial, config(), async |cluster| {
        cluster.apply(UPDATE, gates.clone()).await;
        let told = "spec.gates, errors: the query gives 2 series, one number is needed";
        cluster.eventually("it is refused", async || cluster.phase(UPDATE).1.contains(told)).await;
        dial.turn(Err(OpsError::NeedsOperator(Reason::new("QueryRefused", "Prometheus cannot read the query: 1:3"))));
        let told = "spec.gates, errors: Prometheus cannot read the query: 1:3";
        cluster.eventually("that is told", async || cluster.phase(UPDATE).1.contains(told)).await;
        assert!(cluster.update(UPDATE).unwrap().status.unwrap().run.is_none());
        // One that is away now may be there when the gate's turn comes.
        dial.turn(Err(OpsError::Transient(Reason::new("PrometheusAway", "no answer"))));
        cluster.eventually("it begins", async || cluster.phase(UPDATE).0 == Phase::InProgress).await;
        dial.turn(value(0.01));
        cluster.eventually("it arrives", async || cluster.phase(UPDATE).0 == Phase::Succeeded).await;
    });
}

#[test]
fn a_leader_that_dies_at_any_write_of_an_update_with_gates_costs_nothing() {
    let mut updates = 0;
    for write in (1..).step_by(9) {
        for wrong in [Wrong::Before, Wrong::After] {
            let faults = vec![Fault::at_write(Component::Operator, write, wrong)];
            let mut happened = false;
            let dial = Dial::showing(value(0.0));
            measured(&dial, WorldConfig { faults, workers: 2, ..config() }, async |cluster| {
                let mut gates = ["BeforeEachHop", "BeforeControlPlane", "BetweenBatches"].map(|at| gate(at, "10m"));
                for (gate, number) in gates.iter_mut().zip(1..) {
                    gate["name"] = json!(format!("errors-{number}"));
                }
                cluster.apply(UPDATE, json!({"batchSize": 1, "gates": gates})).await;
                cluster.eventually("it arrives", async || cluster.phase(UPDATE).0 == Phase::Succeeded).await;
                happened = !cluster.world.faults_happened().is_empty();
                cluster.nothing_was_done_twice(&format!("{write} {wrong:?}"));
                let places: Vec<String> = seen(cluster).into_iter().map(|(place, ..)| place).collect();
                let wanted = ["1.34.4/hop-gates", "1.34.4/control-plane-gates", "1.34.4/batch-2-gates"];
                assert_eq!(places, wanted, "{write} {wrong:?}");
            });
            if !happened {
                println!("{updates} updates whose leader died");
                assert!(updates > 15, "{updates}");
                return;
            }
            updates += 1;
        }
    }
}
