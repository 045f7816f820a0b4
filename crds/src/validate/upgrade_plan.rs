//! Rules of [`UpgradePlan`].

use super::{CelRule, Checks, Validate, Violations};
use crate::UpgradePlan;

/// On the spec.
pub(crate) const IMMUTABLE: CelRule =
    ("self == oldSelf", "a plan is written once and never changed; create another one");

impl Validate for UpgradePlan {
    fn validate(&self) -> Result<(), Violations> {
        Ok(())
    }

    fn validate_update(&self, old: &Self) -> Result<(), Violations> {
        let mut checks = Checks::default();
        checks.rule(IMMUTABLE, self.spec == old.spec, "spec", &self.spec.digest);
        checks.end()
    }
}
