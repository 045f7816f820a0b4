//! Gathers what lives around the nodes: budgets and pods that drains meet, admission, other programs, requests to old API versions.
//!
//! Read whenever an update is about to begin (again after a while where it is refused), and by `plan`, `preflight` and `snapshot`.
//! What may not be read is named, not guessed.
//!
//! RBAC: get on the configmaps kube-proxy and coredns; list on pods, poddisruptionbudgets, daemonsets and deployments; get on the path /metrics; and that of `admission`. `api_writers` asks for none.

use super::admission::admission;
use super::api_writers::name_writers;
use super::views::pod_view;
use super::{ops_error, snapshot};
use crate::error_chain;
use cupcake_crds::values::{AbsentAddon, DeprecatedRequest, DisruptionBudget, KubeVersion, PodSnapshot, Surroundings};
use cupcake_steps::ports::cluster::{OpsError, PodKind, PodView};
use cupcake_steps::ports::host::KubeProxy;
use futures::{AsyncBufReadExt, AsyncReadExt, StreamExt};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{Api, ListParams};
use kube::core::{ObjectMeta, PartialObjectMeta, Selector, SelectorExt};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

/// How many objects one request lists.
const PAGE_OBJECTS: u32 = 500;
/// How many pods of each sort are kept (where there are more, that is told), and how many hooks and requests.
pub(super) const KEPT_MAX: usize = 2_000;
/// How much of the API server's metrics is read, in bytes.
const METRICS_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// kubeadm's addons, by the name of workload and ConfigMap.
const KUBE_PROXY: &str = "kube-proxy";
const COREDNS: &str = "coredns";
/// Programs that reboot, remove or upgrade nodes, by the name of their workload.
const UPDATERS: [&str; 5] = ["kured", "cluster-autoscaler", "karpenter", "system-upgrade-controller", "draino"];
/// The metric of requests to API versions that are on their way out. Source: kubernetes.io, "Kubernetes Metrics Reference" (v1.34).
const DEPRECATED: &str = "apiserver_requested_deprecated_apis{";

/// What lives around the nodes now.
pub async fn surroundings(client: &kube::Client, server: KubeVersion) -> Result<Surroundings, OpsError> {
    let mut found = Surroundings::default();
    let budgets: Vec<PodDisruptionBudget> = all(client, "poddisruptionbudgets", &mut found.unread).await?;
    let selectors = budgets.iter().filter_map(budget_of).collect::<Vec<_>>();
    found.disruption_budgets = selectors.iter().map(|(_, _, budget)| budget.clone()).collect();
    pods(client, &selectors, &mut found).await?;

    // From here on what cannot be read is told, and stands in nobody's way.
    admission(client, server, &mut found).await;
    let sets: Option<Vec<ObjectMeta>> =
        told(names::<DaemonSet>(client, "daemonsets", &mut found.unread).await, &mut found.unread);
    let deployments = told(names::<Deployment>(client, "deployments", &mut found.unread).await, &mut found.unread);
    let is = |meta: &ObjectMeta, namespace: &str, name: &str| {
        meta.namespace.as_deref() == Some(namespace) && meta.name.as_deref() == Some(name)
    };
    found.without_kube_proxy =
        sets.as_ref().is_some_and(|sets| !sets.iter().any(|set| is(set, "kube-system", KUBE_PROXY)));
    let deployed = |all: &Option<Vec<ObjectMeta>>, name: &str| {
        all.as_ref().is_none_or(|all| all.iter().any(|one| is(one, "kube-system", name)))
    };
    for (addon, there) in [(KUBE_PROXY, deployed(&sets, KUBE_PROXY)), (COREDNS, deployed(&deployments, COREDNS))] {
        if !there {
            let config_map = has_config_map(client, addon, &mut found.unread).await == Some(true);
            // It was read a moment ago already; an answer that does not come now is no verdict, and is waited for.
            let disabled = snapshot::cluster_configuration(client).await?.disables(addon);
            found.absent_addons.push(AbsentAddon { name: addon.to_owned(), config_map, disabled });
        }
    }
    let workloads = [("DaemonSet", sets), ("Deployment", deployments)];
    for (kind, meta) in workloads.iter().flat_map(|(kind, all)| all.iter().flatten().map(move |meta| (kind, meta))) {
        let name = meta.name.as_deref().unwrap_or_default();
        if UPDATERS.iter().any(|updater| name.contains(updater)) {
            let namespace = meta.namespace.as_deref().unwrap_or_default();
            found.other_updaters.push(format!("{kind} {namespace}/{name}"));
        }
    }
    found.deprecated_requests = told(deprecated(client, &mut found.unread).await, &mut found.unread);
    name_writers(client, &mut found.deprecated_requests).await;
    Ok(found)
}

