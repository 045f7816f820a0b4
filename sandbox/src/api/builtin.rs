//! The built-in resources and the rules that are theirs alone.

use super::builtin_schema;
use super::resource::{Nature, Resource, Version};
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope, Resource as Described};
use std::any::TypeId;
use std::sync::{Arc, LazyLock};

/// The built-in kinds whose rules differ; `Plain` ones are stored as they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuiltinKind {
    /// v1 Node.
    Node,
    /// v1 Pod.
    Pod,
    /// v1 Namespace.
    Namespace,
    /// v1 Event and events.k8s.io/v1 Event: one store, two shapes.
    Event,
    /// v1 Service.
    Service,
    /// coordination.k8s.io/v1 Lease.
    Lease,
    /// policy/v1 PodDisruptionBudget.
    PodDisruptionBudget,
    /// apps/v1 workloads and batch/v1 Job: generation counted, status apart.
    Workload,
    /// apiextensions.k8s.io/v1 CustomResourceDefinition.
    CustomResourceDefinition,
    /// v1 Secret and ConfigMap, rbac, volumes and the like.
    Plain,
}

impl BuiltinKind {
    /// Whether `metadata.generation` counts changes of the specification.
    pub fn counts_generations(self) -> bool {
        match self {
            Self::Pod | Self::PodDisruptionBudget | Self::Workload | Self::CustomResourceDefinition => true,
            Self::Node | Self::Namespace | Self::Event | Self::Service | Self::Lease | Self::Plain => false,
        }
    }

    /// Whether an update may leave out the resourceVersion (each kind's strategy says so).
    pub fn allows_unconditional_update(self) -> bool {
        match self {
            Self::Lease | Self::PodDisruptionBudget | Self::CustomResourceDefinition => false,
            Self::Node | Self::Pod | Self::Namespace | Self::Event | Self::Service | Self::Workload | Self::Plain => {
                true
            }
        }
    }

    /// Whether creation drops the status that the request carries.
    pub fn drops_status_on_create(self) -> bool {
        match self {
            // A kubelet registers its Node with a status.
            Self::Node | Self::Event | Self::Lease | Self::Plain => false,
            Self::Pod
            | Self::Namespace
            | Self::Service
            | Self::PodDisruptionBudget
            | Self::Workload
            | Self::CustomResourceDefinition => true,
        }
    }

    /// Field selectors beyond `metadata.name` and `metadata.namespace`.
    pub fn selectable_fields(self) -> &'static [&'static str] {
        match self {
            Self::Node => &["spec.unschedulable"],
            Self::Pod => &[
                "spec.nodeName",
                "spec.restartPolicy",
                "spec.schedulerName",
                "spec.serviceAccountName",
                "spec.hostNetwork",
                "status.phase",
                "status.podIP",
                "status.nominatedNodeName",
            ],
            Self::Namespace => &["status.phase"],
            Self::Event => &[
                "involvedObject.kind",
                "involvedObject.namespace",
                "involvedObject.name",
                "involvedObject.uid",
                "involvedObject.apiVersion",
                "involvedObject.resourceVersion",
                "involvedObject.fieldPath",
                "regarding.kind",
                "regarding.namespace",
                "regarding.name",
                "regarding.uid",
                "regarding.apiVersion",
                "regarding.resourceVersion",
                "regarding.fieldPath",
                "reason",
                "reportingComponent",
                "reportingController",
                "source",
                "type",
            ],
            Self::Service => &["spec.clusterIP", "spec.type"],
            Self::Plain => &["type"],
            Self::Lease | Self::PodDisruptionBudget | Self::Workload | Self::CustomResourceDefinition => &[],
        }
    }
}

/// All built-in resources, in the order of discovery; one table for the whole process.
pub(super) fn all() -> &'static [Arc<Resource>] {
    static ALL: LazyLock<Vec<Arc<Resource>>> = LazyLock::new(table);
    &ALL
}

/// Status subresource or not.
#[derive(Clone, Copy)]
struct Shape {
    status: bool,
    subresources: &'static [&'static str],
    short: &'static [&'static str],
    categories: &'static [&'static str],
}

const PLAIN: Shape = Shape { status: false, subresources: &[], short: &[], categories: &[] };
const STATUS: Shape = Shape { status: true, ..PLAIN };

