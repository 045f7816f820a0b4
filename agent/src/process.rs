//! The edge between the agent and its process: arguments, signals, client, systemd. Used by `main` only.

use crate::AgentConfig;
use crate::systemd::{Settings, SystemdRunner};
use anyhow::Context;
use cupcake_steps::ports::real_clock::RealClock;
use cupcake_steps::ports::real_disk::RealDisk;
use kube::client::ClientBuilder;
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Relays between the task of its node and the runner on its machine.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "cupcake-agent", version)]
pub struct Args {
    /// The node.
    #[arg(long, env = "NODE_NAME")]
    node_name: String,
    /// The machine's folder, under the same path here and there.
    #[arg(long, default_value = "/var/lib/cupcake")]
    dir: PathBuf,
    /// The runner's program, to be put onto the machine.
    #[arg(long, env = "CUPCAKE_RUNNER", default_value = "/usr/local/bin/cupcake-host")]
    runner: PathBuf,
    /// The machine's D-Bus.
    #[arg(long, env = "CUPCAKE_BUS", default_value = "unix:path=/run/dbus/system_bus_socket")]
    bus: String,
}

/// Connects, and relays until SIGTERM.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let shutdown = shutdown_on_signals()?;
    let client = client().await.context("no way to the API server: set KUBECONFIG or run in a pod")?;
    let settings =
        Settings { bus: args.bus, program: args.runner, folder: args.dir.clone(), node_name: args.node_name.clone() };
    let config = AgentConfig {
        seed: seed_of(&args.node_name),
        node_name: args.node_name,
        client,
        disk: Arc::new(RealDisk::below(args.dir)),
        runner: Arc::new(SystemdRunner::new(settings)),
        clock: Arc::new(RealClock),
    };
    Ok(crate::run(config, shutdown).await?)
}

/// Another one for each node: agents that lost the API together do not come back together.
fn seed_of(node_name: &str) -> u64 {
    Sha256::digest(node_name).iter().take(8).fold(0, |seed, byte| (seed << 8) | u64::from(*byte))
}

/// Logs as JSON lines on stderr, filtered by RUST_LOG (default `info`).
pub fn start_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // While the API server is away the client calls each attempt an error; what was tried in vain is told where it was tried.
    let filter = match "kube_client::client::builder=off".parse() {
        Ok(quiet) => filter.add_directive(quiet),
        Err(_) => filter,
    };
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
}

/// A client of the cluster that the pod runs in, or of KUBECONFIG; without kube's own retries.
async fn client() -> anyhow::Result<kube::Client> {
    // One TLS provider for the whole process; a second installation fails and changes nothing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut config = kube::Config::infer().await?;
    config.read_timeout = Some(Duration::from_secs(300));
    config.connect_timeout = Some(Duration::from_secs(5));
    config.default_retry = false;
    Ok(ClientBuilder::try_from(config)?.build())
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
