//! Limits on the calls, streams and subscriptions that agents and organisations can have at a time in this process.
//!
//! Invariants:
//! 1. An organisation gets its first slot as long as any is free. It gets another one only if at least as many slots as
//!    it then has remain free for others, see [`has_share`]. So one organisation uses at most half of the slots, and
//!    none can take the last slot from an organisation that has none.
//! 2. Slots are never taken away: an organisation with more than its share gets no further slots until enough are free.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use waypost_core::id::{AgentId, OrganizationId};

/// The maximum number of calls of an agent at a time in this process.
pub(crate) const MAX_CALLS: usize = 10;
/// The maximum number of streams of an agent in this process.
pub(crate) const MAX_STREAMS: usize = 20;
/// The maximum number of streams of all agents in this process.
const MAX_STREAMS_IN_TOTAL: usize = 5_000;

/// The maximum number of subscriptions to resources of an agent in this process.
pub const MAX_SUBSCRIPTIONS: usize = 100;
/// The maximum number of subscriptions of all agents in this process.
const MAX_SUBSCRIPTIONS_IN_TOTAL: usize = 10_000;
/// The maximum number of parked calls of all agents in this process.
const MAX_PARKED_IN_TOTAL: usize = 1_000;

/// Whether an organisation with `own` of the `used` slots may take another one of `total`.
pub(crate) fn has_share(own: usize, used: usize, total: usize) -> bool {
    match total.saturating_sub(used) {
        0 => false,
        free => own == 0 || own + 1 < free,
    }
}

/// The limit that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LimitReached {
    /// The limit of the agent.
    Agent,
    /// The organisation's share.
    Organization,
}

/// Counts the calls, streams or subscriptions of each agent and of each organisation.
#[derive(Debug, Clone)]
pub(crate) struct Slots(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    per_agent: usize,
    total: usize,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    agents: HashMap<AgentId, usize>,
    organizations: HashMap<OrganizationId, usize>,
}

/// A call, stream or subscription, counted until this value is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Slots,
    organization: OrganizationId,
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
        Self(Arc::new(Shared { per_agent, total, counts: Mutex::default() }))
    }

    /// Acquires a slot for a call, stream or subscription of an agent.
    ///
    /// # Errors
    /// The limit that is reached.
    pub(crate) fn acquire(&self, organization: &OrganizationId, agent: &AgentId) -> Result<Slot, LimitReached> {
        let mut counts = self.counts();
        let of_agent = counts.agents.get(agent).copied().unwrap_or_default();
        if of_agent >= self.0.per_agent {
            return Err(LimitReached::Agent);
        }
        let own = counts.organizations.get(organization).copied().unwrap_or_default();
        if !has_share(own, counts.total, self.0.total) {
            return Err(LimitReached::Organization);
        }
        counts.total += 1;
        counts.agents.insert(agent.clone(), of_agent + 1);
        counts.organizations.insert(organization.clone(), own + 1);
        Ok(Slot { slots: self.clone(), organization: organization.clone(), agent: agent.clone() })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self.slots.counts();
        counts.total -= 1;
        decrement(&mut counts.agents, &self.agent);
        decrement(&mut counts.organizations, &self.organization);
    }
}

/// Decrements a count, and removes it at 0, so that the map does not grow beyond the number of slots.
fn decrement<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    match counts.get_mut(key) {
        Some(count) if *count > 1 => *count -= 1,
        _ => {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn organization(number: usize) -> OrganizationId {
        OrganizationId::from_store(format!("org_{number}"))
    }

    fn agent(number: usize) -> AgentId {
        AgentId::from_store(format!("agt_{number}"))
    }

    fn is_empty(slots: &Slots) -> bool {
        let counts = slots.counts();
        counts.total == 0 && counts.agents.is_empty() && counts.organizations.is_empty()
    }

    #[test]
    fn each_agent_has_its_own_limit() {
        let slots = Slots::new(3, 100);
        let mut held: Vec<_> = (0..3).map(|_| slots.acquire(&organization(1), &agent(1)).unwrap()).collect();
        assert_eq!(slots.acquire(&organization(1), &agent(1)).unwrap_err(), LimitReached::Agent);
        let other = slots.acquire(&organization(1), &agent(2));
        assert!(other.is_ok());
        held.pop();
        assert!(slots.acquire(&organization(1), &agent(1)).is_ok());
        drop((held, other));
        assert!(is_empty(&slots));
    }

    #[test]
    fn an_organisation_uses_at_most_half_of_the_slots_and_the_next_one_half_of_the_rest() {
        let limits = [
            (Slots::for_streams(), MAX_STREAMS, [2_500, 1_250]),
            (Slots::for_subscriptions(), MAX_SUBSCRIPTIONS, [5_000, 2_500]),
            (Slots::for_parked_calls(), MAX_CALLS, [500, 250]),
        ];
        for (slots, per_agent, shares) in limits {
            let mut held = Vec::new();
            for (number, share) in shares.into_iter().enumerate() {
                let own = organization(number);
                let new = (0..share).map(|n| slots.acquire(&own, &agent(number * 10_000 + n / per_agent)).unwrap());
                held.extend(new);
                assert_eq!(slots.acquire(&own, &agent(99_999)).unwrap_err(), LimitReached::Organization);
            }
            assert!(slots.acquire(&organization(9), &agent(99_999)).is_ok(), "others are not locked out");
            held.clear();
            assert!(is_empty(&slots));
        }
    }

    #[test]
    fn calls_are_limited_by_agent_only() {
        let slots = Slots::for_calls();
        let call = |n: usize| slots.acquire(&organization(1), &agent(n / MAX_CALLS));
        let held: Vec<_> = (0..10_000).map(|n| call(n).unwrap()).collect();
        assert_eq!(call(0).unwrap_err(), LimitReached::Agent);
        drop(held);
        assert!(is_empty(&slots));
    }

    proptest! {
        #[test]
        fn no_organisation_takes_the_last_slot_from_one_that_has_none(
            total in 1_usize..24,
            steps in prop::collection::vec((0_usize..5, prop::bool::weighted(0.8)), 0..120),
        ) {
            let slots = Slots::new(usize::MAX, total);
            let mut held: [Vec<Slot>; 5] = Default::default();
            for (number, is_new) in steps {
                if !is_new {
                    held[number].pop();
                    continue;
                }
                let (own, used) = (held[number].len(), held.iter().map(Vec::len).sum::<usize>());
                match slots.acquire(&organization(number), &agent(number)) {
                    Ok(slot) => {
                        held[number].push(slot);
                        prop_assert!(used < total);
                        let another = slots.acquire(&organization(9), &agent(9));
                        prop_assert!(own == 0 || another.is_ok(), "{} of {}", own, used);
                    }
                    Err(limit) => {
                        prop_assert_eq!(limit, LimitReached::Organization);
                        prop_assert!(own > 0 || used == total, "{} of {}", own, used);
                    }
                }
            }
            drop(held);
            prop_assert!(is_empty(&slots));
        }
    }
}
