//! The runner on the machine itself: the engine over a file journal, and the host steps.
//!
//! ```text
//!   agent ──► mailbox/order.json ──► take ── compile ──► Plan ── FileStore ──► Engine::tick ──► host steps ──► HostOps
//!   agent ◄── mailbox/answer.json ◄── verdict of the cursor ◄──────┘
//! ```
//! Five nouns: the *mailbox* is how an order arrives and is answered; the *journal* ([`store::FileStore`]) is fsynced before
//! every effect; *compile* makes a plan of an order or refuses it whole; the *runner* ([`run`]) works on one order at a time,
//! from wherever the journal says it stands; [`memory::Memory`] is what it keeps from order to order. It needs no cluster,
//! no network and no credentials. Called by its binary under systemd, and by the sandbox on simulated machines.

pub mod boot;
pub mod compile;
pub mod forget;
pub mod memory;
pub mod runner;
pub mod store;
pub mod verdict;

mod class;
#[cfg(feature = "real")]
pub mod process;
#[cfg(feature = "real")]
pub mod real;
#[cfg(test)]
mod runner_tests;
#[cfg(test)]
mod samples;
#[cfg(feature = "real")]
pub mod unit;

pub use runner::{RunnerConfig, RunnerEnd, RunnerError, run};
