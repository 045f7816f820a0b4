//! The edge between the runner and its process: arguments, signals, the real machine. Used by `main` only.

use crate::boot::BootUnit;
use crate::memory::Memory;
use crate::real::{RealHost, Settings, probe_machine};
use crate::runner::LOCK;
use crate::store::FileStore;
use crate::unit::UnitFile;
use crate::verdict::under_way;
use crate::{RunnerConfig, RunnerEnd};
use anyhow::Context;
use clap::{Parser, Subcommand};
use cupcake_engine::store::RunStore;
use cupcake_steps::mailbox::{Mailbox, run_name};
use cupcake_steps::ports::disk::SharedDisk;
use cupcake_steps::ports::host::MachinePorts;
use cupcake_steps::ports::real_clock::RealClock;
use cupcake_steps::ports::real_disk::RealDisk;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Does what is ordered on this machine.
#[derive(Debug, Clone, Parser)]
#[command(name = "cupcake-host", version)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Works on the order in the mailbox until it is answered, then ends.
    Run {
        #[command(flatten)]
        folder: Folder,
        /// The node that this machine is; orders for another one are refused [default: the node of its first order].
        #[arg(long, env = "NODE_NAME")]
        node_name: Option<String>,
    },
    /// Prints which order lies here and how far it is.
    Status(Folder),
    /// Asks the order under way to stop at its next safe point.
    Stop(Folder),
    /// Forgets the cluster that this machine was part of, for one that was reset and joins another cluster.
    Forget(Folder),
    /// Prints what the machine is and carries, as JSON.
    ProbeMachine,
}

#[derive(Debug, Clone, clap::Args)]
struct Folder {
    /// Where mailbox, journal and snapshots are.
    #[arg(long, default_value = "/var/lib/cupcake")]
    dir: PathBuf,
}

impl Folder {
    fn disk(&self) -> SharedDisk {
        Arc::new(RealDisk::below(&self.dir))
    }
}

/// Logs as JSON lines on stderr, filtered by RUST_LOG (default `info`).
pub fn start_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
}

/// Does what the arguments say.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Run { folder, node_name } => work(&folder, node_name).await,
        Command::Status(folder) => status(&folder).await,
        Command::Stop(folder) => stop(&folder).await,
        Command::Forget(folder) => {
            crate::forget::forget(&folder.disk()).await?;
            writeln!(std::io::stdout(), "forgot the last order and its cluster; a new one may give orders here")?;
            Ok(ExitCode::SUCCESS)
        }
        Command::ProbeMachine => {
            let host = RealHost::new(Settings::of_this_machine(Arc::new(RealClock)));
            let probed = probe_machine(&host).await;
            writeln!(std::io::stdout(), "{probed:#}")?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn work(folder: &Folder, node_name: Option<String>) -> anyhow::Result<ExitCode> {
    let clock = Arc::new(RealClock);
    let settings = Settings { state: folder.dir.clone(), ..Settings::of_this_machine(clock.clone()) };
    let ports = MachinePorts { host: Arc::new(RealHost::new(settings)), disk: folder.disk() };
    let shutdown = shutdown_on_signals()?;
    let unit = UnitFile::of_this_machine(&std::env::current_exe()?, &folder.dir, node_name.as_deref());
    let boot = unit.map(|unit| Arc::new(unit) as Arc<dyn BootUnit>);
    let end = crate::run(RunnerConfig { ports, clock, node_name, boot }, shutdown).await?;
    if end == RunnerEnd::AnotherRuns {
        tracing::warn!("another process holds {}/{LOCK}: this runner does nothing", folder.dir.display());
    } else {
        tracing::info!(?end, "ends");
    }
    Ok(ExitCode::SUCCESS)
}

async fn status(folder: &Folder) -> anyhow::Result<ExitCode> {
    let disk = folder.disk();
    let mailbox = Mailbox::on(&*disk);
    let mut out = std::io::stdout().lock();
    let Some(mail) = mailbox.order().await? else {
        writeln!(out, "no order in {}", folder.dir.display())?;
        return Ok(ExitCode::SUCCESS);
    };
    let order = &mail.order;
    writeln!(out, "order   {}", order.key)?;
    writeln!(out, "node    {}, to {}, epoch {}", mail.node.name, order.target_version, order.epoch)?;
    let answer = mailbox.answer().await?.filter(|answer| answer.key == order.key);
    match answer {
        Some(answer) => {
            let message = answer.message.unwrap_or_default();
            writeln!(out, "state   {}, since {}: {message}", answer.verdict.state(), answer.at)?;
        }
        None => writeln!(out, "state   not answered yet")?,
    }
    if let Some(memory) = Memory::read(&*disk).await?.filter(|memory| memory.key == order.key) {
        let run = FileStore::on(Arc::clone(&disk)).load(&run_name(&memory.key)).await?;
        let (done, all) = run.cursor.progress();
        writeln!(out, "steps   {done} of {all} done")?;
        for vertex in run.dag.vertices() {
            let note = run.cursor.note(&vertex.name).map_or_else(String::new, |note| format!("  {note}"));
            let state = run.cursor.state(&vertex.name);
            writeln!(out, "        {}  {}{note}", vertex.name, state.map_or("unknown", word_of))?;
        }
        if let Some((vertex, since)) = under_way(&run.cursor, &run.dag) {
            writeln!(out, "at      {vertex}, since {since}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn word_of(state: cupcake_engine::cursor::VertexState) -> &'static str {
    use cupcake_engine::cursor::VertexState;
    match state {
        VertexState::Pending { .. } => "pending",
        VertexState::Started { .. } => "under way",
        VertexState::Waiting { .. } => "waiting",
        VertexState::BackingOff { .. } => "again later",
        VertexState::Succeeded { .. } => "done",
        VertexState::Skipped { .. } => "skipped",
        VertexState::Failed { .. } => "failed",
    }
}

async fn stop(folder: &Folder) -> anyhow::Result<ExitCode> {
    let disk = folder.disk();
    let mailbox = Mailbox::on(&*disk);
    // What was taken counts, not what lies there: an order that is refused beside it needs this to get its turn.
    let key = match Memory::read(&*disk).await? {
        Some(memory) => memory.key,
        None => mailbox.order().await?.context("no order was ever taken here")?.order.key,
    };
    mailbox.put_local_stop(&key).await?;
    writeln!(std::io::stdout(), "asked to stop at its next safe point: {key}")?;
    Ok(ExitCode::SUCCESS)
}

/// A token that is cancelled by SIGTERM or SIGINT.
fn shutdown_on_signals() -> std::io::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    #[expect(clippy::disallowed_methods, reason = "the process's own signal handler lives as long as the process")]
    tokio::spawn(async move {
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        cancelled.cancel();
    });
    Ok(token)
}
