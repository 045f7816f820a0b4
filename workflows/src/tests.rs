//! What compilers make of particular clusters: the plan of the canonical upgrade, and each thing that stands in the way.

use crate::testing::{NAME, UID, after_control_plane, cluster, compiled, last, node, plan_of, run, spec, v, wave_of};
use crate::timing::NodeTime;
use crate::{Code, Compilation, Compiled, CompiledWave, Finding, Refusal, Request, WaveOf, compile_wave, wave_run};
use cupcake_crds::node_task::NodeInventory;
use cupcake_crds::values::{
    ClusterSnapshot, Cordon, DisruptionBudget, EtcdTopology, NodeRole, PodSnapshot, UnreadableNode,
};
use cupcake_crds::{DirectUpdateSpec, OPT_OUT_LABEL};
use cupcake_engine::plan::Plan;
use cupcake_steps::ports::host::KubeProxy;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Each vertex on a line: name, kind, attempts, deadline, lane, and what it comes after.
fn vertices(plan: &Plan) -> String {
    let mut text = String::new();
    for vertex in plan.expand().unwrap().vertices() {
        let after: Vec<_> = vertex.after.iter().map(ToString::to_string).collect();
        let guard = vertex.guard.as_ref().map(|guard| format!(", in any case once {guard} began")).unwrap_or_default();
        let lane = vertex.lane.as_ref().map(|lane| format!(" lane {lane}")).unwrap_or_default();
        let _ = writeln!(
            text,
            "{}  {}  {}x {}s{lane}\n    after {}{guard}",
            vertex.name,
            vertex.kind,
            vertex.attempts_max,
            vertex.deadline_seconds,
            if after.is_empty() { "nothing".to_owned() } else { after.join(", ") },
        );
    }
    text
}

/// Plans are stored, and runs of this release are finished by the next: what changes here changes what users run.
#[test]
#[expect(clippy::disallowed_methods, reason = "a golden text is written anew where somebody asks for it")]
fn the_plans_of_the_canonical_upgrade_are_as_in_the_golden_text() {
    let snapshot = cluster(3, 2, "1.33.4");
    let update = spec(&json!({}));
    let root = plan_of(&update, &snapshot);
    let wave = wave_of(&update, &snapshot);
    let stored = |plan: &Plan| serde_json::to_string_pretty(plan).unwrap();
    let text = format!(
        "# 3 control-plane nodes and 2 workers, 1.33.4 to 1.34.4\n\n## root {}\n\n{}\n## wave\n\n{}\n## batch 1, {}\n\n{}\n\
         ## root as stored, {}\n\n{}\n\n## batch 1 as stored, {}\n\n{}\n",
        run(),
        vertices(&root.plan),
        vertices(&wave.plan),
        wave.batches[0].run,
        vertices(&wave.batches[0].plan),
        root.digest,
        stored(&root.plan),
        wave.batches[0].digest,
        stored(&wave.batches[0].plan),
    );
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/plans.txt");
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    assert!(golden == text, "the plans changed; UPDATE_GOLDENS=1 takes this over:\n{text}");
}

fn refused(fields: &Value, change: impl Fn(&mut ClusterSnapshot)) -> Refusal {
    let mut snapshot = cluster(3, 2, "1.33.4");
    change(&mut snapshot);
    match compiled(&spec(fields), &snapshot) {
        Err(refusal) => refusal,
        Ok(_) => panic!("{fields} was not refused"),
    }
}

/// The one finding that refuses; its text holds each of `parts`.
fn only(refusal: &Refusal, code: Code, field: &str, parts: &[&str]) {
    let [finding] = &refusal.findings[..] else {
        panic!("wanted {code} only: {refusal}");
    };
    assert_eq!((finding.code, finding.field.as_str()), (code, field), "{finding}");
    for part in parts {
        assert!(finding.to_string().contains(part), "{part:?} is not in: {finding}");
    }
}

fn unchanged(_: &mut ClusterSnapshot) {}

