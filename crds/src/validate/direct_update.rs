//! Rules of [`DirectUpdate`], and those that it shares with the other kinds that users write.

use super::{CelRule, Checks, Validate, Violations, json, same, shown};
use crate::{
    DirectUpdate, DirectUpdateSpec, DirectUpdateStatus, KubeVersion,
    direct_update::Drain,
    values::{AirGapped, ApprovalPoint, Canary, Concurrency, DrainAction, PackageVersion, Strategy},
};
use kube_core::Duration;

pub(crate) use super::update_schedule::WINDOW_IS_OPEN;

/// On the field: what the pattern demands, said so that it helps.
pub(crate) const VERSION: CelRule = (
    r"self.matches('^v?(0|[1-9][0-9]*)[.](0|[1-9][0-9]*)[.](0|[1-9][0-9]*)(-(alpha|beta|rc)[.](0|[1-9][0-9]*))?$')",
    "a full Kubernetes version is needed: major.minor.patch with or without v, for example 1.34.4",
);
/// On each duration: what the pattern demands, said so that it helps.
pub(crate) const DURATION: CelRule = (
    "self.matches('^([0-9]+([.][0-9]+)?(ns|us|µs|ms|s|m|h))+$')",
    "a Go duration is needed, not negative, for example 90s, 30m or 1h30m",
);
/// On the field: what its bounds and its pattern demand, said so that it helps.
pub(crate) const CONCURRENCY: CelRule = (
    "string(self).matches('^([1-9][0-9]{0,4}|([1-9][0-9]?|100)%)$')",
    "write a number of nodes from 1, or a percentage of the workers from \"1%\" to \"100%\"",
);
/// On the spec.
pub(crate) const CANARY_NAMES_NODES: CelRule = (
    "self.strategy != 'canary' || (has(self.canary) && self.canary.enabled && has(self.canary.nodes) && size(self.canary.nodes) > 0)",
    "strategy canary needs canary.enabled: true and at least one node in canary.nodes; name one, or use strategy rolling",
);
/// On the spec.
pub(crate) const CANARY_ENABLED_NAMES_NODES: CelRule = (
    "!has(self.canary) || !self.canary.enabled || (has(self.canary.nodes) && size(self.canary.nodes) > 0)",
    "canary.enabled: true needs at least one node in canary.nodes; name one, or set canary.enabled: false",
);
/// On the spec.
pub(crate) const AIR_GAP_NAMES_BUNDLE: CelRule = (
    "!has(self.airGapped) || !self.airGapped.enabled || has(self.airGapped.bundleConfigMap)",
    "airGapped.enabled: true needs airGapped.bundleConfigMap: name the ConfigMap that describes the bundle, or set airGapped.enabled: false",
);

/// On the spec.
pub(crate) const APPROVAL_AFTER_CANARY: CelRule = (
    "!has(self.approvals) || !('AfterCanary' in self.approvals) || self.strategy == 'canary'",
    "approvals: AfterCanary needs strategy canary; set it and name canary.nodes, or leave AfterCanary out",
);

/// On the field: what its bounds and its pattern demand, said so that it helps.
pub(crate) const PACKAGE_VERSION: CelRule = (
    "self.matches('^([0-9]+:)?[0-9][A-Za-z0-9.+~-]*$')",
    "the version of a package is needed: upstream's, for example 1.7.24, or the whole one, for example 1.7.24-1",
);
/// On the spec.
pub(crate) const VERSION_OF_NAMED_COMPONENT: CelRule = (
    "!has(self.componentVersions) || !has(self.componentVersions.containerd) || 'containerd' in self.components",
    "componentVersions.containerd needs containerd in components: name it there, for example [kubeadm, kubelet, kubectl, containerd], or leave componentVersions out",
);

/// On each rule of a drain.
pub(crate) const ORDER_OF_EVICT: CelRule = (
    "!has(self.order) || self.action == 'Evict'",
    "order is for action Evict alone: leave it out, or set action: Evict",
);
/// On each rule of a drain: one that selects everything, by a field that was forgotten, would leave every node full.
pub(crate) const RULE_SELECTS: CelRule = (
    "(has(self.namespaces) && size(self.namespaces) > 0) || (has(self.selector) && ((has(self.selector.matchLabels) && size(self.selector.matchLabels) > 0) || (has(self.selector.matchExpressions) && size(self.selector.matchExpressions) > 0)))",
    "one of drain.rules has to say which pods it is about: name namespaces, or labels in selector",
);
/// On each requirement of a rule of a drain.
pub(crate) const VALUES_OF_OPERATOR: CelRule = (
    "self.operator in ['In', 'NotIn'] ? (has(self.values) && size(self.values) > 0) : (!has(self.values) || size(self.values) == 0)",
    "in matchExpressions operator In and NotIn need values, Exists and DoesNotExist take none",
);

