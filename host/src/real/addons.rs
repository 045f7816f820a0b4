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
use cupcake_steps::ports::host::KubeProxy;
use serde_json::Value;
use std::time::Duration;

const PHASE_LIMIT: Duration = Duration::from_secs(2 * 60);
const ADMIN: &str = "/etc/kubernetes/admin.conf";
const API_SERVERS: &str = "/api/v1/namespaces/kube-system/pods?labelSelector=component%3Dkube-apiserver";
const KUBE_PROXY: &str = "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy";
const CORE_DNS: &str = "/apis/apps/v1/namespaces/kube-system/deployments/coredns";

/// Whether an image is of that tag, which begins with its colon.
fn is_at(image: &Value, tag: &str) -> bool {
    image.as_str().is_some_and(|image| image.split('@').next().unwrap_or(image).ends_with(tag))
}

/// Whether every API server says the version.
fn are_all_at(api_servers: &Value, version: &KubeVersion) -> bool {
    let tag = format!(":{}", version.with_v());
    let pods = api_servers["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    !pods.is_empty() && pods.iter().all(|pod| is_at(&pod["spec"]["containers"][0]["image"], &tag))
}

/// Whether an addon has an image of another tag, from the repository of that image.
fn is_behind(addon: &Value, image: &str) -> bool {
    let present = &addon["spec"]["template"]["spec"]["containers"][0]["image"];
    let Some((repository, tag)) = image.rfind(':').map(|colon| image.split_at(colon)) else { return false };
    let is_of = present.as_str().and_then(|present| present.strip_prefix(repository));
    is_of.is_some_and(|rest| rest.starts_with([':', '@'])) && !is_at(present, tag)
}

impl RealHost {
    /// Runs the addons' phase where kubeadm should have and did not. What cannot be looked at or done here is told by the update: it
    /// waits for the addons by version.
    pub(super) async fn bring_addons(&self, version: &KubeVersion, kube_proxy: KubeProxy) {
        let by_this = version.minor() >= PHASE_FROM && self.files.role() == NodeRole::ControlPlane;
        if !by_this || !self.files.has(ADMIN) {
            return;
        }
        if !self.object(API_SERVERS).await.is_some_and(|api_servers| are_all_at(&api_servers, version)) {
            return;
        }
        let proxy_is_behind = match kube_proxy {
            KubeProxy::Upgrade => self.kube_proxy_is_behind(version).await,
            KubeProxy::LeaveOut => false,
        };
        // Never `all` for CoreDNS alone: it would bring a kube-proxy back that somebody took away.
        let phase = match proxy_is_behind {
            true => "all",
            false if self.core_dns_is_behind(version).await => "coredns",
            false => return,
        };
        let mut arguments = vec!["upgrade", "node", "phase", "addon", phase];
        if self.has_patches() {
            arguments.extend(["--patches", PATCHES]);
        }
        if let Err(error) = Program::doing("kubeadm", PHASE_LIMIT, arguments).run().await {
            tracing::warn!("kubeadm left the addons behind, and their phase alone failed: {}", failure::chain(&error));
        }
    }

    /// It follows Kubernetes, from whatever repository.
    async fn kube_proxy_is_behind(&self, version: &KubeVersion) -> bool {
        let tag = format!(":{}", version.with_v());
        self.object(KUBE_PROXY).await.is_some_and(|set| {
            let image = &set["spec"]["template"]["spec"]["containers"][0]["image"];
            image.is_string() && !is_at(image, &tag)
        })
    }

    /// Only where it is kubeadm's: of another repository it is somebody's own.
    async fn core_dns_is_behind(&self, version: &KubeVersion) -> bool {
        let Ok(Some(image)) = self.core_dns_of(version).await else { return false };
        self.object(CORE_DNS).await.is_some_and(|deployment| is_behind(&deployment, &image))
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
            host_in(&folder).bring_addons(&KubeVersion::new(1, 34, 4), KubeProxy::Upgrade).await;
            assert_eq!(folder.calls().contains(&phase), runs, "{api_servers} {kube_proxy}");
        }
        folder.write("proxy", proxy("v1.27.16").to_string());
        for (version, has_phase) in [(KubeVersion::new(1, 31, 14), false), (KubeVersion::new(1, 32, 13), true)] {
            folder.write("pods", pods(&[&version.with_v()]).to_string());
            host_in(&folder).bring_addons(&version, KubeProxy::Upgrade).await;
            assert_eq!(folder.calls().contains(&phase), has_phase, "kubeadm {version}");
        }
    }

    #[tokio::test]
    async fn core_dns_that_kubeadm_left_behind_is_brought_by_its_phase_where_it_is_kubeadms() {
        let folder = TestFolder::new("addons-dns");
        folder.write(ADMIN, "");
        let kubectl = "case $* in *coredns*) /bin/cat $here/dns;; *daemonsets*) /bin/cat $here/proxy;; *) /bin/cat $here/pods;; esac";
        let kubeadm = "case $* in *images*) echo registry.k8s.io/coredns/coredns:v1.12.1;; esac";
        folder.be_the_machine(&[("kubectl", kubectl), ("kubeadm", kubeadm)]);
        folder.write("pods", pods(&["v1.34.4"]).to_string());
        folder.write("proxy", proxy("v1.34.4").to_string());
        for (image, kube_proxy, phase) in [
            ("registry.k8s.io/coredns/coredns:v1.12.0", KubeProxy::Upgrade, Some("coredns")),
            ("registry.k8s.io/coredns/coredns:v1.12.0", KubeProxy::LeaveOut, Some("coredns")),
            ("registry.k8s.io/coredns/coredns:v1.12.1", KubeProxy::LeaveOut, None),
            ("docker.io/coredns/coredns:1.11.0", KubeProxy::LeaveOut, None),
        ] {
            folder.write("dns", json!({"spec": {"template": pod(image)}}).to_string());
            host_in(&folder).bring_addons(&KubeVersion::new(1, 34, 4), kube_proxy).await;
            let calls = folder.calls();
            let run = calls.iter().find_map(|call| call.strip_prefix("kubeadm upgrade node phase addon "));
            assert_eq!(run, phase, "{image}");
        }
    }
}
