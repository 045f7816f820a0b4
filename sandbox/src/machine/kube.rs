//! How simulated kubelets, kubeadm and controllers speak to the simulated API: one request at a time, at once.

use bytes::Bytes;
use cupcake_crds::values::KubeVersion;
use serde_json::Value;
use std::sync::Arc;

/// The API as programs of the simulated cluster reach it.
pub trait KubeApi: Send + Sync {
    /// Sends one request as `client` and gives status and body of the answer.
    fn send(&self, client: &str, request: http::Request<Bytes>) -> (u16, Bytes);

    /// The revision of the store's last write.
    fn revision(&self) -> u64;

    /// Every API server is down: open watches end.
    fn went_away(&self);

    /// The oldest version among the API servers, as `/version` says it from now on.
    fn serves(&self, version: KubeVersion);
}

/// An answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{method} {path}: {status} {message}")]
pub struct Refused {
    /// The method.
    pub method: &'static str,
    /// The path.
    pub path: String,
    /// The HTTP status.
    pub status: u16,
    /// The message of the Status object.
    pub message: String,
}

/// One program's way to the API.
#[derive(Clone)]
pub struct Kube {
    api: Arc<dyn KubeApi>,
    client: String,
}

impl std::fmt::Debug for Kube {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kube").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Kube {
    /// The way of the program `client`.
    pub fn new(api: Arc<dyn KubeApi>, client: impl Into<String>) -> Self {
        Self { api, client: client.into() }
    }

    /// GET; `None` if there is no such object.
    pub fn get(&self, path: &str) -> Result<Option<Value>, Refused> {
        match self.call("GET", path, "", Bytes::new()) {
            Ok(body) => Ok(serde_json::from_slice(&body).ok()),
            Err(refused) if refused.status == 404 => Ok(None),
            Err(refused) => Err(refused),
        }
    }

    /// POST to a collection.
    pub fn create(&self, path: &str, object: &Value) -> Result<(), Refused> {
        self.call("POST", path, "application/json", text(object)).map(|_| ())
    }

    /// Merge patch of an object or its status.
    pub fn merge(&self, path: &str, change: &Value) -> Result<(), Refused> {
        self.call("PATCH", path, "application/merge-patch+json", text(change)).map(|_| ())
    }

    /// PUT of an object.
    pub fn replace(&self, path: &str, object: &Value) -> Result<(), Refused> {
        self.call("PUT", path, "application/json", text(object)).map(|_| ())
    }

    /// DELETE at once, of exactly the object with that UID.
    pub fn delete_now(&self, path: &str, uid: &str) -> Result<(), Refused> {
        let options = serde_json::json!({
            "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": {"uid": uid},
        });
        self.call("DELETE", path, "application/json", text(&options)).map(|_| ())
    }

    /// DELETE with the object's own grace.
    pub fn delete(&self, path: &str, uid: &str) -> Result<(), Refused> {
        let options = serde_json::json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}});
        self.call("DELETE", path, "application/json", text(&options)).map(|_| ())
    }

    fn call(&self, method: &'static str, path: &str, content_type: &str, body: Bytes) -> Result<Bytes, Refused> {
        let refused = |status, message: String| Refused { method, path: path.to_owned(), status, message };
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, content_type)
            .header(http::header::USER_AGENT, self.client.as_str())
            .body(body)
            .map_err(|error| refused(0, error.to_string()))?;
        let (status, body) = self.api.send(&self.client, request);
        if (200..300).contains(&status) {
            return Ok(body);
        }
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        Err(refused(status, answer["message"].as_str().unwrap_or_default().to_owned()))
    }
}

fn text(value: &Value) -> Bytes {
    // A JSON value has string keys only, so it can always be written.
    Bytes::from(serde_json::to_vec(value).unwrap_or_default())
}
