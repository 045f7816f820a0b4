//! What to do next: a pure function of plan, cursor, what was observed, limits and time.
//!
//! Concurrency, back-off, deadlines, pause, cancel and the failure budget live here and nowhere else.

use crate::clock::{Timestamp, whole_seconds};
use crate::cursor::{Cursor, RunPhase, VertexState, cut};
use crate::dag::{Dag, Requires, Vertex};
use crate::event::{AfterFailure, Event, FinalPhase};
use crate::names::{Reason, RunName, VertexName};
use crate::requests::{give_credit, take_intent, take_retries, take_skips};
use crate::series;
use chrono::TimeDelta;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// How soon a run is looked at again whose slots are all held by lanes that became unavailable, in seconds.
const HELD_BACK_AGAIN_SECONDS: i64 = 30;

/// How many lost lanes a reason names; the rest are counted.
const LANES_NAMED_MAX: usize = 5;

/// The bounds of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many lanes may be open at once; 0 counts as 1.
    pub concurrency: u32,
    /// How many failed lanes stop the opening of new ones; 0 counts as 1.
    pub failures_max: u32,
    /// First wait after a failed attempt, in seconds; it doubles with each further one.
    pub backoff_base_seconds: u32,
    /// Longest such wait, in seconds.
    pub backoff_max_seconds: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { concurrency: 1, failures_max: 1, backoff_base_seconds: 5, backoff_max_seconds: 120 }
    }
}

/// What people asked for, as read with the run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Intent {
    /// Who or what asks that nothing new starts.
    pub pause: Option<Reason>,
    /// Why no lane is begun, nor anything outside of lanes: lanes that are open go on to their end, unlike under a pause. A cancel ends it.
    pub hold: Option<Reason>,
    /// Whether the run is to end as soon as it safely can.
    pub cancel: bool,
    /// What is to be tried again; each request is taken up once.
    pub retry: Vec<Asked>,
    /// Lanes to leave out; each request is taken up once.
    pub skip: Vec<Asked>,
}

/// A request about a part of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Its name, by which it is known again.
    pub request: String,
    /// The run that it is about; whichever has the part if that is not said.
    pub run: Option<RunName>,
    /// A vertex, or a lane (a node); `None` in a run that it is not about, where only what waits for a child goes on.
    pub what: Option<String>,
}

/// What the cluster shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Lanes (nodes) that became unavailable since the run began, by no doing of the run: each takes a slot.
    pub unavailable_lanes: BTreeSet<String>,
    /// Lanes of runs before this one that became unavailable, and that this run shares its concurrency with: each takes a slot here, too.
    pub unavailable_before: BTreeSet<String>,
    /// Vertices whose deadline has passed since somebody looked at them last (nobody led, or the API was away): what they began
    /// may be done by now, so each is looked at once more before it fails.
    pub overdue_unseen: BTreeSet<VertexName>,
    /// The last time in which nobody led, or the leader could not reach the store: from when to when.
    pub unled: Option<(Timestamp, Timestamp)>,
    /// Vertices that no deadline ends: they are bounded by what they watch (see [`crate::step::Bound`]).
    pub watchers: BTreeSet<VertexName>,
    /// Vertices whose child run is at work, or has done it: one that gave up on its child follows a retry below it.
    pub children_under_way: BTreeSet<VertexName>,
}

/// What to do next.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decision {
    /// Changes to record, in order. Those that start vertices must be recorded before their effects begin.
    pub events: Vec<Event>,
    /// Vertices whose attempt begins with this decision.
    pub start: Vec<VertexName>,
    /// Vertices under way.
    pub poll: Vec<VertexName>,
    /// Whether vertices under way may act, or only be looked at (paused).
    pub may_act: bool,
    /// When to decide again even if nothing happens.
    pub wake_at: Option<Timestamp>,
}

/// How a vertex looks from where the run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outlook {
    /// Succeeded or skipped.
    Done,
    /// Failed.
    Failed,
    /// An attempt is under way or will be after a back-off.
    Active,
    /// Can start now.
    Ready,
    /// Its guard never started and never will: to be skipped.
    Needless,
    /// Can never start unless a person acts.
    Blocked,
    /// What it comes after is not at rest yet.
    NotYet,
}

