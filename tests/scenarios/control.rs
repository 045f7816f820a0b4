//! What people do to an update under way: cancel it, delete it, delete what belongs to it, ask for two at once.
//!
//! Everything runs in a sandbox on paused time; each moment is a world of its own.

use crate::cluster::{QUIET_SECONDS, UPDATE, in_cluster};
use chrono::TimeDelta;
use cupcake_crds::conditions::{self, Condition, ConditionStatus};
use cupcake_crds::node_task::TaskState;
use cupcake_crds::values::Phase;
use cupcake_crds::{GROUP, NodeTask, UpgradeRun};
use cupcake_sandbox::machine::ledger::{EffectKind, EffectRecord};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

#[test]
fn a_cancel_at_any_moment_ends_cancelled_with_every_node_given_back_and_the_next_update_goes_on_from_there() {
    let mut cancelled = 0;
    for seconds in (1..400).step_by(13) {
        in_cluster(2, true, async |cluster| {
            let when = format!("cancelled after {seconds} s");
            cluster.apply(UPDATE, json!({})).await;
            cluster.pass(seconds).await;
            cluster.cancel().await;
            let (phase, message) = cluster.at_rest(UPDATE).await;
            cancelled += u32::from(phase == Phase::Cancelled);
            assert!(matches!(phase, Phase::Cancelled | Phase::Succeeded), "{when}: {phase:?}: {message}");
            cluster.is_left_alone(&when).await;
            cluster.nothing_was_done_twice(&when);
            cluster.apply("again", json!({})).await;
            let (phase, message) = cluster.at_rest("again").await;
            assert_eq!(phase, Phase::Succeeded, "{when}, then applied again: {message}");
            cluster.is_left_alone(&when).await;
        });
    }
    assert!(cancelled > 20, "only {cancelled} updates were still under way");
}

#[test]
fn a_cancelled_drain_evicts_nothing_more_and_gives_the_node_back() {
    in_cluster(2, false, async |cluster| {
        cluster.apply_then_freeze(UPDATE, json!({})).await;
        cluster
            .eventually("the drain is blocked and says so", async || cluster.phase(UPDATE).1.contains("DrainBlocked"))
            .await;
        cluster.cancel().await;
        let began = cluster.world.now();
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Cancelled, "{message}");
        assert!(cluster.world.now() - began < TimeDelta::seconds(60), "it did not wait for the drain's deadline");
        cluster.is_left_alone("cancelled in a drain").await;
    });
}

#[test]
fn a_drain_that_stays_blocked_stops_the_nodes_order_and_another_update_goes_on_once_the_budget_allows_it() {
    in_cluster(2, false, async |cluster| {
        let budgets = cluster.apply_then_freeze(UPDATE, json!({})).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::RequiresAttention, "{message}");
        assert!(message.contains("w-1/drain") && message.contains("shop"), "{message}");
        cluster.is_left_alone("after a drain that stayed blocked").await;
        cluster.ask(async || budgets.delete("frozen", &DeleteParams::default()).await.map(drop)).await;
        cluster.cancel().await;
        cluster.eventually("it is cancelled", async || cluster.phase(UPDATE).0 == Phase::Cancelled).await;
        cluster.apply("again", json!({})).await;
        let (phase, message) = cluster.at_rest("again").await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
    });
}

#[test]
fn a_node_that_failed_is_tried_again_from_its_first_step_and_the_same_update_goes_on() {
    in_cluster(2, false, async |cluster| {
        let budgets = cluster.apply_then_freeze(UPDATE, json!({})).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::RequiresAttention, "{message}");
        cluster.is_left_alone("after a drain that stayed blocked").await;
        let restarts = || -> u32 {
            let effects = cluster.world.effects();
            effects
                .iter()
                .filter(|effect| effect.name.kind == EffectKind::KubeletRestart)
                .map(|effect| effect.begun)
                .sum()
        };
        let before = restarts();
        cluster.ask(async || budgets.delete("frozen", &DeleteParams::default()).await.map(drop)).await;
        let retry = json!({"spec": {"control": {"retry": [{"requestId": "retry-1", "vertex": "w-1"}]}}});
        cluster.patch(UPDATE, retry).await;
        cluster.eventually("it goes on", async || cluster.phase(UPDATE).0 != Phase::RequiresAttention).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        assert_eq!(restarts() - before, 2, "each worker's kubelet was restarted once");
        assert_eq!(cluster.cordoned(), Vec::<String>::new());
    });
}

