//! `addons/v1`: kubeadm upgrades the addons with the last control-plane node; this step sees that it did. The machine runs their phase
//! again where kubeadm left them behind; what still is, is told with what to run.
//!
//! Source: kubernetes.io, "Upgrading kubeadm clusters" (v1.34), and kubernetes/kubernetes PR 116570.

use super::{again, look, params};
use crate::ports::cluster::{AddonView, Cluster, OpsError};
use async_trait::async_trait;
use cupcake_crds::values::KubeVersion;
use cupcake_engine::names::Reason;
use cupcake_engine::step::{OnCancel, Probe, Step, StepContext, StepError, StepOutcome, Wait};

/// How soon addons that are not yet rolled out are looked at again, in seconds.
const AGAIN_SECONDS: i64 = 5;

/// The first minor of Kubernetes 1 whose kubeadm has a phase for addons; before, `apply` brings them with the first node.
pub const PHASE_FROM: u32 = 28;

fn behind_message(addon: &AddonView, version: KubeVersion) -> String {
    let run = if version.minor() >= PHASE_FROM {
        format!("kubeadm upgrade node phase addon {}", addon.name)
    } else {
        format!("kubeadm upgrade apply {} --yes", version.with_v())
    };
    format!("{} is at image {}; if it stays so, run on a control-plane node: {run}", addon.name, addon.image)
}

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
        let left_out = |addon: &&AddonView| addon.name == "kube-proxy" && !params.kube_proxy.is_upgrade();
        for addon in addons.iter().filter(|addon| !left_out(addon)) {
            // CoreDNS has versions of its own; kube-proxy follows Kubernetes.
            let behind =
                addon.name == "kube-proxy" && !addon.image.ends_with(&format!(":{}", params.target_version.with_v()));
            if behind {
                return wait("AddonBehind", behind_message(addon, params.target_version));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_addon_that_stays_behind_is_told_with_what_to_run() {
        let image = "registry.k8s.io/kube-proxy:v1.33.13".to_owned();
        let addon = AddonView { name: "kube-proxy".to_owned(), image, rolled_out: true };
        let phase = behind_message(&addon, KubeVersion::new(1, 34, 4));
        assert!(phase.ends_with("run on a control-plane node: kubeadm upgrade node phase addon kube-proxy"), "{phase}");
        let whole = behind_message(&addon, KubeVersion::new(1, 27, 16));
        assert!(whole.ends_with("kubeadm upgrade apply v1.27.16 --yes"), "{whole}");
    }
}
