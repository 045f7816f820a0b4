//! The processes of the tier of real processes: `machines`, `runner`, `agent` and `operator`, each as it would be on a
//! cluster, but that the machines are simulated.

use async_trait::async_trait;
use clap::{Parser, Subcommand};
use cupcake_agent::AgentConfig;
use cupcake_agent::runner_unit::{RunnerUnit, UnitError};
use cupcake_crds::KubeVersion;
use cupcake_host::RunnerConfig;
use cupcake_operator::process::{self, SystemClock};
use cupcake_sandbox::machine::record::recorded;
use cupcake_steps::ports::disk::{Disk, DiskError, DiskLock};
use cupcake_steps::ports::host::MachinePorts;
use cupcake_steps::ports::real_disk::RealDisk;
use cupcake_tests::machines::serve::{Machines, serve};
use cupcake_tests::machines::wire::{Call, RemoteHost};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;

/// The largest file whose record is looked at: a journal, in bytes.
const RECORD_BYTES_MAX: usize = 1024 * 1024;

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    process: Process,
}

#[derive(Subcommand)]
enum Process {
    /// The machines of a cluster, and the proxy to its API server.
    Machines {
        #[arg(long)]
        dir: PathBuf,
        #[arg(long, default_value_t = 1)]
        control_planes: u32,
        #[arg(long, default_value_t = 2)]
        workers: u32,
        #[arg(long)]
        from: KubeVersion,
        #[arg(long, default_value_t = 60)]
        haste: u32,
    },
    /// The runner of one machine.
    Runner {
        #[arg(long)]
        socket: PathBuf,
        #[arg(long)]
        dir: PathBuf,
        #[arg(long)]
        node: String,
    },
    /// The agent of one node.
    Agent {
        #[arg(long)]
        socket: PathBuf,
        #[arg(long)]
        dir: PathBuf,
        #[arg(long)]
        node: String,
    },
    /// The operator.
    Operator(process::Args),
}

/// A folder whose journal writes the machine hears of: what ended before one is recorded.
struct TellingDisk {
    disk: RealDisk,
    machine: RemoteHost,
}

impl TellingDisk {
    async fn told(&self, path: &str, written: Result<(), DiskError>) -> Result<(), DiskError> {
        if written.is_ok() {
            // The machine only counts: a runner goes on without it.
            let file = self.disk.read(path, RECORD_BYTES_MAX).await.ok().flatten();
            for kind in recorded(path, file.as_deref()) {
                let _: Result<Value, _> = self.machine.call(&Call::Recorded(kind)).await;
            }
        }
        written
    }
}

#[async_trait]
impl Disk for TellingDisk {
    async fn read(&self, path: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, DiskError> {
        self.disk.read(path, bytes_max).await
    }
    async fn replace(&self, path: &str, content: &[u8]) -> Result<(), DiskError> {
        let written = self.disk.replace(path, content).await;
        self.told(path, written).await
    }
    async fn append(&self, path: &str, content: &[u8]) -> Result<(), DiskError> {
        let written = self.disk.append(path, content).await;
        self.told(path, written).await
    }
    async fn truncate(&self, path: &str, bytes: u64) -> Result<(), DiskError> {
        self.disk.truncate(path, bytes).await
    }
    async fn remove(&self, path: &str) -> Result<(), DiskError> {
        self.disk.remove(path).await
    }
    async fn list(&self, folder: &str) -> Result<Vec<String>, DiskError> {
        self.disk.list(folder).await
    }
    async fn changed(&self, folder: &str, seen: u64) -> u64 {
        self.disk.changed(folder, seen).await
    }
    async fn lock(&self, path: &str) -> Result<Option<DiskLock>, DiskError> {
        self.disk.lock(path).await
    }
    fn place(&self, path: &str) -> String {
        self.disk.place(path)
    }
}

/// The runner's unit, by the machine's own systemd.
struct SocketUnit(RemoteHost);

#[async_trait]
impl RunnerUnit for SocketUnit {
    async fn is_active(&self) -> Result<bool, UnitError> {
        self.0.call(&Call::UnitIsActive).await.map_err(|error| UnitError::new(error.to_string()))
    }
    async fn ensure_started(&self) -> Result<(), UnitError> {
        let started: Result<Value, _> = self.0.call(&Call::StartUnit).await;
        started.map(drop).map_err(|error| UnitError::new(error.to_string()))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let shutdown = process::shutdown_on_signals()?;
    let clock = Arc::new(SystemClock);
    match Args::parse().process {
        Process::Machines { dir, control_planes, workers, from, haste } => {
            let program = std::env::current_exe()?;
            serve(Machines { dir, control_planes, workers, from, haste, program }).await
        }
        Process::Runner { socket, dir, node } => {
            // A runner dies with its machine, however that ends.
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            process::start_logging();
            let machine = RemoteHost::at(socket);
            let disk = TellingDisk { disk: RealDisk::below(dir), machine: machine.clone() };
            let ports = MachinePorts { host: Arc::new(machine), disk: Arc::new(disk) };
            let config = RunnerConfig { ports, clock, node_name: Some(node), boot: None };
            cupcake_host::run(config, shutdown).await?;
            Ok(())
        }
        Process::Agent { socket, dir, node } => {
            process::start_logging();
            let config = AgentConfig {
                node_name: node,
                client: process::client().await?,
                disk: Arc::new(RealDisk::below(dir)),
                runner: Arc::new(SocketUnit(RemoteHost::at(socket))),
                clock,
                seed: 1,
            };
            cupcake_agent::run(config, shutdown).await?;
            Ok(())
        }
        Process::Operator(args) => {
            process::start_logging();
            process::run(args, shutdown).await
        }
    }
}
