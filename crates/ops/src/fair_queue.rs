//! A bounded queue for expensive work, with fairness between client addresses.
//!
//! 1. At most [`MAX_ACTIVE`] permits are active. A permit is active until it is dropped, even if its request is
//!    cancelled before that.
//! 2. Permits are granted to client addresses in turn, so a client with many requests delays only itself. A new client
//!    waits for at most one permit of each other client address.
//! 3. At most [`MAX_WAITING_PER_CLIENT`] requests wait per client address, and [`MAX_WAITING`] in total. If the queue
//!    is full, the newest request of the client address with the most waiting requests is rejected, so a few clients
//!    cannot block the others.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use waypost_core::{Code, Error, Result};

/// The maximum number of active permits. A password hash uses 19 MiB.
pub(crate) const MAX_ACTIVE: usize = 2;
/// The maximum number of waiting requests per client address.
pub(crate) const MAX_WAITING_PER_CLIENT: usize = 8;
/// The maximum number of waiting requests in total.
pub(crate) const MAX_WAITING: usize = 64;
/// The `retry_after_seconds` of rejected requests.
const RETRY_SECONDS: u64 = 2;

/// The queue.
#[derive(Debug, Clone, Default)]
pub(crate) struct PermitQueue(Arc<Mutex<Queue>>);

#[derive(Debug, Default)]
struct Queue {
    active: usize,
    /// The waiting requests by client address. The first address is next. No address has an empty queue.
    waiting: VecDeque<(IpAddr, VecDeque<oneshot::Sender<Permit>>)>,
}

/// A permit to work. When it is dropped, the next request gets it.
#[derive(Debug)]
pub(crate) struct Permit(Option<PermitQueue>);

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(queue) = self.0.take() {
            queue.end();
        }
    }
}

impl PermitQueue {
    /// Waits for a permit for `client`, a network from [`crate::limits::network`].
    ///
    /// # Errors
    /// `rate_limited`, with `retry_after_seconds`, if too many requests wait.
    pub(crate) async fn acquire(&self, client: IpAddr) -> Result<Permit> {
        let waiter = {
            let mut queue = self.lock();
            if queue.active < MAX_ACTIVE {
                queue.active += 1;
                return Ok(Permit(Some(self.clone())));
            }
            queue.join(client)?
        };
        // The sender is dropped if the request is rejected while it waits.
        waiter.await.map_err(|_| busy())
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        loop {
            let next = {
                let mut queue = self.lock();
                let next = queue.next();
                if next.is_none() {
                    queue.active -= 1;
                }
                next
            };
            let Some(next) = next else { return };
            // If the request was cancelled, `send` returns the permit. It is disarmed, and the next request gets one.
            match next.send(Permit(Some(self.clone()))) {
                Ok(()) => return,
                Err(mut permit) => permit.0 = None,
            }
        }
    }

    #[cfg(test)]
    fn waiting(&self) -> usize {
        self.lock().waiting.iter().map(|(_, waiting)| waiting.len()).sum()
    }
}

impl Queue {
    fn join(&mut self, client: IpAddr) -> Result<oneshot::Receiver<Permit>> {
        self.remove_cancelled();
        let own = self.waiting.iter().position(|(address, _)| *address == client);
        let count = own.map_or(0, |own| self.waiting[own].1.len());
        if count >= MAX_WAITING_PER_CLIENT {
            return Err(busy());
        }
        if self.waiting.iter().map(|(_, waiting)| waiting.len()).sum::<usize>() >= MAX_WAITING {
            let most = self.waiting.iter_mut().max_by_key(|(_, waiting)| waiting.len());
            let Some((_, most)) = most.filter(|(_, waiting)| waiting.len() > count + 1) else { return Err(busy()) };
            most.pop_back();
        }
        let (sender, receiver) = oneshot::channel();
        match own {
            Some(own) => self.waiting[own].1.push_back(sender),
            None => self.waiting.push_back((client, VecDeque::from([sender]))),
        }
        Ok(receiver)
    }

    /// Removes the next request: the oldest one of the first client address, which moves to the end.
    fn next(&mut self) -> Option<oneshot::Sender<Permit>> {
        let (client, mut waiting) = self.waiting.pop_front()?;
        let next = waiting.pop_front();
        if !waiting.is_empty() {
            self.waiting.push_back((client, waiting));
        }
        next
    }

