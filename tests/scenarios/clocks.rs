//! Clocks of machines that are off: told by name, difference and side before anything moves, and never where an answer was only slow.

use crate::cluster::{Cluster, QUIET_SECONDS, UPDATE, in_cluster};
use chrono::TimeDelta;
use cupcake_crds::node_task::ClockDifference;
use cupcake_crds::values::Phase;
use cupcake_crds::{GROUP, NodeTask};
use cupcake_sandbox::api::{Fault, Faults, ReplyFault, RequestInfo, RequestRecord, Verb};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// What the agent of a node told of its machine's clock.
fn clock(cluster: &Cluster, node: &str) -> Option<ClockDifference> {
    cluster.task(node).status?.inventory?.clock
}

/// What the check of machines told as the update began.
fn machines(cluster: &Cluster) -> String {
    let results = cluster.update(UPDATE).unwrap().status.unwrap().preflight_results.unwrap();
    let check = results.checks.into_iter().find(|check| check.name == "Machines").unwrap();
    assert!(check.passed, "{check:?}");
    check.message.unwrap_or_default()
}

#[test]
fn a_machine_whose_clock_is_off_is_refused_before_anything_moves_and_the_update_begins_by_itself_once_it_is_mended() {
    for (node, seconds, told) in [("w-1", 600, "w-1 (10m ahead, ±1s)"), ("cp-1", -90, "cp-1 (1m30s behind, ±1s)")] {
        in_cluster(2, false, async |cluster| {
            cluster.world.set_clock(node, TimeDelta::seconds(seconds));
            cluster.pass(60).await;
            cluster.apply(UPDATE, json!({})).await;
            let (phase, message) = cluster.at_rest(UPDATE).await;
            assert_eq!(phase, Phase::Pending, "{message}");
            let acknowledged = format!("{{check: ClockSkew, node: {node}}}");
            for part in [told, "chrony or systemd-timesyncd", acknowledged.as_str()] {
                assert!(message.contains(part), "{part}: {message}");
            }
            cluster.pass(QUIET_SECONDS).await;
            assert_eq!((cluster.phase(UPDATE).0, cluster.effects()), (Phase::Pending, 0), "nothing moves: {node}");
            assert!(cluster.cordoned().is_empty(), "{node}");
            cluster.world.set_clock(node, TimeDelta::zero());
            cluster.eventually("it begins", async || cluster.phase(UPDATE).0 == Phase::InProgress).await;
            let (phase, message) = cluster.at_rest(UPDATE).await;
            assert_eq!(phase, Phase::Succeeded, "{node}: {message}");
            assert_eq!(cluster.kubelet(node), "1.34.4");
            assert!(!machines(cluster).contains("clocks that differ"), "{}", machines(cluster));
        });
    }
}

#[test]
fn a_clock_that_is_some_seconds_off_is_told_and_stands_in_no_way() {
    in_cluster(2, false, async |cluster| {
        cluster.world.set_clock("w-2", TimeDelta::seconds(5));
        cluster.pass(60).await;
        cluster.apply(UPDATE, json!({})).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        let told = machines(cluster);
        assert!(told.contains("w-2 (5s ahead, ±1s)") && told.contains("timedatectl on w-2"), "{told}");
    });
}

/// Lets each answer to a read of an agent be on its way for long: there, or back.
struct SlowReads {
    before: Arc<dyn Faults>,
    there: Duration,
    back: Duration,
}

impl SlowReads {
    fn is_slow(request: &RequestInfo) -> bool {
        request.client.starts_with("agent.") && request.verb == Verb::Get
    }
}

impl Faults for SlowReads {
    fn before(&self, request: &RequestInfo) -> Fault {
        match self.before.before(request) {
            Fault::None if Self::is_slow(request) && !self.there.is_zero() => Fault::Delay(self.there),
            decided => decided,
        }
    }

    fn after(&self, record: &RequestRecord<'_>) -> ReplyFault {
        match self.before.after(record) {
            ReplyFault::None if Self::is_slow(record.request) && !self.back.is_zero() => ReplyFault::Delay(self.back),
            decided => decided,
        }
    }
}

#[test]
fn slow_answers_take_no_right_clock_for_a_wrong_one() {
    let (slow, quick) = (Duration::from_secs(20), Duration::ZERO);
    for (there, back) in [(slow, quick), (quick, slow)] {
        in_cluster(2, false, async |cluster| {
            let server = cluster.world.server();
            let before = server.faults().unwrap();
            server.inject(Arc::new(SlowReads { before, there, back }));
            cluster.apply(UPDATE, json!({})).await;
            let (phase, message) = cluster.at_rest(UPDATE).await;
            assert_eq!(phase, Phase::Succeeded, "{message}");
            let told = machines(cluster);
            assert!(!told.contains("clocks that differ"), "{told}");
            for node in ["cp-1", "w-1", "w-2"] {
                let clock = clock(cluster, node).unwrap();
                assert!(clock.uncertainty_milliseconds > 10_000, "{node}: {clock:?}");
                assert!(clock.ahead_milliseconds.unsigned_abs() > 9_000, "as far as the answer tells: {clock:?}");
                assert!(clock.ahead_milliseconds.unsigned_abs() <= clock.uncertainty_milliseconds, "{node}: {clock:?}");
            }
        });
    }
}

#[test]
fn every_machine_with_a_right_clock_tells_one_that_may_be_right() {
    in_cluster(5, true, async |cluster| {
        cluster.apply(UPDATE, json!({})).await;
        let (phase, message) = cluster.at_rest(UPDATE).await;
        assert_eq!(phase, Phase::Succeeded, "{message}");
        for task in cluster.all::<NodeTask>(GROUP, "nodetasks") {
            let clock = clock(cluster, &task.spec.node_name).expect("each agent tells of it");
            assert!(clock.ahead_milliseconds.unsigned_abs() <= clock.uncertainty_milliseconds, "{clock:?}");
            assert!(clock.uncertainty_milliseconds < 1_000, "{clock:?}");
        }
    });
}
