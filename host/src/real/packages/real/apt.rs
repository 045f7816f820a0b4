//! Real apt and dpkg, with a root of their own (`Dir`, `--root`). Scripts of packages run here, not in a chroot.

use super::{
    CONFIGURATION, Machine, NEW, NEWER, Numbers, OLD, all_are_at, done, expectations, has, host, minor, version,
};
use crate::real::packages::Manager as _;
use crate::real::packages::apt::Apt;
use crate::real::test_folder::TestFolder;
use cupcake_crds::node_task::HoldEffect;
use cupcake_steps::ports::host::{HostOps as _, Package};
use rustix::fs::{FlockOperation, fcntl_lock};
use sha2::{Digest, Sha256};
use std::any::Any;
use std::fmt::Write as _;
use std::fs::File;
use std::process::Command;
use std::time::Duration;

/// containerd's package, and what the administrator wrote into its configuration.
const CONTAINERD: &str = "containerd.io";
const CONTAINERD_CONFIGURATION: &str = "/etc/containerd/config.toml";
const CONTAINERD_CHANGED: &str = "version = 2\nroot = \"/var/images\"\n";
/// How many of its installs are cut short, each way.
const CONTAINERD_ROUNDS: u64 = 5;

/// A small package in the folder's repository of its minor, and its lines in the index.
fn package(folder: &TestFolder, repository: &str, name: &str, version: &str) -> String {
    revision(folder, repository, name, version, "1.1")
}

/// As [`package`], of that revision.
fn revision(folder: &TestFolder, repository: &str, name: &str, version: &str, revision: &str) -> String {
    let tree = format!("build/{name}_{version}");
    let control = format!(
        "Package: {name}\nVersion: {version}-{revision}\nArchitecture: all\nMaintainer: nobody <nobody@example.com>\nDescription: {name} for a test\n"
    );
    folder.write(&format!("{tree}/DEBIAN/control"), &control);
    folder.write(&format!("{tree}/usr/bin/{name}"), format!("{name} {version}\n").repeat(20_000));
    let script = "#!/bin/sh\nsleep 0.05\nexit 0\n";
    for phase in ["preinst", "postinst", "prerm"] {
        folder.write(&format!("{tree}/DEBIAN/{phase}"), script);
        done(Command::new("chmod").args(["755"]).arg(folder.path(&format!("{tree}/DEBIAN/{phase}"))));
    }
    let configuration = match name {
        "kubelet" => Some(CONFIGURATION),
        CONTAINERD => Some(CONTAINERD_CONFIGURATION),
        _ => None,
    };
    if let Some(configuration) = configuration {
        folder.write(&format!("{tree}{configuration}"), format!("# of {version}\n"));
        folder.write(&format!("{tree}/DEBIAN/conffiles"), format!("{configuration}\n"));
    }
    let file = format!("{repository}/{name}_{version}.deb");
    let (from, to) = (folder.path(&tree), folder.path(&file));
    done(Command::new("dpkg-deb").args(["--build", "--root-owner-group", "-Znone"]).arg(from).arg(to));
    let content = std::fs::read(folder.path(&file)).expect("it was built");
    let digest = Sha256::digest(&content).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    format!("{control}Filename: ./{name}_{version}.deb\nSize: {}\nSHA256: {digest}\n\n", content.len())
}

struct AptMachine(TestFolder);

