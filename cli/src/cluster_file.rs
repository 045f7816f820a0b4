//! The file of `plan --snapshot`: a cluster as planning sees it, short enough to write by hand (docs/cluster-file.md).

use crate::args::{Connection, Format, SnapshotArgs};
use crate::exit::{Exit, Failure};
use crate::{connect, out, plan};
use cupcake_crds::node_task::{NodeInventory, PACKAGE_MANAGERS};
use cupcake_crds::values::{
    AbsentAddon, AdmissionHook, AdmissionPolicy, ClusterSnapshot, ComponentSetting, Cordon, DeprecatedRequest,
    DisruptionBudget, EtcdMember, EtcdTopology, KubeVersion, NodeRef, NodeRole, NodeSnapshot, OwnFacts, PodSnapshot,
    Surroundings, Taint, UnreadableNode,
};
use cupcake_workflows::own_facts;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The largest file that is read, in bytes: that of some 50,000 nodes.
const FILE_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// A cluster; what is left out is as in a healthy one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ClusterFile {
    /// The oldest version of an API server.
    server: KubeVersion,
    /// What kubeadm last moved the cluster to; `server` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kubeadm_config: Option<KubeVersion>,
    /// The version of kubeadm's configuration API in which its configuration stands; nothing is said of it if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kubeadm_config_api: Option<String>,
    /// Where kubeadm takes images from, if it is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image_repository: Option<String>,
    /// `stacked` or `external`.
    #[serde(default = "stacked")]
    etcd: EtcdTopology,
    /// Releases that the nodes' repositories are known to offer.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    known_versions: BTreeSet<KubeVersion>,
    /// Facts about minors, as docs/facts.md has them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    facts: OwnFacts,
    nodes: Vec<NodeEntry>,
    /// Members of etcd; none: nobody looked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    etcd_members: Vec<EtcdMember>,
    /// Disruption budgets that some of `pods` come under.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    disruption_budgets: Vec<DisruptionBudget>,
    /// Pods that a drain cannot evict as a matter of course.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pods: Vec<PodSnapshot>,
    /// Admission webhooks that refuse when they fail.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    admission_hooks: Vec<AdmissionHook>,
    /// Admission policies that deny.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    admission_policies: Vec<AdmissionPolicy>,
    /// API versions on their way out that somebody asks for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    deprecated_requests: Vec<DeprecatedRequest>,
    /// Other programs that change nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    other_updaters: Vec<String>,
    /// Whether something else does kube-proxy's work.
    #[serde(default, skip_serializing_if = "is_false")]
    without_kube_proxy: bool,
    /// Whether kubeadm's configuration disables kube-proxy.
    #[serde(default, skip_serializing_if = "is_false")]
    kube_proxy_disabled: bool,
    /// Whether there is a kube-proxy without its ConfigMap, by which kubeadm up to 1.31 goes.
    #[serde(default, skip_serializing_if = "is_false")]
    kube_proxy_without_config_map: bool,
    /// Addons of kubeadm that are not there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    absent_addons: Vec<AbsentAddon>,
    /// Flags that kubeadm's configuration gives the control plane.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    settings: Vec<ComponentSetting>,
    /// What could not be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unread: Vec<String>,
    /// Nodes that could not be understood, which no plan goes around.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unreadable: Vec<UnreadableNode>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NodeEntry {
    name: String,
    role: NodeRole,
    kubelet: KubeVersion,
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    ready: bool,
    /// Whether somebody cordoned it.
    #[serde(default, skip_serializing_if = "is_false")]
    cordoned: bool,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    taints: Vec<Taint>,
    /// What else makes and replaces its machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    managed_by: Option<String>,
    /// What its agent found on the machine; of a node without an agent, absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inventory: Option<NodeInventory>,
}

