//! What is looked at when an object was written.

use super::Invariants;
use super::rules::{
    apart, asked_for, begun_against_will, has_open_order, is_recorded, proxy_of, skewed, taken_back, went_back,
};
use cupcake_crds::values::{KubeVersion, NodeRole, Phase};
use cupcake_crds::{GROUP, NodeTask, UpgradePlan, UpgradeRun};
use cupcake_engine::dag::Dag;
use cupcake_engine::plan::Plan;
use cupcake_operator::adapters::kube_store::cursor_of;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Invariants {
    fn object<K: DeserializeOwned>(&self, plural: &str, name: &str) -> Option<K> {
        K::deserialize(self.server.get(GROUP, plural, "", name)?.value()).ok()
    }

    pub(super) fn run(&self, name: &str) -> Vec<(&'static str, String)> {
        let Some(run) = self.object::<UpgradeRun>("upgraderuns", name) else {
            return Vec::new();
        };
        let uid = run.metadata.uid.clone().unwrap_or_default();
        let mut found = Vec::new();
        let epoch = run.status.as_ref().and_then(|status| status.epoch).unwrap_or_default();
        self.epoch(&mut found, name, &uid, epoch);
        self.end(&mut found, name, &uid, run.status.as_ref().and_then(|status| status.phase));
        let Some(dag) = self.dag(&run.spec.plan.name) else {
            return found;
        };
        let Ok(cursor) = cursor_of(&run, &dag) else {
            found.push(("I5", format!("the cursor of {name} cannot be read")));
            return found;
        };
        let before = self.lock().cursors.insert(uid, cursor.clone());
        if let Some(before) = before {
            found.extend(went_back(&dag, &before, &cursor).map(|what| ("I5", format!("{name}: {what}"))));
            found.extend(begun_against_will(&dag, &before, &cursor).map(|what| ("I2", format!("{name}: {what}"))));
        }
        found
    }

    pub(super) fn update(&self, name: &str) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        if let Some(update) = self.server.get(GROUP, "directupdates", "", name) {
            let phase = Phase::deserialize(&update.value()["status"]["phase"]).ok();
            self.end(&mut found, name, update.uid(), phase);
        }
        found
    }

    fn dag(&self, plan: &str) -> Option<Arc<Dag>> {
        if let Some(dag) = self.lock().dags.get(plan) {
            return Some(Arc::clone(dag));
        }
        let object: UpgradePlan = self.object("upgradeplans", plan)?;
        let dag = Arc::new(serde_json::from_value::<Plan>(object.spec.plan).ok()?.expand().ok()?);
        self.lock().dags.insert(plan.to_owned(), Arc::clone(&dag));
        Some(dag)
    }

    pub(super) fn epoch(&self, found: &mut Vec<(&'static str, String)>, name: &str, uid: &str, epoch: u64) {
        let before = self.lock().epochs.insert(uid.to_owned(), epoch).unwrap_or_default();
        if epoch < before {
            found.push(("I6", format!("the epoch of {name} went from {before} back to {epoch}")));
        }
    }

    pub(super) fn end(&self, found: &mut Vec<(&'static str, String)>, name: &str, uid: &str, phase: Option<Phase>) {
        let mut seen = self.lock();
        if let Some(before) = seen.ends.get(uid).filter(|before| phase != Some(**before)) {
            found.push(("I5", format!("{name} went from {before:?} to {phase:?}")));
        }
        match phase.filter(|phase| phase.is_final()) {
            Some(phase) => seen.ends.insert(uid.to_owned(), phase),
            None => seen.ends.remove(uid),
        };
    }

    pub(super) fn task(&self, client: &str, name: &str) -> Vec<(&'static str, String)> {
        let task = self.object::<NodeTask>("nodetasks", name);
        let mut found = Vec::new();
        if let Some(task) = &task {
            let uid = task.metadata.uid.as_deref().unwrap_or_default();
            self.epoch(&mut found, name, uid, task.spec.epoch);
            if let Some(order) = &task.spec.order {
                self.epoch(&mut found, &format!("the order of {name}"), &format!("{uid}/order"), order.epoch);
            }
        }
        self.lock().ordered.insert(name.to_owned(), task.as_ref().is_some_and(has_open_order));
        if let Some(task) = task {
            let before = self.lock().tasks.insert(task.metadata.uid.clone().unwrap_or_default(), task.clone());
            let lost = before.as_ref().and_then(|before| taken_back(before, &task));
            found.extend(lost.map(|what| ("I5", format!("the task of {name}: {what}"))));
            let was = before.as_ref().and_then(|before| before.spec.order.as_ref()).map(|order| &order.key);
            if let Some(what) = asked_for(before.as_ref(), &task) {
                found.extend(self.against_will(client, || format!("{name} was {what}")));
            }
            let new = task.spec.order.as_ref().map(|order| &order.key).filter(|key| Some(*key) != was);
            let unrecorded = new.filter(|key| !is_recorded(&self.lock().cursors, key));
            found.extend(
                unrecorded.map(|key| ("I1", format!("{name} is ordered {key}, which its run does not know of"))),
            );
        }
        found.extend(self.in_flight());
        found
    }

    pub(super) fn node(&self, client: &str, name: &str) -> Vec<(&'static str, String)> {
        let node = self.server.get("", "nodes", "", name);
        let node = node.as_ref().map_or(&Value::Null, |node| node.value());
        // Nobody else cordons here, whatever the annotation says.
        let cordoned = node["spec"]["unschedulable"] == Value::Bool(true);
        let was = self.lock().cordoned.insert(name.to_owned(), cordoned).unwrap_or_default();
        let mut found: Vec<_> = self.in_flight().collect();
        if cordoned && !was {
            found.extend(self.against_will(client, || format!("{name} was cordoned")));
        }
        found.extend(self.kubelet(node));
        found
    }

    fn kubelet(&self, node: &Value) -> Option<(&'static str, String)> {
        let kubelet = node["status"]["nodeInfo"]["kubeletVersion"].as_str()?.parse().ok()?;
        let what = format!("the kubelet of {}", node["metadata"]["name"].as_str().unwrap_or_default());
        self.beside_api_servers(&what, kubelet)
    }

    /// A kube-proxy; any other pod is none of its business.
    pub(super) fn proxy(&self, pod: &Value) -> Option<(&'static str, String)> {
        let what = format!("kube-proxy on {}", pod["spec"]["nodeName"].as_str().unwrap_or("no node yet"));
        self.beside_api_servers(&what, proxy_of(pod)?)
    }

    fn beside_api_servers(&self, what: &str, version: KubeVersion) -> Option<(&'static str, String)> {
        let (oldest, newest) = self.site.control_plane.versions()?;
        skewed(what, version, oldest, newest).map(|what| ("I8", what))
    }

    /// An API server serves in another version: what stands beside it did not change, and may no longer fit.
    pub(super) fn api_server(&self) -> Vec<(&'static str, String)> {
        let apart = self.site.control_plane.versions().and_then(|(oldest, newest)| apart(oldest, newest));
        let (nodes, pods) = (self.server.list("", "nodes"), self.server.list("", "pods"));
        let kubelets = nodes.iter().filter_map(|node| self.kubelet(node.value()));
        let proxies = pods.iter().filter_map(|pod| self.proxy(pod.value()));
        apart.map(|what| ("I8", what)).into_iter().chain(kubelets).chain(proxies).collect()
    }

    /// Too many at once. A task that the garbage collector removed with its Node is not seen to go: whoever is too many is looked
    /// at once more.
    pub(super) fn in_flight(&self) -> impl Iterator<Item = (&'static str, String)> + use<> {
        let found: Vec<_> = self.held().collect();
        if found.is_empty() {
            return found.into_iter();
        }
        let exists = |node: &String| self.server.get(GROUP, "nodetasks", "", node).is_some();
        self.lock().ordered.retain(|node, _| exists(node));
        self.held().collect::<Vec<_>>().into_iter()
    }

    pub(super) fn held(&self) -> impl Iterator<Item = (&'static str, String)> + use<> {
        let seen = self.lock();
        let role = |node: &String| self.roles.get(node).copied();
        let open = |wanted: NodeRole| {
            let nodes = self.roles.keys().filter(|node| role(node) == Some(wanted));
            let held = |flags: &BTreeMap<String, bool>, node: &String| flags.get(node).copied().unwrap_or_default();
            let cordon_counts = wanted == NodeRole::Worker;
            nodes
                .filter(|node| held(&seen.ordered, node) || (cordon_counts && held(&seen.cordoned, node)))
                .cloned()
                .collect::<Vec<String>>()
        };
        let (workers, control_planes) = (open(NodeRole::Worker), open(NodeRole::ControlPlane));
        let too_many = seen.concurrency.is_some_and(|allowed| workers.len() > allowed as usize);
        let workers = too_many.then(|| ("I3", format!("in flight at once: {}", workers.join(", "))));
        let control_planes = (control_planes.len() > 1)
            .then(|| ("I4", format!("control-plane nodes at work at once: {}", control_planes.join(", "))));
        workers.into_iter().chain(control_planes)
    }
}
