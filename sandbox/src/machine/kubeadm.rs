//! kubeadm as far as upgrades go: its refusals, its order of work, and what it leaves when it is cut short.
//!
//! Source: `k8s.io/kubernetes/cmd/kubeadm/app/{cmd/upgrade,phases/upgrade}` (policy.go, staticpods.go) and a real upgrade
//! from 1.33 to 1.34.

use super::ledger::{EffectKind, Ending};
use super::releases::{Images, STATIC_PODS};
use super::state::SimMachine;
use super::timing::Act;
use chrono::TimeDelta;
use cupcake_crds::values::{KubeVersion, NodeRole};
use cupcake_engine::names::Reason;
use cupcake_steps::ports::host::{self, HostError, KubeProxy, KubeadmUpgrade, Package};
use serde_json::{Value, json};
use std::sync::Arc;

/// Where kubeadm keeps the cluster's configuration.
pub const KUBEADM_CONFIG: &str = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config";
/// kube-proxy's DaemonSet.
pub const KUBE_PROXY: &str = "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy";
/// Where DaemonSets of kube-system are created.
pub const DAEMON_SETS: &str = "/apis/apps/v1/namespaces/kube-system/daemonsets";
/// CoreDNS's Deployment.
pub const COREDNS: &str = "/apis/apps/v1/namespaces/kube-system/deployments/coredns";

/// Where kubeadm keeps kube-proxy's own configuration.
const KUBE_PROXY_CONFIG: &str = "/api/v1/namespaces/kube-system/configmaps/kube-proxy";

/// The first version whose kubeadm goes by what its configuration disables, and from 1.32.0 on no more by an addon's ConfigMap
/// (kubernetes/kubeadm#3137).
const DISABLED_FROM: KubeVersion = KubeVersion::new(1, 32, 1);

/// How long the API server is waited for before kubeadm begins, and how often it is asked, as the runner on real machines does.
const API_SERVER_LIMIT: TimeDelta = TimeDelta::minutes(5);
const API_SERVER_AGAIN: TimeDelta = TimeDelta::seconds(3);

/// How changes of the kubelet's configuration begin; all others are of manifests.
const OF_KUBELET: &str = "kubelet";

/// How the line of `ClusterConfiguration` begins that says the version.
const VERSION_KEY: &str = "kubernetesVersion: ";

/// How the line of `ClusterConfiguration` begins that says the version of kubeadm's API.
const API_KEY: &str = "apiVersion: ";

/// The version of its API in which kubeadm of that version writes (kubernetes.io, "kubeadm Configuration"; v1beta4 from 1.31 on).
fn api(version: KubeVersion) -> &'static str {
    if version.minor() < 31 { "kubeadm.k8s.io/v1beta3" } else { "kubeadm.k8s.io/v1beta4" }
}

/// The kubeadm minor from which it accepts kubelets three minors older than the control plane; one before that.
const THREE_MINORS_FROM: u32 = 29;

/// `ClusterConfiguration` as kubeadm writes it into its ConfigMap.
pub fn cluster_configuration(version: KubeVersion) -> String {
    format!(
        "apiServer: {{}}\n{API_KEY}{}\ncertificatesDir: /etc/kubernetes/pki\nclusterName: sandbox\n\
         controlPlaneEndpoint: sandbox:6443\ncontrollerManager: {{}}\ndns: {{}}\netcd:\n  local:\n    dataDir: /var/lib/etcd\n\
         imageRepository: registry.k8s.io\nkind: ClusterConfiguration\nkubernetesVersion: {}\nnetworking:\n  \
         dnsDomain: cluster.local\n  serviceSubnet: 10.96.0.0/12\nscheduler: {{}}\n",
        api(version),
        version.with_v()
    )
}

/// The same configuration at another version, as kubeadm uploads it: what people wrote into it stays.
fn at_version(configuration: &str, version: KubeVersion) -> String {
    let line = |line: &str| {
        if line.starts_with(VERSION_KEY) {
            format!("{VERSION_KEY}{}\n", version.with_v())
        } else if line.starts_with(API_KEY) {
            format!("{API_KEY}{}\n", api(version))
        } else {
            format!("{line}\n")
        }
    };
    configuration.lines().map(line).collect()
}

