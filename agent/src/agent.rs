//! The edge of the relay: watches the task, reads the mailbox, does what [`relay`](crate::relay::relay) says.
//!
//! Every wait is one ordered select: watch, mailbox, time. After a request whose outcome is not known nothing is repeated: the
//! task is read, and the relay decides anew from what stands there.

use crate::backoff::Backoff;
use crate::clocks::Compared;
use crate::patch::to_status;
use crate::read::{Read, read};
use crate::relay::{Action, Mail, Relay, relay};
use crate::runner_unit::{RunnerUnit, see_that_it_runs};
use chrono::TimeDelta;
use cupcake_crds::node_task::TaskState;
use cupcake_crds::{NodeTask, NodeTaskStatus};
use cupcake_engine::clock::{Clock, Timestamp};
use cupcake_steps::mailbox::{self, Mailbox, MailboxError};
use cupcake_steps::ports::disk::SharedDisk;
use futures::future::{Either, select};
use futures::stream::{BoxStream, StreamExt};
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// How long one request may take, in seconds; past it its outcome is unknown.
const REQUEST_SECONDS_MAX: i64 = 30;
/// How many decisions one look makes at most; what is left is done at the next, at once.
const DECISIONS_MAX: usize = 8;
/// How long the watch may be silent while an order is open, in seconds: less than any step may take.
const OPEN_SILENCE_SECONDS_MAX: i64 = 60;
/// How long the watch may be silent otherwise, in seconds: less than an order may wait for its claim; thousands of agents read then.
const IDLE_SILENCE_SECONDS_MAX: i64 = 180;
/// How long the agent sleeps if nothing wakes it, in seconds.
const SLEEP_SECONDS_MAX: i64 = 3_600;

/// What an agent needs.
pub struct AgentConfig {
    /// Its node: the name of its task.
    pub node_name: String,
    /// The API, without kube's own retries (a repeated write could meet its own success).
    pub client: Client,
    /// The machine's folder, shared with the runner.
    pub disk: SharedDisk,
    /// How the runner is started.
    pub runner: Arc<dyn RunnerUnit>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Spreads the retries of agents; equal seeds give equal runs.
    pub seed: u64,
}

/// Why an agent cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The watch came to an end, which it never does.
    #[error("watch of NodeTask {0} ended")]
    WatchEnded(String),
}

/// Relays between the task of its node and the machine's mailbox until `shutdown`.
///
/// # Guarantees
/// Writes the status of no other task; claims an order once; answers it once; passes `proceed` and `stop` on. API failures,
/// disk failures and a runner that does not start are waited out.
///
/// # RBAC
/// nodetasks: get, list, watch by its own name; nodetasks/status: patch.
pub async fn run(config: AgentConfig, shutdown: CancellationToken) -> Result<(), AgentError> {
    let AgentConfig { node_name, client, disk, runner, clock, seed } = config;
    let api: Api<NodeTask> = Api::all(client.clone());
    let watch_config = watcher::Config::default().fields(&format!("metadata.name={node_name}"));
    let agent = Agent {
        watch: Mutex::new(watcher(api.clone(), watch_config).boxed()),
        watch_backoff: Backoff::seeded(seed ^ 1),
        listed: false,
        watch_from: None,
        backoff: Backoff::seeded(seed),
        write_from: None,
        must_read: false,
        heard_at: clock.now(),
        compared: None,
        task: None,
        seen: 0,
        node_name,
        client,
        api,
        disk,
        runner,
        clock,
    };
    match select(Box::pin(shutdown.cancelled()), Box::pin(agent.work())).await {
        Either::Left(((), _)) => Ok(()),
        Either::Right((end, _)) => end,
    }
}

struct Agent {
    node_name: String,
    client: Client,
    api: Api<NodeTask>,
    disk: SharedDisk,
    runner: Arc<dyn RunnerUnit>,
    clock: Arc<dyn Clock>,
    /// Never locked: the mutex only lets the agent be shared between threads, which a stream alone may not be.
    watch: Mutex<BoxStream<'static, watcher::Result<Event<NodeTask>>>>,
    watch_backoff: Backoff,
    /// Whether the list under way, or the last one, held the task.
    listed: bool,
    /// The watch is polled again from then on.
    watch_from: Option<Timestamp>,
    backoff: Backoff,
    /// The API is written to again from then on.
    write_from: Option<Timestamp>,
    /// What stands in the API is not known: read before anything is decided.
    must_read: bool,
    /// When the watch, or a read, last said how the task stands.
    heard_at: Timestamp,
    /// What the last read told of the clocks.
    compared: Option<Compared>,
    /// The task as last seen.
    task: Option<NodeTask>,
    /// The mailbox's count of changes as last seen.
    seen: u64,
}

