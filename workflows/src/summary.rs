//! A plan in a few lines, for people: what `kubectl cupcake plan` prints before anything is started.

use crate::finding::named;
use cupcake_crds::values::{KubeVersion, PackageVersion};
use cupcake_steps::ports::host::KubeProxy;
use serde::Serialize;
use std::collections::BTreeSet;

/// How many batches the text names one by one.
const BATCHES_SHOWN_MAX: usize = 8;

/// What an update will do, in which order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The version that the API servers are at (the oldest one).
    pub from: KubeVersion,
    /// The version to arrive at.
    pub target: KubeVersion,
    /// The versions on the way and what moves at each, in order; never empty.
    pub hops: Vec<HopSummary>,
    /// How many selected workers are at the target already.
    pub workers_at_target: u32,
    /// How many workers `spec.nodeSelector` leaves out.
    pub workers_left_out: u32,
    /// How many workers are in flight at once.
    pub concurrency: u32,
    /// A rough length, from measured kubeadm runs.
    pub estimate_seconds: u32,
}

/// What moves in one hop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HopSummary {
    /// Where it goes.
    pub version: KubeVersion,
    /// Why it stays within its minor, where a fact asks for that before the next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The node whose etcd member is saved before anything moves.
    pub backup_on: Option<String>,
    /// The control-plane nodes in the order in which kubeadm upgrades them, the first by `kubeadm upgrade apply`; none where
    /// the control plane is there already.
    pub control_plane: Vec<String>,
    /// Whether kube-proxy and CoreDNS are looked at: not where only kubelets move.
    pub addons: bool,
    /// What of kube-proxy.
    #[serde(skip_serializing_if = "KubeProxy::is_upgrade")]
    pub kube_proxy: KubeProxy,
    /// Control-plane nodes whose kubelet moves, in order: after all of `control_plane`.
    pub kubelets: Vec<String>,
    /// How many workers move.
    pub workers: u32,
    /// How many of the kubelets of both restart without a drain before it (`spec.drain.onPatch: false`).
    #[serde(skip_serializing_if = "is_zero")]
    pub undrained: u32,
    /// The containerd that nodes of both get, where `spec.components` names it and some have another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub containerd: Option<ContainerdSummary>,
    /// The images that its kubeadm brings, where the control plane moves and they are known of exactly that version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<ImagesSummary>,
    /// Their batches, as they would be if they moved now: they are fixed when the workers' turn comes.
    pub batches: Vec<BatchPreview>,
}

/// containerd in one hop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerdSummary {
    /// The whole version of its package.
    pub version: PackageVersion,
    /// How many nodes get it.
    pub nodes: u32,
}

/// The tags of the images that kubeadm brings, unless its configuration in the cluster names others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImagesSummary {
    /// Of CoreDNS.
    pub coredns: String,
    /// Of etcd.
    pub etcd: String,
    /// Of pause.
    pub pause: String,
}

/// One batch of workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchPreview {
    /// Its number, from 1.
    pub number: u32,
    /// Whether its nodes go first under strategy canary.
    pub canary: bool,
    /// Its workers, in order.
    pub nodes: Vec<String>,
}

impl Summary {
    /// How many nodes change: control-plane nodes and workers.
    pub fn nodes(&self) -> u32 {
        let of_hop = |hop: &HopSummary| {
            let workers = hop.batches.iter().flat_map(|batch| batch.nodes.clone());
            hop.control_plane.clone().into_iter().chain(hop.kubelets.clone()).chain(workers).collect::<Vec<_>>()
        };
        let nodes: BTreeSet<String> = self.hops.iter().flat_map(of_hop).collect();
        u32::try_from(nodes.len()).unwrap_or(u32::MAX)
    }

