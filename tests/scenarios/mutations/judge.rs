//! What becomes of a spec that somebody mutated: refused by the API server, told by what decides about it, or followed by it.

use super::generate::{Mutation, Way};
use bytes::Bytes;
use chrono::TimeDelta;
use cupcake_crds::values::{ClusterSnapshot, KubeVersion, NodeRole};
use cupcake_crds::{DirectUpdate, GROUP, ScheduledUpdate, UpdateSchedule, UpgradePlan, VERSION};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::plan::Plan;
use cupcake_operator::controllers::acknowledge::{AskedFor, Stage, acknowledged, approved};
use cupcake_operator::controllers::{timeout, window};
use cupcake_operator::leader::intent_of;
use cupcake_sandbox::api::{Body, Server};
use cupcake_workflows::schedule::{self, Decision, OnceFacts, OwnUpdate, Present, RecurringFacts, once, recurring};
use cupcake_workflows::{Compilation, Finding, Request, WaveOf, compile, compile_wave, gates_of, opened_by, wave_run};
use kube::ResourceExt;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What becomes of a mutation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The API server refuses it and names the field.
    Rejected,
    /// It is let in, and what decides about it names the field in a refusal or a warning.
    Told,
    /// It is let in, and followed: plan, time, gates or requests are others.
    Honoured,
    /// It says what was said before.
    Same,
    /// It is let in and changes nothing, without a word; or it is refused without a word of the field.
    Ignored(String),
    /// Something panicked, or the API server failed.
    Crash(String),
}

/// What is told about an object, and what follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// In words: findings, problems, answers to requests.
    pub told: Vec<String>,
    /// What is done because of it, as text.
    pub follows: String,
    /// What our programs read of the spec.
    pub read: Value,
}

/// An object of a kind as it should be, and how it is read.
pub struct Case<'c> {
    pub plural: &'static str,
    pub object: Value,
    /// Whether the object is there already, so that the mutation is an edit of it.
    pub edited: bool,
    pub read: &'c dyn Fn(&Value) -> Result<Reading, String>,
}

/// What becomes of it.
pub fn judge(server: &Server, case: &Case<'_>, base: &Reading, mutation: &Mutation) -> Verdict {
    catch_unwind(AssertUnwindSafe(|| judged(server, case, base, mutation))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Verdict::Crash(text.unwrap_or("without a word").to_owned())
    })
}

fn judged(server: &Server, case: &Case<'_>, base: &Reading, mutation: &Mutation) -> Verdict {
    let mut object = case.object.clone();
    object["spec"] = mutation.spec.clone();
    let (code, answer) = send(server, case, &object);
    if code >= 500 {
        return Verdict::Crash(format!("{code}: {}", answer["message"]));
    }
    if code >= 400 {
        let told = answer.to_string();
        let named = names(&mutation.way, &told);
        return if named { Verdict::Rejected } else { Verdict::Ignored(format!("refused without its name: {told}")) };
    }
    let reading = match (case.read)(&answer) {
        Ok(reading) => reading,
        Err(unreadable) => return Verdict::Ignored(format!("let in, and cannot be read: {unreadable}")),
    };
    if reading.read == base.read {
        return Verdict::Same;
    }
    let (before, after) = (&base.told, &reading.told);
    let news =
        after.iter().filter(|told| !before.contains(told)).chain(before.iter().filter(|told| !after.contains(told)));
    if news.into_iter().any(|told| names(&mutation.way, told)) {
        return Verdict::Told;
    }
    if reading.follows != base.follows {
        return Verdict::Honoured;
    }
    Verdict::Ignored(String::from("let in, and nothing is another one"))
}

/// Whether a text names a field, or one that it is a part of.
fn names(way: &Way, text: &str) -> bool {
    way.names().into_iter().any(|name| text.contains(name))
}

/// Creates or edits the object without storing it.
pub fn send(server: &Server, case: &Case<'_>, object: &Value) -> (u16, Value) {
    let name = object["metadata"]["name"].as_str().unwrap();
    let all = format!("/apis/{GROUP}/{VERSION}/{}", case.plural);
    let (method, path) = if case.edited { ("PUT", format!("{all}/{name}")) } else { ("POST", all) };
    plain(server, method, &format!("{path}?dryRun=All&fieldValidation=Strict"), object)
}

/// One request.
pub fn plain(server: &Server, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let request = http::Request::builder().method(method).uri(path).header("content-type", "application/json");
    let answer = server.handle("user", request.body(Bytes::from(body.to_string())).unwrap());
    let code = answer.status().as_u16();
    match answer.into_body() {
        Body::Full(bytes) => (code, serde_json::from_slice(&bytes.unwrap_or_default()).unwrap_or_default()),
        Body::Watch(_) => (code, Value::Null),
    }
}

/// A moment in the middle of a week.
pub fn now() -> Timestamp {
    "2027-01-06T12:00:00Z".parse().unwrap()
}

