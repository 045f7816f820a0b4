//! What an earlier release stored and left under way is brought to its end by this one: the runs of `tests/stored` are put back, as
//! the restore of an etcd snapshot does, into simulated clusters whose machines stand where the run says.
//!
//! Of a moment lie there an UpgradePlan and an UpgradeRun. What stood around them is made here, as that release would have had it:
//! the DirectUpdate, the Lease of its leader, an order that its node has worked on, a cordon.
#![expect(clippy::disallowed_methods, reason = "reads what earlier releases stored")]

use crate::stored::stored;
use chrono::TimeDelta;
use cupcake_crds::node_task::{Order, TaskState};
use cupcake_crds::values::{KubeVersion, NodeRef, NodeRole};
use cupcake_crds::{CORDONED_BY_ANNOTATION, GROUP, VERSION};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::codec::CURSOR_FORMAT;
use cupcake_engine::plan::PLAN_FORMAT;
use cupcake_host::memory::Memory;
use cupcake_host::{RunnerConfig, RunnerEnd};
use cupcake_operator::adapters::views::CORDONED_AT_ANNOTATION;
use cupcake_operator::lease::{EPOCH_ANNOTATION, LEASE_NAME};
use cupcake_sandbox::machine::SimHost;
use cupcake_sandbox::machine::disk::{DiskStore, SimDisk};
use cupcake_sandbox::machine::fault::{Component, FaultPlan, Life};
use cupcake_sandbox::machine::ledger::{EffectKind, EffectRecord, Ledger};
use cupcake_sandbox::machine::transcript::Transcript;
use cupcake_sandbox::world::{self, Speed, World, WorldConfig};
use cupcake_steps::mailbox::{MailOrder, Mailbox};
use cupcake_steps::ports::disk::{Disk, SharedDisk};
use cupcake_steps::ports::host::{HostOps, Images, KubeProxy, KubeadmUpgrade, MachinePorts, Package};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

const FROM: KubeVersion = KubeVersion::new(1, 33, 4);
const TO: KubeVersion = KubeVersion::new(1, 34, 4);
/// How long a run that was put back may take, in virtual seconds.
const SECONDS_MAX: i64 = 4 * 3_600;

fn formats() -> std::ops::RangeInclusive<u32> {
    1..=PLAN_FORMAT.max(CURSOR_FORMAT)
}

