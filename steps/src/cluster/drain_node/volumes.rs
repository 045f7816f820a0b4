//! Volumes that stay attached to a node whose pods are gone. Pure.
//!
//! The pod that takes the place of one that is gone starts elsewhere only when its volume is detached, which the kubelet of the node
//! that is emptied has to allow first: it unmounts. One that is restarted meanwhile does that later, or not at all, and then the
//! volume is taken away by force after six minutes. So a drain waits for them, for as long as it has time, and no longer: its pods
//! are gone, which is what it promises.
//!
//! Source: kubernetes.io, "Node Shutdowns", "Storage force detach on timeout" (v1.34); Cluster API 1.12, "Machine deletion process",
//! which waits for VolumeAttachments as well, but for those of pods that it leaves where they are.

use super::told;
use crate::ports::cluster::{PodKind, PodView, VolumeView};
use chrono::TimeDelta;
use cupcake_engine::clock::Timestamp;
use std::collections::BTreeSet;

/// How long a volume may take to be detached before it is told, in seconds.
const DETACHING_SECONDS: i64 = 60;

/// The volumes that a drain which began at `started` waits for: those of no pod that is still there, by its claim, and not those whose
/// detaching was under way before: what is stuck for longer hangs on no pod of this drain.
pub(super) fn waited_for(volumes: Vec<VolumeView>, pods: &[PodView], started: Timestamp) -> Vec<VolumeView> {
    let there = pods.iter().filter(|pod| pod.kind != PodKind::Finished);
    let in_use: BTreeSet<String> =
        there.flat_map(|pod| pod.claims.iter().map(move |claim| format!("{}/{claim}", pod.namespace))).collect();
    let is_old = |volume: &VolumeView| volume.detaching_since.is_some_and(|since| since < started);
    let is_used = |volume: &VolumeView| volume.claim.as_ref().is_some_and(|claim| in_use.contains(claim));
    volumes.into_iter().filter(|volume| !is_old(volume) && !is_used(volume)).collect()
}

/// Whether people should hear of one of them. Since when its pod is gone nobody knows: where it is not being detached yet, the time
/// counts from the beginning of the drain.
pub(super) fn is_late(volumes: &[VolumeView], started: Timestamp, now: Timestamp) -> bool {
    let overdue = |since: Timestamp| now >= since + TimeDelta::seconds(DETACHING_SECONDS);
    volumes.iter().any(|volume| overdue(volume.detaching_since.unwrap_or(started)))
}

/// `2 volumes: pvc-1 (shop/data-db-0), pvc-2`; `None` where there are none.
pub(super) fn counted(volumes: &[VolumeView]) -> Option<String> {
    let names = volumes.iter().map(|volume| match &volume.claim {
        Some(claim) => format!("{} ({claim})", volume.name),
        None => volume.name.clone(),
    });
    told::counted(&names.collect::<Vec<_>>(), "volume")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, pod};
    use super::*;

    fn volume(name: &str, claim: Option<&str>, detaching_since: Option<i64>) -> VolumeView {
        let claim = claim.map(str::to_owned);
        VolumeView { name: name.into(), claim, detaching_since: detaching_since.map(at) }
    }

    #[test]
    fn volumes_of_pods_that_stay_and_those_that_were_stuck_before_are_not_waited_for() {
        let stays = PodView { kind: PodKind::Daemon, claims: vec!["data-node".into()], ..pod() };
        let over = PodView { kind: PodKind::Finished, claims: vec!["data-job".into()], ..pod() };
        let elsewhere = PodView { namespace: "other".into(), claims: vec!["data-db-0".into()], ..stays.clone() };
        let volumes = vec![
            volume("of-db", Some("default/data-db-0"), None),
            volume("of-daemon", Some("default/data-node"), None),
            volume("of-job", Some("default/data-job"), Some(20)),
            volume("stuck", None, Some(-86_400)),
            volume("of-nobody", None, None),
        ];
        let waited = waited_for(volumes, &[stays, over, elsewhere], at(0));
        let names: Vec<&str> = waited.iter().map(|volume| volume.name.as_str()).collect();
        assert_eq!(names, ["of-db", "of-job", "of-nobody"]);
        assert_eq!(
            counted(&waited).unwrap(),
            "3 volumes: of-db (default/data-db-0), of-job (default/data-job), of-nobody"
        );
        assert_eq!(counted(&[]), None);
    }

    #[test]
    fn a_volume_is_told_a_minute_after_its_detaching_began_or_else_after_the_drain_did() {
        let late = |since, now| is_late(&[volume("v", None, since)], at(0), at(now));
        assert_eq!([late(None, 59), late(None, 60)], [false, true]);
        assert_eq!([late(Some(300), 359), late(Some(300), 360)], [false, true]);
        assert!(!is_late(&[], at(0), at(900)));
    }
}