/// The cluster as it is, and as it would be one patch before the target.
pub fn clusters(snapshot: &ClusterSnapshot, target: KubeVersion) -> [ClusterSnapshot; 2] {
    let mut patch = snapshot.clone();
    let before = KubeVersion::new(target.major(), target.minor(), target.patch() - 1);
    patch.server = before;
    patch.kubeadm_config = Some(before);
    patch.nodes.values_mut().for_each(|node| node.kubelet = before);
    [snapshot.clone(), patch]
}

/// How a DirectUpdate is read: what its compilers say of it, in both clusters, and what its operator does by its spec.
pub fn direct_update(object: &Value, clusters: &[ClusterSnapshot; 2]) -> Result<Reading, String> {
    let update: DirectUpdate = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    let mut reading = plans(&update, clusters);
    let spec = &update.spec;
    let mut follows = String::new();
    // As controllers/update and leader read them.
    let _ = write!(follows, "{} {} ", spec.dry_run, timeout::seconds_of(spec, 600));
    let _ = write!(follows, "{} ", week_of(&update));
    let _ = write!(follows, "{:?} ", intent_of(&update, now()));
    let hops: Vec<String> = spec.path.clone();
    let gates = gates_of(spec, &hops);
    let open: Vec<Option<&str>> = gates.iter().map(|gate| opened_by(spec, gate)).collect();
    let _ = write!(follows, "{gates:?} {open:?} ");
    let control = spec.control.clone().unwrap_or_default();
    let asked_for = |name: &str| {
        let node = clusters[0].nodes.get(name)?;
        Some(if node.role == NodeRole::ControlPlane { AskedFor::ControlPlane } else { AskedFor::Behind })
    };
    let nodes: BTreeMap<String, AskedFor> =
        control.skip.iter().filter_map(|one| Some((one.vertex.clone(), asked_for(&one.vertex)?))).collect();
    let answers = acknowledged(&[], &control, &nodes, Stage::UnderWay(&gates), now());
    let _ = write!(follows, "{:?} {answers:?}", approved(&[], &control, &gates, now()));
    let words = answers.into_iter().map(|answer| format!("control: {}", answer.message));
    let is_told =
        |answer: &String| ["refused", "no such node", "not asked for"].iter().any(|word| answer.contains(word));
    reading.told.extend(words.filter(is_told));
    reading.follows.push_str(&follows);
    Ok(reading)
}

/// When a window holds an update in a week, looked at every twenty minutes.
fn week_of(update: &DirectUpdate) -> String {
    let moments = (0..3 * 24 * 7).map(|third| now() + TimeDelta::minutes(20 * third));
    moments.map(|moment| if window::state(update, moment).holds().is_some() { '-' } else { 'o' }).collect()
}

/// What the compilers make of an update.
fn plans(update: &DirectUpdate, clusters: &[ClusterSnapshot; 2]) -> Reading {
    let mut spec = update.spec.clone();
    let mut reading = Reading { told: Vec::new(), follows: String::new(), read: Value::Null };
    for (number, cluster) in clusters.iter().enumerate() {
        if number > 0 {
            // The way to the target is behind it.
            spec.path.clear();
        }
        let request = Request { name: "to-1-35", uid: "6f0d7f0e-0c3e-4a53-9b1a-2f6f5d1c9a77", spec: &spec };
        let run = request.root_run().unwrap();
        let told = |findings: &[Finding]| findings.iter().map(ToString::to_string).collect::<Vec<_>>();
        match compile(&request, &run, cluster) {
            Err(refusal) => reading.told.extend(told(&refusal.findings).into_iter().chain(told(&refusal.warnings))),
            Ok(Compilation::NothingToDo(nothing)) => {
                reading.follows.push_str(&nothing.message);
                reading.told.extend(told(&nothing.report.warnings));
            }
            Ok(Compilation::Plan(compiled)) => {
                reading.told.extend(told(&compiled.report.warnings));
                let target = compiled.summary.target;
                let _ = write!(reading.follows, "{} {:?} ", compiled.digest, compiled.limits);
                let after = after_control_plane(cluster, target);
                let wave = wave_run(&run, target).unwrap();
                let of = WaveOf::last(target);
                if let Ok(Compilation::Plan(wave)) = compile_wave(&request, &wave, &of, &after) {
                    let _ = write!(reading.follows, "{} {:?} ", wave.digest, wave.limits);
                    for batch in wave.batches {
                        let _ = write!(reading.follows, "{} {:?} ", batch.digest, batch.limits);
                    }
                }
            }
        }
    }
    let mut read = serde_json::to_value(&update.spec).unwrap();
    // With or without v it is one version.
    read["targetVersion"] = json!(update.spec.target_version.trim_start_matches('v'));
    reading.read = read;
    reading
}