/// On the query of each gate.
pub(crate) const GATE_HAS_THRESHOLD: CelRule = (
    "has(self.atLeast) || has(self.atMost)",
    "prometheus needs atLeast or atMost, or both: the value with which the gate is open, for example atMost: \"0.01\"",
);

/// CEL: a run exists, or it was over without one (nothing to do, a dry run, cancelled before its start).
macro_rules! frozen {
    ($field:literal) => {
        (
            concat!(
                "!has(oldSelf.status) || !(has(oldSelf.status.run) || (has(oldSelf.status.phase) && oldSelf.status.phase in ['Succeeded', 'Failed', 'Cancelled'])) || ",
                same!($field)
            ),
            concat!(
                $field,
                " cannot change once status.run names a run (only spec.concurrency, spec.control and spec.maintenanceWindow can), nor once the update is over; put it back, or create another DirectUpdate"
            ),
        )
    };
}

pub(crate) const FROZEN_ACKNOWLEDGE: CelRule = frozen!("spec.acknowledge");
pub(crate) const FROZEN_AIR_GAPPED: CelRule = frozen!("spec.airGapped");
pub(crate) const FROZEN_APPROVALS: CelRule = frozen!("spec.approvals");
pub(crate) const FROZEN_BATCH_SIZE: CelRule = frozen!("spec.batchSize");
pub(crate) const FROZEN_CANARY: CelRule = frozen!("spec.canary");
pub(crate) const FROZEN_COMPONENTS: CelRule = frozen!("spec.components");
pub(crate) const FROZEN_COMPONENT_VERSIONS: CelRule = frozen!("spec.componentVersions");
pub(crate) const FROZEN_DRAIN: CelRule = frozen!("spec.drain");
pub(crate) const FROZEN_DRY_RUN: CelRule = frozen!("spec.dryRun");
pub(crate) const FROZEN_GATES: CelRule = frozen!("spec.gates");
pub(crate) const FROZEN_MAX_FAILURES: CelRule = frozen!("spec.maxFailures");
pub(crate) const FROZEN_NODE_ORDER: CelRule = frozen!("spec.nodeOrder");
pub(crate) const FROZEN_NODE_SELECTOR: CelRule = frozen!("spec.nodeSelector");
pub(crate) const FROZEN_NODE_TIMEOUT: CelRule = frozen!("spec.nodeTimeout");
pub(crate) const FROZEN_OPERATION_TIMEOUT: CelRule = frozen!("spec.operationTimeout");
pub(crate) const FROZEN_PATH: CelRule = frozen!("spec.path");
pub(crate) const FROZEN_PREFLIGHT_CHECKS: CelRule = frozen!("spec.preflightChecks");
pub(crate) const FROZEN_STRATEGY: CelRule = frozen!("spec.strategy");
pub(crate) const FROZEN_TARGET_VERSION: CelRule = frozen!("spec.targetVersion");
/// On the root: which run carries it out is decided once.
pub(crate) const RUN_STAYS: CelRule = (
    concat!("!has(oldSelf.status) || !has(oldSelf.status.run) || (has(self.status) && ", same!("status.run"), ")"),
    "status.run cannot change once it names a run; create another DirectUpdate",
);

/// On the root: who is left out is asked for again and again while a run goes on. By number, since comparing names costs too much.
pub(crate) const SKIP_STAYS: CelRule = (
    "!has(oldSelf.status) || !has(oldSelf.status.run) || !has(oldSelf.spec.control) || !has(oldSelf.spec.control.skip) || (has(self.spec.control) && has(self.spec.control.skip) && size(self.spec.control.skip) >= size(oldSelf.spec.control.skip))",
    "a node in spec.control.skip stays left out once status.run names a run; put it back, and apply another DirectUpdate for it afterwards",
);