#[test]
fn a_retry_is_taken_up_once_so_that_what_fails_again_rests_again() {
    in_cluster(2, false, async |cluster| {
        cluster.apply_then_freeze(UPDATE, json!({})).await;
        assert_eq!(cluster.at_rest(UPDATE).await.0, Phase::RequiresAttention);
        let retry = json!({"spec": {"control": {"retry": [{"requestId": "retry-1", "vertex": "w-1"}]}}});
        cluster.patch(UPDATE, retry).await;
        cluster.eventually("it goes on", async || cluster.phase(UPDATE).0 == Phase::InProgress).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::RequiresAttention, "{message}");
        cluster.is_left_alone("after a retry that failed, too").await;
    });
}

#[test]
fn a_bare_pod_that_nobody_agreed_to_lose_blocks_the_drain_and_is_named_until_it_is_gone() {
    in_cluster(2, true, async |cluster| {
        cluster.apply(UPDATE, json!({})).await;
        cluster.eventually("it is under way", async || cluster.phase(UPDATE).0 == Phase::InProgress).await;
        // After the checks: nobody asked about it.
        let notes = json!({
            "metadata": {"name": "notes", "namespace": "default"},
            "spec": {
                "nodeName": "w-2",
                "containers": [{"name": "notes", "image": "registry.example/notes:1"}],
            },
        });
        let notes: Pod = serde_json::from_value(notes).unwrap();
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "default");
        cluster.ask(async || pods.create(&PostParams::default(), &notes).await).await;
        cluster.eventually("the drain names it", async || cluster.phase(UPDATE).1.contains("default/notes")).await;
        let (phase, message) = cluster.phase(UPDATE);
        assert!(phase == Phase::InProgress && message.contains("spec.drain.deleteUnmanagedPods"), "{phase}: {message}");
        let alive = cluster.all::<Pod>("", "pods").into_iter().any(|pod| pod.name_any() == "notes");
        assert!(alive && cluster.is_cordoned("w-2"), "it is still there");
        cluster.ask(async || pods.delete("notes", &DeleteParams::default()).await.map(drop)).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!((phase, cluster.cordoned()), (Phase::Succeeded, Vec::new()), "{message}");
    });
}

#[test]
fn an_addon_that_is_not_there_is_refused_until_kubeadms_configuration_says_that_it_is_not_wanted() {
    in_cluster(1, false, async |cluster| {
        let deployments: Api<k8s_openapi::api::apps::v1::Deployment> =
            Api::namespaced(cluster.client.clone(), "kube-system");
        let maps: Api<k8s_openapi::api::core::v1::ConfigMap> = Api::namespaced(cluster.client.clone(), "kube-system");
        cluster.ask(async || deployments.delete("coredns", &DeleteParams::default()).await.map(drop)).await;
        cluster.apply(UPDATE, json!({})).await;
        cluster.eventually("it is refused", async || cluster.phase(UPDATE).1.contains("dns.disabled: true")).await;
        let map = cluster.ask(async || maps.get("kubeadm-config").await).await;
        let text = map.data.unwrap()["ClusterConfiguration"].clone();
        let data = json!({"data": {"ClusterConfiguration": format!("{}\n", text.replace("dns: {}", "dns:\n  disabled: true").trim_end())}});
        cluster.ask(async || maps.patch("kubeadm-config", &PatchParams::default(), &Patch::Merge(&data)).await).await;
        let has_run = || cluster.update(UPDATE).and_then(|update| update.status?.run).is_some();
        cluster.eventually("it begins by itself", async || has_run()).await;
    });
}

