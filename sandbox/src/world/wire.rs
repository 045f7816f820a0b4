//! The sandbox's ears and hands at the API: what is counted, what is written down, who is cut off.

use super::drains::Drains;
use super::invariants::Invariants;
use super::stops::Stops;
use super::workloads::{Workloads, node_of};
use crate::api::{
    Body, Failure, Fault, Faults, Observer, ReplyFault, RequestInfo, RequestRecord, Server, Target, Verb,
};
use crate::machine::Site;
use crate::machine::control_plane::ControlPlane;
use crate::machine::fault::{Component, FaultPlan, Life, STOPPED_SECONDS, Stream, WriteTo, Wrong};
use crate::machine::kube::KubeApi;
use crate::machine::kubeadm::{KUBEADM_CONFIG, configured_version};
use crate::machine::transcript::Transcript;
use bytes::Bytes;
use chrono::TimeDelta;
use cupcake_crds::values::KubeVersion;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;
use tokio::sync::Notify;

/// How long a request or an answer is on its way whose sender or receiver hears of something else first.
const ON_ITS_WAY: Duration = Duration::from_millis(1);

/// Clients of people, who come over HTTP: they are let through even while the simulated API is away.
const PEOPLE: &str = "http";

/// The in-process API as simulated programs reach it.
pub(super) struct Door {
    server: Server,
    /// Who hears when an API server begins to serve. It holds what this is held by.
    ear: OnceLock<Weak<Ear>>,
}

impl Door {
    pub(super) fn new(server: Server) -> Self {
        Self { server, ear: OnceLock::new() }
    }

    pub(super) fn is_heard_by(&self, ear: &Arc<Ear>) {
        let _ = self.ear.set(Arc::downgrade(ear));
    }
}

impl KubeApi for Door {
    fn send(&self, client: &str, request: http::Request<Bytes>) -> (u16, Bytes) {
        let answer = self.server.handle(client, request);
        let status = answer.status().as_u16();
        match answer.into_body() {
            Body::Full(bytes) => (status, bytes.unwrap_or_default()),
            // Nobody among them watches.
            Body::Watch(_) => (status, Bytes::new()),
        }
    }

    fn revision(&self) -> u64 {
        self.server.revision()
    }

    fn went_away(&self) {
        self.server.close_watches();
    }

    fn serves(&self, version: KubeVersion) {
        self.server.set_version(version.with_v());
        let ear = self.ear.get().and_then(Weak::upgrade);
        if let Some(invariants) = ear.as_ref().and_then(|ear| ear.invariants.get()) {
            invariants.api_server_turned();
        }
    }
}

/// Name of the client of one life of a component.
pub(super) fn client_name(component: Component, node: &str, number: u64) -> String {
    if node.is_empty() { format!("{component}.{number}") } else { format!("{component}.{node}.{number}") }
}

/// Whether the client is that component.
fn is_of(client: &str, component: Component) -> bool {
    client.strip_prefix(component.as_str()).is_some_and(|rest| rest.starts_with('.'))
}

/// Decides which requests still come through: not those of the dead, none while the API is away.
pub(super) struct Gate {
    pub(super) site: Arc<Site>,
    pub(super) faults: FaultPlan,
    /// Guards who lives, by name of the client, and whose next answer is never heard.
    pub(super) clients: Mutex<Clients>,
    /// Who was stopped with a request on its way.
    pub(super) stops: Stops,
}

#[derive(Default)]
pub(super) struct Clients {
    lives: BTreeMap<String, Life>,
    dying: BTreeSet<String>,
    /// Whose next answer meets what.
    unheard: BTreeMap<String, ReplyFault>,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The requests of that client end with that life.
    pub(super) fn bind(&self, client: &str, life: Life) {
        self.lock().lives.insert(client.to_owned(), life);
    }

    /// The lives of a component at a place that go on.
    pub(super) fn lives_of(&self, component: Component, place: &str) -> Vec<Life> {
        let clients = self.lock();
        clients.lives.values().filter(|life| life.is_at(component, place) && !life.is_over()).cloned().collect()
    }

    /// Its life is over, and nothing of it is left.
    pub(super) fn forget(&self, client: &str) {
        self.lock().lives.remove(client);
    }

    fn control_plane(&self) -> &ControlPlane {
        &self.site.control_plane
    }
}

