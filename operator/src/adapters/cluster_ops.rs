//! [`ClusterOps`] over the Kubernetes API.
//!
//! RBAC: list on nodes and nodetasks; get on configmaps, daemonsets and deployments in kube-system; get on directupdates, update on their
//! status; get, list, create on upgraderuns; get, create on upgradeplans.

use super::kube_store::{KubeStore, RunMeta};
use super::stragglers::{STRAGGLERS_VERTEX, lost_by};
use super::views::node_view;
use super::{ops_error, snapshot};
use crate::error_chain;
use crate::guarded::Guarded;
use async_trait::async_trait;
use cupcake_crds::direct_update::LeftOut;
use cupcake_crds::limits;
use cupcake_crds::upgrade_run::ParentRef;
use cupcake_crds::values::{KubeVersion, NodeRole, Phase};
use cupcake_crds::{DirectUpdate, DirectUpdateSpec, NodeTask, UpgradeRun};
use cupcake_engine::clock::Clock;
use cupcake_engine::cursor::RunPhase;
use cupcake_engine::dag::{Dag, Vertex};
use cupcake_engine::names::{Epoch, Reason, RunName, VertexName};
use cupcake_engine::plan::Plan;
use cupcake_engine::step::Step;
use cupcake_engine::store::{RunStore, StoreError};
use cupcake_steps::cluster::child_run::ChildRun;
use cupcake_steps::cluster::gate::Gate;
use cupcake_steps::cluster::params;
use cupcake_steps::ports::cluster::{
    AddonView, ChildSource, ChildView, Cluster, ClusterOps, Consent, GateView, NodeView, OpsError, Readiness, Straggler,
};
use cupcake_workflows::{
    BATCH_NODES_MAX, Code, Compilation, CompiledBatch, Request, RunLimits, WaveOf, batch_limits, compile_again,
    compile_wave, opened_by,
};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Node, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use kube::api::{Api, ListParams, PostParams};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The longest refusal that goes into a reason, in characters.
const MESSAGE_CHARS_MAX: usize = 240;

/// The whole cluster, over the Kubernetes API.
#[derive(Clone)]
pub struct KubeClusterOps {
    client: kube::Client,
    store: KubeStore,
    clock: Arc<dyn Clock>,
}

impl KubeClusterOps {
    /// Over that client; child runs are created in that store.
    pub fn new(client: kube::Client, store: KubeStore, clock: Arc<dyn Clock>) -> Self {
        Self { client, store, clock }
    }

    async fn run(&self, name: &RunName) -> Result<Option<UpgradeRun>, OpsError> {
        let api: Api<UpgradeRun> = Api::all(self.client.clone());
        api.get_opt(name.as_str()).await.map_err(|error| ops_error(&format!("get UpgradeRun {name}"), &error))
    }

    /// How many workers may be in flight at once, and how many may fail, by the DirectUpdate as it is now.
    async fn batch_limits(&self, run: &UpgradeRun) -> Result<RunLimits, OpsError> {
        let update = self.update_of(run).await?;
        let nodes = self.nodes().await?;
        let spec = update.spec_now();
        let selected = |node: &&NodeView| spec.moves(&node.node.name, &node.labels);
        let workers = nodes.iter().filter(|node| node.role == NodeRole::Worker).filter(selected).count();
        let workers = u32::try_from(workers).unwrap_or(u32::MAX);
        Ok(batch_limits(&update.spec, workers, BATCH_NODES_MAX))
    }

