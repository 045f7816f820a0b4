//! [`RealHost`] against real package managers: one suite of expectations, the same for all of them.
//!
//! The programs are this machine's; all that they change lies below a folder. The packages are small, of three versions, in a
//! repository for each minor; their scripts only take time, so that a kill also meets what is half done. Needs root and the programs;
//! skipped with a loud line elsewhere, never where CI is set. `CUPCAKE_SEED` repeats a run.

mod apt;
mod containerd;
mod rpm;

use crate::real::test_folder::TestFolder;
use crate::real::tests::half_free;
use crate::real::{RealHost, Settings};
use cupcake_crds::node_task::OfferedMinor;
use cupcake_crds::values::{KubeVersion, MinorVersion};
use cupcake_engine::clock::{SimClock, Timestamp};
use cupcake_steps::ports::host::{HostError, HostOps, Package, PackageState};
use std::any::Any;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

const OLD: &str = "1.33.13";
const NEW: &str = "1.34.4";
/// What "latest" would be.
const NEWER: &str = "1.34.10";
/// A configuration file of the kubelet package, which the administrator has changed.
const CONFIGURATION: &str = "/etc/default/kubelet";
const CHANGED: &str = "KUBELET_EXTRA_ARGS=--node-ip=10.0.0.7\n";

/// A machine below `target` of a folder, whose programs stand in its `bin`.
trait Machine {
    fn folder(&self) -> &TestFolder;
    /// The whole version of a package of that release.
    fn whole(&self, release: &str) -> String;
    /// The file that names the repository.
    fn source(&self) -> &'static str;
    /// Installs the old release as an administrator does, who holds nothing by that.
    fn install_by_hand(&self);
    /// Works on packages until it is dropped, as another process.
    fn work(&self) -> Box<dyn Any>;
    /// Part of the call that is repeated while another process works on packages.
    fn repeated(&self) -> &'static str;
    /// How many upgrades are cut short: by what one of them takes.
    fn rounds(&self) -> u64;
    /// Looks at holds in the package manager's own words.
    fn look_at_holds(&self);
}

/// Whether this machine has what a test needs.
fn has(what: &str, programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|program| !Path::new(program).exists()).collect();
    let fit = missing.is_empty() && rustix::process::geteuid().is_root();
    assert!(
        fit || std::env::var_os("CI").is_none(),
        "CI is set: the test of {what} cannot be skipped; missing: {missing:?}"
    );
    if !fit {
        println!("SKIPPED: {what}: needs root and {missing:?}");
    }
    fit
}

fn done(command: &mut Command) -> String {
    let output = command.env("LC_ALL", "C").env("HOME", "/root").output().expect("it starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {out}{err}");
    out.into_owned()
}

fn host(folder: &TestFolder) -> RealHost {
    RealHost::new(Settings {
        clock: Arc::new(SimClock::starting_at(Timestamp::UNIX_EPOCH)),
        root: folder.path("target"),
        state: folder.path("state"),
        proxies: BTreeMap::new(),
        space: half_free,
    })
}

fn version(text: &str) -> KubeVersion {
    text.parse().expect("a version")
}

fn minor(minor: u32) -> MinorVersion {
    MinorVersion { major: 1, minor }
}

fn code(error: &HostError) -> &str {
    match error {
        HostError::Transient(reason) | HostError::Permanent(reason) | HostError::NeedsOperator(reason) => &reason.code,
    }
}

/// Numbers that follow from a seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// All three packages are of that release, whole and held, and their programs are, too.
async fn all_are_at(machine: &dyn Machine, host: &RealHost, release: &str, when: &str) {
    let expected = PackageState { version: Some(machine.whole(release)), whole: true, held: true };
    for package in Package::ALL {
        let name = package.as_str();
        assert_eq!(host.package(package).await.expect("it answers"), expected, "{when}: {name}");
        let file = machine.folder().read(&format!("target/usr/bin/{name}"));
        assert!(file.starts_with(&format!("{name} {release}\n")), "{when}: the program of {name}");
    }
}

