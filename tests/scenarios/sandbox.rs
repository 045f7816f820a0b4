//! Whole upgrades of simulated clusters, by the real operator, agents and runners.

use chrono::TimeDelta;
use cupcake_crds::values::Concurrency;
use cupcake_crds::{KubeVersion, NodeTask};
use cupcake_engine::clock::Timestamp;
use cupcake_sandbox::machine::fault::{Component, Fault, Wrong};
use cupcake_sandbox::machine::ledger::EffectKind;
use cupcake_sandbox::simulate::{self, Schedule, Settings};
use cupcake_sandbox::world::{self, Upgrade, World, WorldConfig};
use kube::api::{Api, Patch, PatchParams};

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
            let crash = Fault::at_write(component, *write, wrong);
            let mut config = WorldConfig::new(KubeVersion::new(1, 33, 4), start());
            (config.control_planes, config.workers, config.faults) = (1, 1, vec![crash]);
            let outcome = world::run(config, &to_1_34()).unwrap();
            assert!(outcome.succeeded(), "{crash}: {}: {}", outcome.phase, outcome.message);
            assert_eq!(outcome.duplicated_effects, 0, "{crash}");
            assert_eq!(outcome.kubeadm_copies, ["cp-1/kubeadm-backup-etcd-2025-06-01-10-00-00"], "{crash}");
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
fn a_runner_that_dies_before_any_write_repeats_nothing_that_it_had_recorded() {
    crash_everywhere(Component::Runner, Wrong::Before);
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
        concurrency: 1,
        without: std::collections::BTreeSet::default(),
    };
    for write in 70..115 {
        let fault = Fault::at_write(Component::Operator, write, Wrong::Stopped);
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
    let of_before = [1, 2, 3].map(|number| format!("cp-{number}/kubeadm-backup-etcd-2025-06-01-10-00-00"));
    assert_eq!(outcome.kubeadm_copies, of_before, "those of before stay, those of this run go");
    for node in &outcome.nodes {
        assert_eq!(node.version, "1.34.4", "{node:?}");
        assert!(node.schedulable, "{node:?}");
    }
}

/// Versions that a machine's kubelet was restarted at, in order.
fn kubelets_of(world: &world::World, node: &str) -> Vec<String> {
    let effects = world.effects().into_iter();
    let restarts = effects.filter(|effect| effect.name.node == node && effect.name.kind == EffectKind::KubeletRestart);
    restarts.map(|effect| effect.name.what.trim_start_matches("kubelet=").to_owned()).collect()
}

#[test]
fn an_update_over_four_minors_goes_hop_by_hop_and_moves_the_workers_only_where_the_skew_policy_asks_for_it() {
    let config = WorldConfig { judged: true, workers: 3, ..WorldConfig::new(KubeVersion::new(1, 31, 14), start()) };
    let to = KubeVersion::new(1, 35, 4);
    world::runtime(config.speed).unwrap().block_on(async {
        let world = World::new(config).unwrap();
        world.start();
        let upgrade = Upgrade { name: "to-1-35".into(), to, concurrency: Concurrency::Nodes(1) };
        let outcome = world.upgrade(&upgrade).await.unwrap();
        world.judge(&upgrade.name);
        assert!(outcome.succeeded() && outcome.duplicated_effects == 0, "{}", outcome.message);
        assert_eq!(world.violations(), [], "no kubelet was ever too old for an API server, nor newer");
        assert_eq!(kubelets_of(&world, "cp-1"), ["1.32.13", "1.33.13", "1.34.4", "1.35.4"]);
        assert_eq!(kubelets_of(&world, "w-2"), ["1.34.4", "1.35.4"]);
        let update = world.server().get(cupcake_crds::GROUP, "directupdates", "", "to-1-35").unwrap();
        let path = &update.value()["status"]["upgradePath"];
        assert_eq!(path["steps"], serde_json::json!(["1.32.13", "1.33.13", "1.34.4", "1.35.4"]));
        assert_eq!((&path["currentStep"], &path["totalSteps"]), (&3.into(), &4.into()));
    });
}

