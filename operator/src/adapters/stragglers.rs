//! Workers that a batch lost, and who asks to try them again: what the runs of a wave know of it. Pure.

use cupcake_engine::cursor::{Cursor, VertexState};
use cupcake_engine::dag::{Dag, Vertex};
use cupcake_engine::decide::{Asked, Intent, failed_lanes};
use cupcake_engine::step::Step;
use cupcake_engine::store::StoredRun;
use cupcake_steps::cluster::stragglers::{NODES_FAILED, Stragglers};
use cupcake_steps::ports::cluster::{Cluster, Straggler};

/// The vertex of a wave that tries workers again which its batches lost.
pub(crate) const STRAGGLERS_VERTEX: &str = "stragglers";

/// What people ask is the business of a wave's last vertex, too, which looks by itself which lost worker each request names, since the
/// batches of those are over. One that rests because nobody had asked looks again after every word of theirs; until then a request
/// lies in wait for it.
pub(super) fn ask_stragglers(intent: &mut Intent, dag: &Dag, cursor: &Cursor) {
    let is_last = |vertex: &&Vertex| vertex.kind.as_str() == <Stragglers as Step<Cluster>>::KIND;
    let Some(vertex) = dag.vertices().iter().find(is_last) else { return };
    let rests = matches!(cursor.state(&vertex.name), Some(VertexState::Failed { .. }))
        && cursor.note(&vertex.name).is_some_and(|note| note.code == NODES_FAILED);
    if rests {
        let what = Some(vertex.name.as_str().to_owned());
        let of_skip = |skip: &Asked| Asked { request: skip.request.clone(), run: None, what: what.clone() };
        let skips: Vec<Asked> = intent.skip.iter().map(of_skip).collect();
        for asked in &mut intent.retry {
            (asked.run, asked.what) = (None, what.clone());
        }
        intent.retry.extend(skips);
    } else {
        for asked in &mut intent.retry {
            let names_none = |what: &str| !dag.vertices().iter().any(|vertex| vertex.is_named(what));
            if asked.what.as_deref().is_some_and(names_none) {
                asked.what = None;
            }
        }
    }
}

