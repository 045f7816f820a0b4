//! containerd by real dnf 4 and zypper: one suite of expectations, under SIGKILL at moments of chance.
//!
//! It comes from a repository of its own, as Docker's does. apt's is in [`super::apt`].

use super::rpm::{DNF, DnfMachine, Held, LOCKLIST, ZYPPER, ZypperMachine, repository, versionlock};
use super::{Numbers, done, has, host};
use crate::real::RealHost;
use crate::real::test_folder::TestFolder;
use cupcake_crds::node_task::HoldEffect;
use cupcake_crds::values::PackageVersion;
use cupcake_steps::ports::host::{HostError, HostOps as _};
use std::process::Command;
use std::time::{Duration, Instant};

const NAME: &str = "containerd.io";
const RELEASE: &str = "3.1.el9";
const OLD: &str = "1.7.24-3.1.el9";
const NEW: &str = "1.7.27-3.1.el9";
/// Newer than any that is asked for: what "latest" would be.
const NEWEST: &str = "1.7.29";
const CONFIGURATION: &str = "/etc/containerd/config.toml";
const CHANGED: &str = "version = 2\nroot = \"/var/images\"\n";
/// How many installs are cut short, by what one of them takes.
const ROUNDS: u64 = 4;

/// A machine whose containerd comes from a package.
trait WithContainerd {
    fn folder(&self) -> &TestFolder;
    /// Installs the old version as an administrator does, and holds it as this machine does.
    fn install_containerd(&self);
    /// How it is held, as inventories tell it; nothing where it is not.
    fn held_by(&self) -> Vec<String>;
    /// Sees that it is held, at that version and once, as it was before; or by nothing, as before.
    fn look_at_hold(&self, whole: &str, when: &str);
}

/// The package of one release, whose scripts only take time.
fn spec(version: &str) -> String {
    let slow = "local t = os.clock() + 0.05 while os.clock() < t do end";
    let scripts = ["pre", "post", "preun"].map(|when| format!("%{when} -p <lua>\n{slow}\n")).concat();
    let program = |name: &str| format!("yes '{name} {version}' | head -n 20000 > %{{buildroot}}/usr/bin/{name}\n");
    format!(
        "Name: {NAME}\nVersion: {version}\nRelease: {RELEASE}\nSummary: for a test\nLicense: none\nBuildArch: noarch\nProvides: containerd\n\
         %description\nfor a test\n%install\nmkdir -p %{{buildroot}}/usr/bin %{{buildroot}}/etc/containerd\n{}{}\
         echo '# of {version}' > %{{buildroot}}{CONFIGURATION}\n{scripts}%files\n/usr/bin/containerd\n/usr/bin/containerd-shim-runc-v2\n\
         %config(noreplace) {CONFIGURATION}\n",
        program("containerd"),
        program("containerd-shim-runc-v2"),
    )
}

/// Its repository, and the file that names it.
fn docker(folder: &TestFolder, file: &str, more: &str) {
    let specs = ["1.7.9", "1.7.24", "1.7.27", NEWEST].map(spec);
    repository(folder, "repository/docker", &specs);
    let place = folder.path("repository/docker");
    let text = format!("[docker]\nname=docker\nenabled=1\ngpgcheck=0\nbaseurl=file://{}/\n{more}", place.display());
    folder.write(&format!("target{file}"), text);
    folder.be_the_machine(&[("systemctl", "echo MainPID=0"), ("crictl", "")]);
}

fn v(text: &str) -> PackageVersion {
    text.parse().expect("a version")
}

/// It is of that version, whole, and its configuration is as it was changed.
async fn is_at(machine: &dyn WithContainerd, host: &RealHost, version: &str, when: &str) {
    let folder = machine.folder();
    let found = host.containerd().await.expect("told");
    assert!(found.is_at(&v(version)), "{when}: {found:?}");
    for program in ["containerd", "containerd-shim-runc-v2"] {
        let begin = format!("{program} {}\n", v(version).upstream());
        let file = folder.read(&format!("target/usr/bin/{program}"));
        assert!(file.starts_with(&begin), "{when}: the program {program}");
    }
    assert_eq!(folder.read(&format!("target{CONFIGURATION}")), CHANGED, "{when}: kept as it was changed");
    machine.look_at_hold(version, when);
}

