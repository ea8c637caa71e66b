//! The HTTP+SSE transport of 2024-11-05: one stream for all messages of the server, and POST requests for those of the
//! client.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use http::{HeaderMap, StatusCode};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use url::Url;
use waypost_mcp_wire::memory::{OutOfMemory, Reservation};
use waypost_mcp_wire::sse::{Event, EventParser};
use waypost_mcp_wire::strict::{MessageKind, OwnedMessage};
use waypost_outbound::{StreamLimits, StreamResponse};

use super::core::Core;
use super::http::{MAX_ERROR_BYTES, Wire, read, status_error};
use super::incoming::{rejected, with_token};
use super::message::{Counters, Outgoing, STREAM_LIFETIME, answer, cancelled};
use crate::error::Error;

/// The maximum number of notifications of one request, or of the listener, that wait for their receiver. Further
/// notifications are dropped, because waiting would delay all other requests.
const MAX_NOTIFICATIONS: usize = 16;
/// The maximum size of a notification in bytes, because several wait in memory.
const MAX_NOTIFICATION_BYTES: usize = 1024 * 1024;

/// The stream, which is the session: if it ends, the next request opens a new one.
#[derive(Default)]
pub(crate) struct SseTransport {
    stream: Mutex<Option<Arc<Stream>>>,
}

/// An open stream. Dropping it closes it.
struct Stream {
    /// The URL to which messages are sent.
    endpoint: Url,
    shared: Arc<Shared>,
    reader: JoinHandle<()>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.reader.abort();
        self.shared.close();
    }
}

/// The receivers of the messages of a stream.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    is_closed: bool,
    pending: HashMap<u64, Pending>,
    listener: Option<mpsc::Sender<OwnedMessage>>,
}

struct Pending {
    token: Option<Box<str>>,
    notifications: mpsc::Sender<OwnedMessage>,
    response: oneshot::Sender<Result<OwnedMessage, Error>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the stream: all requests fail, because their senders are dropped.
    fn close(&self) {
        *self.state() = State { is_closed: true, ..State::default() };
    }

    /// Fails all requests.
    fn fail(&self, error: OutOfMemory) {
        for (_, pending) in std::mem::take(&mut self.state().pending) {
            let _ = pending.response.send(Err(error.into()));
        }
    }

    /// Passes a message to its receiver. Returns the answer to a request that is not passed on.
    fn receive(&self, received: OwnedMessage, core: &Core) -> Option<Vec<u8>> {
        let mut state = self.state();
        let message = received.message();
        match message.kind {
            MessageKind::Request => {
                let is_ping = message.method.as_deref() == Some("ping");
                let delivered = match !is_ping && core.accepts_requests {
                    true => deliver(state.listener.as_ref(), received),
                    false => Err(received),
                };
                let Err(request) = delivered else { return None };
                if !is_ping {
                    Counters::add(&core.counters.rejected_requests);
                }
                return Some(answer(request.message()));
            }
            MessageKind::Notification if message.method.as_deref() == Some("notifications/progress") => {
                let pending = message.params.progress_token.and_then(own_id).and_then(|id| state.pending.get(&id));
                let is_delivered = pending.is_some_and(|pending| match &pending.token {
                    Some(token) if message.text.len() <= MAX_NOTIFICATION_BYTES => with_token(&received, token)
                        .is_some_and(|notification| pending.notifications.try_send(notification).is_ok()),
                    _ => false,
                });
                if !is_delivered {
                    Counters::add(&core.counters.dropped_notifications);
                }
            }
            MessageKind::Notification => {
                if deliver(state.listener.as_ref(), received).is_err() {
                    Counters::add(&core.counters.dropped_notifications);
                }
            }
            MessageKind::Result | MessageKind::Error => {
                match message.raw_id.and_then(own_id).and_then(|id| state.pending.remove(&id)) {
                    Some(pending) => drop(pending.response.send(Ok(received))),
                    None => Counters::add(&core.counters.unmatched_responses),
                }
            }
        }
        None
    }

    /// Reads an event, which takes over the memory that was reserved for it. Returns the answer to a request that is not passed
    /// on.
    fn receive_event(
        &self,
        event: Event,
        memory: &mut Reservation,
        core: &Core,
    ) -> Result<Option<Vec<u8>>, OutOfMemory> {
        if event.data.is_empty() || event.name.is_some() {
            return Ok(None);
        }
        let answer = match OwnedMessage::read(memory.hold(event.data.into())?) {
            Ok(message) if !event.is_lossy => self.receive(message, core),
            Ok(_) => {
                Counters::add(&core.counters.invalid_messages);
                None
            }
            Err(error) => {
                Counters::add(&core.counters.invalid_messages);
                let id = error.id.as_ref().and_then(|id| own_id(&id.to_string()));
                if let Some(pending) = id.and_then(|id| self.state().pending.remove(&id)) {
                    let _ = pending.response.send(Err(rejected(&error)));
                }
                None
            }
        };
        Ok(answer)
    }
}

