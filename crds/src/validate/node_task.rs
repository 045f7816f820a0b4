//! Rules of [`NodeTask`]: the discipline of the mailbox, all of it enforced by the API server.
//!
//! All rules stand at the root of the schema, since rules there see spec and status together, on both endpoints.

use super::{CelRule, Checks, Validate, Violations, json, same, shown};
use crate::{
    NodeTask, NodeTaskStatus,
    node_task::{Order, TaskState},
};
use kube_core::ResourceExt;

/// CEL: the answer of `$at` is to its order. Field by field: the API server's CEL compares objects of one type only.
macro_rules! answers {
    ($at:literal) => {
        concat!(
            $at,
            ".status.key.runUid == ",
            $at,
            ".spec.order.key.runUid && ",
            $at,
            ".status.key.vertex == ",
            $at,
            ".spec.order.key.vertex && ",
            $at,
            ".status.key.attempt == ",
            $at,
            ".spec.order.key.attempt"
        )
    };
}

/// CEL: both had and have an order, under the same token.
macro_rules! same_order {
    () => {
        "has(self.spec.order) && has(oldSelf.spec.order) && self.spec.order.key == oldSelf.spec.order.key"
    };
}

/// CEL: both had and have an answer, under the same token.
macro_rules! same_answer {
    () => {
        "has(self.status) && has(self.status.key) && has(oldSelf.status) && has(oldSelf.status.key) && self.status.key == oldSelf.status.key"
    };
}

/// CEL: the old order was claimed and not yet answered.
macro_rules! was_claimed {
    () => {
        concat!(
            "(has(oldSelf.spec.order) && has(oldSelf.status) && has(oldSelf.status.key) && ",
            answers!("oldSelf"),
            " && !(has(oldSelf.status.state) && oldSelf.status.state in ['Done', 'Failed', 'Refused', 'Stopped']))"
        )
    };
}

pub(crate) const NAMED_AFTER_NODE: CelRule = (
    "self.metadata.name == self.spec.nodeName",
    "a task is named after its node: make metadata.name and spec.nodeName the same",
);
pub(crate) const NODE_STAYS: CelRule = (
    "self.spec.nodeName == oldSelf.spec.nodeName && self.spec.nodeUid == oldSelf.spec.nodeUid",
    "spec.nodeName and spec.nodeUid cannot change: delete the task, the operator creates one for the new node",
);
pub(crate) const EPOCH_GROWS: CelRule = (
    "self.spec.epoch >= oldSelf.spec.epoch",
    "spec.epoch cannot decrease: another leader has taken over; stop writing",
);
pub(crate) const ORDER_EPOCH_GROWS: CelRule = (
    "!has(oldSelf.spec.order) || (has(self.spec.order) && self.spec.order.epoch >= oldSelf.spec.order.epoch)",
    "spec.order cannot be removed, and its epoch cannot decrease: set stop, or write the next order under the present epoch",
);
pub(crate) const ORDER_OF_PRESENT_LEADER: CelRule = (
    "!has(self.spec.order) || (has(oldSelf.spec.order) && self.spec.order == oldSelf.spec.order) || self.spec.order.epoch >= self.spec.epoch",
    "a new or changed spec.order needs an epoch of at least spec.epoch: another leader has taken over; stop writing",
);
pub(crate) const CLAIMED_STAYS: CelRule = (
    concat!("!", was_claimed!(), " || (", same_order!(), ")"),
    "the node has claimed spec.order and not answered it yet: it cannot be replaced; set stop, or wait until status.state is Done, Failed, Refused or Stopped",
);
pub(crate) const CONTENT_STAYS: CelRule = (
    concat!(
        "!(",
        same_order!(),
        ") || (self.spec.order.targetVersion == oldSelf.spec.order.targetVersion && self.spec.order.deadlineSeconds == oldSelf.spec.order.deadlineSeconds && ",
        same!("spec.order.prepare"),
        " && ",
        same!("spec.order.finish"),
        " && ",
        same!("spec.order.traceparent"),
        ")"
    ),
    "only proceed, stop and epoch of spec.order can change under one key: write other work under another attempt",
);
pub(crate) const REQUESTS_STAY: CelRule = (
    concat!(
        "!(",
        same_order!(),
        ") || ((!oldSelf.spec.order.proceed || self.spec.order.proceed) && (!oldSelf.spec.order.stop || self.spec.order.stop))"
    ),
    "proceed and stop of spec.order cannot be withdrawn: the node may have acted on them already",
);
pub(crate) const ANSWER_UNDER_KEY: CelRule = (
    concat!(
        "!has(self.status) || !has(self.status.key) || (has(self.spec.order) && ",
        answers!("self"),
        ") || (",
        same_answer!(),
        " && ",
        same!("status.state"),
        " && ",
        same!("status.epoch"),
        " && ",
        same!("status.error"),
        " && ",
        same!("status.outputs"),
        ")"
    ),
    "status.key is not that of spec.order: an answer counts only under the key it was asked with; read the task again",
);
pub(crate) const ANSWER_STAYS: CelRule = (
    "!has(oldSelf.status) || !has(oldSelf.status.key) || (has(self.status) && has(self.status.key))",
    "status.key cannot be removed: an order that was claimed stays claimed until it is answered",
);
pub(crate) const KEY_AND_STATE: CelRule = (
    "!has(self.status) || has(self.status.key) == has(self.status.state)",
    "status.key and status.state go together: write both or none",
);
pub(crate) const STATE_GOES_ON: CelRule = (
    concat!(
        "!(",
        same_answer!(),
        ") || (has(self.status.state) && has(oldSelf.status.state) && self.status.state == oldSelf.status.state) || (!(has(oldSelf.status.state) && oldSelf.status.state in ['Done', 'Failed', 'Refused', 'Stopped']) && !(has(self.status.state) && self.status.state == 'Claimed'))"
    ),
    "status.state cannot change any more under this key, or go back to Claimed",
);
pub(crate) const ANSWER_EPOCH_GROWS: CelRule = (
    "!has(oldSelf.status) || !has(oldSelf.status.epoch) || (has(self.status) && has(self.status.epoch) && self.status.epoch >= oldSelf.status.epoch)",
    "status.epoch cannot decrease: the order of an older leader was claimed; read the task again",
);

