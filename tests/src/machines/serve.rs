//! The process of the machines: their kubelets, kubeadm and systemd, a socket each, and the ledger of effects.
#![expect(
    clippy::disallowed_methods,
    reason = "a process of its own: its tasks, its files, and the runners that it starts"
)]

use super::api::{RealApi, proxy};
use super::wire::{Call, answer};
use axum::serve::ListenerExt;
use chrono::TimeDelta;
use cupcake_crds::KubeVersion;
use cupcake_engine::clock::Clock;
use cupcake_operator::process::SystemClock;
use cupcake_sandbox::machine::agenda::Agenda;
use cupcake_sandbox::machine::control_plane::ControlPlane;
use cupcake_sandbox::machine::fault::{Component, Life};
use cupcake_sandbox::machine::ledger::Ledger;
use cupcake_sandbox::machine::releases::Repositories;
use cupcake_sandbox::machine::systemd::UnitEnd;
use cupcake_sandbox::machine::transcript::Transcript;
use cupcake_sandbox::machine::{SimHost, SimMachine, Site};
use cupcake_sandbox::world::{WorldConfig, birth};
use cupcake_steps::ports::host::HostError;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UnixListener, UnixStream};

/// How often the addons' controllers look, in milliseconds.
const CONTROLLER_MILLISECONDS: i64 = 500;

/// What the machines' process is told.
#[derive(Debug, Clone)]
pub struct Machines {
    /// Where sockets, folders and the kubeconfig go.
    pub dir: PathBuf,
    /// Control-plane nodes.
    pub control_planes: u32,
    /// Workers.
    pub workers: u32,
    /// Their version.
    pub from: KubeVersion,
    /// How many times faster than real machines they are.
    pub haste: u32,
    /// The binary that runs runners: this one.
    pub program: PathBuf,
}

/// Serves until it is killed.
pub async fn serve(machines: Machines) -> anyhow::Result<()> {
    // A runtime of its own: machines wait for their answers on a thread of this one, where the request could be next in line.
    let requests =
        Box::leak(Box::new(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?));
    let client = requests.spawn(cupcake_operator::process::client()).await??;
    let definer = client.clone();
    requests.spawn(async move { crate::install_definitions(&definer).await }).await??;
    let api = RealApi::new(client, requests.handle().clone(), machines.from);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let kubeconfig = kubeconfig(listener.local_addr()?.port());
    // An answer goes out in parts. Without this the second one waits for the acknowledgement of the first, which the other side
    // puts off for 40 ms: most of the time between two requests of the operator was that.
    let listener = listener.tap_io(|connection| {
        // One that cannot be told so is slower, no more.
        let _ = connection.set_nodelay(true);
    });
    let serving = axum::serve(listener, proxy(api.clone()));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let agenda = Agenda::default();
    let transcript = Transcript::default();
    let site = Arc::new(Site {
        api: Arc::new(api),
        clock: Arc::clone(&clock),
        agenda: agenda.clone(),
        ledger: Ledger::new(Arc::clone(&clock), transcript),
        repositories: Repositories::with([]),
        control_plane: ControlPlane::default(),
        seed: 7,
        haste: machines.haste,
    });
    let mut config = WorldConfig::new(machines.from, clock.now());
    config.control_planes = machines.control_planes;
    config.workers = machines.workers;
    let all = birth::machines(&config, &site);
    let born = {
        let (config, site, all) = (config.clone(), Arc::clone(&site), all.clone());
        tokio::task::spawn_blocking(move || birth::populate(&config, &site, &all))
    };
    born.await??;
    for (name, machine) in &all {
        let folder = machines.dir.join(name);
        std::fs::create_dir_all(&folder)?;
        let socket = folder.join("machine.sock");
        install_runner(machine, &machines.program, &folder, &socket);
        tokio::spawn(answer_calls(UnixListener::bind(&socket)?, Arc::clone(machine), Arc::clone(&site)));
    }
    tokio::spawn(controllers(Arc::clone(&site)));
    let ledger = site.ledger.clone();
    tokio::spawn(write_ledger(machines.dir.join("ledger.json"), ledger, Arc::clone(&clock)));
    // Written last: who finds it finds everything else.
    std::fs::write(machines.dir.join("kubeconfig.tmp"), kubeconfig)?;
    std::fs::rename(machines.dir.join("kubeconfig.tmp"), machines.dir.join("kubeconfig"))?;
    tokio::select! {
        biased;
        () = agenda.run(clock) => Ok(()),
        served = serving => Ok(served?),
    }
}

fn kubeconfig(port: u16) -> String {
    let cluster = json!({"server": format!("http://127.0.0.1:{port}")});
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    })
    .to_string()
}

