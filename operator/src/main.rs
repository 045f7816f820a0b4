//! The operator's process: reads its settings, connects, runs.

use anyhow::Context;
use clap::Parser;
use cupcake_operator::{OperatorConfig, lease::Timing, metrics::Metrics};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Upgrades kubeadm clusters in place.
#[derive(Parser)]
#[command(name = "cupcake-operator", version)]
struct Args {
    /// Tells this replica from others.
    #[arg(long, env = "POD_NAME", default_value = "cupcake-operator-0")]
    identity: String,
    /// Where the Lease lives.
    #[arg(long, env = "POD_NAMESPACE", default_value = "kube-system")]
    namespace: String,
    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, env = "CUPCAKE_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// How long a silent leader keeps its lease, in seconds.
    #[arg(long, env = "CUPCAKE_LEASE_SECONDS", default_value_t = 5)]
    lease_seconds: u32,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    cupcake_operator::process::start_logging();
    let client = cupcake_operator::process::client()
        .await
        .context("no way to the API server: set KUBECONFIG or run in a pod")?;
    let metrics = Metrics::default();
    let shutdown = cupcake_operator::process::shutdown_on_signals()?;
    let listener =
        tokio::net::TcpListener::bind(args.listen).await.with_context(|| format!("listen on {}", args.listen))?;
    let serving = tokio::spawn(cupcake_operator::server::serve(listener, metrics.clone(), shutdown.clone()));
    let config = OperatorConfig {
        client,
        clock: Arc::new(cupcake_operator::process::SystemClock),
        identity: args.identity,
        namespace: args.namespace,
        timing: Timing { lease_seconds: args.lease_seconds, ..Timing::default() },
        registry: cupcake_operator::standard_registry()?,
        metrics,
    };
    cupcake_operator::run(config, CancellationToken::clone(&shutdown)).await;
    shutdown.cancel();
    Ok(serving.await??)
}
