//! The version-skew rules, as functions of numbers.
//!
//! Sources: the page "Version Skew Policy" (kubernetes.io/releases/version-skew-policy, read at 1.35) and kubeadm's own
//! checks (`cmd/kubeadm/app/phases/upgrade/policy.go`; one minor of kubelet lag up to 1.28, three from 1.29 on by
//! kubernetes/kubernetes#120825). The two differ, so both are asked.

use cupcake_crds::KubeVersion;
use cupcake_crds::values::MinorVersion;

/// How many minors a control plane moves in one hop at the most (policy page, "Supported component upgrade order":
/// kube-apiserver may not skip minors; kubeadm `MaximumAllowedMinorVersionUpgradeSkew`).
pub const HOP_MINORS_MAX: i64 = 1;

/// What kind of a hop lies between two versions of a control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// The same version.
    Stay,
    /// Another patch (or pre-release) of the same minor; patches in between may be skipped.
    Patch,
    /// The next minor.
    Minor,
    /// An older version: kubeadm does not downgrade, nor does etcd.
    Downgrade,
    /// That many minors at once, more than [`HOP_MINORS_MAX`].
    Minors(i64),
    /// Another major: no rule covers it.
    OtherMajor,
}

/// What lies between `from` and `to`.
pub fn hop(from: KubeVersion, to: KubeVersion) -> Hop {
    let Some(minors) = from.minors_to(to) else {
        return Hop::OtherMajor;
    };
    if to < from {
        Hop::Downgrade
    } else if minors > HOP_MINORS_MAX {
        Hop::Minors(minors)
    } else if minors > 0 {
        Hop::Minor
    } else if to > from {
        Hop::Patch
    } else {
        Hop::Stay
    }
}

/// How many minors a kubelet may be behind the newest API server: 3, or 2 for kubelets below 1.25 (policy page, "kubelet").
pub const fn kubelet_minors_behind_max(kubelet: MinorVersion) -> i64 {
    if kubelet.major == 1 && kubelet.minor < 25 { 2 } else { 3 }
}

/// How many minors behind its target kubeadm lets a kubelet be without `--force`: 1 up to kubeadm 1.28, 3 from 1.29 on.
pub const fn kubeadm_kubelet_minors_behind_max(kubeadm: MinorVersion) -> i64 {
    if kubeadm.major == 1 && kubeadm.minor <= 28 { 1 } else { 3 }
}

/// Why a kubelet does not fit the API servers beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skew {
    /// A newer minor than the oldest API server it may talk to.
    NewerThanServer,
    /// More minors behind the newest API server than the policy allows.
    TooOld {
        /// How many minors behind.
        behind: i64,
        /// How many are allowed.
        behind_max: i64,
    },
    /// The policy allows it, but kubeadm of that minor refuses to upgrade around it.
    RefusedByKubeadm {
        /// How many minors behind.
        behind: i64,
        /// How many kubeadm allows.
        behind_max: i64,
    },
}

/// Whether a kubelet fits API servers from `oldest` to `newest`.
///
/// While a hop is under way the servers are of two minors, so the window of kubelets shrinks by one (policy page, note on
/// kubelets in HA clusters): give both ends.
pub fn kubelet(kubelet: KubeVersion, oldest: KubeVersion, newest: KubeVersion) -> Result<(), Skew> {
    let kubelet = kubelet.minor_version();
    if kubelet > oldest.minor_version() {
        return Err(Skew::NewerThanServer);
    }
    let behind = i64::from(newest.minor()) - i64::from(kubelet.minor);
    let behind_max = kubelet_minors_behind_max(kubelet);
    if behind > behind_max {
        return Err(Skew::TooOld { behind, behind_max });
    }
    Ok(())
}

/// Whether kubeadm of `target`'s minor upgrades a cluster that holds such a kubelet.
pub fn kubeadm_accepts(kubelet: KubeVersion, target: KubeVersion) -> Result<(), Skew> {
    let behind = i64::from(target.minor()) - i64::from(kubelet.minor());
    let behind_max = kubeadm_kubelet_minors_behind_max(target.minor_version());
    if behind > behind_max { Err(Skew::RefusedByKubeadm { behind, behind_max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(text: &str) -> KubeVersion {
        text.parse().unwrap()
    }

    #[test]
    fn a_hop_is_told_from_a_downgrade_and_from_a_leap() {
        for (from, to, wanted) in [
            ("1.34.4", "1.34.4", Hop::Stay),
            ("1.34.4", "1.34.7", Hop::Patch),
            ("1.35.0-rc.1", "1.35.0", Hop::Patch),
            ("1.33.9", "1.34.0", Hop::Minor),
            ("1.34.4", "1.34.3", Hop::Downgrade),
            ("1.34.0", "1.33.9", Hop::Downgrade),
            ("1.35.0", "1.35.0-rc.1", Hop::Downgrade),
            ("1.32.0", "1.34.0", Hop::Minors(2)),
            ("1.26.9", "1.34.4", Hop::Minors(8)),
            ("1.34.0", "2.0.0", Hop::OtherMajor),
        ] {
            assert_eq!(hop(v(from), v(to)), wanted, "{from} to {to}");
        }
    }

    #[test]
    fn a_kubelet_fits_by_the_window_of_its_own_age() {
        let too_old = |behind, behind_max| Err(Skew::TooOld { behind, behind_max });
        for (kubelet_version, oldest, newest, wanted) in [
            ("1.33.9", "1.33.0", "1.33.0", Ok(())),
            ("1.34.0", "1.33.9", "1.34.0", Err(Skew::NewerThanServer)),
            ("1.30.1", "1.33.0", "1.33.0", Ok(())),
            // The hop itself moves the newest server: what fitted before it does not fit during it.
            ("1.30.1", "1.33.0", "1.34.0", too_old(4, 3)),
            ("1.31.1", "1.33.0", "1.34.0", Ok(())),
            ("1.24.9", "1.26.0", "1.26.0", Ok(())),
            ("1.24.9", "1.26.0", "1.27.0", too_old(3, 2)),
            ("1.25.0", "1.27.0", "1.28.0", Ok(())),
        ] {
            let found = kubelet(v(kubelet_version), v(oldest), v(newest));
            assert_eq!(found, wanted, "kubelet {kubelet_version}, servers {oldest} to {newest}");
        }
    }

    #[test]
    fn kubeadm_is_stricter_than_the_policy_up_to_its_1_28() {
        let refused = |behind, behind_max| Err(Skew::RefusedByKubeadm { behind, behind_max });
        for (kubelet_version, target, wanted) in [
            ("1.27.0", "1.28.0", Ok(())),
            ("1.26.0", "1.28.0", refused(2, 1)),
            ("1.26.0", "1.29.0", Ok(())),
            ("1.25.0", "1.29.0", refused(4, 3)),
            ("1.31.0", "1.34.4", Ok(())),
        ] {
            assert_eq!(kubeadm_accepts(v(kubelet_version), v(target)), wanted, "{kubelet_version} under {target}");
        }
    }
}
