//! `check-etcd/v1`: right before kubeadm begins on a control-plane node, etcd can do without the member there for a moment.
//!
//! The checklist looks at all of this before anything moves; hours, or a night between two windows, may lie between that and the node
//! whose turn it is. So each control-plane node looks again: all members answer and have a vote, they are the control-plane nodes and
//! nobody else, no alarm is raised and, where kubeadm brings etcd 3.6, nothing lies on the disk that it would take otherwise.
//!
//! ```text
//!   a member that does not answer, has not started or has no vote yet  ─► waited for, shown; after that a person
//!   a member too many or too few, an alarm, old data on the disk       ─► a person, at once
//!   the member here is down, and kubeadm has begun here in this run    ─► skipped: kubeadm's repetition may be what mends it
//! ```
//! A step of its own in front of kubeadm's: once kubeadm has begun in an order, whoever goes on with that order does not come by here.
//!
//! Source: etcd.io, "Upgrade etcd from 3.5 to 3.6" and "Maintenance: Space quota" (v3.5); kubernetes.io, "Operating etcd clusters for
//! Kubernetes" (v1.34).

use super::{UNKNOWN_AGAIN_SECONDS, etcd_snapshot, kubeadm_copies, params};
use crate::ports::host::{EtcdView, Machine};
use async_trait::async_trait;
use chrono::TimeDelta;
use cupcake_crds::limits::ETCD_MEMBERS_MAX;
use cupcake_crds::values::{EtcdDoubt, EtcdDoubtKind, EtcdMember};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::names::Reason;
use cupcake_engine::step::{OnCancel, Probe, Step, StepContext, StepError, StepOutcome, Wait};
use std::collections::BTreeSet;

/// For how long what may pass by itself is waited for, in seconds: a member needs less than two minutes after a boot of its machine.
const WAIT_SECONDS_MAX: i64 = 300;
/// Which part of the order's time may pass with that at most: the rest is kubeadm's.
const WAIT_PART_OF_DEADLINE: i32 = 4;
/// The first minor of etcd that goes by its database alone.
const BY_DATABASE: (u32, u32) = (3, 6);

/// Looks at etcd.
pub struct CheckEtcd;

#[async_trait]
impl Step<Machine> for CheckEtcd {
    const KIND: &'static str = params::CHECK_ETCD;
    type Params = params::CheckEtcd;
    type Output = ();
    /// It only looks.
    const ON_CANCEL: OnCancel = OnCancel::Leave;

    async fn probe(&self, ctx: &StepContext<'_, Machine>, params: &Self::Params) -> Result<Probe<()>, StepError> {
        Ok(match look(ctx, params).await? {
            Look::Fit => Probe::Satisfied(()),
            Look::Wait(wait) => Probe::Wait(wait),
            Look::LeftToKubeadm(_) => Probe::Unsatisfied,
        })
    }

    async fn apply(&self, ctx: &StepContext<'_, Machine>, params: &Self::Params) -> Result<StepOutcome<()>, StepError> {
        Ok(match look(ctx, params).await? {
            Look::Fit => StepOutcome::Done(()),
            Look::Wait(wait) => StepOutcome::Wait(wait),
            Look::LeftToKubeadm(reason) => StepOutcome::Skipped(reason),
        })
    }
}

/// What a look comes to, where nobody has to do anything.
enum Look {
    Fit,
    Wait(Wait),
    /// The member here is down, and kubeadm is to be repeated.
    LeftToKubeadm(Reason),
}

