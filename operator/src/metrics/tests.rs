use super::*;
use crate::attempts::Attempts;
use crate::attempts::tests::{at, failed, report, started, succeeded, waiting};
use cupcake_engine::event::AfterFailure;
use cupcake_engine::names::RunName;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const OPERATION: &str = "0193a6f2-8d1c-7c55-9a59-5c1f1d0e2b11";

/// Ticks of a run that takes its snapshot at once and drains in a second attempt, after half a minute's wait.
fn ticked(metrics: &Metrics) {
    let backup = json!({"etcd-snapshot.takenAt": "2026-11-29T10:00:00Z", "etcd-snapshot.bytes": "4096"});
    let events = vec![
        started("etcd-backup", 1, 0),
        succeeded("etcd-backup", 1, backup, 20),
        started("w-1/drain", 1, 20),
        waiting("w-1/drain", "DrainBlocked", 25),
        failed("w-1/drain", 1, AfterFailure::Retry(at(60)), 55),
        started("w-1/drain", 2, 60),
        succeeded("w-1/drain", 2, Value::Null, 100),
    ];
    let report = report(&[], events);
    let run = RunName::new("to-1-34").unwrap();
    metrics.ticked(OPERATION, &report, &Attempts::default().ended_with(&run, &report));
}

/// Series of one family in one order: maps by hash give them in any.
fn in_order(text: &str) -> String {
    let mut ordered = String::new();
    let mut series = BTreeMap::<String, String>::new();
    let flush = |series: &mut BTreeMap<String, String>, ordered: &mut String| {
        ordered.extend(std::mem::take(series).into_values());
    };
    for line in text.lines() {
        if line.starts_with('#') {
            flush(&mut series, &mut ordered);
            ordered.push_str(line);
            ordered.push('\n');
            continue;
        }
        let labels = line.split_once('{').map_or("", |(_, rest)| rest.split('}').next().unwrap_or_default());
        let key: Vec<&str> = labels.split(',').filter(|label| !label.starts_with("le=")).collect();
        let lines = series.entry(key.join(",")).or_default();
        lines.push_str(line);
        lines.push('\n');
    }
    flush(&mut series, &mut ordered);
    ordered
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a golden text is written anew where somebody asks for it")]
fn all_metrics_are_as_the_golden_that_promtool_the_alerts_and_the_dashboards_are_checked_against() {
    let metrics = Metrics::default();
    metrics.leads(true);
    board::tests::fill(&metrics.board);
    metrics.took_over();
    ticked(&metrics);
    metrics.operation_ended(OPERATION, "Succeeded");
    metrics.journal_write("success", TimeDelta::milliseconds(8));
    metrics.reconciled("run", TimeDelta::milliseconds(40), true);
    metrics.queue(12, TimeDelta::milliseconds(-5));
    metrics.fenced();
    metrics.spans_dropped(2);
    metrics.notified("sent", 7);
    let text = in_order(&metrics.text());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/goldens/metrics.txt");
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    assert!(golden == text, "metrics changed; UPDATE_GOLDENS=1 takes this over:\n{text}");
    assert!(!text.contains("w-1"), "no series names a node:\n{text}");
}

#[test]
fn each_attempt_counts_for_itself_and_its_wait_under_its_reason() {
    let metrics = Metrics::default();
    ticked(&metrics);
    let text = metrics.text();
    for line in [
        "cupcake_step_attempts_total{step=\"drain-node/v1\",result=\"retry\"} 1",
        "upgrade_node_step_duration_seconds_sum{step=\"drain-node/v1\",result=\"retry\"} 35.0",
        "upgrade_node_step_duration_seconds_sum{step=\"drain-node/v1\",result=\"success\"} 40.0",
        "upgrade_node_step_duration_seconds_count{step=\"host-order/v1\",result=\"success\"} 1",
        "cupcake_step_waited_seconds_total{step=\"drain-node/v1\",reason=\"DrainBlocked\"} 30",
    ] {
        assert!(text.lines().any(|one| one == line), "{line} is not in\n{text}");
    }
    assert!(text.contains("trace_id=\"0193a6f28d1c7c559a595c1f1d0e2b11\""), "{text}");
}

#[test]
fn the_end_of_an_operation_is_counted_by_its_phase() {
    let metrics = Metrics::default();
    metrics.operation_ended(OPERATION, "Succeeded");
    let text = metrics.text();
    assert!(text.contains("upgrade_operations_total{phase=\"Succeeded\"} 1"), "{text}");
    assert!(text.contains("upgrade_operations_total{phase=\"Failed\"} 0"), "{text}");
}
