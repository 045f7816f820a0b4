//! What a sink of notifications is told of updates: each change once, in order, whatever dies; and no step waits for it.

use crate::cluster::{Cluster, UPDATE, in_prepared_world};
use cupcake_crds::values::{Concurrency, KubeVersion, Phase};
use cupcake_engine::clock::Timestamp;
use cupcake_operator::notify::message::Letter;
use cupcake_operator::notify::{PostError, Sink};
use cupcake_sandbox::machine::fault::{Component, Fault, Wrong};
use cupcake_sandbox::world::{Upgrade, WorldConfig};
use futures::future::BoxFuture;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// What a sink does with what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Mood {
    /// Takes it.
    #[default]
    Open,
    /// Says that it cannot now.
    Busy,
    /// Never answers.
    Silent,
}

/// A sink that never forgets what it took.
#[derive(Default)]
struct Receiver {
    mood: Mutex<Mood>,
    took: Mutex<Vec<Letter>>,
}

impl Receiver {
    fn new(mood: Mood) -> Arc<Self> {
        Arc::new(Self { mood: Mutex::new(mood), ..Self::default() })
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn took(&self) -> Vec<Letter> {
        self.took.lock().unwrap().clone()
    }

    /// What it was told of an update, in the order in which it came.
    fn told_of(&self, update: &str) -> Vec<&'static str> {
        let letters = self.took();
        letters.iter().filter(|one| one.update == update).map(|one| one.notice.transition.as_str()).collect()
    }
}

impl Sink for Receiver {
    fn post<'s>(&'s self, letter: &'s Letter) -> BoxFuture<'s, Result<(), PostError>> {
        Box::pin(async move {
            let mood = *self.mood.lock().unwrap();
            match mood {
                Mood::Open => self.took.lock().unwrap().push(letter.clone()),
                Mood::Busy => return Err(PostError::Later("the sink answered 503".into())),
                Mood::Silent => std::future::pending().await,
            }
            Ok(())
        })
    }
}

fn config() -> WorldConfig {
    let start = Timestamp::from_timestamp(1_790_000_000, 0).unwrap();
    WorldConfig { control_planes: 1, workers: 2, ..WorldConfig::new(KubeVersion::new(1, 33, 4), start) }
}

fn told(receiver: &Arc<Receiver>, config: WorldConfig, scenario: impl AsyncFnOnce(&Cluster)) {
    in_prepared_world(config, |world| world.notify(Arc::clone(receiver) as Arc<dyn Sink>), scenario);
}

fn upgrade() -> Upgrade {
    Upgrade { name: UPDATE.into(), to: KubeVersion::new(1, 34, 4), concurrency: Concurrency::Nodes(1) }
}

/// Notices that are still to be told, of all updates.
fn left(cluster: &Cluster) -> usize {
    let updates = cluster.all::<cupcake_crds::DirectUpdate>(cupcake_crds::GROUP, "directupdates");
    updates.into_iter().filter_map(|update| update.status).map(|status| status.notices.len()).sum()
}

