//! Everything that can stand in the way of an update, looked at one by one; all of it is reported, not the first only.

use crate::compile::Hop;
use crate::facts;
use crate::finding::{Bearing, Code, Finding, Findings, named};
use crate::gates::SOAK_SECONDS_MAX;
use crate::preflight::ACKNOWLEDGED;
use crate::request::is_concurrency;
use crate::schedule::Window;
use crate::skew::{self, Skew};
use crate::user_gates;
use crate::wave::Workers;
use chrono::TimeDelta;
use cupcake_crds::direct_update::opted_out;
use cupcake_crds::values::{
    ClusterSnapshot, Component, Concurrency, Cordon, EtcdTopology, KubeVersion, NodeRole, NodeSnapshot, Stage, Strategy,
};
use cupcake_crds::{DirectUpdateSpec, OPT_OUT_LABEL, limits};
use std::collections::BTreeSet;
use std::time::Duration;

/// Fields of the spec that need no cluster to be judged.
pub(crate) fn spec(spec: &DirectUpdateSpec, findings: &mut Findings) {
    components(spec, findings);
    user_gates::check(spec, findings);
    if !is_concurrency(spec.concurrency) {
        findings.refuse(Finding::new(
            Code::OutOfRange,
            "spec.concurrency",
            spec.concurrency,
            "it is no number of workers",
            format!("set 1 to {}, or a percentage from 1% to 100%", Concurrency::NODES_MAX),
        ));
    }
    if spec.max_failures == Some(0) {
        let remedy = "set 1 or more, or leave it out for 1";
        findings.refuse(Finding::new(Code::OutOfRange, "spec.maxFailures", 0, "no number of failures", remedy));
    }
    if let Some(timeout) = spec.operation_timeout
        && (timeout.is_negative() || Duration::from(timeout) < Duration::from_secs(1))
    {
        findings.refuse(Finding::new(
            Code::OutOfRange,
            "spec.operationTimeout",
            timeout,
            "it is no time in which anything could be done",
            "set a positive duration such as 6h, or leave it out",
        ));
    }
    if let Some(Err(problem)) = spec.maintenance_window.as_ref().map(Window::of) {
        findings.refuse(Finding::new(Code::OutOfRange, problem.field, problem.value, problem.what, problem.fix));
    }
    if spec.air_gapped.as_ref().is_some_and(|air_gapped| air_gapped.enabled) {
        findings.refuse(Finding::new(
            Code::NotInThisRelease,
            "spec.airGapped.enabled",
            true,
            "this release fetches packages and images from the repositories that the machines are set to",
            "point the machines at a mirror and leave airGapped out",
        ));
    }
    if let Some(air_gapped) = spec.air_gapped.as_ref().filter(|air_gapped| !air_gapped.enabled)
        && let Some(bundle) = &air_gapped.bundle_config_map
    {
        let message = "it is not looked at while airGapped.enabled is false";
        let warning = Finding::new(Code::NoEffect, "spec.airGapped.bundleConfigMap", bundle, message, "leave it out");
        findings.warn(warning);
    }
    let distinct: BTreeSet<_> = spec.acknowledge.iter().map(|entry| (&entry.check, &entry.node)).collect();
    if distinct.len() < spec.acknowledge.len() || distinct.len() > limits::ACKNOWLEDGED_CHECKS_MAX {
        let most = limits::ACKNOWLEDGED_CHECKS_MAX;
        let message = format!("each check and node may stand there once, and {most} of them at the most");
        let remedy = "select the workers in parts, by spec.nodeSelector";
        findings.refuse(Finding::new(Code::OutOfRange, "spec.acknowledge", spec.acknowledge.len(), message, remedy));
    }
    for entry in &spec.acknowledge {
        let is_named = |code: &&Code| code.to_string() == entry.check;
        if ACKNOWLEDGED.iter().any(|code| is_named(&code)) {
            continue;
        }
        if Code::ALL.iter().any(|code| is_named(&code) && code.never_refuses()) {
            let message = "no update is refused for it, so there is nothing to answer for";
            findings.warn(Finding::new(Code::NoEffect, "spec.acknowledge", &entry.check, message, "leave it out"));
        } else {
            let message = "no check of that name can be acknowledged";
            let names: Vec<String> = ACKNOWLEDGED.iter().map(ToString::to_string).collect();
            let remedy = format!("name one of {}", names.join(", "));
            findings.refuse(Finding::new(Code::OutOfRange, "spec.acknowledge", &entry.check, message, remedy));
        }
    }
    if spec.strategy == Strategy::Parallel && spec.concurrency != Concurrency::default() {
        let message = "no effect under strategy parallel: all workers of a batch move at once";
        let remedy = "leave it out, or set spec.strategy to rolling";
        findings.warn(Finding::new(Code::NoEffect, "spec.concurrency", spec.concurrency, message, remedy));
    }
    if !spec.preflight_checks {
        let message = "neither Ready nodes nor what their agents tell is waited for before the first change; what a plan refuses is refused all the same";
        findings.warn(Finding::new(Code::ChecksLeftOut, "spec.preflightChecks", false, message, ""));
    }
}

