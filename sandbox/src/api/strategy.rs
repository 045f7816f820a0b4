//! What the real server's strategies do to objects before they are stored: defaults, generation, status kept apart, rules.
//!
//! Source: `k8s.io/kubernetes/pkg/registry/*/strategy.go`, `apiextensions-apiserver/pkg/registry/customresource/strategy.go`.

use super::builtin::BuiltinKind;
use super::object::{as_map, child, copy_field, copy_meta, finalizers, meta, meta_text, set_meta};
use super::resource::{Nature, Resource};
use super::router::Call;
use super::schema::Schema;
use super::status::{Failure, FieldError, FieldErrorKind};
use super::{cel, crd, events, validate};
use serde_json::{Map, Value, json};

/// Makes a new object what it must be at birth.
pub(super) fn prepare_create(resource: &Resource, has_status: bool, object: &mut Value) {
    let drops_status = match resource.nature {
        Nature::Custom => has_status,
        Nature::Builtin(kind) => kind.drops_status_on_create(),
    };
    if drops_status {
        as_map(object).remove("status");
    }
    if resource.counts_generations() {
        set_meta(object, "generation", Value::from(1));
    }
    let Nature::Builtin(kind) = resource.nature else {
        return;
    };
    match kind {
        BuiltinKind::Pod => {
            object["status"] = json!({"phase": "Pending", "qosClass": quality_of_service(&object["spec"])});
        }
        BuiltinKind::Namespace => {
            object["status"] = json!({"phase": "Active"});
            child(as_map(object), "spec").insert("finalizers".to_owned(), json!(["kubernetes"]));
            let name = Value::from(meta_text(object, "name"));
            child(super::object::metadata(object), "labels").insert("kubernetes.io/metadata.name".to_owned(), name);
        }
        BuiltinKind::PodDisruptionBudget => {
            object["status"] =
                json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0});
        }
        BuiltinKind::Service => object["status"] = json!({"loadBalancer": {}}),
        BuiltinKind::Workload => object["status"] = Value::Object(Map::new()),
        BuiltinKind::CustomResourceDefinition => {
            object["status"] = json!({"storedVersions": crd::storage_versions(object)});
        }
        BuiltinKind::Node | BuiltinKind::Event | BuiltinKind::Lease | BuiltinKind::Plain => {}
    }
}

