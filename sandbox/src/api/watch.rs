//! Watches: bounded queues fed by the store, read as the body of a response.

use super::object::{Object, to_bytes};
use super::resource::Resource;
use super::selectors::{FieldSelector, LabelSelector};
use super::server::Inner;
use bytes::{BufMut, Bytes, BytesMut};
use cupcake_engine::clock::Timestamp;
use futures::future::BoxFuture;
use serde_json::json;
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

/// How an object changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChangeKind {
    Added,
    Modified,
    Deleted,
}

impl ChangeKind {
    fn word(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One change in a collection's history.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) kind: ChangeKind,
    pub(super) object: Arc<Object>,
    pub(super) previous: Option<Arc<Object>>,
    line: OnceLock<Bytes>,
}

impl Change {
    pub(super) fn new(kind: ChangeKind, object: Arc<Object>, previous: Option<Arc<Object>>) -> Self {
        Self { kind, object, previous, line: OnceLock::new() }
    }

    /// The revision that made the change.
    pub(super) fn revision(&self) -> u64 {
        self.object.revision()
    }
}

/// What a client asked to see, and how.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) resource: Arc<Resource>,
    /// Version asked for.
    pub(super) version: String,
    /// Group asked for: differs from the resource's only for Events.
    pub(super) group: String,
    /// Namespace; empty for all.
    pub(super) namespace: String,
    pub(super) labels: LabelSelector,
    pub(super) fields: FieldSelector,
    pub(super) shape: Shape,
}

/// The representation asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Whole objects.
    Object,
    /// `meta.k8s.io/v1 Table`, rows with `metadata`, whole objects or nothing.
    Table(super::table::IncludeObject),
    /// `PartialObjectMetadata`.
    Metadata,
}

impl View {
    pub(super) fn selects(&self, object: &Object) -> bool {
        (self.namespace.is_empty() || self.namespace == object.namespace())
            && (self.labels.is_empty() || self.labels.matches(object.labels()))
            && (self.fields.is_empty() || self.fields.matches(object.value()))
    }

    /// Whether objects leave the server as they are stored.
    pub(super) fn is_plain(&self) -> bool {
        self.shape == Shape::Object
            && self.group == self.resource.group
            && self.version == self.resource.storage_version().name
    }
}

/// A line `{"type":…,"object":…}`.
fn line(word: &str, object: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(object.len() + word.len() + 24);
    bytes.put_slice(b"{\"type\":\"");
    bytes.put_slice(word.as_bytes());
    bytes.put_slice(b"\",\"object\":");
    bytes.put_slice(object);
    bytes.put_slice(b"}\n");
    bytes.freeze()
}

/// What a watcher sees of a change, if anything: objects that begin or cease to match are added or deleted for it.
pub(super) fn seen(view: &View, change: &Change) -> Option<ChangeKind> {
    let now = view.selects(&change.object);
    let before = change.previous.as_ref().is_some_and(|old| view.selects(old));
    match (change.kind, before, now) {
        (ChangeKind::Deleted, _, _) => (before || now).then_some(ChangeKind::Deleted),
        (ChangeKind::Added | ChangeKind::Modified, false, true) => Some(ChangeKind::Added),
        (ChangeKind::Added | ChangeKind::Modified, true, true) => Some(ChangeKind::Modified),
        (ChangeKind::Added | ChangeKind::Modified, true, false) => Some(ChangeKind::Deleted),
        (ChangeKind::Added | ChangeKind::Modified, false, false) => None,
    }
}

/// The queue between the store and one watch.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<QueueState>,
}

#[derive(Debug)]
struct QueueState {
    lines: VecDeque<Bytes>,
    /// Revision of the last change looked at, sent or not: what a bookmark may say.
    revision: u64,
    closed: bool,
    /// Until when nothing that happens gets here.
    lost_until: Option<Timestamp>,
    /// Table watches send the column definitions once.
    columns_sent: bool,
    waker: Option<Waker>,
}

