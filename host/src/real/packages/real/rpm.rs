//! Real dnf 4, zypper and rpm, as Debian has them, with a root of their own (`--installroot`, `--root`).
//!
//! What is not shown here: dnf 5, which Debian does not have, and scripts of packages that need a shell in that root.

use super::{CONFIGURATION, Machine, NEW, NEWER, OLD, all_are_at, done, expectations, has, host, version};
use crate::real::test_folder::TestFolder;
use cupcake_steps::ports::host::{HostOps, Package};
use std::any::Any;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

const RELEASE: &str = "150500.1.1";
pub(super) const DNF: [&str; 4] = ["/usr/bin/dnf", "/usr/bin/rpm", "/usr/bin/rpmbuild", "/usr/bin/createrepo_c"];
pub(super) const ZYPPER: [&str; 4] = ["/usr/bin/zypper", "/usr/bin/rpm", "/usr/bin/rpmbuild", "/usr/bin/createrepo_c"];

/// The packages of one release, built from one file. Their scripts only take time, in rpm's own Lua.
fn spec(release: &str) -> String {
    let slow = "local t = os.clock() + 0.03 while os.clock() < t do end";
    let package = |name: &str| {
        let configuration = if name == "kubelet" { CONFIGURATION } else { "" };
        let files =
            if configuration.is_empty() { String::new() } else { format!("%config(noreplace) {configuration}\n") };
        let scripts = ["pre", "post", "preun"].map(|when| format!("%{when} -n {name} -p <lua>\n{slow}\n")).concat();
        format!(
            "%package -n {name}\nSummary: {name}\n%description -n {name}\nfor a test\n{scripts}%files -n {name}\n/usr/bin/{name}\n{files}"
        )
    };
    let programs = Package::ALL.map(|package| {
        let name = package.as_str();
        format!("yes '{name} {release}' | head -n 20000 > %{{buildroot}}/usr/bin/{name}\n")
    });
    format!(
        "Name: kubernetes\nVersion: {release}\nRelease: {RELEASE}\nSummary: for a test\nLicense: none\nBuildArch: noarch\n%description\nfor a test\n\
         %install\nmkdir -p %{{buildroot}}/usr/bin %{{buildroot}}/etc/default\n{}echo '# of {release}' > %{{buildroot}}{CONFIGURATION}\n{}",
        programs.concat(),
        Package::ALL.map(|name| package(name.as_str())).concat(),
    )
}

/// A repository for each of two minors.
fn repositories(folder: &TestFolder) {
    for (minor, releases) in [("1.33", &[OLD][..]), ("1.34", &[NEW, NEWER])] {
        let specs: Vec<String> = releases.iter().map(|release| spec(release)).collect();
        repository(folder, &format!("repository/core:/stable:/v{minor}/rpm"), &specs);
    }
}

/// A repository of the packages that these files build.
pub(super) fn repository(folder: &TestFolder, place: &str, specs: &[String]) {
    let repository = folder.path(place);
    for spec in specs {
        folder.write("build/package.spec", spec);
        let define = |name: &str, path: PathBuf| ["--define".to_owned(), format!("{name} {}", path.display())];
        let mut build = Command::new("/usr/bin/rpmbuild");
        build.args(["-bb", "--quiet"]).args(define("_topdir", folder.path("build")));
        build.args(define("_rpmdir", repository.clone())).args(define("_dbpath", folder.path("build/db")));
        done(build.arg(folder.path("build/package.spec")));
    }
    done(Command::new("/usr/bin/createrepo_c").args(["--quiet", "--no-database"]).arg(&repository));
}

/// How packages are held on a machine of dnf before it is upgraded for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// By the `exclude=` of the documentation.
    Excluded,
    /// By nothing.
    Loose,
    /// By the plugin, once they are installed.
    Locked,
}

pub(super) struct DnfMachine {
    pub(super) folder: TestFolder,
    held: Held,
}

const PLUGINS: &str = "usr/lib/python3/dist-packages/dnf-plugins/versionlock.py";
pub(super) const LOCKLIST: &str = "/etc/dnf/plugins/versionlock.list";