impl Outlook {
    fn is_settled(self) -> bool {
        match self {
            Self::Done | Self::Failed | Self::Blocked | Self::Needless => true,
            Self::Active | Self::Ready | Self::NotYet => false,
        }
    }
}

/// Decides what a run does next.
///
/// # Guarantees
/// Starts no vertex before what it comes after is as it needs it; never more open lanes than `limits.concurrency`;
/// nothing while paused; nothing new but guarded vertices while cancelling, which ends a pause; no new lane once the failure
/// budget is used up.
/// `now` may be behind the cursor's clock: the cursor's counts then.
pub fn decide(
    dag: &Dag,
    cursor: &Cursor,
    intent: &Intent,
    observed: &Observed,
    limits: &Limits,
    now: Timestamp,
) -> Decision {
    let now = whole_seconds(now).max(cursor.clock());
    let mut decision = Decision::default();
    if cursor.phase().is_final() {
        return decision;
    }
    let mut cursor = cursor.clone();
    give_credit(&mut cursor, dag, observed, now, &mut decision);
    take_intent(&mut cursor, intent, now, &mut decision);
    take_skips(&mut cursor, dag, intent, now, &mut decision);
    take_retries(&mut cursor, dag, intent, observed, now, &mut decision);
    if !cursor.is_paused() {
        // Paused time does not count: `Resumed` moves the starts by it.
        fail_overdue(&mut cursor, dag, observed, now, &mut decision);
    }

    let mut view = View::of(dag, &cursor);
    for position in view.needless() {
        let vertex = dag.vertices()[position].name.clone();
        let reason = Reason::new("GuardNeverStarted", "what it would undo was never begun");
        push(&mut cursor, &mut decision, Event::Skipped { vertex, reason, at: now });
    }
    view = View::of(dag, &cursor);

    decision.may_act = !cursor.is_paused();
    let hold = intent.hold.as_ref().filter(|_| !cursor.is_cancelling());
    if !cursor.is_paused() {
        let begins = hold.is_none() && !view.budget_used_up(limits);
        let slots = begins.then(|| limits.concurrency.max(1) as usize);
        start_ready(dag, &mut cursor, &view, observed, slots, now, &mut decision);
    }
    for vertex in dag.vertices() {
        match cursor.state(&vertex.name) {
            Some(VertexState::Started { first, .. }) => {
                if !decision.start.contains(&vertex.name) {
                    decision.poll.push(vertex.name.clone());
                }
                wake_by_deadline(&mut decision, &cursor, observed, vertex, first);
            }
            Some(VertexState::Waiting { first, until, .. }) => {
                decision.poll.push(vertex.name.clone());
                // A recorded time that has passed is no reason to wake: the vertex is looked at now, and says anew until when.
                if until > now {
                    wake(&mut decision, until);
                }
                wake_by_deadline(&mut decision, &cursor, observed, vertex, first);
            }
            Some(VertexState::BackingOff { until, .. }) => {
                if !cursor.is_paused() && (!cursor.is_cancelling() || vertex.guard.is_some()) {
                    wake(&mut decision, until);
                }
            }
            Some(
                VertexState::Pending { .. }
                | VertexState::Succeeded { .. }
                | VertexState::Skipped { .. }
                | VertexState::Failed { .. },
            )
            | None => {}
        }
    }
    conclude(dag, &mut cursor, observed, limits, hold, now, &mut decision);
    decision
}

pub(crate) fn push(cursor: &mut Cursor, decision: &mut Decision, event: Event) {
    cursor.apply(&event).expect("decide emits only events that fit the state it looked at");
    decision.events.push(event);
}

fn wake(decision: &mut Decision, at: Timestamp) {
    decision.wake_at = Some(decision.wake_at.map_or(at, |earlier| earlier.min(at)));
}

