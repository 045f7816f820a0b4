//! Writes: POST, PUT, PATCH and DELETE, from the request's body to the store.

use super::builtin::BuiltinKind;
use super::gc;
use super::incoming::{self, Incoming};
use super::managed::{self, Operation, Writer};
use super::object::{Key, Object, copy_meta, finalizers, meta, meta_text, metadata, set_meta};
use super::observe::AdmissionReview;
use super::request::Verb;
use super::resource::{Nature, Resource};
use super::router::Call;
use super::schema::Schema;
use super::server::{Answer, Inner};
use super::status::{Failure, FieldError, FieldErrorKind};
use super::store::State;
use super::{crd, delete, patch, read, strategy};
use chrono::SecondsFormat;
use cupcake_engine::clock::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// Bytes of one stored object (etcd's limit of a request, 1.5 MiB).
const OBJECT_BYTES_MAX: usize = 1_572_864;

/// Attempts to find a free generated name.
const NAME_ATTEMPTS_MAX: usize = 8;

/// A time as objects show it: whole seconds, UTC.
pub(super) fn stamp(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// The namespaces that every cluster has.
pub(super) fn bootstrap(inner: &Arc<Inner>, now: Timestamp) {
    let mut state = inner.lock();
    let Some(id) = state.find("", "namespaces") else {
        return;
    };
    for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
        let uid = state.new_uid();
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {
                "name": name, "uid": uid, "creationTimestamp": stamp(now),
                "labels": {"kubernetes.io/metadata.name": name},
            },
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
        });
        state.put(id, Key::new("", name), namespace, now);
    }
}

/// The schema of the version that the client speaks, or one that lets everything through.
pub(super) fn schema_of(resource: &Resource, version: &str) -> Arc<Schema> {
    resource
        .version(version)
        .unwrap_or_else(|| resource.storage_version())
        .schema
        .clone()
        .unwrap_or_else(|| Arc::new(Schema::anything()))
}

pub(super) fn writer(call: &Call<'_>, operation: Operation) -> Writer {
    Writer {
        manager: call.info.manager(),
        operation,
        api_version: super::resource::group_version(call.group(), &call.target.version),
        subresource: call.target.subresource.clone(),
        time: stamp(call.now),
    }
}

/// Whether a write leaves its mark in managedFields here; apply does by itself, always.
fn records(call: &Call<'_>, writer: &Writer) -> bool {
    writer.operation == Operation::Update && call.inner.options.managed_fields
}

/// POST to a collection.
pub(super) fn create(call: &Call<'_>) -> Result<Answer, Failure> {
    let incoming = incoming::decode(call, &call.info.body)?;
    create_object(call, incoming, &writer(call, Operation::Update))
}

/// Creates an object that was decoded and shaped.
pub(super) fn create_object(call: &Call<'_>, incoming: Incoming, writer: &Writer) -> Result<Answer, Failure> {
    let warnings = incoming.warnings.clone();
    create_warned(call, incoming, writer).map_err(|failure| failure.warned(&warnings))
}

fn create_warned(call: &Call<'_>, incoming: Incoming, writer: &Writer) -> Result<Answer, Failure> {
    let Incoming { mut object, mut warnings } = incoming;
    let resource = &call.resource;
    check_namespace(call, &mut object)?;
    let mut state = call.inner.lock();
    check_namespace_lives(call, &state)?;
    for field in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        metadata(&mut object).remove(field);
    }
    let versioned = !meta_text(&object, "resourceVersion").is_empty();
    if !call.info.dry_run() || !versioned {
        metadata(&mut object).remove("resourceVersion");
    }
    name_object(call, &mut state, &mut object);
    let name = meta_text(&object, "name").to_owned();
    let uid = state.new_uid();
    set_meta(&mut object, "uid", Value::from(uid));
    set_meta(&mut object, "creationTimestamp", Value::from(stamp(call.now)));
    strategy::prepare_create(resource, call.version().status, &mut object);
    let schema = schema_of(resource, &call.target.version);
    strategy::validate_create(resource, &schema, &object, &name, call.group())?;
    if records(call, writer) {
        let blank = managed::blank(resource, &object);
        managed::record_update(&schema, blank.as_ref(), &mut object, writer, call.version().status);
    }
    admit(call, Verb::Create, Some(&object), None)?;
    let advice = strategy::warnings(resource, &object, None);
    let key = Key::new(&call.target.namespace, &name);
    if let Some(existing) = state.get(call.id, &key).filter(|_| !versioned || call.info.dry_run()) {
        let unique = meta_text(&object, "generateName").is_empty();
        let refused = if unique { Failure::already_exists } else { Failure::not_unique };
        // A generated name is the storage's affair, which knows one group of Events.
        let group = if unique { call.group() } else { &resource.group };
        let mut failure = refused(group, &resource.plural, &name);
        if meta(existing.value(), "deletionTimestamp").is_some() {
            failure.message.insert_str(0, "object is being deleted: ");
        }
        return Err(failure.warned(&advice));
    }
    if versioned && !call.info.dry_run() {
        return Err(Failure::new(
            http::StatusCode::INTERNAL_SERVER_ERROR,
            "",
            "resourceVersion should not be set on objects to be created",
        )
        .warned(&advice));
    }
    warnings.extend(advice);
    let object = commit(call, &mut state, key, object)?;
    drop(state);
    let mut answer = read::represent(call, &object, 201)?;
    answer.warnings.extend(warnings);
    answer.committed = !call.info.dry_run();
    Ok(answer)
}

