//! The way to a cluster, and the time there.
#![expect(clippy::disallowed_methods, reason = "the command line's own edge to the clock")]

use crate::args::Connection;
use crate::exit::Failure;
use cupcake_engine::clock::Timestamp;
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use std::time::Duration;

/// How long a connection may take, in seconds.
const CONNECT_SECONDS_MAX: u64 = 5;

/// A client of the cluster that was named, else of the usual kubeconfig; without kube's own retries.
pub async fn client(connection: &Connection) -> Result<kube::Client, Failure> {
    // One TLS provider for the whole process; a second installation fails and changes nothing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut config = config(connection).await?;
    config.connect_timeout = Some(Duration::from_secs(CONNECT_SECONDS_MAX));
    config.default_retry = false;
    let builder = ClientBuilder::try_from(config)
        .map_err(|error| Failure::from_error("connect to the cluster", &error, "kubectl config view --minify"))?;
    Ok(builder.build())
}

async fn config(connection: &Connection) -> Result<kube::Config, Failure> {
    const NEXT: &str = "kubectl config view --minify, or name a file with --kubeconfig";
    let options = KubeConfigOptions { context: connection.context.clone(), ..KubeConfigOptions::default() };
    match &connection.kubeconfig {
        // KUBECONFIG may name several files; kube merges them itself.
        Some(file) if file.as_os_str().to_string_lossy().contains(':') => kube::Config::from_kubeconfig(&options)
            .await
            .map_err(|error| Failure::from_error("read the kubeconfig", &error, NEXT)),
        Some(file) => {
            let tried = format!("read kubeconfig {}", file.display());
            let kubeconfig = Kubeconfig::read_from(file).map_err(|error| Failure::from_error(&tried, &error, NEXT))?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &options)
                .await
                .map_err(|error| Failure::from_error(&tried, &error, NEXT))
        }
        None if connection.context.is_some() => kube::Config::from_kubeconfig(&options)
            .await
            .map_err(|error| Failure::from_error("read the kubeconfig", &error, NEXT)),
        None => kube::Config::infer().await.map_err(|error| Failure::from_error("find a kubeconfig", &error, NEXT)),
    }
}

/// What a failed request to the cluster means.
pub fn request_failed(tried: &str, error: &kube::Error) -> Failure {
    let next = match error {
        kube::Error::Api(status) if status.is_not_found() => {
            "kubectl get crd | grep cupcake, to see whether CUPCAKE is installed"
        }
        kube::Error::Api(status) if status.is_forbidden() => "kubectl auth can-i get upgraderuns",
        _ => "kubectl cluster-info, to see whether the API server answers",
    };
    Failure::from_error(tried, error, next)
}

/// The time now.
pub fn now() -> Timestamp {
    chrono::Utc::now()
}
