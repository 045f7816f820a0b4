//! Which versions the control plane goes through, and which nodes move at each of them.
//!
//! ```text
//!  server ─► hop 1 ─► hop 2 ─► … ─► target        control plane and its kubelets: every hop
//!              │        │             │
//!              └ only workers that ───┘ all       workers: as late as the version-skew policy allows
//!                would not fit hop 2
//! ```
//! A hop stays within its minor only where a fact asks for that patch before the next minor (`leaveFrom`, docs/facts.md); it says so.
//! Sources: "Version Skew Policy" (kubernetes.io, read at 1.35): the control plane moves one minor at a time, kubelets may be
//! behind; and kubeadm's own limit (see [`skew`](crate::skew)). A worker that cannot stay for the next hop moves as far as it can
//! then, so no worker moves more often than it must.

use crate::finding::{Code, Finding};
use crate::wave::Workers;
use crate::{facts, skew};
use cupcake_crds::DirectUpdateSpec;
use cupcake_crds::node_task::NodeInventory;
use cupcake_crds::values::{ClusterSnapshot, KubeVersion, MinorVersion, NodeRole, NodeSnapshot, PackageVersion, Stage};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// How many hops one update has at most.
const HOPS_MAX: usize = 16;

/// One hop over the cluster as it will be when its turn comes.
pub(crate) struct Step<'s> {
    /// Where it goes.
    pub version: KubeVersion,
    /// What the hop after it needs: the oldest version that a worker may be left at; `None` for the last hop.
    pub oldest_kubelet: Option<KubeVersion>,
    /// Why it stays within its minor, where a fact asks for that before the next one.
    pub reason: Option<String>,
    /// The cluster before it.
    pub before: Cow<'s, ClusterSnapshot>,
}

impl Step<'_> {
    /// What of the control plane moves.
    pub fn control_plane(&self) -> ControlPlane<'_> {
        ControlPlane::of(&self.before, self.version, self.is_for_late_kubelets())
    }

    /// Whether it only moves kubelets that would not fit the next hop, to where the API servers are.
    pub fn is_for_late_kubelets(&self) -> bool {
        self.version == self.before.server && self.oldest_kubelet.is_some()
    }

    /// The workers as this hop sees them.
    pub fn workers<'a>(&'a self, spec: &DirectUpdateSpec) -> Workers<'a> {
        Workers::of(&self.before, spec, self.version, self.oldest_kubelet)
    }

    /// The cluster after it.
    fn after(&self, spec: &DirectUpdateSpec) -> ClusterSnapshot {
        let wave: BTreeSet<String> = self.workers(spec).moving.iter().map(|node| node.node.name.clone()).collect();
        let mut after = self.before.clone().into_owned();
        if !self.is_for_late_kubelets() {
            after.server = self.version;
            after.kubeadm_config = Some(self.version);
        }
        for node in after.nodes.values_mut() {
            let moves = match node.role {
                NodeRole::ControlPlane => node.kubelet < self.version,
                NodeRole::Worker => wave.contains(&node.node.name),
            };
            if moves {
                node.kubelet = self.version;
            }
        }
        after
    }
}

/// The hops of an update, in order; never empty.
///
/// # Errors
/// What stands in the way: no known version of a minor in between, or a `spec.path` that is none.
pub(crate) fn steps<'s>(
    spec: &DirectUpdateSpec,
    snapshot: &'s ClusterSnapshot,
    target: KubeVersion,
) -> Result<Vec<Step<'s>>, Finding> {
    let versions = versions(spec, snapshot, target)?;
    let begun = snapshot.kubeadm_config.filter(|begun| *begun <= target);
    let before =
        |begun: &KubeVersion| versions.iter().find(|version| **version < *begun && **version != snapshot.server);
    if let Some(begun) = begun.filter(|begun| matches!(skew::hop(snapshot.server, *begun), skew::Hop::Minors(_))) {
        return Err(leap_begun(snapshot.server, begun));
    }
    if let Some((begun, version)) = begun.and_then(|begun| Some((begun, before(&begun)?))) {
        let message = format!(
            "the way goes through {version}, and kubeadm has begun to move the cluster to {begun}, which is newer"
        );
        let remedy = format!("name a way in spec.path whose first version is {begun} or newer");
        return Err(Finding::new(Code::InvalidPath, "spec.path", spec.path.join(", "), message, remedy));
    }
    Ok(over(spec, snapshot, &versions))
}

