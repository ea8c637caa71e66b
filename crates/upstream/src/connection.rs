//! The raw connection to one server.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use waypost_mcp_wire::log_level::LogLevel;
use waypost_mcp_wire::strict::{Message, MessageKind};

use crate::error::Error;
use crate::handshake::{Negotiated, Server, discover, initialize, may_be_legacy, may_be_sse, response_of, start};
use crate::options::{ConnectionOptions, Protocol};
use crate::transport::core::Core;
use crate::transport::exchange::{Exchange, HttpExchange, Source};
use crate::transport::message::{CallRequest, Counters, Outgoing, message_text};
use crate::transport::sse::SseTransport;

/// A connection to a server, whose messages are relayed unchanged. Cheap to clone.
///
/// Every message of the server is parsed strictly ([`Message::read`]): a rejected message ends its request with an
/// error, and is never passed on. Responses that match no pending request, and requests that are not accepted, are
/// counted ([`Counters`]). Request IDs are never reused. If a server with a handshake has ended the session (404), it
/// has not processed the request, so a new session is started and the request is sent once more.
#[derive(Clone)]
pub struct Connection(Arc<Inner>);

struct Inner {
    core: Arc<Core>,
    negotiated: RwLock<Arc<Negotiated>>,
    /// Held while a session is replaced.
    renewing: tokio::sync::Mutex<()>,
    /// The number of times that the session was replaced.
    renewals: AtomicU64,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("server", &self.server()).finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects to a server and negotiates the revision.
    ///
    /// # Errors
    /// Any [`Error`] of the last attempt.
    pub async fn open(options: ConnectionOptions) -> Result<Self, Error> {
        let protocol = options.protocol;
        if protocol == Protocol::Sse {
            return Self::open_sse(options, 1).await;
        }
        let core = Core::new(options.clone(), None, 1);
        if protocol != Protocol::Legacy {
            match discover(&core).await {
                Ok(Some(negotiated)) => return Ok(Self::new(core, negotiated)),
                Ok(None) if protocol == Protocol::Modern => return Err(Error::UnsupportedRevision),
                Ok(None) => {}
                Err(error) if protocol != Protocol::Modern && may_be_legacy(&error) => {}
                Err(error) => return Err(error),
            }
        }
        match initialize(&core).await {
            Ok(negotiated) => Ok(Self::new(core, negotiated)),
            Err(error) if protocol == Protocol::Any && may_be_sse(&error) => {
                // If the server does not speak HTTP+SSE either, the first error is more useful.
                Self::open_sse(options, core.next_id()).await.map_err(|_| error)
            }
            Err(error) => Err(error),
        }
    }

    async fn open_sse(options: ConnectionOptions, first_id: u64) -> Result<Self, Error> {
        let core = Core::new(options, Some(SseTransport::default()), first_id);
        if let Some(sse) = &core.sse {
            sse.connect(&core).await?;
        }
        let negotiated = initialize(&core).await?;
        Ok(Self::new(core, negotiated))
    }

    fn new(core: Arc<Core>, negotiated: Negotiated) -> Self {
        let negotiated = RwLock::new(Arc::new(negotiated));
        let (renewing, renewals) = (tokio::sync::Mutex::default(), AtomicU64::new(0));
        Self(Arc::new(Inner { core, negotiated, renewing, renewals }))
    }

    /// Whether `other` is a clone of this connection.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Returns the declarations of the server in the newest session.
    #[must_use]
    pub fn server(&self) -> Server {
        self.negotiated().server.clone()
    }

    /// Returns the number of times that the session was replaced. Everything that belonged to an earlier session, such
    /// as its stream and its subscriptions, has ended.
    #[must_use]
    pub fn renewals(&self) -> u64 {
        self.0.renewals.load(Ordering::Relaxed)
    }

    /// Whether the server uses 2026-07-28.
    #[must_use]
    pub fn is_modern(&self) -> bool {
        self.negotiated().wire.is_modern()
    }

