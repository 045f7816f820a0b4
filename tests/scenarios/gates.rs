//! Gates at which an update waits for a person, or for the workers that went first.

use crate::cluster::{Cluster, UPDATE, in_cluster, in_world};
use cupcake_crds::conditions::{self, ConditionStatus};
use cupcake_crds::values::{KubeVersion, Phase};
use cupcake_engine::clock::Timestamp;
use cupcake_sandbox::machine::fault::{Component, Fault, Wrong};
use cupcake_sandbox::world::WorldConfig;
use kube::api::DeleteParams;
use serde_json::{Value, json};

fn approve(gate: &str, by: Option<&str>) -> Value {
    let mut one = json!({"requestId": format!("approve-{gate}"), "gate": gate, "reason": "CHG-4711"});
    if let Some(by) = by {
        one["requestedBy"] = by.into();
    }
    json!({"spec": {"control": {"approvals": [one]}}})
}

fn approved(cluster: &Cluster) -> Option<(ConditionStatus, String)> {
    let status = cluster.update(UPDATE)?.status?;
    let condition = conditions::get(&status.conditions, conditions::APPROVED)?;
    Some((condition.status, condition.reason.clone()))
}

async fn until_it_waits_for(cluster: &Cluster, gate: &str) {
    let command = format!("kubectl cupcake approve {UPDATE} {gate}");
    cluster.eventually(&command, async || cluster.phase(UPDATE).1.contains(&command)).await;
}

#[test]
fn an_update_waits_before_the_control_plane_until_somebody_says_who_they_are_and_approves() {
    in_cluster(1, false, async |cluster| {
        let gate = "1.34.4/control-plane-gate";
        cluster.apply(UPDATE, json!({"approvals": ["BeforeControlPlane"]})).await;
        until_it_waits_for(cluster, gate).await;
        assert_eq!(cluster.phase(UPDATE).0, Phase::InProgress);
        assert_eq!(approved(cluster), Some((ConditionStatus::False, "WaitingForApproval".to_owned())));
        cluster.pass(7_200).await;
        assert_eq!(cluster.effects(), 0, "nothing is done while it waits");
        cluster.patch(UPDATE, approve(gate, None)).await;
        cluster.pass(120).await;
        assert_eq!(cluster.effects(), 0, "one who does not say who they are opens nothing");
        cluster.patch(UPDATE, approve(gate, Some("jane@example.com"))).await;
        cluster.pass(5).await;
        let status = cluster.update(UPDATE).unwrap().status.unwrap();
        let open = &status.approvals[0];
        assert_eq!((open.gate.as_str(), open.by.as_str()), (gate, "jane@example.com"));
        assert_eq!((open.comment.as_deref(), open.at <= cluster.world.now()), (Some("CHG-4711"), true));
        assert_eq!(approved(cluster), Some((ConditionStatus::True, "Approved".to_owned())));
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        assert_eq!(cluster.update(UPDATE).unwrap().status.unwrap().approvals.len(), 1, "what was recorded stays");
    });
}

#[test]
fn an_approval_that_comes_early_counts_when_its_gate_is_reached_and_one_of_no_gate_is_refused() {
    in_cluster(1, false, async |cluster| {
        cluster.apply(UPDATE, json!({"approvals": ["BeforeEachHop"]})).await;
        cluster.patch(UPDATE, approve("1.34.4/hop-gate", Some("jane"))).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
    });
    in_cluster(1, false, async |cluster| {
        cluster.apply(UPDATE, json!({"approvals": ["BeforeEachHop"]})).await;
        until_it_waits_for(cluster, "1.34.4/hop-gate").await;
        cluster.patch(UPDATE, approve("1.34.4/canary-gate", Some("jane"))).await;
        cluster.pass(60).await;
        let status = cluster.update(UPDATE).unwrap().status.unwrap();
        let answer = &status.acknowledged[0].message;
        assert_eq!(answer, "refused: no gate 1.34.4/canary-gate; there are 1.34.4/hop-gate");
        assert_eq!((cluster.effects(), status.approvals.len()), (0, 0));
        cluster.cancel().await;
        let (phase, _) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Cancelled, "a gate does not hold up a cancel");
    });
}

