//! Deletion: preconditions, grace, finalizers, propagation.
//!
//! Source: `k8s.io/apiserver/pkg/registry/rest/delete.go`, `registry/generic/registry/store.go`.

use super::builtin::BuiltinKind;
use super::convert;
use super::gc::{self, Chore};
use super::object::{Key, Object, child, finalizers, meta, meta_text, metadata, set_meta};
use super::read;
use super::request::Verb;
use super::resource::{Nature, group_version};
use super::router::Call;
use super::selectors::{FieldSelector, LabelSelector};
use super::server::Answer;
use super::status::{self, Failure};
use super::store::{Place, ResourceId, State};
use super::write::{admit, stamp};
use chrono::TimeDelta;
use cupcake_engine::clock::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// The finalizer of an owner that waits for its dependents.
pub(super) const FOREGROUND: &str = "foregroundDeletion";

/// The finalizer of an owner whose dependents have yet to be let go.
pub(super) const ORPHAN: &str = "orphan";

/// What becomes of dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Propagation {
    /// They go after their owner.
    Background,
    /// They go before their owner.
    Foreground,
    /// They stay.
    Orphan,
    /// Nothing was said: they go after their owner, unless something else was said before.
    Unsaid,
}

/// What a deletion did.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The object is gone; its last state.
    Removed(Arc<Object>),
    /// The object is marked, and waits for its grace period or finalizers.
    Marked(Arc<Object>),
}

#[derive(Debug, Default)]
struct Options {
    dry_run: bool,
    grace_seconds: Option<i64>,
    propagation: Option<Propagation>,
    uid: Option<String>,
    resource_version: Option<String>,
}

fn options(call: &Call<'_>) -> Result<Options, Failure> {
    let body = call.info.decoded()?;
    if body.is_null() {
        call.info.check_options()?;
    }
    from_body(&body, call)
}

fn from_body(body: &Value, call: &Call<'_>) -> Result<Options, Failure> {
    // With a body, the parameters say nothing.
    let parameter = |name: &str| call.info.parameter(name).filter(|_| body.is_null());
    let policy = body["propagationPolicy"].as_str().or_else(|| parameter("propagationPolicy"));
    let propagation = match policy {
        None => None,
        Some("Background") => Some(Propagation::Background),
        Some("Foreground") => Some(Propagation::Foreground),
        Some("Orphan") => Some(Propagation::Orphan),
        Some(other) => {
            return Err(Failure::invalid(
                "meta.k8s.io",
                "DeleteOptions",
                "",
                &[status::FieldError::new(
                    status::FieldErrorKind::NotSupported,
                    "propagationPolicy",
                    Some(Value::from(other)),
                    "supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"",
                )],
            ));
        }
    };
    let grace = if body.is_null() { call.info.signed("gracePeriodSeconds")? } else { None };
    Ok(Options {
        dry_run: !body["dryRun"].is_null() || parameter("dryRun").is_some(),
        grace_seconds: body["gracePeriodSeconds"].as_i64().or(grace),
        propagation,
        uid: text(body, "uid"),
        resource_version: text(body, "resourceVersion"),
    })
}

/// A precondition.
fn text(options: &Value, name: &str) -> Option<String> {
    options["preconditions"][name].as_str().map(str::to_owned)
}

/// DELETE of one object.
pub(super) fn one(call: &Call<'_>) -> Result<Answer, Failure> {
    let options = options(call)?;
    let mut state = call.inner.lock();
    let key = Key::new(&call.target.namespace, &call.target.name);
    delete_checked(call, &mut state, &key, &options)
}

/// Deletes a pod for an eviction whose options are `body`.
pub(super) fn evicted(call: &Call<'_>, state: &mut State, key: &Key, body: &Value) -> Result<(), Failure> {
    let mut options = from_body(body, call)?;
    options.dry_run |= call.info.dry_run();
    if !options.dry_run {
        // They were checked; what was noted since changed the version.
        options.resource_version = None;
    }
    delete_checked(call, state, key, &options).map(|_answer| ())
}

