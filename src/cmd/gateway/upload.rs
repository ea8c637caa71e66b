//! Sends one message to the gateway, and passes on what it answers.
//!
//! A gateway that restarts is not noticed: a request is repeated until the gateway accepts it. Once it may have been
//! processed, only requests that change nothing are repeated.

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
use waypost_mcp_wire::sse::EventParser;
use waypost_mcp_wire::strict::{Message, MessageKind, text_of};
use waypost_mcp_wire::{INTERNAL_ERROR, JsonRpcError};
use waypost_outbound::{Error as OutboundError, Failure, OutboundRequest, Route, StreamLimits, StreamResponse};

/// The limits of a response. The gateway ends calls earlier.
const LIMITS: StreamLimits = StreamLimits {
    max_bytes: 64 * 1024 * 1024,
    idle: Duration::from_secs(330),
    timeout: Duration::from_secs(24 * 60 * 60),
};
/// The time for which a request is repeated.
const RETRY_TIME: Duration = Duration::from_secs(30);
/// The limits of the time between two attempts, which doubles.
const RETRY_DELAYS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// The gateway.
pub(super) struct Endpoint {
    route: Route,
    url: Url,
    authorization: HeaderValue,
    /// The revision of the handshake, which every request repeats.
    revision: Mutex<Option<String>>,
    /// The session that the handshake began.
    session: Mutex<Option<HeaderValue>>,
    /// The headers that repeat arguments, by tool, from the lists that have been read (2026-07-28).
    annotated: Mutex<HashMap<String, Vec<ParamHeader>>>,
}

/// Why an attempt has failed.
struct Failed {
    /// The reason, for people.
    text: String,
    /// Whether the request was certainly not processed.
    is_unsent: bool,
    /// Whether another attempt can succeed.
    is_temporary: bool,
}

