//! Each attempt of a step as a span of a trace, each update as one trace.
//!
//! ```text
//!  trace: the operation's id (a UUID)
//!   └─ RUN DirectUpdate: the root run, from its creation to its end
//!       ├─ preflight (a step of the root run)
//!       └─ 1.34.4/workers (a step that waits for a run of its own)
//!           └─ w-1/drain (a step of that run), attempt 2 with a link to attempt 1
//! ```
//! Ids follow from run, step and attempt, so that whichever replica records an end tells the same span. A span is told when its
//! end is recorded. What ended shortly before a replica began to lead it tells again ([`ended_since`]): the one before may have
//! ended between its record and its word. A backend that gets a span twice has it once: both have the same id.
//!
//! Attributes are those of OpenTelemetry's semantic conventions for CI/CD (v1.44); run attributes stand on every span.

pub mod otlp;

use crate::attempts::{End, Ended, ended_last};
use cupcake_crds::UpgradeRun;
use cupcake_engine::clock::Timestamp;
use cupcake_engine::cursor::{Cursor, RunPhase};
use cupcake_engine::dag::Dag;
use cupcake_engine::event::Event;
use cupcake_engine::tick::TickReport;
use kube::ResourceExt;
use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use sha2::{Digest, Sha256};
use std::time::SystemTime;

/// Where spans go.
pub trait Spans: Send + Sync {
    /// Takes spans that ended. Never waits: no step is later for it.
    fn tell(&self, spans: Vec<SpanData>);
}

/// A run as its spans name it.
struct Traced<'r> {
    run: &'r UpgradeRun,
    name: String,
    dag: &'r Dag,
    trace: TraceId,
}

/// The spans whose end a tick recorded: of those attempts and, where it ended the update, of the whole.
pub fn ended_with(run: &UpgradeRun, report: &TickReport, ended: &[Ended<'_>]) -> Vec<SpanData> {
    let traced = Traced::of(run, &report.dag);
    let mut spans: Vec<SpanData> = ended.iter().map(|ended| traced.step(ended)).collect();
    let finished = report.events.iter().any(|event| matches!(event, Event::Finished { .. }));
    spans.extend(finished.then(|| traced.whole(&report.cursor)).flatten());
    spans
}

/// The spans of a run that ended at that time or later, as its cursor tells them: of each step the last attempt.
pub fn ended_since(since: Timestamp, run: &UpgradeRun, dag: &Dag, cursor: &Cursor) -> Vec<SpanData> {
    let traced = Traced::of(run, dag);
    let steps =
        dag.vertices().iter().filter_map(|vertex| ended_last(&vertex.name, cursor)).filter(|ended| ended.end >= since);
    let mut spans: Vec<SpanData> = steps.map(|ended| traced.step(&ended)).collect();
    spans.extend(traced.whole(cursor).filter(|_| cursor.finished().is_some_and(|end| end >= since)));
    spans
}

/// The trace of an operation: its UUID. Of an id that is none, a digest.
pub(crate) fn trace_id(operation: &str) -> TraceId {
    let hex: String = operation.chars().filter(|c| *c != '-').collect();
    let uuid = (hex.len() == 32).then(|| TraceId::from_hex(&hex).ok()).flatten();
    uuid.filter(|id| *id != TraceId::INVALID).unwrap_or_else(|| {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&Sha256::digest(operation)[..16]);
        TraceId::from_bytes(bytes)
    })
}

/// The span of an attempt: the same whoever asks.
fn step_id(operation: &str, run: &str, vertex: &str, attempt: u32) -> SpanId {
    id(&format!("{operation}\n{run}\n{vertex}\n{attempt}"))
}

/// The span of a whole update.
fn root_id(operation: &str) -> SpanId {
    id(operation)
}

fn id(text: &str) -> SpanId {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&Sha256::digest(text)[..8]);
    SpanId::from_bytes(bytes)
}

fn time(at: Timestamp) -> SystemTime {
    SystemTime::from(at)
}

impl<'r> Traced<'r> {
    fn of(run: &'r UpgradeRun, dag: &'r Dag) -> Self {
        Self { run, name: run.name_any(), dag, trace: trace_id(&run.spec.operation_id) }
    }

    fn context(&self, span: SpanId) -> SpanContext {
        SpanContext::new(self.trace, span, TraceFlags::SAMPLED, true, TraceState::default())
    }

    /// What a step hangs below: the step of the parent that waits for this run, by its first attempt; the whole update in the root.
    fn parent(&self) -> SpanId {
        let operation = &self.run.spec.operation_id;
        match &self.run.spec.parent {
            Some(parent) => step_id(operation, &parent.run, &parent.vertex, 1),
            None => root_id(operation),
        }
    }

    fn common(&self) -> Vec<KeyValue> {
        let spec = &self.run.spec;
        let mut attributes = vec![
            KeyValue::new("cicd.pipeline.name", spec.direct_update.name.clone()),
            KeyValue::new("cicd.pipeline.run.id", spec.operation_id.clone()),
            KeyValue::new("cupcake.run", self.name.clone()),
            KeyValue::new("cupcake.version.to", spec.target_version.to_string()),
        ];
        attributes.extend(spec.hop.map(|hop| KeyValue::new("cupcake.hop", hop.to_string())));
        attributes
    }

