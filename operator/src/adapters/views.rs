//! Kubernetes' own objects as steps see them. Pure.

use cupcake_crds::CORDONED_BY_ANNOTATION;
use cupcake_crds::values::{NodeRef, NodeRole};
use cupcake_engine::clock::Timestamp;
use cupcake_steps::ports::cluster::{CordonOwner, NodeView, PodKind, PodView, Readiness, VolumeView};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, Pod, Volume};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use std::collections::BTreeMap;

/// On a Node that a run cordoned: when, as RFC 3339.
pub const CORDONED_AT_ANNOTATION: &str = "cupcake.ricardomolendijk.com/cordoned-at";
/// Label of the operator's own pods, which a drain leaves where they are.
pub const OPERATOR_LABEL: (&str, &str) = ("app.kubernetes.io/name", "cupcake-operator");
/// Annotation of a static pod's mirror. Source: kubernetes.io, "Well-Known Labels, Annotations and Taints" (v1.34).
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// The API's time as the engine's.
pub fn timestamp(time: &Time) -> Option<Timestamp> {
    Timestamp::from_timestamp(time.0.as_second(), u32::try_from(time.0.subsec_nanosecond()).unwrap_or(0))
}

/// An annotation's value.
pub fn annotation<'m>(meta: &'m ObjectMeta, key: &str) -> Option<&'m str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// A Node as steps see it.
pub fn node_view(node: &Node) -> NodeView {
    let labels: BTreeMap<String, String> = node.metadata.labels.clone().unwrap_or_default();
    let role =
        if labels.contains_key(NodeRole::CONTROL_PLANE_LABEL) { NodeRole::ControlPlane } else { NodeRole::Worker };
    let status = node.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
    NodeView {
        node: NodeRef {
            name: node.metadata.name.clone().unwrap_or_default(),
            uid: node.metadata.uid.clone().unwrap_or_default(),
        },
        resource_version: node.metadata.resource_version.clone().unwrap_or_default(),
        role,
        kubelet: status.and_then(|status| status.node_info.as_ref()).and_then(|info| info.kubelet_version.parse().ok()),
        readiness: match ready.map(|condition| condition.status.as_str()) {
            Some("True") => Readiness::Ready,
            Some("False") => Readiness::NotReady,
            Some(_) | None => Readiness::Unknown,
        },
        readiness_since: ready.and_then(|condition| condition.last_transition_time.as_ref()).and_then(timestamp),
        heartbeat: ready.and_then(|condition| condition.last_heartbeat_time.as_ref()).and_then(timestamp),
        cordon: cordon_owner(node),
        labels,
    }
}

/// Whether a run's mark stands on a node that takes pods: somebody else uncordoned it. Left there, a later cordon by a person
/// would be taken for the run's.
pub fn has_stale_mark(node: &Node) -> bool {
    let marked =
        [CORDONED_BY_ANNOTATION, CORDONED_AT_ANNOTATION].iter().any(|key| annotation(&node.metadata, key).is_some());
    marked && cordon_owner(node) == CordonOwner::Nobody
}

fn cordon_owner(node: &Node) -> CordonOwner {
    let unschedulable = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
    if !unschedulable {
        return CordonOwner::Nobody;
    }
    let at = annotation(&node.metadata, CORDONED_AT_ANNOTATION)
        .and_then(|text| chrono::DateTime::parse_from_rfc3339(text).ok())
        .map(|at| at.to_utc());
    match (annotation(&node.metadata, CORDONED_BY_ANNOTATION), at) {
        (Some(uid), Some(at)) => CordonOwner::Run { uid: uid.to_owned(), at },
        (Some(_) | None, _) => CordonOwner::Other,
    }
}

/// What an API server writes into a pod that says nothing of it (k8s.io/api core/v1 DefaultTerminationGracePeriodSeconds).
const GRACE_SECONDS_DEFAULT: u32 = 30;

/// A pod as a drain sees it. Only in the operator's own namespace is a pod taken for one of it by its label, which anybody may
/// put on a pod of theirs; `None` where that namespace is not known.
pub fn pod_view(pod: &Pod, operator_namespace: Option<&str>) -> PodView {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    let grace = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    PodView {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        name: pod.metadata.name.clone().unwrap_or_default(),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        labels: pod.metadata.labels.clone().unwrap_or_default(),
        kind: pod_kind(pod, operator_namespace),
        created: pod.metadata.creation_timestamp.as_ref().and_then(timestamp),
        terminating: pod.metadata.deletion_timestamp.is_some(),
        grace_seconds: grace.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(GRACE_SECONDS_DEFAULT),
        ends: pod.metadata.deletion_timestamp.as_ref().and_then(timestamp),
        finalizers: pod.metadata.finalizers.clone().unwrap_or_default(),
        claims: volumes.iter().filter_map(|volume| claim_of(pod, volume)).collect(),
        ready_since: ready_since(pod),
        empty_dir: volumes.iter().any(|volume| volume.empty_dir.is_some()),
        unmanaged: !owners.iter().any(|owner| owner.controller == Some(true)),
    }
}

/// The claim of a volume of a pod: the one that it names, or the one that is made for it alone.
///
/// Source: kubernetes.io, "Ephemeral Volumes", "PersistentVolumeClaim naming" (v1.34).
fn claim_of(pod: &Pod, volume: &Volume) -> Option<String> {
    let named = volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.clone());
    let own = || Some(format!("{}-{}", pod.metadata.name.as_ref()?, volume.name));
    named.or_else(|| volume.ephemeral.as_ref().and_then(|_| own()))
}

/// A volume of that name that is attached by that, and what is known of it; `None` where it is gone.
pub fn volume_view(name: String, attachment: &VolumeAttachment, volume: Option<PersistentVolume>) -> VolumeView {
    let claim = volume.and_then(|volume| volume.spec?.claim_ref);
    VolumeView {
        name,
        claim: claim.and_then(|claim| Some(format!("{}/{}", claim.namespace?, claim.name?))),
        detaching_since: attachment.metadata.deletion_timestamp.as_ref().and_then(timestamp),
    }
}

/// Since when a pod is ready.
fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_deref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready" && condition.status == "True")?;
    ready.last_transition_time.as_ref().and_then(timestamp)
}

fn pod_kind(pod: &Pod, operator_namespace: Option<&str>) -> PodKind {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    let at_home = operator_namespace.is_none_or(|home| pod.metadata.namespace.as_deref() == Some(home));
    let operator = pod.metadata.labels.as_ref().and_then(|labels| labels.get(OPERATOR_LABEL.0)).filter(|_| at_home);
    if annotation(&pod.metadata, MIRROR_ANNOTATION).is_some() {
        PodKind::Mirror
    } else if matches!(phase, Some("Succeeded" | "Failed")) {
        PodKind::Finished
    } else if owners.iter().any(|owner| owner.kind == "DaemonSet" && owner.controller == Some(true)) {
        PodKind::Daemon
    } else if operator.is_some_and(|name| name == OPERATOR_LABEL.1) {
        PodKind::Operator
    } else {
        PodKind::Evictable
    }
}
