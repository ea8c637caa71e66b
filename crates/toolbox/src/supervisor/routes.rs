//! The open sessions of an instance, and the calls that use them.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::servers::{CallFailure, CallSlot, Messages, ServerSession};
use crate::reconcile::Key;

/// The sessions by key. Calls begin, and idle containers are closed, under the same lock, so no call reaches a
/// container that is about to be stopped because it is idle.
#[derive(Default)]
pub(super) struct Routes(Mutex<BTreeMap<Key, Route>>);

/// The session of a container.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) container: String,
    pub(super) session: Arc<dyn ServerSession>,
    pub(super) usage: Arc<Usage>,
    /// The version of the container's personal secrets.
    pub(super) personal_version: u64,
}

impl Routes {
    /// Begins a call. Returns `None` if there is no session with a container whose personal secrets have at least this
    /// version.
    pub(super) fn begin(&self, key: &Key, personal_version: u64) -> Option<(Arc<dyn ServerSession>, CallGuard)> {
        let routes = self.lock();
        let route = routes.get(key).filter(|route| route.personal_version >= personal_version)?;
        Some((Arc::clone(&route.session), route.usage.begin()))
    }

    /// Returns the session of a container without counting as a use: the container can still be stopped because it is
    /// idle.
    pub(super) fn find(&self, key: &Key) -> Option<Arc<dyn ServerSession>> {
        self.lock().get(key).map(|route| Arc::clone(&route.session))
    }

    /// Replaces all sessions.
    pub(super) fn replace(&self, routes: BTreeMap<Key, Route>) {
        *self.lock() = routes;
    }

    /// Closes the session of a container unless a call uses it. Returns whether the container is idle.
    pub(super) fn close_if_idle(&self, container: &str, usage: &Usage) -> bool {
        let mut routes = self.lock();
        let is_idle = usage.calls() == 0;
        if is_idle {
            routes.retain(|_, route| route.container != container);
        }
        is_idle
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Route>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The calls of a container.
pub(super) struct Usage {
    calls: watch::Sender<usize>,
    last_used: Mutex<Instant>,
}

impl Usage {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { calls: watch::Sender::new(0), last_used: Mutex::new(Instant::now()) })
    }

    fn begin(self: &Arc<Self>) -> CallGuard {
        self.calls.send_modify(|calls| *calls += 1);
        self.touch();
        CallGuard(Arc::clone(self))
    }

    fn touch(&self) {
        *self.last_used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Returns the number of running calls.
    pub(super) fn calls(&self) -> usize {
        *self.calls.borrow()
    }

    /// Returns the time of the last call.
    pub(super) fn last_used(&self) -> Instant {
        *self.last_used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no calls are running.
    pub(super) async fn idle(&self) {
        // The sender is in `self`, so this cannot fail.
        _ = self.calls.subscribe().wait_for(|calls| *calls == 0).await;
    }
}

/// A running call.
pub(super) struct CallGuard(Arc<Usage>);

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.0.touch();
        self.0.calls.send_modify(|calls| *calls -= 1);
    }
}

/// The messages of a call. The call counts as running until this is dropped.
pub(super) struct GuardedMessages {
    pub(super) messages: Messages,
    pub(super) _guard: CallGuard,
    pub(super) _slot: CallSlot,
}

impl Stream for GuardedMessages {
    type Item = Result<Bytes, CallFailure>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.messages.as_mut().poll_next(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::servers::{BoxFuture, CallOptions};
    use super::*;

    struct Silent;

    impl ServerSession for Silent {
        fn probe(&self) -> BoxFuture<'_, Result<Duration, String>> {
            Box::pin(std::future::pending())
        }
        fn list_tools(&self) -> BoxFuture<'_, Result<usize, String>> {
            Box::pin(std::future::pending())
        }
        fn call(&self, _: Bytes, _: CallOptions) -> BoxFuture<'_, Result<Messages, CallFailure>> {
            Box::pin(std::future::pending())
        }
        fn closed(&self) -> BoxFuture<'_, ()> {
            Box::pin(std::future::pending())
        }
    }

    /// A call that begins after a container was found idle keeps it open. A call that begins after the container was
    /// closed does not use it.
    #[test]
    fn a_container_that_a_call_uses_is_not_closed_as_idle() {
        let (routes, usage) = (Routes::default(), Usage::new());
        let route = Route {
            container: "con1".to_owned(),
            session: Arc::new(Silent),
            usage: Arc::clone(&usage),
            personal_version: 2,
        };
        routes.replace([(None, route)].into());
        assert!(routes.begin(&None, 3).is_none());
        let call = routes.begin(&None, 2).unwrap();
        assert!(!routes.close_if_idle("con1", &usage));
        assert_eq!(usage.calls(), 1);
        drop(call);
        assert!(routes.close_if_idle("con1", &usage));
        assert!(routes.begin(&None, 0).is_none());
    }
}
