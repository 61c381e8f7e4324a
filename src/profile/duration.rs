//! Durations: a number with a unit, or several (`"1m30s"`).

use std::time::Duration;

use super::value::{Problems, Value, integer};
use crate::code::Code;

/// The longest allowed duration.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// Parses `500ms`, `10s`, `5m`, `2h`, `1d`, or several units such as `1m30s`.
///
/// # Errors
/// The problem, as the end of a sentence that begins with the text.
pub fn parse(text: &str) -> Result<Duration, String> {
    let without_unit = || "has no unit".to_owned();
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err("is empty".to_owned());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(without_unit)?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let number: u32 = number
            .parse()
            .map_err(|_| "does not begin with a whole number that is small enough".to_owned())?;
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "" if tail.starts_with(' ') => return Err("has a blank between number and unit".to_owned()),
            "" => return Err(without_unit()),
            _ => return Err("has a unit that is not one of ms, s, m, h, d".to_owned()),
        };
        total += Duration::from_millis(milliseconds * u64::from(number));
        rest = tail;
    }
    if total > LONGEST { Err("is more than a year".to_owned()) } else { Ok(total) }
}

/// Parses the duration of a command-line option, which is longer than 0.
///
/// # Errors
/// The problem and its fix.
pub fn argument(text: &str) -> Result<Duration, String> {
    match parse(text) {
        Ok(Duration::ZERO) => Err("it is no time at all".to_owned()),
        Ok(duration) => Ok(duration),
        Err(reason) => Err(format!("it {reason}; write a number with its unit, such as 500ms, 30s, 5m")),
    }
}

/// The duration in `value`; adds a problem if it is invalid.
pub(super) fn read(name: &str, value: &Value<'_>, problems: &mut Problems) -> Option<Duration> {
    if let Some(number) = integer(value.get_ref()) {
        problems
            .add(Code::BAD_DURATION, value.span(), format!("`{name}` is a number without a unit"))
            .help(format!("write \"{}s\" or \"{}ms\"", number.max(0), number.max(0)));
        return None;
    }
    let Some(text) = value.get_ref().as_str() else {
        problems
            .add(Code::BAD_DURATION, value.span(), format!("`{name}` is not a valid duration"))
            .help("write a string with a unit, such as \"10s\"");
        return None;
    };
    match parse(text) {
        Ok(duration) => Some(duration),
        Err(reason) => {
            problems
                .add(Code::BAD_DURATION, value.span(), format!("`{name}` {reason}"))
                .help("write a number with its unit, such as \"500ms\", \"10s\", \"5m\"");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("5m", 300_000),
            ("1m30s", 90_000),
            ("2h", 7_200_000),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in
            ["", "10", "s", "-1s", "1.5s", "10 s", "10x", "99999999999s", "4294967295h", "1m3", "10µs"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
