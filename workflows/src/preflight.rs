//! The checklist: everything that is looked at before an update starts, with a verdict each.
//!
//! It is made of what the compiler finds, so that `kubectl cupcake preflight`, `plan` and the operator never differ.

use crate::compile::{Compilation, Compiled};
use crate::finding::{Bearing, Code, Finding, Refusal};
use serde::Serialize;

/// Whether a check stands in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Verdict {
    /// Nothing was found.
    Passed,
    /// Something should be known; the update can start.
    Warned,
    /// Nothing was found, and nothing is known of the machines that it is about: of a whole list more than a warning.
    Unknown,
    /// It stands in the way.
    Failed,
}

/// One check, and what it found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// What it looks at.
    pub about: &'static str,
    /// The verdict.
    pub verdict: Verdict,
    /// What was found, with reasons and remedies; the code of a finding is its name in `spec.acknowledge`.
    pub findings: Vec<Finding>,
}

/// The checks in the order in which they are told.
const CHECKS: [(&str, &str); 17] = [
    ("Spec", "the fields of the update"),
    ("Versions", "target, API servers, kubeadm's configuration, and the way between"),
    ("Skew", "every kubelet against every hop"),
    ("ControlPlane", "made by kubeadm, with etcd beside it"),
    ("Nodes", "Ready, readable, not cordoned by others"),
    ("Agents", "an agent answered on each node"),
    ("Etcd", "its members, and the minor that kubeadm brings"),
    ("Machines", "disk, certificates, clock, package manager"),
    (
        "Packages",
        "kubeadm and kubelet from packages, the exact version in each machine's repositories, as far as they tell, and what holds them",
    ),
    ("HandMade", "manifests and kubelet settings that kubeadm would write anew without somebody's changes"),
    ("Kubelet", "removed flags, control groups, swap"),
    ("Settings", "feature gates, admission plugins and flags that a minor on the way no longer knows"),
    ("Runtime", "the oldest containerd that the kubelet works with, and the one that spec.components asks for"),
    ("Apis", "API versions that are no longer served, and who still asks for them"),
    ("Drains", "the eviction of each node's pods: budgets, emptyDirs, pods that nothing makes anew"),
    ("Hooks", "admission webhooks that refuse when they fail, policies that deny"),
    ("Neighbours", "programs that change nodes, too; what could not be read"),
];

/// The checks that speak of what machines told.
const OF_MACHINES: [&str; 6] = ["Machines", "Packages", "HandMade", "Kubelet", "Settings", "Runtime"];

/// The findings about one node that somebody may answer for.
pub const ACKNOWLEDGED: [Code; 11] = [
    Code::CgroupV1,
    Code::ClockSkew,
    Code::ContainerdTooOld,
    Code::DiskSpace,
    Code::DisruptionBudget,
    Code::EtcdStore,
    Code::HandMadeChanges,
    Code::LocalStorage,
    Code::RemovedSettings,
    Code::SwapOn,
    Code::UnmanagedPods,
];

/// The checklist of what the compiler came to.
pub fn checklist(compiled: &Result<Compilation<Compiled>, Refusal>) -> Vec<Check> {
    let (refused, warnings): (&[Finding], &[Finding]) = match compiled {
        Ok(Compilation::Plan(plan)) => (&[], &plan.report.warnings),
        Ok(Compilation::NothingToDo(nothing)) => (&[], &nothing.report.warnings),
        Err(refusal) => (&refusal.findings, &refusal.warnings),
    };
    let nothing_known = warnings.iter().any(|finding| finding.bearing == Bearing::NothingKnown);
    let check = |(name, about): (&'static str, &'static str)| {
        let of = |findings: &[Finding]| -> Vec<Finding> {
            findings.iter().filter(|finding| check_of(finding) == name).cloned().collect()
        };
        // An update is taken although a node is not Ready or its agent silent, and waits for it: a cluster is not fit as long as it would.
        let (waits, warned): (Vec<_>, Vec<_>) =
            of(warnings).into_iter().partition(|finding| finding.bearing == Bearing::Waits);
        let failed = [of(refused), waits].concat();
        let verdict = match (failed.is_empty(), warned.iter().all(|finding| finding.code.is_note())) {
            (false, _) => Verdict::Failed,
            (true, false) => Verdict::Warned,
            (true, true) if nothing_known && OF_MACHINES.contains(&name) => Verdict::Unknown,
            (true, true) => Verdict::Passed,
        };
        Check { name, about, verdict, findings: failed.into_iter().chain(warned).collect() }
    };
    CHECKS.into_iter().map(check).collect()
}

