//! Who may refuse what an update asks for, told before anything moves.

use crate::compile::Hop;
use crate::facts::{self, NewKind};
use crate::finding::{Code, Finding, Findings};
use cupcake_crds::values::{AdmissionHook, ClusterSnapshot, MinorVersion, NodeSnapshot};
use std::collections::{BTreeMap, BTreeSet};

/// How a policy is called that changes requests.
const MUTATING: &str = "MutatingAdmissionPolicy";

/// Webhooks that refuse when they fail, and policies that deny, of those that see what an update does.
///
/// Source: kubernetes.io, "Admission Webhook Good Practices", "Validating Admission Policy" and "Mutating Admission Policy" (v1.34).
pub(crate) fn admission(
    snapshot: &ClusterSnapshot,
    hops: &[Hop<'_>],
    drained: &BTreeMap<&str, &NodeSnapshot>,
    findings: &mut Findings,
) {
    new_kinds(snapshot, hops, findings);
    for hook in snapshot.surroundings.admission_hooks.iter().filter(|hook| !hook.sees.is_empty()) {
        let (message, remedy) = told(hook, drained);
        findings.warn(Finding::new(Code::FailClosedHook, &hook.name, hook.sees.join(", "), message, remedy));
    }
    for policy in snapshot.surroundings.admission_policies.iter().filter(|policy| !policy.sees.is_empty()) {
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

/// Kinds that a minor on the way adds, for those who are asked about every kind of their groups. Of webhooks and policies themselves
/// nobody is asked.
///
/// Source: k8s.io/apiserver, pkg/admission/plugin/webhook/predicates/rules/rules.go (v0.34.4), `IsExemptAdmissionConfigurationResource`;
/// kubernetes/kubernetes#137356.
fn new_kinds(snapshot: &ClusterSnapshot, hops: &[Hop<'_>], findings: &mut Findings) {
    let hooks = snapshot.surroundings.admission_hooks.iter();
    let hooks = hooks.map(|hook| (Code::FailClosedHook, &hook.name, &hook.all_of));
    let policies = snapshot.surroundings.admission_policies.iter();
    let policies = policies.map(|policy| (Code::AdmissionPolicy, &policy.name, &policy.all_of));
    let wide: Vec<_> = hooks.chain(policies).filter(|(_, _, groups)| !groups.is_empty()).collect();
    let mut before = snapshot.server.minor_version();
    for minor in hops.iter().map(|hop| hop.step.version.minor_version()) {
        let facts = facts::of(&snapshot.facts, minor).filter(|_| minor > before);
        before = before.max(minor);
        let Some(facts) = facts else { continue };
        for (code, name, groups) in &wide {
            let is_seen = |kind: &&NewKind| groups.iter().any(|group| *group == "*" || *group == kind.group);
            let seen: Vec<&NewKind> = facts.new_builtin_kinds.iter().filter(is_seen).collect();
            if !seen.is_empty() {
                findings.warn(newly_seen(*code, name, minor, &seen));
            }
        }
    }
}

/// What a new minor asks one of them about that it was never asked before.
fn newly_seen(code: Code, name: &str, minor: MinorVersion, seen: &[&NewKind]) -> Finding {
    let mut by_group: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for kind in seen {
        by_group.entry(&kind.group).or_default().push(&kind.kind);
    }
    let kinds: Vec<String> = by_group.iter().map(|(group, kinds)| format!("{} ({group})", kinds.join(", "))).collect();
    let writers: BTreeSet<&str> = seen.iter().filter_map(|kind| kind.written_by.as_deref()).collect();
    let writers: Vec<&str> = writers.into_iter().collect();
    let message = format!("from {minor} on it is also asked about these kinds, which are new");
    let message = match writers.as_slice() {
        [] => message,
        writers => format!(
            "{message}; {} of {minor} writes some by itself, and waits where it is denied: one that looks them up at an API server of before finds nothing, and may deny them",
            writers.join(", ")
        ),
    };
    let groups: Vec<&str> = by_group.keys().copied().collect();
    let remedy = format!(
        "see that it knows them, or let it leave out {} until every API server is at {minor}",
        groups.join(", ")
    );
    Finding::new(code, name, kinds.join(", "), message, remedy)
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
