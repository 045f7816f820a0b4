//! Who the members of etcd are, and whether each answers.

use super::client::Member;
use super::messages::ListedMember;
use crate::real::RealHost;
use cupcake_crds::values::EtcdMember;
use cupcake_steps::ports::host::HostError;
use futures::future::join_all;
use std::time::Duration;

/// How long one member may take to say how it is.
const ASK_LIMIT: Duration = Duration::from_secs(5);
/// As many members as are told: more than any cluster that kubeadm makes.
const MEMBERS_MAX: usize = 9;

impl RealHost {
    /// The members as the local one lists them, each asked by itself. `None` on a machine without a member, or where it does not
    /// answer: then nothing is known of any.
    pub(in crate::real) async fn etcd_members(&self) -> Option<Vec<EtcdMember>> {
        let address = self.etcd_address()?;
        let listed = tokio::time::timeout(ASK_LIMIT * 2, self.listed(&address)).await.ok()?.ok()?;
        let asked = listed.into_iter().take(MEMBERS_MAX).map(|member| async move {
            let healthy = tokio::time::timeout(ASK_LIMIT, self.answers(&member)).await.unwrap_or(false);
            EtcdMember { name: member.name, learner: member.is_learner, healthy }
        });
        Some(join_all(asked).await)
    }

    async fn listed(&self, address: &str) -> Result<Vec<ListedMember>, HostError> {
        Member::connect(self.files(), address).await?.members().await
    }

    /// Whether the member answers under one of its addresses, and knows a leader.
    async fn answers(&self, member: &ListedMember) -> bool {
        for address in &member.client_urls {
            let status = async { Member::connect(self.files(), address).await?.status().await };
            if status.await.is_ok_and(|status| status.leader != 0) {
                return true;
            }
        }
        false
    }
}
