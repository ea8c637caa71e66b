//! The memory that incomplete request bodies may hold together.
//!
//! A limit that rejected whoever comes last would let a few clients with large bodies lock out everybody else. So the
//! body that has to go is the largest one of the client address that holds the most: a small request always finds room.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Context;

use futures::task::AtomicWaker;

/// Bytes that a piece of a body takes besides its data: chunks of a single byte cost the server many times that.
const PIECE: u64 = 64;

/// A limit on the bytes of all incomplete bodies together.
#[derive(Clone)]
pub struct Budget(Arc<Shared>);

struct Shared {
    /// In bytes; 0 is no limit.
    limit: u64,
    held: Mutex<BudgetState>,
}

#[derive(Default)]
struct BudgetState {
    total: u64,
    next: u64,
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
    /// At most `limit` bytes; 0 is no limit.
    pub fn new(limit: u64) -> Self {
        Self(Arc::new(Shared { limit, held: Mutex::default() }))
    }

    /// A further body, which holds nothing yet. `address` is the client's, or its network.
    pub fn reserve(&self, address: IpAddr) -> MemoryReservation {
        MemoryReservation { budget: self.clone(), address, id: None, signal: Arc::default() }
    }

    /// The bytes that incomplete bodies hold.
    #[cfg(test)]
    pub fn held(&self) -> u64 {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner).total
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

    /// The largest body of the address that holds the most.
    fn largest(&self) -> Option<u64> {
        let (address, _) = self.addresses.iter().max_by_key(|(_, sum)| **sum)?;
        let of_address = self.bodies.iter().filter(|(_, usage)| usage.address == *address);
        of_address.max_by_key(|(_, usage)| usage.bytes).map(|(id, _)| *id)
    }
}

/// What one body holds of the budget, until it is complete or dropped.
pub struct MemoryReservation {
    budget: Budget,
    address: IpAddr,
    id: Option<u64>,
    signal: Arc<EvictionSignal>,
}

impl MemoryReservation {
    /// Counts a piece of `bytes` bytes. Evicts the largest body if the limit is exceeded; returns `false` if that was
    /// this one.
    pub fn add(&mut self, bytes: usize) -> bool {
        let Shared { limit, held } = &*self.budget.0;
        if *limit == 0 {
            return true;
        }
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX / 2) + PIECE;
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        let id = *self.id.get_or_insert_with(|| {
            held.next += 1;
            held.next
        });
        let (address, signal) = (self.address, &self.signal);
        let usage = held.bodies.entry(id).or_insert_with(|| BodyUsage { address, bytes: 0, signal: signal.clone() });
        usage.bytes += bytes;
        held.total += bytes;
        *held.addresses.entry(address).or_default() += bytes;
        while held.total > *limit {
            let Some(victim) = held.largest() else { break };
            if let Some(usage) = held.bodies.get(&victim) {
                usage.signal.evicted.store(true, Ordering::Release);
                usage.signal.waker.wake();
            }
            held.remove(victim);
        }
        !self.signal.evicted.load(Ordering::Acquire)
    }

    /// Whether this body has to end. Wakes the task of `cx` when that changes.
    pub fn is_evicted(&self, cx: &Context<'_>) -> bool {
        if self.id.is_none() {
            return false;
        }
        self.signal.waker.register(cx.waker());
        self.signal.evicted.load(Ordering::Acquire)
    }

    /// Gives everything back: the body is complete, or has failed.
    pub fn release(&mut self) {
        if let Some(id) = self.id.take() {
            self.budget.0.held.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
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

    fn evicted(reservation: &MemoryReservation) -> bool {
        reservation.is_evicted(&Context::from_waker(&noop_waker()))
    }

    #[test]
    fn the_largest_body_of_the_largest_holder_goes_first() {
        let budget = Budget::new(10_000);
        let [mut small, mut large, mut other] = [(1), (1), (2)].map(|n| budget.reserve(address(n)));
        assert!(small.add(2_000) && large.add(3_000) && other.add(4_000));
        // The newcomer holds less than address 1 together, so it is not the one that goes, and neither is address 2.
        let mut newcomer = budget.reserve(address(3));
        assert!(newcomer.add(1_000));
        assert_eq!([&small, &large, &other, &newcomer].map(evicted), [false, true, false, false]);
        assert!(budget.held() <= 10_000);
        drop((small, large, other, newcomer));
        assert_eq!(budget.held(), 0);
        assert!(budget.0.held.lock().unwrap().addresses.is_empty());
    }

    #[test]
    fn pieces_of_one_byte_count_for_what_they_cost() {
        let budget = Budget::new(6_500);
        let mut reservation = budget.reserve(address(1));
        let taken = (0..1_000).take_while(|_| reservation.add(1)).count();
        assert_eq!(taken, 100);
    }

    #[test]
    fn a_complete_body_holds_nothing() {
        let budget = Budget::new(1_000);
        let mut reservation = budget.reserve(address(1));
        assert!(reservation.add(500));
        reservation.release();
        assert_eq!(budget.held(), 0);
        assert!(budget.reserve(address(1)).add(800));
    }
}