/// Deadlines stand still while paused: looking then would change nothing.
fn wake_by_deadline(decision: &mut Decision, cursor: &Cursor, observed: &Observed, vertex: &Vertex, first: Timestamp) {
    if !cursor.is_paused() && !observed.watchers.contains(&vertex.name) {
        wake(decision, first + deadline(vertex.deadline_seconds));
    }
}

fn deadline(seconds: u32) -> TimeDelta {
    TimeDelta::seconds(i64::from(seconds))
}

fn fail_overdue(cursor: &mut Cursor, dag: &Dag, observed: &Observed, now: Timestamp, decision: &mut Decision) {
    for vertex in dag.vertices().iter().filter(|vertex| !observed.watchers.contains(&vertex.name)) {
        let (attempt, first) = match cursor.state(&vertex.name) {
            Some(VertexState::BackingOff { attempt, first, until }) => {
                let goes_on = !cursor.is_cancelling() || vertex.guard.is_some();
                if until < first + deadline(vertex.deadline_seconds) && goes_on {
                    // Its next attempt was due in time and nobody made it: it is made now.
                    continue;
                }
                (attempt, first)
            }
            Some(VertexState::Started { attempt, first, .. } | VertexState::Waiting { attempt, first, .. }) => {
                (attempt, first)
            }
            Some(
                VertexState::Pending { .. }
                | VertexState::Succeeded { .. }
                | VertexState::Skipped { .. }
                | VertexState::Failed { .. },
            )
            | None => continue,
        };
        if now < first + deadline(vertex.deadline_seconds) || observed.overdue_unseen.contains(&vertex.name) {
            continue;
        }
        let last = cursor.note(&vertex.name).map_or_else(String::new, |note| format!("; last: {note}"));
        let event = Event::Failed {
            vertex: vertex.name.clone(),
            attempt,
            reason: Reason::new("DeadlineExceeded", format!("not done within {} s{last}", vertex.deadline_seconds)),
            next: AfterFailure::Rest,
            at: now,
        };
        push(cursor, decision, event);
    }
}

/// The lanes of a run in which something failed and was not tried again.
pub fn failed_lanes(dag: &Dag, cursor: &Cursor) -> BTreeSet<String> {
    View::of(dag, cursor).failed_lanes.into_iter().map(str::to_owned).collect()
}

/// The outlook of every vertex, and the lanes as they stand.
struct View<'d> {
    dag: &'d Dag,
    outlooks: Vec<Outlook>,
    /// Lanes with a vertex begun and one not settled.
    open_lanes: BTreeSet<&'d str>,
    failed_lanes: BTreeSet<&'d str>,
    /// A vertex outside all lanes failed: nothing new may start.
    failed_outside_lanes: bool,
}

impl<'d> View<'d> {
    fn of(dag: &'d Dag, cursor: &Cursor) -> Self {
        let states: Vec<_> = dag
            .vertices()
            .iter()
            .map(|vertex| cursor.state(&vertex.name).unwrap_or(VertexState::Pending { attempts: 0 }))
            .collect();
        let mut outlooks = vec![Outlook::NotYet; dag.len()];
        for &position in dag.topological() {
            outlooks[position] = outlook(dag, position, &states, &outlooks, cursor.is_cancelling());
        }
        let mut view = Self {
            dag,
            outlooks,
            open_lanes: BTreeSet::new(),
            failed_lanes: BTreeSet::new(),
            failed_outside_lanes: false,
        };
        let mut begun = BTreeSet::new();
        let mut unsettled = BTreeSet::new();
        for (position, vertex) in dag.vertices().iter().enumerate() {
            let failed = view.outlooks[position] == Outlook::Failed;
            let Some(lane) = vertex.lane.as_deref() else {
                view.failed_outside_lanes |= failed;
                continue;
            };
            if failed {
                view.failed_lanes.insert(lane);
            }
            // A lane that is to be tried again takes a slot like any other.
            if !matches!(states[position], VertexState::Pending { .. }) && states[position].attempts() > 0 {
                begun.insert(lane);
            }
            if !view.outlooks[position].is_settled() {
                unsettled.insert(lane);
            }
        }
        view.open_lanes = begun.intersection(&unsettled).copied().collect();
        view
    }