/// Passes a message to the listener. Returns the message if there is no listener, if the listener is too slow, or if
/// the message is too large.
fn deliver(listener: Option<&mpsc::Sender<OwnedMessage>>, message: OwnedMessage) -> Result<(), OwnedMessage> {
    match listener.filter(|_| message.text().len() <= MAX_NOTIFICATION_BYTES) {
        Some(listener) => listener.try_send(message).map_err(TrySendError::into_inner),
        None => Err(message),
    }
}

/// Parses an ID. Returns `None` if it is not in the notation in which it was sent.
fn own_id(raw: &str) -> Option<u64> {
    raw.bytes().all(|byte| byte.is_ascii_digit()).then(|| raw.parse().ok())?
}

impl SseTransport {
    /// Opens a new stream, after which the caller must perform the handshake.
    pub(crate) async fn connect(&self, core: &Arc<Core>) -> Result<(), Error> {
        let limits = StreamLimits { max_bytes: usize::MAX, idle: STREAM_LIFETIME, timeout: STREAM_LIFETIME };
        let open = async {
            let mut response = core.http.get_events(Wire::Connecting.headers(), None, limits).await?;
            let mut parser = EventParser::new();
            loop {
                let chunk = response.chunk().await?;
                let chunk = chunk.ok_or(Error::invalid("the stream ended before the `endpoint` event"))?;
                let mut events = parser.push(&chunk).into_iter();
                if let Some(event) = events.find(|event| event.name.as_deref() == Some("endpoint")) {
                    // 2024-11-05, "HTTP with SSE": messages follow only after the client has sent one.
                    return Ok((response, parser, event.data));
                }
                if parser.buffered() > MAX_ERROR_BYTES {
                    return Err(Error::MessageTooLarge { limit: MAX_ERROR_BYTES });
                }
            }
        };
        let opened = tokio::time::timeout(core.limits.timeout, open).await.map_err(|_| Error::Timeout)?;
        let (response, parser, endpoint) = opened?;
        let endpoint = endpoint_url(&core.http.url, &endpoint)?;
        let shared: Arc<Shared> = Arc::default();
        let memory = core.memory.reserve();
        let reader = Reader { core: Arc::downgrade(core), shared: shared.clone(), response, parser, memory };
        let reader = waypost_jobs::spawn("upstream-sse", reader.run());
        *self.stream_slot() = Some(Arc::new(Stream { endpoint, shared, reader }));
        Ok(())
    }

    /// Closes the stream.
    pub(crate) fn close(&self) {
        drop(self.stream_slot().take());
    }

    /// Sends a request. Fails with [`Error::SessionLost`] if there is no stream.
    pub(crate) async fn open(&self, core: &Arc<Core>, outgoing: Outgoing, wire: &Wire) -> Result<SseExchange, Error> {
        let stream = self.stream()?;
        let limits = outgoing.limits(&core.limits);
        let Outgoing { id, text, mut headers, token, is_cancellable, .. } = outgoing;
        headers.extend(wire.headers());
        let (notifications, notification_receiver) = mpsc::channel(MAX_NOTIFICATIONS);
        let (response, response_receiver) = oneshot::channel();
        {
            let mut state = stream.shared.state();
            if state.is_closed {
                return Err(Error::SessionLost);
            }
            state.pending.insert(id, Pending { token, notifications, response });
        }
        let mut exchange = SseExchange {
            id,
            core: core.clone(),
            wire: wire.clone(),
            shared: stream.shared.clone(),
            notifications: notification_receiver,
            response: response_receiver,
            outcome: None,
            deadline: Instant::now() + limits.timeout,
            is_cancellable,
            is_done: false,
        };
        let sent = self.post(core, headers, text, limits).await;
        match sent {
            Ok(mut response) if response.status.is_success() => {
                // The response to the request arrives on the stream.
                let _ = read(&mut response, MAX_ERROR_BYTES).await;
                Ok(exchange)
            }
            Ok(response) => {
                exchange.is_cancellable = false;
                Err(self.error(&response))
            }
            Err(error) => Err(error),
        }
    }

    /// Sends a message.
    pub(crate) async fn post(
        &self,
        core: &Core,
        headers: HeaderMap,
        body: Vec<u8>,
        limits: StreamLimits,
    ) -> Result<StreamResponse, Error> {
        let stream = self.stream()?;
        core.http.post(Some(&stream.endpoint), headers, body, limits).await
    }

    /// Returns the error for an unsuccessful response to a message. Closes the stream if the server no longer knows it.
    pub(crate) fn error(&self, response: &StreamResponse) -> Error {
        if response.status == StatusCode::NOT_FOUND {
            self.close();
            return Error::SessionLost;
        }
        status_error(response.status, &response.headers)
    }