    /// The nodes that batches of that wave lost and went on without, but for those that a later run of it was given.
    async fn lost_below(&self, wave: &RunName, wave_uid: &str) -> Result<BTreeMap<String, Straggler>, OpsError> {
        let api: Api<Guarded<UpgradeRun>> = Api::all(self.client.clone());
        let listed = api.list(&ListParams::default()).await.map_err(|error| ops_error("list upgraderuns", &error))?;
        let batches = format!("{wave}-");
        let mut runs = Vec::new();
        for run in listed.items {
            match run.0 {
                Ok(run) => runs.push(run),
                // Whom an unreadable batch lost is not known; those of other updates are not ours to speak of.
                Err(invalid) if invalid.metadata.name.as_ref().is_some_and(|name| name.starts_with(&batches)) => {
                    let name = invalid.metadata.name.unwrap_or_default();
                    let message = format!("UpgradeRun {name} cannot be read: {}", invalid.error);
                    return Err(OpsError::NeedsOperator(Reason::new("RunUnreadable", message)));
                }
                Err(_) => {}
            }
        }
        let below = |run: &&UpgradeRun| run.spec.parent.as_ref().is_some_and(|parent| parent.uid == wave_uid);
        let of_stragglers =
            |run: &&UpgradeRun| run.spec.parent.as_ref().is_some_and(|parent| parent.vertex == STRAGGLERS_VERTEX);
        let (again, batches): (Vec<&UpgradeRun>, Vec<&UpgradeRun>) = runs.iter().filter(below).partition(of_stragglers);
        let failed = batches
            .into_iter()
            .filter(|run| run_phase(run.status.as_ref().and_then(|status| status.phase)) == RunPhase::Failed);
        let mut lost = BTreeMap::new();
        for batch in failed.filter_map(|run| RunName::new(run.name_any()).ok()) {
            let stored = self.store.load(&batch).await.map_err(|error| store_error(&error))?;
            lost.extend(lost_by(&stored));
        }
        if !lost.is_empty() {
            for run in again.into_iter().filter_map(|run| RunName::new(run.name_any()).ok()) {
                let given = self.graph(&run).await?;
                let lanes = given.iter().flat_map(|dag| dag.vertices()).filter_map(|vertex| vertex.lane.as_deref());
                lanes.for_each(|lane| drop(lost.remove(lane)));
            }
        }
        Ok(lost)
    }

    /// The graph of a run; `None` if that is gone.
    async fn graph(&self, run: &RunName) -> Result<Option<Arc<Dag>>, OpsError> {
        match self.store.load(run).await {
            Ok(stored) => Ok(Some(stored.dag)),
            Err(StoreError::NotFound(_)) => Ok(None),
            Err(error) => Err(store_error(&error)),
        }
    }

    /// Whether a gate comes right after that vertex of the run.
    async fn is_awaited_by_a_gate(&self, run: &RunName, vertex: &VertexName) -> Result<bool, OpsError> {
        let dag = self.store.load(run).await.map_err(|error| store_error(&error))?.dag;
        let is_gate = |other: &Vertex| other.kind.as_str() == <Gate as Step<Cluster>>::KIND;
        Ok(dag.vertices().iter().any(|other| is_gate(other) && other.after.contains(vertex)))
    }

    async fn update_of(&self, run: &UpgradeRun) -> Result<DirectUpdate, OpsError> {
        let name = run.spec.direct_update.name.as_str();
        let updates: Api<DirectUpdate> = Api::all(self.client.clone());
        let update = updates.get(name).await.map_err(|error| ops_error(&format!("get DirectUpdate {name}"), &error))?;
        if update.metadata.uid.as_deref() != Some(run.spec.direct_update.uid.as_str()) {
            let message = format!("DirectUpdate {name} is another one than that of this run");
            return Err(OpsError::Changed(Reason::new("UpdateGone", message)));
        }
        Ok(update)
    }

    /// Stores the plan of a child; gives its digest.
    async fn stored(&self, child: &RunName, plan: &Plan, parent: &UpgradeRun) -> Result<String, OpsError> {
        self.store.create_plan(child, plan, plan_owner(parent)).await.map_err(|error| store_error(&error))
    }