    /// Removes cancelled requests.
    fn remove_cancelled(&mut self) {
        for (_, waiting) in &mut self.waiting {
            waiting.retain(|waiter| !waiter.is_closed());
        }
        self.waiting.retain(|(_, waiting)| !waiting.is_empty());
    }
}

fn busy() -> Error {
    metrics::counter!("waypost_sign_in_rejected_total", "limit" => "queue").increment(1);
    let message = "Too many users are signing in at the moment. Try again in a few seconds.";
    Error::new(Code::RateLimited, message).with("retry_after_seconds", RETRY_SECONDS)
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    type PendingPermit = Pin<Box<dyn Future<Output = Result<Permit>>>>;

    fn client(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    /// Starts waiting for a permit.
    fn begin(queue: &PermitQueue, n: u8) -> PendingPermit {
        let queue = queue.clone();
        let mut waiting: PendingPermit = Box::pin(async move { queue.acquire(client(n)).await });
        assert!(poll(&mut waiting).is_none());
        waiting
    }

    fn poll(waiting: &mut PendingPermit) -> Option<Result<Permit>> {
        match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }

    fn is_rejected(queue: &PermitQueue, n: u8) -> bool {
        let queue = queue.clone();
        let mut waiting: PendingPermit = Box::pin(async move { queue.acquire(client(n)).await });
        match poll(&mut waiting) {
            Some(Err(error)) => {
                assert_eq!((error.code, &error.details["retry_after_seconds"]), (Code::RateLimited, &2.into()));
                true
            }
            _ => false,
        }
    }

    #[tokio::test]
    async fn clients_take_turns() {
        let queue = PermitQueue::default();
        let first = queue.acquire(client(1)).await.unwrap();
        let _second = queue.acquire(client(1)).await.unwrap();
        let mut greedy: Vec<_> = (0..MAX_WAITING_PER_CLIENT).map(|_| begin(&queue, 1)).collect();
        assert!(is_rejected(&queue, 1), "one client cannot exceed its share of the queue");
        let mut other = begin(&queue, 2);
        drop(first);
        let second = poll(&mut greedy[0]).unwrap().unwrap();
        assert!(poll(&mut other).is_none());
        drop(second);
        assert!(poll(&mut greedy[1]).is_none(), "the other client comes first");
        let third = poll(&mut other).unwrap().unwrap();
        drop(third);
        assert!(poll(&mut greedy[1]).is_some());
    }

    #[tokio::test]
    async fn a_full_queue_rejects_the_client_with_the_most_requests() {
        let queue = PermitQueue::default();
        let _at_work = (queue.acquire(client(0)).await.unwrap(), queue.acquire(client(0)).await.unwrap());
        let clients = u8::try_from(MAX_WAITING / MAX_WAITING_PER_CLIENT).unwrap();
        let mut waiting: Vec<_> =
            (0..MAX_WAITING).map(|n| begin(&queue, 1 + u8::try_from(n).unwrap() % clients)).collect();
        assert_eq!(queue.waiting(), MAX_WAITING);
        let mut newcomer = begin(&queue, 200);
        assert_eq!(queue.waiting(), MAX_WAITING);
        let rejected = waiting.iter_mut().filter_map(poll).filter(Result::is_err).count();
        assert_eq!(rejected, 1);
        assert!(poll(&mut newcomer).is_none(), "it waits");
    }

    #[tokio::test]
    async fn cancelled_requests_return_their_permits() {
        let queue = PermitQueue::default();
        let at_work = (queue.acquire(client(1)).await.unwrap(), queue.acquire(client(1)).await.unwrap());
        let gone = begin(&queue, 1);
        let unread = begin(&queue, 2);
        let mut last = begin(&queue, 3);
        drop(gone);
        drop(at_work.0);
        // `unread` has been granted a permit and is cancelled before it is polled.
        drop(unread);
        assert!(poll(&mut last).is_some());
        drop(at_work.1);
        assert_eq!((queue.waiting(), queue.lock().active), (0, 0), "the permit of `last` ended with its result");
        let _two = (queue.acquire(client(1)).await.unwrap(), queue.acquire(client(2)).await.unwrap());
    }
}
