//! What people ask of an update, at each step of it: where the update comes to rest, and what it leaves.
//!
//! ```text
//!  an undisturbed run ──► moments: each vertex, when its beginning is recorded
//!  moment x request   ──► a world of its own: the request is made at that moment ──► Row
//! ```

use super::{AFTERMATH_SECONDS, Schedule, Settings, UPGRADE, begin};
use crate::machine::kube::Refused;
use crate::world::{self, Speed, Upgrade, World, WorldError};
use chrono::TimeDelta;
use cupcake_crds::node_task::TaskState;
use cupcake_crds::values::Concurrency;
use cupcake_crds::{GROUP, NodeTask, UpgradePlan, UpgradeRun, VERSION};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::cursor::VertexState;
use cupcake_engine::dag::Dag;
use cupcake_engine::plan::Plan;
use cupcake_operator::adapters::kube_store::cursor_of;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// How long a paused update is watched before it goes on: longer than any step of a machine takes.
const PAUSED_SECONDS: i64 = 1_800;
/// After how long an update that is asked for something is given up: many times as long as it takes.
const GIVEN_UP_SECONDS: i64 = 6 * 3_600;
/// How the requests are named.
const REQUEST: &str = "asked";
/// What a person edits the target to, which is refused under way.
const EDITED_VERSION: &str = "1.24.1";

/// What a person asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Asked {
    /// Begin nothing new.
    Pause,
    /// Go on, half an hour after a pause.
    Resume,
    /// End for good.
    Cancel,
    /// The update is deleted.
    Delete,
    /// Try that step again, which has not failed.
    Retry,
    /// Leave that node out; the last worker where the step is about no node.
    Skip,
    /// Go to another version.
    Edit,
}

impl Asked {
    /// All of it.
    pub const ALL: [Self; 7] =
        [Self::Pause, Self::Resume, Self::Cancel, Self::Delete, Self::Retry, Self::Skip, Self::Edit];
    /// What gives worlds of their own: who resumes has paused.
    pub const WORLDS: [Self; 6] = [Self::Pause, Self::Cancel, Self::Delete, Self::Retry, Self::Skip, Self::Edit];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
            Self::Delete => "delete",
            Self::Retry => "retry",
            Self::Skip => "skip",
            Self::Edit => "edit",
        }
    }

    /// How an update may rest that was asked this; one at its very end is over before it hears.
    const fn rests(self) -> &'static [&'static str] {
        match self {
            Self::Pause => &["Paused", "Succeeded"],
            Self::Cancel => &["Cancelled", "Succeeded"],
            Self::Delete => &["Gone"],
            Self::Resume | Self::Retry | Self::Skip | Self::Edit => &["Succeeded"],
        }
    }
}

/// When something is asked: as soon as the beginning of a vertex is recorded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Moment {
    /// The run that has the vertex.
    pub run: String,
    /// The vertex.
    pub vertex: String,
    /// The node that it is about, if it is about one.
    pub node: Option<String>,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// When it was asked.
    #[serde(flatten)]
    pub moment: Moment,
    /// What was asked.
    pub asked: Asked,
    /// Where the update rests: its phase, `Paused`, or `Gone`.
    pub rests: String,
    /// Whether the update came to that moment: what was asked at another one shows nothing.
    pub reached: bool,
    /// Whether the API server refused the request.
    pub refused: bool,
    /// What was answered under the request's name; nothing where it has none.
    pub answer: Option<String>,
    /// Nodes that are cordoned then; nobody but the update cordons any.
    pub cordoned: Vec<String>,
    /// Effects that began once a pause or a cancel was answered, but for what an order of before may still bring to its end: one step
    /// where it was cancelled, its part where it was paused.
    pub late_effects: u32,
    /// What must never be, and was.
    pub violations: Vec<String>,
}

impl Row {
    /// Whether all is as it has to be.
    pub fn is_right(&self) -> bool {
        let rests = self.asked.rests().contains(&self.rests.as_str());
        let taken = match self.asked {
            Asked::Pause | Asked::Resume | Asked::Cancel | Asked::Retry | Asked::Skip => {
                self.answer.is_some() && !self.refused
            }
            Asked::Delete => !self.refused,
            Asked::Edit => self.refused,
        };
        // A pause lets nothing new happen: the node that is being emptied waits as it is, and is given back after it.
        let at_hand = |node: &String| self.rests == "Paused" && self.moment.node.as_ref() == Some(node);
        self.reached
            && taken
            && rests
            && self.cordoned.iter().all(at_hand)
            && self.late_effects == 0
            && self.violations.is_empty()
    }
}

