//! An update with its tree of runs and their plans, as it was read at one moment; and how it reads as text.

use cupcake_crds::upgrade_run::ChildRun;
use cupcake_crds::values::Phase;
use cupcake_crds::{DirectUpdate, UpgradePlan, UpgradeRun};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::codec;
use cupcake_engine::cursor::Cursor;
use cupcake_engine::dag::Dag;
use cupcake_engine::plan::Plan;
use cupcake_workflows::render::{self, Glyphs, Left, RunNow, View, Why, Workers};
use kube::ResourceExt as _;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Graphs by name of the UpgradePlan: plans never change, so they are expanded once.
pub type Graphs = BTreeMap<String, Arc<Dag>>;

/// How much of a forest is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// What happens now; the rest is folded.
    Short,
    /// Every vertex of every run.
    Full,
}

/// One upgrade.
#[derive(Debug, Clone)]
pub struct Forest {
    /// What was asked for, if it is still there.
    pub update: Option<DirectUpdate>,
    /// The runs: a parent before its children, siblings in the order in which they were made.
    pub runs: Vec<UpgradeRun>,
}

impl Forest {
    /// The upgrade that `name` names (a DirectUpdate, or any of its runs), or the newest one, unfinished ones first.
    pub fn pick(updates: &[DirectUpdate], runs: &[UpgradeRun], name: Option<&str>) -> Option<Self> {
        let roots = runs.iter().filter(|run| run.spec.parent.is_none());
        let root = if let Some(name) = name {
            let named = runs.iter().find(|run| run.name_any() == name);
            let of_update =
                || roots.filter(|run| run.spec.direct_update.name == name).max_by_key(|run| run.creation_timestamp());
            named.map(|run| root_of(run, runs)).or_else(of_update)
        } else {
            // What waits or was refused has no run yet, and is more of interest than what is over.
            let newest = roots.max_by_key(|run| (!is_finished(run), run.creation_timestamp()));
            newest.filter(|run| !is_finished(run) || !updates.iter().any(is_to_begin))
        };
        let update_name = root.map(|root| root.spec.direct_update.name.as_str());
        let update = match (update_name, name) {
            (Some(update), _) => updates.iter().find(|one| one.name_any() == update),
            // Without a run there may still be an update that waits or was refused.
            (None, Some(name)) => updates.iter().find(|one| one.name_any() == name),
            (None, None) => updates.iter().max_by_key(|one| (is_to_begin(one), one.creation_timestamp())),
        };
        if root.is_none() && update.is_none() {
            return None;
        }
        let mut picked = Vec::new();
        if let Some(root) = root {
            gather(root, runs, &mut picked);
        }
        Some(Self { update: update.cloned(), runs: picked })
    }

    /// Where the upgrade stands.
    pub fn phase(&self) -> Phase {
        let root = self.runs.first().and_then(|run| run.status.as_ref()).and_then(|status| status.phase);
        let update = self.update.as_ref().and_then(|update| update.status.as_ref()).and_then(|status| status.phase);
        update.or(root).unwrap_or(Phase::Pending)
    }

    /// What it is and what happens, in one or two lines.
    fn head(&self) -> Vec<String> {
        let mut lines = vec![self.title()];
        let status = self.update.as_ref().and_then(|update| update.status.as_ref());
        if let Some(message) = status.and_then(|status| status.message.as_ref()) {
            lines.push(format!("  {message}"));
        }
        lines
    }