#[test]
fn a_budget_that_lets_no_pod_go_is_found_before_anything_moves() {
    in_cluster(2, false, async |cluster| {
        cluster.pass(120).await;
        cluster.freeze().await;
        let before = cluster.effects();
        cluster.apply(UPDATE, json!({})).await;
        cluster.eventually("it is refused", async || cluster.phase(UPDATE).1.contains("DisruptionBudget")).await;
        let (phase, message) = cluster.phase(UPDATE);
        assert!(phase == Phase::Pending && message.contains("default/frozen"), "{phase}: {message}");
        assert_eq!(cluster.effects(), before, "nothing was touched");
        let known = ["w-1", "w-2"].map(|node| json!({"check": "DisruptionBudget", "node": node}));
        cluster.patch(UPDATE, json!({"spec": {"acknowledge": known}})).await;
        cluster.eventually("it begins", async || cluster.phase(UPDATE).0 == Phase::InProgress).await;
    });
}

#[test]
fn an_update_that_is_deleted_under_way_goes_after_its_nodes_are_given_back() {
    for seconds in (1..400).step_by(30) {
        in_cluster(2, true, async |cluster| {
            let when = format!("deleted after {seconds} s");
            cluster.apply(UPDATE, json!({})).await;
            cluster.pass(seconds).await;
            cluster.delete(UPDATE).await;
            cluster.eventually("the update is gone", async || cluster.update(UPDATE).is_none()).await;
            cluster
                .eventually("its runs are gone", async || cluster.all::<UpgradeRun>(GROUP, "upgraderuns").is_empty())
                .await;
            let plans = cluster.all::<Value>(GROUP, "upgradeplans").len();
            assert_eq!(plans, 0, "{when}: plans go with their runs");
            cluster.is_left_alone(&when).await;
        });
    }
}

#[test]
fn an_order_that_a_leader_places_after_its_run_has_ended_is_stopped_before_anything_is_done() {
    in_cluster(2, true, async |cluster| {
        cluster.apply(UPDATE, json!({})).await;
        cluster.eventually("w-1 has an order", async || cluster.task("w-1").spec.order.is_some()).await;
        cluster.eventually("w-1 is done", async || cluster.task("w-1").answer() == Some(TaskState::Done)).await;
        let mut late = cluster.task("w-1").spec.order.unwrap();
        cluster.cancel().await;
        cluster.at_rest(UPDATE).await;
        cluster.pass(60).await;
        let before = cluster.effects();
        // As the old leader's request would have it, had nobody written the task in between.
        late.key.attempt += 1;
        late.proceed = true;
        let tasks: Api<NodeTask> = Api::all(cluster.client.clone());
        let patch = Patch::Merge(json!({"spec": {"order": late}}));
        cluster.ask(async || tasks.patch("w-1", &PatchParams::default(), &patch).await).await;
        cluster.is_left_alone("after a late order").await;
        assert!(cluster.task("w-1").spec.order.unwrap().stop, "it was asked to stop");
        let begun = cluster.effects() - before;
        assert_eq!(begun, 0, "effects were begun by an order that nobody wants");
        cluster.apply("again", json!({})).await;
        let (phase, message) = cluster.at_rest("again").await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
    });
}

