//! Rules of [`UpdateSchedule`].

use super::{CelRule, Checks, Validate, Violations, direct_update, json};
use crate::{UpdateSchedule, values::Strategy};

/// On the field: what the pattern demands, said so that it helps.
pub(crate) const FIVE_FIELDS: CelRule = (
    r"self.matches('^[^ \t]+( +[^ \t]+){4}$')",
    "five fields are needed: minute, hour, day of month, month, day of week, for example \"0 2 1 * *\" for 02:00 on the first of each month",
);
/// On the field: what the pattern demands, said so that it helps.
pub(crate) const VERSION_PATTERN: CelRule = (
    r"self.matches('^(latest-patch|v?[0-9]+[.][0-9]+[.]([*]|[0-9]+))$')",
    "write latest-patch, a minor with a star such as 1.34.*, or one version such as 1.34.4",
);
/// On the spec.
pub(crate) const NO_CANARY: CelRule = (
    "self.updatePolicy.strategy != 'canary'",
    "updatePolicy.strategy canary needs named nodes, which a schedule does not have; use rolling or parallel",
);
/// On the spec.
pub(crate) const WINDOW_IS_OPEN: CelRule = (
    "!has(self.maintenanceWindow) || self.maintenanceWindow.start != self.maintenanceWindow.end",
    "maintenanceWindow.start and maintenanceWindow.end are the same, so the window is never open; move one of them, or leave the window out",
);

impl Validate for UpdateSchedule {
    fn validate(&self) -> Result<(), Violations> {
        let mut checks = Checks::default();
        let spec = &self.spec;
        checks.rule(FIVE_FIELDS, five_fields(&spec.schedule), "spec.schedule", &spec.schedule);
        let pattern = &spec.update_policy.target_version_pattern;
        checks.rule(VERSION_PATTERN, version_pattern(pattern), "spec.updatePolicy.targetVersionPattern", pattern);
        direct_update::concurrency(&mut checks, spec.update_policy.concurrency, "spec.updatePolicy.concurrency");
        let policy = &spec.update_policy;
        direct_update::duration(&mut checks, policy.node_timeout, "spec.updatePolicy.nodeTimeout");
        let drain =
            ["spec.updatePolicy.drain.timeout", "spec.updatePolicy.drain.podTimeout", "spec.updatePolicy.drain.rules"];
        direct_update::drain(&mut checks, policy.drain.as_ref(), drain);
        let strategy = spec.update_policy.strategy;
        checks.rule(NO_CANARY, strategy != Strategy::Canary, "spec.updatePolicy.strategy", json(&strategy));
        let window = spec.maintenance_window.as_ref();
        let opens = window.is_none_or(|window| window.start != window.end);
        checks.rule(WINDOW_IS_OPEN, opens, "spec.maintenanceWindow", json(&window));
        checks.end()
    }

    fn validate_update(&self, _old: &Self) -> Result<(), Violations> {
        self.validate()
    }
}

fn five_fields(schedule: &str) -> bool {
    let outside = schedule.starts_with(' ') || schedule.ends_with(' ') || schedule.contains(['\t', '\n']);
    !outside && schedule.split(' ').filter(|field| !field.is_empty()).count() == 5
}

fn version_pattern(pattern: &str) -> bool {
    if pattern == "latest-patch" {
        return true;
    }
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<&str> = pattern.strip_prefix('v').unwrap_or(pattern).split('.').collect();
    match parts.as_slice() {
        [major, minor, patch] => digits(major) && digits(minor) && (*patch == "*" || digits(patch)),
        _ => false,
    }
}
