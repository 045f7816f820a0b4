//! The control plane as a whole: which API servers and etcd members serve, and in which versions.

use cupcake_crds::values::KubeVersion;
use cupcake_engine::clock::Timestamp;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A part of the control plane whose absence others feel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The API server.
    ApiServer,
    /// The etcd member.
    Etcd,
}

/// How a control-plane node stands.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    api_server: bool,
    etcd: bool,
    /// Whether its etcd member answers too late for whoever asks it by itself. It follows all the same.
    slow: bool,
    version: KubeVersion,
    /// Until when its authorizer refuses nodes: it has not read the roles yet.
    cold_until: Option<Timestamp>,
}

/// The control-plane nodes behind their load balancer.
#[derive(Debug, Default)]
pub struct ControlPlane {
    /// Guards how each node stands.
    members: Mutex<BTreeMap<String, Member>>,
    /// Whether nobody reaches it, however it stands.
    cut_off: AtomicBool,
    /// Guards until when etcd is without a leader.
    electing_until: Mutex<Option<Timestamp>>,
    /// Guards until when every API server's authorizer knows none of our programs.
    cold_until: Mutex<Option<Timestamp>>,
}

impl ControlPlane {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a node whose API server and etcd member serve.
    pub fn join(&self, node: &str, version: KubeVersion) {
        let member = Member { api_server: true, etcd: true, slow: false, version, cold_until: None };
        self.lock().insert(node.to_owned(), member);
    }

    /// A part stops. Gives whether the API is away with that, and was not before.
    pub fn stops(&self, node: &str, part: Part) -> bool {
        let before = self.is_available();
        if let Some(member) = self.lock().get_mut(node) {
            match part {
                Part::ApiServer => member.api_server = false,
                Part::Etcd => member.etcd = false,
            }
        }
        before && !self.is_available()
    }

    /// The etcd member serves again.
    pub fn etcd_serves(&self, node: &str) {
        if let Some(member) = self.lock().get_mut(node) {
            member.etcd = true;
        }
    }

    /// The etcd member answers late from now on, or in time again: a slow disk.
    pub fn etcd_is_slow(&self, node: &str, slow: bool) {
        if let Some(member) = self.lock().get_mut(node) {
            member.slow = slow;
        }
    }

    /// Whether the node's etcd member answers late.
    pub fn is_etcd_slow(&self, node: &str) -> bool {
        self.lock().get(node).is_some_and(|member| member.slow)
    }

    /// Whether etcd has its quorum.
    pub fn has_quorum(&self) -> bool {
        let members = self.lock();
        members.values().filter(|member| member.etcd).count() * 2 > members.len()
    }

    /// The API server serves again, in that version; nodes are refused by it until `cold_until`.
    pub fn api_server_serves(&self, node: &str, version: KubeVersion, cold_until: Timestamp) {
        if let Some(member) = self.lock().get_mut(node) {
            member.api_server = true;
            member.version = version;
            member.cold_until = Some(cold_until);
        }
    }

    /// Nobody reaches it any more, or everybody does again.
    pub fn cut_off(&self, cut_off: bool) {
        self.cut_off.store(cut_off, Ordering::Relaxed);
    }

    /// etcd is without a leader until then.
    pub fn elect_until(&self, until: Timestamp) {
        *self.electing_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    /// Whether etcd is without a leader.
    pub fn is_electing(&self, now: Timestamp) -> bool {
        self.electing_until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| now < until)
    }

    /// Our programs are refused until then: authorizers have not read their roles yet.
    pub fn is_cold_until(&self, until: Timestamp) {
        *self.cold_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    /// Whether our programs are refused.
    pub fn is_cold(&self, now: Timestamp) -> bool {
        self.cold_until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| now < until)
    }

    /// Whether some API server answers, can be reached, and etcd has its quorum.
    pub fn is_available(&self) -> bool {
        if self.cut_off.load(Ordering::Relaxed) {
            return false;
        }
        let members = self.lock();
        let serving = members.values().filter(|member| member.etcd).count();
        serving * 2 > members.len() && members.values().any(|member| member.api_server)
    }

    /// Whether the node's etcd member serves.
    pub fn etcd_is_up(&self, node: &str) -> bool {
        self.lock().get(node).is_some_and(|member| member.etcd)
    }

    /// The members of etcd, by the names of their nodes, and whether each answers in time; none where that of `node` does not serve.
    pub fn etcd_members(&self, node: &str) -> Vec<(String, bool)> {
        if !self.etcd_is_up(node) {
            return Vec::new();
        }
        self.lock().iter().map(|(name, member)| (name.clone(), member.etcd && !member.slow)).collect()
    }

    /// The nodes whose API servers do not know the roles of nodes yet.
    pub fn cold(&self, now: Timestamp) -> Vec<String> {
        let is_cold = |member: &Member| member.cold_until.is_some_and(|until| now < until);
        self.lock().iter().filter(|(_, member)| is_cold(member)).map(|(name, _)| name.clone()).collect()
    }

    /// How many nodes it has.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether it has no nodes.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// The oldest version among its API servers.
    pub fn oldest(&self) -> Option<KubeVersion> {
        self.versions().map(|(oldest, _)| oldest)
    }

    /// The oldest and the newest version among its API servers.
    pub fn versions(&self) -> Option<(KubeVersion, KubeVersion)> {
        let members = self.lock();
        let versions = members.values().map(|member| member.version);
        Some((versions.clone().min()?, versions.max()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_is_away_without_any_api_server_or_without_quorum() {
        let control_plane = ControlPlane::default();
        for node in ["cp-1", "cp-2", "cp-3"] {
            control_plane.join(node, KubeVersion::new(1, 33, 4));
        }
        assert!(!control_plane.stops("cp-1", Part::Etcd));
        assert!(!control_plane.stops("cp-1", Part::ApiServer));
        assert!(control_plane.is_available());
        assert!(control_plane.stops("cp-2", Part::Etcd), "two of three members are needed");
        control_plane.etcd_serves("cp-2");
        assert!(control_plane.is_available());
    }

    #[test]
    fn the_oldest_api_server_is_what_a_careful_client_sees() {
        let control_plane = ControlPlane::default();
        for node in ["cp-1", "cp-2"] {
            control_plane.join(node, KubeVersion::new(1, 33, 4));
        }
        control_plane.api_server_serves("cp-1", KubeVersion::new(1, 34, 4), Timestamp::UNIX_EPOCH);
        assert_eq!(control_plane.oldest(), Some(KubeVersion::new(1, 33, 4)));
        control_plane.api_server_serves("cp-2", KubeVersion::new(1, 34, 4), Timestamp::UNIX_EPOCH);
        assert_eq!(control_plane.oldest(), Some(KubeVersion::new(1, 34, 4)));
    }
}