#[test]
fn the_next_attempt_of_a_node_whose_packages_failed_does_not_run_kubeadm_again() {
    in_cluster(1, false, async |cluster| {
        cluster.apply(UPDATE, json!({})).await;
        let order = || cluster.task("w-1").spec.order;
        let prepared = async || cluster.task("w-1").answer() == Some(TaskState::Prepared);
        cluster.eventually("w-1 is prepared: its kubeadm has ended", prepared).await;
        cluster.world.machine("w-1").unwrap().hold_package_lock(true);
        let again = async || order().is_some_and(|order| order.key.vertex.contains("kubelet") && order.proceed);
        cluster.eventually("the kubelet's package failed, and the node is tried again", again).await;
        let before = order().unwrap().key;
        cluster.world.machine("w-1").unwrap().hold_package_lock(false);
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        let kubeadm = |effect: &EffectRecord| effect.name.kind == EffectKind::Kubeadm && effect.name.node == "w-1";
        let begun: u32 =
            cluster.world.effects().iter().filter(|effect| kubeadm(effect)).map(|effect| effect.begun).sum();
        assert_eq!(begun, 1, "kubeadm ran again for {before}");
    });
}

#[test]
fn no_update_begins_while_a_machine_is_still_at_work_for_one_that_is_over() {
    in_cluster(1, false, async |cluster| {
        let at_work = || cluster.task("cp-1").claimed().is_some();
        cluster.world.machine("cp-1").unwrap().slow_kubeadm(TimeDelta::minutes(25));
        cluster.apply(UPDATE, json!({"nodeTimeout": "10m"})).await;
        let begun = async || cluster.world.effects().iter().any(|effect| effect.name.kind == EffectKind::Kubeadm);
        cluster.eventually("kubeadm has begun", begun).await;
        cluster.cancel().await;
        let over = async || cluster.phase(UPDATE).0 == Phase::Cancelled;
        cluster.eventually("the update is over", over).await;
        assert!(at_work(), "kubeadm is still at work");
        cluster.world.machine("cp-1").unwrap().slow_kubeadm(TimeDelta::zero());
        cluster.apply("again", json!({})).await;
        cluster.eventually("it says for whom it waits", async || cluster.phase("again").1.contains("cp-1 (")).await;
        let (phase, message) = cluster.phase("again");
        assert_eq!(phase, Phase::Pending, "{message}");
        assert!(
            message.contains("still at work for an update that is over: cp-1 (kubeadm-upgrade-apply)"),
            "{message}"
        );
        let has_run = || cluster.update("again").unwrap().status.unwrap().run.is_some();
        while at_work() {
            assert!(!has_run(), "it began while kubeadm was at work");
            cluster.pass(10).await;
        }
        let (phase, message) = cluster.at_rest("again").await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        cluster.is_left_alone("after both").await;
    });
}

#[test]
fn an_order_of_an_update_that_is_over_is_given_up_by_deleting_its_nodetask() {
    in_cluster(1, false, async |cluster| {
        cluster.apply(UPDATE, json!({"nodeTimeout": "10m"})).await;
        cluster.eventually("w-1 is at work", async || cluster.task("w-1").claimed().is_some()).await;
        // The machine is gone, as far as anybody can tell.
        cluster.world.lose_agent("w-1");
        cluster.cancel().await;
        cluster.eventually("the update is over", async || cluster.phase(UPDATE).0 == Phase::Cancelled).await;
        cluster.apply("again", json!({})).await;
        let says = "kubectl delete nodetask w-1";
        cluster.eventually("it names the way out", async || cluster.phase("again").1.contains(says)).await;
        let tasks: Api<NodeTask> = Api::all(cluster.client.clone());
        cluster.ask(async || tasks.delete("w-1", &DeleteParams::default()).await.map(drop)).await;
        let goes_on = async || !cluster.phase("again").1.contains("still at work");
        cluster.eventually("nobody is waited for any more", goes_on).await;
        assert!(cluster.task("w-1").spec.order.is_none(), "the node has a mailbox again, an empty one");
    });
}