    fn needless(&self) -> Vec<usize> {
        (0..self.dag.len()).filter(|&position| self.outlooks[position] == Outlook::Needless).collect()
    }

    fn budget_used_up(&self, limits: &Limits) -> bool {
        self.failed_outside_lanes || self.failed_lanes.len() >= limits.failures_max.max(1) as usize
    }
}

fn outlook(dag: &Dag, position: usize, states: &[VertexState], outlooks: &[Outlook], cancelling: bool) -> Outlook {
    match states[position] {
        VertexState::Succeeded { .. } | VertexState::Skipped { .. } => Outlook::Done,
        VertexState::Failed { .. } => Outlook::Failed,
        VertexState::Started { .. } | VertexState::Waiting { .. } | VertexState::BackingOff { .. } => Outlook::Active,
        VertexState::Pending { .. } => {
            let vertex = &dag.vertices()[position];
            let after = dag.after(position);
            let all_settled = || after.iter().all(|&before| outlooks[before].is_settled());
            if let Some(guard) = dag.guard(position) {
                return match (all_settled(), guard_was_begun(states[guard])) {
                    (true, true) => Outlook::Ready,
                    (true, false) => Outlook::Needless,
                    (false, _) => Outlook::NotYet,
                };
            }
            if cancelling {
                return Outlook::Blocked;
            }
            match vertex.requires {
                Requires::Settled if all_settled() => Outlook::Ready,
                Requires::Settled => Outlook::NotYet,
                Requires::Success => {
                    if after.iter().any(|&before| matches!(outlooks[before], Outlook::Failed | Outlook::Blocked)) {
                        Outlook::Blocked
                    } else if after.iter().all(|&before| outlooks[before] == Outlook::Done) {
                        Outlook::Ready
                    } else {
                        Outlook::NotYet
                    }
                }
            }
        }
    }
}

fn guard_was_begun(state: VertexState) -> bool {
    match state {
        VertexState::Pending { attempts } | VertexState::Skipped { attempts, .. } => attempts > 0,
        VertexState::Started { .. }
        | VertexState::Waiting { .. }
        | VertexState::BackingOff { .. }
        | VertexState::Succeeded { .. }
        | VertexState::Failed { .. } => true,
    }
}

/// Starts what is ready: what was begun goes on in any case, something new where there are `slots` for lanes.
fn start_ready(
    dag: &Dag,
    cursor: &mut Cursor,
    view: &View<'_>,
    observed: &Observed,
    slots: Option<usize>,
    now: Timestamp,
    decision: &mut Decision,
) {
    let cancelling = cursor.is_cancelling();
    let mut open: BTreeSet<&str> = view.open_lanes.clone();
    let lost = lost_lanes(dag, cursor, observed);
    for (position, vertex) in dag.vertices().iter().enumerate() {
        // What was begun goes on to its end; only what is new asks for a slot and a whole failure budget.
        let (ready, begun) = match cursor.state(&vertex.name) {
            Some(VertexState::Pending { .. }) => (view.outlooks[position] == Outlook::Ready, vertex.guard.is_some()),
            // What must run whatever happened is tried again after a cancel, too.
            Some(VertexState::BackingOff { until, .. }) => {
                (until <= now && (!cancelling || vertex.guard.is_some()), true)
            }
            Some(
                VertexState::Started { .. }
                | VertexState::Waiting { .. }
                | VertexState::Succeeded { .. }
                | VertexState::Skipped { .. }
                | VertexState::Failed { .. },
            )
            | None => (false, false),
        };
        if !ready {
            continue;
        }
        let allowed = match vertex.lane.as_deref() {
            _ if begun => true,
            Some(lane) if open.contains(lane) => true,
            // A lost lane holds its own slot already: opening it takes no further one.
            Some(lane) => {
                let taken = open.len() + lost.iter().filter(|other| **other != lane && !open.contains(*other)).count();
                slots.is_some_and(|slots| taken < slots)
            }
            None => slots.is_some(),
        };
        if !allowed {
            continue;
        }
        if let Some(lane) = vertex.lane.as_deref() {
            open.insert(lane);
        }
        let attempts = cursor.state(&vertex.name).map_or(0, |state| state.attempts());
        let attempt = match cursor.state(&vertex.name) {
            Some(VertexState::BackingOff { .. }) => attempts + 1,
            Some(_) | None => series::first_after(attempts, vertex.attempts_max),
        };
        let event = Event::Started { vertex: vertex.name.clone(), attempt, at: now };
        push(cursor, decision, event);
        decision.start.push(vertex.name.clone());
    }
}

