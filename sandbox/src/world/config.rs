//! What a sandbox is made of.

use super::fences::Fence;
use crate::machine::fault::Fault;
use cupcake_crds::values::{Concurrency, KubeVersion};
use cupcake_engine::clock::Timestamp;
use std::collections::BTreeSet;

/// How fast virtual time goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speed {
    /// As fast as the machine can compute, on paused time: the same seed gives the same run.
    Fastest,
    /// That many virtual seconds a second, for people who watch.
    Times(u32),
}

/// Speed when somebody watches and says nothing else: virtual seconds a second.
pub const SPEED_WATCHED: u32 = 60;

/// Largest cluster that a sandbox makes, in nodes of each role.
pub const CONTROL_PLANES_MAX: u32 = 9;
/// As [`CONTROL_PLANES_MAX`].
pub const WORKERS_MAX: u32 = 20_000;

/// As [`CONTROL_PLANES_MAX`], of replicas of the operator.
pub const OPERATORS_MAX: u32 = 5;

/// Settings of a simulated cluster.
#[derive(Debug, Clone)]
pub struct WorldConfig {
    /// Control-plane nodes with stacked etcd; 1 to [`CONTROL_PLANES_MAX`].
    pub control_planes: u32,
    /// Workers; 0 to [`WORKERS_MAX`].
    pub workers: u32,
    /// What workers are called before their number: `w` makes `w-1`, `w-2`, ...
    pub workers_named: &'static str,
    /// The version that everything runs at first.
    pub from: KubeVersion,
    /// Versions that the package repositories hold besides the usual ones.
    pub extra_versions: Vec<KubeVersion>,
    /// Fixes every draw.
    pub seed: u64,
    /// How fast time goes.
    pub speed: Speed,
    /// The time at the start. Runs are equal only if it is.
    pub start: Timestamp,
    /// Whether a PodDisruptionBudget guards the workload. With fewer than two workers there is none: nothing could be drained.
    pub budget: bool,
    /// Replicas of the operator; 1 to [`OPERATORS_MAX`].
    pub operators: u32,
    /// Whether every write is looked at for what must hold (`World::violations`).
    pub judged: bool,
    /// What goes wrong, and when.
    pub faults: Vec<Fault>,
    /// Fences that are left out, to show what they are for.
    pub without: BTreeSet<Fence>,
    /// Whether the transcript keeps its lines for reading.
    pub keep_lines: bool,
}

impl WorldConfig {
    /// A small cluster: 3 control-plane nodes and 5 workers, all as fast as possible.
    pub fn new(from: KubeVersion, start: Timestamp) -> Self {
        Self {
            control_planes: 3,
            workers: 5,
            workers_named: "w",
            from,
            extra_versions: Vec::new(),
            seed: 1,
            speed: Speed::Fastest,
            start,
            budget: true,
            operators: 1,
            judged: false,
            faults: Vec::new(),
            without: BTreeSet::new(),
            keep_lines: false,
        }
    }
}

/// The upgrade that a sandbox is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Upgrade {
    /// Name of the DirectUpdate.
    pub name: String,
    /// Where to.
    pub to: KubeVersion,
    /// How many workers at once.
    pub concurrency: Concurrency,
}
