//! What each fence is for: a schedule that does harm without it, and none with it.
//!
//! Most harm is kept out by more than one fence, so a fence is rarely missed when it alone is left out. What is looked for is a
//! set of fences and a schedule that violates an invariant without the whole set, and not as soon as the one fence is there.

use super::{Schedule, Settings, run};
use crate::world::{Guard, WorldError};
use std::collections::BTreeSet;

/// Why a fence is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The fence.
    pub guard: Guard,
    /// What else has to be left out before it is missed; empty for a fence that stands alone.
    pub beside: BTreeSet<Guard>,
    /// What happens.
    pub schedule: Schedule,
    /// What is violated when the fence is left out too.
    pub invariant: &'static str,
}

impl Need {
    /// All fences that are left out.
    pub fn without(&self) -> BTreeSet<Guard> {
        let mut without = self.beside.clone();
        without.insert(self.guard);
        without
    }
}

/// What a schedule violates first when those fences are left out.
///
/// # Errors
/// As [`run`].
pub fn harm(
    settings: &Settings,
    schedule: &Schedule,
    without: &BTreeSet<Guard>,
) -> Result<Option<&'static str>, WorldError> {
    let settings = Settings { without: without.clone(), ..settings.clone() };
    Ok(run(&settings, schedule)?.violations.first().map(|violation| violation.invariant))
}

/// Whether a schedule shows what a fence is for, and beside how few others that are left out.
///
/// Bounded: at most two runs for each fence there is.
///
/// # Errors
/// As [`run`].
pub fn need(settings: &Settings, schedule: &Schedule, guard: Guard) -> Result<Option<Need>, WorldError> {
    let alone = BTreeSet::from([guard]);
    let mut off = if harm(settings, schedule, &alone)?.is_some() { alone } else { Guard::ALL.into_iter().collect() };
    let Some(mut invariant) = harm(settings, schedule, &off)? else { return Ok(None) };
    // One after the other is put up again, as long as the harm is still done.
    for other in Guard::ALL.into_iter().filter(|other| *other != guard) {
        let mut fewer = off.clone();
        if fewer.remove(&other)
            && let Some(still) = harm(settings, schedule, &fewer)?
        {
            (off, invariant) = (fewer, still);
        }
    }
    let mut beside = off;
    beside.remove(&guard);
    let kept_out = harm(settings, schedule, &beside)?.is_none();
    Ok(kept_out.then(|| Need { guard, beside, schedule: schedule.clone(), invariant }))
}
