//! Steps that run in the operator. One file a step.

pub mod addons;
pub mod child_run;
pub mod drain_node;
pub mod gate;
pub mod host_order;
pub mod host_proceed;
pub mod host_release;
pub mod metric_gates;
pub mod params;
pub mod preflight;
pub mod stragglers;
pub mod uncordon_node;
pub mod verify_cluster;

use crate::ports::cluster::{Cluster, NodeView, OpsError};
use chrono::TimeDelta;
use cupcake_crds::direct_update::opted_out;
use cupcake_crds::values::NodeRole;
use cupcake_engine::clock::Timestamp;
use cupcake_engine::registry::{RegistryError, StepRegistry};
use cupcake_engine::step::StepContext;
use std::collections::{BTreeMap, BTreeSet};

/// Why a step about a node that somebody deleted did nothing, or cannot go on.
pub const NODE_GONE: &str = "NodeGone";
/// How many nodes a message names; the rest are counted.
const NAMES_MAX: usize = 5;

/// What a probe reads. A read that fails tells nothing: the step looks again, and its attempt, which is the token of its
/// order, stays the same.
macro_rules! look {
    ($read:expr) => {
        match $read.await {
            Ok(seen) => seen,
            Err(OpsError::Changed(reason) | OpsError::Transient(reason)) => return Ok(Probe::Unknown(reason)),
            Err(error @ OpsError::NeedsOperator(_)) => return Err(error.into()),
        }
    };
}

/// What an apply reads before it acts: as [`look`], as a wait that people see.
macro_rules! read {
    ($ctx:expr, $read:expr) => {
        match $read.await {
            Ok(seen) => seen,
            Err(error) => return error.into_outcome($ctx.now()),
        }
    };
}

pub(crate) use {look, read};

/// Registers every cluster step of this release.
pub fn register(registry: &mut StepRegistry<Cluster>) -> Result<(), RegistryError> {
    registry
        .register(addons::Addons)?
        .register(child_run::ChildRun)?
        .register(drain_node::DrainNode)?
        .register(gate::Gate)?
        .register(host_order::HostOrder)?
        .register(host_proceed::HostProceed)?
        .register(host_release::HostRelease)?
        .register(metric_gates::MetricGates)?
        .register(preflight::Preflight)?
        .register(stragglers::Stragglers)?
        .register(uncordon_node::UncordonNode)?
        .register(verify_cluster::VerifyCluster)?;
    Ok(())
}

/// `seconds` from now: when to look again.
fn again(ctx: &StepContext<'_, Cluster>, seconds: i64) -> Timestamp {
    ctx.now() + TimeDelta::seconds(seconds)
}

/// Whether this replica still leads the run; asked between reading a Node and writing it.
async fn still_leads(ctx: &StepContext<'_, Cluster>) -> Result<(), OpsError> {
    ctx.ports().cluster.still_leads(ctx.run(), ctx.run_uid(), ctx.epoch()).await
}

/// Whether a node is one that moves: of the control plane, or a worker that has all the labels of the selector (an empty one
/// selects all), has not opted out and is not left out.
fn moves(node: &NodeView, selector: &BTreeMap<String, String>, left_out: &BTreeSet<String>) -> bool {
    let selected =
        || selector.iter().all(|(key, value)| node.labels.get(key) == Some(value)) && !opted_out(&node.labels);
    node.role == NodeRole::ControlPlane || (selected() && !left_out.contains(&node.node.name))
}

/// `a, b, c and 4 more`: what messages tell of a list of nodes.
pub fn named(all: &[&str]) -> String {
    named_up_to(all, NAMES_MAX)
}

fn named_up_to(all: &[&str], names_max: usize) -> String {
    let shown = all.iter().take(names_max).copied().collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(names_max) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// The subject that changes with a Node.
pub fn node_subject(node: &str) -> String {
    format!("Node/{node}")
}

/// The subject that changes with a NodeTask.
pub fn task_subject(node: &str) -> String {
    format!("NodeTask/{node}")
}

/// The subject that changes with what is approved of an update.
pub fn update_subject(update: &str) -> String {
    format!("DirectUpdate/{update}")
}

/// The subject that changes with a run.
pub fn run_subject(run: &str) -> String {
    format!("UpgradeRun/{run}")
}
