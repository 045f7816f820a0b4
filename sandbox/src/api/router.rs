//! From a parsed request to the handler that answers it.

use super::builtin::BuiltinKind;
use super::request::{RequestInfo, Target, Verb};
use super::resource::{Nature, Resource, Version};
use super::server::{Answer, Inner};
use super::status::Failure;
use super::store::ResourceId;
use super::{discovery, eviction, incoming, openapi, patch, read, review, write};
use bytes::Bytes;
use cupcake_engine::clock::Timestamp;
use http::Method;
use serde_json::json;
use std::sync::Arc;

/// A request to a resource that exists, with all that handlers need.
pub(super) struct Call<'a> {
    pub(super) inner: &'a Arc<Inner>,
    pub(super) info: &'a RequestInfo,
    pub(super) target: &'a Target,
    pub(super) now: Timestamp,
    pub(super) id: ResourceId,
    pub(super) resource: Arc<Resource>,
}

impl Call<'_> {
    /// The version that the client speaks; Events of both groups share one store and one definition.
    pub(super) fn version(&self) -> &Version {
        self.resource.version(&self.target.version).unwrap_or_else(|| self.resource.storage_version())
    }

    /// The group that the client named.
    pub(super) fn group(&self) -> &str {
        &self.target.group
    }

    /// 404 for the object that the request names.
    pub(super) fn not_found(&self) -> Failure {
        Failure::not_found(self.group(), &self.resource.plural, &self.target.name)
    }

    /// The built-in kind, if it is one.
    pub(super) fn builtin(&self) -> Option<BuiltinKind> {
        match self.resource.nature {
            Nature::Builtin(kind) => Some(kind),
            Nature::Custom => None,
        }
    }
}

/// Answers a request.
pub(super) fn route(inner: &Arc<Inner>, info: &RequestInfo, now: Timestamp) -> Result<Answer, Failure> {
    let Some(target) = &info.target else {
        return other_path(inner, info);
    };
    if let Some(answer) = review::answer(info, target)? {
        return Ok(answer);
    }
    let (id, resource) = {
        let state = inner.lock();
        // Both kinds of Events are one collection, kept in the core group's shape.
        let group = if target.group == "events.k8s.io" { "" } else { &target.group };
        let id = state.find(group, &target.resource).ok_or_else(|| absent(&target.group))?;
        (id, Arc::clone(&state.collection(id).resource))
    };
    if resource.version(&target.version).is_none() {
        return Err(absent(&target.group));
    }
    let lacks_namespace = resource.namespaced && target.namespace.is_empty();
    if (!resource.namespaced && !target.namespace.is_empty()) || (lacks_namespace && !target.name.is_empty()) {
        return Err(absent(&target.group));
    }
    let call = Call { inner, info, target, now, id, resource };
    let known = match target.subresource.as_str() {
        "" => true,
        "status" => call.version().status,
        "eviction" | "binding" => call.builtin() == Some(BuiltinKind::Pod),
        _other => false,
    };
    if !known {
        return Err(if call.builtin().is_none() { call.not_found() } else { Failure::no_such_resource() });
    }
    check(&call)?;
    match target.subresource.as_str() {
        "" => on_object(&call),
        "status" => match info.verb {
            Verb::Get => read::get(&call),
            Verb::Update => write::replace(&call),
            Verb::Patch => write::patch(&call),
            Verb::List | Verb::Watch | Verb::Create | Verb::Delete | Verb::DeleteCollection => Err(not_allowed(&call)),
        },
        _of_pods => {
            if info.verb != Verb::Create {
                return Err(Failure::method_not_allowed());
            }
            if target.subresource == "eviction" { eviction::evict(&call) } else { eviction::bind(&call) }
        }
    }
}

/// 404 for what a group does not have: the built-in groups and those of custom resources use different words.
fn absent(group: &str) -> Failure {
    let builtin = super::builtin::all().iter().any(|resource| resource.group == group) || group == "events.k8s.io";
    if builtin { Failure::no_such_resource() } else { Failure::no_such_path() }
}