    /// Creates a listener for the messages that answer no request. An earlier listener ends.
    pub(crate) fn listen(&self) -> Result<SseListener, Error> {
        let (sender, receiver) = mpsc::channel(MAX_NOTIFICATIONS);
        let stream = self.stream()?;
        stream.shared.state().listener = Some(sender);
        Ok(SseListener(receiver))
    }

    fn stream(&self) -> Result<Arc<Stream>, Error> {
        let stream = self.stream_slot().clone();
        stream.filter(|stream| !stream.shared.state().is_closed).ok_or(Error::SessionLost)
    }

    fn stream_slot(&self) -> MutexGuard<'_, Option<Arc<Stream>>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the URL of the `endpoint` event, which must have the same origin (2024-11-05, "HTTP with SSE"): credentials are
/// sent to it.
fn endpoint_url(url: &Url, endpoint: &str) -> Result<Url, Error> {
    let target = url.join(endpoint.trim()).ok();
    let target = target.filter(|target| target.origin() == url.origin() && target.has_host());
    target.ok_or(Error::invalid("the `endpoint` event is not a URL of the same origin"))
}

/// Reads the stream until it ends.
struct Reader {
    core: Weak<Core>,
    shared: Arc<Shared>,
    response: StreamResponse,
    parser: EventParser,
    /// The memory of the incomplete event.
    memory: Reservation,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Reader {
    async fn run(mut self) {
        // Fails all requests, because it is unknown which request an incomplete message answers.
        if let Err(error) = self.read().await {
            self.shared.fail(error);
        }
    }

    async fn read(&mut self) -> Result<(), OutOfMemory> {
        while let Ok(Some(chunk)) = self.response.chunk().await {
            let Some(core) = self.core.upgrade() else { return Ok(()) };
            let limit = core.limits.max_message_bytes;
            for event in self.parser.push(&chunk) {
                if event.data.len() > limit {
                    return Ok(());
                }
                if let Some(answer) = self.shared.receive_event(event, &mut self.memory, &core)? {
                    core.send_detached(&Wire::Connecting, answer);
                }
            }
            if self.parser.buffered() > limit {
                return Ok(());
            }
            self.memory.set(self.parser.buffered())?;
        }
        Ok(())
    }
}

/// The messages that answer no request.
pub(crate) struct SseListener(mpsc::Receiver<OwnedMessage>);

impl SseListener {
    pub(crate) async fn next(&mut self) -> Option<OwnedMessage> {
        self.0.recv().await
    }
}

/// A request that waits for its response.
pub(crate) struct SseExchange {
    pub(crate) id: u64,
    core: Arc<Core>,
    wire: Wire,
    shared: Arc<Shared>,
    notifications: mpsc::Receiver<OwnedMessage>,
    response: oneshot::Receiver<Result<OwnedMessage, Error>>,
    outcome: Option<Result<OwnedMessage, Error>>,
    deadline: Instant,
    is_cancellable: bool,
    is_done: bool,
}

impl Drop for SseExchange {
    fn drop(&mut self) {
        let is_pending = self.shared.state().pending.remove(&self.id).is_some();
        if is_pending && self.is_cancellable {
            self.core.send_detached(&self.wire, cancelled(self.id));
        }
    }
}

impl SseExchange {
    pub(crate) async fn next(&mut self) -> Result<Option<OwnedMessage>, Error> {
        if self.is_done {
            return Ok(None);
        }
        if self.outcome.is_none() {
            tokio::select! {
                biased;
                Some(notification) = self.notifications.recv() => return Ok(Some(notification)),
                response = &mut self.response => {
                    let ended = || Err(Error::invalid("the stream ended before the response"));
                    self.outcome = Some(response.unwrap_or_else(|_| ended()));
                }
                () = tokio::time::sleep_until(self.deadline) => {
                    self.is_done = true;
                    return Err(Error::Timeout);
                }
            }
        }
        // Notifications that arrived before the response come first.
        if let Ok(notification) = self.notifications.try_recv() {
            return Ok(Some(notification));
        }
        self.is_done = true;
        self.outcome.take().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_sent_to_the_same_origin_only() {
        let base: Url = "https://example.com/a/sse?key=1".parse().unwrap();
        let url = |endpoint| endpoint_url(&base, endpoint).ok().map(String::from);
        assert_eq!(url("/messages?id=1").as_deref(), Some("https://example.com/messages?id=1"));
        assert_eq!(url("messages").as_deref(), Some("https://example.com/a/messages"));
        assert_eq!(url("https://example.com:443/m").as_deref(), Some("https://example.com/m"));
        for other in
            ["http://example.com/m", "https://example.com:444/m", "//evil.example/m", "file:///etc/passwd", "data:x"]
        {
            assert_eq!(url(other), None, "{other}");
        }
    }
}