#[test]
fn no_update_begins_beside_a_machine_whose_nodetask_was_deleted_while_it_was_at_work() {
    in_cluster(1, false, async |cluster| {
        cluster.world.machine("cp-1").unwrap().slow_kubeadm(TimeDelta::minutes(25));
        cluster.apply(UPDATE, json!({"nodeTimeout": "10m"})).await;
        let begun = async || cluster.world.effects().iter().any(|effect| effect.name.kind == EffectKind::Kubeadm);
        cluster.eventually("kubeadm has begun", begun).await;
        let since = cluster.world.now();
        cluster.cancel().await;
        cluster.eventually("the update is over", async || cluster.phase(UPDATE).0 == Phase::Cancelled).await;
        cluster.world.machine("cp-1").unwrap().slow_kubeadm(TimeDelta::zero());
        let tasks: Api<NodeTask> = Api::all(cluster.client.clone());
        cluster.ask(async || tasks.delete("cp-1", &DeleteParams::default()).await.map(drop)).await;
        cluster.apply("again", json!({})).await;
        let says = "nobody knows any more; asked to stop";
        let told = || cluster.task("cp-1").status.and_then(|status| status.message).unwrap_or_default();
        cluster.eventually("the machine says what it is at", async || told().contains(says)).await;
        let has_run = || cluster.update("again").unwrap().status.unwrap_or_default().run.is_some();
        while !has_run() {
            assert!((cluster.world.now() - since).num_hours() < 2, "it never begins: {}", cluster.phase("again").1);
            cluster.pass(30).await;
        }
        let minutes = (cluster.world.now() - since).num_minutes();
        assert!(minutes >= 25, "it began {minutes} minutes after kubeadm, which takes 25");
        let (phase, message) = cluster.at_rest("again").await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        cluster.is_left_alone("after both").await;
    });
}

#[test]
fn a_pause_is_a_condition_and_tells_the_command_that_ends_it() {
    in_cluster(1, false, async |cluster| {
        let paused = || {
            let status = cluster.update(UPDATE).unwrap().status.unwrap();
            let run = cluster.all::<UpgradeRun>(GROUP, "upgraderuns").remove(0).status.unwrap();
            let of = |all: &[Condition]| conditions::get(all, conditions::PAUSED).map(|paused| paused.status);
            (of(&status.conditions), of(&run.conditions))
        };
        cluster.apply(UPDATE, json!({})).await;
        cluster.eventually("it runs", async || cluster.phase(UPDATE).0 == Phase::InProgress).await;
        assert_eq!(paused(), (None, None), "nobody ever held it");
        let ask = |pause: Value| json!({"spec": {"control": {"pause": pause}}});
        cluster.patch(UPDATE, ask(json!({"requestId": "pause-1", "reason": "CHG-4711"}))).await;
        cluster.pass(60).await;
        assert_eq!(paused(), (Some(ConditionStatus::True), Some(ConditionStatus::True)));
        let (_, message) = cluster.phase(UPDATE);
        assert!(message.contains("CHG-4711") && message.contains("kubectl cupcake resume to-1-34"), "{message}");
        cluster.patch(UPDATE, ask(Value::Null)).await;
        assert_eq!(cluster.at_rest(UPDATE).await.0, Phase::Succeeded);
        assert_eq!(paused(), (Some(ConditionStatus::False), Some(ConditionStatus::False)));
    });
}

#[test]
fn a_paused_update_can_be_deleted() {
    in_cluster(2, true, async |cluster| {
        cluster.apply(UPDATE, json!({})).await;
        cluster.pass(280).await;
        let paused = json!({"metadata": {"annotations": {"cupcake.ricardomolendijk.com/paused": "true"}}});
        cluster.patch(UPDATE, paused).await;
        cluster.pass(600).await;
        cluster.delete(UPDATE).await;
        cluster.eventually("the update is gone", async || cluster.update(UPDATE).is_none()).await;
        cluster.is_left_alone("deleted while paused").await;
    });
}

