//! Lock-out: how many wrong passwords are taken, and how long none is looked at then.

use std::hash::Hash;
use std::time::Duration;

use moka::ops::compute::Op;
use moka::sync::Cache;
use waypost_core::{Code, Error, Result, Timestamp};

/// Tries in a row before the first lock.
const FREE: i64 = 5;
const MINUTE_MS: i64 = 60 * 1_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

/// How long an account is locked with its `failures`-th try in a row: a minute with the fifth, then twice as long each
/// time, an hour at most.
pub(crate) fn lock_ms(failures: i64) -> Option<i64> {
    let doublings = failures.checked_sub(FREE).filter(|over| *over >= 0)?;
    Some(if doublings < 6 { MINUTE_MS << doublings } else { HOUR_MS })
}

/// Addresses without an account are locked like those with one, else the lock would tell which is which. There is no
/// row to count in, so each process counts for itself. `K` is what an address is known by.
#[derive(Clone)]
pub(crate) struct Strangers<K: Hash + Eq>(Cache<K, Stranger>);

#[derive(Debug, Clone, Copy, Default)]
struct Stranger {
    failures: i64,
    locked_until: Option<Timestamp>,
}

impl<K: Hash + Eq + Send + Sync + 'static> Default for Strangers<K> {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(100_000).time_to_idle(Duration::from_hours(24)).build())
    }
}

impl<K: Hash + Eq + Send + Sync + 'static> Strangers<K> {
    /// Counts a try.
    ///
    /// # Errors
    /// `rate_limited` while the address is locked.
    pub(crate) fn begin_try(&self, address: K, now: Timestamp) -> Result<()> {
        let mut refused = None;
        self.0.entry(address).and_compute_with(|entry| {
            let mut stranger = entry.map(moka::Entry::into_value).unwrap_or_default();
            if let Some(until) = stranger.locked_until.filter(|until| *until > now) {
                refused = Some(locked(until, now));
                return Op::Nop;
            }
            stranger.failures += 1;
            stranger.locked_until = lock_ms(stranger.failures).map(|duration| now.plus(duration));
            Op::Put(stranger)
        });
        refused.map_or(Ok(()), Err)
    }
}

pub(crate) fn wrong() -> Error {
    Error::invalid("password", "The e-mail address or the password is wrong.")
}

pub(crate) fn locked(until: Timestamp, now: Timestamp) -> Error {
    let seconds = (until.since(now).max(0) + 999) / 1_000;
    let wait = match seconds {
        0..=60 => "a minute".to_owned(),
        _ => format!("{} minutes", (seconds + 59) / 60),
    };
    let message = format!("Too many wrong passwords. Wait {wait}, or sign in with a code.");
    Error::new(Code::RateLimited, message).with("field", "password").with("retry_after_seconds", seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_double_up_to_an_hour() {
        let minutes: Vec<_> = (1..14).map(|failures| lock_ms(failures).map(|it| it / MINUTE_MS)).collect();
        let locks = [1, 2, 4, 8, 16, 32, 60, 60, 60].map(Some);
        assert_eq!(minutes[..4], [None; 4]);
        assert_eq!(minutes[4..], locks);
        assert_eq!(lock_ms(i64::MAX), Some(HOUR_MS));
    }

    #[test]
    fn strangers_are_locked_too() {
        let (strangers, now) = (Strangers::default(), Timestamp(1_000));
        for _ in 0..5 {
            strangers.begin_try(("org_1", "a@b.de"), now).unwrap();
        }
        let error = strangers.begin_try(("org_1", "a@b.de"), now).unwrap_err();
        assert_eq!((error.code, &error.details["retry_after_seconds"]), (Code::RateLimited, &60.into()));
        strangers.begin_try(("org_1", "b@b.de"), now).unwrap();
        strangers.begin_try(("org_2", "a@b.de"), now).unwrap();
        let later = now.plus(MINUTE_MS);
        strangers.begin_try(("org_1", "a@b.de"), later).unwrap();
        let error = strangers.begin_try(("org_1", "a@b.de"), later).unwrap_err();
        assert!(error.message.contains("Wait 2 minutes"), "{error}");
    }
}
