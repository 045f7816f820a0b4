//! What each fence of the protocol is for: every line of the table in docs/fences.md is run with the fence left out, which does
//! the harm that the line names, and with the fence in its place, which keeps it out.
#![expect(clippy::disallowed_methods, reason = "reads the table in the documentation")]

use cupcake_crds::values::KubeVersion;
use cupcake_engine::clock::Timestamp;
use cupcake_sandbox::simulate::{Schedule, Settings, fences};
use cupcake_sandbox::world::Fence;
use std::collections::BTreeSet;

struct Line {
    fence: Fence,
    beside: BTreeSet<Fence>,
    invariant: String,
    /// What those beside it do by themselves.
    either_way: BTreeSet<String>,
    schedule: Schedule,
}

fn lines() -> Vec<Line> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/fences.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<String> = row.split('|').map(|cell| cell.trim().replace('`', "")).collect();
        let names = cells[2].split(", ").filter(|name| !name.is_empty() && *name != "-");
        Line {
            fence: cells[1].parse().unwrap(),
            beside: names.map(|name| name.parse().unwrap()).collect(),
            invariant: cells[3].split(", ").next().unwrap().to_owned(),
            either_way: cells[3]
                .split_once(", besides ")
                .into_iter()
                .flat_map(|(_, others)| others.split(" and "))
                .map(str::to_owned)
                .collect(),
            schedule: schedule(&cells[4]),
        }
    })
    .collect()
}

/// A schedule as it is typed.
fn schedule(text: &str) -> Schedule {
    let words: Vec<&str> = text.split(' ').collect();
    let mut schedule = Schedule { seed: 0, faults: Vec::new() };
    for pair in words.chunks(2) {
        match pair {
            ["--seed", seed] => schedule.seed = seed.parse().unwrap(),
            ["--fault", fault] => schedule.faults.push(fault.parse().unwrap()),
            _ => panic!("{text:?} is no schedule"),
        }
    }
    schedule
}

#[test]
fn every_fence_is_missed_by_a_schedule_that_does_no_harm_once_it_stands() {
    let settings = Settings {
        control_planes: 1,
        workers: 2,
        from: KubeVersion::new(1, 33, 4),
        to: KubeVersion::new(1, 34, 4),
        start: Timestamp::from_timestamp(1_767_225_600, 0).unwrap(),
        operators: 2,
        concurrency: 1,
        without: BTreeSet::new(),
    };
    let lines = lines();
    println!("| left out | violated without it | with it | by |\n|---|---|---|---|");
    for line in &lines {
        let told = format!("{}, {}", line.fence, line.schedule);
        let mut without = line.beside.clone();
        if !line.either_way.is_empty() {
            let harms = |without: &BTreeSet<Fence>| -> BTreeSet<String> {
                fences::harms(&settings, &line.schedule, without).unwrap().into_iter().map(str::to_owned).collect()
            };
            assert_eq!(harms(&without), line.either_way, "{told}: with the fence");
            without.insert(line.fence);
            assert!(harms(&without).contains(&line.invariant), "{told}: without the fence");
            let either_way = line.either_way.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            println!("| {} | {} | {either_way}, by those beside it | {} |", line.fence, line.invariant, line.schedule);
            continue;
        }
        let harm = |without: &BTreeSet<Fence>| fences::harm(&settings, &line.schedule, without).unwrap();
        assert_eq!(harm(&without), None, "{told}: with the fence");
        without.insert(line.fence);
        assert_eq!(harm(&without), Some(line.invariant.as_str()), "{told}: without the fence");
        println!("| {} | {} | - | {} |", line.fence, line.invariant, line.schedule);
    }
    let shown: BTreeSet<Fence> = lines.iter().map(|line| line.fence).collect();
    assert_eq!(shown, Fence::ALL.into_iter().collect(), "a fence has no line in docs/fences.md");
}
