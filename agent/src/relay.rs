//! What the agent does next: a pure function of its task, the mailbox and the time.
//!
//! ```text
//!   unclaimed order   asked to stop: Stopped · unfit: Refused · mailbox busy: ask that order to stop · else: Claimed
//!   claimed order     mailbox behind: put it there · no final answer: see that the runner runs
//!   answer            final, Prepared: report · a step at work for long: report, once a minute at most
//!   inventory asked   not known to the runner: pass it on · answered: compare the clocks, report
//! ```
//! Writes are few by design: claim, Prepared, final answer, inventory.

use crate::clocks::Compared;
use chrono::TimeDelta;
use cupcake_crds::node_task::{ErrorClass, NodeInventory, Order, TaskError, TaskState};
use cupcake_crds::values::NodeRef;
use cupcake_crds::{NodeTask, NodeTaskStatus};
use cupcake_engine::clock::{Timestamp, whole_seconds};
use cupcake_steps::host::params::ORDER_KINDS;
use cupcake_steps::mailbox::{Answer, MailOrder, MailboxError, Verdict};

/// After how long a step is reported that is still at work, and how often at most, in seconds.
pub const PROGRESS_SECONDS: i64 = 60;
/// How soon the agent looks again while the machine has something to do, in seconds: the runner may need another start.
pub const PENDING_AGAIN_SECONDS: i64 = 5;

/// The mailbox as read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mail {
    /// The order that lies there.
    pub order: Option<MailOrder>,
    /// The runner's last answer.
    pub answer: Option<Answer>,
    /// The inventory that was asked for last.
    pub inventory_request: Option<String>,
    /// The runner's last inventory.
    pub inventory: Option<NodeInventory>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Take the order: write this status, after reading the task once more.
    Claim(Box<NodeTaskStatus>),
    /// Write this status.
    Report(Box<NodeTaskStatus>),
    /// Put this order into the mailbox.
    PutOrder(Box<MailOrder>),
    /// Ask the runner for an inventory of that name.
    RequestInventory(String),
    /// Read the task once more: what the answer's date tells of the clocks is what an inventory still lacks.
    CompareClocks,
    /// See that the runner runs.
    StartRunner,
}

/// What is to be done, in order, and when to look again even if nothing changes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Relay {
    /// What to do now. After a claim, a report or a comparison the rest is decided anew.
    pub actions: Vec<Action>,
    /// When to look again.
    pub wake_at: Option<Timestamp>,
}

