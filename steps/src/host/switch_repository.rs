//! `switch-repository/v1`: the Kubernetes package repository is set to the version's minor.
//!
//! pkgs.k8s.io has one repository a minor from 1.24 on, so no package of another minor can be installed before this.
//! Source: kubernetes.io, "Changing the Kubernetes package repository".

use super::{outcome_of, params};
use crate::ports::host::Machine;
use async_trait::async_trait;
use cupcake_engine::step::{Probe, Step, StepContext, StepError, StepOutcome};

/// Sets the repository and refreshes its index.
pub struct SwitchRepository;

#[async_trait]
impl Step<Machine> for SwitchRepository {
    const KIND: &'static str = params::SWITCH_REPOSITORY;
    type Params = params::SwitchRepository;
    type Output = ();

    async fn probe(&self, ctx: &StepContext<'_, Machine>, params: &Self::Params) -> Result<Probe<()>, StepError> {
        let found = ctx.ports().host.repository().await?;
        Ok(if found == Some(params.minor()) { Probe::Satisfied(()) } else { Probe::Unsatisfied })
    }

    async fn apply(&self, ctx: &StepContext<'_, Machine>, params: &Self::Params) -> Result<StepOutcome<()>, StepError> {
        ctx.ports().host.switch_repository(params.minor()).await?;
        outcome_of(ctx, self.probe(ctx, params).await?, "the package repository being set to the minor")
    }
}
