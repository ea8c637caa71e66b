//! Rate limits: one token bucket per key, in memory, per process.

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
use waypost_core::id::UserId;
use waypost_core::secret::SecretKey;
use waypost_core::{Clock, Code, Error, Result};

/// The maximum size of a request body, in bytes, at every URL.
pub const MAX_BODY: usize = 1024 * 1024;
/// The maximum number of keys of a limiter. Beyond it, the least recently used key is evicted and starts with a full
/// bucket when it is used again. Clients with that many keys are still subject to the limits of servers and accounts.
const MAX_KEYS: u64 = 50_000;
/// The idle time after which a key is evicted. By then, every bucket is full again.
const IDLE: Duration = Duration::from_hours(1);

/// A number of requests per unit of time, and a name for the metric of rejected requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    name: &'static str,
    quota: Quota,
}

impl Rate {
    /// Returns a rate of `count` requests per second with this burst. Returns `None` (no limit) if `count` is 0.
    #[must_use]
    pub fn per_second(name: &'static str, count: u32, burst: u32) -> Option<Self> {
        let count = NonZeroU32::new(count)?;
        let burst = NonZeroU32::new(burst).unwrap_or(count);
        Some(Self { name, quota: Quota::per_second(count).allow_burst(burst) })
    }

    /// Returns a rate of `count` requests per minute, with the same burst. 0 counts as 1.
    #[must_use]
    pub fn per_minute(name: &'static str, count: u32) -> Self {
        Self { name, quota: Quota::per_minute(NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN)) }
    }

    /// Sets the burst. 0 counts as 1.
    #[must_use]
    pub fn with_burst(self, burst: u32) -> Self {
        Self { quota: self.quota.allow_burst(NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN)), ..self }
    }

    /// Returns a rate of `count` requests per hour, with the same burst. Returns `None` (no limit) if `count` is 0.
    #[must_use]
    pub fn per_hour(name: &'static str, count: u32) -> Option<Self> {
        Some(Self { name, quota: Quota::per_hour(NonZeroU32::new(count)?) })
    }
}

/// Adapts the clock to the token buckets.
#[derive(Clone)]
struct Monotonic(Arc<dyn Clock>);

impl governor::clock::Clock for Monotonic {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.elapsed().into()
    }
}

type Bucket = RateLimiter<NotKeyed, InMemoryState, Monotonic, NoOpMiddleware<Nanos>>;

/// The token buckets of one kind of key. Clones share the buckets.
#[derive(Clone)]
pub struct Limiter<K: Hash + Eq> {
    buckets: Cache<K, Arc<Bucket>>,
    clock: Monotonic,
}

impl<K: Hash + Eq + Send + Sync + 'static> Limiter<K> {
    /// Creates a limiter whose buckets are full.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let buckets =
            Cache::builder().max_capacity(MAX_KEYS).time_to_idle(IDLE).eviction_policy(EvictionPolicy::lru()).build();
        Self { buckets, clock: Monotonic(clock) }
    }

    /// Counts a request of `key`. The rate of a key must always be the same.
    ///
    /// # Errors
    /// Returns the time until the next request is allowed if the limit is exceeded. The rejection is counted in a
    /// metric.
    pub fn check(&self, key: K, rate: Rate) -> std::result::Result<(), Duration> {
        let new = || Arc::new(RateLimiter::direct_with_clock(rate.quota, self.clock.clone()));
        self.buckets.get_with(key, new).check().map_err(|not_until| {
            metrics::counter!("waypost_rate_limited_total", "limit" => rate.name).increment(1);
            not_until.wait_time_from(self.clock.now())
        })
    }
}

/// The default limit of new anonymous users per client address and hour.
pub const NEW_USERS_PER_ADDRESS: u32 = 300;

/// The limit of new anonymous users per client address and hour.
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
    /// `rate_limited` if the limit is exceeded.
    pub(crate) fn check(&self, address: IpAddr) -> Result<()> {
        let checked = self.rate.map_or(Ok(()), |rate| self.limiter.check(network(address), rate));
        checked.map_err(|wait| {
            let message = "Too many new users have started from this network within the last hour, so the progress of \
                           another one cannot be stored. Try again later. Users who have already started can continue.";
            Error::new(Code::RateLimited, message).with("retry_after_seconds", wait.as_secs().max(1))
        })
    }
}

/// The number of connections to remote servers that a person can start per minute.
const STARTED_CONNECTIONS: u32 = 20;

/// The limit on connections to remote servers that a person starts, because each connection sends requests to other
/// servers and may register a client there.
#[derive(Clone)]
pub(crate) struct ConnectionLimit(Limiter<UserId>);

impl std::fmt::Debug for ConnectionLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectionLimit").finish_non_exhaustive()
    }
}

impl ConnectionLimit {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self(Limiter::new(clock))
    }

    /// Counts a connection that is about to be started.
    ///
    /// # Errors
    /// `rate_limited` if the limit is exceeded.
    pub(crate) fn check(&self, user: &UserId) -> Result<()> {
        let rate = Rate::per_minute("started_connections", STARTED_CONNECTIONS);
        self.0.check(user.clone(), rate).map_err(|wait| {
            let message = "You have started too many connections. Wait a minute, then try again.";
            Error::new(Code::RateLimited, message).with("retry_after_seconds", wait.as_secs().max(1))
        })
    }
}

/// Returns the network that counts as one client: an IPv4 address, or a /64 network of IPv6, because an IPv6 client
/// usually has the whole network.
#[must_use]
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

/// Returns a client's network for storage in rows that anyone can create: a keyed hash, because IP addresses are
/// personal data.
#[must_use]
pub fn stored_network(secret: &SecretKey, client: IpAddr) -> String {
    let signature = secret.sign("network of a client", network(client).to_string().as_bytes());
    BASE64URL_NOPAD.encode(&signature[..16])
}

/// The limits of new support tickets, which [`crate::tickets::limits`] enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TicketLimits {
    /// Tickets per hour from one client IPv4 address or /64 network of IPv6, on all servers together. Users with a
    /// token are not counted. 0 means no limit.
    pub per_address: u32,
    /// Tickets per hour on one server. 0 means no limit.
    pub per_server: u32,
}

impl Default for TicketLimits {
    fn default() -> Self {
        Self { per_address: 30, per_server: 100 }
    }
}

#[cfg(test)]
mod tests {
    use waypost_core::Timestamp;
    use waypost_core::clock::ManualClock;

    use super::*;

    #[test]
    fn a_bucket_allows_the_burst_and_refills_over_time() {
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
    fn ipv6_clients_count_by_network() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network("192.0.2.7"), "192.0.2.7");
        assert_eq!(network("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("2001:db8:1:2::"), "2001:db8:1:2::");
        assert_eq!(network("2001:db8:1:3::1"), "2001:db8:1:3::");
    }
}