impl Endpoint {
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
            revision: Mutex::default(),
            session: Mutex::default(),
            annotated: Mutex::default(),
        })
    }

    /// Sends a message, and passes on the messages that answer it. A request is answered with an error if the gateway does
    /// not answer it.
    pub(super) async fn send(&self, text: &str, is_request: bool, sender: &mpsc::Sender<Vec<u8>>) {
        let Ok(message) = Message::read(text.as_bytes()) else { return };
        let (start, mut delay) = (Instant::now(), RETRY_DELAYS.0);
        let is_repeatable = message.method.as_deref() != Some("tools/call");
        loop {
            let failed = match self.attempt(&message, sender).await {
                Ok(()) => return,
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

    async fn attempt(&self, message: &Message<'_>, sender: &mpsc::Sender<Vec<u8>>) -> Result<(), Failed> {
        let body = message.text.as_bytes().to_vec();
        let request =
            OutboundRequest { method: Method::POST, url: self.url.clone(), headers: self.headers(message), body };
        let mut response = self.route.open(request, LIMITS).await.map_err(|error| unreachable(&error))?;
        let media_type = response.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_events = media_type.starts_with("text/event-stream");
        let is_json = media_type.starts_with("application/json");
        if message.method.as_deref() == Some("initialize") {
            let session = response.headers.get(SESSION_HEADER).cloned();
            *self.session.lock().unwrap_or_else(PoisonError::into_inner) = session;
        }
        match response.status {
            StatusCode::UNAUTHORIZED => {
                let text = "The gateway rejected the token of the agent: it is invalid, expired or revoked.";
                return Err(Failed { text: text.to_owned(), is_unsent: true, is_temporary: false });
            }
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                let text = "The gateway is temporarily unavailable. Try again later.".to_owned();
                // The other two are responses of a proxy, which may have passed the request on.
                let is_unsent = response.status == StatusCode::SERVICE_UNAVAILABLE;
                return Err(Failed { text, is_unsent, is_temporary: true });
            }
            _ if message.kind != MessageKind::Request => return Ok(()),
            status if status.is_success() && is_events => return self.relay_events(message, response, sender).await,
            // Errors of JSON-RPC have statuses such as 400 and 404.
            _ if is_json => {}
            status => {
                let text = format!("The gateway answered with HTTP status {}. Check the URL.", status.as_u16());
                return Err(Failed { text, is_unsent: true, is_temporary: false });
            }
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&error))? {
            body.extend_from_slice(&chunk);
        }
        self.relay(message, &body, sender).await.then_some(()).ok_or_else(no_response)
    }

    async fn relay_events(
        &self,
        message: &Message<'_>,
        mut response: StreamResponse,
        sender: &mpsc::Sender<Vec<u8>>,
    ) -> Result<(), Failed> {
        let mut events = EventParser::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&error))? {
            for event in events.push(&chunk) {
                if self.relay(message, event.data.as_bytes(), sender).await {
                    return Ok(());
                }
            }
        }
        Err(no_response())
    }

    /// Passes on a message of the gateway in one line. Returns whether it is the response to `request`.
    async fn relay(&self, request: &Message<'_>, text: &[u8], sender: &mpsc::Sender<Vec<u8>>) -> bool {
        let Ok(message) = Message::read(text) else { return false };
        let is_response = message.method.is_none();
        let is_own = message.raw_id.is_none_or(|id| id == "null") || message.raw_id == request.raw_id;
        if is_response && !is_own {
            return false;
        }
        self.learn(request, &message);
        let mut rewrite = Rewrite::new(&message);
        if is_response {
            // An error about a message that the gateway could not read has no ID.
            rewrite.set_id(request.raw_id.unwrap_or("null"));
        }
        // Fails only if the output is closed.
        let _ = sender.send(rewrite.finish()).await;
        is_response
    }

    /// Remembers what later requests need: the revision, and the headers that repeat arguments.
    fn learn(&self, request: &Message<'_>, response: &Message<'_>) {
        let Some(result) = &response.result else { return };
        match request.method.as_deref() {
            Some("initialize") => {
                let revision = text_of(result.protocol_version).map(std::borrow::Cow::into_owned);
                *self.revision.lock().unwrap_or_else(PoisonError::into_inner) = revision;
            }
            Some("tools/list") if request.is_modern() => {
                let tools: Vec<Value> = result.tools.and_then(|raw| serde_json::from_str(raw).ok()).unwrap_or_default();
                let annotated = tools.iter().filter_map(|tool| {
                    let headers = ParamHeader::of_tool(&tool.to_string());
                    Some((tool["name"].as_str()?.to_owned(), headers)).filter(|(_, headers)| !headers.is_empty())
                });
                *self.annotated.lock().unwrap_or_else(PoisonError::into_inner) = annotated.collect();
            }
            _ => {}
        }
    }

    /// Returns the headers of a message (2026-07-28, "Standard Request Headers"; earlier revisions, "Protocol Version
    /// Header").
    fn headers(&self, message: &Message<'_>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, self.authorization.clone());
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut insert = |name: &str, value: &str| {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        };
        let method = message.method.as_deref();
        let declared = text_of(message.params.meta.protocol_version);
        let Some(declared) = declared else {
            let revision = self.revision.lock().unwrap_or_else(PoisonError::into_inner);
            if method != Some("initialize") {
                revision.as_deref().iter().for_each(|revision| insert(VERSION_HEADER, revision));
                let session = self.session.lock().unwrap_or_else(PoisonError::into_inner).clone();
                headers.extend(session.map(|session| (HeaderName::from_static(SESSION_HEADER), session)));
            }
            return headers;
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

fn unreachable(error: &OutboundError) -> Failed {
    let is_unsent = match error {
        OutboundError::Unreachable { failure, .. } => !matches!(failure, Failure::IncompleteResponse),
        OutboundError::Timeout { .. } | OutboundError::TooLarge { .. } => false,
        _ => true,
    };
    let is_temporary =
        matches!(error, OutboundError::Unreachable { failure: Failure::Connection | Failure::IncompleteResponse, .. });
    Failed { text: format!("The gateway cannot be used: {error}"), is_unsent, is_temporary }
}

fn no_response() -> Failed {
    let text = "The gateway ended the response early. Whether the call was processed is unknown.".to_owned();
    Failed { text, is_unsent: false, is_temporary: true }
}
