//! What a drain tells: which pods stay, and what keeps them. Pure.
//!
//! A cursor keeps 240 bytes of a reason (`cupcake_engine::cursor::NOTE_BYTES_MAX`): what may be cut comes last.

use crate::cluster::params::Drained;
use crate::ports::cluster::{Consent, NodeView, PodView};
use chrono::TimeDelta;
use cupcake_crds::limits;
use cupcake_engine::clock::Timestamp;
use cupcake_engine::names::Reason;

/// How long after its grace period a pod that is still there is told, in seconds.
const STUCK_SECONDS: i64 = 60;
/// Pods that are named for each thing that keeps them.
const PODS_TOLD_MAX: usize = 3;
/// Things that keep pods which are told.
const SORTS_TOLD_MAX: usize = 2;

/// A pod as messages name it.
pub(super) fn name_of(pod: &PodView) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}

/// Why a pod is not evicted that nobody agreed to lose.
pub(super) fn not_agreed(pod: &PodView, consent: Consent) -> Option<Reason> {
    let what = match (pod.unmanaged && !consent.unmanaged, pod.empty_dir && !consent.empty_dir) {
        (true, _) => "nothing would make it anew (spec.drain.deleteUnmanagedPods is not set)",
        (false, true) => "the data of its emptyDir would be lost (spec.drain.deleteEmptyDirData is not set)",
        (false, false) => return None,
    };
    Some(Reason::new("NeedsConsent", format!("{what}: delete it yourself, or leave the node out")))
}

/// A pod that should have ended by now, and what holds it.
pub(super) fn stuck(pod: &PodView, now: Timestamp) -> Option<String> {
    let ends = pod.ends.filter(|ends| now >= *ends + TimeDelta::seconds(STUCK_SECONDS))?;
    let held = match pod.finalizers.as_slice() {
        [] => "its kubelet has not ended it".to_owned(),
        finalizers => format!("held by its finalizers {}", finalizers.join(", ")),
    };
    Some(format!("pod {} should have ended at {} UTC: {held}", name_of(pod), ends.format("%H:%M:%S")))
}

/// That nobody hears of the kubelet that would have to end these pods.
pub(super) fn unheard(node: &NodeView, left: &[PodView], until: Option<Timestamp>) -> Reason {
    let since = node.readiness_since.map_or_else(
        || "its kubelet is not heard of".to_owned(),
        |since| format!("its kubelet has not been heard of since {} UTC", since.format("%H:%M:%S")),
    );
    let pods: Vec<String> = left.iter().map(name_of).collect();
    let pods: Vec<&str> = pods.iter().map(String::as_str).collect();
    let count = match left.len() {
        1 => "1 pod there cannot".to_owned(),
        more => format!("{more} pods there cannot"),
    };
    let message = format!(
        "{}: {since}: {count} be seen to end, and nothing is evicted until it is back{}: {}",
        node.node.name,
        until.map(trying_until).unwrap_or_default(),
        first_of(&pods)
    );
    Reason::new("NodeUnreachable", message)
}

