//! For each way in which an update can wait, what it says of it: status, conditions, `kubectl cupcake why`, events and metrics.
//!
//! The golden text is tests/goldens/stalls.txt; docs/stalls.md leads readers through it. `UPDATE_GOLDENS=1 cargo test -p cupcake-tests stalls`
//! writes it anew; read the diff.
#![expect(clippy::disallowed_methods, reason = "a golden text is written anew where somebody asks for it")]

use crate::cluster::{Cluster, UPDATE, in_cluster};
use crate::leases_alone::Refusing;
use chrono::TimeDelta;
use cupcake_crds::values::Phase;
use cupcake_crds::{GROUP, UpgradePlan, UpgradeRun};
use cupcake_engine::codec;
use cupcake_engine::cursor::Cursor;
use cupcake_engine::dag::Dag;
use cupcake_engine::plan::Plan;
use cupcake_sandbox::api::Failure;
use cupcake_sandbox::machine::ledger::EffectKind;
use cupcake_workflows::render::{RunNow, View, why};
use kube::ResourceExt;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// What `kubectl cupcake why` prints of an update.
pub(crate) fn answer(cluster: &Cluster, name: &str) -> Vec<String> {
    let now = cluster.world.now();
    let update = cluster.update(name).unwrap();
    let dags: BTreeMap<String, Dag> = cluster.all::<UpgradePlan>(GROUP, "upgradeplans").iter().map(expanded).collect();
    let mut runs: Vec<UpgradeRun> = cluster.all(GROUP, "upgraderuns");
    runs.retain(|run| run.spec.direct_update.name == name);
    // The root, the wave, its batches: the longer the name, the deeper.
    runs.sort_by_key(|run| run.name_any().len());
    let cursors: Vec<Option<(&Dag, Cursor)>> = runs.iter().map(|run| cursor_of(run, &dags)).collect();
    let one = |(run, cursor)| {
        let view = |(dag, cursor)| View { dag, cursor, now, children: &[] };
        let cursor: Option<&(&Dag, Cursor)> = Option::as_ref(cursor);
        RunNow { run, view: cursor.map(|(dag, cursor)| view((*dag, cursor))) }
    };
    let runs: Vec<RunNow<'_>> = runs.iter().zip(&cursors).map(one).collect();
    why(&update, &runs, now).lines(now)
}

fn expanded(plan: &UpgradePlan) -> (String, Dag) {
    let value = serde_json::to_value(&plan.spec.plan).unwrap();
    (plan.name_any(), serde_json::from_value::<Plan>(value).unwrap().expand().unwrap())
}

fn cursor_of<'d>(run: &UpgradeRun, dags: &'d BTreeMap<String, Dag>) -> Option<(&'d Dag, Cursor)> {
    let dag = dags.get(&run.spec.plan.name)?;
    let text = run.status.as_ref()?.cursor.as_ref()?;
    Some((dag, codec::decode(text, &run.spec.plan.digest, dag).unwrap()))
}

/// The reasons of the events about an update and its runs that tell of more than a step that succeeded, with how often.
fn reasons(cluster: &Cluster) -> Vec<String> {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for event in cluster.world.server().list("", "events") {
        let event = event.value();
        // Events of both API groups are kept in one store, in the words of the older one.
        let about = &event["involvedObject"]["kind"];
        let ours = about == "UpgradeRun" || about == "DirectUpdate";
        if let Some(reason) = event["reason"].as_str().filter(|reason| ours && *reason != "StepSucceeded") {
            *counts.entry(format!("{} {reason}", event["type"].as_str().unwrap_or_default())).or_default() += 1;
        }
    }
    counts.into_iter().map(|(reason, count)| format!("{reason} x{count}")).collect()
}

