//! The sandbox's API beside the real one: both are sent the same random sequences of requests, and must answer alike.
//!
//! ```text
//!   generate ── Sequence ──┬── side: real kube-apiserver ──┐
//!     (seed, number)       │                               ├── compare ── known ── what is left fails the test
//!                          └── side: sandbox, in process ──┘
//! ```
//! A request is drawn before any answer is known, so a sequence that shows a difference can be shrunk by leaving requests out.
//! Settings: `CUPCAKE_CONFORMANCE_SEQUENCES`, `CUPCAKE_CONFORMANCE_SEED`, and `CUPCAKE_CONFORMANCE_FIRST` to begin with a later
//! sequence.
#![expect(
    clippy::disallowed_methods,
    reason = "reads its settings from the environment and the documentation from its file, and times itself by the wall clock"
)]

mod compare;
mod generate;
mod kinds;
mod known;
mod protobuf;
mod recorded;
mod shape;
mod side;
mod writes;

use crate::real::{ApiServer, Controllers, client_of, definitions_established, eventually};
use compare::Difference;
use cupcake_sandbox::api::{Definitions, Options, Server};
use cupcake_tests::{TokioClock, install_definitions};
use generate::Sequence;
use known::{Answers, KNOWN};
use serde_json::{Value, json};
use side::{Door, Side};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// Sequences without a setting: what every run of the tests can afford.
const SEQUENCES_DEFAULT: u64 = 400;
/// Sequences after which each known difference should have shown itself.
const ENOUGH: u64 = 10_000;
/// Sequences that are under way at the same time.
const WORKERS: u64 = 8;
/// Stories that are shrunk and told.
const STORIES_MAX: usize = 20;

/// One difference that nobody knows of.
#[derive(Clone)]
struct Finding {
    number: u64,
    /// The step of the sequence, or none for the events of its watch.
    at: Option<usize>,
    what: String,
    difference: Difference,
    real: Value,
    sandbox: Value,
}

impl Finding {
    /// What two findings of one cause have in common.
    fn signature(&self) -> String {
        format!("{} {} [{} {}]", self.what, self.difference.place(), self.real["code"], self.sandbox["code"])
    }
}

/// What a run counts.
#[derive(Default)]
struct Tally {
    sequences: u64,
    requests: BTreeMap<String, u64>,
    codes: BTreeMap<String, u64>,
    watches: u64,
    events: u64,
    known: BTreeMap<&'static str, u64>,
    found: BTreeMap<String, (u64, Finding)>,
}

/// The two servers, and what is counted.
struct Bench {
    client: kube::Client,
    definitions: Definitions,
    seed: u64,
    tally: RefCell<Tally>,
}

impl Bench {
    fn sandbox(&self, seed: u64) -> Server {
        let clock = Arc::new(TokioClock::starting_at(chrono::Utc::now()));
        let server = Server::with_options(clock, Options { seed, controllers: false, ..Options::default() });
        server.define(&self.definitions);
        server
    }

    /// Plays a sequence on both servers, on names that nobody used before, up to the first difference.
    async fn play(&self, number: u64, me: &str, namespace: &str, sequence: &Sequence) -> Option<Finding> {
        let sandbox = Door::Sandbox(self.sandbox(number));
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        sandbox.plain("POST", "/api/v1/namespaces", body).await;
        let mut sides = [Side::new(Door::Real(self.client.clone()), me, namespace), Side::new(sandbox, me, namespace)];
        let mut watches = Vec::new();
        for watch in &sequence.watches {
            watches.push((watch, sides[0].open(watch).await, sides[1].open(watch).await));
        }
        let mut found = self.steps(number, &mut sides, sequence).await;
        for (watch, real, sandbox) in watches {
            let (real, sandbox) = (sides[0].close(watch, real).await, sides[1].close(watch, sandbox).await);
            if matches!(found, Ok(())) {
                let mut tally = self.tally.borrow_mut();
                tally.watches += 1;
                tally.events += u64::try_from(real["events"].as_array().map_or(0, Vec::len)).unwrap();
                drop(tally);
                let beside = if sequence.steps.iter().any(|step| step.path.contains("/status")) {
                    " (beside /status)"
                } else {
                    ""
                };
                found = self.judge(number, None, &format!("watch {}{beside}", watch.plural), real, sandbox);
            }
        }
        let mut collections: Vec<&str> = Vec::new();
        for kind in kinds::KINDS {
            let used = |plural: &str| plural == kind.plural;
            if sequence.steps.iter().any(|step| used(step.plural))
                || sequence.watches.iter().any(|watch| used(watch.plural))
            {
                if !collections.contains(&kind.plural) {
                    sides[0].clean(&kind.collection()).await;
                }
                collections.push(kind.plural);
            }
        }
        found.err().flatten().map(|found| *found)
    }