/// Names an object by `metadata.name`, or by `metadata.generateName` and five letters.
fn name_object(call: &Call<'_>, state: &mut State, object: &mut Value) {
    if !meta_text(object, "name").is_empty() {
        return;
    }
    let base = meta_text(object, "generateName").to_owned();
    if base.is_empty() {
        // Validation refuses it.
        return;
    }
    let mut name = String::new();
    for _ in 0..NAME_ATTEMPTS_MAX {
        name = format!("{base}{}", state.name_suffix());
        if state.get(call.id, &Key::new(&call.target.namespace, &name)).is_none() {
            break;
        }
    }
    set_meta(object, "name", Value::from(name));
}

/// The namespace of the object is the one of the URL.
fn check_namespace(call: &Call<'_>, object: &mut Value) -> Result<(), Failure> {
    if !call.resource.namespaced {
        metadata(object).remove("namespace");
        return Ok(());
    }
    let wanted = &call.target.namespace;
    let given = meta_text(object, "namespace");
    if wanted.is_empty() {
        return Err(Failure::bad_request("an empty namespace may not be set during creation"));
    }
    if !given.is_empty() && given != wanted {
        return Err(Failure::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    set_meta(object, "namespace", Value::from(wanted.as_str()));
    Ok(())
}

fn check_namespace_lives(call: &Call<'_>, state: &State) -> Result<(), Failure> {
    let namespace = &call.target.namespace;
    if !call.resource.namespaced {
        return Ok(());
    }
    let found = state.find("", "namespaces").and_then(|id| state.get(id, &Key::new("", namespace)));
    match found {
        None => Err(Failure::not_found("", "namespaces", namespace)),
        Some(found) if meta(found.value(), "deletionTimestamp").is_some() => Err(Failure::forbidden(
            call.group(),
            &call.resource.plural,
            &call.target.name,
            &format!("unable to create new content in namespace {namespace} because it is being terminated"),
        )),
        Some(_) => Ok(()),
    }
}

pub(super) fn admit(
    call: &Call<'_>,
    verb: Verb,
    object: Option<&Value>,
    old_object: Option<&Value>,
) -> Result<(), Failure> {
    match call.inner.admission() {
        None => Ok(()),
        Some(admission) => admission(&AdmissionReview { request: call.info, verb, object, old_object }),
    }
}

/// Stores an object unless this is a dry run, and does what follows from it.
fn commit(call: &Call<'_>, state: &mut State, key: Key, object: Value) -> Result<Arc<Object>, Failure> {
    if call.info.dry_run() {
        let revision = meta_text(&object, "resourceVersion").parse().unwrap_or(0);
        return Ok(Object::seal_dry(object, revision));
    }
    let object = state.next(object);
    if object.bytes().len() > OBJECT_BYTES_MAX {
        return Err(Failure::new(
            http::StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            "etcdserver: request is too large",
        ));
    }
    let stored = state.insert(call.id, key, object, call.now);
    let chores = gc::after_write(call.id, &call.resource, &stored);
    if call.resource.nature == Nature::Builtin(BuiltinKind::CustomResourceDefinition) {
        crd::establish(state, &stored, call.now);
        gc::settle(state, chores, call.now);
        // The definition's own status was written meanwhile.
        let key = Key::new("", stored.name());
        return Ok(state.get(call.id, &key).cloned().unwrap_or(stored));
    }
    gc::settle(state, chores, call.now);
    Ok(stored)
}

/// PUT of an object or its status.
pub(super) fn replace(call: &Call<'_>) -> Result<Answer, Failure> {
    let mut incoming = incoming::decode(call, &call.info.body)?;
    // What the decoder warned of is said beside every refusal that comes after it.
    let warned = |failure: Failure, incoming: &Incoming| failure.warned(&incoming.warnings);
    check_object_name(call, &incoming.object).map_err(|failure| warned(failure, &incoming))?;
    let mut state = call.inner.lock();
    let key = Key::new(&call.target.namespace, &call.target.name);
    if let Some(existing) = state.get(call.id, &key).cloned() {
        let writer = writer(call, Operation::Update);
        return update_object(call, &mut state, &existing, incoming, &writer, Verb::Update);
    }
    drop(state);
    let creates = call.builtin().is_some_and(|kind| matches!(kind, BuiltinKind::Lease | BuiltinKind::Event));
    if !creates || !call.target.subresource.is_empty() {
        return Err(warned(call.not_found(), &incoming));
    }
    check_uid(call, &Value::Null, meta_text(&incoming.object, "uid")).map_err(|failure| warned(failure, &incoming))?;
    let given = meta_text(&incoming.object, "resourceVersion");
    if !given.is_empty() && given.parse::<u64>().is_err() {
        return Err(warned(unparsable(given), &incoming));
    }
    if !call.info.dry_run() {
        metadata(&mut incoming.object).remove("resourceVersion");
    }
    create_object(call, incoming, &writer(call, Operation::Update))
}

/// The object of a request is the one that its URL names.
fn check_object_name(call: &Call<'_>, object: &Value) -> Result<(), Failure> {
    let (given, wanted) = (meta_text(object, "name"), &call.target.name);
    if given == wanted {
        return Ok(());
    }
    Err(Failure::bad_request(if given.is_empty() {
        format!("the name of the object ({wanted} based on URL) was undeterminable: name must be provided")
    } else {
        format!("the name of the object ({given}) does not match the name on the URL ({wanted})")
    }))
}

/// PATCH of an object or its status.
pub(super) fn patch(call: &Call<'_>) -> Result<Answer, Failure> {
    let mut state = call.inner.lock();
    let key = Key::new(&call.target.namespace, &call.target.name);
    let existing = state.get(call.id, &key).cloned();
    if call.info.content_type == "application/apply-patch+yaml" {
        return super::apply::apply(call, state, existing);
    }
    let existing = existing.ok_or_else(|| call.not_found())?;
    let patched = patch::apply(call, existing.value())?;
    let incoming = incoming::shape(call, patched, Vec::new()).map_err(patch::undecodable)?;
    check_object_name(call, &incoming.object).map_err(|failure| failure.warned(&incoming.warnings))?;
    let writer = writer(call, Operation::Update);
    update_object(call, &mut state, &existing, incoming, &writer, Verb::Patch)
}

/// Turns a new version of an existing object into what is stored, and stores it if it differs.
pub(super) fn update_object(
    call: &Call<'_>,
    state: &mut State,
    existing: &Arc<Object>,
    incoming: Incoming,
    writer: &Writer,
    verb: Verb,
) -> Result<Answer, Failure> {
    let warnings = incoming.warnings.clone();
    update_warned(call, state, existing, incoming, writer, verb).map_err(|failure| failure.warned(&warnings))
}

fn update_warned(
    call: &Call<'_>,
    state: &mut State,
    existing: &Arc<Object>,
    incoming: Incoming,
    writer: &Writer,
    verb: Verb,
) -> Result<Answer, Failure> {
    let Incoming { mut object, mut warnings } = incoming;
    let resource = &call.resource;
    let old = existing.value();
    let uid = if call.inner.options.leniency.uids { "" } else { meta_text(&object, "uid") }.to_owned();
    // A patch is refused by validation for another UID, among whatever else is wrong with it.
    if verb != Verb::Patch {
        check_uid(call, old, &uid)?;
    }
    check_preconditions(call, old, &object)?;
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "resourceVersion",
    ] {
        copy_meta(old, &mut object, field);
    }
    if meta(&object, "managedFields").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        copy_meta(old, &mut object, "managedFields");
    }
    let has_status = call.version().status;
    strategy::prepare_update(resource, has_status, &call.target.subresource, old, &mut object);
    let schema = schema_of(resource, &call.target.version);
    strategy::validate_update(call, &schema, &object, old, &uid)?;
    warnings.extend(strategy::warnings(resource, &object, Some(old)));
    if records(call, writer) {
        managed::record_update(&schema, Some(old), &mut object, writer, has_status);
    }
    admit(call, verb, Some(&object), Some(old))?;
    let key = Key::new(&call.target.namespace, &call.target.name);
    let dying = meta(&object, "deletionTimestamp").is_some()
        && finalizers(&object).next().is_none()
        && meta(&object, "deletionGracePeriodSeconds").is_none_or(|grace| grace.as_i64() == Some(0));
    let changed = object != *old;
    let stored = if dying && !call.info.dry_run() {
        // The last finalizer is gone: so is the object, and nobody sees it without.
        delete::remove(state, call.id, &key, call.now);
        Object::seal_dry(object, existing.revision())
    } else if changed {
        commit(call, state, key, object)?
    } else {
        Arc::clone(existing)
    };
    let mut answer = read::represent(call, &stored, 200)?;
    answer.warnings.extend(warnings);
    answer.committed = changed && !call.info.dry_run();
    Ok(answer)
}

