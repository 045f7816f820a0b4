//! Kubernetes versions: parsed once at the edge, compared as numbers everywhere else.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{borrow::Cow, fmt, str::FromStr};

/// A Kubernetes release, such as 1.34.4 or 1.35.0-rc.1; orders as releases do.
///
/// Parsed with or without a leading `v`. What a distribution or a vendor appends (`1.34.4-1.1` of a package, `v1.30.2-eks-1552ad0`,
/// `v1.30.2+rke2r1`) is accepted and dropped: it is no part of the release, and two nodes at 1.34.4 are equal whoever packed it.
/// Displayed and serialised without `v`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KubeVersion {
    major: u32,
    minor: u32,
    patch: u32,
    stage: Stage,
}

/// How finished a release is; alpha orders before beta, beta before candidates, all of them before the release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// `-alpha.N`
    Alpha(u32),
    /// `-beta.N`
    Beta(u32),
    /// `-rc.N`
    Candidate(u32),
    /// A release proper.
    Release,
}

/// A minor line of Kubernetes, such as 1.34: what package repositories and the version-skew policy count in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MinorVersion {
    /// 1, as long as Kubernetes is.
    pub major: u32,
    /// 34 of 1.34.
    pub minor: u32,
}

/// A text that is no Kubernetes version; says which text, why, and what one looks like.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a Kubernetes version: {problem}; write it as major.minor.patch, for example 1.34.4")]
pub struct InvalidVersion {
    /// The text as given, cut to 64 characters.
    pub text: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// The longest text that is looked at, in characters; real ones stay below 40.
const TEXT_CHARS_MAX: usize = 64;

impl KubeVersion {
    /// The release `major.minor.patch`.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch, stage: Stage::Release }
    }

    /// The major number (1).
    pub const fn major(self) -> u32 {
        self.major
    }

    /// The minor number (34 of 1.34.4).
    pub const fn minor(self) -> u32 {
        self.minor
    }

    /// The patch number (4 of 1.34.4).
    pub const fn patch(self) -> u32 {
        self.patch
    }

    /// How finished it is.
    pub const fn stage(self) -> Stage {
        self.stage
    }

    /// The minor line it belongs to.
    pub const fn minor_version(self) -> MinorVersion {
        MinorVersion { major: self.major, minor: self.minor }
    }

    /// How many minors lie from `self` up to `other`: negative if `other` is older, `None` across majors.
    pub fn minors_to(self, other: Self) -> Option<i64> {
        (self.major == other.major).then(|| i64::from(other.minor) - i64::from(self.minor))
    }

    /// The text with `v`, as Nodes, images and `kubeadm upgrade apply` write it: `v1.34.4`.
    pub fn with_v(self) -> String {
        format!("v{self}")
    }
}

impl MinorVersion {
    /// The minor after this one.
    pub const fn next(self) -> Self {
        Self { major: self.major, minor: self.minor.saturating_add(1) }
    }

    /// The minor before this one; `None` below x.0.
    pub const fn previous(self) -> Option<Self> {
        match self.minor.checked_sub(1) {
            Some(minor) => Some(Self { major: self.major, minor }),
            None => None,
        }
    }
}

impl fmt::Display for MinorVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl fmt::Display for KubeVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)?;
        match self.stage {
            Stage::Alpha(n) => write!(f, "-alpha.{n}"),
            Stage::Beta(n) => write!(f, "-beta.{n}"),
            Stage::Candidate(n) => write!(f, "-rc.{n}"),
            Stage::Release => Ok(()),
        }
    }
}

impl FromStr for KubeVersion {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|problem| InvalidVersion { text: text.chars().take(TEXT_CHARS_MAX).collect(), problem })
    }
}

