//! The real operator, agents and runners, each started again when it ends or crashes.

use super::credulous::Credulous;
use super::drains::Drains;
use super::fences::Fence;
use super::forgetful::{Forgetful, Seen};
use super::heedless::Heedless;
use super::skew::Skews;
use super::wire::{Gate, client_name};
use super::workloads::Workloads;
use crate::api::Server;
use crate::machine::disk::{Remembered, SimDisk};
use crate::machine::fault::{Component, FaultPlan, Life};
use crate::machine::systemd::{Program, UnitEnd};
use crate::machine::timing::derive;
use crate::machine::{SimHost, SimMachine, Site};
use async_trait::async_trait;
use chrono::TimeDelta;
use cupcake_agent::AgentConfig;
use cupcake_agent::runner_unit::{RunnerUnit, UnitError};
use cupcake_engine::clock::{Clock, Timestamp};
use cupcake_host::{RunnerConfig, RunnerEnd};
use cupcake_operator::OperatorConfig;
use cupcake_operator::lease::Timing;
use cupcake_operator::metrics::Metrics;
use cupcake_operator::notify::Sink;
use cupcake_operator::traces::Spans;
use cupcake_steps::ports::disk::SharedDisk;
use cupcake_steps::ports::host::MachinePorts;
use cupcake_steps::ports::measures::Measures;
use futures::future::BoxFuture;
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::task::Poll;

/// Where the operator runs.
const NAMESPACE: &str = "kube-system";

/// As of Kubernetes' own controllers; renewing every second would be every other request of a run.
const LEASE: Timing = Timing { lease_seconds: 15, retry_seconds: 5 };

/// Number of the life of an agent's double: no agent lives as often.
const DOUBLE: u64 = 1_000_000;

/// How long it takes until a container that ended is started again, at least, in milliseconds.
const RESTART_MILLISECONDS: i64 = 1_500;

/// How often it is looked whether a machine has booted, whose pods start then.
const LOOKS_AGAIN: TimeDelta = TimeDelta::seconds(1);

/// Starts and restarts the components of one world.
pub(super) struct Components {
    pub(super) site: Arc<Site>,
    pub(super) server: Server,
    pub(super) gate: Arc<Gate>,
    pub(super) faults: FaultPlan,
    pub(super) drains: Arc<Drains>,
    pub(super) workloads: Arc<Workloads>,
    /// How far the clocks of machines are off.
    pub(super) skews: Skews,
    /// What the programs are to do without.
    pub(super) without: BTreeSet<Fence>,
    /// Where the operator's spans go, if anywhere.
    pub(super) spans: OnceLock<Arc<dyn Spans>>,
    /// Where the operator's notifications go, if anywhere.
    pub(super) sink: OnceLock<Arc<dyn Sink>>,
    /// Who measures for the operator, if anybody.
    pub(super) measures: OnceLock<Arc<dyn Measures>>,
    /// Where the operator counts, if somebody looks.
    pub(super) metrics: OnceLock<Metrics>,
}

impl Components {
    fn clock(&self, place: &str) -> Arc<dyn Clock> {
        Arc::new(self.skews.clock(place, Arc::clone(&self.site.clock)))
    }

    /// One life: polls the component until it ends or its life does, and drops it at once then. While it is stopped it is
    /// not polled.
    async fn live<T>(&self, life: &Life, component: impl Future<Output = T>) -> Option<T> {
        let mut component = std::pin::pin!(component);
        let mut stopped: Option<BoxFuture<'static, ()>> = None;
        let stoppable = std::future::poll_fn(|context| {
            loop {
                if let Some(sleep) = &mut stopped {
                    if sleep.as_mut().poll(context).is_pending() {
                        return Poll::Pending;
                    }
                    stopped = None;
                }
                let until = life.stopped_until().filter(|until| *until > self.site.now());
                let Some(until) = until else {
                    return component.as_mut().poll(context);
                };
                stopped = Some(self.site.clock.sleep_until(until));
            }
        });
        tokio::select! {
            biased;
            () = life.over() => None,
            end = stoppable => Some(end),
        }
    }