#[test]
fn a_sink_is_told_each_change_of_an_update_once_in_order_and_nothing_of_its_steps() {
    let receiver = Receiver::new(Mood::Open);
    told(&receiver, config(), async |cluster| {
        cluster.apply(UPDATE, json!({"approvals": ["BeforeControlPlane"]})).await;
        cluster.eventually("a gate waits", async || receiver.told_of(UPDATE).contains(&"approval-needed")).await;
        cluster.apply("another", json!({})).await;
        let gate = "1.34.4/control-plane-gate";
        let approval = json!({"requestId": "go", "gate": gate, "requestedBy": "jane", "reason": "ready"});
        cluster.patch(UPDATE, json!({"spec": {"control": {"approvals": [approval]}}})).await;
        cluster.eventually("it is approved", async || receiver.told_of(UPDATE).contains(&"approved")).await;
        cluster.patch(UPDATE, json!({"spec": {"control": {"pause": {"requestId": "wait"}}}})).await;
        cluster.eventually("it is paused", async || receiver.told_of(UPDATE).contains(&"paused")).await;
        cluster.patch(UPDATE, json!({"spec": {"control": {"pause": null}}})).await;
        assert_eq!(cluster.at_rest(UPDATE).await.0, Phase::Succeeded);
        cluster
            .eventually("the other has nothing to do", async || cluster.phase("another").0 == Phase::Succeeded)
            .await;
        cluster.pass(60).await;
        let wanted = ["started", "approval-needed", "approved", "paused", "resumed", "succeeded"];
        assert_eq!(receiver.told_of(UPDATE), wanted);
        assert_eq!(receiver.told_of("another"), ["waiting", "succeeded"]);
        let letters = receiver.took();
        let approved = letters.iter().find(|letter| letter.notice.id.contains("approved")).unwrap();
        assert_eq!(approved.notice.message, format!("{gate} by jane: ready"));
        let update = cluster.update(UPDATE).unwrap();
        assert!(
            letters
                .iter()
                .all(|letter| letter.update != UPDATE || Some(&letter.operation_id) == update.metadata.uid.as_ref())
        );
        assert_eq!(left(cluster), 0, "what was delivered is taken out");
        let counts = cluster.metrics.text();
        for line in
            ["cupcake_notifications_total{result=\"sent\"} 8", "cupcake_notifications_total{result=\"retried\"} 0"]
        {
            assert!(counts.lines().any(|one| one == line), "{line} is not in\n{counts}");
        }
    });
}

#[test]
fn a_refusal_a_rest_and_a_cancel_are_told_too() {
    let receiver = Receiver::new(Mood::Open);
    told(&receiver, WorldConfig { budget: false, ..config() }, async |cluster| {
        let budgets = cluster.freeze().await;
        cluster.apply("refused", json!({})).await;
        cluster.eventually("it is refused", async || receiver.told_of("refused") == ["refused"]).await;
        cluster.patch("refused", json!({"spec": {"control": {"cancel": {"requestId": "enough"}}}})).await;
        cluster.eventually("it is cancelled", async || receiver.told_of("refused") == ["refused", "cancelled"]).await;
        cluster.ask(async || budgets.delete("frozen", &DeleteParams::default()).await.map(drop)).await;
        let budgets = cluster.apply_then_freeze(UPDATE, json!({"drain": {"timeout": "2m"}})).await;
        assert_eq!(cluster.at_rest(UPDATE).await.0, Phase::RequiresAttention);
        cluster.eventually("it rests", async || receiver.told_of(UPDATE).contains(&"requires-attention")).await;
        let rests = receiver.took().pop().unwrap();
        assert!(rests.notice.transition.needs_a_look() && rests.notice.message.contains("w-1"), "{rests:?}");
        cluster.ask(async || budgets.delete("frozen", &DeleteParams::default()).await.map(drop)).await;
        let retry = json!([{"requestId": "again", "vertex": "w-1"}]);
        cluster.patch(UPDATE, json!({"spec": {"control": {"retry": retry}}})).await;
        cluster.eventually("it arrives", async || cluster.phase(UPDATE).0 == Phase::Succeeded).await;
        cluster.pass(60).await;
        assert_eq!(receiver.told_of(UPDATE), ["started", "requires-attention", "resumed", "succeeded"]);
    });
}

#[test]
fn whichever_leader_dies_or_stands_still_each_change_is_told_and_what_comes_twice_has_the_same_id() {
    let (mut updates, mut twice) = (0, 0);
    for write in (1..).step_by(5) {
        for wrong in [Wrong::Before, Wrong::After, Wrong::Stopped] {
            let faults = vec![Fault::at_write(Component::Operator, write, wrong)];
            let receiver = Receiver::new(Mood::Open);
            let mut happened = false;
            let config = WorldConfig { control_planes: 2, operators: 2, workers: 1, faults, ..config() };
            told(&receiver, config, async |cluster| {
                let outcome = cluster.world.upgrade(&upgrade()).await.unwrap();
                assert!(outcome.succeeded(), "{write} {wrong:?}: {}", outcome.message);
                happened = !cluster.world.faults_happened().is_empty();
                cluster.pass(120).await;
                assert_eq!(left(cluster), 0, "{write} {wrong:?}");
            });
            if !happened {
                println!("{updates} updates whose leader died or stood still; {twice} notices came twice");
                assert!(updates > 30 && twice > 0, "{updates} {twice}");
                return;
            }
            let mut by_id = BTreeMap::<String, Letter>::new();
            let mut order = Vec::new();
            for letter in receiver.took() {
                let id = letter.notice.id.clone();
                if let Some(first) = by_id.get(&id) {
                    assert_eq!(*first, letter, "{write} {wrong:?}: one id, one content");
                    twice += 1;
                    continue;
                }
                order.push(letter.notice.transition.as_str());
                by_id.insert(id, letter);
            }
            assert_eq!(order, ["started", "succeeded"], "{write} {wrong:?}");
            updates += 1;
        }
    }
}

