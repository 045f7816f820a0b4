//! `pull-images/v1`: the container runtime has every image that kubeadm needs for the version.
//!
//! Done before kubeadm so that its five minutes for a static pod to come back are not spent on pulling.

use super::{outcome_of, params};
use crate::ports::host::Machine;
use async_trait::async_trait;
use cupcake_engine::step::{Probe, Step, StepContext, StepError, StepOutcome};

/// Pulls what is missing.
pub struct PullImages;

#[async_trait]
impl Step<Machine> for PullImages {
    const KIND: &'static str = params::PULL_IMAGES;
    type Params = params::PullImages;
    type Output = ();

    async fn probe(&self, ctx: &StepContext<'_, Machine>, params: &Self::Params) -> Result<Probe<()>, StepError> {
        let missing = ctx.ports().host.images_missing(&params.version).await?;
        Ok(if missing.is_empty() { Probe::Satisfied(()) } else { Probe::Unsatisfied })
    }

    async fn apply(&self, ctx: &StepContext<'_, Machine>, params: &Self::Params) -> Result<StepOutcome<()>, StepError> {
        ctx.ports().host.pull_images(&params.version).await?;
        outcome_of(ctx, self.probe(ctx, params).await?, "every image being present")
    }
}
