//! UpgradeRuns: each reconcile is one tick of the engine; before the first one of a root, no other root may be open.
//!
//! RBAC: list on upgraderuns; patch on upgraderuns/status; and what `adapters::kube_store` needs.

use crate::adapters::kube_store::is_denied;
use crate::guarded::Guarded;
use crate::outcome::{Next, Outcome};
use crate::{Operator, error_chain};
use chrono::TimeDelta;
use cupcake_crds::UpgradeRun;
use cupcake_crds::upgrade_run::CommitId;
use cupcake_crds::values::Phase;
use cupcake_engine::decide::Observed;
use cupcake_engine::names::{Epoch, Reason, RunName};
use cupcake_engine::store::StoreError;
use cupcake_engine::tick::{TickEnd, TickError, TickReport};
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;
use std::collections::BTreeSet;

/// Why an update or its run waits while another one owns the cluster.
pub const WAITING_FOR_CLUSTER: &str = "WaitingForCluster";
/// How soon a run that waits for another one's end is looked at again, in seconds.
const AGAIN_SECONDS: i64 = 30;

/// Ticks the run once, if it owns the cluster or `begun` says that it does already.
pub async fn reconcile(
    operator: &Operator,
    epoch: Epoch,
    name: RunName,
    observed: Observed,
    changed: BTreeSet<String>,
    begun: Begun,
) -> Outcome {
    match begun {
        Begun::Yes => {}
        Begun::No => match owner_of_cluster(operator, &name).await {
            Ok(None) => {}
            Ok(Some(owner)) => return waits(operator, epoch, &name, &owner).await,
            Err(error) => {
                tracing::warn!(run = %name, error = error_chain(&error), "run not begun; trying again");
                return Outcome::unanswered(refusal(&error));
            }
        },
    }
    let report = match operator.engine.tick(&name, epoch, &operator.ports, &observed, &changed).await {
        Ok(report) => report,
        Err(error) => return failed(operator, epoch, &name, &error).await,
    };
    outcome_of(name, report)
}

/// Whether a run has recorded anything, or is a child, whose parent has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// It goes on.
    Yes,
    /// Its first tick is yet to come: only one root run owns the cluster.
    No,
}

impl Begun {
    /// As the watch shows it; one that it does not show yet is looked at.
    pub fn of(run: Option<&UpgradeRun>) -> Self {
        let begun = run.is_some_and(|run| {
            let commit = run.status.as_ref().and_then(|status| status.commit);
            run.spec.parent.is_some() || commit.is_some_and(|commit| commit.sequence > 0)
        });
        if begun { Self::Yes } else { Self::No }
    }
}

/// Another root run that goes before this one, which has not begun: one that has, or an older one.
///
/// The look at the updates before a run is created is not enough: a leader that was stopped between that look and the creation
/// creates its run when it wakes up.
async fn owner_of_cluster(operator: &Operator, name: &RunName) -> Result<Option<String>, kube::Error> {
    let api: Api<Guarded<UpgradeRun>> = Api::all(operator.client.clone());
    let runs = api.list(&ListParams::default()).await?.items.into_iter().filter_map(|run| run.0.ok());
    let (own, others): (Vec<_>, Vec<_>) = runs.partition(|run| run.name_any() == name.as_str());
    let age = |run: &UpgradeRun| (run.metadata.creation_timestamp.clone(), run.name_any());
    let Some(own) = own.first().filter(|run| run.spec.parent.is_none()) else {
        return Ok(None);
    };
    if Begun::of(Some(own)) == Begun::Yes {
        return Ok(None);
    }
    let open = |run: &&UpgradeRun| {
        run.spec.parent.is_none() && !run.status.as_ref().and_then(|status| status.phase).is_some_and(Phase::is_final)
    };
    let before = others.iter().filter(open).find(|run| Begun::of(Some(run)) == Begun::Yes || age(run) < age(own));
    Ok(before.map(|run| run.spec.direct_update.name.clone()))
}

