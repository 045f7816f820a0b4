//! What an update in each standing is answered. Whole ones, in simulated clusters: tests/scenarios/stalls.rs.

use super::*;
use crate::testing::{Fate, World, cluster, plan_of, spec, start, usual, wave_of};
use cupcake_engine::names::Reason;
use serde_json::{Value, json};

fn update(spec: &Value, status: &Value) -> DirectUpdate {
    let mut all = json!({"targetVersion": "v1.34.4"});
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "cupcake.ricardomolendijk.com/v1", "kind": "DirectUpdate", "metadata": {"name": "to-1-34"},
        "spec": all, "status": status,
    }))
    .unwrap()
}

fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": type_, "status": status, "lastTransitionTime": start(), "reason": reason, "message": message})
}

fn run(name: &str) -> UpgradeRun {
    let run = json!({
        "apiVersion": "cupcake.ricardomolendijk.com/v1", "kind": "UpgradeRun", "metadata": {"name": name},
        "spec": {
            "concurrency": 1, "failuresMax": 1, "operationId": "op-1", "targetVersion": "1.34.4",
            "directUpdate": {"name": "to-1-34", "uid": "u"}, "plan": {"name": "p", "digest": "0123456789"},
        },
    });
    serde_json::from_value(run).unwrap()
}

/// A batch of two workers, walked on for so long.
fn batch(seconds: i64, fate: impl Fn(&str) -> Fate) -> World {
    let wave = wave_of(&spec(&json!({})), &cluster(1, 2, "1.33.4"));
    let mut world = World::new(&wave.batches[0].plan, 1);
    world.until(seconds, fate);
    world
}

fn asked(update: &DirectUpdate, world: &World) -> (Why, Vec<String>) {
    let run = run("batch");
    let view = View { dag: &world.dag, cursor: &world.cursor, now: world.now, children: &[] };
    let why = why(update, &[RunNow { run: &run, view: Some(view) }], world.now);
    let lines = why.lines(world.now);
    (why, lines)
}

fn running() -> DirectUpdate {
    update(&json!({}), &json!({"phase": "InProgress", "run": "batch", "message": "w-01/drain for 1m"}))
}

#[test]
fn a_step_that_waits_is_told_with_its_code_since_when_until_when_and_where_to_look() {
    let blocked = |vertex: &str| match vertex {
        "w-01/drain" => Fate::Waits(Reason::new("DrainBlocked", "the disruption budget shop needs 9 pods")),
        _ => usual(vertex),
    };
    let (why, lines) = asked(&running(), &batch(130, blocked));
    assert_eq!(why.holds, []);
    let [wait] = &why.waits[..] else { panic!("{lines:?}") };
    assert_eq!((wait.vertex.as_str(), wait.node.as_deref()), ("w-01/drain", Some("w-01")));
    assert_eq!((wait.standing, wait.code.as_str()), (Standing::Waits, "DrainBlocked"));
    assert!(wait.until > Some(wait.since) && wait.fails > wait.until, "{wait:?}");
    assert!(
        lines[1].contains(": DrainBlocked: the disruption budget shop needs 9 pods; looks again by 14:"),
        "{lines:?}"
    );
    assert!(lines[2].starts_with("next:  kubectl get pods") && lines[2].ends_with("spec.nodeName=w-01"), "{lines:?}");
}

#[test]
fn a_step_that_is_tried_again_says_when_and_one_that_failed_is_to_be_retried() {
    let fails = |vertex: &str| match vertex {
        "w-01/prepare" => Fate::Fails(Reason::new("DiskFull", "no room in /var/lib")),
        _ => usual(vertex),
    };
    let (why, lines) = asked(&running(), &batch(5, fails));
    let [wait] = &why.waits[..] else { panic!("{lines:?}") };
    assert_eq!((wait.standing, wait.until), (Standing::BacksOff, Some(start() + TimeDelta::seconds(20))));
    assert!(
        lines[1].contains("w-01/prepare failed, attempt 1/") && lines[1].contains("again at 14:13:40"),
        "{lines:?}"
    );
    assert_eq!(lines[2], "next:  kubectl cupcake watch to-1-34", "it goes on by itself");
    let conditions = [condition("Stalled", "True", "DiskFull", "w-01/prepare failed")];
    let rests = update(&json!({}), &json!({"phase": "RequiresAttention", "run": "batch", "conditions": conditions}));
    let (why, lines) = asked(&rests, &batch(9_000, fails));
    assert_eq!((why.holds[0].by, why.holds[0].code.as_str()), (HeldBy::Failure, "DiskFull"));
    assert_eq!(lines.last().unwrap(), "next:  kubectl cupcake retry to-1-34 w-01");
}

