//! Why an update is where it is: what holds the whole of it, what each step waits for, and the next command to type. Pure.
//!
//! ```text
//!  update (conditions, spec, time) ─► holds ┐
//!  runs (views) ──────────────────► waits ──┼─► next ─► lines, or JSON
//! ```

mod holds;
mod next;
mod text;

use super::View;
use super::tree::run_of;
use super::words::{one_line, state_of};
use crate::templates::CHILD_RUN;
use chrono::TimeDelta;
use cupcake_crds::values::Phase;
use cupcake_crds::{DirectUpdate, UpgradeRun};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::cursor::VertexState;
use cupcake_engine::dag::Vertex;
pub use holds::RUN_REFUSED;
use serde::Serialize;

/// A run as it is now; without a view where this release cannot read its plan.
#[derive(Debug, Clone, Copy)]
pub struct RunNow<'a> {
    /// The run.
    pub run: &'a UpgradeRun,
    /// Its graph and cursor.
    pub view: Option<View<'a>>,
}

/// Why an update is where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Why {
    /// Name of the DirectUpdate.
    pub update: String,
    /// The version to arrive at.
    pub target_version: String,
    /// Where it stands.
    pub phase: Phase,
    /// What its status says.
    pub message: String,
    /// What holds the whole of it.
    pub holds: Vec<Hold>,
    /// Each step that waits, is to be tried again or has failed, in the order of the plan, a run before those below it.
    pub waits: Vec<Wait>,
    /// Steps that are at work and wait for nothing, as far as their machines have said.
    pub at_work: Vec<Working>,
    /// The exact next command.
    pub next: String,
}

/// By what the whole of an update is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HeldBy {
    /// No operator has looked at it yet.
    Nobody,
    /// Something stands in its way: it is refused until that is gone.
    Refusal,
    /// Another update owns the cluster.
    AnotherUpdate,
    /// A person, until they let it go on.
    Pause,
    /// A gate that a person has to open.
    Approval,
    /// Its own time is over.
    TimeOut,
    /// Its maintenance window is closed.
    Window,
    /// It rests until a person has mended what failed.
    Failure,
    /// Something of the cluster that it has to read, or another word of its operator.
    Operator,
}

/// What holds the whole of an update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// By what.
    pub by: HeldBy,
    /// The same code that conditions, events and metrics have.
    pub code: String,
    /// In words.
    pub reason: String,
    /// Since when, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// When it ends by itself, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// A step that is at work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Working {
    /// Name of the UpgradeRun.
    pub run: String,
    /// Name of the step.
    pub vertex: String,
    /// Since when this attempt is.
    pub since: Timestamp,
}

/// How a step does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Standing {
    /// It waits for something.
    Waits,
    /// It failed, and is tried again.
    BacksOff,
    /// It failed, and is not tried again by itself.
    Failed,
}

/// A step that does not go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Wait {
    /// Name of the UpgradeRun.
    pub run: String,
    /// Name of the step.
    pub vertex: String,
    /// The node that it is about, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Whether it waits, is to be tried again, or has failed.
    pub standing: Standing,
    /// Which attempt it is, or was.
    pub attempt: u32,
    /// How many there are.
    pub attempts_max: u32,
    /// The same code that events and metrics have; empty where the cursor has no room for it.
    pub code: String,
    /// In words.
    pub reason: String,
    /// Since when: the beginning of the wait, of the attempts, or the failure.
    pub since: Timestamp,
    /// When it looks again at the latest, or is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// When it is given up if nothing changes. Moves on by the time in which nobody could look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fails: Option<Timestamp>,
}

/// Why an update is where it is, from the object itself and its runs, a parent before its children.
pub fn why(update: &DirectUpdate, runs: &[RunNow<'_>], now: Timestamp) -> Why {
    let status = update.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or_default();
    let mut waits = Vec::new();
    let mut at_work = Vec::new();
    // What has ended is not tried again by itself, nor by a retry.
    let is_over = |run: &UpgradeRun| run.status.as_ref().and_then(|status| status.phase).is_some_and(Phase::is_final);
    for one in runs.iter().filter(|one| !phase.is_final() && !is_over(one.run)) {
        let Some(view) = &one.view else { continue };
        let below = |vertex: &Vertex| {
            let run = run_of(vertex).filter(|_| vertex.kind.as_str() == CHILD_RUN);
            run.is_some_and(|run| runs.iter().any(|one| one.view.is_some() && name_of(one.run) == run))
        };
        for vertex in view.dag.vertices().iter().filter(|vertex| !below(vertex)) {
            if let VertexState::Started { since, .. } = state_of(view, vertex) {
                let (run, vertex) = (name_of(one.run).to_owned(), vertex.name.as_str().to_owned());
                at_work.push(Working { run, vertex, since });
            }
            waits.extend(wait(name_of(one.run), view, vertex));
        }
    }
    let holds = holds::holds(update, runs, &waits, now);
    let next = next::next(update, runs, &holds, &waits);
    Why {
        update: update.metadata.name.clone().unwrap_or_default(),
        target_version: update.spec.target_version.trim_start_matches('v').to_owned(),
        phase,
        message: status.message.unwrap_or_default(),
        holds,
        waits,
        at_work,
        next,
    }
}

fn name_of(run: &UpgradeRun) -> &str {
    run.metadata.name.as_deref().unwrap_or_default()
}

/// What a vertex waits for, if it does.
fn wait(run: &str, view: &View<'_>, vertex: &Vertex) -> Option<Wait> {
    let state = state_of(view, vertex);
    let fails = |first: Timestamp| Some(first + TimeDelta::seconds(i64::from(vertex.deadline_seconds)));
    let (standing, since, until, fails) = match state {
        VertexState::Waiting { first, since, until, .. } => (Standing::Waits, since, Some(until), fails(first)),
        VertexState::BackingOff { first, until, .. } => (Standing::BacksOff, first, Some(until), fails(first)),
        VertexState::Failed { ended, .. } => (Standing::Failed, ended, None, None),
        VertexState::Pending { .. }
        | VertexState::Started { .. }
        | VertexState::Succeeded { .. }
        | VertexState::Skipped { .. } => return None,
    };
    let note = view.cursor.note(&vertex.name);
    Some(Wait {
        run: run.to_owned(),
        vertex: vertex.name.as_str().to_owned(),
        node: vertex.lane.as_deref().and_then(|lane| lane.rsplit('/').next()).map(str::to_owned),
        standing,
        attempt: state.attempts(),
        attempts_max: vertex.attempts_max.max(state.attempts()),
        code: note.map(|note| note.code.clone()).unwrap_or_default(),
        reason: note.map(|note| one_line(&note.message)).unwrap_or_default(),
        since,
        until,
        fails,
    })
}

#[cfg(test)]
mod tests;
