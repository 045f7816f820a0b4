//! A plan in a few lines, for people: what `kubectl cupcake plan` prints before anything is started.

use cupcake_crds::values::KubeVersion;
use serde::Serialize;

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
    /// Whether kubeadm moves the control plane; if not, it is there already.
    pub control_plane_moves: bool,
    /// The control-plane nodes in the order in which they are upgraded, the first by `kubeadm upgrade apply`.
    pub control_plane: Vec<String>,
    /// The node whose etcd member is saved before anything moves.
    pub backup_on: Option<String>,
    /// Control-plane nodes whose kubelet moves, in order.
    pub control_plane_kubelets: Vec<String>,
    /// How many workers move.
    pub workers: u32,
    /// How many selected workers are at the target already.
    pub workers_at_target: u32,
    /// How many workers `spec.nodeSelector` leaves out.
    pub workers_left_out: u32,
    /// How many workers are in flight at once.
    pub concurrency: u32,
    /// The batches, as they would be if the workers moved now: they are fixed when the workers' turn comes.
    pub batches: Vec<BatchPreview>,
    /// A rough length, from measured kubeadm runs.
    pub estimate_seconds: u32,
}

/// One batch of workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchPreview {
    /// Its number, from 1.
    pub number: u32,
    /// Whether its nodes go first under strategy canary.
    pub canary: bool,
    /// How many workers it has.
    pub nodes: usize,
    /// The first of them by name.
    pub first: String,
    /// The last of them by name.
    pub last: String,
}

impl Summary {
    /// How many nodes change: control-plane nodes and workers.
    pub fn nodes(&self) -> u32 {
        let control_plane = if self.control_plane_moves { &self.control_plane } else { &self.control_plane_kubelets };
        u32::try_from(control_plane.len()).unwrap_or(u32::MAX).saturating_add(self.workers)
    }

    /// The summary as lines of text, one step a line.
    pub fn lines(&self) -> Vec<String> {
        let minutes = self.estimate_seconds.div_ceil(60);
        let mut lines =
            vec![format!("{} to {}: {}, roughly {minutes} min", self.from, self.target, count(self.nodes(), "node"))];
        let mut step = |text: String| {
            let number = lines.len();
            lines.push(format!("{number:>3}. {text}"));
        };
        step("preflight".to_owned());
        if let Some(node) = &self.backup_on {
            step(format!("etcd-backup: snapshot of etcd on {node}"));
        }
        if self.control_plane_moves {
            step(format!("control-plane, one after another: {}", self.control_plane.join(", ")));
        }
        step("addons: kube-proxy and CoreDNS".to_owned());
        if !self.control_plane_kubelets.is_empty() {
            step(format!("kubelets, one after another: {}", self.control_plane_kubelets.join(", ")));
        }
        if self.workers > 0 {
            step(format!(
                "workers: {} in {}, {} at once",
                count(self.workers, "node"),
                count(u32::try_from(self.batches.len()).unwrap_or(u32::MAX), "batch"),
                self.concurrency
            ));
        }
        step("verify".to_owned());
        let verify = lines.pop();
        lines.extend(self.batches.iter().take(BATCHES_SHOWN_MAX).map(BatchPreview::line));
        match self.batches.len().saturating_sub(BATCHES_SHOWN_MAX) {
            0 => {}
            more => lines.push(format!("       and {more} more")),
        }
        lines.extend(verify);
        if self.workers_at_target > 0 {
            lines.push(format!("     there already: {}", count(self.workers_at_target, "worker")));
        }
        if self.workers_left_out > 0 {
            lines.push(format!("     left out by spec.nodeSelector: {}", count(self.workers_left_out, "worker")));
        }
        lines
    }
}

impl BatchPreview {
    fn line(&self) -> String {
        let canary = if self.canary { " (canary)" } else { "" };
        let range = if self.nodes == 1 { self.first.clone() } else { format!("{} to {}", self.first, self.last) };
        let nodes = count(u32::try_from(self.nodes).unwrap_or(u32::MAX), "node");
        format!("       batch-{}{canary}: {nodes}, {range}", self.number)
    }
}

/// `1 node`, `2 nodes`, `3 batches`
pub(crate) fn count(number: u32, noun: &str) -> String {
    match (number, noun.ends_with("ch")) {
        (1, _) => format!("1 {noun}"),
        (_, true) => format!("{number} {noun}es"),
        (_, false) => format!("{number} {noun}s"),
    }
}
