//! Rules of [`UpgradeRun`].

use super::{CelRule, Checks, Validate, Violations, json, same, shown};
use crate::{UpgradeRun, UpgradeRunStatus, values::Phase};

/// On the spec.
pub(crate) const FIXED: CelRule = (
    concat!(
        "self.directUpdate == oldSelf.directUpdate && self.failuresMax == oldSelf.failuresMax && ",
        same!("hop"),
        " && self.operationId == oldSelf.operationId && ",
        same!("parent"),
        " && self.plan == oldSelf.plan && self.targetVersion == oldSelf.targetVersion"
    ),
    "only concurrency can change in the spec of a run; edit the DirectUpdate instead",
);
/// On the root: the fence against a leader that was paused longer than its lease.
pub(crate) const EPOCH_GROWS: CelRule = (
    "!has(oldSelf.status) || !has(oldSelf.status.epoch) || (has(self.status) && has(self.status.epoch) && self.status.epoch >= oldSelf.status.epoch)",
    "status.epoch cannot decrease: another leader has taken over; stop writing",
);
/// On the root.
pub(crate) const COMMIT_GROWS: CelRule = (
    "!has(oldSelf.status) || !has(oldSelf.status.commit) || (has(self.status) && has(self.status.commit) && (self.status.commit.epoch > oldSelf.status.commit.epoch || (self.status.commit.epoch == oldSelf.status.commit.epoch && self.status.commit.sequence >= oldSelf.status.commit.sequence)))",
    "status.commit cannot go back: a later write is already there; read again",
);
/// On the root.
pub(crate) const FINAL_STAYS: CelRule = (
    "!has(oldSelf.status) || !has(oldSelf.status.phase) || !(oldSelf.status.phase in ['Succeeded', 'Failed', 'Cancelled']) || (has(self.status) && has(self.status.phase) && self.status.phase == oldSelf.status.phase)",
    "status.phase cannot change once it is Succeeded, Failed or Cancelled; create another DirectUpdate",
);

impl Validate for UpgradeRun {
    fn validate(&self) -> Result<(), Violations> {
        Ok(())
    }

    fn validate_update(&self, old: &Self) -> Result<(), Violations> {
        let mut checks = Checks::default();
        let mut fixed = self.spec.clone();
        fixed.concurrency = old.spec.concurrency;
        checks.rule(FIXED, fixed == old.spec, "spec", json(&self.spec));
        // An absent status is one with nothing in it: what was there before is missing now.
        let nothing = UpgradeRunStatus::default();
        status(&mut checks, self.status.as_ref().unwrap_or(&nothing), old.status.as_ref().unwrap_or(&nothing));
        checks.end()
    }
}

fn status(checks: &mut Checks, new: &UpgradeRunStatus, old: &UpgradeRunStatus) {
    // None orders before everything: what was never there cannot go back.
    checks.rule(EPOCH_GROWS, new.epoch >= old.epoch, "status.epoch", shown(new.epoch.as_ref()));
    checks.rule(COMMIT_GROWS, new.commit >= old.commit, "status.commit", json(&new.commit));
    let ended = old.phase.is_some_and(Phase::is_final);
    checks.rule(FINAL_STAYS, !ended || new.phase == old.phase, "status.phase", shown(new.phase.as_ref()));
}