/// The preconditions of an eviction, which are looked at before anything is noted on the pod.
pub(super) fn check_evicted(call: &Call<'_>, pod: &Object, body: &Value) -> Result<(), Failure> {
    check_preconditions(
        call,
        pod,
        &Options { uid: text(body, "uid"), resource_version: text(body, "resourceVersion"), ..Options::default() },
    )
}

fn delete_checked(call: &Call<'_>, state: &mut State, key: &Key, options: &Options) -> Result<Answer, Failure> {
    let existing = state.get(call.id, key).cloned().ok_or_else(|| call.not_found())?;
    check_preconditions(call, &existing, options)?;
    admit(call, Verb::Delete, None, Some(existing.value()))?;
    let propagation = options.propagation.unwrap_or(Propagation::Unsaid);
    let (outcome, chores) = if options.dry_run {
        let dry = match intent(state, call.id, &existing, propagation, options.grace_seconds, call.now) {
            Intent::Remove(None) => Outcome::Removed(Arc::clone(&existing)),
            Intent::Remove(Some(value)) => Outcome::Removed(Object::seal_dry(value, existing.revision())),
            Intent::Mark(value) => Outcome::Marked(Object::seal_dry(value, existing.revision())),
        };
        (Some(dry), Vec::new())
    } else {
        begin(state, call.id, key, propagation, options.grace_seconds, call.now)
    };
    gc::settle(state, chores, call.now);
    let plural = &call.resource.plural;
    let answer = match outcome {
        Some(Outcome::Removed(last)) => {
            let details = status::deleted(call.group(), plural, last.name(), last.uid());
            // Pods and a few others answer with their last state.
            if returns_object(call) { read::represent(call, &last, 200)? } else { Answer::value(200, &details) }
        }
        Some(Outcome::Marked(now)) if options.dry_run => read::represent(call, &now, 200)?,
        Some(Outcome::Marked(now)) => {
            let latest = state.get(call.id, key).cloned().unwrap_or(now);
            read::represent(call, &latest, 200)?
        }
        None => return Err(call.not_found()),
    };
    Ok(if options.dry_run { answer } else { answer.committed() })
}

fn returns_object(call: &Call<'_>) -> bool {
    matches!(call.builtin(), Some(BuiltinKind::Pod | BuiltinKind::Service | BuiltinKind::Namespace))
}

fn check_preconditions(call: &Call<'_>, existing: &Object, options: &Options) -> Result<(), Failure> {
    let refuse = |why: &str| {
        // The real server names the kind here, not the resource.
        Err(Failure::conflict(&call.resource.group, &call.resource.kind, existing.name(), why))
    };
    if let Some(uid) = &options.uid
        && uid != existing.uid()
        && !call.inner.options.leniency.uids
    {
        return refuse(&format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted and then recreated",
            existing.uid()
        ));
    }
    let revision = meta_text(existing.value(), "resourceVersion");
    if let Some(wanted) = &options.resource_version
        && wanted != revision
    {
        return refuse(&format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({revision}). The object might have been modified"
        ));
    }
    Ok(())
}

/// DELETE of a collection: each object on its own, in order.
pub(super) fn many(call: &Call<'_>) -> Result<Answer, Failure> {
    let options = options(call)?;
    let labels = LabelSelector::parse(call.info.parameter("labelSelector").unwrap_or_default())?;
    let resource = Arc::clone(&call.resource);
    let fields = FieldSelector::parse_for(&resource, call.info.parameter("fieldSelector").unwrap_or_default())?;
    let mut state = call.inner.lock();
    let found: Vec<(Key, Arc<Object>)> = state
        .collection(call.id)
        .range(&call.target.namespace, None)
        .filter(|(_, object)| labels.matches(object.labels()) && fields.matches(object.value()))
        .map(|(key, object)| (key.clone(), Arc::clone(object)))
        .collect();
    for (key, _) in &found {
        if state.get(call.id, key).is_some() {
            delete_checked(call, &mut state, key, &options)?;
        }
    }
    // The answer lists what was deleted.
    let items: Vec<Value> = found
        .iter()
        .map(|(_, object)| {
            let mut shown = convert::shown_as(&call.resource, call.group(), &call.target.version, object.value());
            if call.builtin().is_some() {
                for field in ["apiVersion", "kind"] {
                    super::object::as_map(&mut shown).remove(field);
                }
            }
            shown
        })
        .collect();
    let mut list = json!({
        "kind": call.resource.list_kind,
        "apiVersion": group_version(call.group(), &call.target.version),
        "metadata": {"resourceVersion": state.revision.to_string()},
        "items": items,
    });
    if call.builtin().is_none() {
        list["metadata"]["continue"] = Value::from("");
    }
    let answer = Answer::value(200, &list);
    Ok(if found.is_empty() || options.dry_run { answer } else { answer.committed() })
}

