//! `drain-node/v1`: cordon, then evict what has to go.
//!
//! What must go is fixed at the cordon: evictable pods created until then (`DaemonSet` pods, static pods and CUPCAKE's own
//! operator stay). What comes later, because it tolerates the cordon or names the node, is told and stays: evicted, it would come again. Evictions go through the Eviction API, so disruption budgets hold. A pod that loses something by it goes only
//! where that was agreed to. When the drain's time is up the plan says what follows: the update rests (the vertex's deadline does
//! that), a worker is left out, or the pods that were to go are deleted, those too only where that was agreed to.
//!
//! Rules of the update may leave pods where they are, have them waited for until they have ended by themselves, or give them a turn
//! (`rules`). When the time is up turns no longer count, and what was waited for is one of the pods that were to go.
//!
//! From a node whose kubelet is not heard of nothing is evicted: nobody sees its pods end, so none of them is known to be gone, and
//! their budgets are spent on others while they may still run.
//!
//! Source: kubernetes.io, "Safely Drain a Node" (v1.34), "API-initiated Eviction" (v1.34), and "Nodes", node controller (v1.34): a
//! Node is Ready=Unknown where its kubelet was not heard of for 40 s (50 s from 1.32 on).

mod rules;
mod told;
mod volumes;

use super::{again, look, node_subject, params, read, still_leads};
use crate::ports::cluster::{
    API_SERVER_BUSY, Cluster, Consent, CordonOwner, Eviction, NodeView, OpsError, PodKind, PodView, Readiness,
};
use async_trait::async_trait;
use chrono::TimeDelta;
use cupcake_crds::direct_update::LeftOut;
use cupcake_crds::values::{DrainRule, NodeRole, OnExpiry, Treatment};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::names::Reason;
use cupcake_engine::step::{OnCancel, Probe, Step, StepContext, StepError, StepOutcome, Wait};
use rules::Turn;

/// How soon pods on their way out are looked at again, in seconds.
const LEAVING_AGAIN_SECONDS: i64 = 2;
/// How soon a refused eviction is asked for again, in seconds.
const BLOCKED_AGAIN_SECONDS: i64 = 5;
/// How long a pod gets to end that is deleted because the drain's time is up, in seconds.
pub const FORCED_SECONDS_MAX: u32 = 60;
/// Pods that were created this many seconds after the cordon still count as there before it: the cordon carries this replica's
/// time, a pod the API server's, and clocks differ; and a scheduler may act on what it saw a moment ago.
const CORDON_RACE_SECONDS: i64 = 120;

/// Empties a node.
pub struct DrainNode;

#[async_trait]
impl Step<Cluster> for DrainNode {
    const KIND: &'static str = "drain-node/v1";
    type Params = params::DrainNode;
    type Output = params::Drained;
    const ON_CANCEL: OnCancel = OnCancel::Leave;

    async fn probe(
        &self,
        ctx: &StepContext<'_, Cluster>,
        params: &Self::Params,
    ) -> Result<Probe<Self::Output>, StepError> {
        let Some(node) = look!(node_of_plan(ctx, params)) else {
            return Ok(Probe::Unsatisfied);
        };
        let Some(cordoned) = cordoned_at(ctx, &node) else {
            return Ok(Probe::Unsatisfied);
        };
        let pods = Pods::of(look!(ctx.ports().nodes.pods(&params.node.name)), cordoned, &params.rules);
        if !pods.left.is_empty() {
            return Ok(Probe::Unsatisfied);
        }
        Ok(match look!(emptied(ctx, params, &pods)) {
            Emptied::Whole(drained) => Probe::Satisfied(drained),
            Emptied::Waits(wait) => Probe::Wait(wait),
        })
    }