#[test]
fn no_retry_is_advised_where_a_node_is_gone() {
    let gone = |vertex: &str| match vertex {
        "w-01/prepare" => Fate::Fails(Reason::new("NodeGone", "node w-01 of this plan is gone")),
        _ => usual(vertex),
    };
    let conditions = [condition("Stalled", "True", "NodeGone", "node w-01 of this plan is gone")];
    let rests = update(&json!({}), &json!({"phase": "RequiresAttention", "run": "batch", "conditions": conditions}));
    let (_, lines) = asked(&rests, &batch(9_000, gone));
    assert_eq!(lines.last().unwrap(), "next:  kubectl cupcake cancel to-1-34");
}

#[test]
fn a_worker_that_is_not_ready_and_holds_a_start_is_to_be_left_out_and_then_the_start_is_tried_again() {
    let reason = "workers not Ready: w-01; nothing is started until they are, or are left out (kubectl cupcake skip)";
    let preflight = |vertex: &str| match vertex {
        "1.34.4/preflight" => Fate::Waits(Reason::new("NodeNotReady", reason)),
        _ => usual(vertex),
    };
    let root = |seconds| {
        let mut world = World::new(&plan_of(&spec(&json!({})), &cluster(1, 2, "1.33.4")).plan, 1);
        world.until(seconds, preflight);
        world
    };
    assert_eq!(asked(&running(), &root(60)).0.next, "kubectl cupcake skip to-1-34 w-01");
    let conditions = [condition("Stalled", "True", "DeadlineExceeded", "1.34.4/preflight failed")];
    let status = json!({"phase": "RequiresAttention", "run": "batch", "conditions": conditions});
    assert_eq!(asked(&update(&json!({}), &status), &root(1_000)).0.next, "kubectl cupcake skip to-1-34 w-01");
    let left_out = json!({"control": {"skip": [{"requestId": "s", "vertex": "w-01"}]}});
    assert_eq!(
        asked(&update(&left_out, &status), &root(1_000)).0.next,
        "kubectl cupcake retry to-1-34 1.34.4/preflight"
    );
}

