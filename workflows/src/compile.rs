//! An intent and a snapshot become the plan of a root run for one hop, or a refusal with everything that stands in the way.
//!
//! ```text
//!  preflight ─► etcd-backup ─► control-plane/cp-1 ─► cp-2 ─► cp-3 ─► addons ─► kubelets/cp-1 ─► cp-2 ─► cp-3 ─► workers ─► verify
//!                               (apply)     (node, one by one)                 (prepare, drain, kubelet, release, uncordon)
//! ```
//! Order: kubeadm-upgrade guide of kubernetes.io ("Upgrading kubeadm clusters", 1.34), with the control-plane kubelets
//! after the whole control plane, so that no kubelet ever talks to an older API server through a load balancer.

use crate::checks;
use crate::finding::{Code, Finding, Findings, Refusal, Report};
use crate::request::{Request, RunLimits, batch_nodes, concurrency_of, wave_run};
use crate::summary::Summary;
use crate::templates::{self, Templates, Visit};
use crate::timing::{NodeTime, addons_seconds, child_seconds, estimate_seconds};
use crate::wave::{self, Workers};
use cupcake_crds::DirectUpdateSpec;
use cupcake_crds::values::{ClusterSnapshot, KubeVersion, NodeRole, NodeSnapshot};
use cupcake_engine::names::RunName;
use cupcake_engine::plan::Plan;
use cupcake_steps::ports::host::KubeadmUpgrade;

/// What stands in every plan as its compiler.
pub const COMPILER: &str = concat!("cupcake-workflows/", env!("CARGO_PKG_VERSION"));
/// The largest plan, in bytes of JSON: with the metadata of its UpgradePlan it stays below 64 kB.
pub const PLAN_BYTES_MAX: usize = 62_000;

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
}

/// Compiles the root run `run` of a DirectUpdate over what the cluster was at one moment.
///
/// # Guarantees
/// Pure: equal inputs give equal plans. Control-plane nodes are strictly one after another, by name; the workers come after
/// all of them. What has arrived already is left out: control plane, kubelets and workers each for themselves.
/// The plan fits [`PLAN_BYTES_MAX`] and expands to a graph. `spec.dryRun` is the caller's business.
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
    checks::cluster(snapshot, &mut findings);
    let Some(target) = target else {
        return Err(Refusal { findings: findings.refused, warnings: findings.warnings });
    };
    let workers = Workers::of(snapshot, &spec.node_selector, target);
    let hop = Hop::of(snapshot, target);
    checks::versions(snapshot, target, &workers, &mut findings);
    let control_plane_changes = hop.control_plane_moves || !hop.kubelets.is_empty();
    checks::selection(spec, snapshot, &workers, control_plane_changes, &mut findings);
    checks::readiness(&hop.changing(&workers), &mut findings);
    if let Err(finding) = batch_nodes(spec, workers.selected_count(), workers.moving_count()) {
        findings.refuse(finding);
    }
    let wave = wave_run(run, target).map_err(|finding| findings.refuse(finding)).ok();
    let (Some(time), Some(wave), true) = (time, wave, findings.refused.is_empty()) else {
        return Err(Refusal { findings: findings.refused, warnings: findings.warnings });
    };
    if !control_plane_changes && workers.moving.is_empty() {
        let message = format!("every selected node is at {target}");
        let report = findings.end()?;
        return Ok(Compilation::NothingToDo(NothingToDo { message, plan: Plan::new(COMPILER), report }));
    }
    let (batches, report) = match wave::plans(request, &wave, target, &workers, findings)? {
        Compilation::Plan(wave) => (wave::previews(&wave.batches), wave.report),
        Compilation::NothingToDo(nothing) => (Vec::new(), nothing.report),
    };
    let templates = Templates { target, time, components: &spec.components, node_selector: &spec.node_selector };
    let plan = root_plan(spec, run, &wave, snapshot, &templates, &hop, &workers);
    if let Err(finding) = checked(&plan, "the root run's plan", "report this as a fault of CUPCAKE") {
        return Err(Refusal { findings: vec![finding], warnings: report.warnings });
    }
    let digest = plan.digest();
    let summary = summary(spec, snapshot, target, &hop, &workers, batches);
    Ok(Compilation::Plan(Compiled { plan, digest, limits: RunLimits::STRICT, report, summary }))
}

fn invalid_version(spec: &DirectUpdateSpec, error: &cupcake_crds::values::InvalidVersion) -> Finding {
    let message = format!("no Kubernetes version: {}", error.problem);
    let remedy = "write it as major.minor.patch, for example 1.34.4";
    Finding::new(Code::InvalidVersion, "spec.targetVersion", &spec.target_version, message, remedy)
}

/// What of the control plane moves.
struct Hop<'s> {
    /// All control-plane nodes, by name.
    control_plane: Vec<&'s NodeSnapshot>,
    /// Whether kubeadm has anything to do on them.
    control_plane_moves: bool,
    /// Those whose kubelet moves, by name.
    kubelets: Vec<&'s NodeSnapshot>,
}

