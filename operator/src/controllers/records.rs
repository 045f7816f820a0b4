//! What the records of an update's runs tell of each node and of the snapshots: from plan and cursor, as the engine has them.
//!
//! RBAC: what `adapters::kube_store` needs.

use super::update::View;
use crate::Operator;
use crate::adapters::kube_store::Recorded;
use crate::run_status::STEP_RUNNING;
use cupcake_crds::UpgradeRun;
use cupcake_crds::direct_update::BackupInfo;
use cupcake_crds::upgrade_run::ChildRun;
use cupcake_crds::values::Phase;
use cupcake_engine::clock::Timestamp;
use cupcake_engine::cursor::{Cursor, VertexState};
use cupcake_engine::dag::{Dag, Vertex};
use cupcake_steps::cluster::params::{GatesMet, Verified};
use cupcake_steps::host::params::SNAPSHOT_TAKEN;
use cupcake_workflows::METRIC_GATES;
use cupcake_workflows::render::{self, Glyphs};
use kube::ResourceExt;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Name and field of the output of a snapshot of etcd that tell its size.
const BACKUP_BYTES: &str = "etcd-snapshot.bytes";
/// And where it lies.
const BACKUP_PATH: &str = "etcd-snapshot.path";
/// The kind of a step that looks whether a hop can begin.
const PREFLIGHT: &str = "preflight/v1";

/// A run of an update, with its record.
pub struct Record<'v> {
    run: &'v UpgradeRun,
    recorded: Recorded,
}

/// The records of the root, first, and of the runs below it that are not over; those that cannot be read now are left out.
pub async fn of_update<'v>(operator: &Operator, view: &'v View, root: &'v UpgradeRun) -> Vec<Record<'v>> {
    let is_open = |run: &&UpgradeRun| !run.status.as_ref().and_then(|status| status.phase).is_some_and(Phase::is_final);
    let below = view.runs.iter().filter(|run| run.spec.parent.is_some()).filter(is_open);
    let mut records = Vec::new();
    for run in std::iter::once(root).chain(below) {
        records.extend(operator.store.recorded(run).await.map(|recorded| Record { run, recorded }));
    }
    records
}

impl Record<'_> {
    /// Whether it is that of this run.
    pub fn is_of(&self, run: &UpgradeRun) -> bool {
        self.run.metadata.name == run.metadata.name
    }

    /// The run as a tree with the runs below it, and its message.
    pub fn rendered(&self, children: &[ChildRun], now: Timestamp) -> (Vec<String>, String) {
        let name = self.run.name_any();
        let Recorded { dag, cursor } = &self.recorded;
        let view = render::View { dag, cursor, now, children };
        let names = render::Names { direct_update: &self.run.spec.direct_update.name, run: &name };
        (render::status_lines(&view, Glyphs::Unicode), render::message(&view, &names))
    }

    /// The gates of a user that were measured: where they stand, whether they are open, and their last values.
    pub fn gates(&self) -> Vec<(String, bool, String)> {
        let Recorded { dag, cursor } = &self.recorded;
        let gates = dag.vertices().iter().filter(|vertex| vertex.kind.as_str() == METRIC_GATES);
        let measured = gates.filter_map(|vertex| {
            let note = || cursor.note(&vertex.name).map(|note| note.message.clone());
            let (open, values) = match cursor.state(&vertex.name)? {
                VertexState::Succeeded { .. } => {
                    (true, GatesMet::deserialize(cursor.output(&vertex.name)?).ok()?.values)
                }
                VertexState::Waiting { .. } | VertexState::BackingOff { .. } | VertexState::Failed { .. } => {
                    (false, note()?)
                }
                VertexState::Pending { .. } | VertexState::Started { .. } | VertexState::Skipped { .. } => return None,
            };
            // The root says the hop in the names of its steps.
            let place = match (&self.run.spec.parent, self.run.spec.hop) {
                (Some(_), Some(hop)) => format!("{hop}/{}", vertex.name),
                _ => vertex.name.to_string(),
            };
            Some((place, open, values))
        });
        measured.collect()
    }

    /// The code of what a run below the root waits for in the sight of people, if it does.
    pub fn waits(&self) -> Option<&str> {
        let status = self.run.status.as_ref()?;
        let code = status.reason.as_deref().filter(|code| *code != STEP_RUNNING);
        code.filter(|_| self.run.spec.parent.is_some() && status.phase == Some(Phase::InProgress))
    }
}

