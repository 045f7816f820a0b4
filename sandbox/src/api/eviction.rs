//! Evictions and bindings of pods, and the budgets that evictions honour.
//!
//! Source: `k8s.io/kubernetes/pkg/registry/core/pod/storage/eviction.go`, `pkg/controller/disruption/disruption.go`.

use super::delete;
use super::object::{Key, Object, meta, meta_text};
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
    let named = meta_text(&body, "name");
    if !named.is_empty() && named != call.target.name {
        return Err(Failure::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut state = call.inner.lock();
    let key = Key::new(&call.target.namespace, &call.target.name);
    let pod = state.get(call.id, &key).cloned().ok_or_else(|| call.not_found())?;
    let phase = pod.value()["status"]["phase"].as_str().unwrap_or_default();
    let free = matches!(phase, "Succeeded" | "Failed" | "Pending") || meta(pod.value(), "deletionTimestamp").is_some();
    if !free {
        check_budgets(&state, &pod)?;
    }
    delete::evicted(call, &mut state, &key, &body["deleteOptions"])?;
    Ok(Answer::value(201, &created()).committed())
}

fn check_budgets(state: &State, pod: &Object) -> Result<(), Failure> {
    let budgets = matching_budgets(state, pod);
    let budget = match budgets.as_slice() {
        [] => return Ok(()),
        [one] => one.value(),
        _several => {
            return Err(Failure::new(
                http::StatusCode::INTERNAL_SERVER_ERROR,
                "InternalError",
                "Internal error occurred: This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
    };
    let status = &budget["status"];
    let figure = |name: &str| status[name].as_i64().unwrap_or(0);
    let (healthy, desired) = (figure("currentHealthy"), figure("desiredHealthy"));
    if !is_ready(pod.value()) {
        let always = budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow";
        if always || (healthy >= desired && desired > 0) {
            return Ok(());
        }
    }
    if figure("disruptionsAllowed") > 0 {
        return Ok(());
    }
    let mut failure = Failure::new(
        http::StatusCode::TOO_MANY_REQUESTS,
        "TooManyRequests",
        "Cannot evict pod as it would violate the pod's disruption budget.",
    );
    failure.details = Some(Box::new(Details {
        causes: vec![Cause {
            reason: "DisruptionBudget".to_owned(),
            message: format!(
                "The disruption budget {} needs {desired} healthy pods and has {healthy} currently",
                meta_text(budget, "name")
            ),
            field: None,
        }],
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
    if !call.info.dry_run()? {
        state.put(call.id, key, value, call.now);
    }
    Ok(Answer::value(201, &created()).committed())
}
