//! Servers with the Streamable HTTP transport: each call is a separate POST request.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::StatusCode;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use waypost_mcp_wire::relay::{self, Original};
use waypost_mcp_wire::revision::SESSION_HEADER;
use waypost_mcp_wire::sse::EventParser;
use waypost_mcp_wire::{Body, Envelope};
use waypost_toolbox_proto::http::MAX_MESSAGE_BYTES;

use super::announcements::Announcements;
use super::caller::{Caller, expired};
use super::http::{Exchange, HttpClient, Post, get_events};
use super::interface::Failure;
use super::lines::Budget;
use super::mux::{Counters, answer};
use super::wire::{Request, Wire, cancelled};

/// The maximum size of the body of an HTTP error in bytes. A longer body is not read as a JSON-RPC error.
const MAX_ERROR_BYTES: usize = 64 * 1024;
/// The limits of the delay after which a stream that the server ended is resumed.
const RESUME_DELAYS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// The maximum number of times that the stream of one call is resumed.
const MAX_RESUMPTIONS: usize = 100;

/// A server.
pub(super) struct Streamable {
    pub(super) client: Arc<HttpClient>,
    pub(super) path: String,
    pub(super) budget: Budget,
    pub(super) counters: Arc<Counters>,
    pub(super) announcements: Arc<Announcements>,
}

impl Streamable {
    /// Sends a request and waits for the headers of the response. Returns the messages, and the ID of the session that the
    /// response sets.
    ///
    /// Fails with [`Failure::SessionLost`] if the server does not know the session of `wire` (legacy, "Session
    /// Management"): the request was not processed.
    pub(super) async fn open(
        &self,
        request: Request,
        wire: &Wire,
    ) -> Result<(impl Stream<Item = Result<Bytes, Failure>> + Send + use<>, Option<String>), Failure> {
        let Request { id, text, original, caller, method, name, headers, deadline, slot, is_cancellable } = request;
        let post = Post { path: &self.path, wire, target: Some((&method, name.as_deref())), text };
        let message = post.into_request_with(headers)?;
        let mut call = Call {
            id,
            original,
            caller,
            deadline,
            client: self.client.clone(),
            path: self.path.clone(),
            wire: wire.clone(),
            budget: self.budget.clone(),
            counters: self.counters.clone(),
            is_cancellable: is_cancellable && !wire.is_modern(),
            ready: VecDeque::new(),
            is_done: false,
            _slot: slot,
        };
        let sent = tokio::time::timeout_at(deadline, self.client.send(message)).await;
        let mut exchange = match sent {
            Ok(Ok(exchange)) => exchange,
            Ok(Err(failure)) => {
                call.is_done = true;
                return Err(failure);
            }
            Err(_) => return Err(Failure::Timeout),
        };
        let session = exchange.headers.get(SESSION_HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let events = if exchange.status.is_success() && exchange.is_event_stream()? {
            Some(Events { exchange: Some(exchange), parser: EventParser::new(), resumptions: 0 })
        } else {
            call.read_body(&mut exchange).await?;
            None
        };
        let messages = stream::unfold((call, events), async |(mut call, mut events)| {
            let item = call.next(events.as_mut()).await?;
            Some((item, (call, events)))
        });
        Ok((messages.boxed(), session))
    }

    /// Sends a notification.
    pub(super) async fn notify(&self, text: Bytes, wire: &Wire, deadline: Instant) -> Result<(), Failure> {
        let post = Post { path: &self.path, wire, target: None, text }.into_request()?;
        let send = async {
            let mut exchange = self.client.send(post).await?;
            let body = exchange.read(MAX_ERROR_BYTES).await?;
            match exchange.status {
                status if status.is_success() => Ok(()),
                StatusCode::NOT_FOUND if wire.session.is_some() => Err(Failure::SessionLost),
                // The server understood the message, and rejected it.
                _ if Envelope::parse(&body).is_ok() => Ok(()),
                status => Err(Failure::Status(status.as_u16())),
            }
        };
        tokio::time::timeout_at(deadline, send).await.map_err(|_| Failure::Timeout)?
    }

    /// Sends a message whose outcome nobody waits for.
    pub(super) fn send_detached(&self, text: Vec<u8>, wire: &Wire) {
        let post = Post { path: &self.path, wire, target: None, text: text.into() };
        if let Ok(request) = post.into_request() {
            self.client.send_detached(request);
        }
    }
}

/// A call that waits for its response. Dropping it cancels the call.
struct Call {
    id: u64,
    original: Original,
    /// The caller, which the server can ask until the response; `None` if it cannot ask any.
    caller: Option<Caller>,
    deadline: Instant,
    client: Arc<HttpClient>,
    path: String,
    wire: Wire,
    budget: Budget,
    counters: Arc<Counters>,
    /// Whether the server is notified if the call is dropped. A modern server is notified by closing the stream.
    is_cancellable: bool,
    ready: VecDeque<Result<Bytes, Failure>>,
    is_done: bool,
    _slot: Option<OwnedSemaphorePermit>,
}

/// A stream of events.
struct Events {
    exchange: Option<Exchange>,
    parser: EventParser,
    resumptions: usize,
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.is_done && self.is_cancellable {
            self.post_detached(cancelled(self.id));
        }
    }
}