    /// The bounds of a batch that is opened now.
    async fn limits_of_batch(
        &self,
        wave: &RunName,
        wave_uid: &str,
        wave_run: &UpgradeRun,
        vertex: &VertexName,
    ) -> Result<RunLimits, OpsError> {
        let limits = self.batch_limits(wave_run).await?;
        let failures_max = if self.is_awaited_by_a_gate(wave, vertex).await? {
            // Canaries are there to fail: the first one that does stops the update in front of the gate.
            1
        } else {
            // The budget is that of the wave. What was used up before would have brought the batch before to rest.
            let left_out = self.left_out(wave).await?;
            let lost = self.lost_below(wave, wave_uid).await?;
            let lost = lost.keys().filter(|node| !left_out.contains(*node)).count();
            limits.failures_max.saturating_sub(u32::try_from(lost).unwrap_or(u32::MAX)).max(1)
        };
        Ok(RunLimits { failures_max, ..limits })
    }

    /// Compiles the plan of workers that are tried again, with its bounds.
    async fn compile_again(
        &self,
        wave: &UpgradeRun,
        child: &RunName,
        hop: &WaveOf,
        nodes: &BTreeSet<String>,
    ) -> Result<CompiledBatch, OpsError> {
        let mut update = self.update_of(wave).await?;
        update.spec = update.spec_now().into_owned();
        let snapshot = snapshot::gather(&self.client, self.clock.now()).await?;
        let (wave_name, number) = (RunName::new(wave.name_any()), child.as_str().rsplit('-').next());
        let (Some(request), Ok(wave_name), Some(Ok(number))) =
            (Request::of(&update), wave_name, number.map(str::parse))
        else {
            return Err(OpsError::Changed(Reason::new("UpdateGone", format!("the update of {child} is gone"))));
        };
        compile_again(&request, &wave_name, number, hop, &snapshot, nodes).map_err(|refusal| {
            // As of a wave: it waits and says for what.
            OpsError::Transient(Reason::new("WaveRefused", refusal.message(MESSAGE_CHARS_MAX)))
        })
    }

    /// Compiles the wave of a hop from a fresh snapshot and stores the plans of all its batches; gives the wave's own plan.
    async fn open_wave(&self, parent: &UpgradeRun, child: &RunName, hop: &WaveOf) -> Result<Plan, OpsError> {
        let update_name = parent.spec.direct_update.name.as_str();
        let mut update = self.update_of(parent).await?;
        update.spec = update.spec_now().into_owned();
        let snapshot = snapshot::gather(&self.client, self.clock.now()).await?;
        let Some(request) = Request::of(&update) else {
            return Err(OpsError::Changed(Reason::new("UpdateGone", format!("DirectUpdate {update_name} is gone"))));
        };
        let wave = compile_wave(&request, child, hop, &snapshot).map_err(|refusal| {
            // The cluster may be mended, and then the wave opens: until its deadline it waits and says for what.
            OpsError::Transient(Reason::new("WaveRefused", refusal.message(MESSAGE_CHARS_MAX)))
        })?;
        let wave = match wave {
            Compilation::NothingToDo(nothing) => return Ok(nothing.plan),
            Compilation::Plan(wave) => wave,
        };
        // The batches' own parent, the wave's run, does not exist yet.
        let owner = plan_owner(parent);
        for batch in &wave.batches {
            self.store
                .create_plan(&batch.run, &batch.plan, owner.clone())
                .await
                .map_err(|error| store_error(&error))?;
        }
        Ok(wave.plan)
    }
}

/// The runs below a plan, each with where its own plan comes from.
fn children_of(dag: &Dag) -> Vec<params::ChildRun> {
    let children = dag.vertices().iter().filter(|vertex| vertex.kind.as_str() == <ChildRun as Step<Cluster>>::KIND);
    children.filter_map(|vertex| serde_json::from_value(vertex.params.clone()).ok()).collect()
}