    async fn wait_for_restart(&self, place: &str, number: u64) {
        let spread = derive(self.site.seed, &["restart", place, &number.to_string()]) % 1_000;
        let span = TimeDelta::milliseconds(RESTART_MILLISECONDS + i64::try_from(spread).unwrap_or_default());
        self.site.clock.sleep_until(self.site.now() + span).await;
    }

    /// What a pod is called: sometimes the container is started again in it, sometimes it is replaced, and its successor
    /// has to wait until the lease expires.
    fn identity(&self, replica: &str, number: u64) -> String {
        let replaced =
            (2..=number).filter(|number| derive(self.site.seed, &["replaced", &number.to_string()]) % 2 == 1).count();
        format!("cupcake-operator-{replica}{replaced}")
    }

    fn has(&self, fence: Fence) -> bool {
        !self.without.contains(&fence)
    }

    fn operator_client(&self, name: &str) -> kube::Client {
        let service = self.server.service(name);
        let heeds = [Fence::LeaderLooks, Fence::LeaderStamp, Fence::ChildUids].into_iter().all(|fence| self.has(fence));
        match (self.has(Fence::CommitIds), heeds) {
            (true, true) => kube::Client::new(service, "default"),
            (true, false) => kube::Client::new(Heedless::new(service, &self.server, &self.without), "default"),
            (false, _) => {
                let credulous = Credulous::new(service);
                kube::Client::new(Heedless::new(credulous, &self.server, &self.without), "default")
            }
        }
    }

    /// Runs a replica of the operator, again and again; never ends. The first one has no name.
    pub(super) async fn operator(self: Arc<Self>, replica: &'static str, node: String) {
        for number in 1u64.. {
            let life = Life::new(Component::Operator, replica);
            let client = client_name(Component::Operator, replica, number);
            self.gate.bind(&client, life.clone());
            match cupcake_operator::standard_registry() {
                Ok(registry) => {
                    let config = OperatorConfig {
                        client: self.operator_client(&client),
                        clock: self.clock(replica),
                        identity: self.identity(replica, number),
                        node_name: Some(node.clone()),
                        namespace: NAMESPACE.to_owned(),
                        timing: LEASE,
                        registry,
                        metrics: self.metrics.get().cloned().unwrap_or_default(),
                        spans: self.spans.get().cloned(),
                        sink: self.sink.get().cloned(),
                        measures: self.measures.get().cloned(),
                    };
                    self.live(&life, Box::pin(cupcake_operator::run(config, life.asked_to_stop()))).await;
                }
                Err(error) => tracing::error!(%error, "operator cannot start"),
            }
            life.end();
            self.drains.operator_died(|node| self.workloads.has_evictable(node));
            self.wait_for_restart(if replica.is_empty() { "operator" } else { replica }, number).await;
            self.gate.forget(&client);
        }
    }

    /// Runs the agent of a machine, again and again; never ends.
    pub(super) async fn agent(self: Arc<Self>, machine: Arc<SimMachine>) {
        for number in 1u64.. {
            self.agent_life(&machine, &Life::new(Component::Agent, machine.name()), number).await;
            self.wait_for_restart(machine.name(), number).await;
            while machine.is_down() {
                self.site.clock.sleep_until(self.site.now() + LOOKS_AGAIN).await;
            }
        }
    }

    /// Runs a second agent of a machine until then: a pod that was replaced before it had ended.
    pub(super) async fn double(self: Arc<Self>, machine: Arc<SimMachine>, until: Timestamp) {
        let life = Life::new(Component::Agent, machine.name());
        tokio::select! {
            biased;
            () = self.site.clock.sleep_until(until) => life.end(),
            () = self.agent_life(&machine, &life, DOUBLE) => {}
        }
    }

