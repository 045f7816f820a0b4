//! Leaders that die, are asked to stop, or are stopped and wake up again, and servers that go away: on real processes.
//!
//! # What is measured
//! A fail-over is begun at a moment when something is due: an agent has just answered that the first part of its order is done
//! (state Prepared), so the node is to be cordoned, drained and told to proceed. It is measured from just before the signal
//! until the API server has answered the first effect of another replica: an order or `proceed` (PUT of a NodeTask), a cordon
//! or uncordon (PATCH of a Node), or an eviction. Where the leader itself has done what was due, there is nothing to measure, and
//! another leader is ended. The epoch's stamps are PATCHes of NodeTasks and do not count, nor do commits.
//!
//! # Settings
//! `CUPCAKE_FAILOVERS`: how many of each kind (3). `CUPCAKE_AWAY_SECONDS`: how long a killed server stays away (3). `CUPCAKE_SEED`: the
//! moments at which leaders are stopped. `CUPCAKE_KEEP_LOGS`: leaves the logs of a run that passed. The bounds that are asserted
//! leave room for a machine that does other things, the figures are printed.
#![expect(
    clippy::disallowed_methods,
    reason = "starts real processes, reads their files, and polls them by the wall clock up to a limit"
)]

use crate::api_server::{Cluster, Process, Write};
use crate::real::{ApiServer, Controllers, client_of, eventually};
use chrono::{TimeDelta, Utc};
use cupcake_crds::NodeTask;
use cupcake_crds::node_task::TaskState;
use cupcake_crds::values::Phase;
use cupcake_engine::names::Epoch;
use cupcake_operator::lease::{LEASE_NAME, LeaseLock, Standing, Timing};
use cupcake_operator::process::SystemClock;
use cupcake_tests::install_definitions;
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, DeleteParams, ListParams};
use kube::runtime::watcher;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub(crate) const TARGET: &str = "1.34.4";
/// How many fail-overs of a kind there are unless the environment says otherwise.
const FAILOVERS: u32 = 3;
/// How often in a row the leader may have done what was due when it is ended.
const TOO_LATE_MAX: u32 = 2;
/// How often a leader is stopped at least, and at most if no write of a stopped leader met the fence.
const STOPS: std::ops::RangeInclusive<u32> = 4..=7;
/// Seed of the moments at which leaders are stopped, unless `CUPCAKE_SEED` says otherwise.
pub(crate) const SEED: u64 = 11;

pub(crate) fn setting<T: std::str::FromStr>(name: &str, otherwise: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// The operator's replicas, by identity.
pub(crate) struct Replicas<'c> {
    cluster: &'c Cluster,
    lease_seconds: u32,
    pub(crate) processes: BTreeMap<String, Process>,
}

impl<'c> Replicas<'c> {
    pub(crate) fn start(cluster: &'c Cluster, number: u32, lease_seconds: u32) -> Self {
        let mut replicas = Self { cluster, lease_seconds, processes: BTreeMap::new() };
        for number in 0..number {
            replicas.start_one(&format!("operator-{number}"));
        }
        replicas
    }

    pub(crate) fn start_one(&mut self, identity: &str) {
        self.processes.insert(identity.to_owned(), self.cluster.replica(identity, self.lease_seconds));
    }

    /// Who holds the lease, once anybody does.
    pub(crate) async fn leader(&self) -> String {
        let api: Api<Lease> = Api::namespaced(self.cluster.client.clone(), "kube-system");
        eventually("a leader", async || {
            let holder = api.get(LEASE_NAME).await.ok()?.spec?.holder_identity?;
            self.processes.contains_key(&holder).then_some(holder)
        })
        .await
    }

