//! Every host step, its process killed before, between and after each of its effects, and at each of its disk writes.

use super::{kubeadm_copies, params, register};
use crate::mailbox::{Answer, MailOrder, Mailbox, Verdict, run_name};
use crate::ports::disk::Disk;
use crate::ports::fake_host::{CONTAINERD_OF_BEFORE, COPY_OF_BEFORE, FakeHost, Interruption, etcd_of};
use crate::ports::host::{HostError, KubeProxy, KubeadmUpgrade as How, Machine, MachinePorts, Package};
use crate::ports::memory_disk::{Crash, MemoryDisk};
use chrono::{DateTime, TimeDelta};
use cupcake_crds::node_task::{ErrorClass, Order, TaskError};
use cupcake_crds::values::{EtcdDoubt, EtcdDoubtKind, HostStep, KubeVersion, NodeRef, OrderKey};
use cupcake_engine::clock::{Clock, SimClock, Timestamp};
use cupcake_engine::cursor::{Cursor, RunPhase};
use cupcake_engine::decide::{Limits, Observed};
use cupcake_engine::names::{Epoch, Reason, StepKind};
use cupcake_engine::plan::{Plan, VertexTemplate};
use cupcake_engine::registry::StepRegistry;
use cupcake_engine::store::{MemoryStore, NewRun, RunStore};
use cupcake_engine::tick::{Engine, TickReport};
use futures::executor::block_on;
use futures::future::{BoxFuture, Either, pending, select};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const OLD: KubeVersion = KubeVersion::new(1, 33, 4);
const NEW: KubeVersion = KubeVersion::new(1, 34, 4);

/// One case: the machine, the step, and the effects that it has when nothing goes wrong.
struct Case {
    machine: fn() -> FakeHost,
    kind: &'static str,
    params: Value,
    effects: &'static [&'static str],
}

fn cases() -> Vec<Case> {
    let worker: fn() -> FakeHost = || FakeHost::worker(OLD);
    let control_plane: fn() -> FakeHost = || FakeHost::control_plane(OLD);
    vec![
        Case {
            machine: worker,
            kind: params::SWITCH_REPOSITORY,
            params: value(&params::SwitchRepository { version: NEW }),
            effects: &["switch repository to 1.34"],
        },
        Case {
            machine: worker,
            kind: params::INSTALL_PACKAGES,
            params: value(&params::InstallPackages {
                packages: vec![Package::Kubelet, Package::Kubectl],
                version: NEW,
            }),
            effects: &["install kubelet kubectl 1.34.4"],
        },
        Case {
            machine: control_plane,
            kind: params::PULL_IMAGES,
            params: value(&params::PullImages { version: NEW }),
            effects: &["pull images 1.34.4"],
        },
        Case {
            machine: worker,
            kind: params::PULL_WORKER_IMAGES,
            params: value(&params::PullWorkerImages { version: NEW, repository: None, kube_proxy: KubeProxy::Upgrade }),
            effects: &["pull worker images 1.34.4"],
        },
        Case {
            machine: control_plane,
            kind: params::KUBEADM_UPGRADE,
            params: value(&params::UpgradeByKubeadm {
                how: How::Apply,
                version: NEW,
                kube_proxy: KubeProxy::Upgrade,
                success_of: Vec::new(),
            }),
            effects: &["archive before-1.34.4-uid", "kubeadm upgrade apply 1.34.4", "remove kubeadm's copies"],
        },
        Case {
            machine: worker,
            kind: params::KUBEADM_UPGRADE,
            params: value(&params::UpgradeByKubeadm {
                how: How::Node,
                version: NEW,
                kube_proxy: KubeProxy::Upgrade,
                success_of: Vec::new(),
            }),
            effects: &["archive before-1.34.4-uid", "kubeadm upgrade node 1.34.4"],
        },
        Case { machine: control_plane, kind: params::CHECK_ETCD, params: check_of(&["w-1"]), effects: &[] },
        Case {
            machine: control_plane,
            kind: params::ETCD_SNAPSHOT,
            params: value(&params::EtcdSnapshot { name: "du-1234-1.34.4".into() }),
            effects: &["snapshot du-1234-1.34.4"],
        },
        Case {
            machine: || {
                let host = FakeHost::worker(OLD);
                block_on(crate::ports::host::HostOps::install(&host, &[Package::Kubelet], &NEW)).unwrap();
                host
            },
            kind: params::RESTART_KUBELET,
            params: value(&params::RestartKubelet { version: NEW }),
            effects: &["restart kubelet"],
        },
        Case {
            machine: worker,
            kind: params::UPGRADE_CONTAINERD,
            params: value(&params::UpgradeContainerd { version: "1.7.27-1".parse().unwrap() }),
            effects: &["install containerd 1.7.27-1", "restart containerd"],
        },
        Case {
            machine: || {
                let host = FakeHost::worker(OLD);
                host.lose_hold_of_containerd();
                host
            },
            kind: params::UPGRADE_CONTAINERD,
            params: value(&params::UpgradeContainerd { version: CONTAINERD_OF_BEFORE.parse().unwrap() }),
            effects: &["install containerd 1.7.24-1"],
        },
        Case { machine: worker, kind: params::AWAIT_PROCEED, params: json!({}), effects: &[] },
    ]
}