fn stacked() -> EtcdTopology {
    EtcdTopology::Stacked
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_true(value: &bool) -> bool {
    *value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// Reads the cluster of a file.
pub(crate) fn read(file: &Path) -> Result<ClusterSnapshot, Failure> {
    let tried = format!("read {}", file.display());
    let next = "mend the file (docs/cluster-file.md has every field; kubectl cupcake snapshot writes one of a cluster)";
    let text = plan::read(file, FILE_BYTES_MAX)?;
    let cluster: ClusterFile =
        serde_saphyr::from_str(&text).map_err(|error| Failure::from_error(&tried, &error, next))?;
    let written: serde_json::Value = serde_saphyr::from_str(&text).unwrap_or_default();
    if let Some(problem) = odd_inventory(&written, &cluster) {
        return Err(Failure::new(format!("{tried}: {problem}"), next));
    }
    snapshot_of(cluster).map_err(|problem| Failure::new(format!("{tried}: {problem}"), next))
}

/// Writes the cluster of the kubeconfig down.
pub(crate) fn write(connection: &Connection, args: &SnapshotArgs) -> Result<Exit, Failure> {
    let cluster = file_of(plan::live(connection)?);
    match args.output {
        Some(Format::Json) => out::document(Format::Json, &cluster),
        // Field by field as its type has them, which reads better than the order of the alphabet.
        Some(Format::Yaml) | None => {
            let text = serde_saphyr::to_string(&cluster).map_err(|error| {
                Failure::from_error("write the cluster down", &error, "kubectl cupcake snapshot -o json")
            })?;
            out::line(text.trim_end());
        }
    }
    Ok(Exit::Done)
}

/// What of the inventories was not understood: their type takes fields of newer agents, a file should not.
fn odd_inventory(written: &serde_json::Value, cluster: &ClusterFile) -> Option<String> {
    cluster.nodes.iter().enumerate().find_map(|(index, node)| {
        let (inventory, path) = (node.inventory.as_ref()?, format!("nodes[{index}].inventory"));
        let known = serde_json::to_value(inventory).unwrap_or_default();
        let unknown = plan::unknown_field(&written["nodes"][index]["inventory"], &known, &path);
        let cgroups = inventory.cgroup_version.filter(|version| !(1..=2).contains(version));
        let manager = inventory.package_manager.as_ref().filter(|_| inventory.known_package_manager().is_none());
        unknown
            .map(|field| format!("unknown field {field}"))
            .or(manager.filter(|_| inventory.os.is_none()).map(|manager| {
                format!("{path}.packageManager is {manager:?}, and there are {}", PACKAGE_MANAGERS.join(", "))
            }))
            .or(cgroups.map(|version| format!("{path}.cgroupVersion is {version}, and there are 1 and 2")))
    })
}

/// The cluster, or what in the file does not fit together.
fn snapshot_of(cluster: ClusterFile) -> Result<ClusterSnapshot, String> {
    let mut nodes = BTreeMap::new();
    for entry in cluster.nodes {
        let node = NodeSnapshot {
            node: NodeRef { uid: format!("uid-of-{}", entry.name), name: entry.name.clone() },
            role: entry.role,
            kubelet: entry.kubelet,
            ready: entry.ready,
            cordon: if entry.cordoned { Cordon::ByOther } else { Cordon::Schedulable },
            labels: entry.labels,
            taints: entry.taints,
            managed_by: entry.managed_by,
            inventory: entry.inventory,
        };
        if nodes.insert(entry.name.clone(), node).is_some() {
            return Err(format!("node {} stands there twice", entry.name));
        }
    }
    for pod in &cluster.pods {
        if !nodes.contains_key(&pod.node) {
            return Err(format!("pod {} runs on node {}, which is not in the file", pod.name, pod.node));
        }
        let known = |name: &&String| cluster.disruption_budgets.iter().any(|budget| budget.name == **name);
        if let Some(unknown) = pod.budgets.iter().find(|name| !known(name)) {
            return Err(format!("pod {} comes under budget {unknown}, which is not in the file", pod.name));
        }
    }
    for request in &cluster.deprecated_requests {
        let minor = request.removed_in.split_once('.').filter(|(major, minor)| {
            [major, minor].iter().all(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        });
        if minor.is_none() {
            return Err(format!(
                "removedIn of {} is {:?}: write a minor, such as 1.36",
                request.api, request.removed_in
            ));
        }
    }
    // As the operator does: what the machines' repositories offer is known.
    let offered = nodes.values().filter_map(|node| node.inventory.as_ref()).flat_map(|found| {
        let next = found.next_minor.iter().flat_map(|next| &next.versions);
        found.available_versions.iter().chain(next)
    });
    let facts = own_facts(serde_json::json!({"minors": cluster.facts})).map_err(|error| format!("facts: {error}"))?;
    let known_versions =
        cluster.known_versions.into_iter().chain(offered.filter_map(|text| text.parse().ok())).collect();
    Ok(ClusterSnapshot {
        taken_at: connect::now(),
        server: cluster.server,
        kubeadm_config: Some(cluster.kubeadm_config.unwrap_or(cluster.server)),
        kubeadm_config_api: cluster.kubeadm_config_api,
        image_repository: cluster.image_repository,
        etcd: cluster.etcd,
        nodes,
        unreadable: cluster.unreadable,
        known_versions,
        facts,
        surroundings: Surroundings {
            etcd_members: cluster.etcd_members,
            disruption_budgets: cluster.disruption_budgets,
            pods: cluster.pods,
            admission_hooks: cluster.admission_hooks,
            admission_policies: cluster.admission_policies,
            deprecated_requests: cluster.deprecated_requests,
            other_updaters: cluster.other_updaters,
            without_kube_proxy: cluster.without_kube_proxy,
            kube_proxy_disabled: cluster.kube_proxy_disabled,
            kube_proxy_without_config_map: cluster.kube_proxy_without_config_map,
            absent_addons: cluster.absent_addons,
            settings: cluster.settings,
            unread: cluster.unread,
        },
    })
}

fn file_of(snapshot: ClusterSnapshot) -> ClusterFile {
    let entry = |node: NodeSnapshot| NodeEntry {
        name: node.node.name,
        role: node.role,
        kubelet: node.kubelet,
        ready: node.ready,
        cordoned: match node.cordon {
            Cordon::ByOther => true,
            Cordon::Schedulable | Cordon::ByRun { .. } => false,
        },
        labels: node.labels,
        taints: node.taints,
        managed_by: node.managed_by,
        inventory: node.inventory,
    };
    let surroundings = snapshot.surroundings;
    ClusterFile {
        server: snapshot.server,
        kubeadm_config: snapshot.kubeadm_config,
        kubeadm_config_api: snapshot.kubeadm_config_api,
        image_repository: snapshot.image_repository,
        etcd: snapshot.etcd,
        known_versions: snapshot.known_versions,
        facts: snapshot.facts,
        nodes: snapshot.nodes.into_values().map(entry).collect(),
        unreadable: snapshot.unreadable,
        etcd_members: surroundings.etcd_members,
        disruption_budgets: surroundings.disruption_budgets,
        pods: surroundings.pods,
        admission_hooks: surroundings.admission_hooks,
        admission_policies: surroundings.admission_policies,
        deprecated_requests: surroundings.deprecated_requests,
        other_updaters: surroundings.other_updaters,
        without_kube_proxy: surroundings.without_kube_proxy,
        kube_proxy_disabled: surroundings.kube_proxy_disabled,
        kube_proxy_without_config_map: surroundings.kube_proxy_without_config_map,
        absent_addons: surroundings.absent_addons,
        settings: surroundings.settings,
        unread: surroundings.unread,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BY_HAND: &str = "
server: 1.31.14
nodes:
- {name: cp-1, role: control-plane, kubelet: 1.31.14}
- name: w-1
  role: worker
  kubelet: v1.30.2
  labels: {pool: blue}
  cordoned: true
";

    #[test]
    fn a_cluster_written_by_hand_is_a_healthy_one_unless_it_says_otherwise() {
        let snapshot = snapshot_of(serde_saphyr::from_str(BY_HAND).unwrap()).unwrap();
        assert_eq!((snapshot.kubeadm_config, snapshot.etcd), (Some(snapshot.server), EtcdTopology::Stacked));
        let worker = &snapshot.nodes["w-1"];
        assert_eq!((worker.ready, &worker.cordon, worker.labels["pool"].as_str()), (true, &Cordon::ByOther, "blue"));
        let again: ClusterFile =
            serde_saphyr::from_str(&serde_saphyr::to_string(&file_of(snapshot.clone())).unwrap()).unwrap();
        assert_eq!(snapshot_of(again).unwrap().nodes, snapshot.nodes, "what is written down is read back");
    }

    #[test]
    fn what_a_machines_repository_offers_is_known_and_what_no_minor_is_is_told() {
        let offers = BY_HAND.replace("cordoned: true", "inventory: {availableVersions: [1.32.5]}");
        let snapshot = snapshot_of(serde_saphyr::from_str(&offers).unwrap()).unwrap();
        assert_eq!(snapshot.known_versions, BTreeSet::from([KubeVersion::new(1, 32, 5)]));
        for odd in ["1.32.0", "1", "soon"] {
            let text = format!("{BY_HAND}deprecatedRequests: [{{api: a/v1 as, removedIn: \"{odd}\"}}]\n");
            let error = snapshot_of(serde_saphyr::from_str(&text).unwrap()).unwrap_err();
            assert!(error.contains("removedIn"), "{error}");
        }
    }

    #[test]
    fn a_typo_and_a_node_that_stands_twice_are_told() {
        let error = |text: &str| serde_saphyr::from_str::<ClusterFile>(text).unwrap_err().to_string();
        assert!(error(&BY_HAND.replace("pool: blue}", "pool: blue}\n  redy: true")).contains("redy"));
        assert!(error(&BY_HAND.replace("1.31.14}", "latest}")).contains("latest"));
        let twice = BY_HAND.replace("w-1", "cp-1");
        assert_eq!(
            snapshot_of(serde_saphyr::from_str(&twice).unwrap()),
            Err("node cp-1 stands there twice".to_owned())
        );
        let odd = |inventory: &str| {
            let text = BY_HAND.replace("cordoned: true", &format!("inventory: {inventory}"));
            odd_inventory(&serde_saphyr::from_str(&text).unwrap(), &serde_saphyr::from_str(&text).unwrap())
        };
        assert_eq!(odd("{cgroupVersion: 2, containerd: 1.7.24}"), None);
        assert_eq!(odd("{cgroupversion: 1}").as_deref(), Some("unknown field nodes[1].inventory.cgroupversion"));
        assert!(odd("{cgroupVersion: 3}").unwrap().contains("is 3"));
        let manager = odd("{packageManager: Apt}").unwrap();
        assert_eq!(manager, "nodes[1].inventory.packageManager is \"Apt\", and there are apt, dnf, dnf5, zypper");
        assert_eq!(odd("{packageManager: pacman, os: Arch Linux}"), None, "the node is refused, with its system");
    }
}
