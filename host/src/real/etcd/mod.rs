//! etcd's own API, as far as a snapshot needs it, and the snapshot on disk.
//!
//! ```text
//!   member at 127.0.0.1 ──Maintenance.Status──► revision, size, health
//!                       ──Maintenance.Snapshot─► NAME.db.part ──fsync, digest read back──► NAME.json, NAME.db
//!   /var/lib/etcd/member/snap ──read beside etcd──► whether etcd 3.6 would find what etcd 3.5 goes by
//! ```
//! etcdctl is on few machines; the member's client certificate lies on every control plane.

mod bolt;
mod client;
mod members;
mod messages;
#[cfg(test)]
mod real;
mod snapshot;
mod store;
