//! What must hold once an update has come to rest: it rests for something that happened to it, and says so; and what Succeeded has moved
//! its machines, whatever happened.

use super::invariants::{is_said_of, phase_of, says};
use super::{World, is_at_rest, node_outcome};
use crate::machine::fault::{Fault, Stream, Wrong};
use cupcake_crds::values::NodeRole;
use cupcake_engine::clock::Timestamp;
use serde_json::Value;

/// What an update says of a step whose time was over.
const OVERDUE: &str = "not done within";
/// What it says of a worker left behind where another hop takes no kubelet as old.
const TOO_OLD: &str = "the next hop takes no kubelet older than";
/// What it says of a drain whose pods have no other place.
const NOWHERE: &str = "pods may not be evicted";
/// What it says of a cluster without a control-plane node.
const HEADLESS: &str = "no node has the label node-role.kubernetes.io/control-plane";
/// What it says of a run whose name is somebody else's.
const TAKEN: &str = "exists and is not a child of";
/// What it says of nodes that came, or registered anew, while the others moved.
const NEW: &str = "new since the workers were planned";

impl World {
    /// Looks at what must hold once an update has come to rest. Only a judged world looks.
    pub fn judge(&self, name: &str) {
        let Some(invariants) = self.ear.invariants.get() else { return };
        let update = self.update(name).unwrap_or_default();
        let phase = phase_of(&update);
        invariants.ended(&update, is_at_rest(&update));
        match phase {
            "Pending" | "RequiresAttention" | "Failed" => {
                let happened = self.faults.befell();
                if !happened.iter().any(|(fault, place)| self.explains(*fault, place, &update)) {
                    let message = update["status"]["message"].as_str().unwrap_or_default();
                    invariants.rests_without_cause(phase, message);
                }
            }
            "Succeeded" => invariants.behind(&self.behind(&update)),
            _ => {}
        }
    }

    /// What is not at the target of an update, of its Nodes and of the machines beneath them. Left aside are workers that somebody left
    /// out, machines without a Node, and workers whose Node was deleted and came back as a new one that the update names, or after its end.
    fn behind(&self, update: &Value) -> Vec<String> {
        let target = update["spec"]["targetVersion"].as_str().unwrap_or_default();
        let listed = |list: &Value, field: &str| -> Vec<String> {
            let items = list.as_array().into_iter().flatten();
            items.filter_map(|item| item[field].as_str().map(str::to_owned)).collect()
        };
        let mut left_out = listed(&update["spec"]["control"]["skip"], "vertex");
        left_out.extend(listed(&update["status"]["leftOut"], "node"));
        let happened = self.faults.befell();
        let was_deleted =
            |node: &str| happened.iter().any(|(fault, place)| fault.wrong == Wrong::NodeDeleted && **place == *node);
        let is_new = |node: &Value| {
            let name = node["metadata"]["name"].as_str().unwrap_or_default();
            let named = says(update, NEW) && is_said_of(update, name);
            let came = time(&node["metadata"]["creationTimestamp"]);
            let later = came.zip(time(&update["status"]["completedAt"])).is_some_and(|(came, ended)| came > ended);
            was_deleted(name) && (named || later)
        };
        let mut behind = Vec::new();
        for node in self.server.list("", "nodes") {
            let shown = node_outcome(node.value());
            let machine = self.machines.get(&shown.name);
            let is_worker = machine.is_some_and(|machine| machine.role() == NodeRole::Worker);
            if left_out.contains(&shown.name) || (is_worker && is_new(node.value())) {
                continue;
            }
            let runs = machine.map(|machine| machine.kubelet_version().to_string());
            let versions = std::iter::once(shown.version.clone()).chain(runs);
            if let Some(old) = versions.into_iter().find(|version| version != target) {
                behind.push(format!("the kubelet of {} is {old}", shown.name));
            }
        }
        let servers = self.site.control_plane.versions();
        if let Some((oldest, _)) = servers.filter(|(oldest, _)| oldest.to_string() != target) {
            behind.push(format!("an API server is {oldest}"));
        }
        behind
    }

    /// Whether an update may rest or fail for what happened at a place (a machine, or a replica of the operator), and says so. Whatever is not
    /// to be waited out is here; all else ends as if nothing had been.
    fn explains(&self, fault: Fault, place: &str, update: &Value) -> bool {
        let is_worker = self.machines.get(place).is_some_and(|machine| machine.role() == NodeRole::Worker);
        match fault.wrong {
            // By a clock that jumps a step's time is over too soon: on its machine; by a leader's, on any.
            Wrong::ClockJump => {
                says(update, OVERDUE) && (fault.stream == Stream::Operator || is_said_of(update, place))
            }
            // Its pods went elsewhere, and those of the others may have no place left.
            Wrong::NodeDeleted => is_said_of(update, place) || says(update, if is_worker { NOWHERE } else { HEADLESS }),
            // Whoever has taken it gives it back.
            Wrong::NameTaken => says(update, TAKEN),
            // Who left a worker out in the middle of several hops is asked what is to become of it.
            Wrong::LeftOut => says(update, TOO_OLD) && is_said_of(update, place),
            Wrong::Before
            | Wrong::After
            | Wrong::Torn
            | Wrong::ReplyLost
            | Wrong::Refused
            | Wrong::Busy
            | Wrong::TimedOut
            | Wrong::Forbidden
            | Wrong::Stopped
            | Wrong::AskedToStop
            | Wrong::ApiAway
            | Wrong::WatchesLost
            | Wrong::PowerCut
            | Wrong::DiskFull
            | Wrong::SecondRunner
            | Wrong::WatchesLate
            | Wrong::EventsLost
            | Wrong::Election
            | Wrong::Doubled
            | Wrong::StaleOrder
            | Wrong::Paused
            | Wrong::Cancelled
            | Wrong::Edited => false,
        }
    }
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::fault::{Component, Life, WriteTo};
    use crate::world::{Speed, WorldConfig, runtime};
    use cupcake_crds::values::KubeVersion;
    use cupcake_crds::{GROUP, VERSION};
    use serde_json::json;

