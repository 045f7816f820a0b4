//! A whole simulated cluster: the API, the machines, the cluster's own controllers, and the real operator, agents and runners.
//!
//! ```text
//!   World ── VirtualClock ── Agenda (what happens by itself)
//!     ├── api::Server ── Ear (transcript, counts, drains, controllers)   Gate (the dead, an API that is away, crashes)
//!     ├── SimMachine per node ── Ledger (effects)
//!     └── Components: operator, an agent per node, runners under systemd: the same code as in production
//! ```
//! Five nouns: a [`WorldConfig`] says what is made; a [`World`] is it; an [`Upgrade`] is what it is asked for; a
//! [`Fault`](crate::machine::fault::Fault) is what goes wrong on purpose; an [`Outcome`] is what remains. Everything runs on
//! one thread; on paused time the same configuration gives the same transcript, to the byte.

pub mod birth;
mod clock;
mod components;
mod config;
mod credulous;
mod drains;
mod faults;
mod fences;
mod forgetful;
mod heedless;
mod invariants;
mod joins;
mod judge;
mod losses;
mod outcome;
mod pods;
mod skew;
mod stops;
mod wire;
mod workloads;

pub use clock::VirtualClock;
pub use config::{CONTROL_PLANES_MAX, OPERATORS_MAX, SPEED_WATCHED, Speed, Upgrade, WORKERS_MAX, WorldConfig};
pub use fences::{Fence, InvalidFence};
pub use invariants::Violation;
pub use outcome::{NodeOutcome, Outcome, Writes};

use crate::api::{Definitions, Options, Server};
use crate::machine::agenda::Agenda;
use crate::machine::control_plane::ControlPlane;
use crate::machine::fault::{FaultPlan, Stream};
use crate::machine::kube::{Kube, KubeApi, Refused};
use crate::machine::ledger::{EffectRecord, Ledger};
use crate::machine::releases::Repositories;
use crate::machine::transcript::Transcript;
use crate::machine::{SimMachine, Site};
use birth::{machines, populate};
use chrono::TimeDelta;
use components::Components;
use cupcake_crds::values::{KubeVersion, NodeRole};
use cupcake_crds::{GROUP, VERSION};
use cupcake_engine::clock::{Clock, Timestamp};
use cupcake_operator::metrics::Metrics;
use cupcake_operator::notify::Sink;
use cupcake_operator::traces::Spans;
use cupcake_steps::ports::measures::Measures;
use drains::Drains;
use faults::Hands;
use futures::FutureExt;
use futures::future::BoxFuture;
use invariants::Invariants;
use serde_json::{Value, json};
use skew::Skews;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use stops::Stops;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use wire::{Door, Ear, EngineWrites, Gate};
use workloads::Workloads;

/// Virtual time after which an update that has not come to rest is given up.
const VIRTUAL_DAYS_MAX: i64 = 7;

/// As [`VIRTUAL_DAYS_MAX`], in a judged world: many times as long as any update of a small cluster takes, whatever goes wrong.
const JUDGED_HOURS_MAX: i64 = 12;

/// Names of the operator's replicas: the only one of most worlds has none.
const REPLICAS: [&str; OPERATORS_MAX as usize] = ["", "b", "c", "d", "e"];

/// How long a finished world goes on, so that what was about to be written is written.
const AFTERGLOW: TimeDelta = TimeDelta::milliseconds(10);

/// A simulated cluster with everything that runs in it.
pub struct World {
    config: WorldConfig,
    server: Server,
    site: Arc<Site>,
    machines: BTreeMap<String, Arc<SimMachine>>,
    /// Guards the machines that joined later.
    joined: Mutex<Vec<Arc<SimMachine>>>,
    faults: FaultPlan,
    transcript: Transcript,
    ear: Arc<Ear>,
    components: Arc<Components>,
    /// Guards the tasks; dropping them ends everything.
    tasks: Arc<Mutex<JoinSet<()>>>,
    /// What carries out the faults that concern the world.
    _hands: Arc<Hands>,
}

