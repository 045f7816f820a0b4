//! Clusters and requests for this crate's own tests, and a world in which plans are walked without steps.

use crate::{Compilation, Compiled, CompiledWave, Refusal, Request, WaveOf, compile, compile_wave, wave_run};
use chrono::{DateTime, TimeDelta};
use cupcake_crds::DirectUpdateSpec;
use cupcake_crds::values::{
    ClusterSnapshot, Cordon, EtcdMember, EtcdTopology, KubeVersion, NodeRef, NodeRole, NodeSnapshot, Surroundings,
};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::cursor::Cursor;
use cupcake_engine::dag::Dag;
use cupcake_engine::decide::{Intent, Limits, Observed, decide};
use cupcake_engine::event::{AfterFailure, Event};
use cupcake_engine::names::{Reason, RunName, VertexName};
use cupcake_engine::plan::Plan;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) const NAME: &str = "to-1-34";
pub(crate) const UID: &str = "6f0d7f0e-0c3e-4a53-9b1a-2f6f5d1c9a77";

pub(crate) fn v(text: &str) -> KubeVersion {
    text.parse().unwrap()
}

pub(crate) fn start() -> Timestamp {
    DateTime::from_timestamp(1_790_000_000, 0).unwrap()
}

pub(crate) fn run() -> RunName {
    RunName::new("to-1-34-6f0d7f0e").unwrap()
}

/// A spec with these fields, defaults for the rest.
pub(crate) fn spec(fields: &Value) -> DirectUpdateSpec {
    let mut all = json!({"targetVersion": "1.34.4"});
    all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    serde_json::from_value(all).unwrap()
}

pub(crate) fn node(name: &str, role: NodeRole, kubelet: KubeVersion) -> NodeSnapshot {
    NodeSnapshot {
        node: NodeRef { name: name.to_owned(), uid: format!("uid-of-{}", &name[name.len().saturating_sub(20)..]) },
        role,
        kubelet,
        ready: true,
        cordon: Cordon::Schedulable,
        labels: BTreeMap::new(),
        taints: Vec::new(),
        managed_by: None,
        inventory: Some(serde_json::from_value(json!({})).unwrap_or_default()),
    }
}

/// `cp-1..`, `w-01..`, all at `version`.
pub(crate) fn cluster(control_planes: usize, workers: usize, version: &str) -> ClusterSnapshot {
    let version = v(version);
    let width = workers.to_string().len().max(2);
    let control_plane = (1..=control_planes).map(|n| node(&format!("cp-{n}"), NodeRole::ControlPlane, version));
    let workers = (1..=workers).map(|n| node(&format!("w-{n:0width$}"), NodeRole::Worker, version));
    let member = |n: usize| EtcdMember::voting(format!("cp-{n}"));
    let members = (1..=control_planes).map(member).collect();
    ClusterSnapshot {
        taken_at: start(),
        server: version,
        kubeadm_config: Some(version),
        kubeadm_config_api: None,
        image_repository: None,
        etcd: EtcdTopology::Stacked,
        nodes: control_plane.chain(workers).map(|node| (node.node.name.clone(), node)).collect(),
        unreadable: Vec::new(),
        known_versions: BTreeSet::new(),
        facts: BTreeMap::new(),
        surroundings: Surroundings { etcd_members: members, ..Surroundings::default() },
    }
}

pub(crate) fn compiled(spec: &DirectUpdateSpec, snapshot: &ClusterSnapshot) -> Result<Compilation<Compiled>, Refusal> {
    compile(&Request { name: NAME, uid: UID, spec }, &run(), snapshot)
}

pub(crate) fn plan_of(spec: &DirectUpdateSpec, snapshot: &ClusterSnapshot) -> Compiled {
    match compiled(spec, snapshot).unwrap() {
        Compilation::Plan(compiled) => compiled,
        Compilation::NothingToDo(nothing) => panic!("nothing to do: {}", nothing.message),
    }
}

/// The snapshot as it is when the workers' turn has come.
pub(crate) fn after_control_plane(snapshot: &ClusterSnapshot, target: KubeVersion) -> ClusterSnapshot {
    let mut snapshot = snapshot.clone();
    snapshot.server = snapshot.server.max(target);
    snapshot.kubeadm_config = Some(target);
    for node in snapshot.nodes.values_mut().filter(|node| node.role == NodeRole::ControlPlane) {
        node.kubelet = target;
    }
    snapshot
}

/// The wave of the last hop.
pub(crate) fn last(target: KubeVersion) -> WaveOf {
    WaveOf::last(target)
}

