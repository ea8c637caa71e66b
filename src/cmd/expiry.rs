//! `--expires`: when a token or a grant expires.

use waypost_core::Timestamp;

/// An expiry: after a duration, or at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// After this number of milliseconds.
    After(i64),
    /// At this time.
    At(Timestamp),
}

impl Expiry {
    /// Returns the time at which an object that is created at `now` expires.
    #[must_use]
    pub fn time(self, now: Timestamp) -> Timestamp {
        match self {
            Self::After(milliseconds) => now.plus(milliseconds),
            Self::At(time) => time,
        }
    }
}

/// Parses a number with a unit (`30d`, `12h`, `90m`), or a time in RFC 3339 format.
///
/// # Errors
/// A message for the user if the text is neither.
pub fn parse_expiry(text: &str) -> Result<Expiry, String> {
    if let Some(time) = Timestamp::from_rfc3339(text) {
        return Ok(Expiry::At(time));
    }
    const MINUTE: i64 = 60 * 1_000;
    let units = [("d", 24 * 60 * MINUTE), ("h", 60 * MINUTE), ("m", MINUTE)];
    let duration = units.into_iter().find_map(|(unit, milliseconds)| {
        let number: u32 = text.strip_suffix(unit)?.parse().ok()?;
        i64::from(number).checked_mul(milliseconds).filter(|duration| *duration > 0)
    });
    let message = || "expected a duration such as 30d, 12h or 90m, or a time such as 2027-01-31T00:00:00Z".to_owned();
    duration.map(Expiry::After).ok_or_else(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_times_are_parsed() {
        let now = Timestamp(1_000);
        for (text, expected) in [
            ("30d", 1_000 + 30 * 86_400_000),
            ("12h", 1_000 + 12 * 3_600_000),
            ("90m", 1_000 + 90 * 60_000),
            ("2026-11-18T11:06:40.125Z", 1_795_000_000_125),
        ] {
            assert_eq!(parse_expiry(text).unwrap().time(now), Timestamp(expected), "{text}");
        }
        for text in ["", "30", "d", "0d", "-1d", "1.5h", "30 d", "1y", "99999999999d", "tomorrow", "2026-11-18"] {
            assert!(parse_expiry(text).is_err(), "{text}");
        }
    }
}
