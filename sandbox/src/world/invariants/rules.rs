//! What may follow what, as far as values alone tell.

use crate::api::Verb;
use cupcake_crds::NodeTask;
use cupcake_crds::node_task::{NodeTaskStatus, Order, TaskState};
use cupcake_crds::values::{KubeVersion, OrderKey};
use cupcake_engine::cursor::{Cursor, VertexState};
use cupcake_engine::dag::Dag;
use cupcake_engine::names::VertexName;
use serde_json::Value;
use std::collections::BTreeMap;

/// Kubelets and kube-proxies may be this many minors older than an API server (version skew policy, Kubernetes 1.28 and newer).
const MINORS_BEHIND_MAX: i64 = 3;

/// Whether a request may be answered from an older revision than one that its client has seen. An API server may do that only where it
/// is allowed to: a `get` or `list` of any revision at all, or of one that is named; and a watch of any. Without a revision a read is as
/// new as etcd, and a watch tells in order what came after the revision that it starts from.
///
/// Source: kubernetes.io, "Kubernetes API Concepts", Resource versions (v1.34).
pub(super) fn may_be_old(verb: Verb, query: &str) -> bool {
    let revision = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion="));
    match verb {
        Verb::Get | Verb::List => revision.is_some_and(|revision| !revision.is_empty()),
        Verb::Watch => revision == Some("0"),
        Verb::Create | Verb::Update | Verb::Patch | Verb::Delete | Verb::DeleteCollection => false,
    }
}

/// Whether somebody may still be at work for it, or begin to.
pub(super) fn has_open_order(task: &NodeTask) -> bool {
    task.spec.order.as_ref().is_some_and(|order| task.answer().map_or(!order.stop, |state| !state.is_final()))
}

/// Whether that attempt is under way in its run, as last committed.
pub(super) fn is_recorded(cursors: &BTreeMap<String, Cursor>, key: &OrderKey) -> bool {
    let state = cursors.get(&key.run_uid).and_then(|cursor| cursor.state(&VertexName::new(&key.vertex).ok()?));
    match state {
        Some(VertexState::Started { attempt, .. } | VertexState::Waiting { attempt, .. }) => attempt == key.attempt,
        Some(
            VertexState::Pending { .. }
            | VertexState::BackingOff { .. }
            | VertexState::Succeeded { .. }
            | VertexState::Skipped { .. }
            | VertexState::Failed { .. },
        )
        | None => false,
    }
}

/// What a write of a task asks its machine to do that it was not asked before.
pub(super) fn asked_for(before: Option<&NodeTask>, after: &NodeTask) -> Option<&'static str> {
    let is = after.spec.order.as_ref()?;
    match before.and_then(|before| before.spec.order.as_ref()).filter(|was| was.key == is.key) {
        None => Some("given an order"),
        Some(was) => (is.proceed && !was.proceed).then_some("told to proceed"),
    }
}

/// What a task took back: what its order asked for, or what was answered.
pub(super) fn taken_back(before: &NodeTask, after: &NodeTask) -> Option<String> {
    if let (Some(was), Some(is)) = (&before.spec.order, &after.spec.order)
        && was.key == is.key
    {
        let asked = Order { proceed: is.proceed, stop: is.stop, epoch: is.epoch, ..was.clone() };
        if asked != *is {
            return Some("its order asks for something else under the same key".to_owned());
        }
        if (was.proceed && !is.proceed) || (was.stop && !is.stop) {
            return Some("proceed or stop of its order was withdrawn".to_owned());
        }
    }
    let was = before.status.as_ref()?;
    let removed = NodeTaskStatus::default();
    let is = after.status.as_ref().unwrap_or(&removed);
    let order = after.spec.order.as_ref().map(|order| &order.key);
    if was.key != is.key && (is.key.is_none() || is.key.as_ref() != order) {
        return Some("its answer was removed, or replaced by one to another order".to_owned());
    }
    let (was, is) = if was.key == is.key { (was.state?, is.state) } else { return None };
    let stays = !was.is_final() && is != Some(TaskState::Claimed);
    (is != Some(was) && !stays).then(|| format!("its answer went from {} to {is:?}", was.as_str()))
}