fn components(spec: &DirectUpdateSpec, findings: &mut Findings) {
    let has = |component| spec.components.contains(&component);
    let mut refuse = |code, value: &str, message: &str, remedy: &str| {
        findings.refuse(Finding::new(code, "spec.components", value, message, remedy));
    };
    if has(Component::Etcd) {
        refuse(
            Code::NotInThisRelease,
            "etcd",
            "stacked etcd moves with kubeadm, never apart from it",
            "leave etcd out: kubeadm brings the version that belongs to the target",
        );
    }
    if !has(Component::Kubeadm) {
        refuse(
            Code::IllegalComponents,
            "",
            "kubeadm is not named, but kubeadm of the target version is what moves everything else",
            "name kubeadm too, or leave components out for [kubeadm, kubelet, kubectl]",
        );
    } else if !has(Component::Kubelet) {
        refuse(
            Code::IllegalComponents,
            "",
            "kubelet is not named, but in this release the kubelets follow the control plane in the same update",
            "name kubelet too, or leave components out for [kubeadm, kubelet, kubectl]",
        );
    }
}

/// Nodes that could not be understood.
pub(crate) fn readable(snapshot: &ClusterSnapshot, findings: &mut Findings) {
    for node in snapshot.unreadable.iter().take(UNREADABLE_SHOWN_MAX) {
        findings.refuse(Finding::new(
            Code::UnreadableNode,
            format!("Node {}", node.name),
            "",
            node.problem.clone(),
            "mend the Node, or delete it if its machine is gone",
        ));
    }
    let more = snapshot.unreadable.len().saturating_sub(UNREADABLE_SHOWN_MAX);
    if more > 0 {
        let message = format!("{more} more nodes could not be understood");
        findings.refuse(Finding::new(Code::UnreadableNode, "nodes", "", message, "mend them, too"));
    }
}

/// How many unreadable nodes are named one by one.
const UNREADABLE_SHOWN_MAX: usize = 5;

