//! The container runtime, where `spec.components` names containerd: which one version of its package every visited node gets.
//!
//! containerd moves in a node's visit, after the drain and before the newer kubelet, so only where a kubelet moves. Which version is
//! decided once, by the root run's plan, and waves follow it. Left out of `spec.componentVersions` it is the newest release that
//! every visited node's index offers within the minor that runs there: another minor is a change that somebody has to ask for.

use crate::compile::Hop;
use crate::finding::{Code, Finding, Findings, named};
use cupcake_crds::DirectUpdateSpec;
use cupcake_crds::limits::CONTAINERDS_MAX;
use cupcake_crds::values::{Component, KubeVersion, NodeRole, NodeSnapshot, PackageVersion};
use std::collections::{BTreeMap, BTreeSet};

/// The field that names the version.
const VERSION_FIELD: &str = "spec.componentVersions.containerd";

/// containerd of a node as its inventory tells.
struct Told {
    installed: PackageVersion,
    offered: Vec<PackageVersion>,
    /// Whether the list is all that there is.
    whole: bool,
}

impl Told {
    /// What the inventory of that node tells; nothing where it does not, or of a runtime that cannot be upgraded.
    fn of(node: &NodeSnapshot) -> Option<Self> {
        let found = node.inventory.as_ref()?.containerd_package.as_ref()?;
        let installed = found.version.as_ref()?.parse().ok()?;
        let offered = found.offered.iter().filter_map(|text| text.parse().ok()).collect();
        Some(Self { installed, offered, whole: found.offered.len() < CONTAINERDS_MAX })
    }

    /// Whether it has that version or can get it, as far as is known: a full list had no room for more.
    fn has(&self, version: &PackageVersion) -> bool {
        self.installed == *version || self.offered.contains(version) || !self.whole
    }

    fn versions(&self) -> impl Iterator<Item = &PackageVersion> {
        self.offered.iter().chain([&self.installed])
    }
}

/// Why a node's containerd cannot be upgraded as a package, if so.
fn unfit(node: &NodeSnapshot) -> Option<String> {
    node.inventory.as_ref()?.containerd_package.as_ref()?.unfit.clone()
}

/// Whether containerd of that node has to be upgraded to that version, as far as is known.
pub(crate) fn moves(node: &NodeSnapshot, version: &PackageVersion) -> bool {
    Told::of(node).is_none_or(|told| told.installed != *version)
}

/// The version for those of the nodes that need it, if any does.
pub(crate) fn for_any<'v>(nodes: &[&NodeSnapshot], version: Option<&'v PackageVersion>) -> Option<&'v PackageVersion> {
    version.filter(|version| nodes.iter().any(|node| moves(node, version)))
}