#[test]
fn where_there_is_no_way_everything_else_that_stands_in_the_way_is_told_with_it() {
    use Code::{
        CgroupV1, DiskSpace, DisruptionBudget as Budget, InvalidPath, InvalidVersion, TooManyMinors, UnknownRelease,
    };
    let unfit = |snapshot: &mut ClusterSnapshot| {
        let worker = snapshot.nodes.get_mut("w-02").unwrap();
        worker.inventory = Some(NodeInventory {
            cgroup_version: Some(1),
            disk_free_bytes: Some(1_000_000),
            disk_size_bytes: Some(1_000_000_000),
            ..NodeInventory::default()
        });
        let budgets =
            DisruptionBudget { name: "shop/db".into(), expected_pods: 1, desired_healthy: 1, current_healthy: Some(1) };
        snapshot.surroundings.disruption_budgets = vec![budgets];
        snapshot.surroundings.pods = vec![PodSnapshot {
            name: "shop/db-0".into(),
            node: "w-01".into(),
            labels: BTreeMap::new(),
            budgets: vec!["shop/db".into()],
            empty_dir: false,
            unmanaged: false,
        }];
    };
    let codes =
        |fields: &Value| -> Vec<Code> { refused(fields, unfit).findings.iter().map(|finding| finding.code).collect() };
    // Of 1.38 and 1.39 no release is known, and of 1.40 nothing else.
    assert_eq!(
        codes(&json!({"targetVersion": "1.40.0"})),
        [UnknownRelease, TooManyMinors, DiskSpace, CgroupV1, Budget]
    );
    let far = json!({"targetVersion": "1.99.0", "path": ["1.34.4", "1.99.0"]});
    assert_eq!(codes(&far), [UnknownRelease, InvalidPath, DiskSpace, CgroupV1, Budget]);
    let path = json!({"targetVersion": "1.34.4", "path": ["1.33.9", "1.35.0"]});
    assert_eq!(codes(&path), [InvalidPath, DiskSpace, Budget], "1.34 starts on control groups version 1");
    assert_eq!(codes(&json!({"targetVersion": "latest"})), [InvalidVersion, DiskSpace], "whatever the version");
    let warned = refused(&json!({"targetVersion": "1.40.0"}), unfit).warnings;
    assert!(warned.iter().any(|warning| warning.code == Code::RemovedKubeletFlags), "of 1.35: {warned:?}");
    assert!(warned.iter().all(|warning| warning.field != "packages"), "no exact version is to be had: {warned:?}");
}

#[test]
fn a_target_that_is_no_version_older_or_too_far_is_refused_with_versions_and_the_way() {
    let target = "spec.targetVersion";
    only(&refused(&json!({"targetVersion": "latest"}), unchanged), Code::InvalidVersion, target, &["latest", "1.34.4"]);
    let older = refused(&json!({"targetVersion": "1.32.9"}), |snapshot| {
        for node in snapshot.nodes.values_mut() {
            node.kubelet = v("1.32.9");
        }
        snapshot.kubeadm_config = Some(v("1.32.9"));
    });
    only(&older, Code::Downgrade, target, &["\"1.32.9\"", "API server is at 1.33.4", "set 1.33.4 or newer"]);
    only(&refused(&json!({"targetVersion": "2.0.0"}), unchanged), Code::TooManyMinors, target, &["another major"]);
}

#[test]
fn a_target_of_which_the_listed_versions_name_no_release_is_told() {
    let told = |listed: &str, fields: Value| -> Vec<String> {
        let mut snapshot = cluster(1, 1, "1.33.4");
        snapshot.known_versions.insert(v(listed));
        let warnings = crate::testing::plan_of(&spec(&fields), &snapshot).report.warnings;
        warnings.iter().filter(|one| one.code == Code::UnknownRelease).map(|one| one.message.clone()).collect()
    };
    let target = json!({"targetVersion": "1.34.4"});
    let trusted = "the versions that are known name none of 1.34: that it exists is taken on trust";
    assert_eq!(told("1.33.5", target.clone()), [trusted]);
    assert_eq!(told("1.34.4", target), [""; 0]);
    assert_eq!(
        told("1.33.5", json!({"targetVersion": "1.34.4", "path": ["1.34.4"]})),
        [""; 0],
        "who names the way says so"
    );
}

#[test]
fn kubelets_that_do_not_fit_are_named() {
    let kubelet = |name: &'static str, version: &'static str| {
        move |snapshot: &mut ClusterSnapshot| snapshot.nodes.get_mut(name).unwrap().kubelet = v(version)
    };
    let newer = refused(&json!({"targetVersion": "1.33.5"}), kubelet("w-02", "1.33.6"));
    only(&newer, Code::Downgrade, "spec.targetVersion", &["w-02 (1.33.6)", "set 1.33.6 or newer"]);
    // To go to its version would be refused, too: what is of a newer minor than the API server is told as that at once.
    let ahead = refused(&json!({}), kubelet("w-02", "1.34.6"));
    only(
        &ahead,
        Code::VersionSkew,
        "nodes",
        &["w-02 (1.34.6)", "newer minor than the API server at 1.33.4", "of 1.33"],
    );
    // What the update may move it moves before the first hop; what it may not stands in the way.
    let old = |snapshot: &mut ClusterSnapshot| {
        kubelet("w-01", "1.30.9")(snapshot);
        snapshot.nodes.get_mut("w-02").unwrap().labels.insert("pool".into(), "blue".into());
    };
    let old = refused(&json!({"nodeSelector": {"pool": "blue"}}), old);
    only(
        &old,
        Code::VersionSkew,
        "nodes",
        &["w-01 (1.30.9)", "behind 1.34.4", "to 1.33 first, or let spec.nodeSelector"],
    );
    // kubeadm 1.28 is stricter than the policy.
    let narrow = refused(&json!({"targetVersion": "1.28.9", "nodeSelector": {"pool": "blue"}}), |snapshot| {
        *snapshot = cluster(1, 2, "1.27.4");
        snapshot.nodes.get_mut("w-01").unwrap().kubelet = v("1.26.9");
        snapshot.nodes.get_mut("w-02").unwrap().labels.insert("pool".into(), "blue".into());
    });
    only(&narrow, Code::VersionSkew, "nodes", &["kubeadm 1.28 refuses", "more than 1 minor", "w-01 (1.26.9)"]);
    // So is its repetition at one version, before which no hop can move the worker.
    let of_there = |selector: Value| {
        refused(&json!({"targetVersion": "1.27.16", "nodeSelector": selector}), |snapshot| {
            *snapshot = cluster(1, 2, "1.27.16");
            snapshot.nodes.get_mut("cp-1").unwrap().kubelet = v("1.27.3");
            snapshot.nodes.get_mut("w-01").unwrap().kubelet = v("1.25.16");
            snapshot.nodes.get_mut("w-02").unwrap().labels.insert("pool".into(), "blue".into());
        })
    };
    let there = of_there(json!({}));
    only(
        &there,
        Code::VersionSkew,
        "nodes",
        &["kubeadm 1.27 refuses", "w-01 (1.25.16)", "to 1.27 by hand, or set a release of 1.28 as the target"],
    );
    // No plan moves one that the update leaves out.
    let left_out = of_there(json!({"pool": "blue"}));
    only(&left_out, Code::VersionSkew, "nodes", &["w-01 (1.25.16)", "upgrade their kubelets to 1.27 by hand"]);
    assert!(!left_out.to_string().contains("as the target"), "{left_out}");
    let config = refused(&json!({}), |snapshot| snapshot.kubeadm_config = Some(v("1.34.6")));
    only(&config, Code::Downgrade, "ConfigMap kube-system/kubeadm-config", &["1.34.6"]);
}

