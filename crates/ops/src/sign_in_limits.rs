//! Limits of sign-in attempts: strict per client address, loose per account.
//!
//! 1. A client address (for IPv6, its /64 network) may fail to sign in 3 times, then 3 times per minute. A failure is
//!    counted before the password is checked, so that concurrent attempts count too, and is refunded if the password is
//!    correct. The same applies to code requests, per client address and email address.
//! 2. An account allows [`ACCOUNT_LIMIT`] failures and as many code requests per day, whether or not it exists. One
//!    client address may use [`SHARE`] of them, so that it cannot exhaust the limit of an account alone.
//! 3. A browser that has signed in before (`crate::devices`) has its own limit, [`DEVICE_LIMIT`] per day, instead of
//!    the others. Beyond it, the browser is treated like any other.
//! 4. An entered code is checked before any limit applies: each code has its own limit of five attempts.
//!
//! Limits by client address and device are stored in memory, per process: with N replicas, a client has N times as many
//! attempts. The limits by account are stored in the database (`waypost_store::sign_in_attempt`) and apply across
//! replicas.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use moka::ops::compute::Op;
use moka::sync::Cache;
use waypost_core::secret::SecretKey;
use waypost_core::{Code, Error, Timestamp};

use crate::devices::Device;
use crate::limits::network;

/// The maximum number of failed sign-ins, and of code requests, per account and day.
pub(crate) const ACCOUNT_LIMIT: i64 = 300;
/// The maximum number of these that may come from one client address.
pub(crate) const SHARE: i64 = 30;
/// The maximum number of failed sign-ins, and of code requests, per day from a browser that has signed in before.
pub(crate) const DEVICE_LIMIT: i64 = 30;
/// The number of attempts of a client address, as a burst and per minute.
const PER_ADDRESS: i64 = 3;
const MINUTE_MS: i64 = 60 * 1_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;
/// The maximum number of keys of each limit in memory.
const KEYS: u64 = 100_000;
/// The number of bits of a slot. Accounts are counted in 2^18 slots for each kind, so the table has a bounded size
/// regardless of which email addresses are entered. The secret key determines which addresses share a slot.
const SLOT_BITS: u32 = 18;

/// The kind of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum AttemptKind {
    /// A sign-in with a password.
    Password,
    /// A request for a code by email.
    Code,
}

/// A sign-in attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt<'a> {
    /// The kind.
    pub(crate) kind: AttemptKind,
    /// The client's IP address.
    pub(crate) address: IpAddr,
    /// The key of the account: the key of its email address, preceded by the organisation for end users.
    pub(crate) account: &'a str,
}

/// Returns the ID of the row in which the attempts of an account are counted.
pub(crate) fn slot(secret: &SecretKey, kind: AttemptKind, account: &str) -> String {
    let prefix = match kind {
        AttemptKind::Password => "p",
        AttemptKind::Code => "c",
    };
    let signature = secret.sign("slot of sign-in attempts", format!("{prefix} {account}").as_bytes());
    let number = signature.iter().take(4).fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    format!("{prefix}{:05x}", number >> (32 - SLOT_BITS))
}

/// The limits of this process.
#[derive(Clone)]
pub(crate) struct SignInLimits(Arc<Inner>);

struct Inner {
    hasher: RandomState,
    per_address: Buckets,
    share: Buckets,
    devices: Buckets,
}

impl std::fmt::Debug for SignInLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SignInLimits")
    }
}

impl Default for SignInLimits {
    fn default() -> Self {
        Self(Arc::new(Inner {
            hasher: RandomState::new(),
            per_address: Buckets::new(PER_ADDRESS, MINUTE_MS),
            share: Buckets::new(SHARE, DAY_MS),
            devices: Buckets::new(DEVICE_LIMIT, DAY_MS),
        }))
    }
}

/// A counted attempt.
#[must_use]
pub(crate) struct CountedAttempt {
    limits: SignInLimits,
    device: Option<u64>,
    client: Option<(u64, u64)>,
}

impl CountedAttempt {
    /// Whether it comes from a browser that has signed in before.
    pub(crate) fn is_from_device(&self) -> bool {
        self.device.is_some()
    }

