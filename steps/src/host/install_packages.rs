//! `install-packages/v1`: the packages are installed whole, of exactly the version, and held.

use super::{outcome_of, params};
use crate::ports::host::{Machine, Package};
use async_trait::async_trait;
use cupcake_engine::step::{Probe, Step, StepContext, StepError, StepOutcome};

/// Installs those packages that are not as they should be.
pub struct InstallPackages;

#[async_trait]
impl Step<Machine> for InstallPackages {
    const KIND: &'static str = params::INSTALL_PACKAGES;
    type Params = params::InstallPackages;
    type Output = ();

    async fn probe(&self, ctx: &StepContext<'_, Machine>, params: &Self::Params) -> Result<Probe<()>, StepError> {
        let wanting = wanting(ctx, params).await?;
        Ok(if wanting.is_empty() { Probe::Satisfied(()) } else { Probe::Unsatisfied })
    }

    async fn apply(&self, ctx: &StepContext<'_, Machine>, params: &Self::Params) -> Result<StepOutcome<()>, StepError> {
        let wanting = wanting(ctx, params).await?;
        ctx.ports().host.install(&wanting, &params.version).await?;
        outcome_of(ctx, self.probe(ctx, params).await?, "every package being installed, whole and held")
    }
}

async fn wanting(ctx: &StepContext<'_, Machine>, params: &params::InstallPackages) -> Result<Vec<Package>, StepError> {
    let mut wanting = Vec::new();
    for &package in &params.packages {
        if !ctx.ports().host.package(package).await?.is_at(&params.version) {
            wanting.push(package);
        }
    }
    Ok(wanting)
}
