//! The values that the six kinds and the compilers of plans are made of.

mod concurrency;
mod drain_rule;
pub(crate) mod duration;
mod host_step;
mod kube_version;
mod node_ref;
mod options;
mod package_version;
mod phase;
mod snapshot;
mod surroundings;
mod user_gate;

pub use concurrency::{Concurrency, InvalidConcurrency};
pub use drain_rule::{DrainAction, DrainRule, LabelOperator, PodRequirement, PodSelector, Treatment};
pub use host_step::{HostStep, OrderKey};
pub use kube_version::{InvalidVersion, KubeVersion, MinorVersion, Stage};
pub use node_ref::{NodeRef, NodeRole};
pub use options::{AirGapped, ApprovalPoint, Canary, Component, ComponentVersions, OnExpiry, Strategy};
pub(crate) use options::{enabled, labels_schema};
pub use package_version::{InvalidPackageVersion, PackageVersion};
pub use phase::Phase;
pub use snapshot::{ClusterSnapshot, Cordon, EtcdTopology, NodeSnapshot, OwnFacts, Taint, UnreadableNode};
pub use surroundings::{
    AbsentAddon, AdmissionHook, AdmissionPolicy, ComponentSetting, DeprecatedRequest, DisruptionBudget, EtcdDoubt,
    EtcdDoubtKind, EtcdMember, PodSnapshot, Surroundings,
};
pub use user_gate::{GatePoint, PrometheusQuery, UserGate};
