//! Whatever process is killed or stopped, at whatever moment: agents, runners and leaders, on real processes.
//!
//! # Settings
//! `CUPCAKE_SEED`: who is hit and when. `CUPCAKE_KEEP_LOGS`: leaves the logs of a run that passed. The moments are drawn from the
//! seed; what is under way then is not, since the processes are real.
#![expect(clippy::disallowed_methods, reason = "ends real processes at moments of the wall clock")]

use crate::api_server::Cluster;
use crate::failover::{Chance, Replicas, SEED, TARGET, setting};
use cupcake_crds::values::Phase;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const LEASE_SECONDS: u32 = 3;
const WORKERS: u32 = 3;
/// How often somebody is hit at most.
const HITS_MAX: u32 = 60;
/// How long it is waited for a machine that has an order.
const RUNNER_AWAITED: Duration = Duration::from_secs(5);
/// Who is killed how often at least. A runner is there for seconds only, while its machine has an order.
const KILLS_MIN: [(&str, u32); 2] = [("agents killed", 3), ("runners killed", 1)];

/// Who is hit, and what was done so far.
struct Hand<'c> {
    cluster: &'c Cluster,
    replicas: Replicas<'c>,
    chance: Chance,
    done: BTreeMap<&'static str, u32>,
}

impl Hand<'_> {
    fn note(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    fn count(&self, what: &str) -> u32 {
        self.done.get(what).copied().unwrap_or_default()
    }

    /// Whom it hit, in one line.
    fn told(&self) -> String {
        let told: Vec<String> = self.done.iter().map(|(what, times)| format!("{what} {times}")).collect();
        format!("hit {} times: {}", self.done.values().sum::<u32>(), told.join(", "))
    }

    async fn pause(&mut self, milliseconds: u64, more: u64) {
        tokio::time::sleep(Duration::from_millis(milliseconds + self.chance.below(more))).await;
    }

    fn one_of<T>(&mut self, mut all: Vec<T>) -> Option<T> {
        let count = u64::try_from(all.len()).unwrap();
        (count > 0).then(|| all.swap_remove(usize::try_from(self.chance.below(count)).unwrap()))
    }

    fn node(&mut self) -> String {
        let nodes = self.cluster.agents.borrow().keys().cloned().collect();
        self.one_of(nodes).unwrap()
    }

    /// A runner that is at work: there is one only while its machine has an order.
    fn runner(&mut self) -> Option<Pid> {
        let nodes: Vec<String> = self.cluster.agents.borrow().keys().cloned().collect();
        let runners = nodes.iter().filter_map(|node| self.cluster.runner(node)).collect();
        self.one_of(runners)
    }

    /// One that is at work within some seconds, and has been for a moment.
    async fn runner_at_work(&mut self) -> Option<Pid> {
        let began = Instant::now();
        while self.runner().is_none() && began.elapsed() < RUNNER_AWAITED {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.pause(0, 250).await;
        self.runner()
    }

    async fn hit(&mut self) {
        let who = self.chance.below(10);
        let runner = if who <= 5 { self.runner_at_work().await } else { None };
        match (who, runner) {
            (0..=4, Some(runner)) => {
                // It may have ended since.
                if kill_process(runner, Signal::KILL).is_ok() {
                    self.note("runners killed");
                }
            }
            (5, Some(runner)) => {
                if kill_process(runner, Signal::STOP).is_ok() {
                    self.pause(500, 2_000).await;
                    let _ended = kill_process(runner, Signal::CONT);
                    self.note("runners stopped");
                }
            }
            (0..=7, _) => {
                let node = self.node();
                let mut agent = self.cluster.agents.borrow_mut().remove(&node).unwrap();
                agent.kill();
                self.pause(100, 1_000).await;
                self.cluster.start_agent(&node);
                self.note("agents killed");
            }
            (8, _) => {
                let leader = self.replicas.leader().await;
                let mut process = self.replicas.processes.remove(&leader).unwrap();
                process.kill();
                self.replicas.start_one(&leader);
                self.note("leaders killed");
            }
            (_, _) => {
                let leader = self.replicas.leader().await;
                self.replicas.processes[&leader].signal(Signal::STOP);
                self.pause(1_000 * u64::from(LEASE_SECONDS) + 1_200, 1_000).await;
                self.replicas.processes[&leader].signal(Signal::CONT);
                self.note("leaders stopped for longer than their lease");
            }
        }
    }
}

#[tokio::test]
async fn an_upgrade_ends_right_though_agents_runners_and_leaders_are_killed_and_stopped_all_the_time() {
    let seed = setting("CUPCAKE_SEED", SEED);
    println!("CUPCAKE_SEED={seed}");
    let Some(cluster) = Cluster::start("kills", WORKERS).await else { return };
    let began = Instant::now();
    let replicas = Replicas::start(&cluster, 3, LEASE_SECONDS);
    replicas.leader().await;
    cluster.apply(TARGET, 1).await;
    let mut hand = Hand { cluster: &cluster, replicas, chance: Chance(seed), done: BTreeMap::new() };
    for _ in 0..HITS_MAX {
        hand.pause(200, 900).await;
        if cluster.phase().await.0.is_some_and(Phase::is_final) {
            break;
        }
        hand.hit().await;
    }
    println!("{}", hand.told());
    cluster.ends_right(TARGET).await;
    println!("the whole upgrade took {:?}", began.elapsed());
    for (killed, least) in KILLS_MIN {
        assert!(hand.count(killed) >= least, "{killed} only {} times", hand.count(killed));
    }
}