/// kube-proxy's DaemonSet as kubeadm deploys it.
pub fn kube_proxy(images: &Images) -> Value {
    let labels = json!({"k8s-app": "kube-proxy"});
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "kube-proxy", "namespace": "kube-system", "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "hostNetwork": true, "priorityClassName": "system-node-critical",
                    "containers": [{"name": "kube-proxy", "image": images.kube_proxy()}],
                    "tolerations": [{"operator": "Exists"}],
                },
            },
        },
    })
}

/// What its configuration in the cluster says of kube-proxy.
fn disables_kube_proxy(config_map: &Value) -> bool {
    let text = config_map["data"]["ClusterConfiguration"].as_str().unwrap_or_default();
    text.contains("\nproxy:\n  disabled: true\n")
}

/// The `kubernetesVersion` in kubeadm's ConfigMap.
pub fn configured_version(config_map: &Value) -> Option<KubeVersion> {
    let text = config_map["data"]["ClusterConfiguration"].as_str()?;
    let version = text.lines().find_map(|line| line.strip_prefix(VERSION_KEY))?;
    version.trim().parse().ok()
}

fn transient(code: &str, message: impl Into<String>) -> HostError {
    HostError::Transient(Reason::new(code, message))
}

fn permanent(code: &str, message: impl Into<String>) -> HostError {
    HostError::Permanent(Reason::new(code, message))
}

impl SimMachine {
    /// Waits for an API server that is away.
    pub(super) async fn await_api_server(&self) -> Result<(), HostError> {
        let since = self.site.now();
        while !self.site.control_plane.is_available() {
            if self.site.now() - since >= API_SERVER_LIMIT {
                return Err(transient("ApiServerAway", "the API server was not ready within 300 s"));
            }
            self.pass(API_SERVER_AGAIN).await;
        }
        Ok(())
    }

    /// What kubeadm takes the machine for: it goes by the manifest of the API server alone.
    fn role_by_manifest(&self) -> NodeRole {
        if self.state().manifests.contains_key("kube-apiserver") { NodeRole::ControlPlane } else { NodeRole::Worker }
    }

    /// `kubeadm upgrade apply VERSION --yes`, or `kubeadm upgrade node`; with the phase for kube-proxy or without.
    pub(super) async fn kubeadm(
        self: &Arc<Self>,
        how: KubeadmUpgrade,
        version: KubeVersion,
        kube_proxy: KubeProxy,
    ) -> Result<(), HostError> {
        let word = match how {
            KubeadmUpgrade::Apply => "apply",
            KubeadmUpgrade::Node => "node",
        };
        let effect = self.site.ledger.begin(self.effect(EffectKind::Kubeadm, format!("{word} {version}")));
        let result = match (how, self.role_by_manifest()) {
            (KubeadmUpgrade::Apply | KubeadmUpgrade::Node, NodeRole::ControlPlane) => {
                self.upgrade_control_plane(how, version, kube_proxy).await
            }
            (KubeadmUpgrade::Apply, NodeRole::Worker) => Err(permanent(
                "NotAControlPlane",
                "kubeadm upgrade apply: /etc/kubernetes/admin.conf: no such file or directory",
            )),
            (KubeadmUpgrade::Node, NodeRole::Worker) => self.upgrade_worker(version).await,
        };
        effect.end(if result.is_ok() { Ending::Well } else { Ending::Failed });
        result
    }

    /// kubeadm's test Job, which nothing was changed before.
    async fn health_check_job(&self) -> Result<(), HostError> {
        let fails = {
            let mut state = self.state();
            let fails = state.job_fails > 0;
            state.job_fails = state.job_fails.saturating_sub(1);
            fails
        };
        if !fails {
            return Ok(());
        }
        self.pass(TimeDelta::seconds(15)).await;
        Err(transient(
            "HealthCheckJobFailed",
            "kubeadm: [preflight] Some fatal errors occurred: [ERROR CreateJob]: Job \"upgrade-health-check\" in the namespace \"kube-system\" did not complete in 15s: no condition of type Complete",
        ))
    }