/// What is written down of an update that waits.
fn told(cluster: &Cluster, name: &str) -> String {
    let status = cluster.update(name).unwrap().status.unwrap_or_default();
    let mut text = String::new();
    let _ = writeln!(text, "phase:      {}", status.phase.unwrap_or_default());
    let _ = writeln!(text, "message:    {}", status.message.unwrap_or_default());
    let conditions = status.conditions.iter().map(|one| format!("{}={:?} ({})", one.type_, one.status, one.reason));
    let _ = writeln!(text, "conditions: {}", conditions.collect::<Vec<_>>().join(", "));
    let _ = writeln!(text, "events:     {}", reasons(cluster).join(", "));
    let metrics = cluster.metrics.text();
    let waiting = metrics
        .lines()
        .filter(|line| line.starts_with("cupcake_updates_waiting{") || line.starts_with("cupcake_runs_waiting{"));
    let _ = writeln!(text, "metrics:    {}", waiting.collect::<Vec<_>>().join(", "));
    let _ = writeln!(text, "$ kubectl cupcake why {name}");
    for line in answer(cluster, name) {
        let _ = writeln!(text, "{line}");
    }
    text
}

/// A way to wait: its title, and a world that waits in that way, with the name of the update that does.
struct Stall {
    title: &'static str,
    text: String,
}

fn stall(title: &'static str, world: impl FnOnce() -> String) -> Stall {
    Stall { title, text: world() }
}

async fn until_told(cluster: &Cluster, name: &str, words: &str) {
    cluster.eventually(words, async || cluster.phase(name).1.contains(words)).await;
    // What is told in other places follows with the next look.
    cluster.pass(40).await;
}

/// As it waits, and that what `ends` does lets it go on to its end.
async fn seen(cluster: &Cluster, name: &str, ends: impl AsyncFnOnce()) -> String {
    let text = told(cluster, name);
    let lines = answer(cluster, name);
    assert!(lines.last().unwrap().starts_with("next:  kubectl "), "{text}");
    ends().await;
    let (phase, message) = cluster.at_rest(name).await;
    assert_eq!(phase, Phase::Succeeded, "{message}\nafter\n{text}");
    text
}

fn budget() -> String {
    in_cluster(2, false, async |cluster| {
        let budgets = cluster.apply_then_freeze(UPDATE, json!({})).await;
        until_told(cluster, UPDATE, "DrainBlocked").await;
        seen(cluster, UPDATE, async || {
            let gone = kube::api::DeleteParams::default();
            cluster.ask(async || budgets.delete("frozen", &gone).await.map(drop)).await;
        })
        .await
    })
}

fn window(opens: i64, closes: i64, words: &str) -> String {
    in_cluster(2, true, async |cluster| {
        let at = |minutes| (cluster.world.now() + TimeDelta::minutes(minutes)).format("%H:%M").to_string();
        cluster.apply(UPDATE, json!({"maintenanceWindow": {"start": at(opens), "end": at(closes)}})).await;
        until_told(cluster, UPDATE, words).await;
        cluster.pass(900).await;
        seen(cluster, UPDATE, async || {}).await
    })
}

fn approval() -> String {
    in_cluster(1, false, async |cluster| {
        cluster.apply(UPDATE, json!({"approvals": ["BeforeControlPlane"]})).await;
        until_told(cluster, UPDATE, "approve").await;
        seen(cluster, UPDATE, async || {
            let gate = "1.34.4/control-plane-gate";
            let approval = json!([{"requestId": "approve-1", "gate": gate, "requestedBy": "jane"}]);
            cluster.patch(UPDATE, json!({"spec": {"control": {"approvals": approval}}})).await;
        })
        .await
    })
}

/// An agent that answered before and was lost then.
fn agent_absent() -> String {
    in_cluster(2, false, async |cluster| {
        cluster.pass(60).await;
        cluster.world.lose_agent("w-1");
        cluster.apply(UPDATE, json!({})).await;
        until_told(cluster, UPDATE, "AgentAbsent").await;
        let text = told(cluster, UPDATE);
        cluster.cancel().await;
        assert_eq!(cluster.at_rest(UPDATE).await.0, Phase::Cancelled, "{text}");
        text
    })
}

