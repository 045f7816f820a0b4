//! Versions of Debian packages, compared as dpkg compares them.

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

/// A version of a package: `[epoch:]upstream[-revision]`, such as `1.7.24-1` or `1.6.20~ds1-1+deb12u3`.
///
/// # Guarantees
/// Ordered as dpkg orders (Debian policy manual, "Version"): `1.7.9` before `1.7.24`, `2.0.0~rc.1` before `2.0.0`.
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
        order.then_with(|| compare(revision, other_revision)).then_with(|| self.0.cmp(&other.0))
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