/// What a cursor took back.
pub(super) fn went_back(dag: &Dag, before: &Cursor, after: &Cursor) -> Option<String> {
    if after.commit_id() < before.commit_id() || (after.commit_id() == before.commit_id() && after != before) {
        return Some(format!("commit {:?} after {:?}", after.commit_id(), before.commit_id()));
    }
    dag.vertices().iter().find_map(|vertex| {
        let (was, is) = (before.state(&vertex.name)?, after.state(&vertex.name)?);
        (!may_follow(was, is)).then(|| format!("{} went from {was:?} to {is:?}", vertex.name))
    })
}

/// Whether a vertex may stand like that after a commit: an attempt that is over has one result, whatever comes after it is another
/// attempt, and what succeeded stays so (only a person who asks to try it again takes that back, and nobody does in a judged world).
/// What failed or was skipped may be made ready for a further attempt, which begins in the same commit or later.
fn may_follow(was: VertexState, is: VertexState) -> bool {
    if is.attempts() != was.attempts() {
        return is.attempts() > was.attempts() && !matches!(was, VertexState::Succeeded { .. });
    }
    match was {
        VertexState::Started { .. } | VertexState::Waiting { .. } => true,
        VertexState::Succeeded { .. } => is == was,
        VertexState::Pending { .. } | VertexState::Skipped { .. } => {
            matches!(is, VertexState::Pending { .. } | VertexState::Skipped { .. })
        }
        VertexState::Failed { .. } => {
            is == was || matches!(is, VertexState::Pending { .. } | VertexState::Skipped { .. })
        }
        // It may give up before its next attempt. A pause or an outage moves its times.
        VertexState::BackingOff { .. } => matches!(
            is,
            VertexState::BackingOff { .. }
                | VertexState::Failed { .. }
                | VertexState::Pending { .. }
                | VertexState::Skipped { .. }
        ),
    }
}

/// A vertex that began although a pause or a cancel was acknowledged before. Guards (they give nodes back) may.
pub(super) fn begun_against_will(dag: &Dag, before: &Cursor, after: &Cursor) -> Option<String> {
    let paused = before.is_paused() && after.is_paused();
    if !paused && !before.is_cancelling() {
        return None;
    }
    let begun = |cursor: &Cursor, name: &VertexName| cursor.state(name).map_or(0, |state| state.attempts());
    let against = dag.vertices().iter().filter(|vertex| vertex.guard.is_none());
    let name = against.map(|vertex| &vertex.name).find(|name| begun(after, name) > begun(before, name))?;
    Some(format!("{name} began after the {} was acknowledged", if paused { "pause" } else { "cancel" }))
}

/// A kubelet or a kube-proxy beside API servers: never newer than one of them, and not too old.
///
/// Source: https://kubernetes.io/releases/version-skew-policy/ (kubelet, kube-proxy).
pub(super) fn skewed(what: &str, version: KubeVersion, oldest: KubeVersion, newest: KubeVersion) -> Option<String> {
    let behind = i64::from(newest.minor()) - i64::from(version.minor());
    let behind_max = if version.minor() < 25 { MINORS_BEHIND_MAX - 1 } else { MINORS_BEHIND_MAX };
    let newer = version.minor_version() > oldest.minor_version();
    (newer || behind > behind_max).then(|| format!("{what} is {version}, the API servers {oldest} to {newest}"))
}

/// API servers of one cluster: one minor apart at most.
///
/// Source: https://kubernetes.io/releases/version-skew-policy/ (kube-apiserver).
pub(super) fn apart(oldest: KubeVersion, newest: KubeVersion) -> Option<String> {
    let apart = i64::from(newest.minor()) - i64::from(oldest.minor());
    (apart > 1).then(|| format!("the API servers are {oldest} to {newest}"))
}

