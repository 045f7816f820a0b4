//! How many workers may be in flight: a number, or a share of those to upgrade.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{borrow::Cow, fmt, str::FromStr};

/// A limit on workers in flight: `3`, or `"10%"` of the workers to upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concurrency {
    /// That many, at least 1.
    Nodes(u32),
    /// That share in percent, 1 to 100, rounded down but never below one node.
    Percent(u8),
}

/// A value that is no concurrency; says which one and what one looks like.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a concurrency: write a number from 1 to 15000, or a percentage from 1% to 100% such as \"10%\""
)]
pub struct InvalidConcurrency {
    /// The value as given, cut to 64 characters.
    pub text: String,
}

impl Concurrency {
    /// The largest number of nodes, that of the largest supported cluster.
    pub const NODES_MAX: u32 = 15_000;

    /// The limit among `workers` nodes: always 1 or more; a percentage is rounded down, so that it is never exceeded.
    pub fn of(self, workers: u32) -> u32 {
        match self {
            Self::Nodes(nodes) => nodes.max(1),
            Self::Percent(percent) => {
                let share = u64::from(workers) * u64::from(percent) / 100;
                u32::try_from(share).unwrap_or(u32::MAX).max(1)
            }
        }
    }

    fn nodes(nodes: u64) -> Result<Self, InvalidConcurrency> {
        u32::try_from(nodes)
            .ok()
            .filter(|nodes| (1..=Self::NODES_MAX).contains(nodes))
            .map(Self::Nodes)
            .ok_or_else(|| InvalidConcurrency { text: nodes.to_string() })
    }
}

impl Default for Concurrency {
    fn default() -> Self {
        Self::Nodes(1)
    }
}

impl fmt::Display for Concurrency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes(nodes) => write!(f, "{nodes}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl FromStr for Concurrency {
    type Err = InvalidConcurrency;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidConcurrency { text: text.chars().take(64).collect() };
        match text.strip_suffix('%') {
            Some(percent) => percent
                .parse()
                .ok()
                .filter(|percent| (1..=100).contains(percent))
                .map(Self::Percent)
                .ok_or_else(invalid),
            None => text.parse().map_err(|_| invalid()).and_then(Self::nodes),
        }
    }
}

impl Serialize for Concurrency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Nodes(nodes) => serializer.serialize_u32(*nodes),
            Self::Percent(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Concurrency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Concurrency;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of nodes or a percentage such as \"10%\"")
            }

            fn visit_u64<E: de::Error>(self, nodes: u64) -> Result<Concurrency, E> {
                Concurrency::nodes(nodes).map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, nodes: i64) -> Result<Concurrency, E> {
                Concurrency::nodes(u64::try_from(nodes).unwrap_or(0)).map_err(E::custom)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Concurrency, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Concurrency {
    fn schema_name() -> Cow<'static, str> {
        "Concurrency".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "minimum": 1,
            "maximum": Concurrency::NODES_MAX,
            "maxLength": 4,
            "pattern": "^([1-9][0-9]?|100)%$",
        })
    }
}
