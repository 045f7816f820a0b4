//! Measures by asking a Prometheus: instant queries of its HTTP API.
//!
//! Source: prometheus.io, "HTTP API" (3.x; the answers that are read here are the same in 2.x).

use crate::error_chain;
use crate::web::{Place, Web};
use async_trait::async_trait;
use bytes::Bytes;
use chrono::TimeDelta;
use cupcake_engine::clock::Clock;
use cupcake_engine::names::Reason;
use cupcake_steps::ports::cluster::OpsError;
use cupcake_steps::ports::measures::{Measured, Measures};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use serde_json::Value;
use std::sync::Arc;

/// How long one answer may take, in seconds.
const ANSWER_SECONDS_MAX: i64 = 10;
/// The longest answer that is read, in bytes: one number is far less, a query without an aggregation is told by its first series.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// How much of what it says of a query is told, in characters.
const SAID_CHARS_MAX: usize = 200;

/// A Prometheus, or what answers like one.
pub struct Prometheus {
    place: Place,
    web: Web,
    clock: Arc<dyn Clock>,
}

impl Prometheus {
    /// The one at that place.
    pub fn new(place: Place, clock: Arc<dyn Clock>) -> Self {
        Self { place, web: Web::default(), clock }
    }

    async fn asked(&self, query: &str) -> Result<Measured, OpsError> {
        let address = self.place.read().await.map_err(|error| away(error.to_string()))?;
        let base = address.uri.to_string();
        let base = base.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
        let request = Request::get(format!("{base}/api/v1/query?query={}", encoded(query)))
            .body(Full::new(Bytes::new()))
            .map_err(|error| refused(format!("it makes no URL: {error}")))?;
        let answered = self.web.send(address, request).await.map_err(|error| away(error_chain(&error)))?;
        let status = answered.status();
        let body = Limited::new(answered.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| away(format!("its answer could not be read: {error}")))?.to_bytes();
        read(status, &body)
    }
}

#[async_trait]
impl Measures for Prometheus {
    async fn ask(&self, query: &str) -> Result<Measured, OpsError> {
        tokio::select! {
            biased;
            answer = self.asked(query) => answer,
            () = self.clock.sleep_until(self.clock.now() + TimeDelta::seconds(ANSWER_SECONDS_MAX)) => {
                Err(away(format!("no answer within {ANSWER_SECONDS_MAX} s")))
            }
        }
    }
}

fn away(message: String) -> OpsError {
    OpsError::Transient(Reason::new("PrometheusAway", message))
}

fn refused(message: String) -> OpsError {
    OpsError::NeedsOperator(Reason::new("QueryRefused", message))
}

/// What an answer says. What it cannot evaluate now (422, 5xx) it may another time; what it cannot read (400) it never will.
fn read(status: StatusCode, body: &[u8]) -> Result<Measured, OpsError> {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    if status == StatusCode::OK && answer["status"] == "success" {
        return measured(&answer["data"]);
    }
    let said: String = answer["error"].as_str().unwrap_or_default().chars().take(SAID_CHARS_MAX).collect();
    match status {
        StatusCode::BAD_REQUEST => Err(refused(format!("Prometheus cannot read the query: {said}"))),
        StatusCode::OK => Err(away("its answer is none of Prometheus".to_owned())),
        _ if said.is_empty() => Err(away(format!("it answered {status}"))),
        _ => Err(away(format!("it answered {status}: {said}"))),
    }
}

fn measured(data: &Value) -> Result<Measured, OpsError> {
    let number = |sample: &Value| {
        let text = sample[1].as_str();
        let value = text.and_then(|text| text.parse().ok());
        value.map(Measured::Value).ok_or_else(|| away("its answer holds no number".to_owned()))
    };
    let result = &data["result"];
    match data["resultType"].as_str() {
        Some("scalar") => number(result),
        Some("vector") => match result.as_array().map_or(&[][..], |series| series) {
            [] => Ok(Measured::Nothing),
            [one] => number(&one["value"]),
            more => Ok(Measured::Many(more.len())),
        },
        other => Err(refused(format!("the query gives a {}, a number is needed", other.unwrap_or("nothing")))),
    }
}

/// As part of a URL.
fn encoded(text: &str) -> String {
    let encoded = text.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    encoded.collect()
}

#[cfg(test)]
mod tests;
