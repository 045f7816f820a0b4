//! Each invariant broken once, in a world.

use super::super::{Speed, World, WorldConfig};
use super::rules::tests::{dag, plan};
use super::*;
use crate::machine::ledger::{EffectKind, EffectName};
use cupcake_crds::values::KubeVersion;
use cupcake_engine::codec::encode;
use cupcake_engine::event::Event;
use cupcake_engine::names::{CommitId, Epoch, Reason};
use serde_json::{Value, json};

/// What a world says that saw `look`.
fn seen(look: impl FnOnce(&Invariants)) -> Vec<&'static str> {
    super::super::runtime(Speed::Fastest).unwrap().block_on(async {
        let from = KubeVersion::new(1, 33, 4);
        let config = WorldConfig { judged: true, ..WorldConfig::new(from, Timestamp::UNIX_EPOCH) };
        let world = World::new(config).unwrap();
        let invariants = world.ear.invariants.get().unwrap();
        invariants.allow(1);
        look(invariants);
        world.violations().into_iter().map(|violation| violation.invariant).collect()
    })
}

#[test]
fn each_invariant_that_is_broken_is_named_and_a_calm_world_breaks_none() {
    let hold = |invariants: &Invariants, nodes: &[&str]| {
        let mut seen = invariants.lock();
        seen.ordered.extend(nodes.iter().map(|node| ((*node).to_owned(), true)));
        drop(seen);
        let found = invariants.held().collect();
        invariants.report(found);
    };
    assert_eq!(seen(|_| ()), Vec::<&str>::new());
    assert_eq!(seen(|invariants| hold(invariants, &["w-1", "cp-1"])), Vec::<&str>::new());
    assert_eq!(seen(|invariants| hold(invariants, &["w-1", "w-2"])), ["I3"]);
    let no_task_is_there = |invariants: &Invariants| {
        invariants.lock().ordered.extend(["w-1", "w-2"].map(|node| (node.to_owned(), true)));
        invariants.report(invariants.in_flight().collect());
    };
    assert_eq!(seen(no_task_is_there), Vec::<&str>::new());
    let ends = |phases: &'static [Option<Phase>]| {
        move |invariants: &Invariants| {
            let mut found = Vec::new();
            for phase in phases {
                invariants.end(&mut found, "run", "uid", *phase);
            }
            invariants.report(found);
        }
    };
    assert_eq!(seen(ends(&[None, Some(Phase::InProgress), Some(Phase::Failed)])), Vec::<&str>::new());
    assert_eq!(seen(ends(&[Some(Phase::Failed), Some(Phase::InProgress), Some(Phase::Succeeded)])), ["I5"]);
    assert_eq!(seen(ends(&[Some(Phase::Cancelled), None])), ["I5"]);
    let epochs = |invariants: &Invariants| {
        let mut found = Vec::new();
        for epoch in [3, 4, 2] {
            invariants.epoch(&mut found, "run", "uid", epoch);
        }
        invariants.report(found);
    };
    assert_eq!(seen(epochs), ["I6"]);
    assert_eq!(seen(|invariants| invariants.ended(&json!({"status": {"phase": "InProgress"}}), false)), ["I9"]);
    let twice = |invariants: &Invariants| {
        let effect = EffectName { node: "w-1".to_owned(), kind: EffectKind::Kubeadm, what: "node".to_owned() };
        invariants.site.ledger.begun(&effect);
        invariants.site.ledger.begun(&effect);
        invariants.ended(&json!({"status": {"phase": "Succeeded"}}), true);
    };
    assert_eq!(seen(twice), ["I10"]);
}

const VERSION: &str = cupcake_crds::VERSION;

/// Stores runs of one vertex, each after one event.
fn runs_after(invariants: &Invariants, events: &[Event]) {
    let path = |plural: &str| format!("/apis/{GROUP}/{VERSION}/{plural}");
    let object = |kind: &str, name: &str, spec: Value| json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": kind, "metadata": {"name": name}, "spec": spec});
    let (leader, digest) = (invariants.site.kube("operator.1"), "0123456789abcdef");
    let plan = json!({"compiler": "test", "digest": digest, "format": 1, "run": "run-0", "plan": plan()});
    leader.create(&path("upgradeplans"), &object("UpgradePlan", "plan-1", plan)).unwrap();
    for (number, event) in (0u32..).zip(events) {
        let mut cursor = Cursor::new(digest, &dag(), Timestamp::UNIX_EPOCH);
        cursor.fold(std::slice::from_ref(event)).unwrap();
        cursor.stamp(CommitId { epoch: Epoch(1), sequence: 1 });
        let spec = json!({
            "concurrency": 1, "failuresMax": 1, "operationId": "o", "targetVersion": "1.34.4",
            "directUpdate": {"name": "u", "uid": "u"}, "plan": {"name": "plan-1", "digest": digest},
        });
        let name = format!("run-{number}");
        leader.create(&path("upgraderuns"), &object("UpgradeRun", &name, spec)).unwrap();
        let status = json!({"status": {"cursor": encode(&cursor, &dag())}});
        leader.merge(&format!("{}/{name}/status", path("upgraderuns")), &status).unwrap();
    }
}