/// Lanes that became unavailable, of this run and of those before it; any other node takes no slot, nor does one that was left out.
fn lost_lanes<'d>(dag: &'d Dag, cursor: &Cursor, observed: &'d Observed) -> BTreeSet<&'d str> {
    let is_own = |lane: &str| dag.vertices().iter().any(|vertex| vertex.lane.as_deref() == Some(lane));
    // One that this run has itself is judged by what this run did there.
    let before = observed.unavailable_before.iter().map(String::as_str).filter(|lane| !is_own(lane));
    own_lost_lanes(dag, cursor, observed).into_iter().chain(before).collect()
}

fn own_lost_lanes<'d>(dag: &'d Dag, cursor: &Cursor, observed: &Observed) -> BTreeSet<&'d str> {
    if observed.unavailable_lanes.is_empty() {
        return BTreeSet::new();
    }
    let in_lanes = || dag.vertices().iter().filter_map(|vertex| Some((vertex.lane.as_deref()?, vertex)));
    let state = |vertex: &Vertex| cursor.state(&vertex.name);
    let has_a_part_left =
        |vertex: &Vertex| !matches!(state(vertex), Some(VertexState::Succeeded { .. } | VertexState::Skipped { .. }));
    let was_left_out =
        |vertex: &Vertex| vertex.guard.is_none() && matches!(state(vertex), Some(VertexState::Skipped { .. }));
    let kept: BTreeSet<&str> = in_lanes().filter(|(_, vertex)| has_a_part_left(vertex)).map(|(lane, _)| lane).collect();
    let left: BTreeSet<&str> = in_lanes().filter(|(_, vertex)| was_left_out(vertex)).map(|(lane, _)| lane).collect();
    in_lanes()
        .map(|(lane, _)| lane)
        .filter(|lane| observed.unavailable_lanes.contains(*lane))
        .filter(|lane| kept.contains(lane) || !left.contains(lane))
        .collect()
}

