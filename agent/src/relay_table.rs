//! The relay as a table: what stands in the task and in the mailbox, and what the agent does about it.

use crate::clocks::Compared;
use crate::relay::{Action, Mail, PENDING_AGAIN_SECONDS, Relay, relay};
use chrono::{DateTime, TimeDelta};
use cupcake_crds::node_task::{ErrorClass, NodeInventory, NodeTaskSpec, Order, TaskError, TaskState, TaskWait};
use cupcake_crds::values::{HostStep, KubeVersion, NodeRef, OrderKey};
use cupcake_crds::{NodeTask, NodeTaskStatus};
use cupcake_engine::clock::Timestamp;
use cupcake_steps::host::params::{PULL_IMAGES, PullImages, host_step};
use cupcake_steps::mailbox::{Answer, MailOrder, MailboxError, Verdict};
use cupcake_steps::ports::disk::DiskError;

const VERSION: KubeVersion = KubeVersion::new(1, 34, 4);

pub(crate) fn now() -> Timestamp {
    DateTime::from_timestamp(1_790_000_000, 0).unwrap()
}

fn key(attempt: u32) -> OrderKey {
    OrderKey { run_uid: "run".into(), vertex: "w-1/prepare".into(), attempt }
}

pub(crate) fn order(attempt: u32) -> Order {
    Order {
        deadline_seconds: 600,
        epoch: 3,
        finish: Vec::new(),
        key: key(attempt),
        prepare: vec![host_step("pull-images", PULL_IMAGES, &PullImages { version: VERSION })],
        proceed: false,
        stop: false,
        target_version: VERSION,
        traceparent: None,
    }
}

pub(crate) fn task(order: Option<Order>, status: Option<NodeTaskStatus>) -> NodeTask {
    let spec =
        NodeTaskSpec { epoch: 3, inventory_request: None, node_name: "w-1".into(), node_uid: "node".into(), order };
    let mut task = NodeTask::new("w-1", spec);
    task.metadata.resource_version = Some("41".into());
    task.status = status;
    task
}

pub(crate) fn status(attempt: u32, state: TaskState) -> NodeTaskStatus {
    NodeTaskStatus {
        key: Some(key(attempt)),
        state: Some(state),
        epoch: Some(3),
        updated_at: Some(now() - TimeDelta::seconds(600)),
        ..NodeTaskStatus::default()
    }
}

fn mail_of(order: Order) -> MailOrder {
    MailOrder { node: NodeRef { name: "w-1".into(), uid: "node".into() }, order }
}

fn answer(attempt: u32, verdict: Verdict) -> Answer {
    Answer {
        key: key(attempt),
        verdict,
        step: None,
        step_since: None,
        message: None,
        waiting: None,
        outputs: [("etcd.path".to_owned(), "/x".to_owned())].into(),
        boot_id: Some("boot".into()),
        at: now(),
    }
}

fn working(step: &str, seconds: i64) -> Answer {
    let since = Some(now() - TimeDelta::seconds(seconds));
    Answer { step: Some(step.into()), step_since: since, ..answer(1, Verdict::Working) }
}

/// At that step, which waits.
fn waiting(step: &str, seconds: i64, code: &str) -> Answer {
    Answer { waiting: Some(wait(code)), ..working(step, seconds) }
}

fn wait(code: &str) -> TaskWait {
    TaskWait { code: code.into(), message: "cp-2 does not answer".into() }
}

fn failed() -> Verdict {
    let message = "no route to the mirror".to_owned();
    Verdict::Failed { error: TaskError { class: ErrorClass::Transient, code: "MirrorAway".into(), message } }
}

fn mail(order: Option<Order>, answer: Option<Answer>) -> Mail {
    Mail { order: order.map(mail_of), answer, ..Mail::default() }
}