#[test]
fn nodes_of_a_run_that_somebody_deleted_are_given_back() {
    in_cluster(2, true, async |cluster| {
        cluster.apply(UPDATE, json!({})).await;
        cluster.eventually("a worker is cordoned", async || cluster.is_cordoned("w-1")).await;
        let runs: Api<UpgradeRun> = Api::all(cluster.client.clone());
        let root = cluster.update(UPDATE).unwrap().status.unwrap().run.unwrap();
        cluster.ask(async || runs.delete(&root, &DeleteParams::default()).await.map(drop)).await;
        cluster.eventually("the update says so", async || cluster.phase(UPDATE).1.contains("was deleted")).await;
        cluster.is_left_alone("after its run was deleted").await;
    });
}

#[test]
fn of_two_updates_one_waits_by_name_and_follows() {
    in_cluster(2, true, async |cluster| {
        cluster.apply("first", json!({})).await;
        cluster.apply("second", json!({})).await;
        cluster.pass(60).await;
        let (phase, message) = cluster.phase("second");
        assert_eq!(phase, Phase::Pending);
        assert!(message.contains("waits for DirectUpdate first"), "{message}");
        assert_eq!(cluster.at_rest("first").await.0, Phase::Succeeded);
        let (phase, message) = cluster.at_rest("second").await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        assert!(message.contains("1.34.4"), "{message}");
    });
}

#[test]
fn two_updates_that_were_refused_for_one_reason_do_not_start_together_when_it_goes_away() {
    in_cluster(3, true, async |cluster| {
        let nodes: Api<Node> = Api::all(cluster.client.clone());
        let newer = json!({"status": {"nodeInfo": {"kubeletVersion": "v1.36.0"}}});
        let older = json!({"status": {"nodeInfo": {"kubeletVersion": "v1.33.4"}}});
        let say = async |version| {
            let patch = Patch::Merge(version);
            cluster.ask(async || nodes.patch_status("w-3", &PatchParams::default(), &patch).await).await;
        };
        say(newer).await;
        for name in ["one", "two"] {
            cluster.apply(name, json!({})).await;
            let (phase, message) = cluster.at_rest(name).await;
            assert_eq!(phase, Phase::Pending, "{message}");
            assert!(message.contains("w-3"), "{message}");
        }
        say(older).await;
        cluster
            .eventually("both have come to their end", async || {
                let open = cluster.all::<UpgradeRun>(GROUP, "upgraderuns").into_iter().filter(|run| {
                    let phase = run.status.as_ref().and_then(|status| status.phase);
                    run.spec.parent.is_none() && !phase.is_some_and(Phase::is_final)
                });
                assert!(open.count() <= 1, "two root runs at once");
                let ended = [cluster.phase("one").0, cluster.phase("two").0];
                ended == [Phase::Succeeded, Phase::Succeeded]
            })
            .await;
    });
}

#[test]
fn a_higher_concurrency_reaches_a_batch_that_is_open() {
    in_cluster(6, false, async |cluster| {
        cluster.apply(UPDATE, json!({"concurrency": 1})).await;
        cluster.eventually("a worker is cordoned", async || cluster.is_cordoned("w-1")).await;
        cluster.patch(UPDATE, json!({"spec": {"concurrency": 3}})).await;
        let mut most = 0;
        cluster
            .eventually("the update has ended", async || {
                most = most.max(cluster.cordoned().len());
                cluster.phase(UPDATE).0 == Phase::Succeeded
            })
            .await;
        assert_eq!(most, 3);
    });
}

