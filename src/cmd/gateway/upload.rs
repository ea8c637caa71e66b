//! Sends a message to the gateway, and forwards the messages with which the gateway responds.
//!
//! Clients do not notice that the gateway restarts: a request is retried until the gateway accepts it. Once a request
//! may have been processed, it is retried only if it changes nothing. A session that the gateway no longer knows is
//! replaced.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use url::Url;
use waypost_mcp_wire::param_headers::ParamHeader;
use waypost_mcp_wire::revision::{METHOD_HEADER, NAME_HEADER, SESSION_HEADER, VERSION_HEADER, header_value};
use waypost_mcp_wire::rewrite::Rewrite;
use waypost_mcp_wire::strict::{Message, MessageKind, text_of};
use waypost_mcp_wire::{INTERNAL_ERROR, JsonRpcError};
use waypost_outbound::{Error as OutboundError, Failure, OutboundRequest, Route, StreamLimits, StreamResponse};

use super::incoming::Incoming;
use super::session::{Session, Sessions};

/// The limits of a response. The gateway ends calls earlier: a call takes at most 300 s, after it has waited for others for at
/// most 30 s.
const LIMITS: StreamLimits = StreamLimits {
    max_bytes: 64 * 1024 * 1024,
    idle: Duration::from_secs(360),
    timeout: Duration::from_secs(24 * 60 * 60),
};
/// The time for which a request is retried.
const RETRY_TIME: Duration = Duration::from_secs(30);
/// The minimum and maximum delay between two attempts. The delay doubles with each attempt.
const RETRY_DELAYS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));
/// The notification that ends a handshake.
const INITIALIZED: &str = "notifications/initialized";

/// The endpoint of the gateway, with the state that later messages need.
pub(super) struct Endpoint {
    route: Route,
    url: Url,
    authorization: HeaderValue,
    /// The sessions, for protocol revisions with a handshake.
    sessions: Sessions,
    /// Held while a session is replaced.
    replacing: tokio::sync::Mutex<()>,
    /// The headers that repeat arguments, by tool, from the last response to `tools/list` (2026-07-28).
    annotated: Mutex<HashMap<String, Vec<ParamHeader>>>,
}

/// A failed attempt.
pub(super) struct Failed {
    /// The reason, for the user.
    text: String,
    /// Whether the request was certainly not processed.
    is_unsent: bool,
    /// Whether another attempt can succeed.
    pub(super) is_temporary: bool,
    /// Whether the gateway does not know the session.
    is_session_lost: bool,
}

impl Failed {
    /// Creates the error for a request that was not processed, and for which a retry would not succeed either.
    fn rejected(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_unsent: true, is_temporary: false, is_session_lost: false }
    }
}

impl Endpoint {
    /// Creates an endpoint. `ca_pem` contains additional certificate authorities to trust.
    ///
    /// # Errors
    /// If the token cannot be sent, or a certificate authority is invalid.
    #[expect(clippy::disallowed_methods, reason = "the user of the command has entered the URL")]
    pub(super) fn new(url: Url, token: &str, ca_pem: Option<&[u8]>) -> anyhow::Result<Self> {
        let route = match ca_pem {
            Some(pem) => Route::unguarded_with_roots(&url, pem)?,
            None => Route::unguarded(&url)?,
        };
        let mut authorization = HeaderValue::try_from(format!("Bearer {token}"))?;
        authorization.set_sensitive(true);
        Ok(Self {
            route,
            url,
            authorization,
            sessions: Sessions::default(),
            replacing: tokio::sync::Mutex::default(),
            annotated: Mutex::default(),
        })
    }

    /// Sends a message, and forwards the messages with which the gateway responds. If the gateway does not respond to a
    /// request, the client receives an error.
    pub(super) async fn send(&self, text: &str, is_request: bool, sender: &mpsc::Sender<Vec<u8>>) {
        let Ok(message) = Message::read(text.as_bytes()) else { return };
        let (start, mut delay) = (Instant::now(), RETRY_DELAYS.0);
        let is_repeatable = message.method.as_deref() != Some("tools/call");
        let mut is_replaced = false;
        loop {
            let session = self.sessions.current();
            let failed = match self.attempt(&message, &session, sender).await {
                Ok(()) => return,
                Err(failed) if failed.is_session_lost && !is_replaced => {
                    match self.replace_session(&session).await {
                        // The message is a response to a request of the previous session, for which the gateway no
                        // longer waits.
                        Ok(()) if message.method.is_none() => return,
                        Ok(()) => {
                            is_replaced = true;
                            continue;
                        }
                        Err(failed) => Failed { is_unsent: true, ..failed },
                    }
                }
                Err(failed) => failed,
            };
            let can_repeat = failed.is_temporary && (failed.is_unsent || is_repeatable);
            if !can_repeat || start.elapsed() + delay > RETRY_TIME {
                if is_request {
                    let error = JsonRpcError::new(INTERNAL_ERROR, failed.text, message.id());
                    let _ = sender.send(error.to_json().to_string().into_bytes()).await;
                }
                return;
            }
            sleep(delay).await;
            delay = (delay * 2).min(RETRY_DELAYS.1);
        }
    }

