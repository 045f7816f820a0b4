//! Go durations as specs carry them.

use kube_core::Duration;
use serde::{Deserialize, Deserializer, de::Error as _};
use std::str::FromStr as _;

/// The longest number in one, in digits: a thousand centuries in hours. Schemas have the same bound in their pattern.
const DIGITS_MAX: usize = 9;

/// Reads a duration, or nothing. A number that is too long is an error: its type would panic where the sum exceeds what it holds, and one
/// object would take every program with it that lists its kind.
pub(crate) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let shown: String = text.chars().take(CHARS_MAX).collect();
    let refused = |why: &str| D::Error::custom(format!("{shown:?} is no duration{why}: write it as 30s, 20m or 1h30m"));
    if text.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() > DIGITS_MAX) {
        return Err(refused(&format!(" (a number of it has more than {DIGITS_MAX} digits)")));
    }
    if text.contains(['e', 'E']) || text.chars().count() > CHARS_MAX {
        return Err(refused(""));
    }
    Duration::from_str(&text).map(Some).map_err(|_| refused(""))
}

/// As in the schema, in characters.
const CHARS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(value: Value) -> Result<Option<u64>, String> {
        let read = read(value).map_err(|error| error.to_string())?;
        Ok(read.map(|duration| std::time::Duration::from(duration).as_secs()))
    }

    #[test]
    fn a_duration_is_read_and_one_that_nothing_can_hold_is_an_error_and_no_panic() {
        assert_eq!(of(json!("1h30m")), Ok(Some(5_400)));
        assert_eq!(of(json!("1.5h")), Ok(Some(5_400)));
        assert_eq!(of(Value::Null), Ok(None));
        assert_eq!(of(json!("999999999h")), Ok(Some(3_599_999_996_400)));
        assert_eq!(of(json!("999999999h999999999h999999999h")), Ok(Some(3 * 3_599_999_996_400)));
        for text in ["9223372036854775807h", "1e30h", "inf", "NaNh", "5", "5 m", "", "1d"] {
            assert!(of(json!(text)).is_err() || text.is_empty(), "{text}");
        }
        for text in ["5minutes", "5 m", "1hour 5 minutes", "soon"] {
            let told = of(json!(text)).unwrap_err();
            assert_eq!(told, format!("{text:?} is no duration: write it as 30s, 20m or 1h30m"));
        }
        assert!(of(json!("9999999999h")).unwrap_err().contains("(a number of it has more than 9 digits)"));
    }
}
