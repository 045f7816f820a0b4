//! kubeadm's addons: what of them it upgrades, leaves out or would bring back.

use crate::compile::Hop;
use crate::finding::{Code, Finding, Findings, named};
use cupcake_crds::values::{ClusterSnapshot, KubeVersion};
use cupcake_steps::ports::host::KubeProxy;

/// What becomes of kube-proxy in the hop to a version. Where there is none, or kubeadm leaves it out, the network plugin or somebody else
/// does its work, or upgrades it.
///
/// Source: kubeadm's own code. From 1.32 on it is told to leave out what `proxy.disabled` of its configuration names
/// ([`KubeProxy::LEFT_OUT_FROM`]; 1.32.1 and newer would by themselves, kubernetes/kubernetes#129429). Up to 1.31 it does not look at that,
/// and leaves out a kube-proxy whose ConfigMap is not there only (kubernetes/kubernetes#89593).
pub(crate) fn kube_proxy(snapshot: &ClusterSnapshot, version: KubeVersion) -> KubeProxy {
    let surroundings = &snapshot.surroundings;
    let by_kubeadm = if version.minor() >= KubeProxy::LEFT_OUT_FROM {
        surroundings.kube_proxy_disabled
    } else {
        surroundings.kube_proxy_without_config_map
    };
    if surroundings.without_kube_proxy || by_kubeadm { KubeProxy::LeaveOut } else { KubeProxy::Upgrade }
}