/// A life of the operator cordons a node for a run.
fn cordons(invariants: &Invariants, client: &str, node: &str) {
    let annotations = json!({cupcake_crds::CORDONED_BY_ANNOTATION: "run-0"});
    let cordon = json!({"metadata": {"annotations": annotations}, "spec": {"unschedulable": true}});
    invariants.site.kube(client).merge(&format!("/api/v1/nodes/{node}"), &cordon).unwrap();
}

#[test]
fn a_node_that_is_cordoned_though_every_run_was_told_to_hold_is_seen() {
    let after = |events: Vec<Event>| {
        seen(|invariants| {
            runs_after(invariants, &events);
            cordons(invariants, "operator.1", "w-1");
        })
    };
    let pause = || Event::Paused { reason: Reason::new("Paused", "by a person"), at: Timestamp::UNIX_EPOCH };
    let cancel = || Event::CancelRequested { at: Timestamp::UNIX_EPOCH };
    let start = || Event::Started { vertex: dag().vertices()[0].name.clone(), attempt: 1, at: Timestamp::UNIX_EPOCH };
    assert_eq!(after(vec![pause(), cancel()]), ["I2"]);
    assert_eq!(after(vec![pause(), start()]), Vec::<&str>::new(), "one run has not heard of it yet");
    assert_eq!(after(vec![]), Vec::<&str>::new(), "nothing was asked to hold");
}

#[test]
fn of_a_leader_that_was_stopped_one_request_may_land_late_and_of_nobody_else() {
    let held = |nodes: &[(&str, &str)]| {
        seen(|invariants| {
            runs_after(invariants, &[Event::CancelRequested { at: Timestamp::UNIX_EPOCH }]);
            invariants.allow(5);
            invariants.stops.stopped("operator.1");
            for (client, node) in nodes {
                cordons(invariants, client, node);
            }
        })
    };
    assert_eq!(held(&[("operator.1", "w-1")]), Vec::<&str>::new());
    assert_eq!(held(&[("operator.b.1", "w-1")]), ["I2"], "the other replica");
    assert_eq!(held(&[("operator.2", "w-1")]), ["I2"], "the life after it");
    assert_eq!(held(&[("operator.1", "w-1"), ("operator.1", "w-2")]), ["I2"], "a second request");
    let drained = |client: &'static str| {
        seen(move |invariants| {
            let drain = EffectName { node: "w-1".to_owned(), kind: EffectKind::Drain, what: "run-0".to_owned() };
            invariants.stops.stopped("operator.1");
            invariants.site.ledger.begun(&drain);
            invariants.site.ledger.begun(&drain);
            invariants.drained_again(client, drain);
            invariants.ended(&json!({"status": {"phase": "Succeeded"}}), true);
        })
    };
    assert_eq!(drained("operator.1"), Vec::<&str>::new());
    assert_eq!(drained("operator.b.1"), ["I10"]);
}

#[test]
fn two_control_plane_nodes_with_an_open_order_are_seen() {
    let ordered = |nodes: &'static [&'static str]| {
        move |invariants: &Invariants| {
            for node in nodes {
                let spec = json!({"nodeName": node, "nodeUid": "u", "epoch": 1, "order": {
                    "key": {"runUid": "r", "vertex": "v", "attempt": 1}, "epoch": 1, "targetVersion": "1.34.4",
                    "prepare": [], "finish": [], "proceed": false, "stop": false, "deadlineSeconds": 60,
                }});
                let task = json!({
                    "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "NodeTask", "metadata": {"name": node},
                    "spec": spec,
                });
                let path = format!("/apis/{GROUP}/{VERSION}/nodetasks");
                invariants.site.kube("operator.1").create(&path, &task).unwrap();
            }
        }
    };
    // No run knows of the orders, which is seen as well.
    assert_eq!(seen(ordered(&["cp-1", "w-1"])), ["I1", "I1"]);
    assert_eq!(seen(ordered(&["cp-1", "cp-2"])), ["I1", "I1", "I4"]);
}

