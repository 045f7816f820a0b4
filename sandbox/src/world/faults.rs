//! Carries out faults that concern more than the one write that they fall on.

use super::Spawner;
use super::components::Components;
use crate::api::{Object, Server};
use crate::machine::fault::{
    AWAY_SECONDS, CLOCK_AHEAD_SECONDS, CLOCK_WRONG_SECONDS, COLD_SECONDS, Component, DISK_FULL_SECONDS,
    DOUBLED_SECONDS, ELECTION_SECONDS, EVENTS_LOST_SECONDS, Life, PAUSED_SECONDS, WATCHES_LATE_SECONDS, Wrong,
};
use crate::machine::{SimMachine, Site};
use chrono::TimeDelta;
use cupcake_crds::{GROUP, PAUSED_ANNOTATION, VERSION};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

/// What a person edits a target to: no cluster is at it, and none can be.
const EDITED_VERSION: &str = "1.24.1";

/// What faults reach. Holds its world by weak references, for the world holds it.
pub(super) struct Hands {
    site: Weak<Site>,
    server: Server,
    machines: BTreeMap<String, Arc<SimMachine>>,
    components: Weak<Components>,
    spawner: Spawner,
}

impl Hands {
    pub(super) fn new(
        components: &Arc<Components>,
        machines: &BTreeMap<String, Arc<SimMachine>>,
        spawner: Spawner,
    ) -> Self {
        Self {
            site: Arc::downgrade(&components.site),
            server: components.server.clone(),
            machines: machines.clone(),
            components: Arc::downgrade(components),
            spawner,
        }
    }

    /// Does what goes wrong at a place: a node's name, or a replica of the operator. Whatever looks at the store or writes to it
    /// happens right after the request that is under way.
    pub(super) fn carry_out(&self, wrong: Wrong, place: &str) {
        let (Some(site), Some(components)) = (self.site.upgrade(), self.components.upgrade()) else {
            return;
        };
        let (now, server, later) = (site.now(), self.server.clone(), Arc::clone(&site));
        let span = |seconds| TimeDelta::seconds(seconds);
        let machine = self.machines.get(place).cloned();
        match wrong {
            Wrong::ApiAway => site.agenda.at(now, move || {
                later.control_plane.cut_off(true);
                server.close_watches();
                let back = Arc::clone(&later);
                later.after(span(AWAY_SECONDS), move || back.control_plane.cut_off(false));
            }),
            Wrong::WatchesLost => site.agenda.at(now, move || {
                server.compact();
                server.close_watches();
            }),
            Wrong::WatchesLate => {
                server.hold_watches(true);
                site.after(span(WATCHES_LATE_SECONDS), move || server.hold_watches(false));
            }
            // Not this write, nor what came before it.
            Wrong::EventsLost => {
                site.agenda.at(now, move || server.lose_events(later.now() + span(EVENTS_LOST_SECONDS)));
            }
            Wrong::Forbidden => site.control_plane.is_cold_until(now + span(COLD_SECONDS)),
            Wrong::Election => site.control_plane.elect_until(now + span(ELECTION_SECONDS)),
            Wrong::PowerCut => {
                if let Some(machine) = machine {
                    let agents = components.gate.lives_of(Component::Agent, place);
                    site.agenda.at(now, move || {
                        agents.iter().for_each(Life::end);
                        machine.power_cycle();
                    });
                }
            }
            Wrong::DiskFull => {
                if let Some(machine) = machine {
                    machine.disk().fill(true);
                    site.after(span(DISK_FULL_SECONDS), move || machine.disk().fill(false));
                }
            }
            Wrong::SecondRunner => {
                if let Some(machine) = machine {
                    machine.start_by_hand();
                }
            }
            Wrong::ClockJump => {
                let (skews, place) = (components.skews.clone(), place.to_owned());
                skews.set(&place, span(CLOCK_AHEAD_SECONDS));
                site.after(span(CLOCK_WRONG_SECONDS), move || skews.set(&place, TimeDelta::zero()));
            }
            Wrong::NodeDeleted => {
                let place = place.to_owned();
                site.agenda.at(now, move || delete_node(&later, &server, &place));
            }
            Wrong::Doubled => {
                if let Some(machine) = machine {
                    (self.spawner)(Box::pin(components.double(machine, now + span(DOUBLED_SECONDS))));
                }
            }
            Wrong::StaleOrder => {
                let place = place.to_owned();
                site.agenda.at(now, move || order_as_an_old_leader(&later, &server, &place));
            }
            Wrong::Paused => site.agenda.at(now, move || {
                ask(&later, &server, &json!({"metadata": {"annotations": {PAUSED_ANNOTATION: "true"}}}));
                let back = Arc::clone(&later);
                later.after(span(PAUSED_SECONDS), move || {
                    ask(&back, &server, &json!({"metadata": {"annotations": {PAUSED_ANNOTATION: null}}}));
                });
            }),
            Wrong::Cancelled => site.agenda.at(now, move || {
                ask(&later, &server, &json!({"spec": {"control": {"cancel": {"requestId": "simulated"}}}}));
            }),
            Wrong::LeftOut => {
                let node = place.to_owned();
                site.agenda.at(now, move || leave_out(&later, &server, &node));
            }
            Wrong::Edited => site.agenda.at(now, move || edit(&later, &server)),
            Wrong::NameTaken => site.agenda.at(now, move || take_names(&server)),
            Wrong::Before
            | Wrong::After
            | Wrong::Torn
            | Wrong::ReplyLost
            | Wrong::Refused
            | Wrong::Busy
            | Wrong::TimedOut
            | Wrong::Stopped
            | Wrong::AskedToStop => {}
        }
    }
}

