//! Every scenario that spans crates, in one binary.
#![expect(clippy::unwrap_used, clippy::print_stdout, clippy::panic, reason = "tests say what went wrong by panicking")]

mod api_server;
mod authorizer;
mod cluster;
mod conformance;
mod containerd;
mod control;
mod damaged;
mod events;
mod examples;
mod expiry;
mod failover;
mod fences;
mod fields;
mod gates;
mod kills;
mod kubelets;
mod lease;
mod leases_alone;
mod left_out;
mod metrics;
mod mutations;
mod not_begun;
mod real;
mod sandbox;
mod schedules;
mod spared;
mod stalls;
mod stored;
mod stored_runs;
mod stores;
mod timeouts;
mod traces;
mod walls;
mod windows;
