//! An intent and a snapshot become the plan of a root run, or a refusal with everything that stands in the way. Each hop:
//!
//! ```text
//!  preflight ─► etcd-backup ─► control-plane/cp-1 ─► cp-2 ─► cp-3 ─► addons ─► kubelets/cp-1 ─► cp-2 ─► cp-3 ─► workers ─► verify
//!                               (apply)     (node, one by one)                 (prepare, drain, kubelet, release, uncordon)
//! ```
//! Order: kubeadm-upgrade guide of kubernetes.io ("Upgrading kubeadm clusters", 1.34), with the control-plane kubelets
//! after the whole control plane, so that no kubelet ever talks to an older API server through a load balancer.

use crate::commands::{self, NodeCommands};
use crate::finding::{Code, Finding, Findings, Refusal, Report};
use crate::gates::gate_name;
use crate::hops::{self, ControlPlane};
use crate::request::{Request, RunLimits, batch_nodes, concurrency_of, wave_run};
use crate::summary::{BatchPreview, ContainerdSummary, HopSummary, ImagesSummary, Summary};
use crate::templates::{self, Emptied, Templates, Visit};
use crate::timing::{NodeTime, addons_seconds, child_seconds, estimate_seconds};
use crate::wave::{self, WaveOf, Workers};
use crate::{
    addons, changes, checks, containerd, etcd_store, facts, holds, kubeadm_config, machines, packages, settings,
    surroundings,
};
use cupcake_crds::DirectUpdateSpec;
use cupcake_crds::values::{
    ApprovalPoint, ClusterSnapshot, GatePoint, KubeVersion, NodeRole, NodeSnapshot, PackageVersion, Strategy,
};
use cupcake_engine::names::RunName;
use cupcake_engine::plan::Plan;
use cupcake_steps::ports::host::{KubeProxy, KubeadmUpgrade};
use std::collections::BTreeMap;

/// What stands in every plan as its compiler.
pub const COMPILER: &str = concat!("cupcake-workflows/", env!("CARGO_PKG_VERSION"));
/// The largest plan of a wave or a batch, in bytes of JSON: with the metadata of its UpgradePlan it stays below 64 kB.
pub const PLAN_BYTES_MAX: usize = 62_000;
/// The largest plan of a root run, of which there is one an update: thirteen minors with seven control-plane nodes fit.
pub const ROOT_PLAN_BYTES_MAX: usize = 400_000;

/// What a compiler comes to when nothing stands in the way.
#[derive(Debug, Clone, PartialEq)]
pub enum Compilation<T> {
    /// There is something to do.
    Plan(T),
    /// Everything is as it is asked for.
    NothingToDo(NothingToDo),
}

/// Everything is as it is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct NothingToDo {
    /// For people, in one line.
    pub message: String,
    /// A plan without vertices, for a run that must exist all the same: it succeeds at once.
    pub plan: Plan,
    /// What people should know.
    pub report: Report,
}

/// The plan of a root run.
#[derive(Debug, Clone, PartialEq)]
pub struct Compiled {
    /// The plan.
    pub plan: Plan,
    /// Its digest.
    pub digest: String,
    /// The bounds that the root run is created with.
    pub limits: RunLimits,
    /// What people should know.
    pub report: Report,
    /// The plan in a few lines.
    pub summary: Summary,
    /// The nodes that it changes: control plane, then workers, each by name.
    pub changing: Vec<String>,
    /// What is done on each of them, in order; that of workers as it would be if they moved now.
    pub commands: Vec<NodeCommands>,
}