    /// The summary as lines of text, one step a line.
    pub fn lines(&self) -> Vec<String> {
        let minutes = self.estimate_seconds.div_ceil(60);
        let nodes = count(self.nodes(), "node");
        let hops = match self.hops.len() {
            0 | 1 => String::new(),
            hops => format!(" in {hops} hops"),
        };
        let mut lines = vec![format!("{} to {}{hops}: {nodes}, roughly {minutes} min", self.from, self.target)];
        for (index, hop) in self.hops.iter().enumerate() {
            if self.hops.len() > 1 {
                lines.push(format!("hop {}/{}, {}", index + 1, self.hops.len(), hop.version));
            }
            lines.extend(hop.reason.iter().map(|reason| format!("     a patch first: {reason}")));
            lines.extend(hop.lines(self.concurrency));
        }
        if self.workers_at_target > 0 {
            lines.push(format!("     there already: {}", count(self.workers_at_target, "worker")));
        }
        if self.workers_left_out > 0 {
            lines.push(format!(
                "     left out by spec.nodeSelector, spec.control.skip or their label: {}",
                count(self.workers_left_out, "worker")
            ));
        }
        lines
    }
}

impl HopSummary {
    fn lines(&self, concurrency: u32) -> Vec<String> {
        let (mut lines, mut number) = (Vec::new(), 0);
        let mut step = |lines: &mut Vec<String>, text: String| {
            number += 1;
            lines.push(format!("{number:>3}. {text}"));
        };
        step(&mut lines, "preflight".to_owned());
        if let Some(node) = &self.backup_on {
            step(&mut lines, format!("etcd-backup: snapshot of etcd on {node}"));
        }
        if !self.control_plane.is_empty() {
            step(&mut lines, format!("control-plane, one after another: {}", self.control_plane.join(", ")));
            lines.extend(self.images.iter().map(ImagesSummary::line));
        }
        if self.addons {
            let addons = match self.kube_proxy {
                KubeProxy::Upgrade => "addons: kube-proxy and CoreDNS",
                KubeProxy::LeaveOut => "addons: CoreDNS; kube-proxy is left out",
            };
            step(&mut lines, addons.to_owned());
        }
        if !self.kubelets.is_empty() {
            step(&mut lines, format!("kubelets, one after another: {}", self.kubelets.join(", ")));
        }
        if self.workers > 0 {
            step(
                &mut lines,
                format!(
                    "workers: {} in {}, {} at once",
                    count(self.workers, "node"),
                    count(u32::try_from(self.batches.len()).unwrap_or(u32::MAX), "batch"),
                    concurrency.min(self.workers)
                ),
            );
        }
        step(&mut lines, "verify".to_owned());
        let undrained = Some(self.undrained).filter(|undrained| *undrained > 0);
        let verify = lines.pop();
        lines.extend(self.batches.iter().take(BATCHES_SHOWN_MAX).map(BatchPreview::line));
        match self.batches.len().saturating_sub(BATCHES_SHOWN_MAX) {
            0 => {}
            more => lines.push(format!("       and {more} more")),
        }
        lines
            .extend(undrained.map(|nodes| format!("       not drained, within their minor: {}", count(nodes, "node"))));
        lines.extend(self.containerd.iter().map(ContainerdSummary::line));
        lines.extend(verify);
        lines
    }
}

impl ContainerdSummary {
    fn line(&self) -> String {
        format!(
            "       containerd {}, after the drain and before the kubelet: {}",
            self.version,
            count(self.nodes, "node")
        )
    }
}

impl ImagesSummary {
    fn line(&self) -> String {
        let Self { coredns, etcd, pause } = self;
        format!("       kubeadm brings CoreDNS {coredns}, etcd {etcd}, pause {pause}")
    }
}

impl BatchPreview {
    fn line(&self) -> String {
        let canary = if self.canary { " (canary)" } else { "" };
        let nodes = count(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX), "node");
        format!("       batch-{}{canary}: {nodes}, {}", self.number, named(&self.nodes))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// `1 node`, `2 nodes`, `3 batches`
pub(crate) fn count(number: u32, noun: &str) -> String {
    match (number, noun.ends_with("ch")) {
        (1, _) => format!("1 {noun}"),
        (_, true) => format!("{number} {noun}es"),
        (_, false) => format!("{number} {noun}s"),
    }
}
