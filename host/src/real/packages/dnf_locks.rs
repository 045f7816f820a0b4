//! Locks of dnf's versionlock, as text: the list of dnf 4's plugin, and the TOML of dnf 5.
//!
//! Sources: dnf-plugins-core, plugins/versionlock.py (tried against 4.3.1); dnf5-versionlock(8), "Versionlock file". Only what locks a
//! package by name at a version is taken off and put back; an entry that excludes a version stays, and so does one of a name with `*`.

use super::holds::{Kept, cut_pattern};
use super::remembered::Locks;
use super::repo_files::fits;
use cupcake_crds::node_task::HoldEffect;

/// `/etc/dnf/plugins/versionlock.list`: a pattern a line, such as `kubelet-0:1.33.13-150500.1.1.*`.
pub(super) struct VersionlockList;
/// `/etc/dnf/versionlock.toml`.
pub(super) struct VersionlockToml;

/// Without the epoch that is left out where there is none.
fn without_epoch(evr: &str) -> &str {
    evr.strip_prefix("0:").unwrap_or(evr)
}

/// What follows the name in a line that locks a version of the package.
fn version_of<'l>(line: &'l str, package: &str) -> Option<&'l str> {
    let line = line.trim();
    // `0:kubelet-1.33.13-…` is an older way to write it.
    let line = line.strip_prefix("0:").unwrap_or(line);
    let version = without_epoch(line.strip_prefix(package)?.strip_prefix('-')?);
    version.starts_with(|c: char| c.is_ascii_digit()).then_some(version)
}

/// The name, which may be a pattern, and the versions of a line that locks any.
fn name_and_versions(line: &str) -> Option<(&str, &str)> {
    let line = line.trim().strip_prefix("0:").unwrap_or(line.trim());
    let mut dashes = line.match_indices('-').map(|(at, _)| (&line[..at], without_epoch(&line[at + 1..])));
    dashes.find(|(_, versions)| versions.starts_with(|c: char| c.is_ascii_digit()))
}

impl Locks for VersionlockList {
    fn take(&self, text: &str, package: &str) -> (String, Vec<String>) {
        let (taken, kept): (Vec<&str>, Vec<&str>) =
            text.split_inclusive('\n').partition(|line| version_of(line, package).is_some());
        (kept.concat(), taken.into_iter().map(|line| line.trim().to_owned()).collect())
    }

    fn put_back(&self, text: &str, package: &str, evr: Option<&str>, taken: &[String]) -> String {
        let lines = match evr {
            Some(evr) if self.holds(text, package, evr) => return text.to_owned(),
            Some(evr) => vec![format!("{package}-{evr}.*")],
            None => taken.to_vec(),
        };
        let mut text = text.to_owned();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        for line in lines {
            if !text.lines().any(|present| present.trim() == line) {
                text.push_str(&line);
                text.push('\n');
            }
        }
        text
    }

    fn holds(&self, text: &str, package: &str, evr: &str) -> bool {
        let evr = without_epoch(evr);
        let (version, _) = evr.rsplit_once('-').unwrap_or((evr, ""));
        let locked = |found: &str| found == version || found == evr || found.starts_with(&format!("{evr}."));
        text.lines().filter_map(|line| version_of(line, package)).any(locked)
    }

    fn keeps(&self, text: &str, package: &str) -> Vec<Kept> {
        let kept = |line: &str| {
            let line = line.trim();
            let (effect, versions) = if let Some(excluded) = line.strip_prefix('!') {
                let (name, versions) = name_and_versions(excluded)?;
                fits(name, package).then_some((HoldEffect::Hides, versions))?
            } else if let Some(versions) = version_of(line, package) {
                (HoldEffect::Lifted, versions)
            } else {
                let (name, versions) = name_and_versions(line)?;
                fits(name, package).then_some((HoldEffect::Keeps, versions))?
            };
            Some(Kept { by: format!("versionlock {line}"), effect, versions: Some(cut_pattern(versions)) })
        };
        text.lines().filter_map(kept).collect()
    }
}

