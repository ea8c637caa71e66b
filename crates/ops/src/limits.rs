//! Rate limits: one token bucket per key, in the memory of this process.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use governor::clock::Clock as _;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use waypost_core::secret::SecretKey;
use waypost_core::{Clock, Code, Error, Result};

/// The largest body of a request, in bytes, on every address.
pub const MAX_BODY: usize = 1024 * 1024;
/// Keys of one limiter that are kept. Beyond that the one that was not used for longest is forgotten, and starts with a
/// full bucket if it comes back. Whoever has that many keys is limited by the limits of servers and accounts.
const MAX_KEYS: u64 = 50_000;
/// Keys that were not used for this long are forgotten. Every bucket is full again by then.
const IDLE: Duration = Duration::from_hours(1);

/// A number of requests in a time, and a name for the metric of rejected requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    name: &'static str,
    quota: Quota,
}

impl Rate {
    /// `count` requests per second, and up to `burst` at once. Returns `None`, no limit, if `count` is 0.
    #[must_use]
    pub fn per_second(name: &'static str, count: u32, burst: u32) -> Option<Self> {
        let count = NonZeroU32::new(count)?;
        let burst = NonZeroU32::new(burst).unwrap_or(count);
        Some(Self { name, quota: Quota::per_second(count).allow_burst(burst) })
    }

    /// `count` requests per minute, which may come at once. 0 counts as 1.
    #[must_use]
    pub fn per_minute(name: &'static str, count: u32) -> Self {
        Self { name, quota: Quota::per_minute(NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN)) }
    }

    /// The same rate with `burst` requests at once. 0 counts as 1.
    #[must_use]
    pub fn with_burst(self, burst: u32) -> Self {
        Self { quota: self.quota.allow_burst(NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN)), ..self }
    }

    /// `count` requests per hour, which may come at once. Returns `None`, no limit, if `count` is 0.
    #[must_use]
    pub fn per_hour(name: &'static str, count: u32) -> Option<Self> {
        Some(Self { name, quota: Quota::per_hour(NonZeroU32::new(count)?) })
    }
}

/// The time as the buckets need it.
#[derive(Clone)]
struct Monotonic(Arc<dyn Clock>);

impl governor::clock::Clock for Monotonic {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.elapsed().into()
    }
}

type Bucket = RateLimiter<NotKeyed, InMemoryState, Monotonic, NoOpMiddleware<Nanos>>;

/// The buckets of a kind of key. A clone has the same buckets.
#[derive(Clone)]
pub struct Limiter<K: Hash + Eq> {
    buckets: Cache<K, Arc<Bucket>>,
    clock: Monotonic,
}

impl<K: Hash + Eq + Send + Sync + 'static> Limiter<K> {
    /// Returns a limiter whose buckets are full.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let buckets =
            Cache::builder().max_capacity(MAX_KEYS).time_to_idle(IDLE).eviction_policy(EvictionPolicy::lru()).build();
        Self { buckets, clock: Monotonic(clock) }
    }

    /// Counts a request of `key`, whose rate has to be the same each time.
    ///
    /// # Errors
    /// The time to wait if there were too many. The rejection is counted in a metric.
    pub fn check(&self, key: K, rate: Rate) -> std::result::Result<(), Duration> {
        let new = || Arc::new(RateLimiter::direct_with_clock(rate.quota, self.clock.clone()));
        self.buckets.get_with(key, new).check().map_err(|not_until| {
            metrics::counter!("waypost_rate_limited_total", "limit" => rate.name).increment(1);
            not_until.wait_time_from(self.clock.now())
        })
    }
}

/// New anonymous users per client address and hour unless the operator sets another number.
pub const NEW_USERS_PER_ADDRESS: u32 = 300;

/// The limit of new anonymous users per client address.
#[derive(Clone)]
pub(crate) struct NewUserLimit {
    limiter: Limiter<IpAddr>,
    rate: Option<Rate>,
}

impl NewUserLimit {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { limiter: Limiter::new(clock), rate: None }.with_count(NEW_USERS_PER_ADDRESS)
    }

    pub(crate) fn with_count(self, count: u32) -> Self {
        Self { rate: Rate::per_hour("new_users", count), ..self }
    }

    /// Counts a user who is about to be created.
    ///
    /// # Errors
    /// `rate_limited` if there were too many.
    pub(crate) fn check(&self, address: IpAddr) -> Result<()> {
        let checked = self.rate.map_or(Ok(()), |rate| self.limiter.check(network(address), rate));
        checked.map_err(|wait| {
            let message = "Too many users have started from this network within the last hour, so no progress can be \
                           stored for another one. Try again later. Users who started before can continue.";
            Error::new(Code::RateLimited, message).with("retry_after_seconds", wait.as_secs().max(1))
        })
    }
}

/// What counts as one client address: an IPv4 address, or an IPv6 network of /64, because a client with one address of
/// IPv6 usually has the whole network.
#[must_use]
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

/// Returns the network of a client as it is stored with rows that anybody can create: a keyed hash, because addresses are
/// personal data.
#[must_use]
pub fn stored_network(secret: &SecretKey, client: IpAddr) -> String {
    let signature = secret.sign("network of a client", network(client).to_string().as_bytes());
    BASE64URL_NOPAD.encode(&signature[..16])
}

#[cfg(test)]
mod tests {
    use waypost_core::Timestamp;
    use waypost_core::clock::ManualClock;

    use super::*;

    #[test]
    fn lets_the_burst_through_and_refills_with_time() {
        let clock = Arc::new(ManualClock::new(Timestamp(0)));
        let limiter = Limiter::new(clock.clone());
        let rate = Rate::per_second("test", 2, 3).unwrap();
        let passed = |count: usize| (0..count).filter(|_| limiter.check("a", rate).is_ok()).count();
        assert_eq!(passed(10), 3);
        assert_eq!(limiter.check("a", rate), Err(Duration::from_millis(500)));
        clock.advance(500);
        assert_eq!(passed(10), 1);
        clock.advance(60_000);
        assert_eq!(passed(10), 3, "never more than the burst");
        assert_eq!(limiter.check("b", rate), Ok(()), "each key has its own bucket");
    }

    #[test]
    fn memory_is_bounded() {
        let limiter = Limiter::new(Arc::new(ManualClock::new(Timestamp(0))));
        let rate = Rate::per_minute("test", 1);
        for key in 0..MAX_KEYS + 10_000 {
            assert_eq!(limiter.check(key, rate), Ok(()));
        }
        limiter.buckets.run_pending_tasks();
        assert!(limiter.buckets.entry_count() <= MAX_KEYS, "{}", limiter.buckets.entry_count());
        assert!(limiter.check(MAX_KEYS + 9_999, rate).is_err(), "the latest keys are kept");
    }

    #[test]
    fn one_client_has_one_network() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network("192.0.2.7"), "192.0.2.7");
        assert_eq!(network("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("2001:db8:1:2::"), "2001:db8:1:2::");
        assert_eq!(network("2001:db8:1:3::1"), "2001:db8:1:3::");
    }
}
