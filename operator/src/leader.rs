//! The leader's loop: watch, queue, reconcile; ordered, so that one seed gives one run.
//!
//! ```text
//!  watches ──► Changed ──► keys and hints ──► Queue ──► reconcile (at most WIDTH_MAX at once, one per key)
//!                                               ▲                        │
//!                                               └── again at ... ◄───────┘
//! ```

use crate::Operator;
use crate::adapters::stragglers::STRAGGLERS_VERTEX;
use crate::adapters::views::has_stale_mark;
use crate::attempts::Attempts;
use crate::controllers::{acknowledge, node, run, schedule, scheduled, timeout, update, window};
use crate::events;
use crate::notify::outbox::{Outbox, Posted};
use crate::notify::{self, Delivered};
use crate::outcome::{Next, Outcome};
use crate::queue::{Key, Queue};
use crate::silence::{self, Lost, Refused, Silence};
use crate::watches::{Changed, Watches};
use crate::{traces, unavailable};
use chrono::TimeDelta;
use cupcake_crds::UpgradeRun;
use cupcake_crds::control::VertexRequest;
use cupcake_crds::upgrade_run::CommitId;
use cupcake_crds::values::{Concurrency, NodeRole, Phase, Strategy};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::decide::{Asked, Intent, Observed};
use cupcake_engine::names::{Epoch, Reason, RunName, VertexName};
use cupcake_engine::store::RunStore;
use cupcake_engine::tick::TickReport;
use cupcake_steps::cluster::stragglers::NODES_FAILED;
use cupcake_steps::cluster::{node_subject, run_subject, task_subject, update_subject};
use cupcake_steps::ports::cluster::Readiness;
use cupcake_workflows::concurrency_of;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use tokio_util::sync::CancellationToken;

/// How many reconciles are under way at once.
const WIDTH_MAX: usize = 16;
/// How many ticks' events are published at once; those of further ones are dropped: they are for people, the cursor is the truth.
const PUBLISHING_MAX: usize = 64;
/// How often everything is looked at again even if nothing changes, in seconds: a lost watch event costs at most this.
pub(crate) const RESYNC_SECONDS: i64 = 300;
/// How soon a failed reconcile is tried again, in seconds.
const FAILED_AGAIN_SECONDS: i64 = 5;
/// How much later than a change of progress a DirectUpdate's status follows, in seconds; a change of phase is followed at once.
const MIRROR_SECONDS: i64 = 5;
/// How long changes are collected before a run is ticked for them, in milliseconds: answers that come together are recorded
/// by one write.
const TICK_GATHER_MILLISECONDS: i64 = 40;
/// How long one reconcile may take, in seconds; past it it is dropped, which is safe at any point, and begun anew.
const RECONCILE_SECONDS_MAX: i64 = 300;
/// How long before the last word of an earlier leader spans are told again from, in seconds: longer than a batch of them takes.
const TOLD_AGAIN_SECONDS: i64 = 60;
/// How long a new leader tries to stamp its epoch everywhere before it goes on all the same, in seconds: longer than an API server
/// refuses a new client whose rights it does not know yet.
const STAMP_SECONDS_MAX: i64 = 30;
/// How soon it tries again, in seconds.
const STAMP_AGAIN_SECONDS: i64 = 1;
/// How long a leader that is asked to stop waits for what is under way, in seconds.
const STOP_SECONDS_MAX: i64 = 5;

/// Why a leader's loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop.
    Told,
    /// It met a greater epoch than its own: whatever it does is refused from now on.
    Outdated {
        /// That one.
        by: Epoch,
    },
}

