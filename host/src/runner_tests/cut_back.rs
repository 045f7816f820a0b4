//! A file system that lost the tail of the journal after what it recorded had happened: whatever is left, the runner goes on to the
//! same end or refuses the order with the file named, and does nothing again that the machine shows.

use super::*;
use cupcake_steps::host::params::{CHECK_ETCD, ETCD_SNAPSHOT, PULL_IMAGES};
use cupcake_steps::ports::host::{KubeProxy, KubeadmUpgrade};
use cupcake_steps::ports::memory_disk::MEMORY_DISK_ROOT;

/// The order of the first control-plane node, whose snapshot of before the run is too old by now.
fn first_control_plane(attempt: u32) -> Order {
    let worker = order(attempt);
    let mut prepare =
        vec![step("etcd-snapshot", ETCD_SNAPSHOT, &params::EtcdSnapshot { name: "upgrade-1.34.4-1".into() })];
    prepare.extend_from_slice(&worker.prepare[..2]);
    prepare.push(step("pull-images", PULL_IMAGES, &params::PullImages { version: NEW }));
    let check = params::CheckEtcd { control_plane: vec!["w-1".into()], store: Some(params::CheckStore::default()) };
    prepare.push(step("check-etcd", CHECK_ETCD, &check));
    let apply = params::UpgradeByKubeadm {
        how: KubeadmUpgrade::Apply,
        version: NEW,
        kube_proxy: KubeProxy::Upgrade,
        success_of: Vec::new(),
    };
    prepare.push(step("kubeadm-upgrade-apply", params::KUBEADM_UPGRADE, &apply));
    Order { prepare, ..worker }
}

/// What that does to the machine.
const OF_A_CONTROL_PLANE: [&str; 9] = [
    "snapshot upgrade-1.34.4-1",
    "switch repository to 1.34",
    "install kubeadm 1.34.4",
    "pull images 1.34.4",
    "archive before-1.34.4-6f0d7f0e",
    "kubeadm upgrade apply 1.34.4",
    "remove kubeadm's copies",
    "install kubelet kubectl 1.34.4",
    "restart kubelet",
];

/// What of them stands on the machine for nobody to see: kubeadm's success, and what belongs to it.
fn is_unseen(effect: &str) -> bool {
    effect.starts_with("kubeadm upgrade") || effect == "remove kubeadm's copies"
}

/// A node and its order.
struct Case {
    told: &'static str,
    host: fn() -> FakeHost,
    order: Order,
    effects: &'static [&'static str],
}

fn worker() -> Case {
    Case { told: "worker", host: || FakeHost::worker(OLD), order: order(1), effects: &EFFECTS }
}

fn control_plane() -> Case {
    let order = first_control_plane(1);
    Case { told: "control plane", host: || FakeHost::control_plane(OLD), order, effects: &OF_A_CONTROL_PLANE }
}

/// How far the machine came before its file system lost something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reached {
    /// All of it was done; its answer was lost, too.
    End,
    /// At rest between the parts, which it has said.
    Prepared,
}

/// What else is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    Journal,
    /// Besides, the record of kubeadm's success.
    RecordsToo,
    /// Besides, what the runner remembers.
    MemoryToo,
}

impl Case {
    fn journal(&self) -> String {
        format!("journal/{}.log", run_name(&self.order.key))
    }

    /// The machine, where it came to.
    async fn came_to(&self, reached: Reached) -> World {
        let world = World::new((self.host)());
        world.put(&self.order).await;
        match reached {
            Reached::End => {
                assert_eq!(world.live_through(&self.order).await, RunnerEnd::Answered(TaskState::Done));
                world.disk.steady().remove("mailbox/answer.json").await.unwrap();
            }
            Reached::Prepared => {
                let rest = async {
                    let mut seen = 0;
                    while world.answer().await.is_none_or(|answer| answer.verdict != Verdict::Prepared) {
                        seen = world.disk.steady().changed(FOLDER, seen).await;
                    }
                };
                let Either::Right(_) = select(Box::pin(world.live()), Box::pin(rest)).await else {
                    panic!("{}: it waits for proceed", self.told)
                };
            }
        }
        world
    }

