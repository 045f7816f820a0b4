//! The kubelet: its process, its reports to the API, its static pods.

use super::control_plane::Part;
use super::ledger::{EffectKind, Ending};
use super::releases::{Images, STATIC_PODS};
use super::state::SimMachine;
use super::timing::Act;
use chrono::{SecondsFormat, TimeDelta};
use cupcake_crds::values::{KubeVersion, NodeRole};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::names::Reason;
use cupcake_steps::ports::host::{HostError, KubeletState, Package};
use serde_json::{Value, json};
use std::sync::Arc;

/// After how long without a kubelet its Node's readiness is unknown (the node lifecycle controller's grace period).
const SILENCE_SECONDS_MAX: i64 = 40;

/// How long an API server refuses nodes after its start: seen on real nodes for some seconds (a cold cache of roles).
const COLD_SECONDS: i64 = 6;

/// After how long a kubelet tries again to report to an API that is away.
const REPORT_AGAIN_SECONDS: i64 = 2;

/// How long a kubelet lives that crashes in a loop: long enough to report its Node at its version, Ready.
const CRASHES_AFTER_SECONDS: i64 = 4;

/// After how long systemd starts a kubelet again that ended by itself (`RestartSec` of kubeadm's unit).
const STARTS_AGAIN_SECONDS: i64 = 10;

/// From which minor on a kubelet ends by itself on control groups version 1, unless its configuration says `failCgroupV1: false`, which
/// nobody's does here. Source: kubernetes.io, "About cgroup v2" (v1.35).
const ENDS_ON_CONTROL_GROUPS_1_FROM: u32 = 35;

/// A time as objects show it.
pub(crate) fn stamp(at: Timestamp) -> Value {
    Value::from(at.to_rfc3339_opts(SecondsFormat::Secs, true))
}

impl SimMachine {
    pub(super) fn kubelet_now(&self) -> KubeletState {
        let now = self.site.now();
        let state = self.state();
        let (installed, kubelet) = (state.installed(Package::Kubelet), &state.kubelet);
        // Where machines are faster than real ones, so is what is watched on them.
        let haste = i32::try_from(self.site.haste.max(1)).unwrap_or(i32::MAX);
        KubeletState {
            installed,
            active: kubelet.active,
            runs_installed: (kubelet.active || kubelet.starts_again) && installed == Some(kubelet.version),
            since: kubelet.active.then(|| now - (now - kubelet.since) * haste),
            restarts: kubelet.restarts,
            booted: state.booted,
        }
    }

    /// From its next start on each process of the kubelet ends by itself after a moment, and systemd starts another.
    pub fn let_kubelet_crash(&self) {
        self.state().kubelet.crashes = true;
    }

    /// Its kernel is booted with control groups version 1: each process of a kubelet that takes no such machine ends by itself.
    pub fn boot_with_control_groups_1(&self) {
        self.state().control_groups = 1;
    }

    /// What it stumbled over is mended: the next process stays.
    pub fn mend_kubelet(&self) {
        self.state().kubelet.crashes = false;
    }

    /// From now on nothing that it reports gets to the API, or it does again: a process that runs, and of which its Node does not hear.
    pub fn let_kubelet_be_mute(&self, mute: bool) {
        self.state().kubelet.mute = mute;
    }

    /// `systemctl restart kubelet`: systemd does it, so that a crash of who asked for it does not cut it short.
    pub(super) async fn restart(self: &Arc<Self>) -> Result<(), HostError> {
        let installed = self.state().installed(Package::Kubelet);
        let Some(version) = installed else {
            return Err(HostError::Permanent(Reason::new("KubeletMissing", "the kubelet is not installed")));
        };
        let effect = self.site.ledger.begin(self.effect(EffectKind::KubeletRestart, format!("kubelet={version}")));
        let whole = self.draw(Act::RestartKubelet);
        let generation = self.stop_kubelet();
        self.state().kubelet.restarts = 0;
        let machine = Arc::clone(self);
        self.site.after(whole / 2, move || machine.start_kubelet(generation));
        self.pass(whole).await;
        effect.end(Ending::Well);
        Ok(())
    }

