//! `simulate` as a program: what its processes do together.

#![expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test of the program itself")]

use serde_json::Value;
use std::process::Command;

fn simulate(arguments: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-cupcake"));
    command.args(["simulate", "--control-planes", "1", "--workers", "1", "-o", "json"]).args(arguments);
    let output = command.env("RUST_LOG", "off").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn schedules_that_share_their_beginnings_go_as_each_of_them_does_by_itself() {
    // Run together, then each by itself: `transcriptsAlike` counts those that gave the same transcript.
    let report = simulate(&["--faults", "random", "--seed", "5", "--schedules", "15", "--branches", "6", "--twice"]);
    let counts = ["schedules", "seeds", "transcriptsAlike", "violatingSchedules"].map(|field| report[field].as_u64());
    assert_eq!(counts, [Some(15), Some(3), Some(15), Some(0)], "{report:#}");
    let injected: u64 = report["faultsInjected"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert!(injected > 10, "{report:#}");
}

#[test]
fn a_calm_schedule_meets_no_fault_and_tells_which_transcript_it_gave() {
    let calm = simulate(&["--seed", "5", "--calm"]);
    let disturbed = simulate(&["--seed", "5"]);
    assert_eq!((&calm["schedules"], &calm["faultsInjected"]), (&1.into(), &serde_json::json!({})), "{calm:#}");
    assert_ne!(disturbed["faultsInjected"], serde_json::json!({}), "{disturbed:#}");
    assert_eq!(calm["transcriptSha256"].as_str().map(str::len), Some(64), "{calm:#}");
    assert_ne!(calm["transcriptSha256"], disturbed["transcriptSha256"]);
    let faults = ["--faults", "random", "--schedules", "2"];
    assert_eq!(simulate(&faults).get("transcriptSha256"), None, "there are two");
}