/// A person leaves a node out of every update, beside what they asked before.
fn leave_out(site: &Site, server: &Server, node: &str) {
    for update in server.list(GROUP, "directupdates") {
        let mut skip = update.value()["spec"]["control"]["skip"].as_array().cloned().unwrap_or_default();
        let request = json!({"requestId": format!("simulated-{node}"), "vertex": node});
        if !skip.contains(&request) {
            skip.push(request);
            ask(site, server, &json!({"spec": {"control": {"skip": skip}}}));
        }
    }
}

/// A person asks something of every update.
fn ask(site: &Site, server: &Server, change: &Value) {
    for update in server.list(GROUP, "directupdates") {
        let path = format!("/apis/{GROUP}/{VERSION}/directupdates/{}", update.name());
        // An update that is over refuses what is asked of it; that is its right.
        let _refused = site.kube("user").merge(&path, change);
    }
}

/// A person edits what is under way, where it has to stay as it is. The definitions refuse it.
fn edit(site: &Site, server: &Server) {
    let user = site.kube("user");
    let path = |plural: &str, name: &str| format!("/apis/{GROUP}/{VERSION}/{plural}/{name}");
    for update in server.list(GROUP, "directupdates") {
        // Before there is a run the spec is theirs to edit.
        if update.value()["status"]["run"].is_string() {
            let at = path("directupdates", update.name());
            let _refused = user.merge(&at, &json!({"spec": {"targetVersion": EDITED_VERSION}}));
            let _refused = user.merge(&format!("{at}/status"), &json!({"status": {"run": "edited"}}));
        }
    }
    for run in server.list(GROUP, "upgraderuns") {
        let _refused = user.merge(&path("upgraderuns", run.name()), &json!({"spec": {"plan": {"name": "edited"}}}));
    }
    for plan in server.list(GROUP, "upgradeplans") {
        let _refused = user.merge(&path("upgradeplans", plan.name()), &json!({"spec": {"plan": {"parts": []}}}));
    }
}

