//! What keeps packages at their version, told before anything moves: what an install lifts, and what stays and stands in its way.

use super::Part;
use crate::real::RealHost;
use cupcake_crds::limits::{PACKAGE_HOLD_CHARS_MAX, PACKAGE_HOLDS_MAX, cut};
use cupcake_crds::node_task::{HoldEffect, PackageHold};
use cupcake_steps::ports::host::Package;

/// What kubeadm's and the kubelet's packages need of the same repository, and often stands beside them in a hold.
const NEEDED: [&str; 2] = ["cri-tools", "kubernetes-cni"];
/// The longest pattern of versions, in characters.
const VERSIONS_CHARS_MAX: usize = 64;

/// A lock in a file of locks, as it keeps the package that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) by: String,
    /// What it comes to where the package itself is installed.
    pub(super) effect: HoldEffect,
    /// The versions that it is about, as a pattern without the epoch.
    pub(super) versions: Option<String>,
}

impl Kept {
    /// For that package; locks of what only comes along are never taken off.
    pub(super) fn hold(self, package: &str, part: Part) -> PackageHold {
        let effect = match (part, self.effect) {
            (Part::Needed, HoldEffect::Lifted) => HoldEffect::Keeps,
            (Part::Itself | Part::Needed, effect) => effect,
        };
        let versions = if effect == HoldEffect::Lifted { None } else { self.versions };
        hold(package, &self.by, effect, versions)
    }
}

/// Within the limits of an inventory.
pub(super) fn hold(package: &str, by: &str, effect: HoldEffect, versions: Option<String>) -> PackageHold {
    let mut by = by.to_owned();
    cut(&mut by, PACKAGE_HOLD_CHARS_MAX);
    PackageHold { by, effect, package: package.to_owned(), versions }
}

/// A pattern of versions that fits an inventory; a longer one ends in what fits anything.
pub(super) fn cut_pattern(versions: &str) -> String {
    let mut pattern: String = versions.chars().take(VERSIONS_CHARS_MAX).collect();
    if pattern.len() < versions.len() {
        pattern.pop();
        pattern.push('*');
    }
    pattern
}

