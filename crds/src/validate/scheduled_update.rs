//! Rules of [`ScheduledUpdate`].

use super::{CelRule, Checks, Validate, Violations, direct_update, json};
use crate::ScheduledUpdate;
use cupcake_engine::clock::Timestamp;

/// On the root.
pub(crate) const FROZEN: CelRule = (
    "!has(oldSelf.status) || !has(oldSelf.status.directUpdateName) || self.spec == oldSelf.spec",
    "spec cannot change once status.directUpdateName names a DirectUpdate; change that one, or create another ScheduledUpdate",
);

/// On the field: a schema with a format lets lists through where a text is meant (kube-openapi `validate.typeValidator`), a rule does not.
pub(crate) const SCHEDULE_AT: CelRule = (
    "self > timestamp('1970-01-01T00:00:00Z')",
    "a time after 1970 is needed, with its offset from UTC, for example 2027-01-09T22:00:00Z",
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
    let at = spec.schedule_at;
    checks.rule(SCHEDULE_AT, at > Timestamp::UNIX_EPOCH, "spec.scheduleAt", at.to_rfc3339());
    direct_update::version(checks, &spec.target_version);
    direct_update::concurrency(checks, spec.concurrency, "spec.concurrency");
    direct_update::duration(checks, spec.node_timeout, "spec.nodeTimeout");
    direct_update::drain(
        checks,
        spec.drain.as_ref(),
        ["spec.drain.timeout", "spec.drain.podTimeout", "spec.drain.rules"],
    );
    direct_update::choices(checks, spec.strategy, spec.canary.as_ref(), spec.air_gapped.as_ref());
}