/// Every vertex of an undisturbed run, in the order in which their beginnings are recorded.
///
/// # Errors
/// When there can be no such cluster.
pub fn moments(settings: &Settings, seed: u64) -> Result<Vec<Moment>, WorldError> {
    world::runtime(Speed::Fastest)?.block_on(async {
        let world = begin(settings, &calm(seed), false)?;
        let mut watch = Watch::default();
        let mut moments = Vec::new();
        let update = upgrade_of(settings);
        let work = world.upgrade(&update);
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                outcome = &mut work => {
                    outcome?;
                    moments.extend(watch.begun(&world));
                    return Ok(moments);
                }
                () = world.progress() => moments.extend(watch.begun(&world)),
            }
        }
    })
}

/// Asks something at a moment, and tells what became of it; two rows where the update goes on from a pause.
///
/// # Errors
/// As [`moments`].
pub fn ask(settings: &Settings, seed: u64, moment: &Moment, asked: Asked) -> Result<Vec<Row>, WorldError> {
    world::runtime(Speed::Fastest)?.block_on(async {
        let world = begin(settings, &calm(seed), false)?;
        let update = upgrade_of(settings);
        let person = Person { world: &world, settings, moment };
        let work = async {
            let _outcome = world.upgrade(&update).await?;
            // The person is the one who says when it is over.
            std::future::pending::<Result<Vec<Row>, WorldError>>().await
        };
        tokio::select! {
            biased;
            ended = work => ended,
            rows = person.asks(asked) => Ok(rows),
        }
    })
}

fn calm(seed: u64) -> Schedule {
    Schedule { seed, faults: Vec::new() }
}

fn upgrade_of(settings: &Settings) -> Upgrade {
    Upgrade { name: UPGRADE.to_owned(), to: settings.to, concurrency: Concurrency::Nodes(settings.concurrency) }
}

/// Whoever waits for a moment, asks, and looks what becomes of it.
struct Person<'w> {
    world: &'w World,
    settings: &'w Settings,
    moment: &'w Moment,
}