struct Loop<'o> {
    operator: &'o Operator,
    epoch: Epoch,
    /// From when to when nobody led.
    unled: Option<Lost>,
    /// Runs that the API server does not answer for.
    silence: Silence,
    /// Until when nobody could look at the runs of an update, the last time that it was for long.
    unseen: BTreeMap<String, Timestamp>,
    watches: Watches,
    queue: Queue,
    /// Names of things that changed and that a run waits for, by run.
    hints: BTreeMap<RunName, BTreeSet<String>>,
    /// How many approvals each update carries that carries some.
    approvals: BTreeMap<String, usize>,
    /// The last commit of our own to each run.
    committed: BTreeMap<RunName, CommitId>,
    /// Phases as last seen: a parent and its update hear of changes of phase at once.
    phases: BTreeMap<String, (Option<Phase>, Option<i64>)>,
    /// Nodes that are not Ready, and since when.
    unready: unavailable::Unready,
    /// Attempts under way, as far as spans and metrics need them.
    attempts: Attempts,
    /// Notifications that wait for their delivery.
    outbox: Outbox,
}

/// Leads until told to stop, or until a greater epoch is met. Resolves when nothing is under way any more.
///
/// Between the two times of `unled` nobody did: what was under way is given that time back.
pub async fn lead(operator: &Operator, epoch: Epoch, unled: Option<Lost>, stop: CancellationToken) -> Ended {
    operator.engine.wind_down(false);
    let stamped = tokio::select! {
        biased;
        () = stop.cancelled() => return Ended::Told,
        stamped = stamp_everywhere(operator, epoch) => stamped,
    };
    if let Some(by) = stamped.filter(|highest| *highest > epoch) {
        return Ended::Outdated { by };
    }
    let mut state = Loop {
        operator,
        epoch,
        unled,
        silence: Silence::default(),
        unseen: BTreeMap::new(),
        watches: Watches::start(&operator.client),
        queue: Queue::default(),
        hints: BTreeMap::new(),
        approvals: BTreeMap::new(),
        committed: BTreeMap::new(),
        phases: BTreeMap::new(),
        unready: BTreeMap::new(),
        attempts: Attempts::default(),
        outbox: Outbox::default(),
    };
    // From when on spans are told again: whoever led before may have ended before it told them.
    let last_word = unled.map_or(operator.clock.now(), |(from, _)| from) - TimeDelta::seconds(TOLD_AGAIN_SECONDS);
    let mut told_again = operator.spans.is_none();
    let mut leads_since = Some(operator.clock.now());
    let mut under_way: FuturesUnordered<BoxFuture<'_, (Key, Outcome)>> = FuturesUnordered::new();
    let mut publishing: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
    // One at a time, so that they arrive in order. What is under way when this replica ceases to lead is delivered by the next one.
    let mut posting: FuturesUnordered<BoxFuture<'_, Delivered>> = FuturesUnordered::new();
    let ended = loop {
        let now = operator.clock.now();
        if let Some(since) = leads_since.take_if(|_| state.watches.is_synced()) {
            state.unled = silence::until_seen(unled, since, now);
            operator.metrics.took_over();
        }
        if !told_again && state.watches.is_synced() {
            told_again = true;
            state.tell_again(last_word).await;
        }
        while state.watches.is_synced() && under_way.len() < WIDTH_MAX {
            let Some(key) = state.queue.take(now) else { break };
            let until = now + TimeDelta::seconds(RECONCILE_SECONDS_MAX);
            under_way.push(bounded(operator, key.clone(), until, state.reconcile(key)));
        }
        if posting.is_empty()
            && let (Some(sink), Some(letter)) = (&operator.sink, state.outbox.take(now))
        {
            posting.push(notify::deliver(sink.as_ref(), operator.clock.as_ref(), letter));
        }
        let due = state.queue.next_due();
        operator.metrics.queue(state.queue.len(), due.map_or(TimeDelta::zero(), |due| now - due));
        let wake = due.filter(|_| under_way.len() < WIDTH_MAX && state.watches.is_synced());
        let post = state.outbox.due(now).filter(|_| posting.is_empty());
        let wake = wake.into_iter().chain(post).fold(state.watches.list_when_due(now), Ord::min).max(now);
        tokio::select! {
            biased;
            () = stop.cancelled() => break Ended::Told,
            Some((key, mut outcome)) = under_way.next(), if !under_way.is_empty() => {
                if let Some((run, report)) = &outcome.news {
                    state.tell(run, report);
                }
                let news = outcome.news.take().filter(|_| publishing.len() < PUBLISHING_MAX);
                if let Some((run, report)) = news {
                    publishing.push(Box::pin(async move { events::publish(operator, &run, &report).await }));
                }
                if let Some(by) = outcome.outdated_by {
                    break Ended::Outdated { by };
                }
                state.finished(key, &outcome);
            }
            Some(()) = publishing.next(), if !publishing.is_empty() => {}
            Some(delivered) = posting.next(), if !posting.is_empty() => state.delivered(delivered),
            changes = state.watches.next() => {
                for change in changes {
                    state.changed(change);
                }
            }
            () = operator.clock.sleep_until(wake) => {}
        }
    };
    operator.engine.wind_down(true);
    // What was begun is brought to its record: a commit that is under way when the process ends would leave its successor guessing.
    let until = operator.clock.now() + TimeDelta::seconds(STOP_SECONDS_MAX);
    let drained = async {
        while let Some((_, outcome)) = under_way.next().await {
            if let Some((run, report)) = &outcome.news {
                state.tell(run, report);
            }
        }
        while publishing.next().await.is_some() {}
    };
    tokio::select! {
        biased;
        () = drained => {}
        () = operator.clock.sleep_until(until) => {}
    }
    ended
}

