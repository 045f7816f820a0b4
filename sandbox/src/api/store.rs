//! The store: collections of objects with a bounded history, one revision counter, watchers, and the index of owners.

use super::object::{Key, Object, meta, meta_text, to_bytes};
use super::observe::Counts;
use super::resource::Resource;
use super::watch::{Change, ChangeKind, Queue, View};
use cupcake_engine::clock::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

/// A slot of the resource table; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ResourceId(usize);

/// One object anywhere in the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) resource: ResourceId,
    pub(super) key: Key,
}

/// One watcher: whom to tell, and what it wants to see.
#[derive(Debug)]
struct Watcher {
    queue: Arc<Queue>,
    view: Arc<View>,
}

/// What a watcher is indexed by, so that hundreds of watches on single objects cost nothing to each other's writes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Interest {
    Name(String),
    Node(String),
    Everything,
}

impl Interest {
    fn of(view: &View) -> Self {
        if let Some(name) = view.fields.pinned("metadata.name") {
            Self::Name(name.to_owned())
        } else if let Some(node) = view.fields.pinned("spec.nodeName") {
            Self::Node(node.to_owned())
        } else {
            Self::Everything
        }
    }
}

/// All objects of one resource.
#[derive(Debug)]
pub(super) struct Collection {
    pub(super) resource: Arc<Resource>,
    /// False once the definition of a custom resource is gone.
    pub(super) served: bool,
    pub(super) objects: BTreeMap<Key, Arc<Object>>,
    history: VecDeque<Arc<Change>>,
    /// Changes at or before this revision have left the history.
    compacted: u64,
    watchers: BTreeMap<Interest, BTreeMap<u64, Watcher>>,
}

impl Collection {
    fn new(resource: Arc<Resource>, revision: u64) -> Self {
        Self {
            resource,
            served: true,
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            compacted: revision,
            watchers: BTreeMap::new(),
        }
    }

    /// Objects of a namespace (all if empty), in order of namespace and name, after `after`.
    pub(super) fn range<'a>(
        &'a self,
        namespace: &'a str,
        after: Option<&Key>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Object>)> {
        let start = match after {
            Some(key) => Bound::Excluded(key.clone()),
            None => Bound::Included(Key::new(namespace, "")),
        };
        self.objects
            .range((start, Bound::Unbounded))
            .take_while(move |(key, _)| namespace.is_empty() || key.namespace == namespace)
    }

    /// Whether changes after `revision` are all still known.
    pub(super) fn remembers(&self, revision: u64) -> bool {
        revision >= self.compacted
    }

    /// The oldest revision that a watch may start from.
    pub(super) fn oldest(&self) -> u64 {
        self.compacted
    }

    /// Changes after `revision`, in order.
    pub(super) fn since(&self, revision: u64) -> impl Iterator<Item = &Arc<Change>> {
        let from = self.history.partition_point(|change| change.revision() <= revision);
        self.history.range(from..)
    }

    /// The objects as they were at `revision`, which the history must remember.
    pub(super) fn at(&self, revision: u64) -> BTreeMap<Key, Arc<Object>> {
        let mut objects = self.objects.clone();
        for change in self.history.iter().rev() {
            if change.revision() <= revision {
                break;
            }
            let key = Key::new(change.object.namespace(), change.object.name());
            match &change.previous {
                Some(previous) => objects.insert(key, Arc::clone(previous)),
                None => objects.remove(&key),
            };
        }
        objects
    }

    fn record(&mut self, change: Change, history_max: usize, lines_max: usize, now: Timestamp) {
        let change = Arc::new(change);
        for interest in interests(&change) {
            for watcher in self.watchers.get(&interest).into_iter().flat_map(BTreeMap::values) {
                watcher.queue.push(&watcher.view, &change, lines_max, now);
            }
        }
        self.history.push_back(change);
        while self.history.len() > history_max {
            if let Some(gone) = self.history.pop_front() {
                self.compacted = gone.revision();
            }
        }
    }

    fn close(&mut self) {
        for watcher in self.watchers.values().flat_map(BTreeMap::values) {
            watcher.queue.close();
        }
        self.watchers.clear();
    }
}

/// The indexes in which a change may interest somebody.
fn interests(change: &Change) -> BTreeSet<Interest> {
    let node = |object: &Object| {
        let spec = object.value().get("spec")?;
        Some(Interest::Node(spec.get("nodeName")?.as_str()?.to_owned()))
    };
    let mut interests = BTreeSet::from([Interest::Everything, Interest::Name(change.object.name().to_owned())]);
    interests.extend(node(&change.object));
    interests.extend(change.previous.as_deref().and_then(node));
    interests
}

