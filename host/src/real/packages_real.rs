//! [`RealHost`] against the real apt and dpkg: a tree of its own with a local repository of small packages, killed and repaired.
//!
//! apt and dpkg are this machine's; all that they change lies below a folder (`Dir`, `--root`). The packages' scripts run
//! here, not in a chroot, and only sleep, so that a kill also meets half-configured packages. Needs Debian's tools and root;
//! skipped with a loud line elsewhere, never where CI is set. `CUPCAKE_SEED` repeats a run.

use super::test_folder::TestFolder;
use super::tests::half_free;
use super::{RealHost, Settings};
use cupcake_crds::values::KubeVersion;
use cupcake_engine::clock::{SimClock, Timestamp};
use cupcake_steps::ports::host::{HostOps, Package, PackageState};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

const OLD: &str = "1.33.13";
const NEW: &str = "1.34.4";
/// A configuration file of the kubelet package, which the administrator has changed.
const CONFIGURATION: &str = "/etc/default/kubelet";
const CHANGED: &str = "KUBELET_EXTRA_ARGS=--node-ip=10.0.0.7\n";
/// How many upgrades are cut short.
const ROUNDS: u64 = 10;

/// Whether this machine has what the test needs.
fn is_debian() -> bool {
    let tools = ["/usr/bin/apt-get", "/usr/bin/apt-mark", "/usr/bin/apt-cache", "/usr/bin/dpkg", "/usr/bin/dpkg-deb"];
    let fit = tools.iter().all(|tool| Path::new(tool).exists()) && rustix::process::geteuid().is_root();
    assert!(fit || std::env::var_os("CI").is_none(), "CI is set: the test of real apt and dpkg cannot be skipped");
    if !fit {
        println!("SKIPPED: real apt and dpkg: needs Debian's tools and root");
    }
    fit
}

