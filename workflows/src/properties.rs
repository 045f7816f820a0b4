//! Properties of compilers and rendering: random clusters, random requests, random histories.

use crate::render::{Glyphs, LINE_CHARS_MAX, Names, View, current_step, dot, full_tree, message, node_progress};
use crate::render::{node_summary, status_lines};
use crate::testing::{Fate, World, after_control_plane, cluster, compiled, last, node, run, spec, start, usual, v};
use crate::{
    BATCH_NODES_MAX, CLUSTER_KINDS, Compilation, Compiled, CompiledWave, PLAN_BYTES_MAX, ROOT_PLAN_BYTES_MAX, Request,
    compile, compile_wave, plan_bytes, plan_name, wave_run,
};
use cupcake_crds::limits::{GRAPH_LINES_MAX, MESSAGE_CHARS_MAX};
use cupcake_crds::upgrade_run::ChildRun;
use cupcake_crds::values::{ClusterSnapshot, KubeVersion, NodeRole, Phase};
use cupcake_crds::{DirectUpdateSpec, values::HostStep};
use cupcake_engine::dag::{Dag, Vertex};
use cupcake_engine::decide::Intent;
use cupcake_engine::names::Reason;
use cupcake_steps::cluster::params;
use cupcake_steps::host::params as host;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Versions around the target 1.34.4; in a `wild` cluster some that must be refused.
fn versions(wild: bool) -> impl Strategy<Value = KubeVersion> {
    let refused = u32::from(wild);
    prop_oneof![
        16 => Just("1.33.4"), 8 => Just("1.34.4"), 6 => Just("1.34.2"), 4 => Just("1.32.9"), 2 => Just("1.31.0"),
        refused => Just("1.30.0"), refused => Just("1.34.5"),
    ]
    .prop_map(v)
}

fn snapshots() -> impl Strategy<Value = ClusterSnapshot> {
    (0..4_u8, 0..300_usize).prop_flat_map(|(luck, workers_max)| {
        let wild = luck == 0;
        let server = if wild { vec!["1.33.4", "1.32.1", "1.35.0"] } else { vec!["1.33.4", "1.34.4", "1.34.1"] };
        let workers = prop::collection::vec((versions(wild), 0..10_u8), 0..=workers_max);
        let control_plane = prop::collection::vec((versions(false), 0..10_u8), 1..8);
        let config = prop::option::weighted(0.3, Just(v("1.34.4")));
        (prop::sample::select(server), config, control_plane, workers).prop_map(
            |(server, config, control_plane, workers)| {
                let mut snapshot = cluster(0, 0, server);
                snapshot.kubeadm_config = config.or(snapshot.kubeadm_config);
                let roles = [("cp", NodeRole::ControlPlane, control_plane), ("w", NodeRole::Worker, workers)];
                for (prefix, role, nodes) in roles {
                    for (index, (version, luck)) in nodes.into_iter().enumerate() {
                        let mut node = node(&format!("{prefix}-{index}"), role, version);
                        node.ready = luck != 0;
                        if luck < 5 {
                            node.labels.insert("pool".into(), "blue".into());
                        }
                        snapshot.nodes.insert(node.node.name.clone(), node);
                    }
                }
                snapshot
            },
        )
    })
}

fn specs() -> impl Strategy<Value = DirectUpdateSpec> {
    let concurrency =
        prop_oneof![(1..300_u32).prop_map(|n| json!(n)), (1..101_u32).prop_map(|n| json!(format!("{n}%")))];
    let batch_size = prop::option::weighted(0.5, 1..=BATCH_NODES_MAX);
    (concurrency, batch_size, 0..4_usize, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(concurrency, batch_size, strategy, selector, kubectl, preflight)| {
            let strategy = ["rolling", "rolling", "parallel", "canary"][strategy];
            let mut fields = json!({"concurrency": concurrency, "strategy": strategy, "preflightChecks": preflight});
            if let Some(size) = batch_size {
                fields["batchSize"] = json!(size);
            }
            if strategy == "canary" {
                fields["canary"] = json!({"enabled": true, "nodes": ["w-1"]});
            } else if selector {
                fields["nodeSelector"] = json!({"pool": "blue"});
            }
            if !kubectl {
                fields["components"] = json!(["kubeadm", "kubelet"]);
            }
            spec(&fields)
        },
    )
}

