//! Simulated machines as processes beside a real API server: what the tier of real processes runs on.
//!
//! ```text
//!   operator ─┐                                    ┌─ agent (one a node) ──┐ mailbox folder
//!             ├─► proxy (/version) ─► API server ◄─┤                       ▼
//!   agents  ──┘        ▲                           └─ runner (one a node) ─► socket ─► machines (one process)
//!                      └── machines: kubelets, kubeadm                          systemd of each machine starts its runner
//! ```

pub mod api;
pub mod serve;
pub mod wire;
