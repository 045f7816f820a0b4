//! Clusters in which kube-proxy is not kubeadm's: it is neither deployed again nor waited for.

use crate::cluster::{Cluster, UPDATE, in_cluster, in_cluster_at};
use cupcake_crds::values::{KubeVersion, Phase};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::json;

fn sets(cluster: &Cluster) -> Api<DaemonSet> {
    Api::namespaced(cluster.client.clone(), "kube-system")
}

/// The image of kube-proxy, if there is one.
async fn kube_proxy(cluster: &Cluster) -> Option<String> {
    let set = cluster.ask(async || sets(cluster).get_opt("kube-proxy").await).await?;
    set.spec?.template.spec?.containers.first()?.image.clone()
}

async fn take_kube_proxy_away(cluster: &Cluster) {
    cluster.ask(async || sets(cluster).delete("kube-proxy", &DeleteParams::default()).await.map(drop)).await;
}

/// What the checklist says of kube-proxy.
fn warned(cluster: &Cluster) -> String {
    let results = serde_json::to_value(cluster.update(UPDATE).unwrap().status.unwrap().preflight_results).unwrap();
    let mut checks = results["checks"].as_array().into_iter().flatten().map(ToString::to_string);
    checks.find(|check| check.contains("kube-proxy")).unwrap_or_default()
}

#[test]
fn a_cluster_without_kube_proxy_is_upgraded_without_one_and_the_checklist_says_so() {
    in_cluster(1, false, async |cluster| {
        take_kube_proxy_away(cluster).await;
        cluster.apply(UPDATE, json!({})).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        assert_eq!(kube_proxy(cluster).await, None, "kubeadm was told to leave it out");
        assert!(warned(cluster).contains("it is left out"), "{}", warned(cluster));
    });
}

#[test]
fn a_kube_proxy_that_kubeadms_configuration_disables_stays_as_it_is_and_nobody_waits_for_it() {
    in_cluster(1, false, async |cluster| {
        let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "kube-system");
        let map = cluster.ask(async || maps.get("kubeadm-config").await).await;
        let text = format!("{}\nproxy:\n  disabled: true\n", map.data.unwrap()["ClusterConfiguration"].trim_end());
        let data = json!({"data": {"ClusterConfiguration": text}});
        cluster.ask(async || maps.patch("kubeadm-config", &PatchParams::default(), &Patch::Merge(&data)).await).await;
        let before = kube_proxy(cluster).await;
        cluster.apply(UPDATE, json!({})).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        assert_eq!(kube_proxy(cluster).await, before);
        assert!(warned(cluster).contains("says proxy.disabled"), "{}", warned(cluster));
        let map = cluster.ask(async || maps.get("kubeadm-config").await).await;
        let configuration = map.data.unwrap()["ClusterConfiguration"].clone();
        assert!(configuration.contains("v1.34.4") && configuration.contains("disabled: true"), "{configuration}");
    });
}

#[test]
fn kubeadm_is_told_in_the_minors_that_can_be_told_and_goes_by_the_config_map_before() {
    in_cluster_at(KubeVersion::new(1, 30, 14), 1, false, async |cluster| {
        take_kube_proxy_away(cluster).await;
        cluster.apply(UPDATE, json!({"targetVersion": "1.33.13"})).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        assert_eq!(kube_proxy(cluster).await, None, "1.31, 1.32 and 1.33 left it out");
    });
}