/// The class of a pod by the CPU and memory that its containers ask for.
///
/// Source: `k8s.io/kubernetes/pkg/apis/core/v1/helper/qos/qos.go`.
fn quality_of_service(spec: &Value) -> &'static str {
    let containers = spec["containers"].as_array().into_iter().chain(spec["initContainers"].as_array()).flatten();
    let (mut asks, mut guaranteed) = (false, true);
    for container in containers {
        let resources = &container["resources"];
        for name in ["cpu", "memory"] {
            let (request, limit) = (&resources["requests"][name], &resources["limits"][name]);
            asks |= !request.is_null() || !limit.is_null();
            guaranteed &= !limit.is_null() && request == limit;
        }
    }
    match (asks, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Keeps the halves of an object apart, and counts its generations.
pub(super) fn prepare_update(
    resource: &Resource,
    has_status: bool,
    subresource: &str,
    old: &Value,
    object: &mut Value,
) {
    if subresource == "status" {
        let status = as_map(object).remove("status");
        let managed = meta(object, "managedFields").cloned();
        let mut kept = without_status(old);
        if let Nature::Builtin(_) = resource.nature {
            // Built-in kinds let labels and annotations through their status.
            for field in ["labels", "annotations", "finalizers", "generateName", "ownerReferences"] {
                // The owners of a pod are not for its kubelet to change.
                if field != "ownerReferences" || resource.nature != Nature::Builtin(BuiltinKind::Pod) {
                    copy_meta(object, &mut kept, field);
                }
            }
        }
        let class = &old["status"]["qosClass"];
        let pod = resource.nature == Nature::Builtin(BuiltinKind::Pod);
        match status {
            Some(mut status) if pod && status["qosClass"].is_null() && !class.is_null() => {
                status["qosClass"] = class.clone();
                kept["status"] = status;
            }
            Some(status) => kept["status"] = status,
            None if pod && !class.is_null() => kept["status"] = json!({"qosClass": class}),
            None => {}
        }
        if let Some(managed) = managed {
            set_meta(&mut kept, "managedFields", managed);
        }
        *object = kept;
        return;
    }
    if has_status {
        copy_field(old, object, "status");
    }
    if !resource.counts_generations() {
        return;
    }
    let generation = meta(old, "generation").and_then(Value::as_i64).unwrap_or(1);
    if specification_differs(resource, has_status, old, object) {
        set_meta(object, "generation", Value::from(generation + 1));
    }
}

/// The object but for its status, which is about to be replaced.
fn without_status(object: &Value) -> Value {
    let fields = object.as_object().into_iter().flatten();
    let others = fields.filter(|(name, _)| *name != "status").map(|(name, field)| (name.clone(), field.clone()));
    Value::Object(others.collect())
}

fn specification_differs(resource: &Resource, has_status: bool, old: &Value, new: &Value) -> bool {
    match resource.nature {
        Nature::Builtin(_) => old.get("spec") != new.get("spec"),
        Nature::Custom => {
            let counts = |(name, _): &(&String, &Value)| {
                let apart = matches!(name.as_str(), "metadata" | "apiVersion" | "kind");
                !apart && (!has_status || *name != "status")
            };
            let (old, new) = (old.as_object().into_iter().flatten(), new.as_object().into_iter().flatten());
            !old.filter(counts).eq(new.filter(counts))
        }
    }
}

/// The rules for a new object; `group` is the one that the client spoke to.
pub(super) fn validate_create(
    resource: &Resource,
    schema: &Schema,
    object: &Value,
    name: &str,
    group: &str,
) -> Result<(), Failure> {
    let mut errors = Vec::new();
    if group.is_empty() && resource.nature == Nature::Builtin(BuiltinKind::Event) {
        // Of these the metadata is looked at only when all else is well.
        events::check(object, group, &mut errors);
        refuse(resource, name, &errors)?;
    }
    check_name(resource, group, name, &mut errors);
    check_metadata(resource, group, object, &mut errors);
    if resource.nature == Nature::Builtin(BuiltinKind::Event) && !group.is_empty() {
        events::check(object, group, &mut errors);
    }
    check_body(resource, schema, object, None, "", &mut errors);
    refuse(resource, name, &errors)
}

/// The rules for a change; `uid` is the one that the request gives, or empty.
pub(super) fn validate_update(
    call: &Call<'_>,
    schema: &Schema,
    object: &Value,
    old: &Value,
    uid: &str,
) -> Result<(), Failure> {
    let (resource, name) = (call.resource.as_ref(), call.target.name.as_str());
    let mut errors = Vec::new();
    // The status of a custom resource leaves the metadata alone, whatever it says there.
    let status = call.target.subresource == "status" && resource.nature == Nature::Custom;
    if !uid.is_empty() && uid != meta_text(old, "uid") && !status {
        let uid = Some(Value::from(uid));
        errors.push(FieldError::new(FieldErrorKind::Invalid, "metadata.uid", uid, "field is immutable"));
    }
    check_metadata(resource, call.group(), object, &mut errors);
    if resource.nature == Nature::Builtin(BuiltinKind::Event) {
        events::check_always(object, call.group(), &mut errors);
        events::check_update(object, old, call.group(), &mut errors);
    }
    if meta(old, "deletionTimestamp").is_some() {
        let new: Vec<&str> = finalizers(object).filter(|name| !finalizers(old).any(|old| old == *name)).collect();
        if !new.is_empty() {
            let list: Vec<String> = new.iter().map(|name| format!("\"{name}\"")).collect();
            errors.push(FieldError::new(
                FieldErrorKind::Forbidden,
                "metadata.finalizers",
                None,
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    list.join(", ")
                ),
            ));
        }
    }
    check_body(resource, schema, object, Some(old), &call.target.subresource, &mut errors);
    if resource.nature == Nature::Builtin(BuiltinKind::Pod) {
        check_pod_update(object, old, &mut errors);
    }
    let provider = &old["spec"]["providerID"];
    if resource.nature == Nature::Builtin(BuiltinKind::Node)
        && !provider.as_str().unwrap_or_default().is_empty()
        && object["spec"]["providerID"] != *provider
    {
        errors.push(FieldError::new(
            FieldErrorKind::Forbidden,
            "spec.providerID",
            None,
            "node updates may not change providerID except from \"\" to valid",
        ));
    }
    refuse(resource, name, &errors)
}