/// The UID that the request insists on.
fn check_uid(call: &Call<'_>, old: &Value, uid: &str) -> Result<(), Failure> {
    let (plural, name) = (&call.resource.plural, &call.target.name);
    if !uid.is_empty() && uid != meta_text(old, "uid") {
        return Err(Failure::conflict(
            call.group(),
            plural,
            name,
            &format!(
                "StorageError: invalid object, Code: 4, Key: {}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                storage_key(call),
                meta_text(old, "uid")
            ),
        ));
    }
    Ok(())
}

fn unparsable(revision: &str) -> Failure {
    let message = format!("strconv.ParseUint: parsing \"{revision}\": invalid syntax");
    Failure::new(http::StatusCode::INTERNAL_SERVER_ERROR, "", message)
}

/// The resourceVersion that the request insists on.
fn check_preconditions(call: &Call<'_>, old: &Value, object: &Value) -> Result<(), Failure> {
    let (plural, name) = (&call.resource.plural, &call.target.name);
    match meta_text(object, "resourceVersion") {
        "" | "0" if !call.resource.allows_unconditional_update() => Err(Failure::invalid(
            call.group(),
            plural,
            name,
            &[FieldError::new(
                FieldErrorKind::Invalid,
                "metadata.resourceVersion",
                Some(Value::from(0)),
                "must be specified for an update",
            )],
        )),
        "" | "0" => Ok(()),
        given if given.parse::<u64>().is_err() => Err(unparsable(given)),
        given if given == meta_text(old, "resourceVersion") => Ok(()),
        _stale if call.inner.options.leniency.versions.contains(plural) => Ok(()),
        _stale => Err(Failure::modified(call.group(), plural, name)),
    }
}

fn storage_key(call: &Call<'_>) -> String {
    // A write that is only tried never gets as far as the prefix.
    let mut key = String::from(if call.info.dry_run() { "/" } else { "/registry/" });
    if !call.resource.group.is_empty() && call.resource.nature == Nature::Custom {
        key.push_str(&call.resource.group);
        key.push('/');
    }
    // Nodes were minions once, and in etcd they still are.
    let plural = call.resource.plural.as_str();
    key.push_str(if call.builtin() == Some(BuiltinKind::Node) { "minions" } else { plural });
    for part in [&call.target.namespace, &call.target.name] {
        if !part.is_empty() {
            key.push('/');
            key.push_str(part);
        }
    }
    key
}

/// DELETE of one object.
pub(super) fn delete(call: &Call<'_>) -> Result<Answer, Failure> {
    delete::one(call)
}

/// DELETE of a collection.
pub(super) fn delete_collection(call: &Call<'_>) -> Result<Answer, Failure> {
    delete::many(call)
}
