//! `restart-kubelet/v1`: the kubelet runs, and what runs is the installed binary of the version.
//!
//! Restarts only a kubelet that runs another binary than the installed one: one that crashes in a loop is waited for, and
//! shows in the deadline; restarting it again would only hide why.

use super::{moment, outcome_of, params};
use crate::ports::host::Machine;
use async_trait::async_trait;
use cupcake_engine::names::Reason;
use cupcake_engine::step::{Probe, Step, StepContext, StepError, StepOutcome};

/// Restarts the kubelet and waits until it is active.
pub struct RestartKubelet;

#[async_trait]
impl Step<Machine> for RestartKubelet {
    const KIND: &'static str = params::RESTART_KUBELET;
    type Params = params::RestartKubelet;
    type Output = ();

    async fn probe(&self, ctx: &StepContext<'_, Machine>, params: &Self::Params) -> Result<Probe<()>, StepError> {
        let kubelet = ctx.ports().host.kubelet().await?;
        match kubelet.installed {
            None => {
                let message = "the version of the kubelet on disk cannot be told".to_owned();
                Ok(Probe::Unknown(Reason::new("KubeletUnknown", message)))
            }
            Some(installed) if installed != params.version => {
                let message =
                    format!("kubelet {installed} is installed, {} is wanted: install it first", params.version);
                Err(StepError::NeedsOperator(Reason::new("OtherKubeletInstalled", message)))
            }
            Some(_) if !kubelet.runs_installed => Ok(Probe::Unsatisfied),
            Some(_) if kubelet.active => Ok(Probe::Satisfied(())),
            Some(_) => {
                Ok(Probe::Wait(moment(ctx, "KubeletStarting", "the kubelet was restarted and is not active yet")))
            }
        }
    }

    async fn apply(&self, ctx: &StepContext<'_, Machine>, params: &Self::Params) -> Result<StepOutcome<()>, StepError> {
        ctx.ports().host.restart_kubelet().await?;
        match self.probe(ctx, params).await? {
            // systemd has the restart; the new process shows in a moment, and if it does not, the next look tells.
            Probe::Unsatisfied => {
                Ok(StepOutcome::Wait(moment(ctx, "KubeletStarting", "the kubelet is being restarted")))
            }
            probe @ (Probe::Satisfied(()) | Probe::Unknown(_) | Probe::Wait(_)) => {
                outcome_of(ctx, probe, "the installed kubelet running")
            }
        }
    }
}