    /// Cuts the journal of such a machine to so many bytes (none: the file is gone), starts the runner again, and judges what it did.
    async fn cut_to(&self, bytes: Option<usize>, lost: Lost, before: &World) {
        let world = World { host: before.host.copy(), disk: before.disk.copy(), clock: before.clock.clone() };
        let told = format!("{}, {lost:?}, cut to {bytes:?}", self.told);
        let disk = world.disk.steady();
        match bytes {
            Some(bytes) => disk.truncate(&self.journal(), bytes as u64).await.unwrap(),
            None => disk.remove(&self.journal()).await.unwrap(),
        }
        match lost {
            Lost::Journal => {}
            Lost::RecordsToo => {
                for record in disk.list("done").await.unwrap() {
                    disk.remove(&format!("done/{record}")).await.unwrap();
                }
            }
            Lost::MemoryToo => disk.remove("runner.json").await.unwrap(),
        }
        let before = world.host.done();
        match world.live_through(&self.order).await {
            RunnerEnd::Answered(TaskState::Done) => {
                let mut done = world.host.done();
                if lost == Lost::RecordsToo {
                    let again = done.split_off(before.len());
                    let (repeated, new): (Vec<_>, Vec<_>) = again.into_iter().partition(|one| before.contains(one));
                    assert!(repeated.iter().all(|effect| is_unseen(effect)), "{told}: {repeated:?}");
                    done.extend(new);
                }
                assert_eq!(done, self.effects, "{told}");
            }
            RunnerEnd::Answered(TaskState::Failed) => {
                let answer = world.answer().await.unwrap();
                let error = answer.verdict.error().unwrap();
                assert_eq!((error.code.as_str(), error.class), ("JournalDamaged", ErrorClass::NeedsOperator), "{told}");
                let path = format!("{MEMORY_DISK_ROOT}/{}", self.journal());
                assert!(error.message.contains(&path), "{told}: {}", error.message);
                assert_eq!(world.host.done(), before, "{told}: nothing is done by a journal that says nothing");
                let torn =
                    bytes.is_some_and(|bytes| !world.disk.content(&self.journal()).unwrap()[..bytes].contains(&b'\n'));
                assert!(torn, "{told}: a journal with a whole record was refused");
            }
            end => panic!("{told}: {end:?}"),
        }
    }

    /// Cuts it at every byte, and says how often.
    async fn cut_at_every_byte(&self) -> usize {
        let mut cuts = 0;
        for reached in [Reached::End, Reached::Prepared] {
            let world = self.came_to(reached).await;
            let journal = world.disk.content(&self.journal()).unwrap();
            for bytes in (0..=journal.len()).map(Some).chain([None]) {
                self.cut_to(bytes, Lost::Journal, &world).await;
                cuts += 1;
            }
            let records = journal.split(|&byte| byte == b'\n').count() - 1;
            println!("{}, {reached:?}: {} cuts of {records} records", self.told, journal.len() + 2);
        }
        cuts
    }
}

#[tokio::test(start_paused = true)]
async fn a_workers_journal_cut_back_at_any_byte_after_what_it_recorded_leads_to_no_wrong_effect() {
    let cuts = worker().cut_at_every_byte().await;
    assert!(cuts > 5_000, "{cuts} cuts");
}

#[tokio::test(start_paused = true)]
async fn a_control_planes_journal_cut_back_at_any_byte_after_what_it_recorded_leads_to_no_wrong_effect() {
    let cuts = control_plane().cut_at_every_byte().await;
    assert!(cuts > 10_000, "{cuts} cuts");
}

#[tokio::test(start_paused = true)]
async fn a_journal_cut_back_together_with_what_lies_beside_it_does_nothing_again_that_the_machine_shows() {
    let mut cuts = 0;
    for (case, reached) in
        [worker(), control_plane()].iter().flat_map(|case| [(case, Reached::End), (case, Reached::Prepared)])
    {
        let world = case.came_to(reached).await;
        let journal = world.disk.content(&case.journal()).unwrap();
        let ends = (0..journal.len()).filter(|&at| journal[at] == b'\n').flat_map(|end| [end, end + 1, end + 2]);
        let ends: Vec<_> = ends.filter(|&to| to <= journal.len()).map(Some).chain([None]).collect();
        for lost in [Lost::RecordsToo, Lost::MemoryToo] {
            for &bytes in &ends {
                case.cut_to(bytes, lost, &world).await;
                cuts += 1;
            }
        }
    }
    println!("{cuts} cuts");
    assert!(cuts > 100, "{cuts} cuts");
}
