//! Who the members of etcd are, and how each is.

use super::client::Member;
use super::messages::{ListedMember, StatusResponse};
use crate::real::RealHost;
use crate::real::failure::{needs_operator, transient};
use cupcake_crds::limits::ETCD_MEMBERS_MAX;
use cupcake_crds::values::EtcdMember;
use cupcake_steps::ports::host::{EtcdView, HostError};
use futures::future::{join_all, select_ok};
use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

/// How long one member may take to say how it is.
const ASK_LIMIT: Duration = Duration::from_secs(5);
/// Alarms of a member, and characters of one or of its version, that are told.
const ALARMS_MAX: usize = 4;
const WORD_CHARS_MAX: usize = 32;
/// How a member's status tells an alarm: `memberID:10276657743932975437 alarm:NOSPACE`, in protobuf's text form.
/// Source: etcd server/etcdserver/api/v3rpc/maintenance.go, release-3.5 and release-3.6.
const ALARM: &str = "alarm:";
const OF_MEMBER: &str = "memberID:";

impl RealHost {
    /// The members as the local one lists them, each asked by itself. `None` on a machine without a member, or where it does not
    /// answer: then nothing is known of any.
    pub(in crate::real) async fn etcd_members(&self) -> Option<Vec<EtcdMember>> {
        let address = self.etcd_address()?;
        let listed = tokio::time::timeout(ASK_LIMIT * 2, self.listed(&address)).await.ok()?.ok()?;
        Some(told(&self.asked(listed).await))
    }

    /// etcd as the local member sees it, each member asked by itself.
    pub(in crate::real) async fn etcd_now(&self) -> Result<EtcdView, HostError> {
        let Some(address) = self.etcd_address() else {
            return Err(needs_operator(
                "NoLocalEtcd",
                "this machine runs no etcd member of kubeadm's: put /etc/kubernetes/manifests/etcd.yaml back, then retry",
            ));
        };
        let slow =
            |_| transient("EtcdSlow", format!("etcd at {address} did not answer within {} s", 2 * ASK_LIMIT.as_secs()));
        let (own, listed) = tokio::time::timeout(ASK_LIMIT * 2, async {
            let own = Member::connect(self.files(), &address).await?.status().await?;
            Ok::<_, HostError>((own, self.listed(&address).await?))
        })
        .await
        .map_err(slow)??;
        let more = listed.len().saturating_sub(ETCD_MEMBERS_MAX);
        Ok(EtcdView { more, ..view(&own, &self.asked(listed).await) })
    }

    async fn listed(&self, address: &str) -> Result<Vec<ListedMember>, HostError> {
        Member::connect(self.files(), address).await?.members().await
    }

    /// What each of them says of itself; `None` of one that does not answer in time.
    async fn asked(&self, listed: Vec<ListedMember>) -> Vec<(ListedMember, Option<StatusResponse>)> {
        let asked = listed.into_iter().take(ETCD_MEMBERS_MAX).map(|member| async move {
            let status = tokio::time::timeout(ASK_LIMIT, self.status_of(&member)).await.ok().flatten();
            (member, status)
        });
        join_all(asked).await
    }

    /// What the member says under one of its addresses.
    async fn status_of(&self, member: &ListedMember) -> Option<StatusResponse> {
        let ask = async |address: &String| Member::connect(self.files(), address).await?.status().await;
        first_good(member.client_urls.iter().map(ask)).await
    }
}

/// What the definition holds of a word that etcd chose.
fn short(word: &str) -> String {
    word.chars().take(WORD_CHARS_MAX).collect()
}

/// The members as they are told: one is well if it answers and knows a leader. Each knows the alarms of all.
fn told(asked: &[(ListedMember, Option<StatusResponse>)]) -> Vec<EtcdMember> {
    let statuses = asked.iter().filter_map(|(_, status)| status.as_ref());
    let raised: BTreeSet<(String, Option<u64>)> =
        statuses.flat_map(|status| &status.errors).filter_map(|error| alarm(error)).collect();
    let of = |(member, status): &(ListedMember, Option<StatusResponse>)| EtcdMember {
        alarms: raised
            .iter()
            .filter(|(_, id)| *id == Some(member.id))
            .map(|(kind, _)| short(kind))
            .take(ALARMS_MAX)
            .collect(),
        name: member.name.clone(),
        learner: member.is_learner,
        healthy: status.as_ref().is_some_and(|status| status.leader != 0),
        version: status.as_ref().map(|status| short(&status.version)).filter(|version| !version.is_empty()),
    };
    asked.iter().map(of).collect()
}