/// Lets the machine's systemd run the runner as a process.
fn install_runner(machine: &Arc<SimMachine>, program: &Path, folder: &Path, socket: &Path) {
    let (program, folder, socket) = (program.to_owned(), folder.to_owned(), socket.to_owned());
    let handle = tokio::runtime::Handle::current();
    machine.install_program(Arc::new(move |machine, life: Life| {
        let mut command = tokio::process::Command::new(&program);
        command.arg("runner").arg("--socket").arg(&socket).arg("--dir").arg(folder.join("cupcake"));
        command.arg("--node").arg(machine.name()).stdin(Stdio::null()).kill_on_drop(true);
        let pid_file = folder.join("runner.pid");
        handle.spawn(async move {
            let end = match command.spawn() {
                Ok(mut child) => {
                    let pid = child.id().unwrap_or_default().to_string();
                    let noted = std::fs::write(&pid_file, pid);
                    match (noted, child.wait().await) {
                        (Ok(()), Ok(status)) if status.success() => UnitEnd::Finished,
                        _ => UnitEnd::Crashed,
                    }
                }
                Err(_) => UnitEnd::Crashed,
            };
            machine.unit_ended(&life, end);
        });
    }));
}

async fn answer_calls(listener: UnixListener, machine: Arc<SimMachine>, site: Arc<Site>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(answer_call(stream, Arc::clone(&machine), Arc::clone(&site)));
    }
}

/// One call; dropped where it is when the caller goes away.
async fn answer_call(stream: UnixStream, machine: Arc<SimMachine>, site: Arc<Site>) {
    let (reading, mut writing) = stream.into_split();
    let mut reading = BufReader::new(reading);
    let mut line = String::new();
    if reading.read_line(&mut line).await.is_err() {
        return;
    }
    let Ok(call) = serde_json::from_str::<Call>(&line) else {
        return;
    };
    let answered: Result<Value, HostError> = match call {
        Call::Recorded(kind) => {
            site.ledger.recorded_on(machine.name(), kind);
            Ok(Value::Null)
        }
        Call::StartUnit => {
            machine.start_unit();
            Ok(Value::Null)
        }
        Call::UnitIsActive => Ok(machine.unit_is_active().into()),
        call => {
            let host = SimHost::new(Arc::clone(&machine), Life::new(Component::Runner, machine.name()));
            let mut gone = String::new();
            tokio::select! {
                biased;
                _ = reading.read_line(&mut gone) => return,
                answered = answer(&host, call) => answered,
            }
        }
    };
    if let Ok(mut text) = serde_json::to_vec(&answered) {
        text.push(b'\n');
        // A caller that went away does not want the answer.
        let _ = writing.write_all(&text).await;
    }
}

/// Stands in for the controllers of DaemonSets and Deployments: the addons roll out at once.
async fn controllers(site: Arc<Site>) {
    loop {
        let site_now = Arc::clone(&site);
        let looked = tokio::task::spawn_blocking(move || roll_out(&site_now)).await;
        if looked.is_err() {
            return;
        }
        let again = site.clock.now() + TimeDelta::milliseconds(CONTROLLER_MILLISECONDS);
        site.clock.sleep_until(again).await;
    }
}

fn roll_out(site: &Site) {
    let kube = site.kube("kube-controller-manager");
    let proxy = "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy";
    if let Ok(Some(set)) = kube.get(proxy) {
        let generation = &set["metadata"]["generation"];
        if set["status"]["observedGeneration"] != *generation {
            let status = json!({"status": {
                "observedGeneration": generation, "desiredNumberScheduled": 1, "currentNumberScheduled": 1,
                "numberMisscheduled": 0, "numberReady": 1, "updatedNumberScheduled": 1, "numberAvailable": 1,
            }});
            let _ = kube.merge(&format!("{proxy}/status"), &status);
        }
    }
    let dns = "/apis/apps/v1/namespaces/kube-system/deployments/coredns";
    if let Ok(Some(deployment)) = kube.get(dns) {
        let generation = &deployment["metadata"]["generation"];
        if deployment["status"]["observedGeneration"] != *generation {
            let replicas = deployment["spec"]["replicas"].as_i64().unwrap_or(1);
            let status = json!({"status": {
                "observedGeneration": generation, "replicas": replicas, "updatedReplicas": replicas,
                "readyReplicas": replicas, "availableReplicas": replicas,
            }});
            let _ = kube.merge(&format!("{dns}/status"), &status);
        }
    }
}

/// Keeps `ledger.json` current: what the test reads in the end.
async fn write_ledger(path: PathBuf, ledger: Ledger, clock: Arc<dyn Clock>) {
    loop {
        let effects: Vec<Value> = ledger.records().iter().map(|record| json!(format!("{record:?}"))).collect();
        let text = json!({
            "duplicated": ledger.duplicated(),
            "rerunsAfterInterruption": ledger.reruns_after_interruption(),
            "effects": effects,
        });
        let temporary = path.with_extension("tmp");
        if std::fs::write(&temporary, text.to_string()).and_then(|()| std::fs::rename(&temporary, &path)).is_err() {
            return;
        }
        clock.sleep_until(clock.now() + TimeDelta::milliseconds(200)).await;
    }
}
