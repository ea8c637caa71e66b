//! The quota of calls of each agent.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use waypost_core::Clock;
use waypost_core::id::AgentId;
use waypost_ops::limits::{Limiter, Rate};

/// Counts the calls of each agent in this process: a token bucket that holds the calls of an hour and is refilled evenly.
pub(crate) struct CallQuota {
    limiter: Limiter<AgentId>,
    /// `None` if calls are not limited.
    rate: Option<Rate>,
}

impl fmt::Debug for CallQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallQuota").field("rate", &self.rate).finish_non_exhaustive()
    }
}

impl CallQuota {
    /// Creates the quota of `calls_per_hour`; 0 for no limit.
    pub(crate) fn new(clock: Arc<dyn Clock>, calls_per_hour: u32) -> Self {
        Self { limiter: Limiter::new(clock), rate: Rate::per_hour("gateway_calls", calls_per_hour) }
    }

    /// Counts a call of `agent`.
    ///
    /// # Errors
    /// The time until the next call is allowed, if the quota is used up.
    pub(crate) fn check(&self, agent: &AgentId) -> Result<(), Duration> {
        self.rate.map_or(Ok(()), |rate| self.limiter.check(agent.clone(), rate))
    }
}