#[test]
fn a_worker_far_behind_can_always_be_moved_to_where_the_control_plane_is() {
    let mut snapshot = cluster(3, 2, "1.31.14");
    snapshot.nodes.get_mut("w-01").unwrap().kubelet = v("1.28.3");
    let plan = plan_of(&spec(&json!({"targetVersion": "1.31.14"})), &snapshot);
    assert_eq!(plan.summary.hops.iter().map(|hop| hop.batches.len()).collect::<Vec<_>>(), [1]);
}

#[test]
fn more_acknowledgements_than_the_schema_takes_and_doubled_ones_are_refused() {
    let entry = |node: usize| json!({"check": "CgroupV1", "node": format!("w-{node}")});
    let refused = |entries: Vec<serde_json::Value>| {
        let refusal = compiled(&spec(&json!({"acknowledge": entries})), &cluster(1, 2, "1.33.4"));
        refusal.is_err_and(|refusal| refusal.findings.iter().any(|finding| finding.field == "spec.acknowledge"))
    };
    assert!(refused((0..65).map(entry).collect()) && refused(vec![entry(1), entry(1)]));
    assert!(!refused((0..64).map(entry).collect()));
}

#[test]
fn a_cluster_that_kubeadm_could_not_upgrade_is_refused() {
    let none = refused(&json!({}), |snapshot| snapshot.nodes.retain(|_, node| node.role == NodeRole::Worker));
    only(&none, Code::NoControlPlane, "nodes", &[NodeRole::CONTROL_PLANE_LABEL]);
    let external = refused(&json!({}), |snapshot| snapshot.etcd = EtcdTopology::External);
    only(&external, Code::ExternalEtcd, "ConfigMap kube-system/kubeadm-config", &["outside the cluster"]);
    let config = refused(&json!({}), |snapshot| snapshot.kubeadm_config = None);
    only(&config, Code::NoKubeadmConfig, "ConfigMap kube-system/kubeadm-config", &["restore it"]);
    let unready = |names: &'static [&'static str]| {
        move |snapshot: &mut ClusterSnapshot| {
            for name in names {
                snapshot.nodes.get_mut(*name).unwrap().ready = false;
            }
        }
    };
    let quorum = refused(&json!({}), unready(&["cp-2", "cp-3"]));
    only(&quorum, Code::NodeNotReady, "nodes", &["cp-2, cp-3", "no quorum"]);
    let mut one_away = cluster(3, 2, "1.33.4");
    unready(&["cp-2"])(&mut one_away);
    plan_of(&spec(&json!({})), &one_away);
    let unreadable = refused(&json!({}), |snapshot| {
        let problem = "kubeletVersion \"dev\" is no version".to_owned();
        snapshot.unreadable.push(UnreadableNode { name: "w-9".into(), problem });
    });
    only(&unreadable, Code::UnreadableNode, "Node w-9", &["\"dev\" is no version"]);
}

