//! Ports for whoever drives the sandbox: the transcript, faults, admission, and counts of accepted writes.

use super::request::{RequestInfo, Verb};
use super::status::Failure;
use cupcake_engine::clock::Timestamp;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// One answered request: a line of the transcript.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRecord<'a> {
    /// Virtual time of the answer.
    pub at: Timestamp,
    /// The request.
    pub request: &'a RequestInfo,
    /// HTTP status of the answer, whether or not the client came to see it.
    pub status: u16,
    /// The write was accepted and stored (false for reads, refusals, dry runs, and writes that changed nothing).
    pub committed: bool,
}

impl RequestRecord<'_> {
    /// SHA-256 of the request's body, in hexadecimal.
    pub fn body_sha256(&self) -> String {
        hexadecimal(&Sha256::digest(&self.request.body))
    }
}

/// Bytes in lower-case hexadecimal.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Sees every answered request, in order.
pub trait Observer: Send + Sync {
    /// Called once a request, after its effect; may look at the server's objects, must not send it requests.
    fn request(&self, record: &RequestRecord<'_>);
}

/// What happens to a request before the server looks at it.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// It goes through.
    None,
    /// It is answered with this refusal; nothing is stored.
    Reject(Failure),
    /// It goes through after this much virtual time.
    Delay(Duration),
    /// The connection fails; nothing is stored.
    Refuse,
    /// It is never answered, and nothing is stored (a partition, or a client that dies before the write).
    Hang,
}

/// What happens to an answer on its way back.
#[derive(Debug, Clone, PartialEq)]
pub enum ReplyFault {
    /// It arrives.
    None,
    /// The connection fails: what was stored stays stored, the client does not know.
    Drop,
    /// It never arrives (a client that dies just after its write).
    Hang,
    /// This arrives instead: what was stored stays stored.
    Reject(Failure),
    /// It arrives after this much virtual time.
    Delay(Duration),
}

/// Decides faults; consulted before and after each request that comes through a service or a socket.
pub trait Faults: Send + Sync {
    /// Before the server looks at the request.
    fn before(&self, request: &RequestInfo) -> Fault;

    /// After the effect, before the answer.
    fn after(&self, record: &RequestRecord<'_>) -> ReplyFault {
        let _ = record;
        ReplyFault::None
    }
}

/// A write on its way into the store, for admission.
#[derive(Debug)]
pub struct AdmissionReview<'a> {
    /// The request that leads to the write.
    pub request: &'a RequestInfo,
    /// What is done.
    pub verb: Verb,
    /// The object to be stored; absent for deletions.
    pub object: Option<&'a Value>,
    /// The object stored now; absent for creations.
    pub old_object: Option<&'a Value>,
}

/// A validating admission policy: `Err` refuses the write. It is called while the store is locked: it must not call the server.
pub type Admission = Arc<dyn Fn(&AdmissionReview<'_>) -> Result<(), Failure> + Send + Sync>;

/// Figures of what was accepted; they never decrease.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Accepted writes by client, then by `resource.group` or `resource.group/subresource`.
    pub writes: BTreeMap<String, BTreeMap<String, u64>>,
    /// Requests of all verbs by client.
    pub requests: BTreeMap<String, u64>,
    /// Largest object stored, in bytes of JSON with managedFields, by kind.
    pub largest_bytes: BTreeMap<String, usize>,
}

impl Counts {
    /// Accepted writes of `client` to resources that `wanted` lets through.
    pub fn writes_of(&self, client: &str, wanted: impl Fn(&str) -> bool) -> u64 {
        self.writes
            .get(client)
            .into_iter()
            .flatten()
            .filter(|(resource, _)| wanted(resource))
            .map(|(_, count)| count)
            .sum()
    }
}
