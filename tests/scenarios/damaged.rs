//! Records that cannot be read, and records that would be too large: each stays a matter of its own run.

use crate::cluster::{Cluster, QUIET_SECONDS, UPDATE, in_cluster};
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

/// The batches, by name.
fn batches(cluster: &Cluster) -> Vec<UpgradeRun> {
    let mut runs = cluster.all::<UpgradeRun>(GROUP, "upgraderuns");
    runs.retain(|run| run.spec.parent.as_ref().is_some_and(|parent| parent.vertex.starts_with("batch-")));
    runs.sort_by_key(ResourceExt::name_any);
    runs
}

/// Damages what the first batch has recorded, in the drain of w-1, and takes away what blocks that. Gives the batch's name.
async fn damage_the_first_batch(cluster: &Cluster, spec: Value, begun: usize) -> String {
    let budgets = cluster.apply_then_freeze(UPDATE, spec).await;
    let blocked = || cluster.cordoned().len() == begun && cluster.phase(UPDATE).1.contains("DrainBlocked");
    cluster.eventually("drains are blocked", async || blocked()).await;
    let mut batch = serde_json::to_value(&batches(cluster)[0]).unwrap();
    batch["status"]["cursor"] = json!(DAMAGED);
    let name = batch["metadata"]["name"].as_str().unwrap().to_owned();
    cluster.world.server().restore(GROUP, "upgraderuns", batch);
    cluster.ask(async || budgets.delete("frozen", &DeleteParams::default()).await.map(drop)).await;
    name
}

#[test]
fn a_damaged_batch_rests_beside_one_that_goes_on_and_nothing_above_it_takes_it_for_done() {
    let parallel = json!({"strategy": "parallel", "batchSize": 1});
    // Both at once, and one after the other.
    for (spec, begun, beside) in [(parallel, 2, "1.34.4"), (json!({"batchSize": 1}), 1, "1.33.4")] {
        in_cluster(2, false, async |cluster| {
            let name = damage_the_first_batch(cluster, spec, begun).await;
            let (phase, message) = cluster.at_rest(UPDATE).await;
            assert_eq!(phase, Phase::RequiresAttention, "{message}");
            assert!(
                message.contains(&name) && message.contains("cursor"),
                "it says which run, and what of it: {message}"
            );
            cluster.pass(2 * QUIET_SECONDS).await;
            assert_eq!(cluster.phase(UPDATE).0, Phase::RequiresAttention, "for as long as nobody acts");
            let all = batches(cluster);
            let damaged = all[0].status.clone().unwrap_or_default();
            assert_eq!(all[0].name_any(), name);
            assert_eq!(damaged.phase, Some(Phase::RequiresAttention), "{:?}", damaged.message);
            assert_eq!(damaged.reason.as_deref(), Some("RunCorrupt"));
            assert_eq!(damaged.cursor.as_deref(), Some(DAMAGED), "what is there is left for a person to look at");
            assert_eq!(cluster.kubelets(&["cp-1", "w-1", "w-2"]), ["1.34.4", "1.33.4", beside]);
            // The batch beside it came to its own end; one after it has not begun.
            let others: Vec<_> =
                all[1..].iter().map(|run| run.status.as_ref().and_then(|status| status.phase)).collect();
            let ended: &[_] = if begun == 2 { &[Some(Phase::Succeeded)] } else { &[] };
            assert_eq!(others, ended);
            let above = cluster.all::<UpgradeRun>(GROUP, "upgraderuns").into_iter();
            let above = above.filter(|run| !all.iter().any(|batch| batch.name_any() == run.name_any()));
            let done =
                above.filter(|run| run.status.as_ref().and_then(|status| status.phase) == Some(Phase::Succeeded));
            let done: Vec<String> = done.map(|run| run.name_any()).collect();
            assert!(done.iter().all(|run| run.contains("control-plane")), "{done:?}");
            cluster.nothing_was_done_twice("beside a damaged batch");
            // Whoever deletes the update has the node back, and what comes after moves it.
            cluster.delete(UPDATE).await;
            cluster.eventually("it is gone", async || cluster.update(UPDATE).is_none()).await;
            cluster.eventually("w-1 is given back", async || cluster.cordoned().is_empty()).await;
            cluster.apply(NEXT, json!({})).await;
            let (phase, message) = cluster.at_rest(NEXT).await;
            assert_eq!(phase, Phase::Succeeded, "{message}");
            assert_eq!(cluster.kubelets(&["cp-1", "w-1", "w-2"]), ["1.34.4"; 3]);
        });
    }
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
