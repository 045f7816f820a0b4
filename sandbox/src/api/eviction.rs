//! Evictions and bindings of pods, and the budgets that evictions honour.
//!
//! Source: `k8s.io/kubernetes/pkg/registry/core/pod/storage/eviction.go`, `pkg/controller/disruption/disruption.go`.

use super::delete;
use super::object::{Key, Object, as_map, child, meta, meta_text};
use super::router::Call;
use super::selectors::LabelSelector;
use super::server::Answer;
use super::status::{Cause, Details, Failure};
use super::store::State;
use super::write::stamp;
use cupcake_engine::clock::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

fn created() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})
}

fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready") == Some("True")
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)?["status"].as_str()
}

/// POST of pods/NAME/eviction.
pub(super) fn evict(call: &Call<'_>) -> Result<Answer, Failure> {
    let body = call.info.decoded()?;
    let warnings = unknown_fields(&body);
    evict_decoded(call, &body)
        .map(|mut answer| {
            answer.warnings.extend_from_slice(&warnings);
            answer
        })
        .map_err(|failure| failure.warned(&warnings))
}

/// Fields that an Eviction does not have.
fn unknown_fields(eviction: &Value) -> Vec<String> {
    let known = ["apiVersion", "kind", "metadata", "deleteOptions"];
    let fields = eviction.as_object().into_iter().flatten().filter(|(name, _)| !known.contains(&name.as_str()));
    fields.map(|(name, _)| format!("unknown field \"{name}\"")).collect()
}

/// The options of the deletion. Where budgets are ignored for a pod that is not ready, the server puts the version that it read in
/// the place of the client's; an empty one is none, unless the eviction is only tried.
fn options(body: &Value, word: &Word, dry: bool) -> Value {
    let mut options = body["deleteOptions"].clone();
    let empty = options["preconditions"]["resourceVersion"] == "";
    let own = matches!(word, Word::Ignored) || (empty && !dry);
    if own && options["preconditions"].is_object() {
        options["preconditions"]["resourceVersion"] = Value::Null;
    }
    options
}

