//! What a compiler says about an update besides the plan: findings that refuse it, and findings that only warn.

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};
use std::fmt::{self, Write as _};

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// What is wrong, in one word: stable, used as reason in conditions and events. docs/checks.md has each of them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        pub enum Code {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name),+];
        }
    };
}

codes! {
    /// A text is no Kubernetes version.
    InvalidVersion,
    /// The target is older than something that runs.
    Downgrade,
    /// The target is too far away, or no way to it is known.
    TooManyMinors,
    /// A `spec.path` that is no way from the cluster's version to the target.
    InvalidPath,
    /// A kubelet does not fit the version-skew policy, or kubeadm's narrower one.
    VersionSkew,
    /// The cluster has no control-plane node that kubeadm could upgrade.
    NoControlPlane,
    /// There is no kubeadm configuration in the cluster.
    NoKubeadmConfig,
    /// kubeadm's configuration stands in a version of its API that kubeadm of a hop does not read.
    KubeadmConfigApi,
    /// etcd runs outside the cluster.
    ExternalEtcd,
    /// A Node could not be understood.
    UnreadableNode,
    /// The selector matches no worker.
    NothingSelected,
    /// Workers whose label keeps them out of every update.
    OptedOut,
    /// A canary node that is none.
    UnknownCanary,
    /// A set of components that cannot move together.
    IllegalComponents,
    /// A number or duration outside its range.
    OutOfRange,
    /// Something that this release cannot do.
    NotInThisRelease,
    /// A name from which longer names cannot be made.
    NameTooLong,
    /// A plan that does not fit an object.
    TooLarge,
    /// A plan that makes no graph: a fault of the compiler, or a name that no cluster should have.
    InvalidPlan,
    /// The workers may not move before the control plane.
    ControlPlaneBehind,
    /// A node is not Ready.
    NodeNotReady,
    /// A node was cordoned by somebody else.
    CordonedByOther,
    /// A node was not heard of yet.
    NoInventory,
    /// A setting without effect.
    NoEffect,
    /// A version that nobody offers, as far as is known.
    UnknownRelease,
    /// A version that leaves something behind which stands in the way of the next upgrade.
    AvoidedRelease,
    /// A minor that may be left for the next one from a newer patch only.
    PatchFirst,
    /// The target is no finished release.
    PreRelease,
    /// Checks that are left out.
    ChecksLeftOut,
    /// What stays behind will stand in the way of the next hop.
    NextHopBlocked,
    /// API versions that a minor on the way no longer serves.
    RemovedApis,
    /// Flags, or fields of its configuration, that the kubelet of a minor on the way no longer knows.
    RemovedKubeletFlags,
    /// Feature gates, admission plugins or flags with which a component of a minor on the way does not start.
    RemovedSettings,
    /// A minor on the way brings another minor of etcd.
    EtcdMinor,
    /// A member of etcd has raised an alarm.
    EtcdAlarm,
    /// Members of etcd that are not as a safe upgrade needs them.
    EtcdMembers,
    /// Data of etcd on a machine that the next minor of etcd would read otherwise.
    EtcdStore,
    /// Pods that their budgets do not let go.
    DisruptionBudget,
    /// Pods whose emptyDir ends with them.
    LocalStorage,
    /// Pods that nothing makes anew.
    UnmanagedPods,
    /// Nodes that are not ours to change.
    ForeignNode,
    /// A program that changes nodes, too.
    OtherUpdater,
    /// An admission hook that refuses when it fails.
    FailClosedHook,
    /// An admission policy that may deny what an update asks for.
    AdmissionPolicy,
    /// The API server is too old for some of what keeps CUPCAKE itself in its bounds.
    OlderServer,
    /// There is no kube-proxy of kubeadm's: it is left out.
    KubeProxyAbsent,
    /// kubeadm would bring back what somebody removed.
    AddonReturns,
    /// Something that could not be read.
    NotLookedAt,
    /// The kubelet of a minor on the way does not start on control groups version 1.
    CgroupV1,
    /// Swap is on with which the kubelet does not start.
    SwapOn,
    /// The kubelet of a minor on the way needs a newer containerd.
    ContainerdTooOld,
    /// A container runtime that is no containerd of a package, where containerd is to move.
    RuntimeNotPackaged,
    /// Machines that have not told which containerd they have, where that decides which one they get.
    RuntimeUnknown,
    /// No one version of containerd that every node can get.
    RuntimeVersion,
    /// Too little room on a machine's disk.
    DiskSpace,
    /// Certificates of the control plane have expired.
    CertificatesExpired,
    /// Certificates of the control plane expire soon.
    CertificatesExpire,
    /// A certificate authority whose key is elsewhere, so that kubeadm renews nothing that it signed.
    ExternalCa,
    /// Machines whose clock is not that of the API servers.
    ClockSkew,
    /// Machines that install packages by themselves.
    UnattendedUpgrades,
    /// Changes by hand that kubeadm's next upgrade would undo.
    HandMadeChanges,
    /// A machine with none of the package managers that this release knows.
    PackageManager,
    /// A kubelet or kubeadm that no package brought.
    NotInstalledByPackage,
    /// Machines whose repositories lack the exact version that is to be installed.
    PackagesNotOffered,
    /// Packages that are held, and are as they were after each exact install.
    PackagesHeld,
    /// Packages that something keeps away which no install lifts.
    PackagesLocked,
    /// Packages that come along with those of an upgrade, and that something keeps at their version.
    NeededHeld,
}

