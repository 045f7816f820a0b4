//! The vertices of plans: names, kinds, parameters and order, each in one place.
//!
//! ```text
//!  <visit>/prepare ─► <visit>/drain ─► <visit>/kubelet ─┬► <visit>/release      lane = the node
//!   host-order         drain-node       host-proceed      └► <visit>/uncordon
//!
//!   release   host-release, guarded by prepare: no order of ours stays open, whatever came of it
//!   uncordon  uncordon-node, guarded by drain: runs in any case once a drain began
//!
//!  where the kubelet stays in its minor and spec.drain.onPatch is false: <visit>/prepare ─► <visit>/kubelet ─► <visit>/release
//! ```

use crate::containerd;
use crate::gates::{GATE_SECONDS, gate_name};
use crate::timing::{
    BACKUP_SECONDS, CONTROL_PLANE_SOAK_SECONDS, NodeTime, PREFLIGHT_SECONDS, VERIFY_SECONDS, WORKER_SOAK_SECONDS,
    pod_seconds,
};
use crate::user_gates;
use crate::wave::WaveOf;
use cupcake_crds::DirectUpdateSpec;
use cupcake_crds::values::{
    ApprovalPoint, Component, DrainRule, GatePoint, HostStep, KubeVersion, NodeRef, NodeSnapshot, OnExpiry,
    PackageVersion,
};
use cupcake_engine::names::{InvalidName, RunName, StepKind, VertexName};
use cupcake_engine::plan::{Item, Plan, VertexTemplate};
use cupcake_steps::cluster::params::{
    Addons, ChildRun, DrainNode, FreshSnapshot, Gate, HostOrder, MetricGate, MetricGates, Preflight, Stragglers,
    UncordonNode, VerifyCluster,
};
use cupcake_steps::host::params::{
    CHECK_ETCD, CHECK_STEP, CONTAINERD_STEP, CheckEtcd, ETCD_SNAPSHOT, EtcdSnapshot, INSTALL_PACKAGES, InstallPackages,
    KUBEADM_UPGRADE, PULL_IMAGES, PULL_STEP, PULL_WORKER_IMAGES, PullImages, PullWorkerImages, RESTART_KUBELET,
    RESTART_STEP, RestartKubelet, SNAPSHOT_STEP, SWITCH_REPOSITORY, SwitchRepository, UPGRADE_CONTAINERD,
    UpgradeByKubeadm, UpgradeContainerd, host_step,
};
use cupcake_steps::ports::cluster::ChildSource;
use cupcake_steps::ports::host::{KubeProxy, KubeadmUpgrade, Package};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;

/// Kinds of the cluster steps that plans of this release are made of, sorted.
pub const CLUSTER_KINDS: [&str; 12] = [
    ADDONS,
    CHILD_RUN,
    DRAIN_NODE,
    GATE,
    HOST_ORDER,
    HOST_PROCEED,
    HOST_RELEASE,
    METRIC_GATES,
    PREFLIGHT,
    STRAGGLERS,
    UNCORDON_NODE,
    VERIFY_CLUSTER,
];
const ADDONS: &str = "addons/v1";
/// Kind of the vertices that stand for a whole run.
pub const CHILD_RUN: &str = "child-run/v1";
/// Kind of the vertices that empty a node.
pub(crate) const DRAIN_NODE: &str = "drain-node/v1";
const GATE: &str = "gate/v1";
/// Kind of the vertices that place an order on a node.
pub(crate) const HOST_ORDER: &str = "host-order/v1";
/// Kind of the vertices that let the second part of an order go on.
pub(crate) const HOST_PROCEED: &str = "host-proceed/v1";
/// Kind of the vertices that close an order which nobody waits for any more.
pub(crate) const HOST_RELEASE: &str = "host-release/v1";
/// Kind of the vertices that measure.
pub const METRIC_GATES: &str = "metric-gates/v1";
const PREFLIGHT: &str = "preflight/v1";
/// Kind of the vertices that try workers again which failed within `spec.maxFailures`.
pub const STRAGGLERS: &str = "stragglers/v1";
/// Kind of the vertices that give a node back.
pub(crate) const UNCORDON_NODE: &str = "uncordon-node/v1";
const VERIFY_CLUSTER: &str = "verify-cluster/v1";