fn parse(text: &str) -> Result<KubeVersion, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.chars().nth(TEXT_CHARS_MAX).is_some() {
        return Err("it is longer than 64 characters");
    }
    let bare = text.strip_prefix('v').unwrap_or(text);
    // Build metadata (+...) belongs to whoever built it, never to the release.
    let (bare, build) = match bare.split_once('+') {
        Some((bare, build)) => (bare, Some(build)),
        None => (bare, None),
    };
    let (numbers, suffix) = match bare.split_once('-') {
        Some((numbers, suffix)) => (numbers, Some(suffix)),
        None => (bare, None),
    };
    for appended in [build, suffix].into_iter().flatten() {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '~' | '+' | '_');
        if appended.is_empty() || !appended.chars().all(legal) {
            return Err("what follows the patch number is not legal");
        }
    }
    let mut parts = numbers.split('.');
    let major = number(parts.next())?;
    let minor = number(parts.next())?;
    let patch = number(parts.next())?;
    if parts.next().is_some() {
        return Err("it has more than three numbers");
    }
    Ok(KubeVersion { major, minor, patch, stage: stage(suffix)? })
}

fn number(part: Option<&str>) -> Result<u32, &'static str> {
    let part = part.ok_or("it has fewer than three numbers")?;
    if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
        return Err("one of its three parts is not a number");
    }
    if part.len() > 1 && part.starts_with('0') {
        return Err("one of its numbers has a leading zero");
    }
    part.parse().map_err(|_| "one of its numbers is too large")
}

/// The stage that `suffix` names; a suffix of a package or a vendor names none and counts as the release.
fn stage(suffix: Option<&str>) -> Result<Stage, &'static str> {
    let Some(suffix) = suffix else {
        return Ok(Stage::Release);
    };
    // A package of a candidate is 1.35.0-rc.1-1.1: the stage ends where the package's revision begins.
    let head = suffix.split_once('-').map_or(suffix, |(head, _)| head);
    let (word, count) = match head.split_once('.') {
        Some((word, count)) => (word, Some(count)),
        None => (head, None),
    };
    let staged: fn(u32) -> Stage = match word {
        "alpha" => Stage::Alpha,
        "beta" => Stage::Beta,
        "rc" => Stage::Candidate,
        _ => return Ok(Stage::Release),
    };
    number(count).map(staged).map_err(|_| "its pre-release has no number (write rc.1)")
}