/// The version of kube-proxy that a pod runs, if it is one of it.
pub(super) fn proxy_of(pod: &Value) -> Option<KubeVersion> {
    let containers = pod["spec"]["containers"].as_array()?;
    let proxy = containers.iter().find(|container| container["name"] == "kube-proxy")?;
    proxy["image"].as_str()?.rsplit_once(':')?.1.parse().ok()
}

/// Whether an update tells of a node that stays cordoned: in a sentence, or as one that failed, is in flight or was left out.
pub(super) fn names(update: &Value, node: &str) -> bool {
    let status = &update["status"];
    let in_flight =
        status["nodes"][node]["phase"].as_str().is_some_and(|phase| !matches!(phase, "Pending" | "Completed"));
    let left_out = status["leftOut"].as_array().is_some_and(|left| left.iter().any(|left| left["node"] == node));
    is_said_of(update, node) || in_flight || left_out
}

/// Whether one of the sentences of an update, its message and those of its conditions, has that node's name in it.
pub(in super::super) fn is_said_of(update: &Value, node: &str) -> bool {
    sentences(update).any(|sentence| {
        let mut words = sentence.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '.');
        words.any(|word| word.trim_end_matches('.') == node)
    })
}

/// Whether one of them has those words in it.
pub(in super::super) fn says(update: &Value, words: &str) -> bool {
    sentences(update).any(|sentence| sentence.contains(words))
}

