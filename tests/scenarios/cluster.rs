//! A simulated cluster as its user has it: what control.rs and left_out.rs do to updates is asked and looked at through this.

use chrono::TimeDelta;
use cupcake_crds::node_task::TaskState;
use cupcake_crds::values::{KubeVersion, Phase};
use cupcake_crds::{DirectUpdate, GROUP, NodeTask};
use cupcake_engine::clock::Timestamp;
use cupcake_operator::metrics::Metrics;
use cupcake_sandbox::world::{self, Speed, World, WorldConfig};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Name of the DirectUpdate of a scenario.
pub(crate) const UPDATE: &str = "to-1-34";
/// How long an idle cluster is watched for what must not happen any more, in seconds.
pub(crate) const QUIET_SECONDS: i64 = 900;

/// A cluster at 1.33.4 with the operator and the agents running.
pub(crate) fn in_cluster<T>(workers: u32, budget: bool, scenario: impl AsyncFnOnce(&Cluster) -> T) -> T {
    in_cluster_at(KubeVersion::new(1, 33, 4), workers, budget, scenario)
}

/// As [`in_cluster`], at another version.
pub(crate) fn in_cluster_at<T>(
    version: KubeVersion,
    workers: u32,
    budget: bool,
    scenario: impl AsyncFnOnce(&Cluster) -> T,
) -> T {
    let start = Timestamp::from_timestamp(1_790_000_000, 0).unwrap();
    in_world(WorldConfig { control_planes: 1, workers, budget, ..WorldConfig::new(version, start) }, scenario)
}

/// As [`in_cluster`], of whatever kind.
pub(crate) fn in_world<T>(config: WorldConfig, scenario: impl AsyncFnOnce(&Cluster) -> T) -> T {
    in_prepared_world(config, |_| {}, scenario)
}

/// As [`in_world`], with what is done to it before anything runs.
pub(crate) fn in_prepared_world<T>(
    config: WorldConfig,
    prepare: impl FnOnce(&World),
    scenario: impl AsyncFnOnce(&Cluster) -> T,
) -> T {
    world::runtime(Speed::Fastest).unwrap().block_on(async {
        let world = World::new(config).unwrap();
        prepare(&world);
        let metrics = Metrics::default();
        world.count_in(metrics.clone());
        world.start();
        let client = world.server().client("user");
        scenario(&Cluster { world, client, metrics }).await
    })
}

/// A simulated cluster and its user.
pub(crate) struct Cluster {
    pub(crate) world: World,
    pub(crate) client: kube::Client,
    /// What its operator counts.
    pub(crate) metrics: Metrics,
}

impl Cluster {
    pub(crate) fn updates(&self) -> Api<DirectUpdate> {
        Api::all(self.client.clone())
    }

    /// A user's request, repeated while the API is away (a single control plane is, while kubeadm restarts it).
    pub(crate) async fn ask<T>(&self, request: impl AsyncFn() -> kube::Result<T>) -> T {
        for _ in 0..600 {
            match request().await {
                Ok(answer) => return answer,
                Err(error @ kube::Error::Api(_)) => panic!("refused: {error}"),
                Err(_away) => self.pass(1).await,
            }
        }
        panic!("the API was away for 600 s");
    }

    pub(crate) async fn apply(&self, name: &str, mut spec: Value) {
        if spec["targetVersion"].is_null() {
            spec["targetVersion"] = json!("1.34.4");
        }
        let update = DirectUpdate::new(name, serde_json::from_value(spec).unwrap());
        self.ask(async || self.updates().create(&PostParams::default(), &update).await).await;
    }

    pub(crate) async fn patch(&self, name: &str, patch: Value) {
        let patch = Patch::Merge(patch);
        self.ask(async || self.updates().patch(name, &PatchParams::default(), &patch).await).await;
    }

    pub(crate) async fn delete(&self, name: &str) {
        self.ask(async || self.updates().delete(name, &DeleteParams::default()).await.map(drop)).await;
    }

    /// A budget that allows no pod of the workload to go.
    pub(crate) async fn freeze(&self) -> Api<PodDisruptionBudget> {
        let budget = json!({
            "metadata": {"name": "frozen"},
            "spec": {"maxUnavailable": 0, "selector": {"matchLabels": {"app": "shop"}}},
        });
        let budget: PodDisruptionBudget = serde_json::from_value(budget).unwrap();
        let budgets: Api<PodDisruptionBudget> = Api::namespaced(self.client.clone(), "default");
        self.ask(async || budgets.create(&PostParams::default(), &budget).await).await;
        budgets
    }

