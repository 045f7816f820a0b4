//! Attempts of steps, as ticks record their ends: what spans and metrics tell. Pure.

use cupcake_engine::clock::Timestamp;
use cupcake_engine::cursor::{Cursor, VertexState};
use cupcake_engine::dag::Dag;
use cupcake_engine::event::{AfterFailure, Event};
use cupcake_engine::names::{RunName, VertexName};
use cupcake_engine::tick::TickReport;
use std::collections::BTreeMap;

/// When attempts under way began, and since when they wait for what people see, as far as this replica saw it: a cursor keeps when the
/// series of attempts began. Lost with the leadership; then an attempt begins with its series.
#[derive(Debug, Default)]
pub struct Attempts {
    begun: BTreeMap<(RunName, VertexName), (u32, Timestamp)>,
    waits: BTreeMap<(RunName, VertexName), (String, Timestamp)>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The goal is reached.
    Success,
    /// Failed; another one follows.
    Retry,
    /// Failed; no other one follows by itself.
    Failure,
    /// Left out, or no longer wanted.
    Skip,
}

impl End {
    /// The word of metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Retry => "retry",
            Self::Failure => "failure",
            Self::Skip => "skip",
        }
    }
}

/// An attempt that ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended<'e> {
    /// Of which vertex.
    pub vertex: &'e VertexName,
    /// 1 for the first one.
    pub attempt: u32,
    /// When it began, as far as that is known; else when its series did.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// How.
    pub how: End,
    /// Code and message of what went wrong.
    pub error: Option<(&'e str, &'e str)>,
}

/// A wait in the sight of people that ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Waited<'e> {
    /// Of which vertex.
    pub vertex: &'e VertexName,
    /// For what, in one word.
    pub code: String,
    /// For how long.
    pub seconds: u64,
}

/// What ended with a tick.
#[derive(Debug, Default)]
pub struct Told<'e> {
    /// Attempts, in the order in which they ended.
    pub ended: Vec<Ended<'e>>,
    /// Waits of theirs.
    pub waited: Vec<Waited<'e>>,
}

