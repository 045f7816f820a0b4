//! How long the workers that are left may take, by how long those took that are done. Pure.

use super::View;
use super::words::{State, duration, ended_of, first_of, state_of};
use cupcake_engine::dag::Vertex;
use std::collections::BTreeMap;

/// The workers of a hop as its runs show them, times in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Workers {
    /// How long each took that is done.
    pub done: Vec<u64>,
    /// For how long each is under way.
    pub under_way: Vec<u64>,
    /// How many have not begun, by batch: that which is open, then those after it.
    pub waiting: Vec<u32>,
    /// How many may be under way at once.
    pub at_once: u32,
    /// How many the largest batch has so far.
    pub batch: u32,
}

/// How much longer they take: between these, if each takes no less and no more than those that are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// In seconds.
    pub least: u64,
    /// In seconds.
    pub most: u64,
    /// Workers that are left.
    pub workers: u32,
    /// Workers that tell how long one takes.
    pub by: u32,
}

impl Left {
    /// In one line.
    pub fn line(&self) -> String {
        let seconds = |seconds: u64| duration(i64::try_from(seconds).unwrap_or(i64::MAX));
        let Self { least, most, workers, by } = *self;
        let (least, most) = (seconds(least), seconds(most));
        let between = if least == most { format!("about {least}") } else { format!("{least} to {most}") };
        format!("{workers} left for {between}, by the {by} done, where nothing has to be waited for")
    }
}