/// kubeadm's configuration is further away from the API servers than any hop that could have begun: no `spec.path` mends that.
fn leap_begun(server: KubeVersion, begun: KubeVersion) -> Finding {
    let message =
        format!("no hop leads there from the API server at {server}: the control plane moves one minor at a time");
    let next = server.minor_version().next();
    let remedy = format!(
        "see which API servers are behind: where all are at {server}, set kubernetesVersion back to v{server} by kubectl -n kube-system edit configmap kubeadm-config; where some are newer, bring the others there by hand, to {next} first"
    );
    Finding::new(Code::InvalidPath, "ConfigMap kube-system/kubeadm-config", begun, message, remedy)
}

/// What everything else is judged by where there is no way: the minors that any way goes through, each by what is known of it, or by its
/// first release.
pub(crate) fn stand_in<'s>(
    spec: &DirectUpdateSpec,
    snapshot: &'s ClusterSnapshot,
    target: KubeVersion,
) -> Vec<Step<'s>> {
    let (server, major) = (snapshot.server, target.major());
    let minors = if server.major() == major { server.minor() + 1..target.minor() } else { 0..0 };
    let between = minors
        .map(|minor| newest(snapshot, MinorVersion { major, minor }).unwrap_or(KubeVersion::new(major, minor, 0)));
    let versions = between.chain([target]).take(HOPS_MAX).collect();
    over(spec, snapshot, &late_first(spec, snapshot, versions))
}

fn over<'s>(spec: &DirectUpdateSpec, snapshot: &'s ClusterSnapshot, versions: &[KubeVersion]) -> Vec<Step<'s>> {
    let mut steps: Vec<Step<'s>> = Vec::new();
    for (index, version) in versions.iter().enumerate() {
        let before = match steps.last() {
            Some(last) => Cow::Owned(last.after(spec)),
            None => Cow::Borrowed(snapshot),
        };
        let next = versions.get(index + 1);
        let oldest_kubelet = next.map(|next| oldest_kubelet(*version, *next));
        let reason = next.and_then(|next| patch_first(&before, *version, *next));
        steps.push(Step { version: *version, oldest_kubelet, reason, before });
    }
    steps
}

/// Why a hop to `version` stays within its minor before the one to `next`, where a fact asks for that.
fn patch_first(before: &ClusterSnapshot, version: KubeVersion, next: KubeVersion) -> Option<String> {
    let within = skew::hop(before.server, version) == skew::Hop::Patch;
    let leaves = next.minor_version() > version.minor_version();
    let leave = facts::leave_from(&before.facts, before.server).filter(|_| within && leaves)?;
    Some(leave.to_string())
}