/// Why a world cannot be made or asked.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// The configuration names something that cannot be.
    #[error("sandbox: {0}")]
    Config(String),
    /// The API refused what the sandbox itself asked for.
    #[error("sandbox: the API refused an object")]
    Refused(#[from] Refused),
    /// No runtime could be made.
    #[error("sandbox: no runtime")]
    Runtime(#[from] std::io::Error),
}

impl World {
    /// Makes the cluster; nothing runs until [`World::start`]. Call it inside a runtime of [`runtime`].
    ///
    /// # Errors
    /// When the configuration is out of bounds.
    pub fn new(config: WorldConfig) -> Result<Self, WorldError> {
        check(&config)?;
        let speed = match config.speed {
            Speed::Fastest => 1,
            Speed::Times(times) => times,
        };
        let clock: Arc<dyn Clock> = Arc::new(VirtualClock::starting_at(config.start, speed));
        let options = Options {
            seed: config.seed,
            version: config.from.with_v(),
            // Worlds are judged by the thousand, and no program of ours reads them.
            managed_fields: !config.judged,
            leniency: fences::leniency(&config.without),
            ..Options::default()
        };
        let server = Server::with_options(Arc::clone(&clock), options);
        let transcript = if config.keep_lines { Transcript::keeping_lines() } else { Transcript::default() };
        let ledger = Ledger::new(Arc::clone(&clock), transcript.clone());
        let mut repositories = Repositories::with(config.extra_versions.iter().copied());
        repositories.publish(config.from);
        let door = Arc::new(Door::new(server.clone()));
        let site = Arc::new(Site {
            api: Arc::clone(&door) as Arc<dyn KubeApi>,
            clock,
            agenda: Agenda::default(),
            ledger: ledger.clone(),
            repositories,
            control_plane: ControlPlane::default(),
            seed: config.seed,
            haste: 1,
        });
        let drains = Arc::new(Drains::new(ledger));
        let ear = Arc::new(Ear {
            site: Arc::clone(&site),
            server: server.clone(),
            transcript: transcript.clone(),
            engine_writes: EngineWrites::default(),
            drains: Arc::clone(&drains),
            progress: Arc::new(Notify::new()),
            workloads: RwLock::default(),
            invariants: OnceLock::new(),
            halt: OnceLock::new(),
        });
        server.observe(Arc::new(Arc::clone(&ear)));
        door.is_heard_by(&ear);
        server.define(&definitions(&config.without));
        let machines = machines(&config, &site);
        let (faults, stops) = (FaultPlan::planned(&config.faults), Stops::default());
        if config.judged {
            let roles = machines.iter().map(|(name, machine)| (name.clone(), machine.role())).collect();
            let _ = ear.invariants.set(Invariants::new(Arc::clone(&site), server.clone(), roles, stops.clone()));
        }
        let workloads = Workloads::new(Arc::clone(&site), server.clone(), machines.clone());
        *ear.workloads.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&workloads));
        populate(&config, &site, &machines)?;
        let gate = Arc::new(Gate { site: Arc::clone(&site), faults: faults.clone(), clients: Mutex::default(), stops });
        server.inject(Arc::clone(&gate) as Arc<dyn crate::api::Faults>);
        let components = Arc::new(Components {
            site: Arc::clone(&site),
            server: server.clone(),
            gate,
            faults: faults.clone(),
            drains,
            workloads,
            skews: Skews::default(),
            without: config.without.clone(),
            spans: OnceLock::new(),
            sink: OnceLock::new(),
            measures: OnceLock::new(),
            metrics: OnceLock::new(),
        });
        let tasks = Arc::<Mutex<JoinSet<()>>>::default();
        let weak = Arc::downgrade(&tasks);
        let _ = ear.halt.set(Box::new(move || {
            if let Some(tasks) = weak.upgrade() {
                tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
            }
        }));
        // The plan of faults is known to all that the hands know: it must not keep them.
        let hands = Arc::new(Hands::new(&components, &machines, spawner(&tasks, &ear)));
        let weak = Arc::downgrade(&hands);
        faults.on_world(move |wrong, place| {
            if let Some(hands) = weak.upgrade() {
                hands.carry_out(wrong, place);
            }
        });
        let joined = Mutex::default();
        Ok(Self { config, server, site, machines, joined, faults, transcript, ear, components, tasks, _hands: hands })
    }

    /// Where the operator counts, through all its lives; before [`World::start`], and in a world of one replica.
    pub fn count_in(&self, metrics: Metrics) {
        let _ = self.components.metrics.set(metrics);
    }

    /// Where the operator's spans go; before [`World::start`].
    pub fn tell_spans_to(&self, spans: Arc<dyn Spans>) {
        let _ = self.components.spans.set(spans);
    }

    /// Where the operator's notifications go; before [`World::start`].
    pub fn notify(&self, sink: Arc<dyn Sink>) {
        let _ = self.components.sink.set(sink);
    }

    /// Who measures what `spec.gates` ask for; before [`World::start`].
    pub fn measure_by(&self, measures: Arc<dyn Measures>) {
        let _ = self.components.measures.set(measures);
    }

    /// Starts the cluster, the operator and the agents.
    pub fn start(&self) {
        let program = self.components.runner_program(spawner(&self.tasks, &self.ear));
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let (agenda, clock) = (self.site.agenda.clone(), Arc::clone(&self.site.clock));
        tasks.spawn(async move { agenda.run(clock).await });
        // Each on a control-plane node of its own, as far as there are any.
        let operators = usize::try_from(self.config.operators).unwrap_or(1);
        for (replica, number) in REPLICAS.into_iter().take(operators).zip(1u32..) {
            let node = format!("cp-{}", (number - 1) % self.config.control_planes + 1);
            let operator = Box::pin(Arc::clone(&self.components).operator(replica, node));
            tasks.spawn(watched(Arc::clone(&self.ear), operator));
        }
        for machine in self.machines.values() {
            machine.install_program(Arc::clone(&program));
            let agent = Box::pin(Arc::clone(&self.components).agent(Arc::clone(machine)));
            tasks.spawn(watched(Arc::clone(&self.ear), agent));
        }
    }

    /// Applies the DirectUpdate, as a user does, and waits until it has come to its end or rests.
    ///
    /// # Errors
    /// When the API refuses the object.
    pub async fn upgrade(&self, upgrade: &Upgrade) -> Result<Outcome, WorldError> {
        let update = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "DirectUpdate",
            "metadata": {"name": upgrade.name},
            "spec": {"targetVersion": upgrade.to.to_string(), "concurrency": upgrade.concurrency},
        });
        let begun = self.now();
        if let Some(invariants) = self.ear.invariants.get() {
            invariants.allow(upgrade.concurrency.of(self.config.workers));
        }
        self.site.kube("user").create(&format!("/apis/{GROUP}/{VERSION}/directupdates"), &update)?;
        self.until_at_rest(&upgrade.name).await;
        let ended = self.now();
        self.site.clock.sleep_until(ended + AFTERGLOW).await;
        Ok(self.outcome(&upgrade.name, upgrade.to, ended - begun))
    }

    /// Waits until a DirectUpdate has come to its end, rests until a person acts, or was refused.
    pub async fn until_at_rest(&self, name: &str) {
        let longest =
            if self.config.judged { TimeDelta::hours(JUDGED_HOURS_MAX) } else { TimeDelta::days(VIRTUAL_DAYS_MAX) };
        let limit = self.now() + longest;
        let mut refused_since = None;
        loop {
            let written = self.ear.progress.notified();
            tokio::pin!(written);
            // Registered before the look, so that no write falls between the two.
            written.as_mut().enable();
            let mut look_again = limit;
            let update = self.update(name).filter(is_at_rest);
            match update.map(|update| update["status"]["phase"].as_str().is_none_or(|phase| phase == "Pending")) {
                // It was refused, and is looked at again by itself: what a fault hid for a moment is no reason to end.
                Some(true) if self.config.judged => {
                    let since = *refused_since.get_or_insert(self.now());
                    look_again = (since + TimeDelta::seconds(REFUSED_SECONDS_MAX)).min(limit);
                    if self.now() >= look_again {
                        return;
                    }
                }
                Some(_) => return,
                None => refused_since = None,
            }
            if self.ear.invariants.get().is_some_and(Invariants::time_has_stopped) {
                return;
            }
            tokio::select! {
                biased;
                () = written => {}
                () = self.site.clock.sleep_until(look_again) => if look_again == limit { return },
            }
        }
    }

    /// Resolves at the next write to a DirectUpdate or an UpgradeRun.
    pub async fn progress(&self) {
        self.ear.progress.notified().await;
    }

    fn update(&self, name: &str) -> Option<Value> {
        self.server.get(GROUP, "directupdates", "", name).map(|update| update.value().clone())
    }

    /// What remains of an upgrade that took that long.
    pub fn outcome(&self, name: &str, to: KubeVersion, took: TimeDelta) -> Outcome {
        let update = self.update(name).unwrap_or_default();
        let status = |field: &str| update["status"][field].as_str().unwrap_or_default().to_owned();
        let nodes: Vec<NodeOutcome> =
            self.server.list("", "nodes").iter().map(|node| node_outcome(node.value())).collect();
        let at_target = |name: &str| nodes.iter().any(|node| node.name == name && node.version == to.to_string());
        let workers = self.machines.values().filter(|machine| match machine.role() {
            NodeRole::Worker => at_target(machine.name()),
            NodeRole::ControlPlane => false,
        });
        let engine_writes = self.ear.engine_writes.all();
        let total: u64 = engine_writes.values().sum();
        let largest = self.server.largest_bytes();
        let size = |kind: &str| largest.get(kind).copied().unwrap_or_default();
        let phase = status("phase");
        Outcome {
            phase: if phase.is_empty() { "Pending".to_owned() } else { phase },
            message: status("message"),
            virtual_seconds: seconds(took),
            engine_writes_per_worker: share(total, workers.count()),
            engine_writes,
            duplicated_effects: self.site.ledger.duplicated(),
            reruns_after_interruption: self.site.ledger.reruns_after_interruption(),
            transcript_sha256: self.transcript.sha256(),
            largest_object_bytes: size("UpgradeRun").max(size("NodeTask")).max(size("DirectUpdate")),
            largest_plan_bytes: size("UpgradePlan"),
            kubeadm_copies: self.kubeadm_copies(),
            writes: Writes {
                operator: self.faults.counted(Stream::Operator),
                agent: self.faults.counted(Stream::Agent),
                runner: self.faults.counted(Stream::Runner),
                lease: self.faults.counted(Stream::Lease),
                operator_read: self.faults.counted(Stream::OperatorRead),
                agent_read: self.faults.counted(Stream::AgentRead),
            },
            killed: self.faults.told(),
            nodes,
        }
    }

    /// What must never be, and was; none in a world that is not judged.
    pub fn violations(&self) -> Vec<Violation> {
        self.ear.invariants.get().map_or_else(Vec::new, Invariants::violations)
    }

    /// The faults that came to pass so far.
    pub fn faults_happened(&self) -> Vec<crate::machine::fault::Fault> {
        self.faults.happened()
    }

    /// What counts the writes and carries the faults.
    pub fn faults(&self) -> &FaultPlan {
        &self.faults
    }

    /// The virtual time now.
    pub fn now(&self) -> Timestamp {
        self.site.now()
    }

    /// The clock of the world.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.site.clock)
    }

    /// The API.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The way of a person to the API.
    pub fn user(&self) -> Kube {
        self.site.kube("user")
    }

    /// A machine.
    pub fn machine(&self, name: &str) -> Option<&Arc<SimMachine>> {
        self.machines.get(name)
    }

    /// Copies of kubeadm's upgrades, as `<node>/<folder>`.
    fn kubeadm_copies(&self) -> Vec<String> {
        let of = |machine: &Arc<SimMachine>| {
            let copies = machine.kubeadm_copies().into_iter();
            copies.map(|copy| format!("{}/{copy}", machine.name())).collect::<Vec<_>>()
        };
        self.machines.values().flat_map(of).collect()
    }

    /// Sets the clock that agent and runner of a machine see: that far ahead of the right time, behind it if negative, right if zero.
    pub fn set_clock(&self, machine: &str, ahead: TimeDelta) {
        self.components.skews.set(machine, ahead);
    }

    /// All machines, by name.
    pub fn machines(&self) -> impl Iterator<Item = &Arc<SimMachine>> {
        self.machines.values()
    }

    /// Every effect so far.
    pub fn effects(&self) -> Vec<EffectRecord> {
        self.site.ledger.records()
    }

    /// The transcript so far.
    pub fn transcript(&self) -> &Transcript {
        &self.transcript
    }

    /// What it was made from.
    pub fn config(&self) -> &WorldConfig {
        &self.config
    }
}