/// The look at etcd of a control plane of those nodes, before it comes to etcd 3.6.
fn check_of(nodes: &[&str]) -> Value {
    let control_plane = nodes.iter().map(|node| (*node).to_owned()).collect();
    value(&params::CheckEtcd { control_plane, store: Some(params::CheckStore::default()) })
}

fn value(params: &impl Serialize) -> Value {
    serde_json::to_value(params).unwrap()
}

/// Time that only the test moves: a call that hangs because its process died must not run into its time limit.
struct StillClock(SimClock);

impl Clock for StillClock {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn sleep_until(&self, _: Timestamp) -> BoxFuture<'static, ()> {
        Box::pin(pending())
    }
}

/// A machine with a run of one vertex, as the runner makes it.
struct Bench {
    key: OrderKey,
    host: FakeHost,
    disk: MemoryDisk,
    store: Arc<MemoryStore>,
    clock: Arc<StillClock>,
    run: NewRun,
}

impl Bench {
    fn of(case: &Case) -> Self {
        let key = OrderKey { run_uid: "uid".into(), vertex: "w-1/prepare".into(), attempt: 1 };
        Self::with(case, key, (case.machine)(), MemoryDisk::new())
    }

    fn with(case: &Case, key: OrderKey, host: FakeHost, disk: MemoryDisk) -> Self {
        Self::of_order(case, key, host, disk, Vec::new())
    }

    /// As [`Bench::with`]; the order itself holds those steps.
    fn of_order(case: &Case, key: OrderKey, host: FakeHost, disk: MemoryDisk, prepare: Vec<HostStep>) -> Self {
        let mut plan = Plan::new("test");
        plan.vertex(VertexTemplate::new("prepare/it", StepKind::new(case.kind).unwrap(), case.params.clone(), &[]));
        let now = DateTime::from_timestamp(1_790_000_000, 0).unwrap();
        let cursor = Cursor::new(plan.digest(), &plan.expand().unwrap(), now);
        let run = NewRun { name: run_name(&key), plan: Arc::new(plan), cursor, limits: Limits::default() };
        let order = Order {
            deadline_seconds: 600,
            epoch: 3,
            finish: Vec::new(),
            key: key.clone(),
            prepare,
            proceed: true,
            stop: false,
            target_version: NEW,
            traceparent: None,
        };
        let node = NodeRef { name: "w-1".into(), uid: "node".into() };
        block_on(Mailbox::on(&disk).put_order(&MailOrder { node, order })).unwrap();
        let store = Arc::new(MemoryStore::new());
        block_on(store.create(&run)).unwrap();
        Self { key, host, disk, store, clock: Arc::new(StillClock(SimClock::starting_at(now))), run }
    }

