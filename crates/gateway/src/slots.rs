//! Limits of what an agent can do at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use waypost_core::id::AgentId;

/// The maximum number of calls of an agent at a time in this process.
pub(crate) const MAX_CALLS: usize = 10;
/// The maximum number of streams of an agent in this process.
pub(crate) const MAX_STREAMS: usize = 20;
/// The maximum number of streams of all agents in this process.
const MAX_STREAMS_IN_TOTAL: usize = 5_000;

/// The maximum number of subscriptions to resources of an agent in this process.
pub(crate) const MAX_SUBSCRIPTIONS: usize = 100;
/// The maximum number of subscriptions of all agents in this process.
const MAX_SUBSCRIPTIONS_IN_TOTAL: usize = 10_000;
/// The maximum number of parked calls of all agents in this process.
const MAX_PARKED_IN_TOTAL: usize = 1_000;

/// Counts the calls or streams of each agent.
#[derive(Debug, Clone)]
pub(crate) struct Slots(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    per_agent: usize,
    total: usize,
    agents: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    agents: HashMap<AgentId, usize>,
}

/// A call or stream, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Slots,
    agent: AgentId,
}

impl Slots {
    /// Creates the limit of calls. Their total is limited by the connections of the process.
    pub(crate) fn for_calls() -> Self {
        Self::new(MAX_CALLS, usize::MAX)
    }

    /// Creates the limit of streams.
    pub(crate) fn for_streams() -> Self {
        Self::new(MAX_STREAMS, MAX_STREAMS_IN_TOTAL)
    }

    /// Creates the limit of parked calls.
    pub(crate) fn for_parked_calls() -> Self {
        Self::new(MAX_CALLS, MAX_PARKED_IN_TOTAL)
    }

    /// Creates the limit of subscriptions to resources.
    pub(crate) fn for_subscriptions() -> Self {
        Self::new(MAX_SUBSCRIPTIONS, MAX_SUBSCRIPTIONS_IN_TOTAL)
    }

    fn new(per_agent: usize, total: usize) -> Self {
        Self(Arc::new(Shared { per_agent, total, agents: Mutex::default() }))
    }

    /// Counts a call or stream. Returns `None` if a limit is reached.
    pub(crate) fn acquire(&self, agent: &AgentId) -> Option<Slot> {
        let mut counts = self.counts();
        let count = counts.agents.get(agent).copied().unwrap_or_default();
        if count >= self.0.per_agent || counts.total >= self.0.total {
            return None;
        }
        counts.total += 1;
        counts.agents.insert(agent.clone(), count + 1);
        Some(Slot { slots: self.clone(), agent: agent.clone() })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self.slots.counts();
        counts.total -= 1;
        // Removed at 0, so that the map does not grow beyond the number of slots.
        match counts.agents.get_mut(&self.agent) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                counts.agents.remove(&self.agent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_agent_has_its_own_limit_and_all_have_one_together() {
        let slots = Slots::new(3, 4);
        let [one, two] = ["agt_1", "agt_2"].map(|id| AgentId::from_store(id.to_owned()));
        let mut held: Vec<_> = (0..3).map(|_| slots.acquire(&one).unwrap()).collect();
        assert!(slots.acquire(&one).is_none());
        let other = slots.acquire(&two);
        assert!(other.is_some() && slots.acquire(&two).is_none());
        held.pop();
        assert!(slots.acquire(&one).is_some());
        drop((held, other));
        assert!(slots.counts().agents.is_empty());
        assert_eq!(slots.counts().total, 0);
    }
}