impl<'s> Hop<'s> {
    fn of(snapshot: &'s ClusterSnapshot, target: KubeVersion) -> Self {
        let control_plane: Vec<_> = snapshot.with_role(NodeRole::ControlPlane).collect();
        // kubeadm writes its configuration while it is at the first node: an oldest API server that is behind, or a
        // configuration that is, means that it has not been everywhere. Where it has been, the step finds its goal reached.
        let kubelets: Vec<_> = control_plane.iter().copied().filter(|node| node.kubelet != target).collect();
        // Nor do both of these prove that it ended: scheduler, kubelet configuration and addons come after them. The kubelets of
        // the control plane do, since they follow all of kubeadm's work, and repeating that work at one version changes nothing.
        let control_plane_moves =
            snapshot.server != target || snapshot.kubeadm_config != Some(target) || !kubelets.is_empty();
        Self { control_plane, control_plane_moves, kubelets }
    }

    /// Every node that the hop changes.
    fn changing(&self, workers: &Workers<'s>) -> Vec<&'s NodeSnapshot> {
        let control_plane = if self.control_plane_moves { &self.control_plane } else { &self.kubelets };
        control_plane.iter().chain(&workers.moving).copied().collect()
    }

    /// Where the snapshot of etcd is taken: the first Ready control-plane node by name.
    fn backup_on(&self) -> Option<&'s NodeSnapshot> {
        if !self.control_plane_moves {
            return None;
        }
        let ready = self.control_plane.iter().find(|node| node.ready);
        ready.or_else(|| self.control_plane.first()).copied()
    }
}

fn root_plan(
    spec: &DirectUpdateSpec,
    run: &RunName,
    wave: &RunName,
    snapshot: &ClusterSnapshot,
    templates: &Templates<'_>,
    hop: &Hop<'_>,
    workers: &Workers<'_>,
) -> Plan {
    let mut plan = Plan::new(COMPILER);
    // What the next part comes after.
    let mut after: Vec<String> = Vec::new();
    if spec.preflight_checks {
        plan.vertex(templates.preflight());
        after = vec![templates.name("preflight")];
    }
    if let Some(node) = hop.backup_on() {
        templates.etcd_backup(run, &node.node, &after).into_iter().for_each(|vertex| {
            plan.vertex(vertex);
        });
        after = vec![templates.name("etcd-backup")];
    }
    if hop.control_plane_moves {
        let kubeadm = |node: &str| templates.name(&format!("control-plane/{node}/kubeadm-upgrade"));
        let items: Vec<_> = hop.control_plane.iter().map(|node| templates::item(node)).collect();
        let last = items.last().map(|item| kubeadm(&item.name));
        let first = templates.kubeadm_upgrade(KubeadmUpgrade::Apply, &after);
        let rest = templates.kubeadm_upgrade(KubeadmUpgrade::Node, &[kubeadm("{before}")]);
        templates::chain(&mut plan, items, first, rest);
        after = last.into_iter().collect();
    }
    let nodes = u32::try_from(snapshot.nodes.len()).unwrap_or(u32::MAX);
    plan.vertex(templates.addons(addons_seconds(nodes), &after));
    after = vec![templates.name("addons")];
    if !hop.kubelets.is_empty() {
        // Release and uncordon run whatever came before them, so what follows asks for the kubelet too.
        let done = |node: &str| {
            ["kubelet", "release", "uncordon"].map(|word| templates.name(&format!("kubelets/{node}/{word}"))).to_vec()
        };
        let items: Vec<_> = hop.kubelets.iter().map(|node| templates::item(node)).collect();
        let last = items.last().map(|item| done(&item.name));
        let prefix = templates.name("kubelets/{item}");
        let first = templates.visit(&prefix, Visit::ControlPlane, &after);
        let rest = templates.visit(&prefix, Visit::ControlPlane, &done("{before}"));
        templates::chain(&mut plan, items, first, rest);
        after = last.unwrap_or_default();
    }
    if !workers.moving.is_empty() {
        let deadline_seconds = child_seconds(&templates.time, workers.moving_count());
        plan.vertex(templates.wave(wave, deadline_seconds, &after));
        after = vec![templates.name("workers")];
    }
    plan.vertex(templates.verify(&after));
    plan
}

fn summary(
    spec: &DirectUpdateSpec,
    snapshot: &ClusterSnapshot,
    target: KubeVersion,
    hop: &Hop<'_>,
    workers: &Workers<'_>,
    batches: Vec<crate::summary::BatchPreview>,
) -> Summary {
    let names = |nodes: &[&NodeSnapshot]| nodes.iter().map(|node| node.node.name.clone()).collect::<Vec<_>>();
    let count = |nodes: &[&NodeSnapshot]| u32::try_from(nodes.len()).unwrap_or(u32::MAX);
    let concurrency = concurrency_of(spec, workers.selected_count()).min(workers.moving_count().max(1));
    let moved = if hop.control_plane_moves { count(&hop.control_plane) } else { 0 };
    Summary {
        from: snapshot.server,
        target,
        control_plane_moves: hop.control_plane_moves,
        control_plane: names(&hop.control_plane),
        backup_on: hop.backup_on().map(|node| node.node.name.clone()),
        control_plane_kubelets: names(&hop.kubelets),
        workers: workers.moving_count(),
        workers_at_target: count(&workers.at_target),
        workers_left_out: count(&workers.left_out),
        concurrency,
        batches,
        estimate_seconds: estimate_seconds(moved, count(&hop.kubelets), workers.moving_count(), concurrency),
    }
}

/// Whether a plan can be stored and executed; if not, why.
pub(crate) fn checked(plan: &Plan, what: &str, remedy: &str) -> Result<(), Finding> {
    let bytes = plan_bytes(plan);
    if bytes > PLAN_BYTES_MAX {
        let message = format!("{what} has {bytes} bytes, an object takes {PLAN_BYTES_MAX}");
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