fn node_not_ready() -> String {
    in_cluster(2, false, async |cluster| {
        cluster.pass(60).await;
        cluster.world.lose_kubelet("w-1");
        cluster.pass(120).await;
        cluster.apply(UPDATE, json!({})).await;
        until_told(cluster, UPDATE, "NodeNotReady").await;
        let text = told(cluster, UPDATE);
        cluster.cancel().await;
        assert_eq!(cluster.at_rest(UPDATE).await.0, Phase::Cancelled, "{text}");
        text
    })
}

fn soak() -> String {
    in_cluster(3, false, async |cluster| {
        let canary = json!({"enabled": true, "nodes": ["w-2"], "soak": "30m"});
        cluster.apply(UPDATE, json!({"strategy": "canary", "canary": canary})).await;
        until_told(cluster, UPDATE, "are watched until").await;
        seen(cluster, UPDATE, async || {}).await
    })
}

fn another_update() -> String {
    in_cluster(1, false, async |cluster| {
        cluster.apply("first", json!({})).await;
        cluster.apply("second", json!({})).await;
        until_told(cluster, "second", "waits for DirectUpdate first").await;
        seen(cluster, "second", async || {}).await
    })
}

fn api_away() -> String {
    in_cluster(2, false, async |cluster| {
        cluster.apply(UPDATE, json!({})).await;
        cluster.eventually("a worker is cordoned", async || cluster.is_cordoned("w-1")).await;
        cluster.world.cut_off(true);
        cluster.pass(120).await;
        let mut text = String::from("-- while it is away, as it was written last:\n");
        text.push_str(&told(cluster, UPDATE));
        cluster.world.cut_off(false);
        cluster.pass(20).await;
        text.push_str("-- 20 s after it is back:\n");
        text.push_str(&seen(cluster, UPDATE, async || {}).await);
        text
    })
}

fn disk_full() -> String {
    in_cluster(2, false, async |cluster| {
        cluster.apply(UPDATE, json!({})).await;
        cluster.eventually("w-1 has an order", async || cluster.task("w-1").spec.order.is_some()).await;
        let disk = cluster.world.machine("w-1").unwrap().disk();
        disk.fill(true);
        cluster.pass(60).await;
        seen(cluster, UPDATE, async || disk.fill(false)).await
    })
}

fn node_busy() -> String {
    in_cluster(1, false, async |cluster| {
        let machine = cluster.world.machine("cp-1").unwrap();
        machine.slow_kubeadm(TimeDelta::minutes(25));
        cluster.apply("first", json!({"nodeTimeout": "10m"})).await;
        let begun = async || cluster.world.effects().iter().any(|effect| effect.name.kind == EffectKind::Kubeadm);
        cluster.eventually("kubeadm has begun", begun).await;
        cluster.patch("first", json!({"spec": {"control": {"cancel": {"requestId": "cancel-1"}}}})).await;
        cluster.eventually("the update is over", async || cluster.phase("first").0 == Phase::Cancelled).await;
        machine.slow_kubeadm(TimeDelta::zero());
        cluster.apply("second", json!({})).await;
        until_told(cluster, "second", "still at work for an update that is over").await;
        seen(cluster, "second", async || {}).await
    })
}

fn run_refused() -> String {
    in_cluster(2, true, async |cluster| {
        cluster.apply(UPDATE, json!({})).await;
        cluster.eventually("it has begun", async || cluster.phase(UPDATE).0 == Phase::InProgress).await;
        let until = cluster.world.now() + TimeDelta::minutes(20);
        let message = "upgraderuns.cupcake.ricardomolendijk.com \"to-1-34\" is forbidden: User \"operator\" cannot update resource";
        Refusing::begin(cluster, until, Failure::new(http::StatusCode::FORBIDDEN, "Forbidden", message));
        until_told(cluster, UPDATE, "is forbidden").await;
        seen(cluster, UPDATE, async || {}).await
    })
}