    /// Returns the counters of the server's messages that were not passed on.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.0.core.counters
    }

    /// Sends a request and waits until the server begins to respond. Dropping the future or the exchange cancels the
    /// request.
    ///
    /// # Errors
    /// Any [`Error`] except [`Error::Rpc`]: an error response is a message of the exchange.
    pub async fn call(&self, call: CallRequest<'_>) -> Result<Exchange, Error> {
        let core = &self.0.core;
        let mut is_renewed = false;
        loop {
            let negotiated = self.negotiated();
            let mut outgoing = Outgoing::new(core.next_id(), &call, &negotiated.wire, &core.meta)?;
            outgoing.forward(&call.forwarded, &core.http.headers);
            match start(core, outgoing, &negotiated.wire).await {
                Err(Error::SessionLost) if !is_renewed => {
                    is_renewed = true;
                    Box::pin(self.renew(&negotiated)).await?;
                }
                result => return result.map(|(exchange, _)| exchange),
            }
        }
    }

    /// Sends a notification with these parameters (JSON text).
    ///
    /// # Errors
    /// Any [`Error`]. [`Error::InvalidRequest`] if the parameters are invalid or ambiguous.
    pub async fn notify(&self, method: &str, params: Option<&str>) -> Result<(), Error> {
        let text = message_text(None, method, params);
        let is_valid = Message::read(text.as_bytes()).is_ok_and(|message| message.kind == MessageKind::Notification);
        if !is_valid {
            return Err(Error::InvalidRequest("the notification is not valid or ambiguous"));
        }
        let negotiated = self.negotiated();
        match self.0.core.send(&negotiated.wire, text.clone().into_bytes()).await {
            Err(Error::SessionLost) => {
                self.renew(&negotiated).await?;
                self.0.core.send(&self.negotiated().wire, text.into_bytes()).await
            }
            result => result,
        }
    }

    /// Sends the response to a request of the server, in the session of the request (legacy).
    ///
    /// # Errors
    /// Any [`Error`]. [`Error::InvalidRequest`] if it is not a valid response, or if the server uses 2026-07-28.
    pub async fn respond(&self, response: &[u8]) -> Result<(), Error> {
        let is_response = Message::read(response).is_ok_and(|message| message.method.is_none());
        let negotiated = self.negotiated();
        if !is_response || negotiated.wire.is_modern() {
            return Err(Error::InvalidRequest("only servers with a handshake accept responses"));
        }
        self.0.core.send(&negotiated.wire, response.to_vec()).await
    }

    /// Ensures that a server with a handshake sends log messages of this level and above (2025-11-25, "Logging"). All
    /// callers get the messages from the lowest level that any of them has requested. Does nothing if the server does
    /// not support logging, or if it uses 2026-07-28, in which each request declares its level.
    ///
    /// # Errors
    /// Any [`Error`] except [`Error::Rpc`]: a server that refuses is not asked again.
    pub async fn request_logs(&self, level: LogLevel) -> Result<(), Error> {
        let negotiated = self.negotiated();
        if negotiated.wire.is_modern() {
            return Ok(());
        }
        let mut requested = negotiated.log_level.lock().await;
        if requested.is_some_and(|requested| requested <= level) {
            return Ok(());
        }
        if !negotiated.server.has_capability("logging") {
            *requested = Some(LogLevel::Debug);
            return Ok(());
        }
        let params = format!(r#"{{"level":"{}"}}"#, level.as_str());
        let call = CallRequest { method: "logging/setLevel", params: Some(&params), ..CallRequest::default() };
        match response_of(&mut self.call(call).await?).await {
            Ok(_) | Err(Error::Rpc(_)) => *requested = Some(level),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Opens the stream of messages that answer no request: `subscriptions/listen` with `filter` (the JSON text of its
    /// `notifications`) for 2026-07-28, otherwise the GET stream or, with HTTP+SSE, the messages on its stream that
    /// belong to no request. Returns `None` if the server has no such stream.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn listen(&self, filter: &str) -> Result<Option<Exchange>, Error> {
        let core = &self.0.core;
        let mut negotiated = self.negotiated();
        if negotiated.wire.is_modern() {
            let params = format!(r#"{{"notifications":{filter}}}"#);
            let call = CallRequest { method: "subscriptions/listen", params: Some(&params), ..CallRequest::default() };
            return self.call(call).await.map(Some);
        }
        let mut is_renewed = false;
        loop {
            let opened = match &core.sse {
                Some(sse) => sse.listen().map(|listener| Some(Source::Listener(listener))),
                None => HttpExchange::listen(core, &negotiated.wire)
                    .await
                    .map(|exchange| exchange.map(|exchange| Source::Http(Box::new(exchange)))),
            };
            match opened {
                Err(Error::SessionLost) if !is_renewed => {
                    is_renewed = true;
                    self.renew(&negotiated).await?;
                    negotiated = self.negotiated();
                }
                result => return result.map(|source| source.map(Exchange)),
            }
        }
    }

    /// Ends the session, if there is one. Open exchanges fail or end.
    ///
    /// # Errors
    /// [`Error::Transport`] if the server cannot be reached. The server may refuse to end a session, which is not an
    /// error.
    pub async fn close(self) -> Result<(), Error> {
        let core = &self.0.core;
        let wire = &self.negotiated().wire;
        match &core.sse {
            Some(sse) => sse.close(),
            None if wire.has_session() => {
                core.http.delete(wire.headers(), core.limits.of_response()).await?;
            }
            None => {}
        }
        Ok(())
    }

    /// Replaces the session `lost`, unless another request has already done so.
    async fn renew(&self, lost: &Arc<Negotiated>) -> Result<(), Error> {
        let _renewing = self.0.renewing.lock().await;
        if !Arc::ptr_eq(&self.negotiated(), lost) {
            return Ok(());
        }
        let core = &self.0.core;
        if let Some(sse) = &core.sse {
            sse.connect(core).await?;
        }
        let negotiated = initialize(core).await?;
        *self.0.negotiated.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(negotiated);
        self.0.renewals.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn negotiated(&self) -> Arc<Negotiated> {
        self.0.negotiated.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
