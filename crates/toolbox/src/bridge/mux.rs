//! The calls that wait for a response on a shared connection.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use waypost_mcp_wire::relay::{self, Original};
use waypost_mcp_wire::{Body, Envelope, INVALID_REQUEST, METHOD_NOT_FOUND};
use waypost_toolbox_proto::http::LogStream;

use super::announcements::{Announcements, LIST_CHANGES};
use super::attribution::AbandonedCalls;
use super::caller::{Caller, expired, rejection};
use super::interface::Failure;
use super::lines::Budget;
use crate::supervisor::servers::LogSink;

/// The maximum number of notifications of one call that wait for its caller. Further ones are dropped.
const MAX_NOTIFICATIONS: usize = 64;

/// The error for a server request that cannot be attributed to one call.
const AMBIGUOUS: &str = "Invalid Request: several calls are running, so the request cannot be attributed to one.";

/// Counts what was dropped on a connection.
#[derive(Debug, Default)]
pub struct Counters {
    /// Responses that match no call: late, repeated, or with an unknown ID.
    pub unmatched_responses: AtomicU64,
    /// Notifications that belong to no call, or to a call whose caller is too slow.
    pub dropped_notifications: AtomicU64,
    /// Lines that are not JSON-RPC messages.
    pub noise_lines: AtomicU64,
    /// Messages that were too long.
    pub oversized_messages: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The calls that wait on one connection.
pub(super) struct Mux {
    /// `None` once the connection is closed.
    calls: Mutex<Option<Calls>>,
    closed: CancellationToken,
    cause: Mutex<String>,
    pub(super) budget: Budget,
    pub(super) counters: Arc<Counters>,
    pub(super) log: Arc<dyn LogSink>,
    announcements: Arc<Announcements>,
}

/// The calls of an open connection.
struct Calls {
    waiting: HashMap<u64, Pending>,
    abandoned: AbandonedCalls,
}

struct Pending {
    is_sent: bool,
    original: Original,
    caller: Option<Caller>,
    notifications: mpsc::Sender<Bytes>,
    response: oneshot::Sender<Result<Bytes, Failure>>,
}

/// The result of processing a message from the server.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    /// Whether all parts of the message were passed to calls.
    pub(super) is_delivered: bool,
    /// The daemon's own answers to requests from the server.
    pub(super) answers: Vec<Vec<u8>>,
}

impl Mux {
    pub(super) fn new(
        budget: Budget,
        counters: Arc<Counters>,
        log: Arc<dyn LogSink>,
        (abandoned, announcements): (AbandonedCalls, Arc<Announcements>),
    ) -> Arc<Self> {
        let calls = Mutex::new(Some(Calls { waiting: HashMap::new(), abandoned }));
        let (closed, cause) = (CancellationToken::new(), Mutex::default());
        Arc::new(Self { calls, closed, cause, budget, counters, log, announcements })
    }

    /// Registers a call, which ends with exactly one response or failure.
    pub(super) fn register(self: &Arc<Self>, call: NewCall) -> Result<MuxCall, Failure> {
        let NewCall { id, original, caller, deadline, slot, cancel } = call;
        let (notifications, notification_receiver) = mpsc::channel(MAX_NOTIFICATIONS);
        let (response, response_receiver) = oneshot::channel();
        let deadline = Box::pin(expired(deadline, caller.as_ref().map(Caller::deadline)));
        let mut calls = self.calls();
        let Some(Calls { waiting, .. }) = calls.as_mut() else { return Err(self.closed_failure()) };
        match waiting.entry(id) {
            Entry::Occupied(_) => return Err(Failure::Storage(format!("ID {id} is in use"))),
            Entry::Vacant(entry) => entry.insert(Pending { is_sent: false, original, caller, notifications, response }),
        };
        drop(calls);
        let guard = Guard { mux: self.clone(), id, cancel };
        let (notifications, response) = (notification_receiver, response_receiver);
        Ok(MuxCall { notifications, response, deadline, guard: Some(guard), outcome: None, is_done: false, slot })
    }