/// Attempts of kubeadm on a control-plane node: one retry after a recorded failure and a third, then a person looks
/// (each one copies etcd's data to the disk first).
const KUBEADM_ATTEMPTS_MAX: u32 = 3;
/// The vertex of a hop that takes its snapshot of etcd.
const BACKUP: &str = "etcd-backup";
/// How old the snapshot of its hop may be when a control-plane node is ordered to run kubeadm, in seconds: longer than the control plane
/// of nine nodes takes (half an hour), so that an update that nothing holds takes one; much shorter than the time between two windows.
const SNAPSHOT_AGE_SECONDS_MAX: u32 = 3_600;

/// Makes the vertices of one hop.
pub(crate) struct Templates<'a> {
    pub target: KubeVersion,
    pub time: NodeTime,
    components: &'a [Component],
    node_selector: &'a BTreeMap<String, String>,
    /// Where the whole update goes, and the oldest kubelet that the next hop takes; absent in the last hop.
    further: Option<(KubeVersion, KubeVersion)>,
    /// Whether it is one hop of several.
    several: bool,
    on_expiry: OnExpiry,
    pod_seconds: Option<u32>,
    drain_rules: &'a [DrainRule],
    /// The version of containerd that visited nodes get, if it moves, too.
    containerd: Option<PackageVersion>,
    kube_proxy: KubeProxy,
    /// What of etcd each control-plane node looks at right before its kubeadm begins.
    check_etcd: CheckEtcd,
    /// Where workers take images from, if not from kubeadm's own repository.
    image_repository: Option<&'a str>,
}

/// Who is visited: decides what the node does before its drain, and how long it is watched afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visit {
    /// kubeadm has been there: packages of the kubelet only.
    ControlPlane,
    /// Everything.
    Worker,
}

/// Whether a node is emptied before its kubelet restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Emptied {
    /// Cordoned and drained.
    First,
    /// Not at all: its kubelet stays in its minor, and `spec.drain.onPatch` is false.
    Never,
}

impl Emptied {
    /// Of a node that moves to `target`.
    ///
    /// Source: kubernetes.io, "Version Skew Policy" (v1.34): a kubelet may not change its minor in place without a drain. Nor does
    /// containerd move on a node that carries its pods.
    pub fn of(spec: &DirectUpdateSpec, node: &NodeSnapshot, target: KubeVersion) -> Self {
        let stays = node.kubelet.minor_version() == target.minor_version();
        let stays = stays && !spec.moves_containerd();
        if stays && spec.drain.as_ref().is_some_and(|drain| !drain.on_patch) { Self::Never } else { Self::First }
    }

    /// Of all control-plane nodes of a hop alike.
    pub fn of_all(spec: &DirectUpdateSpec, nodes: &[&NodeSnapshot], target: KubeVersion) -> Self {
        let first = nodes.iter().any(|node| Self::of(spec, node, target) == Self::First);
        if first { Self::First } else { Self::Never }
    }
}

impl<'a> Templates<'a> {
    /// Those of the last hop.
    pub fn new(spec: &'a DirectUpdateSpec, target: KubeVersion, time: NodeTime) -> Self {
        let (components, node_selector) = (&spec.components, &spec.node_selector);
        let on_expiry = spec.drain.as_ref().map_or(OnExpiry::Hold, |drain| drain.on_expiry);
        let pod_seconds = pod_seconds(spec);
        let drain_rules = spec.drain.as_ref().map_or(&[][..], |drain| &drain.rules);
        let (further, several, containerd, kube_proxy, image_repository) =
            (None, false, None, KubeProxy::Upgrade, None);
        Self {
            target,
            time,
            components,
            node_selector,
            further,
            several,
            on_expiry,
            pod_seconds,
            drain_rules,
            containerd,
            kube_proxy,
            check_etcd: CheckEtcd::default(),
            image_repository,
        }
    }

    /// Those of one hop of several: a node gives its slot back between two of them.
    pub fn of_several(self, several: bool) -> Self {
        Self { several, ..self }
    }