impl Code {
    /// Whether it only tells what is done, and speaks against nothing.
    pub const fn is_note(self) -> bool {
        matches!(self, Self::PackagesHeld)
    }

    /// Whether no update is ever refused for it: it is told, and there is nothing to answer for. docs/checks.md says so of the same.
    pub(crate) const fn never_refuses(self) -> bool {
        matches!(
            self,
            Self::NoEffect
                | Self::ChecksLeftOut
                | Self::OptedOut
                | Self::AvoidedRelease
                | Self::NextHopBlocked
                | Self::OlderServer
                | Self::CordonedByOther
                | Self::NoInventory
                | Self::EtcdMinor
                | Self::CertificatesExpire
                | Self::ExternalCa
                | Self::PackagesHeld
                | Self::NeededHeld
                | Self::RemovedKubeletFlags
                | Self::RemovedApis
                | Self::FailClosedHook
                | Self::AdmissionPolicy
                | Self::OtherUpdater
                | Self::UnattendedUpgrades
                | Self::KubeProxyAbsent
                | Self::NotLookedAt
        )
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One thing that was found: where, what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong, in one word.
    pub code: Code,
    /// The field or object it is about: `spec.targetVersion`, `Node worker-3`.
    pub field: String,
    /// The value found there.
    pub value: String,
    /// What is wrong with it, in one line.
    pub message: String,
    /// What to do.
    pub remedy: String,
    /// The nodes that it is about.
    pub nodes: Box<[String]>,
    /// What it rests on.
    pub(crate) rests_on: RestsOn,
    /// What it means for the checklist, besides being told.
    pub(crate) bearing: Bearing,
}

/// A remedy that is written for the first of some nodes.
pub(crate) fn for_each(remedy: String, nodes: usize) -> String {
    if nodes > 1 { format!("{remedy} (and so for each of the {nodes} nodes)") } else { remedy }
}

/// What a finding about nodes rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestsOn {
    /// What the API says of them.
    Api,
    /// What their machines were last seen to be, and may no longer be.
    Inventories,
}

/// What a warning means for the checklist.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Bearing {
    /// It should be known.
    #[default]
    Told,
    /// An update is taken, and waits: no cluster is fit as long as it would.
    Waits,
    /// Of no machine anything is known.
    NothingKnown,
}

impl Finding {
    /// A finding; every text is one line, lower case, without a full stop.
    pub fn new(
        code: Code,
        field: impl Into<String>,
        value: impl fmt::Display,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let (field, value) = (field.into(), value.to_string());
        Self {
            code,
            field,
            value,
            message: message.into(),
            remedy: remedy.into(),
            nodes: Box::default(),
            rests_on: RestsOn::Api,
            bearing: Bearing::Told,
        }
    }

    /// About those nodes, whatever their inventories say: each of them, where the value names the first ones only.
    pub fn of_nodes<T: Into<String>>(self, nodes: impl IntoIterator<Item = T>) -> Self {
        Self { nodes: nodes.into_iter().map(Into::into).collect(), ..self }
    }

    /// With that meaning for the checklist.
    pub(crate) fn bearing(self, bearing: Bearing) -> Self {
        Self { bearing, ..self }
    }

    /// Of what an update waits for once it is taken: no cluster is fit as long as it would.
    pub fn waited_for(self) -> Self {
        self.bearing(Bearing::Waits)
    }

    /// About those nodes, as their inventories say.
    pub fn by_inventories_of(self, nodes: Vec<String>) -> Self {
        Self { nodes: nodes.into_boxed_slice(), rests_on: RestsOn::Inventories, ..self }
    }

    /// The nodes whose machines may have been mended since: it rests on what those were last seen to be.
    pub fn in_question(&self) -> &[String] {
        match self.rests_on {
            RestsOn::Api => &[],
            RestsOn::Inventories => &self.nodes,
        }
    }
}

/// For programs: `message` says it all by itself, so it names the value too, and `nodes` are all of them.
impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let nodes = &self.nodes;
        let told = self.value.is_empty() || self.message.contains(&self.value);
        let message = if told { self.message.clone() } else { format!("{}: {}", self.value, self.message) };
        let mut fields = serializer.serialize_struct("Finding", if nodes.is_empty() { 5 } else { 6 })?;
        fields.serialize_field("code", &self.code)?;
        fields.serialize_field("field", &self.field)?;
        fields.serialize_field("value", &self.value)?;
        fields.serialize_field("message", &message)?;
        fields.serialize_field("remedy", &self.remedy)?;
        if !nodes.is_empty() {
            fields.serialize_field("nodes", nodes)?;
        }
        fields.end()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.field)?;
        if !self.value.is_empty() {
            write!(f, " {:?}", self.value)?;
        }
        write!(f, ": {}", self.message)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// What people should know about a plan that stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// In the order of the fields they are about.
    pub warnings: Vec<Finding>,
}

