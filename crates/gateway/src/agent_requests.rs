//! Requests to agents that are sent in the stream of a call and wait for responses (revisions with a handshake).
//!
//! Invariants:
//! 1. The ID of a request is random and never reused. A response is accepted only once, and only in the session of its
//!    request.
//! 2. A request is pending until its response arrives or its [`AgentRequest`] is dropped. Both remove its entry.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::oneshot;
use waypost_core::Random;
use waypost_core::id::random_part;
use waypost_mcp_wire::strict::{Message, text_of};

use crate::session::Session;

/// The pending requests. All clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct AgentRequests(Arc<Mutex<HashMap<String, PendingRequest>>>);

#[derive(Debug)]
struct PendingRequest {
    /// The key of the session.
    session: String,
    sender: oneshot::Sender<Bytes>,
}

/// A future that resolves to the response to a request.
#[derive(Debug)]
pub(crate) struct AgentRequest {
    requests: AgentRequests,
    id: String,
    receiver: oneshot::Receiver<Bytes>,
}

impl AgentRequests {
    /// Registers a request in a session. Await the returned [`AgentRequest`] for the response.
    pub(crate) fn begin(&self, session: &Session, random: &dyn Random) -> AgentRequest {
        let id = format!("wp-{}", random_part(random));
        let (sender, receiver) = oneshot::channel();
        self.pending().insert(id.clone(), PendingRequest { session: session.key.clone(), sender });
        AgentRequest { requests: self.clone(), id, receiver }
    }

    /// Delivers a response to its pending request. If the session has no such request, the response is dropped.
    pub(crate) fn respond(&self, session: &Session, response: &Message<'_>) {
        let Some(id) = text_of(response.raw_id) else { return };
        let mut pending = self.pending();
        if pending.get(id.as_ref()).is_some_and(|request| request.session == session.key)
            && let Some(request) = pending.remove(id.as_ref())
        {
            // Fails if the call has just ended.
            let _ = request.sender.send(Bytes::copy_from_slice(response.text.as_bytes()));
        }
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<String, PendingRequest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AgentRequest {
    /// Returns the ID of the request as JSON text.
    pub(crate) fn raw_id(&self) -> String {
        format!("\"{}\"", self.id)
    }
}

impl Future for AgentRequest {
    /// The response as received.
    type Output = Bytes;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Bytes> {
        match Pin::new(&mut self.receiver).poll(context) {
            Poll::Ready(Ok(response)) => Poll::Ready(response),
            // The sender is dropped only when this request is.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for AgentRequest {
    fn drop(&mut self) {
        self.requests.pending().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use waypost_core::caller::Ctx;
    use waypost_core::random::SeededRandom;

    use super::*;
    use crate::GatewayAddress;

    #[tokio::test]
    async fn a_response_is_accepted_once_and_in_its_session_only() {
        let initialize = br#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#;
        let session =
            || Session::new(&GatewayAddress::default(), &Message::read(initialize).unwrap(), &Ctx::operator());
        let (own, other) = (session(), session());
        let (requests, random) = (AgentRequests::default(), SeededRandom::new(1));
        let mut request = requests.begin(&own, &random);
        let text = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#, request.raw_id());
        let response = Message::read(text.as_bytes()).unwrap();
        let unknown = Message::read(br#"{"jsonrpc":"2.0","id":1,"result":{}}"#).unwrap();
        requests.respond(&other, &response);
        requests.respond(&own, &unknown);
        assert!(futures::poll!(&mut request).is_pending());
        requests.respond(&own, &response);
        requests.respond(&own, &response);
        assert_eq!((&mut request).await, text);
        drop(request);
        let request = requests.begin(&own, &random);
        assert_eq!(requests.pending().len(), 1);
        drop(request);
        assert!(requests.pending().is_empty());
    }
}