impl RealHost {
    /// For the inventory: what stays comes first; nothing where that cannot be told.
    pub(in crate::real) async fn package_holds(&self) -> Option<Vec<PackageHold>> {
        let manager = self.manager().ok()?;
        let mut holds = Vec::new();
        for package in Package::ALL {
            holds.extend(manager.holds_of(package.as_str(), Part::Itself).await.ok()?);
        }
        if let Ok(Ok(brought)) = self.containerd_brought().await {
            holds.extend(manager.holds_of(brought.name, Part::Itself).await.ok()?);
        }
        for package in NEEDED {
            holds.extend(manager.holds_of(package, Part::Needed).await.ok()?);
        }
        holds.sort_by_key(|hold| hold.effect == HoldEffect::Lifted);
        holds.truncate(PACKAGE_HOLDS_MAX);
        Some(holds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::test_folder::TestFolder;
    use crate::real::tests::host_in;

    /// Each hold as `package: by (effect versions)`.
    async fn told(folder: &TestFolder) -> Vec<String> {
        let holds = host_in(folder).package_holds().await.expect("told");
        let line = |hold: PackageHold| {
            let versions = hold.versions.map(|versions| format!(" {versions}")).unwrap_or_default();
            format!("{}: {} ({:?}{versions})", hold.package, hold.by, hold.effect)
        };
        holds.into_iter().map(line).collect()
    }

    #[tokio::test]
    async fn marks_of_apt_are_lifted_and_those_of_what_comes_along_stay_and_come_first() {
        let folder = TestFolder::new("holds-apt");
        folder.write("/usr/bin/apt-get", "");
        folder.be_the_machine(&[
            (
                "dpkg-query",
                "case \"$*\" in *kubectl) want=install;; *) want=hold;; esac
                 case \"$*\" in *containerd*) echo 'dpkg-query: no packages found matching x'; exit 1;; \
                 *) printf \"$want\\tok\\tinstalled\\t1.33.13-1.1\\n\";; esac",
            ),
            (
                "apt-cache",
                "case \"$*\" in *kubernetes-cni) printf '  Version table:\\n     1.4.0-1.1 -1\\n *** 1.2.0-1.1 100\\n';; esac",
            ),
        ]);
        let expected = [
            "cri-tools: apt-mark hold (Keeps)",
            "kubernetes-cni: apt-mark hold (Keeps)",
            "kubernetes-cni: a pin below 0 (/etc/apt/preferences.d) (Keeps)",
            "kubeadm: apt-mark hold (Lifted)",
            "kubelet: apt-mark hold (Lifted)",
        ];
        assert_eq!(told(&folder).await, expected);
        folder.be_the_machine(&[("dpkg-query", "echo 'dpkg-query: error: broken'; exit 2")]);
        assert_eq!(host_in(&folder).package_holds().await, None, "which is not the same as nothing");
    }

    const RPM: &str = "case \"$*\" in *containerd*) echo 'package containerd is not installed'; exit 1;; \
                       *) printf '0\\t1.33.13-1.1\\n';; esac";

    #[tokio::test]
    async fn excludes_and_locks_of_dnf_are_lifted_but_for_those_that_no_install_of_ours_lifts() {
        let folder = TestFolder::new("holds-dnf");
        folder.write("/etc/os-release", "ID=rocky\n");
        folder.write("/usr/bin/dnf", "");
        folder.write(
            "/etc/yum.repos.d/kubernetes.repo",
            "[kubernetes]\nbaseurl=https://pkgs.k8s.io/core:/stable:/v1.33/rpm/\nexclude=kubelet cri-tools\n",
        );
        folder.write("/etc/yum.repos.d/epel.repo", "[epel]\nbaseurl=https://epel.example/\nexclude=kube*\n");
        folder.write("/etc/dnf/dnf.conf", "[main]\nexclude=kubectl kubeadm-1.34.3* kubernetes-cni\n");
        folder.write("/etc/dnf/plugins/versionlock.conf", "[main]\nlocklist = /etc/dnf/plugins/versionlock.list\n");
        let locks = "kubeadm-0:1.33.13-1.1.*\nkube*-1.33.*\n!kubelet-0:1.34.3-*\ncri-tools-0:1.33.0-1.1.*\n";
        folder.write("/etc/dnf/plugins/versionlock.list", locks);
        folder.be_the_machine(&[("rpm", RPM)]);
        let expected = [
            "kubeadm: exclude=kubeadm-1.34.3* of /etc/dnf/dnf.conf (Hides 1.34.3*)",
            "kubeadm: versionlock kube*-1.33.* (Keeps 1.33.*)",
            "kubelet: versionlock kube*-1.33.* (Keeps 1.33.*)",
            "kubelet: versionlock !kubelet-0:1.34.3-* (Hides 1.34.3-*)",
            "kubectl: versionlock kube*-1.33.* (Keeps 1.33.*)",
            "cri-tools: versionlock cri-tools-0:1.33.0-1.1.* (Keeps 1.33.0-1.1.*)",
            "kubernetes-cni: versionlock kube*-1.33.* (Keeps 1.33.*)",
            "kubeadm: versionlock kubeadm-0:1.33.13-1.1.* (Lifted)",
            "kubelet: exclude= of [kubernetes] (Lifted)",
            "kubectl: exclude= of /etc/dnf/dnf.conf (Lifted)",
            "cri-tools: exclude= of [kubernetes] (Lifted)",
            "kubernetes-cni: exclude= of /etc/dnf/dnf.conf (Lifted)",
        ];
        assert_eq!(told(&folder).await, expected);
    }

    #[tokio::test]
    async fn locks_of_zypper_are_lifted_and_one_that_cannot_be_read_as_text_is_asked_about() {
        let folder = TestFolder::new("holds-zypper");
        folder.write("/etc/os-release", "ID=sles\n");
        folder.write("/usr/bin/zypper", "");
        let lock = |kind: &str, name: &str| format!("\ntype: package\nmatch_type: {kind}\nsolvable_name: {name}\n\n");
        folder.write("/etc/zypp/locks", lock("glob", "kubele*") + &lock("glob", "cri-tools"));
        folder.be_the_machine(&[("rpm", RPM)]);
        assert_eq!(
            told(&folder).await,
            ["cri-tools: zypper lock cri-tools (Keeps)", "kubelet: zypper lock kubele* (Lifted)"],
            "nobody is asked"
        );
        folder.write("/etc/zypp/locks", lock("glob", "kube*") + &lock("regex", "^kubea.*"));
        // As zypper 1.14 prints it.
        let answer = "<locks size=\"2\"><lock number=\"1\"><name>^kubea.*</name><type>package</type><matches size=\"1\"><match kind=\"package\" name=\"kubeadm\" edition=\"1.33.13-1.1\" arch=\"x86_64\" installed=\"true\" repo=\"@System\"></match>
</matches></lock>
<lock number=\"2\"><name>kube*</name><type>package</type><matches size=\"1\"><match kind=\"package\" name=\"kubeadm\" edition=\"1.33.13-1.1\" arch=\"x86_64\" installed=\"true\" repo=\"@System\"></match>
</matches></lock>
</locks>";
        folder.write("answer", answer);
        folder.be_the_machine(&[("rpm", RPM), ("zypper", "/bin/cat $here/answer")]);
        let expected = [
            "kubeadm: zypper lock ^kubea.* (Keeps)",
            "kubeadm: zypper lock kube* (Lifted)",
            "kubelet: zypper lock kube* (Lifted)",
            "kubectl: zypper lock kube* (Lifted)",
            "kubernetes-cni: zypper lock kube* (Lifted)",
        ];
        assert_eq!(told(&folder).await, expected, "a lock that goes with one of ours is off for what comes along, too");
    }

    #[test]
    fn a_pattern_that_is_too_long_for_an_inventory_fits_more_and_never_less() {
        assert_eq!(cut_pattern("1.33.*"), "1.33.*");
        let long = cut_pattern(&"1.33.13-".repeat(20));
        assert!(long.len() == VERSIONS_CHARS_MAX && long.ends_with('*') && long.starts_with("1.33.13-1.33"), "{long}");
    }
}