fn refuse(resource: &Resource, name: &str, errors: &[FieldError]) -> Result<(), Failure> {
    if errors.is_empty() { Ok(()) } else { Err(Failure::invalid(&resource.group, &resource.kind, name, errors)) }
}

fn check_body(
    resource: &Resource,
    schema: &Schema,
    object: &Value,
    old: Option<&Value>,
    part: &str,
    errors: &mut Vec<FieldError>,
) {
    match resource.nature {
        Nature::Custom => {
            let mut found = match (part, schema.field("status"), object.get("status")) {
                // Of a write to the status only the status is looked at, and on its own.
                ("status", Some(below), Some(status)) => {
                    let mut found = validate::validate(below, status, old.and_then(|old| old.get("status")));
                    for error in &mut found {
                        let path = format!("status.{}", error.field);
                        path.trim_end_matches('.').clone_into(&mut error.field);
                    }
                    found
                }
                ("status", _, _) => Vec::new(),
                _whole => validate::validate(schema, object, old),
            };
            let blocked = validate::block_rules(&found) || validate::block_rules(errors);
            errors.append(&mut found);
            if !blocked {
                errors.extend(cel::validate(schema, object, old));
            } else if schema.has_rules {
                errors.push(FieldError::new(
                    FieldErrorKind::Invalid,
                    "",
                    Some(Value::Null),
                    "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
                ));
            }
        }
        Nature::Builtin(BuiltinKind::CustomResourceDefinition) => crd::check(object, errors),
        Nature::Builtin(BuiltinKind::Pod) => check_containers(object, errors),
        Nature::Builtin(BuiltinKind::Lease) => check_lease(object, errors),
        Nature::Builtin(BuiltinKind::PodDisruptionBudget) => check_budget(object, errors),
        Nature::Builtin(
            BuiltinKind::Node
            | BuiltinKind::Namespace
            | BuiltinKind::Event
            | BuiltinKind::Service
            | BuiltinKind::Workload
            | BuiltinKind::Plain,
        ) => {}
    }
}

/// Whether `text` is a DNS-1123 subdomain: what most names must be.
fn is_subdomain(text: &str) -> bool {
    let label = |label: &str| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        edge(label.chars().next())
            && edge(label.chars().last())
            && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    !text.is_empty() && text.len() <= 253 && text.split('.').all(label)
}

fn check_name(resource: &Resource, group: &str, name: &str, errors: &mut Vec<FieldError>) {
    if name.is_empty() {
        errors.push(FieldError::new(
            FieldErrorKind::Required,
            "metadata.name",
            None,
            "name or generateName is required",
        ));
        return;
    }
    // RBAC names are path segments; Events are too, in the core group.
    let lenient = resource.group == "rbac.authorization.k8s.io"
        || resource.nature == Nature::Builtin(BuiltinKind::PodDisruptionBudget)
        || (group.is_empty() && resource.nature == Nature::Builtin(BuiltinKind::Event));
    let good = if lenient { !name.contains(['/', '%']) && name != "." && name != ".." } else { is_subdomain(name) };
    if lenient && !good {
        let detail = match name {
            "." | ".." => format!("may not be '{name}'"),
            _segment => format!("may not contain '{}'", if name.contains('/') { '/' } else { '%' }),
        };
        errors.push(FieldError::new(FieldErrorKind::Invalid, "metadata.name", Some(Value::from(name)), detail));
    } else if !good {
        errors.push(not_a_subdomain(name));
    }
}

