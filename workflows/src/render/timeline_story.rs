//! Where the time of an upgrade went, at its turns.
//!
//! The golden text is testdata/timeline.txt; docs/observability.md shows its first picture. `UPDATE_GOLDENS=1 cargo test -p cupcake-workflows`
//! writes the golden anew; read the diff, and copy the picture.

use super::*;
use crate::testing::{Fate, World, cluster, plan_of, spec, start, usual, wave_of};
use chrono::TimeDelta;
use cupcake_engine::dag::Vertex;
use cupcake_engine::names::Reason;
use cupcake_engine::plan::Plan;
use serde_json::json;
use std::fmt::Write as _;

/// An upgrade by hand: a root, its wave and the batches of the wave, each in a world of its own on one clock.
struct Upgrade {
    root: World,
    below: Vec<(String, World)>,
}

/// Longer than anything: what has not come to its end when we look.
const NEVER: i64 = 1_000_000;

impl Upgrade {
    /// Of so many workers, until so long after its beginning.
    fn new(workers: usize, fields: &serde_json::Value, seconds: i64, fate: impl Fn(&str) -> Fate) -> Self {
        let spec = spec(fields);
        let snapshot = cluster(3, workers, "1.33.4");
        let plan = plan_of(&spec, &snapshot).plan;
        let wave = wave_of(&spec, &snapshot);
        // First to see when the workers' turn comes.
        let mut root = World::new(&plan, 1);
        root.until(NEVER, usual);
        let is_wave = |vertex: &&Vertex| vertex.name.as_str().ends_with("/workers");
        let vertex = root.dag.vertices().iter().find(is_wave).unwrap();
        let wave_run = tree::run_of(vertex).unwrap().to_owned();
        let opens = words::first_of(root.cursor.state(&vertex.name).unwrap()).unwrap();
        let end = start() + TimeDelta::seconds(seconds);
        let (mut at, mut took, mut below) = (opens, Vec::new(), Vec::new());
        for batch in wave.batches.iter().take_while(|_| opens < end) {
            if at >= end {
                took.push(NEVER);
                continue;
            }
            let world = walked(&batch.plan, batch.limits.concurrency, at, seconds, &fate);
            let finished = world.cursor.finished();
            took.push(finished.map_or(NEVER, |finished| (finished - at).num_seconds()));
            at = finished.unwrap_or(end);
            below.push((batch.run.as_str().to_owned(), world));
        }
        if opens < end {
            let batch =
                |vertex: &str| Fate::Takes(took[vertex.rsplit('-').next().unwrap().parse::<usize>().unwrap() - 1]);
            below.push((wave_run, walked(&wave.plan, 1, opens, seconds, batch)));
        }
        let all = if took.contains(&NEVER) { NEVER } else { took.iter().sum() };
        let fate = |vertex: &str| if vertex.ends_with("/workers") { Fate::Takes(all) } else { fate(vertex) };
        Self { root: walked(&plan, 1, start(), seconds, fate), below }
    }

    fn lines(&self, width: usize, glyphs: Glyphs) -> Vec<String> {
        let now = self.root.now;
        let mut runs: Runs<'_> = self.below.iter().map(|(name, world)| (name.as_str(), view_of(world, now))).collect();
        runs.insert("root", view_of(&self.root, now));
        let lines = timeline("root", &runs, width, glyphs);
        assert!(lines.len() <= TIMELINE_LINES_MAX, "{}", lines.len());
        for line in &lines {
            assert!(line.chars().count() <= width, "{line}");
            assert!(glyphs == Glyphs::Unicode || line.is_ascii(), "{line}");
        }
        lines
    }
}

/// A plan, begun then and walked until so long after the beginning of all.
fn walked(plan: &Plan, concurrency: u32, at: Timestamp, seconds: i64, fate: impl Fn(&str) -> Fate) -> World {
    let mut world = World::new(plan, concurrency);
    world.now = at;
    world.until(seconds, fate);
    world
}

fn view_of(world: &World, now: Timestamp) -> View<'_> {
    View { dag: &world.dag, cursor: &world.cursor, now, children: &[] }
}

fn blocked(vertex: &str) -> Fate {
    match vertex {
        "w-02/drain" => Fate::Waits(Reason::new("DrainBlocked", "the disruption budget shop needs 9 healthy pods")),
        _ => usual(vertex),
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a golden text is written anew where somebody asks for it")]
fn where_the_time_of_an_upgrade_went_is_drawn_as_in_the_golden_text() {
    let one = json!({"concurrency": 1});
    let finished = Upgrade::new(5, &one, 100_000, usual).lines(100, Glyphs::Unicode);
    let mut text = String::from("# What kubectl cupcake status --timeline draws at the turns of an upgrade\n\n");
    let mut scene = |title: &str, lines: &[String]| {
        let _ = writeln!(text, "## {title}\n\n{}\n", lines.join("\n"));
    };
    scene("Done: 3 control-plane nodes and 5 workers, on a terminal of 100 columns", &finished);
    let early = Upgrade::new(5, &one, 300, usual);
    scene("The second control-plane node", &early.lines(80, Glyphs::Unicode));
    let waits = Upgrade::new(5, &one, 1_200, blocked);
    scene("A drain is blocked", &waits.lines(100, Glyphs::Unicode));
    scene("The same, in plain characters on a narrow terminal", &waits.lines(72, Glyphs::Ascii));
    let many = Upgrade::new(60, &json!({"concurrency": 4, "batchSize": 40}), 1_500, usual);
    scene("60 workers in batches of 40, four at once", &many.lines(120, Glyphs::Unicode));
    let waves = Upgrade::new(300, &json!({"concurrency": 4, "batchSize": 10}), 2_400, usual);
    scene("300 workers in batches of 10, four at once", &waves.lines(120, Glyphs::Unicode));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/timeline.txt");
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    assert!(golden == text, "the timelines changed; UPDATE_GOLDENS=1 takes this over:\n{text}");
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/observability.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    assert!(
        docs.contains(&finished.join("\n")),
        "docs/observability.md shows another picture than:\n{}",
        finished.join("\n")
    );
}

#[test]
fn nothing_is_drawn_of_what_was_not_begun() {
    let upgrade = Upgrade::new(2, &json!({}), 0, |_| Fate::Takes(1_000));
    let mut fresh = World::new(&plan_of(&spec(&json!({})), &cluster(1, 1, "1.33.4")).plan, 1);
    fresh.now += TimeDelta::seconds(60);
    let runs = Runs::from([("root", view_of(&fresh, fresh.now))]);
    assert_eq!(timeline("root", &runs, 100, Glyphs::Unicode), Vec::<String>::new());
    assert_eq!(timeline("other", &runs, 100, Glyphs::Unicode), Vec::<String>::new());
    assert!(upgrade.lines(100, Glyphs::Unicode).len() >= 3, "one that has just begun shows what it is at");
}
