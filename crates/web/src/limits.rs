//! How often one address may ask, per kind of request: guessing and flooding become slow, people notice nothing.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A password, a code or a link that somebody enters.
    SignIn,
    /// A sign-up.
    SignUp,
    /// An invitation.
    Invitation,
    /// Anything that sends a mail.
    Mail,
    /// A key or a cookie that opens nothing.
    WrongKey,
    /// A request to the API.
    Api,
    /// A view of a server's public page.
    PublicPage,
}

/// Each kind with its requests per minute; as many may come at once. An office of fifty behind one address notices
/// nothing; who guesses is stopped by the limits of each account and each code as well.
const PER_MINUTE: [(Kind, u32); 7] = [
    (Kind::SignIn, 120),
    (Kind::SignUp, 30),
    (Kind::Invitation, 60),
    (Kind::Mail, 60),
    (Kind::WrongKey, 600),
    (Kind::Api, 6_000),
    (Kind::PublicPage, 600),
];

/// The limits of this process.
#[derive(Clone)]
pub struct Limits(Arc<Vec<(Kind, DefaultKeyedRateLimiter<IpAddr>)>>);

impl Default for Limits {
    fn default() -> Self {
        let limiter = |per_minute| {
            let per_minute = NonZeroU32::new(per_minute).unwrap_or(NonZeroU32::MIN);
            RateLimiter::keyed(Quota::per_minute(per_minute))
        };
        Self(Arc::new(PER_MINUTE.iter().map(|(kind, per_minute)| (*kind, limiter(*per_minute))).collect()))
    }
}

impl Limits {
    /// Counts a request from `address`.
    ///
    /// # Errors
    /// How long to wait, when there were too many.
    pub fn check(&self, kind: Kind, address: IpAddr) -> Result<(), Duration> {
        let Some((_, limiter)) = self.0.iter().find(|(own, _)| *own == kind) else { return Ok(()) };
        let checked = limiter.check_key(&network(address));
        checked.map_err(|not_until| not_until.wait_time_from(DefaultClock::default().now()))
    }

    /// Forgets addresses that have not asked for a while.
    pub fn tidy(&self) {
        for (_, limiter) in self.0.iter() {
            limiter.retain_recent();
        }
    }
}

/// Whoever has one address of IPv6 has 2⁶⁴ of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}
