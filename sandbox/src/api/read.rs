//! GET, LIST and WATCH.

use super::builtin::BuiltinKind;
use super::convert;
use super::object::{Key, Object, to_bytes};
use super::request::RequestInfo;
use super::resource::{Nature, group_version};
use super::router::Call;
use super::selectors::{FieldSelector, LabelSelector};
use super::server::{Answer, Body, Watching};
use super::status::Failure;
use super::store::{Collection, State};
use super::table::{self, IncludeObject};
use super::watch::{self, Queue, Shape, View, WatchBody};
use bytes::{BufMut as _, Bytes, BytesMut};
use chrono::TimeDelta;
use serde_json::{Value, json};
use std::sync::Arc;

/// The representation that `Accept` asks for: the first one that this server speaks.
pub(super) fn shape(info: &RequestInfo) -> Result<Shape, Failure> {
    let accept = if info.accept.is_empty() { "*/*" } else { &info.accept };
    for clause in accept.split(',') {
        let mut parts = clause.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        if !matches!(media, "application/json" | "application/*" | "*/*" | "") {
            continue;
        }
        let (mut kind, mut group, mut version) = ("", "", "");
        for part in parts {
            match part.split_once('=') {
                Some(("as", value)) => kind = value,
                Some(("g", value)) => group = value,
                Some(("v", value)) => version = value,
                _other => {}
            }
        }
        match (kind, group, version) {
            ("", _, _) => return Ok(Shape::Object),
            ("Table", "meta.k8s.io", "v1") => {
                return Ok(Shape::Table(include(info)?));
            }
            ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => {
                return Ok(Shape::Metadata);
            }
            _other => {}
        }
    }
    Err(Failure::new(
        http::StatusCode::NOT_ACCEPTABLE,
        "NotAcceptable",
        "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf",
    ))
}

fn include(info: &RequestInfo) -> Result<IncludeObject, Failure> {
    match info.parameter("includeObject") {
        None | Some("Metadata") => Ok(IncludeObject::Metadata),
        Some("Object") => Ok(IncludeObject::Object),
        Some("None") => Ok(IncludeObject::None),
        Some(other) => Err(Failure::bad_request(format!("unrecognized includeObject value: {other}"))),
    }
}

/// What the request wants to see.
fn view(call: &Call<'_>) -> Result<View, Failure> {
    let labels = call.info.parameter("labelSelector").unwrap_or_default();
    let fields = call.info.parameter("fieldSelector").unwrap_or_default();
    let resource = &call.resource;
    let is_event = resource.nature == Nature::Builtin(BuiltinKind::Event);
    let fields = if is_event {
        let parts: Result<Vec<String>, Failure> =
            fields.split(',').map(|part| convert::event_field(part, call.group())).collect();
        parts?.join(",")
    } else {
        fields.to_owned()
    };
    Ok(View {
        labels: LabelSelector::parse(labels)?,
        fields: FieldSelector::parse_for(resource, &fields)?,
        resource: Arc::clone(resource),
        version: call.target.version.clone(),
        group: call.target.group.clone(),
        namespace: call.target.namespace.clone(),
        shape: shape(call.info)?,
    })
}

/// One object in the representation that the client wants.
pub(super) fn represent(call: &Call<'_>, object: &Arc<Object>, code: u16) -> Result<Answer, Failure> {
    let view = View {
        labels: LabelSelector::default(),
        fields: FieldSelector::default(),
        resource: Arc::clone(&call.resource),
        version: call.target.version.clone(),
        group: call.target.group.clone(),
        namespace: String::new(),
        shape: shape(call.info)?,
    };
    let mut answer = match view.shape {
        Shape::Object if view.is_plain() => Answer::json(code, object.bytes().clone()),
        Shape::Object => Answer::value(code, &convert::outgoing(&view, object.value())),
        Shape::Metadata => Answer::value(code, &convert::partial(object.value())),
        Shape::Table(include) => {
            let rows = std::iter::once(object);
            let revision = match object.revision() {
                // It was only tried.
                0 => json!({}),
                revision => json!({"resourceVersion": revision.to_string()}),
            };
            let table = table::of(&view, rows, include, call.now, &revision);
            Answer::value(code, &table)
        }
    };
    answer.warnings.extend(call.version().warning.clone());
    Ok(answer)
}

/// GET of one object.
pub(super) fn get(call: &Call<'_>) -> Result<Answer, Failure> {
    let state = call.inner.lock();
    if let Some(asked) = call.info.number("resourceVersion")?
        && asked > state.revision
    {
        return Err(Failure::too_large_resource_version(asked, state.revision));
    }
    let key = Key::new(&call.target.namespace, &call.target.name);
    let object = state.get(call.id, &key).cloned().ok_or_else(|| call.not_found())?;
    drop(state);
    represent(call, &object, 200)
}

/// Where a list goes on: its revision, and the last object already sent.
struct Continue {
    revision: u64,
    after: Key,
}

