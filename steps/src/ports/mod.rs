//! The ports: all that steps may touch. Each has a real adapter outside this crate and a simulated one in the sandbox.

pub mod cluster;
pub mod disk;
#[cfg(any(test, feature = "fakes"))]
pub mod disk_suite;
#[cfg(any(test, feature = "fakes"))]
pub mod fake_host;
pub mod host;
pub mod measures;
#[cfg(any(test, feature = "fakes"))]
pub mod memory_disk;
#[cfg(feature = "real-disk")]
pub mod real_clock;
#[cfg(feature = "real-disk")]
pub mod real_disk;
