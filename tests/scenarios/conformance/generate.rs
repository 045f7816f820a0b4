//! Sequences of requests, drawn from a seed alone: an answer never steers what comes next, so any step can be left out.

use super::kinds::{KINDS, Kind, once_in, pick};
use super::writes::{apply, delete, delete_many, evict, patch, replace};
use fastrand::Rng;
use serde_json::{Value, json};

/// Requests of one sequence.
const STEPS: std::ops::Range<usize> = 8..17;

/// One request. Texts hold placeholders between at signs: `@me@` (prefix of the sequence), `@ns@`, `@gen@` (the last generated
/// name), `@continue@`, and of what was last seen under a name: `@uid:nodes/@me@-a@`, `@rv:…@`, `@old:…@` (the version before).
#[derive(Debug, Clone)]
pub struct Step {
    /// Verb, resource and manner, such as `patch nodetasks/status (json)`: what steps are counted by.
    pub what: String,
    pub plural: &'static str,
    pub method: &'static str,
    pub path: String,
    pub content_type: &'static str,
    pub accept: &'static str,
    pub body: Body,
}

/// A request's body.
#[derive(Debug, Clone)]
pub enum Body {
    None,
    Json(Value),
    /// As it stands, JSON or not.
    Raw(String),
    /// An Eviction or DeleteOptions, as kubectl sends them.
    Protobuf(Value),
    /// What this side last saw under a name, with a merge patch laid over; the other value if it saw nothing.
    Edited {
        of: String,
        overlay: Value,
        otherwise: Value,
    },
}

/// A sequence, and how it is watched.
#[derive(Debug, Clone)]
pub struct Sequence {
    pub steps: Vec<Step>,
    pub watches: Vec<Watch>,
}

/// A watch over all of a sequence, and what ends it.
#[derive(Debug, Clone)]
pub struct Watch {
    pub plural: &'static str,
    pub collection: String,
    pub selector: String,
    /// More parameters of the watch itself.
    pub options: &'static str,
    pub accept: &'static str,
    pub ended_by: EndedBy,
}

/// What happens after a sequence, so that its watch has a last event.
#[derive(Debug, Clone)]
pub enum EndedBy {
    /// This object is created.
    Creation(Value),
    /// The one object that is watched is marked; this one, if it is not there.
    Mark(Value),
}

/// The name of the mark on the last state of a watched object.
pub const MARK: &str = "conf-end";

pub(super) const JSON: &str = "application/json";
pub(super) const MERGE: &str = "application/merge-patch+json";
pub(super) const PATCH: &str = "application/json-patch+json";
pub(super) const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub(super) const APPLY: &str = "application/apply-patch+yaml";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const PARTIAL: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json";
const PARTIAL_LIST: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json";

/// The sequence of that number.
pub fn sequence(seed: u64, number: u64) -> Sequence {
    let mut rng = Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(number));
    let rng = &mut rng;
    let first = &KINDS[rng.usize(..KINDS.len())];
    let second = match first.plural {
        "pods" | "poddisruptionbudgets" => {
            let other = if first.plural == "pods" { "poddisruptionbudgets" } else { "pods" };
            KINDS.iter().find(|kind| kind.plural == other).unwrap()
        }
        _any if once_in(rng, 4) => &KINDS[rng.usize(..KINDS.len())],
        _alone => first,
    };
    let mut steps = vec![create(rng, first, "a")];
    if matches!(first.plural, "pods" | "poddisruptionbudgets") && !once_in(rng, 3) {
        steps = guarded_pod(rng);
    }
    for _ in 0..rng.usize(STEPS) {
        let kind = if rng.bool() { first } else { second };
        steps.push(step(rng, kind));
    }
    let watches =
        [first, second].into_iter().filter(|_| once_in(rng, 2)).map(|kind| watch(&mut Rng::with_seed(number), kind));
    Sequence { steps, watches: watches.take(1).collect() }
}