/// UIDs of the nodes that vertices of a plan are about.
fn node_uids(dag: &Dag) -> impl Iterator<Item = String> {
    dag.vertices().iter().filter_map(|vertex| Some(vertex.params.pointer("/node/uid")?.as_str()?.to_owned()))
}

/// Plans of the runs below `parent` go with it.
fn plan_owner(parent: &UpgradeRun) -> Option<OwnerReference> {
    RunMeta::owned_by("UpgradeRun", &parent.name_any(), parent.metadata.uid.as_deref().unwrap_or_default())
}

fn store_error(error: &StoreError) -> OpsError {
    let message = error_chain(error);
    match error {
        StoreError::NotFound(_) | StoreError::Conflict(_) | StoreError::Fenced { .. } => {
            OpsError::Changed(Reason::new("Changed", message))
        }
        StoreError::Unavailable { .. } => OpsError::Transient(Reason::new("ApiServerAway", message)),
        StoreError::TooLarge { .. } | StoreError::Corrupt { .. } => {
            OpsError::NeedsOperator(Reason::new("PlanRefused", message))
        }
    }
}

fn image_of(template: Option<&PodTemplateSpec>) -> String {
    let spec = template.and_then(|template| template.spec.as_ref());
    let first = spec.and_then(|spec| spec.containers.first());
    first.and_then(|container| container.image.clone()).unwrap_or_default()
}

/// `away`: how many nodes are not Ready; what should run there can be neither replaced nor available. Where as many are away as the
/// DaemonSet lets be unavailable, its controller replaces no pod of the others either, until they are back: what still runs there is as
/// new as it gets, and by the skew policy it may be three minors older.
///
/// Source: kubernetes/kubernetes pkg/controller/daemon/update.go (v1.34), `rollingUpdate`.
fn daemon_set_view(set: &DaemonSet, away: i32) -> AddonView {
    let status = set.status.as_ref();
    let wanted = status.map_or(0, |status| status.desired_number_scheduled);
    let updated = status.and_then(|status| status.updated_number_scheduled).unwrap_or(0);
    let available = status.and_then(|status| status.number_available).unwrap_or(0);
    let seen = status.and_then(|status| status.observed_generation).unwrap_or(0);
    AddonView {
        name: set.metadata.name.clone().unwrap_or_default(),
        image: image_of(set.spec.as_ref().map(|spec| &spec.template)),
        configured: None,
        rolled_out: seen >= set.metadata.generation.unwrap_or(0)
            && (updated >= wanted - away || (away > 0 && wanted - available >= unavailable_max(set, wanted)))
            && available >= wanted - away,
    }
}

/// How many of its pods may be unavailable while they are replaced: one if nothing is said; percentages are rounded up.
fn unavailable_max(set: &DaemonSet, wanted: i32) -> i32 {
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    let max = strategy
        .and_then(|strategy| strategy.rolling_update.as_ref())
        .and_then(|update| update.max_unavailable.as_ref());
    match max {
        None => 1,
        Some(IntOrString::Int(pods)) => *pods,
        Some(IntOrString::String(text)) => {
            let percent: i32 = text.trim_end_matches('%').parse().unwrap_or(0);
            wanted.saturating_mul(percent).saturating_add(99) / 100
        }
    }
}

/// `configured`: what of kubeadm's configuration makes its image another one.
fn deployment_view(deployment: &Deployment, configured: Option<String>) -> AddonView {
    let status = deployment.status.as_ref();
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let updated = status.and_then(|status| status.updated_replicas).unwrap_or(0);
    let available = status.and_then(|status| status.available_replicas).unwrap_or(0);
    let seen = status.and_then(|status| status.observed_generation).unwrap_or(0);
    AddonView {
        name: deployment.metadata.name.clone().unwrap_or_default(),
        image: image_of(deployment.spec.as_ref().map(|spec| &spec.template)),
        configured,
        rolled_out: seen >= deployment.metadata.generation.unwrap_or(0) && updated >= wanted && available >= wanted,
    }
}