/// From a node's first visit on, later hops see it with that version of containerd.
pub(crate) fn give_containerd(steps: &mut [Step<'_>], spec: &DirectUpdateSpec, version: &PackageVersion) {
    let mut visited: BTreeSet<String> = BTreeSet::new();
    for step in steps {
        if !visited.is_empty() {
            for node in step.before.to_mut().nodes.values_mut().filter(|node| visited.contains(&node.node.name)) {
                let inventory = node.inventory.get_or_insert_default();
                inventory.containerd_package.get_or_insert_default().version = Some(version.to_string());
            }
        }
        let kubelets = step.control_plane().kubelets;
        let workers = step.workers(spec).moving;
        visited.extend(kubelets.into_iter().chain(workers).map(|node| node.node.name.clone()));
    }
}

/// The oldest kubelet that fits API servers that move from `from` to `to`, and that kubeadm of `to` accepts.
pub(crate) fn oldest_kubelet(from: KubeVersion, to: KubeVersion) -> KubeVersion {
    let fits = |minor: u32| {
        let kubelet = KubeVersion::new(from.major(), minor, 0);
        skew::kubelet(kubelet, from, to).is_ok() && skew::kubeadm_accepts(kubelet, to).is_ok()
    };
    let oldest = (0..=from.minor()).rev().take_while(|minor| fits(*minor)).last().unwrap_or(from.minor());
    KubeVersion::new(from.major(), oldest, 0)
}

fn versions(
    spec: &DirectUpdateSpec,
    snapshot: &ClusterSnapshot,
    target: KubeVersion,
) -> Result<Vec<KubeVersion>, Finding> {
    let server = snapshot.server;
    if !spec.path.is_empty() {
        return asked_for(spec, snapshot, target);
    }
    let mut versions = Vec::new();
    if let Some(minors) = server.minors_to(target).filter(|minors| *minors >= skew::HOP_MINORS_MAX) {
        let mut minor = server.minor_version();
        if !is_left(snapshot) && facts::leave_from(&snapshot.facts, server).is_some() {
            versions.push(through(snapshot, target, minor)?);
        }
        for _ in 1..minors {
            minor = minor.next();
            versions.push(through(snapshot, target, minor)?);
        }
    }
    versions.push(target);
    let versions = late_first(spec, snapshot, versions);
    if versions.len() > HOPS_MAX {
        let message = format!("{} hops away from {server}, and one update has {HOPS_MAX} at most", versions.len());
        let remedy = format!("upgrade to {} first", versions[HOPS_MAX - 1]);
        return Err(Finding::new(Code::TooManyMinors, "spec.targetVersion", target, message, remedy));
    }
    Ok(versions)
}

/// Kubelets that would not fit the first hop move before it, to where the API servers are.
fn late_first(spec: &DirectUpdateSpec, snapshot: &ClusterSnapshot, mut versions: Vec<KubeVersion>) -> Vec<KubeVersion> {
    let server = snapshot.server;
    let oldest = oldest_kubelet(server, versions[0]);
    let begun = snapshot.kubeadm_config.is_some_and(|config| config > server);
    let late = |node: &NodeSnapshot| {
        let moves = node.role == NodeRole::ControlPlane || spec.moves(&node.node.name, &node.labels);
        moves && node.kubelet < oldest
    };
    if versions[0] > server && !begun && snapshot.nodes.values().any(late) {
        versions.insert(0, server);
    }
    versions
}

/// Whether kubeadm has begun to move the cluster to a later minor: then it is too late for another patch of the present one.
fn is_left(snapshot: &ClusterSnapshot) -> bool {
    snapshot.kubeadm_config.is_some_and(|begun| begun.minor_version() > snapshot.server.minor_version())
}

/// The version of a minor that the way to a later one goes through: one that may be left for the next minor.
fn through(snapshot: &ClusterSnapshot, target: KubeVersion, minor: MinorVersion) -> Result<KubeVersion, Finding> {
    if is_gap(snapshot, minor) {
        return Err(gap(snapshot.server, target, minor));
    }
    let newest = newest(snapshot, minor).ok_or_else(|| unknown(snapshot.server, target, minor))?;
    let Some(leave) = facts::leave_from(&snapshot.facts, newest) else {
        return Ok(newest);
    };
    let oldest = KubeVersion::new(minor.major, minor.minor, leave.oldest_patch);
    newest_from(snapshot, oldest).ok_or_else(|| {
        let server = snapshot.server;
        let next = minor.next();
        let message = format!(
            "the way from {server} goes on to {next} from {oldest} or newer only, and {newest} is the newest release of {minor} that is known: {leave}"
        );
        let remedy = format!(
            "name one in spec.path, such as [..., {oldest}, ..., {target}], or make it known as newestPatch of {minor} in ConfigMap kube-system/cupcake-versions; where the reason does not hold for your cluster, take leaveFrom away there (docs/facts.md)"
        );
        Finding::new(Code::PatchFirst, "spec.targetVersion", target, message, remedy)
    })
}

/// The newest release of a minor that somebody offers, or else that is known to exist; not older than what kubeadm has begun.
pub(crate) fn newest(snapshot: &ClusterSnapshot, minor: MinorVersion) -> Option<KubeVersion> {
    newest_from(snapshot, KubeVersion::new(minor.major, minor.minor, 0))
}

/// As [`newest`], of the minor of `oldest` and not older than that.
fn newest_from(snapshot: &ClusterSnapshot, oldest: KubeVersion) -> Option<KubeVersion> {
    let minor = oldest.minor_version();
    let fits = |version: &KubeVersion| {
        version.minor_version() == minor && version.stage() == Stage::Release && *version >= oldest
    };
    // One that leaves something behind only where nothing else is offered; it is told then.
    let offered = snapshot.known_versions.iter().copied().filter(fits);
    let offered = offered.max_by_key(|version| (facts::avoid(&snapshot.facts, *version).is_none(), *version));
    let begun = snapshot.kubeadm_config.filter(fits);
    offered.or_else(|| facts::newest(&snapshot.facts, minor).filter(fits)).max(begun)
}

/// Whether the versions that are known name a minor below this one and one above, but none of it, so that whoever listed them left it out:
/// what CUPCAKE knows of it by itself is no answer then. What a machine's repositories offer beyond it is nobody's list: somebody may
/// have prepared one for the target.
fn is_gap(snapshot: &ClusterSnapshot, minor: MinorVersion) -> bool {
    let known = || snapshot.known_versions.iter().map(|known| known.minor_version());
    let listed = listed(snapshot);
    let begun = snapshot.kubeadm_config.is_some_and(|begun| begun.minor_version() == minor);
    let told = begun || minor <= snapshot.server.minor_version() || facts::is_own(&snapshot.facts, minor);
    !told
        && known().all(|known| known != minor)
        && known().any(|known| known < minor)
        && listed.iter().any(|listed| listed.minor_version() > minor)
}

/// The versions that somebody has listed: those that are known beside what machines' repositories offer.
fn listed(snapshot: &ClusterSnapshot) -> Vec<KubeVersion> {
    let inventories = snapshot.nodes.values().filter_map(|node| node.inventory.as_ref());
    let offered: BTreeSet<KubeVersion> = inventories.flat_map(offers).collect();
    snapshot.known_versions.iter().filter(|known| !offered.contains(known)).copied().collect()
}

/// Whether somebody has listed any version.
pub(crate) fn lists_versions(snapshot: &ClusterSnapshot) -> bool {
    !listed(snapshot).is_empty()
}

/// What a machine's repositories offer.
fn offers(inventory: &NodeInventory) -> impl Iterator<Item = KubeVersion> {
    let next = inventory.next_minor.iter().flat_map(|next| &next.versions);
    inventory.available_versions.iter().chain(next).filter_map(|text| text.parse().ok())
}

fn gap(server: KubeVersion, target: KubeVersion, minor: MinorVersion) -> Finding {
    let message = format!(
        "no path: the way from {server} goes through {minor}, of which the known versions name none, though they name older and newer minors"
    );
    let remedy = format!(
        "add a release of {minor} to ConfigMap kube-system/cupcake-versions (knownVersions of a cluster file), or name the way in spec.path, such as [..., {minor}.0, ..., {target}]"
    );
    Finding::new(Code::TooManyMinors, "spec.targetVersion", target, message, remedy)
}

fn unknown(server: KubeVersion, target: KubeVersion, minor: MinorVersion) -> Finding {
    let message = format!("the way from {server} goes through {minor}, of which no release is known");
    let remedy = format!("take a newer CUPCAKE, or name {minor} in facts of your own (docs/facts.md)");
    Finding::new(Code::TooManyMinors, "spec.targetVersion", target, message, remedy)
}

/// The way that people named, checked hop by hop.
fn asked_for(
    spec: &DirectUpdateSpec,
    snapshot: &ClusterSnapshot,
    target: KubeVersion,
) -> Result<Vec<KubeVersion>, Finding> {
    let server = snapshot.server;
    let refuse = |index: usize, value: &str, message: String, remedy: String| {
        Err(Finding::new(Code::InvalidPath, format!("spec.path[{index}]"), value, message, remedy))
    };
    let mut versions: Vec<KubeVersion> = Vec::new();
    for (index, text) in spec.path.iter().enumerate() {
        let version: KubeVersion = match text.parse() {
            Ok(version) => version,
            Err(error) => {
                let error: cupcake_crds::values::InvalidVersion = error;
                let message = format!("no Kubernetes version: {}", error.problem);
                return refuse(index, text, message, "write it as major.minor.patch, for example 1.34.4".to_owned());
            }
        };
        let before = versions.last().copied();
        let from = before.unwrap_or(server);
        let legal = match skew::hop(from, version) {
            skew::Hop::Stay => before.is_none(),
            skew::Hop::Patch | skew::Hop::Minor => true,
            skew::Hop::Downgrade | skew::Hop::Minors(_) | skew::Hop::OtherMajor => false,
        };
        if version.stage() != Stage::Release {
            let message = "no finished release: kubeadm goes there only when it is told to experiment".to_owned();
            return refuse(index, text, message, format!("name a release of {}", version.minor_version()));
        }
        if !legal {
            let message = format!("no hop from {from}: the control plane moves up, one minor at a time");
            let remedy = format!("name a version of {} before it, or leave spec.path out", from.minor_version().next());
            return refuse(index, text, message, remedy);
        }
        let leaves = version.minor_version() > from.minor_version() && !(before.is_none() && is_left(snapshot));
        if let Some(leave) = facts::leave_from(&snapshot.facts, from).filter(|_| leaves) {
            let minor = from.minor_version();
            let oldest = KubeVersion::new(minor.major, minor.minor, leave.oldest_patch);
            let first = newest_from(snapshot, oldest).unwrap_or(oldest);
            let message = format!("no hop from {from}: {minor} is left from {oldest} or newer only: {leave}");
            let remedy = format!(
                "name {first} before it; where the reason does not hold for your cluster, take leaveFrom of {minor} away in ConfigMap kube-system/cupcake-versions (docs/facts.md)"
            );
            return Err(Finding::new(Code::PatchFirst, format!("spec.path[{index}]"), text, message, remedy));
        }
        versions.push(version);
    }
    if versions.len() > HOPS_MAX || versions.last() != Some(&target) {
        let last = versions.len().saturating_sub(1);
        let message = format!("the way has to end at spec.targetVersion, {target}, after {HOPS_MAX} hops at most");
        let value = versions.last().map(ToString::to_string).unwrap_or_default();
        return refuse(last, &value, message, format!("let its last version be {target}"));
    }
    Ok(versions)
}

/// What of the control plane moves in one hop.
pub(crate) struct ControlPlane<'s> {
    /// All control-plane nodes, by name.
    pub nodes: Vec<&'s NodeSnapshot>,
    /// Whether kubeadm has anything to do on them.
    pub moves: bool,
    /// Those whose kubelet moves, by name.
    pub kubelets: Vec<&'s NodeSnapshot>,
}

