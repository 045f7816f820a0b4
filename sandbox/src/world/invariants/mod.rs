//! What must hold at every write, whatever goes wrong: looked at as soon as the write is stored.
//!
//! | | holds |
//! |---|---|
//! | I1, I5 | a cursor only goes forward: no attempt less, no result taken back, none of an attempt that was over, no commit number twice; nor is the end of a run or of an update taken back, an order changed under its key, a request withdrawn, or a final answer replaced or removed |
//! | I1 | an order is given only for the attempt that is under way in its run, as recorded |
//! | I2 | nothing is begun, evicted, cordoned, ordered or let proceed once a pause or a cancel was recorded in all runs under way |
//! | I3 | no more workers in flight (cordoned by a run, or with an open order) than the update allows |
//! | I4 | at most one control-plane node with an open order |
//! | I6 | epochs of a run, of a task and of an order never get smaller |
//! | I7 | in the end no node is left cordoned by a run that Succeeded or was Cancelled; one that rests or Failed names each that it left so |
//! | I8 | no kubelet or kube-proxy newer than an API server, or more than three minors (two below 1.25) older; API servers one minor apart at most; at each write, and when an API server begins to serve |
//! | I9 | in bounded time the update is over or rests, and says so |
//! | stale-read | no program of ours lets a read or a watch be answered from an older revision than one that it has seen |
//! | I10 | no effect overlaps with itself or is repeated after its completion was recorded |

mod objects;
mod rules;

use self::rules::may_be_old;
pub(super) use self::rules::{is_said_of, says};
use super::stops::Stops;
use crate::api::{Server, Verb};
use crate::machine::Site;
use crate::machine::ledger::EffectName;
use cupcake_crds::values::{NodeRole, Phase};
use cupcake_crds::{CORDONED_BY_ANNOTATION, GROUP, NodeTask};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::cursor::Cursor;
use cupcake_engine::dag::Dag;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    /// Of a leader that was stopped, one request may land late.
    stops: Stops,
    /// Guards what was seen so far.
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// How many workers may be in flight; nothing is said about it before an upgrade is asked for.
    concurrency: Option<u32>,
    dags: BTreeMap<String, Arc<Dag>>,
    cursors: BTreeMap<String, Cursor>,
    /// How each run and each update ended that did, by UID.
    ends: BTreeMap<String, Phase>,
    epochs: BTreeMap<String, u64>,
    cordoned: BTreeMap<String, bool>,
    ordered: BTreeMap<String, bool>,
    tasks: BTreeMap<String, NodeTask>,
    /// How much was done late by lives that were stopped: by client, and what it would have violated.
    landed_late: BTreeMap<(String, &'static str), usize>,
    /// How often a drain that was over was begun again by what landed late.
    drained_late: BTreeMap<EffectName, u32>,
    /// The present second, and the requests in it.
    busy: (i64, u32),
    violations: Vec<Violation>,
}