#[test]
fn no_update_takes_a_second_longer_for_a_sink_that_refuses_or_never_answers() {
    let took = |mood: Option<Mood>| {
        let receiver = Receiver::new(mood.unwrap_or_default());
        let prepare = |world: &cupcake_sandbox::world::World| {
            if mood.is_some() {
                world.notify(Arc::clone(&receiver) as Arc<dyn Sink>);
            }
        };
        in_prepared_world(config(), prepare, async |cluster| {
            let outcome = cluster.world.upgrade(&upgrade()).await.unwrap();
            assert!(outcome.succeeded(), "{mood:?}: {}", outcome.message);
            assert_eq!(left(cluster), if mood.is_some() { 2 } else { 0 }, "{mood:?}");
            outcome.virtual_seconds
        })
    };
    let without = took(None);
    for mood in [Mood::Busy, Mood::Silent] {
        let more = took(Some(mood)) - without;
        assert!(more.abs() < f64::EPSILON, "{mood:?} cost {more} s");
    }
}

#[test]
fn a_sink_that_is_away_through_a_whole_update_and_a_crash_is_told_all_of_it_once_it_is_back() {
    let receiver = Receiver::new(Mood::Busy);
    let faults = vec![Fault::at_write(Component::Operator, 60, Wrong::After)];
    told(&receiver, WorldConfig { faults, ..config() }, async |cluster| {
        let outcome = cluster.world.upgrade(&upgrade()).await.unwrap();
        assert!(outcome.succeeded(), "{}", outcome.message);
        assert_eq!((cluster.world.faults_happened().len(), left(cluster)), (1, 2));
        receiver.set(Mood::Open);
        cluster.eventually("all is told", async || left(cluster) == 0).await;
        assert_eq!(receiver.told_of(UPDATE), ["started", "succeeded"]);
    });
}

#[test]
fn what_nobody_takes_for_an_hour_is_given_up_and_counted_and_what_comes_later_is_told() {
    let receiver = Receiver::new(Mood::Silent);
    told(&receiver, config(), async |cluster| {
        cluster.world.upgrade(&upgrade()).await.unwrap();
        cluster.pass(2 * 3_600).await;
        assert_eq!(left(cluster), 0);
        let counts = cluster.metrics.text();
        assert!(counts.contains("cupcake_notifications_total{result=\"failed\"} 2"), "{counts}");
        receiver.set(Mood::Open);
        cluster.apply("another", json!({})).await;
        cluster.eventually("it is told", async || receiver.told_of("another") == ["succeeded"]).await;
        assert_eq!(receiver.took().len(), 1);
    });
}

#[test]
fn where_nobody_is_told_any_more_what_was_still_to_be_told_goes_with_the_next_change() {
    crate::cluster::in_world(config(), async |cluster| {
        cluster.apply(UPDATE, json!({})).await;
        let notice = json!({"id": "u.1.paused", "at": "2026-09-21T14:13:20Z", "transition": "Paused", "reason": "Paused", "message": "m"});
        let patch = Patch::Merge(json!({"status": {"notices": [notice]}}));
        let told = async || cluster.updates().patch_status(UPDATE, &PatchParams::default(), &patch).await;
        assert_eq!(cluster.ask(told).await.status.unwrap().notices.len(), 1);
        assert_eq!(cluster.at_rest(UPDATE).await.0, Phase::Succeeded);
        assert_eq!(left(cluster), 0);
    });
}
