//! Workers that somebody leaves out of an update: one that failed, at any moment, out of a blocked drain, too old for what follows.
//!
//! Everything runs in a sandbox on paused time; each moment is a world of its own.

use crate::cluster::{Cluster, UPDATE, in_cluster, in_cluster_at};
use crate::stalls::answer;

use chrono::TimeDelta;
use cupcake_crds::UpgradeRun;
use cupcake_crds::values::{KubeVersion, Phase};
use cupcake_sandbox::machine::ledger::EffectKind;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

/// Asks to leave a node out, as `kubectl cupcake skip` does.
fn leave_out(node: &str) -> Value {
    json!({"spec": {"control": {"skip": [{"requestId": "skip-1", "vertex": node}]}}})
}

#[test]
fn a_worker_that_failed_is_left_out_and_the_same_update_goes_on_without_it() {
    in_cluster(2, false, async |cluster| {
        let budgets = cluster.apply_then_freeze(UPDATE, json!({})).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert!(phase == Phase::RequiresAttention && message.contains("w-1/drain"), "{phase}: {message}");
        cluster.ask(async || budgets.delete("frozen", &DeleteParams::default()).await.map(drop)).await;
        cluster.patch(UPDATE, leave_out("w-1")).await;
        cluster.eventually("it goes on", async || cluster.phase(UPDATE).0 != Phase::RequiresAttention).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert!(phase == Phase::Succeeded && message.ends_with("without w-1, left out as was asked for"), "{message}");
        let versions = ["cp-1", "w-1", "w-2"].map(|node| cluster.kubelet(node));
        assert_eq!(versions, ["1.34.4", "1.33.4", "1.34.4"]);
        assert_eq!(cluster.cordoned(), Vec::<String>::new());
        let status = cluster.update(UPDATE).unwrap().status.unwrap();
        assert_eq!(status.progress.as_deref(), Some("2/2"), "{status:?}");
        assert!(status.acknowledged.iter().any(|answer| answer.request_id == "skip-1"), "{:?}", status.acknowledged);
    });
}

#[test]
fn a_worker_that_is_left_out_at_any_moment_is_given_back_and_holds_nobody_up() {
    let mut stayed = 0;
    for seconds in (0..630).step_by(45) {
        in_cluster(3, true, async |cluster| {
            cluster.apply(UPDATE, json!({})).await;
            cluster.pass(seconds).await;
            cluster.patch(UPDATE, leave_out("w-2")).await;
            let (phase, message) = cluster.at_rest(UPDATE).await;
            assert_eq!(phase, Phase::Succeeded, "left out after {seconds} s: {message}");
            let versions = ["w-1", "w-3"].map(|node| cluster.kubelet(node));
            assert_eq!(versions, ["1.34.4", "1.34.4"], "left out after {seconds} s");
            stayed += u32::from(cluster.kubelet("w-2") == "1.33.4");
            cluster.is_left_alone(&format!("w-2 left out after {seconds} s")).await;
        });
    }
    assert!((4..14).contains(&stayed), "{stayed} of 14: it stays until its own turn has begun, and not for ever");
}

#[test]
fn what_is_asked_of_a_node_while_watches_are_late_is_answered_by_what_the_node_is() {
    let mut in_time = 0;
    for seconds in (30..330).step_by(50) {
        in_cluster(2, false, async |cluster| {
            cluster.apply(UPDATE, json!({})).await;
            cluster.pass(seconds).await;
            // What the leader sees of the update is older than what it writes to: it reads the request from the refusal on.
            cluster.world.server().hold_watches(true);
            cluster.patch(UPDATE, leave_out("w-2")).await;
            cluster.pass(60).await;
            let answered = |cluster: &Cluster| {
                let status = cluster.update(UPDATE).unwrap().status.unwrap();
                status
                    .acknowledged
                    .into_iter()
                    .find(|answer| answer.request_id == "skip-1")
                    .map(|answer| answer.message)
            };
            in_time += u32::from(answered(cluster).is_some());
            cluster.world.server().hold_watches(false);
            cluster.eventually("it is answered", async || answered(cluster).is_some()).await;
            let message = answered(cluster).unwrap();
            assert!(message.starts_with("w-2: left out"), "asked after {seconds} s: {message}");
        });
    }
    assert!(in_time > 0, "nothing was answered while watches were late: this shows nothing");
}