/// One line for each action: what a table can hold.
fn told(actions: &[Action]) -> Vec<String> {
    let state_of = |status: &NodeTaskStatus| {
        let state = status.state.map_or("none", TaskState::as_str);
        let error = status.error.as_ref().map_or(String::new(), |error| format!(" {}", error.code));
        let step = status.step.as_ref().map_or(String::new(), |step| format!(" at {step}"));
        let waits = status.waiting.as_ref().map_or(String::new(), |wait| format!(" waits {}", wait.code));
        let inventory = status.inventory.as_ref().and_then(|inventory| inventory.request.clone());
        let inventory = inventory.map_or(String::new(), |request| format!(" inventory {request}"));
        format!("{state}{error}{step}{waits}{inventory}")
    };
    let line = |action: &Action| match action {
        Action::Claim(status) => format!("claim: {}", state_of(status)),
        Action::Report(status) => format!("report: {}", state_of(status)),
        Action::PutOrder(mail) => {
            let order = &mail.order;
            let flag = |flag: bool, word: &str| if flag { format!(" {word}") } else { String::new() };
            let flags = flag(order.proceed, "proceed") + &flag(order.stop, "stop");
            format!("put: {} epoch {}{flags}", order.key.attempt, order.epoch)
        }
        Action::RequestInventory(request) => format!("request: {request}"),
        Action::CompareClocks => "compare clocks".to_owned(),
        Action::StartRunner => "start".to_owned(),
    };
    actions.iter().map(line).collect()
}

struct Row {
    name: &'static str,
    task: NodeTask,
    mail: Result<Mail, MailboxError>,
    compared: Option<Compared>,
    does: &'static [&'static str],
    looks_again: bool,
}

impl Row {
    fn relay(&self) -> Relay {
        self.relay_of(&self.task)
    }

    fn relay_of(&self, task: &NodeTask) -> Relay {
        relay(task, self.mail.as_ref(), self.compared, now())
    }
}