#[test]
fn each_setting_that_cannot_be_carried_out_is_refused_by_its_field() {
    for (fields, code, field, part) in [
        (
            json!({"components": ["kubelet", "kubectl"]}),
            Code::IllegalComponents,
            "spec.components",
            "kubeadm is not named",
        ),
        (json!({"components": ["kubeadm"]}), Code::IllegalComponents, "spec.components", "kubelet is not named"),
        (
            json!({"components": ["kubeadm", "kubelet", "etcd"]}),
            Code::NotInThisRelease,
            "spec.components",
            "moves with kubeadm",
        ),
        (
            json!({"componentVersions": {"containerd": "1.7.24"}}),
            Code::IllegalComponents,
            "spec.componentVersions.containerd",
            "[kubeadm, kubelet, kubectl, containerd]",
        ),
        (
            json!({"components": ["kubeadm", "kubelet", "containerd"], "componentVersions": {"containerd": "newest"}}),
            Code::InvalidVersion,
            "spec.componentVersions.containerd",
            "1.7.24-1",
        ),
        (json!({"batchSize": 251}), Code::OutOfRange, "spec.batchSize", "1 to 250"),
        (json!({"maxFailures": 0}), Code::OutOfRange, "spec.maxFailures", "1 or more"),
        (json!({"nodeTimeout": "9m"}), Code::OutOfRange, "spec.nodeTimeout", "10m to 24h"),
        (json!({"nodeTimeout": "-1h"}), Code::OutOfRange, "spec.nodeTimeout", "10m to 24h"),
        (json!({"drain": {"timeout": "29m"}}), Code::OutOfRange, "spec.drain.timeout", "1800 s in all"),
        (json!({"operationTimeout": "-1h"}), Code::OutOfRange, "spec.operationTimeout", "no time"),
        (json!({"operationTimeout": "0s"}), Code::OutOfRange, "spec.operationTimeout", "no time"),
        (
            json!({"airGapped": {"enabled": true, "bundleConfigMap": "bundle"}}),
            Code::NotInThisRelease,
            "spec.airGapped.enabled",
            "mirror",
        ),
        (json!({"strategy": "canary"}), Code::UnknownCanary, "spec.canary", "spec.canary.nodes"),
        (
            json!({"strategy": "canary", "canary": {"enabled": true, "nodes": ["w-01", "w-7"]}}),
            Code::UnknownCanary,
            "spec.canary.nodes",
            "\"w-7\": no such node",
        ),
        (
            json!({"strategy": "canary", "canary": {"enabled": true, "nodes": ["cp-1"]}}),
            Code::UnknownCanary,
            "spec.canary.nodes",
            "name workers",
        ),
    ] {
        only(&refused(&fields, unchanged), code, field, &[part]);
    }
    let mut zero = spec(&json!({}));
    zero.concurrency = cupcake_crds::values::Concurrency::Nodes(0);
    only(
        &compiled(&zero, &cluster(1, 1, "1.33.4")).unwrap_err(),
        Code::OutOfRange,
        "spec.concurrency",
        &["1 to 15000"],
    );
    let wide = compiled(&spec(&json!({"concurrency": 400})), &cluster(1, 300, "1.33.4")).unwrap_err();
    only(&wide, Code::OutOfRange, "spec.concurrency", &["300 workers at once", "strategy parallel"]);
}

#[test]
fn a_refusal_holds_everything_that_stands_in_the_way() {
    let refusal = refused(&json!({"targetVersion": "1.32.0", "components": ["kubelet", "etcd"]}), |snapshot| {
        snapshot.etcd = EtcdTopology::External;
    });
    let mut codes: Vec<Code> = refusal.findings.iter().map(|finding| finding.code).collect();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(
        codes,
        [Code::Downgrade, Code::ExternalEtcd, Code::IllegalComponents, Code::NotInThisRelease],
        "{refusal}"
    );
}

#[test]
fn a_selector_without_workers_is_refused_only_where_nothing_else_moves() {
    let fields = json!({"nodeSelector": {"pool": "gone"}});
    let mut snapshot = cluster(3, 2, "1.33.4");
    let plan = plan_of(&spec(&fields), &snapshot);
    assert_eq!(plan.report.warnings[0].code, Code::NothingSelected);
    assert!(!vertices(&plan.plan).contains("/workers"));
    snapshot = after_control_plane(&snapshot, v("1.34.4"));
    let refusal = compiled(&spec(&fields), &snapshot).unwrap_err();
    only(&refusal, Code::NothingSelected, "spec.nodeSelector", &["\"pool=gone\"", "kubectl get nodes -l pool=gone"]);
}

#[test]
fn what_has_arrived_is_left_out_of_the_plan() {
    let words = |compiled: &Compiled| vertices(&compiled.plan);
    let mut snapshot = after_control_plane(&cluster(2, 2, "1.33.4"), v("1.34.4"));
    let workers_only = words(&plan_of(&spec(&json!({})), &snapshot));
    assert!(!workers_only.contains("control-plane/") && !workers_only.contains("etcd-backup"), "{workers_only}");
    assert!(!workers_only.contains("kubelets/") && workers_only.contains("1.34.4/workers"), "{workers_only}");
    // An interrupted upgrade: kubeadm was at one node, the oldest API server is behind.
    snapshot.server = v("1.33.4");
    let interrupted = words(&plan_of(&spec(&json!({})), &snapshot));
    assert!(interrupted.contains("control-plane/cp-1") && interrupted.contains("control-plane/cp-2"), "{interrupted}");
    let there = after_control_plane(&cluster(2, 2, "1.34.4"), v("1.34.4"));
    match compiled(&spec(&json!({})), &there).unwrap() {
        Compilation::NothingToDo(nothing) => assert_eq!(nothing.message, "every selected node is at 1.34.4"),
        Compilation::Plan(plan) => panic!("{}", words(&plan)),
    }
}