/// A run's phase in the words of the engine.
pub fn run_phase(phase: Option<Phase>) -> RunPhase {
    match phase {
        None | Some(Phase::Pending) => RunPhase::Pending,
        Some(Phase::InProgress) => RunPhase::InProgress,
        Some(Phase::RequiresAttention) => RunPhase::RequiresAttention,
        Some(Phase::Succeeded) => RunPhase::Succeeded,
        Some(Phase::Failed) => RunPhase::Failed,
        Some(Phase::Cancelled) => RunPhase::Cancelled,
    }
}

#[async_trait]
impl ClusterOps for KubeClusterOps {
    async fn nodes(&self) -> Result<Vec<NodeView>, OpsError> {
        let api: Api<Node> = Api::all(self.client.clone());
        let list = api.list(&ListParams::default()).await.map_err(|error| ops_error("list nodes", &error))?;
        Ok(list.items.iter().map(node_view).collect())
    }

    async fn tasks(&self) -> Result<Vec<NodeTask>, OpsError> {
        let api: Api<Guarded<NodeTask>> = Api::all(self.client.clone());
        let list = api.list(&ListParams::default()).await.map_err(|error| ops_error("list nodetasks", &error))?;
        Ok(list.items.into_iter().filter_map(|task| task.0.ok()).collect())
    }

    async fn server_version(&self) -> Result<KubeVersion, OpsError> {
        snapshot::server_version(&self.client).await
    }

    async fn kubeadm_config_version(&self) -> Result<KubeVersion, OpsError> {
        let configuration = snapshot::cluster_configuration(&self.client).await?;
        snapshot::parse_version("kubeadm-config", &configuration.kubernetes_version)
    }

