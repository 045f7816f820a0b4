//! Every field of every kind, written wrong in every way that a schema or a person comes upon: refused with its name, told, or followed.
//! Never let in without a word, never a crash. In the manner of Acto (Gu et al., SOSP 2023).
//!
//! A mutation changes one field of an object that is right: its type, its bounds, its words, what is beside it (generate.rs), and what
//! people get wrong in a field of that name (catalogue.rs). Objects are created, and edited while a run of theirs is under way.

mod catalogue;
mod generate;
mod judge;

use crate::cluster::in_world;
use cupcake_crds::values::{ClusterSnapshot, KubeVersion};
use cupcake_crds::{GROUP, NodeTask, UpgradeRun, VERSION};
use cupcake_engine::clock::Timestamp;
use cupcake_operator::adapters::snapshot::gather_all;
use cupcake_sandbox::api::{Options, Server};
use cupcake_sandbox::world::{VirtualClock, WorldConfig};
use cupcake_tests::install_definitions;
use generate::{Mutation, Way, mutations};
use judge::{Case, Reading, Verdict, judge, plain};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What only says something to whoever reads the object: that it stands there is all that is asked.
const NOTES: [&str; 9] = [
    "spec.control.cancel.reason",
    "spec.control.resume.reason",
    "spec.control.retry[0].reason",
    "spec.control.skip[0].reason",
    "spec.control.cancel.requestedBy",
    "spec.control.resume.requestedBy",
    "spec.control.retry[0].requestedBy",
    "spec.control.pause.requestedBy",
    "spec.control.skip[0].requestedBy",
];

fn direct_update() -> Value {
    let asked = |id: &str| json!({"requestId": id, "reason": "CHG-4711", "requestedBy": "jane"});
    let of = |id: &str, vertex: &str| json!({"requestId": id, "run": "to-1-35-6f0d7f0e", "vertex": vertex, "reason": "mended", "requestedBy": "jane"});
    json!({
        "targetVersion": "1.35.1",
        "acknowledge": [{"check": "HandMadeChanges", "node": "cp-1"}],
        "airGapped": {"enabled": false, "bundleConfigMap": "bundle"},
        "approvals": ["BeforeControlPlane", "AfterCanary"],
        "batchSize": 3,
        "canary": {"enabled": true, "nodes": ["w-1"], "soak": "10m"},
        "components": ["kubeadm", "kubelet", "kubectl"],
        "concurrency": 2,
        "control": {
            "approvals": [{
                "requestId": "approve-1", "gate": "1.34.2/control-plane-gate", "reason": "well", "requestedBy": "jane",
            }],
            "cancel": asked("cancel-1"), "pause": asked("pause-1"), "resume": asked("resume-1"),
            "retry": [of("retry-1", "w-3")], "skip": [of("skip-1", "w-4")],
        },
        "drain": {
            "deleteEmptyDirData": true, "deleteUnmanagedPods": true, "onExpiry": "SkipNode", "onPatch": false,
            "podTimeout": "2m", "timeout": "20m",
            "rules": [{
                "action": "Evict", "namespaces": ["shop"], "order": 7,
                "selector": {
                    "matchLabels": {"app": "db"},
                    "matchExpressions": [{"key": "tier", "operator": "In", "values": ["cache"]}],
                },
            }],
        },
        "dryRun": false,
        "maintenanceWindow": window(),
        "maxFailures": 2,
        "nodeSelector": {"pool": "blue"},
        "nodeTimeout": "45m",
        "operationTimeout": "6h",
        "path": ["1.34.2", "1.35.1"],
        "preflightChecks": true,
        "strategy": "canary",
    })
}

fn window() -> Value {
    json!({"days": ["Saturday", "Monday"], "start": "01:00", "end": "05:00", "timezone": "Europe/Amsterdam"})
}

fn scheduled_update() -> Value {
    let mut spec = direct_update();
    let fields = spec.as_object_mut().unwrap();
    for field in ["approvals", "batchSize", "control", "dryRun", "maintenanceWindow", "operationTimeout"] {
        fields.remove(field);
    }
    spec["scheduleAt"] = json!("2027-01-09T22:00:00Z");
    spec["startingDeadlineSeconds"] = json!(1_800);
    spec
}

