//! Locks of zypper, as text: `/etc/zypp/locks`, a stanza of fields a lock.
//!
//! Source: libzypp, zypp/PoolQuery.cc (`readPoolQueriesFromFile`); tried against zypper 1.14.42. A lock of a regular expression is
//! left alone: where it stands in the way, zypper says so, and is asked before.

use super::holds::Kept;
use super::remembered::Locks;
use super::repo_files::fits;
use cupcake_crds::node_task::HoldEffect;

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

    fn keeps(&self, text: &str, package: &str) -> Vec<Kept> {
        let kept = |stanza: &Vec<&str>| {
            let name = field(stanza, "solvable_name").unwrap_or_default();
            let version = field(stanza, "version").map(|version| format!(" {version}")).unwrap_or_default();
            Kept { by: format!("zypper lock {name}{version}"), effect: HoldEffect::Lifted, versions: None }
        };
        stanzas(text).iter().filter(|stanza| concerns(stanza, package)).map(kept).collect()
    }
}

/// Whether there is a lock whose packages zypper alone can tell: one of a regular expression, or of something else than a name.
pub(super) fn has_riddles(text: &str) -> bool {
    let known = |stanza: &Vec<&str>| {
        let by_name = matches!(field(stanza, "match_type").unwrap_or("glob"), "glob" | "exact" | "word" | "substring");
        by_name && field(stanza, "solvable_name").is_some()
    };
    let of_packages = |stanza: &&Vec<&str>| field(stanza, "type").is_none_or(|kind| kind == "package");
    stanzas(text).iter().filter(of_packages).any(|stanza| !known(stanza))
}

/// What is left of the package's locks in the answer of `zypper --xmlout locks --solvables` without those that are known by name.
pub(super) fn riddles(xml: &str, text: &str, package: &str) -> Vec<Kept> {
    let known: Vec<&str> = {
        let stanzas = stanzas(text).into_iter().filter(|stanza| concerns(stanza, package));
        stanzas.filter_map(|stanza| field(&stanza, "solvable_name")).collect()
    };
    let locks = xml.split("<lock ").skip(1);
    let its = locks.filter(|lock| lock.contains(&format!("<match kind=\"package\" name=\"{package}\" ")));
    let name = |lock: &str| {
        let (_, rest) = lock.split_once("<name>")?;
        rest.split("</name>").next().map(ToOwned::to_owned)
    };
    let names = its.map(|lock| name(lock).unwrap_or_else(|| "without a name".to_owned()));
    let unknown = names.filter(|name| !known.contains(&name.as_str()));
    let kept = |name: String| Kept { by: format!("zypper lock {name}"), effect: HoldEffect::Keeps, versions: None };
    unknown.map(kept).collect()
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
    fn locks_are_told_as_zypper_names_them_and_those_of_no_name_are_riddles() {
        let told = |package: &str| -> Vec<_> {
            ZyppLocks.keeps(LOCKS, package).into_iter().map(|kept| (kept.by, kept.effect)).collect()
        };
        assert_eq!(told("kubeadm"), [("zypper lock kubeadm < 1.34".to_owned(), HoldEffect::Lifted)]);
        assert_eq!(told("bash"), []);
        assert!(has_riddles(LOCKS), "there is a regular expression");
        assert!(!has_riddles(&lock_of("kube*")) && !has_riddles(""));
        assert!(!has_riddles("type: patch\nmatch_type: regex\nsolvable_name: .*\n"), "patches are no packages");
        assert!(has_riddles("type: package\ncomplex: provides: containerd\n"));
    }

    #[test]
    fn a_package_is_held_by_a_lock_of_its_name_alone() {
        assert!(ZyppLocks.holds(LOCKS, "kubelet", "0:1.33.13-1.1"));
        assert!(!ZyppLocks.holds(LOCKS, "kubeadm", "0:1.33.13-1.1"), "its patches would move it");
        assert!(!ZyppLocks.holds(LOCKS, "kubectl", "0:1.33.13-1.1"), "another repository could");
        assert!(ZyppLocks.holds(&lock_of("kube*"), "kubectl", ""));
    }
}
