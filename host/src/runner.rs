//! The runner: one order at a time, from wherever the journal says it stands, to its final answer.
//!
//! ```text
//!   lock ─► inventory asked? answer it ─► order? ─► take (refuse, or journal) ─► tick ─► verdict ─► answer ─► end
//!                        ▲                                                        │
//!                        └──── wait: a change of the mailbox, the engine's time ◄─┘
//! ```

use crate::boot::{BootUnit, BootUnitError};
use crate::class::Classing;
use crate::compile::{compile, refusal, step_of};
use crate::memory::{Memory, MemoryError};
use crate::store::FileStore;
use crate::verdict::{Ending, final_verdict, is_begun, is_prepared, outputs, overdue_at, under_way, waiting};
use chrono::TimeDelta;
use cupcake_crds::node_task::{ErrorClass, NodeInventory, TaskError, TaskState, TaskWait};
use cupcake_crds::values::OrderKey;
use cupcake_engine::clock::{Clock, Timestamp, whole_seconds};
use cupcake_engine::cursor::{Cursor, RunPhase};
use cupcake_engine::dag::Dag;
use cupcake_engine::decide::{Limits, Observed};
use cupcake_engine::event::Event;
use cupcake_engine::names::{CommitId, Epoch, Reason, RunName};
use cupcake_engine::registry::{RegistryError, StepRegistry};
use cupcake_engine::store::{Change, NewRun, RunStore, StoreError, StoredRun};
use cupcake_engine::tick::{Engine, TickEnd, TickError};
use cupcake_steps::host::await_proceed::MAILBOX_SUBJECT;
use cupcake_steps::host::kubeadm_upgrade::RECORDS;
use cupcake_steps::host::params::{self, ORDER_KINDS};
use cupcake_steps::mailbox::{self, Answer, MailOrder, Mailbox, MailboxError, Verdict, run_name};
use cupcake_steps::ports::disk::{Disk, DiskError};
use cupcake_steps::ports::host::{HostError, Machine, MachinePorts};
use futures::future::{Either, join, select};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The lock that keeps two runners from working at once.
pub const LOCK: &str = "runner.lock";
/// How long one call of a host step may take, in seconds: a week, the longest deadline of an order. Operations of the
/// machine bound themselves; cutting one short from here would only leave it half done.
const CALL_SECONDS_MAX: u32 = 604_800;
/// How long a step is at work before the answer names it, in seconds: short ones cost no write.
const PROGRESS_SECONDS: i64 = 30;
/// How long the runner sleeps at most, in seconds: a clock that is set right meanwhile (machines boot with wrong ones) wakes
/// nobody whose sleep was measured before.
const SLEEP_SECONDS_MAX: i64 = 30;
/// How soon a disk is tried again that failed, in seconds; doubles with each further failure in a row.
const DISK_AGAIN_SECONDS: i64 = 5;
/// The longest such wait, in seconds: a try costs one small write, and an order's time goes on while it waits for room that
/// may be there already.
const DISK_AGAIN_SECONDS_MAX: i64 = 20;

/// What a runner needs.
pub struct RunnerConfig {
    /// The machine and the runner's folder.
    pub ports: MachinePorts,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The node that this machine is; orders for another one are refused. `None`: the node of its first order.
    pub node_name: Option<String>,
    /// How a boot starts the runner again while it has work. `None`: somebody else sees to that.
    pub boot: Option<Arc<dyn BootUnit>>,
}

/// Why a runner ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunnerEnd {
    /// There is no order, and no inventory is asked for.
    Idle,
    /// The order that lies in the mailbox is answered for good.
    Answered(TaskState),
    /// Another runner holds the lock.
    AnotherRuns,
    /// It was asked to end; the next one goes on where it stood.
    Shutdown,
}

