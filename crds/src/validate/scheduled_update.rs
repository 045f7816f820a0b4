//! Rules of [`ScheduledUpdate`].

use super::{CelRule, Checks, Validate, Violations, direct_update, json};
use crate::ScheduledUpdate;

/// On the root.
pub(crate) const FROZEN: CelRule = (
    "!has(oldSelf.status) || !has(oldSelf.status.directUpdateName) || self.spec == oldSelf.spec",
    "spec cannot change once status.directUpdateName names a DirectUpdate; change that one, or create another ScheduledUpdate",
);

impl Validate for ScheduledUpdate {
    fn validate(&self) -> Result<(), Violations> {
        let mut checks = Checks::default();
        every_time(&mut checks, self);
        checks.end()
    }

    fn validate_update(&self, old: &Self) -> Result<(), Violations> {
        let mut checks = Checks::default();
        every_time(&mut checks, self);
        let begun = old.status.as_ref().is_some_and(|status| status.direct_update_name.is_some());
        checks.rule(FROZEN, !begun || self.spec == old.spec, "spec", json(&self.spec));
        checks.end()
    }
}

fn every_time(checks: &mut Checks, update: &ScheduledUpdate) {
    let spec = &update.spec;
    direct_update::version(checks, &spec.target_version);
    direct_update::concurrency(checks, spec.concurrency, "spec.concurrency");
    direct_update::duration(checks, spec.node_timeout, "spec.nodeTimeout");
    direct_update::drain(checks, spec.drain.as_ref(), ["spec.drain.timeout", "spec.drain.podTimeout"]);
    direct_update::choices(checks, spec.strategy, spec.canary.as_ref(), spec.air_gapped.as_ref());
}
