//! Rate limits per client address and kind of request. They slow down guessing and flooding, and do not affect normal
//! use.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use waypost_core::Clock;
use waypost_ops::limits::{Limiter, Rate, network};

/// A kind of request that has its own limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitKind {
    /// An attempt to sign in with a password, a code or a link.
    SignIn,
    /// A sign-up.
    SignUp,
    /// An invitation.
    Invitation,
    /// Any request that sends an email.
    Mail,
    /// A request with an invalid API key or session cookie.
    InvalidCredentials,
    /// A request to the API.
    Api,
    /// A view of a server's public page.
    PublicPage,
    /// Any request except those to the MCP URL of a server. It counts in addition to the limit of its own kind.
    Request,
}

impl LimitKind {
    /// Returns the requests per minute, which is also the burst. The limits are high enough for an office of fifty
    /// users behind one address. Guessing is also limited per account and per code. Every kind has a limit.
    fn rate(self) -> Rate {
        match self {
            Self::SignIn => Rate::per_minute("sign_in", 120),
            Self::SignUp => Rate::per_minute("sign_up", 30),
            Self::Invitation => Rate::per_minute("invitation", 60),
            Self::Mail => Rate::per_minute("mail", 60),
            Self::InvalidCredentials => Rate::per_minute("wrong_key", 600),
            Self::Api => Rate::per_minute("api", 6_000),
            Self::PublicPage => Rate::per_minute("public_page", 600),
            Self::Request => Rate::per_minute("request", 12_000),
        }
    }
}

/// The rate limits of this process.
#[derive(Clone)]
pub struct Limits(Limiter<(LimitKind, IpAddr)>);

impl Limits {
    /// Creates limits with no requests counted.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self(Limiter::new(clock))
    }

    /// Counts a request from `address`, or from its network if it is an IPv6 address.
    ///
    /// # Errors
    /// Returns the time to wait if there were too many requests.
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
    fn every_kind_has_its_own_limit() {
        use LimitKind::{Api, InvalidCredentials, Invitation, Mail, PublicPage, Request, SignIn, SignUp};
        let limits = Limits::new(Arc::new(ManualClock::new(Timestamp(0))));
        let address = IpAddr::from([192, 0, 2, 7]);
        for kind in [SignIn, SignUp, Invitation, Mail, InvalidCredentials, Api, PublicPage, Request] {
            let passed = (0..20_000).take_while(|_| limits.check(kind, address).is_ok()).count();
            assert!((30..=12_000).contains(&passed), "{kind:?}: {passed}");
        }
    }
}
