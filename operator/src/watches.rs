//! What the operator watches, and what it remembers of it.
//!
//! Streams are polled in a fixed order, so that one seed gives one run. An object that cannot be read (another writer left
//! it malformed) is remembered by name and stops nothing else.
//!
//! RBAC: list, watch on directupdates, scheduledupdates, updateschedules, upgraderuns, nodetasks, nodes.

use crate::guarded::Guarded;
use crate::leader::RESYNC_SECONDS;
use chrono::TimeDelta;
use cupcake_crds::{DirectUpdate, NodeTask, ScheduledUpdate, UpdateSchedule, UpgradeRun};
use cupcake_engine::clock::Timestamp;
use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::Node;
use kube::api::Api;
use kube::runtime::utils::{Backoff, WatchStreamExt};
use kube::runtime::watcher;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::task::Poll;
use std::time::Duration;

/// First pause after a failed watch, in milliseconds; it doubles up to [`BACKOFF_MILLISECONDS_MAX`].
const BACKOFF_MILLISECONDS_BASE: u64 = 500;
/// Longest pause after a failed watch, in milliseconds.
const BACKOFF_MILLISECONDS_MAX: u64 = 15_000;

/// What is watched, as metrics name it.
pub const RESOURCES: [&str; 6] =
    ["directupdates", "updateschedules", "scheduledupdates", "upgraderuns", "nodetasks", "nodes"];

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// A DirectUpdate of that name.
    Update(String),
    /// An UpdateSchedule of that name.
    Schedule(String),
    /// A ScheduledUpdate of that name.
    Scheduled(String),
    /// An UpgradeRun of that name.
    Run(String),
    /// A NodeTask of that name.
    Task(String),
    /// A Node of that name.
    Node(String),
    /// A watch failed and will be tried again.
    Failed {
        /// Which.
        what: &'static str,
        /// Why.
        why: String,
    },
}

/// The objects of one kind, by name.
#[derive(Debug)]
pub struct Cache<K> {
    objects: BTreeMap<String, K>,
    /// Names of objects that are there and cannot be read.
    unreadable: BTreeSet<String>,
    coming: Option<(BTreeMap<String, K>, BTreeSet<String>)>,
    synced: bool,
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), unreadable: BTreeSet::new(), coming: None, synced: false }
    }
}

impl<K: kube::Resource> Cache<K> {
    /// The object of that name.
    pub fn get(&self, name: &str) -> Option<&K> {
        self.objects.get(name)
    }

    /// Whether an object of that name is there and cannot be read.
    pub fn is_unreadable(&self, name: &str) -> bool {
        self.unreadable.contains(name)
    }

    /// All objects, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &K)> {
        self.objects.iter()
    }

    /// Takes one event; gives the names of what changed.
    fn take(&mut self, event: watcher::Event<Guarded<K>>) -> Vec<String>
    where
        K: Clone + 'static,
    {
        let name_of = |object: &Guarded<K>| match &object.0 {
            Ok(object) => object.meta().name.clone().unwrap_or_default(),
            Err(invalid) => invalid.metadata.name.clone().unwrap_or_default(),
        };
        match event {
            watcher::Event::Apply(object) => {
                let name = name_of(&object);
                match object.0 {
                    Ok(object) => {
                        self.unreadable.remove(&name);
                        self.objects.insert(name.clone(), object);
                    }
                    Err(invalid) => {
                        tracing::warn!(object = name, error = invalid.error, "object cannot be read; leaving it alone");
                        self.unreadable.insert(name.clone());
                        self.objects.remove(&name);
                    }
                }
                vec![name]
            }
            watcher::Event::Delete(object) => {
                let name = name_of(&object);
                self.objects.remove(&name);
                self.unreadable.remove(&name);
                vec![name]
            }
            watcher::Event::Init => {
                self.coming = Some(<(BTreeMap<String, K>, BTreeSet<String>)>::default());
                Vec::new()
            }
            watcher::Event::InitApply(object) => {
                let name = name_of(&object);
                let (objects, unreadable) = self.coming.get_or_insert_default();
                match object.0 {
                    Ok(object) => {
                        objects.insert(name, object);
                    }
                    Err(invalid) => {
                        tracing::warn!(object = name, error = invalid.error, "object cannot be read; leaving it alone");
                        unreadable.insert(name);
                    }
                }
                Vec::new()
            }
            watcher::Event::InitDone => {
                let (fresh, unreadable) = self.coming.take().unwrap_or_default();
                let before = std::mem::replace(&mut self.objects, fresh);
                self.unreadable = unreadable;
                self.synced = true;
                let mut names: Vec<String> = before.into_keys().chain(self.objects.keys().cloned()).collect();
                names.sort_unstable();
                names.dedup();
                names
            }
        }
    }
}

/// Doubling pauses without chance: kube's own draws its jitter from a generator that cannot be seeded.
#[derive(Debug, Default)]
struct Doubling {
    failures: u32,
}

impl Iterator for Doubling {
    type Item = Duration;
    fn next(&mut self) -> Option<Duration> {
        let pause = BACKOFF_MILLISECONDS_BASE.saturating_mul(1 << self.failures.min(8));
        self.failures += 1;
        Some(Duration::from_millis(pause.min(BACKOFF_MILLISECONDS_MAX)))
    }
}