impl Invariants {
    pub(super) fn new(site: Arc<Site>, server: Server, roles: BTreeMap<String, NodeRole>, stops: Stops) -> Self {
        Self { site, server, roles, stops, seen: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on no more workers than that may be in flight.
    pub(super) fn allow(&self, concurrency: u32) {
        self.lock().concurrency = Some(concurrency);
    }

    /// A life of the operator did something to the cluster.
    pub(super) fn acted(&self, client: &str, what: impl FnOnce() -> String) {
        let found = self.against_will(client, what);
        self.report(found.into_iter().collect());
    }

    /// What was done although all runs under way had recorded that nothing more is to be.
    fn against_will(&self, client: &str, what: impl FnOnce() -> String) -> Option<(&'static str, String)> {
        let runs = self.server.list(GROUP, "upgraderuns");
        let seen = self.lock();
        let is_open = |uid: &str| seen.cursors.contains_key(uid) && !seen.ends.contains_key(uid);
        let open: Vec<&Cursor> =
            runs.iter().filter(|run| is_open(run.uid())).filter_map(|run| seen.cursors.get(run.uid())).collect();
        let held = |cursor: &&Cursor| cursor.is_paused() || cursor.is_cancelling();
        if open.is_empty() || !open.iter().all(held) {
            return None;
        }
        drop(seen);
        let late = self.lands_late(client, "I2");
        (!late).then(|| ("I2", format!("{} by {client}, though every run was told to hold", what())))
    }

    /// Whether that is the one request that a life may still have had on its way when it was stopped; once a stop.
    fn lands_late(&self, client: &str, invariant: &'static str) -> bool {
        let stops = self.stops.of(client);
        let mut seen = self.lock();
        let landed = seen.landed_late.entry((client.to_owned(), invariant)).or_default();
        let late = *landed < stops;
        *landed += usize::from(late);
        late
    }

    /// A drain that was over was begun again by an eviction: of a pod that was there while that life led, if it was stopped then.
    pub(super) fn drained_again(&self, client: &str, drain: EffectName) {
        if self.lands_late(client, "I10") {
            *self.lock().drained_late.entry(drain).or_default() += 1;
        }
    }

    /// What was violated so far.
    pub(super) fn violations(&self) -> Vec<Violation> {
        self.lock().violations.clone()
    }

    /// A program of ours asked for something.
    pub(super) fn read(&self, client: &str, verb: Verb, query: &str) {
        if may_be_old(verb, query) {
            self.report(vec![("stale-read", format!("{client} lets a {} be old: {query}", verb.as_str()))]);
        }
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
        matches!(resource, "upgraderuns" | "nodetasks" | "nodes" | "directupdates")
    }

    /// A pod of the cluster's own was written.
    pub(super) fn pod_written(&self, name: &str) {
        let pod = self.server.get("", "pods", "kube-system", name);
        self.report(pod.and_then(|pod| self.proxy(pod.value())).into_iter().collect());
    }

    /// An API server began to serve.
    pub(super) fn api_server_turned(&self) {
        self.report(self.api_server());
    }

    /// An object was written.
    pub(super) fn written(&self, client: &str, resource: &str, name: &str) {
        let found = match resource {
            "upgraderuns" => self.run(name),
            "nodetasks" => self.task(client, name),
            "nodes" => self.node(client, name),
            "directupdates" => self.update(name),
            _ => Vec::new(),
        };
        self.report(found);
    }

    /// What must hold once the update has come to its end; `in_time` tells whether it did.
    pub(super) fn ended(&self, update: &Value, in_time: bool) {
        let phase = phase_of(update);
        let mut found = Vec::new();
        if !in_time {
            found.push(("I9", format!("no end in bounded time: {phase}")));
        }
        let records = self.site.ledger.records().into_iter();
        let late = self.lock().drained_late.clone();
        let excused = |name: &EffectName| late.get(name).copied().unwrap_or_default();
        let duplicated = records.filter(|effect| effect.duplicated > excused(&effect.name));
        found.extend(duplicated.map(|effect| ("I10", format!("done twice: {:?}", effect.name))));
        if matches!(phase, "RequiresAttention" | "Failed") {
            let cordoned = |node: &Value| {
                let ours = node["metadata"]["annotations"][CORDONED_BY_ANNOTATION].is_string();
                ours && node["spec"]["unschedulable"] == true
            };
            let nodes = self.server.list("", "nodes");
            let left = nodes.iter().filter(|node| cordoned(node.value()) && !rules::names(update, node.name()));
            let what = |node: &str| format!("{node} is still cordoned, the update is {phase} and does not say so");
            found.extend(left.map(|node| ("I7", what(node.name()))));
        }
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
}

/// The phase that an update tells, for people.
pub(super) fn phase_of(update: &Value) -> &str {
    update["status"]["phase"].as_str().unwrap_or("Pending")
}

#[cfg(test)]
mod tests;
