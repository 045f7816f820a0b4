//! Orders for this crate's tests.

use cupcake_crds::node_task::Order;
use cupcake_crds::values::{HostStep, KubeVersion, NodeRef, OrderKey};
use cupcake_steps::host::params::{self, host_step};
use cupcake_steps::mailbox::MailOrder;
use cupcake_steps::ports::host::{KubeProxy, KubeadmUpgrade, Package};
use serde::Serialize;

pub(crate) const OLD: KubeVersion = KubeVersion::new(1, 33, 4);
pub(crate) const NEW: KubeVersion = KubeVersion::new(1, 34, 4);

pub(crate) fn step(name: &str, kind: &str, params: &impl Serialize) -> HostStep {
    host_step(name, kind, params)
}

/// A worker's whole upgrade.
pub(crate) fn order(attempt: u32) -> Order {
    let install = |packages| params::InstallPackages { packages, version: NEW };
    Order {
        deadline_seconds: 1_800,
        epoch: 3,
        finish: vec![
            step("install-kubelet", params::INSTALL_PACKAGES, &install(vec![Package::Kubelet, Package::Kubectl])),
            step("restart-kubelet", params::RESTART_KUBELET, &params::RestartKubelet { version: NEW }),
        ],
        key: OrderKey { run_uid: "6f0d7f0e".into(), vertex: "w-1/prepare".into(), attempt },
        prepare: vec![
            step("switch-repository", params::SWITCH_REPOSITORY, &params::SwitchRepository { version: NEW }),
            step("install-kubeadm", params::INSTALL_PACKAGES, &install(vec![Package::Kubeadm])),
            step(
                "kubeadm-upgrade",
                params::KUBEADM_UPGRADE,
                &params::UpgradeByKubeadm {
                    how: KubeadmUpgrade::Node,
                    version: NEW,
                    kube_proxy: KubeProxy::Upgrade,
                    success_of: Vec::new(),
                },
            ),
        ],
        proceed: false,
        stop: false,
        target_version: NEW,
        traceparent: None,
    }
}

/// The same in the mailbox of `w-1`.
pub(crate) fn mail(order: Order) -> MailOrder {
    MailOrder { node: NodeRef { name: "w-1".into(), uid: "node".into() }, order }
}

/// What a worker's whole upgrade does to the machine.
pub(crate) const EFFECTS: [&str; 6] = [
    "switch repository to 1.34",
    "install kubeadm 1.34.4",
    "archive before-1.34.4-6f0d7f0e",
    "kubeadm upgrade node 1.34.4",
    "install kubelet kubectl 1.34.4",
    "restart kubelet",
];