/// The pods that are waited for until they have ended by themselves.
pub(super) fn completing(node: &str, pods: &[&PodView], later_pods: usize, until: Option<Timestamp>) -> Reason {
    let names: Vec<String> = pods.iter().map(|pod| name_of(pod)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let count = match pods.len() {
        1 => "1 pod".to_owned(),
        more => format!("{more} pods"),
    };
    let until = until.map(|until| format!(", until {} UTC", until.format("%H:%M:%S"))).unwrap_or_default();
    let message = format!(
        "{node}: waits for {count} to complete, as spec.drain.rules says{until}: {}{}",
        first_of(&names),
        later(later_pods)
    );
    Reason::new("PodsCompleting", message)
}

/// That others wait for those that are spoken of.
pub(super) fn later(pods: usize) -> String {
    match pods {
        0 => String::new(),
        1 => "; 1 pod of a later order waits for that".to_owned(),
        more => format!("; {more} pods of a later order wait for that"),
    }
}

/// What volumes a node waits for whose pods are gone.
pub(super) fn attached(node: &str, volumes: &str, until: Timestamp) -> Reason {
    let until = until.format("%H:%M:%S");
    let message =
        format!("{node}: its pods are gone, waits until {until} UTC for what they have left attached: {volumes}");
    Reason::new("VolumesAttached", message)
}

/// `, trying until 14:13:20 UTC`
pub(super) fn trying_until(until: Timestamp) -> String {
    format!(", trying until {} UTC", until.format("%H:%M:%S"))
}

/// `a, b, c and 2 more`
pub(super) fn first_of(pods: &[&str]) -> String {
    let more = match pods.len().saturating_sub(PODS_TOLD_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let named: Vec<&str> = pods.iter().take(PODS_TOLD_MAX).copied().collect();
    format!("{}{more}", named.join(", "))
}

/// `5 pods: a, b, c and 2 more`, as long as [`Drained`] lets it be; `None` where there are none.
pub(super) fn counted(names: &[String], one: &str) -> Option<String> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut told = match names.len() {
        0 => return None,
        1 => format!("1 {one}: {}", names[0]),
        more => format!("{more} {one}s: {}", first_of(&names)),
    };
    limits::cut(&mut told, Drained::CHARS_MAX);
    Some(told)
}

/// Which pods stay, by what keeps them: the first of each sort by name, the others counted; and until when they are asked for.
pub(super) fn blocked(node: &str, blocked: &[(String, Reason)], until: Option<Timestamp>) -> String {
    let mut sorts: Vec<(&str, Vec<&str>)> = Vec::new();
    for (pod, reason) in blocked {
        match sorts.iter_mut().find(|(message, _)| *message == reason.message) {
            Some((_, pods)) => pods.push(pod),
            None => sorts.push((&reason.message, vec![pod])),
        }
    }
    let told = sorts.iter().take(SORTS_TOLD_MAX);
    let told: Vec<String> = told.map(|(message, pods)| format!("{}: {message}", first_of(pods))).collect();
    let others = match sorts.len().saturating_sub(SORTS_TOLD_MAX) {
        0 => String::new(),
        1 => "; and another reason".to_owned(),
        more => format!("; and {more} other reasons"),
    };
    let until = until.map(trying_until).unwrap_or_default();
    let pods = match blocked.len() {
        1 => "1 pod".to_owned(),
        more => format!("{more} pods"),
    };
    format!("{node}: {pods} may not be evicted{until}: {}{others}", told.join("; "))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, pod};
    use super::*;
    use crate::ports::cluster::{CordonOwner, Readiness};
    use cupcake_crds::values::{NodeRef, NodeRole};

    #[test]
    fn pods_that_stay_are_told_by_what_keeps_them() {
        let budget = "The disruption budget shop needs 9 healthy pods and has 9 currently";
        let told = |pods: &[(&str, &str)]| -> String {
            let pods: Vec<(String, Reason)> = pods
                .iter()
                .map(|(pod, message)| ((*pod).to_owned(), Reason::new("Test", (*message).to_owned())))
                .collect();
            blocked("w-1", &pods, Some(at(0)))
        };
        assert_eq!(
            told(&[("shop-0", budget)]),
            format!("w-1: 1 pod may not be evicted, trying until 14:13:20 UTC: shop-0: {budget}")
        );
        let many = [("a", budget), ("b", "a webhook"), ("c", budget), ("d", budget), ("e", budget), ("f", "third")];
        assert_eq!(
            told(&many),
            format!(
                "w-1: 6 pods may not be evicted, trying until 14:13:20 UTC: a, c, d and 1 more: {budget}; b: a webhook; and another reason"
            )
        );
    }

    #[test]
    fn a_pod_that_does_not_end_is_told_with_what_holds_it() {
        let leaving = PodView { terminating: true, ends: Some(at(30)), ..pod() };
        assert_eq!((stuck(&leaving, at(89)), stuck(&pod(), at(900))), (None, None));
        let told = stuck(&leaving, at(90)).unwrap();
        assert_eq!(told, "pod default/shop-0 should have ended at 14:13:50 UTC: its kubelet has not ended it");
        let held = PodView { finalizers: vec!["example.com/backup".into()], ..leaving };
        assert!(stuck(&held, at(90)).unwrap().ends_with("held by its finalizers example.com/backup"));
    }

    #[test]
    fn a_kubelet_that_is_not_heard_of_is_told_with_since_when_and_the_pods_that_nobody_sees_end() {
        let node = NodeView {
            node: NodeRef { name: "w-1".into(), uid: "u".into() },
            resource_version: "1".into(),
            role: NodeRole::Worker,
            kubelet: None,
            readiness: Readiness::Unknown,
            readiness_since: Some(at(40)),
            heartbeat: None,
            cordon: CordonOwner::Nobody,
            labels: std::collections::BTreeMap::new(),
        };
        let told = unheard(&node, &[pod()], Some(at(900)));
        let expected = "w-1: its kubelet has not been heard of since 14:14:00 UTC: 1 pod there cannot be seen to end, and nothing is evicted until it is back, trying until 14:28:20 UTC: default/shop-0";
        assert_eq!((told.code.as_str(), told.message.as_str()), ("NodeUnreachable", expected));
        let unknown = unheard(&NodeView { readiness_since: None, ..node }, &[pod(), pod()], None);
        assert!(unknown.message.starts_with("w-1: its kubelet is not heard of: 2 pods there cannot"), "{unknown}");
    }

    #[test]
    fn pods_that_are_to_complete_are_told_with_until_when_and_how_many_wait_for_them() {
        let (one, other) = (pod(), PodView { name: "job-1".into(), ..pod() });
        let told = completing("w-1", &[&one, &other], 3, Some(at(900)));
        let expected = "w-1: waits for 2 pods to complete, as spec.drain.rules says, until 14:28:20 UTC: default/shop-0, default/job-1; 3 pods of a later order wait for that";
        assert_eq!((told.code.as_str(), told.message.as_str()), ("PodsCompleting", expected));
        assert!(completing("w-1", &[&one], 0, None).message.ends_with("rules says: default/shop-0"));
    }

    #[test]
    fn pods_are_counted_and_named_as_far_as_there_is_room() {
        let named = |names: &[&str]| counted(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), "pod");
        assert_eq!((named(&[]), named(&["shop/a"]).as_deref()), (None, Some("1 pod: shop/a")));
        assert_eq!(named(&["a", "b", "c", "d", "e"]).as_deref(), Some("5 pods: a, b, c and 2 more"));
        let long = named(&[&"a".repeat(200), "b"]).unwrap();
        assert!(long.chars().count() == Drained::CHARS_MAX && long.starts_with("2 pods: aaa"), "{long}");
    }

    #[test]
    fn a_pod_that_loses_something_goes_only_where_that_was_agreed_to() {
        let consent = |empty_dir, unmanaged| Consent { empty_dir, unmanaged };
        let (local, bare) = (PodView { empty_dir: true, ..pod() }, PodView { unmanaged: true, ..pod() });
        let goes = |pod: &PodView, consent| not_agreed(pod, consent).is_none();
        assert!(goes(&pod(), consent(false, false)));
        assert_eq!([goes(&local, consent(false, true)), goes(&local, consent(true, false))], [false, true]);
        assert_eq!([goes(&bare, consent(true, false)), goes(&bare, consent(false, true))], [false, true]);
    }
}
