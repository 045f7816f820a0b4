//! Schemas of built-in kinds: k8s-openapi's, with the list types that it does not carry.

use super::schema::Schema;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};
use std::sync::{Arc, LazyLock};

/// Lists of built-in kinds that are not atomic: definition (without `io.k8s.`), field, keys; no keys make it a set.
///
/// Source: `x-kubernetes-list-type`, `x-kubernetes-list-map-keys` in the OpenAPI of Kubernetes 1.33.
const LISTS: [(&str, &str, &[&str]); 46] = [
    ("api.admissionregistration.v1.ValidatingAdmissionPolicyBindingSpec", "validationActions", &[]),
    ("api.admissionregistration.v1.ValidatingAdmissionPolicySpec", "matchConditions", &["name"]),
    ("api.admissionregistration.v1.ValidatingAdmissionPolicySpec", "variables", &["name"]),
    ("api.admissionregistration.v1.ValidatingAdmissionPolicyStatus", "conditions", &["type"]),
    ("api.apps.v1.DaemonSetStatus", "conditions", &["type"]),
    ("api.apps.v1.DeploymentStatus", "conditions", &["type"]),
    ("api.apps.v1.ReplicaSetStatus", "conditions", &["type"]),
    ("api.apps.v1.StatefulSetStatus", "conditions", &["type"]),
    ("api.batch.v1.JobStatus", "conditions", &["type"]),
    ("api.batch.v1.UncountedTerminatedPods", "failed", &[]),
    ("api.batch.v1.UncountedTerminatedPods", "succeeded", &[]),
    ("api.core.v1.Container", "env", &["name"]),
    ("api.core.v1.Container", "ports", &["containerPort", "protocol"]),
    ("api.core.v1.Container", "volumeDevices", &["devicePath"]),
    ("api.core.v1.Container", "volumeMounts", &["mountPath"]),
    ("api.core.v1.ContainerStatus", "allocatedResourcesStatus", &["name"]),
    ("api.core.v1.ContainerStatus", "volumeMounts", &["mountPath"]),
    ("api.core.v1.EphemeralContainer", "env", &["name"]),
    ("api.core.v1.EphemeralContainer", "volumeMounts", &["mountPath"]),
    ("api.core.v1.NamespaceStatus", "conditions", &["type"]),
    ("api.core.v1.NodeSpec", "podCIDRs", &[]),
    ("api.core.v1.NodeStatus", "addresses", &["type"]),
    ("api.core.v1.NodeStatus", "conditions", &["type"]),
    ("api.core.v1.PodSpec", "containers", &["name"]),
    ("api.core.v1.PodSpec", "ephemeralContainers", &["name"]),
    ("api.core.v1.PodSpec", "hostAliases", &["ip"]),
    ("api.core.v1.PodSpec", "imagePullSecrets", &["name"]),
    ("api.core.v1.PodSpec", "initContainers", &["name"]),
    ("api.core.v1.PodSpec", "resourceClaims", &["name"]),
    ("api.core.v1.PodSpec", "schedulingGates", &["name"]),
    ("api.core.v1.PodSpec", "topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"]),
    ("api.core.v1.PodSpec", "volumes", &["name"]),
    ("api.core.v1.PodStatus", "conditions", &["type"]),
    ("api.core.v1.PodStatus", "hostIPs", &["ip"]),
    ("api.core.v1.PodStatus", "podIPs", &["ip"]),
    ("api.core.v1.PodStatus", "resourceClaimStatuses", &["name"]),
    ("api.core.v1.ServiceAccount", "secrets", &["name"]),
    ("api.core.v1.ServiceSpec", "ports", &["port", "protocol"]),
    ("api.core.v1.ServiceStatus", "conditions", &["type"]),
    ("api.policy.v1.PodDisruptionBudgetStatus", "conditions", &["type"]),
    ("apimachinery.pkg.apis.meta.v1.ObjectMeta", "finalizers", &[]),
    ("apimachinery.pkg.apis.meta.v1.ObjectMeta", "ownerReferences", &["uid"]),
    ("apiextensions_apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionStatus", "conditions", &["type"]),
    ("api.core.v1.LimitRangeSpec", "limits", &[]),
    ("api.core.v1.ReplicationControllerStatus", "conditions", &["type"]),
    ("api.core.v1.PersistentVolumeClaimStatus", "conditions", &["type"]),
];

