//! `pull-worker-images/v1`: the container runtime of a worker has the images of the version that each node runs: pause and kube-proxy.
//!
//! Done before the drain, so that a mirror that lacks one, or a disk without room for it, is found while the node still has its pods,
//! and the node is not away for longer because of a registry. Nothing depends on it: a runner that does not know this kind gets its
//! order without the step, and what is missing is pulled when a pod needs it, as ever.
//!
//! Source: kubernetes/kubernetes, cmd/kubeadm/app/images/images.go (v1.34): both come from the cluster's `imageRepository`.

use super::params;
use super::pull_images::{present, pull};
use crate::ports::host::{Images, Machine};
use async_trait::async_trait;
use cupcake_engine::step::{Probe, Step, StepContext, StepError, StepOutcome};

/// Pulls what is missing of a worker's images.
pub struct PullWorkerImages;

#[async_trait]
impl Step<Machine> for PullWorkerImages {
    const KIND: &'static str = params::PULL_WORKER_IMAGES;
    type Params = params::PullWorkerImages;
    type Output = ();

    async fn probe(&self, ctx: &StepContext<'_, Machine>, params: &Self::Params) -> Result<Probe<()>, StepError> {
        present(ctx, &images_of(params)).await
    }

    async fn apply(&self, ctx: &StepContext<'_, Machine>, params: &Self::Params) -> Result<StepOutcome<()>, StepError> {
        pull(ctx, &images_of(params)).await
    }
}

fn images_of(params: &params::PullWorkerImages) -> Images {
    let params::PullWorkerImages { version, repository, kube_proxy } = params;
    Images::Worker { version: *version, repository: repository.clone(), kube_proxy: *kube_proxy }
}
