//! Whole upgrades of simulated clusters, by the real operator, agents and runners.

use cupcake_crds::KubeVersion;
use cupcake_crds::values::Concurrency;
use cupcake_engine::clock::Timestamp;
use cupcake_sandbox::world::{self, Upgrade, WorldConfig};

fn start() -> Timestamp {
    Timestamp::from_timestamp(1_790_000_000, 0).unwrap()
}

fn to_1_34() -> Upgrade {
    Upgrade { name: "to-1-34".into(), to: KubeVersion::new(1, 34, 4), concurrency: Concurrency::Nodes(1) }
}

#[test]
fn a_cluster_of_three_control_planes_and_five_workers_moves_one_minor_and_ends_succeeded() {
    let mut config = WorldConfig::new(KubeVersion::new(1, 33, 4), start());
    config.seed = 7;
    let outcome = world::run(config, &to_1_34()).unwrap();
    println!("{outcome:#?}");
    assert!(outcome.succeeded(), "{outcome:#?}");
    assert_eq!(outcome.duplicated_effects, 0);
    for node in &outcome.nodes {
        assert_eq!(node.version, "1.34.4", "{node:?}");
        assert!(node.schedulable, "{node:?}");
    }
}
