//! One line that says what happens now, or which command comes next.

use super::View;
use super::tree::run_of;
use super::words::{State, Time, between, detail, one_line, state_of};
use crate::templates::{CHILD_RUN, STRAGGLERS};
use cupcake_crds::limits::{MESSAGE_CHARS_MAX, STEP_CHARS_MAX, cut};
use cupcake_engine::cursor::RunPhase;
use cupcake_engine::dag::Vertex;
use cupcake_steps::cluster::{NODE_GONE, stragglers};

/// What the commands in a message are about.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// Name of the DirectUpdate.
    pub direct_update: &'a str,
    /// Name of this run.
    pub run: &'a str,
}

/// What happens now or, if a person is needed, what to do, ending in the exact command. One line of at most
/// [`MESSAGE_CHARS_MAX`] characters.
pub fn message(view: &View<'_>, names: &Names<'_>) -> String {
    let cursor = view.cursor;
    let reason = cursor.reason().map(|reason| one_line(&reason.message)).unwrap_or_default();
    let mut text = match cursor.phase() {
        RunPhase::Succeeded => {
            let took = cursor.finished().map(|finished| between(cursor.created(), finished)).unwrap_or_default();
            format!("{reason}, in {took}")
        }
        RunPhase::Failed => format!("{reason}; see: kubectl describe upgraderun {}", names.run),
        RunPhase::Cancelled => reason,
        RunPhase::RequiresAttention => format!("{reason}; {}", way_out(view, names)),
        RunPhase::Pending | RunPhase::InProgress if cursor.is_paused() => {
            let reason = if reason.starts_with("paused") { reason } else { format!("paused: {reason}") };
            format!("{reason}; to go on: {}", resume(names))
        }
        RunPhase::Pending if !reason.is_empty() => reason,
        RunPhase::Pending => "nothing was started yet".to_owned(),
        RunPhase::InProgress if cursor.is_cancelling() => format!("cancelling: {}", under_way(view)),
        // Nothing is under way: what holds it back says so.
        RunPhase::InProgress if foremost(view).is_none() && !reason.is_empty() => reason,
        RunPhase::InProgress => under_way(view),
    };
    cut(&mut text, MESSAGE_CHARS_MAX);
    text
}

/// The vertex that most needs a look, and how many others are under way: `worker-3/drain (+4)`. Nothing if nothing is.
pub fn current_step(view: &View<'_>) -> Option<String> {
    let (vertex, others) = foremost(view)?;
    let others = if others == 0 { String::new() } else { format!(" (+{others})") };
    let mut name = vertex.name.as_str().to_owned();
    cut(&mut name, STEP_CHARS_MAX - others.len());
    Some(name + &others)
}

/// The first vertex in plan order of the worst state, and how many more are under way. A failed one comes first only
/// while nothing is under way.
fn foremost<'a>(view: &View<'a>) -> Option<(&'a Vertex, usize)> {
    let mut best: Option<(State, &'a Vertex)> = None;
    let mut active = 0_usize;
    for vertex in view.dag.vertices() {
        let state = State::of(state_of(view, vertex));
        let rank = match state {
            State::Pending | State::Skipped | State::Done => continue,
            State::Failed => State::Failed,
            State::Running | State::BackingOff | State::Waiting => {
                active += 1;
                state
            }
        };
        let better = match best {
            None => true,
            Some((State::Failed, _)) => rank != State::Failed,
            Some((so_far, _)) => rank != State::Failed && rank > so_far,
        };
        if better {
            best = Some((rank, vertex));
        }
    }
    let (state, vertex) = best?;
    Some((vertex, if state == State::Failed { 0 } else { active - 1 }))
}

fn under_way(view: &View<'_>) -> String {
    let Some((vertex, others)) = foremost(view) else {
        return "between two steps".to_owned();
    };
    let mut text = vertex.name.as_str().to_owned();
    let own = run_of(vertex).and_then(|run| view.children.iter().find(|child| child.name == run));
    if let Some(progress) = own.and_then(|child| child.progress.as_ref()) {
        text = format!("{text} {progress}");
    }
    let detail = detail(view, vertex, Time::Inside);
    if !detail.is_empty() {
        text = format!("{text} {detail}");
    } else if let Some(first) = super::words::first_of(state_of(view, vertex)) {
        text = format!("{text} for {}", between(first, view.now()));
    }
    let failed = view.dag.vertices().iter().filter(|vertex| State::of(state_of(view, vertex)) == State::Failed).count();
    if others > 0 {
        text = format!("{text}; {others} more under way");
    }
    if failed > 0 && State::of(state_of(view, vertex)) != State::Failed {
        text = format!("{text}; {failed} failed");
    }
    text
}

/// What ends the rest: a look at the child that rests, or another try.
fn way_out(view: &View<'_>, names: &Names<'_>) -> String {
    let failed = view.dag.vertices().iter().find(|vertex| State::of(state_of(view, vertex)) == State::Failed);
    let Some(vertex) = failed else {
        return format!("see: kubectl describe upgraderun {}", names.run);
    };
    if vertex.kind.as_str() == CHILD_RUN {
        return format!("{SEE}{}", run_of(vertex).unwrap_or(names.run));
    }
    again(view, vertex, names)
}

/// Where to look for what failed in a run below.
const SEE: &str = "see: kubectl describe upgraderun ";

fn again(view: &View<'_>, vertex: &Vertex, names: &Names<'_>) -> String {
    // No other try brings a node back that somebody deleted.
    if view.cursor.note(&vertex.name).is_some_and(|note| note.code == NODE_GONE) {
        return format!("kubectl cupcake cancel {}", names.direct_update);
    }
    // Of workers that were lost before each is tried again by itself.
    let told = view.cursor.note(&vertex.name).filter(|_| vertex.kind.as_str() == STRAGGLERS);
    let lost = told.and_then(|note| stragglers::workers_named(&note.message).first().copied());
    // The node of a lane: the whole of it is tried again.
    let node = vertex.lane.as_deref().and_then(|lane| lane.rsplit('/').next());
    let what = lost.or(node).unwrap_or(vertex.name.as_str());
    format!("when that is mended: kubectl cupcake retry {} {what}", names.direct_update)
}

/// The command that tries again what failed in a run that rests; `None` where it does not rest, or rests for a run below it.
pub fn retry(view: &View<'_>, names: &Names<'_>) -> Option<String> {
    if view.cursor.phase() != RunPhase::RequiresAttention {
        return None;
    }
    let mut failed = view.dag.vertices().iter().filter(|vertex| State::of(state_of(view, vertex)) == State::Failed);
    let vertex = failed.find(|vertex| vertex.kind.as_str() != CHILD_RUN)?;
    Some(again(view, vertex, names))
}

/// A message that ends in where to look, with that command in its place.
pub fn with_retry(message: &str, retry: &str) -> Option<String> {
    let (what, _) = message.rsplit_once(SEE)?;
    Some(format!("{what}{retry}"))
}

/// Takes the pause away, whichever way it was asked for.
fn resume(names: &Names<'_>) -> String {
    format!("kubectl cupcake resume {}", names.direct_update)
}