#[test]
fn workers_move_group_by_group_of_a_label_and_those_that_opted_out_never() {
    let mut snapshot = cluster(1, 9, "1.33.4");
    let zones = ["zone-a", "zone-b", "zone-c"];
    for (index, node) in snapshot.nodes.values_mut().filter(|node| node.role == NodeRole::Worker).enumerate() {
        match index {
            7 => {}
            8 => drop(node.labels.insert(OPT_OUT_LABEL.to_owned(), "true".to_owned())),
            _ => drop(node.labels.insert("zone".to_owned(), zones[index % 3].to_owned())),
        }
    }
    let fields = json!({"batchSize": 2, "nodeOrder": {"byLabel": "zone", "values": ["zone-b"]}});
    let nodes = |wave: &CompiledWave| wave.batches.iter().map(|batch| batch.nodes.join(" ")).collect::<Vec<_>>();
    let wave = wave_of(&spec(&fields), &snapshot);
    // zone-b, as asked for; then by the alphabet; then whoever has no zone.
    assert_eq!(nodes(&wave), ["w-02 w-05", "w-01 w-04", "w-07", "w-03 w-06", "w-08"]);
    let waits = wave.plan.expand().unwrap().vertices().iter().filter(|vertex| !vertex.after.is_empty()).count();
    assert_eq!(waits, 4, "one group after the other");
    let told = plan_of(&spec(&fields), &snapshot).report.warnings;
    let told = told.iter().find(|finding| finding.code == Code::OptedOut).unwrap().to_string();
    assert!(told.contains("w-09") && told.contains("kubectl label node w-09"), "{told}");
    let other = json!({"batchSize": 2, "nodeOrder": {"byLabel": "rack"}});
    assert_eq!(nodes(&wave_of(&spec(&other), &snapshot)), ["w-01 w-02", "w-03 w-04", "w-05 w-06", "w-07 w-08"]);
    let refusal = refused(&json!({"nodeOrder": {"byLabel": "host"}}), |snapshot| {
        *snapshot = cluster(1, 65, "1.33.4");
        for node in snapshot.nodes.values_mut() {
            node.labels.insert("host".to_owned(), node.node.name.clone());
        }
    });
    only(&refusal, Code::OutOfRange, "spec.nodeOrder.byLabel", &["65 values", "topology.kubernetes.io/zone"]);
}

#[test]
fn canary_nodes_are_the_first_batch_and_parallel_batches_wait_for_nobody() {
    let snapshot = cluster(1, 120, "1.33.4");
    let canary = json!({"strategy": "canary", "canary": {"enabled": true, "nodes": ["w-100", "w-007"]}});
    let wave = wave_of(&spec(&canary), &snapshot);
    assert_eq!(wave.batches[0].nodes, ["w-007", "w-100"]);
    let shape: Vec<_> = wave.batches.iter().map(|batch| (batch.canary, batch.nodes.len())).collect();
    assert_eq!(shape, [(true, 2), (false, 50), (false, 50), (false, 18)]);
    let waits =
        |wave: &Plan| wave.expand().unwrap().vertices().iter().filter(|vertex| !vertex.after.is_empty()).count();
    assert_eq!(waits(&wave.plan), 4, "the gate, and what follows it one after another");
    let gate = |wave: &Plan| {
        let dag = wave.expand().unwrap();
        let gate = dag.vertices().iter().find(|vertex| vertex.kind.as_str() == "gate/v1").unwrap().clone();
        let after: Vec<String> = gate.after.iter().map(ToString::to_string).collect();
        (gate.name.to_string(), after, gate.params)
    };
    let watched = json!({"nodes": ["w-007", "w-100"], "soakSeconds": 300});
    let name = "1.34.4/canary-gate".to_owned();
    assert_eq!(gate(&wave.plan), (name.clone(), vec!["batch-1".to_owned()], watched));
    let mut approved = canary.clone();
    approved["approvals"] = json!(["AfterCanary"]);
    let by_hand = wave_of(&spec(&approved), &snapshot);
    assert_eq!(gate(&by_hand.plan).2, json!({"approval": name, "nodes": ["w-007", "w-100"], "soakSeconds": 0}));
    let parallel = wave_of(&spec(&json!({"strategy": "parallel"})), &snapshot);
    assert_eq!((parallel.batches.len(), waits(&parallel.plan)), (3, 0));
    assert_eq!(parallel.batches[0].limits.concurrency, 50);
}