    /// The cursors of the runs that this release can read, by name.
    pub fn cursors<'f>(&'f self, graphs: &'f Graphs) -> BTreeMap<&'f str, (&'f Dag, Cursor)> {
        let read = |run: &'f UpgradeRun| {
            let dag = graphs.get(&run.spec.plan.name)?;
            let text = run.status.as_ref()?.cursor.as_ref()?;
            let cursor = codec::decode(text, &run.spec.plan.digest, dag).ok()?;
            Some((run.metadata.name.as_deref()?, (&**dag, cursor)))
        };
        self.runs.iter().filter_map(read).collect()
    }

    /// Where the time of the upgrade went, as lines of at most that width but for the message.
    pub fn timeline(&self, graphs: &Graphs, now: Timestamp, width: usize, glyphs: Glyphs) -> Vec<String> {
        let mut lines = self.head();
        let cursors = self.cursors(graphs);
        let view = |dag, cursor| View { dag, cursor, now, children: &[] };
        let runs = cursors.iter().map(|(name, (dag, cursor))| (*name, view(*dag, cursor))).collect();
        let root = self.runs.first().map(kube::ResourceExt::name_any).unwrap_or_default();
        lines.extend(render::timeline(&root, &runs, width, glyphs));
        lines
    }

    /// Why the update is where it is; nothing if it is gone.
    pub fn why(&self, graphs: &Graphs, now: Timestamp) -> Option<Why> {
        let cursors = self.cursors(graphs);
        let view_of = |run: &UpgradeRun| {
            let (dag, cursor) = cursors.get(run.metadata.name.as_deref()?)?;
            Some(View { dag, cursor, now, children: &[] })
        };
        let runs: Vec<RunNow<'_>> = self.runs.iter().map(|run| RunNow { run, view: view_of(run) }).collect();
        Some(render::why(self.update.as_ref()?, &runs, now))
    }

    /// The upgrade as lines.
    pub fn lines(&self, graphs: &Graphs, now: Timestamp, detail: Detail, glyphs: Glyphs) -> Vec<String> {
        let mut lines = self.head();
        lines.extend(self.left(graphs, now).map(|left| format!("  workers: {}", left.line())));
        for (number, run) in self.runs.iter().enumerate() {
            let children = self.children_below(run);
            let is_leaf = children.is_empty();
            let shown = match detail {
                Detail::Full => true,
                // The root tells the story; of the others those that are at work in nodes.
                Detail::Short => number == 0 || (is_leaf && !is_finished(run) && run.status.is_some()),
            };
            if !shown {
                continue;
            }
            if number > 0 {
                lines.push(run_title(run));
            }
            lines.extend(run_lines(run, graphs.get(&run.spec.plan.name), &children, now, detail, glyphs));
        }
        lines
    }

    /// How long the workers may still take; nothing before one of them is done, nor in a hop that others follow, whose counts are not known.
    fn left(&self, graphs: &Graphs, now: Timestamp) -> Option<Left> {
        let status = self.update.as_ref()?.status.as_ref()?;
        let is_last = status.upgrade_path.as_ref().is_none_or(|path| path.current_step + 1 >= path.total_steps);
        if !is_last || self.phase() != Phase::InProgress {
            return None;
        }
        let cursors = self.cursors(graphs);
        let of_wave = |run: &&UpgradeRun| {
            let hop = run.spec.hop.is_some_and(|hop| hop.to_string() == self.update_target());
            hop && run.spec.parent.as_ref().is_some_and(|parent| parent.vertex.starts_with("batch-"))
        };
        let batches: Vec<(View<'_>, u32)> = self
            .runs
            .iter()
            .filter(of_wave)
            .filter_map(|run| {
                let (dag, cursor) = cursors.get(run.metadata.name.as_deref()?)?;
                let at_once = if is_finished(run) { 0 } else { run.spec.concurrency };
                Some((View { dag, cursor, now, children: &[] }, at_once))
            })
            .collect();
        let workers = Workers::of(&batches);
        let later = status.summary?.pending.saturating_sub(workers.waiting.iter().sum());
        workers.with_later(later).left()
    }

    fn update_target(&self) -> String {
        let target = self.update.as_ref().and_then(|update| update.spec.target().ok());
        target.map(|target| target.to_string()).unwrap_or_default()
    }

    fn title(&self) -> String {
        let name = match (&self.update, self.runs.first()) {
            (Some(update), _) => update.name_any(),
            (None, Some(run)) => run.spec.direct_update.name.clone(),
            (None, None) => String::new(),
        };
        let target = match (&self.update, self.runs.first()) {
            (Some(update), _) => update.spec.target_version.clone(),
            (None, Some(run)) => run.spec.target_version.to_string(),
            (None, None) => String::new(),
        };
        let progress =
            self.update.as_ref().and_then(|update| update.status.as_ref()).and_then(|status| status.progress.clone());
        let progress = progress.map_or_else(String::new, |progress| format!("  {progress}"));
        format!("{name} to {target}: {:?}{progress}", self.phase())
    }

    /// The runs below one, summed up for its picture.
    fn children_below(&self, run: &UpgradeRun) -> Vec<ChildRun> {
        let mut names = vec![run.name_any()];
        let mut children = Vec::new();
        for other in &self.runs {
            let Some(parent) = &other.spec.parent else { continue };
            if names.contains(&parent.run) {
                let status = other.status.as_ref();
                names.push(other.name_any());
                children.push(ChildRun {
                    name: other.name_any(),
                    phase: status.and_then(|status| status.phase).unwrap_or(Phase::Pending),
                    progress: status.and_then(|status| status.progress.clone()),
                });
            }
        }
        children
    }
}

