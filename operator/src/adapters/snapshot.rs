//! Gathers what compilers get to see: one [`ClusterSnapshot`] at one moment.
//!
//! RBAC: list on nodes and nodetasks; get on configmaps kubeadm-config and cupcake-versions in kube-system.

use super::at_work::AtWork;
use super::ops_error;
use super::surroundings::{disabled_kube_proxy, surroundings};
use super::views::{annotation, node_view};
use crate::guarded::Guarded;
use cupcake_crds::NodeTask;
use cupcake_crds::values::{
    ClusterSnapshot, ComponentSetting, Cordon, EtcdTopology, KubeVersion, NodeSnapshot, OwnFacts, Surroundings, Taint,
    UnreadableNode,
};
use cupcake_engine::clock::Timestamp;
use cupcake_engine::names::Reason;
use cupcake_steps::ports::cluster::{CordonOwner, OpsError, Readiness};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ListParams};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Where kubeadm takes images from unless told otherwise (since v1.25, kubernetes/kubernetes#109938).
const DEFAULT_REPOSITORY: &str = "registry.k8s.io";

/// What we read of kubeadm's ClusterConfiguration. Source: kubernetes.io, "kubeadm Configuration (v1beta4)".
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterConfiguration {
    /// The version that the control plane was last set to.
    pub kubernetes_version: String,
    #[serde(default)]
    api_version: Option<String>,
    #[serde(default)]
    image_repository: Option<String>,
    #[serde(default)]
    etcd: Etcd,
    #[serde(default)]
    proxy: Option<Addon>,
    #[serde(default)]
    dns: Option<Addon>,
    #[serde(default)]
    api_server: Option<ControlPlaneComponent>,
    #[serde(default)]
    controller_manager: Option<ControlPlaneComponent>,
    #[serde(default)]
    scheduler: Option<ControlPlaneComponent>,
}

impl ClusterConfiguration {
    /// Whether it says that kubeadm is to leave the addon of that name out (from v1beta4 on).
    pub fn disables(&self, addon: &str) -> bool {
        let said = match addon {
            "kube-proxy" => &self.proxy,
            "coredns" => &self.dns,
            _ => &None,
        };
        said.as_ref().is_some_and(|addon| addon.disabled)
    }

    /// What it says that makes CoreDNS another one than kubeadm brings by itself, if it does: `dns.imageTag v1.11.3`.
    pub fn core_dns(&self) -> Option<String> {
        let said = self.dns.as_ref()?;
        if said.disabled {
            return Some("dns.disabled".to_owned());
        }
        let field = |name: &str, value: &Option<String>| {
            value.as_ref().filter(|value| !value.is_empty()).map(|value| format!("dns.{name} {value}"))
        };
        let fields = [field("imageRepository", &said.image_repository), field("imageTag", &said.image_tag)];
        let fields: Vec<String> = fields.into_iter().flatten().collect();
        Some(fields.join(", ")).filter(|fields| !fields.is_empty())
    }

    /// Where it has images come from; nothing where that is kubeadm's own repository.
    pub fn image_repository(&self) -> Option<String> {
        self.image_repository.clone().filter(|repository| !repository.is_empty() && repository != DEFAULT_REPOSITORY)
    }

    /// The version of kubeadm's configuration API in which it stands: `v1beta4`.
    pub fn api(&self) -> Option<String> {
        self.api_version.as_deref()?.strip_prefix("kubeadm.k8s.io/").map(ToOwned::to_owned)
    }

    /// The flags that it gives the components of the control plane.
    pub fn settings(&self) -> Vec<ComponentSetting> {
        let components = [
            ("kube-apiserver", &self.api_server),
            ("kube-controller-manager", &self.controller_manager),
            ("kube-scheduler", &self.scheduler),
        ];
        let of = |(name, component): (&str, &Option<ControlPlaneComponent>)| -> Vec<ComponentSetting> {
            let flags = component.as_ref().map(|component| flags(&component.extra_args)).unwrap_or_default();
            let setting = |argument| ComponentSetting {
                argument,
                component: name.to_owned(),
                from: "ConfigMap kube-system/kubeadm-config".to_owned(),
            };
            flags.into_iter().map(setting).collect()
        };
        components.into_iter().flat_map(of).collect()
    }
}

/// `extraArgs` of both of kubeadm's forms: a map up to v1beta3, a list of names and values from v1beta4.
fn flags(extra: &serde_json::Value) -> Vec<String> {
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    match extra {
        serde_json::Value::Object(fields) => {
            fields.iter().map(|(name, value)| format!("--{name}={}", text(value))).collect()
        }
        serde_json::Value::Array(pairs) => {
            pairs.iter().map(|pair| format!("--{}={}", text(&pair["name"]), text(&pair["value"]))).collect()
        }
        _ => Vec::new(),
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ControlPlaneComponent {
    #[serde(default)]
    extra_args: serde_json::Value,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Addon {
    #[serde(default)]
    disabled: bool,
    #[serde(default)]
    image_repository: Option<String>,
    #[serde(default)]
    image_tag: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Etcd {
    #[serde(default)]
    external: Option<serde::de::IgnoredAny>,
}

/// kubeadm's ClusterConfiguration, from ConfigMap kube-system/kubeadm-config.
pub async fn cluster_configuration(client: &kube::Client) -> Result<ClusterConfiguration, OpsError> {
    let what = "get ConfigMap kube-system/kubeadm-config";
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    let map = api.get("kubeadm-config").await.map_err(|error| ops_error(what, &error))?;
    let text = map.data.as_ref().and_then(|data| data.get("ClusterConfiguration")).map_or("", String::as_str);
    serde_saphyr::from_str(text).map_err(|error| {
        let message = format!("ConfigMap kube-system/kubeadm-config holds no readable ClusterConfiguration: {error}");
        OpsError::NeedsOperator(Reason::new("KubeadmConfigUnreadable", message))
    })
}

/// The ConfigMap of kube-system in which people name releases that exist (key `versions`, separated by blanks or lines; what stands
/// after a `#` is a comment) and say what they know of minors (key `facts`, YAML or JSON, docs/facts.md). None is no fault.
pub const VERSIONS_CONFIG_MAP: &str = "cupcake-versions";

/// The releases that people named, and the facts that they lay over those that are known.
async fn named_versions(client: &kube::Client) -> Result<(BTreeSet<KubeVersion>, OwnFacts), OpsError> {
    let what = format!("get ConfigMap kube-system/{VERSIONS_CONFIG_MAP}");
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    let map = match api.get_opt(VERSIONS_CONFIG_MAP).await {
        Ok(map) => map,
        // Whoever plans from outside may read less than the operator.
        Err(kube::Error::Api(status)) if status.code == 403 => None,
        Err(error) => return Err(ops_error(&what, &error)),
    };
    let mut data = map.and_then(|map| map.data).unwrap_or_default();
    let facts = facts_of(&data.remove("facts").unwrap_or_default()).map_err(|problem| {
        let message = format!("ConfigMap kube-system/{VERSIONS_CONFIG_MAP}, facts: {problem}");
        OpsError::NeedsOperator(Reason::new("FactsUnreadable", message))
    })?;
    let versions = versions_of(&data.remove("versions").unwrap_or_default()).map_err(|word| {
        let message = format!(
            "ConfigMap kube-system/{VERSIONS_CONFIG_MAP} names {word:?}, which is no version: write it as 1.34.4, or remove it"
        );
        OpsError::NeedsOperator(Reason::new("VersionsUnreadable", message))
    })?;
    Ok((versions, facts))
}

/// The facts of a text, which may be empty; or what is wrong with it.
fn facts_of(text: &str) -> Result<OwnFacts, String> {
    if text.trim().is_empty() {
        return Ok(OwnFacts::new());
    }
    let file: serde_json::Value = serde_saphyr::from_str(text).map_err(|error| format!("no YAML: {error}"))?;
    cupcake_workflows::own_facts(file).map_err(|error| error.to_string())
}

/// The versions of a text, or the first word that is none.
fn versions_of(text: &str) -> Result<BTreeSet<KubeVersion>, String> {
    let words = text.lines().flat_map(|line| line.split('#').next().unwrap_or_default().split_whitespace());
    words.map(|word| word.trim_start_matches('v').parse().map_err(|_| word.chars().take(64).collect())).collect()
}

/// A version as the API writes it.
pub fn parse_version(what: &str, text: &str) -> Result<KubeVersion, OpsError> {
    text.parse().map_err(|error| {
        OpsError::NeedsOperator(Reason::new("VersionUnreadable", format!("{what} says {text:?}: {error}")))
    })
}

/// The oldest version among the API servers: of the one that answers, and of every `kube-apiserver` static pod.
///
/// One of several answers `/version`, and it need not be the oldest; by its answer alone a control plane of which only the
/// first node was upgraded would look finished. kubeadm labels the pods `component=kube-apiserver` and tags their images
/// with the version (kubernetes/kubernetes cmd/kubeadm/app/phases/controlplane/manifests.go, v1.34).
///
/// RBAC: list on pods in kube-system.
pub async fn server_version(client: &kube::Client) -> Result<KubeVersion, OpsError> {
    let info = client.apiserver_version().await.map_err(|error| ops_error("get /version", &error))?;
    let mut oldest = parse_version("the API server", &info.git_version)?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "kube-system");
    let params = ListParams::default().labels("component=kube-apiserver");
    let pods = pods.list(&params).await.map_err(|error| ops_error("list kube-apiserver pods", &error))?;
    for pod in pods {
        let image = pod.spec.and_then(|spec| spec.containers.into_iter().next()).and_then(|first| first.image);
        let tag = image.as_deref().and_then(|image| image.rsplit_once(':')).map_or("", |(_, tag)| tag);
        oldest = oldest.min(parse_version("the image of a kube-apiserver pod", tag)?);
    }
    Ok(oldest)
}

/// What else makes and replaces a machine: Cluster API marks the Nodes of its Machines so.
///
/// Source: cluster-api.sigs.k8s.io, "Labels and annotations" (v1.9).
fn managed_by(meta: &ObjectMeta) -> Option<String> {
    let machine = annotation(meta, "cluster.x-k8s.io/machine")?;
    let namespace = annotation(meta, "cluster.x-k8s.io/cluster-namespace").unwrap_or("default");
    Some(format!("Machine {namespace}/{machine} of Cluster API"))
}

/// As [`gather`], with what lives around the nodes: more than a wave in the middle of an update asks for.
pub async fn gather_all(client: &kube::Client, taken_at: Timestamp) -> Result<ClusterSnapshot, OpsError> {
    Ok(gather_to_start(client, taken_at).await?.0)
}

/// As [`gather_all`], with the machines that are at work at that moment.
pub async fn gather_to_start(
    client: &kube::Client,
    taken_at: Timestamp,
) -> Result<(ClusterSnapshot, Vec<AtWork>), OpsError> {
    let Gathered { snapshot, configuration, at_work } = gather_with(client, taken_at).await?;
    let mut surroundings = surroundings(client, snapshot.server).await?;
    surroundings.settings = configuration.settings();
    if configuration.disables("kube-proxy") {
        disabled_kube_proxy(client, snapshot.server, &mut surroundings).await;
    }
    // Of Nodes that went away in between, or could not be understood.
    surroundings.pods.retain(|pod| snapshot.nodes.contains_key(&pod.node));
    Ok((ClusterSnapshot { surroundings, ..snapshot }, at_work))
}

/// The cluster as it is now. `taken_at` is written into it.
pub async fn gather(client: &kube::Client, taken_at: Timestamp) -> Result<ClusterSnapshot, OpsError> {
    Ok(gather_with(client, taken_at).await?.snapshot)
}

/// The cluster, and what else was seen of it with the same requests.
struct Gathered {
    snapshot: ClusterSnapshot,
    configuration: ClusterConfiguration,
    at_work: Vec<AtWork>,
}

async fn gather_with(client: &kube::Client, taken_at: Timestamp) -> Result<Gathered, OpsError> {
    let server = server_version(client).await?;
    let configuration = cluster_configuration(client).await?;
    let nodes: Api<Guarded<Node>> = Api::all(client.clone());
    let nodes = nodes.list(&ListParams::default()).await.map_err(|error| ops_error("list nodes", &error))?;
    let tasks: Api<Guarded<NodeTask>> = Api::all(client.clone());
    let tasks = tasks.list(&ListParams::default()).await.map_err(|error| ops_error("list nodetasks", &error))?;
    let tasks: Vec<NodeTask> = tasks.items.into_iter().filter_map(|task| task.0.ok()).collect();
    let at_work = tasks.iter().filter_map(AtWork::of).collect();
    let mut inventories: BTreeMap<_, _> = tasks
        .into_iter()
        .filter_map(|task| Some(((task.spec.node_name, task.spec.node_uid), task.status?.inventory?)))
        .collect();
    let (known_versions, facts) = named_versions(client).await?;
    let mut snapshot = ClusterSnapshot {
        taken_at,
        server,
        kubeadm_config: Some(parse_version("kubeadm-config", &configuration.kubernetes_version)?),
        kubeadm_config_api: configuration.api(),
        image_repository: configuration.image_repository(),
        etcd: if configuration.etcd.external.is_some() { EtcdTopology::External } else { EtcdTopology::Stacked },
        nodes: BTreeMap::new(),
        unreadable: Vec::new(),
        known_versions,
        facts,
        surroundings: Surroundings::default(),
    };
    for node in nodes.items {
        let node = match node.0 {
            Ok(node) => node,
            Err(invalid) => {
                let name = invalid.metadata.name.unwrap_or_default();
                snapshot.unreadable.push(UnreadableNode { name, problem: invalid.error });
                continue;
            }
        };
        let view = node_view(&node);
        let Some(kubelet) = view.kubelet else {
            let problem = "status.nodeInfo.kubeletVersion is no version".to_owned();
            snapshot.unreadable.push(UnreadableNode { name: view.node.name, problem });
            continue;
        };
        let inventory = inventories.remove(&(view.node.name.clone(), view.node.uid.clone()));
        snapshot.known_versions.extend(inventory.iter().flat_map(|inventory| {
            let next = inventory.next_minor.iter().flat_map(|next| &next.versions);
            inventory.available_versions.iter().chain(next).filter_map(|text| text.parse::<KubeVersion>().ok())
        }));
        let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
        snapshot.nodes.insert(
            view.node.name.clone(),
            NodeSnapshot {
                role: view.role,
                kubelet,
                ready: view.readiness == Readiness::Ready,
                managed_by: managed_by(&node.metadata),
                cordon: match view.cordon {
                    CordonOwner::Nobody => Cordon::Schedulable,
                    CordonOwner::Run { uid, .. } => Cordon::ByRun { run_uid: uid },
                    CordonOwner::Other => Cordon::ByOther,
                },
                labels: view.labels,
                taints: taints
                    .into_iter()
                    .map(|taint| Taint { key: taint.key, value: taint.value.unwrap_or_default(), effect: taint.effect })
                    .collect(),
                inventory,
                node: view.node,
            },
        );
    }
    Ok(Gathered { snapshot, configuration, at_work })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_flags_of_the_control_plane_are_read_in_both_of_kubeadms_forms() {
        let settings = |text: &str| -> Vec<String> {
            let configuration: ClusterConfiguration = serde_saphyr::from_str(text).unwrap();
            configuration.settings().iter().map(|one| format!("{} {}", one.component, one.argument)).collect()
        };
        let map = "kubernetesVersion: v1.30.1\napiServer:\n  extraArgs:\n    feature-gates: A=true,B=false\n    v: 4\nscheduler: {}\n";
        assert_eq!(settings(map), ["kube-apiserver --feature-gates=A=true,B=false", "kube-apiserver --v=4"]);
        let list = "kubernetesVersion: v1.33.1\ncontrollerManager:\n  extraArgs:\n  - {name: feature-gates, value: A=true}\nscheduler:\n";
        assert_eq!(settings(list), ["kube-controller-manager --feature-gates=A=true"]);
        assert_eq!(settings("kubernetesVersion: v1.33.1\n"), [""; 0]);
    }

    #[test]
    fn the_version_of_kubeadms_api_is_read_where_it_is_kubeadms() {
        let api = |line: &str| {
            let text = format!("{line}\nkubernetesVersion: v1.33.1\n");
            serde_saphyr::from_str::<ClusterConfiguration>(&text).unwrap().api()
        };
        assert_eq!(api("apiVersion: kubeadm.k8s.io/v1beta3").as_deref(), Some("v1beta3"));
        assert_eq!((api("apiVersion: v1"), api("")), (None, None));
    }

    #[test]
    fn what_makes_core_dns_another_one_than_kubeadms_is_told_by_its_field() {
        let told = |line: &str| {
            let text = format!("kubernetesVersion: v1.33.1\n{line}\n");
            serde_saphyr::from_str::<ClusterConfiguration>(&text).unwrap().core_dns()
        };
        assert_eq!((told(""), told("dns: {}"), told("dns: {imageTag: \"\"}")), (None, None, None));
        assert_eq!(told("dns: {imageTag: v1.11.3}").as_deref(), Some("dns.imageTag v1.11.3"));
        let both = told("dns: {imageRepository: mirror/dns, imageTag: v1.11.3}");
        assert_eq!(both.as_deref(), Some("dns.imageRepository mirror/dns, dns.imageTag v1.11.3"));
        assert_eq!(told("dns: {disabled: true}").as_deref(), Some("dns.disabled"));
    }

    #[test]
    fn a_repository_of_images_is_told_where_it_is_not_kubeadms_own() {
        let told = |line: &str| {
            let text = format!("kubernetesVersion: v1.33.1\n{line}\n");
            serde_saphyr::from_str::<ClusterConfiguration>(&text).unwrap().image_repository()
        };
        assert_eq!(told("imageRepository: mirror:5000/k8s").as_deref(), Some("mirror:5000/k8s"));
        assert_eq!(
            (told("imageRepository: registry.k8s.io"), told("imageRepository: \"\""), told("")),
            (None, None, None)
        );
    }

    #[test]
    fn releases_are_named_by_word_and_one_that_is_none_is_told() {
        let named = versions_of("1.33.13 v1.34.4\n# what our mirror has\n 1.35.2 # since Monday\n").unwrap();
        let named: Vec<String> = named.iter().map(ToString::to_string).collect();
        assert_eq!(named, ["1.33.13", "1.34.4", "1.35.2"]);
        assert_eq!(versions_of(""), Ok(BTreeSet::new()));
        assert_eq!(versions_of("1.33.13, 1.34.4"), Err("1.33.13,".to_owned()));
    }

    #[test]
    fn facts_in_the_config_map_may_be_yaml_and_what_is_wrong_with_them_is_told() {
        assert_eq!(facts_of(" \n"), Ok(OwnFacts::new()));
        let facts = facts_of("minors:\n  '1.35': # ours\n    newestPatch: 9\n").unwrap();
        assert_eq!(facts["1.35"]["newestPatch"], 9);
        assert!(facts_of("minors: {'1.35': {newest: 9}}").unwrap_err().contains("minors.1.35.newest: unknown field"));
        assert!(facts_of("minors: [").unwrap_err().starts_with("no YAML"));
    }
}
