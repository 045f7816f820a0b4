//! What a Kubernetes release brings along, and which releases the simulated package repositories hold.

use cupcake_crds::values::{KubeVersion, MinorVersion};
use std::collections::{BTreeMap, BTreeSet};

/// The revision that pkgs.k8s.io gives to the packages of a release.
const PACKAGE_REVISION: &str = "1.1";

/// Where kubeadm's default images come from.
const REGISTRY: &str = "registry.k8s.io";

/// The static pods of a stacked control plane, in the order in which kubeadm upgrades them
/// (etcd first: `cmd/kubeadm/app/phases/upgrade/staticpods.go`).
pub const STATIC_PODS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// `minor, newest patch, etcd, CoreDNS, pause`: the defaults of `cmd/kubeadm/app/constants/constants.go` of each minor.
/// Newest patches are those that the rig's notes resolve (1.31 to 1.36) or the last ones of a closed branch.
const RELEASES: [(u32, u32, &str, &str, &str); 13] = [
    (24, 17, "3.5.6-0", "v1.8.6", "3.7"),
    (25, 16, "3.5.9-0", "v1.9.3", "3.8"),
    (26, 15, "3.5.10-0", "v1.9.3", "3.9"),
    (27, 16, "3.5.12-0", "v1.10.1", "3.9"),
    (28, 15, "3.5.15-0", "v1.10.1", "3.9"),
    (29, 15, "3.5.16-0", "v1.11.1", "3.9"),
    (30, 14, "3.5.15-0", "v1.11.3", "3.9"),
    (31, 14, "3.5.24-0", "v1.11.3", "3.10"),
    (32, 13, "3.5.24-0", "v1.11.3", "3.10"),
    (33, 13, "3.5.24-0", "v1.12.0", "3.10"),
    (34, 4, "3.6.5-0", "v1.12.1", "3.10.1"),
    (35, 4, "3.6.6-0", "v1.13.1", "3.10.1"),
    (36, 3, "3.6.8-0", "v1.14.1", "3.10.1"),
];

/// The versions of containerd's package that the repositories of every machine hold, oldest first.
pub const CONTAINERDS: [&str; 5] = ["1.7.20-1", CONTAINERD_OF_BEFORE, "1.7.27-1", "2.1.4-1", "2.1.5~rc.1-1"];

/// The one that every machine has at first.
pub const CONTAINERD_OF_BEFORE: &str = "1.7.24-1";

/// The images that kubeadm wants for one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    version: KubeVersion,
    etcd: &'static str,
    coredns: &'static str,
    pause: &'static str,
}

impl Images {
    /// The images of `version`; a minor that the table does not know gets those of the nearest one.
    pub fn of(version: KubeVersion) -> Self {
        let nearest = RELEASES.iter().min_by_key(|release| release.0.abs_diff(version.minor()));
        let (_, _, etcd, coredns, pause) = nearest.copied().unwrap_or(RELEASES[RELEASES.len() - 1]);
        Self { version, etcd, coredns, pause }
    }

    /// The tag of a static pod's image.
    pub fn tag(&self, static_pod: &str) -> String {
        if static_pod == "etcd" { self.etcd.to_owned() } else { self.version.with_v() }
    }

    /// The reference of a static pod's image.
    pub fn static_pod(&self, static_pod: &str) -> String {
        format!("{REGISTRY}/{static_pod}:{}", self.tag(static_pod))
    }

    /// The reference of kube-proxy's image.
    pub fn kube_proxy(&self) -> String {
        format!("{REGISTRY}/kube-proxy:{}", self.version.with_v())
    }

    /// The reference of CoreDNS's image.
    pub fn coredns(&self) -> String {
        format!("{REGISTRY}/coredns/coredns:{}", self.coredns)
    }

    /// The reference of the pause image.
    pub fn pause(&self) -> String {
        format!("{REGISTRY}/pause:{}", self.pause)
    }

    /// What `kubeadm config images list` prints for a control-plane node, sorted.
    pub fn all(&self) -> BTreeSet<String> {
        let mut images: BTreeSet<String> = STATIC_PODS.iter().map(|pod| self.static_pod(pod)).collect();
        images.extend([self.kube_proxy(), self.coredns(), self.pause()]);
        images
    }

    /// What a worker needs of them: kube-proxy and pause.
    pub fn of_worker(&self) -> BTreeSet<String> {
        BTreeSet::from([self.kube_proxy(), self.pause()])
    }
}

/// The package repositories: one per minor, as on pkgs.k8s.io.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repositories {
    minors: BTreeMap<MinorVersion, BTreeSet<KubeVersion>>,
}

impl Repositories {
    /// Every patch of every minor from 1.24, and whatever versions are named besides.
    pub fn with(versions: impl IntoIterator<Item = KubeVersion>) -> Self {
        let mut minors: BTreeMap<MinorVersion, BTreeSet<KubeVersion>> = RELEASES
            .iter()
            .map(|(minor, patch, ..)| {
                let patches = (0..=*patch).map(|patch| KubeVersion::new(1, *minor, patch)).collect();
                (MinorVersion { major: 1, minor: *minor }, patches)
            })
            .collect();
        for version in versions {
            minors.entry(version.minor_version()).or_default().insert(version);
        }
        Self { minors }
    }

    /// Whether there is a repository for that minor.
    pub fn has(&self, minor: MinorVersion) -> bool {
        self.minors.contains_key(&minor)
    }

    /// The versions in the repository of that minor, oldest first.
    pub fn versions(&self, minor: MinorVersion) -> impl DoubleEndedIterator<Item = KubeVersion> + '_ {
        self.minors.get(&minor).into_iter().flatten().copied()
    }

    /// The newest patch of that minor.
    pub fn newest(&self, minor: MinorVersion) -> Option<KubeVersion> {
        self.versions(minor).next_back()
    }

    /// Adds a version; so a mirror gets a new release.
    pub fn publish(&mut self, version: KubeVersion) {
        self.minors.entry(version.minor_version()).or_default().insert(version);
    }
}

/// The package version of a Kubernetes version: `1.34.4-1.1`.
pub fn package_version(version: KubeVersion) -> String {
    format!("{version}-{PACKAGE_REVISION}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_names_the_images_that_kubeadm_wants() {
        let images = Images::of(KubeVersion::new(1, 34, 4));
        assert_eq!(images.static_pod("etcd"), "registry.k8s.io/etcd:3.6.5-0");
        assert_eq!(images.static_pod("kube-apiserver"), "registry.k8s.io/kube-apiserver:v1.34.4");
        assert_eq!(images.all().len(), 7);
    }

    #[test]
    fn each_minor_has_a_repository_of_its_own() {
        let repositories = Repositories::with([KubeVersion::new(1, 34, 40)]);
        let minor = |minor| MinorVersion { major: 1, minor };
        assert_eq!(repositories.newest(minor(34)), Some(KubeVersion::new(1, 34, 40)));
        assert!(repositories.versions(minor(33)).all(|version| version.minor() == 33));
        assert!(!repositories.has(minor(99)));
    }
}
