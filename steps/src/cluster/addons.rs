//! `addons/v1`: kubeadm upgrades the addons with the last control-plane node; this step sees that it did. The machine runs their phase
//! again where kubeadm left them behind; what still is, is told with what to run.
//!
//! Sources: kubernetes.io, "Upgrading kubeadm clusters" (v1.34); kubernetes/kubernetes PR 116570 (1.28: with the last control-plane node, by
//! `upgrade apply` or, in its phase for the control plane, by `upgrade node`) and PR 127242 (1.32: by a phase of their own).

use super::{again, look, params};
use crate::ports::cluster::{AddonView, Cluster, OpsError};
use async_trait::async_trait;
use cupcake_crds::values::KubeVersion;
use cupcake_engine::names::Reason;
use cupcake_engine::step::{OnCancel, Probe, Step, StepContext, StepError, StepOutcome, Wait};

/// How soon addons that are not yet rolled out are looked at again, in seconds.
const AGAIN_SECONDS: i64 = 5;

/// The first minor of Kubernetes 1 whose `kubeadm upgrade node` has a phase for addons.
pub const PHASE_FROM: u32 = 32;
/// The first minor whose `kubeadm upgrade node` brings them, once no other control-plane node is behind; before, `apply` does with the
/// first node.
const WITH_LAST_NODE_FROM: u32 = 28;

fn behind_message(addon: &AddonView, version: KubeVersion) -> String {
    let run = match version.minor() {
        PHASE_FROM.. => format!("kubeadm upgrade node phase addon {}", addon.name),
        // All of it once more: it leaves manifests alone that are as they should be.
        WITH_LAST_NODE_FROM.. => "kubeadm upgrade node".to_owned(),
        _ => format!("kubeadm upgrade apply {} --yes", version.with_v()),
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
        for (version, run) in [
            (KubeVersion::new(1, 34, 4), "kubeadm upgrade node phase addon kube-proxy"),
            (KubeVersion::new(1, 32, 0), "kubeadm upgrade node phase addon kube-proxy"),
            (KubeVersion::new(1, 31, 14), "kubeadm upgrade node"),
            (KubeVersion::new(1, 28, 15), "kubeadm upgrade node"),
            (KubeVersion::new(1, 27, 16), "kubeadm upgrade apply v1.27.16 --yes"),
        ] {
            let told = behind_message(&addon, version);
            assert!(
                told.ends_with(&format!("; if it stays so, run on a control-plane node: {run}")),
                "{version}: {told}"
            );
        }
    }
}
