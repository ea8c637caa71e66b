//! Limits of work that takes place at the same time, in total and per organisation.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use waypost_core::id::OrganizationId;
use waypost_core::{Code, Error, Result};

/// The limits of [`Slots`] in this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SlotLimits {
    /// The maximum number of slots in use.
    pub total: usize,
    /// The maximum number of slots in use by an organisation.
    pub per_organization: usize,
}

/// Counts work in progress. Cheap to clone; clones share the same counts.
#[derive(Debug, Clone)]
pub(crate) struct Slots(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: SlotLimits,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    total: usize,
    organizations: HashMap<OrganizationId, usize>,
}

impl Slots {
    pub(crate) fn new(limits: SlotLimits) -> Self {
        Self(Arc::new(Inner { limits, used: Mutex::default() }))
    }

    /// Takes a slot until the returned value is dropped.
    ///
    /// # Errors
    /// `rate_limited` with `message` if a limit is reached.
    pub(crate) fn acquire(&self, organization: &OrganizationId, message: &str) -> Result<Slot> {
        let mut used = self.0.used();
        let own = used.organizations.get(organization).copied().unwrap_or(0);
        if used.total >= self.0.limits.total || own >= self.0.limits.per_organization {
            return Err(Error::new(Code::RateLimited, message).with("retry_after_seconds", 1));
        }
        used.total += 1;
        used.organizations.insert(organization.clone(), own + 1);
        Ok(Slot { slots: self.clone(), organization: organization.clone() })
    }
}

impl Inner {
    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A slot in use.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Slots,
    organization: OrganizationId,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut used = self.slots.0.used();
        used.total -= 1;
        // Removed at 0, so that the map does not grow beyond the number of slots.
        match used.organizations.get_mut(&self.organization) {
            Some(own) if *own > 1 => *own -= 1,
            _ => {
                used.organizations.remove(&self.organization);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_limited_and_released() {
        let slots = Slots::new(SlotLimits { total: 3, per_organization: 2 });
        let ids: Vec<_> = (0..3).map(|n| OrganizationId::from_store(format!("org_{n}"))).collect();
        let acquire = |n: usize| slots.acquire(&ids[n], "Too many.");
        let (first, _second) = (acquire(0).unwrap(), acquire(0).unwrap());
        assert_eq!(acquire(0).unwrap_err().code, Code::RateLimited, "the organisation has two");
        let third = acquire(1).unwrap();
        assert_eq!(acquire(2).unwrap_err().code, Code::RateLimited, "there are three in total");
        drop(first);
        let _fourth = acquire(0).unwrap();
        drop(third);
        assert_eq!(slots.0.used().organizations.len(), 1);
    }
}
