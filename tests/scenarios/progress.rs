//! How far an update has come, as its status tells it at each moment: times, counts, each node in each of its phases, and its end.
//!
//! Everything runs in a sandbox on paused time, and is looked at each second of it.

use crate::cluster::{Cluster, UPDATE, in_cluster};
use chrono::TimeDelta;
use cupcake_crds::direct_update::{NodePhase, NodeProgress, Summary};
use cupcake_crds::scheduled_update::ScheduledPhase;
use cupcake_crds::values::Phase;
use cupcake_crds::{DirectUpdateStatus, GROUP, ScheduledUpdate, UpgradeRun};
use cupcake_engine::clock::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// How long a write may be on its way, in seconds.
const WRITE_SECONDS_MAX: i64 = 2;

fn status(cluster: &Cluster) -> DirectUpdateStatus {
    cluster.update(UPDATE).unwrap().status.unwrap_or_default()
}

fn is_in_flight(phase: NodePhase) -> bool {
    matches!(phase, NodePhase::Draining | NodePhase::Upgrading | NodePhase::Verifying | NodePhase::Uncordoning)
}

/// How many of the nodes that are named stand where.
fn counted<'n>(nodes: impl IntoIterator<Item = &'n NodeProgress>) -> Summary {
    let mut summary = Summary::default();
    for node in nodes {
        summary.total += 1;
        match node.phase {
            NodePhase::Pending => summary.pending += 1,
            NodePhase::Completed => summary.completed += 1,
            NodePhase::Failed => summary.failed += 1,
            phase if is_in_flight(phase) => summary.upgrading += 1,
            phase => panic!("{phase:?} is counted nowhere"),
        }
    }
    summary
}

/// Times that an update has told, which have to stay as they are.
#[derive(Default)]
struct Times {
    started: Option<Timestamp>,
    nodes: BTreeMap<String, Timestamp>,
}

impl Times {
    /// What is told now agrees with what was told before.
    fn agree(&mut self, now: &DirectUpdateStatus) {
        assert!(self.started.is_none() || now.started_at == self.started, "startedAt moved: {:?}", now.started_at);
        self.started = now.started_at;
        assert_eq!(now.started_at.is_some(), now.phase.is_some_and(|phase| phase != Phase::Pending), "{now:?}");
        for (name, node) in &now.nodes {
            assert_eq!(node.started_at.is_some(), node.phase != NodePhase::Pending, "{name}: {node:?}");
            // A control-plane node is visited twice, and begun anew then.
            let began = self.nodes.get(name).copied().filter(|_| name.starts_with("w-"));
            assert!(began.is_none() || node.started_at == began, "{name} began at {began:?}: {node:?}");
            self.nodes.extend(node.started_at.map(|at| (name.clone(), at)));
            assert_eq!(node.completed_at.is_some(), node.phase == NodePhase::Completed, "{name}: {node:?}");
            assert!(node.completed_at.is_none() || node.completed_at > node.started_at, "{name}: {node:?}");
        }
    }
}

