//! Servers with the HTTP+SSE transport of revision 2024-11-05: one stream for all messages from the server, and POST
//! requests for those from the client.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::Full;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use waypost_mcp_wire::sse::EventParser;
use waypost_toolbox_proto::http::{LogStream, MAX_MESSAGE_BYTES};

use super::announcements::Announcements;
use super::attribution::AbandonedCalls;
use super::http::{Exchange, HttpClient, Post, get_events};
use super::interface::Failure;
use super::lines::Budget;
use super::mux::{Cancel, Counters, Mux, MuxCall, NewCall};
use super::wire::{Request, Wire, cancelled};
use crate::supervisor::servers::LogSink;
use crate::tasks;

/// The maximum size of the body of the response to a message in bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// A server. Its session is the stream: if the stream ends, the next call starts a new session.
pub(super) struct Sse {
    pub(super) client: Arc<HttpClient>,
    pub(super) path: String,
    pub(super) budget: Budget,
    pub(super) counters: Arc<Counters>,
    pub(super) log: Arc<dyn LogSink>,
    pub(super) is_shared: bool,
    pub(super) announcements: Arc<Announcements>,
    pub(super) stream: Mutex<Option<Arc<Stream>>>,
}

/// An open stream.
pub(super) struct Stream {
    mux: Arc<Mux>,
    /// The URL to which messages are sent.
    endpoint: String,
    /// Ends the task that reads the stream.
    _stop: DropGuard,
}

impl Sse {
    /// Opens a new stream, which the handshake must follow.
    pub(super) async fn connect(&self) -> Result<(), Failure> {
        let mut exchange = self.client.send(get_events(&self.path, &Wire::default(), None)?).await?;
        if !exchange.status.is_success() {
            return Err(Failure::Status(exchange.status.as_u16()));
        }
        if !exchange.is_event_stream()? {
            return Err(Failure::NotMcp("the response is not a stream of events".to_owned()));
        }
        let mut parser = EventParser::new();
        let endpoint = loop {
            let ended = || Failure::Closed("the stream ended before the `endpoint` event".to_owned());
            let chunk = exchange.chunk().await.ok_or_else(ended)??;
            let mut events = parser.push(&chunk).into_iter();
            if let Some(event) = events.find(|event| event.name.as_deref() == Some("endpoint")) {
                // 2024-11-05, "HTTP with SSE": the server sends messages only after the client has sent one.
                break event.data;
            }
            if parser.buffered() > MAX_BODY_BYTES {
                return Err(Failure::NotMcp("the first event is too large".to_owned()));
            }
        };
        let endpoint = endpoint_path(&self.path, &endpoint)?;
        // The session begins with the stream, so there are no calls of earlier ones.
        let abandoned = AbandonedCalls::new(self.is_shared, false);
        let received = (abandoned, self.announcements.clone());
        let mux = Mux::new(self.budget.clone(), self.counters.clone(), self.log.clone(), received);
        let stop = CancellationToken::new();
        let reader = Reader { mux: mux.clone(), client: self.client.clone(), endpoint: endpoint.clone() };
        let stopped = stop.clone();
        tasks::spawn("sse", async move {
            let close = CloseOnDrop(reader.mux.clone());
            let cause = tokio::select! {
                cause = reader.read(exchange, parser) => cause,
                () = stopped.cancelled() => "the connection is no longer used",
            };
            close.0.close(cause);
        });
        let stream = Arc::new(Stream { mux, endpoint, _stop: stop.drop_guard() });
        *self.stream.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
        Ok(())
    }

    /// Sends a request. Fails with [`Failure::SessionLost`] if there is no stream.
    pub(super) async fn open(&self, request: Request, wire: &Wire) -> Result<MuxCall, Failure> {
        let stream = self.stream()?;
        let Request { id, text, original, caller, headers, deadline, slot, is_cancellable, .. } = request;
        let post = Post { path: &stream.endpoint, wire, target: None, text }.into_request_with(headers)?;
        let cancel = is_cancellable.then(|| self.cancel(&stream, wire));
        let call = stream.mux.register(NewCall { id, original, caller, deadline, slot, cancel })?;
        stream.mux.mark_sent(id);
        self.post(&stream, post, deadline).await.inspect_err(|error| {
            if matches!(error, Failure::Status(400..=499) | Failure::Refused(_)) {
                stream.mux.mark_rejected(id);
            }
        })?;
        Ok(call)
    }