/// The rules about the canary nodes and the bundle, which ScheduledUpdate shares.
pub(crate) fn choices(
    checks: &mut Checks,
    strategy: Strategy,
    canary: Option<&Canary>,
    air_gapped: Option<&AirGapped>,
) {
    let named = canary.is_some_and(|canary| canary.enabled && !canary.nodes.is_empty());
    checks.rule(CANARY_NAMES_NODES, strategy != Strategy::Canary || named, "spec.strategy", json(&strategy));
    duration(checks, canary.and_then(|canary| canary.soak), "spec.canary.soak");
    let enabled = canary.is_some_and(|canary| canary.enabled);
    checks.rule(CANARY_ENABLED_NAMES_NODES, !enabled || named, "spec.canary", json(&canary));
    let bundled = air_gapped.is_none_or(|air_gapped| !air_gapped.enabled || air_gapped.bundle_config_map.is_some());
    checks.rule(AIR_GAP_NAMES_BUNDLE, bundled, "spec.airGapped", json(&air_gapped));
}

/// The rule about target versions, which ScheduledUpdate shares.
pub(crate) fn version(checks: &mut Checks, text: &str) {
    // What a package or a vendor appends is read from nodes, but is no version to ask for.
    let bare = text.strip_prefix('v').unwrap_or(text);
    let plain = text.parse::<KubeVersion>().is_ok_and(|version| version.to_string() == bare);
    checks.rule(VERSION, plain, "spec.targetVersion", text);
}

impl Validate for DirectUpdate {
    fn validate(&self) -> Result<(), Violations> {
        let mut checks = Checks::default();
        every_time(&mut checks, &self.spec);
        checks.end()
    }

    fn validate_update(&self, old: &Self) -> Result<(), Violations> {
        let mut checks = Checks::default();
        every_time(&mut checks, &self.spec);
        if old.is_frozen() {
            frozen(&mut checks, self, old);
        }
        checks.end()
    }
}

fn every_time(checks: &mut Checks, spec: &DirectUpdateSpec) {
    version(checks, &spec.target_version);
    concurrency(checks, spec.concurrency, "spec.concurrency");
    duration(checks, spec.node_timeout, "spec.nodeTimeout");
    duration(checks, spec.operation_timeout, "spec.operationTimeout");
    let window = spec.maintenance_window.as_ref();
    checks.rule(
        WINDOW_IS_OPEN,
        window.is_none_or(|window| window.start != window.end),
        "spec.maintenanceWindow",
        json(&window),
    );
    let containerd = spec.containerd_version();
    let sound = containerd.is_none_or(|version| version.parse::<PackageVersion>().is_ok());
    checks.rule(PACKAGE_VERSION, sound, "spec.componentVersions.containerd", containerd.unwrap_or_default());
    let named = containerd.is_none() || spec.moves_containerd();
    checks.rule(VERSION_OF_NAMED_COMPONENT, named, "spec.componentVersions", json(&spec.component_versions));
    for gate in &spec.gates {
        let bounded = gate.prometheus.at_least.is_some() || gate.prometheus.at_most.is_some();
        checks.rule(GATE_HAS_THRESHOLD, bounded, "spec.gates", json(gate));
        duration(checks, gate.timeout, "spec.gates");
    }
    drain(checks, spec.drain.as_ref(), ["spec.drain.timeout", "spec.drain.podTimeout", "spec.drain.rules"]);
    choices(checks, spec.strategy, spec.canary.as_ref(), spec.air_gapped.as_ref());
    let after_canary = spec.approvals.contains(&ApprovalPoint::AfterCanary);
    let sound = !after_canary || spec.strategy == Strategy::Canary;
    checks.rule(APPROVAL_AFTER_CANARY, sound, "spec.approvals", json(&spec.approvals));
}