/// Stamps the epoch wherever an older leader could still write, and gives the highest that stood anywhere before; tried again for
/// [`STAMP_SECONDS_MAX`] while something that can be stamped was not.
async fn stamp_everywhere(operator: &Operator, epoch: Epoch) -> Option<Epoch> {
    let until = operator.clock.now() + TimeDelta::seconds(STAMP_SECONDS_MAX);
    let mut highest = None;
    loop {
        let stamped = crate::epoch::stamp(operator, epoch).await;
        highest = highest.max(stamped.highest);
        let Some(error) = stamped.failure else { return highest };
        let again = operator.clock.now() + TimeDelta::seconds(STAMP_AGAIN_SECONDS);
        if again > until || highest.is_some_and(|highest| highest > epoch) {
            tracing::warn!(error, "epoch not stamped everywhere; runs and tasks carry it with their next write");
            return highest;
        }
        tracing::warn!(error, "epoch not stamped everywhere; trying again before anything is decided");
        operator.clock.sleep_until(again).await;
    }
}

/// The reconcile, or its failure when it takes too long: a request that never gets its answer must not hold its key for ever.
fn bounded<'o>(
    operator: &'o Operator,
    key: Key,
    until: Timestamp,
    work: BoxFuture<'o, (Key, Outcome)>,
) -> BoxFuture<'o, (Key, Outcome)> {
    Box::pin(async move {
        let (began, controller) = (operator.clock.now(), key.controller());
        let (key, outcome) = tokio::select! {
            biased;
            done = work => done,
            () = operator.clock.sleep_until(until) => {
                tracing::warn!(?key, "reconcile dropped: no end within {RECONCILE_SECONDS_MAX} s");
                (key, Outcome::unanswered(None))
            }
        };
        operator.metrics.reconciled(controller, operator.clock.now() - began, outcome.next == Next::Failed);
        (key, outcome)
    })
}

impl<'o> Loop<'o> {
    /// Tells the spans of what ended just before this replica began to lead, of every run that was under way then.
    async fn tell_again(&mut self, since: Timestamp) {
        let Some(spans) = self.operator.spans.clone() else { return };
        let lately = |run: &&UpgradeRun| {
            let status = run.status.as_ref();
            !is_final(run) || status.and_then(|status| status.completed_at).is_some_and(|at| at >= since)
        };
        let runs: Vec<UpgradeRun> = self.watches.runs.iter().map(|(_, run)| run).filter(lately).cloned().collect();
        for run in runs {
            let Ok(name) = RunName::new(run.name_any()) else { continue };
            // One that cannot be read now is read by its next tick; its spans of that minute may be missing.
            let Ok(stored) = self.operator.store.load(&name).await else { continue };
            self.attempts.took_over(&name, &stored.dag, &stored.cursor);
            spans.tell(traces::ended_since(since, &run, &stored.dag, &stored.cursor));
        }
    }