/// The nodes that a run lost which is over.
pub(super) fn lost_by(stored: &StoredRun) -> impl Iterator<Item = (String, Straggler)> {
    failed_lanes(&stored.dag, &stored.cursor).into_iter().map(|node| {
        let of_node = || stored.dag.vertices().iter().filter(|vertex| vertex.lane.as_deref() == Some(node.as_str()));
        let uid = of_node().find_map(|vertex| vertex.params.pointer("/node/uid")?.as_str());
        // What it took up while it was under way was for an attempt of its own.
        let since = stored.intent.retry.iter().filter(|asked| !stored.cursor.has_taken_up(&asked.request));
        let asked =
            since.filter_map(|asked| asked.what.as_deref()).any(|what| of_node().any(|vertex| vertex.is_named(what)));
        let uid = uid.unwrap_or_default().to_owned();
        (node, Straggler { run: stored.name.clone(), uid, asked })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cupcake_engine::clock::Timestamp;
    use cupcake_engine::decide::Limits;
    use cupcake_engine::event::{AfterFailure, Event};
    use cupcake_engine::names::{Epoch, Reason, RunName, StepKind, VertexName};
    use cupcake_engine::plan::{Plan, VertexTemplate};
    use cupcake_engine::store::Version;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn asked(request: &str, what: &str) -> Asked {
        Asked { request: request.to_owned(), run: None, what: Some(what.to_owned()) }
    }

    fn failed(cursor: &mut Cursor, vertex: &str, code: &str) {
        let (at, attempt, vertex) = (cursor.created(), 1, VertexName::new(vertex).unwrap());
        let reason = Reason::new(code, "by a test");
        cursor.apply(&Event::Started { vertex: vertex.clone(), attempt, at }).unwrap();
        cursor.apply(&Event::Failed { vertex, attempt, reason, next: AfterFailure::Rest, at }).unwrap();
    }

    fn begun(vertices: &[VertexTemplate]) -> (Dag, Cursor) {
        let mut plan = Plan::new("test");
        for vertex in vertices {
            plan.vertex(vertex.clone());
        }
        let dag = plan.expand().unwrap();
        let cursor = Cursor::new(plan.digest(), &dag, Timestamp::from_timestamp(1_790_000_000, 0).unwrap());
        (dag, cursor)
    }

    fn vertex(name: &str, kind: &str) -> VertexTemplate {
        VertexTemplate::new(name, StepKind::new(kind).unwrap(), Value::Null, &[])
    }

    #[test]
    fn a_wave_that_rests_for_lost_workers_looks_again_after_every_word_and_takes_none_up_before() {
        let batch = vertex("batch-1", "child-run/v1");
        let (dag, mut cursor) = begun(&[batch.clone(), vertex(STRAGGLERS_VERTEX, "stragglers/v1")]);
        let intent = || Intent {
            retry: vec![asked("r-1", "w-1"), asked("r-2", "batch-1")],
            skip: vec![asked("skip/s-1", "w-2")],
            ..Intent::default()
        };
        let words = |dag: &Dag, cursor: &Cursor| -> Vec<(String, Option<String>)> {
            let mut intent = intent();
            ask_stragglers(&mut intent, dag, cursor);
            intent.retry.into_iter().map(|asked| (asked.request, asked.what)).collect()
        };
        let what = |what: &str| Some(what.to_owned());
        let waits = [("r-1".to_owned(), None), ("r-2".to_owned(), what("batch-1"))];
        assert_eq!(words(&dag, &cursor), waits, "w-1 is none of its vertices: it lies in wait");
        failed(&mut cursor, STRAGGLERS_VERTEX, "DrainBlocked");
        assert_eq!(words(&dag, &cursor), waits, "it rests for a run below, which is asked itself");
        let (dag, mut cursor) = begun(&[batch, vertex(STRAGGLERS_VERTEX, "stragglers/v1")]);
        failed(&mut cursor, STRAGGLERS_VERTEX, NODES_FAILED);
        let all = ["r-1", "r-2", "skip/s-1"].map(|request| (request.to_owned(), what(STRAGGLERS_VERTEX)));
        assert_eq!(words(&dag, &cursor), all);
        let (dag, cursor) = begun(&[vertex("w-1/drain", "drain-node/v1")]);
        let own = [("r-1".to_owned(), what("w-1")), ("r-2".to_owned(), what("batch-1"))];
        assert_eq!(words(&dag, &cursor), own, "no other run is asked otherwise");
    }

    #[test]
    fn whoever_was_lost_is_asked_for_by_what_its_batch_did_not_take_up() {
        let lane = |node: &str| {
            let params = json!({"node": {"name": node, "uid": format!("uid-of-{node}")}});
            let kind = StepKind::new("drain-node/v1").unwrap();
            VertexTemplate::new(format!("{node}/drain"), kind, params, &[]).lane(node)
        };
        let (dag, mut cursor) = begun(&["w-1", "w-2", "w-3"].map(lane));
        for node in ["w-1", "w-2"] {
            failed(&mut cursor, &format!("{node}/drain"), "DeadlineExceeded");
        }
        let at = cursor.created();
        cursor.apply(&Event::TakenUp { request: "before".to_owned(), at }).unwrap();
        let name = RunName::new("batch-1").unwrap();
        let lost = |retry: Vec<Asked>| -> Vec<(String, String, bool)> {
            let stored = StoredRun {
                name: name.clone(),
                uid: "u".to_owned(),
                dag: Arc::new(dag.clone()),
                cursor: cursor.clone(),
                version: Version("1".to_owned()),
                epoch: Epoch(1),
                limits: Limits::default(),
                intent: Intent { retry, ..Intent::default() },
            };
            lost_by(&stored).map(|(node, straggler)| (node, straggler.uid, straggler.asked)).collect()
        };
        let of = |one: bool, other: bool| {
            let row = |node: &str, asked| (node.to_owned(), format!("uid-of-{node}"), asked);
            vec![row("w-1", one), row("w-2", other)]
        };
        assert_eq!(lost(vec![]), of(false, false), "w-3 did not fail");
        assert_eq!(lost(vec![asked("before", "w-1")]), of(false, false), "that was for an attempt of its own");
        assert_eq!(lost(vec![asked("after", "w-1")]), of(true, false));
        assert_eq!(lost(vec![asked("after", "w-2/drain")]), of(false, true));
    }
}