/// The check that a finding belongs to.
fn check_of(finding: &Finding) -> &'static str {
    match finding.code {
        Code::IllegalComponents
        | Code::OutOfRange
        | Code::NotInThisRelease
        | Code::NameTooLong
        | Code::TooLarge
        | Code::InvalidPlan
        | Code::NoEffect
        | Code::ChecksLeftOut
        | Code::NothingSelected
        | Code::OptedOut
        | Code::UnknownCanary => "Spec",
        Code::InvalidVersion
        | Code::InvalidPath
        | Code::Downgrade
        | Code::TooManyMinors
        | Code::PreRelease
        | Code::UnknownRelease
        | Code::AvoidedRelease
        | Code::PatchFirst
        | Code::ControlPlaneBehind => "Versions",
        Code::VersionSkew | Code::NextHopBlocked => "Skew",
        Code::NoControlPlane
        | Code::NoKubeadmConfig
        | Code::KubeadmConfigApi
        | Code::ExternalEtcd
        | Code::OlderServer => "ControlPlane",
        Code::UnreadableNode | Code::NodeNotReady | Code::CordonedByOther | Code::ForeignNode => "Nodes",
        Code::NoInventory => "Agents",
        Code::EtcdAlarm | Code::EtcdMinor | Code::EtcdMembers | Code::EtcdStore => "Etcd",
        Code::DisruptionBudget | Code::LocalStorage | Code::UnmanagedPods => "Drains",
        Code::FailClosedHook | Code::AdmissionPolicy => "Hooks",
        Code::OtherUpdater | Code::UnattendedUpgrades | Code::KubeProxyAbsent | Code::AddonReturns => "Neighbours",
        // What was not looked at stands under the check that does not know it.
        Code::NotLookedAt => {
            let about = |words: &[&str]| words.iter().any(|word| finding.field.contains(word));
            if about(&["pods", "poddisruptionbudgets"]) {
                "Drains"
            } else if about(&["webhook", "admission"]) {
                "Hooks"
            } else if about(&["metrics"]) {
                "Apis"
            } else if about(&["manifests"]) {
                "HandMade"
            } else if about(&["packages"]) {
                "Packages"
            } else {
                "Neighbours"
            }
        }
        Code::DiskSpace
        | Code::CertificatesExpired
        | Code::CertificatesExpire
        | Code::ClockSkew
        | Code::ExternalCa
        | Code::PackageManager => "Machines",
        Code::NotInstalledByPackage
        | Code::PackagesNotOffered
        | Code::PackagesHeld
        | Code::PackagesLocked
        | Code::NeededHeld => "Packages",
        Code::RemovedKubeletFlags | Code::CgroupV1 | Code::SwapOn => "Kubelet",
        Code::RemovedSettings => "Settings",
        Code::HandMadeChanges => "HandMade",
        Code::ContainerdTooOld | Code::RuntimeNotPackaged | Code::RuntimeUnknown | Code::RuntimeVersion => "Runtime",
        Code::RemovedApis => "Apis",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cluster, compiled, spec};
    use serde_json::json;

    #[test]
    fn a_check_that_could_not_be_made_gets_no_tick_and_a_node_that_is_not_ready_stands_in_the_way() {
        let mut snapshot = cluster(3, 1, "1.33.4");
        snapshot.surroundings.unread = ["pods", "validatingwebhookconfigurations", "/metrics"].map(Into::into).to_vec();
        snapshot.nodes.get_mut("cp-2").unwrap().ready = false;
        let list = checklist(&compiled(&spec(&json!({})), &snapshot));
        let verdict = |name: &str| list.iter().find(|check| check.name == name).unwrap().verdict;
        assert_eq!(["Drains", "Hooks", "Apis"].map(verdict), [Verdict::Warned; 3]);
        assert_eq!(["Nodes", "Neighbours"].map(verdict), [Verdict::Failed, Verdict::Passed]);
    }

    #[test]
    fn a_silent_agent_among_others_stands_in_the_way_and_where_all_are_silent_nothing_is_known_of_machines() {
        let mut snapshot = cluster(3, 1, "1.33.4");
        snapshot.nodes.get_mut("w-01").unwrap().inventory = None;
        let verdicts = |snapshot: &cupcake_crds::values::ClusterSnapshot, names: &[&str]| {
            let list = checklist(&compiled(&spec(&json!({})), snapshot));
            let verdict = |name: &&str| list.iter().find(|check| check.name == *name).unwrap().verdict;
            names.iter().map(verdict).collect::<Vec<_>>()
        };
        assert_eq!(verdicts(&snapshot, &["Agents", "Machines"]), [Verdict::Failed, Verdict::Passed]);
        for node in snapshot.nodes.values_mut() {
            node.inventory = None;
        }
        assert_eq!(verdicts(&snapshot, &["Agents", "Skew"]), [Verdict::Warned, Verdict::Passed]);
        assert_eq!(verdicts(&snapshot, &["Machines", "Packages", "HandMade", "Runtime"]), [Verdict::Unknown; 4]);
        // What takes too long is no silence.
        let mut old = cluster(3, 1, "1.33.4");
        let long_ago = old.taken_at - chrono::TimeDelta::hours(1);
        old.nodes.get_mut("w-01").unwrap().inventory.as_mut().unwrap().taken_at = Some(long_ago);
        assert_eq!(verdicts(&old, &["Agents"]), [Verdict::Warned]);
    }

    /// The rows of the table, without its head.
    fn rows(text: &str) -> Vec<[&str; 6]> {
        let rows = text.lines().filter(|line| line.starts_with("| ")).skip(1);
        let cells = rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<&str>>());
        cells.map(|cells| <[&str; 6]>::try_from(cells).unwrap_or_else(|cells| panic!("{cells:?}"))).collect()
    }

    #[test]
    fn every_code_stands_in_the_table_of_the_documentation_once_under_its_check_and_nothing_else_does() {
        let text = include_str!("../../docs/checks.md");
        let rows = rows(text);
        let mut told: Vec<&str> = rows.iter().map(|[_, code, ..]| *code).collect();
        told.sort_unstable();
        let mut codes: Vec<String> = Code::ALL.iter().map(ToString::to_string).collect();
        codes.sort_unstable();
        assert_eq!(told, codes);
        for [checks, name, found, verdict, acknowledged, remedy] in rows {
            let code = *Code::ALL.iter().find(|code| code.to_string() == name).unwrap();
            let known: Vec<&str> = checks.split(", ").collect();
            assert!(known.contains(&check_of(&Finding::new(code, "", "", "", ""))), "{name} under {checks}");
            assert!(known.iter().all(|check| CHECKS.iter().any(|(name, _)| name == check)), "{name} under {checks}");
            assert_eq!(acknowledged.starts_with("by name"), ACKNOWLEDGED.contains(&code), "{name}: {acknowledged}");
            assert!(acknowledged.starts_with("by name") || acknowledged == "no", "{name}: {acknowledged}");
            let starts = |word: &str| verdict.starts_with(word);
            assert!(starts(if code.is_note() { "told" } else { "refused" }) || starts("warned"), "{name}: {verdict}");
            assert!(!found.is_empty() && !remedy.is_empty(), "{name}");
        }
    }

    #[test]
    fn every_finding_stands_under_one_check_of_the_list() {
        let mut snapshot = cluster(1, 2, "1.33.4");
        snapshot.nodes.get_mut("w-01").unwrap().ready = false;
        snapshot.kubeadm_config = None;
        let refused = compiled(&spec(&json!({"targetVersion": "1.32.0", "maxFailures": 0})), &snapshot);
        let Err(refusal) = &refused else { panic!("not refused") };
        let list = checklist(&refused);
        let told: usize = list.iter().map(|check| check.findings.len()).sum();
        assert_eq!(told, refusal.findings.len() + refusal.warnings.len());
        let verdict = |name: &str| list.iter().find(|check| check.name == name).unwrap().verdict;
        assert_eq!(
            ["Spec", "Versions", "ControlPlane", "Apis"].map(verdict),
            [Verdict::Failed, Verdict::Failed, Verdict::Failed, Verdict::Passed]
        );
        let fit = checklist(&compiled(&spec(&json!({})), &cluster(1, 2, "1.33.4")));
        let warned: Vec<_> =
            fit.iter().filter(|check| check.verdict != Verdict::Passed).map(|check| check.name).collect();
        assert_eq!(warned, ["Etcd"], "1.34 brings etcd 3.6");
    }
}
