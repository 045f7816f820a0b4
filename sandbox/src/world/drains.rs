//! Drains as the API shows them: begun by the cordon of a node, or by an eviction where none is under way.

use crate::machine::ledger::{EffectKind, EffectName, Ledger};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Follows drains and enters them in the ledger.
#[derive(Debug)]
pub(super) struct Drains {
    ledger: Ledger,
    /// Guards what is known of each node's latest drain.
    nodes: Mutex<BTreeMap<String, Drain>>,
}

#[derive(Debug)]
struct Drain {
    name: EffectName,
    cordoned: bool,
    standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Pods are being evicted.
    Open,
    /// The operator died before all of them were gone.
    Cut,
    /// Its end has been recorded: the machine was told to go on, or the node takes pods again.
    Closed,
}

impl Drains {
    pub(super) fn new(ledger: Ledger) -> Self {
        Self { ledger, nodes: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Drain>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node was written; `hop` is the version that the cluster is moving to.
    pub(super) fn node_written(&self, node: &Value, hop: &str) {
        let node_name = node["metadata"]["name"].as_str().unwrap_or_default();
        let owner = node["metadata"]["annotations"][cupcake_crds::CORDONED_BY_ANNOTATION].as_str();
        let cordoned = node["spec"]["unschedulable"] == Value::Bool(true);
        let mut nodes = self.lock();
        if !cordoned {
            if let Some(drain) = nodes.get_mut(node_name) {
                drain.cordoned = false;
                self.close(drain);
            }
            return;
        }
        let Some(owner) = owner else {
            return;
        };
        let name =
            EffectName { node: node_name.to_owned(), kind: EffectKind::Drain, what: format!("{owner} to {hop}") };
        // One cordon begins one drain, however often its node is written meanwhile.
        if nodes.get(node_name).is_some_and(|drain| drain.cordoned && drain.name == name) {
            return;
        }
        self.ledger.begun(&name);
        nodes.insert(node_name.to_owned(), Drain { name, cordoned: true, standing: Standing::Open });
    }

    /// A pod that was not on its way out was evicted from the node. Gives the drain if that was over already.
    pub(super) fn evicted_from(&self, node: &str) -> Option<EffectName> {
        let mut nodes = self.lock();
        let drain = nodes.get_mut(node).filter(|drain| drain.standing != Standing::Open)?;
        self.ledger.begun(&drain.name);
        let was = std::mem::replace(&mut drain.standing, Standing::Open);
        (was == Standing::Closed).then(|| drain.name.clone())
    }

    /// The machine was told to go on: the operator has recorded that its node is empty.
    pub(super) fn proceeded(&self, node: &str) {
        if let Some(drain) = self.lock().get_mut(node) {
            self.close(drain);
        }
    }

    /// The operator died; `has_pods_left` tells whether a node still has pods to be evicted.
    pub(super) fn operator_died(&self, has_pods_left: impl Fn(&str) -> bool) {
        for (node, drain) in self.lock().iter_mut() {
            if drain.standing == Standing::Open && has_pods_left(node) {
                self.ledger.cut(&drain.name);
                drain.standing = Standing::Cut;
            }
        }
    }

    fn close(&self, drain: &mut Drain) {
        if drain.standing != Standing::Closed {
            // Cut and then found empty: nothing had to be begun again.
            self.ledger.ended(&drain.name);
            self.ledger.recorded(&drain.name);
            drain.standing = Standing::Closed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::transcript::Transcript;
    use cupcake_engine::clock::{SimClock, Timestamp};
    use serde_json::json;
    use std::sync::Arc;

    fn node(cordoned: bool) -> Value {
        let annotations = json!({cupcake_crds::CORDONED_BY_ANNOTATION: "run-1"});
        json!({"metadata": {"name": "w-1", "annotations": annotations}, "spec": {"unschedulable": cordoned}})
    }

    fn drains() -> (Ledger, Drains) {
        let clock = Arc::new(SimClock::starting_at(Timestamp::UNIX_EPOCH));
        let ledger = Ledger::new(clock, Transcript::default());
        (ledger.clone(), Drains::new(ledger))
    }

    #[test]
    fn one_cordon_is_one_drain_and_a_second_one_after_the_end_a_duplicate() {
        let (ledger, drains) = drains();
        for cordoned in [true, true, false] {
            drains.node_written(&node(cordoned), "1.34.4");
        }
        assert_eq!(ledger.duplicated(), 0);
        drains.node_written(&node(true), "1.34.4");
        assert_eq!(ledger.duplicated(), 1);
        drains.node_written(&node(false), "1.34.4");
        drains.node_written(&node(true), "1.35.4");
        assert_eq!(ledger.duplicated(), 1, "the next hop drains again");
    }

    #[test]
    fn an_eviction_after_the_machine_was_told_to_go_on_is_a_duplicate() {
        let (ledger, drains) = drains();
        drains.node_written(&node(true), "1.34.4");
        assert_eq!(drains.evicted_from("w-1"), None);
        drains.proceeded("w-1");
        assert_eq!(ledger.duplicated(), 0);
        assert!(drains.evicted_from("w-1").is_some());
        assert_eq!(ledger.duplicated(), 1);
    }

    #[test]
    fn evictions_go_on_after_a_crash_as_a_rerun() {
        let (ledger, drains) = drains();
        drains.node_written(&node(true), "1.34.4");
        drains.operator_died(|_node| true);
        assert_eq!(drains.evicted_from("w-1"), None);
        assert_eq!((ledger.duplicated(), ledger.reruns_after_interruption()), (0, 1));
    }
}