/// Everything that the server stores.
#[derive(Debug)]
pub(super) struct State {
    pub(super) revision: u64,
    ids: fastrand::Rng,
    collections: Vec<Collection>,
    by_name: BTreeMap<String, BTreeMap<String, ResourceId>>,
    /// Objects by UID, and the objects that name a UID as their owner.
    by_uid: BTreeMap<String, Place>,
    dependents: BTreeMap<String, BTreeSet<Place>>,
    watchers: u64,
    pub(super) counts: Counts,
    pub(super) limits: Limits,
}

/// Bounds of the store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) history_events_max: usize,
    pub(super) watch_lines_max: usize,
    pub(super) controllers: bool,
}

impl State {
    pub(super) fn new(seed: u64, limits: Limits) -> Self {
        Self {
            // Revision 1 is the empty store: no client ever sees 0, which means "any".
            revision: 1,
            ids: fastrand::Rng::with_seed(seed),
            collections: Vec::new(),
            by_name: BTreeMap::new(),
            by_uid: BTreeMap::new(),
            dependents: BTreeMap::new(),
            watchers: 0,
            counts: Counts::default(),
            limits,
        }
    }

    /// Serves a resource: a new one, or a new definition of one that is served already.
    pub(super) fn serve(&mut self, resource: Arc<Resource>) {
        let names = self.by_name.entry(resource.group.clone()).or_default();
        if let Some(ResourceId(id)) = names.get(&resource.plural) {
            let collection = &mut self.collections[*id];
            collection.resource = resource;
            collection.served = true;
        } else {
            names.insert(resource.plural.clone(), ResourceId(self.collections.len()));
            self.collections.push(Collection::new(resource, self.revision));
        }
    }

    /// Ends the service of a resource; its watches end, its objects must be gone already.
    pub(super) fn retire(&mut self, group: &str, plural: &str) {
        if let Some(ResourceId(id)) = self.by_name.get_mut(group).and_then(|names| names.remove(plural)) {
            self.collections[id].served = false;
            self.collections[id].close();
        }
    }

    /// The slot of a resource that is served.
    pub(super) fn find(&self, group: &str, plural: &str) -> Option<ResourceId> {
        self.by_name.get(group)?.get(plural).copied()
    }

    pub(super) fn collection(&self, id: ResourceId) -> &Collection {
        &self.collections[id.0]
    }

