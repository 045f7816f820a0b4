//! What is particular to each minor of Kubernetes: one file of data with its sources, `data/facts.json`.
//!
//! What inventories and `spec.path` name goes before the newest patch that stands there, and nodes install nothing that their
//! repositories do not offer.

use cupcake_crds::values::{KubeVersion, MinorVersion};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// One minor.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Facts {
    /// Its newest known patch.
    newest_patch: u32,
    /// Patches that an upgrade is better not led through.
    pub avoid: Option<Avoid>,
    /// Kinds and API versions that its API server no longer serves.
    #[serde(default)]
    pub removed_apis: Vec<String>,
    /// Flags that its kubelet no longer starts with.
    #[serde(default)]
    pub removed_kubelet_flags: Vec<String>,
    /// Whether its kubelet refuses to start on control groups version 1 unless it is told otherwise.
    #[serde(default)]
    pub refuses_cgroup_v1: bool,
    /// The minor of etcd that kubeadm brings, where it is another one than before.
    pub etcd: Option<String>,
    /// The oldest minor of containerd that its kubelet works with, where it is another one than before.
    pub oldest_containerd: Option<String>,
    /// Where all that stands.
    #[cfg_attr(not(test), expect(dead_code, reason = "for readers of the file; a test asks for them"))]
    sources: Vec<String>,
}

/// The first patches of a minor, which leave something behind that stands in the way of the next upgrade.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Avoid {
    /// The newest of them.
    newest_patch: u32,
    /// What is wrong with them.
    pub why: String,
    /// What to do on a cluster that is at one of them.
    pub leaving: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[expect(dead_code, reason = "for readers of the file")]
    about: String,
    minors: BTreeMap<String, Facts>,
}

/// What is known of a minor, if anything is.
pub(crate) fn of(minor: MinorVersion) -> Option<&'static Facts> {
    static FILE: OnceLock<File> = OnceLock::new();
    let file = FILE.get_or_init(|| {
        serde_json::from_str(include_str!("../data/facts.json"))
            .expect("the file is part of the program, and a test reads it")
    });
    file.minors.get(&minor.to_string())
}

/// Why an upgrade is better not led through a version, if so.
pub(crate) fn avoid(version: KubeVersion) -> Option<&'static Avoid> {
    let avoid = of(version.minor_version())?.avoid.as_ref()?;
    (version.patch() <= avoid.newest_patch).then_some(avoid)
}

/// The newest patch of a minor, if it is known.
pub fn newest(minor: MinorVersion) -> Option<KubeVersion> {
    Some(KubeVersion::new(minor.major, minor.minor, of(minor)?.newest_patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_minor_from_1_24_on_is_known_and_what_is_said_of_it_has_a_source() {
        for minor in 24..=37 {
            let facts = of(MinorVersion { major: 1, minor }).unwrap();
            let says = facts.avoid.is_some()
                || !facts.removed_apis.is_empty()
                || !facts.removed_kubelet_flags.is_empty()
                || facts.refuses_cgroup_v1
                || facts.etcd.is_some()
                || facts.oldest_containerd.is_some();
            assert_eq!(says, !facts.sources.is_empty(), "1.{minor}");
            assert!(facts.sources.iter().all(|source| source.starts_with("https://")), "1.{minor}");
        }
        assert_eq!(newest(MinorVersion { major: 1, minor: 33 }), Some(KubeVersion::new(1, 33, 13)));
        assert_eq!(newest(MinorVersion { major: 1, minor: 99 }), None);
    }
}
