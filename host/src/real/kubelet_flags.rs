//! Flags that kubeadm once wrote for the kubelet and that a newer kubelet no longer starts with.
//!
//! kubeadm takes each of them out in one minor only (`--pod-infra-container-image` in 1.35: kubernetes/kubernetes#133778); a worker
//! that is not visited in that minor keeps it. So they are taken out here, before the newer kubelet is installed.

use super::RealHost;
use super::os::write_whole;
use cupcake_crds::values::KubeVersion;
use cupcake_steps::ports::host::HostError;

pub(super) const FILE: &str = "/var/lib/kubelet/kubeadm-flags.env";
/// The first minor of Kubernetes 1 whose kubelet does not know the flag. The older ones of dockershim: release notes of 1.24.
const REMOVED: [(u32, &str); 6] = [
    (24, "--network-plugin"),
    (24, "--cni-conf-dir"),
    (24, "--cni-bin-dir"),
    (24, "--docker-endpoint"),
    (27, "--container-runtime"),
    (35, "--pod-infra-container-image"),
];

impl RealHost {
    /// Takes the flags out that the kubelet of `version` no longer knows; the file stays as it is where there are none.
    pub(super) fn drop_removed_flags(&self, version: &KubeVersion) -> Result<(), HostError> {
        let Some(text) = self.files.text(FILE) else {
            return Ok(());
        };
        match without_removed(&text, version.minor()) {
            Some(fewer) => {
                tracing::info!(file = FILE, %version, "flags taken out that its kubelet does not know");
                write_whole(&self.files.path(FILE), fewer.as_bytes(), 0o644)
            }
            None => Ok(()),
        }
    }
}

/// The file without those flags; `None` if it has none of them.
fn without_removed(text: &str, minor: u32) -> Option<String> {
    let removed = |word: &str| {
        let flag = word.split('=').next().unwrap_or(word);
        REMOVED.iter().any(|(since, name)| *since <= minor && *name == flag)
    };
    let line = |line: &str| match line.split_once("=\"") {
        Some((name @ "KUBELET_KUBEADM_ARGS", flags)) if flags.ends_with('"') => {
            let kept: Vec<&str> = flags.trim_end_matches('"').split(' ').filter(|word| !removed(word)).collect();
            format!("{name}=\"{}\"", kept.join(" "))
        }
        Some(_) | None => line.to_owned(),
    };
    let mut fewer: String = text.lines().map(line).collect::<Vec<_>>().join("\n");
    if text.ends_with('\n') {
        fewer.push('\n');
    }
    (fewer != text).then_some(fewer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::test_folder::TestFolder;
    use crate::real::tests::host_in;

    const OLD: &str = "KUBELET_KUBEADM_ARGS=\"--container-runtime=remote --container-runtime-endpoint=unix:///run/containerd/containerd.sock --pod-infra-container-image=registry.k8s.io/pause:3.9\"\n";

    /// What the plan tells of and what is done are one list: it stands in two places, since a machine has no plan at hand.
    #[test]
    fn every_flag_that_the_facts_of_a_minor_take_away_is_taken_out() {
        let facts = include_str!("../../../workflows/data/facts.json");
        let facts: serde_json::Value = serde_json::from_str(facts).unwrap();
        let mut told = Vec::new();
        for (minor, facts) in facts["minors"].as_object().unwrap() {
            let minor: u32 = minor.strip_prefix("1.").unwrap().parse().unwrap();
            let flags = facts["removedKubeletFlags"].as_array().into_iter().flatten();
            told.extend(flags.map(|flag| (minor, flag.as_str().unwrap())));
        }
        told.sort_unstable();
        let mut done = REMOVED.to_vec();
        done.sort_unstable();
        assert_eq!(told, done);
    }

    #[test]
    fn a_flag_goes_with_the_minor_that_no_longer_knows_it_and_nothing_else_does() {
        let folder = TestFolder::new("kubelet-flags");
        let host = host_in(&folder);
        host.drop_removed_flags(&KubeVersion::new(1, 36, 3)).unwrap();
        assert!(!folder.path(FILE).exists(), "no file, nothing to do");
        folder.write(FILE, OLD);
        host.drop_removed_flags(&KubeVersion::new(1, 26, 15)).unwrap();
        assert_eq!(folder.read(FILE), OLD);
        host.drop_removed_flags(&KubeVersion::new(1, 34, 4)).unwrap();
        assert_eq!(folder.read(FILE), OLD.replace("--container-runtime=remote ", ""));
        host.drop_removed_flags(&KubeVersion::new(1, 36, 3)).unwrap();
        let kept = "KUBELET_KUBEADM_ARGS=\"--container-runtime-endpoint=unix:///run/containerd/containerd.sock\"\n";
        assert_eq!(folder.read(FILE), kept);
        host.drop_removed_flags(&KubeVersion::new(1, 36, 3)).unwrap();
        assert_eq!(folder.read(FILE), kept, "repeating it changes nothing");
    }
}
