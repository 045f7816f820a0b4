//! What is counted, in Prometheus' text format on /metrics.

use cupcake_engine::event::{AfterFailure, Event};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabel {
    phase: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabel {
    operation_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodesLabel {
    operation_id: String,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WatchLabel {
    resource: &'static str,
}

/// The operator's metrics. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    attempts: Family<ResultLabel, Counter>,
    operations: Family<PhaseLabel, Counter>,
    in_progress: Family<OperationLabel, Gauge>,
    nodes: Family<NodesLabel, Gauge>,
    watch_failures: Family<WatchLabel, Counter>,
    fenced: Counter,
    leader: Gauge,
    spans_dropped: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let metrics = Self {
            registry: Arc::default(),
            attempts: Family::default(),
            operations: Family::default(),
            in_progress: Family::default(),
            nodes: Family::default(),
            watch_failures: Family::default(),
            fenced: Counter::default(),
            leader: Gauge::default(),
            spans_dropped: Counter::default(),
        };
        registry.register("cupcake_step_attempts", "Attempts of steps that ended, by result", metrics.attempts.clone());
        registry.register("upgrade_operations", "Operations that ended, by phase", metrics.operations.clone());
        registry.register("upgrade_in_progress", "1 while the operation is under way", metrics.in_progress.clone());
        registry.register("upgrade_operation_nodes", "Nodes of the operation, by status", metrics.nodes.clone());
        registry.register("cupcake_watch_failures", "Watches that failed", metrics.watch_failures.clone());
        registry.register("cupcake_fenced", "Writes refused because another leader took over", metrics.fenced.clone());
        registry.register("cupcake_leader", "1 while this replica leads", metrics.leader.clone());
        registry.register("cupcake_spans_dropped", "Spans that no collector got", metrics.spans_dropped.clone());
        Self { registry: Arc::new(Mutex::new(registry)), ..metrics }
    }
}

impl Metrics {
    /// Counts what a tick recorded.
    pub fn ticked(&self, events: &[Event]) {
        for event in events {
            let result = match event {
                Event::Succeeded { .. } => "success",
                Event::Skipped { .. } => "skip",
                Event::Failed { next: AfterFailure::Retry(_), .. } => "retry",
                Event::Failed { next: AfterFailure::Rest, .. } => "failure",
                Event::Started { .. }
                | Event::Waiting { .. }
                | Event::Continued { .. }
                | Event::TakenUp { .. }
                | Event::Reset { .. }
                | Event::Paused { .. }
                | Event::Resumed { .. }
                | Event::Credited { .. }
                | Event::CancelRequested { .. }
                | Event::HeldBack { .. }
                | Event::Rested { .. }
                | Event::Finished { .. }
                | Event::Unknown => continue,
            };
            self.attempts.get_or_create(&ResultLabel { result }).inc();
        }
    }

    /// An operation is under way, with so many nodes done of so many.
    pub fn operation(&self, operation_id: &str, completed: u32, total: u32) {
        let operation_id = operation_id.to_owned();
        self.in_progress.get_or_create(&OperationLabel { operation_id: operation_id.clone() }).set(1);
        for (status, count) in [("completed", completed), ("total", total)] {
            let label = NodesLabel { operation_id: operation_id.clone(), status };
            self.nodes.get_or_create(&label).set(i64::from(count));
        }
    }

    /// An operation ended in that phase: its own series go, so that their number stays bounded.
    pub fn operation_ended(&self, operation_id: &str, phase: &str) {
        let operation_id = operation_id.to_owned();
        self.operations.get_or_create(&PhaseLabel { phase: phase.to_owned() }).inc();
        self.in_progress.remove(&OperationLabel { operation_id: operation_id.clone() });
        for status in ["completed", "total"] {
            self.nodes.remove(&NodesLabel { operation_id: operation_id.clone(), status });
        }
    }

    /// A watch failed.
    pub fn watch_failed(&self, resource: &'static str) {
        self.watch_failures.get_or_create(&WatchLabel { resource }).inc();
    }

    /// A write was refused because another leader took over.
    pub fn fenced(&self) {
        self.fenced.inc();
    }

    /// So many spans were dropped.
    pub fn spans_dropped(&self, count: u64) {
        self.spans_dropped.inc_by(count);
    }

    /// Whether this replica leads.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Whether this replica leads, as last set.
    pub fn is_leader(&self) -> bool {
        self.leader.get() == 1
    }

    /// All metrics as OpenMetrics text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing into a String cannot fail; a metric that refused to encode would be missing, not wrong.
        let _ = encode(&mut text, &registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_an_operation_go_when_it_ends_and_its_end_is_counted() {
        let metrics = Metrics::default();
        metrics.operation("op-1", 2, 8);
        assert!(metrics.text().contains("upgrade_in_progress{operation_id=\"op-1\"} 1"), "{}", metrics.text());
        metrics.operation_ended("op-1", "Succeeded");
        let text = metrics.text();
        assert!(!text.contains("op-1"), "{text}");
        assert!(text.contains("upgrade_operations_total{phase=\"Succeeded\"} 1"), "{text}");
    }
}