#[test]
fn whoever_leads_while_work_disturbs_a_node_runs_on_another_one() {
    let settings = Settings {
        control_planes: 3,
        workers: 0,
        from: KubeVersion::new(1, 33, 4),
        to: KubeVersion::new(1, 34, 4),
        start: start(),
        operators: 2,
        concurrency: 1,
        without: std::collections::BTreeSet::default(),
    };
    let (verdict, lines) = simulate::transcript(&settings, &Schedule { seed: 7, faults: Vec::new() }).unwrap();
    assert!(verdict.outcome.succeeded() && verdict.violations.is_empty(), "{}", verdict.outcome.message);
    // The first replica runs on cp-1, the second on cp-2.
    let (mut disturbed, mut seen) = (None, std::collections::BTreeMap::<&str, u32>::new());
    for line in &lines {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[1..] {
            ["effect", node, "kubeadm" | "kubelet-restart", .., "begun"] => disturbed = Some(node),
            [client, "update", path, ..] if client.starts_with("operator.") && path.contains("/upgraderuns/") => {
                let own = if client.starts_with("operator.b.") { "cp-2" } else { "cp-1" };
                if let Some(node) = disturbed.take() {
                    assert_ne!(node, own, "{line}");
                    *seen.entry(node).or_default() += 1;
                }
            }
            _ => {}
        }
    }
    assert!(seen.contains_key("cp-1") && seen.contains_key("cp-2"), "nobody led while {seen:?}");
}

#[test]
fn an_update_over_minors_survives_what_goes_wrong_in_any_hop() {
    let settings = Settings {
        control_planes: 3,
        workers: 2,
        from: KubeVersion::new(1, 30, 14),
        to: KubeVersion::new(1, 34, 4),
        start: start(),
        operators: 2,
        concurrency: 1,
        without: std::collections::BTreeSet::default(),
    };
    let calm = simulate::run(&settings, &Schedule { seed: 1, faults: Vec::new() }).unwrap().outcome;
    let (mut happened, mut succeeded) = (0, 0);
    for seed in 1..=16 {
        let schedule = simulate::random(seed, calm.writes, Some(2));
        let verdict = simulate::run(&settings, &schedule).unwrap();
        assert!(verdict.violations.is_empty(), "{schedule}: {:?}", verdict.violations);
        happened += verdict.happened.len();
        succeeded += u32::from(verdict.outcome.succeeded());
    }
    assert!(happened > 16 && succeeded > 8, "{happened} faults, {succeeded} of 16 succeeded");
}

#[test]
fn a_machine_that_was_mended_after_a_refusal_is_looked_at_again_and_the_update_starts_by_itself() {
    let config = WorldConfig { control_planes: 1, workers: 1, ..WorldConfig::new(KubeVersion::new(1, 34, 4), start()) };
    let to = KubeVersion::new(1, 35, 4);
    world::runtime(config.speed).unwrap().block_on(async {
        let world = World::new(config).unwrap();
        world.start();
        let clock = world.clock();
        clock.sleep_until(world.now() + TimeDelta::seconds(60)).await;
        // What its agent told before somebody booted it with control groups version 2.
        let tasks: Api<NodeTask> = Api::all(world.server().client("user"));
        let before = serde_json::json!({"status": {"inventory": {"cgroupVersion": 1, "takenAt": start()}}});
        tasks.patch_status("w-1", &PatchParams::default(), &Patch::Merge(before)).await.unwrap();
        let upgrade = Upgrade { name: "to-1-35".into(), to, concurrency: Concurrency::Nodes(1) };
        let refused = world.upgrade(&upgrade).await.unwrap();
        assert_eq!(refused.phase, "Pending");
        assert!(refused.message.contains("{check: CgroupV1, node: w-1}"), "{}", refused.message);
        let deadline = world.now() + TimeDelta::hours(2);
        let phase = || world.server().get(cupcake_crds::GROUP, "directupdates", "", "to-1-35").unwrap();
        while phase().value()["status"]["phase"] != "Succeeded" && world.now() < deadline {
            clock.sleep_until(world.now() + TimeDelta::seconds(10)).await;
        }
        assert_eq!(phase().value()["status"]["phase"], "Succeeded", "{}", phase().value()["status"]);
        assert_eq!(kubelets_of(&world, "w-1"), ["1.35.4"]);
    });
}