/// Why there is no plan: everything that stands in the way, not the first thing only. Nothing was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{}", self.message(usize::MAX))]
pub struct Refusal {
    /// What stands in the way; never empty.
    pub findings: Vec<Finding>,
    /// What was noticed besides.
    pub warnings: Vec<Finding>,
}

impl Refusal {
    /// One finding that refuses.
    pub fn one(finding: Finding) -> Self {
        Self { findings: vec![finding], warnings: Vec::new() }
    }

    /// The reason for a condition: that of the first finding.
    pub fn code(&self) -> Code {
        self.findings.first().map_or(Code::InvalidPlan, |finding| finding.code)
    }

    /// All findings in one line of at most `chars_max` characters; what does not fit is counted.
    pub fn message(&self, chars_max: usize) -> String {
        const MORE_CHARS: usize = 20;
        let mut line = String::new();
        let mut chars = 0_usize;
        for (index, finding) in self.findings.iter().enumerate() {
            let mut text = finding.to_string();
            let separator = if index == 0 { "" } else { " | " };
            let room = chars_max.saturating_sub(chars + separator.len());
            let more = self.findings.len() - index;
            let fits = text.chars().count() + MORE_CHARS <= room || (more == 1 && text.chars().count() <= room);
            if !fits && index > 0 {
                let _ = write!(line, " | and {more} more");
                break;
            }
            cupcake_crds::limits::cut(&mut text, room.saturating_sub(if more > 1 { MORE_CHARS } else { 0 }));
            chars += separator.len() + text.chars().count();
            line.push_str(separator);
            line.push_str(&text);
        }
        line
    }
}

/// Collects findings until it is clear whether there is a plan.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub refused: Vec<Finding>,
    pub warnings: Vec<Finding>,
}

impl Findings {
    pub fn refuse(&mut self, finding: Finding) {
        self.refused.push(finding);
    }

    pub fn warn(&mut self, finding: Finding) {
        self.warnings.push(finding);
    }

    /// Takes what was found elsewhere.
    pub fn append(&mut self, mut others: Self) {
        self.refused.append(&mut others.refused);
        self.warnings.append(&mut others.warnings);
    }

    /// The report if nothing refuses.
    pub fn end(self) -> Result<Report, Refusal> {
        if self.refused.is_empty() {
            Ok(Report { warnings: self.warnings })
        } else {
            Err(Refusal { findings: self.refused, warnings: self.warnings })
        }
    }
}

/// How many names one finding gives; the rest are counted.
const NAMES_MAX: usize = 5;

/// `a, b, c and 4 more`
pub(crate) fn named<T: fmt::Display>(names: impl IntoIterator<Item = T>) -> String {
    let mut text = String::new();
    let mut count = 0_usize;
    for name in names {
        if count < NAMES_MAX {
            text.push_str(if count == 0 { "" } else { ", " });
            text.push_str(&name.to_string());
        }
        count += 1;
    }
    match count.saturating_sub(NAMES_MAX) {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(message: &str) -> Finding {
        Finding::new(Code::OutOfRange, "spec.concurrency", 0, message, "set 1 or more")
    }

    #[test]
    fn a_finding_names_field_value_fault_and_remedy() {
        assert_eq!(finding("no node at once").to_string(), "spec.concurrency \"0\": no node at once; set 1 or more");
    }

    #[test]
    fn for_programs_the_message_names_the_value_and_all_nodes_stand_beside_it() {
        let names: Vec<String> = (1..=8).map(|number| format!("w-{number}")).collect();
        let told = |finding: Finding| serde_json::to_value(finding).unwrap();
        let many =
            told(Finding::new(Code::ForeignNode, "nodes", named(&names), "not ours", "").of_nodes(names.clone()));
        assert_eq!(many["message"], "w-1, w-2, w-3, w-4, w-5 and 3 more: not ours");
        assert_eq!(many["nodes"], serde_json::json!(names));
        let said = told(Finding::new(Code::Downgrade, "spec.targetVersion", "1.33.0", "1.33.0 is older", ""));
        assert_eq!((&said["message"], said.get("nodes")), (&"1.33.0 is older".into(), None));
    }

    #[test]
    fn a_refusal_in_one_line_holds_all_that_fits_and_counts_the_rest() {
        let findings = vec![finding("first"), finding("second"), finding("third")];
        let refusal = Refusal { findings, warnings: Vec::new() };
        assert_eq!(refusal.to_string().matches("set 1 or more").count(), 3);
        for chars_max in 30..200 {
            let line = refusal.message(chars_max);
            assert!(line.chars().count() <= chars_max, "{chars_max}: {line}");
        }
        assert!(refusal.message(100).ends_with("and 2 more"), "{}", refusal.message(100));
    }

    #[test]
    fn many_names_are_cut_and_counted() {
        assert_eq!(named(["a"]), "a");
        assert_eq!(named(1..=5), "1, 2, 3, 4, 5");
        assert_eq!(named(1..=15_000), "1, 2, 3, 4, 5 and 14995 more");
    }
}
