//! `stragglers/v1`: the workers that batches of a wave lost within `spec.maxFailures`, tried again once all batches are over.
//!
//! ```text
//!   batch-1 ─► … ─► batch-n ─► stragglers     nobody lost, or all of them left out: done
//!                                  │          lost and asked for (spec.control.retry): a run of those, <wave>-stragglers-1, -2, …
//!                                  └──────    lost and not asked for: a person decides about each
//! ```
//! One run after the other and never beside a batch: so no more workers are in flight than the update allows. A worker that fails in such
//! a run lets it rest, and is tried again there like any other.

use super::child_run::not_opened;
use super::{again, look, named, params, read, run_subject};
use crate::ports::cluster::{ChildSource, Cluster, OpsError, Straggler};
use async_trait::async_trait;
use cupcake_crds::values::NodeRole;
use cupcake_engine::cursor::RunPhase;
use cupcake_engine::names::{Reason, RunName};
use cupcake_engine::step::{Bound, OnCancel, Probe, Step, StepContext, StepError, StepOutcome, Wait};
use std::collections::{BTreeMap, BTreeSet};

/// How soon a run is looked at again whose changes went unseen, in seconds.
const AGAIN_SECONDS: i64 = 60;
/// How many runs one wave has of these. Each is one for which a person asked; where more come, something opens them by itself.
const RUNS_MAX: u32 = 100;
/// The code of a rest in which a person has to say what becomes of workers that failed.
pub const NODES_FAILED: &str = "NodesFailed";
/// The beginning of what such a rest says, before their names.
const FAILED: &str = "failed within spec.maxFailures: ";

/// Opens runs for the workers that somebody asks to try again, and waits for their ends.
pub struct Stragglers;

#[async_trait]
impl Step<Cluster> for Stragglers {
    const KIND: &'static str = "stragglers/v1";
    type Params = params::Stragglers;
    type Output = ();
    const ON_CANCEL: OnCancel = OnCancel::Stop;
    // Its runs wait by rule, for days or weeks: at gates, for approvals, outside maintenance windows.
    const BOUND: Bound = Bound::WhatItWatches;

    async fn probe(&self, ctx: &StepContext<'_, Cluster>, params: &Self::Params) -> Result<Probe<()>, StepError> {
        if let Some(run) = look!(last_run(ctx, params)) {
            let why = |code: &str| Reason::new(code, format!("{}: {}", run.name, run.view.reason.message));
            match run.view.phase {
                RunPhase::Succeeded => {}
                RunPhase::Pending | RunPhase::InProgress => {
                    let reason = Reason::new("ChildRunning", format!("{} is at {}", run.name, run.view.progress));
                    let wait = Wait::quiet(again(ctx, AGAIN_SECONDS), reason);
                    return Ok(Probe::Wait(wait.on(run_subject(run.name.as_str()))));
                }
                RunPhase::RequiresAttention => return Err(StepError::NeedsOperator(why(&run.view.reason.code))),
                // No such run has losses that it may go on without.
                RunPhase::Failed => return Err(StepError::Permanent(why("ChildFailed"))),
                RunPhase::Cancelled => return Err(StepError::Permanent(why("ChildCancelled"))),
            }
        }
        let lost = look!(lost(ctx));
        if lost.is_empty() {
            return Ok(Probe::Satisfied(()));
        }
        if lost.values().any(|straggler| straggler.asked) {
            return Ok(Probe::Unsatisfied);
        }
        Err(StepError::NeedsOperator(undecided(&lost)))
    }

    async fn apply(&self, ctx: &StepContext<'_, Cluster>, params: &Self::Params) -> Result<StepOutcome<()>, StepError> {
        let number = read!(ctx, last_run(ctx, params)).map_or(1, |run| run.number + 1);
        let lost = read!(ctx, lost(ctx));
        if number > RUNS_MAX && !lost.is_empty() {
            return Err(StepError::NeedsOperator(too_many(&lost)));
        }
        let asked = lost.into_iter().filter(|(_, straggler)| straggler.asked);
        let nodes: BTreeSet<String> = asked.map(|(node, _)| node).collect();
        if nodes.is_empty() {
            let reason = Reason::new("Changed", "nobody asks for them any more");
            return OpsError::Changed(reason).into_outcome(ctx.now());
        }
        let source = ChildSource::Again {
            target_version: params.target_version,
            containerd: params.containerd.clone(),
            kube_proxy: params.kube_proxy,
            nodes,
        };
        let run = name(params, number)?;
        match ctx.ports().cluster.open_child(ctx.run(), ctx.run_uid(), ctx.vertex(), &run, &source).await {
            Ok(()) => {
                let reason = Reason::new("ChildRunning", format!("{run} was opened"));
                let wait = Wait::quiet(again(ctx, AGAIN_SECONDS), reason);
                Ok(StepOutcome::Wait(wait.on(run_subject(run.as_str()))))
            }
            Err(error) => not_opened(ctx.now(), ctx.deadline(), error),
        }
    }
}

