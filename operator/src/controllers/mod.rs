//! One file a kind: what to do when an object of it changed.

pub mod acknowledge;
pub mod deletion;
mod dry_run;
mod gates;
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
pub mod timeout;
pub mod update;
pub mod window;

pub(crate) use inventories::Awaited;