fn evict_decoded(call: &Call<'_>, body: &Value) -> Result<Answer, Failure> {
    let kind = body["kind"].as_str().unwrap_or("Eviction");
    if kind != "Eviction" {
        return Err(Failure::bad_request(format!(
            "{kind} in version \"{}\" cannot be handled as a Eviction: no kind \"{kind}\" is registered for version \"{}\"",
            call.target.version,
            body["apiVersion"].as_str().unwrap_or_default(),
        )));
    }
    let namespace = meta_text(body, "namespace");
    if !namespace.is_empty() && namespace != call.target.namespace {
        return Err(Failure::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let named = meta_text(body, "name");
    if named != call.target.name {
        return Err(Failure::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut state = call.inner.lock();
    let key = Key::new(&call.target.namespace, &call.target.name);
    let pod = state.get(call.id, &key).cloned().ok_or_else(|| call.not_found())?;
    let phase = pod.value()["status"]["phase"].as_str().unwrap_or_default();
    let free = matches!(phase, "Succeeded" | "Failed" | "Pending") || meta(pod.value(), "deletionTimestamp").is_some();
    let dry = call.info.dry_run() || !body["deleteOptions"]["dryRun"].is_null();
    let word = if free { Word::Unasked } else { check_budgets(&state, &pod)? };
    if let Word::Spent(budget) = &word
        && !dry
    {
        spend(&mut state, budget, pod.name(), call.now);
    }
    let options = options(body, &word, dry);
    if !dry {
        delete::check_evicted(call, &pod, &options)?;
        let mut value = pod.value().clone();
        target(&mut value, call.now);
        if value != *pod.value() {
            state.put(call.id, key.clone(), value, call.now);
        }
    }
    delete::evicted(call, &mut state, &key, &options)?;
    Ok(Answer::value(201, &created()).committed())
}

/// Notes on a pod that it is being evicted.
fn target(pod: &mut Value, now: Timestamp) {
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": stamp(now),
    });
    let status = child(as_map(pod), "status");
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if let Some(list) = conditions.as_array_mut() {
        if list.iter().any(|known| known["type"] == "DisruptionTarget" && known["status"] == "True") {
            return;
        }
        list.retain(|known| known["type"] != "DisruptionTarget");
        list.push(condition);
    }
}

/// Counts an eviction on its budget, until the disruption controller counts anew.
fn spend(state: &mut State, budget: &Object, pod: &str, now: Timestamp) {
    let Some(id) = state.find("policy", "poddisruptionbudgets").filter(|_| !state.limits.controllers) else {
        // It counts at once, so that nobody would see this.
        return;
    };
    let mut value = budget.value().clone();
    let status = &mut value["status"];
    let allowed = status["disruptionsAllowed"].as_i64().unwrap_or(0) - 1;
    status["disruptionsAllowed"] = Value::from(allowed);
    status["disruptedPods"][pod] = Value::from(stamp(now));
    if allowed == 0 {
        let condition = json!({
            "type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
            "lastTransitionTime": stamp(now), "observedGeneration": status["observedGeneration"],
        });
        status["conditions"] = json!([condition]);
    }
    state.put(id, Key::new(budget.namespace(), budget.name()), value, now);
}

/// What budgets say to an eviction that may be.
enum Word {
    /// The pod does not run: they are not asked.
    Unasked,
    /// The pod is not ready, which allows it, whatever they say.
    Ignored,
    /// There is none.
    None,
    /// This one allows it.
    Spent(Arc<Object>),
}

fn check_budgets(state: &State, pod: &Object) -> Result<Word, Failure> {
    let budgets = matching_budgets(state, pod);
    let (found, budget) = match budgets.as_slice() {
        [] => return Ok(Word::None),
        [one] => (one, one.value()),
        _several => {
            return Err(Failure::new(
                http::StatusCode::INTERNAL_SERVER_ERROR,
                "",
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
    };
    let status = &budget["status"];
    let figure = |name: &str| status[name].as_i64().unwrap_or(0);
    let (healthy, desired) = (figure("currentHealthy"), figure("desiredHealthy"));
    if !is_ready(pod.value()) {
        let always = budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow";
        if always || (healthy >= desired && desired > 0) {
            return Ok(Word::Ignored);
        }
    }
    let seen = figure("observedGeneration");
    let behind = seen < meta(budget, "generation").and_then(Value::as_i64).unwrap_or(0);
    if !behind && figure("disruptionsAllowed") > 0 {
        return Ok(Word::Spent(Arc::clone(found)));
    }
    let name = meta_text(budget, "name");
    let why = if behind {
        format!("The disruption budget {name} is still being processed by the server.")
    } else {
        format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently")
    };
    let mut failure = Failure::new(
        http::StatusCode::TOO_MANY_REQUESTS,
        "TooManyRequests",
        "Cannot evict pod as it would violate the pod's disruption budget.",
    );
    failure.details = Some(Box::new(Details {
        causes: vec![Cause { reason: "DisruptionBudget".to_owned(), message: why, field: None }],
        retry_after_seconds: if behind { 10 } else { 0 },
        ..Details::default()
    }));
    Err(failure)
}

fn matching_budgets(state: &State, pod: &Object) -> Vec<Arc<Object>> {
    let Some(id) = state.find("policy", "poddisruptionbudgets") else {
        return Vec::new();
    };
    state
        .collection(id)
        .range(pod.namespace(), None)
        .filter(|(_, budget)| selects(budget.value(), pod))
        .map(|(_, budget)| Arc::clone(budget))
        .collect()
}

fn selects(budget: &Value, pod: &Object) -> bool {
    LabelSelector::from_object(budget["spec"].get("selector")).is_some_and(|selector| selector.matches(pod.labels()))
}

/// Keeps the status of a namespace's budgets as the disruption controller does.
pub(super) fn recount(state: &mut State, namespace: &str, now: Timestamp) {
    let (Some(budgets), Some(pods)) = (state.find("policy", "poddisruptionbudgets"), state.find("", "pods")) else {
        return;
    };
    let found: Vec<(Key, Arc<Object>)> = state
        .collection(budgets)
        .range(namespace, None)
        .map(|(key, budget)| (key.clone(), Arc::clone(budget)))
        .collect();
    for (key, budget) in found {
        let selected: Vec<Arc<Object>> = state
            .collection(pods)
            .range(namespace, None)
            .filter(|(_, pod)| selects(budget.value(), pod))
            .map(|(_, pod)| Arc::clone(pod))
            .collect();
        let status = counted(state, &budget, &selected, now);
        if budget.value()["status"] != status {
            let mut value = budget.value().clone();
            value["status"] = status;
            state.put(budgets, key, value, now);
        }
    }
}

fn counted(state: &State, budget: &Object, pods: &[Arc<Object>], now: Timestamp) -> Value {
    let spec = &budget.value()["spec"];
    let count = i64::try_from(pods.len()).unwrap_or(i64::MAX);
    let (expected, desired) = if let Some(max) = spec.get("maxUnavailable") {
        let expected = expected_scale(state, pods);
        (expected, (expected - scaled(max, expected)).max(0))
    } else {
        match spec.get("minAvailable") {
            Some(min) if min.is_string() => {
                let expected = expected_scale(state, pods);
                (expected, scaled(min, expected))
            }
            Some(min) => (count, min.as_i64().unwrap_or(0)),
            // Neither is set: the default is one unavailable... of none protected.
            None => (count, 0),
        }
    };
    let healthy =
        pods.iter().filter(|pod| is_ready(pod.value()) && meta(pod.value(), "deletionTimestamp").is_none()).count();
    let healthy = i64::try_from(healthy).unwrap_or(i64::MAX);
    let allowed = if expected <= 0 { 0 } else { (healthy - desired).max(0) };
    let (state_word, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let generation = meta(budget.value(), "generation").cloned().unwrap_or(Value::from(1));
    let old = budget.value()["status"]["conditions"].as_array();
    let since = old
        .and_then(|list| list.first())
        .filter(|condition| condition["status"] == state_word)
        .map_or_else(|| Value::from(stamp(now)), |condition| condition["lastTransitionTime"].clone());
    json!({
        "currentHealthy": healthy, "desiredHealthy": desired, "disruptionsAllowed": allowed,
        "expectedPods": expected, "observedGeneration": generation,
        "conditions": [{
            "type": "DisruptionAllowed", "status": state_word, "reason": reason, "message": "",
            "lastTransitionTime": since, "observedGeneration": generation,
        }],
    })
}

/// An int-or-percent of `whole`, percentages rounded up.
fn scaled(value: &Value, whole: i64) -> i64 {
    match value.as_str().and_then(|text| text.strip_suffix('%')) {
        Some(percent) => {
            let percent: i64 = percent.parse().unwrap_or(0);
            (percent * whole + 99) / 100
        }
        None => value.as_i64().unwrap_or(0),
    }
}

/// Replicas that the pods' controllers want.
fn expected_scale(state: &State, pods: &[Arc<Object>]) -> i64 {
    let mut seen: Vec<String> = Vec::new();
    let mut sum = 0;
    for pod in pods {
        let Some(mut owner) = controller(state, pod) else {
            continue;
        };
        // A ReplicaSet of a Deployment: the Deployment's word counts.
        if let Some(above) = controller(state, &owner) {
            owner = above;
        }
        if !seen.iter().any(|uid| uid == owner.uid()) {
            seen.push(owner.uid().to_owned());
            sum += owner.value()["spec"]["replicas"].as_i64().unwrap_or(1);
        }
    }
    sum
}

fn controller(state: &State, object: &Object) -> Option<Arc<Object>> {
    let owners = meta(object.value(), "ownerReferences")?.as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    let place = state.by_uid(owner["uid"].as_str()?)?;
    state.get(place.resource, &place.key).cloned()
}

/// POST of pods/NAME/binding: puts a pod on a node.
pub(super) fn bind(call: &Call<'_>) -> Result<Answer, Failure> {
    let body = call.info.decoded()?;
    if body.is_null() {
        return Err(Failure::bad_request(
            "the object provided is unrecognized (must be of type Binding): couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)",
        ));
    }
    let node = body["target"]["name"].as_str().unwrap_or_default();
    let mut state = call.inner.lock();
    let key = Key::new(&call.target.namespace, &call.target.name);
    let pod = state.get(call.id, &key).cloned().ok_or_else(|| call.not_found())?;
    if let Some(bound) = pod.value()["spec"]["nodeName"].as_str() {
        return Err(Failure::conflict(
            "",
            "pods/binding",
            &call.target.name,
            &format!("pod {} is already assigned to node \"{bound}\"", call.target.name),
        ));
    }
    let mut value = pod.value().clone();
    value["spec"]["nodeName"] = Value::from(node);
    value["status"]["conditions"] = json!([{
        "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": stamp(call.now),
    }]);
    if !call.info.dry_run() {
        state.put(call.id, key, value, call.now);
    }
    Ok(Answer::value(201, &created()).committed())
}