#[test]
fn a_worker_that_is_left_out_while_its_machine_installs_begins_nothing_after_that() {
    in_cluster(2, true, async |cluster| {
        cluster.apply(UPDATE, json!({})).await;
        let effects = |kind: EffectKind| {
            let effects = cluster.world.effects();
            effects.iter().filter(|effect| effect.name.node == "w-1" && effect.name.kind == kind).count()
        };
        cluster.eventually("kubeadm is installed there", async || effects(EffectKind::Install) == 1).await;
        cluster.patch(UPDATE, leave_out("w-1")).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        assert_eq!((effects(EffectKind::Install), effects(EffectKind::Kubeadm)), (1, 0), "kubeadm was begun there");
        cluster.is_left_alone("w-1 left out while it installed").await;
    });
}

#[test]
fn workers_fail_within_one_budget_for_all_batches_and_the_update_ends_once_they_are_left_out() {
    in_cluster(3, false, async |cluster| {
        lose_w_1(cluster).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert!(phase == Phase::RequiresAttention, "{phase}: {message}");
        for part in [
            "failed within spec.maxFailures: w-1; mend each and retry, or leave it out (kubectl cupcake skip)",
            "see upgraderun to-1-34-",
            "; when that is mended: kubectl cupcake retry to-1-34 w-1",
        ] {
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(answer(cluster, UPDATE).pop().as_deref(), Some("next:  kubectl cupcake retry to-1-34 w-1"));
        let succeeded = Some(Phase::Succeeded);
        assert_eq!(batches(cluster), [(2, Some(Phase::Failed)), (1, succeeded), (1, succeeded)], "one budget for all");
        assert_eq!(cluster.kubelets(&["w-1", "w-2", "w-3"]), ["1.33.4", "1.34.4", "1.34.4"]);
        cluster.patch(UPDATE, leave_out("w-1")).await;
        cluster.eventually("it goes on", async || cluster.phase(UPDATE).0 != Phase::RequiresAttention).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert!(phase == Phase::Succeeded && message.ends_with("without w-1, left out as was asked for"), "{message}");
        assert_eq!(cluster.cordoned(), Vec::<String>::new());
    });
}

/// The first phase of each batch, with the budget that it has.
fn batches(cluster: &Cluster) -> Vec<(u32, Option<Phase>)> {
    below(cluster, "batch-").into_iter().map(|run| (run.spec.failures_max, phase_of(&run))).collect()
}

/// The runs of the wave whose vertex begins with that, by name.
fn below(cluster: &Cluster, vertex: &str) -> Vec<UpgradeRun> {
    let mut runs = cluster.all::<UpgradeRun>(cupcake_crds::GROUP, "upgraderuns");
    runs.retain(|run| run.spec.parent.as_ref().is_some_and(|parent| parent.vertex.starts_with(vertex)));
    runs.sort_by_key(|run| run.metadata.name.clone());
    runs
}

fn phase_of(run: &UpgradeRun) -> Option<Phase> {
    run.status.as_ref().and_then(|status| status.phase)
}

/// Applies an update of batches of one worker, of which the first loses its worker within the budget, and what blocked it goes away.
async fn lose_w_1(cluster: &Cluster) {
    cluster.apply(UPDATE, json!({"batchSize": 1, "maxFailures": 2, "nodeTimeout": "15m"})).await;
    cluster.eventually("the workers' turn comes", async || !batches(cluster).is_empty()).await;
    let budgets = cluster.freeze().await;
    cluster.eventually("w-1 is lost", async || batches(cluster)[0].1 == Some(Phase::Failed)).await;
    cluster.ask(async || budgets.delete("frozen", &DeleteParams::default()).await.map(drop)).await;
}

/// Asks for another try, as `kubectl cupcake retry` does.
fn retry(request: &str, node: &str) -> Value {
    json!({"spec": {"control": {"retry": [{"requestId": request, "vertex": node}]}}})
}

#[test]
fn a_worker_that_was_lost_is_tried_again_after_the_others_although_its_batch_is_over() {
    in_cluster(3, false, async |cluster| {
        lose_w_1(cluster).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert!(phase == Phase::RequiresAttention && message.contains("w-1"), "{phase}: {message}");
        cluster.patch(UPDATE, retry("retry-1", "w-1")).await;
        cluster.eventually("it goes on", async || cluster.phase(UPDATE).0 != Phase::RequiresAttention).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert!(phase == Phase::Succeeded && message.starts_with("all that was planned is done"), "{phase}: {message}");
        assert_eq!(cluster.kubelets(&["w-1", "w-2", "w-3"]), ["1.34.4"; 3]);
        assert_eq!(below(cluster, "stragglers").iter().map(phase_of).collect::<Vec<_>>(), [Some(Phase::Succeeded)]);
        cluster.is_left_alone("w-1 moved after all").await;
    });
}

#[test]
fn a_lost_worker_that_is_of_the_control_plane_by_now_is_asked_for_in_vain_and_opens_no_run() {
    in_cluster(3, false, async |cluster| {
        lose_w_1(cluster).await;
        assert_eq!(cluster.at_rest(UPDATE).await.0, Phase::RequiresAttention);
        let nodes: Api<Node> = Api::all(cluster.client.clone());
        let label = Patch::Merge(json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}}));
        cluster.ask(async || nodes.patch("w-1", &PatchParams::default(), &label).await.map(drop)).await;
        cluster.patch(UPDATE, retry("retry-1", "w-1")).await;
        cluster.pass(3_600).await;
        assert_eq!(below(cluster, "stragglers").len(), 0, "{}", cluster.phase(UPDATE).1);
    });
}