/// The cluster as a whole: kubeadm's, with etcd beside its control plane.
pub(crate) fn cluster(snapshot: &ClusterSnapshot, target: Option<KubeVersion>, findings: &mut Findings) {
    readable(snapshot, findings);
    if snapshot.with_role(NodeRole::ControlPlane).next().is_none() {
        findings.refuse(Finding::new(
            Code::NoControlPlane,
            "nodes",
            "",
            format!("no node has the label {}", NodeRole::CONTROL_PLANE_LABEL),
            "CUPCAKE upgrades clusters made by kubeadm; if this is one, give the label back to its control-plane nodes",
        ));
    }
    match snapshot.etcd {
        EtcdTopology::Stacked => {}
        EtcdTopology::External => findings.refuse(Finding::new(
            Code::ExternalEtcd,
            "ConfigMap kube-system/kubeadm-config",
            "",
            "etcd runs outside the cluster, so CUPCAKE could not take the snapshot that every upgrade begins with",
            format!(
                "this release upgrades clusters with stacked etcd only: take a snapshot with etcdctl snapshot save, and upgrade this one by hand (kubeadm upgrade plan, then kubeadm upgrade apply){}",
                wants_etcd(snapshot, target)
            ),
        )),
    }
    if snapshot.kubeadm_config.is_none() {
        findings.refuse(Finding::new(
            Code::NoKubeadmConfig,
            "ConfigMap kube-system/kubeadm-config",
            "",
            "it is absent or holds no kubernetesVersion, so kubeadm could not upgrade the cluster",
            "restore it: kubeadm init phase upload-config kubeadm",
        ));
    }
}

/// The oldest etcd outside the cluster that kubeadm of the target works with, where that is known.
fn wants_etcd(snapshot: &ClusterSnapshot, target: Option<KubeVersion>) -> String {
    let known = target.and_then(|target| {
        let minor = target.minor_version();
        Some((minor, facts::of(&snapshot.facts, minor)?.oldest_etcd.clone()?))
    });
    known.map_or_else(String::new, |(minor, etcd)| format!("; kubeadm of {minor} wants etcd {etcd} or newer there"))
}

/// Most of the control plane is Ready, where there are three nodes or more: else etcd has no quorum to begin with.
pub(crate) fn quorum(snapshot: &ClusterSnapshot, findings: &mut Findings) {
    let nodes: Vec<_> = snapshot.with_role(NodeRole::ControlPlane).collect();
    let unready: Vec<_> = nodes.iter().filter(|node| !node.ready).map(|node| &node.node.name).collect();
    if nodes.len() >= 3 && nodes.len() - unready.len() <= nodes.len() / 2 {
        let message = "with these not Ready most of the control plane is away, and etcd has no quorum";
        let finding = Finding::new(Code::NodeNotReady, "nodes", named(&unready), message, "mend them first");
        findings.refuse(finding.of_nodes(unready.into_iter().map(String::as_str)));
    }
}

/// What an older API server lacks of that which keeps CUPCAKE itself in its bounds.
///
/// Source: kubernetes.io, "Feature Gates" (v1.34): CustomResourceValidationExpressions is on from 1.25 on, ValidatingAdmissionPolicy from 1.30 on.
fn older_server(server: KubeVersion, findings: &mut Findings) {
    let message = match (server.major(), server.minor()) {
        (1, ..=24) => {
            "it has no rules in definitions, which fence a leader that was replaced, and no admission policies, which bind an agent to its node"
        }
        (1, 25..=29) => "it has no admission policies, which bind an agent to its node",
        _ => return,
    };
    let remedy = "see \"What an older Kubernetes lacks\" in docs/install.md; helm upgrade once the cluster has passed 1.25 and 1.30";
    findings.warn(Finding::new(Code::OlderServer, "API server", server, message, remedy));
}

