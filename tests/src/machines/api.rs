//! The way of simulated machines to a real API server, and the proxy that answers `/version` for their control plane.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use cupcake_crds::KubeVersion;
use cupcake_sandbox::machine::kube::KubeApi;
use http_body_util::BodyExt;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

/// The largest request body that the proxy takes, in bytes: etcd's own limit.
const BODY_BYTES_MAX: usize = 1_572_864;
/// How long one request of a simulated machine may take.
const ANSWER_SECONDS_MAX: u64 = 30;

/// A real API server behind the port of the simulated machines.
#[derive(Clone)]
pub struct RealApi {
    client: kube::Client,
    runtime: tokio::runtime::Handle,
    version: Arc<Mutex<KubeVersion>>,
}

impl RealApi {
    /// Over `client`, whose requests run on `runtime`; `/version` says `version` until the machines say otherwise.
    pub fn new(client: kube::Client, runtime: tokio::runtime::Handle, version: KubeVersion) -> Self {
        Self { client, runtime, version: Arc::new(Mutex::new(version)) }
    }

    fn version(&self) -> KubeVersion {
        *self.version.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn forwarded(client: kube::Client, request: http::Request<Bytes>) -> (u16, Bytes) {
    match client.send(request.map(|body| body.to_vec().into())).await {
        Ok(response) => {
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.map(http_body_util::Collected::to_bytes);
            (status, body.unwrap_or_default())
        }
        Err(error) => (503, Bytes::from(format!("{{\"message\":{:?}}}", error.to_string()))),
    }
}

impl KubeApi for RealApi {
    fn send(&self, _: &str, request: http::Request<Bytes>) -> (u16, Bytes) {
        let (sender, receiver) = mpsc::channel();
        let client = self.client.clone();
        self.runtime.spawn(async move {
            // The receiver may have given up: then nobody wants the answer.
            let _ = sender.send(forwarded(client, request).await);
        });
        let away = (503, Bytes::from_static(b"{\"message\":\"no answer in time\"}"));
        receiver.recv_timeout(Duration::from_secs(ANSWER_SECONDS_MAX)).unwrap_or(away)
    }

    fn revision(&self) -> u64 {
        0
    }

    fn went_away(&self) {}

    fn serves(&self, version: KubeVersion) {
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) = version;
    }
}

/// The proxy: everything goes to the API server, but `/version`.
pub fn proxy(api: RealApi) -> Router {
    Router::new().fallback(forward).with_state(api)
}

async fn forward(State(api): State<RealApi>, request: Request) -> Response {
    if request.uri().path() == "/version" {
        let version = api.version();
        let info = serde_json::json!({
            "major": version.major().to_string(), "minor": version.minor().to_string(), "gitVersion": version.with_v(),
            "gitCommit": "", "gitTreeState": "clean", "buildDate": "", "goVersion": "", "compiler": "", "platform": "",
        });
        return axum::Json(info).into_response();
    }
    let (mut parts, body) = request.into_parts();
    parts.headers.remove(http::header::HOST);
    parts.headers.remove(http::header::AUTHORIZATION);
    let Ok(body) = axum::body::to_bytes(body, BODY_BYTES_MAX).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let request = http::Request::from_parts(parts, kube::client::Body::from(body.to_vec()));
    // Sent from the requests' own runtime: a connection lives on the runtime that opened it, and one that lived on a thread where
    // a machine waits for its answer would stand still with it.
    let client = api.client.clone();
    match api.runtime.spawn(async move { client.send(request).await }).await {
        Ok(Ok(response)) => response.map(Body::new).into_response(),
        Ok(Err(error)) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}