/// Says for whom the run waits, and looks again in a while.
async fn waits(operator: &Operator, epoch: Epoch, name: &RunName, owner: &str) -> Outcome {
    let message = format!("waits for DirectUpdate {owner}: one update owns the cluster at a time");
    let status = json!({"phase": Phase::Pending, "reason": WAITING_FOR_CLUSTER, "message": message});
    say(operator, epoch, name, status).await;
    Outcome::of(Next::At(operator.clock.now() + TimeDelta::seconds(AGAIN_SECONDS)))
}

/// Writes what people read; the cursor stays as it is, so that nothing is lost. Under the leader's epoch: one that was stopped
/// just before does not write over what its successor's run shows.
async fn say(operator: &Operator, epoch: Epoch, name: &RunName, mut status: serde_json::Value) {
    status["epoch"] = json!(epoch.0);
    let patch = json!({"status": status});
    let api: Api<UpgradeRun> = Api::all(operator.client.clone());
    if let Err(error) = api.patch_status(name.as_str(), &PatchParams::default(), &Patch::Merge(&patch)).await {
        tracing::warn!(run = %name, error = error_chain(&error), "its status could not say so");
    }
}

fn outcome_of(name: RunName, report: TickReport) -> Outcome {
    let next = match (report.end, report.wake_at) {
        (TickEnd::MoreToDo | TickEnd::Conflict, _) => Next::AtOnce,
        (TickEnd::Idle, Some(at)) => Next::At(at),
        (TickEnd::Idle, None) => Next::AwaitChange,
    };
    let commit = report.cursor.commit_id();
    let committed = Some(CommitId { epoch: commit.epoch.0, sequence: commit.sequence });
    let answered = report.end != TickEnd::Conflict;
    let news = (!report.events.is_empty()).then_some((name, report));
    Outcome { next, committed, news, outdated_by: None, answered, refused: None }
}

async fn failed(operator: &Operator, epoch: Epoch, name: &RunName, error: &TickError) -> Outcome {
    let reason = match error {
        TickError::Store { source: StoreError::NotFound(_), .. } => return Outcome::of(Next::AwaitChange),
        TickError::Store { source: StoreError::Unavailable { .. } | StoreError::Conflict(_), .. } => {
            tracing::warn!(run = %name, error = error_chain(error), "run not moved; trying again");
            return Outcome::unanswered(refusal(error));
        }
        TickError::Store { source: StoreError::Fenced { current, .. }, .. } => {
            tracing::warn!(run = %name, error = error_chain(error), "another leader is at work");
            operator.metrics.fenced();
            return Outcome { outdated_by: Some(*current), ..Outcome::of(Next::Failed) };
        }
        TickError::Store { source: StoreError::Corrupt { .. }, .. } => Reason::new("RunCorrupt", error_chain(error)),
        TickError::Store { source: StoreError::TooLarge { .. }, .. } => Reason::new("RunTooLarge", error_chain(error)),
        TickError::Registry { .. } => Reason::new("UnknownStepKind", error_chain(error)),
    };
    tracing::error!(run = %name, code = reason.code, message = reason.message, "run needs a person");
    let mut status = json!({
        "reason": reason.code,
        "message": reason.message.chars().take(480).collect::<String>(),
    });
    match error {
        // Another release may know the kind: its parent must not take this for the run's own end.
        TickError::Registry { .. } => {}
        TickError::Store { .. } => status["phase"] = json!(Phase::RequiresAttention),
    }
    say(operator, epoch, name, status).await;
    Outcome::of(Next::AwaitChange)
}

/// What the API server says where it refuses, and not only now: no role allows it, a webhook or a policy denies it, or a webhook that
/// has to be asked gives no answer.
fn refusal(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut source = Some(error);
    while let Some(error) = source {
        if let Some(kube::Error::Api(status)) = error.downcast_ref() {
            let denied = matches!(status.code, 400 | 401 | 403 | 422) || is_denied(&status.message);
            let unasked = status.code == 500 && status.message.contains("failed calling webhook");
            return (denied || unasked).then(|| status.message.clone());
        }
        source = error.source();
    }
    None
}
