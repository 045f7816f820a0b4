//! Records that cannot be read, and records that would be too large: each stays a matter of its own run.

use crate::cluster::{QUIET_SECONDS, UPDATE, in_cluster};
use cupcake_crds::values::Phase;
use cupcake_crds::{GROUP, UpgradeRun};
use cupcake_engine::clock::{Clock, Timestamp};
use cupcake_engine::conformance::sample_run;
use cupcake_engine::event::Event;
use cupcake_engine::names::{CommitId, Epoch, StepKind, VertexName};
use cupcake_engine::plan::VertexTemplate;
use cupcake_engine::store::{Change, RunStore, StoreError};
use cupcake_operator::adapters::kube_store::{KubeStore, PLAN_BYTES_MAX, RUN_BYTES_MAX};
use cupcake_sandbox::api::Server;
use cupcake_tests::{TokioClock, install_definitions};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams};
use serde_json::{Value, json};
use std::sync::Arc;

/// Name of the update that comes after.
const NEXT: &str = "to-1-35";
/// Name of the run that is damaged.
const STRAY: &str = "stray";
const DAMAGED: &str = "{\"format\":1,\"states\":\"s.0.6 ?\"}";

#[test]
fn a_damaged_run_rests_while_another_goes_on_and_what_comes_after_waits_until_it_is_removed() {
    in_cluster(2, true, async |cluster| {
        cluster.apply(UPDATE, json!({})).await;
        cluster.eventually("a batch", async || cluster.all::<UpgradeRun>(GROUP, "upgraderuns").len() > 2).await;
        // A second root run that has begun: it never asks who owns the cluster any more.
        let root = |run: &UpgradeRun| run.spec.parent.is_none();
        let mut stray = cluster.all::<Value>(GROUP, "upgraderuns");
        stray.retain(|run| run["spec"]["parent"].is_null());
        let mut stray = stray.remove(0);
        stray["metadata"] = json!({"name": STRAY, "uid": "stray-1", "creationTimestamp": "2026-09-21T14:13:20Z"});
        stray["spec"]["directUpdate"] = json!({"name": "nobody", "uid": "nobody-1"});
        stray["status"]["cursor"] = json!(DAMAGED);
        cluster.world.server().restore(GROUP, "upgraderuns", stray);
        let run = |name: &str| {
            let run = cluster.all::<UpgradeRun>(GROUP, "upgraderuns").into_iter().find(|run| run.name_any() == name);
            run.and_then(|run| run.status).unwrap_or_default()
        };
        cluster.eventually("the damage is told", async || run(STRAY).reason.as_deref() == Some("RunCorrupt")).await;
        assert_eq!(run(STRAY).phase, Some(Phase::RequiresAttention), "{:?}", run(STRAY).message);
        assert_eq!(run(STRAY).cursor.as_deref(), Some(DAMAGED), "what is there is left for a person to look at");
        assert_eq!(cluster.phase(UPDATE).0, Phase::InProgress, "the other one is under way");
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        cluster.nothing_was_done_twice("beside a damaged run");

        cluster.apply(NEXT, json!({"targetVersion": "1.35.1"})).await;
        cluster.pass(QUIET_SECONDS).await;
        let (phase, message) = cluster.phase(NEXT);
        assert_eq!(phase, Phase::Pending, "a run that rests owns the cluster: {message}");
        assert!(message.contains("nobody"), "it says for whom it waits: {message}");
        let runs: Api<UpgradeRun> = Api::all(cluster.client.clone());
        cluster.ask(async || runs.delete(STRAY, &DeleteParams::default()).await.map(drop)).await;
        // And one that is over may be damaged too: nobody reads it.
        let over = cluster.all::<UpgradeRun>(GROUP, "upgraderuns").into_iter().find(root);
        let mut over = serde_json::to_value(over.unwrap()).unwrap();
        let name = over["metadata"]["name"].as_str().unwrap().to_owned();
        over["status"]["cursor"] = json!(DAMAGED);
        cluster.world.server().restore(GROUP, "upgraderuns", over);
        let (phase, message) = cluster.at_rest(NEXT).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        assert_eq!(run(&name).phase, Some(Phase::Succeeded), "{:?}", run(&name));
    });
}

#[tokio::test(start_paused = true)]
async fn a_state_that_is_too_large_is_refused_before_it_is_sent_and_the_run_stays_as_it_was() {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(Timestamp::from_timestamp(1_790_000_000, 0).unwrap()));
    let server = Server::new(clock, 7);
    let client = server.client("operator");
    install_definitions(&client).await.unwrap();
    let store = KubeStore::new(client);
    let requests = || server.counts().requests["operator"];

    let mut large = sample_run("large");
    let words = Value::from("x".repeat(PLAN_BYTES_MAX));
    let kind = StepKind::new("noop/v1").unwrap();
    Arc::make_mut(&mut large.plan).vertex(VertexTemplate::new("third", kind, words, &[]));
    let before = requests();
    let refused = store.create(&large).await;
    let is_plan_limit = |bytes: usize, bytes_max| bytes > bytes_max && bytes_max == PLAN_BYTES_MAX;
    assert!(
        matches!(refused, Err(StoreError::TooLarge { bytes, bytes_max, .. }) if is_plan_limit(bytes, bytes_max)),
        "{refused:?}"
    );
    assert_eq!(requests(), before, "nothing was asked of the API server");

    let run = sample_run("grows");
    store.create(&run).await.unwrap();
    let fresh = store.load(&run.name).await.unwrap();
    let change = |output: Value| {
        let (vertex, at) = (VertexName::new("first").unwrap(), fresh.cursor.clock());
        let started = Event::Started { vertex: vertex.clone(), attempt: 1, at };
        let events = vec![started, Event::Succeeded { vertex, attempt: 1, output, at }];
        let mut cursor = fresh.cursor.clone();
        for event in &events {
            cursor.apply(event).unwrap();
        }
        cursor.stamp(CommitId { epoch: Epoch(1), sequence: 1 });
        Change { events, cursor }
    };
    let before = requests();
    let too_large = change(Value::from("x".repeat(RUN_BYTES_MAX)));
    let refused = store.commit(&run.name, Epoch(1), &fresh.version, &too_large).await;
    assert!(
        matches!(refused, Err(StoreError::TooLarge { bytes_max: RUN_BYTES_MAX, .. })),
        "of the run, with its limit: {refused:?}"
    );
    assert_eq!(requests(), before, "nothing was asked of the API server");
    let fits = change(Value::from("left for later"));
    store.commit(&run.name, Epoch(1), &fresh.version, &fits).await.expect("the version that was loaded still stands");
}