/// The API server knows its observers and the machines their programs, and these know the world: it would outlive itself.
impl Drop for World {
    fn drop(&mut self) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        self.server.let_go();
        self.site.agenda.clear();
        for machine in self.machines.values().chain(&*self.joined.lock().unwrap_or_else(PoisonError::into_inner)) {
            machine.remove_program();
        }
        self.ear.workloads.write().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Lets a task live as long as the world does.
type Spawner = Box<dyn Fn(BoxFuture<'static, ()>) + Send + Sync>;

fn spawner(tasks: &Arc<Mutex<JoinSet<()>>>, ear: &Arc<Ear>) -> Spawner {
    let weak = Arc::downgrade(tasks);
    let ear = Arc::clone(ear);
    Box::new(move |task| {
        let task = watched(Arc::clone(&ear), task);
        if let Some(tasks) = weak.upgrade() {
            let mut tasks = tasks.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that ended make room.
            while tasks.try_join_next().is_some() {}
            tasks.spawn(task);
        }
    })
}

/// A component that panics ends as its process would, and is no schedule that went right.
async fn watched(ear: Arc<Ear>, task: BoxFuture<'static, ()>) {
    if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word");
        if let Some(invariants) = ear.invariants.get() {
            invariants.panicked(text);
        }
    }
}

/// Our definitions: made ready once for all worlds that leave no fence out.
fn definitions(without: &BTreeSet<Fence>) -> Definitions {
    static WHOLE: OnceLock<Definitions> = OnceLock::new();
    if without.is_empty() {
        return WHOLE.get_or_init(|| fences::definitions(without)).clone();
    }
    fences::definitions(without)
}

fn check(config: &WorldConfig) -> Result<(), WorldError> {
    if !(1..=CONTROL_PLANES_MAX).contains(&config.control_planes) {
        return Err(WorldError::Config(format!("a cluster has 1 to {CONTROL_PLANES_MAX} control-plane nodes")));
    }
    if config.workers > WORKERS_MAX {
        return Err(WorldError::Config(format!("a sandbox has at most {WORKERS_MAX} workers")));
    }
    if !(1..=OPERATORS_MAX).contains(&config.operators) {
        return Err(WorldError::Config(format!("a sandbox has 1 to {OPERATORS_MAX} operators")));
    }
    Ok(())
}

/// How long an update that is refused stays so until it is taken for an end, in seconds: it is compiled anew twice a minute, and machines
/// are asked again every five minutes, who may then tell of something else.
const REFUSED_SECONDS_MAX: i64 = 1_500;

/// Whether nothing more will happen to a DirectUpdate until a person acts.
fn is_at_rest(update: &Value) -> bool {
    let status = &update["status"];
    let stalled = status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == cupcake_crds::conditions::STALLED && condition["status"] == "True");
    match status["phase"].as_str() {
        Some("Succeeded" | "Failed" | "Cancelled" | "RequiresAttention") => true,
        Some("Pending") | None => stalled,
        Some(_) => false,
    }
}