async fn expectations(machine: &dyn WithContainerd) {
    let folder = machine.folder();
    let host = host(folder);
    machine.install_containerd();
    folder.write(&format!("target{CONFIGURATION}"), CHANGED);
    is_at(machine, &host, OLD, "installed by hand").await;

    // What the inventory tells: the package, what the index offers of it from the installed version on, and what holds it.
    let told = host.inventory("look").await.expect("told");
    let package = told.containerd_package.expect("a package");
    let newest = format!("{NEWEST}-{RELEASE}");
    assert_eq!((package.name.as_deref(), package.version.as_deref()), (Some(NAME), Some(OLD)));
    assert_eq!(package.offered, [newest.as_str(), NEW, OLD]);
    let holds = told.holds.expect("told").into_iter().filter(|hold| hold.package == NAME);
    let (by, effects): (Vec<_>, Vec<_>) = holds.map(|hold| (hold.by, hold.effect)).unzip();
    assert_eq!(by, machine.held_by());
    assert!(effects.iter().all(|effect| *effect == HoldEffect::Lifted), "{effects:?}");

    // One exact version: none that is not offered, none that is older, and not the newest.
    let error = host.install_containerd(&v("1.7.28-3.1.el9")).await.expect_err("not offered");
    assert!(matches!(&error, HostError::NeedsOperator(reason) if reason.code == "VersionNotOffered"), "{error}");
    assert!(error.to_string().contains(&format!("at most {newest}")), "{error}");
    let error = host.install_containerd(&v("1.6.33-3.1.el9")).await.expect_err("no downgrade").to_string();
    assert!(error.contains("WouldDowngrade"), "{error}");
    host.install_containerd(&v("1.7.9-3.1.el9")).await.expect("a newer patch is as good");
    is_at(machine, &host, OLD, "after what was refused").await;
    done(Command::new("cp").arg("-a").arg(folder.path("target")).arg(folder.path("before")));
    let began = Instant::now();
    host.install_containerd(&v(NEW)).await.expect("undisturbed");
    let whole = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    is_at(machine, &host, NEW, "installed").await;
    host.install_containerd(&v(NEW)).await.expect("nothing to do");
    is_at(machine, &host, NEW, "a second time").await;

    // A program that a power cut emptied is none, though the package is there.
    folder.write("target/usr/bin/containerd-shim-runc-v2", "");
    assert!(!host.containerd().await.expect("told").whole, "no container would start");
    host.install_containerd(&v(NEW)).await.expect("repaired");
    is_at(machine, &host, NEW, "after a power cut").await;
    killed_at_any_moment(machine, &host, whole).await;
}

