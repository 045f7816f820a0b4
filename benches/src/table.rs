//! One table of all figures.

use crate::objects::Size;
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;

/// One bench: the name of its folder, and what it is for people.
#[derive(Debug, Clone, Copy)]
pub struct Bench {
    /// As criterion knows it: letters, digits and dashes.
    pub id: &'static str,
    /// What is measured.
    pub what: &'static str,
}

/// A time in nanoseconds, in a unit that fits.
pub fn time(nanoseconds: f64) -> String {
    if nanoseconds < 1e3 {
        format!("{nanoseconds:.0} ns")
    } else if nanoseconds < 1e6 {
        format!("{:.1} µs", nanoseconds / 1e3)
    } else if nanoseconds < 1e9 {
        format!("{:.2} ms", nanoseconds / 1e6)
    } else {
        format!("{:.2} s", nanoseconds / 1e9)
    }
}

/// The table, from what criterion left in `folder` and from the sizes of objects.
pub fn table(folder: &Path, benches: &[Bench], sizes: &[Size]) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "| what | median | 95 % interval |\n|---|---:|---:|");
    for Bench { id, what } in benches {
        let (median, interval) = match measured(folder, id) {
            Some([median, low, high]) => (time(median), format!("{} to {}", time(low), time(high))),
            None => ("not run".to_owned(), String::new()),
        };
        let _ = writeln!(text, "| {what} | {median} | {interval} |");
    }
    let _ = writeln!(text, "| **object** | **bytes** | **goal** |");
    for Size { what, bytes, bytes_max } in sizes {
        let _ = writeln!(text, "| {what} | {bytes} | {bytes_max} |");
    }
    text
}

/// Median and the bounds of its confidence interval, in nanoseconds.
#[expect(clippy::disallowed_methods, reason = "criterion gives its figures by no other way than its files")]
fn measured(folder: &Path, id: &str) -> Option<[f64; 3]> {
    let json = std::fs::read(folder.join(id).join("new").join("estimates.json")).ok()?;
    let estimates: Value = serde_json::from_slice(&json).ok()?;
    let median = &estimates["median"];
    let interval = &median["confidence_interval"];
    Some([median["point_estimate"].as_f64()?, interval["lower_bound"].as_f64()?, interval["upper_bound"].as_f64()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_a_unit_that_fits() {
        let times = [7.4, 1_500.0, 2_340_000.0, 1.5e9].map(time);
        assert_eq!(times, ["7 ns", "1.5 µs", "2.34 ms", "1.50 s"]);
    }
}