impl AptMachine {
    /// A machine on which nothing is installed, and a repository for each of two minors.
    fn new(name: &str) -> Self {
        let folder = TestFolder::new(name);
        let root = folder.root().display();
        for (minor, versions) in [("1.33", &[OLD][..]), ("1.34", &[NEW, NEWER])] {
            let repository = format!("repository/core:/stable:/v{minor}/deb");
            folder.write(&format!("{repository}/.keep"), "");
            let index: String = versions
                .iter()
                .flat_map(|version| Package::ALL.map(|name| package(&folder, &repository, name.as_str(), version)))
                .chain(["1.7.24", "1.7.27"].map(|version| revision(&folder, &repository, CONTAINERD, version, "1")))
                .collect();
            folder.write(&format!("{repository}/Packages"), index);
        }
        for empty in ["var/lib/dpkg/status", "var/lib/dpkg/available", "etc/apt/preferences.d/.keep", "usr/bin/apt-get"]
        {
            folder.write(&format!("target/{empty}"), "");
        }
        let folders = [
            "var/lib/dpkg/updates",
            "var/lib/dpkg/info",
            "var/lib/apt/lists/partial",
            "var/cache/apt/archives/partial",
            "var/log/apt",
        ];
        for made in folders {
            std::fs::create_dir_all(folder.path(&format!("target/{made}"))).expect("a folder can be made");
        }
        folder.write(
            "target/etc/apt/sources.list.d/kubernetes.list",
            format!("deb [trusted=yes] file:{root}/repository/core:/stable:/v1.33/deb/ ./\n"),
        );
        folder.write(
            "apt.conf",
            format!(
                "Dir \"{root}/target/\";\nDir::Bin::methods \"/usr/lib/apt/methods/\";\nDir::Bin::dpkg \"/usr/bin/dpkg\";\n\
                 Dir::State::status \"{root}/target/var/lib/dpkg/status\";\nAPT::Sandbox::User \"root\";\n\
                 DPkg::Options {{ \"--root={root}/target\"; \"--force-script-chrootless\"; \"--log=/dev/null\"; }};\n"
            ),
        );
        let apt = |tool: &str| {
            format!(
                "PATH=/usr/sbin:/usr/bin:/sbin:/bin; export PATH; exec /usr/bin/{tool} -c \"$here/apt.conf\" \"$@\""
            )
        };
        let dpkg = |tool: &str, more: &str| {
            format!(
                "PATH=/usr/sbin:/usr/bin:/sbin:/bin; export PATH; exec /usr/bin/{tool} --root=\"$here/target\" {more} \"$@\""
            )
        };
        folder.be_the_machine(&[
            ("apt-get", &apt("apt-get")),
            ("apt-cache", &apt("apt-cache")),
            ("apt-mark", &apt("apt-mark")),
            ("dpkg", &dpkg("dpkg", "--force-script-chrootless --log=/dev/null")),
            ("dpkg-query", &dpkg("dpkg-query", "")),
        ]);
        Self(folder)
    }

    fn apt_get(&self) -> Command {
        let mut command = Command::new("/usr/bin/apt-get");
        command.arg("-c").arg(self.0.path("apt.conf"));
        command
    }
}

impl Machine for AptMachine {
    fn folder(&self) -> &TestFolder {
        &self.0
    }

    fn whole(&self, release: &str) -> String {
        format!("{release}-1.1")
    }

    fn source(&self) -> &'static str {
        "/etc/apt/sources.list.d/kubernetes.list"
    }

    fn install_by_hand(&self) {
        done(self.apt_get().arg("update"));
        let exact = Package::ALL.map(|package| format!("{}={OLD}-1.1", package.as_str()));
        done(self.apt_get().args(["install", "--yes"]).args(exact));
    }

    /// Locks of that kind end with the file that they are on.
    fn work(&self) -> Box<dyn Any> {
        let lock = |name: &str| {
            let path = self.0.path(&format!("target/var/lib/dpkg/{name}"));
            let file = File::options().write(true).create(true).truncate(false).open(path).expect("a file of locks");
            fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).expect("nobody has it");
            file
        };
        Box::new([lock("lock-frontend"), lock("lock")])
    }

    fn repeated(&self) -> &'static str {
        "--configure -a"
    }

    fn rounds(&self) -> u64 {
        10
    }

    fn look_at_holds(&self) {
        let mut mark = Command::new("/usr/bin/apt-mark");
        let held = done(mark.arg("-c").arg(self.0.path("apt.conf")).arg("showhold"));
        assert_eq!(held, "kubeadm\nkubectl\nkubelet\n");
    }
}

const TOOLS: [&str; 5] =
    ["/usr/bin/apt-get", "/usr/bin/apt-mark", "/usr/bin/apt-cache", "/usr/bin/dpkg", "/usr/bin/dpkg-deb"];

#[tokio::test]
async fn an_install_that_is_killed_at_any_moment_is_repaired_and_repeated() {
    if has("real apt and dpkg", &TOOLS) {
        expectations(&AptMachine::new("real-apt")).await;
    }
}

