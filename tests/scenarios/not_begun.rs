//! What people ask of an update that has not begun: it is answered and obeyed as it is under way, and the end stays the end.

use crate::cluster::{Cluster, QUIET_SECONDS, UPDATE, in_cluster};
use chrono::TimeDelta;
use cupcake_crds::conditions::{self, ConditionStatus};
use cupcake_crds::values::Phase;
use cupcake_crds::{DirectUpdateStatus, GROUP, UpgradeRun};
use kube::api::DeleteParams;
use serde_json::{Value, json};

/// How soon a request is answered, in seconds.
const ANSWERED_SECONDS_MAX: i64 = 5;

/// Why an update has not begun yet.
#[derive(Debug, Clone, Copy)]
enum Before {
    Refused,
    Queued,
    OutsideItsWindow,
}

impl Before {
    const ALL: [Self; 3] = [Self::Refused, Self::Queued, Self::OutsideItsWindow];

    /// Applies an update that stands so.
    async fn stand(self, cluster: &Cluster) {
        cluster.pass(120).await;
        let (spec, says) = match self {
            Self::Refused => {
                cluster.freeze().await;
                (json!({}), "DisruptionBudget")
            }
            Self::Queued => {
                cluster.apply("first", json!({})).await;
                (json!({}), "waits for DirectUpdate first")
            }
            Self::OutsideItsWindow => {
                let at = |minutes| (cluster.world.now() + TimeDelta::minutes(minutes)).format("%H:%M").to_string();
                (json!({"maintenanceWindow": {"start": at(60), "end": at(1_200)}}), "goes on by itself at ")
            }
        };
        cluster.apply(UPDATE, spec).await;
        cluster.eventually("it says why it waits", async || cluster.phase(UPDATE).1.contains(says)).await;
    }

    /// Until what kept it from its start is gone.
    async fn pass(self, cluster: &Cluster) {
        match self {
            Self::Refused => {
                let budgets: kube::Api<k8s_openapi::api::policy::v1::PodDisruptionBudget> =
                    kube::Api::namespaced(cluster.client.clone(), "default");
                cluster.ask(async || budgets.delete("frozen", &DeleteParams::default()).await.map(drop)).await;
            }
            Self::Queued => assert_eq!(cluster.at_rest("first").await.0, Phase::Succeeded),
            Self::OutsideItsWindow => cluster.pass(3_900).await,
        }
        // What the other update leaves for later has come to its end, too.
        cluster.pass(120).await;
    }
}

fn status(cluster: &Cluster) -> DirectUpdateStatus {
    cluster.update(UPDATE).unwrap().status.unwrap()
}

/// Asks for something, and gives the answer, which has to come soon.
async fn asked(cluster: &Cluster, id: &str, control: Value) -> String {
    cluster.patch(UPDATE, json!({"spec": {"control": control}})).await;
    cluster.pass(ANSWERED_SECONDS_MAX).await;
    let answers = status(cluster).acknowledged;
    let answer = answers.into_iter().find(|answer| answer.request_id == id);
    answer.unwrap_or_else(|| panic!("{id} is not answered: {:?}", cluster.phase(UPDATE))).message
}

/// Nothing of it is begun, though nothing else stands in the way.
async fn nothing_starts(cluster: &Cluster, when: &str) {
    let before = cluster.effects();
    cluster.pass(QUIET_SECONDS).await;
    assert_eq!(cluster.effects(), before, "{when}: something was done");
    let runs = cluster.all::<UpgradeRun>(GROUP, "upgraderuns").into_iter();
    let own = runs.filter(|run| run.spec.direct_update.name == UPDATE).count();
    assert_eq!((own, status(cluster).run), (0, None), "{when}: a run");
}

fn paused(cluster: &Cluster) -> Option<ConditionStatus> {
    conditions::get(&status(cluster).conditions, conditions::PAUSED).map(|paused| paused.status)
}