    /// Ticks in a new process until it dies or the run rests; whether it rests.
    fn live(&self) -> bool {
        let mut registry = StepRegistry::<Machine>::new();
        register(&mut registry).unwrap();
        let engine =
            Engine::new(Arc::new(registry), self.store.clone(), self.clock.clone()).with_call_seconds_max(86_400);
        let ports = MachinePorts { host: Arc::new(self.host.clone()), disk: Arc::new(self.disk.clone()) };
        for _ in 0..50 {
            let (observed, changed) = (Observed::default(), BTreeSet::new());
            let tick = engine.tick(&self.run.name, Epoch(3), &ports, &observed, &changed);
            let death = select(Box::pin(self.host.until_interruption()), Box::pin(self.disk.until_crash()));
            let report: TickReport = match block_on(select(death, Box::pin(tick))) {
                Either::Left(_) => return false,
                Either::Right((report, _)) => report.unwrap(),
            };
            if report.cursor.phase().is_final() || report.cursor.phase() == RunPhase::RequiresAttention {
                return true;
            }
            let wake = report.wake_at.expect("a run that does not rest says when it goes on");
            self.clock.0.advance((wake - self.clock.now()).max(TimeDelta::zero()));
        }
        panic!("the run neither rests nor dies");
    }

    fn finish(&self) -> RunPhase {
        self.host.restart();
        self.disk.restart();
        assert!(self.live(), "nothing more goes wrong");
        block_on(self.store.load(&self.run.name)).unwrap().cursor.phase()
    }
}

#[test]
fn every_host_step_reaches_its_goal_by_exactly_its_effects() {
    for case in cases() {
        let bench = Bench::of(&case);
        let before = bench.host.done().len();
        assert_eq!(bench.finish(), RunPhase::Succeeded, "{}", case.kind);
        assert_eq!(bench.host.done()[before..], *case.effects, "{}", case.kind);
    }
}

#[test]
fn a_host_step_killed_before_between_or_after_any_of_its_effects_goes_on_to_its_goal() {
    for case in cases() {
        for effect in 1..=case.effects.len() {
            for how in [Interruption::Before, Interruption::Between, Interruption::After] {
                let context = format!("{} killed {how:?} effect {effect}", case.kind);
                let bench = Bench::of(&case);
                let before = bench.host.done().len();
                bench.host.interrupt(effect, how);
                assert!(!bench.live(), "{context}");
                assert_eq!(bench.finish(), RunPhase::Succeeded, "{context}");
                let done = bench.host.done().len() - before;
                // Only kubeadm's success cannot be seen from outside: killed before it is recorded, kubeadm runs again.
                let is_kubeadm = case.kind == params::KUBEADM_UPGRADE && effect == 2;
                let again = usize::from(is_kubeadm && how == Interruption::After);
                assert_eq!(done, case.effects.len() + again, "{context}");
                assert_eq!(bench.host.copies(), copies_of_before(&case), "{context}");
            }
        }
    }
}

#[test]
fn a_containerd_that_answers_a_moment_after_an_install_of_minutes_is_waited_for() {
    let params = value(&params::UpgradeContainerd { version: "1.7.27-1".parse().unwrap() });
    let case = Case { machine: || FakeHost::worker(OLD), kind: params::UPGRADE_CONTAINERD, params, effects: &[] };
    let bench = Bench::of(&case);
    bench.host.interrupt(1, Interruption::Before);
    assert!(!bench.live(), "its install is cut short");
    bench.clock.0.advance(TimeDelta::seconds(150));
    bench.host.start_containerd_slowly(bench.clock.now(), 3);
    assert_eq!(bench.finish(), RunPhase::Succeeded);
}

#[test]
fn a_containerd_of_a_newer_minor_is_left_alone_and_told_with_what_to_do() {
    let version = "1.6.33-1".parse().unwrap();
    let params = value(&params::UpgradeContainerd { version });
    let case = Case { machine: || FakeHost::worker(OLD), kind: params::UPGRADE_CONTAINERD, params, effects: &[] };
    let bench = Bench::of(&case);
    assert_eq!(bench.finish(), RunPhase::RequiresAttention);
    assert_eq!(bench.host.begun(), Vec::<String>::new());
}