    async fn upgrade_worker(&self, version: KubeVersion) -> Result<(), HostError> {
        let whole = self.draw(Act::KubeadmWorker);
        self.pass(whole / 2).await;
        self.own_kubeadm_fits(version)?;
        self.follows(version)?;
        self.pass(whole - whole / 2).await;
        self.write_kubelet_config(version);
        Ok(())
    }

    async fn upgrade_control_plane(
        self: &Arc<Self>,
        how: KubeadmUpgrade,
        version: KubeVersion,
        kube_proxy: KubeProxy,
    ) -> Result<(), HostError> {
        self.own_kubeadm_fits(version)?;
        if kube_proxy == KubeProxy::LeaveOut && version.minor() < KubeProxy::LEFT_OUT_FROM {
            return Err(permanent("KubeadmFailed", "error: unknown flag: --skip-phases"));
        }
        match how {
            KubeadmUpgrade::Apply => self.may_apply(version)?,
            KubeadmUpgrade::Node => self.follows(version)?,
        }
        self.pull(&host::Images::ControlPlane { version }).await?;
        self.take(Act::KubeadmPreflight).await;
        self.health_check_job().await?;
        let slower_by = self.state().kubeadm_slower_by;
        if slower_by > TimeDelta::zero() {
            self.pass(slower_by).await;
        }
        self.make_copies();
        self.state().hand_made.retain(|change| change.starts_with(OF_KUBELET));
        for pod in STATIC_PODS {
            self.turn(pod, version).await?;
        }
        if how == KubeadmUpgrade::Apply {
            self.take(Act::KubeadmUpload).await;
            let config = self.config()?;
            let configuration = config["data"]["ClusterConfiguration"].as_str().unwrap_or_default();
            let data = json!({"data": {"ClusterConfiguration": at_version(configuration, version)}});
            self.asks(|kube| kube.merge(KUBEADM_CONFIG, &data))?;
        }
        self.write_kubelet_config(version);
        // The last one upgrades the addons; on the others kubeadm prints "Skipping upgrade of addons because control plane
        // instances [..] have not been upgraded".
        if self.site.control_plane.oldest() >= Some(version) {
            self.take(Act::KubeadmAddons).await;
            self.upgrade_addons(version, kube_proxy)?;
        }
        Ok(())
    }

    /// The kubelet's configuration anew, without what somebody changed in it.
    fn write_kubelet_config(&self, version: KubeVersion) {
        let mut state = self.state();
        state.kubelet_config = version;
        state.hand_made.retain(|change| !change.starts_with(OF_KUBELET));
    }

    /// What kubeadm copies before it changes a static pod, and never removes.
    fn make_copies(&self) {
        let at = self.site.now().format("%Y-%m-%d-%H-%M-%S");
        let names = ["etcd", "manifests"].map(|what| format!("kubeadm-backup-{what}-{at}"));
        self.state().copies.extend(names);
    }

    /// One component's turn: copy, new manifest, restart, health. Equal manifests are passed over.
    async fn turn(self: &Arc<Self>, pod: &'static str, version: KubeVersion) -> Result<(), HostError> {
        let wanted = Images::of(version).tag(pod);
        let act = match pod {
            "etcd" => Act::TurnEtcd,
            "kube-apiserver" => Act::TurnApiServer,
            _ => Act::TurnOther,
        };
        let whole = self.draw(act);
        let same = self.state().manifests.get(pod) == Some(&wanted);
        if !same && pod == "etcd" && self.etcd_stays() {
            // It is the first of the static pods: there is nothing else to go back to.
            self.pass(TimeDelta::minutes(5)).await;
            return Err(transient("StaticPodUnchanged", self.unchanged(pod)));
        }
        if !same {
            self.pass(whole / 5).await;
            let away_for = self.state().manifests_away_for;
            if away_for > TimeDelta::zero() {
                self.take_manifest_away(pod);
                self.pass(away_for).await;
            }
            self.write_manifest(pod, version);
        }
        self.pass(if same { TimeDelta::seconds(1) } else { whole - whole / 5 }).await;
        // A manifest that an interrupted call wrote may still be on its way into the running container.
        if self.state().running.get(pod) != Some(&wanted) {
            self.pass(whole).await;
        }
        if self.state().running.get(pod) == Some(&wanted) {
            return Ok(());
        }
        Err(transient("StaticPodUnchanged", self.unchanged(pod)))
    }