/// A pod that runs under a budget, so that evictions have something to decide.
fn guarded_pod(rng: &mut Rng) -> Vec<Step> {
    let kind = |plural: &str| KINDS.iter().find(|kind| kind.plural == plural).unwrap();
    let (pods, budgets) = (kind("pods"), kind("poddisruptionbudgets"));
    let (mut pod, budget) = (pods.object(rng, "@me@-a"), budgets.object(rng, "@me@-b"));
    pod["spec"]["nodeName"] = json!("node-1");
    let ready = json!({"type": "Ready", "status": pick(rng, &["True", "True", "False"]), "lastProbeTime": null, "lastTransitionTime": "2021-03-04T05:06:07Z"});
    let runs = json!({"status": {"phase": "Running", "conditions": [ready]}});
    let counted = json!({"status": {
        "disruptionsAllowed": rng.u32(..3), "currentHealthy": rng.u32(..3), "desiredHealthy": 1, "expectedPods": 2,
        "observedGeneration": pick(rng, &[0, 1, 1, 1]),
    }});
    let post = |kind: &Kind, object| request(kind, "create {}", "POST", kind.collection(), JSON, Body::Json(object));
    let status = |kind: &Kind, name, change| {
        let path = format!("{}/status", at(kind, name));
        request(kind, "patch {}/status (merge)", "PATCH", path, MERGE, Body::Json(change))
    };
    vec![
        post(pods, pod),
        status(pods, "a", runs),
        post(budgets, budget),
        status(budgets, "b", counted),
        evict(rng, pods, "a"),
    ]
}

fn watch(rng: &mut Rng, kind: &Kind) -> Watch {
    let all = [
        "labelSelector=conf%3D@me@",
        "labelSelector=conf%3D@me@,tier%3Dfront",
        "labelSelector=conf%3D@me@&fieldSelector=metadata.name!%3D@me@-b",
    ];
    // As an agent watches its task, a replica its Lease, and kubectl what it waits for.
    let one = once_in(rng, 3);
    let mut last = kind.object(rng, if one { "@me@-a" } else { "@me@-end" });
    last["metadata"]["labels"]["tier"] = json!("front");
    let (selector, ended_by) = if one {
        last["metadata"]["annotations"] = json!({MARK: "x"});
        ("fieldSelector=metadata.name%3D@me@-a", EndedBy::Mark(last))
    } else {
        (pick(rng, &all), EndedBy::Creation(last))
    };
    Watch {
        plural: kind.plural,
        collection: kind.collection(),
        selector: selector.to_owned(),
        options: pick(rng, &["", "&allowWatchBookmarks=true&timeoutSeconds=290", "&timeoutSeconds=500"]),
        accept: pick(rng, &[JSON, JSON, JSON, TABLE, PARTIAL]),
        ended_by,
    }
}

/// One request to a kind.
fn step(rng: &mut Rng, kind: &Kind) -> Step {
    let name = pick(rng, &["a", "a", "a", "b", "c"]);
    match rng.u32(..100) {
        0..12 => create(rng, kind, name),
        12..20 => damaged(rng, kind, name),
        20..27 => get(rng, kind, name),
        27..37 => list(rng, kind),
        37..47 => replace(rng, kind, name),
        47..67 if kind.plural != "pods" || once_in(rng, 3) => patch(rng, kind, name),
        47..67 => evict(rng, kind, name),
        67..74 => apply(rng, kind, name),
        74..86 => delete(rng, kind, name),
        86..89 => delete_many(rng, kind),
        89..92 if kind.plural == "pods" => evict(rng, kind, name),
        89..97 => patch(rng, kind, name),
        _rest => odd(rng, kind, name),
    }
}

/// `nodes/@me@-a`: under which a name's last state is remembered.
pub(super) fn key(kind: &Kind, name: &str) -> String {
    format!("{}/@me@-{name}", kind.plural)
}

pub(super) fn at(kind: &Kind, name: &str) -> String {
    format!("{}/@me@-{name}", kind.collection())
}

pub(super) fn request(
    kind: &Kind,
    what: &str,
    method: &'static str,
    path: String,
    content_type: &'static str,
    body: Body,
) -> Step {
    let group = if kind.group == "events.k8s.io" { ".events.k8s.io" } else { "" };
    let what = what.replace("{}", &format!("{}{group}", kind.plural));
    Step { what, plural: kind.plural, method, path, content_type, accept: JSON, body }
}

/// Query parameters of a write.
pub(super) fn options(rng: &mut Rng, path: String) -> String {
    let mut all = Vec::new();
    if once_in(rng, 8) {
        all.push(pick(rng, &["dryRun=All", "dryRun=All", "dryRun=All", "dryRun=Some"]));
    }
    if once_in(rng, 2) {
        all.push(pick(
            rng,
            &[
                "fieldValidation=Strict",
                "fieldValidation=Warn",
                "fieldValidation=Ignore",
                "fieldValidation=Strict",
                "fieldValidation=Odd",
            ],
        ));
    }
    if once_in(rng, 3) {
        all.push(pick(rng, &["fieldManager=cupcake-operator", "fieldManager=kubectl"]));
    }
    with(path, &all)
}

pub(super) fn with(path: String, parameters: &[&str]) -> String {
    if parameters.is_empty() { path } else { format!("{path}?{}", parameters.join("&")) }
}