    /// Marks a call as not accepted by the server, which will not answer it.
    pub(super) fn mark_rejected(&self, id: u64) {
        if let Some(call) = self.calls().as_mut().and_then(|calls| calls.waiting.get_mut(&id)) {
            call.is_sent = false;
        }
    }

    /// Marks a call as sent. Returns `false` if it is no longer waiting, so that it need not be sent.
    pub(super) fn mark_sent(&self, id: u64) -> bool {
        let mut calls = self.calls();
        calls.as_mut().and_then(|calls| calls.waiting.get_mut(&id)).map(|call| call.is_sent = true).is_some()
    }

    /// Fails all waiting calls.
    pub(super) fn fail_all(&self, failure: &Failure) {
        let mut calls = self.calls();
        let Some(calls) = calls.as_mut() else { return };
        for (id, call) in calls.waiting.drain() {
            calls.abandoned.add_call(id, &call);
            let _ = call.response.send(Err(failure.clone()));
        }
    }

    /// Closes the connection, and fails all waiting calls.
    pub(super) fn close(&self, cause: &str) {
        let calls = self.calls().take();
        if let Some(calls) = calls {
            *self.cause.lock().unwrap_or_else(PoisonError::into_inner) = cause.to_owned();
            for call in calls.waiting.into_values() {
                let _ = call.response.send(Err(Failure::Closed(cause.to_owned())));
            }
            self.announcements.reset();
        }
        self.closed.cancel();
    }

    /// Waits until the connection is closed.
    pub(super) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Processes a message from the server. Returns `None` if it is not JSON-RPC.
    pub(super) fn receive(&self, message: &[u8]) -> Option<Incoming> {
        if !matches!(message.trim_ascii_start().first(), Some(b'{' | b'[')) {
            return None;
        }
        let mut incoming = Incoming { is_delivered: true, answers: Vec::new() };
        match Body::parse(message).ok()? {
            Body::Single(envelope) => self.receive_one(&envelope, &mut incoming),
            Body::Batch(batch) => batch.iter().for_each(|envelope| self.receive_one(envelope, &mut incoming)),
        }
        Some(incoming)
    }

    fn receive_one(&self, envelope: &Envelope<'_>, incoming: &mut Incoming) {
        match (&envelope.method, &envelope.id) {
            (Some(_), Some(_)) => {
                let answer = self.receive_request(envelope);
                incoming.is_delivered &= answer.is_none();
                incoming.answers.extend(answer);
            }
            (Some(_), None) => incoming.is_delivered &= self.deliver_notification(envelope),
            (None, _) => incoming.is_delivered &= self.deliver_response(envelope),
        }
    }

    fn deliver_response(&self, envelope: &Envelope<'_>) -> bool {
        let id = relay::response_id(envelope);
        let found = id.and_then(|id| {
            let mut calls = self.calls();
            let calls = calls.as_mut()?;
            calls.abandoned.remove(id);
            calls.waiting.remove(&id).map(|call| (id, call))
        });
        let Some((id, call)) = found else {
            Counters::add(&self.counters.unmatched_responses);
            return false;
        };
        let response = relay::restore_response(envelope, id, &call.original);
        let _ = call.response.send(self.budget.hold(response).ok_or(Failure::Busy));
        true
    }

    /// Passes a request from the server to the caller whose call caused it, or returns the answer to the server.
    fn receive_request(&self, request: &Envelope<'_>) -> Option<Vec<u8>> {
        let calls = self.calls();
        let waiting = calls.iter().flat_map(|calls| calls.waiting.values()).filter(|call| call.is_sent);
        let running: Vec<_> = waiting.filter_map(|call| Some((call, call.caller.as_ref()?))).collect();
        if !running.iter().any(|(_, caller)| caller.allows(request)) {
            return answer(request);
        }
        match (&running[..], calls.as_ref()) {
            ([(call, caller)], Some(calls)) if calls.abandoned.are_all_of(caller.key().map(|key| &**key)) => {
                caller.ask(request, |message| self.pass_on(call, message))
            }
            _ => Some(rejection(request, INVALID_REQUEST, AMBIGUOUS)),
        }
    }