#[test]
fn whatever_holds_the_whole_is_told_first_with_the_command_that_ends_it() {
    let idle = batch(0, |_| Fate::Takes(100));
    let status = |phase: &str, conditions: &[Value]| json!({"phase": phase, "run": "batch", "conditions": conditions});
    let pending = |conditions: &[Value]| json!({"phase": "Pending", "conditions": conditions});
    let closed = json!({"maintenanceWindow": {"start": "22:00", "end": "04:00"}});
    let waits = "waits for DirectUpdate to-1-33: one update owns the cluster at a time";
    for (spec, status, by, next) in [
        (
            json!({}),
            json!({}),
            HeldBy::Nobody,
            "kubectl get pods --all-namespaces --selector app.kubernetes.io/name=cupcake-operator",
        ),
        (
            json!({}),
            pending(&[condition("Stalled", "True", "Downgrade", "1.34.4 is older")]),
            HeldBy::Refusal,
            "kubectl get directupdate to-1-34 --output yaml | kubectl cupcake preflight --filename -",
        ),
        (
            json!({}),
            pending(&[condition("Reconciling", "True", "WaitingForCluster", waits)]),
            HeldBy::AnotherUpdate,
            "kubectl cupcake why to-1-33",
        ),
        (
            closed.clone(),
            pending(&[condition("Reconciling", "True", OUTSIDE, "outside spec.maintenanceWindow")]),
            HeldBy::Window,
            "kubectl cupcake watch to-1-34",
        ),
        (
            json!({}),
            pending(&[condition("Reconciling", "True", "AgentAbsent", "asked what they are: w-1")]),
            HeldBy::Operator,
            "kubectl get pods --all-namespaces --selector app.kubernetes.io/component=agent --output wide",
        ),
        (closed, status("InProgress", &[]), HeldBy::Window, "kubectl cupcake watch to-1-34"),
        (
            json!({}),
            status("InProgress", &[condition("Paused", "True", "Paused", "CHG-4711")]),
            HeldBy::Pause,
            "kubectl cupcake resume to-1-34",
        ),
        (
            json!({"control": {"pause": {"requestId": "p"}}}),
            status("InProgress", &[]),
            HeldBy::Pause,
            "kubectl cupcake resume to-1-34",
        ),
        (
            json!({}),
            status("RequiresAttention", &[condition("TimedOut", "True", "OperationTimedOut", "2h")]),
            HeldBy::TimeOut,
            "kubectl cupcake resume to-1-34",
        ),
        (
            json!({}),
            status("RequiresAttention", &[condition("Stalled", "True", "ControlPlaneJoined", "cp-2 (1.33.4) is new")]),
            HeldBy::Failure,
            "kubectl cupcake cancel to-1-34",
        ),
    ] {
        let (why, lines) = asked(&update(&spec, &status), &idle);
        assert_eq!(why.holds.iter().map(|hold| hold.by).collect::<Vec<_>>(), [by], "{lines:?}");
        assert_eq!(why.next, next, "{lines:?}");
        assert_eq!(why.holds[0].until.is_some(), by == HeldBy::Window, "{lines:?}");
        assert_eq!(lines.last().unwrap(), &format!("next:  {next}"));
    }
}

/// The code of a window that is closed.
const OUTSIDE: &str = crate::schedule::OUTSIDE_WINDOW;

#[test]
fn a_gate_is_approved_by_its_name() {
    let spec = spec(&json!({"approvals": ["BeforeControlPlane"]}));
    let mut world = World::new(&plan_of(&spec, &cluster(1, 1, "1.33.4")).plan, 1);
    world.until(60, |vertex| match vertex {
        "1.34.4/control-plane-gate" => Fate::Waits(Reason::new("WaitingForApproval", "waits until somebody approves")),
        _ => usual(vertex),
    });
    let conditions = [condition("Approved", "False", "WaitingForApproval", "waits")];
    let update = update(&json!({}), &json!({"phase": "InProgress", "run": "batch", "conditions": conditions}));
    let (why, _) = asked(&update, &world);
    assert_eq!(why.holds[0].by, HeldBy::Approval);
    assert_eq!(why.next, "kubectl cupcake approve to-1-34 1.34.4/control-plane-gate --comment TEXT");
}

fn why_of_nothing() -> Why {
    why(&running(), &[], start())
}

#[test]
fn what_goes_on_is_held_by_nothing_and_what_is_over_says_how_it_ended() {
    let (why, lines) = asked(&running(), &batch(3, |_| Fate::Takes(100)));
    assert_eq!((why.holds.len(), why.waits.len(), why.at_work.len()), (0, 0, 1));
    assert_eq!(lines[1], "batch: w-01/prepare is at work for 3s");
    let idle = why_of_nothing();
    assert_eq!(idle.lines(start())[1], "nothing holds it: w-01/drain for 1m");
    let over = update(&json!({}), &json!({"phase": "Succeeded", "run": "batch", "message": "all done"}));
    let (why, lines) = asked(&over, &batch(3, |_| Fate::Takes(100)));
    assert_eq!((why.waits.len(), lines[1].as_str()), (0, "it is over: all done"));
    assert_eq!(why.next, "kubectl cupcake status to-1-34");
    let shown = serde_json::to_value(&why).unwrap();
    assert_eq!((&shown["targetVersion"], &shown["phase"]), (&json!("1.34.4"), &json!("Succeeded")));
}