/// What a request came to.
enum Outcome<T> {
    Done(T),
    /// Refused, failed, or not answered: what stands in the API is to be read.
    Unknown,
}

impl Agent {
    async fn work(mut self) -> Result<(), AgentError> {
        loop {
            let wake_at = self.look().await;
            self.wait(wake_at).await?;
        }
    }

    /// Does all that is to be done now; gives when to look again.
    async fn look(&mut self) -> Option<Timestamp> {
        for _ in 0..DECISIONS_MAX {
            let now = self.clock.now();
            let may_write = self.write_from.is_none_or(|from| from <= now);
            if self.must_read {
                if !may_write {
                    return self.write_from;
                }
                self.read().await;
                continue;
            }
            let Some(task) = &self.task else {
                return None;
            };
            let mail = self.mail().await;
            let Relay { actions, wake_at } = relay(task, mail.as_ref(), self.compared, now);
            let mut asked = false;
            for action in actions {
                match action {
                    Action::Claim(status) if may_write => {
                        asked = true;
                        self.claim(*status).await;
                    }
                    Action::Report(status) if may_write => {
                        asked = true;
                        self.write(&status).await;
                    }
                    Action::CompareClocks if may_write => {
                        asked = true;
                        self.read().await;
                    }
                    Action::Claim(_) | Action::Report(_) | Action::CompareClocks => {}
                    Action::PutOrder(order) => {
                        tracing::info!(order = %order.order.key, proceed = order.order.proceed, stop = order.order.stop, "passes on");
                        self.tell("order", Mailbox::on(&*self.disk).put_order(&order).await);
                    }
                    Action::RequestInventory(request) => {
                        self.tell("inventory request", Mailbox::on(&*self.disk).put_inventory_request(&request).await);
                    }
                    Action::StartRunner => self.start_runner().await,
                }
            }
            if !asked {
                return wake_at.into_iter().chain(self.write_from.filter(|from| *from > now)).min();
            }
        }
        Some(self.clock.now())
    }

    async fn mail(&self) -> Result<Mail, MailboxError> {
        let mailbox = Mailbox::on(&*self.disk);
        Ok(Mail {
            order: mailbox.order().await?,
            answer: mailbox.answer().await?,
            inventory_request: mailbox.inventory_request().await?,
            inventory: mailbox.inventory().await?,
        })
    }

    fn tell(&self, what: &str, result: Result<(), MailboxError>) {
        if let Err(error) = result {
            let node = &self.node_name;
            tracing::warn!(%node, what, error = &error as &dyn std::error::Error, "mailbox does not take it");
        }
    }

    async fn start_runner(&self) {
        if let Err(error) = see_that_it_runs(&*self.runner, &*self.clock).await {
            tracing::warn!(node = %self.node_name, %error, "the runner cannot be started");
        }
    }

    /// Reads the task once more, and claims its order if that is still what is to be done.
    async fn claim(&mut self, status: NodeTaskStatus) {
        let meant = status.key;
        self.read().await;
        if self.must_read {
            return;
        }
        let Some(task) = &self.task else {
            return;
        };
        let mail = self.mail().await;
        for action in relay(task, mail.as_ref(), self.compared, self.clock.now()).actions {
            if let Action::Claim(status) = action
                && status.key == meant
            {
                tracing::info!(node = %self.node_name, order = ?status.key, "claims");
                self.write(&status).await;
                return;
            }
        }
    }

    async fn write(&mut self, status: &NodeTaskStatus) {
        let Some(patch) = self.task.as_ref().and_then(|task| to_status(task, status)) else {
            return;
        };
        let (api, name) = (self.api.clone(), self.node_name.clone());
        let params = PatchParams::default();
        let patch: Patch<()> = Patch::Json(patch);
        let request = api.patch_status(&name, &params, &patch);
        if let Outcome::Done(task) = self.request("patch of the status", request).await {
            self.take(task);
        }
    }

    async fn read(&mut self) {
        let (client, clock, name) = (self.client.clone(), Arc::clone(&self.clock), self.node_name.clone());
        let request = async move { read(&client, &*clock, &name).await };
        if let Outcome::Done(Read { task, compared }) = self.request("read", request).await {
            self.must_read = false;
            self.heard_at = self.clock.now();
            self.compared = Some(compared);
            // An answer to a read is the newest there is, whatever the watch said before.
            self.task = task;
        }
    }

