//! What keeps packages at their version on each machine. What an install lifts and puts back is told; what it leaves, and what keeps
//! the exact version away, refuses; what keeps a package that only comes along is a warning, since nobody knows before whether a newer
//! one is needed.

use crate::compile::Hop;
use crate::containerd::moves;
use crate::finding::{Code, Finding, Findings, named};
use crate::packages::moving;
use cupcake_crds::node_task::{HoldEffect, PackageHold};
use cupcake_crds::values::{NodeSnapshot, PackageVersion};
use std::collections::{BTreeMap, BTreeSet};

/// The packages that every update installs.
const KUBERNETES: [&str; 3] = ["kubeadm", "kubectl", "kubelet"];
/// The packages that bring containerd.
const CONTAINERD: [&str; 2] = ["containerd", "containerd.io"];
/// How many ways of holding packages one finding tells; the rest are counted.
const WAYS_MAX: usize = 3;

/// What holds packages, by node: words of the package manager with the packages.
type Held<'s> = BTreeMap<&'s str, BTreeMap<&'s str, BTreeSet<&'s str>>>;

fn add<'s>(all: &mut Held<'s>, node: &'s NodeSnapshot, hold: &'s PackageHold) {
    all.entry(&node.node.name).or_default().entry(&hold.by).or_default().insert(&hold.package);
}

