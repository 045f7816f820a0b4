//! What follows from a write: dependents of deleted owners, finished deletions, budgets. All of it happens within the request
//! that caused it, in a fixed order: where the real controllers take a moment, this server takes none.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/{garbagecollector,namespace}`.

use super::builtin::BuiltinKind;
use super::delete::{self, FOREGROUND, ORPHAN, Propagation};
use super::object::{Key, Object, finalizers, meta, meta_text, metadata};
use super::resource::{Nature, Resource};
use super::store::{Place, ResourceId, State, owners};
use super::{crd, eviction};
use cupcake_engine::clock::Timestamp;
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::Arc;

/// One thing left to do after a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Chore {
    /// The owner with this UID is gone: so are those that had no other.
    OwnerGone(String),
    /// An object names owners: if none of them exists, it goes.
    CheckOwners(Place),
    /// An owner waits for its dependents.
    Foreground(Place),
    /// An owner lets its dependents go.
    Orphan(Place),
    /// A namespace is being deleted.
    Namespace(String),
    /// A CustomResourceDefinition is being deleted.
    Definition(String),
    /// Pods or budgets of a namespace changed.
    Budgets(String),
}

/// What a write leaves to be done.
pub(super) fn after_write(id: ResourceId, resource: &Resource, object: &Arc<Object>) -> Vec<Chore> {
    let mut chores = Vec::new();
    let value = object.value();
    let place = || Place { resource: id, key: Key::new(object.namespace(), object.name()) };
    if owners(value).next().is_some() {
        chores.push(Chore::CheckOwners(place()));
    }
    let dying = meta(value, "deletionTimestamp").is_some();
    if dying && finalizers(value).any(|name| name == FOREGROUND) {
        chores.push(Chore::Foreground(place()));
    }
    if dying && finalizers(value).any(|name| name == ORPHAN) {
        chores.push(Chore::Orphan(place()));
    }
    match resource.nature {
        Nature::Builtin(BuiltinKind::Pod | BuiltinKind::PodDisruptionBudget) => {
            chores.push(Chore::Budgets(object.namespace().to_owned()));
        }
        Nature::Builtin(BuiltinKind::Namespace) if dying => {
            chores.push(Chore::Namespace(object.name().to_owned()));
        }
        Nature::Builtin(BuiltinKind::CustomResourceDefinition) if dying => {
            chores.push(Chore::Definition(object.name().to_owned()));
        }
        Nature::Builtin(
            BuiltinKind::Namespace
            | BuiltinKind::CustomResourceDefinition
            | BuiltinKind::Node
            | BuiltinKind::Event
            | BuiltinKind::Service
            | BuiltinKind::Lease
            | BuiltinKind::Workload
            | BuiltinKind::Plain,
        )
        | Nature::Custom => {}
    }
    chores
}

/// What a removal leaves to be done.
pub(super) fn after_removal(state: &State, resource: &Resource, object: &Object) -> Vec<Chore> {
    let mut chores = vec![Chore::OwnerGone(object.uid().to_owned())];
    for owner in owners(object.value()) {
        if let Some(place) = state.by_uid(owner) {
            chores.push(Chore::Foreground(place.clone()));
        }
    }
    match resource.nature {
        Nature::Builtin(BuiltinKind::Pod) => {
            chores.push(Chore::Budgets(object.namespace().to_owned()));
        }
        Nature::Builtin(_) => {}
        Nature::Custom => chores.push(Chore::Definition(resource.qualified())),
    }
    if resource.namespaced {
        chores.push(Chore::Namespace(object.namespace().to_owned()));
    }
    chores
}