    fn step(&self, ended: &Ended<'_>) -> SpanData {
        let Ended { vertex, attempt, start, end, how, error } = ended;
        let result = match how {
            End::Success => "success",
            End::Retry | End::Failure => "failure",
            End::Skip => "skip",
        };
        let operation = &self.run.spec.operation_id;
        let own = |attempt| step_id(operation, &self.name, vertex.as_str(), attempt);
        let mut attributes = self.common();
        attributes.extend([
            KeyValue::new("cicd.pipeline.task.name", vertex.to_string()),
            KeyValue::new("cicd.pipeline.task.run.id", format!("{}/{vertex}/{attempt}", self.name)),
            KeyValue::new("cicd.pipeline.task.run.result", result),
            KeyValue::new("cupcake.step.attempt", i64::from(*attempt)),
        ]);
        let known = self.dag.get(vertex);
        attributes.extend(known.map(|vertex| KeyValue::new("cupcake.step.kind", vertex.kind.to_string())));
        // Lanes of a plan over several minors carry the version before the node.
        let lane = known.and_then(|vertex| vertex.lane.as_deref());
        let node = lane.and_then(|lane| lane.rsplit('/').next());
        attributes.extend(node.map(|node| KeyValue::new("k8s.node.name", node.to_owned())));
        attributes.extend(error.map(|(code, _)| KeyValue::new("error.type", code.to_owned())));
        let earlier = (*attempt > 1).then(|| Link::new(self.context(own(attempt - 1)), Vec::new(), 0));
        let mut links = SpanLinks::default();
        links.links.extend(earlier);
        SpanData {
            links,
            status: match error {
                Some((_, message)) => Status::error((*message).to_owned()),
                None => Status::Ok,
            },
            ..self.span(own(*attempt), self.parent(), vertex.to_string(), (*start, *end), attributes)
        }
    }

    /// The span of the whole update, once the root run has ended; `None` of any other run.
    fn whole(&self, cursor: &Cursor) -> Option<SpanData> {
        let end = cursor.finished().filter(|_| self.run.spec.parent.is_none())?;
        let reason = cursor.reason();
        let (result, status) = match cursor.phase() {
            RunPhase::Succeeded => ("success", Status::Ok),
            RunPhase::Cancelled => ("cancellation", Status::Unset),
            RunPhase::Failed | RunPhase::RequiresAttention | RunPhase::InProgress | RunPhase::Pending => {
                ("failure", Status::error(reason.map(|reason| reason.message.clone()).unwrap_or_default()))
            }
        };
        let mut attributes = self.common();
        attributes.push(KeyValue::new("cicd.pipeline.result", result));
        if result == "failure" {
            attributes.extend(reason.map(|reason| KeyValue::new("error.type", reason.code.clone())));
        }
        let name = "RUN DirectUpdate".to_owned();
        let own = root_id(&self.run.spec.operation_id);
        let times = (cursor.created(), end);
        let span = self.span(own, SpanId::INVALID, name, times, attributes);
        Some(SpanData { span_kind: SpanKind::Server, status, ..span })
    }

    fn span(
        &self,
        own: SpanId,
        parent: SpanId,
        name: String,
        (start, end): (Timestamp, Timestamp),
        attributes: Vec<KeyValue>,
    ) -> SpanData {
        SpanData {
            span_context: SpanContext::new(self.trace, own, TraceFlags::SAMPLED, false, TraceState::default()),
            parent_span_id: parent,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: name.into(),
            start_time: time(start),
            end_time: time(end),
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::builder("cupcake")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some span, told apart by its number.
    pub(crate) fn span(number: u32) -> SpanData {
        let operation = "0193a6f2-8d1c-7c55-9a59-5c1f1d0e2b11";
        let own = step_id(operation, "run", "step", number);
        let context = SpanContext::new(trace_id(operation), own, TraceFlags::SAMPLED, false, TraceState::default());
        SpanData {
            span_context: context,
            parent_span_id: root_id(operation),
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: "step".into(),
            start_time: SystemTime::UNIX_EPOCH,
            end_time: SystemTime::UNIX_EPOCH,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Ok,
            instrumentation_scope: InstrumentationScope::builder("test").build(),
        }
    }

    #[test]
    fn a_trace_has_the_id_of_the_operation_and_every_attempt_an_id_of_its_own() {
        let operation = "0193a6f2-8d1c-7c55-9a59-5c1f1d0e2b11";
        assert_eq!(trace_id(operation).to_string(), "0193a6f28d1c7c559a595c1f1d0e2b11");
        assert_ne!(trace_id("what no UUID is"), TraceId::INVALID);
        let ids = [
            root_id(operation),
            step_id(operation, "run", "step", 1),
            step_id(operation, "run", "step", 2),
            step_id(operation, "run", "other", 1),
            step_id(operation, "other", "step", 1),
        ];
        assert_eq!(ids.iter().map(ToString::to_string).collect::<std::collections::BTreeSet<_>>().len(), ids.len());
    }
}