    fn unchanged(&self, pod: &str) -> String {
        format!("kubeadm: static pod hash for component {pod} on node {} did not change after 5m0s", self.name)
    }

    /// Whether the kubelet leaves the old etcd this time.
    fn etcd_stays(&self) -> bool {
        let mut state = self.state();
        let stays = state.etcd_stays > 0;
        state.etcd_stays = state.etcd_stays.saturating_sub(1);
        stays
    }

    /// kubeadm's own minor must be the target's, and it must not be older than the target.
    fn own_kubeadm_fits(&self, version: KubeVersion) -> Result<(), HostError> {
        let (own, whole) = {
            let state = self.state();
            let whole = state.packages.get(&Package::Kubeadm).is_some_and(|package| package.whole);
            (state.installed(Package::Kubeadm), whole)
        };
        let Some(own) = own.filter(|_| whole) else {
            return Err(permanent("KubeadmMissing", "kubeadm: its package is not installed to the end"));
        };
        if own.minor_version() != version.minor_version() || own < version {
            return Err(permanent(
                "KubeadmSkew",
                format!(
                    "kubeadm: this version of kubeadm ({}) cannot upgrade to {}: install kubeadm {version} first",
                    own.with_v(),
                    version.with_v()
                ),
            ));
        }
        Ok(())
    }

    /// What `apply` checks of the cluster.
    fn may_apply(&self, version: KubeVersion) -> Result<(), HostError> {
        let config = self.config()?;
        let present = configured_version(&config).ok_or_else(|| {
            permanent("KubeadmConfigUnreadable", "kubeadm: ClusterConfiguration has no kubernetesVersion")
        })?;
        match present.minors_to(version) {
            Some(0 | 1) => {}
            Some(_) | None => {
                return Err(permanent(
                    "KubeadmSkew",
                    format!(
                        "kubeadm: specified version to upgrade to {} is not one minor above or at {}",
                        version.with_v(),
                        present.with_v()
                    ),
                ));
            }
        }
        let nodes = self
            .asks(|kube| kube.get("/api/v1/nodes"))?
            .ok_or_else(|| transient("ApiAway", "kubeadm: the API server gave no list of nodes"))?;
        let minors_max = if version.minor() < THREE_MINORS_FROM { 1 } else { 3 };
        for node in nodes["items"].as_array().into_iter().flatten() {
            let name = node["metadata"]["name"].as_str().unwrap_or_default();
            let kubelet: Option<KubeVersion> =
                node["status"]["nodeInfo"]["kubeletVersion"].as_str().and_then(|text| text.parse().ok());
            if kubelet.and_then(|kubelet| kubelet.minors_to(version)).is_some_and(|minors| minors > minors_max) {
                return Err(permanent(
                    "KubeletSkew",
                    format!(
                        "kubeadm: the kubelet of node {name} is more than {minors_max} minors older than {version}"
                    ),
                ));
            }
            let control_plane = node["metadata"]["labels"].get("node-role.kubernetes.io/control-plane").is_some();
            if control_plane && !is_ready(node) {
                return Err(transient(
                    "ControlPlaneNotReady",
                    format!("kubeadm: preflight check ControlPlaneNodesReady failed: node {name} is not Ready"),
                ));
            }
        }
        Ok(())
    }