impl Continue {
    fn parse(token: &str) -> Result<Self, Failure> {
        let parse = || {
            let (revision, place) = token.split_once('.')?;
            let (namespace, name) = place.split_once('.')?;
            Some(Self { revision: revision.parse().ok()?, after: Key::new(namespace, name) })
        };
        parse().ok_or_else(|| Failure::bad_request("continue key is not valid: encoding is not understood"))
    }

    /// Names of namespaces have no dots, so the first one after the revision ends the namespace.
    fn token(&self) -> String {
        format!("{}.{}.{}", self.revision, self.after.namespace, self.after.name)
    }
}

/// LIST.
pub(super) fn list(call: &Call<'_>) -> Result<Answer, Failure> {
    let limit = call.info.signed("limit")?.filter(|limit| *limit > 0);
    let limit = limit.and_then(|limit| usize::try_from(limit).ok());
    call.info.signed("timeoutSeconds")?;
    let view = view(call)?;
    let state = call.inner.lock();
    let collection = state.collection(call.id);
    let page = page(call, &state, collection, &view, limit)?;
    drop(state);
    let mut answer = match view.shape {
        Shape::Table(include) => {
            let table = table::of(&view, page.objects.iter(), include, call.now, &page.metadata());
            Answer::value(200, &table)
        }
        Shape::Metadata => {
            let items: Vec<Value> = page.objects.iter().map(|object| convert::partial(object.value())).collect();
            let items = if items.is_empty() { Value::Null } else { Value::from(items) };
            let list = json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": page.metadata(), "items": items,
            });
            Answer::value(200, &list)
        }
        Shape::Object => Answer::json(200, list_bytes(&view, &page)),
    };
    answer.warnings.extend(call.version().warning.clone());
    Ok(answer)
}

/// A list's answer, put together from the objects' cached bytes.
fn list_bytes(view: &View, page: &Page) -> Bytes {
    let mut metadata = page.metadata();
    let custom = view.resource.nature == Nature::Custom;
    if custom && page.next.is_none() {
        metadata["continue"] = Value::from("");
    }
    let head = json!({
        "kind": view.resource.list_kind,
        "apiVersion": group_version(&view.group, &view.version),
        "metadata": metadata,
    });
    let head = to_bytes(&head);
    let plain = view.is_plain();
    // Items of built-in lists do not say what they are; most objects begin with just that.
    let typed = format!(
        "{{\"apiVersion\":\"{}\",\"kind\":\"{}\",",
        group_version(&view.group, &view.version),
        view.resource.kind
    );
    let size: usize = page.objects.iter().map(|object| object.bytes().len() + 1).sum();
    let mut bytes = BytesMut::with_capacity(head.len() + size + 16);
    bytes.put_slice(&head[..head.len() - 1]);
    bytes.put_slice(b",\"items\":[");
    for (at, object) in page.objects.iter().enumerate() {
        if at > 0 {
            bytes.put_u8(b',');
        }
        match object.bytes().strip_prefix(typed.as_bytes()) {
            _typed if custom && plain => bytes.put_slice(object.bytes()),
            _typed if custom => bytes.put_slice(&to_bytes(&convert::outgoing(view, object.value()))),
            Some(rest) if plain => {
                bytes.put_u8(b'{');
                bytes.put_slice(rest);
            }
            _others => bytes.put_slice(&to_bytes(&convert::listed(view, object.value()))),
        }
    }
    bytes.put_slice(b"]}");
    bytes.freeze()
}

struct Page {
    objects: Vec<Arc<Object>>,
    revision: u64,
    next: Option<Continue>,
    remaining: Option<usize>,
}

impl Page {
    fn metadata(&self) -> Value {
        let mut metadata = json!({"resourceVersion": self.revision.to_string()});
        if let Some(next) = &self.next {
            metadata["continue"] = Value::from(next.token());
        }
        if let Some(remaining) = self.remaining {
            metadata["remainingItemCount"] = Value::from(remaining);
        }
        metadata
    }
}

fn page(
    call: &Call<'_>,
    state: &State,
    collection: &Collection,
    view: &View,
    limit: Option<usize>,
) -> Result<Page, Failure> {
    let asked = call.info.number("resourceVersion")?;
    let matching = call.info.parameter("resourceVersionMatch");
    let next = call.info.parameter("continue").map(Continue::parse).transpose()?;
    if matching.is_some() && asked.is_none() {
        return Err(list_options_invalid(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        ));
    }
    if next.is_some() && asked.is_some_and(|asked| asked > 0) {
        return Err(Failure::bad_request("specifying resource version is not allowed when using continue"));
    }
    if let Some(asked) = asked
        && asked > state.revision
    {
        return Err(Failure::too_large_resource_version(asked, state.revision));
    }
    let pinned = match (&next, matching, asked) {
        (Some(next), _, _) => Some(next.revision),
        (None, Some("Exact"), Some(asked)) if asked > 0 => Some(asked),
        _newest => None,
    };
    let after = next.as_ref().map(|next| &next.after);
    match pinned.filter(|revision| *revision < state.revision) {
        Some(revision) if !collection.remembers(revision) => Err(Failure::expired(if next.is_some() {
            "The provided continue parameter is too old to display a consistent list result. You must start a new list without the continue parameter."
        } else {
            "The resourceVersion for the provided list is too old."
        })),
        Some(revision) => {
            let old = collection.at(revision);
            let objects = old.iter().filter(|(key, _)| after.is_none_or(|after| *key > after));
            Ok(select(view, objects, limit, revision))
        }
        None => {
            let revision = pinned.unwrap_or(state.revision);
            Ok(select(view, newest(collection, view, after), limit, revision))
        }
    }
}

