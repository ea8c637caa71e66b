//! Requests that servers with a handshake send to the callers of their calls.
//!
//! Invariants:
//! 1. Only the caller of the call that caused a request gets it (a stream of Streamable HTTP belongs to one call; for
//!    other transports see [`super::attribution`]), and only if the caller has declared the capability.
//! 2. A request waits under a random ID that is never used twice. It accepts one response, for its own instance.
//! 3. A request waits as long as its call is running. If the call ends first, for whatever reason, the server gets an
//!    error.
//! 4. The number of requests of a call, and the time for which it waits for its caller, are limited.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::watch;
use tokio::time::Instant;
use waypost_mcp_wire::client_capabilities::ClientCapabilities;
use waypost_mcp_wire::relay::{Original, restore_response};
use waypost_mcp_wire::rewrite::{Member, Rewrite};
use waypost_mcp_wire::strict::Message;
use waypost_mcp_wire::{Envelope, INTERNAL_ERROR, INVALID_REQUEST, JsonRpcError, METHOD_NOT_FOUND};

use super::interface::Failure;
use super::session::Link;
use super::wire::{Wire, as_line};
use crate::supervisor::servers::{CallFailure, CallOptions, CallSlot};

/// The maximum number of requests of one call that wait at the same time.
const MAX_WAITING: usize = 16;
/// The maximum number of requests of one call.
const MAX_REQUESTS: usize = 32;
/// The time within which a caller must respond. The timeout of the gateway is shorter, and its error is more specific.
const INPUT_TIMEOUT: Duration = Duration::from_secs(330);
/// The minimum time that the server has to continue after the last response. The gateway ends a call earlier if it has
/// taken too long.
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(30);
/// The time in which a server must accept a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns the error, without a line feed, for a request from a server that is not passed on.
pub(super) fn rejection(request: &Envelope<'_>, code: i64, message: &str) -> Vec<u8> {
    JsonRpcError::new(code, message, request.id.clone()).to_json().to_string().into_bytes()
}

/// Whether a call can cause requests to its caller. Lists, and messages about the connection, cannot.
pub(super) fn can_ask(method: &str) -> bool {
    let is_list = method.ends_with("/list");
    !is_list && !matches!(method, "initialize" | "ping" | "logging/setLevel" | "server/discover")
}

/// The requests from servers that wait for responses. All clones share them.
#[derive(Clone, Default)]
pub(super) struct WaitingRequests(Arc<Mutex<HashMap<String, Waiting>>>);

struct Waiting {
    instance_id: Arc<str>,
    /// The ID that the server has given to the request, as JSON text.
    raw_id: Box<str>,
    link: Weak<Link>,
    wire: Wire,
    timer: Arc<Timer>,
}

impl WaitingRequests {
    /// Sends the response of a caller to the server that waits for it. Fails with 400 if the message is not a response,
    /// and with 404 if the request is no longer waiting.
    pub(super) async fn respond(&self, instance_id: &str, response: &[u8]) -> Result<(), CallFailure> {
        let envelope = Envelope::parse(response).ok().filter(|response| response.method.is_none());
        let envelope = envelope.ok_or_else(|| CallFailure::new(400, "The message is not a JSON-RPC response."))?;
        let id: Option<String> = envelope.raw_id.and_then(|raw| serde_json::from_str(raw.get()).ok());
        let waiting = id.and_then(|id| self.take_if(&id, |waiting| *waiting.instance_id == *instance_id));
        let waiting = waiting.ok_or_else(gone)?;
        let link = waiting.link.upgrade().ok_or_else(gone)?;
        let original = Original { id: waiting.raw_id.clone(), progress_token: None, is_subscription: false };
        let text = link.budget.hold(as_line(restore_response(&envelope, 0, &original)));
        let deadline = Instant::now() + RESPONSE_TIMEOUT;
        let sent = match text {
            Some(text) => link.transport.notify(text, &waiting.wire, deadline).await,
            None => Err(Failure::Busy),
        };
        if sent.is_err() {
            waiting.reject();
        }
        waiting.timer.end_request();
        sent.map_err(CallFailure::from)
    }

    fn take_if(&self, id: &str, condition: impl FnOnce(&Waiting) -> bool) -> Option<Waiting> {
        let mut requests = self.lock();
        requests.get(id).is_some_and(condition).then(|| requests.remove(id))?
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }
}

fn gone() -> CallFailure {
    CallFailure::new(404, "The request of the server no longer waits for a response.")
}

impl Waiting {
    /// Tells the server that there will be no response. Does not block: if the server does not read, the error is dropped.
    fn reject(&self) {
        if let Some(link) = self.link.upgrade() {
            let text = format!(
                r#"{{"jsonrpc":"2.0","id":{},"error":{{"code":{INTERNAL_ERROR},"message":"The client no longer waits."}}}}"#,
                self.raw_id
            );
            link.transport.send_detached(text.into_bytes(), &self.wire);
        }
    }
}

/// The deadline of a call, which is extended while its caller is asked.
struct Timer {
    /// The deadline if the caller is not asked.
    original: Instant,
    /// The time that the server has to continue.
    continuation: Duration,
    waiting: Mutex<usize>,
    deadline: watch::Sender<Instant>,
}

