//! Histories of runs: every event as it would be journaled, and the cursor after it.

use crate::world::start;
use chrono::TimeDelta;
use cupcake_engine::cursor::Cursor;
use cupcake_engine::dag::Dag;
use cupcake_engine::decide::{Intent, Limits, Observed, decide};
use cupcake_engine::event::Event;
use cupcake_engine::names::Reason;
use cupcake_engine::plan::Plan;
use serde_json::Value;

/// A run and all that happened to it.
pub struct History {
    /// Digest of its plan.
    pub digest: String,
    /// Its graph.
    pub dag: Dag,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// Where that leads.
    pub cursor: Cursor,
    /// The bounds it was made under.
    pub limits: Limits,
}

/// Walks `plan` until `done` vertices have come to rest, with `concurrency` nodes at once: every step takes 20 s, and every
/// eighth is seen waiting.
pub fn history(plan: &Plan, concurrency: u32, done: usize) -> History {
    let dag = plan.expand().expect("compiled plans expand");
    let digest = plan.digest();
    let mut cursor = Cursor::new(&digest, &dag, start());
    let limits = Limits { concurrency, ..Limits::default() };
    let mut events = Vec::new();
    let mut now = start();
    let mut number = 0_usize;
    loop {
        let decision = decide(&dag, &cursor, &Intent::default(), &Observed::default(), &limits, now);
        cursor.fold(&decision.events).expect("decide emits only events that fit");
        events.extend(decision.events);
        if cursor.phase().is_final() || cursor.progress().0 >= done {
            return History { digest, dag, events, cursor, limits };
        }
        for vertex in decision.start.into_iter().chain(decision.poll) {
            number += 1;
            let attempt = cursor.state(&vertex).map_or(1, |state| state.attempts());
            let event = if number.is_multiple_of(8) {
                let reason =
                    Reason::new("DrainBlocked", "PodDisruptionBudget shop/db allows no disruption of shop/db-0");
                Event::Waiting { vertex, attempt, until: now + TimeDelta::seconds(30), reason, at: now }
            } else {
                Event::Succeeded { vertex, attempt, output: Value::Null, at: now + TimeDelta::seconds(20) }
            };
            cursor.apply(&event).expect("the vertex is under way");
            events.push(event);
        }
        now += TimeDelta::seconds(20);
    }
}

/// The cursor that a journal leads to.
pub fn replay(history: &History) -> Cursor {
    let mut cursor = Cursor::new(&history.digest, &history.dag, start());
    cursor.fold(&history.events).expect("it was written by this very history");
    cursor
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::batch;

    #[test]
    fn the_large_batch_that_is_measured_has_the_vertices_that_the_table_says() {
        let plan = batch(crate::world::NODES_OF_5_000_VERTICES);
        assert_eq!(plan.expand().unwrap().len(), 5_000);
    }

    #[test]
    fn a_replayed_journal_is_the_live_cursor_and_a_history_comes_to_its_end() {
        let half = history(&batch(10), 3, 20);
        assert_eq!(replay(&half), half.cursor);
        assert!((20..24).contains(&half.cursor.progress().0));
        let whole = history(&batch(10), 3, usize::MAX);
        assert!(whole.cursor.phase().is_final());
    }
}
