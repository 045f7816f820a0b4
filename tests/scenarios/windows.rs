//! `spec.maintenanceWindow`: something new is begun inside it only, and what is left goes on by itself in the next one.

use crate::cluster::{Cluster, UPDATE, in_cluster};
use chrono::TimeDelta;
use cupcake_crds::values::Phase;
use serde_json::{Value, json};

/// A window that opens and closes so many minutes from now.
fn window(cluster: &Cluster, opens: i64, closes: i64) -> Value {
    let at = |minutes| (cluster.world.now() + TimeDelta::minutes(minutes)).format("%H:%M").to_string();
    json!({"start": at(opens), "end": at(closes)})
}

/// Until the update is held: nodes under way have come to their end, and nothing is done for half an hour.
async fn until_held(cluster: &Cluster) {
    cluster.eventually("it is held", async || cluster.phase(UPDATE).1.contains("outside spec.maintenanceWindow")).await;
    cluster.pass(900).await;
    assert_eq!(cluster.cordoned(), Vec::<String>::new(), "no node waits for the next window");
    let before = cluster.effects();
    cluster.pass(1_800).await;
    assert_eq!(cluster.effects(), before, "something was begun outside the window");
}

#[test]
fn an_update_begins_in_its_window_holds_when_it_closes_and_ends_in_the_next_one() {
    for minutes in 1..5 {
        in_cluster(2, true, async |cluster| {
            let asked = cluster.world.now();
            let window = window(cluster, 120, 120 + minutes);
            cluster.apply(UPDATE, json!({"maintenanceWindow": window, "operationTimeout": "1h"})).await;
            cluster.pass(600).await;
            let (phase, message) = cluster.phase(UPDATE);
            assert!(phase == Phase::Pending && message.contains("goes on by itself at "), "{phase:?}: {message}");
            assert!(cluster.update(UPDATE).unwrap().status.unwrap().run.is_none(), "it is not planned yet");
            cluster.eventually("it begins", async || cluster.phase(UPDATE).0 == Phase::InProgress).await;
            let began = cluster.world.now() - asked;
            assert!((118..=121).contains(&began.num_minutes()), "when the window opens: {began}");
            until_held(cluster).await;
            let (phase, message) = cluster.phase(UPDATE);
            assert_eq!(phase, Phase::InProgress, "{message}");
            assert!(!message.contains("resume"), "nobody has to do anything: {message}");
            let (phase, message) = cluster.at_rest(UPDATE).await;
            assert_eq!(phase, Phase::Succeeded, "{message}");
            assert!((cluster.world.now() - asked).num_hours() >= 25, "in the window of another day");
            assert_eq!(cluster.cordoned(), Vec::<String>::new());
            cluster.nothing_was_done_twice("over several windows");
        });
    }
}

#[test]
fn a_window_can_be_changed_under_way_and_one_that_cannot_be_read_is_refused_with_its_field() {
    in_cluster(2, true, async |cluster| {
        let short = window(cluster, -1, 3);
        cluster.apply(UPDATE, json!({"maintenanceWindow": short})).await;
        until_held(cluster).await;
        let longer = window(cluster, -60, 600);
        cluster.patch(UPDATE, json!({"spec": {"maintenanceWindow": longer}})).await;
        let began = cluster.world.now();
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        assert!((cluster.world.now() - began).num_minutes() < 20, "it went on at once");
    });
    in_cluster(1, true, async |cluster| {
        let window = json!({"start": "00:00", "end": "23:59", "timezone": "Europe/Amsterdan"});
        cluster.apply(UPDATE, json!({"maintenanceWindow": window})).await;
        cluster
            .eventually("it says so", async || cluster.phase(UPDATE).1.contains("spec.maintenanceWindow.timezone"))
            .await;
        assert_eq!(cluster.phase(UPDATE).0, Phase::Pending);
    });
}