/// The rules about a drain, which the other two kinds share: the fields of its time-out, of a pod's, and of its own rules.
pub(crate) fn drain(checks: &mut Checks, drain: Option<&Drain>, [timeout, pod_timeout, rules]: [&'static str; 3]) {
    duration(checks, drain.and_then(|drain| drain.timeout), timeout);
    duration(checks, drain.and_then(|drain| drain.pod_timeout), pod_timeout);
    for rule in drain.iter().flat_map(|drain| &drain.rules) {
        let ordered = rule.order.is_none() || rule.action == DrainAction::Evict;
        checks.rule(ORDER_OF_EVICT, ordered, rules, json(rule));
        checks.rule(RULE_SELECTS, rule.says_which(), rules, json(rule));
        for requirement in rule.selector.iter().flat_map(|selector| &selector.match_expressions) {
            checks.rule(VALUES_OF_OPERATOR, requirement.is_sound(), rules, json(requirement));
        }
    }
}

/// The rule about durations, which the other two kinds share.
pub(crate) fn duration(checks: &mut Checks, duration: Option<Duration>, field: &'static str) {
    // Whatever else is wrong with a duration, it does not even parse into the type.
    let negative = duration.is_some_and(|duration| duration.is_negative());
    checks.rule(DURATION, !negative, field, shown(duration.as_ref()));
}

/// The rule about workers in flight, which the other two kinds share.
pub(crate) fn concurrency(checks: &mut Checks, concurrency: Concurrency, field: &'static str) {
    let sound = match concurrency {
        Concurrency::Nodes(nodes) => nodes >= 1,
        Concurrency::Percent(percent) => (1..=100).contains(&percent),
    };
    checks.rule(CONCURRENCY, sound, field, concurrency);
}

fn frozen(checks: &mut Checks, new: &DirectUpdate, old: &DirectUpdate) {
    let run = |status: Option<&DirectUpdateStatus>| status.and_then(|status| status.run.clone());
    let (new_run, old_run) = (run(new.status.as_ref()), run(old.status.as_ref()));
    let (new, old) = (&new.spec, &old.spec);
    let mut same = |rule, same: bool, field, value: String| checks.rule(rule, same, field, value);
    same(FROZEN_ACKNOWLEDGE, new.acknowledge == old.acknowledge, "spec.acknowledge", json(&new.acknowledge));
    same(FROZEN_AIR_GAPPED, new.air_gapped == old.air_gapped, "spec.airGapped", json(&new.air_gapped));
    same(FROZEN_APPROVALS, new.approvals == old.approvals, "spec.approvals", json(&new.approvals));
    same(FROZEN_BATCH_SIZE, new.batch_size == old.batch_size, "spec.batchSize", json(&new.batch_size));
    same(FROZEN_CANARY, new.canary == old.canary, "spec.canary", json(&new.canary));
    same(FROZEN_COMPONENTS, new.components == old.components, "spec.components", json(&new.components));
    same(
        FROZEN_COMPONENT_VERSIONS,
        new.component_versions == old.component_versions,
        "spec.componentVersions",
        json(&new.component_versions),
    );
    same(FROZEN_DRAIN, new.drain == old.drain, "spec.drain", json(&new.drain));
    same(FROZEN_DRY_RUN, new.dry_run == old.dry_run, "spec.dryRun", json(&new.dry_run));
    same(FROZEN_GATES, new.gates == old.gates, "spec.gates", json(&new.gates));
    same(FROZEN_MAX_FAILURES, new.max_failures == old.max_failures, "spec.maxFailures", json(&new.max_failures));
    same(FROZEN_NODE_ORDER, new.node_order == old.node_order, "spec.nodeOrder", json(&new.node_order));
    same(FROZEN_NODE_SELECTOR, new.node_selector == old.node_selector, "spec.nodeSelector", json(&new.node_selector));
    same(FROZEN_NODE_TIMEOUT, new.node_timeout == old.node_timeout, "spec.nodeTimeout", json(&new.node_timeout));
    same(FROZEN_PATH, new.path == old.path, "spec.path", json(&new.path));
    same(
        FROZEN_OPERATION_TIMEOUT,
        new.operation_timeout == old.operation_timeout,
        "spec.operationTimeout",
        json(&new.operation_timeout),
    );
    same(
        FROZEN_PREFLIGHT_CHECKS,
        new.preflight_checks == old.preflight_checks,
        "spec.preflightChecks",
        json(&new.preflight_checks),
    );
    same(FROZEN_STRATEGY, new.strategy == old.strategy, "spec.strategy", json(&new.strategy));
    same(
        FROZEN_TARGET_VERSION,
        new.target_version == old.target_version,
        "spec.targetVersion",
        new.target_version.clone(),
    );
    let skipped = |spec: &DirectUpdateSpec| -> Vec<String> {
        let skip = spec.control.iter().flat_map(|control| &control.skip);
        skip.map(|request| request.vertex.clone()).collect()
    };
    let (left_out, before) = (skipped(new), skipped(old));
    let has_run = old_run.is_some();
    same(SKIP_STAYS, !has_run || left_out.len() >= before.len(), "spec.control.skip", json(&left_out));
    same(RUN_STAYS, !has_run || new_run == old_run, "status.run", shown(new_run.as_ref()));
}