fn not_a_subdomain(name: &str) -> FieldError {
    FieldError::new(
        FieldErrorKind::Invalid,
        "metadata.name",
        Some(Value::from(name)),
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
    )
}

/// What the client is warned of: finalizers of a custom resource without a domain, unless they were there before.
pub(super) fn warnings(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<String> {
    if resource.nature != Nature::Custom {
        return Vec::new();
    }
    let known = |name: &str| old.is_some_and(|old| finalizers(old).any(|known| known == name));
    let odd = finalizers(object).filter(|name| {
        !name.contains('/') && !matches!(*name, "orphan" | "foregroundDeletion" | "kubernetes") && !known(name)
    });
    odd.map(|name| {
        format!(
            "metadata.finalizers: \"{name}\": prefer a domain-qualified finalizer name to avoid accidental conflicts with other finalizer writers"
        )
    })
    .collect()
}

fn check_finalizers(resource: &Resource, group: &str, object: &Value, errors: &mut Vec<FieldError>) {
    for (at, name) in finalizers(object).enumerate() {
        let mut invalid = |detail: &str| {
            errors.push(FieldError::new(
                FieldErrorKind::Invalid,
                "metadata.finalizers",
                Some(Value::from(name)),
                detail,
            ));
        };
        let part = name.split_once('/').map_or(name, |(_domain, part)| part);
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        let good = edge(part.chars().next())
            && edge(part.chars().last())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if !good {
            invalid(
                "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            );
        }
        let standard = matches!(name, "orphan" | "foregroundDeletion" | "kubernetes");
        // The old kinds of the core group want more.
        let strict = match resource.nature {
            Nature::Builtin(kind) => {
                matches!(kind, BuiltinKind::Node | BuiltinKind::Pod | BuiltinKind::Namespace | BuiltinKind::Service)
                    || (kind == BuiltinKind::Event && !group.is_empty())
            }
            Nature::Custom => false,
        };
        if strict && !name.contains('/') && !standard {
            errors.push(FieldError::new(
                FieldErrorKind::Invalid,
                format!("metadata.finalizers[{at}]"),
                Some(Value::from(name)),
                "name is neither a standard finalizer name nor is it fully qualified",
            ));
        }
    }
}

fn check_metadata(resource: &Resource, group: &str, object: &Value, errors: &mut Vec<FieldError>) {
    check_finalizers(resource, group, object, errors);
    let labels = meta(object, "labels").and_then(Value::as_object);
    for (key, value) in labels.into_iter().flatten() {
        let text = value.as_str().unwrap_or_default();
        let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
        let good = text.len() <= 63
            && edge(text.chars().next())
            && edge(text.chars().last())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if text.len() > 63 {
            errors.push(FieldError::new(
                FieldErrorKind::Invalid,
                "metadata.labels",
                Some(value.clone()),
                "must be no more than 63 characters",
            ));
        } else if !good || key.is_empty() {
            errors.push(FieldError::new(
                FieldErrorKind::Invalid,
                "metadata.labels",
                Some(value.clone()),
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            ));
        }
    }
    let owners = meta(object, "ownerReferences").and_then(Value::as_array);
    for owner in owners.into_iter().flatten() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner.get(field).and_then(Value::as_str).unwrap_or_default().is_empty() {
                errors.push(FieldError::new(
                    FieldErrorKind::Invalid,
                    format!("metadata.ownerReferences.{field}"),
                    Some(Value::from("")),
                    if field == "apiVersion" { "version must not be empty" } else { "must not be empty" },
                ));
            }
        }
    }
}

fn check_budget(object: &Value, errors: &mut Vec<FieldError>) {
    let spec = &object["spec"];
    if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() {
        errors.push(FieldError::new(
            FieldErrorKind::Invalid,
            "spec",
            Some(spec.clone()),
            "minAvailable and maxUnavailable cannot be both set",
        ));
    }
    for field in ["minAvailable", "maxUnavailable"] {
        let given = &spec[field];
        let number = given.as_str().map(|text| text.strip_suffix('%').unwrap_or(""));
        if number.is_some_and(|number| number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit())) {
            errors.push(FieldError::new(
                FieldErrorKind::Invalid,
                format!("spec.{field}"),
                Some(given.clone()),
                "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
            ));
        }
    }
}