/// What a person has to decide.
fn undecided(lost: &BTreeMap<String, Straggler>) -> Reason {
    let names: Vec<&str> = lost.keys().map(String::as_str).collect();
    let run = lost.values().next().map(|straggler| straggler.run.as_str()).unwrap_or_default();
    let message = format!(
        "{FAILED}{}; mend each and retry, or leave it out (kubectl cupcake skip); see upgraderun {run}",
        named(&names)
    );
    Reason::new(NODES_FAILED, message)
}

/// The same where trying again is no way any more.
fn too_many(lost: &BTreeMap<String, Straggler>) -> Reason {
    let names: Vec<&str> = lost.keys().map(String::as_str).collect();
    let message = format!(
        "{FAILED}{}; {RUNS_MAX} runs tried such workers, which are the most: leave each out (kubectl cupcake skip), and name it in another update",
        named(&names)
    );
    Reason::new(NODES_FAILED, message)
}

/// The workers about which a person has to decide, by what this step says, as far as it names them.
pub fn workers_named(reason: &str) -> Vec<&str> {
    let told = reason.split_once(FAILED).map_or("", |(_, told)| told);
    let list = told.split(';').next().and_then(|list| list.split(" and ").next()).unwrap_or_default();
    list.split(", ").filter(|name| !name.is_empty() && !name.ends_with('…')).collect()
}

/// One of the runs that this step opened.
struct Opened {
    number: u32,
    name: RunName,
    view: crate::ports::cluster::ChildView,
}

/// The newest of them, if there is one.
async fn last_run(ctx: &StepContext<'_, Cluster>, params: &params::Stragglers) -> Result<Option<Opened>, OpsError> {
    let mut last = None;
    for number in 1..=RUNS_MAX {
        let name = name(params, number)?;
        let view = ctx.ports().cluster.child(ctx.run(), ctx.run_uid(), ctx.vertex(), &name).await?;
        let Some(view) = view else { break };
        last = Some(Opened { number, name, view });
    }
    Ok(last)
}

fn name(params: &params::Stragglers, number: u32) -> Result<RunName, OpsError> {
    RunName::new(format!("{}-{number}", params.runs))
        .map_err(|error| OpsError::NeedsOperator(Reason::new("NameTooLong", error.to_string())))
}

/// Workers that are lost and still there: not left out meanwhile, not another machine by now, and not of the control plane, which no
/// wave moves. One whose kubelet's version cannot be read stays lost: the run for it is refused until it can.
async fn lost(ctx: &StepContext<'_, Cluster>) -> Result<BTreeMap<String, Straggler>, OpsError> {
    let cluster = &ctx.ports().cluster;
    let mut lost = cluster.stragglers(ctx.run()).await?;
    if lost.is_empty() {
        return Ok(lost);
    }
    let left_out = cluster.left_out(ctx.run()).await?;
    let workers = cluster.nodes().await?.into_iter().filter(|node| node.role == NodeRole::Worker);
    let there: BTreeSet<_> = workers.map(|node| (node.node.name, node.node.uid)).collect();
    lost.retain(|node, straggler| !left_out.contains(node) && there.contains(&(node.clone(), straggler.uid.clone())));
    Ok(lost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::child_run::ChildRun;

    #[test]
    fn what_waits_for_runs_that_wait_by_rule_has_no_deadline_of_its_own() {
        assert_eq!(
            [<ChildRun as Step<Cluster>>::BOUND, <Stragglers as Step<Cluster>>::BOUND],
            [Bound::WhatItWatches; 2]
        );
    }

    #[test]
    fn workers_that_a_person_has_to_decide_about_are_named_and_read_back() {
        let straggler =
            || Straggler { run: RunName::new("to-1-34-workers-1").unwrap(), uid: "u".to_owned(), asked: false };
        let lost = |count: u32| (1..=count).map(|n| (format!("w-{n}"), straggler())).collect::<BTreeMap<_, _>>();
        let told = undecided(&lost(2));
        assert_eq!(told.code, NODES_FAILED);
        assert!(told.message.starts_with("failed within spec.maxFailures: w-1, w-2; mend each and retry"), "{told}");
        assert_eq!(workers_named(&told.message), ["w-1", "w-2"]);
        let many = format!("stragglers: {}", undecided(&lost(9)).message);
        assert_eq!(workers_named(&many), ["w-1", "w-2", "w-3", "w-4", "w-5"], "{many}");
        let spent = too_many(&lost(2));
        assert_eq!((spent.code.as_str(), workers_named(&spent.message)), (NODES_FAILED, vec!["w-1", "w-2"]));
        assert!(spent.message.contains("kubectl cupcake skip"), "{spent}");
        assert_eq!(workers_named("failed within spec.maxFailures: w-1, worker-with-a-lon…"), ["w-1"]);
        assert_eq!(workers_named("the drain did not end"), [""; 0]);
    }
}
