//! Rate limits of MCP calls: per caller, per client address and per server.
//!
//! Who counts as a caller (docs/security.md, "Rate limits of MCP calls"):
//!
//! 1. An end user whom a token proves counts for themselves alone.
//! 2. Anything else is only claimed, so it counts for the client address as well. An identity that has stored progress
//!    shares the wide bucket of its address with others of the kind; all other calls share the narrow one, which is that
//!    of a single caller.
//! 3. Everything counts for the server.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use waypost_core::Clock;
use waypost_core::id::{EndUserId, ServerId};
use waypost_ops::identity::AnonymousKey;
use waypost_ops::limits::{Limiter, Rate, network};

/// How many calls are let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitOptions {
    /// Calls per second of one caller, and of all callers of one client address who have stored no progress. 0 is no
    /// limit.
    pub per_caller: u32,
    /// Calls of one caller at once.
    pub burst: u32,
    /// How many times that all anonymous users of one client address together may call who have stored progress; at
    /// least 1.
    pub per_address: u32,
    /// Calls per second to one server, of all callers; 0 is no limit.
    pub per_server: u32,
}

impl Default for LimitOptions {
    fn default() -> Self {
        Self { per_caller: 100, burst: 200, per_address: 5, per_server: 1_000 }
    }
}

impl LimitOptions {
    /// No limit at all.
    pub const OFF: Self = Self { per_caller: 0, burst: 0, per_address: 1, per_server: 0 };
}

/// Whom a call is counted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallerKey {
    /// An end user whom a token proves.
    EndUser(EndUserId),
    /// An anonymous user who has stored progress, at a client address.
    Known(AnonymousKey, IpAddr),
    /// A handle or a tracking ID of which nothing is known, at a client address. Everybody can make one up.
    Claimed(AnonymousKey, IpAddr),
    /// A client address, when nothing else is known.
    Address(IpAddr),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Bucket {
    EndUser(EndUserId),
    Anonymous(AnonymousKey),
    /// Calls from an address without an identity that has stored progress.
    Narrow(IpAddr),
    /// Calls from an address with one.
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
    /// Returns limits as `options` say.
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
    /// The time to wait if it is one too many.
    pub fn check(&self, caller: &CallerKey, server: &ServerId) -> Result<(), Duration> {
        match caller {
            CallerKey::EndUser(id) => self.one(Bucket::EndUser(id.clone()), self.caller)?,
            CallerKey::Known(key, address) => {
                // Themselves first: who calls too often takes nothing from others at the same address.
                self.one(Bucket::Anonymous(key.clone()), self.caller)?;
                self.one(Bucket::Wide(network(*address)), self.wide)?;
            }
            CallerKey::Claimed(key, address) => {
                // The address first: made-up identities take no memory then.
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

    /// How many of 300 calls pass.
    fn passed(limits: &Limits, caller: impl Fn(usize) -> CallerKey) -> usize {
        let server = ServerId::from_store("srv_1".into());
        (0..300).filter(|n| limits.check(&caller(*n), &server).is_ok()).count()
    }

    #[test]
    fn made_up_identities_share_the_limit_of_one_caller() {
        let limits = limits(0);
        assert_eq!(passed(&limits, |n| CallerKey::Claimed(key(n), ONE)), 5);
        assert_eq!(passed(&limits, |_| CallerKey::Address(ONE)), 0, "together with calls without any");
        let of_network = |n: usize| format!("2001:db8:0:1::{n:x}").parse().unwrap();
        assert_eq!(passed(&limits, |n| CallerKey::Claimed(key(n), of_network(n))), 5, "an IPv6 network is one");
        let others = |n: usize| IpAddr::from([198, 51, 100, u8::try_from(n % 250).unwrap()]);
        assert_eq!(passed(&limits, |n| CallerKey::Claimed(key("one"), others(n))), 5, "one identity at many addresses");
    }

    #[test]
    fn users_with_progress_count_for_themselves_and_more_widely_for_their_address() {
        let limits = limits(0);
        assert_eq!(passed(&limits, |_| CallerKey::Known(key("ann"), ONE)), 5);
        assert_eq!(passed(&limits, |n| CallerKey::Known(key(n), ONE)), 15, "four times the limit of a caller");
        assert_eq!(
            passed(&limits, |_| CallerKey::Address(ONE)),
            5,
            "strangers do not take it from them, or they from strangers"
        );
        assert_eq!(passed(&limits, |_| CallerKey::Known(key("ann"), TWO)), 0, "an address is no new identity");
    }

    #[test]
    fn a_token_proves_who_calls() {
        let limits = limits(0);
        let user = |name: String| CallerKey::EndUser(EndUserId::from_store(name));
        assert_eq!(passed(&limits, |_| user("eu_1".into())), 5);
        assert_eq!(passed(&limits, |n| user(format!("eu_{}", n + 10))), 300);
    }

    #[test]
    fn a_server_has_a_limit_for_all() {
        let limits = limits(20);
        let user = |n: usize| CallerKey::EndUser(EndUserId::from_store(format!("eu_{n}")));
        assert_eq!(passed(&limits, user), 20);
        let other = ServerId::from_store("srv_2".into());
        assert_eq!(limits.check(&user(1), &other), Ok(()));
    }

    #[test]
    fn limits_can_be_switched_off() {
        let limits = Limits::new(LimitOptions::OFF, Arc::new(ManualClock::new(Timestamp(0))));
        assert_eq!(passed(&limits, |_| CallerKey::Address(ONE)), 300);
        assert_eq!(passed(&limits, |_| CallerKey::Known(key("ann"), ONE)), 300);
    }
}
