//! The ports: all that steps may touch. Each has a real adapter outside this crate and a simulated one in the sandbox.

pub mod cluster;
pub mod disk;
pub mod host;
