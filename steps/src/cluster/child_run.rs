//! `child-run/v1`: a run of its own, started and watched by its parent.

use super::{again, look, params, run_subject};
use crate::ports::cluster::{ChildSource, Cluster, OpsError};
use async_trait::async_trait;
use cupcake_engine::cursor::RunPhase;
use cupcake_engine::names::Reason;
use cupcake_engine::step::{Bound, OnCancel, Probe, Step, StepContext, StepError, StepOutcome, Wait};

/// How soon a child is looked at again whose changes went unseen, in seconds.
const AGAIN_SECONDS: i64 = 60;

/// Makes the child run exist, and waits for its end.
pub struct ChildRun;

#[async_trait]
impl Step<Cluster> for ChildRun {
    const KIND: &'static str = "child-run/v1";
    type Params = params::ChildRun;
    type Output = ();
    const ON_CANCEL: OnCancel = OnCancel::Stop;
    // Its runs wait by rule, for days or weeks: at gates, for approvals, outside maintenance windows.
    const BOUND: Bound = Bound::WhatItWatches;

    async fn probe(&self, ctx: &StepContext<'_, Cluster>, params: &Self::Params) -> Result<Probe<()>, StepError> {
        let child = ctx.ports().cluster.child(ctx.run(), ctx.run_uid(), ctx.vertex(), &params.run);
        let Some(child) = look!(child) else {
            return Ok(Probe::Unsatisfied);
        };
        let named = |code: &str| Reason::new(code, format!("{}: {}", params.run, child.reason.message));
        match child.phase {
            RunPhase::Succeeded => Ok(Probe::Satisfied(())),
            RunPhase::Pending | RunPhase::InProgress => {
                let reason = Reason::new("ChildRunning", format!("{} is at {}", params.run, child.progress));
                let wait = Wait::quiet(again(ctx, AGAIN_SECONDS), reason);
                Ok(Probe::Wait(wait.on(run_subject(params.run.as_str()))))
            }
            RunPhase::RequiresAttention => Err(StepError::NeedsOperator(named(&child.reason.code))),
            // A batch comes to that end only with losses that the budget allows: the nodes after it are not to wait for a person.
            RunPhase::Failed => match params.source {
                ChildSource::Plan { .. } => Ok(Probe::Satisfied(())),
                ChildSource::Wave { .. } | ChildSource::Again { .. } => Err(StepError::Permanent(named("ChildFailed"))),
            },
            RunPhase::Cancelled => Err(StepError::Permanent(named("ChildCancelled"))),
        }
    }

    async fn apply(&self, ctx: &StepContext<'_, Cluster>, params: &Self::Params) -> Result<StepOutcome<()>, StepError> {
        let cluster = &ctx.ports().cluster;
        match cluster.open_child(ctx.run(), ctx.run_uid(), ctx.vertex(), &params.run, &params.source).await {
            Ok(()) => {
                let reason = Reason::new("ChildRunning", format!("{} was opened", params.run));
                let wait = Wait::quiet(again(ctx, AGAIN_SECONDS), reason);
                Ok(StepOutcome::Wait(wait.on(run_subject(params.run.as_str()))))
            }
            Err(error) => error.into_outcome(ctx.now()),
        }
    }
}
