//! What /metrics tells of an update while it goes on and when it is over: by a whole operator, not by its parts.

use chrono::{DateTime, TimeDelta};
use cupcake_crds::values::{Concurrency, KubeVersion};
use cupcake_operator::metrics::Metrics;
use cupcake_sandbox::machine::fault::{Component, Fault, Wrong};
use cupcake_sandbox::world::{self, Upgrade, World, WorldConfig};

/// What was scraped every ten seconds, and at the end, of an update that meets these faults.
fn scraped(faults: &[Fault]) -> (Vec<String>, String) {
    let mut config = WorldConfig::new(KubeVersion::new(1, 33, 4), DateTime::from_timestamp(1_767_225_600, 0).unwrap());
    config.control_planes = 1;
    config.workers = 2;
    config.faults = faults.to_vec();
    let metrics = Metrics::default();
    let mut scrapes = Vec::new();
    world::runtime(config.speed).unwrap().block_on(async {
        let world = World::new(config).unwrap();
        world.count_in(metrics.clone());
        world.start();
        let wanted =
            Upgrade { name: "upgrade".into(), to: KubeVersion::new(1, 34, 4), concurrency: Concurrency::Nodes(1) };
        let mut upgrade = std::pin::pin!(world.upgrade(&wanted));
        let outcome = loop {
            let next = world.clock().sleep_until(world.now() + TimeDelta::seconds(10));
            tokio::select! {
                biased;
                outcome = &mut upgrade => break outcome.unwrap(),
                () = next => scrapes.push(metrics.text()),
            }
        };
        assert!(outcome.succeeded(), "{}", outcome.message);
        assert_eq!(world.faults_happened().len(), faults.len());
        world.clock().sleep_until(world.now() + TimeDelta::seconds(60)).await;
    });
    (scrapes, metrics.text())
}

/// The value of the first series that begins so.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(series))?;
    line.split(" # ").next()?.rsplit(' ').next()?.parse().ok()
}

#[test]
fn an_update_is_told_by_metrics_while_it_goes_on_and_leaves_only_counts_when_it_is_over() {
    let (scrapes, end) = scraped(&[]);
    let seen = |series: &str| -> Vec<f64> { scrapes.iter().filter_map(|text| value(text, series)).collect() };
    assert!(scrapes.len() > 20, "{}", scrapes.len());
    assert!(seen("upgrade_in_progress{operation_id=").contains(&1.0));
    let completed: Vec<f64> = scrapes
        .iter()
        .filter_map(|text| {
            let line = text.lines().find(|line| {
                line.starts_with("upgrade_operation_nodes_total{") && line.contains("status=\"completed\"")
            })?;
            line.rsplit(' ').next()?.parse().ok()
        })
        .collect();
    assert!(completed.is_sorted() && completed.contains(&0.0) && completed.contains(&2.0), "{completed:?}");
    assert!(seen("cupcake_backup_timestamp_seconds{operation_id=").iter().all(|at| *at > 1_767_225_600.0));
    assert!(!seen("cupcake_backup_bytes{operation_id=").is_empty());
    assert!(seen("cupcake_nodes_cordoned ").contains(&1.0));
    assert!(seen("cupcake_nodes{role=\"worker\",kubelet=\"1.33.4\"}").contains(&2.0));

    for (series, wanted) in [
        ("upgrade_operations_total{phase=\"Succeeded\"}", 1.0),
        ("upgrade_node_step_duration_seconds_count{step=\"drain-node/v1\",result=\"success\"}", 3.0),
        ("cupcake_step_attempts_total{step=\"uncordon-node/v1\",result=\"success\"}", 3.0),
        ("cupcake_updates{phase=\"Succeeded\"}", 1.0),
        ("cupcake_nodes{role=\"worker\",kubelet=\"1.34.4\"}", 2.0),
        ("cupcake_nodes_cordoned ", 0.0),
        ("cupcake_nodes_unanswered ", 0.0),
        ("cupcake_leader ", 1.0),
        ("cupcake_queue_late_seconds ", 0.0),
    ] {
        assert_eq!(value(&end, series), Some(wanted), "{series}\n{end}");
    }
    let drained = value(&end, "upgrade_node_step_duration_seconds_sum{step=\"drain-node/v1\",result=\"success\"}");
    assert!(drained.is_some_and(|seconds| (1.0..3_600.0).contains(&seconds)), "{drained:?}");
    assert!(value(&end, "cupcake_journal_write_seconds_count{result=\"success\"}").unwrap() > 20.0, "{end}");
    assert!(value(&end, "cupcake_reconcile_duration_seconds_count{controller=\"run\"}").unwrap() > 20.0, "{end}");
    assert!(!end.contains("operation_id="), "{end}");
}

#[test]
fn a_leader_that_takes_over_tells_all_of_the_update_at_once_and_counts_what_it_took_over() {
    let (scrapes, end) = scraped(&[Fault::at_write(Component::Operator, 60, Wrong::After)]);
    assert_eq!(value(&end, "upgrade_operations_total{phase=\"Succeeded\"}"), Some(1.0), "{end}");
    let leaderships = |text: &str| value(text, "cupcake_leaderships_total ").unwrap();
    // One for each life of the operator, and one for each time that it gave up since its own node was disturbed.
    assert!(leaderships(&end) >= 2.0, "{end}");
    let resumed = value(&end, "cupcake_resumes_total ").unwrap();
    assert!(resumed >= leaderships(&end) - 1.0, "each but the first took over a run at least: {end}");
    let later = scrapes.iter().filter(|text| leaderships(text) >= 2.0);
    // A scrape may come while it does not lead, or has not looked around.
    let told: Vec<&String> =
        later.filter(|text| value(text, "cupcake_updates{phase=\"InProgress\"}") == Some(1.0)).collect();
    assert!(told.len() > 5, "{}", told.len());
    for text in told {
        assert_eq!(value(text, "upgrade_in_progress{operation_id="), Some(1.0), "{text}");
        assert_eq!(value(text, "cupcake_nodes_unanswered "), Some(0.0), "{text}");
    }
}