impl Serialize for KubeVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KubeVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'_, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for KubeVersion {
    fn schema_name() -> Cow<'static, str> {
        "KubeVersion".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "maxLength": 32, "pattern": crate::schema::VERSION_PATTERN})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn version(text: &str) -> KubeVersion {
        text.parse().expect("the test names a version")
    }

    #[test]
    fn texts_of_nodes_packages_and_vendors_are_read() {
        for (text, shown) in [
            ("1.34.4", "1.34.4"),
            ("v1.34.4", "1.34.4"),
            ("1.34.4-1.1", "1.34.4"),
            ("1.34.4-00", "1.34.4"),
            ("1.34.4-150500.1.1", "1.34.4"),
            ("v1.30.2-eks-1552ad0", "1.30.2"),
            ("v1.30.2+rke2r1", "1.30.2"),
            ("v1.31.0-rc.1+abc", "1.31.0-rc.1"),
            ("1.35.0-rc.1", "1.35.0-rc.1"),
            ("1.35.0-rc.1-1.1", "1.35.0-rc.1"),
            ("v1.35.0-beta.0", "1.35.0-beta.0"),
            ("v1.36.0-alpha.2", "1.36.0-alpha.2"),
            ("1.0.0", "1.0.0"),
        ] {
            assert_eq!(version(text).to_string(), shown, "{text}");
            assert_eq!(version(text).with_v(), format!("v{shown}"), "{text}");
        }
    }

    #[test]
    fn what_is_no_version_is_refused_with_the_reason() {
        for (text, problem) in [
            ("", "it is empty"),
            ("latest", "one of its three parts is not a number"),
            ("1.34", "it has fewer than three numbers"),
            ("v1", "it has fewer than three numbers"),
            ("1.34.4.5", "it has more than three numbers"),
            ("1.34.x", "one of its three parts is not a number"),
            ("1..4", "one of its three parts is not a number"),
            ("01.34.4", "one of its numbers has a leading zero"),
            ("1.34.4294967296", "one of its numbers is too large"),
            ("1.34.-4", "one of its three parts is not a number"),
            (" 1.34.4", "one of its three parts is not a number"),
            ("vv1.34.4", "one of its three parts is not a number"),
            ("1.34.4-", "what follows the patch number is not legal"),
            ("1.34.4-1.1; rm -rf /", "what follows the patch number is not legal"),
            ("1.35.0-rc", "its pre-release has no number (write rc.1)"),
            ("1.35.0-rc.x", "its pre-release has no number (write rc.1)"),
        ] {
            let error = text.parse::<KubeVersion>().expect_err(text);
            assert_eq!(error, InvalidVersion { text: text.to_owned(), problem }, "{text}");
        }
        let long = format!("1.34.4-{}", "x".repeat(100));
        assert_eq!(long.parse::<KubeVersion>().expect_err("it is long").text.len(), TEXT_CHARS_MAX);
    }

    #[test]
    fn the_error_says_what_a_version_looks_like() {
        let error = "1.34".parse::<KubeVersion>().expect_err("no patch");
        assert_eq!(
            error.to_string(),
            "\"1.34\" is not a Kubernetes version: it has fewer than three numbers; write it as major.minor.patch, for example 1.34.4"
        );
    }

    #[test]
    fn versions_order_as_releases_do() {
        let ascending = [
            "1.9.9",
            "1.33.13",
            "1.34.0-alpha.3",
            "1.34.0-beta.0",
            "1.34.0-rc.0",
            "1.34.0-rc.1",
            "1.34.0",
            "1.34.4",
            "1.34.10",
            "2.0.0",
        ];
        for pair in ascending.windows(2) {
            assert!(version(pair[0]) < version(pair[1]), "{pair:?}");
        }
        assert_eq!(version("1.34.4-1.1"), version("v1.34.4"));
    }

    #[test]
    fn minors_are_counted_within_a_major() {
        assert_eq!(version("1.33.4").minors_to(version("1.34.0")), Some(1));
        assert_eq!(version("1.34.0").minors_to(version("1.33.4")), Some(-1));
        assert_eq!(version("1.34.0").minors_to(version("1.34.4")), Some(0));
        assert_eq!(version("1.34.0").minors_to(version("2.0.0")), None);
        let minor = version("1.34.4").minor_version();
        assert_eq!((minor.to_string(), minor.next().to_string()), ("1.34".to_owned(), "1.35".to_owned()));
        assert_eq!(minor.previous().map(|minor| minor.to_string()), Some("1.33".to_owned()));
        assert_eq!(MinorVersion { major: 1, minor: 0 }.previous(), None);
    }

    fn any_version() -> impl Strategy<Value = KubeVersion> {
        let stage = prop_oneof![
            any::<u32>().prop_map(Stage::Alpha),
            any::<u32>().prop_map(Stage::Beta),
            any::<u32>().prop_map(Stage::Candidate),
            Just(Stage::Release),
        ];
        (any::<u32>(), any::<u32>(), any::<u32>(), stage).prop_map(|(major, minor, patch, stage)| KubeVersion {
            major,
            minor,
            patch,
            stage,
        })
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back_as_the_same(version in any_version()) {
            prop_assert_eq!(version.to_string().parse::<KubeVersion>(), Ok(version));
            prop_assert_eq!(version.with_v().parse::<KubeVersion>(), Ok(version));
            let json = serde_json::to_string(&version).expect("a string");
            prop_assert_eq!(serde_json::from_str::<KubeVersion>(&json).expect("it was written"), version);
        }

        #[test]
        fn a_packages_revision_changes_nothing(version in any_version(), revision in "[0-9]{1,6}(\\.[0-9]{1,3}){0,2}") {
            prop_assert_eq!(format!("{version}-{revision}").parse::<KubeVersion>(), Ok(version));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,80}") {
            let _ = text.parse::<KubeVersion>();
        }
    }
}
