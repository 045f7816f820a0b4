//! Each invariant broken once, in a world.

use super::super::{Speed, World, WorldConfig};
use super::rules::tests::{dag, run};
use super::*;
use crate::machine::ledger::EffectName;
use cupcake_crds::values::KubeVersion;
use cupcake_engine::event::Event;
use cupcake_engine::names::Reason;

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
    assert_eq!(seen(|invariants| hold(invariants, &["cp-1", "cp-2"])), ["I4"]);
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
    let evicted = |events: Vec<Event>| {
        move |invariants: &Invariants| {
            for (number, event) in (0u32..).zip(&events) {
                let mut cursor = run("new");
                cursor.fold(std::slice::from_ref(event)).unwrap();
                let name = format!("run-{number}");
                let spec = serde_json::json!({
                    "concurrency": 1, "failuresMax": 1, "operationId": "o", "targetVersion": "1.34.4",
                    "directUpdate": {"name": "u", "uid": "u"}, "plan": {"name": "plan-1", "digest": "0123456789abcdef"},
                });
                let run = serde_json::json!({
                    "apiVersion": format!("{GROUP}/{}", cupcake_crds::VERSION), "kind": "UpgradeRun",
                    "metadata": {"name": name}, "spec": spec,
                });
                let path = format!("/apis/{GROUP}/{}/upgraderuns", cupcake_crds::VERSION);
                invariants.site.kube("user").create(&path, &run).unwrap();
                let uid = invariants.server.get(GROUP, "upgraderuns", "", &name).unwrap().uid().to_owned();
                invariants.lock().cursors.insert(uid, cursor);
            }
            invariants.acted(|| "default/shop was evicted".to_owned());
        }
    };
    let pause = || Event::Paused { reason: Reason::new("Paused", "by a person"), at: Timestamp::UNIX_EPOCH };
    let cancel = || Event::CancelRequested { at: Timestamp::UNIX_EPOCH };
    let start = || Event::Started { vertex: dag().vertices()[0].name.clone(), attempt: 1, at: Timestamp::UNIX_EPOCH };
    assert_eq!(seen(evicted(vec![pause(), cancel()])), ["I2"]);
    assert_eq!(seen(evicted(vec![pause(), start()])), Vec::<&str>::new(), "one run has not heard of it yet");
    assert_eq!(seen(evicted(vec![])), Vec::<&str>::new(), "nothing was asked to hold");
    let epochs = |invariants: &Invariants| {
        let mut found = Vec::new();
        for epoch in [3, 4, 2] {
            invariants.epoch(&mut found, "run", "uid", epoch);
        }
        invariants.report(found);
    };
    assert_eq!(seen(epochs), ["I6"]);
    let cordoned = |invariants: &Invariants| {
        invariants.lock().cordoned.insert("w-1".to_owned(), true);
    };
    assert_eq!(seen(|invariants| (cordoned(invariants), invariants.ended("Succeeded", true)).1), ["I7"]);
    assert_eq!(seen(|invariants| (cordoned(invariants), invariants.ended("Failed", true)).1), Vec::<&str>::new());
    assert_eq!(seen(|invariants| invariants.ended("InProgress", false)), ["I9"]);
    let twice = |invariants: &Invariants| {
        let effect = EffectName { node: "w-1".to_owned(), kind: EffectKind::Kubeadm, what: "node".to_owned() };
        invariants.site.ledger.begun(&effect);
        invariants.site.ledger.begun(&effect);
        invariants.ended("Succeeded", true);
    };
    assert_eq!(seen(twice), ["I10"]);
    // A kubelet that is ahead of its API servers, as its Node says.
    let ahead = |invariants: &Invariants| {
        let info = serde_json::json!({"status": {"nodeInfo": {"kubeletVersion": "v1.35.0"}}});
        invariants.site.kube("kubelet/w-1").merge("/api/v1/nodes/w-1/status", &info).unwrap();
    };
    assert_eq!(seen(ahead), ["I8"]);
}
