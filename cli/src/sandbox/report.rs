//! What a sandbox run leaves for people and programs.

use cupcake_sandbox::world::Outcome;
use serde::Serialize;
use std::time::Duration;

/// An outcome with what only the process knows.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// What remains of the run.
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
    /// How long it took.
    wall_seconds: f64,
    /// The most memory that the process held, in bytes; 0 where the system does not tell.
    peak_memory_bytes: u64,
}

impl Report {
    pub(crate) fn new(outcome: Outcome, wall: Duration) -> Self {
        let wall_seconds = (wall.as_secs_f64() * 1_000.0).round() / 1_000.0;
        Self { outcome, wall_seconds, peak_memory_bytes: peak_memory_bytes() }
    }

    /// For people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let outcome = &self.outcome;
        let mut versions: Vec<&str> = outcome.nodes.iter().map(|node| node.version.as_str()).collect();
        versions.sort_unstable();
        versions.dedup();
        let cordoned = outcome.nodes.iter().filter(|node| !node.schedulable).count();
        let mut lines = vec![
            String::new(),
            format!(
                "{}: {} nodes at {}, {cordoned} cordoned",
                outcome.phase,
                outcome.nodes.len(),
                versions.join(" and ")
            ),
        ];
        if !outcome.succeeded() {
            lines.push(format!("  {}", outcome.message));
        }
        lines.push(format!(
            "  {} of virtual time in {:.1} s; {} MiB at most",
            minutes(outcome.virtual_seconds),
            self.wall_seconds,
            self.peak_memory_bytes / (1024 * 1024)
        ));
        lines.push(format!(
            "  {} engine writes a worker; largest object {} bytes, largest plan {} bytes",
            outcome.engine_writes_per_worker, outcome.largest_object_bytes, outcome.largest_plan_bytes
        ));
        let killed = outcome.killed.as_ref().map_or_else(String::new, |killed| format!("; killed {killed}"));
        lines.push(format!(
            "  {} effects duplicated, {} run again after an interruption{killed}",
            outcome.duplicated_effects, outcome.reruns_after_interruption
        ));
        lines
    }
}

fn minutes(seconds: f64) -> String {
    format!("{:.0} min {:02.0} s", (seconds / 60.0).floor(), (seconds % 60.0).floor())
}

/// `VmHWM` of this process.
#[expect(clippy::disallowed_methods, reason = "the process's own figures")]
fn peak_memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes: Option<u64> = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    kilobytes.unwrap_or_default() * 1024
}
