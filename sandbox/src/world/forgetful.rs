//! The way to the API of an agent that forgets epochs: a world without [`Fence::RememberedEpoch`](super::Fence).
//!
//! An agent refuses an order of a lower epoch than the task or its own answers carry. On this way it sees neither.

use crate::api::{Body, Disconnected, InProcess};
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::task::{Context, Poll};

/// Passes requests on; of what comes back no task shows the epochs that it has seen.
#[derive(Clone)]
pub(super) struct Forgetful(pub(super) InProcess);

impl tower::Service<Request<kube::client::Body>> for Forgetful {
    type Response = Response<UnsyncBoxBody<Bytes, Infallible>>;
    type Error = Disconnected;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        let answer = self.0.call(request);
        answer.map(|answer| answer.map(|answer| answer.map(without_epochs))).boxed()
    }
}

/// Frames of this API are whole: an answer, or one event of a watch.
fn without_epochs(body: Body) -> UnsyncBoxBody<Bytes, Infallible> {
    body.map_frame(|frame| frame.map_data(|bytes| forget(&bytes).unwrap_or(bytes))).boxed_unsync()
}

/// The answer without the epochs of the tasks in it; `None` where there are none.
fn forget(bytes: &Bytes) -> Option<Bytes> {
    let mut answer: Value = serde_json::from_slice(bytes).ok()?;
    let tasks = match answer["kind"].as_str() {
        Some("NodeTask") => std::slice::from_mut(&mut answer),
        Some("NodeTaskList") => answer["items"].as_array_mut()?,
        _ if answer["object"]["kind"] == "NodeTask" => std::slice::from_mut(&mut answer["object"]),
        _ => return None,
    };
    for task in tasks {
        task["spec"]["epoch"] = json!(0);
        if let Some(status) = task["status"].as_object_mut() {
            status.remove("epoch");
        }
    }
    let mut line = serde_json::to_vec(&answer).ok()?;
    if bytes.ends_with(b"\n") {
        line.push(b'\n');
    }
    Some(Bytes::from(line))
}