    /// Tells spans and metrics what a tick recorded.
    fn tell(&mut self, name: &RunName, report: &TickReport) {
        let told = self.attempts.ended_with(name, report);
        let Some(run) = self.watches.runs.get(name.as_str()) else { return };
        self.operator.metrics.ticked(&run.spec.operation_id, report, &told);
        if let Some(spans) = &self.operator.spans {
            spans.tell(traces::ended_with(run, report, &told.ended));
        }
    }

    /// Keeps in mind what a delivery came to; what is settled is taken out of its update's status.
    fn delivered(&mut self, delivered: Delivered) {
        let now = self.operator.clock.now();
        let update = delivered.letter.update.clone();
        match notify::take_note(&self.operator.metrics, &mut self.outbox, delivered, now) {
            Posted::Sent | Posted::GivenUp => self.queue.add(Key::Update(update), now),
            Posted::Again => {}
        }
    }

    /// Takes note of what an update wants told, where there is somebody to tell.
    fn look_at_notices(&mut self, update: &str) {
        if self.operator.sink.is_some() {
            self.outbox.sees(update, self.watches.updates.get(update));
        }
    }

    fn reconcile(&mut self, key: Key) -> BoxFuture<'o, (Key, Outcome)> {
        let (operator, epoch) = (self.operator, self.epoch);
        match &key {
            Key::Node(name) => {
                let node = self.watches.nodes.get(name).cloned();
                let task = self.watches.tasks.get(name).cloned();
                if let Some(node) = node.clone().filter(has_stale_mark) {
                    return Box::pin(async move { (key, node::unmark(operator, &node).await) });
                }
                let held = node.as_ref().map(|node| node::runs_of(node, task.as_ref())).unwrap_or_default();
                if held.iter().any(|(uid, hold)| !self.run_holds(uid, *hold)) {
                    let name = name.clone();
                    return Box::pin(async move { (key, node::give_back(operator, epoch, &name).await) });
                }
                Box::pin(async move { (key, node::reconcile(operator, epoch, node, task).await) })
            }
            Key::Run(name) => {
                let Ok(name) = RunName::new(name.clone()) else {
                    return Box::pin(async move { (key, Outcome::of(Next::AwaitChange)) });
                };
                let hints = self.hints.remove(&name).unwrap_or_default();
                let observed = Observed {
                    unavailable_lanes: unavailable::lanes(&self.watches, &self.unready, &name),
                    unavailable_before: unavailable::before(&self.watches, &self.unready, &name),
                    unled: self.silence.ask(&name, self.unled, self.operator.clock.now()),
                    children_under_way: self.children_under_way(&name),
                    ..Observed::default()
                };
                if let Some(update) =
                    self.watches.runs.get(name.as_str()).map(|run| run.spec.direct_update.name.clone())
                {
                    self.operator.store.set_intent(&update, self.intent(&update));
                    self.set_concurrency(&update);
                }
                let begun = run::Begun::of(self.watches.runs.get(name.as_str()));
                Box::pin(async move { (key, run::reconcile(operator, epoch, name, observed, hints, begun).await) })
            }
            Key::Schedule(_) | Key::Scheduled(_) if !self.watches.schedules_are_synced() => {
                Box::pin(async move { (key, Outcome::of(Next::Failed)) })
            }
            Key::Schedule(name) => match schedule::View::of(name, &self.watches) {
                Some(view) => Box::pin(async move { (key, Box::pin(schedule::reconcile(operator, view)).await) }),
                None => Box::pin(async move { (key, Outcome::of(Next::AwaitChange)) }),
            },
            Key::Scheduled(name) => match scheduled::View::of(name, &self.watches) {
                Some(view) => Box::pin(async move { (key, Box::pin(scheduled::reconcile(operator, view)).await) }),
                None => Box::pin(async move { (key, Outcome::of(Next::AwaitChange)) }),
            },
            Key::Update(name) => {
                self.look_at_notices(name);
                let Some(update) = self.watches.updates.get(name).cloned() else {
                    return Box::pin(async move { (key, Outcome::of(Next::AwaitChange)) });
                };
                let now = self.operator.clock.now();
                self.look_at_intent(name, now);
                let unseen_until = self.unseen_until(name, now);
                let mut view = update::View::of(update, &self.watches, unseen_until, self.refused(name, now));
                view.told_of = self.outbox.settled(name);
                Box::pin(async move { (key, Box::pin(update::reconcile(operator, view)).await) })
            }
        }
    }

    fn finished(&mut self, key: Key, outcome: &Outcome) {
        self.queue.done(&key);
        let now = self.operator.clock.now();
        if let (Key::Run(name), Some(commit)) = (&key, outcome.committed)
            && let Ok(name) = RunName::new(name.clone())
        {
            self.committed.insert(name, commit);
        }
        if let Key::Run(name) = &key
            && let Ok(name) = RunName::new(name.clone())
        {
            if outcome.answered {
                self.silence.answered(&name);
            } else {
                self.unanswered(&name, outcome.refused.as_deref(), now);
            }
        }
        let hinted = match &key {
            Key::Run(name) => RunName::new(name.clone()).is_ok_and(|name| self.hints.contains_key(&name)),
            Key::Node(_) | Key::Schedule(_) | Key::Scheduled(_) | Key::Update(_) => false,
        };
        let at = match outcome.next {
            Next::AwaitChange => now + TimeDelta::seconds(RESYNC_SECONDS),
            // An update's message tells for how long something waits: it is never older than that.
            Next::At(at) if matches!(key, Key::Update(_)) => at.clamp(now, now + TimeDelta::seconds(RESYNC_SECONDS)),
            Next::At(at) => at.max(now),
            Next::AtOnce => now,
            Next::Failed => now + TimeDelta::seconds(FAILED_AGAIN_SECONDS),
        };
        let exists = match &key {
            Key::Node(name) => self.watches.nodes.get(name).is_some(),
            Key::Run(name) => self.watches.runs.get(name).is_some_and(|run| !is_final(run)),
            Key::Schedule(name) => self.watches.schedules.get(name).is_some(),
            Key::Scheduled(name) => self.watches.scheduled.get(name).is_some(),
            Key::Update(name) => self.watches.updates.get(name).is_some(),
        };
        if hinted {
            self.queue.add(key, now + TimeDelta::milliseconds(TICK_GATHER_MILLISECONDS));
        } else if exists {
            self.queue.add(key, at);
        }
    }

    /// Keeps in mind that a run was not answered for; its update says so where it is refused for long.
    fn unanswered(&mut self, run: &RunName, why: Option<&str>, now: Timestamp) {
        self.silence.unanswered(run, why);
        if self.silence.refused(run, now).is_some()
            && let Some(run) = self.watches.runs.get(run.as_str())
        {
            let update = run.spec.direct_update.name.clone();
            self.queue.add(Key::Update(update), now + TimeDelta::seconds(MIRROR_SECONDS));
        }
    }

    /// The first of an update's runs that the API server refuses to show or to record.
    fn refused(&self, update: &str, now: Timestamp) -> Option<Refused> {
        let names = self.runs_of(update).filter_map(|run| RunName::new(run.name_any()).ok());
        names.into_iter().find_map(|run| self.silence.refused(&run, now))
    }

    /// Lets the runs of an update know what is asked of them now: by people, or by the time.
    fn look_at_intent(&mut self, update: &str, now: Timestamp) {
        let intent = self.intent(update);
        let asks_anew = self.operator.store.set_intent(update, intent);
        if self.set_concurrency(update) || asks_anew {
            let runs: Vec<String> =
                self.runs_of(update).map(|run| run.metadata.name.clone().unwrap_or_default()).collect();
            for run in runs {
                self.queue.add(Key::Run(run), now);
            }
        }
    }

    /// Until when nobody could look at the runs of an update: because nobody led, or the API server did not answer for one of them.
    fn unseen_until(&mut self, update: &str, now: Timestamp) -> Option<Timestamp> {
        let names = self.runs_of(update).filter_map(|run| RunName::new(run.name_any()).ok());
        if names.into_iter().any(|run| self.silence.is_long(&run, now)) {
            let updates = &self.watches.updates;
            self.unseen.retain(|name, _| updates.get(name).is_some());
            self.unseen.insert(update.to_owned(), now);
        }
        let unled = self.unled.filter(|lost| silence::is_long(*lost)).map(|(_, until)| until);
        self.unseen.get(update).copied().max(unled)
    }

    fn changed(&mut self, change: Changed) {
        let now = self.operator.clock.now();
        self.operator.metrics.shows(&change, &self.watches);
        match change {
            Changed::Update(name) => {
                self.look_at_notices(&name);
                self.look_at_intent(&name, now);
                if self.approves_anew(&name) {
                    self.hint(&update_subject(&name), now);
                }
                for key in schedule::keys_of(&name, &self.watches) {
                    self.queue.add(key, now);
                }
                self.queue.add(Key::Update(name), now);
            }
            Changed::Schedule(name) => self.queue.add(Key::Schedule(name), now),
            Changed::Scheduled(name) => self.queue.add(Key::Scheduled(name), now),
            Changed::Run(name) => self.run_changed(&name, now),
            Changed::Task(name) => {
                self.hint(&task_subject(&name), now);
                self.queue.add(Key::Node(name), now);
            }
            Changed::Node(name) => {
                let view = self.watches.nodes.get(&name).map(crate::adapters::views::node_view);
                match view {
                    Some(view) if view.readiness != Readiness::Ready => {
                        self.unready.insert(name.clone(), view.readiness_since);
                    }
                    Some(_) | None => {
                        self.unready.remove(&name);
                    }
                }
                self.hint(&node_subject(&name), now);
                self.queue.add(Key::Node(name), now);
            }
            Changed::Failed { what, why } => {
                tracing::warn!(what, why, "watch failed; starting it again");
            }
        }
    }

    fn run_changed(&mut self, name: &str, now: Timestamp) {
        let Some(run) = self.watches.runs.get(name) else {
            self.phases.remove(name);
            if let Ok(name) = RunName::new(name) {
                self.committed.remove(&name);
                self.silence.answered(&name);
                self.attempts.forget(&name);
                self.operator.engine.forget(&name);
                self.operator.store.forget_run(&name);
            }
            self.hint(&run_subject(name), now);
            self.look_at_held_nodes(now);
            return;
        };
        let status = run.status.clone().unwrap_or_default();
        let seen = (status.phase, run.metadata.generation);
        let before = self.phases.insert(name.to_owned(), seen);
        let update = run.spec.direct_update.name.clone();
        let own = RunName::new(name).ok().and_then(|name| self.committed.get(&name).copied());
        let echo = own.is_some() && own == status.commit && before.is_some_and(|(_, generation)| generation == seen.1);
        let deleting = run.metadata.deletion_timestamp.is_some();
        if !is_final(run) && (!echo || deleting) {
            self.queue.add(Key::Run(name.to_owned()), now);
        }
        let phase_changed = before.is_none_or(|(phase, _)| phase != seen.0);
        if phase_changed {
            // A parent that gave up on it waits for nothing any more, and goes on when it does.
            let parent = run.spec.parent.as_ref().map(|parent| parent.run.clone());
            let rests = |name: &String| {
                let status = self.watches.runs.get(name).and_then(|run| run.status.as_ref());
                status.and_then(|status| status.phase) == Some(Phase::RequiresAttention)
            };
            if let Some(parent) = parent.filter(rests) {
                self.queue.add(Key::Run(parent), now);
            }
            self.hint(&run_subject(name), now);
            self.queue.add(Key::Update(update), now);
        } else {
            self.queue.add(Key::Update(update), now + TimeDelta::seconds(MIRROR_SECONDS));
        }
    }

    /// Lets the runs that wait for `subject` be ticked. Runs under way may be about to wait for it: they are told too.
    fn hint(&mut self, subject: &str, now: Timestamp) {
        let mut runs: BTreeSet<RunName> = self.operator.engine.waiting_on(subject).into_iter().collect();
        runs.extend(self.queue.busy().filter_map(|key| match key {
            Key::Run(name) => RunName::new(name.clone()).ok(),
            Key::Node(_) | Key::Schedule(_) | Key::Scheduled(_) | Key::Update(_) => None,
        }));
        for run in runs {
            self.queue.add(Key::Run(run.as_str().to_owned()), now + TimeDelta::milliseconds(TICK_GATHER_MILLISECONDS));
            self.hints.entry(run).or_default().insert(subject.to_owned());
        }
    }

    /// Whether the gates that somebody opened are others than when the update was last seen.
    fn approves_anew(&mut self, name: &str) -> bool {
        let control = self.watches.updates.get(name).and_then(|update| update.spec.control.as_ref());
        let approvals = control.map_or(0, |control| control.approvals.len());
        let before = if approvals == 0 {
            self.approvals.remove(name)
        } else {
            self.approvals.insert(name.to_owned(), approvals)
        };
        before.unwrap_or(0) != approvals
    }

    /// What people ask of the update's runs. One that cannot be read asks for nothing new; one that is gone asks for the end.
    fn intent(&self, name: &str) -> Intent {
        if let Some(update) = self.watches.updates.get(name) {
            return intent_of(update, self.operator.clock.now());
        }
        if self.watches.updates.is_unreadable(name) {
            let why = format!("DirectUpdate {name} cannot be read: mend it with kubectl edit directupdate {name}");
            return Intent { pause: Some(Reason::new("UpdateUnreadable", why)), cancel: false, ..Intent::default() };
        }
        Intent { pause: None, cancel: true, ..Intent::default() }
    }

    /// Lets the update's runs know how many workers may be in flight by its spec as it is now. Gives whether that is new.
    fn set_concurrency(&self, name: &str) -> bool {
        let Some(update) = self.watches.updates.get(name) else {
            return false;
        };
        let workers = match (update.spec.strategy, update.spec.concurrency) {
            // A plain number is a share of nothing: no need to count.
            (Strategy::Rolling | Strategy::Canary, Concurrency::Nodes(_)) => 0,
            (Strategy::Parallel, _) | (_, Concurrency::Percent(_)) => self.selected_workers(update),
        };
        self.operator.store.set_concurrency(name, concurrency_of(&update.spec, workers))
    }

    fn selected_workers(&self, update: &cupcake_crds::DirectUpdate) -> u32 {
        let views = self.watches.nodes.iter().map(|(_, node)| crate::adapters::views::node_view(node));
        let spec = update.spec_now();
        let selected = views.filter(|node| {
            let labels = &node.labels;
            node.role == NodeRole::Worker && spec.moves(&node.node.name, labels)
        });
        u32::try_from(selected.count()).unwrap_or(u32::MAX)
    }

    /// A run is gone: nodes that it had in its hands are looked at.
    fn look_at_held_nodes(&mut self, now: Timestamp) {
        let held = self.watches.nodes.iter().filter(|(name, node)| {
            node::runs_of(node, self.watches.tasks.get(name)).iter().any(|(uid, hold)| !self.run_holds(uid, *hold))
        });
        let held: Vec<String> = held.map(|(name, _)| name.clone()).collect();
        for name in held {
            self.queue.add(Key::Node(name), now);
        }
    }

    /// Whether that run may hold a node by that. One that cannot be read may.
    fn run_holds(&self, uid: &str, hold: node::Hold) -> bool {
        let run = self.watches.runs.iter().map(|(_, run)| run).find(|run| run.metadata.uid.as_deref() == Some(uid));
        run.is_some_and(|run| match hold {
            node::Hold::Cordon => node::may_leave_a_cordon(run),
            node::Hold::Order => !is_final(run),
        })
    }

    fn runs_of<'a>(&'a self, update: &'a str) -> impl Iterator<Item = &'a UpgradeRun> {
        self.watches.runs.iter().map(|(_, run)| run).filter(move |run| run.spec.direct_update.name == update)
    }

    /// The vertices of a run whose child is at work, or has done it.
    fn children_under_way(&self, run: &RunName) -> BTreeSet<VertexName> {
        let Some(own) = self.watches.runs.get(run.as_str()) else {
            return BTreeSet::new();
        };
        let uid = own.metadata.uid.as_deref();
        // A vertex that tries workers again has one child after the other: the newest counts.
        let mut newest: BTreeMap<&str, &UpgradeRun> = BTreeMap::new();
        for (_, child) in self.watches.runs.iter() {
            let Some(parent) = child.spec.parent.as_ref().filter(|parent| Some(parent.uid.as_str()) == uid) else {
                continue;
            };
            let age = |run: &UpgradeRun| (run.creation_timestamp(), run.name_any().len(), run.name_any());
            let newer = newest.get(parent.vertex.as_str()).is_none_or(|other| age(other) < age(child));
            if newer {
                newest.insert(&parent.vertex, child);
            }
        }
        // What its children came to is no news to one that rests until somebody asks for more.
        // Nor is it to one that the watch shows as it was before its last record.
        let shown = own.status.as_ref().and_then(|status| status.commit);
        let is_old = self.committed.get(run).is_some_and(|last| Some(*last) != shown);
        let asks = is_old || own.status.as_ref().is_some_and(|status| status.reason.as_deref() == Some(NODES_FAILED));
        let children = newest.into_iter().filter_map(|(vertex, child)| {
            let goes_on = matches!(child.status.as_ref()?.phase?, Phase::InProgress | Phase::Succeeded);
            (goes_on && !(asks && vertex == STRAGGLERS_VERTEX)).then(|| VertexName::new(vertex).ok()).flatten()
        });
        children.collect()
    }
}

