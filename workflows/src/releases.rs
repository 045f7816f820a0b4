//! Releases of Kubernetes that are known without asking anybody: the newest patch of each minor.
//!
//! Read from the tags of github.com/kubernetes/kubernetes in November 2026. What inventories and `spec.path` name goes before;
//! nodes install nothing that their repositories do not offer, whatever stands here.

use cupcake_crds::values::{KubeVersion, MinorVersion};

/// Minor and newest patch, for minors of Kubernetes 1.
const NEWEST: [(u32, u32); 14] = [
    (24, 17),
    (25, 16),
    (26, 15),
    (27, 16),
    (28, 15),
    (29, 15),
    (30, 14),
    (31, 14),
    (32, 13),
    (33, 13),
    (34, 4),
    (35, 4),
    (36, 3),
    (37, 2),
];

/// The newest patch of a minor, if it is known.
pub fn newest(minor: MinorVersion) -> Option<KubeVersion> {
    let of_minor = |known: &&(u32, u32)| minor == MinorVersion { major: 1, minor: known.0 };
    NEWEST.iter().find(of_minor).map(|(minor, patch)| KubeVersion::new(1, *minor, *patch))
}
