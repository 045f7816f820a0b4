//! What a request asks for: verb, resource, name, subresource and parameters, as the real server reads its URL.
//!
//! Source: `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`.

use super::protobuf;
use super::status::{Failure, FieldError, FieldErrorKind};
use bytes::Bytes;
use http::{Method, header};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What is done to a resource, in the words of RBAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// Read one object.
    Get,
    /// Read a collection.
    List,
    /// Follow a collection.
    Watch,
    /// Create an object (or post to a subresource).
    Create,
    /// Replace an object.
    Update,
    /// Change parts of an object.
    Patch,
    /// Delete an object.
    Delete,
    /// Delete a collection.
    DeleteCollection,
}

impl Verb {
    /// The word as RBAC and audit logs write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }

    /// Whether the verb changes state when it succeeds.
    pub fn writes(self) -> bool {
        match self {
            Self::Get | Self::List | Self::Watch => false,
            Self::Create | Self::Update | Self::Patch | Self::Delete | Self::DeleteCollection => true,
        }
    }
}

/// The resource part of a request; absent for paths such as `/version`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// API group; empty for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural resource name.
    pub resource: String,
    /// Namespace; empty for cluster-scoped resources and lists over all namespaces.
    pub namespace: String,
    /// Object name; empty for collections.
    pub name: String,
    /// Subresource; empty for the object itself.
    pub subresource: String,
}

/// One request, parsed; this is what hooks see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestInfo {
    /// Who asks: the name given to [`super::Server::service`], or `http` for sockets.
    pub client: String,
    /// HTTP method.
    pub method: Method,
    /// Path without the query.
    pub path: String,
    /// Raw query string; empty if absent.
    pub query: String,
    /// What is done; for paths without a resource it is derived from the method alone.
    pub verb: Verb,
    /// The resource, if the path names one.
    pub target: Option<Target>,
    /// Decoded query parameters; the last of equal names wins.
    pub parameters: BTreeMap<String, String>,
    /// `Accept`.
    pub accept: String,
    /// `Content-Type` without its parameters.
    pub content_type: String,
    /// `User-Agent`.
    pub user_agent: String,
    /// The body's bytes.
    pub body: Bytes,
}

impl RequestInfo {
    /// Reads the head and body of a request.
    pub fn parse(client: &str, request: http::Request<Bytes>) -> Self {
        let (parts, body) = request.into_parts();
        let header = |name: header::HeaderName| {
            parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
        };
        let content_type = header(header::CONTENT_TYPE);
        let content_type = content_type.split(';').next().unwrap_or_default().trim().to_owned();
        let accept = header(header::ACCEPT).to_owned();
        let user_agent = header(header::USER_AGENT).to_owned();
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let parameters = parse_query(&query);
        let target = parse_target(&path);
        let verb = verb_of(&parts.method, target.as_ref(), &parameters);
        Self {
            client: client.to_owned(),
            method: parts.method,
            path,
            query,
            verb,
            target,
            parameters,
            accept,
            content_type,
            user_agent,
            body,
        }
    }

    /// A query parameter; `None` when absent or empty.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether a boolean query parameter is set.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.parameter(name), Some("true" | "1"))
    }

    /// `dryRun=All` was asked; any other value was refused by [`Self::check_options`].
    pub(super) fn dry_run(&self) -> bool {
        self.parameter("dryRun").is_some()
    }

    /// 422 for the values of the parameters of a write: before anything else is looked at.
    pub(super) fn check_options(&self) -> Result<(), Failure> {
        let unsupported = |parameter: &str, value: Value, supported: &str| {
            let detail = format!("supported values: {supported}");
            FieldError::new(FieldErrorKind::NotSupported, parameter, Some(value), detail)
        };
        let mut errors = Vec::new();
        let applies = self.content_type == "application/apply-patch+yaml";
        if self.verb == Verb::Patch && applies && self.parameter("fieldManager").is_none() {
            let detail = "is required for apply patch";
            errors.push(FieldError::new(FieldErrorKind::Required, "fieldManager", None, detail));
        }
        if let Some(other) = self.parameter("dryRun").filter(|value| *value != "All") {
            errors.push(unsupported("dryRun", json!([other]), "\"All\""));
        }
        let strictness =
            self.parameter("fieldValidation").filter(|value| !matches!(*value, "Ignore" | "Strict" | "Warn"));
        if let Some(other) = strictness {
            let supported = "\"\", \"Ignore\", \"Strict\", \"Warn\"";
            errors.push(unsupported("fieldValidation", Value::from(other), supported));
        }
        if errors.is_empty() { Ok(()) } else { Err(Failure::invalid("meta.k8s.io", self.options_kind(), "", &errors)) }
    }

    fn options_kind(&self) -> &'static str {
        match self.verb {
            Verb::Create => "CreateOptions",
            Verb::Update => "UpdateOptions",
            Verb::Patch => "PatchOptions",
            Verb::Delete | Verb::DeleteCollection => "DeleteOptions",
            Verb::Get | Verb::List | Verb::Watch => "ListOptions",
        }
    }

    /// The field manager of a write: the parameter, else the user agent's first part, else the client's name.
    pub(super) fn manager(&self) -> String {
        if let Some(manager) = self.parameter("fieldManager") {
            return manager.to_owned();
        }
        let agent = self.user_agent.split('/').next().unwrap_or_default();
        let name = if agent.is_empty() { &self.client } else { agent };
        name.chars().take(128).collect()
    }

    /// The body as JSON, whichever way it is written; null if empty.
    pub(super) fn decoded(&self) -> Result<Value, Failure> {
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        if self.content_type == protobuf::MEDIA_TYPE {
            return protobuf::decode(&self.body).map_err(|error| match error {
                protobuf::Error::Malformed => Failure::bad_request(error.to_string()),
                protobuf::Error::Unsupported(_) => Failure::unsupported_media_type(error.to_string()),
            });
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| Failure::bad_request(format!("unable to decode the body: {error}")))
    }

    /// A numeric parameter that may be negative.
    pub(super) fn signed(&self, name: &str) -> Result<Option<i64>, Failure> {
        self.parameter(name)
            .map(|text| {
                text.parse().map_err(|_invalid| {
                    Failure::bad_request(format!("strconv.ParseInt: parsing \"{text}\": invalid syntax"))
                })
            })
            .transpose()
    }

    /// Seconds of a numeric parameter.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        self.parameter(name)
            .map(|text| {
                text.parse().map_err(|_invalid| {
                    let why = format!("strconv.ParseUint: parsing \"{text}\": invalid syntax");
                    Failure::bad_request(if name == "resourceVersion" {
                        format!("invalid resource version: resourceVersion: Invalid value: \"{text}\": {why}")
                    } else {
                        why
                    })
                })
            })
            .transpose()
    }
}

