//! Reviews that clients post to ask about themselves: this sandbox allows everything.

use super::request::{RequestInfo, Target, Verb};
use super::server::Answer;
use super::status::Failure;
use serde_json::json;

/// Answers access and authentication reviews; `None` for every other resource.
pub(super) fn answer(info: &RequestInfo, target: &Target) -> Result<Option<Answer>, Failure> {
    let status = match (target.group.as_str(), target.resource.as_str()) {
        ("authorization.k8s.io", "selfsubjectaccessreviews" | "subjectaccessreviews" | "localsubjectaccessreviews") => {
            json!({"allowed": true, "reason": "the sandbox allows everything"})
        }
        ("authorization.k8s.io", "selfsubjectrulesreviews") => json!({
            "incomplete": false, "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
        }),
        ("authentication.k8s.io", "selfsubjectreviews") => {
            json!({"userInfo": {"username": info.client, "groups": ["system:masters", "system:authenticated"]}})
        }
        _other => return Ok(None),
    };
    if info.verb != Verb::Create {
        return Err(Failure::method_not_allowed());
    }
    let mut review = info.decoded()?;
    if !review.is_object() {
        return Err(Failure::bad_request("unable to decode the review: no object"));
    }
    review["status"] = status;
    Ok(Some(Answer::value(201, &review)))
}
