//! Limits the total memory of incomplete request bodies.
//!
//! If the limit rejected the newest body, a few clients with large bodies could lock out all others. Therefore the largest
//! body of the client address with the highest usage is evicted, so that small requests are always accepted.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Context;

use futures::task::AtomicWaker;

/// Overhead per chunk of a body in bytes. Chunks of a single byte use many times their size.
const CHUNK_OVERHEAD: u64 = 64;

/// A limit on the total size of all incomplete bodies.
#[derive(Clone)]
pub struct Budget(Arc<Shared>);

struct Shared {
    /// Limit in bytes; 0 for no limit.
    limit: u64,
    state: Mutex<BudgetState>,
}

#[derive(Default)]
struct BudgetState {
    total: u64,
    next_id: u64,
    bodies: HashMap<u64, BodyUsage>,
    addresses: HashMap<IpAddr, u64>,
}

struct BodyUsage {
    address: IpAddr,
    bytes: u64,
    signal: Arc<EvictionSignal>,
}

#[derive(Default)]
struct EvictionSignal {
    evicted: AtomicBool,
    waker: AtomicWaker,
}

impl Budget {
    /// Creates a budget of `limit` bytes; 0 for no limit.
    pub fn new(limit: u64) -> Self {
        Self(Arc::new(Shared { limit, state: Mutex::default() }))
    }

    /// Creates an empty reservation for a body. `address` is the client's address or network.
    pub fn reserve(&self, address: IpAddr) -> MemoryReservation {
        MemoryReservation { budget: self.clone(), address, id: None, signal: Arc::default() }
    }

    /// Returns the total size of incomplete bodies in bytes.
    #[cfg(test)]
    pub fn used_bytes(&self) -> u64 {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).total
    }
}

impl BudgetState {
    fn remove(&mut self, id: u64) {
        let Some(BodyUsage { address, bytes, .. }) = self.bodies.remove(&id) else { return };
        self.total -= bytes;
        if let Some(sum) = self.addresses.get_mut(&address) {
            *sum -= bytes;
            if *sum == 0 {
                self.addresses.remove(&address);
            }
        }
    }

    /// Returns the largest body of the address with the highest usage.
    fn find_victim(&self) -> Option<u64> {
        let (address, _) = self.addresses.iter().max_by_key(|(_, sum)| **sum)?;
        let of_address = self.bodies.iter().filter(|(_, usage)| usage.address == *address);
        of_address.max_by_key(|(_, usage)| usage.bytes).map(|(id, _)| *id)
    }
}

/// The memory reserved for one body until it is complete or dropped.
pub struct MemoryReservation {
    budget: Budget,
    address: IpAddr,
    id: Option<u64>,
    signal: Arc<EvictionSignal>,
}

impl MemoryReservation {
    /// Adds a chunk of `bytes` bytes. Evicts a body if the limit is exceeded. Returns `false` if this body was evicted.
    pub fn add(&mut self, bytes: usize) -> bool {
        let Shared { limit, state } = &*self.budget.0;
        if *limit == 0 {
            return true;
        }
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX / 2) + CHUNK_OVERHEAD;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let id = *self.id.get_or_insert_with(|| {
            state.next_id += 1;
            state.next_id
        });
        let (address, signal) = (self.address, &self.signal);
        let usage = state.bodies.entry(id).or_insert_with(|| BodyUsage { address, bytes: 0, signal: signal.clone() });
        usage.bytes += bytes;
        state.total += bytes;
        *state.addresses.entry(address).or_default() += bytes;
        while state.total > *limit {
            let Some(victim) = state.find_victim() else { break };
            if let Some(usage) = state.bodies.get(&victim) {
                usage.signal.evicted.store(true, Ordering::Release);
                usage.signal.waker.wake();
            }
            state.remove(victim);
        }
        !self.signal.evicted.load(Ordering::Acquire)
    }

    /// Whether this body was evicted. Wakes the task of `cx` when that changes.
    pub fn is_evicted(&self, cx: &Context<'_>) -> bool {
        if self.id.is_none() {
            return false;
        }
        self.signal.waker.register(cx.waker());
        self.signal.evicted.load(Ordering::Acquire)
    }

    /// Releases the reservation because the body is complete or has failed.
    pub fn release(&mut self) {
        if let Some(id) = self.id.take() {
            self.budget.0.state.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        }
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker;

    use super::*;

    fn address(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    fn is_evicted(reservation: &MemoryReservation) -> bool {
        reservation.is_evicted(&Context::from_waker(&noop_waker()))
    }

    #[test]
    fn the_largest_body_of_the_address_with_the_highest_usage_is_evicted() {
        let budget = Budget::new(10_000);
        let [mut small, mut large, mut other] = [(1), (1), (2)].map(|n| budget.reserve(address(n)));
        assert!(small.add(2_000) && large.add(3_000) && other.add(4_000));
        // The newcomer and address 2 use less than address 1, so they are not affected.
        let mut newcomer = budget.reserve(address(3));
        assert!(newcomer.add(1_000));
        assert_eq!([&small, &large, &other, &newcomer].map(is_evicted), [false, true, false, false]);
        assert!(budget.used_bytes() <= 10_000);
        drop((small, large, other, newcomer));
        assert_eq!(budget.used_bytes(), 0);
        assert!(budget.0.state.lock().unwrap().addresses.is_empty());
    }

    #[test]
    fn the_overhead_of_small_chunks_counts() {
        let budget = Budget::new(6_500);
        let mut reservation = budget.reserve(address(1));
        let taken = (0..1_000).take_while(|_| reservation.add(1)).count();
        assert_eq!(taken, 100);
    }

    #[test]
    fn a_complete_body_uses_no_memory() {
        let budget = Budget::new(1_000);
        let mut reservation = budget.reserve(address(1));
        assert!(reservation.add(500));
        reservation.release();
        assert_eq!(budget.used_bytes(), 0);
        assert!(budget.reserve(address(1)).add(800));
    }
}
