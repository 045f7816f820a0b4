//! Notifications: what happens to updates, told to a sink outside of the cluster.
//!
//! ```text
//!  a status that stands in another way ──┬─► DirectUpdate.status.notices          (one write: none without the other)
//!                                        │        │ watch
//!                                        │     Outbox of the leader ──► one POST at a time ──► sink
//!                                        │        │ delivered, or given up
//!                                        └────────┴─► taken out of status.notices
//! ```
//! The truth is the list in the status: whoever leads delivers what stands there, so that a crash costs at most a second delivery under
//! the same id. Deliveries go on beside reconciles: a sink that is slow, away or gone delays none.
//!
//! RBAC: update (status) on directupdates, which `controllers::stand` has.

pub mod http;
pub mod message;
pub mod outbox;
pub mod transitions;

use crate::metrics::Metrics;
use chrono::TimeDelta;
use cupcake_engine::clock::{Clock, Timestamp};
use futures::future::BoxFuture;
use message::Letter;
use outbox::{Outbox, Posted};

/// How long one delivery may take, in seconds.
pub const POST_SECONDS_MAX: i64 = 10;

/// Where notifications go.
pub trait Sink: Send + Sync {
    /// Delivers one. May be dropped at any point; whether it arrived is not known then, and it is delivered again.
    ///
    /// # Errors
    /// Names neither the sink's URL nor any other secret: what it says is logged.
    fn post<'s>(&'s self, letter: &'s Letter) -> BoxFuture<'s, Result<(), PostError>>;
}

/// Why a sink did not take a notification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// It may take it later.
    #[error("{0}")]
    Later(String),
    /// It never will.
    #[error("{0}")]
    Refused(String),
}

/// What a delivery comes to that does not end in time.
fn too_late() -> PostError {
    PostError::Later(format!("no answer within {POST_SECONDS_MAX} s"))
}

/// A delivery that ended.
pub(crate) struct Delivered {
    pub(crate) letter: Letter,
    answer: Result<(), PostError>,
}

/// Delivers a letter, in bounded time.
pub(crate) fn deliver<'o>(sink: &'o dyn Sink, clock: &'o dyn Clock, letter: Letter) -> BoxFuture<'o, Delivered> {
    Box::pin(async move {
        let answer = tokio::select! {
            biased;
            answer = sink.post(&letter) => answer,
            () = clock.sleep_until(clock.now() + TimeDelta::seconds(POST_SECONDS_MAX)) => Err(too_late()),
        };
        Delivered { letter, answer }
    })
}

/// Takes note of how a delivery ended, in outbox, metrics and log.
pub(crate) fn take_note(metrics: &Metrics, outbox: &mut Outbox, delivered: Delivered, now: Timestamp) -> Posted {
    let Delivered { letter, answer } = delivered;
    let (directupdate, id) = (letter.update.clone(), letter.notice.id.clone());
    let posted = outbox.posted(letter, &answer, now);
    metrics.notified(posted.as_str(), 1);
    if let Err(error) = answer {
        match posted {
            Posted::GivenUp => tracing::warn!(directupdate, id, %error, "notification given up"),
            Posted::Sent | Posted::Again => {
                tracing::info!(directupdate, id, %error, "notification not taken; trying again");
            }
        }
    }
    posted
}