/// Tells what holds packages on the nodes that move, and refuses those on which an exact version would be kept away.
pub(crate) fn holds(hops: &[Hop<'_>], containerd: Option<&PackageVersion>, findings: &mut Findings) {
    let (mut lifted, mut locked, mut needed) = (Held::new(), Held::new(), Held::new());
    for hop in hops {
        // Its packages have no epoch.
        let kubernetes = ("0", hop.step.version.to_string());
        let gets_containerd: BTreeSet<&str> = hop
            .control_plane
            .kubelets
            .iter()
            .chain(&hop.workers.moving)
            .filter(|node| containerd.is_some_and(|version| moves(node, version)))
            .map(|node| node.node.name.as_str())
            .collect();
        for (name, node) in moving(hop) {
            let found = node.inventory.as_ref().and_then(|found| found.holds.as_ref());
            for hold in found.into_iter().flatten() {
                let version = match hold.package.as_str() {
                    package if KUBERNETES.contains(&package) => Some((kubernetes.0, kubernetes.1.as_str())),
                    package if CONTAINERD.contains(&package) => {
                        let Some(version) = containerd.filter(|_| gets_containerd.contains(name)) else { continue };
                        Some((epoch_of(version), version.upstream()))
                    }
                    _ => None,
                };
                match (hold.effect, version) {
                    (HoldEffect::Lifted, Some(_)) => add(&mut lifted, node, hold),
                    (HoldEffect::Keeps | HoldEffect::Hides, Some(version)) if keeps_away(hold, version) => {
                        add(&mut locked, node, hold);
                    }
                    (HoldEffect::Lifted, None) | (HoldEffect::Keeps | HoldEffect::Hides, Some(_)) => {}
                    (HoldEffect::Keeps | HoldEffect::Hides, None) => add(&mut needed, node, hold),
                }
            }
        }
    }
    if !locked.is_empty() {
        let message = format!("no install of ours lifts what keeps the exact version away there: {}", told(&locked));
        let remedy = "take it off there (dnf versionlock delete, zypper removelock, the line of exclude=), or let it name \
                      each package alone: such a lock is lifted for the install and put back after it";
        findings.refuse(finding(Code::PackagesLocked, &locked, message, remedy));
    }
    if !needed.is_empty() {
        let message = format!(
            "kept at their version, which no install of ours lifts: {}; where kubeadm or the kubelet needs a newer one, the update rests there (UnmetDependencies)",
            told(&needed)
        );
        let remedy = "release them for the time of the update: apt-mark unhold, dnf versionlock delete, zypper removelock, or the pin";
        findings.warn(finding(Code::NeededHeld, &needed, message, remedy));
    }
    if !lifted.is_empty() {
        let message = format!("held: {}; lifted for each exact install, and put back after it", told(&lifted));
        findings.warn(finding(Code::PackagesHeld, &lifted, message, ""));
    }
}

fn finding(code: Code, held: &Held<'_>, message: String, remedy: &str) -> Finding {
    let nodes: Vec<String> = held.keys().map(|node| (*node).to_owned()).collect();
    Finding::new(code, "nodes", named(&nodes), message, remedy).by_inventories_of(nodes)
}

/// `kubeadm, kubelet by apt-mark hold`, with the nodes where machines differ.
fn told(held: &Held<'_>) -> String {
    let mut ways: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (node, holds) in held {
        let each = holds.iter().map(|(by, packages)| format!("{} by {by}", named(packages)));
        ways.entry(each.collect::<Vec<_>>().join(", ")).or_default().push(node);
    }
    let is_one = ways.len() == 1;
    let shown = ways.iter().take(WAYS_MAX).map(
        |(way, nodes)| {
            if is_one { way.clone() } else { format!("{way} on {}", named(nodes)) }
        },
    );
    let shown = shown.collect::<Vec<_>>().join("; ");
    match ways.len().saturating_sub(WAYS_MAX) {
        0 => shown,
        more => format!("{shown}; and {more} other ways"),
    }
}

/// Whether it keeps a version with that epoch away that is to be installed. A pattern without an epoch fits any. Of a pattern the part before the release counts: which release of a
/// package it will be is not known yet.
fn keeps_away(hold: &PackageHold, (epoch, version): (&str, &str)) -> bool {
    let is_named = hold.versions.as_deref().map(|pattern| {
        let (of_epoch, pattern) = pattern.split_once(':').unwrap_or(("*", pattern));
        let pattern = pattern.split_once('-').map_or(pattern, |(before, _)| before);
        fits(of_epoch, epoch) && fits(pattern, version)
    });
    match hold.effect {
        HoldEffect::Lifted => false,
        HoldEffect::Keeps => is_named != Some(true),
        HoldEffect::Hides => is_named != Some(false),
    }
}

/// The epoch of a version; 0 of one that names none.
fn epoch_of(version: &PackageVersion) -> &str {
    version.as_str().split_once(':').map_or("0", |(epoch, _)| epoch)
}

/// Whether a pattern of `*` and `?` fits the whole of a version.
fn fits(pattern: &str, version: &str) -> bool {
    let Some(wanted) = pattern.chars().next() else { return version.is_empty() };
    if wanted == '*' {
        let rest = &pattern[1..];
        return (0..=version.len()).any(|from| version.is_char_boundary(from) && fits(rest, &version[from..]));
    }
    let mut chars = version.chars();
    let first = chars.next();
    first.is_some_and(|first| wanted == '?' || wanted == first) && fits(&pattern[wanted.len_utf8()..], chars.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::{Check, Verdict, checklist};
    use crate::testing::{cluster, compiled, spec};
    use crate::{Compilation, Refusal};
    use cupcake_crds::node_task::{ContainerdPackage, NodeInventory};
    use serde_json::{Value, json};

    fn hold(package: &str, by: &str, effect: HoldEffect, versions: Option<&str>) -> PackageHold {
        PackageHold { by: by.into(), effect, package: package.into(), versions: versions.map(str::to_owned) }
    }

    /// The check of packages where the machines of these nodes tell of these holds.
    fn look(fields: &Value, of: &[(&str, Vec<PackageHold>)]) -> (Check, Result<(), Refusal>) {
        let mut snapshot = cluster(1, 2, "1.33.4");
        for (node, holds) in of {
            let package =
                ContainerdPackage::of("containerd.io", &"1.7.24-1".parse().unwrap(), ["1.7.27-1".parse().unwrap()]);
            snapshot.nodes.get_mut(*node).unwrap().inventory = Some(NodeInventory {
                containerd_package: Some(package),
                holds: Some(holds.clone()),
                ..NodeInventory::default()
            });
        }
        let compiled = compiled(&spec(fields), &snapshot);
        let check = checklist(&compiled).into_iter().find(|check| check.name == "Packages").unwrap();
        let ended = compiled.map(|compilation| assert!(matches!(compilation, Compilation::Plan(_))));
        (check, ended)
    }

    fn of(check: &Check, code: Code) -> Vec<&Finding> {
        check.findings.iter().filter(|finding| finding.code == code).collect()
    }

    fn marks(packages: &[&str]) -> Vec<PackageHold> {
        packages.iter().map(|package| hold(package, "apt-mark hold", HoldEffect::Lifted, None)).collect()
    }

    #[test]
    fn what_is_held_is_told_by_node_with_what_becomes_of_it_and_speaks_against_nothing() {
        let all = marks(&["kubeadm", "kubelet", "kubectl", "containerd.io"]);
        let nodes = [("cp-1", all.clone()), ("w-01", all), ("w-02", marks(&["kubelet"]))];
        let (check, ended) = look(&json!({}), &nodes);
        ended.unwrap();
        assert_eq!(check.verdict, Verdict::Passed, "held packages are what kubernetes.io tells people to have");
        let told = of(&check, Code::PackagesHeld);
        assert_eq!((told.len(), told[0].value.as_str()), (1, "cp-1, w-01, w-02"));
        assert_eq!(
            told[0].message,
            "held: kubeadm, kubectl, kubelet by apt-mark hold on cp-1, w-01; kubelet by apt-mark hold on w-02; lifted for each exact install, and put back after it"
        );
        let (check, _) = look(&json!({}), &nodes[..2]);
        let told = of(&check, Code::PackagesHeld)[0];
        assert!(told.message.starts_with("held: kubeadm, kubectl, kubelet by apt-mark hold; lifted"), "{told}");
        assert!(of(&look(&json!({}), &[("cp-1", Vec::new())]).0, Code::PackagesHeld).is_empty());
    }

    #[test]
    fn containerds_hold_counts_where_containerd_moves() {
        let components = json!({"components": ["kubeadm", "kubelet", "kubectl", "containerd"], "componentVersions": {"containerd": "1.7.27"}});
        let riddle = hold("containerd.io", "zypper lock ^cont.*", HoldEffect::Keeps, None);
        let nodes = ["cp-1", "w-01", "w-02"].map(|node| (node, marks(&["containerd.io"])));
        let (check, ended) = look(&components, &nodes);
        ended.unwrap();
        assert!(of(&check, Code::PackagesHeld)[0].message.starts_with("held: containerd.io by apt-mark hold;"));
        let mut locked = nodes.clone();
        locked[2].1 = vec![riddle];
        let refusal = look(&components, &locked).1.unwrap_err();
        assert_eq!((refusal.code(), refusal.findings[0].value.as_str()), (Code::PackagesLocked, "w-02"));
        look(&json!({}), &locked).1.expect("it does not move");
    }

    #[test]
    fn a_lock_that_no_install_lifts_refuses_by_node_where_it_keeps_the_exact_version_away() {
        let lock = |versions| hold("kubelet", "versionlock kube*-1.33.*", HoldEffect::Keeps, versions);
        let (check, ended) = look(&json!({}), &[("w-02", vec![lock(Some("1.33.*"))])]);
        let refusal = ended.unwrap_err();
        assert_eq!((check.verdict, refusal.code()), (Verdict::Failed, Code::PackagesLocked));
        assert_eq!(*refusal.findings[0].nodes, ["w-02"], "whose inventory is to be asked for anew");
        for words in ["w-02", "kubelet by versionlock kube*-1.33.*", "dnf versionlock delete", "zypper removelock"] {
            assert!(refusal.to_string().contains(words), "{refusal}");
        }
        let patch = json!({"targetVersion": "1.33.13"});
        look(&patch, &[("w-02", vec![lock(Some("1.33.*"))])]).1.expect("it lets that one in");
        look(&patch, &[("w-02", vec![lock(None)])]).1.expect_err("it lets nothing in");
        let hidden = |versions| vec![hold("kubeadm", "exclude=", HoldEffect::Hides, Some(versions))];
        look(&json!({}), &[("cp-1", hidden("1.34.3-*"))]).1.expect("another one is hidden");
        look(&json!({}), &[("cp-1", hidden("1.34*"))]).1.expect_err("that one is");
        look(&json!({}), &[("cp-1", hidden("0:1.34*"))]).1.expect_err("that one is, with its epoch, which is 0");
        look(&json!({}), &[("cp-1", hidden("1:1.34*"))]).1.expect("of another epoch");
        look(&patch, &[("w-02", vec![lock(Some("0:1.33.13-*"))])]).1.expect("it lets that one in");
    }

    #[test]
    fn what_comes_along_and_is_held_is_a_warning_with_what_to_release() {
        let holds = vec![
            hold("cri-tools", "apt-mark hold", HoldEffect::Keeps, None),
            hold("kubernetes-cni", "exclude= of [kubernetes]", HoldEffect::Lifted, None),
        ];
        let (check, ended) = look(&json!({}), &[("w-01", holds)]);
        ended.unwrap();
        assert_eq!(check.verdict, Verdict::Warned);
        let told = of(&check, Code::NeededHeld)[0].to_string();
        for words in ["\"w-01\"", "cri-tools by apt-mark hold;", "UnmetDependencies", "apt-mark unhold"] {
            assert!(told.contains(words), "{told}");
        }
        assert!(of(&check, Code::PackagesHeld).is_empty() && !told.contains("kubernetes-cni"), "{told}");
    }

    #[test]
    fn many_ways_of_holding_are_counted() {
        let names: Vec<String> = (0..5).map(|way| format!("way {way}")).collect();
        let holds: Vec<PackageHold> = names.iter().map(|by| hold("kubelet", by, HoldEffect::Lifted, None)).collect();
        let held: Held<'_> = names
            .iter()
            .zip(&holds)
            .map(|(node, hold)| {
                let by = BTreeMap::from([(hold.by.as_str(), BTreeSet::from([hold.package.as_str()]))]);
                (node.as_str(), by)
            })
            .collect();
        let told = told(&held);
        assert!(told.starts_with("kubelet by way 0 on way 0; ") && told.ends_with("; and 2 other ways"), "{told}");
    }
}