/// Whether a run is over.
pub(crate) fn is_final(run: &UpgradeRun) -> bool {
    run.status.as_ref().and_then(|status| status.phase).is_some_and(Phase::is_final)
}

/// What people ask of the runs of an update: its spec, its annotations, and the time.
pub fn intent_of(update: &cupcake_crds::DirectUpdate, now: Timestamp) -> Intent {
    let control = update.spec_now().into_owned().control.unwrap_or_default();
    let pause = acknowledge::pause_of(update);
    let hold = timeout::holds(update).or_else(|| window::state(update, now).holds());
    let cancel = acknowledge::is_cancelled(update) || update.metadata.deletion_timestamp.is_some();
    // One about a run of a name that no run can have is about none.
    let asked = |request: VertexRequest| {
        let run = request.run.map(RunName::new).transpose().ok()?;
        Some(Asked { request: request.request_id, run, what: Some(request.vertex) })
    };
    let retry = control.retry.into_iter().filter_map(asked).collect();
    // A node, whichever run has it; named apart from retries, whose ids may be the same.
    let skip = control.skip.into_iter().map(|request| Asked {
        request: format!("skip/{}", request.request_id),
        run: None,
        what: Some(request.vertex),
    });
    let skip = skip.collect();
    Intent { pause, hold, cancel, retry, skip }
}
