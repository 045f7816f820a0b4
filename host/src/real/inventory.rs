//! What the machine is and carries, each fact on its own: one that cannot be told is left out.

use super::program::Program;
use super::{RealHost, certificates, os};
use cupcake_crds::limits::{HAND_MADE_CHARS_MAX, VERSIONS_MAX, cut};
use cupcake_crds::node_task::NodeInventory;
use cupcake_crds::values::{KubeVersion, NodeRole};
use serde_json::{Value, json};

use cupcake_steps::ports::host::{HostError, HostOps, Package};

/// The version in `containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3`.
fn containerd_version(text: &str) -> Option<String> {
    let version = text.split_whitespace().nth(2)?;
    Some(version.trim_start_matches('v').to_owned())
}

/// The version in `Client Version: v1.33.13`.
fn kubectl_version(text: &str) -> Option<KubeVersion> {
    let line = text.lines().find_map(|line| line.strip_prefix("Client Version:"))?;
    line.trim().parse().ok()
}

async fn answer(name: &'static str, arguments: &[&str]) -> Option<String> {
    let finished = Program::asking(name, arguments.iter().copied()).run().await.ok()?;
    Some(finished.stdout)
}

impl RealHost {
    pub(super) async fn take_inventory(&self, request: &str) -> NodeInventory {
        let (
            kubelet,
            kubeadm,
            kubectl,
            containerd,
            (containerd_package, offered, holds),
            etcd_members,
            etcd_store_doubts,
            hand_made,
            next_minor,
            settings,
            swap,
            unattended_upgrades,
            without_package,
        ) = tokio::join!(
            self.kubelet_version(),
            self.kubeadm_version(),
            answer("kubectl", &["version", "--client"]),
            answer("containerd", &["--version"]),
            // One after the other: zypper locks others of its kind out for a mere question, too.
            async { (self.containerd_package().await, self.offered_versions().await, self.package_holds().await) },
            self.etcd_members(),
            self.doubts_of_etcds_store(),
            self.hand_made(),
            self.next_minor(),
            self.settings(),
            self.swap_that_stops_the_kubelet(),
            self.unattended_upgrades(),
            self.without_package(&Package::ALL),
        );
        let (hand_made, hand_made_unread) = match hand_made {
            Ok(told) => (told, None),
            Err(mut why) => {
                cut(&mut why, HAND_MADE_CHARS_MAX);
                (Vec::new(), Some(why))
            }
        };
        let role = self.files.role();
        let mut versions = offered.unwrap_or_default();
        versions.truncate(VERSIONS_MAX);
        let space = (self.settings.space)(&self.files.path("/var/lib"));
        let etcd_data = self.etcd_argument("--data-dir=");
        NodeInventory {
            architecture: Some(os::architecture().to_owned()),
            available_versions: versions.iter().map(ToString::to_string).collect(),
            certificates_expire: match role {
                NodeRole::ControlPlane => certificates::first_expiry(&self.files),
                NodeRole::Worker => None,
            },
            cgroup_version: self.files.cgroup_version(),
            // What an API server's clock says is the agent's to ask.
            clock: None,
            containerd: containerd.as_deref().and_then(containerd_version),
            containerd_package,
            disk_free_bytes: space.map(|space| space.free_bytes),
            disk_size_bytes: space.map(|space| space.size_bytes),
            disks: self.disks(),
            etcd_data_bytes: etcd_data.and_then(|folder| self.files.folder_bytes(&folder)),
            etcd_members: etcd_members.unwrap_or_default(),
            etcd_store_doubts,
            external_cas: match role {
                NodeRole::ControlPlane => certificates::external_authorities(&self.files),
                NodeRole::Worker => Vec::new(),
            },
            hand_made,
            hand_made_unread,
            holds,
            kubeadm: kubeadm.ok().map(|version| version.to_string()),
            kubectl: kubectl.as_deref().and_then(kubectl_version).map(|version| version.to_string()),
            kubelet: kubelet.map(|version| version.to_string()),
            next_minor,
            os: self.files.os_name(),
            package_manager: self.manager_name().map(str::to_owned),
            request: Some(request.to_owned()),
            role: Some(role),
            runner_kinds: Vec::new(),
            settings,
            swap,
            taken_at: Some(self.settings.clock.now()),
            unattended_upgrades,
            // Another package manager is told by itself.
            without_package: without_package.unwrap_or_default(),
        }
    }
}

/// All that the machine tells without being changed, for people: each part, or why it cannot be told.
pub async fn probe_machine(host: &dyn HostOps) -> Value {
    fn or_error<T>(told: Result<T, HostError>, show: impl FnOnce(T) -> Value) -> Value {
        told.map_or_else(|error| json!({ "error": error.to_string() }), show)
    }
    let mut packages = serde_json::Map::new();
    for package in [Package::Kubeadm, Package::Kubelet, Package::Kubectl] {
        let state = or_error(
            host.package(package).await,
            |state| json!({ "version": state.version, "whole": state.whole, "held": state.held }),
        );
        packages.insert(package.as_str().to_owned(), state);
    }
    let containerd = or_error(host.containerd().await, |found| json!(found));
    json!({
        "bootId": or_error(host.boot_id().await, Value::String),
        "inventory": or_error(host.inventory("probe-machine").await, |inventory| json!(inventory)),
        "repository": or_error(host.repository().await, |minor| json!(minor.map(|minor| minor.to_string()))),
        "packages": packages,
        "containerd": containerd,
        "staticPods": or_error(host.static_pods().await, |pods| json!({ "manifests": pods.manifests, "running": pods.running })),
        "kubelet": or_error(host.kubelet().await, |kubelet| json!({
            "installed": kubelet.installed.map(|version| version.to_string()),
            "active": kubelet.active,
            "runsInstalled": kubelet.runs_installed,
            "since": kubelet.since,
            "restarts": kubelet.restarts,
        })),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containerds_version_is_read_in_both_builds() {
        let debian = "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3\n";
        assert_eq!(containerd_version(debian).as_deref(), Some("1.6.20~ds1"));
        let upstream =
            "containerd github.com/containerd/containerd/v2 v2.0.1 88aa2f531d6c2922003cc7929e51daf1c14caa0a\n";
        assert_eq!(containerd_version(upstream).as_deref(), Some("2.0.1"));
        assert_eq!(containerd_version("containerd"), None);
    }

    #[test]
    fn kubectls_version_is_read_as_it_prints_it() {
        let text = "Client Version: v1.33.13\nKustomize Version: v5.6.0\n";
        assert_eq!(kubectl_version(text), Some(KubeVersion::new(1, 33, 13)));
    }
}
