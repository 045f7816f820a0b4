//! Addons that kubeadm left behind although the whole control plane is at the version.
//!
//! kubeadm upgrades CoreDNS and kube-proxy with the last control-plane node (from 1.28), which it knows by the mirror pods of the API
//! servers: one that shows its old image a moment too long, and kubeadm skips the addons and ends well. Their phase alone (from 1.32) may be
//! run again at any time: it looks at the mirror pods again and changes nothing that is as it should be. Before 1.32 they come with the
//! phase that writes the static pods: that is not run again here, but told.
//! Source: kubernetes/kubernetes 1.33 and 1.34, cmd/kubeadm/app/cmd/phases/upgrade/addons.go, and 1.31, node/controlplane.go beside it; PRs
//! 116570 and 127242.

use super::RealHost;
use super::failure;
use super::hand_made::PATCHES;
use super::program::Program;
use cupcake_crds::values::{KubeVersion, NodeRole};
use cupcake_steps::cluster::addons::PHASE_FROM;
use serde_json::Value;
use std::time::Duration;

const PHASE_LIMIT: Duration = Duration::from_secs(2 * 60);
const ADMIN: &str = "/etc/kubernetes/admin.conf";
const API_SERVERS: &str = "/api/v1/namespaces/kube-system/pods?labelSelector=component%3Dkube-apiserver";
const KUBE_PROXY: &str = "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy";

/// Whether every API server says the version, and kube-proxy does not.
fn are_behind(api_servers: &Value, kube_proxy: &Value, version: &KubeVersion) -> bool {
    let tag = format!(":{}", version.with_v());
    let is_at =
        |image: &Value| image.as_str().is_some_and(|image| image.split('@').next().unwrap_or(image).ends_with(&tag));
    let pods = api_servers["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let all = !pods.is_empty() && pods.iter().all(|pod| is_at(&pod["spec"]["containers"][0]["image"]));
    let image = &kube_proxy["spec"]["template"]["spec"]["containers"][0]["image"];
    all && image.is_string() && !is_at(image)
}

impl RealHost {
    /// Runs the addons' phase where kubeadm should have and did not. What cannot be looked at or done here is told by the update: it
    /// waits for the addons by version.
    pub(super) async fn bring_addons(&self, version: &KubeVersion) {
        let by_this = version.minor() >= PHASE_FROM && self.files.role() == NodeRole::ControlPlane;
        if !by_this || !self.files.has(ADMIN) {
            return;
        }
        let (Some(api_servers), Some(kube_proxy)) = (self.object(API_SERVERS).await, self.object(KUBE_PROXY).await)
        else {
            return;
        };
        if !are_behind(&api_servers, &kube_proxy, version) {
            return;
        }
        let mut arguments = vec!["upgrade", "node", "phase", "addon", "all"];
        if self.has_patches() {
            arguments.extend(["--patches", PATCHES]);
        }
        if let Err(error) = Program::doing("kubeadm", PHASE_LIMIT, arguments).run().await {
            tracing::warn!("kubeadm left the addons behind, and their phase alone failed: {}", failure::chain(&error));
        }
    }

    async fn object(&self, path: &str) -> Option<Value> {
        let arguments = ["--kubeconfig", ADMIN, "--request-timeout=5s", "get", "--raw", path];
        let answer = Program::asking("kubectl", arguments).run().await.ok()?;
        serde_json::from_str(&answer.stdout).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::test_folder::TestFolder;
    use crate::real::tests::host_in;
    use serde_json::json;

    fn pod(image: &str) -> Value {
        json!({"spec": {"containers": [{"image": image}]}})
    }

    fn pods(tags: &[&str]) -> Value {
        let pods: Vec<Value> = tags.iter().map(|tag| pod(&format!("registry.k8s.io/kube-apiserver:{tag}"))).collect();
        json!({ "items": pods })
    }

    fn proxy(tag: &str) -> Value {
        json!({"spec": {"template": pod(&format!("registry.k8s.io/kube-proxy:{tag}"))}})
    }

    #[tokio::test]
    async fn addons_that_kubeadm_left_behind_are_brought_by_their_phase_and_by_the_last_control_plane_node_only() {
        let folder = TestFolder::new("addons");
        folder.write(ADMIN, "");
        let kubectl = "case $* in *daemonsets*) /bin/cat $here/proxy;; *) /bin/cat $here/pods;; esac";
        folder.be_the_machine(&[("kubectl", kubectl), ("kubeadm", "")]);
        let (old, new) = ("v1.33.13", "v1.34.4");
        let phase = "kubeadm upgrade node phase addon all".to_owned();
        for (api_servers, kube_proxy, runs) in [
            (pods(&[new, new]), proxy(old), true),
            (pods(&[new, new]), proxy(new), false),
            (pods(&[new, old]), proxy(old), false),
            (pods(&[]), proxy(old), false),
            (pods(&[new]), json!({"kind": "Status"}), false),
        ] {
            folder.write("pods", api_servers.to_string());
            folder.write("proxy", kube_proxy.to_string());
            host_in(&folder).bring_addons(&KubeVersion::new(1, 34, 4)).await;
            assert_eq!(folder.calls().contains(&phase), runs, "{api_servers} {kube_proxy}");
        }
        folder.write("proxy", proxy("v1.27.16").to_string());
        for (version, has_phase) in [(KubeVersion::new(1, 31, 14), false), (KubeVersion::new(1, 32, 13), true)] {
            folder.write("pods", pods(&[&version.with_v()]).to_string());
            host_in(&folder).bring_addons(&version).await;
            assert_eq!(folder.calls().contains(&phase), has_phase, "kubeadm {version}");
        }
    }
}
