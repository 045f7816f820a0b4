//! Spans to a collector, by OTLP over gRPC.
//!
//! ```text
//!  tell ──► queue of QUEUE_SPANS_MAX ──► a batch a second ──► collector
//!            full: dropped, counted       refused: again, TRIES_MAX times, then dropped, counted
//! ```
//! A collector that is away, slow or gone delays no step and takes no more memory than the queue.

use super::Spans;
use crate::metrics::Metrics;
use cupcake_engine::clock::Clock;
use opentelemetry::KeyValue;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Spans that wait for the collector, at most: an update of 5,000 workers has about 40,000 in some hours.
const QUEUE_SPANS_MAX: usize = 4_096;
/// Spans of one request, at most.
const BATCH_SPANS_MAX: usize = 512;
/// How long spans are collected before they are sent, in seconds.
const GATHER_SECONDS: i64 = 1;
/// How long one request may take, in seconds.
const EXPORT_SECONDS_MAX: u64 = 5;
/// How often a batch is sent before it is dropped.
const TRIES_MAX: u32 = 5;
/// The wait after the first refusal, in seconds; it doubles with each further one.
const AGAIN_SECONDS: i64 = 2;

/// Spans on their way to a collector.
pub struct Otlp {
    queue: mpsc::Sender<SpanData>,
    metrics: Metrics,
}

impl Spans for Otlp {
    fn tell(&self, spans: Vec<SpanData>) {
        for span in spans {
            if self.queue.try_send(span).is_err() {
                self.metrics.spans_dropped(1);
            }
        }
    }
}

/// What sends them. Ends when the [`Otlp`] is dropped and all that it was told is sent or dropped.
pub struct Sender {
    queue: mpsc::Receiver<SpanData>,
    exporter: SpanExporter,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
}

/// A queue for the collector at `endpoint`, such as `http://tempo.monitoring:4317`, and what empties it.
///
/// # Errors
/// When the endpoint is no URL.
pub fn to(
    endpoint: &str,
    instance: &str,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
) -> Result<(Otlp, Sender), ExporterBuildError> {
    let timeout = Duration::from_secs(EXPORT_SECONDS_MAX);
    let mut exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(timeout).build()?;
    exporter.set_resource(
        &Resource::builder_empty()
            .with_attributes([
                KeyValue::new("service.name", "cupcake-operator"),
                KeyValue::new("service.instance.id", instance.to_owned()),
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("cicd.system.component", "operator"),
            ])
            .build(),
    );
    let (sender, queue) = mpsc::channel(QUEUE_SPANS_MAX);
    Ok((Otlp { queue: sender, metrics: metrics.clone() }, Sender { queue, exporter, clock, metrics }))
}

impl Sender {
    /// Sends until nobody tells anything any more.
    pub async fn run(mut self) {
        let mut batch = Vec::new();
        while self.queue.recv_many(&mut batch, BATCH_SPANS_MAX).await > 0 {
            if batch.len() < BATCH_SPANS_MAX && !self.queue.is_closed() {
                self.clock.sleep_until(self.clock.now() + chrono::TimeDelta::seconds(GATHER_SECONDS)).await;
                while batch.len() < BATCH_SPANS_MAX
                    && let Ok(span) = self.queue.try_recv()
                {
                    batch.push(span);
                }
            }
            self.send(std::mem::take(&mut batch)).await;
        }
    }

