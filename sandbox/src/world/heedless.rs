//! The way to the API of an operator that does without a look: a world without [`Fence::LeaderLooks`](super::Fence),
//! [`Fence::LeaderStamp`](super::Fence) or [`Fence::ChildUids`](super::Fence).
//!
//! ```text
//!   leader-looks   a run that is read shows no epoch: whoever looks whether it still leads believes so
//!   leader-stamp   a new leader's stamp changes nothing
//!   child-uids     a child that is read shows the UID of the run that has its parent's name
//! ```

use super::fences::Fence;
use crate::api::{Disconnected, Server};
use bytes::Bytes;
use cupcake_crds::GROUP;
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::combinators::UnsyncBoxBody;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::task::{Context, Poll};

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Passes requests on, without what is left out.
#[derive(Clone)]
pub(super) struct Heedless<S> {
    api: S,
    server: Server,
    looks: bool,
    stamps: bool,
    tells_children_apart: bool,
}

impl<S> Heedless<S> {
    /// The way through `api`, to that server.
    pub(super) fn new(api: S, server: &Server, without: &BTreeSet<Fence>) -> Self {
        let has = |fence| !without.contains(&fence);
        Self {
            api,
            server: server.clone(),
            looks: has(Fence::LeaderLooks),
            stamps: has(Fence::LeaderStamp),
            tells_children_apart: has(Fence::ChildUids),
        }
    }

    /// A run as it is shown.
    fn shown(&self, bytes: &[u8]) -> Option<Bytes> {
        let mut run: Value = serde_json::from_slice(bytes).ok()?;
        if let Some(status) = run["status"].as_object_mut().filter(|_| !self.looks) {
            status.remove("epoch");
        }
        if let Some(parent) = run["spec"]["parent"]["run"].as_str().filter(|_| !self.tells_children_apart)
            && let Some(there) = self.server.get(GROUP, "upgraderuns", "", parent)
        {
            run["spec"]["parent"]["uid"] = json!(there.uid());
        }
        serde_json::to_vec(&run).ok().map(Bytes::from)
    }
}

/// Whether a merge patch stamps an epoch, and does nothing else.
fn is_stamp(body: &[u8]) -> bool {
    let Ok(Value::Object(patch)) = serde_json::from_slice::<Value>(body) else { return false };
    let mut parts = patch.iter().filter(|(name, _)| !matches!(name.as_str(), "apiVersion" | "kind"));
    let stamped = |(name, part): (&String, &Value)| match (name.as_str(), part) {
        ("status", Value::Object(status)) => status.keys().all(|field| field == "epoch"),
        ("spec", Value::Object(spec)) => spec.iter().all(|(field, value)| match (field.as_str(), value) {
            ("epoch", _) => true,
            ("order", Value::Object(order)) => order.keys().all(|field| field == "epoch"),
            _other => false,
        }),
        _other => false,
    };
    parts.all(stamped)
}

impl<S, B> tower::Service<Request<kube::client::Body>> for Heedless<S>
where
    S: tower::Service<Request<kube::client::Body>, Response = Response<B>, Error = Disconnected>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
    B: BodyExt<Data = Bytes, Error = Infallible> + Send + 'static,
{
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
            let (method, of_a_run) = (request.method().clone(), path.contains("/upgraderuns/"));
            let of_a_task = path.contains("/nodetasks/");
            let (parts, body) = request.into_parts();
            let mut body = body.collect().await.map_err(|_broken| Disconnected)?.to_bytes();
            if !this.stamps && method == Method::PATCH && (of_a_run || of_a_task) && is_stamp(&body) {
                body = Bytes::from_static(b"{}");
            }
            let answer = this.api.call(Request::from_parts(parts, kube::client::Body::from(body.to_vec()))).await?;
            let reads = of_a_run && method == Method::GET && answer.status().is_success();
            if !reads || (this.looks && this.tells_children_apart) {
                return Ok(answer.map(B::boxed_unsync));
            }
            let (parts, body) = answer.into_parts();
            let stands = body.collect().await.map_err(|never| match never {})?.to_bytes();
            let shown = this.shown(&stands).unwrap_or(stands);
            Ok(Response::from_parts(parts, Full::new(shown).boxed_unsync()))
        })
    }
}