/// Where a lock begins.
const PACKAGES: &str = "[[packages]]";

/// The text before the first lock, and each lock with what follows it.
fn blocks(text: &str) -> (String, Vec<String>) {
    let (mut head, mut blocks) = (String::new(), Vec::<String>::new());
    for line in text.split_inclusive('\n') {
        if line.trim() == PACKAGES {
            blocks.push(String::new());
        }
        blocks.last_mut().unwrap_or(&mut head).push_str(line);
    }
    (head, blocks)
}

/// The values of a key in a lock, in order.
fn values<'b>(block: &'b str, key: &str) -> Vec<&'b str> {
    let lines = block.lines().filter_map(|line| line.split_once('='));
    lines.filter(|(name, _)| name.trim() == key).map(|(_, value)| bare(value.trim())).collect()
}

/// A value without its quotes and what follows it.
fn bare(value: &str) -> &str {
    match value.chars().next() {
        Some(quote @ ('"' | '\'')) => value[1..].split(quote).next().unwrap_or_default(),
        _ => value.split('#').next().unwrap_or_default().trim(),
    }
}

/// What keeps the versions of a package: comparators with versions. None where the lock is of another package.
fn conditions<'b>(block: &'b str, package: &str) -> Vec<(&'b str, &'b str)> {
    if values(block, "name").first() != Some(&package) {
        return Vec::new();
    }
    let of_version = values(block, "key").into_iter().zip(values(block, "comparator")).zip(values(block, "value"));
    of_version.filter(|((key, _), _)| *key == "evr").map(|((_, comparator), value)| (comparator, value)).collect()
}