fn create(rng: &mut Rng, kind: &Kind, name: &str) -> Step {
    let object = kind.object(rng, &format!("@me@-{name}"));
    let path = options(rng, kind.collection());
    let mut step = request(kind, "create {}", "POST", path, JSON, Body::Json(object));
    step.accept = pick(rng, &[JSON, JSON, JSON, JSON, JSON, JSON, TABLE, PARTIAL]);
    step
}

/// A creation with something wrong, or at least unusual, about it.
fn damaged(rng: &mut Rng, kind: &Kind, name: &str) -> Step {
    let mut object = kind.object(rng, &format!("@me@-{name}"));
    let mut content_type = JSON;
    let metadata = &mut object["metadata"];
    let mut raw = None;
    match rng.u32(..24) {
        0 => metadata["generateName"] = json!("@me@-g-"),
        1 | 2 => {
            metadata["generateName"] = json!("@me@-g-");
            metadata.as_object_mut().unwrap().remove("name");
        }
        3 => metadata["name"] = json!(pick(rng, &["", "Bad_Name", "a/b", "-x"])),
        4 => metadata["resourceVersion"] = json!("12"),
        5 => metadata["uid"] = json!("6f0d7f0e-0c3e-4a53-9b1a-2f6f5d1c9a77"),
        6 | 7 => metadata["finalizers"] = json!([pick(rng, &["cupcake.io/held", "bad finalizer", "held"])]),
        8 => metadata["labels"]["app"] = json!(pick(rng, &["a b", "", "x".repeat(64).as_str()])),
        9 => metadata["annotations"] = json!({"note": "words", "cupcake.io/a": ""}),
        10 => metadata["creationTimestamp"] = Value::Null,
        11 => metadata["namespace"] = json!(pick(rng, &["elsewhere", "@ns@"])),
        12 => {
            metadata["ownerReferences"] =
                json!([{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": pick(rng, &["", "u-1"])}]);
        }
        13 => object["apiVersion"] = json!(pick(rng, &["v2", "apps/v1", ""])),
        14 => object["kind"] = json!(pick(rng, &["Other", ""])),
        15 => object["unknown"] = json!({"a": 1}),
        16 => metadata["unknown"] = json!(1),
        17 => raw = Some(pick(rng, &["", "{", "[]", "null", "\"text\"", "{}", "apiVersion: v1"]).to_owned()),
        18 => content_type = pick(rng, &["text/plain", "application/merge-patch+json", ""]),
        19 => metadata["generation"] = json!(7),
        20 => {
            let text = object.to_string();
            raw = Some(format!("{},\"metadata\":{}}}", &text[..text.len() - 1], object["metadata"]));
        }
        _damage => {
            if kind.custom() {
                damage(rng, &mut object["spec"]);
            } else if let Some(spec) = object.get_mut("spec") {
                spec["unknown"] = json!(1);
            }
        }
    }
    let body = raw.map_or_else(|| Body::Json(object), Body::Raw);
    let path = options(rng, kind.collection());
    request(kind, "create {} (damaged)", "POST", path, content_type, body)
}

/// Puts something at a random place that does not belong there.
fn damage(rng: &mut Rng, value: &mut Value) {
    let wrong = |rng: &mut Rng| {
        let values = [
            json!(null),
            json!(0),
            json!(-1),
            json!(1.5),
            json!(""),
            json!("x"),
            json!(true),
            json!([]),
            json!({}),
            json!("y".repeat(300)),
            json!(["a", 1]),
        ];
        values[rng.usize(..values.len())].clone()
    };
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let name = fields.keys().nth(rng.usize(..fields.len())).unwrap().clone();
            match rng.u32(..6) {
                0 => drop(fields.remove(&name)),
                1 => drop(fields.insert("surprise".to_owned(), wrong(rng))),
                2 => drop(fields.insert(name, wrong(rng))),
                _deeper => damage(rng, &mut fields[&name]),
            }
        }
        Value::Array(items) if !items.is_empty() && rng.bool() => damage(rng, &mut items[0]),
        other => *other = wrong(rng),
    }
}

/// No `resourceVersion=0`: the real server then answers from a cache that may be a moment behind.
fn get(rng: &mut Rng, kind: &Kind, name: &str) -> Step {
    let mut path = at(kind, name);
    let mut what = "get {}";
    match rng.u32(..10) {
        0 => {
            path.push_str("/status");
            what = "get {}/status";
        }
        1 => path = format!("{}/@gen@", kind.collection()),
        _plain => {}
    }
    let mut step = request(kind, what, "GET", path, "", Body::None);
    step.accept = pick(rng, &[JSON, JSON, JSON, TABLE, PARTIAL, "*/*", "text/html"]);
    step
}

fn list(rng: &mut Rng, kind: &Kind) -> Step {
    let mine = "labelSelector=conf%3D@me@";
    let mut parameters = vec![pick(
        rng,
        &[
            mine,
            mine,
            "labelSelector=conf%3D@me@,tier%3Dfront",
            "labelSelector=conf%3D@me@,tier!%3Dfront",
            "labelSelector=conf%3D@me@,tier%20in%20(front,back)",
            "labelSelector=conf%20in%20(@me@),!tier",
            "labelSelector=conf%3D@me@,tier%20notin%20(back)",
            "labelSelector=conf%3D%3D@me@,tier",
            "labelSelector=a%3D(b",
            "labelSelector=a%20b",
        ],
    )];
    let common = [
        "fieldSelector=metadata.name%3D@me@-a",
        "fieldSelector=metadata.name!%3D@me@-a",
        "fieldSelector=spec.epoch%3D1",
        "fieldSelector=metadata.name",
    ];
    match rng.u32(..10) {
        0 | 1 => parameters.push(pick(rng, &common)),
        2 => parameters.push(match kind.plural {
            "nodes" => {
                pick(rng, &["fieldSelector=spec.unschedulable%3Dtrue", "fieldSelector=spec.unschedulable%3Dfalse"])
            }
            "pods" => pick(
                rng,
                &[
                    "fieldSelector=spec.nodeName%3Dnode-1",
                    "fieldSelector=status.phase!%3DRunning",
                    "fieldSelector=spec.nodeName%3Dnode-1,status.phase!%3DFailed,status.phase!%3DSucceeded",
                    "fieldSelector=spec.nodeName%3D",
                ],
            ),
            "events" => pick(
                rng,
                &[
                    "fieldSelector=reason%3DPulled",
                    "fieldSelector=involvedObject.name%3Dp",
                    "fieldSelector=regarding.name%3Dr",
                    "fieldSelector=type%3DNormal",
                    "fieldSelector=involvedObject.name%3Dp,involvedObject.namespace%3D@ns@,involvedObject.uid%3Du-1",
                    "fieldSelector=involvedObject.kind%3DPod,involvedObject.name%3Dp,involvedObject.namespace%3D@ns@,involvedObject.uid%3Du-1",
                ],
            ),
            _other => "fieldSelector=metadata.namespace%3Dx",
        }),
        // Where others list too, a page may end for their sake.
        3 | 4 => parameters.push(if kind.namespaced { "limit=1" } else { "limit=500" }),
        5 if kind.namespaced => parameters.extend(["limit=1", "continue=@continue@"]),
        6 => parameters.push(pick(
            rng,
            &[
                "limit=0",
                "limit=-1",
                "limit=x",
                "resourceVersionMatch=Exact",
                "continue=odd",
                "resourceVersion=x",
                "timeoutSeconds=5",
            ],
        )),
        _plain => {}
    }
    // Over all namespaces only what carries the mark of this sequence is asked for, and no page, which others would share.
    let mine = parameters[0].starts_with("labelSelector=conf%3D@me@") && !parameters.contains(&"limit=1");
    let everywhere = kind.namespaced && mine && once_in(rng, 4);
    let collection = if everywhere { kind.collection().replace("namespaces/@ns@/", "") } else { kind.collection() };
    let mut step = request(kind, "list {}", "GET", with(collection, &parameters), "", Body::None);
    step.accept = pick(rng, &[JSON, JSON, JSON, TABLE, PARTIAL_LIST]);
    step
}

/// What clients do by mistake.
fn odd(rng: &mut Rng, kind: &Kind, name: &str) -> Step {
    let (collection, at) = (kind.collection(), at(kind, name));
    let object = Body::Json(kind.object(rng, &format!("@me@-{name}")));
    let plural = kind.plural;
    let (method, path, body) = match rng.u32(..12) {
        0 => ("POST", at, object),
        1 => ("PUT", collection, object),
        2 => ("PATCH", collection, object),
        3 => ("GET", format!("{at}/scale"), Body::None),
        4 => ("POST", format!("{at}/status"), object),
        5 => ("DELETE", format!("{at}/status"), Body::None),
        6 => ("GET", collection.replace(plural, "oddments"), Body::None),
        7 => ("POST", collection.replace(plural, "oddments"), object),
        8 => ("GET", collection.replace("/v1/", "/v7/"), Body::None),
        9 => ("GET", format!("{at}/eviction"), Body::None),
        10 => ("PUT", format!("{at}/nothing"), object),
        _last => ("POST", format!("{at}/binding"), Body::None),
    };
    request(kind, &format!("odd {method} {{}}"), method, path, JSON, body)
}
