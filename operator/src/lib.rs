//! The operator: intents become runs, runs are ticked, orders are written.
//!
//! ```text
//!  DirectUpdate ──controllers/update──► UpgradePlan + UpgradeRun ──controllers/run──► Engine::tick ──► steps ──► ports
//!      ▲  status                                                                                       │
//!      └──────────────────── adapters (KubeStore, KubeClusterOps, KubeNodeOps) ◄───────────────────────┘
//! ```
//! Five nouns: a *lease* makes one replica the leader and gives it an *epoch*; the leader's *watches* tell what changed; its
//! *queue* orders what to reconcile; a *reconcile* of a run is one tick of the engine. Called by `main` with a client from
//! the cluster, and by the sandbox with a client of its in-process API: the same code, on any clock.
//!
//! It holds no upgrade rules (those are steps and workflows) and never writes a NodeTask's status.

pub mod adapters;
pub mod attempts;
pub mod controllers;
pub mod epoch;
pub mod events;
pub mod guarded;
pub mod leader;
pub mod lease;
pub mod metrics;
pub mod notify;
pub mod outcome;
pub mod process;
pub mod queue;
pub mod run_status;
pub mod server;
mod silence;
pub mod traces;
mod unavailable;
pub mod watches;
pub mod web;

use adapters::cluster_ops::KubeClusterOps;
use adapters::kube_store::KubeStore;
use adapters::node_ops::KubeNodeOps;
use adapters::timed_store::TimedStore;
use cupcake_engine::clock::{Clock, Timestamp};
use cupcake_engine::names::Epoch;
use cupcake_engine::registry::{RegistryError, StepRegistry};
use cupcake_engine::tick::Engine;
use cupcake_steps::ports::cluster::{Cluster, ClusterPorts};
use cupcake_steps::ports::measures::{Measures, Nobody};
use futures::FutureExt;
use leader::Ended;
use lease::{LeaseLock, Standing, Timing};
use metrics::Metrics;
use notify::Sink;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use traces::Spans;

/// All that an operator replica is made of.
pub struct OperatorConfig {
    /// Talks to the API server. Its own retry layer must be off: a repeated PUT meets its own success.
    pub client: kube::Client,
    /// The only clock.
    pub clock: Arc<dyn Clock>,
    /// Tells this replica from others; a pod's name.
    pub identity: String,
    /// The node it runs on, if that is known: before host work disturbs that node, another replica takes over.
    pub node_name: Option<String>,
    /// Where the Lease lives.
    pub namespace: String,
    /// How long the lease holds.
    pub timing: Timing,
    /// The steps; [`standard_registry`] unless a user adds steps of their own.
    pub registry: StepRegistry<Cluster>,
    /// Where to count.
    pub metrics: Metrics,
    /// Where spans go, if anywhere.
    pub spans: Option<Arc<dyn Spans>>,
    /// Where notifications go, if anywhere.
    pub sink: Option<Arc<dyn Sink>>,
    /// Who measures what `spec.gates` ask for, if anybody.
    pub measures: Option<Arc<dyn Measures>>,
}

/// The steps of this release.
pub fn standard_registry() -> Result<StepRegistry<Cluster>, RegistryError> {
    let mut registry = StepRegistry::new();
    cupcake_steps::cluster::register(&mut registry)?;
    Ok(registry)
}

/// What every controller works with.
pub struct Operator {
    pub(crate) client: kube::Client,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) identity: String,
    pub(crate) store: KubeStore,
    pub(crate) engine: Engine<Cluster>,
    pub(crate) ports: ClusterPorts,
    pub(crate) metrics: Metrics,
    pub(crate) spans: Option<Arc<dyn Spans>>,
    pub(crate) sink: Option<Arc<dyn Sink>>,
    /// The machines that updates wait for before they start.
    pub(crate) awaited: controllers::Awaited,
    /// The machines that are at work for updates that are over.
    pub(crate) at_work: adapters::at_work::Seen,
}

