//! Gathers who may refuse what an update asks for: webhooks that refuse when they fail, with the nodes that their pods run on, and
//! policies that deny.
//!
//! RBAC: list on validatingwebhookconfigurations, mutatingwebhookconfigurations, validatingadmissionpolicies,
//! validatingadmissionpolicybindings and endpointslices.

use super::surroundings::{KEPT_MAX, all, denied, told};
use cupcake_crds::values::{AdmissionHook, AdmissionPolicy, Surroundings};
use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, MutatingWebhookConfiguration, NamedRuleWithOperations, RuleWithOperations,
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use std::collections::{BTreeMap, BTreeSet};

/// The label by which an EndpointSlice names its Service. Source: kubernetes.io, "EndpointSlices" (v1.34).
const SERVICE: &str = "kubernetes.io/service-name";
/// Services of webhooks whose pods are looked for: one request each.
const SERVICES_MAX: usize = 100;

/// Puts both into `found`; what cannot be read is named there.
pub(super) async fn admission(client: &kube::Client, found: &mut Surroundings) {
    let mut hooks = Vec::new();
    let validating: Vec<ValidatingWebhookConfiguration> =
        told(all(client, "validatingwebhookconfigurations", &mut found.unread).await, &mut found.unread);
    for configuration in validating {
        let of = format!("ValidatingWebhookConfiguration {}", configuration.name_any());
        hooks.extend(configuration.webhooks.into_iter().flatten().filter_map(|hook| {
            let rules: Vec<Rule<'_>> = hook.rules.iter().flatten().map(Rule::of_hook).collect();
            let sees = closed_and_sees(hook.failure_policy.as_deref(), hook.namespace_selector.as_ref(), &rules)?;
            Some((format!("{of} webhook {}", hook.name), sees, service_of(&hook.client_config)))
        }));
    }
    let mutating: Vec<MutatingWebhookConfiguration> =
        told(all(client, "mutatingwebhookconfigurations", &mut found.unread).await, &mut found.unread);
    for configuration in mutating {
        let of = format!("MutatingWebhookConfiguration {}", configuration.name_any());
        hooks.extend(configuration.webhooks.into_iter().flatten().filter_map(|hook| {
            let rules: Vec<Rule<'_>> = hook.rules.iter().flatten().map(Rule::of_hook).collect();
            let sees = closed_and_sees(hook.failure_policy.as_deref(), hook.namespace_selector.as_ref(), &rules)?;
            Some((format!("{of} webhook {}", hook.name), sees, service_of(&hook.client_config)))
        }));
    }
    hooks.truncate(KEPT_MAX);
    let services: BTreeSet<Service> = hooks.iter().filter_map(|(_, _, service)| service.clone()).collect();
    let mut served = BTreeMap::new();
    for service in services.into_iter().take(SERVICES_MAX) {
        match nodes_of(client, &service, &mut found.unread).await {
            Looked::Nodes(nodes) => drop(served.insert(service, nodes)),
            Looked::Unknown => {}
            Looked::MayNot => break,
        }
    }
    found.admission_hooks.extend(hooks.into_iter().map(|(name, sees, service)| {
        let nodes = service.and_then(|service| served.get(&service).cloned());
        AdmissionHook { name, sees, nodes }
    }));

    let policies: Vec<ValidatingAdmissionPolicy> =
        told(all(client, "validatingadmissionpolicies", &mut found.unread).await, &mut found.unread);
    let bindings: Vec<ValidatingAdmissionPolicyBinding> =
        told(all(client, "validatingadmissionpolicybindings", &mut found.unread).await, &mut found.unread);
    found.admission_policies = denying(&policies, &bindings);
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

/// What of an update's requests a webhook sees that refuses them when it fails.
fn closed_and_sees(
    failure_policy: Option<&str>,
    namespaces: Option<&LabelSelector>,
    rules: &[Rule<'_>],
) -> Option<Vec<String>> {
    let sees = sees(rules, leaves_out_kube_system(namespaces));
    (failure_policy != Some("Ignore") && !sees.is_empty()).then_some(sees)
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
    let told = policies.iter().filter_map(|policy| {
        let matched = seen_within(policy.spec.as_ref()?.match_constraints.as_ref()?);
        let name = policy.name_any();
        let bound: BTreeSet<String> = bindings
            .iter()
            .filter_map(|binding| binding.spec.as_ref())
            .filter(|spec| spec.policy_name.as_deref() == Some(name.as_str()))
            .filter(|spec| spec.validation_actions.iter().flatten().any(|action| action == "Deny"))
            .flat_map(|spec| match &spec.match_resources {
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
        let policy =
            AdmissionPolicy { name: format!("ValidatingAdmissionPolicy {name}"), sees: bound.into_iter().collect() };
        (!policy.sees.is_empty()).then_some(policy)
    });
    told.take(KEPT_MAX).collect()
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
    use serde::de::DeserializeOwned;
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
        assert_eq!(closed_and_sees(None, None, &rules).unwrap(), ["nodes"], "Fail is the default");
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
}