    /// `Err(None)`: the two went different ways in a way that is known, so nothing after it can be compared.
    async fn steps(&self, number: u64, sides: &mut [Side; 2], sequence: &Sequence) -> Result<(), Option<Box<Finding>>> {
        for (at, step) in sequence.steps.iter().enumerate() {
            let real = sides[0].take(step).await;
            let sandbox = sides[1].take(step).await;
            let mut tally = self.tally.borrow_mut();
            *tally.requests.entry(step.what.clone()).or_default() += 1;
            *tally.codes.entry(real["code"].to_string()).or_default() += 1;
            drop(tally);
            self.judge(number, Some(at), &step.what, real, sandbox)?;
        }
        Ok(())
    }

    fn judge(
        &self,
        number: u64,
        at: Option<usize>,
        what: &str,
        real: Value,
        sandbox: Value,
    ) -> Result<(), Option<Box<Finding>>> {
        // Different codes say it all: bodies then differ everywhere.
        let differences = if real["code"] == sandbox["code"] {
            compare::differences(&real, &sandbox)
        } else {
            compare::differences(&json!({"code": real["code"]}), &json!({"code": sandbox["code"]}))
        };
        let answers = Answers { what, real: &real, sandbox: &sandbox };
        let (mut unknown, mut parted) = (None, false);
        for difference in differences {
            match KNOWN.iter().find(|known| (known.covers)(&answers, &difference)) {
                Some(known) => {
                    *self.tally.borrow_mut().known.entry(known.title).or_default() += 1;
                    parted |= known.parts;
                }
                None => unknown = unknown.or(Some(difference)),
            }
        }
        // Events after a write that only one side made are shifted.
        let shifted = parted && at.is_none();
        if let Some(difference) = unknown.filter(|_| !shifted) {
            let what = what.to_owned();
            return Err(Some(Box::new(Finding { number, at, what, difference, real, sandbox })));
        }
        let accepted = |answer: &Value| answer["code"].as_u64().is_some_and(|code| code < 300);
        if parted || (at.is_some() && accepted(&real) != accepted(&sandbox)) { Err(None) } else { Ok(()) }
    }

    /// The shortest sequence that still shows the finding, by leaving out one request after the other.
    async fn shrink(&self, finding: &Finding, namespace: &str) -> (Sequence, Finding) {
        let mut sequence = generate::sequence(self.seed, finding.number);
        let mut finding = finding.clone();
        if let Some(at) = finding.at {
            sequence.steps.truncate(at + 1);
            sequence.watches.clear();
        }
        let mut at = sequence.steps.len();
        while at > 0 {
            at -= 1;
            if finding.at == Some(at) {
                continue;
            }
            let mut shorter = sequence.clone();
            shorter.steps.remove(at);
            let me = format!("s{}x{at}", finding.number);
            if let Some(again) = self.play(finding.number, &me, namespace, &shorter).await
                && again.signature() == finding.signature()
            {
                (sequence, finding) = (shorter, again);
            }
        }
        (sequence, finding)
    }

