//! `spec.dryRun`: the plan, the checks and what would be done on each node, and nothing is changed anywhere.
//!
//! Everything runs in a sandbox on paused time.

use crate::cluster::{Cluster, UPDATE, in_cluster, in_world};
use cupcake_crds::values::{KubeVersion, Phase};
use cupcake_crds::{DirectUpdateStatus, GROUP, NodeTask};
use cupcake_engine::clock::Timestamp;
use cupcake_sandbox::machine::fault::Stream;
use cupcake_sandbox::world::WorldConfig;
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const DRY: &str = "dry";

fn status(cluster: &Cluster, name: &str) -> DirectUpdateStatus {
    cluster.update(name).unwrap().status.unwrap_or_default()
}

/// Every object but the dry run itself and what is told of it; without what a kubelet and a leader say to be alive.
fn objects(cluster: &Cluster) -> BTreeMap<String, Value> {
    let mut objects = BTreeMap::new();
    for (name, bytes) in cluster.world.server().snapshot() {
        let mut object: Value = serde_json::from_slice(&bytes).unwrap();
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        let is_told = kind == "Event" && object["involvedObject"]["name"] == DRY;
        let is_itself = kind == "DirectUpdate" && object["metadata"]["name"] == DRY;
        if is_told || is_itself || kind == "Lease" {
            continue;
        }
        if kind == "Node" {
            object["metadata"]["resourceVersion"].take();
            object["metadata"]["managedFields"].take();
            for condition in object["status"]["conditions"].as_array_mut().into_iter().flatten() {
                condition["lastHeartbeatTime"].take();
            }
        }
        objects.insert(name, object);
    }
    objects
}

/// What is on each machine, and all that was ever done there.
fn machines(cluster: &Cluster) -> Vec<String> {
    let contents = cluster.world.machines().map(|machine| machine.contents());
    contents.chain([format!("{:?}", cluster.world.effects())]).collect()
}

/// Writes so far of operator, agents and runners, but for Leases and Events.
fn writes(cluster: &Cluster) -> [u64; 3] {
    [Stream::Operator, Stream::Agent, Stream::Runner].map(|stream| cluster.world.faults().counted(stream))
}

#[test]
fn a_dry_run_tells_plan_checks_and_commands_and_changes_no_object_and_no_machine() {
    in_cluster(3, false, async |cluster| {
        // So long that an update that is meant would ask the machines anew.
        cluster.pass(3_600).await;
        let (before, machines_before, writes_before) = (objects(cluster), machines(cluster), writes(cluster));
        assert!(before.len() > 20, "{:?}", before.keys());
        cluster.apply(DRY, json!({"dryRun": true})).await;
        let (phase, message) = cluster.at_rest(DRY).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        assert!(message.starts_with("dry run: 4 nodes would move to 1.34.4; nothing was changed"), "{message}");
        cluster.pass(3_600).await;
        assert_eq!(machines(cluster), machines_before);
        let after = objects(cluster);
        let names = |objects: &BTreeMap<String, Value>| objects.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(names(&after), names(&before));
        for (name, object) in &after {
            assert_eq!(object, &before[name], "{name}");
        }
        let [operator, agents, runners] = writes_before;
        assert_eq!(writes(cluster), [operator + 1, agents, runners], "its own status alone");
        let told = status(cluster, DRY);
        assert!(told.graph[0].starts_with("1.33.4 to 1.34.4: 4 nodes"), "{:?}", told.graph);
        assert!(told.preflight_results.is_some_and(|results| results.passed && results.checks.len() == 17));
        assert_eq!((told.run, told.plan, told.completed_at.is_some()), (None, None, true));
        assert!(cluster.update(DRY).unwrap().finalizers().is_empty(), "it can be deleted at once");
        let nodes: Vec<_> = told.commands.iter().map(|alike| (alike.nodes.clone(), alike.count)).collect();
        let of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let cp = (of(&["cp-1"]), 1);
        assert_eq!(nodes, [cp.clone(), cp.clone(), cp, (of(&["w-1", "w-2", "w-3"]), 3)]);
    });
}

