//! All benches in one program, which ends in one table.

use criterion::{Criterion, criterion_group};
use cupcake_benches::history::{history, replay};
use cupcake_benches::objects::sizes;
use cupcake_benches::table::{Bench, table};
use cupcake_benches::world::{FROM, NAME, NODES_OF_5_000_VERTICES, TARGET, UID, batch, cluster, root, spec};
use cupcake_engine::codec::{decode, encode};
use cupcake_engine::decide::{Intent, Observed, decide};
use cupcake_workflows::render::{Glyphs, View, status_lines};
use cupcake_workflows::{Request, WaveOf, compile, compile_wave, wave_run};
use std::hint::black_box;
use std::path::PathBuf;
use std::time::Duration;

const BENCHES: [Bench; 10] = [
    Bench { id: "decide-fresh", what: "decide, 5,000 vertices, nothing begun" },
    Bench { id: "decide-half", what: "decide, 5,000 vertices, half done, 25 nodes open" },
    Bench { id: "cursor-encode", what: "encode a cursor of 5,000 vertices" },
    Bench { id: "cursor-decode", what: "decode it" },
    Bench { id: "journal-replay", what: "fold the whole journal of 5,000 vertices" },
    Bench { id: "plan-expand", what: "expand a plan of 250 nodes" },
    Bench { id: "plan-digest", what: "digest of a plan of 250 nodes" },
    Bench { id: "compile-root", what: "compile an update of 15,000 nodes" },
    Bench { id: "compile-wave", what: "compile its wave and 300 batches" },
    Bench { id: "render-status", what: "status tree of 1,250 vertices, half done" },
];

fn engine(criterion: &mut Criterion) {
    let plan = batch(NODES_OF_5_000_VERTICES);
    for (id, done) in [("decide-fresh", 0), ("decide-half", 2_500)] {
        let run = history(&plan, 25, done);
        let now = run.cursor.clock();
        criterion.bench_function(id, |bench| {
            bench.iter(|| {
                decide(&run.dag, black_box(&run.cursor), &Intent::default(), &Observed::default(), &run.limits, now)
            });
        });
    }
    let half = history(&plan, 25, 2_500);
    criterion.bench_function("cursor-encode", |bench| bench.iter(|| encode(black_box(&half.cursor), &half.dag)));
    let text = encode(&half.cursor, &half.dag);
    criterion.bench_function("cursor-decode", |bench| {
        bench.iter(|| decode(black_box(&text), &half.digest, &half.dag).is_ok());
    });
    let whole = history(&plan, 25, usize::MAX);
    criterion.bench_function("journal-replay", |bench| bench.iter(|| replay(black_box(&whole))));
}

fn plans(criterion: &mut Criterion) {
    let plan = batch(250);
    criterion.bench_function("plan-expand", |bench| bench.iter(|| black_box(&plan).expand().is_ok()));
    criterion.bench_function("plan-digest", |bench| bench.iter(|| black_box(&plan).digest()));
    let spec = spec(50, 50);
    let request = Request { name: NAME, uid: UID, spec: &spec };
    let run = root();
    let before = cluster(7, 14_993, FROM);
    criterion
        .bench_function("compile-root", |bench| bench.iter(|| compile(&request, &run, black_box(&before)).is_ok()));
    let wave = wave_run(&run, TARGET).expect("the name is short");
    let after = cluster(7, 14_993, TARGET);
    criterion.bench_function("compile-wave", |bench| {
        bench.iter(|| compile_wave(&request, &wave, &WaveOf::last(TARGET), black_box(&after)).is_ok());
    });
    let half = history(&plan, 25, 625);
    let view = View { dag: &half.dag, cursor: &half.cursor, now: half.cursor.clock(), children: &[] };
    criterion.bench_function("render-status", |bench| bench.iter(|| status_lines(black_box(&view), Glyphs::Unicode)));
}

/// Where criterion keeps its figures: beside the program, whatever the working directory is.
fn folder() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    // target/release/deps/all-…
    program.ancestors().nth(3).map_or_else(|| PathBuf::from("target"), PathBuf::from).join("criterion")
}

fn settings() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .output_directory(&folder())
}

criterion_group! { name = all; config = settings(); targets = engine, plans }

#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
fn main() {
    all();
    println!("\n{}", table(&folder(), &BENCHES, &sizes()));
}
