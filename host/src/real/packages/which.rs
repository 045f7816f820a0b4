//! Which package manager a machine has, by its os-release(5) and its programs: asked here and nowhere else.

use super::Manager;
use super::apt::Apt;
use super::dnf::{Dnf, Generation};
use super::zypper::Zypper;
use crate::real::RealHost;
use crate::real::failure::needs_operator;
use crate::real::os::Files;
use cupcake_steps::ports::host::HostError;
use std::fs;
use std::path::PathBuf;

/// A package manager that the runner works with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Apt,
    /// dnf, by the name of the program that is to be called: `yum` is one of its names.
    Dnf(&'static str, Generation),
    Zypper,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Debian,
    Fedora,
    Suse,
}

/// Systems whose `/usr` is an image: packages are not installed while they run.
const IMAGES: [&str; 6] =
    ["opensuse-microos", "opensuse-leap-micro", "opensuse-aeon", "sle-micro", "sle_micro", "sl-micro"];
/// The sign of rpm-ostree (Fedora CoreOS and its like).
const BOOTED_FROM_OSTREE: &str = "/run/ostree-booted";

impl Family {
    fn of(id: &str) -> Option<Self> {
        match id {
            "debian" | "ubuntu" => Some(Self::Debian),
            "fedora" | "rhel" | "centos" | "rocky" | "almalinux" | "ol" | "amzn" | "azurelinux" | "mariner"
            | "openeuler" | "anolis" => Some(Self::Fedora),
            "suse" | "sles" | "sled" | "opensuse" => Some(Self::Suse),
            id if id.starts_with("opensuse-") => Some(Self::Suse),
            _ => None,
        }
    }
}

/// `ID` and then the words of `ID_LIKE`, in lower case.
fn ids(os_release: &str) -> Vec<String> {
    let value = |field: &str| {
        let line = os_release.lines().find_map(|line| line.trim().strip_prefix(field));
        line.unwrap_or_default().trim().trim_matches(['"', '\'']).to_ascii_lowercase()
    };
    let words = |text: String| text.split_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>();
    let (id, like) = (value("ID="), value("ID_LIKE="));
    words(id).into_iter().chain(words(like)).collect()
}

/// The package manager of the machine with these files; `None` where it has none of those that are known, or several and no word
/// about which is its own.
pub(crate) fn kind(files: &Files) -> Option<Kind> {
    let os_release = files.text("/etc/os-release").or_else(|| files.text("/usr/lib/os-release")).unwrap_or_default();
    let ids = ids(&os_release);
    if files.has(BOOTED_FROM_OSTREE) || ids.first().is_some_and(|id| IMAGES.contains(&id.as_str())) {
        return None;
    }
    let apt = || files.has("/usr/bin/apt-get").then_some(Kind::Apt);
    let dnf = || dnf(files);
    let zypper = || files.has("/usr/bin/zypper").then_some(Kind::Zypper);
    match ids.iter().find_map(|id| Family::of(id)) {
        // Programs of other families are tools there: Debian has packages of dnf and zypper, too.
        Some(Family::Debian) => apt(),
        Some(Family::Fedora) => dnf(),
        Some(Family::Suse) => zypper(),
        None => {
            let mut there = [apt(), dnf(), zypper()].into_iter().flatten();
            there.next().filter(|_| there.next().is_none())
        }
    }
}

/// dnf under whichever of its names. yum of its own (CentOS 7, Amazon Linux 2) is none.
fn dnf(files: &Files) -> Option<Kind> {
    ["dnf", "dnf5", "yum"].into_iter().find_map(|program| {
        let name = behind(files, program)?;
        let generation = match name.as_str() {
            "dnf5" => Generation::Five,
            name if name.starts_with("dnf") => Generation::Four,
            _ => return None,
        };
        Some(Kind::Dnf(program, generation))
    })
}

/// The name of the program behind a name in /usr/bin; links lead from one name there to another.
fn behind(files: &Files, program: &str) -> Option<String> {
    let path = |name: &str| files.path("/usr/bin").join(name);
    let mut name = program.to_owned();
    // `yum` to `dnf` to `dnf-3` is the longest way.
    for _ in 0..4 {
        match fs::read_link(path(&name)) {
            Ok(target) => target.file_name()?.to_str()?.clone_into(&mut name),
            Err(_) => return fs::exists::<PathBuf>(path(&name)).ok()?.then_some(name),
        }
    }
    None
}

