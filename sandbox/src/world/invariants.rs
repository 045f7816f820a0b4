//! What must hold at every write, whatever goes wrong: looked at as soon as the write is stored.
//!
//! | | holds |
//! |---|---|
//! | I1, I5 | a cursor only goes forward: no attempt less, no result taken back, no commit number twice; nor is the end of a run taken back, an order changed under its key, a request withdrawn, or a final answer replaced or removed |
//! | I1 | an order is given only for the attempt that is under way in its run, as recorded |
//! | I2 | nothing is begun, evicted, cordoned, ordered or let proceed once a pause or a cancel was recorded in all runs under way |
//! | I3 | no more workers in flight (cordoned by a run, or with an open order) than the update allows |
//! | I4 | at most one control-plane node with an open order |
//! | I6 | epochs of a run, of a task and of an order never get smaller |
//! | I7 | in the end no node is left cordoned by a run that Succeeded or was Cancelled |
//! | I8 | no kubelet newer than an API server, or more than three minors (two below 1.25) older |
//! | I9 | in bounded time the update is over or rests, and says so |
//! | I10 | no effect overlaps with itself or is repeated after its completion was recorded |

use crate::api::Server;
use crate::machine::Site;
use crate::machine::fault::{FaultPlan, Wrong};
use crate::machine::ledger::{EffectKind, EffectRecord};
use cupcake_crds::node_task::{NodeTaskStatus, Order, TaskState};
use cupcake_crds::values::{KubeVersion, NodeRole, OrderKey, Phase};
use cupcake_crds::{GROUP, NodeTask, UpgradePlan, UpgradeRun};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::cursor::{Cursor, VertexState};
use cupcake_engine::dag::Dag;
use cupcake_engine::names::VertexName;
use cupcake_engine::plan::Plan;
use cupcake_operator::adapters::kube_store::cursor_of;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Kubelets may be this many minors older than an API server (version skew policy, Kubernetes 1.28 and newer).
const MINORS_BEHIND_MAX: i64 = 3;
/// Violations of one world that are kept.
const VIOLATIONS_MAX: usize = 20;

/// Requests of one virtual second, at most: many times as many as a small cluster has in its busiest. More come only from
/// somebody who asks again and again without a wait, and then time never goes on.
const REQUESTS_IN_A_SECOND_MAX: u32 = 10_000;

/// Something that must never be, and was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Violation {
    /// Which invariant.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
    /// When.
    pub at: Timestamp,
}

/// Looks at every write of one world.
pub(super) struct Invariants {
    site: Arc<Site>,
    server: Server,
    roles: BTreeMap<String, NodeRole>,
    /// What went wrong so far: of a leader that was stopped, one request may land late.
    faults: FaultPlan,
    /// Guards what was seen so far.
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// How many workers may be in flight; nothing is said about it before an upgrade is asked for.
    concurrency: Option<u32>,
    dags: BTreeMap<String, Arc<Dag>>,
    cursors: BTreeMap<String, Cursor>,
    /// How each run ended that did, by UID.
    ends: BTreeMap<String, Phase>,
    epochs: BTreeMap<String, u64>,
    cordoned: BTreeMap<String, bool>,
    ordered: BTreeMap<String, bool>,
    tasks: BTreeMap<String, NodeTask>,
    /// How much was done late by leaders that were stopped.
    landed_late: usize,
    /// The present second, and the requests in it.
    busy: (i64, u32),
    violations: Vec<Violation>,
}

