//! The trace of an update: one span for each attempt of each step, below the right one, whatever dies meanwhile.

use chrono::DateTime;
use cupcake_crds::values::{Concurrency, KubeVersion};
use cupcake_operator::traces::Spans;
use cupcake_sandbox::machine::fault::{Component, Fault, Wrong};
use cupcake_sandbox::world::{self, Upgrade, World, WorldConfig};
use opentelemetry_sdk::trace::SpanData;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// A collector that never forgets.
#[derive(Default)]
struct Collected(Mutex<Vec<SpanData>>);

impl Spans for Collected {
    fn tell(&self, spans: Vec<SpanData>) {
        self.0.lock().unwrap().extend(spans);
    }
}

fn attribute(span: &SpanData, key: &str) -> String {
    span.attributes.iter().find(|own| own.key.as_str() == key).map(|own| own.value.to_string()).unwrap_or_default()
}

/// The spans of an upgrade of two control planes and two workers, by id: told twice, they count once. `None` where it met not all
/// of the faults.
fn spans(faults: &[Fault]) -> Option<BTreeMap<String, SpanData>> {
    let mut config = WorldConfig::new(KubeVersion::new(1, 33, 4), DateTime::from_timestamp(1_767_225_600, 0).unwrap());
    config.control_planes = 2;
    config.workers = 2;
    config.operators = 2;
    config.faults = faults.to_vec();
    let collected = Arc::new(Collected::default());
    let mut happened = false;
    world::runtime(config.speed).unwrap().block_on(async {
        let world = World::new(config).unwrap();
        world.tell_spans_to(Arc::clone(&collected) as Arc<dyn Spans>);
        world.start();
        let upgrade =
            Upgrade { name: "upgrade".into(), to: KubeVersion::new(1, 34, 4), concurrency: Concurrency::Nodes(1) };
        let outcome = world.upgrade(&upgrade).await.unwrap();
        assert!(outcome.succeeded(), "{faults:?}: {}", outcome.message);
        happened = world.faults_happened().len() == faults.len();
        // Whoever leads after the last one died tells what that one did not.
        let until = world.now() + chrono::TimeDelta::seconds(60);
        world.clock().sleep_until(until).await;
    });
    let told = collected.0.lock().unwrap();
    let mut by_id = BTreeMap::<String, SpanData>::new();
    for span in told.iter() {
        let id = span.span_context.span_id().to_string();
        let first = by_id.entry(id).or_insert_with(|| span.clone());
        let same = |key| attribute(first, key) == attribute(span, key);
        assert!(same("cicd.pipeline.task.run.id") && same("cicd.pipeline.task.run.result"), "{first:?}\n{span:?}");
    }
    happened.then_some(by_id)
}

/// Steps by run and name, of whatever attempt; each parent must be there.
fn steps(faults: &[Fault], spans: &BTreeMap<String, SpanData>) -> BTreeSet<String> {
    let mut roots = 0;
    let mut steps = BTreeSet::new();
    let traces: BTreeSet<_> = spans.values().map(|span| span.span_context.trace_id().to_string()).collect();
    assert_eq!(traces.len(), 1, "{faults:?}");
    for span in spans.values() {
        assert!(span.start_time <= span.end_time, "{faults:?}: {span:?}");
        let parent = span.parent_span_id.to_string();
        if parent == "0000000000000000" {
            roots += 1;
            assert_eq!(span.name, "RUN DirectUpdate");
            assert_eq!(attribute(span, "cicd.pipeline.result"), "success");
            continue;
        }
        assert!(spans.contains_key(&parent), "{faults:?}: nothing above {}", span.name);
        let links = span.links.iter().map(|link| link.span_context.span_id().to_string());
        for link in links {
            assert!(spans.contains_key(&link), "{faults:?}: no attempt before {span:?}");
        }
        steps.insert(format!("{} of {}", span.name, attribute(span, "cupcake.run")));
    }
    assert_eq!(roots, 1, "{faults:?}");
    steps
}

#[test]
fn the_trace_of_an_update_has_every_step_once_below_the_right_one_whatever_dies() {
    let whole = spans(&[]).unwrap();
    let wanted = steps(&[], &whole);
    println!("{} steps, {} spans", wanted.len(), whole.len());
    assert!(wanted.len() > 30 && whole.len() == wanted.len() + 1, "{} {wanted:#?}", whole.len());
    let drained = whole.values().find(|span| span.name.ends_with("w-1/drain")).unwrap();
    assert_eq!(attribute(drained, "k8s.node.name"), "w-1");
    assert_eq!(attribute(drained, "cupcake.step.attempt"), "1");

    let mut killed = 0;
    for write in (1..).step_by(11) {
        for wrong in [Wrong::Before, Wrong::After, Wrong::Stopped] {
            let faults = [Fault::at_write(Component::Operator, write, wrong)];
            let Some(spans) = spans(&faults) else {
                println!("complete in {killed} updates whose leader died or stood still");
                assert!(killed > 25, "only {killed}");
                return;
            };
            assert_eq!(steps(&faults, &spans), wanted, "{faults:?}");
            killed += 1;
        }
    }
}