impl Person<'_> {
    async fn asks(&self, asked: Asked) -> Vec<Row> {
        let mut watch = Watch::default();
        let mut reached = false;
        self.until(|| {
            reached |= watch.begun(self.world).any(|moment| moment == *self.moment);
            reached || self.is_over()
        })
        .await;
        let refused = self.request(asked).is_err();
        let made = Made { reached, refused };
        if matches!(asked, Asked::Pause | Asked::Cancel) {
            self.until(|| self.answer().is_some() || self.is_over()).await;
        }
        let before = Standing::of(self.world);
        if asked == Asked::Pause {
            self.pass(PAUSED_SECONDS).await;
            let paused = self.row(asked, &made, &before);
            let refused = self.request(Asked::Resume).is_err();
            self.until(|| self.is_over()).await;
            self.pass(AFTERMATH_SECONDS).await;
            return vec![paused, self.judged(Asked::Resume, &Made { reached, refused }, &Standing::of(self.world))];
        }
        self.until(|| self.is_over()).await;
        self.pass(AFTERMATH_SECONDS).await;
        vec![self.judged(asked, &made, &before)]
    }

    fn request(&self, asked: Asked) -> Result<(), Refused> {
        let request = json!({"requestId": REQUEST});
        let of = |vertex: &str| json!([{"requestId": REQUEST, "vertex": vertex}]);
        match asked {
            Asked::Pause => self.change(&json!({"spec": {"control": {"pause": request}}})),
            Asked::Resume => self.change(&json!({"spec": {"control": {"pause": null}}})),
            Asked::Cancel => self.change(&json!({"spec": {"control": {"cancel": request}}})),
            Asked::Retry => self.change(&json!({"spec": {"control": {"retry": of(&self.moment.vertex)}}})),
            Asked::Skip => {
                let last = format!("{}-{}", self.world.config().workers_named, self.settings.workers);
                let node = self.moment.node.as_deref().unwrap_or(&last);
                self.change(&json!({"spec": {"control": {"skip": of(node)}}}))
            }
            Asked::Edit => self.change(&json!({"spec": {"targetVersion": EDITED_VERSION}})),
            Asked::Delete => {
                let update = self.world.server().get(GROUP, "directupdates", "", UPGRADE);
                update.map_or(Ok(()), |update| self.world.user().delete(&path(), update.uid()))
            }
        }
    }

    fn change(&self, change: &Value) -> Result<(), Refused> {
        self.world.user().merge(&path(), change)
    }

    /// Waits until something holds, looking at each write of an update or a run, or it is given up.
    async fn until(&self, mut holds: impl FnMut() -> bool) {
        let clock = self.world.clock();
        let given_up = self.world.now() + TimeDelta::seconds(GIVEN_UP_SECONDS);
        while !holds() && self.world.now() < given_up {
            tokio::select! {
                biased;
                () = self.world.progress() => {}
                () = clock.sleep_until(self.world.now() + TimeDelta::seconds(1)) => {}
            }
        }
    }

    async fn pass(&self, seconds: i64) {
        self.world.clock().sleep_until(self.world.now() + TimeDelta::seconds(seconds)).await;
    }

    fn update(&self) -> Option<Value> {
        self.world.server().get(GROUP, "directupdates", "", UPGRADE).map(|update| update.value().clone())
    }

    fn answer(&self) -> Option<String> {
        let update = self.update()?;
        let answers = update["status"]["acknowledged"].as_array()?.clone();
        let own = answers.iter().find(|answer| answer["requestId"] == REQUEST)?;
        Some(own["message"].as_str().unwrap_or_default().to_owned())
    }

    /// Whether the update has come to its end, rests, or is gone.
    fn is_over(&self) -> bool {
        self.update().is_none_or(|update| {
            matches!(
                update["status"]["phase"].as_str(),
                Some("Succeeded" | "Failed" | "Cancelled" | "RequiresAttention")
            )
        })
    }

    fn rests(&self) -> String {
        let Some(update) = self.update() else { return "Gone".to_owned() };
        let paused =
            update["status"]["conditions"].as_array().into_iter().flatten().any(|condition| {
                condition["type"] == cupcake_crds::conditions::PAUSED && condition["status"] == "True"
            });
        let phase = update["status"]["phase"].as_str().unwrap_or("Pending");
        if paused && phase == "InProgress" { "Paused".to_owned() } else { phase.to_owned() }
    }

    /// As [`Self::row`], with what must hold of an update that has come to its end.
    fn judged(&self, asked: Asked, made: &Made, before: &Standing) -> Row {
        if self.update().is_some() {
            self.world.judge(UPGRADE);
        }
        self.row(asked, made, before)
    }

    fn row(&self, asked: Asked, made: &Made, before: &Standing) -> Row {
        let nodes = self.world.server().list("", "nodes");
        let cordoned = nodes.iter().filter(|node| node.value()["spec"]["unschedulable"] == Value::Bool(true));
        let violations = self.world.violations();
        Row {
            moment: self.moment.clone(),
            asked,
            rests: self.rests(),
            reached: made.reached,
            refused: made.refused,
            answer: self.answer(),
            cordoned: cordoned.map(|node| node.name().to_owned()).collect(),
            late_effects: before.late_effects(self.world, asked),
            violations: violations.into_iter().map(|one| format!("{}: {}", one.invariant, one.what)).collect(),
        }
    }
}

fn path() -> String {
    format!("/apis/{GROUP}/{VERSION}/directupdates/{UPGRADE}")
}

/// How a request was made.
struct Made {
    reached: bool,
    refused: bool,
}

/// What had begun when a request was answered.
struct Standing {
    /// How often effects had begun on each machine.
    begun: BTreeMap<String, u32>,
    /// Machines with an open order, which they may bring to its safe point.
    ordered: BTreeSet<String>,
}

impl Standing {
    fn of(world: &World) -> Self {
        let tasks = objects::<NodeTask>(world, "nodetasks");
        let is_open = |task: &NodeTask| task.spec.order.is_some() && !task.answer().is_some_and(TaskState::is_final);
        let ordered = tasks.into_iter().filter(|(_, task)| is_open(task)).map(|(name, _)| name).collect();
        Self { begun: begun(world), ordered }
    }

    /// Effects since then, beyond what an order of before may still do.
    fn late_effects(&self, world: &World, asked: Asked) -> u32 {
        let since = begun(world).into_iter().map(|(node, begun)| {
            let begun = begun - self.begun.get(&node).copied().unwrap_or_default();
            match (asked, self.ordered.contains(&node)) {
                (Asked::Pause | Asked::Cancel, false) => begun,
                // What it was at, or just about to begin, when it was asked to stop.
                (Asked::Cancel, true) => begun.saturating_sub(1),
                // A pause lets a machine come to the end of its part; the others hold nothing up.
                (Asked::Pause, true)
                | (Asked::Resume | Asked::Delete | Asked::Retry | Asked::Skip | Asked::Edit, _) => 0,
            }
        });
        since.sum()
    }
}

fn begun(world: &World) -> BTreeMap<String, u32> {
    let mut begun = BTreeMap::new();
    for effect in world.effects() {
        *begun.entry(effect.name.node).or_default() += effect.begun;
    }
    begun
}