    /// Waits until a machine answers that the first part of its order is done.
    async fn something_is_due(&self) {
        let api: Api<NodeTask> = Api::all(self.cluster.client.clone());
        let mut events = watcher(api, watcher::Config::default()).boxed();
        let is_prepared = |task: &NodeTask| task.answer() == Some(TaskState::Prepared);
        let mut seen = BTreeMap::new();
        let due = async {
            while let Some(event) = events.next().await {
                match event {
                    Ok(watcher::Event::InitApply(task)) => {
                        seen.insert(task.spec.node_name.clone(), is_prepared(&task));
                    }
                    Ok(watcher::Event::Apply(task)) => {
                        let before = seen.insert(task.spec.node_name.clone(), is_prepared(&task));
                        if before != Some(true) && is_prepared(&task) {
                            return;
                        }
                    }
                    Ok(watcher::Event::Init | watcher::Event::InitDone | watcher::Event::Delete(_)) | Err(_) => {}
                }
            }
        };
        // A control-plane node soaks for 30 s, and after a long outage an agent may look again as late as that.
        let waited = tokio::time::timeout(Duration::from_secs(120), due).await;
        assert!(waited.is_ok(), "no machine finished its first part within 120 s: {:?}", self.cluster.phase().await);
    }

    /// Ends the leader at a moment when something is due, starts it again after the measure, and gives the measure.
    async fn fail_over(&mut self, signal: Signal) -> FailOver {
        for _ in 0..=TOO_LATE_MAX {
            if let Some(measured) = self.one_fail_over(signal).await {
                return measured;
            }
        }
        panic!("{signal:?} came too late more than {TOO_LATE_MAX} times: the leader had done what was due");
    }

    /// `None` if the leader was faster than the signal, or ended by doing what was due: then nothing is due for the next one.
    async fn one_fail_over(&mut self, signal: Signal) -> Option<FailOver> {
        let leader = self.leader().await;
        self.something_is_due().await;
        let audited = self.cluster.audited();
        let began = Utc::now();
        let mut process = self.processes.remove(&leader).unwrap();
        process.signal(signal);
        let good = process.ended().await;
        assert!(good || signal != Signal::TERM, "{leader} was asked to stop and ended badly: see its log");
        let writes = self.cluster.requests_since(0);
        let accepted = || writes.iter().filter(|write| write.is_accepted());
        let answers = accepted().filter(|write| write.what == "nodetasks/status" && write.answered <= began);
        let due = answers.map(|write| write.answered).max().expect("a machine has answered");
        // The order to proceed is the last of what was due.
        let is_last = |write: &&Write| write.is_of(&leader) && write.verb == "update" && write.what == "nodetasks";
        if accepted().filter(is_last).any(|write| write.received >= due) {
            println!("{signal:?} of {leader} came too late: it had done what was due, or did it first");
            self.start_one(&leader);
            return None;
        }
        let others: Vec<String> = self.processes.keys().cloned().collect();
        let is_of_others = |write: &Write| others.iter().any(|other| write.is_of(other));
        let measured = eventually("the next effect", async || {
            let writes = self.cluster.requests_since(audited);
            let after = |wanted: &dyn Fn(&Write) -> bool| {
                let write = writes.iter().filter(|write| write.is_accepted() && is_of_others(write));
                write
                    .filter(|write| write.received >= began)
                    .find(|write| wanted(write))
                    .map(|write| write.answered - began)
            };
            Some(FailOver {
                lease: after(&|write| write.verb == "update" && write.what == "leases")?,
                commit: after(&|write| write.verb == "update" && write.what == "upgraderuns/status")?,
                effect: after(&is_effect)?,
            })
        })
        .await;
        println!("{signal:?} of {leader}: {measured}");
        self.start_one(&leader);
        Some(measured)
    }
}

/// What changes the world outside of the run's own record.
fn is_effect(write: &Write) -> bool {
    matches!(
        (write.verb.as_str(), write.what.as_str()),
        ("update", "nodetasks") | ("patch", "nodes") | ("create", "pods/eviction")
    )
}

/// From the signal to the answer of another replica's first write of each sort.
struct FailOver {
    lease: TimeDelta,
    commit: TimeDelta,
    effect: TimeDelta,
}

impl std::fmt::Display for FailOver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [lease, commit, effect] = [self.lease, self.commit, self.effect].map(|span| span.num_milliseconds());
        write!(f, "lease taken after {lease} ms, first commit after {commit} ms, next effect after {effect} ms")
    }
}