    /// The process ends. Gives the generation in which it may be started again.
    pub(crate) fn stop_kubelet(self: &Arc<Self>) -> u64 {
        let generation = {
            let mut state = self.state();
            state.kubelet.active = false;
            state.kubelet.starts_again = false;
            state.kubelet.generation += 1;
            state.kubelet.generation
        };
        let machine = Arc::clone(self);
        self.site.after(TimeDelta::seconds(SILENCE_SECONDS_MAX), move || machine.fell_silent(generation));
        generation
    }

    /// Somebody starts the kubelet again that was stopped.
    pub(crate) fn start_again(self: &Arc<Self>) {
        let generation = self.state().kubelet.generation;
        self.start_kubelet(generation);
    }

    /// The process starts from the binary that is installed, unless something else happened since `generation`.
    pub(super) fn start_kubelet(self: &Arc<Self>, generation: u64) {
        let now = self.site.now();
        let (generation, new_minor, crashes, mute) = {
            let mut state = self.state();
            if state.kubelet.generation != generation || state.kubelet.active {
                return;
            }
            let before = state.kubelet.version;
            let version = state.installed(Package::Kubelet).unwrap_or(before);
            state.kubelet.version = version;
            state.kubelet.active = true;
            state.kubelet.since = now;
            state.kubelet.starts_again = false;
            state.kubelet.generation += 1;
            let new_minor = version.minor_version() != before.minor_version();
            let unfit = state.control_groups == 1 && version.minor() >= ENDS_ON_CONTROL_GROUPS_1_FROM;
            (state.kubelet.generation, new_minor, state.kubelet.crashes || unfit, state.kubelet.mute)
        };
        if mute {
            let machine = Arc::clone(self);
            self.site.after(TimeDelta::seconds(SILENCE_SECONDS_MAX), move || machine.fell_silent(generation));
        }
        if crashes {
            let machine = Arc::clone(self);
            self.site.after(TimeDelta::seconds(CRASHES_AFTER_SECONDS), move || machine.crash_kubelet(generation));
        }
        let machine = Arc::clone(self);
        self.site.after(self.draw(Act::KubeletReports), move || {
            machine.register();
            machine.report(generation);
        });
        if new_minor && self.role == NodeRole::ControlPlane {
            // Seen on real nodes: a kubelet of a new minor restarts all static pods a second or two later, when its Node
            // already shows Ready.
            let machine = Arc::clone(self);
            self.site.after(self.draw(Act::StaticPodsRestart), move || {
                for pod in STATIC_PODS {
                    machine.restart_static_pod(pod);
                }
            });
        }
    }

    /// The process of that generation ends by itself, and systemd starts another one after a moment.
    fn crash_kubelet(self: &Arc<Self>, generation: u64) {
        if self.state().kubelet.generation != generation {
            return;
        }
        let generation = self.stop_kubelet();
        self.state().kubelet.starts_again = true;
        let machine = Arc::clone(self);
        self.site.after(TimeDelta::seconds(STARTS_AGAIN_SECONDS), move || {
            {
                let mut state = machine.state();
                if state.kubelet.generation != generation {
                    return;
                }
                state.kubelet.restarts += 1;
            }
            machine.start_kubelet(generation);
        });
    }

