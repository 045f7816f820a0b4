//! What the machines are, asked of them anew: before an update starts, and where what is known of them stands in its way.
//!
//! A machine is asked by `spec.inventoryRequest` of its NodeTask, and its answer carries the name of the request:
//!
//! ```text
//!   look-5966666 ─► agent, runner ─► status.inventory.request: look-5966666
//!        └ the operator's own time, in steps of five minutes
//! ```
//! How old an answer is follows from that name, so that no clock but the operator's counts: one of a machine may be hours off. Within five
//! minutes the name is the same, whoever asks, so that asking again changes nothing.
//!
//! RBAC: patch on nodetasks.

use crate::adapters::views::node_view;
use crate::watches::Watches;
use crate::{Operator, error_chain};
use cupcake_crds::NodeTask;
use cupcake_crds::values::{ClusterSnapshot, NodeSnapshot};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::names::Reason;
use cupcake_steps::cluster::named;
use cupcake_workflows::{INVENTORY_SECONDS_MAX, Refusal};
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// For how long one request stands, in seconds.
const REQUEST_SECONDS: i64 = 300;
/// How far ahead of this replica's clock another one may have asked, in steps of [`REQUEST_SECONDS`].
const AHEAD_MAX: i64 = 1;
/// How many machines are asked at a time; the others with the next look.
const ASKED_MAX: usize = 250;
/// How many machines that stand in the way of a refused update are asked at a time.
const IN_THE_WAY_MAX: usize = 16;
/// For how long a list of awaited machines stands before all is looked at anew, in seconds: what is to change may be others by now.
const STANDS_SECONDS: i64 = 60;

/// What a machine is asked at that time.
pub fn request(now: Timestamp) -> String {
    format!("look-{}", step(now))
}

fn step(now: Timestamp) -> i64 {
    now.timestamp().div_euclid(REQUEST_SECONDS)
}

/// What a machine was asked last, and what it answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    asked: Option<String>,
    answered: Option<String>,
    /// Whether it told of another kubelet than its Node: before an upgrade, or in the middle of one.
    other_kubelet: bool,
}

impl Told {
    fn of(node: &NodeSnapshot) -> Self {
        let inventory = node.inventory.as_ref();
        let other = inventory.and_then(|inventory| inventory.kubelet.as_ref());
        Self {
            asked: None,
            answered: inventory.and_then(|inventory| inventory.request.clone()),
            other_kubelet: other.is_some_and(|kubelet| *kubelet != node.kubelet.to_string()),
        }
    }

    /// Whether too little is known of the machine to change it.
    fn is_late(&self, now: Timestamp) -> bool {
        let answered = self.answered.as_deref().and_then(|name| name.strip_prefix("look-")?.parse::<i64>().ok());
        let Some(asked) = answered.filter(|asked| *asked <= step(now) + AHEAD_MAX) else { return true };
        let seconds = now.timestamp() - asked * REQUEST_SECONDS;
        seconds > if self.other_kubelet { REQUEST_SECONDS } else { INVENTORY_SECONDS_MAX }
    }
}

/// What every machine told, as the watches show it.
pub fn told(watches: &Watches) -> BTreeMap<String, Told> {
    let told = |(name, task): (&String, &NodeTask)| {
        let inventory = task.status.as_ref().and_then(|status| status.inventory.as_ref());
        let kubelet = watches.nodes.get(name).and_then(|node| node_view(node).kubelet);
        let other = inventory.and_then(|inventory| inventory.kubelet.as_ref()).zip(kubelet);
        let told = Told {
            asked: task.spec.inventory_request.clone(),
            answered: inventory.and_then(|inventory| inventory.request.clone()),
            other_kubelet: other.is_some_and(|(told, kubelet)| *told != kubelet.to_string()),
        };
        (name.clone(), told)
    };
    watches.tasks.iter().map(told).collect()
}

/// The machines that an update waits for, so that not everything is read anew whenever one of them answers. A replica that has just
/// begun to lead knows of none, and looks.
#[derive(Debug, Default)]
pub struct Awaited(Mutex<ByUpdate>);

/// The generation of an update, since when its list stands, and the machines that it waits for, by the update's UID.
type ByUpdate = BTreeMap<String, (Option<i64>, Timestamp, Vec<String>)>;

impl Awaited {
    /// Those that the update of that generation still waits for.
    pub fn still(
        &self,
        update: &str,
        generation: Option<i64>,
        told: &BTreeMap<String, Told>,
        now: Timestamp,
    ) -> Vec<String> {
        let mut lock = self.lock();
        let stands =
            |of: &Option<i64>, since: Timestamp| *of == generation && (now - since).num_seconds() < STANDS_SECONDS;
        let Some((_, _, names)) = lock.get(update).filter(|(of, since, _)| stands(of, *since)) else {
            return Vec::new();
        };
        let still: Vec<String> =
            names.iter().filter(|name| told.get(*name).is_some_and(|told| told.is_late(now))).cloned().collect();
        if still.is_empty() {
            lock.remove(update);
        }
        still
    }

    /// From now on the update waits for these.
    pub fn set(&self, update: &str, generation: Option<i64>, names: Vec<String>, now: Timestamp) {
        let mut lock = self.lock();
        // What nobody asked for any more goes with the next one.
        lock.retain(|_, (_, since, _)| (now - *since).num_seconds() < STANDS_SECONDS);
        lock.insert(update.to_owned(), (generation, now, names));
    }

    /// It waits for nobody any more.
    pub fn forget(&self, update: &str) {
        self.lock().remove(update);
    }