impl Call {
    /// Returns the next message; `None` after the response or a failure.
    async fn next(&mut self, events: Option<&mut Events>) -> Option<Result<Bytes, Failure>> {
        if let Some(message) = self.ready.pop_front() {
            return Some(message);
        }
        let events = events.filter(|_| !self.is_done)?;
        let expired = expired(self.deadline, self.caller.as_ref().map(Caller::deadline));
        let read = tokio::select! {
            biased;
            read = self.read_events(events) => Some(read),
            () = expired => None,
        };
        match read {
            Some(Ok(())) => {
                if let Some(exchange) = events.exchange.take_if(|_| self.is_done) {
                    exchange.finish_detached();
                }
                self.ready.pop_front()
            }
            Some(Err(failure)) => {
                self.is_done = true;
                self.caller = None;
                Some(Err(failure))
            }
            None => {
                if self.is_cancellable {
                    self.post_detached(cancelled(self.id));
                }
                self.is_done = true;
                self.caller = None;
                // Closing the connection cancels the call on a modern server.
                events.exchange = None;
                Some(Err(Failure::Timeout))
            }
        }
    }

    /// Reads events until a message is ready.
    async fn read_events(&mut self, events: &mut Events) -> Result<(), Failure> {
        while self.ready.is_empty() {
            if events.exchange.is_none() {
                events.exchange = Some(self.resume(events).await?);
            }
            let Some(exchange) = &mut events.exchange else { continue };
            match exchange.chunk().await {
                Some(Ok(chunk)) => {
                    for event in events.parser.push(&chunk) {
                        self.receive(event.data.as_bytes());
                    }
                    if events.parser.buffered() > MAX_MESSAGE_BYTES {
                        Counters::add(&self.counters.oversized_messages);
                        return Err(Failure::NotMcp("the response is too large".to_owned()));
                    }
                }
                None | Some(Err(Failure::Closed(_))) => events.exchange = None,
                Some(Err(failure)) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Continues a stream that the server ended before the response (2025-11-25, "Resumability and Redelivery").
    async fn resume(&self, events: &mut Events) -> Result<Exchange, Failure> {
        let ended = || Failure::Closed("the stream ended before the response".to_owned());
        let last_id = events.parser.last_id().filter(|_| !self.wire.is_modern()).ok_or_else(ended)?;
        if events.resumptions == MAX_RESUMPTIONS {
            return Err(ended());
        }
        events.resumptions += 1;
        let delay = Duration::from_millis(events.parser.retry().unwrap_or_default());
        tokio::time::sleep(delay.clamp(RESUME_DELAYS.0, RESUME_DELAYS.1)).await;
        let exchange = self.client.send(get_events(&self.path, &self.wire, Some(last_id))?).await?;
        let is_stream = exchange.status.is_success() && exchange.is_event_stream()?;
        if is_stream { Ok(exchange) } else { Err(ended()) }
    }

    /// Reads a response that is not a stream.
    async fn read_body(&mut self, exchange: &mut Exchange) -> Result<(), Failure> {
        let status = exchange.status;
        if status == StatusCode::NOT_FOUND && self.wire.session.is_some() {
            self.is_done = true;
            return Err(Failure::SessionLost);
        }
        let max_bytes = if status.is_success() { MAX_MESSAGE_BYTES } else { MAX_ERROR_BYTES };
        let body = tokio::time::timeout_at(self.deadline, exchange.read(max_bytes)).await;
        let body = body.map_err(|_| Failure::Timeout)?;
        self.is_done = true;
        // A JSON-RPC error says more than the status.
        if self.receive(&body?) {
            return Ok(());
        }
        match status {
            _ if !status.is_success() => Err(Failure::Status(status.as_u16())),
            _ => Err(Failure::NotMcp("the response is not a JSON-RPC message".to_owned())),
        }
    }

    /// Processes a message or batch. Returns whether it contains the response.
    fn receive(&mut self, text: &[u8]) -> bool {
        // An event without data only announces an event ID (2025-11-25).
        if text.is_empty() {
            return false;
        }
        match Body::parse(text) {
            Ok(Body::Single(envelope)) => self.receive_one(&envelope),
            Ok(Body::Batch(batch)) => batch.iter().filter(|envelope| self.receive_one(envelope)).count() > 0,
            Err(_) => {
                Counters::add(&self.counters.noise_lines);
                false
            }
        }
    }

    fn receive_one(&mut self, envelope: &Envelope<'_>) -> bool {
        match (&envelope.method, &envelope.id) {
            (Some(_), Some(_)) => {
                if let Some(answer) = self.receive_request(envelope) {
                    self.post_detached(answer);
                }
                false
            }
            (Some(_), None) => {
                self.receive_notification(envelope);
                false
            }
            // An error without an ID concerns a request that the server could not parse.
            (None, id)
                if relay::response_id(envelope) == Some(self.id) || (id.is_none() && envelope.error.is_some()) =>
            {
                let response = relay::restore_response(envelope, self.id, &self.original);
                self.ready.push_back(self.budget.hold(response).ok_or(Failure::Busy));
                self.is_done = true;
                self.caller = None;
                true
            }
            (None, _) => {
                Counters::add(&self.counters.unmatched_responses);
                false
            }
        }
    }

    /// Passes a request from the server to the caller. Returns the answer for the server if the request is not passed
    /// on.
    fn receive_request(&mut self, request: &Envelope<'_>) -> Option<Vec<u8>> {
        let Self { caller, ready, budget, .. } = self;
        match caller.as_ref().filter(|caller| caller.allows(request)) {
            Some(caller) => caller.ask(request, |message| {
                let message = budget.hold(message);
                message.map(|message| ready.push_back(Ok(message))).is_some()
            }),
            None => answer(request),
        }
    }

    fn receive_notification(&mut self, notification: &Envelope<'_>) {
        if let Some(caller) = &self.caller
            && notification.method.as_deref() == Some("notifications/cancelled")
        {
            let (ready, budget) = (&mut self.ready, &self.budget);
            let pass_on = |message| budget.hold(message).map(|message| ready.push_back(Ok(message))).is_some();
            if !caller.withdraw(notification, pass_on) {
                Counters::add(&self.counters.dropped_notifications);
            }
            return;
        }
        let message = match relay::notification_target(notification) {
            Some(target) if target.id() == self.id => relay::restore_notification(notification, target, &self.original),
            Some(_) => None,
            None if notification.method.as_deref() == Some("notifications/progress") => None,
            // The notification arrived on the stream of this call, so it belongs to this call.
            None => {
                let mut text = notification.text.as_bytes().to_vec();
                relay::make_single_line(&mut text);
                Some(text)
            }
        };
        match message.and_then(|message| self.budget.hold(message)) {
            Some(message) if !self.is_done => self.ready.push_back(Ok(message)),
            _ => Counters::add(&self.counters.dropped_notifications),
        }
    }

    fn post_detached(&self, text: Vec<u8>) {
        let post = Post { path: &self.path, wire: &self.wire, target: None, text: text.into() };
        if let Ok(request) = post.into_request() {
            self.client.send_detached(request);
        }
    }
}