#[test]
fn what_is_asked_of_an_update_that_has_not_begun_is_answered_and_a_cancel_is_its_end() {
    for before in Before::ALL {
        in_cluster(2, false, async |cluster| {
            let when = format!("{before:?}, cancelled");
            before.stand(cluster).await;
            let answer = asked(cluster, "enough", json!({"cancel": {"requestId": "enough"}})).await;
            assert_eq!(answer, "cancelled before anything was started", "{when}");
            assert_eq!(cluster.phase(UPDATE), (Phase::Cancelled, answer), "{when}");
            before.pass(cluster).await;
            nothing_starts(cluster, &when).await;
            let ended = status(cluster);
            let late = asked(cluster, "late", json!({"pause": {"requestId": "late"}})).await;
            assert_eq!(late, "refused: the update is over; apply another", "{when}");
            let mut after = status(cluster);
            assert!(after.observed_generation > ended.observed_generation, "{when}: the request was seen");
            after.observed_generation = ended.observed_generation;
            after.acknowledged.clone_from(&ended.acknowledged);
            assert_eq!(after, ended, "{when}: nothing else changes");
            nothing_starts(cluster, &when).await;
        });
        in_cluster(2, false, async |cluster| {
            let when = format!("{before:?}, paused");
            before.stand(cluster).await;
            let control = json!({"pause": {"requestId": "hold", "reason": "CHG-4711"}, "skip": [{"requestId": "s", "vertex": "w-9"}]});
            let answer = asked(cluster, "hold", control).await;
            assert_eq!(answer, "paused: nothing is started before it is resumed", "{when}");
            assert_eq!(status(cluster).acknowledged.len(), 2, "{when}: the other request, too");
            let (phase, message) = cluster.phase(UPDATE);
            assert_eq!((phase, paused(cluster)), (Phase::Pending, Some(ConditionStatus::True)), "{when}");
            assert!(message.contains("CHG-4711") && message.ends_with("kubectl cupcake resume to-1-34"), "{message}");
            before.pass(cluster).await;
            nothing_starts(cluster, &when).await;
            cluster.patch(UPDATE, json!({"spec": {"control": {"pause": null}}})).await;
            cluster.pass(ANSWERED_SECONDS_MAX).await;
            assert_eq!(paused(cluster), Some(ConditionStatus::False), "{when}, resumed");
            let (phase, message) = cluster.at_rest(UPDATE).await;
            assert_eq!(phase, Phase::Succeeded, "{when}, resumed: {message}");
        });
    }
}

#[test]
fn an_update_that_is_held_before_its_start_keeps_nobody_from_a_turn() {
    in_cluster(2, true, async |cluster| {
        cluster.apply(UPDATE, json!({"control": {"pause": {"requestId": "hold"}}})).await;
        cluster.apply("second", json!({})).await;
        let (phase, message) = cluster.at_rest("second").await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        assert_eq!((cluster.phase(UPDATE).0, status(cluster).run), (Phase::Pending, None));
        let annotated = json!({"metadata": {"annotations": {"cupcake.ricardomolendijk.com/paused": "true"}}});
        cluster.patch(UPDATE, annotated).await;
        cluster.patch(UPDATE, json!({"spec": {"control": {"pause": null}}})).await;
        cluster
            .eventually("it says what holds it", async || cluster.phase(UPDATE).1.contains("by its annotation"))
            .await;
        assert_eq!(paused(cluster), Some(ConditionStatus::True), "by whichever way it was asked");
    });
}

#[test]
fn an_update_that_is_over_without_a_run_never_begins_anew_whatever_becomes_of_its_spec() {
    in_cluster(1, true, async |cluster| {
        let over = json!({"cancel": {"requestId": "enough"}});
        for (name, spec) in [
            ("dry", json!({"dryRun": true})),
            ("there", json!({"targetVersion": "1.33.4"})),
            ("cancelled", json!({"control": over})),
        ] {
            cluster.apply(name, spec).await;
            let (phase, message) = cluster.at_rest(name).await;
            assert!(phase.is_final(), "{name}: {phase}: {message}");
            for change in [json!({"targetVersion": "1.34.5"}), json!({"nodeSelector": {"pool": "blue"}})] {
                let patch = kube::api::Patch::Merge(json!({"spec": change}));
                let refused = cluster.updates().patch(name, &kube::api::PatchParams::default(), &patch).await;
                let refused = refused.unwrap_err().to_string();
                assert!(refused.contains("nor once the update is over"), "{name}: {refused}");
            }
            // What may still be changed is no reason to begin.
            let before = cluster.update(name).unwrap().status;
            cluster.patch(name, json!({"spec": {"concurrency": 3}})).await;
            cluster.pass(QUIET_SECONDS).await;
            let update = cluster.update(name).unwrap();
            // Or kstatus would call it under way.
            let generation = update.metadata.generation;
            let after = update.status.map(|status| (status.observed_generation, status.phase, status.message));
            assert_eq!(after, before.map(|before| (generation, before.phase, before.message)), "{name}");
        }
        assert_eq!((cluster.all::<UpgradeRun>(GROUP, "upgraderuns").len(), cluster.effects()), (0, 0));
    });
}