fn too_many_requests() -> Failure {
    let message = "The apiserver is currently overloaded, please try again later.";
    Failure::new(http::StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message)
}

/// What etcd's leader change leaves: the write may stand or not, and here it does.
fn timed_out() -> Failure {
    let message = "etcdserver: request timed out, possibly due to previous leader failure";
    Failure::new(http::StatusCode::GATEWAY_TIMEOUT, "Timeout", message)
}

/// What an API server says while etcd elects a leader.
fn no_leader() -> Failure {
    Failure::new(http::StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "etcdserver: leader changed")
}

/// What an API server says whose authorizer has not read the roles yet.
fn forbidden(client: &str) -> Failure {
    let message = format!("User \"system:serviceaccount:kube-system:{client}\" cannot do this: RBAC: roles not found");
    Failure::new(http::StatusCode::FORBIDDEN, "Forbidden", message)
}

/// As what a request of that component counts; Events do not.
fn stream_of(component: Component, request: &RequestInfo) -> Option<Stream> {
    let of = request.target.as_ref().map(|target| (target.group.as_str(), target.resource.as_str()));
    match (of, component) {
        (Some(("coordination.k8s.io", "leases")), Component::Operator) => Some(Stream::Lease),
        (Some(("coordination.k8s.io", "leases") | ("" | "events.k8s.io", "events")), _) => None,
        (_, Component::Operator) if !request.verb.writes() => Some(Stream::OperatorRead),
        (_, Component::Agent) if !request.verb.writes() => Some(Stream::AgentRead),
        (_, component) => Some(Stream::writes_of(component)),
    }
}

impl Faults for Gate {
    fn before(&self, request: &RequestInfo) -> Fault {
        let life = self.lock().lives.get(&request.client).cloned();
        if life.as_ref().is_some_and(Life::is_over) {
            return Fault::Hang;
        }
        if request.client != PEOPLE && !self.control_plane().is_available() {
            return Fault::Refuse;
        }
        if request.client != PEOPLE && self.control_plane().is_electing(self.site.now()) {
            return Fault::Reject(no_leader());
        }
        let Some(life) = life else {
            return Fault::None;
        };
        if self.control_plane().is_cold(self.site.now()) {
            return Fault::Reject(forbidden(&request.client));
        }
        let Some(stream) = stream_of(life.component(), request) else {
            return Fault::None;
        };
        let unheard = |fault| {
            self.lock().unheard.insert(request.client.clone(), fault);
            Fault::None
        };
        match self.faults.count(&life, stream, WriteTo::Api) {
            Some(Wrong::Before) => {
                life.end();
                Fault::Hang
            }
            Some(Wrong::After | Wrong::Torn) => {
                self.lock().dying.insert(request.client.clone());
                Fault::None
            }
            Some(Wrong::ReplyLost) => unheard(ReplyFault::Drop),
            Some(Wrong::TimedOut) => unheard(ReplyFault::Reject(timed_out())),
            Some(Wrong::AskedToStop) => {
                life.ask_to_stop();
                // It hears of that before it hears the answer.
                unheard(ReplyFault::Delay(ON_ITS_WAY))
            }
            Some(Wrong::Refused) => Fault::Refuse,
            Some(Wrong::Busy) => Fault::Reject(too_many_requests()),
            Some(Wrong::Stopped) => {
                life.stop_until(self.site.now() + TimeDelta::seconds(STOPPED_SECONDS));
                self.stops.stopped(&request.client);
                if request.verb.writes() {
                    // On its way: it arrives when its sender is looked at again.
                    Fault::Delay(ON_ITS_WAY)
                } else {
                    // What it hears when it is looked at again is what was so before.
                    unheard(ReplyFault::Delay(ON_ITS_WAY))
                }
            }
            Some(Wrong::Forbidden) => Fault::Reject(forbidden(&request.client)),
            Some(Wrong::Election) => Fault::Reject(no_leader()),
            Some(
                Wrong::ApiAway
                | Wrong::WatchesLost
                | Wrong::PowerCut
                | Wrong::DiskFull
                | Wrong::SecondRunner
                | Wrong::WatchesLate
                | Wrong::EventsLost
                | Wrong::ClockJump
                | Wrong::NodeDeleted
                | Wrong::Doubled
                | Wrong::StaleOrder
                | Wrong::Paused
                | Wrong::Cancelled
                | Wrong::LeftOut
                | Wrong::Edited
                | Wrong::NameTaken,
            )
            | None => Fault::None,
        }
    }

