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
