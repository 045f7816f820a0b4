//! The rules for Events, which the real server refuses when they are incomplete.
//!
//! Source: `k8s.io/kubernetes/pkg/apis/core/validation/events.go`.

use super::object::meta_text;
use super::status::{FieldError, FieldErrorKind as Kind};
use serde_json::Value;

/// Characters of names in an Event.
const WORD_MAX: usize = 128;

/// Characters of an Event's note.
const NOTE_MAX: usize = 1_024;

/// Checks a new Event, in the core group's shape; `group` is the one that the client spoke to.
pub(super) fn check(event: &Value, group: &str, errors: &mut Vec<FieldError>) {
    check_always(event, group, errors);
    if !group.is_empty() {
        check_new(event, errors);
    }
}

/// What must hold of every Event, new or changed.
pub(super) fn check_always(event: &Value, group: &str, errors: &mut Vec<FieldError>) {
    let text = |field: &str| event.get(field).and_then(Value::as_str).unwrap_or_default();
    let timed = !text("eventTime").is_empty();
    let namespace = meta_text(event, "namespace");
    let involved = event["involvedObject"]["namespace"].as_str().unwrap_or_default();
    let agrees = match (timed, involved.is_empty()) {
        (true, true) => matches!(namespace, "default" | "kube-system"),
        (true, false) => true,
        (false, true) => matches!(namespace, "" | "default"),
        (false, false) => namespace == involved,
    };
    if !agrees {
        errors.push(FieldError::new(
            Kind::Invalid,
            "involvedObject.namespace",
            Some(Value::from(involved)),
            "does not match event.namespace",
        ));
    }
    if timed {
        let controller = if group.is_empty() { "reportingComponent" } else { "reportingController" };
        for (field, shown) in [
            ("reportingComponent", controller),
            ("reportingInstance", "reportingInstance"),
            ("action", "action"),
            ("reason", "reason"),
        ] {
            if text(field).is_empty() {
                errors.push(FieldError::new(Kind::Required, shown, None, ""));
            }
            too_long(text(field), shown, WORD_MAX, errors);
        }
        too_long(text("message"), "message", NOTE_MAX, errors);
    }
}

/// What must hold of a new Event of events.k8s.io.
fn check_new(event: &Value, errors: &mut Vec<FieldError>) {
    let text = |field: &str| event.get(field).and_then(Value::as_str).unwrap_or_default();
    if text("eventTime").is_empty() {
        errors.push(FieldError::new(Kind::Required, "eventTime", None, ""));
    }
    let kind = text("type");
    if !matches!(kind, "Normal" | "Warning") {
        let detail = format!("has invalid value: {kind}");
        errors.push(FieldError::new(Kind::Invalid, "type", Some(Value::from("")), detail));
    }
    for field in ["firstTimestamp", "lastTimestamp", "count"] {
        if event.get(field).is_some_and(|value| !value.is_null() && *value != 0) {
            errors.push(FieldError::new(Kind::Invalid, field, Some(Value::from("")), "needs to be unset"));
        }
    }
}

/// What may change: in events.k8s.io nothing but the series, once an Event is there.
pub(super) fn check_update(event: &Value, old: &Value, group: &str, errors: &mut Vec<FieldError>) {
    if group.is_empty() {
        return;
    }
    for (field, shown) in [
        ("involvedObject", "involvedObject"),
        ("reason", "reason"),
        ("message", "message"),
        ("source", "source"),
        ("firstTimestamp", "firstTimestamp"),
        ("lastTimestamp", "lastTimestamp"),
        ("count", "count"),
        ("reason", "reason"),
        ("type", "type"),
        ("eventTime", "eventTime"),
        ("action", "action"),
        ("related", "related"),
        ("reportingComponent", "reportingController"),
        ("reportingInstance", "reportingInstance"),
    ] {
        if event.get(field) != old.get(field) {
            let absent = if field == "count" { Value::from(0) } else { Value::from("") };
            let value = event.get(field).cloned().unwrap_or(absent);
            errors.push(FieldError::new(Kind::Invalid, shown, Some(value), "field is immutable"));
        }
    }
}

fn too_long(text: &str, field: &str, max: usize, errors: &mut Vec<FieldError>) {
    if text.len() > max {
        let detail = format!("can have at most {max} characters");
        errors.push(FieldError::new(Kind::Invalid, field, Some(Value::from("")), detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn incomplete_events_are_refused_field_by_field() {
        let mut errors = Vec::new();
        check(&json!({"metadata": {"namespace": "default"}, "reason": "x"}), "events.k8s.io", &mut errors);
        let found: Vec<String> = errors.iter().map(|error| format!("{}: {}", error.field, error.body())).collect();
        assert_eq!(found, ["eventTime: Required value", "type: Invalid value: \"\": has invalid value: "]);
    }

    #[test]
    fn events_on_cluster_scoped_objects_live_in_default_or_kube_system() {
        for (namespace, good) in [("default", true), ("kube-system", true), ("team", false)] {
            let event = json!({
                "metadata": {"namespace": namespace}, "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Normal",
                "reportingComponent": "a", "reportingInstance": "b", "action": "c", "reason": "d",
                "involvedObject": {"kind": "Node", "name": "n1"},
            });
            let mut errors = Vec::new();
            check(&event, "events.k8s.io", &mut errors);
            assert_eq!(errors.is_empty(), good, "{namespace}");
        }
    }
}