#[test]
fn a_dry_run_that_is_refused_changes_nothing_either_and_tells_its_plan_once_nothing_stands_in_the_way() {
    in_cluster(2, false, async |cluster| {
        cluster.pass(120).await;
        let budgets = cluster.freeze().await;
        cluster.world.machine("w-2").unwrap().change_by_hand("kubelet: maxPods: 50");
        cluster.pass(3_600).await;
        let (before, machines_before, writes_before) = (objects(cluster), machines(cluster), writes(cluster));
        cluster.apply(DRY, json!({"dryRun": true})).await;
        let (phase, message) = cluster.at_rest(DRY).await;
        assert!(phase == Phase::Pending && message.contains("DisruptionBudget"), "{phase}: {message}");
        cluster.pass(900).await;
        assert_eq!((objects(cluster) == before, machines(cluster) == machines_before), (true, true));
        assert_eq!(writes(cluster)[1..], writes_before[1..], "no machine was asked anything");
        assert_eq!(status(cluster, DRY).commands, []);
        cluster.ask(async || budgets.delete("frozen", &DeleteParams::default()).await.map(drop)).await;
        cluster.eventually("it is told", async || cluster.phase(DRY).0 == Phase::Succeeded).await;
        assert_eq!(status(cluster, DRY).commands.last().map(|alike| alike.count), Some(2));
    });
}

/// The steps that a machine was ordered to do, order by order.
fn ordered(task: &NodeTask) -> Option<(String, Vec<String>)> {
    let order = task.spec.order.as_ref()?;
    let steps = order.prepare.iter().chain(&order.finish).map(|step| step.name.clone());
    Some((format!("{:?}", order.key), steps.collect()))
}

#[test]
fn what_a_dry_run_tells_of_each_node_is_what_the_update_then_orders_there() {
    in_cluster(3, false, async |cluster| {
        let spec = json!({"targetVersion": "1.35.4", "concurrency": 2, "components": ["kubeadm", "kubelet"]});
        let mut dry = spec.clone();
        dry["dryRun"] = json!(true);
        cluster.pass(60).await;
        cluster.apply(DRY, dry).await;
        assert_eq!(cluster.at_rest(DRY).await.0, Phase::Succeeded);
        let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for alike in status(cluster, DRY).commands {
            // What is done to the Node is no matter of its machine.
            let steps = alike.commands.iter().map(|command| command.split(':').next().unwrap().to_owned());
            let steps: Vec<String> =
                steps.filter(|step| !["drain", "kubelet", "uncordon"].contains(&step.as_str())).collect();
            for node in &alike.nodes {
                told.entry(node.clone()).or_default().extend(steps.clone());
            }
        }
        cluster.apply(UPDATE, spec).await;
        let (mut done, mut seen) = (BTreeMap::<String, Vec<String>>::new(), BTreeSet::new());
        cluster
            .eventually("it has ended", async || {
                for task in cluster.all::<NodeTask>(GROUP, "nodetasks") {
                    if let Some((key, steps)) = ordered(&task).filter(|(key, _)| seen.insert(key.clone())) {
                        let again = done.entry(task.name_any()).or_default();
                        again.extend(steps);
                        assert!(!key.is_empty());
                    }
                }
                cluster.phase(UPDATE).0 == Phase::Succeeded
            })
            .await;
        assert_eq!(done, told);
        assert!(told["w-3"].iter().all(|step| !step.contains("kubectl")) && told["cp-1"].len() > 10, "{told:?}");
    });
}

#[test]
fn what_a_dry_run_of_a_large_cluster_tells_is_bounded() {
    let start = Timestamp::from_timestamp(1_790_000_000, 0).unwrap();
    let config = WorldConfig { workers: 300, budget: false, ..WorldConfig::new(KubeVersion::new(1, 27, 16), start) };
    in_world(config, async |cluster| {
        cluster.pass(30).await;
        cluster.apply(DRY, json!({"targetVersion": "1.36.3", "dryRun": true})).await;
        let (phase, message) = cluster.at_rest(DRY).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        let told = status(cluster, DRY);
        let workers = told.commands.iter().find(|alike| alike.count == 300).unwrap();
        assert_eq!((workers.nodes.len(), told.commands.len()), (8, 32));
        let bytes = serde_json::to_vec(&told).unwrap().len();
        assert!(bytes < 32_000, "{bytes} bytes");
    });
}