pub(crate) fn wave_of(spec: &DirectUpdateSpec, snapshot: &ClusterSnapshot) -> CompiledWave {
    let target = spec.target().unwrap();
    let wave = wave_run(&run(), target).unwrap();
    let request = Request { name: NAME, uid: UID, spec };
    match compile_wave(&request, &wave, &last(target), &after_control_plane(snapshot, target)).unwrap() {
        Compilation::Plan(wave) => wave,
        Compilation::NothingToDo(nothing) => panic!("nothing to do: {}", nothing.message),
    }
}

/// What becomes of a vertex once it was started.
#[derive(Debug, Clone)]
pub(crate) enum Fate {
    /// Succeeds after that many seconds.
    Takes(i64),
    /// Waits for that, for ever.
    Waits(Reason),
    /// Fails at once, and may be tried again.
    Fails(Reason),
    /// Fails at once for good.
    FailsForGood(Reason),
}

/// A run of a plan in a world that is a table of fates.
pub(crate) struct World {
    pub dag: Dag,
    pub cursor: Cursor,
    pub now: Timestamp,
    pub limits: Limits,
    pub intent: Intent,
    ends: BTreeMap<VertexName, Timestamp>,
}

impl World {
    pub fn new(plan: &Plan, concurrency: u32) -> Self {
        let dag = plan.expand().unwrap();
        let cursor = Cursor::new(plan.digest(), &dag, start());
        let limits = Limits { concurrency, ..Limits::default() };
        Self { dag, cursor, now: start(), limits, intent: Intent::default(), ends: BTreeMap::new() }
    }

    /// Walks on until `seconds` after the start.
    pub fn until(&mut self, seconds: i64, fate: impl Fn(&str) -> Fate) {
        let end = start() + TimeDelta::seconds(seconds);
        loop {
            let mut wake = None;
            // What happens at one moment may make other things happen at it.
            while self.round(&fate, &mut wake) {}
            let next = self.ends.values().copied().chain(wake).filter(|at| *at > self.now).min();
            match next {
                Some(next) if next <= end => self.now = next,
                Some(_) | None => break,
            }
        }
        self.now = end;
    }

    fn round(&mut self, fate: &impl Fn(&str) -> Fate, wake: &mut Option<Timestamp>) -> bool {
        let at = self.now;
        let due: Vec<VertexName> =
            self.ends.iter().filter(|(_, end)| **end <= at).map(|(vertex, _)| vertex.clone()).collect();
        for vertex in due {
            self.ends.remove(&vertex);
            let attempt = self.cursor.state(&vertex).unwrap().attempts();
            self.cursor.apply(&Event::Succeeded { vertex, attempt, output: Value::Null, at }).unwrap();
        }
        let decision = decide(&self.dag, &self.cursor, &self.intent, &Observed::default(), &self.limits, at);
        self.cursor.fold(&decision.events).unwrap();
        *wake = decision.wake_at;
        for vertex in &decision.start {
            let vertex = vertex.clone();
            let attempt = self.cursor.state(&vertex).unwrap().attempts();
            let event = match fate(vertex.as_str()) {
                Fate::Takes(seconds) => {
                    self.ends.insert(vertex, at + TimeDelta::seconds(seconds.max(1)));
                    continue;
                }
                Fate::Waits(reason) => {
                    Event::Waiting { vertex, attempt, until: at + TimeDelta::seconds(30), reason, at }
                }
                Fate::Fails(reason) => {
                    let last = attempt >= self.dag.get(&vertex).unwrap().attempts_max;
                    let again = AfterFailure::Retry(at + TimeDelta::seconds(20));
                    let next = if last { AfterFailure::Rest } else { again };
                    Event::Failed { vertex, attempt, reason, next, at }
                }
                Fate::FailsForGood(reason) => Event::Failed { vertex, attempt, reason, next: AfterFailure::Rest, at },
            };
            self.cursor.apply(&event).unwrap();
        }
        !decision.events.is_empty()
    }
}

/// How long things take on real nodes, about.
pub(crate) fn usual(vertex: &str) -> Fate {
    Fate::Takes(match vertex.rsplit('/').next().unwrap() {
        "preflight" => 3,
        "etcd-backup" => 41,
        "kubeadm-upgrade" if vertex.contains("cp-1") => 163,
        "kubeadm-upgrade" => 150,
        "addons" => 12,
        "prepare" => 6,
        "drain" => 14,
        "kubelet" => 22,
        "workers" => 1_200,
        "verify" => 2,
        word if word.starts_with("batch-") => 300,
        _ => 1,
    })
}
