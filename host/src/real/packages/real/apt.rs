//! Real apt and dpkg, with a root of their own (`Dir`, `--root`). Scripts of packages run here, not in a chroot.

use super::{CONFIGURATION, Machine, NEW, NEWER, OLD, done, expectations, has};
use crate::real::test_folder::TestFolder;
use cupcake_steps::ports::host::Package;
use rustix::fs::{FlockOperation, fcntl_lock};
use sha2::{Digest, Sha256};
use std::any::Any;
use std::fmt::Write as _;
use std::fs::File;
use std::process::Command;

/// A small package in the folder's repository of its minor, and its lines in the index.
fn package(folder: &TestFolder, repository: &str, name: &str, version: &str) -> String {
    let tree = format!("build/{name}_{version}");
    let control = format!(
        "Package: {name}\nVersion: {version}-1.1\nArchitecture: all\nMaintainer: nobody <nobody@example.com>\nDescription: {name} for a test\n"
    );
    folder.write(&format!("{tree}/DEBIAN/control"), &control);
    folder.write(&format!("{tree}/usr/bin/{name}"), format!("{name} {version}\n").repeat(20_000));
    let script = "#!/bin/sh\nsleep 0.05\nexit 0\n";
    for phase in ["preinst", "postinst", "prerm"] {
        folder.write(&format!("{tree}/DEBIAN/{phase}"), script);
        done(Command::new("chmod").args(["755"]).arg(folder.path(&format!("{tree}/DEBIAN/{phase}"))));
    }
    if name == "kubelet" {
        folder.write(&format!("{tree}{CONFIGURATION}"), format!("# of {version}\n"));
        folder.write(&format!("{tree}/DEBIAN/conffiles"), format!("{CONFIGURATION}\n"));
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
    fn new() -> Self {
        let folder = TestFolder::new("real-apt");
        let root = folder.root().display();
        for (minor, versions) in [("1.33", &[OLD][..]), ("1.34", &[NEW, NEWER])] {
            let repository = format!("repository/core:/stable:/v{minor}/deb");
            folder.write(&format!("{repository}/.keep"), "");
            let index: String = versions
                .iter()
                .flat_map(|version| Package::ALL.map(|name| package(&folder, &repository, name.as_str(), version)))
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

#[tokio::test]
async fn an_install_that_is_killed_at_any_moment_is_repaired_and_repeated() {
    let tools = ["/usr/bin/apt-get", "/usr/bin/apt-mark", "/usr/bin/apt-cache", "/usr/bin/dpkg", "/usr/bin/dpkg-deb"];
    if has("real apt and dpkg", &tools) {
        expectations(&AptMachine::new()).await;
    }
}