#[test]
fn a_wave_is_compiled_from_what_is_there_when_it_opens() {
    let target = v("1.34.4");
    let update = spec(&json!({"concurrency": "50%", "maxFailures": 2}));
    let request = Request { name: NAME, uid: UID, spec: &update };
    let wave = wave_run(&run(), target).unwrap();
    let before = cluster(1, 4, "1.33.4");
    let early = compile_wave(&request, &wave, &last(target), &before).unwrap_err();
    only(&early, Code::ControlPlaneBehind, "cluster", &["\"1.33.4\"", "may not move to 1.34.4"]);
    let mut fresh = after_control_plane(&before, target);
    fresh.nodes.remove("w-01");
    fresh.nodes.insert("w-new".into(), node("w-new", NodeRole::Worker, v("1.33.4")));
    fresh.nodes.insert("w-newer".into(), node("w-newer", NodeRole::Worker, v("1.34.6")));
    let Ok(Compilation::Plan(compiled)) = compile_wave(&request, &wave, &last(target), &fresh) else {
        panic!("no wave");
    };
    assert_eq!(compiled.batches[0].nodes, ["w-02", "w-03", "w-04", "w-new"]);
    assert_eq!((compiled.batches[0].limits.concurrency, compiled.batches[0].limits.failures_max), (2, 2));
    let lost = std::collections::BTreeSet::from(["w-03".to_owned(), "w-gone".to_owned()]);
    let again = crate::compile_again(&request, &wave, 1, &last(target), &fresh, &lost).unwrap();
    assert_eq!(
        (again.run.as_str(), again.nodes),
        ("to-1-34-6f0d7f0e-1-34-4-workers-stragglers-1", vec!["w-03".into()])
    );
    assert_eq!((again.limits.concurrency, again.limits.failures_max), (1, 1), "who fails once more lets it rest");
    // An empty plan would succeed at once, and whoever was asked for would be asked for again.
    let mut promoted = fresh.clone();
    promoted.nodes.get_mut("w-03").unwrap().role = NodeRole::ControlPlane;
    let refusal = crate::compile_again(&request, &wave, 1, &last(target), &promoted, &lost).unwrap_err();
    assert!(refusal.message(500).contains("kubectl cupcake skip"), "{}", refusal.message(500));
    let mut silent = fresh.clone();
    silent.nodes.remove("w-03");
    silent.unreadable.push(UnreadableNode { name: "w-03".into(), problem: "no kubelet version".into() });
    let refusal = crate::compile_again(&request, &wave, 1, &last(target), &silent, &lost).unwrap_err();
    assert_eq!((refusal.code(), refusal.findings[0].field.as_str()), (Code::UnreadableNode, "Node w-03"));
    assert!(compiled.report.warnings.iter().any(|warning| warning.value.contains("w-newer")), "{:?}", compiled.report);
    let Ok(Compilation::NothingToDo(nothing)) =
        compile_wave(&request, &wave, &last(target), &after_control_plane(&cluster(1, 3, "1.34.4"), target))
    else {
        panic!("something to do");
    };
    assert!(nothing.plan.expand().unwrap().is_empty());
}

#[test]
fn a_worker_pulls_what_it_runs_before_it_is_emptied_from_where_the_cluster_takes_images() {
    let prepare = |snapshot: &ClusterSnapshot, kube_proxy| -> Vec<Value> {
        let (spec, target) = (spec(&json!({})), v("1.34.4"));
        let wave = wave_run(&run(), target).unwrap();
        let request = Request { name: NAME, uid: UID, spec: &spec };
        let hop = WaveOf { kube_proxy, ..WaveOf::last(target) };
        let wave = match compile_wave(&request, &wave, &hop, &after_control_plane(snapshot, target)).unwrap() {
            Compilation::Plan(wave) => wave,
            Compilation::NothingToDo(nothing) => panic!("{}", nothing.message),
        };
        let dag = wave.batches[0].plan.expand().unwrap();
        let order = dag.vertices().iter().find(|vertex| vertex.name.as_str() == "w-01/prepare").unwrap();
        order.params["prepare"].as_array().unwrap().clone()
    };
    let ours = prepare(&cluster(1, 1, "1.33.4"), KubeProxy::Upgrade);
    let kinds: Vec<&str> = ours.iter().filter_map(|step| step["kind"].as_str()).collect();
    assert_eq!(kinds, ["switch-repository/v1", "install-packages/v1", "pull-worker-images/v1", "kubeadm-upgrade/v1"]);
    assert_eq!(ours[2]["params"], json!({"version": "1.34.4"}), "from kubeadm's own repository");
    let mirrored = ClusterSnapshot { image_repository: Some("mirror:5000/k8s".into()), ..cluster(1, 1, "1.33.4") };
    let mirrored = prepare(&mirrored, KubeProxy::LeaveOut);
    let told = json!({"version": "1.34.4", "repository": "mirror:5000/k8s", "kubeProxy": "leave-out"});
    assert_eq!(mirrored[2]["params"], told);
}

#[test]
fn a_node_is_drained_whose_kubelet_changes_its_minor_and_others_only_unless_that_is_asked_for() {
    let mut snapshot = cluster(2, 3, "1.34.1");
    snapshot.nodes.get_mut("w-02").unwrap().kubelet = v("1.33.4");
    let words = |plan: &Plan, node: &str| -> Vec<String> {
        let dag = plan.expand().unwrap();
        let of_node = dag.vertices().iter().filter(|vertex| vertex.lane.as_deref() == Some(node));
        of_node.map(|vertex| vertex.name.as_str().rsplit('/').next().unwrap().to_owned()).collect()
    };
    let (whole, short) =
        (vec!["prepare", "drain", "kubelet", "release", "uncordon"], vec!["prepare", "kubelet", "release"]);
    let asked = spec(&json!({"drain": {"onPatch": false}}));
    let wave = wave_of(&asked, &snapshot);
    let nodes = ["w-01", "w-02", "w-03"];
    assert_eq!(wave.batches[0].nodes, nodes);
    assert_eq!(nodes.map(|node| words(&wave.batches[0].plan, node)), [&short, &whole, &short].map(Clone::clone));
    let root = plan_of(&asked, &snapshot);
    assert_eq!(["cp-1", "cp-2"].map(|node| words(&root.plan, node)), [&short, &short].map(Clone::clone));
    assert_eq!(root.summary.hops[0].undrained, 4);
    snapshot.nodes.get_mut("cp-2").unwrap().kubelet = v("1.33.4");
    assert_eq!(words(&plan_of(&asked, &snapshot).plan, "cp-1"), whole, "one of them has to be");
    let usual = wave_of(&spec(&json!({})), &snapshot);
    assert_eq!(words(&usual.batches[0].plan, "w-01"), whole);
}