/// The plugin that locks versions, as Debian packs it: unpacked into the folder, since it cannot be installed beside zypper.
pub(super) fn versionlock(folder: &TestFolder) -> bool {
    let unpacked = folder.path("plugins");
    folder.write("plugins/.keep", "");
    let own = Path::new("/").join(PLUGINS);
    if own.exists() {
        done(Command::new("cp").args(["-r", "--parents", "/usr/lib/python3/dist-packages/dnf-plugins"]).arg(&unpacked));
        done(
            Command::new("cp")
                .args(["-r", "--parents", "/usr/lib/python3/dist-packages/dnfpluginscore"])
                .arg(&unpacked),
        );
        return true;
    }
    let apt = |words: &[&str]| Command::new("apt-get").args(words).current_dir(&unpacked).output();
    let archive = || {
        let mut files = unpacked.read_dir().ok()?.filter_map(|file| Some(file.ok()?.path()));
        files.find(|path| path.extension().is_some_and(|ending| ending == "deb"))
    };
    let download = ["download", "--quiet", "dnf-plugins-core"];
    let _ = apt(&download);
    if archive().is_none() {
        let _ = apt(&["update", "--quiet"]);
        let _ = apt(&download);
    }
    let Some(archive) = archive() else {
        assert!(std::env::var_os("CI").is_none(), "CI is set: dnf-plugins-core cannot be had from Debian");
        println!("SKIPPED: versionlock of dnf 4: dnf-plugins-core cannot be had from Debian");
        return false;
    };
    done(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(&unpacked));
    unpacked.join(PLUGINS).exists()
}

impl DnfMachine {
    pub(super) fn new(name: &str, held: Held) -> Self {
        let folder = TestFolder::new(name);
        repositories(&folder);
        let exclude =
            if held == Held::Excluded { "exclude=kubelet kubeadm kubectl cri-tools kubernetes-cni\n" } else { "" };
        folder.write(
            "target/etc/yum.repos.d/kubernetes.repo",
            format!(
                "# Kubernetes\n[kubernetes]\nname=Kubernetes\nbaseurl=file://{}/repository/core:/stable:/v1.33/rpm/\nenabled=1\ngpgcheck=0\n{exclude}",
                folder.root().display()
            ),
        );
        folder.write("target/etc/yum.repos.d/away.repo", AWAY);
        folder.write("target/etc/dnf/dnf.conf", "[main]\nclean_requirements_on_remove=True\n");
        folder.write("target/usr/bin/dnf", "");
        folder.write("target/etc/os-release", "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n");
        if held == Held::Locked {
            folder.write(
                "target/etc/dnf/plugins/versionlock.conf",
                format!("[main]\nenabled = 1\nlocklist = {LOCKLIST}\n"),
            );
            folder.write(&format!("target{LOCKLIST}"), "");
            // dnf takes that path as it stands, whatever its root is.
            let list = folder.path(&format!("target{LOCKLIST}"));
            folder
                .write("plugin-conf/versionlock.conf", format!("[main]\nenabled = 1\nlocklist = {}\n", list.display()));
        }
        let plugins = if held == Held::Locked {
            format!(
                "--setopt=pluginpath=$here/plugins/{} --setopt=pluginconfpath=$here/plugin-conf",
                "usr/lib/python3/dist-packages/dnf-plugins"
            )
        } else {
            "--noplugins".to_owned()
        };
        let dnf = format!(
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin; PYTHONPATH=$here/plugins/usr/lib/python3/dist-packages; export PATH PYTHONPATH\n\
             exec /usr/bin/dnf --installroot=\"$here/target\" --releasever=1 {plugins} \"$@\""
        );
        folder.be_the_machine(&[("dnf", &dnf), ("rpm", RPM)]);
        Self { folder, held }
    }

    pub(super) fn dnf(&self, arguments: &[&str]) -> String {
        let mut dnf = Command::new(self.folder.path("bin/dnf"));
        done(dnf.env("PATH", self.folder.path("bin")).arg("--assumeyes").args(arguments))
    }
}

const RPM: &str = "PATH=/usr/sbin:/usr/bin:/sbin:/bin; export PATH; exec /usr/bin/rpm --root=\"$here/target\" \"$@\"";

/// A process that does nothing, for as long as it is not dropped.
struct Other(Child, PathBuf);

impl Other {
    /// Whose number stands in that file, as dnf and zypper write theirs.
    fn in_file(path: PathBuf) -> Self {
        let child = Command::new("sleep").arg("600").spawn().expect("it starts");
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(&path, child.id().to_string()).expect("written");
        Self(child, path)
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = std::fs::remove_file(&self.1);
    }
}