    fn lock(&self) -> MutexGuard<'_, ByUpdate> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those of the nodes of which too little is known to change them: what their agents last told is from another day, or they never
/// told anything.
pub fn late(nodes: &BTreeMap<String, NodeSnapshot>, changing: &[String], now: Timestamp) -> Vec<String> {
    let is_late = |name: &&String| nodes.get(*name).is_some_and(|node| Told::of(node).is_late(now));
    changing.iter().filter(is_late).cloned().collect()
}

/// Why an update is not started yet whose machines are asked.
pub fn reason(late: &[String], update: &str) -> Reason {
    let names = named(&late.iter().map(String::as_str).collect::<Vec<_>>());
    Reason::new(
        "AgentAbsent",
        format!(
            "asks each machine what it is before anything is started, and waits for: {names}; if it stays so, see the agent's pod there, or leave a worker out: kubectl cupcake skip {update} NODE"
        ),
    )
}

/// Asks machines before an update starts, as far as they were not asked the same already.
pub async fn ask(operator: &Operator, late: &[String], told: &BTreeMap<String, Told>) {
    let request = request(operator.clock.now());
    let unasked = late.iter().filter(|name| told.get(*name).and_then(|told| told.asked.as_ref()) != Some(&request));
    send(operator, unasked.take(ASKED_MAX).map(String::as_str), &request).await;
}

/// Asks the machines that stand in the way by what they were last seen to be to look again: they may have been mended since.
pub async fn ask_in_the_way(
    operator: &Operator,
    snapshot: &ClusterSnapshot,
    refusal: &Refusal,
    told: &BTreeMap<String, Told>,
) {
    let request = request(operator.clock.now());
    let in_question: BTreeSet<&String> =
        refusal.findings.iter().flat_map(cupcake_workflows::Finding::in_question).collect();
    let answered = |name: &str| snapshot.nodes.get(name)?.inventory.as_ref()?.request.clone();
    let is_asked = |name: &str| told.get(name).and_then(|told| told.asked.as_ref()) == Some(&request);
    let late = in_question.into_iter().filter(|node| !is_asked(node) && answered(node).as_ref() != Some(&request));
    send(operator, late.take(IN_THE_WAY_MAX).map(String::as_str), &request).await;
}

async fn send(operator: &Operator, nodes: impl Iterator<Item = &str>, request: &str) {
    let tasks: Api<NodeTask> = Api::all(operator.client.clone());
    let patch = json!({"spec": {"inventoryRequest": request}});
    for node in nodes {
        if let Err(error) = tasks.patch(node, &PatchParams::default(), &Patch::Merge(&patch)).await {
            tracing::warn!(node, error = error_chain(&error), "no new inventory was asked for");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        // The beginning of a step.
        Timestamp::from_timestamp(1_790_000_100 + seconds, 0).unwrap()
    }

    fn told(answered: Option<String>, other_kubelet: bool) -> Told {
        Told { asked: None, answered, other_kubelet }
    }

    #[test]
    fn a_machine_is_asked_that_never_told_what_it_is_or_was_asked_too_long_ago_or_before_its_last_upgrade() {
        let now = at(0);
        for (what, told, late) in [
            ("asked now", told(Some(request(now)), false), false),
            ("asked a quarter of an hour ago", told(Some(request(at(-INVENTORY_SECONDS_MAX))), false), false),
            ("asked before that", told(Some(request(at(-INVENTORY_SECONDS_MAX - 1))), false), true),
            ("of before the upgrade", told(Some(request(at(-REQUEST_SECONDS - 1))), true), true),
            ("of a package that was not started", told(Some(request(now)), true), false),
            ("by a replica whose clock was an hour ahead", told(Some(request(at(3_600))), false), true),
            ("by an older release", told(Some("created".to_owned()), false), true),
            ("never", told(None, false), true),
        ] {
            assert_eq!(told.is_late(now), late, "{what}");
        }
    }

    #[test]
    fn an_update_waits_for_those_it_asked_until_each_has_answered_or_is_gone_and_looks_anew_when_it_changes() {
        let awaited = Awaited::default();
        let names = || vec!["cp-1".to_owned(), "w-1".to_owned(), "gone".to_owned()];
        let machines = |cp: bool, w: bool| {
            let of = |answered: bool| told(answered.then(|| request(at(0))), false);
            BTreeMap::from([("cp-1".to_owned(), of(cp)), ("w-1".to_owned(), of(w))])
        };
        assert_eq!(
            awaited.still("up", Some(1), &machines(false, false), at(0)),
            Vec::<String>::new(),
            "nobody was asked"
        );
        awaited.set("up", Some(1), names(), at(0));
        assert_eq!(awaited.still("up", Some(1), &machines(false, false), at(5)), ["cp-1", "w-1"]);
        assert_eq!(awaited.still("up", Some(1), &machines(true, false), at(5)), ["w-1"]);
        assert_eq!(
            awaited.still("up", Some(2), &machines(true, false), at(5)),
            Vec::<String>::new(),
            "a worker was left out"
        );
        assert_eq!(
            awaited.still("up", Some(1), &machines(true, false), at(STANDS_SECONDS)),
            Vec::<String>::new(),
            "who is to change may be others by now"
        );
        assert_eq!(awaited.still("up", Some(1), &machines(true, true), at(5)), Vec::<String>::new());
        assert_eq!(
            awaited.still("up", Some(1), &machines(false, false), at(5)),
            Vec::<String>::new(),
            "it is forgotten"
        );
    }
}