/// Begins a deletion: removes the object, or marks it if something must come first. Returns what is left to be done.
pub(super) fn begin(
    state: &mut State,
    id: ResourceId,
    key: &Key,
    propagation: Propagation,
    grace_seconds: Option<i64>,
    now: Timestamp,
) -> (Option<Outcome>, Vec<Chore>) {
    let Some(existing) = state.get(id, key).cloned() else {
        return (None, Vec::new());
    };
    let resource = Arc::clone(&state.collection(id).resource);
    let mut chores = Vec::new();
    match intent(state, id, &existing, propagation, grace_seconds, now) {
        Intent::Remove(marked) => {
            if let Some(marked) = marked {
                state.put(id, key.clone(), marked, now);
            }
            let last = state.remove(id, key, now);
            if let Some(last) = &last {
                chores.extend(gc::after_removal(state, &resource, last));
            }
            (last.map(Outcome::Removed), chores)
        }
        Intent::Mark(value) if value == *existing.value() => (Some(Outcome::Marked(existing)), chores),
        Intent::Mark(value) => {
            let marked = state.put(id, key.clone(), value, now);
            chores.extend(gc::after_write(id, &resource, &marked));
            (Some(Outcome::Marked(marked)), chores)
        }
    }
}

/// What a deletion comes to.
enum Intent {
    /// The object goes at once; one that could have stayed is first seen as this.
    Remove(Option<Value>),
    /// The object stays for now, as this.
    Mark(Value),
}

fn intent(
    state: &State,
    id: ResourceId,
    existing: &Object,
    propagation: Propagation,
    grace_seconds: Option<i64>,
    now: Timestamp,
) -> Intent {
    let resource = &state.collection(id).resource;
    let mut value = existing.value().clone();
    let already = meta(&value, "deletionTimestamp").is_some();
    let mut grace = grace(resource.nature, &value, grace_seconds);
    let old_grace = meta(&value, "deletionGracePeriodSeconds").and_then(Value::as_i64);
    if let Some(old) = old_grace.filter(|old| already && *old > 0) {
        // It is stopping already: only somebody who asks for less changes that.
        match grace_seconds.map(at_least) {
            Some(asked) if asked < old => grace = asked,
            _no_less => return Intent::Mark(value),
        }
    }
    // Events own nothing.
    let owns = resource.nature != Nature::Builtin(BuiltinKind::Event);
    if propagation != Propagation::Unsaid
        && let Some(list) = metadata(&mut value).get_mut("finalizers").and_then(Value::as_array_mut)
    {
        list.retain(|name| name != ORPHAN && name != FOREGROUND);
        if list.is_empty() {
            metadata(&mut value).remove("finalizers");
        }
    }
    match propagation {
        Propagation::Orphan if owns => add_finalizer(&mut value, ORPHAN),
        Propagation::Foreground if owns => add_finalizer(&mut value, FOREGROUND),
        Propagation::Orphan | Propagation::Foreground | Propagation::Background | Propagation::Unsaid => {}
    }
    let mut waits = finalizers(&value).next().is_some() || grace > 0;
    match resource.nature {
        Nature::Builtin(BuiltinKind::Namespace) => {
            value["status"]["phase"] = Value::from("Terminating");
            waits = true;
        }
        Nature::Builtin(BuiltinKind::CustomResourceDefinition) => waits = true,
        Nature::Builtin(_) | Nature::Custom => {}
    }
    let graceful = resource.nature == Nature::Builtin(BuiltinKind::Pod);
    if !waits && !graceful {
        return Intent::Remove(None);
    }
    if !already || old_grace.is_some_and(|old| grace < old) {
        let end = now + TimeDelta::try_seconds(grace).unwrap_or_default();
        set_meta(&mut value, "deletionTimestamp", Value::from(stamp(end)));
        if resource.nature != Nature::Builtin(BuiltinKind::Namespace) {
            set_meta(&mut value, "deletionGracePeriodSeconds", Value::from(grace));
        }
        if !already && let Some(generation) = meta(&value, "generation").and_then(Value::as_i64) {
            set_meta(&mut value, "generation", Value::from(generation + 1));
        }
    }
    if waits { Intent::Mark(value) } else { Intent::Remove(Some(value)) }
}

