//! Versions of packages, compared as dpkg compares them; two of rpm's of one release of upstream as rpm does.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// The longest version that is read, in characters.
const CHARS_MAX: usize = 64;
/// What Debian puts behind an upstream version whose sources it had to change.
const REPACKED: [&str; 4] = ["~ds", "+ds", "~dfsg", "+dfsg"];

/// What a distribution of rpm puts into each release of its packages, before the number of its own version: `3.1.el9`, `1.fc42`.
const RPM_DISTRIBUTIONS: [&str; 7] = ["el", "fc", "amzn", "azl", "oe", "module+el", "module_el"];

/// A version of a package: `[epoch:]upstream[-revision]`, such as `1.7.24-1`, `1.6.20~ds1-1+deb12u3` or `1.7.24-3.1.el9`.
///
/// # Guarantees
/// Ordered as dpkg orders (Debian policy manual, "Version"): `1.7.9` before `1.7.24`, `2.0.0~rc.1` before `2.0.0`. Upstream's versions
/// of containerd are ordered alike by rpm. Revisions that name a distribution of rpm are ordered as rpm orders, behind all others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PackageVersion(String);

/// A text that is no version of a package.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no version of a package: write it as 1.7.24, or whole as 1.7.24-1")]
pub struct InvalidPackageVersion {
    /// Its beginning.
    pub text: String,
}

impl PackageVersion {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parts(&self) -> (u64, &str, &str) {
        let (epoch, rest) = self.0.split_once(':').unwrap_or(("0", &self.0));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, "0"));
        (epoch.parse().unwrap_or(u64::MAX), upstream, revision)
    }

    /// The version that upstream gave it: `1.6.20` of `1.6.20~ds1-1+deb12u3`.
    pub fn upstream(&self) -> &str {
        let (_, upstream, _) = self.parts();
        let end = REPACKED.iter().filter_map(|mark| upstream.find(mark)).min().unwrap_or(upstream.len());
        &upstream[..end]
    }

    /// Whether it names one package exactly, and not every revision of what upstream released.
    pub fn is_whole(&self) -> bool {
        self.0.contains(['-', ':'])
    }

    /// Whether it is what was asked for: that very version, or a package of that version of upstream.
    pub fn is(&self, asked: &Self) -> bool {
        self == asked || (!asked.is_whole() && self.upstream() == asked.upstream())
    }

    /// Whether upstream calls it finished.
    pub fn is_release(&self) -> bool {
        !self.upstream().contains(|c: char| c == '~' || c.is_ascii_alphabetic())
    }

    /// Whether it is what a machine may have instead of `planned`: newer, and of the same minor.
    pub fn is_newer_patch_of(&self, planned: &Self) -> bool {
        self > planned && self.minor().is_some() && self.minor() == planned.minor()
    }

    /// Its minor: `(1, 7)` of `1.7.24-1`; none of one that does not begin with two numbers.
    pub fn minor(&self) -> Option<(u32, u32)> {
        let mut numbers = self.upstream().split(|c: char| !c.is_ascii_digit());
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}

/// Where a character stands: `~` before the end, the end before letters, letters before all else.
fn rank(character: Option<u8>) -> i32 {
    match character {
        Some(b'~') => -1,
        None => 0,
        Some(digit) if digit.is_ascii_digit() => 0,
        Some(letter) if letter.is_ascii_alphabetic() => i32::from(letter),
        Some(other) => i32::from(other) + 256,
    }
}

