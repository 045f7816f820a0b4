//! The story of an upgrade, told in what `status.graph` and `status.message` say at its turns.
//!
//! The golden text is testdata/story.txt. `UPDATE_GOLDENS=1 cargo test -p cupcake-workflows` writes it anew; read the diff.

use super::*;
use crate::testing::{Fate, World, cluster, plan_of, spec, usual, wave_of};
use cupcake_crds::values::Phase;
use cupcake_engine::decide::Intent;
use cupcake_engine::names::Reason;
use serde_json::json;
use std::fmt::Write as _;

struct Story {
    text: String,
}

impl Story {
    fn scene(&mut self, title: &str, world: &World, run: &str, children: &[ChildRun]) {
        let view = View { dag: &world.dag, cursor: &world.cursor, now: world.now, children };
        let names = Names { direct_update: "to-1-34", run };
        let phase = world.cursor.phase();
        let step = current_step(&view).unwrap_or_default();
        let _ = writeln!(self.text, "## {title}");
        let _ = writeln!(self.text, "{phase} {} {step}", progress(&world.cursor));
        let _ = writeln!(self.text, "{}\n", message(&view, &names));
        let lines = status_lines(&view, Glyphs::Unicode);
        assert!(lines.len() <= GRAPH_LINES_MAX);
        for line in lines {
            assert!(line.chars().count() <= LINE_CHARS_MAX, "{line}");
            let _ = writeln!(self.text, "{line}");
        }
        self.text.push('\n');
    }

    fn plain(&mut self, title: &str, lines: &[String]) {
        let _ = writeln!(self.text, "## {title}\n\n{}\n", lines.join("\n"));
    }
}

fn child(name: &str, phase: Phase, progress: &str) -> ChildRun {
    ChildRun { name: name.to_owned(), phase, progress: Some(progress.to_owned()) }
}

/// Three control planes and 120 workers, three at once, in batches of 50.
fn root(story: &mut Story) {
    let plan = plan_of(&spec(&json!({"concurrency": 3})), &cluster(3, 120, "1.33.4"));
    story.plain("What kubectl cupcake plan says", &plan.summary.lines());
    let run = "to-1-34-6f0d7f0e";
    let mut world = World::new(&plan.plan, 1);
    story.scene("Nothing was started yet", &world, run, &[]);
    world.until(20, usual);
    story.scene("The snapshot is being taken", &world, run, &[]);
    world.until(250, usual);
    story.scene("The second control-plane node", &world, run, &[]);
    world.until(560, usual);
    story.scene("Control-plane kubelets", &world, run, &[]);
    let full = View { dag: &world.dag, cursor: &world.cursor, now: world.now, children: &[] };
    story.plain("The same, whole, in plain characters", &full_tree(&full, Glyphs::Ascii));
    let children = [
        child("to-1-34-6f0d7f0e-1-34-4-workers", Phase::InProgress, "1/3"),
        child("to-1-34-6f0d7f0e-1-34-4-workers-1", Phase::Succeeded, "200/200"),
        child("to-1-34-6f0d7f0e-1-34-4-workers-2", Phase::InProgress, "44/200"),
        child("to-1-34-6f0d7f0e-1-34-4-workers-3", Phase::Pending, "0/80"),
    ];
    world.until(1_000, usual);
    story.scene("The workers' turn", &world, run, &children);
    world.until(4_000, usual);
    story.scene("Done", &world, run, &[]);
}

/// A batch of 50 in which one drain is blocked, one node needs a second attempt, and one fails.
fn batch(story: &mut Story) {
    let wave = wave_of(&spec(&json!({"concurrency": 3})), &cluster(3, 120, "1.33.4"));
    let batch = &wave.batches[1];
    let run = batch.run.as_str();
    let mut world = World::new(&batch.plan, batch.limits.concurrency);
    story.scene("A batch of 50 before its turn", &world, run, &[]);
    world.until(200, usual);
    story.scene("A batch in the middle", &world, run, &[]);
    let blocked = |vertex: &str| match vertex {
        "w-066/drain" => Fate::Waits(Reason::new(
            "DrainBlocked",
            "PodDisruptionBudget shop/db allows no disruption of pod shop/db-0 (3 of 12 pods evicted)",
        )),
        "w-067/prepare" => {
            Fate::Fails(Reason::new("PackageLockHeld", "dpkg is locked by unattended-upgrades (pid 811)"))
        }
        _ => usual(vertex),
    };
    world.until(260, blocked);
    story.scene("A blocked drain, and a node that is tried again", &world, run, &[]);
    world.intent =
        Intent { pause: Some(Reason::new("Paused", "paused by its annotation")), cancel: false, ..Intent::default() };
    world.until(270, blocked);
    story.scene("Paused", &world, run, &[]);
    world.intent = Intent::default();
    world.until(5_000, blocked);
    story.scene("The budget of failures is used up", &world, run, &[]);
}

/// Half of a batch at once: too many to show each step.
fn wide_batch(story: &mut Story) {
    let wave = wave_of(&spec(&json!({"concurrency": 60})), &cluster(1, 60, "1.33.4"));
    let batch = &wave.batches[0];
    let mut world = World::new(&batch.plan, 26);
    let mixed = |vertex: &str| match vertex {
        "w-07/drain" => Fate::Waits(Reason::new("DrainBlocked", "the webhook guard.example.com denies the eviction")),
        "w-11/prepare" => Fate::Fails(Reason::new("MirrorAway", "no answer from mirror.example.com")),
        _ => usual(vertex),
    };
    world.until(57, mixed);
    story.scene("26 nodes at once", &world, batch.run.as_str(), &[]);
    let mut world = World::new(&batch.plan, 60);
    world.until(29, mixed);
    story.scene("60 nodes at once", &world, batch.run.as_str(), &[]);
}

/// The wave, when its second batch rests.
fn wave(story: &mut Story) {
    let wave = wave_of(&spec(&json!({"batchSize": 4})), &cluster(1, 100, "1.33.4"));
    let mut world = World::new(&wave.plan, 1);
    let children = |numbers: u32| -> Vec<ChildRun> {
        (1..=numbers).map(|n| child(wave.batches[n as usize - 1].run.as_str(), Phase::InProgress, "5/16")).collect()
    };
    world.until(1_300, usual);
    story.scene("A wave of 25 batches", &world, "to-1-34-6f0d7f0e-1-34-4-workers", &children(5));
    world.until(9_000, |vertex| match vertex {
        "batch-7" => Fate::FailsForGood(Reason::new(
            "DrainBlocked",
            "to-1-34-6f0d7f0e-1-34-4-workers-7: w-027/drain: not done within 930 s",
        )),
        _ => usual(vertex),
    });
    story.scene("A batch rests, so the wave does", &world, "to-1-34-6f0d7f0e-1-34-4-workers", &children(5));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a golden text is written anew where somebody asks for it")]
fn the_story_of_an_upgrade_is_told_as_in_the_golden_text() {
    let mut story =
        Story { text: String::from("# What status.message and status.graph say at the turns of an upgrade\n\n") };
    root(&mut story);
    batch(&mut story);
    wide_batch(&mut story);
    wave(&mut story);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/story.txt");
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(path, &story.text).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    assert!(golden == story.text, "the story changed; UPDATE_GOLDENS=1 takes this over:\n{}", story.text);
}