#[test]
fn a_containerd_that_moved_by_itself_to_a_newer_patch_counts_as_done_and_is_told() {
    let params = value(&params::UpgradeContainerd { version: "1.7.20-1".parse().unwrap() });
    let case = Case { machine: || FakeHost::worker(OLD), kind: params::UPGRADE_CONTAINERD, params, effects: &[] };
    let bench = Bench::of(&case);
    assert_eq!(bench.finish(), RunPhase::Succeeded);
    assert_eq!(bench.host.begun(), Vec::<String>::new(), "nothing was put over it");
    let cursor = block_on(bench.store.load(&bench.run.name)).unwrap().cursor;
    let told = cursor.output(&bench.run.plan.expand().unwrap().vertices()[0].name).cloned();
    assert_eq!(told, Some(json!({"newer": CONTAINERD_OF_BEFORE})));
    let owed = Bench::of(&case);
    owed.host.lose_hold_of_containerd();
    assert_eq!(owed.finish(), RunPhase::Succeeded);
    assert_eq!(owed.host.done(), ["install containerd 1.7.24-1"], "its hold comes back, at its own version");
}

#[test]
fn kubeadm_never_runs_again_once_its_success_is_recorded() {
    for case in cases().iter().filter(|case| case.kind == params::KUBEADM_UPGRADE) {
        // The first write of the bench is the order; on a control plane the second is what lay there before; then the record.
        let record = if case.effects.len() == 3 { 3 } else { 2 };
        for (how, runs) in [(Crash::Before, 2), (Crash::Torn, 2), (Crash::After, 1)] {
            let bench = Bench::of(case);
            bench.disk.crash_at(record, how);
            assert!(!bench.live(), "{how:?}");
            assert_eq!(bench.finish(), RunPhase::Succeeded, "{how:?}");
            assert_eq!(kubeadms(&bench.host), runs, "{how:?}");
        }
    }
}

fn kubeadms(host: &FakeHost) -> usize {
    host.done().iter().filter(|effect| effect.starts_with("kubeadm")).count()
}

/// What lies in kubeadm's folder of copies on a machine that none of ours was on.
fn copies_of_before(case: &Case) -> BTreeSet<String> {
    (case.machine)().copies()
}

fn apply_case() -> Case {
    cases().into_iter().find(|case| case.kind == params::KUBEADM_UPGRADE).unwrap()
}

#[test]
fn kubeadms_copies_go_whatever_write_it_died_at_and_those_of_before_stay() {
    let case = apply_case();
    for write in 2..=4 {
        for how in [Crash::Before, Crash::Torn, Crash::After] {
            let context = format!("killed {how:?} write {write}");
            let bench = Bench::of(&case);
            bench.disk.crash_at(write, how);
            assert!(!bench.live(), "{context}");
            assert_eq!(bench.finish(), RunPhase::Succeeded, "{context}");
            assert_eq!(bench.host.copies(), [COPY_OF_BEFORE.to_owned()].into(), "{context}");
            assert_eq!(block_on(Disk::read(&bench.disk, kubeadm_copies::FILE, 1_000)), Ok(None), "{context}");
        }
    }
}

#[test]
fn copies_of_a_failed_attempt_stay_for_rescue_and_go_with_the_success_of_the_same_run_only() {
    let case = apply_case();
    for (uid, kept) in [("uid", false), ("another", true)] {
        let first = Bench::of(&case);
        let error = HostError::NeedsOperator(Reason::new("KubeadmPreflight", "x"));
        first.host.fail("kubeadm", error);
        assert_eq!(first.finish(), RunPhase::RequiresAttention);
        let failed: Vec<_> = first.host.copies().into_iter().filter(|copy| copy != COPY_OF_BEFORE).collect();
        assert_eq!(failed.len(), 1, "a failed attempt's copies stay");
        first.host.add_copy("kubeadm-backup-etcd-by-hand");
        block_on(answer(&first));
        let key = OrderKey { run_uid: uid.into(), vertex: "w-1/prepare".into(), attempt: 2 };
        let second = Bench::with(&case, key, first.host.clone(), first.disk.clone());
        assert_eq!(second.finish(), RunPhase::Succeeded);
        let copies = second.host.copies();
        assert_eq!(copies.contains(&failed[0]), kept, "{copies:?}");
        assert!(copies.contains("kubeadm-backup-etcd-by-hand"), "{copies:?}");
        assert_eq!(copies.len(), 2 + usize::from(kept), "{copies:?}");
    }
}

