//! Rate limits of MCP calls: per caller, per client address and per server.
//!
//! Rules for counting calls (docs/security.md, "Rate limits of MCP calls"):
//!
//! 1. A call with a token counts against the bucket of its end user, not against the client address.
//! 2. All other identities are only claimed, so they also count against the client address. Identities that have stored
//!    progress share the wide bucket of their address; all other calls share the narrow one, which has the limit of a
//!    single caller.
//! 3. Every call counts against the server.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use waypost_core::Clock;
use waypost_core::id::{EndUserId, ServerId};
use waypost_ops::identity::AnonymousKey;
use waypost_ops::limits::{Limiter, Rate, network};

/// The limits of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitOptions {
    /// Calls per second of one caller, and of all callers without stored progress at one client address. 0 means no
    /// limit.
    pub per_caller: u32,
    /// The burst of one caller.
    pub burst: u32,
    /// The limit of all anonymous users with stored progress at one client address, as a multiple of `per_caller`; at
    /// least 1.
    pub per_address: u32,
    /// Calls per second to one server, by all callers; 0 means no limit.
    pub per_server: u32,
}

impl Default for LimitOptions {
    fn default() -> Self {
        Self { per_caller: 100, burst: 200, per_address: 5, per_server: 1_000 }
    }
}

impl LimitOptions {
    /// No limits.
    pub const OFF: Self = Self { per_caller: 0, burst: 0, per_address: 1, per_server: 0 };
}

/// The identity that a call is counted against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallerKey {
    /// An end user identified by a token.
    EndUser(EndUserId),
    /// An anonymous user who has stored progress, at a client address.
    Known(AnonymousKey, IpAddr),
    /// An unknown handle or tracking ID, which any client can make up, at a client address.
    Claimed(AnonymousKey, IpAddr),
    /// A client address, if nothing else is known.
    Address(IpAddr),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Bucket {
    EndUser(EndUserId),
    Anonymous(AnonymousKey),
    /// Calls from an address without an identity that has stored progress.
    Narrow(IpAddr),
    /// Calls from an address with such an identity.
    Wide(IpAddr),
    Server(ServerId),
}

/// The limits of one process.
#[derive(Clone)]
pub struct Limits {
    buckets: Limiter<Bucket>,
    caller: Option<Rate>,
    narrow: Option<Rate>,
    wide: Option<Rate>,
    server: Option<Rate>,
}

impl Limits {
    /// Creates limits from `options`.
    #[must_use]
    pub fn new(options: LimitOptions, clock: Arc<dyn Clock>) -> Self {
        let LimitOptions { per_caller, burst, per_address, per_server } = options;
        let times = per_address.max(1);
        Self {
            buckets: Limiter::new(clock),
            caller: Rate::per_second("mcp_caller", per_caller, burst),
            narrow: Rate::per_second("mcp_address", per_caller, burst),
            wide: Rate::per_second("mcp_address", per_caller.saturating_mul(times), burst.saturating_mul(times)),
            server: Rate::per_second("mcp_server", per_server, per_server),
        }
    }

    /// Counts a call.
    ///
    /// # Errors
    /// Returns the time to wait if a limit is exceeded.
    pub fn check(&self, caller: &CallerKey, server: &ServerId) -> Result<(), Duration> {
        match caller {
            CallerKey::EndUser(id) => self.one(Bucket::EndUser(id.clone()), self.caller)?,
            CallerKey::Known(key, address) => {
                // The caller's own bucket first: excess calls must not use up the bucket of the address.
                self.one(Bucket::Anonymous(key.clone()), self.caller)?;
                self.one(Bucket::Wide(network(*address)), self.wide)?;
            }
            CallerKey::Claimed(key, address) => {
                // The address first, so that rejected made-up identities use no memory.
                self.one(Bucket::Narrow(network(*address)), self.narrow)?;
                self.one(Bucket::Anonymous(key.clone()), self.caller)?;
            }
            CallerKey::Address(address) => self.one(Bucket::Narrow(network(*address)), self.narrow)?,
        }
        self.one(Bucket::Server(server.clone()), self.server)
    }