    async fn addons(&self) -> Result<Vec<AddonView>, OpsError> {
        let sets: Api<DaemonSet> = Api::namespaced(self.client.clone(), "kube-system");
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), "kube-system");
        let proxy = sets.get_opt("kube-proxy").await.map_err(|error| ops_error("get DaemonSet kube-proxy", &error))?;
        let dns = deployments.get_opt("coredns").await.map_err(|error| ops_error("get Deployment coredns", &error))?;
        let all_available = |set: &DaemonSet| {
            let status = set.status.as_ref();
            status.is_none_or(|status| status.number_available.unwrap_or(0) >= status.desired_number_scheduled)
        };
        let away = if proxy.iter().all(all_available) {
            0
        } else {
            let nodes = self.nodes().await?;
            i32::try_from(nodes.iter().filter(|node| node.readiness != Readiness::Ready).count()).unwrap_or(i32::MAX)
        };
        let configured = match &dns {
            Some(_) => snapshot::cluster_configuration(&self.client).await?.core_dns(),
            None => None,
        };
        let dns = dns.iter().map(|dns| deployment_view(dns, configured.clone()));
        Ok(proxy.iter().map(|set| daemon_set_view(set, away)).chain(dns).collect())
    }

    async fn open_child(
        &self,
        parent: &RunName,
        parent_uid: &str,
        vertex: &VertexName,
        child: &RunName,
        source: &ChildSource,
    ) -> Result<(), OpsError> {
        if let Some(present) = self.run(child).await? {
            return is_child_of(&present, parent, parent_uid, vertex);
        }
        let Some(parent_run) = self.run(parent).await?.filter(|run| run.metadata.uid.as_deref() == Some(parent_uid))
        else {
            return Err(OpsError::Changed(Reason::new("ParentGone", format!("UpgradeRun {parent} is gone"))));
        };
        let (limits, plan_digest) = match source {
            ChildSource::Wave { target_version, oldest_kubelet, containerd, kube_proxy } => {
                let (target, oldest_kubelet, kube_proxy) = (*target_version, *oldest_kubelet, *kube_proxy);
                let hop = WaveOf { target, oldest_kubelet, containerd: containerd.clone(), kube_proxy };
                let plan = self.open_wave(&parent_run, child, &hop).await?;
                (RunLimits::STRICT, self.stored(child, &plan, &parent_run).await?)
            }
            ChildSource::Plan { digest } => {
                (self.limits_of_batch(parent, parent_uid, &parent_run, vertex).await?, digest.clone())
            }
            ChildSource::Again { target_version, containerd, kube_proxy, nodes } => {
                let (target, kube_proxy) = (*target_version, *kube_proxy);
                let hop = WaveOf { target, oldest_kubelet: None, containerd: containerd.clone(), kube_proxy };
                let again = self.compile_again(&parent_run, child, &hop, nodes).await?;
                (again.limits, self.stored(child, &again.plan, &parent_run).await?)
            }
        };
        let meta = RunMeta {
            direct_update: parent_run.spec.direct_update.clone(),
            operation_id: parent_run.spec.operation_id.clone(),
            parent: Some(ParentRef {
                run: parent.as_str().to_owned(),
                uid: parent_uid.to_owned(),
                vertex: vertex.as_str().to_owned(),
            }),
            root_uid: RunMeta::root_uid_of(&parent_run),
            target_version: parent_run.spec.target_version,
            hop: parent_run.spec.hop,
            concurrency: limits.concurrency,
            failures_max: limits.failures_max,
            owner: RunMeta::owned_by("UpgradeRun", parent.as_str(), parent_uid),
        };
        match self.store.create_run(child, &plan_digest, &meta, self.clock.now()).await {
            Ok(()) => Ok(()),
            // Also where somebody created it since we looked: the next look adopts it, or says whose it is.
            Err(error) => Err(ops_error(&format!("create UpgradeRun {child}"), &error)),
        }
    }

    async fn consent(&self, run: &RunName, node: &str) -> Result<Consent, OpsError> {
        let Some(run) = self.run(run).await? else {
            return Ok(Consent { empty_dir: false, unmanaged: false });
        };
        let spec = self.update_of(&run).await?.spec;
        Ok(consent_of(&spec, node))
    }

    async fn gate(&self, run: &RunName, gate: &str) -> Result<GateView, OpsError> {
        let Some(present) = self.run(run).await? else {
            return Err(OpsError::Changed(Reason::new("RunGone", format!("UpgradeRun {run} is gone"))));
        };
        let spec = self.update_of(&present).await?.spec;
        let approved_by = opened_by(&spec, gate).map(str::to_owned);
        Ok(GateView { update: present.spec.direct_update.name, approved_by })
    }

    async fn left_out(&self, run: &RunName) -> Result<BTreeSet<String>, OpsError> {
        let Some(run) = self.run(run).await? else {
            return Ok(BTreeSet::new());
        };
        let update = self.update_of(&run).await?;
        let control = update.spec_now().into_owned().control.unwrap_or_default();
        Ok(control.skip.into_iter().map(|request| request.vertex).collect())
    }

    async fn planned(&self, run: &RunName, hop: KubeVersion) -> Result<BTreeSet<String>, OpsError> {
        let root = self.store.load(run).await.map_err(|error| store_error(&error))?.dag;
        let mut uids: BTreeSet<String> = node_uids(&root).collect();
        let goes_there = |child: &params::ChildRun| match &child.source {
            ChildSource::Wave { target_version, .. } => *target_version == hop,
            ChildSource::Plan { .. } | ChildSource::Again { .. } => false,
        };
        for wave in children_of(&root).into_iter().filter(goes_there) {
            let Some(wave) = self.graph(&wave.run).await? else { continue };
            for batch in children_of(&wave) {
                uids.extend(self.graph(&batch.run).await?.iter().flat_map(|batch| node_uids(batch)));
            }
        }
        Ok(uids)
    }

    async fn lost(&self, run: &RunName) -> Result<BTreeMap<String, RunName>, OpsError> {
        let stored = self.store.load(run).await.map_err(|error| store_error(&error))?;
        let waves = children_of(&stored.dag).into_iter().map(|child| child.run);
        let mut lost = BTreeMap::new();
        for wave in waves {
            if let Some(uid) = self.run(&wave).await?.and_then(|wave| wave.metadata.uid) {
                let below = self.lost_below(&wave, &uid).await?;
                lost.extend(below.into_iter().map(|(node, straggler)| (node, straggler.run)));
            }
        }
        Ok(lost)
    }

    async fn stragglers(&self, wave: &RunName) -> Result<BTreeMap<String, Straggler>, OpsError> {
        match self.run(wave).await?.and_then(|wave| wave.metadata.uid) {
            Some(uid) => self.lost_below(wave, &uid).await,
            None => Err(OpsError::Changed(Reason::new("RunGone", format!("UpgradeRun {wave} is gone")))),
        }
    }

    async fn leave_out(&self, run: &RunName, uid: &str, epoch: Epoch, left_out: LeftOut) -> Result<(), OpsError> {
        let Some(present) = self.run(run).await? else {
            return Err(OpsError::Changed(Reason::new("RunGone", format!("UpgradeRun {run} is gone"))));
        };
        let mut update = self.update_of(&present).await?;
        // Between the read and the write, so that one that no longer leads changes nothing.
        self.still_leads(run, uid, epoch).await?;
        let status = update.status.get_or_insert_default();
        if status.left_out.iter().any(|one| one.node == left_out.node) {
            return Ok(());
        }
        if status.left_out.len() >= limits::LEFT_OUT_MAX {
            let most = limits::LEFT_OUT_MAX;
            let message = format!("{most} workers are left out already: see why their drains do not end, then retry");
            return Err(OpsError::NeedsOperator(Reason::new("TooManyLeftOut", message)));
        }
        let tried = format!("leave {} out of DirectUpdate {}", left_out.node, present.spec.direct_update.name);
        status.left_out.push(left_out);
        status.bound();
        let updates: Api<DirectUpdate> = Api::all(self.client.clone());
        let replaced = updates.replace_status(&update.name_any(), &PostParams::default(), &update).await;
        replaced.map(drop).map_err(|error| ops_error(&tried, &error))
    }

    async fn still_leads(&self, run: &RunName, uid: &str, epoch: Epoch) -> Result<(), OpsError> {
        let present = self.run(run).await?.filter(|present| present.metadata.uid.as_deref() == Some(uid));
        let Some(present) = present else {
            return Err(OpsError::Changed(Reason::new("RunGone", format!("UpgradeRun {run} is gone"))));
        };
        let current = Epoch(present.status.and_then(|status| status.epoch).unwrap_or(0));
        if current > epoch {
            let message = format!("UpgradeRun {run} is led under epoch {current}, this replica led under {epoch}");
            return Err(OpsError::Changed(Reason::new("Fenced", message)));
        }
        Ok(())
    }

    async fn child(
        &self,
        parent: &RunName,
        parent_uid: &str,
        vertex: &VertexName,
        child: &RunName,
    ) -> Result<Option<ChildView>, OpsError> {
        let Some(run) = self.run(child).await? else {
            return Ok(None);
        };
        is_child_of(&run, parent, parent_uid, vertex)?;
        let status = run.status.unwrap_or_default();
        Ok(Some(ChildView {
            phase: run_phase(status.phase),
            reason: Reason::new(
                status.reason.unwrap_or_else(|| "Unknown".to_owned()),
                status.message.unwrap_or_else(|| "see the run".to_owned()),
            ),
            progress: status.progress.unwrap_or_default(),
        }))
    }
}