    async fn apply(
        &self,
        ctx: &StepContext<'_, Cluster>,
        params: &Self::Params,
    ) -> Result<StepOutcome<Self::Output>, StepError> {
        let name = params.node.name.as_str();
        let Some(node) = read!(ctx, node_of_plan(ctx, params)) else {
            return Ok(StepOutcome::Skipped(Reason::new(
                super::NODE_GONE,
                format!("node {name} of this plan is gone"),
            )));
        };
        let cordoned = if let Some(at) = cordoned_at(ctx, &node) {
            at
        } else {
            read!(ctx, still_leads(ctx));
            match ctx.ports().nodes.cordon(&node, ctx.run_uid(), ctx.now()).await {
                Ok(()) => ctx.now(),
                Err(error) => return error.into_outcome(ctx.now()),
            }
        };
        let pods = Pods::of(read!(ctx, ctx.ports().nodes.pods(name)), cordoned, &params.rules);
        let left = &pods.left;
        if left.is_empty() {
            return Ok(match read!(ctx, emptied(ctx, params, &pods)) {
                Emptied::Whole(drained) => StepOutcome::Done(drained),
                Emptied::Waits(wait) => StepOutcome::Wait(wait),
            });
        }
        // These pods were there while this leader led: whatever lands late evicts none of their successors.
        read!(ctx, still_leads(ctx));
        let loses = |pod: &PodView| pod.empty_dir || pod.unmanaged;
        let consent = if left.iter().any(loses) {
            read!(ctx, ctx.ports().cluster.consent(ctx.run(), name))
        } else {
            Consent { empty_dir: true, unmanaged: true }
        };
        let mut wait = Drain { ctx, params, node: &node, left, consent }.round().await?;
        if policy(ctx, params) == OnExpiry::SkipNode && node.role == NodeRole::Worker {
            let why = wait.reason.message;
            let left_out = LeftOut { at: ctx.now(), node: name.to_owned(), reason: why.clone() };
            read!(ctx, ctx.ports().cluster.leave_out(ctx.run(), ctx.run_uid(), ctx.epoch(), left_out));
            let message =
                format!("{name} is left out, its drain has not ended within {} s: {why}", params.timeout_seconds);
            let reason = Reason::new("DrainExpired", message);
            // Nothing more to do here: what the run is asked for ends this step and skips what follows.
            return Ok(StepOutcome::Wait(Wait::shown(again(ctx, LEAVING_AGAIN_SECONDS), reason)));
        }
        if let Some(told) = pods.drained().told() {
            wait.reason.message = format!("{}; {told}", wait.reason.message);
        }
        Ok(StepOutcome::Wait(wait))
    }
}

/// What the plan says to do now that the drain's time is up; Hold before that: go on as always.
fn policy(ctx: &StepContext<'_, Cluster>, params: &params::DrainNode) -> OnExpiry {
    if ctx.now() < expiry(ctx, params) { OnExpiry::Hold } else { params.on_expiry }
}

/// When the drain's time is up.
fn expiry(ctx: &StepContext<'_, Cluster>, params: &params::DrainNode) -> Timestamp {
    ctx.started() + TimeDelta::seconds(i64::from(params.timeout_seconds))
}

/// How a node stands whose pods are gone.
enum Emptied {
    /// Nothing is waited for any more.
    Whole(params::Drained),
    /// Volumes are.
    Waits(Wait),
}

/// Looks what pods that are gone have left attached.
async fn emptied(ctx: &StepContext<'_, Cluster>, params: &params::DrainNode, pods: &Pods) -> Result<Emptied, OpsError> {
    let name = params.node.name.as_str();
    let until = expiry(ctx, params);
    let attached = match ctx.ports().nodes.attached(name).await {
        Ok(attached) => volumes::waited_for(attached, &pods.staying, ctx.started()),
        // What cannot be read is waited for no longer than what is attached.
        Err(_) if ctx.now() >= until => Vec::new(),
        Err(error) => return Err(error),
    };
    let still_attached = volumes::counted(&attached);
    Ok(match &still_attached {
        Some(told) if ctx.now() < until => {
            let wait = if volumes::is_late(&attached, ctx.started(), ctx.now()) { Wait::shown } else { Wait::quiet };
            Emptied::Waits(wait(again(ctx, BLOCKED_AGAIN_SECONDS), told::attached(name, told, until)))
        }
        Some(_) | None => Emptied::Whole(params::Drained { still_attached, ..pods.drained() }),
    })
}

/// One look at the pods that have to go.
struct Drain<'a> {
    ctx: &'a StepContext<'a, Cluster>,
    params: &'a params::DrainNode,
    node: &'a NodeView,
    left: &'a [PodView],
    consent: Consent,
}