#[test]
fn a_mark_that_outlived_its_cordon_is_taken_off_and_a_persons_cordon_stays() {
    in_cluster(3, true, async |cluster| {
        let nodes: Api<Node> = Api::all(cluster.client.clone());
        let patch = async |name: &'static str, patch: Value| {
            let patch = Patch::Merge(patch);
            cluster.ask(async || nodes.patch(name, &PatchParams::default(), &patch).await).await;
        };
        let mark = json!({
            "cupcake.ricardomolendijk.com/cordoned-by": "a-run-long-gone",
            "cupcake.ricardomolendijk.com/cordoned-at": "2026-01-01T00:00:00Z",
        });
        patch("w-1", json!({"metadata": {"annotations": mark}})).await;
        patch("w-2", json!({"metadata": {"annotations": mark}, "spec": {"unschedulable": true}})).await;
        cluster.pass(30).await;
        let annotations = |name: &str| {
            let node = cluster.all::<Node>("", "nodes").into_iter().find(|node| node.name_any() == name).unwrap();
            node.metadata.annotations.unwrap_or_default()
        };
        assert!(!annotations("w-1").keys().any(|key| key.contains("cordoned")), "{:?}", annotations("w-1"));
        assert!(!cluster.is_cordoned("w-2"), "a run that is gone keeps no node");
        patch("w-1", json!({"spec": {"unschedulable": true}})).await;
        cluster.apply(UPDATE, json!({})).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        assert_eq!(cluster.cordoned(), ["w-1"], "what a person cordoned stays so");
    });
}

#[test]
fn a_wave_that_is_refused_when_it_opens_waits_says_why_and_goes_on_when_it_can() {
    in_cluster(2, true, async |cluster| {
        cluster.apply(UPDATE, json!({})).await;
        cluster.pass(60).await;
        let nodes: Api<Node> = Api::all(cluster.client.clone());
        let stranger: Node = serde_json::from_value(json!({"metadata": {"name": "stranger"}})).unwrap();
        cluster.ask(async || nodes.create(&PostParams::default(), &stranger).await).await;
        cluster
            .eventually("it says why the workers wait", async || {
                let message = cluster.phase(UPDATE).1;
                message.contains("WaveRefused") && message.contains("stranger")
            })
            .await;
        cluster.ask(async || nodes.delete("stranger", &DeleteParams::default()).await.map(drop)).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
    });
}

#[test]
fn long_names_work_or_are_refused_with_the_length_that_does() {
    in_cluster(1, true, async |cluster| {
        let name = "n".repeat(171);
        cluster.apply(&name, json!({})).await;
        let (phase, message) = cluster.at_rest(&name).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        let name = "n".repeat(200);
        cluster.apply(&name, json!({})).await;
        let (phase, message) = cluster.at_rest(&name).await;
        assert_eq!(phase, Phase::Pending);
        assert!(message.contains("at most 171 characters"), "{message}");
    });
}

#[test]
fn a_root_run_that_a_stale_leader_created_waits_until_the_cluster_is_free() {
    in_cluster(2, true, async |cluster| {
        cluster.apply("first", json!({})).await;
        cluster.pass(100).await;
        let runs: Api<UpgradeRun> = Api::all(cluster.client.clone());
        let mut second = cluster.all::<UpgradeRun>(GROUP, "upgraderuns").into_iter().next().unwrap();
        second.metadata = kube::api::ObjectMeta { name: Some("second".into()), ..Default::default() };
        second.status = None;
        // Its update is still waiting, as it was when the stale leader looked.
        cluster.apply("second", json!({})).await;
        let uid = cluster.update("second").unwrap().uid().unwrap();
        (second.spec.direct_update.name, second.spec.direct_update.uid) = ("second".into(), uid);
        cluster.ask(async || runs.create(&PostParams::default(), &second).await).await;
        let run = || {
            let all = cluster.all::<UpgradeRun>(GROUP, "upgraderuns").into_iter();
            all.filter(|run| run.name_any() == "second").map(|run| run.status.unwrap_or_default()).next().unwrap()
        };
        let mut reasons = std::collections::BTreeSet::new();
        while !cluster.phase("first").0.is_final() {
            assert!(run().cursor.is_none(), "it began beside the first: {:?}", run().events);
            reasons.extend(run().reason);
            cluster.pass(5).await;
        }
        assert_eq!(reasons.into_iter().collect::<Vec<_>>(), ["WaitingForCluster"]);
        cluster.eventually("it has its turn", async || run().cursor.is_some()).await;
    });
}

