//! One file a kind: what to do when an object of it changed.

pub(crate) mod acknowledge;
pub mod deletion;
mod inventories;
pub(crate) mod mirror;
pub mod node;
mod preflight;
pub(crate) mod records;
pub mod run;
pub mod schedule;
mod schedule_status;
pub mod scheduled;
mod stand;
mod starts;
pub(crate) mod timeout;
pub mod update;
pub(crate) mod window;

pub(crate) use inventories::Awaited;
