//! The session with a server.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt, stream};
use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use waypost_mcp_wire::client_capabilities::ClientCapabilities;
use waypost_mcp_wire::log_level::LogLevel;
use waypost_mcp_wire::relay::relay_request;
use waypost_mcp_wire::{Envelope, INVALID_REQUEST, JsonRpcError};
use waypost_toolbox_proto::http::{LogStream, MAX_MESSAGE_BYTES};

use super::announcements::{Announcements, MAX_STREAMS};
use super::caller::{Caller, WaitingRequests, can_ask};
use super::handshake::{First, negotiate};
use super::interface::Failure;
use super::lines::Budget;
use super::mux::Counters;
use super::params::ParamHeaders;
use super::sse::Sse;
use super::state::SessionFile;
use super::stdio::Stdio;
use super::streamable::Streamable;
use super::wire::{Negotiated, Request, Wire, as_line, request_meta};
use crate::logs::mask_text;
use crate::supervisor::servers::{CallFailure, CallOptions, ConnectContext, Messages};

/// The maximum number of calls that wait for one container.
pub const MAX_CALLS: usize = 256;
/// The maximum number of the daemon's own requests, such as probes, that wait for one container.
const MAX_OWN_CALLS: usize = 8;
/// The maximum timeout of a call.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// The timeout of a probe.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// The timeout of each page of a list.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);
/// The time for which calls wait for the server to set its log level.
const LOG_LEVEL_TIMEOUT: Duration = Duration::from_secs(2);
/// The limits of a tool list.
const MAX_PAGES: usize = 100;
const MAX_TOOLS: usize = 10_000;
/// The time after which the tools are listed again to find the headers of calls.
const PARAMS_AGE: Duration = Duration::from_secs(5 * 60);
/// The maximum length of server text in an error.
const MAX_CAUSE_BYTES: usize = 300;

pub(super) type RawMessages = Pin<Box<dyn Stream<Item = Result<Bytes, Failure>> + Send>>;

/// The transport over which messages are exchanged.
pub(super) enum Transport {
    Stdio(Stdio),
    Streamable(Streamable),
    Sse(Sse),
}

impl Transport {
    /// Sends a request. Returns its messages, and the session ID that the response sets.
    pub(super) async fn open(&self, request: Request, wire: &Wire) -> Result<(RawMessages, Option<String>), Failure> {
        match self {
            Self::Stdio(stdio) => Ok((stdio.open(request).await?.boxed(), None)),
            Self::Sse(sse) => Ok((sse.open(request, wire).await?.boxed(), None)),
            Self::Streamable(streamable) => {
                let (messages, session) = streamable.open(request, wire).await?;
                Ok((messages.boxed(), session))
            }
        }
    }

    /// Sends a notification or response.
    pub(super) async fn notify(&self, text: Bytes, wire: &Wire, deadline: Instant) -> Result<(), Failure> {
        match self {
            Self::Stdio(stdio) => stdio.notify(text, deadline).await,
            Self::Streamable(streamable) => streamable.notify(text, wire, deadline).await,
            Self::Sse(sse) => sse.notify(text, wire, deadline).await,
        }
    }

    /// Sends a message, without a line feed, whose outcome nobody waits for. Does not block: the message can be lost.
    pub(super) fn send_detached(&self, text: Vec<u8>, wire: &Wire) {
        match self {
            Self::Stdio(stdio) => stdio.send_detached(text),
            Self::Streamable(streamable) => streamable.send_detached(text, wire),
            Self::Sse(sse) => sse.send_detached(text, wire),
        }
    }
}

/// A transport and the source of its request IDs.
pub(super) struct Link {
    pub(super) transport: Transport,
    pub(super) file: SessionFile,
    pub(super) budget: Budget,
    pub(super) instance_id: Arc<str>,
    /// The client capabilities declared to the server in the handshake.
    pub(super) declared: ClientCapabilities,
    /// The requests from all servers to callers.
    pub(super) requests: WaitingRequests,
    /// The server's announcements outside of calls.
    pub(super) announcements: Arc<Announcements>,
}

