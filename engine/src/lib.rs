//! A general, durable workflow engine: plans of idempotent steps, walked by a cursor that survives any crash.
//!
//! ```text
//!   Plan ──expand──► Dag                      a consumer brings a Domain (its ports) and Steps
//!                     │                                   │
//!    RunStore ──load──┤                                   ▼
//!       ▲             ▼                       StepRegistry ── probe / apply ──► the world
//!       │          decide ── Decision ──► Engine::tick ◄── results (Events)
//!       └───────────── commit(Change: events + Cursor) ◄──┘
//! ```
//! Five nouns: a [`plan::Plan`] is the stored graph; a [`cursor::Cursor`] is the state of a run of it; an
//! [`event::Event`] is one change of a cursor; a [`step::Step`] is one idempotent move; a [`store::RunStore`] keeps runs
//! by compare-and-swap. [`tick::Engine::tick`] moves a run as far as it goes now.
//!
//! Who calls it: the operator's controller (runs of a cluster, in custom resources) and the runner on each machine (one
//! order, in a file journal). The recovery of either is the same: tick again.
//!
//! It knows no Kubernetes, no files, no sockets; it reads no ambient clock, spawns nothing and never sleeps.

pub mod clock;
pub mod codec;
pub mod conformance;
pub mod cursor;
pub mod dag;
pub mod decide;
pub mod event;
pub mod names;
pub mod plan;
pub mod registry;
mod requests;
mod series;
pub mod step;
pub mod store;
pub mod tick;

#[cfg(test)]
mod lost_lanes;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod watchers;