    /// What is violated where that happened at a place, all kubelets are at 1.33.4, and the Nodes say that those are at 1.34.4.
    fn violated(fault: &str, place: &str, status: &Value, moved: &[&str]) -> Vec<String> {
        let start = Timestamp::UNIX_EPOCH + chrono::TimeDelta::days(20_000);
        let fault: Fault = fault.parse().unwrap();
        let (judged, faults) = (true, vec![fault]);
        let config = WorldConfig { control_planes: 1, workers: 2, judged, faults, ..WorldConfig::new(FROM, start) };
        runtime(Speed::Fastest).unwrap().block_on(async {
            let world = World::new(config).unwrap();
            let component = if fault.stream == Stream::Operator { Component::Operator } else { Component::Agent };
            world.faults.count(&Life::new(component, place), fault.stream, WriteTo::Api);
            assert_eq!(world.faults_happened(), [fault]);
            for node in moved {
                let info = json!({"status": {"nodeInfo": {"kubeletVersion": "v1.34.4"}}});
                world.site.kube("somebody").merge(&format!("/api/v1/nodes/{node}/status"), &info).unwrap();
            }
            let before = world.violations().len();
            let update = json!({
                "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "DirectUpdate", "metadata": {"name": "upgrade"},
                "spec": {"targetVersion": "1.34.4"}, "status": status,
            });
            world.server.restore(GROUP, "directupdates", update);
            world.judge("upgrade");
            world.violations().split_off(before).into_iter().map(|violation| violation.what).collect()
        })
    }

    const FROM: KubeVersion = KubeVersion::new(1, 33, 4);

    #[test]
    fn what_succeeded_is_held_against_nodes_and_machines_whatever_happened_to_a_clock_or_to_another_node() {
        let old = |nodes: &[&str]| -> Vec<String> {
            nodes.iter().map(|node| format!("Succeeded, and the kubelet of {node} is 1.33.4")).collect()
        };
        let succeeded = |message: &str| json!({"phase": "Succeeded", "message": message});
        let kubelets = |fault: &str, message: &str, moved: &[&str]| {
            let mut all = violated(fault, "w-1", &succeeded(message), moved);
            all.retain(|what| what.contains("kubelet"));
            all
        };
        let everywhere = old(&["cp-1", "w-1", "w-2"]);
        for fault in ["agent@1:clock-jump", "agent@1:node-deleted", "operator@1:clock-jump", "agent@1:busy"] {
            assert_eq!(kubelets(fault, "all that was planned is done", &[]), everywhere, "{fault}");
            assert_eq!(
                kubelets(fault, "", &["cp-1", "w-1", "w-2"]),
                everywhere,
                "{fault}: the machines run the old one"
            );
        }
        let new =
            "without w-1 (1.33.4), new since the workers were planned: apply another DirectUpdate for what is new";
        assert_eq!(kubelets("agent@1:node-deleted", new, &[]), old(&["cp-1", "w-2"]), "it came back as another node");
        assert_eq!(kubelets("agent@1:clock-jump", new, &[]), everywhere, "it never was away");
    }

    #[test]
    fn an_update_that_rests_says_for_what_of_all_that_happened() {
        let rests = |fault: &str, place: &str, message: &str| {
            !violated(fault, place, &json!({"phase": "RequiresAttention", "message": message}), &[]).is_empty()
        };
        let overdue = "w-1/prepare failed: not done within 600 s";
        for (fault, place, message, without_cause) in [
            ("agent@1:clock-jump", "w-1", overdue, false),
            ("agent@1:clock-jump", "w-2", overdue, true),
            ("agent@1:clock-jump", "w-1", "w-1/drain failed: pods may not be evicted", true),
            ("operator@1:clock-jump", "", overdue, false),
            ("operator@1:clock-jump", "", "w-1/drain failed: pods may not be evicted", true),
            ("agent@1:node-deleted", "w-1", "node w-1 of this plan is gone", false),
            ("agent@1:node-deleted", "w-2", "node w-1 of this plan is gone", true),
            ("agent@1:node-deleted", "w-1", "w-2/drain failed: 2 pods may not be evicted", false),
            ("agent@1:node-deleted", "cp-1", "w-2/drain failed: 2 pods may not be evicted", true),
            ("agent@1:node-deleted", "cp-1", "no node has the label node-role.kubernetes.io/control-plane", false),
            ("agent@1:node-deleted", "w-1", "no node has the label node-role.kubernetes.io/control-plane", true),
            ("agent@1:left-out", "w-1", "w-1 is left out, and the next hop takes no kubelet older than 1.31.0", false),
            ("agent@1:left-out", "w-1", overdue, true),
            ("agent@1:busy", "w-1", overdue, true),
        ] {
            assert_eq!(rests(fault, place, message), without_cause, "{fault} on {place}: {message}");
        }
    }
}
