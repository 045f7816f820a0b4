//! The fences of the protocol, each of which can be left out of a world: to show that it is needed.
//!
//! A fence is left out where it stands: a rule is not in the definitions that the world's API server serves, a precondition is
//! not looked at by it, a lock keeps nobody out, a memory forgets. The programs are the same.

use crate::api::{Definitions, Leniency};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// A fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fence {
    /// `test` operations of JSON patches: an agent's claim or answer rests on what it read.
    TestOperations,
    /// UID preconditions: of pods that are evicted, of objects that are written back.
    Uids,
    /// resourceVersion of a run.
    RunVersions,
    /// resourceVersion of a task.
    TaskVersions,
    /// resourceVersion of a Node.
    NodeVersions,
    /// resourceVersion of the Lease.
    LeaseVersions,
    /// CRD rule: the epoch of a run grows.
    RunEpoch,
    /// CRD rule: the commit of a run grows.
    RunCommit,
    /// CRD rule: the end of a run stays.
    RunFinal,
    /// CRD rule: the epoch of a task grows.
    TaskEpoch,
    /// CRD rule: the epoch of a task's order grows.
    OrderEpoch,
    /// CRD rule: an order is the present leader's.
    PresentLeader,
    /// CRD rule: a claimed order is not replaced.
    ClaimedStays,
    /// CRD rule: what an order asks for stays.
    ContentStays,
    /// CRD rule: proceed and stop are not withdrawn.
    RequestsStay,
    /// CRD rule: an answer is one to the order that stands there.
    AnswerUnderKey,
    /// CRD rule: the state of an answer does not go back.
    StateGoesOn,
    /// CRD rule: the epoch of an answer grows.
    AnswerEpoch,
    /// The runner's lock.
    RunnerLock,
    /// What agents and runners remember of epochs: they refuse an order of a lower one.
    RememberedEpoch,
}

impl Fence {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::TestOperations,
        Self::Uids,
        Self::RunVersions,
        Self::TaskVersions,
        Self::NodeVersions,
        Self::LeaseVersions,
        Self::RunEpoch,
        Self::RunCommit,
        Self::RunFinal,
        Self::TaskEpoch,
        Self::OrderEpoch,
        Self::PresentLeader,
        Self::ClaimedStays,
        Self::ContentStays,
        Self::RequestsStay,
        Self::AnswerUnderKey,
        Self::StateGoesOn,
        Self::AnswerEpoch,
        Self::RunnerLock,
        Self::RememberedEpoch,
    ];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TestOperations => "test-operations",
            Self::Uids => "uids",
            Self::RunVersions => "run-versions",
            Self::TaskVersions => "task-versions",
            Self::NodeVersions => "node-versions",
            Self::LeaseVersions => "lease-versions",
            Self::RunEpoch => "run-epoch",
            Self::RunCommit => "run-commit",
            Self::RunFinal => "run-final",
            Self::TaskEpoch => "task-epoch",
            Self::OrderEpoch => "order-epoch",
            Self::PresentLeader => "present-leader",
            Self::ClaimedStays => "claimed-stays",
            Self::ContentStays => "content-stays",
            Self::RequestsStay => "requests-stay",
            Self::AnswerUnderKey => "answer-under-key",
            Self::StateGoesOn => "state-goes-on",
            Self::AnswerEpoch => "answer-epoch",
            Self::RunnerLock => "runner-lock",
            Self::RememberedEpoch => "remembered-epoch",
        }
    }

    /// Whether a schedule is looked for that does no harm at all once it stands: not for those behind rules of the API server, which
    /// have to be left out beside them, and whose absence is harm of its own.
    pub const fn stands_behind_others(self) -> bool {
        matches!(self, Self::RememberedEpoch | Self::AnswerEpoch)
    }

    /// The definition that the rule is in, and how what it says begins; `None` for what is no rule.
    const fn rule(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::TestOperations
            | Self::Uids
            | Self::RunVersions
            | Self::TaskVersions
            | Self::NodeVersions
            | Self::LeaseVersions
            | Self::RunnerLock
            | Self::RememberedEpoch => None,
            Self::RunEpoch => Some(("upgraderuns", "status.epoch cannot decrease")),
            Self::RunCommit => Some(("upgraderuns", "status.commit cannot go back")),
            Self::RunFinal => Some(("upgraderuns", "status.phase cannot change")),
            Self::TaskEpoch => Some(("nodetasks", "spec.epoch cannot decrease")),
            Self::OrderEpoch => Some(("nodetasks", "spec.order cannot be removed")),
            Self::PresentLeader => Some(("nodetasks", "a new or changed spec.order")),
            Self::ClaimedStays => Some(("nodetasks", "the node has claimed spec.order")),
            Self::ContentStays => Some(("nodetasks", "only proceed, stop and epoch of spec.order")),
            Self::RequestsStay => Some(("nodetasks", "proceed and stop of spec.order")),
            Self::AnswerUnderKey => Some(("nodetasks", "status.key is not that of spec.order")),
            Self::StateGoesOn => Some(("nodetasks", "status.state cannot change")),
            Self::AnswerEpoch => Some(("nodetasks", "status.epoch cannot decrease")),
        }
    }

    /// The resource whose versions are looked at.
    const fn versions(self) -> Option<&'static str> {
        match self {
            Self::RunVersions => Some("upgraderuns"),
            Self::TaskVersions => Some("nodetasks"),
            Self::NodeVersions => Some("nodes"),
            Self::LeaseVersions => Some("leases"),
            Self::TestOperations
            | Self::Uids
            | Self::RunEpoch
            | Self::RunCommit
            | Self::RunFinal
            | Self::TaskEpoch
            | Self::OrderEpoch
            | Self::PresentLeader
            | Self::ClaimedStays
            | Self::ContentStays
            | Self::RequestsStay
            | Self::AnswerUnderKey
            | Self::StateGoesOn
            | Self::AnswerEpoch
            | Self::RunnerLock
            | Self::RememberedEpoch => None,
        }
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no fence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no fence; docs/sandbox.md has the list")]
pub struct InvalidFence(String);

