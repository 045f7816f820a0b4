//! A run of somebody else that has the name which a child of ours is to have: it is told, and neither adopted nor touched.
//!
//! Everything runs in a sandbox on paused time.

use crate::cluster::{Cluster, QUIET_SECONDS, UPDATE, in_cluster};
use crate::stalls::answer;
use cupcake_crds::values::Phase;
use cupcake_crds::{GROUP, UpgradeRun, conditions};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams};
use serde_json::{Value, json};

fn runs(cluster: &Cluster) -> Vec<Value> {
    cluster.all::<Value>(GROUP, "upgraderuns")
}

/// The first run below another one.
fn child_of(cluster: &Cluster) -> Option<Value> {
    runs(cluster).into_iter().find(|run| !run["spec"]["parent"].is_null())
}

/// A run that belongs to nobody here, made of one of ours.
fn foreign(of: &Value, parent: Value, phase: &str) -> Value {
    let mut run = of.clone();
    run["metadata"] = json!({
        "name": of["metadata"]["name"], "uid": "somebody-elses", "creationTimestamp": "2026-09-21T14:13:20Z", "generation": 1,
    });
    run["spec"]["parent"] = parent;
    run["spec"]["directUpdate"] = json!({"name": "somebody-elses", "uid": "another-update"});
    run["status"] = json!({"phase": phase, "cursor": of["status"]["cursor"], "reason": "Theirs"});
    run
}

#[test]
fn a_run_of_somebody_else_under_a_childs_name_is_told_with_the_way_out_and_neither_adopted_nor_touched() {
    // What the child is called, and what lies there, from a cluster that begins in the same way.
    let child = in_cluster(2, false, async |cluster| {
        cluster.apply(UPDATE, json!({})).await;
        cluster.eventually("the workers' turn comes", async || child_of(cluster).is_some()).await;
        child_of(cluster).unwrap()
    });
    let name = child["metadata"]["name"].as_str().unwrap().to_owned();
    let of_same_parent = |uid: &str| {
        let mut parent = child["spec"]["parent"].clone();
        parent["uid"] = json!(uid);
        parent
    };
    // A root run, and the child of a run that had the parent's name before.
    for (parent, phase) in [(Value::Null, "Succeeded"), (of_same_parent("an-earlier-run"), "Cancelled")] {
        in_cluster(2, false, async |cluster| {
            let theirs = foreign(&child, parent, phase);
            cluster.world.server().restore(GROUP, "upgraderuns", theirs.clone());
            cluster.apply(UPDATE, json!({})).await;
            let (phase, message) = cluster.at_rest(UPDATE).await;
            assert_eq!(phase, Phase::RequiresAttention, "{message}");
            let way_out = format!("UpgradeRun {name} exists and is not a child of");
            for part in [way_out.as_str(), "delete it or rename the update"] {
                assert!(message.contains(part), "{part}: {message}");
            }
            let conditions = cluster.update(UPDATE).unwrap().status.unwrap().conditions;
            let stalled = conditions::get(&conditions, conditions::STALLED).unwrap();
            assert_eq!(stalled.reason, "NameTaken", "{stalled:?}");
            let told = answer(cluster, UPDATE).join("\n");
            assert!(told.contains(&name) && told.contains("delete it"), "{told}");
            let is_theirs = || {
                let there = runs(cluster).into_iter().find(|run| run["metadata"]["name"] == json!(name)).unwrap();
                ["spec", "status"].map(|part| there[part] == theirs[part]) == [true; 2]
                    && there["metadata"]["uid"] == theirs["metadata"]["uid"]
                    && there["metadata"]["ownerReferences"].is_null()
                    && there["metadata"]["deletionTimestamp"].is_null()
            };
            cluster.pass(QUIET_SECONDS).await;
            assert!(is_theirs(), "{:#?}", runs(cluster));
            assert_eq!(cluster.kubelets(&["cp-1", "w-1", "w-2"]), ["1.34.4", "1.33.4", "1.33.4"], "no worker moved");
            assert!(cluster.cordoned().is_empty());
            // The way out that it tells.
            let api: Api<UpgradeRun> = Api::all(cluster.client.clone());
            cluster.ask(async || api.delete(&name, &DeleteParams::default()).await.map(drop)).await;
            let vertex = child["spec"]["parent"]["vertex"].as_str().unwrap();
            let retry = json!({"spec": {"control": {"retry": [{"requestId": "retry-1", "vertex": vertex}]}}});
            cluster.patch(UPDATE, retry).await;
            cluster.eventually("it goes on", async || cluster.phase(UPDATE).0 != Phase::RequiresAttention).await;
            let (phase, message) = cluster.at_rest(UPDATE).await;
            assert_eq!(phase, Phase::Succeeded, "{message}");
            cluster.nothing_was_done_twice("once the name was free");
            let ours =
                cluster.all::<UpgradeRun>(GROUP, "upgraderuns").into_iter().find(|run| run.name_any() == name).unwrap();
            assert_ne!(ours.uid().as_deref(), Some("somebody-elses"));
        });
    }
}
