//! The runner killed at each of its disk writes and at each effect on the machine, and what it refuses.
#![expect(
    clippy::disallowed_methods,
    reason = "these tests run on tokio's paused time, which is made of its clock and sleeps"
)]

use crate::boot::{BootUnit, BootUnitError};
use crate::forget::{ForgetError, forget};
use crate::runner::{LOCK, RunnerConfig, RunnerEnd, RunnerError, run};
use crate::samples::{EFFECTS, NEW, OLD, mail, order, step};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta};
use cupcake_crds::node_task::{ErrorClass, Order, TaskState};
use cupcake_engine::clock::{Clock, Timestamp};
use cupcake_engine::names::Reason;
use cupcake_steps::host::params;
use cupcake_steps::mailbox::{Answer, FOLDER, Mailbox, MailboxError, Verdict, run_name};
use cupcake_steps::ports::disk::{Disk, SharedDisk};
use cupcake_steps::ports::fake_host::{FakeHost, Interruption};
use cupcake_steps::ports::host::{HostError, HostOps, MachinePorts, Package};
use cupcake_steps::ports::memory_disk::{Crash, MemoryDisk};
use futures::future::{BoxFuture, Either, select};
use std::sync::{Arc, Mutex};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

mod cut_back;
mod second_attempt;
mod waits;

/// Paused tokio time as a clock: it passes when everybody waits, and may be set, which wakes nobody.
struct PausedClock {
    base: Mutex<Timestamp>,
    start: Instant,
}

impl PausedClock {
    fn set(&self, by: TimeDelta) {
        *self.base.lock().unwrap() += by;
    }
}

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        *self.base.lock().unwrap() + TimeDelta::from_std(self.start.elapsed()).unwrap()
    }

    fn sleep_until(&self, until: Timestamp) -> BoxFuture<'static, ()> {
        let left = (until - self.now()).to_std().unwrap_or_default();
        Box::pin(tokio::time::sleep(left))
    }
}

/// A unit that cannot be kept a few times; says whether the lock was held whenever it was called.
struct Unit {
    disk: MemoryDisk,
    fails: Mutex<u32>,
    calls: Mutex<Vec<(&'static str, bool)>>,
}

impl Unit {
    fn failing(world: &World, times: u32) -> Arc<Self> {
        Arc::new(Self { disk: world.disk.clone(), fails: Mutex::new(times), calls: Mutex::default() })
    }

    async fn called(&self, what: &'static str) {
        let locked = self.disk.lock(LOCK).await.unwrap().is_none();
        self.calls.lock().unwrap().push((what, locked));
    }
}

#[async_trait]
impl BootUnit for Unit {
    async fn keep(&self) -> Result<(), BootUnitError> {
        self.called("keep").await;
        let mut fails = self.fails.lock().unwrap();
        if *fails > 0 {
            *fails -= 1;
            return Err(BootUnitError::Unwritable("read-only".into()));
        }
        Ok(())
    }

    async fn remove(&self) -> Result<(), BootUnitError> {
        self.called("remove").await;
        Ok(())
    }
}

/// A machine with its disk, and whoever stands at the other end of the mailbox.
struct World {
    host: FakeHost,
    disk: MemoryDisk,
    clock: Arc<PausedClock>,
}

impl World {
    fn new(host: FakeHost) -> Self {
        let base = DateTime::from_timestamp(1_790_000_000, 0).unwrap();
        Self {
            host,
            disk: MemoryDisk::new(),
            clock: Arc::new(PausedClock { base: Mutex::new(base), start: Instant::now() }),
        }
    }

    fn config(&self) -> RunnerConfig {
        let ports = MachinePorts { host: Arc::new(self.host.clone()), disk: Arc::new(self.disk.clone()) };
        RunnerConfig { ports, clock: self.clock.clone(), node_name: None, boot: None }
    }

    async fn put(&self, order: &Order) {
        Mailbox::on(&self.disk.steady()).put_order(&mail(order.clone())).await.unwrap();
    }

    async fn answer(&self) -> Option<Answer> {
        Mailbox::on(&self.disk.steady()).answer().await.unwrap()
    }

