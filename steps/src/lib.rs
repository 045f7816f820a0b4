//! The steps of a kubeadm upgrade and the ports they act through.
//!
//! ```text
//!   operator ── cluster/*.rs ── ports::cluster (ClusterOps, NodeOps) ──► API server
//!      │  order (NodeTask)  ▲ answer
//!      ▼                    │
//!   runner ──── host/*.rs ──── ports::host (HostOps), ports::disk (Disk) ──► the machine
//! ```
//! Five nouns: a *step* probes and applies one idempotent move; a *port* is what it may touch; an *order* is the host work
//! of one visit to a node, in two parts; *params* are a step's durable parameters; a *reason* says why something waits or
//! failed. Compilers of plans (workflows) use the params; the operator and the runner register the steps and bring adapters.

pub mod cluster;
pub mod host;
pub mod mailbox;
pub mod ports;