impl Backoff for Doubling {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

type Events<K> = BoxStream<'static, watcher::Result<watcher::Event<Guarded<K>>>>;

fn events<K>(client: &kube::Client) -> Events<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    K: kube::Resource<Scope = k8s_openapi::ClusterResourceScope>,
    Guarded<K>: kube::Resource<DynamicType = ()>,
{
    let api: Api<Guarded<K>> = Api::all(client.clone());
    watcher(api, watcher::Config::default()).backoff(Doubling::default()).boxed()
}

/// The watches and what they showed.
pub struct Watches {
    /// DirectUpdates.
    pub updates: Cache<DirectUpdate>,
    /// UpdateSchedules.
    pub schedules: Cache<UpdateSchedule>,
    /// ScheduledUpdates.
    pub scheduled: Cache<ScheduledUpdate>,
    /// UpgradeRuns.
    pub runs: Cache<UpgradeRun>,
    /// NodeTasks.
    pub tasks: Cache<NodeTask>,
    /// Nodes.
    pub nodes: Cache<Node>,
    streams: Streams,
    client: kube::Client,
    /// When the next list is due, once somebody has asked.
    list_at: Option<Timestamp>,
}

struct Streams {
    updates: Events<DirectUpdate>,
    schedules: Events<UpdateSchedule>,
    scheduled: Events<ScheduledUpdate>,
    runs: Events<UpgradeRun>,
    tasks: Events<NodeTask>,
    nodes: Events<Node>,
}

enum Event {
    Update(watcher::Result<watcher::Event<Guarded<DirectUpdate>>>),
    Schedule(watcher::Result<watcher::Event<Guarded<UpdateSchedule>>>),
    Scheduled(watcher::Result<watcher::Event<Guarded<ScheduledUpdate>>>),
    Run(watcher::Result<watcher::Event<Guarded<UpgradeRun>>>),
    Task(watcher::Result<watcher::Event<Guarded<NodeTask>>>),
    Node(watcher::Result<watcher::Event<Guarded<Node>>>),
}

impl Watches {
    /// Starts all watches.
    pub fn start(client: &kube::Client) -> Self {
        Self {
            updates: Cache::default(),
            schedules: Cache::default(),
            scheduled: Cache::default(),
            runs: Cache::default(),
            tasks: Cache::default(),
            nodes: Cache::default(),
            streams: Streams {
                updates: events(client),
                schedules: events(client),
                scheduled: events(client),
                runs: events(client),
                tasks: events(client),
                nodes: events(client),
            },
            client: client.clone(),
            list_at: None,
        }
    }

    /// Lists updates, runs and schedules anew where that is due, and watches them from there: a watch may lose what it has to tell
    /// and stay open. Of tasks and Nodes there may be thousands; what waits for one of them reads it. Gives when the next list is due.
    pub fn list_when_due(&mut self, now: Timestamp) -> Timestamp {
        let next = now + TimeDelta::seconds(RESYNC_SECONDS);
        // A clock may be set back.
        let due = self.list_at.map_or(next, |at| at.min(next));
        if now < due {
            self.list_at = Some(due);
            return due;
        }
        self.streams.updates = events(&self.client);
        self.streams.runs = events(&self.client);
        self.streams.schedules = events(&self.client);
        self.streams.scheduled = events(&self.client);
        self.list_at = Some(next);
        next
    }

    /// Whether every watch that runs need has shown its whole list once.
    pub fn is_synced(&self) -> bool {
        self.updates.synced && self.runs.synced && self.tasks.synced && self.nodes.synced
    }

    /// Whether those of schedules have, too: an upgrade under way does not stand still for a right that only they need.
    pub fn schedules_are_synced(&self) -> bool {
        self.is_synced() && self.schedules.synced && self.scheduled.synced
    }

    /// Waits for the next event and gives what changed by it (nothing, for a part of a list). Cancel-safe.
    pub async fn next(&mut self) -> Vec<Changed> {
        let streams = &mut self.streams;
        let event = std::future::poll_fn(|cx| {
            if let Poll::Ready(Some(event)) = streams.updates.poll_next_unpin(cx) {
                return Poll::Ready(Event::Update(event));
            }
            if let Poll::Ready(Some(event)) = streams.runs.poll_next_unpin(cx) {
                return Poll::Ready(Event::Run(event));
            }
            if let Poll::Ready(Some(event)) = streams.tasks.poll_next_unpin(cx) {
                return Poll::Ready(Event::Task(event));
            }
            if let Poll::Ready(Some(event)) = streams.nodes.poll_next_unpin(cx) {
                return Poll::Ready(Event::Node(event));
            }
            if let Poll::Ready(Some(event)) = streams.schedules.poll_next_unpin(cx) {
                return Poll::Ready(Event::Schedule(event));
            }
            if let Poll::Ready(Some(event)) = streams.scheduled.poll_next_unpin(cx) {
                return Poll::Ready(Event::Scheduled(event));
            }
            Poll::Pending
        })
        .await;
        let failed = |what, error: watcher::Error| vec![Changed::Failed { what, why: crate::error_chain(&error) }];
        match event {
            Event::Update(Ok(event)) => self.updates.take(event).into_iter().map(Changed::Update).collect(),
            Event::Schedule(Ok(event)) => self.schedules.take(event).into_iter().map(Changed::Schedule).collect(),
            Event::Scheduled(Ok(event)) => self.scheduled.take(event).into_iter().map(Changed::Scheduled).collect(),
            Event::Run(Ok(event)) => self.runs.take(event).into_iter().map(Changed::Run).collect(),
            Event::Task(Ok(event)) => self.tasks.take(event).into_iter().map(Changed::Task).collect(),
            Event::Node(Ok(event)) => self.nodes.take(event).into_iter().map(Changed::Node).collect(),
            Event::Update(Err(error)) => failed("directupdates", error),
            Event::Schedule(Err(error)) => failed("updateschedules", error),
            Event::Scheduled(Err(error)) => failed("scheduledupdates", error),
            Event::Run(Err(error)) => failed("upgraderuns", error),
            Event::Task(Err(error)) => failed("nodetasks", error),
            Event::Node(Err(error)) => failed("nodes", error),
        }
    }
}
