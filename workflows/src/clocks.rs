//! The clocks of machines against those of the API servers, as their agents compared them.
//!
//! What is certain counts, whatever the comparison leaves open: of a slow answer that is less. Which API server an agent compared with is
//! not known, so that a difference may be either's, and a control-plane machine that is off is seen by the agents that its API server
//! answers: where most machines differ alike, its clock is the one to look at.

use crate::changes::is_acknowledged;
use crate::finding::{Code, Finding, Findings, named};
use crate::render::duration;
use cupcake_crds::DirectUpdateSpec;
use cupcake_crds::node_task::ClockDifference;
use cupcake_crds::values::{ClusterSnapshot, NodeSnapshot};

/// From how much on a difference is told, in milliseconds. Machines that follow a time server are a fraction of a second apart, and etcd
/// warns of members that are more than one ("prober found high clock drift"); two, since both may be off, each its own way.
///
/// Source: etcd v3.5, server/etcdserver/api/rafthttp/probing_status.go.
const TOLD_MILLISECONDS: i64 = 2_000;

/// From how much on it is refused, in milliseconds. A minute is the leeway that an API server gives a token: what another one issued
/// further in its own future is not valid yet, so that pods that an upgrade starts are refused by every API server that is as far behind.
/// Certificates follow at five minutes, by which those of kubelets, and of newer kubeadms, are dated back. And for how long a Node is Ready
/// is told by its machine's clock: minutes of difference let the step that waits for it fail on a healthy node.
///
/// Source: kubernetes/kubernetes v1.34, pkg/serviceaccount/claims.go (`Validate`, by go-jose with its `jwt.DefaultLeeway`),
/// pkg/controller/certificates/signer/signer.go (`Backdate`), cmd/kubeadm/app/constants/constants.go (`CertificateBackdate`).
const REFUSED_MILLISECONDS: i64 = 60_000;

/// Machines that change and whose clock is certainly off.
pub(crate) fn clocks(
    spec: &DirectUpdateSpec,
    snapshot: &ClusterSnapshot,
    changing: &[&NodeSnapshot],
    findings: &mut Findings,
) {
    let off: Vec<&NodeSnapshot> = changing.iter().copied().filter(|node| is_beyond(node, TOLD_MILLISECONDS)).collect();
    let (far, near): (Vec<&NodeSnapshot>, Vec<&NodeSnapshot>) =
        off.into_iter().partition(|node| is_beyond(node, REFUSED_MILLISECONDS));
    let (known, open): (Vec<&NodeSnapshot>, Vec<&NodeSnapshot>) =
        far.into_iter().partition(|node| is_acknowledged(spec, Code::ClockSkew, node));
    let finding = |nodes: &[&NodeSnapshot], message: &str, remedy: &str| {
        let names = nodes.iter().map(|node| node.node.name.clone()).collect();
        Finding::new(Code::ClockSkew, "nodes", named(nodes.iter().copied().map(told)), message, remedy)
            .by_inventories_of(names)
    };
    let beyond_a_minute = "clocks that differ from that of the API server that answered by more than a minute: \
         tokens and certificates that are made on one side are not valid yet on the other, and healthy nodes fail as overdue";
    if let Some(first) = open.first() {
        let remedy = format!(
            "{}; or name it in spec.acknowledge: {{check: ClockSkew, node: {}}}",
            mend(snapshot, &first.node.name),
            first.node.name
        );
        findings.refuse(finding(&open, beyond_a_minute, &remedy));
    }
    if !known.is_empty() {
        findings.warn(finding(&known, beyond_a_minute, "acknowledged in spec.acknowledge"));
    }
    if let Some(first) = near.first() {
        let message = "clocks that differ from that of the API server that answered by more than two seconds: \
             they follow no time server, or not the same, and drift apart until tokens and certificates are not valid yet";
        findings.warn(finding(&near, message, &mend(snapshot, &first.node.name)));
    }
}

/// What the agent compared.
fn compared(node: &NodeSnapshot) -> Option<ClockDifference> {
    node.inventory.as_ref()?.clock
}

/// By how much its clock is ahead at least, or behind if negative, in milliseconds; nothing where it may be right.
fn certain_milliseconds(clock: ClockDifference) -> i64 {
    let uncertainty = i64::try_from(clock.uncertainty_milliseconds).unwrap_or(i64::MAX);
    let least = clock.ahead_milliseconds.saturating_abs().saturating_sub(uncertainty).max(0);
    least * clock.ahead_milliseconds.signum()
}

fn is_beyond(node: &NodeSnapshot, milliseconds: i64) -> bool {
    compared(node).is_some_and(|clock| certain_milliseconds(clock).abs() > milliseconds)
}

/// `w-1 (10m ahead, ±1s)`
fn told(node: &NodeSnapshot) -> String {
    let clock = compared(node).unwrap_or_default();
    let whole = |milliseconds: i64| milliseconds.saturating_add(500).div_euclid(1_000);
    let way = if clock.ahead_milliseconds < 0 { "behind" } else { "ahead" };
    let by = duration(whole(clock.ahead_milliseconds).saturating_abs());
    format!("{} ({by} {way}, ±{}s)", node.node.name, clock.uncertainty_milliseconds.div_ceil(1_000))
}