    async fn agent_life(&self, machine: &Arc<SimMachine>, life: &Life, number: u64) {
        let client = client_name(Component::Agent, machine.name(), number);
        self.gate.bind(&client, life.clone());
        let service = self.server.service(client.as_str());
        let seen = Seen { of_task: self.has(Fence::AgentTaskEpoch), of_answers: self.has(Fence::AgentAnswerEpoch) };
        let api = if seen.of_task && seen.of_answers {
            kube::Client::new(service, "default")
        } else {
            kube::Client::new(Forgetful { api: service, seen }, "default")
        };
        let config = AgentConfig {
            node_name: machine.name().to_owned(),
            client: api,
            disk: self.disk(machine, life.clone()),
            runner: Arc::new(Unit { machine: Arc::clone(machine), life: life.clone() }),
            clock: self.clock(machine.name()),
            seed: derive(self.site.seed, &["agent", machine.name(), &number.to_string()]),
        };
        if let Some(Err(error)) = self.live(life, cupcake_agent::run(config, life.asked_to_stop())).await {
            tracing::warn!(node = machine.name(), %error, "agent ended");
        }
        life.end();
        self.gate.forget(&client);
    }

    fn disk(&self, machine: &SimMachine, life: Life) -> SharedDisk {
        let store = Arc::clone(machine.disk());
        let (faults, ledger) = (self.faults.clone(), self.site.ledger.clone());
        let disk = SimDisk::new(machine.name(), store, life, faults, ledger);
        let disk = if self.has(Fence::RunnerLock) { disk } else { disk.without_locks() };
        let disk = if self.has(Fence::MailboxEpoch) { disk } else { disk.without_epoch_of(Remembered::Order) };
        Arc::new(if self.has(Fence::RunnerEpoch) { disk } else { disk.without_epoch_of(Remembered::Memory) })
    }

    /// What the runner's unit runs on every machine. `spawn` gets each runner as a task.
    pub(super) fn runner_program(
        self: &Arc<Self>,
        spawn: impl Fn(futures::future::BoxFuture<'static, ()>) + Send + Sync + 'static,
    ) -> Program {
        let this = Arc::clone(self);
        Arc::new(move |machine, life| {
            let this = Arc::clone(&this);
            spawn(Box::pin(async move { this.runner(machine, life).await }));
        })
    }

    async fn runner(&self, machine: Arc<SimMachine>, life: Life) {
        let config = RunnerConfig {
            ports: MachinePorts {
                host: Arc::new(SimHost::new(Arc::clone(&machine), life.clone())),
                disk: self.disk(&machine, life.clone()),
            },
            clock: self.clock(machine.name()),
            node_name: Some(machine.name().to_owned()),
            // The machine's unit is enabled as long as it did not finish.
            boot: None,
        };
        let end = match self.live(&life, cupcake_host::run(config, life.asked_to_stop())).await {
            None => UnitEnd::Crashed,
            Some(Ok(RunnerEnd::Idle | RunnerEnd::Answered(_) | RunnerEnd::AnotherRuns)) => UnitEnd::Finished,
            Some(Ok(RunnerEnd::Shutdown)) => UnitEnd::Stopped,
            Some(Err(error)) => {
                tracing::warn!(node = machine.name(), %error, "runner ended");
                UnitEnd::Crashed
            }
        };
        machine.unit_ended(&life, end);
    }
}

/// systemd as an agent reaches it.
struct Unit {
    machine: Arc<SimMachine>,
    life: Life,
}

impl Unit {
    async fn alive(&self) {
        if self.life.is_over() {
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl RunnerUnit for Unit {
    async fn is_active(&self) -> Result<bool, UnitError> {
        self.alive().await;
        Ok(self.machine.unit_is_active())
    }

    async fn ensure_started(&self) -> Result<(), UnitError> {
        self.alive().await;
        self.machine.start_unit();
        Ok(())
    }
}