impl<'s> ControlPlane<'s> {
    fn of(snapshot: &'s ClusterSnapshot, target: KubeVersion, for_late_kubelets: bool) -> Self {
        let nodes: Vec<_> = snapshot.with_role(NodeRole::ControlPlane).collect();
        // kubeadm writes its configuration while it is at the first node: an oldest API server that is behind, or a
        // configuration that is, means that it has not been everywhere. Where it has been, the step finds its goal reached.
        // A kubelet that is newer already waits for the hop that gets there.
        let kubelets: Vec<_> = nodes.iter().copied().filter(|node| node.kubelet < target).collect();
        // Nor do both of these prove that it ended: scheduler, kubelet configuration and addons come after them. The kubelets of
        // the control plane do, since they follow all of kubeadm's work, and repeating that work at one version changes nothing.
        let moves = !for_late_kubelets
            && (snapshot.server != target || snapshot.kubeadm_config != Some(target) || !kubelets.is_empty());
        Self { nodes, moves, kubelets }
    }

    /// Whether anything of it changes.
    pub fn changes(&self) -> bool {
        self.moves || !self.kubelets.is_empty()
    }

    /// Every control-plane node that changes.
    pub fn changing(&self) -> impl Iterator<Item = &'s NodeSnapshot> + '_ {
        let nodes = if self.moves { &self.nodes } else { &self.kubelets };
        nodes.iter().copied()
    }

    /// Where the snapshot of etcd is taken: the first Ready control-plane node by name.
    pub fn backup_on(&self) -> Option<&'s NodeSnapshot> {
        if !self.moves {
            return None;
        }
        let ready = self.nodes.iter().find(|node| node.ready);
        ready.or_else(|| self.nodes.first()).copied()
    }
}
