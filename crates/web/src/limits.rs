//! How often one address may ask, per kind of request: guessing and flooding become slow, people notice nothing.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use waypost_core::Clock;
use waypost_ops::limits::{Limiter, Rate, network};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitKind {
    /// A password, a code or a link that somebody enters.
    SignIn,
    /// A sign-up.
    SignUp,
    /// An invitation.
    Invitation,
    /// Anything that sends a mail.
    Mail,
    /// A key or a cookie that opens nothing.
    InvalidCredentials,
    /// A request to the API.
    Api,
    /// A view of a server's public page.
    PublicPage,
    /// Any request that is not to the MCP address of a server, beside the limit of its own kind.
    Request,
}

impl LimitKind {
    /// The requests per minute; as many may come at once. An office of fifty behind one address notices nothing; who
    /// guesses is stopped by the limits of each account and each code as well. There is no kind without a limit.
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

/// The limits of this process.
#[derive(Clone)]
pub struct Limits(Limiter<(LimitKind, IpAddr)>);

impl Limits {
    /// Returns limits of which nothing is used.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self(Limiter::new(clock))
    }

    /// Counts a request from `address`, or from its network if it is an IPv6 address.
    ///
    /// # Errors
    /// The time to wait if there were too many.
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
    fn every_kind_has_a_limit_of_its_own() {
        use LimitKind::{Api, InvalidCredentials, Invitation, Mail, PublicPage, Request, SignIn, SignUp};
        let limits = Limits::new(Arc::new(ManualClock::new(Timestamp(0))));
        let address = IpAddr::from([192, 0, 2, 7]);
        for kind in [SignIn, SignUp, Invitation, Mail, InvalidCredentials, Api, PublicPage, Request] {
            let passed = (0..20_000).take_while(|_| limits.check(kind, address).is_ok()).count();
            assert!((30..=12_000).contains(&passed), "{kind:?}: {passed}");
        }
    }
}
