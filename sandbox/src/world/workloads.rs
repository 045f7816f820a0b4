//! The controllers and the scheduler of the simulated cluster, as far as a drain needs them: Deployments, ReplicaSets,
//! DaemonSets, and the kubelets' part in the life of a pod.
//!
//! Everything is driven by the calendar: a write that matters enters a reconcile, a moment later the reconcile looks at the
//! store and makes the next step. Source: `k8s.io/kubernetes/pkg/controller/{deployment,replicaset,daemon}`, in outline.

use super::pods::{Pod, PodKey, Pods, controller_of};
use crate::api::{Object, Server};
use crate::machine::kube::Kube;
use crate::machine::kubeadm::is_ready as node_is_ready;
use crate::machine::kubelet::{running_status, stamp};
use crate::machine::timing::{Act, Timing, derive};
use crate::machine::{SimMachine, Site};
use chrono::TimeDelta;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// Letters and digits that Kubernetes makes names of (`apimachinery/pkg/util/rand`).
const NAME_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// After how long the scheduler tries again with pods that fit nowhere, or the kubelet with a node that is down.
const AGAIN: TimeDelta = TimeDelta::seconds(1);

/// What a reconcile is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    Deployment(String, String),
    ReplicaSet(String, String),
    DaemonSet(String, String),
    Pending,
}

/// The controllers of one cluster.
pub(super) struct Workloads {
    site: Arc<Site>,
    server: Server,
    /// Guards which machines there are: some join later.
    machines: RwLock<BTreeMap<String, Arc<SimMachine>>>,
    controller: Kube,
    scheduler: Kube,
    /// Guards the draws and what is entered already.
    state: Mutex<State>,
    /// Guards what is known of pods.
    pods: Mutex<Pods>,
}

struct State {
    timing: Timing,
    names: fastrand::Rng,
    entered: BTreeSet<Work>,
    /// Pods that fit nowhere so far.
    pending: BTreeSet<(String, String)>,
}

impl Workloads {
    pub(super) fn new(site: Arc<Site>, server: Server, machines: BTreeMap<String, Arc<SimMachine>>) -> Arc<Self> {
        let state = State {
            timing: Timing::new(site.seed, "controllers"),
            names: fastrand::Rng::with_seed(derive(site.seed, &["pod names"])),
            entered: BTreeSet::new(),
            pending: BTreeSet::new(),
        };
        Arc::new(Self {
            controller: site.kube("kube-controller-manager"),
            scheduler: site.kube("kube-scheduler"),
            site,
            server,
            machines: RwLock::new(machines),
            state: Mutex::new(state),
            pods: Mutex::default(),
        })
    }

    /// A machine joins the cluster: each DaemonSet has a pod for its node.
    pub(super) fn joins(self: &Arc<Self>, machine: &Arc<SimMachine>) {
        let mut machines = self.machines.write().unwrap_or_else(PoisonError::into_inner);
        machines.insert(machine.name().to_owned(), Arc::clone(machine));
        drop(machines);
        for set in self.server.list("apps", "daemonsets") {
            self.daemon_set_written(set.namespace(), set.name());
        }
    }

    /// Whether the kubelet of a node is there to do something; that of a node without a machine always is.
    fn kubelet_is_up(&self, node: &str) -> bool {
        let machines = self.machines.read().unwrap_or_else(PoisonError::into_inner);
        self.site.control_plane.is_available() && machines.get(node).is_none_or(|machine| machine.kubelet_is_active())
    }