impl Attempts {
    /// What ended with that tick of that run.
    pub fn ended_with<'e>(&mut self, run: &RunName, report: &'e TickReport) -> Told<'e> {
        let mut told = Told::default();
        for event in &report.events {
            let Some(vertex) = event.vertex() else { continue };
            let key = (run.clone(), vertex.clone());
            told.waited.extend(self.waited(&key, vertex, event));
            let seen = self.begun.get(&key).copied();
            let mut end = |attempt: u32, end: Timestamp, how, error| {
                self.begun.remove(&key);
                let seen = seen.filter(|(own, _)| *own == attempt).map(|(_, at)| at);
                let series = report.cursor.state(vertex).and_then(start_of_series);
                let start = seen.or(series).unwrap_or(end).min(end);
                told.ended.push(Ended { vertex, attempt, start, end, how, error });
            };
            match event {
                Event::Started { attempt, at, .. } => {
                    self.begun.insert(key, (*attempt, *at));
                }
                Event::Succeeded { attempt, at, .. } => end(*attempt, *at, End::Success, None),
                Event::Failed { attempt, reason, next, at, .. } => {
                    let how = match next {
                        AfterFailure::Retry(_) => End::Retry,
                        AfterFailure::Rest => End::Failure,
                    };
                    end(*attempt, *at, how, Some((reason.code.as_str(), reason.message.as_str())));
                }
                Event::Skipped { at, .. } => {
                    let attempts = report.cursor.state(vertex).map_or(0, |state| state.attempts());
                    // Attempts that ended before were told; one under way ends here.
                    end(if seen.is_some() { attempts } else { attempts + 1 }, *at, End::Skip, None);
                }
                Event::Waiting { .. }
                | Event::Continued { .. }
                | Event::TakenUp { .. }
                | Event::Reset { .. }
                | Event::Paused { .. }
                | Event::Resumed { .. }
                | Event::Credited { .. }
                | Event::CancelRequested { .. }
                | Event::HeldBack { .. }
                | Event::Rested { .. }
                | Event::Finished { .. }
                | Event::Unknown => {}
            }
        }
        told
    }

    /// The wait that ends with the event, if one does; one that begins is remembered.
    fn waited<'e>(&mut self, key: &(RunName, VertexName), vertex: &'e VertexName, event: &Event) -> Option<Waited<'e>> {
        let before = self.waits.remove(key);
        if let Event::Waiting { reason, at, .. } = event {
            let since = before.as_ref().filter(|(code, _)| *code == reason.code).map_or(*at, |(_, since)| *since);
            self.waits.insert(key.clone(), (reason.code.clone(), since));
            if before.as_ref().is_some_and(|(code, _)| *code == reason.code) {
                return None;
            }
        }
        let (code, since) = before?;
        let seconds = u64::try_from((event.at()? - since).num_seconds()).unwrap_or(0);
        Some(Waited { vertex, code, seconds })
    }

    /// Remembers what is under way in a run that another replica led before.
    pub fn took_over(&mut self, run: &RunName, dag: &Dag, cursor: &Cursor) {
        for vertex in dag.vertices() {
            let (attempt, at) = match cursor.state(&vertex.name) {
                Some(VertexState::Started { attempt, since, .. }) => (attempt, since),
                Some(VertexState::Waiting { attempt, first, since, .. }) => {
                    if let Some(reason) = cursor.note(&vertex.name) {
                        self.waits.insert((run.clone(), vertex.name.clone()), (reason.code.clone(), since));
                    }
                    (attempt, first)
                }
                Some(
                    VertexState::Pending { .. }
                    | VertexState::BackingOff { .. }
                    | VertexState::Succeeded { .. }
                    | VertexState::Skipped { .. }
                    | VertexState::Failed { .. },
                )
                | None => continue,
            };
            self.begun.insert((run.clone(), vertex.name.clone()), (attempt, at));
        }
    }

    /// Lets go of what is kept of a run that is gone.
    pub fn forget(&mut self, run: &RunName) {
        self.begun.retain(|(own, _), _| own != run);
        self.waits.retain(|(own, _), _| own != run);
    }
}

/// How the last attempt of a vertex ended, if it did.
pub fn ended_last<'c>(vertex: &'c VertexName, cursor: &'c Cursor) -> Option<Ended<'c>> {
    let reason = cursor.note(vertex).map(|reason| (reason.code.as_str(), reason.message.as_str()));
    let (attempt, start, end, how, error) = match cursor.state(vertex)? {
        VertexState::Succeeded { attempt, first, ended } => (attempt, first, ended, End::Success, None),
        VertexState::Failed { attempt, first, ended } => (attempt, first, ended, End::Failure, reason),
        VertexState::Skipped { attempts, ended } => (attempts.max(1), ended, ended, End::Skip, None),
        // When it failed is not kept: at the latest with what the run recorded last.
        VertexState::BackingOff { attempt, first, until } => {
            (attempt, first, cursor.clock().min(until), End::Retry, reason)
        }
        VertexState::Pending { .. } | VertexState::Started { .. } | VertexState::Waiting { .. } => return None,
    };
    Some(Ended { vertex, attempt, start, end, how, error })
}