#[test]
fn a_retry_of_a_lost_worker_while_others_move_is_kept_until_they_have_and_the_update_does_not_rest_for_it() {
    in_cluster(3, false, async |cluster| {
        lose_w_1(cluster).await;
        cluster.patch(UPDATE, retry("retry-1", "w-1/drain")).await;
        cluster.eventually("w-1 is tried again", async || !below(cluster, "stragglers").is_empty()).await;
        assert_eq!(cluster.kubelets(&["w-2", "w-3"]), ["1.34.4"; 2], "never beside a batch");
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert!(phase == Phase::Succeeded && cluster.kubelet("w-1") == "1.34.4", "{phase}: {message}");
        assert_eq!(below(cluster, "stragglers").len(), 1, "once");
    });
}

#[test]
fn lost_workers_are_decided_about_one_by_one_and_whoever_fails_again_is_tried_again_where_it_was() {
    in_cluster(3, false, async |cluster| {
        let spec = json!({"strategy": "parallel", "batchSize": 1, "maxFailures": 2, "nodeTimeout": "15m"});
        cluster.apply(UPDATE, spec).await;
        cluster.eventually("the workers' turn comes", async || batches(cluster).len() == 3).await;
        let budgets = cluster.freeze().await;
        let rests = || cluster.phase(UPDATE).0 == Phase::RequiresAttention;
        cluster.eventually("all are lost", async || rests()).await;
        let message = cluster.phase(UPDATE).1;
        assert!(message.contains("failed within spec.maxFailures: w-1, w-2, w-3;"), "{message}");
        // What blocks it is still there: it fails once more, in a run that rests.
        cluster.patch(UPDATE, retry("retry-1", "w-2")).await;
        let phases = || below(cluster, "stragglers").iter().map(phase_of).collect::<Vec<_>>();
        cluster.eventually("w-2 fails again", async || phases() == [Some(Phase::RequiresAttention)]).await;
        cluster.eventually("and the update rests", async || rests()).await;
        assert_eq!(answer(cluster, UPDATE).pop().as_deref(), Some("next:  kubectl cupcake retry to-1-34 w-2"));
        cluster.ask(async || budgets.delete("frozen", &DeleteParams::default()).await.map(drop)).await;
        cluster.patch(UPDATE, retry("retry-2", "w-2")).await;
        cluster.eventually("w-2 moves", async || cluster.kubelet("w-2") == "1.34.4").await;
        let named = || cluster.phase(UPDATE).1.contains("failed within spec.maxFailures: w-1, w-3;");
        cluster.eventually("two are left", async || rests() && named()).await;
        let commits = || -> Vec<_> {
            below(cluster, "").iter().map(|run| run.status.as_ref().and_then(|status| status.commit)).collect()
        };
        // It looks once more for the request that was for w-2, and then no more.
        cluster.pass(400).await;
        let before = commits();
        cluster.pass(1_800).await;
        assert_eq!(commits(), before, "and nothing is written for it meanwhile");
        cluster.patch(UPDATE, leave_out("w-3")).await;
        cluster.eventually("one is left", async || cluster.phase(UPDATE).1.contains("maxFailures: w-1;")).await;
        cluster.patch(UPDATE, retry("retry-3", "w-1")).await;
        cluster.eventually("it goes on", async || !rests()).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert!(phase == Phase::Succeeded && message.ends_with("without w-3, left out as was asked for"), "{message}");
        assert_eq!(cluster.kubelets(&["w-1", "w-2", "w-3"]), ["1.34.4", "1.34.4", "1.33.4"]);
        assert_eq!(phases(), [Some(Phase::Succeeded); 2]);
        cluster.is_left_alone("all decided about").await;
    });
}

