//! The workers of a hop: which of them move, in which batches, and the plans of the wave and of each batch.

use crate::compile::{COMPILER, Compilation, NothingToDo, PLAN_BYTES_MAX, checked};
use crate::finding::{Code, Finding, Findings, Refusal, Report, named};
use crate::gates::{SOAK_SECONDS_DEFAULT, SOAK_SECONDS_MAX, gate_name};
use crate::request::{
    BATCH_NODES_DEFAULT, BATCH_NODES_MAX, Request, RunLimits, batch_limits, batch_nodes, batch_run, concurrency_of,
    stragglers_run,
};
use crate::summary::BatchPreview;
use crate::templates::{self, Emptied, Templates, Visit};
use crate::timing::{NodeTime, child_seconds};
use crate::{checks, skew};
use cupcake_crds::DirectUpdateSpec;
use cupcake_crds::direct_update::NodeOrder;
use cupcake_crds::limits::NODE_GROUPS_MAX;
use cupcake_crds::values::{
    ApprovalPoint, ClusterSnapshot, GatePoint, KubeVersion, NodeRole, NodeSnapshot, PackageVersion, Strategy,
};
use cupcake_engine::names::{RunName, VertexName};
use cupcake_engine::plan::{Item, Plan};
use cupcake_steps::ports::host::KubeProxy;
use std::collections::{BTreeMap, BTreeSet};

/// The plan of a wave and those of its batches.
#[derive(Debug, Clone, PartialEq)]
pub struct CompiledWave {
    /// The wave's plan: one child run a batch.
    pub plan: Plan,
    /// Its digest.
    pub digest: String,
    /// The bounds that the wave's run is created with.
    pub limits: RunLimits,
    /// The batches in order; never empty.
    pub batches: Vec<CompiledBatch>,
    /// What people should know.
    pub report: Report,
}

/// The plan of one batch.
#[derive(Debug, Clone, PartialEq)]
pub struct CompiledBatch {
    /// Its number, from 1.
    pub number: u32,
    /// The name of its run: `<wave>-<number>`.
    pub run: RunName,
    /// The wave's vertex that stands for it: `batch-<number>`.
    pub vertex: VertexName,
    /// Its plan.
    pub plan: Plan,
    /// Its plan's digest.
    pub digest: String,
    /// The bounds that its run is created with.
    pub limits: RunLimits,
    /// The workers in it, in plan order.
    pub nodes: Vec<String>,
    /// Whether they go first under strategy canary.
    pub canary: bool,
}

/// The workers of a cluster as a hop sees them.
pub(crate) struct Workers<'s> {
    /// Those that move, by name.
    pub moving: Vec<&'s NodeSnapshot>,
    /// Those selected that fit the next hop as they are, and move in a later one.
    pub waiting: Vec<&'s NodeSnapshot>,
    /// Those selected that are at the target already.
    pub at_target: Vec<&'s NodeSnapshot>,
    /// Those selected that are newer than the target.
    pub newer: Vec<&'s NodeSnapshot>,
    /// Those not selected.
    pub left_out: Vec<&'s NodeSnapshot>,
    /// Where their images come from, if not from kubeadm's own repository.
    pub image_repository: Option<&'s str>,
}

impl<'s> Workers<'s> {
    /// `oldest`: where further hops follow, what the next one asks of a worker.
    pub fn of(
        snapshot: &'s ClusterSnapshot,
        spec: &DirectUpdateSpec,
        target: KubeVersion,
        oldest: Option<KubeVersion>,
    ) -> Self {
        let mut workers = Self {
            moving: Vec::new(),
            waiting: Vec::new(),
            at_target: Vec::new(),
            newer: Vec::new(),
            left_out: Vec::new(),
            image_repository: snapshot.image_repository.as_deref(),
        };
        for node in snapshot.with_role(NodeRole::Worker) {
            if !spec.moves(&node.node.name, &node.labels) {
                workers.left_out.push(node);
            } else if node.kubelet == target {
                workers.at_target.push(node);
            } else if node.kubelet > target {
                workers.newer.push(node);
            } else if oldest.is_some_and(|oldest| node.kubelet >= oldest) {
                workers.waiting.push(node);
            } else {
                workers.moving.push(node);
            }
        }
        workers
    }

    pub fn moving_count(&self) -> u32 {
        u32::try_from(self.moving.len()).unwrap_or(u32::MAX)
    }

