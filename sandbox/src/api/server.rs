//! The server: state, hooks, and its two doors: a function for one request, and a tower service in process.

use super::builtin;
use super::crd::Definitions;
use super::object::{Key, Object};
use super::observe::{Admission, Counts, Fault, Faults, Observer, ReplyFault, RequestRecord};
use super::request::RequestInfo;
use super::router;
use super::status::Failure;
use super::store::{Limits, State};
use super::watch::{Queue, WatchBody};
use bytes::Bytes;
use cupcake_engine::clock::{Clock, Timestamp};
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll};

/// Settings of a server; the defaults suit a cluster of 500 nodes.
#[derive(Debug, Clone)]
pub struct Options {
    /// Seed of UIDs and generated names.
    pub seed: u64,
    /// Changes that each collection remembers, for watches that resume; older ones are answered 410.
    pub history_events_max: usize,
    /// Lines that one watch may lag behind before the server ends it.
    pub watch_lines_max: usize,
    /// Bytes of one request's body (the real server and etcd refuse above 3 MiB and 1.5 MiB).
    pub body_bytes_max: usize,
    /// Seconds after which a watch without `timeoutSeconds` ends.
    pub watch_seconds_default: u64,
    /// What `/version` says at first, such as `v1.33.4`.
    pub version: String,
    /// Whether budgets are counted and dependents collected, as by kube-controller-manager; without, it is an API server alone.
    pub controllers: bool,
    /// Whether `metadata.managedFields` records who wrote what by other ways than apply. It is most of a small object; where
    /// nobody reads it and sizes do not matter, leaving it out is quicker.
    pub managed_fields: bool,
    /// What it lets through that the real one refuses, to show what would happen then.
    pub leniency: Leniency,
}

/// What a JSON patch of a NodeTask's status does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PatchOf {
    /// It claims an order.
    Claim,
    /// It writes anything else of an answer.
    Answer,
    /// It writes nothing but an inventory.
    Inventory,
}

/// Preconditions of requests that are not looked at.
#[derive(Debug, Clone, Default)]
pub struct Leniency {
    /// `test` operations of JSON patches that do that.
    pub tests_of: BTreeSet<PatchOf>,
    /// UIDs, in objects and in options of deletes.
    pub uids: bool,
    /// resourceVersions of these resources.
    pub versions: BTreeSet<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 0,
            history_events_max: 2_000,
            watch_lines_max: 10_000,
            body_bytes_max: 3 * 1024 * 1024,
            watch_seconds_default: 2_700,
            version: "v1.34.4".to_owned(),
            managed_fields: true,
            leniency: Leniency::default(),
            controllers: true,
        }
    }
}

/// An in-process Kubernetes API server; clones share one store.
///
/// # Guarantees
/// Deterministic: given the same seed, clock and order of requests, the same answers, UIDs and events.
/// Every request is handled at once and alone; no thread, timer or task of its own runs between requests.
///
/// # Assumptions
/// The clock is driven from outside (tokio's paused time, scaled time, or real time). A clock that jumps forward when somebody
/// sleeps on it ends watches at once.
#[derive(Clone)]
pub struct Server {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) options: Options,
    state: Mutex<State>,
    version: RwLock<String>,
    /// Guards the last second that was written as a date, and how: many answers are of the same one.
    dated: Mutex<Option<(i64, http::HeaderValue)>>,
    hooks: RwLock<Hooks>,
    /// Whether watches keep what they have to tell to themselves.
    pub(super) watches_held: AtomicBool,
}

#[derive(Clone, Default)]
struct Hooks {
    observer: Option<Arc<dyn Observer>>,
    faults: Option<Arc<dyn Faults>>,
    admission: Option<Admission>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

impl Inner {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while writing is a bug of this crate; the maps themselves stay valid, so go on with what is there.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn admission(&self) -> Option<Admission> {
        self.hooks().admission.clone()
    }