/// The objects that a view may select, after `after`. A view by name is not made to look at the others: the usual watch of an agent.
fn newest<'a>(
    collection: &'a Collection,
    view: &'a View,
    after: Option<&Key>,
) -> impl Iterator<Item = (&'a Key, &'a Arc<Object>)> {
    let everywhere = view.namespace.is_empty() && view.resource.namespaced;
    let pinned = view.fields.pinned("metadata.name");
    let name = pinned.filter(|_| !everywhere && after.is_none());
    let (one, many) = match name {
        Some(name) => (collection.objects.get_key_value(&Key::new(&view.namespace, name)), None),
        None => (None, Some(collection.range(&view.namespace, after))),
    };
    one.into_iter().chain(many.into_iter().flatten())
}

fn select<'a>(
    view: &View,
    objects: impl Iterator<Item = (&'a Key, &'a Arc<Object>)>,
    limit: Option<usize>,
    revision: u64,
) -> Page {
    let mut objects = objects;
    let Some(limit) = limit else {
        return Page {
            objects: objects.filter(|(_, object)| view.selects(object)).map(|(_, object)| Arc::clone(object)).collect(),
            revision,
            next: None,
            remaining: None,
        };
    };
    let matching = objects.by_ref().filter(|(_, object)| view.selects(object));
    let taken: Vec<(&Key, &Arc<Object>)> = matching.take(limit).collect();
    // The real server does not look at what comes after: there may be more, whether it matches or not.
    let left = objects.count();
    let next = taken.last().filter(|_| left > 0).map(|(key, _)| Continue { revision, after: (*key).clone() });
    // The real server does not count what selectors have yet to look at.
    let counted = view.labels.is_empty() && view.fields.is_empty() && left > 0;
    Page {
        objects: taken.into_iter().map(|(_, object)| Arc::clone(object)).collect(),
        revision,
        next,
        remaining: counted.then_some(left),
    }
}

fn list_options_invalid(field: &str, detail: &str) -> Failure {
    use super::status::{FieldError, FieldErrorKind};
    Failure::invalid(
        "meta.k8s.io",
        "ListOptions",
        "",
        &[FieldError::new(FieldErrorKind::Forbidden, field, None, detail)],
    )
}

/// WATCH.
pub(super) fn watch(call: &Call<'_>) -> Result<Answer, Failure> {
    let view = Arc::new(view(call)?);
    let send_initial = call.info.flag("sendInitialEvents");
    let asked = call.info.number("resourceVersion")?;
    if send_initial && call.info.parameter("resourceVersionMatch") != Some("NotOlderThan") {
        return Err(list_options_invalid(
            "resourceVersionMatch",
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ));
    }
    let seconds = call
        .info
        .number("timeoutSeconds")?
        .filter(|seconds| *seconds > 0)
        .unwrap_or(call.inner.options.watch_seconds_default);
    let mut state = call.inner.lock();
    let current = state.revision;
    if let Some(asked) = asked
        && asked > current
    {
        return Err(Failure::too_large_resource_version(asked, current));
    }
    let queue = Queue::new(current);
    let collection = state.collection(call.id);
    match asked {
        Some(revision) if revision > 0 && !send_initial => {
            if !collection.remembers(revision) {
                let failure =
                    Failure::expired(format!("too old resource version: {revision} ({})", collection.oldest()));
                return Ok(Answer::json(200, watch::error_line(&failure)));
            }
            for change in collection.since(revision) {
                queue.push(&view, change, state.limits.watch_lines_max, call.now);
            }
        }
        _from_the_present_state => {
            let initial = call.info.parameter("sendInitialEvents") != Some("false");
            if initial {
                for object in select(&view, newest(collection, &view, None), None, current).objects {
                    queue.push_initial(&view, &object, call.now);
                }
            }
            if send_initial && call.info.flag("allowWatchBookmarks") {
                queue.push_initial_end(&view, current);
            }
        }
    }
    let id = state.watch(call.id, Arc::clone(&queue), Arc::clone(&view));
    drop(state);
    let length = i64::try_from(seconds).unwrap_or(i64::MAX / 1_000);
    let until = call.now + TimeDelta::try_seconds(length).unwrap_or(TimeDelta::days(1));
    let mut answer = Answer::json(200, Bytes::new());
    answer.warnings.extend(call.version().warning.clone());
    answer.body = Body::Watch(Box::new(Watching(WatchBody {
        queue,
        view,
        bookmarks: call.info.flag("allowWatchBookmarks"),
        deadline: call.inner.clock.sleep_until(until),
        server: Arc::downgrade(call.inner),
        id,
        finished: false,
    })));
    Ok(answer)
}
