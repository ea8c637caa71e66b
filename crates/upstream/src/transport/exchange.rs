//! The messages that answer one request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use tokio::time::Instant;
use waypost_mcp_wire::memory::Reservation;
use waypost_mcp_wire::revision::SESSION_HEADER;
use waypost_mcp_wire::sse::EventParser;
use waypost_mcp_wire::strict::OwnedMessage;
use waypost_outbound::{Error as OutboundError, StreamLimits, StreamResponse};

use super::core::{Core, rpc_error};
use super::http::{Content, Wire, read_message};
use super::incoming::{Inbox, Received};
use super::message::{Outgoing, STREAM_LIFETIME, cancelled};
use super::sse::{SseExchange, SseListener};
use crate::error::Error;

/// The minimum and the maximum delay before a stream that the server ended is resumed.
const RESUME_DELAYS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// The maximum number of times that the stream of one request is resumed.
const MAX_RESUMPTIONS: usize = 100;

/// The messages that answer one request. Dropping it before the response cancels the request.
pub struct Exchange(pub(crate) Source);

pub(crate) enum Source {
    Http(Box<HttpExchange>),
    Sse(SseExchange),
    Listener(SseListener),
}

impl Exchange {
    /// Returns the ID of the request and its response; `None` for a stream that answers no request.
    #[must_use]
    pub fn id(&self) -> Option<u64> {
        match &self.0 {
            Source::Http(exchange) => exchange.id,
            Source::Sse(exchange) => Some(exchange.id),
            Source::Listener(_) => None,
        }
    }

    /// Returns the next message: notifications, requests of a server with a handshake if the connection accepts them,
    /// and finally the response. Returns `None` after the response or an error, or at the end of a stream without a
    /// response.
    ///
    /// # Errors
    /// Any [`Error`]. The request has then failed, and is cancelled when the exchange is dropped.
    pub async fn next(&mut self) -> Result<Option<OwnedMessage>, Error> {
        match &mut self.0 {
            Source::Http(exchange) => exchange.next().await,
            Source::Sse(exchange) => exchange.next().await,
            Source::Listener(listener) => Ok(listener.next().await),
        }
    }
}

/// A request over Streamable HTTP, or a GET stream.
pub(crate) struct HttpExchange {
    core: Arc<Core>,
    wire: Wire,
    id: Option<u64>,
    token: Option<Box<str>>,
    /// Whether the server is notified if the request is dropped. For a modern server, closing the stream is sufficient.
    is_cancellable: bool,
    deadline: Instant,
    /// Whether the number of messages is unlimited.
    is_stream: bool,
    received: Received,
    events: Option<Events>,
}

/// A stream of events.
struct Events {
    response: StreamResponse,
    parser: EventParser,
    /// The memory of the incomplete event.
    memory: Reservation,
    /// The ID of the last event of this or an earlier response.
    last_id: Option<String>,
    resumptions: usize,
}

impl Events {
    fn new(response: StreamResponse, memory: Reservation) -> Self {
        Self { response, parser: EventParser::new(), memory, last_id: None, resumptions: 0 }
    }
}

impl Drop for HttpExchange {
    fn drop(&mut self) {
        if let Some(id) = self.id.filter(|_| self.is_cancellable && !self.received.is_done) {
            self.core.send_detached(&self.wire, cancelled(id));
        }
    }
}

impl HttpExchange {
    /// Sends a request and waits for the headers of the response. Also returns the session ID that the response sets.
    pub(crate) async fn open(
        core: &Arc<Core>,
        outgoing: Outgoing,
        wire: &Wire,
    ) -> Result<(Self, Option<HeaderValue>), Error> {
        let limits = outgoing.limits(&core.limits);
        let Outgoing { id, text, headers: own_headers, token, is_cancellable, is_stream, .. } = outgoing;
        let mut exchange = Self {
            core: core.clone(),
            wire: wire.clone(),
            id: Some(id),
            token,
            is_cancellable,
            deadline: Instant::now() + limits.timeout,
            is_stream,
            received: Received::default(),
            events: None,
        };
        let mut headers = own_headers;
        headers.extend(wire.headers());
        let sent = core.http.post(None, headers, text, limits).await;
        let mut response = sent.inspect_err(|error| {
            // After any other error, the server cannot be reached.
            exchange.is_cancellable &= matches!(error, Error::Transport(OutboundError::Timeout { .. }));
        })?;
        let session = response.headers.get(SESSION_HEADER).cloned();
        if !response.status.is_success() {
            exchange.is_cancellable = false;
            let body = Box::pin(core.read_error(wire, &mut response)).await?;
            exchange.read_body(body)?;
            return Ok((exchange, session));
        }
        match Content::of(&response) {
            Content::Json => {
                let body = read_message(&mut response, core.limits.max_message_bytes, core.memory.reserve()).await?;
                exchange.read_body(body)?;
                Box::pin(exchange.send_answers()).await;
            }
            Content::Events => exchange.events = Some(Events::new(response, core.memory.reserve())),
            other => return Err(other.error(&response)),
        }
        Ok((exchange, session))
    }