/// Compiles the root run `run` of a DirectUpdate over what the cluster was at one moment.
///
/// # Guarantees
/// Pure: equal inputs give equal plans. Hop by hop; in each one control-plane nodes are strictly one after another, by name, and
/// the workers that have to move come after all of them. What has arrived already is left out: control plane, kubelets and
/// workers each for themselves. The plan fits [`ROOT_PLAN_BYTES_MAX`] and expands to a graph. `spec.dryRun` is the caller's business.
/// The workers' batches are compiled on trial, so that what cannot fit is refused now; those that count are compiled
/// by [`crate::compile_wave`] when the workers' turn comes.
///
/// # Errors
/// A [`Refusal`] that holds everything that stands in the way. Nothing was started.
pub fn compile(
    request: &Request<'_>,
    run: &RunName,
    snapshot: &ClusterSnapshot,
) -> Result<Compilation<Compiled>, Refusal> {
    let spec = request.spec;
    let mut findings = Findings::default();
    let target = spec.target().map_err(|error| findings.refuse(invalid_version(spec, &error))).ok();
    checks::spec(spec, &mut findings);
    let time = NodeTime::of(spec).map_err(|finding| findings.refuse(finding)).ok();
    checks::cluster(snapshot, target, &mut findings);
    let Some(target) = target else {
        // What the machines are stands in the way of any version.
        let selected =
            |node: &&NodeSnapshot| node.role == NodeRole::ControlPlane || spec.moves(&node.node.name, &node.labels);
        each_machine(spec, snapshot, &snapshot.nodes.values().filter(selected).collect::<Vec<_>>(), &mut findings);
        return Err(Refusal { findings: findings.refused, warnings: findings.warnings });
    };
    checks::versions(spec, snapshot, target, &mut findings);
    let (mut steps, way) = match hops::steps(spec, snapshot, target) {
        Ok(steps) => (steps, Way::Known),
        Err(finding) => {
            findings.refuse(finding);
            (hops::stand_in(spec, snapshot, target), Way::OfMinorsOnly)
        }
    };
    // Decided before the hops are made of the steps, and told after what else is found.
    let mut of_containerd = Findings::default();
    let containerd = containerd::containerd(spec, &Hop::all(&steps, spec), &mut of_containerd);
    if let Some(version) = &containerd {
        hops::give_containerd(&mut steps, spec, version);
    }
    let hops = Hop::all(&steps, spec);
    checks::kubelets(&hops, snapshot, target, &mut findings);
    let control_plane_changes = hops.iter().any(|hop| hop.control_plane.changes());
    let workers = Workers::of(snapshot, spec, target, None);
    checks::selection(spec, snapshot, &workers, control_plane_changes, &mut findings);
    let changing = changing(&hops);
    each_machine(spec, snapshot, &changing, &mut findings);
    match way {
        Way::Known => {
            packages::packages(&hops, &mut findings);
            holds::holds(&hops, containerd.as_ref(), &mut findings);
            findings.append(of_containerd);
        }
        Way::OfMinorsOnly => {}
    }
    changes::changes(spec, snapshot, &hops, containerd.as_ref(), &mut findings);
    kubeadm_config::read(snapshot, &hops, &mut findings);
    settings::settings(spec, snapshot, &hops, &mut findings);
    surroundings::surroundings(spec, snapshot, &hops, &mut findings);
    if let Err(finding) = batch_nodes(spec, workers.selected_count(), workers.moving_count()) {
        findings.refuse(finding);
    }
    let (Some(time), true) = (time, findings.refused.is_empty()) else {
        return Err(Refusal { findings: findings.refused, warnings: findings.warnings });
    };
    if !control_plane_changes && workers.moving.is_empty() {
        let message = format!("every selected node is at {target}");
        let report = findings.end()?;
        return Ok(Compilation::NothingToDo(NothingToDo { message, plan: Plan::new(COMPILER), report }));
    }
    let mut plan = Plan::new(COMPILER);
    let (mut after, mut before) = (Vec::new(), snapshot.server.minor_version());
    let (mut summaries, mut commands) = (Vec::new(), Vec::new());
    for hop in &hops {
        let wave = wave_run(run, hop.step.version).map_err(Refusal::one)?;
        let kube_proxy = addons::kube_proxy(snapshot, hop.step.version);
        let of = WaveOf {
            target: hop.step.version,
            oldest_kubelet: hop.step.oldest_kubelet,
            containerd: containerd.clone(),
            kube_proxy,
        };
        let trial = wave::plans(request, &wave, &of, &hop.workers, std::mem::take(&mut findings))?;
        let (batches, report) = match trial {
            Compilation::Plan(wave) => (wave.batches, wave.report),
            Compilation::NothingToDo(nothing) => (Vec::new(), nothing.report),
        };
        findings.warnings = report.warnings;
        let templates = Templates::new(spec, hop.step.version, time)
            .with_further_hops(target, hop.step.oldest_kubelet)
            .with_containerd(containerd.clone())
            .with_kube_proxy(kube_proxy)
            .with_look_at_etcd(etcd_store::right_before_kubeadm(spec, snapshot, hop.step.version, before))
            .of_several(hops.len() > 1);
        let parts_before = plan.parts.len();
        before = before.max(hop.step.version.minor_version());
        after = add_hop(&mut plan, spec, run, &wave, &templates, hop, after);
        commands.extend(commands::of_hop(hop.step.version, &plan.parts[parts_before..], &batches));
        let of_hop = hop.summary(spec, containerd.as_ref(), wave::previews(&batches));
        summaries.push(HopSummary { kube_proxy, ..of_hop });
    }
    let mut report = findings.end()?;
    report.warnings.dedup();
    if let Err(finding) = checked(&plan, ROOT_PLAN_BYTES_MAX, "the root run's plan", &shorter(&hops)) {
        return Err(Refusal { findings: vec![finding], warnings: report.warnings });
    }
    let digest = plan.digest();
    let changing = changing.iter().map(|node| node.node.name.clone()).collect();
    let summary = summary(spec, snapshot, target, &workers, summaries);
    Ok(Compilation::Plan(Compiled { plan, digest, limits: RunLimits::STRICT, report, summary, changing, commands }))
}