/// The version that the visited nodes get; none where containerd is not asked for, nowhere to be moved, or refused.
pub(crate) fn containerd(spec: &DirectUpdateSpec, hops: &[Hop<'_>], findings: &mut Findings) -> Option<PackageVersion> {
    if !spec.moves_containerd() {
        if let Some(version) = spec.containerd_version() {
            let message = "containerd is not named in spec.components, so it stays as it is";
            let remedy = format!("set spec.components: {}, or leave componentVersions out", with_containerd(spec));
            findings.refuse(Finding::new(Code::IllegalComponents, VERSION_FIELD, version, message, remedy));
        }
        return None;
    }
    let asked = match spec.containerd_version().map(str::parse::<PackageVersion>).transpose() {
        Ok(asked) => asked,
        Err(error) => {
            let message = "no version of a package";
            let remedy = "write it as 1.7.24, or whole as 1.7.24-1";
            findings.refuse(Finding::new(Code::InvalidVersion, VERSION_FIELD, error.text, message, remedy));
            return None;
        }
    };
    let (visited, others) = nodes(hops);
    if visited.is_empty() {
        nothing_else_moves(&others, asked.as_ref(), findings);
        return None;
    }
    if spec.drain.as_ref().is_some_and(|drain| !drain.on_patch) {
        let message = "no effect beside containerd, which moves on drained nodes only";
        let remedy = "leave it out, or containerd";
        findings.warn(Finding::new(Code::NoEffect, "spec.drain.onPatch", false, message, remedy));
    }
    let version = resolve(&visited, asked.as_ref(), findings)?;
    let behind: Vec<_> = others.iter().filter(|node| moves(node, &version)).map(|node| at(node)).collect();
    if !behind.is_empty() {
        let message =
            format!("their kubelets do not move, so they are not visited and do not get containerd {version}");
        let remedy = "it comes with an update that moves their kubelets";
        findings.warn(Finding::new(Code::NoEffect, "spec.components", named(behind), message, remedy));
    }
    Some(version)
}

/// `[kubeadm, kubelet, kubectl, containerd]`
pub(crate) fn with_containerd(spec: &DirectUpdateSpec) -> String {
    let named = spec.components.iter().filter(|component| **component != Component::Containerd);
    let words = named.map(|component| format!("{component:?}").to_lowercase()).chain(["containerd".to_owned()]);
    format!("[{}]", words.collect::<Vec<_>>().join(", "))
}

/// Nodes whose kubelet moves in some hop, and those that are selected and stay, as they are before anything moves.
fn nodes<'s>(hops: &'s [Hop<'s>]) -> (Vec<&'s NodeSnapshot>, Vec<&'s NodeSnapshot>) {
    let of_hop = |hop: &'s Hop<'s>| hop.control_plane.kubelets.iter().chain(&hop.workers.moving).copied();
    // The earliest hop of each counts: later ones see it as it will be then.
    let visited: BTreeMap<&str, &NodeSnapshot> =
        hops.iter().rev().flat_map(of_hop).map(|node| (node.node.name.as_str(), node)).collect();
    let all = hops.first().into_iter().flat_map(|hop| {
        let control_plane = hop.step.before.with_role(NodeRole::ControlPlane);
        control_plane.chain(hop.workers.at_target.iter().chain(&hop.workers.newer).copied())
    });
    let others = all.filter(|node| !visited.contains_key(node.node.name.as_str())).collect();
    (visited.into_values().collect(), others)
}

/// An update in which no kubelet moves has no visit in which containerd could.
fn nothing_else_moves(others: &[&NodeSnapshot], asked: Option<&PackageVersion>, findings: &mut Findings) {
    let is_there = |node: &&&NodeSnapshot| {
        let Some(told) = Told::of(node) else { return false };
        match asked {
            Some(asked) => told.installed.is(asked),
            None => newest(&[&told], None).as_ref() == Some(&told.installed),
        }
    };
    let (of_before, behind): (Vec<&NodeSnapshot>, Vec<&NodeSnapshot>) = others
        .iter()
        .filter(|node| is_of_before(node) || !is_there(node))
        .copied()
        .partition(|node| is_of_before(node));
    if !of_before.is_empty() {
        let message = "what is known of their containerd is from before their kubelet was upgraded";
        let remedy = "they are asked again; see the agents' pods there if it stays so";
        let nodes: Vec<String> = of_before.iter().map(|node| node.node.name.clone()).collect();
        let finding = Finding::new(Code::RuntimeUnknown, "packages", named(&nodes), message, remedy);
        findings.refuse(finding.by_inventories_of(nodes));
    }
    if !behind.is_empty() {
        let names = behind.iter().map(|node| node.node.name.clone()).collect();
        let behind: Vec<String> = behind.into_iter().map(at).collect();
        let message = format!(
            "no kubelet moves, and containerd moves only in the visit of a node whose kubelet does; not as asked for: {}",
            named(behind)
        );
        let remedy = "set spec.targetVersion to a newer patch, or leave containerd out and upgrade it by hand";
        let finding = Finding::new(Code::IllegalComponents, "spec.components", "containerd", message, remedy);
        findings.refuse(finding.by_inventories_of(names));
    }
}

/// Whether a node's inventory tells of another kubelet than the Node: it was taken before an upgrade.
fn is_of_before(node: &NodeSnapshot) -> bool {
    let told = node.inventory.as_ref().and_then(|found| found.kubelet.as_deref());
    told.and_then(|text| text.parse::<KubeVersion>().ok()).is_some_and(|told| told != node.kubelet)
}

/// The one version, or findings that say on which nodes it cannot be had.
fn resolve(
    visited: &[&NodeSnapshot],
    asked: Option<&PackageVersion>,
    findings: &mut Findings,
) -> Option<PackageVersion> {
    let refused = findings.refused.len();
    let names = |nodes: &[&NodeSnapshot]| nodes.iter().map(|node| node.node.name.clone()).collect::<Vec<_>>();
    let strange: Vec<_> = visited.iter().copied().filter(|node| unfit(node).is_some()).collect();
    if let Some(first) = strange.first() {
        let message = format!("only containerd of a package is upgraded; {}: {}", first.node.name, unfit(first)?);
        let remedy = "install containerd from a package repository there, or leave containerd out of spec.components and upgrade the runtime by hand";
        let nodes = names(&strange);
        let finding = Finding::new(Code::RuntimeNotPackaged, "nodes", named(&nodes), message, remedy);
        findings.refuse(finding.by_inventories_of(nodes));
    }
    let silent: Vec<_> =
        visited.iter().copied().filter(|node| unfit(node).is_none() && Told::of(node).is_none()).collect();
    let known: BTreeMap<&str, Told> =
        visited.iter().filter_map(|node| Some((node.node.name.as_str(), Told::of(node)?))).collect();
    let told: Vec<&Told> = known.values().collect();
    let version = match asked {
        Some(asked) if asked.is_whole() => Some(asked.clone()),
        Some(_) => newest(&told, asked),
        None => of_one_minor(&known, findings),
    };
    if !silent.is_empty() {
        let nodes = names(&silent);
        let message = "which containerd is installed and offered there is not known";
        let finding = |code, remedy: &str| {
            Finding::new(code, "packages", named(&nodes), message, remedy).by_inventories_of(nodes.clone())
        };
        if asked.is_some() && version.is_some() {
            let remedy =
                "see that the mirror carries it: a version that it lacks rests the update when its node is visited";
            findings.warn(finding(Code::NotLookedAt, remedy));
        } else {
            let remedy = "see the agent's pod there, or name the whole version of the package in spec.componentVersions.containerd, for example 1.7.24-1";
            findings.refuse(finding(Code::RuntimeUnknown, remedy));
        }
    }
    let Some(version) = version else {
        if let Some(asked) = asked.filter(|_| !known.is_empty()) {
            let offers = told.iter().flat_map(|told| told.versions()).max();
            let message = format!("no package index offers it, but {} at the newest", shown(offers));
            let nodes: Vec<String> = known.keys().map(|name| (*name).to_owned()).collect();
            let remedy = format!(
                "name a version that is offered in {VERSION_FIELD}, or let the mirror carry it and refresh (on the node: apt-get update, dnf makecache --refresh or zypper refresh)"
            );
            let finding = Finding::new(Code::RuntimeVersion, VERSION_FIELD, asked, message, remedy);
            findings.refuse(finding.by_inventories_of(nodes));
        }
        return None;
    };
    fits(&known, &version, findings);
    (findings.refused.len() == refused).then_some(version)
}

/// The newest version that all of them have or can get without a downgrade; else the newest that any can.
fn newest(told: &[&Told], asked: Option<&PackageVersion>) -> Option<PackageVersion> {
    let minors: BTreeSet<_> = told.iter().map(|told| told.installed.minor()).collect();
    let fits = |version: &&PackageVersion| match asked {
        Some(asked) => version.is(asked),
        None => version.is_release() && minors.contains(&version.minor()),
    };
    let versions: BTreeSet<&PackageVersion> = told.iter().flat_map(|told| told.versions()).filter(fits).collect();
    let all_can =
        |version: &&&PackageVersion| told.iter().all(|told| told.installed <= ***version && told.has(version));
    let of_all = versions.iter().rev().find(all_can);
    of_all.or_else(|| versions.last()).map(|version| (*version).clone())
}

/// The newest within the minor that runs everywhere.
fn of_one_minor(known: &BTreeMap<&str, Told>, findings: &mut Findings) -> Option<PackageVersion> {
    let mut minors: BTreeMap<Option<(u32, u32)>, Vec<&str>> = BTreeMap::new();
    for (name, told) in known {
        minors.entry(told.installed.minor()).or_default().push(name);
    }
    if minors.len() > 1 {
        let each = minors.iter().map(|(minor, names)| {
            let (major, minor) = minor.unwrap_or_default();
            format!("{major}.{minor} on {}", named(names))
        });
        let message = format!(
            "several minors of containerd run, and left out it stays within one: {}",
            each.collect::<Vec<_>>().join(", ")
        );
        let remedy = format!("name the version that all of them are to get in {VERSION_FIELD}");
        findings.refuse(Finding::new(Code::RuntimeVersion, VERSION_FIELD, "", message, remedy));
        return None;
    }
    newest(&known.values().collect::<Vec<_>>(), None)
}

/// Refuses nodes that cannot get the version, and those that have a newer one.
fn fits(known: &BTreeMap<&str, Told>, version: &PackageVersion, findings: &mut Findings) {
    let newer: Vec<_> = known.iter().filter(|(_, told)| told.installed > *version).collect();
    if !newer.is_empty() {
        let names = newer.iter().map(|(name, told)| format!("{name} ({})", told.installed));
        let message =
            format!("older than the containerd that is installed on {}; it is never downgraded", named(names));
        let newest = newer.iter().map(|(_, told)| &told.installed).max();
        let remedy = format!("name {} or newer in {VERSION_FIELD}", shown(newest));
        findings.refuse(Finding::new(Code::Downgrade, VERSION_FIELD, version, message, remedy));
    }
    let lacking: Vec<_> = known.iter().filter(|(_, told)| told.installed < *version && !told.has(version)).collect();
    if lacking.is_empty() {
        return;
    }
    let nodes: Vec<String> = lacking.iter().map(|(name, _)| (**name).to_owned()).collect();
    let newest = lacking.iter().filter_map(|(_, told)| told.offered.iter().max()).max();
    let message = format!("their package indexes offer no containerd {version}, but {} at the newest", shown(newest));
    let remedy = format!(
        "let the mirror carry it and refresh (on the node: apt-get update, dnf makecache --refresh or zypper refresh), or name a version that every node offers in {VERSION_FIELD}; the machines are asked again every five minutes"
    );
    let finding = Finding::new(Code::RuntimeVersion, "nodes", named(&nodes), message, remedy);
    findings.refuse(finding.by_inventories_of(nodes));
}

fn shown(version: Option<&PackageVersion>) -> String {
    version.map_or("nothing".to_owned(), ToString::to_string)
}

fn at(node: &NodeSnapshot) -> String {
    match Told::of(node) {
        Some(told) => format!("{} ({})", node.node.name, told.installed),
        None => node.node.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cluster, compiled, plan_of, run, spec, wave_of};
    use crate::{Compilation, Refusal, WaveOf, compile_wave, wave_run};
    use cupcake_crds::node_task::{ContainerdPackage, NodeInventory};
    use cupcake_crds::values::ClusterSnapshot;
    use cupcake_engine::plan::Plan;
    use serde_json::{Value, json};

    const OFFERED: [&str; 4] = ["2.1.4-1", "1.7.27-1", "1.7.24-1", "1.7.20-1"];

    fn told(version: &str, offered: &[&str]) -> NodeInventory {
        let offered = offered.iter().map(|text| (*text).to_owned()).collect();
        let package = ContainerdPackage {
            name: Some("containerd.io".to_owned()),
            offered,
            unfit: None,
            version: Some(version.to_owned()),
        };
        NodeInventory { containerd_package: Some(package), ..NodeInventory::default() }
    }

    /// Three control-plane nodes and three workers at 1.33.4 with containerd 1.7.24-1.
    fn snapshot() -> ClusterSnapshot {
        let mut snapshot = cluster(3, 3, "1.33.4");
        for node in snapshot.nodes.values_mut() {
            node.inventory = Some(told("1.7.24-1", &OFFERED));
        }
        snapshot
    }

    fn asked(fields: &Value) -> DirectUpdateSpec {
        let mut all = json!({"components": ["kubeadm", "kubelet", "kubectl", "containerd"]});
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        spec(&all)
    }

    fn at_version(version: &str) -> DirectUpdateSpec {
        asked(&json!({"componentVersions": {"containerd": version}}))
    }

    /// By vertex that orders work: the version of containerd in it, and that it comes before the kubelet in its second part.
    fn ordered(plan: &Plan) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for vertex in plan.expand().unwrap().vertices() {
            let finish = vertex.params["finish"].as_array().cloned().unwrap_or_default();
            let Some(step) = finish.iter().find(|step| step["kind"] == "upgrade-containerd/v1") else { continue };
            let names: Vec<_> = finish.iter().map(|step| step["name"].as_str().unwrap()).collect();
            assert_eq!(names, ["upgrade-containerd", "install-kubelet", "restart-kubelet"], "{}", vertex.name);
            found.push((vertex.name.to_string(), step["params"]["version"].as_str().unwrap().to_owned()));
        }
        found
    }

    fn refused(spec: &DirectUpdateSpec, change: impl Fn(&mut ClusterSnapshot)) -> Refusal {
        let mut snapshot = snapshot();
        change(&mut snapshot);
        compiled(spec, &snapshot).unwrap_err()
    }

    fn set(snapshot: &mut ClusterSnapshot, node: &str, inventory: Option<NodeInventory>) {
        snapshot.nodes.get_mut(node).unwrap().inventory = inventory;
    }

    #[test]
    fn every_visit_brings_the_newest_of_its_minor_that_all_offer_after_the_drain_and_before_the_kubelet() {
        let plan = plan_of(&asked(&json!({})), &snapshot());
        let visits: Vec<_> = (1..=3)
            .flat_map(|n| ["prepare", "kubelet"].map(|word| format!("1.34.4/kubelets/cp-{n}/{word}")))
            .map(|name| (name, "1.7.27-1".to_owned()))
            .collect();
        assert_eq!(ordered(&plan.plan), visits, "an order and its word to go on");
        let line = "       containerd 1.7.27-1, after the drain and before the kubelet: 6 nodes";
        assert!(plan.summary.lines().iter().any(|told| told == line), "{:#?}", plan.summary.lines());
        assert_eq!(json!(plan.summary.hops[0])["containerd"], json!({"version": "1.7.27-1", "nodes": 6}));
        let workers = plan.plan.expand().unwrap();
        let workers = workers.vertices().iter().find(|vertex| vertex.name.as_str() == "1.34.4/workers").unwrap();
        assert_eq!(
            workers.params["source"]["wave"]["containerd"], "1.7.27-1",
            "the wave follows the root's plan: {}",
            workers.params
        );
    }

    #[test]
    fn a_wave_follows_the_version_of_the_plan_whatever_is_offered_by_then_and_leaves_out_who_has_it() {
        let update = asked(&json!({}));
        let mut later = crate::testing::after_control_plane(&snapshot(), "1.34.4".parse().unwrap());
        for node in later.nodes.values_mut() {
            node.inventory = Some(told("1.7.24-1", &["1.7.28-1"]));
        }
        set(&mut later, "w-02", Some(told("1.7.27-1", &[])));
        let wave = wave_run(&run(), "1.34.4".parse().unwrap()).unwrap();
        let request = crate::Request { name: crate::testing::NAME, uid: crate::testing::UID, spec: &update };
        let containerd = Some("1.7.27-1".parse().unwrap());
        let hop = WaveOf { containerd, ..WaveOf::last("1.34.4".parse().unwrap()) };
        let Compilation::Plan(wave) = compile_wave(&request, &wave, &hop, &later).unwrap() else { panic!("nothing") };
        let names: Vec<_> = ordered(&wave.batches[0].plan).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["w-01/prepare", "w-01/kubelet", "w-03/prepare", "w-03/kubelet"]);
    }

    #[test]
    fn an_update_that_does_not_ask_for_it_has_nothing_of_it() {
        let (with, without) = (snapshot(), cluster(3, 3, "1.33.4"));
        let update = spec(&json!({}));
        assert_eq!(plan_of(&update, &with).digest, plan_of(&update, &without).digest);
        assert_eq!(wave_of(&update, &with).digest, wave_of(&update, &without).digest);
        assert!(!json!(plan_of(&update, &with).summary).to_string().contains("containerd"));
    }

    #[test]
    fn over_several_hops_each_node_gets_it_in_its_first_visit_alone() {
        let plan = plan_of(&asked(&json!({"targetVersion": "1.36.3"})), &snapshot());
        let ordered = ordered(&plan.plan);
        assert!(ordered.len() == 6 && ordered.iter().all(|(name, _)| name.starts_with("1.34")), "{ordered:?}");
        let nodes: Vec<_> =
            plan.summary.hops.iter().map(|hop| hop.containerd.as_ref().map_or(0, |of| of.nodes)).collect();
        assert_eq!(nodes, [3, 0, 3], "the workers move in the last hop only");
    }

    #[test]
    fn a_version_may_be_named_by_upstreams_number_or_whole_and_another_minor_has_to_be() {
        for (named, whole) in [("1.7.27", "1.7.27-1"), ("1.7.27-1", "1.7.27-1"), ("2.1.4", "2.1.4-1")] {
            let plan = plan_of(&at_version(named), &snapshot());
            assert!(ordered(&plan.plan).iter().all(|(_, version)| version == whole), "{named}");
        }
        let there = plan_of(&at_version("1.7.24"), &snapshot());
        assert_eq!(ordered(&there.plan), [], "it is there already, so it is not even in the plan");
        assert_eq!(there.summary.hops[0].containerd, None);
        let two = refused(&asked(&json!({})), |snapshot| set(snapshot, "w-02", Some(told("1.6.33-1", &OFFERED))));
        assert_eq!((two.code(), two.findings[0].field.as_str()), (Code::RuntimeVersion, VERSION_FIELD));
        assert!(two.to_string().contains("1.6 on w-02, 1.7 on cp-1"), "{two}");
        let mut snapshot = snapshot();
        set(&mut snapshot, "w-02", Some(told("1.6.33-1", &OFFERED)));
        assert_eq!(plan_of(&at_version("1.7.24"), &snapshot).summary.hops[0].containerd.as_ref().unwrap().nodes, 1);
    }

    #[test]
    fn a_node_that_cannot_get_the_version_is_refused_by_name_with_version_and_remedy() {
        let old = |snapshot: &mut ClusterSnapshot| set(snapshot, "w-02", Some(told("1.7.24-1", &["1.7.24-1"])));
        let refusal = refused(&at_version("1.7.27"), old);
        assert_eq!((refusal.code(), refusal.findings[0].value.as_str()), (Code::RuntimeVersion, "w-02"));
        for words in
            ["no containerd 1.7.27-1", "1.7.24-1 at the newest", "spec.componentVersions.containerd", "apt-get update"]
        {
            assert!(refusal.to_string().contains(words), "{refusal}");
        }
        assert_eq!(*refusal.findings[0].nodes, ["w-02"], "whose inventory is to be asked for anew");
        let mut lags = snapshot();
        old(&mut lags);
        let plan = plan_of(&asked(&json!({})), &lags);
        assert_eq!(ordered(&plan.plan), [], "left out, it is the newest that all of them offer: the one that is there");
        let nowhere = refused(&at_version("1.9.9"), |_| ());
        assert!(
            nowhere.to_string().contains("\"1.9.9\": no package index offers it, but 2.1.4-1 at the newest"),
            "{nowhere}"
        );
        let apart = |snapshot: &mut ClusterSnapshot| set(snapshot, "w-02", Some(told("1.7.20-1", &["1.7.21-1"])));
        let apart = refused(&asked(&json!({})), apart);
        assert_eq!((apart.code(), apart.findings[0].value.as_str()), (Code::RuntimeVersion, "w-02"));
    }

    #[test]
    fn what_is_newer_already_is_never_downgraded() {
        let refusal = refused(&at_version("1.7.20"), |_| ());
        assert_eq!((refusal.code(), refusal.findings[0].value.as_str()), (Code::Downgrade, "1.7.20-1"));
        assert!(refusal.to_string().contains("name 1.7.24-1 or newer"), "{refusal}");
    }

    #[test]
    fn a_runtime_of_another_kind_and_one_that_nobody_knows_are_refused_by_node() {
        let crio = |snapshot: &mut ClusterSnapshot| {
            let unfit = Some("the kubelet uses unix:///run/crio/crio.sock".to_owned());
            let package = ContainerdPackage { unfit, ..ContainerdPackage::default() };
            set(
                snapshot,
                "cp-2",
                Some(NodeInventory { containerd_package: Some(package), ..NodeInventory::default() }),
            );
        };
        let refusal = refused(&asked(&json!({})), crio);
        assert_eq!((refusal.code(), refusal.findings[0].value.as_str()), (Code::RuntimeNotPackaged, "cp-2"));
        assert!(
            refusal.to_string().contains("crio.sock") && refusal.to_string().contains("leave containerd out"),
            "{refusal}"
        );
        let silent = |snapshot: &mut ClusterSnapshot| set(snapshot, "w-03", None);
        let refusal = refused(&asked(&json!({})), silent);
        assert_eq!((refusal.code(), refusal.findings[0].value.as_str()), (Code::RuntimeUnknown, "w-03"));
        let mut snapshot = snapshot();
        silent(&mut snapshot);
        let plan = plan_of(&at_version("1.7.27"), &snapshot);
        let warned = |code| plan.report.warnings.iter().any(|warning| warning.code == code && warning.value == "w-03");
        assert!(warned(Code::NotLookedAt), "{:?}", plan.report.warnings);
    }

    #[test]
    fn where_no_kubelet_moves_containerd_does_not_and_nodes_that_are_not_visited_are_named() {
        let at_target = |snapshot: &mut ClusterSnapshot, nodes: &[&str]| {
            for name in nodes {
                snapshot.nodes.get_mut(*name).unwrap().kubelet = "1.34.4".parse().unwrap();
            }
        };
        let mut there = snapshot();
        (there.server, there.kubeadm_config) = ("1.34.4".parse().unwrap(), Some("1.34.4".parse().unwrap()));
        at_target(&mut there, &["cp-1", "cp-2", "cp-3", "w-01", "w-02"]);
        let plan = plan_of(&asked(&json!({})), &there);
        let warning = plan.report.warnings.iter().find(|warning| warning.field == "spec.components").expect("told");
        assert!(warning.value.starts_with("cp-1 (1.7.24-1)") && warning.message.contains("1.7.27-1"), "{warning}");
        at_target(&mut there, &["w-03"]);
        let refusal = compiled(&asked(&json!({})), &there).unwrap_err();
        assert_eq!((refusal.code(), refusal.findings[0].value.as_str()), (Code::IllegalComponents, "containerd"));
        set(&mut there, "w-03", Some(NodeInventory { kubelet: Some("1.33.4".to_owned()), ..told("1.7.24-1", &[]) }));
        let stale = compiled(&asked(&json!({})), &there).unwrap_err();
        assert!(stale.findings.iter().any(|one| one.code == Code::RuntimeUnknown && one.value == "w-03"), "{stale}");
        for node in there.nodes.values_mut() {
            node.inventory = Some(told("1.7.27-1", &OFFERED));
        }
        for update in [asked(&json!({})), at_version("1.7.27")] {
            assert!(matches!(compiled(&update, &there), Ok(Compilation::NothingToDo(_))), "all is as asked for");
        }
    }

    #[test]
    fn a_node_that_gets_containerd_is_drained_also_within_its_minor() {
        let fields = json!({"targetVersion": "1.33.13", "drain": {"onPatch": false}});
        let with = plan_of(&asked(&fields), &snapshot());
        let dag = with.plan.expand().unwrap();
        assert!(dag.vertices().iter().any(|one| one.name.as_str() == "1.33.13/kubelets/cp-1/drain"));
        assert!(with.report.warnings.iter().any(|warning| warning.field == "spec.drain.onPatch"));
        let without = plan_of(&spec(&fields), &snapshot());
        assert_eq!(without.summary.hops[0].undrained, 6);
    }

    #[test]
    fn a_kubelet_that_needs_a_newer_containerd_is_content_with_the_one_that_comes_before_it() {
        let mut snapshot = cluster(1, 2, "1.25.16");
        for node in snapshot.nodes.values_mut() {
            let inventory = told("1.5.9-1", &["1.6.33-1", "1.5.9-1"]);
            node.inventory = Some(NodeInventory { containerd: Some("1.5.9".to_owned()), ..inventory });
        }
        let to = |components: Value, versions: Value| {
            spec(&json!({"targetVersion": "1.26.15", "components": components, "componentVersions": versions}))
        };
        let (three, four) =
            (json!(["kubeadm", "kubelet", "kubectl"]), json!(["kubeadm", "kubelet", "kubectl", "containerd"]));
        let told = |spec: &DirectUpdateSpec| compiled(spec, &snapshot).unwrap_err();
        let refusal = told(&to(three, json!({})));
        assert_eq!(refusal.code(), Code::ContainerdTooOld);
        for words in ["spec.components: [kubeadm, kubelet, kubectl, containerd]", "spec.componentVersions.containerd"] {
            assert!(refusal.to_string().contains(words), "{refusal}");
        }
        let within = told(&to(four.clone(), json!({})));
        assert_eq!(within.code(), Code::ContainerdTooOld, "left out it stays within its minor: {within}");
        assert!(within.to_string().contains("name 1.6 or newer in spec.componentVersions.containerd"), "{within}");
        plan_of(&to(four, json!({"containerd": "1.6.33"})), &snapshot);
    }
}
