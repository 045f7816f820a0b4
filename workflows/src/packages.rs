//! The versions that each machine is to install, against what its package repositories offer.
//!
//! The repositories of pkgs.k8s.io are one a minor, and a machine's index shows the one that it is set to. So an inventory tells of
//! that minor, as of its last refresh, and of the next one, which is looked up for the inventory; of those after it nothing is known
//! before the machine comes to them. So only a lack in the next one is sure.

use crate::compile::Hop;
use crate::finding::{Code, Finding, Findings, named};
use cupcake_crds::limits::VERSIONS_MAX;
use cupcake_crds::node_task::NodeInventory;
use cupcake_crds::values::{KubeVersion, MinorVersion, NodeSnapshot};
use std::collections::BTreeMap;

/// Whether a machine can get a version.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Offer {
    /// It can.
    Yes,
    /// It cannot: the newest that it can get of that minor, if any.
    No(Option<KubeVersion>),
    /// It cannot get any: no Kubernetes repository is named there.
    Nowhere,
    /// That is not known, for that reason.
    Unknown(String),
}

/// The code with which a machine tells that its sources name no repository in the layout of pkgs.k8s.io.
const NO_REPOSITORY: &str = "RepositoryUnknown:";

/// Refuses nodes whose repositories lack the exact version of the next hop that moves them, and tells where that is not known.
pub(crate) fn packages(hops: &[Hop<'_>], findings: &mut Findings) {
    for hop in hops {
        let version = hop.step.version;
        let (mut lacking, mut unknown): (Vec<&NodeSnapshot>, Vec<&NodeSnapshot>) = (Vec::new(), Vec::new());
        let mut nowhere: Vec<&NodeSnapshot> = Vec::new();
        let (mut newest, mut why) = (None, String::new());
        for node in moving(hop).into_values() {
            // A machine of another package manager is refused for that; of one that told of none nothing is known at all, unless
            // somebody wrote down what it offers.
            let tells = |found: &&NodeInventory| !found.available_versions.is_empty() || found.next_minor.is_some();
            let is_told = |found: &&NodeInventory| {
                found.known_package_manager().is_some() || (found.package_manager.is_none() && tells(found))
            };
            let Some(found) = node.inventory.as_ref().filter(is_told) else {
                continue;
            };
            match offer(found, version) {
                Offer::Yes => {}
                Offer::No(has) => {
                    newest = newest.max(has);
                    lacking.push(node);
                }
                Offer::Nowhere => nowhere.push(node),
                Offer::Unknown(reason) => {
                    if unknown.is_empty() {
                        why = format!("{}: {reason}", node.node.name);
                    }
                    unknown.push(node);
                }
            }
        }
        let names = |nodes: &[&NodeSnapshot]| nodes.iter().map(|node| node.node.name.clone()).collect::<Vec<_>>();
        if !lacking.is_empty() {
            let of_minor = newest.map_or_else(
                || format!("nothing of {} at all", version.minor_version()),
                |newest| format!("{newest} at the newest"),
            );
            let message = format!("their repositories offer no kubeadm and kubelet {version}, but {of_minor}");
            let remedy = "let the mirror carry it and refresh (on the node: apt-get update, dnf makecache --refresh or zypper \
                          refresh), or name a version that is there in spec.targetVersion or spec.path; the machines are asked \
                          again every five minutes";
            let nodes = names(&lacking);
            let finding = Finding::new(Code::PackagesNotOffered, "nodes", named(&nodes), message, remedy);
            findings.refuse(finding.by_inventories_of(nodes));
        }
        if !nowhere.is_empty() {
            let message = format!(
                "no Kubernetes repository (core:/stable:/vX.Y) is named in their sources, so that they cannot get {version}"
            );
            let remedy = "add one there as kubernetes.io documents it, on a mirror of yours where you have one; \
                          apt.kubernetes.io, yum.kubernetes.io and packages.cloud.google.com are gone since 2024; the machines are \
                          asked again every five minutes";
            let nodes = names(&nowhere);
            let finding = Finding::new(Code::PackagesNotOffered, "nodes", named(&nodes), message, remedy);
            findings.refuse(finding.by_inventories_of(nodes));
        }
        if !unknown.is_empty() {
            let message = format!("whether their repositories offer {version} is not known; {why}");
            let remedy = "see that the mirror carries it: a version that it lacks rests the update when its hop begins";
            let nodes = names(&unknown);
            findings.warn(Finding::new(Code::NotLookedAt, "packages", named(nodes), message, remedy));
        }
    }
}

/// The nodes on which a hop installs something, by name.
pub(crate) fn moving<'s>(hop: &Hop<'s>) -> BTreeMap<&'s str, &'s NodeSnapshot> {
    let kubeadm = hop.control_plane.nodes.iter().filter(|_| hop.control_plane.moves);
    let nodes = kubeadm.chain(&hop.control_plane.kubelets).chain(&hop.workers.moving);
    nodes.map(|node| (node.node.name.as_str(), *node)).collect()
}