/// What of the way to the target is known: where there is none, what its minors bring is told all the same.
enum Way {
    /// Every version of it.
    Known,
    /// Its minors, of which the update goes through no particular version.
    OfMinorsOnly,
}

/// What stands in the way of changing these nodes, whatever the version.
fn each_machine(
    spec: &DirectUpdateSpec,
    snapshot: &ClusterSnapshot,
    changing: &[&NodeSnapshot],
    findings: &mut Findings,
) {
    checks::quorum(snapshot, findings);
    checks::readiness(snapshot, changing, findings);
    machines::machines(spec, snapshot, changing, findings);
}

/// One hop, with what moves in it.
pub(crate) struct Hop<'s> {
    pub step: &'s hops::Step<'s>,
    pub control_plane: ControlPlane<'s>,
    pub workers: Workers<'s>,
}

impl<'s> Hop<'s> {
    /// All of them, in order.
    fn all(steps: &'s [hops::Step<'_>], spec: &DirectUpdateSpec) -> Vec<Self> {
        let of =
            |step: &'s hops::Step<'_>| Hop { step, control_plane: step.control_plane(), workers: step.workers(spec) };
        steps.iter().map(of).collect()
    }

    /// The nodes that are emptied in it, by name.
    pub fn drained(&self, spec: &DirectUpdateSpec) -> BTreeMap<&'s str, &'s NodeSnapshot> {
        let target = self.step.version;
        let kubelets = &self.control_plane.kubelets;
        let control_plane = kubelets.iter().filter(|_| Emptied::of_all(spec, kubelets, target) == Emptied::First);
        let workers = self.workers.moving.iter().filter(|node| Emptied::of(spec, node, target) == Emptied::First);
        control_plane.chain(workers).map(|node| (node.node.name.as_str(), *node)).collect()
    }

    /// The version of containerd that nodes get in it, and how many.
    fn containerd(&self, version: Option<&PackageVersion>) -> Option<ContainerdSummary> {
        let version = version?;
        let moving = self.control_plane.kubelets.iter().chain(&self.workers.moving);
        let nodes = moving.filter(|node| containerd::moves(node, version)).count();
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
        (nodes > 0).then(|| ContainerdSummary { version: version.clone(), nodes })
    }

    /// The images that kubeadm brings in it, where the control plane moves and they are known.
    fn images(&self) -> Option<ImagesSummary> {
        let facts::Images { coredns, etcd, pause, .. } =
            facts::images(&self.step.before.facts, self.step.version).filter(|_| self.control_plane.moves)?;
        Some(ImagesSummary { coredns, etcd, pause })
    }

    fn summary(
        &self,
        spec: &DirectUpdateSpec,
        containerd: Option<&PackageVersion>,
        batches: Vec<BatchPreview>,
    ) -> HopSummary {
        let moving = self.control_plane.kubelets.len() + self.workers.moving.len();
        let undrained = moving.saturating_sub(self.drained(spec).len());
        let names = |nodes: &[&NodeSnapshot]| nodes.iter().map(|node| node.node.name.clone()).collect::<Vec<_>>();
        HopSummary {
            version: self.step.version,
            reason: self.step.reason.clone(),
            backup_on: self.control_plane.backup_on().map(|node| node.node.name.clone()),
            control_plane: if self.control_plane.moves { names(&self.control_plane.nodes) } else { Vec::new() },
            addons: !self.step.is_for_late_kubelets(),
            kube_proxy: KubeProxy::Upgrade,
            kubelets: names(&self.control_plane.kubelets),
            workers: self.workers.moving_count(),
            undrained: u32::try_from(undrained).unwrap_or(u32::MAX),
            containerd: self.containerd(containerd),
            images: self.images(),
            batches,
        }
    }
}