fn objects<K: DeserializeOwned>(world: &World, plural: &str) -> Vec<(String, K)> {
    let objects = world.server().list(GROUP, plural);
    objects.iter().filter_map(|one| Some((one.name().to_owned(), K::deserialize(one.value()).ok()?))).collect()
}

/// Which vertices have begun so far, by what the runs record.
#[derive(Default)]
struct Watch {
    dags: BTreeMap<String, Dag>,
    seen: BTreeSet<(String, String)>,
}

impl Watch {
    /// Those that have begun since the last look.
    fn begun(&mut self, world: &World) -> impl Iterator<Item = Moment> + use<> {
        let mut moments: Vec<(Timestamp, Moment)> = Vec::new();
        for (name, run) in objects::<UpgradeRun>(world, "upgraderuns") {
            let plan = run.spec.plan.name.clone();
            if !self.dags.contains_key(&plan)
                && let Some(dag) = dag(world, &plan)
            {
                self.dags.insert(plan.clone(), dag);
            }
            let Some(dag) = self.dags.get(&plan) else { continue };
            let Ok(cursor) = cursor_of(&run, dag) else { continue };
            for vertex in dag.vertices() {
                let Some(first) = cursor.state(&vertex.name).and_then(begun_at) else { continue };
                if self.seen.insert((name.clone(), vertex.name.to_string())) {
                    let node = vertex.params["node"]["name"].as_str().map(str::to_owned);
                    moments.push((first, Moment { run: name.clone(), vertex: vertex.name.to_string(), node }));
                }
            }
        }
        moments.sort();
        moments.into_iter().map(|(_, moment)| moment)
    }
}

/// When a vertex began, if it did.
fn begun_at(state: VertexState) -> Option<Timestamp> {
    match state {
        VertexState::Started { first, .. }
        | VertexState::Waiting { first, .. }
        | VertexState::BackingOff { first, .. }
        | VertexState::Succeeded { first, .. }
        | VertexState::Failed { first, .. } => Some(first),
        VertexState::Pending { .. } | VertexState::Skipped { .. } => None,
    }
}

fn dag(world: &World, plan: &str) -> Option<Dag> {
    let object = world.server().get(GROUP, "upgradeplans", "", plan)?;
    let plan = UpgradePlan::deserialize(object.value()).ok()?;
    serde_json::from_value::<Plan>(plan.spec.plan).ok()?.expand().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cupcake_crds::values::KubeVersion;

    #[test]
    fn each_request_in_the_drain_of_a_worker_comes_to_what_it_has_to_and_a_row_that_does_not_is_told() {
        let settings = Settings {
            control_planes: 1,
            workers: 2,
            from: KubeVersion::new(1, 33, 4),
            to: KubeVersion::new(1, 34, 4),
            start: Timestamp::from_timestamp(1_790_000_000, 0).unwrap(),
            operators: 2,
            concurrency: 1,
            without: BTreeSet::new(),
        };
        let moments = moments(&settings, 1).unwrap();
        let drain = moments.iter().find(|moment| moment.vertex == "w-1/drain").expect("a worker is drained");
        let rows: Vec<Row> =
            Asked::WORLDS.into_iter().flat_map(|asked| ask(&settings, 1, drain, asked).unwrap()).collect();
        let rests: Vec<(Asked, &str)> = rows.iter().map(|row| (row.asked, row.rests.as_str())).collect();
        let wanted = Asked::ALL.map(|asked| (asked, asked.rests()[0]));
        assert_eq!(rests, wanted);
        assert!(rows.iter().all(Row::is_right), "{rows:#?}");
        assert_eq!(rows[0].cordoned, ["w-1"], "it waits as it is");
        for wrong in [
            Row { reached: false, ..rows[0].clone() },
            Row { answer: None, ..rows[2].clone() },
            Row { cordoned: vec!["w-2".to_owned()], ..rows[0].clone() },
            Row { cordoned: vec!["w-1".to_owned()], ..rows[2].clone() },
            Row { late_effects: 1, ..rows[2].clone() },
            Row { rests: "RequiresAttention".to_owned(), ..rows[2].clone() },
            Row { refused: false, ..rows[6].clone() },
            Row { violations: vec!["I2: seen".to_owned()], ..rows[3].clone() },
        ] {
            assert!(!wrong.is_right(), "{wrong:?}");
        }
        let never = Moment { vertex: "w-1/never".to_owned(), ..drain.clone() };
        assert!(!ask(&settings, 1, &never, Asked::Retry).unwrap()[0].is_right(), "there is no such step");
    }
}