fn offer(found: &NodeInventory, version: KubeVersion) -> Offer {
    let minor = version.minor_version();
    // Whatever its index still lists: each order sets the repository first, and there is none to be set.
    let unread = found.next_minor.as_ref().and_then(|next| next.unread.as_deref());
    if unread.is_some_and(|why| why.starts_with(NO_REPOSITORY)) {
        return Offer::Nowhere;
    }
    let own = of_minor(&found.available_versions, minor);
    let next = found.next_minor.as_ref().filter(|next| next.minor == minor.to_string());
    let of_next = next.map(|next| of_minor(&next.versions, minor)).unwrap_or_default();
    if own.contains(&version) || of_next.contains(&version) {
        return Offer::Yes;
    }
    // What a list had no room for is older than all that is in it.
    let whole = |listed: &[String], seen: &[KubeVersion]| {
        listed.len() < VERSIONS_MAX || seen.iter().any(|oldest| *oldest < version)
    };
    match next {
        Some(next) if next.unread.is_none() && whole(&next.versions, &of_next) => Offer::No(of_next.into_iter().max()),
        Some(next) => {
            let why = next.unread.clone().unwrap_or_else(|| "its list is longer than an inventory holds".to_owned());
            Offer::Unknown(why)
        }
        // The machine's own index is as old as its last refresh, and the step that installs refreshes it.
        None => Offer::Unknown(match own.into_iter().max() {
            Some(newest) => format!("its index, as it was last refreshed, has {newest} at the newest"),
            None => format!("it has not looked at a repository of {minor} yet"),
        }),
    }
}