impl Validate for NodeTask {
    fn validate(&self) -> Result<(), Violations> {
        let mut checks = Checks::default();
        every_time(&mut checks, self);
        checks.end()
    }

    fn validate_update(&self, old: &Self) -> Result<(), Violations> {
        let mut checks = Checks::default();
        every_time(&mut checks, self);
        spec(&mut checks, self, old);
        let nothing = NodeTaskStatus::default();
        let (new_status, old_status) =
            (self.status.as_ref().unwrap_or(&nothing), old.status.as_ref().unwrap_or(&nothing));
        status(&mut checks, self.spec.order.as_ref(), new_status, old_status);
        checks.end()
    }
}

fn every_time(checks: &mut Checks, task: &NodeTask) {
    checks.rule(NAMED_AFTER_NODE, task.name_any() == task.spec.node_name, "metadata.name", task.name_any());
    let paired = task.status.as_ref().is_none_or(|status| status.key.is_some() == status.state.is_some());
    checks.rule(KEY_AND_STATE, paired, "status.state", shown(task.status.as_ref().and_then(|s| s.state.as_ref())));
}

fn spec(checks: &mut Checks, new_task: &NodeTask, old_task: &NodeTask) {
    let (new, old) = (&new_task.spec, &old_task.spec);
    let same_node = new.node_name == old.node_name && new.node_uid == old.node_uid;
    checks.rule(NODE_STAYS, same_node, "spec.nodeUid", &new.node_uid);
    checks.rule(EPOCH_GROWS, new.epoch >= old.epoch, "spec.epoch", new.epoch);

    let epoch = |order: Option<&Order>| order.map(|order| order.epoch);
    let (new_epoch, old_epoch) = (epoch(new.order.as_ref()), epoch(old.order.as_ref()));
    checks.rule(ORDER_EPOCH_GROWS, new_epoch >= old_epoch, "spec.order.epoch", shown(new_epoch.as_ref()));
    let present = new.order == old.order || new_epoch.is_none_or(|epoch| epoch >= new.epoch);
    checks.rule(ORDER_OF_PRESENT_LEADER, present, "spec.order.epoch", shown(new_epoch.as_ref()));

    let key = new.order.as_ref().map(|order| &order.key);
    let kept = old_task.claimed().is_none_or(|claimed| key == Some(&claimed.key));
    checks.rule(CLAIMED_STAYS, kept, "spec.order.key", shown(key));
    if let (Some(new), Some(old)) = (&new.order, &old.order)
        && new.key == old.key
    {
        let mut asked = old.clone();
        (asked.epoch, asked.proceed, asked.stop) = (new.epoch, new.proceed, new.stop);
        checks.rule(CONTENT_STAYS, *new == asked, "spec.order", json(&new.key));
        let withdrawn = (old.proceed && !new.proceed) || (old.stop && !new.stop);
        checks.rule(REQUESTS_STAY, !withdrawn, "spec.order.proceed", new.proceed);
    }
}

fn status(checks: &mut Checks, order: Option<&Order>, new: &NodeTaskStatus, old: &NodeTaskStatus) {
    let asked = order.map(|order| &order.key);
    let untouched = new.key == old.key
        && new.state == old.state
        && new.epoch == old.epoch
        && new.error == old.error
        && new.outputs == old.outputs;
    let rightful = new.key.is_none() || new.key.as_ref() == asked || untouched;
    checks.rule(ANSWER_UNDER_KEY, rightful, "status.key", shown(new.key.as_ref()));
    checks.rule(ANSWER_STAYS, old.key.is_none() || new.key.is_some(), "status.key", shown(new.key.as_ref()));
    let same_answer = new.key.is_some() && new.key == old.key;
    let ended = old.state.is_some_and(TaskState::is_final);
    let goes_on = new.state == old.state || (!ended && new.state != Some(TaskState::Claimed));
    checks.rule(STATE_GOES_ON, !same_answer || goes_on, "status.state", shown(new.state.as_ref()));
    checks.rule(ANSWER_EPOCH_GROWS, new.epoch >= old.epoch, "status.epoch", shown(new.epoch.as_ref()));
}
