//! Clusters in which kube-proxy is not kubeadm's: it is neither deployed again nor waited for.

use crate::cluster::{Cluster, UPDATE, in_cluster, in_cluster_at};
use cupcake_crds::values::{KubeVersion, Phase};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
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

/// kubeadm's configuration says that kube-proxy is disabled.
async fn disable_kube_proxy(cluster: &Cluster) {
    let maps = maps(cluster);
    let map = cluster.ask(async || maps.get("kubeadm-config").await).await;
    let text = format!("{}\nproxy:\n  disabled: true\n", map.data.unwrap()["ClusterConfiguration"].trim_end());
    let data = json!({"data": {"ClusterConfiguration": text}});
    cluster.ask(async || maps.patch("kubeadm-config", &PatchParams::default(), &Patch::Merge(&data)).await).await;
}

fn maps(cluster: &Cluster) -> Api<ConfigMap> {
    Api::namespaced(cluster.client.clone(), "kube-system")
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
        disable_kube_proxy(cluster).await;
        let before = kube_proxy(cluster).await;
        cluster.apply(UPDATE, json!({})).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        assert_eq!(kube_proxy(cluster).await, before);
        assert!(warned(cluster).contains("says proxy.disabled"), "{}", warned(cluster));
        let map = cluster.ask(async || maps(cluster).get("kubeadm-config").await).await;
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

#[test]
fn a_disabled_kube_proxy_moves_with_a_kubeadm_that_does_not_look_at_that_and_stays_from_1_32_on() {
    in_cluster_at(KubeVersion::new(1, 30, 14), 1, false, async |cluster| {
        // As kubeadm makes it; simulated clusters are born without.
        let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "kube-proxy"}})).unwrap();
        cluster.ask(async || maps(cluster).create(&PostParams::default(), &map).await).await;
        disable_kube_proxy(cluster).await;
        cluster.apply(UPDATE, json!({"targetVersion": "1.32.13"})).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        let image = kube_proxy(cluster).await.unwrap();
        assert!(image.ends_with(":v1.31.14"), "upgraded in the first hop, left out in the second: {image}");
        let told = warned(cluster);
        assert!(told.contains("it is upgraded all the same") && told.contains("1.31.14"), "{told}");
    });
}

#[test]
fn a_disabled_kube_proxy_without_its_config_map_is_waited_for_in_no_hop() {
    in_cluster_at(KubeVersion::new(1, 30, 14), 1, false, async |cluster| {
        disable_kube_proxy(cluster).await;
        cluster.apply(UPDATE, json!({"targetVersion": "1.31.14"})).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        assert!(warned(cluster).contains("it is left out"), "{}", warned(cluster));
        assert!(kube_proxy(cluster).await.unwrap().ends_with(":v1.30.14"), "kubeadm 1.31 goes by the ConfigMap");
    });
}