impl Drain<'_> {
    /// Asks for each pod once; gives what there is to wait for.
    async fn round(&self) -> Result<Wait, StepError> {
        let Self { ctx, params, node, left, consent } = self;
        let name = params.node.name.as_str();
        if node.readiness == Readiness::Unknown {
            let reason = told::unheard(node, left, self.until());
            return Ok(Wait::shown(again(ctx, BLOCKED_AGAIN_SECONDS), reason).on(node_subject(name)));
        }
        let forced = policy(ctx, params) == OnExpiry::ForceAfter;
        let turn = if forced { Turn::of_all(left) } else { Turn::of(left, &params.rules) };
        let mut first = true;
        let (mut deleted, mut blocked): (Vec<&str>, Vec<(String, Reason)>) = (Vec::new(), Vec::new());
        let due = |pod: &&&PodView| !pod.terminating || forced && self.ends_too_late(pod);
        for pod in turn.evicted.iter().filter(due) {
            let mut stays = |reason| blocked.push((told::name_of(pod), reason));
            if let Some(reason) = told::not_agreed(pod, *consent) {
                stays(reason);
                continue;
            }
            // Each request takes its time, and whoever was stopped during one no longer leads: what is on its way may land, no more.
            if !std::mem::take(&mut first) {
                match still_leads(ctx).await {
                    Ok(()) => {}
                    Err(OpsError::Changed(reason)) => return Ok(Wait::quiet(again(ctx, 1), reason)),
                    Err(OpsError::Transient(reason)) => {
                        return Ok(Wait::shown(again(ctx, LEAVING_AGAIN_SECONDS), reason));
                    }
                    Err(error @ OpsError::NeedsOperator(_)) => return Err(error.into()),
                }
            }
            let nodes = &ctx.ports().nodes;
            let asked = if pod.terminating { None } else { Some(nodes.evict(pod, params.pod_seconds).await) };
            let answer = match asked {
                // An API server that is busy says nothing of the pod.
                Some(Ok(Eviction::Blocked(reason))) if forced && reason.code != API_SERVER_BUSY => {
                    self.force(pod, &mut deleted).await
                }
                None => self.force(pod, &mut deleted).await,
                Some(other) => other,
            };
            match answer {
                Ok(Eviction::Accepted | Eviction::Gone) => {}
                // One pod that cannot be asked about keeps the others from nothing: it is asked for again.
                Ok(Eviction::Blocked(reason)) | Err(OpsError::Changed(reason) | OpsError::Transient(reason)) => {
                    stays(reason);
                }
                Err(error @ OpsError::NeedsOperator(_)) => return Err(error.into()),
            }
        }
        if !deleted.is_empty() {
            let pods = told::first_of(&deleted);
            let message = format!("{name}: not gone within {} s, deleted: {pods}", params.timeout_seconds);
            return Ok(Wait::shown(again(ctx, LEAVING_AGAIN_SECONDS), Reason::new("DrainForced", message)));
        }
        let until = self.until();
        if !blocked.is_empty() {
            let message = told::blocked(name, &blocked, until) + &told::later(turn.later);
            let reason = Reason::new("DrainBlocked", message);
            return Ok(Wait::shown(again(ctx, BLOCKED_AGAIN_SECONDS), reason));
        }
        if let Some(stuck) = left.iter().find_map(|pod| told::stuck(pod, ctx.now())) {
            let until = until.map(|until| format!("; trying until {} UTC", until.format("%H:%M:%S")));
            let message = format!("{name}: {stuck}{}{}", until.unwrap_or_default(), told::later(turn.later));
            return Ok(Wait::shown(again(ctx, BLOCKED_AGAIN_SECONDS), Reason::new("PodStuck", message)));
        }
        // What is evicted beside them is gone in a moment.
        if turn.evicted.is_empty() && !turn.completing.is_empty() {
            let reason = told::completing(name, &turn.completing, turn.later, until);
            return Ok(Wait::shown(again(ctx, BLOCKED_AGAIN_SECONDS), reason));
        }
        let message = format!("{} pods are leaving {name}", left.len());
        let reason = Reason::new("PodsLeaving", message);
        Ok(Wait::quiet(again(ctx, LEAVING_AGAIN_SECONDS), reason).on(node_subject(name)))
    }

    /// Until when it goes on as it does, as people see it; `None` once that is past.
    fn until(&self) -> Option<Timestamp> {
        let hold = self.params.on_expiry == OnExpiry::Hold;
        let until = if hold { self.ctx.deadline() } else { expiry(self.ctx, self.params) };
        Some(until).filter(|until| *until > self.ctx.now())
    }

    /// Deletes a pod past what keeps it, while this leader leads: each is looked at by itself, since nothing else holds a late
    /// deletion back.
    async fn force<'p>(&self, pod: &'p PodView, deleted: &mut Vec<&'p str>) -> Result<Eviction, OpsError> {
        still_leads(self.ctx).await?;
        let answer = self.ctx.ports().nodes.delete(pod, self.forced_seconds(pod)).await?;
        if answer == Eviction::Accepted {
            deleted.push(&pod.name);
        }
        Ok(answer)
    }

    /// How long a pod gets to end that is deleted.
    fn forced_seconds(&self, pod: &PodView) -> u32 {
        // Never 0: that takes the pod out of the API while its containers may still run.
        self.params.pod_seconds.unwrap_or(pod.grace_seconds).clamp(1, FORCED_SECONDS_MAX)
    }

    /// Whether a pod that is on its way out would end later than one that is deleted now.
    fn ends_too_late(&self, pod: &PodView) -> bool {
        let forced = self.ctx.now() + TimeDelta::seconds(i64::from(FORCED_SECONDS_MAX));
        pod.ends.is_some_and(|ends| ends > forced)
    }
}