impl Queue {
    pub(super) fn new(revision: u64) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(QueueState {
                lines: VecDeque::new(),
                revision,
                closed: false,
                lost_until: None,
                columns_sent: false,
                waker: None,
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        // Lines are pushed whole: a panic of another holder leaves a usable queue.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues what `view` sees of a change; a queue that is full is closed, as the real server ends slow watches.
    pub(super) fn push(&self, view: &View, change: &Change, lines_max: usize, now: Timestamp) {
        let seen = seen(view, change);
        let mut state = self.lock();
        state.revision = state.revision.max(change.revision());
        let Some(kind) = seen.filter(|_| state.lost_until.is_none_or(|until| now >= until)) else { return };
        if state.lines.len() >= lines_max {
            state.closed = true;
        } else if view.is_plain() && kind == change.kind {
            let shared = change.line.get_or_init(|| line(kind.word(), change.object.bytes()));
            state.lines.push_back(shared.clone());
        } else {
            let shown = match &change.previous {
                // An object that leaves the selection is shown as it was in it.
                Some(previous) if kind == ChangeKind::Deleted && change.kind != kind => {
                    let left = Object::seal(previous.value().clone(), change.revision());
                    shown(view, &left, &mut state, now)
                }
                _present => shown(view, &change.object, &mut state, now),
            };
            state.lines.push_back(line(kind.word(), &shown));
        }
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// Queues the present state of an object, as `ADDED`.
    pub(super) fn push_initial(&self, view: &View, object: &Arc<Object>, now: Timestamp) {
        let mut state = self.lock();
        let shown = shown(view, object, &mut state, now);
        let added = line(ChangeKind::Added.word(), &shown);
        state.lines.push_back(added);
    }

    /// Queues the bookmark that ends the initial events of a streaming list.
    pub(super) fn push_initial_end(&self, view: &View, revision: u64) {
        let bookmark = bookmark(view, revision, true);
        self.lock().lines.push_back(bookmark);
    }

    /// Forgets what was not read yet.
    pub(super) fn clear(&self) {
        self.lock().lines.clear();
    }

    /// From now on nothing gets here until then, and nobody is told of it.
    pub(super) fn lose_until(&self, until: Timestamp) {
        self.lock().lost_until = Some(until);
    }

    /// Lets its reader look again.
    pub(super) fn wake(&self) {
        if let Some(waker) = self.lock().waker.take() {
            waker.wake();
        }
    }

    /// Ends the watch once what is queued has been read.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}

fn shown(view: &View, object: &Arc<Object>, state: &mut QueueState, now: Timestamp) -> Bytes {
    match view.shape {
        Shape::Object if view.is_plain() => object.bytes().clone(),
        Shape::Object => to_bytes(&super::convert::outgoing(view, object.value())),
        Shape::Metadata => to_bytes(&super::convert::partial(object.value())),
        Shape::Table(include) => {
            let first = !std::mem::replace(&mut state.columns_sent, true);
            to_bytes(&super::table::of_watch(view, object, include, first, now))
        }
    }
}

fn bookmark(view: &View, revision: u64, initial_end: bool) -> Bytes {
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    if initial_end {
        metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    let object = match view.shape {
        Shape::Object => json!({
            "kind": view.resource.kind,
            "apiVersion": super::resource::group_version(&view.group, &view.version),
            "metadata": metadata,
        }),
        Shape::Metadata => json!({
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        }),
        Shape::Table(_) => json!({
            "kind": "Table", "apiVersion": "meta.k8s.io/v1",
            "metadata": {"resourceVersion": revision.to_string()}, "columnDefinitions": null,
            "rows": [{"cells": [], "object": {
                "kind": view.resource.kind,
                "apiVersion": super::resource::group_version(&view.group, &view.version),
                "metadata": metadata,
            }}],
        }),
    };
    line("BOOKMARK", &to_bytes(&object))
}

/// The body of a watch's response.
pub(super) struct WatchBody {
    pub(super) queue: Arc<Queue>,
    pub(super) view: Arc<View>,
    pub(super) bookmarks: bool,
    /// Resolves when the watch's time is over.
    pub(super) deadline: BoxFuture<'static, ()>,
    pub(super) server: Weak<Inner>,
    pub(super) id: u64,
    pub(super) finished: bool,
}

impl fmt::Debug for WatchBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchBody").field("id", &self.id).finish_non_exhaustive()
    }
}

impl WatchBody {
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.finished {
            return Poll::Ready(None);
        }
        let held = self.server.upgrade().is_some_and(|server| server.watches_held.load(Ordering::Relaxed));
        let mut state = self.queue.lock();
        if !held && let Some(line) = state.lines.pop_front() {
            return Poll::Ready(Some(line));
        }
        if state.closed {
            drop(state);
            self.finished = true;
            return Poll::Ready(None);
        }
        if Pin::new(&mut self.deadline).poll(context).is_ready() {
            // The last word of a watch: where to go on from. Not past what it kept to itself.
            let bookmark_at = (self.bookmarks && state.lines.is_empty()).then_some(state.revision);
            drop(state);
            self.finished = true;
            return Poll::Ready(bookmark_at.map(|revision| bookmark(&self.view, revision, false)));
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for WatchBody {
    fn drop(&mut self) {
        if let Some(server) = self.server.upgrade() {
            server.lock().unwatch(&self.view, self.id);
        }
    }
}

/// The `ERROR` event that tells a watch why it cannot start.
pub(super) fn error_line(failure: &super::status::Failure) -> Bytes {
    line("ERROR", &to_bytes(&failure.to_value()))
}