impl Machine for DnfMachine {
    fn folder(&self) -> &TestFolder {
        &self.folder
    }

    fn whole(&self, release: &str) -> String {
        format!("{release}-{RELEASE}")
    }

    fn source(&self) -> &'static str {
        "/etc/yum.repos.d/kubernetes.repo"
    }

    fn install_by_hand(&self) {
        let exact = Package::ALL.map(|package| format!("{}-{OLD}", package.as_str()));
        let specs = exact.iter().map(String::as_str);
        let words: Vec<&str> =
            ["--disableexcludes=kubernetes", "--disablerepo=away", "install"].into_iter().chain(specs).collect();
        self.dnf(&words);
        if self.held == Held::Locked {
            self.dnf(&["--disablerepo=away", "versionlock", "add", "kubeadm", "kubelet", "kubectl"]);
        }
    }

    fn work(&self) -> Box<dyn Any> {
        Box::new(Other::in_file(self.folder.path("target/var/lib/dnf/rpmdb_lock.pid")))
    }

    fn repeated(&self) -> &'static str {
        " install kubeadm-"
    }

    fn rounds(&self) -> u64 {
        if self.held == Held::Locked { 2 } else { 4 }
    }

    fn look_at_holds(&self) {
        let mut check = Command::new(self.folder.path("bin/dnf"));
        check
            .env("PATH", self.folder.path("bin"))
            .args(["--assumeno", "--disablerepo=away", "upgrade"])
            .env("HOME", "/root");
        let output = check.output().expect("it starts");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("Nothing to do") && output.status.success(), "nothing would move: {text}");
        let source = self.folder.read(&format!("target{}", self.source()));
        assert_eq!(source.contains("exclude=kubeadm kubelet kubectl\n"), self.held == Held::Loose, "{source}");
        if self.held == Held::Locked {
            let locks = self.dnf(&["--quiet", "--disablerepo=away", "versionlock", "list"]);
            let mut names: Vec<_> =
                locks.lines().filter_map(|line| line.split_once("-0:")).map(|(name, _)| name).collect();
            names.sort_unstable();
            assert_eq!(names, ["kubeadm", "kubectl", "kubelet"], "one lock each: {locks}");
        }
    }
}

pub(super) struct ZypperMachine(pub(super) TestFolder);

/// A repository of the machine's that is away, and must not matter.
const AWAY: &str = "[away]\nname=away\nenabled=1\nbaseurl=file:///nowhere/at/all/\n";

impl ZypperMachine {
    pub(super) fn new(name: &str) -> Self {
        let folder = TestFolder::new(name);
        repositories(&folder);
        folder.write(
            "target/etc/zypp/repos.d/kubernetes.repo",
            format!(
                "# Kubernetes\n[kubernetes]\nname=Kubernetes\nenabled=1\ngpgcheck=0\nautorefresh=1\nbaseurl=file://{}/repository/core:/stable:/v1.33/rpm/\n",
                folder.root().display()
            ),
        );
        folder.write("target/usr/bin/zypper", "");
        folder.write("target/etc/os-release", "ID=\"sles\"\nID_LIKE=\"suse\"\n");
        let zypper = "PATH=/usr/sbin:/usr/bin:/sbin:/bin; export PATH
            case \" $* \" in *' --root '*) exec /usr/bin/zypper \"$@\";; *) exec /usr/bin/zypper --root \"$here/target\" \"$@\";; esac";
        folder.be_the_machine(&[("zypper", zypper), ("rpm", RPM)]);
        Self(folder)
    }

    pub(super) fn zypper(&self, arguments: &[&str]) -> String {
        let mut zypper = Command::new(self.0.path("bin/zypper"));
        done(zypper.env("PATH", self.0.path("bin")).arg("--non-interactive").args(arguments))
    }
}

impl Machine for ZypperMachine {
    fn folder(&self) -> &TestFolder {
        &self.0
    }

    fn whole(&self, release: &str) -> String {
        format!("{release}-{RELEASE}")
    }

