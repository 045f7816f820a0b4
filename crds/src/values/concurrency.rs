//! How many workers may be in flight: a number, or a share of those to upgrade.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{borrow::Cow, fmt, str::FromStr};

/// A limit on workers in flight: `3`, or `"10%"` of the workers to upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concurrency {
    /// That many, at least 1.
    Nodes(u32),
    /// That share of the selected workers in percent, 1 to 100, rounded down but never below one node.
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_and_percentages_are_read_and_written_as_they_were() {
        for (value, expected) in [
            (json!(1), Concurrency::Nodes(1)),
            (json!(15000), Concurrency::Nodes(15_000)),
            (json!("1%"), Concurrency::Percent(1)),
            (json!("100%"), Concurrency::Percent(100)),
        ] {
            let read: Concurrency = serde_json::from_value(value.clone()).expect("it is a concurrency");
            assert_eq!(read, expected);
            assert_eq!(serde_json::to_value(read).expect("it has a JSON form"), value);
        }
    }

    #[test]
    fn anything_else_is_refused_with_its_value() {
        for value in
            [json!(0), json!(-1), json!(15001), json!("0%"), json!("101%"), json!("%"), json!("ten"), json!("1.5%")]
        {
            let error = serde_json::from_value::<Concurrency>(value.clone()).expect_err("it is no concurrency");
            assert!(error.to_string().contains("is not a concurrency"), "{value}: {error}");
        }
    }

    #[test]
    fn a_percentage_is_rounded_down_but_never_to_nothing() {
        for (concurrency, workers, expected) in [
            (Concurrency::Percent(10), 50, 5),
            (Concurrency::Percent(10), 59, 5),
            (Concurrency::Percent(10), 5, 1),
            (Concurrency::Percent(10), 0, 1),
            (Concurrency::Percent(100), 15_000, 15_000),
            (Concurrency::Nodes(3), 2, 3),
        ] {
            assert_eq!(concurrency.of(workers), expected, "{concurrency} of {workers}");
        }
    }
}