impl Workers {
    /// Those of batches that were opened, each with how many it may have at work at once: none where it is over.
    pub fn of(batches: &[(View<'_>, u32)]) -> Self {
        let mut workers = Self { waiting: vec![0], ..Self::default() };
        for (view, at_once) in batches {
            workers.at_once += at_once;
            let mut lanes: BTreeMap<&str, Vec<&Vertex>> = BTreeMap::new();
            for vertex in view.dag.vertices() {
                if let Some(lane) = &vertex.lane {
                    lanes.entry(lane).or_default().push(vertex);
                }
            }
            workers.batch = workers.batch.max(u32::try_from(lanes.len()).unwrap_or(u32::MAX));
            for vertices in lanes.values() {
                workers.add(view, vertices);
            }
        }
        workers
    }

    /// With so many that batches to come have, as large as those before.
    pub fn with_later(mut self, mut later: u32) -> Self {
        while later > 0 {
            let batch = later.min(self.batch.max(1));
            self.waiting.push(batch);
            later -= batch;
        }
        self
    }

    /// A worker that failed or was left out takes no time any more, and tells of none.
    fn add(&mut self, view: &View<'_>, vertices: &[&Vertex]) {
        let states: Vec<_> = vertices.iter().map(|vertex| state_of(view, vertex)).collect();
        let began = states.iter().filter_map(|state| first_of(*state)).min();
        let is = |wanted: State| states.iter().any(|state| State::of(*state) == wanted);
        let seconds = |span: chrono::TimeDelta| u64::try_from(span.num_seconds()).unwrap_or(0);
        match began {
            _ if is(State::Failed) || is(State::Skipped) => {}
            None => self.waiting[0] += 1,
            Some(began) => match states.iter().map(|state| ended_of(*state)).collect::<Option<Vec<_>>>() {
                Some(ended) => self.done.extend(ended.into_iter().max().map(|ended| seconds(ended - began))),
                None => self.under_way.push(seconds(view.now() - began)),
            },
        }
    }

    /// How much longer they take; nothing where none is done yet, or none is left.
    ///
    /// # Guarantees
    /// Where each worker that is left takes as long as some that are done, or in between, workers are begun as soon as others of their
    /// batch are done, and a batch as soon as the one before it is, the last of them is done within the span.
    pub fn left(&self) -> Option<Left> {
        let (fastest, slowest) = (*self.done.iter().min()?, *self.done.iter().max()?);
        let waiting = self.waiting.iter().fold(0_u32, |sum, batch| sum.saturating_add(*batch));
        let workers = waiting.saturating_add(u32::try_from(self.under_way.len()).unwrap_or(u32::MAX));
        let by = u32::try_from(self.done.len()).unwrap_or(u32::MAX);
        (workers > 0).then(|| Left {
            least: self.if_each_takes(fastest),
            most: self.if_each_takes(slowest),
            workers,
            by,
        })
    }

    fn if_each_takes(&self, each: u64) -> u64 {
        let at_once = usize::try_from(self.at_once.max(1)).unwrap_or(usize::MAX).max(self.under_way.len());
        // More slots than workers in a batch stay empty.
        let largest = self.waiting.iter().copied().max().unwrap_or(0);
        let at_once =
            at_once.min(self.under_way.len().saturating_add(usize::try_from(largest).unwrap_or(usize::MAX))).max(1);
        let mut slots: Vec<u64> = self.under_way.iter().map(|since| each.saturating_sub(*since)).collect();
        slots.resize(at_once, 0);
        for batch in &self.waiting {
            for _ in 0..*batch {
                if let Some(first) = slots.iter_mut().min() {
                    *first = first.saturating_add(each);
                }
            }
            // The next batch begins when the last of this one is done.
            let last = slots.iter().copied().max().unwrap_or(0);
            slots.fill(last);
        }
        slots.into_iter().max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_is_said_before_one_is_done_nor_when_none_is_left() {
        let workers = Workers { done: vec![], under_way: vec![5], waiting: vec![3], at_once: 1, batch: 3 };
        assert_eq!(workers.left(), None);
        assert_eq!(Workers { done: vec![60], under_way: vec![], waiting: vec![0], ..workers }.left(), None);
    }

    #[test]
    fn rounds_batches_and_what_is_under_way_count() {
        let workers = Workers { done: vec![60, 90], under_way: vec![20, 50], waiting: vec![3], at_once: 2, batch: 7 }
            .with_later(1);
        let left = workers.left().unwrap();
        // 10 and 40 s, then 70, 100 and 130 s, then the next batch; 40 and 70 s, then 130, 160 and 220 s, and the next.
        assert_eq!(left, Left { least: 190, most: 310, workers: 6, by: 2 });
        assert_eq!(left.line(), "6 left for 3m10s to 5m10s, by the 2 done, where nothing has to be waited for");
    }

    /// When the last worker is done, where each takes what it takes.
    fn simulated(under_way: &[(u64, u64)], batches: &[Vec<u64>], at_once: usize) -> u64 {
        let mut slots: Vec<u64> = under_way.iter().map(|(takes, since)| takes - since).collect();
        slots.resize(at_once, 0);
        for batch in batches {
            for takes in batch {
                *slots.iter_mut().min().unwrap() += takes;
            }
            let last = *slots.iter().max().unwrap();
            slots.fill(last);
        }
        slots.into_iter().max().unwrap()
    }

    proptest! {
        #[test]
        fn what_takes_as_long_as_what_is_done_ends_within_the_span(
            done in proptest::collection::vec(1_u64..2_000, 1..20),
            shares in proptest::collection::vec((0_u64..=100, 0_u64..=100), 0..8),
            batches in proptest::collection::vec(proptest::collection::vec(0_u64..=100, 0..30), 1..4),
            more in 0_usize..6,
        ) {
            let (fastest, slowest) = (*done.iter().min().unwrap(), *done.iter().max().unwrap());
            let takes = |share: u64| fastest + (slowest - fastest) * share / 100;
            let under_way: Vec<(u64, u64)> = shares.iter().map(|(share, gone)| (takes(*share), takes(*share) * gone / 100)).collect();
            let batches: Vec<Vec<u64>> = batches.iter().map(|batch| batch.iter().map(|share| takes(*share)).collect()).collect();
            let at_once = (under_way.len() + more).max(1);
            let workers = Workers {
                done,
                under_way: under_way.iter().map(|(_, since)| *since).collect(),
                waiting: batches.iter().map(|batch| u32::try_from(batch.len()).unwrap()).collect(),
                at_once: u32::try_from(at_once).unwrap(),
                batch: 30,
            };
            let ends = simulated(&under_way, &batches, at_once);
            if let Some(left) = workers.left() {
                prop_assert!((left.least..=left.most).contains(&ends), "{left:?}: {ends}");
            } else {
                prop_assert_eq!(ends, 0);
            }
        }
    }
}