#[test]
fn changes_by_hand_are_told_before_anything_moves_and_the_update_starts_once_kubeadm_is_given_them_as_patches() {
    let config = WorldConfig { control_planes: 1, workers: 1, ..WorldConfig::new(KubeVersion::new(1, 33, 4), start()) };
    world::runtime(config.speed).unwrap().block_on(async {
        let world = World::new(config).unwrap();
        let machine = world.machine("cp-1").unwrap();
        let audit = "kube-apiserver.yaml loses --audit-log-path=/var/log/audit.log";
        machine.change_by_hand(audit);
        world.start();
        let clock = world.clock();
        clock.sleep_until(world.now() + TimeDelta::seconds(60)).await;
        let refused = world.upgrade(&to_1_34()).await.unwrap();
        assert_eq!(refused.phase, "Pending");
        for part in [audit, "{check: HandMadeChanges, node: cp-1}"] {
            assert!(refused.message.contains(part), "{}", refused.message);
        }
        assert!(world.effects().is_empty(), "nothing moved");
        machine.give_patches();
        let deadline = world.now() + TimeDelta::hours(2);
        let update = || world.server().get(cupcake_crds::GROUP, "directupdates", "", "to-1-34").unwrap();
        while update().value()["status"]["phase"] != "Succeeded" && world.now() < deadline {
            clock.sleep_until(world.now() + TimeDelta::seconds(10)).await;
        }
        assert_eq!(update().value()["status"]["phase"], "Succeeded", "{}", update().value()["status"]);
    });
}

#[test]
fn nothing_is_started_on_what_machines_told_another_day_or_never() {
    // Applied before any agent has answered, and applied half an hour after it told of a machine that was changed since.
    for (changed_after_seconds, applied_after_seconds) in [(0, 0), (600, 1_800)] {
        let from = KubeVersion::new(1, 33, 4);
        let config = WorldConfig { control_planes: 1, workers: 1, ..WorldConfig::new(from, start()) };
        world::runtime(config.speed).unwrap().block_on(async {
            let world = World::new(config).unwrap();
            let (machine, clock) = (world.machine("cp-1").unwrap(), world.clock());
            if changed_after_seconds == 0 {
                machine.change_by_hand("etcd.yaml loses --quota-backend-bytes=8589934592");
            }
            world.start();
            clock.sleep_until(start() + TimeDelta::seconds(changed_after_seconds)).await;
            if changed_after_seconds > 0 {
                machine.change_by_hand("etcd.yaml loses --quota-backend-bytes=8589934592");
            }
            clock.sleep_until(start() + TimeDelta::seconds(applied_after_seconds)).await;
            let refused = world.upgrade(&to_1_34()).await.unwrap();
            assert_eq!(refused.phase, "Pending");
            assert!(refused.message.contains("{check: HandMadeChanges, node: cp-1}"), "{}", refused.message);
            assert!(world.effects().is_empty(), "nothing moved");
        });
    }
}

#[test]
fn the_next_kubelet_of_the_control_plane_waits_for_etcd_of_the_one_before() {
    let config = WorldConfig { workers: 0, ..WorldConfig::new(KubeVersion::new(1, 33, 4), start()) };
    world::runtime(config.speed).unwrap().block_on(async {
        let world = World::new(config).unwrap();
        world.start();
        let (first, clock) = (world.machine("cp-1").unwrap(), world.clock());
        let drained = |node: &str| {
            let effects = world.effects();
            effects.iter().any(|effect| effect.name.node == node && effect.name.kind == EffectKind::Drain)
        };
        let disturbing = async {
            while first.kubelet_version() != KubeVersion::new(1, 34, 4) {
                clock.sleep_until(world.now() + TimeDelta::seconds(1)).await;
            }
            first.break_static_pod("etcd");
            clock.sleep_until(world.now() + TimeDelta::seconds(200)).await;
            assert!(!drained("cp-2"), "cp-2 was begun while etcd of cp-1 was away");
            let update = world.server().get(cupcake_crds::GROUP, "directupdates", "", "to-1-34").unwrap();
            let told = update.value()["status"]["message"].as_str().unwrap_or_default().to_owned();
            assert!(told.contains("etcd not ready there"), "{told}");
            first.mend_static_pod("etcd");
        };
        let upgrade = to_1_34();
        let (outcome, ()) = futures::join!(world.upgrade(&upgrade), disturbing);
        let outcome = outcome.unwrap();
        assert!(outcome.succeeded() && drained("cp-2"), "{}", outcome.message);
    });
}