    /// What `node` checks: the cluster's configuration already says the version.
    fn follows(&self, version: KubeVersion) -> Result<(), HostError> {
        let cold = self.site.control_plane.cold(self.site.now());
        let members = self.site.control_plane.len().max(1);
        // The load balancer leads to any of them.
        let asked = super::timing::derive(self.site.seed, &["asked", &self.name, &self.site.now().to_rfc3339()]);
        let asked = usize::try_from(asked % members as u64).unwrap_or_default();
        if self.role == NodeRole::Worker && asked < cold.len() {
            return Err(transient(
                "KubeadmForbidden",
                format!(
                    "kubeadm: configmaps \"kubeadm-config\" is forbidden: User \"system:node:{}\" cannot get it",
                    self.name
                ),
            ));
        }
        let config = self.config()?;
        if configured_version(&config) == Some(version) {
            return Ok(());
        }
        Err(permanent(
            "KubeadmConfigOlder",
            format!(
                "kubeadm: ClusterConfiguration does not say {}: kubeadm upgrade apply has to come first",
                version.with_v()
            ),
        ))
    }

    fn config(&self) -> Result<Value, HostError> {
        self.asks(|kube| kube.get(KUBEADM_CONFIG))?
            .ok_or_else(|| permanent("KubeadmConfigMissing", "kubeadm: configmaps \"kubeadm-config\" not found"))
    }

    /// One request of kubeadm's.
    fn asks<T>(
        &self,
        request: impl FnOnce(&super::kube::Kube) -> Result<T, super::kube::Refused>,
    ) -> Result<T, HostError> {
        if !self.site.control_plane.is_available() {
            return Err(transient("ApiAway", "kubeadm: the API server refuses connections"));
        }
        request(&self.site.kube(&format!("kubeadm/{}", self.name)))
            .map_err(|refused| transient("ApiRefused", format!("kubeadm: {refused}")))
    }

    /// Source of what is left out and what is deployed again: kubernetes/kubernetes#89593 (up to 1.31), kubernetes/kubeadm#3137.
    fn upgrade_addons(&self, version: KubeVersion, kube_proxy: KubeProxy) -> Result<(), HostError> {
        let images = Images::of(version);
        let by_config_map = version.minor() < DISABLED_FROM.minor();
        let disabled = disables_kube_proxy(&self.config()?) && self.leaves_disabled(version)?;
        for (path, image) in [(COREDNS, images.coredns()), (KUBE_PROXY, images.kube_proxy())] {
            let of_proxy = path == KUBE_PROXY;
            if of_proxy && (disabled || kube_proxy == KubeProxy::LeaveOut) {
                continue;
            }
            let Some(addon) = self.asks(|kube| kube.get(path))? else {
                if of_proxy && (!by_config_map || self.asks(|kube| kube.get(KUBE_PROXY_CONFIG))?.is_some()) {
                    self.asks(|kube| kube.create(DAEMON_SETS, &self::kube_proxy(&images)))?;
                }
                continue;
            };
            let mut containers = addon["spec"]["template"]["spec"]["containers"].clone();
            if containers[0]["image"] == *image.as_str() {
                continue;
            }
            containers[0]["image"] = Value::from(image);
            let patch = json!({"spec": {"template": {"spec": {"containers": containers}}}});
            self.asks(|kube| kube.merge(path, &patch))?;
        }
        Ok(())
    }

    /// Whether it leaves a disabled kube-proxy as it is: by the configuration or, as long as it goes by that, because there is no ConfigMap.
    /// (Simulated clusters are born without that of any addon: that it is missing counts where somebody disabled it only.)
    fn leaves_disabled(&self, version: KubeVersion) -> Result<bool, HostError> {
        if version.minor() < DISABLED_FROM.minor() {
            return Ok(self.asks(|kube| kube.get(KUBE_PROXY_CONFIG))?.is_none());
        }
        Ok(version >= DISABLED_FROM)
    }
}

/// Whether a Node's Ready condition is True.
pub(crate) fn is_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}
