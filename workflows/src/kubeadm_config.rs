//! Whether kubeadm of each hop reads its own configuration, as it stands in the cluster.
//!
//! kubeadm stores ClusterConfiguration in the one version of its API that it writes, and reads those of a few minors: a configuration that
//! nobody stored anew for long ends `kubeadm upgrade` before it changes anything. Each hop's kubeadm stores it anew, so that the first
//! one is the one to ask; which minor reads what stands in the file of facts.

use crate::compile::Hop;
use crate::facts;
use crate::finding::{Code, Finding, Findings};
use cupcake_crds::values::ClusterSnapshot;

/// Refuses a configuration that the first kubeadm which does not read it would end on.
pub(crate) fn read(snapshot: &ClusterSnapshot, hops: &[Hop<'_>], findings: &mut Findings) {
    // Where nobody looked, nothing is said.
    let Some(mut stored) = snapshot.kubeadm_config_api.clone() else { return };
    for hop in hops.iter().filter(|hop| hop.control_plane.moves) {
        let minor = hop.step.version.minor_version();
        let Some(api) = facts::of(&snapshot.facts, minor).and_then(|facts| facts.kubeadm_config.clone()) else {
            return;
        };
        if !api.reads.contains(&stored) {
            let message = format!("kubeadm of {minor} does not read it: it reads {}", api.reads.join(", "));
            let remedy = "store it anew by a kubeadm that reads both, on a control-plane node: kubectl -n kube-system get configmap kubeadm-config \
                          -o jsonpath='{.data.ClusterConfiguration}' > old.yaml; kubeadm config migrate --old-config old.yaml --new-config new.yaml; \
                          kubeadm init phase upload-config kubeadm --config new.yaml";
            let field = "ConfigMap kube-system/kubeadm-config";
            let found = format!("kubeadm.k8s.io/{stored}");
            findings.refuse(Finding::new(Code::KubeadmConfigApi, field, found, message, remedy));
            return;
        }
        stored = api.writes;
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{cluster, compiled, spec};
    use crate::{Code, own_facts};
    use serde_json::json;

    /// What is refused of a cluster whose kubeadm-config stands in that version.
    fn refused(from: &str, to: &str, api: Option<&str>, facts: &serde_json::Value) -> Vec<String> {
        let mut snapshot = cluster(1, 1, from);
        snapshot.kubeadm_config_api = api.map(ToOwned::to_owned);
        snapshot.facts = own_facts(json!({"minors": facts})).unwrap();
        let refused = compiled(&spec(&json!({"targetVersion": to})), &snapshot).err();
        let findings = refused.into_iter().flat_map(|refusal| refusal.findings);
        findings.filter(|one| one.code == Code::KubeadmConfigApi).map(|one| one.to_string()).collect()
    }

    #[test]
    fn a_configuration_that_kubeadm_of_the_next_minor_no_longer_reads_is_refused_with_the_way_out() {
        let told = refused("1.26.15", "1.27.16", Some("v1beta2"), &json!({}));
        assert_eq!(told.len(), 1);
        for part in
            ["kubeadm.k8s.io/v1beta2", "kubeadm of 1.27 does not read it: it reads v1beta3", "kubeadm config migrate"]
        {
            assert!(told[0].contains(part), "{part}: {told:?}");
        }
        for (from, to, api) in [
            ("1.26.15", "1.27.16", Some("v1beta3")),
            ("1.25.16", "1.26.15", Some("v1beta2")),
            ("1.30.14", "1.31.14", Some("v1beta3")),
            ("1.26.15", "1.27.16", None),
        ] {
            assert_eq!(refused(from, to, api, &json!({})), [""; 0], "{from} to {to} from {api:?}");
        }
    }

    #[test]
    fn what_a_hop_before_stores_anew_is_read_by_the_next_one() {
        assert_eq!(refused("1.25.16", "1.28.15", Some("v1beta2"), &json!({})), [""; 0], "1.26 writes v1beta3");
        let stays = json!({"1.26": {"kubeadmConfig": {"reads": ["v1beta2"], "writes": "v1beta2"}}});
        let told = refused("1.25.16", "1.28.15", Some("v1beta2"), &stays);
        assert!(told.len() == 1 && told[0].contains("kubeadm of 1.27"), "{told:?}");
        let unknown = json!({"1.27": {"kubeadmConfig": null}});
        assert_eq!(
            refused("1.26.15", "1.27.16", Some("v1beta2"), &unknown),
            [""; 0],
            "where nothing is known nothing is refused"
        );
    }
}
