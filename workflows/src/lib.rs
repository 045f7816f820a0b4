//! Pure compilers: an intent and a snapshot of the cluster become a plan, or a refusal with a report.
//!
//! ```text
//!   DirectUpdate ─┐                       ┌─► Compiled { plan, report, summary } ─► UpgradePlan, UpgradeRun
//!                 ├─► compile ────────────┼─► NothingToDo
//!   snapshot ─────┤   (hop by hop)        └─► Refusal { findings }               ─► condition Stalled
//!                 └─► compile_wave ───────► the wave and its batches, when the workers' turn comes
//!
//!   plan + cursor ─► render::{status_lines, full_tree, message, current_step, progress, dot}
//! ```
//! Five nouns: a *request* is what a user asks for; a *finding* is one thing that stands in the way or should be known;
//! a *refusal* is all of them; a *wave* is the workers' part of a hop; a *batch* is a part of the wave.
//! Who calls it: the operator's controllers and `kubectl cupcake plan`, with the same functions.
//!
//! Nothing here is async, does I/O, reads a clock or depends on the order of a hash map.

#[cfg(test)]
mod acknowledged;
mod addons;
mod admission;
mod changes;
mod checks;
mod clocks;
mod commands;
mod compile;
mod containerd;
mod etcd_store;
mod facts;
mod finding;
mod gates;
mod holds;
#[cfg(test)]
mod hop_properties;
mod hops;
mod kubeadm_config;
mod machines;
mod packages;
#[cfg(test)]
mod patch_hops;
pub mod preflight;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod refusals;
pub mod render;
mod request;
pub mod schedule;
mod settings;
pub mod skew;
mod summary;
mod surroundings;
mod templates;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod timing;
mod user_gates;
mod wave;

pub use checks::INVENTORY_SECONDS_MAX;
pub use commands::NodeCommands;
pub use compile::{
    COMPILER, Compilation, Compiled, NothingToDo, PLAN_BYTES_MAX, ROOT_PLAN_BYTES_MAX, compile, plan_bytes,
};
pub use facts::{InvalidFacts, overlay as overlay_facts, own as own_facts};
pub use finding::{Code, Finding, Refusal, Report};
pub use gates::{gate_name, gates_of, opened_by};
pub use request::{
    BATCH_NODES_DEFAULT, BATCH_NODES_MAX, Request, RunLimits, batch_limits, batch_run, concurrency_of, plan_name,
    wave_run,
};
pub use summary::{BatchPreview, ContainerdSummary, HopSummary, ImagesSummary, Summary};
pub use templates::{CHILD_RUN, CLUSTER_KINDS, METRIC_GATES, STRAGGLERS, lane_of};
pub use wave::{CompiledBatch, CompiledWave, WaveOf, compile_again, compile_wave};
