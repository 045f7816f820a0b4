//! `addons/v1`: kubeadm upgrades the addons with the last control-plane node; this step sees that it did.
//!
//! Source: kubernetes.io, "Upgrading kubeadm clusters" (v1.34), and kubernetes/kubernetes PR 116570.

use super::{again, look, params};
use crate::ports::cluster::{Cluster, OpsError};
use async_trait::async_trait;
use cupcake_engine::names::Reason;
use cupcake_engine::step::{OnCancel, Probe, Step, StepContext, StepError, StepOutcome, Wait};

/// How soon addons that are not yet rolled out are looked at again, in seconds.
const AGAIN_SECONDS: i64 = 5;

/// Waits until kubeadm's configuration and addons are at the version.
pub struct Addons;

#[async_trait]
impl Step<Cluster> for Addons {
    const KIND: &'static str = "addons/v1";
    type Params = params::Addons;
    type Output = ();
    const ON_CANCEL: OnCancel = OnCancel::Leave;

    async fn probe(&self, ctx: &StepContext<'_, Cluster>, params: &Self::Params) -> Result<Probe<()>, StepError> {
        let cluster = &ctx.ports().cluster;
        let wait = |code, message| Ok(Probe::Wait(Wait::shown(again(ctx, AGAIN_SECONDS), Reason::new(code, message))));
        let configured = look!(cluster.kubeadm_config_version());
        if configured != params.target_version {
            let message = format!("kubeadm-config says {configured}, wanted {}", params.target_version);
            return wait("KubeadmConfigBehind", message);
        }
        let addons = look!(cluster.addons());
        for addon in &addons {
            // CoreDNS has versions of its own; kube-proxy follows Kubernetes.
            let behind =
                addon.name == "kube-proxy" && !addon.image.ends_with(&format!(":{}", params.target_version.with_v()));
            if behind {
                return wait("AddonBehind", format!("{} is at image {}", addon.name, addon.image));
            }
            if !addon.rolled_out {
                return wait("AddonRollingOut", format!("{} is not on all its nodes yet", addon.name));
            }
        }
        Ok(Probe::Satisfied(()))
    }

    async fn apply(&self, ctx: &StepContext<'_, Cluster>, _: &Self::Params) -> Result<StepOutcome<()>, StepError> {
        let reason = Reason::new("AddonRollingOut", "waiting for kubeadm's addons");
        Ok(StepOutcome::Wait(Wait::quiet(again(ctx, AGAIN_SECONDS), reason)))
    }
}
