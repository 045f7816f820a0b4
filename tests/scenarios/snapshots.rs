//! No control-plane node is begun with a snapshot of etcd that is more than an hour old, whatever held the update (ADR 0016).

use crate::cluster::{Cluster, UPDATE, in_cluster, in_world};
use chrono::TimeDelta;
use cupcake_crds::values::{KubeVersion, Phase};
use cupcake_engine::clock::Timestamp;
use cupcake_sandbox::machine::ledger::EffectKind;
use cupcake_sandbox::world::WorldConfig;
use serde_json::{Value, json};

/// Where snapshots were taken, by node; none of them twice.
fn snapshots(cluster: &Cluster) -> Vec<String> {
    let effects = cluster.world.effects().into_iter();
    let snapshots = effects.filter(|effect| effect.name.kind == EffectKind::Snapshot);
    snapshots.inspect(|effect| assert_eq!(effect.begun, 1)).map(|effect| effect.name.node).collect()
}

/// The newest snapshot as the update tells it: where it lies, and of when it is.
fn told(cluster: &Cluster) -> (String, Timestamp) {
    let backup = cluster.update(UPDATE).unwrap().status.unwrap().backup_info.unwrap();
    (backup.etcd_snapshot.unwrap(), backup.timestamp.unwrap())
}

fn three_control_planes() -> WorldConfig {
    let start = Timestamp::from_timestamp(1_790_000_000, 0).unwrap();
    WorldConfig { workers: 0, ..WorldConfig::new(KubeVersion::new(1, 33, 4), start) }
}

#[test]
fn an_update_that_nothing_holds_takes_one_snapshot_of_its_hop() {
    in_world(three_control_planes(), async |cluster| {
        cluster.apply(UPDATE, json!({})).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        assert_eq!(snapshots(cluster), ["cp-1"]);
    });
}

#[test]
fn a_pause_between_the_snapshot_and_the_first_node_makes_it_take_another_one_if_it_lasts() {
    for (seconds, expected) in [(600, 1), (7_200, 2)] {
        in_cluster(0, false, async |cluster| {
            cluster.apply(UPDATE, json!({})).await;
            cluster.eventually("etcd is saved", async || !snapshots(cluster).is_empty()).await;
            let pause = |pause: Value| json!({"spec": {"control": {"pause": pause}}});
            cluster.patch(UPDATE, pause(json!({"requestId": "pause-1"}))).await;
            cluster.pass(seconds).await;
            let goes_on = cluster.world.now();
            cluster.patch(UPDATE, pause(Value::Null)).await;
            let (phase, message) = cluster.at_rest(UPDATE).await;
            assert_eq!(phase, Phase::Succeeded, "{message}");
            assert_eq!(snapshots(cluster).len(), expected, "after {seconds} s");
            let (place, taken) = told(cluster);
            assert_eq!(taken > goes_on, expected == 2, "{place} of {taken}");
        });
    }
}

#[test]
fn a_window_that_closes_between_two_nodes_makes_those_of_the_next_window_take_their_own_snapshots() {
    in_world(three_control_planes(), async |cluster| {
        let at = |minutes| (cluster.world.now() + TimeDelta::minutes(minutes)).format("%H:%M").to_string();
        cluster.apply(UPDATE, json!({"maintenanceWindow": {"start": at(-60), "end": at(3)}})).await;
        cluster
            .eventually("it is held", async || cluster.phase(UPDATE).1.contains("outside spec.maintenanceWindow"))
            .await;
        cluster.pass(1_800).await;
        assert_eq!(snapshots(cluster), ["cp-1"], "{}", cluster.phase(UPDATE).1);
        let begun = |kind| cluster.world.effects().iter().filter(|effect| effect.name.kind == kind).count();
        assert_eq!(begun(EffectKind::Kubeadm), 1, "the window closed while the first node was at work");
        let held = cluster.world.now();
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        assert_eq!(snapshots(cluster), ["cp-1", "cp-2", "cp-3"]);
        let (place, taken) = told(cluster);
        assert!(place.starts_with("cp-3:") && taken > held, "{place} of {taken}");
        cluster.nothing_was_done_twice("over two windows");
    });
}
