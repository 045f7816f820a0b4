//! What is counted, as OpenMetrics text on /metrics. docs/observability.md lists every metric and how many series it can have.
//!
//! Two kinds: what happened in this process (counters and histograms, here) and what stands in the cluster (`board`, of the
//! leader alone). No label names a node; values that come from outside are bounded (`words`).

mod board;
mod words;

use crate::attempts::{End, Told};
use crate::controllers::records::last_backup;
use crate::traces;
use crate::watches::{Changed, Watches};
use board::Board;
use chrono::TimeDelta;
use cupcake_engine::tick::TickReport;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::{CounterWithExemplar, HistogramWithExemplars};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use words::Words;

/// How many codes of reasons are told apart. The release has about 130; steps of users may have more.
const CODES_MAX: usize = 192;
/// How many kinds of steps are told apart. The release has eleven; steps of users may be more.
const KINDS_MAX: usize = 64;
/// Bounds of the durations of steps, in seconds: from what an answer of the API takes to the longest drain.
const STEP_SECONDS: [f64; 12] = [1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_200.0, 1_800.0, 3_600.0, 7_200.0];
/// Bounds of the durations of requests and reconciles, in seconds; a reconcile ends after 300.
const REQUEST_SECONDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0];
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    step: String,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WaitLabels {
    step: String,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabel {
    phase: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WatchLabel {
    resource: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ControllerLabel {
    controller: &'static str,
}

/// Leads from a point in a graph to the trace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TraceLabel {
    trace_id: String,
}

type Steps = Family<StepLabels, HistogramWithExemplars<TraceLabel>, fn() -> HistogramWithExemplars<TraceLabel>>;
type Durations<L> = Family<L, Histogram, fn() -> Histogram>;

/// The operator's metrics. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    board: Board,
    codes: Arc<Words>,
    kinds: Arc<Words>,
    attempts: Family<StepLabels, Counter>,
    step_seconds: Steps,
    waited_seconds: Family<WaitLabels, Counter>,
    operations: Family<PhaseLabel, CounterWithExemplar<TraceLabel>>,
    watch_failures: Family<WatchLabel, Counter>,
    fenced: Counter,
    leader: Gauge,
    leaderships: Counter,
    resumes: Counter,
    journal_seconds: Durations<ResultLabel>,
    reconcile_seconds: Durations<ControllerLabel>,
    reconcile_errors: Family<ControllerLabel, Counter>,
    queue_depth: Gauge,
    queue_late_seconds: Gauge<f64, AtomicU64>,
    spans_dropped: Counter,
    notifications: Family<ResultLabel, Counter>,
}

fn request_histogram() -> Histogram {
    Histogram::new(REQUEST_SECONDS)
}

fn step_histogram() -> HistogramWithExemplars<TraceLabel> {
    HistogramWithExemplars::new(STEP_SECONDS.into_iter())
}

impl Default for Metrics {
    fn default() -> Self {
        let codes = Arc::new(Words::new(CODES_MAX));
        let metrics = Self {
            registry: Arc::default(),
            board: Board::new(Arc::clone(&codes)),
            codes,
            kinds: Arc::new(Words::new(KINDS_MAX)),
            attempts: Family::default(),
            step_seconds: Family::new_with_constructor(step_histogram),
            waited_seconds: Family::default(),
            operations: Family::default(),
            watch_failures: Family::default(),
            fenced: Counter::default(),
            leader: Gauge::default(),
            leaderships: Counter::default(),
            resumes: Counter::default(),
            journal_seconds: Family::new_with_constructor(request_histogram),
            reconcile_seconds: Family::new_with_constructor(request_histogram),
            reconcile_errors: Family::default(),
            queue_depth: Gauge::default(),
            queue_late_seconds: Gauge::default(),
            spans_dropped: Counter::default(),
            notifications: Family::default(),
        };
        // A rise from nothing is seen only where zero was seen before.
        for phase in ["Succeeded", "Failed", "Cancelled"] {
            drop(metrics.operations.get_or_create(&PhaseLabel { phase }));
        }
        for resource in crate::watches::RESOURCES {
            drop(metrics.watch_failures.get_or_create(&WatchLabel { resource }));
        }
        for result in ["sent", "retried", "failed", "dropped"] {
            drop(metrics.notifications.get_or_create(&ResultLabel { result }));
        }
        for controller in crate::queue::CONTROLLERS {
            drop(metrics.reconcile_errors.get_or_create(&ControllerLabel { controller }));
        }
        let registry = metrics.registered();
        Self { registry: Arc::new(Mutex::new(registry)), ..metrics }
    }
}

impl Metrics {
    fn registered(&self) -> Registry {
        let mut registry = Registry::default();
        registry.register("cupcake_step_attempts", "Attempts of steps that ended", self.attempts.clone());
        let help = "How long attempts of steps took";
        registry.register("upgrade_node_step_duration_seconds", help, self.step_seconds.clone());
        let help = "How long steps waited in the sight of people";
        registry.register("cupcake_step_waited_seconds", help, self.waited_seconds.clone());
        registry.register("upgrade_operations", "Operations that ended", self.operations.clone());
        registry.register("cupcake_watch_failures", "Watches that failed", self.watch_failures.clone());
        registry.register("cupcake_fenced", "Writes refused because another leader took over", self.fenced.clone());
        registry.register("cupcake_leader", "1 while this replica leads", self.leader.clone());
        registry.register("cupcake_leaderships", "How often this replica began to lead", self.leaderships.clone());
        registry.register("cupcake_resumes", "Runs under way that this replica took over", self.resumes.clone());
        let help = "How long a write of a run's state took";
        registry.register("cupcake_journal_write_seconds", help, self.journal_seconds.clone());
        let help = "How long a reconcile took; of the controller run it is a tick";
        registry.register("cupcake_reconcile_duration_seconds", help, self.reconcile_seconds.clone());
        registry.register("cupcake_reconcile_errors", "Reconciles that failed", self.reconcile_errors.clone());
        registry.register("cupcake_queue_depth", "Things to reconcile, now or later", self.queue_depth.clone());
        let help = "How long the first thing to reconcile has been due";
        registry.register("cupcake_queue_late_seconds", help, self.queue_late_seconds.clone());
        registry.register("cupcake_spans_dropped", "Spans that no collector got", self.spans_dropped.clone());
        let help = "Deliveries of notifications that ended, and notices that found no room";
        registry.register("cupcake_notifications", help, self.notifications.clone());
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("cupcake_build", "The release", build);
        registry.register_collector(Box::new(self.board.clone()));
        registry
    }

    /// Takes what a watch showed.
    pub fn shows(&self, change: &Changed, watches: &Watches) {
        if let Changed::Failed { what, .. } = change {
            self.watch_failures.get_or_create(&WatchLabel { resource: what }).inc();
        }
        self.board.shows(change, watches);
    }

    /// Counts what ended with a tick of a run of that operation.
    pub fn ticked(&self, operation_id: &str, report: &TickReport, told: &Told<'_>) {
        let kind = |vertex| {
            let kind = report.dag.get(vertex).map(|vertex| vertex.kind.to_string()).unwrap_or_default();
            self.kinds.take(&kind)
        };
        for ended in &told.ended {
            let labels = StepLabels { step: kind(ended.vertex), result: ended.how.as_str() };
            self.attempts.get_or_create(&labels).inc();
            match ended.how {
                End::Success | End::Retry | End::Failure => {
                    let exemplar = TraceLabel { trace_id: traces::trace_id(operation_id).to_string() };
                    let seconds = seconds_of(ended.end - ended.start);
                    self.step_seconds.get_or_create(&labels).observe(seconds, Some(exemplar), Some(ended.end.into()));
                }
                // What was left out took no time, or none that tells of the step.
                End::Skip => {}
            }
        }
        for waited in &told.waited {
            let labels = WaitLabels { step: kind(waited.vertex), reason: self.codes.take(&waited.code) };
            self.waited_seconds.get_or_create(&labels).inc_by(waited.seconds);
        }
        if let Some(backup) = last_backup(&report.dag, &report.cursor) {
            self.board.backup(operation_id, backup.taken, backup.bytes);
        }
    }

    /// An operation ended in that phase.
    pub fn operation_ended(&self, operation_id: &str, phase: &'static str) {
        let exemplar = TraceLabel { trace_id: traces::trace_id(operation_id).to_string() };
        self.operations.get_or_create(&PhaseLabel { phase }).inc_by(1, Some(exemplar), None);
    }

    /// A write was refused because another leader took over.
    pub fn fenced(&self) {
        self.fenced.inc();
    }

    /// So many spans were dropped.
    pub fn spans_dropped(&self, count: u64) {
        self.spans_dropped.inc_by(count);
    }

    /// So many notifications came to that: sent, retried, failed or dropped.
    pub fn notified(&self, result: &'static str, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.notifications.get_or_create(&ResultLabel { result }).inc_by(count);
    }

    /// Whether this replica leads.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
        // What was seen before is no word about now, neither for who begins nor for who ends.
        self.board.clear();
        self.queue(0, TimeDelta::zero());
        if leads {
            self.leaderships.inc();
        }
    }

    /// Whether this replica leads, as last set.
    pub fn is_leader(&self) -> bool {
        self.leader.get() == 1
    }

    /// A new leader has looked around: what is under way it takes over.
    pub fn took_over(&self) {
        self.board.complete();
        self.resumes.inc_by(u64::try_from(self.board.runs_under_way()).unwrap_or(u64::MAX));
    }

    /// A write of a run's state took so long and came to that.
    pub fn journal_write(&self, result: &'static str, took: TimeDelta) {
        self.journal_seconds.get_or_create(&ResultLabel { result }).observe(seconds_of(took));
    }

    /// A reconcile took so long, and failed or not.
    pub fn reconciled(&self, controller: &'static str, took: TimeDelta, failed: bool) {
        let labels = ControllerLabel { controller };
        self.reconcile_seconds.get_or_create(&labels).observe(seconds_of(took));
        if failed {
            self.reconcile_errors.get_or_create(&labels).inc();
        }
    }

    /// So much is in the queue, and the first of it is due for so long.
    pub fn queue(&self, depth: usize, late: TimeDelta) {
        self.queue_depth.set(i64::try_from(depth).unwrap_or(i64::MAX));
        self.queue_late_seconds.set(seconds_of(late));
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

fn seconds_of(time: TimeDelta) -> f64 {
    time.to_std().map_or(0.0, |time| time.as_secs_f64())
}

#[cfg(test)]
mod tests;
