//! Messages as they are sent to a server.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;
use waypost_mcp_wire::relay::RequestMeta;
use waypost_mcp_wire::revision::{METHOD_HEADER, MODERN, NAME_HEADER, header_value};
use waypost_mcp_wire::rewrite::{Rewrite, quote};
use waypost_mcp_wire::strict::{Message, text_of};
use waypost_mcp_wire::{JsonRpcError, METHOD_NOT_FOUND};
use waypost_outbound::StreamLimits;

use super::http::Wire;
use crate::error::Error;
use crate::options::Limits;

/// The maximum lifetime of a stream of messages that answer no request.
pub(crate) const STREAM_LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A request to send.
#[derive(Debug, Clone, Default)]
pub struct CallRequest<'a> {
    /// The method.
    pub method: &'a str,
    /// The parameters as JSON text. A progress token is replaced by the ID of the request, and restored in progress
    /// notifications. For a server of 2026-07-28, missing members of `_meta` are added; for an older one, members that
    /// exist only in 2026-07-28 are removed.
    pub params: Option<&'a str>,
    /// Further headers, such as those that repeat arguments.
    pub headers: HeaderMap,
    /// Headers of the client on whose behalf the request is sent. They replace neither a header of the connection
    /// ([`ConnectionOptions::headers`](crate::ConnectionOptions)), nor one of the request or the protocol.
    pub forwarded: HeaderMap,
    /// The timeout; `None` for that of the connection. `subscriptions/listen` has no timeout.
    pub timeout: Option<Duration>,
}

/// Counts the messages of a server that were not passed on.
#[derive(Debug, Default)]
pub struct Counters {
    /// Responses that match no pending request: late, repeated, or with an unknown ID.
    pub unmatched_responses: AtomicU64,
    /// Requests that were answered here or dropped, except `ping`.
    pub rejected_requests: AtomicU64,
    /// Notifications that belong to no request, or whose receiver is too slow.
    pub dropped_notifications: AtomicU64,
    /// Messages that are invalid or ambiguous.
    pub invalid_messages: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// A request with its ID.
pub(crate) struct Outgoing {
    pub(crate) id: u64,
    pub(crate) text: Vec<u8>,
    /// The headers that belong to this request.
    pub(crate) headers: HeaderMap,
    /// The progress token of the caller, as JSON text.
    pub(crate) token: Option<Box<str>>,
    /// Whether a server with a handshake is notified if the request is cancelled.
    pub(crate) is_cancellable: bool,
    /// Whether the response is a stream without limits on its total size and duration.
    pub(crate) is_stream: bool,
    timeout: Option<Duration>,
}

impl Outgoing {
    /// Creates a request. It is parsed strictly, so that no ambiguous request is sent.
    pub(crate) fn new(id: u64, call: &CallRequest<'_>, wire: &Wire, meta: &RequestMeta) -> Result<Self, Error> {
        let text = message_text(Some(id), call.method, call.params);
        let invalid = Error::InvalidRequest("the parameters are not valid or ambiguous");
        let Ok(message) = Message::read(text.as_bytes()) else { return Err(invalid) };
        if message.params.raw != call.params.map(str::trim) {
            return Err(invalid);
        }
        let own = &message.params.meta;
        let mut rewrite = Rewrite::new(&message);
        let token = own.progress_token.map(Into::into);
        if own.progress_token.is_some() {
            rewrite.set_meta("progressToken", Some(&id.to_string()));
        }
        let mut headers = call.headers.clone();
        if wire.is_modern() {
            rewrite.complete_request_meta(meta);
            headers.insert(METHOD_HEADER, encoded(call.method)?);
            let has_name = matches!(call.method, "tools/call" | "prompts/get" | "resources/read");
            if let Some(name) = text_of(message.target()).filter(|_| has_name) {
                headers.insert(HeaderName::from_static(NAME_HEADER), encoded(&name)?);
            }
        } else {
            rewrite.request_to_legacy();
        }
        // 2025-11-25, "Cancellation": `initialize` must not be cancelled.
        let is_cancellable = !wire.is_modern() && call.method != "initialize";
        let is_stream = call.method == "subscriptions/listen";
        Ok(Self { id, text: rewrite.finish(), headers, token, is_cancellable, is_stream, timeout: call.timeout })
    }

    /// Adds forwarded headers, except those of the protocol and those that the connection or the request has.
    pub(crate) fn forward(&mut self, forwarded: &HeaderMap, of_connection: &HeaderMap) {
        for (name, value) in forwarded {
            let is_of_protocol = name.as_str().starts_with("mcp-");
            if !is_of_protocol && !of_connection.contains_key(name) && !self.headers.contains_key(name) {
                self.headers.insert(name.clone(), value.clone());
            }
        }
    }

    /// Returns the limits of the response.
    pub(crate) fn limits(&self, limits: &Limits) -> StreamLimits {
        let of_connection = limits.of_response();
        match self.timeout {
            _ if self.is_stream => {
                StreamLimits { max_bytes: usize::MAX, idle: STREAM_LIFETIME, timeout: STREAM_LIFETIME }
            }
            // A request that may take longer may also be silent for longer.
            Some(timeout) => StreamLimits { idle: timeout, timeout, ..of_connection },
            None => of_connection,
        }
    }
}

/// Returns the members of `_meta` that every request of 2026-07-28 has.
pub(crate) fn request_meta(identity: &crate::options::Identity, capabilities: &str) -> RequestMeta {
    RequestMeta {
        protocol_version: quote(MODERN),
        client_info: json!(identity).to_string(),
        client_capabilities: capabilities.to_owned(),
    }
}

/// Returns a request, or a notification if there is no ID.
pub(crate) fn message_text(id: Option<u64>, method: &str, params: Option<&str>) -> String {
    let id = id.map_or(String::new(), |id| format!("\"id\":{id},"));
    let params = params.map_or(String::new(), |params| format!(",\"params\":{params}"));
    format!("{{\"jsonrpc\":\"2.0\",{id}\"method\":{}{params}}}", quote(method))
}

/// Returns the notification that cancels a request.
pub(crate) fn cancelled(id: u64) -> Vec<u8> {
    let params = json!({ "requestId": id, "reason": "The caller no longer waits." });
    message_text(None, "notifications/cancelled", Some(&params.to_string())).into_bytes()
}

/// Returns the response to a request of the server that is not passed on.
pub(crate) fn answer(request: &Message<'_>) -> Vec<u8> {
    let id = request.id();
    let response = match request.method.as_deref() {
        Some("ping") => json!({ "jsonrpc": "2.0", "id": id, "result": {} }),
        _ => JsonRpcError::new(METHOD_NOT_FOUND, "Method not found.", id).to_json(),
    };
    response.to_string().into_bytes()
}

fn encoded(value: &str) -> Result<HeaderValue, Error> {
    HeaderValue::try_from(header_value(value)).map_err(|_| Error::InvalidRequest("a name is not a header value"))
}