#[test]
fn a_node_that_stays_cordoned_is_given_back_or_named() {
    let rests = |status: Value| {
        seen(|invariants| {
            cordons(invariants, "operator.1", "w-1");
            invariants.ended(&json!({"status": status}), true);
        })
    };
    assert_eq!(rests(json!({"phase": "Succeeded", "message": "w-1"})), ["I7"]);
    assert_eq!(rests(json!({"phase": "Cancelled"})), ["I7"]);
    assert_eq!(rests(json!({"phase": "RequiresAttention", "message": "a step of w-10 failed"})), ["I7"]);
    assert_eq!(rests(json!({"phase": "Failed", "nodes": {"w-1": {"phase": "Pending"}}})), ["I7"], "not of its cordon");
    for named in [
        json!({"phase": "RequiresAttention", "message": "node w-1: its drain failed"}),
        json!({"phase": "RequiresAttention", "conditions": [{"type": "Stalled", "message": "w-1 stays cordoned"}]}),
        json!({"phase": "Failed", "nodes": {"w-1": {"phase": "Failed"}}}),
        json!({"phase": "Failed", "leftOut": [{"node": "w-1"}]}),
    ] {
        assert_eq!(rests(named.clone()), Vec::<&str>::new(), "{named}");
    }
    let somebody_else = |invariants: &Invariants| {
        let cordon = json!({"spec": {"unschedulable": true}});
        invariants.site.kube("user").merge("/api/v1/nodes/w-1", &cordon).unwrap();
        invariants.ended(&json!({"status": {"phase": "Failed"}}), true);
    };
    assert_eq!(seen(somebody_else), Vec::<&str>::new());
}

#[test]
fn versions_that_do_not_go_together_are_seen_wherever_one_of_them_changes() {
    // A kubelet that is ahead of its API servers, as its Node says.
    let ahead = |invariants: &Invariants| {
        let info = json!({"status": {"nodeInfo": {"kubeletVersion": "v1.35.0"}}});
        invariants.site.kube("kubelet/w-1").merge("/api/v1/nodes/w-1/status", &info).unwrap();
    };
    assert_eq!(seen(ahead), ["I8"]);
    let turned = |nodes: &'static [(&'static str, u32)]| {
        move |invariants: &Invariants| {
            for (node, minor) in nodes {
                let version = KubeVersion::new(1, *minor, 0);
                invariants.site.control_plane.api_server_serves(node, version, Timestamp::UNIX_EPOCH);
                invariants.site.api.serves(invariants.site.control_plane.oldest().unwrap());
            }
        }
    };
    assert_eq!(seen(turned(&[("cp-1", 34), ("cp-2", 34)])), Vec::<&str>::new());
    assert_eq!(seen(turned(&[("cp-1", 35)])), ["I8"], "two minors from the others");
    let behind = seen(turned(&[("cp-1", 34), ("cp-2", 34), ("cp-3", 34), ("cp-1", 35), ("cp-2", 35), ("cp-3", 35)]));
    assert_eq!(behind, Vec::<&str>::new(), "kubelets of 1.33");
    let proxy = |version: &'static str| {
        move |invariants: &Invariants| {
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "kube-proxy-x", "namespace": "kube-system"},
                "spec": {"nodeName": "w-1", "containers": [{
                    "name": "kube-proxy", "image": format!("registry.k8s.io/kube-proxy:{version}"),
                }]},
            });
            let path = "/api/v1/namespaces/kube-system/pods";
            invariants.site.kube("kube-controller-manager").create(path, &pod).unwrap();
        }
    };
    assert_eq!(seen(proxy("v1.33.4")), Vec::<&str>::new());
    assert_eq!(seen(proxy("v1.34.4")), ["I8"]);
    assert_eq!(seen(proxy("v1.29.0")), ["I8"]);
}

#[test]
fn a_program_of_ours_that_lets_a_list_be_old_is_seen() {
    let list =
        |client: &'static str, path: &'static str| seen(|invariants| drop(invariants.site.kube(client).get(path)));
    assert_eq!(list("operator.1", "/api/v1/nodes?resourceVersion=0"), ["stale-read"]);
    assert_eq!(list("agent.w-1.1", "/api/v1/nodes/w-1?resourceVersion=0"), ["stale-read"]);
    assert_eq!(list("operator.1", "/api/v1/nodes?limit=500"), Vec::<&str>::new());
    assert_eq!(list("kubelet/w-1", "/api/v1/nodes?resourceVersion=0"), Vec::<&str>::new(), "others may");
}
