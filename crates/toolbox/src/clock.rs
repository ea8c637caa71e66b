//! The clock of the machine.

/// Returns the time in milliseconds since the Unix epoch. Tests replace it.
pub type WallClock = fn() -> i64;

/// The [`WallClock`] of the machine.
#[must_use]
pub fn system() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "the daemon's only place that reads the clock")]
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