/// Tells in which hops kube-proxy is left out and why, and where it is not although kubeadm's configuration disables it.
pub(crate) fn left_out_kube_proxy(snapshot: &ClusterSnapshot, hops: &[Hop<'_>], findings: &mut Findings) {
    let surroundings = &snapshot.surroundings;
    let moving = hops.iter().filter(|hop| hop.control_plane.changes()).map(|hop| hop.step.version);
    let (left_out, upgraded): (Vec<KubeVersion>, Vec<KubeVersion>) =
        moving.partition(|version| kube_proxy(snapshot, *version) == KubeProxy::LeaveOut);
    // Which ones, where it is not the same in all of them.
    let of = |versions: &[KubeVersion]| {
        if left_out.is_empty() || upgraded.is_empty() { String::new() } else { named(versions) }
    };
    let mut warn = |versions: &[KubeVersion], message: &str, remedy: &str| {
        let field = "DaemonSet kube-system/kube-proxy";
        findings.warn(Finding::new(Code::KubeProxyAbsent, field, of(versions), message, remedy));
    };
    if surroundings.kube_proxy_disabled && !upgraded.is_empty() {
        warn(
            &upgraded,
            "kubeadm's ClusterConfiguration says proxy.disabled, and kubeadm up to 1.31 does not look at that: it is upgraded all the same",
            "see that it may be: kubeadm up to 1.31 leaves it out only where there is no ConfigMap kube-system/kube-proxy",
        );
    }
    if left_out.is_empty() {
        return;
    }
    let (message, remedy) = if surroundings.without_kube_proxy {
        (
            "there is no kube-proxy: it is left out, and nobody upgrades here what does its work",
            "see that your network plugin supports the target",
        )
    } else if surroundings.kube_proxy_disabled {
        (
            "kubeadm's ClusterConfiguration says proxy.disabled: it is left out, and nobody upgrades it here",
            "upgrade it yourself: it may be three minors older than the API servers, and never newer",
        )
    } else {
        (
            "it has no ConfigMap kube-system/kube-proxy, by which kubeadm up to 1.31 goes: it is left out, and nobody upgrades it here",
            "upgrade it yourself: it may be three minors older than the API servers, and never newer",
        )
    };
    warn(&left_out, message, remedy);
}

/// An addon that is not there and that kubeadm would deploy on the way: beside what does its work now, that breaks the cluster's network.
///
/// Source: kubeadm's own code. Up to 1.31 an addon without its ConfigMap is left out (kubernetes/kubernetes#89593); from 1.32 on only one that
/// the ClusterConfiguration disables, which 1.32.0 does not look at (kubernetes/kubeadm#3137, kubernetes/kubernetes#129429). kube-proxy it is
/// told to leave out from 1.32 on ([`KubeProxy::LEFT_OUT_FROM`]).
pub(crate) fn absent_addons(snapshot: &ClusterSnapshot, hops: &[Hop<'_>], findings: &mut Findings) {
    let by_config_map = |version: KubeVersion| (version.major(), version.minor()) <= (1, 31);
    for addon in &snapshot.surroundings.absent_addons {
        let deploys = |version: KubeVersion| match version {
            _ if by_config_map(version) => addon.config_map,
            _ if addon.name == "kube-proxy" => false,
            _ => !addon.disabled || version == KubeVersion::new(1, 32, 0),
        };
        let moving = hops.iter().filter(|hop| hop.control_plane.changes()).map(|hop| hop.step.version);
        let Some(version) = moving.filter(|version| deploys(*version)).min() else { continue };
        let name = addon.name.as_str();
        let message = format!("it is not there, and kubeadm {version} would deploy it beside what does its work now");
        let remedy = if by_config_map(version) {
            format!(
                "put it back, or take ConfigMap kube-system/{name} away if nothing else uses it: kubeadm up to 1.31 goes by that"
            )
        } else if by_config_map(snapshot.server) && (snapshot.server.major(), snapshot.server.minor()) < (1, 31) {
            "put it back, or upgrade to 1.31 first, where dns.disabled can be set".to_owned()
        } else {
            "put it back, or set dns.disabled: true in ClusterConfiguration (kubectl -n kube-system edit configmap kubeadm-config) and go to 1.32.1 or newer".to_owned()
        };
        findings.refuse(Finding::new(Code::AddonReturns, name, version, message, remedy));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cluster, compiled, plan_of, spec};
    use cupcake_crds::values::{AbsentAddon, Surroundings};
    use serde_json::json;

    /// What becomes of kube-proxy hop by hop, as people and steps are told, and what the checklist says of it.
    fn of_kube_proxy(from: &str, to: &str, change: impl Fn(&mut Surroundings)) -> (Vec<String>, Vec<String>) {
        let mut snapshot = cluster(1, 1, from);
        change(&mut snapshot.surroundings);
        let plan = plan_of(&spec(&json!({"targetVersion": to})), &snapshot);
        let word = |is_upgraded: bool| if is_upgraded { "upgraded" } else { "left out" };
        let hops = plan.summary.hops.iter().map(|hop| format!("{} {}", hop.version, word(hop.kube_proxy.is_upgrade())));
        let hops: Vec<String> = hops.collect();
        let dag = plan.plan.expand().unwrap();
        let waits = dag.vertices().iter().filter(|vertex| vertex.kind.as_str() == "addons/v1").map(|vertex| {
            let hop = vertex.name.as_str().split_once('/').unwrap().0;
            format!("{hop} {}", word(vertex.params.get("kubeProxy").is_none()))
        });
        assert_eq!(waits.collect::<Vec<_>>(), hops, "what is left out is not waited for, and only that");
        let warned = plan.report.warnings.iter().filter(|warning| warning.code == Code::KubeProxyAbsent);
        (hops, warned.map(|warning| format!("{}: {}", warning.value, warning.message)).collect())
    }

    #[test]
    fn a_kube_proxy_that_is_disabled_is_left_out_in_the_hops_whose_kubeadm_leaves_it_out_and_in_no_other() {
        let disabled = |found: &mut Surroundings| found.kube_proxy_disabled = true;
        let (hops, warned) = of_kube_proxy("1.30.14", "1.33.13", disabled);
        assert_eq!(hops, ["1.31.14 upgraded", "1.32.13 left out", "1.33.13 left out"]);
        assert_eq!(warned.len(), 2, "{warned:?}");
        assert!(warned[0].starts_with("1.31.14: ") && warned[0].ends_with("it is upgraded all the same"), "{warned:?}");
        assert!(warned[1].starts_with("1.32.13, 1.33.13: ") && warned[1].contains("it is left out"), "{warned:?}");
        let (hops, warned) = of_kube_proxy("1.31.2", "1.31.14", disabled);
        assert_eq!((hops, warned.len()), (vec!["1.31.14 upgraded".to_owned()], 1), "{warned:?}");
        assert!(!warned[0].contains("left out"), "{warned:?}");
        let (hops, warned) = of_kube_proxy("1.33.6", "1.34.4", disabled);
        assert_eq!((hops, warned.len()), (vec!["1.34.4 left out".to_owned()], 1), "{warned:?}");
        assert!(warned[0].starts_with(": kubeadm's ClusterConfiguration says proxy.disabled"), "{warned:?}");
        assert_eq!(of_kube_proxy("1.30.14", "1.31.14", |_| ()), (vec!["1.31.14 upgraded".to_owned()], Vec::new()));
    }

    #[test]
    fn a_kube_proxy_without_its_config_map_is_left_out_up_to_1_31_which_goes_by_that() {
        let without = |found: &mut Surroundings| found.kube_proxy_without_config_map = true;
        let (hops, warned) = of_kube_proxy("1.30.14", "1.32.13", without);
        assert_eq!(hops, ["1.31.14 left out", "1.32.13 upgraded"]);
        assert!(warned.len() == 1 && warned[0].starts_with("1.31.14: it has no ConfigMap"), "{warned:?}");
        let (hops, warned) = of_kube_proxy("1.30.14", "1.32.13", |found| {
            without(found);
            found.kube_proxy_disabled = true;
        });
        assert_eq!(hops, ["1.31.14 left out", "1.32.13 left out"]);
        assert!(warned.len() == 1 && warned[0].starts_with(": kubeadm's ClusterConfiguration says"), "{warned:?}");
    }

    #[test]
    fn an_addon_that_kubeadm_would_bring_back_is_refused_with_the_way_to_keep_it_out() {
        let refused_of = |name: &str, from: &str, to: &str, config_map: bool, disabled: bool| {
            let absent = AbsentAddon { name: name.into(), config_map, disabled };
            let (mut snapshot, target) = (cluster(3, 2, from), json!({"targetVersion": to}));
            snapshot.surroundings.absent_addons = vec![absent];
            let codes = |findings: &[Finding]| -> Vec<String> {
                let of_addons = findings.iter().filter(|finding| finding.code == Code::AddonReturns);
                of_addons.map(|finding| format!("{} {}", finding.value, finding.remedy)).collect()
            };
            match compiled(&spec(&target), &snapshot) {
                Ok(_) => Vec::new(),
                Err(refusal) => codes(&refusal.findings),
            }
        };
        let refused = |from: &str, to: &str, config_map: bool, disabled: bool| {
            refused_of("coredns", from, to, config_map, disabled)
        };
        assert_eq!(
            refused("1.30.14", "1.31.14", false, false),
            Vec::<String>::new(),
            "up to 1.31 the ConfigMap counts"
        );
        let told = refused("1.30.14", "1.31.14", true, true);
        assert!(told[0].starts_with("1.31.14 put it back, or take ConfigMap kube-system/coredns away"), "{told:?}");
        assert_eq!(
            refused("1.33.6", "1.34.4", true, true),
            Vec::<String>::new(),
            "from 1.32.1 on what is disabled counts"
        );
        let told = refused("1.33.6", "1.34.4", false, false);
        assert!(told[0].contains("set dns.disabled: true in ClusterConfiguration"), "{told:?}");
        let told = refused("1.30.14", "1.33.6", false, false);
        assert!(told[0].starts_with("1.32.") && told[0].contains("upgrade to 1.31 first"), "{told:?}");
        assert_eq!(refused("1.31.14", "1.32.0", false, true).len(), 1, "1.32.0 deploys it whatever is said");
        // kube-proxy kubeadm can be told to leave out, from 1.32 on.
        for (from, to, config_map, refusals) in [
            ("1.33.6", "1.34.4", true, 0),
            ("1.31.14", "1.32.0", false, 0),
            ("1.30.14", "1.33.6", false, 0),
            ("1.30.14", "1.33.6", true, 1),
        ] {
            let told = refused_of("kube-proxy", from, to, config_map, false);
            assert_eq!(told.len(), refusals, "{from} to {to}: {told:?}");
        }
    }
}
