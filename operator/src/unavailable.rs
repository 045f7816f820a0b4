//! Nodes that became unavailable while an update is under way: which of them take slots of a run. Pure.

use crate::adapters::views::{node_view, timestamp};
use crate::watches::Watches;
use cupcake_crds::UpgradeRun;
use cupcake_crds::direct_update::NodePhase;
use cupcake_crds::values::{NodeRole, Strategy};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::names::RunName;
use std::collections::{BTreeMap, BTreeSet};

/// Nodes that are not Ready, and since when.
pub(crate) type Unready = BTreeMap<String, Option<Timestamp>>;

/// The lanes of nodes that became unavailable since the upgrade began (since the creation of the run's root): the run takes those that
/// are its own.
pub(crate) fn lanes(watches: &Watches, unready: &Unready, run: &RunName) -> BTreeSet<String> {
    let run = watches.runs.get(run.as_str());
    let nodes = since_its_root(watches, unready, run);
    // In an update with several hops a node has a lane in each: the one of this hop is lost.
    let update = run.and_then(|run| watches.updates.get(&run.spec.direct_update.name));
    let path = update.and_then(|update| update.status.as_ref()?.upgrade_path.as_ref());
    let hop = path.and_then(|path| path.steps.get(usize::try_from(path.current_step).ok()?));
    let of_hop = hop.into_iter().flat_map(|hop| nodes.iter().map(move |node| cupcake_workflows::lane_of(hop, node)));
    let lanes: BTreeSet<String> = of_hop.collect();
    nodes.into_iter().chain(lanes).collect()
}

/// Of these nodes the workers that a batch before this one had in its hands: they are at the version of the hop, or failed on the way there.
/// With strategy parallel no batch is before another. A worker that was left out holds nobody up.
pub(crate) fn before(watches: &Watches, unready: &Unready, run: &RunName) -> BTreeSet<String> {
    let run = watches.runs.get(run.as_str());
    let update = run.and_then(|run| watches.updates.get(&run.spec.direct_update.name));
    let is_batch =
        |run: &&UpgradeRun| run.spec.parent.as_ref().is_some_and(|parent| parent.vertex.starts_with("batch-"));
    let (Some(run), Some(update)) = (run.filter(is_batch), update) else { return BTreeSet::new() };
    let spec = update.spec_now();
    if spec.strategy == Strategy::Parallel {
        return BTreeSet::new();
    }
    let status = update.status.as_ref();
    let had = |name: &String| {
        let Some(node) = watches.nodes.get(name).map(node_view) else { return false };
        let left_out = status.is_some_and(|status| status.left_out.iter().any(|one| one.node == *name));
        let failed =
            status.and_then(|status| status.nodes.get(name)).is_some_and(|node| node.phase == NodePhase::Failed);
        let moved = node.kubelet.is_some() && node.kubelet >= run.spec.hop;
        node.role == NodeRole::Worker && spec.moves(name, &node.labels) && !left_out && (moved || failed)
    };
    since_its_root(watches, unready, Some(run)).into_iter().filter(had).collect()
}

/// Nodes that became unready since the run's root was created.
fn since_its_root(watches: &Watches, unready: &Unready, run: Option<&UpgradeRun>) -> BTreeSet<String> {
    let root = run.and_then(|run| run.metadata.labels.as_ref()?.get(cupcake_crds::RUN_LABEL));
    let root = root
        .and_then(|uid| watches.runs.iter().map(|(_, run)| run).find(|run| run.metadata.uid.as_deref() == Some(uid)));
    let created = root.or(run).and_then(|run| run.metadata.creation_timestamp.as_ref());
    let Some(created) = created.and_then(timestamp) else { return BTreeSet::new() };
    let since = |since: &Option<Timestamp>| since.is_some_and(|since| since > created);
    unready.iter().filter(|(_, at)| since(at)).map(|(name, _)| name.clone()).collect()
}
