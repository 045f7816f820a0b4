//! What dnf, 4 and 5, means by its last lines.

use super::Locked;
use super::rpm::TRANSACTION_LOCK;
use crate::real::failure::{Class, Meaning};

/// How dnf says that another process works on packages. dnf 4 would wait for ever: it is told to end instead.
pub(super) const LOCKED: Locked = Locked {
    words: &[
        "already locked by",
        "Failed to obtain rpm transaction lock",
        "Failed to obtain the transaction lock",
        TRANSACTION_LOCK,
    ],
    code: None,
};

const UNREACHABLE: Meaning = Meaning { words: "", class: Class::Transient, code: "RepositoryUnreachable", advice: "" };
const MISSING: Meaning = Meaning {
    words: "",
    class: Class::NeedsOperator,
    code: "RepositoryMissing",
    advice: "the server has no repository of that minor: a mirror has to carry it first",
};
const NOT_TRUSTED: Meaning = Meaning {
    words: "",
    class: Class::NeedsOperator,
    code: "RepositoryNotTrusted",
    advice: "the repository is not signed by the key that gpgkey names: set it right, then retry",
};
const DISK_FULL: Meaning =
    Meaning { words: "", class: Class::NeedsOperator, code: "DiskFull", advice: "free some space, then retry" };
const HIDDEN: Meaning = Meaning {
    words: "",
    class: Class::NeedsOperator,
    code: "PackageHidden",
    advice: "an exclude, a lock or another repository hides that version (dnf versionlock list, exclude= in /etc/dnf): take it off, then retry",
};
const UNMET: Meaning = Meaning {
    words: "",
    class: Class::NeedsOperator,
    code: "UnmetDependencies",
    advice: "another package stands in the way: release its lock or upgrade it, then retry",
};
const LOCK_HELD: Meaning = Meaning { words: "", class: Class::Transient, code: "PackageLockHeld", advice: "" };

const fn saying(words: &'static str, meaning: &Meaning) -> Meaning {
    Meaning { words, class: meaning.class, code: meaning.code, advice: meaning.advice }
}

/// What dnf means by its last lines. A mirror that does not answer may stand beside one that has no such repository.
pub(super) const MEANINGS: [Meaning; 25] = [
    saying(LOCKED.words[0], &LOCK_HELD),
    saying(LOCKED.words[1], &LOCK_HELD),
    saying(LOCKED.words[2], &LOCK_HELD),
    saying(LOCKED.words[3], &LOCK_HELD),
    saying("No space left on device", &DISK_FULL),
    saying("more space needed on the", &DISK_FULL),
    saying("GPG check FAILED", &NOT_TRUSTED),
    saying("GPG signature verification error", &NOT_TRUSTED),
    saying("Bad GPG signature", &NOT_TRUSTED),
    // Said with the status of the signature's own download.
    saying("GPG signature is not available", &NOT_TRUSTED),
    saying("Signature verification failed", &NOT_TRUSTED),
    saying("Curl error (6)", &UNREACHABLE),
    saying("Curl error (7)", &UNREACHABLE),
    saying("Curl error (28)", &UNREACHABLE),
    saying("Status code: 5", &UNREACHABLE),
    saying("Status code: 404", &MISSING),
    saying("Status code: 403", &MISSING),
    saying("Curl error (37)", &MISSING),
    saying("Failed to download metadata", &UNREACHABLE),
    saying("Error downloading packages", &UNREACHABLE),
    saying("filtered out by exclude", &HIDDEN),
    saying("Unable to find a match", &HIDDEN),
    saying("No match for argument", &HIDDEN),
    saying("conflicting requests", &UNMET),
    saying("nothing provides", &UNMET),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::failure;
    use crate::real::program::ProgramError;
    use cupcake_steps::ports::host::HostError;

    #[test]
    fn failures_of_dnf_are_told_apart_by_their_last_lines() {
        let code = |last_lines: &str| {
            let error = ProgramError::Failed {
                command: "dnf".to_owned(),
                status: "exit status: 1".to_owned(),
                code: Some(1),
                last_lines: last_lines.to_owned(),
                stdout: String::new(),
            };
            let locked = LOCKED.says(&error);
            match failure::program(&error, &MEANINGS, "Otherwise") {
                HostError::Transient(reason) => (reason.code, true, locked),
                HostError::Permanent(reason) | HostError::NeedsOperator(reason) => (reason.code, false, locked),
            }
        };
        for (last_lines, expected, transient) in [
            ("RPMDB already locked by 14412", "PackageLockHeld", true),
            (
                "Transaction failed: Failed to obtain rpm transaction lock. Another transaction is in progress.",
                "PackageLockHeld",
                true,
            ),
            (
                "error: can't create transaction lock on /var/lib/rpm/.rpm.lock (Resource temporarily unavailable)",
                "PackageLockHeld",
                true,
            ),
            (
                "- Status code: 404 for https://pkgs.k8s.io/core:/stable:/v1.99/rpm/repodata/repomd.xml | Error: Failed to download metadata for repo 'kubernetes'",
                "RepositoryMissing",
                false,
            ),
            (
                "- Status code: 403 for https://x/repodata/repomd.xml | Error: Failed to download metadata for repo 'kubernetes'",
                "RepositoryMissing",
                false,
            ),
            (
                "- Curl error (7): Couldn't connect to server for http://a/ | - Status code: 404 for http://b/",
                "RepositoryUnreachable",
                true,
            ),
            ("- Status code: 503 for https://x/repomd.xml", "RepositoryUnreachable", true),
            (
                "Error: Failed to download metadata for repo 'kubernetes': GPG verification is enabled, but GPG signature is not available. | - Status code: 404 for https://m/repodata/repomd.xml.asc",
                "RepositoryNotTrusted",
                false,
            ),
            ("Error: GPG check FAILED", "RepositoryNotTrusted", false),
            ("At least 85MB more space needed on the / filesystem.", "DiskFull", false),
            (
                "All matches were filtered out by exclude filtering for argument: kubelet-1.34.4-1",
                "PackageHidden",
                false,
            ),
            (
                "  - nothing provides conntrack needed by kubelet-1.34.4-1.x86_64 from kubernetes",
                "UnmetDependencies",
                false,
            ),
            ("something else", "Otherwise", true),
        ] {
            let locked = expected == "PackageLockHeld";
            assert_eq!(code(last_lines), (expected.into(), transient, locked), "{last_lines}");
        }
    }
}
