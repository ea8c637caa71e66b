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
    /// A request to the console or the API that sends an email.
    Mail,
    /// A request with an invalid API key or session cookie.
    InvalidCredentials,
    /// A request to the API.
    Api,
    /// A view of a server's public page.
    PublicPage,
    /// A request to the authorization endpoint. Stores a row for half an hour.
    Authorize,
    /// The fetch of a client's metadata document from a URL that anyone can choose.
    ClientDocument,
    /// A client registration. Stores a row for a day.
    ClientRegistration,
    /// A request to the token or revocation endpoint.
    Token,
    /// A form on which an end user signs in, which may contain a password or a code.
    EndUserForm,
    /// A form that sends an email to an end user.
    EndUserMail,
    /// A request from a machine to join as a toolbox.
    ToolboxJoin,
    /// A request from a toolbox's daemon to open its link. All machines of an organisation may reconnect at the same
    /// time.
    ToolboxLink,
    /// Any request except those to the MCP URL of a server. It counts in addition to the limit of its own kind.
    Request,
}

impl LimitKind {
    /// Returns the rate. The burst equals the number of requests per minute, except for client registrations, where it
    /// is larger: a class of 300 users behind one address starts within the same minute. Guessing is also limited per
    /// account and per code.
    fn rate(self) -> Rate {
        match self {
            Self::SignIn => Rate::per_minute("sign_in", 120),
            Self::SignUp => Rate::per_minute("sign_up", 30),
            Self::Invitation => Rate::per_minute("invitation", 60),
            Self::Mail => Rate::per_minute("mail", 60),
            Self::InvalidCredentials => Rate::per_minute("wrong_key", 600),
            Self::Api => Rate::per_minute("api", 6_000),
            Self::PublicPage => Rate::per_minute("public_page", 600),
            Self::Authorize => Rate::per_minute("oauth_authorize", 600),
            Self::ClientDocument => Rate::per_minute("oauth_document", 60),
            Self::ClientRegistration => Rate::per_minute("oauth_register", 20).with_burst(300),
            Self::Token => Rate::per_minute("oauth_token", 1_200),
            Self::EndUserForm => Rate::per_minute("oauth_form", 600),
            Self::EndUserMail => Rate::per_minute("oauth_mail", 100),
            Self::ToolboxJoin => Rate::per_minute("toolbox_join", 60),
            Self::ToolboxLink => Rate::per_minute("toolbox_link", 600),
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
        use LimitKind::{
            Api, Authorize, ClientDocument, ClientRegistration, EndUserForm, EndUserMail, InvalidCredentials,
            Invitation, Mail, PublicPage, Request, SignIn, SignUp, Token, ToolboxJoin, ToolboxLink,
        };
        let kinds = [
            Api,
            Authorize,
            ClientDocument,
            ClientRegistration,
            EndUserForm,
            EndUserMail,
            InvalidCredentials,
            Invitation,
            Mail,
            PublicPage,
            Request,
            SignIn,
            SignUp,
            Token,
            ToolboxJoin,
            ToolboxLink,
        ];
        let limits = Limits::new(Arc::new(ManualClock::new(Timestamp(0))));
        let address = IpAddr::from([192, 0, 2, 7]);
        for kind in kinds {
            let passed = (0..20_000).take_while(|_| limits.check(kind, address).is_ok()).count();
            assert!((30..=12_000).contains(&passed), "{kind:?}: {passed}");
        }
    }

    #[test]
    fn each_kind_and_network_is_counted_separately() {
        let limits = Limits::new(Arc::new(ManualClock::new(Timestamp(0))));
        let (one, neighbour, other): (IpAddr, IpAddr, IpAddr) =
            ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap(), "2001:db8:0:1::1".parse().unwrap());
        for n in 0..100 {
            let address = if n % 2 == 0 { one } else { neighbour };
            assert_eq!(limits.check(LimitKind::EndUserMail, address), Ok(()));
        }
        assert!(limits.check(LimitKind::EndUserMail, one).is_err());
        assert_eq!(limits.check(LimitKind::EndUserMail, other), Ok(()));
    }

    /// The clients of a class register at the same time. After that, one address can register 1,200 clients per hour.
    #[test]
    fn a_class_behind_one_address_can_register() {
        let clock = Arc::new(ManualClock::new(Timestamp(0)));
        let (limits, address) = (Limits::new(clock.clone()), "192.0.2.1".parse().unwrap());
        let passed = || (0..1_000).take_while(|_| limits.check(LimitKind::ClientRegistration, address).is_ok()).count();
        assert_eq!(passed(), 300);
        clock.advance(60_000);
        assert_eq!(passed(), 20);
    }
}