/// dpkg's `verrevcmp`: by turns what is no digit, character by character, and numbers.
fn compare(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.as_bytes(), right.as_bytes());
    while !left.is_empty() || !right.is_empty() {
        while left.first().is_some_and(|c| !c.is_ascii_digit()) || right.first().is_some_and(|c| !c.is_ascii_digit()) {
            let order = rank(left.first().copied()).cmp(&rank(right.first().copied()));
            if order != Ordering::Equal {
                return order;
            }
            left = left.get(1..).unwrap_or_default();
            right = right.get(1..).unwrap_or_default();
        }
        let (left_digits, right_digits) = (digits(&mut left), digits(&mut right));
        let order = left_digits.len().cmp(&right_digits.len()).then_with(|| left_digits.cmp(right_digits));
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

/// Whether a revision is one of rpm's, by the distribution that it names.
fn is_of_rpm(revision: &str) -> bool {
    let names = |part: &str, distribution: &&str| {
        part.strip_prefix(*distribution).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    revision.split('.').any(|part| RPM_DISTRIBUTIONS.iter().any(|distribution| names(part, distribution)))
}

/// rpm's `rpmvercmp` without `^`: runs of digits and of letters, whatever parts them; a number is newer than letters.
fn compare_as_rpm(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left, right);
    loop {
        let parts = |c: char| !c.is_ascii_alphanumeric() && c != '~';
        (left, right) = (left.trim_start_matches(parts), right.trim_start_matches(parts));
        match (left.strip_prefix('~'), right.strip_prefix('~')) {
            (Some(left_rest), Some(right_rest)) => {
                (left, right) = (left_rest, right_rest);
                continue;
            }
            (Some(_), None) => return Ordering::Less,
            (None, Some(_)) => return Ordering::Greater,
            (None, None) => {}
        }
        if left.is_empty() || right.is_empty() {
            return left.len().cmp(&right.len());
        }
        let run = |text: &str| {
            let is_number = text.starts_with(|c: char| c.is_ascii_digit());
            let same = |c: char| c.is_ascii_alphanumeric() && c.is_ascii_digit() == is_number;
            (is_number, text.find(|c: char| !same(c)).unwrap_or(text.len()))
        };
        let ((left_number, left_end), (right_number, right_end)) = (run(left), run(right));
        let order = match (left_number, right_number) {
            (true, true) => {
                let bare = |text: &str, end: usize| text[..end].trim_start_matches('0').to_owned();
                let (left, right) = (bare(left, left_end), bare(right, right_end));
                left.len().cmp(&right.len()).then_with(|| left.cmp(&right))
            }
            (false, false) => left[..left_end].cmp(&right[..right_end]),
            (left_number, right_number) => left_number.cmp(&right_number),
        };
        if order != Ordering::Equal {
            return order;
        }
        (left, right) = (&left[left_end..], &right[right_end..]);
    }
}

/// Revisions of one release of upstream. Each kind is ordered within itself, so that the whole is an order.
fn compare_revisions(left: &str, right: &str) -> Ordering {
    match (is_of_rpm(left), is_of_rpm(right)) {
        (true, true) => compare_as_rpm(left, right),
        (false, false) => compare(left, right),
        (left, right) => left.cmp(&right),
    }
}

/// Takes the number at the beginning, without zeros before it.
fn digits<'t>(text: &mut &'t [u8]) -> &'t [u8] {
    let end = text.iter().position(|c| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    *text = rest;
    let zeros = number.iter().take_while(|c| **c == b'0').count();
    &number[zeros..]
}