/// Whether an addon's ConfigMap is there, by which kubeadm up to 1.31 tells whether it is to deploy the addon; nothing where that cannot be
/// read.
async fn has_config_map(client: &kube::Client, addon: &str, unread: &mut Vec<String>) -> Option<bool> {
    match Api::<ConfigMap>::namespaced(client.clone(), "kube-system").get_metadata_opt(addon).await {
        Ok(found) => Some(found.is_some()),
        Err(error) => {
            unread.push(format!("ConfigMap kube-system/{addon}: {}", error_chain(&error)));
            None
        }
    }
}

/// Takes note of a kube-proxy that kubeadm's configuration disables, and of its ConfigMap where the kubeadm of some hop goes by that.
pub async fn disabled_kube_proxy(client: &kube::Client, server: KubeVersion, found: &mut Surroundings) {
    found.kube_proxy_disabled = true;
    if !found.without_kube_proxy && server.minor() < KubeProxy::LEFT_OUT_FROM {
        let there = has_config_map(client, KUBE_PROXY, &mut found.unread).await;
        // Where it cannot be read, it is as kubeadm makes it.
        found.kube_proxy_without_config_map = there == Some(false);
    }
}

/// A budget, and the pods that it covers: those of its namespace which its selector matches.
fn budget_of(budget: &PodDisruptionBudget) -> Option<(String, Selector, DisruptionBudget)> {
    let namespace = budget.namespace()?;
    let spec = budget.spec.as_ref()?;
    let selector = Selector::try_from(spec.selector.clone()?).ok()?;
    let none = match &spec.max_unavailable {
        Some(IntOrString::Int(pods)) => *pods == 0,
        Some(IntOrString::String(share)) => share == "0%",
        None => false,
    };
    // One that was made a moment ago has no figures yet; that it lets none go at all stands in its spec.
    let (expected_pods, desired_healthy, current_healthy) = match &budget.status {
        Some(status) if status.expected_pods > 0 => {
            (status.expected_pods, status.desired_healthy, Some(status.current_healthy))
        }
        Some(_) | None if none => (1, 1, None),
        Some(_) | None => return None,
    };
    let name = format!("{namespace}/{}", budget.name_any());
    let told = DisruptionBudget { name, expected_pods, desired_healthy, current_healthy };
    Some((namespace, selector, told))
}

/// Takes note of the pods that a drain would stumble over.
async fn pods(
    client: &kube::Client,
    budgets: &[(String, Selector, DisruptionBudget)],
    found: &mut Surroundings,
) -> Result<(), OpsError> {
    let api: Api<Pod> = Api::all(client.clone());
    let mut params = ListParams::default().limit(PAGE_OBJECTS);
    // By cause, so that many emptyDirs hide no budget.
    let mut kept = BTreeMap::<(bool, bool, bool), usize>::new();
    loop {
        let page = match api.list(&params).await {
            Ok(page) => page,
            Err(error) => return denied("pods", &error, &mut found.unread),
        };
        for pod in page.items.iter().filter_map(|pod| stumbling(pod, budgets)) {
            let count = kept.entry((!pod.budgets.is_empty(), pod.empty_dir, pod.unmanaged)).or_default();
            *count += 1;
            if *count <= KEPT_MAX {
                found.pods.push(pod);
            } else if *count == KEPT_MAX + 1 {
                found.unread.push(format!("pods beyond the first {KEPT_MAX} of their sort"));
            }
        }
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            return Ok(());
        }
    }
}