/// Target and cluster against each other.
pub(crate) fn versions(
    spec: &DirectUpdateSpec,
    snapshot: &ClusterSnapshot,
    target: KubeVersion,
    findings: &mut Findings,
) {
    let field = "spec.targetVersion";
    let server = snapshot.server;
    match skew::hop(server, target) {
        skew::Hop::Stay | skew::Hop::Patch | skew::Hop::Minor | skew::Hop::Minors(_) => {}
        skew::Hop::Downgrade => findings.refuse(Finding::new(
            Code::Downgrade,
            field,
            target,
            format!("older than the cluster, whose API server is at {server}; kubeadm does not downgrade"),
            format!("set {server} or newer"),
        )),
        skew::Hop::OtherMajor => findings.refuse(Finding::new(
            Code::TooManyMinors,
            field,
            target,
            format!("another major than {server}; no rule covers that way"),
            format!("upgrade within {}.x", server.major()),
        )),
    }
    unknown_minors(snapshot, target, findings);
    older_server(server, findings);
    // Where the API servers are newer themselves, that is said above.
    if let Some(config) = snapshot.kubeadm_config.filter(|config| *config > target && *config > server) {
        findings.refuse(Finding::new(
            Code::Downgrade,
            "ConfigMap kube-system/kubeadm-config",
            config,
            format!("kubeadm has begun to move the cluster to {config}, which is newer than {target}"),
            format!("set spec.targetVersion to {config} or newer"),
        ));
    }
    if target.stage() != Stage::Release {
        findings.refuse(Finding::new(
            Code::PreRelease,
            field,
            target,
            "no finished release: kubeadm moves a cluster there only when it is told to experiment, which CUPCAKE never does",
            format!("set a release, such as {}.{}.0 once it is out", target.major(), target.minor()),
        ));
    }
    let of_minor = snapshot.known_versions.iter().any(|known| known.minor_version() == target.minor_version());
    if of_minor && !snapshot.known_versions.contains(&target) {
        let minor = target.minor_version();
        let newest = snapshot.known_versions.iter().filter(|known| known.minor_version() == minor).max();
        let newest = newest.map(|newest| format!("; the newest known one is {newest}")).unwrap_or_default();
        let message = format!(
            "no release that is known: neither ConfigMap cupcake-versions nor a machine's repository has it{newest}"
        );
        let remedy = format!(
            "where it is out: refresh the machines' repositories, add it to ConfigMap cupcake-versions, or set spec.path: [{target}] (or a longer one that ends with it)"
        );
        let finding = Finding::new(Code::UnknownRelease, field, target, message, remedy);
        // Who names the whole way answers for its versions; what machines cannot get is still refused by node.
        if spec.path.is_empty() { findings.refuse(finding) } else { findings.warn(finding) }
    } else if !of_minor && spec.path.is_empty() && crate::hops::lists_versions(snapshot) {
        let minor = target.minor_version();
        let message = format!("the versions that are known name none of {minor}: that it exists is taken on trust");
        let remedy = "check that it exists, or add it to ConfigMap cupcake-versions (knownVersions of a cluster file)";
        findings.warn(Finding::new(Code::UnknownRelease, field, target, message, remedy));
    } else if !of_minor && facts::newest(&snapshot.facts, target.minor_version()).is_some_and(|newest| target > newest)
    {
        let message = "newer than what this release of CUPCAKE knows: what it changes is not told here";
        let remedy = "check that it exists, and read its release notes";
        findings.warn(Finding::new(Code::UnknownRelease, field, target, message, remedy));
    }
}

/// Refuses a way from, over or to minors of which nothing is known: what they remove, refuse or ask for would be told as if it were nothing.
fn unknown_minors(snapshot: &ClusterSnapshot, target: KubeVersion, findings: &mut Findings) {
    let server = snapshot.server;
    if target <= server || target.major() != server.major() {
        return;
    }
    let minors =
        (server.minor()..=target.minor()).map(|minor| KubeVersion::new(target.major(), minor, 0).minor_version());
    let unknown: Vec<_> = minors.filter(|minor| facts::of(&snapshot.facts, *minor).is_none()).collect();
    let Some(first) = unknown.first() else { return };
    let message = format!(
        "the way from {server} has to do with {}, of which this release of CUPCAKE knows nothing: neither what it removes nor what it asks for",
        named(&unknown)
    );
    let remedy = format!(
        "take a release of CUPCAKE that knows it, or read what changes there and write facts of your own into ConfigMap kube-system/cupcake-versions (docs/facts.md), at the least {{minors: {{\"{first}\": {{newestPatch: N}}}}}}"
    );
    findings.refuse(Finding::new(Code::UnknownRelease, "spec.targetVersion", target, message, remedy));
}

