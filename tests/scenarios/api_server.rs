//! The tier of real processes: etcd, kube-apiserver and two of its controllers; the operator, agents and runners as processes of
//! their own; only the machines are simulated.
//!
//! Skipped with a loud line where Go is absent and no binaries are named; never skipped when CI is set.
#![expect(
    clippy::disallowed_methods,
    reason = "starts real processes, reads their files, and polls them by the wall clock up to a limit"
)]

use crate::real::{ApiServer, Controllers, client_of, definitions_established, eventually};
use cupcake_crds::values::Phase;
use cupcake_crds::{DirectUpdate, DirectUpdateSpec};
use cupcake_engine::conformance;
use cupcake_operator::adapters::kube_store::KubeStore;
use cupcake_tests::install_definitions;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams, PostParams};
use rustix::process::{Pid, Signal};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A process that dies with the test.
pub(crate) struct Process(Child);

impl Process {
    fn simnode(log: &Path, kubeconfig: &Path, args: &[&str]) -> Self {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_simnode"))
            .args(args)
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Self(child)
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Whether it has not ended.
    pub(crate) fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// Waits for its end; gives whether it was a good one.
    pub(crate) async fn ended(&mut self) -> bool {
        eventually("the process to end", async || self.0.try_wait().unwrap()).await.success()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A cluster of simulated machines on a real API server, with the agents running.
pub(crate) struct Cluster {
    /// By node. These and the machines first, so that nobody writes into the server's folder any more when that is removed.
    pub(crate) agents: RefCell<BTreeMap<String, Process>>,
    _machines: Process,
    pub(crate) server: ApiServer,
    pub(crate) client: kube::Client,
    kubeconfig: PathBuf,
    workers: u32,
}

impl Cluster {
    pub(crate) async fn start(name: &str, workers: u32) -> Option<Self> {
        let server = ApiServer::start(name, Controllers::Some)?;
        let dir = server.dir.join("machines");
        std::fs::create_dir_all(&dir).unwrap();
        let workers_text = workers.to_string();
        let machines = ["machines", "--dir", dir.to_str().unwrap(), "--workers", &workers_text, "--from", "1.33.4"];
        let machines = Process::simnode(&server.dir.join("machines.log"), &server.kubeconfig(), &machines);
        let kubeconfig = dir.join("kubeconfig");
        let log = server.dir.join("machines.log");
        eventually("the machines", async || {
            let failed = std::fs::read_to_string(&log).unwrap_or_default();
            assert!(!failed.contains("Error"), "{failed}");
            kubeconfig.exists().then_some(())
        })
        .await;
        let client = client_of(&kubeconfig).await;
        let nodes: Api<Node> = Api::all(client.clone());
        let nodes = nodes.list(&ListParams::default()).await.unwrap();
        let cluster = Self { server, client, kubeconfig, workers, _machines: machines, agents: RefCell::default() };
        nodes.into_iter().for_each(|node| cluster.start_agent(&node.metadata.name.unwrap()));
        Some(cluster)
    }

    fn folder(&self, node: &str) -> PathBuf {
        self.server.dir.join("machines").join(node)
    }

    /// Starts the agent of a node; one that runs is killed.
    pub(crate) fn start_agent(&self, node: &str) {
        let (socket, folder) = (self.folder(node).join("machine.sock"), self.folder(node).join("cupcake"));
        let args = ["agent", "--node", node, "--socket", socket.to_str().unwrap(), "--dir", folder.to_str().unwrap()];
        let log = self.server.dir.join(format!("agent-{node}.log"));
        let agent = Process::simnode(&log, &self.kubeconfig, &args);
        self.agents.borrow_mut().insert(node.to_owned(), agent);
    }

    /// The runner that the machine's systemd has at work, if any.
    pub(crate) fn runner(&self, node: &str) -> Option<Pid> {
        let pid = std::fs::read_to_string(self.folder(node).join("runner.pid")).ok()?.parse::<i32>().ok()?;
        // The file outlives its process, whose number may be another one's by now.
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        let is_it = command.contains("\0runner\0") && command.contains(self.folder(node).to_str()?);
        Pid::from_raw(pid).filter(|_| is_it)
    }

    fn operator(&self) -> Process {
        self.replica("cupcake-operator-0", 5)
    }

    /// A replica of the operator of that identity.
    pub(crate) fn replica(&self, identity: &str, lease_seconds: u32) -> Process {
        let lease_seconds = lease_seconds.to_string();
        let args = ["operator", "--listen", "127.0.0.1:0", "--identity", identity, "--lease-seconds", &lease_seconds];
        Process::simnode(&self.server.dir.join(format!("{identity}.log")), &self.kubeconfig, &args)
    }

    pub(crate) async fn apply(&self, target: &str, concurrency: u32) {
        let spec = serde_json::json!({"targetVersion": target, "concurrency": concurrency});
        let spec: DirectUpdateSpec = serde_json::from_value(spec).unwrap();
        let api: Api<DirectUpdate> = Api::all(self.client.clone());
        api.create(&PostParams::default(), &DirectUpdate::new("to-next", spec)).await.unwrap();
    }

    pub(crate) async fn phase(&self) -> (Option<Phase>, String) {
        let api: Api<DirectUpdate> = Api::all(self.client.clone());
        // A time-out or a server that is away is looked at again.
        let status = api.get("to-next").await.ok().and_then(|update| update.status).unwrap_or_default();
        (status.phase, status.message.unwrap_or_default())
    }

    /// Waits for the end and checks what must hold then.
    pub(crate) async fn ends_right(&self, target: &str) {
        let (phase, message) = eventually("the update to end", async || {
            let (phase, message) = self.phase().await;
            phase.filter(|phase| phase.is_final() || *phase == Phase::RequiresAttention).map(|phase| (phase, message))
        })
        .await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        let nodes: Api<Node> = Api::all(self.client.clone());
        for node in nodes.list(&ListParams::default()).await.unwrap() {
            let version = node.status.unwrap().node_info.unwrap().kubelet_version;
            assert_eq!(version, format!("v{target}"), "{:?}", node.metadata.name);
            assert_ne!(node.spec.unwrap().unschedulable, Some(true), "{:?}", node.metadata.name);
        }
        // The ledger file follows the ledger within a moment.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let ledger = std::fs::read_to_string(self.server.dir.join("machines/ledger.json")).unwrap();
        let ledger: serde_json::Value = serde_json::from_str(&ledger).unwrap();
        assert_eq!(ledger["duplicated"], 0, "{ledger:#}");
        let effects = ledger["effects"].as_array().unwrap().len();
        assert!(effects > 5, "the machines did something: {ledger:#}");
        let (twice, reruns) = (&ledger["duplicated"], &ledger["rerunsAfterInterruption"]);
        println!("{effects} effects, done twice: {twice}, run again after an interruption: {reruns}");
        println!("engine API writes per worker: {:.1}", f64::from(self.engine_writes()) / f64::from(self.workers));
    }

    /// How long the audit log is now, in bytes.
    pub(crate) fn audited(&self) -> u64 {
        std::fs::metadata(self.server.dir.join("audit.log")).map_or(0, |log| log.len())
    }

    /// Write requests, accepted and refused, as the API server's audit log has them from that byte on.
    pub(crate) fn requests_since(&self, byte: u64) -> Vec<Write> {
        let mut log = String::new();
        if let Ok(mut file) = std::fs::File::open(self.server.dir.join("audit.log")) {
            file.seek(SeekFrom::Start(byte)).unwrap();
            file.read_to_string(&mut log).unwrap();
        }
        let entries = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let mut writes: Vec<Write> = entries
            .map(|entry| Write {
                verb: word(&entry["verb"]),
                what: [&entry["objectRef"]["resource"], &entry["objectRef"]["subresource"]]
                    .map(word)
                    .join("/")
                    .trim_end_matches('/')
                    .to_owned(),
                name: word(&entry["objectRef"]["name"]),
                by: word(&entry["userAgent"]),
                code: entry["responseStatus"]["code"].as_i64().unwrap_or_default(),
                received: word(&entry["requestReceivedTimestamp"]).parse().unwrap(),
                answered: word(&entry["stageTimestamp"]).parse().unwrap(),
            })
            .collect();
        writes.sort_by_key(|write| write.answered);
        writes
    }

    /// Accepted writes.
    fn writes(&self) -> Vec<Write> {
        self.requests_since(0).into_iter().filter(Write::is_accepted).collect()
    }

    /// Accepted writes to runs, plans and tasks.
    fn engine_writes(&self) -> u32 {
        let ours =
            |write: &&Write| matches!(write.what.split('/').next(), Some("upgraderuns" | "upgradeplans" | "nodetasks"));
        u32::try_from(self.writes().iter().filter(ours).count()).unwrap()
    }

    /// For each node that was drained: from the answer that its first part is done, as accepted by the API server, to the arrival
    /// of the cordon, which is the next effect. In between are the watch, the commits of the result and of the intent, and the probes.
    fn step_overheads(&self) -> Vec<Duration> {
        let writes = self.writes();
        let is = |write: &Write, verb: &str, what: &str, name: &str| {
            write.verb == verb && write.what == what && write.name == name
        };
        let nodes: std::collections::BTreeSet<&str> =
            writes.iter().filter(|write| write.what == "nodetasks").map(|write| write.name.as_str()).collect();
        let overhead = |node: &str| {
            let at = writes.iter().position(|write| is(write, "patch", "nodes", node))?;
            let answer = writes[..at].iter().rev().find(|write| is(write, "patch", "nodetasks/status", node))?;
            (writes[at].received - answer.answered).to_std().ok()
        };
        let mut overheads: Vec<Duration> = nodes.into_iter().filter_map(overhead).collect();
        overheads.sort();
        overheads
    }
}

/// One answered write request.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) verb: String,
    /// Resource, with its subresource.
    pub(crate) what: String,
    pub(crate) name: String,
    /// The client's User-Agent.
    pub(crate) by: String,
    pub(crate) code: i64,
    pub(crate) received: chrono::DateTime<chrono::Utc>,
    pub(crate) answered: chrono::DateTime<chrono::Utc>,
}

impl Write {
    pub(crate) fn is_accepted(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// Whether it is of the operator's replica of that identity.
    pub(crate) fn is_of(&self, identity: &str) -> bool {
        self.by.starts_with("cupcake-operator/") && self.by.ends_with(&format!("({identity})"))
    }
}

#[tokio::test]
async fn definitions_establish_and_the_kube_store_keeps_every_promise_on_a_real_api_server() {
    let Some(server) = ApiServer::start("store", Controllers::Some) else { return };
    let client = client_of(&server.kubeconfig()).await;
    install_definitions(&client).await.unwrap();
    definitions_established(&client).await;
    conformance::suite(&KubeStore::new(client)).await;
}

#[tokio::test]
async fn an_upgrade_on_a_real_api_server_ends_succeeded_though_the_operator_is_killed_ten_times() {
    let Some(cluster) = Cluster::start("upgrade", 3).await else { return };
    let began = Instant::now();
    let mut operator = cluster.operator();
    cluster.apply("1.34.4", 1).await;
    let mut kills = 0;
    // Seeded pauses of 300 to 2,800 ms: a small generator, so that a failure can be repeated.
    let mut random: u64 = 7;
    while kills < 10 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        tokio::time::sleep(Duration::from_millis(300 + (random >> 33) % 2_500)).await;
        operator.kill();
        kills += 1;
        operator = cluster.operator();
        if cluster.phase().await.0.is_some_and(Phase::is_final) {
            break;
        }
    }
    println!("killed the operator {kills} times");
    cluster.ends_right("1.34.4").await;
    println!("the whole upgrade took {:?}", began.elapsed());
    drop(operator);
}

#[tokio::test]
async fn an_untouched_upgrade_on_a_real_api_server_writes_little_and_loses_no_time_between_steps() {
    let Some(cluster) = Cluster::start("untouched", 10).await else { return };
    let began = Instant::now();
    let operator = cluster.operator();
    cluster.apply("1.34.4", 10).await;
    cluster.ends_right("1.34.4").await;
    println!("the whole upgrade took {:?}", began.elapsed());
    let writes = f64::from(cluster.engine_writes()) / f64::from(cluster.workers);
    assert!(writes <= 20.0, "{writes} engine writes a worker, control plane and creation included");
    let overheads = cluster.step_overheads();
    assert_eq!(overheads.len(), 11, "every node was drained");
    let (median, most) = (overheads[overheads.len() / 2], overheads[overheads.len() - 1]);
    println!("step overhead over {} nodes: median {median:?}, most {most:?}", overheads.len());
    // Far above what was measured: only a lost wake-up, which waits for a resync, takes this long.
    assert!(most < Duration::from_secs(5), "{overheads:?}");
    drop(operator);
}