#[test]
fn each_node_is_told_in_each_of_its_phases_times_stay_once_told_and_the_counts_are_those_of_the_nodes() {
    use NodePhase::{Completed, Draining, Pending, Uncordoning, Upgrading};
    in_cluster(3, true, async |cluster| {
        cluster.apply(UPDATE, json!({})).await;
        let mut times = Times::default();
        let mut phases = BTreeSet::new();
        let (mut before, mut looked) = (DirectUpdateStatus::default(), cluster.world.now());
        cluster
            .eventually("it has ended", async || {
                let now = status(cluster);
                let timeless =
                    |status: &DirectUpdateStatus| DirectUpdateStatus { last_updated: None, ..status.clone() };
                if timeless(&now) == timeless(&before) {
                    assert_eq!(now.last_updated, before.last_updated, "nothing changed");
                } else {
                    let updated = now.last_updated.unwrap();
                    let earliest = looked - TimeDelta::seconds(WRITE_SECONDS_MAX);
                    assert!((earliest..=cluster.world.now()).contains(&updated), "changed after {looked}: {updated}");
                }
                times.agree(&now);
                if now.run.is_some() && now.started_at.is_some() {
                    let summary = now.summary.unwrap();
                    assert_eq!((summary, summary.total), (counted(now.nodes.values()), 4), "{:?}", now.nodes);
                    let progress = format!("{}/{}", summary.completed, summary.total);
                    assert_eq!(now.progress.as_deref(), Some(progress.as_str()));
                }
                phases.extend(now.nodes.values().map(|node| node.phase));
                assert_eq!(now.completed_at.is_some(), now.phase.is_some_and(Phase::is_final), "{now:?}");
                (before, looked) = (now, cluster.world.now());
                before.phase.is_some_and(Phase::is_final)
            })
            .await;
        // A node that is not Ready at once would be Verifying, too.
        let long = BTreeSet::from([Pending, Draining, Upgrading, Uncordoning, Completed]);
        assert!(phases.is_superset(&long) && !phases.contains(&NodePhase::Failed), "{phases:?}");
        assert_eq!(before.phase, Some(Phase::Succeeded), "{:?}", before.message);
        let end = before.completed_at.unwrap();
        assert!(looked - end <= TimeDelta::seconds(WRITE_SECONDS_MAX), "{end}, seen at {looked}");
        assert!(before.nodes.values().all(|node| node.completed_at <= Some(end)), "{:?}", before.nodes);
        cluster.pass(900).await;
        assert_eq!(status(cluster), before, "what is over stays as it was told");
    });
}

#[test]
fn a_machine_that_fails_is_counted_and_told_with_step_and_error_and_a_cancel_is_an_end_that_is_counted() {
    in_cluster(3, false, async |cluster| {
        cluster.world.machine("w-1").unwrap().let_kubelet_crash();
        cluster.apply(UPDATE, json!({})).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::RequiresAttention, "{message}");
        let rests = status(cluster);
        let summary = Summary { completed: 1, failed: 1, pending: 2, total: 4, upgrading: 0 };
        assert_eq!((rests.summary, rests.progress.as_deref()), (Some(summary), Some("1/4")));
        let failed = &rests.nodes["w-1"];
        assert_eq!((failed.phase, failed.last_step.as_deref()), (NodePhase::Failed, Some("restart-kubelet")));
        assert!(failed.error.as_ref().is_some_and(|error| error.contains("journalctl -u kubelet")), "{failed:?}");
        assert!(failed.started_at.is_some() && failed.completed_at.is_none(), "{failed:?}");
        assert!(rests.nodes.iter().all(|(name, node)| name == "w-1" || node.error.is_none()), "{:?}", rests.nodes);
        assert_eq!(rests.completed_at, None, "it rests, and is not over");
        let operation = rests.operation_id.clone().unwrap();
        let counts = |series: &str| {
            let text = cluster.metrics.text();
            let line = text.lines().find(|line| line.starts_with(series)).map(str::to_owned);
            line.and_then(|line| line.split(" # ").next()?.rsplit(' ').next()?.parse::<f64>().ok())
        };
        let nodes =
            |of: &str| counts(&format!("upgrade_operation_nodes{{operation_id=\"{operation}\",status=\"{of}\"}}"));
        assert_eq!(["failed", "completed", "pending"].map(nodes), [1.0, 1.0, 2.0].map(Some));
        let ended = |phase: &str| counts(&format!("upgrade_operations_total{{phase=\"{phase}\"}}"));
        assert_eq!(["Cancelled", "Failed", "Succeeded"].map(ended), [Some(0.0); 3]);

        cluster.pass(60).await;
        cluster.cancel().await;
        cluster.eventually("it is cancelled", async || cluster.phase(UPDATE).0 == Phase::Cancelled).await;
        cluster.pass(60).await;
        let over = status(cluster);
        assert!(over.completed_at > rests.last_updated, "{:?}", over.completed_at);
        assert_eq!(["Cancelled", "Failed", "Succeeded"].map(ended), [1.0, 0.0, 0.0].map(Some));
        cluster.pass(900).await;
        assert_eq!(status(cluster), over, "and stays so");
    });
}