/// What is done on each node that a run is at, or what its step waits for there: what needs a look most.
pub fn messages(records: &[Record<'_>]) -> BTreeMap<String, String> {
    let all = records.iter().map(|record| (&*record.recorded.dag, &record.recorded.cursor));
    let mut most: BTreeMap<String, (u8, String)> = BTreeMap::new();
    for (dag, cursor) in all {
        for vertex in dag.vertices() {
            let (Some(node), Some((rank, message))) = (node_of(vertex), message_of(vertex, cursor)) else { continue };
            let before = most.get(node).map(|(rank, _)| *rank);
            if before.is_none_or(|before| rank > before) {
                most.insert(node.to_owned(), (rank, message));
            }
        }
    }
    most.into_iter().map(|(node, (_, message))| (node, message)).collect()
}

/// How much a vertex needs a look, and what it says. What has failed comes last: it is told only where nothing is under way any more.
fn message_of(vertex: &Vertex, cursor: &Cursor) -> Option<(u8, String)> {
    let step = vertex.name.as_str().rsplit('/').next().unwrap_or_default();
    let note = cursor.note(&vertex.name).map(|note| format!(": {}", note.message)).unwrap_or_default();
    let (rank, does) = match cursor.state(&vertex.name)? {
        VertexState::Pending { .. } | VertexState::Succeeded { .. } | VertexState::Skipped { .. } => return None,
        VertexState::Failed { .. } => (0, "failed"),
        VertexState::Started { .. } => return Some((1, format!("{step} is under way"))),
        VertexState::BackingOff { .. } => (2, "is tried again"),
        VertexState::Waiting { .. } => (3, "waits"),
    };
    let line = format!("{step} {does}{note}");
    Some((rank, line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()))
}

/// The node that a vertex is about, if it is about one.
pub fn node_of(vertex: &Vertex) -> Option<&str> {
    vertex.params.get("node")?.get("name")?.as_str()
}

/// A snapshot of etcd that a run took.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backup {
    /// When it was finished.
    pub taken: Timestamp,
    /// Its size.
    pub bytes: u64,
    /// The node and the path there.
    pub place: Option<String>,
}

/// The last one of a run.
pub fn last_backup(dag: &Dag, cursor: &Cursor) -> Option<Backup> {
    let backup_of = |vertex: &Vertex| {
        let output = cursor.output(&vertex.name)?;
        let text = |name| output.get(name).and_then(serde_json::Value::as_str);
        let taken = chrono::DateTime::parse_from_rfc3339(text(SNAPSHOT_TAKEN)?).ok()?.to_utc();
        let bytes = text(BACKUP_BYTES).and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
        let place = node_of(vertex).zip(text(BACKUP_PATH)).map(|(node, path)| format!("{node}:{path}"));
        Some(Backup { taken, bytes, place })
    };
    dag.vertices().iter().filter_map(backup_of).max()
}

/// The last snapshot that an update can go back to, as its status names it.
pub fn backup_info(records: &[Record<'_>]) -> Option<BackupInfo> {
    let last = records.iter().filter_map(|record| last_backup(&record.recorded.dag, &record.recorded.cursor)).max()?;
    Some(BackupInfo { etcd_snapshot: last.place, timestamp: Some(last.taken) })
}

/// Workers that came after those of the last hop were planned and stayed as they are, for the end of what is told; `None` if there are none.
pub fn joined(records: &[Record<'_>]) -> Option<String> {
    let of = |Record { recorded: Recorded { dag, cursor }, .. }: &Record<'_>| {
        dag.vertices().iter().filter_map(|vertex| joined_by(cursor.output(&vertex.name)?)).next_back()
    };
    records.iter().find_map(of)
}

/// The same of what one vertex left.
pub fn joined_by(output: &Value) -> Option<String> {
    let joined = Verified::deserialize(output).ok()?.joined?;
    Some(format!("without {joined}, new since the workers were planned: apply another DirectUpdate for what is new"))
}

/// Whether a step that looks whether a hop can begin has found nothing that stands in the way.
pub fn preflight_passed(records: &[Record<'_>]) -> bool {
    records.iter().any(|Record { recorded: Recorded { dag, cursor }, .. }| {
        let looks = dag.vertices().iter().filter(|vertex| vertex.kind.as_str() == PREFLIGHT);
        let mut states = looks.filter_map(|vertex| cursor.state(&vertex.name));
        states.any(|state| matches!(state, VertexState::Succeeded { .. }))
    })
}