impl Timer {
    /// Counts a request that begins to wait. Returns `false` if too many are waiting.
    fn begin_request(&self) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if *waiting >= MAX_WAITING {
            return false;
        }
        *waiting += 1;
        self.extend(INPUT_TIMEOUT);
        true
    }

    /// Records that a request is no longer waiting. After the last one, the server gets time to continue.
    fn end_request(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        *waiting = waiting.saturating_sub(1);
        if *waiting == 0 {
            self.extend(self.continuation);
        }
    }

    fn extend(&self, time: Duration) {
        self.deadline.send_replace(self.original.max(Instant::now() + time));
    }
}

/// Waits until a call has timed out: at `deadline`, or at the moving deadline if its caller can be asked.
pub(super) async fn expired(deadline: Instant, moving: Option<watch::Receiver<Instant>>) {
    let Some(mut moving) = moving else { return tokio::time::sleep_until(deadline).await };
    loop {
        let deadline = *moving.borrow_and_update();
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => return,
            // The sender exists as long as the call waits for its response.
            changed = moving.changed() => if changed.is_err() { return tokio::time::sleep_until(deadline).await },
        }
    }
}

/// The caller of a call. The server can ask it until this is dropped.
pub(super) struct Caller {
    key: Option<Arc<str>>,
    capabilities: ClientCapabilities,
    slot: CallSlot,
    instance_id: Arc<str>,
    link: Weak<Link>,
    wire: Wire,
    timer: Arc<Timer>,
    requests: WaitingRequests,
    /// The IDs of all requests, including those that no longer wait.
    ids: Mutex<Vec<String>>,
}

impl Caller {
    pub(super) fn new(link: &Arc<Link>, wire: &Wire, deadline: Instant, options: &CallOptions) -> Self {
        Self {
            key: options.caller.clone(),
            capabilities: options.capabilities.common(link.declared),
            slot: options.slot.clone(),
            instance_id: link.instance_id.clone(),
            link: Arc::downgrade(link),
            wire: wire.clone(),
            timer: Arc::new(Timer {
                original: deadline,
                continuation: options.timeout.max(CONTINUE_TIMEOUT),
                waiting: Mutex::new(0),
                deadline: watch::Sender::new(deadline),
            }),
            requests: link.requests.clone(),
            ids: Mutex::default(),
        }
    }

    /// Returns the key that identifies the caller.
    pub(super) fn key(&self) -> Option<&Arc<str>> {
        self.key.as_ref()
    }

    /// Returns the deadline of the call.
    pub(super) fn deadline(&self) -> watch::Receiver<Instant> {
        self.timer.deadline.subscribe()
    }

    /// Whether the caller has declared that servers may send it this request.
    pub(super) fn allows(&self, request: &Envelope<'_>) -> bool {
        let params = request.params.map(|params| params.get());
        self.capabilities.allow(request.method.as_deref().unwrap_or_default(), params)
    }

    /// Passes a request from the server on with `deliver`, which returns whether it succeeded. Returns the error for
    /// the server if the request is not passed on.
    pub(super) fn ask(&self, request: &Envelope<'_>, deliver: impl FnOnce(Vec<u8>) -> bool) -> Option<Vec<u8>> {
        if !self.allows(request) {
            return Some(rejection(request, METHOD_NOT_FOUND, "Method not found."));
        }
        let Ok(message) = Message::read(request.text.as_bytes()) else {
            let text = "Invalid Request: the message could be read in different ways.";
            return Some(rejection(request, INVALID_REQUEST, text));
        };
        let too_many = || Some(rejection(request, INTERNAL_ERROR, "The client has too many requests."));
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(id) = random_id().filter(|_| ids.len() < MAX_REQUESTS) else { return too_many() };
        if !self.timer.begin_request() {
            return too_many();
        }
        let waiting = Waiting {
            instance_id: self.instance_id.clone(),
            raw_id: message.raw_id.unwrap_or("null").into(),
            link: self.link.clone(),
            wire: self.wire.clone(),
            timer: self.timer.clone(),
        };
        // The request must be registered before it can be answered.
        self.requests.lock().insert(id.clone(), waiting);
        let mut rewrite = Rewrite::new(&message);
        rewrite.set_id(&format!("\"{id}\""));
        if !deliver(rewrite.finish()) {
            self.requests.lock().remove(&id);
            self.timer.end_request();
            return too_many();
        }
        ids.push(id);
        self.slot.release();
        None
    }

    /// Withdraws the request that the server has cancelled with `notification`, and tells the caller with `deliver`. Returns
    /// whether it was a request to this caller.
    pub(super) fn withdraw(&self, notification: &Envelope<'_>, deliver: impl FnOnce(Vec<u8>) -> bool) -> bool {
        let Ok(message) = Message::read(notification.text.as_bytes()) else { return false };
        let Some(raw_id) = message.params.request_id else { return false };
        let ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        let cancelled = ids.iter().find(|id| self.requests.take_if(id, |waiting| *waiting.raw_id == *raw_id).is_some());
        let Some(id) = cancelled else { return false };
        self.timer.end_request();
        let mut rewrite = Rewrite::new(&message);
        rewrite.set(Member::RequestId, Some(&format!("\"{id}\"")));
        deliver(rewrite.finish())
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let ids = std::mem::take(self.ids.get_mut().unwrap_or_else(PoisonError::into_inner));
        for id in ids {
            if let Some(waiting) = self.requests.take_if(&id, |_| true) {
                waiting.reject();
            }
        }
    }
}

/// Returns an unguessable ID; `None` if the random number generator of the system fails.
fn random_id() -> Option<String> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(format!("wpr-{}", data_encoding::HEXLOWER.encode(&bytes)))
}