fn builtin<T>(plural: &str, kind: BuiltinKind, shape: Shape) -> Arc<Resource>
where
    T: Described + schemars::JsonSchema,
    T::Scope: 'static,
{
    let (definition, definitions) = builtin_schema::definitions::<T>();
    let scope = TypeId::of::<T::Scope>();
    let namespaced = scope == TypeId::of::<NamespaceResourceScope>();
    debug_assert!(namespaced || scope == TypeId::of::<ClusterResourceScope>(), "subresources are not listed here");
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Arc::new(Resource {
        group: T::GROUP.to_owned(),
        plural: plural.to_owned(),
        singular: T::KIND.to_lowercase(),
        kind: T::KIND.to_owned(),
        list_kind: format!("{}List", T::KIND),
        short_names: owned(shape.short),
        categories: owned(shape.categories),
        namespaced,
        versions: vec![Version {
            name: T::VERSION.to_owned(),
            served: true,
            status: shape.status,
            subresources: shape.subresources.to_vec(),
            schema: Some(builtin_schema::compiled(&definition, &definitions)),
            raw_schema: None,
            columns: Vec::new(),
            warning: None,
        }],
        storage: 0,
        nature: Nature::Builtin(kind),
        definitions: Some(builtin_schema::definitions::<T>),
    })
}

fn table() -> Vec<Arc<Resource>> {
    use BuiltinKind as K;
    use k8s_openapi::api::{
        admissionregistration::v1 as admission, apps::v1 as apps, batch::v1 as batch, coordination::v1 as coordination,
        core::v1 as core, events::v1 as events, policy::v1 as policy, rbac::v1 as rbac, storage::v1 as storage,
    };
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
    let workload = |short: &'static [&'static str]| Shape { short, categories: &["all"], ..STATUS };
    let short = |short: &'static [&'static str]| Shape { short, ..PLAIN };
    vec![
        builtin::<core::ConfigMap>("configmaps", K::Plain, short(&["cm"])),
        builtin::<core::Event>("events", K::Event, short(&["ev"])),
        builtin::<core::Namespace>("namespaces", K::Namespace, Shape { short: &["ns"], ..STATUS }),
        builtin::<core::Node>("nodes", K::Node, Shape { short: &["no"], ..STATUS }),
        builtin::<core::PersistentVolume>("persistentvolumes", K::Plain, Shape { short: &["pv"], ..STATUS }),
        builtin::<core::Pod>("pods", K::Pod, Shape { subresources: &["eviction", "binding"], ..workload(&["po"]) }),
        builtin::<core::Secret>("secrets", K::Plain, PLAIN),
        builtin::<core::ServiceAccount>("serviceaccounts", K::Plain, short(&["sa"])),
        builtin::<core::Service>("services", K::Service, workload(&["svc"])),
        builtin::<apps::DaemonSet>("daemonsets", K::Workload, workload(&["ds"])),
        builtin::<apps::Deployment>("deployments", K::Workload, workload(&["deploy"])),
        builtin::<apps::ReplicaSet>("replicasets", K::Workload, workload(&["rs"])),
        builtin::<apps::StatefulSet>("statefulsets", K::Workload, workload(&["sts"])),
        builtin::<batch::Job>("jobs", K::Workload, workload(&[])),
        builtin::<events::Event>("events", K::Event, short(&["ev"])),
        builtin::<policy::PodDisruptionBudget>(
            "poddisruptionbudgets",
            K::PodDisruptionBudget,
            Shape { short: &["pdb"], ..STATUS },
        ),
        builtin::<rbac::ClusterRoleBinding>("clusterrolebindings", K::Plain, PLAIN),
        builtin::<rbac::ClusterRole>("clusterroles", K::Plain, PLAIN),
        builtin::<rbac::RoleBinding>("rolebindings", K::Plain, PLAIN),
        builtin::<rbac::Role>("roles", K::Plain, PLAIN),
        builtin::<admission::ValidatingAdmissionPolicy>(
            "validatingadmissionpolicies",
            K::Plain,
            Shape { categories: &["api-extensions"], ..PLAIN },
        ),
        builtin::<admission::ValidatingAdmissionPolicyBinding>(
            "validatingadmissionpolicybindings",
            K::Plain,
            Shape { categories: &["api-extensions"], ..PLAIN },
        ),
        builtin::<apiextensions::CustomResourceDefinition>(
            "customresourcedefinitions",
            K::CustomResourceDefinition,
            Shape { short: &["crd", "crds"], categories: &["api-extensions"], ..STATUS },
        ),
        builtin::<coordination::Lease>("leases", K::Lease, PLAIN),
        builtin::<storage::VolumeAttachment>("volumeattachments", K::Plain, STATUS),
    ]
}