    /// All that are selected: what a percentage of concurrency is a share of, so that it stays the same while they move.
    pub fn selected_count(&self) -> u32 {
        let selected = self.moving.len() + self.waiting.len() + self.at_target.len() + self.newer.len();
        u32::try_from(selected).unwrap_or(u32::MAX)
    }
}

/// Which workers a wave is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaveOf {
    /// Where they move.
    pub target: KubeVersion,
    /// Where further hops follow: only those older than this move; all older than `target` if absent.
    pub oldest_kubelet: Option<KubeVersion>,
    /// The version of containerd that they get, if it moves, too: as the root run's plan decided.
    pub containerd: Option<PackageVersion>,
    /// What of kube-proxy: where it is left out, its image is not pulled. As the root run's plan decided.
    pub kube_proxy: KubeProxy,
}

impl WaveOf {
    /// That of the last hop, of an update that moves nothing but Kubernetes.
    pub fn last(target: KubeVersion) -> Self {
        Self { target, oldest_kubelet: None, containerd: None, kube_proxy: KubeProxy::Upgrade }
    }
}

/// Compiles the wave of a hop and all its batches, from a snapshot taken when the wave opens.
///
/// # Guarantees
/// Every worker that `spec.nodeSelector` matches and whose kubelet is older than `hop` says is in exactly one batch;
/// no other node is. Batches are by `spec.nodeOrder`, then by name, canary nodes first under strategy canary, each after the one before
/// unless the strategy is parallel; between canaries and the others stands a gate, and one that people open also where no canary is left.
/// Equal inputs give equal plans. Each plan fits [`crate::PLAN_BYTES_MAX`].
///
/// Where no worker is left to move the result is [`NothingToDo`], whose empty plan lets the wave's run succeed at once.
///
/// # Errors
/// A [`Refusal`] with everything that stands in the way: the control plane is not at `target`, a Node is unreadable, a
/// kubelet does not fit, a plan is too large.
pub fn compile_wave(
    request: &Request<'_>,
    wave: &RunName,
    hop: &WaveOf,
    snapshot: &ClusterSnapshot,
) -> Result<Compilation<CompiledWave>, Refusal> {
    let target = hop.target;
    let mut findings = Findings::default();
    checks::readable(snapshot, &mut findings);
    if snapshot.server < target {
        findings.refuse(Finding::new(
            Code::ControlPlaneBehind,
            "cluster",
            snapshot.server,
            format!("the workers may not move to {target} before every API server has"),
            "see the control-plane steps of the root run",
        ));
    }
    let workers = Workers::of(snapshot, request.spec, target, hop.oldest_kubelet);
    // What is newer than this hop waits for the one that gets there; what is newer than the last one fits nowhere.
    let last = request.spec.target().unwrap_or(target).max(target);
    for node in workers.moving.iter().chain(&workers.left_out).chain(&workers.newer) {
        if let Err(skew::Skew::NewerThanServer) = skew::kubelet(node.kubelet, last, last) {
            findings.refuse(checks::newer_than_target(&[node], last));
        }
    }
    let newer: Vec<_> = workers.newer.iter().map(|node| format!("{} ({})", node.node.name, node.kubelet)).collect();
    if !newer.is_empty() && hop.oldest_kubelet.is_none() {
        findings.warn(Finding::new(
            Code::Downgrade,
            "nodes",
            named(newer),
            format!("newer than {target}: they stay as they are"),
            "",
        ));
    }
    plans(request, wave, hop, &workers, findings)
}