fn start_of_series(state: VertexState) -> Option<Timestamp> {
    match state {
        VertexState::Started { first, .. }
        | VertexState::Waiting { first, .. }
        | VertexState::BackingOff { first, .. }
        | VertexState::Succeeded { first, .. }
        | VertexState::Failed { first, .. } => Some(first),
        VertexState::Pending { .. } | VertexState::Skipped { .. } => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use cupcake_engine::dag::{DagBuilder, Requires, Vertex};
    use cupcake_engine::names::{Reason, StepKind};
    use cupcake_engine::tick::TickEnd;
    use serde_json::{Value, json};
    use std::sync::Arc;

    pub(crate) fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(seconds, 0).unwrap()
    }

    fn name(text: &str) -> VertexName {
        VertexName::new(text).unwrap()
    }

    fn run() -> RunName {
        RunName::new("to-1-34").unwrap()
    }

    pub(crate) fn started(vertex: &str, attempt: u32, seconds: i64) -> Event {
        Event::Started { vertex: name(vertex), attempt, at: at(seconds) }
    }

    pub(crate) fn waiting(vertex: &str, code: &str, seconds: i64) -> Event {
        let reason = Reason::new(code, "waits");
        Event::Waiting { vertex: name(vertex), attempt: 1, until: at(seconds + 30), reason, at: at(seconds) }
    }

    pub(crate) fn succeeded(vertex: &str, attempt: u32, output: Value, seconds: i64) -> Event {
        Event::Succeeded { vertex: name(vertex), attempt, output, at: at(seconds) }
    }

    pub(crate) fn failed(vertex: &str, attempt: u32, next: AfterFailure, seconds: i64) -> Event {
        let reason = Reason::new("ApiServerAway", "no answer");
        Event::Failed { vertex: name(vertex), attempt, reason, next, at: at(seconds) }
    }

    /// What a tick would report that recorded `events` after `before`.
    pub(crate) fn report(before: &[Event], events: Vec<Event>) -> TickReport {
        let mut builder = DagBuilder::new();
        for (vertex, kind) in [("etcd-backup", "host-order/v1"), ("w-1/drain", "drain-node/v1")] {
            builder.add(Vertex {
                name: name(vertex),
                kind: StepKind::new(kind).unwrap(),
                params: json!({}),
                after: Vec::new(),
                requires: Requires::default(),
                guard: None,
                lane: None,
                deadline_seconds: 3_600,
                attempts_max: 3,
            });
        }
        let dag = Arc::new(builder.build().unwrap());
        let mut cursor = Cursor::new("digest", &dag, at(0));
        for event in before.iter().chain(&events) {
            cursor.apply(event).unwrap();
        }
        TickReport { uid: "uid".to_owned(), events, cursor, dag, wake_at: None, end: TickEnd::Idle }
    }

    #[test]
    fn an_attempt_that_follows_another_one_is_told_by_itself_and_not_with_the_series() {
        let mut attempts = Attempts::default();
        let first = vec![started("w-1/drain", 1, 10), failed("w-1/drain", 1, AfterFailure::Retry(at(40)), 20)];
        let told = report(&[], first.clone());
        let told = attempts.ended_with(&run(), &told);
        assert_eq!((told.ended[0].how, told.ended[0].start, told.ended[0].end), (End::Retry, at(10), at(20)));
        let second = report(&first, vec![started("w-1/drain", 2, 40), succeeded("w-1/drain", 2, Value::Null, 55)]);
        let told = attempts.ended_with(&run(), &second);
        assert_eq!((told.ended[0].how, told.ended[0].start, told.ended[0].end), (End::Success, at(40), at(55)));
        // Who saw no beginning knows that of the series.
        let told = report(&first, vec![started("w-1/drain", 2, 40), succeeded("w-1/drain", 2, Value::Null, 55)]);
        let late = TickReport { events: told.events[1..].to_vec(), ..told };
        assert_eq!(Attempts::default().ended_with(&run(), &late).ended[0].start, at(10));
    }

    #[test]
    fn a_wait_is_told_once_with_its_reason_when_it_changes_or_ends() {
        let mut attempts = Attempts::default();
        let first = vec![started("w-1/drain", 1, 0), waiting("w-1/drain", "DrainBlocked", 10)];
        assert!(attempts.ended_with(&run(), &report(&[], first.clone())).waited.is_empty());
        let second = vec![waiting("w-1/drain", "DrainBlocked", 40), waiting("w-1/drain", "PodStuck", 70)];
        let again = report(&first, second.clone());
        let told: Vec<_> = attempts.ended_with(&run(), &again).waited.into_iter().collect();
        assert_eq!((told.len(), told[0].code.as_str(), told[0].seconds), (1, "DrainBlocked", 60));
        let before: Vec<Event> = first.into_iter().chain(second).collect();
        let end = report(&before, vec![succeeded("w-1/drain", 1, Value::Null, 100)]);
        let told = attempts.ended_with(&run(), &end);
        assert_eq!((told.waited[0].code.as_str(), told.waited[0].seconds), ("PodStuck", 30));
    }
}