fn row(name: &'static str, task: NodeTask, mail: Mail, does: &'static [&'static str], looks_again: bool) -> Row {
    Row { name, task, mail: Ok(mail), compared: None, does, looks_again }
}

/// What an answer told of the clocks that came so many seconds ago: this machine's is ten minutes ahead.
fn compared(seconds: i64) -> Compared {
    let (received, date) = (now() - TimeDelta::seconds(seconds), now() - TimeDelta::seconds(seconds + 600));
    let date = date.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    Compared::of(received, received, Some(&date))
}

fn with(order_of: impl FnOnce(&mut Order)) -> Order {
    let mut order = order(1);
    order_of(&mut order);
    order
}

#[rustfmt::skip]
fn orders() -> Vec<Row> {
    let unknown = || with(|order| order.finish.push(HostStep { kind: "format-disk/v1".into(), ..order.prepare[0].clone() }));
    let stamped = |order, status, epoch| {
        let mut task = task(order, status);
        task.spec.epoch = epoch;
        task
    };
    let claimed = || Some(status(1, TaskState::Claimed));
    let malformed = || MailboxError::Malformed { path: "mailbox/answer.json", why: "not JSON".into() };
    let away = || MailboxError::Disk(DiskError { operation: "read", path: "x".into(), why: "I/O error".into() });
    vec![
        row("no order", task(None, None), Mail::default(), &[], false),
        row("unclaimed, no status yet", task(Some(order(1)), None), Mail::default(), &["claim: Claimed"], false),
        row("unclaimed after an answered one", task(Some(order(2)), Some(status(1, TaskState::Done))),
            mail(Some(order(1)), Some(answer(1, Verdict::Done))), &["claim: Claimed"], false),
        row("unclaimed and asked to stop", task(Some(with(|order| order.stop = true)), None), Mail::default(),
            &["report: Stopped"], false),
        row("unknown kind", task(Some(unknown()), None), Mail::default(), &["report: Refused UnknownStepKind"], false),
        row("epoch below the task's", stamped(Some(order(1)), None, 4), Mail::default(),
            &["report: Refused StaleEpoch"], false),
        row("epoch below the last answer's",
            task(Some(with(|order| { order.epoch = 3; order.key.attempt = 2; })),
                Some(NodeTaskStatus { epoch: Some(4), ..status(1, TaskState::Done) })),
            Mail::default(), &["report: Refused StaleEpoch"], false),
        row("epoch below the mailbox's", task(Some(order(2)), Some(status(1, TaskState::Done))),
            mail(Some(with(|order| order.epoch = 5)), Some(answer(1, Verdict::Done))),
            &["report: Refused StaleEpoch"], false),
        row("mailbox holds an open order of a former node", task(Some(order(2)), None), mail(Some(order(1)), None),
            &["put: 1 epoch 3 stop", "start"], true),
        row("which was asked to stop already", task(Some(order(2)), None),
            mail(Some(with(|order| order.stop = true)), Some(working("x", 0))), &["start"], true),
        row("and has stopped", task(Some(order(2)), None),
            mail(Some(with(|order| order.stop = true)), Some(answer(1, Verdict::Stopped))), &["claim: Claimed"], false),
        row("claimed, not in the mailbox yet", task(Some(order(1)), claimed()), Mail::default(),
            &["put: 1 epoch 3", "start"], true),
        row("claimed and in the mailbox", task(Some(order(1)), claimed()), mail(Some(order(1)), None), &["start"], true),
        row("claimed under an epoch that is over: its result is true all the same", stamped(Some(order(1)), claimed(), 9),
            mail(Some(order(1)), Some(answer(1, Verdict::Done))), &["report: Done"], false),
        row("proceed", task(Some(with(|order| order.proceed = true)), Some(status(1, TaskState::Prepared))),
            mail(Some(order(1)), Some(answer(1, Verdict::Prepared))), &["put: 1 epoch 3 proceed", "start"], true),
        row("stop", task(Some(with(|order| order.stop = true)), claimed()), mail(Some(order(1)), None),
            &["put: 1 epoch 3 stop", "start"], true),
        row("newer epoch under the same key", task(Some(with(|order| order.epoch = 4)), claimed()),
            mail(Some(order(1)), None), &["put: 1 epoch 4", "start"], true),
        row("the mailbox is ahead of a stale view", task(Some(order(1)), claimed()),
            mail(Some(with(|order| { order.proceed = true; order.epoch = 4; })), None), &["start"], true),
        Row { mail: Err(malformed()), ..row("mailbox damaged, unclaimed", task(Some(order(1)), None), Mail::default(),
            &["report: Refused MailboxUnreadable"], false) },
        Row { mail: Err(malformed()), ..row("mailbox damaged, claimed", task(Some(order(1)), claimed()), Mail::default(),
            &["report: Claimed"], false) },
        Row { mail: Err(away()), ..row("disk away", task(Some(order(1)), claimed()), Mail::default(), &[], true) },
    ]
}

#[rustfmt::skip]
fn answers() -> Vec<Row> {
    let claimed = || Some(status(1, TaskState::Claimed));
    let lying = |answer| mail(Some(order(1)), Some(answer));
    let at = |step: &str, seconds: i64| {
        let updated_at = Some(now() - TimeDelta::seconds(seconds));
        Some(NodeTaskStatus { step: Some(step.into()), updated_at, ..status(1, TaskState::Working) })
    };
    let waits = |code: &str| {
        let status = at("check-etcd", 1).unwrap_or_default();
        Some(NodeTaskStatus { waiting: Some(wait(code)), ..status })
    };
    vec![
        row("prepared", task(Some(order(1)), claimed()), lying(answer(1, Verdict::Prepared)),
            &["start", "report: Prepared"], true),
        row("prepared and told", task(Some(order(1)), Some(status(1, TaskState::Prepared))),
            lying(answer(1, Verdict::Prepared)), &["start"], true),
        row("prepared, but proceed is set already", task(Some(with(|order| order.proceed = true)), claimed()),
            mail(Some(with(|order| order.proceed = true)), Some(answer(1, Verdict::Prepared))), &["start"], true),
        row("done", task(Some(order(1)), Some(status(1, TaskState::Prepared))), lying(answer(1, Verdict::Done)),
            &["report: Done"], false),
        row("failed", task(Some(order(1)), claimed()), lying(answer(1, failed())), &["report: Failed MirrorAway"], false),
        row("stopped", task(Some(order(1)), claimed()), lying(answer(1, Verdict::Stopped)), &["report: Stopped"], false),
        row("final and told", task(Some(order(1)), Some(status(1, TaskState::Done))), lying(answer(1, Verdict::Done)),
            &[], false),
        row("an answer to another order is none", task(Some(order(1)), claimed()),
            mail(Some(order(1)), Some(answer(7, Verdict::Done))), &["start"], true),
        row("a short step costs no write", task(Some(order(1)), claimed()), lying(working("pull-images", 59)),
            &["start"], true),
        row("a long step is told", task(Some(order(1)), claimed()), lying(working("pull-images", 60)),
            &["start", "report: Working at pull-images"], true),
        row("once", task(Some(order(1)), at("pull-images", 600)), lying(working("pull-images", 700)), &["start"], true),
        row("the next long step too", task(Some(order(1)), at("switch", 60)), lying(working("pull-images", 60)),
            &["start", "report: Working at pull-images"], true),
        row("but not within a minute of the last write", task(Some(order(1)), at("switch", 59)),
            lying(working("pull-images", 90)), &["start"], true),
        row("what a step waits for is told at once", task(Some(order(1)), at("switch", 1)),
            lying(waiting("check-etcd", 1, "EtcdMemberAway")), &["start", "report: Working at check-etcd waits EtcdMemberAway"],
            true),
        row("and once", task(Some(order(1)), waits("EtcdMemberAway")),
            lying(waiting("check-etcd", 90, "EtcdMemberAway")), &["start"], true),
        row("and what else it waits for then", task(Some(order(1)), waits("EtcdMemberAway")),
            lying(waiting("check-etcd", 90, "EtcdLearner")), &["start", "report: Working at check-etcd waits EtcdLearner"],
            true),
        row("and that it waits no more", task(Some(order(1)), waits("EtcdMemberAway")),
            lying(answer(1, Verdict::Working)), &["start", "report: Working"], true),
    ]
}

#[rustfmt::skip]
fn inventories() -> Vec<Row> {
    let asked = |status| {
        let mut task = task(None, status);
        task.spec.inventory_request = Some("created".into());
        task
    };
    let inventory = |request: &str| NodeInventory { request: Some(request.into()), ..NodeInventory::default() };
    let told = NodeTaskStatus { inventory: Some(inventory("created")), ..NodeTaskStatus::default() };
    let passed_on = Mail { inventory_request: Some("created".into()), ..Mail::default() };
    let taken = Mail { inventory: Some(inventory("created")), ..passed_on.clone() };
    let both = {
        let mut task = asked(Some(status(1, TaskState::Claimed)));
        task.spec.order = Some(order(1));
        task
    };
    vec![
        row("asked", asked(None), Mail::default(), &["request: created", "start"], true),
        row("passed on", asked(None), passed_on, &["start"], true),
        row("taken, and the clocks not compared yet", asked(None), taken.clone(), &["compare clocks"], false),
        Row { compared: Some(compared(61)), ..row("taken, and the clocks compared long ago", asked(None), taken.clone(),
            &["compare clocks"], false) },
        Row { compared: Some(compared(0)), ..row("taken", asked(None), taken.clone(),
            &["report: none inventory created"], false) },
        row("told", asked(Some(told)), taken.clone(), &[], false),
        row("an inventory of another request is none", asked(None),
            Mail { inventory: Some(inventory("older")), ..Mail::default() }, &["request: created", "start"], true),
        row("an order that nobody knows any more is under way", asked(None), mail(Some(order(1)), None),
            &["put: 1 epoch 3 stop", "start", "report: none"], true),
        row("it was asked to stop, and what was told before it is over does not count", asked(None),
            Mail { order: Some(mail_of(with(|order| order.stop = true))), ..taken.clone() }, &["start", "report: none"], true),
        row("it has stopped", asked(None),
            Mail { order: Some(mail_of(order(1))), answer: Some(answer(1, Verdict::Stopped)), ..taken.clone() },
            &["compare clocks"], false),
        row("an answer waits for the comparison that an inventory lacks", both.clone(),
            Mail { order: Some(mail_of(order(1))), answer: Some(answer(1, Verdict::Done)), ..taken.clone() },
            &["compare clocks"], false),
        Row { compared: Some(compared(0)), ..row("one write for an answer and an inventory", both,
            Mail { order: Some(mail_of(order(1))), answer: Some(answer(1, Verdict::Done)), ..taken },
            &["report: Done inventory created"], false) },
    ]
}

#[test]
fn the_agent_does_what_the_table_says() {
    for row in orders().into_iter().chain(answers()).chain(inventories()) {
        let relay = row.relay();
        assert_eq!(told(&relay.actions), row.does, "{}", row.name);
        let again = row.looks_again.then(|| now() + TimeDelta::seconds(PENDING_AGAIN_SECONDS));
        assert_eq!(relay.wake_at, again, "{}", row.name);
    }
}

#[test]
fn what_is_written_is_enough_and_the_next_look_writes_nothing_more() {
    for row in orders().into_iter().chain(answers()).chain(inventories()) {
        let mut task = row.task.clone();
        let writes = |task: &NodeTask| {
            row.relay_of(task).actions.into_iter().find_map(|action| match action {
                Action::Claim(status) | Action::Report(status) => Some(*status),
                Action::PutOrder(_) | Action::RequestInventory(_) | Action::CompareClocks | Action::StartRunner => None,
            })
        };
        if let Some(status) = writes(&task) {
            task.status = Some(status);
            assert_eq!(writes(&task), None, "{}", row.name);
        }
    }
}

#[test]
fn no_write_breaks_a_rule_of_the_task() {
    use cupcake_crds::validate::Validate;
    for row in orders().into_iter().chain(answers()).chain(inventories()) {
        for action in row.relay().actions {
            if let Action::Claim(status) | Action::Report(status) = action {
                let mut after = row.task.clone();
                after.status = Some(*status);
                after.validate_update(&row.task).unwrap_or_else(|violations| panic!("{}: {violations:?}", row.name));
            }
        }
    }
}

#[test]
fn a_claim_leaves_nothing_of_the_answer_before_and_keeps_the_inventory() {
    let inventory = NodeInventory { kubelet: Some("1.33.4".into()), ..NodeInventory::default() };
    let before = NodeTaskStatus {
        error: Some(TaskError { class: ErrorClass::Transient, code: "MirrorAway".into(), message: "away".into() }),
        message: Some("away".into()),
        step: Some("install".into()),
        waiting: Some(wait("EtcdMemberAway")),
        outputs: [("a".to_owned(), "b".to_owned())].into(),
        inventory: Some(inventory.clone()),
        ..status(1, TaskState::Failed)
    };
    let relay = relay(&task(Some(order(2)), Some(before)), Ok(&Mail::default()), None, now());
    let [Action::Claim(claimed)] = relay.actions.as_slice() else { panic!("{relay:?}") };
    let expected =
        NodeTaskStatus { inventory: Some(inventory), updated_at: Some(now()), ..status(2, TaskState::Claimed) };
    assert_eq!(**claimed, expected);
}

#[test]
fn an_inventory_is_told_with_the_clocks_as_they_were_compared_last_and_without_them_where_the_answer_did_not_say() {
    let mut task = task(None, None);
    task.spec.inventory_request = Some("created".into());
    let taken = NodeInventory { request: Some("created".into()), ..NodeInventory::default() };
    let mail = Mail { inventory: Some(taken), ..Mail::default() };
    let told = |compared| {
        let relay = relay(&task, Ok(&mail), Some(compared), now());
        let [Action::Report(status)] = relay.actions.as_slice() else { panic!("{relay:?}") };
        status.inventory.clone().unwrap().clock
    };
    let clock = told(compared(0)).unwrap();
    assert_eq!((clock.ahead_milliseconds, clock.uncertainty_milliseconds), (599_500, 501));
    assert_eq!(told(Compared::of(now(), now(), None)), None);
}