#[test]
fn a_worker_may_be_left_out_when_its_drain_does_not_end_and_a_control_plane_node_never() {
    let update = spec(&json!({"drain": {"onExpiry": "SkipNode", "podTimeout": "90s"}}));
    let params = |plan: &Plan| -> Vec<(Value, Value)> {
        let dag = plan.expand().unwrap();
        let drains = dag.vertices().iter().filter(|vertex| vertex.name.as_str().ends_with("/drain"));
        drains.map(|vertex| (vertex.params["onExpiry"].clone(), vertex.params["podSeconds"].clone())).collect()
    };
    let snapshot = cluster(1, 1, "1.33.4");
    assert_eq!(params(&wave_of(&update, &snapshot).batches[0].plan), [(json!("SkipNode"), json!(90))]);
    assert_eq!(params(&plan_of(&update, &snapshot).plan), [(Value::Null, json!(90))]);
}

#[test]
fn rules_about_pods_go_into_every_drain_of_a_plan_and_where_there_are_none_nothing_does() {
    let rules = json!([
        {"action": "Skip", "selector": {"matchLabels": {"app": "osd"}}},
        {"action": "Evict", "order": 10, "namespaces": ["shop"]},
    ]);
    let params = |plan: &Plan| -> Vec<Value> {
        let dag = plan.expand().unwrap();
        let drains = dag.vertices().iter().filter(|vertex| vertex.name.as_str().ends_with("/drain"));
        drains.map(|vertex| vertex.params["rules"].clone()).collect()
    };
    let snapshot = cluster(1, 1, "1.33.4");
    let asked = spec(&json!({"drain": {"rules": rules}}));
    assert_eq!(params(&wave_of(&asked, &snapshot).batches[0].plan), std::slice::from_ref(&rules));
    assert_eq!(params(&plan_of(&asked, &snapshot).plan), [rules]);
    assert_eq!(params(&plan_of(&spec(&json!({})), &snapshot).plan), [Value::Null], "a plan of before is the same plan");
}

#[test]
fn what_an_older_api_server_lacks_is_told_and_what_machines_told_too_long_ago() {
    for (server, target, words) in [
        ("1.24.17", "1.25.16", Some("fence a leader that was replaced")),
        ("1.25.16", "1.26.15", Some("bind an agent to its node")),
        ("1.29.14", "1.30.14", Some("bind an agent to its node")),
        ("1.30.14", "1.31.14", None),
    ] {
        let plan = plan_of(&spec(&json!({"targetVersion": target})), &cluster(1, 1, server));
        let told = plan.report.warnings.iter().find(|warning| warning.code == Code::OlderServer);
        assert_eq!(told.is_some(), words.is_some(), "{server}");
        assert!(words.is_none_or(|words| told.unwrap().message.contains(words)), "{server}: {told:?}");
    }
    let mut snapshot = cluster(1, 2, "1.33.4");
    let now = snapshot.taken_at;
    for (name, seconds) in [("w-01", crate::INVENTORY_SECONDS_MAX), ("w-02", crate::INVENTORY_SECONDS_MAX + 1)] {
        let inventory = snapshot.nodes.get_mut(name).unwrap().inventory.get_or_insert_default();
        inventory.taken_at = Some(now - chrono::TimeDelta::seconds(seconds));
    }
    let plan = plan_of(&spec(&json!({})), &snapshot);
    let old = plan.report.warnings.iter().find(|warning| warning.code == Code::NoInventory).unwrap();
    assert_eq!(old.value, "w-02");
}

#[test]
fn what_is_set_and_has_no_effect_is_told() {
    let told = |fields: Value| -> Vec<String> {
        let plan = plan_of(&spec(&fields), &cluster(1, 2, "1.33.4"));
        let without_effect = plan.report.warnings.into_iter().filter(|warning| warning.code == Code::NoEffect);
        without_effect.map(|warning| format!("{} {}", warning.field, warning.value)).collect()
    };
    assert_eq!(told(json!({"strategy": "parallel", "concurrency": 2})), ["spec.concurrency 2"]);
    assert_eq!(told(json!({"strategy": "parallel", "concurrency": "50%"})), ["spec.concurrency 50%"]);
    assert_eq!(told(json!({"strategy": "parallel"})), Vec::<String>::new(), "what nobody set");
    assert_eq!(told(json!({"concurrency": 2})), Vec::<String>::new());
    let acknowledge = json!([{"check": "DiskSpace", "node": "w-01"}, {"check": "DiskSpace", "node": "w-9"}]);
    assert_eq!(told(json!({"acknowledge": acknowledge})), ["spec.acknowledge w-9"]);
    let bundle = json!({"airGapped": {"enabled": false, "bundleConfigMap": "bundle"}});
    assert_eq!(told(bundle), ["spec.airGapped.bundleConfigMap bundle"]);
}

