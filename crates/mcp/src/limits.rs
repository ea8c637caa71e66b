//! Rate limits, per caller and per server (token buckets).

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};
use waypost_core::id::{EndUserId, OrganizationId, ServerId};

/// How many calls are let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitOptions {
    /// Calls per second of one caller; 0 is no limit.
    pub per_caller: u32,
    /// Calls of one caller at once.
    pub burst: u32,
    /// Calls per second to one server, of all callers; 0 is no limit.
    pub per_server: u32,
}

/// Whom a call is counted for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CallerKey {
    /// A signed-in end user.
    EndUser(EndUserId),
    /// The tracking id of a personal URL.
    Tracking(OrganizationId, String),
    /// A handle, or the random id of a session.
    Handle(String),
    /// A client address, when nothing else is known.
    Address(IpAddr),
}

/// The limits of one process.
#[derive(Clone, Default)]
pub struct Limits {
    callers: Option<Arc<DefaultKeyedRateLimiter<CallerKey>>>,
    servers: Option<Arc<DefaultKeyedRateLimiter<ServerId>>>,
}

fn quota(per_second: u32, burst: u32) -> Option<Quota> {
    let rate = NonZeroU32::new(per_second)?;
    Some(Quota::per_second(rate).allow_burst(NonZeroU32::new(burst).unwrap_or(rate)))
}

impl Limits {
    /// Limits as `options` say.
    #[must_use]
    pub fn new(options: LimitOptions) -> Self {
        let keyed = quota(options.per_caller, options.burst);
        Self {
            callers: keyed.map(|quota| Arc::new(DefaultKeyedRateLimiter::keyed(quota))),
            servers: quota(options.per_server, options.per_server)
                .map(|quota| Arc::new(DefaultKeyedRateLimiter::keyed(quota))),
        }
    }

    /// Counts a call.
    ///
    /// # Errors
    /// How long to wait, when it is one too many.
    pub fn check(&self, caller: &CallerKey, server: &ServerId) -> Result<(), Duration> {
        one(self.callers.as_deref(), caller)?;
        one(self.servers.as_deref(), server)
    }

    /// Forgets callers whose buckets are full again; called now and then, so that memory stays bounded.
    pub fn tidy(&self) {
        if let Some(callers) = &self.callers {
            callers.retain_recent();
        }
        if let Some(servers) = &self.servers {
            servers.retain_recent();
        }
    }
}

fn one<K: Clone + Hash + Eq>(limiter: Option<&DefaultKeyedRateLimiter<K>>, key: &K) -> Result<(), Duration> {
    match limiter.map(|limiter| limiter.check_key(key)) {
        None | Some(Ok(())) => Ok(()),
        Some(Err(not_until)) => Err(not_until.wait_time_from(DefaultClock::default().now())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lets_the_burst_through_and_no_more() {
        let limits = Limits::new(LimitOptions { per_caller: 1, burst: 3, per_server: 0 });
        let (server, caller) = (ServerId::from_store("srv_1".into()), CallerKey::Handle("a".into()));
        for _ in 0..3 {
            assert_eq!(limits.check(&caller, &server), Ok(()));
        }
        assert!(limits.check(&caller, &server).is_err());
        assert_eq!(limits.check(&CallerKey::Handle("b".into()), &server), Ok(()), "each caller has their own");
        let off = Limits::new(LimitOptions { per_caller: 0, burst: 0, per_server: 0 });
        assert!((0..10_000).all(|_| off.check(&caller, &server).is_ok()));
    }
}