    /// Passes a message on to the caller of a call. Returns `false` if the caller is too slow.
    fn pass_on(&self, call: &Pending, message: Vec<u8>) -> bool {
        self.budget.hold(message).is_some_and(|message| call.notifications.try_send(message).is_ok())
    }

    /// Withdraws a request that the server has cancelled.
    fn withdraw(&self, notification: &Envelope<'_>) -> bool {
        let calls = self.calls();
        let mut waiting = calls.iter().flat_map(|calls| calls.waiting.values());
        waiting.any(|call| {
            let caller = call.caller.as_ref();
            caller.is_some_and(|caller| caller.withdraw(notification, |message| self.pass_on(call, message)))
        })
    }

    fn deliver_notification(&self, envelope: &Envelope<'_>) -> bool {
        if envelope.method.as_deref() == Some("notifications/message") {
            // The message does not say which call it belongs to. Passing it on could reveal another caller's data.
            let text = envelope.params.map_or("", |params| params.get());
            let end = text.floor_char_boundary(crate::logs::MAX_TEXT_BYTES);
            self.log.line(LogStream::Stdout, &text[..end]);
            return false;
        }
        let target = relay::notification_target(envelope);
        let is_delivered = match (envelope.method.as_deref(), target) {
            (Some("notifications/cancelled"), _) => self.withdraw(envelope),
            (Some(method), None) if LIST_CHANGES.contains(&method) => self.deliver_change(method),
            (_, target) => target.is_some_and(|target| {
                let calls = self.calls();
                let Some(call) = calls.as_ref().and_then(|calls| calls.waiting.get(&target.id())) else { return false };
                let message = relay::restore_notification(envelope, target, &call.original);
                message.is_some_and(|message| self.pass_on(call, message))
            }),
        };
        let is_announced = target.is_none() && self.announcements.receive(envelope);
        if !is_delivered && !is_announced {
            Counters::add(&self.counters.dropped_notifications);
        }
        is_delivered
    }

    /// Notifies all calls that a list has changed, so that the control plane lists it again. Parameters are dropped:
    /// they could contain a caller's data. Returns whether a call was notified.
    fn deliver_change(&self, method: &str) -> bool {
        let text = json!({ "jsonrpc": "2.0", "method": method }).to_string().into_bytes();
        let Some(message) = self.budget.hold(text) else { return false };
        let calls = self.calls();
        let waiting =
            calls.iter().flat_map(|calls| calls.waiting.values()).filter(|call| !call.original.is_subscription);
        waiting.filter(|call| call.notifications.try_send(message.clone()).is_ok()).count() > 0
    }

    /// Removes a call. Returns whether the server may be working on it.
    fn remove(&self, id: u64) -> bool {
        let mut calls = self.calls();
        let Some(calls) = calls.as_mut() else { return false };
        let Some(call) = calls.waiting.remove(&id) else { return false };
        calls.abandoned.add_call(id, &call);
        call.is_sent
    }