/// The plans of a wave over `workers`; what was found so far refuses or goes into the report.
pub(crate) fn plans(
    request: &Request<'_>,
    wave: &RunName,
    hop: &WaveOf,
    workers: &Workers<'_>,
    mut findings: Findings,
) -> Result<Compilation<CompiledWave>, Refusal> {
    let (spec, target) = (request.spec, hop.target);
    let count = workers.moving_count();
    if count == 0 {
        let report = findings.end()?;
        let message = format!("no worker is left to move to {target}");
        return Ok(Compilation::NothingToDo(NothingToDo { message, plan: Plan::new(COMPILER), report }));
    }
    let time = NodeTime::of(spec).map_err(|finding| findings.refuse(finding)).ok();
    let selected = workers.selected_count();
    let size = batch_nodes(spec, selected, count).map_err(|finding| findings.refuse(finding)).ok();
    let (Some(time), Some(size)) = (time, size) else {
        return Err(refused(findings));
    };
    if concurrency_of(spec, selected).min(count) > size && spec.strategy != Strategy::Parallel {
        findings.warn(Finding::new(
            Code::NoEffect,
            "spec.concurrency",
            spec.concurrency,
            format!("batches of {size} are opened one at a time, so no more than {size} workers are in flight"),
            "set a larger spec.batchSize",
        ));
    }
    if let Some(finding) = too_many_groups(spec, workers) {
        findings.refuse(finding);
        return Err(refused(findings));
    }
    let templates = Templates::new(spec, target, time)
        .with_containerd(hop.containerd.clone())
        .with_kube_proxy(hop.kube_proxy)
        .with_image_repository(workers.image_repository);
    let mut batches = Vec::new();
    for (index, group) in groups(spec, workers, size as usize).into_iter().enumerate() {
        let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
        match one_batch(spec, wave, &templates, number, selected, &group) {
            Ok(batch) => batches.push(batch),
            Err(finding) => {
                findings.refuse(finding);
                return Err(refused(findings));
            }
        }
    }
    let mut plan = wave_plan(spec, wave, target, &time, size, &batches);
    // A batch goes on without a worker only where more than one may fail.
    if spec.max_failures.is_some_and(|failures| failures > 1) {
        match stragglers_run(wave) {
            Ok(runs) => {
                let seconds = child_seconds(&time, count);
                plan.vertex(templates::stragglers(runs, hop, seconds, &last_of(spec, &batches)));
            }
            Err(finding) => findings.refuse(finding),
        }
    }
    let remedy = format!("set spec.batchSize to {BATCH_NODES_DEFAULT} or more");
    if let Err(finding) = checked(&plan, PLAN_BYTES_MAX, "the wave's plan", &remedy) {
        findings.refuse(finding);
    }
    let report = findings.end()?;
    let digest = plan.digest();
    Ok(Compilation::Plan(CompiledWave { plan, digest, limits: RunLimits::STRICT, batches, report }))
}

/// The batches after which no other one begins.
fn last_of(spec: &DirectUpdateSpec, batches: &[CompiledBatch]) -> Vec<String> {
    let last = match spec.strategy {
        Strategy::Parallel => batches.len(),
        Strategy::Rolling | Strategy::Canary => 1,
    };
    batches.iter().rev().take(last).rev().map(|batch| batch.vertex.as_str().to_owned()).collect()
}

/// Compiles the plan of a run that tries workers of a wave again, whatever version they show by now: what they are is looked at by each
/// step of their visit. The run has the name of the wave's runs of this sort with that number; at most [`BATCH_NODES_MAX`] are in it.
///
/// # Errors
/// A [`Refusal`]: a plan that is too large, a spec whose times no longer add up, and where none of `nodes` is a worker that can be
/// read: an empty plan would succeed at once, and whoever asks would ask again.
pub fn compile_again(
    request: &Request<'_>,
    wave: &RunName,
    number: u32,
    hop: &WaveOf,
    snapshot: &ClusterSnapshot,
    nodes: &BTreeSet<String>,
) -> Result<CompiledBatch, Refusal> {
    let spec = request.spec;
    let time = NodeTime::of(spec).map_err(Refusal::one)?;
    let workers = Workers::of(snapshot, spec, hop.target, None);
    let templates = Templates::new(spec, hop.target, time)
        .with_containerd(hop.containerd.clone())
        .with_kube_proxy(hop.kube_proxy)
        .with_image_repository(workers.image_repository);
    let again = snapshot.with_role(NodeRole::Worker).filter(|node| nodes.contains(&node.node.name));
    let group = BatchGroup { nodes: again.take(BATCH_NODES_MAX as usize).collect(), canary: false };
    if group.nodes.is_empty() {
        return Err(none_left(snapshot, nodes));
    }
    let runs = stragglers_run(wave).map_err(Refusal::one)?;
    let batch = one_batch(spec, &runs, &templates, number, workers.selected_count(), &group).map_err(Refusal::one)?;
    // Whoever fails once more lets the run rest: nobody is lost twice.
    Ok(CompiledBatch { limits: RunLimits { failures_max: 1, ..batch.limits }, ..batch })
}

