//! The memory for large messages of servers in one process, which all organisations share.
//!
//! Invariants:
//! 1. A message of more than [`UNCOUNTED_BYTES`] is counted while it is being read, and until its last copy is dropped.
//!    Smaller messages are not counted, so they are never rejected.
//! 2. An owner without memory gets some as long as enough is free. It gets more only if at least as much memory as it
//!    then has remains free for others. So, apart from its first message, one owner uses at most half of the memory,
//!    and the next one half of the rest.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// The maximum size in bytes of a message that is not counted.
pub const UNCOUNTED_BYTES: usize = 64 * 1024;
/// The number of bytes in a unit.
const UNIT: usize = 1024;

/// The memory of a process. All clones share it.
#[derive(Debug, Clone)]
pub struct MessageMemory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The total memory in units, like all counts.
    total: usize,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    used: usize,
    owners: HashMap<Arc<str>, usize>,
}

/// The error if there is not enough memory for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many large messages are in memory")]
pub struct OutOfMemory;

impl MessageMemory {
    /// Creates the memory of a process.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Shared { total: bytes / UNIT, counts: Mutex::default() }))
    }

    /// Returns the share of an owner, which is identified by a text such as the ID of an organisation.
    #[must_use]
    pub fn share(&self, owner: &str) -> MemoryShare {
        MemoryShare(Some((self.clone(), owner.into())))
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves more units for a message of an owner, which has `held` units already. Returns `false` if there is not enough
    /// memory.
    fn take(&self, owner: &Arc<str>, held: usize, units: usize) -> bool {
        let mut counts = self.counts();
        let own = counts.owners.get(owner).copied().unwrap_or_default();
        let Some(left) = self.0.total.saturating_sub(counts.used).checked_sub(units) else { return false };
        // The first message of an owner can be read in any number of steps.
        if own > held && own + units > left {
            return false;
        }
        counts.used += units;
        counts.owners.insert(owner.clone(), own + units);
        true
    }

    fn release(&self, owner: &Arc<str>, units: usize) {
        let mut guard = self.counts();
        let counts = &mut *guard;
        counts.used = counts.used.saturating_sub(units);
        match counts.owners.get_mut(owner) {
            Some(own) if *own > units => *own -= units,
            // Owners without units are removed, so that there are never more owners than units.
            _ => {
                counts.owners.remove(owner);
            }
        }
    }
}

/// The share of an owner. The default share is not limited.
#[derive(Debug, Clone, Default)]
pub struct MemoryShare(Option<(MessageMemory, Arc<str>)>);

impl MemoryShare {
    /// Creates an empty reservation.
    #[must_use]
    pub fn reserve(&self) -> Reservation {
        Reservation { share: self.clone(), units: 0 }
    }
}

/// Memory that is counted until this value is dropped.
#[derive(Debug)]
pub struct Reservation {
    share: MemoryShare,
    units: usize,
}

impl Reservation {
    /// Changes the reservation to the memory for a message of this size.
    ///
    /// # Errors
    /// If there is not enough memory. The reservation then remains unchanged.
    pub fn set(&mut self, bytes: usize) -> Result<(), OutOfMemory> {
        let Some((memory, owner)) = &self.share.0 else { return Ok(()) };
        let units = if bytes > UNCOUNTED_BYTES { bytes.div_ceil(UNIT) } else { 0 };
        if units > self.units && !memory.take(owner, self.units, units - self.units) {
            return Err(OutOfMemory);
        }
        if units < self.units {
            memory.release(owner, self.units - units);
        }
        self.units = units;
        Ok(())
    }

    /// Returns a message that holds this reservation until its last clone is dropped. Afterwards, this reservation is
    /// empty.
    ///
    /// # Errors
    /// If there is not enough memory for the message.
    pub fn hold(&mut self, message: Bytes) -> Result<Bytes, OutOfMemory> {
        self.set(message.len())?;
        let rest = self.share.reserve();
        let held = std::mem::replace(self, rest);
        Ok(if held.units == 0 { message } else { owned_with(message, held) })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some((memory, owner)) = self.share.0.as_ref().filter(|_| self.units > 0) {
            memory.release(owner, self.units);
        }
    }
}