/// Prints least, median and most, and gives the most.
fn summary(what: &str, failovers: &[FailOver]) -> Duration {
    let mut spans: Vec<i64> = failovers.iter().map(|failover| failover.effect.num_milliseconds()).collect();
    spans.sort_unstable();
    let (least, median, most) = (spans[0], spans[spans.len() / 2], spans[spans.len() - 1]);
    println!("{what}, {} times, to the next effect: min {least} ms, median {median} ms, max {most} ms", spans.len());
    Duration::from_millis(most.unsigned_abs())
}

#[tokio::test]
async fn another_replica_acts_soon_after_its_leader_was_killed_or_asked_to_stop() {
    let failovers = setting("CUPCAKE_FAILOVERS", FAILOVERS);
    let Some(cluster) = Cluster::start("failover", 2 * failovers + 3).await else { return };
    let began = Instant::now();
    let mut replicas = Replicas::start(&cluster, 3, 5);
    replicas.leader().await;
    cluster.apply(TARGET, 1).await;
    let (mut killed, mut asked) = (Vec::new(), Vec::new());
    for _ in 0..failovers {
        asked.push(replicas.fail_over(Signal::TERM).await);
        killed.push(replicas.fail_over(Signal::KILL).await);
    }
    let after_kill = summary("killed", &killed);
    let after_request = summary("asked to stop", &asked);
    cluster.ends_right(TARGET).await;
    println!("the whole upgrade took {:?}", began.elapsed());
    // The goals are 6 s and 1 s; a machine that compiles beside this may take longer, but not as long as a poll or a lost
    // wake-up would.
    assert!(after_kill < Duration::from_secs(9), "{after_kill:?}");
    assert!(after_request < Duration::from_secs(4), "{after_request:?}");
}

/// Seeded numbers below a bound: a small generator, so that a failure can be repeated.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// A refusal of a write that only a leader makes, because the object has moved on.
fn is_fenced(write: &Write) -> bool {
    let of_leader = matches!(write.what.as_str(), "upgraderuns/status" | "upgraderuns" | "nodetasks" | "nodes");
    of_leader && matches!(write.code, 409 | 422)
}

#[tokio::test]
async fn a_leader_that_is_stopped_for_longer_than_its_lease_does_nothing_twice_when_it_wakes_up() {
    const LEASE_SECONDS: u32 = 3;
    let seed = setting("CUPCAKE_SEED", SEED);
    println!("CUPCAKE_SEED={seed}");
    let mut chance = Chance(seed);
    // Two workers at once, and each stop is at a node of its own or a pair of them.
    let Some(cluster) = Cluster::start("stopped", 2 * (STOPS.end() - 1)).await else { return };
    let began = Instant::now();
    let replicas = Replicas::start(&cluster, 3, LEASE_SECONDS);
    replicas.leader().await;
    cluster.apply(TARGET, 2).await;
    let (mut stops, mut refused) = (0, Vec::new());
    while stops < *STOPS.start() || (refused.is_empty() && stops < *STOPS.end()) {
        let leader = replicas.leader().await;
        replicas.something_is_due().await;
        // In the middle of what the leader does about it: changes are gathered for 40 ms, then come commit, cordon, commit.
        tokio::time::sleep(Duration::from_millis(20 + chance.below(80))).await;
        let process = &replicas.processes[&leader];
        process.signal(Signal::STOP);
        stops += 1;
        let long = 1_000 * u64::from(LEASE_SECONDS) + 1_200 + chance.below(1_000);
        tokio::time::sleep(Duration::from_millis(long)).await;
        let successor =
            eventually("a successor", async || Some(replicas.leader().await).filter(|now| *now != leader)).await;
        let audited = cluster.audited();
        process.signal(Signal::CONT);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let fenced =
            cluster.requests_since(audited).into_iter().filter(|write| write.is_of(&leader) && is_fenced(write));
        let fenced: Vec<String> =
            fenced.map(|write| format!("{} {}/{} ({})", write.verb, write.what, write.name, write.code)).collect();
        println!("{leader} was stopped for {long} ms, {successor} led; refused when it woke up: {fenced:?}");
        refused.extend(fenced);
    }
    println!("{} writes of {stops} stopped leaders were refused", refused.len());
    assert!(!refused.is_empty(), "no stop was in the middle of a write: the fence was not tried");
    cluster.ends_right(TARGET).await;
    println!("the whole upgrade took {:?}", began.elapsed());
}

