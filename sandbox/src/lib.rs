//! An in-process Kubernetes API, simulated machines and fault injection.

pub mod api;
pub mod machine;
pub mod simulate;
pub mod world;
