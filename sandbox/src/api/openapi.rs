//! OpenAPI v2 and v3, as far as kubectl looks at them.

use super::request::RequestInfo;
use super::server::{Answer, Inner};
use super::status::Failure;
use std::sync::Arc;

/// Answers `/openapi/...`.
pub(super) fn answer(_inner: &Arc<Inner>, _info: &RequestInfo, _rest: &[&str]) -> Result<Answer, Failure> {
    Err(Failure::no_such_resource())
}