impl Relay {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// Decides what the agent does next.
///
/// # Guarantees
/// An order is put into the mailbox only after it is claimed, and claimed only if nothing else is open there. An answer is
/// reported only under the token it was given for. A final answer that is reported is never touched again. An inventory is
/// reported with what a comparison of the clocks came to that was made for it, or just before.
pub fn relay(task: &NodeTask, mail: Result<&Mail, &MailboxError>, compared: Option<Compared>, now: Timestamp) -> Relay {
    let mut relay = Relay::default();
    let old = task.status.clone().unwrap_or_default();
    let mut new = old.clone();
    let mut claims = false;
    if let Some(order) = &task.spec.order {
        claims = of_order(task, order, mail, now, &mut new, &mut relay);
    }
    if let (Some(request), Ok(mail)) = (&task.spec.inventory_request, mail) {
        of_inventory(request, task.spec.order.as_ref(), (mail, compared), now, &mut new, &mut relay);
    }
    // One write for all: what else there is to write waits for the comparison.
    if new != old && !relay.actions.contains(&Action::CompareClocks) {
        new.updated_at = Some(whole_seconds(now));
        new.bound();
        let status = Box::new(new);
        relay.actions.push(if claims { Action::Claim(status) } else { Action::Report(status) });
    }
    relay
}

/// What the order asks for; whether the new status claims it.
fn of_order(
    task: &NodeTask,
    order: &Order,
    mail: Result<&Mail, &MailboxError>,
    now: Timestamp,
    new: &mut NodeTaskStatus,
    relay: &mut Relay,
) -> bool {
    let state = task.answer();
    if state.is_some_and(TaskState::is_final) {
        return false;
    }
    let claimed = state.is_some();
    if !claimed && order.stop {
        answer_anew(new, order, TaskState::Stopped);
        new.message = Some("stopped before it was begun".to_owned());
        return false;
    }
    let mail = match mail {
        Ok(mail) => mail,
        Err(MailboxError::Disk(_)) => {
            relay.wake(now + TimeDelta::seconds(PENDING_AGAIN_SECONDS));
            return false;
        }
        Err(
            error @ (MailboxError::Malformed { .. }
            | MailboxError::NewerFormat { .. }
            | MailboxError::TooLarge { .. }
            | MailboxError::EpochBack { .. }
            | MailboxError::Occupied(_)
            | MailboxError::Changed(_)
            | MailboxError::NotAsked(_)
            | MailboxError::Answered(_)),
        ) => {
            if claimed {
                // The runner may still be at work: whoever looks sees why nothing is heard of it.
                new.message = Some(error.to_string());
            } else {
                refuse(new, order, ErrorClass::NeedsOperator, "MailboxUnreadable", error.to_string());
            }
            return false;
        }
    };
    if let Some(open) = open_beside(mail, order) {
        // The API never gives out an order beside an open one: this one is of a node that was deleted and came back.
        let mut stopped = open.clone();
        stopped.order.stop = true;
        if stopped != *open {
            relay.actions.push(Action::PutOrder(Box::new(stopped)));
        }
        relay.actions.push(Action::StartRunner);
        relay.wake(now + TimeDelta::seconds(PENDING_AGAIN_SECONDS));
        return false;
    }
    if !claimed {
        if let Some((class, code, message)) = unfit(task, order, mail) {
            refuse(new, order, class, code, message);
            return false;
        }
        answer_anew(new, order, TaskState::Claimed);
        return true;
    }
    of_claimed(task, order, mail, now, new, relay);
    false
}

fn of_claimed(
    task: &NodeTask,
    order: &Order,
    mail: &Mail,
    now: Timestamp,
    new: &mut NodeTaskStatus,
    relay: &mut Relay,
) {
    let answer = mail.answer.as_ref().filter(|answer| answer.key == order.key);
    if let Some(answer) = answer.filter(|answer| answer.verdict.state().is_final()) {
        report(new, answer);
        return;
    }
    let wanted = wanted(task, order, mail.order.as_ref());
    if mail.order.as_ref() != Some(&wanted) {
        relay.actions.push(Action::PutOrder(Box::new(wanted)));
    }
    relay.actions.push(Action::StartRunner);
    relay.wake(now + TimeDelta::seconds(PENDING_AGAIN_SECONDS));
    let Some(answer) = answer else {
        return;
    };
    match answer.verdict {
        // With proceed set nobody waits for this any more.
        Verdict::Prepared if !order.proceed && new.state != Some(TaskState::Prepared) => report(new, answer),
        Verdict::Working if is_news(new, answer, now) => report(new, answer),
        Verdict::Prepared
        | Verdict::Working
        | Verdict::Done
        | Verdict::Failed { .. }
        | Verdict::Refused { .. }
        | Verdict::Stopped => {}
    }
}

/// Whether a step at work is worth a write: at work for long, not the one that is shown, and none was written lately.
fn is_news(status: &NodeTaskStatus, answer: &Answer, now: Timestamp) -> bool {
    let long_ago = |at: Option<Timestamp>| at.is_none_or(|at| now - at >= TimeDelta::seconds(PROGRESS_SECONDS));
    let shown = status.state == Some(TaskState::Working) && status.step == answer.step;
    // What a step waits for is told as it changes: somebody may be looking for it, and each wait is told by its step once.
    if status.waiting != answer.waiting {
        return true;
    }
    answer.step_since.is_some() && long_ago(answer.step_since) && long_ago(status.updated_at) && !shown
}

fn of_inventory(
    request: &str,
    order: Option<&Order>,
    (mail, compared): (&Mail, Option<Compared>),
    now: Timestamp,
    new: &mut NodeTaskStatus,
    relay: &mut Relay,
) {
    let is_of = |inventory: &Option<NodeInventory>| {
        inventory.as_ref().and_then(|inventory| inventory.request.as_deref()) == Some(request)
    };
    if is_of(&new.inventory) {
        return;
    }
    if let Some(open) = open_unknown(order, mail) {
        // An order that the API knows no more (its NodeTask or its Node was deleted) is under way here: whoever asks is about to plan
        // on what this machine is, and would do so beside it. It is asked to stop, and the question is answered when it is over.
        let mut stopped = open.clone();
        stopped.order.stop = true;
        let put = Action::PutOrder(Box::new(stopped));
        if matches!(&put, Action::PutOrder(mail) if **mail != *open) && !relay.actions.contains(&put) {
            relay.actions.push(put);
        }
        if !relay.actions.contains(&Action::StartRunner) {
            relay.actions.push(Action::StartRunner);
        }
        new.message = Some(format!("still at work on {}, which nobody knows any more; asked to stop", open.order.key));
        relay.wake(now + TimeDelta::seconds(PENDING_AGAIN_SECONDS));
        return;
    }
    if let Some(taken) = mail.inventory.as_ref().filter(|_| is_of(&mail.inventory)) {
        match compared.filter(|compared| compared.stands(now)) {
            Some(compared) => {
                new.inventory = Some(NodeInventory { clock: compared.clock, ..taken.clone() });
                if new.key.is_none() {
                    new.message = None;
                }
            }
            None => relay.actions.push(Action::CompareClocks),
        }
        return;
    }
    if mail.inventory_request.as_deref() != Some(request) {
        relay.actions.push(Action::RequestInventory(request.to_owned()));
    }
    if !relay.actions.contains(&Action::StartRunner) {
        relay.actions.push(Action::StartRunner);
    }
    relay.wake(now + TimeDelta::seconds(PENDING_AGAIN_SECONDS));
}

/// The order as it is to lie in the mailbox: what was asked for once stays asked for, and no epoch goes back.
fn wanted(task: &NodeTask, order: &Order, lying: Option<&MailOrder>) -> MailOrder {
    let node = NodeRef { name: task.spec.node_name.clone(), uid: task.spec.node_uid.clone() };
    let mut wanted = MailOrder { node, order: order.clone() };
    if let Some(lying) = lying.filter(|lying| lying.order.key == order.key) {
        wanted.order.epoch = wanted.order.epoch.max(lying.order.epoch);
        wanted.order.proceed |= lying.order.proceed;
        wanted.order.stop |= lying.order.stop;
    }
    wanted
}

/// An order that lies in the mailbox without its final answer, and is not the one that the API shows.
fn open_unknown<'m>(order: Option<&Order>, mail: &'m Mail) -> Option<&'m MailOrder> {
    match order {
        Some(order) => open_beside(mail, order),
        None => mail.order.as_ref().filter(|lying| !is_answered(mail, lying)),
    }
}