type Checked = Result<(), TestCaseError>;

/// The parameters of every vertex are what its kind reads, and every step of an order is one that runners know.
fn params_are_readable(dag: &Dag) -> Checked {
    fn read<T: DeserializeOwned>(value: &Value) -> Result<T, TestCaseError> {
        serde_json::from_value(value.clone()).map_err(|error| TestCaseError::fail(format!("{error}: {value}")))
    }
    fn is<T: DeserializeOwned>(value: &Value) -> Checked {
        read::<T>(value).map(|_| ())
    }
    let order = |order: &params::HostOrder| -> Checked {
        let mut names = BTreeSet::new();
        for HostStep { name, kind, params } in order.prepare.iter().chain(&order.finish) {
            prop_assert!(names.insert(name), "{name} twice in one order");
            let params = Value::Object(params.clone());
            match kind.as_str() {
                host::SWITCH_REPOSITORY => is::<host::SwitchRepository>(&params)?,
                host::INSTALL_PACKAGES => is::<host::InstallPackages>(&params)?,
                host::PULL_IMAGES => is::<host::PullImages>(&params)?,
                host::PULL_WORKER_IMAGES => is::<host::PullWorkerImages>(&params)?,
                host::KUBEADM_UPGRADE => is::<host::UpgradeByKubeadm>(&params)?,
                host::ETCD_SNAPSHOT => is::<host::EtcdSnapshot>(&params)?,
                host::UPGRADE_CONTAINERD => is::<host::UpgradeContainerd>(&params)?,
                host::RESTART_KUBELET => is::<host::RestartKubelet>(&params)?,
                other => prop_assert!(false, "no runner knows {other}"),
            }
        }
        prop_assert!(order.work_seconds_max >= 1);
        Ok(())
    };
    for Vertex { name, kind, params, .. } in dag.vertices() {
        prop_assert!(CLUSTER_KINDS.contains(&kind.as_str()), "no operator knows {kind} of {name}");
        prop_assert!(!params.to_string().contains('{') || !params.to_string().contains("{item}"), "{params}");
        match kind.as_str() {
            "preflight/v1" => is::<params::Preflight>(params)?,
            "host-order/v1" => order(&read(params)?)?,
            "drain-node/v1" => is::<params::DrainNode>(params)?,
            "host-proceed/v1" => {
                let proceed: params::HostProceed = read(params)?;
                prop_assert!(dag.get(&proceed.order_vertex).is_some(), "{name} proceeds {}", proceed.order_vertex);
                order(&proceed.order)?;
            }
            "host-release/v1" => {
                let release: params::HostRelease = read(params)?;
                prop_assert!(release.order_vertices.iter().all(|of| dag.get(of).is_some()), "{name} releases {params}");
            }
            "uncordon-node/v1" => is::<params::UncordonNode>(params)?,
            "gate/v1" => is::<params::Gate>(params)?,
            "metric-gates/v1" => is::<params::MetricGates>(params)?,
            "addons/v1" => is::<params::Addons>(params)?,
            "child-run/v1" => is::<params::ChildRun>(params)?,
            "verify-cluster/v1" => is::<params::VerifyCluster>(params)?,
            other => prop_assert!(false, "this test reads no parameters of {other}"),
        }
    }
    Ok(())
}