/// Waits until the program is the new one: the middle of a transaction.
async fn is_new(folder: &TestFolder) {
    let begin = format!("containerd {}\n", v(NEW).upstream());
    while !std::fs::read(folder.path("target/usr/bin/containerd")).is_ok_and(|text| text.starts_with(begin.as_bytes()))
    {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn killed_at_any_moment(machine: &dyn WithContainerd, host: &RealHost, whole: u64) {
    let folder = machine.folder();
    let seed = std::env::var("CUPCAKE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(34);
    println!("CUPCAKE_SEED={seed}, an undisturbed install takes {whole} ms");
    let mut numbers = Numbers(seed);
    let (mut cut_short, mut owed) = (0, 0);
    for round in 0..ROUNDS {
        std::fs::remove_dir_all(folder.path("target")).expect("removed");
        done(Command::new("cp").arg("-a").arg(folder.path("before")).arg(folder.path("target")));
        let new = v(NEW);
        // As the runner's unit kills: the whole process group, once or several times over.
        for _ in 0..=numbers.below(3) {
            let install = host.install_containerd(&new);
            let killed = if round % 2 == 0 {
                tokio::select! {
                    _ = install => false,
                    () = is_new(folder) => true,
                }
            } else {
                tokio::time::timeout(Duration::from_millis(numbers.below(whole)), install).await.is_err()
            };
            cut_short += u32::from(killed);
        }
        let when = format!("round {round}, CUPCAKE_SEED={seed}");
        if host.containerd().await.expect("told").unheld {
            owed += 1;
            // The next start of a runner gives back what is owed, whatever it is started for.
            host.heal().await.unwrap_or_else(|error| panic!("{when}: {error}"));
            assert!(!host.containerd().await.expect("told").unheld, "{when}: healed");
        }
        let repaired = host.install_containerd(&new).await;
        repaired.unwrap_or_else(|error| panic!("{when}: {error}"));
        is_at(machine, host, NEW, &when).await;
        let programs = std::fs::read_dir(folder.path("target/usr/bin")).expect("there");
        let left =
            programs.filter_map(|file| file.ok()?.file_name().into_string().ok()).find(|name| name.contains(';'));
        assert_eq!(left, None, "{when}: left over");
    }
    println!("{cut_short} installs cut short in {ROUNDS} rounds, after {owed} of them a hold was owed");
    assert!(cut_short > 0, "none was cut short");
}

/// A machine of dnf, whose containerd is held like that.
struct OfDnf {
    machine: DnfMachine,
    held: Held,
}

const DOCKER_OF_DNF: &str = "/etc/yum.repos.d/docker.repo";

impl OfDnf {
    fn new(name: &str, held: Held) -> Self {
        let machine = DnfMachine::new(name, held);
        let exclude = if held == Held::Excluded { "exclude=containerd.io\n" } else { "" };
        docker(&machine.folder, DOCKER_OF_DNF, exclude);
        Self { machine, held }
    }
}

impl WithContainerd for OfDnf {
    fn folder(&self) -> &TestFolder {
        &self.machine.folder
    }

    fn install_containerd(&self) {
        let exact = format!("{NAME}-{OLD}");
        self.machine.dnf(&["--disableexcludes=docker", "--disablerepo=away", "install", &exact]);
        if self.held == Held::Locked {
            self.machine.dnf(&["--disablerepo=away", "versionlock", "add", NAME]);
        }
    }

    fn held_by(&self) -> Vec<String> {
        match self.held {
            Held::Excluded => vec!["exclude= of [docker]".to_owned()],
            Held::Loose => Vec::new(),
            Held::Locked => vec![format!("versionlock {NAME}-0:{OLD}.*")],
        }
    }

    fn look_at_hold(&self, whole: &str, when: &str) {
        let folder = &self.machine.folder;
        let source = folder.read(&format!("target{DOCKER_OF_DNF}"));
        assert_eq!(source.contains("exclude="), self.held == Held::Excluded, "{when}: {source}");
        if self.held == Held::Locked {
            let list = folder.read(&format!("target{LOCKLIST}"));
            let locks: Vec<_> = list.lines().filter(|line| line.starts_with(NAME)).collect();
            assert_eq!(locks, [format!("{NAME}-0:{whole}.*")], "{when}: one lock, at what is installed");
        }
    }
}

struct OfZypper {
    machine: ZypperMachine,
    held: Held,
}

const DOCKER_OF_ZYPPER: &str = "/etc/zypp/repos.d/docker.repo";

impl OfZypper {
    fn new(name: &str, held: Held) -> Self {
        let machine = ZypperMachine::new(name);
        docker(&machine.0, DOCKER_OF_ZYPPER, "autorefresh=0\n");
        Self { machine, held }
    }
}

impl WithContainerd for OfZypper {
    fn folder(&self) -> &TestFolder {
        &self.machine.0
    }

    fn install_containerd(&self) {
        self.machine.zypper(&["install", &format!("{NAME}={OLD}")]);
        if self.held == Held::Locked {
            self.machine.zypper(&["addlock", "containerd*", "bash"]);
        }
        // A repository that is away must not matter.
        let away = "[away]\nname=away\nenabled=1\nbaseurl=file:///nowhere/at/all/\n";
        self.folder().write("target/etc/zypp/repos.d/away.repo", away);
    }

    fn held_by(&self) -> Vec<String> {
        if self.held == Held::Locked { vec!["zypper lock containerd*".to_owned()] } else { Vec::new() }
    }

    fn look_at_hold(&self, _: &str, when: &str) {
        let locks = std::fs::read_to_string(self.folder().path("target/etc/zypp/locks")).unwrap_or_default();
        let mut names: Vec<_> = locks.lines().filter_map(|line| line.strip_prefix("solvable_name: ")).collect();
        names.sort_unstable();
        let kept: &[&str] = if self.held == Held::Locked { &["bash", "containerd*"] } else { &[] };
        // What heals a machine locks kubeadm and its like, which are not installed here.
        assert_eq!(names, kept, "{when}: {locks}");
    }
}

#[tokio::test]
async fn containerd_of_a_repository_that_excludes_it_is_moved_by_dnf_to_one_exact_version_whenever_it_is_killed() {
    if has("real dnf", &DNF) {
        expectations(&OfDnf::new("real-dnf-containerd", Held::Excluded)).await;
    }
}

#[tokio::test]
async fn containerd_that_versionlock_keeps_is_moved_by_dnf_and_locked_at_the_new_version_whenever_it_is_killed() {
    if has("real dnf", &DNF) {
        let of = OfDnf::new("real-dnf-containerd-locked", Held::Locked);
        if versionlock(&of.machine.folder) {
            expectations(&of).await;
        }
    }
}

#[tokio::test]
async fn containerd_that_nothing_holds_is_moved_by_dnf_and_held_by_nothing_afterwards() {
    if has("real dnf", &DNF) {
        expectations(&OfDnf::new("real-dnf-containerd-loose", Held::Loose)).await;
    }
}

#[tokio::test]
async fn containerd_is_moved_by_zypper_and_its_lock_is_as_it_was_whenever_it_is_killed() {
    if has("real zypper", &ZYPPER) {
        for held in [Held::Locked, Held::Loose] {
            expectations(&OfZypper::new(&format!("real-zypper-containerd-{held:?}"), held)).await;
        }
    }
}