/// The order is answered, so that another one may take its place.
async fn answer(bench: &Bench) {
    let key = bench.key.clone();
    let error = TaskError { class: ErrorClass::Transient, code: "X".into(), message: "x".into() };
    let now = bench.clock.now();
    let answer = Answer {
        key,
        verdict: Verdict::Failed { error },
        step: None,
        step_since: None,
        message: None,
        waiting: None,
        outputs: BTreeMap::new(),
        boot_id: None,
        at: now,
    };
    Mailbox::on(&bench.disk).put_answer(&answer).await.unwrap();
}

#[test]
fn a_snapshot_that_cannot_be_taken_holds_kubeadm_up_unless_kubeadm_has_begun_there_in_the_same_run() {
    let (begun, snapshot) =
        (apply_case(), cases().into_iter().find(|case| case.kind == params::ETCD_SNAPSHOT).unwrap());
    let both = || {
        [&snapshot, &begun].map(|case| params::host_step(case.kind.split('/').next().unwrap(), case.kind, &case.params))
    };
    for (uid, prepare, why, skipped) in [
        ("uid", both().to_vec(), "NoLocalEtcd", true),
        ("uid", both().to_vec(), "EtcdAway", true),
        // Nothing that kubeadm's repetition mends.
        ("uid", both().to_vec(), "EtcdCorrupt", false),
        ("uid", both().to_vec(), "EtcdWithoutLeader", false),
        ("uid", both().to_vec(), "DiskFull", false),
        ("another", both().to_vec(), "NoLocalEtcd", false),
        ("uid", both()[..1].to_vec(), "NoLocalEtcd", false),
    ] {
        let first = Bench::of(&begun);
        first.host.fail("kubeadm", HostError::NeedsOperator(Reason::new("StaticPodUnchanged", "etcd is away")));
        assert_eq!(first.finish(), RunPhase::RequiresAttention);
        block_on(answer(&first));
        let key = OrderKey { run_uid: uid.into(), vertex: "w-1/prepare".into(), attempt: 2 };
        let second = Bench::of_order(&snapshot, key, first.host.clone(), first.disk.clone(), prepare);
        second.host.fail("snapshot", HostError::NeedsOperator(Reason::new(why, "etcd is not well")));
        let expected = if skipped { RunPhase::Succeeded } else { RunPhase::RequiresAttention };
        assert_eq!(second.finish(), expected, "run {uid}, {why}");
    }
}

/// A control plane of three whose etcd is looked at in the second attempt of a run; kubeadm has begun there in that of `uid`.
fn look_at_etcd(uid: &str, etcd: impl FnOnce(&FakeHost)) -> Bench {
    let begun = apply_case();
    let check = Case {
        machine: || FakeHost::control_plane(OLD),
        kind: params::CHECK_ETCD,
        params: check_of(&["w-1", "w-2", "w-3"]),
        effects: &[],
    };
    let first = Bench::of(&begun);
    first.host.fail("kubeadm", HostError::NeedsOperator(Reason::new("StaticPodUnchanged", "etcd is away")));
    assert_eq!(first.finish(), RunPhase::RequiresAttention);
    block_on(answer(&first));
    let steps =
        [&check, &begun].map(|case| params::host_step(case.kind.split('/').next().unwrap(), case.kind, &case.params));
    let key = OrderKey { run_uid: uid.into(), vertex: "w-1/prepare".into(), attempt: 2 };
    let bench = Bench::of_order(&check, key, first.host.clone(), first.disk.clone(), steps.to_vec());
    bench.host.see_etcd(Ok(etcd_of(&["w-1", "w-2", "w-3"])));
    etcd(&bench.host);
    bench
}