    /// All resources served, in the order in which they were added.
    pub(super) fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.collections.iter().filter(|collection| collection.served).map(|collection| &collection.resource)
    }

    pub(super) fn get(&self, id: ResourceId, key: &Key) -> Option<&Arc<Object>> {
        self.collections[id.0].objects.get(key)
    }

    /// A version 4 UUID from the seeded generator.
    pub(super) fn new_uid(&mut self) -> String {
        let bits = self.ids.u128(..);
        let bits = (bits & !(0xf << 76)) | (4 << 76);
        let bits = (bits & !(3 << 62)) | (2 << 62);
        let hex = format!("{bits:032x}");
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    /// Five letters for `metadata.generateName`, from the alphabet that the real server uses.
    pub(super) fn name_suffix(&mut self) -> String {
        const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        (0..5).map(|_| char::from(ALPHABET[self.ids.usize(..ALPHABET.len())])).collect()
    }

    /// Stores a new revision of an object and tells the watchers.
    pub(super) fn put(&mut self, id: ResourceId, key: Key, value: Value, now: Timestamp) -> Arc<Object> {
        let object = self.next(value);
        self.insert(id, key, object, now)
    }

    /// The object that the next write would store; it is serialised at most once, whoever looks at its size.
    pub(super) fn next(&self, value: Value) -> Arc<Object> {
        Object::seal(value, self.revision + 1)
    }

    /// Stores what [`State::next`] made, with no other write in between.
    pub(super) fn insert(&mut self, id: ResourceId, key: Key, object: Arc<Object>, now: Timestamp) -> Arc<Object> {
        self.revision = object.revision();
        let limits = self.limits;
        let collection = &mut self.collections[id.0];
        let previous = collection.objects.insert(key.clone(), Arc::clone(&object));
        let place = Place { resource: id, key };
        if let Some(previous) = &previous {
            forget(&mut self.by_uid, &mut self.dependents, previous, &place);
        }
        self.by_uid.insert(object.uid().to_owned(), place.clone());
        for owner in owners(object.value()) {
            self.dependents.entry(owner.to_owned()).or_default().insert(place.clone());
        }
        self.measure(id, &object);
        let kind = if previous.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
        self.collections[id.0].record(
            Change::new(kind, Arc::clone(&object), previous),
            limits.history_events_max,
            limits.watch_lines_max,
            now,
        );
        object
    }

    /// Removes an object and tells the watchers; returns its last state, at the revision of the removal.
    pub(super) fn remove(&mut self, id: ResourceId, key: &Key, now: Timestamp) -> Option<Arc<Object>> {
        let previous = self.collections[id.0].objects.remove(key)?;
        self.revision += 1;
        let place = Place { resource: id, key: key.clone() };
        forget(&mut self.by_uid, &mut self.dependents, &previous, &place);
        let last = Object::seal(previous.value().clone(), self.revision);
        let limits = self.limits;
        self.collections[id.0].record(
            Change::new(ChangeKind::Deleted, Arc::clone(&last), Some(previous)),
            limits.history_events_max,
            limits.watch_lines_max,
            now,
        );
        Some(last)
    }

    /// The object with this UID.
    pub(super) fn by_uid(&self, uid: &str) -> Option<&Place> {
        self.by_uid.get(uid)
    }

    /// The objects that name this UID as an owner.
    pub(super) fn dependents(&self, uid: &str) -> Vec<Place> {
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }

    /// All objects in a namespace.
    pub(super) fn places_in(&self, namespace: &str) -> Vec<Place> {
        self.collections
            .iter()
            .enumerate()
            .filter(|(_, collection)| collection.resource.namespaced)
            .flat_map(|(id, collection)| {
                collection
                    .range(namespace, None)
                    .map(move |(key, _)| Place { resource: ResourceId(id), key: key.clone() })
            })
            .collect()
    }

    /// Adds a watcher; the caller has queued what it is to see first.
    pub(super) fn watch(&mut self, id: ResourceId, queue: Arc<Queue>, view: Arc<View>) -> u64 {
        self.watchers += 1;
        let interest = Interest::of(&view);
        self.collections[id.0].watchers.entry(interest).or_default().insert(self.watchers, Watcher { queue, view });
        self.watchers
    }

    /// Removes a watcher that nobody reads any more.
    pub(super) fn unwatch(&mut self, view: &View, watcher: u64) {
        let Some(id) = self.find(&view.resource.group, &view.resource.plural) else {
            return;
        };
        let interest = Interest::of(view);
        let watchers = &mut self.collections[id.0].watchers;
        if let Some(same) = watchers.get_mut(&interest) {
            same.remove(&watcher);
            if same.is_empty() {
                watchers.remove(&interest);
            }
        }
    }

    /// Number of open watches.
    pub(super) fn open_watches(&self) -> usize {
        self.collections.iter().flat_map(|collection| collection.watchers.values()).map(BTreeMap::len).sum()
    }

    /// Ends all watches, as a restart of the server does.
    pub(super) fn close_watches(&mut self) {
        for collection in &mut self.collections {
            collection.close();
        }
    }

    /// Does something with the queue of every watch.
    pub(super) fn each_queue(&self, act: impl Fn(&Queue)) {
        let watchers = self.collections.iter().flat_map(|collection| collection.watchers.values());
        for watcher in watchers.flat_map(BTreeMap::values) {
            act(&watcher.queue);
        }
    }

    /// Forgets all history: watches and lists from older revisions are answered 410.
    pub(super) fn compact(&mut self) {
        let revision = self.revision;
        for collection in &mut self.collections {
            collection.history.clear();
            collection.compacted = revision;
        }
    }

    fn measure(&mut self, id: ResourceId, object: &Object) {
        let bytes = object.bytes().len();
        let kind = &self.collections[id.0].resource.kind;
        match self.counts.largest_bytes.get_mut(kind) {
            Some(largest) => *largest = bytes.max(*largest),
            None => {
                self.counts.largest_bytes.insert(kind.clone(), bytes);
            }
        }
    }

    /// A digest of everything stored: equal states give equal bytes.
    pub(super) fn snapshot(&self) -> Vec<(String, Vec<u8>)> {
        self.collections
            .iter()
            .flat_map(|collection| {
                let name = collection.resource.qualified();
                collection.objects.iter().map(move |(key, object)| {
                    (format!("{name} {}/{}", key.namespace, key.name), to_bytes(object.value()).to_vec())
                })
            })
            .collect()
    }
}

/// UIDs of the owners of an object.
pub(super) fn owners(object: &Value) -> impl Iterator<Item = &str> {
    meta(object, "ownerReferences")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|owner| owner.get("uid")?.as_str())
}

fn forget(
    by_uid: &mut BTreeMap<String, Place>,
    dependents: &mut BTreeMap<String, BTreeSet<Place>>,
    object: &Object,
    place: &Place,
) {
    by_uid.remove(meta_text(object.value(), "uid"));
    for owner in owners(object.value()) {
        if let Some(places) = dependents.get_mut(owner) {
            places.remove(place);
            if places.is_empty() {
                dependents.remove(owner);
            }
        }
    }
}