/// Seconds that a pod has to stop; every other kind has none.
fn grace(nature: Nature, object: &Value, asked: Option<i64>) -> i64 {
    if nature != Nature::Builtin(BuiltinKind::Pod) {
        return 0;
    }
    let phase = object["status"]["phase"].as_str().unwrap_or_default();
    let scheduled = !object["spec"]["nodeName"].as_str().unwrap_or_default().is_empty();
    if !scheduled || matches!(phase, "Succeeded" | "Failed") {
        return 0;
    }
    asked.or_else(|| object["spec"]["terminationGracePeriodSeconds"].as_i64()).map_or(30, at_least)
}

/// Less than nothing is the least that there is.
fn at_least(seconds: i64) -> i64 {
    if seconds < 0 { 1 } else { seconds }
}

fn add_finalizer(value: &mut Value, name: &str) {
    if !finalizers(value).any(|known| known == name) {
        let list = metadata(value).entry("finalizers").or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(Value::from(name));
        }
    }
}

/// Takes the owner's UID out of its dependents.
pub(super) fn orphan(state: &mut State, uid: &str, now: Timestamp) {
    for place in state.dependents(uid) {
        let Some(object) = state.get(place.resource, &place.key) else {
            continue;
        };
        let mut value = object.value().clone();
        if let Some(list) = child(super::object::as_map(&mut value), "metadata")
            .get_mut("ownerReferences")
            .and_then(Value::as_array_mut)
        {
            list.retain(|owner| owner["uid"] != uid);
        }
        state.put(place.resource, place.key.clone(), value, now);
    }
}

/// Removes an object for good, and does what follows.
pub(super) fn remove(state: &mut State, id: ResourceId, key: &Key, now: Timestamp) -> Option<Arc<Object>> {
    let resource = Arc::clone(&state.collection(id).resource);
    let last = state.remove(id, key, now)?;
    let chores = gc::after_removal(state, &resource, &last);
    gc::settle(state, chores, now);
    Some(last)
}

/// Takes a finalizer of the server's own away; the last one takes the object with it.
pub(super) fn drop_finalizer(state: &mut State, place: &Place, finalizer: &str, now: Timestamp) -> Vec<Chore> {
    let Some(object) = state.get(place.resource, &place.key).cloned() else {
        return Vec::new();
    };
    let mut value = object.value().clone();
    if let Some(list) = metadata(&mut value).get_mut("finalizers").and_then(Value::as_array_mut) {
        list.retain(|name| name != finalizer);
    }
    let grace = meta(&value, "deletionGracePeriodSeconds").and_then(Value::as_i64);
    let done = finalizers(&value).next().is_none() && grace.unwrap_or(0) == 0;
    state.put(place.resource, place.key.clone(), value, now);
    if !done {
        return Vec::new();
    }
    let resource = Arc::clone(&state.collection(place.resource).resource);
    let last = state.remove(place.resource, &place.key, now);
    last.map_or_else(Vec::new, |last| gc::after_removal(state, &resource, &last))
}