/// An open session with a server. The connection is closed when the session is dropped.
pub struct Session {
    pub(super) link: Arc<Link>,
    negotiated: RwLock<Arc<Negotiated>>,
    /// Held while a lost session is replaced.
    renewing: tokio::sync::Mutex<()>,
    calls: Arc<Semaphore>,
    own_calls: Arc<Semaphore>,
    /// Limits the number of notification streams.
    pub(super) streams: Arc<Semaphore>,
    counters: Arc<Counters>,
    context: ConnectContext,
    /// The headers of tools, and when they were read.
    params: Mutex<Option<(Instant, Arc<ParamHeaders>)>>,
    /// The lowest log level requested from the server, and the session in which it was requested.
    log_level: tokio::sync::Mutex<Option<(Arc<Negotiated>, LogLevel)>>,
}

impl Session {
    pub(super) fn new(
        link: Arc<Link>,
        negotiated: Negotiated,
        counters: Arc<Counters>,
        context: ConnectContext,
    ) -> Self {
        Self {
            link,
            negotiated: RwLock::new(Arc::new(negotiated)),
            renewing: tokio::sync::Mutex::default(),
            calls: Arc::new(Semaphore::new(MAX_CALLS)),
            own_calls: Arc::new(Semaphore::new(MAX_OWN_CALLS)),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            counters,
            context,
            params: Mutex::default(),
            log_level: tokio::sync::Mutex::default(),
        }
    }

    /// Sends a message from the control plane and returns the messages that answer it. The last one is the response; there
    /// is none for a notification. Dropping the stream cancels the call. Requests among the messages are from the server to
    /// the caller; [`Bridge::respond`](super::Bridge::respond) accepts the responses until the stream ends.
    ///
    /// Only the ID, the progress token and, for a modern server, missing members of `_meta` are changed. `initialize`
    /// is answered from the handshake of this session, because it must not be repeated; `notifications/initialized` and
    /// `notifications/cancelled`, whose request ID is unknown to the server, are not sent.
    ///
    /// # Errors
    /// Returns a [`CallFailure`], or yields it as the last item of the stream. An invalid message is answered with a
    /// JSON-RPC error.
    pub async fn call(&self, message: Bytes, options: impl Into<CallOptions>) -> Result<Messages, CallFailure> {
        let options = options.into();
        let slot = self.calls.clone().try_acquire_owned().map_err(|_| Failure::Busy)?;
        if let Some(level) = options.log_level {
            self.request_logs(level, options.timeout).await;
        }
        let messages = self.relay(message, options.timeout, (slot, Some(&options))).await?;
        Ok(messages.map(|message| message.map_err(CallFailure::from)).boxed())
    }

    /// Checks that the server answers, with `ping` (legacy) or `server/discover` (modern), and returns the duration.
    ///
    /// # Errors
    /// Returns a sentence, without secrets, that says why the server does not answer.
    pub async fn probe(&self) -> Result<Duration, String> {
        let started = Instant::now();
        let method = if self.wire().is_modern() { "server/discover" } else { "ping" };
        self.request(method, json!({}), PROBE_TIMEOUT).await?;
        Ok(started.elapsed())
    }

    /// Lists the tools, and returns their number.
    ///
    /// # Errors
    /// Returns a sentence, without secrets, that says why the tools cannot be listed.
    pub async fn list_tools(&self) -> Result<usize, String> {
        self.tools().await.map(|tools| tools.len())
    }