    /// Those of a hop after which the update goes on to `to`, first to a version whose oldest kubelet is that.
    pub fn with_further_hops(self, to: KubeVersion, oldest_kubelet: Option<KubeVersion>) -> Self {
        Self { further: oldest_kubelet.map(|oldest| (to, oldest)), ..self }
    }

    /// Those of an update in which visited nodes get that version of containerd, too.
    pub fn with_containerd(self, containerd: Option<PackageVersion>) -> Self {
        Self { containerd, ..self }
    }

    /// Those of a cluster in which kubeadm does that about kube-proxy.
    pub fn with_kube_proxy(self, kube_proxy: KubeProxy) -> Self {
        Self { kube_proxy, ..self }
    }

    /// Those of a hop whose control-plane nodes look at that of etcd right before kubeadm.
    pub fn with_look_at_etcd(self, check_etcd: CheckEtcd) -> Self {
        Self { check_etcd, ..self }
    }

    /// Those of a cluster whose images come from there.
    pub fn with_image_repository(self, image_repository: Option<&'a str>) -> Self {
        Self { image_repository, ..self }
    }

    /// What kubeadm of this hop can be told about it.
    fn told_of_kube_proxy(&self) -> KubeProxy {
        if self.target.minor() >= KubeProxy::LEFT_OUT_FROM { self.kube_proxy } else { KubeProxy::Upgrade }
    }

    /// The version of containerd that a visit of these nodes brings; none where all of them have it.
    pub fn containerd_for(&self, nodes: &[&NodeSnapshot]) -> Option<&PackageVersion> {
        containerd::for_any(nodes, self.containerd.as_ref())
    }

    fn oldest_kubelet(&self) -> Option<KubeVersion> {
        self.further.map(|(_, oldest)| oldest)
    }