    fn one(&self, bucket: Bucket, rate: Option<Rate>) -> Result<(), Duration> {
        rate.map_or(Ok(()), |rate| self.buckets.check(bucket, rate))
    }
}

#[cfg(test)]
mod tests {
    use waypost_core::Timestamp;
    use waypost_core::clock::ManualClock;
    use waypost_core::id::OrganizationId;

    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const TWO: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn limits(per_server: u32) -> Limits {
        let options = LimitOptions { per_caller: 5, burst: 5, per_address: 4, per_server };
        Limits::new(options, Arc::new(ManualClock::new(Timestamp(0))))
    }

    fn key(name: impl ToString) -> AnonymousKey {
        AnonymousKey::Tracking(OrganizationId::from_store("org_1".into()), name.to_string())
    }

    /// Returns how many of 300 calls pass.
    fn passed(limits: &Limits, caller: impl Fn(usize) -> CallerKey) -> usize {
        let server = ServerId::from_store("srv_1".into());
        (0..300).filter(|n| limits.check(&caller(*n), &server).is_ok()).count()
    }

    #[test]
    fn made_up_identities_share_the_limit_of_one_caller() {
        let limits = limits(0);
        assert_eq!(passed(&limits, |n| CallerKey::Claimed(key(n), ONE)), 5);
        assert_eq!(passed(&limits, |_| CallerKey::Address(ONE)), 0, "calls without an identity share it");
        let of_network = |n: usize| format!("2001:db8:0:1::{n:x}").parse().unwrap();
        assert_eq!(
            passed(&limits, |n| CallerKey::Claimed(key(n), of_network(n))),
            5,
            "an IPv6 network counts as one address"
        );
        let others = |n: usize| IpAddr::from([198, 51, 100, u8::try_from(n % 250).unwrap()]);
        assert_eq!(passed(&limits, |n| CallerKey::Claimed(key("one"), others(n))), 5, "one identity at many addresses");
    }

    #[test]
    fn users_with_progress_share_a_wider_limit_per_address() {
        let limits = limits(0);
        assert_eq!(passed(&limits, |_| CallerKey::Known(key("ann"), ONE)), 5);
        assert_eq!(passed(&limits, |n| CallerKey::Known(key(n), ONE)), 15, "four times the limit of a caller");
        assert_eq!(passed(&limits, |_| CallerKey::Address(ONE)), 5, "known and unknown callers do not share a bucket");
        assert_eq!(
            passed(&limits, |_| CallerKey::Known(key("ann"), TWO)),
            0,
            "another address is not another identity"
        );
    }

    #[test]
    fn users_with_a_token_are_not_limited_by_address() {
        let limits = limits(0);
        let user = |name: String| CallerKey::EndUser(EndUserId::from_store(name));
        assert_eq!(passed(&limits, |_| user("eu_1".into())), 5);
        assert_eq!(passed(&limits, |n| user(format!("eu_{}", n + 10))), 300);
    }

    #[test]
    fn a_server_has_a_limit_for_all_callers() {
        let limits = limits(20);
        let user = |n: usize| CallerKey::EndUser(EndUserId::from_store(format!("eu_{n}")));
        assert_eq!(passed(&limits, user), 20);
        let other = ServerId::from_store("srv_2".into());
        assert_eq!(limits.check(&user(1), &other), Ok(()));
    }

    #[test]
    fn limits_can_be_disabled() {
        let limits = Limits::new(LimitOptions::OFF, Arc::new(ManualClock::new(Timestamp(0))));
        assert_eq!(passed(&limits, |_| CallerKey::Address(ONE)), 300);
        assert_eq!(passed(&limits, |_| CallerKey::Known(key("ann"), ONE)), 300);
    }
}
