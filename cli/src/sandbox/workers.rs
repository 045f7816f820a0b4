//! Processes that run schedules beside each other, and tell what each came to.
//!
//! Schedules that share their beginning are run by copies of a process (`cupcake_sandbox::simulate::branches`), and only a
//! process of one thread can be copied: so each worker is a process. It tells one line of JSON a schedule through a pipe.

use super::failed;
use crate::exit::Failure;
use crate::out;
use cupcake_sandbox::machine::fault::Fault;
use cupcake_sandbox::simulate::branches::{self, Copied};
use cupcake_sandbox::simulate::{Schedule, Settings, Verdict};
use cupcake_sandbox::world::WorldError;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter, Write};

/// What a schedule came to, as a worker tells it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Leaf {
    pub(super) seed: u64,
    #[serde(serialize_with = "words", deserialize_with = "faults")]
    faults: Vec<Fault>,
    /// The faults that came to pass.
    #[serde(serialize_with = "words", deserialize_with = "faults")]
    pub(super) happened: Vec<Fault>,
    pub(super) phase: String,
    /// Effects that were run again after an interruption.
    pub(super) reruns: u32,
    pub(super) virtual_seconds: f64,
    /// Digest of its transcript.
    pub(super) transcript: String,
    /// Each invariant that was violated, and what was seen.
    pub(super) violations: Vec<(String, String)>,
}

fn words<S: Serializer>(faults: &[Fault], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(faults.iter().map(ToString::to_string))
}

fn faults<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Fault>, D::Error> {
    let words = Vec::<String>::deserialize(deserializer)?;
    words.iter().map(|word| word.parse().map_err(serde::de::Error::custom)).collect()
}

impl Leaf {
    fn new(schedule: &Schedule, verdict: &Verdict) -> Self {
        let violation =
            |violation: &cupcake_sandbox::world::Violation| (violation.invariant.to_owned(), violation.what.clone());
        Self {
            seed: schedule.seed,
            faults: schedule.faults.clone(),
            happened: verdict.happened.clone(),
            phase: verdict.outcome.phase.clone(),
            reruns: verdict.outcome.reruns_after_interruption,
            virtual_seconds: verdict.outcome.virtual_seconds,
            transcript: verdict.outcome.transcript_sha256.clone(),
            violations: verdict.violations.iter().map(violation).collect(),
        }
    }

    /// What repeats it.
    pub(super) fn schedule(&self) -> Schedule {
        Schedule { seed: self.seed, faults: self.faults.clone() }
    }
}

/// A process that runs schedules.
pub(super) struct Worker {
    copy: Copied,
    told: PipeReader,
}

impl Worker {
    /// Hands on each schedule as it comes, until the worker has ended.
    pub(super) fn each(self, mut enter: impl FnMut(&Leaf) -> Result<(), WorldError>) -> Result<(), Failure> {
        for line in BufReader::new(self.told).lines() {
            let line = line.map_err(|error| failed(&error))?;
            let leaf: Leaf = serde_json::from_str(&line).map_err(|error| failed(&error))?;
            enter(&leaf).map_err(|error| failed(&error))?;
        }
        self.copy.wait().map_err(|error| failed(&error))
    }
}

/// Starts so many workers; the families that the function numbers are dealt out to them in turn, each until its first `None`.
pub(super) fn start(
    settings: &Settings,
    count: usize,
    families: &dyn Fn(u64) -> Option<(u64, Vec<Vec<Fault>>)>,
) -> Result<Vec<Worker>, Failure> {
    let start = |first: usize| {
        let (told, mut tell) = io::pipe().map_err(|error| failed(&error))?;
        let work = || {
            let own = (0u64..).skip(first).step_by(count);
            let ended = own.map_while(families).try_for_each(|(seed, lists)| {
                branches::run(settings, seed, lists, |schedule, verdict| say(&mut tell, schedule, verdict))
            });
            if let Err(error) = &ended {
                out::complain(format!("simulate: {error}"));
            }
            ended.is_ok()
        };
        let copy = branches::in_a_copy(work).map_err(|error| failed(&error))?;
        // The copy holds the other end now: what is told ends when it does.
        drop(tell);
        Ok(Worker { copy, told })
    };
    (0..count).map(start).collect()
}

/// Of a worker and its copies only one is ever at work: lines do not mix.
fn say(tell: &mut PipeWriter, schedule: &Schedule, verdict: &Verdict) -> bool {
    let line = serde_json::to_vec(&Leaf::new(schedule, verdict)).map(|mut line| {
        line.push(b'\n');
        line
    });
    line.is_ok_and(|line| tell.write_all(&line).is_ok())
}