fn done(command: &mut Command) {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// containerd's package, and what the administrator wrote into its configuration.
const CONTAINERD: &str = "containerd.io";
const CONTAINERD_CONFIGURATION: &str = "/etc/containerd/config.toml";
const CONTAINERD_CHANGED: &str = "version = 2\nroot = \"/var/images\"\n";

/// A small package in the folder's repository, and its lines in the index.
fn package(folder: &TestFolder, name: &str, version: &str) -> String {
    revision(folder, name, version, "1.1")
}

/// As [`package`], of that revision.
fn revision(folder: &TestFolder, name: &str, version: &str, revision: &str) -> String {
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
    let file = format!("repository/{name}_{version}.deb");
    let (from, to) = (folder.path(&tree), folder.path(&file));
    done(Command::new("dpkg-deb").args(["--build", "--root-owner-group", "-Znone"]).arg(from).arg(to));
    let content = std::fs::read(folder.path(&file)).expect("it was built");
    let digest = Sha256::digest(&content).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    format!("{control}Filename: ./{name}_{version}.deb\nSize: {}\nSHA256: {digest}\n\n", content.len())
}

/// A machine with the old packages installed and held, and a repository that also offers the new ones.
fn machine(folder: &TestFolder) {
    let root = folder.root().display();
    folder.write("repository/.keep", "");
    let index: String = [OLD, NEW]
        .into_iter()
        .flat_map(|version| Package::ALL.map(|name| package(folder, name.as_str(), version)))
        .chain(["1.7.24", "1.7.27"].map(|version| revision(folder, CONTAINERD, version, "1")))
        .collect();
    folder.write("repository/Packages", index);
    for empty in ["var/lib/dpkg/status", "var/lib/dpkg/available", "etc/apt/preferences.d/.keep"] {
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
        format!("deb [trusted=yes] file:{root}/repository ./\n"),
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
        format!("PATH=/usr/sbin:/usr/bin:/sbin:/bin; export PATH; exec /usr/bin/{tool} -c \"$here/apt.conf\" \"$@\"")
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
    done(Command::new("/usr/bin/apt-get").arg("-c").arg(folder.path("apt.conf")).arg("update"));
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

/// Numbers that follow from a seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

#[tokio::test]
async fn an_install_that_is_killed_at_any_moment_is_repaired_and_repeated() {
    if !is_debian() {
        return;
    }
    let folder = TestFolder::new("real-apt");
    machine(&folder);
    let host = host(&folder);
    let all = Package::ALL;
    let error = host.install(&all, &version(OLD)).await.expect_err("nothing is installed yet");
    assert!(error.to_string().starts_with("NotInstalledByPackage"), "{error}");
    let by_hand = Package::ALL.map(|package| format!("{}={OLD}-1.1", package.as_str()));
    done(
        Command::new("/usr/bin/apt-get")
            .arg("-c")
            .arg(folder.path("apt.conf"))
            .args(["install", "--yes"])
            .args(by_hand),
    );
    host.install(&all, &version(OLD)).await.expect("all is there and is held");
    let state = |of: &str| PackageState { version: Some(format!("{of}-1.1")), whole: true, held: true };
    for package in all {
        assert_eq!(host.package(package).await.expect("dpkg answers"), state(OLD), "{}", package.as_str());
    }
    assert_eq!(folder.read(&format!("target{CONFIGURATION}")), format!("# of {OLD}\n"));
    folder.write(&format!("target{CONFIGURATION}"), CHANGED);
    done(Command::new("cp").arg("-a").arg(folder.path("target")).arg(folder.path("before")));

    let began = std::time::Instant::now();
    host.install(&all, &version(NEW)).await.expect("undisturbed");
    let whole = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let error = host.install(&all, &version(OLD)).await.expect_err("no downgrade");
    assert!(error.to_string().contains("never put over a newer one"), "{error}");

    let seed = std::env::var("CUPCAKE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(34);
    println!("CUPCAKE_SEED={seed}, an undisturbed install takes {whole} ms");
    let mut numbers = Numbers(seed);
    let (mut cut_short, mut unwhole) = (0, 0);
    for round in 0..ROUNDS {
        std::fs::remove_dir_all(folder.path("target")).expect("removed");
        done(Command::new("cp").arg("-a").arg(folder.path("before")).arg(folder.path("target")));
        // Killed as the runner's unit kills: SIGKILL to the whole process group, once or several times over.
        for _ in 0..=numbers.below(3) {
            let moment = Duration::from_millis(numbers.below(whole));
            let killed = tokio::time::timeout(moment, host.install(&all, &version(NEW))).await.is_err();
            cut_short += u32::from(killed);
        }
        let mut broken = false;
        for package in all {
            let found = host.package(package).await.expect("dpkg answers");
            broken |= !found.whole || !found.held;
        }
        unwhole += u32::from(broken);
        let repaired = host.install(&all, &version(NEW)).await;
        repaired.unwrap_or_else(|error| panic!("round {round}, CUPCAKE_SEED={seed}: {error}"));
        for package in all {
            let found = host.package(package).await.expect("dpkg answers");
            assert_eq!(found, state(NEW), "round {round}, CUPCAKE_SEED={seed}: {}", package.as_str());
            let file = folder.read(&format!("target/usr/bin/{}", package.as_str()));
            assert!(file.starts_with(&format!("{} {NEW}", package.as_str())), "its files are there");
        }
        assert_eq!(folder.read(&format!("target{CONFIGURATION}")), CHANGED, "round {round}: kept as it was changed");
    }
    println!("{cut_short} installs cut short in {ROUNDS} rounds, {unwhole} of them left something unheld or half done");
    assert!(cut_short >= 5, "only {cut_short} installs were cut short");
}

#[tokio::test]
async fn an_install_of_containerd_that_is_killed_at_any_moment_is_repaired_with_its_configuration_and_its_hold_as_they_were()
 {
    if !is_debian() {
        return;
    }
    let folder = TestFolder::new("real-containerd");
    machine(&folder);
    folder.be_the_machine(&[("systemctl", "echo MainPID=0"), ("crictl", "")]);
    let host = host(&folder);
    let (old, new) = ("1.7.24-1".parse().expect("a version"), "1.7.27-1".parse().expect("a version"));
    let apt = |tool: &str, words: &[&str]| {
        done(Command::new(format!("/usr/bin/{tool}")).arg("-c").arg(folder.path("apt.conf")).args(words));
    };
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
        for round in 0..ROUNDS / 2 {
            std::fs::remove_dir_all(folder.path("target")).expect("removed");
            done(Command::new("cp").arg("-a").arg(folder.path("before")).arg(folder.path("target")));
            for _ in 0..=numbers.below(3) {
                let moment = Duration::from_millis(numbers.below(whole));
                let _killed = tokio::time::timeout(moment, host.install_containerd(&new)).await;
            }
            let repaired = host.install_containerd(&new).await;
            repaired.unwrap_or_else(|error| panic!("round {round}, held {held}: {error}"));
            assert!(host.containerd().await.expect("told").is_at(&new), "round {round}, held {held}");
            let dpkg = host.dpkg(CONTAINERD).await.expect("dpkg answers");
            assert_eq!(dpkg.state.held, held, "round {round}: as it was before");
            assert_eq!(folder.read(&format!("target{CONTAINERD_CONFIGURATION}")), CONTAINERD_CHANGED, "round {round}");
        }
        let error = host.install_containerd(&old).await.expect_err("no downgrade");
        assert!(error.to_string().contains("never put over a newer one"), "{error}");
        std::fs::remove_dir_all(folder.path("target")).expect("removed");
        std::fs::rename(folder.path("before"), folder.path("target")).expect("put back");
    }
}
