//! Gathers who may refuse what an update asks for: webhooks that refuse when they fail, with the nodes that their pods run on, and
//! policies that deny, or change requests and refuse those on which they fail.
//!
//! RBAC: list on validatingwebhookconfigurations, mutatingwebhookconfigurations, validatingadmissionpolicies,
//! validatingadmissionpolicybindings, mutatingadmissionpolicies, mutatingadmissionpolicybindings and endpointslices.

use super::surroundings::{KEPT_MAX, all, denied, told};
use cupcake_crds::values::{AdmissionHook, AdmissionPolicy, KubeVersion, Surroundings};
use cupcake_steps::ports::cluster::OpsError;
use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, MutatingWebhookConfiguration, NamedRuleWithOperations, RuleWithOperations,
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};

/// The label by which an EndpointSlice names its Service. Source: kubernetes.io, "EndpointSlices" (v1.34).
const SERVICE: &str = "kubernetes.io/service-name";
/// Services of webhooks whose pods are looked for: one request each.
const SERVICES_MAX: usize = 100;
/// Groups that are named of one that sees every kind of theirs.
const GROUPS_MAX: usize = 50;

/// Puts both into `found`; what cannot be read is named there.
pub(super) async fn admission(client: &kube::Client, server: KubeVersion, found: &mut Surroundings) {
    let mut hooks = Vec::new();
    let validating: Vec<ValidatingWebhookConfiguration> =
        told(all(client, "validatingwebhookconfigurations", &mut found.unread).await, &mut found.unread);
    for configuration in validating {
        let of = format!("ValidatingWebhookConfiguration {}", configuration.name_any());
        hooks.extend(configuration.webhooks.into_iter().flatten().filter_map(|hook| {
            let rules: Vec<Rule<'_>> = hook.rules.iter().flatten().map(Rule::of_hook).collect();
            let seen = closed_and_sees(hook.failure_policy.as_deref(), hook.namespace_selector.as_ref(), &rules)?;
            Some((format!("{of} webhook {}", hook.name), seen, service_of(&hook.client_config)))
        }));
    }
    let mutating: Vec<MutatingWebhookConfiguration> =
        told(all(client, "mutatingwebhookconfigurations", &mut found.unread).await, &mut found.unread);
    for configuration in mutating {
        let of = format!("MutatingWebhookConfiguration {}", configuration.name_any());
        hooks.extend(configuration.webhooks.into_iter().flatten().filter_map(|hook| {
            let rules: Vec<Rule<'_>> = hook.rules.iter().flatten().map(Rule::of_hook).collect();
            let seen = closed_and_sees(hook.failure_policy.as_deref(), hook.namespace_selector.as_ref(), &rules)?;
            Some((format!("{of} webhook {}", hook.name), seen, service_of(&hook.client_config)))
        }));
    }
    hooks.truncate(KEPT_MAX);
    let services = hooks.iter().filter(|(_, seen, _)| !seen.now.is_empty());
    let services: BTreeSet<Service> = services.filter_map(|(_, _, service)| service.clone()).collect();
    let mut nodes_by_service = BTreeMap::new();
    for service in services.into_iter().take(SERVICES_MAX) {
        match nodes_of(client, &service, &mut found.unread).await {
            Looked::Nodes(nodes) => drop(nodes_by_service.insert(service, nodes)),
            Looked::Unknown => {}
            Looked::MayNot => break,
        }
    }
    found.admission_hooks.extend(hooks.into_iter().map(|(name, seen, service)| {
        let nodes = service.and_then(|service| nodes_by_service.get(&service).cloned());
        AdmissionHook { name, sees: seen.now, all_of: seen.all_of, nodes }
    }));

    let policies: Vec<ValidatingAdmissionPolicy> =
        told(all(client, "validatingadmissionpolicies", &mut found.unread).await, &mut found.unread);
    let bindings: Vec<ValidatingAdmissionPolicyBinding> =
        told(all(client, "validatingadmissionpolicybindings", &mut found.unread).await, &mut found.unread);
    found.admission_policies = denying(&policies, &bindings);
    if let Some(version) = mutating_version(server) {
        let policies = objects(client, version, "MutatingAdmissionPolicy", "mutatingadmissionpolicies").await;
        let policies = told_of("mutatingadmissionpolicies", policies, &mut found.unread);
        if policies.is_empty() {
            return;
        }
        let bindings =
            objects(client, version, "MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings").await;
        let bindings = told_of("mutatingadmissionpolicybindings", bindings, &mut found.unread);
        found.admission_policies.extend(failing(&policies, &bindings));
    }
}

