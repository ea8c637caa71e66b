//! Turns at work that costs much: a bounded queue with fairness between client addresses.
//!
//! 1. At most [`MAX_ACTIVE`] are at work. A turn ends when it is dropped, also if nobody waits for the result any more.
//! 2. Client addresses take turns: whoever has many waiting waits for themselves. A newcomer waits for one turn of each
//!    other client address at most.
//! 3. At most [`MAX_WAITING_PER_CLIENT`] of one client address wait, and [`MAX_WAITING`] in total. If the queue is full, the newest one of
//!    the client address with the most waiting is rejected, so a few client addresses cannot keep the others out.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use waypost_core::{Code, Error, Result};

/// Hashes at once: each takes 19 MiB.
pub(crate) const MAX_ACTIVE: usize = 2;
/// Waiting from one client address.
pub(crate) const MAX_WAITING_PER_CLIENT: usize = 8;
/// Waiting in total.
pub(crate) const MAX_WAITING: usize = 64;
/// When it is worth trying again.
const RETRY_SECONDS: u64 = 2;

/// The queue.
#[derive(Debug, Clone, Default)]
pub(crate) struct FairQueue(Arc<Mutex<Queue>>);

#[derive(Debug, Default)]
struct Queue {
    working: usize,
    /// Those who wait, by client address; the first address has the next turn. No address is without one who waits.
    waiting: VecDeque<(IpAddr, VecDeque<oneshot::Sender<Permit>>)>,
}

/// A turn. Dropping it lets the next one work.
#[derive(Debug)]
pub(crate) struct Permit(Option<FairQueue>);

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.end();
        }
    }
}

impl FairQueue {
    /// Waits for a turn of `client`, a network of [`crate::limits::network`].
    ///
    /// # Errors
    /// `rate_limited`, with `retry_after_seconds`, if too many wait.
    pub(crate) async fn take(&self, client: IpAddr) -> Result<Permit> {
        let waiter = {
            let mut queue = self.lock();
            if queue.working < MAX_ACTIVE {
                queue.working += 1;
                return Ok(Permit(Some(self.clone())));
            }
            queue.join(client)?
        };
        // The sender is dropped for one who is rejected while waiting.
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
                    queue.working -= 1;
                }
                next
            };
            let Some(next) = next else { return };
            // One who has gone gives the turn back.
            match next.send(Permit(Some(self.clone()))) {
                Ok(()) => return,
                Err(mut turn) => turn.0 = None,
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
        self.forget_gone();
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

    /// The next one to work: the oldest of the first client address, which goes to the end.
    fn next(&mut self) -> Option<oneshot::Sender<Permit>> {
        let (client, mut waiting) = self.waiting.pop_front()?;
        let next = waiting.pop_front();
        if !waiting.is_empty() {
            self.waiting.push_back((client, waiting));
        }
        next
    }

    /// Takes out who does not wait any more.
    fn forget_gone(&mut self) {
        for (_, waiting) in &mut self.waiting {
            waiting.retain(|waiter| !waiter.is_closed());
        }
        self.waiting.retain(|(_, waiting)| !waiting.is_empty());
    }
}

fn busy() -> Error {
    metrics::counter!("waypost_sign_in_rejected_total", "limit" => "queue").increment(1);
    let message = "Too many people are signing in at the moment. Try again in a few seconds.";
    Error::new(Code::RateLimited, message).with("retry_after_seconds", RETRY_SECONDS)
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    type Waiting = Pin<Box<dyn Future<Output = Result<Permit>>>>;

    fn client(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    /// Begins to wait.
    fn begin(turns: &FairQueue, n: u8) -> Waiting {
        let turns = turns.clone();
        let mut waiting: Waiting = Box::pin(async move { turns.take(client(n)).await });
        assert!(poll(&mut waiting).is_none());
        waiting
    }

    fn poll(waiting: &mut Waiting) -> Option<Result<Permit>> {
        match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }

    fn refused(turns: &FairQueue, n: u8) -> bool {
        let turns = turns.clone();
        let mut waiting: Waiting = Box::pin(async move { turns.take(client(n)).await });
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
        let turns = FairQueue::default();
        let first = turns.take(client(1)).await.unwrap();
        let _second = turns.take(client(1)).await.unwrap();
        let mut greedy: Vec<_> = (0..MAX_WAITING_PER_CLIENT).map(|_| begin(&turns, 1)).collect();
        assert!(refused(&turns, 1), "one client has its share of the queue");
        let mut other = begin(&turns, 2);
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
    async fn a_full_queue_rejects_who_has_the_most() {
        let turns = FairQueue::default();
        let _at_work = (turns.take(client(0)).await.unwrap(), turns.take(client(0)).await.unwrap());
        let clients = u8::try_from(MAX_WAITING / MAX_WAITING_PER_CLIENT).unwrap();
        let mut waiting: Vec<_> =
            (0..MAX_WAITING).map(|n| begin(&turns, 1 + u8::try_from(n).unwrap() % clients)).collect();
        assert_eq!(turns.waiting(), MAX_WAITING);
        let mut newcomer = begin(&turns, 200);
        assert_eq!(turns.waiting(), MAX_WAITING);
        let rejected = waiting.iter_mut().filter_map(poll).filter(Result::is_err).count();
        assert_eq!(rejected, 1);
        assert!(poll(&mut newcomer).is_none(), "it waits");
    }

    #[tokio::test]
    async fn nobody_takes_a_turn_along() {
        let turns = FairQueue::default();
        let at_work = (turns.take(client(1)).await.unwrap(), turns.take(client(1)).await.unwrap());
        let gone = begin(&turns, 1);
        let unread = begin(&turns, 2);
        let mut last = begin(&turns, 3);
        drop(gone);
        drop(at_work.0);
        // `unread` has been given the turn and goes without looking.
        drop(unread);
        assert!(poll(&mut last).is_some());
        drop(at_work.1);
        assert_eq!((turns.waiting(), turns.lock().working), (0, 0), "the turn of `last` ended with its result");
        let _two = (turns.take(client(1)).await.unwrap(), turns.take(client(2)).await.unwrap());
    }
}
