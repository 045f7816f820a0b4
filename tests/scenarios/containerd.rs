//! Updates that name containerd: which version every machine gets, when, and what stands in the way.
//!
//! Everything runs in a sandbox on paused time.

use crate::cluster::{Cluster, UPDATE, in_cluster, in_world};
use cupcake_crds::values::{KubeVersion, Phase};
use cupcake_engine::clock::Timestamp;
use cupcake_sandbox::machine::fault::{Component, Fault, Wrong};
use cupcake_sandbox::machine::ledger::EffectKind;
use cupcake_sandbox::world::WorldConfig;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use serde_json::{Value, json};

fn asked(fields: &Value) -> Value {
    let mut all = json!({"components": ["kubeadm", "kubelet", "kubectl", "containerd"]});
    all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    all
}

/// What each Node tells of its runtime.
fn told(cluster: &Cluster) -> Vec<String> {
    let runtime = |node: Node| {
        let info = node.status.clone().and_then(|status| status.node_info).unwrap_or_default();
        format!("{} {}", node.name_any(), info.container_runtime_version)
    };
    let mut told: Vec<_> = cluster.all::<Node>("", "nodes").into_iter().map(runtime).collect();
    told.sort();
    told
}

/// What was done to containerd on a machine.
fn done_on(cluster: &Cluster, node: &str) -> Vec<String> {
    let effects = cluster.world.effects().into_iter().filter(|effect| effect.name.node == node && effect.begun > 0);
    effects.map(|effect| effect.name.what).filter(|what| what.starts_with("containerd")).collect()
}

#[test]
fn an_update_that_names_containerd_ends_with_every_machines_runtime_at_that_version_and_its_node_telling_it() {
    in_cluster(2, false, async |cluster| {
        cluster.apply(UPDATE, asked(&json!({"componentVersions": {"containerd": "1.7.27"}}))).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        for machine in cluster.world.machines() {
            assert_eq!(machine.containerd_version().to_string(), "1.7.27-1", "{}", machine.name());
            assert!(machine.containerd_is_held(), "{}: as it was before", machine.name());
            assert_eq!(done_on(cluster, machine.name()), ["containerd=1.7.27-1"; 2], "installed once, restarted once");
        }
        let expected = ["cp-1", "w-1", "w-2"].map(|node| format!("{node} containerd://1.7.27"));
        assert_eq!(told(cluster), expected);
        assert_eq!(["cp-1", "w-1", "w-2"].map(|node| cluster.kubelet(node)), ["1.34.4"; 3]);
        cluster.nothing_was_done_twice("with containerd");
        cluster.is_left_alone("with containerd").await;
        // Asked for once more there is nothing to do.
        cluster.apply("again", asked(&json!({"componentVersions": {"containerd": "1.7.27"}}))).await;
        let (phase, message) = cluster.at_rest("again").await;
        assert!(phase == Phase::Succeeded && message.contains("every selected node is at 1.34.4"), "{message}");
    });
}

#[test]
fn over_several_minors_containerd_moves_once_on_each_machine_to_the_newest_of_its_minor() {
    in_cluster(1, false, async |cluster| {
        cluster.apply(UPDATE, asked(&json!({"targetVersion": "1.35.4"}))).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        for node in ["cp-1", "w-1"] {
            assert_eq!(done_on(cluster, node), ["containerd=1.7.27-1"; 2], "{node}");
        }
        assert_eq!(told(cluster), ["cp-1 containerd://1.7.27", "w-1 containerd://1.7.27"]);
    });
}

#[test]
fn an_update_that_does_not_name_containerd_leaves_it_alone() {
    in_cluster(1, false, async |cluster| {
        cluster.apply(UPDATE, json!({})).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        assert_eq!(told(cluster), ["cp-1 containerd://1.7.24", "w-1 containerd://1.7.24"]);
        assert!(done_on(cluster, "w-1").is_empty());
    });
}

#[test]
fn a_machine_whose_runtime_is_none_of_a_package_stands_in_the_way_by_name_until_containerd_is_left_out() {
    in_cluster(2, false, async |cluster| {
        cluster.world.machine("w-2").unwrap().install_containerd_by_hand();
        cluster.apply(UPDATE, asked(&json!({}))).await;
        let message = || cluster.phase(UPDATE).1;
        cluster.eventually("it is refused", async || message().contains("no package brought")).await;
        assert!(message().contains("w-2") && message().contains("leave containerd out"), "{}", message());
        assert_eq!(cluster.effects(), 0, "nothing was changed");
        let components = json!({"spec": {"components": ["kubeadm", "kubelet", "kubectl"]}});
        cluster.patch(UPDATE, components).await;
        cluster.eventually("it succeeds", async || cluster.phase(UPDATE).0 == Phase::Succeeded).await;
    });
}

#[test]
fn a_machine_that_cannot_get_the_version_is_named_and_the_update_begins_once_its_mirror_carries_it() {
    in_cluster(2, false, async |cluster| {
        let machine = cluster.world.machine("w-2").unwrap();
        machine.offer_containerd(&["1.7.24-1"]);
        cluster.apply(UPDATE, asked(&json!({"componentVersions": {"containerd": "1.7.27"}}))).await;
        let message = || cluster.phase(UPDATE).1;
        cluster.eventually("it is refused", async || message().contains("offer no containerd 1.7.27-1")).await;
        assert!(message().contains("w-2") && message().contains("spec.componentVersions.containerd"), "{}", message());
        machine.offer_containerd(&["1.7.27-1", "1.7.24-1"]);
        cluster.eventually("it succeeds", async || cluster.phase(UPDATE).0 == Phase::Succeeded).await;
        assert_eq!(machine.containerd_version().to_string(), "1.7.27-1");
    });
}

#[test]
fn a_runner_that_dies_at_any_write_of_an_update_with_containerd_costs_nothing() {
    let mut crashes = 0;
    for write in 1.. {
        let wrong = if write % 2 == 0 { Wrong::Before } else { Wrong::Torn };
        let fault = Fault::at_write(Component::Runner, write, wrong);
        let start = Timestamp::from_timestamp(1_790_000_000, 0).unwrap();
        let mut config = WorldConfig::new(KubeVersion::new(1, 33, 4), start);
        (config.control_planes, config.workers, config.faults) = (1, 1, vec![fault]);
        let happened = in_world(config, async |cluster| {
            cluster.apply(UPDATE, asked(&json!({}))).await;
            let (phase, message) = cluster.at_rest(UPDATE).await;
            assert_eq!(phase, Phase::Succeeded, "{fault}: {message}");
            assert_eq!(told(cluster), ["cp-1 containerd://1.7.27", "w-1 containerd://1.7.27"], "{fault}");
            assert!(cluster.world.machines().all(|machine| machine.containerd_is_held()), "{fault}");
            cluster.nothing_was_done_twice(&fault.to_string());
            let restarts = cluster.world.effects().into_iter();
            let restarts = restarts.filter(|effect| effect.name.kind == EffectKind::ContainerdRestart);
            assert!(restarts.map(|effect| effect.begun).sum::<u32>() <= 3, "{fault}");
            !cluster.world.faults_happened().is_empty()
        });
        if !happened {
            break;
        }
        crashes += 1;
    }
    println!("{crashes} crashes of a runner");
    assert!(crashes > 10, "only {crashes} writes of runners");
}