    /// The kubelet reports its Node's status, and will do so again: about every five minutes while nothing changes.
    pub fn report(self: &Arc<Self>, generation: u64) {
        let (version, ready_since, mute) = {
            let state = self.state();
            if !state.kubelet.active || state.kubelet.generation != generation {
                return;
            }
            (state.kubelet.version, state.kubelet.ready_since, state.kubelet.mute)
        };
        let machine = Arc::clone(self);
        let reported = self.site.control_plane.is_available()
            && !mute
            && self
                .site
                .kube(&format!("kubelet/{}", self.name))
                .merge(&format!("/api/v1/nodes/{}/status", self.name), &self.node_status(version, ready_since))
                .is_ok();
        let next = if reported { self.draw(Act::Heartbeat) } else { TimeDelta::seconds(REPORT_AGAIN_SECONDS) };
        self.site.after(next, move || machine.report(generation));
    }

    /// A kubelet that starts registers its Node if there is none.
    fn register(&self) {
        let kube = self.site.kube(&format!("kubelet/{}", self.name));
        let missing = self.site.control_plane.is_available()
            && kube.get(&format!("/api/v1/nodes/{}", self.name)).is_ok_and(|node| node.is_none());
        if missing {
            let created = kube.create("/api/v1/nodes", &self.node_object());
            debug_assert!(created.is_ok(), "{created:?}");
        }
    }

    /// The first report of a machine that is new in the cluster.
    pub fn begin_reporting(self: &Arc<Self>) {
        let generation = self.state().kubelet.generation;
        self.report_after_share_of_heartbeat(generation);
    }

    /// Nodes joined at different times: their heartbeats do not fall together.
    fn report_after_share_of_heartbeat(self: &Arc<Self>, generation: u64) {
        let machine = Arc::clone(self);
        let first = {
            let mut state = self.state();
            let whole = state.timing.draw(Act::Heartbeat);
            state.timing.share(whole)
        };
        self.site.after(first, move || machine.report(generation));
    }