#[test]
fn the_others_follow_the_canary_after_its_soak_and_where_asked_for_an_approval() {
    let canary = |soak: &str| json!({"enabled": true, "nodes": ["w-2"], "soak": soak});
    in_cluster(3, false, async |cluster| {
        cluster.apply(UPDATE, json!({"strategy": "canary", "canary": canary("30m")})).await;
        cluster.eventually("it soaks", async || cluster.phase(UPDATE).1.contains("are watched until")).await;
        let versions = || ["w-1", "w-2", "w-3"].map(|node| cluster.kubelet(node));
        assert_eq!(versions(), ["1.33.4", "1.34.4", "1.33.4"], "the canary alone has moved");
        cluster.pass(1_680).await;
        assert_eq!(versions(), ["1.33.4", "1.34.4", "1.33.4"], "28 of 30 minutes later too");
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!((phase, versions()), (Phase::Succeeded, ["1.34.4"; 3].map(str::to_owned)), "{message}");
        assert_eq!(approved(cluster), None, "nobody had to approve");
    });
    in_cluster(2, false, async |cluster| {
        let spec =
            json!({"strategy": "canary", "canary": {"enabled": true, "nodes": ["w-2"]}, "approvals": ["AfterCanary"]});
        cluster.apply(UPDATE, spec).await;
        until_it_waits_for(cluster, "1.34.4/canary-gate").await;
        cluster.pass(7_200).await;
        assert_eq!(cluster.kubelet("w-1"), "1.33.4");
        assert_eq!(cluster.cordoned(), Vec::<String>::new(), "no node is held while it waits");
        cluster.patch(UPDATE, approve("1.34.4/canary-gate", Some("jane"))).await;
        assert_eq!(cluster.at_rest(UPDATE).await.0, Phase::Succeeded);
        assert_eq!(cluster.kubelet("w-1"), "1.34.4");
    });
}

#[test]
fn a_canary_that_fails_stops_the_update_in_front_of_its_gate_however_many_may_fail() {
    in_cluster(3, false, async |cluster| {
        let canary = json!({"enabled": true, "nodes": ["w-2"]});
        let spec = json!({"strategy": "canary", "canary": canary, "maxFailures": 3, "nodeTimeout": "15m"});
        let budgets = cluster.apply_then_freeze(UPDATE, spec).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert!(phase == Phase::RequiresAttention && message.contains("w-2/drain"), "{phase}: {message}");
        cluster.ask(async || budgets.delete("frozen", &DeleteParams::default()).await.map(drop)).await;
        cluster.pass(3_600).await;
        let versions = ["w-1", "w-2", "w-3"].map(|node| cluster.kubelet(node));
        assert_eq!(versions, ["1.33.4", "1.33.4", "1.33.4"], "nobody follows a canary that failed");
    });
}

#[test]
fn who_leaves_out_the_only_canary_still_has_to_approve_what_follows() {
    // Left out before the workers' turn there is no canary any more; in its drain there is one that did not move.
    for blocked in [false, true] {
        in_cluster(2, false, async |cluster| {
            let canary = json!({"enabled": true, "nodes": ["w-2"]});
            let spec = json!({"strategy": "canary", "canary": canary, "approvals": ["AfterCanary"]});
            let budgets = cluster.apply_then_freeze(UPDATE, spec).await;
            cluster.eventually("it is under way", async || cluster.phase(UPDATE).0 == Phase::InProgress).await;
            if blocked {
                cluster.eventually("its drain is blocked", async || cluster.phase(UPDATE).1.contains("w-2: ")).await;
            }
            let skip = json!([{"requestId": "skip-1", "vertex": "w-2"}]);
            cluster.patch(UPDATE, json!({"spec": {"control": {"skip": skip}}})).await;
            cluster.ask(async || budgets.delete("frozen", &DeleteParams::default()).await.map(drop)).await;
            until_it_waits_for(cluster, "1.34.4/canary-gate").await;
            let message = cluster.phase(UPDATE).1;
            assert_eq!(message.contains("all were left out"), blocked, "{message}");
            cluster.pass(7_200).await;
            assert_eq!(["w-1", "w-2"].map(|node| cluster.kubelet(node)), ["1.33.4"; 2], "nobody approved");
            cluster.patch(UPDATE, approve("1.34.4/canary-gate", Some("jane"))).await;
            let (phase, message) = cluster.at_rest(UPDATE).await;
            assert_eq!(phase, Phase::Succeeded, "{message}");
            assert_eq!(["w-1", "w-2"].map(|node| cluster.kubelet(node)), ["1.34.4", "1.33.4"]);
        });
    }
}

#[test]
fn a_gate_is_passed_once_approved_whichever_write_of_the_operator_is_lost() {
    let mut happened = 0;
    let start = Timestamp::from_timestamp(1_790_000_000, 0).unwrap();
    for wrong in [Wrong::Before, Wrong::After, Wrong::ReplyLost] {
        for write in 2..=12 {
            let faults = vec![Fault::at_write(Component::Operator, write, wrong)];
            let from = KubeVersion::new(1, 33, 4);
            let config = WorldConfig { control_planes: 1, workers: 1, faults, ..WorldConfig::new(from, start) };
            in_world(config, async |cluster| {
                cluster.apply(UPDATE, json!({"approvals": ["BeforeEachHop"]})).await;
                cluster.pass(300).await;
                assert_eq!(cluster.effects(), 0, "{wrong:?} at {write}: closed, whoever looks");
                cluster.patch(UPDATE, approve("1.34.4/hop-gate", Some("jane"))).await;
                let (phase, message) = cluster.at_rest(UPDATE).await;
                assert_eq!(phase, Phase::Succeeded, "{wrong:?} at {write}: {message}");
                let approvals = cluster.update(UPDATE).unwrap().status.unwrap().approvals;
                assert_eq!(approvals.len(), 1, "{wrong:?} at {write}");
                happened += cluster.world.faults_happened().len();
            });
        }
    }
    assert!(happened >= 30, "only {happened} crashes");
}