    /// `<hop>/<rest>`
    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.target)
    }

    pub fn preflight(&self, after: &[String]) -> VertexTemplate {
        let params = Preflight {
            target_version: self.target,
            newest_kubelet: self.further.map(|(to, _)| to),
            node_selector: self.node_selector.clone(),
        };
        vertex(self.name("preflight"), PREFLIGHT, &params, after).deadline_seconds(PREFLIGHT_SECONDS)
    }

    /// What follows waits for a person.
    pub fn approval(&self, point: ApprovalPoint, after: &[String]) -> VertexTemplate {
        let name = gate_name(self.target, point);
        let params = Gate { approval: Some(name.clone()), nodes: Vec::new(), soak_seconds: 0 };
        vertex(name, GATE, &params, after).deadline_seconds(GATE_SECONDS)
    }

    /// The snapshot of etcd, and the release of its order.
    pub fn etcd_backup(&self, run: &RunName, node: &NodeRef, after: &[String]) -> [VertexTemplate; 2] {
        let snapshot = EtcdSnapshot { name: self.snapshot_name(run) };
        let order = HostOrder {
            node: node.clone(),
            target_version: self.target,
            prepare: vec![host_step(SNAPSHOT_STEP, ETCD_SNAPSHOT, &snapshot)],
            finish: Vec::new(),
            work_seconds_max: BACKUP_SECONDS,
            snapshot: None,
        };
        let name = self.name(BACKUP);
        let release = self.release(self.name("etcd-backup-release"), node, &[&name], &name);
        [vertex(name, HOST_ORDER, &order, after).deadline_seconds(BACKUP_SECONDS), release]
    }

    fn snapshot_name(&self, run: &RunName) -> String {
        format!("{run}-{}", self.target)
    }

    /// kubeadm on a control-plane node, never without a fresh snapshot and a look at etcd, and the release of its order; no lane, so that
    /// any failure there stops the run.
    pub fn kubeadm_upgrade(&self, run: &RunName, how: KubeadmUpgrade, after: &[String]) -> Vec<VertexTemplate> {
        let step = match how {
            KubeadmUpgrade::Apply => "kubeadm-upgrade-apply",
            KubeadmUpgrade::Node => "kubeadm-upgrade-node",
        };
        let order = HostOrder {
            node: item_node(),
            target_version: self.target,
            prepare: vec![
                self.switch_repository(),
                self.install_kubeadm(),
                host_step(PULL_STEP, PULL_IMAGES, &PullImages { version: self.target }),
                // The last before kubeadm: what comes before may take minutes.
                host_step(CHECK_STEP, CHECK_ETCD, &self.check_etcd),
                host_step(
                    step,
                    KUBEADM_UPGRADE,
                    &UpgradeByKubeadm {
                        how,
                        version: self.target,
                        kube_proxy: self.told_of_kube_proxy(),
                        success_of: Vec::new(),
                    },
                ),
            ],
            finish: Vec::new(),
            work_seconds_max: self.time.whole_seconds,
            snapshot: Some(FreshSnapshot {
                vertex: VertexName::new(self.name(BACKUP)).expect("a version and a word make a vertex name"),
                age_seconds_max: SNAPSHOT_AGE_SECONDS_MAX,
                name: self.snapshot_name(run),
            }),
        };
        let name = self.name("control-plane/{item}/kubeadm-upgrade");
        let release = self.release(self.name("control-plane/{item}/release"), &item_node(), &[&name], &name);
        let mut vertex = vertex(name, HOST_ORDER, &order, after).deadline_seconds(self.time.whole_seconds);
        vertex.attempts_max = KUBEADM_ATTEMPTS_MAX;
        vec![vertex, release]
    }

    /// `kubeadm`: the vertex of a control-plane node whose kubeadm tells what it brings.
    pub fn addons(&self, deadline_seconds: u32, kubeadm: Option<&str>, after: &[String]) -> VertexTemplate {
        // A name that makes no vertex is refused as such, with the whole plan.
        let core_dns_of = kubeadm.and_then(|vertex| VertexName::new(vertex).ok());
        let params = Addons { target_version: self.target, kube_proxy: self.kube_proxy, core_dns_of };
        vertex(self.name("addons"), ADDONS, &params, after).deadline_seconds(deadline_seconds)
    }

    pub fn verify(&self, after: &[String]) -> VertexTemplate {
        let params = VerifyCluster {
            target_version: self.target,
            oldest_kubelet: self.oldest_kubelet(),
            node_selector: self.node_selector.clone(),
        };
        vertex(self.name("verify"), VERIFY_CLUSTER, &params, after).deadline_seconds(VERIFY_SECONDS)
    }

    /// The wave as one vertex of the root.
    pub fn wave(&self, wave: &RunName, deadline_seconds: u32, after: &[String]) -> VertexTemplate {
        let source = ChildSource::Wave {
            target_version: self.target,
            oldest_kubelet: self.oldest_kubelet(),
            containerd: self.containerd.clone(),
            kube_proxy: self.kube_proxy,
        };
        let params = ChildRun { run: wave.clone(), source };
        vertex(self.name("workers"), CHILD_RUN, &params, after).deadline_seconds(deadline_seconds)
    }

    /// The vertices of a visit to `{item}`, whose names begin with `prefix`: five, or three where the node is not emptied.
    pub fn visit(
        &self,
        prefix: &str,
        visit: Visit,
        emptied: Emptied,
        containerd: Option<&PackageVersion>,
        after: &[String],
    ) -> Vec<VertexTemplate> {
        let name = |word: &str| format!("{prefix}/{word}");
        let (order, soak_seconds) = match visit {
            Visit::ControlPlane => (self.order(Vec::new(), containerd), CONTROL_PLANE_SOAK_SECONDS),
            Visit::Worker => {
                // A worker has no phase for addons.
                let (how, kube_proxy) = (KubeadmUpgrade::Node, KubeProxy::Upgrade);
                let node = UpgradeByKubeadm { how, version: self.target, kube_proxy, success_of: Vec::new() };
                let prepare = vec![
                    self.switch_repository(),
                    self.install_kubeadm(),
                    self.pull_worker_images(),
                    host_step("kubeadm-upgrade-node", KUBEADM_UPGRADE, &node),
                ];
                (self.order(prepare, containerd), WORKER_SOAK_SECONDS)
            }
        };
        let time = &self.time;
        let on_expiry = match (self.on_expiry, visit) {
            // The control plane moves as a whole: none of its nodes is left out.
            (OnExpiry::SkipNode, Visit::ControlPlane) => OnExpiry::Hold,
            (on_expiry, Visit::ControlPlane | Visit::Worker) => on_expiry,
        };
        let (timeout_seconds, pod_seconds) = (time.drain_timeout_seconds, self.pod_seconds);
        let rules = self.drain_rules.to_vec();
        let drain = DrainNode { node: item_node(), timeout_seconds, on_expiry, pod_seconds, rules };
        // HostProceed's order_vertex is a checked name and may hold no placeholder: it is set in the JSON.
        let mut proceed = to_json(&order);
        proceed["orderVertex"] = json!(name("prepare"));
        proceed["soakSeconds"] = json!(soak_seconds);
        let kubelet = |after| {
            vertex(name("kubelet"), HOST_PROCEED, &proceed, &[name(after)]).deadline_seconds(time.kubelet_seconds)
        };
        let prepare = vertex(name("prepare"), HOST_ORDER, &order, after).deadline_seconds(time.prepare_seconds);
        let release =
            self.release(name("release"), &item_node(), &[&name("prepare"), &name("kubelet")], &name("prepare"));
        let vertices = match emptied {
            Emptied::Never => vec![prepare, kubelet("prepare"), release],
            Emptied::First => vec![
                prepare,
                vertex(name("drain"), DRAIN_NODE, &drain, &[name("prepare")]).deadline_seconds(time.drain_seconds),
                kubelet("drain"),
                release,
                vertex(name("uncordon"), UNCORDON_NODE, &UncordonNode { node: item_node() }, &[name("kubelet")])
                    .guarded_by(name("drain"))
                    .deadline_seconds(time.uncordon_seconds),
            ],
        };
        vertices
            .into_iter()
            .map(|vertex| vertex.lane(if self.several { lane_of(self.target, "{item}") } else { "{item}".to_owned() }))
            .collect()
    }

    /// Closes the orders of those vertices on that node; `guard` places the first of them, the last comes before this.
    fn release(&self, name: String, node: &NodeRef, order_vertices: &[&str], guard: &str) -> VertexTemplate {
        // HostRelease's order_vertices are checked names and may hold no placeholder: they are set in the JSON.
        let params = json!({"node": node, "orderVertices": order_vertices});
        let after = order_vertices.last().map(|last| (*last).to_owned());
        vertex(name, HOST_RELEASE, &params, after.as_slice())
            .guarded_by(guard)
            .deadline_seconds(self.time.whole_seconds)
    }

    fn order(&self, prepare: Vec<HostStep>, containerd: Option<&PackageVersion>) -> HostOrder {
        let packages = [(Component::Kubelet, Package::Kubelet), (Component::Kubectl, Package::Kubectl)]
            .into_iter()
            .filter(|(component, _)| self.components.contains(component))
            .map(|(_, package)| package)
            .collect();
        let install = InstallPackages { packages, version: self.target };
        // First: the newer kubelet may need it.
        let containerd = containerd.map(|version| {
            host_step(CONTAINERD_STEP, UPGRADE_CONTAINERD, &UpgradeContainerd { version: version.clone() })
        });
        let mut finish: Vec<HostStep> = containerd.into_iter().collect();
        finish.extend([
            host_step("install-kubelet", INSTALL_PACKAGES, &install),
            host_step(RESTART_STEP, RESTART_KUBELET, &RestartKubelet { version: self.target }),
        ]);
        HostOrder {
            node: item_node(),
            target_version: self.target,
            prepare,
            finish,
            work_seconds_max: self.time.work_seconds(),
            snapshot: None,
        }
    }

    fn switch_repository(&self) -> HostStep {
        host_step("switch-repository", SWITCH_REPOSITORY, &SwitchRepository { version: self.target })
    }

    fn install_kubeadm(&self) -> HostStep {
        let params = InstallPackages { packages: vec![Package::Kubeadm], version: self.target };
        host_step("install-kubeadm", INSTALL_PACKAGES, &params)
    }

    /// Only the kubeadm of the version can name its images, so it comes after that is installed.
    fn pull_worker_images(&self) -> HostStep {
        let params = PullWorkerImages {
            version: self.target,
            repository: self.image_repository.map(str::to_owned),
            kube_proxy: self.kube_proxy,
        };
        host_step("pull-images", PULL_WORKER_IMAGES, &params)
    }
}