    /// Applies an update and freezes the workload when the update has begun: a budget that was there before would be found.
    pub(crate) async fn apply_then_freeze(&self, name: &str, spec: Value) -> Api<PodDisruptionBudget> {
        self.apply(name, spec).await;
        let has_run = || self.update(name).and_then(|update| update.status?.run).is_some();
        self.eventually("it has begun", async || has_run()).await;
        self.freeze().await
    }

    /// Every object of a kind, without a request.
    pub(crate) fn all<K: DeserializeOwned>(&self, group: &str, plural: &str) -> Vec<K> {
        let all = self.world.server().list(group, plural);
        all.iter().map(|object| serde_json::from_value(object.value().clone()).unwrap()).collect()
    }

    pub(crate) fn is_cordoned(&self, node: &str) -> bool {
        self.cordoned().iter().any(|name| name == node)
    }

    pub(crate) fn cordoned(&self) -> Vec<String> {
        let nodes = self.all::<Node>("", "nodes").into_iter();
        let cordoned = nodes.filter(|node| node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true));
        cordoned.map(|node| node.name_any()).collect()
    }

    /// The versions of some nodes' kubelets.
    pub(crate) fn kubelets(&self, names: &[&str]) -> Vec<String> {
        names.iter().map(|name| self.kubelet(name)).collect()
    }

    /// The version of a node's kubelet.
    pub(crate) fn kubelet(&self, name: &str) -> String {
        let nodes = self.all::<Node>("", "nodes");
        let node = nodes.into_iter().find(|node| node.name_any() == name);
        let info = node.and_then(|node| node.status?.node_info).unwrap_or_default();
        info.kubelet_version.trim_start_matches('v').to_owned()
    }

    pub(crate) async fn cancel(&self) {
        self.patch(UPDATE, json!({"spec": {"control": {"cancel": {"requestId": "enough"}}}})).await;
    }

    pub(crate) async fn pass(&self, seconds: i64) {
        self.world.clock().sleep_until(self.world.now() + TimeDelta::seconds(seconds)).await;
    }

    pub(crate) fn update(&self, name: &str) -> Option<DirectUpdate> {
        self.all::<DirectUpdate>(GROUP, "directupdates").into_iter().find(|update| update.name_any() == name)
    }

    pub(crate) fn task(&self, node: &str) -> NodeTask {
        self.all::<NodeTask>(GROUP, "nodetasks").into_iter().find(|task| task.name_any() == node).unwrap()
    }

    pub(crate) fn phase(&self, name: &str) -> (Phase, String) {
        let status = self.update(name).unwrap().status.unwrap_or_default();
        (status.phase.unwrap_or(Phase::Pending), status.message.unwrap_or_default())
    }

    pub(crate) async fn at_rest(&self, name: &str) -> (Phase, String) {
        self.world.until_at_rest(name).await;
        self.phase(name)
    }

    /// Passes time until `holds`, or fails with what it waited for.
    pub(crate) async fn eventually(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        for _ in 0..20_000 {
            if holds().await {
                return;
            }
            self.pass(1).await;
        }
        let updates: Vec<_> = self.all::<DirectUpdate>(GROUP, "directupdates");
        let told: Vec<_> = updates.iter().map(|update| (update.name_any(), self.phase(&update.name_any()))).collect();
        panic!("never: {what}; {told:?}");
    }

    pub(crate) fn effects(&self) -> u32 {
        self.world.effects().iter().map(|effect| effect.begun).sum()
    }

    /// Nothing cordoned, no order that could still be worked on, and nothing happens any more.
    pub(crate) async fn is_left_alone(&self, when: &str) {
        self.pass(120).await;
        assert!(self.cordoned().is_empty(), "{when}: still cordoned: {:?}", self.cordoned());
        for task in self.all::<NodeTask>(GROUP, "nodetasks") {
            let open = task.spec.order.is_some() && !task.answer().is_some_and(TaskState::is_final);
            assert!(!open, "{when}: {} has an open order: {:?}", task.name_any(), task.status);
        }
        let before = self.effects();
        self.pass(QUIET_SECONDS).await;
        assert_eq!(self.effects(), before, "{when}: something was still done");
    }

    /// No effect of this one update twice. (The next update may well repeat what only its own record can vouch for.)
    pub(crate) fn nothing_was_done_twice(&self, when: &str) {
        let effects = self.world.effects();
        let duplicated: Vec<_> = effects.iter().filter(|effect| effect.duplicated > 0).collect();
        assert!(duplicated.is_empty(), "{when}: {duplicated:?}");
    }
}