    /// Refunds the attempt: the sign-in succeeded, or nothing was checked.
    pub(crate) fn refund(self) {
        let Inner { per_address, share, devices, .. } = &*self.limits.0;
        if let Some(device) = self.device {
            devices.refund(device);
        }
        if let Some((client, pair)) = self.client {
            per_address.refund(client);
            share.refund(pair);
        }
    }
}

impl SignInLimits {
    /// Counts an attempt, from `device` if the browser has signed in before.
    ///
    /// # Errors
    /// `rate_limited`, with `retry_after_seconds`, if the client address has made too many attempts.
    pub(crate) fn count_attempt(
        &self,
        attempt: Attempt<'_>,
        device: Option<&Device>,
        now: Timestamp,
    ) -> Result<CountedAttempt, Error> {
        let Inner { hasher, per_address, share, devices } = &*self.0;
        let Attempt { kind, address, account } = attempt;
        if let Some(device) = device {
            let key = hasher.hash_one((kind, device.nonce()));
            if devices.take(key, now).is_ok() {
                return Ok(CountedAttempt { limits: self.clone(), device: Some(key), client: None });
            }
        }
        let network = network(address);
        let pair = hasher.hash_one((kind, network, account));
        let client = match kind {
            AttemptKind::Password => hasher.hash_one((kind, network)),
            AttemptKind::Code => pair,
        };
        let rejected = |wait| too_many(kind, "client", wait);
        share.take(pair, now).map_err(rejected)?;
        if let Err(wait) = per_address.take(client, now) {
            share.refund(pair);
            return Err(rejected(wait));
        }
        Ok(CountedAttempt { limits: self.clone(), device: None, client: Some((client, pair)) })
    }
}

/// Returns the error for too many attempts. `limit` is the label of the metric; `wait` is in milliseconds.
fn too_many(kind: AttemptKind, limit: &'static str, wait: i64) -> Error {
    metrics::counter!("waypost_sign_in_rejected_total", "limit" => limit).increment(1);
    let seconds = (wait.max(0) + 999) / 1_000;
    let when = match seconds {
        0..=90 => format!("{seconds} seconds"),
        91..=5_400 => format!("{} minutes", (seconds + 59) / 60),
        _ => format!("{} hours", (seconds + 3_599) / 3_600),
    };
    let (message, field) = match kind {
        AttemptKind::Password => {
            (format!("Too many failed sign-ins. Try again in {when}, or sign in with a code."), "password")
        }
        AttemptKind::Code => {
            (format!("Too many codes were requested. Use the newest one, or try again in {when}."), "email")
        }
    };
    Error::new(Code::RateLimited, message).with("field", field).with("retry_after_seconds", seconds)
}

/// Returns the error for an account that has reached its daily limit.
pub(crate) fn account_limit_error(kind: AttemptKind) -> Error {
    too_many(kind, "account", 60 * MINUTE_MS)
}

/// A rate limit for each of many keys: `burst` at once, refilled evenly within `period_ms` (the generic cell rate
/// algorithm). The value of a key is the time at which its bucket is full again, in milliseconds.
struct Buckets {
    keys: Cache<u64, i64>,
    interval_ms: i64,
    period_ms: i64,
}

impl Buckets {
    fn new(burst: i64, period_ms: i64) -> Self {
        let idle = Duration::from_millis(period_ms.unsigned_abs());
        let keys = Cache::builder().max_capacity(KEYS).time_to_idle(idle).build();
        Self { keys, interval_ms: period_ms / burst, period_ms }
    }

    /// Takes one token. Returns the milliseconds until the next token is available if there is none.
    fn take(&self, key: u64, now: Timestamp) -> Result<(), i64> {
        let mut wait = None;
        self.keys.entry(key).and_compute_with(|entry| {
            let full_at = entry.map_or(now.0, |entry| entry.into_value().max(now.0)) + self.interval_ms;
            let over = full_at - now.0 - self.period_ms;
            if over > 0 {
                wait = Some(over);
                return Op::Nop;
            }
            Op::Put(full_at)
        });
        wait.map_or(Ok(()), Err)
    }

