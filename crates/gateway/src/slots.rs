//! The limit of calls of an agent at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use waypost_core::id::AgentId;

/// The maximum number of calls of an agent at a time in this process.
pub(crate) const MAX_CALLS: usize = 10;

/// Counts the calls of each agent.
#[derive(Debug, Clone, Default)]
pub(crate) struct CallSlots(Arc<Mutex<HashMap<AgentId, usize>>>);

/// A call, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct CallSlot {
    slots: CallSlots,
    agent: AgentId,
}

impl CallSlots {
    /// Counts a call. Returns `None` if the agent has [`MAX_CALLS`].
    pub(crate) fn acquire(&self, agent: &AgentId) -> Option<CallSlot> {
        let mut calls = self.calls();
        let count = calls.entry(agent.clone()).or_default();
        if *count >= MAX_CALLS {
            return None;
        }
        *count += 1;
        Some(CallSlot { slots: self.clone(), agent: agent.clone() })
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<AgentId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CallSlot {
    fn drop(&mut self) {
        let mut calls = self.slots.calls();
        // Removed at 0, so that the map does not grow beyond the number of calls.
        match calls.get_mut(&self.agent) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                calls.remove(&self.agent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_agent_has_its_own_limit() {
        let slots = CallSlots::default();
        let [one, two] = ["agt_1", "agt_2"].map(|id| AgentId::from_store(id.to_owned()));
        let mut held: Vec<_> = (0..MAX_CALLS).map(|_| slots.acquire(&one).unwrap()).collect();
        assert!(slots.acquire(&one).is_none());
        assert!(slots.acquire(&two).is_some());
        held.pop();
        assert!(slots.acquire(&one).is_some());
        drop(held);
        assert!(slots.calls().is_empty());
    }
}