/// The kubelets against every hop: none newer than the target, none too old for the API servers or kubeadm of a hop.
pub(crate) fn kubelets(hops: &[Hop<'_>], snapshot: &ClusterSnapshot, target: KubeVersion, findings: &mut Findings) {
    let server = snapshot.server;
    let Some(last) = hops.last() else {
        return;
    };
    let left_out: BTreeSet<&str> = last.workers.left_out.iter().map(|node| node.node.name.as_str()).collect();
    let moves =
        |node: &NodeSnapshot| node.role == NodeRole::ControlPlane || !left_out.contains(node.node.name.as_str());
    let shown = |nodes: &[&NodeSnapshot]| named(nodes.iter().map(|node| at(node)));
    let illegal = unfit_already(snapshot, findings);
    let newer: Vec<_> = snapshot
        .nodes
        .values()
        .filter(|node| !illegal.contains(node.node.name.as_str()))
        .filter(|node| {
            let newer_minor = skew::kubelet(node.kubelet, target, target) == Err(Skew::NewerThanServer);
            (moves(node) && node.kubelet > target) || newer_minor
        })
        .collect();
    if !newer.is_empty() {
        findings.refuse(newer_than_target(&newer, target));
    }
    let is_newer = |node: &&NodeSnapshot| newer.iter().any(|newer| newer.node.name == node.node.name);
    for hop in hops {
        too_old(hops, hop, &illegal, &moves, findings);
    }
    let ahead: Vec<_> = snapshot
        .nodes
        .values()
        .filter(|node| skew::kubelet(node.kubelet, server, server) == Err(Skew::NewerThanServer))
        .filter(|node| !is_newer(node) && !illegal.contains(node.node.name.as_str()))
        .collect();
    if !ahead.is_empty() {
        findings.warn(
            Finding::new(
                Code::VersionSkew,
                "nodes",
                shown(&ahead),
                format!("kubelets newer than the API server at {server}: a hop that had begun; this update ends it"),
                "",
            )
            .of_nodes(names(&ahead)),
        );
    }
    let fits = |node: &NodeSnapshot| {
        skew::kubelet(node.kubelet, target, target).is_ok() && skew::kubeadm_accepts(node.kubelet, target).is_ok()
    };
    let at_the_edge: Vec<_> = snapshot
        .nodes
        .values()
        .filter(|node| !moves(node) && fits(node))
        .filter(|node| {
            let behind = i64::from(target.minor()) - i64::from(node.kubelet.minor());
            let next = KubeVersion::new(target.major(), target.minor() + 1, 0);
            behind >= skew::kubelet_minors_behind_max(node.kubelet.minor_version())
                || skew::kubeadm_accepts(node.kubelet, next).is_err()
        })
        .collect();
    if !at_the_edge.is_empty() {
        findings.warn(Finding::new(
            Code::NextHopBlocked,
            "spec.nodeSelector",
            shown(&at_the_edge),
            format!("they stay as far behind {target} as a kubelet may be (for kubeadm, too), so no further minor can follow"),
            "upgrade them before the next minor",
        ).of_nodes(names(&at_the_edge)));
    }
}

/// Refuses kubelets that are against the version-skew policy before anything is changed, whether or not the update would move them: what
/// runs outside the policy was tried by nobody, and no hop may begin or end beside it. Gives their names.
///
/// Not those that are as new as a minor to which kubeadm has begun to move the cluster: a hop that stopped in its middle leaves that,
/// and only going on ends it.
fn unfit_already<'s>(snapshot: &'s ClusterSnapshot, findings: &mut Findings) -> BTreeSet<&'s str> {
    let server = snapshot.server;
    let begun = snapshot.kubeadm_config.filter(|config| skew::hop(server, *config) == skew::Hop::Minor);
    let newest = begun.unwrap_or(server);
    let unfit = |node: &NodeSnapshot| skew::kubelet(node.kubelet, newest, newest).err();
    let nodes = || snapshot.nodes.values();
    let ahead: Vec<_> = nodes().filter(|node| unfit(node) == Some(Skew::NewerThanServer)).collect();
    let behind: Vec<_> = nodes().filter(|node| matches!(unfit(node), Some(Skew::TooOld { .. }))).collect();
    let minor = server.minor_version();
    let mut refuse = |nodes: &[&NodeSnapshot], message: String, remedy: String| {
        if !nodes.is_empty() {
            let shown = named(nodes.iter().map(|node| at(node)));
            let finding = Finding::new(Code::VersionSkew, "nodes", shown, message, remedy);
            findings.refuse(finding.of_nodes(names(nodes)));
        }
    };
    refuse(
        &ahead,
        format!(
            "kubelets of a newer minor than the API server at {server}, which no policy allows, before anything is changed"
        ),
        format!("install kubelet and kubeadm of {minor} there and join these nodes again, then plan again"),
    );
    refuse(
        &behind,
        format!(
            "kubelets more than three minors (two below 1.25) behind the API server at {newest}, which no policy allows, before anything is changed"
        ),
        format!(
            "bring their kubelets to {minor} by hand first: drain each node, install kubeadm and kubelet of {minor}, run kubeadm upgrade node (one minor after another where it refuses), or join it again; then plan again"
        ),
    );
    ahead.iter().chain(&behind).map(|node| node.node.name.as_str()).collect()
}