fn node_outcome(node: &Value) -> NodeOutcome {
    let version = node["status"]["nodeInfo"]["kubeletVersion"].as_str().unwrap_or_default();
    NodeOutcome {
        name: node["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
        version: version.trim_start_matches('v').to_owned(),
        schedulable: node["spec"]["unschedulable"] != Value::Bool(true),
    }
}

fn seconds(span: TimeDelta) -> f64 {
    let milliseconds = i32::try_from(span.num_milliseconds()).unwrap_or(i32::MAX);
    f64::from(milliseconds) / 1_000.0
}

/// `total` shared among `count`, to two decimals; all of it where there is nobody.
fn share(total: u64, count: usize) -> f64 {
    let total = f64::from(u32::try_from(total).unwrap_or(u32::MAX));
    let count = f64::from(u32::try_from(count.max(1)).unwrap_or(u32::MAX));
    (total / count * 100.0).round() / 100.0
}

/// A runtime for one world: one thread, and paused time where it goes as fast as possible.
///
/// # Errors
/// When the system gives no runtime.
pub fn runtime(speed: Speed) -> Result<tokio::runtime::Runtime, WorldError> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    match speed {
        // Nothing comes from outside, and the copies of a process would share what listens for it.
        Speed::Fastest => builder.enable_time().start_paused(true),
        Speed::Times(_) => builder.enable_all(),
    };
    Ok(builder.build()?)
}

/// Makes a world, upgrades it, and gives what remains.
///
/// # Errors
/// As [`World::new`] and [`World::upgrade`].
pub fn run(config: WorldConfig, upgrade: &Upgrade) -> Result<Outcome, WorldError> {
    runtime(config.speed)?.block_on(async {
        let world = World::new(config)?;
        world.start();
        world.upgrade(upgrade).await
    })
}

#[cfg(test)]
mod tests;