/// Why a runner cannot go on: a person must look. What may pass by itself is waited for instead.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The mailbox holds what cannot be read.
    #[error("mailbox cannot be used")]
    Mailbox(#[from] MailboxError),
    /// The memory cannot be read.
    #[error("the runner's memory cannot be used")]
    Memory(#[from] MemoryError),
    /// The journal failed in a way that no answer can tell.
    #[error("journal cannot be used")]
    Store(#[from] StoreError),
    /// The lock or a file cannot be reached.
    #[error("the runner's folder cannot be used")]
    Disk(#[from] DiskError),
    /// A boot would not start the runner again.
    #[error("a boot would not start the runner again")]
    Boot(#[from] BootUnitError),
    /// Two steps of one kind: a mistake in this release.
    #[error("host steps cannot be registered")]
    Registry(#[from] RegistryError),
}

impl RunnerError {
    /// Whether it may pass by itself.
    fn may_pass(&self) -> bool {
        match self {
            Self::Mailbox(MailboxError::Disk(_))
            | Self::Memory(MemoryError::Disk(_))
            | Self::Disk(_)
            | Self::Boot(BootUnitError::Unwritable(_))
            | Self::Store(StoreError::Unavailable { .. } | StoreError::Conflict(_)) => true,
            Self::Mailbox(
                MailboxError::Malformed { .. }
                | MailboxError::NewerFormat { .. }
                | MailboxError::TooLarge { .. }
                | MailboxError::EpochBack { .. }
                | MailboxError::Occupied(_)
                | MailboxError::Changed(_)
                | MailboxError::NotAsked(_)
                | MailboxError::Answered(_),
            )
            | Self::Memory(MemoryError::Damaged(_))
            | Self::Boot(BootUnitError::OtherFolder { .. })
            | Self::Store(
                StoreError::NotFound(_)
                | StoreError::Fenced { .. }
                | StoreError::TooLarge { .. }
                | StoreError::Corrupt { .. },
            )
            | Self::Registry(_) => false,
        }
    }
}

/// Works on the order in the mailbox until it is answered for good, and on inventories asked for meanwhile.
///
/// # Guarantees
/// No effect before it is journalled; none whose completion was recorded again, whatever crashed in between. The work of one
/// order never overlaps with another's: a lock is held, and an order is refused while an earlier one has no end. No effect
/// before a boot would start the runner again; that is let go of once nothing is open.
///
/// # Assumptions
/// Dropping it is like a crash: dropped operations end with it, and the next runner goes on from the journal.
///
/// # Errors
/// Only what a person must look at; a full disk and the like are waited for.
pub async fn run(config: RunnerConfig, shutdown: CancellationToken) -> Result<RunnerEnd, RunnerError> {
    let Some(_lock) = config.ports.disk.lock(LOCK).await? else {
        return Ok(RunnerEnd::AnotherRuns);
    };
    let runner = Runner::new(config).await?;
    let end = match select(Box::pin(shutdown.cancelled()), Box::pin(runner.work())).await {
        Either::Left(((), _)) => return Ok(RunnerEnd::Shutdown),
        Either::Right((end, _)) => end?,
    };
    if let Some(boot) = &runner.boot {
        // Nothing is open any more. Under the lock still: the next runner may keep it a moment later.
        boot.remove().await?;
    }
    Ok(end)
}

struct Runner {
    ports: MachinePorts,
    clock: Arc<dyn Clock>,
    node_name: Option<String>,
    boot: Option<Arc<dyn BootUnit>>,
    boot_id: Option<String>,
    registry: Arc<StepRegistry<Machine>>,
    store: Arc<FileStore>,
    engine: Engine<Machine>,
}

/// What a turn came to.
enum Turn {
    /// Nothing is open any more.
    End(RunnerEnd),
    /// Look again at once.
    Again,
    /// Look again then, or when the mailbox changes.
    At(Option<Timestamp>),
    /// A commit did not stand. No other process writes, so it was the disk: look again when it may work.
    DiskFailed,
}

/// The step that an answer is about.
struct At {
    step: String,
    /// When it began; of a step that failed nobody asks.
    since: Option<Timestamp>,
    /// Why it waits, if people should see that.
    waiting: Option<TaskWait>,
}

impl At {
    /// The step under way.
    fn of(cursor: &Cursor, dag: &Dag) -> Option<Self> {
        let (vertex, since) = under_way(cursor, dag)?;
        let waiting = waiting(cursor, dag);
        Some(Self { step: step_of(&vertex).to_owned(), since: Some(since), waiting })
    }
}

/// How long the disk is left alone that failed so often in a row.
fn disk_again(failures: u32) -> TimeDelta {
    let seconds = DISK_AGAIN_SECONDS << failures.saturating_sub(1).min(16);
    TimeDelta::seconds(seconds.min(DISK_AGAIN_SECONDS_MAX))
}

/// The orders whose journals and records stay once this one is taken: its own, the last one's, and those of the attempts before whose
/// success counts as its own. The last one alone would be gone where the runner died between remembering the order and its journal.
fn kept(mail: &MailOrder, memory: Option<&Memory>) -> BTreeSet<String> {
    let steps = mail.order.prepare.iter().chain(&mail.order.finish);
    let mut kept: BTreeSet<String> = steps.flat_map(params::success_of).collect();
    kept.insert(run_name(&mail.order.key).to_string());
    kept.extend(memory.map(|memory| run_name(&memory.key).to_string()));
    kept
}

impl Runner {
    async fn new(config: RunnerConfig) -> Result<Self, RunnerError> {
        let RunnerConfig { ports, clock, node_name, boot } = config;
        let mut registry = Classing(StepRegistry::new());
        cupcake_steps::host::register(&mut registry)?;
        let registry = Arc::new(registry.0);
        let store = Arc::new(FileStore::on(Arc::clone(&ports.disk)));
        let engine = Engine::new(Arc::clone(&registry), Arc::clone(&store) as Arc<dyn RunStore>, Arc::clone(&clock))
            .with_call_seconds_max(CALL_SECONDS_MAX)
            // A part of an order may take an hour: before each step it is asked whether the order still stands.
            .with_rounds_max(1);
        let boot_id = match ports.host.boot_id().await {
            Ok(boot_id) => Some(boot_id),
            Err(error) => {
                tracing::warn!(%error, "boot id cannot be told");
                None
            }
        };
        Ok(Self { ports, clock, node_name, boot, boot_id, registry, store, engine })
    }

    fn disk(&self) -> &dyn Disk {
        &*self.ports.disk
    }

    fn mailbox(&self) -> Mailbox<'_> {
        Mailbox::on(self.disk())
    }

    async fn work(&self) -> Result<RunnerEnd, RunnerError> {
        let mut seen = self.disk().changed(mailbox::FOLDER, 0).await;
        let mut changed = BTreeSet::new();
        let mut failures = 0;
        loop {
            let turn = match self.turn(&std::mem::take(&mut changed)).await {
                Err(error) if error.may_pass() => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "looks again in a moment");
                    Turn::DiskFailed
                }
                turn => turn?,
            };
            let until = match turn {
                Turn::End(end) => return Ok(end),
                Turn::Again => {
                    failures = 0;
                    continue;
                }
                Turn::At(until) => {
                    failures = 0;
                    until
                }
                Turn::DiskFailed => {
                    failures += 1;
                    self.clock.sleep_until(self.clock.now() + disk_again(failures)).await;
                    continue;
                }
            };
            let latest = self.clock.now() + TimeDelta::seconds(SLEEP_SECONDS_MAX);
            let until = until.map_or(latest, |until| until.min(latest));
            let change = self.disk().changed(mailbox::FOLDER, seen);
            if let Either::Left((count, _)) = select(change, self.clock.sleep_until(until)).await {
                seen = count;
                changed.insert(MAILBOX_SUBJECT.to_owned());
            }
        }
    }

    /// One look at the mailbox, and the work that it asks for, as far as it goes now.
    async fn turn(&self, changed: &BTreeSet<String>) -> Result<Turn, RunnerError> {
        self.serve_inventory().await?;
        let Some(mail) = self.mailbox().order().await? else {
            return Ok(Turn::End(RunnerEnd::Idle));
        };
        if let Some(answer) = self.answer_to(&mail.order.key).await?
            && answer.verdict.state().is_final()
        {
            return Ok(Turn::End(RunnerEnd::Answered(answer.verdict.state())));
        }
        let run = match self.take(&mail).await {
            Ok(Ok(run)) => run,
            Ok(Err(error)) => {
                tracing::warn!(order = %mail.order.key, code = error.code, message = error.message, "order refused");
                self.answer(&mail, Verdict::Refused { error }, None, BTreeMap::new()).await?;
                return Ok(Turn::Again);
            }
            Err(RunnerError::Store(error @ StoreError::Corrupt { .. })) => return self.damaged(&mail, &error).await,
            Err(error) => return Err(error),
        };
        self.advance(&mail, run, changed).await
    }

    /// Moves a run that was taken as far as it goes now, and answers where it stands.
    async fn advance(&self, mail: &MailOrder, run: StoredRun, changed: &BTreeSet<String>) -> Result<Turn, RunnerError> {
        let order = &mail.order;
        let ending = self.ending(mail, &run).await?;
        if ending.is_some() {
            // The journal says that it ended before the answer does: the next order asks the journal.
            self.store.cancel(&run.name);
        } else if let Some(boot) = &self.boot {
            // Before the first effect: on a single control plane nobody else could start the runner after a boot, since the API
            // may be away because of what the runner was doing.
            boot.keep().await?;
        }
        let epoch = Epoch(order.epoch).max(run.epoch);
        let observed = Observed::default();
        let over = CancellationToken::new();
        let tick = async {
            let report = self.engine.tick(&run.name, epoch, &self.ports, &observed, changed).await;
            over.cancel();
            report
        };
        // Joined, not raced: an answer of what goes on beside must not be written after the tick's own.
        let (report, ()) = join(Box::pin(tick), Box::pin(self.beside(mail, &run.name, &over))).await;
        let report = match report {
            Ok(report) => report,
            Err(TickError::Registry { source, .. }) => {
                let error = refusal("UnknownStepKind", source.to_string());
                self.answer(mail, Verdict::Failed { error }, None, BTreeMap::new()).await?;
                return Ok(Turn::Again);
            }
            Err(TickError::Store { source: error @ StoreError::Corrupt { .. }, .. }) => {
                return self.damaged(mail, &error).await;
            }
            Err(TickError::Store { source, .. }) => return Err(source.into()),
        };
        let (cursor, dag) = (&report.cursor, &report.dag);
        let events = self.store.events(&run.name).await?;
        if let Some((verdict, vertex)) = final_verdict(cursor, dag, &events, ending, order.deadline_seconds) {
            let step = vertex.map(|vertex| At { step: step_of(&vertex).to_owned(), since: None, waiting: None });
            let verdict = if is_begun(cursor, dag) { self.heal(verdict).await } else { verdict };
            self.answer(mail, verdict, step, outputs(cursor, dag)).await?;
            return Ok(Turn::Again);
        }
        if is_prepared(cursor, dag) {
            self.answer(mail, Verdict::Prepared, None, outputs(cursor, dag)).await?;
        } else {
            self.tell_wait(mail, cursor, dag).await?;
        }
        let now = self.clock.now();
        Ok(match report.end {
            TickEnd::MoreToDo => Turn::Again,
            TickEnd::Conflict => Turn::DiskFailed,
            TickEnd::Idle if ending.is_some() => Turn::At(report.wake_at),
            TickEnd::Idle => {
                Turn::At(report.wake_at.into_iter().chain(overdue_at(cursor, dag, order.deadline_seconds, now)).min())
            }
        })
    }

    /// Answers what the step under way waits for, and that it waits no more.
    async fn tell_wait(&self, mail: &MailOrder, cursor: &Cursor, dag: &Dag) -> Result<(), RunnerError> {
        let at = At::of(cursor, dag).filter(|at| at.waiting.is_some());
        let told = self.answer_to(&mail.order.key).await?.is_some_and(|answer| answer.waiting.is_some());
        if at.is_none() && !told {
            return Ok(());
        }
        self.answer(mail, Verdict::Working, at, BTreeMap::new()).await
    }

    async fn ending(&self, mail: &MailOrder, run: &StoredRun) -> Result<Option<Ending>, RunnerError> {
        if mail.order.stop || self.mailbox().local_stop().await?.as_ref() == Some(&mail.order.key) {
            return Ok(Some(Ending::Stop));
        }
        let now = self.clock.now();
        let overdue = overdue_at(&run.cursor, &run.dag, mail.order.deadline_seconds, now).is_some_and(|at| at <= now);
        Ok((overdue && !run.cursor.phase().is_final()).then_some(Ending::Overdue))
    }

    /// Puts the machine right before an order is answered for good whose work did not come to its end, and tells what could not
    /// be: once an order is answered nobody looks after what its steps took apart.
    async fn heal(&self, verdict: Verdict) -> Verdict {
        if verdict == Verdict::Done {
            return verdict;
        }
        let Err(error) = self.ports.host.heal().await else {
            return verdict;
        };
        tracing::warn!(%error, "what the order left could not be put right");
        let message = format!("what it left on the machine could not be put right: {error}");
        let (healing, reason) = match &error {
            HostError::Transient(reason) => (ErrorClass::Transient, reason),
            HostError::Permanent(reason) => (ErrorClass::Permanent, reason),
            HostError::NeedsOperator(reason) => (ErrorClass::NeedsOperator, reason),
        };
        match verdict {
            Verdict::Failed { error: TaskError { class, code, message: failed } } => {
                let class = if healing == ErrorClass::NeedsOperator { healing } else { class };
                Verdict::Failed { error: TaskError { class, code, message: format!("{failed}; {message}") } }
            }
            Verdict::Stopped => {
                Verdict::Failed { error: TaskError { class: healing, code: reason.code.clone(), message } }
            }
            Verdict::Working | Verdict::Prepared | Verdict::Done | Verdict::Refused { .. } => verdict,
        }
    }

    /// Gives back the time that the machine was off, in which nobody could work: from the last sign of life, a record or an
    /// answer, until now. Kept in the journal as a pause, which moves the start of the step under way.
    async fn give_back(&self, mail: &MailOrder, run: StoredRun) -> Result<StoredRun, RunnerError> {
        let answered = self.answer_to(&mail.order.key).await?.map(|answer| whole_seconds(answer.at));
        let off = answered.into_iter().fold(run.cursor.clock(), Timestamp::max);
        let now = whole_seconds(self.clock.now());
        if run.cursor.phase() != RunPhase::InProgress || now <= off {
            return Ok(run);
        }
        let reason = Reason::new("MachineOff", "the machine was off");
        let events = vec![Event::Paused { reason, at: off }, Event::Resumed { at: now }];
        let mut cursor = run.cursor.clone();
        if let Err(error) = cursor.fold(&events) {
            tracing::warn!(%error, "the time that the machine was off counts");
            return Ok(run);
        }
        cursor.stamp(CommitId { epoch: run.epoch, sequence: run.cursor.commit_id().sequence + 1 });
        self.store.commit(&run.name, run.epoch, &run.version, &Change { events, cursor }).await?;
        Ok(self.store.load(&run.name).await?)
    }

    /// The run of an order: the one in the journal, or a new one. The error within is why the order is refused.
    async fn take(&self, mail: &MailOrder) -> Result<Result<StoredRun, TaskError>, RunnerError> {
        let key = &mail.order.key;
        let name = run_name(key);
        let memory = Memory::read(self.disk()).await?;
        let known = memory.as_ref().is_some_and(|memory| memory.key == *key);
        if !known && let Err(error) = self.admit(mail, memory.as_ref()).await? {
            return Ok(Err(error));
        }
        let same_boot = memory.as_ref().is_some_and(|memory| memory.boot_id == self.boot_id);
        let stored = if known { self.find(&name).await? } else { None };
        if let Some(run) = stored {
            // By a clock behind the journal nobody can tell how long the machine was off: once it is set right.
            if same_boot || whole_seconds(self.clock.now()) < run.cursor.clock() {
                return Ok(Ok(run));
            }
            tracing::info!(order = %key, "the machine was rebooted under this order; it goes on");
            // Before the boot is remembered: killed in between, the next runner gives back what is left.
            let run = self.give_back(mail, run).await?;
            self.remember(mail, memory.as_ref()).await?;
            return Ok(Ok(run));
        }
        let plan = match compile(&mail.order) {
            Ok(plan) => plan,
            Err(error) => return Ok(Err(error)),
        };
        let dag = match plan.expand() {
            Ok(dag) => dag,
            Err(error) => return Ok(Err(refusal("BadOrder", error.to_string()))),
        };
        match self.registry.check(&dag) {
            Ok(()) => {}
            Err(RegistryError::BadParameters { vertex, source, .. }) => {
                let message = format!("parameters of step {}: {source}", step_of(&vertex));
                return Ok(Err(refusal("BadParameters", message)));
            }
            Err(error @ (RegistryError::UnknownKind { .. } | RegistryError::Kind(_) | RegistryError::Twice(_))) => {
                return Ok(Err(refusal("UnknownStepKind", error.to_string())));
            }
        }
        if !known {
            self.remember(mail, memory.as_ref()).await?;
        }
        let cursor = Cursor::new(plan.digest(), &dag, self.clock.now());
        let run = NewRun { name: name.clone(), plan: Arc::new(plan), cursor, limits: Limits::default() };
        self.store.create(&run).await?;
        self.forget_all_but(&kept(mail, memory.as_ref())).await?;
        Ok(Ok(self.store.load(&name).await?))
    }

    async fn find(&self, name: &RunName) -> Result<Option<StoredRun>, StoreError> {
        match self.store.load(name).await {
            Ok(run) => Ok(Some(run)),
            Err(StoreError::NotFound(_)) => Ok(None),
            Err(
                error @ (StoreError::Conflict(_)
                | StoreError::Fenced { .. }
                | StoreError::TooLarge { .. }
                | StoreError::Corrupt { .. }
                | StoreError::Unavailable { .. }),
            ) => Err(error),
        }
    }

    /// Whether an order that was not seen before may be taken.
    async fn admit(&self, mail: &MailOrder, memory: Option<&Memory>) -> Result<Result<(), TaskError>, RunnerError> {
        let node = mail.node.name.as_str();
        let own = self.node_name.as_deref().or(memory.map(|memory| memory.node.as_str()));
        if let Some(own) = own.filter(|own| *own != node) {
            let message = format!("the order is for node {node}, this machine is node {own}");
            return Ok(Err(refusal("OtherNode", message)));
        }
        let Some(memory) = memory else {
            return Ok(Ok(()));
        };
        if mail.order.epoch < memory.epoch {
            let message = format!(
                "the order has epoch {}, this machine has worked for epoch {}; if that was another cluster's, \
                 `cupcake-host forget` on the machine lets go of it",
                mail.order.epoch, memory.epoch
            );
            return Ok(Err(TaskError { class: ErrorClass::Transient, code: "StaleEpoch".to_owned(), message }));
        }
        if self.is_open(&memory.key).await? {
            let message = format!(
                "order {} was taken and has no end yet; `cupcake-host stop` on the machine gives it up",
                memory.key
            );
            return Ok(Err(refusal("Unanswered", message)));
        }
        Ok(Ok(()))
    }

    /// Whether an order that was taken is neither at rest, nor answered, nor given up by a person on the machine.
    async fn is_open(&self, key: &OrderKey) -> Result<bool, RunnerError> {
        let at_rest = match self.find(&run_name(key)).await {
            Ok(None) => true,
            Ok(Some(run)) => run.cursor.phase().is_final() || run.cursor.phase() == RunPhase::RequiresAttention,
            Err(StoreError::Corrupt { .. }) => false,
            Err(error) => return Err(error.into()),
        };
        let answered = self.mailbox().is_answered(key).await?;
        let given_up = self.mailbox().local_stop().await?.as_ref() == Some(key);
        Ok(!at_rest && !answered && !given_up)
    }

    async fn remember(&self, mail: &MailOrder, memory: Option<&Memory>) -> Result<(), RunnerError> {
        let epoch = memory.map_or(0, |memory| memory.epoch).max(mail.order.epoch);
        let memory = Memory::of(&mail.node.name, &mail.order.key, epoch, self.boot_id.clone());
        Ok(memory.write(self.disk()).await?)
    }

    /// Removes journals and records of other orders.
    async fn forget_all_but(&self, kept: &BTreeSet<String>) -> Result<(), RunnerError> {
        for old in self.store.list().await? {
            if !kept.contains(old.as_str()) {
                // Records first: without its journal nobody would find them again.
                for record in self.disk().list(RECORDS).await? {
                    if record.strip_prefix(old.as_str()).is_some_and(|rest| rest.starts_with('.')) {
                        self.disk().remove(&format!("{RECORDS}/{record}")).await?;
                    }
                }
                self.store.remove(&old).await?;
            }
        }
        Ok(())
    }

    async fn damaged(&self, mail: &MailOrder, error: &StoreError) -> Result<Turn, RunnerError> {
        let source = std::error::Error::source(error).map_or_else(String::new, ToString::to_string);
        // Nobody can tell what was begun.
        let verdict = self.heal(Verdict::Failed { error: refusal("JournalDamaged", source) }).await;
        self.answer(mail, verdict, None, BTreeMap::new()).await?;
        Ok(Turn::Again)
    }

    async fn answer_to(&self, key: &OrderKey) -> Result<Option<Answer>, MailboxError> {
        Ok(self.mailbox().answer().await?.filter(|answer| answer.key == *key))
    }

    /// Writes an answer, unless it stands there already.
    async fn answer(
        &self,
        mail: &MailOrder,
        verdict: Verdict,
        at: Option<At>,
        outputs: BTreeMap<String, String>,
    ) -> Result<(), RunnerError> {
        let key = &mail.order.key;
        let (step, step_since, waiting) =
            at.map_or((None, None, None), |At { step, since, waiting }| (Some(step), since, waiting));
        if let Some(last) = self.answer_to(key).await?
            && last.verdict == verdict
            && last.step == step
            && last.waiting == waiting
            && last.boot_id == self.boot_id
        {
            return Ok(());
        }
        tracing::info!(order = %key, state = %verdict.state(), step, "answers");
        let message = match (&verdict, &step) {
            (Verdict::Working, Some(step)) => match &waiting {
                Some(waiting) => format!("{step} waits: {}", waiting.message),
                None => format!("{step} is under way"),
            },
            (Verdict::Working, None) => "at work".to_owned(),
            (Verdict::Prepared, _) => "prepared; waits for proceed".to_owned(),
            (Verdict::Done, _) => "done".to_owned(),
            (Verdict::Stopped, _) => "stopped as it was asked to".to_owned(),
            (Verdict::Failed { error } | Verdict::Refused { error }, Some(step)) => {
                format!("{step}: {}", error.message)
            }
            (Verdict::Failed { error } | Verdict::Refused { error }, None) => error.message.clone(),
        };
        let answer = Answer {
            key: key.clone(),
            verdict,
            step,
            step_since,
            message: Some(message),
            waiting,
            outputs,
            boot_id: self.boot_id.clone(),
            at: self.clock.now(),
        };
        Ok(self.mailbox().put_answer(&answer).await?)
    }

    /// What goes on until the tick is over: inventories are answered, and a long step is named.
    async fn beside(&self, mail: &MailOrder, run: &RunName, over: &CancellationToken) {
        let mut seen = self.disk().changed(mailbox::FOLDER, 0).await;
        loop {
            let until = self.clock.now() + TimeDelta::seconds(PROGRESS_SECONDS);
            let change = self.disk().changed(mailbox::FOLDER, seen);
            let event = select(change, self.clock.sleep_until(until));
            let outcome = match select(Box::pin(over.cancelled()), event).await {
                Either::Left(((), _)) => return,
                Either::Right((Either::Left((count, _)), _)) => {
                    seen = count;
                    self.serve_inventory().await
                }
                Either::Right((Either::Right(((), _)), _)) => self.name_long_step(mail, run).await,
            };
            if let Err(error) = outcome {
                tracing::warn!(error = &error as &dyn std::error::Error, "beside a step");
            }
        }
    }

    async fn name_long_step(&self, mail: &MailOrder, run: &RunName) -> Result<(), RunnerError> {
        let run = self.store.load(run).await?;
        let Some(at) = At::of(&run.cursor, &run.dag) else {
            return Ok(());
        };
        let is_long = at.since.is_some_and(|since| self.clock.now() - since >= TimeDelta::seconds(PROGRESS_SECONDS));
        if is_prepared(&run.cursor, &run.dag) || !is_long {
            return Ok(());
        }
        self.answer(mail, Verdict::Working, Some(at), BTreeMap::new()).await
    }

    async fn serve_inventory(&self) -> Result<(), RunnerError> {
        let Some(request) = self.mailbox().inventory_request().await? else {
            return Ok(());
        };
        let answered = self.mailbox().inventory().await?.and_then(|inventory| inventory.request);
        if answered.as_ref() == Some(&request) {
            return Ok(());
        }
        let taken = self.ports.host.inventory(&request).await;
        // What cannot be told is left out: whoever asked sees that, and is not kept waiting.
        let taken = taken.unwrap_or_else(|error| {
            tracing::warn!(%error, "inventory cannot be taken");
            NodeInventory::default()
        });
        let inventory = NodeInventory {
            request: Some(request),
            taken_at: taken.taken_at.or(Some(self.clock.now())),
            runner_kinds: ORDER_KINDS.map(str::to_owned).to_vec(),
            ..taken
        };
        Ok(self.mailbox().put_inventory(&inventory).await?)
    }
}