async fn look(ctx: &StepContext<'_, Machine>, params: &params::CheckEtcd) -> Result<Look, StepError> {
    let until = waits_until(ctx.started(), ctx.deadline());
    let view = match ctx.ports().host.etcd().await.map_err(StepError::from) {
        Ok(view) => view,
        Err(error) => {
            if etcd_snapshot::is_down(&error) && kubeadm_copies::is_to_be_repeated(ctx).await? {
                let message = format!("kubeadm has begun here and is repeated all the same: {}", error.reason());
                return Ok(Look::LeftToKubeadm(Reason::new("KubeadmHasBegun", message)));
            }
            let StepError::Transient(reason) = error else { return Err(error) };
            let remedy = "see crictl ps --all --name etcd on this machine, and the log of its container";
            return waited(Problem { reason, remedy }, until, ctx.now());
        }
    };
    let mut found = of_members(&view, &params.control_plane);
    if let Some(check) = &params.store
        && minor_of(&view.version).is_none_or(|minor| minor < BY_DATABASE)
    {
        let doubts = ctx.ports().host.etcd_store_doubts().await?;
        found.of_store(&doubts, check.acknowledged.contains(&view.own));
    }
    if let Some(reason) = found.lasting.into_iter().reduce(both) {
        return Err(StepError::NeedsOperator(reason));
    }
    match found.passing.into_iter().next() {
        Some(problem) => waited(problem, until, ctx.now()),
        None => Ok(Look::Fit),
    }
}

/// Until when a step that began then waits.
fn waits_until(started: Timestamp, deadline: Timestamp) -> Timestamp {
    started + TimeDelta::seconds(WAIT_SECONDS_MAX).min((deadline - started) / WAIT_PART_OF_DEADLINE)
}

/// What may pass by itself, and what to do if it does not.
#[derive(Debug, PartialEq, Eq)]
struct Problem {
    reason: Reason,
    remedy: &'static str,
}

/// Waits for it, or leaves it to a person once the time is up.
fn waited(problem: Problem, until: Timestamp, now: Timestamp) -> Result<Look, StepError> {
    let Problem { reason: Reason { code, message }, remedy } = problem;
    if now < until {
        let again = (now + TimeDelta::seconds(UNKNOWN_AGAIN_SECONDS)).min(until);
        let message = format!("{message}; waited for until {} UTC", until.format("%H:%M:%S"));
        return Ok(Look::Wait(Wait::shown(again, Reason::new(code, message))));
    }
    let message = format!("{message}, and it did not pass; {remedy}, then retry");
    Err(StepError::NeedsOperator(Reason::new(code, message)))
}

/// What speaks against kubeadm beginning now.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    /// It may pass by itself.
    passing: Vec<Problem>,
    /// It does not; the message says what to do.
    lasting: Vec<Reason>,
}

impl Found {
    fn passing(&mut self, code: &str, message: impl Into<String>, remedy: &'static str) {
        self.passing.push(Problem { reason: Reason::new(code, message), remedy });
    }

    fn lasting(&mut self, code: &str, message: impl AsRef<str>, remedy: &str) {
        self.lasting.push(Reason::new(code, format!("{}; {remedy}", message.as_ref())));
    }

    /// Adds what etcd 3.6 would find on the disk.
    fn of_store(&mut self, doubts: &[EtcdDoubt], acknowledged: bool) {
        let of = |kind: EtcdDoubtKind| -> Option<String> {
            let of_kind = doubts.iter().filter(|doubt| doubt.kind == kind).map(|doubt| doubt.message.as_str());
            Some(of_kind.collect::<Vec<_>>().join(", ")).filter(|text| !text.is_empty())
        };
        if let Some(text) = of(EtcdDoubtKind::OldKeys) {
            let remedy = "move what is there to API v3 or remove it, as etcd's guide from 3.5 to 3.6 says";
            self.lasting("EtcdStore", format!("etcd 3.6 would not start here: {text}"), remedy);
        }
        if acknowledged {
            return;
        }
        if let Some(text) = of(EtcdDoubtKind::MembersDiffer) {
            let message = format!("etcd 3.6 would take for members what etcd 3.5 does not: {text}");
            let remedy = "run etcd 3.5.26 or newer first, which mends it when it starts";
            self.lasting("EtcdStore", message, remedy);
        }
        if let Some(text) = of(EtcdDoubtKind::NotRead) {
            let message = format!("what etcd 3.6 would find on this disk could not be looked at: {text}");
            self.passing("EtcdStore", message, "mend what it names");
        }
    }
}