    /// Opens the stream of messages that belong to no request (legacy, "Listening for Messages from the Server").
    /// Returns `None` if the server has no such stream.
    pub(crate) async fn listen(core: &Arc<Core>, wire: &Wire) -> Result<Option<Self>, Error> {
        let limits = StreamLimits { max_bytes: usize::MAX, idle: STREAM_LIFETIME, timeout: STREAM_LIFETIME };
        let opened = core.http.request_events(wire.headers(), None, limits);
        let opened = tokio::time::timeout(core.limits.timeout, opened).await.map_err(|_| Error::Timeout)?;
        let mut response = opened?;
        if response.status == StatusCode::METHOD_NOT_ALLOWED {
            return Ok(None);
        }
        if !response.status.is_success() {
            let body = tokio::time::timeout(core.limits.timeout, core.read_error(wire, &mut response)).await;
            return Err(rpc_error(&body.map_err(|_| Error::Timeout)??));
        }
        if Content::of(&response) != Content::Events {
            return Err(Content::of(&response).error(&response));
        }
        Ok(Some(Self {
            core: core.clone(),
            wire: wire.clone(),
            id: None,
            token: None,
            is_cancellable: false,
            deadline: Instant::now() + STREAM_LIFETIME,
            is_stream: true,
            received: Received::default(),
            events: Some(Events::new(response, core.memory.reserve())),
        }))
    }

    async fn next(&mut self) -> Result<Option<OwnedMessage>, Error> {
        loop {
            if let Some(message) = self.received.ready.pop_front() {
                return Ok(Some(message));
            }
            if self.received.is_done || self.events.is_none() {
                return Ok(None);
            }
            if let Err(error) = self.read_events().await {
                // Closing the stream cancels the request on a modern server.
                self.events = None;
                self.received.ready.clear();
                return Err(error);
            }
        }
    }

    /// Reads a part of the stream.
    async fn read_events(&mut self) -> Result<(), Error> {
        let Some(events) = &mut self.events else { return Ok(()) };
        let chunk = match events.response.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Box::pin(self.resume(Error::invalid("the stream ended before the response"))).await,
            Err(error @ OutboundError::Unreachable { .. }) => return Box::pin(self.resume(error.into())).await,
            Err(error) => return Err(error.into()),
        };
        let Self { core, wire, received, id, token, .. } = self;
        let inbox = Inbox {
            id: *id,
            token: token.as_deref(),
            wire,
            accepts_requests: core.accepts_requests,
            counters: &core.counters,
        };
        let limit = core.limits.max_message_bytes;
        for event in events.parser.push(&chunk) {
            if event.data.len() > limit {
                return Err(Error::MessageTooLarge { limit });
            }
            inbox.receive_event(event, &mut events.memory, received)?;
        }
        if events.parser.buffered() > limit {
            return Err(Error::MessageTooLarge { limit });
        }
        events.memory.set(events.parser.buffered())?;
        if !self.is_stream && received.count > core.limits.max_messages {
            return Err(Error::TooManyMessages { limit: core.limits.max_messages });
        }
        if received.is_done
            && let Some(events) = self.events.take()
        {
            Core::finish_detached(events.response);
        }
        Box::pin(self.send_answers()).await;
        Ok(())
    }

    /// Resumes a stream that the server ended before the response (2025-11-25, "Resumability and Redelivery"). Fails
    /// with `ended` if it cannot be resumed.
    async fn resume(&mut self, ended: Error) -> Result<(), Error> {
        let Some(mut events) = self.events.take() else { return Ok(()) };
        events.last_id = events.parser.last_id().map(str::to_owned).or(events.last_id);
        let can_resume = !self.wire.is_modern() && events.resumptions < MAX_RESUMPTIONS;
        let Some(last_id) = events.last_id.clone().filter(|_| can_resume) else {
            // A stream that answers no request can end at any time.
            return if self.id.is_none() { Ok(()) } else { Err(ended) };
        };
        let delay = Duration::from_millis(events.parser.retry().unwrap_or_default());
        tokio::time::sleep(delay.clamp(RESUME_DELAYS.0, RESUME_DELAYS.1)).await;
        let remaining = self.deadline.saturating_duration_since(Instant::now());
        let limits = match self.is_stream {
            true => StreamLimits { max_bytes: usize::MAX, idle: STREAM_LIFETIME, timeout: remaining },
            false => StreamLimits { timeout: remaining, ..self.core.limits.of_response() },
        };
        let response = self.core.http.get_events(self.wire.headers(), Some(&last_id), limits).await?;
        let resumptions = events.resumptions + 1;
        let new = Events::new(response, self.core.memory.reserve());
        self.events = Some(Events { last_id: Some(last_id), resumptions, ..new });
        Ok(())
    }

    /// Reads a body that is not a stream.
    fn read_body(&mut self, body: Bytes) -> Result<(), Error> {
        let inbox = Inbox {
            id: self.id,
            token: self.token.as_deref(),
            wire: &self.wire,
            accepts_requests: self.core.accepts_requests,
            counters: &self.core.counters,
        };
        inbox.receive(body, &mut self.received)?;
        if self.received.is_done {
            return Ok(());
        }
        Err(Error::invalid("the response is not one to the request"))
    }

    /// Answers requests of the server, which may wait for the answers.
    async fn send_answers(&mut self) {
        while !self.received.answers.is_empty() {
            let answer = self.received.answers.remove(0);
            // If it is lost, the response to the client's own request shows whether the server continues.
            let _ = self.core.answer(&self.wire, answer).await;
        }
    }
}
