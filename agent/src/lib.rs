//! The relay on each node: its NodeTask in the API, and the mailbox folder of its machine.
//!
//! ```text
//!   NodeTask ── watch ──► relay (pure) ──► order.json, inventory-request.json ──► runner
//!      ▲                    │    ▲
//!      └── JSON Patch ◄─────┘    └── answer.json, inventory.json ◄── runner
//! ```
//! Five nouns: the *task* is the node's mailbox in the API; the *mailbox* is the folder on the machine; [`relay`] decides from
//! both what is to be done; a *claim* tells the API that an order is taken; the [`runner_unit::RunnerUnit`] is how the runner
//! is started. To what a runner tells of its machine the agent adds one thing, which only somebody who asks an API server can know: how
//! far the two clocks are apart ([`clocks`]). The agent plans nothing, runs nothing on the host, and touches no other node's task. Called by its binary in a
//! DaemonSet, and by the sandbox.

pub mod agent;
pub mod backoff;
pub mod clocks;
pub mod patch;
pub mod read;
pub mod relay;
pub mod runner_unit;

#[cfg(feature = "real")]
pub mod process;
#[cfg(feature = "real")]
pub mod systemd;

#[cfg(test)]
mod relay_table;

pub use agent::{AgentConfig, AgentError, run};