async fn node_of_plan(
    ctx: &StepContext<'_, Cluster>,
    params: &params::DrainNode,
) -> Result<Option<NodeView>, OpsError> {
    let node = ctx.ports().nodes.node(&params.node.name).await?;
    Ok(node.filter(|node| node.node.uid == params.node.uid))
}

/// Since when no new pods come to the node; `None` while they may.
fn cordoned_at(ctx: &StepContext<'_, Cluster>, node: &NodeView) -> Option<Timestamp> {
    match &node.cordon {
        CordonOwner::Run { uid, at } if uid == ctx.run_uid() => Some(*at),
        CordonOwner::Other => Some(ctx.started()),
        // One that another run left and could not lift is taken over: what came since then has to go too.
        CordonOwner::Run { .. } | CordonOwner::Nobody => None,
    }
}

/// The pods of a node by what a drain does about them.
struct Pods {
    /// Those that have to go, or are waited for.
    left: Vec<PodView>,
    /// Those that came after the cordon, by name.
    came_since: Vec<String>,
    /// All that stay, these among them.
    staying: Vec<PodView>,
}

impl Pods {
    fn of(pods: Vec<PodView>, cordoned: Timestamp, rules: &[DrainRule]) -> Self {
        let until = cordoned + TimeDelta::seconds(CORDON_RACE_SECONDS);
        let is_evictable = |pod: &PodView| match pod.kind {
            PodKind::Evictable => rules::treatment(rules, pod) != Treatment::Skip,
            PodKind::Daemon | PodKind::Mirror | PodKind::Operator | PodKind::Finished => false,
        };
        let goes = |pod: &PodView| is_evictable(pod) && pod.created.is_none_or(|created| created <= until);
        let (left, staying): (Vec<PodView>, Vec<PodView>) = pods.into_iter().partition(goes);
        let came_since = staying.iter().filter(|pod| is_evictable(pod)).map(told::name_of).collect();
        Self { left, came_since, staying }
    }

    /// What is to be told once nothing is left that has to go.
    fn drained(&self) -> params::Drained {
        params::Drained { came_since: told::counted(&self.came_since, "pod"), still_attached: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    pub(super) fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(1_790_000_000 + seconds, 0).unwrap()
    }

    pub(super) fn pod() -> PodView {
        PodView {
            namespace: "default".into(),
            name: "shop-0".into(),
            uid: "uid".into(),
            labels: BTreeMap::new(),
            kind: PodKind::Evictable,
            created: None,
            terminating: false,
            grace_seconds: 30,
            ends: None,
            finalizers: Vec::new(),
            claims: Vec::new(),
            ready_since: None,
            empty_dir: false,
            unmanaged: false,
        }
    }

    #[test]
    fn what_comes_two_minutes_after_the_cordon_is_told_and_stays() {
        let came = |name: &str, seconds| PodView { name: name.into(), created: Some(at(seconds)), ..pod() };
        let daemon = PodView { kind: PodKind::Daemon, ..came("proxy", 500) };
        let skip: Vec<DrainRule> =
            serde_json::from_value(serde_json::json!([{"action": "Skip", "namespaces": ["storage"]}])).unwrap();
        let stays = PodView { namespace: "storage".into(), ..came("osd", 500) };
        let all = vec![came("first", -600), came("race", 120), came("late", 121), daemon, stays];
        let pods = Pods::of(all, at(0), &skip);
        let left: Vec<&str> = pods.left.iter().map(|pod| pod.name.as_str()).collect();
        assert_eq!(left, ["first", "race"], "a scheduler may have acted on what it saw before the cordon");
        assert_eq!(pods.drained().came_since.as_deref(), Some("1 pod: default/late"));
        assert_eq!(Pods::of(vec![pod()], at(0), &[]).drained(), params::Drained::default());
        let here = PodView { namespace: "storage".into(), ..pod() };
        assert_eq!(Pods::of(vec![here], at(0), &skip).left, [], "one that a rule leaves there was there before");
    }
}
