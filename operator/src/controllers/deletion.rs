//! A DirectUpdate that is deleted while it runs: its runs are cancelled and cleaned up before it goes.
//!
//! The finalizer is put on before the update owns the cluster, and taken off when none of its runs can act any more. An operator
//! that is not there, or a run that cannot end, keeps the object for [`DELETION_SECONDS_MAX`] at most; who cannot wait takes the
//! finalizer off by hand (docs/architecture.md, "When an update is cancelled or deleted").
//!
//! RBAC: patch on directupdates; list on upgraderuns.

use crate::Operator;
use crate::adapters::views::timestamp;
use crate::guarded::Guarded;
use cupcake_crds::values::Phase;
use cupcake_crds::{DirectUpdate, UpgradeRun};
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;

/// Keeps a DirectUpdate until its runs have ended.
pub const FINALIZER: &str = "cupcake.ricardomolendijk.com/runs";
/// How long a deleted update waits for its runs, in seconds: four times what one node may take by default. A run that cannot end
/// in it (its state is damaged, its machine is gone) does not keep the object for ever.
pub const DELETION_SECONDS_MAX: i64 = 7_200;

/// Whether the update is kept until its runs have ended.
pub fn is_held(update: &DirectUpdate) -> bool {
    update.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// Puts the finalizer on, under the version that was read; the watch brings the update back with it.
pub async fn hold(operator: &Operator, update: &DirectUpdate) -> Result<(), kube::Error> {
    let mut finalizers = update.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    set_finalizers(operator, update, &finalizers).await
}

/// Whether the deleted update may go now; takes the finalizer off if so.
pub async fn let_go(operator: &Operator, update: &DirectUpdate) -> Result<bool, kube::Error> {
    if !is_held(update) {
        return Ok(true);
    }
    let uid = update.uid().unwrap_or_default();
    let runs: Api<Guarded<UpgradeRun>> = Api::all(operator.client.clone());
    let all = runs.list(&ListParams::default()).await?.items.into_iter().filter_map(|run| run.0.ok());
    let open: Vec<String> = all
        .filter(|run| run.spec.direct_update.uid == uid)
        .filter(|run| !run.status.as_ref().and_then(|status| status.phase).is_some_and(Phase::is_final))
        .map(|run| run.name_any())
        .collect();
    let deleted = update.metadata.deletion_timestamp.as_ref().and_then(timestamp);
    let waited = deleted.map_or(0, |deleted| (operator.clock.now() - deleted).num_seconds());
    if !open.is_empty() {
        if waited < DELETION_SECONDS_MAX {
            return Ok(false);
        }
        let (name, open) = (update.name_any(), open.join(", "));
        tracing::warn!(directupdate = name, open, "deleted with runs that did not end; their nodes are given back");
    }
    let rest: Vec<String> = update.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).cloned().collect();
    set_finalizers(operator, update, &rest).await?;
    Ok(true)
}

async fn set_finalizers(operator: &Operator, update: &DirectUpdate, all: &[String]) -> Result<(), kube::Error> {
    let patch = json!({"metadata": {"resourceVersion": update.resource_version(), "finalizers": all}});
    let api: Api<DirectUpdate> = Api::all(operator.client.clone());
    api.patch(&update.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}