/// Does all chores, and those that follow from them.
pub(super) fn settle(state: &mut State, chores: Vec<Chore>, now: Timestamp) {
    let mut queue = VecDeque::from(chores);
    if !state.limits.controllers {
        // Only definitions are the API server's own business.
        queue.retain(|chore| matches!(chore, Chore::Definition(_)));
    }
    while let Some(chore) = queue.pop_front() {
        match chore {
            Chore::OwnerGone(uid) => {
                for place in state.dependents(&uid) {
                    queue.extend(check_owners(state, &place, now));
                }
            }
            Chore::CheckOwners(place) => queue.extend(check_owners(state, &place, now)),
            Chore::Foreground(place) => queue.extend(foreground(state, &place, now)),
            Chore::Orphan(place) => {
                if let Some(owner) = state.get(place.resource, &place.key).cloned() {
                    delete::orphan(state, owner.uid(), now);
                    queue.extend(delete::drop_finalizer(state, &place, ORPHAN, now));
                }
            }
            Chore::Namespace(name) => queue.extend(empty_namespace(state, &name, now)),
            Chore::Definition(name) => queue.extend(crd::retire(state, &name, now)),
            Chore::Budgets(namespace) => eviction::recount(state, &namespace, now),
        }
    }
}

/// Deletes an object whose owners are all gone; forgets single owners that are gone.
fn check_owners(state: &mut State, place: &Place, now: Timestamp) -> Vec<Chore> {
    let Some(object) = state.get(place.resource, &place.key).cloned() else {
        return Vec::new();
    };
    let (alive, gone): (Vec<&str>, Vec<&str>) = owners(object.value()).partition(|uid| state.by_uid(uid).is_some());
    if gone.is_empty() {
        return Vec::new();
    }
    if alive.is_empty() {
        let propagation = Propagation::Unsaid;
        return delete::begin(state, place.resource, &place.key, propagation, None, now).1;
    }
    let mut value = object.value().clone();
    if let Some(list) = metadata(&mut value).get_mut("ownerReferences").and_then(Value::as_array_mut) {
        list.retain(|owner| !gone.iter().any(|uid| owner["uid"] == **uid));
    }
    state.put(place.resource, place.key.clone(), value, now);
    Vec::new()
}

/// Deletes the dependents of an owner that waits for them; lets it go once there are none.
fn foreground(state: &mut State, place: &Place, now: Timestamp) -> Vec<Chore> {
    let Some(owner) = state.get(place.resource, &place.key).cloned() else {
        return Vec::new();
    };
    let waits =
        meta(owner.value(), "deletionTimestamp").is_some() && finalizers(owner.value()).any(|name| name == FOREGROUND);
    if !waits {
        return Vec::new();
    }
    let mut chores = Vec::new();
    for dependent in state.dependents(owner.uid()) {
        let Some(object) = state.get(dependent.resource, &dependent.key) else {
            continue;
        };
        if meta(object.value(), "deletionTimestamp").is_none() {
            let propagation = Propagation::Foreground;
            let (_, more) = delete::begin(state, dependent.resource, &dependent.key, propagation, None, now);
            chores.extend(more);
        }
    }
    if state.dependents(owner.uid()).is_empty() {
        chores.extend(delete::drop_finalizer(state, place, FOREGROUND, now));
    }
    chores
}

/// Deletes what a dying namespace holds; lets it go once it is empty.
fn empty_namespace(state: &mut State, name: &str, now: Timestamp) -> Vec<Chore> {
    let Some(id) = state.find("", "namespaces") else {
        return Vec::new();
    };
    let key = Key::new("", name);
    let dying = state.get(id, &key).is_some_and(|namespace| meta(namespace.value(), "deletionTimestamp").is_some());
    if !dying {
        return Vec::new();
    }
    let mut chores = Vec::new();
    let mut left = 0_usize;
    for place in state.places_in(name) {
        let waits = state
            .get(place.resource, &place.key)
            .is_some_and(|object| meta(object.value(), "deletionTimestamp").is_some());
        if waits {
            left += 1;
            continue;
        }
        let propagation = Propagation::Unsaid;
        let (outcome, more) = delete::begin(state, place.resource, &place.key, propagation, None, now);
        if let Some(delete::Outcome::Marked(_)) = outcome {
            left += 1;
        }
        chores.extend(more);
    }
    if left == 0
        && let Some(namespace) = state.get(id, &key).cloned()
        && finalizers(namespace.value()).next().is_none()
    {
        delete::remove(state, id, &key, now);
        chores.push(Chore::OwnerGone(meta_text(namespace.value(), "uid").to_owned()));
    }
    chores
}