    async fn send(&self, batch: Vec<SpanData>) {
        for tries in 0..TRIES_MAX {
            let Err(error) = self.exporter.export(batch.clone()).await else { return };
            tracing::debug!(%error, spans = batch.len(), "the collector took no spans");
            if tries + 1 < TRIES_MAX {
                let wait = chrono::TimeDelta::seconds(AGAIN_SECONDS << tries);
                self.clock.sleep_until(self.clock.now() + wait).await;
            }
        }
        tracing::warn!(spans = batch.len(), "spans dropped: the collector took them at none of {TRIES_MAX} tries");
        self.metrics.spans_dropped(batch.len() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traces::tests::span;
    use cupcake_engine::clock::{SimClock, Timestamp};
    use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
    use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
    use std::sync::Mutex;
    use tonic::transport::server::TcpIncoming;
    use tonic::{Request, Response};

    /// A collector that refuses its first requests.
    #[derive(Clone, Default)]
    struct Collector {
        refusals: Arc<Mutex<u32>>,
        taken: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    }

    #[tonic::async_trait]
    impl TraceService for Collector {
        async fn export(
            &self,
            request: Request<ExportTraceServiceRequest>,
        ) -> Result<Response<ExportTraceServiceResponse>, tonic::Status> {
            let mut refusals = self.refusals.lock().expect("no panic before");
            if *refusals > 0 {
                *refusals -= 1;
                return Err(tonic::Status::unavailable("not yet"));
            }
            self.taken.lock().expect("no panic before").push(request.into_inner());
            Ok(Response::new(ExportTraceServiceResponse::default()))
        }
    }

    /// Tells that many spans to a collector that refuses so often at first; gives it and the metrics once all is over.
    async fn told(refusals: u32, spans: u32) -> (Vec<ExportTraceServiceRequest>, String) {
        let collector = Collector { refusals: Arc::new(Mutex::new(refusals)), ..Collector::default() };
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let endpoint = format!("http://{}", incoming.local_addr().expect("it is bound"));
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(collector.clone()));
        let metrics = Metrics::default();
        let clock = Arc::new(SimClock::starting_at(Timestamp::UNIX_EPOCH));
        let (otlp, sender) = to(&endpoint, "cupcake-operator-0", clock, metrics.clone()).expect("a URL");
        otlp.tell((1..=spans).map(span).collect());
        drop(otlp);
        tokio::select! {
            () = sender.run() => {}
            ended = server.serve_with_incoming(incoming) => panic!("the collector ended: {ended:?}"),
        }
        let taken = collector.taken.lock().expect("no panic before").clone();
        (taken, metrics.text())
    }

    #[tokio::test]
    async fn a_collector_gets_every_span_once_with_its_ids_also_when_it_refuses_at_first() {
        let (taken, metrics) = told(2, 700).await;
        assert_eq!(taken.len(), 2, "in batches");
        let resources: Vec<_> = taken.iter().flat_map(|request| &request.resource_spans).collect();
        let service =
            resources[0].resource.as_ref().expect("one").attributes.iter().find(|one| one.key == "service.name");
        assert!(format!("{service:?}").contains("cupcake-operator"), "{service:?}");
        let spans: Vec<_> =
            resources.iter().flat_map(|resource| &resource.scope_spans).flat_map(|scope| &scope.spans).collect();
        let ids: std::collections::BTreeSet<_> = spans.iter().map(|span| span.span_id.clone()).collect();
        assert_eq!((spans.len(), ids.len()), (700, 700));
        assert_eq!(spans[0].trace_id, span(1).span_context.trace_id().to_bytes());
        assert_eq!(spans[0].parent_span_id, span(1).parent_span_id.to_bytes());
        assert!(metrics.contains("cupcake_spans_dropped_total 0"), "{metrics}");
    }

    #[tokio::test]
    async fn spans_that_a_collector_never_takes_are_dropped_and_counted_and_nobody_waits() {
        let (taken, metrics) = told(u32::MAX, 3).await;
        assert!(taken.is_empty() && metrics.contains("cupcake_spans_dropped_total 3"), "{metrics}");

        let metrics = Metrics::default();
        let clock = Arc::new(SimClock::starting_at(Timestamp::UNIX_EPOCH));
        // Nobody sends: the queue is full, and telling more than it holds comes back all the same.
        let (otlp, _sender) = to("http://127.0.0.1:9", "cupcake-operator-0", clock, metrics.clone()).expect("a URL");
        otlp.tell((0..5_000).map(span).collect());
        assert!(metrics.text().contains("cupcake_spans_dropped_total 904"), "{}", metrics.text());
    }
}