fn of_minor(listed: &[String], minor: MinorVersion) -> Vec<KubeVersion> {
    let versions = listed.iter().filter_map(|text| text.parse::<KubeVersion>().ok());
    versions.filter(|version| version.minor_version() == minor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cluster, compiled, spec, v};
    use crate::{Compilation, Refusal};
    use cupcake_crds::node_task::OfferedMinor;
    use serde_json::{Value, json};

    fn texts(versions: &[&str]) -> Vec<String> {
        versions.iter().map(|version| (*version).to_owned()).collect()
    }

    fn found(own: &[&str], next: Option<(&str, &[&str], Option<&str>)>) -> NodeInventory {
        let next_minor = next.map(|(minor, versions, unread)| OfferedMinor {
            minor: minor.to_owned(),
            unread: unread.map(str::to_owned),
            versions: texts(versions),
        });
        let package_manager = Some("apt".to_owned());
        NodeInventory { available_versions: texts(own), next_minor, package_manager, ..NodeInventory::default() }
    }

    #[test]
    fn what_a_machine_can_get_is_known_of_its_minor_and_of_the_next_one_only() {
        let own = ["1.33.13", "1.33.4"];
        let next = Some(("1.34", ["1.34.4", "1.34.3"].as_slice(), None));
        let of = |found: NodeInventory, version: &str| offer(&found, v(version));
        assert_eq!(of(found(&own, next), "1.33.4"), Offer::Yes);
        let stale = "its index, as it was last refreshed, has 1.33.13 at the newest".to_owned();
        assert_eq!(of(found(&own, next), "1.33.14"), Offer::Unknown(stale));
        assert_eq!(of(found(&own, next), "1.34.4"), Offer::Yes);
        assert_eq!(of(found(&own, next), "1.34.5"), Offer::No(Some(v("1.34.4"))));
        assert_eq!(
            of(found(&own, Some(("1.34", &[], None))), "1.34.4"),
            Offer::No(None),
            "there is no such repository"
        );
        let away = Some(("1.34", [].as_slice(), Some("RepositoryUnreachable: no answer")));
        assert_eq!(of(found(&own, away), "1.34.4"), Offer::Unknown("RepositoryUnreachable: no answer".into()));
        for (of_other, version) in
            [(found(&own, next), "1.35.1"), (found(&own, None), "1.34.4"), (found(&[], None), "1.33.4")]
        {
            assert!(matches!(of(of_other, version), Offer::Unknown(_)), "{version}");
        }
        // A mirror of all minors in one list: what did not fit into the inventory may be there.
        let many: Vec<String> = (0..VERSIONS_MAX).rev().map(|patch| format!("1.34.{}", patch + 10)).collect();
        let many = NodeInventory { available_versions: many, ..found(&[], None) };
        assert!(matches!(of(many.clone(), "1.34.4"), Offer::Unknown(_)));
        assert!(matches!(of(many, "1.34.99"), Offer::Unknown(_)));
    }

    #[test]
    fn a_machine_whose_sources_name_no_kubernetes_repository_is_refused_before_it_comes_to_set_one() {
        let none = Some(("1.34", [].as_slice(), Some("RepositoryUnknown: none is named in /etc/yum.repos.d")));
        let refusal = planned(&json!({}), &found(&["1.33.13"], none)).unwrap_err();
        assert_eq!((refusal.code(), refusal.findings[0].value.as_str()), (Code::PackagesNotOffered, "w-02"));
        for words in ["no Kubernetes repository (core:/stable:/vX.Y)", "as kubernetes.io documents it", "since 2024"] {
            assert!(refusal.to_string().contains(words), "{refusal}");
        }
        let patch = planned(&json!({"targetVersion": "1.33.13"}), &found(&["1.33.13"], none));
        assert_eq!(patch.unwrap_err().code(), Code::PackagesNotOffered, "also where its index still has the version");
    }

    fn planned(to: &Value, of_w_02: &NodeInventory) -> Result<Vec<String>, Refusal> {
        let mut snapshot = cluster(1, 2, "1.33.4");
        let usual = found(&["1.33.13", "1.33.4"], Some(("1.34", &["1.34.4"], None)));
        for node in snapshot.nodes.values_mut() {
            node.inventory = Some(if node.node.name == "w-02" { of_w_02.clone() } else { usual.clone() });
        }
        compiled(&spec(to), &snapshot).map(|compilation| {
            let Compilation::Plan(plan) = compilation else { panic!("nothing to do") };
            let told = plan.report.warnings.iter().filter(|warning| warning.field == "packages");
            told.map(|warning| format!("{} {}", warning.value, warning.message)).collect()
        })
    }

    #[test]
    fn a_node_that_cannot_get_the_exact_version_is_refused_by_name_before_anything_moves() {
        let old = found(&["1.33.13"], Some(("1.34", &["1.34.3"], None)));
        let refusal = planned(&json!({}), &old).unwrap_err();
        assert_eq!((refusal.code(), refusal.findings[0].value.as_str()), (Code::PackagesNotOffered, "w-02"));
        let by_hand = NodeInventory { package_manager: None, ..old.clone() };
        let refusal = planned(&json!({}), &by_hand).unwrap_err();
        assert_eq!(refusal.code(), Code::PackagesNotOffered, "whoever wrote down what it has need not name a manager");
        for words in ["kubeadm and kubelet 1.34.4", "1.34.3 at the newest", "apt-get update"] {
            assert!(refusal.to_string().contains(words), "{refusal}");
        }
        assert_eq!(*refusal.findings[0].nodes, ["w-02"], "whose inventory is to be asked for anew");
        let whole = found(&["1.33.13"], Some(("1.34", &["1.34.4", "1.34.3"], None)));
        assert_eq!(planned(&json!({}), &whole).unwrap(), Vec::<String>::new());
        let rpm = NodeInventory { package_manager: Some("zypper".to_owned()), ..old.clone() };
        assert_eq!(planned(&json!({}), &rpm).unwrap_err().code(), Code::PackagesNotOffered, "whatever installs them");
        let away = found(&["1.33.13"], Some(("1.34", &[], Some("no answer"))));
        let told = planned(&json!({}), &away).unwrap();
        assert!(told.len() == 1 && told[0].starts_with("w-02 ") && told[0].ends_with("w-02: no answer"), "{told:?}");
        let further = planned(&json!({"targetVersion": "1.35.4"}), &whole).unwrap();
        assert!(further.len() == 1 && further[0].contains("1.35.4 is not known"), "{further:?}");
    }
}
