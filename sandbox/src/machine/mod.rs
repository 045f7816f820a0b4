//! Simulated machines behind [`cupcake_steps::ports::host::HostOps`] and [`cupcake_steps::ports::disk::Disk`].
//!
//! ```text
//!   runner ──► SimHost ──► SimMachine ──► packages, kubeadm, kubelet, etcd, systemd      every effect ──► Ledger ──► Transcript
//!          └─► SimDisk ──► DiskStore                                                     every write  ──► FaultPlan
//!                             SimMachine ──► Site (API, clock, agenda, control plane), shared by the machines of one cluster
//! ```
//! Machines are modelled on what a real kubeadm cluster was seen to do; every act takes the time it took there, spread a
//! little by a seed. What goes on by itself (a static pod restarts, a heartbeat is due) is entered in the [`agenda::Agenda`].

pub mod agenda;
mod containerd;
pub mod control_plane;
pub mod disk;
mod etcd;
pub mod fault;
mod forgetting;
pub mod host_ops;
pub mod kube;
pub mod kubeadm;
pub(crate) mod kubelet;
pub mod ledger;
mod packages;
pub mod record;
pub mod releases;
mod state;
mod stream;
pub mod systemd;
pub mod timing;
pub mod transcript;
mod trouble;
mod wrong;

pub use host_ops::SimHost;
pub use state::{SimMachine, Site};
pub use trouble::Source;
