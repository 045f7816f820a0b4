//! The way to the API of an agent that forgets epochs: a world without [`Fence::AgentTaskEpoch`](super::Fence) or
//! [`Fence::AgentAnswerEpoch`](super::Fence).
//!
//! An agent refuses an order of a lower epoch than the task or its own answers carry. On this way it does not see the one, or the
//! other, or either.

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

/// Which epochs an agent sees.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    /// That of its task.
    pub(super) of_task: bool,
    /// That of its answers.
    pub(super) of_answers: bool,
}

/// Passes requests on; what comes back shows of the epochs of a task only those.
#[derive(Clone)]
pub(super) struct Forgetful {
    pub(super) api: InProcess,
    pub(super) seen: Seen,
}

impl tower::Service<Request<kube::client::Body>> for Forgetful {
    type Response = Response<UnsyncBoxBody<Bytes, Infallible>>;
    type Error = Disconnected;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.api.poll_ready(context)
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        let (answer, seen) = (self.api.call(request), self.seen);
        answer.map(move |answer| answer.map(|answer| answer.map(|body| without_epochs(body, seen)))).boxed()
    }
}

/// Frames of this API are whole: an answer, or one event of a watch.
fn without_epochs(body: Body, seen: Seen) -> UnsyncBoxBody<Bytes, Infallible> {
    body.map_frame(move |frame| frame.map_data(|bytes| forget(&bytes, seen).unwrap_or(bytes))).boxed_unsync()
}

/// The answer without the epochs of the tasks in it that are not seen; `None` where there are no tasks.
fn forget(bytes: &Bytes, seen: Seen) -> Option<Bytes> {
    let mut answer: Value = serde_json::from_slice(bytes).ok()?;
    let tasks = match answer["kind"].as_str() {
        Some("NodeTask") => std::slice::from_mut(&mut answer),
        Some("NodeTaskList") => answer["items"].as_array_mut()?,
        _ if answer["object"]["kind"] == "NodeTask" => std::slice::from_mut(&mut answer["object"]),
        _ => return None,
    };
    for task in tasks {
        if !seen.of_task {
            task["spec"]["epoch"] = json!(0);
        }
        if let Some(status) = task["status"].as_object_mut().filter(|_| !seen.of_answers) {
            status.remove("epoch");
        }
    }
    let mut line = serde_json::to_vec(&answer).ok()?;
    if bytes.ends_with(b"\n") {
        line.push(b'\n');
    }
    Some(Bytes::from(line))
}
