//! `addons/v1`: kubeadm upgrades the addons with the last control-plane node; this step sees that it did. The machine runs their phase
//! again where kubeadm left them behind; what still is, is told with what to run.
//!
//! CoreDNS has versions of its own: kubeadm of the control-plane nodes tells which image it brings. One that is not kubeadm's (an image
//! that its configuration names, or one from elsewhere) is nobody's here to compare: it is told and left alone.
//!
//! Sources: kubernetes.io, "Upgrading kubeadm clusters" (v1.34); kubernetes/kubernetes PR 116570 (1.28: with the last control-plane node, by
//! `upgrade apply` or, in its phase for the control plane, by `upgrade node`) and PR 127242 (1.32: by a phase of their own).

use super::{again, look, params};
use crate::host::params::CORE_DNS;
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

/// How CoreDNS stands to the image that kubeadm brings.
#[derive(Debug, PartialEq, Eq)]
enum CoreDns {
    /// It is that, or nobody knows which one that is.
    AsBrought,
    /// It is kubeadm's, of another version.
    Behind,
    /// It is not kubeadm's, for that reason.
    LeftAlone(String),
}

/// Judges CoreDNS by the image that kubeadm brings, if that is known.
fn core_dns(addon: &AddonView, brought: Option<&str>) -> CoreDns {
    let left_alone = |why: &str| CoreDns::LeftAlone(format!("coredns is left alone at image {}: {why}", addon.image));
    if let Some(configured) = &addon.configured {
        return left_alone(&format!("kubeadm's ClusterConfiguration says {configured}"));
    }
    let Some(brought) = brought else { return CoreDns::AsBrought };
    let repository = |image: &str| {
        let image = image.split('@').next().unwrap_or_default();
        let name = image.rfind('/').map_or(0, |slash| slash + 1);
        image[name..].find(':').map_or(image, |colon| &image[..name + colon]).to_owned()
    };
    if repository(&addon.image) != repository(brought) {
        return left_alone(&format!("kubeadm's would be {brought}"));
    }
    // A digest behind the tag is of whoever pinned it.
    if addon.image.split('@').next() == Some(brought) { CoreDns::AsBrought } else { CoreDns::Behind }
}

/// Waits until kubeadm's configuration and addons are at the version.
pub struct Addons;

#[async_trait]
impl Step<Cluster> for Addons {
    const KIND: &'static str = "addons/v1";
    type Params = params::Addons;
    type Output = params::AddonsSeen;
    const ON_CANCEL: OnCancel = OnCancel::Leave;

    async fn probe(
        &self,
        ctx: &StepContext<'_, Cluster>,
        params: &Self::Params,
    ) -> Result<Probe<Self::Output>, StepError> {
        let cluster = &ctx.ports().cluster;
        let wait = |code, message| Ok(Probe::Wait(Wait::shown(again(ctx, AGAIN_SECONDS), Reason::new(code, message))));
        let configured = look!(cluster.kubeadm_config_version());
        if configured != params.target_version {
            let message = format!("kubeadm-config says {configured}, wanted {}", params.target_version);
            return wait("KubeadmConfigBehind", message);
        }
        let addons = look!(cluster.addons());
        let left_out = |addon: &&AddonView| addon.name == "kube-proxy" && !params.kube_proxy.is_upgrade();
        let told: Option<params::HostOutputs> = params.core_dns_of.as_ref().and_then(|vertex| ctx.output_of(vertex));
        let brought = told.as_ref().and_then(|outputs| outputs.0.get(CORE_DNS)).map(String::as_str);
        let mut seen = params::AddonsSeen::default();
        for addon in addons.iter().filter(|addon| !left_out(addon)) {
            let behind = match addon.name.as_str() {
                // It follows Kubernetes.
                "kube-proxy" => !addon.image.ends_with(&format!(":{}", params.target_version.with_v())),
                "coredns" => match core_dns(addon, brought) {
                    CoreDns::AsBrought => false,
                    CoreDns::Behind => true,
                    CoreDns::LeftAlone(why) => {
                        seen.left_alone = Some(why);
                        false
                    }
                },
                _ => false,
            };
            if behind {
                return wait("AddonBehind", behind_message(addon, params.target_version));
            }
            if !addon.rolled_out {
                return wait("AddonRollingOut", format!("{} is not on all its nodes yet", addon.name));
            }
        }
        Ok(Probe::Satisfied(seen))
    }

    async fn apply(
        &self,
        ctx: &StepContext<'_, Cluster>,
        _: &Self::Params,
    ) -> Result<StepOutcome<Self::Output>, StepError> {
        let reason = Reason::new("AddonRollingOut", "waiting for kubeadm's addons");
        Ok(StepOutcome::Wait(Wait::quiet(again(ctx, AGAIN_SECONDS), reason)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_dns_is_compared_with_what_kubeadm_brings_where_it_is_kubeadms_own_and_left_alone_elsewhere() {
        let of = |image: &str, configured: Option<&str>, brought: Option<&str>| {
            let (image, configured) = (image.to_owned(), configured.map(str::to_owned));
            core_dns(&AddonView { name: "coredns".to_owned(), image, configured, rolled_out: true }, brought)
        };
        let (old, new) = ("registry.k8s.io/coredns/coredns:v1.12.0", "registry.k8s.io/coredns/coredns:v1.12.1");
        let pinned = format!("{new}@sha256:1234");
        assert_eq!(of(old, None, Some(new)), CoreDns::Behind);
        assert_eq!((of(new, None, Some(new)), of(&pinned, None, Some(new))), (CoreDns::AsBrought, CoreDns::AsBrought));
        assert_eq!(of(old, None, None), CoreDns::AsBrought, "a runner of before does not tell");
        let mirror = "registry.example.com:5000/coredns";
        assert_eq!(of(&format!("{mirror}:v1.12.0"), None, Some(&format!("{mirror}:v1.12.1"))), CoreDns::Behind);
        let CoreDns::LeftAlone(why) = of("docker.io/coredns/coredns:1.11.0", None, Some(new)) else {
            panic!("it is not kubeadm's")
        };
        assert!(why.ends_with(&format!("1.11.0: kubeadm's would be {new}")), "{why}");
        let CoreDns::LeftAlone(why) = of(old, Some("dns.imageTag v1.12.0"), Some(new)) else {
            panic!("it is configured")
        };
        assert!(why.ends_with("ClusterConfiguration says dns.imageTag v1.12.0"), "{why}");
    }

    #[test]
    fn an_addon_that_stays_behind_is_told_with_what_to_run() {
        let image = "registry.k8s.io/kube-proxy:v1.33.13".to_owned();
        let addon = AddonView { name: "kube-proxy".to_owned(), image, configured: None, rolled_out: true };
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
