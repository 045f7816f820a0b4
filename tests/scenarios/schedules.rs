//! Schedules in a simulated cluster: what is due begins once, whatever happens to the operator meanwhile.

use chrono::TimeDelta;
use cupcake_crds::conditions::{self, ConditionStatus};
use cupcake_crds::scheduled_update::ScheduledPhase;
use cupcake_crds::update_schedule::ConcurrencyPolicy;
use cupcake_crds::values::{KubeVersion, Phase};
use cupcake_crds::{DirectUpdate, GROUP, ScheduledUpdate, UpdateSchedule};
use cupcake_engine::clock::Timestamp;
use cupcake_sandbox::machine::fault::{Component, Fault, Wrong};
use cupcake_sandbox::world::{self, Speed, World, WorldConfig};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// A Sunday, ten minutes before midnight in UTC.
fn start() -> Timestamp {
    chrono::DateTime::parse_from_rfc3339("2026-11-22T23:50:00Z").unwrap().into()
}

struct Cluster {
    world: World,
    client: kube::Client,
}

/// A cluster of one control-plane node and one worker at `from`.
fn in_cluster<T>(from: KubeVersion, faults: Vec<Fault>, scenario: impl AsyncFnOnce(&Cluster) -> T) -> T {
    let config = WorldConfig { control_planes: 1, workers: 1, faults, ..WorldConfig::new(from, start()) };
    world::runtime(Speed::Fastest).unwrap().block_on(async {
        let world = World::new(config).unwrap();
        world.start();
        let client = world.server().client("user");
        scenario(&Cluster { world, client }).await
    })
}

const OLD: KubeVersion = KubeVersion::new(1, 33, 4);

impl Cluster {
    fn all<K: DeserializeOwned>(&self, group: &str, plural: &str) -> Vec<K> {
        let all = self.world.server().list(group, plural);
        all.iter().map(|object| serde_json::from_value(object.value().clone()).unwrap()).collect()
    }

    fn updates(&self) -> Vec<DirectUpdate> {
        self.all(GROUP, "directupdates")
    }

    fn names(&self) -> Vec<String> {
        self.updates().iter().map(ResourceExt::name_any).collect()
    }

    fn schedule(&self) -> UpdateSchedule {
        self.all(GROUP, "updateschedules").pop().unwrap()
    }

    fn scheduled(&self) -> ScheduledUpdate {
        self.all(GROUP, "scheduledupdates").pop().unwrap()
    }

    fn was_told(&self, reason: &str) -> usize {
        // Events of both API groups are kept in one store.
        let events = self.world.server().list("", "events");
        events.iter().filter(|event| event.value()["reason"] == reason).count()
    }

    async fn pass(&self, minutes: i64) {
        self.world.clock().sleep_until(self.world.now() + TimeDelta::minutes(minutes)).await;
    }

    async fn create_schedule(&self, cron: &str, fields: Value) {
        let mut spec = json!({"schedule": cron, "updatePolicy": {"targetVersionPattern": "latest-patch"}});
        spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let schedule = UpdateSchedule::new("patches", serde_json::from_value(spec).unwrap());
        Api::all(self.client.clone()).create(&PostParams::default(), &schedule).await.unwrap();
    }

    async fn create_scheduled(&self, minutes: i64) {
        let at = self.world.now() + TimeDelta::minutes(minutes);
        let spec = json!({"targetVersion": "1.34.4", "scheduleAt": at.to_rfc3339()});
        let scheduled = ScheduledUpdate::new("weekend", serde_json::from_value(spec).unwrap());
        Api::all(self.client.clone()).create(&PostParams::default(), &scheduled).await.unwrap();
    }

