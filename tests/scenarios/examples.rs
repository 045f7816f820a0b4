//! The manifests of examples/, as somebody applies them: each is read from its file, sent to a simulated cluster that fits it, and comes to the end
//! that it promises.
#![expect(clippy::disallowed_methods, reason = "reads the manifests")]

use crate::cluster::{Cluster, in_world};
use cupcake_crds::direct_update::NodePhase;
use cupcake_crds::scheduled_update::ScheduledPhase;
use cupcake_crds::values::{KubeVersion, Phase};
use cupcake_crds::{DirectUpdate, GROUP, ScheduledUpdate, UpdateSchedule};
use cupcake_engine::clock::Timestamp;
use cupcake_sandbox::machine::ledger::EffectKind;
use cupcake_sandbox::world::WorldConfig;
use kube::api::{Api, Patch, PatchParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt::Debug;
use std::path::Path;

/// The manifest of a file, whatever is in it.
fn manifest(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(file);
    serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Sends the manifest as `kubectl apply --server-side` does; gives its name.
async fn apply<K>(cluster: &Cluster, file: &str) -> String
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
{
    let manifest = manifest(file);
    let name = manifest["metadata"]["name"].as_str().unwrap().to_owned();
    let api: Api<K> = Api::all(cluster.client.clone());
    let how = PatchParams::apply("kubectl").validation_strict();
    cluster.ask(async || api.patch(&name, &how, &Patch::Apply(&manifest)).await).await;
    name
}

/// A cluster of one control-plane node and so many workers, named as the manifests name them.
fn world(minor: u32, patch: u32, workers: u32, start: &str) -> WorldConfig {
    let start: Timestamp = start.parse().unwrap();
    let from = KubeVersion::new(1, minor, patch);
    WorldConfig { control_planes: 1, workers, workers_named: "worker", ..WorldConfig::new(from, start) }
}

const ANY_DAY: &str = "2026-11-22T08:00:00Z";

/// The update has Succeeded, every kubelet is at that version, and no node is held.
async fn succeeds(cluster: &Cluster, update: &str, version: &str) {
    let (phase, message) = cluster.at_rest(update).await;
    assert_eq!(phase, Phase::Succeeded, "{update}: {message}");
    for machine in cluster.world.machines() {
        assert_eq!(cluster.kubelet(machine.name()), version, "{}", machine.name());
    }
    assert_eq!(cluster.cordoned(), Vec::<String>::new());
    cluster.nothing_was_done_twice(update);
}

#[test]
fn the_basic_example_moves_a_cluster_by_one_minor() {
    in_world(world(26, 15, 2, ANY_DAY), async |cluster| {
        let name = apply::<DirectUpdate>(cluster, "directupdate-basic.yaml").await;
        succeeds(cluster, &name, "1.27.16").await;
        let status = cluster.update(&name).unwrap().status.unwrap();
        assert_eq!(status.progress.as_deref(), Some("3/3"));
        assert!(status.nodes.values().all(|node| node.phase == NodePhase::Completed), "{:?}", status.nodes);
    });
}

#[test]
fn the_canary_example_looks_at_the_worker_that_it_names_before_three_others_follow_at_once() {
    in_world(world(26, 15, 5, ANY_DAY), async |cluster| {
        let name = apply::<DirectUpdate>(cluster, "directupdate-canary.yaml").await;
        cluster.eventually("it soaks", async || cluster.phase(&name).1.contains("are watched until")).await;
        let moved = || (1..=5).filter(|n| cluster.kubelet(&format!("worker-{n}")) == "1.27.16").collect::<Vec<_>>();
        assert_eq!(moved(), [1], "the canary alone");
        cluster.eventually("others follow", async || cluster.cordoned().len() == 3).await;
        succeeds(cluster, &name, "1.27.16").await;
    });
}

#[test]
fn the_example_over_two_minors_goes_through_each_with_a_snapshot_of_its_own() {
    in_world(world(26, 15, 4, ANY_DAY), async |cluster| {
        let name = apply::<DirectUpdate>(cluster, "directupdate-multistep.yaml").await;
        succeeds(cluster, &name, "1.28.15").await;
        let path = cluster.update(&name).unwrap().status.unwrap().upgrade_path.unwrap();
        assert_eq!((path.current_version.as_str(), path.target_version.as_str()), ("1.26.15", "1.28.15"));
        assert_eq!((path.steps, path.current_step, path.total_steps), (vec!["1.27.16".into(), "1.28.15".into()], 1, 2));
        assert_eq!(snapshots(cluster), 2, "one before each hop");
    });
}

#[test]
fn the_promised_way_from_1_25_to_1_28_goes_through_1_26_and_1_27() {
    in_world(world(25, 16, 4, ANY_DAY), async |cluster| {
        let name = apply::<DirectUpdate>(cluster, "directupdate-multistep.yaml").await;
        succeeds(cluster, &name, "1.28.15").await;
        let path = cluster.update(&name).unwrap().status.unwrap().upgrade_path.unwrap();
        assert_eq!(path.steps, ["1.26.15", "1.27.16", "1.28.15"]);
        assert_eq!(snapshots(cluster), 3, "one before each hop");
    });
}

fn snapshots(cluster: &Cluster) -> usize {
    cluster.world.effects().iter().filter(|effect| effect.name.kind == EffectKind::Snapshot).count()
}

#[test]
fn the_scheduled_example_begins_at_its_time_and_is_completed() {
    in_world(world(26, 15, 4, "2027-01-09T21:50:00Z"), async |cluster| {
        let name = apply::<ScheduledUpdate>(cluster, "scheduledupdate-basic.yaml").await;
        let status = || cluster.all::<ScheduledUpdate>(GROUP, "scheduledupdates").remove(0).status.unwrap_or_default();
        cluster.pass(540).await;
        assert_eq!(status().phase, Some(ScheduledPhase::Scheduled));
        assert!(cluster.update(&name).is_none(), "a minute before its time");
        cluster.pass(120).await;
        assert_eq!(status().phase, Some(ScheduledPhase::Executing));
        assert_eq!(status().direct_update_name.as_deref(), Some(name.as_str()));
        succeeds(cluster, &name, "1.27.16").await;
        cluster.eventually("it is completed", async || status().phase == Some(ScheduledPhase::Completed)).await;
        let (due, began) = (status().scheduled_for.unwrap(), status().executed_at.unwrap());
        assert_eq!(due.to_rfc3339(), "2027-01-09T22:00:00+00:00");
        assert!((0..60).contains(&(began - due).num_seconds()), "{began}");
    });
}

#[test]
fn the_monthly_example_brings_the_newest_patch_on_the_first_at_two_in_its_time_zone() {
    in_world(world(27, 3, 2, "2027-01-31T23:50:00Z"), async |cluster| {
        apply::<UpdateSchedule>(cluster, "updateschedule-monthly.yaml").await;
        let status = || cluster.all::<UpdateSchedule>(GROUP, "updateschedules").remove(0).status.unwrap_or_default();
        cluster.pass(3_600).await;
        assert_eq!(
            status().next_scheduled_time.unwrap().to_rfc3339(),
            "2027-02-01T01:00:00+00:00",
            "02:00 in Amsterdam"
        );
        assert_eq!(status().last_update_name, None);
        cluster.eventually("it begins", async || status().active.is_some()).await;
        let update = status().last_update_name.unwrap();
        assert_eq!(status().active.as_deref(), Some(update.as_str()), "while it is under way");
        assert!((cluster.world.now() - status().last_scheduled_time.unwrap()).num_seconds() < 60);
        succeeds(cluster, &update, "1.27.16").await;
        cluster.eventually("it is over", async || status().active.is_none()).await;
        assert_eq!(status().next_scheduled_time.unwrap().to_rfc3339(), "2027-03-01T01:00:00+00:00");
        assert_eq!(cluster.update(&update).unwrap().spec.target_version, "1.27.16");
    });
}