impl Invariants {
    pub(super) fn new(site: Arc<Site>, server: Server, roles: BTreeMap<String, NodeRole>, faults: FaultPlan) -> Self {
        Self { site, server, roles, faults, seen: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on no more workers than that may be in flight.
    pub(super) fn allow(&self, concurrency: u32) {
        self.lock().concurrency = Some(concurrency);
    }

    /// The operator did something to the cluster.
    pub(super) fn acted(&self, what: impl FnOnce() -> String) {
        let found = self.against_will(what);
        self.report(found.into_iter().collect());
    }

    /// What was done although all runs under way had recorded that nothing more is to be.
    fn against_will(&self, what: impl FnOnce() -> String) -> Option<(&'static str, String)> {
        let runs = self.server.list(GROUP, "upgraderuns");
        let mut seen = self.lock();
        let is_open = |uid: &str| seen.cursors.contains_key(uid) && !seen.ends.contains_key(uid);
        let open: Vec<&Cursor> =
            runs.iter().filter(|run| is_open(run.uid())).filter_map(|run| seen.cursors.get(run.uid())).collect();
        let held = |cursor: &&Cursor| cursor.is_paused() || cursor.is_cancelling();
        if open.is_empty() || !open.iter().all(held) {
            return None;
        }
        // Of each leader that was stopped, one request may land late.
        if seen.landed_late < self.stopped_leaders() {
            seen.landed_late += 1;
            return None;
        }
        Some(("I2", format!("{}, though every run was told to hold", what())))
    }

    /// How many leaders were stopped with a request on its way.
    fn stopped_leaders(&self) -> usize {
        let happened = self.faults.happened();
        happened.iter().filter(|fault| fault.wrong == Wrong::Stopped && fault.stream.is_the_operators()).count()
    }

    /// What was violated so far.
    pub(super) fn violations(&self) -> Vec<Violation> {
        self.lock().violations.clone()
    }

    /// A request was answered; whether time has stopped because of too many of them, which is told once.
    pub(super) fn asked(&self, at: Timestamp) -> bool {
        let second = at.timestamp();
        let mut seen = self.lock();
        seen.busy = if seen.busy.0 == second { (second, seen.busy.1.saturating_add(1)) } else { (second, 1) };
        let stopped = seen.busy.1 == REQUESTS_IN_A_SECOND_MAX;
        drop(seen);
        if stopped {
            self.report(vec![(
                "I9",
                format!("{REQUESTS_IN_A_SECOND_MAX} requests in one second: somebody never waits"),
            )]);
        }
        stopped
    }

    /// Whether [`asked`](Self::asked) has told so.
    pub(super) fn time_has_stopped(&self) -> bool {
        self.lock().busy.1 >= REQUESTS_IN_A_SECOND_MAX
    }

    /// Whether a write of that resource may break one of them.
    pub(super) fn look_at(resource: &str) -> bool {
        matches!(resource, "upgraderuns" | "nodetasks" | "nodes")
    }

    /// An object was written.
    pub(super) fn written(&self, resource: &str, name: &str) {
        let found = match resource {
            "upgraderuns" => self.run(name),
            "nodetasks" => self.task(name),
            "nodes" => self.node(name),
            _ => Vec::new(),
        };
        self.report(found);
    }

    /// What must hold once the update has come to its end; `in_time` tells whether it did.
    pub(super) fn ended(&self, phase: &str, in_time: bool) {
        let mut found = Vec::new();
        if !in_time {
            found.push(("I9", format!("no end in bounded time: {phase}")));
        }
        // One eviction of a leader that was stopped may land when the drain is over: of a pod that was there while it led.
        let mut late = self.stopped_leaders();
        let is_excused = |effect: &EffectRecord, late: &mut usize| {
            let times = usize::try_from(effect.duplicated).unwrap_or(usize::MAX);
            let excused = effect.name.kind == EffectKind::Drain && times <= *late;
            if excused {
                *late -= times;
            }
            excused
        };
        let duplicated = self.site.ledger.records().into_iter().filter(|effect| effect.duplicated > 0);
        let duplicated = duplicated.filter(|effect| !is_excused(effect, &mut late));
        found.extend(duplicated.map(|effect| ("I10", format!("done twice: {:?}", effect.name))));
        if matches!(phase, "Succeeded" | "Cancelled") {
            let seen = self.lock();
            let left = seen.cordoned.iter().filter(|(_, cordoned)| **cordoned);
            found.extend(left.map(|(node, _)| ("I7", format!("{node} is still cordoned, the update is {phase}"))));
        }
        self.report(found);
    }

    /// The update says that it succeeded: what its user would see is at the target.
    pub(super) fn behind(&self, what: &[String]) {
        self.report(what.iter().map(|what| ("I9", format!("Succeeded, and {what}"))).collect());
    }

    /// A component panicked.
    pub(super) fn panicked(&self, text: &str) {
        self.report(vec![("panic", text.to_owned())]);
    }

    /// The update rests or failed, and nothing that happened to it needs a person.
    pub(super) fn rests_without_cause(&self, phase: &str, message: &str) {
        self.report(vec![("I9", format!("{phase}, and nothing that happened needs a person: {message}"))]);
    }

    fn report(&self, found: Vec<(&'static str, String)>) {
        let at = self.site.now();
        let mut seen = self.lock();
        for (invariant, what) in found {
            if seen.violations.len() < VIOLATIONS_MAX {
                seen.violations.push(Violation { invariant, what, at });
            }
        }
    }

    fn object<K: DeserializeOwned>(&self, plural: &str, name: &str) -> Option<K> {
        K::deserialize(self.server.get(GROUP, plural, "", name)?.value()).ok()
    }

    fn run(&self, name: &str) -> Vec<(&'static str, String)> {
        let Some(run) = self.object::<UpgradeRun>("upgraderuns", name) else {
            return Vec::new();
        };
        let uid = run.metadata.uid.clone().unwrap_or_default();
        let mut found = Vec::new();
        let epoch = run.status.as_ref().and_then(|status| status.epoch).unwrap_or_default();
        self.epoch(&mut found, name, &uid, epoch);
        self.end(&mut found, name, &uid, run.status.as_ref().and_then(|status| status.phase));
        let Some(dag) = self.dag(&run.spec.plan.name) else {
            return found;
        };
        let Ok(cursor) = cursor_of(&run, &dag) else {
            found.push(("I5", format!("the cursor of {name} cannot be read")));
            return found;
        };
        let before = self.lock().cursors.insert(uid, cursor.clone());
        if let Some(before) = before {
            found.extend(went_back(&dag, &before, &cursor).map(|what| ("I5", format!("{name}: {what}"))));
            found.extend(begun_against_will(&dag, &before, &cursor).map(|what| ("I2", format!("{name}: {what}"))));
        }
        found
    }

    fn dag(&self, plan: &str) -> Option<Arc<Dag>> {
        if let Some(dag) = self.lock().dags.get(plan) {
            return Some(Arc::clone(dag));
        }
        let object: UpgradePlan = self.object("upgradeplans", plan)?;
        let dag = Arc::new(serde_json::from_value::<Plan>(object.spec.plan).ok()?.expand().ok()?);
        self.lock().dags.insert(plan.to_owned(), Arc::clone(&dag));
        Some(dag)
    }

    fn epoch(&self, found: &mut Vec<(&'static str, String)>, name: &str, uid: &str, epoch: u64) {
        let before = self.lock().epochs.insert(uid.to_owned(), epoch).unwrap_or_default();
        if epoch < before {
            found.push(("I6", format!("the epoch of {name} went from {before} back to {epoch}")));
        }
    }

    fn end(&self, found: &mut Vec<(&'static str, String)>, name: &str, uid: &str, phase: Option<Phase>) {
        let mut seen = self.lock();
        if let Some(before) = seen.ends.get(uid).filter(|before| phase != Some(**before)) {
            found.push(("I5", format!("{name} went from {before:?} to {phase:?}")));
        }
        match phase.filter(|phase| phase.is_final()) {
            Some(phase) => seen.ends.insert(uid.to_owned(), phase),
            None => seen.ends.remove(uid),
        };
    }

    fn task(&self, name: &str) -> Vec<(&'static str, String)> {
        let task = self.object::<NodeTask>("nodetasks", name);
        let mut found = Vec::new();
        if let Some(task) = &task {
            let uid = task.metadata.uid.as_deref().unwrap_or_default();
            self.epoch(&mut found, name, uid, task.spec.epoch);
            if let Some(order) = &task.spec.order {
                self.epoch(&mut found, &format!("the order of {name}"), &format!("{uid}/order"), order.epoch);
            }
        }
        self.lock().ordered.insert(name.to_owned(), task.as_ref().is_some_and(has_open_order));
        if let Some(task) = task {
            let before = self.lock().tasks.insert(task.metadata.uid.clone().unwrap_or_default(), task.clone());
            let lost = before.as_ref().and_then(|before| taken_back(before, &task));
            found.extend(lost.map(|what| ("I5", format!("the task of {name}: {what}"))));
            let was = before.as_ref().and_then(|before| before.spec.order.as_ref()).map(|order| &order.key);
            if let Some(what) = asked_for(before.as_ref(), &task) {
                found.extend(self.against_will(|| format!("{name} was {what}")));
            }
            let new = task.spec.order.as_ref().map(|order| &order.key).filter(|key| Some(*key) != was);
            let unrecorded = new.filter(|key| !is_recorded(&self.lock().cursors, key));
            found.extend(
                unrecorded.map(|key| ("I1", format!("{name} is ordered {key}, which its run does not know of"))),
            );
        }
        found.extend(self.in_flight());
        found
    }

    fn node(&self, name: &str) -> Vec<(&'static str, String)> {
        let node = self.server.get("", "nodes", "", name);
        let node = node.as_ref().map_or(&Value::Null, |node| node.value());
        // Nobody else cordons here, whatever the annotation says.
        let cordoned = node["spec"]["unschedulable"] == Value::Bool(true);
        let was = self.lock().cordoned.insert(name.to_owned(), cordoned).unwrap_or_default();
        let mut found: Vec<_> = self.in_flight().collect();
        if cordoned && !was {
            found.extend(self.against_will(|| format!("{name} was cordoned")));
        }
        let kubelet = node["status"]["nodeInfo"]["kubeletVersion"].as_str().and_then(|version| version.parse().ok());
        if let (Some(kubelet), Some((oldest, newest))) = (kubelet, self.site.control_plane.versions()) {
            found.extend(skewed(name, kubelet, oldest, newest).map(|what| ("I8", what)));
        }
        found
    }

    /// Too many at once. A task that the garbage collector removed with its Node is not seen to go: whoever is too many is looked
    /// at once more.
    fn in_flight(&self) -> impl Iterator<Item = (&'static str, String)> + use<> {
        let found: Vec<_> = self.held().collect();
        if found.is_empty() {
            return found.into_iter();
        }
        let exists = |node: &String| self.server.get(GROUP, "nodetasks", "", node).is_some();
        self.lock().ordered.retain(|node, _| exists(node));
        self.held().collect::<Vec<_>>().into_iter()
    }

    fn held(&self) -> impl Iterator<Item = (&'static str, String)> + use<> {
        let seen = self.lock();
        let role = |node: &String| self.roles.get(node).copied();
        let open = |wanted: NodeRole| {
            let nodes = self.roles.keys().filter(|node| role(node) == Some(wanted));
            let held = |flags: &BTreeMap<String, bool>, node: &String| flags.get(node).copied().unwrap_or_default();
            let cordon_counts = wanted == NodeRole::Worker;
            nodes
                .filter(|node| held(&seen.ordered, node) || (cordon_counts && held(&seen.cordoned, node)))
                .cloned()
                .collect::<Vec<String>>()
        };
        let (workers, control_planes) = (open(NodeRole::Worker), open(NodeRole::ControlPlane));
        let too_many = seen.concurrency.is_some_and(|allowed| workers.len() > allowed as usize);
        let workers = too_many.then(|| ("I3", format!("in flight at once: {}", workers.join(", "))));
        let control_planes = (control_planes.len() > 1)
            .then(|| ("I4", format!("control-plane nodes at work at once: {}", control_planes.join(", "))));
        workers.into_iter().chain(control_planes)
    }
}

/// Whether somebody may still be at work for it, or begin to.
fn has_open_order(task: &NodeTask) -> bool {
    task.spec.order.as_ref().is_some_and(|order| task.answer().map_or(!order.stop, |state| !state.is_final()))
}

/// Whether that attempt is under way in its run, as last committed.
fn is_recorded(cursors: &BTreeMap<String, Cursor>, key: &OrderKey) -> bool {
    let state = cursors.get(&key.run_uid).and_then(|cursor| cursor.state(&VertexName::new(&key.vertex).ok()?));
    match state {
        Some(VertexState::Started { attempt, .. } | VertexState::Waiting { attempt, .. }) => attempt == key.attempt,
        Some(
            VertexState::Pending { .. }
            | VertexState::BackingOff { .. }
            | VertexState::Succeeded { .. }
            | VertexState::Skipped { .. }
            | VertexState::Failed { .. },
        )
        | None => false,
    }
}

/// What a write of a task asks its machine to do that it was not asked before.
fn asked_for(before: Option<&NodeTask>, after: &NodeTask) -> Option<&'static str> {
    let is = after.spec.order.as_ref()?;
    match before.and_then(|before| before.spec.order.as_ref()).filter(|was| was.key == is.key) {
        None => Some("given an order"),
        Some(was) => (is.proceed && !was.proceed).then_some("told to proceed"),
    }
}

/// What a task took back: what its order asked for, or what was answered.
fn taken_back(before: &NodeTask, after: &NodeTask) -> Option<String> {
    if let (Some(was), Some(is)) = (&before.spec.order, &after.spec.order)
        && was.key == is.key
    {
        let asked = Order { proceed: is.proceed, stop: is.stop, epoch: is.epoch, ..was.clone() };
        if asked != *is {
            return Some("its order asks for something else under the same key".to_owned());
        }
        if (was.proceed && !is.proceed) || (was.stop && !is.stop) {
            return Some("proceed or stop of its order was withdrawn".to_owned());
        }
    }
    let was = before.status.as_ref()?;
    let removed = NodeTaskStatus::default();
    let is = after.status.as_ref().unwrap_or(&removed);
    let order = after.spec.order.as_ref().map(|order| &order.key);
    if was.key != is.key && (is.key.is_none() || is.key.as_ref() != order) {
        return Some("its answer was removed, or replaced by one to another order".to_owned());
    }
    let (was, is) = if was.key == is.key { (was.state?, is.state) } else { return None };
    let stays = !was.is_final() && is != Some(TaskState::Claimed);
    (is != Some(was) && !stays).then(|| format!("its answer went from {} to {is:?}", was.as_str()))
}

/// What a cursor took back.
fn went_back(dag: &Dag, before: &Cursor, after: &Cursor) -> Option<String> {
    if after.commit_id() < before.commit_id() || (after.commit_id() == before.commit_id() && after != before) {
        return Some(format!("commit {:?} after {:?}", after.commit_id(), before.commit_id()));
    }
    dag.vertices().iter().find_map(|vertex| {
        let (was, is) = (before.state(&vertex.name)?, after.state(&vertex.name)?);
        let undone = matches!(was, VertexState::Succeeded { .. }) && is != was;
        (undone || is.attempts() < was.attempts()).then(|| format!("{} went from {was:?} to {is:?}", vertex.name))
    })
}

/// A vertex that began although a pause or a cancel was acknowledged before. Guards (they give nodes back) may.
fn begun_against_will(dag: &Dag, before: &Cursor, after: &Cursor) -> Option<String> {
    let paused = before.is_paused() && after.is_paused();
    if !paused && !before.is_cancelling() {
        return None;
    }
    let begun = |cursor: &Cursor, name: &VertexName| cursor.state(name).map_or(0, |state| state.attempts());
    let against = dag.vertices().iter().filter(|vertex| vertex.guard.is_none());
    let name = against.map(|vertex| &vertex.name).find(|name| begun(after, name) > begun(before, name))?;
    Some(format!("{name} began after the {} was acknowledged", if paused { "pause" } else { "cancel" }))
}

fn skewed(node: &str, kubelet: KubeVersion, oldest: KubeVersion, newest: KubeVersion) -> Option<String> {
    let behind = i64::from(newest.minor()) - i64::from(kubelet.minor());
    let behind_max = if kubelet.minor() < 25 { MINORS_BEHIND_MAX - 1 } else { MINORS_BEHIND_MAX };
    let newer = kubelet.minor_version() > oldest.minor_version();
    (newer || behind > behind_max)
        .then(|| format!("the kubelet of {node} is {kubelet}, the API servers {oldest} to {newest}"))
}

#[cfg(test)]
mod tests {
    use super::super::{Speed, World, WorldConfig};
    use super::*;
    use crate::machine::ledger::EffectName;
    use cupcake_engine::event::Event;
    use cupcake_engine::names::Reason;

    fn run(name: &str) -> Cursor {
        let dag = dag();
        let mut cursor = Cursor::new("digest", &dag, Timestamp::UNIX_EPOCH);
        let vertex = dag.vertices()[0].name.clone();
        let at = Timestamp::UNIX_EPOCH;
        let started = Event::Started { vertex: vertex.clone(), attempt: 1, at };
        let done = Event::Succeeded { vertex, attempt: 1, output: Value::Null, at };
        let events = match name {
            "new" => vec![],
            "started" => vec![started],
            _ => vec![started, done],
        };
        cursor.fold(&events).unwrap();
        cursor
    }

    fn dag() -> Dag {
        let plan = serde_json::json!({
            "format": 1, "compiler": "test", "parts": [{"vertex": {
                "name": "a", "kind": "noop/v1", "params": {}, "after": [], "attemptsMax": 1, "deadlineSeconds": 60,
            }}],
        });
        serde_json::from_value::<Plan>(plan).unwrap().expand().unwrap()
    }

    #[test]
    fn a_cursor_that_takes_a_result_or_an_attempt_back_is_seen() {
        let (dag, new, started, done) = (dag(), run("new"), run("started"), run("done"));
        assert!(went_back(&dag, &new, &new).is_none());
        for (before, after) in [(&started, &new), (&done, &started), (&done, &new)] {
            assert!(went_back(&dag, before, after).is_some(), "{before:?} -> {after:?}");
        }
    }

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
        let start =
            || Event::Started { vertex: dag().vertices()[0].name.clone(), attempt: 1, at: Timestamp::UNIX_EPOCH };
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

    #[test]
    fn a_vertex_that_begins_after_a_pause_or_a_cancel_was_acknowledged_is_seen() {
        let dag = dag();
        let at = Timestamp::UNIX_EPOCH;
        let against = |events: &[Event]| {
            let mut before = run("new");
            before.fold(events).unwrap();
            let mut after = before.clone();
            after.fold(&[Event::Started { vertex: dag.vertices()[0].name.clone(), attempt: 1, at }]).unwrap();
            begun_against_will(&dag, &before, &after)
        };
        let paused = Event::Paused { reason: Reason::new("Paused", "by a person"), at };
        assert_eq!(against(&[]), None);
        assert!(against(&[paused]).is_some());
        assert!(against(&[Event::CancelRequested { at }]).is_some());
    }

    #[test]
    fn an_order_of_an_attempt_that_its_run_does_not_know_of_is_seen() {
        let key = |vertex: &str, attempt: u32| -> OrderKey {
            serde_json::from_value(serde_json::json!({"runUid": "r", "vertex": vertex, "attempt": attempt})).unwrap()
        };
        let stored = |cursor: Cursor| BTreeMap::from([("r".to_owned(), cursor)]);
        assert!(is_recorded(&stored(run("started")), &key("a", 1)));
        assert!(!is_recorded(&stored(run("new")), &key("a", 1)), "nothing was begun");
        assert!(!is_recorded(&stored(run("started")), &key("a", 2)), "another attempt");
        assert!(!is_recorded(&stored(run("started")), &key("b", 1)), "no vertex of that plan");
        assert!(!is_recorded(&BTreeMap::new(), &key("a", 1)), "no run");
    }

    #[test]
    fn an_answer_that_is_final_stays() {
        let key = |attempt: u32| serde_json::json!({"runUid": "r", "vertex": "v", "attempt": attempt});
        let task = |ordered: u32, status: Value| -> NodeTask {
            let order = serde_json::json!({
                "key": key(ordered), "epoch": 1, "targetVersion": "1.34.4", "prepare": [], "finish": [],
                "proceed": false, "stop": false, "deadlineSeconds": 60,
            });
            serde_json::from_value(serde_json::json!({
                "apiVersion": "cupcake.ricardomolendijk.com/v1alpha1", "kind": "NodeTask",
                "metadata": {"name": "w-1"}, "status": status,
                "spec": {"nodeName": "w-1", "nodeUid": "u", "epoch": 1, "order": order},
            }))
            .unwrap()
        };
        let answer = |attempt: u32, state: &str| serde_json::json!({"key": key(attempt), "state": state});
        let done = task(1, answer(1, "Done"));
        assert_eq!(taken_back(&done, &done), None);
        assert_eq!(taken_back(&done, &task(2, answer(1, "Done"))), None, "the next order");
        assert_eq!(taken_back(&done, &task(2, answer(2, "Claimed"))), None, "and its answer");
        for lost in
            [Value::Null, serde_json::json!({}), answer(2, "Claimed"), answer(1, "Working"), answer(1, "Failed")]
        {
            assert!(taken_back(&done, &task(1, lost.clone())).is_some(), "{lost}");
        }
    }

    #[test]
    fn a_kubelet_is_neither_newer_than_an_api_server_nor_more_than_three_minors_older() {
        let between = |kubelet: &str, oldest: &str, newest: &str| {
            skewed("w-1", kubelet.parse().unwrap(), oldest.parse().unwrap(), newest.parse().unwrap())
        };
        let skewed = |kubelet: &str, server: &str| between(kubelet, server, server);
        assert!(between("1.31.0", "1.34.0", "1.35.0").is_some(), "the newest counts");
        assert!(skewed("1.24.0", "1.27.0").is_some(), "two minors only below 1.25");
        assert_eq!(skewed("1.34.4", "1.34.0"), None);
        assert_eq!(skewed("1.31.0", "1.34.0"), None);
        assert!(skewed("1.34.0", "1.33.9").is_some());
        assert!(skewed("1.30.14", "1.34.0").is_some());
    }

    #[test]
    fn an_order_that_was_asked_to_stop_before_anybody_claimed_it_is_not_open() {
        let task = |stop: bool, state: Value| -> NodeTask {
            let key = serde_json::json!({"runUid": "r", "vertex": "v", "attempt": 1});
            let order = serde_json::json!({
                "key": key, "epoch": 1, "targetVersion": "1.34.4", "prepare": [], "finish": [], "proceed": false,
                "stop": stop, "deadlineSeconds": 60,
            });
            let status = serde_json::json!({"key": key, "state": state});
            let spec = serde_json::json!({"nodeName": "w-1", "nodeUid": "u", "epoch": 1, "order": order});
            serde_json::from_value(serde_json::json!({
                "apiVersion": "cupcake.ricardomolendijk.com/v1alpha1", "kind": "NodeTask",
                "metadata": {"name": "w-1"}, "spec": spec, "status": status,
            }))
            .unwrap()
        };
        assert!(has_open_order(&task(false, Value::Null)));
        assert!(!has_open_order(&task(true, Value::Null)));
        assert!(has_open_order(&task(true, "Working".into())));
        assert!(!has_open_order(&task(false, "Done".into())));
    }
}
