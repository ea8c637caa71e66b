//! Time as a dependency: only the entry points use the system clock; everything else gets a [`Clock`].

use std::fmt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// RFC 3339, section 5.6, in UTC and always with milliseconds, so that the strings sort chronologically.
const RFC3339_MILLISECONDS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Milliseconds since the Unix epoch. Stored as an integer, displayed as RFC 3339 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Returns the time `milliseconds` later (earlier if negative), saturating at the limits of the type.
    #[must_use]
    pub fn plus(self, milliseconds: i64) -> Self {
        Self(self.0.saturating_add(milliseconds))
    }

    /// Returns the milliseconds from `earlier` to `self`; negative if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Parses RFC 3339 with any offset and truncates it to milliseconds. Returns `None` if the text is invalid or the
    /// time is before the epoch.
    #[must_use]
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        let milliseconds = i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).ok()?;
        (milliseconds >= 0).then_some(Self(milliseconds))
    }

    /// Formats the time as RFC 3339 in UTC with milliseconds, such as `2026-11-21T08:30:00.125Z`. A time outside the
    /// range of RFC 3339 becomes the epoch.
    #[must_use]
    pub fn rfc3339(self) -> String {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000)
            .ok()
            .and_then(|time| time.format(RFC3339_MILLISECONDS).ok())
            .unwrap_or_else(|| "1970-01-01T00:00:00.000Z".to_owned())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

/// A source of the current time: [`SystemClock`] in production, [`ManualClock`] in tests.
pub trait Clock: Send + Sync + 'static {
    /// Returns the current time.
    fn now(&self) -> Timestamp;

    /// Returns the time since a fixed moment. Monotonic, even if the system clock is changed.
    fn elapsed(&self) -> Duration;
}

/// The system clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the only place that reads the system clock")]
    fn now(&self) -> Timestamp {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    #[expect(clippy::disallowed_methods, reason = "the only place that reads the monotonic clock")]
    fn elapsed(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed()
    }
}

/// A clock that only advances when told to.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// Creates a clock set to `start`.
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        Self(AtomicI64::new(start.0))
    }

    /// Advances the clock by `milliseconds`.
    pub fn advance(&self, milliseconds: i64) {
        self.0.fetch_add(milliseconds, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst).unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_rfc_3339() {
        assert_eq!(Timestamp(0).rfc3339(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Timestamp(1_795_000_000_125).rfc3339(), "2026-11-18T11:06:40.125Z");
        assert_eq!(Timestamp(i64::MAX).rfc3339(), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn parses_rfc_3339() {
        let time = Some(Timestamp(1_795_000_000_125));
        for text in ["2026-11-18T11:06:40.125Z", "2026-11-18T12:06:40.125999+01:00", "2026-11-18t11:06:40.125z"] {
            assert_eq!(Timestamp::from_rfc3339(text), time, "{text}");
        }
        for wrong in
            ["", "2026-11-18", "2026-11-18T11:06:40", "1969-12-31T23:59:59Z", "tomorrow", "2026-13-01T00:00:00Z"]
        {
            assert_eq!(Timestamp::from_rfc3339(wrong), None, "{wrong}");
        }
        assert!(Timestamp::from_rfc3339("9999-12-31T23:59:59Z").is_some());
    }
}