    fn after(&self, record: &RequestRecord<'_>) -> ReplyFault {
        let mut clients = self.lock();
        if let Some(fault) = clients.unheard.remove(&record.request.client) {
            return fault;
        }
        if !clients.dying.remove(&record.request.client) {
            return ReplyFault::None;
        }
        if let Some(life) = clients.lives.get(&record.request.client) {
            life.end();
        }
        ReplyFault::Hang
    }
}

/// Accepted writes to our run objects, by what was written.
#[derive(Debug, Default)]
pub(super) struct EngineWrites(Mutex<BTreeMap<String, u64>>);

impl EngineWrites {
    fn count(&self, what: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += 1;
    }

    pub(super) fn all(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Sees every request: writes the transcript, counts, and tells the controllers of the simulated cluster.
pub(super) struct Ear {
    pub(super) site: Arc<Site>,
    pub(super) server: Server,
    pub(super) transcript: Transcript,
    pub(super) engine_writes: EngineWrites,
    pub(super) drains: Arc<Drains>,
    /// Rings at each write to a DirectUpdate or an UpgradeRun.
    pub(super) progress: Arc<Notify>,
    /// The controllers, once they are there.
    pub(super) workloads: RwLock<Option<Arc<Workloads>>>,
    /// What must hold at every write, if anybody asks.
    pub(super) invariants: OnceLock<Invariants>,
    /// Ends all programs: called when time has stopped, since nothing could be waited for any more.
    pub(super) halt: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Observer for Arc<Ear> {
    fn request(&self, record: &RequestRecord<'_>) {
        let request = record.request;
        let words = [request.client.as_str(), request.verb.as_str(), request.path.as_str(), request.query.as_str()];
        self.transcript.write(record.at, &words, &request.body);
        let ours = [Component::Operator, Component::Agent].iter().any(|ours| is_of(&request.client, *ours));
        if let Some(invariants) = self.invariants.get().filter(|_| ours) {
            invariants.read(&request.client, request.verb, &request.query);
        }
        if self.invariants.get().is_some_and(|invariants| invariants.asked(record.at)) {
            if let Some(halt) = self.halt.get() {
                halt();
            }
            self.progress.notify_waiters();
        }
        if let Some(target) = request.target.as_ref().filter(|_| record.committed) {
            self.accepted(request, target);
        }
    }
}

impl Ear {
    fn accepted(self: &Arc<Self>, request: &RequestInfo, target: &Target) {
        if let Some(invariants) = self.invariants.get().filter(|_| Invariants::look_at(&target.resource)) {
            invariants.written(&request.client, &target.resource, &object_name(request, target));
        }
        if let Some(invariants) = self.invariants.get().filter(|_| is_pod_of_the_cluster(target)) {
            let name = object_name(request, target);
            if name.starts_with("kube-proxy") {
                invariants.pod_written(&name);
            }
        }
        match (target.group.as_str(), target.resource.as_str(), target.subresource.as_str()) {
            ("cupcake.ricardomolendijk.com", resource, subresource) => {
                self.ours(request, target, resource, subresource);
            }
            ("", "nodes", "") => {
                let (this, name) = (Arc::clone(self), target.name.clone());
                self.soon(move || this.node_written(&name));
            }
            ("", "pods", "eviction") => {
                if let Some(invariants) = self.invariants.get().filter(|_| is_of(&request.client, Component::Operator))
                {
                    invariants.acted(&request.client, || format!("{}/{} was evicted", target.namespace, target.name));
                }
                let (this, client) = (Arc::clone(self), request.client.clone());
                let key = (target.namespace.clone(), target.name.clone());
                self.soon(move || this.evicted(&client, &key.0, &key.1));
            }
            ("", "pods", "") if request.verb == Verb::Delete && !request.client.starts_with("kubelet/") => {
                let (this, key) = (Arc::clone(self), (target.namespace.clone(), target.name.clone()));
                self.soon(move || this.with_workloads(|workloads| workloads.pod_leaves(&key.0, &key.1)));
            }
            // The controllers themselves note what they write; the rest are mirrors of static pods, and what people do.
            ("", "pods", _) if request.client != "kube-controller-manager" && request.client != "kube-scheduler" => {
                let (this, key) = (Arc::clone(self), (target.namespace.clone(), object_name(request, target)));
                self.soon(move || this.with_workloads(|workloads| workloads.pod_written(&key.0, &key.1)));
            }
            ("apps", "deployments", "") => {
                self.with_workloads(|workloads| {
                    workloads.deployment_written(&target.namespace, &object_name(request, target));
                });
            }
            ("apps", "daemonsets", "") => {
                self.with_workloads(|workloads| {
                    workloads.daemon_set_written(&target.namespace, &object_name(request, target));
                });
            }
            _ => {}
        }
    }

    /// What looks at the store has to wait until the request is answered.
    fn soon(&self, action: impl FnOnce() + Send + 'static) {
        self.site.agenda.at(self.site.now(), action);
    }

    fn with_workloads(&self, tell: impl FnOnce(&Arc<Workloads>)) {
        if let Some(workloads) = &*self.workloads.read().unwrap_or_else(PoisonError::into_inner) {
            tell(workloads);
        }
    }

    fn ours(self: &Arc<Self>, request: &RequestInfo, target: &Target, resource: &str, subresource: &str) {
        match resource {
            "upgraderuns" | "upgradeplans" | "nodetasks" => {
                let verb = request.verb.as_str();
                let what =
                    if subresource.is_empty() { resource.to_owned() } else { format!("{resource}/{subresource}") };
                let inventory = subresource == "status" && brings_inventory(&request.body);
                self.engine_writes.count(format!("{verb} {what}{}", if inventory { " (inventory)" } else { "" }));
                if resource == "nodetasks" && subresource.is_empty() && is_of(&request.client, Component::Operator) {
                    let (this, name) = (Arc::clone(self), target.name.clone());
                    self.soon(move || this.task_written(&name));
                }
            }
            _ => {}
        }
        if matches!(resource, "directupdates" | "upgraderuns") {
            self.progress.notify_waiters();
        }
    }

    fn task_written(&self, name: &str) {
        let group = cupcake_crds::GROUP;
        if let Some(task) = self.server.get(group, "nodetasks", "", name)
            && task.value()["spec"]["order"]["proceed"] == Value::Bool(true)
        {
            self.drains.proceeded(name);
        }
    }

    fn node_written(&self, name: &str) {
        let Some(node) = self.server.get("", "nodes", "", name) else {
            return;
        };
        self.drains.node_written(node.value(), &self.hop());
        self.with_workloads(Workloads::node_written);
    }

    /// The version that the cluster is moving to: what kubeadm's configuration says.
    fn hop(&self) -> String {
        let name = KUBEADM_CONFIG.rsplit('/').next().unwrap_or_default();
        let config = self.server.get("", "configmaps", "kube-system", name);
        let version = config.and_then(|config| configured_version(config.value()));
        version.map_or_else(String::new, |version| version.to_string())
    }

    fn evicted(&self, client: &str, namespace: &str, name: &str) {
        let pod = self.server.get("", "pods", namespace, name);
        let again = pod.and_then(|pod| self.drains.evicted_from(node_of(pod.value())));
        if let (Some(drain), Some(invariants)) = (again, self.invariants.get()) {
            invariants.drained_again(client, drain);
        }
        self.with_workloads(|workloads| workloads.pod_leaves(namespace, name));
    }
}

/// The name of the object that a request is about: in its path, or for a POST in its body.
fn object_name(request: &RequestInfo, target: &Target) -> String {
    if !target.name.is_empty() {
        return target.name.clone();
    }
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    body["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

/// Whether a request is about a pod of the cluster's own; its status tells nothing of its version.
fn is_pod_of_the_cluster(target: &Target) -> bool {
    let of = (target.group.as_str(), target.resource.as_str(), target.subresource.as_str());
    of == ("", "pods", "") && target.namespace == "kube-system"
}

/// Whether a write to a NodeTask's status brings an inventory.
fn brings_inventory(body: &[u8]) -> bool {
    const POINTER: &[u8] = b"/status/inventory";
    body.windows(POINTER.len()).any(|window| window == POINTER)
}