fn root_of<'a>(run: &'a UpgradeRun, runs: &'a [UpgradeRun]) -> &'a UpgradeRun {
    let parent = run.spec.parent.as_ref().and_then(|parent| runs.iter().find(|other| other.name_any() == parent.run));
    parent.map_or(run, |parent| root_of(parent, runs))
}

fn gather(run: &UpgradeRun, runs: &[UpgradeRun], picked: &mut Vec<UpgradeRun>) {
    picked.push(run.clone());
    let name = run.name_any();
    let mut children: Vec<&UpgradeRun> =
        runs.iter().filter(|other| other.spec.parent.as_ref().is_some_and(|parent| parent.run == name)).collect();
    // Batches made in one second differ by number only, and 10 comes after 2.
    children.sort_by_key(|child| (child.creation_timestamp(), child.name_any().len(), child.name_any()));
    for child in children {
        gather(child, runs, picked);
    }
}

/// Whether nothing more will happen to a run.
pub fn is_finished(run: &UpgradeRun) -> bool {
    run.status.as_ref().and_then(|status| status.phase).is_some_and(Phase::is_final)
}

/// Whether an update has no run yet, and is not over.
fn is_to_begin(update: &DirectUpdate) -> bool {
    let status = update.status.as_ref();
    let over = status.and_then(|status| status.phase).is_some_and(Phase::is_final);
    !over && status.is_none_or(|status| status.run.is_none())
}

fn run_title(run: &UpgradeRun) -> String {
    let status = run.status.as_ref();
    let phase = status.and_then(|status| status.phase).unwrap_or(Phase::Pending);
    let progress = status.and_then(|status| status.progress.clone()).unwrap_or_default();
    format!("{}: {phase:?}  {progress}", run.name_any())
}

fn run_lines(
    run: &UpgradeRun,
    dag: Option<&Arc<Dag>>,
    children: &[ChildRun],
    now: Timestamp,
    detail: Detail,
    glyphs: Glyphs,
) -> Vec<String> {
    let status = run.status.as_ref();
    let cursor = status.and_then(|status| status.cursor.as_ref());
    let drawn = dag.zip(cursor).and_then(|(dag, text)| {
        let cursor = codec::decode(text, &run.spec.plan.digest, dag).ok()?;
        let view = View { dag, cursor: &cursor, now, children };
        Some(match detail {
            Detail::Short => render::status_lines(&view, glyphs),
            Detail::Full => render::full_tree(&view, glyphs),
        })
    });
    // A plan of a newer release cannot be drawn from here; its operator has drawn it.
    drawn.unwrap_or_else(|| status.map(|status| status.graph.clone()).unwrap_or_default())
}

/// Adds the graph of a plan, if this release can expand it.
pub fn add_graph(graphs: &mut Graphs, plan: &UpgradePlan) {
    let value = serde_json::to_value(&plan.spec.plan).unwrap_or_default();
    let parsed: Result<Plan, _> = serde_json::from_value(value);
    if let Ok(Ok(dag)) = parsed.map(|plan| plan.expand()) {
        graphs.insert(plan.name_any(), Arc::new(dag));
    }
}