/// Positions of the vertices whose names have that form, and that each comes, through others, after the one before.
fn strictly_serial(dag: &Dag, of: impl Fn(&str) -> bool) -> Checked {
    let mut reach: Vec<BTreeSet<usize>> = Vec::new();
    let mut last: Option<usize> = None;
    for (position, vertex) in dag.vertices().iter().enumerate() {
        let mut before = BTreeSet::new();
        for name in vertex.after.iter().chain(&vertex.guard) {
            let at = dag.position(name).unwrap();
            prop_assert!(at < position, "{} stands before {name}, which it comes after", vertex.name);
            before.insert(at);
            before.extend(reach[at].iter().copied());
        }
        if of(vertex.name.as_str()) {
            if let Some(last) = last {
                prop_assert!(before.contains(&last), "{} does not wait", vertex.name);
            }
            last = Some(position);
        }
        reach.push(before);
    }
    Ok(())
}

fn root_is_sound(compiled: &Compiled, snapshot: &ClusterSnapshot) -> Checked {
    prop_assert!(plan_bytes(&compiled.plan) <= ROOT_PLAN_BYTES_MAX);
    prop_assert_eq!(&compiled.digest, &compiled.plan.digest());
    let dag = compiled.plan.expand().unwrap();
    params_are_readable(&dag)?;
    strictly_serial(&dag, |name| name.ends_with("/kubeadm-upgrade"))?;
    strictly_serial(&dag, |name| name.contains("/kubelets/") && !name.ends_with("/uncordon"))?;
    let upgraded = dag.vertices().iter().filter(|vertex| vertex.name.as_str().ends_with("/kubeadm-upgrade")).count();
    let nodes = snapshot.with_role(NodeRole::ControlPlane).count();
    let hops = compiled.summary.hops.iter().filter(|hop| !hop.control_plane.is_empty()).count();
    prop_assert_eq!(upgraded, nodes * hops);
    prop_assert!(dag.vertices().last().unwrap().name.as_str().ends_with("/verify"));
    Ok(())
}