/// Nodes whose kubelet does not fit a hop: those that the update does not move, or cannot move before it; not those that are refused as
/// they are.
fn too_old(
    hops: &[Hop<'_>],
    hop: &Hop<'_>,
    refused_already: &BTreeSet<&str>,
    moves: &impl Fn(&NodeSnapshot) -> bool,
    findings: &mut Findings,
) {
    let (from, version) = (hop.step.before.server, hop.step.version);
    let mut too_old = Vec::new();
    let mut refused = Vec::new();
    for node in hop.step.before.nodes.values().filter(|node| !refused_already.contains(node.node.name.as_str())) {
        if let Err(Skew::TooOld { .. }) = skew::kubelet(node.kubelet, version, version) {
            too_old.push(node);
        } else if skew::kubeadm_accepts(node.kubelet, version).is_err() {
            refused.push(node);
        }
    }
    // A hop that is there to move these: its API servers stay where they are.
    if hop.step.is_for_late_kubelets() || version == from {
        too_old.retain(|node| !moves(node));
    }
    // kubeadm looks at the kubelets wherever it runs, at one version too.
    let kubeadm_runs = hop.control_plane.moves;
    if !kubeadm_runs {
        refused.retain(|node| !moves(node));
    }
    let shown = |nodes: &[&NodeSnapshot]| named(nodes.iter().map(|node| at(node)));
    let now = hops.first().map_or(from, |first| first.step.before.server);
    let remedy = |nodes: &[&NodeSnapshot]| {
        let selected = nodes.iter().all(|node| moves(node));
        if version == from {
            let (minor, next) = (version.minor_version(), version.minor_version().next());
            let by_hand = format!(
                "kubeadm has work left at {version}, and no hop of this update can move them before it: upgrade their kubelets to {minor} by hand"
            );
            if selected {
                return format!("{by_hand}, or set a release of {next} as the target, whose plan moves them first");
            }
            return by_hand;
        }
        match (now == from, selected) {
            (true, true) => {
                format!("put {from} first in spec.path, or upgrade their kubelets to {} first", from.minor_version())
            }
            (true, false) => {
                format!(
                    "upgrade their kubelets to {} first, or let spec.nodeSelector select them",
                    from.minor_version()
                )
            }
            (false, _) => {
                format!("set spec.targetVersion to {from}, then upgrade them, or let spec.nodeSelector select them")
            }
        }
    };
    if !too_old.is_empty() {
        let message = format!(
            "kubelets more than three minors (two below 1.25) behind {version} do not work with its API server"
        );
        findings.refuse(
            Finding::new(Code::VersionSkew, "nodes", shown(&too_old), message, remedy(&too_old))
                .of_nodes(names(&too_old)),
        );
    }
    if !refused.is_empty() {
        let message = format!(
            "kubeadm {} refuses kubelets more than {} minor behind it",
            version.minor_version(),
            skew::kubeadm_kubelet_minors_behind_max(version.minor_version())
        );
        findings.refuse(
            Finding::new(Code::VersionSkew, "nodes", shown(&refused), message, remedy(&refused))
                .of_nodes(names(&refused)),
        );
    }
}

/// Kubelets newer than the target, with what to do.
pub(crate) fn newer_than_target(nodes: &[&NodeSnapshot], target: KubeVersion) -> Finding {
    let newest = nodes.iter().map(|node| node.kubelet).max().unwrap_or(target);
    Finding::new(
        Code::Downgrade,
        "spec.targetVersion",
        target,
        format!("kubelets are newer already: {}", named(nodes.iter().map(|node| at(node)))),
        format!("set {newest} or newer"),
    )
    .of_nodes(names(nodes))
}

fn names<'n>(nodes: &'n [&NodeSnapshot]) -> impl Iterator<Item = &'n str> {
    nodes.iter().map(|node| node.node.name.as_str())
}

