//! Rate limits per client address and kind of request. They slow down guessing and flooding; normal use stays below
//! them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use waypost_core::Clock;
use waypost_ops::limits::{Limiter, Rate, network};

/// The kind of a request, each with its own limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitKind {
    /// A request to the authorization endpoint. Stores a row for half an hour.
    Authorize,
    /// The fetch of a client's metadata document from a URL that anyone can choose.
    Document,
    /// A request to the token or revocation endpoint.
    Token,
    /// A client registration. Stores a row for a day.
    Register,
    /// A form of a page, which may contain a password or a code.
    Form,
    /// A form that sends an email.
    Mail,
}

impl LimitKind {
    /// Returns the requests allowed per minute. The burst is the same, except for registrations, where it is larger: a
    /// class of 300 behind one address starts within the same minute. Guessing is stopped by the limits of each account
    /// and each code. Every kind has a limit.
    fn rate(self) -> Rate {
        match self {
            Self::Authorize => Rate::per_minute("oauth_authorize", 600),
            Self::Document => Rate::per_minute("oauth_document", 60),
            Self::Token => Rate::per_minute("oauth_token", 1_200),
            Self::Register => Rate::per_minute("oauth_register", 20).with_burst(300),
            Self::Form => Rate::per_minute("oauth_form", 600),
            Self::Mail => Rate::per_minute("oauth_mail", 100),
        }
    }
}

/// The rate limits of this process.
#[derive(Clone)]
pub struct Limits(Limiter<(LimitKind, IpAddr)>);

impl Limits {
    /// Creates unused limits.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self(Limiter::new(clock))
    }

    /// Counts a request from `address`, or from its network if it is an IPv6 address.
    ///
    /// # Errors
    /// The time to wait if the limit is exceeded.
    pub fn check(&self, kind: LimitKind, address: IpAddr) -> Result<(), Duration> {
        self.0.check((kind, network(address)), kind.rate())
    }
}

#[cfg(test)]
mod tests {
    use waypost_core::Timestamp;
    use waypost_core::clock::ManualClock;

    use super::*;

    #[test]
    fn each_kind_and_network_is_counted_separately() {
        let limits = Limits::new(Arc::new(ManualClock::new(Timestamp(0))));
        let (one, neighbour, other): (IpAddr, IpAddr, IpAddr) =
            ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap(), "2001:db8:0:1::1".parse().unwrap());
        for n in 0..100 {
            let address = if n % 2 == 0 { one } else { neighbour };
            assert_eq!(limits.check(LimitKind::Mail, address), Ok(()));
        }
        assert!(limits.check(LimitKind::Mail, one).is_err());
        assert_eq!(limits.check(LimitKind::Mail, other), Ok(()));
        for kind in [LimitKind::Authorize, LimitKind::Document, LimitKind::Token, LimitKind::Register, LimitKind::Form]
        {
            let passed = (0..20_000).take_while(|_| limits.check(kind, one).is_ok()).count();
            assert!((60..=1_200).contains(&passed), "{kind:?}: {passed}");
        }
    }

    /// A class registers at the same time; after that, one address can register 1,200 clients per hour.
    #[test]
    fn a_class_behind_one_address_can_register() {
        let clock = Arc::new(ManualClock::new(Timestamp(0)));
        let (limits, address) = (Limits::new(clock.clone()), "192.0.2.1".parse().unwrap());
        let passed = || (0..1_000).take_while(|_| limits.check(LimitKind::Register, address).is_ok()).count();
        assert_eq!(passed(), 300);
        clock.advance(60_000);
        assert_eq!(passed(), 20);
    }
}