/// The first good answer of calls that are all made at once: one that hangs keeps no other from being heard.
async fn first_good<T, E>(calls: impl Iterator<Item = impl Future<Output = Result<T, E>>>) -> Option<T> {
    let calls: Vec<_> = calls.map(Box::pin).collect();
    // None at all would panic there.
    if calls.is_empty() {
        return None;
    }
    select_ok(calls).await.ok().map(|(answer, _)| answer)
}

/// etcd by what the local member says of itself, and all members of themselves.
fn view(own: &StatusResponse, asked: &[(ListedMember, Option<StatusResponse>)]) -> EtcdView {
    let own_id = own.header.as_ref().map_or(0, |header| header.member_id);
    let name_of = |id: u64| asked.iter().find(|(member, _)| member.id == id).map(|(member, _)| member.name.clone());
    let statuses = asked.iter().filter_map(|(_, status)| status.as_ref()).chain([own]);
    // Each member knows those of all: told once.
    let raised = statuses.flat_map(|status| &status.errors).filter_map(|error| alarm(error));
    let alarms: BTreeSet<String> = raised
        .map(|(kind, id)| match id {
            Some(id) => {
                let name = name_of(id).filter(|name| !name.is_empty());
                format!("{kind} of {}", name.unwrap_or_else(|| format!("{id:x}")))
            }
            None => kind,
        })
        .collect();
    EtcdView {
        own: name_of(own_id).unwrap_or_default(),
        version: own.version.clone(),
        alarms: alarms.into_iter().collect(),
        members: told(asked),
        more: 0,
    }
}

/// The alarm that an error of a member's status tells, and whose it is; `None` of other errors, such as that there is no leader.
fn alarm(error: &str) -> Option<(String, Option<u64>)> {
    let word = |key: &str| error.split_whitespace().find_map(|word| word.strip_prefix(key));
    let id = word(OF_MEMBER).and_then(|id| id.parse().ok());
    Some((word(ALARM)?.to_owned(), id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::etcd::messages::ResponseHeader;

    #[tokio::test(start_paused = true)]
    async fn a_member_is_heard_under_its_second_address_while_the_first_one_says_nothing() {
        let under = async |address: &str| match address {
            "silent" => std::future::pending().await,
            "refuses" => Err("connection refused"),
            address => Ok(address.to_owned()),
        };
        for (addresses, heard) in [
            (&["silent", "b"][..], Some("b")),
            (&["refuses", "silent", "c"][..], Some("c")),
            (&["refuses"][..], None),
            (&[][..], None),
        ] {
            let asked = first_good(addresses.iter().map(|address| under(address)));
            let answer = tokio::time::timeout(ASK_LIMIT, asked).await.expect("in time");
            assert_eq!(answer.as_deref(), heard, "{addresses:?}");
        }
    }

    #[test]
    fn etcd_is_told_by_what_its_members_say_with_each_alarm_once_and_by_name() {
        let listed = |id, name: &str| ListedMember { id, name: name.to_owned(), ..ListedMember::default() };
        let status = |id, leader, errors: &[&str]| StatusResponse {
            header: Some(ResponseHeader { member_id: id, ..ResponseHeader::default() }),
            version: "3.5.24".to_owned(),
            leader,
            errors: errors.iter().map(|error| (*error).to_owned()).collect(),
            ..StatusResponse::default()
        };
        let full = "memberID:11 alarm:NOSPACE ";
        let asked = vec![
            (listed(10, "cp-1"), Some(status(10, 12, &[full]))),
            (listed(11, "cp-2"), Some(status(11, 0, &["etcdserver: no leader", full]))),
            (listed(12, "cp-3"), None),
        ];
        let seen = view(&status(10, 12, &[full, "memberID:77 alarm:CORRUPT "]), &asked);
        assert_eq!((seen.own.as_str(), seen.version.as_str()), ("cp-1", "3.5.24"));
        assert_eq!(seen.alarms, ["CORRUPT of 4d", "NOSPACE of cp-2"]);
        let healthy: Vec<_> = seen.members.iter().map(|member| (member.name.as_str(), member.healthy)).collect();
        assert_eq!(healthy, [("cp-1", true), ("cp-2", false), ("cp-3", false)]);
        let more: Vec<_> =
            seen.members.iter().map(|member| (member.alarms.join(","), member.version.clone())).collect();
        assert_eq!(
            short(&"3.5.24".repeat(9)).len(),
            WORD_CHARS_MAX,
            "more than the definition takes would lose all of it"
        );
        let version = Some("3.5.24".to_owned());
        let alarm = "NOSPACE".to_owned();
        assert_eq!(more, [(String::new(), version.clone()), (alarm, version), (String::new(), None)]);
    }
}