    pub(super) fn version(&self) -> String {
        self.version.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The `Date` of an answer that was made then, as Go's net/http writes it: in whole seconds, the rest cut off.
    fn date(&self, at: Timestamp) -> http::HeaderValue {
        let mut dated = self.dated.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((second, date)) = &*dated
            && *second == at.timestamp()
        {
            return date.clone();
        }
        let text = at.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let date = http::HeaderValue::try_from(text).expect("letters, digits and colons make a header");
        *dated = Some((at.timestamp(), date.clone()));
        date
    }

    fn hooks(&self) -> std::sync::RwLockReadGuard<'_, Hooks> {
        self.hooks.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer before it becomes HTTP.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Body,
    pub(super) content_type: &'static str,
    pub(super) warnings: Vec<String>,
    pub(super) retry_after_seconds: u32,
    pub(super) committed: bool,
}

impl Answer {
    pub(super) fn json(status: u16, bytes: Bytes) -> Self {
        Self {
            status,
            body: Body::Full(Some(bytes)),
            content_type: "application/json",
            warnings: Vec::new(),
            retry_after_seconds: 0,
            committed: false,
        }
    }

    pub(super) fn value(status: u16, value: &Value) -> Self {
        Self::json(status, super::object::to_bytes(value))
    }

    pub(super) fn failure(failure: &Failure) -> Self {
        if failure.is_plain_text() {
            let mut answer = Self::json(failure.code, Bytes::from(failure.message.clone()));
            answer.content_type = "text/plain; charset=utf-8";
            return answer;
        }
        let mut answer = Self::value(failure.code, &failure.to_value());
        answer.warnings.clone_from(&failure.warnings);
        answer.retry_after_seconds = failure.details.as_ref().map_or(0, |details| details.retry_after_seconds);
        answer
    }

    pub(super) fn committed(mut self) -> Self {
        self.committed = true;
        self
    }

    fn into_response(self, date: http::HeaderValue) -> Response<Body> {
        let mut response = Response::new(self.body);
        *response.status_mut() =
            http::StatusCode::from_u16(self.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(self.content_type));
        headers.insert(http::header::DATE, date);
        if self.retry_after_seconds > 0 {
            headers.insert(http::header::RETRY_AFTER, self.retry_after_seconds.into());
        }
        for warning in &self.warnings {
            let quoted = Value::from(warning.as_str()).to_string();
            if let Ok(value) = http::HeaderValue::from_str(&format!("299 - {quoted}")) {
                headers.append(http::header::WARNING, value);
            }
        }
        response
    }
}

impl Server {
    /// A server with the built-in resources, the usual namespaces and nothing else.
    pub fn new(clock: Arc<dyn Clock>, seed: u64) -> Self {
        Self::with_options(clock, Options { seed, ..Options::default() })
    }

    /// As [`Server::new`], with settings.
    pub fn with_options(clock: Arc<dyn Clock>, options: Options) -> Self {
        let limits = Limits {
            history_events_max: options.history_events_max,
            watch_lines_max: options.watch_lines_max,
            controllers: options.controllers,
        };
        let mut state = State::new(options.seed, limits);
        for resource in builtin::all() {
            state.serve(Arc::clone(resource));
        }
        let now = clock.now();
        let server = Self {
            inner: Arc::new(Inner {
                version: RwLock::new(options.version.clone()),
                dated: Mutex::default(),
                clock,
                options,
                state: Mutex::new(state),
                hooks: RwLock::default(),
                watches_held: AtomicBool::new(false),
            }),
        };
        super::write::bootstrap(&server.inner, now);
        server
    }

    /// Answers one request from `client`, without consulting the fault port; the observer sees it.
    ///
    /// A watch sleeps on the clock: call it where the clock can sleep (inside a tokio runtime).
    pub fn handle(&self, client: &str, request: Request<Bytes>) -> Response<Body> {
        let info = RequestInfo::parse(client, request);
        let (answer, at) = self.answer(&info);
        self.observed(&info, &answer, at, |_faults, _record| ());
        answer.into_response(self.inner.date(at))
    }

    fn answer(&self, info: &RequestInfo) -> (Answer, Timestamp) {
        let now = self.inner.clock.now();
        let mut answer = if info.body.len() > self.inner.options.body_bytes_max {
            Answer::failure(&Failure::new(
                http::StatusCode::PAYLOAD_TOO_LARGE,
                "RequestEntityTooLarge",
                format!("Request entity too large: limit is {}", self.inner.options.body_bytes_max),
            ))
        } else {
            router::route(&self.inner, info, now).unwrap_or_else(|failure| Answer::failure(&failure))
        };
        if matches!(info.method, http::Method::HEAD) {
            answer.body = Body::Full(None);
        }
        let mut state = self.inner.lock();
        let counts = &mut state.counts;
        *counts.requests.entry(info.client.clone()).or_default() += 1;
        if answer.committed
            && let Some(target) = &info.target
        {
            let mut resource = super::status::qualified(&target.group, &target.resource);
            if !target.subresource.is_empty() {
                resource.push('/');
                resource.push_str(&target.subresource);
            }
            let writes = counts.writes.entry(info.client.clone()).or_default();
            *writes.entry(resource).or_default() += 1;
        }
        (answer, now)
    }

