//! Snapshots of the local etcd member.

use super::ledger::{EffectKind, Ending};
use super::state::SimMachine;
use super::timing::Act;
use super::transcript::hex;
use cupcake_crds::values::{EtcdMember, NodeRole};
use cupcake_engine::names::Reason;
use cupcake_steps::ports::host::{HostError, SnapshotInfo};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Where the runner keeps snapshots on its machine.
const FOLDER: &str = "/var/lib/cupcake/snapshots";

/// Size of a fresh member's snapshot, and how much each revision adds.
const BYTES_BASE: u64 = 5_300_000;
const BYTES_PER_REVISION: u64 = 900;

impl SimMachine {
    pub(super) fn snapshot_now(&self, name: &str) -> Option<SnapshotInfo> {
        self.state().snapshots.get(name).cloned()
    }

    /// Who the members are, as the local one says.
    pub(super) fn etcd_members(&self) -> Vec<EtcdMember> {
        let members = self.site.control_plane.etcd_members(&self.name);
        members.into_iter().map(|(name, healthy)| EtcdMember { name, learner: false, healthy }).collect()
    }

    /// Takes a snapshot; cut short it leaves nothing under its name.
    pub(super) async fn snapshot(self: &Arc<Self>, name: &str) -> Result<SnapshotInfo, HostError> {
        let effect = self.site.ledger.begin(self.effect(EffectKind::Snapshot, name.to_owned()));
        let result = self.save_snapshot(name).await;
        effect.end(if result.is_ok() { Ending::Well } else { Ending::Failed });
        result
    }

    async fn save_snapshot(&self, name: &str) -> Result<SnapshotInfo, HostError> {
        match self.role {
            NodeRole::ControlPlane => {}
            NodeRole::Worker => {
                return Err(HostError::Permanent(Reason::new("NoEtcdMember", "there is no etcd member on a worker")));
            }
        }
        self.take(Act::Snapshot).await;
        if !self.site.control_plane.etcd_is_up(&self.name) {
            return Err(HostError::Transient(Reason::new(
                "EtcdAway",
                "etcdctl snapshot save: https://127.0.0.1:2379: connection refused",
            )));
        }
        let revision = self.site.api.revision();
        let digest = Sha256::new()
            .chain_update(self.site.seed.to_le_bytes())
            .chain_update(revision.to_le_bytes())
            .chain_update(name)
            .finalize();
        let info = SnapshotInfo {
            path: format!("{FOLDER}/{name}.db"),
            bytes: BYTES_BASE + BYTES_PER_REVISION * revision,
            sha256: hex(&digest),
            revision,
            taken_at: self.site.now(),
        };
        self.state().snapshots.insert(name.to_owned(), info.clone());
        Ok(info)
    }
}
