//! A cluster as kubeadm makes it: nodes, static pods, addons, configuration, and a small workload.

use super::config::WorldConfig;
use crate::machine::kube::{Kube, Refused};
use crate::machine::kubeadm::{DAEMON_SETS, cluster_configuration, kube_proxy};
use crate::machine::releases::{Images, STATIC_PODS};
use crate::machine::{SimMachine, Site};
use cupcake_crds::values::{KubeVersion, NodeRole};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Up to how many workers the workload has two pods for each; one above that.
const TWO_PODS_WORKERS_MAX: u32 = 20;

/// Names of the nodes of a role, as long as the largest number needs.
pub(super) fn node_names(prefix: &str, count: u32) -> impl Iterator<Item = String> + '_ {
    let width = count.to_string().len();
    (1..=count).map(move |number| format!("{prefix}-{number:0width$}"))
}

/// The machines of the cluster, by name.
pub fn machines(config: &WorldConfig, site: &Arc<Site>) -> BTreeMap<String, Arc<SimMachine>> {
    let control_planes = node_names("cp", config.control_planes).map(|name| (name, NodeRole::ControlPlane));
    let workers = node_names(config.workers_named, config.workers).map(|name| (name, NodeRole::Worker));
    control_planes
        .chain(workers)
        .map(|(name, role)| {
            let machine = SimMachine::new(&name, role, config.from, Arc::clone(site));
            (name, machine)
        })
        .collect()
}

/// Makes the objects; workloads start by themselves once time goes on.
///
/// # Errors
/// When the API refuses one: a bug of the sandbox.
pub fn populate(
    config: &WorldConfig,
    site: &Arc<Site>,
    machines: &BTreeMap<String, Arc<SimMachine>>,
) -> Result<(), Refused> {
    let admin = site.kube("kubeadm/init");
    for machine in machines.values() {
        register(machine, config.from, site, &admin)?;
        match machine.role() {
            NodeRole::ControlPlane => {
                for pod in STATIC_PODS {
                    machine.show_mirror(pod);
                }
            }
            NodeRole::Worker => {}
        }
    }
    configuration(config, &admin)?;
    addons(&Images::of(config.from), &admin)?;
    workload(config, &admin)
}

/// The Node of a machine, Ready at that version, whose kubelet reports from now on.
///
/// # Errors
/// When the API refuses it: it is away, or there is a Node of that name.
pub(super) fn register(
    machine: &Arc<SimMachine>,
    version: KubeVersion,
    site: &Arc<Site>,
    by: &Kube,
) -> Result<(), Refused> {
    by.create("/api/v1/nodes", &machine.node_object())?;
    let (name, status) = (machine.name(), machine.node_status(version, site.now()));
    site.kube(&format!("kubelet/{name}")).merge(&format!("/api/v1/nodes/{name}/status"), &status)?;
    machine.begin_reporting();
    Ok(())
}

fn configuration(config: &WorldConfig, admin: &Kube) -> Result<(), Refused> {
    let config_maps = "/api/v1/namespaces/kube-system/configmaps";
    let named = |name: &str, data: Value| {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": "kube-system"}, "data": data,
        })
    };
    let cluster = json!({"ClusterConfiguration": cluster_configuration(config.from)});
    admin.create(config_maps, &named("kubeadm-config", cluster))?;
    let kubelet = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\ncgroupDriver: systemd\n";
    admin.create(config_maps, &named("kubelet-config", json!({"kubelet": kubelet})))
}

fn addons(images: &Images, admin: &Kube) -> Result<(), Refused> {
    admin.create(DAEMON_SETS, &kube_proxy(images))?;
    let dns_labels = json!({"k8s-app": "kube-dns"});
    let dns = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "coredns", "namespace": "kube-system", "labels": dns_labels},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": dns_labels},
            "template": {
                "metadata": {"labels": dns_labels},
                "spec": {
                    "priorityClassName": "system-cluster-critical",
                    "containers": [{"name": "coredns", "image": images.coredns()}],
                    "tolerations": [
                        {"key": "CriticalAddonsOnly", "operator": "Exists"},
                        {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"},
                    ],
                },
            },
        },
    });
    admin.create("/apis/apps/v1/namespaces/kube-system/deployments", &dns)
}

/// A Deployment over all workers with a budget, so that drains have something to respect.
fn workload(config: &WorldConfig, admin: &Kube) -> Result<(), Refused> {
    let workers = config.workers;
    let replicas = if workers <= TWO_PODS_WORKERS_MAX { workers * 2 } else { workers };
    let labels = json!({"app": "shop"});
    let shop = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "shop", "namespace": "default", "labels": labels},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "shop", "image": "registry.example/shop:1"}]},
            },
        },
    });
    admin.create("/apis/apps/v1/namespaces/default/deployments", &shop)?;
    if !config.budget || workers < 2 {
        return Ok(());
    }
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "shop", "namespace": "default"},
        "spec": {"maxUnavailable": "25%", "selector": {"matchLabels": labels}},
    });
    admin.create("/apis/policy/v1/namespaces/default/poddisruptionbudgets", &budget)
}