fn at(node: &NodeSnapshot) -> String {
    format!("{} ({})", node.node.name, node.kubelet)
}

/// Canary nodes and the selector against the workers there are.
pub(crate) fn selection(
    spec: &DirectUpdateSpec,
    snapshot: &ClusterSnapshot,
    workers: &Workers<'_>,
    control_plane_moves: bool,
    findings: &mut Findings,
) {
    canaries(spec, snapshot, findings);
    let opted_out: Vec<&str> = snapshot
        .with_role(NodeRole::Worker)
        .filter(|node| opted_out(&node.labels))
        .map(|node| node.node.name.as_str())
        .collect();
    if !opted_out.is_empty() {
        let remedy = format!("where one is to move: kubectl label node {} {OPT_OUT_LABEL}-", opted_out[0]);
        let message = "their label keeps them out of every update: they stay as they are";
        findings.warn(Finding::new(Code::OptedOut, "nodes", named(&opted_out), message, remedy).of_nodes(opted_out));
    }
    let selected = workers.moving.len() + workers.at_target.len() + workers.newer.len();
    if spec.node_selector.is_empty() || selected > 0 {
        return;
    }
    let pairs: Vec<String> = spec.node_selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let message = "no worker has all of these labels";
    let see = format!("see: kubectl get nodes -l {}", pairs.join(","));
    let finding = Finding::new(Code::NothingSelected, "spec.nodeSelector", pairs.join(","), message, see);
    if control_plane_moves {
        findings.warn(Finding { message: format!("{message}: only the control plane moves"), ..finding });
    } else {
        findings.refuse(finding);
    }
}