    fn pods(&self) -> MutexGuard<'_, Pods> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pod was written by anybody.
    pub(super) fn pod_written(&self, namespace: &str, name: &str) {
        let pod = self.server.get("", "pods", namespace, name);
        self.pods().refresh((namespace.to_owned(), name.to_owned()), pod.as_deref().map(Object::value));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw(&self, act: Act) -> TimeDelta {
        self.lock().timing.draw(act)
    }

    /// Enters a reconcile, once however many reasons there are for it.
    fn enter(self: &Arc<Self>, work: Work) {
        if self.lock().entered.insert(work.clone()) {
            let this = Arc::clone(self);
            self.site.after(self.draw(Act::Controller), move || this.reconcile(work));
        }
    }

    fn reconcile(self: &Arc<Self>, work: Work) {
        if !self.site.control_plane.is_available() {
            let this = Arc::clone(self);
            self.site.after(AGAIN, move || this.reconcile(work));
            return;
        }
        self.lock().entered.remove(&work);
        match &work {
            Work::Deployment(namespace, name) => self.deployment(namespace, name),
            Work::ReplicaSet(namespace, name) => self.replica_set(namespace, name),
            Work::DaemonSet(namespace, name) => self.daemon_set(namespace, name),
            Work::Pending => self.retry_pending(),
        }
    }

    /// A Deployment was written.
    pub(super) fn deployment_written(self: &Arc<Self>, namespace: &str, name: &str) {
        self.enter(Work::Deployment(namespace.to_owned(), name.to_owned()));
    }

    /// A DaemonSet was written.
    pub(super) fn daemon_set_written(self: &Arc<Self>, namespace: &str, name: &str) {
        self.enter(Work::DaemonSet(namespace.to_owned(), name.to_owned()));
    }

    /// A Node was written: pods that fitted nowhere may fit now.
    pub(super) fn node_written(self: &Arc<Self>) {
        if !self.lock().pending.is_empty() {
            self.enter(Work::Pending);
        }
    }

    /// A pod was evicted or deleted: its kubelet ends it, its controller replaces it.
    pub(super) fn pod_leaves(self: &Arc<Self>, namespace: &str, name: &str) {
        let Some(pod) = self.server.get("", "pods", namespace, name) else {
            // It had no grace, as those of a Node that is gone: only its controller is left.
            let owner = self.pods().owner_of(&(namespace.to_owned(), name.to_owned()));
            self.pod_written(namespace, name);
            if let Some(owner) = owner {
                self.tell_owner_called(namespace, &owner);
            }
            return;
        };
        self.pod_written(namespace, name);
        self.tell_owner(pod.value());
        let grace = pod.value()["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(30);
        let span = self.draw(Act::PodEnds).min(TimeDelta::seconds(grace.max(0)));
        let (this, key) = (Arc::clone(self), (namespace.to_owned(), name.to_owned(), pod.uid().to_owned()));
        self.site.after(span, move || this.pod_ended(&key.0, &key.1, &key.2));
    }

    /// The kubelet removes the object of a pod whose containers have ended.
    fn pod_ended(self: &Arc<Self>, namespace: &str, name: &str, uid: &str) {
        let Some(pod) = self.server.get("", "pods", namespace, name).filter(|pod| pod.uid() == uid) else {
            return;
        };
        let node = node_of(pod.value()).to_owned();
        let path = pod_path(namespace, name);
        if !self.kubelet_is_up(&node) || self.kubelet(&node).delete_now(&path, uid).is_err() {
            let (this, key) = (Arc::clone(self), (namespace.to_owned(), name.to_owned(), uid.to_owned()));
            self.site.after(AGAIN, move || this.pod_ended(&key.0, &key.1, &key.2));
            return;
        }
        self.pod_written(namespace, name);
        self.tell_owner(pod.value());
    }

    fn kubelet(&self, node: &str) -> Kube {
        self.site.kube(&format!("kubelet/{node}"))
    }

    fn tell_owner(self: &Arc<Self>, pod: &Value) {
        let Some(owner) = controller_of(pod) else {
            return;
        };
        let key = (text(&pod["metadata"]["namespace"]), text(&owner["name"]));
        match owner["kind"].as_str() {
            Some("ReplicaSet") => self.enter(Work::ReplicaSet(key.0, key.1)),
            Some("DaemonSet") => self.enter(Work::DaemonSet(key.0, key.1)),
            Some(_) | None => {}
        }
    }

    /// As [`Self::tell_owner`], of a pod whose controller has that UID.
    fn tell_owner_called(self: &Arc<Self>, namespace: &str, uid: &str) {
        let named = |plural: &str| -> Option<(String, String)> {
            let owners = self.server.list("apps", plural);
            let owner = owners.iter().find(|owner| owner.uid() == uid)?;
            Some((namespace.to_owned(), owner.name().to_owned()))
        };
        if let Some((namespace, name)) = named("replicasets") {
            self.enter(Work::ReplicaSet(namespace, name));
        } else if let Some((namespace, name)) = named("daemonsets") {
            self.enter(Work::DaemonSet(namespace, name));
        }
    }

    /// Pods of a controller that are not on their way out, and how many are.
    fn pods_of(&self, owner: &Object) -> (Vec<(PodKey, Pod)>, usize) {
        let pods = self.pods().of_owner(owner.uid());
        let all = pods.len();
        let staying: Vec<(PodKey, Pod)> = pods.into_iter().filter(|(_, pod)| !pod.terminating).collect();
        let leaving = all - staying.len();
        (staying, leaving)
    }

    /// One step of a rolling update: one pod more, then one old pod less, until all are new.
    fn deployment(self: &Arc<Self>, namespace: &str, name: &str) {
        let Some(deployment) = self.server.get("apps", "deployments", namespace, name) else {
            return;
        };
        let spec = &deployment.value()["spec"];
        let wanted = spec["replicas"].as_i64().unwrap_or(1);
        let hash = template_hash(&spec["template"]);
        let new_name = format!("{name}-{hash}");
        let sets: Vec<Arc<Object>> = self
            .server
            .list("apps", "replicasets")
            .into_iter()
            .filter(|set| controller_of(set.value()).is_some_and(|of| of["uid"] == *deployment.uid()))
            .collect();
        let old: Vec<&Arc<Object>> = sets.iter().filter(|set| set.name() != new_name).collect();
        let scale = |set: &Object| set.value()["spec"]["replicas"].as_i64().unwrap_or_default();
        let ready = |set: &Object| set.value()["status"]["readyReplicas"].as_i64().unwrap_or_default();
        let old_scale: i64 = old.iter().map(|set| scale(set)).sum();
        match sets.iter().find(|set| set.name() == new_name) {
            None => {
                let first = if old_scale == 0 { wanted } else { 1 };
                let set = replica_set_object(&deployment, &new_name, &hash, first);
                let _exists =
                    self.controller.create(&format!("/apis/apps/v1/namespaces/{namespace}/replicasets"), &set);
                self.enter(Work::ReplicaSet(namespace.to_owned(), new_name));
            }
            Some(new) => {
                let grown = wanted.min(wanted + 1 - old_scale).max(scale(new).min(wanted));
                self.scale(new, grown);
                let mut surplus = old_scale - (wanted - ready(new)).max(0);
                for set in &old {
                    let less = surplus.clamp(0, scale(set));
                    self.scale(set, scale(set) - less);
                    surplus -= less;
                }
                let ready_all: i64 = sets.iter().map(|set| ready(set)).sum();
                let updated = new.value()["status"]["replicas"].as_i64().unwrap_or_default();
                let all: i64 =
                    sets.iter().map(|set| set.value()["status"]["replicas"].as_i64().unwrap_or_default()).sum();
                let status = json!({
                    "observedGeneration": deployment.value()["metadata"]["generation"], "replicas": all,
                    "updatedReplicas": updated, "readyReplicas": ready_all, "availableReplicas": ready_all,
                });
                self.write_status(&deployment, &status);
            }
        }
    }

    fn scale(self: &Arc<Self>, set: &Object, replicas: i64) {
        if set.value()["spec"]["replicas"] != json!(replicas) {
            let path = format!("/apis/apps/v1/namespaces/{}/replicasets/{}", set.namespace(), set.name());
            let _gone = self.controller.merge(&path, &json!({"spec": {"replicas": replicas}}));
            self.enter(Work::ReplicaSet(set.namespace().to_owned(), set.name().to_owned()));
        }
    }

    fn replica_set(self: &Arc<Self>, namespace: &str, name: &str) {
        let Some(set) = self.server.get("apps", "replicasets", namespace, name) else {
            return;
        };
        let wanted = usize::try_from(set.value()["spec"]["replicas"].as_i64().unwrap_or(1)).unwrap_or_default();
        let (pods, _leaving) = self.pods_of(&set);
        for _ in pods.len()..wanted {
            self.create_pod(&set, name, None, &json!({}));
        }
        // Pods that are not ready go first.
        let mut surplus: Vec<&(PodKey, Pod)> = pods.iter().collect();
        surplus.sort_by_key(|(_, pod)| pod.ready);
        for (key, pod) in surplus.into_iter().take(pods.len().saturating_sub(wanted)) {
            self.delete_pod(key, pod);
        }
        let (pods, _leaving) = self.pods_of(&set);
        let ready = pods.iter().filter(|(_, pod)| pod.ready).count();
        let status = json!({
            "observedGeneration": set.value()["metadata"]["generation"], "replicas": pods.len(),
            "fullyLabeledReplicas": pods.len(), "readyReplicas": ready, "availableReplicas": ready,
        });
        if self.write_status(&set, &status)
            && let Some(owner) = controller_of(set.value())
        {
            self.enter(Work::Deployment(namespace.to_owned(), text(&owner["name"])));
        }
    }

    /// One step of a DaemonSet: a pod for every node, and old pods replaced one unavailable pod at a time.
    fn daemon_set(self: &Arc<Self>, namespace: &str, name: &str) {
        let Some(set) = self.server.get("apps", "daemonsets", namespace, name) else {
            return;
        };
        let spec = &set.value()["spec"];
        let hash = template_hash(&spec["template"]);
        let unavailable_max = spec["updateStrategy"]["rollingUpdate"]["maxUnavailable"].as_u64().unwrap_or(1);
        let (pods, leaving) = self.pods_of(&set);
        let everybody = self.pods().of_owner(set.uid());
        let occupied: BTreeSet<&str> = everybody.iter().map(|(_, pod)| pod.node.as_str()).collect();
        let nodes = self.server.list("", "nodes");
        for node in nodes.iter().filter(|node| !occupied.contains(node.name())) {
            let labels = json!({"controller-revision-hash": hash});
            self.create_pod(&set, name, Some(node.name()), &labels);
        }
        let is_new = |pod: &&(PodKey, Pod)| pod.1.revision == hash;
        let missing = nodes.len().saturating_sub(occupied.len());
        let not_ready = pods.iter().filter(|(_, pod)| !pod.ready).count();
        let unavailable = u64::try_from(missing + not_ready + leaving).unwrap_or(u64::MAX);
        let room = usize::try_from(unavailable_max.saturating_sub(unavailable)).unwrap_or_default();
        for (key, pod) in pods.iter().filter(|pod| !is_new(pod)).take(room) {
            self.delete_pod(key, pod);
        }
        let (pods, _leaving) = self.pods_of(&set);
        let ready = pods.iter().filter(|(_, pod)| pod.ready).count();
        let status = json!({
            "observedGeneration": set.value()["metadata"]["generation"], "desiredNumberScheduled": nodes.len(),
            "currentNumberScheduled": pods.len(), "numberMisscheduled": 0, "numberReady": ready,
            "numberAvailable": ready, "numberUnavailable": nodes.len().saturating_sub(ready),
            "updatedNumberScheduled": pods.iter().filter(is_new).count(),
        });
        self.write_status(&set, &status);
    }

    /// Writes a status that differs from the present one. Gives whether it did.
    fn write_status(&self, object: &Object, status: &Value) -> bool {
        let present = &object.value()["status"];
        let same = status.as_object().into_iter().flatten().all(|(field, value)| &present[field] == value);
        if same {
            return false;
        }
        let plural = match object.value()["kind"].as_str() {
            Some("Deployment") => "deployments",
            Some("ReplicaSet") => "replicasets",
            Some(_) | None => "daemonsets",
        };
        let path = format!("/apis/apps/v1/namespaces/{}/{plural}/{}/status", object.namespace(), object.name());
        self.controller.merge(&path, &json!({"status": status})).is_ok()
    }

    /// Asks for a pod's end; the ear sees the request and tells its kubelet.
    fn delete_pod(&self, (namespace, name): &PodKey, pod: &Pod) {
        let _gone = self.controller.delete(&pod_path(namespace, name), &pod.uid);
        self.pod_written(namespace, name);
    }

    fn create_pod(self: &Arc<Self>, owner: &Object, prefix: &str, node: Option<&str>, labels: &Value) {
        let template = &owner.value()["spec"]["template"];
        let suffix: String = {
            let mut state = self.lock();
            (0..5).map(|_| char::from(NAME_LETTERS[state.names.usize(..NAME_LETTERS.len())])).collect()
        };
        let name = format!("{prefix}-{suffix}");
        let mut metadata = template["metadata"].clone();
        metadata["name"] = Value::from(name.as_str());
        metadata["namespace"] = Value::from(owner.namespace());
        for (key, value) in labels.as_object().into_iter().flatten() {
            metadata["labels"][key] = value.clone();
        }
        metadata["ownerReferences"] = json!([{
            "apiVersion": "apps/v1", "kind": owner.value()["kind"], "name": owner.name(), "uid": owner.uid(),
            "controller": true, "blockOwnerDeletion": true,
        }]);
        let mut spec = template["spec"].clone();
        if let Some(node) = node {
            spec["nodeName"] = Value::from(node);
        }
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
        let created = self.controller.create(&format!("/api/v1/namespaces/{}/pods", owner.namespace()), &pod);
        if created.is_err() {
            return;
        }
        self.pod_written(owner.namespace(), &name);
        if node.is_some() {
            self.pod_bound(owner.namespace(), &name);
        } else {
            let (this, key) = (Arc::clone(self), (owner.namespace().to_owned(), name));
            self.site.after(self.draw(Act::Controller), move || this.schedule(&key.0, &key.1));
        }
    }

    /// The scheduler spreads: among the nodes that take a pod, one with the fewest of its siblings, then with the fewest pods.
    fn schedule(self: &Arc<Self>, namespace: &str, name: &str) {
        let Some(pod) = self.server.get("", "pods", namespace, name) else {
            return;
        };
        let owner = controller_of(pod.value()).map(|owner| text(&owner["uid"])).unwrap_or_default();
        let nodes = self.server.list("", "nodes");
        let fitting = nodes.iter().filter(|node| node_takes(node.value(), pod.value()));
        let chosen = {
            let pods = self.pods();
            fitting.min_by_key(|node| pods.load(node.name(), &owner))
        };
        let bound = chosen.filter(|_| self.site.control_plane.is_available()).is_some_and(|node| {
            let binding = json!({
                "apiVersion": "v1", "kind": "Binding", "metadata": {"name": name, "namespace": namespace},
                "target": {"apiVersion": "v1", "kind": "Node", "name": node.name()},
            });
            self.scheduler.create(&format!("{}/binding", pod_path(namespace, name)), &binding).is_ok()
        });
        if bound {
            self.pod_written(namespace, name);
            self.pod_bound(namespace, name);
        } else {
            self.lock().pending.insert((namespace.to_owned(), name.to_owned()));
            let this = Arc::clone(self);
            self.site.after(AGAIN, move || this.enter(Work::Pending));
        }
    }

    fn retry_pending(self: &Arc<Self>) {
        let pending = std::mem::take(&mut self.lock().pending);
        for (namespace, name) in pending {
            self.schedule(&namespace, &name);
        }
    }

    fn pod_bound(self: &Arc<Self>, namespace: &str, name: &str) {
        let (this, key) = (Arc::clone(self), (namespace.to_owned(), name.to_owned()));
        self.site.after(self.draw(Act::PodStarts), move || this.pod_starts(&key.0, &key.1));
    }

    /// The kubelet says that the pod runs and is ready.
    fn pod_starts(self: &Arc<Self>, namespace: &str, name: &str) {
        let Some(pod) = self.server.get("", "pods", namespace, name) else {
            return;
        };
        let node = node_of(pod.value()).to_owned();
        if !self.kubelet_is_up(&node) {
            let (this, key) = (Arc::clone(self), (namespace.to_owned(), name.to_owned()));
            self.site.after(AGAIN, move || this.pod_starts(&key.0, &key.1));
            return;
        }
        if is_terminating(pod.value()) {
            return;
        }
        let container = &pod.value()["spec"]["containers"][0];
        let status = running_status(
            container["name"].as_str().unwrap_or_default(),
            container["image"].as_str().unwrap_or_default(),
            &stamp(self.site.now()),
        );
        let _gone = self.kubelet(&node).merge(&format!("{}/status", pod_path(namespace, name)), &status);
        self.pod_written(namespace, name);
        self.tell_owner(pod.value());
    }

    /// Whether a node has pods that a drain has to evict.
    pub(super) fn has_evictable(&self, node: &str) -> bool {
        self.pods().has_evictable(node)
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn pod_path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods/{name}")
}

/// The node that a pod is on; empty while it is on none.
pub(super) fn node_of(pod: &Value) -> &str {
    pod["spec"]["nodeName"].as_str().unwrap_or_default()
}

fn is_terminating(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

fn template_hash(template: &Value) -> String {
    format!("{:010x}", derive(0, &[&template.to_string()]) & 0xff_ffff_ffff)
}

/// Whether the node is Ready, schedulable, and has no taint that the pod does not tolerate.
fn node_takes(node: &Value, pod: &Value) -> bool {
    let tolerations = pod["spec"]["tolerations"].as_array();
    let tolerated = |taint: &Value| {
        tolerations.into_iter().flatten().any(|toleration| {
            let key = toleration["key"].as_str().unwrap_or_default();
            key.is_empty() || toleration["key"] == taint["key"]
        })
    };
    let repelled = |taint: &Value| taint["effect"] != "PreferNoSchedule" && !tolerated(taint);
    node_is_ready(node)
        && node["spec"]["unschedulable"] != Value::Bool(true)
        && !node["spec"]["taints"].as_array().into_iter().flatten().any(repelled)
}

fn replica_set_object(deployment: &Object, name: &str, hash: &str, replicas: i64) -> Value {
    let spec = &deployment.value()["spec"];
    let mut template = spec["template"].clone();
    template["metadata"]["labels"]["pod-template-hash"] = Value::from(hash);
    let mut selector = spec["selector"].clone();
    selector["matchLabels"]["pod-template-hash"] = Value::from(hash);
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": name, "namespace": deployment.namespace(), "labels": template["metadata"]["labels"],
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "Deployment", "name": deployment.name(), "uid": deployment.uid(),
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {"replicas": replicas, "selector": selector, "template": template},
    })
}