/// Why none of `nodes` can be tried again.
fn none_left(snapshot: &ClusterSnapshot, nodes: &BTreeSet<String>) -> Refusal {
    let mut findings = Findings::default();
    let unreadable = snapshot.unreadable.iter().filter(|node| nodes.contains(&node.name)).cloned().collect();
    checks::readable(&ClusterSnapshot { unreadable, ..snapshot.clone() }, &mut findings);
    findings.refuse(Finding::new(
        Code::NothingSelected,
        "nodes",
        named(nodes),
        "no worker that can be tried again: it is none any more, or its Node cannot be read",
        "mend the Node, or leave it out (kubectl cupcake skip)",
    ));
    refused(findings)
}

fn refused(findings: Findings) -> Refusal {
    Refusal { findings: findings.refused, warnings: findings.warnings }
}

/// Workers of one batch, and whether they are canaries.
struct BatchGroup<'s> {
    nodes: Vec<&'s NodeSnapshot>,
    canary: bool,
}

fn groups<'s>(spec: &DirectUpdateSpec, workers: &Workers<'s>, size: usize) -> Vec<BatchGroup<'s>> {
    let named_canaries: BTreeSet<&str> = match (spec.strategy, &spec.canary) {
        (Strategy::Canary, Some(canary)) => canary.nodes.iter().map(String::as_str).collect(),
        (Strategy::Canary, None) | (Strategy::Rolling | Strategy::Parallel, _) => BTreeSet::new(),
    };
    let (canaries, rest): (Vec<&NodeSnapshot>, Vec<&NodeSnapshot>) =
        workers.moving.iter().copied().partition(|node| named_canaries.contains(node.node.name.as_str()));
    let cut = |nodes: &[&'s NodeSnapshot], canary| {
        nodes.chunks(size.max(1)).map(|nodes| BatchGroup { nodes: nodes.to_vec(), canary }).collect::<Vec<_>>()
    };
    let mut groups = cut(&canaries, true);
    for group in in_order(spec.node_order.as_ref(), rest) {
        groups.extend(cut(&group, false));
    }
    groups
}

/// The workers in the groups in which they move, those that no order is given for in one.
fn in_order<'s>(order: Option<&NodeOrder>, mut workers: Vec<&'s NodeSnapshot>) -> Vec<Vec<&'s NodeSnapshot>> {
    let Some(order) = order else { return vec![workers] };
    let place = |node: &&'s NodeSnapshot| {
        let value = node.labels.get(&order.by_label);
        let named = value.and_then(|value| order.values.iter().position(|named| named == value));
        // Without the label last; what is not named after all that is, by value.
        (value.is_none(), named.unwrap_or(usize::MAX), value)
    };
    // Stable: within a group they stay by name.
    workers.sort_by_key(place);
    workers.chunk_by(|one, other| place(one) == place(other)).map(<[_]>::to_vec).collect()
}

/// Too many groups to move one after another: a label that tells each node apart makes batches of one.
fn too_many_groups(spec: &DirectUpdateSpec, workers: &Workers<'_>) -> Option<Finding> {
    let order = spec.node_order.as_ref()?;
    let values: BTreeSet<_> = workers.moving.iter().map(|node| node.labels.get(&order.by_label)).collect();
    (values.len() > NODE_GROUPS_MAX).then(|| {
        Finding::new(
            Code::OutOfRange,
            "spec.nodeOrder.byLabel",
            &order.by_label,
            format!(
                "{} workers have {} values of it, and {NODE_GROUPS_MAX} groups are the most",
                workers.moving.len(),
                values.len()
            ),
            "name a label that many nodes share, such as topology.kubernetes.io/zone",
        )
    })
}