fn check_lease(object: &Value, errors: &mut Vec<FieldError>) {
    let spec = &object["spec"];
    for (field, least, words) in [
        ("leaseDurationSeconds", 1, "must be greater than 0"),
        ("leaseTransitions", 0, "must be greater than or equal to 0"),
    ] {
        let given = &spec[field];
        if given.as_i64().is_some_and(|given| given < least) {
            errors.push(FieldError::new(FieldErrorKind::Invalid, format!("spec.{field}"), Some(given.clone()), words));
        }
    }
}

fn check_containers(object: &Value, errors: &mut Vec<FieldError>) {
    let containers = object["spec"]["containers"].as_array();
    if containers.is_none_or(Vec::is_empty) {
        errors.push(FieldError::new(FieldErrorKind::Required, "spec.containers", None, ""));
    }
    for (at, container) in containers.into_iter().flatten().enumerate() {
        if container["image"].as_str().unwrap_or_default().is_empty() {
            let field = format!("spec.containers[{at}].image");
            errors.push(FieldError::new(FieldErrorKind::Required, field, None, ""));
        }
    }
}

/// Of a pod's spec, only images, tolerations, grace periods and the node (once) may change.
fn check_pod_update(object: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let settled = |pod: &Value| {
        let mut spec = pod.get("spec").cloned().unwrap_or_default();
        let fields = as_map(&mut spec);
        for field in ["activeDeadlineSeconds", "tolerations"] {
            fields.remove(field);
        }
        for list in ["containers", "initContainers"] {
            for container in fields.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                as_map(container).remove("image");
            }
        }
        spec
    };
    let (deadline, before) = (&object["spec"]["activeDeadlineSeconds"], &old["spec"]["activeDeadlineSeconds"]);
    if before.is_number() && deadline.is_null() {
        errors.push(FieldError::new(
            FieldErrorKind::Invalid,
            "spec.activeDeadlineSeconds",
            Some(Value::Null),
            "must not update from a positive integer to nil value",
        ));
    }
    if settled(object) != settled(old) {
        errors.push(FieldError::new(
            FieldErrorKind::Forbidden,
            "spec",
            None,
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        ));
    }
}