    /// Runs the runner, again after each death, until it ends by itself.
    async fn live(&self) -> Result<RunnerEnd, RunnerError> {
        for _ in 0..5 {
            let death = select(Box::pin(self.disk.until_crash()), Box::pin(self.host.until_interruption()));
            match select(Box::pin(run(self.config(), CancellationToken::new())), death).await {
                Either::Left((end, _)) => return end,
                Either::Right(_) => {
                    self.disk.restart();
                    self.host.restart();
                }
            }
        }
        panic!("a runner that dies more than once");
    }

    /// As [`World::live`], with an operator who lets the order proceed once it is prepared.
    async fn live_through(&self, order: &Order) -> RunnerEnd {
        let operator = async {
            let disk = self.disk.steady();
            let mut seen = 0;
            loop {
                seen = disk.changed(FOLDER, seen).await;
                if self.answer().await.is_some_and(|answer| answer.verdict == Verdict::Prepared) {
                    self.put(&Order { proceed: true, ..order.clone() }).await;
                }
            }
        };
        match select(Box::pin(self.live()), Box::pin(operator)).await {
            Either::Left((end, _)) => end.unwrap(),
            Either::Right((never, _)) => never,
        }
    }

    async fn refused(&self) -> String {
        let end = self.live().await.unwrap();
        assert_eq!(end, RunnerEnd::Answered(TaskState::Refused));
        self.answer().await.unwrap().verdict.error().unwrap().code.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_is_prepared_waits_proceeds_and_is_done_with_each_effect_once() {
    let world = World::new(FakeHost::worker(OLD));
    world.put(&order(1)).await;
    assert_eq!(world.live_through(&order(1)).await, RunnerEnd::Answered(TaskState::Done));
    assert_eq!(world.host.done(), EFFECTS);
    // Memory, journal, 7 commits with results and next starts, kubeadm's record, Prepared, Done.
    assert!(world.disk.writes() <= 14, "{} writes", world.disk.writes());
    assert_eq!(world.live().await.unwrap(), RunnerEnd::Answered(TaskState::Done), "an answered order is left alone");
}

#[tokio::test(start_paused = true)]
async fn a_runner_killed_at_any_write_goes_on_and_never_repeats_a_step_that_was_completed() {
    let untouched = World::new(FakeHost::worker(OLD));
    untouched.put(&order(1)).await;
    untouched.live_through(&order(1)).await;
    let writes = untouched.disk.writes();
    for write in 1..=writes {
        for how in [Crash::Before, Crash::Torn, Crash::After] {
            let world = World::new(FakeHost::worker(OLD));
            world.put(&order(1)).await;
            world.disk.crash_at(write, how);
            assert_eq!(world.live_through(&order(1)).await, RunnerEnd::Answered(TaskState::Done), "{how:?} {write}");
            let mut done = world.host.done();
            // kubeadm's success cannot be seen from outside: killed before its record stood, it runs again.
            let unrecorded = done.iter().filter(|effect| effect.starts_with("kubeadm upgrade")).count() == 2;
            done.dedup();
            assert_eq!(done, EFFECTS, "{how:?} {write}");
            let again = usize::from(unrecorded);
            assert_eq!(world.host.done().len(), EFFECTS.len() + again, "{how:?} {write}");
            assert!(!unrecorded || how != Crash::After, "{how:?} {write}: a recorded kubeadm ran again");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_journal_cut_at_any_byte_of_a_nodes_upgrade_leads_to_no_wrong_effect() {
    let untouched = World::new(FakeHost::worker(OLD));
    untouched.put(&order(1)).await;
    untouched.live_through(&order(1)).await;
    let mut cuts = 0;
    for (write, bytes) in untouched.disk.appends() {
        // At 0 nothing of the record stands; at its whole length only the caller does not know that all of it does.
        for cut in 0..=bytes {
            let world = World::new(FakeHost::worker(OLD));
            world.put(&order(1)).await;
            world.disk.crash_at(write, Crash::TornAt(cut));
            assert_eq!(world.live_through(&order(1)).await, RunnerEnd::Answered(TaskState::Done), "{write}: {cut}");
            // What cannot be seen on the machine (kubeadm's success) is kept outside the journal, so nothing is done again.
            assert_eq!(world.host.done(), EFFECTS, "{write}: {cut}");
            cuts += 1;
        }
    }
    println!("{cuts} cuts of {} records", untouched.disk.appends().len());
    assert!(cuts > 1_000, "{cuts} cuts");
}

#[tokio::test(start_paused = true)]
async fn a_runner_killed_before_between_or_after_any_effect_goes_on() {
    for effect in 1..=EFFECTS.len() {
        for how in [Interruption::Before, Interruption::Between, Interruption::After] {
            let world = World::new(FakeHost::worker(OLD));
            world.put(&order(1)).await;
            world.host.interrupt(effect, how);
            assert_eq!(world.live_through(&order(1)).await, RunnerEnd::Answered(TaskState::Done), "{how:?} {effect}");
            let mut done = world.host.done();
            done.dedup();
            assert_eq!(done, EFFECTS, "{how:?} {effect}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reboot_under_an_order_is_told_and_the_order_goes_on() {
    let world = World::new(FakeHost::worker(OLD));
    world.put(&order(1)).await;
    world.host.interrupt(2, Interruption::Between);
    let death =
        select(Box::pin(world.host.until_interruption()), Box::pin(run(world.config(), CancellationToken::new())));
    death.await;
    world.host.reboot();
    world.disk.restart();
    assert_eq!(world.live_through(&order(1)).await, RunnerEnd::Answered(TaskState::Done));
    assert_eq!(world.answer().await.unwrap().boot_id.as_deref(), Some("boot-2"));
}

impl World {
    /// Lives until the effect of that number is cut short, loses its power for an hour, and boots.
    async fn lose_power_in(&self, effect: usize) {
        self.host.interrupt(effect, Interruption::Between);
        let death =
            select(Box::pin(self.host.until_interruption()), Box::pin(run(self.config(), CancellationToken::new())));
        death.await;
        tokio::time::sleep(std::time::Duration::from_secs(3_600)).await;
        self.host.reboot();
        self.disk.restart();
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_that_a_machine_was_off_does_not_count_against_its_order() {
    let short = Order { deadline_seconds: 60, finish: Vec::new(), ..order(1) };
    let world = World::new(FakeHost::worker(OLD));
    world.put(&short).await;
    world.lose_power_in(2).await;
    world.lose_power_in(1).await;
    assert_eq!(world.live().await.unwrap(), RunnerEnd::Answered(TaskState::Done));
    assert_eq!(world.host.done(), EFFECTS[..4]);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_boots_a_day_behind_holds_nobody_up_once_it_is_set_right() {
    let world = World::new(FakeHost::worker(OLD));
    world.put(&Order { finish: Vec::new(), ..order(1) }).await;
    world.lose_power_in(2).await;
    world.clock.set(TimeDelta::days(-1));
    world.host.fail("install kubeadm", HostError::Transient(Reason::new("MirrorAway", "no answer")));
    let booted = Instant::now();
    let time_server = async {
        tokio::time::sleep(std::time::Duration::from_secs(100)).await;
        world.clock.set(TimeDelta::days(1));
        std::future::pending::<()>().await;
    };
    let Either::Left((end, _)) = select(Box::pin(world.live()), Box::pin(time_server)).await else {
        panic!("a pending future resolved")
    };
    assert_eq!(end.unwrap(), RunnerEnd::Answered(TaskState::Done));
    assert!(booted.elapsed().as_secs() < 200, "{:?}", booted.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_order_that_fails_or_stops_leaves_no_machine_behind_that_its_steps_took_apart() {
    for (stop, end) in [(false, TaskState::Failed), (true, TaskState::Stopped)] {
        let world = World::new(FakeHost::control_plane(OLD));
        world.put(&Order { finish: Vec::new(), ..order(1) }).await;
        world.lose_power_in(3).await;
        world.host.lose_manifest("kube-apiserver");
        world.host.lose_hold(Package::Kubeadm);
        world.put(&Order { finish: Vec::new(), stop, ..order(1) }).await;
        world.host.fail("kubeadm upgrade", HostError::Permanent(Reason::new("KubeadmFailed", "it cannot be run")));
        assert_eq!(world.live().await.unwrap(), RunnerEnd::Answered(end));
        let manifests = world.host.static_pods().await.unwrap().manifests;
        assert!(manifests.contains_key("kube-apiserver"), "{manifests:?}");
        assert!(world.host.package(Package::Kubeadm).await.unwrap().held);
        assert_eq!(world.host.done().last().map(String::as_str), Some("heal"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_cannot_be_put_right_is_told_with_the_answer() {
    let world = World::new(FakeHost::worker(OLD));
    let one_part = Order { finish: Vec::new(), ..order(1) };
    world.put(&one_part).await;
    world.host.interrupt(2, Interruption::Between);
    let death =
        select(Box::pin(world.host.until_interruption()), Box::pin(run(world.config(), CancellationToken::new())));
    death.await;
    world.host.restart();
    world.disk.restart();
    world.host.lose_hold(Package::Kubectl);
    world.host.fail("heal", HostError::NeedsOperator(Reason::new("PackagesBroken", "repair them")));
    world.put(&Order { stop: true, ..one_part }).await;
    // The fake fails its effects in order: the install under way comes first, and succeeds.
    assert_eq!(world.live().await.unwrap(), RunnerEnd::Answered(TaskState::Failed));
    let answer = world.answer().await.unwrap();
    let error = answer.verdict.error().unwrap();
    assert_eq!((error.code.as_str(), error.class), ("PackagesBroken", ErrorClass::NeedsOperator));
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_the_step_under_way_come_to_its_end_and_starts_none_after_it() {
    // Asked for before anything began, while it waits between the parts, and by a person on the machine.
    let world = World::new(FakeHost::worker(OLD));
    world.put(&Order { stop: true, ..order(1) }).await;
    assert_eq!(world.live().await.unwrap(), RunnerEnd::Answered(TaskState::Stopped));
    assert!(world.host.begun().is_empty());

    let world = World::new(FakeHost::worker(OLD));
    world.put(&order(1)).await;
    let person = async {
        let disk = world.disk.steady();
        let mut seen = 0;
        while world.answer().await.is_none() {
            seen = disk.changed(FOLDER, seen).await;
        }
        Mailbox::on(&disk).put_local_stop(&order(1).key).await.unwrap();
        std::future::pending::<()>().await;
    };
    let Either::Left((end, _)) = select(Box::pin(world.live()), Box::pin(person)).await else {
        panic!("a pending future resolved")
    };
    assert_eq!(end.unwrap(), RunnerEnd::Answered(TaskState::Stopped));
    assert_eq!(world.host.done(), EFFECTS[..4]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_comes_in_the_middle_of_a_part_lets_no_further_step_of_it_begin() {
    // kubeadm's step archives the configuration of before, and comes to its end.
    for (effects, done) in [(1, 1), (2, 2), (3, 4)] {
        let world = World::new(FakeHost::worker(OLD));
        world.put(&order(1)).await;
        let operator = async {
            while world.host.begun().len() < effects {
                tokio::task::yield_now().await;
            }
            world.put(&Order { stop: true, ..order(1) }).await;
            std::future::pending::<()>().await;
        };
        let Either::Left((end, _)) = select(Box::pin(world.live()), Box::pin(operator)).await else {
            panic!("a pending future resolved")
        };
        assert_eq!(end.unwrap(), RunnerEnd::Answered(TaskState::Stopped));
        assert_eq!(world.host.done(), EFFECTS[..done], "stopped in the {effects}. effect");
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_does_not_count_the_wait_for_proceed() {
    let short = Order { deadline_seconds: 60, ..order(1) };
    let world = World::new(FakeHost::worker(OLD));
    world.put(&short).await;
    let operator = async {
        tokio::time::sleep(std::time::Duration::from_secs(86_400)).await;
        world.put(&Order { proceed: true, ..short.clone() }).await;
        std::future::pending::<()>().await;
    };
    let Either::Left((end, _)) = select(Box::pin(world.live()), Box::pin(operator)).await else {
        panic!("a pending future resolved")
    };
    assert_eq!(end.unwrap(), RunnerEnd::Answered(TaskState::Done));
}

#[tokio::test(start_paused = true)]
async fn an_order_past_its_deadline_fails_and_says_so() {
    let world = World::new(FakeHost::worker(OLD));
    world.put(&Order { deadline_seconds: 3, ..order(1) }).await;
    let away = || HostError::Transient(Reason::new("MirrorAway", "the mirror does not answer"));
    for _ in 0..5 {
        world.host.fail("install kubeadm", away());
    }
    assert_eq!(world.live().await.unwrap(), RunnerEnd::Answered(TaskState::Failed));
    let answer = world.answer().await.unwrap();
    let error = answer.verdict.error().unwrap();
    assert_eq!((error.code.as_str(), error.class), ("DeadlineExceeded", ErrorClass::Transient));
}

#[tokio::test(start_paused = true)]
async fn a_failure_keeps_its_code_class_and_whole_message() {
    let message = format!("kubeadm said: {}", "no ".repeat(150));
    let world = World::new(FakeHost::worker(OLD));
    world.put(&order(1)).await;
    world.host.fail("kubeadm upgrade", HostError::NeedsOperator(Reason::new("KubeadmFailed", message.clone())));
    assert_eq!(world.live().await.unwrap(), RunnerEnd::Answered(TaskState::Failed));
    let answer = world.answer().await.unwrap();
    assert_eq!(answer.step.as_deref(), Some("kubeadm-upgrade"));
    let error = answer.verdict.error().unwrap();
    assert_eq!((error.code.as_str(), error.class), ("KubeadmFailed", ErrorClass::NeedsOperator));
    assert_eq!(error.message, message);
    // The next attempt is another order: what is done is not done again.
    let next = Order { prepare: order(2).prepare, ..order(2) };
    world.put(&next).await;
    assert_eq!(world.live_through(&next).await, RunnerEnd::Answered(TaskState::Done));
    assert_eq!(world.host.done(), EFFECTS);
}

#[tokio::test(start_paused = true)]
async fn kubeadm_runs_once_an_order_and_what_may_pass_is_for_the_next_order_while_an_install_is_tried_again() {
    let world = World::new(FakeHost::worker(OLD));
    world.put(&order(1)).await;
    world.host.fail("install kubeadm", HostError::Transient(Reason::new("MirrorAway", "no answer")));
    world.host.fail("kubeadm upgrade", HostError::Transient(Reason::new("StaticPodUnchanged", "went back")));
    assert_eq!(world.live().await.unwrap(), RunnerEnd::Answered(TaskState::Failed));
    assert_eq!(world.answer().await.unwrap().verdict.error().unwrap().class, ErrorClass::Transient);
    let began = |effect: &str| world.host.begun().iter().filter(|begun| begun.starts_with(effect)).count();
    assert_eq!((began("install kubeadm"), began("kubeadm upgrade")), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_done_is_refused_whole_and_by_name() {
    let unknown = |kind: &str| Order { finish: vec![step("x", kind, &serde_json::json!({}))], ..order(1) };
    let cases = [
        (unknown("format-disk/v1"), "UnknownStepKind"),
        (unknown(params::AWAIT_PROCEED), "UnknownStepKind"),
        (unknown(params::RESTART_KUBELET), "BadParameters"),
        (Order { prepare: Vec::new(), finish: Vec::new(), ..order(1) }, "EmptyOrder"),
    ];
    for (order, code) in cases {
        let world = World::new(FakeHost::worker(OLD));
        world.put(&order).await;
        assert_eq!(world.refused().await, code);
        assert!(world.host.begun().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_of_an_older_epoch_or_another_node_is_refused_after_one_was_taken() {
    let one_part = |attempt, epoch| Order { finish: Vec::new(), epoch, ..order(attempt) };
    for (next, node, code) in [(one_part(2, 2), "w-1", "StaleEpoch"), (one_part(2, 3), "w-2", "OtherNode")] {
        let world = World::new(FakeHost::worker(OLD));
        world.put(&one_part(1, 3)).await;
        assert_eq!(world.live().await.unwrap(), RunnerEnd::Answered(TaskState::Done));
        // Past the mailbox's own check: whoever wrote this did not ask it.
        let mut mail = mail(next);
        mail.node.name = node.to_owned();
        let file = serde_json::json!({"format": 1, "content": mail});
        world.disk.put("mailbox/order.json", file.to_string().as_bytes());
        assert_eq!(world.refused().await, code);
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_takes_orders_of_a_new_cluster_once_it_forgot_the_old_one_and_forgets_none_that_is_open() {
    let one_part = |attempt, epoch| Order { finish: Vec::new(), epoch, ..order(attempt) };
    let world = World::new(FakeHost::worker(OLD));
    let disk: SharedDisk = Arc::new(world.disk.clone());
    world.put(&one_part(1, 7)).await;
    let open = forget(&disk).await.unwrap_err();
    assert!(matches!(&open, ForgetError::Open(key) if *key == order(1).key), "{open}");
    assert_eq!(world.live().await.unwrap(), RunnerEnd::Answered(TaskState::Done));
    let refused = Mailbox::on(&*disk).put_order(&mail(one_part(2, 1))).await.unwrap_err();
    assert!(matches!(refused, MailboxError::EpochBack { .. }), "{refused}");
    let held = disk.lock(LOCK).await.unwrap();
    assert!(matches!(forget(&disk).await, Err(ForgetError::AtWork)));
    drop(held);
    for _ in 0..2 {
        forget(&disk).await.unwrap();
    }
    world.put(&one_part(2, 1)).await;
    assert_eq!(world.live().await.unwrap(), RunnerEnd::Answered(TaskState::Done));
}

#[tokio::test(start_paused = true)]
async fn an_order_beside_an_unfinished_one_is_refused_until_a_person_gives_that_up() {
    let world = World::new(FakeHost::worker(OLD));
    world.put(&order(1)).await;
    world.host.interrupt(2, Interruption::Between);
    let death =
        select(Box::pin(world.host.until_interruption()), Box::pin(run(world.config(), CancellationToken::new())));
    death.await;
    world.host.restart();
    world.disk.restart();
    let put = |attempt| {
        let file = serde_json::json!({"format": 1, "content": mail(order(attempt))});
        world.disk.put("mailbox/order.json", file.to_string().as_bytes());
    };
    put(2);
    assert_eq!(world.refused().await, "Unanswered");
    Mailbox::on(&world.disk.steady()).put_local_stop(&order(1).key).await.unwrap();
    put(3);
    assert_eq!(world.live_through(&order(3)).await, RunnerEnd::Answered(TaskState::Done));
}

#[tokio::test(start_paused = true)]
async fn an_order_that_stopped_between_its_parts_stands_in_nobodys_way_even_after_a_refused_one() {
    let world = World::new(FakeHost::worker(OLD));
    world.put(&order(1)).await;
    let operator = async {
        let disk = world.disk.steady();
        let mut seen = 0;
        while world.answer().await.is_none() {
            seen = disk.changed(FOLDER, seen).await;
        }
        world.put(&Order { stop: true, ..order(1) }).await;
        std::future::pending::<()>().await;
    };
    let asked = tokio::time::Instant::now();
    let Either::Left((end, _)) = select(Box::pin(world.live()), Box::pin(operator)).await else {
        panic!("a pending future resolved")
    };
    assert_eq!(end.unwrap(), RunnerEnd::Answered(TaskState::Stopped));
    assert!(asked.elapsed().as_secs() < 5, "a stop is heard at once");
    world.put(&Order { prepare: Vec::new(), finish: Vec::new(), ..order(2) }).await;
    assert_eq!(world.refused().await, "EmptyOrder");
    world.put(&order(3)).await;
    assert_eq!(world.live_through(&order(3)).await, RunnerEnd::Answered(TaskState::Done));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_journal_fails_the_order_with_the_file_named() {
    let world = World::new(FakeHost::worker(OLD));
    world.put(&order(1)).await;
    world.host.interrupt(1, Interruption::Before);
    let death =
        select(Box::pin(world.host.until_interruption()), Box::pin(run(world.config(), CancellationToken::new())));
    death.await;
    world.host.restart();
    world.disk.restart();
    let path = format!("journal/{}.log", run_name(&order(1).key));
    world.disk.put(&path, b"not a journal\n");
    assert_eq!(world.live().await.unwrap(), RunnerEnd::Answered(TaskState::Failed));
    let error = world.answer().await.unwrap().verdict.error().cloned().unwrap();
    assert!(error.code == "JournalDamaged" && error.message.contains(&path), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn inventories_are_answered_idle_and_while_an_order_is_worked_on() {
    let world = World::new(FakeHost::worker(OLD));
    let disk = world.disk.steady();
    Mailbox::on(&disk).put_inventory_request("first").await.unwrap();
    assert_eq!(world.live().await.unwrap(), RunnerEnd::Idle);
    let inventory = Mailbox::on(&disk).inventory().await.unwrap().unwrap();
    assert_eq!((inventory.request.as_deref(), inventory.kubelet.as_deref()), (Some("first"), Some("1.33.4")));
    assert_eq!(inventory.runner_kinds, params::ORDER_KINDS);

    world.put(&order(1)).await;
    let asks = async {
        let mut seen = 0;
        while world.answer().await.is_none() {
            seen = disk.changed(FOLDER, seen).await;
        }
        Mailbox::on(&disk).put_inventory_request("second").await.unwrap();
        loop {
            seen = disk.changed(FOLDER, seen).await;
            let inventory = Mailbox::on(&disk).inventory().await.unwrap().unwrap();
            if inventory.request.as_deref() == Some("second") {
                return;
            }
        }
    };
    assert!(matches!(select(Box::pin(world.live()), Box::pin(asks)).await, Either::Right(_)));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_begun_before_a_boot_would_go_on_with_it_and_that_ends_with_the_work() {
    let world = World::new(FakeHost::worker(OLD));
    let unit = Unit::failing(&world, 3);
    let config = || RunnerConfig { boot: Some(unit.clone()), ..world.config() };
    world.put(&Order { finish: Vec::new(), ..order(1) }).await;
    let runner = Box::pin(run(config(), CancellationToken::new()));
    let early = Box::pin(tokio::time::sleep(std::time::Duration::from_secs(14)));
    let Either::Right(((), runner)) = select(runner, early).await else { panic!("it cannot have ended") };
    assert!(world.host.begun().is_empty(), "{:?}", world.host.begun());
    assert_eq!(run(config(), CancellationToken::new()).await.unwrap(), RunnerEnd::AnotherRuns);
    assert_eq!(runner.await.unwrap(), RunnerEnd::Answered(TaskState::Done));
    let calls = unit.calls.lock().unwrap().clone();
    assert!(calls.iter().all(|(_, locked)| *locked), "{calls:?}");
    let removed = calls.iter().filter(|(what, _)| *what == "remove").count();
    assert_eq!((removed, calls.last().map(|(what, _)| *what)), (1, Some("remove")), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn an_order_that_cannot_be_begun_in_its_time_is_answered_and_did_nothing() {
    let world = World::new(FakeHost::worker(OLD));
    world.put(&order(1)).await;
    let config = RunnerConfig { boot: Some(Unit::failing(&world, u32::MAX)), ..world.config() };
    assert_eq!(run(config, CancellationToken::new()).await.unwrap(), RunnerEnd::Answered(TaskState::Failed));
    assert_eq!(world.answer().await.unwrap().verdict.error().unwrap().code, "DeadlineExceeded");
    assert!(world.host.begun().is_empty());
}

#[tokio::test(start_paused = true)]
async fn two_runners_never_work_at_once() {
    let world = World::new(FakeHost::worker(OLD));
    world.put(&order(1)).await;
    let first = Box::pin(run(world.config(), CancellationToken::new()));
    let second = Box::pin(async {
        tokio::task::yield_now().await;
        run(world.config(), CancellationToken::new()).await
    });
    let Either::Right((end, _)) = select(first, second).await else { panic!("the first one waits for proceed") };
    assert_eq!(end.unwrap(), RunnerEnd::AnotherRuns);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_full_from_any_write_on_has_no_effect_done_again_and_again() {
    let one_part = Order { finish: Vec::new(), ..order(1) };
    let untouched = World::new(FakeHost::worker(OLD));
    untouched.put(&one_part).await;
    untouched.live().await.unwrap();
    for write in 1..=untouched.disk.writes() {
        let world = World::new(FakeHost::worker(OLD));
        world.put(&one_part).await;
        world.disk.fill_from(write);
        let janitor = async {
            tokio::time::sleep(std::time::Duration::from_secs(1_200)).await;
            assert!(world.disk.writes() < write + 150, "{write}: {} writes", world.disk.writes());
            world.disk.free();
            std::future::pending::<()>().await;
        };
        let Either::Left((end, _)) = select(Box::pin(world.live()), Box::pin(janitor)).await else {
            panic!("a pending future resolved")
        };
        assert_eq!(end.unwrap(), RunnerEnd::Answered(TaskState::Done), "{write}");
        assert_eq!(world.host.done(), EFFECTS[..4], "{write}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_waited_for() {
    let world = World::new(FakeHost::worker(OLD));
    world.put(&Order { finish: Vec::new(), ..order(1) }).await;
    world.disk.fill();
    let janitor = async {
        tokio::time::sleep(std::time::Duration::from_secs(600)).await;
        world.disk.free();
        std::future::pending::<()>().await;
    };
    let Either::Left((end, _)) = select(Box::pin(world.live()), Box::pin(janitor)).await else {
        panic!("a pending future resolved")
    };
    assert_eq!(end.unwrap(), RunnerEnd::Answered(TaskState::Done));
    assert_eq!(world.host.done(), EFFECTS[..4]);
    assert_eq!(NEW.to_string(), "1.34.4");
}
