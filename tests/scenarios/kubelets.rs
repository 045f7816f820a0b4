//! Kubelets that do not stay up once they were restarted, or of which their Nodes do not hear.
//!
//! Everything runs in a sandbox on paused time. A kubelet that crashes lives for some seconds each time, in which its Node shows
//! Ready at the new version: a look at the wrong moment finds all well.

use crate::cluster::{Cluster, UPDATE, in_cluster};
use cupcake_crds::values::Phase;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::json;

const WORKERS: [&str; 3] = ["w-1", "w-2", "w-3"];

fn versions(cluster: &Cluster) -> [String; 3] {
    WORKERS.map(|node| cluster.kubelet(node))
}

#[test]
fn an_update_stops_at_the_first_worker_whose_kubelet_crashes_in_a_loop_and_touches_no_other() {
    in_cluster(3, false, async |cluster| {
        let machines = || WORKERS.into_iter().map(|node| cluster.world.machine(node).unwrap());
        machines().for_each(|machine| machine.let_kubelet_crash());
        cluster.apply(UPDATE, json!({"concurrency": 1})).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::RequiresAttention, "{message}");
        assert!(message.contains("w-1") && message.contains("journalctl -u kubelet"), "{message}");
        let error = cluster.task("w-1").status.and_then(|status| status.error).map(|error| error.code);
        assert_eq!(error.as_deref(), Some("KubeletCrashes"));
        assert_eq!(versions(cluster), ["1.34.4", "1.33.4", "1.33.4"]);
        for untouched in ["w-2", "w-3"] {
            assert!(cluster.task(untouched).spec.order.is_none(), "{untouched} was given no order");
        }
        cluster.is_left_alone("after a kubelet that crashes in a loop").await;
        cluster.nothing_was_done_twice("a kubelet that crashes in a loop");
        // Somebody mends what it stumbles over, on every machine.
        machines().for_each(|machine| machine.mend_kubelet());
        let retry = json!({"spec": {"control": {"retry": [{"requestId": "mended", "vertex": "w-1"}]}}});
        cluster.patch(UPDATE, retry).await;
        cluster.eventually("it goes on", async || cluster.phase(UPDATE).0 != Phase::RequiresAttention).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        assert_eq!(versions(cluster), ["1.34.4", "1.34.4", "1.34.4"]);
    });
}

#[test]
fn a_kubelet_that_comes_to_itself_is_waited_for() {
    in_cluster(1, false, async |cluster| {
        let machine = cluster.world.machine("w-1").unwrap();
        machine.let_kubelet_crash();
        cluster.apply(UPDATE, json!({})).await;
        cluster.eventually("its kubelet was restarted", async || cluster.kubelet("w-1") == "1.34.4").await;
        cluster.pass(60).await;
        assert_eq!(cluster.phase(UPDATE).0, Phase::InProgress, "it is not done, and nobody gives it up yet");
        machine.mend_kubelet();
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
    });
}

#[test]
fn a_node_that_is_ready_at_the_version_by_what_another_process_reported_is_not_taken_for_upgraded() {
    in_cluster(2, false, async |cluster| {
        let budgets = cluster.apply_then_freeze(UPDATE, json!({})).await;
        cluster.eventually("its drain is blocked", async || cluster.phase(UPDATE).1.contains("DrainBlocked")).await;
        let machine = cluster.world.machine("w-1").unwrap();
        machine.let_kubelet_be_mute(true);
        // As before a second attempt: a kubelet of that version was there before the one that is started now.
        let nodes: Api<Node> = Api::all(cluster.client.clone());
        let before = Patch::Merge(json!({"status": {"nodeInfo": {"kubeletVersion": "v1.34.4"}}}));
        cluster.ask(async || nodes.patch_status("w-1", &PatchParams::default(), &before).await.map(drop)).await;
        cluster.ask(async || budgets.delete("frozen", &DeleteParams::default()).await.map(drop)).await;
        cluster.eventually("it is told", async || cluster.phase(UPDATE).1.contains("NodeNotReady")).await;
        let (_, message) = cluster.phase(UPDATE);
        assert!(message.contains("w-1 is Unknown with kubelet 1.34.4, wanted Ready with 1.34.4"), "{message}");
        assert!(cluster.is_cordoned("w-1") && !cluster.is_cordoned("w-2"), "no other node is begun");
        machine.let_kubelet_be_mute(false);
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
    });
}