    fn observed<T>(
        &self,
        info: &RequestInfo,
        answer: &Answer,
        at: Timestamp,
        then: impl FnOnce(Option<&Arc<dyn Faults>>, &RequestRecord<'_>) -> T,
    ) -> T {
        let record = RequestRecord { at, request: info, status: answer.status, committed: answer.committed };
        let hooks = self.inner.hooks().clone();
        if let Some(observer) = &hooks.observer {
            observer.request(&record);
        }
        then(hooks.faults.as_ref(), &record)
    }

    /// Answers one request through the fault port.
    ///
    /// # Errors
    /// [`Disconnected`] where a fault cuts the connection. A fault that hangs makes the future wait for ever.
    pub async fn serve(&self, client: &str, request: Request<Bytes>) -> Result<Response<Body>, Disconnected> {
        let info = RequestInfo::parse(client, request);
        let faults = self.inner.hooks().faults.clone();
        if let Some(faults) = faults {
            match faults.before(&info) {
                Fault::None => {}
                Fault::Reject(failure) => {
                    let answer = Answer::failure(&failure);
                    let at = self.inner.clock.now();
                    self.observed(&info, &answer, at, |_faults, _record| ());
                    return Ok(answer.into_response(self.inner.date(at)));
                }
                Fault::Delay(length) => self.pass(length).await,
                Fault::Refuse => return Err(Disconnected),
                Fault::Hang => std::future::pending().await,
            }
        }
        let (answer, at) = self.answer(&info);
        let fault = self.observed(&info, &answer, at, |faults, record| {
            faults.map_or(ReplyFault::None, |faults| faults.after(record))
        });
        let date = self.inner.date(at);
        match fault {
            ReplyFault::None => Ok(answer.into_response(date)),
            ReplyFault::Drop => Err(Disconnected),
            ReplyFault::Hang => std::future::pending().await,
            ReplyFault::Reject(failure) => Ok(Answer::failure(&failure).into_response(date)),
            ReplyFault::Delay(length) => {
                self.pass(length).await;
                Ok(answer.into_response(date))
            }
        }
    }

    /// Lets virtual time pass.
    async fn pass(&self, length: std::time::Duration) {
        let length = chrono::TimeDelta::from_std(length).unwrap_or_default();
        self.inner.clock.sleep_until(self.inner.clock.now() + length).await;
    }

    /// The tower service through which `client` talks to this server, for [`kube::Client::new`].
    pub fn service(&self, client: impl Into<String>) -> InProcess {
        InProcess { server: self.clone(), client: Arc::from(client.into()) }
    }

    /// A kube client named `client`; call it inside a tokio runtime.
    pub fn client(&self, client: impl Into<String>) -> kube::Client {
        kube::Client::new(self.service(client), "default")
    }

    /// Defines custom resources without a request: quicker than applying them where many servers start.
    pub fn define(&self, definitions: &Definitions) {
        let now = self.inner.clock.now();
        definitions.install(&mut self.inner.lock(), now);
    }

    /// Puts an object back as somebody kept it, UID, status and all, without a request and without a look at it: what the restore
    /// of an etcd snapshot does. Watches see it. Gives whether such a resource is served.
    pub fn restore(&self, group: &str, plural: &str, object: Value) -> bool {
        let now = self.inner.clock.now();
        let mut state = self.inner.lock();
        let Some(id) = state.find(group, plural) else {
            return false;
        };
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let key = Key::new(text("namespace"), text("name"));
        state.put(id, key, object, now);
        true
    }

    /// Sets the observer; it sees every request from now on.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        self.hooks_mut(|hooks| hooks.observer = Some(observer));
    }

    /// Who sees every request now: for whoever wants to listen beside it.
    pub fn observer(&self) -> Option<Arc<dyn Observer>> {
        self.inner.hooks().observer.clone()
    }

    /// The fault port that is set now: for whoever wants to decide before it.
    pub fn faults(&self) -> Option<Arc<dyn Faults>> {
        self.inner.hooks().faults.clone()
    }

