//! The server as its clients see it: kube's own client and watcher, in process, on paused time.
#![expect(
    clippy::disallowed_methods,
    clippy::needless_pass_by_value,
    reason = "tests drive tokio's time and tasks themselves, and read better with JSON passed as it is written"
)]

mod applies;
mod conformance;
mod custom;
mod determinism;
mod kubectl;
mod objects;
mod pods;
mod watches;

use super::{Options, Server};
use chrono::{DateTime, TimeDelta, Utc};
use cupcake_engine::clock::{Clock, Timestamp};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::Arc;

/// A clock that follows tokio's time, paused or not.
pub(super) struct TokioClock {
    base: Timestamp,
    start: tokio::time::Instant,
}

impl TokioClock {
    pub(super) fn starting_at(base: Timestamp) -> Arc<Self> {
        Arc::new(Self { base, start: tokio::time::Instant::now() })
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        self.base + TimeDelta::from_std(self.start.elapsed()).unwrap()
    }

    fn sleep_until(&self, until: Timestamp) -> BoxFuture<'static, ()> {
        let length = (until - self.now()).to_std().unwrap_or_default();
        Box::pin(tokio::time::sleep(length))
    }
}

pub(super) fn noon() -> Timestamp {
    DateTime::<Utc>::from_timestamp(1_795_262_400, 0).unwrap()
}

/// A server on the runtime's time, with seed 7.
pub(super) fn server() -> Server {
    Server::new(TokioClock::starting_at(noon()), 7)
}

pub(super) fn server_with(options: Options) -> Server {
    Server::with_options(TokioClock::starting_at(noon()), options)
}

/// Sends one request and returns status and body.
pub(super) async fn send(server: &Server, method: &str, uri: &str, body: Value) -> (u16, Value) {
    let kind = match method {
        "PATCH" => "application/merge-patch+json",
        _other => "application/json",
    };
    send_as(server, method, uri, kind, body).await
}

pub(super) async fn send_as(server: &Server, method: &str, uri: &str, content_type: &str, body: Value) -> (u16, Value) {
    use http_body_util::BodyExt as _;
    let body = if body.is_null() { bytes::Bytes::new() } else { bytes::Bytes::from(body.to_string()) };
    let request =
        http::Request::builder().method(method).uri(uri).header("content-type", content_type).body(body).unwrap();
    let response = server.serve("tester", request).await.unwrap();
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

pub(super) fn node(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
}

pub(super) fn pod(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"nodeName": node, "containers": [{"name": "web", "image": "web:1"}]},
    })
}