/// The pod, if a drain cannot evict it as a matter of course.
fn stumbling(pod: &Pod, budgets: &[(String, Selector, DisruptionBudget)]) -> Option<PodSnapshot> {
    // Whoever plans from outside does not know where the operator is; it has nothing to lose.
    let view = pod_view(pod, None);
    if view.kind != PodKind::Evictable {
        return None;
    }
    let labels = pod.labels();
    let covering: Vec<&DisruptionBudget> = budgets
        .iter()
        .filter(|(namespace, selector, _)| *namespace == view.namespace && selector.matches(labels))
        .map(|(_, _, budget)| budget)
        .collect();
    let blocked =
        covering.len() > 1 || covering.iter().any(|budget| budget.never_gives() || budget.gives_nothing_now());
    let spec = pod.spec.as_ref()?;
    // One that waits for a node is on none that is to be emptied.
    let node = spec.node_name.clone()?;
    let PodView { empty_dir, unmanaged, .. } = view;
    (blocked || empty_dir || unmanaged).then(|| PodSnapshot {
        name: format!("{}/{}", view.namespace, view.name),
        node,
        labels: labels.clone(),
        budgets: covering.iter().map(|budget| budget.name.clone()).collect(),
        empty_dir,
        unmanaged,
    })
}

/// Every object of a kind; none where the API server does not know the kind or does not let us read it, which is noted.
pub(super) async fn all<K>(client: &kube::Client, plural: &str, unread: &mut Vec<String>) -> Result<Vec<K>, OpsError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    match Api::<K>::all(client.clone()).list(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        Err(error) => denied(plural, &error, unread).map(|()| Vec::new()),
    }
}

/// Names of every object of a kind, if they may be read.
async fn names<K>(
    client: &kube::Client,
    plural: &str,
    unread: &mut Vec<String>,
) -> Result<Option<Vec<ObjectMeta>>, OpsError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    match Api::<K>::all(client.clone()).list_metadata(&ListParams::default()).await {
        Ok(list) => Ok(Some(list.items.into_iter().map(|item: PartialObjectMeta<K>| item.metadata).collect())),
        Err(error) => denied(plural, &error, unread).map(|()| None),
    }
}

/// Notes what may not be read; what is not served is not there; anything else is for another time.
pub(super) fn denied(what: &str, error: &kube::Error, unread: &mut Vec<String>) -> Result<(), OpsError> {
    match error {
        kube::Error::Api(status) if status.code == 404 => Ok(()),
        kube::Error::Api(status) if matches!(status.code, 401 | 403) => {
            unread.push(what.to_owned());
            Ok(())
        }
        other => Err(ops_error(&format!("list {what}"), other)),
    }
}

/// What was read, or nothing and a note of why not.
pub(super) fn told<T: Default>(read: Result<T, OpsError>, unread: &mut Vec<String>) -> T {
    read.unwrap_or_else(|error| {
        let (OpsError::Changed(reason) | OpsError::Transient(reason) | OpsError::NeedsOperator(reason)) = error;
        unread.push(reason.message);
        T::default()
    })
}

/// Of one API server: each counts for itself.
async fn deprecated(client: &kube::Client, unread: &mut Vec<String>) -> Result<Vec<DeprecatedRequest>, OpsError> {
    let request = http::Request::get("/metrics").body(Vec::new()).expect("a constant path makes a request");
    let stream = match client.request_stream(request).await {
        Ok(stream) => stream.take(METRICS_BYTES_MAX),
        Err(error) => return denied("/metrics", &error, unread).map(|()| Vec::new()),
    };
    let mut lines = stream.lines();
    let mut kept = String::new();
    while let Some(Ok(line)) = lines.next().await {
        if line.starts_with(DEPRECATED) && kept.len() < KEPT_MAX * 256 {
            kept.push_str(&line);
            kept.push('\n');
        }
    }
    Ok(deprecated_in(&kept))
}