/// Whether a run that has the name of that vertex's child is it: names can be given to anything, a UID cannot.
fn is_child_of(run: &UpgradeRun, parent: &RunName, parent_uid: &str, vertex: &VertexName) -> Result<(), OpsError> {
    let ours = run.spec.parent.as_ref().is_some_and(|of| of.uid == parent_uid && of.vertex == vertex.as_str());
    if ours {
        return Ok(());
    }
    let name = run.name_any();
    let message = format!("UpgradeRun {name} exists and is not a child of {parent}: delete it or rename the update");
    Err(OpsError::NeedsOperator(Reason::new("NameTaken", message)))
}

/// What a spec lets a drain of that node evict.
fn consent_of(spec: &DirectUpdateSpec, node: &str) -> Consent {
    let drain = spec.drain.clone().unwrap_or_default();
    let mut acknowledged = spec.acknowledge.iter();
    Consent {
        // A pod that left a node for which that was acknowledged has come to another one.
        empty_dir: drain.delete_empty_dir_data
            || acknowledged.clone().any(|one| one.check == format!("{:?}", Code::LocalStorage)),
        // One that nothing makes anew comes to no other node.
        unmanaged: drain.delete_unmanaged_pods
            || acknowledged.any(|one| one.check == format!("{:?}", Code::UnmanagedPods) && one.node == node),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_agreed_to_for_one_node_is_not_agreed_to_for_bare_pods_of_another() {
        let spec = |fields: serde_json::Value| -> DirectUpdateSpec {
            let mut spec = serde_json::json!({"targetVersion": "1.34.4"});
            spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            serde_json::from_value(spec).unwrap()
        };
        let of = |fields, node| {
            let Consent { empty_dir, unmanaged } = consent_of(&spec(fields), node);
            (empty_dir, unmanaged)
        };
        let acknowledge = |check: &str| serde_json::json!({"acknowledge": [{"check": check, "node": "w-1"}]});
        assert_eq!(of(serde_json::json!({}), "w-1"), (false, false));
        assert_eq!(of(acknowledge("UnmanagedPods"), "w-1"), (false, true));
        assert_eq!(of(acknowledge("UnmanagedPods"), "w-2"), (false, false));
        assert_eq!(of(acknowledge("LocalStorage"), "w-2"), (true, false));
        let flags = serde_json::json!({"drain": {"deleteEmptyDirData": true, "deleteUnmanagedPods": true}});
        assert_eq!(of(flags, "w-9"), (true, true));
    }

    #[test]
    fn a_daemon_set_is_rolled_out_when_all_but_the_nodes_that_are_away_run_it() {
        let set = |updated, available| -> DaemonSet {
            let status = serde_json::json!({
                "desiredNumberScheduled": 5, "updatedNumberScheduled": updated, "numberAvailable": available,
                "currentNumberScheduled": 5, "numberMisscheduled": 0, "numberReady": available, "observedGeneration": 2,
            });
            serde_json::from_value(serde_json::json!({"metadata": {"generation": 2}, "status": status})).unwrap()
        };
        assert!(daemon_set_view(&set(5, 5), 0).rolled_out);
        assert!(!daemon_set_view(&set(4, 4), 0).rolled_out, "a node that is there lacks it");
        assert!(daemon_set_view(&set(4, 4), 1).rolled_out, "a node that is away can neither get it nor run it");
        assert!(daemon_set_view(&set(3, 4), 1).rolled_out, "nor does any other get it meanwhile");
        assert!(
            !daemon_set_view(&set(3, 5), 1).rolled_out,
            "the pod on it still counts as available: the others follow"
        );
        let two = serde_json::json!({"selector": {}, "template": {}, "updateStrategy": {"rollingUpdate": {"maxUnavailable": "40%"}}});
        let two = DaemonSet { spec: serde_json::from_value(two).unwrap(), ..set(3, 4) };
        assert!(!daemon_set_view(&two, 1).rolled_out, "two of five may be unavailable: the others follow");
        assert!(!daemon_set_view(&set(4, 3), 1).rolled_out);
    }
}
