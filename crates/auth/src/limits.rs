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
    /// A request at the authorization endpoint, which keeps a row for half an hour.
    Authorize,
    /// A request at the token or revocation endpoint.
    Token,
    /// A registration, which keeps a row for a day.
    Register,
    /// A form of a page: a password or a code may be in it.
    Form,
    /// A form that sends a mail.
    Mail,
}

/// Each kind with its requests per minute; as many may come at once. A class of a hundred behind one address begins in the
/// same minute; who guesses is stopped by the limits of each account and each code.
const PER_MINUTE: [(Kind, u32); 5] =
    [(Kind::Authorize, 600), (Kind::Token, 1_200), (Kind::Register, 300), (Kind::Form, 600), (Kind::Mail, 100)];

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_each_kind_and_network_by_itself() {
        let limits = Limits::default();
        let (one, neighbour, other): (IpAddr, IpAddr, IpAddr) =
            ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap(), "2001:db8:0:1::1".parse().unwrap());
        for n in 0..100 {
            let address = if n % 2 == 0 { one } else { neighbour };
            assert_eq!(limits.check(Kind::Mail, address), Ok(()));
        }
        assert!(limits.check(Kind::Mail, one).is_err());
        assert_eq!(limits.check(Kind::Mail, other), Ok(()));
        assert_eq!(limits.check(Kind::Form, one), Ok(()));
    }
}