impl FromStr for Fence {
    type Err = InvalidFence;

    fn from_str(text: &str) -> Result<Self, InvalidFence> {
        let fence = Self::ALL.into_iter().find(|fence| fence.as_str() == text);
        fence.ok_or_else(|| InvalidFence(text.chars().take(64).collect()))
    }
}

/// What an API server without those fences lets through.
pub(super) fn leniency(without: &BTreeSet<Fence>) -> Leniency {
    Leniency {
        test_operations: without.contains(&Fence::TestOperations),
        uids: without.contains(&Fence::Uids),
        versions: without.iter().filter_map(|fence| fence.versions()).map(str::to_owned).collect(),
    }
}

/// Our definitions without the rules of those fences.
pub(super) fn definitions(without: &BTreeSet<Fence>) -> Definitions {
    let mut definitions = cupcake_crds::definitions();
    for (plural, begins) in without.iter().filter_map(|fence| fence.rule()) {
        for definition in definitions.iter_mut().filter(|definition| definition.spec.names.plural == plural) {
            let schemas = definition.spec.versions.iter_mut().filter_map(|version| version.schema.as_mut());
            let schemas = schemas.filter_map(|schema| schema.open_api_v3_schema.as_mut());
            for rules in schemas.filter_map(|schema| schema.x_kubernetes_validations.as_mut()) {
                rules.retain(|rule| !rule.message.as_deref().unwrap_or_default().starts_with(begins));
            }
        }
    }
    Definitions::new(&definitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fence_has_a_name_of_its_own_and_every_rule_is_one_that_stands_in_a_definition() {
        for fence in Fence::ALL {
            assert_eq!(fence.to_string().parse(), Ok(fence));
            let Some((plural, begins)) = fence.rule() else { continue };
            let definitions = cupcake_crds::definitions();
            let definition = definitions.iter().find(|definition| definition.spec.names.plural == plural).unwrap();
            let schema = definition.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
            let rules = schema.x_kubernetes_validations.iter().flatten();
            let named = rules.filter(|rule| rule.message.as_deref().unwrap_or_default().starts_with(begins));
            assert_eq!(named.count(), 1, "{fence}: {begins}");
        }
    }
}
