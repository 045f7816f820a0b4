//! The sink at a URL: one POST for each notification.

use super::message::{self, Format, Letter};
use super::{PostError, Sink};
use crate::error_chain;
use crate::web::{Place, Web};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, StatusCode};
use http_body_util::Full;

/// A sink at a URL.
pub struct HttpSink {
    place: Place,
    format: Format,
    cluster: String,
    web: Web,
}

impl HttpSink {
    /// Sends there, in that format; `cluster` is what the cluster is called, or empty.
    pub fn new(place: Place, format: Format, cluster: String) -> Self {
        Self { place, format, cluster, web: Web::default() }
    }

    async fn send(&self, letter: &Letter) -> Result<(), PostError> {
        let address = self.place.read().await.map_err(|error| PostError::Later(error.to_string()))?;
        let message = message::write(letter, self.format, &self.cluster);
        let mut request = Request::post(&address.uri);
        for (name, value) in message.headers {
            request = request.header(name, value);
        }
        let request = request
            .body(Full::new(Bytes::from(message.body)))
            .map_err(|error| PostError::Refused(format!("it cannot be written as a request: {error}")))?;
        let answered = self.web.send(address, request).await;
        verdict(answered.map_err(|error| PostError::Later(error_chain(&error)))?.status())
    }
}

impl Sink for HttpSink {
    fn post<'s>(&'s self, letter: &'s Letter) -> BoxFuture<'s, Result<(), PostError>> {
        Box::pin(self.send(letter))
    }
}

/// What an answer means. What somebody may mend meanwhile is tried again: the URL and its rights, an overload, a failure.
fn verdict(status: StatusCode) -> Result<(), PostError> {
    let says = format!("the sink answered {status}");
    match status.as_u16() {
        200..=299 => Ok(()),
        300..=399 => Err(PostError::Refused(format!("{says}: no redirect is followed, give the URL that it names"))),
        401 | 403 | 404 | 407 | 408 | 425 | 429 | 500..=599 => Err(PostError::Later(says)),
        _ => Err(PostError::Refused(says)),
    }
}

#[cfg(test)]
mod tests;
