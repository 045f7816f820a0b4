//! Which version a schedule takes.

use super::Problem;
use crate::hops;
use cupcake_crds::update_schedule::UpdatePolicy;
use cupcake_crds::values::{ClusterSnapshot, Component, KubeVersion, MinorVersion, NodeRole, NodeSnapshot, Stage};
use std::fmt;

/// What `targetVersionPattern` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// The newest patch of the minor that the cluster is at.
    LatestPatch,
    /// The newest patch of that minor.
    Minor(MinorVersion),
    /// That version.
    Exact(KubeVersion),
}

impl Pattern {
    /// Reads it.
    ///
    /// # Errors
    /// If it is none of the three.
    pub fn of(text: &str) -> Result<Self, Problem> {
        if text == "latest-patch" {
            return Ok(Self::LatestPatch);
        }
        let star = text.strip_suffix(".*");
        let version: Result<KubeVersion, _> = star.map_or_else(|| text.parse(), |minor| format!("{minor}.0").parse());
        let version = version.map_err(|error: cupcake_crds::values::InvalidVersion| Problem {
            code: "InvalidVersionPattern",
            field: "spec.updatePolicy.targetVersionPattern",
            value: text.to_owned(),
            what: error.problem.to_string(),
            fix: "write latest-patch, a minor with a star such as 1.34.*, or one version such as 1.34.4".to_owned(),
        })?;
        Ok(if star.is_some() { Self::Minor(version.minor_version()) } else { Self::Exact(version) })
    }
}

/// What to do about a due time, by the versions there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// Upgrade to it.
    Take(KubeVersion),
    /// Everything is there already.
    There(KubeVersion),
    /// No version of that minor is known.
    Unknown(MinorVersion),
    /// The cluster is newer than what is asked for.
    Newer(KubeVersion),
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Take(version) => write!(f, "upgrades to {version}"),
            Self::There(version) => write!(f, "nothing to do: already at {version}"),
            Self::Newer(server) => {
                write!(f, "nothing to do: the cluster is at {server}, newer than what is asked for")
            }
            Self::Unknown(minor) => write!(
                f,
                "no version of {minor} is known: look at kubectl get nodetasks, whose inventories say what machines can get"
            ),
        }
    }
}

/// Chooses among the versions that the snapshot knows.
pub fn choose(pattern: Pattern, policy: &UpdatePolicy, snapshot: &ClusterSnapshot) -> Choice {
    let known = |minor: MinorVersion| {
        let of_minor = |version: &KubeVersion| version.minor_version() == minor && version.stage() == Stage::Release;
        let begun = snapshot.kubeadm_config.filter(of_minor);
        snapshot.known_versions.iter().copied().filter(of_minor).max().max(begun)
    };
    let (minor, target) = match pattern {
        Pattern::LatestPatch => (snapshot.server.minor_version(), known(snapshot.server.minor_version())),
        // Repositories are made by minor: of one that the cluster is not at, machines know nothing.
        Pattern::Minor(minor) => (minor, hops::newest(snapshot, minor)),
        Pattern::Exact(version) => (version.minor_version(), Some(version)),
    };
    let Some(target) = target else {
        return Choice::Unknown(minor);
    };
    if snapshot.server > target {
        return Choice::Newer(snapshot.server);
    }
    let moves_kubelets = policy.components.contains(&Component::Kubelet);
    // Workers that are not selected stay where they are, whatever is begun.
    let selected =
        |node: &NodeSnapshot| policy.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value));
    let moved = |node: &NodeSnapshot| moves_kubelets && (node.role == NodeRole::ControlPlane || selected(node));
    let kubelets = snapshot.nodes.values().all(|node| !moved(node) || node.kubelet >= target);
    let begun = snapshot.kubeadm_config.is_none_or(|config| config >= target);
    if snapshot.server == target && begun && kubelets { Choice::There(target) } else { Choice::Take(target) }
}
