//! The ports of the engine and of the steps, over the Kubernetes API. Nothing here decides anything.

mod admission;
pub mod at_work;
pub mod cluster_ops;
pub mod kube_store;
pub mod node_ops;
pub mod prometheus;
pub mod snapshot;
pub mod surroundings;
pub mod timed_store;
pub mod views;

use crate::error_chain;
use cupcake_engine::names::Reason;
use cupcake_steps::ports::cluster::OpsError;

/// What a failed request means for a step: `what` names the request and its object.
///
/// 403 is transient: a freshly started API server whose authorizer is still cold answers it for a few seconds.
pub(crate) fn ops_error(what: &str, error: &kube::Error) -> OpsError {
    let message = |text: &str| format!("{what}: {text}");
    match error {
        kube::Error::Api(status) => match status.code {
            404 => OpsError::Changed(Reason::new("NotFound", message(&status.message))),
            409 => OpsError::Changed(Reason::new("Changed", message(&status.message))),
            422 if is_fence(&status.message) => OpsError::Changed(Reason::new("Fenced", message(&status.message))),
            400 | 405 | 422 => OpsError::NeedsOperator(Reason::new("RequestRefused", message(&status.message))),
            403 => OpsError::Transient(Reason::new("Forbidden", message(&status.message))),
            _ => OpsError::Transient(Reason::new("ApiServerError", message(&status.message))),
        },
        other => OpsError::Transient(Reason::new("ApiServerAway", message(&error_chain(other)))),
    }
}

/// What the rules of our own definitions say when a stale writer is refused (crds, `validate`).
const FENCES: [&str; 3] = ["another leader has taken over", "it cannot be replaced", "its epoch cannot decrease"];

/// Whether a refusal is one of the rules of our own objects that fence stale writers: the next look will see why.
fn is_fence(message: &str) -> bool {
    FENCES.iter().any(|fence| message.contains(fence))
}

/// Whether the object is not there.
pub(crate) fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether an object of that name is there already.
pub(crate) fn is_already_exists(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409 && status.reason == "AlreadyExists")
}