fn verb_of(method: &Method, target: Option<&Target>, parameters: &BTreeMap<String, String>) -> Verb {
    let collection = target.is_some_and(|target| target.name.is_empty());
    match *method {
        Method::POST => Verb::Create,
        Method::PUT => Verb::Update,
        Method::PATCH => Verb::Patch,
        Method::DELETE if collection => Verb::DeleteCollection,
        Method::DELETE => Verb::Delete,
        _ if collection => match parameters.get("watch").map(String::as_str) {
            Some("true" | "1") => Verb::Watch,
            _not_watched => Verb::List,
        },
        _ => Verb::Get,
    }
}

/// The resource that a path names, if it names one.
fn parse_target(path: &str) -> Option<Target> {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let (group, version) = match parts.next()? {
        "api" => ("", parts.next()?),
        "apis" => (parts.next()?, parts.next()?),
        _other => return None,
    };
    let rest: Vec<&str> = parts.collect();
    let (namespace, rest) = match rest.as_slice() {
        // `namespaces/x/status` and `/finalize` are subresources of the namespace itself.
        ["namespaces", name, resource, ..] if *resource != "status" && *resource != "finalize" => (*name, &rest[2..]),
        _cluster_scoped => ("", &rest[..]),
    };
    let (resource, name, subresource) = match rest {
        [resource] => (*resource, "", String::new()),
        [resource, name] => (*resource, *name, String::new()),
        [resource, name, sub @ ..] => (*resource, *name, sub.join("/")),
        [] => return None,
    };
    Some(Target {
        group: group.to_owned(),
        version: version.to_owned(),
        resource: resource.to_owned(),
        namespace: decode(namespace),
        name: decode(name),
        subresource,
    })
}

fn parse_query(query: &str) -> BTreeMap<String, String> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

/// Undoes percent-encoding and `+` for space; bytes that are no UTF-8 become replacement characters.
fn decode(text: &str) -> String {
    if !text.contains(['%', '+']) {
        return text.to_owned();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = |at: usize| {
            tail.get(at).and_then(|byte| char::from(*byte).to_digit(16)).and_then(|digit| u8::try_from(digit).ok())
        };
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(high * 16 + low);
                rest = &tail[2..];
            }
            (b'+', _, _) => {
                bytes.push(b' ');
                rest = tail;
            }
            (plain, _, _) => {
                bytes.push(plain);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &str, uri: &str) -> RequestInfo {
        let request = http::Request::builder().method(method).uri(uri).body(Bytes::new());
        RequestInfo::parse("test", request.unwrap())
    }

    #[test]
    fn paths_name_resources_as_on_the_real_server() {
        let info = parse("POST", "/api/v1/namespaces/kube-system/pods/web-1/eviction?dryRun=All");
        let target = info.target.clone().unwrap();
        assert_eq!(
            (target.namespace.as_str(), target.resource.as_str(), target.name.as_str(), target.subresource.as_str()),
            ("kube-system", "pods", "web-1", "eviction")
        );
        assert_eq!((info.verb, info.dry_run()), (Verb::Create, true));

        let info = parse("GET", "/api/v1/namespaces/kube-system");
        let target = info.target.unwrap();
        assert_eq!((target.resource.as_str(), target.name.as_str()), ("namespaces", "kube-system"));

        let info = parse("GET", "/apis/apps/v1/deployments?watch=1&labelSelector=a%3Db%2Cc+d");
        assert_eq!(info.verb, Verb::Watch);
        assert_eq!(info.parameter("labelSelector"), Some("a=b,c d"));
        assert!(parse("GET", "/version").target.is_none());
        assert!(parse("GET", "/apis/apps/v1").target.is_none());
    }
}
