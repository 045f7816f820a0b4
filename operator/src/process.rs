//! The edge between the operator and its process: clock, signals, logging, client. Used by `main` only.
#![expect(clippy::disallowed_methods, reason = "the one place with the process's own clock, server task and signals")]

use crate::OperatorConfig;
use crate::adapters::prometheus::Prometheus;
use crate::lease::Timing;
use crate::metrics::Metrics;
use crate::notify::Sink;
use crate::notify::http::HttpSink;
use crate::notify::message::Format;
use crate::traces::{Spans, otlp};
use crate::web::{Place, Secret};
use anyhow::Context;
use cupcake_engine::clock::{Clock, Timestamp};
use cupcake_steps::ports::measures::Measures;
use futures::future::BoxFuture;
use kube::client::ClientBuilder;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Upgrades kubeadm clusters in place.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "cupcake-operator", version)]
pub struct Args {
    /// Tells this replica from others.
    #[arg(long, env = "POD_NAME", default_value = "cupcake-operator-0")]
    pub identity: String,
    /// The node it runs on: before host work disturbs that node, another replica takes over.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: Option<String>,
    /// Where the Lease lives.
    #[arg(long, env = "POD_NAMESPACE", default_value = "kube-system")]
    pub namespace: String,
    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, env = "CUPCAKE_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// How long a silent leader keeps its lease, in seconds.
    #[arg(long, env = "CUPCAKE_LEASE_SECONDS", default_value_t = 5)]
    pub lease_seconds: u32,
    /// The collector that gets a span for each step, by OTLP over gRPC, such as http://tempo.monitoring:4317; none unless given.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
    /// A folder whose file `url` holds the URL that is told what happens to updates, by a POST for each notification; beside it, where they are needed, `ca.crt` and `token`. Read anew each time.
    #[arg(long, env = "CUPCAKE_NOTIFY_DIR", conflicts_with = "notify_url")]
    pub notify_dir: Option<PathBuf>,
    /// The URL itself, in place of a folder; none unless one of them is given. Others see it in the list of processes: better give it by its variable.
    #[arg(long, env = "CUPCAKE_NOTIFY_URL", hide_env_values = true)]
    pub notify_url: Option<Secret>,
    /// How a notification is written.
    #[arg(long, env = "CUPCAKE_NOTIFY_FORMAT", value_enum, default_value_t)]
    pub notify_format: Format,
    /// What the cluster is called in notifications, where one receiver has several.
    #[arg(long, env = "CUPCAKE_NOTIFY_CLUSTER", default_value = "", value_parser = cluster_name)]
    pub notify_cluster: String,
    /// The Prometheus that is asked for what spec.gates of a DirectUpdate want measured, such as http://prometheus.monitoring:9090; none unless given.
    #[arg(long, env = "CUPCAKE_PROMETHEUS_URL", hide_env_values = true)]
    pub prometheus_url: Option<Secret>,
    /// A folder whose file `url` holds the URL of that Prometheus; beside it, where they are needed, `ca.crt` and `token`. Read anew each time.
    #[arg(long, env = "CUPCAKE_PROMETHEUS_DIR", conflicts_with = "prometheus_url")]
    pub prometheus_dir: Option<PathBuf>,
}

/// The longest name of a cluster, in characters.
const CLUSTER_CHARS_MAX: usize = 128;

/// A name that can stand in a URI as it is.
fn cluster_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if text.len() <= CLUSTER_CHARS_MAX && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    Err(format!("give at most {CLUSTER_CHARS_MAX} letters, digits, dashes, dots and underscores"))
}

/// The place that one of two settings names, if one does. A URL that is none ends the start; what a folder lacks may still come.
async fn place_of(name: &str, folder: Option<&PathBuf>, url: Option<&Secret>) -> anyhow::Result<Option<Place>> {
    let place = match (folder, url) {
        (Some(folder), _) => Place::Folder(folder.clone()),
        (None, Some(url)) => Place::Given(url.clone()),
        (None, None) => return Ok(None),
    };
    match (&place, place.read().await) {
        (_, Ok(_)) => {}
        (Place::Folder(_), Err(error)) => tracing::warn!(%error, name, "not used before it can be read"),
        (Place::Given(_), Err(error)) => anyhow::bail!("{name}: {error}"),
    }
    Ok(Some(place))
}

/// Who measures by these settings, if anybody.
async fn measures_of(args: &Args, clock: &Arc<dyn Clock>) -> anyhow::Result<Option<Arc<dyn Measures>>> {
    let (folder, url) = (args.prometheus_dir.as_ref(), args.prometheus_url.as_ref());
    let place = place_of("CUPCAKE_PROMETHEUS_URL", folder, url).await?;
    Ok(place.map(|place| Arc::new(Prometheus::new(place, Arc::clone(clock))) as Arc<dyn Measures>))
}

