//! `child-run/v1`: a run of its own, started and watched by its parent.

use super::{again, look, params, run_subject};
use crate::ports::cluster::{ChildSource, Cluster, OpsError};
use async_trait::async_trait;
use cupcake_engine::clock::Timestamp;
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
            Err(error) => not_opened(ctx.now(), ctx.deadline(), error),
        }
    }
}

/// A run that cannot be opened, as long as it cannot: bounded by the vertex's own deadline, since nothing is there yet to be watched.
pub(super) fn not_opened(now: Timestamp, deadline: Timestamp, error: OpsError) -> Result<StepOutcome<()>, StepError> {
    match error {
        OpsError::Transient(reason) if now >= deadline => Err(StepError::NeedsOperator(reason)),
        error => error.into_outcome(now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    #[test]
    fn a_run_that_is_not_there_is_waited_for_until_the_deadline_and_then_a_person_is_asked() {
        let (now, second) = (Timestamp::UNIX_EPOCH, TimeDelta::seconds(1));
        let refused = || OpsError::Transient(Reason::new("WaveRefused", "w-3 cannot be read"));
        assert!(matches!(not_opened(now, now + second, refused()), Ok(StepOutcome::Wait(_))));
        let Err(StepError::NeedsOperator(reason)) = not_opened(now, now, refused()) else { panic!("it waits on") };
        assert_eq!(reason.code, "WaveRefused");
    }
}