/// The lane of a node in the root run of an update with several hops: it holds one slot in each.
pub fn lane_of(hop: impl fmt::Display, node: &str) -> String {
    format!("{hop}/{node}")
}

/// The gates of a user at one place, if there are such.
pub(crate) fn user_gates(
    spec: &DirectUpdateSpec,
    point: GatePoint,
    name: String,
    after: &[String],
) -> Option<VertexTemplate> {
    let gates: Vec<MetricGate> = user_gates::at(spec, point).collect();
    let longest = gates.iter().map(|gate| gate.seconds_max).max()?;
    let params = MetricGates { gates };
    Some(
        vertex(name, METRIC_GATES, &params, after)
            .deadline_seconds(longest.saturating_add(user_gates::VERDICT_SECONDS)),
    )
}

/// Between the canaries and the others of a wave.
pub(crate) fn canary_gate(
    hop: KubeVersion,
    approved: bool,
    nodes: Vec<String>,
    soak_seconds: u32,
    after: &[String],
) -> VertexTemplate {
    let name = gate_name(hop, ApprovalPoint::AfterCanary);
    let params = Gate { approval: approved.then(|| name.clone()), nodes, soak_seconds };
    vertex(name, GATE, &params, after).deadline_seconds(GATE_SECONDS)
}

