//! Steps that run on the machine, in the runner. One file a step.

pub mod await_proceed;
pub mod check_etcd;
pub mod etcd_snapshot;
pub mod install_packages;
pub mod kubeadm_copies;
pub mod kubeadm_upgrade;
pub mod params;
pub mod pull_images;
pub mod pull_worker_images;
pub mod restart_kubelet;
pub mod switch_repository;
pub mod upgrade_containerd;

#[cfg(test)]
mod crashes;

use crate::ports::host::Machine;
use chrono::TimeDelta;
use cupcake_engine::names::Reason;
use cupcake_engine::registry::{RegistryError, StepRegistry};
use cupcake_engine::step::{Probe, Step, StepContext, StepError, StepOutcome, Wait};

/// How soon a host step looks again that waits for something on its machine, in seconds.
const AGAIN_SECONDS: i64 = 2;
/// How soon a host step looks again that could not tell, in seconds.
const UNKNOWN_AGAIN_SECONDS: i64 = 10;

/// Takes every host step of this release, one after the other: a registry, or something around it.
pub trait Register {
    /// Takes one step.
    fn step<S: Step<Machine>>(&mut self, step: S) -> Result<(), RegistryError>;
}

impl Register for StepRegistry<Machine> {
    fn step<S: Step<Machine>>(&mut self, step: S) -> Result<(), RegistryError> {
        self.register(step).map(drop)
    }
}

/// Registers every host step of this release.
pub fn register(registry: &mut impl Register) -> Result<(), RegistryError> {
    registry.step(await_proceed::AwaitProceed)?;
    registry.step(check_etcd::CheckEtcd)?;
    registry.step(etcd_snapshot::EtcdSnapshot)?;
    registry.step(install_packages::InstallPackages)?;
    registry.step(kubeadm_upgrade::KubeadmUpgrade::default())?;
    registry.step(pull_images::PullImages)?;
    registry.step(pull_worker_images::PullWorkerImages)?;
    registry.step(restart_kubelet::RestartKubelet)?;
    registry.step(switch_repository::SwitchRepository)?;
    registry.step(upgrade_containerd::UpgradeContainerd)
}

/// What an apply returns that has done its part: the goal as the probe sees it now, never the word of the program that ran.
fn outcome_of<T>(ctx: &StepContext<'_, Machine>, probe: Probe<T>, goal: &str) -> Result<StepOutcome<T>, StepError> {
    match probe {
        Probe::Satisfied(output) => Ok(StepOutcome::Done(output)),
        Probe::Wait(wait) => Ok(StepOutcome::Wait(wait)),
        Probe::Unknown(reason) => {
            let again = ctx.now() + TimeDelta::seconds(UNKNOWN_AGAIN_SECONDS);
            Ok(StepOutcome::Wait(Wait::shown(again, reason)))
        }
        Probe::Unsatisfied => {
            let message = format!("the program ended well, yet {goal} is not so");
            Err(StepError::Transient(Reason::new("GoalNotReached", message)))
        }
    }
}

/// Look again in a moment; part of the normal way.
fn moment(ctx: &StepContext<'_, Machine>, code: &str, message: impl Into<String>) -> Wait {
    Wait::quiet(ctx.now() + TimeDelta::seconds(AGAIN_SECONDS), Reason::new(code, message))
}