/// The cluster when the workers' turn has come.
fn after_control_plane(cluster: &ClusterSnapshot, target: KubeVersion) -> ClusterSnapshot {
    let mut after = cluster.clone();
    after.server = target;
    after.kubeadm_config = Some(target);
    let control_plane = after.nodes.values_mut().filter(|node| node.role == NodeRole::ControlPlane);
    control_plane.for_each(|node| node.kubelet = target);
    after
}

/// How a ScheduledUpdate is read: what it creates, and when.
pub fn scheduled_update(object: &Value, clusters: &[ClusterSnapshot; 2]) -> Result<Reading, String> {
    let scheduled: ScheduledUpdate = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    let update = DirectUpdate::new("to-1-35", schedule::scheduled_spec(&scheduled.spec));
    let mut reading = plans(&update, clusters);
    for minutes in [-1, 0, 29, 31, 59, 61] {
        let due: Timestamp = "2027-01-09T22:00:00Z".parse().unwrap();
        let now = due + TimeDelta::minutes(minutes);
        let decision = once(&OnceFacts { scheduled: &scheduled, present: Present::Nothing, now });
        let _ = write!(reading.follows, "{decision:?} ");
        if let schedule::Once::Stalled(problem) = decision {
            reading.told.push(problem.to_string());
        }
    }
    reading.read = as_read(&serde_json::to_value(&scheduled.spec).unwrap());
    Ok(reading)
}

/// How an UpdateSchedule is read: what it creates, and when.
pub fn update_schedule(object: &Value, clusters: &[ClusterSnapshot; 2]) -> Result<Reading, String> {
    let schedule: UpdateSchedule = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    let mut path = None;
    let mut reading = match schedule::policy_now(&schedule.spec, &clusters[0]) {
        Ok(Ok(spec)) => {
            let update = DirectUpdate::new("to-1-35", spec);
            let mut reading = plans(&update, clusters);
            let _ = write!(reading.follows, "{} ", week_of(&update));
            path = Some(json!(update.spec.path));
            reading
        }
        Ok(Err(choice)) => Reading { told: Vec::new(), follows: choice.to_string(), read: Value::Null },
        Err(problem) => Reading { told: vec![problem.to_string()], follows: String::new(), read: Value::Null },
    };
    let active =
        [OwnUpdate { name: "before".to_owned(), due: now() - TimeDelta::days(300), over: false, trouble: None }];
    for day in [0, 60, 200] {
        let at = now() + TimeDelta::days(day);
        let _ = write!(reading.follows, "{:?} ", Decision::next(&schedule, at));
    }
    // 02:00 in Amsterdam on the first of two months, in winter and in summer.
    for due in ["2027-02-01T01:00:00Z", "2027-07-01T00:00:00Z"] {
        let due: Timestamp = due.parse().unwrap();
        for minutes in [-30, 1, 20, 40, 90, 300] {
            let created = due - TimeDelta::days(1);
            let now = due + TimeDelta::minutes(minutes);
            for updates in [&active[..], &[]] {
                let facts = RecurringFacts { schedule: &schedule, created, updates, cluster: Some(&clusters[0]), now };
                let decision = recurring(&facts);
                let _ = write!(reading.follows, "{decision:?} ");
                if let Decision::Stalled(problem) = decision {
                    reading.told.push(problem.to_string());
                }
            }
        }
    }
    reading.read = as_read(&serde_json::to_value(&schedule.spec).unwrap());
    // What the cluster has left behind and what is not below the target is passed over, as its description says.
    if let Some(path) = path {
        reading.read["updatePolicy"]["path"] = path;
    }
    Ok(reading)
}

/// A spec with its version as it is read.
fn as_read(spec: &Value) -> Value {
    let mut spec = spec.clone();
    if let Some(version) = spec["targetVersion"].as_str() {
        spec["targetVersion"] = json!(version.trim_start_matches('v'));
    }
    spec
}

/// How an UpgradePlan is read: as a plan of the digest that it carries, or not at all.
pub fn upgrade_plan(object: &Value) -> Result<Reading, String> {
    let stored: UpgradePlan = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    let read = serde_json::to_value(&stored.spec).unwrap();
    let plan: Result<Plan, _> = serde_json::from_value(serde_json::to_value(&stored.spec.plan).unwrap());
    // As adapters/kube_store does: a run of such a plan is RunCorrupt, with that text.
    let told = match plan {
        Err(error) => vec![format!("spec.plan.parts of {} cannot be read: {error}", stored.name_any())],
        Ok(plan) if plan.digest() != stored.spec.digest => vec!["spec.plan is not of spec.digest".to_owned()],
        Ok(_) => Vec::new(),
    };
    Ok(Reading { told, follows: read.to_string(), read })
}

/// How objects are read that the operator writes for itself: by the types that it reads them with.
pub fn written_by_us<K>(object: &Value, spec: impl Fn(&K) -> Value) -> Result<Reading, String>
where
    K: serde::de::DeserializeOwned,
{
    let stored: K = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    let read = spec(&stored);
    Ok(Reading { told: Vec::new(), follows: read.to_string(), read })
}
