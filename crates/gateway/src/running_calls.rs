//! The running calls of sessions, which their agents can cancel with `notifications/cancelled` (2025-11-25, "Cancellation").
//!
//! Invariants:
//! 1. A call is cancelled only by a notification in its own session, which belongs to one agent, with exactly the ID of its
//!    request.
//! 2. A call is listed as long as its [`RunningCall`] exists. The number of listed calls is bounded by their slots
//!    ([`crate::slots::MAX_CALLS`]).
//! 3. If an agent uses the same ID for several calls at a time, all of them are cancelled. A call that ends removes
//!    only itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::session::Session;

/// The running calls. All clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunningCalls(Arc<Mutex<Calls>>);

/// The calls by the keys of their sessions.
type Calls = HashMap<String, Vec<Arc<Call>>>;

#[derive(Debug)]
struct Call {
    /// The ID of the request as JSON text.
    raw_id: String,
    cancelled: CancellationToken,
}

/// A call that is listed until this value is dropped.
#[derive(Debug)]
pub(crate) struct RunningCall {
    call: Arc<Call>,
    /// The list that contains the call, and the key of its session. `None` for a call without a session.
    listed: Option<(RunningCalls, String)>,
}

impl RunningCalls {
    /// Begins a call. `raw_id` is the ID of its request as JSON text. Without a session, the call cannot be cancelled:
    /// nothing else identifies the client to which an ID belongs.
    pub(crate) fn begin(&self, session: Option<&Session>, raw_id: &str) -> RunningCall {
        let call = Arc::new(Call { raw_id: raw_id.to_owned(), cancelled: CancellationToken::new() });
        let listed = session.map(|session| {
            self.lock().entry(session.key.clone()).or_default().push(Arc::clone(&call));
            (self.clone(), session.key.clone())
        });
        RunningCall { call, listed }
    }

    /// Cancels a call of a session by the ID of its request (JSON text). An unknown ID is ignored.
    pub(crate) fn cancel(&self, session: &Session, raw_id: &str) {
        let calls = self.lock();
        let calls = calls.get(&session.key).into_iter().flatten();
        calls.filter(|call| call.raw_id == raw_id).for_each(|call| call.cancelled.cancel());
    }

    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RunningCall {
    /// Runs a part of the call, and returns its result. Drops the work and returns `None` if the agent cancels the
    /// call.
    pub(crate) async fn run<F: Future>(&self, work: F) -> Option<F::Output> {
        self.call.cancelled.run_until_cancelled(work).await
    }
}

impl Drop for RunningCall {
    fn drop(&mut self) {
        let Some((running, session)) = &self.listed else { return };
        let mut sessions = running.lock();
        if let Some(calls) = sessions.get_mut(session) {
            calls.retain(|call| !Arc::ptr_eq(call, &self.call));
            if calls.is_empty() {
                sessions.remove(session);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::pin::pin;

    use waypost_core::caller::Ctx;
    use waypost_mcp_wire::strict::Message;

    use super::*;
    use crate::GatewayAddress;

    fn session() -> Session {
        let initialize = br#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#;
        Session::new(&GatewayAddress::default(), &Message::read(initialize).unwrap(), &Ctx::operator())
    }

    #[tokio::test]
    async fn a_call_is_cancelled_in_its_session_and_by_its_id_only() {
        let (own, other) = (session(), session());
        let running = RunningCalls::default();
        let call = running.begin(Some(&own), "1");
        let others = [(Some(&own), "\"1\""), (Some(&own), "2"), (Some(&other), "1"), (None, "1")];
        let others = others.map(|(session, id)| running.begin(session, id));
        {
            let mut work = pin!(call.run(pending::<()>()));
            for (session, id) in [(&own, "3"), (&own, "01"), (&own, "\"\\u0031\""), (&other, "2"), (&other, "")] {
                running.cancel(session, id);
                assert!(futures::poll!(&mut work).is_pending(), "{id}");
            }
            running.cancel(&own, "1");
            assert_eq!(work.await, None);
        }
        assert_eq!(call.run(ready(())).await, None, "nothing else of it begins");
        for other in &others {
            assert_eq!(other.run(ready(7)).await, Some(7), "{other:?}");
        }
        drop((call, others));
        assert!(running.lock().is_empty());
        running.cancel(&own, "1");
        assert_eq!(running.begin(Some(&own), "1").run(ready(7)).await, Some(7), "a later call with this ID");
    }

    #[tokio::test]
    async fn a_call_that_ends_does_not_remove_others_with_the_same_id() {
        let own = session();
        let running = RunningCalls::default();
        // The calls that began first and last end.
        let mut calls: Vec<_> = (0..4).map(|_| running.begin(Some(&own), "1")).collect();
        drop((calls.remove(0), calls.pop()));
        running.cancel(&own, "1");
        for call in &calls {
            assert_eq!(call.run(ready(())).await, None);
        }
        drop(calls);
        assert!(running.lock().is_empty());
    }
}