    fn refund(&self, key: u64) {
        self.keys.entry(key).and_compute_with(|entry| match entry {
            Some(entry) => Op::Put(entry.into_value() - self.interval_ms),
            None => Op::Nop,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn attempt(kind: AttemptKind, address: &str, account: &'static str) -> Attempt<'static> {
        Attempt { kind, address: address.parse().unwrap(), account }
    }

    fn seconds(result: Result<CountedAttempt, Error>) -> Option<i64> {
        result.err().map(|error| error.details["retry_after_seconds"].as_i64().unwrap())
    }

    #[test]
    fn a_client_address_has_a_burst_of_three_and_three_per_minute() {
        let limits = SignInLimits::default();
        let from = |address: &str, account: &'static str, now| {
            seconds(limits.count_attempt(attempt(AttemptKind::Password, address, account), None, now))
        };
        for account in ["a", "b", "c"] {
            assert_eq!(from("192.0.2.1", account, NOW), None);
        }
        assert_eq!(from("192.0.2.1", "d", NOW), Some(20));
        assert_eq!(from("::ffff:192.0.2.1", "d", NOW), Some(20), "the same address");
        assert_eq!(from("192.0.2.2", "a", NOW), None, "another address");
        assert_eq!(from("192.0.2.1", "d", NOW.plus(20_000)), None);
        assert_eq!(from("192.0.2.1", "d", NOW.plus(20_000)), Some(20));
        let later = NOW.plus(20_000 + MINUTE_MS);
        let passed = (0..10).filter(|_| from("192.0.2.1", "d", later).is_none()).count();
        assert_eq!(passed, 3);
        for n in 0..3 {
            assert_eq!(from(&format!("2001:db8::{n}"), "a", NOW), None);
        }
        assert_eq!(from("2001:db8::ffff", "a", NOW), Some(20), "the same /64");
        assert_eq!(from("2001:db8:0:1::1", "a", NOW), None);
    }

    #[test]
    fn successful_attempts_are_not_counted() {
        let limits = SignInLimits::default();
        for _ in 0..100 {
            limits.count_attempt(attempt(AttemptKind::Password, "192.0.2.1", "a"), None, NOW).unwrap().refund();
        }
    }

    #[test]
    fn one_client_address_cannot_exhaust_an_account() {
        let limits = SignInLimits::default();
        for kind in [AttemptKind::Password, AttemptKind::Code] {
            let mut passed = 0;
            for minute in 0..24 * 60 {
                let now = NOW.plus(minute * MINUTE_MS);
                passed +=
                    (0..5).filter(|_| limits.count_attempt(attempt(kind, "192.0.2.1", "a"), None, now).is_ok()).count();
            }
            // The refill within the day adds to the burst.
            assert!((30..=60).contains(&passed) && passed < usize::try_from(ACCOUNT_LIMIT).unwrap() / 5, "{passed}");
        }
    }

    #[test]
    fn codes_are_limited_per_email() {
        let limits = SignInLimits::default();
        let from = |account| seconds(limits.count_attempt(attempt(AttemptKind::Code, "192.0.2.1", account), None, NOW));
        assert_eq!([from("a"), from("a"), from("a")], [None; 3]);
        assert_eq!((from("a"), from("b")), (Some(20), None), "other emails from the same address still get codes");
    }

    #[test]
    fn slots_are_few_and_depend_on_the_key() {
        let (one, two) = (SecretKey::new([1; 32]), SecretKey::new([2; 32]));
        let slots = |secret: &SecretKey| -> Vec<_> {
            (0..1_000).map(|n| slot(secret, AttemptKind::Password, &format!("{n}@x.de"))).collect()
        };
        let distinct: std::collections::BTreeSet<_> = slots(&one).into_iter().collect();
        assert!(distinct.len() > 950, "{}", distinct.len());
        assert!(distinct.iter().all(|slot| slot.len() == 6 && *slot.as_str() < *"p40000"), "{distinct:?}");
        assert_ne!(slots(&one), slots(&two));
        assert_ne!(slot(&one, AttemptKind::Password, "a"), slot(&one, AttemptKind::Code, "a"));
    }
}