fn sentences(update: &Value) -> impl Iterator<Item = &str> {
    let status = &update["status"];
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let conditions = conditions.map(|condition| &condition["message"]);
    std::iter::once(&status["message"]).chain(conditions).filter_map(Value::as_str)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use cupcake_engine::clock::Timestamp;
    use cupcake_engine::event::Event;
    use cupcake_engine::names::Reason;
    use cupcake_engine::plan::Plan;

    fn run(name: &str) -> Cursor {
        let dag = dag();
        let mut cursor = Cursor::new("digest", &dag, Timestamp::UNIX_EPOCH);
        let vertex = dag.vertices()[0].name.clone();
        let at = Timestamp::UNIX_EPOCH;
        let started = Event::Started { vertex: vertex.clone(), attempt: 1, at };
        let done = Event::Succeeded { vertex, attempt: 1, output: Value::Null, at };
        let events = match name {
            "new" => vec![],
            "started" => vec![started],
            _ => vec![started, done],
        };
        cursor.fold(&events).unwrap();
        cursor
    }

    pub(in super::super) fn dag() -> Dag {
        serde_json::from_value::<Plan>(plan()).unwrap().expand().unwrap()
    }

    pub(in super::super) fn plan() -> Value {
        serde_json::json!({
            "format": 1, "compiler": "test", "parts": [{"vertex": {
                "name": "a", "kind": "noop/v1", "params": {}, "after": [], "attemptsMax": 1, "deadlineSeconds": 60,
            }}],
        })
    }

    #[test]
    fn a_cursor_that_takes_a_result_or_an_attempt_back_is_seen() {
        let (dag, new, started, done) = (dag(), run("new"), run("started"), run("done"));
        assert!(went_back(&dag, &new, &new).is_none());
        for (before, after) in [(&started, &new), (&done, &started), (&done, &new)] {
            assert!(went_back(&dag, before, after).is_some(), "{before:?} -> {after:?}");
        }
    }

    #[test]
    fn an_attempt_that_is_over_has_one_result_and_is_followed_by_another_attempt() {
        let at = Timestamp::UNIX_EPOCH;
        // In order: as each state is named below, of an attempt.
        let states = |attempt: u32| {
            [
                ("pending", VertexState::Pending { attempts: attempt }),
                ("started", VertexState::Started { attempt, first: at, since: at }),
                ("waiting", VertexState::Waiting { attempt, first: at, since: at, until: at }),
                ("backing-off", VertexState::BackingOff { attempt, first: at, until: at }),
                ("succeeded", VertexState::Succeeded { attempt, first: at, ended: at }),
                ("skipped", VertexState::Skipped { attempts: attempt, ended: at }),
                ("failed", VertexState::Failed { attempt, first: at, ended: at }),
            ]
        };
        let after = |was: VertexState, attempt: u32| -> Vec<&'static str> {
            let states = states(attempt).into_iter();
            states.filter(|(_, is)| may_follow(was, *is)).map(|(name, _)| name).collect()
        };
        let all: Vec<_> = states(1).map(|(name, _)| name).to_vec();
        for (name, was) in states(2) {
            assert_eq!(after(was, 1), Vec::<&str>::new(), "{name}: an attempt less");
            let further = if name == "succeeded" { Vec::new() } else { all.clone() };
            assert_eq!(after(was, 3), further, "{name}: an attempt more");
            let same = match name {
                "started" | "waiting" => all.clone(),
                "succeeded" => vec!["succeeded"],
                "pending" | "skipped" => vec!["pending", "skipped"],
                "failed" => vec!["pending", "skipped", "failed"],
                _ => vec!["pending", "backing-off", "skipped", "failed"],
            };
            assert_eq!(after(was, 2), same, "{name}: the same attempt");
        }
        let later = Timestamp::UNIX_EPOCH + chrono::TimeDelta::seconds(1);
        let ended = |ended| VertexState::Failed { attempt: 1, first: at, ended };
        assert!(!may_follow(ended(at), ended(later)), "a second result");
    }

    #[test]
    fn a_vertex_that_begins_after_a_pause_or_a_cancel_was_acknowledged_is_seen() {
        let dag = dag();
        let at = Timestamp::UNIX_EPOCH;
        let against = |events: &[Event]| {
            let mut before = run("new");
            before.fold(events).unwrap();
            let mut after = before.clone();
            after.fold(&[Event::Started { vertex: dag.vertices()[0].name.clone(), attempt: 1, at }]).unwrap();
            begun_against_will(&dag, &before, &after)
        };
        let paused = Event::Paused { reason: Reason::new("Paused", "by a person"), at };
        assert_eq!(against(&[]), None);
        assert!(against(&[paused]).is_some());
        assert!(against(&[Event::CancelRequested { at }]).is_some());
    }

    #[test]
    fn an_order_of_an_attempt_that_its_run_does_not_know_of_is_seen() {
        let key = |vertex: &str, attempt: u32| -> OrderKey {
            serde_json::from_value(serde_json::json!({"runUid": "r", "vertex": vertex, "attempt": attempt})).unwrap()
        };
        let stored = |cursor: Cursor| BTreeMap::from([("r".to_owned(), cursor)]);
        assert!(is_recorded(&stored(run("started")), &key("a", 1)));
        assert!(!is_recorded(&stored(run("new")), &key("a", 1)), "nothing was begun");
        assert!(!is_recorded(&stored(run("started")), &key("a", 2)), "another attempt");
        assert!(!is_recorded(&stored(run("started")), &key("b", 1)), "no vertex of that plan");
        assert!(!is_recorded(&BTreeMap::new(), &key("a", 1)), "no run");
    }

    #[test]
    fn an_answer_that_is_final_stays() {
        let key = |attempt: u32| serde_json::json!({"runUid": "r", "vertex": "v", "attempt": attempt});
        let task = |ordered: u32, status: Value| -> NodeTask {
            let order = serde_json::json!({
                "key": key(ordered), "epoch": 1, "targetVersion": "1.34.4", "prepare": [], "finish": [],
                "proceed": false, "stop": false, "deadlineSeconds": 60,
            });
            serde_json::from_value(serde_json::json!({
                "apiVersion": "cupcake.ricardomolendijk.com/v1alpha1", "kind": "NodeTask",
                "metadata": {"name": "w-1"}, "status": status,
                "spec": {"nodeName": "w-1", "nodeUid": "u", "epoch": 1, "order": order},
            }))
            .unwrap()
        };
        let answer = |attempt: u32, state: &str| serde_json::json!({"key": key(attempt), "state": state});
        let done = task(1, answer(1, "Done"));
        assert_eq!(taken_back(&done, &done), None);
        assert_eq!(taken_back(&done, &task(2, answer(1, "Done"))), None, "the next order");
        assert_eq!(taken_back(&done, &task(2, answer(2, "Claimed"))), None, "and its answer");
        for lost in
            [Value::Null, serde_json::json!({}), answer(2, "Claimed"), answer(1, "Working"), answer(1, "Failed")]
        {
            assert!(taken_back(&done, &task(1, lost.clone())).is_some(), "{lost}");
        }
    }

    #[test]
    fn a_kubelet_is_neither_newer_than_an_api_server_nor_more_than_three_minors_older() {
        let between = |kubelet: &str, oldest: &str, newest: &str| {
            skewed("the kubelet of w-1", kubelet.parse().unwrap(), oldest.parse().unwrap(), newest.parse().unwrap())
        };
        let skewed = |kubelet: &str, server: &str| between(kubelet, server, server);
        assert!(between("1.31.0", "1.34.0", "1.35.0").is_some(), "the newest counts");
        assert!(skewed("1.24.0", "1.27.0").is_some(), "two minors only below 1.25");
        assert_eq!(skewed("1.34.4", "1.34.0"), None);
        assert_eq!(skewed("1.31.0", "1.34.0"), None);
        assert!(skewed("1.34.0", "1.33.9").is_some());
        assert!(skewed("1.30.14", "1.34.0").is_some());
        let servers = |oldest: &str, newest: &str| apart(oldest.parse().unwrap(), newest.parse().unwrap());
        assert_eq!(servers("1.33.0", "1.34.4"), None);
        assert!(servers("1.33.9", "1.35.0").is_some());
    }

    #[test]
    fn an_order_that_was_asked_to_stop_before_anybody_claimed_it_is_not_open() {
        let task = |stop: bool, state: Value| -> NodeTask {
            let key = serde_json::json!({"runUid": "r", "vertex": "v", "attempt": 1});
            let order = serde_json::json!({
                "key": key, "epoch": 1, "targetVersion": "1.34.4", "prepare": [], "finish": [], "proceed": false,
                "stop": stop, "deadlineSeconds": 60,
            });
            let status = serde_json::json!({"key": key, "state": state});
            let spec = serde_json::json!({"nodeName": "w-1", "nodeUid": "u", "epoch": 1, "order": order});
            serde_json::from_value(serde_json::json!({
                "apiVersion": "cupcake.ricardomolendijk.com/v1alpha1", "kind": "NodeTask",
                "metadata": {"name": "w-1"}, "spec": spec, "status": status,
            }))
            .unwrap()
        };
        assert!(has_open_order(&task(false, Value::Null)));
        assert!(!has_open_order(&task(true, Value::Null)));
        assert!(has_open_order(&task(true, "Working".into())));
        assert!(!has_open_order(&task(false, "Done".into())));
    }

    #[test]
    fn a_read_may_be_old_only_where_its_client_lets_it() {
        let old =
            ["&resourceVersion=0", "&limit=500&resourceVersion=0", "&resourceVersion=7&resourceVersionMatch=Exact"];
        for query in old {
            assert!(may_be_old(Verb::List, query) && may_be_old(Verb::Get, query), "{query}");
        }
        assert!(may_be_old(Verb::Watch, "&watch=true&resourceVersion=0"));
        for (verb, query) in
            [(Verb::Get, ""), (Verb::List, "&limit=500&continue=abc"), (Verb::List, "&resourceVersion=")]
        {
            assert!(!may_be_old(verb, query), "{query}");
        }
        assert!(!may_be_old(Verb::Watch, "&watch=true&resourceVersion=7"));
        assert!(!may_be_old(Verb::Patch, "&resourceVersion=0"));
    }
}