/// What to do about it.
fn mend(snapshot: &ClusterSnapshot, first: &str) -> String {
    let all: Vec<i64> = snapshot.nodes.values().filter_map(compared).map(certain_milliseconds).collect();
    let on = |way: i64| all.iter().filter(|one| one.abs() > TOLD_MILLISECONDS && one.signum() == way).count();
    let alike = on(1).max(on(-1));
    let whose = if alike > 1 && alike * 2 > all.len() {
        "most machines differ alike, so look at the clocks of the control-plane nodes first".to_owned()
    } else {
        format!("see timedatectl on {first}")
    };
    format!("{whose}: let chrony or systemd-timesyncd run there and follow the time servers of the other nodes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Compilation;
    use crate::testing::{cluster, compiled, spec};
    use serde_json::{Value, json};

    /// What is refused and what is warned of, where the clocks of these nodes are off by so many milliseconds, give or take so many.
    fn found(fields: &Value, clocks: &[(&str, i64, u64)]) -> (Vec<String>, Vec<String>) {
        let mut snapshot = cluster(3, 2, "1.33.4");
        for (node, ahead_milliseconds, uncertainty_milliseconds) in clocks.iter().copied() {
            let inventory = snapshot.nodes.get_mut(node).unwrap().inventory.as_mut().unwrap();
            inventory.clock = Some(ClockDifference { ahead_milliseconds, uncertainty_milliseconds });
        }
        let only = |findings: Vec<Finding>| -> Vec<String> {
            findings.into_iter().filter(|one| one.code == Code::ClockSkew).map(|one| one.to_string()).collect()
        };
        match compiled(&spec(fields), &snapshot) {
            Ok(Compilation::Plan(plan)) => (Vec::new(), only(plan.report.warnings)),
            Ok(Compilation::NothingToDo(_)) => panic!("nothing to do"),
            Err(refusal) => (only(refusal.findings), only(refusal.warnings)),
        }
    }

    fn well(node: &str) -> (&str, i64, u64) {
        (node, 0, 501)
    }

    fn counts(clocks: &[(&str, i64, u64)]) -> (usize, usize) {
        let (refused, warned) = found(&json!({}), clocks);
        (refused.len(), warned.len())
    }

    #[test]
    fn a_clock_is_told_from_two_seconds_on_and_refused_from_a_minute_on_whichever_way_it_is_off() {
        assert_eq!(counts(&[]), (0, 0), "an older agent says nothing of it");
        for way in [1, -1] {
            for (ahead, told) in [
                (0, (0, 0)),
                (499, (0, 0)),
                (2_500, (0, 0)),
                (2_501, (0, 1)),
                (60_500, (0, 1)),
                (60_501, (1, 0)),
                (i64::MAX, (1, 0)),
            ] {
                assert_eq!(counts(&[("w-01", way * ahead, 500)]), told, "{way} {ahead}");
            }
        }
    }

    #[test]
    fn of_a_slow_answer_only_what_is_certain_counts() {
        assert_eq!(counts(&[("w-01", 15_000, 15_500)]), (0, 0), "it may be right");
        assert_eq!(counts(&[("w-01", 15_000, 12_000)]), (0, 1), "three seconds at least");
        assert_eq!(counts(&[("w-01", 70_000, 15_500)]), (0, 1), "more than a minute is not certain");
    }

    #[test]
    fn a_finding_names_each_machine_by_how_much_its_clock_is_off_which_way_and_what_to_do() {
        let (refused, warned) = found(
            &json!({}),
            &[well("cp-2"), well("cp-3"), ("w-01", 599_700, 501), ("cp-1", -61_800, 520), ("w-02", -3_200, 501)],
        );
        assert!(refused[0].starts_with("nodes \"cp-1 (1m2s behind, ±1s), w-01 (10m ahead, ±1s)\": "), "{refused:?}");
        for part in ["see timedatectl on cp-1", "chrony or systemd-timesyncd", "{check: ClockSkew, node: cp-1}"] {
            assert!(refused[0].contains(part), "{part}: {refused:?}");
        }
        assert!(warned[0].starts_with("nodes \"w-02 (3s behind, ±1s)\": "), "{warned:?}");
        assert!(!warned[0].contains("acknowledge"), "what is only warned of needs no answer: {warned:?}");
    }

    #[test]
    fn a_clock_that_is_acknowledged_by_node_is_told_and_refuses_no_more() {
        let clocks = [("w-01", 600_000, 501), ("w-02", 600_000, 501)];
        let one = json!({"acknowledge": [{"check": "ClockSkew", "node": "w-01"}]});
        let (refused, warned) = found(&one, &clocks);
        assert!(refused[0].starts_with("nodes \"w-02 (10m ahead, ±1s)\""), "{refused:?}");
        assert!(warned[0].starts_with("nodes \"w-01 (10m ahead, ±1s)\"") && warned[0].contains("acknowledged in spec"));
        let (refused, warned) = found(&one, &clocks[..1]);
        assert_eq!((refused.len(), warned.len()), (0, 1));
        let left_out = json!({"control": {"skip": [{"requestId": "1", "vertex": "w-01"}]}});
        assert_eq!(found(&left_out, &clocks[..1]), (vec![], vec![]), "it does not move");
    }

    #[test]
    fn where_most_machines_differ_alike_the_clocks_of_the_control_plane_are_named_first() {
        let told = |clocks: &[(&str, i64, u64)]| found(&json!({}), clocks).0.concat();
        let well = well("cp-1");
        let first = "look at the clocks of the control-plane nodes first";
        assert!(told(&[well, ("w-01", -90_000, 501), ("w-02", -90_000, 501)]).contains(first));
        assert!(!told(&[well, ("w-01", -90_000, 501), ("w-02", 90_000, 501)]).contains(first), "not alike");
        assert!(!told(&[well, ("w-01", -90_000, 501)]).contains(first), "one of two");
    }
}
