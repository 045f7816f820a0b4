//! Shows a forest as it changes: a live tree, a line an event, or JSON.

use crate::args::Format;
use crate::forest::{Detail, Forest, Graphs};
use crate::out;
use crate::terminal::Block;
use cupcake_crds::UpgradeRun;
use cupcake_engine::clock::Timestamp;
use cupcake_workflows::render::Glyphs;
use kube::ResourceExt as _;
use std::collections::BTreeMap;

/// How changes are shown.
#[derive(Debug)]
pub enum Printer {
    /// A tree that is drawn anew.
    Live(Block, Glyphs),
    /// New events as lines.
    Plain(EventLog),
    /// Each changed run, as one line of JSON or one document of YAML.
    Documents(Format, BTreeMap<String, Option<String>>),
    /// Not at all.
    Silent,
}

impl Printer {
    /// For people: a live tree if they watch, else lines.
    pub fn for_people(glyphs: Glyphs) -> Self {
        if out::is_watched() { Self::Live(Block::default(), glyphs) } else { Self::Plain(EventLog::default()) }
    }

    /// Shows what is new.
    pub fn show(&mut self, forest: &Forest, graphs: &Graphs, now: Timestamp) {
        match self {
            Self::Live(block, glyphs) => block.draw(&forest.lines(graphs, now, Detail::Short, *glyphs)),
            Self::Plain(log) => {
                for line in log.news(forest) {
                    out::line(line);
                }
            }
            Self::Documents(format, seen) => {
                for run in &forest.runs {
                    let version = run.resource_version();
                    if seen.insert(run.name_any(), version.clone()) != Some(version) {
                        match format {
                            Format::Json => out::json_line(run),
                            Format::Yaml => out::yaml_document(run),
                        }
                    }
                }
            }
            Self::Silent => {}
        }
    }
}

/// What has been told of each run.
#[derive(Debug, Default)]
pub struct EventLog {
    told: BTreeMap<String, Vec<String>>,
    message: Option<String>,
}

impl EventLog {
    /// The events that were not told yet, each with its run's name.
    fn news(&mut self, forest: &Forest) -> Vec<String> {
        let mut news = Vec::new();
        for run in &forest.runs {
            let events = events_of(run);
            let told = self.told.entry(run.name_any()).or_default();
            for event in unseen(told, events) {
                news.push(format!("{} {event}", run.name_any()));
            }
            told.clear();
            told.extend_from_slice(events);
        }
        let status = forest.update.as_ref().and_then(|update| update.status.as_ref());
        let message = status.and_then(|status| status.message.clone());
        // Without a run there are no events, and only the update can say why.
        if forest.runs.is_empty() && message != self.message {
            news.extend(message.clone());
            self.message = message;
        }
        news
    }
}

fn events_of(run: &UpgradeRun) -> &[String] {
    run.status.as_ref().map_or(&[], |status| &status.events)
}

/// What of `events` came after `told`: the ring of events moves on, so the longest end of `told` that `events` begins with
/// has been told.
fn unseen<'a>(told: &[String], events: &'a [String]) -> &'a [String] {
    let overlap = (0..=told.len().min(events.len())).rev().find(|count| told.ends_with(&events[..*count]));
    &events[overlap.unwrap_or(0)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &str) -> Vec<String> {
        text.chars().map(String::from).collect()
    }

    #[test]
    fn only_what_the_ring_of_events_gained_is_new() {
        assert_eq!(unseen(&events(""), &events("ab")), events("ab"));
        assert_eq!(unseen(&events("ab"), &events("ab")), events(""));
        assert_eq!(unseen(&events("abc"), &events("bcde")), events("de"));
        assert_eq!(unseen(&events("abc"), &events("xyz")), events("xyz"));
        assert_eq!(unseen(&events("aa"), &events("aaa")), events("a"));
    }
}
