//! Limits on concurrent requests, in total and per organisation, with a bounded queue.
//!
//! 1. At most [`SlotLimits::total`] slots are in use, and at most [`SlotLimits::per_organization`] by an organisation.
//! 2. A request without a free slot waits. The requests of an organisation are served in order. At most
//!    [`SlotLimits::per_organization`] of them are in the queue that all organisations share, so that requests of other
//!    organisations overtake the rest.
//! 3. A request is rejected if too many are waiting, or if it has waited too long.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use waypost_core::id::OrganizationId;
use waypost_core::{Code, Error, Result};

/// The limits of [`Slots`] in this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SlotLimits {
    /// The maximum number of slots in use.
    pub total: usize,
    /// The maximum number of slots in use by an organisation.
    pub per_organization: usize,
    /// The maximum number of waiting requests.
    pub waiting: usize,
    /// The maximum number of waiting requests of an organisation.
    pub waiting_per_organization: usize,
    /// The maximum time that a request waits.
    pub max_wait: Duration,
}

/// Slots for requests in progress. Cheap to clone; clones share the same slots.
#[derive(Debug, Clone)]
pub(crate) struct Slots(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: SlotLimits,
    free: Arc<Semaphore>,
    requests: Mutex<RequestCounts>,
}

/// The numbers of requests that are waiting or have a slot.
#[derive(Debug, Default)]
struct RequestCounts {
    total: usize,
    organizations: HashMap<OrganizationId, Organization>,
}

#[derive(Debug)]
struct Organization {
    requests: usize,
    free: Arc<Semaphore>,
}

impl Slots {
    pub(crate) fn new(limits: SlotLimits) -> Self {
        Self(Arc::new(Inner { limits, free: Arc::new(Semaphore::new(limits.total)), requests: Mutex::default() }))
    }

    /// Waits for a slot and holds it until the returned value is dropped.
    ///
    /// # Errors
    /// `rate_limited` with `message` if too many requests are waiting, or no slot becomes free in time.
    pub(crate) async fn acquire(&self, organization: &OrganizationId, message: &str) -> Result<Slot> {
        let rejection = || Error::new(Code::RateLimited, message).with("retry_after_seconds", 1);
        let (counted, own) = self.count_request(organization).ok_or_else(rejection)?;
        let permits = async {
            let own = own.acquire_owned().await.map_err(Error::internal)?;
            let shared = Arc::clone(&self.0.free).acquire_owned().await.map_err(Error::internal)?;
            Ok::<_, Error>([own, shared])
        };
        let permits = tokio::time::timeout(self.0.limits.max_wait, permits).await.map_err(|_| rejection())??;
        Ok(Slot { _permits: permits, _counted: counted })
    }

    /// Counts a request and returns the slots of its organisation. Returns `None` if too many requests are waiting.
    fn count_request(&self, organization: &OrganizationId) -> Option<(CountedRequest, Arc<Semaphore>)> {
        let limits = &self.0.limits;
        let mut requests = self.0.requests();
        let own = requests.organizations.get(organization).map_or(0, |own| own.requests);
        if requests.total >= limits.total + limits.waiting
            || own >= limits.per_organization + limits.waiting_per_organization
        {
            return None;
        }
        requests.total += 1;
        let own = requests
            .organizations
            .entry(organization.clone())
            .or_insert_with(|| Organization { requests: 0, free: Arc::new(Semaphore::new(limits.per_organization)) });
        own.requests += 1;
        let free = Arc::clone(&own.free);
        Some((CountedRequest { slots: self.clone(), organization: organization.clone() }, free))
    }
}

impl Inner {
    fn requests(&self) -> MutexGuard<'_, RequestCounts> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A slot in use.
#[derive(Debug)]
pub(crate) struct Slot {
    _permits: [OwnedSemaphorePermit; 2],
    _counted: CountedRequest,
}

/// Counts a request until it is dropped.
#[derive(Debug)]
struct CountedRequest {
    slots: Slots,
    organization: OrganizationId,
}

impl Drop for CountedRequest {
    fn drop(&mut self) {
        let mut requests = self.slots.0.requests();
        requests.total -= 1;
        // Removed at 0, so that the map does not grow beyond the number of requests.
        match requests.organizations.get_mut(&self.organization) {
            Some(own) if own.requests > 1 => own.requests -= 1,
            _ => {
                requests.organizations.remove(&self.organization);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::FutureExt;

    use super::*;

    fn organization(n: usize) -> OrganizationId {
        OrganizationId::from_store(format!("org_{n}"))
    }

    fn slots(waiting: usize, waiting_per_organization: usize) -> Slots {
        let max_wait = Duration::from_secs(30);
        Slots::new(SlotLimits { total: 3, per_organization: 2, waiting, waiting_per_organization, max_wait })
    }

    #[tokio::test]
    async fn without_a_queue_slots_are_limited_and_released() {
        let slots = slots(0, 0);
        let acquire = async |n: usize| slots.acquire(&organization(n), "Too many.").await;
        let (first, _second) = (acquire(0).await.unwrap(), acquire(0).await.unwrap());
        assert_eq!(acquire(0).await.unwrap_err().code, Code::RateLimited, "the organisation has two");
        let third = acquire(1).await.unwrap();
        assert_eq!(acquire(2).await.unwrap_err().code, Code::RateLimited, "there are three in total");
        drop(first);
        let _fourth = acquire(0).await.unwrap();
        drop(third);
        assert_eq!(slots.0.requests().organizations.len(), 1);
    }

    #[tokio::test]
    async fn requests_wait_in_order_and_do_not_block_other_organisations() {
        let slots = slots(3, 2);
        let acquire = |n: usize| {
            let slots = slots.clone();
            async move { slots.acquire(&organization(n), "Too many.").await }
        };
        let (first, second) = (acquire(0).await.unwrap(), acquire(0).await.unwrap());
        let (mut third, mut fourth) = (pin!(acquire(0)), pin!(acquire(0)));
        assert!(third.as_mut().now_or_never().is_none() && fourth.as_mut().now_or_never().is_none());
        assert_eq!(acquire(0).await.unwrap_err().code, Code::RateLimited, "two wait");
        let _other = acquire(1).await.unwrap();
        drop(first);
        assert!(fourth.as_mut().now_or_never().is_none(), "the third request is served first");
        let third = third.await.unwrap();
        drop((second, third));
        let _fourth = fourth.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_stops_waiting_after_the_time_limit() {
        let slots = slots(3, 2);
        let own = organization(0);
        let held = [slots.acquire(&own, "Too many.").await.unwrap(), slots.acquire(&own, "Too many.").await.unwrap()];
        assert_eq!(slots.acquire(&own, "Too many.").await.unwrap_err().code, Code::RateLimited);
        drop(held);
        assert!(slots.0.requests().organizations.is_empty(), "the request that gave up is not counted");
        assert_eq!(slots.0.free.available_permits(), 3);
    }
}