/// Maps of built-in kinds that are one value, by definition.
const ATOMIC_MAPS: [&str; 6] = [
    "apimachinery.pkg.apis.meta.v1.LabelSelector",
    "api.core.v1.LocalObjectReference",
    "api.core.v1.NodeSelector",
    "api.core.v1.NodeSelectorTerm",
    "api.core.v1.ObjectReference",
    "api.core.v1.SecretKeySelector",
];

/// The definitions that a built-in kind needs, by name, with list types; the kind itself is under its own name.
pub(super) fn definitions<T: JsonSchema>() -> (String, Map<String, Value>) {
    let settings = SchemaSettings::openapi3().with(|settings| settings.meta_schema = None);
    let mut generator = SchemaGenerator::new(settings);
    let _reference = generator.subschema_for::<T>();
    let name = T::schema_name().into_owned();
    let mut definitions = generator.take_definitions(true);
    for (definition, field, keys) in LISTS {
        let found = definitions
            .get_mut(&format!("io.k8s.{definition}"))
            .and_then(|definition| definition.get_mut("properties")?.get_mut(field));
        if let Some(list) = found {
            if keys.is_empty() {
                list["x-kubernetes-list-type"] = Value::from("set");
            } else {
                list["x-kubernetes-list-type"] = Value::from("map");
                list["x-kubernetes-list-map-keys"] = json!(keys);
            }
        }
    }
    for definition in ATOMIC_MAPS {
        if let Some(map) = definitions.get_mut(&format!("io.k8s.{definition}")) {
            map["x-kubernetes-map-type"] = Value::from("atomic");
        }
    }
    (name, definitions)
}

/// The compiled schema of `metadata`.
pub(super) fn metadata() -> Arc<Schema> {
    static METADATA: LazyLock<Arc<Schema>> = LazyLock::new(|| {
        let (name, definitions) = definitions::<ObjectMeta>();
        compiled(&name, &definitions)
    });
    Arc::clone(&METADATA)
}

/// The compiled schema of a definition, references resolved; definitions that contain themselves end in "anything goes".
pub(super) fn compiled(name: &str, definitions: &Map<String, Value>) -> Arc<Schema> {
    let mut open = vec![name.to_owned()];
    let resolved = definitions.get(name).map(|definition| resolve(definition, definitions, &mut open));
    Schema::compile(&resolved.unwrap_or(Value::Null))
}

fn resolve(schema: &Value, definitions: &Map<String, Value>, open: &mut Vec<String>) -> Value {
    match schema {
        Value::Object(fields) => {
            // A reference stands alone, or in an allOf beside a description.
            let reference = fields.get("$ref").or_else(|| fields.get("allOf")?.get(0)?.get("$ref"));
            if let Some(name) = reference.and_then(Value::as_str).and_then(|path| path.rsplit('/').next()) {
                if open.iter().any(|known| known == name) {
                    return json!({"x-kubernetes-preserve-unknown-fields": true});
                }
                open.push(name.to_owned());
                let mut resolved =
                    definitions.get(name).map_or(Value::Null, |definition| resolve(definition, definitions, open));
                open.pop();
                for (key, value) in fields {
                    if key.starts_with("x-kubernetes") {
                        resolved[key] = value.clone();
                    }
                }
                return resolved;
            }
            let kept = fields
                .iter()
                .filter(|(key, value)| key.as_str() != "description" || !value.is_string())
                .map(|(key, value)| (key.clone(), resolve(value, definitions, open)));
            Value::Object(kept.collect())
        }
        Value::Array(items) => items.iter().map(|item| resolve(item, definitions, open)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => schema.clone(),
    }
}
