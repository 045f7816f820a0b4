//! A cluster at a patch from which, by a fact of its people, its minor may not be left: the control plane goes through the newest one
//! before the next minor.

use crate::cluster::{Cluster, UPDATE, in_cluster};
use cupcake_crds::values::Phase;
use k8s_openapi::api::core::v1::{ConfigMap, Event};
use kube::api::{Api, PostParams};
use serde_json::json;

fn path(cluster: &Cluster) -> (Vec<String>, u32) {
    let status = cluster.update(UPDATE).and_then(|update| update.status).unwrap_or_default();
    let path = status.upgrade_path.unwrap_or_default();
    (path.steps, path.current_step)
}

#[test]
fn a_control_plane_goes_through_the_patch_that_a_fact_asks_for_before_the_next_minor_and_no_worker_moves_for_it() {
    in_cluster(2, false, async |cluster| {
        let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "kube-system");
        let why = "our storage driver needs the scheduler of 1.33.6";
        let own = json!({
            "metadata": {"name": "cupcake-versions"},
            "data": {"facts": format!("minors: {{\"1.33\": {{leaveFrom: {{oldestPatch: 6, why: {why}}}}}}}")},
        });
        let own: ConfigMap = serde_json::from_value(own).unwrap();
        cluster.ask(async || maps.create(&PostParams::default(), &own).await).await;
        cluster.apply(UPDATE, json!({})).await;
        cluster.eventually("the second hop begins", async || path(cluster).1 == 1).await;
        assert_eq!(cluster.kubelets(&["cp-1", "w-1", "w-2"]), ["1.33.13", "1.33.4", "1.33.4"]);
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        assert_eq!(path(cluster).0, ["1.33.13", "1.34.4"]);
        assert_eq!(cluster.kubelets(&["cp-1", "w-1", "w-2"]), ["1.34.4"; 3]);
        let checks = json!(cluster.update(UPDATE).unwrap().status.unwrap().preflight_results).to_string();
        assert!(checks.contains(why), "{checks}");
        let events: Vec<Event> = cluster.all("", "events");
        let told = events.iter().filter(|event| event.reason.as_deref() == Some("PatchFirst"));
        assert_eq!(told.filter(|event| event.message.iter().any(|told| told.contains(why))).count(), 1);
    });
}