/// The version under which an API server of that version has policies that change requests, if it is told to: by itself it has them
/// from 1.36 on. Those of 1.32 and 1.33 are alpha. Source: k8s.io/apiserver, pkg/features/kube_features.go (v0.36.3).
fn mutating_version(server: KubeVersion) -> Option<&'static str> {
    match (server.major(), server.minor()) {
        (1, ..34) => None,
        (1, 34..36) => Some("v1beta1"),
        _ => Some("v1"),
    }
}

/// Every object of a kind of admissionregistration.k8s.io that our types do not know yet.
async fn objects(
    client: &kube::Client,
    version: &str,
    kind: &str,
    plural: &str,
) -> Result<Vec<DynamicObject>, kube::Error> {
    let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", version, kind);
    let resource = ApiResource::from_gvk_with_plural(&kind, plural);
    let list = Api::<DynamicObject>::all_with(client.clone(), &resource).list(&ListParams::default()).await?;
    Ok(list.items)
}

fn told_of(
    plural: &str,
    read: Result<Vec<DynamicObject>, kube::Error>,
    unread: &mut Vec<String>,
) -> Vec<DynamicObject> {
    let read: Result<_, OpsError> = read.or_else(|error| denied(plural, &error, unread).map(|()| Vec::new()));
    told(read, unread)
}

/// Namespace and name.
type Service = (String, String);

/// What a rule matches; nothing where it does not say.
struct Rule<'r> {
    groups: &'r [String],
    resources: &'r [String],
    operations: &'r [String],
}

impl<'r> Rule<'r> {
    fn of_hook(rule: &'r RuleWithOperations) -> Self {
        Self::of(rule.api_groups.as_deref(), rule.resources.as_deref(), rule.operations.as_deref())
    }

    fn of_policy(rule: &'r NamedRuleWithOperations) -> Self {
        Self::of(rule.api_groups.as_deref(), rule.resources.as_deref(), rule.operations.as_deref())
    }

    fn of(groups: Option<&'r [String]>, resources: Option<&'r [String]>, operations: Option<&'r [String]>) -> Self {
        let of = |list: Option<&'r [String]>| list.unwrap_or_default();
        Self { groups: of(groups), resources: of(resources), operations: of(operations) }
    }
}

fn service_of(config: &WebhookClientConfig) -> Option<Service> {
    config.service.as_ref().map(|service| (service.namespace.clone(), service.name.clone()))
}

/// What somebody is asked about.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    /// Of an update's requests.
    now: Vec<String>,
    /// Groups of which it sees every kind that comes.
    all_of: Vec<String>,
}

impl Seen {
    fn is_empty(&self) -> bool {
        self.now.is_empty() && self.all_of.is_empty()
    }
}