#[test]
fn whatever_an_update_waits_for_it_says_so_everywhere_and_names_the_next_command() {
    let stalls = [
        stall("A disruption budget lets no pod go", budget),
        stall("Its window is closed, and nothing has begun", || window(120, 300, "outside spec.maintenanceWindow")),
        stall("Its window has closed under way", || window(-60, 3, "outside spec.maintenanceWindow")),
        stall("A person has to approve", approval),
        stall("An agent is absent", agent_absent),
        stall("A node is not Ready", node_not_ready),
        stall("Canaries are watched", soak),
        stall("Another update owns the cluster", another_update),
        stall("A machine is still at work for an update that is over", node_busy),
        stall("The API server refuses to record the run", run_refused),
        stall("The API server is away", api_away),
        stall("A disk is full, and the machine tries again", disk_full),
    ];
    let mut text = String::from(
        "# What an update says of itself in each way to wait. Written by: UPDATE_GOLDENS=1 cargo test -p cupcake-tests stalls\n",
    );
    for Stall { title, text: told } in &stalls {
        let _ = write!(text, "\n## {title}\n{told}");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/stalls.txt");
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == text, "what waits says something else; UPDATE_GOLDENS=1 takes this over:\n{text}");
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/stalls.md")).unwrap();
    let shown = stalls.iter().find(|stall| stall.title == "An agent is absent").unwrap();
    assert!(page.contains(&shown.text), "docs/stalls.md shows something else than:\n{}", shown.text);
}

#[test]
fn a_refusal_a_pause_and_a_rest_are_answered_with_the_command_that_ends_them() {
    let last = |cluster: &Cluster| answer(cluster, UPDATE).pop().unwrap();
    in_cluster(1, false, async |cluster| {
        cluster.apply(UPDATE, json!({"targetVersion": "1.31.1"})).await;
        cluster.at_rest(UPDATE).await;
        let preflight = "kubectl get directupdate to-1-34 --output yaml | kubectl cupcake preflight --filename -";
        assert_eq!(last(cluster), format!("next:  {preflight}"));
    });
    in_cluster(1, false, async |cluster| {
        cluster.apply(UPDATE, json!({"control": {"pause": {"requestId": "pause-1", "reason": "CHG-4711"}}})).await;
        cluster.pass(60).await;
        assert_eq!(cluster.update(UPDATE).unwrap().status.unwrap().run, None);
        assert_eq!(last(cluster), "next:  kubectl cupcake resume to-1-34", "paused before it begins");
    });
    in_cluster(2, false, async |cluster| {
        cluster.apply_then_freeze(UPDATE, json!({})).await;
        cluster.eventually("it runs", async || cluster.phase(UPDATE).0 == Phase::InProgress).await;
        let pause = |pause: Value| json!({"spec": {"control": {"pause": pause}}});
        cluster.patch(UPDATE, pause(json!({"requestId": "pause-1", "reason": "CHG-4711"}))).await;
        cluster.pass(60).await;
        let told = answer(cluster, UPDATE).join("\n");
        assert!(told.contains("held by a pause") && told.contains("CHG-4711"), "{told}");
        assert_eq!(last(cluster), "next:  kubectl cupcake resume to-1-34");
        cluster.patch(UPDATE, pause(Value::Null)).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::RequiresAttention, "{message}");
        assert_eq!(last(cluster), "next:  kubectl cupcake retry to-1-34 w-1", "{}", answer(cluster, UPDATE).join("\n"));
        cluster.cancel().await;
        cluster.eventually("it is over", async || cluster.phase(UPDATE).0 == Phase::Cancelled).await;
        assert_eq!(last(cluster), "next:  kubectl cupcake status to-1-34");
    });
}