impl RealHost {
    /// The name of the machine's package manager, if it is one that the runner works with.
    pub(crate) fn manager_name(&self) -> Option<&'static str> {
        self.manager().ok().map(|manager| manager.name())
    }

    /// The machine's package manager, looked for anew each time.
    pub(in crate::real) fn manager(&self) -> Result<Box<dyn Manager + '_>, HostError> {
        match kind(self.files()) {
            Some(Kind::Apt) => Ok(Box::new(Apt::of(self))),
            Some(Kind::Dnf(program, generation)) => Ok(Box::new(Dnf::of(self, program, generation))),
            Some(Kind::Zypper) => Ok(Box::new(Zypper::of(self))),
            None => Err(needs_operator(
                "PackageManagerUnknown",
                format!(
                    "the packages of this machine ({}) are installed by none of apt, dnf and zypper: upgrade it by hand",
                    self.files().os_name().unwrap_or_else(|| "no os-release".to_owned())
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::test_folder::TestFolder;

    /// What is found on a machine with that os-release and these programs; `name>target` is a link.
    fn found(os_release: &str, programs: &[&str]) -> Option<Kind> {
        let folder = TestFolder::new("which");
        folder.write("/etc/os-release", os_release);
        for program in programs {
            match program.split_once('>') {
                Some((name, target)) => {
                    folder.write("/usr/bin/.keep", "");
                    std::os::unix::fs::symlink(target, folder.path("/usr/bin").join(name)).expect("linked");
                }
                None if program.starts_with('/') => folder.write(program, ""),
                None => folder.write(&format!("/usr/bin/{program}"), ""),
            }
        }
        kind(&Files::below(folder.root().to_owned()))
    }

    #[test]
    fn the_package_manager_is_the_one_of_the_systems_family() {
        let (four, five) = (Kind::Dnf("dnf", Generation::Four), Kind::Dnf("dnf", Generation::Five));
        let cases: [(&str, &[&str], Option<Kind>); 15] = [
            ("ID=debian\n", &["apt-get"], Some(Kind::Apt)),
            ("ID=ubuntu\nID_LIKE=debian\n", &["apt-get", "dnf", "zypper"], Some(Kind::Apt)),
            (
                "NAME=\"Rocky Linux\"\nID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n",
                &["dnf>dnf-3", "dnf-3"],
                Some(four),
            ),
            ("ID=\"rhel\"\n", &["yum>dnf-3", "dnf-3"], Some(Kind::Dnf("yum", Generation::Four))),
            ("ID=\"amzn\"\nVERSION_ID=\"2023\"\n", &["yum>dnf", "dnf>dnf-3", "dnf-3", "apt-get"], Some(four)),
            ("ID=fedora\nVERSION_ID=43\n", &["dnf>dnf5", "dnf5", "dnf-3"], Some(five)),
            ("ID=fedora\nVERSION_ID=40\n", &["dnf5"], Some(Kind::Dnf("dnf5", Generation::Five))),
            ("ID=\"centos\"\nVERSION_ID=\"7\"\n", &["yum"], None),
            ("ID=fedora\nVARIANT_ID=coreos\n", &["dnf>dnf5", "dnf5", "/run/ostree-booted"], None),
            ("ID=\"sles\"\nID_LIKE=\"suse\"\n", &["zypper"], Some(Kind::Zypper)),
            ("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n", &["zypper", "dnf"], Some(Kind::Zypper)),
            ("ID=\"sl-micro\"\nID_LIKE=\"suse\"\n", &["zypper"], None),
            ("ID=own\nID_LIKE=\"own debian\"\n", &["apt-get"], Some(Kind::Apt)),
            ("ID=own\n", &["zypper"], Some(Kind::Zypper)),
            ("ID=own\n", &["zypper", "apt-get"], None),
        ];
        for (os_release, programs, expected) in cases {
            assert_eq!(found(os_release, programs), expected, "{os_release} {programs:?}");
        }
        assert_eq!(found("ID=alpine\n", &["apk"]), None);
        assert_eq!(found("", &["apt-get"]), Some(Kind::Apt), "a machine without os-release");
    }

    #[test]
    fn a_machine_with_another_package_manager_is_told_so_with_its_name() {
        let folder = TestFolder::new("which-none");
        folder.write("/etc/os-release", "ID=alpine\nPRETTY_NAME=\"Alpine Linux v3.22\"\n");
        let host = crate::real::tests::host_in(&folder);
        let error = host.manager().err().expect("there is none");
        assert!(
            matches!(&error, HostError::NeedsOperator(reason) if reason.code == "PackageManagerUnknown"),
            "{error}"
        );
        assert!(error.to_string().contains("Alpine Linux v3.22"), "{error}");
        assert_eq!(host.manager_name(), None);
    }
}
