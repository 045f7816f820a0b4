//! Locks of zypper, as text: `/etc/zypp/locks`, a stanza of fields a lock.
//!
//! Source: libzypp, zypp/PoolQuery.cc (`readPoolQueriesFromFile`); tried against zypper 1.14.42. A lock of a regular expression is
//! left alone: where it stands in the way, zypper says so.

use super::remembered::Locks;
use super::repo_files::fits;

pub(super) struct ZyppLocks;

fn stanzas(text: &str) -> Vec<Vec<&str>> {
    let lines: Vec<&str> = text.lines().collect();
    let stanzas = lines.split(|line| line.trim().is_empty()).filter(|stanza| !stanza.is_empty());
    stanzas.map(<[&str]>::to_vec).collect()
}

fn field<'s>(stanza: &[&'s str], name: &str) -> Option<&'s str> {
    stanza
        .iter()
        .find_map(|line| line.split_once(':').filter(|(field, _)| field.trim() == name))
        .map(|(_, value)| value.trim())
}

/// Whether the lock is one of the package.
fn concerns(stanza: &[&str], package: &str) -> bool {
    let Some(name) = field(stanza, "solvable_name") else { return false };
    let name = ["noarch", "x86_64", "aarch64", "ppc64le", "s390x"]
        .into_iter()
        .find_map(|arch| name.strip_suffix(arch)?.strip_suffix('.'))
        .unwrap_or(name);
    let is_package = field(stanza, "type").is_none_or(|kind| kind == "package");
    is_package
        && match field(stanza, "match_type").unwrap_or("glob") {
            "glob" => fits(name, package),
            "exact" | "word" => name == package,
            "substring" => package.contains(name),
            _ => false,
        }
}

impl Locks for ZyppLocks {
    fn take(&self, text: &str, package: &str) -> (String, Vec<String>) {
        let (taken, kept): (Vec<_>, Vec<_>) = stanzas(text).into_iter().partition(|stanza| concerns(stanza, package));
        let whole = |stanza: Vec<&str>| stanza.join("\n") + "\n";
        if taken.is_empty() {
            return (text.to_owned(), Vec::new());
        }
        let kept: Vec<String> = kept.into_iter().map(|stanza| format!("\n{}\n", whole(stanza))).collect();
        (kept.concat(), taken.into_iter().map(whole).collect())
    }

    fn put_back(&self, text: &str, _: &str, _: Option<&str>, taken: &[String]) -> String {
        let mut text = text.to_owned();
        for lock in taken {
            let there = stanzas(&text).iter().any(|stanza| stanza.join("\n") + "\n" == *lock);
            if !there {
                if !text.is_empty() && !text.ends_with('\n') {
                    text.push('\n');
                }
                text.push('\n');
                text.push_str(lock);
                text.push('\n');
            }
        }
        text
    }

    fn holds(&self, text: &str, package: &str, _: &str) -> bool {
        let limited = |stanza: &[&str]| ["version", "repo", "complex"].iter().any(|name| field(stanza, name).is_some());
        stanzas(text).iter().any(|stanza| concerns(stanza, package) && !limited(stanza))
    }
}

/// The lock that `zypper addlock` writes.
pub(super) fn lock_of(package: &str) -> String {
    format!("type: package\nmatch_type: glob\ncase_sensitive: on\nsolvable_name: {package}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As zypper writes it.
    const LOCKS: &str = "
type: pattern
match_type: glob
case_sensitive: on
solvable_name: kubelet


type: package
version: < 1.34
match_type: glob
case_sensitive: on
solvable_name: kubeadm


repo: kubernetes
type: package
match_type: glob
case_sensitive: on
solvable_name: kubectl.noarch


type: package
match_type: glob
case_sensitive: on
solvable_name: kubelet


type: package
match_type: regex
case_sensitive: on
solvable_name: ^kube.*

";

    #[test]
    fn locks_are_taken_and_put_back_as_they_were() {
        let (kept, taken) = ZyppLocks.take(LOCKS, "kubelet");
        assert_eq!(taken, [lock_of("kubelet")]);
        assert!(kept.contains("pattern") && kept.contains("kubeadm") && kept.contains("regex"), "{kept}");
        let back = ZyppLocks.put_back(&kept, "kubelet", Some("0:1.34.4-1.1"), &taken);
        assert_eq!(stanzas(&back).len(), 5);
        assert_eq!(ZyppLocks.put_back(&back, "kubelet", None, &taken), back, "none twice");
        for (package, field) in [("kubeadm", "version: < 1.34\n"), ("kubectl", "repo: kubernetes\n")] {
            let (_, taken) = ZyppLocks.take(LOCKS, package);
            assert!(taken.len() == 1 && taken[0].contains(field), "{taken:?}");
        }
        assert_eq!(ZyppLocks.take(LOCKS, "bash"), (LOCKS.to_owned(), Vec::new()), "and nothing is written anew");
        assert_eq!(ZyppLocks.take("\ntype: package\nsolvable_name: kube*\n", "kubectl").1.len(), 1);
    }

    #[test]
    fn a_package_is_held_by_a_lock_of_its_name_alone() {
        assert!(ZyppLocks.holds(LOCKS, "kubelet", "0:1.33.13-1.1"));
        assert!(!ZyppLocks.holds(LOCKS, "kubeadm", "0:1.33.13-1.1"), "its patches would move it");
        assert!(!ZyppLocks.holds(LOCKS, "kubectl", "0:1.33.13-1.1"), "another repository could");
        assert!(ZyppLocks.holds(&lock_of("kube*"), "kubectl", ""));
    }
}
