//! Refusals in the shape and words of the real server: `metav1.Status` with reason, code, details and causes.

use http::StatusCode;
use serde_json::{Map, Value, json};

/// Why one field of an object was refused.
///
/// Source: `k8s.io/apimachinery/pkg/util/validation/field` (Error, ErrorType).
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// What is wrong with the field.
    pub kind: FieldErrorKind,
    /// Path of the field, such as `spec.nodes[0].name`; empty for the object itself.
    pub field: String,
    /// The value refused, where the message shows it.
    pub value: Option<Value>,
    /// The rule that was broken, in the server's words.
    pub detail: String,
}

/// The kinds of field errors that this server raises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// A required field is absent.
    Required,
    /// Two items of a list have the same key.
    Duplicate,
    /// The value breaks a rule.
    Invalid,
    /// The value is not one of an enumeration.
    NotSupported,
    /// The field may not be set (now).
    Forbidden,
    /// A string is too long.
    TooLong,
    /// A list or map has too many items.
    TooMany,
    /// The value has the wrong JSON type.
    TypeInvalid,
}

impl FieldErrorKind {
    fn words(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }
}

impl FieldError {
    /// An error at `field`; `detail` in the server's words.
    pub fn new(
        kind: FieldErrorKind,
        field: impl Into<String>,
        value: Option<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self { kind, field: field.into(), value, detail: detail.into() }
    }

    /// The message without the path, as in `Invalid value: "x": must be ...`.
    pub fn body(&self) -> String {
        let mut text = self.kind.words().to_owned();
        let shows_value = match self.kind {
            FieldErrorKind::Required | FieldErrorKind::Forbidden | FieldErrorKind::TooLong => false,
            FieldErrorKind::Duplicate
            | FieldErrorKind::Invalid
            | FieldErrorKind::NotSupported
            | FieldErrorKind::TooMany
            | FieldErrorKind::TypeInvalid => true,
        };
        if shows_value && let Some(value) = &self.value {
            text.push_str(": ");
            text.push_str(&shown(value));
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }

    fn full(&self) -> String {
        // The root of an object is shown as `<nil>` by the real server's path printer.
        let field = if self.field.is_empty() { "<nil>" } else { &self.field };
        format!("{field}: {}", self.body())
    }
}

/// A value as the server prints it in messages: strings quoted, the rest as JSON.
fn shown(value: &Value) -> String {
    value.to_string()
}

/// One entry of `details.causes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Machine-readable reason.
    pub reason: String,
    /// Text for people.
    pub message: String,
    /// The field, if one is meant.
    pub field: Option<String>,
}

/// `details` of a Status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// Name of the object.
    pub name: String,
    /// API group of the object.
    pub group: String,
    /// Resource (or kind, for invalid objects).
    pub kind: String,
    /// UID of the object, after a deletion.
    pub uid: String,
    /// Single reasons.
    pub causes: Vec<Cause>,
    /// When to try again, in seconds; 0 = not said.
    pub retry_after_seconds: u32,
}

/// A refusal of a request: becomes a `metav1.Status` with status `Failure`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// HTTP status code.
    pub code: u16,
    /// The `metav1.StatusReason`; empty where the real server gives none.
    pub reason: &'static str,
    /// The message, word for word as the real server's.
    pub message: String,
    /// Details, where the real server gives them.
    pub details: Option<Box<Details>>,
    /// What the client is warned of besides.
    pub warnings: Vec<String>,
}

/// `nodes` or `leases.coordination.k8s.io`.
pub(super) fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

