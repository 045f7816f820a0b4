//! What apt and dpkg mean by their last lines.

use super::Locked;
use crate::real::failure::{Class, Meaning};

/// How dpkg and apt say that another process works on packages.
pub(super) const LOCKED: Locked = Locked {
    words: &["locked by another process", "Could not get lock", "Unable to acquire the dpkg frontend lock"],
    code: None,
};

/// What `apt-get install` means by its last lines.
pub(super) const INSTALL: [Meaning; 10] = [
    Meaning { words: "locked by another process", class: Class::Transient, code: "PackageLockHeld", advice: "" },
    Meaning { words: "Could not get lock", class: Class::Transient, code: "PackageLockHeld", advice: "" },
    Meaning {
        words: "Unable to acquire the dpkg frontend lock",
        class: Class::Transient,
        code: "PackageLockHeld",
        advice: "",
    },
    Meaning {
        words: "No space left on device",
        class: Class::NeedsOperator,
        code: "DiskFull",
        advice: "free some space, then retry",
    },
    Meaning {
        words: "You don't have enough free space",
        class: Class::NeedsOperator,
        code: "DiskFull",
        advice: "free some space, then retry",
    },
    Meaning { words: "Unable to fetch", class: Class::Transient, code: "RepositoryUnreachable", advice: "" },
    Meaning { words: "Failed to fetch", class: Class::Transient, code: "RepositoryUnreachable", advice: "" },
    Meaning {
        words: "were downgraded",
        class: Class::Permanent,
        code: "WouldDowngrade",
        advice: "an older package is never put over a newer one",
    },
    Meaning {
        words: "unmet dependencies",
        class: Class::NeedsOperator,
        code: "UnmetDependencies",
        advice: "another package stands in the way: release its hold or upgrade it, then retry",
    },
    Meaning {
        words: "held broken packages",
        class: Class::NeedsOperator,
        code: "UnmetDependencies",
        advice: "another package stands in the way: release its hold or upgrade it, then retry",
    },
];

/// What `apt-get update` means by its last lines.
pub(super) const UPDATE: [Meaning; 7] = [
    Meaning { words: "Could not get lock", class: Class::Transient, code: "PackageLockHeld", advice: "" },
    Meaning {
        words: "NO_PUBKEY",
        class: Class::NeedsOperator,
        code: "RepositoryNotTrusted",
        advice: "the key of the Kubernetes repository is missing: renew the file named by signed-by, then retry",
    },
    Meaning {
        words: "EXPKEYSIG",
        class: Class::NeedsOperator,
        code: "RepositoryNotTrusted",
        advice: "the key of the Kubernetes repository has expired: renew the file named by signed-by, then retry",
    },
    Meaning {
        words: "is not signed",
        class: Class::NeedsOperator,
        code: "RepositoryNotTrusted",
        advice: "the Kubernetes repository is not signed by the key that its source names",
    },
    Meaning {
        words: "does not have a Release file",
        class: Class::NeedsOperator,
        code: "RepositoryMissing",
        advice: "the server has no repository of that minor: a mirror has to carry it first",
    },
    // A mirror on the machine's own disk.
    Meaning {
        words: "File not found",
        class: Class::NeedsOperator,
        code: "RepositoryMissing",
        advice: "there is no repository of that minor: the mirror has to carry it first",
    },
    Meaning {
        words: "No space left on device",
        class: Class::NeedsOperator,
        code: "DiskFull",
        advice: "free some space, then retry",
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::failure;
    use crate::real::program::ProgramError;
    use cupcake_steps::ports::host::HostError;

    #[test]
    fn only_dpkgs_and_apts_own_words_mean_that_another_process_works_on_packages() {
        let failed = |last_lines: &str| ProgramError::Failed {
            command: "dpkg --configure -a".to_owned(),
            status: "exit status: 2".to_owned(),
            code: Some(2),
            last_lines: last_lines.to_owned(),
            stdout: String::new(),
        };
        for held in [
            "dpkg: error: dpkg frontend lock was locked by another process with pid 4711",
            "dpkg: error: dpkg status database is locked by another process",
            "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 4711 (unattended-upgr)",
            "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?",
        ] {
            assert!(LOCKED.says(&failed(held)), "{held}");
            let meaning = failure::program(&failed(held), &INSTALL, "PackageInstallFailed");
            assert!(matches!(&meaning, HostError::Transient(reason) if reason.code == "PackageLockHeld"), "{meaning}");
        }
        for other in ["insserv: script hwclock is broken", "No space left on block device", "blocked by policy-rc.d"] {
            assert!(!LOCKED.says(&failed(other)), "{other}");
        }
        let late = "dpkg status database is locked by another process".to_owned();
        let late = ProgramError::TimedOut { command: "dpkg".to_owned(), limit_seconds: 600, last_lines: late };
        assert!(!LOCKED.says(&late), "what had its whole time is not run again");
    }
}
