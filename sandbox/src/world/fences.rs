//! The fences of the protocol, each of which can be left out of a world: to show that it is needed.
//!
//! A fence is left out where it stands: a rule is not in the definitions that the world's API server serves, a precondition is
//! not looked at by it, a lock keeps nobody out, a memory forgets. The programs are the same.

use crate::api::{Definitions, Leniency, PatchOf};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// A fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fence {
    /// `test` operations of JSON patches that claim an order: it is the one that was read, nobody asked it to stop, nobody was faster.
    ClaimTests,
    /// `test` operations of JSON patches that answer an order: the answer that stands there is the one that was read.
    AnswerTests,
    /// `test` operations of JSON patches that tell what the machine is: nothing but that is written over what was read.
    InventoryTests,
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
    /// resourceVersion of an update.
    UpdateVersions,
    /// The epoch of the run that a leader reads: it looks whether it still leads, before each write to a Node or a Pod above all.
    LeaderLooks,
    /// A new leader's stamp: its epoch stands in every run and task before it decides anything.
    LeaderStamp,
    /// A child run is one by its parent's UID, not by names.
    ChildUids,
    /// Commit ids: a leader whose commit failed looks whose commit stands there.
    CommitIds,
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
    /// CRD rule: an answer stays.
    AnswerStays,
    /// CRD rule: a task stays that of its Node.
    TaskNode,
    /// CRD rules: what was asked for stays as it was, once a run carries it out.
    UpdateFrozen,
    /// CRD rule: an update keeps its run.
    UpdateRun,
    /// CRD rule: what a run carries out stays.
    RunFrozen,
    /// CRD rule: a plan stays.
    PlanFrozen,
    /// The runner's lock.
    RunnerLock,
    /// An agent takes no order of a lower epoch than its task carries.
    AgentTaskEpoch,
    /// An agent takes no order of a lower epoch than its last answer carries.
    AgentAnswerEpoch,
    /// An agent takes no order of a lower epoch than that in the mailbox, and puts none there.
    MailboxEpoch,
    /// A runner takes no order of a lower epoch than the highest that it has worked for.
    RunnerEpoch,
}

impl Fence {
    /// All of them.
    pub const ALL: [Self; 36] = [
        Self::ClaimTests,
        Self::AnswerTests,
        Self::InventoryTests,
        Self::Uids,
        Self::RunVersions,
        Self::TaskVersions,
        Self::NodeVersions,
        Self::LeaseVersions,
        Self::UpdateVersions,
        Self::LeaderLooks,
        Self::LeaderStamp,
        Self::ChildUids,
        Self::CommitIds,
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
        Self::AnswerStays,
        Self::TaskNode,
        Self::UpdateFrozen,
        Self::UpdateRun,
        Self::RunFrozen,
        Self::PlanFrozen,
        Self::RunnerLock,
        Self::AgentTaskEpoch,
        Self::AgentAnswerEpoch,
        Self::MailboxEpoch,
        Self::RunnerEpoch,
    ];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClaimTests => "claim-tests",
            Self::AnswerTests => "answer-tests",
            Self::InventoryTests => "inventory-tests",
            Self::Uids => "uids",
            Self::RunVersions => "run-versions",
            Self::TaskVersions => "task-versions",
            Self::NodeVersions => "node-versions",
            Self::LeaseVersions => "lease-versions",
            Self::UpdateVersions => "update-versions",
            Self::LeaderLooks => "leader-looks",
            Self::LeaderStamp => "leader-stamp",
            Self::ChildUids => "child-uids",
            Self::CommitIds => "commit-ids",
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
            Self::AnswerStays => "answer-stays",
            Self::TaskNode => "task-node",
            Self::UpdateFrozen => "update-frozen",
            Self::UpdateRun => "update-run",
            Self::RunFrozen => "run-frozen",
            Self::PlanFrozen => "plan-frozen",
            Self::RunnerLock => "runner-lock",
            Self::AgentTaskEpoch => "agent-task-epoch",
            Self::AgentAnswerEpoch => "agent-answer-epoch",
            Self::MailboxEpoch => "mailbox-epoch",
            Self::RunnerEpoch => "runner-epoch",
        }
    }

    /// Whether a schedule is looked for that does no harm at all once it stands: not for those behind rules of the API server, which
    /// have to be left out beside them, and whose absence is harm of its own.
    pub const fn stands_behind_others(self) -> bool {
        matches!(
            self,
            Self::AnswerEpoch | Self::AgentTaskEpoch | Self::AgentAnswerEpoch | Self::MailboxEpoch | Self::RunnerEpoch
        )
    }

    /// The definition that the rule is in, and what is in its message; `None` for what is no rule.
    const fn rule(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::ClaimTests
            | Self::AnswerTests
            | Self::InventoryTests
            | Self::Uids
            | Self::RunVersions
            | Self::TaskVersions
            | Self::NodeVersions
            | Self::LeaseVersions
            | Self::UpdateVersions
            | Self::LeaderLooks
            | Self::LeaderStamp
            | Self::ChildUids
            | Self::CommitIds
            | Self::RunnerLock
            | Self::AgentTaskEpoch
            | Self::AgentAnswerEpoch
            | Self::MailboxEpoch
            | Self::RunnerEpoch => None,
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
            Self::AnswerStays => Some(("nodetasks", "status.key cannot be removed")),
            Self::TaskNode => Some(("nodetasks", "spec.nodeName and spec.nodeUid cannot change")),
            Self::UpdateFrozen => Some(("directupdates", "cannot change once status.run names a run (only")),
            Self::UpdateRun => Some(("directupdates", "status.run cannot change once it names a run")),
            Self::RunFrozen => Some(("upgraderuns", "only concurrency can change in the spec of a run")),
            Self::PlanFrozen => Some(("upgradeplans", "a plan is written once and never changed")),
        }
    }

    /// The resource whose versions are looked at.
    const fn versions(self) -> Option<&'static str> {
        match self {
            Self::RunVersions => Some("upgraderuns"),
            Self::TaskVersions => Some("nodetasks"),
            Self::NodeVersions => Some("nodes"),
            Self::LeaseVersions => Some("leases"),
            Self::UpdateVersions => Some("directupdates"),
            Self::ClaimTests
            | Self::AnswerTests
            | Self::InventoryTests
            | Self::Uids
            | Self::LeaderLooks
            | Self::LeaderStamp
            | Self::ChildUids
            | Self::CommitIds
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
            | Self::AnswerStays
            | Self::TaskNode
            | Self::UpdateFrozen
            | Self::UpdateRun
            | Self::RunFrozen
            | Self::PlanFrozen
            | Self::RunnerLock
            | Self::AgentTaskEpoch
            | Self::AgentAnswerEpoch
            | Self::MailboxEpoch
            | Self::RunnerEpoch => None,
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
#[error("{0:?} names no fence; docs/fences.md has the list")]
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
        tests_of: [
            (Fence::ClaimTests, PatchOf::Claim),
            (Fence::AnswerTests, PatchOf::Answer),
            (Fence::InventoryTests, PatchOf::Inventory),
        ]
        .into_iter()
        .filter_map(|(fence, of)| without.contains(&fence).then_some(of))
        .collect(),
        uids: without.contains(&Fence::Uids),
        versions: without.iter().filter_map(|fence| fence.versions()).map(str::to_owned).collect(),
    }
}

