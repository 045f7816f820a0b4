//! The local etcd member: what it says of etcd, and its snapshots.

use super::ledger::{EffectKind, Ending};
use super::state::SimMachine;
use super::timing::Act;
use super::transcript::hex;
use chrono::TimeDelta;
use cupcake_crds::node_task::NodeInventory;
use cupcake_crds::values::{EtcdDoubt, EtcdMember, NodeRole};
use cupcake_engine::names::Reason;
use cupcake_steps::ports::host::{EtcdView, HostError, SnapshotInfo};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Where the runner keeps snapshots on its machine.
const FOLDER: &str = "/var/lib/cupcake/snapshots";

/// Size of a fresh member's snapshot, and how much each revision adds.
const BYTES_BASE: u64 = 5_300_000;
const BYTES_PER_REVISION: u64 = 900;

/// How long whoever asks waits for a member that does not answer, as the runner on real machines does.
const MEMBER_LIMIT: TimeDelta = TimeDelta::seconds(5);
const OWN_LIMIT: TimeDelta = TimeDelta::seconds(10);

fn away(code: &str, message: &str) -> HostError {
    HostError::Transient(Reason::new(code, message))
}

impl SimMachine {
    /// From now on its etcd member answers too late, or in time again: a disk that is slow. It follows the others all the same.
    pub fn let_etcd_be_slow(&self, slow: bool) {
        self.site.control_plane.etcd_is_slow(&self.name, slow);
    }

    /// etcd as its member sees it now.
    pub(super) async fn etcd_now(&self) -> Result<EtcdView, HostError> {
        let control_plane = &self.site.control_plane;
        if !self.state().manifests.contains_key("etcd") {
            return Err(HostError::NeedsOperator(Reason::new("NoLocalEtcd", "this machine runs no etcd member")));
        }
        if control_plane.is_etcd_slow(&self.name) {
            self.pass(OWN_LIMIT).await;
            return Err(away("EtcdSlow", "etcd at https://127.0.0.1:2379 did not answer within 10 s"));
        }
        if !control_plane.etcd_is_up(&self.name) {
            return Err(away("EtcdAway", "etcd at https://127.0.0.1:2379 cannot be reached: connection refused"));
        }
        if !control_plane.has_quorum() || control_plane.is_electing(self.site.now()) {
            self.pass(OWN_LIMIT).await;
            return Err(away("EtcdAway", "etcd gave no list of members: Unavailable: etcdserver: no leader"));
        }
        let told = self.told(NodeInventory { etcd_members: self.etcd_members(), ..NodeInventory::default() });
        if told.etcd_members.iter().any(|member| !member.healthy) {
            self.pass(MEMBER_LIMIT).await;
        }
        let tag = self.state().running.get("etcd").cloned().unwrap_or_default();
        Ok(EtcdView {
            own: self.name.clone(),
            version: tag.split('-').next().unwrap_or_default().to_owned(),
            members: told.etcd_members,
            more: 0,
            alarms: Vec::new(),
        })
    }

    /// What speaks against etcd 3.6 on its data.
    pub(super) fn etcd_doubts(&self) -> Vec<EtcdDoubt> {
        let told = self.told(NodeInventory { etcd_store_doubts: Some(Vec::new()), ..NodeInventory::default() });
        told.etcd_store_doubts.unwrap_or_default()
    }

    pub(super) fn snapshot_now(&self, name: &str) -> Option<SnapshotInfo> {
        self.state().snapshots.get(name).cloned()
    }

    /// Who the members are, as the local one says.
    pub(super) fn etcd_members(&self) -> Vec<EtcdMember> {
        let members = self.site.control_plane.etcd_members(&self.name);
        members.into_iter().map(|(name, healthy)| EtcdMember { healthy, ..EtcdMember::voting(name) }).collect()
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
        if self.site.control_plane.is_etcd_slow(&self.name) {
            self.pass(OWN_LIMIT).await;
            return Err(away("EtcdSlow", "etcdctl snapshot save: context deadline exceeded"));
        }
        if !self.site.control_plane.etcd_is_up(&self.name) {
            return Err(away("EtcdAway", "etcdctl snapshot save: https://127.0.0.1:2379: connection refused"));
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
