//! Points in time as documents show them.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Wall-clock time in microseconds since 1970-01-01T00:00:00Z; written as RFC 3339 in UTC with six decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(i64);

impl Time {
    /// The time of the system clock; values before 1970 or after the year 9999 are clamped.
    #[must_use]
    pub fn new(time: SystemTime) -> Time {
        let micros = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
        let last = jiff::Timestamp::MAX.as_microsecond();
        Time(i64::try_from(micros).unwrap_or(last).min(last))
    }

    /// Whole seconds since 1970-01-01T00:00:00Z, and microseconds of the last one.
    #[must_use]
    pub fn parts(self) -> (i64, u32) {
        (self.0.div_euclid(1_000_000), u32::try_from(self.0.rem_euclid(1_000_000)).unwrap_or(0))
    }

    fn timestamp(self) -> jiff::Timestamp {
        jiff::Timestamp::from_microsecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }

    /// Time of day for people, `09:15:03.123Z`.
    #[must_use]
    pub fn time_of_day(self) -> String {
        let mut out = Vec::new();
        self.push_time_of_day(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// Appends [`Time::time_of_day`] to `out`.
    pub fn push_time_of_day(self, out: &mut Vec<u8>) {
        let (seconds, micros) = self.parts();
        let of_day = u32::try_from(seconds.rem_euclid(86_400)).unwrap_or(0);
        let mut text = *b"00:00:00.000Z";
        for (at, number) in
            [(0..2, of_day / 3600), (3..5, of_day / 60 % 60), (6..8, of_day % 60), (9..12, micros / 1000)]
        {
            set_digits(&mut text[at], number);
        }
        out.extend_from_slice(&text);
    }
}

/// Writes the last decimals of a number, as many as fit.
pub(super) fn set_digits(room: &mut [u8], mut number: u32) {
    for digit in room.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}", self.timestamp())
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        let text = String::deserialize(deserializer)?;
        let timestamp: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        Ok(Time(timestamp.as_microsecond()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn six_decimals_always() {
        let time = Time::new(UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_010));
        assert_eq!(time.to_string(), "2023-11-14T22:13:20.000010Z");
        assert_eq!(time.time_of_day(), "22:13:20.000Z");
        assert_eq!(serde_json::from_str::<Time>(&serde_json::to_string(&time).unwrap()).unwrap(), time);
        assert_eq!(Time::new(UNIX_EPOCH - Duration::from_secs(5)).to_string(), "1970-01-01T00:00:00.000000Z");
    }
}
