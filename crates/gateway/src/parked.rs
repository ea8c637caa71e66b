//! Calls that a server with a handshake has interrupted to ask an agent that uses revision 2026-07-28 for input. The
//! agent gets `input_required`, and the call is parked here until the agent sends it again with its response.
//!
//! Invariants:
//! 1. A parked call is continued at most once, and only by the agent that made it: the key is in the sealed state of the request
//!    ([`crate::input_state`]), which is bound to agent, server and request.
//! 2. A parked call ends after [`INPUT_TIME`], even if no agent continues it. The number of parked calls is limited, in total, for
//!    each organisation and for each agent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio_util::task::AbortOnDropHandle;
use waypost_core::Random;
use waypost_core::id::{AgentId, OrganizationId, random_part};
use waypost_mcp_wire::rewrite::{Rewrite, quote};
use waypost_mcp_wire::strict::Message;
use waypost_ops::instances::exchange::{INPUT_TIME, Responder};

use crate::agent_call::Messages;
use crate::slots::{LimitReached, Slot, Slots};

/// The key of the only entry of `inputRequests`.
const INPUT_KEY: &str = "input";

/// The parked calls of this process. All clones share them.
#[derive(Clone)]
pub(crate) struct ParkedCalls {
    calls: Arc<Mutex<Calls>>,
    slots: Slots,
}

/// The calls by their keys.
type Calls = HashMap<String, Parked>;

struct Parked {
    call: ParkedCall,
    _slot: Slot,
    /// Removes the call after [`INPUT_TIME`].
    _expiry: AbortOnDropHandle<()>,
}

impl std::fmt::Debug for ParkedCalls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParkedCalls").finish_non_exhaustive()
    }
}

impl Default for ParkedCalls {
    fn default() -> Self {
        Self { calls: Arc::default(), slots: Slots::for_parked_calls() }
    }
}

/// A call whose server is waiting for a response.
pub(crate) struct ParkedCall {
    pub(crate) messages: Messages,
    pub(crate) responder: Responder,
    /// The ID of the call in the server's messages, as JSON text.
    pub(crate) call_id: String,
    /// The number of requests that the server has sent.
    pub(crate) count: usize,
    /// The request of the server.
    pub(crate) question: Bytes,
}

impl ParkedCall {
    /// Returns `inputRequests` with the request of the server, as JSON text.
    pub(crate) fn input_requests(&self) -> String {
        let request = Message::read(&self.question).ok();
        let method = request.as_ref().and_then(|request| request.method.as_deref()).unwrap_or_default();
        let params = request.as_ref().and_then(|request| request.params.raw);
        let params = params.map_or(String::new(), |params| format!(",\"params\":{params}"));
        format!("{{\"{INPUT_KEY}\":{{\"method\":{}{params}}}}}", quote(method))
    }

    /// Creates the response for the server from `inputResponses` (JSON text). Returns `None` if it is missing or
    /// ambiguous.
    pub(crate) fn response(&self, input_responses: Option<&str>) -> Option<Vec<u8>> {
        let responses: HashMap<String, &serde_json::value::RawValue> = serde_json::from_str(input_responses?).ok()?;
        let request = Message::read(&self.question).ok()?;
        let text = format!(r#"{{"jsonrpc":"2.0","id":0,"result":{}}}"#, responses.get(INPUT_KEY)?.get());
        let response = Message::read(text.as_bytes()).ok()?;
        let mut rewrite = Rewrite::new(&response);
        rewrite.set_id(request.raw_id?);
        Some(rewrite.finish())
    }
}

impl ParkedCalls {
    /// Parks a call of an agent of an organisation, and returns its key.
    ///
    /// # Errors
    /// The limit that is reached, if too many calls are parked.
    pub(crate) fn park(
        &self,
        (organization, agent): (&OrganizationId, &AgentId),
        call: ParkedCall,
        random: &dyn Random,
    ) -> Result<String, LimitReached> {
        let slot = self.slots.acquire(organization, agent)?;
        let key = random_part(random);
        let (calls, expired) = (Arc::clone(&self.calls), key.clone());
        let expiry = waypost_jobs::spawn("gateway-parked-call", async move {
            tokio::time::sleep(INPUT_TIME).await;
            lock(&calls).remove(&expired);
        });
        let parked = Parked { call, _slot: slot, _expiry: AbortOnDropHandle::new(expiry) };
        lock(&self.calls).insert(key.clone(), parked);
        Ok(key)
    }

    /// Removes and returns a parked call. Returns `None` if it has ended, or is parked in another process.
    pub(crate) fn take(&self, key: &str) -> Option<ParkedCall> {
        lock(&self.calls).remove(key).map(|parked| parked.call)
    }
}

fn lock(calls: &Mutex<Calls>) -> MutexGuard<'_, Calls> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}