fn update_schedule() -> Value {
    let mut policy = scheduled_update();
    let fields = policy.as_object_mut().unwrap();
    for field in ["airGapped", "canary", "scheduleAt", "startingDeadlineSeconds", "targetVersion"] {
        fields.remove(field);
    }
    policy["strategy"] = json!("rolling");
    policy["path"] = json!(["1.34.2"]);
    policy["targetVersionPattern"] = json!("1.35.1");
    let mut window = window();
    window["days"] = json!(["Monday", "Thursday"]);
    window["timezone"] = json!("Europe/Lisbon");
    json!({
        "schedule": "0 2 1 * *", "timeZone": "Europe/Amsterdam", "suspended": false, "concurrencyPolicy": "Replace",
        "startingDeadlineSeconds": 1_800, "maintenanceWindow": window, "updatePolicy": policy,
    })
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// The schema of a kind's spec.
fn schema_of(plural: &str) -> Value {
    let all = cupcake_crds::definitions();
    let definition = all.iter().find(|definition| definition.spec.names.plural == plural).unwrap();
    let schema = serde_json::to_value(&definition.spec.versions[0].schema).unwrap();
    schema["openAPIV3Schema"]["properties"]["spec"].clone()
}

/// A cluster of 8 blue workers and another one with a change by hand, and objects that its operator wrote for a run of it.
struct Found {
    snapshot: ClusterSnapshot,
    run: Value,
    plan: Value,
    task: Value,
}

fn found() -> Found {
    let start: Timestamp = "2026-11-22T08:00:00Z".parse().unwrap();
    let config = WorldConfig { control_planes: 1, workers: 9, ..WorldConfig::new(KubeVersion::new(1, 33, 4), start) };
    in_world(config, async |cluster| {
        let machine = cluster.world.machine("cp-1").unwrap();
        machine.change_by_hand("kube-apiserver.yaml loses --audit-log-path=/var/log/audit.log");
        let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(cluster.client.clone());
        for number in 1..=8 {
            let blue = Patch::Merge(json!({"metadata": {"labels": {"pool": "blue"}}}));
            let name = format!("w-{number}");
            cluster.ask(async || nodes.patch(&name, &PatchParams::default(), &blue).await).await;
        }
        // Data and pods that only somebody's consent lets go.
        let scratch = json!({
            "metadata": {"name": "scratch", "labels": {"app": "scratch"}},
            "spec": {
                "nodeName": "w-2", "containers": [{"name": "c", "image": "i"}], "volumes": [{"name": "v", "emptyDir": {}}],
            },
        });
        let scratch: k8s_openapi::api::core::v1::Pod = serde_json::from_value(scratch).unwrap();
        let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(cluster.client.clone(), "default");
        cluster.pass(60).await;
        cluster.ask(async || pods.create(&PostParams::default(), &scratch).await).await;
        cluster.pass(10).await;
        let snapshot = gather_all(&cluster.client, cluster.world.now()).await.unwrap();
        let known = json!([{"check": "HandMadeChanges", "node": "cp-1"}]);
        let drain = json!({"deleteEmptyDirData": true, "deleteUnmanagedPods": true});
        cluster.apply("to-1-34", json!({"acknowledge": known, "drain": drain})).await;
        let at_work = async || cluster.task("w-1").spec.order.is_some();
        cluster.eventually("a worker has an order", at_work).await;
        let all = |plural: &str| cluster.all::<Value>(GROUP, plural);
        let run = all("upgraderuns").into_iter().find(|run| run["spec"]["parent"].is_object()).unwrap();
        let plan = all("upgradeplans").into_iter().find(|plan| plan["metadata"]["name"] == run["spec"]["plan"]["name"]);
        let task = all("nodetasks").into_iter().find(|task| task["metadata"]["name"] == "w-1").unwrap();
        let anew = |object: &Value| {
            let (kind, name) = (object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap());
            self::object(kind, name, &object["spec"])
        };
        Found { snapshot, run: anew(&run), plan: anew(&plan.unwrap()), task: anew(&task) }
    })
}

/// How often each came out, and what should not have.
#[derive(Default)]
struct Tally {
    counts: BTreeMap<&'static str, usize>,
    bad: Vec<String>,
}

impl Tally {
    fn take(&mut self, case: &str, mutation: &Mutation, verdict: &Verdict) {
        let Mutation { way, written, .. } = mutation;
        let name = match verdict {
            Verdict::Rejected => "rejected",
            Verdict::Told => "told",
            Verdict::Honoured => "honoured",
            Verdict::Same => "same",
            Verdict::Ignored(_) if NOTES.contains(&way.to_string().as_str()) => "noted",
            Verdict::Ignored(why) => {
                self.bad.push(format!("{case}: {way} = {written}: {}", why.chars().take(400).collect::<String>()));
                "ignored"
            }
            Verdict::Crash(why) => {
                self.bad.push(format!("{case}: {way} = {written}: crash: {why}"));
                "crashes"
            }
        };
        *self.counts.entry(name).or_default() += 1;
    }

    fn count(&self, name: &str) -> usize {
        self.counts.get(name).copied().unwrap_or(0)
    }
}

/// Definitions and, under way, an update that is frozen.
async fn server() -> Server {
    let clock = Arc::new(VirtualClock::starting_at(judge::now(), 1));
    let server = Server::with_options(clock, Options { seed: 7, ..Options::default() });
    install_definitions(&server.client("user")).await.unwrap();
    server
}

#[test]
fn no_field_of_any_kind_is_let_in_wrong_without_a_word_and_none_crashes_anything() {
    let found = found();
    let clusters = judge::clusters(&found.snapshot, KubeVersion::new(1, 35, 1));
    let of_update = |object: &Value| judge::direct_update(object, &clusters);
    let of_scheduled = |object: &Value| judge::scheduled_update(object, &clusters);
    let of_schedule = |object: &Value| judge::update_schedule(object, &clusters);
    let of_run = |object: &Value| judge::written_by_us::<UpgradeRun>(object, |run| json!(run.spec));
    let of_task = |object: &Value| judge::written_by_us::<NodeTask>(object, |task| json!(task.spec));
    let update = object("DirectUpdate", "to-1-35", &direct_update());
    let new = |plural, object, read| Case { plural, object, edited: false, read };
    let runtime = cupcake_sandbox::world::runtime(cupcake_sandbox::world::Speed::Fastest).unwrap();
    let server = runtime.block_on(server());
    let under_way = begin(&server, &update);
    let cases: [(&str, Case<'_>); 7] = [
        ("DirectUpdate", new("directupdates", rename(&update, "another"), &of_update)),
        ("DirectUpdate under way", Case { edited: true, ..new("directupdates", under_way, &of_update) }),
        (
            "ScheduledUpdate",
            new("scheduledupdates", object("ScheduledUpdate", "weekend", &scheduled_update()), &of_scheduled),
        ),
        (
            "UpdateSchedule",
            new("updateschedules", object("UpdateSchedule", "monthly", &update_schedule()), &of_schedule),
        ),
        ("UpgradeRun", new("upgraderuns", found.run, &of_run)),
        ("UpgradePlan", new("upgradeplans", found.plan, &judge::upgrade_plan)),
        ("NodeTask", new("nodetasks", found.task, &of_task)),
    ];
    let mut tally = Tally::default();
    for (name, case) in &cases {
        let (code, stored) = judge::send(&server, case, &case.object);
        assert!(code < 300, "{name}, which is right: {stored}");
        let base: Reading = (case.read)(&stored).unwrap();
        assert!(!base.follows.is_empty(), "{name}, which is right, is refused: {:?}", base.told);
        let catalogue = |way: &Way| catalogue::values(way);
        for mutation in mutations(&schema_of(case.plural), &stored["spec"], catalogue) {
            tally.take(name, &mutation, &judge(&server, case, &base, &mutation));
        }
    }
    let all: usize = tally.counts.values().sum();
    println!(
        "{all} mutations: {:?}, ignored {}, crashes {}",
        tally.counts,
        tally.count("ignored"),
        tally.count("crashes")
    );
    tally.bad.iter().for_each(|bad| println!("{bad}"));
    assert!(all - tally.count("same") >= 2_000, "{:?}", tally.counts);
    assert_eq!((tally.count("ignored"), tally.count("crashes")), (0, 0));
}

fn rename(object: &Value, name: &str) -> Value {
    let mut object = object.clone();
    object["metadata"]["name"] = json!(name);
    object
}

/// Stores an update of which a run is under way; gives it as it stands there.
fn begin(server: &Server, update: &Value) -> Value {
    let all = format!("/apis/{GROUP}/{VERSION}/directupdates");
    let (code, mut stored) = plain(server, "POST", &all, update);
    assert_eq!(code, 201, "{stored}");
    stored["status"] = json!({"phase": "InProgress", "run": "to-1-35-6f0d7f0e", "startedAt": judge::now()});
    let name = stored["metadata"]["name"].as_str().unwrap().to_owned();
    let (code, stored) = plain(server, "PUT", &format!("{all}/{name}/status"), &stored);
    assert_eq!(code, 200, "{stored}");
    stored
}

/// An edit, its contrary, and the first again: what stands there in the end counts, whatever was between.
#[test]
fn an_edit_that_is_taken_back_leaves_nothing_behind() {
    let found = found();
    let clusters = judge::clusters(&found.snapshot, KubeVersion::new(1, 35, 1));
    let runtime = cupcake_sandbox::world::runtime(cupcake_sandbox::world::Speed::Fastest).unwrap();
    let server = runtime.block_on(server());
    let mut stored = begin(&server, &object("DirectUpdate", "to-1-35", &direct_update()));
    let path = format!("/apis/{GROUP}/{VERSION}/directupdates/to-1-35");
    let before = judge::direct_update(&stored, &clusters).unwrap();
    let spec = stored["spec"].clone();
    for (field, value) in [
        ("concurrency", json!("50%")),
        ("maintenanceWindow", json!({"start": "10:00", "end": "11:00", "timezone": "UTC"})),
        ("maintenanceWindow", Value::Null),
        ("control", json!({"skip": spec["control"]["skip"].clone(), "pause": {"requestId": "other"}})),
    ] {
        for value in [value, spec[field].clone()] {
            stored["spec"][field] = value;
            let (code, answer) = plain(&server, "PUT", &path, &stored);
            assert_eq!(code, 200, "{field}: {answer}");
            stored = answer;
        }
        let after = judge::direct_update(&stored, &clusters).unwrap();
        assert_eq!(after, before, "{field}");
    }
}