/// What was stored of a moment: the plan and the run.
fn moment(format: u32, name: &str) -> [Value; 2] {
    ["upgradeplan.json", "upgraderun.json"].map(|file| {
        let path = stored().join(format!("format-{format}/runs/{name}/{file}"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_str(&text).unwrap()
    })
}

/// A cluster that an earlier release was upgrading.
struct Cluster {
    world: World,
}

impl Cluster {
    /// Three control planes and two workers, of which those that the plan names have the UIDs that it names.
    fn of(plan: &Value) -> Self {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let config = WorldConfig { control_planes: 3, workers: 2, ..WorldConfig::new(FROM, start) };
        let cluster = Self { world: World::new(config).unwrap() };
        let mut named = BTreeMap::new();
        nodes_of(plan, &mut named);
        for (name, uid) in &named {
            cluster.take_uid(name, uid);
        }
        cluster.world.start();
        cluster
    }

    fn get(&self, group: &str, plural: &str, name: &str) -> Option<Value> {
        let namespace = if plural == "leases" { "kube-system" } else { "" };
        self.world.server().get(group, plural, namespace, name).map(|object| object.value().clone())
    }

    /// Gives a Node that UID, and what names it as its owner, too.
    fn take_uid(&self, name: &str, uid: &str) {
        let server = self.world.server();
        let mut node = self.get("", "nodes", name).unwrap();
        let before = node["metadata"]["uid"].as_str().unwrap().to_owned();
        node["metadata"]["uid"] = json!(uid);
        server.restore("", "nodes", node);
        for pod in server.list("", "pods") {
            let text = pod.value().to_string();
            if text.contains(&before) {
                server.restore("", "pods", serde_json::from_str(&text.replace(&before, uid)).unwrap());
            }
        }
    }

    fn restore(&self, group: &str, plural: &str, object: Value) {
        assert!(self.world.server().restore(group, plural, object), "{plural} are served");
    }

    fn host(&self, node: &str) -> SimHost {
        SimHost::new(Arc::clone(self.world.machine(node).unwrap()), Life::new(Component::Runner, node))
    }

    /// The machine did the first part of its order.
    async fn prepared(&self, node: &str, how: KubeadmUpgrade) {
        let host = self.host(node);
        host.switch_repository(TO.minor_version()).await.unwrap();
        host.install(&[Package::Kubeadm], &TO).await.unwrap();
        // Workers of that release pulled nothing beforehand.
        if self.world.machine(node).unwrap().role() == NodeRole::ControlPlane {
            host.pull_images(&Images::ControlPlane { version: TO }).await.unwrap();
        }
        host.kubeadm_upgrade(how, &TO, KubeProxy::Upgrade).await.unwrap();
    }

    /// The machine did the second part.
    async fn moved(&self, node: &str) {
        let host = self.host(node);
        host.install(&[Package::Kubelet, Package::Kubectl], &TO).await.unwrap();
        host.restart_kubelet().await.unwrap();
    }

    /// All control-plane nodes did both.
    async fn control_plane_moved(&self) {
        let upgrades =
            [("cp-1", KubeadmUpgrade::Apply), ("cp-2", KubeadmUpgrade::Node), ("cp-3", KubeadmUpgrade::Node)];
        for (node, how) in upgrades {
            self.prepared(node, how).await;
            self.moved(node).await;
        }
    }

    /// The leader of that release, whose last word this is: one of this release follows it once its lease is over.
    fn is_led_by_the_release_before(&self, epoch: u64) {
        let mut lease = self.get("coordination.k8s.io", "leases", LEASE_NAME).unwrap();
        lease["metadata"]["annotations"][EPOCH_ANNOTATION] = json!(epoch.to_string());
        lease["spec"]["holderIdentity"] = json!("cupcake-operator-of-before");
        let now = self.world.now().format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        lease["spec"]["renewTime"] = json!(now);
        lease["spec"]["acquireTime"] = json!(now);
        self.restore("coordination.k8s.io", "leases", lease);
    }

    async fn pass(&self, seconds: i64) {
        self.world.clock().sleep_until(self.world.now() + TimeDelta::seconds(seconds)).await;
    }

    /// Passes time until something shows.
    async fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let limit = self.world.now() + TimeDelta::seconds(SECONDS_MAX);
        while self.world.now() < limit {
            if let Some(found) = look() {
                return found;
            }
            self.pass(1).await;
        }
        panic!("never: {what}; {:#?}", self.world.server().list(GROUP, "upgraderuns"));
    }

    /// Every effect was begun once, before the release changed or after it.
    fn nothing_was_done_twice(&self) {
        let twice = |effect: &EffectRecord| effect.begun > 1;
        let twice: Vec<EffectRecord> = self.world.effects().into_iter().filter(twice).collect();
        assert!(twice.is_empty(), "{twice:?}");
    }

    fn nodes_are_at_the_target(&self) {
        for node in self.world.server().list("", "nodes") {
            let (node, name) = (node.value(), node.name());
            assert_eq!(node["status"]["nodeInfo"]["kubeletVersion"], TO.with_v(), "{name}");
            assert_ne!(node["spec"]["unschedulable"], json!(true), "{name}");
        }
    }
}

/// The nodes that a plan names, with the UIDs that it names.
fn nodes_of(value: &Value, found: &mut BTreeMap<String, String>) {
    let uid = value["uid"].as_str().or(value["values"]["uid"].as_str()).filter(|uid| !uid.starts_with('{'));
    if let (Some(name), Some(uid)) = (value["name"].as_str(), uid) {
        found.insert(name.to_owned(), uid.to_owned());
    }
    match value {
        Value::Object(fields) => fields.values().for_each(|field| nodes_of(field, found)),
        Value::Array(items) => items.iter().for_each(|item| nodes_of(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn an_update_that_any_format_left_in_its_control_plane_is_brought_to_its_end() {
    for format in formats() {
        let [plan, run] = moment(format, "control-plane");
        world::runtime(Speed::Fastest).unwrap().block_on(async {
            let cluster = Cluster::of(&plan["spec"]["plan"]);
            cluster.prepared("cp-1", KubeadmUpgrade::Apply).await;
            cluster.prepared("cp-2", KubeadmUpgrade::Node).await;
            cluster.is_led_by_the_release_before(run["status"]["epoch"].as_u64().unwrap());
            cluster.restore(GROUP, "directupdates", update_of(&run));
            cluster.restore(GROUP, "upgradeplans", plan);
            cluster.restore(GROUP, "upgraderuns", run);
            cluster.world.until_at_rest("upgrade").await;
            let update = cluster.get(GROUP, "directupdates", "upgrade").unwrap();
            assert_eq!(update["status"]["phase"], "Succeeded", "format {format}: {:#}", update["status"]);
            cluster.nodes_are_at_the_target();
            cluster.nothing_was_done_twice();
            let snapshots = cluster.world.effects().into_iter().filter(|one| one.name.kind == EffectKind::Snapshot);
            assert_eq!(
                snapshots.count(),
                0,
                "format {format}: the snapshot that the run has recorded is not taken again"
            );
        });
    }
}

#[test]
fn a_batch_that_any_format_left_in_a_drain_is_brought_to_its_end() {
    for format in formats() {
        let [plan, mut run] = moment(format, "batch");
        world::runtime(Speed::Fastest).unwrap().block_on(async {
            let cluster = Cluster::of(&plan["spec"]["plan"]);
            cluster.control_plane_moved().await;
            cluster.prepared("w-1", KubeadmUpgrade::Node).await;
            cluster.moved("w-1").await;
            cluster.pass(60).await;
            let epoch = run["status"]["epoch"].as_u64().unwrap();
            cluster.is_led_by_the_release_before(epoch);
            // Its parents were stored at another moment. So it stands alone: nobody collects it, and nobody begins its update anew.
            run["metadata"].as_object_mut().unwrap().remove("ownerReferences");
            let mut update = update_of(&run);
            update["status"] = json!({"phase": "Succeeded", "observedGeneration": 1});
            cluster.restore(GROUP, "directupdates", update);
            let (name, uid) = (run["metadata"]["name"].as_str().unwrap().to_owned(), run["metadata"]["uid"].clone());
            let mut node = cluster.get("", "nodes", "w-2").unwrap();
            node["spec"]["unschedulable"] = json!(true);
            node["metadata"]["annotations"][CORDONED_BY_ANNOTATION] = uid.clone();
            node["metadata"]["annotations"][CORDONED_AT_ANNOTATION] = json!("2026-01-01T00:12:13+00:00");
            cluster.restore("", "nodes", node);
            let mut task = cluster.get(GROUP, "nodetasks", "w-2").unwrap();
            task["spec"]["epoch"] = json!(epoch);
            task["spec"]["order"] =
                order_of(&plan["spec"]["plan"], "{item}/prepare", uid.as_str().unwrap(), "w-2/prepare", epoch);
            cluster.restore(GROUP, "upgradeplans", plan);
            cluster.restore(GROUP, "upgraderuns", run.clone());
            cluster.restore(GROUP, "nodetasks", task);
            let state = || cluster.get(GROUP, "nodetasks", "w-2").unwrap()["status"]["state"].clone();
            cluster.until("w-2 is prepared", || (state() == TaskState::Prepared.as_str()).then_some(())).await;
            let now = || cluster.get(GROUP, "upgraderuns", &name).unwrap();
            assert_eq!(now()["status"]["cursor"], run["status"]["cursor"], "nobody leads yet");
            let ended = cluster
                .until("the end of the batch", || {
                    now()["status"]["phase"].as_str().filter(|phase| *phase != "InProgress").map(str::to_owned)
                })
                .await;
            assert_eq!(ended, "Succeeded", "format {format}: {:#}", now()["status"]);
            assert!(now()["status"]["epoch"].as_u64() > Some(epoch), "a leader of this release did it");
            cluster.pass(60).await;
            cluster.nodes_are_at_the_target();
            cluster.nothing_was_done_twice();
        });
    }
}

/// The update that a run is of.
fn update_of(run: &Value) -> Value {
    let update = &run["spec"]["directUpdate"];
    json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "DirectUpdate",
        "metadata": {
            "name": update["name"], "uid": update["uid"], "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {"targetVersion": run["spec"]["targetVersion"]},
    })
}

/// The order that the vertex of a plan places.
fn order_of(plan: &Value, template: &str, run_uid: &str, vertex: &str, epoch: u64) -> Value {
    let vertices =
        plan["parts"].as_array().unwrap().iter().filter_map(|part| part["each"]["vertices"].as_array()).flatten();
    let params = &vertices.into_iter().find(|one| one["name"] == template).unwrap()["params"];
    json!({
        "deadlineSeconds": params["workSecondsMax"], "epoch": epoch, "finish": params["finish"], "prepare": params["prepare"],
        "key": {"runUid": run_uid, "vertex": vertex, "attempt": 1}, "targetVersion": params["targetVersion"],
        "proceed": false, "stop": false,
    })
}

#[test]
fn an_order_that_any_format_left_in_its_last_step_is_brought_to_its_end() {
    for format in formats() {
        world::runtime(Speed::Fastest).unwrap().block_on(async {
            let [plan, _] = moment(format, "batch");
            let cluster = Cluster::of(&plan["spec"]["plan"]);
            cluster.control_plane_moved().await;
            cluster.prepared("w-1", KubeadmUpgrade::Node).await;
            cluster.host("w-1").install(&[Package::Kubelet, Package::Kubectl], &TO).await.unwrap();
            let before = cluster.world.effects().len();
            let ledger = Ledger::new(cluster.world.clock(), Transcript::default());
            let life = Life::new(Component::Runner, "w-1");
            let disk = SimDisk::new("w-1", Arc::<DiskStore>::default(), life, FaultPlan::planned(&[]), ledger);
            let folder = stored().join(format!("format-{format}/runner"));
            for file in ["runner.json".into(), journal_in(&folder)] {
                disk.replace(&file, &std::fs::read(folder.join(&file)).unwrap()).await.unwrap();
            }
            let memory = Memory::read(&disk).await.unwrap().unwrap();
            let key = &memory.key;
            let order = order_of(&plan["spec"]["plan"], "{item}/prepare", &key.run_uid, &key.vertex, memory.epoch);
            let order = Order { proceed: true, ..serde_json::from_value(order).unwrap() };
            let node = NodeRef { name: "w-1".to_owned(), uid: "u".to_owned() };
            Mailbox::on(&disk).put_order(&MailOrder { node, order }).await.unwrap();
            let disk: SharedDisk = Arc::new(disk);
            let ports = MachinePorts { host: Arc::new(cluster.host("w-1")), disk };
            let config =
                RunnerConfig { ports, clock: cluster.world.clock(), node_name: Some("w-1".to_owned()), boot: None };
            let end = cupcake_host::run(config, CancellationToken::new()).await.unwrap();
            assert_eq!(end, RunnerEnd::Answered(TaskState::Done), "format {format}");
            let after = cluster.world.effects();
            assert_eq!(after.len(), before + 1, "the restart, and nothing of what was done: {after:?}");
            cluster.nothing_was_done_twice();
            assert_eq!(cluster.world.machine("w-1").unwrap().kubelet_version(), TO);
        });
    }
}

fn journal_in(folder: &std::path::Path) -> String {
    let mut files = std::fs::read_dir(folder.join("journal")).unwrap();
    format!("journal/{}", files.next().unwrap().unwrap().file_name().to_str().unwrap())
}