#[test]
fn what_will_make_a_plan_wait_is_reported_before_it_starts() {
    let mut snapshot = cluster(3, 2, "1.33.4");
    snapshot.nodes.get_mut("w-01").unwrap().ready = false;
    snapshot.nodes.get_mut("w-02").unwrap().cordon = Cordon::ByOther;
    snapshot.nodes.get_mut("cp-2").unwrap().inventory = None;
    snapshot.nodes.get_mut("cp-1").unwrap().ready = false;
    let fields = json!({"preflightChecks": false, "batchSize": 1, "concurrency": 2});
    let plan = plan_of(&spec(&fields), &snapshot);
    let warned =
        |code: Code| -> Vec<&Finding> { plan.report.warnings.iter().filter(|warning| warning.code == code).collect() };
    assert_eq!(warned(Code::NodeNotReady)[0].value, "cp-1, w-01");
    assert_eq!(warned(Code::CordonedByOther)[0].value, "w-02");
    assert_eq!(warned(Code::NoInventory)[0].value, "cp-2");
    assert_eq!(warned(Code::NoEffect).len(), 1, "a concurrency above the batch size");
    assert_eq!(warned(Code::ChecksLeftOut).len(), 1);
    assert!(!vertices(&plan.plan).contains("preflight"));
    assert_eq!(
        plan.summary.hops[0].backup_on.as_deref(),
        Some("cp-2"),
        "the snapshot is taken where the node is Ready"
    );
}

#[test]
fn the_deadlines_of_a_visit_add_up_to_the_node_timeout() {
    for fields in [
        json!({}),
        json!({"nodeTimeout": "10m"}),
        json!({"nodeTimeout": "1h", "drain": {"timeout": "50m"}}),
        json!({"nodeTimeout": "24h"}),
        json!({"nodeTimeout": "10m", "drain": {"onExpiry": "ForceAfter"}}),
    ] {
        let time = NodeTime::of(&spec(&fields)).unwrap();
        let sum = time.prepare_seconds + time.drain_seconds + time.kubelet_seconds + time.uncordon_seconds;
        assert_eq!(sum, time.whole_seconds, "{fields}");
        assert!(time.drain_timeout_seconds < time.drain_seconds && time.kubelet_seconds >= 60, "{fields}: {time:?}");
    }
    assert_eq!(NodeTime::of(&spec(&json!({}))).unwrap().drain_timeout_seconds, 900, "15 of 30 minutes");
}

#[test]
fn a_name_too_long_for_the_runs_made_from_it_is_refused_before_anything_exists() {
    let update: DirectUpdateSpec = spec(&json!({}));
    let long = "a".repeat(240);
    let finding = Request { name: &long, uid: UID, spec: &update }.root_run().unwrap_err();
    assert_eq!((finding.code, finding.field.as_str()), (Code::NameTooLong, "metadata.name"));
    let name = "a".repeat(171);
    let root = Request { name: &name, uid: UID, spec: &update }.root_run().unwrap();
    let wave = wave_run(&root, v("1.35.0-alpha.12")).unwrap();
    let batch = crate::batch_run(&crate::request::stragglers_run(&wave).unwrap(), 15_000).unwrap();
    assert!(crate::plan_name(&batch, &"0".repeat(64)).len() <= 253);
    assert_eq!(Request { name: NAME, uid: UID, spec: &update }.root_run().unwrap(), run());
}

#[test]
fn gates_stand_before_a_hop_and_before_the_first_change_of_its_control_plane() {
    let snapshot = cluster(1, 1, "1.33.4");
    let update = spec(&json!({"approvals": ["BeforeControlPlane", "BeforeEachHop"]}));
    let Ok(Compilation::Plan(compiled)) = compiled(&update, &snapshot) else {
        panic!("no plan");
    };
    let dag = compiled.plan.expand().unwrap();
    let after = |name: &str| -> Vec<String> {
        let vertex = dag.vertices().iter().find(|vertex| vertex.name.as_str() == name).unwrap();
        vertex.after.iter().map(ToString::to_string).collect()
    };
    assert_eq!(after("1.34.4/hop-gate"), Vec::<String>::new());
    assert_eq!(after("1.34.4/preflight"), ["1.34.4/hop-gate"]);
    assert_eq!(after("1.34.4/control-plane-gate"), ["1.34.4/preflight"]);
    assert_eq!(after("1.34.4/etcd-backup"), ["1.34.4/control-plane-gate"]);
    assert_eq!(crate::gates_of(&update, &["1.34.4".to_owned()]), ["1.34.4/hop-gate", "1.34.4/control-plane-gate"]);
}