impl Ord for PackageVersion {
    fn cmp(&self, other: &Self) -> Ordering {
        let ((epoch, upstream, revision), (other_epoch, other_upstream, other_revision)) =
            (self.parts(), other.parts());
        let order = epoch.cmp(&other_epoch).then_with(|| compare(upstream, other_upstream));
        // Two spellings of one version are told apart, so that order and equality agree.
        order.then_with(|| compare_revisions(revision, other_revision)).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for PackageVersion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for PackageVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PackageVersion {
    type Err = InvalidPackageVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = match text.split_once(':') {
            Some((epoch, rest)) if !epoch.is_empty() && epoch.bytes().all(|c| c.is_ascii_digit()) => rest,
            Some(_) => "",
            None => text,
        };
        let sound = rest.starts_with(|c: char| c.is_ascii_digit())
            && rest.chars().all(|c| c.is_ascii_alphanumeric() || ".+~-".contains(c));
        if sound && text.len() <= CHARS_MAX {
            return Ok(Self(text.to_owned()));
        }
        Err(InvalidPackageVersion { text: text.chars().take(CHARS_MAX).collect() })
    }
}

impl Serialize for PackageVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for PackageVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'_, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for PackageVersion {
    fn schema_name() -> Cow<'static, str> {
        "PackageVersion".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "maxLength": CHARS_MAX, "pattern": crate::schema::PACKAGE_VERSION_PATTERN})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(text: &str) -> PackageVersion {
        text.parse().unwrap()
    }

    #[test]
    fn versions_of_packages_are_ordered_as_dpkg_orders_them() {
        // Each is older than the next; `dpkg --compare-versions` says the same.
        let ordered = [
            "1.5.9-0ubuntu1~20.04.6",
            "1.6.20~ds1-1",
            "1.6.20~ds1-1+b1",
            "1.6.20~ds1-1+deb12u1",
            "1.6.20~ds1-1+deb12u3",
            "1.6.20-1",
            "1.6.33-1",
            "1.7.9-1",
            "1.7.24~rc.1-1",
            "1.7.24-0ubuntu1~22.04.2",
            "1.7.24-0ubuntu1",
            "1.7.24-1",
            "1.7.24-2",
            "1.7.24-10",
            "2.0.0~beta.1-1",
            "2.0.0~rc.5-1",
            "2.0.0-1",
            "2.1.5-1~debian.12~bookworm",
            "2.1.5-1",
            "1:1.0-1",
        ];
        for (at, older) in ordered.iter().enumerate() {
            for newer in &ordered[at + 1..] {
                assert!(v(older) < v(newer), "{older} {newer}");
            }
        }
        assert_eq!(compare("1.07", "1.7"), Ordering::Equal, "zeros before a number count for nothing");
    }

    #[test]
    fn revisions_of_rpm_are_ordered_as_rpm_orders_them() {
        // Each is older than the next; `rpm --eval '%{lua: print(rpm.vercmp(…))}'` says the same of each pair.
        let ordered = [
            "1.7.24-1.el9",
            "1.7.24-1.el9.1",
            "1.7.24-1.1.el9",
            "1.7.24-3.1.el8",
            "1.7.24-3.1.el9",
            "1.7.24-3.2.el9",
            "1.7.24-10.fc42",
            "1.7.27-1.amzn2023.0.3",
            "2.0.0~rc.1-3.1.el9",
            "2.0.0-1.el9~pre",
            "2.0.0-1.el9",
            "1:1.6.4-1.fc42",
        ];
        for (at, older) in ordered.iter().enumerate() {
            for newer in &ordered[at + 1..] {
                assert!(v(older) < v(newer), "{older} {newer}");
            }
        }
        let package = v("1.7.27-1.amzn2023.0.3");
        assert!(package.is(&v("1.7.27")) && package.is_release() && package.is_whole());
        assert_eq!((package.upstream(), package.minor()), ("1.7.27", Some((1, 7))));
    }

    #[test]
    fn upstreams_version_names_all_its_packages_and_a_whole_one_itself_only() {
        for package in
            ["1.7.24-1", "1.7.24-0ubuntu1~22.04.2", "1.7.24~ds1-2", "1:1.7.24+dfsg-1", "1.7.24-1~debian.12~bookworm"]
        {
            assert!(v(package).is(&v("1.7.24")) && v(package).is(&v(package)), "{package}");
            assert!(!v(package).is(&v("1.7.2")) && !v(package).is(&v("1.7.24-3")), "{package}");
            assert_eq!(v(package).minor(), Some((1, 7)), "{package}");
            assert!(v(package).is_release() && v(package).is_whole(), "{package}");
        }
        assert!(!v("2.0.0~rc.5-1").is(&v("2.0.0")) && !v("2.0.0~rc.5-1").is_release());
        assert!(!v("1.7.24").is_whole());
    }

    #[test]
    fn what_is_no_version_of_a_package_is_refused_with_how_to_write_it() {
        for text in ["", "v1.7.24", "latest", "1.7.*", "1.7 24", "1.7.24_1", ":1.7", "x:1.7", "1:", "1.7.24-1;reboot"] {
            let error = text.parse::<PackageVersion>().unwrap_err().to_string();
            assert!(error.contains("1.7.24-1"), "{text}: {error}");
        }
        assert!("1".repeat(65).parse::<PackageVersion>().is_err());
    }
}