fn is_answered(mail: &Mail, lying: &MailOrder) -> bool {
    mail.answer.as_ref().is_some_and(|answer| answer.key == lying.order.key && answer.verdict.state().is_final())
}

/// Another order that lies in the mailbox without its final answer.
fn open_beside<'m>(mail: &'m Mail, order: &Order) -> Option<&'m MailOrder> {
    let lying = mail.order.as_ref().filter(|lying| lying.order.key != order.key)?;
    (!is_answered(mail, lying)).then_some(lying)
}

/// Why an order is not taken, if it is not.
fn unfit(task: &NodeTask, order: &Order, mail: &Mail) -> Option<(ErrorClass, &'static str, String)> {
    let answered = task.status.as_ref().and_then(|status| status.epoch);
    let lying = mail.order.as_ref().map(|lying| lying.order.epoch);
    let seen = answered.into_iter().chain(lying).fold(task.spec.epoch, u64::max);
    if order.epoch < seen {
        let message = format!(
            "the order has epoch {}, this node has seen epoch {seen}; if that was another cluster's, \
             `cupcake-host forget` on the machine lets go of it",
            order.epoch
        );
        return Some((ErrorClass::Transient, "StaleEpoch", message));
    }
    let unknown = order.prepare.iter().chain(&order.finish).find(|step| !ORDER_KINDS.contains(&step.kind.as_str()))?;
    let message = format!(
        "step {} has kind {}, which this release does not have: run agent and operator of one release",
        unknown.name, unknown.kind
    );
    Some((ErrorClass::NeedsOperator, "UnknownStepKind", message))
}

fn refuse(new: &mut NodeTaskStatus, order: &Order, class: ErrorClass, code: &str, message: String) {
    answer_anew(new, order, TaskState::Refused);
    new.message = Some(message.clone());
    new.error = Some(TaskError { class, code: code.to_owned(), message });
}

/// An answer to an order that had none: nothing of an earlier one is left.
fn answer_anew(new: &mut NodeTaskStatus, order: &Order, state: TaskState) {
    new.key = Some(order.key.clone());
    new.state = Some(state);
    new.epoch = new.epoch.max(Some(order.epoch));
    new.step = None;
    new.message = None;
    new.error = None;
    new.waiting = None;
    new.outputs.clear();
}

fn report(new: &mut NodeTaskStatus, answer: &Answer) {
    new.state = Some(answer.verdict.state());
    new.error = answer.verdict.error().cloned();
    new.step.clone_from(&answer.step);
    new.message.clone_from(&answer.message);
    new.waiting.clone_from(&answer.waiting);
    new.outputs.clone_from(&answer.outputs);
    if answer.boot_id.is_some() {
        new.boot_id.clone_from(&answer.boot_id);
    }
}