    fn source(&self) -> &'static str {
        "/etc/zypp/repos.d/kubernetes.repo"
    }

    fn install_by_hand(&self) {
        let exact = Package::ALL.map(|package| format!("{}={OLD}", package.as_str()));
        let specs = exact.iter().map(String::as_str);
        self.zypper(&["install"].into_iter().chain(specs).collect::<Vec<_>>());
        // Locks of somebody's: one of ours, limited, and one that is none of our business.
        self.zypper(&["addlock", "kubelet<1.99", "bash"]);
        self.0.write("target/etc/zypp/repos.d/away.repo", AWAY);
    }

    fn work(&self) -> Box<dyn Any> {
        Box::new(Other::in_file(self.0.path("target/run/zypp.pid")))
    }

    fn repeated(&self) -> &'static str {
        "--xmlout --no-refresh search"
    }

    fn rounds(&self) -> u64 {
        6
    }

    fn look_at_holds(&self) {
        let locks = self.zypper(&["--quiet", "locks"]);
        let mut names: Vec<_> =
            locks.lines().filter_map(|line| line.split('|').nth(1)).map(str::trim).skip(1).collect();
        names.sort_unstable();
        assert_eq!(names, ["bash", "kubeadm", "kubectl", "kubelet", "kubelet < 1.99"], "{locks}");
    }
}

#[tokio::test]
async fn dnf_with_excludes_does_what_is_expected_of_every_package_manager() {
    if has("real dnf", &DNF) {
        expectations(&DnfMachine::new("real-dnf", Held::Excluded)).await;
    }
}

#[tokio::test]
async fn dnf_with_versionlock_does_what_is_expected_of_every_package_manager() {
    if has("real dnf", &DNF) {
        let machine = DnfMachine::new("real-dnf-locked", Held::Locked);
        if versionlock(&machine.folder) {
            expectations(&machine).await;
        }
    }
}

#[tokio::test]
async fn zypper_does_what_is_expected_of_every_package_manager() {
    if has("real zypper", &ZYPPER) {
        expectations(&ZypperMachine::new("real-zypper")).await;
    }
}

/// What an interrupted transaction leaves, made on purpose: a kill meets it by chance only.
async fn is_repaired(machine: &dyn Machine) {
    let (folder, all) = (machine.folder(), Package::ALL);
    let host = host(folder);
    machine.install_by_hand();
    host.switch_repository(super::minor(34)).await.expect("it is there");
    let rpm = |arguments: &[&str]| {
        let mut rpm = Command::new(folder.path("bin/rpm"));
        done(rpm.env("PATH", folder.path("bin")).args(arguments))
    };
    // The newer version is there, and the older one was not removed yet.
    let file = |minor: &str, release: &str| {
        let name = format!("repository/core:/stable:/v{minor}/rpm/noarch/kubelet-{release}-{RELEASE}.noarch.rpm");
        folder.path(&name).display().to_string()
    };
    rpm(&["--install", "--force", "--nodeps", &file("1.34", NEW)]);
    let found = host.package(Package::Kubelet).await.expect("it answers");
    assert_eq!((found.version, found.whole), (Some(machine.whole(NEW)), false), "two versions of it");
    host.install(&all, &version(NEW)).await.expect("repaired");
    all_are_at(machine, &host, NEW, "of two versions").await;
    // Files that a power cut emptied, under a version that the database has.
    folder.write("target/usr/bin/kubelet", "");
    folder.write("target/usr/bin/kubelet;6a1c0f2e", "half of it");
    assert!(!host.package(Package::Kubelet).await.expect("it answers").whole, "its program is none");
    host.install(&all, &version(NEW)).await.expect("repaired");
    all_are_at(machine, &host, NEW, "of an emptied program").await;
    assert!(!folder.path("target/usr/bin/kubelet;6a1c0f2e").exists());
    // Two versions, of which neither is wanted.
    rpm(&["--install", "--force", "--nodeps", "--oldpackage", &file("1.33", OLD)]);
    host.install(&all, &version(NEWER)).await.expect("repaired");
    all_are_at(machine, &host, NEWER, "of two older versions").await;
    machine.look_at_holds();
}

#[tokio::test]
async fn what_an_interrupted_transaction_of_dnf_left_is_repaired() {
    if has("real dnf", &DNF) {
        is_repaired(&DnfMachine::new("real-dnf-torn", Held::Loose)).await;
    }
}

#[tokio::test]
async fn what_an_interrupted_transaction_of_zypper_left_is_repaired() {
    if has("real zypper", &ZYPPER) {
        is_repaired(&ZypperMachine::new("real-zypper-torn")).await;
    }
}