    /// Sends a message once, and forwards the messages with which the gateway responds.
    async fn attempt(
        &self,
        message: &Message<'_>,
        session: &Session,
        sender: &mpsc::Sender<Vec<u8>>,
    ) -> Result<(), Failed> {
        let response = self.post(message, session).await?;
        if message.kind != MessageKind::Request {
            if message.method.as_deref() == Some(INITIALIZED) && response.status.is_success() {
                self.sessions.confirm();
            }
            return Ok(());
        }
        let new_session = response.headers.get(SESSION_HEADER).cloned();
        let mut incoming = read(response)?;
        while let Some(text) = incoming.next().await.map_err(|error| unreachable(&error))? {
            if self.relay((message, new_session.as_ref()), &text, sender).await {
                return Ok(());
            }
        }
        Err(no_response())
    }

    /// Sends a message and returns the response. A status that means that the message was rejected, or may not have
    /// been processed, is an error.
    async fn post(&self, message: &Message<'_>, session: &Session) -> Result<StreamResponse, Failed> {
        let headers = self.headers(message, session);
        let has_session = headers.contains_key(SESSION_HEADER);
        let opened = self.open(Method::POST, headers, message.text.as_bytes().to_vec()).await;
        let response = opened.map_err(|error| unreachable(&error))?;
        match response.status {
            StatusCode::UNAUTHORIZED => {
                Err(Failed::rejected("The gateway rejected the token of the agent: it is invalid, expired or revoked."))
            }
            StatusCode::NOT_FOUND if has_session => {
                let failed = Failed::rejected("The gateway does not know the session. Connect again.");
                Err(Failed { is_session_lost: true, ..failed })
            }
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                let failed = Failed::rejected("The gateway is temporarily unavailable. Try again later.");
                // The other two are responses of a proxy, which may have forwarded the request.
                let is_unsent = response.status == StatusCode::SERVICE_UNAVAILABLE;
                Err(Failed { is_unsent, is_temporary: true, ..failed })
            }
            _ => Ok(response),
        }
    }

    /// Sends a request with the token of the agent, and returns its response before the body is read.
    pub(super) async fn open(
        &self,
        method: Method,
        mut headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<StreamResponse, OutboundError> {
        headers.insert(AUTHORIZATION, self.authorization.clone());
        self.route.open(OutboundRequest { method, url: self.url.clone(), headers, body }, LIMITS).await
    }

    /// Returns the session of the client.
    pub(super) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Begins a new session by repeating the handshake of the client, unless `lost` has already been replaced. When the
    /// stream of the new session is open, the client is told that the lists may have changed, and its subscriptions are
    /// restored.
    ///
    /// If this future is dropped before it completes, the session has not been replaced. The next message that fails
    /// replaces it.
    pub(super) async fn replace_session(&self, lost: &Session) -> Result<(), Failed> {
        let _replacing = self.replacing.lock().await;
        let current = self.sessions.current();
        if current.number != lost.number {
            return Ok(());
        }
        let session = self.begin_again(current).await?;
        if session.is_initialized {
            self.exchange(&format!(r#"{{"jsonrpc":"2.0","method":"{INITIALIZED}"}}"#), &session).await?;
            self.set_log_level(&session).await?;
        }
        self.sessions.replace(lost.number, session.id);
        Ok(())
    }

    /// Repeats the handshake of the client. Returns the session with its new ID.
    async fn begin_again(&self, lost: Session) -> Result<Session, Failed> {
        let (id, text) = self.exchange(&self.sessions.initialize_request(), &lost).await?;
        let reject =
            |reason: &str| Failed::rejected(format!("The session has ended, and no other could begin: {reason}"));
        let message = Message::read(&text).map_err(|_| reject("the response of the gateway is not valid."))?;
        if let Some(error) = &message.error {
            return Err(reject(&error.message));
        }
        let revision = message.result.as_ref().and_then(|result| text_of(result.protocol_version));
        if revision.as_deref() != lost.revision.as_deref() {
            return Err(reject("the gateway has another revision of the protocol. Connect again."));
        }
        Ok(Session { id, ..lost })
    }

    /// Sets the log level of the client again, because the gateway keeps it in memory. An error response of the gateway
    /// is ignored.
    pub(super) async fn set_log_level(&self, session: &Session) -> Result<(), Failed> {
        if let Some(request) = self.sessions.log_level_request() {
            self.exchange(&request, session).await?;
        }
        Ok(())
    }

    /// Restores the subscriptions of the client. Error responses of the gateway are ignored.
    pub(super) async fn subscribe_again(&self, session: &Session) -> Result<(), Failed> {
        for request in self.sessions.subscription_requests() {
            self.exchange(&request, session).await?;
        }
        Ok(())
    }

    /// Sends the client the `list_changed` notifications that the gateway has declared.
    pub(super) async fn announce_lists(&self, sender: &mpsc::Sender<Vec<u8>>) {
        for notification in self.sessions.list_changes() {
            // Fails only if the output is closed.
            let _ = sender.send(notification).await;
        }
    }

    /// Sends a message that does not come from the client. Returns the session ID and the text of the response, neither
    /// of which the client receives. The text is empty if the message is not a request.
    async fn exchange(&self, text: &str, session: &Session) -> Result<(Option<HeaderValue>, Vec<u8>), Failed> {
        let message = Message::read(text.as_bytes()).map_err(|error| Failed::rejected(error.message))?;
        let response = self.post(&message, session).await?;
        let id = response.headers.get(SESSION_HEADER).cloned();
        if message.kind != MessageKind::Request {
            return Ok((id, Vec::new()));
        }
        let mut incoming = read(response)?;
        while let Some(text) = incoming.next().await.map_err(|error| unreachable(&error))? {
            if Message::read(&text).is_ok_and(|message| message.method.is_none()) {
                return Ok((id, text));
            }
        }
        Err(no_response())
    }

    /// Forwards a message from the gateway on one line. Returns whether it is the response to `request`. If that is an
    /// `initialize` request, `new_session` is the ID of the session that it has begun.
    async fn relay(
        &self,
        (request, new_session): (&Message<'_>, Option<&HeaderValue>),
        text: &[u8],
        sender: &mpsc::Sender<Vec<u8>>,
    ) -> bool {
        let Ok(message) = Message::read(text) else { return false };
        let is_response = message.method.is_none();
        let is_own = message.raw_id.is_none_or(|id| id == "null") || message.raw_id == request.raw_id;
        if is_response && !is_own {
            return false;
        }
        self.learn((request, new_session), &message);
        let mut rewrite = Rewrite::new(&message);
        if is_response {
            // An error about a message that the gateway could not read has no ID.
            rewrite.set_id(request.raw_id.unwrap_or("null"));
        }
        // Fails only if the output is closed.
        let _ = sender.send(rewrite.finish()).await;
        is_response
    }

    /// Remembers the state that later messages need: the session, and the headers that repeat arguments.
    fn learn(&self, (request, new_session): (&Message<'_>, Option<&HeaderValue>), response: &Message<'_>) {
        let Some(result) = &response.result else { return };
        match request.method.as_deref() {
            Some("initialize") => self.sessions.begin(request, new_session.cloned(), result),
            Some("tools/list") if request.is_modern() => {
                let tools: Vec<Value> = result.tools.and_then(|raw| serde_json::from_str(raw).ok()).unwrap_or_default();
                let annotated = tools.iter().filter_map(|tool| {
                    let headers = ParamHeader::of_tool(&tool.to_string());
                    Some((tool["name"].as_str()?.to_owned(), headers)).filter(|(_, headers)| !headers.is_empty())
                });
                *self.annotated.lock().unwrap_or_else(PoisonError::into_inner) = annotated.collect();
            }
            _ if !request.is_modern() => self.sessions.remember(request),
            _ => {}
        }
    }

    /// Returns the headers of a message (2026-07-28, "Standard Request Headers"; earlier revisions, "Protocol Version
    /// Header").
    fn headers(&self, message: &Message<'_>, session: &Session) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let method = message.method.as_deref();
        let declared = text_of(message.params.meta.protocol_version);
        let Some(declared) = declared else {
            if method != Some("initialize") {
                session.add_headers(&mut headers);
            }
            return headers;
        };
        let mut insert = |name: &str, value: &str| {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        };
        insert(VERSION_HEADER, &declared);
        insert(METHOD_HEADER, &header_value(method.unwrap_or_default()));
        let Some(target) = text_of(message.target()) else { return headers };
        match method {
            Some("tools/call") => {
                insert(NAME_HEADER, &header_value(&target));
                let annotated = self.annotated.lock().unwrap_or_else(PoisonError::into_inner);
                let params = annotated.get(target.as_ref()).map_or(&[][..], Vec::as_slice);
                for (name, value) in ParamHeader::values(params, message.params.arguments) {
                    insert(&name, &value);
                }
            }
            Some("prompts/get" | "resources/read") => insert(NAME_HEADER, &header_value(&target)),
            _ => {}
        }
        headers
    }
}

/// Begins to read the response to a request.
fn read(response: StreamResponse) -> Result<Incoming, Failed> {
    let status = response.status.as_u16();
    let rejected = || Failed::rejected(format!("The gateway answered with HTTP status {status}. Check the URL."));
    Incoming::new(response).ok_or_else(rejected)
}

fn unreachable(error: &OutboundError) -> Failed {
    let is_unsent = match error {
        OutboundError::Unreachable { failure, .. } => !matches!(failure, Failure::IncompleteResponse),
        OutboundError::Timeout { .. } | OutboundError::TooLarge { .. } => false,
        _ => true,
    };
    let is_temporary =
        matches!(error, OutboundError::Unreachable { failure: Failure::Connection | Failure::IncompleteResponse, .. });
    Failed { is_unsent, is_temporary, ..Failed::rejected(format!("The gateway cannot be used: {error}")) }
}

fn no_response() -> Failed {
    let text = "The gateway ended the response early. Whether the call was processed is unknown.";
    Failed { is_unsent: false, is_temporary: true, ..Failed::rejected(text) }
}