/// What is expected of every package manager.
async fn expectations(machine: &dyn Machine) {
    let folder = machine.folder();
    let host = host(folder);
    let all = Package::ALL;
    let source = format!("target{}", machine.source());
    let as_found = folder.read(&source);

    // Nothing is begun where no package brought what runs.
    let error = host.install(&all, &version(OLD)).await.expect_err("nothing is installed yet");
    assert_eq!(code(&error), "NotInstalledByPackage", "{error}");
    machine.install_by_hand();
    host.heal().await.expect("held");
    all_are_at(machine, &host, OLD, "what is installed is held").await;
    machine.look_at_holds();
    assert_eq!(folder.read(&format!("target{CONFIGURATION}")), format!("# of {OLD}\n"));
    folder.write(&format!("target{CONFIGURATION}"), CHANGED);

    // The repository: looked at, taken back, set.
    let held = folder.read(&source);
    let versions = vec![NEWER.to_owned(), NEW.to_owned()];
    let offered = Some(OfferedMinor { minor: "1.34".to_owned(), unread: None, versions });
    assert_eq!(host.next_minor().await, offered);
    assert_eq!(folder.read(&source), held, "looking changes nothing");
    assert_eq!(host.repository().await, Ok(None), "nobody refreshed it");
    let error = host.switch_repository(minor(35)).await.expect_err("there is no 1.35");
    assert_eq!(code(&error), "RepositoryMissing", "{error}");
    assert_eq!(folder.read(&source), held, "taken back");
    assert_eq!(host.repository().await, Ok(None));
    host.switch_repository(minor(34)).await.expect("it is there");
    assert_eq!(host.repository().await, Ok(Some(minor(34))));
    assert_eq!(folder.read(&source), held.replace("v1.33", "v1.34"), "only the minor changed");
    let inventory = host.inventory("r").await.expect("told");
    assert_eq!(inventory.available_versions, [NEWER, NEW]);
    assert_eq!(inventory.without_package, Vec::<String>::new());
    assert!(as_found.contains("v1.33"));

    // Versions: exact, never another, never back.
    let error = host.install(&all, &version("1.34.9")).await.expect_err("not offered");
    assert_eq!(code(&error), "VersionNotOffered", "{error}");
    all_are_at(machine, &host, OLD, "after a version that is not offered").await;
    done(Command::new("cp").arg("-a").arg(folder.path("target")).arg(folder.path("before")));
    let began = Instant::now();
    host.install(&all, &version(NEW)).await.expect("undisturbed");
    let whole = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    all_are_at(machine, &host, NEW, "installed").await;
    machine.look_at_holds();
    assert_eq!(folder.read(&format!("target{CONFIGURATION}")), CHANGED, "kept as it was changed");
    let error = host.install(&all, &version(OLD)).await.expect_err("no downgrade");
    assert_eq!(code(&error), "WouldDowngrade", "{error}");
    host.install(&all, &version(NEW)).await.expect("nothing to do");
    all_are_at(machine, &host, NEW, "a second time").await;

    waits_for_another_process(machine, &host).await;
    killed_at_any_moment(machine, &host, whole).await;
}

/// Begins anew from the machine before it was upgraded.
fn back(folder: &TestFolder) {
    std::fs::remove_dir_all(folder.path("target")).expect("removed");
    done(Command::new("cp").arg("-a").arg(folder.path("before")).arg(folder.path("target")));
}

async fn waits_for_another_process(machine: &dyn Machine, host: &RealHost) {
    let folder = machine.folder();
    back(folder);
    folder.calls();
    let other = machine.work();
    let ends = async {
        let since = Instant::now();
        loop {
            let calls = std::fs::read_to_string(folder.path("calls")).unwrap_or_default();
            if calls.matches(machine.repeated()).count() > 1 {
                break;
            }
            assert!(since.elapsed() < Duration::from_secs(60), "it was not tried again: {calls}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        drop(other);
    };
    let newer = version(NEW);
    let (installed, ()) = tokio::join!(host.install(&Package::ALL, &newer), ends);
    installed.expect("installed once the other was done");
    all_are_at(machine, host, NEW, "after it was waited for").await;
}

/// Waits until the program of that package is the new one: the middle of a transaction.
async fn is_new(folder: &TestFolder, name: &str) {
    let file = folder.path(&format!("target/usr/bin/{name}"));
    let begin = format!("{name} {NEW}\n");
    while !std::fs::read(&file).is_ok_and(|text| text.starts_with(begin.as_bytes())) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn killed_at_any_moment(machine: &dyn Machine, host: &RealHost, whole: u64) {
    let (folder, all, rounds) = (machine.folder(), Package::ALL, machine.rounds());
    let seed = std::env::var("CUPCAKE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(34);
    println!("CUPCAKE_SEED={seed}, an undisturbed install takes {whole} ms");
    let mut numbers = Numbers(seed);
    let (mut cut_short, mut unwhole) = (0, 0);
    for round in 0..rounds {
        back(folder);
        // Killed as the runner's unit kills: SIGKILL to the whole process group, once or several times over; at a moment of chance,
        // or as soon as one of the programs is new.
        for _ in 0..=numbers.below(3) {
            let name = all[usize::try_from(numbers.below(3)).expect("small")].as_str();
            let moment = Duration::from_millis(numbers.below(whole));
            let newer = version(NEW);
            let install = host.install(&all, &newer);
            let killed = if round % 2 == 0 {
                tokio::select! {
                    _ = install => false,
                    () = is_new(folder, name) => true,
                }
            } else {
                tokio::time::timeout(moment, install).await.is_err()
            };
            cut_short += u32::from(killed);
        }
        let mut broken = false;
        for package in all {
            let found = host.package(package).await.expect("it answers");
            broken |= !found.whole || !found.held;
        }
        unwhole += u32::from(broken);
        let when = format!("round {round}, CUPCAKE_SEED={seed}");
        let repaired = host.install(&all, &version(NEW)).await;
        repaired.unwrap_or_else(|error| panic!("{when}: {error}"));
        all_are_at(machine, host, NEW, &when).await;
        let programs = std::fs::read_dir(folder.path("target/usr/bin")).expect("there");
        let left =
            programs.filter_map(|file| file.ok()?.file_name().into_string().ok()).find(|name| name.contains(';'));
        assert_eq!(left, None, "{when}: left over");
        assert_eq!(folder.read(&format!("target{CONFIGURATION}")), CHANGED, "{when}: kept as it was changed");
    }
    machine.look_at_holds();
    println!("{cut_short} installs cut short in {rounds} rounds, {unwhole} of them left something unheld or half done");
    // One round alone may find a machine that was too fast for it.
    assert!(
        cut_short > 0 && (unwhole > 0 || rounds < 4),
        "{cut_short} installs were cut short, {unwhole} in the middle"
    );
}