fn not_allowed(call: &Call<'_>) -> Failure {
    match call.resource.nature {
        Nature::Custom => Failure::not_supported(call.group(), &call.resource.plural, call.info.verb.as_str()),
        Nature::Builtin(_) => Failure::method_not_allowed(),
    }
}

/// 406 of the built-in groups.
fn unacceptable() -> Failure {
    let mut failure = Failure::new(
        http::StatusCode::NOT_ACCEPTABLE,
        "NotAcceptable",
        "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf",
    );
    failure.details = Some(Box::default());
    failure
}

/// What is refused before anything is looked up: answers that cannot be given, bodies that cannot be read, options.
fn check(call: &Call<'_>) -> Result<(), Failure> {
    let collection = call.target.name.is_empty();
    read::shape(call.info).map_err(|failure| if call.builtin().is_some() { unacceptable() } else { failure })?;
    match call.info.verb {
        Verb::Update | Verb::Patch if collection && call.builtin().is_some() => return Ok(()),
        Verb::Get | Verb::List | Verb::Watch => return Ok(()),
        Verb::Create => incoming::check_media(call)?,
        Verb::Patch => patch::check_media(call)?,
        Verb::Update | Verb::Delete | Verb::DeleteCollection => {}
    }
    call.info.check_options()
}

fn on_object(call: &Call<'_>) -> Result<Answer, Failure> {
    match call.info.verb {
        Verb::Get => read::get(call),
        Verb::List => read::list(call),
        Verb::Watch => read::watch(call),
        Verb::Create if call.target.name.is_empty() => write::create(call),
        // The handler of custom resources looks for the name in the object alone.
        Verb::Create if call.builtin().is_none() => write::create(call),
        Verb::Create => Err(Failure::method_not_allowed()),
        Verb::Update | Verb::Patch if call.target.name.is_empty() => Err(match call.builtin() {
            None => Failure::bad_request("name must be provided"),
            Some(_) => Failure::method_not_allowed(),
        }),
        Verb::Update => write::replace(call),
        Verb::Patch => write::patch(call),
        Verb::Delete => write::delete(call),
        Verb::DeleteCollection => write::delete_collection(call),
    }
}

/// Paths without a resource: health, version, discovery, OpenAPI.
fn other_path(inner: &Arc<Inner>, info: &RequestInfo) -> Result<Answer, Failure> {
    if info.method != Method::GET && info.method != Method::HEAD {
        return Err(Failure::method_not_allowed());
    }
    let parts: Vec<&str> = info.path.split('/').filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        ["healthz" | "livez" | "readyz", ..] => {
            let mut answer = Answer::json(200, Bytes::from_static(b"ok"));
            answer.content_type = "text/plain; charset=utf-8";
            Ok(answer)
        }
        ["version"] => Ok(Answer::value(200, &version(&inner.version()))),
        ["openapi", rest @ ..] => openapi::answer(inner, rest),
        ["api" | "apis", ..] => discovery::answer(inner, info, &parts),
        [] => Ok(Answer::value(
            200,
            &json!({"paths": ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v3", "/readyz", "/version"]}),
        )),
        _unknown => Err(Failure::no_such_path()),
    }
}

/// The answer of `/version`.
fn version(git_version: &str) -> serde_json::Value {
    let mut numbers = git_version.trim_start_matches('v').split('.');
    let major = numbers.next().unwrap_or_default();
    let minor = numbers.next().unwrap_or_default();
    json!({
        "major": major, "minor": minor, "gitVersion": git_version,
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "go1.24.0", "compiler": "gc", "platform": "linux/amd64",
        "emulationMajor": major, "emulationMinor": minor,
        "minCompatibilityMajor": major, "minCompatibilityMinor": minor,
    })
}