impl Failure {
    /// A refusal with only code, reason and message.
    pub fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code: code.as_u16(), reason, message: message.into(), details: None, warnings: Vec::new() }
    }

    /// The refusal, with warnings that were due before it.
    pub(super) fn warned(mut self, warnings: &[String]) -> Self {
        self.warnings.extend_from_slice(warnings);
        self
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let details = self.details.get_or_insert_default();
        group.clone_into(&mut details.group);
        kind.clone_into(&mut details.kind);
        name.clone_into(&mut details.name);
        self
    }

    /// 404 for an object.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", format!("{} \"{name}\" not found", qualified(group, resource)))
            .about(group, resource, name)
    }

    /// 404 for a path or resource that is not served: a line of plain text, no Status, as on the real server.
    pub fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "", "404 page not found\n")
    }

    /// Whether the answer is a line of text.
    pub(super) fn is_plain_text(&self) -> bool {
        self.reason.is_empty() && self.message.ends_with('\n')
    }

    /// 404 for a version, resource or subresource of a group that is built in.
    pub fn no_such_resource() -> Self {
        let mut failure =
            Self::new(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource");
        failure.details = Some(Box::default());
        failure
    }

    /// 405 for a verb that a custom resource does not have.
    pub fn not_supported(group: &str, resource: &str, verb: &str) -> Self {
        let message = format!("{verb} is not supported on resources of kind \"{}\"", qualified(group, resource));
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message).about(group, resource, "")
    }

    /// 409 for a name that is taken.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "AlreadyExists",
            format!("{} \"{name}\" already exists", qualified(group, resource)),
        )
        .about(group, resource, name)
    }

    /// 409 for a name that is taken, of an object that asked for a generated one.
    pub(super) fn not_unique(group: &str, resource: &str, name: &str) -> Self {
        let mut failure = Self::already_exists(group, resource, name);
        failure.message.push_str(", the server was not able to generate a unique name for the object");
        failure.details.get_or_insert_default().retry_after_seconds = 1;
        failure
    }

    /// 409 for a precondition that does not hold; `why` completes the server's sentence.
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "Conflict",
            format!("Operation cannot be fulfilled on {} \"{name}\": {why}", qualified(group, resource)),
        )
        .about(group, resource, name)
    }

    /// 409 for a stale resourceVersion.
    pub fn modified(group: &str, resource: &str, name: &str) -> Self {
        Self::conflict(
            group,
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 422 with one cause a field.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let qualified_kind = qualified(group, kind);
        let mut texts: Vec<String> = Vec::new();
        for text in errors.iter().map(FieldError::full) {
            // The message says the same thing once.
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let list = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let mut failure = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Invalid",
            format!("{qualified_kind} \"{name}\" is invalid: {list}"),
        )
        .about(group, kind, name);
        if let Some(details) = &mut failure.details {
            details.causes = errors
                .iter()
                .map(|error| Cause {
                    reason: error.kind.reason().to_owned(),
                    message: error.body(),
                    field: Some(if error.field.is_empty() { "<nil>".to_owned() } else { error.field.clone() }),
                })
                .collect();
        }
        failure
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// 403 for an object; `why` completes the server's sentence.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "Forbidden",
            format!("{} \"{name}\" is forbidden: {why}", qualified(group, resource)),
        )
        .about(group, resource, name)
    }

    /// 405 for a verb that the resource does not have.
    pub fn method_not_allowed() -> Self {
        let mut failure = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        );
        failure.details = Some(Box::default());
        failure
    }

    /// 410: the resourceVersion has left the history.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    /// 415: the patch or body has a media type that is not understood here.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    /// 503 with the words of a server that is starting or stopping.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
    }

    /// 504: the resourceVersion asked for lies in the future.
    pub fn too_large_resource_version(asked: u64, current: u64) -> Self {
        let mut failure = Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "Timeout",
            format!("Timeout: Too large resource version: {asked}, current: {current}"),
        );
        failure.details = Some(Box::new(Details {
            causes: vec![Cause {
                reason: "ResourceVersionTooLarge".to_owned(),
                message: "Too large resource version".to_owned(),
                field: None,
            }],
            retry_after_seconds: 1,
            ..Details::default()
        }));
        failure
    }

    /// The `metav1.Status` object.
    pub fn to_value(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = Value::from(self.reason);
        }
        if let Some(details) = &self.details {
            status["details"] = details_value(details);
        }
        status
    }
}

fn details_value(details: &Details) -> Value {
    let mut map = Map::new();
    let mut text = |key: &str, value: &str| {
        if !value.is_empty() {
            map.insert(key.to_owned(), Value::from(value));
        }
    };
    text("name", &details.name);
    text("group", &details.group);
    text("kind", &details.kind);
    text("uid", &details.uid);
    if !details.causes.is_empty() {
        let causes = details.causes.iter().map(|cause| {
            let mut entry = json!({"reason": cause.reason, "message": cause.message});
            if let Some(field) = &cause.field {
                entry["field"] = Value::from(field.as_str());
            }
            entry
        });
        map.insert("causes".to_owned(), causes.collect());
    }
    if details.retry_after_seconds > 0 {
        map.insert("retryAfterSeconds".to_owned(), Value::from(details.retry_after_seconds));
    }
    Value::Object(map)
}

/// The `Success` status that answers a deletion.
pub(super) fn deleted(group: &str, resource: &str, name: &str, uid: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": details_value(&Details {
            name: name.to_owned(), group: group.to_owned(), kind: resource.to_owned(), uid: uid.to_owned(),
            ..Details::default()
        }),
    })
}