    /// Lists the tools, and returns their definitions as received.
    ///
    /// # Errors
    /// Returns a sentence, without secrets, that says why the tools cannot be listed.
    pub async fn tools(&self) -> Result<Vec<Box<RawValue>>, String> {
        #[derive(Deserialize)]
        struct Page {
            tools: Vec<Box<RawValue>>,
            #[serde(default, rename = "nextCursor")]
            next_cursor: Option<String>,
        }
        let (mut tools, mut bytes, mut cursor) = (Vec::new(), 0, None::<String>);
        for _ in 0..MAX_PAGES {
            let params = cursor.as_ref().map_or_else(|| json!({}), |cursor| json!({ "cursor": cursor }));
            let result = self.request("tools/list", params, LIST_TIMEOUT).await?;
            let page: Page = serde_json::from_str(result.get())
                .map_err(|_| "The result of `tools/list` is not a list of tools.".to_owned())?;
            bytes += result.get().len();
            tools.extend(page.tools);
            if tools.len() > MAX_TOOLS || bytes > MAX_MESSAGE_BYTES {
                return Err(format!("The server has more than {MAX_TOOLS} tools, or their definitions are too large."));
            }
            match page.next_cursor.filter(|next| cursor.as_ref() != Some(next)) {
                Some(next) => cursor = Some(next),
                None => {
                    let headers = Arc::new(ParamHeaders::read(&tools));
                    *self.params.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), headers));
                    return Ok(tools);
                }
            }
        }
        Err(format!("The list of tools has more than {MAX_PAGES} pages."))
    }

    /// Waits until the connection is closed by the server. Only a stdio server can close it: other connections are
    /// opened as needed.
    pub async fn closed(&self) {
        match &self.link.transport {
            Transport::Stdio(stdio) => stdio.mux().closed().await,
            Transport::Streamable(_) | Transport::Sse(_) => std::future::pending().await,
        }
    }

    /// Returns the revision of the protocol.
    #[must_use]
    pub fn revision(&self) -> String {
        self.negotiated().revision.clone()
    }

    /// Returns the result of `initialize` or `server/discover`, as received: the server's name, capabilities and
    /// instructions.
    #[must_use]
    pub fn server(&self) -> String {
        self.negotiated().result.clone()
    }

    /// Returns the counters of dropped messages.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(super) async fn relay(
        &self,
        message: Bytes,
        timeout: Duration,
        (slot, options): (OwnedSemaphorePermit, Option<&CallOptions>),
    ) -> Result<RawMessages, Failure> {
        if message.len() > MAX_MESSAGE_BYTES {
            return Err(Failure::TooLarge);
        }
        let deadline = Instant::now() + timeout.min(MAX_TIMEOUT);
        let envelope = match Envelope::parse(&message) {
            Ok(envelope) => envelope,
            Err(error) => return Ok(reply(&error)),
        };
        match (envelope.method.as_deref(), &envelope.id) {
            (None, id) => {
                let text = "Invalid Request: responses to server requests have a separate endpoint.";
                Ok(reply(&JsonRpcError::new(INVALID_REQUEST, text, id.clone())))
            }
            (Some("notifications/initialized" | "notifications/cancelled"), None) => Ok(stream::empty().boxed()),
            (Some(_), None) => {
                self.notify(message.to_vec(), deadline).await?;
                Ok(stream::empty().boxed())
            }
            (Some("initialize"), Some(_)) if !self.wire().is_modern() => {
                let id = envelope.raw_id.map_or("null", RawValue::get);
                let result = &self.negotiated().result;
                let mut text = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#).into_bytes();
                waypost_mcp_wire::relay::make_single_line(&mut text);
                Ok(stream::iter([Ok(text.into())]).boxed())
            }
            (Some(_), Some(_)) => self.send(&envelope, deadline, (slot, options)).await,
        }
    }

    /// Sends a request. If the server has ended the session, a new one is started once.
    async fn send(
        &self,
        envelope: &Envelope<'_>,
        deadline: Instant,
        (slot, options): (OwnedSemaphorePermit, Option<&CallOptions>),
    ) -> Result<RawMessages, Failure> {
        // A modern server (2026-07-28) sends its requests to the caller in results.
        let can_ask = |wire: &Wire| !wire.is_modern() && envelope.method.as_deref().is_some_and(can_ask);
        let mut slot = Some(slot);
        let mut is_renewed = false;
        loop {
            let negotiated = self.negotiated();
            let wire = negotiated.wire();
            let id = self.link.file.next_id().await?;
            let meta = wire.is_modern().then(request_meta);
            let relayed = match relay_request(envelope, id, meta.as_ref()) {
                Ok(relayed) => relayed,
                Err(error) => return Ok(reply(&error)),
            };
            let name = if wire.is_modern() { name(envelope) } else { None };
            let mut headers = if wire.is_modern() { self.param_headers(envelope).await } else { Vec::new() };
            headers.extend(options.into_iter().flat_map(|options| options.forwarded.to_vec()));
            let request = Request {
                id,
                text: self.hold(relayed.text)?,
                original: relayed.original,
                caller: options
                    .filter(|_| can_ask(&wire))
                    .map(|options| Caller::new(&self.link, &wire, deadline, options)),
                method: envelope.method.as_deref().unwrap_or_default().to_owned(),
                name,
                headers,
                deadline,
                slot: slot.take(),
                is_cancellable: true,
            };
            match self.link.transport.open(request, &wire).await {
                Ok((messages, _)) => return Ok(messages),
                Err(Failure::SessionLost) if !is_renewed => {
                    is_renewed = true;
                    let renewed = tokio::time::timeout_at(deadline, self.renew(&negotiated)).await;
                    renewed.map_err(|_| Failure::Timeout)??;
                    slot = Some(self.calls.clone().try_acquire_owned().map_err(|_| Failure::Busy)?);
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Returns the headers that repeat arguments of a call to a modern HTTP server. Lists the tools if necessary.
    fn param_headers<'a>(&'a self, envelope: &'a Envelope<'a>) -> BoxFuture<'a, Vec<(HeaderName, HeaderValue)>> {
        let is_call = envelope.method.as_deref() == Some("tools/call");
        if !is_call || !matches!(self.link.transport, Transport::Streamable(_)) {
            return std::future::ready(Vec::new()).boxed();
        }
        let known = || self.params.lock().unwrap_or_else(PoisonError::into_inner).clone();
        async move {
            if known().is_none_or(|(read_at, _)| read_at.elapsed() > PARAMS_AGE) {
                // If this fails, the outcome of the call shows whether the server needs the headers.
                let _ = self.tools().await;
            }
            known().map_or_else(Vec::new, |(_, headers)| headers.of_call(envelope))
        }
        .boxed()
    }

    async fn notify(&self, mut text: Vec<u8>, deadline: Instant) -> Result<(), Failure> {
        waypost_mcp_wire::relay::make_single_line(&mut text);
        let text = self.hold(text)?;
        let negotiated = self.negotiated();
        match self.link.transport.notify(text.clone(), &negotiated.wire(), deadline).await {
            Err(Failure::SessionLost) => {
                let renewed = tokio::time::timeout_at(deadline, self.renew(&negotiated)).await;
                renewed.map_err(|_| Failure::Timeout)??;
                self.link.transport.notify(text, &self.wire(), deadline).await
            }
            result => result,
        }
    }

    /// Returns a message as a line that counts towards the memory of the connection.
    fn hold(&self, text: Vec<u8>) -> Result<Bytes, Failure> {
        self.link.budget.hold(as_line(text)).ok_or(Failure::Busy)
    }

    /// Replaces the session `lost`, unless another call has already done so.
    pub(super) async fn renew(&self, lost: &Arc<Negotiated>) -> Result<(), Failure> {
        let _renewing = self.renewing.lock().await;
        if !Arc::ptr_eq(&self.negotiated(), lost) {
            return Ok(());
        }
        self.context.log.line(LogStream::Toolbox, "the server ended the session; starting a new one");
        // The subscriptions have ended with the session.
        self.link.announcements.reset();
        if let Transport::Sse(sse) = &self.link.transport {
            sse.connect().await?;
        }
        let negotiated = negotiate(&self.link, First::OnlyInitialize).await?;
        let negotiated = announce(&self.link, negotiated).await?;
        *self.negotiated.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(negotiated);
        Ok(())
    }

    /// Requests log messages of this level and above from a server with a handshake (2025-11-25, "Logging"). All callers
    /// receive the messages from the lowest level that one of them has requested. Does nothing for transports other than
    /// Streamable HTTP, because their log messages belong to no call. If the server rejects a level, it is not requested again.
    async fn request_logs(&self, level: LogLevel, timeout: Duration) {
        let negotiated = self.negotiated();
        if negotiated.wire().is_modern() || !matches!(self.link.transport, Transport::Streamable(_)) {
            return;
        }
        let mut requested = self.log_level.lock().await;
        let is_requested =
            |(session, lowest): &(Arc<Negotiated>, LogLevel)| Arc::ptr_eq(session, &negotiated) && *lowest <= level;
        if requested.as_ref().is_some_and(is_requested) {
            return;
        }
        if !negotiated.has_capability("logging") {
            *requested = Some((negotiated, LogLevel::Debug));
            return;
        }
        let params = json!({ "level": level.as_str() });
        if let Err(cause) = Box::pin(self.request("logging/setLevel", params, timeout.min(LOG_LEVEL_TIMEOUT))).await {
            self.log(LogStream::Toolbox, &format!("failed to set the log level of the server: {cause}"));
        }
        // Set last, so that the next caller retries if this one disconnects.
        *requested = Some((negotiated, level));
    }

    /// Notifies the server again that the handshake is complete, if the daemon was killed before that was certain.
    pub(super) async fn announce_again(&self, saved: Negotiated) -> Result<(), Failure> {
        if !saved.is_announced {
            let negotiated = announce(&self.link, saved).await?;
            *self.negotiated.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(negotiated);
        }
        Ok(())
    }

    pub(super) fn is_stdio(&self) -> bool {
        matches!(self.link.transport, Transport::Stdio(_))
    }

    pub(super) fn log(&self, stream: LogStream, text: &str) {
        self.context.log.line(stream, text);
    }

    /// Sends a request from the daemon itself, and returns the result.
    pub(super) async fn request(
        &self,
        method: &str,
        params: Value,
        timeout: Duration,
    ) -> Result<Box<RawValue>, String> {
        let describe = |failure: Failure| self.describe(&CallFailure::from(failure).message);
        let slot = self.own_calls.clone().try_acquire_owned().map_err(|_| describe(Failure::Busy))?;
        let message = json!({ "jsonrpc": "2.0", "id": 0, "method": method, "params": params }).to_string();
        let exchange = async {
            let mut messages = self.relay(message.into(), timeout, (slot, None)).await?;
            let mut last = Bytes::new();
            while let Some(message) = messages.next().await {
                last = message?;
            }
            Ok(last)
        };
        let response = exchange.await.map_err(describe)?;
        let envelope = Envelope::parse(&response).map_err(|error| self.describe(&error.message))?;
        match (envelope.result, envelope.error) {
            (Some(result), _) => Ok(result.to_owned()),
            (None, error) => {
                let error = error.map_or("", |error| error.get());
                Err(self.describe(&format!("The server answered `{method}` with an error: {error}")))
            }
        }
    }

    /// Masks secrets in a text that can contain text from the server, and shortens it.
    fn describe(&self, text: &str) -> String {
        describe(&self.context.masks, text)
    }

    pub(super) fn negotiated(&self) -> Arc<Negotiated> {
        self.negotiated.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn wire(&self) -> Wire {
        self.negotiated().wire()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.link.announcements.reset();
    }
}

/// Saves a new session, and notifies a legacy server that the handshake is complete. The session is saved first, so
/// that a daemon that is killed in between repeats only the notification, not `initialize`.
pub(super) async fn announce(link: &Link, mut negotiated: Negotiated) -> Result<Negotiated, Failure> {
    link.file.save(&negotiated).await?;
    if !negotiated.is_announced {
        let text = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        let text = as_line(text.to_string().into_bytes()).into();
        link.transport.notify(text, &negotiated.wire(), Instant::now() + LIST_TIMEOUT).boxed().await?;
        negotiated.is_announced = true;
        link.file.save(&negotiated).await?;
    }
    Ok(negotiated)
}

/// Masks secrets in a text, and shortens it.
pub(super) fn describe(masks: &[String], text: &str) -> String {
    let mut text = mask_text(masks, text);
    text.truncate(text.floor_char_boundary(MAX_CAUSE_BYTES));
    text
}

/// Returns the tool, prompt or resource of a request ("Standard Request Headers" of 2026-07-28).
fn name(envelope: &Envelope<'_>) -> Option<String> {
    let has_name = matches!(envelope.method.as_deref(), Some("tools/call" | "prompts/get" | "resources/read"));
    if has_name { envelope.routing_params().ok()?.name } else { None }
}

fn reply(error: &JsonRpcError) -> RawMessages {
    stream::iter([Ok(error.to_json().to_string().into())]).boxed()
}
