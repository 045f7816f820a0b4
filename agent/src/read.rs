//! Reads the task: what stands there, and what the clock of the API server that answers shows.

use crate::clocks::Compared;
use cupcake_crds::NodeTask;
use cupcake_engine::clock::Clock;
use kube::api::GetParams;
use kube::client::Body;
use kube::core::{Request, Status};
use kube::{Client, Resource as _};

/// What one answer told.
#[derive(Debug)]
pub struct Read {
    /// The task; nothing if there is none of that name.
    pub task: Option<NodeTask>,
    /// The clocks.
    pub compared: Compared,
}

/// Reads the task of a node.
///
/// # Guarantees
/// As `Api::get_opt`, which does not show the headers of an answer. The clock is read right before and right after the request.
///
/// # RBAC
/// nodetasks: get by its own name.
pub async fn read(client: &Client, clock: &dyn Clock, name: &str) -> Result<Read, kube::Error> {
    let tasks = Request::new(NodeTask::url_path(&(), None));
    let request = tasks.get(name, &GetParams::default()).map_err(kube::Error::BuildRequest)?;
    let sent = clock.now();
    let answer = client.send(request.map(Body::from)).await?;
    let received = clock.now();
    let date = answer.headers().get("date").and_then(|date| date.to_str().ok());
    let compared = Compared::of(sent, received, date);
    let status = answer.status();
    let body = answer.into_body().collect_bytes().await?;
    if status.is_success() {
        let task = serde_json::from_slice(&body).map_err(kube::Error::SerdeError)?;
        return Ok(Read { task: Some(task), compared });
    }
    // What stands between may answer in its own words.
    let refused: Status = serde_json::from_slice(&body).unwrap_or_else(|_| {
        Status::failure(String::from_utf8_lossy(&body).trim(), "no Status").with_code(status.as_u16())
    });
    if refused.is_not_found() { Ok(Read { task: None, compared }) } else { Err(kube::Error::Api(refused.boxed())) }
}