/// Both of them, under the first one's code.
fn both(first: Reason, other: Reason) -> Reason {
    let (Reason { code, message }, Reason { message: also, .. }) = (first, other);
    Reason::new(code, format!("{message}; {also}"))
}

/// Judges the members of etcd, in a cluster with those control-plane nodes.
///
/// That all of them answer is enough for the quorum: with three and more it stands without the one of this machine, and with one or two
/// nothing could be upgraded otherwise, which the checklist told.
fn of_members(view: &EtcdView, control_plane: &[String]) -> Found {
    let mut found = Found::default();
    let listed = |members: Vec<&str>| Some(members.join(", ")).filter(|names| !names.is_empty());
    let names = |is: &dyn Fn(&EtcdMember) -> bool| {
        listed(view.members.iter().filter(|member| is(member)).map(|member| member.name.as_str()).collect())
    };
    let nodes: BTreeSet<&str> = control_plane.iter().map(String::as_str).collect();
    let members: BTreeSet<&str> = view.members.iter().map(|member| member.name.as_str()).collect();
    if !view.alarms.is_empty() {
        let remedy = "NOSPACE: compact and defragment etcd, then etcdctl alarm disarm; CORRUPT: remove that member and join its node again";
        found.lasting("EtcdAlarm", format!("etcd has raised an alarm: {}", view.alarms.join(", ")), remedy);
    }
    if let Some(names) = names(&|member| !member.name.is_empty() && !nodes.contains(member.name.as_str())) {
        let message = format!("etcd has members that are no control-plane node of this cluster: {names}");
        let remedy = "if their machines are gone, etcdctl member remove ID";
        found.lasting("EtcdMembers", message, remedy);
    }
    if view.more > 0 {
        let all = view.members.len() + view.more;
        let message = format!("etcd has {all} members, and more than {ETCD_MEMBERS_MAX} are not looked at");
        found.lasting(
            "EtcdMembers",
            message,
            "take control-plane nodes out until no more are left: etcd suggests 7 at most",
        );
    } else if let Some(names) = listed(nodes.difference(&members).copied().collect())
        && !members.contains("")
    {
        let message = format!("control-plane nodes without a member of etcd: {names}");
        found.lasting("EtcdMembers", message, "join them again with kubeadm join --control-plane");
    }
    if members.contains("") {
        let message = "a member of etcd was added and has never started".to_owned();
        found.passing("EtcdMemberAway", message, "start it, or etcdctl member remove ID");
    }
    if let Some(names) = names(&|member| !member.healthy && !member.name.is_empty()) {
        let message = format!("members of etcd that do not answer: {names}");
        found.passing("EtcdMemberAway", message, "mend them (kubectl --namespace kube-system logs etcd-NODE)");
    }
    if let Some(names) = names(&|member| member.learner) {
        let message = format!("members of etcd without a vote: {names}");
        found.passing("EtcdLearner", message, "once they have caught up, etcdctl member promote ID");
    }
    found
}

