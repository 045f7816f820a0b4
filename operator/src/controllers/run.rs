//! UpgradeRuns: each reconcile is one tick of the engine.

use crate::leader::{Next, Outcome};
use crate::{Operator, error_chain, events};
use cupcake_crds::UpgradeRun;
use cupcake_crds::upgrade_run::CommitId;
use cupcake_crds::values::Phase;
use cupcake_engine::decide::Observed;
use cupcake_engine::names::{Epoch, Reason, RunName};
use cupcake_engine::store::StoreError;
use cupcake_engine::tick::{TickEnd, TickError, TickReport};
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use std::collections::BTreeSet;

/// Ticks the run once.
pub async fn reconcile(
    operator: &Operator,
    epoch: Epoch,
    name: RunName,
    observed: Observed,
    changed: BTreeSet<String>,
) -> Outcome {
    let report = match operator.engine.tick(&name, epoch, &operator.ports, &observed, &changed).await {
        Ok(report) => report,
        Err(error) => return failed(operator, &name, &error).await,
    };
    operator.metrics.ticked(&report.events);
    events::publish(operator, &name, &report).await;
    outcome_of(&report)
}

fn outcome_of(report: &TickReport) -> Outcome {
    let next = match (report.end, report.wake_at) {
        (TickEnd::MoreToDo | TickEnd::Conflict, _) => Next::AtOnce,
        (TickEnd::Idle, Some(at)) => Next::At(at),
        (TickEnd::Idle, None) => Next::AwaitChange,
    };
    let commit = report.cursor.commit_id();
    Outcome { next, committed: Some(CommitId { epoch: commit.epoch.0, sequence: commit.sequence }) }
}

async fn failed(operator: &Operator, name: &RunName, error: &TickError) -> Outcome {
    let reason = match error {
        TickError::Store { source: StoreError::NotFound(_), .. } => return Outcome::of(Next::AwaitChange),
        TickError::Store { source: StoreError::Unavailable { .. } | StoreError::Conflict(_), .. } => {
            tracing::warn!(run = %name, error = error_chain(error), "run not moved; trying again");
            return Outcome::of(Next::Failed);
        }
        TickError::Store { source: StoreError::Fenced { .. }, .. } => {
            tracing::warn!(run = %name, error = error_chain(error), "another leader is at work");
            operator.metrics.fenced();
            return Outcome::of(Next::Failed);
        }
        TickError::Store { source: StoreError::Corrupt { .. }, .. } => Reason::new("RunCorrupt", error_chain(error)),
        TickError::Store { source: StoreError::TooLarge { .. }, .. } => Reason::new("RunTooLarge", error_chain(error)),
        TickError::Registry { .. } => Reason::new("UnknownStepKind", error_chain(error)),
    };
    tracing::error!(run = %name, code = reason.code, message = reason.message, "run needs a person");
    // Only what people read is written: the cursor stays as it is, so that nothing is lost.
    let api: Api<UpgradeRun> = Api::all(operator.client.clone());
    let patch = json!({"status": {
        "phase": Phase::RequiresAttention,
        "reason": reason.code,
        "message": reason.message.chars().take(480).collect::<String>(),
    }});
    if let Err(error) = api.patch_status(name.as_str(), &PatchParams::default(), &Patch::Merge(patch)).await {
        tracing::warn!(run = %name, error = error_chain(&error), "its status could not say so");
    }
    Outcome::of(Next::AwaitChange)
}
