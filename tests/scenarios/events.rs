//! Events on Nodes and on the DirectUpdate: what people see in `kubectl describe`, once each, whoever leads.

use chrono::DateTime;
use cupcake_crds::values::{Concurrency, KubeVersion};
use cupcake_sandbox::machine::fault::{Component, Fault, Wrong};
use cupcake_sandbox::world::{self, Upgrade, World, WorldConfig};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde_json::Value;
use std::collections::BTreeMap;

/// All Events of an update that meets these faults, and the UIDs of its nodes.
fn told(faults: &[Fault]) -> (Vec<Value>, BTreeMap<String, String>) {
    let mut config = WorldConfig::new(KubeVersion::new(1, 33, 4), DateTime::from_timestamp(1_767_225_600, 0).unwrap());
    config.control_planes = 1;
    config.workers = 2;
    config.faults = faults.to_vec();
    world::runtime(config.speed).unwrap().block_on(async {
        let world = World::new(config).unwrap();
        world.start();
        let (name, to) = ("upgrade".to_owned(), KubeVersion::new(1, 34, 4));
        let outcome = world.upgrade(&Upgrade { name, to, concurrency: Concurrency::Nodes(1) }).await.unwrap();
        assert!(outcome.succeeded(), "{}", outcome.message);
        assert_eq!(world.faults_happened().len(), faults.len());
        let client = world.server().client("user");
        let events = Api::<Event>::namespaced(client.clone(), "default").list(&ListParams::default()).await.unwrap();
        let nodes = Api::<Node>::all(client).list(&ListParams::default()).await.unwrap();
        let events = events.into_iter().map(|event| serde_json::to_value(event).unwrap()).collect();
        (events, nodes.into_iter().map(|node| (node.name_any(), node.uid().unwrap())).collect())
    })
}

/// How often each reason was told about an object.
fn reasons<'e>(events: &'e [Value], kind: &str, name: &str) -> BTreeMap<&'e str, usize> {
    let about = |event: &&Value| event["regarding"]["kind"] == kind && event["regarding"]["name"] == name;
    let mut counts = BTreeMap::new();
    for event in events.iter().filter(about) {
        *counts.entry(event["reason"].as_str().unwrap()).or_default() += 1;
    }
    counts
}

#[test]
fn nodes_and_the_update_tell_each_transition_once_also_where_the_leader_dies_in_the_middle() {
    let (events, uids) = told(&[]);
    for node in ["cp-1", "w-1", "w-2"] {
        let seen = reasons(&events, "Node", node);
        for reason in ["Draining", "Drained", "GivenBack"] {
            assert_eq!(seen.get(reason), Some(&1), "{node}: {seen:?}");
        }
    }
    for event in events.iter().filter(|event| event["regarding"]["kind"] == "Node") {
        let node = event["regarding"]["name"].as_str().unwrap();
        // By its UID kubectl describe finds it.
        assert_eq!(event["regarding"]["uid"], *uids[node], "{event}");
        assert_eq!(event["related"]["kind"], "UpgradeRun", "{event}");
    }
    let seen = reasons(&events, "DirectUpdate", "upgrade");
    assert_eq!(["Planned", "InProgress", "Succeeded"].map(|reason| seen.get(reason)), [Some(&1); 3], "{seen:?}");

    // What a leader had not told when it died is not told any more; nothing is told twice.
    let (events, _) = told(&[Fault::at_write(Component::Operator, 60, Wrong::After)]);
    for node in ["cp-1", "w-1", "w-2"] {
        let seen = reasons(&events, "Node", node);
        assert!(
            ["Draining", "Drained", "GivenBack"].iter().all(|reason| seen.get(reason) <= Some(&1)),
            "{node}: {seen:?}"
        );
    }
    let seen = reasons(&events, "DirectUpdate", "upgrade");
    assert_eq!(["Planned", "Succeeded"].map(|reason| seen.get(reason)), [Some(&1); 2], "{seen:?}");
}