#[test]
fn a_lease_that_somebody_deleted_costs_no_run_its_leader() {
    in_cluster(2, true, async |cluster| {
        cluster.apply(UPDATE, json!({})).await;
        let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), "kube-system");
        for _ in 0..4 {
            cluster.pass(45).await;
            cluster.ask(async || leases.delete("cupcake-operator", &DeleteParams::default()).await.map(drop)).await;
        }
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        cluster.nothing_was_done_twice("with its lease deleted");
    });
}

#[test]
fn a_leader_that_meets_a_greater_epoch_which_nobody_leads_under_goes_above_it() {
    in_cluster(2, true, async |cluster| {
        cluster.apply(UPDATE, json!({})).await;
        cluster.eventually("a run", async || !cluster.all::<UpgradeRun>(GROUP, "upgraderuns").is_empty()).await;
        cluster.pass(30).await;
        let run = cluster.all::<UpgradeRun>(GROUP, "upgraderuns")[0].name_any();
        let runs: Api<UpgradeRun> = Api::all(cluster.client.clone());
        // As after a Lease that was restored from an older backup than the runs.
        let patch = Patch::Merge(json!({"status": {"epoch": 40}}));
        cluster.ask(async || runs.patch_status(&run, &PatchParams::default(), &patch).await).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        let epoch = |name: &str| {
            let all = cluster.all::<UpgradeRun>(GROUP, "upgraderuns");
            all.into_iter().find(|run| run.name_any() == name).unwrap().status.unwrap().epoch
        };
        // Forty-one, and more where the API was away for longer than a lease.
        assert!(epoch(&run) > Some(40), "{:?}", epoch(&run));
        let lease = &cluster.all::<Lease>("coordination.k8s.io", "leases")[0];
        let taken = lease.spec.as_ref().unwrap().lease_transitions;
        assert!(taken < Some(10), "in one step, not in forty: {taken:?}");
        cluster.nothing_was_done_twice("with an epoch that nobody took");
    });
}

#[test]
fn an_update_whose_change_the_watch_lost_still_comes_to_its_end() {
    in_cluster(2, true, async |cluster| {
        cluster.apply(UPDATE, json!({})).await;
        // The wave and its batch stand beside the root: the API server is not restarted any more, so no watch comes back for it.
        cluster.eventually("a batch", async || cluster.all::<UpgradeRun>(GROUP, "upgraderuns").len() > 2).await;
        let server = cluster.world.server();
        server.hold_watches(true);
        cluster.patch(UPDATE, json!({"metadata": {"annotations": {"example.com/note": "seen by nobody"}}})).await;
        server.lose_held_events();
        server.hold_watches(false);
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
    });
}

#[test]
fn a_run_whose_record_was_damaged_stops_says_so_and_leaves_the_rest_to_a_person() {
    in_cluster(2, true, async |cluster| {
        cluster.apply(UPDATE, json!({})).await;
        let runs: Api<UpgradeRun> = Api::all(cluster.client.clone());
        let root = || cluster.all::<UpgradeRun>(GROUP, "upgraderuns").into_iter().next().unwrap();
        cluster
            .eventually(
                "the control plane is being upgraded",
                async || matches!(cluster.phase(UPDATE), (Phase::InProgress, message) if message.contains("cp-1")),
            )
            .await;
        let name = root().name_any();
        let damaged = Patch::Merge(json!({"status": {"cursor": "{\"format\":1,\"states\":\"s.0.6 ?\"}"}}));
        cluster.ask(async || runs.patch_status(&name, &PatchParams::default(), &damaged).await).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::RequiresAttention, "{message}");
        assert!(message.contains("cursor"), "it says what is wrong: {message}");
        let run = root().status.unwrap();
        assert_eq!(run.reason.as_deref(), Some("RunCorrupt"), "{:?}", run.message);
        let before = cluster.effects();
        cluster.pass(QUIET_SECONDS).await;
        assert!(cluster.effects() <= before + 3, "only the order under way came to its end");
        cluster.nothing_was_done_twice("after the damage");
    });
}
