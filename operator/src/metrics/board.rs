//! What stands in the cluster now, as the leader's watches show it: counted when somebody scrapes, from facts that are kept as objects
//! change. A replica that does not lead shows nothing of it.

use super::words::Words;
use crate::adapters::views::node_view;
use crate::run_status::STEP_RUNNING;
use crate::watches::{Changed, Watches};
use cupcake_crds::conditions::{self, ConditionStatus};
use cupcake_crds::direct_update::{DirectUpdateStatus, Summary};
use cupcake_crds::values::Phase;
use cupcake_crds::{DirectUpdate, NodeTask, UpgradeRun};
use cupcake_engine::clock::Timestamp;
use cupcake_steps::ports::cluster::{CordonOwner, NodeView};
use k8s_openapi::api::core::v1::Node;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many operations have series of their own at once. One owns the cluster; others may rest.
const OPERATIONS_MAX: usize = 16;
/// How many versions of kubelets are told apart.
const VERSIONS_MAX: usize = 32;

/// What is known of the cluster. Cheap to clone; all clones show the same.
#[derive(Debug, Clone)]
pub struct Board {
    facts: Arc<Mutex<Facts>>,
    codes: Arc<Words>,
    versions: Arc<Words>,
}

#[derive(Debug, Default)]
struct Facts {
    /// Whether every watch has shown what is there.
    complete: bool,
    updates: BTreeMap<String, UpdateFacts>,
    runs: BTreeMap<String, RunFacts>,
    nodes: BTreeMap<String, NodeFacts>,
    /// Nodes whose mailbox an agent has answered in.
    answered: BTreeMap<String, bool>,
    /// Snapshots by operation, of those that are under way.
    backups: BTreeMap<String, Backup>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct UpdateFacts {
    phase: Phase,
    waits: Option<String>,
    operation: Option<Operation>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Operation {
    id: String,
    target: String,
    summary: Summary,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct RunFacts {
    phase: Phase,
    waits: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct NodeFacts {
    role: &'static str,
    kubelet: String,
    cordoned_by_us: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Backup {
    taken: Timestamp,
    bytes: u64,
}

/// Labels of a series.
type Labels = Vec<(&'static str, String)>;

impl Board {
    /// An empty one, which takes its codes from those words.
    pub fn new(codes: Arc<Words>) -> Self {
        Self { facts: Arc::default(), codes, versions: Arc::new(Words::new(VERSIONS_MAX)) }
    }

    /// Takes what a watch showed.
    pub fn shows(&self, change: &Changed, watches: &Watches) {
        let mut facts = self.lock();
        match change {
            Changed::Update(name) => put(&mut facts.updates, name, watches.updates.get(name).map(update_facts)),
            Changed::Run(name) => put(&mut facts.runs, name, watches.runs.get(name).map(run_facts)),
            Changed::Node(name) => put(&mut facts.nodes, name, watches.nodes.get(name).map(node_facts)),
            Changed::Task(name) => put(&mut facts.answered, name, watches.tasks.get(name).map(has_answered)),
            Changed::Schedule(_) | Changed::Scheduled(_) | Changed::Failed { .. } => {}
        }
    }

    /// A snapshot of etcd that an operation has; its last one counts.
    pub fn backup(&self, operation_id: &str, taken: Timestamp, bytes: u64) {
        let mut facts = self.lock();
        let Facts { updates, backups, .. } = &mut *facts;
        let is_open = |id: &String| updates.values().any(|one| one.operation.as_ref().is_some_and(|own| own.id == *id));
        backups.retain(|id, _| id == operation_id || is_open(id));
        let new = Backup { taken, bytes };
        backups.entry(operation_id.to_owned()).and_modify(|backup| *backup = new.max(*backup)).or_insert(new);
    }

    /// How many runs are under way or rest.
    pub fn runs_under_way(&self) -> usize {
        let under_way = |run: &&RunFacts| matches!(run.phase, Phase::InProgress | Phase::RequiresAttention);
        self.lock().runs.values().filter(under_way).count()
    }

    /// From now on what is not known is not there.
    pub fn complete(&self) {
        self.lock().complete = true;
    }

    /// Forgets everything: from now on another replica knows better.
    pub fn clear(&self) {
        *self.lock() = Facts::default();
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        // What a writer that died left is whole: each change is one insertion or removal.
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn put<F>(all: &mut BTreeMap<String, F>, name: &str, facts: Option<F>) {
    match facts {
        Some(facts) => all.insert(name.to_owned(), facts),
        None => all.remove(name),
    };
}

/// A code that tells of a wait: a step that is at work and a run that has not begun are none.
fn wait_of(phase: Phase, code: Option<&str>) -> Option<String> {
    let tells = |code: &&str| !matches!(*code, STEP_RUNNING | "Pending" | "Planned");
    code.filter(|_| !phase.is_final()).filter(tells).map(str::to_owned)
}

fn update_facts(update: &DirectUpdate) -> UpdateFacts {
    let none = DirectUpdateStatus::default();
    let status = update.status.as_ref().unwrap_or(&none);
    let phase = status.phase.unwrap_or_default();
    let holds = |type_| {
        conditions::get(&status.conditions, type_).filter(|condition| condition.status == ConditionStatus::True)
    };
    let why = holds(conditions::STALLED).or_else(|| holds(conditions::RECONCILING));
    let waits = wait_of(phase, why.map(|condition| condition.reason.as_str()));
    let operation = status.operation_id.clone().filter(|_| status.run.is_some() && !phase.is_final());
    let target = update.spec.target().map(|target| target.to_string()).unwrap_or_default();
    let summary = status.summary.unwrap_or_default();
    UpdateFacts { phase, waits, operation: operation.map(|id| Operation { id, target, summary }) }
}

fn run_facts(run: &UpgradeRun) -> RunFacts {
    let status = run.status.as_ref();
    let phase = status.and_then(|status| status.phase).unwrap_or_default();
    RunFacts { phase, waits: wait_of(phase, status.and_then(|status| status.reason.as_deref())) }
}

fn node_facts(node: &Node) -> NodeFacts {
    let NodeView { role, kubelet, cordon, .. } = node_view(node);
    NodeFacts {
        role: role.as_str(),
        kubelet: kubelet.map_or_else(|| "unknown".to_owned(), |version| version.to_string()),
        cordoned_by_us: matches!(cordon, CordonOwner::Run { .. }),
    }
}

fn has_answered(task: &NodeTask) -> bool {
    task.status.as_ref().is_some_and(|status| status.inventory.is_some() || status.updated_at.is_some())
}

/// How many there are of each.
fn counted<K: Ord>(all: impl Iterator<Item = K>) -> BTreeMap<K, i64> {
    let mut counts = BTreeMap::new();
    for one in all {
        *counts.entry(one).or_insert(0) += 1;
    }
    counts
}

/// Every phase, so that a series that was there once goes to zero and not away.
const PHASES: [Phase; 6] =
    [Phase::Pending, Phase::InProgress, Phase::RequiresAttention, Phase::Succeeded, Phase::Failed, Phase::Cancelled];

fn by_phase(phases: impl Iterator<Item = Phase>) -> Vec<(Labels, i64)> {
    let counts = counted(phases.map(Phase::as_str));
    let of = |phase: Phase| (vec![("phase", phase.to_string())], counts.get(phase.as_str()).copied().unwrap_or(0));
    PHASES.into_iter().map(of).collect()
}

/// Writes one gauge with its series; nothing where there is none.
fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, series: Vec<(Labels, i64)>) -> std::fmt::Result {
    if series.is_empty() {
        return Ok(());
    }
    let mut encoder = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in series {
        let gauge = ConstGauge::new(value);
        if labels.is_empty() {
            gauge.encode(encoder)?;
            // Of one without labels there is one.
            return Ok(());
        }
        gauge.encode(encoder.encode_family(&labels)?)?;
    }
    Ok(())
}

/// A number as gauges have it.
fn number(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

impl Collector for Board {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let facts = self.lock();
        if !facts.complete {
            // Not the leader, or it has not looked around yet: no answer is no zero.
            return Ok(());
        }
        let to = &mut encoder;
        let waiting = |codes: BTreeMap<String, i64>| -> Vec<(Labels, i64)> {
            codes.into_iter().map(|(code, count)| (vec![("reason", code)], count)).collect()
        };
        let words = |code: &String| self.codes.take(code);
        gauge(to, "cupcake_updates", "DirectUpdates, by phase", by_phase(facts.updates.values().map(|one| one.phase)))?;
        gauge(to, "cupcake_runs", "UpgradeRuns, by phase", by_phase(facts.runs.values().map(|one| one.phase)))?;
        let updates = counted(facts.updates.values().filter_map(|one| one.waits.as_ref().map(words)));
        gauge(to, "cupcake_updates_waiting", "DirectUpdates that wait or rest, by reason", waiting(updates))?;
        let runs = counted(facts.runs.values().filter_map(|one| one.waits.as_ref().map(words)));
        gauge(to, "cupcake_runs_waiting", "UpgradeRuns that wait or rest, by reason", waiting(runs))?;
        operations(to, &facts)?;
        let kubelets = counted(facts.nodes.values().map(|node| (node.role, self.versions.take(&node.kubelet))));
        let kubelets = kubelets
            .into_iter()
            .map(|((role, kubelet), count)| (vec![("role", role.to_owned()), ("kubelet", kubelet)], count));
        gauge(to, "cupcake_nodes", "Nodes, by role and version of the kubelet", kubelets.collect())?;
        let cordoned = number(facts.nodes.values().filter(|node| node.cordoned_by_us).count());
        gauge(to, "cupcake_nodes_cordoned", "Nodes that a run has cordoned", vec![(Vec::new(), cordoned)])?;
        let silent = facts.nodes.keys().filter(|name| !facts.answered.get(*name).copied().unwrap_or(false));
        let silent = number(silent.count());
        gauge(to, "cupcake_nodes_unanswered", "Nodes whose agent never answered", vec![(Vec::new(), silent)])?;
        Ok(())
    }
}

fn operations(to: &mut DescriptorEncoder<'_>, facts: &Facts) -> std::fmt::Result {
    let open = || {
        let with_operation = facts.updates.iter().filter_map(|(name, one)| Some((name, one.operation.as_ref()?)));
        with_operation.take(OPERATIONS_MAX)
    };
    let id = |operation: &Operation| ("operation_id", operation.id.clone());
    let under_way = open().map(|(_, one)| (vec![id(one)], 1)).collect();
    gauge(to, "upgrade_in_progress", "1 while the operation is under way or rests", under_way)?;
    let named =
        open().map(|(name, one)| (vec![id(one), ("directupdate", name.clone()), ("target", one.target.clone())], 1));
    gauge(to, "cupcake_operation_info", "Name and target of the operation", named.collect())?;
    let backups = || open().filter_map(|(_, one)| Some((vec![id(one)], facts.backups.get(&one.id)?)));
    let help = "When the last snapshot of etcd of the operation was taken";
    let taken = backups().map(|(labels, backup)| (labels, backup.taken.timestamp()));
    gauge(to, "cupcake_backup_timestamp_seconds", help, taken.collect())?;
    let bytes = backups().map(|(labels, backup)| (labels, number(backup.bytes)));
    gauge(to, "cupcake_backup_bytes", "Size of that snapshot", bytes.collect())?;
    let nodes: Vec<(Labels, i64)> = open()
        .flat_map(|(_, one)| {
            let Summary { completed, failed, pending, total, upgrading } = one.summary;
            let counts = [
                ("completed", completed),
                ("failed", failed),
                ("pending", pending),
                ("total", total),
                ("upgrading", upgrading),
            ];
            counts.map(|(status, count)| (vec![id(one), ("status", status.to_owned())], i64::from(count)))
        })
        .collect();
    gauge(to, "upgrade_operation_nodes", "Nodes of the operation, by status", nodes.clone())?;
    // A gauge under a counter's name: promised so, and kept.
    gauge(to, "upgrade_operation_nodes_total", "As upgrade_operation_nodes, under its old name", nodes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use serde_json::{Value, json};

    fn update(status: &Value) -> UpdateFacts {
        let update: DirectUpdate = serde_json::from_value(json!({
            "apiVersion": "cupcake.ricardomolendijk.com/v1", "kind": "DirectUpdate", "metadata": {"name": "to-1-34"},
            "spec": {"targetVersion": "1.34.4"}, "status": status,
        }))
        .unwrap();
        update_facts(&update)
    }

    fn running(phase: &str) -> Value {
        json!({
            "phase": phase, "run": "to-1-34-6f0d7f0e", "operationID": "op-1",
            "summary": {"completed": 2, "failed": 0, "pending": 5, "total": 8, "upgrading": 1},
        })
    }

    fn run(phase: &str, reason: &str) -> RunFacts {
        let status = json!({"phase": phase, "reason": reason});
        RunFacts {
            phase: serde_json::from_value(status["phase"].clone()).unwrap(),
            waits: wait_of(serde_json::from_value(status["phase"].clone()).unwrap(), Some(reason)),
        }
    }

    /// Fills the board with one of everything.
    pub(crate) fn fill(board: &Board) {
        let mut facts = board.lock();
        facts.complete = true;
        put(&mut facts.updates, "to-1-34", Some(update(&running("InProgress"))));
        put(&mut facts.runs, "to-1-34-6f0d7f0e", Some(run("InProgress", "DrainBlocked")));
        let waits = conditions::Condition {
            last_transition_time: Timestamp::UNIX_EPOCH,
            message: "waits".to_owned(),
            observed_generation: Some(1),
            reason: "WaitingForCluster".to_owned(),
            status: ConditionStatus::True,
            type_: conditions::RECONCILING.to_owned(),
        };
        let pending = json!({"phase": "Pending", "conditions": [waits]});
        put(&mut facts.updates, "to-1-35", Some(update(&pending)));
        let node =
            |role, kubelet: &str, cordoned_by_us| Some(NodeFacts { role, kubelet: kubelet.to_owned(), cordoned_by_us });
        put(&mut facts.nodes, "cp-1", node("control-plane", "1.34.4", false));
        put(&mut facts.nodes, "w-1", node("worker", "1.34.4", false));
        put(&mut facts.nodes, "w-2", node("worker", "1.33.7", true));
        put(&mut facts.answered, "cp-1", Some(true));
        put(&mut facts.answered, "w-1", Some(true));
        put(&mut facts.answered, "w-2", Some(false));
        facts.backups.insert("op-1".to_owned(), Backup { taken: Timestamp::UNIX_EPOCH, bytes: 4096 });
    }

    #[test]
    fn what_stands_is_counted_and_an_operation_that_ended_has_no_series() {
        let metrics = Metrics::default();
        fill(&metrics.board);
        let text = metrics.text();
        for line in [
            "upgrade_in_progress{operation_id=\"op-1\"} 1",
            "upgrade_operation_nodes{operation_id=\"op-1\",status=\"completed\"} 2",
            "upgrade_operation_nodes_total{operation_id=\"op-1\",status=\"completed\"} 2",
            "cupcake_operation_info{operation_id=\"op-1\",directupdate=\"to-1-34\",target=\"1.34.4\"} 1",
            "cupcake_runs_waiting{reason=\"DrainBlocked\"} 1",
            "cupcake_updates_waiting{reason=\"WaitingForCluster\"} 1",
            "cupcake_updates{phase=\"Pending\"} 1",
            "cupcake_updates{phase=\"RequiresAttention\"} 0",
            "cupcake_nodes{role=\"worker\",kubelet=\"1.33.7\"} 1",
            "cupcake_nodes_cordoned 1",
            "cupcake_nodes_unanswered 1",
            "cupcake_backup_bytes{operation_id=\"op-1\"} 4096",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in\n{text}");
        }
        put(&mut metrics.board.lock().updates, "to-1-34", Some(update(&running("Succeeded"))));
        let text = metrics.text();
        assert!(!text.contains("op-1"), "{text}");
        assert!(text.contains("cupcake_updates{phase=\"Succeeded\"} 1"), "{text}");
    }

    #[test]
    fn who_does_not_lead_shows_nothing_of_the_cluster() {
        let metrics = Metrics::default();
        metrics.leads(true);
        let node = NodeFacts { role: "worker", kubelet: "1.33.7".to_owned(), cordoned_by_us: false };
        put(&mut metrics.board.lock().nodes, "w-1", Some(node));
        assert!(!metrics.text().contains("cupcake_nodes"), "who has not seen everything yet says nothing");
        fill(&metrics.board);
        assert!(metrics.text().contains("cupcake_nodes"));
        metrics.leads(false);
        let text = metrics.text();
        assert!(!text.contains("cupcake_nodes") && !text.contains("upgrade_in_progress"), "{text}");
    }

    #[test]
    fn a_step_at_work_is_no_wait_and_a_rest_is_one_until_it_is_over() {
        assert_eq!(wait_of(Phase::InProgress, Some(STEP_RUNNING)), None);
        assert_eq!(wait_of(Phase::InProgress, Some("AgentAbsent")).as_deref(), Some("AgentAbsent"));
        assert_eq!(wait_of(Phase::RequiresAttention, Some("NodeGone")).as_deref(), Some("NodeGone"));
        assert_eq!(wait_of(Phase::Failed, Some("NodeGone")), None);
    }
}
