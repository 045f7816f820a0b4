//! Who may refuse what an update asks for, told before anything moves.

use crate::finding::{Code, Finding, Findings};
use cupcake_crds::values::{AdmissionHook, ClusterSnapshot, NodeSnapshot};
use std::collections::BTreeMap;

/// How a policy is called that changes requests.
const MUTATING: &str = "MutatingAdmissionPolicy";

/// Webhooks that refuse when they fail, and policies that deny, of those that see what an update does.
///
/// Source: kubernetes.io, "Admission Webhook Good Practices", "Validating Admission Policy" and "Mutating Admission Policy" (v1.34).
pub(crate) fn admission(snapshot: &ClusterSnapshot, drained: &BTreeMap<&str, &NodeSnapshot>, findings: &mut Findings) {
    for hook in &snapshot.surroundings.admission_hooks {
        let (message, remedy) = told(hook, drained);
        findings.warn(Finding::new(Code::FailClosedHook, &hook.name, hook.sees.join(", "), message, remedy));
    }
    for policy in &snapshot.surroundings.admission_policies {
        let (message, remedy) = if policy.name.starts_with(MUTATING) {
            (
                "it changes what it sees, and refuses that on which it fails: static pods, nodes or drains might be among it",
                "see that its expressions stand every request of kubelets and evictions that it sees, or set failurePolicy: Ignore",
            )
        } else {
            (
                "it denies what its conditions do not let pass: static pods, nodes or drains might be among it",
                "see that it lets the requests of kubelets and evictions pass, as far as it sees them",
            )
        };
        findings.warn(Finding::new(Code::AdmissionPolicy, &policy.name, policy.sees.join(", "), message, remedy));
    }
}

/// What an update makes of the webhook, and what to do about it.
fn told(hook: &AdmissionHook, drained: &BTreeMap<&str, &NodeSnapshot>) -> (String, &'static str) {
    let why = "it refuses requests while it does not answer";
    let mut nodes = hook.nodes.iter().flatten();
    match (&hook.nodes, nodes.next(), nodes.next()) {
        (Some(_), None, _) => (
            format!("{why}, and none of the pods that answer it is ready now"),
            "mend it, or let it leave out kube-system and pods/eviction",
        ),
        (Some(_), Some(node), None) if drained.contains_key(node.as_str()) => (
            format!(
                "{why}, and all pods that answer it are on {node}, which the update empties: static pods, nodes and drains wait until one is ready elsewhere"
            ),
            "run its pods on two nodes or more, with a disruption budget, or let it leave out its own namespace, kube-system and pods/eviction",
        ),
        (Some(_) | None, _, _) => (
            format!("{why}, as when its own pods are evicted: static pods, nodes or drains would wait for it"),
            "see that its pods are on several nodes, or let it leave out kube-system and pods/eviction",
        ),
    }
}
