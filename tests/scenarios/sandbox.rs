//! Whole upgrades of simulated clusters, by the real operator, agents and runners.

use cupcake_crds::KubeVersion;
use cupcake_crds::values::Concurrency;
use cupcake_engine::clock::Timestamp;
use cupcake_sandbox::machine::crash::{Component, Crash, Moment};
use cupcake_sandbox::world::{self, Upgrade, WorldConfig};

fn start() -> Timestamp {
    Timestamp::from_timestamp(1_790_000_000, 0).unwrap()
}

fn to_1_34() -> Upgrade {
    Upgrade { name: "to-1-34".into(), to: KubeVersion::new(1, 34, 4), concurrency: Concurrency::Nodes(1) }
}

/// Threads that share a sweep: each holds a world.
const THREADS: u64 = 2;

/// Crashes a component at each of its writes, one upgrade a write, until an upgrade ends before the crash.
fn crash_everywhere(component: Component, moment: Moment) {
    let sweep = |first: u64| {
        (first..).step_by(usize::try_from(THREADS).unwrap()).take_while(|write| {
            let crash = Crash { component, write: *write, moment };
            let mut config = WorldConfig::new(KubeVersion::new(1, 33, 4), start());
            (config.control_planes, config.workers, config.crash) = (1, 1, Some(crash));
            let outcome = world::run(config, &to_1_34()).unwrap();
            assert!(outcome.succeeded(), "{crash}: {}: {}", outcome.phase, outcome.message);
            assert_eq!(outcome.duplicated_effects, 0, "{crash}");
            outcome.killed.is_some()
        })
    };
    let crashes: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (1..=THREADS).map(|first| scope.spawn(move || sweep(first).count())).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    println!("{component}, {moment:?}: {crashes} crashes");
    assert!(crashes > 10, "only {crashes} writes of {component}");
}

#[test]
fn an_operator_that_dies_at_any_write_costs_nothing() {
    crash_everywhere(Component::Operator, Moment::After);
}

#[test]
fn an_agent_that_dies_at_any_write_costs_nothing() {
    crash_everywhere(Component::Agent, Moment::After);
}

#[test]
fn a_runner_that_dies_in_the_middle_of_any_write_costs_nothing() {
    crash_everywhere(Component::Runner, Moment::Torn);
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