/// Returns text that keeps the reservation of the message from which it was copied; `original` is this message or a
/// part of it. Their memory is counted only once, so up to twice as much can be in use.
#[must_use]
pub fn keep(copy: Bytes, original: impl Send + 'static) -> Bytes {
    if copy.len() > UNCOUNTED_BYTES { owned_with(copy, original) } else { copy }
}

/// Returns text that owns `other`, which is dropped together with its last clone.
fn owned_with<T: Send + 'static>(text: Bytes, other: T) -> Bytes {
    struct Owner<T> {
        text: Bytes,
        _other: T,
    }
    impl<T> AsRef<[u8]> for Owner<T> {
        fn as_ref(&self) -> &[u8] {
            &self.text
        }
    }
    Bytes::from_owner(Owner { text, _other: other })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KIB: usize = 1024;

    fn message(kib: usize) -> Bytes {
        vec![0; kib * KIB].into()
    }

    #[test]
    fn the_first_message_of_an_owner_is_read_in_steps() {
        let memory = MessageMemory::new(1_000 * 1024);
        let mut first = memory.share("one").reserve();
        for kib in (100..=1_000).step_by(100) {
            first.set(kib * 1024).unwrap();
        }
        assert!(first.set(1_001 * 1024).is_err());
        assert!(memory.share("one").reserve().set(100 * 1024).is_err());
    }

    #[test]
    fn a_message_is_counted_until_its_last_copy_is_dropped() {
        let memory = MessageMemory::new(1_000 * KIB);
        let mut reading = memory.share("org_1").reserve();
        reading.set(300 * KIB).unwrap();
        assert_eq!(memory.counts().used, 300);
        let text = message(400);
        let address = text.as_ptr();
        let held = reading.hold(text).unwrap();
        assert_eq!((held.as_ptr(), held.len(), memory.counts().used), (address, 400 * KIB, 400));
        reading.set(50 * KIB).unwrap();
        assert_eq!(reading.set(101 * KIB), Err(OutOfMemory), "it would be more than half");
        let part = held.slice(..1);
        drop((held, reading));
        assert_eq!(memory.counts().used, 400);
        let copy = keep(message(100), part);
        assert_eq!(memory.counts().used, 400);
        drop(copy);
        let counts = memory.counts();
        assert_eq!((counts.used, counts.owners.len()), (0, 0));
    }

    #[test]
    fn small_messages_are_not_counted() {
        let memory = MessageMemory::new(0);
        let mut reading = memory.share("org_1").reserve();
        assert_eq!(reading.hold(message(64)).unwrap().len(), 64 * KIB);
        assert_eq!(reading.hold(message(65)), Err(OutOfMemory));
        assert!(MemoryShare::default().reserve().hold(message(65)).is_ok());
    }

    #[test]
    fn an_owner_uses_at_most_half_and_the_next_one_half_of_the_rest() {
        let memory = MessageMemory::new(1_600 * KIB);
        let hold = |owner: &str| memory.share(owner).reserve().hold(message(100));
        let mut held = Vec::new();
        for (owner, number) in [("org_1", 8), ("org_2", 4), ("org_3", 2)] {
            held.extend((0..number).map(|_| hold(owner).unwrap()));
            assert_eq!(hold(owner), Err(OutOfMemory), "{owner}");
        }
        assert!(hold("org_4").is_ok(), "others are not locked out");
    }

    proptest! {
        #[test]
        fn counts_are_those_of_what_is_held(steps in prop::collection::vec((0_usize..3, 0_usize..300, prop::bool::ANY), 0..60)) {
            let memory = MessageMemory::new(1_000 * KIB);
            let mut readers: Vec<_> = ["a", "b", "c"].iter().map(|owner| memory.share(owner).reserve()).collect();
            let mut held: Vec<Bytes> = Vec::new();
            for (owner, kib, holds) in steps {
                if holds {
                    held.extend(readers[owner].hold(message(kib)));
                } else if readers[owner].set(kib * KIB).is_err() && held.len() > 1 {
                    held.swap_remove(0);
                }
                let large = held.iter().map(|text| text.len() / KIB).filter(|kib| *kib > 64);
                let used = large.sum::<usize>() + readers.iter().map(|reader| reader.units).sum::<usize>();
                let counts = memory.counts();
                prop_assert_eq!((counts.used, counts.owners.values().sum::<usize>()), (used, used));
                prop_assert!(used <= 1_000);
            }
            drop((readers, held));
            prop_assert!(memory.counts().owners.is_empty());
        }
    }
}
