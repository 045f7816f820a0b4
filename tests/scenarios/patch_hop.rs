//! A cluster at a patch from which its minor may not be left: the control plane goes through the newest one before the next minor.

use crate::cluster::{Cluster, UPDATE, in_cluster_at};
use cupcake_crds::values::{KubeVersion, Phase};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod};
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use serde_json::json;

/// The first release of 1.33 but five: its kubeadm brings etcd 3.5.21.
const OLD: KubeVersion = KubeVersion::new(1, 33, 4);

/// The tag of the image of etcd that runs.
fn etcd(cluster: &Cluster) -> String {
    let pods = cluster.all::<Pod>("", "pods");
    let pod = pods.into_iter().find(|pod| pod.name_any() == "etcd-cp-1").unwrap();
    let image = pod.spec.unwrap().containers.swap_remove(0).image.unwrap();
    image.rsplit_once(':').unwrap().1.to_owned()
}

fn path(cluster: &Cluster) -> (Vec<String>, u32) {
    let status = cluster.update(UPDATE).and_then(|update| update.status).unwrap_or_default();
    let path = status.upgrade_path.unwrap_or_default();
    (path.steps, path.current_step)
}

#[test]
fn a_control_plane_goes_through_the_patch_that_a_fact_asks_for_before_the_next_minor_and_no_worker_moves_for_it() {
    in_cluster_at(OLD, 2, false, async |cluster| {
        assert_eq!(etcd(cluster), "3.5.21-0");
        cluster.apply(UPDATE, json!({})).await;
        cluster.eventually("the second hop begins", async || path(cluster).1 == 1).await;
        assert_eq!(etcd(cluster), "3.5.24-0", "which etcd 3.6 may follow");
        let kubelets = ["cp-1", "w-1", "w-2"].map(|node| cluster.kubelet(node));
        assert_eq!(kubelets, ["1.33.13", "1.33.4", "1.33.4"]);
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        assert_eq!(path(cluster).0, ["1.33.13", "1.34.4"]);
        assert_eq!(["cp-1", "w-1", "w-2"].map(|node| cluster.kubelet(node)), ["1.34.4"; 3]);
        let why = "older than 3.5.24";
        let checks = json!(cluster.update(UPDATE).unwrap().status.unwrap().preflight_results).to_string();
        assert!(checks.contains(why), "{checks}");
        let events: Vec<Event> = cluster.all("", "events");
        let told = events.iter().filter(|event| event.reason.as_deref() == Some("PatchFirst"));
        assert_eq!(told.filter(|event| event.message.iter().any(|told| told.contains(why))).count(), 1);
    });
}

#[test]
fn whoever_takes_the_fact_away_goes_straight_to_the_next_minor() {
    in_cluster_at(OLD, 1, false, async |cluster| {
        let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "kube-system");
        let own = json!({
            "metadata": {"name": "cupcake-versions"},
            "data": {"facts": "minors: {\"1.33\": {leaveFrom: null}}"},
        });
        let own: ConfigMap = serde_json::from_value(own).unwrap();
        cluster.ask(async || maps.create(&PostParams::default(), &own).await).await;
        cluster.apply(UPDATE, json!({})).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!((phase, path(cluster).0), (Phase::Succeeded, vec!["1.34.4".to_owned()]), "{message}");
    });
}
