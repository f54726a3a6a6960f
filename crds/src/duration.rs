//! Durations as Gateway API writes them (GEP-2257): `1h30m`, `5s`, `250ms`.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The pattern of GEP-2257, checked by the schema.
pub const PATTERN: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";

/// A duration in whole milliseconds, written in GEP-2257 form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(std::time::Duration);

/// The reason why a string is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no duration: write up to four numbers of at most five digits, each with h, m, s or ms, such as 1m30s"
)]
pub struct ParseDurationError(String);

impl Duration {
    /// The duration of whole milliseconds.
    pub const fn from_millis(ms: u64) -> Self {
        Self(std::time::Duration::from_millis(ms))
    }

    /// The duration of whole seconds.
    pub const fn from_secs(s: u64) -> Self {
        Self(std::time::Duration::from_secs(s))
    }

    /// The duration as the standard library's type.
    pub const fn std(self) -> std::time::Duration {
        self.0
    }

    /// Length in milliseconds; at most 4 × 99999 h, so it always fits.
    pub fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl FromStr for Duration {
    type Err = ParseDurationError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let bad = || ParseDurationError(s.chars().take(32).collect());
        let (mut rest, mut total, mut parts) = (s, 0u64, 0);
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if digits == 0 || digits > 5 || parts == 4 {
                return Err(bad());
            }
            let n: u64 = rest[..digits].parse().map_err(|_| bad())?;
            rest = &rest[digits..];
            let (unit, len) = match rest.as_bytes() {
                [b'm', b's', ..] => (1, 2),
                [b's', ..] => (1_000, 1),
                [b'm', ..] => (60_000, 1),
                [b'h', ..] => (3_600_000, 1),
                _ => return Err(bad()),
            };
            rest = &rest[len..];
            total += n * unit;
            parts += 1;
        }
        if parts == 0 { Err(bad()) } else { Ok(Self::from_millis(total)) }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.as_millis();
        if ms == 0 {
            return f.write_str("0s");
        }
        for (unit, name) in [(3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")] {
            let above = match name {
                "h" => u64::MAX,
                "m" => 3_600_000,
                "s" => 60_000,
                _ => 1_000,
            };
            let n = ms % above / unit;
            if n > 0 {
                write!(f, "{n}{name}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": PATTERN, "maxLength": 24})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(input: &str, expect: Option<(u64, &str)>) {
        let got = input.parse::<Duration>().ok().map(|d| (d.as_millis(), d.to_string()));
        assert_eq!(got, expect.map(|(ms, s)| (ms, s.to_owned())), "{input}");
    }

    #[test]
    fn gep_2257() {
        check("5s", Some((5_000, "5s")));
        check("1h30m", Some((5_400_000, "1h30m")));
        check("250ms", Some((250, "250ms")));
        check("90s", Some((90_000, "1m30s")));
        check("0s", Some((0, "0s")));
        check("1m1ms", Some((60_001, "1m1ms")));
        check("99999h", Some((359_996_400_000, "99999h")));
        for bad in ["", "5", "s", "1.5s", "-1s", "5 s", "123456s", "1s1s1s1s1s", "1d", "٣s"] {
            check(bad, None);
        }
    }
}
