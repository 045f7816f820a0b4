//! String formats that schemas know.
//!
//! Source: `k8s.io/kube-openapi/pkg/validation/strfmt` (the formats that structural schemas support).

use chrono::{DateTime, NaiveDate, TimeDelta};

/// Whether `text` has the format; formats that are not known are not checked, as on the real server.
pub(super) fn holds(format: &str, text: &str) -> bool {
    match format {
        "date-time" => DateTime::parse_from_rfc3339(text).is_ok(),
        "date" => text.len() == 10 && NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok(),
        "duration" => duration(text).is_some(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "uuid" | "uuid3" | "uuid4" | "uuid5" => is_uuid(text),
        "uri" => text.contains(':') || text.starts_with('/'),
        "hostname" => {
            !text.is_empty()
                && text.len() <= 255
                && text.split('.').all(|label| {
                    !label.is_empty()
                        && label.len() <= 63
                        && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
                })
        }
        _unchecked => true,
    }
}

fn is_uuid(text: &str) -> bool {
    let digits = text.chars().filter(char::is_ascii_hexdigit).count();
    let rest = text.chars().filter(|c| !c.is_ascii_hexdigit()).count();
    digits == 32 && (rest == 0 || (rest == 4 && text.chars().filter(|c| *c == '-').count() == 4))
}

/// A Go duration such as `1h30m` or `1.5s`; negative ones carry a leading minus.
pub(super) fn duration(text: &str) -> Option<TimeDelta> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(TimeDelta::zero());
    }
    if rest.is_empty() {
        return None;
    }
    let mut total_seconds = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        total_seconds += number
            * match &rest[..unit] {
                "ns" => 1e-9,
                "us" | "\u{b5}s" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _unknown => return None,
            };
        rest = &rest[unit..];
    }
    let signed = if negative { -total_seconds } else { total_seconds };
    std::time::Duration::try_from_secs_f64(signed.abs())
        .ok()
        .and_then(|length| TimeDelta::from_std(length).ok())
        .map(|length| if signed < 0.0 { -length } else { length })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        assert_eq!(duration("1h30m"), Some(TimeDelta::minutes(90)));
        assert_eq!(duration("-1.5s"), Some(TimeDelta::milliseconds(-1500)));
        assert_eq!(duration("0"), Some(TimeDelta::zero()));
        assert_eq!(duration("10"), None);
        assert_eq!(duration("5 minutes"), None);
    }

    #[test]
    fn formats_are_checked_where_they_are_known() {
        assert!(holds("date-time", "2026-11-22T07:00:00Z"));
        assert!(!holds("date-time", "yesterday"));
        assert!(!holds("uuid", "x"));
        assert!(holds("made-up", "x"));
    }
}