    fn closed_failure(&self) -> Failure {
        Failure::Closed(self.cause.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn calls(&self) -> MutexGuard<'_, Option<Calls>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AbandonedCalls {
    /// Adds a call if the server may be processing it for a caller.
    fn add_call(&mut self, id: u64, call: &Pending) {
        if let Some(caller) = call.caller.as_ref().filter(|_| call.is_sent) {
            self.add(id, caller.key().cloned());
        }
    }
}

/// Returns the daemon's own answer, without a line feed, to a server request that is not passed on: only `ping` has a result.
pub(super) fn answer(request: &Envelope<'_>) -> Option<Vec<u8>> {
    let id = request.id.clone()?;
    Some(match request.method.as_deref()? {
        "ping" => json!({ "jsonrpc": "2.0", "id": id, "result": {} }).to_string().into_bytes(),
        _ => rejection(request, METHOD_NOT_FOUND, "Method not found."),
    })
}

/// Tells the server that a call is cancelled. Must not block.
pub(super) type Cancel = Arc<dyn Fn(u64) + Send + Sync>;

/// A call to register.
pub(super) struct NewCall {
    pub(super) id: u64,
    pub(super) original: Original,
    /// The caller that the server can ask; `None` if it cannot ask any.
    pub(super) caller: Option<Caller>,
    pub(super) deadline: Instant,
    /// Held until the call ends.
    pub(super) slot: Option<OwnedSemaphorePermit>,
    /// Tells the server that the call is cancelled; `None` if the server is not told.
    pub(super) cancel: Option<Cancel>,
}

/// The messages of one call. Dropping it cancels the call.
pub(super) struct MuxCall {
    notifications: mpsc::Receiver<Bytes>,
    response: oneshot::Receiver<Result<Bytes, Failure>>,
    deadline: Pin<Box<dyn Future<Output = ()> + Send>>,
    guard: Option<Guard>,
    outcome: Option<Result<Bytes, Failure>>,
    is_done: bool,
    #[expect(dead_code, reason = "held until it is dropped")]
    slot: Option<OwnedSemaphorePermit>,
}

/// Removes a call from the table, and cancels it if it has no response yet.
struct Guard {
    mux: Arc<Mux>,
    id: u64,
    cancel: Option<Cancel>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.mux.remove(self.id)
            && let Some(cancel) = &self.cancel
        {
            cancel(self.id);
        }
    }
}

impl MuxCall {
    fn poll_outcome(&mut self, context: &mut Context<'_>) {
        if self.outcome.is_some() {
        } else if let Poll::Ready(response) = Pin::new(&mut self.response).poll(context) {
            self.outcome = Some(response.unwrap_or_else(|_| Err(Failure::Closed("the call was dropped".to_owned()))));
        } else if self.deadline.as_mut().poll(context).is_ready() {
            self.guard = None;
            self.outcome = Some(Err(Failure::Timeout));
        }
    }
}

impl Stream for MuxCall {
    type Item = Result<Bytes, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_done {
            return Poll::Ready(None);
        }
        self.poll_outcome(context);
        // Notifications that arrived before the response are returned first.
        if self.outcome.is_none() {
            match self.notifications.poll_recv(context) {
                Poll::Ready(Some(notification)) => return Poll::Ready(Some(Ok(notification))),
                Poll::Pending => return Poll::Pending,
                // The call has left the table since its response was polled.
                Poll::Ready(None) => self.poll_outcome(context),
            }
            if self.outcome.is_none() {
                return Poll::Pending;
            }
        }
        if let Ok(notification) = self.notifications.try_recv() {
            return Poll::Ready(Some(Ok(notification)));
        }
        self.is_done = true;
        self.guard = None;
        Poll::Ready(self.outcome.take())
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    /// A response that arrives while the call is polled closes the channel of notifications after its own was polled.
    #[tokio::test]
    async fn a_call_waits_for_its_response_after_its_last_notification() {
        let (notifications, notification_receiver) = mpsc::channel(1);
        let (response, response_receiver) = oneshot::channel();
        let mut call = MuxCall {
            notifications: notification_receiver,
            response: response_receiver,
            deadline: Box::pin(std::future::pending()),
            guard: None,
            outcome: None,
            is_done: false,
            slot: None,
        };
        drop(notifications);
        assert!(futures::poll!(call.next()).is_pending());
        response.send(Ok(Bytes::from_static(b"response"))).unwrap();
        assert_eq!(call.next().await.unwrap().unwrap(), "response");
        assert!(call.next().await.is_none());
    }
}
