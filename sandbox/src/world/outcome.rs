//! What a simulated run leaves: the figures that `kubectl cupcake sandbox -o json` prints.

use crate::machine::fault::Stream;
use serde::Serialize;
use std::collections::BTreeMap;

/// One node in the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeOutcome {
    /// Its name.
    pub name: String,
    /// Version of its kubelet, as its Node shows it, without `v`.
    pub version: String,
    /// Whether it takes pods.
    pub schedulable: bool,
}

/// How much of each stream there was: what `--kill` and faults count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Writes {
    /// Writes of the operator, but for Leases and Events.
    pub operator: u64,
    /// Those of all agents together, to the API and to their mailboxes.
    pub agent: u64,
    /// Those of all runners together, to their disks.
    pub runner: u64,
    /// The operator's requests about its Lease.
    pub lease: u64,
    /// The operator's other requests that write nothing.
    pub operator_read: u64,
    /// The agents' requests that write nothing.
    pub agent_read: u64,
}

impl Writes {
    /// Those of one stream.
    pub fn of(&self, stream: Stream) -> u64 {
        match stream {
            Stream::Operator => self.operator,
            Stream::Agent => self.agent,
            Stream::Runner => self.runner,
            Stream::Lease => self.lease,
            Stream::OperatorRead => self.operator_read,
            Stream::AgentRead => self.agent_read,
        }
    }
}

/// A simulated run, summed up.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Phase of the DirectUpdate.
    pub phase: String,
    /// What it says.
    pub message: String,
    /// Every node, by name.
    pub nodes: Vec<NodeOutcome>,
    /// Virtual time from the DirectUpdate to its end.
    pub virtual_seconds: f64,
    /// Accepted writes to UpgradeRun, UpgradePlan and NodeTask, spec and status, divided by the workers upgraded.
    pub engine_writes_per_worker: f64,
    /// Those writes, by what was written.
    pub engine_writes: BTreeMap<String, u64>,
    /// Effects begun while the same one still ran, or after its completion had been recorded.
    pub duplicated_effects: u32,
    /// Effects begun again because a crash cut them short.
    pub reruns_after_interruption: u32,
    /// Digest over every API request and every effect, in order.
    pub transcript_sha256: String,
    /// Largest UpgradeRun, NodeTask or DirectUpdate ever stored, with managedFields, in bytes of JSON.
    pub largest_object_bytes: usize,
    /// Largest UpgradePlan ever stored, in bytes of JSON.
    pub largest_plan_bytes: usize,
    /// Copies of kubeadm's upgrades that lie on machines, as `<node>/<folder>`; one of long ago lies on each control-plane node.
    pub kubeadm_copies: Vec<String>,
    /// Writes of each component, and its other requests.
    pub writes: Writes,
    /// The crash that happened, and where; `null` if none did.
    pub killed: Option<String>,
}

impl Outcome {
    /// Whether the upgrade ended as it should.
    pub fn succeeded(&self) -> bool {
        self.phase == "Succeeded"
    }
}