    fn note(&self, finding: Finding) {
        let mut tally = self.tally.borrow_mut();
        tally.found.entry(finding.signature()).or_insert_with(|| (0, finding)).0 += 1;
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn tell(sequence: &Sequence, finding: &Finding, seed: u64) {
    println!("\n--- seed {seed}, sequence {}: {}", finding.number, finding.signature());
    for step in &sequence.steps {
        println!("    {} {}  [{}] [{}]", step.method, step.path, step.content_type, step.accept);
        match &step.body {
            generate::Body::None => {}
            generate::Body::Json(value) => println!("        {value}"),
            generate::Body::Protobuf(value) => println!("        as protobuf: {value}"),
            generate::Body::Raw(text) => println!("        {text}"),
            generate::Body::Edited { overlay, .. } => println!("        as last read, with {overlay}"),
        }
    }
    for watch in &sequence.watches {
        println!("    watch {}?{}{}  [{}]", watch.collection, watch.selector, watch.options, watch.accept);
    }
    let whole = |answer: &Value| answer.to_string().chars().take(1_500).collect::<String>();
    println!("  real    {}", whole(&finding.real));
    println!("  sandbox {}", whole(&finding.sandbox));
    println!("  at {}", finding.difference.pointer);
    println!("    real    {}", Difference::shown(finding.difference.real.as_ref()));
    println!("    sandbox {}", Difference::shown(finding.difference.sandbox.as_ref()));
}

fn summary(tally: &Tally) {
    let total: u64 = tally.requests.values().sum();
    println!(
        "{} sequences, {total} requests to each server, {} watches with {} events",
        tally.sequences, tally.watches, tally.events
    );
    println!("answers of the real server: {:?}", tally.codes);
    let mut verbs: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
    for (what, count) in &tally.requests {
        let mut words = what.split(' ');
        let (verb, kind) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        *verbs.entry(verb).or_default().entry(kind).or_default() += count;
    }
    for (verb, kinds) in verbs {
        let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        println!("  {verb}: {}", kinds.join(", "));
    }
    for known in KNOWN {
        match tally.known.get(known.title) {
            Some(times) => println!("known difference, seen {times} times: {}", known.title),
            None if tally.sequences >= ENOUGH => {
                println!("known difference, NOT SEEN, is it still one? {}", known.title);
            }
            None => println!("known difference, not seen in so few sequences: {}", known.title),
        }
    }
}

#[test]
fn every_known_difference_stands_in_the_documentation() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/sandbox.md")).unwrap();
    let missing: Vec<&str> =
        KNOWN.iter().map(|known| known.title).filter(|title| !text.contains(&format!("| {title} |"))).collect();
    assert_eq!(missing, Vec::<&str>::new(), "add a line to the table of docs/sandbox.md");
    let listed = text.lines().skip_while(|line| !line.contains("Where the sandbox's API differs"));
    let rows = listed.filter(|line| line.starts_with("| ")).count();
    assert_eq!(rows, KNOWN.len() + 1, "one line of the table, and its head, for each known difference");
}

#[tokio::test]
async fn the_sandbox_answers_random_sequences_of_requests_as_a_real_api_server_does() {
    let Some(server) = ApiServer::start("conformance", Controllers::None) else { return };
    let client = client_of(&server.kubeconfig()).await;
    install_definitions(&client).await.unwrap();
    definitions_established(&client).await;
    let seed = setting("CUPCAKE_CONFORMANCE_SEED", 1);
    let sequences = setting("CUPCAKE_CONFORMANCE_SEQUENCES", SEQUENCES_DEFAULT);
    let first = setting("CUPCAKE_CONFORMANCE_FIRST", 0);
    let definitions = Definitions::new(&cupcake_crds::definitions());
    let bench = Bench { client, definitions, seed, tally: RefCell::default() };
    let real = Door::Real(bench.client.clone());
    for worker in 0..=WORKERS {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": format!("conf-{worker}")}});
        real.plain("POST", "/api/v1/namespaces", body).await;
    }
    // The cache of a kind that was just established takes a moment.
    eventually("the caches of all kinds", async || {
        for kind in kinds::KINDS {
            let collection = kind.collection().replace("@ns@", "conf-0");
            let (code, _) = real.plain("GET", &format!("{collection}?resourceVersion=0"), Value::Null).await;
            if code != 200 {
                return None;
            }
        }
        Some(())
    })
    .await;
    let began = Instant::now();
    let workers = (0..WORKERS).map(|worker| {
        let bench = &bench;
        async move {
            for number in (first + worker..first + sequences).step_by(usize::try_from(WORKERS).unwrap()) {
                let sequence = generate::sequence(seed, number);
                let found = bench.play(number, &format!("c{number}"), &format!("conf-{worker}"), &sequence).await;
                bench.tally.borrow_mut().sequences += 1;
                if let Some(finding) = found {
                    bench.note(finding);
                }
            }
        }
    });
    futures::future::join_all(workers).await;
    println!("seed {seed}: took {:?}", began.elapsed());
    summary(&bench.tally.borrow());
    let found: Vec<(u64, Finding)> = bench.tally.borrow().found.values().cloned().collect();
    for (count, finding) in &found {
        println!("different {count} times: {}", finding.signature());
    }
    for (_, finding) in found.iter().take(STORIES_MAX) {
        let (sequence, finding) = bench.shrink(finding, &format!("conf-{WORKERS}")).await;
        tell(&sequence, &finding, seed);
    }
    assert!(found.is_empty(), "{} differences that docs/sandbox.md does not list", found.len());
}