#[test]
fn of_many_nodes_those_that_failed_or_are_in_flight_are_named_first_and_64_at_the_most() {
    in_cluster(70, false, async |cluster| {
        // The last one by name.
        cluster.world.machine("w-70").unwrap().let_kubelet_crash();
        cluster.apply(UPDATE, json!({"strategy": "parallel", "batchSize": 70})).await;
        let mut most = 0;
        cluster
            .eventually("it rests", async || {
                let now = status(cluster);
                let summary = now.summary.unwrap_or_default();
                let urgent = usize::try_from(summary.upgrading + summary.failed).unwrap();
                if now.started_at.is_some() {
                    assert_eq!((summary.total, now.nodes.len()), (71, urgent.clamp(30, 64)), "{summary:?}");
                    let named = counted(now.nodes.values());
                    assert_eq!(usize::try_from(named.upgrading + named.failed).unwrap(), urgent.min(64), "{named:?}");
                    assert_eq!(named.failed, summary.failed);
                }
                most = most.max(urgent);
                now.phase == Some(Phase::RequiresAttention)
            })
            .await;
        assert!(most > 64, "only {most} at once");
        let rests = status(cluster);
        assert_eq!(rests.summary.map(|summary| (summary.completed, summary.failed)), Some((70, 1)));
        assert_eq!(rests.nodes["w-70"].phase, NodePhase::Failed);
    });
}

/// Nothing of this release lets an update end so: what fails rests. What is written so all the same is shown everywhere.
#[test]
fn an_update_whose_run_has_failed_is_failed_and_so_is_its_schedule_and_it_is_counted() {
    in_cluster(1, false, async |cluster| {
        let at = cluster.world.now() + TimeDelta::seconds(30);
        let spec = json!({"targetVersion": "1.34.4", "scheduleAt": at.to_rfc3339()});
        let scheduled = ScheduledUpdate::new(UPDATE, serde_json::from_value(spec).unwrap());
        let api: Api<ScheduledUpdate> = Api::all(cluster.client.clone());
        cluster.ask(async || api.create(&PostParams::default(), &scheduled).await).await;
        let begun = || cluster.update(UPDATE).is_some() && cluster.phase(UPDATE).0 == Phase::InProgress;
        cluster.eventually("it begins", async || begun()).await;
        // So that nothing else is written to the run.
        cluster.patch(UPDATE, json!({"spec": {"control": {"pause": {"requestId": "pause-1"}}}})).await;
        cluster.pass(600).await;
        let run = cluster.all::<UpgradeRun>(GROUP, "upgraderuns").remove(0).name_any();
        let runs: Api<UpgradeRun> = Api::all(cluster.client.clone());
        let now = cluster.world.now().to_rfc3339();
        let failed = Patch::Merge(json!({"status": {"phase": "Failed", "completedAt": now}}));
        cluster.ask(async || runs.patch_status(&run, &PatchParams::default(), &failed).await).await;
        cluster.pass(60).await;
        let (phase, message) = cluster.phase(UPDATE);
        assert_eq!(phase, Phase::Failed, "{message}");
        assert!(status(cluster).completed_at.is_some());
        let told = cluster.all::<ScheduledUpdate>(GROUP, "scheduledupdates").remove(0).status.unwrap();
        assert_eq!(told.phase, Some(ScheduledPhase::Failed), "{told:?}");
        let start = format!("DirectUpdate {UPDATE}: Failed: ");
        assert!(told.message.as_ref().is_some_and(|message| message.starts_with(&start)), "{:?}", told.message);
        let text = cluster.metrics.text();
        assert!(text.contains("upgrade_operations_total{phase=\"Failed\"} 1"), "{text}");
        assert!(!text.contains("operation_id=\""), "it is under way no more: {text}");
    });
}
