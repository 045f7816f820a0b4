//! The way to the API of an operator that takes every commit for its own: a world without [`Fence::CommitIds`](super::Fence).
//!
//! When the answer to a commit is lost or refused, the operator reads the run and looks whose commit stands there. On this way it
//! sees the one that it sent, whatever stands there: under the epoch and the resourceVersion of what stands there.

use crate::api::{Body, Disconnected, InProcess};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use http_body_util::Full;
use http_body_util::combinators::UnsyncBoxBody;
use serde_json::Value;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Passes requests on; a run that is read after a commit that failed shows that commit, once.
#[derive(Clone)]
pub(super) struct Credulous {
    api: InProcess,
    /// What was sent and has not been answered well, by the path of the run.
    sent: Arc<Mutex<BTreeMap<String, Value>>>,
}

impl Credulous {
    pub(super) fn new(api: InProcess) -> Self {
        Self { api, sent: Arc::default() }
    }

    fn remember(&self, run: &str, body: &[u8]) {
        if let Ok(sent) = serde_json::from_slice::<Value>(body) {
            self.sent.lock().unwrap_or_else(PoisonError::into_inner).insert(run.to_owned(), sent);
        }
    }

    fn recall(&self, run: &str) -> Option<Value> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).remove(run)
    }
}

impl tower::Service<Request<kube::client::Body>> for Credulous {
    type Response = Answer;
    type Error = Disconnected;
    type Future = BoxFuture<'static, Result<Answer, Disconnected>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Disconnected>> {
        self.api.poll_ready(context)
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        let mut this = self.clone();
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let run = path.strip_suffix("/status").unwrap_or(&path).to_owned();
            let of_a_run = run.contains("/upgraderuns/");
            let (commits, reads) = (of_a_run && run != path, of_a_run && run == path);
            let method = request.method().clone();
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_err(|_broken| Disconnected)?.to_bytes();
            if commits && method == Method::PUT {
                this.remember(&run, &body);
            }
            let answer = this.api.call(Request::from_parts(parts, kube::client::Body::from(body.to_vec()))).await?;
            if !answer.status().is_success() || !of_a_run {
                return Ok(answer.map(Body::boxed_unsync));
            }
            if commits {
                this.recall(&run);
            }
            let Some(sent) = (reads && method == Method::GET).then(|| this.recall(&run)).flatten() else {
                return Ok(answer.map(Body::boxed_unsync));
            };
            let (parts, body) = answer.into_parts();
            let stands = body.collect().await.map_err(|never| match never {})?.to_bytes();
            let shown = shows(&stands, &sent).unwrap_or(stands);
            Ok(Response::from_parts(parts, Full::new(shown).boxed_unsync()))
        })
    }
}

/// The run that stands there with the commit that was sent.
fn shows(stands: &[u8], sent: &Value) -> Option<Bytes> {
    let mut run: Value = serde_json::from_slice(stands).ok()?;
    for field in ["cursor", "commit"] {
        run["status"][field] = sent["status"][field].clone();
    }
    serde_json::to_vec(&run).ok().map(Bytes::from)
}