#[test]
fn kubeadm_is_not_begun_while_etcd_could_not_do_without_this_member_and_is_repeated_where_it_has_begun() {
    let away = Err(HostError::Transient(Reason::new("EtcdAway", "connection refused")));
    let mut ill = etcd_of(&["w-1", "w-2", "w-3"]);
    ill.members[1].healthy = false;
    assert_eq!(look_at_etcd("uid", |_| ()).finish(), RunPhase::Succeeded);
    // Its own member is down: kubeadm, which has begun here in this run, may be what mends it.
    assert_eq!(look_at_etcd("uid", |host| host.see_etcd(away.clone())).finish(), RunPhase::Succeeded);
    // In another run it has not, and another's member is nothing that it mends.
    for (uid, etcd, code) in [
        ("another", away, "EtcdAway"),
        ("uid", Ok(ill), "EtcdMemberAway"),
        ("uid", Ok(etcd_of(&["w-1", "w-2"])), "EtcdMembers"),
    ] {
        let bench = look_at_etcd(uid, |host| host.see_etcd(etcd));
        assert_eq!(bench.finish(), RunPhase::RequiresAttention, "{code}");
        let cursor = block_on(bench.store.load(&bench.run.name)).unwrap().cursor;
        let vertex = cupcake_engine::names::VertexName::new("prepare/it").unwrap();
        assert_eq!(cursor.note(&vertex).unwrap().code, code);
    }
}

#[test]
fn a_member_that_is_away_for_a_moment_is_waited_for_and_shown_with_until_when() {
    let bench = look_at_etcd("another", |host| {
        let mut etcd = etcd_of(&["w-1", "w-2", "w-3"]);
        etcd.members[2].healthy = false;
        host.see_etcd(Ok(etcd));
    });
    let mut registry = StepRegistry::<Machine>::new();
    register(&mut registry).unwrap();
    let engine = Engine::new(Arc::new(registry), bench.store.clone(), bench.clock.clone());
    let ports = MachinePorts { host: Arc::new(bench.host.clone()), disk: Arc::new(bench.disk.clone()) };
    let tick = || {
        let (observed, changed) = (Observed::default(), BTreeSet::new());
        let report = block_on(engine.tick(&bench.run.name, Epoch(3), &ports, &observed, &changed)).unwrap();
        if let Some(wake) = report.wake_at {
            bench.clock.0.advance((wake - bench.clock.now()).max(TimeDelta::zero()));
        }
        report.cursor
    };
    let vertex = cupcake_engine::names::VertexName::new("prepare/it").unwrap();
    let note = |cursor: &Cursor| cursor.note(&vertex).map(ToString::to_string);
    let told = note(&tick()).unwrap_or_default();
    assert!(told.contains("members of etcd that do not answer: w-3; waited for until"), "{told}");
    bench.host.see_etcd(Ok(etcd_of(&["w-1", "w-2", "w-3"])));
    while tick().phase() == RunPhase::InProgress {}
    assert_eq!(bench.finish(), RunPhase::Succeeded);
}

#[test]
fn data_that_etcd_3_6_would_read_otherwise_is_found_right_before_kubeadm_too() {
    let bench = look_at_etcd("another", |host| {
        let message = "its database still has member d (cp-9), which was removed and would come back".to_owned();
        host.doubt_etcds_store(vec![EtcdDoubt { kind: EtcdDoubtKind::MembersDiffer, message }]);
    });
    assert_eq!(bench.finish(), RunPhase::RequiresAttention);
}

#[test]
fn copies_that_cannot_be_removed_hold_nothing_up() {
    let bench = Bench::of(&apply_case());
    bench.host.fail("remove", HostError::Transient(Reason::new("FileError", "read-only")));
    assert_eq!(bench.finish(), RunPhase::Succeeded);
    assert_eq!(bench.host.copies().len(), 2);
}

#[test]
fn a_control_plane_that_kubeadm_took_for_a_worker_rests_and_no_success_is_recorded() {
    let bench = Bench::of(&apply_case());
    bench.host.lose_manifest("kube-apiserver");
    bench.host.blind_kubeadm();
    assert_eq!(bench.finish(), RunPhase::RequiresAttention);
    assert_eq!(block_on(Disk::list(&bench.disk, "done")).unwrap(), Vec::<String>::new());
}