/// A batch as one vertex of its wave; the item is its number, `{digest}` that of its plan.
pub(crate) fn batch(wave: &RunName, deadline_seconds: u32, after: &[String]) -> VertexTemplate {
    let source = ChildSource::Plan { digest: "{digest}".to_owned() };
    // ChildRun's run is a checked name and may hold no placeholder: it is set in the JSON.
    let params = json!({"run": format!("{wave}-{{item}}"), "source": source});
    vertex("batch-{item}".to_owned(), CHILD_RUN, &params, after).deadline_seconds(deadline_seconds)
}

/// After all batches of a wave: the workers that they lost. `runs`: the name of the runs that try some again, but for their number.
pub(crate) fn stragglers(runs: RunName, hop: &WaveOf, deadline_seconds: u32, after: &[String]) -> VertexTemplate {
    let params =
        Stragglers { runs, target_version: hop.target, containerd: hop.containerd.clone(), kube_proxy: hop.kube_proxy };
    vertex("stragglers".to_owned(), STRAGGLERS, &params, after).deadline_seconds(deadline_seconds)
}

/// The item that stands for a node: its name and `{uid}`.
pub(crate) fn item(node: &NodeSnapshot) -> Item {
    Item { name: node.node.name.clone(), values: BTreeMap::from([("uid".to_owned(), node.node.uid.clone())]) }
}

/// Appends `vertices(first)` for the first item and `vertices(rest)` for the others, each after the one before: an
/// item of the rest knows its predecessor as `{before}`.
pub(crate) fn chain(plan: &mut Plan, items: Vec<Item>, first: Vec<VertexTemplate>, rest: Vec<VertexTemplate>) {
    let mut items = items.into_iter();
    let Some(head) = items.next() else {
        return;
    };
    let mut before = head.name.clone();
    let tail: Vec<Item> = items
        .map(|mut item| {
            item.values.insert("before".to_owned(), std::mem::replace(&mut before, item.name.clone()));
            item
        })
        .collect();
    plan.each(vec![head], first);
    if !tail.is_empty() {
        plan.each(tail, rest);
    }
}

fn item_node() -> NodeRef {
    NodeRef { name: "{item}".to_owned(), uid: "{uid}".to_owned() }
}

fn to_json(params: &impl Serialize) -> Value {
    serde_json::to_value(params).expect("parameters have string keys only, which always serialise")
}

fn vertex(name: String, kind: &str, params: &impl Serialize, after: &[String]) -> VertexTemplate {
    let kind: Result<StepKind, InvalidName> = StepKind::new(kind);
    let kind = kind.expect("the kinds above are well formed, which the tests of every plan show");
    let after: Vec<&str> = after.iter().map(String::as_str).collect();
    VertexTemplate::new(name, kind, to_json(params), &after)
}