    /// The Node as a kubelet registers it.
    pub fn node_object(&self) -> Value {
        let mut labels = json!({
            "kubernetes.io/arch": "amd64", "kubernetes.io/hostname": self.name, "kubernetes.io/os": "linux",
        });
        let mut spec = json!({"podCIDR": "10.244.0.0/24"});
        match self.role {
            NodeRole::ControlPlane => {
                labels["node-role.kubernetes.io/control-plane"] = json!("");
                spec["taints"] = json!([{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]);
            }
            NodeRole::Worker => {}
        }
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": self.name, "labels": labels}, "spec": spec,
        })
    }

    /// What the kubelet says about its Node.
    pub fn node_status(&self, version: KubeVersion, ready_since: Timestamp) -> Value {
        let (now, runtime) = (stamp(self.site.now()), self.state().containerd.told());
        let condition = |kind: &str, status: &str, reason: &str, message: &str| {
            json!({
                "type": kind, "status": status, "reason": reason, "message": message,
                "lastHeartbeatTime": now, "lastTransitionTime": stamp(ready_since),
            })
        };
        json!({"status": {
            "conditions": [
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
                condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
            ],
            "nodeInfo": {
                "architecture": "amd64", "bootID": self.boot_id_now(), "containerRuntimeVersion": runtime,
                "kernelVersion": "6.1.0-30-amd64", "kubeProxyVersion": "", "kubeletVersion": version.with_v(),
                "machineID": format!("{:032x}", super::timing::derive(self.site.seed, &["machine", &self.name])),
                "operatingSystem": "linux", "osImage": "Debian GNU/Linux 12 (bookworm)",
                "systemUUID": format!("{:032x}", super::timing::derive(self.site.seed, &["system", &self.name])),
            },
        }})
    }

    /// The node lifecycle controller's verdict on a kubelet that was not heard of.
    fn fell_silent(self: &Arc<Self>, generation: u64) {
        let now = self.site.now();
        {
            let mut state = self.state();
            let is_heard = state.kubelet.active && !state.kubelet.mute;
            if is_heard || state.kubelet.generation != generation {
                return;
            }
            // The report of the next process says since when it is Ready again.
            state.kubelet.ready_since = now;
        }
        let conditions: Vec<Value> = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"]
            .into_iter()
            .map(|kind| {
                json!({
                    "type": kind, "status": "Unknown", "reason": "NodeStatusUnknown",
                    "message": "Kubelet stopped posting node status.",
                    "lastHeartbeatTime": stamp(now - TimeDelta::seconds(SILENCE_SECONDS_MAX)),
                    "lastTransitionTime": stamp(now),
                })
            })
            .collect();
        if !self.site.control_plane.is_available() {
            let machine = Arc::clone(self);
            self.site.after(TimeDelta::seconds(REPORT_AGAIN_SECONDS), move || machine.fell_silent(generation));
            return;
        }
        // A Node that is gone has nobody to be told about.
        let _gone = self
            .site
            .kube("kube-controller-manager")
            .merge(&format!("/api/v1/nodes/{}/status", self.name), &json!({"status": {"conditions": conditions}}));
    }

    /// The kubelet brings a static pod to its manifest: the old container ends, the new one starts.
    pub(super) fn restart_static_pod(self: &Arc<Self>, pod: &'static str) {
        if !self.kubelet_is_active() {
            return;
        }
        let machine = Arc::clone(self);
        self.site.after(self.draw(Act::PodStops), move || machine.static_pod_stops(pod));
    }

    pub(super) fn static_pod_stops(self: &Arc<Self>, pod: &'static str) {
        self.state().running.remove(pod);
        let (part, start) = match pod {
            "etcd" => (Some(Part::Etcd), Act::EtcdStarts),
            "kube-apiserver" => (Some(Part::ApiServer), Act::ApiServerStarts),
            _ => (None, Act::PodStarts),
        };
        if part.is_some_and(|part| self.site.control_plane.stops(&self.name, part)) {
            self.site.api.went_away();
        }
        let machine = Arc::clone(self);
        self.site.after(self.draw(start), move || machine.static_pod_starts(pod));
    }

    fn static_pod_starts(self: &Arc<Self>, pod: &'static str) {
        if self.state().broken.contains(pod) {
            return;
        }
        let Some(tag) = self.state().manifests.get(pod).cloned() else {
            return;
        };
        self.state().running.insert(pod.to_owned(), tag.clone());
        let control_plane = &self.site.control_plane;
        match pod {
            "etcd" => control_plane.etcd_serves(&self.name),
            "kube-apiserver" => {
                if let Ok(version) = tag.parse() {
                    let cold_until = self.site.now() + TimeDelta::seconds(COLD_SECONDS);
                    control_plane.api_server_serves(&self.name, version, cold_until);
                }
                if let Some(oldest) = control_plane.oldest() {
                    self.site.api.serves(oldest);
                }
            }
            _ => {}
        }
        self.show_mirror(pod);
    }

    /// The mirror of a static pod in the API, new with each start of it.
    pub fn show_mirror(self: &Arc<Self>, pod: &'static str) {
        if !self.site.control_plane.is_available() {
            let machine = Arc::clone(self);
            self.site.after(TimeDelta::seconds(REPORT_AGAIN_SECONDS), move || machine.show_mirror(pod));
            return;
        }
        let Some(tag) = self.state().running.get(pod).cloned() else {
            return;
        };
        let kube = self.site.kube(&format!("kubelet/{}", self.name));
        let path = format!("/api/v1/namespaces/kube-system/pods/{pod}-{}", self.name);
        if let Ok(Some(old)) = kube.get(&path) {
            let _already_gone = kube.delete_now(&path, old["metadata"]["uid"].as_str().unwrap_or_default());
        }
        // Somebody deleted the Node: nothing to belong to, until the kubelet has registered it again.
        let Some(node) = kube.get(&format!("/api/v1/nodes/{}", self.name)).ok().flatten() else {
            return;
        };
        let hash = format!("{:016x}", super::timing::derive(self.site.seed, &["manifest", pod, &tag]));
        let image = format!("registry.k8s.io/{pod}:{tag}");
        let mirror = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": format!("{pod}-{}", self.name), "namespace": "kube-system",
                "labels": {"component": pod, "tier": "control-plane"},
                "annotations": {
                    "kubernetes.io/config.hash": hash, "kubernetes.io/config.mirror": hash,
                    "kubernetes.io/config.source": "file",
                },
                "ownerReferences": [{
                    "apiVersion": "v1", "kind": "Node", "name": self.name, "controller": true,
                    "uid": node["metadata"]["uid"],
                }],
            },
            "spec": {
                "nodeName": self.name, "hostNetwork": true, "priorityClassName": "system-node-critical",
                "containers": [{"name": pod, "image": image}],
                "tolerations": [{"effect": "NoExecute", "operator": "Exists"}],
            },
        });
        let created = kube.create("/api/v1/namespaces/kube-system/pods", &mirror);
        debug_assert!(created.is_ok(), "{created:?}");
        let now = stamp(self.site.now());
        let _replaced = kube.merge(&format!("{path}/status"), &running_status(pod, &image, &now));
    }

    /// A static pod's container ends and does not come back until [`SimMachine::mend_static_pod`].
    pub fn break_static_pod(self: &Arc<Self>, pod: &'static str) {
        self.state().broken.insert(pod);
        self.static_pod_stops(pod);
        let path = format!("/api/v1/namespaces/kube-system/pods/{pod}-{}/status", self.name);
        let unready = json!({"type": "Ready", "status": "False", "lastTransitionTime": stamp(self.site.now())});
        // Its mirror may be away, or the API with it.
        let _told = self
            .site
            .kube(&format!("kubelet/{}", self.name))
            .merge(&path, &json!({"status": {"conditions": [unready]}}));
    }

    /// It starts again.
    pub fn mend_static_pod(self: &Arc<Self>, pod: &'static str) {
        self.state().broken.remove(pod);
        self.static_pod_starts(pod);
    }

    /// A manifest is moved away; the kubelet sees it, and stops the static pod.
    pub(super) fn take_manifest_away(self: &Arc<Self>, pod: &'static str) {
        {
            let mut state = self.state();
            if let Some(tag) = state.manifests.remove(pod) {
                state.put_aside.insert(pod.to_owned(), tag);
            }
        }
        self.restart_static_pod(pod);
    }

    /// Manifests that are away are put back from the copies that kubeadm made of them.
    pub(super) fn put_manifests_back(self: &Arc<Self>) {
        if self.role == NodeRole::Worker {
            return;
        }
        for pod in STATIC_PODS {
            let was_away = {
                let mut state = self.state();
                let copy = state.put_aside.get(pod).cloned().filter(|_| !state.manifests.contains_key(pod));
                copy.map(|tag| state.manifests.insert(pod.to_owned(), tag)).is_some()
            };
            if was_away {
                self.restart_static_pod(pod);
            }
        }
    }

    /// Writes a manifest; the kubelet sees it.
    pub(super) fn write_manifest(self: &Arc<Self>, pod: &'static str, version: KubeVersion) {
        let images = Images::of(version);
        {
            let mut state = self.state();
            state.manifests.insert(pod.to_owned(), images.tag(pod));
            state.images.insert(images.static_pod(pod));
        }
        self.restart_static_pod(pod);
    }
}

/// The status of a pod with one container that runs and is ready.
pub(crate) fn running_status(container: &str, image: &str, now: &Value) -> Value {
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
    json!({"status": {
        "phase": "Running",
        "startTime": now,
        "conditions": [
            condition("Initialized"), condition("Ready"), condition("ContainersReady"), condition("PodScheduled"),
        ],
        "containerStatuses": [{
            "name": container, "image": image, "imageID": image, "ready": true, "started": true, "restartCount": 0,
            "state": {"running": {"startedAt": now}},
        }],
    }})
}
