//! Whole upgrades of simulated clusters, by the real operator, agents and runners.

use cupcake_crds::KubeVersion;
use cupcake_crds::values::Concurrency;
use cupcake_engine::clock::Timestamp;
use cupcake_sandbox::machine::fault::{Component, Fault, Wrong};
use cupcake_sandbox::simulate::{self, Schedule, Settings};
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
fn crash_everywhere(component: Component, wrong: Wrong) {
    let sweep = |first: u64| {
        (first..).step_by(usize::try_from(THREADS).unwrap()).take_while(|write| {
            let crash = Fault { component, write: *write, wrong };
            let mut config = WorldConfig::new(KubeVersion::new(1, 33, 4), start());
            (config.control_planes, config.workers, config.faults) = (1, 1, vec![crash]);
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
    println!("{component}, {wrong:?}: {crashes} crashes");
    assert!(crashes > 10, "only {crashes} writes of {component}");
}

#[test]
fn an_operator_that_dies_at_any_write_costs_nothing() {
    crash_everywhere(Component::Operator, Wrong::After);
}

#[test]
fn an_agent_that_dies_at_any_write_costs_nothing() {
    crash_everywhere(Component::Agent, Wrong::After);
}

#[test]
fn a_runner_that_dies_in_the_middle_of_any_write_costs_nothing() {
    crash_everywhere(Component::Runner, Wrong::Torn);
}

#[test]
fn a_leader_that_was_stopped_during_a_drain_cordons_nothing_when_it_wakes_up() {
    let settings = Settings {
        control_planes: 3,
        workers: 2,
        from: KubeVersion::new(1, 33, 4),
        to: KubeVersion::new(1, 34, 4),
        start: Timestamp::from_timestamp(1_767_225_600, 0).unwrap(),
        operators: 2,
        without: std::collections::BTreeSet::default(),
    };
    for write in 70..115 {
        let fault = Fault { component: Component::Operator, write, wrong: Wrong::Stopped };
        let verdict = simulate::run(&settings, &Schedule { seed: 1, faults: vec![fault] }).unwrap();
        assert_eq!(verdict.happened, [fault]);
        assert!(verdict.violations.is_empty(), "{fault}: {:?}", verdict.violations);
        assert!(verdict.outcome.succeeded(), "{fault}: {}", verdict.outcome.message);
    }
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
