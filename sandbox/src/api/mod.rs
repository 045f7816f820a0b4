//! An in-process Kubernetes API server: deterministic, without sockets unless asked, fast enough for thousands of simulated runs.
//!
//! ```text
//!   kube::Client ── InProcess (tower) ─┐                       ┌─ read (GET, LIST, WATCH) ── table, convert
//!   kubectl ── http::serve (hyper) ────┤─ Server ── router ────┤─ write (POST, PUT, PATCH) ── incoming ── strategy ── managed
//!                                      │    │                  └─ delete, eviction, gc
//!                                  faults, observer,                         │
//!                                  admission                     store: objects, history, watchers
//! ```
//! Five nouns: a [`Server`] answers requests; an [`Object`] is one stored revision; a [`Resource`](resource::Resource) is what can
//! be stored; a [`Failure`] is a refusal in the real server's words; a [`RequestRecord`] is a line of the transcript.

mod apply;
pub mod builtin;
mod builtin_schema;
mod cel;
mod cel_quick;
mod columns;
mod convert;
mod crd;
mod delete;
mod discovery;
mod events;
mod eviction;
mod fieldset;
mod formats;
mod gc;
pub mod http;
mod incoming;
pub mod jsonpath;
mod managed;
mod object;
mod observe;
mod openapi;
mod patch;
mod protobuf;
mod read;
mod request;
pub mod resource;
mod review;
mod router;
pub mod schema;
mod selectors;
mod server;
mod shape;
mod status;
mod store;
mod strategic;
mod strategy;
mod table;
mod trail;
mod validate;
mod watch;
mod write;

pub use crd::Definitions;
pub use object::{Key, Object};
pub use observe::{Admission, AdmissionReview, Counts, Fault, Faults, Observer, ReplyFault, RequestRecord};
pub use request::{RequestInfo, Target, Verb};
pub use selectors::{FieldSelector, LabelSelector};
pub use server::{Body, Disconnected, InProcess, Leniency, Options, PatchOf, Server, Watching};
pub use status::{Cause, Details, Failure, FieldError, FieldErrorKind};

#[cfg(test)]
mod tests;