fn wave_is_sound(wave: &CompiledWave, spec: &DirectUpdateSpec, snapshot: &ClusterSnapshot) -> Checked {
    let target = v("1.34.4");
    let workers = snapshot.with_role(NodeRole::Worker);
    let wanted: Vec<_> = workers.filter(|node| node.matches(&spec.node_selector) && node.kubelet < target).collect();
    let mut seen = BTreeSet::new();
    for batch in &wave.batches {
        prop_assert!(plan_bytes(&batch.plan) <= PLAN_BYTES_MAX);
        prop_assert_eq!(&batch.digest, &batch.plan.digest());
        prop_assert!(plan_name(&batch.run, &batch.digest).len() <= 253);
        prop_assert!(batch.limits.concurrency >= 1 && batch.limits.concurrency as usize <= batch.nodes.len());
        let dag = batch.plan.expand().unwrap();
        params_are_readable(&dag)?;
        prop_assert_eq!(dag.len(), batch.nodes.len() * 5);
        let lanes: BTreeSet<_> = dag.vertices().iter().filter_map(|vertex| vertex.lane.clone()).collect();
        prop_assert_eq!(&lanes, &batch.nodes.iter().cloned().collect());
        for node in &batch.nodes {
            prop_assert!(seen.insert(node.clone()), "{node} twice");
        }
    }
    prop_assert_eq!(seen, wanted.iter().map(|node| node.node.name.clone()).collect());
    let dag = wave.plan.expand().unwrap();
    params_are_readable(&dag)?;
    let (children, gates): (Vec<&Vertex>, Vec<&Vertex>) =
        dag.vertices().iter().partition(|vertex| vertex.kind.as_str() == crate::CHILD_RUN);
    prop_assert_eq!(children.len(), wave.batches.len());
    let both = [true, false].iter().all(|canary| wave.batches.iter().any(|batch| batch.canary == *canary));
    prop_assert_eq!(gates.len(), usize::from(both), "a gate stands between canaries and others");
    for (vertex, batch) in children.into_iter().zip(&wave.batches) {
        let params: params::ChildRun = serde_json::from_value(vertex.params.clone()).unwrap();
        prop_assert_eq!(&params.run, &batch.run);
        prop_assert_eq!(&vertex.name, &batch.vertex);
        let digest = batch.digest.clone();
        prop_assert_eq!(params.source, cupcake_steps::ports::cluster::ChildSource::Plan { digest });
    }
    if spec.strategy != cupcake_crds::values::Strategy::Parallel {
        strictly_serial(&dag, |_| true)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn a_random_cluster_is_refused_with_reasons_or_gets_sound_plans(snapshot in snapshots(), spec in specs()) {
        let target = v("1.34.4");
        let first = compiled(&spec, &snapshot);
        prop_assert_eq!(&first, &compiled(&spec, &snapshot), "equal inputs, other plans");
        match first {
            Err(refusal) => {
                prop_assert!(!refusal.findings.is_empty());
                prop_assert!(refusal.findings.iter().all(|finding| !finding.field.is_empty() && !finding.message.is_empty()));
                prop_assert!(refusal.message(MESSAGE_CHARS_MAX).chars().count() <= MESSAGE_CHARS_MAX);
            }
            Ok(Compilation::NothingToDo(nothing)) => {
                prop_assert!(nothing.plan.expand().unwrap().is_empty());
                let selected = |node: &&cupcake_crds::values::NodeSnapshot| {
                    node.role == NodeRole::ControlPlane || node.matches(&spec.node_selector)
                };
                prop_assert!(snapshot.nodes.values().filter(selected).all(|node| node.kubelet == target));
            }
            Ok(Compilation::Plan(root)) => {
                root_is_sound(&root, &snapshot)?;
                let request = Request { name: crate::testing::NAME, uid: crate::testing::UID, spec: &spec };
                let wave = wave_run(&run(), target).unwrap();
                let fresh = after_control_plane(&snapshot, target);
                match compile_wave(&request, &wave, &last(target), &fresh).unwrap() {
                    Compilation::Plan(wave) => {
                        wave_is_sound(&wave, &spec, &fresh)?;
                        prop_assert_eq!(wave.batches.iter().map(|batch| batch.nodes.len()).sum::<usize>(), root.summary.hops.last().unwrap().workers as usize);
                        prop_assert_eq!(wave.batches.len(), root.summary.hops.last().unwrap().batches.len());
                    }
                    Compilation::NothingToDo(_) => prop_assert_eq!(root.summary.hops.last().unwrap().workers, 0),
                }
            }
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn any_moment_of_a_run_fits_an_object_and_a_screen(
        seed in any::<u64>(), workers in 1..250_usize, concurrency in 1..250_u32, seconds in 0..6_000_i64,
        name_bytes in 0..110_usize, cancel in any::<bool>(), children in 0..400_u32, control_planes in 1..8_usize,
    ) {
        let mut snapshot = cluster(control_planes, 0, "1.33.4");
        let long = "n".repeat(name_bytes);
        for index in 0..workers {
            let node = node(&format!("{long}{index}"), NodeRole::Worker, v("1.33.4"));
            snapshot.nodes.insert(node.node.name.clone(), node);
        }
        let spec = spec(&json!({"concurrency": concurrency.min(250), "batchSize": 250}));
        let wave = crate::testing::wave_of(&spec, &snapshot);
        let root = crate::testing::plan_of(&spec, &snapshot);
        let fate = |vertex: &str| {
            let hash = vertex.bytes().fold(seed, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte))) >> 7;
            let reason = Reason::new("Because", format!("a reason\nof two lines {}", "and more ".repeat(hash as usize % 40)));
            match hash % 23 {
                0 => Fate::Waits(reason),
                1 | 2 => Fate::Fails(reason),
                3 => Fate::FailsForGood(reason),
                _ => usual(vertex),
            }
        };
        let children: Vec<ChildRun> = (0..children).map(|n| ChildRun {
            name: format!("{}-1-34-4-workers{}", run(), if n == 0 { String::new() } else { format!("-{n}") }),
            phase: [Phase::Succeeded, Phase::InProgress, Phase::Failed, Phase::Pending][n as usize % 4],
            progress: Some(format!("{n}/400")),
        }).collect();
        let batch = &wave.batches[0];
        for (plan, run) in [(&root.plan, run()), (&wave.plan, wave_run(&run(), v("1.34.4")).unwrap()), (&batch.plan, batch.run.clone())] {
            let mut world = World::new(plan, concurrency);
            world.limits.failures_max = 1 + u32::try_from(seed % 9).unwrap();
            world.until(seconds / 2, fate);
            world.intent = Intent { cancel, ..Intent::default() };
            world.until(seconds, fate);
            let view = View { dag: &world.dag, cursor: &world.cursor, now: start(), children: &children };
            for glyphs in [Glyphs::Unicode, Glyphs::Ascii] {
                let status = status_lines(&view, glyphs);
                prop_assert!((1..=GRAPH_LINES_MAX).contains(&status.len()), "{} lines", status.len());
                for line in status.iter().chain(&full_tree(&view, glyphs)) {
                    prop_assert!(line.chars().count() <= LINE_CHARS_MAX, "{}", line);
                    prop_assert!(!line.chars().any(char::is_control) && !line.starts_with(' '), "{:?}", line);
                    prop_assert!(glyphs == Glyphs::Unicode || line.is_ascii(), "{}", line);
                }
            }
            let line = message(&view, &Names { direct_update: "to-1-34", run: run.as_str() });
            prop_assert!(!line.is_empty() && line.chars().count() <= MESSAGE_CHARS_MAX && !line.contains('\n'), "{line:?}");
            prop_assert!(current_step(&view).is_none_or(|step| step.chars().count() <= 320));
            let nodes = node_progress(&view);
            let summary = node_summary(&nodes);
            prop_assert_eq!(summary.completed + summary.failed + summary.pending + summary.upgrading, summary.total);
            prop_assert!(nodes.values().all(|node| node.error.as_ref().is_none_or(|error| error.chars().count() <= 512)));
            prop_assert_eq!(dot(&world.dag, Some(&world.cursor)).matches("fillcolor").count(), world.dag.len());
        }
    }
}

#[test]
fn the_largest_batch_fits_with_long_names_and_one_that_does_not_is_refused_with_the_way_out() {
    let fits = |name_bytes: usize| {
        let mut snapshot = cluster(1, 0, "1.33.4");
        for index in 0..250 {
            let mut node = node(&format!("{}-{index:03}", "n".repeat(name_bytes)), NodeRole::Worker, v("1.33.4"));
            node.node.uid = format!("6f0d7f0e-0c3e-4a53-9b1a-2f6f5d1c9{index:03}");
            snapshot.nodes.insert(node.node.name.clone(), node);
        }
        compiled(&spec(&json!({"batchSize": 250})), &snapshot)
    };
    assert!(matches!(fits(100), Ok(Compilation::Plan(_))));
    let refusal = fits(249).unwrap_err().to_string();
    assert!(refusal.contains("the plan of batch 1 has") && refusal.contains("smaller spec.batchSize"), "{refusal}");
}

#[test]
fn a_cluster_of_15_000_nodes_is_compiled_and_one_too_many_batches_for_a_wave_are_refused() {
    let snapshot = cluster(7, 15_000, "1.33.4");
    let request = |spec: &DirectUpdateSpec| {
        compile(&Request { name: "to-1-34", uid: crate::testing::UID, spec }, &run(), &snapshot)
    };
    let Ok(Compilation::Plan(plan)) = request(&spec(&json!({"concurrency": "1%"}))) else {
        panic!("15,000 nodes are refused");
    };
    assert_eq!(plan.summary.hops[0].batches.len(), 100, "1% are 150 at once, so batches of 150");
    assert!(plan_bytes(&plan.plan) < 30_000, "{}", plan_bytes(&plan.plan));
    let refusal = request(&spec(&json!({"batchSize": 2}))).unwrap_err().to_string();
    assert!(refusal.contains("the wave's plan") && refusal.contains("spec.batchSize"), "{refusal}");
}