#[test]
fn a_blocked_drain_ends_at_once_when_its_node_is_left_out() {
    in_cluster(2, false, async |cluster| {
        let budgets = cluster.apply_then_freeze(UPDATE, json!({})).await;
        cluster.eventually("the drain is blocked", async || cluster.phase(UPDATE).1.contains("w-1: ")).await;
        let asked = cluster.world.now();
        cluster.patch(UPDATE, leave_out("w-1")).await;
        cluster.eventually("w-1 is given back", async || !cluster.is_cordoned("w-1")).await;
        assert!(cluster.world.now() - asked < TimeDelta::seconds(60), "it did not wait for the drain's deadline");
        cluster.ask(async || budgets.delete("frozen", &DeleteParams::default()).await.map(drop)).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!((phase, cluster.kubelet("w-1").as_str()), (Phase::Succeeded, "1.33.4"), "{message}");
        cluster.is_left_alone("left out of a blocked drain").await;
    });
}

#[test]
fn a_worker_that_is_not_ready_holds_the_start_and_whoever_types_what_why_says_goes_on_without_it() {
    in_cluster(2, false, async |cluster| {
        cluster.pass(60).await;
        cluster.world.lose_kubelet("w-1");
        cluster.pass(120).await;
        cluster.apply(UPDATE, json!({})).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert!(phase == Phase::RequiresAttention && message.contains("workers not Ready: w-1"), "{phase}: {message}");
        assert_eq!(answer(cluster, UPDATE).pop().as_deref(), Some("next:  kubectl cupcake skip to-1-34 w-1"));
        cluster.patch(UPDATE, leave_out("w-1")).await;
        cluster.pass(30).await;
        let retry = "next:  kubectl cupcake retry to-1-34 1.34.4/preflight";
        assert_eq!(answer(cluster, UPDATE).pop().as_deref(), Some(retry));
        let asked = json!([{"requestId": "retry-1", "vertex": "1.34.4/preflight"}]);
        cluster.patch(UPDATE, json!({"spec": {"control": {"retry": asked}}})).await;
        cluster.eventually("it goes on", async || cluster.phase(UPDATE).0 != Phase::RequiresAttention).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert!(phase == Phase::Succeeded && message.ends_with("without w-1, left out as was asked for"), "{message}");
        let versions = ["cp-1", "w-1", "w-2"].map(|node| cluster.kubelet(node));
        assert_eq!(versions, ["1.34.4", "1.33.4", "1.34.4"]);
    });
}

#[test]
fn a_worker_that_was_left_out_and_is_too_old_for_the_next_hop_stops_the_update_before_that_hop() {
    in_cluster_at(KubeVersion::new(1, 25, 16), 2, true, async |cluster| {
        let skip = json!({"skip": [{"requestId": "skip-1", "vertex": "w-1"}]});
        cluster.apply(UPDATE, json!({"targetVersion": "1.27.16", "control": skip})).await;
        let (phase, message) = cluster.phase(UPDATE);
        assert!(phase == Phase::Pending, "{phase}: {message}");
        cluster.eventually("it is refused from the start", async || cluster.phase(UPDATE).1.contains("w-1")).await;
        cluster.delete(UPDATE).await;
        // Left out under way, when the first hop is planned already.
        cluster.apply("again", json!({"targetVersion": "1.27.16"})).await;
        cluster.eventually("it is under way", async || cluster.phase("again").0 == Phase::InProgress).await;
        cluster.patch("again", leave_out("w-1")).await;
        let (phase, message) = cluster.at_rest("again").await;
        assert!(phase == Phase::RequiresAttention && message.contains("w-1 is left out"), "{phase}: {message}");
        let versions = ["cp-1", "w-1", "w-2"].map(|node| cluster.kubelet(node));
        assert_eq!(versions, ["1.26.15", "1.25.16", "1.26.15"], "the next hop has not begun");
    });
}

#[test]
fn a_control_plane_node_is_not_left_out_and_the_update_says_so() {
    in_cluster(1, true, async |cluster| {
        cluster.apply(UPDATE, json!({})).await;
        cluster.patch(UPDATE, leave_out("cp-1")).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!((phase, cluster.kubelet("cp-1").as_str()), (Phase::Succeeded, "1.34.4"), "{message}");
        let answers = cluster.update(UPDATE).unwrap().status.unwrap().acknowledged;
        assert!(answers.len() == 1 && answers[0].message.starts_with("refused: cp-1"), "{answers:?}");
    });
}