/// Our definitions without the rules of those fences.
pub(super) fn definitions(without: &BTreeSet<Fence>) -> Definitions {
    let mut definitions = cupcake_crds::definitions();
    for (plural, says) in without.iter().filter_map(|fence| fence.rule()) {
        for definition in definitions.iter_mut().filter(|definition| definition.spec.names.plural == plural) {
            let schemas = definition.spec.versions.iter_mut().filter_map(|version| version.schema.as_mut());
            let schemas = schemas.filter_map(|schema| schema.open_api_v3_schema.as_mut());
            for schema in schemas {
                let spec = schema.properties.as_mut().and_then(|properties| properties.get_mut("spec"));
                let nested = spec.and_then(|spec| spec.x_kubernetes_validations.as_mut());
                for rules in schema.x_kubernetes_validations.as_mut().into_iter().chain(nested) {
                    rules.retain(|rule| !rule.message.as_deref().unwrap_or_default().contains(says));
                }
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
            let Some((plural, says)) = fence.rule() else { continue };
            let definitions = cupcake_crds::definitions();
            let definition = definitions.iter().find(|definition| definition.spec.names.plural == plural).unwrap();
            let schema = definition.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
            let spec = schema.properties.as_ref().and_then(|properties| properties.get("spec"));
            let nested = spec.and_then(|spec| spec.x_kubernetes_validations.as_ref());
            let rules = schema.x_kubernetes_validations.iter().chain(nested).flatten();
            let named = rules.filter(|rule| rule.message.as_deref().unwrap_or_default().contains(says)).count();
            // Each field of an update that has to stay has a rule of its own.
            assert!(named == 1 || (fence == Fence::UpdateFrozen && named > 10), "{fence}: {says}: {named}");
        }
    }

    #[test]
    fn every_rule_that_looks_at_what_was_there_before_is_a_fence_with_a_name_or_keeps_a_word_of_a_person() {
        // What is left out stays left out, and a schedule's update stays: no second writer is kept away by them.
        let words = ["a node in spec.control.skip stays left out", "spec cannot change once status.directUpdateName"];
        let fences: Vec<_> = Fence::ALL.into_iter().filter_map(Fence::rule).collect();
        for definition in cupcake_crds::definitions() {
            let plural = &definition.spec.names.plural;
            let schema = definition.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
            let mut left = vec![schema];
            while let Some(schema) = left.pop() {
                left.extend(schema.properties.iter().flat_map(|properties| properties.values()));
                for rule in
                    schema.x_kubernetes_validations.iter().flatten().filter(|rule| rule.rule.contains("oldSelf"))
                {
                    let message = rule.message.as_deref().unwrap_or_default();
                    let named = fences.iter().any(|(of, says)| of == plural && message.contains(says));
                    assert!(named || words.iter().any(|word| message.starts_with(word)), "{plural}: {message}");
                }
            }
        }
    }
}