#[tokio::test]
async fn a_lease_that_was_deleted_is_not_brought_back_by_the_next_renewal_of_its_holder() {
    let Some(server) = ApiServer::start("lease", Controllers::Some) else { return };
    let client = client_of(&server.kubeconfig()).await;
    install_definitions(&client).await.unwrap();
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-system");
    eventually("the namespace", async || leases.list(&ListParams::default()).await.ok()).await;
    let timing = Timing { lease_seconds: 5, retry_seconds: 1 };
    let [mut slow, mut fast] = ["slow", "fast"].map(|name| LeaseLock::new(client.clone(), "kube-system", name, timing));
    let holds = |epoch| Standing::Holds(Epoch(epoch));
    let mine = eventually("the definitions", async || slow.attempt(None, Utc::now()).await.ok()).await;
    assert_eq!(mine, holds(1));
    assert_eq!(fast.attempt(None, Utc::now()).await.unwrap(), Standing::AnotherHolds);
    let delete = async || leases.delete(LEASE_NAME, &DeleteParams::default()).await.unwrap();
    delete().await;
    fast.chance(&SystemClock).await;
    assert_eq!(fast.attempt(None, Utc::now()).await.unwrap(), holds(2));
    delete().await;
    // It slept through all of that, and the epoch that it led under is past.
    let renewed = slow.attempt(Some(Epoch(1)), Utc::now()).await.unwrap();
    assert_ne!(renewed, holds(1));
}

#[tokio::test]
async fn five_replicas_are_safe_while_somebody_deletes_their_lease_all_the_time() {
    let Some(cluster) = Cluster::start("deleted", 2).await else { return };
    let began = Instant::now();
    let replicas = Replicas::start(&cluster, 5, 5);
    replicas.leader().await;
    cluster.apply(TARGET, 2).await;
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), "kube-system");
    let mut deletions = 0;
    let mut leaders = BTreeMap::new();
    while !cluster.phase().await.0.is_some_and(Phase::is_final) && deletions < 60 {
        *leaders.entry(replicas.leader().await).or_insert(0) += 1;
        let _gone = leases.delete(LEASE_NAME, &DeleteParams::default()).await;
        deletions += 1;
        tokio::time::sleep(Duration::from_millis(1_300)).await;
    }
    println!("the lease was deleted {deletions} times; how often each replica held it: {leaders:?}");
    cluster.ends_right(TARGET).await;
    println!("the whole upgrade took {:?}", began.elapsed());
}

#[tokio::test]
async fn an_upgrade_goes_on_after_the_api_server_and_etcd_were_killed_and_started_again() {
    let away_seconds = setting("CUPCAKE_AWAY_SECONDS", 3);
    let Some(cluster) = Cluster::start("restarts", 2).await else { return };
    let began = Instant::now();
    let mut replicas = Replicas::start(&cluster, 3, 5);
    replicas.leader().await;
    cluster.apply(TARGET, 1).await;
    for program in ["kube-apiserver", "etcd"] {
        replicas.something_is_due().await;
        let killed = Utc::now();
        cluster.server.restart(program, away_seconds).await;
        let ready = Utc::now();
        let effect = eventually("the next effect", async || {
            let writes = cluster.requests_since(0).into_iter();
            let back = killed + TimeDelta::seconds(i64::from(away_seconds));
            writes.filter(|write| write.is_accepted() && is_effect(write)).find(|write| write.received > back)
        })
        .await;
        let [away, acts] = [ready - killed, effect.answered - killed].map(|span| span.num_milliseconds());
        println!("{program} was killed; ready again after {away} ms, next effect after {acts} ms");
    }
    for (identity, process) in &mut replicas.processes {
        assert!(process.runs(), "{identity} ended while the API server was away: see its log");
    }
    cluster.ends_right(TARGET).await;
    println!("the whole upgrade took {:?}", began.elapsed());
}