fn canaries(spec: &DirectUpdateSpec, snapshot: &ClusterSnapshot, findings: &mut Findings) {
    let enabled = spec.canary.as_ref().is_some_and(|canary| canary.enabled);
    let nodes = spec.canary.as_ref().map_or(&[][..], |canary| &canary.nodes[..]);
    match spec.strategy {
        Strategy::Rolling | Strategy::Parallel => {
            if enabled {
                let message = format!("no effect under strategy {:?}", spec.strategy).to_lowercase();
                findings.warn(Finding::new(
                    Code::NoEffect,
                    "spec.canary",
                    named(nodes),
                    message,
                    "set spec.strategy to canary",
                ));
            }
            return;
        }
        Strategy::Canary => {}
    }
    if !enabled || nodes.is_empty() {
        findings.refuse(Finding::new(
            Code::UnknownCanary,
            "spec.canary",
            "",
            "strategy canary needs the nodes that go first",
            "set spec.canary.enabled to true and name workers in spec.canary.nodes",
        ));
    }
    if let Some(soak) = spec.canary.as_ref().and_then(|canary| canary.soak)
        && (soak.is_negative() || std::time::Duration::from(soak).as_secs() > u64::from(SOAK_SECONDS_MAX))
    {
        findings.refuse(Finding::new(
            Code::OutOfRange,
            "spec.canary.soak",
            soak,
            "no time to watch canaries for",
            "set a duration of at most 72h, or spec.approvals: [AfterCanary] to decide yourself",
        ));
    }
    let mut unknown = Vec::new();
    let mut control_plane = Vec::new();
    let mut left_out = Vec::new();
    for name in nodes {
        match snapshot.nodes.get(name) {
            None => unknown.push(name),
            Some(node) if node.role == NodeRole::ControlPlane => control_plane.push(name),
            Some(node) if !spec.moves(name, &node.labels) => left_out.push(name),
            Some(_) => {}
        }
    }
    for (names, message, remedy) in [
        (unknown, "no such node", "name nodes as kubectl get nodes shows them"),
        (control_plane, "control-plane nodes always go first and cannot be canaries", "name workers"),
        (
            left_out,
            "spec.nodeSelector, spec.control.skip or their label leaves them out",
            "name selected workers, or change the selector",
        ),
    ] {
        if !names.is_empty() {
            findings.refuse(Finding::new(Code::UnknownCanary, "spec.canary.nodes", named(names), message, remedy));
        }
    }
}

/// How old what a machine told of itself may be before an update starts, in seconds: apart from what machines do by themselves, people
/// may have changed one by hand since.
pub const INVENTORY_SECONDS_MAX: i64 = 900;

/// What does not refuse a plan, but will make it wait: nodes that are not Ready, cordoned by others, or silent.
pub(crate) fn readiness(snapshot: &ClusterSnapshot, moving: &[&NodeSnapshot], findings: &mut Findings) {
    let names = |wanted: &dyn Fn(&NodeSnapshot) -> bool| -> Vec<&str> {
        moving.iter().filter(|node| wanted(node)).map(|node| node.node.name.as_str()).collect()
    };
    let mut warn = |code, nodes: Vec<&str>, message: &str, remedy: &str, bearing| {
        if !nodes.is_empty() {
            findings.warn(Finding::new(code, "nodes", named(&nodes), message, remedy).of_nodes(nodes).bearing(bearing));
        }
    };
    warn(
        Code::NodeNotReady,
        names(&|node| !node.ready),
        "not Ready: preflight waits for them",
        "mend them; workers can be left out by spec.nodeSelector",
        Bearing::Waits,
    );
    warn(
        Code::CordonedByOther,
        names(&|node| match node.cordon {
            Cordon::ByOther => true,
            Cordon::Schedulable | Cordon::ByRun { .. } => false,
        }),
        "cordoned by somebody else: they stay cordoned after their upgrade",
        "",
        Bearing::Told,
    );
    // Where no machine told anything there may be no agents yet, as in a file written by hand: then nothing is known, good or bad.
    let is_told = snapshot.nodes.values().any(|node| node.inventory.is_some());
    warn(
        Code::NoInventory,
        names(&|node| node.inventory.is_none()),
        "no agent answered yet, so nothing is known of these machines: preflight waits for them",
        "see the agent's pods there",
        if is_told { Bearing::Waits } else { Bearing::NothingKnown },
    );
    let old = snapshot.taken_at - TimeDelta::seconds(INVENTORY_SECONDS_MAX);
    warn(
        Code::NoInventory,
        names(&|node| {
            node.inventory.as_ref().and_then(|inventory| inventory.taken_at).is_some_and(|taken_at| taken_at < old)
        }),
        "what is known of these machines is older than 15 minutes: they are asked again before anything is started",
        "",
        Bearing::Told,
    );
}