/// Comments and empty lines at the end of a lock: they belong to what comes next.
fn tail_of(block: &str) -> usize {
    let lines: Vec<&str> = block.split_inclusive('\n').collect();
    let tail = lines.iter().rev().take_while(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
    block.len() - tail.map(|line| line.len()).sum::<usize>()
}

impl Locks for VersionlockToml {
    fn take(&self, text: &str, package: &str) -> (String, Vec<String>) {
        let (mut kept, blocks) = blocks(text);
        let mut taken = Vec::new();
        for block in blocks {
            if conditions(&block, package).iter().any(|(comparator, _)| *comparator != "!=") {
                let (lock, tail) = block.split_at(tail_of(&block));
                taken.push(lock.to_owned());
                kept.push_str(tail);
            } else {
                kept.push_str(&block);
            }
        }
        (kept, taken)
    }

    fn put_back(&self, text: &str, package: &str, evr: Option<&str>, taken: &[String]) -> String {
        let locks = match evr {
            Some(evr) if self.holds(text, package, evr) => return text.to_owned(),
            Some(evr) => vec![format!(
                "{PACKAGES}\nname = \"{package}\"\n[[packages.conditions]]\nkey = \"evr\"\ncomparator = \"=\"\nvalue = \"{evr}\"\n"
            )],
            None => taken.to_vec(),
        };
        let mut text = text.to_owned();
        if text.trim().is_empty() {
            "version = \"1.0\"\n".clone_into(&mut text);
        }
        for lock in locks {
            if text.contains(&lock) {
                continue;
            }
            text.push_str(if text.ends_with("\n\n") {
                ""
            } else if text.ends_with('\n') {
                "\n"
            } else {
                "\n\n"
            });
            text.push_str(&lock);
        }
        text
    }

    fn holds(&self, text: &str, package: &str, evr: &str) -> bool {
        let locked = |block: &String| {
            let conditions = conditions(block, package);
            conditions
                .iter()
                .any(|(comparator, value)| *comparator == "=" && without_epoch(value) == without_epoch(evr))
        };
        blocks(text).1.iter().any(locked)
    }

    fn keeps(&self, text: &str, package: &str) -> Vec<Kept> {
        let kept = |(comparator, version): (&str, &str)| Kept {
            by: format!("versionlock {package} {comparator} {version}"),
            effect: if comparator == "!=" { HoldEffect::Hides } else { HoldEffect::Lifted },
            // What keeps a package by a limit lets in what no pattern tells.
            versions: matches!(comparator, "=" | "!=").then(|| cut_pattern(without_epoch(version))),
        };
        let of_block = |block: &String| -> Vec<Kept> {
            let kept: Vec<Kept> = conditions(block, package).into_iter().map(kept).collect();
            // A lock with a condition that is lifted is lifted as a whole.
            let lifted = kept.iter().any(|kept| kept.effect == HoldEffect::Lifted);
            kept.into_iter().filter(|kept| !lifted || kept.effect == HoldEffect::Lifted).collect()
        };
        blocks(text).1.iter().flat_map(of_block).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the plugin of dnf 4 writes it.
    const LIST: &str = "\
# Added lock on Mon Nov 30 15:00:00 2026
kubelet-0:1.33.13-150500.1.1.*

kubeadm-1.33.*
!kubeadm-0:1.34.3-150500.1.1.*
kubectl
kubelet-extra-0:1.0-1.*
bash-0:5.2-1.*
";

    #[test]
    fn lines_that_lock_a_version_of_the_package_are_taken_and_no_other() {
        let (kept, taken) = VersionlockList.take(LIST, "kubelet");
        assert_eq!(taken, ["kubelet-0:1.33.13-150500.1.1.*"]);
        assert_eq!(kept, LIST.replace("kubelet-0:1.33.13-150500.1.1.*\n", ""));
        assert_eq!(VersionlockList.take(LIST, "kubeadm").1, ["kubeadm-1.33.*"], "what excludes a version stays");
        assert!(VersionlockList.take(LIST, "kubectl").1.is_empty(), "a bare name locks nothing");
    }

    #[test]
    fn a_list_is_locked_at_the_installed_version_once() {
        let (kept, taken) = VersionlockList.take(LIST, "kubelet");
        let evr = Some("0:1.34.4-150500.1.1");
        let back = VersionlockList.put_back(&kept, "kubelet", evr, &taken);
        assert_eq!(back, format!("{kept}kubelet-0:1.34.4-150500.1.1.*\n"));
        assert_eq!(VersionlockList.put_back(&back, "kubelet", evr, &taken), back);
        assert_eq!(VersionlockList.put_back("x", "kubelet", None, &taken), "x\nkubelet-0:1.33.13-150500.1.1.*\n");
    }

    #[test]
    fn a_list_holds_a_package_at_exactly_its_version() {
        let holds = |text: &str| VersionlockList.holds(text, "kubelet", "0:1.33.13-150500.1.1");
        for text in [
            LIST,
            "kubelet-1.33.13-150500.1.1",
            "kubelet-0:1.33.13-150500.1.1.x86_64",
            "kubelet-1.33.13",
            "0:kubelet-1.33.13-150500.1.1.*",
        ] {
            assert!(holds(text), "{text}");
        }
        for text in [
            "kubelet-1.33.*",
            "kubelet",
            "!kubelet-1.33.13",
            "kubelet-0:1.33.14-150500.1.1.*",
            "kubelet-1.33.13-150500.1.10.*",
            "",
        ] {
            assert!(!holds(text), "{text}");
        }
    }

    #[test]
    fn what_a_list_says_of_a_package_is_told_with_what_becomes_of_it() {
        let told = |text: &str, package: &str| -> Vec<(String, HoldEffect, Option<String>)> {
            let kept = VersionlockList.keeps(text, package).into_iter();
            kept.map(|kept| (kept.by, kept.effect, kept.versions)).collect()
        };
        let one = |by: &str, effect, versions: &str| (format!("versionlock {by}"), effect, Some(versions.to_owned()));
        assert_eq!(
            told(LIST, "kubeadm"),
            [
                one("kubeadm-1.33.*", HoldEffect::Lifted, "1.33.*"),
                one("!kubeadm-0:1.34.3-150500.1.1.*", HoldEffect::Hides, "1.34.3-150500.1.1.*")
            ]
        );
        assert!(told(LIST, "kubectl").is_empty() && told("# kubectl-1.33\n", "kubectl").is_empty());
        let wide = "kube*-0:1.33.*\n!k*-1.34.3\n";
        assert_eq!(
            told(wide, "kubelet"),
            [one("kube*-0:1.33.*", HoldEffect::Keeps, "1.33.*"), one("!k*-1.34.3", HoldEffect::Hides, "1.34.3")]
        );
        assert!(VersionlockList.take(wide, "kubelet").1.is_empty(), "it is of other packages, too");
    }

    #[test]
    fn what_dnf_5_says_of_a_package_is_told_with_what_becomes_of_it() {
        let told: Vec<_> =
            VersionlockToml.keeps(TOML, "kubelet").into_iter().map(|kept| (kept.by, kept.effect)).collect();
        let expected = [
            ("versionlock kubelet = 0:1.33.13-150500.1.1".to_owned(), HoldEffect::Lifted),
            ("versionlock kubelet != 0:1.34.3-150500.1.1".to_owned(), HoldEffect::Hides),
        ];
        assert_eq!(told, expected);
        let limit = VersionlockToml.keeps(TOML, "kubeadm");
        assert_eq!((limit.len(), limit[0].effect, limit[0].versions.as_deref()), (1, HoldEffect::Lifted, None));
    }

    /// As dnf 5 writes it, and as people do.
    const TOML: &str = "\
version = \"1.0\"

[[packages]]
name = \"kubelet\"
comment = \"Added by 'versionlock add' command on 2026-10-03 00:35:13\"

[[packages.conditions]]
key = \"evr\"
comparator = \"=\"
value = \"0:1.33.13-150500.1.1\"

# not that one
[[packages]]
name = 'kubelet'   # one of its patches is bad
[[packages.conditions]]
key = \"evr\"
comparator = \"!=\"
value = \"0:1.34.3-150500.1.1\"

[[packages]]
name = \"kubeadm\"
[[packages.conditions]]
key = \"evr\"
comparator = \"<\"
value = \"1.34\"
";

    #[test]
    fn locks_of_dnf_5_are_taken_whole_and_put_back_at_the_installed_version() {
        let (kept, taken) = VersionlockToml.take(TOML, "kubelet");
        assert_eq!(taken.len(), 1);
        assert!(taken[0].starts_with(PACKAGES) && taken[0].ends_with("1.33.13-150500.1.1\"\n"), "{taken:?}");
        assert!(kept.contains("# not that one") && kept.contains("!=") && !kept.contains("1.33.13"), "{kept}");
        let evr = Some("0:1.34.4-150500.1.1");
        let back = VersionlockToml.put_back(&kept, "kubelet", evr, &taken);
        assert!(VersionlockToml.holds(&back, "kubelet", "0:1.34.4-150500.1.1") && back.starts_with(&kept), "{back}");
        assert_eq!(VersionlockToml.put_back(&back, "kubelet", evr, &taken), back);
        assert_eq!(VersionlockToml.take(TOML, "kubeadm").1.len(), 1, "a limit keeps newer versions away");
        assert!(VersionlockToml.take(TOML, "kubectl").1.is_empty());
        let anew = VersionlockToml.put_back("", "kubelet", None, &taken);
        assert_eq!(anew, format!("version = \"1.0\"\n\n{}", taken[0]));
    }

    #[test]
    fn a_lock_of_dnf_5_holds_with_and_without_the_epoch() {
        assert!(VersionlockToml.holds(TOML, "kubelet", "0:1.33.13-150500.1.1"));
        let bare = TOML.replace("\"0:1.33", "\"1.33");
        assert!(VersionlockToml.holds(&bare, "kubelet", "0:1.33.13-150500.1.1"));
        assert!(!VersionlockToml.holds(TOML, "kubelet", "0:1.33.14-150500.1.1"));
        assert!(!VersionlockToml.holds(TOML, "kubeadm", "0:1.33.13-150500.1.1"), "patches would move it");
    }
}