/// Defaults of built-in kinds, as far as clients of this sandbox look at them.
pub(super) fn default_builtin(kind: BuiltinKind, name: &str, object: &mut Value) {
    let mut set = |field: &str, value: Value| {
        child(as_map(object), "spec").entry(field).or_insert(value);
    };
    match kind {
        BuiltinKind::Node => {
            // Typed objects always have their specification, and what in their status has no way to be absent.
            let spec = child(as_map(object), "spec");
            if spec.get("unschedulable") == Some(&Value::Bool(false)) {
                spec.remove("unschedulable");
            }
            let status = child(as_map(object), "status");
            if let Some(capacity) = status.get("capacity").cloned() {
                status.entry("allocatable").or_insert(capacity);
            }
            status.entry("daemonEndpoints").or_insert_with(|| json!({"kubeletEndpoint": {"Port": 0}}));
            null_times(status, &["lastHeartbeatTime", "lastTransitionTime"]);
            let info = child(status, "nodeInfo");
            for field in [
                "architecture",
                "bootID",
                "containerRuntimeVersion",
                "kernelVersion",
                "kubeProxyVersion",
                "kubeletVersion",
                "machineID",
                "operatingSystem",
                "osImage",
                "systemUUID",
            ] {
                info.entry(field).or_insert_with(|| Value::from(""));
            }
        }
        BuiltinKind::Event => {
            let event = as_map(object);
            for field in ["involvedObject", "source"] {
                child(event, field);
            }
            for field in ["firstTimestamp", "lastTimestamp", "eventTime"] {
                event.entry(field).or_insert(Value::Null);
            }
            for field in ["reportingComponent", "reportingInstance"] {
                event.entry(field).or_insert_with(|| Value::from(""));
            }
        }
        BuiltinKind::Pod => {
            set("enableServiceLinks", Value::from(true));
            set("restartPolicy", Value::from("Always"));
            set("terminationGracePeriodSeconds", Value::from(30));
            set("dnsPolicy", Value::from("ClusterFirst"));
            set("schedulerName", Value::from("default-scheduler"));
            set("securityContext", Value::Object(Map::new()));
            default_containers(&mut object["spec"]);
            if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
                null_times(status, &["lastProbeTime", "lastTransitionTime"]);
            }
        }
        BuiltinKind::Workload if matches!(name, "Deployment" | "ReplicaSet" | "StatefulSet") => {
            set("replicas", Value::from(1));
        }
        BuiltinKind::Service => {
            set("type", Value::from("ClusterIP"));
            set("sessionAffinity", Value::from("None"));
            for port in object["spec"]["ports"].as_array_mut().into_iter().flatten() {
                as_map(port).entry("protocol").or_insert_with(|| Value::from("TCP"));
            }
        }
        BuiltinKind::CustomResourceDefinition => crd::default(object),
        BuiltinKind::Plain if name == "Secret" => {
            let fields = as_map(object);
            fields.entry("type").or_insert_with(|| Value::from("Opaque"));
            let plain = fields.remove("stringData");
            for (key, text) in plain.as_ref().and_then(Value::as_object).into_iter().flatten() {
                let encoded = base64(text.as_str().unwrap_or_default().as_bytes());
                child(fields, "data").insert(key.clone(), Value::from(encoded));
            }
        }
        BuiltinKind::Lease => {
            child(as_map(object), "spec");
        }
        BuiltinKind::PodDisruptionBudget => {
            child(as_map(object), "spec");
            let status = child(as_map(object), "status");
            if status.get("observedGeneration") == Some(&Value::from(0)) {
                status.remove("observedGeneration");
            }
            for field in ["currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods"] {
                status.entry(field).or_insert_with(|| Value::from(0));
            }
        }
        BuiltinKind::Namespace | BuiltinKind::Workload | BuiltinKind::Plain => {}
    }
}

/// Times of conditions that have no way to be absent.
fn null_times(status: &mut Map<String, Value>, times: &[&str]) {
    let conditions = status.get_mut("conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        for time in times {
            as_map(condition).entry(*time).or_insert(Value::Null);
        }
    }
}

fn default_containers(spec: &mut Value) {
    for container in spec["containers"].as_array_mut().into_iter().flatten() {
        let latest = container["image"].as_str().is_some_and(|image| {
            image.ends_with(":latest") || !image.rsplit('/').next().unwrap_or_default().contains([':', '@'])
        });
        let fields = as_map(container);
        let mut set = |field: &str, value: Value| {
            fields.entry(field).or_insert(value);
        };
        set("imagePullPolicy", Value::from(if latest { "Always" } else { "IfNotPresent" }));
        set("resources", Value::Object(Map::new()));
        set("terminationMessagePath", Value::from("/dev/termination-log"));
        set("terminationMessagePolicy", Value::from("File"));
        for port in fields.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            as_map(port).entry("protocol").or_insert_with(|| Value::from("TCP"));
        }
    }
}

/// Standard base64.
pub(super) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| (word << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let index = usize::try_from((word >> (18 - 6 * place)) & 63).unwrap_or(0);
            text.push(if place <= chunk.len() { char::from(ALPHABET[index]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn string_data_of_secrets_is_encoded() {
        assert_eq!(base64(b"cupcake"), "Y3VwY2FrZQ==");
        assert_eq!(base64(b"abc"), "YWJj");
        assert_eq!(base64(b"ab"), "YWI=");
    }

    #[test]
    fn names_are_subdomains() {
        for (name, good) in
            [("worker-3", true), ("a.b-c.d", true), ("Worker", false), ("a_b", false), ("-a", false), ("", false)]
        {
            assert_eq!(is_subdomain(name), good, "{name}");
        }
    }
}