fn conclude(
    dag: &Dag,
    cursor: &mut Cursor,
    observed: &Observed,
    limits: &Limits,
    hold: Option<&Reason>,
    now: Timestamp,
    decision: &mut Decision,
) {
    if cursor.is_paused() || !decision.start.is_empty() || !decision.poll.is_empty() {
        return;
    }
    let view = View::of(dag, cursor);
    let backing_off = |position: &usize| view.outlooks[*position] == Outlook::Active;
    if (0..dag.len()).any(|position| backing_off(&position)) {
        if cursor.is_cancelling() {
            // A back-off is no commit point: nothing runs, so the run may end. Its vertex is recorded as skipped.
            let mut skipped = false;
            for vertex in dag.vertices() {
                let must_run = vertex.guard.is_some();
                if !must_run && matches!(cursor.state(&vertex.name), Some(VertexState::BackingOff { .. })) {
                    let reason = Reason::new("Cancelled", "cancelled before its next attempt");
                    let vertex = vertex.name.clone();
                    push(cursor, decision, Event::Skipped { vertex, reason, at: now });
                    skipped = true;
                }
            }
            if skipped {
                // What its lane must still do is decided in the next round, from the new state.
                wake(decision, now);
            }
        }
        return;
    }
    let held_back = view.outlooks.iter().any(|outlook| matches!(outlook, Outlook::Ready | Outlook::NotYet));
    if held_back && !cursor.is_cancelling() && !view.budget_used_up(limits) {
        if let Some(reason) = hold {
            // Whoever lifts it wakes the run.
            if cursor.reason() != Some(&cut(reason)) {
                push(cursor, decision, Event::HeldBack { reason: reason.clone(), at: now });
            }
            return;
        }
        let lost = lost_lanes(dag, cursor, observed);
        if !lost.is_empty() {
            let names = lost.iter().take(LANES_NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
            let more = match lost.len().saturating_sub(LANES_NAMED_MAX) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let message = format!(
                "{names}{more} became unavailable and take up the concurrency of {}: the rest goes on when they are back",
                limits.concurrency.max(1)
            );
            let reason = Reason::new("NodesUnavailable", message);
            if cursor.reason() != Some(&cut(&reason)) {
                push(cursor, decision, Event::HeldBack { reason, at: now });
            }
            // Lanes that became unavailable hold every slot: the run is not over, it looks again when they may be back.
            wake(decision, now + TimeDelta::seconds(HELD_BACK_AGAIN_SECONDS));
        } else if !tells_why_it_rests(cursor) {
            // A plan whose open lanes wait for lanes that get no slot. Never taken for success.
            let message = "its steps wait for each other and none can start: raise the concurrency";
            let reason = Reason::new("StepsDeadlocked", message);
            push(cursor, decision, Event::Rested { reason, at: now });
        }
        return;
    }
    if cursor.is_cancelling() {
        let reason = Reason::new("Cancelled", "cancelled; nothing is under way");
        push(cursor, decision, Event::Finished { phase: FinalPhase::Cancelled, reason, at: now });
        return;
    }
    let failure = dag.vertices().iter().find_map(|vertex| match cursor.state(&vertex.name) {
        Some(VertexState::Failed { .. }) => {
            let note = cursor.note(&vertex.name).cloned();
            let note = note.unwrap_or_else(|| Reason::new("Failed", "see the events of the run"));
            Some(Reason::new(note.code, format!("{}: {}", vertex.name, note.message)))
        }
        Some(
            VertexState::Pending { .. }
            | VertexState::Started { .. }
            | VertexState::Waiting { .. }
            | VertexState::BackingOff { .. }
            | VertexState::Succeeded { .. }
            | VertexState::Skipped { .. },
        )
        | None => None,
    });
    match failure {
        None => {
            let reason = Reason::new("Succeeded", "all that was planned is done");
            push(cursor, decision, Event::Finished { phase: FinalPhase::Succeeded, reason, at: now });
        }
        Some(reason) if view.budget_used_up(limits) => {
            if !tells_why_it_rests(cursor) {
                push(cursor, decision, Event::Rested { reason, at: now });
            }
        }
        Some(reason) => push(cursor, decision, Event::Finished { phase: FinalPhase::Failed, reason, at: now }),
    }
}

/// Whether a run rests and says for what: a pause takes that word, and its end takes the pause's, so it is told anew then.
fn tells_why_it_rests(cursor: &Cursor) -> bool {
    cursor.phase() == RunPhase::RequiresAttention && cursor.reason().is_some()
}

/// When the next attempt starts after attempt number `attempt` of a vertex failed.
///
/// Doubles from `limits.backoff_base_seconds` up to `limits.backoff_max_seconds`, of which it takes 50 to 100 %, by a
/// hash of run, vertex and attempt: the same for the same inputs, spread out over vertices.
pub fn back_off(run: &RunName, vertex: &VertexName, attempt: u32, limits: &Limits, now: Timestamp) -> Timestamp {
    let doublings = attempt.saturating_sub(1).min(16);
    let whole = u64::from(limits.backoff_base_seconds.max(1)) << doublings;
    let whole = whole.min(u64::from(limits.backoff_max_seconds.max(1)));
    let hash = Sha256::digest(format!("{run}\n{vertex}\n{attempt}"));
    let share = 50 + u64::from(hash[0]) * 50 / 255;
    let seconds = (whole * share).div_ceil(100);
    whole_seconds(now) + TimeDelta::seconds(i64::try_from(seconds).unwrap_or(i64::from(u32::MAX)))
}
