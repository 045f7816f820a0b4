//! Workers that an earlier batch had in its hands and that are away since: they are as unavailable as those in flight.

use crate::cluster::{UPDATE, in_cluster};
use cupcake_crds::UpgradeRun;
use cupcake_crds::values::Phase;
use serde_json::json;

#[test]
fn a_worker_of_an_earlier_batch_that_is_away_takes_the_slot_of_a_later_one_until_it_is_back_or_left_out() {
    for left_out in [false, true] {
        in_cluster(4, false, async |cluster| {
            cluster.apply(UPDATE, json!({"batchSize": 1, "concurrency": 1})).await;
            cluster.eventually("w-1 has moved", async || cluster.kubelet("w-1") == "1.34.4").await;
            cluster.eventually("its batch is over", async || cluster.is_cordoned("w-2")).await;
            cluster.world.lose_kubelet("w-1");
            // It is away for everybody to see 40 seconds later: those that are begun by then go on to their end.
            cluster.pass(3_600).await;
            assert_eq!((cluster.kubelet("w-4").as_str(), cluster.is_cordoned("w-4")), ("1.33.4", false));
            let runs = cluster.all::<UpgradeRun>(cupcake_crds::GROUP, "upgraderuns").into_iter();
            let last = runs.filter(|run| run.spec.parent.as_ref().is_some_and(|parent| parent.vertex == "batch-4"));
            let told: Vec<Option<String>> = last.map(|run| run.status.and_then(|status| status.reason)).collect();
            assert_eq!(told, [Some("NodesUnavailable".to_owned())]);
            if left_out {
                let skip = json!({"spec": {"control": {"skip": [{"requestId": "skip-1", "vertex": "w-1"}]}}});
                cluster.patch(UPDATE, skip).await;
            } else {
                cluster.world.restore_kubelet("w-1");
            }
            cluster.eventually("w-4 moves", async || cluster.kubelet("w-4") == "1.34.4").await;
            cluster.world.restore_kubelet("w-1");
            let (phase, message) = cluster.at_rest(UPDATE).await;
            assert_eq!(phase, Phase::Succeeded, "{message}");
        });
    }
}
