//! What is asked for, and the names that everything made from it has.

use crate::finding::{Code, Finding};
use cupcake_crds::values::{Concurrency, KubeVersion, Strategy};
use cupcake_crds::{DirectUpdate, DirectUpdateSpec};
use cupcake_engine::names::RunName;

/// How many workers one batch holds unless the user or a higher concurrency says otherwise.
pub const BATCH_NODES_DEFAULT: u32 = 50;
/// How many workers one batch may hold: its plan must fit an object of 64 kB.
pub const BATCH_NODES_MAX: u32 = 250;

/// A DirectUpdate as compilers read it: its name, its UID, and what it asks for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// `metadata.name`.
    pub name: &'a str,
    /// `metadata.uid`.
    pub uid: &'a str,
    /// `spec`.
    pub spec: &'a DirectUpdateSpec,
}

impl<'a> Request<'a> {
    /// That of an object; `None` if it has no name or UID yet, which an API server gives every object.
    pub fn of(update: &'a DirectUpdate) -> Option<Self> {
        let name = update.metadata.name.as_deref()?;
        let uid = update.metadata.uid.as_deref()?;
        Some(Self { name, uid, spec: &update.spec })
    }

    /// The name of the root run: `<directupdate>-<first 8 of its UID>`.
    ///
    /// # Errors
    /// If the run, its children, their plans and its snapshot could not all be named after it within 253 characters.
    pub fn root_run(&self) -> Result<RunName, Finding> {
        let start: String = self.uid.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
        let name = format!("{}-{}", self.name, start.to_ascii_lowercase());
        if name.len() > ROOT_BYTES_MAX {
            return Err(Finding::new(
                Code::NameTooLong,
                "metadata.name",
                self.name,
                format!("runs and plans could not be named after it: it has {} characters", self.name.len()),
                format!("create it again with a name of at most {} characters", ROOT_BYTES_MAX - 9),
            ));
        }
        RunName::new(name).map_err(|error| {
            Finding::new(
                Code::NameTooLong,
                "metadata.name",
                self.name,
                error.to_string(),
                "create it again with another name",
            )
        })
    }
}

/// The longest root run name: `-1.35.0-alpha.1-workers-stragglers-15000-` and 8 digits of a digest must fit behind it in 253 characters,
/// and a version in the 200 of a snapshot's name.
const ROOT_BYTES_MAX: usize = 180;

/// The name of the wave of a hop: `<root>-<version with - instead of .>-workers`.
pub fn wave_run(root: &RunName, target: KubeVersion) -> Result<RunName, Finding> {
    derived(format!("{root}-{}-workers", target.to_string().replace('.', "-")))
}

/// The name of a batch of a wave: `<wave>-<number>`, numbers from 1.
pub fn batch_run(wave: &RunName, number: u32) -> Result<RunName, Finding> {
    derived(format!("{wave}-{number}"))
}

/// The name of the runs that try workers of a wave again, but for `-` and their number: `<wave>-stragglers`.
pub(crate) fn stragglers_run(wave: &RunName) -> Result<RunName, Finding> {
    derived(format!("{wave}-stragglers"))
}

/// The name of the UpgradePlan of a run: `<run>-<first 8 of the plan's digest>`.
pub fn plan_name(run: &RunName, digest: &str) -> String {
    format!("{run}-{}", digest.get(..8).unwrap_or(digest))
}

fn derived(name: String) -> Result<RunName, Finding> {
    RunName::new(name.clone()).map_err(|error| {
        let remedy = "create the DirectUpdate again with a shorter name";
        Finding::new(Code::NameTooLong, "metadata.name", name, error.to_string(), remedy)
    })
}

/// The bounds that a run of a plan is created with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunLimits {
    /// How many nodes may be open at once.
    pub concurrency: u32,
    /// How many failed nodes stop the opening of new ones.
    pub failures_max: u32,
}

impl RunLimits {
    /// Of roots and waves: control-plane nodes strictly one by one, and any failure stops what comes after.
    pub const STRICT: Self = Self { concurrency: 1, failures_max: 1 };
}

/// How many workers a spec lets be in flight at once, of `selected` ones (those at the target already included); 1 or more.
///
/// `spec.concurrency` may change while a run is under way: ask again.
pub fn concurrency_of(spec: &DirectUpdateSpec, selected: u32) -> u32 {
    match spec.strategy {
        Strategy::Parallel => selected.max(1),
        Strategy::Rolling | Strategy::Canary => spec.concurrency.of(selected),
    }
}

/// The bounds of one batch of `batch_nodes`, of `selected` workers.
pub fn batch_limits(spec: &DirectUpdateSpec, selected: u32, batch_nodes: u32) -> RunLimits {
    RunLimits {
        concurrency: concurrency_of(spec, selected).min(batch_nodes.max(1)),
        failures_max: spec.max_failures.unwrap_or(1).max(1),
    }
}

/// How many workers make one batch in a wave that moves `moving` of `selected` ones, or why there can be no such batch.
pub(crate) fn batch_nodes(spec: &DirectUpdateSpec, selected: u32, moving: u32) -> Result<u32, Finding> {
    if let Some(asked) = spec.batch_size {
        return if (1..=BATCH_NODES_MAX).contains(&asked) {
            Ok(asked)
        } else {
            Err(Finding::new(
                Code::OutOfRange,
                "spec.batchSize",
                asked,
                "it is no size of a batch",
                format!("set 1 to {BATCH_NODES_MAX}, or leave it out for {BATCH_NODES_DEFAULT}"),
            ))
        };
    }
    match spec.strategy {
        Strategy::Parallel => Ok(BATCH_NODES_DEFAULT),
        Strategy::Rolling | Strategy::Canary => {
            let wanted = spec.concurrency.of(selected).min(moving.max(1));
            if wanted > BATCH_NODES_MAX {
                return Err(Finding::new(
                    Code::OutOfRange,
                    "spec.concurrency",
                    spec.concurrency,
                    format!(
                        "{wanted} workers at once need a batch of as many, and a batch holds {BATCH_NODES_MAX} at most"
                    ),
                    format!("set {BATCH_NODES_MAX} or less, or strategy parallel"),
                ));
            }
            Ok(wanted.max(BATCH_NODES_DEFAULT))
        }
    }
}

/// Whether a concurrency is one: objects may be older than the schema, or come past it.
pub(crate) fn is_concurrency(concurrency: Concurrency) -> bool {
    match concurrency {
        Concurrency::Nodes(nodes) => (1..=Concurrency::NODES_MAX).contains(&nodes),
        Concurrency::Percent(percent) => (1..=100).contains(&percent),
    }
}