/// Every node that some hop changes, by name.
fn changing<'s>(hops: &'s [Hop<'s>]) -> Vec<&'s NodeSnapshot> {
    let of_hop = |hop: &'s Hop<'s>| hop.control_plane.changing().chain(hop.workers.moving.iter().copied());
    let by_name: BTreeMap<&str, &NodeSnapshot> =
        hops.iter().rev().flat_map(of_hop).map(|node| (node.node.name.as_str(), node)).collect();
    let (control_plane, workers): (Vec<_>, Vec<_>) =
        by_name.into_values().partition(|node| node.role == NodeRole::ControlPlane);
    control_plane.into_iter().chain(workers).collect()
}

/// What to do about a plan that is too large.
fn shorter(hops: &[Hop<'_>]) -> String {
    match hops {
        [] | [_] => "report this as a fault of CUPCAKE".to_owned(),
        [..] => format!("upgrade to {} first, then on from there", hops[(hops.len() - 1) / 2].step.version),
    }
}

fn invalid_version(spec: &DirectUpdateSpec, error: &cupcake_crds::values::InvalidVersion) -> Finding {
    let message = format!("no Kubernetes version: {}", error.problem);
    let remedy = "write it as major.minor.patch, for example 1.34.4";
    Finding::new(Code::InvalidVersion, "spec.targetVersion", &spec.target_version, message, remedy)
}

/// Appends a hop that comes after `after`; gives what the next one comes after.
fn add_hop(
    plan: &mut Plan,
    spec: &DirectUpdateSpec,
    run: &RunName,
    wave: &RunName,
    templates: &Templates<'_>,
    hop: &Hop<'_>,
    mut after: Vec<String>,
) -> Vec<String> {
    if spec.approvals.contains(&ApprovalPoint::BeforeEachHop) {
        plan.vertex(templates.approval(ApprovalPoint::BeforeEachHop, &after));
        after = vec![gate_name(templates.target, ApprovalPoint::BeforeEachHop)];
    }
    after = add_user_gates(plan, spec, GatePoint::BeforeEachHop, templates.name("hop-gates"), after);
    if spec.preflight_checks {
        plan.vertex(templates.preflight(&after));
        after = vec![templates.name("preflight")];
    }
    let control_plane = &hop.control_plane;
    if control_plane.moves && spec.approvals.contains(&ApprovalPoint::BeforeControlPlane) {
        plan.vertex(templates.approval(ApprovalPoint::BeforeControlPlane, &after));
        after = vec![gate_name(templates.target, ApprovalPoint::BeforeControlPlane)];
    }
    if control_plane.moves {
        let name = templates.name("control-plane-gates");
        after = add_user_gates(plan, spec, GatePoint::BeforeControlPlane, name, after);
    }
    if let Some(node) = control_plane.backup_on() {
        templates.etcd_backup(run, &node.node, &after).into_iter().for_each(|vertex| {
            plan.vertex(vertex);
        });
        after = vec![templates.name("etcd-backup")];
    }
    let mut first_kubeadm = None;
    if control_plane.moves {
        let kubeadm = |node: &str| templates.name(&format!("control-plane/{node}/kubeadm-upgrade"));
        let items: Vec<_> = control_plane.nodes.iter().map(|node| templates::item(node)).collect();
        let last = items.last().map(|item| kubeadm(&item.name));
        first_kubeadm = items.first().map(|item| kubeadm(&item.name));
        let first = templates.kubeadm_upgrade(run, KubeadmUpgrade::Apply, &after);
        let rest = templates.kubeadm_upgrade(run, KubeadmUpgrade::Node, &[kubeadm("{before}")]);
        templates::chain(plan, items, first, rest);
        after = last.into_iter().collect();
    }
    if !hop.step.is_for_late_kubelets() {
        let nodes = u32::try_from(hop.step.before.nodes.len()).unwrap_or(u32::MAX);
        plan.vertex(templates.addons(addons_seconds(nodes), first_kubeadm.as_deref(), &after));
        after = vec![templates.name("addons")];
    }
    if !control_plane.kubelets.is_empty() {
        // Release and uncordon run whatever came before them, so what follows asks for the kubelet too.
        let emptied = Emptied::of_all(spec, &control_plane.kubelets, templates.target);
        let ends: &[&str] = match emptied {
            Emptied::First => &["kubelet", "release", "uncordon"],
            Emptied::Never => &["kubelet", "release"],
        };
        let done = |node: &str| -> Vec<String> {
            ends.iter().map(|word| templates.name(&format!("kubelets/{node}/{word}"))).collect()
        };
        let items: Vec<_> = control_plane.kubelets.iter().map(|node| templates::item(node)).collect();
        let last = items.last().map(|item| done(&item.name));
        let prefix = templates.name("kubelets/{item}");
        // All of them or none, as with their drains: where it is there already, the step finds that.
        let containerd = templates.containerd_for(&control_plane.kubelets);
        let first = templates.visit(&prefix, Visit::ControlPlane, emptied, containerd, &after);
        let rest = templates.visit(&prefix, Visit::ControlPlane, emptied, containerd, &done("{before}"));
        templates::chain(plan, items, first, rest);
        after = last.unwrap_or_default();
    }
    // Workers that join meanwhile have to fit the next hop, too: its wave looks for them even if nobody has to move now.
    let may_have_to_move = hop.step.oldest_kubelet.is_some() && hop.workers.selected_count() > 0;
    if !hop.workers.moving.is_empty() || may_have_to_move {
        let deadline_seconds = child_seconds(&templates.time, hop.workers.moving_count().max(1));
        plan.vertex(templates.wave(wave, deadline_seconds, &after));
        after = vec![templates.name("workers")];
    }
    plan.vertex(templates.verify(&after));
    vec![templates.name("verify")]
}

/// Appends the gates of a user at that place, if there are such; gives what the next one comes after.
fn add_user_gates(
    plan: &mut Plan,
    spec: &DirectUpdateSpec,
    point: GatePoint,
    name: String,
    after: Vec<String>,
) -> Vec<String> {
    match templates::user_gates(spec, point, name.clone(), &after) {
        Some(gates) => {
            plan.vertex(gates);
            vec![name]
        }
        None => after,
    }
}

fn summary(
    spec: &DirectUpdateSpec,
    snapshot: &ClusterSnapshot,
    target: KubeVersion,
    workers: &Workers<'_>,
    hops: Vec<HopSummary>,
) -> Summary {
    let count = |nodes: &[&NodeSnapshot]| u32::try_from(nodes.len()).unwrap_or(u32::MAX);
    let names = |nodes: &[String]| u32::try_from(nodes.len()).unwrap_or(u32::MAX);
    let concurrency = concurrency_of(spec, workers.selected_count()).min(workers.moving_count().max(1));
    let seconds = hops.iter().map(|hop| {
        let at_once = concurrency.min(hop.workers.max(1));
        let soak = if spec.strategy == Strategy::Canary && hop.workers > 0 { wave::soak_seconds(spec) } else { 0 };
        estimate_seconds(names(&hop.control_plane), names(&hop.kubelets), hop.workers, at_once).saturating_add(soak)
    });
    let estimate_seconds = seconds.fold(0, u32::saturating_add);
    Summary {
        from: snapshot.server,
        target,
        hops,
        workers_at_target: count(&workers.at_target),
        workers_left_out: count(&workers.left_out),
        concurrency,
        estimate_seconds,
    }
}

/// Whether a plan can be stored and executed; if not, why.
pub(crate) fn checked(plan: &Plan, bytes_max: usize, what: &str, remedy: &str) -> Result<(), Finding> {
    let bytes = plan_bytes(plan);
    if bytes > bytes_max {
        let message = format!("{what} has {bytes} bytes, an object takes {bytes_max}");
        return Err(Finding::new(Code::TooLarge, "plan", "", message, remedy));
    }
    match plan.expand() {
        Ok(_) => Ok(()),
        Err(error) => {
            // Of a node with a name that makes no vertex name, the source says which.
            let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            Err(Finding::new(
                Code::InvalidPlan,
                "plan",
                "",
                format!("{what} makes no graph: {error}{source}"),
                "report this as a fault of CUPCAKE",
            ))
        }
    }
}

/// The size of a plan as it is stored, in bytes of JSON.
pub fn plan_bytes(plan: &Plan) -> usize {
    serde_json::to_vec(plan).map_or(usize::MAX, |json| json.len())
}