    async fn request<T>(
        &mut self,
        what: &str,
        request: impl Future<Output = Result<T, kube::Error>> + Send,
    ) -> Outcome<T> {
        let until = self.clock.now() + TimeDelta::seconds(REQUEST_SECONDS_MAX);
        let answer = select(Box::pin(request), self.clock.sleep_until(until)).await;
        let node = &self.node_name;
        match answer {
            Either::Left((Ok(value), _)) => {
                self.backoff.reset();
                self.write_from = None;
                return Outcome::Done(value);
            }
            Either::Left((Err(error), _)) => {
                tracing::warn!(%node, what, error = &error as &dyn std::error::Error, "request failed");
            }
            Either::Right(((), _)) => {
                tracing::warn!(%node, what, "request not answered within {REQUEST_SECONDS_MAX} s");
            }
        }
        self.must_read = true;
        self.write_from = Some(self.clock.now() + self.backoff.after_failure());
        Outcome::Unknown
    }

    /// Takes a task that was seen, unless a newer one was seen before.
    fn take(&mut self, task: NodeTask) {
        if self.task.as_ref().is_none_or(|known| !is_older(&task, known)) {
            self.task = Some(task);
        }
    }

    /// Waits until something changed that the relay may want to know.
    async fn wait(&mut self, wake_at: Option<Timestamp>) -> Result<(), AgentError> {
        loop {
            let now = self.clock.now();
            let latest = now + TimeDelta::seconds(SLEEP_SECONDS_MAX);
            // A clock that was set back has heard nothing yet.
            self.heard_at = self.heard_at.min(now);
            // What is to be read already waits for its turn.
            let read_at = if self.must_read { latest } else { self.heard_at + self.silence_max() };
            let wake = wake_at.unwrap_or(latest).min(read_at).min(latest);
            let watch_from = self.watch_from.filter(|from| *from > now);
            let sleep = self.clock.sleep_until(watch_from.map_or(wake, |from| from.min(wake)));
            tokio::select! {
                biased;
                event = self.watch.get_mut().unwrap_or_else(PoisonError::into_inner).next(), if watch_from.is_none() => {
                    let event = event.ok_or_else(|| AgentError::WatchEnded(self.node_name.clone()))?;
                    if self.heard(event) {
                        return Ok(());
                    }
                }
                count = self.disk.changed(mailbox::FOLDER, self.seen) => {
                    self.seen = count;
                    return Ok(());
                }
                () = sleep => {
                    self.must_read |= read_at <= self.clock.now();
                    if wake <= self.clock.now() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// How long the watch may be silent before the task is read: a watch may lose what it has to tell and stay open.
    fn silence_max(&self) -> TimeDelta {
        let is_open = |task: &NodeTask| task.spec.order.is_some() && !task.answer().is_some_and(TaskState::is_final);
        let open = self.task.as_ref().is_some_and(is_open);
        TimeDelta::seconds(if open { OPEN_SILENCE_SECONDS_MAX } else { IDLE_SILENCE_SECONDS_MAX })
    }

    /// Takes in what the watch said; whether it may matter.
    fn heard(&mut self, event: watcher::Result<Event<NodeTask>>) -> bool {
        match event {
            Ok(event) => {
                self.watch_backoff.reset();
                self.watch_from = None;
                self.heard_at = self.clock.now();
                match event {
                    Event::Apply(task) | Event::InitApply(task) => {
                        self.listed = true;
                        self.take(task);
                        true
                    }
                    Event::Delete(_) => {
                        // Of this name there may be a new one already, or a late event of the old one: look.
                        self.must_read = true;
                        true
                    }
                    Event::Init => {
                        self.listed = false;
                        false
                    }
                    Event::InitDone => {
                        // Not in the list: gone while nobody watched.
                        let gone = !self.listed && self.task.is_some();
                        self.must_read |= gone;
                        gone
                    }
                }
            }
            Err(error) => {
                if is_expired(&error) {
                    self.watch_backoff.reset();
                }
                let from = self.clock.now() + self.watch_backoff.after_failure();
                let node = &self.node_name;
                tracing::warn!(%node, error = &error as &dyn std::error::Error, "watch failed");
                self.watch_from = Some(from);
                false
            }
        }
    }
}

/// Whether the API server is there and only knows the watch's past no more, as after its restart: the next try lists anew, and
/// need not wait as long as the outage has taught.
fn is_expired(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchError(status) if status.code == 410)
}

/// Whether `seen` is an older state of the same object than `known`. Versions of one object are numbers that grow; one that is
/// no number is taken for news, since every write is tested by the API server anyway.
fn is_older(seen: &NodeTask, known: &NodeTask) -> bool {
    let number = |task: &NodeTask| task.metadata.resource_version.as_deref()?.parse::<u64>().ok();
    match (number(seen), number(known)) {
        (Some(seen_version), Some(known_version)) => {
            seen.metadata.uid == known.metadata.uid && seen_version < known_version
        }
        (_, _) => false,
    }
}