fn one_batch(
    spec: &DirectUpdateSpec,
    wave: &RunName,
    templates: &Templates<'_>,
    number: u32,
    selected: u32,
    group: &BatchGroup<'_>,
) -> Result<CompiledBatch, Finding> {
    let mut plan = Plan::new(COMPILER);
    let items: Vec<Item> = group.nodes.iter().map(|node| templates::item(node)).collect();
    let nodes: Vec<String> = items.iter().map(|item| item.name.clone()).collect();
    // In the order of the items, so that a batch without any difference is one group.
    let kind = |node: &NodeSnapshot| {
        (Emptied::of(spec, node, templates.target), templates.containerd_for(std::slice::from_ref(&node)))
    };
    let mut items = items.into_iter();
    for alike in group.nodes.chunk_by(|one, other| kind(one) == kind(other)) {
        let items = items.by_ref().take(alike.len()).collect();
        let (emptied, containerd) = kind(alike[0]);
        plan.each(items, templates.visit("{item}", Visit::Worker, emptied, containerd, &[]));
    }
    checked(&plan, PLAN_BYTES_MAX, &format!("the plan of batch {number}"), "set a smaller spec.batchSize")?;
    let vertex = VertexName::new(format!("batch-{number}")).map_err(|error| {
        Finding::new(Code::InvalidPlan, "batch", number, error.to_string(), "report this as a fault of CUPCAKE")
    })?;
    let batch_nodes = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
    Ok(CompiledBatch {
        number,
        run: batch_run(wave, number)?,
        vertex,
        digest: plan.digest(),
        plan,
        limits: batch_limits(spec, selected, batch_nodes),
        nodes,
        canary: group.canary,
    })
}

fn wave_plan(
    spec: &DirectUpdateSpec,
    wave: &RunName,
    target: KubeVersion,
    time: &NodeTime,
    size: u32,
    batches: &[CompiledBatch],
) -> Plan {
    let items: Vec<Item> = batches
        .iter()
        .map(|batch| Item {
            name: batch.number.to_string(),
            values: BTreeMap::from([("digest".to_owned(), batch.digest.clone())]),
        })
        .collect();
    let deadline_seconds = child_seconds(time, size);
    let mut plan = Plan::new(COMPILER);
    match spec.strategy {
        Strategy::Parallel => {
            plan.each(items, vec![templates::batch(wave, deadline_seconds, &[])]);
        }
        Strategy::Rolling | Strategy::Canary => {
            // What stands before a batch is measured when that comes; before the first of a hop nothing is.
            let batch = |after: &[String]| {
                let name = "batch-{item}-gates".to_owned();
                let gates = templates::user_gates(spec, GatePoint::BetweenBatches, name.clone(), after);
                match gates.filter(|_| !after.is_empty()) {
                    Some(gates) => vec![gates, templates::batch(wave, deadline_seconds, &[name])],
                    None => vec![templates::batch(wave, deadline_seconds, after)],
                }
            };
            let canaries = batches.iter().take_while(|batch| batch.canary);
            let went_first: Vec<String> = canaries.clone().flat_map(|batch| batch.nodes.clone()).collect();
            let last = canaries.last().map(|batch| batch.vertex.as_str().to_owned());
            let mut items = items;
            let others = items.split_off(batches.iter().take_while(|batch| batch.canary).count());
            let after_before = ["batch-{before}".to_owned()];
            templates::chain(&mut plan, items, batch(&[]), batch(&after_before));
            let approved = spec.approvals.contains(&ApprovalPoint::AfterCanary);
            // Where no canary is left to go first, what was to be approved after them still is.
            let stands = !others.is_empty() && (last.is_some() || (approved && spec.strategy == Strategy::Canary));
            let gate: Vec<String> = if stands {
                let after: Vec<String> = last.into_iter().collect();
                plan.vertex(templates::canary_gate(target, approved, went_first, soak_seconds(spec), &after));
                vec![gate_name(target, ApprovalPoint::AfterCanary)]
            } else {
                Vec::new()
            };
            templates::chain(&mut plan, others, batch(&gate), batch(&after_before));
        }
    }
    plan
}

/// How long the canaries are watched.
pub(crate) fn soak_seconds(spec: &DirectUpdateSpec) -> u32 {
    let approved = spec.approvals.contains(&ApprovalPoint::AfterCanary);
    match spec.canary.as_ref().and_then(|canary| canary.soak) {
        None if approved => 0,
        None => SOAK_SECONDS_DEFAULT,
        // What is longer was refused.
        Some(soak) => u32::try_from(std::time::Duration::from(soak).as_secs()).unwrap_or(SOAK_SECONDS_MAX),
    }
}

/// The batches for people.
pub(crate) fn previews(batches: &[CompiledBatch]) -> Vec<BatchPreview> {
    batches
        .iter()
        .map(|batch| BatchPreview { number: batch.number, canary: batch.canary, nodes: batch.nodes.clone() })
        .collect()
}