    /// Sends a notification.
    pub(super) async fn notify(&self, text: Bytes, wire: &Wire, deadline: Instant) -> Result<(), Failure> {
        let stream = self.stream()?;
        let post = Post { path: &stream.endpoint, wire, target: None, text }.into_request()?;
        self.post(&stream, post, deadline).await
    }

    async fn post(
        &self,
        stream: &Stream,
        request: http::Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let send = async {
            let mut exchange = self.client.send(request).await?;
            exchange.read(MAX_BODY_BYTES).await?;
            match exchange.status {
                status if status.is_success() => Ok(()),
                StatusCode::NOT_FOUND => {
                    stream.mux.close("the server ended the session");
                    Err(Failure::SessionLost)
                }
                status => Err(Failure::Status(status.as_u16())),
            }
        };
        tokio::time::timeout_at(deadline, send).await.map_err(|_| Failure::Timeout)?
    }

    /// Sends a message whose outcome nobody waits for.
    pub(super) fn send_detached(&self, text: Vec<u8>, wire: &Wire) {
        let Ok(stream) = self.stream() else { return };
        let post = Post { path: &stream.endpoint, wire, target: None, text: text.into() };
        if let Ok(request) = post.into_request() {
            self.client.send_detached(request);
        }
    }

    fn cancel(&self, stream: &Stream, wire: &Wire) -> Cancel {
        let (client, endpoint, wire) = (self.client.clone(), stream.endpoint.clone(), wire.clone());
        Arc::new(move |id| {
            let post = Post { path: &endpoint, wire: &wire, target: None, text: cancelled(id).into() };
            if let Ok(request) = post.into_request() {
                client.send_detached(request);
            }
        })
    }

    /// Whether the stream is open.
    pub(super) fn is_open(&self) -> bool {
        self.stream().is_ok()
    }

    fn stream(&self) -> Result<Arc<Stream>, Failure> {
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner).clone();
        stream.filter(|stream| !stream.mux.is_closed()).ok_or(Failure::SessionLost)
    }
}

/// Returns the path and query of the `endpoint` event, which must be on the same server.
fn endpoint_path(path: &str, endpoint: &str) -> Result<String, Failure> {
    let invalid = || Failure::NotMcp("the `endpoint` event is not a URL of the server".to_owned());
    // The host name in the URL does not matter: connections are made to this port only.
    let base = url::Url::parse("http://localhost/").and_then(|base| base.join(path)).map_err(|_| invalid())?;
    let url = base.join(endpoint.trim()).map_err(|_| invalid())?;
    if url.scheme() != "http" {
        return Err(invalid());
    }
    Ok(url[url::Position::BeforePath..url::Position::AfterQuery].to_owned())
}

struct CloseOnDrop(Arc<Mux>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close("the connection ended");
    }
}

/// Reads the stream until it ends.
struct Reader {
    mux: Arc<Mux>,
    client: Arc<HttpClient>,
    endpoint: String,
}

impl Reader {
    async fn read(&self, mut exchange: Exchange, mut parser: EventParser) -> &'static str {
        while let Some(Ok(chunk)) = exchange.chunk().await {
            for event in parser.push(&chunk) {
                if event.name.is_none() && !event.data.is_empty() {
                    self.receive(event.data.as_bytes());
                }
            }
            if parser.buffered() > MAX_MESSAGE_BYTES {
                Counters::add(&self.mux.counters.oversized_messages);
                return "the server sent a message that is too large";
            }
        }
        "the server ended the stream"
    }

    fn receive(&self, text: &[u8]) {
        let Some(incoming) = self.mux.receive(text) else {
            Counters::add(&self.mux.counters.noise_lines);
            let text = String::from_utf8_lossy(&text[..text.len().min(crate::logs::MAX_TEXT_BYTES)]);
            return self.mux.log.line(LogStream::Stdout, &text);
        };
        for answer in incoming.answers {
            let post = Post { path: &self.endpoint, wire: &Wire::default(), target: None, text: answer.into() };
            if let Ok(request) = post.into_request() {
                self.client.send_detached(request);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_sent_to_the_same_server_only() {
        let path = |endpoint| endpoint_path("/a/sse", endpoint).ok();
        assert_eq!(path("/messages?id=1").as_deref(), Some("/messages?id=1"));
        assert_eq!(path("messages").as_deref(), Some("/a/messages"));
        assert_eq!(path("http://evil.example:99/m?x").as_deref(), Some("/m?x"), "the host is ignored");
        assert_eq!(path("?id=1").as_deref(), Some("/a/sse?id=1"));
        assert_eq!(path("file:///etc/passwd"), None);
    }
}
