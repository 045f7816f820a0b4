//! DirectUpdates: each becomes one root run, one at a time over the whole cluster, and shows what its run does.
//!
//! ```text
//!   admitted ─► another owns the cluster? ─► gather, compile ─► machines told what they are? ─► plan stored ─► status names it ─► run created
//!                      │ Pending, named         │ Stalled, named    │ Pending, asked            (from here on CEL freezes the spec)
//! ```
//! A crash between any two of these is picked up by the next reconcile: what the status names is created if it is missing.
//!
//! RBAC: get, list, patch on directupdates; list, get, create on upgraderuns; get, create on upgradeplans; what `inventories` asks
//! for; and what `adapters::snapshot` and `stand` need.

use super::acknowledge::Stage;
use super::preflight::Looked;
use super::stand::{MESSAGE_CHARS_MAX, Stand, answer, forget_told, replace_status, write};
use super::window::State;
use super::{acknowledge, deletion, dry_run, gates, inventories, mirror, records, run, timeout, window};
use crate::adapters::at_work::Held;
use crate::adapters::cluster_ops::run_phase;
use crate::adapters::kube_store::RunMeta;
use crate::adapters::{is_already_exists, is_not_found, snapshot};
use crate::guarded::Guarded;
use crate::outcome::{Next, Outcome};
use crate::run_status;
use crate::silence::Refused;
use crate::watches::Watches;
use crate::{Operator, error_chain, events};
use chrono::TimeDelta;
use cupcake_crds::conditions;
use cupcake_crds::direct_update::UpgradePath;
use cupcake_crds::upgrade_run::ObjectRef;
use cupcake_crds::values::{ClusterSnapshot, Phase};
use cupcake_crds::{DirectUpdate, UpgradePlan, UpgradeRun};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::cursor::RunPhase;
use cupcake_engine::names::RunName;
use cupcake_engine::store::StoreError;
use cupcake_steps::ports::cluster::OpsError;
use cupcake_workflows::render::{self, RUN_REFUSED};
use cupcake_workflows::{Code, Compilation, Compiled, Refusal, Request, compile, gates_of, plan_name};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use std::collections::{BTreeMap, BTreeSet};

/// How often an update that is refused or waits is looked at again, in seconds: clusters change without telling.
const AGAIN_SECONDS: i64 = 30;
/// How often an update is looked at whose machines are asked, in seconds.
const ANSWERS_SECONDS: i64 = 5;

/// A DirectUpdate and what its status is made of, as the watches show it now.
pub struct View {
    pub(super) update: DirectUpdate,
    pub(super) runs: Vec<UpgradeRun>,
    pub(super) nodes: Vec<mirror::NodeNow>,
    /// What each machine told of itself, until the update has a run.
    told: BTreeMap<String, inventories::Told>,
    /// The nodes that it is asked to leave out.
    pub(super) asked_for: BTreeMap<String, acknowledge::AskedFor>,
    /// Until when nobody could look at its runs, the last time that it was for long.
    unseen_until: Option<Timestamp>,
    /// A run of it that the API server refuses to show or to record.
    refused: Option<Refused>,
    /// The ids of its notices that are delivered or given up.
    pub(crate) told_of: BTreeSet<String>,
}

impl View {
    /// Of that update.
    pub fn of(
        update: DirectUpdate,
        watches: &Watches,
        unseen_until: Option<Timestamp>,
        refused: Option<Refused>,
    ) -> Self {
        let name = update.name_any();
        let runs = watches.runs.iter().map(|(_, run)| run).filter(|run| run.spec.direct_update.name == name);
        let runs = runs.cloned().collect();
        let nodes = mirror::nodes_now(&update, watches);
        let asked_for = acknowledge::asked_for(&update, |name| watches.nodes.get(name));
        let has_run = update.status.as_ref().is_some_and(|status| status.run.is_some());
        let told = if has_run { BTreeMap::new() } else { inventories::told(watches) };
        Self { update, runs, nodes, told, asked_for, unseen_until, refused, told_of: BTreeSet::new() }
    }
}