    /// Sets the fault port.
    pub fn inject(&self, faults: Arc<dyn Faults>) {
        self.hooks_mut(|hooks| hooks.faults = Some(faults));
    }

    /// Lets observer, faults and admission go.
    pub fn let_go(&self) {
        self.hooks_mut(|hooks| *hooks = Hooks::default());
    }

    /// Sets the admission policy.
    pub fn admit(&self, admission: Admission) {
        self.hooks_mut(|hooks| hooks.admission = Some(admission));
    }

    fn hooks_mut(&self, change: impl FnOnce(&mut Hooks)) {
        let mut hooks = self.inner.hooks.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut hooks);
    }

    /// What `/version` says from now on, such as `v1.34.4`: the control plane was upgraded.
    pub fn set_version(&self, version: impl Into<String>) {
        *self.inner.version.write().unwrap_or_else(PoisonError::into_inner) = version.into();
    }

    /// The revision of the last write.
    pub fn revision(&self) -> u64 {
        self.inner.lock().revision
    }

    /// Counts of accepted writes and largest sizes so far.
    pub fn counts(&self) -> Counts {
        self.inner.lock().counts.clone()
    }

    /// Largest object stored of each kind, in bytes of JSON with managedFields.
    pub fn largest_bytes(&self) -> BTreeMap<String, usize> {
        self.inner.lock().counts.largest_bytes.clone()
    }

    /// An object, without a request: for simulations and tests that look on.
    pub fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let state = self.inner.lock();
        let id = state.find(group, plural)?;
        state.get(id, &Key::new(namespace, name)).cloned()
    }

    /// All objects of a resource in order of namespace and name, without a request.
    pub fn list(&self, group: &str, plural: &str) -> Vec<Arc<Object>> {
        let state = self.inner.lock();
        state.find(group, plural).map_or_else(Vec::new, |id| state.collection(id).objects.values().cloned().collect())
    }

    /// Everything stored, as `(resource namespace/name, JSON bytes)` in a fixed order: for comparing runs.
    pub fn snapshot(&self) -> Vec<(String, Vec<u8>)> {
        self.inner.lock().snapshot()
    }

    /// Number of open watches.
    pub fn open_watches(&self) -> usize {
        self.inner.lock().open_watches()
    }

    /// Ends every watch, as a restart of the server does; clients come back and resume.
    pub fn close_watches(&self) {
        self.inner.lock().close_watches();
    }

    /// Lets open watches tell nothing for now, or all that happened meanwhile.
    pub fn hold_watches(&self, held: bool) {
        self.inner.watches_held.store(held, Ordering::Relaxed);
        if !held {
            self.inner.lock().each_queue(Queue::wake);
        }
    }

    /// Loses what held watches have to tell: nobody ever hears of it from them.
    pub fn lose_held_events(&self) {
        self.inner.lock().each_queue(Queue::clear);
    }

    /// Lets every watch that is open now lose what happens until then, without a word and without an end.
    pub fn lose_events(&self, until: Timestamp) {
        self.inner.lock().each_queue(|queue| queue.lose_until(until));
    }

    /// Forgets the history: resuming clients are answered 410 and list again.
    pub fn compact(&self) {
        self.inner.lock().compact();
    }
}

/// The connection broke: whether the request took effect is unknown to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("connection to the API server lost; the request may or may not have taken effect")]
pub struct Disconnected;

/// The in-process door: a tower service for [`kube::Client::new`].
#[derive(Debug, Clone)]
pub struct InProcess {
    server: Server,
    client: Arc<str>,
}

impl tower::Service<Request<kube::client::Body>> for InProcess {
    type Response = Response<Body>;
    type Error = Disconnected;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_err(|_broken| Disconnected)?.to_bytes();
            this.server.serve(&this.client, Request::from_parts(parts, body)).await
        })
    }
}

/// The body of an answer: bytes at once, or the events of a watch.
#[derive(Debug)]
pub enum Body {
    /// All of it; `None` once read, or if empty.
    Full(Option<Bytes>),
    /// A watch.
    Watch(Box<Watching>),
}

/// The events of a watch, read one line a frame.
#[derive(Debug)]
pub struct Watching(pub(super) WatchBody);

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Watch(watching) => watching.0.poll_next(context).map(|line| line.map(|line| Ok(Frame::data(line)))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Watch(_) => SizeHint::default(),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_none(),
            Self::Watch(_) => false,
        }
    }
}
