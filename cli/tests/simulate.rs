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