/// What a webhook sees that refuses when it fails.
fn closed_and_sees(
    failure_policy: Option<&str>,
    namespaces: Option<&LabelSelector>,
    rules: &[Rule<'_>],
) -> Option<Seen> {
    let seen = Seen { now: sees(rules, leaves_out_kube_system(namespaces)), all_of: all_of(rules) };
    (failure_policy != Some("Ignore") && !seen.is_empty()).then_some(seen)
}

/// The groups of which the rules match objects of every kind when they are written, but for the core group, to which no minor adds any.
fn all_of(rules: &[Rule<'_>]) -> Vec<String> {
    let has = |list: &[String], wanted: &[&str]| list.iter().any(|entry| wanted.contains(&entry.as_str()));
    let wide = rules
        .iter()
        .filter(|rule| has(rule.resources, &["*", "*/*"]) && has(rule.operations, &["*", "CREATE", "UPDATE"]));
    let groups: BTreeSet<&String> = wide.flat_map(|rule| rule.groups).filter(|group| !group.is_empty()).collect();
    if groups.iter().any(|group| *group == "*") {
        return vec!["*".to_owned()];
    }
    groups.into_iter().take(GROUPS_MAX).cloned().collect()
}

/// Where pods of a Service are ready.
enum Looked {
    Nodes(BTreeSet<String>),
    /// It has no pods of its own to tell of (no selector, a name outside), or the answer did not come, which is noted.
    Unknown,
    /// EndpointSlices may not be read, which is noted.
    MayNot,
}

async fn nodes_of(client: &kube::Client, (namespace, name): &Service, unread: &mut Vec<String>) -> Looked {
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
    let params = ListParams::default().labels(&format!("{SERVICE}={name}"));
    match api.list(&params).await {
        // One with a selector has a slice even where no pod is there.
        Ok(slices) if slices.items.is_empty() => Looked::Unknown,
        Ok(slices) => Looked::Nodes(ready_on(&slices.items)),
        Err(error) => match denied("endpointslices of webhooks", &error, unread) {
            Ok(()) => Looked::MayNot,
            other => {
                told(other, unread);
                Looked::Unknown
            }
        },
    }
}

/// Source: kubernetes.io, "EndpointSlices" (v1.34): an endpoint without a condition `ready` counts as ready.
fn ready_on(slices: &[EndpointSlice]) -> BTreeSet<String> {
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    let ready = endpoints.filter(|endpoint| endpoint.conditions.as_ref().and_then(|of| of.ready).unwrap_or(true));
    ready.map(|endpoint| endpoint.node_name.clone().unwrap_or_else(|| "an unknown node".to_owned())).collect()
}

/// Policies that are bound with the action Deny and see what an update asks for, as far as they and their bindings reach. What they
/// leave out by `excludeResourceRules`, labels and conditions is not looked at.
///
/// Source: kubernetes.io, "Validating Admission Policy" (v1.34).
fn denying(
    policies: &[ValidatingAdmissionPolicy],
    bindings: &[ValidatingAdmissionPolicyBinding],
) -> Vec<AdmissionPolicy> {
    let policies = policies.iter().filter_map(|policy| {
        let matches = policy.spec.as_ref()?.match_constraints.clone()?;
        Some(Policy { kind: "ValidatingAdmissionPolicy", name: policy.name_any(), matches })
    });
    let deny = bindings
        .iter()
        .filter_map(|binding| binding.spec.as_ref())
        .filter(|spec| spec.validation_actions.iter().flatten().any(|action| action == "Deny"));
    let bindings: Vec<Binding> = deny
        .map(|spec| Binding { of: spec.policy_name.clone().unwrap_or_default(), matches: spec.match_resources.clone() })
        .collect();
    bound(policies, &bindings)
}

/// Policies that are bound, refuse what they fail on, and see what an update asks for. One that ignores its failures only changes
/// what it sees.
///
/// Source: kubernetes.io, "Mutating Admission Policy" (v1.34).
fn failing(policies: &[DynamicObject], bindings: &[DynamicObject]) -> Vec<AdmissionPolicy> {
    let policies =
        policies.iter().filter(|policy| policy.data["spec"]["failurePolicy"] != "Ignore").filter_map(|policy| {
            let matches = part(policy, "matchConstraints")?;
            Some(Policy { kind: "MutatingAdmissionPolicy", name: policy.name_any(), matches })
        });
    let binding = |binding: &DynamicObject| {
        let of = binding.data["spec"]["policyName"].as_str().unwrap_or_default().to_owned();
        Binding { of, matches: part(binding, "matchResources") }
    };
    bound(policies, &bindings.iter().map(binding).collect::<Vec<_>>())
}

/// A part of the object's spec; nothing where it is not there.
fn part<T: DeserializeOwned>(object: &DynamicObject, name: &str) -> Option<T> {
    serde_json::from_value(object.data["spec"].get(name)?.clone()).ok()
}

/// A policy, and what it matches.
struct Policy {
    kind: &'static str,
    name: String,
    matches: MatchResources,
}

/// What puts a policy of that name into effect, and for what of it; for all if it does not say.
struct Binding {
    of: String,
    matches: Option<MatchResources>,
}

/// What of an update's requests each policy sees, as far as it and its bindings reach.
fn bound(policies: impl Iterator<Item = Policy>, bindings: &[Binding]) -> Vec<AdmissionPolicy> {
    let told = policies.filter_map(|Policy { kind, name, matches }| {
        let matched = seen_within(&matches);
        let bound: BTreeSet<String> = bindings
            .iter()
            .filter(|binding| binding.of == name)
            .flat_map(|binding| match &binding.matches {
                None => matched.clone(),
                Some(resources) if resources.resource_rules.as_ref().is_none_or(Vec::is_empty) => {
                    let pods = |seen: &String| {
                        seen != "pods" || !leaves_out_kube_system(resources.namespace_selector.as_ref())
                    };
                    matched.iter().filter(|seen| pods(seen)).cloned().collect()
                }
                Some(resources) => {
                    let within = seen_within(resources);
                    matched.iter().filter(|seen| within.contains(seen)).cloned().collect()
                }
            })
            .collect();
        let all_of = all_within(&matches);
        let all_of: BTreeSet<String> = bindings
            .iter()
            .filter(|binding| binding.of == name)
            .flat_map(|binding| {
                match binding.matches.as_ref().filter(|of| of.resource_rules.iter().flatten().count() > 0) {
                    None => all_of.clone(),
                    Some(resources) => both(&all_of, &all_within(resources)),
                }
            })
            .collect();
        let (sees, all_of) = (bound.into_iter().collect::<Vec<_>>(), all_of.into_iter().collect::<Vec<_>>());
        let tells = !sees.is_empty() || !all_of.is_empty();
        tells.then(|| AdmissionPolicy { name: format!("{kind} {name}"), sees, all_of })
    });
    told.take(KEPT_MAX).collect()
}

fn all_within(resources: &MatchResources) -> Vec<String> {
    all_of(&resources.resource_rules.iter().flatten().map(Rule::of_policy).collect::<Vec<_>>())
}

/// The groups that are in both.
fn both(one: &[String], other: &[String]) -> Vec<String> {
    let every = |groups: &[String]| groups.iter().any(|group| group == "*");
    match (every(one), every(other)) {
        (true, _) => other.to_vec(),
        (false, true) => one.to_vec(),
        (false, false) => one.iter().filter(|group| other.contains(group)).cloned().collect(),
    }
}

fn seen_within(resources: &MatchResources) -> Vec<String> {
    let rules: Vec<Rule<'_>> = resources.resource_rules.iter().flatten().map(Rule::of_policy).collect();
    sees(&rules, leaves_out_kube_system(resources.namespace_selector.as_ref()))
}

/// What of an update's requests the rules match: registering Nodes, the kubelet's mirrors of static pods, evictions.
fn sees(rules: &[Rule<'_>], without_kube_system: bool) -> Vec<String> {
    let has = |list: &[String], wanted: &[&str]| list.iter().any(|entry| wanted.contains(&entry.as_str()));
    let matches = |resource: &[&str]| {
        rules.iter().any(|rule| {
            has(rule.groups, &["", "*"])
                && has(rule.resources, resource)
                && has(rule.operations, &["*", "CREATE", "UPDATE", "DELETE"])
        })
    };
    let mut seen = Vec::new();
    if matches(&["nodes", "*", "*/*"]) {
        seen.push("nodes".to_owned());
    }
    if matches(&["pods", "*", "*/*"]) && !without_kube_system {
        seen.push("pods".to_owned());
    }
    if matches(&["pods/eviction", "pods/*", "*/eviction", "*/*"]) {
        seen.push("pods/eviction".to_owned());
    }
    seen
}

/// Whether the namespace selector of a hook leaves kube-system out by its name.
fn leaves_out_kube_system(selector: Option<&LabelSelector>) -> bool {
    selector.and_then(|selector| selector.match_expressions.as_ref()).into_iter().flatten().any(|expression| {
        let values: BTreeSet<&str> = expression.values.iter().flatten().map(String::as_str).collect();
        expression.key == "kubernetes.io/metadata.name"
            && match expression.operator.as_str() {
                "NotIn" => values.contains("kube-system"),
                "In" => !values.contains("kube-system"),
                _ => false,
            }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object<T: DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn selector(operator: &str) -> LabelSelector {
        object(json!({"matchExpressions": [
            {"key": "kubernetes.io/metadata.name", "operator": operator, "values": ["kube-system"]}]}))
    }

    #[test]
    fn a_hook_is_told_for_what_of_an_update_it_sees() {
        let rule = |group: &str, resource: &str, operation: &str| -> RuleWithOperations {
            object(json!({"apiGroups": [group], "operations": [operation], "resources": [resource]}))
        };
        let all = rule("*", "*/*", "*");
        assert_eq!(sees(&[Rule::of_hook(&all)], false), ["nodes", "pods", "pods/eviction"]);
        assert_eq!(sees(&[Rule::of_hook(&all)], true), ["nodes", "pods/eviction"]);
        assert_eq!(sees(&[Rule::of_hook(&rule("apps", "deployments", "CREATE"))], false), Vec::<String>::new());
        assert_eq!(sees(&[Rule::of_hook(&rule("", "pods", "CONNECT"))], false), Vec::<String>::new());
        assert!(leaves_out_kube_system(Some(&selector("NotIn"))) && !leaves_out_kube_system(Some(&selector("In"))));
        let nodes = rule("", "nodes", "UPDATE");
        let rules = [Rule::of_hook(&nodes)];
        assert_eq!(closed_and_sees(Some("Ignore"), None, &rules), None);
        assert_eq!(closed_and_sees(None, None, &rules).unwrap().now, ["nodes"], "Fail is the default");
    }

    #[test]
    fn a_hook_that_sees_every_kind_of_a_group_is_told_for_those_that_come() {
        let rule = |groups: Value, resource: &str, operation: &str| -> RuleWithOperations {
            object(json!({"apiGroups": groups, "operations": [operation], "resources": [resource]}))
        };
        let of = |groups: Value, resource: &str, operation: &str| {
            let rule = rule(groups, resource, operation);
            closed_and_sees(None, None, &[Rule::of_hook(&rule)]).map(|seen| seen.all_of)
        };
        assert_eq!(of(json!(["*"]), "*/*", "*").unwrap(), ["*"]);
        assert_eq!(of(json!(["storage.k8s.io", "apps", ""]), "*", "CREATE").unwrap(), ["apps", "storage.k8s.io"]);
        assert_eq!(of(json!(["apps"]), "deployments", "CREATE"), None, "no other kind ever");
        assert_eq!(of(json!(["apps"]), "*", "DELETE"), None, "nothing that is written");
        let groups = |groups: &[&str]| groups.iter().map(|&group| group.to_owned()).collect::<Vec<String>>();
        assert_eq!(both(&groups(&["*"]), &groups(&["apps"])), ["apps"]);
        assert_eq!(both(&groups(&["apps", "batch"]), &groups(&["*"])), ["apps", "batch"]);
        assert_eq!(both(&groups(&["apps", "batch"]), &groups(&["batch"])), ["batch"]);
    }

    #[test]
    fn a_hook_is_told_with_the_nodes_that_its_ready_pods_run_on() {
        let slice = |endpoints: Value| -> EndpointSlice {
            object(json!({"addressType": "IPv4", "metadata": {"name": "hook-1"}, "endpoints": endpoints}))
        };
        let slices = [
            slice(json!([
                {"addresses": ["10.0.0.1"], "nodeName": "w-1", "conditions": {"ready": true}},
                {"addresses": ["10.0.0.2"], "nodeName": "w-2", "conditions": {"ready": false}},
            ])),
            slice(json!([{"addresses": ["10.0.0.3"], "nodeName": "w-1"}])),
        ];
        assert_eq!(ready_on(&slices), BTreeSet::from(["w-1".to_owned()]));
        assert_eq!(ready_on(&[]), BTreeSet::new());
    }

    #[test]
    fn a_policy_is_told_where_it_denies_and_sees_what_an_update_asks_for() {
        let policy = |name: &str, resource: &str| -> ValidatingAdmissionPolicy {
            object(json!({"metadata": {"name": name}, "spec": {"matchConstraints": {"resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": [resource]}]}}}))
        };
        let binding = |of: &str, actions: Value| -> ValidatingAdmissionPolicyBinding {
            object(json!({"metadata": {"name": of}, "spec": {"policyName": of, "validationActions": actions}}))
        };
        let policies = ["evictions", "audited", "unbound"].map(|name| policy(name, "pods/eviction"));
        let policies = [&policies[..], &[policy("others", "configmaps")]].concat();
        let bindings = [
            binding("evictions", json!(["Audit", "Deny"])),
            binding("audited", json!(["Audit"])),
            binding("others", json!(["Deny"])),
        ];
        let mut elsewhere = binding("evictions", json!(["Deny"]));
        elsewhere.spec.as_mut().unwrap().match_resources = Some(object(json!({"resourceRules": [
            {"apiGroups": [""], "operations": ["CREATE"], "resources": ["configmaps"]}]})));
        assert_eq!(denying(&policies, &[elsewhere]), [], "its binding reaches other requests only");
        let told = denying(&policies, &bindings);
        assert_eq!(told.len(), 1);
        assert_eq!(
            (told[0].name.as_str(), told[0].sees.join(",")),
            ("ValidatingAdmissionPolicy evictions", "pods/eviction".into())
        );
    }

    #[test]
    fn a_policy_that_changes_requests_is_told_where_it_is_bound_and_refuses_what_it_fails_on() {
        let policy = |name: &str, failure: Value, resource: &str| -> DynamicObject {
            object(
                json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy", "metadata": {"name": name},
                "spec": {"failurePolicy": failure, "matchConstraints": {"resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": [resource]}]}}}),
            )
        };
        let binding = |of: &str, matches: Value| -> DynamicObject {
            object(
                json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": of},
                "spec": {"policyName": of, "matchResources": matches}}),
            )
        };
        let policies = [
            policy("sidecars", json!("Fail"), "pods"),
            policy("by-default", Value::Null, "nodes"),
            policy("lenient", json!("Ignore"), "pods"),
            policy("unbound", json!("Fail"), "pods"),
            policy("elsewhere", json!("Fail"), "configmaps"),
        ];
        let without_kube_system = json!({"namespaceSelector": {"matchExpressions": [
            {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"]}]}});
        let bindings = ["sidecars", "by-default", "lenient", "elsewhere"].map(|name| binding(name, Value::Null));
        let told = |bindings: &[DynamicObject]| -> Vec<String> {
            failing(&policies, bindings)
                .iter()
                .map(|policy| format!("{}: {}", policy.name, policy.sees.join(", ")))
                .collect()
        };
        let wanted = ["MutatingAdmissionPolicy sidecars: pods", "MutatingAdmissionPolicy by-default: nodes"];
        assert_eq!(told(&bindings), wanted);
        assert_eq!(told(&[binding("sidecars", without_kube_system)]), [""; 0], "no static pod is among what it sees");
    }

    #[test]
    fn policies_that_change_requests_are_asked_for_in_the_version_that_the_api_server_has() {
        let of = |text: &str| mutating_version(text.parse().unwrap());
        assert_eq!(
            ["1.33.4", "1.34.4", "1.35.0", "1.36.0", "1.37.2"].map(of),
            [None, Some("v1beta1"), Some("v1beta1"), Some("v1"), Some("v1")]
        );
    }
}
