//! What a schedule creates: the spec of its DirectUpdate. Pure.
//!
//! Both functions name every field of a DirectUpdate's spec, so that a new one has to be thought of here.

use super::{Choice, Pattern, Problem, choose};
use cupcake_crds::values::{ClusterSnapshot, KubeVersion};
use cupcake_crds::{DirectUpdateSpec, ScheduledUpdateSpec, UpdateScheduleSpec};

/// That of a ScheduledUpdate: everything that it says, as it says it.
pub fn scheduled_spec(spec: &ScheduledUpdateSpec) -> DirectUpdateSpec {
    DirectUpdateSpec {
        target_version: spec.target_version.clone(),
        acknowledge: spec.acknowledge.clone(),
        air_gapped: spec.air_gapped.clone(),
        approvals: Vec::new(),
        batch_size: None,
        canary: spec.canary.clone(),
        components: spec.components.clone(),
        component_versions: None,
        concurrency: spec.concurrency,
        control: None,
        drain: spec.drain.clone(),
        dry_run: false,
        gates: Vec::new(),
        maintenance_window: None,
        max_failures: spec.max_failures,
        node_order: None,
        node_selector: spec.node_selector.clone(),
        node_timeout: spec.node_timeout,
        operation_timeout: None,
        path: spec.path.clone(),
        preflight_checks: spec.preflight_checks,
        strategy: spec.strategy,
    }
}

/// That of an UpdateSchedule, to `target` in a cluster whose API servers are at `from`.
///
/// Of `path` counts what lies between the two: a schedule outlives the versions that it names.
pub fn policy_spec(schedule: &UpdateScheduleSpec, from: KubeVersion, target: KubeVersion) -> DirectUpdateSpec {
    let policy = &schedule.update_policy;
    DirectUpdateSpec {
        target_version: target.to_string(),
        acknowledge: policy.acknowledge.clone(),
        air_gapped: None,
        approvals: Vec::new(),
        batch_size: None,
        canary: None,
        components: policy.components.clone(),
        component_versions: None,
        concurrency: policy.concurrency,
        control: None,
        drain: policy.drain.clone(),
        dry_run: false,
        gates: Vec::new(),
        maintenance_window: schedule.maintenance_window.clone(),
        max_failures: policy.max_failures,
        node_order: None,
        node_selector: policy.node_selector.clone(),
        node_timeout: policy.node_timeout,
        operation_timeout: None,
        path: way(&policy.path, from, target),
        preflight_checks: policy.preflight_checks,
        strategy: policy.strategy,
    }
}

fn way(path: &[String], from: KubeVersion, target: KubeVersion) -> Vec<String> {
    let lies_between = |text: &&String| {
        // What is no version is refused by the compiler, with its place.
        !text.parse::<KubeVersion>().is_ok_and(|version| version <= from || target <= version)
    };
    let between: Vec<String> = path.iter().filter(lies_between).cloned().collect();
    if between.is_empty() { between } else { between.into_iter().chain([target.to_string()]).collect() }
}

/// What an UpdateSchedule would create in that cluster, were it due now.
///
/// # Errors
/// If its pattern is none. `Ok(Err(_))`: nothing would be created, and why.
pub fn policy_now(
    schedule: &UpdateScheduleSpec,
    snapshot: &ClusterSnapshot,
) -> Result<Result<DirectUpdateSpec, Choice>, Problem> {
    let policy = &schedule.update_policy;
    let choice = choose(Pattern::of(&policy.target_version_pattern)?, policy, snapshot);
    Ok(match choice {
        Choice::Take(target) => Ok(policy_spec(schedule, snapshot.server, target)),
        choice @ (Choice::There(_) | Choice::Unknown(_) | Choice::Newer(_)) => Err(choice),
    })
}