#[tokio::test]
async fn a_pin_keeps_no_exact_version_away_and_holds_are_told_before() {
    if !has("real apt and dpkg", &TOOLS) {
        return;
    }
    let machine = AptMachine::new("real-apt-pins");
    let folder = machine.folder();
    let host = host(folder);
    machine.install_by_hand();
    assert_eq!(host.inventory("look").await.expect("told").holds, Some(Vec::new()), "nothing is held yet");
    host.heal().await.expect("held");
    host.switch_repository(minor(34)).await.expect("it is there");
    folder.write("target/etc/apt/preferences.d/kubernetes", "Package: kube*\nPin: version *\nPin-Priority: -1\n");
    let holds = host.inventory("look").await.expect("told").holds.expect("told").into_iter();
    let told: Vec<_> = holds.map(|hold| (hold.package, hold.by, hold.effect)).collect();
    let held = |name: &str| (name.to_owned(), "apt-mark hold".to_owned(), HoldEffect::Lifted);
    assert_eq!(told, ["kubeadm", "kubelet", "kubectl"].map(held), "a pin of these is no matter");
    host.install(&Package::ALL, &version(NEW)).await.expect("installed");
    all_are_at(&machine, &host, NEW, "past a pin").await;
}

#[tokio::test]
async fn an_install_of_containerd_that_is_killed_at_any_moment_is_repaired_with_its_configuration_and_its_hold_as_they_were()
 {
    if !has("real apt and dpkg", &TOOLS) {
        return;
    }
    let machine = AptMachine::new("real-apt-containerd");
    let folder = machine.folder();
    folder.be_the_machine(&[("systemctl", "echo MainPID=0"), ("crictl", "")]);
    let host = host(folder);
    let (old, new) = ("1.7.24-1".parse().expect("a version"), "1.7.27-1".parse().expect("a version"));
    let apt = |tool: &str, words: &[&str]| {
        done(Command::new(format!("/usr/bin/{tool}")).arg("-c").arg(folder.path("apt.conf")).args(words));
    };
    apt("apt-get", &["update"]);
    apt("apt-get", &["install", "--yes", "containerd.io=1.7.24-1"]);
    folder.write(&format!("target{CONTAINERD_CONFIGURATION}"), CONTAINERD_CHANGED);
    let told = host.inventory("look").await.expect("told").containerd_package.expect("a package");
    assert_eq!(told.offered, ["1.7.27-1", "1.7.24-1"], "{told:?}");
    assert!(host.containerd().await.expect("told").is_at(&old));
    for held in [true, false] {
        apt("apt-mark", &[if held { "hold" } else { "unhold" }, CONTAINERD]);
        done(Command::new("cp").arg("-a").arg(folder.path("target")).arg(folder.path("before")));
        let began = std::time::Instant::now();
        host.install_containerd(&new).await.expect("undisturbed");
        let whole = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut numbers = Numbers(34);
        for round in 0..CONTAINERD_ROUNDS {
            std::fs::remove_dir_all(folder.path("target")).expect("removed");
            done(Command::new("cp").arg("-a").arg(folder.path("before")).arg(folder.path("target")));
            for _ in 0..=numbers.below(3) {
                let moment = Duration::from_millis(numbers.below(whole));
                let _killed = tokio::time::timeout(moment, host.install_containerd(&new)).await;
            }
            let repaired = host.install_containerd(&new).await;
            repaired.unwrap_or_else(|error| panic!("round {round}, held {held}: {error}"));
            assert!(host.containerd().await.expect("told").is_at(&new), "round {round}, held {held}");
            let dpkg = Apt::of(&host).find(CONTAINERD).await.expect("dpkg answers");
            assert_eq!(dpkg.state.held, held, "round {round}: as it was before");
            assert_eq!(folder.read(&format!("target{CONTAINERD_CONFIGURATION}")), CONTAINERD_CHANGED, "round {round}");
        }
        host.install_containerd(&old).await.expect("a newer patch is as good");
        assert!(host.containerd().await.expect("it answers").version > old, "and nothing is put over it");
        std::fs::remove_dir_all(folder.path("target")).expect("removed");
        std::fs::rename(folder.path("before"), folder.path("target")).expect("put back");
    }
}
