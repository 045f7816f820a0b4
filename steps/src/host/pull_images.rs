//! `pull-images/v1`: the container runtime has every image that kubeadm needs for the version. Leaves which image of CoreDNS is among them,
//! which no version of Kubernetes tells.
//!
//! Done before kubeadm so that its five minutes for a static pod to come back are not spent on pulling.

use super::{outcome_of, params};
use crate::ports::host::{Images, Machine};
use async_trait::async_trait;
use cupcake_engine::step::{Probe, Step, StepContext, StepError, StepOutcome};

/// Pulls what is missing.
pub struct PullImages;

#[async_trait]
impl Step<Machine> for PullImages {
    const KIND: &'static str = params::PULL_IMAGES;
    type Params = params::PullImages;
    type Output = params::ImagesPulled;

    async fn probe(
        &self,
        ctx: &StepContext<'_, Machine>,
        params: &Self::Params,
    ) -> Result<Probe<Self::Output>, StepError> {
        Ok(match present(ctx, &images_of(params)).await? {
            Probe::Satisfied(()) => {
                let core_dns = ctx.ports().host.core_dns_image(&params.version).await?;
                Probe::Satisfied(params::ImagesPulled { core_dns })
            }
            Probe::Unsatisfied => Probe::Unsatisfied,
            Probe::Unknown(reason) => Probe::Unknown(reason),
            Probe::Wait(wait) => Probe::Wait(wait),
        })
    }

    async fn apply(
        &self,
        ctx: &StepContext<'_, Machine>,
        params: &Self::Params,
    ) -> Result<StepOutcome<Self::Output>, StepError> {
        ctx.ports().host.pull_images(&images_of(params)).await?;
        outcome_of(ctx, self.probe(ctx, params).await?, PRESENT)
    }
}

/// What has to be so once images were pulled.
const PRESENT: &str = "every image being present";

fn images_of(params: &params::PullImages) -> Images {
    Images::ControlPlane { version: params.version }
}

/// Whether the runtime has all of them.
pub(super) async fn present(ctx: &StepContext<'_, Machine>, images: &Images) -> Result<Probe<()>, StepError> {
    let missing = ctx.ports().host.images_missing(images).await?;
    Ok(if missing.is_empty() { Probe::Satisfied(()) } else { Probe::Unsatisfied })
}

/// Pulls those that it lacks.
pub(super) async fn pull(ctx: &StepContext<'_, Machine>, images: &Images) -> Result<StepOutcome<()>, StepError> {
    ctx.ports().host.pull_images(images).await?;
    outcome_of(ctx, present(ctx, images).await?, PRESENT)
}