/// Runs a replica until `shutdown`: competes for the lease, and leads while it holds it.
///
/// # Guarantees
/// Losing the lease stops ticking and goes on competing; no failure of the API server ends it. A leader that
/// meets a greater epoch than its own stops, and takes one above it if nobody leads under that. On `shutdown` what is under way is recorded, then the lease is released.
///
/// # Panics
/// Only where a reconcile does: the panic ends the whole process, lease and all, and whoever restarts it decides about it.
pub async fn run(config: OperatorConfig, shutdown: CancellationToken) {
    let OperatorConfig {
        client,
        clock,
        identity,
        node_name,
        namespace,
        timing,
        registry,
        metrics,
        spans,
        sink,
        measures,
    } = config;
    let store = KubeStore::new(client.clone());
    let timed = TimedStore { store: store.clone(), clock: Arc::clone(&clock), metrics: metrics.clone() };
    let cluster = KubeClusterOps::new(client.clone(), store.clone(), Arc::clone(&clock));
    let disturbed = Arc::new(Notify::new());
    let mut nodes = KubeNodeOps::new(client.clone(), namespace.clone());
    if let Some(node) = node_name {
        nodes = nodes.with_own_node(node, Arc::clone(&disturbed));
    }
    let operator = Operator {
        client: client.clone(),
        clock: Arc::clone(&clock),
        identity: identity.clone(),
        engine: Engine::new(Arc::new(registry), Arc::new(timed), Arc::clone(&clock)),
        store,
        ports: ClusterPorts {
            cluster: Arc::new(cluster),
            nodes: Arc::new(nodes),
            measures: measures.unwrap_or_else(|| Arc::new(Nobody)),
        },
        metrics: metrics.clone(),
        spans,
        sink,
        awaited: controllers::Awaited::default(),
        at_work: adapters::at_work::Seen::default(),
    };
    let mut lock = LeaseLock::new(client, &namespace, &identity, timing);
    while !shutdown.is_cancelled() {
        let Some((epoch, taken)) = acquire(&mut lock, clock.as_ref(), timing, &shutdown).await else {
            return;
        };
        tracing::info!(%epoch, identity, "leading");
        metrics.leads(true);
        let stop = CancellationToken::new();
        // What was ordered at the end of an earlier leadership ends none that begins now.
        let _rung_before = disturbed.notified().now_or_never();
        let leading = leader::lead(&operator, epoch, lock.unled(), stop.clone());
        let holding = hold(&mut lock, epoch, taken, clock.as_ref(), timing, &shutdown);
        let mut leading = std::pin::pin!(leading);
        let end = tokio::select! {
            biased;
            end = holding => {
                stop.cancel();
                leading.await;
                end
            }
            Ended::Outdated { by } = &mut leading => End::Outdated { by },
            () = disturbed.notified() => {
                stop.cancel();
                leading.await;
                End::Disturbed
            }
        };
        metrics.leads(false);
        match end {
            End::Shutdown => {}
            End::Disturbed => {
                tracing::info!(%epoch, "work begins on the node of this replica: another one may lead");
                release(&mut lock, epoch, clock.as_ref(), timing).await;
                // Whoever else is there is told by the watch, and takes it meanwhile; alone, this one leads on.
                clock.sleep_until(clock.now() + timing.retry()).await;
                continue;
            }
            End::Lost => {
                tracing::warn!(%epoch, "lease lost; competing again");
                continue;
            }
            // If another replica leads under it, the next attempt says so; if nobody does, this one must go above it.
            End::Outdated { by } => {
                tracing::warn!(%epoch, %by, "a greater epoch stands already; competing again");
                lock.knows_of(by);
                continue;
            }
        }
        release(&mut lock, epoch, clock.as_ref(), timing).await;
    }
}

/// Gives the lease up, or lets it expire if that takes as long.
async fn release(lock: &mut LeaseLock, epoch: Epoch, clock: &dyn Clock, timing: Timing) {
    let now = clock.now();
    let released = tokio::select! {
        biased;
        released = lock.release(epoch, now) => released,
        () = clock.sleep_until(now + timing.lease()) => return,
    };
    match released {
        Ok(()) => tracing::info!(%epoch, "lease released"),
        Err(error) => tracing::warn!(error = error_chain(&error), "lease not released; it expires by itself"),
    }
}

/// Waits until this replica holds the lease, and tells when it asked for it; `None` on shutdown.
async fn acquire(
    lock: &mut LeaseLock,
    clock: &dyn Clock,
    timing: Timing,
    shutdown: &CancellationToken,
) -> Option<(Epoch, Timestamp)> {
    loop {
        let sent = clock.now();
        match bounded_attempt(lock, None, clock, sent + timing.lease()).await {
            Some(Ok(Standing::Holds(epoch))) => return Some((epoch, sent)),
            Some(Ok(Standing::AnotherHolds | Standing::Unknown)) => {}
            Some(Err(error)) => tracing::warn!(error = error_chain(&error), "lease not reached; trying again"),
            None => tracing::warn!("lease not reached in time; trying again"),
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return None,
            () = lock.chance(clock) => {}
        }
    }
}

/// Why a replica no longer leads.
enum End {
    /// It was told to stop.
    Shutdown,
    /// Another replica holds the lease, or may by now.
    Lost,
    /// Work was ordered that disturbs the node it runs on.
    Disturbed,
    /// It met a greater epoch.
    Outdated {
        /// That one.
        by: Epoch,
    },
}

/// Renews the lease until it is lost or the replica is told to stop. It counts from when the lease was asked for, `renewed`, as those
/// count who see it taken.
async fn hold(
    lock: &mut LeaseLock,
    epoch: Epoch,
    mut renewed: Timestamp,
    clock: &dyn Clock,
    timing: Timing,
    shutdown: &CancellationToken,
) -> End {
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return End::Shutdown,
            () = clock.sleep_until(clock.now() + timing.retry()) => {}
        }
        // Others count from when they see the renewal, which is after it was sent: whoever counts from there gives up first.
        let sent = clock.now();
        // Half a lease for each, so that one request that never gets its answer leaves time for another.
        let until = (renewed + timing.lease()).min(sent + timing.lease() / 2);
        match bounded_attempt(lock, Some(epoch), clock, until).await {
            Some(Ok(Standing::Holds(held))) if held == epoch => {
                renewed = sent;
                continue;
            }
            Some(Ok(Standing::Holds(_) | Standing::AnotherHolds)) => return End::Lost,
            Some(Ok(Standing::Unknown)) => {}
            Some(Err(error)) => tracing::warn!(error = error_chain(&error), "lease not renewed; trying again"),
            None => tracing::warn!("lease not renewed in time"),
        }
        if clock.now() - renewed >= timing.lease() {
            return End::Lost;
        }
    }
}

/// One attempt at the lease; `None` if it is not answered until `until`.
async fn bounded_attempt(
    lock: &mut LeaseLock,
    led: Option<Epoch>,
    clock: &dyn Clock,
    until: Timestamp,
) -> Option<Result<Standing, kube::Error>> {
    tokio::select! {
        biased;
        attempted = lock.attempt(led, clock.now()) => Some(attempted),
        () = clock.sleep_until(until) => None,
    }
}

/// An error with all its causes, in one line, none of them twice.
pub fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