fn minor_of(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str) -> EtcdMember {
        EtcdMember::voting(name)
    }

    /// What is found with three nodes once `change` has come over etcd: what passes, and what does not.
    fn found(change: impl FnOnce(&mut EtcdView)) -> (Vec<String>, Vec<String>) {
        let nodes = ["cp-1", "cp-2", "cp-3"];
        let mut view = EtcdView { own: "cp-1".into(), members: nodes.map(member).to_vec(), ..EtcdView::default() };
        change(&mut view);
        let Found { passing, lasting } = of_members(&view, &nodes.map(str::to_owned));
        let words = |reason: &Reason| format!("{}: {}", reason.code, reason.message);
        (passing.iter().map(|problem| words(&problem.reason)).collect(), lasting.iter().map(words).collect())
    }

    fn is(told: &(Vec<String>, Vec<String>), passing: &[&str], lasting: &[&str]) {
        let begin = |told: &[String], words: &[&str]| {
            told.len() == words.len() && told.iter().zip(words).all(|(line, begin)| line.starts_with(begin))
        };
        assert!(begin(&told.0, passing) && begin(&told.1, lasting), "{told:?}");
    }

    #[test]
    fn what_of_etcds_members_may_pass_is_told_apart_from_what_a_person_has_to_mend() {
        is(&found(|_| ()), &[], &[]);
        is(
            &found(|view| view.members[1].healthy = false),
            &["EtcdMemberAway: members of etcd that do not answer: cp-2"],
            &[],
        );
        is(&found(|view| view.members[2].learner = true), &["EtcdLearner: members of etcd without a vote: cp-3"], &[]);
        is(
            &found(|view| view.members[2].name.clear()),
            &["EtcdMemberAway: a member of etcd was added and has never started"],
            &[],
        );
        is(
            &found(|view| view.members.push(member("cp-4"))),
            &[],
            &["EtcdMembers: etcd has members that are no control-plane node of this cluster: cp-4; if "],
        );
        is(
            &found(|view| drop(view.members.pop())),
            &[],
            &["EtcdMembers: control-plane nodes without a member of etcd: cp-3; join them"],
        );
        let ten = |view: &mut EtcdView| {
            view.members.pop();
            view.more = 8;
        };
        is(&found(ten), &[], &["EtcdMembers: etcd has 10 members, and more than 9 are not looked at; take "]);
        is(
            &found(|view| view.alarms.push("NOSPACE of cp-2".into())),
            &[],
            &["EtcdAlarm: etcd has raised an alarm: NOSPACE of cp-2; NOSPACE: compact"],
        );
    }

    #[test]
    fn what_etcd_3_6_would_find_is_left_to_a_person_unless_it_is_acknowledged_and_old_keys_always_are() {
        let told = |kind, acknowledged| {
            let mut found = Found::default();
            found.of_store(&[EtcdDoubt { kind, message: "x".into() }], acknowledged);
            (found.passing.len(), found.lasting.len())
        };
        assert_eq!(
            (told(EtcdDoubtKind::MembersDiffer, false), told(EtcdDoubtKind::MembersDiffer, true)),
            ((0, 1), (0, 0))
        );
        assert_eq!((told(EtcdDoubtKind::NotRead, false), told(EtcdDoubtKind::NotRead, true)), ((1, 0), (0, 0)));
        assert_eq!((told(EtcdDoubtKind::OldKeys, false), told(EtcdDoubtKind::OldKeys, true)), ((0, 1), (0, 1)));
        let version = |text| minor_of(text).is_none_or(|minor| minor < BY_DATABASE);
        assert!(version("3.5.24") && version("unknown") && !version("3.6.5"));
    }

    #[test]
    fn what_may_pass_is_waited_for_and_shown_and_then_left_to_a_person_with_what_to_do() {
        let at = |seconds: i64| Timestamp::UNIX_EPOCH + TimeDelta::seconds(seconds);
        assert_eq!(waits_until(at(100), at(100 + 3_600)), at(400));
        assert_eq!(waits_until(at(100), at(100 + 600)), at(250), "kubeadm keeps most of a short time");
        let problem = || Problem { reason: Reason::new("EtcdMemberAway", "cp-2 does not answer"), remedy: "mend it" };
        let Ok(Look::Wait(wait)) = waited(problem(), at(400), at(395)) else { panic!("it waits") };
        assert_eq!((wait.until, wait.shown), (at(400), true));
        assert_eq!(wait.reason.message, "cp-2 does not answer; waited for until 00:06:40 UTC");
        let Err(StepError::NeedsOperator(reason)) = waited(problem(), at(400), at(400)) else { panic!("it rests") };
        assert!(reason.message.ends_with("and it did not pass; mend it, then retry"), "{reason}");
    }
}
