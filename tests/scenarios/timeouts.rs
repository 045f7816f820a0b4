//! `spec.operationTimeout`: an update that goes on by itself for longer than that comes to rest, and goes on when somebody says so.

use crate::cluster::{UPDATE, in_cluster};
use cupcake_crds::conditions::{self, ConditionStatus};
use cupcake_crds::values::Phase;
use serde_json::json;

#[test]
fn an_update_whose_time_is_over_at_any_moment_begins_nothing_more_and_goes_on_to_its_end_once_it_may() {
    let mut rested = 0;
    for seconds in (5..390).step_by(15) {
        in_cluster(2, true, async |cluster| {
            let when = format!("over after {seconds} s");
            cluster.apply(UPDATE, json!({"operationTimeout": format!("{seconds}s")})).await;
            let mut requests = 0;
            loop {
                let (phase, message) = cluster.at_rest(UPDATE).await;
                if phase == Phase::Succeeded {
                    break;
                }
                assert_eq!(phase, Phase::RequiresAttention, "{when}: {message}");
                let next = format!("kubectl cupcake resume {UPDATE} lets it go on for another ");
                assert!(message.contains("spec.operationTimeout") && message.contains(&next), "{when}: {message}");
                let update = cluster.update(UPDATE).unwrap();
                let over = conditions::get(&update.status.unwrap().conditions, conditions::TIMED_OUT).cloned().unwrap();
                assert_eq!(over.status, ConditionStatus::True, "{when}");
                assert_eq!(cluster.cordoned(), Vec::<String>::new(), "{when}: no node waits for a person");
                let before = cluster.effects();
                cluster.pass(3_600).await;
                assert_eq!(cluster.effects(), before, "{when}: something was still done");
                assert_eq!(cluster.phase(UPDATE).0, Phase::RequiresAttention, "{when}: an hour changes nothing");
                requests += 1;
                rested += 1;
                let resume = json!({"resume": {"requestId": format!("resume-{requests}")}});
                cluster.patch(UPDATE, json!({"spec": {"control": resume}})).await;
                cluster.eventually("it goes on", async || cluster.phase(UPDATE).0 != Phase::RequiresAttention).await;
            }
            assert_eq!(cluster.cordoned(), Vec::<String>::new(), "{when}");
            cluster.nothing_was_done_twice(&when);
        });
    }
    assert!(rested > 25, "only {rested} rests");
}

#[test]
fn an_update_whose_time_is_over_can_be_cancelled_and_what_waits_for_a_person_takes_no_time() {
    in_cluster(2, false, async |cluster| {
        cluster.apply_then_freeze(UPDATE, json!({"operationTimeout": "3m"})).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::RequiresAttention, "{message}");
        assert!(message.contains("spec.operationTimeout allows"), "{message}");
        cluster.cancel().await;
        cluster.eventually("it is cancelled", async || cluster.phase(UPDATE).0 == Phase::Cancelled).await;
        cluster.is_left_alone("cancelled when its time was over").await;
    });
    in_cluster(1, false, async |cluster| {
        cluster.apply(UPDATE, json!({"operationTimeout": "10m"})).await;
        cluster.eventually("it is under way", async || cluster.phase(UPDATE).0 == Phase::InProgress).await;
        cluster.patch(UPDATE, json!({"spec": {"control": {"pause": {"requestId": "pause-1"}}}})).await;
        cluster.pass(3_600).await;
        cluster.patch(UPDATE, json!({"spec": {"control": {"pause": null}}})).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
    });
}
