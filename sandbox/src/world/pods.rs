//! What the simulated controllers know of pods without looking at all of them: by owner, by node.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Namespace and name.
pub(super) type PodKey = (String, String);

/// What controllers ask of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pod {
    pub(super) uid: String,
    /// UID of its controller; empty if it has none.
    pub(super) owner: String,
    /// Its node; empty while it has none.
    pub(super) node: String,
    pub(super) ready: bool,
    pub(super) terminating: bool,
    /// `controller-revision-hash`, of a DaemonSet's pod.
    pub(super) revision: String,
    /// Whether a drain has to evict it.
    pub(super) evictable: bool,
}

impl Pod {
    fn of(value: &Value) -> Self {
        let metadata = &value["metadata"];
        let owner = controller_of(value);
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mirror = metadata["annotations"].get("kubernetes.io/config.mirror").is_some();
        let daemon = owner.is_some_and(|owner| owner["kind"] == "DaemonSet");
        Self {
            uid: word(&metadata["uid"]),
            owner: owner.map(|owner| word(&owner["uid"])).unwrap_or_default(),
            node: word(&value["spec"]["nodeName"]),
            ready: is_ready(value),
            terminating: metadata["deletionTimestamp"].is_string(),
            revision: word(&metadata["labels"]["controller-revision-hash"]),
            evictable: !mirror && !daemon,
        }
    }
}

/// All pods, with what is looked up often.
#[derive(Debug, Default)]
pub(super) struct Pods {
    known: BTreeMap<PodKey, Pod>,
    by_owner: BTreeMap<String, BTreeSet<PodKey>>,
    /// Pods on each node, by owner.
    by_node: BTreeMap<String, BTreeMap<String, usize>>,
}

impl Pods {
    /// Takes in what the store holds under that name now.
    pub(super) fn refresh(&mut self, key: PodKey, value: Option<&Value>) {
        if let Some(old) = self.known.remove(&key) {
            if let Some(keys) = self.by_owner.get_mut(&old.owner) {
                keys.remove(&key);
            }
            if let Some(count) = self.by_node.get_mut(&old.node).and_then(|owners| owners.get_mut(&old.owner)) {
                *count -= 1;
            }
        }
        if let Some(value) = value {
            let pod = Pod::of(value);
            self.by_owner.entry(pod.owner.clone()).or_default().insert(key.clone());
            *self.by_node.entry(pod.node.clone()).or_default().entry(pod.owner.clone()).or_default() += 1;
            self.known.insert(key, pod);
        }
    }

    /// The pods of a controller, by name.
    pub(super) fn of_owner(&self, uid: &str) -> Vec<(PodKey, Pod)> {
        let keys = self.by_owner.get(uid).into_iter().flatten();
        keys.filter_map(|key| Some((key.clone(), self.known.get(key)?.clone()))).collect()
    }

    /// UID of the controller of a pod that was known last; empty if it has none.
    pub(super) fn owner_of(&self, key: &PodKey) -> Option<String> {
        self.known.get(key).map(|pod| pod.owner.clone())
    }

    /// Pods of that owner on the node, then pods of anybody.
    pub(super) fn load(&self, node: &str, owner: &str) -> (usize, usize) {
        let Some(owners) = self.by_node.get(node) else {
            return (0, 0);
        };
        (owners.get(owner).copied().unwrap_or_default(), owners.values().sum())
    }

    /// Whether the node has pods that a drain has to evict.
    pub(super) fn has_evictable(&self, node: &str) -> bool {
        self.known.values().any(|pod| pod.node == node && pod.evictable)
    }
}

/// The owner of an object that controls it.
pub(super) fn controller_of(object: &Value) -> Option<&Value> {
    object["metadata"]["ownerReferences"].as_array()?.iter().find(|owner| owner["controller"] == Value::Bool(true))
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_that_moves_or_goes_leaves_no_trace() {
        let key = ("default".to_owned(), "shop-1".to_owned());
        let on = |node: &str| {
            json!({
                "metadata": {"uid": "u", "ownerReferences": [{"uid": "rs", "kind": "ReplicaSet", "controller": true}]},
                "spec": {"nodeName": node},
            })
        };
        let mut pods = Pods::default();
        pods.refresh(key.clone(), Some(&on("")));
        pods.refresh(key.clone(), Some(&on("w-1")));
        assert_eq!((pods.load("", "rs"), pods.load("w-1", "rs")), ((0, 0), (1, 1)));
        assert_eq!(pods.of_owner("rs").len(), 1);
        assert!(pods.has_evictable("w-1"));
        pods.refresh(key, None);
        assert_eq!((pods.load("w-1", "rs"), pods.of_owner("rs").len()), ((0, 0), 0));
    }
}