fn deprecated_in(metrics: &str) -> Vec<DeprecatedRequest> {
    let label = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!("{name}=\""))?;
        rest.split_once('"').map(|(value, _)| value.to_owned())
    };
    let requests = metrics.lines().filter_map(|line| line.strip_prefix(DEPRECATED)).filter_map(|line| {
        let (group, version) = (label(line, "group").unwrap_or_default(), label(line, "version")?);
        let group = if group.is_empty() { String::new() } else { format!("{group}/") };
        let api = format!("{group}{version} {}", label(line, "resource")?);
        let removed_in = label(line, "removed_release").filter(|text| !text.is_empty())?;
        Some(DeprecatedRequest { api, removed_in, written_by: Vec::new() })
    });
    let mut seen = BTreeSet::new();
    requests.filter(|request| seen.insert(request.api.clone())).take(KEPT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_pod_is_told_where_its_budget_its_volume_or_its_owner_stands_in_the_way() {
        let pod = |change: &dyn Fn(&mut Value)| {
            let mut value = json!({
                "metadata": {"name": "web-0", "namespace": "shop", "labels": {"app": "web"}, "ownerReferences": [
                    {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "1", "controller": true}]},
                "spec": {"nodeName": "w-1", "containers": []},
            });
            change(&mut value);
            serde_json::from_value::<Pod>(value).unwrap()
        };
        let budget = |name: &str, desired: i32| {
            let value = json!({
                "metadata": {"name": name, "namespace": "shop"}, "spec": {"selector": {"matchLabels": {"app": "web"}}},
                "status": {"expectedPods": 2, "desiredHealthy": desired, "currentHealthy": 2, "disruptionsAllowed": 2 - desired},
            });
            budget_of(&serde_json::from_value(value).unwrap()).unwrap()
        };
        let plain = pod(&|_| ());
        assert_eq!(stumbling(&plain, &[budget("web", 1)]), None);
        assert_eq!(stumbling(&plain, &[budget("web", 2)]).unwrap().budgets, ["shop/web"]);
        assert_eq!(stumbling(&plain, &[budget("a", 1), budget("b", 1)]).unwrap().budgets, ["shop/a", "shop/b"]);
        let fresh = json!({"metadata": {"name": "new", "namespace": "shop"},
            "spec": {"maxUnavailable": "0%", "selector": {"matchLabels": {"app": "web"}}}});
        let fresh = budget_of(&serde_json::from_value(fresh).unwrap()).unwrap();
        assert!(fresh.2.never_gives(), "its spec says so before it has figures");
        let elsewhere = pod(&|pod| pod["metadata"]["labels"]["app"] = json!("db"));
        assert_eq!(stumbling(&elsewhere, &[budget("web", 2)]), None);
        let local = pod(&|pod| pod["spec"]["volumes"] = json!([{"name": "cache", "emptyDir": {}}]));
        assert!(stumbling(&local, &[]).unwrap().empty_dir);
        let alone = pod(&|pod| pod["metadata"]["ownerReferences"] = json!([]));
        assert!(stumbling(&alone, &[]).unwrap().unmanaged);
        let done = pod(&|pod| {
            pod["metadata"]["ownerReferences"] = json!([]);
            pod["status"] = json!({"phase": "Succeeded"});
        });
        assert_eq!(stumbling(&done, &[]), None);
    }

    #[test]
    fn requests_to_api_versions_on_their_way_out_are_read_from_the_metrics() {
        let metrics = "# HELP x\n\
            apiserver_requested_deprecated_apis{group=\"policy\",removed_release=\"1.25\",resource=\"podsecuritypolicies\",subresource=\"\",version=\"v1beta1\"} 1\n\
            apiserver_requested_deprecated_apis{group=\"\",removed_release=\"\",resource=\"componentstatuses\",subresource=\"\",version=\"v1\"} 1\n\
            other{a=\"b\"} 1\n";
        let api = "policy/v1beta1 podsecuritypolicies".to_owned();
        let written_by = Vec::new();
        assert_eq!(deprecated_in(metrics), [DeprecatedRequest { api, removed_in: "1.25".to_owned(), written_by }]);
    }
}