    async fn patch_schedule(&self, patch: Value) {
        let api: Api<UpdateSchedule> = Api::all(self.client.clone());
        api.patch("patches", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// A budget that lets no pod go: whatever begins is not over for as long as it is there.
    async fn freeze(&self) {
        let budget = json!({
            "metadata": {"name": "frozen"},
            "spec": {"maxUnavailable": 0, "selector": {"matchLabels": {"app": "shop"}}},
        });
        let api: Api<k8s_openapi::api::policy::v1::PodDisruptionBudget> =
            Api::namespaced(self.client.clone(), "default");
        api.create(&PostParams::default(), &serde_json::from_value(budget).unwrap()).await.unwrap();
    }
}

fn is_stalled(all: &[conditions::Condition]) -> bool {
    conditions::get(all, conditions::STALLED).is_some_and(|stalled| stalled.status == ConditionStatus::True)
}

#[test]
fn a_scheduled_update_begins_at_its_time_and_shows_how_its_update_ends() {
    in_cluster(OLD, Vec::new(), async |cluster| {
        cluster.create_scheduled(30).await;
        cluster.pass(29).await;
        assert!(cluster.names().is_empty());
        let status = cluster.scheduled().status.unwrap();
        assert_eq!(status.phase, Some(ScheduledPhase::Scheduled));
        cluster.pass(2).await;
        assert_eq!(cluster.names(), ["weekend"]);
        assert_eq!(cluster.scheduled().status.unwrap().phase, Some(ScheduledPhase::Executing));
        cluster.world.until_at_rest("weekend").await;
        cluster.pass(6).await;
        let status = cluster.scheduled().status.unwrap();
        assert_eq!(status.phase, Some(ScheduledPhase::Completed), "{status:?}");
        assert_eq!(status.direct_update_name.as_deref(), Some("weekend"));
        assert_eq!(status.scheduled_for, status.executed_at);
        assert_eq!((cluster.was_told("UpdateCreated"), cluster.was_told("Completed")), (1, 1));
    });
}

#[test]
fn a_schedule_looks_at_each_due_time_and_creates_nothing_when_the_newest_patch_is_there() {
    in_cluster(OLD, Vec::new(), async |cluster| {
        cluster.create_schedule("0 * * * *", json!({})).await;
        cluster.pass(55).await;
        let newest = "patches-20261123-0000";
        assert_eq!(cluster.names(), [newest]);
        cluster.world.until_at_rest(newest).await;
        assert_eq!(cluster.updates()[0].status.as_ref().unwrap().phase, Some(Phase::Succeeded));
        cluster.pass(60).await;
        assert_eq!(cluster.names(), [newest], "nothing newer is there");
        let status = cluster.schedule().status.unwrap();
        assert!(status.message.as_ref().unwrap().contains("already at"), "{status:?}");
        assert_eq!((status.active, status.last_update_name.as_deref()), (None, Some(newest)));
        assert!(status.last_scheduled_time.unwrap() > start() + TimeDelta::minutes(60));
        assert!(status.next_scheduled_time.unwrap() > cluster.world.now());
        assert!(cluster.was_told("UpToDate") >= 1);
        cluster.patch_schedule(json!({"spec": {"updatePolicy": {"targetVersionPattern": "1.34.*"}}})).await;
        cluster.pass(60).await;
        assert_eq!(cluster.names().len(), 2, "a newer minor is asked for: a second update begins");
    });
}

#[test]
fn a_suspended_schedule_begins_nothing_not_even_what_was_due_meanwhile() {
    in_cluster(OLD, Vec::new(), async |cluster| {
        cluster.create_schedule("0 * * * *", json!({"suspended": true})).await;
        cluster.pass(20).await;
        assert_eq!(cluster.schedule().status.unwrap().next_scheduled_time, None);
        cluster.patch_schedule(json!({"spec": {"suspended": false}})).await;
        cluster.pass(30).await;
        assert!(cluster.names().is_empty(), "the hour that struck meanwhile is passed over");
        cluster.pass(30).await;
        assert_eq!(cluster.names(), ["patches-20261123-0100"]);
    });
}

#[test]
fn an_update_that_is_not_over_is_waited_out_replaced_or_joined() {
    for (policy, names, cancelled) in
        [(ConcurrencyPolicy::Forbid, 1, 0), (ConcurrencyPolicy::Allow, 2, 0), (ConcurrencyPolicy::Replace, 2, 1)]
    {
        in_cluster(OLD, Vec::new(), async |cluster| {
            cluster.pass(2).await;
            cluster.freeze().await;
            cluster.create_schedule("*/15 * * * *", json!({"concurrencyPolicy": policy})).await;
            cluster.pass(27).await;
            let updates = cluster.updates();
            assert_eq!(updates.len(), names, "{policy:?}: {:?}", cluster.names());
            let asked =
                updates.iter().filter(|update| update.spec.control.as_ref().is_some_and(|all| all.cancel.is_some()));
            assert_eq!(asked.count(), cancelled, "{policy:?}");
            let skipped = usize::from(policy == ConcurrencyPolicy::Forbid);
            assert_eq!(cluster.was_told("Skipped"), skipped, "{policy:?}");
        });
    }
}

#[test]
fn an_operator_that_dies_at_any_write_about_the_due_time_creates_one_update() {
    let mut happened = 0;
    for wrong in [Wrong::Before, Wrong::After, Wrong::ReplyLost] {
        for write in 1..=14 {
            let fault = Fault::at_write(Component::Operator, write, wrong);
            in_cluster(OLD, vec![fault], async |cluster| {
                cluster.create_schedule("0 0 * * *", json!({})).await;
                cluster.create_scheduled(10).await;
                cluster.pass(11).await;
                assert_eq!(cluster.names(), ["patches-20261123-0000", "weekend"], "{fault}");
                let status = cluster.schedule().status.unwrap();
                assert_eq!(status.last_update_name.as_deref(), Some("patches-20261123-0000"), "{fault}: {status:?}");
                assert!(cluster.scheduled().status.unwrap().executed_at.is_some(), "{fault}");
                happened += cluster.world.faults_happened().len();
            });
        }
    }
    assert!(happened > 30, "only {happened} crashes");
}

#[test]
fn an_update_that_was_deleted_does_not_come_back() {
    in_cluster(OLD, Vec::new(), async |cluster| {
        cluster.create_schedule("0 0 * * *", json!({})).await;
        cluster.pass(10).await;
        cluster.pass(1).await;
        let api: Api<DirectUpdate> = Api::all(cluster.client.clone());
        for name in cluster.names() {
            api.delete(&name, &DeleteParams::default()).await.unwrap();
        }
        cluster.pass(45).await;
        assert!(cluster.names().is_empty(), "{:?}", cluster.names());
        assert_eq!(cluster.schedule().status.unwrap().active, None);
    });
}

#[test]
fn a_scheduled_update_is_cancelled_when_its_update_is_and_when_that_is_deleted_before_its_end() {
    for (deleted, reason, says) in [
        (false, "UpdateCancelled", "DirectUpdate weekend: Cancelled"),
        (true, "UpdateDeleted", "DirectUpdate weekend was deleted before it was over"),
    ] {
        in_cluster(OLD, Vec::new(), async |cluster| {
            cluster.create_scheduled(2).await;
            cluster.pass(3).await;
            assert_eq!(cluster.names(), ["weekend"]);
            let api: Api<DirectUpdate> = Api::all(cluster.client.clone());
            let cancel = Patch::Merge(json!({"spec": {"control": {"cancel": {"requestId": "not tonight"}}}}));
            // The only API server is turned meanwhile.
            for _ in 0..10 {
                let asked = if deleted {
                    api.delete("weekend", &DeleteParams::default()).await.map(drop)
                } else {
                    api.patch("weekend", &PatchParams::default(), &cancel).await.map(drop)
                };
                if asked.is_ok() {
                    break;
                }
                cluster.pass(1).await;
            }
            cluster.pass(20).await;
            let status = cluster.scheduled().status.unwrap();
            assert_eq!((status.phase, status.message.as_deref()), (Some(ScheduledPhase::Cancelled), Some(says)));
            assert!(!is_stalled(&status.conditions), "nobody has to act: {status:?}");
            assert_eq!((cluster.was_told(reason), status.executed_at), (1, status.scheduled_for), "{status:?}");
            cluster.pass(120).await;
            assert_eq!(cluster.scheduled().status.unwrap(), status, "nothing begins anew");
        });
    }
}

#[test]
fn a_start_that_nobody_could_make_in_time_is_missed_and_told_with_what_to_do() {
    in_cluster(OLD, Vec::new(), async |cluster| {
        cluster.create_scheduled(-61).await;
        cluster.pass(1).await;
        let status = cluster.scheduled().status.unwrap();
        assert_eq!(status.phase, Some(ScheduledPhase::Failed));
        assert!(is_stalled(&status.conditions));
        assert!(status.message.unwrap().contains("set a time to come"));
        assert_eq!(cluster.was_told("MissedStart"), 1);
        let at = (cluster.world.now() + TimeDelta::minutes(5)).to_rfc3339();
        let api: Api<ScheduledUpdate> = Api::all(cluster.client.clone());
        let patch = Patch::Merge(json!({"spec": {"scheduleAt": at}}));
        api.patch("weekend", &PatchParams::default(), &patch).await.unwrap();
        cluster.pass(6).await;
        assert_eq!(cluster.names(), ["weekend"], "a time to come was set");
    });
}

#[test]
fn a_schedule_that_can_never_be_due_is_stalled_and_says_what_to_write() {
    in_cluster(OLD, Vec::new(), async |cluster| {
        cluster.create_schedule("0 2 30 2 *", json!({})).await;
        cluster.pass(1).await;
        let status = cluster.schedule().status.unwrap();
        assert!(is_stalled(&status.conditions));
        let message = status.message.unwrap();
        assert!(message.starts_with("spec.schedule: invalid value \"0 2 30 2 *\""), "{message}");
        cluster.patch_schedule(json!({"spec": {"schedule": "0 0 * * *", "timeZone": "Mars/Olympus"}})).await;
        cluster.pass(1).await;
        assert!(cluster.schedule().status.unwrap().message.unwrap().contains("spec.timeZone"));
        cluster.patch_schedule(json!({"spec": {"timeZone": "Europe/Amsterdam"}})).await;
        cluster.pass(1).await;
        let status = cluster.schedule().status.unwrap();
        assert!(!is_stalled(&status.conditions));
        assert_eq!(status.next_scheduled_time.unwrap().to_rfc3339(), "2026-11-23T23:00:00+00:00");
        assert!(cluster.names().is_empty());
    });
}

/// A pod that loses data when it is evicted: an update needs consent for it.
async fn scratch_pod(cluster: &Cluster) {
    let pod = json!({
        "metadata": {"name": "scratch", "labels": {"app": "scratch"}},
        "spec": {
            "nodeName": "w-1", "containers": [{"name": "c", "image": "i"}], "volumes": [{"name": "v", "emptyDir": {}}],
        },
    });
    let api: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(cluster.client.clone(), "default");
    api.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
}

#[test]
fn a_schedule_tells_that_what_it_created_is_refused_until_somebody_helps() {
    in_cluster(OLD, Vec::new(), async |cluster| {
        cluster.pass(1).await;
        scratch_pod(cluster).await;
        cluster.create_schedule("0 0 * * *", json!({})).await;
        cluster.pass(11).await;
        let status = cluster.schedule().status.unwrap();
        assert!(is_stalled(&status.conditions), "{status:?}");
        let message = status.message.unwrap();
        assert!(message.contains("DirectUpdate patches-20261123-0000 is refused: "), "{message}");
        assert!(message.contains("deleteEmptyDirData"), "the way out is told: {message}");
        assert!(status.next_scheduled_time.is_some(), "later due times come all the same");
        assert_eq!(cluster.was_told("UpdateNeedsPerson"), 1);
        let consent = json!({"spec": {"drain": {"deleteEmptyDirData": true, "deleteUnmanagedPods": true}}});
        let api: Api<DirectUpdate> = Api::all(cluster.client.clone());
        api.patch("patches-20261123-0000", &PatchParams::default(), &Patch::Merge(consent)).await.unwrap();
        cluster.pass(2).await;
        let status = cluster.schedule().status.unwrap();
        assert!(!is_stalled(&status.conditions), "{status:?}");
        assert!(!status.message.unwrap().contains("refused"));
    });
}

#[test]
fn a_scheduled_update_tells_that_its_update_is_refused() {
    in_cluster(OLD, Vec::new(), async |cluster| {
        cluster.pass(1).await;
        scratch_pod(cluster).await;
        cluster.create_scheduled(2).await;
        cluster.pass(4).await;
        let status = cluster.scheduled().status.unwrap();
        assert_eq!(status.phase, Some(ScheduledPhase::Executing));
        assert!(is_stalled(&status.conditions));
        assert!(status.message.unwrap().starts_with("DirectUpdate weekend is refused: "));
        assert_eq!(cluster.was_told("UpdateNeedsPerson"), 1);
    });
}

#[test]
fn schedules_that_give_consent_are_carried_out() {
    in_cluster(OLD, Vec::new(), async |cluster| {
        cluster.pass(1).await;
        scratch_pod(cluster).await;
        let drain = json!({"deleteEmptyDirData": true, "deleteUnmanagedPods": true});
        let policy =
            json!({"targetVersionPattern": "latest-patch", "drain": drain, "nodeTimeout": "45m", "maxFailures": 2});
        cluster.create_schedule("0 0 * * *", json!({"updatePolicy": policy})).await;
        cluster.pass(10).await;
        cluster.world.until_at_rest("patches-20261123-0000").await;
        let update = cluster.updates().pop().unwrap();
        assert_eq!(update.status.as_ref().unwrap().phase, Some(Phase::Succeeded), "{:?}", update.status);
        assert_eq!(serde_json::to_value(update.spec.drain).unwrap(), drain);
        assert_eq!(update.spec.max_failures, Some(2));
        assert_eq!(serde_json::to_value(update.spec.node_timeout).unwrap(), "2700s");
    });
}