/// Where notifications go by these settings, if anywhere.
async fn sink_of(args: &Args) -> anyhow::Result<Option<Arc<dyn Sink>>> {
    let place = place_of("CUPCAKE_NOTIFY_URL", args.notify_dir.as_ref(), args.notify_url.as_ref()).await?;
    let Some(place) = place else { return Ok(None) };
    Ok(Some(Arc::new(HttpSink::new(place, args.notify_format, args.notify_cluster.clone()))))
}

/// How long spans that wait for the collector hold the end of the process up, in seconds.
const LAST_SPANS_SECONDS: u64 = 3;

/// Connects, serves health and metrics, and runs a replica until `shutdown`.
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<()> {
    let name = format!("cupcake-operator/{} ({})", env!("CARGO_PKG_VERSION"), args.identity);
    let client = client_named(&name).await.context("no way to the API server: set KUBECONFIG or run in a pod")?;
    let metrics = Metrics::default();
    let listener =
        tokio::net::TcpListener::bind(args.listen).await.with_context(|| format!("listen on {}", args.listen))?;
    let serving = tokio::spawn(crate::server::serve(listener, metrics.clone(), shutdown.clone()));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (spans, sending) = match args.otlp_endpoint.as_deref().filter(|endpoint| !endpoint.is_empty()) {
        Some(endpoint) => {
            let (spans, sender) = otlp::to(endpoint, &args.identity, Arc::clone(&clock), metrics.clone())
                .with_context(|| {
                    format!("OTEL_EXPORTER_OTLP_ENDPOINT {endpoint:?}: give a URL such as http://tempo:4317")
                })?;
            (Some(Arc::new(spans) as Arc<dyn Spans>), Some(tokio::spawn(sender.run())))
        }
        None => (None, None),
    };
    let sink = sink_of(&args).await?;
    let measures = measures_of(&args, &clock).await?;
    let config = OperatorConfig {
        client,
        clock,
        identity: args.identity,
        node_name: args.node_name,
        namespace: args.namespace,
        timing: Timing { lease_seconds: args.lease_seconds, ..Timing::default() },
        registry: crate::standard_registry()?,
        metrics,
        spans,
        sink,
        measures,
    };
    crate::run(config, shutdown.clone()).await;
    if let Some(sending) = sending {
        // The lease is released: nobody waits for these.
        let _ = tokio::time::timeout(Duration::from_secs(LAST_SPANS_SECONDS), sending).await;
    }
    shutdown.cancel();
    Ok(serving.await??)
}

/// The machine's clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        chrono::Utc::now()
    }

    fn sleep_until(&self, until: Timestamp) -> BoxFuture<'static, ()> {
        let wait = (until - self.now()).to_std().unwrap_or(Duration::ZERO);
        Box::pin(tokio::time::sleep(wait))
    }
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

/// As [`client`], with that User-Agent, by which the API server's audit log tells replicas apart.
pub async fn client_named(user_agent: &str) -> anyhow::Result<kube::Client> {
    let mut config = client_config().await?;
    config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_str(user_agent)?));
    Ok(ClientBuilder::try_from(config)?.build())
}

/// A client of the cluster that the process runs in, or of KUBECONFIG; without kube's own retries.
pub async fn client() -> anyhow::Result<kube::Client> {
    Ok(ClientBuilder::try_from(client_config().await?)?.build())
}

async fn client_config() -> anyhow::Result<kube::Config> {
    // One TLS provider for the whole process; a second installation fails and changes nothing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut config = kube::Config::infer().await?;
    config.read_timeout = Some(Duration::from_secs(300));
    config.connect_timeout = Some(Duration::from_secs(5));
    config.default_retry = false;
    Ok(config)
}

/// A token that is cancelled by SIGTERM or SIGINT.
pub fn shutdown_on_signals() -> std::io::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    // Lives as long as the process: it is the process's own signal handler.
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[tokio::test]
    async fn a_url_that_is_none_ends_the_start_without_being_repeated_and_a_folder_that_is_missing_does_not() {
        let parsed = |arguments: &[&str]| Args::try_parse_from([&["cupcake-operator"], arguments].concat());
        let args =
            parsed(&["--notify-url", "ftp://T0KEN/hook", "--notify-format", "slack", "--notify-cluster", "prod-eu.1"]);
        let args = args.unwrap();
        assert_eq!((args.notify_format, args.notify_cluster.as_str()), (Format::Slack, "prod-eu.1"));
        let refused = sink_of(&args).await.err().unwrap().to_string();
        assert!(refused.contains("https:// or http://"), "{refused}");
        assert!(!format!("{args:?} {refused}").contains("T0KEN"), "{args:?} {refused}");
        let args = parsed(&["--notify-dir", "/nowhere"]).unwrap();
        assert_eq!(args.notify_format, Format::Cloudevents);
        assert!(sink_of(&args).await.unwrap().is_some());
        assert!(sink_of(&parsed(&[]).unwrap()).await.unwrap().is_none());
        for wrong in [["--notify-format", "xml"], ["--notify-cluster", "prod eu"]] {
            assert!(parsed(&wrong).is_err(), "{wrong:?}");
        }
        assert!(parsed(&["--notify-url", "http://a/", "--notify-dir", "/b"]).is_err());
    }
}