/// Somebody makes a run under the name of each child that a run is about to make. It says that it is a child of a run of that name,
/// of an earlier one, and that it is over: as what another cluster's backup brings back.
fn take_names(server: &Server) {
    for run in server.list(GROUP, "upgraderuns") {
        let plans = server.list(GROUP, "upgradeplans");
        let of_run = |plan: &&Arc<Object>| plan.name() == run.value()["spec"]["plan"]["name"];
        let Some(plan) = plans.iter().find(of_run) else { continue };
        let parts = plan.value()["spec"]["plan"]["parts"].as_array().cloned().unwrap_or_default();
        for child in parts.iter().map(|part| &part["vertex"]).filter(|vertex| vertex["kind"] == "child-run/v1") {
            let name = child["params"]["run"].as_str().unwrap_or_default();
            if server.get(GROUP, "upgraderuns", "", name).is_none() {
                let mut theirs = run.value().clone();
                theirs["metadata"] = json!({
                    "name": name, "uid": format!("{name}-of-theirs"), "generation": 1,
                    "creationTimestamp": run.value()["metadata"]["creationTimestamp"],
                });
                theirs["spec"]["parent"] = json!({"run": run.name(), "uid": "an-earlier-run", "vertex": child["name"]});
                theirs["spec"]["directUpdate"] = json!({"name": "theirs", "uid": "another-update"});
                theirs["status"]["phase"] = json!("Succeeded");
                theirs["status"]["reason"] = json!("Theirs");
                server.restore(GROUP, "upgraderuns", theirs);
            }
        }
    }
}

/// A person deletes a Node; the garbage collector of pods and the kubelet do what they do then.
pub(super) fn delete_node(site: &Site, server: &Server, name: &str) {
    let Some(node) = server.get("", "nodes", "", name) else { return };
    let _gone = site.kube("user").delete_now(&format!("/api/v1/nodes/{name}"), node.uid());
    for pod in server.list("", "pods").iter().filter(|pod| pod.value()["spec"]["nodeName"] == name) {
        let path = format!("/api/v1/namespaces/{}/pods/{}", pod.namespace(), pod.name());
        let _gone = site.kube("kube-controller-manager").delete_now(&path, pod.uid());
    }
}

/// Somebody writes an order as a leader would who slept through its own end: another attempt over what it read then, the same
/// over what stands now, and, as a leader of another release, the same order with other content.
fn order_as_an_old_leader(site: &Site, server: &Server, node: &str) {
    let path = format!("/apis/{GROUP}/{VERSION}/nodetasks/{node}");
    let write = |change: &dyn Fn(&mut Value)| {
        let Some(task) = server.get(GROUP, "nodetasks", "", node) else { return };
        let mut task = task.value().clone();
        if task["spec"]["epoch"].as_u64().is_some_and(|epoch| epoch > 0) && task["spec"]["order"].is_object() {
            change(&mut task["spec"]);
            let _refused = site.kube("operator/old").replace(&path, &task);
        }
    };
    let older = |epoch: &Value| json!(epoch.as_u64().unwrap_or(1).saturating_sub(1));
    let another_attempt = |spec: &mut Value| {
        let attempt = spec["order"]["key"]["attempt"].as_u64().unwrap_or_default();
        spec["order"]["key"]["attempt"] = json!(attempt + 1);
        spec["order"]["epoch"] = older(&spec["epoch"]);
        spec["order"]["proceed"] = json!(false);
        spec["order"]["stop"] = json!(false);
    };
    write(&|spec| {
        another_attempt(spec);
        spec["epoch"] = older(&spec["epoch"]);
    });
    write(&another_attempt);
    write(&|spec| {
        let seconds = spec["order"]["deadlineSeconds"].as_u64().unwrap_or_default();
        spec["order"]["deadlineSeconds"] = json!(seconds + 1);
    });
    write(&|spec| spec["nodeUid"] = json!("another"));
    if let Some(task) = server.get(GROUP, "nodetasks", "", node) {
        let mut task = task.value().clone();
        task["status"] = json!({});
        let _refused = site.kube("user").replace(&format!("{path}/status"), &task);
    }
}
