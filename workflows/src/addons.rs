//! kubeadm's addons: what of them it upgrades, leaves out or would bring back.

use crate::compile::Hop;
use crate::finding::{Code, Finding, Findings};
use cupcake_crds::values::{ClusterSnapshot, KubeVersion};
use cupcake_steps::ports::host::KubeProxy;

/// What kubeadm is to do about kube-proxy: where there is none, or kubeadm's own configuration disables it, the network plugin or
/// somebody else does its work.
pub(crate) fn kube_proxy(snapshot: &ClusterSnapshot) -> KubeProxy {
    let surroundings = &snapshot.surroundings;
    if surroundings.without_kube_proxy || surroundings.kube_proxy_disabled {
        KubeProxy::LeaveOut
    } else {
        KubeProxy::Upgrade
    }
}

/// Tells that kube-proxy is left out, and why.
pub(crate) fn left_out_kube_proxy(snapshot: &ClusterSnapshot, findings: &mut Findings) {
    let (message, remedy) = if snapshot.surroundings.without_kube_proxy {
        (
            "there is no kube-proxy: it is left out, and nobody upgrades here what does its work",
            "see that your network plugin supports the target",
        )
    } else {
        (
            "kubeadm's ClusterConfiguration says proxy.disabled: it is left out, and nobody upgrades it here",
            "upgrade it yourself: it may be three minors older than the API servers, and never newer",
        )
    };
    findings.warn(Finding::new(Code::KubeProxyAbsent, "DaemonSet kube-system/kube-proxy", "", message, remedy));
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
    use crate::testing::{cluster, compiled, spec};
    use cupcake_crds::values::AbsentAddon;
    use serde_json::json;

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