/// Moves the update one step on.
pub async fn reconcile(operator: &Operator, view: View) -> Outcome {
    let (name, mut of) = (view.update.name_any(), view);
    let mut done = reconciled(operator, &of).await;
    if matches!(&done, Err(kube::Error::Api(status)) if status.code == 409) {
        // Most often the change is on its way here, but one that the watch lost never comes: what stands at the server counts.
        done = match read(operator, &name).await {
            Ok(None) => return Outcome::of(Next::AwaitChange),
            Ok(Some(update)) => match asked_for_now(operator, &update).await {
                Ok(asked_for) => {
                    (of.update, of.asked_for) = (update, asked_for);
                    reconciled(operator, &of).await
                }
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
    }
    match done {
        Ok(next) => Outcome::of(next),
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 422) => {
            // Repeating it would be refused again: a person has to see it.
            let stand =
                Stand::stalled("StatusRefused", format!("the API server refuses its status: {}", status.message));
            tracing::error!(directupdate = name, error = status.message, "update needs a person");
            if let Err(error) = write(operator, &of, stand).await {
                tracing::warn!(directupdate = name, error = error_chain(&error), "its status could not say so");
            }
            Outcome::of(again(operator))
        }
        Err(error) => {
            tracing::warn!(directupdate = name, error = error_chain(&error), "update not moved; trying again");
            Outcome::of(Next::Failed)
        }
    }
}

/// What an update that was read again asks of nodes: the view knows those alone that it asked for when the watch showed it.
async fn asked_for_now(
    operator: &Operator,
    update: &DirectUpdate,
) -> Result<BTreeMap<String, acknowledge::AskedFor>, kube::Error> {
    let (api, mut nodes) = (Api::<Node>::all(operator.client.clone()), BTreeMap::new());
    for name in acknowledge::named(update) {
        if let Some(node) = api.get_opt(name).await? {
            nodes.insert(name.clone(), node);
        }
    }
    Ok(acknowledge::asked_for(update, |name| nodes.get(name)))
}

async fn read(operator: &Operator, name: &str) -> Result<Option<DirectUpdate>, kube::Error> {
    Api::<DirectUpdate>::all(operator.client.clone()).get_opt(name).await
}

async fn reconciled(operator: &Operator, view: &View) -> Result<Next, kube::Error> {
    if forget_told(operator, view).await? {
        return Ok(Next::AwaitChange);
    }
    let status = view.update.status.clone().unwrap_or_default();
    if view.update.metadata.deletion_timestamp.is_some() {
        return end(operator, view).await;
    }
    // What has come to its end is history, whatever becomes of its spec: later looks at the nodes would tell of later updates.
    if status.phase.is_some_and(Phase::is_final) {
        answer(operator, view).await?;
        return Ok(Next::AwaitChange);
    }
    if let Some(run) = &status.run {
        return follow(operator, view, run).await;
    }
    if let Some(stand) = Stand::asked(&view.update) {
        write(operator, view, stand).await?;
        return Ok(Next::AwaitChange);
    }
    if let Some(owner) = owner_of_cluster(operator, &view.update).await? {
        let message = format!("waits for DirectUpdate {owner}: one update owns the cluster at a time");
        write(operator, view, Stand::pending(run::WAITING_FOR_CLUSTER, message)).await?;
        return Ok(again(operator));
    }
    if let Some(reason) = gates::unmeasurable(operator, &view.update.spec).await {
        write(operator, view, Stand::stalled(&reason.code, reason.message)).await?;
        return Ok(again(operator));
    }
    // While machines answer, only they are looked at: the rest is read anew when all have. A dry run asks none.
    let generation = view.update.metadata.generation;
    let still = operator.awaited.still(&operation_id(&view.update), generation, &view.told, operator.clock.now());
    if !still.is_empty() {
        return ask(operator, view, &still).await;
    }
    let (snapshot, at_work) = match snapshot::gather_to_start(&operator.client, operator.clock.now()).await {
        Ok(gathered) => gathered,
        Err(OpsError::NeedsOperator(reason)) => {
            let message = format!("the cluster cannot be read: {}", reason.message);
            write(operator, view, Stand::stalled(&reason.code, message)).await?;
            return Ok(again(operator));
        }
        // An answer that did not come is no verdict: nobody has to do anything, and no later update goes first.
        Err(OpsError::Changed(reason) | OpsError::Transient(reason)) => {
            let message = format!("the cluster could not be read, trying again: {}", reason.message);
            write(operator, view, Stand::pending(&reason.code, message)).await?;
            return Ok(Next::Failed);
        }
    };
    // Nobody may plan on what a machine is about to change. A dry run only looks.
    if !view.update.spec.dry_run
        && let Some(held) = operator.at_work.held(&at_work, &snapshot, operator.clock.now())
    {
        let stand = match held {
            Held::Waits(reason) => Stand::pending(&reason.code, reason.message),
            Held::Stalls(reason) => Stand::stalled(&reason.code, reason.message),
        };
        write(operator, view, stand).await?;
        return Ok(again(operator));
    }
    let Some(request) = Request::of(&view.update) else {
        return Ok(Next::AwaitChange);
    };
    let run = match request.root_run() {
        Ok(run) => run,
        Err(finding) => {
            write(operator, view, Stand::stalled("NameTooLong", finding.to_string())).await?;
            return Ok(Next::AwaitChange);
        }
    };
    let compiled = compile(&request, &run, &snapshot);
    let looked = Looked::of(&compiled);
    match compiled {
        Err(refusal) => {
            // Nothing but answers of machines is lacking: they are asked as those of a plan are.
            let late = inventories::late(&snapshot.nodes, &unknown(&refusal), operator.clock.now());
            if !late.is_empty() && !view.update.spec.dry_run {
                operator.awaited.set(&operation_id(&view.update), generation, late.clone(), operator.clock.now());
                return ask(operator, view, &late).await;
            }
            let message = refusal.message(MESSAGE_CHARS_MAX);
            let stand = Stand::stalled(&refusal.code().to_string(), message);
            write(operator, view, stand.checked(looked)).await?;
            if !view.update.spec.dry_run {
                inventories::ask_in_the_way(operator, &snapshot, &refusal, &view.told).await;
            }
            Ok(again(operator))
        }
        Ok(Compilation::NothingToDo(nothing)) => {
            write(operator, view, Stand::done("NothingToDo", nothing.message).checked(looked)).await?;
            Ok(Next::AwaitChange)
        }
        Ok(Compilation::Plan(compiled)) => planned(operator, view, &run, &snapshot, &compiled, looked).await,
    }
}

/// Starts what was planned, unless its time has not come or too little is known of the machines.
async fn planned(
    operator: &Operator,
    view: &View,
    run: &RunName,
    snapshot: &ClusterSnapshot,
    compiled: &Compiled,
    looked: Looked,
) -> Result<Next, kube::Error> {
    let (update, now) = (&view.update, operator.clock.now());
    if update.spec.dry_run {
        write(operator, view, dry_run::stand(&update.name_any(), compiled).checked(looked)).await?;
        return Ok(Next::AwaitChange);
    }
    if let Some((reason, opens)) = window::state(update, now).closed() {
        write(operator, view, Stand::pending(&reason.code, reason.message).checked(looked)).await?;
        return Ok(opens.map_or_else(|| again(operator), Next::At));
    }
    // What was planned is worth what is known of the machines: those that nobody looked at today are looked at before anything moves.
    let late = inventories::late(&snapshot.nodes, &compiled.changing, now);
    if update.spec.preflight_checks && !late.is_empty() {
        operator.awaited.set(&operation_id(update), update.metadata.generation, late.clone(), now);
        return ask(operator, view, &late).await;
    }
    operator.awaited.forget(&operation_id(update));
    if !deletion::is_held(update) {
        deletion::hold(operator, update).await?;
        return Ok(Next::AwaitChange);
    }
    start(operator, view, run, compiled, looked).await
}

/// The machines that have not told enough, where nothing else stands in the way.
fn unknown(refusal: &Refusal) -> Vec<String> {
    if refusal.findings.iter().any(|finding| finding.code != Code::RuntimeUnknown) {
        return Vec::new();
    }
    refusal.findings.iter().flat_map(|finding| finding.in_question().iter().cloned()).collect()
}

/// Asks machines what they are, and tells whom the update waits for.
async fn ask(operator: &Operator, view: &View, late: &[String]) -> Result<Next, kube::Error> {
    inventories::ask(operator, late, &view.told).await;
    let reason = inventories::reason(late, &view.update.name_any());
    write(operator, view, Stand::pending(&reason.code, reason.message)).await?;
    Ok(Next::At(operator.clock.now() + TimeDelta::seconds(ANSWERS_SECONDS)))
}

/// A deleted update shows how its runs end, and goes when they have.
async fn end(operator: &Operator, view: &View) -> Result<Next, kube::Error> {
    operator.awaited.forget(&operation_id(&view.update));
    if deletion::let_go(operator, &view.update).await? {
        return Ok(Next::AwaitChange);
    }
    if let Some(run) = view.update.status.as_ref().and_then(|status| status.run.clone()) {
        follow(operator, view, &run).await?;
    }
    Ok(again(operator))
}

fn again(operator: &Operator) -> Next {
    Next::At(operator.clock.now() + TimeDelta::seconds(AGAIN_SECONDS))
}

/// Another update that owns the cluster, or comes before this one; read from the API server itself, not from a watch.
async fn owner_of_cluster(operator: &Operator, update: &DirectUpdate) -> Result<Option<String>, kube::Error> {
    let updates: Api<Guarded<DirectUpdate>> = Api::all(operator.client.clone());
    let runs: Api<Guarded<UpgradeRun>> = Api::all(operator.client.clone());
    let own = update.name_any();
    let running = runs
        .list(&ListParams::default())
        .await?
        .items
        .into_iter()
        .filter_map(|run| run.0.ok())
        .filter(|run| run.spec.direct_update.name != own)
        .find(|run| !run.status.as_ref().and_then(|status| status.phase).is_some_and(Phase::is_final));
    // Children count too: a root may rest or end while a batch of it is still at work.
    if let Some(run) = running {
        return Ok(Some(run.spec.direct_update.name));
    }
    let age = |update: &DirectUpdate| (update.metadata.creation_timestamp.clone(), update.name_any());
    let others = updates.list(&ListParams::default()).await?.items.into_iter().filter_map(|other| other.0.ok());
    let mut before: Vec<DirectUpdate> = others
        .filter(|other| other.name_any() != own && other.metadata.deletion_timestamp.is_none())
        .filter(|other| {
            let status = other.status.clone().unwrap_or_default();
            let over = status.phase.is_some_and(Phase::is_final);
            // One that is Stalled by its own spec does not keep others from their turn, nor does one that waits for its window or for
            // a person who holds or ends it.
            let waits = matches!(window::state(other, operator.clock.now()), State::Closed { .. })
                || other.is_paused()
                || acknowledge::is_cancelled(other);
            let stalled = conditions::get(&status.conditions, conditions::STALLED)
                .is_some_and(|condition| condition.status == conditions::ConditionStatus::True);
            let committed = status.run.is_some();
            !over && (committed || (!stalled && !waits && age(other) < age(update)))
        })
        .collect();
    before.sort_by_key(age);
    Ok(before.first().map(ResourceExt::name_any))
}

/// Stores the plan, lets the status name plan and run, creates the run.
async fn start(
    operator: &Operator,
    view: &View,
    run: &RunName,
    compiled: &Compiled,
    looked: Looked,
) -> Result<Next, kube::Error> {
    let update = &view.update;
    let owner = RunMeta::owned_by("DirectUpdate", &update.name_any(), &update.uid().unwrap_or_default());
    if let Err(error) = operator.store.create_plan(run, &compiled.plan, owner).await {
        if let StoreError::Unavailable { .. } = error {
            tracing::warn!(
                directupdate = update.name_any(),
                error = error_chain(&error),
                "plan not stored; trying again"
            );
            return Ok(Next::Failed);
        }
        write(operator, view, Stand::stalled("PlanRefused", error_chain(&error))).await?;
        return Ok(Next::Failed);
    }
    events::warn(operator, update, &compiled.report.warnings).await;
    let target = compiled.summary.target.to_string();
    let steps: Vec<String> = compiled.summary.hops.iter().map(|hop| hop.version.to_string()).collect();
    let total_steps = u32::try_from(steps.len()).unwrap_or(u32::MAX);
    let first = steps.first().cloned().unwrap_or_else(|| target.clone());
    let why = compiled.summary.hops.first().and_then(|hop| hop.reason.as_ref());
    let why = why.map(|why| format!(", a patch first: {why}")).unwrap_or_default();
    let mut stand = Stand::pending("Planned", format!("Step 1/{total_steps}: Upgrading to {first}{why}"));
    stand.plan = Some(plan_name(run, &compiled.digest));
    stand.run = Some(run.as_str().to_owned());
    stand.operation_timeout_seconds = Some(timeout::seconds_of(&update.spec, compiled.summary.estimate_seconds));
    stand.path = Some(UpgradePath {
        current_step: 0,
        current_version: compiled.summary.from.to_string(),
        steps,
        target_version: target,
        total_steps,
    });
    write(operator, view, stand.checked(looked)).await?;
    create_run(operator, update, run, &compiled.digest).await?;
    Ok(Next::AwaitChange)
}

async fn create_run(
    operator: &Operator,
    update: &DirectUpdate,
    run: &RunName,
    digest: &str,
) -> Result<(), kube::Error> {
    let Ok(target) = update.spec.target() else {
        return Ok(());
    };
    let meta = RunMeta {
        direct_update: ObjectRef { name: update.name_any(), uid: update.uid().unwrap_or_default() },
        operation_id: operation_id(update),
        parent: None,
        root_uid: None,
        target_version: target,
        hop: Some(target),
        concurrency: 1,
        failures_max: 1,
        owner: RunMeta::owned_by("DirectUpdate", &update.name_any(), &update.uid().unwrap_or_default()),
    };
    match operator.store.create_run(run, digest, &meta, operator.clock.now()).await {
        Err(error) if is_already_exists(&error) => Ok(()),
        other => other,
    }
}

/// Shows what the run does; creates it if a crash came between status and run.
async fn follow(operator: &Operator, view: &View, name: &str) -> Result<Next, kube::Error> {
    let Some(root) = view.runs.iter().find(|run| run.name_any() == name) else {
        return restore(operator, view, name).await;
    };
    let before = view.update.status.clone().unwrap_or_default();
    let now = operator.clock.now();
    let timed = timeout::standing(&view.update, phase_of(root), &view.nodes, view.unseen_until, now);
    let records = records::of_update(operator, view, root).await;
    let mut after = mirror::status_of(view, root, &records, &timed, now);
    let reason = root.status.as_ref().and_then(|status| status.reason.clone());
    let mut code = reason.unwrap_or_else(|| "Pending".to_owned());
    if let Some(record) = records.iter().find(|record| record.is_of(root)) {
        let (graph, message) = record.rendered(&mirror::children_of(view), now);
        after.graph = graph;
        if code != run::WAITING_FOR_CLUSTER {
            after.message = Some(mirror::with_hop(&after, message));
        }
    }
    // What a run below waits for in the sight of people belongs where they look first; told anew, so that it says for how long by now.
    let waiting = records.iter().find_map(|record| Some((record, record.waits()?)));
    if let (Some((record, waits)), Some(message)) = (waiting, &mut after.message) {
        let (_, why) = record.rendered(&[], now);
        *message = format!("{message}; {why}");
        if code == run_status::STEP_RUNNING {
            waits.clone_into(&mut code);
        }
    }
    // Whoever reads the message of the update has the command at hand, not only where it is told.
    if after.phase == Some(Phase::RequiresAttention)
        && let Some(retry) = records.iter().find_map(|record| record.retry(now))
        && let Some(message) = &mut after.message
        && let Some(told) = render::with_retry(message, &retry)
    {
        *message = told;
    }
    let hops = after.upgrade_path.as_ref().map_or(&[][..], |path| &path.steps[..]);
    let gates = gates_of(&view.update.spec, hops);
    if let Some(control) = &view.update.spec.control {
        after.acknowledged =
            acknowledge::acknowledged(&before.acknowledged, control, &view.asked_for, Stage::UnderWay(&gates), now);
        after.approvals = acknowledge::approved(&before.approvals, control, &gates, now);
    }
    mirror::set_approved(&mut after, view, &gates, now);
    after.gates = gates::seen(&before.gates, &records, now);
    let window = window::state(&view.update, now);
    if let (Some(held), Some(Phase::InProgress), Some(message)) =
        (window.clone().holds(), after.phase, &mut after.message)
    {
        let paused = conditions::get(&after.conditions, conditions::PAUSED);
        let paused = paused.is_some_and(|paused| paused.status == conditions::ConditionStatus::True);
        if paused || view.nodes.iter().any(mirror::NodeNow::is_at_work) {
            *message = format!("{message}; {}", held.message);
            if code == run_status::STEP_RUNNING {
                code = held.code;
            }
        } else {
            *message = held.message;
            code = held.code;
        }
    }
    if let Some(reason) = timed.over() {
        reason.code.clone_into(&mut code);
    }
    if let (Some(refused), Some(message)) = (&view.refused, &mut after.message) {
        *message = refused.message(message);
        RUN_REFUSED.clone_into(&mut code);
    }
    timed.show(&mut after, now);
    if let (Some(Phase::Succeeded), Some(message)) = (after.phase, &mut after.message) {
        message.extend(acknowledge::left_out(&view.asked_for));
        message.extend(records::joined(&records).map(|joined| format!("; {joined}")));
    }
    mirror::conclude(&mut after, &code, timeout::phase(&timed, phase_of(root)), now);
    after.bound();
    let phase = after.phase;
    let operation = after.operation_id.clone().unwrap_or_default();
    if mirror::differs(&before, &after) {
        replace_status(operator, &view.update, after).await?;
        if let (Some(phase), false) = (phase.filter(|phase| phase.is_final()), before.phase == phase) {
            operator.metrics.operation_ended(&operation, phase.as_str());
        }
    }
    let window = window.changes().filter(|_| !phase.is_some_and(Phase::is_final));
    Ok(timed.look_again(now).into_iter().chain(window).min().map_or(Next::AwaitChange, Next::At))
}

/// Names the update in metrics, traces and backups: unlike its name, never used again.
pub(super) fn operation_id(update: &DirectUpdate) -> String {
    update.uid().unwrap_or_default()
}

/// The status names a run that the watch does not show: created a moment ago, or never.
async fn restore(operator: &Operator, view: &View, name: &str) -> Result<Next, kube::Error> {
    let update = &view.update;
    let runs: Api<UpgradeRun> = Api::all(operator.client.clone());
    if runs.get_metadata_opt(name).await?.is_some() {
        return Ok(Next::AwaitChange);
    }
    let status = update.status.clone().unwrap_or_default();
    let plan = status.plan.clone().unwrap_or_default();
    let plans: Api<UpgradePlan> = Api::all(operator.client.clone());
    let digest = match plans.get(&plan).await {
        Ok(plan) => plan.spec.digest,
        Err(error) if is_not_found(&error) => {
            let message = format!("UpgradePlan {plan} of this update is gone: delete the update and create it again");
            write(operator, view, Stand::stalled("PlanGone", message)).await?;
            return Ok(Next::AwaitChange);
        }
        Err(error) => return Err(error),
    };
    // A run that was there once is never begun again: nobody knows how far it had come.
    if status.started_at.is_some() || status.phase.is_some_and(|phase| phase != Phase::Pending) {
        let stand = if acknowledge::is_cancelled(update) {
            Stand::of(RunPhase::Cancelled, false, "Cancelled", format!("cancelled after UpgradeRun {name} was deleted"))
        } else {
            let message = format!(
                "UpgradeRun {name} of this update was deleted: look at the nodes, then delete the update and apply a new one"
            );
            Stand::of(RunPhase::RequiresAttention, true, "RunGone", message)
        };
        write(operator, view, stand).await?;
        return Ok(Next::AwaitChange);
    }
    if let Ok(run) = RunName::new(name) {
        create_run(operator, update, &run, &digest).await?;
    }
    Ok(Next::AwaitChange)
}

/// The phase of an update's root run.
pub(super) fn phase_of(run: &UpgradeRun) -> RunPhase {
    run_phase(run.status.as_ref().and_then(|status| status.phase))
}
